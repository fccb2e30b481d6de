"""The `odin` command: parse, call, print. What a command does is elsewhere.

A user's mistake ends in one line and status 2."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.errors import OdinError
from odin_core.home import Home, open_home
from odin_core.market.profile import load_profile

if TYPE_CHECKING:
    from odin_core.market.barfiles import Stamps


def now() -> datetime:
    return datetime.now(UTC)


class Session(click.ParamType):
    name = "YYYY-MM-DD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            return value if isinstance(value, date) else date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date; write it as YYYY-MM-DD", param, ctx)


SESSION = Session()


def common(command: Callable[..., None]) -> Callable[..., None]:
    """--home and --market, which every command takes."""

    @wraps(command)
    def run(*args: Any, home: str, market: str, **kwargs: Any) -> None:
        load_profile(market)
        command(*args, home=Path(home), market=market, **kwargs)

    run = click.option("--market", default="demo", show_default=True, help="Market: the name of a profile.")(run)
    return click.option(
        "--home",
        default="data",
        show_default=True,
        envvar="ODIN_HOME",
        help="Folder that holds everything a run writes.",
    )(run)


as_json = click.option("--json", "json_output", is_flag=True, help="Print one JSON object and nothing else.")
life_settings = [
    click.option("--seed", type=click.IntRange(min=0), help="Seed of the life; default 7, or the current life's."),
    click.option("--edge", type=click.FloatRange(0, 1), help="Planted edge of a synthetic market; default 0.5."),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="NAME=VALUE",
        help="A setting, e.g. filter.adaptive=false; see `odin life settings`.",
    ),
]


def with_life_settings(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(life_settings):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="odin")
def cli() -> None:
    """ODIN: a trading platform that learns by itself, as a Dagster asset graph.

    Begin with `odin bootstrap`, look at it with `odin dev`."""


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        cli(standalone_mode=False)
    except OdinError as error:
        _die(f"odin: {error}")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _die("odin: stopped; the same command goes on from here", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _die(message: str, status: int = 2) -> None:
    click.echo(message, err=True)
    sys.exit(status)


def emit(result: dict[str, Any], json_output: bool, to_text: Callable[[dict[str, Any]], str]) -> None:
    click.echo(json.dumps(result, default=str) if json_output else to_text(result))


@cli.command()
@common
@click.option("--start", type=SESSION, help="First session; default: the life's, or all that the market has.")
@click.option("--end", type=SESSION, help="Last session; default: all that the market has.")
@with_life_settings
@click.option("--storage", help="Dagster's storage: postgres (embedded), sqlite or a URL; default: what the home has.")
@as_json
def bootstrap(home: Path, market: str, start: date | None, end: date | None, seed: int | None, edge: float | None,
              assignments: tuple[str, ...], storage: str | None, json_output: bool) -> None:  # fmt: skip
    """Run a range of sessions: from no trades and no models to wherever the evidence allows.

    Finished sessions are skipped, so the same command goes on after a stop and extends a life by a later --end."""
    from odin_assets.drive import bootstrap as drive

    result = drive(open_home(home), market, start=start, end=end, seed=seed, edge=edge, assignments=assignments,
                   storage=storage, progress=sys.stderr.isatty(), clock=now)  # fmt: skip
    emit(result, json_output, text.bootstrap)


@cli.command()
@common
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--storage", help="As for bootstrap.")
def dev(home: Path, market: str, port: int, storage: str | None) -> None:
    """Open Dagit and Dagster's daemon on 127.0.0.1 with the graph loaded; sensors and schedules are on."""
    from odin_assets.instance import dev as run

    click.echo(f"Dagit: http://127.0.0.1:{port}   (Ctrl-C ends it)", err=True)
    sys.exit(run(open_home(home), port=port, storage=storage))


@cli.group()
def data() -> None:
    """Market data: import it, see what there is."""


