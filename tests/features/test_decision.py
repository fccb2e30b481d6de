"""Decision rows: which there are, what `complete` means, and what beside the features stands in them."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from histories import assert_same_bits
from smalllives import quick, small_market

from odin_core.features import regime
from odin_core.features.catalogue import features_of
from odin_core.features.decision import decision_schema, decision_version
from odin_core.home import open_home
from odin_core.market.data import MarketData

Edit = Callable[[date, pl.DataFrame], pl.DataFrame]
SESSIONS = 18
OF_THE_MARKET = ("market_volatility", "volatility_ratio", "vol_regime")


def market(folder: Path, edit: Edit | None = None) -> MarketData:
    return small_market(open_home(folder), quick(), symbols=4, edit=edit)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> MarketData:
    """A market as it is; tests that edit have one of their own."""
    return market(tmp_path_factory.mktemp("plain"))


def days(data: MarketData) -> list[date]:
    """The first sessions of the market, before which there are no bars."""
    return data.calendar.sessions(data.profile.first_partition)[:SESSIONS]


def rows(data: MarketData) -> list[pl.DataFrame]:
    return [data.decision_rows(session) for session in days(data)]


def names(data: MarketData) -> list[str]:
    return data.bars(days(data)[0])["symbol"].unique().sort().to_list()


def completed(data: MarketData, symbol: str) -> list[bool | None]:
    """Whether the symbol's row was complete, session by session; None where it has no row."""
    found = (frame.filter(pl.col("symbol") == symbol)["complete"].to_list() for frame in rows(data))
    return [own[0] if own else None for own in found]


def test_rows_are_sorted_by_symbol_and_columns_are_those_of_the_schema(plain: MarketData):
    last = days(plain)[-1]
    found = plain.decision_rows(last)
    assert found.schema == decision_schema()
    assert found["symbol"].to_list() == names(plain)
    assert found["session"].unique().to_list() == [last]
    assert found["decided_at"].unique().to_list() == [plain.calendar.hours(last).close]
    assert found["bars_5m"].to_list() == [75] * 4
    assert found["complete"].all()
    assert set(decision_schema()) >= {f.name for f in features_of("decision")}


def test_what_is_no_feature_is_the_bars_own(plain: MarketData):
    last = days(plain)[-1]
    found = plain.decision_rows(last)
    bars = plain.read(None, days(plain)[-5], last, "day")
    closes = bars.filter(pl.col("ts") == plain.calendar.hours(last).open).sort("symbol")["close"]
    assert found["close"].to_list() == closes.to_list()
    traded = bars.group_by("symbol").agg((pl.col("close") * pl.col("volume")).median()).sort("symbol")["close"]
    assert found["traded_value"].to_list() == traded.to_list()


def test_features_are_those_of_the_set_at_the_close(plain: MarketData):
    last = days(plain)[-1]
    found = plain.features(None, "day", last, last)
    chosen = [f.name for f in features_of("decision")]
    assert_same_bits(plain.decision_rows(last).select(chosen), found.select(chosen))


def test_a_row_is_complete_from_the_session_on_in_which_every_feature_is_known(plain: MarketData):
    found = rows(plain)
    for frame in found:
        known = frame.select(
            pl.all_horizontal(pl.col(pl.Float32).is_not_null() & pl.col("volatility_ratio").is_not_null())
        )
        assert frame["complete"].to_list() == known.to_series().to_list()
    first = next(i for i, frame in enumerate(found) if frame["complete"].any())
    assert 9 <= first <= 14
    assert all(frame["complete"].all() for frame in found[first:])
    assert [frame["gap_day"].null_count() for frame in found[:2]] == [4, 0]
    assert [frame["simple_return_5_day"].null_count() for frame in found[4:6]] == [4, 0]
    assert [frame["traded_value"].null_count() for frame in found[3:5]] == [4, 0]


def test_a_late_starter_is_incomplete_until_its_own_warm_up_is_over(tmp_path: Path, plain: MarketData):
    late, begins = names(plain)[1], days(plain)[4]
    data = market(tmp_path, lambda s, bars: bars.filter((pl.col("symbol") != late) | (s >= begins)))
    usual = completed(plain, late)
    assert completed(data, late) == [None] * 4 + usual[:-4]
    assert completed(data, names(plain)[0]) == usual


def test_two_missed_sessions_are_made_up_by_older_ones_and_five_are_not(tmp_path: Path, plain: MarketData):
    halted, last = names(plain)[2], days(plain)[-1]

    def complete(*missed: int) -> bool:
        places = {days(plain)[i] for i in missed}
        folder = tmp_path / str(len(missed))
        data = market(folder, lambda s, bars: bars.filter((pl.col("symbol") != halted) | ~pl.lit(s in places)))
        return data.decision_rows(last).filter(pl.col("symbol") == halted)["complete"].item()

    assert complete(12, 15)
    assert not complete(11, 12, 13, 14, 15)


