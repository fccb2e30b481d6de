"""Long files, in windows of sessions: the same lake as in one piece, whatever the order of the rows."""

import random
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from weekdaybars import MINUTE, SOURCE, Weekdays, at, contents, day_of, load, row

from odin_core.lake import Lake
from odin_core.market.intake import barfiles, spilling
from odin_core.market.intake.barfiles import Said, UnreadableFile
from odin_core.market.intake.filechecks import WrongStamps
from odin_core.market.intake.importing import import_files

DAYS = [date(2021, 4, day) for day in (1, 2, 5, 6, 7, 8)]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of more than 500 rows count as long."""
    monkeypatch.setattr(barfiles, "BATCH", 500)
    monkeypatch.setattr(spilling, "BATCH", 500)


def rows_of_every_kind() -> list[dict[str, Any]]:
    """Three symbols on six days, with rows for every rule of the pipeline and rows of no session, in all places."""
    rows = [r for symbol in "ABC" for day in DAYS for r in day_of(symbol, day, range(188))]
    bad = [
        row("A", 3, day=DAYS[2], low=-1.0),
        row("A", 2, day=DAYS[2]),
        row("B", 4, day=DAYS[4], close=104.25),
        row("B", 380, day=DAYS[3]),
        row("C", 1) | {"ts": None},
        row("C", 1, day=date(2021, 4, 4)),
        row("C", 1, day=date(2021, 4, 3)),
    ]
    for place, r in enumerate(bad):
        rows.insert(450 * place + 30, r)
    return rows


ORDERS: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "by symbol": lambda rows: rows,
    "by time": lambda rows: sorted(rows, key=lambda r: (r["ts"] is not None, r["ts"] or at(0))),
    "newest first": lambda rows: rows[::-1],
    "jumbled": lambda rows: random.Random(5).sample(rows, len(rows)),
}


def written(rows: list[dict[str, Any]], path: Path) -> Path:
    frame = pl.DataFrame(rows, schema=SOURCE)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.with_columns(pl.col("ts").dt.to_string("%Y-%m-%dT%H:%M:%SZ")).write_csv(path)
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_long_file_leaves_what_it_would_in_one_piece(
    tmp_path: Path, order: str, kind: str, request: pytest.FixtureRequest
):
    path = written(ORDERS[order](rows_of_every_kind()), tmp_path / f"bars.{kind}")
    whole, windowed = Lake(tmp_path / "whole"), Lake(tmp_path / "windowed")
    in_one = load(whole, path).files[0]
    request.getfixturevalue("small_batches")
    in_windows = load(windowed, path).files[0]
    assert in_windows == in_one
    assert contents(windowed) == contents(whole)
    assert [p.name for p in windowed.root.iterdir() if p.name.startswith(".")] == []


@pytest.mark.usefixtures("small_batches")
def test_nothing_of_a_long_file_is_stored_before_all_of_it_was_found_right(lake: Lake, tmp_path: Path):
    ends = [r | {"ts": r["ts"] + MINUTE} for day in DAYS for r in day_of("A", day)]
    with pytest.raises(WrongStamps):
        load(lake, written(ends, tmp_path / "bars.parquet"))
    assert lake.tables() == []


@pytest.mark.usefixtures("small_batches")
def test_a_long_file_of_text_that_is_cut_is_refused_and_leaves_nothing(lake: Lake, tmp_path: Path):
    path = written([r for day in DAYS for r in day_of("A", day)], tmp_path / "bars.csv")
    path.write_text(path.read_text() + "2021-04-01T03:45:00Z,A,1,1,1,1,1,2,3,4\n")
    with pytest.raises(UnreadableFile, match="has 10 fields, but there are 7 columns"):
        load(lake, path)
    assert lake.tables() == []
    assert list(lake.root.iterdir()) == []


@pytest.mark.usefixtures("small_batches")
def test_what_a_killed_import_left_behind_is_cleared_by_the_next(lake: Lake, tmp_path: Path):
    left = lake.root / f"{spilling.PREFIX}abc"
    left.mkdir(parents=True)
    (left / "00000.parquet").write_bytes(b"half")
    load(lake, written(rows_of_every_kind(), tmp_path / "bars.parquet"))
    assert not left.exists()


@pytest.mark.usefixtures("small_batches")
def test_symbols_are_chosen_in_long_files_too(tmp_path: Path):
    path = written(rows_of_every_kind(), tmp_path / "bars.parquet")
    lake = Lake(tmp_path / "lake")
    report = import_files([path], lake=lake, calendar=Weekdays(), said=Said(symbols=("B",))).files[0]
    assert (report.symbols, report.left_out + report.rows) == (("B",), len(rows_of_every_kind()))
