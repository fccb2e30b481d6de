"""Slow learners of a life: trained at a week's close on what was known, found again, asked as shadows, explained."""

import fcntl
import os
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import slowlearners
import smalllives

from odin_core.encoder import store as encoders
from odin_core.encoder.store import months
from odin_core.home import TrainingBusy, open_home
from odin_core.lifecycle import learners
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.explained_trade import NothingExplained, explained_trade
from odin_core.lifecycle.learner_review import NoLearner, review_ppo
from odin_core.lifecycle.learner_weeks import distilled_week, ppo_week, reinforce_week
from odin_core.lifecycle.learners import learners_at, newest_ppo, shadows_of
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.run import RewoundMeanwhile
from odin_core.lifecycle.shadow import NotFinished
from odin_core.market.data import MarketData
from odin_core.monitoring.reference import from_json
from odin_core.rl import weekly
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.evaluation import SEEDS
from odin_core.rl.explain import explanations
from odin_core.rl.learner_config import PPOConfig
from odin_core.rl.market_tape import NothingOnTape
from odin_core.rl.trade_picture import trade_picture
from odin_core.rl.weekly_config import WeekConfig

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
    assert learned_in(ppo_week(life, data, WEEK)).equals(learned_in(grown[0].read("ppo_policy", WEEK)))
    assert learned_in(reinforce_week(life, data, WEEK)).equals(learned_in(grown[0].read("reinforce_policy", WEEK)))


def learned_in(week: pl.DataFrame) -> pl.DataFrame:
    """A week without its mark, which names files by their time."""
    return week.drop("made_from")


def test_bars_or_code_that_changed_are_another_week(grown, monkeypatch: pytest.MonkeyPatch):
    life, data = grown
    before = {learn: learn(life, data, WEEK)["made_from"][0] for learn in (ppo_week, reinforce_week)}
    monkeypatch.setattr("odin_core.rl.weekly.train_week", lambda *_, **__: pytest.fail("once more"))
    monkeypatch.setattr("odin_core.rl.reinforce.learn", lambda *_, **__: pytest.fail("once more"))
    path = data.lake.path("price_history", date(2023, 1, 11))
    times = path.stat()
    for learn, mark in before.items():
        assert learn(life, data, WEEK)["made_from"][0] == mark
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000))
        with pytest.raises(pytest.fail.Exception):
            learn(life, data, WEEK)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        monkeypatch.setattr("odin_core.lifecycle.learner_weeks.CODE", ("rl",))
        with pytest.raises(pytest.fail.Exception):
            learn(life, data, WEEK)
        monkeypatch.setattr("odin_core.lifecycle.learner_weeks.CODE", ("rl", "execution"))


def test_an_encoder_that_has_seen_what_the_week_is_judged_on_is_not_used(grown):
    life, data = grown
    (version,) = [month.version for month in months(data.lake)]
    assert weekly.encoder_for(data, WEEK, WeekConfig(judged_sessions=10)) is not None, "judged from the second on"
    for seen in (WeekConfig(judged_sessions=11), WeekConfig(judged_sessions=11, encoder=version)):
        assert weekly.encoder_for(data, WEEK, seen) is None, "judged from the encoder's last session on"
        made = weekly.train_week(
            life, data, WEEK, week=seen, environment=EnvironmentConfig.of({}), config=PPOConfig.small()
        )
        assert made.outcome == "not_trained"
        assert "2022-12-30" in made.reason


def test_an_incumbent_of_another_shape_is_left_aside(grown):
    life, data = grown
    config = PPOConfig.load(life.home.settings("ppo")).model_copy(update={"hidden": (4,), "steps": 128})
    week, environment = WeekConfig.load(life.home.settings("week")), EnvironmentConfig.of({"episode_bars": 20})
    incumbent = newest_ppo(life, WEEK)
    made = weekly.train_week(life, data, WEEK, week=week, environment=environment, config=config, incumbent=incumbent)
    assert made.policy is not None
    assert made.policy.facts["warm_start"] is None
    same = config.model_copy(update={"hidden": (8,)})
    made = weekly.train_week(life, data, WEEK, week=week, environment=environment, config=same, incumbent=incumbent)
    assert made.policy is not None
    assert incumbent is not None
    assert made.policy.facts["warm_start"] == incumbent.version


