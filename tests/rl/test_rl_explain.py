"""Explanations of a policy's choices: they add up, name what did it, come back from the table, and can be drawn."""

import io
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from odin_core.encoder.config import EncoderConfig
from odin_core.encoder.heads import Heads
from odin_core.encoder.model import Scaling, TrainedEncoder
from odin_core.encoder.networks import build
from odin_core.lake import Lake, logical_hash
from odin_core.rl.choices import DIMENSIONS, FLAT, LONG, Choices
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.explain import (
    EXPLANATIONS,
    Windows,
    WindowsOfAnotherState,
    columns,
    explain,
    explanations,
    log_probability,
    table,
)
from odin_core.rl.observation import POSITION, layout, width
from odin_core.rl.policy import ActorCritic, ObservationMismatch, Structure, TradingPolicy
from odin_core.rl.tape import planted
from odin_core.rl.trade_picture import NotTheWindow, Trade, trade_figure, trade_page, trade_picture

FEATURES, BARS, STATE = tuple(f"feature_{i}" for i in range(5)), 24, 8
TAPE = planted(symbols=1, sessions=2, bars=20, state=STATE, heatmap=3)
PLACES = layout(EnvironmentConfig(), TAPE)
WHEN = datetime(2024, 1, 3, 6, 30, tzinfo=UTC)


def policy_of(columns: int, seed: int = 0) -> TradingPolicy:
    """With drawn weights, strong enough to be sure of something."""
    structure = Structure(columns, DIMENSIONS, (16,))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        weights = ActorCritic(structure).state_dict()
    return TradingPolicy(
        structure, {name: 0.7 * torch.randn(tensor.shape, generator=generator) for name, tensor in weights.items()}
    )


def encoder() -> TrainedEncoder:
    config = EncoderConfig.small(length=BARS, embedding=STATE, width=8, levels=3, threads=1)
    ones = np.ones(len(FEATURES), np.float32)
    return TrainedEncoder(
        config=config,
        features=FEATURES,
        scaling=Scaling(0.5 * ones, 2 * ones),
        encoder=build(config, len(FEATURES)),
        heads=Heads(config, len(FEATURES)),
        trained_through=date(2023, 12, 29),
    )


def decisions_of(count: int) -> pl.DataFrame:
    moments = [WHEN + n * timedelta(minutes=5) for n in range(count)]
    rows = {
        "decision_id": [f"d{n}" for n in range(count)],
        "symbol": "ABC",
        "session": WHEN.date(),
        "known_at": moments,
    }
    return pl.DataFrame(rows).with_columns(pl.col("known_at").cast(EXPLANATIONS["known_at"]))


@pytest.fixture(scope="module")
def explained():
    """Six decisions of a policy on an encoder's states, explained through the encoder."""
    model, draws = encoder(), np.random.default_rng(5)
    values = draws.normal(size=(6, BARS, len(FEATURES))).astype(np.float32)
    valid = draws.random((6, BARS)) > 0.1
    valid[:, -1] = True
    with torch.no_grad():
        state = model.encoder(torch.tensor(model.scaling.of(values, valid)), torch.tensor(valid), last=1)[:, 0]
    seen = draws.normal(size=(6, width(TAPE))).astype(np.float32)
    seen[:, PLACES["state"]] = state.numpy()
    policy, windows = policy_of(width(TAPE)), Windows(encoder=model, values=values, valid=valid)
    return policy, seen, windows, explain(policy, seen, PLACES, decisions_of(6), windows=windows, tolerance=1e-3)


def test_attributions_add_up_to_what_the_observation_changes(explained):
    policy, seen, _, found = explained
    chances = policy.probabilities(seen)
    for n, each in enumerate(found):
        expected = sum(np.log(part[n, at]) for part, at in zip(chances, each.choice, strict=True))
        if each.choice[0] == FLAT:
            expected = np.log(chances[0][n, FLAT])
        assert each.log_probability == pytest.approx(expected, abs=1e-4)
        total = sum(section.attribution for section in each.sections)
        assert total == pytest.approx(each.log_probability - each.baseline, abs=0.02)
        assert total - (each.log_probability - each.baseline) == pytest.approx(each.delta, abs=1e-9)
    assert {each.choice[0] for each in found} != {FLAT}


