"""Kite through the vendor's own client, against its server in miniature: full days, pages, limits and every fault."""

import logging
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from fakes import kite as fake
from fakes.kite import IST, FakeKite
from fakes.serving import Clock, Fault, Reply, altered, as_json, cut_off, honest, instead, reset, slow
from polars.testing import assert_frame_equal

from odin_core.market.sources import kite
from odin_core.market.sources.source import (
    INSTRUMENTS,
    SOURCE_BARS,
    HasToken,
    MissingSecrets,
    SourceRefused,
    SourceUnavailable,
    TokenExpired,
    UnknownSymbols,
    open_source,
    secrets_of,
)

MINUTE = timedelta(minutes=1)
OPEN = datetime(2024, 1, 15, 9, 15, tzinfo=IST).astimezone(UTC)
CLOSE = OPEN + 375 * MINUTE
HISTORY = "/instruments/historical"
REQUEST_TOKEN = "request-token-42"


def series(symbol: str, start: datetime, n: int, step: timedelta = MINUTE, oi: bool = False) -> pl.DataFrame:
    """`n` bars of a symbol with prices that tell each bar from any other."""
    i = pl.int_range(n, eager=True).cast(pl.Float64)
    return pl.DataFrame(
        {
            "symbol": pl.repeat(symbol, n, eager=True),
            "ts": pl.Series([start + step * k for k in range(n)], dtype=SOURCE_BARS["ts"]),
            "open": 100 + i / 20,
            "high": 101 + i / 20,
            "low": 99 + i / 20,
            "close": 100.5 + i / 20,
            "volume": 1000 + i,
            "oi": 5000 + 50 * i if oi else pl.Series([None] * n, dtype=pl.Float64),
        },
        schema=SOURCE_BARS,
    )


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


def serve(clock: Clock, held: dict[tuple[str, str], pl.DataFrame], **options: bool) -> FakeKite:
    return FakeKite(held, clock, **options)


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
    with serve(clock, {("minute", "NIFTY24JANFUT"): future}) as vendor:
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
    with serve(clock, {(vendor_interval, "RELIANCE"): bars}, repeats=repeats) as vendor:
        got = source(vendor).bars(["RELIANCE"], interval, start, start + timedelta(days=days))
        assert_frame_equal(got, bars)
        assert len(vendor.asked(HISTORY)) == pages


def test_a_day_bar_belongs_to_its_date_in_india(clock: Clock) -> None:
    midnights = series("RELIANCE", datetime(2018, 1, 1, tzinfo=IST).astimezone(UTC), 3000, timedelta(days=1))
    first, last = datetime(2018, 3, 5, 9, 15, tzinfo=IST), datetime(2024, 3, 15, 15, 30, tzinfo=IST)
    with serve(clock, {("day", "RELIANCE"): midnights}) as vendor:
        got = source(vendor).bars(["RELIANCE"], "day", first.astimezone(UTC), last.astimezone(UTC))
        assert len(vendor.asked(HISTORY)) == 2, "2,000 days fit into a request"
    local = got["ts"].dt.convert_time_zone("Asia/Kolkata").dt.date()
    assert (local[0], local[-1]) == (first.date(), last.date())
    assert got.height == (last.date() - first.date()).days + 1


def test_history_is_never_asked_for_more_often_than_three_times_a_second(clock: Clock) -> None:
    start = datetime(2014, 1, 1, tzinfo=UTC)
    with serve(clock, {}) as vendor:
        began = clock.now()
        got = source(vendor).bars(["RELIANCE", "INFY"], "1m", start, start + timedelta(days=60 * 20))
        assert len(vendor.asked(HISTORY)) == 40, "no request was refused for coming too early"
        assert clock.now() - began >= timedelta(seconds=39 / 3)
    assert got.is_empty()
    assert got.schema == SOURCE_BARS


def test_a_candle_gap_stays_a_gap(clock: Clock) -> None:
    gappy = pl.concat([DAY.head(100), DAY.tail(50)])
    with serve(clock, {("minute", "RELIANCE"): gappy}) as vendor:
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
    with serve(clock, {("minute", "RELIANCE"): bars}, repeats=True) as vendor:
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


def test_a_slow_reply_is_given_up_and_asked_for_again(vendor: FakeKite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kite, "TIMEOUT", 0.2)
    opened = source(vendor)
    opened.instruments()
    vendor.fail(slow(0.6), on=HISTORY)
    assert_frame_equal(opened.bars(["RELIANCE"], "1m", OPEN, CLOSE), DAY)
    vendor.fail(*[slow(0.3)] * 6, on=HISTORY)
    with pytest.raises(SourceUnavailable, match="no answer in time"):
        opened.bars(["RELIANCE"], "1m", OPEN, CLOSE)


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


# token and login


def test_a_token_that_ends_in_the_middle_is_told_and_a_new_login_goes_on(clock: Clock) -> None:
    clock.at = datetime(2024, 6, 4, 5, 59, 58, tzinfo=IST).astimezone(UTC)
    start = datetime(2021, 1, 1, tzinfo=UTC)
    bars = series("RELIANCE", start, 600 * 24, timedelta(hours=1))
    with serve(clock, {("minute", "RELIANCE"): bars}) as vendor:
        opened = source(vendor)
        with pytest.raises(TokenExpired, match=r"log in again.*KITE_ACCESS_TOKEN"):
            opened.bars(["RELIANCE"], "1m", start, start + timedelta(days=600))
        assert 1 < len(vendor.asked(HISTORY)) < 10
        assert not opened.token().is_fresh
        vendor.request_token = REQUEST_TOKEN
        around = clock.around(fake.SECRETS)
        token = kite.exchange_token({"url": vendor.url}, around, REQUEST_TOKEN)
        again = kite.connect({"url": vendor.url}, clock.around(fake.SECRETS | {"KITE_ACCESS_TOKEN": token}))
        assert_frame_equal(again.bars(["RELIANCE"], "1m", start, start + timedelta(days=600)), bars)


