"""The week's end: what is learned from, what is scored on, who wins a tie, and that noise is never promoted."""

from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from loopstates import TOMORROW, in_phase
from smalllives import CLIMBED, CLIMBING, begin, climbed, quick, run_to

from odin_core.lake import logical_hash
from odin_core.lifecycle import learning
from odin_core.lifecycle.config import LifeConfig, with_settings
from odin_core.lifecycle.fold import INPUTS
from odin_core.lifecycle.learning import retrain, try_candidate
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.run import loop_rules, restore
from odin_core.lifecycle.scoring import BINS, ranking_of, score_sessions
from odin_core.lifecycle.state import SCORES, Day, LoopState
from odin_core.lifecycle.summary import phase_table
from odin_core.lifecycle.weeks import week_record
from odin_core.policies.actions import ACTIONS, FLAT, FloatArray, Proposals
from odin_core.registry.history import history
from odin_core.training.window import SessionContexts

WEEK_ENDS = [date(2023, 1, 6), date(2023, 1, 13), date(2023, 1, 20), date(2023, 1, 27), date(2023, 2, 3)]


@pytest.fixture(scope="module")
def life() -> Life:
    return climbed()[0]


def test_a_manifest_lists_every_file_of_the_look_back_with_its_hash(life: Life):
    data = climbed()[1]
    for end in WEEK_ENDS:
        manifest = life.read("training_dataset", end)
        sessions = [s for s in life.commits() if s <= end]
        assert manifest.select("table", "session").sort("session", "table").rows() == [
            (table, s) for s in sessions for table in ("action_outcomes", "features", "replay_buffer")
        ]
        for row in manifest.iter_rows(named=True):
            commit, decided = life.committed(row["session"]), data.calendar.previous(row["session"])
            assert commit is not None
            if row["table"] == "features":  # of the symbols that were decided on, at the close before
                symbols = life.read("action_outcomes", row["session"])["symbol"]
                frame = data.decision_rows(decided).filter(pl.col("symbol").is_in(symbols.implode()))
                assert row["hash"] == logical_hash(frame, ("symbol",))
                assert row["path"] == f"features/session={decided}"
            else:
                frame = life.read(row["table"], row["session"])
                assert row["hash"] == commit.tables[row["table"]]
                assert (life.lake.root / row["path"] / "part.parquet").is_file()
            assert row["rows"] == frame.height
        assert manifest["version"].n_unique() == 1
        assert manifest["version"][0] == life.read("evaluation_report", end)["dataset"][0]
    versions = [life.read("training_dataset", end)["version"][0] for end in WEEK_ENDS]
    assert len(set(versions)) == len(versions)


def test_a_look_back_forgets_the_sessions_before_it(tmp_path: Path):
    short, data = begin(tmp_path / "home", quick("learner.lookback_sessions=7"))
    run_to(short, data, date(2023, 1, 13))
    manifest = short.read("training_dataset", date(2023, 1, 13))
    assert manifest["session"].unique().sort().to_list() == short.commits()[-7:]
    assert short.read("evaluation_report", date(2023, 1, 13))["contexts"][0] <= 7 * 12


def retrained(life: Life) -> list[date]:
    return [s for s in life.sessions_with("evaluation_report") if s <= CLIMBED]


def test_learning_happens_on_the_last_session_of_a_week_and_on_the_session_after_a_change_of_phase(life: Life):
    states = phase_table(life)
    moved = states.filter(pl.col("phase") != pl.col("phase_before"))["session"].to_list()
    assert len(moved) == 3
    called = [next(s for s in life.commits() if s > day) for day in moved if day != CLIMBED]
    assert set(called) - set(WEEK_ENDS), "no phase changed in the middle of a week"
    for table in ("training_dataset", "candidate_scores", "evaluation_report", "registry_history"):
        assert [s for s in life.sessions_with(table) if s <= CLIMBED] == sorted({*WEEK_ENDS, *called})
    said = dict(states.select("session", "retrained_because").iter_rows())
    assert {s for s, why in said.items() if why} == {*WEEK_ENDS, *called}
    for session in called:
        assert "phase " in said[session]
        assert set(life.read("evaluation_report", session)["why"]) == {said[session]}


