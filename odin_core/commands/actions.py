"""`odin data actions` and `odin data fundamentals`: bring in what companies did and what they were worth."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from odin_core.commands.common import SESSION, as_json, common, emit, the_home
from odin_core.commands.data import MakesItsOwnBars
from odin_core.market.profile import load_profile

if TYPE_CHECKING:
    from odin_core.market.reference.actionimport import ActionReport
    from odin_core.market.reference.fundamentalfiles import FundamentalReport

FILES = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.command("actions")
@FILES
@common
@click.option("--symbol", help="Of a factor file that does not say of which symbol it is.")
@as_json
def actions(files: tuple[Path, ...], home: Path, market: str, symbol: str | None, json_output: bool) -> None:
    """Bring corporate actions from Parquet or CSV into the lake: splits, bonuses, dividends, mergers, new names.

    Events told twice, or that raw prices contradict, go to quarantine with the reason; bring prices in first."""
    from odin_core.market.reference.actionimport import import_actions

    _bring_in("actions", import_actions, files, home, market, json_output, symbol=symbol)


@click.command("fundamentals")
@FILES
@common
@click.option("--known-at", type=SESSION, help="When the figures were known, for a file that does not say it.")
@as_json
def fundamentals(files: tuple[Path, ...], home: Path, market: str, known_at: date | None, json_output: bool) -> None:
    """Bring fundamental figures from Parquet or CSV into the lake, each from when it was known."""
    from odin_core.market.reference.fundamentalfiles import import_fundamentals

    _bring_in("fundamentals", import_fundamentals, files, home, market, json_output, known_at=known_at)


def _bring_in(
    what: str,
    bring: "Callable[..., list[ActionReport] | list[FundamentalReport]]",
    files: tuple[Path, ...],
    home: Path,
    market: str,
    json_output: bool,
    **told: Any,
) -> None:
    from odin_core.market.calendar import session_calendar

    profile = load_profile(market)
    if profile.source["kind"] == "synthetic":
        raise MakesItsOwnBars(market)
    opened = the_home(home)
    with opened.writer(f"odin data {what} --market {market}"):
        reports = bring(
            files,
            lake=opened.lake(market),
            calendar=session_calendar(profile),
            zone=ZoneInfo(profile.timezone),
            **told,
        )
    emit({"files": [r.to_dict() for r in reports]}, json_output, lambda _: "\n".join(r.to_text() for r in reports))
