"""Rules: what is alarming, at which number, and that nothing is said of what is not known."""

import math
from dataclasses import fields, replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odin_core.errors import OdinError
from odin_core.home import Home, open_home
from odin_core.monitoring.rules import (
    BOUNDS,
    RULES,
    SEVERITIES,
    AlertConfig,
    BadAlertFile,
    BadAlertSetting,
    Demotion,
    Facts,
    UnknownAlertSetting,
    UnknownRule,
    judge,
    load_config,
)

DAY = date(2026, 1, 5)
EVERYTHING = Facts(
    market="demo", life="abc", session=DAY, drift_score=0.4, drift_threshold=0.2, drift_in_a_row=2,
    drift_subject="rsi_14_5m", drawdown=0.06, drawdown_cap=0.05, wins=10, trades=200, runs=10, failed_runs=6,
    last_error="no disk", sessions_behind=3, sessions_since_retrain=30, live_reward=-9.0, band_lower=-4.0,
    band_upper=20.0, band_sessions=40, demotions=(Demotion(DAY, "joint-1", "drawdown"),),
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def raised(facts: Facts, **settings: float) -> list[str]:
    return [finding.rule for finding in judge(facts, AlertConfig(**settings)) if finding.raised]  # type: ignore[arg-type]


def test_when_everything_is_wrong_every_rule_says_so_with_numbers():
    found = {finding.rule: finding for finding in judge(EVERYTHING) if finding.raised}
    assert set(found) == set(RULES)
    said = {rule: finding.text for rule, finding in found.items()}
    assert "2 sessions in a row, most in rsi_14_5m (score 0.4, threshold 0.2)" in said["drift"]
    assert "drawdown 6.00% of capital; warned from 4.00% on, entries halt at 5.00%" in said["drawdown"]
    assert "10 of the last 200 trades won (5%)" in said["low_win_rate"]
    assert "6 of 10 runs of the last day failed (60%); the last error: no disk" in said["failing_runs"]
    assert "3 sessions are over" in said["stale_data"]
    assert "30 sessions ago" in said["retrain_overdue"]
    assert "sum to -9.00; its backtest leads one to expect -4.00 to +20.00 after 40" in said["outside_expectation"]
    assert "joint-1 was demoted at the close of 2026-01-05: drawdown" in said["champion_demoted"]
    assert all(finding.severity in SEVERITIES for finding in found.values())
    assert found["champion_demoted"].once


def test_nothing_is_said_of_what_is_not_known():
    assert judge(Facts(market="demo", life="abc", session=DAY)) == ()


@pytest.mark.parametrize("field", [f.name for f in fields(Facts) if f.name not in ("market", "life", "session")])
def test_a_fact_that_is_missing_silences_its_own_rule_only(field):
    without = replace(EVERYTHING, **{field: next(f.default for f in fields(Facts) if f.name == field)})
    before, after = ({f.rule for f in judge(facts)} for facts in (EVERYTHING, without))
    assert len(before - after) <= 1
    assert after <= before


def test_a_number_that_is_no_number_silences_its_rule():
    assert judge(Facts(market="demo", drawdown=math.nan, drawdown_cap=0.05)) == ()
    assert judge(Facts(market="demo", live_reward=1.0, band_lower=-math.inf, band_upper=math.inf)) == ()


@pytest.mark.parametrize(
    ("just_calm", "just_raised"),
    [
        ({"drift_in_a_row": 1}, {"drift_in_a_row": 2}),
        ({"drawdown": 0.0399, "drawdown_cap": 0.05}, {"drawdown": 0.0401, "drawdown_cap": 0.05}),
        ({"wins": 35, "trades": 100}, {"wins": 34, "trades": 100}),
        ({"wins": 0, "trades": 99}, {"wins": 0, "trades": 100}),
        ({"runs": 10, "failed_runs": 1}, {"runs": 10, "failed_runs": 2}),
        ({"runs": 11, "failed_runs": 2}, {"runs": 10, "failed_runs": 2}),
        ({"sessions_behind": 0}, {"sessions_behind": 1}),
        ({"sessions_since_retrain": 10}, {"sessions_since_retrain": 11}),
        *(
            ({"live_reward": calm, "band_lower": -1.0, "band_upper": 1.0},
             {"live_reward": wrong, "band_lower": -1.0, "band_upper": 1.0})
            for calm, wrong in ((-1.0, -1.01), (1.0, 1.01))
        ),
    ],
)  # fmt: skip
def test_each_rule_is_raised_just_beyond_its_threshold(just_calm, just_raised):
    assert raised(Facts(market="demo", **just_calm)) == []
    assert len(raised(Facts(market="demo", **just_raised))) == 1


def test_what_is_worse_is_more_severe():
    def severity(**known: float) -> str:
        return next(f.severity for f in judge(Facts(market="demo", **known)) if f.raised)  # type: ignore[arg-type]

    assert severity(drawdown=0.041, drawdown_cap=0.05) == "warning"
    assert severity(drawdown=0.05, drawdown_cap=0.05) == "critical"
    assert severity(live_reward=-2, band_lower=-1, band_upper=1) == "warning"
    assert severity(live_reward=2, band_lower=-1, band_upper=1) == "information"


@given(st.floats(0, 0.2), st.floats(0, 0.2), st.integers(0, 300), st.integers(0, 300))
def test_a_worse_fact_never_calms_a_rule(shallow, deep, fewer, more):
    shallow, deep = sorted((shallow, deep))
    fewer, more = sorted((fewer, more))
    calm = raised(Facts(market="demo", drawdown=shallow, drawdown_cap=0.05, wins=more, trades=300))
    worse = raised(Facts(market="demo", drawdown=deep, drawdown_cap=0.05, wins=fewer, trades=300))
    assert set(calm) <= set(worse)


def test_findings_of_two_lives_and_two_markets_are_different_things():
    keys = {
        (market, life): {f.key for f in judge(replace(EVERYTHING, market=market, life=life))}
        for market in ("demo", "nse")
        for life in ("abc", "def")
    }
    seen = [key for found in keys.values() for key in found]
    assert len(seen) == len(set(seen))
    assert len(seen) == 4 * 9  # eight rules, one of which looks at both ends of the band


def test_a_rule_that_is_muted_is_not_looked_at():
    found = {finding.rule for finding in judge(EVERYTHING, AlertConfig(mute=("drift", "stale_data")))}
    assert found == set(RULES) - {"drift", "stale_data"}


def test_every_setting_belongs_to_a_rule_or_to_telling():
    told = {name for rule in RULES.values() for name in rule.settings}
    assert told | {"reminder_hours", "cooldown_hours", "mute"} == {f.name for f in fields(AlertConfig)}
    assert set(BOUNDS) == {f.name for f in fields(AlertConfig)} - {"mute"}


def test_the_file_is_optional_and_sets_what_it_names(home):
    assert load_config(home) == AlertConfig()
    (home.root / "alerts.yaml").write_text("# mine\ndrawdown_share: 1\nerror_runs: 5\nmute: [drift]\n")
    assert load_config(home) == AlertConfig(drawdown_share=1.0, error_runs=5, mute=("drift",))
    (home.root / "alerts.yaml").write_text("# nothing yet\n")
    assert load_config(home) == AlertConfig()


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("drawdown_shar: 0.5", UnknownAlertSetting, "did you mean drawdown_share"),
        ("3: 0.5", UnknownAlertSetting, "no setting 3"),
        ("mute: [drif]", UnknownRule, "did you mean drift"),
        ("mute: 3", BadAlertSetting, "a list of rules"),
        ("win_rate: much", BadAlertSetting, "win_rate='much': expected a number"),
        ("win_rate: true", BadAlertSetting, "expected a number"),
        ("win_rate: 1.5", BadAlertSetting, "a number from 0 to 1"),
        ("win_rate: .nan", BadAlertSetting, "a number from 0 to 1"),
        ("error_runs: 2.5", BadAlertSetting, "expected a whole number"),
        ("error_runs: 0", BadAlertSetting, "a number from 1"),
        ("error_runs: .inf", BadAlertSetting, "expected a whole number"),
        (f"win_rate: 1{'0' * 400}", BadAlertSetting, "a number from 0 to 1"),
        ("mute: [[drift]]", UnknownRule, "there is no rule"),
        ("reminder_hours: -1", BadAlertSetting, "a number from 0"),
        ("- drift", BadAlertFile, "it holds a list"),
        ("a: [", BadAlertFile, "cannot be read"),
        ("\x00", BadAlertFile, "cannot be read"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_the_way_out(home, text, error, said):
    (home.root / "alerts.yaml").write_text(text)
    with pytest.raises(error, match=said.replace("(", r"\(")) as found:
        load_config(home)
    assert isinstance(found.value, OdinError)
    assert "\n" not in str(found.value)
