"""Heads and losses: against numpy by hand, with rows that nobody knows the answer of, and against what is known of
quantiles."""

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import mean_pinball_loss
from torch import Tensor

from odin_core.encoder import EncoderConfig
from odin_core.encoder.config import HEATMAP_BINS
from odin_core.encoder.heads import Heads, NonCrossing, Predictions, Targets, losses, pinball

FEATURES = 3
CONFIG = EncoderConfig.small(embedding=6, horizons=(1, 5), quantiles=(0.1, 0.5, 0.9), weight_turns=0.25)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def answers(random: torch.Generator, windows: int, rows: int) -> Predictions:
    embedding = torch.randn(windows, rows, CONFIG.embedding, generator=random)
    return Heads(CONFIG, FEATURES)(embedding)


def questions(random: torch.Generator, windows: int, rows: int, known: float) -> Targets:
    """Each answer, or each number of it, known with that probability."""

    def unknown(*shape: int) -> Tensor:
        return torch.rand(windows, rows, *shape, generator=random) >= known

    shape = (windows, rows)
    heat = torch.rand(*shape, HEATMAP_BINS, generator=random) ** 4
    heat = heat / heat.sum(dim=-1, keepdim=True) * torch.rand(*shape, 1, generator=random)
    return Targets(
        candles=torch.randn(*shape, FEATURES, generator=random).mul(2.0).masked_fill(unknown(FEATURES), torch.nan),
        masked=~unknown(),
        regime=torch.randint(0, 3, shape, generator=random).masked_fill(unknown(), -1),
        heatmap=heat.masked_fill(unknown(1), torch.nan),
        returns=torch.randn(*shape, 2, generator=random).masked_fill(unknown(2), torch.nan),
        turns=torch.randint(0, 5, shape, generator=random).masked_fill(unknown(), -1),
    )


def by_hand(said: Predictions, true: Targets) -> dict[str, float]:
    """Row by row, number by number."""
    found: dict[str, list[float]] = {name: [] for name in ("candles", "regime", "heatmap", "quantiles", "turns")}
    array = {name: value.detach().numpy().astype(np.float64) for name, value in said._asdict().items()}
    for at in np.ndindex(true.masked.shape):
        for name in ("regime", "turns"):
            answer = int(getattr(true, name)[at])
            if answer >= 0:
                found[name].append(-log_softmax(array[name][at])[answer])
        for feature in range(FEATURES):
            error = abs(array["candles"][at][feature] - float(true.candles[at][feature]))
            if bool(true.masked[at]) and not np.isnan(error):
                found["candles"].append(error**2 / 2 if error < 1 else error - 0.5)
        shares = true.heatmap[at].numpy().astype(np.float64)
        if not np.isnan(shares).any():
            shares = np.append(shares, max(1.0 - shares.sum(), 0.0))
            wrong = log_softmax(array["heatmap"][at])
            found["heatmap"].append(sum(s * (np.log(s) - w) for s, w in zip(shares, wrong, strict=True) if s > 0))
        for horizon in range(2):
            outcome = float(true.returns[at][horizon])
            if not np.isnan(outcome):
                each = [
                    mean_pinball_loss([outcome], [array["quantiles"][at][horizon][q]], alpha=level)
                    for q, level in enumerate(CONFIG.quantiles)
                ]
                found["quantiles"].append(float(np.mean(each)))
    return {name: float(np.mean(values)) if values else 0.0 for name, values in found.items()}


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return logits - np.log(np.exp(logits).sum())


@given(
    windows=st.integers(1, 3), rows=st.integers(1, 5), known=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 999)
)
def test_losses_are_what_they_are_by_hand(windows: int, rows: int, known: float, seed: int):
    random = torch.Generator().manual_seed(seed)
    said, true = answers(random, windows, rows), questions(random, windows, rows, known)
    found, expected = losses(said, true, CONFIG), by_hand(said, true)
    for name, value in expected.items():
        assert float(found[name].detach()) == pytest.approx(value, abs=1e-5, rel=1e-4), name
    total = 1.0 * expected["candles"] + 1.0 * expected["regime"] + 0.5 * expected["heatmap"]
    total += 2.0 * expected["quantiles"] + 0.25 * expected["turns"]
    assert float(found["total"].detach()) == pytest.approx(total, abs=1e-4, rel=1e-4)
    assert set(found) == {*expected, "total"}


def test_where_nothing_is_known_losses_and_gradients_are_zero_and_not_missing():
    random = torch.Generator().manual_seed(1)
    heads = Heads(CONFIG, FEATURES)
    embedding = torch.randn(2, 4, 6, generator=random, requires_grad=True)
    found = losses(heads(embedding), questions(random, 2, 4, known=0.0), CONFIG)
    assert all(float(loss.detach()) == 0.0 for loss in found.values())
    found["total"].backward()
    for weight in (embedding, *heads.parameters()):
        assert weight.grad is not None
        assert torch.all(weight.grad == 0)


