"""Diagnostics of encoders against cases whose answer is known: quantiles that hold and that do not, embeddings that
tell regimes and that do not, reconstructions that know and that say the average."""

import base64
import io
import re
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from plantedsamples import BARS, planted_samples
from scipy.stats import norm
from untrainedencoders import untrained

from odin_core.diagnostic_page import MOST_BYTES
from odin_core.encoder.config import REGIMES
from odin_core.encoder.diagnostics import (
    COVERAGE,
    MAP,
    RECONSTRUCTION,
    coverage_of,
    diagnostics,
    diagnostics_page,
    embedding_map,
    looked_at,
    neighbours_alike,
    quantile_coverage,
    reconstruction,
)
from odin_core.encoder.diagnostics_drawing import candles_of

NAMES = ("log_return_1_5m", "bar_gap_5m", "bar_range_5m", "upper_wick_5m", "lower_wick_5m", "body_5m")
SAMPLES = replace(planted_samples(), features=NAMES, horizons=(1, 4), length=24)
FEW = SAMPLES.between(SAMPLES.sessions[0], SAMPLES.sessions[2])
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@pytest.fixture(scope="module")
def model():
    curves = [[s, h, p, 1 / s] for s in (10, 20) for h in ("total", "regime") for p in ("training", "validation")]
    return replace(untrained(features=NAMES, horizons=(1, 4)), facts={"curves": curves, "best_step": 20})


@pytest.fixture(scope="module")
def looked(model):
    return looked_at(model, SAMPLES, most_windows=24)


def of_sessions(sessions: int, rows: int) -> np.ndarray:
    return np.repeat(np.arange(sessions), rows)


# Quantiles


def test_true_quantiles_hold_what_they_say():
    draws = np.random.default_rng(0)
    scale = np.exp(draws.normal(size=(6000, 1)))
    said = scale[:, None] * norm.ppf(LEVELS)[None, None]
    table = quantile_coverage(said, scale * draws.standard_normal((6000, 1)), of_sessions(60, 100), [3], LEVELS)
    assert table.schema == COVERAGE
    assert table["horizon"].to_list() == [3] * 5
    assert np.abs(table["observed"].to_numpy() - LEVELS).max() < 0.02
    assert table["holds"].all()
    assert (table["binomial_lower"] < table["observed"]).all()
    assert (table["binomial_upper"] > table["observed"]).all()


def test_quantiles_that_are_too_narrow_do_not_hold():
    draws = np.random.default_rng(0)
    said = np.broadcast_to(0.5 * norm.ppf(LEVELS), (6000, 1, 5))
    table = quantile_coverage(said, draws.standard_normal((6000, 1)), of_sessions(60, 100), [3], LEVELS)
    assert table["holds"].to_list() == [False, False, True, False, False]
    assert table["observed"][0] > 0.15


def test_intervals_by_session_hold_where_binomial_ones_do_not():
    """Outcomes of a session share most of what they do: over many tries 95 % intervals must hold about so often."""
    held = {"lower": 0, "binomial_lower": 0}
    for seed in range(200):
        draws = np.random.default_rng(seed)
        returns = 0.9 * np.repeat(draws.standard_normal(40), 20) + 0.436 * draws.standard_normal(800)
        row = quantile_coverage(np.zeros((800, 1, 1)), returns[:, None], of_sessions(40, 20), [1], [0.5])
        for name in held:
            held[name] += row[name][0] <= 0.5 <= row[name.replace("lower", "upper")][0]
    assert held["lower"] >= 180
    assert held["binomial_lower"] < 130


def test_unknown_returns_do_not_count():
    returns = np.array([[np.nan], [1.0], [-1.0]])
    table = quantile_coverage(np.zeros((3, 1, 1)), returns, np.array([0, 0, 1]), [1], [0.5])
    assert table.select("rows", "sessions", "observed").row(0) == (2, 2, 0.5)
    none = quantile_coverage(np.zeros((3, 1, 1)), np.full((3, 1), np.nan), np.array([0, 0, 1]), [1], [0.5])
    assert none.select("rows", "observed", "holds").row(0) == (0, None, None)


# What an encoder saw


def test_each_row_is_judged_once_with_half_a_window_before_it(looked):
    model_sessions = np.unique(looked.session)
    assert looked.counted.shape == (24, 24)
    every = looked_at(untrained(features=NAMES, horizons=(1, 4)), SAMPLES, most_windows=10**6)
    known = SAMPLES.valid.reshape(6, -1)  # (symbols, rows)
    assert every.counted.sum() == known[:, 12:].sum()  # all but the first half window of each symbol
    assert not (every.hidden & every.seen).any()
    assert 0.05 < every.hidden.sum() / (every.hidden | every.seen).sum() < 0.3
    assert len(model_sessions) > 1


def test_looking_does_not_change_generators_and_is_repeatable(model, looked):
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    again = looked_at(model, SAMPLES, most_windows=24)
    for name in ("embedding", "said", "hidden", "quantiles"):
        np.testing.assert_array_equal(getattr(again, name), getattr(looked, name))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_what_was_said_of_a_hidden_row_does_not_follow_from_it(model, looked):
    moved = SAMPLES.values.copy()
    moved[SAMPLES.valid] += 0.0
    rows = np.flatnonzero(SAMPLES.valid)
    moved[rows] *= np.float32(-1.0)
    other = looked_at(model, replace(SAMPLES, values=moved), most_windows=24)
    np.testing.assert_array_equal(other.hidden, looked.hidden)  # which rows are hidden is drawn, not looked at
    np.testing.assert_allclose(other.true, -looked.true)


# Maps


