"""`odin registry`: which model is champion, since when, and why; promotions and rollbacks by a person."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from odin_core import text
from odin_core.commands.common import SESSION, Command, as_json, common, emit, life_option, now, the_life

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life
    from odin_core.registry.history import Promotion


@click.group()
def registry() -> None:
    """The registry: which model is champion, since when, and why."""


@registry.command("list")
@common
@life_option
@click.option("--as-of", type=SESSION, help="As it stood at the close of this session; default: the head.")
@as_json
def list_events(home: Path, market: str, life_id: str | None, as_of: date | None, json_output: bool) -> None:
    """Every event: promoted, refused, insufficient, by a person, demoted."""
    from odin_core.registry.history import champion_as_of, history

    chosen = the_life(home, market, life_id)
    champion = champion_as_of(chosen, as_of or chosen.head or date.min)
    result = {
        "champion": champion.version if champion else None,
        "since": champion.since if champion else None,
        "history": history(chosen, as_of=as_of).to_dicts(),
    }
    emit(result, json_output, text.registry)


@registry.command("show")
@click.argument("version")
@common
@life_option
@as_json
def show(version: str, home: Path, market: str, life_id: str | None, json_output: bool) -> None:
    """A stored model: what it is and what the gate said of it."""
    from odin_core.registry.history import describe_version

    emit(describe_version(the_life(home, market, life_id), version), json_output, text.table_of_values)


def person_options(command: Command) -> Command:
    """--effective, --why and --dry-run."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Show the difference and change nothing."),
        click.option("--why", default="by a person", show_default=True, help="The reason, kept in the history."),
        click.option(
            "--effective",
            type=SESSION,
            help="First session it decides on; default: the second after the head, the first that is not planned yet.",
        ),
    ):
        command = option(command)
    return command


@registry.command("promote")
@click.argument("version")
@common
@life_option
@person_options
def promote(
    version: str, home: Path, market: str, life_id: str | None, effective: date | None, why: str, dry_run: bool
) -> None:
    """Make a stored model champion from a session after the head on."""
    from odin_core.registry.history import plan_promotion

    chosen = the_life(home, market, life_id)
    _decide(chosen, lambda: plan_promotion(chosen, version, effective, why), dry_run)


@registry.command("rollback")
@common
@life_option
@person_options
def rollback(home: Path, market: str, life_id: str | None, effective: date | None, why: str, dry_run: bool) -> None:
    """Back to the champion before the present one, from a session after the head on."""
    from odin_core.registry.history import plan_rollback

    chosen = the_life(home, market, life_id)
    _decide(chosen, lambda: plan_rollback(chosen, effective, why), dry_run)


def _decide(chosen: "Life", plan: Callable[[], "Promotion"], dry_run: bool) -> None:
    import getpass

    if dry_run:
        click.echo(plan().to_text())
        click.echo("dry run: nothing was changed")
        return
    with chosen.home.writer("odin registry"):
        promotion = plan()
        click.echo(promotion.to_text())
        promotion.apply(now(), getpass.getuser())
