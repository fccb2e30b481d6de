"""What must never be promoted, shown on the learner, the scoring and the gate together: labels that were shuffled, a
feature that knows tomorrow, the best of many strategies, a lucky seed, and level `money` without its findings.

The market is by hand: twenty contexts a session, one feature that tells part of what each will do, costs. Beside each
refusal stands what passes, so that it is the fault alone that is refused."""

import json
import shutil
import zlib
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from smalllives import CLIMBING, begin, clock, plain_edge, quick, run_to

from odin_core.evaluation.evidence import Criterion, Evidence, GateConfig
from odin_core.evaluation.gate import judge
from odin_core.evaluation.sensitivity import seed_spread
from odin_core.lake import write_parquet
from odin_core.leaks.kept import VERSION, keep_wall, wall_file
from odin_core.leaks.learning import joint_learner, sample_of_window, shuffled_labels
from odin_core.leaks.verdict import to_frame
from odin_core.lifecycle import learning, portfolio_evidence
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig, with_settings
from odin_core.lifecycle.fold import INPUTS
from odin_core.lifecycle.learning import Findings, Trial, try_candidate
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.live import retrain_live
from odin_core.lifecycle.portfolio_evidence import examined_version, portfolio_findings
from odin_core.lifecycle.scoring import score_sessions
from odin_core.lifecycle.state import LoopState
from odin_core.lifecycle.summary import phase_table
from odin_core.market.data import MarketData
from odin_core.policies.actions import ACTIONS, FLAT, FloatArray, Proposals
from odin_core.policies.joint import _mirror_of
from odin_core.training.window import SessionContexts, TrainingWindow

NAMES = tuple(name for name in INPUTS if _mirror_of(name) == 0.0)[:4]  # what turns its sign with prices upside down
SYMBOLS, MONDAY = 20, date(2024, 1, 1)
CONFIG = quick("learner.trees=15", "learner.lookback_sessions=30", "learner.min_sessions=10")
CEILING = 0.6
BOUNDS_ONLY = GateConfig(ic_floor=-2.0, ic_ceiling=2.0, walk_forward_min_share=0.0)