def test_a_model_has_learned_up_to_its_sessions_close_and_no_further(life: Life):
    for row in history(life).iter_rows(named=True):
        model = life.registry.model(row["version"])
        assert model.trained_through == row["trained_through"] == row["session"]
        assert row["effective"] > row["session"]
        assert model.features == INPUTS


def test_scores_are_of_sessions_after_the_training_of_their_version(life: Life):
    ends = retrained(life)
    scores = life.read_many("candidate_scores", ends)
    assert (scores["session"] > scores["trained_through"]).all()
    assert not scores.select("session", "version").is_duplicated().any()
    for before, end in pairwise(ends):
        fresh = life.read("candidate_scores", end)
        assert ((fresh["session"] > before) & (fresh["session"] <= end)).all()
        newest = life.read("evaluation_report", before)["version"][0]
        scored = fresh["session"].n_unique()  # none where the retrains lie next to each other
        assert fresh.filter("candidate")["version"].unique().to_list() == [newest] * (scored > 0)
        champion = life.read("phase_state", before)["champion"][0]
        assert fresh.filter("champion")["version"].unique().to_list() == [champion] * (
            scored > 0 and champion is not None
        )
    assert scores["session"].n_unique() > 10
    assert life.read("candidate_scores", ends[0]).is_empty()


def test_a_weeks_record_is_what_the_fold_left_and_an_unfinished_week_has_none(life: Life):
    record = week_record(life, date(2023, 1, 16))
    state = life.read("phase_state", date(2023, 1, 20)).row(0, named=True)
    assert (record.session, record.champion) == (date(2023, 1, 20), state["champion"])
    assert record.candidate == state["candidates"][-1]
    assert record.outcome == "promoted"
    assert record.files == 3 * 15
    assert record.values.keys() >= {"beats_random", "walk_forward"}
    assert week_record(life, date(2023, 2, 6)).session is None
    assert week_record(life, date(2023, 2, 6)).outcome == "incomplete"


def test_what_is_decided_by_a_model_is_decided_by_the_champion_as_of_the_session_before(life: Life):
    joint = 0
    for session in life.commits():
        plan = life.read("recommendations", session).filter(pl.col("source") == "joint")
        champion = life.read("phase_state", session)["champion"][0]
        assert set(plan["model_version"]) <= {champion}
        joint += plan.height
        if plan.height:
            assert life.registry.model(champion).trained_through <= session
    assert joint > 50


class Constant:
    """A model that takes the same action everywhere, with the score it is told."""

    name = "joint"

    def __init__(self, action: int, through: date) -> None:
        self.action, self.trained_through, self.features = action, through, INPUTS

    def propose(self, X: np.ndarray) -> Proposals:
        n = len(X)
        lean = np.full(n, max(self.action, 0))
        return Proposals(np.full(n, self.action), lean, np.linspace(0.9, 0.5, n), self.score(X))

    def score(self, X: np.ndarray) -> FloatArray:
        return np.arange(len(X), dtype=float)


def session_contexts(day: date, rewards: FloatArray, rule: int = FLAT) -> SessionContexts:
    n = len(rewards)
    X = np.zeros((n, len(INPUTS)), np.float32)
    return SessionContexts(day, INPUTS, X, rewards.astype(np.float32), np.full(n, rule), ())