@data.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@common
@click.option(
    "--stamps",
    type=click.Choice(["start", "end"]),
    default="start",
    show_default=True,
    help="What the files' timestamps mark.",
)
@as_json
def data_import(files: tuple[Path, ...], home: Path, market: str, stamps: "Stamps", json_output: bool) -> None:
    """Bring minute bars from Parquet or CSV into the lake; rows that break a rule go to quarantine, with the reason."""
    from odin_core.market.calendar import session_calendar
    from odin_core.market.importing import import_files

    profile = load_profile(market)
    if profile.source["kind"] == "synthetic":
        raise OdinError(
            f"market {market} makes its own bars; import into a market of real data, for example --market nse"
        )
    opened = open_home(home)
    with (
        opened.writer(f"odin data import --market {market}"),
        text.progress_bar("import", sys.stderr.isatty()) as progress,
    ):
        report = import_files(files, lake=opened.lake(market), calendar=session_calendar(profile),
                              stamps=stamps, progress=progress)  # fmt: skip
    emit(report.to_dict(), json_output, lambda _: report.to_text())


@data.command("show")
@common
@as_json
def data_show(home: Path, market: str, json_output: bool) -> None:
    """Sessions, findings and quarantined rows that the lake holds."""
    from odin_core.market.data import holdings

    emit(holdings(open_home(home, create=False), market), json_output, text.table_of_values)


@cli.group()
def life() -> None:
    """Lives: which there are, which one is current, going back."""


def current_life(home: Path, market: str, life_id: str | None) -> Any:
    from odin_core.lifecycle import life as lives

    opened = open_home(home, create=False)
    found = lives.load(opened, life_id) if life_id else lives.current(opened, market)
    if found is None:
        raise OdinError(f"{home} has no life of market {market} yet; start one with `odin bootstrap --market {market}`")
    return found


life_option = click.option("--life", "life_id", help="A life's id or its beginning; default: the market's current one.")


@life.command("list")
@common
@as_json
def life_list(home: Path, market: str, json_output: bool) -> None:
    """Every life of the home, the current one of each market marked."""
    from odin_core.lifecycle import life as lives

    opened = open_home(home, create=False)
    rows = [lives.describe(found, current=lives.is_current(found)) for found in lives.lives(opened)]
    emit({"lives": rows}, json_output, lambda r: text.table(r["lives"]))


@life.command("new")
@common
@click.option("--start", type=SESSION, required=True, help="First session.")
@with_life_settings
@as_json
def life_new(
    home: Path,
    market: str,
    start: date,
    seed: int | None,
    edge: float | None,
    assignments: tuple[str, ...],
    json_output: bool,
) -> None:
    """Make a life, without running it, and make it the current one."""
    from odin_core.lifecycle import life as lives
    from odin_core.lifecycle.config import configured
    from odin_core.market.calendar import session_calendar

    session_calendar(load_profile(market)).require(start)
    made = lives.create(open_home(home), market, configured(seed=seed, edge=edge, assignments=assignments), start)
    emit(lives.describe(made, current=True), json_output, text.table_of_values)


@life.command("use")
@click.argument("life_id")
@common
def life_use(life_id: str, home: Path, market: str) -> None:
    """Make a life its market's current one: the one that Dagit, the schedules and the commands drive."""
    from odin_core.lifecycle import life as lives

    chosen = current_life(home, market, life_id)
    lives.use(chosen.home, chosen)
    click.echo(f"{chosen.market}: current life is {chosen.id}")


@life.command("settings")
@common
@as_json
def life_settings_command(home: Path, market: str, json_output: bool) -> None:
    """Every setting with its default, as --set takes it."""
    from odin_core.lifecycle.config import settings

    emit(settings(), json_output, text.table_of_values)


@life.command("rewind")
@common
@life_option
@click.option("--to", required=True, type=SESSION, help="The last session to keep.")
@click.option("--yes", is_flag=True, help="Do it; without this the command only says what it would do.")
def life_rewind(home: Path, market: str, life_id: str | None, to: date, yes: bool) -> None:
    """Go back to a finished session in a new generation; nothing is deleted."""
    from odin_core.lifecycle.life import plan_rewind

    chosen = current_life(home, market, life_id)
    with chosen.home.writer(f"odin life rewind --to {to}"):
        rewind = plan_rewind(chosen, to)
        click.echo(rewind.to_text())
        if yes:
            rewind.apply()
            chosen.note(now(), "rewind", to=to)
        else:
            click.echo("dry run: nothing was changed; add --yes to do it")


@cli.group()
def lake() -> None:
    """The lake: tables as Parquet."""


