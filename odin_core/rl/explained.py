"""The week's PPO and its reasons: explanations of the choices that it made at one session's close, as a shadow.

What explains is `explain`; here the choices, the tape and the windows that the state came of are brought together."""

from datetime import date
from typing import TYPE_CHECKING, Final

import polars as pl

from odin_core.rl.explain import EXPLANATIONS, Windows, explain, table

if TYPE_CHECKING:
    from odin_core.encoder.model import TrainedEncoder
    from odin_core.market.data import MarketData
    from odin_core.rl.policy import TradingPolicy

MOST: Final = 5
"""Choices explained at one close, the surest first: each takes some hundred passes through the encoder."""


def explanations_of(
    policy: "TradingPolicy",
    encoder: "TrainedEncoder",
    data: "MarketData",
    session: date,
    choices: pl.DataFrame,
    *,
    most: int = MOST,
) -> pl.DataFrame:
    """EXPLANATIONS of the policy's trades among `choices`, rows of SHADOW_RECOMMENDATIONS made at the close of
    `session`: of the `most` whose position it is surest of. Nothing after the close is read."""
    from odin_core.encoder.explain import session_windows
    from odin_core.lifecycle.shadow_learners import at_the_close
    from odin_core.rl.config import EnvironmentConfig
    from odin_core.rl.market_tape import market_tape
    from odin_core.rl.observation import layout

    trades = choices.filter((pl.col("version") == policy.version) & (pl.col("status") != "skipped"))
    if trades.is_empty():
        return EXPLANATIONS.to_frame()
    close = data.calendar.hours(session).close
    environment = EnvironmentConfig.of(policy.facts["environment"], policy.version)
    tape = market_tape(data, session, session, encoder, as_of=close)
    asked = trades.select(
        "decision_id", "symbol", session=pl.lit(session), known_at=pl.lit(close, EXPLANATIONS["known_at"])
    )
    seen = at_the_close(tape, environment)(asked, close)
    sure = policy.probabilities(seen)[0].max(axis=1)
    order = pl.Series(sure).arg_sort(descending=True)[:most].to_numpy()
    asked, seen = asked[order], seen[order]
    last_bars = data.read(asked["symbol"].to_list(), session, session, encoder.config.interval, as_of=close)
    last = last_bars.group_by("symbol").agg(pl.col("known_at").max())
    asked = asked.join(last, on="symbol", how="left", maintain_order="left")
    values, valid = session_windows(data, encoder, session, asked)
    found = explain(
        policy, seen, layout(environment, tape), asked, windows=Windows(encoder=encoder, values=values, valid=valid)
    )
    return table(found)
