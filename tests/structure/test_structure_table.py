"""The tables of structure in a lake: read or computed the same, from HISTORY sessions as known at the close."""

import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal, assert_frame_not_equal
from quarterhours import CALENDAR, LAST, NSE_SYMBOLS, SESSIONS, bars_at, linked, market_of, quarter_hours, stored
from realdata import market_file

from odin_core.lake import PartitionUnreadable
from odin_core.market.bars import BARS, MINUTE, MINUTE_TABLE, table_of
from odin_core.market.calendar import NotASession, session_calendar
from odin_core.market.data import MarketData
from odin_core.market.profile import load_profile
from odin_core.market.reference.actions import ACTIONS, TABLE
from odin_core.structure import levels as level_module
from odin_core.structure.changepoint import change_points
from odin_core.structure.heatmap import BINS, heatmap
from odin_core.structure.levels import levels
from odin_core.structure.observations import session_observations
from odin_core.structure.regimes import regimes
from odin_core.structure.table import (
    HISTORY,
    LEVEL_SESSIONS,
    STRUCTURE,
    Structure,
    compute_structure,
    structure_at,
    structure_version,
)

CRYPTO = load_profile("crypto")
MUHURAT = date(2021, 11, 4)  # an evening session of an hour
PRICES = ("open", "high", "low", "close")
PROBABILITIES = [n for n in STRUCTURE if n.startswith("p_") or n.endswith(("_change_probability", "_run_length"))]


@pytest.fixture(scope="module")
def minutes() -> dict[date, pl.DataFrame]:
    return market_of(CALENDAR, SESSIONS, NSE_SYMBOLS)


@pytest.fixture(scope="module")
def bars_alone(tmp_path_factory: pytest.TempPathFactory, minutes: dict[date, pl.DataFrame]) -> Path:
    """A lake that holds `minutes`; only to be read."""
    return stored(tmp_path_factory.mktemp("bars"), minutes).lake.root


@pytest.fixture
def data(tmp_path: Path, bars_alone: Path) -> MarketData:
    return linked(bars_alone, tmp_path / "nse")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, bars_alone: Path) -> Structure:
    """Of the last session."""
    return structure_at(linked(bars_alone, tmp_path_factory.mktemp("known") / "nse"), LAST)


def again(data: MarketData) -> MarketData:
    """As another process sees it."""
    return MarketData(data.lake, data.profile)


def same(one: Structure, other: Structure) -> None:
    """In every bit."""
    for left, right in zip(one, other, strict=True):
        assert_frame_equal(left, right, check_exact=True)