@lake.command("digest")
@common
@life_option
@click.option("--through", type=SESSION, help="Last session; default: the life's head.")
@as_json
def lake_digest(home: Path, market: str, life_id: str | None, through: date | None, json_output: bool) -> None:
    """One hash per table of what a life says, inputs apart; equal content gives equal hashes."""
    from odin_core.lifecycle.digest import life_digest

    result = life_digest(current_life(home, market, life_id), through).to_dict()
    emit(result, json_output, text.table_of_values)


@cli.command()
@click.argument("query")
@common
@as_json
def sql(query: str, home: Path, market: str, json_output: bool) -> None:
    """Ask the lake in SQL (DuckDB). Tables: <market>_<table>; `show tables` lists them."""
    import duckdb

    from odin_core.catalog import connect

    with connect(open_home(home, create=False)) as connection:
        try:
            result = connection.sql(query)
        except duckdb.Error as error:
            raise OdinError(f'{error}; `odin sql "show tables"` lists what there is') from error
        rows = result.pl() if result is not None else None
    if rows is not None:
        click.echo(json.dumps(rows.to_dicts(), default=str) if json_output else text.frame(rows))


@cli.group()
def registry() -> None:
    """The registry: which model is champion, since when, and why."""


@registry.command("list")
@common
@life_option
@click.option("--as-of", type=SESSION, help="As it stood at the close of this session; default: the head.")
@as_json
def registry_list(home: Path, market: str, life_id: str | None, as_of: date | None, json_output: bool) -> None:
    """Every event: promoted, refused, by a person, demoted."""
    from odin_core.registry.history import champion_as_of, history

    chosen = current_life(home, market, life_id)
    champion = champion_as_of(chosen, as_of or chosen.head or date.min)
    rows = history(chosen, as_of=as_of).to_dicts()
    result = {
        "champion": champion.version if champion else None,
        "since": champion.since if champion else None,
        "history": rows,
    }
    emit(result, json_output, lambda r: f"champion: {r['champion'] or 'none'}\n" + text.table(r["history"]))


@registry.command("show")
@click.argument("version")
@common
@life_option
@as_json
def registry_show(version: str, home: Path, market: str, life_id: str | None, json_output: bool) -> None:
    """A stored model: what it is and what the gate said of it."""
    from odin_core.registry.history import describe_version

    emit(describe_version(current_life(home, market, life_id), version), json_output, text.table_of_values)


def person_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--dry-run", is_flag=True, help="Show the difference and change nothing.")(command)
    command = click.option("--why", default="by a person", show_default=True, help="The reason, kept in the history.")(
        command
    )
    return click.option(
        "--effective",
        type=SESSION,
        help="First session it decides on; default: the second after the head, the first that is not planned yet.",
    )(command)


@registry.command("promote")
@click.argument("version")
@common
@life_option
@person_options
def registry_promote(
    version: str, home: Path, market: str, life_id: str | None, effective: date | None, why: str, dry_run: bool
) -> None:
    """Make a stored model champion from a session after the head on."""
    from odin_core.registry.history import plan_promotion

    chosen = current_life(home, market, life_id)
    _promote(chosen, lambda: plan_promotion(chosen, version, effective, why), dry_run)


@registry.command("rollback")
@common
@life_option
@person_options
def registry_rollback(
    home: Path, market: str, life_id: str | None, effective: date | None, why: str, dry_run: bool
) -> None:
    """Back to the champion before the present one, from a session after the head on."""
    from odin_core.registry.history import plan_rollback

    chosen = current_life(home, market, life_id)
    _promote(chosen, lambda: plan_rollback(chosen, effective, why), dry_run)


def _promote(chosen: Any, plan: Callable[[], Any], dry_run: bool) -> None:
    import getpass

    with chosen.home.writer("odin registry"):
        promotion = plan()
        click.echo(promotion.to_text())
        if dry_run:
            click.echo("dry run: nothing was changed")
        else:
            promotion.apply(now(), getpass.getuser())


@cli.command()
@common
@life_option
def report(home: Path, market: str, life_id: str | None) -> None:
    """Write the report of a life as one page and print where it is."""
    from odin_core.lifecycle.report import write_report

    chosen: Any = current_life(home, market, life_id)
    if chosen.head is None:
        raise OdinError(f"life {chosen.id} has no finished session yet; run `odin bootstrap --market {chosen.market}`")
    click.echo(str(write_report(chosen)[0]))


__all__ = ["Home", "cli", "main"]
