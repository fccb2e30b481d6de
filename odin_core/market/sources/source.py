"""The protocol of a source, what it hands over, what can go wrong with one, and how it is opened from a profile."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import polars as pl

from odin_core.errors import OdinError, nearest
from odin_core.market.bars import UTC
from odin_core.secrets import read_secrets

SOURCE_BARS = pl.Schema(
    {
        "symbol": pl.String(),
        "ts": UTC,  # start of the bar; converted by the source where the vendor stamps the end or a local time
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),  # null where the vendor has none
        "oi": pl.Float64(),  # open interest; null where the vendor has none
    }
)
INSTRUMENTS = pl.Schema(
    {
        "symbol": pl.String(),  # as in the bars
        "name": pl.String(),
        "kind": pl.String(),  # equity, index, future, option, spot or cfd
        "underlying": pl.String(),  # of a derivative
        "expiry": pl.Date(),
        "strike": pl.Float64(),
        "right": pl.String(),  # C or P
        "tick_size": pl.Float64(),
        "lot_size": pl.Float64(),
        "source_id": pl.String(),  # what the vendor calls it
    }
)
TICKS = pl.Schema({"symbol": pl.String(), "ts": UTC, "price": pl.Float64(), "volume": pl.Float64()})  # volume: traded


class MissingSecrets(OdinError):
    def __init__(self, kind: str, missing: Mapping[str, str]) -> None:
        wanted = ", ".join(f"{name} ({what})" for name, what in missing.items())
        super().__init__(f"source {kind} needs {wanted}; set them in the environment or in a .env file (.env.example)")


class TokenExpired(OdinError):
    """The vendor wants a new login and no retry would help."""

    def __init__(self, kind: str, why: str, way_out: str) -> None:
        super().__init__(f"source {kind} refused its token ({why}); {way_out}")


class SourceRefused(OdinError):
    """The vendor says no for good: the request is wrong or not permitted."""

    def __init__(self, kind: str, what: str, why: str) -> None:
        super().__init__(f"source {kind} refused {what}: {why}")


class SourceUnavailable(OdinError):
    """The vendor could not answer although it was asked again and again."""

    def __init__(self, kind: str, what: str, why: str, attempts: int) -> None:
        super().__init__(
            f"source {kind} gave no {what} in {attempts} attempts; the last one ended with: {why}. Run the "
            f"same command again later"
        )


class UnknownSymbols(OdinError):
    def __init__(self, kind: str, symbols: Sequence[str], known: Sequence[str]) -> None:
        hints = "; ".join(f"{symbol}: {nearest(symbol, known)}" for symbol in symbols[:3])
        super().__init__(f"source {kind} knows no {', '.join(symbols[:10])} ({hints}); correct source.symbols")


class UnknownSource(OdinError):
    def __init__(self, kind: str) -> None:
        super().__init__(f"no source is of kind {kind!r}; {nearest(kind, source_kinds())}")


class TokenState(NamedTuple):
    """Whether the vendor would let us in. `expires_at`: UTC, None where the vendor does not say."""

    is_fresh: bool
    expires_at: datetime | None
    detail: str  # for people: why, and how to get a fresh one; never the token


@dataclass(frozen=True, kw_only=True)
class Around:
    """What a source takes from outside: secrets, the clock, waiting and the randomness of its jitter."""

    secrets: Mapping[str, str] = field(repr=False)  # a traceback or log must not show them
    now: Callable[[], datetime]  # aware, UTC
    sleep: Callable[[float], None]
    rng: np.random.Generator

    @classmethod
    def of(cls, environment: Mapping[str, str], now: Callable[[], datetime]) -> Self:
        """For those who start ODIN: secrets of their environment and `.env`, real waiting, fresh randomness."""
        return cls(secrets=read_secrets(environment), now=now, sleep=time.sleep, rng=np.random.default_rng())

    def require(self, kind: str, wanted: Mapping[str, str]) -> dict[str, str]:
        """The secrets of these names. Raises MissingSecrets, which names every one that is absent or empty."""
        if missing := {name: what for name, what in wanted.items() if not self.secrets.get(name)}:
            raise MissingSecrets(kind, missing)
        return {name: self.secrets[name] for name in wanted}


class Source(Protocol):
    """A vendor's history. Methods raise the errors above and nothing of the vendor's own library."""

    intervals: Sequence[str]  # "1m", "5m", "15m", "60m", "day": what it can give

    def instruments(self) -> pl.DataFrame:
        """What it can give bars of: INSTRUMENTS, one row per symbol."""
        ...

    def bars(self, symbols: Sequence[str], interval: str, start: datetime, end: datetime) -> pl.DataFrame:
        """Bars (SOURCE_BARS) that start in [start, end), both UTC, as the vendor has them: paged, in its order, a bar
        that two pages overlap in given once. Rows of poor content are handed over; they are judged later."""
        ...


@runtime_checkable
class HasToken(Protocol):
    """A source whose token runs out: `token` asks the vendor, or says what is known without asking."""

    def token(self) -> TokenState: ...


@runtime_checkable
class Streams(Protocol):
    """A source with a live feed. `stream` blocks and calls `on_ticks` with frames (TICKS) until `stop()` is true."""

    def stream(
        self, symbols: Sequence[str], on_ticks: Callable[[pl.DataFrame], None], stop: Callable[[], bool]
    ) -> None: ...


def source_kinds() -> list[str]:
    """Kinds that a profile may name and that are asked for bars; `files` and `synthetic` need no asking."""
    folder = __package__ or ""
    names = (module.name for module in iter_modules(import_module(folder).__path__))
    return sorted(name for name in names if name not in ("source", "calls", "settings"))


def open_source(settings: Mapping[str, Any], around: Around, *, market: str = "") -> Source:
    """The source that a profile's `source` names, ready to be asked; it finds the market's name beside its settings as
    `market`. Raises UnknownSource, MissingSecrets."""
    kind = str(settings.get("kind"))
    if kind not in source_kinds():
        raise UnknownSource(kind)
    return import_module(f"odin_core.market.sources.{kind}").connect({**settings, "market": market}, around)


def secrets_of(kind: str) -> dict[str, str]:
    """Environment variables that a kind of source needs, with what each is; empty for one that needs none."""
    if kind not in source_kinds():
        return {}
    return dict(import_module(f"odin_core.market.sources.{kind}").SECRETS)