def times(factor: float, symbol: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Other prices of one symbol."""
    of_symbol = pl.col("symbol") == symbol
    return lambda bars: bars.with_columns(pl.when(of_symbol).then(pl.col(p) * factor).otherwise(p) for p in PRICES)


def ex_date(session: date, kind: str, known_at: date, **said: object) -> pl.DataFrame:
    """A corporate action of ITC that is told at the open of `known_at`."""
    row = dict.fromkeys(ACTIONS.names()) | {"symbol": "ITC", "ex_date": session, "kind": kind, "origin": "by hand"}
    return pl.DataFrame([row | {"known_at": CALENDAR.hours(known_at).open} | said], schema=ACTIONS)


def split_in_two(data: MarketData, minutes: dict[date, pl.DataFrame], ex: date) -> None:
    """Prices of ITC from `ex` on as they are after a split of ratio 2."""
    for session in SESSIONS[SESSIONS.index(ex) :]:
        data.lake.write(MINUTE_TABLE, session, times(0.5, "ITC")(minutes[session]))


def test_the_lake_holds_what_was_computed_and_a_second_asking_reads_it(
    data: MarketData, known: Structure, monkeypatch: pytest.MonkeyPatch
):
    found = structure_at(data, LAST)
    same(found, known)
    same(compute_structure(again(data), LAST), known)
    assert found.rows.schema == STRUCTURE
    assert found.levels.columns == ["session", *level_module.LEVELS]
    for name, frame in zip(("structure", "levels"), found, strict=True):
        assert_frame_equal(data.lake.read(f"{name}_{structure_version()}", LAST), frame, check_exact=True)
    monkeypatch.setattr("odin_core.structure.table.compute_structure", None)
    same(structure_at(again(data), LAST), found)
    data.lake.remove(f"levels_{structure_version()}", LAST)
    with pytest.raises(TypeError):
        structure_at(again(data), LAST)


def test_a_row_says_what_the_formulas_say_of_the_whole_history_at_once(
    data: MarketData, minutes: dict[date, pl.DataFrame], known: Structure
):
    close = CALENDAR.hours(LAST).close
    days = pl.concat([data.bars_of(s, "day").with_columns(session=pl.lit(s)) for s in SESSIONS])
    seen = session_observations(days)
    assert days["session"].n_unique() > HISTORY
    for table in (regimes(seen), change_points(seen)):
        expected = table.filter(session=LAST)
        assert_frame_equal(known.rows.select(expected.columns), expected, check_exact=True)
        assert expected.null_count().sum_horizontal().item() == 0
    quarters = data.read(None, SESSIONS[0], LAST, "15m")
    assert_frame_equal(known.levels.drop("session"), levels(quarters, as_of=close), check_exact=True)
    around = heatmap(quarters, as_of=close)
    np.testing.assert_array_equal(known.rows["heatmap"].list.to_array(BINS).to_numpy(), around.share)
    np.testing.assert_array_equal(known.rows["width"], around.width)
    assert known.rows["close"].to_list() == minutes[LAST].group_by("symbol").last().sort("symbol")["close"].to_list()
    assert set(known.rows["decided_at"]) == {close}


def test_the_nearest_levels_are_those_next_to_the_close(known: Structure):
    for row in known.rows.iter_rows(named=True):
        mine = known.levels.filter(symbol=row["symbol"])
        assert row["levels"] == mine.height > 0
        below = [level for level in mine.iter_rows(named=True) if level["price"] <= row["close"]]
        above = [level for level in mine.iter_rows(named=True) if level["price"] > row["close"]]
        for kind, nearest in (("support", below[-1:]), ("resistance", above[:1])):
            told = [row[f"{kind}_{what}"] for what in ("price", "distance", "strength")]
            if not nearest:
                assert told == [None] * 3
                continue
            [level] = nearest
            assert level["kind"] == kind
            distance = abs(level["price"] - row["close"]) / row["width"]
            assert told == [level["price"], pytest.approx(distance, rel=1e-12), level["strength"]]


def test_what_was_planted_is_found(tmp_path: Path, minutes: dict[date, pl.DataFrame], known: Structure):
    rows = {row["symbol"]: row for row in known.rows.iter_rows(named=True)}
    assert [rows[symbol]["regime"] for symbol in NSE_SYMBOLS] == ["range", "volatile", "trend"]
    assert [rows[symbol]["volatility_regime"] for symbol in NSE_SYMBOLS] == ["low", "high", "low"]
    starts = quarter_hours(CALENDAR, SESSIONS[-LEVEL_SESSIONS:])
    clock = np.arange(sum(map(len, starts)))
    close, wick = 105 + 5 * np.sin(clock * 2 * np.pi / 57.3), np.random.default_rng(3).exponential(1e-4, len(clock))
    close[-1] = 105.0
    swings = bars_at("SWING", pl.concat(starts), close, 1 + wick)
    parts = {
        s: swings.filter(pl.col("ts").is_between(*CALENDAR.hours(s), closed="left")) for s in SESSIONS[-LEVEL_SESSIONS:]
    }
    [row] = structure_at(stored(tmp_path, parts), LAST).rows.iter_rows(named=True)
    assert row["support_price"] == pytest.approx(100, abs=0.3)
    assert row["resistance_price"] == pytest.approx(110, abs=0.3)
    assert min(row["support_strength"], row["resistance_strength"]) > 0.5
    assert row["regime"] is None


def test_later_sessions_and_what_was_asked_before_do_not_matter(
    tmp_path: Path, bars_alone: Path, minutes: dict[date, pl.DataFrame], known: Structure
):
    asked = [SESSIONS[-40], MUHURAT, SESSIONS[-4], LAST]
    forward, backward = (linked(bars_alone, tmp_path / name) for name in ("forward", "backward"))
    found = {session: structure_at(forward, session) for session in asked}
    for session in reversed(asked):
        for later in SESSIONS[SESSIONS.index(session) + 1 :]:
            if later in asked or later == SESSIONS[-1]:
                backward.lake.write(MINUTE_TABLE, later, times(7.0, "TCS")(minutes[later]))
            else:
                backward.lake.remove(MINUTE_TABLE, later)
        same(structure_at(again(backward), session), found[session])
        same(structure_at(backward, session), found[session])
    same(found[LAST], known)


def test_sessions_before_the_history_do_not_matter(
    data: MarketData, minutes: dict[date, pl.DataFrame], known: Structure
):
    same(structure_at(data, LAST), known)
    path = data.lake.path(f"structure_{structure_version()}", LAST)
    written = path.stat().st_mtime_ns
    for session in SESSIONS[:-HISTORY]:
        data.lake.write(MINUTE_TABLE, session, times(3.0, "ITC")(minutes[session]))
    same(structure_at(again(data), LAST), known)
    assert path.stat().st_mtime_ns == written
    same(compute_structure(again(data), LAST), known)


@pytest.mark.parametrize("back", [0, 100, HISTORY - 1])
def test_other_bars_below_are_seen(data: MarketData, minutes: dict[date, pl.DataFrame], known: Structure, back: int):
    structure_at(data, LAST)
    changed = SESSIONS[-1 - back]
    last = pl.int_range(pl.len()).over("symbol", order_by="ts") == 24
    other = minutes[changed].with_columns(pl.when(last).then(pl.col(p) * 1.03).otherwise(p) for p in PRICES)
    data.lake.write(MINUTE_TABLE, changed, other)
    second = structure_at(again(data), LAST)
    same(second, compute_structure(again(data), LAST))
    if back < 130:
        assert_frame_not_equal(second.rows, known.rows)
    assert second.levels.equals(known.levels) == (back > LEVEL_SESSIONS)


def test_a_symbol_does_not_depend_on_the_others(tmp_path: Path, minutes: dict[date, pl.DataFrame], known: Structure):
    alone = {session: bars.filter(symbol="ITC") for session, bars in minutes.items()}
    found = structure_at(stored(tmp_path, alone), LAST)
    same(found, Structure(known.rows.filter(symbol="ITC"), known.levels.filter(symbol="ITC")))


def test_a_split_in_the_look_back_leaves_no_jump(data: MarketData, minutes: dict[date, pl.DataFrame], known: Structure):
    ex = SESSIONS[-8]
    split_in_two(data, minutes, ex)
    untold = structure_at(data, LAST)
    share = pl.col("width") / pl.col("close")
    assert (untold.rows.select(share) / known.rows.select(share)).to_series()[1] > 1.2
    assert_frame_not_equal(untold.rows.select("p_trend"), known.rows.select("p_trend"), abs_tol=0.01)
    data.lake.write(TABLE, SESSIONS[-9], ex_date(ex, "split", SESSIONS[-9], ratio=2.0))
    found = structure_at(again(data), LAST)
    money = ["close", "width", "support_price", "resistance_price"]
    halved = [pl.when(symbol="ITC").then(pl.col(name) / 2).otherwise(name).alias(name) for name in money]
    assert_frame_equal(found.rows, known.rows.with_columns(halved), rel_tol=1e-9, abs_tol=1e-9)
    halved = pl.when(symbol="ITC").then(pl.col("price") / 2).otherwise("price").alias("price")
    assert_frame_equal(found.levels, known.levels.with_columns(halved), rel_tol=1e-9, abs_tol=1e-9)
    others = pl.col("symbol") != "ITC"
    same(Structure(found.rows.filter(others), found.levels.filter(others)),
         Structure(known.rows.filter(others), known.levels.filter(others)))  # fmt: skip


def test_what_is_told_after_a_close_does_not_change_that_close(data: MarketData, minutes: dict[date, pl.DataFrame]):
    """Each session is as of its own close, before the ex-date and after it, and however late the split is told."""
    ex, told = SESSIONS[-8], SESSIONS[-5]
    split_in_two(data, minutes, ex)
    before = {session: structure_at(data, session) for session in (SESSIONS[-9], ex, SESSIONS[-6])}
    paths = [data.lake.path(f"structure_{structure_version()}", session) for session in before]
    written = [path.stat().st_mtime_ns for path in paths]
    untold = compute_structure(data, told)
    data.lake.write(TABLE, told, ex_date(ex, "split", told, ratio=2.0))
    for session, found in before.items():
        same(structure_at(again(data), session), found)
        same(compute_structure(again(data), session), found)
    assert [path.stat().st_mtime_ns for path in paths] == written
    assert_frame_not_equal(structure_at(again(data), told).rows, untold.rows)


def test_a_dividend_and_a_new_name_leave_no_trace_in_the_regimes(
    data: MarketData, minutes: dict[date, pl.DataFrame], known: Structure
):
    paid, renamed = SESSIONS[-30], SESSIONS[-12]
    last = minutes[SESSIONS[-31]].filter(symbol="ITC")["close"][-1]
    for session in SESSIONS[-30:]:
        bars = times(0.9, "ITC")(minutes[session])
        name = pl.col("symbol").replace("ITC", "ITC2") if session >= renamed else pl.col("symbol")
        data.lake.write(MINUTE_TABLE, session, bars.with_columns(name))
    told = [
        ex_date(paid, "dividend", SESSIONS[-31], amount=0.1 * last),
        ex_date(renamed, "rename", SESSIONS[-13], other="ITC2"),
    ]
    data.lake.write(TABLE, SESSIONS[-31], told[0])
    data.lake.write(TABLE, SESSIONS[-13], told[1])
    found = structure_at(again(data), LAST)
    assert found.rows["symbol"].to_list() == ["INFY", "ITC2", "TCS"]
    names = ["regime", "volatility_regime", "support_distance", "resistance_distance", *PROBABILITIES]
    assert_frame_equal(found.rows.select(names), known.rows.select(names), rel_tol=1e-7, abs_tol=1e-7)


def test_a_short_history_has_levels_and_no_regime(data: MarketData, minutes: dict[date, pl.DataFrame]):
    for session in SESSIONS[:-20]:
        data.lake.write(MINUTE_TABLE, session, minutes[session].filter(pl.col("symbol") != "TCS"))
    whole = compute_structure(data, LAST).rows
    late, old = whole.filter(symbol="TCS"), whole.filter(pl.col("symbol") != "TCS")
    assert late.select("regime", "volatility_regime", *PROBABILITIES).null_count().row(0) == (1,) * 12
    assert late["levels"][0] > 0
    assert np.isfinite(late["heatmap"][0].to_numpy()).all()
    assert old.select("regime", "volatility_regime", *PROBABILITIES).null_count().row(0) == (0,) * 12


@pytest.mark.parametrize(("missed", "is_known"), [(5, True), (15, False)])
def test_a_symbol_may_miss_a_week_of_the_history(
    data: MarketData, minutes: dict[date, pl.DataFrame], known: Structure, missed: int, is_known: bool
):
    for session in SESSIONS[-100 : -100 + missed]:
        data.lake.write(MINUTE_TABLE, session, minutes[session].filter(pl.col("symbol") != "ITC"))
    rows = compute_structure(data, LAST).rows
    assert rows.filter(symbol="ITC")["regime"].is_not_null().all() == is_known
    assert_frame_equal(rows.filter(symbol="TCS"), known.rows.filter(symbol="TCS"), check_exact=True)


def test_a_symbol_without_bars_today_has_no_row_and_comes_back(
    data: MarketData, minutes: dict[date, pl.DataFrame], known: Structure
):
    without = SESSIONS[-3]
    data.lake.write(MINUTE_TABLE, without, minutes[without].filter(pl.col("symbol") != "ITC"))
    found = structure_at(data, without)
    assert found.rows["symbol"].to_list() == ["INFY", "TCS"]
    assert set(found.levels["symbol"]) == {"INFY", "TCS"}
    assert structure_at(data, LAST).rows["symbol"].to_list() == ["INFY", "ITC", "TCS"]


def test_a_first_bar_has_neither_width_nor_heatmap(tmp_path: Path, minutes: dict[date, pl.DataFrame]):
    first = minutes[LAST].group_by("symbol", maintain_order=True).head(1)
    data = stored(tmp_path, {LAST: pl.concat([first.filter(symbol="ITC"), minutes[LAST].filter(symbol="TCS")])})
    data.lake.write(table_of("day"), LAST, first.filter(symbol="INFY"))
    empty = structure_at(data, LAST).rows.filter(pl.col("symbol") != "TCS")
    assert empty["symbol"].to_list() == ["INFY", "ITC"]
    assert empty["levels"].to_list() == [0, 0]
    assert empty.select("width", "heatmap", "support_price", "resistance_distance").null_count().row(0) == (2,) * 4


def test_a_session_without_bars_is_empty_and_a_day_off_is_refused(data: MarketData):
    nothing = CALENDAR.next(LAST)
    found = structure_at(data, nothing)
    assert [frame.height for frame in found] == [0, 0]
    assert found.rows.schema == STRUCTURE
    assert structure_at(data, CALENDAR.sessions()[0]).rows.is_empty()
    saturdays = [date(2021, 11, 13), CALENDAR.first + timedelta(days=(5 - CALENDAR.first.weekday()) % 7)]
    for day in saturdays:
        with pytest.raises(NotASession):
            structure_at(data, day)
        with pytest.raises(NotASession):
            compute_structure(data, day)


def test_a_market_that_never_closes_has_the_structure_of_its_last_days(tmp_path: Path):
    """A day of 96 quarters of an hour, weeks of seven sessions: regimes are there on a Sunday too."""
    calendar = session_calendar(CRYPTO)
    sunday = date(2023, 6, 4)
    sessions = calendar.sessions(sunday - timedelta(days=HISTORY + 2), sunday)
    data = stored(tmp_path, market_of(calendar, sessions, {"BTC": 2, "ETH": 1}), CRYPTO)
    found = structure_at(data, sunday)
    assert found.rows.select("regime", "width", *PROBABILITIES).null_count().row(0) == (0,) * 12
    quarters = data.read(None, sessions[-LEVEL_SESSIONS], sunday, "15m")
    expected = levels(quarters, as_of=calendar.hours(sunday).close)
    assert_frame_equal(found.levels.drop("session"), expected, check_exact=True)
    look_back = calendar.hours(sunday).close - 500 * timedelta(minutes=15)
    assert (expected["first_touch"] >= look_back).all()


def test_processes_that_ask_at_once_get_the_same(data: MarketData, known: Structure):
    code = (
        "import sys, datetime; from odin_core.lake import Lake, logical_hash; from odin_core.market.data import "
        "MarketData; from odin_core.market.profile import load_profile; from odin_core.structure.table import "
        "structure_at; from pathlib import Path\n"
        "data = MarketData(Lake(Path(sys.argv[1])), load_profile('nse'))\n"
        "for day in sys.argv[2:]: print(day, *map(logical_hash, structure_at(data, datetime.date.fromisoformat(day))))"
    )
    days = [str(SESSIONS[-2]), str(LAST)]
    asked = [[sys.executable, "-c", code, str(data.lake.root), *order] for order in (days, days[::-1])]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for argv in asked]
    said = [set(process.communicate(timeout=120)[0].splitlines()) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0] == said[1]
    assert len(said[0]) == 2
    same(structure_at(data, LAST), known)


def test_a_damaged_partition_is_named(data: MarketData):
    structure_at(data, LAST)
    path = data.lake.path(f"levels_{structure_version()}", LAST)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PartitionUnreadable, match=f"session={LAST}"):
        structure_at(again(data), LAST)


def test_the_version_changes_with_the_definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    version = structure_version()
    edited = tmp_path / "levels.py"
    edited.write_text(Path(level_module.__file__).read_text().replace("APART: Final = 1.0", "APART: Final = 2.0"))
    monkeypatch.setattr(level_module, "__file__", str(edited))
    structure_version.cache_clear()
    other = structure_version()
    structure_version.cache_clear()
    assert len(version) == len(other) == 12
    assert other != version


def test_recorded_minutes_have_levels_around_their_close(tmp_path: Path):
    recorded = pl.read_parquet(market_file("nse_equity_1m_2021.parquet")).with_columns(known_at=pl.col("ts") + MINUTE)
    recorded = recorded.with_columns(oi=pl.lit(None, pl.Float64)).select(BARS.names()).cast(BARS)
    days = sorted(set(recorded["ts"].dt.convert_time_zone("Asia/Kolkata").dt.date()))
    parts = {s: recorded.filter(pl.col("ts").is_between(*CALENDAR.hours(s), closed="left")) for s in days}
    found = structure_at(stored(tmp_path, parts), days[-1])
    assert found.rows["symbol"].to_list() == sorted(parts[days[-1]]["symbol"].unique())
    assert found.rows["regime"].null_count() == found.rows.height  # the file has a few weeks
    between = found.rows.filter(pl.col("support_price").is_not_null() & pl.col("resistance_price").is_not_null())
    assert between.height > 0.8 * found.rows.height
    assert between.select(pl.col("close").is_between("support_price", "resistance_price").all()).item()
    assert between.select((pl.col("width") / pl.col("close")).is_between(5e-4, 2e-2).all()).item()
