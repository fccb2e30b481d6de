"""What is refused as a whole file, and what is converted on the way in."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from weekdaybars import FRIDAY, MINUTE, SOURCE, THURSDAY, AlwaysOpen, at, damaged, day_of, ends, held_back, load, row

from odin_core.lake import Lake
from odin_core.market.bars import BARS
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.barfiles import MissingColumns, NaiveTimestamps, Said, UnreadableFile, WrongColumnType
from odin_core.market.intake.filechecks import WrongBarLength, WrongMarket, WrongStamps
from odin_core.market.intake.importing import import_files
from odin_core.market.intake.pages import NO_SESSION
from odin_core.market.profile import load_profile


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-5))])
def test_any_time_zone_is_converted(lake: Lake, tmp_path: Path, zone: timezone):
    stamps = [r["ts"].astimezone(zone).isoformat() for r in day_of("A")]
    pl.DataFrame(day_of("A"), schema=SOURCE).with_columns(ts=pl.Series(stamps)).write_csv(tmp_path / "bars.csv")
    load(lake, tmp_path / "bars.csv")
    assert lake.read("price_history", THURSDAY)["ts"].to_list() == [r["ts"] for r in day_of("A")]


@pytest.mark.parametrize("unit", ["ms", "ns"])
def test_zone_time_unit_and_number_types_of_parquet_are_converted(lake: Lake, tmp_path: Path, unit: Any):
    frame = pl.DataFrame([row("A", 0), row("A", 1)], schema=SOURCE).with_columns(
        pl.col("ts").dt.convert_time_zone("Asia/Kolkata").dt.cast_time_unit(unit),
        pl.col("symbol").cast(pl.Categorical),
        pl.col("volume").cast(pl.Int32),
        pl.col("open").cast(pl.Float32),
        oi=pl.lit(1),
    )
    frame.write_parquet(tmp_path / "bars.parquet")
    load(lake, tmp_path / "bars.parquet")
    stored = lake.read("price_history", THURSDAY)
    assert stored.schema == BARS
    assert stored["ts"].to_list() == [at(0), at(1)]


def test_text_that_is_no_number_or_no_time_is_held_back_as_it_stood(lake: Lake, tmp_path: Path):
    lines = [
        "ts,symbol,open,high,low,close,volume,oi",
        "2021-04-01T03:45:00Z,A,100,101,99,100.5,10,1",
        "2021-04-01 09:16:00+05:30,A, 100 ,101,99,100.5,,1",
        "2021-04-01T03:47Z,A,100,101,99,'+,10,1",
        "yesterday,A,100,101,99,100.5,10,1",
        "2021-04-01T03:49:00Z,A,100,101,99,100.5,many,1",
        "2021-04-01T03:50:00,A,100,101,99,100.5,10,1",
    ]
    path = tmp_path / "bars.csv"
    path.write_text("\n".join(lines))
    load(lake, path)
    assert lake.read("price_history", THURSDAY)["volume"].to_list() == [10.0, None]
    assert held_back(lake) == {2: "price_missing", 4: "volume_not_a_number"}
    assert held_back(lake, NO_SESSION) == {3: "ts_missing", 5: "ts_missing"}
    assert json.loads(lake.read("quarantine", THURSDAY)["content"][0])["close"] == "'+"


def test_a_file_that_cannot_be_read_is_named(lake: Lake, parquet: Callable[..., Path], tmp_path: Path):
    text = tmp_path / "text.parquet"
    text.write_text("ts,symbol\n")
    header = tmp_path / "header.csv"
    header.write_text("ts,symbol,open,high,low,close,volume\n")
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("ts,symbol,open,high,low,close,volume\n2021-04-01T03:45:00Z,A,1,1,1,1,1,2,3,4\n")
    broken = {
        tmp_path / "absent.parquet": "no such file",
        tmp_path: "not a file",
        damaged(parquet([row("A", 0)], "empty.parquet"), 0): r"empty \(0 bytes\)",
        damaged(parquet([row("A", 0)], "cut.parquet"), -9): "not a complete Parquet file",
        text: "not a complete Parquet file",
        parquet([], "rowless.parquet"): "no rows",
        header: "no rows",
        ragged: "line 2 has 10 fields, but there are 7 columns",
    }
    for path, why in broken.items():
        with pytest.raises(UnreadableFile, match=why) as error:
            load(lake, path)
        assert str(path) in str(error.value)
    assert lake.tables() == []


def test_missing_columns_are_named_with_those_found(lake: Lake, tmp_path: Path):
    path = tmp_path / "bars.parquet"
    pl.DataFrame({"time": [1], "symbol": ["A"], "close": [1.0]}).write_parquet(path)
    with pytest.raises(
        MissingColumns, match=r"bars\.parquet lacks the columns ts, open, high, low, volume.*time, symbol"
    ):
        load(lake, path)


@pytest.mark.parametrize(
    ("column", "values"),
    [("ts", [1]), ("ts", [THURSDAY]), ("symbol", [7]), ("open", [True]), ("volume", [[1.0]])],
    ids=["number as time", "date as time", "number as symbol", "flag as price", "list as volume"],
)
def test_a_column_of_the_wrong_type_is_named(lake: Lake, tmp_path: Path, column: str, values: list[Any]):
    path = tmp_path / "bars.parquet"
    pl.DataFrame([row("A", 0)], schema=SOURCE).with_columns(pl.Series(column, values)).write_parquet(path)
    with pytest.raises(WrongColumnType, match=f"column {column} is"):
        load(lake, path)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_naive_time_stamps_are_refused(lake: Lake, tmp_path: Path, kind: str):
    frame = pl.DataFrame(day_of("A"), schema=SOURCE).with_columns(pl.col("ts").dt.replace_time_zone(None))
    path = tmp_path / f"bars.{kind}"
    frame.write_parquet(path) if kind == "parquet" else frame.write_csv(path)
    with pytest.raises(NaiveTimestamps, match="naive"):
        load(lake, path)


def test_stamps_that_look_like_bar_ends_are_refused_with_the_way_to_convert(lake: Lake, parquet: Callable[..., Path]):
    path = parquet(ends(day_of("A") + day_of("A", FRIDAY)))
    with pytest.raises(WrongStamps, match=r"bar ENDS.*--stamps end"):
        load(lake, path)
    assert lake.tables() == []
    load(lake, path, stamps="end")
    assert lake.read("price_history", THURSDAY)["ts"].to_list() == [r["ts"] for r in day_of("A")]


def test_end_stamps_are_seen_through_gaps_and_prints_outside_the_hours(lake: Lake, parquet: Callable[..., Path]):
    rows = [r for n in range(8) for r in day_of(f"S{n}", minutes=[m for m in range(375) if m == 0 or (m + n) % 3])]
    thin, late = day_of("THIN", minutes=[3, 70, 374]), day_of("LATE", minutes=[-8, 0, 374, 380])
    with pytest.raises(WrongStamps, match="ENDS"):
        load(lake, parquet(ends(rows + thin + late)))


def test_stamps_that_look_like_bar_starts_are_not_shifted(lake: Lake, parquet: Callable[..., Path]):
    with pytest.raises(WrongStamps, match=r"bar STARTS.*without `--stamps end`"):
        load(lake, parquet(day_of("A")), stamps="end")


def test_a_late_start_with_a_stale_print_at_the_close_does_not_look_like_bar_ends(
    lake: Lake, parquet: Callable[..., Path]
):
    report = load(lake, parquet(day_of("A", minutes=[*range(30, 375), 375]) + day_of("B")))
    assert report.files[0].quarantined == {"outside_hours": 1}


@pytest.mark.parametrize("stamps", ["start", "end"])
def test_a_market_that_never_closes_cannot_tell_and_takes_what_is_said(
    lake: Lake, parquet: Callable[..., Path], stamps: Any
):
    rows = [row("A", 0) | {"ts": datetime(2021, 4, 1, tzinfo=UTC) + n * MINUTE} for n in range(2880)]
    report = import_files([parquet(rows)], lake=lake, calendar=AlwaysOpen(), said=Said(stamps=stamps))
    assert report.kept == 2880


def test_bars_of_another_length_are_refused(lake: Lake, parquet: Callable[..., Path]):
    with pytest.raises(WrongBarLength, match="5 minutes apart"):
        load(lake, parquet(day_of("A", minutes=range(0, 375, 5)) + day_of("B", minutes=range(0, 375, 5))))


def test_a_file_of_another_market_is_refused_before_anything_is_written(lake: Lake, parquet: Callable[..., Path]):
    night = [
        r | {"ts": r["ts"] + timedelta(hours=hours)} for hours in (8, 9, 10) for r in day_of("A", minutes=range(60))
    ]
    with pytest.raises(WrongMarket, match="100% of its rows, 2021-04-01 11:45 to 2021-04-01 14:44 UTC, lie outside"):
        load(lake, parquet(night))
    assert lake.tables() == []


def test_hours_of_the_wrong_zone_are_refused(lake: Lake, tmp_path: Path):
    local = pl.DataFrame(day_of("A"), schema=SOURCE).with_columns(
        pl.col("ts").dt.convert_time_zone("Asia/Kolkata").dt.replace_time_zone("UTC")
    )
    local.write_parquet(tmp_path / "bars.parquet")
    with pytest.raises(WrongMarket, match="mend the time zone"):
        load(lake, tmp_path / "bars.parquet")


def test_the_recorded_bars_of_another_market_are_refused(lake: Lake, market_file: Callable[[str], Path]):
    with pytest.raises(WrongMarket):
        import_files([market_file("crypto_1m.parquet")], lake=lake, calendar=session_calendar(load_profile("nse")))
