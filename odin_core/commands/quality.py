"""`odin data quality|accept`: what is wrong with a market's data, and what is right after all."""

from datetime import date
from pathlib import Path

import click

from odin_core.commands.common import SESSION, as_json, common, emit, the_home
from odin_core.errors import OdinError, in_order
from odin_core.market.profile import load_profile


class NothingStored(OdinError):
    def __init__(self, market: str) -> None:
        super().__init__(f"{market} has no bars yet; bring some in with `odin data import` or `odin data fetch`")


@click.command()
@common
@click.option("--start", type=SESSION, help="First session; default: the first that has bars.")
@click.option("--end", type=SESSION, help="Last session; default: the last that has bars.")
@as_json
def quality(home: Path, market: str, start: date | None, end: date | None, json_output: bool) -> None:
    """What is wrong with the market's data: a summary here, and a page with plots whose path is printed."""
    from odin_core.lake import write_text
    from odin_core.market.bars import interval_of
    from odin_core.market.calendar import session_calendar
    from odin_core.market.quality.report import quality_report

    profile, opened = load_profile(market), the_home(home, create=False)
    in_order(start, end)
    lake = opened.lake(market)
    have = sorted({session for table in lake.tables() if interval_of(table) for session in lake.sessions(table)})
    if not have:
        raise NothingStored(market)
    first, last = start or min(have[0], end or have[0]), end or max(have[-1], start or have[-1])
    report = quality_report(lake, profile, session_calendar(profile), first, last)
    page = opened.reports / f"quality_{market}.html"
    write_text(report.html, page)
    emit(report.to_dict() | {"page": page}, json_output, lambda _: f"{report.markdown}\n\n{page}")


@click.command()
@common
@click.option("--session", type=SESSION, required=True)
@click.option("--symbol", required=True, help="As in the finding; * for the session as a whole.")
@click.option("--rule", required=True, help="As in the finding, e.g. jump_without_action.")
@click.option("--interval", default="1m", show_default=True)
@click.option("--why", required=True, help="For those who read it later.")
@as_json
def accept(
    home: Path, market: str, session: date, symbol: str, rule: str, interval: str, why: str, json_output: bool
) -> None:
    """Say that an error finding is right data after all; it becomes a warning and stops nothing any more."""
    from odin_core.market.calendar import session_calendar
    from odin_core.market.quality.accepting import accept as write_down

    opened, calendar = the_home(home, create=False), session_calendar(load_profile(market))
    with opened.writer(f"odin data accept --market {market}"):
        findings = write_down(
            opened.lake(market), calendar, session, symbol=symbol, rule=rule, why=why, interval=interval
        )
    errors = findings.filter(severity="error").height
    said = f"{session} {symbol} {rule} is accepted; {errors} errors of the session remain"
    emit({"accepted": f"{symbol} {rule}", "errors": errors}, json_output, lambda _: said)