def test_attributions_through_the_encoder_add_up_too(explained):
    policy, seen, windows, found = explained
    average = torch.zeros(1, BARS, len(FEATURES))
    for n, each in enumerate(found):
        with torch.no_grad():
            state = windows.encoder.encoder(average, torch.tensor(windows.valid[n : n + 1]), last=1)[0, 0]
        without = torch.tensor(seen[n : n + 1]).clone()
        without[0, PLACES["state"]] = state
        before = float(log_probability(policy.network, without, torch.tensor([each.choice]))[0])
        assert each.window_baseline == pytest.approx(before, abs=1e-5)
        total = sum(feature.attribution for feature in each.window_features)  # five features, so all of them
        assert total == pytest.approx(each.log_probability - before, abs=0.02)
        assert abs(each.window_delta) < 0.02
        assert len(each.saliency) == BARS
        assert sum(each.saliency) == pytest.approx(sum(feature.size for feature in each.window_features), rel=1e-5)
        assert all(share == 0 for share, usable in zip(each.saliency, windows.valid[n], strict=True) if not usable)


def test_what_a_policy_does_not_look_at_gets_nothing():
    """A policy of one column: it gets all of the attribution, with its own name."""
    policy = policy_of(width(TAPE))
    column = PLACES["position"].start + 3
    weights = dict(policy.weights)
    only = torch.zeros_like(weights["actor.0.weight"])
    only[:, column] = weights["actor.0.weight"][:, column]
    blind = TradingPolicy(policy.structure, weights | {"actor.0.weight": only})
    seen = np.random.default_rng(2).normal(size=(3, width(TAPE))).astype(np.float32)
    for n, each in enumerate(explain(blind, seen, PLACES, decisions_of(3), tolerance=1e-3)):
        assert each.features[0].feature == "unrealised"
        assert each.features[0].value == pytest.approx(float(seen[n, column]))
        assert all(feature.attribution == 0 for feature in each.features[1:])
        assert {s.feature: s.attribution != 0 for s in each.sections} == {name: name == "position" for name in PLACES}
        assert each.saliency == ()


def test_a_choice_flat_is_its_position_alone():
    policy, seen = policy_of(width(TAPE)), torch.zeros(2, width(TAPE))
    actions = torch.tensor([[FLAT, 0, 0, 0], [FLAT, 3, 2, 1]])
    first, second = log_probability(policy.network, seen, actions)
    assert first == second
    held = log_probability(policy.network, seen, torch.tensor([[LONG, 0, 0, 0], [LONG, 3, 2, 1]]))
    assert held[0] != held[1]


def test_what_was_chosen_and_the_baseline_can_be_given():
    policy = policy_of(width(TAPE))
    seen = np.random.default_rng(3).normal(size=(2, width(TAPE))).astype(np.float32)
    chosen = Choices.of_actions([[1, 0, 1, 2], [2, 3, 0, 0]])
    found = explain(policy, seen, PLACES, decisions_of(2), chosen=chosen, baseline=seen[0])
    assert [each.choice for each in found] == [(1, 0, 1, 2), (2, 3, 0, 0)]
    assert found[0].log_probability == found[0].baseline
    assert all(feature.attribution == 0 for feature in found[0].features)
    assert found[1].log_probability != found[1].baseline


def test_a_decision_is_explained_alike_alone_and_among_others(explained):
    policy, seen, windows, found = explained
    alone = Windows(encoder=windows.encoder, values=windows.values[3:4], valid=windows.valid[3:4])
    [again] = explain(policy, seen[3:4], PLACES, decisions_of(6)[3:4], windows=alone, tolerance=1e-3)
    assert again == found[3]


def test_explanations_come_back_from_their_table(explained, tmp_path):
    found = explained[3]
    stored = table(found)
    assert stored.schema == EXPLANATIONS
    assert explanations(stored) == found
    Lake(tmp_path).write("explanations", WHEN.date(), stored)
    assert explanations(Lake(tmp_path).read("explanations", WHEN.date())) == found
    assert logical_hash(stored, ["decision_id"]) == logical_hash(stored.reverse(), ["decision_id"])
    assert explanations(table([])) == []
    with pytest.raises(ValueError, match="EXPLANATIONS"):
        explanations(stored.drop("delta"))


def test_columns_are_called_as_the_environment_calls_them():
    names = columns(PLACES)
    assert len(names) == len(set(names)) == width(TAPE)
    assert tuple(names[PLACES["position"]]) == POSITION
    assert names[PLACES["volatility"]] == ["volatility", "risk_unit"]
    assert names[: STATE + 1] == [*(f"state_{i}" for i in range(STATE)), "heatmap_0"]


