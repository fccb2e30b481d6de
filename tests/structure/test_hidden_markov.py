"""The hidden Markov model against its definition: sums over every path of states, and parameters that were planted."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from odin_core.structure.hidden_markov import (
    HiddenMarkov,
    baum_welch_step,
    filter_probabilities,
    fit,
    log_likelihood,
)

FloatArray = NDArray[np.float64]
NO_COUNTS = np.zeros((3, 3))


def random_model(rng: np.random.Generator, states: int, columns: int) -> HiddenMarkov:
    return HiddenMarkov(
        rng.dirichlet(np.ones(states)),
        rng.dirichlet(np.ones(states), size=states),
        rng.normal(size=(states, columns)) * 2.0,
        rng.uniform(0.2, 2.0, size=(states, columns)),
    )


def simulate(model: HiddenMarkov, rows: int, rng: np.random.Generator) -> tuple[FloatArray, NDArray[np.int64]]:
    states = [int(rng.choice(len(model.start), p=model.start))]
    for _ in range(rows - 1):
        states.append(int(rng.choice(len(model.start), p=model.transitions[states[-1]])))
    chosen = np.array(states)
    noise = rng.normal(size=(rows, model.means.shape[1]))
    return model.means[chosen] + noise * np.sqrt(model.variances[chosen]), chosen


def path_probabilities(model: HiddenMarkov, observations: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    """Every path of states and p(path, observations): a product over rows, with missing rows left out."""
    paths = np.array(list(itertools.product(range(len(model.start)), repeat=len(observations))))
    joint = model.start[paths[:, 0]].copy()
    for t, row in enumerate(observations):
        if t:
            joint *= model.transitions[paths[:, t - 1], paths[:, t]]
        if np.isfinite(row).all():
            variance = model.variances[paths[:, t]]
            density = np.exp(-((row - model.means[paths[:, t]]) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
            joint *= density.prod(axis=1)
    return paths, joint


def share_of_states(paths: NDArray[np.int64], joint: FloatArray, row: int, states: int) -> FloatArray:
    return np.array([joint[paths[:, row] == k].sum() for k in range(states)]) / joint.sum()


@st.composite
def small_cases(draw: st.DrawFn) -> tuple[HiddenMarkov, FloatArray]:
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    model = random_model(rng, draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    observations, _ = simulate(model, draw(st.integers(1, 6)), rng)
    for row in draw(st.sets(st.integers(0, len(observations) - 1), max_size=2)):
        observations[row, 0] = draw(st.sampled_from([np.nan, np.inf]))
    return model, observations


@given(small_cases())
def test_filter_and_likelihood_are_sums_over_all_paths(case):
    model, observations = case
    filtered = filter_probabilities(model, observations)
    for t in range(len(observations)):
        paths, joint = path_probabilities(model, observations[: t + 1])
        np.testing.assert_allclose(filtered[t], share_of_states(paths, joint, t, len(model.start)), atol=1e-12)
    _, joint = path_probabilities(model, observations)
    assert log_likelihood(model, observations) == pytest.approx(np.log(joint.sum()), abs=1e-9)


@given(small_cases())
def test_a_step_takes_the_expected_counts_over_all_paths(case):
    model, observations = case
    states = len(model.start)
    counts, floor = np.full((states, states), 0.5), np.full(observations.shape[1], 1e-12)
    better = baum_welch_step(model, observations, counts, floor)
    paths, joint = path_probabilities(model, observations)
    weights = np.array([share_of_states(paths, joint, t, states) for t in range(len(observations))])
    for t in range(len(observations) - 1):
        for i, j in itertools.product(range(states), repeat=2):
            counts[i, j] += joint[(paths[:, t] == i) & (paths[:, t + 1] == j)].sum() / joint.sum()
    np.testing.assert_allclose(better.start, weights[0], atol=1e-9)
    np.testing.assert_allclose(better.transitions, counts / counts.sum(axis=1, keepdims=True), atol=1e-9)
    known = np.isfinite(observations).all(axis=1)
    if known.any():
        w, x = weights[known], observations[known]
        means = (w.T @ x) / w.sum(axis=0)[:, None]
        np.testing.assert_allclose(better.means, means, rtol=1e-6, atol=1e-9)
        squares = np.array([(w[:, k, None] * (x - means[k]) ** 2).sum(axis=0) / w[:, k].sum() for k in range(states)])
        np.testing.assert_allclose(better.variances, np.maximum(squares, 1e-12), rtol=1e-6, atol=1e-9)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0]), st.booleans())
def test_a_step_never_explains_less(seed, count, with_missing):
    rng = np.random.default_rng(seed)
    observations, _ = simulate(random_model(rng, 3, 2), 40, rng)
    if with_missing:
        observations[rng.integers(0, 40, size=6), 0] = np.nan
    counts, floor = np.full((3, 3), count), np.full(2, 0.05)
    model = random_model(rng, 3, 2)
    explained = -np.inf
    for _ in range(15):
        now = log_likelihood(model, observations)
        now += float((counts * np.log(model.transitions)).sum()) if count else 0.0
        assert now >= explained - 1e-8
        explained, model = now, baum_welch_step(model, observations, counts, floor)


def planted_model() -> HiddenMarkov:
    return HiddenMarkov(
        np.array([1.0, 0.0, 0.0]),
        np.array([[0.95, 0.03, 0.02], [0.03, 0.95, 0.02], [0.04, 0.06, 0.90]]),
        np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.5]]),
        np.array([[0.5, 0.5], [0.5, 0.2], [1.0, 0.5]]),
    )


def test_planted_parameters_are_found():
    model = planted_model()
    observations, states = simulate(model, 4000, np.random.default_rng(3))
    made = np.zeros((3, 3))
    np.add.at(made, (states[:-1], states[1:]), 1.0)
    found = fit(observations, 3)
    order = [int(np.abs(found.means - model.means[k]).sum(axis=1).argmin()) for k in range(3)]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(found.means[order], model.means, atol=0.1)
    np.testing.assert_allclose(found.variances[order], model.variances, atol=0.1)
    np.testing.assert_allclose(
        found.transitions[np.ix_(order, order)], made / made.sum(axis=1, keepdims=True), atol=0.03
    )
    assert log_likelihood(found, observations) > log_likelihood(model, observations)  # as a maximum must


def fit_and_truth(seed: int) -> tuple[HiddenMarkov, FloatArray, float]:
    """Two states that differ in the second column alone."""
    rng = np.random.default_rng(seed)
    apart = HiddenMarkov(
        np.array([0.5, 0.5]),
        np.array([[0.95, 0.05], [0.05, 0.95]]),
        np.array([[0.0, 0.0], [0.0, 2.0]]),
        np.array([[1.0, 1.0], [1.0, 1.0]]),
    )
    observations, _ = simulate(apart, 150, rng)
    return fit(observations, 2), observations, log_likelihood(apart, observations)


def test_a_fit_explains_more_than_the_truth_and_is_at_rest():
    """What a maximum must do. Without several starting points a third of such samples end somewhere lower."""
    for seed in range(40):
        model, observations, truth = fit_and_truth(seed)
        reached = log_likelihood(model, observations)
        assert reached > truth
        further = baum_welch_step(model, observations, np.zeros((2, 2)), np.full(2, 1e-9))
        assert log_likelihood(further, observations) - reached < 0.02


def test_a_row_known_in_part_is_as_one_unknown():
    for seed in range(20):
        observations, _ = simulate(planted_model(), 120, np.random.default_rng(seed))
        in_part, unknown = observations.copy(), observations.copy()
        rows = np.argsort(observations[:, 1])[50:70]
        in_part[rows, 0], unknown[rows] = np.nan, np.nan
        assert all(np.array_equal(a, b) for a, b in zip(fit(in_part, 3), fit(unknown, 3), strict=True))


def test_the_filter_knows_nothing_of_later_rows():
    model = planted_model()
    observations, _ = simulate(model, 200, np.random.default_rng(4))
    whole = filter_probabilities(model, observations)
    for cut in (1, 57, 199):
        assert np.array_equal(filter_probabilities(model, observations[:cut]), whole[:cut])


def test_a_missing_row_has_the_predicted_probabilities():
    model = planted_model()
    observations, _ = simulate(model, 20, np.random.default_rng(5))
    observations[10] = np.nan
    filtered = filter_probabilities(model, observations)
    np.testing.assert_allclose(filtered[10], filtered[9] @ model.transitions, rtol=1e-12)


def test_units_change_nothing_but_the_parameters_of_the_column():
    observations, _ = simulate(planted_model(), 300, np.random.default_rng(6))
    plain, moved = fit(observations, 3), fit(observations * [4.0, 0.5] + [0.0, 8.0], 3)
    np.testing.assert_allclose(moved.transitions, plain.transitions, atol=1e-7)
    np.testing.assert_allclose(moved.means, plain.means * [4.0, 0.5] + [0.0, 8.0], atol=1e-6)
    np.testing.assert_allclose(moved.variances, plain.variances * [16.0, 0.25], atol=1e-6)


def test_counts_beforehand_draw_transitions_towards_them():
    observations, _ = simulate(planted_model(), 120, np.random.default_rng(7))
    stubborn = fit(observations, 3, np.diag(np.full(3, 1e6)) + 1.0)
    np.testing.assert_allclose(np.diag(stubborn.transitions), 1.0, atol=1e-3)
    assert np.diag(fit(observations, 3).transitions).min() < 0.99


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "observations",
    [
        pytest.param(np.empty((0, 2)), id="no rows"),
        pytest.param(np.arange(10.0).reshape(5, 2), id="fewer than two rows a state"),
        pytest.param(np.full((60, 2), 0.1), id="constant"),
        pytest.param(np.column_stack([np.arange(60.0), np.full(60, 0.1)]), id="one constant column"),
        pytest.param(np.full((60, 2), np.nan), id="nothing known"),
        pytest.param(np.full((60, 2), np.inf), id="infinite"),
        pytest.param(np.where(np.arange(120).reshape(60, 2) % 2, np.nan, 1.0), id="no row wholly known"),
    ],
)
def test_where_nothing_can_be_estimated_all_is_nan(observations):
    model = fit(observations, 3)
    assert all(np.isnan(part).all() for part in model)
    assert np.isnan(filter_probabilities(model, np.zeros((4, 2)))).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e8, 1e150])
def test_no_scale_of_data_gives_infinities(scale):
    observations, _ = simulate(planted_model(), 100, np.random.default_rng(8))
    model = fit(observations * scale, 3)
    assert not any(np.isinf(part).any() for part in model)
    filtered = filter_probabilities(model, observations * scale)
    assert (np.isnan(filtered) | ((filtered >= 0.0) & (filtered <= 1.0))).all()


def test_an_observation_far_from_every_possible_state_is_survived():
    """A left-to-right model: state 2 fits best, but cannot have been reached."""
    model = planted_model()._replace(transitions=np.array([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]]))
    filtered = filter_probabilities(model, np.array([[0.0, 500.0], [0.0, 500.0], [1e9, -1e9]]))
    np.testing.assert_allclose(filtered.sum(axis=1), 1.0)
    assert filtered[0].tolist() == [1.0, 0.0, 0.0]
    assert np.isfinite(log_likelihood(model, np.array([[0.0, 500.0], [0.0, 500.0]])))


def test_a_fit_is_the_same_bits_in_any_thread_and_leaves_its_input_alone():
    samples = [simulate(planted_model(), 120, np.random.default_rng(seed))[0] for seed in range(20)]
    before = [sample.copy() for sample in samples]
    alone = [fit(sample, 3, NO_COUNTS) for sample in samples]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda sample: fit(sample, 3), samples))
    for one, other in zip(alone, together, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(before, samples, strict=True))
