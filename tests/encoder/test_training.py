"""Training: repeatable, stopped early, the best weights kept; and a trained encoder on disk."""

import json
import math
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plantedsamples import BARS, QUICK, planted_samples
from smalllives import quick, small_market

from odin_core.encoder.checkpoint import read_checkpoint
from odin_core.encoder.config import EncoderConfig
from odin_core.encoder.model import CLIP, CURVES, FACTS, WEIGHTS, EncoderUnreadable, Scaling, TrainedEncoder
from odin_core.encoder.samples import NoUsableRows, Samples, split
from odin_core.encoder.training import (
    NoGpu,
    TrainingDiverged,
    learned_sessions,
    learning_rate,
    made_from,
    train,
    train_encoder,
)
from odin_core.features.catalogue import features_of
from odin_core.features.engine import sessions_needed
from odin_core.home import open_home
from odin_core.market.data import PRICES

CONFIG = QUICK.model_copy(update={"steps": 60, "validate_every": 20})
HEADS = ["candles", "regime", "heatmap", "quantiles", "turns", "total"]


@pytest.fixture(scope="module")
def samples() -> Samples:
    return planted_samples(3, symbols=3, sessions=20)


@pytest.fixture(scope="module")
def trained(samples: Samples) -> TrainedEncoder:
    return train(samples, CONFIG)


def test_the_same_samples_and_configuration_give_the_same_bits_and_another_seed_others(
    samples: Samples, trained: TrainedEncoder
):
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = train(samples, CONFIG)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert again.version == trained.version
    assert train(samples, CONFIG.model_copy(update={"seed": 8})).version != trained.version


def test_threads_and_algorithms_are_afterwards_what_they_were(samples: Samples):
    threads = torch.get_num_threads()
    train(samples, CONFIG.model_copy(update={"steps": 12, "threads": threads + 1}))
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(TrainingDiverged):
        train(samples, CONFIG.model_copy(update={"steps": 12, "threads": threads + 1, "weight_regime": math.inf}))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("architecture", ["transformer", "lstm"])
def test_every_architecture_is_trained_repeatably(samples: Samples, architecture: str):
    config = EncoderConfig.of(
        {**CONFIG.model_dump(), "architecture": architecture, "layers": 1, "steps": 12, "batch": 4}
    )
    found = train(samples, config)
    assert train(samples, config).version == found.version


def test_curves_have_each_head_of_both_sides_at_each_validation(trained: TrainedEncoder):
    curves = trained.curves
    assert curves.schema == CURVES
    assert curves["step"].unique().sort().to_list() == [20, 40, 60]
    assert curves.height == 3 * 2 * len(HEADS)
    assert set(curves["head"]) == set(HEADS)
    totals = curves.pivot(on="head", index=["step", "split"], values="loss")
    weights = CONFIG.weights
    np.testing.assert_allclose(totals["total"], sum(weights[h] * totals[h].to_numpy() for h in HEADS[:-1]), rtol=1e-5)
    totals = totals.filter(split="training")["total"]
    assert totals[-1] < totals[0]


