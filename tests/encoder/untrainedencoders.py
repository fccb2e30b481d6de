"""Small encoders that nobody trained, for tests of what is done with an encoder."""

from datetime import date
from typing import Any

import numpy as np

from odin_core.encoder.config import EncoderConfig
from odin_core.encoder.heads import Heads
from odin_core.encoder.model import Scaling, TrainedEncoder
from odin_core.encoder.networks import build

FEATURES = (
    "log_return_1_5m",
    "bar_gap_5m",
    "bar_range_5m",
    "body_5m",
    "upper_wick_5m",
    "lower_wick_5m",
    "session_elapsed_5m",
)
SMALL = {"length": 24, "embedding": 12, "width": 8, "levels": 3, "layers": 2, "heads": 2, "threads": 1}


def untrained(architecture: str = "tcn", features: tuple[str, ...] = FEATURES, **changes: Any) -> TrainedEncoder:
    """With first weights, and a scaling that is not the identity."""
    config = EncoderConfig.small(**(SMALL | {"architecture": architecture} | changes))
    draws = np.random.default_rng(1)
    mean, deviation = draws.normal(size=len(features)), np.exp(draws.normal(size=len(features)))
    return TrainedEncoder(
        config=config,
        features=features,
        scaling=Scaling(mean.astype(np.float32), deviation.astype(np.float32)),
        encoder=build(config, len(features)),
        heads=Heads(config, len(features)),
        trained_through=date(2026, 3, 31),
    )


def windows(count: int, length: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values (count, length, features) float32, far enough out to be clipped here and there, and valid rows; the second
    window begins with padding, and all have gaps. The last row is always valid."""
    draws = np.random.default_rng(seed)
    values = (3 * draws.standard_normal((count, length, len(FEATURES)))).astype(np.float32)
    valid = draws.random((count, length)) > 0.15
    valid[1:2, : length // 3] = False
    valid[:, -1] = True
    return values, valid
