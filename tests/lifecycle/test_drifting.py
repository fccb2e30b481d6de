"""Drift inside the fold: who raises it, what it halts, what it calls for, and when it demotes."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import polars.testing
import pytest
from loopstates import in_phase
from numpy.typing import NDArray

from odin_core.lifecycle import drifting, fold
from odin_core.lifecycle.config import LifeConfig, with_settings
from odin_core.lifecycle.learning import drift_rows
from odin_core.lifecycle.phases import outlook
from odin_core.lifecycle.state import Day, LoopState
from odin_core.monitoring.reference import fit_reference, to_json
from odin_core.policies.actions import ACTIONS, FLAT, FloatArray
from odin_core.training.window import SessionContexts

NAMES = ("steady", "shifting", "volume")
TRAINED, SYMBOLS = 80, 30
FIRST = date(2023, 1, 2)
CONFIG = LifeConfig()


class Model:
    """A champion whose score is its first feature."""

    def score(self, X: NDArray[np.float32]) -> FloatArray:
        return X[:, 0].astype(np.float64)


def contexts(day: int, shift: float = 0.0) -> SessionContexts:
    """One session: symbols with a common factor; from `shift` on, in standard deviations, one feature has moved."""
    rng = np.random.default_rng([7, day])
    X = (0.5 * rng.standard_normal(len(NAMES)) + rng.standard_normal((SYMBOLS, len(NAMES)))).astype(np.float32)
    X[:, 1] += shift
    rewards = rng.standard_normal((SYMBOLS, ACTIONS)).astype(np.float32)
    return SessionContexts(FIRST + timedelta(days=day), NAMES, X, rewards, np.full(SYMBOLS, FLAT), ())


def state_at(day: int, moved_at: int, shift: float = 4.0, **fields) -> LoopState:
    """Phase 2 after session `day`; the champion learned from the first TRAINED sessions."""
    window = tuple(contexts(d, shift if d >= moved_at else 0.0) for d in range(day + 1))
    learned = window[:TRAINED]
    X, rewards = np.concatenate([s.features for s in learned]), np.concatenate([s.rewards for s in learned])
    reference = fit_reference(
        drift_rows(X, Model().score(X), rewards),
        (*NAMES, "score", "outcome"),
        ("feature",) * 3 + ("prediction", "label"),
        np.repeat(np.arange(TRAINED), SYMBOLS),
        seed=1,
        window_sessions=CONFIG.drift.window_sessions,
    )
    known = {"session": window[-1].session, "window": window, "references": {"joint-0": reference}}
    return in_phase(2, Model(), **(known | fields))


def watched(days: range, moved_at: int, config: LifeConfig = CONFIG, phase: int = 2) -> list[drifting.Watch]:
    """One watch after another, the state carried on."""
    done: list[drifting.Watch] = []
    for day in days:
        state = replace(state_at(day, moved_at), phase=phase)
        if done:
            before = done[-1].state
            state = replace(state, drift_alarms=before.drift_alarms, drift_retrained=before.drift_retrained)
        done.append(drifting.watch(state, config))
    return done


@pytest.fixture(scope="module")
def moved() -> list[drifting.Watch]:
    return watched(range(TRAINED + 15, TRAINED + 60), TRAINED + 20)


def test_a_market_that_stays_what_it_was_raises_nothing():
    done = watched(range(TRAINED, TRAINED + 40), 10_000)
    assert sum(w.state.drift_alarms > 0 for w in done) == 0
    assert [w.call for w in done if w.call] == []
    scores = [w.facts["drift_score"] for w in done]
    assert all(isinstance(s, float) and 0 < s < 1 for s in scores)


def test_the_feature_that_moved_is_the_one_that_is_named(moved: list[drifting.Watch]):
    last = moved[-1]
    assert last.table is not None
    alarmed = last.table.filter("alarm")["subject"].to_list()
    assert alarmed == ["shifting"]
    assert last.facts["drift_subject"] == "shifting"
    assert last.table["version"].unique().to_list() == ["joint-0"]
    assert set(last.table["subject"]) == {*NAMES, "score", "outcome"}


def test_two_alarms_in_a_row_halt_entries_and_call_for_one_retrain_until_the_cooldown_is_over(
    moved: list[drifting.Watch],
):
    alarms = [w.state.drift_alarms for w in moved]
    first = alarms.index(1)
    assert alarms[first:] == list(range(1, len(alarms) - first + 1)), "an alarm of this size does not come and go"
    halted = [drifting.halts(w.state, CONFIG.drift) for w in moved]
    assert halted.index(True) == first + 1
    calls = [i for i, w in enumerate(moved) if w.call]
    assert calls[0] == first + 1
    assert len(calls) > 1
    assert np.diff(calls).tolist() == [CONFIG.drift.cooldown_sessions + 1] * (len(calls) - 1)
    assert "shifting" in str(moved[calls[0]].call)


@pytest.mark.parametrize(("lookback", "cooldown", "apart"), [(25, 10, 11), (22, 60, 22)], ids=["longer", "shorter"])
def test_a_look_back_shorter_than_the_cooldown_does_not_make_it_endless(lookback: int, cooldown: int, apart: int):
    config = with_settings(CONFIG, [f"drift.cooldown_sessions={cooldown}", f"learner.lookback_sessions={lookback}"])
    calls, retrained = [], None
    whole = state_at(TRAINED + 80, TRAINED)
    for day in range(TRAINED + 22, TRAINED + 80):
        window = whole.window[: day + 1][-lookback:]
        state = replace(whole, window=window, session=window[-1].session, drift_alarms=5, drift_retrained=retrained)
        watch = drifting.watch(state, config)
        calls += [day] if watch.call else []
        retrained = watch.state.drift_retrained
    assert len(calls) > 1
    assert set(np.diff(calls).tolist()) == {apart}


def test_before_the_model_decides_drift_is_measured_and_halts_nothing():
    done = watched(range(TRAINED + 30, TRAINED + 45), TRAINED, phase=1)
    assert done[-1].state.drift_alarms >= 2
    assert not drifting.halts(done[-1].state, CONFIG.drift)
    assert all(w.call is None for w in done)


def test_a_long_row_of_alarms_demotes(moved: list[drifting.Watch]):
    state = moved[-1].state
    short = with_settings(CONFIG, [f"drift.demote_after={state.drift_alarms}"])
    assert outlook(state, short, filtered=20).phase == 1
    assert "drifted" in outlook(state, short, filtered=20).reason
    longer = with_settings(CONFIG, [f"drift.demote_after={state.drift_alarms + 1}"])
    assert outlook(state, longer, filtered=20).phase == 2


@pytest.mark.parametrize("fields", [{"references": {}}, {"session": FIRST}, {"window": ()}])
def test_without_anything_to_compare_nothing_is_measured_and_the_alarms_stay(fields):
    watch = drifting.watch(replace(state_at(TRAINED, 10_000), drift_alarms=3, **fields), CONFIG)
    assert (watch.table, watch.facts, watch.call) == (None, {}, None)
    assert watch.state.drift_alarms == 3


@pytest.mark.parametrize("event", ["by_person", "promoted"])
@pytest.mark.parametrize("known", [True, False], ids=["with reference", "made before drift was watched"])
def test_a_champion_from_outside_starts_without_alarms_and_is_watched_where_it_has_a_reference(known: bool, event: str):
    state = replace(state_at(TRAINED + 30, TRAINED), drift_alarms=7, trials=3)
    reference = to_json(state.references["joint-0"]) if known else None
    model = Model()
    model.trained_through = FIRST  # pyright: ignore[reportAttributeAccessIssue]
    promotion = {"event": event, "version": "joint-1", "model": model, "reference": reference, "why": "a test"}
    tomorrow = FIRST + timedelta(days=TRAINED + 31)
    day = Day(session=state.session, opens=None, minutes=375, next_session=tomorrow, ends_week=False,  # pyright: ignore
              bars=pl.DataFrame(), features=pl.DataFrame(), promotions=(promotion,))  # fmt: skip
    tables: dict[str, pl.DataFrame] = {}
    after = fold._take_up_promotions(state, day, tables)
    assert (after.champion, after.champion_since, after.drift_alarms) == ("joint-1", tomorrow, 0)
    assert (after.hypothesis, after.trials) == (state.hypothesis + 1, 3 + (event == "promoted"))
    assert ("joint-1" in after.references) is known
    assert (drifting.watch(after, CONFIG).table is not None) is known
    assert tables["registry_history"]["champion_before"].to_list() == ["joint-0"]


def test_what_is_measured_does_not_depend_on_sessions_after_it():
    now = drifting.watch(state_at(TRAINED + 30, TRAINED + 20), CONFIG)
    later = state_at(TRAINED + 31, TRAINED + 20)
    cut = drifting.watch(replace(later, window=later.window[:-1], session=later.window[-2].session), CONFIG)
    assert now.table is not None
    assert cut.table is not None
    pl.testing.assert_frame_equal(now.table, cut.table)