def test_a_rewound_life_keeps_the_learners_of_the_weeks_that_it_keeps(grown, tmp_path: Path, monkeypatch):
    shutil.copytree(grown[0].home.root, tmp_path / "home")
    life = lives.load(open_home(tmp_path / "home"), grown[0].id)
    for name in ("ppo_policy", "ppo_curves", "reinforce_policy"):
        life.lake.remove(name, WEEK)
    data = smalllives.small_market(life.home, life.config)
    week = ppo_week(life, data, WEEK)
    reinforce_week(life, data, WEEK)
    lives.plan_rewind(life, NEXT).apply()
    assert life.generation == 2
    monkeypatch.setattr("odin_core.rl.weekly.train_week", lambda *_, **__: pytest.fail("it lies there"))
    assert ppo_week(life, data, WEEK).equals(week)
    policy = newest_ppo(life, NEXT)
    assert policy is not None
    assert policy.version == week["version"][0]
    assert {found.name for found in learners_at(life, data, NEXT)[0]} >= {"ppo"}
    shutil.rmtree(learners.folder_of(life, policy.version))
    with pytest.raises(pytest.fail.Exception):  # its table alone is no week
        ppo_week(life, data, WEEK)


def test_what_was_rewound_meanwhile_is_not_written(grown, tmp_path: Path):
    shutil.copytree(grown[0].home.root, tmp_path / "home")
    life = lives.load(open_home(tmp_path / "home"), grown[0].id)
    asked = life.generation
    lives.plan_rewind(lives.load(life.home, life.id), WEEK).apply()
    assert life.generation == asked
    with pytest.raises(RewoundMeanwhile):
        learners.write(life, "anything", WEEK, {"anything": pl.DataFrame({"a": [1]})})


def test_a_session_that_the_tape_does_not_know_is_left_alone(grown, monkeypatch: pytest.MonkeyPatch):
    life, data = grown

    def nothing(*_: object, **__: object) -> None:
        raise NothingOnTape("demo", NEXT, NEXT)

    monkeypatch.setattr("odin_core.rl.market_tape.market_tape", nothing)
    (ppo,) = [policy for policy in learners_at(life, data, NEXT)[0] if policy.name == "ppo"]
    contexts = data.decision_rows(NEXT)
    assert not ppo.choose(contexts, data.calendar.hours(NEXT).close).side.any()


def test_two_processes_do_not_train_at_once_and_sessions_go_on(grown):
    life, _ = grown
    with (life.home.root / "training.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with life.home.writer("a session", wait=0):
            pass
        with pytest.raises(TrainingBusy, match="trained one after another"), life.home.trainer("a week", wait=0):
            pytest.fail("it is held")


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
    assert learned_in(found).equals(learned_in(grown[0].read("ppo_policy", WEEK)))
    assert min(told) >= 5, "what was done before the stop is not done again"


def test_learners_are_asked_from_the_close_that_they_were_trained_at(grown):
    life, data = grown
    assert learners_at(life, data, date(2023, 1, 12)) == ([], [])
    names = {policy.name: policy.trained_through for policy in learners_at(life, data, WEEK)[0]}
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
    found = explained_trade(life, data, WEEK)
    assert trade_picture(*found).startswith(b"\x89PNG")
    became = carried.filter(decision_id=found.explanation.decision_id)
    assert found.trade.entry == became["entry_price"][0]
    assert found.trade.stop < found.trade.entry < found.trade.target
    assert found.trade.entered == became["entry_ts"].dt.truncate("5m")[0]
    with pytest.raises(NothingExplained, match=r"SYN999 at the close .* there are reasons for SYN0"):
        explained_trade(life, data, WEEK, "SYN999")
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
    life, data = smalllives.begin(tmp_path / "home")
    slowlearners.settle(life.home)
    smalllives.run_to(life, data, WEEK)
    found = ppo_week(life, data, WEEK)
    assert found["outcome"].to_list() == ["not_trained"]
    assert "odin encoder train" in found["reason"][0]
    assert learners_at(life, data, WEEK) == ([], [])
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


def test_a_learner_that_cannot_be_asked_is_named_and_the_others_are_asked(tmp_path: Path):
    life, data = slowlearners.begin(tmp_path / "home")
    ppo_week(life, data, WEEK)
    shutil.rmtree(data.lake.root / encoders.FOLDER)
    encoders._loaded.cache_clear()
    numbers = shadows_of(life, data, WEEK)
    assert [encoders.FOLDER in told for told in numbers["missing"]] == [True]
    roles = {*life.read("shadow_recommendations", WEEK)["role"]}
    assert {"rules", "random"} <= roles
    assert "learner" not in roles


def test_a_distilled_policy_has_what_drift_is_measured_against(grown, monkeypatch: pytest.MonkeyPatch):
    life, data = grown
    monkeypatch.setattr("odin_core.rl.distillation.FEWEST_TRADES", 0)
    made = distilled_week(life, data, WEEK, AT)
    assert made["outcome"].to_list() == ["made"]
    version = made["version"][0]
    assert from_json(life.registry.bundle(version).parts["reference"]).window_sessions > 0
    assert life.registry.facts(version)["distilled_from"] == life.read("ppo_policy", WEEK)["version"][0]
