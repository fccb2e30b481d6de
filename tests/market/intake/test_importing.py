"""Files of bars into the lake: every row is a bar or a quarantine row, and importing again changes nothing."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weekdaybars import FRIDAY, SOURCE, THURSDAY, Weekdays, at, contents, damaged, day_of, held_back, load, row

from odin_core.lake import Lake, PartitionUnreadable, logical_hash
from odin_core.market.bars import BARS
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.barfiles import UnreadableFile
from odin_core.market.intake.importing import import_files
from odin_core.market.intake.pages import NO_SESSION
from odin_core.market.profile import load_profile
from odin_core.market.quality.assessing import ARRIVALS, FINDINGS, QUARANTINE, RULES, assess_sessions, blocking


def test_sound_bars_are_stored_by_session_and_known_at_their_end(lake: Lake, parquet: Callable[..., Path]):
    path = parquet(day_of("B") + day_of("A") + day_of("A", FRIDAY))
    report = load(lake, path)
    assert lake.sessions("price_history") == [THURSDAY, FRIDAY]
    thursday = lake.read("price_history", THURSDAY)
    assert thursday.schema == BARS
    assert thursday["symbol"].to_list() == ["A"] * 375 + ["B"] * 375
    assert thursday.row(0, named=True) == row("A", 0) | {"known_at": at(1), "oi": None}
    assert lake.read("arrivals", THURSDAY).schema == ARRIVALS
    assert lake.read("data_quality", THURSDAY).schema == FINDINGS
    assert lake.sessions("quarantine") == []
    assert report.to_dict() == {
        "files": [
            {
                "origin": "bars.parquet",
                "interval": "1m",
                "layout": "odin",
                "rows": 1125,
                "kept": 1125,
                "bars": 1125,
                "left_out": 0,
                "quarantined": {},
                "out_of_order": 0,
                "corrected": 0,
                "removed": 0,
                "symbols": 2,
                "sessions": {"written": 2, "unchanged": 0},
                "first": "2021-04-01",
                "last": "2021-04-02",
            }
        ],
        "blocked": {str(FRIDAY): ["A repeated_session: all bars are those of 2021-04-01 again"]},
    }


BROKEN: dict[str, list[dict[str, Any]]] = {
    "not_a_bar": [dict.fromkeys(("ts", "open", "high", "low", "close")), dict.fromkeys(SOURCE)],
    "ts_missing": [{"ts": None}],
    "symbol_missing": [{"symbol": None}, {"symbol": ""}],
    "ts_not_whole_minute": [{"ts": at(5) + timedelta(seconds=1)}, {"ts": at(5) + timedelta(microseconds=1)}],
    "price_missing": [{"open": None}, {"close": float("nan")}, {"high": float("inf")}, {"low": None}],
    "price_not_positive": [{"low": 0.0}, {"open": -1.0}, {"low": -0.0}],
    "volume_negative": [{"volume": -1.0}],
    "volume_not_a_number": [{"volume": float("inf")}],
    "high_below_low": [{"high": 98.0, "low": 99.0}],
    "open_close_outside_range": [{"open": 200.0}, {"close": 1.0}],
    "outside_calendar": [{"ts": datetime(1970, 1, 1, tzinfo=UTC)}, {"ts": datetime(2566, 4, 1, 5, tzinfo=UTC)}],
    "not_a_session": [{"ts": datetime(2021, 4, 3, 5, tzinfo=UTC)}],
    "outside_hours": [{"ts": at(-1)}, {"ts": at(-8)}, {"ts": at(375)}, {"ts": at(391)}],
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_row_is_held_back_with_file_row_and_rule(lake: Lake, parquet: Callable[..., Path], rule: str):
    rows = day_of("A")
    for change in BROKEN[rule]:
        rows.insert(5, row("A", 5) | change)
    path = parquet(rows)
    report = load(lake, path)
    assert report.files[0].quarantined == {rule: len(BROKEN[rule])}
    assert lake.read("price_history", THURSDAY).height == 375
    kept_back = pl.concat([lake.read("quarantine", s) for s in lake.sessions("quarantine")])
    assert kept_back.schema == QUARANTINE
    assert kept_back["origin"].unique().to_list() == ["bars.parquet"]
    assert sorted(kept_back["row"]) == list(range(5, 5 + len(BROKEN[rule])))
    for held in kept_back.iter_rows(named=True):
        content = json.loads(held["content"])
        assert content["symbol"] == rows[held["row"]]["symbol"]


def test_every_rule_is_explained_and_tried():
    assert set(RULES) == set(BROKEN) | {"duplicate_copy", "duplicate_conflict", "oi_not_a_number"}


def test_open_interest_is_kept_and_one_that_is_no_number_is_held_back(lake: Lake, tmp_path: Path):
    path = tmp_path / "bars.parquet"
    rows = pl.DataFrame([row("A", minute) for minute in range(5)], schema=SOURCE)
    rows.with_columns(oi=pl.Series([100.0, None, -1.0, float("inf"), float("nan")])).write_parquet(path)
    load(lake, path)
    assert lake.read("price_history", THURSDAY)["oi"].to_list() == [100.0, None, None]
    assert held_back(lake) == {2: "oi_not_a_number", 3: "oi_not_a_number"}


def test_rows_that_belong_to_no_session_have_a_partition_of_their_own(lake: Lake, parquet: Callable[..., Path]):
    load(lake, parquet([*day_of("A"), row("A", 0) | {"ts": None}, row("A", 0, day=date(2021, 4, 4))]))
    assert held_back(lake, NO_SESSION) == {375: "ts_missing", 376: "not_a_session"}
    assert lake.sessions("data_quality") == [THURSDAY]


def test_missing_volume_is_no_fault(lake: Lake, parquet: Callable[..., Path]):
    report = load(lake, parquet([row("A", 0, volume=None), row("A", 1, volume=float("nan")), row("A", 2, volume=0.0)]))
    assert report.kept == 3
    assert lake.read("price_history", THURSDAY)["volume"].to_list() == [None, None, 0.0]


def test_of_duplicates_the_first_is_kept_and_copies_are_told_from_conflicts(lake: Lake, parquet: Callable[..., Path]):
    other = row("A", 3, close=102.5)
    rows = [row("A", 2), row("A", 3), row("A", 3), other, row("A", 3), other, row("B", 3), row("A", 4)]
    report = load(lake, parquet(rows))
    copy, conflict = "duplicate_copy", "duplicate_conflict"
    assert held_back(lake) == {2: copy, 3: conflict, 4: copy, 5: conflict}
    assert report.kept == 4
    assert lake.read("price_history", THURSDAY).filter(ts=at(3), symbol="A")["close"].to_list() == [103.5]


def test_a_broken_row_does_not_make_a_sound_one_a_duplicate(lake: Lake, parquet: Callable[..., Path]):
    load(lake, parquet([row("A", 3, close=-1.0), row("A", 3)]))
    assert held_back(lake) == {0: "price_not_positive"}


def test_rows_out_of_order_are_sorted_in_kept_and_reported(lake: Lake, parquet: Callable[..., Path]):
    ordered, jumbled = day_of("A"), day_of("A")
    jumbled[10], jumbled[11] = jumbled[11], jumbled[10]
    jumbled.append(jumbled.pop(50))
    report = load(lake, parquet(jumbled))
    assert (report.kept, report.files[0].out_of_order, report.files[0].quarantined) == (375, 2, {})
    assert lake.read("price_history", THURSDAY)["ts"].to_list() == [r["ts"] for r in ordered]
    finding = lake.read("data_quality", THURSDAY).filter(rule="out_of_order").row(0, named=True)
    assert (finding["symbol"], finding["count"], finding["severity"]) == ("A", 2, "info")


def test_rows_ordered_by_time_before_symbol_are_in_order(lake: Lake, parquet: Callable[..., Path]):
    rows = sorted(day_of("A") + day_of("B"), key=lambda r: r["ts"])
    assert load(lake, parquet(rows)).files[0].out_of_order == 0


def test_a_session_with_few_bars_is_kept_with_a_finding(lake: Lake, parquet: Callable[..., Path]):
    load(lake, parquet(day_of("A") + day_of("B", minutes=range(79))))
    assert lake.read("price_history", THURSDAY).height == 375 + 79
    few = lake.read("data_quality", THURSDAY).filter(rule="few_bars")
    assert few.select("symbol", "severity", "count").rows() == [("B", "warning", 79)]


def test_quarantined_rows_become_findings(lake: Lake, parquet: Callable[..., Path]):
    load(lake, parquet([*day_of("A"), row("A", 376), row("A", 377)]))
    finding = lake.read("data_quality", THURSDAY).filter(pl.col("rule").str.starts_with("quarantined"))
    assert finding.select("symbol", "rule", "count").rows() == [("A", "quarantined_outside_hours", 2)]


def test_a_second_import_writes_nothing_and_says_so(lake: Lake, parquet: Callable[..., Path]):
    rows = [*day_of("A"), row("A", 400), row("A", 3, close=102.5), row("A", 1, day=FRIDAY), row("A", 0, day=FRIDAY)]
    path = parquet(rows)
    load(lake, path)
    before = {p: p.stat().st_mtime_ns for p in lake.root.rglob("*.parquet")}
    report = load(lake, path)
    assert {p: p.stat().st_mtime_ns for p in lake.root.rglob("*.parquet")} == before
    assert (report.files[0].written, report.files[0].unchanged) == ((), (THURSDAY, FRIDAY))
    assert "0 written, 2 unchanged" in report.to_text()


def test_a_renamed_copy_is_the_same_file(lake: Lake, parquet: Callable[..., Path], tmp_path: Path):
    path = parquet([*day_of("A"), row("A", 400)])
    load(lake, path)
    load(lake, path.rename(tmp_path / "copy.parquet"))
    assert lake.read("quarantine", THURSDAY).select("origin", "row").rows() == [("copy.parquet", 375)]


def test_new_symbols_and_rows_are_added_to_a_session(lake: Lake, parquet: Callable[..., Path]):
    load(lake, parquet(day_of("B", minutes=range(100)), "one.parquet"))
    report = load(lake, parquet(day_of("A") + day_of("B", minutes=range(50, 375)), "two.parquet"))
    stored = lake.read("price_history", THURSDAY)
    assert stored["symbol"].to_list() == ["A"] * 375 + ["B"] * 375
    assert stored["ts"].to_list() == [at(m) for m in range(375)] * 2
    assert (report.files[0].written, report.files[0].corrected) == ((THURSDAY,), 0)
    assert lake.read("arrivals", THURSDAY)["origin"].to_list() == ["one.parquet", "two.parquet", "two.parquet"]


def test_a_row_with_other_values_corrects_the_stored_one_and_is_counted(lake: Lake, parquet: Callable[..., Path]):
    load(lake, parquet(day_of("A"), "one.parquet"))
    corrected = [*day_of("A", minutes=range(10)), row("A", 10, close=100.25), row("A", 11, volume=None)]
    report = load(lake, parquet(corrected, "two.parquet"))
    assert report.files[0].corrected == 2
    assert "2 bars replaced stored ones" in report.to_text()
    stored = lake.read("price_history", THURSDAY)
    assert stored.height == 375
    assert stored.filter(ts=at(10))["close"].to_list() == [100.25]
    assert stored.filter(ts=at(11))["volume"].to_list() == [None]


def test_several_files_leave_what_one_after_the_other_would(parquet: Callable[..., Path], tmp_path: Path):
    one = parquet([*day_of("A"), row("A", 400)], "one.parquet")
    two = parquet([*day_of("A", minutes=range(5)), row("A", 5, close=104.5), row("B", 400)], "two.parquet")
    together, apart = Lake(tmp_path / "together"), Lake(tmp_path / "apart")
    load(together, one, two)
    load(apart, one)
    load(apart, two)
    assert contents(together) == contents(apart)


class Killed(BaseException):
    pass


def test_an_import_killed_at_any_write_and_run_again_leaves_the_same_lake(
    parquet: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one = parquet([*day_of("A"), row("A", 400), *day_of("A", FRIDAY), row("A", 0) | {"ts": None}], "one.parquet")
    two = parquet([row("A", 5, close=104.5), row("A", 5), row("A", 6, day=FRIDAY, volume=None)], "two.parquet")
    whole = Lake(tmp_path / "whole")
    load(whole, one, two)
    write, count = Lake.write, 0

    def dying(self: Lake, table: str, session: date, frame: pl.DataFrame) -> Path:
        nonlocal count
        count -= 1
        if count < 0:
            raise Killed
        return write(self, table, session, frame)

    for writes in range(12):
        lake, count = Lake(tmp_path / f"killed{writes}"), writes
        with monkeypatch.context() as patched:
            patched.setattr(Lake, "write", dying)
            with pytest.raises(Killed):
                load(lake, one, two)
        load(lake, one, two)
        assert contents(lake) == contents(whole)


def test_a_damaged_partition_in_the_lake_is_named_not_overwritten(lake: Lake, parquet: Callable[..., Path]):
    path = parquet(day_of("A"))
    load(lake, path)
    damaged(lake.path("price_history", THURSDAY), 100)
    with pytest.raises(PartitionUnreadable, match="session=2021-04-01"):
        load(lake, path)


def test_nothing_is_written_when_one_of_the_files_is_wrong(lake: Lake, parquet: Callable[..., Path], tmp_path: Path):
    with pytest.raises(UnreadableFile):
        load(lake, parquet(day_of("A")), tmp_path / "absent.parquet")
    assert lake.tables() == []


def test_progress_ends_at_the_number_of_rows(lake: Lake, parquet: Callable[..., Path]):
    seen: list[tuple[int, int]] = []
    paths = [parquet([*day_of("A"), row("A", 400)], "one.parquet"), parquet(day_of("B", FRIDAY), "two.parquet")]
    load(lake, *paths, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(376, 751), (751, 751)]


PRICE = st.sampled_from([100.0, 100.5, 99.5, 0.0, -1.0, None, float("nan"), float("inf")])
CELL = {
    "ts": st.one_of(st.none(), st.integers(-5, 8).map(at), st.integers(0, 3).map(lambda m: at(m, date(2021, 4, 3)))),
    "symbol": st.sampled_from(["A", "B", "", None]),
    **dict.fromkeys(("open", "high", "low", "close"), PRICE),
    "volume": st.sampled_from([0.0, 5.0, -5.0, None]),
}
SOUND = st.builds(row, st.sampled_from("AB"), st.integers(0, 8))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(SOUND, st.fixed_dictionaries(CELL)), min_size=1, max_size=12))
def test_every_row_is_a_bar_or_a_quarantine_row_and_never_both(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
):
    folder = tmp_path_factory.mktemp("rows")
    rows = [*rows, row("B", 9)]  # a file without one sound row is refused
    pl.DataFrame(rows, schema=SOURCE).write_parquet(folder / "bars.parquet")
    lake = Lake(folder / "lake")
    report = load(lake, folder / "bars.parquet")
    back = [r for s in lake.sessions("quarantine") for r in lake.read("quarantine", s)["row"]]
    bars = [b for s in lake.sessions("price_history") for b in lake.read("price_history", s).iter_rows(named=True)]
    assert len(back) == len(set(back)) == sum(report.files[0].quarantined.values())
    assert len(bars) == report.kept == len(rows) - len(back)
    kept = [r for n, r in enumerate(rows) if n not in back]
    expected = sorted(kept, key=lambda r: (r["symbol"], r["ts"]))
    assert [{name: b[name] for name in SOURCE} for b in bars] == expected


REAL = {
    "nse_equity_1m_2021.parquet": (461_532, 13_434, 48),
    "nse_equity_1m_2016.parquet": (931_500, 0, 18),
    "nse_equity_1m_2015.parquet": (655_580, 74, 184),
}


@pytest.mark.parametrize("name", REAL)
def test_the_recorded_files_arrive_whole(lake: Lake, market_file: Callable[[str], Path], name: str):
    path, (kept, outside, sessions) = market_file(name), REAL[name]
    report = import_files([path], lake=lake, calendar=session_calendar(load_profile("nse")))
    (file,) = report.files
    assert (file.kept, file.quarantined.get("outside_hours", 0)) == (kept, outside)
    assert sum(file.quarantined.values()) == outside
    assert len(file.written) == sessions
    source = pl.scan_parquet(path).select(*SOURCE)
    stored = lake.scan("price_history").select(*SOURCE)
    back = lake.scan("quarantine").select(*SOURCE) if outside else source.head(0)
    everything = pl.concat([stored, back]).collect()
    assert logical_hash(everything, ["symbol", "ts"]) == logical_hash(source.collect(), ["symbol", "ts"])


WEEKDAYS = (0, 1, 4, 5)  # days after a Thursday; a file of nothing but weekends is refused


@settings(max_examples=15)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from(WEEKDAYS), st.booleans()), min_size=1, max_size=6),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_findings_made_beside_the_storing_are_those_of_the_lake_that_comes_out(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[str, int, bool]]], replaces: bool
):
    """Several files that meet in sessions and go back in time: what was assessed early must not stay as it was then."""
    folder, paths = tmp_path_factory.mktemp("files"), []
    for number, held in enumerate(files):
        rows = []
        for symbol, day, is_tenth in held:
            scale = 0.1 if is_tenth else 1.0
            for bar in day_of(symbol, THURSDAY + timedelta(days=day), range(5 * number, 60)):
                rows.append(bar | {name: bar[name] * scale for name in ("open", "high", "low", "close")})
        paths.append(folder / f"{number}.parquet")
        pl.DataFrame(rows, schema=SOURCE).write_parquet(paths[-1])
    lake = Lake(folder / "lake")
    report = import_files(paths, lake=lake, calendar=Weekdays(), replaces=replaces)
    sessions = lake.sessions("price_history")
    assessed = dict(assess_sessions(lake, Weekdays(), sessions))
    for session in sessions:
        assert lake.read("data_quality", session).equals(assessed[session])
    errors = {session for session, findings in assessed.items() if blocking(findings).height}
    assert report.blocked.keys() == errors