def test_shares_that_rounding_took_below_zero_or_over_one_count_as_zero_and_one():
    random = torch.Generator().manual_seed(4)
    said, true = answers(random, 1, 3), questions(random, 1, 3, known=1.0)
    exact, rounded = torch.zeros(1, 3, HEATMAP_BINS), torch.full((1, 3, HEATMAP_BINS), -1e-9)
    exact[..., 5], rounded[..., 5] = 1.0, 1.0 + 1e-7
    expected = losses(said, true._replace(heatmap=exact), CONFIG)["heatmap"]
    found = losses(said, true._replace(heatmap=rounded), CONFIG)["heatmap"]
    torch.testing.assert_close(found, expected)


def test_unknown_answers_do_not_spoil_the_gradients_of_known_ones():
    random = torch.Generator().manual_seed(2)
    heads = Heads(CONFIG, FEATURES)
    said = heads(torch.randn(2, 30, 6, generator=random))
    losses(said, questions(random, 2, 30, known=0.5), CONFIG)["total"].backward()
    for name, weight in heads.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name


def test_the_true_answers_have_no_loss():
    random = torch.Generator().manual_seed(3)
    true = questions(random, 2, 6, known=1.0)
    sure = 200.0
    rest = (1.0 - true.heatmap.sum(dim=-1, keepdim=True)).clamp(min=0)
    said = Predictions(
        candles=true.candles,
        regime=torch.nn.functional.one_hot(true.regime, 3) * sure,
        heatmap=torch.cat((true.heatmap, rest), dim=-1).log(),
        quantiles=true.returns[..., None].expand(-1, -1, -1, 3),
        turns=torch.nn.functional.one_hot(true.turns, 5) * sure,
    )
    assert {name: pytest.approx(0.0, abs=1e-5) for name in losses(said, true, CONFIG)} == losses(said, true, CONFIG)
    torch.testing.assert_close(said.heatmap_shares, true.heatmap)


@given(
    levels=st.lists(st.floats(0.001, 0.999), min_size=1, max_size=6, unique=True),
    size=st.sampled_from([1e-3, 1.0, 30.0, 1e4]),
    seed=st.integers(0, 999),
)
def test_quantiles_never_cross(levels: list[float], size: float, seed: int):
    config = EncoderConfig.small(embedding=5, horizons=(1, 2, 9), quantiles=tuple(sorted(levels)))
    said = NonCrossing(config)(torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) * size)
    assert said.shape == (4, 3, len(levels))
    assert torch.all(said.diff(dim=-1) >= 0)


def test_quantiles_begin_as_those_of_a_normal_distribution():
    said = NonCrossing(CONFIG)(torch.zeros(1, 6))
    expected = [NormalDist().inv_cdf(level) for level in CONFIG.quantiles]
    np.testing.assert_allclose(said[0].detach().numpy(), [expected, expected], atol=1e-5)


@given(level=st.floats(0.02, 0.98), outcome=st.floats(-50, 50, allow_subnormal=False), quantile=st.floats(-50, 50))
def test_pinball_is_sklearns(level: float, outcome: float, quantile: float):
    loss = pinball(*(torch.tensor(v, dtype=torch.float64) for v in ([quantile], outcome, [level])))
    assert float(loss) == pytest.approx(mean_pinball_loss([outcome], [quantile], alpha=level), abs=1e-12)


@pytest.mark.parametrize("level", [0.05, 0.25, 0.5, 0.9])
def test_pinball_is_least_at_the_true_quantile(level: float):
    share = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    outcome = -torch.log1p(-share)  # of an exponential distribution, whose quantile is −ln(1 − level)
    tried = torch.linspace(0.0, 4.0, 801, dtype=torch.float64)
    loss = torch.stack([pinball(q[None], outcome, torch.tensor([level])).mean() for q in tried])
    assert float(tried[loss.argmin()]) == pytest.approx(-np.log(1 - level), abs=0.006)


def test_the_head_learns_the_quantiles_of_a_skewed_distribution_that_depends_on_the_embedding():
    random = torch.Generator().manual_seed(5)
    config = EncoderConfig.small(embedding=4, horizons=(1,), quantiles=(0.1, 0.5, 0.9))
    is_wide = torch.rand(4000, generator=random) < 0.5
    outcome = -torch.log(torch.rand(4000, generator=random)) * torch.where(is_wide, 3.0, 1.0)
    embedding = torch.stack((is_wide.float(), 1 - is_wide.float(), *torch.zeros(2, 4000)), dim=-1)
    head = Heads(config, FEATURES).quantiles
    learner = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(300):
        learner.zero_grad()
        pinball(head(embedding)[:, 0], outcome, torch.tensor(config.quantiles)).mean().backward()
        learner.step()
    for wide, scale in ((True, 3.0), (False, 1.0)):
        said = head(embedding)[is_wide == wide][0, 0].detach().numpy()
        np.testing.assert_allclose(said, -np.log1p(-np.array(config.quantiles)) * scale, rtol=0.15, atol=0.05)


def test_first_weights_follow_from_the_seed():
    before = torch.get_rng_state()
    embedding = torch.ones(1, 1, 6)
    one, same = (Heads(CONFIG, FEATURES)(embedding) for _ in range(2))
    other = Heads(CONFIG.model_copy(update={"seed": 8}), FEATURES)(embedding)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