def test_a_score_is_the_mean_reward_of_what_the_model_would_have_chosen_the_most_confident_first():
    rewards = np.random.default_rng(1).standard_normal((6, ACTIONS))
    rewards[1, 3] = np.nan
    rewards[5, :] = np.nan
    days = [TOMORROW + timedelta(days=i) for i in range(3)]
    state = replace(
        in_phase(1, Constant(3, days[0]), candidates=("joint-1",)),
        window=tuple(session_contexts(day, rewards, rule=7) for day in days),
    )
    state.models["joint-1"] = Constant(FLAT, days[1])  # pyright: ignore[reportArgumentType]
    scored = score_sessions(state, with_settings(LifeConfig(), ["guardrails.max_trades=4"]))
    assert scored.schema == SCORES
    assert scored.select("session", "version", "candidate", "champion").rows() == [
        (days[1], "joint-0", False, True), (days[2], "joint-1", True, False), (days[2], "joint-0", False, True),
    ]  # fmt: skip
    champion, candidate = scored.row(0, named=True), scored.row(1, named=True)
    assert champion["decisions"] == 4
    assert champion["reward"] == pytest.approx(rewards[[0, 2, 3], 3].mean(), abs=1e-6)
    assert champion["random"] == pytest.approx(np.nanmean(rewards), abs=1e-6)
    assert champion["rules"] == pytest.approx(np.nanmean(rewards[:, 7]), abs=1e-6)
    assert champion["outcomes"] == 3
    assert champion["won"] == np.sum(rewards[[0, 2, 3], 3] > 0)
    assert ranking_of(scored.head(1)).hit_rate == champion["won"] / 3, "what is not known yet is no loss"
    assert (candidate["decisions"], candidate["reward"]) == (0, None)
    again = replace(state, scores=scored)
    assert score_sessions(again, LifeConfig()).is_empty(), "a session was scored twice"


CALIBRATED = {  # a session's counts: confidence 0.6 where six in ten win, of random four
    "contexts": 50, "outcomes": 20, "won": 12, "lean_won": 30, "random_won": 0.4, "top": 5, "top_won": 4,
    "squared_error": 12.0, "bin_contexts": [0] * 6 + [50] + [0] * 3, "bin_confidence": [0.0] * 6 + [30.0] + [0.0] * 3,
    "bin_won": [0] * 6 + [30] + [0] * 3, "entropy": 0.97,
}  # fmt: skip
assert len(CALIBRATED["bin_won"]) == BINS


def evident(state: LoopState, rewards: np.ndarray, incumbent: np.ndarray | None, first: date) -> LoopState:
    """`state` with scores of the newest candidate (and of an incumbent) on consecutive days."""
    rows = []
    for i, reward in enumerate(rewards):
        row = {"session": first + timedelta(days=i), "trained_through": first - timedelta(days=1), "decisions": 20,
               "random": -0.2, "rules": -0.1, "ic": 0.05 + 0.01 * (i % 2), **CALIBRATED}  # fmt: skip
        rows.append(row | {"version": "joint-new", "candidate": True, "champion": False, "reward": float(reward)})
        if incumbent is not None:
            rows.append(
                row | {"version": "joint-0", "candidate": False, "champion": True, "reward": float(incumbent[i])}
            )
    return replace(state, scores=pl.DataFrame(rows, schema=SCORES))


@pytest.fixture(scope="module")
def trained() -> tuple[LoopState, LifeConfig]:
    """The state of the life that climbed, before its last week was judged; its window is good to learn from."""
    life, data = climbed()
    rules = loop_rules(life, data.profile)
    return restore(life, data, rules), with_settings(
        rules.config, ["promotion.alpha=0.05", "promotion.min_sessions=15"]
    )


STEADY = 0.5 + 0.1 * np.random.default_rng(2).standard_normal(40)


@pytest.mark.parametrize(
    ("lead", "outcome"), [(0.0, "refused"), (-0.1, "refused"), (0.3, "promoted")], ids=["tie", "worse", "better"]
)
def test_a_tie_keeps_the_incumbent(trained: tuple[LoopState, LifeConfig], lead: float, outcome: str):
    state, config = trained
    jitter = 0.01 * np.random.default_rng(4).standard_normal(40) if lead else 0.0
    judged = evident(replace(state, champion="joint-0", hypothesis=1, hypothesis_since=None), STEADY + lead + jitter,
                     STEADY, date(2022, 6, 1))  # fmt: skip
    # The window is not scored again: its sessions lie before the last of the evidence.
    judged = replace(judged, scores=judged.scores.with_columns(session=pl.col("session").dt.offset_by("1y")))
    judged = replace(judged, models=state.models | {"joint-0": next(iter(state.models.values()))})
    trial = try_candidate(judged, config, 0.6)
    assert trial.outcome == outcome, trial.reason
    if outcome == "refused":
        assert "beats_incumbent" in trial.reason


