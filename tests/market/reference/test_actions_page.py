"""The tables of docs/actions.md say what the imports of the recorded files really do."""

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from companyevents import CALENDAR, INDIA, US_CALENDAR

from odin_core.lake import Lake
from odin_core.market.reference.actionimport import import_actions
from odin_core.market.reference.fundamentalfiles import import_fundamentals

PAGE = (Path(__file__).parents[3] / "docs" / "actions.md").read_text()
ROWS = {name: [int(n) for n in counts] for name, *counts in re.findall(
    r"^\| (\S+\.(?:parquet|csv)) \| (\d+) \| (\d+) \| (\d+) \|", PAGE, re.MULTILINE)}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in ROWS if not n.startswith("fundamentals")])
def test_actions(tmp_path: Path, market_file: Callable[[str], Path], name: str):
    calendar = CALENDAR if name.startswith("nse") else US_CALENDAR
    (told,) = import_actions([market_file(name)], lake=Lake(tmp_path), calendar=calendar, zone=INDIA, symbol="AAPL")
    assert [told.rows, sum(told.kept.values()), sum(told.quarantined.values())] == ROWS[name]


@pytest.mark.parametrize("name", [n for n in ROWS if n.startswith("fundamentals")])
def test_fundamentals(tmp_path: Path, market_file: Callable[[str], Path], name: str):
    (told,) = import_fundamentals(
        [market_file(name)], lake=Lake(tmp_path), calendar=CALENDAR, zone=INDIA, known_at=date(2026, 8, 21)
    )
    assert [told.rows, len(told.figures), told.missing] == ROWS[name]


def test_all_six_files_are_on_the_page():
    assert len(ROWS) == 6
