"""Terms of instruments: tick and lot size, as a market's profile lists them by symbol or by the root of contracts.

What a vendor says of a single contract is in the table `instruments`; here are the market's own published terms, with
the dates from which they hold."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Self

# What may follow a root: a venue, an expiry (NIFTY24JANFUT, NIFTY01FEB2420450PE), a future's month, a running contract.
CONTRACT = re.compile(r"\..+|\d.*|[FGHJKMNQUVXZ]\d{1,2}|-I{1,3}")


class NoTerms(ValueError):
    """An entry of `instruments` that says nothing usable; the profile's reader tells people."""

    def __init__(self, entry: object, rule: str) -> None:
        super().__init__(rule)
        self.entry, self.rule = entry, rule


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Tick and lot size. `lot_changes`: first date (of a contract: first expiry) → lot size from then on, ascending;
    before the first of them the earliest known one stands in."""

    tick_size: float | None = None
    lot_size: float | None = None
    lot_changes: tuple[tuple[date, float], ...] = ()

    @classmethod
    def parse(cls, symbol: str, entry: object) -> Self:
        """From YAML: `{tick_size: 0.01, lot_size: 0.001}`, or a mapping of dates to lot sizes. Raises NoTerms."""
        if not isinstance(entry, dict) or not entry or not set(entry) <= {"tick_size", "lot_size"}:
            raise NoTerms({symbol: entry}, "an instrument has tick_size, lot_size or both")
        tick, lot = entry.get("tick_size"), entry.get("lot_size")
        changes = tuple(sorted(lot.items())) if isinstance(lot, dict) else ()
        if not all(isinstance(day, date) for day, _ in changes):
            raise NoTerms({symbol: entry}, "a lot_size that changes is a mapping of dates, YYYY-MM-DD, to sizes")
        single = None if isinstance(lot, dict) else lot
        if not all(size is None or _is_positive(size) for size in (tick, single, *(size for _, size in changes))):
            raise NoTerms({symbol: entry}, "tick and lot sizes are positive numbers")
        return cls(tick_size=tick, lot_size=single, lot_changes=changes)

    def on(self, day: date) -> Self:
        """The terms of a date, or of the contracts that expire on it."""
        if not self.lot_changes:
            return self
        begun = [size for first, size in self.lot_changes if first <= day]
        return replace(self, lot_size=begun[-1] if begun else self.lot_changes[0][1], lot_changes=())

    def with_defaults(self, tick_size: float, lot_size: float) -> Self:
        """What is not said here is as given."""
        return replace(
            self,
            tick_size=tick_size if self.tick_size is None else self.tick_size,
            lot_size=lot_size if self.lot_size is None else self.lot_size,
        )


def terms_of(instruments: Mapping[str, Terms], symbol: str) -> Terms | None:
    """The entry of a symbol, or of the longest root that the rest of its name makes a contract of; None for neither."""
    if symbol in instruments:
        return instruments[symbol]
    roots = [r for r in instruments if symbol.startswith(r) and CONTRACT.fullmatch(symbol[len(r) :])]
    return instruments[max(roots, key=len)] if roots else None


def _is_positive(size: Any) -> bool:
    return isinstance(size, int | float) and not isinstance(size, bool) and size > 0
