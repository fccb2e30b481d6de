"""Drift in one feature of a real market: exactly that alarm, entries halted, and one retrain that a sensor asks for.

Twelve symbols of NSE in 2015, minute by minute; features as a life gets them. One of them moves by three standard
deviations from a session on, as after a change of a vendor's conventions."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from odin_assets.build import build_definitions
from odin_assets.resources import OdinHome
from odin_core.features.catalogue import features_of
from odin_core.features.decision import SET
from odin_core.home import open_home
from odin_core.lifecycle import drifting
from odin_core.lifecycle.config import LifeConfig
from odin_core.lifecycle.learning import drift_rows
from odin_core.lifecycle.state import LoopState
from odin_core.market.data import MarketData
from odin_core.market.intake.importing import import_files
from odin_core.monitoring.reference import Reference, fit_reference
from odin_core.policies.actions import ACTIONS, FLAT, FloatArray
from odin_core.training.window import SessionContexts

CONFIG = LifeConfig()
TRAINED, QUIET, MOVED = 100, 20, 16  # sessions that the champion learned from, then as they were, then with the shift
DEVIATIONS = 3.0
VERSION = "joint-0"
NAMES = tuple(feature.name for feature in features_of(SET))


class Model:
    """A champion whose score is the session's gap, which is never moved here."""

    def score(self, X: NDArray[np.float32]) -> FloatArray:
        return X[:, NAMES.index("gap_day")].astype(np.float64)


@pytest.fixture(scope="module")
def recorded(
    market_file: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[SessionContexts, ...]:
    """The newest sessions of the file."""
    home = open_home(tmp_path_factory.mktemp("nse") / "home")
    data = MarketData.of(home, "nse", CONFIG)
    import_files([market_file("nse_equity_1m_2015.parquet")], lake=data.lake, calendar=data.calendar)
    return tuple(contexts(session, data) for session in data.sessions()[-TRAINED - QUIET - MOVED :])


def contexts(session: date, data: MarketData) -> SessionContexts:
    X = data.decision_rows(session).sort("symbol").select(NAMES).to_numpy().astype(np.float32)
    rewards = np.random.default_rng(session.toordinal()).standard_normal((len(X), ACTIONS)).astype(np.float32)
    return SessionContexts(session, NAMES, X, rewards, np.full(len(X), FLAT), ())


@pytest.fixture(scope="module")
def reference(recorded: tuple[SessionContexts, ...]) -> Reference:
    learned = recorded[:TRAINED]
    X = np.concatenate([s.features for s in learned])
    values = drift_rows(X, Model().score(X), np.concatenate([s.rewards for s in learned]))
    kinds = ("feature",) * len(NAMES) + ("prediction", "label")
    session = np.repeat(np.arange(TRAINED), [len(s.features) for s in learned])
    return fit_reference(values, (*NAMES, "score", "outcome"), kinds, session, seed=7,
                         window_sessions=CONFIG.drift.window_sessions)  # fmt: skip


class Story(NamedTuple):
    watches: list[drifting.Watch]

    @property
    def alarmed(self) -> set[str]:
        tables = [watch.table.filter("alarm")["subject"] for watch in self.watches if watch.table is not None]
        return set(pl.concat(tables))

    @property
    def calls(self) -> dict[date, str]:
        return {watch.state.session: watch.call for watch in self.watches if watch.call and watch.state.session}


def watched(recorded: tuple[SessionContexts, ...], reference: Reference, feature: str | None) -> Story:
    """Every session after the training, each with the state that the one before left."""
    window = moved(recorded, feature) if feature else recorded
    champion: Any = Model()
    state = replace(LoopState(), phase=2, champion=VERSION, models={VERSION: champion}, references={VERSION: reference})
    done: list[drifting.Watch] = []
    for end in range(TRAINED + 1, len(window) + 1):
        state = replace(state, session=window[end - 1].session, window=window[:end])
        done.append(drifting.watch(state, CONFIG))
        state = done[-1].state
    return Story(done)


def moved(recorded: tuple[SessionContexts, ...], feature: str) -> tuple[SessionContexts, ...]:
    column = NAMES.index(feature)
    shift = DEVIATIONS * np.nanstd(np.concatenate([s.features[:, column] for s in recorded[:TRAINED]]))
    changed = []
    for contexts in recorded[TRAINED + QUIET :]:
        features = contexts.features.copy()
        features[:, column] += shift
        changed.append(replace(contexts, features=features))
    return (*recorded[: TRAINED + QUIET], *changed)


def test_a_real_market_as_it_was_raises_nothing_for_months(recorded, reference):
    story = watched(recorded, reference, None)
    assert story.alarmed == set()
    assert [watch.state.drift_alarms for watch in story.watches] == [0] * (QUIET + MOVED)
    assert all(watch.facts["drift_score"] is not None for watch in story.watches)


@pytest.mark.parametrize("feature", ["rsi_14_15m", "volume_z_18_75_5m"])
def test_one_feature_that_moves_is_the_one_alarm_and_leads_to_one_retrain(recorded, reference, feature: str):
    story = watched(recorded, reference, feature)
    assert story.alarmed == {feature}
    in_a_row = [watch.state.drift_alarms for watch in story.watches]
    first = in_a_row.index(1)
    assert first >= QUIET
    assert in_a_row[first:] == list(range(1, len(in_a_row) - first + 1))
    halted = [drifting.halts(watch.state, CONFIG.drift) for watch in story.watches]
    assert halted.index(True) == first + 1
    ((session, why),) = story.calls.items()
    assert session == recorded[TRAINED + first + 1].session
    assert feature in why
    requests = asked_for(story)
    assert [request.job_name for request in requests] == ["nse_retrain", "nse_drift_page"]
    assert requests[0].run_config["ops"]["nse_retrain_live"]["config"] == {"life": "recorded", "why": why}


def asked_for(story: Story) -> list[Any]:
    """What the sensor asks for when every session has been told to Dagster, as the loop tells it of a live life."""
    repository = build_definitions(["nse"]).get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        for watch in story.watches:
            facts = {"life": "recorded", "live": True, "phase": 2, "phase_before": 2, "reason": "it stays"}
            told = facts | ({"retrain_because": watch.call} if watch.call else {})
            key = dg.AssetKey(["nse", "phase_state"])
            instance.report_runless_asset_event(
                dg.AssetMaterialization(key, partition=str(watch.state.session), metadata=told)
            )
        requests, cursor = [], None
        for _ in range(3):
            context = dg.build_sensor_context(
                instance=instance, cursor=cursor, repository_def=repository, sensor_name="nse_drift_and_drawdown",
                resources={"odin": OdinHome(path="unused")},
            )  # fmt: skip
            ticked = repository.get_sensor_def("nse_drift_and_drawdown").evaluate_tick(context)
            requests, cursor = [*requests, *ticked.run_requests], ticked.cursor
        return requests
