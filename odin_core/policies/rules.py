"""The rules: two well-known set-ups that capture part of what there is, and the honest baseline of every learner.

Reversal: RSI (14, 15 minutes) below 30 or above 70 with a volume spike, against the move. Trend: the fast average on
the other side of the slow one (5 and 20 bars of 15 minutes) by more than a tenth of the hourly ATR, with it. Reversal
wins."""

import numpy as np
import polars as pl

from odin_core.policies.actions import FLAT, Proposals, encode

OVERSOLD, OVERBOUGHT = 30.0, 70.0
VOLUME_SPIKE = 1.0  # standard deviations
TREND = 0.1  # of the hourly ATR
SIZE, STOP, TARGET = 1, 2, 1  # positions on the action grid: 0.25 % of capital, 2 ATR, 1.5 times that
NEEDS = ("rsi_14_15m", "volume_z_18_75_5m", "sma_cross_5_20_15m", "natr_14_60m")


def propose(contexts: pl.DataFrame) -> Proposals:
    """Proposals for the rows of `contexts` (columns NEEDS; null counts as no signal)."""
    rsi, volume, cross, atr = (contexts[name].fill_null(float("nan")).to_numpy() for name in NEEDS)
    spike = volume > VOLUME_SPIKE
    reversal = np.where(spike & (rsi < OVERSOLD), 1, np.where(spike & (rsi > OVERBOUGHT), -1, 0))
    trend = np.where(np.abs(cross) > TREND * atr, np.sign(cross), 0)
    side = np.where(reversal != 0, reversal, np.nan_to_num(trend)).astype(np.int64)
    leaning = np.where(side != 0, side, np.where(np.nan_to_num(cross) >= 0, 1, -1))
    n = len(side)
    lean = encode((leaning < 0).astype(np.int64), np.full(n, SIZE), np.full(n, STOP), np.full(n, TARGET))
    return Proposals(np.where(side != 0, lean, FLAT), lean, np.where(side != 0, 0.5, 0.4), side.astype(float))
