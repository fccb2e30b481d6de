"""Tradovate, through requests and websockets against a server on this machine that speaks the vendor's protocol."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fakes.tradovate import (
    CLOSED,
    CREDENTIALS,
    DEAD,
    MALFORMED,
    NO_FAULT,
    NO_REPLY,
    RESET,
    RESET_IN_THE_MIDDLE,
    SHUTDOWN,
    FakeTradovate,
    Reply,
    larger,
)
from polars.testing import assert_frame_equal

from odin_core.errors import OdinError
from odin_core.home import open_home
from odin_core.lake import Lake
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.fetching import fetch_market
from odin_core.market.intake.tap import Tap, compact
from odin_core.market.profile import load_profile
from odin_core.market.sources import tradovate
from odin_core.market.sources.source import (
    INSTRUMENTS,
    SOURCE_BARS,
    TICKS,
    Around,
    HasToken,
    MissingSecrets,
    SourceRefused,
    SourceUnavailable,
    Streams,
    TokenExpired,
    UnknownSymbols,
    open_source,
    secrets_of,
)
from odin_core.market.sources.tradovate import Tradovate, feed

OPEN = datetime(2024, 12, 1, 23, tzinfo=UTC)  # 18:00 in New York, the start of the session of Monday, 2 December
CLOSE = datetime(2024, 12, 2, 22, tzinfo=UTC)
MONDAY = date(2024, 12, 2)
NOW = datetime(2024, 12, 3, 12, tzinfo=UTC)


class Clock:
    """Runs as the real one does, and jumps where the source sleeps."""

    def __init__(self, start: datetime) -> None:
        self._start, self._began = start, time.monotonic()
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=time.monotonic() - self._began + sum(self.slept))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def around(self, secrets: dict[str, str] = CREDENTIALS) -> Around:
        return Around(secrets=secrets, now=self.now, sleep=self.sleep, rng=np.random.default_rng(3))


def day_of(symbol: str, first: datetime = OPEN, minutes: int = 23 * 60) -> pl.DataFrame:
    """Minute bars as the vendor holds them: a walk in quarters, with volume on either side."""
    rng = np.random.default_rng(sum(symbol.encode()))
    close = 6000 + np.round(rng.normal(0, 3, minutes).cumsum() * 4) / 4
    opened = np.append(6000.0, close[:-1])
    return pl.DataFrame(
        {
            "ts": pl.datetime_range(first, first + timedelta(minutes=minutes - 1), "1m", eager=True, time_zone="UTC"),
            "open": opened,
            "high": np.maximum(opened, close) + 0.25,
            "low": np.minimum(opened, close) - 0.5,
            "close": close,
            "up": rng.integers(0, 900, minutes).astype(float),
            "down": rng.integers(0, 900, minutes).astype(float),
        }
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))


def as_source(symbol: str, held: pl.DataFrame) -> pl.DataFrame:
    volume, prices = pl.col("up") + pl.col("down"), ("open", "high", "low", "close")
    return held.select("ts", *prices, symbol=pl.lit(symbol), volume=volume, oi=pl.lit(None, pl.Float64))


def expected(held: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return pl.concat([as_source(symbol, bars) for symbol, bars in held.items()]).select(list(SOURCE_BARS))


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def fake(clock: Clock) -> Iterator[FakeTradovate]:
    with FakeTradovate(clock.now).running() as fake:
        fake.bars = {"ESZ4": day_of("ESZ4"), "NQZ4": day_of("NQZ4")}
        yield fake


@pytest.fixture
def source(fake: FakeTradovate, clock: Clock) -> Tradovate:
    return connected(fake, clock)


def connected(
    fake: FakeTradovate, clock: Clock, secrets: dict[str, str] = CREDENTIALS, **settings: object
) -> Tradovate:
    return open_source({**fake.settings, **settings}, clock.around(secrets))  # type: ignore[return-value]


def test_it_is_a_source_with_a_token_and_a_stream(source: Tradovate) -> None:
    assert isinstance(source, HasToken)
    assert isinstance(source, Streams)
    assert set(secrets_of("tradovate")) == set(CREDENTIALS)


def test_a_full_day_comes_as_the_vendor_holds_it(source: Tradovate, fake: FakeTradovate) -> None:
    fake.page = 500
    bars = source.bars(["ESZ4", "NQZ4"], "1m", OPEN, CLOSE)
    assert_frame_equal(bars, expected(fake.bars), check_exact=True)
    assert bars.schema == SOURCE_BARS
    asked = [fields for fields in fake.asked("md/getChart") if fields["symbol"] == "ESZ4"]
    assert len(asked) == 3  # 500 at a time, the newest first
    assert [fields["timeRange"]["closestTimestamp"] for fields in asked] == [
        "2024-12-02T22:00:00.000Z",
        "2024-12-02T13:40:00.000Z",
        "2024-12-02T05:21:00.000Z",
    ]


def test_every_chart_is_cancelled_before_the_next(source: Tradovate, fake: FakeTradovate) -> None:
    fake.page = 500
    source.bars(["ESZ4"], "1m", OPEN, CLOSE)
    wait_for(lambda: len(fake.asked("md/cancelChart")) == 3)
    wait_for(lambda: not fake.open_charts)


@pytest.mark.parametrize("page", [2, 499, 1380, 5000])
def test_whatever_a_page_holds_no_bar_is_missing_or_there_twice(source: Tradovate, fake: FakeTradovate, page: int):
    fake.page, minutes = page, 60 if page == 2 else 1380
    fake.bars = {"ESZ4": day_of("ESZ4", minutes=minutes)}
    assert_frame_equal(source.bars(["ESZ4"], "1m", OPEN, CLOSE), expected(fake.bars), check_exact=True)


@pytest.mark.parametrize(("interval", "minutes"), [("5m", 5), ("15m", 15), ("60m", 60)])
def test_larger_bars_are_the_vendors_own(source: Tradovate, fake: FakeTradovate, interval: str, minutes: int) -> None:
    held = {"ESZ4": larger(fake.bars["ESZ4"], minutes)}
    assert_frame_equal(source.bars(["ESZ4"], interval, OPEN, CLOSE), expected(held), check_exact=True)


def test_the_range_ends_before_its_end_and_starts_at_its_start(source: Tradovate, fake: FakeTradovate) -> None:
    start, end = OPEN + timedelta(minutes=90), OPEN + timedelta(minutes=100)
    bars = source.bars(["ESZ4"], "1m", start, end)
    assert (bars["ts"].min(), bars["ts"].max(), bars.height) == (start, end - timedelta(minutes=1), 10)


def test_a_bar_that_is_not_over_is_left_out(fake: FakeTradovate) -> None:
    clock = Clock(OPEN + timedelta(minutes=30, seconds=20))
    fake.now = clock.now
    bars = connected(fake, clock).bars(["ESZ4"], "5m", OPEN, CLOSE)
    assert bars["ts"].max() == OPEN + timedelta(minutes=25)
    assert connected(fake, clock).bars(["ESZ4"], "1m", OPEN, CLOSE)["ts"].max() == OPEN + timedelta(minutes=29)


def test_a_gap_in_the_history_is_no_end_of_it(source: Tradovate, fake: FakeTradovate) -> None:
    whole = fake.bars["ESZ4"]
    fake.bars["ESZ4"] = pl.concat([whole[:300], whole[900:]])
    fake.page = 200
    bars = source.bars(["ESZ4"], "1m", OPEN, CLOSE)
    assert_frame_equal(bars, expected({"ESZ4": fake.bars["ESZ4"]}), check_exact=True)


def test_a_symbol_without_bars_gives_none(source: Tradovate) -> None:
    assert source.bars(["ESH5"], "1m", OPEN, CLOSE).equals(SOURCE_BARS.to_frame())
    assert source.bars([], "1m", OPEN, CLOSE).equals(SOURCE_BARS.to_frame())


def test_values_that_cannot_be_read_are_handed_over_as_null(source: Tradovate, fake: FakeTradovate) -> None:
    bad = {"timestamp": "soon", "open": "n/a", "high": 1, "low": None, "close": 2.5, "upVolume": 3}
    fake.raw["ESZ4"] = [bad, {}]
    bars = source.bars(["ESZ4"], "1m", OPEN, CLOSE)
    assert bars.rows() == [("ESZ4", None, None, 1.0, None, 2.5, None, None), ("ESZ4", *[None] * 7)]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(RESET, id="connection reset"),
        pytest.param(RESET_IN_THE_MIDDLE, id="reset between two packets"),
        pytest.param(CLOSED, id="close frame"),
        pytest.param(SHUTDOWN, id="maintenance"),
        pytest.param(MALFORMED, id="malformed frame"),
        pytest.param(Reply(429), id="429 without a body"),
        pytest.param(Reply(429, "slow down"), id="429 with a body"),
        pytest.param(Reply(503, "busy"), id="5xx"),
        pytest.param(Reply(200, {}), id="a chart without a number"),
        pytest.param(Reply(200), id="empty reply"),
    ],
)
def test_a_chart_that_fails_once_is_asked_for_again_and_nothing_is_there_twice(
    source: Tradovate, fake: FakeTradovate, clock: Clock, fault: Reply | str
) -> None:
    fake.page = 500
    fake.plan("md/getChart", fault, NO_FAULT, fault)
    assert_frame_equal(source.bars(["ESZ4"], "1m", OPEN, CLOSE), expected(fake.bars).filter(symbol="ESZ4"))
    assert len(fake.asked("md/getChart")) == 3 + 2
    assert 0 < sum(clock.slept) < 10


@pytest.mark.parametrize("fault", [pytest.param(NO_REPLY, id="no reply"), pytest.param(DEAD, id="no heartbeat either")])
def test_a_server_that_says_nothing_is_left_and_asked_anew(
    source: Tradovate, fake: FakeTradovate, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PATIENCE", timedelta(seconds=0.6))
    monkeypatch.setattr(feed, "SILENCE", timedelta(seconds=0.3))
    monkeypatch.setattr(feed, "HEARTBEAT", 0.1)
    fake.plan("md/getChart", fault)
    assert source.bars(["ESZ4"], "1m", OPEN, CLOSE).height == 1380


def test_a_fault_that_does_not_pass_ends_with_what_was_asked_and_why(source: Tradovate, fake: FakeTradovate) -> None:
    fake.plan("md/getChart", *[Reply(503)] * 6)
    with pytest.raises(SourceUnavailable, match=r"no ESZ4 1m bars before 2024-12-02 22:00 in 6 attempts.*status 503"):
        source.bars(["ESZ4"], "1m", OPEN, CLOSE)


def test_an_error_inside_a_good_reply_is_an_error(source: Tradovate, fake: FakeTradovate) -> None:
    fake.plan("md/getChart", Reply(200, {"errorText": "Symbol is inaccessible", "errorCode": "UnknownSymbol"}))
    with pytest.raises(SourceRefused, match="Symbol is inaccessible"):
        source.bars(["ESZ4"], "1m", OPEN, CLOSE)
    assert len(fake.asked("md/getChart")) == 1  # not asked again


def test_a_penalty_of_the_socket_is_waited_for_and_its_ticket_returned(
    source: Tradovate, fake: FakeTradovate, clock: Clock
) -> None:
    fake.page = 5000
    fake.plan("md/getChart", fake.penalty(15))
    assert source.bars(["ESZ4"], "1m", OPEN, CLOSE).height == 1380
    assert [fields.get("p-ticket") for fields in fake.asked("md/getChart")] == [None, "ticket-1"]
    assert max(clock.slept) >= 15


@pytest.mark.parametrize("path", ["contract/find", "auth/accesstokenrequest"])
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(RESET, id="connection reset"),
        pytest.param(Reply(429), id="429 without a body"),
        pytest.param(Reply(429, "Too Many Requests"), id="429 with a body"),
        pytest.param(Reply(500, "<html>oops</html>"), id="5xx"),
        pytest.param(Reply(200, "<html>login</html>"), id="malformed body"),
        pytest.param(Reply(200, None), id="empty body"),
    ],
)
def test_a_call_that_fails_twice_succeeds_the_third_time(
    source: Tradovate, fake: FakeTradovate, path: str, fault: Reply | str
) -> None:
    fake.plan(path, fault, fault)
    assert source.bars(["ESZ4"], "1m", OPEN, CLOSE).height == 1380
    assert len(fake.asked(path)) == 3


def test_a_reply_that_is_too_slow_is_given_up(
    source: Tradovate, fake: FakeTradovate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tradovate.rest, "TIMEOUT", (1.0, 0.2))
    fake.plan("contract/find", Reply(200, {}, delay=0.6))
    assert source.bars(["ESZ4"], "1m", OPEN, CLOSE).height == 1380
    assert len(fake.asked("contract/find")) == 2


def test_what_the_vendor_asks_to_wait_is_waited(source: Tradovate, fake: FakeTradovate, clock: Clock) -> None:
    fake.plan("contract/find", Reply(429, retry_after="37"))
    source.bars(["ESZ4"], "1m", OPEN, CLOSE)
    assert max(clock.slept) >= 37


@pytest.mark.parametrize("path", ["auth/accesstokenrequest", "contract/find"])
def test_a_penalty_of_rest_is_waited_for_and_its_ticket_returned(
    source: Tradovate, fake: FakeTradovate, clock: Clock, path: str
) -> None:
    fake.plan(path, fake.penalty(15))
    assert source.bars(["ESZ4"], "1m", OPEN, CLOSE).height == 1380
    first, second = fake.asked(path)
    assert second == {**first, "p-ticket": "ticket-1"}
    assert max(clock.slept) >= 15


def test_a_captcha_is_for_people(source: Tradovate, fake: FakeTradovate) -> None:
    fake.plan("auth/accesstokenrequest", fake.penalty(15, captcha=True))
    with pytest.raises(SourceUnavailable, match="captcha"):
        source.bars(["ESZ4"], "1m", OPEN, CLOSE)
    assert len(fake.asked("auth/accesstokenrequest")) == 1


def test_one_login_serves_everything(source: Tradovate, fake: FakeTradovate) -> None:
    source.bars(["ESZ4", "NQZ4"], "1m", OPEN, CLOSE)
    source.bars(["ESZ4"], "5m", OPEN, CLOSE)
    source.token()
    assert len(fake.asked("auth/accesstokenrequest")) == 1
    assert fake.asked("auth/renewaccesstoken") == []


def test_a_login_near_its_end_is_renewed_and_no_new_session_begun(
    source: Tradovate, fake: FakeTradovate, clock: Clock
) -> None:
    source.bars(["ESZ4"], "1m", OPEN, CLOSE)
    clock.sleep(80 * 60)
    assert source.bars(["NQZ4"], "1m", OPEN, CLOSE).height == 1380
    assert len(fake.asked("auth/renewaccesstoken")) == 1
    assert len(fake.asked("auth/accesstokenrequest")) == 1
    assert source.token().expires_at > NOW + timedelta(minutes=160)


def test_a_login_that_has_expired_is_made_anew(source: Tradovate, fake: FakeTradovate, clock: Clock) -> None:
    source.bars(["ESZ4"], "1m", OPEN, CLOSE)
    clock.sleep(91 * 60)
    assert source.bars(["NQZ4"], "1m", OPEN, CLOSE).height == 1380
    assert len(fake.asked("auth/accesstokenrequest")) == 2


def test_a_session_ended_by_another_program_is_begun_again_in_the_middle_of_a_history(
    source: Tradovate, fake: FakeTradovate
) -> None:
    fake.page = 500
    source.token()
    fake.plan("md/getChart", NO_FAULT, Reply(401, "Access is denied"))
    assert_frame_equal(source.bars(["ESZ4"], "1m", OPEN, CLOSE), expected(fake.bars).filter(symbol="ESZ4"))
    fake.end_sessions()
    assert source.bars(["NQZ4"], "1m", OPEN, CLOSE).height == 1380
    assert len(fake.asked("auth/accesstokenrequest")) == 3


def test_an_account_that_is_never_let_in_is_told_so_after_one_new_login(source: Tradovate, fake: FakeTradovate) -> None:
    fake.plan("authorize", *[Reply(401, "Access is denied")] * 9)
    with pytest.raises(TokenExpired, match=r"Access is denied.*subscription to market data"):
        source.bars(["ESZ4"], "1m", OPEN, CLOSE)
    assert len(fake.asked("auth/accesstokenrequest")) == 2


def test_a_renewal_that_is_refused_becomes_a_login(source: Tradovate, fake: FakeTradovate, clock: Clock) -> None:
    source.token()
    clock.sleep(80 * 60)
    fake.end_sessions()
    assert source.token().is_fresh
    assert len(fake.asked("auth/accesstokenrequest")) == 2


def test_a_wrong_password_is_refused_once_and_not_tried_again(fake: FakeTradovate, clock: Clock) -> None:
    wrong = connected(fake, clock, {**CREDENTIALS, "TRADOVATE_PASSWORD": "wrong-password"})
    with pytest.raises(SourceRefused, match=r"TRADOVATE_PASSWORD.*Incorrect username or password"):
        wrong.bars(["ESZ4"], "1m", OPEN, CLOSE)
    assert len(fake.asked("auth/accesstokenrequest")) == 1
    state = wrong.token()
    assert not state.is_fresh
    assert "Incorrect username or password" in state.detail


def test_what_is_missing_is_named_before_anything_is_asked(fake: FakeTradovate, clock: Clock) -> None:
    with pytest.raises(MissingSecrets, match=r"TRADOVATE_CID .*TRADOVATE_SECRET"):
        connected(fake, clock, {name: v for name, v in CREDENTIALS.items() if name[10:] not in ("CID", "SECRET")})
    with pytest.raises(OdinError, match=r"no environment 'paper'; set source.environment to live or demo"):
        connected(fake, clock, environment="paper")
    assert fake.requests == []


def test_instruments_of_contracts_and_products(fake: FakeTradovate, clock: Clock) -> None:
    found = connected(fake, clock, symbols=["NQZ4"], products=["ES"]).instruments()
    assert found.schema == INSTRUMENTS
    es = ("future", "ES")
    assert found.rows() == [
        ("ESH5", "E-Mini S&P 500", *es, date(2025, 3, 21), None, None, 0.25, 50.0, "3570919"),
        ("ESZ4", "E-Mini S&P 500", *es, date(2024, 12, 20), None, None, 0.25, 50.0, "3570918"),
        ("NQZ4", "E-Mini NASDAQ-100", "future", "NQ", date(2024, 12, 20), None, None, 0.25, 20.0, "3570920"),
    ]
    assert connected(fake, clock).instruments().equals(INSTRUMENTS.to_frame())


def test_an_unknown_contract_is_named_with_those_that_are_near(fake: FakeTradovate, clock: Clock) -> None:
    with pytest.raises(UnknownSymbols, match=r"knows no ESZ5 .*ESZ4"):
        connected(fake, clock).bars(["ESZ4", "ESZ5"], "1m", OPEN, CLOSE)
    with pytest.raises(UnknownSymbols, match=r"knows no NX .*NQ"):
        connected(fake, clock, products=["NX"]).instruments()


def test_an_interval_that_it_has_not_is_refused(source: Tradovate) -> None:
    with pytest.raises(SourceRefused, match="7m bars: it has 1m, 5m, 15m, 60m"):
        source.bars(["ESZ4"], "7m", OPEN, CLOSE)


def test_a_long_wait_is_bridged_by_heartbeats(
    source: Tradovate, fake: FakeTradovate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 0.1)
    fake.patience = 0.5
    received, stopped = listen(source, fake, ["ESZ4"])
    time.sleep(1.2)
    fake.publish("ESZ4", 6000.0, 1, 100, NOW)
    fake.publish("ESZ4", 6000.25, 2, 102, NOW)
    wait_for(lambda: bool(received))
    stopped.set()
    assert fake.heard_heartbeats >= 5
    assert len(fake.asked("md/subscribeQuote")) == 1  # never dropped


def test_live_ticks_are_the_trades_and_their_volumes_add_up_to_the_days(source: Tradovate, fake: FakeTradovate) -> None:
    received, stopped = listen(source, fake, ["ESZ4", "NQZ4"])
    second = timedelta(seconds=1)
    fake.publish("ESZ4", 6000.0, 3, 1000, NOW)  # what was known before we came
    fake.publish("ESZ4", 6000.5, 2, 1002, NOW + second)
    fake.publish("ESZ4", 6000.5, 2, 1002, NOW + 2 * second)  # a new bid, no trade
    fake.publish("NQZ4", 21000.0, 1, 50, NOW)
    fake.publish("NQZ4", 21000.25, 1, 51, NOW + 3 * second)
    fake.publish("ESZ4", 6001.0, 4, 1013, NOW + 4 * second)  # several trades in one quote
    fake.publish("ESZ4", 6001.25, 5, 5, "2024-12-03T23:00Z")  # a new trading day counts from zero
    fake.publish("ESZ4", 6001.5, 1, 6, "no time")
    fake.publish("ESZ4", 6001.75, 1, 7, "2024-12-03T23:01:00.125Z")
    wait_for(lambda: sum(frame.height for frame in received) == 5)
    stopped.set()
    ticks = pl.concat(received)
    assert ticks.schema == TICKS
    assert ticks.rows() == [
        ("ESZ4", stamp(NOW + second), 6000.5, 2.0),
        ("NQZ4", stamp(NOW + 3 * second), 21000.25, 1.0),
        ("ESZ4", stamp(NOW + 4 * second), 6001.0, 11.0),
        ("ESZ4", datetime(2024, 12, 3, 23, tzinfo=UTC), 6001.25, 5.0),
        ("ESZ4", datetime(2024, 12, 3, 23, 1, 0, 125000, tzinfo=UTC), 6001.75, 1.0),
    ]


def test_a_subscription_that_fails_is_made_again(source: Tradovate, fake: FakeTradovate, clock: Clock) -> None:
    fake.plan("md/subscribeQuote", Reply(429), fake.penalty(15), RESET)
    received, stopped = listen(source, fake, ["ESZ4"])
    fake.publish("ESZ4", 6000.0, 1, 100, NOW)
    fake.publish("ESZ4", 6000.25, 1, 101, NOW)
    wait_for(lambda: bool(received))
    stopped.set()
    assert [fields.get("p-ticket") for fields in fake.asked("md/subscribeQuote")] == [
        None,
        None,
        "ticket-1",
        "ticket-1",
    ]
    assert max(clock.slept) >= 15


def test_a_stream_that_never_brings_anything_ends_with_why(source: Tradovate, fake: FakeTradovate) -> None:
    fake.plan("md/subscribeQuote", *[RESET] * 6)
    with pytest.raises(SourceUnavailable, match=r"no live quotes in 6 attempts.*the connection was lost"):
        source.stream(["ESZ4"], lambda ticks: None, lambda: False)


def test_a_lost_stream_is_taken_up_again_and_counts_nothing_twice(source: Tradovate, fake: FakeTradovate) -> None:
    received, stopped = listen(source, fake, ["ESZ4"])
    fake.publish("ESZ4", 6000.0, 1, 100, NOW)
    fake.publish("ESZ4", 6000.25, 1, 101, NOW)
    wait_for(lambda: bool(received))
    fake.drop_listeners()
    wait_for(lambda: bool(fake.quoted))
    fake.publish("ESZ4", 6005.0, 1, 900, NOW)  # 798 were traded while nobody listened
    fake.publish("ESZ4", 6005.25, 3, 903, NOW)
    wait_for(lambda: len(received) == 2)
    stopped.set()
    assert pl.concat(received)["volume"].to_list() == [1.0, 3.0]


def test_a_day_fetched_into_a_lake_is_what_the_vendor_holds(fake: FakeTradovate, clock: Clock, tmp_path: Path) -> None:
    fake.page = 700
    fake.plan("md/getChart", NO_FAULT, RESET_IN_THE_MIDDLE)
    source = {**fake.settings, "symbols": ["ESZ4", "NQZ4"]}
    home, profile = open_home(tmp_path / "home"), replace(load_profile("futures"), source=source)
    fetched = [fetch_market(home, profile, clock.around(), [MONDAY]) for _ in range(2)]
    stored = home.lake("futures").read("price_history", MONDAY).drop("known_at")
    assert_frame_equal(stored, expected(fake.bars), check_exact=True)
    assert [report.kept for report in fetched] == [2 * 1380, 0]  # the second found all of it there
    assert not home.lake("futures").has("quarantine", MONDAY)


def test_live_trades_go_through_the_tap_into_the_lake(fake: FakeTradovate, clock: Clock, tmp_path: Path) -> None:
    tap = Tap(tmp_path, "futures", "CME", now=clock.now, seconds=0.05)
    stopped = streaming(connected(fake, clock), fake, ["ESZ4"], tap.offer)
    trades = [(0, 6000.0), (5, 6001.0), (20, 5999.5), (59, 6000.25), (60, 6002.0), (90, 6001.5)]
    fake.publish("ESZ4", 5000.0, 1, 100, OPEN)
    for number, (second, price) in enumerate(trades, start=101):
        fake.publish("ESZ4", price, 1, number, OPEN + timedelta(seconds=second))
    wait_for(lambda: tap.counts().written == len(trades))
    stopped.set()
    tap.close()
    lake = Lake(tmp_path / "lake")
    compact(tmp_path, "futures", lake=lake, calendar=session_calendar(load_profile("futures")), session=MONDAY)
    minute = timedelta(minutes=1)
    assert lake.read("price_history", MONDAY).rows() == [
        ("ESZ4", OPEN, OPEN + minute, 6000.0, 6001.0, 5999.5, 6000.25, 4.0, None),
        ("ESZ4", OPEN + minute, OPEN + 2 * minute, 6002.0, 6002.0, 6001.5, 6001.5, 2.0, None),
    ]


def test_no_secret_is_ever_logged_or_raised(
    fake: FakeTradovate, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [value for name, value in CREDENTIALS.items() if name != "TRADOVATE_CID"]  # as short as a port's number
    told: list[str] = []
    for path in ("auth/accesstokenrequest", "contract/find", "authorize", "md/getChart"):
        for echo in (Reply(400, {"errorText": f"bad request: {secrets}"}), Reply(401, str(secrets)), RESET):
            source = connected(fake, clock)
            fake.plan(path, *[echo] * 6)
            with pytest.raises(OdinError) as error:
                source.bars(["ESZ4"], "1m", OPEN, OPEN + timedelta(minutes=5))
            told.append(str(error.value))
            fake.forget_plans()
    source = connected(fake, clock)
    source.token()
    fake.plan("md/getChart", Reply(400, {"errorText": f"what is {source._rest.login().market_data}?"}))
    with pytest.raises(SourceRefused) as refusal:
        source.bars(["ESZ4"], "1m", OPEN, CLOSE)
    told += [str(refusal.value), repr(source._rest.login()), str(source.token())]
    everything = caplog.text + "\n".join(told)
    assert "***" in everything
    assert "accesstokenrequest" in caplog.text  # the scan did see the libraries' debug lines
    tokens = [*fake.sessions, "of-jane"]
    assert [secret for secret in [*secrets, *tokens] if secret in everything] == []


def listen(source: Tradovate, fake: FakeTradovate, symbols: list[str]) -> tuple[list[pl.DataFrame], threading.Event]:
    """The frames that a stream in the background brings; set the event to end it."""
    received: list[pl.DataFrame] = []
    return received, streaming(source, fake, symbols, received.append)


def streaming(
    source: Tradovate, fake: FakeTradovate, symbols: list[str], on_ticks: Callable[[pl.DataFrame], None]
) -> threading.Event:
    """A stream in the background, once it has subscribed; set the event to end it."""
    stopped = threading.Event()
    threading.Thread(target=source.stream, args=(symbols, on_ticks, stopped.is_set), daemon=True).start()
    wait_for(lambda: any(len(contracts) == len(symbols) for contracts in fake.quoted.values()))
    return stopped


def wait_for(holds: Callable[[], bool], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def stamp(at: datetime) -> datetime:
    """To the millisecond, as the vendor writes times."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
