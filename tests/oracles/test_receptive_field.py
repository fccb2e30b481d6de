"""Published receptive fields of a TCN of two convolutions a block (Bai, Kolter, Koltun 2018), and the same measured on
the network: the gradient reaches back exactly as far."""

import pytest
import torch

from odin_core.encoder import EncoderConfig, receptive_field
from odin_core.encoder.networks import build


@pytest.mark.parametrize(
    ("kernel", "levels", "bars"),
    [(2, 8, 511), (2, 9, 1023), (3, 8, 1021), (2, 1, 3), (3, 1, 5)],
)
def test_the_published_receptive_fields(kernel: int, levels: int, bars: int):
    assert receptive_field(kernel, levels) == bars


@pytest.mark.parametrize(("kernel", "levels"), [(2, 3), (2, 4), (3, 2), (5, 1), (5, 2), (2, 9), (3, 8)])
def test_the_gradient_reaches_back_exactly_so_far(kernel: int, levels: int):
    seen = receptive_field(kernel, levels)
    config = EncoderConfig.small(kernel=kernel, levels=levels, length=seen, width=8, embedding=8)
    encoder = build(config, 2).double().eval()
    values = torch.randn(1, seen + 9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values.requires_grad_()
    encoder(values, torch.ones(1, seen + 9, dtype=torch.bool))[0, -1, 0].backward()
    assert values.grad is not None
    reached = values.grad[0].abs().sum(dim=1) > 0
    assert int(reached.nonzero()[0]) == 9  # so nothing before it, and the oldest bar inside counts
    assert encoder.receptive_field == seen
