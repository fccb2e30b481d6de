"""Kite: tokens and logins, and that no secret is ever told; its server in miniature as in `test_kite`."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from fakes import kite as fake
from fakes.kite import IST, FakeKite
from fakes.serving import Clock, Fault, Reply, as_json, instead, reset
from fakes.telling import series, whole_story
from polars.testing import assert_frame_equal

from odin_core.market.sources import kite
from odin_core.market.sources.source import (
    HasToken,
    MissingSecrets,
    SourceRefused,
    SourceUnavailable,
    TokenExpired,
    open_source,
    secrets_of,
)

MINUTE = timedelta(minutes=1)
OPEN = datetime(2024, 1, 15, 9, 15, tzinfo=IST).astimezone(UTC)
CLOSE = OPEN + 375 * MINUTE
HISTORY = "/instruments/historical"
REQUEST_TOKEN = "request-token-42"
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


# token and login


def test_a_token_that_ends_in_the_middle_is_told_and_a_new_login_goes_on(clock: Clock) -> None:
    clock.at = datetime(2024, 6, 4, 5, 59, 58, tzinfo=IST).astimezone(UTC)
    start = datetime(2021, 1, 1, tzinfo=UTC)
    bars = series("RELIANCE", start, 600 * 24, timedelta(hours=1))
    with FakeKite({("minute", "RELIANCE"): bars}, clock) as vendor:
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
