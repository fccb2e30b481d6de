"""Attributions add up, stay where the number looks, and are those of a formula where there is one; attention rollout
against a product of matrices."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plantedsamples import BARS, QUICK, TOLD, planted_samples
from smalllives import quick, small_market
from untrainedencoders import FEATURES, untrained, windows

from odin_core.encoder.embedding import embeddings, session_embeddings
from odin_core.encoder.explain import (
    NoSuchAnswer,
    NoSuchRow,
    UnknownHead,
    WithoutAttention,
    along,
    answer,
    attention_rollout,
    rollout,
    session_windows,
    window_attributions,
    windows_before,
)
from odin_core.encoder.samples import window_rows
from odin_core.encoder.training import train
from odin_core.features.catalogue import features_of
from odin_core.home import open_home
from odin_core.market.bars import UTC
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile

ARCHITECTURES = ["tcn", "transformer", "lstm"]


def scaled_windows(model, count, seed=0):
    values, valid = windows(count, seed=seed)
    return model.scaling.of(values, valid), valid


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("asked", [("quantiles", 0, 2), ("heatmap", 5)])
def test_attributions_add_up_to_what_the_window_changes(architecture, asked):
    model = untrained(architecture)
    values, valid = scaled_windows(model, 3)
    found = window_attributions(answer(model, *asked), values, valid, tolerance=1e-3)
    size = found.saliency.sum(axis=1)
    assert (size > 1e-4).all()
    np.testing.assert_array_less(np.abs(found.error), 1e-3 * size)
    np.testing.assert_allclose(found.values.sum(axis=(1, 2)), found.output - found.baseline, atol=2e-3 * size.max())


def test_attributions_are_those_of_the_formula_where_there_is_one():
    """Of Σ w·x² it is w·(x² − x′²) at each place; of a line, w·(x − x′)."""
    weights = torch.randn(24, 7, generator=torch.Generator().manual_seed(3))
    values, valid = windows(2)
    valid[:] = True
    baseline = np.full((24, 7), 0.5, np.float32)
    found = window_attributions(lambda x, _: (weights * x**2).sum(dim=(1, 2)), values, valid, baseline=baseline)
    np.testing.assert_allclose(found.values, weights.numpy() * (values.astype(float) ** 2 - 0.25), rtol=1e-4, atol=1e-4)
    line = window_attributions(lambda x, _: (weights * x).sum(dim=(1, 2)), values, valid, baseline=baseline)
    np.testing.assert_allclose(line.values, weights.numpy() * (values - baseline), rtol=1e-4, atol=1e-4)


def test_more_steps_are_taken_until_they_add_up():
    """A steep step in the path cannot be integrated with few points."""
    values, valid = np.full((1, 24, 7), 2.0, np.float32), np.ones((1, 24), np.bool_)
    steep = lambda x, _: torch.sigmoid(150 * (x[:, 0, 0] - 1.01)) + x.sum(dim=(1, 2)) * 1e-3  # noqa: E731
    few = window_attributions(steep, values, valid, most_steps=32)
    many = window_attributions(steep, values, valid, tolerance=0.005)
    assert few.steps[0] == 32
    assert many.steps[0] > 32
    assert abs(many.error[0]) < 0.005 * many.saliency.sum() < abs(few.error[0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_that_are_not_valid_get_nothing_and_hold_anything(architecture):
    model = untrained(architecture)
    values, valid = scaled_windows(model, 2)
    scalar = answer(model, "regime", 0)
    found = window_attributions(scalar, values, valid)
    assert (found.values[~valid] == 0).all()
    values[~valid] = 77.0
    again = window_attributions(scalar, values, valid)
    np.testing.assert_array_equal(again.values, found.values)


def test_a_window_is_explained_alike_alone_and_among_others():
    model = untrained("tcn")
    values, valid = scaled_windows(model, 4)
    scalar = answer(model, "turns", 2)
    whole = window_attributions(scalar, values, valid, tolerance=1e-4)
    alone = window_attributions(scalar, values[2:3], valid[2:3], tolerance=1e-4)
    np.testing.assert_array_equal(alone.values[0], whole.values[2])
    np.testing.assert_array_equal(alone.steps[0], whole.steps[2])


def test_threads_generators_and_inputs_are_left_alone():
    model = untrained("lstm")
    values, valid = scaled_windows(model, 2)
    before, state, copy = torch.get_num_threads(), torch.random.get_rng_state(), values.copy()
    window_attributions(along(model, np.ones(12)), values, valid)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(values, copy)
    assert all(p.grad is None for p in model.encoder.parameters())


def test_no_windows_have_no_attributions():
    model = untrained()
    empty = window_attributions(answer(model, "regime", 0), np.empty((0, 24, 7), np.float32), np.empty((0, 24), bool))
    assert empty.values.shape == (0, 24, 7)
    assert empty.error.shape == (0,)


def test_the_embedding_along_a_direction_does_not_depend_on_its_length():
    model = untrained()
    values, valid = (torch.from_numpy(array) for array in scaled_windows(model, 2))
    way = np.arange(12.0)
    unit = way / np.linalg.norm(way)
    expected = model.encoder(values, valid)[:, -1].numpy() @ unit
    for direction in (way, 100 * way):
        np.testing.assert_allclose(along(model, direction)(values, valid).numpy(), expected, atol=1e-5)
    with pytest.raises(ValueError, match="not all 0"):
        along(model, np.zeros(12))


def test_classes_are_explained_by_their_log_probability():
    model = untrained()
    values, valid = (torch.from_numpy(array) for array in scaled_windows(model, 2))
    total = sum(answer(model, "regime", place)(values, valid).exp() for place in range(3))
    np.testing.assert_allclose(total.numpy(), 1.0, rtol=1e-5)


def test_answers_that_do_not_exist_are_refused():
    model = untrained()
    with pytest.raises(UnknownHead, match="did you mean regime"):
        answer(model, "regimes", 0)
    for place in ((), (3,), (-1,), (0, 0)):
        with pytest.raises(NoSuchAnswer, match=r"shape \(3,\)"):
            answer(model, "regime", *place)
    with pytest.raises(ValueError, match="must be"):
        window_attributions(answer(model, "regime", 0), np.zeros((2, 24, 7), np.float32), np.ones((2, 23), bool))


@settings(max_examples=30)
@given(layers=st.integers(1, 4), heads=st.integers(1, 3), rows=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_rollout_is_the_product_of_the_layers(layers, heads, rows, seed):
    """Each path from output row to input row through the layers, walked one by one."""
    draws = np.random.default_rng(seed)
    attention = []
    for _ in range(layers):
        shares = np.tril(draws.random((2, heads, rows, rows)) + 1e-3)
        attention.append(shares / shares.sum(axis=3, keepdims=True))
    found = attention_rollout(attention)
    for window in range(2):
        expected = np.zeros((rows, rows))
        for end in range(rows):
            flow = {end: 1.0}
            for layer in reversed(attention):
                next_flow: dict[int, float] = {}
                for at, share in flow.items():
                    for to in range(rows):
                        step = 0.5 * sum(layer[window, h, at, to] for h in range(heads)) / heads + 0.5 * (at == to)
                        next_flow[to] = next_flow.get(to, 0.0) + share * step
                flow = next_flow
            for start, share in flow.items():
                expected[end, start] = share
        np.testing.assert_allclose(found[window], expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=2), 1.0, atol=1e-12)
    assert (np.triu(found, 1) == 0).all()


def test_rollout_of_a_transformer_is_causal_and_of_the_rows_that_exist():
    model = untrained("transformer")
    values, valid = scaled_windows(model, 3)
    found = rollout(model, values, valid)
    np.testing.assert_allclose(found.sum(axis=2), 1.0, atol=1e-6)
    assert (np.triu(found, 1) == 0).all()
    assert (found[1, -1, :8] == 0).all()  # the padding of the second window
    assert (found[1, -1, 8:] > 0).all()
    np.testing.assert_array_equal(found[1, :8, :8], np.eye(8))
    longer = values.copy()
    longer[:, -1] += 1.0
    np.testing.assert_array_equal(rollout(model, longer, valid)[:, :-1], found[:, :-1])


def test_rollout_needs_attention():
    model = untrained("lstm")
    values, valid = scaled_windows(model, 1)
    with pytest.raises(WithoutAttention, match="window_attributions"):
        rollout(model, values, valid)
    with pytest.raises(ValueError, match="at least one layer"):
        attention_rollout([])


NSE = session_calendar(load_profile("nse"))
DAYS = NSE.sessions(date(2024, 1, 1), date(2024, 1, 4))


def sequence_frame() -> pl.DataFrame:
    """Two symbols on NSE days of 15-minute bars, one listed late; some bars missing, some features unknown."""
    draws, rows = np.random.default_rng(4), []
    for symbol, first in (("A", 0), ("B", 2)):
        for day in DAYS[first:]:
            for bar in range(25):
                if draws.random() < 0.1 and bar:
                    continue
                known_at = NSE.hours(day).open + (bar + 1) * timedelta(minutes=15)
                values = [None if draws.random() < 0.02 else float(v) for v in draws.normal(size=len(FEATURES))]
                rows.append([symbol, known_at, day, *values])
    schema = {"symbol": pl.String, "known_at": UTC, "session": pl.Date} | dict.fromkeys(FEATURES, pl.Float32)
    return pl.DataFrame(rows, schema=schema, orient="row")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_windows_before_decisions_give_their_embeddings(architecture):
    model, frame = untrained(architecture, interval="15m"), sequence_frame()
    for session in (DAYS[1], DAYS[-1]):
        expected = embeddings(model, frame, NSE, session)
        values, valid = windows_before(model, frame, NSE, expected.select("symbol", "known_at"))
        found = model.encoder(torch.tensor(model.scaling.of(values, valid)), torch.tensor(valid), last=1)[:, 0]
        np.testing.assert_allclose(found.numpy(), expected["embedding"].to_numpy(), atol=1e-5)


def test_a_window_follows_from_nothing_after_its_decision():
    model, frame = untrained(interval="15m"), sequence_frame()
    decisions = frame.filter(session=DAYS[2], symbol="A").select("symbol", "known_at")[[3, 9]]
    values, valid = windows_before(model, frame, NSE, decisions)
    known = frame.filter(pl.col("known_at") <= decisions["known_at"][1])
    cut = windows_before(model, known, NSE, decisions)
    np.testing.assert_array_equal(cut[0], values)
    np.testing.assert_array_equal(cut[1], valid)
    with pytest.raises(NoSuchRow, match="A known at"):
        windows_before(model, known.head(5), NSE, decisions)


def test_windows_of_a_markets_decisions_give_its_embeddings(tmp_path):
    """On bars of an exchange, as the asset makes them."""
    data = small_market(open_home(tmp_path), quick(), symbols=3)
    names = tuple(feature.name for feature in features_of("sequence"))
    model = untrained("tcn", names, length=60, levels=5)
    session = date(2022, 11, 11)
    expected = session_embeddings(data, model, session)[::37]
    values, valid = session_windows(data, model, session, expected)
    found = model.encoder(torch.tensor(model.scaling.of(values, valid)), torch.tensor(valid), last=1)[:, 0]
    np.testing.assert_allclose(found.numpy(), expected["embedding"].to_numpy(), atol=1e-5)


def motif_attributions(shuffled: bool) -> tuple[float, float]:
    """Of an encoder trained on planted samples: the share of |attribution| of the true regime's log probability that
    lies in the motif's two features and eleven bars, and their mean sum. Windows end right after the motif."""
    config = QUICK.model_copy(update={"steps": 240, "patience": 12, "mask_share": 0.05})
    model = train(planted_samples(1, symbols=12, sessions=80, shuffled=shuffled), config)
    later = planted_samples(2)
    ends = np.arange(len(later)).reshape(-1, BARS)[7::5, TOLD]
    at, exists = window_rows(later, ends)
    valid = later.valid[at] & exists
    values, regime = model.scaling.of(later.values[at], valid), later.targets.regime[ends]
    found = np.concatenate([
        window_attributions(answer(model, "regime", int(regime[n])), values[n : n + 1], valid[n : n + 1]).values
        for n in range(len(ends))
    ])  # fmt: skip
    motif = found[:, -TOLD - 1 :, :2]
    return float(np.abs(motif).sum() / np.abs(found).sum()), float(motif.sum() / len(ends))


def test_a_planted_motif_is_what_its_regime_is_explained_by():
    """It speaks for the true regime where the encoder could learn it, and says nothing where labels were shuffled."""
    share, spoken = motif_attributions(shuffled=False)
    without, nothing = motif_attributions(shuffled=True)
    assert share > 0.4 > without
    assert spoken > 0.3 > abs(nothing)