def with_embeddings(looked, embedding, regime):
    return replace(looked, embedding=embedding.astype(np.float32), regime=regime)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_regimes_that_lie_apart_are_drawn_apart(looked, method):
    draws = np.random.default_rng(3)
    centre = 8 * draws.standard_normal((3, 12))
    known = np.where(looked.regime >= 0, looked.regime, 0)
    apart = with_embeddings(looked, centre[known] + draws.standard_normal((*known.shape, 12)), known)
    points = embedding_map(apart, method=method, most=150, seed=1)
    assert points.schema == MAP
    assert points.height == 150
    middle = points.group_by("regime").agg(pl.col("x", "y").mean(), spread=(pl.col("x").std() + pl.col("y").std()) / 2)
    xy = middle.select("x", "y").to_numpy()
    gaps = [np.linalg.norm(xy[a] - xy[b]) for a in range(3) for b in range(a)]
    assert min(gaps) > 2 * middle["spread"].max()
    assert points.equals(embedding_map(apart, method=method, most=150, seed=1))


def test_neighbours_tell_regimes_from_chance_and_not_by_their_session(looked):
    draws = np.random.default_rng(3)
    regime = looked.session % 3  # by session, as regimes are
    own = draws.standard_normal((10**6, 4))[looked.session]  # an embedding that knows its session, and nothing else
    alike, chance = neighbours_alike(with_embeddings(looked, own, regime))
    assert abs(alike - chance) < 0.25  # neighbours come from few sessions
    telling = np.eye(3)[regime] + 0.1 * draws.standard_normal((*regime.shape, 3))
    alike, chance = neighbours_alike(with_embeddings(looked, telling, regime))
    assert alike > 0.95
    assert chance < 0.45


# Reconstruction


def test_skill_is_one_for_knowing_and_zero_for_the_average(looked):
    mean = np.broadcast_to(looked.mean, looked.true.shape).astype(np.float32)
    knows = reconstruction(replace(looked, said=looked.true))
    assert knows.schema == RECONSTRUCTION
    np.testing.assert_allclose(knows["skill"].to_numpy(), 1.0)
    np.testing.assert_allclose(reconstruction(replace(looked, said=mean))["skill"].to_numpy(), 0.0, atol=1e-9)


def test_the_last_row_seen_is_the_other_baseline(looked):
    """Row by row: of a hidden row, the newest row before it that was shown."""
    true, errors, whole = looked.true[..., 2].astype(float), [], []
    for w, t in np.argwhere(looked.hidden & looked.counted):
        shown = [s for s in range(t) if looked.seen[w, s]]
        last = true[w, shown[-1]] if shown else float(looked.mean[2])
        errors.append((true[w, t] - last) ** 2)
        whole.append((true[w, t] - looked.mean[2]) ** 2)
    assert reconstruction(looked)["last_seen"][2] == pytest.approx(1 - sum(errors) / sum(whole))
    assert reconstruction(looked)["rows"][2] == len(errors)


def test_candles_come_back_from_their_features():
    draws = np.random.default_rng(0)
    open_, close = 0.01 * draws.standard_normal((2, 50))
    high = np.maximum(open_, close) + 0.01 * draws.random(50)
    low = np.minimum(open_, close) - 0.01 * draws.random(50)
    width = high - low
    upper, lower = (high - np.maximum(open_, close)) / width, (np.minimum(open_, close) - low) / width
    found = candles_of(np.stack([close, open_, width, upper, lower], axis=1).astype(np.float32), [0, 1, 2, 3, 4])
    np.testing.assert_allclose(found, np.stack([open_, high, low, close], axis=1), atol=1e-7)


# The page


@pytest.mark.parametrize("names", [NAMES, tuple(f"noise_{n}" for n in range(6))])
def test_all_diagnostics_have_a_table_and_a_small_picture(model, names):
    samples = replace(FEW, features=names)
    found = diagnostics(replace(model, features=names), samples)
    assert [each.name for each in found] == ["embedding_map", "reconstruction", "quantile_coverage", "loss_curves"]
    for each in found:
        assert each.table.height > 0
        assert 2_000 < len(each.picture) <= MOST_BYTES
        assert Image.open(io.BytesIO(each.picture)).format == "PNG"
        assert ("trained on" in each.told) == (each.name != "loss_curves")  # these sessions lie before trained_through
    assert set(found[0].table["regime"].drop_nulls()) <= set(REGIMES)


def test_the_page_is_one_file_and_the_same_again(model):
    later = replace(model, trained_through=FEW.sessions[0] - timedelta(days=1))
    drawn = diagnostics_page(later, FEW)
    assert drawn == diagnostics_page(later, FEW)
    pictures = re.findall(r'src="([^"]+)"', drawn)
    assert len(pictures) == 4
    for picture in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(picture.removeprefix("data:image/png;base64,")))).width > 300
    assert f"{len(FEW.sessions)} sessions from {FEW.sessions[0]}" in drawn
    assert "all after its training" in drawn


def test_rows_of_which_nothing_is_known_are_drawn_as_that(model):
    short = SAMPLES.between(FEW.sessions[0], FEW.sessions[0])
    few = replace(short, length=24, valid=np.zeros(len(short), np.bool_))
    assert len(few) == 6 * BARS
    for each in diagnostics(replace(model, facts={}), few):
        assert len(each.picture) <= MOST_BYTES
    assert coverage_of(looked_at(model, few))["rows"].sum() == 0
    assert neighbours_alike(looked_at(model, few)) == pytest.approx((np.nan, np.nan), nan_ok=True)
    assert date.fromordinal(int(few.session[0])) == FEW.sessions[0]
