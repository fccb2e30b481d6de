"""TradeLocker's own client without its side effects. Importing this module takes 2 s.

Out of the box it logs requests with password and tokens, keeps every client, with its password, in a class attribute,
remembers replies for ever, errors included, sleeps a second before each request, repeats failed ones by itself and
makes a missing price 0. Its private methods that do so are overridden, which is why its version is pinned exactly."""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

_HANDLERS = list(logging.root.handlers)
from tradelocker import TLAPI  # noqa: E402
from tradelocker.types import PriceHistoryColumns  # noqa: E402

from odin_core.market.sources.source import SourceRefused  # noqa: E402

logging.root.handlers[:] = _HANDLERS  # the library's import logs a line, which gives the root logger a handler
logging.getLogger("tradelocker.tradelocker_api").addFilter(lambda _: False)  # all of the library writes to this one

if TYPE_CHECKING:
    from requests import Response

TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of a reply


class Client(TLAPI):
    """Logged in once made. `wait(url)` is called before each request, `judge(response)` gives a reply's content or
    raises."""

    def __new__(cls, *_: Any) -> "Client":
        return object.__new__(cls)

    def __init__(
        self,
        wait: Callable[[str], None],
        judge: "Callable[[Response], Mapping[str, Any]]",
        url: str,
        username: str,
        password: str,
        server: str,
    ) -> None:
        self._wait, self._judge = wait, judge
        self._config: Mapping[str, Any] | None = None
        self._TIMEOUT = TIMEOUT
        super().__init__(url, username, password, server, log_level="critical")

    def get_config(self) -> Any:
        """The server's configuration; the library's own refuses keys that it does not know."""
        if self._config is None:
            self._config = self._content("/trade/config", {})
        return self._config

    def get_instrument_details(self, instrument_id: int, locale: Any = "en") -> Any:
        """Sizes and sessions of an instrument; the library's own refuses empty fields."""
        question = {"routeId": self.get_info_route_id(instrument_id), "locale": locale}
        return self._content(f"/trade/instruments/{instrument_id}", question)

    def _content(self, route: str, question: Any) -> Any:
        return self._request("get", f"{self.get_base_url()}{route}", additional_params=question)["d"]

    def _retry_request(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._wait(kwargs["url"])
        return method(*args, **kwargs)

    def _get_response_json(self, response: "Response") -> Any:
        return self._judge(response)

    def _request_history_cacheable(self, *args: Any, **kwargs: Any) -> Any:
        return TLAPI._request_history_cacheable.__wrapped__(self, *args, **kwargs)  # pyright: ignore

    def _apply_typing(self, df: Any, column_types: Any) -> Any:
        return df if column_types is PriceHistoryColumns else super()._apply_typing(df, column_types)

    def _info_route_valid(self, route_id: str, instrument_id: int) -> bool:  # pyright: ignore
        """Whether a route has quotes (a wrong one answers with none); the library's own takes every fault for a no."""
        question: Any = {"tradableInstrumentId": instrument_id, "routeId": route_id}
        try:
            reply = self._request("get", f"{self.get_base_url()}/trade/quotes", additional_params=question)
        except SourceRefused:
            return False
        return bool(reply.get("d"))