def test_a_promotion_points_the_registry_and_opens_a_new_hypothesis(trained: tuple[LoopState, LifeConfig]):
    state, config = trained
    judged = evident(replace(state, champion=None, hypothesis=2, hypothesis_since=None), STEADY, None, date(2023, 6, 1))
    friday = date(2023, 2, 10)
    day = Day(session=friday, opens=None, minutes=375, next_session=date(2023, 2, 13), ends_week=True,  # pyright: ignore
              bars=pl.DataFrame(), features=pl.DataFrame())  # fmt: skip
    week = retrain(judged, day, config, 0.6)
    (row,) = week.tables["registry_history"].to_dicts()
    version = row["version"]
    assert (row["event"], row["champion_before"], row["champion_after"]) == ("promoted", None, version)
    assert (row["effective"], row["hypothesis"]) == (date(2023, 2, 13), 2)
    after = week.state
    assert (after.champion, after.champion_since, after.hypothesis) == (version, date(2023, 2, 13), 3)
    assert after.hypothesis_since == date(2023, 2, 13)
    assert after.champion_through == week.models[version].trained_through
    assert after.candidates[-1] == version
    assert after.trials == state.trials + 1
    assert learning.trials_with(after, version) == after.trials, "the same model again is no further trial"
    assert learning.trials_with(after, "joint-another") == after.trials + 1
    assert set(week.tables["evaluation_report"]["outcome"]) == {"promoted"}
    assert week.tables["evaluation_report"]["passed"].all()
    # The evidence of one hypothesis does not count for the next.
    late = replace(after, hypothesis_since=date(2024, 1, 1))
    assert learning._evidence(late, version, trained_walk(after, config)).sessions.is_empty()


def trained_walk(state: LoopState, config: LifeConfig) -> learning.WalkForward:
    return learning.train_joint(learning.TrainingWindow(list(state.window)), config.learner, config.seed)[1]


@pytest.mark.parametrize("sessions", [0, 3])
def test_too_little_to_train_on_is_a_week_without_training_that_says_what_is_needed(sessions: int):
    days = [TOMORROW + timedelta(days=i) for i in range(sessions)]
    state = replace(LoopState(), window=tuple(session_contexts(day, np.zeros((4, ACTIONS))) for day in days))
    trial = try_candidate(state, LifeConfig(), 0.1)
    assert trial.outcome == "not_trained"
    assert trial.reason == f"{4 * sessions} contexts over {sessions} sessions; training needs 500 over 20"


def test_shuffled_rewards_are_never_promoted(trained: tuple[LoopState, LifeConfig]):
    """Half a year of a market where who earns what is drawn by lot, costs included; every week is a look."""
    state, _ = trained
    config = quick(*CLIMBING, "promotion.alpha=0.05", "promotion.min_sessions=15", "learner.lookback_sessions=20")
    pool = np.concatenate([s.rewards for s in state.window])
    pool = pool[np.isfinite(pool).all(axis=1)] - max(float(np.nanmean(pool)), 0.0)
    features = np.concatenate([s.features for s in state.window])
    rng, outcomes = np.random.default_rng(6), []
    state = replace(state, window=(), scores=pl.DataFrame(schema=SCORES), candidates=(), models={}, champion=None,
                    hypothesis=1, hypothesis_since=None)  # fmt: skip
    for week in range(26):
        for weekday in range(5):
            X, R = features[rng.integers(0, len(features), 12)], pool[rng.integers(0, len(pool), 12)]
            day = date(2024, 1, 1) + timedelta(days=7 * week + weekday)
            lot = SessionContexts(day, INPUTS, X, R, np.full(12, FLAT), ())
            state = replace(state, window=(*state.window, lot)[-20:])
        trial = try_candidate(state, config, 1.0)
        outcomes.append(trial.outcome)
        state = trial.state
        if trial.judged:
            state = learning._with_candidate(state, trial.judged, None, config)
    assert len(outcomes) == 26
    assert "promoted" not in outcomes
    assert "refused" in outcomes
