"""What the gate asks besides bounds: incumbents' Sharpe and drawdown, ranking, trials, seeds, findings; and luck."""

import json
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest
from test_gate import DAYS, FOLDS, GOOD, criterion, noise, sessions

from odin_core.evaluation.evidence import Criterion, Evidence, GateConfig, Ranking, Verdict
from odin_core.evaluation.gate import deflated, judge, open_questions
from odin_core.evaluation.gate_report import report_json
from odin_core.lifecycle.config import LifeConfig
from odin_core.lifecycle.learning import gate_config

RANKING = Ranking(hit_rate=0.6, random_hit_rate=0.4, precision=0.7, base_rate=0.5, f1=0.55, calibration_error=0.03,
                  brier=0.2)  # fmt: skip
ASKED = GateConfig(sharpe_margin=0.0, drawdown_tolerance=1.0, hit_rate_margin=0.0, precision_margin=0.0,
                   max_calibration_error=0.1, min_deflated_sharpe=0.5, min_seeds=5)  # fmt: skip
WEAK = 0.55 + np.tile([1.0, -1.0], 20)  # about half a standard deviation a session
STEADY = pl.DataFrame({"seed": range(5), "excess": [0.2, 0.3, 0.1, 0.25, 0.15]})
LUCKY = pl.DataFrame({"seed": range(5), "excess": [0.4, -0.1, -0.2, 0.05, -0.3]})


def evidence(candidate=GOOD, **more) -> Evidence:
    frame = more.pop("sessions", None)
    given = {"candidate": "joint-7", "hypothesis": 1, "ranking": RANKING, "seeds": STEADY, **more}
    return Evidence(sessions=sessions(candidate) if frame is None else frame, walk_forward=FOLDS, **given)


def asked(config: GateConfig = ASKED, **more) -> Verdict:
    return judge(evidence(**more), config)


def test_a_candidate_that_meets_everything_is_promoted():
    verdict = asked()
    assert verdict.outcome == "promoted"
    assert [c.name for c in verdict.criteria][-5:] == [
        "hit_rate", "precision_at_top", "calibration", "deflated_sharpe", "seeds",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "unmet"),
    [
        ({"ranking": replace(RANKING, hit_rate=0.39)}, "hit_rate"),
        ({"ranking": replace(RANKING, precision=0.49)}, "precision_at_top"),
        ({"ranking": replace(RANKING, calibration_error=0.11)}, "calibration"),
        ({"sessions": sessions(WEAK), "trials": 100_000}, "deflated_sharpe"),
        ({"seeds": LUCKY}, "seeds"),
        ({"seeds": STEADY.head(4)}, "seeds"),
    ],
    ids=["hit rate", "precision", "calibration", "many trials", "lucky seed", "too few seeds"],
)
def test_one_that_falls_short_in_one_thing_is_not(more, unmet: str):
    verdict = asked(**more)
    assert [c.name for c in verdict.failed] == [unmet]
    assert verdict.outcome == ("insufficient" if unmet == "seeds" and more["seeds"].height < 5 else "refused")


def test_what_is_asked_and_not_known_is_waited_for():
    verdict = asked(ranking=None)
    assert {c.name for c in verdict.failed} == {"hit_rate", "precision_at_top", "calibration"}
    assert verdict.outcome == "insufficient"


def test_seeds_are_asked_last_and_nothing_is_promoted_without_them():
    waiting = asked(seeds=None)
    assert waiting.outcome == "insufficient"
    assert open_questions(waiting)
    refused = asked(seeds=None, sessions=sessions(GOOD, ic=-0.05))
    assert refused.outcome == "refused"
    assert not open_questions(refused)
    assert "seeds" not in [c.name for c in refused.criteria]
    assert not open_questions(asked())


def test_findings_of_level_money_are_asked_last_too_and_each_counts():
    money = replace(ASKED, needs_findings=("robustness", "leak_wall"))
    met = Criterion(name="robustness", value=0.0, relation="<=", explanation="all met")
    broken = Criterion(name="leak_wall", value=2.0, relation="<=", explanation="two failed")
    assert [c.name for c in asked(money).failed] == ["robustness", "leak_wall"]
    assert open_questions(asked(money))
    assert [c.name for c in asked(money, findings={"robustness": (met,)}).failed] == ["leak_wall"]
    both = asked(money, findings={"robustness": (met,), "leak_wall": (broken,)})
    assert (both.outcome, [c.name for c in both.failed]) == ("refused", ["leak_wall"])
    sound = replace(broken, value=0.0)
    assert asked(money, findings={"robustness": (met,), "leak_wall": (sound,)}).outcome == "promoted"


def test_beside_an_incumbent_a_lower_sharpe_ratio_or_a_deeper_drawdown_refuses():
    rng = np.random.default_rng(5)
    incumbent = 0.2 + 0.02 * rng.standard_normal(40)
    wild = 1.5 + 2.0 * rng.standard_normal(40)
    wild[20:24] = -3.0
    verdict = asked(sessions=sessions(wild, incumbent=incumbent), incumbent="joint-3")
    sharpe, drawdown = (criterion(verdict, f"{n}_over_incumbent") for n in ("sharpe", "drawdown"))
    assert sharpe.value == pytest.approx(wild.mean() / wild.std(ddof=1) - incumbent.mean() / incumbent.std(ddof=1))
    assert not sharpe.passed
    assert drawdown.value == pytest.approx(12.0)
    assert not drawdown.passed


