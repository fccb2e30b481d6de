"""How far ahead a model's ranking of symbols reaches: its score against what they did over one, three, five sessions.

The returns are the labels of the lake, close to close with actions as they were known, each read from the session in
which it became known."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from odin_core.evaluation.information import BY_HORIZON, LeakAlarm, daily_rank_ic, ic_by_horizon, leak_alarm
from odin_core.labels import labels_at
from odin_core.lifecycle.refilling import Choice
from odin_core.market.data import MarketData

HORIZONS: Final = {1: "return_1_session", 3: "return_3_sessions", 5: "return_5_sessions"}


class Reach(NamedTuple):
    """`table` is BY_HORIZON; `alarm` judges the shortest horizon."""

    table: pl.DataFrame
    alarm: LeakAlarm | None


def reach(data: MarketData, choices: Iterable[Choice], known: Sequence[date], ceiling: float) -> Reach:
    """Rank correlation by horizon of the scores in `choices` with the returns that followed, as far as labels of the
    sessions `known` tell them; above `ceiling` a leak is suspected."""
    scored = [
        choice.contexts.select("symbol", "decided_at", day=pl.lit(choice.session), score=choice.proposals.score)
        for choice in choices
    ]
    if not scored or not known:
        return Reach(pl.DataFrame(schema=BY_HORIZON), None)
    rows = pl.concat(scored)
    labels = pl.concat([_daily(data, session) for session in known])
    for horizon, label in HORIZONS.items():
        one = labels.filter(label=label).select("symbol", "decided_at", pl.col("value").alias(f"after_{horizon}"))
        rows = rows.join(one, on=["symbol", "decided_at"], how="left", maintain_order="left")
    score, day = rows["score"].to_numpy(), rows["day"].to_numpy()
    outcomes = {h: rows[f"after_{h}"].cast(pl.Float64).fill_null(float("nan")).to_numpy() for h in HORIZONS}
    daily = daily_rank_ic(score, outcomes[min(HORIZONS)], day).ic
    alarm = leak_alarm(daily, ceiling) if np.count_nonzero(~np.isnan(daily)) else None
    return Reach(ic_by_horizon(score, outcomes, day), alarm)


def _daily(data: MarketData, session: date) -> pl.DataFrame:
    return labels_at(data, session).filter(interval="day").select("symbol", "decided_at", "label", "value")
