"""Samples with a pattern that is known: early in each session a motif of a few candles says which regime the session
is in. Everything else about them is noise."""

from datetime import date

import numpy as np

from odin_core.encoder.config import HEATMAP_BINS, REGIMES, EncoderConfig
from odin_core.encoder.samples import Samples
from odin_core.encoder.targets import RowTargets

BARS = 24  # of a session
FEATURES = 6
TOLD = 10  # bars of a session after which its motif is over
MOTIFS = np.array([[1, 1, 1, -1, -1, -1], [-1, -1, -1, 1, 1, 1], [1, -1, 1, -1, 1, -1]], np.float32)
FIRST = date(2023, 1, 2).toordinal()

QUICK = EncoderConfig.small(
    length=48, width=16, levels=5, embedding=16, horizons=(1, 4), turn_bars=3, batch=16, steps=120, warm_up=10,
    learning_rate=5e-3, window_step=5, validation_share=0.3, validate_every=20, checkpoint_every=15, threads=1,
    weight_candles=0.2, weight_heatmap=0.1, weight_quantiles=0.1, weight_turns=0.1,
)  # fmt: skip


def planted_samples(seed: int = 1, *, symbols: int = 6, sessions: int = 40, shuffled: bool = False) -> Samples:
    """`shuffled`: the regimes are dealt out anew, so that motifs say nothing."""
    rng = np.random.default_rng(seed)
    regime = rng.integers(0, len(REGIMES), (symbols, sessions))
    values = rng.standard_normal((symbols, sessions, BARS, FEATURES), dtype=np.float32)
    for s, k in np.ndindex(symbols, sessions):
        begin = rng.integers(0, TOLD - MOTIFS.shape[1] + 1)
        values[s, k, begin : begin + MOTIFS.shape[1], :2] += 2.0 * MOTIFS[regime[s, k], :, None]
    if shuffled:
        regime = rng.permutation(regime.ravel()).reshape(regime.shape)
    rows = symbols * sessions * BARS
    valid = rng.random(rows) > 0.01
    flat = values.reshape(rows, FEATURES)
    flat[~valid] = 0.0
    return Samples(
        features=tuple(f"noise_{n}" for n in range(FEATURES)),
        symbols=tuple(f"SYM{n}" for n in range(symbols)),
        starts=np.arange(symbols + 1, dtype=np.int64) * sessions * BARS,
        session=np.tile(np.repeat(np.arange(FIRST, FIRST + sessions), BARS), symbols),
        values=flat,
        valid=valid,
        targets=RowTargets(
            regime=np.repeat(regime.ravel(), BARS),
            heatmap=np.full((rows, HEATMAP_BINS), np.nan, np.float32),
            returns=rng.standard_normal((rows, 2), dtype=np.float32),
            turns=np.full(rows, -1, np.int64),
            volatility=np.ones(rows),
        ),
        horizons=QUICK.horizons,
        turn_bars=QUICK.turn_bars,
        length=QUICK.length,
    )
