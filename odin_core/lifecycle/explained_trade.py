"""One trade of a shadow PPO with its reasons, brought together for a picture: the explanation, the bars around it, and
what became of it. What draws it is `rl.trade_picture`."""

from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from odin_core.errors import OdinError
from odin_core.lifecycle.learners import EXPLANATIONS
from odin_core.lifecycle.life import Life

if TYPE_CHECKING:
    from odin_core.market.data import MarketData
    from odin_core.rl.explain import Explanation
    from odin_core.rl.trade_picture import Trade

SESSIONS_BEFORE = 3
"""Sessions of bars before the decision's own that a picture may reach back to."""


class NothingExplained(OdinError):
    def __init__(self, life: Life, session: date, symbol: str | None, symbols: list[str]) -> None:
        asked = f"{symbol} at the close of {session}" if symbol else f"the close of {session}"
        have = life.lake.sessions(EXPLANATIONS)
        known = f"there are reasons for {', '.join(symbols)}" if symbols else "no trade there has reasons"
        span = f"; sessions asked so far: {have[0]} to {have[-1]}" if have else "; `odin rl shadow` makes them"
        super().__init__(
            f"life {life.id} of {life.market} has no explanation of {asked}: {known}{span}. Reasons are kept of trades "
            f"that the week's PPO would have made, not of staying flat"
        )


class ExplainedTrade(NamedTuple):
    explanation: "Explanation"
    bars: pl.DataFrame  # BARS of the encoder's interval, a few sessions before the decision to the one after, if over
    trade: "Trade"


def explained_trade(life: Life, data: "MarketData", session: date, symbol: str | None = None) -> ExplainedTrade:
    """The trade that the PPO would have made in `symbol` (None: the one it was surest of) at the close of `session`.
    Raises NothingExplained."""
    from odin_core.encoder.store import stored
    from odin_core.rl.explain import explanations
    from odin_core.rl.trade_picture import Trade

    kept = life.read(EXPLANATIONS, session) if life.lake.has(EXPLANATIONS, session) else pl.DataFrame()
    found = [each for each in explanations(kept) if symbol in (None, each.symbol)] if kept.height else []
    if not found:
        raise NothingExplained(life, session, symbol, kept["symbol"].to_list() if kept.height else [])
    explanation = found[0]
    interval = stored(data.lake, explanation.encoder or "").config.interval
    following = data.calendar.next(session)
    before = data.calendar.sessions(last=session)[-1 - SESSIONS_BEFORE :]
    bars = data.read([explanation.symbol], before[0], following if life.committed(following) else session, interval)
    who = (pl.col("decision_id") == explanation.decision_id) & (pl.col("version") == explanation.version)
    (chosen,) = life.read("shadow_recommendations", session).filter(who).rows(named=True)
    outcomes = life.lake.read("shadow_replay", following) if life.lake.has("shadow_replay", following) else None
    (became,) = [*(outcomes.filter(who).rows(named=True) if outcomes is not None else []), {}][:1]
    return ExplainedTrade(explanation, bars, Trade(**_levels(chosen, became, bars)))


def _levels(chosen: dict[str, Any], became: dict[str, Any], bars: pl.DataFrame) -> dict[str, Any]:
    """Fields of a Trade. Without an entry the levels are those of one at the last close."""
    entry = became.get("entry_price")
    distance = chosen["stop_atr"] * chosen["risk_unit"] * chosen["reference_close"]
    side = 1.0 if chosen["side"] == "long" else -1.0
    base = entry if entry is not None else chosen["reference_close"]
    return {
        "entered": _bar_of(bars, became.get("entry_ts")),
        "entry": entry,
        "exited": _bar_of(bars, became.get("exit_ts")),
        "exit": became.get("exit_price"),
        "stop": base - side * distance,
        "target": base + side * distance * chosen["target_mult"],
    }


def _bar_of(bars: pl.DataFrame, minute: datetime | None) -> datetime | None:
    """The start of the bar that a minute lies in; None for none, or beyond the bars."""
    held = bars.filter(pl.col("ts") <= minute, pl.col("known_at") > minute) if minute else bars.clear()
    return held["ts"][0] if held.height else None
