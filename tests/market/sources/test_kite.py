"""Kite through the vendor's own client, against its server in miniature: full days, pages, limits and every fault."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from fakes import kite as fake
from fakes.kite import IST, FakeKite
from fakes.serving import Clock, Fault, Reply, altered, as_json, cut_off, honest, instead, reset
from fakes.telling import series
from polars.testing import assert_frame_equal

from odin_core.market.sources import kite
from odin_core.market.sources.source import (
    INSTRUMENTS,
    SOURCE_BARS,
    SourceRefused,
    SourceUnavailable,
    UnknownSymbols,
    open_source,
)

MINUTE = timedelta(minutes=1)
OPEN = datetime(2024, 1, 15, 9, 15, tzinfo=IST).astimezone(UTC)
CLOSE = OPEN + 375 * MINUTE
HISTORY = "/instruments/historical"
DAY = series("RELIANCE", OPEN, 375)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vendor(clock: Clock) -> Iterator[FakeKite]:
    with FakeKite({("minute", "RELIANCE"): DAY}, clock) as server:
        yield server


def source(vendor: FakeKite, **settings: str) -> kite.KiteSource:
    opened = open_source({"kind": "kite", "url": vendor.url, **settings}, vendor.clock.around(fake.SECRETS))
    assert isinstance(opened, kite.KiteSource)
    return opened


# full days


def test_a_full_day_comes_through_the_real_client_as_the_vendor_holds_it(vendor: FakeKite) -> None:
    got = source(vendor).bars(["RELIANCE"], "1m", OPEN, CLOSE)
    assert_frame_equal(got, DAY)
    assert len(vendor.asked(HISTORY)) == 1
    assert vendor.requests[-1].headers["X-Kite-Version"] == "3"


def test_a_recorded_day_of_shares_and_indices_is_equal_bar_for_bar(
    market_file: Callable[[str], Path], clock: Clock
) -> None:
    names = {"RELIANCE": "RELIANCE", "INFY": "INFY", "NIFTY": "NIFTY 50"}
    day = pl.col("ts").dt.date() == date(2016, 8, 18)
    recorded = pl.scan_parquet(market_file("nse_equity_1m_2016.parquet")).filter(day).collect()
    recorded = recorded.with_columns(pl.col("symbol").replace("NIFTY50", "NIFTY"))
    held = {("minute", name): _as_source_bars(recorded, symbol) for symbol, name in names.items()}
    with FakeKite(held, clock) as vendor:
        got = source(vendor).bars(
            list(names), "1m", datetime(2016, 8, 18, tzinfo=UTC), datetime(2016, 8, 19, tzinfo=UTC)
        )
    expected = pl.concat(held.values())
    assert expected.height == 3 * 375
    assert_frame_equal(got, expected)
    assert got.filter(pl.col("symbol") == "NIFTY")["volume"].unique().to_list() == [0.0]


def test_recorded_options_come_with_their_open_interest(market_file: Callable[[str], Path], clock: Clock) -> None:
    day = pl.col("ts").dt.date() == date(2024, 1, 16)
    recorded = pl.scan_parquet(market_file("nse_options_1m.parquet")).filter(day).collect()
    contracts = recorded.unique("symbol", maintain_order=True).head(6)
    listed = [
        f"{i},1,{c['symbol']},NIFTY,0,{c['expiry']},{c['strike']},0.05,50,{c['right']}E,NFO-OPT,NFO"
        for i, c in enumerate(contracts.to_dicts(), start=1)
    ]
    symbols = contracts["symbol"].to_list()
    held = {("minute", symbol): _as_source_bars(recorded, symbol) for symbol in symbols}
    with FakeKite(held, clock, listed=listed) as vendor:
        opened = source(vendor, exchange="NFO")
        got = opened.bars(symbols, "1m", datetime(2024, 1, 16, tzinfo=UTC), datetime(2024, 1, 17, tzinfo=UTC))
        terms = opened.instruments()
    assert_frame_equal(got, pl.concat(held.values()))
    assert got["oi"].null_count() == 0
    columns = ["symbol", "underlying", "expiry", "strike", "right"]
    assert_frame_equal(terms.select(columns), contracts.select(columns), check_row_order=False)


def _as_source_bars(recorded: pl.DataFrame, symbol: str) -> pl.DataFrame:
    bars = recorded.filter(pl.col("symbol") == symbol)
    if "oi" not in bars.columns:
        bars = bars.with_columns(oi=pl.lit(None, pl.Float64))
    return bars.select(pl.col(name).cast(kind) for name, kind in SOURCE_BARS.items())


def test_open_interest_is_asked_for_with_derivatives_only(clock: Clock) -> None:
    future = series("NIFTY24JANFUT", OPEN, 375, oi=True)
    with FakeKite({("minute", "NIFTY24JANFUT"): future}, clock) as vendor:
        got = source(vendor, exchange="NFO").bars(["NIFTY24JANFUT"], "1m", OPEN, CLOSE)
        assert_frame_equal(got, future)
        assert [request.query["oi"] for request in vendor.asked(HISTORY)] == ["1"]


def test_instruments_are_told_apart_by_segment_and_type(vendor: FakeKite) -> None:
    shares = source(vendor).instruments()
    assert shares.schema == INSTRUMENTS
    assert dict(shares.select("symbol", "kind").rows()) == {
        "RELIANCE": "equity", "INFY": "equity", "NIFTY": "index", "BANKNIFTY": "index", "INDIAVIX": "index",
    }  # fmt: skip
    assert shares.height == 5, "a row that the vendor has twice counts once"
    nifty = shares.row(by_predicate=pl.col("symbol") == "NIFTY", named=True)
    assert (nifty["source_id"], nifty["lot_size"], nifty["underlying"]) == ("256265", None, None)
    put = (
        source(vendor, exchange="NFO").instruments().row(by_predicate=pl.col("symbol") == "IDEA24JAN8.5PE", named=True)
    )
    assert put == {
        "symbol": "IDEA24JAN8.5PE", "name": "IDEA", "kind": "option", "underlying": "IDEA", "strike": 8.5, "right": "P",
        "expiry": date(2024, 1, 25), "tick_size": 0.05, "lot_size": 80000.0, "source_id": "12345678",
    }  # fmt: skip


# pages and limits


@pytest.mark.parametrize("repeats", [False, True], ids=["pages that meet", "pages that overlap"])
@pytest.mark.parametrize(
    ("interval", "vendor_interval", "days", "pages"),
    [("1m", "minute", 150, 3), ("5m", "5minute", 250, 3), ("15m", "15minute", 401, 3), ("60m", "60minute", 801, 3)],
)
def test_a_long_range_is_asked_for_in_pages_and_comes_back_once(
    clock: Clock, interval: str, vendor_interval: str, days: int, pages: int, repeats: bool
) -> None:
    start = datetime(2021, 1, 1, tzinfo=UTC)
    bars = series("RELIANCE", start, days * 24, timedelta(hours=1))
    with FakeKite({(vendor_interval, "RELIANCE"): bars}, clock, repeats=repeats) as vendor:
        got = source(vendor).bars(["RELIANCE"], interval, start, start + timedelta(days=days))
        assert_frame_equal(got, bars)
        assert len(vendor.asked(HISTORY)) == pages


def test_a_day_bar_belongs_to_its_date_in_india(clock: Clock) -> None:
    midnights = series("RELIANCE", datetime(2018, 1, 1, tzinfo=IST).astimezone(UTC), 3000, timedelta(days=1))
    first, last = datetime(2018, 3, 5, 9, 15, tzinfo=IST), datetime(2024, 3, 15, 15, 30, tzinfo=IST)
    with FakeKite({("day", "RELIANCE"): midnights}, clock) as vendor:
        got = source(vendor).bars(["RELIANCE"], "day", first.astimezone(UTC), last.astimezone(UTC))
        assert len(vendor.asked(HISTORY)) == 2, "2,000 days fit into a request"
    local = got["ts"].dt.convert_time_zone("Asia/Kolkata").dt.date()
    assert (local[0], local[-1]) == (first.date(), last.date())
    assert got.height == (last.date() - first.date()).days + 1


def test_history_is_never_asked_for_more_often_than_three_times_a_second(clock: Clock) -> None:
    start = datetime(2014, 1, 1, tzinfo=UTC)
    with FakeKite({}, clock) as vendor:
        began = clock.now()
        got = source(vendor).bars(["RELIANCE", "INFY"], "1m", start, start + timedelta(days=60 * 20))
        assert len(vendor.asked(HISTORY)) == 40, "no request was refused for coming too early"
        assert clock.now() - began >= timedelta(seconds=39 / 3)
    assert got.is_empty()
    assert got.schema == SOURCE_BARS


def test_a_candle_gap_stays_a_gap(clock: Clock) -> None:
    gappy = pl.concat([DAY.head(100), DAY.tail(50)])
    with FakeKite({("minute", "RELIANCE"): gappy}, clock) as vendor:
        assert_frame_equal(source(vendor).bars(["RELIANCE"], "1m", OPEN, CLOSE), gappy)


def test_only_bars_that_start_in_the_range_come_back(vendor: FakeKite) -> None:
    got = source(vendor).bars(["RELIANCE"], "1m", OPEN + 10 * MINUTE, OPEN + 20 * MINUTE)
    assert_frame_equal(got, DAY.slice(10, 10))


def test_a_candle_that_is_still_being_formed_is_left_out(vendor: FakeKite, clock: Clock) -> None:
    vendor.token_ends += timedelta(days=365)
    clock.at = OPEN + 30 * MINUTE + timedelta(seconds=20)
    vendor.held = {("minute", "738561"): fake._as_sent(DAY.head(31))}
    assert_frame_equal(source(vendor).bars(["RELIANCE"], "1m", OPEN, CLOSE), DAY.head(30))


def test_values_that_cannot_be_read_are_null_and_their_rows_stay(vendor: FakeKite) -> None:
    def spoil(reply: dict) -> dict:
        candles = reply["data"]["candles"]
        candles[3][2], candles[4][0], candles[5][4] = None, "yesterday", "n/a"
        return reply

    vendor.fail(altered(spoil), on=HISTORY)
    got = source(vendor).bars(["RELIANCE"], "1m", OPEN, CLOSE)
    assert got.height == 375
    assert (got["high"][3], got["ts"][4], got["close"][5]) == (None, None, None)
    untouched = got.with_row_index().filter(~pl.col("index").is_in([3, 4, 5])).drop("index")
    assert_frame_equal(untouched, DAY.with_row_index().filter(~pl.col("index").is_in([3, 4, 5])).drop("index"))


# faults

TOO_MANY = fake.error(429, "NetworkException", "Too many requests")
PASSING: dict[str, Fault] = {
    "429 with a body": instead(TOO_MANY),
    "429 without a body or type": instead(Reply(429, content_type=None)),
    "429 that says how long": instead(TOO_MANY._replace(headers={"Retry-After": "7"})),
    "200 with an error inside": instead(fake.error(200, "NetworkException", "Too many requests")),
    "200 with an error of a kind unknown": instead(fake.error(200, "SomethingNew", "?")),
    "500": instead(fake.error(500, "GeneralException", "Something went wrong")),
    "502 with a body": instead(fake.error(502, "DataException", "OMS down")),
    "503 as a page": instead(Reply(503, b"<html>Bad gateway</html>", "text/html")),
    "200 as a page": instead(Reply(200, b"<html>Maintenance</html>", "text/html")),
    "a connection reset": reset,
    "a reply cut off": cut_off,
    "half of the JSON": instead(Reply(200, b'{"status": "success", "data": {"candles": [["2024')),
    "an empty body": instead(Reply(200)),
    "JSON that is no object": instead(as_json([])),
    "JSON without data": instead(as_json({"status": "success"})),
    "candles without most values": altered(lambda r: {"status": "success", "data": {"candles": [["x", 1]]}}),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_after_a_fault_that_passes_each_bar_is_there_once(vendor: FakeKite, fault: Fault) -> None:
    vendor.fail(fault, fault, on=HISTORY)
    assert_frame_equal(source(vendor).bars(["RELIANCE"], "1m", OPEN, CLOSE), DAY)
    assert len(vendor.asked(HISTORY)) == 3


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_fault_in_the_middle_of_many_pages_neither_loses_nor_repeats_one(clock: Clock, fault: Fault) -> None:
    start = datetime(2021, 1, 1, tzinfo=UTC)
    bars = series("RELIANCE", start, 200 * 24, timedelta(hours=1))
    with FakeKite({("minute", "RELIANCE"): bars}, clock, repeats=True) as vendor:
        vendor.fail(honest, fault, honest, fault, fault, on=HISTORY)
        assert_frame_equal(source(vendor).bars(["RELIANCE"], "1m", start, start + timedelta(days=200)), bars)


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_does_not_pass_is_told_after_six_attempts(vendor: FakeKite, fault: Fault) -> None:
    vendor.fail(*[fault] * 6, on=HISTORY)
    with pytest.raises(SourceUnavailable, match="1m bars of RELIANCE in 6 attempts"):
        source(vendor).bars(["RELIANCE"], "1m", OPEN, CLOSE)
    assert len(vendor.asked(HISTORY)) == 6


def test_an_error_inside_a_reply_is_told_in_the_vendors_words(vendor: FakeKite) -> None:
    vendor.fail(*[PASSING["200 with an error inside"]] * 6, on=HISTORY)
    with pytest.raises(SourceUnavailable, match="Too many requests"):
        source(vendor).bars(["RELIANCE"], "1m", OPEN, CLOSE)


def test_the_vendor_is_left_alone_as_long_as_it_asks(vendor: FakeKite, clock: Clock) -> None:
    vendor.fail(PASSING["429 that says how long"], on=HISTORY)
    source(vendor).bars(["RELIANCE"], "1m", OPEN, CLOSE)
    assert max(clock.waits) >= 7


def test_a_reply_that_does_not_come_is_asked_for_again(vendor: FakeKite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kite, "TIMEOUT", 1.5)
    vendor.fail(vendor.hang, on=HISTORY)
    assert_frame_equal(source(vendor).bars(["RELIANCE"], "1m", OPEN, CLOSE), DAY)


def test_a_vendor_that_never_answers_is_told_as_such(vendor: FakeKite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kite, "TIMEOUT", 0.1)
    vendor.fail(*[vendor.hang] * 6)
    with pytest.raises(SourceUnavailable, match="no answer in time"):
        source(vendor).instruments()


def test_nobody_listening_is_told_as_such(vendor: FakeKite, clock: Clock) -> None:
    settings = {"kind": "kite", "url": "http://127.0.0.1:1"}
    with pytest.raises(SourceUnavailable, match="the connection failed"):
        open_source(settings, clock.around(fake.SECRETS)).instruments()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (fake.error(403, "PermissionException", "Insufficient permission for that call."), "Insufficient permission"),
        (fake.error(400, "InputException", "invalid token"), "invalid token"),
        (Reply(403, b"<html>Forbidden</html>", "text/html"), "HTTP 403"),
        (Reply(404, b"", None), "HTTP 404"),
    ],
)
def test_a_refusal_is_told_at_once(vendor: FakeKite, reply: Reply, message: str) -> None:
    vendor.fail(instead(reply), on=HISTORY)
    with pytest.raises(SourceRefused, match=message):
        source(vendor).bars(["RELIANCE"], "1m", OPEN, CLOSE)
    assert len(vendor.asked(HISTORY)) == 1


def test_unknown_symbols_and_intervals_are_named_with_the_nearest(vendor: FakeKite) -> None:
    with pytest.raises(UnknownSymbols, match=r"RELIANC.*did you mean RELIANCE"):
        source(vendor).bars(["RELIANC"], "1m", OPEN, CLOSE)
    with pytest.raises(SourceRefused, match=r"'2m' bars.*1m"):
        source(vendor).bars(["RELIANCE"], "2m", OPEN, CLOSE)
    assert not vendor.asked(HISTORY)


def test_a_list_of_instruments_cut_off_is_asked_for_again(vendor: FakeKite) -> None:
    vendor.fail(
        cut_off, instead(Reply(200, b"instrument_token,exchange_token\n12,3", "text/csv")), on="/instruments/NSE"
    )
    assert source(vendor).instruments().height == 5
