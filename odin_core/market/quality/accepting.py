"""Accepted findings: what a person holds to be right data after all, with the reason.

The finding stays in `data_quality` as a warning that says why (`quality.assessing`) and blocks no more."""

from collections.abc import Sequence
from datetime import date

import polars as pl

from odin_core.errors import OdinError, nearest
from odin_core.lake import Lake
from odin_core.market.quality.assessing import SessionHours, assess_session, blocking

TABLE = "accepted_findings"
ACCEPTED = pl.Schema({"symbol": pl.String(), "interval": pl.String(), "rule": pl.String(), "why": pl.String()})


class NothingToAccept(OdinError):
    def __init__(self, session: date, symbol: str, rule: str, errors: Sequence[str], accepted: str | None) -> None:
        others = nearest(f"{symbol} {rule}", errors) if errors else "the session has no error at all"
        before = f"; it was accepted before: {accepted}" if accepted else ""
        super().__init__(f"{session} has no error {symbol} {rule}{before}; {others}")


class NoReason(OdinError):
    def __init__(self, session: date, symbol: str, rule: str) -> None:
        super().__init__(f"{session} {symbol} {rule} was not accepted: say why the data are right (--why)")


def accept(
    lake: Lake, calendar: SessionHours, session: date, *, symbol: str, rule: str, why: str, interval: str = "1m"
) -> pl.DataFrame:
    """Write down that an error finding is right data after all; it becomes a warning that says `why`, blocking no more.
    Returns the session's findings, which are written too. Raises NothingToAccept, NoReason."""
    if not why.strip():
        raise NoReason(session, symbol, rule)
    stored = lake.read_or_empty(TABLE, session, ACCEPTED)
    errors = blocking(assess_session(lake, calendar, session))
    found = errors.filter(symbol=symbol, rule=rule, interval=interval)
    if found.is_empty():
        names = [f"{s} {r}" for s, r in errors.select("symbol", "rule").rows()]
        before = stored.filter(symbol=symbol, rule=rule, interval=interval)["why"].to_list()
        raise NothingToAccept(session, symbol, rule, names, before[-1] if before else None)
    row = pl.DataFrame([(symbol, interval, rule, why)], schema=ACCEPTED, orient="row")
    lake.write(TABLE, session, pl.concat([stored, row]).sort(ACCEPTED.names()))
    findings = assess_session(lake, calendar, session)
    lake.write("data_quality", session, findings)
    return findings
