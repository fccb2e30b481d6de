"""The `odin` command: the groups put together, and how it ends. A user's mistake is one line and status 2."""

import errno
import logging
import sys
from datetime import date
from pathlib import Path

import click

from odin_core import text
from odin_core.commands import learners
from odin_core.commands.actions import actions, fundamentals
from odin_core.commands.alerts import alerts
from odin_core.commands.common import (
    SESSION,
    as_json,
    common,
    emit,
    life_option,
    now,
    require_page,
    the_home,
    the_life,
    with_life_settings,
)
from odin_core.commands.data import data
from odin_core.commands.database import database
from odin_core.commands.dataset import dataset
from odin_core.commands.encoder import encoder
from odin_core.commands.evaluate import evaluate
from odin_core.commands.features import features
from odin_core.commands.life import life
from odin_core.commands.monitoring import drift, performance
from odin_core.commands.options import options
from odin_core.commands.quality import accept, quality
from odin_core.commands.registry import registry
from odin_core.commands.remove import remove
from odin_core.commands.research import labels, structure
from odin_core.commands.rl import rl
from odin_core.commands.sources import check, compact, fetch, login, tap
from odin_core.errors import OdinError

SURROUNDINGS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE)


class NoAnswer(OdinError):
    def __init__(self, why: str) -> None:
        super().__init__(f'{why.rstrip(".!")}; `odin sql "show tables"` lists what there is')


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="odin")
def cli() -> None:
    """ODIN: a trading platform that learns by itself, as a Dagster asset graph.

    Begin with `odin bootstrap`, look at it with `odin dev`."""


@cli.command()
@common
@click.option("--start", type=SESSION, help="First session; default: the life's, or all that the market has.")
@click.option("--end", type=SESSION, help="Last session; default: all that the market has.")
@with_life_settings
@click.option("--storage", help="Dagster's storage: postgres (embedded), sqlite or a URL; default: what the home has.")
@as_json
def bootstrap(
    home: Path,
    market: str,
    start: date | None,
    end: date | None,
    seed: int | None,
    edge: float | None,
    assignments: tuple[str, ...],
    storage: str | None,
    json_output: bool,
) -> None:
    """Run a range of sessions: from no trades and no models to wherever the evidence allows.

    Finished sessions are skipped, so the same command goes on after a stop and extends a life by a later --end.
    Another --seed, --edge, --set or an earlier --start is another life; it becomes the current one."""
    from odin_assets.drive import bootstrap as drive

    result = drive(
        the_home(home),
        market,
        start=start,
        end=end,
        seed=seed,
        edge=edge,
        assignments=assignments,
        storage=storage,
        progress=sys.stderr.isatty(),
        clock=now,
    )
    emit(result, json_output, text.bootstrap)


@cli.command()
@common
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--storage", help="As for bootstrap.")
def dev(home: Path, market: str, port: int, storage: str | None) -> None:
    """Open Dagit and Dagster's daemon on 127.0.0.1 with the graph loaded; sensors and schedules are on."""
    from odin_assets.instance import dev as run

    click.echo(f"Dagit: http://127.0.0.1:{port}   (Ctrl-C ends it)", err=True)
    sys.exit(run(the_home(home), port=port, storage=storage))


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

    result = life_digest(the_life(home, market, life_id), through).to_dict()
    emit(result, json_output, text.table_of_values)


@cli.command()
@click.argument("query")
@common
@as_json
def sql(query: str, home: Path, market: str, json_output: bool) -> None:
    """Ask the lake in SQL (DuckDB). Tables: <market>_<table>; `show tables` lists them."""
    import duckdb

    from odin_core.catalog import connect

    try:
        with connect(the_home(home, create=False)) as connection:
            result = connection.sql(query)
            rows = result.pl() if result is not None else None
    except duckdb.Error as error:
        raise NoAnswer(str(error).strip().splitlines()[0]) from error
    if rows is not None:
        emit(rows.to_dicts(), True, str) if json_output else click.echo(text.frame(rows))


@cli.command()
@common
@life_option
@click.option("--first", type=SESSION, help="First session; default: the life's.")
@click.option("--last", type=SESSION, help="Last session; default: the life's head.")
@click.option("--out", type=click.Path(path_type=Path), help="A file .html or .md; default: among the life's reports.")
@as_json
def report(
    home: Path,
    market: str,
    life_id: str | None,
    first: date | None,
    last: date | None,
    out: Path | None,
    json_output: bool,
) -> None:
    """Write the tear sheet of a life as one page and print where it is: return, drawdown, months, trades, exposure,
    costs, by regime and by phase, against random portfolios, buying and holding, and doing nothing.

    --json prints the numbers of the page as well."""
    from odin_core.lifecycle.report import write_report

    require_page(out)
    chosen = the_life(home, market, life_id)
    if chosen.head is None:
        raise OdinError(f"life {chosen.id} has no finished session yet; run `odin bootstrap --market {chosen.market}`")
    written = write_report(chosen, first=first, last=last, out=out)
    emit(written.to_dict() if json_output else str(written.path), json_output, str)


for command in (fetch, check, login, tap, compact, actions, fundamentals, options, quality, accept, remove):
    data.add_command(command)
for group in (alerts, data, database, dataset, encoder, features, labels, life, registry, rl, structure):
    cli.add_command(group)
for command in (learners.train, learners.distil, learners.report, learners.shadow, learners.explain):
    rl.add_command(command)
for command in (drift, evaluate, performance):
    cli.add_command(command)


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        cli(prog_name="odin", standalone_mode=False)
    except OdinError as error:
        _die(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _die(_usage(error), error.exit_code or 2)
    except (click.Abort, KeyboardInterrupt):
        _die("stopped; the same command goes on from here", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno not in SURROUNDINGS:
            raise
        _die(f"{error.filename or 'the home'}: {error.strerror}; what was finished is kept, run the command again")


def _usage(error: click.ClickException) -> str:
    """What is wrong with a command line, and where its words are explained."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{error.format_message().rstrip('.')}; see {context.command_path if context else 'odin'} --help"


def _die(message: str, status: int = 2) -> None:
    """One line on standard error, whatever the message brought along."""
    click.echo(f"odin: {' '.join(message.split())}", err=True)
    sys.exit(status)
