"""The wall around a market: its own bars, the engine's own way, a feature that leaks on purpose among honest ones."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from smalllives import quick, small_market

from odin_core.features import catalogue
from odin_core.features.catalogue import DEFINITIONS, feature
from odin_core.features.series import Bars, FloatArray, Runs
from odin_core.home import open_home
from odin_core.labels import grids
from odin_core.leaks import joint_learner
from odin_core.leaks.wall import TooLittleForTheWall, wall_around_features, wall_around_labels
from odin_core.lifecycle.config import LearnerConfig
from odin_core.market.data import MarketData

LAST = date(2022, 11, 30)
CHECKS = {"truncate_and_recompute", "future_perturbation", "stamp_shift", "lag_sensitivity"}
TOGETHER = {"shuffled_labels", "cheat_feature"}
FIT = joint_learner(LearnerConfig(trees=20, leaves=7), 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MarketData:
    return small_market(open_home(tmp_path_factory.mktemp("wall")), quick())


@pytest.fixture
def with_a_leak(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A set of three features, one of which knows the change to the bar after the next twelve."""

    @feature(intervals=("5m",), unit="fraction", source="a leak, on purpose", warm_up=lambda bars: 0, mirror=0.0)
    def knowing(bars: Bars, runs: Runs, ahead: int = 12) -> FloatArray:
        """The change of the next `ahead` bars."""
        out = np.full(len(bars), np.nan)
        for first, end in zip(runs.first, runs.end, strict=True):
            out[first : end - ahead] = bars.log_close[first + ahead : end] - bars.log_close[first : end - ahead]
        return out

    monkeypatch.setitem(catalogue.SELECTIONS, "leaky", ("rsi_14_5m", "knowing_12_5m", "simple_return_18_5m"))
    yield "knowing_12_5m"
    DEFINITIONS.pop("knowing")
    catalogue.named.cache_clear()


def test_what_a_life_decides_on_passes_every_check(data: MarketData):
    wall = wall_around_features(data, "decision", LAST, fit=FIT, sessions=12, symbols=3)
    assert wall.left_out == []
    assert {v.check for v in wall.verdicts} == CHECKS | TOGETHER
    names = [f.name for f in catalogue.features_of("decision")]
    for check in CHECKS:
        assert [v.subject for v in wall.verdicts if v.check == check] == names
    assert [v for v in wall.verdicts if not v.passed] == []


def test_every_label_passes(data: MarketData):
    verdicts = wall_around_labels(data, LAST, symbols=3)
    assert {"return_3m", "return_60_bars", "triple_barrier_60m", "triple_barrier_5_sessions"} <= {
        v.subject for v in verdicts
    }
    assert [v for v in verdicts if not v.passed] == []
    assert all(v.numbers["defined"] > 0 for v in verdicts if v.subject.startswith(("return", "triple")))


def test_a_leaky_feature_is_caught_by_every_check_and_the_others_are_not(data: MarketData, with_a_leak: str):
    wall = wall_around_features(data, "leaky", LAST, fit=FIT, sessions=12, symbols=3)
    failed = {(v.check, v.subject) for v in wall.verdicts if not v.passed}
    assert failed == {(check, with_a_leak) for check in CHECKS} | {
        (check, "rsi_14_5m, knowing_12_5m, simple_return_18_5m") for check in TOGETHER
    }


def test_a_label_that_claims_to_be_known_early_is_caught(data: MarketData, monkeypatch: pytest.MonkeyPatch):
    honest = grids.labels_of

    def early(*args, **kwargs):
        found = honest(*args, **kwargs)
        return found.with_columns(found["label_end"].dt.offset_by("-2m").alias("label_end"))

    monkeypatch.setattr("odin_core.leaks.wall.labels_of", early)
    failed = {v.subject for v in wall_around_labels(data, LAST, symbols=3) if not v.passed}
    assert {"return_3m", "return_15m", "triple_barrier_60m"} <= failed


def test_a_feature_that_needs_more_sessions_than_there_are_is_left_out_and_named(data: MarketData):
    wall = wall_around_features(data, "price_action", date(2022, 11, 18), fit=FIT, sessions=5, symbols=2)
    assert wall.left_out == ["log_return_60_day", "volatility_ratio_12_60_day"]
    assert wall.left_out[0] not in {v.subject for v in wall.verdicts}


def test_a_market_with_too_few_sessions_is_refused_in_a_sentence(tmp_path: Path):
    young = small_market(open_home(tmp_path), quick())
    with pytest.raises(TooLittleForTheWall, match="demo has 4 sessions of minute bars and the leak wall needs 20"):
        wall_around_features(young, "decision", date(2022, 10, 7), fit=FIT)
