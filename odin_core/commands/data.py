"""`odin data`: bring market data in, see what there is."""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from odin_core import text
from odin_core.commands.common import as_json, common, data_of, emit, names, outdated, the_home
from odin_core.errors import OdinError
from odin_core.market.profile import load_profile

if TYPE_CHECKING:
    from odin_core.market.intake.layout import Stamps


class MakesItsOwnBars(OdinError):
    def __init__(self, market: str) -> None:
        super().__init__(
            f"market {market} makes its own bars; import into a market of real data, for example --market nse"
        )


@click.group()
def data() -> None:
    """Market data: import it, see what there is."""


@data.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@common
@click.option("--layout", help="A built-in layout's name, or your own FILE.yaml (docs/files.md). Default: what fits.")
@click.option("--timezone", help="Zone of stamps that have none, for example Asia/Kolkata.")
@click.option("--stamps", type=click.Choice(["start", "end"]), help="What stamps mark. Default: what the layout says.")
@click.option("--interval", help="Length of the bars: 1m, 5m, 60m, …, day. Default: what the layout says.")
@click.option("--symbol", help="What the file holds, where it does not say so itself.")
@click.option("--date", "day", type=click.DateTime(["%Y-%m-%d"]), help="Its day, where the file does not say so.")
@click.option("--symbols", help="Bring in only these, separated by commas.")
@click.option("--replace", is_flag=True, help="Stored bars that the file lacks go, of its symbols and sessions.")
@as_json
def import_bars(
    files: tuple[Path, ...],
    home: Path,
    market: str,
    layout: str | None,
    timezone: str | None,
    stamps: "Stamps | None",
    interval: str | None,
    symbol: str | None,
    day: datetime | None,
    symbols: str | None,
    replace: bool,
    json_output: bool,
) -> None:
    """Bring bars, ticks or trades from Parquet or text into the lake; rows that break a rule go to quarantine."""
    from odin_core.market.calendar import session_calendar
    from odin_core.market.intake.barfiles import Said
    from odin_core.market.intake.importing import import_files

    profile = load_profile(market)
    if profile.source["kind"] == "synthetic":
        raise MakesItsOwnBars(market)
    said = Said(
        layout=layout,
        timezone=timezone,
        stamps=stamps,
        interval=interval,
        symbol=symbol,
        date=day.date() if day else None,
        symbols=names(symbols),
    )
    opened, calendar = the_home(home), session_calendar(profile)
    with (
        opened.writer(f"odin data import --market {market}"),
        text.progress_bar("import", sys.stderr.isatty()) as progress,
    ):
        report = import_files(
            files, lake=opened.lake(market), calendar=calendar, said=said, replaces=replace, progress=progress
        )
    hint = outdated(opened, market, [day for file in report.files if file.interval == "1m" for day in file.written])
    emit(report.to_dict() | {"outdates": hint}, json_output, lambda _: "\n".join([report.to_text(), *hint]))


@data.command("show")
@common
@as_json
def show(home: Path, market: str, json_output: bool) -> None:
    """What the lake holds: bars by interval and symbol, findings and quarantined rows."""
    from odin_core.market.data import holdings

    _, seen = data_of(home, market)
    emit(holdings(seen.lake, market), json_output, text.holdings)
