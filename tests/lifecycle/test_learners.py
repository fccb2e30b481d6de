"""Slow learners of a life: trained at a week's close on what was known, found again, asked as shadows, explained."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import slowlearners

from odin_core.lifecycle import learners
from odin_core.lifecycle.learner_review import NoLearner, review_ppo
from odin_core.lifecycle.learner_weeks import distilled_week, ppo_week, reinforce_week
from odin_core.lifecycle.learners import learners_at, newest_ppo, shadows_of
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.shadow import NotFinished
from odin_core.market.data import MarketData
from odin_core.rl.evaluation import SEEDS
from odin_core.rl.explain import explanations

WEEK, NEXT, LAST = date(2023, 1, 13), date(2023, 1, 16), date(2023, 1, 17)
AT = datetime(2023, 1, 14, tzinfo=UTC)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Life, MarketData]:
    """Two weeks, an encoder, and the learners of the second week."""
    life, data = slowlearners.begin(tmp_path_factory.mktemp("learners") / "home")
    ppo_week(life, data, WEEK)
    reinforce_week(life, data, WEEK)
    return life, data


def test_the_weeks_ppo_is_five_seeds_judged_and_the_first_is_the_candidate(grown):
    life, _ = grown
    found = life.read("ppo_policy", WEEK)
    assert found.drop(learners.HEAD.names()).schema == SEEDS
    assert found["seed"].to_list() == [life.config.seed + n for n in range(5)]
    assert found["outcome"].n_unique() == 1
    assert found["outcome"][0] in ("passed", "refused", "insufficient")
    policy = newest_ppo(life, WEEK)
    assert policy is not None
    assert (policy.version, policy.facts["seed"]) == (found["version"][0], life.config.seed)
    assert policy.facts["learned"][1] < policy.facts["judged"][0] <= policy.facts["judged"][1] == str(WEEK)
    curves = life.read("ppo_curves", WEEK)
    assert curves.group_by("seed").len()["len"].to_list() == [2] * 5


def test_a_week_that_lies_there_is_not_trained_again_and_other_settings_are_another_week(grown, monkeypatch):
    life, data = grown
    monkeypatch.setattr("odin_core.rl.weekly.train_week", lambda *_, **__: pytest.fail("it lies there"))
    monkeypatch.setattr("odin_core.rl.reinforce.learn", lambda *_, **__: pytest.fail("it lies there"))
    assert ppo_week(life, data, WEEK).equals(life.read("ppo_policy", WEEK))
    assert reinforce_week(life, data, WEEK).equals(life.read("reinforce_policy", WEEK))
    path = life.home.settings("week")
    before = path.read_text()
    path.write_text(before + "error: 0.1\n")
    try:
        with pytest.raises(pytest.fail.Exception):
            ppo_week(life, data, WEEK)
    finally:
        path.write_text(before)


def test_nothing_after_the_weeks_close_moves_its_learners(grown, tmp_path: Path):
    life, data = slowlearners.begin(tmp_path / "home")
    for session in data.calendar.sessions(NEXT, LAST):
        data.lake.write("price_history", session, data.bars(session).with_columns(pl.col("close") * 1.5))
    assert ppo_week(life, data, WEEK).equals(grown[0].read("ppo_policy", WEEK))
    assert reinforce_week(life, data, WEEK).equals(grown[0].read("reinforce_policy", WEEK))


def test_a_training_that_was_stopped_goes_on_to_the_same_policy(grown, tmp_path: Path):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int, at: str) -> None:
        if done == 5:
            raise Stopped

    life, data = slowlearners.begin(tmp_path / "home")
    with pytest.raises(Stopped):
        ppo_week(life, data, WEEK, stop)
    assert not life.lake.has("ppo_policy", WEEK)
    told: list[int] = []
    found = ppo_week(life, data, WEEK, lambda done, *_: told.append(done))
    assert found.equals(grown[0].read("ppo_policy", WEEK))
    assert min(told) >= 5, "what was done before the stop is not done again"


def test_learners_are_asked_from_the_close_that_they_were_trained_at(grown):
    life, data = grown
    assert learners_at(life, data, date(2023, 1, 12)) == []
    names = {policy.name: policy.trained_through for policy in learners_at(life, data, WEEK)}
    assert names["ppo"] == WEEK
    assert names.get("reinforce", WEEK) <= WEEK


def test_shadows_of_a_session_hold_the_ppo_and_its_reasons(grown, monkeypatch: pytest.MonkeyPatch):
    life, data = grown
    policy = newest_ppo(life, WEEK)
    assert policy is not None
    always_long = {name: weight.clone() for name, weight in policy.weights.items()}
    always_long["actor.2.bias"][:3] = always_long["actor.2.bias"].new_tensor([-5.0, 5.0, -5.0])
    bold = type(policy)(policy.structure, always_long, policy.facts)
    monkeypatch.setattr("odin_core.rl.policy.TradingPolicy.load", lambda _: bold)
    monkeypatch.setattr(learners, "_newest", _with(learners._newest, bold.version))
    for session in (WEEK, NEXT):
        numbers = shadows_of(life, data, session)
        assert numbers["explained"] == 5
    asked = life.read("shadow_recommendations", WEEK).filter(version=bold.version)
    assert (asked["side"] == "long").all()
    carried = life.read("shadow_replay", NEXT).filter(version=bold.version)
    still_open = life.read("shadow_open", NEXT).filter(version=bold.version)
    assert {*carried["decision_id"], *still_open["decision_id"]} == set(asked["decision_id"])
    assert carried["reward"].is_finite().any()
    told = explanations(life.read("explanations", WEEK))
    assert [abs(each.delta) < 1e-3 for each in told] == [True] * 5
    assert all(abs(each.window_delta or 0.0) < 0.05 and len(each.saliency) >= 32 for each in told)
    assert {each.version for each in told} == {bold.version}


def _with(newest, version: str):
    def found(life: Life, table: str, through: date):
        one = newest(life, table, through)
        return (one[0], one[1] | {"version": version}) if one and table == learners.PPO else one

    return found


def test_a_week_without_an_encoder_says_what_it_needs(tmp_path: Path):
    import smalllives

    life, data = smalllives.begin(tmp_path / "home")
    slowlearners.settle(life.home)
    smalllives.run_to(life, data, WEEK)
    found = ppo_week(life, data, WEEK)
    assert found["outcome"].to_list() == ["not_trained"]
    assert "odin encoder train" in found["reason"][0]
    assert learners_at(life, data, WEEK) == []
    assert distilled_week(life, data, WEEK, AT)["outcome"].to_list() == ["not_trained"]
    with pytest.raises(NoLearner, match="odin rl train"):
        review_ppo(life, data)


def test_a_session_that_is_not_finished_is_refused(grown):
    life, data = grown
    with pytest.raises(NotFinished, match="odin bootstrap"):
        ppo_week(life, data, date(2023, 1, 20))
    with pytest.raises(NotFinished):
        reinforce_week(life, data, date(2023, 1, 20))


def test_the_review_shows_curves_actions_and_forecasts(grown):
    life, data = grown
    found = review_ppo(life, data)
    assert {each.name for each in found.diagnostics} == {"actions", "value", "learning_curves"}
    assert found.sessions == 2, "those after its week"
    assert found.picture[1].startswith(b"\x89PNG")
    assert "after its training" in found.markdown
    assert found.html.count("data:image/png;base64,") == 3
