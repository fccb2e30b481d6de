"""`odin data options`: chains and open interest out of a market's option bars, as tables of its lake."""

import sys
from datetime import date
from pathlib import Path

import click

from odin_core import text
from odin_core.commands.common import SESSION, as_json, common, emit, the_home
from odin_core.errors import OdinError, in_order
from odin_core.market.profile import load_profile


class NoOptions(OdinError):
    def __init__(self, market: str, start: date | None, end: date | None) -> None:
        span = f"{start or 'the first'} to {end or 'the last session'}"
        super().__init__(
            f"{market} has no bars of options from {span}; `odin data show --market {market}` says what there is, and "
            f"contracts come in by `odin data import` or `odin data fetch`, for example into --market nse_options"
        )


@click.command("options")
@common
@click.option("--start", type=SESSION, help="First session; default: the first that has bars.")
@click.option("--end", type=SESSION, help="Last session; default: the last that has bars.")
@as_json
def options(home: Path, market: str, start: date | None, end: date | None, json_output: bool) -> None:
    """Write the tables option_chain and open_interest of each session that has bars of options (docs/options.md).

    What is there already and would be the same is left alone. `odin sql` finds them under the market's name."""
    from odin_core.market.calendar import session_calendar
    from odin_core.market.options.open_interest import BAR_TABLES, open_interest_of, store_open_interest

    in_order(start, end)
    profile, opened = load_profile(market), the_home(home, create=False)
    calendar, lake = session_calendar(profile), opened.lake(market)
    indices = [opened.lake(name) for name in profile.underlyings_in]
    stored = sorted({session for table in BAR_TABLES for session in lake.sessions(table)})
    asked = [session for session in stored if (start or session) <= session <= (end or session)]
    written, rows, without = 0, {"option_chain": 0, "open_interest": 0}, list[date]()
    with (
        opened.writer(f"odin data options --market {market}"),
        text.progress_bar("options", sys.stderr.isatty()) as progress,
    ):
        for done, session in enumerate(asked, 1):
            tables = open_interest_of(lake, session, profile=profile, calendar=calendar, indices=indices)
            written += store_open_interest(lake, session, tables)
            rows["option_chain"] += tables.chain.height
            rows["open_interest"] += tables.series.height
            without += [] if tables.chain.height else [session]
            progress(done, len(asked))
    if len(without) == len(asked):
        raise NoOptions(market, start, end)
    result = {"sessions": len(asked) - len(without), "written": written, "rows": rows, "without_options": without}
    emit(result, json_output, text.table_of_values)