def test_windows_of_another_state_are_refused(explained):
    policy, seen, windows, _ = explained
    moved = windows.values.copy()
    moved[2, -1] += 0.5
    with pytest.raises(WindowsOfAnotherState, match="d2"):
        explain(policy, seen, PLACES, decisions_of(6),
                windows=Windows(encoder=windows.encoder, values=moved, valid=windows.valid))  # fmt: skip


def test_rows_that_do_not_fit_are_refused():
    policy = policy_of(width(TAPE))
    seen = np.zeros((2, width(TAPE)), np.float32)
    with pytest.raises(ValueError, match="2 observations of 3"):
        explain(policy, seen, PLACES, decisions_of(3))
    with pytest.raises(ValueError, match="columns of their layout"):
        explain(policy, seen[:, :-1], PLACES, decisions_of(2))
    with pytest.raises(ObservationMismatch):
        explain(policy_of(width(TAPE) + 1), seen, PLACES, decisions_of(2))


# Pictures of trades


def bars_around(before: int, after: int) -> pl.DataFrame:
    """Bars of which number `before` ends WHEN."""
    draws, count = np.random.default_rng(1), before + after
    close = 100 * np.exp(np.cumsum(0.002 * draws.standard_normal(count)))
    open_ = close * np.exp(0.001 * draws.standard_normal(count))
    ts = [WHEN + (n - before) * timedelta(minutes=5) for n in range(count)]
    return pl.DataFrame({
        "ts": ts, "known_at": [moment + timedelta(minutes=5) for moment in ts], "open": open_,
        "high": np.maximum(open_, close) * 1.001, "low": np.minimum(open_, close) * 0.999, "close": close,
    })  # fmt: skip


@pytest.fixture(scope="module")
def trade():
    bars = bars_around(40, 60)
    ts, close = bars["ts"], bars["close"]
    return bars, Trade(
        entered=ts[40], entry=close[40], exited=ts[52], exit=close[52], stop=close[40] * 0.98, target=close[40] * 1.03
    )


def test_the_picture_is_small_and_the_same_again(explained, trade):
    found, (bars, made) = explained[3][0], trade
    drawn = trade_picture(found, bars, made)
    assert 3_000 < len(drawn) <= 50_000
    assert Image.open(io.BytesIO(drawn)).size[0] > 300
    assert trade_picture(found, bars, made) == drawn
    assert trade_picture(found, bars, Trade()) != drawn


def test_saliency_stands_under_its_bars_and_nothing_after_the_decision(explained, trade):
    found, (bars, made) = explained[3][0], trade
    figure = trade_figure(found, bars, made, shown=10)
    candles, saliency = figure.data[0], figure.data[-1]
    shown = np.array(saliency.y, float)
    at_decision = list(saliency.x).index(0)
    assert candles.text[at_decision] == f"{WHEN - timedelta(minutes=5):%Y-%m-%d %H:%M}"
    whole = np.array(found.saliency)
    np.testing.assert_allclose(shown[: at_decision + 1], 100 * whole[-10:] / whole.sum(), atol=1e-3)
    assert np.isnan(shown[at_decision + 1 :]).all()
    marks = {each.name: (each.x[0], each.y[0]) for each in figure.data[1:-1] if each.mode != "lines"}
    assert marks == {"entry": (1, made.entry), "exit": (13, made.exit)}
    lines = {each.name: set(each.y) for each in figure.data[1:-1] if each.mode == "lines"}
    assert lines == {"stop": {made.stop}, "target": {made.target}}


def test_the_page_needs_nothing_from_elsewhere(explained, trade):
    page = trade_page(explained[3][0], *trade)
    assert page == trade_page(explained[3][0], *trade)
    assert "src=" not in page.split("<body>")[0]
    assert "ABC at 2024-01-03 06:30 UTC" in page


def test_bars_of_another_time_and_explanations_without_a_window_are_refused(explained, trade):
    policy, seen, _, found = explained
    bars, made = trade
    with pytest.raises(NotTheWindow, match="no bar ends"):
        trade_picture(found[1], bars.head(40), made)
    [plain] = explain(policy, seen[:1], PLACES, decisions_of(1))
    with pytest.raises(NotTheWindow, match="without a window"):
        trade_picture(plain, bars, made)
