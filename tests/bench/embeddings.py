"""Embeddings of one session of 50 symbols (3,750 bars of five minutes) by the small preset on two threads, from the
features in the lake to the table.

The peer computes each bar's window of 512 rows by itself, 64 windows at a time, from rows that lie in memory; its time
for five symbols counts ten times."""

import time
from typing import Any

import numpy as np
import torch
from encodermarket import FIRST, LAST, market
from timing import seconds

from odin_core.encoder.config import EncoderConfig
from odin_core.encoder.embedding import session_embeddings
from odin_core.encoder.heads import Heads
from odin_core.encoder.model import Scaling, TrainedEncoder
from odin_core.encoder.networks import build
from odin_core.encoder.samples import Samples, market_samples, window_rows
from odin_core.encoder.training import repeatable

CONFIG = EncoderConfig.small(threads=2)
AT_ONCE = 64
PEER_SYMBOLS = 5


def run() -> list[dict[str, Any]]:
    """Seconds: median of five; the peer once."""
    data = market()
    samples = market_samples(data, CONFIG, LAST, FIRST)
    count = len(samples.features)
    model = TrainedEncoder(
        config=CONFIG,
        features=samples.features,
        scaling=Scaling.fitted(samples.values, samples.valid),
        encoder=build(CONFIG, count),
        heads=Heads(CONFIG, count),
        trained_through=FIRST,
    )
    bars = session_embeddings(data, model, LAST).height
    taken = seconds(lambda: session_embeddings(data, model, LAST), 5)
    unit, peer = f"s, {bars:,} bars of {len(samples.symbols)} symbols", "each bar's window of 512 separately"
    share = len(samples.symbols) / PEER_SYMBOLS
    return [
        {
            "bench": "embeddings",
            "value": taken,
            "unit": unit,
            "peer": peer,
            "peer_value": share * separately(model, samples),
        }
    ]


def separately(model: TrainedEncoder, samples: Samples) -> float:
    """Seconds."""
    ends = np.flatnonzero((samples.session == LAST.toordinal()) & samples.valid)
    ends = ends[ends < samples.starts[PEER_SYMBOLS]]
    scaled = torch.from_numpy(model.scaling.of(samples.values, samples.valid))
    valid = torch.tensor(samples.valid)
    start = time.perf_counter()
    with torch.inference_mode(), repeatable(CONFIG.threads, "cpu"):
        for begin in range(0, len(ends), AT_ONCE):
            at, exists = (torch.from_numpy(a) for a in window_rows(samples, ends[begin : begin + AT_ONCE]))
            model.encoder(scaled[at], valid[at] & exists, 1)
    return time.perf_counter() - start
