"""`odin life`: which lives there are, which one is current, their settings, going back."""

from datetime import date
from pathlib import Path

import click

from odin_core import text
from odin_core.commands.common import (
    SESSION,
    as_json,
    common,
    emit,
    life_option,
    now,
    the_home,
    the_life,
    with_life_settings,
)


@click.group()
def life() -> None:
    """Lives: which there are, which one is current, going back."""


@life.command("list")
@common
@as_json
def list_lives(home: Path, market: str, json_output: bool) -> None:
    """Every life of the home, of all markets, the current one of each marked."""
    from odin_core.lifecycle import life as lives

    opened = the_home(home, create=False)
    rows = [lives.describe(found, current=lives.is_current(found)) for found in lives.lives(opened)]
    emit({"lives": rows}, json_output, lambda r: text.table(r["lives"]))


@life.command("new")
@common
@click.option("--start", type=SESSION, help="First session; default: the first of all that the market has.")
@with_life_settings
@as_json
def new(
    home: Path,
    market: str,
    start: date | None,
    seed: int | None,
    edge: float | None,
    assignments: tuple[str, ...],
    json_output: bool,
) -> None:
    """Make a life, without running it, and make it the current one.

    Nothing is taken over from the life that was current before: what is not said here has its default."""
    from odin_core.lifecycle import life as lives
    from odin_core.lifecycle.config import configured
    from odin_core.market.data import MarketData
    from odin_core.market.profile import load_profile

    load_profile(market).require_synthetic(edge)
    config = configured(seed=seed, edge=edge, assignments=assignments)
    opened = the_home(home)
    data = MarketData.of(opened, market, config)
    first = data.calendar.require(start or data.default_range()[0])
    with opened.writer("odin life new"):
        made = lives.create(opened, market, config, first)
    emit(lives.describe(made, current=True), json_output, text.table_of_values)


@life.command("use")
@click.argument("life_id")
@common
def use(life_id: str, home: Path, market: str) -> None:
    """Make a life its market's current one: the one that Dagit, the schedules and the commands drive."""
    from odin_core.lifecycle import life as lives

    chosen = the_life(home, market, life_id)
    with chosen.home.writer("odin life use"):
        lives.use(chosen.home, chosen)
    click.echo(f"{chosen.market}: current life is {chosen.id}")


@life.command("settings")
@common
@click.option("--life", "life_id", help="Show this life's values instead of the defaults.")
@as_json
def show_settings(home: Path, market: str, life_id: str | None, json_output: bool) -> None:
    """Every setting with its default, as --set takes it."""
    from odin_core.lifecycle.config import settings

    config = the_life(home, market, life_id).config if life_id is not None else None
    emit(settings(config), json_output, text.settings)


@life.command("rewind")
@common
@life_option
@click.option("--to", required=True, type=SESSION, help="The last session to keep.")
@click.option("--yes", is_flag=True, help="Do it; without this the command only says what it would do.")
def rewind(home: Path, market: str, life_id: str | None, to: date, yes: bool) -> None:
    """Go back to a finished session in a new generation; nothing is deleted."""
    from odin_core.lifecycle.life import plan_rewind
    from odin_core.registry.following import follow

    chosen = the_life(home, market, life_id)
    if not yes:
        click.echo(plan_rewind(chosen, to).to_text())
        click.echo("dry run: nothing was changed; add --yes to do it")
        return
    with chosen.home.writer(f"odin life rewind --to {to}"):
        planned = plan_rewind(chosen, to)
        click.echo(planned.to_text())
        planned.apply()
        chosen.note(now(), "rewind", to=to)
        follow(chosen, now())
