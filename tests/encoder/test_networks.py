"""What holds of every network: nothing sees the future, padding does not exist, gaps are known as gaps."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from torch import Tensor

from odin_core.encoder import EncoderConfig, networks
from odin_core.encoder.networks import CausalTransformer, Encoder, UnfitInput, build

ARCHITECTURES = ("tcn", "transformer", "lstm")
SHAPES: dict[str, Any] = {"windows": st.integers(1, 3), "rows": st.integers(1, 24), "seed": st.integers(0, 2**16)}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def encoder_of(architecture: str, features: int = 3, **changes: Any) -> Encoder:
    """A tiny one: of windows of 8 bars, and a TCN that sees 13."""
    tiny = {"length": 8, "width": 8, "embedding": 6, "heads": 2, "layers": 2, "kernel": 3, "levels": 2}
    return build(EncoderConfig.small(architecture=architecture, **(tiny | changes)), features).eval()


def bars(seed: int, windows: int, rows: int, features: int = 3, known: float = 0.8) -> tuple[Tensor, Tensor]:
    """Values, NaN where not valid, and valid."""
    random = torch.Generator().manual_seed(seed)
    valid = torch.rand(windows, rows, generator=random) < known
    values = torch.randn(windows, rows, features, generator=random)
    return torch.where(valid[..., None], values, torch.nan), valid


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(cut=st.integers(0, 23), **SHAPES)
@effort(max_examples=40)
def test_no_embedding_changes_when_the_future_does(architecture: str, windows: int, rows: int, seed: int, cut: int):
    encoder, (values, valid) = encoder_of(architecture), bars(seed, windows, rows)
    cut = cut % rows + 1
    other_values, other_valid = bars(seed + 1, windows, rows, known=0.5)
    other_values[:, :cut], other_valid[:, :cut] = values[:, :cut], valid[:, :cut]
    with torch.no_grad():
        assert torch.equal(encoder(values, valid)[:, :cut], encoder(other_values, other_valid)[:, :cut])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(at=st.integers(0, 23), **SHAPES)
@effort(max_examples=40)
def test_the_future_has_no_gradient_and_the_present_has(architecture: str, windows: int, rows: int, seed: int, at: int):
    encoder, (values, valid) = encoder_of(architecture), bars(seed, windows, rows)
    at %= rows
    valid[:, at], values[:, at] = True, 0.5
    values.requires_grad_()
    weights = torch.randn(6, generator=torch.Generator().manual_seed(seed))  # their plain sum is 0: a layer norm
    (gradient,) = torch.autograd.grad((encoder(values, valid)[:, at] @ weights).sum(), values)
    assert torch.all(gradient[:, at + 1 :] == 0)
    assert torch.all(gradient[:, at].abs().sum(dim=-1) > 0)
    assert torch.all(gradient[~valid] == 0)  # so it is not NaN either, though those values are


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(padding=st.integers(1, 30), **SHAPES)
@effort(max_examples=40)
def test_padding_before_a_window_changes_nothing(architecture: str, windows: int, rows: int, seed: int, padding: int):
    encoder, (values, valid) = encoder_of(architecture), bars(seed, windows, rows)
    padded = torch.cat((torch.full((windows, padding, 3), torch.nan), values), dim=1)
    exists = torch.cat((torch.zeros(windows, padding, dtype=torch.bool), valid), dim=1)
    with torch.no_grad():
        alone, after = encoder(values, valid), encoder(padded, exists)
    torch.testing.assert_close(after[:, padding:], alone, atol=2e-5, rtol=1e-4)
    assert torch.all(after[:, :padding] == 0)
    assert torch.all(after[:, padding:][valid].abs().sum(dim=-1) > 0)


@pytest.mark.parametrize(("architecture", "train"), list(product(ARCHITECTURES, (False, True))))
def test_nothing_is_ever_nan(architecture: str, train: bool):
    encoder = encoder_of(architecture).train(train)
    values, valid = bars(5, 4, 40)
    valid[0], valid[1, :20], valid[2, 1:] = False, False, False
    embedding = encoder(values, valid)
    embedding.square().sum().backward()
    assert embedding.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_gap_is_known_as_a_gap_and_what_stands_in_it_does_not_matter(architecture: str):
    encoder, (values, valid) = encoder_of(architecture), bars(2, 2, 12, known=1.0)
    gap = valid.clone()
    gap[:, 6:9] = False
    other = values.clone()
    other[:, 6:9] = torch.inf
    with torch.no_grad():
        seen = encoder(values, gap)
        assert torch.equal(seen, encoder(other, gap))
        closed = encoder(torch.cat((values[:, :6], values[:, 9:]), 1), torch.cat((gap[:, :6], gap[:, 9:]), 1))
        zeros = encoder(torch.where(gap[..., None], values, 0.0), valid)
    assert not torch.allclose(seen[:, 9:], closed[:, 6:], atol=1e-3)
    assert not torch.allclose(seen[:, 9:], zeros[:, 9:], atol=1e-3)  # nor are they bars of zeros


@pytest.mark.parametrize("architecture", ["tcn", "transformer"])
def test_an_embedding_is_the_same_wherever_its_bars_lie(architecture: str):
    encoder, (values, valid) = encoder_of(architecture), bars(3, 2, 70)
    seen = encoder.receptive_field
    ends = (seen + 1, 40, 70)
    for end in ends:
        valid[:, end - seen], values[:, end - seen] = True, 0.5
    assert encoder.bounded
    with torch.no_grad():
        whole = encoder(values, valid)
        for end in ends:
            alone = encoder(values[:, end - seen : end], valid[:, end - seen : end])
            torch.testing.assert_close(alone[:, -1], whole[:, end - 1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_transformer_reaches_back_one_window_a_layer(layers: int):
    encoder = encoder_of("transformer", layers=layers).double()
    seen = 1 + layers * 7
    values = torch.randn(1, seen + 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values.requires_grad_()
    encoder(values, torch.ones(1, seen + 5, dtype=torch.bool))[0, -1, 0].backward()
    assert values.grad is not None
    assert int((values.grad[0].abs().sum(dim=1) > 0).nonzero()[0]) == 5
    assert encoder.receptive_field == seen


def test_the_lstm_says_that_it_has_no_bound():
    encoder, (values, valid) = encoder_of("lstm").double(), bars(4, 1, 40, known=1.0)
    values = values.double().requires_grad_()
    encoder(values, valid)[0, -1, 0].backward()
    assert values.grad is not None
    assert (encoder.bounded, encoder.receptive_field) == (False, 8)
    assert values.grad[0, 0].abs().sum() > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("last", [1, 5, 30, 99])
def test_the_last_rows_alone_are_the_last_rows_of_all(architecture: str, last: int):
    encoder, (values, valid) = encoder_of(architecture), bars(6, 3, 30)
    with torch.no_grad():
        part = encoder(values, valid, last)
        assert part.shape == (3, min(last, 30), 6)
        torch.testing.assert_close(part, encoder(values, valid)[:, -last:], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_first_weights_follow_from_the_seed_and_leave_the_randomness_of_others_alone(architecture: str):
    before = torch.get_rng_state()
    one, same, other = (encoder_of(architecture, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    values, valid = bars(1, 1, 9)
    with torch.no_grad():
        assert torch.equal(one(values, valid), same(values, valid))
        assert not torch.equal(one(values, valid), other(values, valid))


def test_a_network_that_sees_less_than_its_window_is_not_built():
    blind = EncoderConfig.small().model_copy(update={"kernel": 2})  # a copy is not checked by the configuration
    with pytest.raises(ValueError, match="sees 511 bars, fewer than length=512"):
        build(blind, 3)


@pytest.mark.parametrize(
    ("values", "valid"), [((2, 5, 4), (2, 5)), ((2, 5, 3), (2, 4)), ((5, 3), (5,)), ((2, 0, 3), (2, 0))]
)
def test_input_of_another_shape_is_refused(values: tuple[int, ...], valid: tuple[int, ...]):
    with pytest.raises(UnfitInput, match=r"must be \(windows, rows, 3\)"):
        encoder_of("tcn")(torch.zeros(values), torch.ones(valid, dtype=torch.bool))


def test_attention_is_what_the_network_used(monkeypatch: pytest.MonkeyPatch):
    encoder, (values, valid) = encoder_of("transformer"), bars(7, 2, 20)
    valid[:, 0] = True
    values[:, 0] = 0.0  # no padding, so that rows lie where they are
    used: list[tuple[Tensor, Tensor]] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(query: Tensor, key: Tensor, *others: Any, **options: Any) -> Tensor:
        used.append((query, key))
        return real(query, key, *others, **options)

    monkeypatch.setattr(networks.functional, "scaled_dot_product_attention", spy)
    assert isinstance(encoder, CausalTransformer)
    with torch.no_grad():
        encoder(values, valid)
        shares = encoder.attention(values, valid)
    for (query, key), share in zip(used[:2], shares, strict=True):
        score = np.einsum("bhic,bhjc->bhij", query.numpy(), key.numpy()) / np.sqrt(query.shape[-1])
        for i in range(20):
            first = max(i - 7, 0)
            weight = np.exp(score[:, :, i, first : i + 1] - score[:, :, i, first : i + 1].max(-1, keepdims=True))
            np.testing.assert_allclose(share[:, :, i, first : i + 1], weight / weight.sum(-1, keepdims=True), atol=1e-5)
            assert torch.all(share[:, :, i, :first] == 0)
            assert torch.all(share[:, :, i, i + 1 :] == 0)


def test_attention_to_padding_is_nothing_and_from_padding_too():
    encoder, (values, valid) = encoder_of("transformer"), bars(8, 2, 6, known=1.0)
    padded = torch.cat((torch.full((2, 4, 3), torch.nan), values), dim=1)
    exists = torch.cat((torch.zeros(2, 4, dtype=torch.bool), valid), dim=1)
    assert isinstance(encoder, CausalTransformer)
    with torch.no_grad():
        for alone, share in zip(encoder.attention(values, valid), encoder.attention(padded, exists), strict=True):
            torch.testing.assert_close(share[:, :, 4:, 4:], alone)
            assert torch.all(share[:, :, :4] == 0)
            assert torch.all(share[:, :, :, :4] == 0)
            torch.testing.assert_close(share[:, :, 4:].sum(-1), torch.ones(2, 2, 6))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_says_nearly_the_same_and_stays_causal(architecture: str):
    encoder, (values, valid) = encoder_of(architecture), bars(9, 2, 20)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = encoder(values, valid)
        values[:, 12:], valid[:, 12:] = torch.nan, False
        assert torch.equal(encoder(values, valid)[:, :12], rough[:, :12])
    with torch.no_grad():
        torch.testing.assert_close(rough[:, :12].float(), encoder(values, valid)[:, :12], atol=0.1, rtol=0.1)


def test_building_leaves_the_generators_of_all_devices_alone(monkeypatch: pytest.MonkeyPatch):
    """`torch.manual_seed` would seed a GPU's too, and nothing would put it back."""
    reached: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", reached.append)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reached.append)
    state = torch.random.get_rng_state()
    one, other = encoder_of("tcn"), encoder_of("tcn")
    assert not reached
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
