"""TradeLocker: tokens and logins, and that no secret is ever told; its server in miniature as in `test_tradelocker`."""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fakes import tradelocker as fake
from fakes.serving import Clock, Fault, Reply, as_json, honest, instead
from fakes.telling import series, whole_story
from fakes.tradelocker import FakeTradeLocker
from polars.testing import assert_frame_equal

from odin_core.market.sources.source import (
    HasToken,
    MissingSecrets,
    SourceRefused,
    SourceUnavailable,
    TokenExpired,
    open_source,
    secrets_of,
)
from odin_core.market.sources.tradelocker import TradeLockerSource, connect

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


# logins


def test_a_token_that_soon_ends_is_renewed_without_the_password(clock: Clock) -> None:
    with FakeTradeLocker({("1m", "XAUUSD"): DAY}, clock, access_lives=600) as vendor:
        assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)
        assert len(vendor.asked("/auth/jwt/token")) == 1
        assert len(vendor.asked("/auth/jwt/refresh")) > 1


def test_a_session_that_the_server_ends_in_the_middle_goes_on_after_a_new_login(vendor: FakeTradeLocker) -> None:
    def end(then: Callable[[], Reply]) -> Reply:
        vendor.end_session()
        return then()

    vendor.fail(honest, end, on=HISTORY)
    assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)
    assert len(vendor.asked("/auth/jwt/token")) == 2


def test_a_renewal_that_is_refused_leads_to_a_new_login(clock: Clock) -> None:
    with FakeTradeLocker({("1m", "XAUUSD"): DAY}, clock, access_lives=600) as vendor:
        opened = source(vendor)
        opened.instruments()
        vendor.access_lives = 7200
        vendor.end_session()
        assert_frame_equal(opened.bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)
        assert len(vendor.asked("/auth/jwt/token")) == 2


def test_a_renewal_that_gives_no_token_leads_to_a_new_login(clock: Clock) -> None:
    with FakeTradeLocker({("1m", "XAUUSD"): DAY}, clock, access_lives=600) as vendor:
        vendor.fail(instead(as_json({"accessToken": "x", "refreshToken": "y"})), on="/auth/jwt/refresh")
        assert_frame_equal(source(vendor).bars(["XAUUSD"], "1m", OPEN, CLOSE), DAY)
        assert len(vendor.asked("/auth/jwt/token")) == 2


def test_a_login_that_is_refused_says_what_to_correct_and_is_not_repeated(vendor: FakeTradeLocker) -> None:
    wrong = vendor.clock.around(fake.SECRETS | {"TRADELOCKER_PASSWORD": "not-my-password"})
    opened = connect({"url": vendor.url}, wrong)
    with pytest.raises(TokenExpired, match=r"HTTP 401.*correct TRADELOCKER_USERNAME"):
        opened.bars(["XAUUSD"], "1m", OPEN, CLOSE)
    state = opened.token()
    assert not state.is_fresh
    assert "TRADELOCKER_PASSWORD" in state.detail
    assert len(vendor.asked("/auth/jwt/token")) == 2


def test_the_state_of_the_token_says_how_long_the_login_lasts(vendor: FakeTradeLocker) -> None:
    opened = source(vendor)
    assert isinstance(opened, HasToken)
    state = opened.token()
    assert state.is_fresh
    assert state.expires_at is not None
    assert timedelta(hours=23) < state.expires_at - datetime.now(UTC) < timedelta(hours=25)


def test_two_sources_never_share_a_client_and_connecting_asks_nothing(vendor: FakeTradeLocker) -> None:
    from tradelocker import TLAPI

    first, second = source(vendor), source(vendor)
    assert not vendor.requests
    first.instruments()
    second.instruments()
    assert len(vendor.asked("/auth/jwt/token")) == 2
    assert not TLAPI._instances, "the library's own store of clients, by password"


def test_a_reply_is_not_remembered_so_a_correction_is_seen(vendor: FakeTradeLocker) -> None:
    opened = source(vendor)
    opened.bars(["XAUUSD"], "1m", OPEN, CLOSE)
    vendor.held[("1m", "XAUUSD")][7]["c"] = 2000.55
    assert opened.bars(["XAUUSD"], "1m", OPEN, CLOSE)["close"][7] == 2000.55


def test_an_address_that_is_none_is_refused_at_once(clock: Clock) -> None:
    with pytest.raises(SourceRefused, match=r"source.url is 'localhost:80', but must begin with https://"):
        connect({"url": "localhost:80"}, clock.around(fake.SECRETS))


def test_missing_secrets_are_named_with_what_they_are(clock: Clock) -> None:
    with pytest.raises(MissingSecrets, match=r"TRADELOCKER_SERVER \(the broker's server"):
        connect({}, clock.around({"TRADELOCKER_USERNAME": "x", "TRADELOCKER_PASSWORD": "y"}))
    assert set(secrets_of("tradelocker")) == set(fake.SECRETS)


# secrets


def echoing(vendor: FakeTradeLocker, shape: str) -> Fault:
    """A fault whose reply holds the login and the session's tokens."""

    def fault(then: Callable[[], Reply]) -> Reply:
        then()
        told = " ".join([*fake.SECRETS.values(), vendor.access, vendor.refresh])
        return {
            "an error": as_json({"s": "error", "errmsg": told}),
            "a refusal": as_json({"s": "error", "errmsg": told}, 403),
            "a failure": as_json({"s": "error", "errmsg": told}, 500),
            "broken JSON": Reply(200, f'{{"d": "{told}'.encode()),
            "a page": Reply(200, told.encode(), "text/html"),
            "half an answer": as_json({"accessToken": told, "said": told}),
        }[shape]

    return fault


@pytest.mark.parametrize("shape", ["an error", "a refusal", "a failure", "broken JSON", "a page", "half an answer"])
@pytest.mark.parametrize("on", ["/auth/jwt/token", "/auth/jwt/refresh", "/all-accounts", "/trade/config", HISTORY])
def test_no_secret_is_ever_told(
    clock: Clock, shape: str, on: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with FakeTradeLocker({("1m", "XAUUSD"): DAY}, clock, access_lives=600) as vendor:
        opened = source(vendor)
        vendor.fail(*[echoing(vendor, shape)] * 50, on=on)
        with pytest.raises((SourceRefused, SourceUnavailable, TokenExpired)) as caught:
            opened.bars(["XAUUSD"], "1m", OPEN, CLOSE)
        tokens = [part for token in (vendor.access, vendor.refresh) for part in token.split(".")[1:]]
    told = [whole_story(caught.value), repr(opened), caplog.text, *capfd.readouterr()]
    for secret in [*fake.SECRETS.values(), *tokens]:
        assert not [text for text in told if secret in text]


def test_a_day_without_faults_logs_no_secret_either(
    vendor: FakeTradeLocker, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    source(vendor, symbols=["XAUUSD"]).bars(["XAUUSD"], "1m", OPEN, CLOSE)
    told = "".join([caplog.text, *capfd.readouterr()])
    assert not [secret for secret in [*fake.SECRETS.values(), vendor.access, vendor.refresh] if secret in told]
    assert "tradelocker" not in {record.name.split(".")[0] for record in caplog.records}
