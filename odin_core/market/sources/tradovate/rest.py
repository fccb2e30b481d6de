"""Tradovate's REST side: who we are, and what a contract is. Bars and quotes come over the socket (`feed`).

A login lives 90 minutes and is renewed in its last 15, because each new login begins a session and a third session
ends the oldest. An address that asks too much gets HTTP 200 with a *penalty ticket*: wait `p-time` seconds, then send
the same request with the ticket in it. (partner.tradovate.com: authentication, rate-limits, penalty-tickets)"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import requests

from odin_core.market.sources.calls import Pace, PassingFault, with_retries
from odin_core.market.sources.source import Around, SourceRefused, SourceUnavailable, TokenExpired

T = TypeVar("T")
KIND = "tradovate"
RENEW_BEFORE = timedelta(minutes=15)
CALLS_PER_SECOND = 5.0  # the limit of 5000 an hour leaves room for bursts, not for more
TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two bytes of a reply
LOGIN = "the login (TRADOVATE_USERNAME, TRADOVATE_PASSWORD and the API key)"


class NotLetIn(Exception):
    """The vendor does not know our token (any more)."""


class NotThere(SourceRefused):
    """The vendor has no entity of that name, or no such path."""


@dataclass(frozen=True)
class Login:
    access: str = field(repr=False)
    market_data: str = field(repr=False)  # the socket's token
    expires_at: datetime


class Rest:
    """Calls to one root, e.g. https://live.tradovateapi.com/v1, logged in when the first of them needs it."""

    def __init__(self, root: str, secrets: Mapping[str, str], around: Around) -> None:
        self._root = root.rstrip("/")
        self._secrets = secrets
        self._around = around
        self._pace = Pace(CALLS_PER_SECOND, around)
        self._http = requests.Session()
        self._login: Login | None = None

    def login(self) -> Login:
        """A login that has not expired: the one at hand, renewed where its end is near, or a new one."""
        left = self._login.expires_at - self._around.now() if self._login else timedelta(0)
        if self._login is None or left <= timedelta(0):
            self._login = self._sign_in()
        elif left < RENEW_BEFORE:
            self._login = self._renewed(self._login)
        return self._login

    def with_login(self, call: Callable[[], T]) -> T:
        """`call`, which uses `login`; a login that the vendor no longer knows is replaced once. Raises TokenExpired."""
        try:
            return call()
        except NotLetIn:
            self._login = None
        try:
            return call()
        except NotLetIn as refusal:
            self._login = None
            way_out = "check that the account has API access and a subscription to market data"
            raise TokenExpired(KIND, str(refusal), way_out) from None

    def get(self, path: str, **params: str | int) -> Any:
        """What `path` says, JSON decoded. Raises SourceRefused, SourceUnavailable, TokenExpired."""
        return self.with_login(lambda: self._call("GET", path, params, path, self.login()))

    def find(self, entity: str, name: str) -> dict[str, Any] | None:
        """The contract or product of exactly this name; None where the vendor has none."""
        try:
            found = self.get(f"{entity}/find", name=name)
        except NotThere:
            return None
        return found if isinstance(found, dict) and found.get("name") == name else None

    def answer(self, status: int, content: Any, what: str, ticket: dict[str, str], after: float | None = None) -> Any:
        """The content of a good reply, of REST or the socket. A penalty leaves its ticket in `ticket`, which goes into
        the next attempt. Raises NotLetIn, PassingFault, SourceRefused, SourceUnavailable."""
        said = content if isinstance(content, dict) else {}
        text = self._without_secrets(str(said.get("errorText") or (content if isinstance(content, str) else "")))
        if status == 401:
            raise NotLetIn(text or "status 401")
        if status == 429 or status >= 500:
            raise PassingFault(f"status {status}", after)
        if said.get("p-captcha"):
            why = "it has been asked too often and wants a captcha, which it forgets after about an hour"
            raise SourceUnavailable(KIND, what, why, 1)
        if said.get("p-ticket"):
            ticket["p-ticket"] = str(said["p-ticket"])
            raise PassingFault("a time penalty", _seconds(said.get("p-time")))
        if status == 404:
            raise NotThere(KIND, what, text[:200] or "status 404")
        if status != 200 or said.get("errorText") or said.get("violations"):
            raise SourceRefused(KIND, what, text[:200] or f"status {status}")
        ticket.clear()  # it was for this request
        return content

    def _sign_in(self) -> Login:
        name, client = self._secrets["TRADOVATE_USERNAME"], self._secrets["TRADOVATE_CID"]
        body = {
            "name": name,
            "password": self._secrets["TRADOVATE_PASSWORD"],
            "appId": self._secrets["TRADOVATE_APP_ID"],
            "appVersion": "1.0",
            "deviceId": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"odin.{name}")),  # the same for each of our logins
            "cid": int(client) if client.isdigit() else client,
            "sec": self._secrets["TRADOVATE_SECRET"],
        }
        try:
            return self._call("POST", "auth/accesstokenrequest", body, LOGIN, None, _login_of)
        except NotLetIn as refusal:
            raise SourceRefused(KIND, LOGIN, str(refusal)) from None

    def _renewed(self, login: Login) -> Login:
        try:
            return self._call("GET", "auth/renewaccesstoken", {}, "the renewal of the login", login, _login_of)
        except (NotLetIn, SourceRefused):  # its session was ended: begin another
            return self._sign_in()

    def _call(
        self,
        method: str,
        path: str,
        fields: Mapping[str, Any],
        what: str,
        login: Login | None,
        read: Callable[[Any], Any] = lambda content: content,
    ) -> Any:
        ticket: dict[str, str] = {}
        headers = {"Authorization": f"Bearer {login.access}"} if login else {}

        def once() -> Any:
            self._pace.wait()
            sent = {**fields, **ticket}
            try:
                reply = self._http.request(
                    method,
                    f"{self._root}/{path}",
                    params=sent if method == "GET" else None,
                    json=sent if method == "POST" else None,
                    headers=headers,
                    timeout=TIMEOUT,
                )
            except requests.RequestException as error:
                raise PassingFault(f"no answer ({type(error).__name__})") from None  # its text may hold the request
            return read(self.answer(reply.status_code, _json(reply), what, ticket, _retry_after(reply)))

        return with_retries(once, kind=KIND, what=what, around=self._around)

    def _without_secrets(self, text: str) -> str:
        known = [*self._secrets.values()]
        if self._login:
            known += [self._login.access, self._login.market_data]
        for secret in sorted(known, key=len, reverse=True):
            text = text.replace(secret, "***") if len(secret) > 3 else text
        return text


def _login_of(content: Any) -> Login:
    try:
        access = str(content["accessToken"])
        expires_at = datetime.fromisoformat(content["expirationTime"]).astimezone(UTC)
    except (TypeError, KeyError, ValueError):
        raise PassingFault("a login without a token or its end") from None
    return Login(access, str(content.get("mdAccessToken") or access), expires_at)


def _json(reply: requests.Response) -> Any:
    try:
        return reply.json()
    except ValueError:
        if reply.status_code == 200:
            raise PassingFault("a reply that is no JSON") from None
        return reply.text


def _retry_after(reply: requests.Response) -> float | None:
    return _seconds(reply.headers.get("Retry-After"))


def _seconds(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):  # none given, or a date
        return None