@pytest.mark.parametrize("status", [403, 200])
def test_a_token_refused_is_not_tried_again(vendor: FakeKite, status: int) -> None:
    vendor.fail(instead(fake.error(status, "TokenException", "Token is invalid or has expired.")), on=HISTORY)
    with pytest.raises(TokenExpired, match="invalid or has expired"):
        source(vendor).bars(["RELIANCE"], "1m", OPEN, CLOSE)
    assert len(vendor.asked(HISTORY)) == 1


@pytest.mark.parametrize(("hour", "ends"), [(8, "2024-06-04T00:30"), (2, "2024-06-03T00:30")])
def test_a_fresh_token_ends_at_six_in_india(vendor: FakeKite, clock: Clock, hour: int, ends: str) -> None:
    clock.at = datetime(2024, 6, 3, hour, 0, tzinfo=IST).astimezone(UTC)
    opened = source(vendor)
    assert isinstance(opened, HasToken)
    state = opened.token()
    assert state.is_fresh
    assert state.expires_at is not None
    assert state.expires_at.isoformat(timespec="minutes") == f"{ends}+00:00"


def test_a_stale_token_is_a_state_with_its_way_out(vendor: FakeKite, clock: Clock) -> None:
    clock.at = vendor.token_ends
    state = source(vendor).token()
    assert not state.is_fresh
    assert state.expires_at is None
    assert "log in again" in state.detail


def test_a_request_token_is_sent_once_and_good_once(vendor: FakeKite, clock: Clock) -> None:
    around, settings = clock.around(fake.SECRETS), {"url": vendor.url}
    assert kite.login_url(settings, around).startswith("https://kite.zerodha.com/connect/login?api_key=")
    vendor.request_token = REQUEST_TOKEN
    vendor.fail(reset, on="/session")
    with pytest.raises(SourceUnavailable, match="1 attempts"):
        kite.exchange_token(settings, around, REQUEST_TOKEN)
    assert kite.exchange_token(settings, around, REQUEST_TOKEN) == vendor.access_token
    with pytest.raises(TokenExpired, match="open the login page again"):
        kite.exchange_token(settings, around, REQUEST_TOKEN)
    assert len(vendor.asked("/session")) == 3


def test_an_address_that_is_none_is_refused_at_once(clock: Clock) -> None:
    with pytest.raises(SourceRefused, match=r"source.url is 'localhost:80', but must begin with https://"):
        kite.connect({"url": "localhost:80"}, clock.around(fake.SECRETS))


def test_missing_secrets_are_named_with_what_they_are(clock: Clock) -> None:
    with pytest.raises(MissingSecrets, match="KITE_ACCESS_TOKEN \\(from today's login\\)"):
        kite.connect({}, clock.around({"KITE_API_KEY": "x"}))
    with pytest.raises(MissingSecrets, match="KITE_API_SECRET"):
        kite.login_url({}, clock.around({"KITE_API_KEY": "x"}))
    assert set(secrets_of("kite")) == set(fake.SECRETS)


# secrets

ECHO = " ".join(fake.SECRETS.values())
TELLING: dict[str, Fault] = {
    "an error with the secrets in it": instead(fake.error(200, "GeneralException", ECHO)),
    "a refusal with the secrets in it": instead(fake.error(400, "InputException", ECHO)),
    "a token error with the secrets in it": instead(fake.error(403, "TokenException", ECHO)),
    "broken JSON with the secrets in it": instead(Reply(200, f'{{"access_token": "{ECHO}'.encode())),
    "a page with the secrets in it": instead(Reply(200, ECHO.encode(), "text/html")),
    "a type with the secrets in it": instead(Reply(200, b"", f"x/{fake.ACCESS_TOKEN}{fake.API_SECRET}")),
    "a reply of another kind": instead(as_json({"data": {"access_token": ECHO}})),
    "a connection reset": reset,
}


@pytest.mark.parametrize("fault", TELLING.values(), ids=TELLING.keys())
def test_no_secret_is_ever_told(vendor: FakeKite, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    opened, around = source(vendor), vendor.clock.around(fake.SECRETS)
    told = [repr(opened), repr(around), repr(vars(around)["now"])]
    vendor.fail(*[fault] * 6, on=HISTORY)
    with pytest.raises((SourceRefused, SourceUnavailable, TokenExpired)) as bars:
        opened.bars(["RELIANCE"], "1m", OPEN, CLOSE)
    vendor.fail(*[fault] * 6, on="/user/profile")
    vendor.fail(fault, on="/session")
    told += [whole_story(bars.value), *state_or_error(opened)]
    with pytest.raises((SourceRefused, SourceUnavailable, TokenExpired)) as login:
        kite.exchange_token({"url": vendor.url}, around, REQUEST_TOKEN)
    told += [whole_story(login.value), caplog.text]
    for secret in [*fake.SECRETS.values(), REQUEST_TOKEN]:
        assert not [text for text in told if secret in text]


def state_or_error(opened: kite.KiteSource) -> list[str]:
    try:
        return [str(opened.token())]
    except (SourceRefused, SourceUnavailable) as error:
        return [whole_story(error)]


def whole_story(error: BaseException) -> str:
    """What a traceback prints and, beyond that, every exception that hangs on the error."""
    told, seen = "".join(traceback.format_exception(error)), error
    while seen := seen.__cause__ or seen.__context__:  # type: ignore[assignment]
        told += repr(seen) + str(vars(seen))
    return told
