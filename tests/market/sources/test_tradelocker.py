"""TradeLocker through the vendor's own client, against its server in miniature: full days, pages, logins, faults."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fakes import tradelocker as fake
from fakes.serving import Clock, Fault, Reply, altered, as_json, cut_off, honest, instead, reset
from fakes.telling import series
from fakes.tradelocker import FakeTradeLocker
from polars.testing import assert_frame_equal

from odin_core.market.sources.source import (
    INSTRUMENTS,
    SOURCE_BARS,
    SourceRefused,
    SourceUnavailable,
    UnknownSymbols,
    open_source,
)
from odin_core.market.sources.tradelocker import TradeLockerSource, client

MINUTE = timedelta(minutes=1)
OPEN = datetime(2024, 3, 4, 23, 0, tzinfo=UTC)  # 18:00 in New York
CLOSE = OPEN + 23 * 60 * MINUTE
HISTORY = "/trade/history"
DAY = series("XAUUSD", OPEN, 23 * 60)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vendor(clock: Clock) -> Iterator[FakeTradeLocker]:
    with FakeTradeLocker({("1m", "XAUUSD"): DAY}, clock) as server:
        yield server


def source(vendor: FakeTradeLocker, **settings: Any) -> TradeLockerSource:
    opened = open_source({"kind": "tradelocker", "url": vendor.url, **settings}, vendor.clock.around(fake.SECRETS))
    assert isinstance(opened, TradeLockerSource)
    return opened


# full days


def test_a_full_day_comes_through_the_real_client_as_the_vendor_holds_it(vendor: FakeTradeLocker) -> None:
    assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)
    assert len(vendor.asked(HISTORY)) == 3, "500 bars fit into a reply"
    assert len(vendor.asked("/auth/jwt/token")) == 1


def test_recorded_days_of_gold_are_equal_bar_for_bar(market_file: Callable[[str], Path], clock: Clock) -> None:
    gold = (pl.col("symbol") == "XAUUSD") & pl.col("ts").dt.date().is_between(date(2026, 4, 1), date(2026, 4, 3))
    recorded = pl.scan_parquet(market_file("metals_fx_1m.parquet")).filter(gold).collect()
    bars = recorded.with_columns(oi=pl.lit(None, pl.Float64)).select(
        pl.col(name).cast(kind) for name, kind in SOURCE_BARS.items()
    )
    clock.at = datetime(2026, 6, 1, tzinfo=UTC)
    with FakeTradeLocker({("1m", "XAUUSD"): bars}, clock) as vendor:
        got = source(vendor).bars(["XAUUSD"], "1m", datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 4, 4, tzinfo=UTC))
    assert bars.height > 2000
    assert_frame_equal(got, bars)


@pytest.mark.parametrize("names", ["tohlcv", "vclhot", "hcvtlo"])
def test_columns_come_in_whatever_order_the_configuration_says(clock: Clock, names: str) -> None:
    with FakeTradeLocker({("1m", "XAUUSD"): DAY}, clock, order=names) as vendor:
        assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)


def test_fields_of_a_bar_may_come_in_any_order(vendor: FakeTradeLocker) -> None:
    def turn(reply: dict) -> dict:
        rows = reply["d"]["barDetails"]
        reply["d"]["barDetails"] = [dict(sorted(row.items(), reverse=i % 2 == 0)) for i, row in enumerate(rows)]
        return reply

    vendor.fail(*[altered(turn)] * 3, on=HISTORY)
    assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)


def test_rows_without_names_and_without_a_configured_order_are_refused_not_guessed(vendor: FakeTradeLocker) -> None:
    def unnamed(reply: dict) -> dict:
        reply["d"]["barDetails"] = [list(row.values()) for row in reply["d"]["barDetails"]]
        return reply

    vendor.fail(altered(unnamed), on=HISTORY)
    with pytest.raises(SourceRefused, match="configuration does not say their order"):
        source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE)


def test_instruments_have_sizes_for_the_symbols_of_the_settings(vendor: FakeTradeLocker) -> None:
    found = source(vendor, symbols=["XAUUSD"]).instruments()
    assert found.schema == INSTRUMENTS
    assert dict(found.select("symbol", "kind").rows()) == {
        "EURUSD": "spot", "XAUUSD": "cfd", "US30": "cfd", "BTCUSD": "spot",
    }  # fmt: skip
    sizes = {row["symbol"]: (row["tick_size"], row["lot_size"]) for row in found.to_dicts()}
    assert sizes == {"XAUUSD": (0.01, 100.0), "EURUSD": (None, None), "US30": (None, None), "BTCUSD": (None, None)}
    assert len(vendor.asked("/trade/instruments/")) == 1


def test_of_several_routes_the_one_with_quotes_is_asked(clock: Clock) -> None:
    with FakeTradeLocker({("1m", "XAUUSD"): DAY}, clock, routes=(fake.INFO, fake.STALE_INFO)) as vendor:
        vendor.fail(instead(fake.TOO_MANY), on="/trade/quotes")  # a limit hit says nothing about a route
        assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)


# pages and limits


@pytest.mark.parametrize(("interval", "minutes"), [("1m", 1), ("5m", 5), ("30m", 30), ("60m", 60), ("240m", 240)])
def test_a_long_range_is_asked_for_in_pages_and_comes_back_once(clock: Clock, interval: str, minutes: int) -> None:
    start, step = datetime(2022, 1, 3, tzinfo=UTC), timedelta(minutes=minutes)
    vendors = {"60m": "1H", "240m": "4H"}.get(interval, interval)
    bars = series("XAUUSD", start, 1750, step)
    with FakeTradeLocker({(vendors, "XAUUSD"): bars}, clock) as vendor:
        assert_frame_equal(source(vendor).bars(["XAUUSD"], interval, start, start + 1750 * step), bars)
        assert len(vendor.asked(HISTORY)) == 4


def test_pages_that_overlap_give_each_bar_once(vendor: FakeTradeLocker) -> None:
    rows = vendor.held[("1m", "XAUUSD")]

    def widened(reply: dict) -> dict:
        sent = reply["d"]["barDetails"]
        first, last = rows.index(sent[0]), rows.index(sent[-1])
        return {"s": "ok", "d": {"barDetails": rows[max(0, first - 5) : last + 6]}}

    vendor.fail(*[altered(widened)] * 3, on=HISTORY)
    assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)


def test_a_day_bar_overlaps_the_session_asked_for(clock: Clock) -> None:
    days = series("XAUUSD", datetime(2023, 1, 2, 22, tzinfo=UTC), 600, timedelta(days=1))
    with FakeTradeLocker({("1D", "XAUUSD"): days}, clock) as vendor:
        got = source(vendor).bars(["XAUUSD"], "day", days["ts"][10] + MINUTE, days["ts"][20] + MINUTE)
    assert_frame_equal(got, days.slice(10, 11))


def test_requests_keep_to_the_limits_of_the_configuration(clock: Clock) -> None:
    with FakeTradeLocker({}, clock) as vendor:
        began = clock.now()
        got = source(vendor).bars(["XAUUSD", "US30"], "1m", OPEN, OPEN + timedelta(days=7))
        asked = len(vendor.asked(HISTORY))
        assert asked == 2 * 21, "no request was refused for coming too early"
        assert clock.now() - began >= timedelta(seconds=(asked - 1) / 2)
    assert got.is_empty()
    assert got.schema == SOURCE_BARS


def test_a_gap_stays_a_gap_and_an_empty_page_ends_nothing(clock: Clock) -> None:
    gappy = pl.concat([DAY.head(100), DAY.tail(50)])
    with FakeTradeLocker({("1m", "XAUUSD"): gappy}, clock) as vendor:
        assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), gappy)


def test_a_bar_that_is_still_being_formed_is_left_out(vendor: FakeTradeLocker, clock: Clock) -> None:
    clock.at = OPEN + 60 * MINUTE
    opened = source(vendor)
    opened.instruments()
    clock.at = OPEN + 120 * MINUTE + timedelta(seconds=20)
    got = opened.bars(["XAUUSD"], "1m", OPEN, CLOSE)
    assert got["ts"][-1] + MINUTE <= clock.now()
    assert_frame_equal(got, DAY.head(got.height))
    assert 120 <= got.height <= 121


def test_a_missing_price_is_null_and_not_zero(vendor: FakeTradeLocker) -> None:
    def spoil(reply: dict) -> dict:
        reply["d"]["barDetails"][3]["h"] = None
        reply["d"]["barDetails"][4]["c"] = "n/a"
        reply["d"]["barDetails"][5]["t"] = None
        return reply

    vendor.fail(altered(spoil), on=HISTORY)
    got = source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE)
    assert got.height == DAY.height
    assert (got["high"][3], got["close"][4], got["ts"][5]) == (None, None, None)


# faults

PASSING: dict[str, Fault] = {
    "429 with a body": instead(fake.TOO_MANY),
    "429 without a body or type": instead(Reply(429, content_type=None)),
    "429 that says how long": instead(fake.TOO_MANY._replace(headers={"Retry-After": "7"})),
    "200 with an error inside": instead(as_json({"s": "error", "errmsg": "Internal error"})),
    "200 without s": instead(as_json({"message": "?"})),
    "500": instead(as_json({"s": "error", "errmsg": "oops"}, 500)),
    "503 as a page": instead(Reply(503, b"<html>Bad gateway</html>", "text/html")),
    "200 as a page": instead(Reply(200, b"<html>Maintenance</html>", "text/html")),
    "a connection reset": reset,
    "a reply cut off": cut_off,
    "half of the JSON": instead(Reply(200, b'{"s": "ok", "d": {"barDetails": [{"t"')),
    "an empty body": instead(Reply(200)),
    "JSON that is no object": instead(as_json([])),
    "ok without content": instead(as_json({"s": "ok"})),
    "bars without prices": instead(as_json({"s": "ok", "d": {"barDetails": [{"t": 1}]}})),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_fault_in_the_middle_of_many_pages_neither_loses_nor_repeats_one(
    vendor: FakeTradeLocker, fault: Fault
) -> None:
    vendor.fail(fault, honest, fault, fault, on=HISTORY)
    assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)
    assert len(vendor.asked(HISTORY)) == 6


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_does_not_pass_is_told_after_six_attempts(vendor: FakeTradeLocker, fault: Fault) -> None:
    vendor.fail(*[fault] * 6, on=HISTORY)
    with pytest.raises(SourceUnavailable, match="1m bars of XAUUSD in 6 attempts"):
        source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE)
    assert len(vendor.asked(HISTORY)) == 6


@pytest.mark.parametrize("on", ["/auth/jwt/token", "/all-accounts", "/trade/config", "/instruments"])
@pytest.mark.parametrize("name", ["429 with a body", "503 as a page", "a connection reset", "half of the JSON"])
def test_every_other_request_is_tried_again_too(vendor: FakeTradeLocker, on: str, name: str) -> None:
    vendor.fail(PASSING[name], PASSING[name], on=on)
    assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)


def test_an_error_inside_a_reply_is_told_in_the_vendors_words(vendor: FakeTradeLocker) -> None:
    vendor.fail(*[PASSING["200 with an error inside"]] * 6, on=HISTORY)
    with pytest.raises(SourceUnavailable, match="answered with an error: Internal error"):
        source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE)


def test_the_vendor_is_left_alone_as_long_as_it_asks(vendor: FakeTradeLocker, clock: Clock) -> None:
    vendor.fail(PASSING["429 that says how long"], on=HISTORY)
    source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE)
    assert max(clock.waits) >= 7


def test_a_reply_that_does_not_come_is_asked_for_again(
    vendor: FakeTradeLocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TIMEOUT", (1.5, 1.5))
    vendor.fail(vendor.hang, on=HISTORY)
    assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)


def test_a_vendor_that_never_answers_is_told_as_such(vendor: FakeTradeLocker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", (1.5, 0.1))
    vendor.fail(*[vendor.hang] * 6)
    with pytest.raises(SourceUnavailable, match="no answer in time"):
        source(vendor).instruments()


@pytest.mark.parametrize("reply", [as_json({"s": "error", "errmsg": "no"}, 403), Reply(404, b"", None)])
def test_a_refusal_is_told_at_once(vendor: FakeTradeLocker, reply: Reply) -> None:
    vendor.fail(instead(reply), on=HISTORY)
    with pytest.raises(SourceRefused, match=f"/trade/history: HTTP {reply.status}"):
        source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE)
    assert len(vendor.asked(HISTORY)) == 1


def test_unknown_symbols_and_intervals_are_named_with_the_nearest(vendor: FakeTradeLocker) -> None:
    with pytest.raises(UnknownSymbols, match=r"XAUUS .*did you mean XAUUSD"):
        source(vendor).bars(["XAUUS"], "1m", OPEN, CLOSE)
    with pytest.raises(SourceRefused, match=r"'2m' bars.*1m"):
        source(vendor).bars(["XAUUSD"], "2m", OPEN, CLOSE)
    assert not vendor.asked(HISTORY)
