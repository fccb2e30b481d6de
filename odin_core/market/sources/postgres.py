"""PostgreSQL as a source: bars out of `stock_price_history`, whoever wrote them there.

    source: {kind: postgres, schema: nse, symbols: [INFY, TCS]}

`schema` is where the tables lie; default: the market's own name, as for `odin database load`, which fills them from a
lake. Their columns are those of `market.database`'s migrations. Times are the bars' starts; nothing is judged here."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import polars as pl

from odin_core.market.database import transfer
from odin_core.market.database.connection import URL, Database, DatabaseRefused, DatabaseUnavailable
from odin_core.market.sources.calls import PassingFault, with_retries
from odin_core.market.sources.source import (
    INSTRUMENTS,
    SOURCE_BARS,
    Around,
    SourceRefused,
    UnknownSymbols,
)

T = TypeVar("T")
KIND = "postgres"
SECRETS = {URL: "the database as postgresql://user:password@host:5432/name"}
SETTINGS = {"schema": "where its tables lie; the market's name by default"}


def connect(settings: Mapping[str, Any], around: Around) -> "PostgresSource":
    """The source of a profile's settings. Nothing is opened before it is asked. Raises MissingSecrets, BadAddress."""
    url = around.require(KIND, SECRETS)[URL]
    return PostgresSource(Database(url, schema_of(settings, settings["market"])), around)


def schema_of(settings: Mapping[str, Any], market: str) -> str:
    """The schema that holds a market's tables: the one that its profile's `source` names, else its own name."""
    return str(settings.get("schema", market))


class PostgresSource:
    """A `Source`; each call is a connection of its own, tried again where the server did not answer."""

    def __init__(self, database: Database, around: Around) -> None:
        self.database = database
        self._around = around

    @property
    def intervals(self) -> Sequence[str]:
        """Those that the table has bars of."""
        return self._asked("intervals", lambda: transfer.intervals(self.database))

    def instruments(self) -> pl.DataFrame:
        """INSTRUMENTS of every symbol that has a bar; the table knows no more of them than the symbol."""

        def ask() -> list[str]:
            of = [transfer.symbols(self.database, interval) for interval in transfer.intervals(self.database)]
            return sorted({symbol for symbols in of for symbol in symbols})

        found = self._asked("instruments", ask)
        named = pl.DataFrame({"symbol": found, "source_id": found}, schema_overrides={"symbol": pl.String})
        return named.select(
            pl.col(name).cast(dtype) if name in named.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in INSTRUMENTS.items()
        )

    def bars(self, symbols: Sequence[str], interval: str, start: datetime, end: datetime) -> pl.DataFrame:
        """SOURCE_BARS, by symbol and time. Raises UnknownSymbols for those without any bar of the interval."""

        def ask() -> pl.DataFrame:
            found = transfer.read_bars(self.database, symbols, interval, start, end)
            return pl.concat([SOURCE_BARS.to_frame(), *found])

        bars = self._asked(f"{interval} bars", ask)
        if silent := set(symbols) - set(bars["symbol"].unique()):
            known = self._asked("symbols", lambda: transfer.symbols(self.database, interval))
            if unknown := sorted(silent - set(known)):
                raise UnknownSymbols(KIND, unknown, known)
        return bars

    def _asked(self, what: str, ask: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
                return ask()
            except DatabaseUnavailable as error:
                raise PassingFault(str(error)) from error

        try:
            return with_retries(attempt, kind=KIND, what=what, around=self._around)
        except DatabaseRefused as error:
            raise SourceRefused(KIND, what, str(error)) from error
