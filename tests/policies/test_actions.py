"""The action grid: an index and its meaning are one and the same, and means count only what is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from odin_core.policies.actions import (
    ACTIONS,
    GRID,
    SHAPE,
    SIDES,
    SIZES,
    STOPS,
    TARGETS,
    RewardGrid,
    decode,
    encode,
    known_mean,
)  # fmt: skip

positions = st.tuples(*(st.integers(0, n - 1) for n in SHAPE))


def test_the_grid_has_each_combination_once():
    combinations = set(zip(*(column.tolist() for column in GRID), strict=True))
    assert len(combinations) == ACTIONS == len(SIDES) * len(SIZES) * len(STOPS) * len(TARGETS) == 128
    assert combinations == {(s, z, p, t) for s in SIDES for z in SIZES for p in STOPS for t in TARGETS}


@given(st.lists(positions, min_size=1, max_size=20))
def test_encoding_positions_and_decoding_the_index_gives_their_meaning(rows: list[tuple[int, ...]]):
    side, size, stop, target = np.array(rows).T
    index = encode(side, size, stop, target)
    meaning = decode(index)
    assert index.dtype == np.int64
    assert meaning.side.tolist() == [SIDES[i] for i in side]
    assert meaning.size.tolist() == [SIZES[i] for i in size]
    assert meaning.stop.tolist() == [STOPS[i] for i in stop]
    assert meaning.target.tolist() == [TARGETS[i] for i in target]


@given(st.integers(0, ACTIONS - 1))
def test_decoding_an_index_and_encoding_its_meaning_gives_the_index_back(index: int):
    meaning = decode(np.array([index]))
    axes = zip(meaning, (SIDES, SIZES, STOPS, TARGETS), strict=True)
    assert encode(*(np.array([values.index(m[0])]) for m, values in axes)).tolist() == [index]


@pytest.mark.parametrize("index", [-1, ACTIONS])
def test_flat_and_what_lies_beyond_the_grid_have_no_meaning(index: int):
    with pytest.raises(ValueError, match="index"):
        decode(np.array([index]))


@given(
    hnp.arrays(np.float64, (4, 3, 2), elements=st.floats(-10, 10) | st.just(np.nan)), st.sampled_from([0, 2, (0, 1)])
)
def test_a_mean_of_what_is_known_agrees_with_numpy_where_anything_is(values: np.ndarray, axis: int | tuple[int, ...]):
    known = np.isfinite(values).any(axis=axis)
    mean = known_mean(values, axis)
    assert np.isnan(mean[~known]).all()
    filled = np.where(np.expand_dims(~known, axis), 0.0, values)
    np.testing.assert_allclose(mean[known], np.nanmean(filled, axis=axis)[known], atol=1e-12)


def test_a_reward_is_the_net_return_in_units_of_risk():
    grid = RewardGrid(np.array([[0.01, np.nan]], np.float32), np.array([0.004]))
    np.testing.assert_allclose(grid.reward, [[2.5, np.nan]], rtol=1e-6)