def test_a_symbol_without_a_bar_in_the_session_has_no_row(tmp_path: Path, plain: MarketData):
    halted, last = names(plain)[0], days(plain)[-1]
    data = market(tmp_path, lambda s, bars: bars.filter((pl.col("symbol") != halted) | pl.lit(s != last)))
    others = plain.decision_rows(last).filter(pl.col("symbol") != halted).drop(OF_THE_MARKET)
    assert_same_bits(data.decision_rows(last).drop(OF_THE_MARKET), others)


def test_a_session_without_bars_gives_no_row_and_the_next_one_goes_on(tmp_path: Path, plain: MarketData):
    closed = days(plain)[-2]
    data = market(tmp_path, lambda s, bars: bars.clear() if s == closed else bars)
    *_, nothing, last = rows(data)
    assert nothing.is_empty()
    assert nothing.schema == decision_schema()
    assert last.height == 4
    assert last["complete"].all()


def test_without_volume_in_the_source_a_row_is_complete_and_its_volume_features_are_null(
    tmp_path: Path, plain: MarketData
):
    silent, last = names(plain)[3], days(plain)[-1]
    volume = pl.when(pl.col("symbol") != silent).then("volume")
    found = market(tmp_path, lambda _, bars: bars.with_columns(volume=volume)).decision_rows(last)
    own = found.filter(pl.col("symbol") == silent)
    assert own["complete"].item()
    needing = [f.name for f in features_of("decision") if "volume" in f.definition.needs]
    assert len(needing) == 3
    assert own.select(*needing, "traded_value").null_count().row(0) == (1,) * 4
    assert_same_bits(
        found.filter(pl.col("symbol") != silent), plain.decision_rows(last).filter(pl.col("symbol") != silent)
    )


def test_a_symbol_whose_volume_is_always_zero_has_none(tmp_path: Path, plain: MarketData):
    silent, last = names(plain)[3], days(plain)[-1]
    volume = pl.when(pl.col("symbol") != silent).then("volume").otherwise(0.0)
    found = market(tmp_path, lambda _, bars: bars.with_columns(volume=volume)).decision_rows(last)
    assert found.filter(pl.col("symbol") == silent)["complete"].item()


def test_where_only_a_session_lost_its_volume_the_row_is_incomplete(tmp_path: Path, plain: MarketData):
    last = days(plain)[-1]
    lost = pl.lit(None, pl.Float64)
    data = market(tmp_path, lambda s, bars: bars.with_columns(volume=lost) if s == last else bars)
    assert not data.decision_rows(last)["complete"].any()


def wild(last: date) -> Edit:
    """The last session's closes go up and down by two thousandths."""
    factor = 1 + 0.002 * (pl.int_range(pl.len()) // 5 % 2)

    def edit(session: date, bars: pl.DataFrame) -> pl.DataFrame:
        if session != last:
            return bars
        moved = bars.with_columns(pl.col("open", "close") * factor)
        return moved.with_columns(
            high=pl.max_horizontal("high", "open", "close"), low=pl.min_horizontal("low", "open", "close")
        )

    return edit


def test_the_regime_columns_are_those_of_the_regime_module(tmp_path: Path, plain: MarketData):
    found = rows(market(tmp_path, wild(days(plain)[-1])))
    history = np.array([frame["market_volatility"][0] for frame in found])
    tags = [regime.volatility_regime(history[: i + 1]) for i in range(SESSIONS)]
    assert [frame["vol_regime"][0] for frame in found] == tags
    assert found[-1]["volatility_ratio"].to_list() == [regime.volatility_ratio(history)] * 4
    assert found[-1]["vol_regime"].unique().to_list() == ["high"]
    assert tags[8] is None
    assert tags[9] is not None


def test_the_market_volatility_of_a_session_agrees_with_a_loop_over_its_bars(plain: MarketData):
    session, volatilities = days(plain)[3], []
    for bars in plain.read(None, session, session, "5m").partition_by("symbol"):
        prices = np.array([bars["open"][0], *bars["close"]])
        steps = (bars["known_at"][-1] - bars["ts"][0]) / timedelta(minutes=5)
        volatilities.append(np.sqrt((np.diff(np.log(prices)) ** 2).sum() / steps))
    assert plain.decision_rows(session)["market_volatility"][0] == pytest.approx(np.median(volatilities), rel=1e-12)


def test_rows_are_stored_once_and_again_when_a_price_file_changes_also_in_the_same_process(
    tmp_path: Path, plain: MarketData
):
    data, last = market(tmp_path), days(plain)[-1]
    first = data.decision_rows(last)
    path = data.lake.path(data.features_table, last)
    number = path.stat().st_ino
    assert_same_bits(data.decision_rows(last), first)
    assert path.stat().st_ino == number
    earlier = days(plain)[-4]  # whose volatility was looked at before
    bars = data.lake.read("price_history", earlier)
    data.lake.write("price_history", earlier, wild(earlier)(earlier, bars))
    again = data.decision_rows(last)
    assert not again.equals(first)
    path.unlink()
    assert_same_bits(again, MarketData(data.lake, data.profile).decision_rows(last))
    table = f"features_{decision_version()}"
    assert data.features_table == table
    assert_same_bits(data.lake.read(table, last), again)