@dataclass(frozen=True)
class Market:
    """`edge`: what one standard deviation of the first feature is worth; `leak`: the share of the outcome itself in the
    last feature; `shuffled`: outcomes of a session go to its contexts by lot."""

    edge: float = 0.0
    leak: float = 0.0
    shuffled: bool = False
    seed: int = 1
    cost: float = 0.1

    def session(self, day: int) -> SessionContexts:
        rng = np.random.default_rng([self.seed, day])
        X = rng.standard_normal((SYMBOLS, len(NAMES)))
        move = self.edge * X[:, 0] + 0.3 * rng.standard_normal() + rng.standard_normal(SYMBOLS)
        if self.shuffled:
            move = rng.permutation(move)
        if self.leak:
            X[:, -1] = self.leak * move + (1 - self.leak) * X[:, -1]
        side = np.repeat([1.0, -1.0], ACTIONS // 2)
        rewards = move[:, None] * side - self.cost + 0.05 * rng.standard_normal((SYMBOLS, ACTIONS))
        when = MONDAY + timedelta(days=7 * (day // 5) + day % 5)
        return SessionContexts(when, NAMES, X.astype(np.float32), rewards.astype(np.float32),
                               np.full(SYMBOLS, FLAT), ())  # fmt: skip


@dataclass
class Weeks:
    """Weekly looks of the fold's own trial. Nobody is put in charge, so that all are looks at the first hypothesis."""

    state: LoopState
    trials: list[Trial]

    @property
    def outcomes(self) -> list[str]:
        return [trial.outcome for trial in self.trials]

    def failed(self) -> list[set[str]]:
        """By week in which something was judged."""
        return [{c.name for c in t.judged.verdict.failed} for t in self.trials if t.judged]


def weeks(market: Market, count: int = 26, config: LifeConfig = CONFIG, ceiling: float = CEILING,
          findings: Findings | None = None) -> Weeks:  # fmt: skip
    done = Weeks(LoopState(), [])
    for week in range(count):
        for day in range(5 * week, 5 * week + 5):
            window = (*done.state.window, market.session(day))[-config.learner.lookback_sessions :]
            done.state = replace(done.state, window=window, session=window[-1].session)
        trial = try_candidate(done.state, config, ceiling, findings)
        done.trials.append(trial)
        done.state = trial.state
        if trial.judged:
            done.state = learning._with_candidate(trial.state, trial.judged, None, config)
        if trial.outcome == "promoted":
            break
    return done


@cache
def with_an_edge() -> Weeks:
    return weeks(Market(edge=0.5))


def test_an_edge_that_is_there_is_promoted():
    found = with_an_edge()
    assert found.outcomes[-1] == "promoted"
    assert len(found.trials) < 15


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shuffled_labels_are_refused_by_the_bounds_alone(seed: int):
    """Half a year of weekly looks on a market whose edge is as strong as the one that is found above."""
    found = weeks(Market(edge=0.5, shuffled=True, seed=seed))
    assert len(found.trials) == 26
    assert "promoted" not in found.outcomes
    assert found.outcomes[-1] == "refused"
    judged = [trial.judged for trial in found.trials if trial.judged]
    assert all(judge(one.evidence, BOUNDS_ONLY).outcome != "promoted" for one in judged)
    assert all({"beats_random", "profitable"} & names for names in found.failed())


@pytest.mark.parametrize("ceiling", [0.1, 0.6], ids=["real market", "planted edge"])
def test_a_feature_that_knows_tomorrow_is_refused_by_the_ceiling_and_nothing_else(ceiling: float):
    """Its rewards are out of sample, and everything that measures rewards likes it."""
    found = weeks(Market(leak=0.9), ceiling=ceiling)
    assert "promoted" not in found.outcomes
    assert found.outcomes[-1] == "refused"
    assert found.failed()[-1] == {"no_leak"}
    assert weeks(Market(leak=0.9), ceiling=1.0).outcomes[-1] == "promoted", "the leak was of no use"


@cache
def leak_wall_of(market: Market) -> pl.DataFrame:
    """What the leak wall's learner says of the market's contexts."""
    sample = sample_of_window(TrainingWindow([market.session(day) for day in range(60)]))
    fit = joint_learner(CONFIG.learner, seed=0)
    return to_frame([shuffled_labels(fit, sample, np.random.default_rng(0), alarm=CEILING)])


def test_at_level_money_the_leak_wall_refuses_it_even_where_the_ceiling_does_not(tmp_path: Path):
    money = with_settings(CONFIG, ["promotion.level=money"])
    life, data = begin(tmp_path / "home", quick("live=true"))
    sound = Criterion(name="robustness", value=0.0, relation="<=", explanation="all met")

    def findings():
        return {**portfolio_findings(life, data), "robustness": (sound,)}

    outcomes = {}
    for name, market in {"leak": Market(leak=0.9), "edge": Market(edge=0.5)}.items():
        keep_wall(life.home, life.market, leak_wall_of(market))
        found = weeks(market, config=money, ceiling=1.0, findings=findings)
        outcomes[name] = (found.outcomes[-1], found.failed()[-1])
    assert outcomes == {"leak": ("refused", {"leak_wall"}), "edge": ("promoted", set())}


@pytest.mark.parametrize("wall", ["absent", "empty", "not known", "around other features"])
def test_a_leak_wall_that_says_nothing_does_not_stand(tmp_path: Path, wall: str):
    life, data = begin(tmp_path / "home", quick("live=true"))
    frame = leak_wall_of(Market())
    frames = {"empty": frame.clear(), "not known": frame.with_columns(passed=pl.lit(None, pl.Boolean))}
    if wall in frames:
        keep_wall(life.home, life.market, frames[wall])
    elif wall == "around other features":
        write_parquet(frame, wall_file(life.home, life.market), {VERSION: "another"})
    found = portfolio_findings(life, data)
    assert found["robustness"] == ()
    assert not all(c.passed for c in found["leak_wall"]) or found["leak_wall"] == ()


def test_level_money_never_promotes_without_its_findings():
    found = weeks(Market(edge=0.5), 14, config=with_settings(CONFIG, ["promotion.level=money"]))
    assert "promoted" not in found.outcomes
    assert found.outcomes[-1] == "insufficient"
    assert found.failed()[-1] == {"robustness", "leak_wall"}


class Guess:
    """A strategy drawn by lot, session by session: the same context always gets the same side, and it always trades."""

    name = "joint"

    def __init__(self, seed: int, through: date) -> None:
        self.seed, self.trained_through = seed, through

    def score(self, X: np.ndarray) -> FloatArray:
        return np.random.default_rng([self.seed, zlib.crc32(X.tobytes())]).standard_normal(len(X))

    def propose(self, X: np.ndarray) -> Proposals:
        score = self.score(X)
        lean = np.where(score > 0, 0, ACTIONS // 2)
        return Proposals(lean, lean, np.full(len(X), 0.5), score)


def shown(model: Guess, sessions: list[SessionContexts]) -> pl.DataFrame:
    """What the gate is shown of it: the fold's own scores as the columns of an `Evidence`."""
    state = replace(LoopState(), window=tuple(sessions), candidates=("guess",), models={"guess": model})  # pyright: ignore[reportArgumentType]
    scores = score_sessions(state, LifeConfig())
    return scores.select("session", "decisions", candidate="reward", random="random", rules="rules",
                         incumbent=pl.lit(None, pl.Float64), ic="ic")  # fmt: skip


def earned(model: Guess, sessions: list[SessionContexts]) -> float:
    every = np.arange(SYMBOLS)
    return float(np.mean([s.rewards[every, model.propose(s.features).action].mean() for s in sessions]))


def test_the_best_of_200_strategies_is_refused_on_the_sessions_after_and_where_the_search_is_told():
    before = MONDAY - timedelta(days=1)
    folds = pl.DataFrame({"fold": [0], "decisions": [50], "candidate": [1.0], "random": [0.0]})
    lenient = replace(BOUNDS_ONLY, alpha_total=0.3)
    outcomes: dict[str, list[str]] = {"on the sessions searched": [], "search told": [], "on later sessions": []}
    for seed in range(5):
        market = Market(cost=0.0, seed=100 + seed)
        searched, later = ([market.session(day) for day in days] for days in (range(40), range(40, 100)))
        which = max(range(200), key=lambda i: earned(Guess(i, before), searched))
        best = shown(Guess(which, before), searched)
        assert best["candidate"].mean() == pytest.approx(earned(Guess(which, before), searched), abs=1e-6)
        after = shown(Guess(which, searched[-1].session), searched + later)
        assert after["session"].min() == later[0].session
        for name, frame, searches in (
            ("on the sessions searched", best, 1),
            ("search told", best, 200),
            ("on later sessions", after, 1),
        ):
            gain = frame.with_columns(rules=pl.col("random"))
            evidence = Evidence(candidate="g", hypothesis=1, sessions=gain, walk_forward=folds, selected_from=searches)
            outcomes[name].append(judge(evidence, lenient).outcome)
    promoted = {name: said.count("promoted") for name, said in outcomes.items()}
    assert promoted["on the sessions searched"] >= 3, "the search did not overfit, so nothing is shown"
    assert promoted["search told"] == promoted["on later sessions"] == 0


LUCKY_MARKET = 2  # of noise, where a quarter of the seeds comes out above random


def test_a_lucky_seed_is_refused_by_the_others():
    """On noise, the best of many seeds has a walk-forward above random; everything else is taken from a market with an
    edge, so that only the other seeds can speak against it."""
    config = with_settings(CONFIG, ["learner.trees=30"])
    window = TrainingWindow([Market(seed=LUCKY_MARKET).session(day) for day in range(30)])
    spread = seed_spread(window, config.learner, range(24))
    lucky = int(spread.sort("excess")["seed"][-1])
    assert (spread["excess"] > 0).any()
    told = with_an_edge().trials[-1].judged
    assert told is not None
    gate = learning.gate_config(config, CEILING)
    seeds = seed_spread(window, config.learner, [lucky + i for i in range(gate.min_seeds)])
    assert seeds["excess"][0] == spread["excess"].max()
    believed = judge(replace(told.evidence, seeds=None), replace(gate, min_seeds=0))
    verdict = judge(replace(told.evidence, seeds=seeds), gate)
    assert (believed.outcome, verdict.outcome) == ("promoted", "refused")
    assert [c.name for c in verdict.failed] == ["seeds"]


def test_the_fold_itself_asks_five_seeds_of_whatever_meets_the_rest():
    told = with_an_edge().trials[-1].judged
    assert told is not None
    assert told.evidence.seeds is not None
    seeds = [CONFIG.seed + i for i in range(5)]
    assert told.evidence.seeds["seed"].to_list() == seeds
    assert (told.evidence.seeds["excess"] > 0).all()


FRIDAY = date(2023, 2, 3)


@pytest.fixture(scope="module")
def at_money(tmp_path_factory: pytest.TempPathFactory) -> tuple[Life, MarketData]:
    """A live life whose candidates meet everything that the fold can measure."""
    config = quick(*CLIMBING, "live=true", "promotion.level=money")
    life, data = begin(tmp_path_factory.mktemp("money") / "home", config, edit=plain_edge())
    run_to(life, data, FRIDAY)
    return life, data


def test_at_level_money_the_fold_promotes_nobody_and_calls_for_the_examination(at_money: tuple[Life, MarketData]):
    states = phase_table(at_money[0])
    assert states["champion"].null_count() == states.height
    called = states.filter(pl.col("retrain_because").is_not_null())
    assert called["session"].to_list() == [date(2023, 1, 20), date(2023, 1, 27), FRIDAY]
    assert set(called["retrain_because"]) == {"the gate asks for robustness, leak_wall"}


def test_examined_is_the_newest_version_that_has_sessions_enough_else_the_oldest(
    at_money: tuple[Life, MarketData], monkeypatch: pytest.MonkeyPatch
):
    life, _ = at_money
    tried = life.read_many("registry_history", life.sessions_with("registry_history")).sort("trained_through")
    after = [sum(s > through for s in life.commits()) for through in tried["trained_through"]]
    assert after == [19, 14, 9, 5, 0]
    for needed, place in ((20, 0), (19, 0), (14, 1), (10, 1), (9, 2), (0, 4)):
        monkeypatch.setattr(portfolio_evidence, "SESSIONS", needed)
        assert examined_version(life) == tried["version"][place], needed


@pytest.mark.parametrize(
    ("wall", "outcome"),
    [(None, "insufficient: leak_wall –, needs ≤ 0"), (0.9, "refused: leak_wall 1, needs ≤ 0"), (0.0, "promoted")],
    ids=["no leak wall", "a leak", "sound"],
)
def test_a_live_retrain_at_level_money_examines_the_lineage_and_asks_the_leak_wall(
    at_money: tuple[Life, MarketData], tmp_path: Path, wall: float | None, outcome: str
):
    shutil.copytree(at_money[0].home.root, tmp_path / "home")
    home = lives.Home(tmp_path / "home")
    life = lives.load(home, at_money[0].id)
    data = MarketData(home.lake(at_money[1].lake.root.name), at_money[1].profile)
    if wall is not None:
        keep_wall(home, life.market, leak_wall_of(Market(leak=wall)))
    said = retrain_live(life, data, why="the gate asks", clock=clock)
    assert outcome in said
    (page,) = life.reports.glob("retrain-*.json")
    criteria = {c["name"]: c for c in json.loads(page.read_text())["criteria"]}
    assert criteria["robustness"]["passed"]
    assert f"of 13 about {examined_version(life)}, 19 sessions: all met" in criteria["robustness"]["explanation"]
    assert criteria["deflated_sharpe"]["threshold"] == 0.95
    assert len(life.registry.log(source="outside")) == (outcome == "promoted")
    keep_wall(home, life.market, leak_wall_of(Market(leak=0.0)))
    again = retrain_live(life, data, why="the wall stands now", clock=clock)
    assert again.startswith("done before") == (wall is not None), "only what lacked findings is judged again"
    assert wall is not None or "promoted from session" in again
