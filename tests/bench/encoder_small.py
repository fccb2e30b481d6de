"""Pretraining with the small preset, from stored features to the trained encoder: 50 symbols of the demo exchange, 62
sessions of 75 bars of five minutes, on two threads, all steps (it does not stop early here).

The peer is the least that a loop over the same network, heads and losses can do: the same number of steps on one batch
that lies in memory, with no windows drawn, nothing hidden anew, no validation and no checkpoint."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from encodermarket import FIRST, LAST, market

from odin_core.encoder.config import EncoderConfig
from odin_core.encoder.heads import Heads, Targets, losses
from odin_core.encoder.networks import build
from odin_core.encoder.training import repeatable, train_encoder
from odin_core.features.catalogue import features_of

CONFIG = EncoderConfig.small(threads=2, patience=10_000)
TOKENS = CONFIG.steps * CONFIG.batch * CONFIG.length


def run() -> list[dict[str, Any]]:
    """Seconds and tokens (rows of windows learned from) per second, once each: a run is long enough."""
    data = market()
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        found = train_encoder(data, LAST, CONFIG, first=FIRST, checkpoints=Path(folder))
        taken = time.perf_counter() - start
    if found.facts["steps"] != CONFIG.steps:
        raise RuntimeError(f"only {found.facts['steps']} of {CONFIG.steps} steps were made")
    plain = plain_loop()
    peer = {"peer": f"{CONFIG.steps} steps on one batch in memory"}
    return [
        {"bench": "encoder_small", "value": taken, "unit": f"s, {CONFIG.steps} steps", **peer, "peer_value": plain},
        {"bench": "encoder_small_tokens", "value": TOKENS / taken, "unit": "tokens/s", **peer,
         "peer_value": TOKENS / plain},
    ]  # fmt: skip


def plain_loop() -> float:
    """Seconds."""
    features, shape = len(features_of("sequence")), (CONFIG.batch, CONFIG.length)
    rng = np.random.default_rng(1)
    values = torch.from_numpy(rng.standard_normal((*shape, features), np.float32))
    hidden = torch.from_numpy(rng.random(shape) < CONFIG.mask_share)
    targets = Targets(
        candles=values,
        masked=hidden,
        regime=torch.from_numpy(rng.integers(0, 3, shape)),
        heatmap=torch.full((*shape, 32), 1 / 40),
        returns=torch.from_numpy(rng.standard_normal((*shape, len(CONFIG.horizons)), np.float32)),
        turns=torch.from_numpy(rng.integers(0, 5, shape)),
    )
    with repeatable(CONFIG.threads, "cpu"):
        encoder, heads = build(CONFIG, features), Heads(CONFIG, features)
        optimizer = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], CONFIG.learning_rate)
        start = time.perf_counter()
        for _ in range(CONFIG.steps):
            loss = losses(heads(encoder(values, ~hidden)), targets, CONFIG)["total"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return time.perf_counter() - start
