"""Values, page and command of offline learning: on a planted log, where the truth is known, and on a life."""

import json

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from plantedlogs import COST, TAKE, planted_log
from smalllives import climbed

from odin_core.commands.rl import SETTINGS, NoSuchSettings, NotAnOfflinePage, rl
from odin_core.configuration import SettingInvalid
from odin_core.policies.actions import ACTIONS, FLAT
from odin_core.rl.offline_config import ReinforceConfig
from odin_core.rl.offline_data import TooFewDecisions
from odin_core.rl.offline_page import page
from odin_core.rl.offline_report import (
    ALL_OUTCOMES,
    LEARNED,
    RANDOM,
    joint_before,
    offline_report,
    one_hot,
    sides_of,
    values_of,
)
from odin_core.rl.reinforce import learn
from odin_core.rl.reinforce_policy import ReinforcePolicy

QUICK = ReinforceConfig(steps=60, hidden=4, mirrored=False, learning_rate=0.03)
SETTINGS_FILE = "steps: 20\nhidden: 4\nmin_decisions: 50\nmin_sessions: 5\n"


@pytest.fixture(scope="module")
def report():
    found = planted_log(1.0, sessions=60)
    parts = found.split(0.2, 0.25, 1)
    runs = [learn(found, parts, QUICK.model_copy(update={"seed": seed})) for seed in (7, 8)]
    return offline_report(found, parts, runs, QUICK, market="demo", life="planted", take_probability=TAKE)


def test_estimates_by_the_log_hold_what_all_outcomes_say():
    found = planted_log(1.0, sessions=150, each=40)
    knowing = np.where(found.features[:, 0] > 0, 0, ACTIONS // 2)
    values = values_of(found, {"knowing": sides_of(knowing)}, clip=1e9).filter(policy="knowing")
    truth = values.filter(estimator=ALL_OUTCOMES)["value"][0]
    assert truth == pytest.approx(1.0 - COST, abs=0.05)
    by_log = values.filter(pl.col("estimator") != ALL_OUTCOMES)
    assert by_log["estimator"].to_list() == ["IPS", "SNIPS", "DR", "SNIPS, explored"]
    for row in by_log.to_dicts():
        width = row["upper"] - row["lower"]
        assert row["lower"] - width / 2 < truth < row["upper"] + width / 2, row
        assert width < 0.5
    taken = found.choice != FLAT
    assert values_of(found, {}, 20.0)["value"][0] == pytest.approx(found.reward[taken].sum() / len(found))


def test_trades_that_were_never_logged_are_a_doubt():
    found = planted_log(1.0, sessions=8, each=5)
    never = (found.choice.max() + 1) % ACTIONS
    assert never not in found.choice
    values = values_of(found, {"unseen": one_hot(np.full(len(found), never))}, clip=20.0)
    assert "none of its trades was ever logged" in values.filter(policy="unseen", estimator="SNIPS")["doubts"][0][0]
    truth = values.filter(policy="unseen", estimator=ALL_OUTCOMES)["doubts"][0].to_list()
    assert not [doubt for doubt in truth if "ever logged" in doubt]


def test_what_is_learned_beats_random_and_the_first_seed_is_reported_not_the_best(report):
    assert report.value(LEARNED)["lower"] > report.value(RANDOM)["upper"]
    assert report.policy.facts["seed"] == 7
    assert report.seeds["seed"].to_list() == [7, 8]
    assert report.valued == "test"
    assert set(report.sessions["part"]) == {"train", "validation", "test", "left out"}
    np.testing.assert_allclose(report.sessions.select(pl.sum_horizontal("long", "short", "flat")).to_series(), 1)
    assert any("no joint policy" in note for note in report.notes)


def test_the_page_is_one_file_with_everything_inside_and_the_same_twice(report):
    drawn = page(report)
    assert drawn == page(report)
    assert 'src="http' not in drawn.split("<h2>Learning")[0][:2000]
    for said in ("Policy value", "Learning", "What it does", "Reward by session", "Importance weights", "Settings",
                 report.policy.version, *report.notes[:1]):  # fmt: skip
        assert said in drawn
    assert drawn.count("Plotly.newPlot") >= 5
    assert 3_000_000 < len(drawn) < 8_000_000


def test_without_a_test_the_report_says_that_its_values_flatter():
    found = planted_log(0.0, sessions=20, each=10)
    config = QUICK.model_copy(update={"test_share": 0.0, "steps": 10})
    parts = found.split(config.validation_share, 0.0, 1)
    made = offline_report(
        found, parts, [learn(found, parts, config)], config, market="demo", life="l", take_probability=TAKE
    )
    assert made.valued == "validation"
    assert any("flatter" in note for note in made.notes)
    assert any("Nothing is proven" in note for note in made.notes)


def test_the_joint_policy_compared_with_had_not_seen_the_sessions():
    life, _ = climbed()
    for session in life.commits():
        found = joint_before(life, session)
        if found is not None:
            assert found[1].trained_through < session
    assert joint_before(life, life.commits()[-1]) is not None
    assert joint_before(life, life.commits()[0]) is None


def test_the_command_writes_page_and_policy_and_says_values(tmp_path):
    life, _ = climbed()
    told = tmp_path / "settings.yaml"
    told.write_text(SETTINGS_FILE)
    out = tmp_path / "page.html"
    words = [
        "offline",
        "--home",
        str(life.home.root),
        "--config",
        str(told),
        "--seeds",
        "1",
        "--out",
        str(out),
        "--json",
    ]
    ran = CliRunner().invoke(rl, words, catch_exceptions=False)
    result = json.loads(ran.stdout)
    assert ran.exit_code == 0
    assert out.is_file()
    policy = ReinforcePolicy.from_bytes((tmp_path / f"{result['version']}.safetensors").read_bytes())
    assert policy.version == result["version"]
    assert str(policy.trained_through) < result["first_session"]
    assert {row["policy"] for row in result["values"]} >= {LEARNED, RANDOM, "logged policy"}
    again = CliRunner().invoke(rl, [*words[:-1], "--checkpoints", str(tmp_path / "kept")], catch_exceptions=False)
    assert result["version"] in again.output
    assert list((tmp_path / "kept").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["--out", "page.pdf"], NotAnOfflinePage, r"end it with \.html"),
        (["--as-of", "2023-01-04"], TooFewDecisions, "resolved decision"),
        (["--config", "bad.yaml"], SettingInvalid, "clip"),
    ],
)
def test_mistakes_are_told_of(tmp_path, monkeypatch, words, error, says):
    life, _ = climbed()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("clip: -1\n")
    with pytest.raises(error, match=says):
        CliRunner().invoke(rl, ["offline", "--home", str(life.home.root), *words], catch_exceptions=False)


def test_settings_are_printed_as_yaml_that_is_taken_back(tmp_path):
    printed = CliRunner().invoke(rl, ["settings", "reinforce"], catch_exceptions=False).output
    (tmp_path / "told.yaml").write_text(printed)
    assert ReinforceConfig.load(tmp_path / "told.yaml") == ReinforceConfig.of({})
    named = CliRunner().invoke(rl, ["settings"], catch_exceptions=False).output
    assert named.split() == list(SETTINGS)
    with pytest.raises(NoSuchSettings, match="did you mean reinforce"):
        CliRunner().invoke(rl, ["settings", "reinforced"], catch_exceptions=False)


def test_shares_that_leave_nothing_to_learn_from_are_refused():
    with pytest.raises(SettingInvalid, match="leaves no session"):
        ReinforceConfig.of({"validation_share": 0.5, "test_share": 0.5})