def test_an_incumbent_that_never_trades_can_be_replaced():
    verdict = asked(replace(ASKED, drawdown_tolerance=5.0), sessions=sessions(GOOD, incumbent=0.0), incumbent="joint-3")
    assert criterion(verdict, "sharpe_over_incumbent").value == pytest.approx(GOOD.mean() / GOOD.std(ddof=1))
    assert verdict.outcome == "promoted"


def test_an_incumbents_tie_passes_no_worse_but_beats_nothing():
    tie = asked(sessions=sessions(GOOD, incumbent=GOOD), incumbent="joint-3")
    assert criterion(tie, "sharpe_over_incumbent").value == 0.0
    assert [c.name for c in tie.failed] == ["beats_incumbent"]


def test_the_deflated_sharpe_ratio_falls_with_the_number_of_trials_and_needs_a_spread():
    values = [deflated(GOOD, n) for n in (1, 10, 100, 1000)]
    assert values == sorted(values, reverse=True)
    assert np.isnan(deflated(np.ones(30), 5))
    assert np.isnan(deflated(GOOD[:4], 5))
    with_holes = np.concatenate([GOOD, [np.nan]])
    assert deflated(with_holes, 10) == deflated(GOOD, 10)


def test_the_best_of_200_random_strategies_is_refused():
    """An overfitted search: the winner of 200 coin throwers on the very sessions that are shown to the gate."""
    lenient = replace(ASKED, alpha_total=0.9)
    outcomes = {"as the gate is": [], "lenient": [], "lenient, not told of the search": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        strategies = rng.standard_t(4, (200, 60)) / np.sqrt(2)
        frame = sessions(strategies[strategies.mean(axis=1).argmax()], random=0.0, rules=0.0)
        search = {"sessions": frame, "selected_from": 200, "trials": 200}
        outcomes["as the gate is"].append(asked(**search).outcome)
        outcomes["lenient"].append(asked(lenient, **search).outcome)
        outcomes["lenient, not told of the search"].append(asked(lenient, sessions=frame).outcome)
    promoted = {name: said.count("promoted") for name, said in outcomes.items()}
    assert promoted["as the gate is"] == 0
    assert promoted["lenient"] <= 1
    assert promoted["lenient, not told of the search"] > 8, "the search did not overfit, so nothing is shown"


CONTEXTS, TRADED, OWN = 50, 20, 3.0  # contexts and trades a session; a decision's own noise beside a session's of 1


def looks_until_promoted(effect: float, rng: np.random.Generator, config: GateConfig) -> float:
    """A life whose decisions are worth `effect` standard deviations a session more than random and the rules, with its
    confidence as it truly is: the first weekly look at which it is promoted."""
    strength = np.sort(np.abs(rng.standard_normal((120, CONTEXTS))), axis=1)[:, ::-1]
    expected = effect / strength[:, :TRADED].mean() * strength
    shared = np.sqrt(1 - OWN**2 / TRADED)
    rewards = expected + shared * noise(rng)[:, None] + OWN * rng.standard_normal((120, CONTEXTS))
    confidence = NORMAL(expected / np.hypot(shared, OWN))
    candidate, fair = rewards[:, :TRADED].mean(axis=1), expected[:, :TRADED].mean(axis=1)
    frame = sessions(candidate, random=candidate - fair - noise(rng), rules=candidate - fair - noise(rng))
    for look in range(15, 121, 5):
        ranked = _ranking_of(rewards[:look] > 0, confidence[:look])
        if asked(config, sessions=frame[:look], ranking=ranked, trials=look // 5 + 1).outcome == "promoted":
            return look
    return np.inf


def _ranking_of(won: np.ndarray, confidence: np.ndarray) -> Ranking:
    place = (confidence * 10).astype(int).ravel()
    gap = np.bincount(place, won.ravel() - confidence.ravel(), 10)
    error = float(np.abs(gap).sum()) / won.size
    return Ranking(hit_rate=won[:, :TRADED].mean(), random_hit_rate=0.5, precision=won[:, :5].mean(),
                   base_rate=won.mean(), f1=0.5, calibration_error=error, brier=0.25)  # fmt: skip


NORMAL = np.vectorize(NormalDist().cdf)
THE_FOLDS_OWN = gate_config(LifeConfig(), ceiling=0.1)


@pytest.mark.parametrize(
    ("deflated_sharpe", "median"), [(0.5, (30, 50)), (0.95, (35, 55))], ids=["simulation", "money"]
)
def test_a_truly_better_candidate_passes_with_all_criteria_asked(deflated_sharpe: float, median: tuple[int, int]):
    rng = np.random.default_rng(20230102)
    config = replace(THE_FOLDS_OWN, min_deflated_sharpe=deflated_sharpe)
    found = [looks_until_promoted(0.6, rng, config) for _ in range(40)]
    assert np.mean(np.array(found) <= 120) >= 0.92
    assert median[0] <= np.median(found) <= median[1]


def test_with_all_criteria_asked_nothing_passes_that_is_as_good_as_random():
    """40 lives of 22 looks; at an error of 0.025, 5 or more would happen once in 250 such tests."""
    rng = np.random.default_rng(20230102)
    found = [looks_until_promoted(0.0, rng, THE_FOLDS_OWN) for _ in range(40)]
    assert np.sum(np.array(found) <= 120) < 5


def test_the_report_as_json_says_all_of_it_without_nan():
    verdict = asked(trials=26)
    told = json.loads(report_json(verdict, {"session": DAYS[0]}))
    assert told["outcome"] == "promoted"
    assert told["facts"]["trials"] == 26
    assert {c["name"] for c in told["criteria"]} == {c.name for c in verdict.criteria}
    assert all({"value", "threshold", "relation", "passed"} <= c.keys() for c in told["criteria"])
