"""One scale for the signals of all policies: what a signal is expected to earn after costs, in units of risk."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from odin_core.policies.actions import FloatArray

PRIOR: Final = 20
"""Wins and losses of one unit each that a source is taken to have had before its first outcome."""
COUNTS: Final = 4  # won, sum of rewards above 0, lost, sum of rewards at or below 0 as a positive number


def unified_score(confidence: FloatArray, payoff: Sequence[float]) -> FloatArray:
    """(n,) expected reward p·G − (1 − p)·L of signals with calibrated `confidence` p (n,), probability of ending above
    costs; G and L are the source's mean gain and mean loss so far (`payoffs`, COUNTS numbers), shrunk towards one unit
    of risk by PRIOR outcomes. Rewards are net of costs in units of risk. NaN where the confidence is.
    Within one source the order is that of the confidence; between sources it is that of what they are worth."""
    won, gain, lost, loss = payoff
    mean_gain, mean_loss = (gain + PRIOR) / (won + PRIOR), (loss + PRIOR) / (lost + PRIOR)
    return confidence * mean_gain - (1 - confidence) * mean_loss


def payoffs(replay: pl.DataFrame, sources: Sequence[str]) -> tuple[float, ...]:
    """COUNTS numbers for each of `sources`, one after another, over the complete rows of `replay` (REPLAY)."""
    known = replay.filter(pl.col("complete"))
    counts: list[float] = []
    for source in sources:
        reward = known.filter(pl.col("source") == source)["reward"].to_numpy()
        gains, losses = reward[reward > 0], reward[reward <= 0]
        counts += [float(gains.size), float(gains.sum()), float(losses.size), float(-losses.sum())]
    return tuple(np.asarray(counts, dtype=np.float64).tolist())
