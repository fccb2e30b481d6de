"""The encoder is tested where the answer is known, both ways: a planted pattern is found, and no pattern is not."""

import numpy as np
import pytest
from plantedsamples import BARS, QUICK, TOLD, planted_samples

from odin_core.encoder.samples import Samples, split, window_rows
from odin_core.encoder.training import train

CONFIG = QUICK.model_copy(update={"steps": 240, "patience": 12, "mask_share": 0.05})
CHANCE = 1 / 3


def regime_accuracy(samples: Samples) -> tuple[float, int]:
    """Out of sample, after each session's motif: the share of (symbol, session) pairs whose regime is told, by the sum
    of the head's log probabilities over the rest of the session; and how many there are."""
    model = train(samples, CONFIG)
    _, validation = split(samples, CONFIG.validation_share, CONFIG.embargo)
    ends = np.arange(len(validation))[BARS - 1 :: BARS]
    at, exists = window_rows(validation, ends)
    _, said = model.predictions(validation.values[at], validation.valid[at] & exists)
    told = said.regime[:, -(BARS - TOLD) :].log_softmax(dim=-1).sum(dim=1).argmax(dim=-1).numpy()
    return float((told == validation.targets.regime[ends]).mean()), len(ends)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_regime_head_finds_a_planted_motif_out_of_sample(seed: int):
    accuracy, count = regime_accuracy(planted_samples(seed, symbols=12, sessions=80))
    error = (CHANCE * (1 - CHANCE) / count) ** 0.5
    assert accuracy > CHANCE + 8 * error


def test_the_regime_head_finds_nothing_where_the_labels_are_shuffled():
    accuracy, count = regime_accuracy(planted_samples(1, symbols=12, sessions=80, shuffled=True))
    error = (CHANCE * (1 - CHANCE) / count) ** 0.5
    assert abs(accuracy - CHANCE) < 3 * error