def test_it_stops_early_and_keeps_the_weights_of_the_best_validation(tmp_path: Path):
    config = CONFIG.model_copy(update={"steps": 400, "patience": 2, "learning_rate": 2e-2, "checkpoint_every": 20})
    shuffled = planted_samples(3, symbols=3, sessions=20, shuffled=True)
    found = train(shuffled, config)
    validation = found.curves.filter(split="validation", head="total")
    best = validation.sort("loss", "step").row(0, named=True)
    assert found.facts["stopped_early"]
    assert found.facts["steps"] == validation["step"].max() == best["step"] + 2 * config.validate_every
    assert (found.facts["best_step"], found.facts["validation_loss"]) == (best["step"], best["loss"])

    def stop(done: int, steps: int, what: str) -> None:
        if done > best["step"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(shuffled, config, checkpoints=tmp_path, progress=stop)
    kept = read_checkpoint(tmp_path, f"{shuffled.fingerprint} {config.model_dump_json()}")
    assert kept is not None
    assert kept.state["step"] == best["step"]
    for name, tensor in found.encoder.state_dict().items():
        assert torch.equal(tensor, kept.tensors[f"encoder.{name}"]), name


def test_rows_of_the_validation_and_what_lies_between_have_no_part_in_weights_before_the_first_choice(
    samples: Samples,
):
    """Whatever validation says, the first step's weights and the scaling are of the training rows alone."""
    training, _ = split(samples, CONFIG.validation_share, CONFIG.embargo)
    last = training.sessions[-1].toordinal()
    rng = np.random.default_rng(0)
    later = samples.session > last
    values = np.where(later[:, None], rng.normal(50, 9, samples.values.shape).astype(np.float32), samples.values)
    changed = replace(samples, values=values, targets=samples.targets._replace(
        regime=np.where(later, 0, samples.targets.regime)))  # fmt: skip
    once = CONFIG.model_copy(update={"steps": 20, "validate_every": 20})
    one, other = train(samples, once), train(changed, once)
    np.testing.assert_array_equal(one.scaling.mean, other.scaling.mean)
    np.testing.assert_array_equal(one.scaling.deviation, other.scaling.deviation)
    for name, tensor in one.encoder.state_dict().items():
        assert torch.equal(tensor, other.encoder.state_dict()[name]), name
    assert one.facts["validation_loss"] != other.facts["validation_loss"]


def test_rows_before_a_windows_first_known_one_are_asked_nothing(samples: Samples):
    """There the network says nothing, so answers would teach the heads' biases alone."""
    row = np.arange(len(samples)) - samples.first
    unknown = row < 20
    valid = samples.valid & ~unknown
    one = replace(samples, valid=valid, values=np.where(valid[:, None], samples.values, np.float32(0)))
    told = samples.targets._replace(
        regime=np.where(unknown, 1, samples.targets.regime),
        returns=np.where(unknown[:, None], np.float32(7), samples.targets.returns),
    )
    config = CONFIG.model_copy(update={"steps": 20, "window_step": 1, "mask_share": 0.5})
    found, other = train(one, config), train(replace(one, targets=told), config)
    assert found.facts["validation_loss"] == other.facts["validation_loss"]
    for part in ("encoder", "heads"):
        for name, tensor in getattr(found, part).state_dict().items():
            assert torch.equal(tensor, getattr(other, part).state_dict()[name]), name


def test_it_says_what_it_was_made_of(samples: Samples, trained: TrainedEncoder):
    facts, training = trained.facts, split(samples, CONFIG.validation_share, CONFIG.embargo)[0]
    assert trained.trained_through == samples.sessions[-1]
    assert facts["rows"]["training"] == len(training) == 3 * 13 * BARS
    assert facts["sessions"]["training"] == [str(training.sessions[0]), str(training.sessions[-1])]
    assert facts["samples"] == samples.fingerprint


def test_samples_without_a_usable_window_and_a_gpu_that_is_not_there_are_refused(samples: Samples):
    with pytest.raises(NoUsableRows, match="to train on"):
        train(replace(samples, valid=np.zeros_like(samples.valid)), CONFIG)
    if not torch.cuda.is_available():
        with pytest.raises(NoGpu, match="set device: cpu"):
            train(samples, CONFIG.model_copy(update={"device": "cuda"}))
        with pytest.raises(NoGpu):  # before anything of the market is read
            train_encoder(cast(Any, None), date(2022, 11, 11), CONFIG.model_copy(update={"device": "cuda"}))


def test_the_learning_rate_rises_and_falls_as_a_cosine():
    config = EncoderConfig.small(steps=100, warm_up=10, learning_rate=0.1)
    rates = [learning_rate(config, step) for step in range(101)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 100)
    np.testing.assert_allclose(rates[10], 0.1)
    np.testing.assert_allclose(rates[55], 0.05)
    np.testing.assert_allclose(rates[100], 0.0, atol=1e-12)
    assert (np.diff(rates[10:]) < 0).all()


# Of a market


def test_a_markets_encoder_follows_from_what_was_known_and_is_named_by_it(tmp_path: Path):
    tiny = CONFIG.model_copy(
        update={"length": 64, "steps": 11, "batch": 4, "turn_bars": 6, "range_bars": 10, "horizons": (1, 6)}
    )
    data = small_market(open_home(tmp_path / "one"), quick(), symbols=2)
    first, last = date(2022, 10, 27), date(2022, 11, 11)
    mark = made_from(data, last, tiny, first=first)
    found = train_encoder(data, last, tiny, first=first, checkpoints=tmp_path / "checkpoints")
    assert found.trained_through == last
    assert found.features == tuple(f.name for f in features_of("sequence"))
    assert made_from(data, last, tiny, first=first) == mark
    later = small_market(open_home(tmp_path / "other"), quick(), symbols=2)
    later.features(None, "5m", first, date(2022, 11, 18), "sequence")
    assert train_encoder(later, last, tiny, first=first).version == found.version
    marks = {
        mark,
        made_from(data, last, tiny.model_copy(update={"seed": 8}), first=first),
        made_from(data, date(2022, 11, 10), tiny, first=first),
        made_from(data, last, tiny, first=date(2022, 10, 31)),
    }
    assert len(marks) == 4
    bars = data.bars(last)
    data.lake.write(PRICES, last, bars.with_columns(pl.col("close") + 0.05))
    assert made_from(data, last, tiny, first=first) not in marks


def test_the_newest_sessions_alone_are_learned_from_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Memory and mark follow from as many sessions as are configured, however long the history is."""
    tiny = EncoderConfig.of(
        {**CONFIG.model_dump(), "length": 64, "steps": 11, "batch": 4, "turn_bars": 6, "range_bars": 10,
         "horizons": (1, 6), "sessions": 8}
    )  # fmt: skip
    data = small_market(open_home(tmp_path), quick(), symbols=2)
    last = date(2022, 11, 11)
    learned = learned_sessions(data, last, tiny)
    assert len(learned) == 8
    assert learned[-1] == last
    assert learned_sessions(data, last, tiny, learned[3]) == learned[3:]
    found, mark = train_encoder(data, last, tiny), made_from(data, last, tiny)
    assert found.facts["sessions"]["training"][0] == str(learned[0])
    assert train_encoder(data, last, tiny, first=learned[0]).version == found.version
    assert made_from(data, last, tiny.model_copy(update={"sessions": 9})) != mark

    before = data.calendar.sessions(date(2022, 9, 26), learned[0])[:-1]
    reach = sessions_needed(features_of("sequence"), tiny.interval, data.per_session)
    marks = []
    for session in (
        before[-reach - 1],
        before[-reach],
    ):  # beyond what the first rows' features look back on, and within
        bars = data.bars(session)
        data.lake.write(PRICES, session, bars.with_columns(pl.col("close") + 0.05))
        marks.append(made_from(data, last, tiny))
    assert marks[0] == mark != marks[1]
    monkeypatch.setattr("odin_core.encoder.training.version_of", lambda *modules: ",".join(m.__name__ for m in modules))
    told: list[list[str]] = []
    monkeypatch.setattr("odin_core.encoder.training.mark_of", lambda parts: told.append(list(parts)) or "")
    made_from(data, last, tiny)
    for name in ("encoder.targets", "structure.heatmap", "structure.density", "features.regime", "features.windows"):
        assert f"odin_core.{name}" in told[0][-1].split(",")


# Scaling


@given(st.integers(0, 1000), st.integers(1, 30))
def test_scaling_is_of_the_valid_rows_alone_and_bounded(seed: int, rows: int):
    rng = np.random.default_rng(seed)
    values = rng.normal(3.0, [1e-4, 1.0, 50.0, 0.0], (rows, 4)).astype(np.float32)
    valid = rng.random(rows) < 0.7
    valid[0] = True
    scaling = Scaling.fitted(values, valid)
    np.testing.assert_allclose(scaling.mean, values[valid].mean(axis=0), rtol=1e-5)
    spread = values[valid].std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(scaling.deviation, np.where(spread > 0, spread, 1.0), rtol=1e-4)
    scaled = scaling.of(values * 100, valid)
    assert np.abs(scaled).max() <= CLIP
    assert (scaled[~valid] == 0).all()
    assert scaled.dtype == np.float32


# On disk


def test_what_was_saved_is_loaded_to_the_bit(trained: TrainedEncoder, samples: Samples, tmp_path: Path):
    trained.save(tmp_path)
    found = TrainedEncoder.load(tmp_path)
    assert found.version == trained.version
    assert (found.config, found.features, found.trained_through) == (CONFIG, samples.features, trained.trained_through)
    assert found.curves.equals(trained.curves)
    window = samples.values[None, :60], samples.valid[None, :60]
    for one, other in zip(trained.predictions(*window)[1], found.predictions(*window)[1], strict=True):
        assert torch.equal(one, other)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FACTS, WEIGHTS]


def test_a_trained_encoder_is_in_evaluation_mode_and_asks_for_no_gradient(trained: TrainedEncoder):
    assert not trained.encoder.training
    assert not any(p.requires_grad for p in [*trained.encoder.parameters(), *trained.heads.parameters()])


@pytest.mark.parametrize("file", [FACTS, WEIGHTS])
def test_any_other_byte_is_refused(trained: TrainedEncoder, file: str, tmp_path: Path):
    trained.save(tmp_path)
    content = (tmp_path / file).read_bytes()
    places = np.random.default_rng(2).integers(0, len(content), 25)
    for place in [*places.tolist(), 0, 5, 9, len(content) - 1]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / file).write_bytes(damaged)
        with pytest.raises(EncoderUnreadable, match="train again"):
            TrainedEncoder.load(tmp_path)
    (tmp_path / file).write_bytes(content[:-7])
    with pytest.raises(EncoderUnreadable):
        TrainedEncoder.load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(EncoderUnreadable):
        TrainedEncoder.load(tmp_path)


def test_facts_that_belong_to_other_weights_are_refused(trained: TrainedEncoder, tmp_path: Path):
    trained.save(tmp_path)
    told = json.loads((tmp_path / FACTS).read_text())
    told["trained_through"] = "2020-01-01"
    (tmp_path / FACTS).write_text(json.dumps(told))
    with pytest.raises(EncoderUnreadable, match="its content is that of encoder-"):
        TrainedEncoder.load(tmp_path)
