"""Facts out of a life's tables, as they stood at a session."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from lifetables import day, made_up
from smalllives import climbed, quick

from odin_core.home import open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.life import Commit, Life
from odin_core.lifecycle.live import NOTE
from odin_core.monitoring.alerts import alerts, check
from odin_core.monitoring.facts import RECENT, life_facts
from odin_core.monitoring.performance import performance_at
from odin_core.monitoring.rules import judge
from odin_core.registry.history import HISTORY

TABLES = made_up()
AT = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    """Thirty finished sessions; only what `life_facts` reads besides the performance is there."""
    made = lives.create(open_home(tmp_path / "home"), "demo", quick(), day(0))
    for i in range(30):
        finish(made, i)
    return made


def finish(life: Life, i: int, *, fell: bool = False, demoted: str | None = None, trained: str | None = "") -> None:
    """Finish session i; with `trained` a week ends in it, whose candidate is that (None: nothing could be trained)."""
    tables = {
        "phase_state": pl.DataFrame(
            {"session": [day(i)], "phase": [1], "phase_before": [2 if fell else 1], "reason": ["too deep"],
             "champion": [None]}
        )
    }  # fmt: skip
    if trained != "":
        tables["evaluation_report"] = pl.DataFrame({"version": [trained]}, schema={"version": pl.String})
    if demoted:
        row = dict.fromkeys(HISTORY.names()) | {"event": "demoted", "version": demoted, "reason": "drawdown"}
        tables["registry_history"] = pl.DataFrame([row], schema=HISTORY)
    for name, frame in tables.items():
        life.lake.write(name, day(i), frame)
    life.commit(Commit(day(i), {}, dict.fromkeys(tables, "hash"), "code"))


def facts(life: Life, session: date | None = None):
    return life_facts(life, session, performance=performance_at(TABLES, session or day(29)))


def test_a_life_without_sessions_says_nothing(tmp_path):
    life = lives.create(open_home(tmp_path / "home"), "demo", quick(), day(0))
    assert judge(life_facts(life)) == ()


def test_numbers_come_from_the_performance_of_the_session(life):
    row = performance_at(TABLES, day(29)).row.row(0, named=True)
    found = facts(life)
    assert (found.market, found.life, found.session) == ("demo", life.id, day(29))
    assert found.drawdown == -row["drawdown"]
    assert found.drawdown_cap == life.config.guardrails.max_drawdown
    assert (found.wins, found.trades) == (row["wins"], row["complete_trades"])


def test_a_life_that_never_trained_is_overdue_counted_from_when_it_could(life):
    assert facts(life).sessions_since_retrain == 30 - life.config.learner.min_sessions
    finish(life, 24, trained=None)
    assert facts(life).sessions_since_retrain == 30 - life.config.learner.min_sessions


def test_sessions_since_the_last_training_in_its_week_and_out_of_turn(life):
    finish(life, 12, trained="joint-a")
    finish(life, 19, trained="joint-b")
    finish(life, 24, trained=None)
    assert facts(life).sessions_since_retrain == 10
    assert facts(life, day(15)).sessions_since_retrain == 3, "as it stood then"
    life.note(AT, NOTE, head=str(day(22)), version=None, outcome="not trained")
    assert facts(life).sessions_since_retrain == 10
    life.note(AT, NOTE, head=str(day(22)), version="joint-c", outcome="refused")
    assert facts(life).sessions_since_retrain == 7
    assert facts(life, day(21)).sessions_since_retrain == 2


def test_a_demotion_is_news_for_a_few_sessions_and_told_once(life):
    finish(life, 20, fell=True, demoted="joint-a")
    assert facts(life, day(19)).demotions == ()
    for i in range(20, 20 + RECENT):
        [lost] = facts(life, day(i)).demotions
        assert (lost.session, lost.version, lost.reason) == (day(20), "joint-a", "drawdown")
        check(life.home, facts(life, day(i)), at=AT + timedelta(days=i))
    assert facts(life, day(20 + RECENT)).demotions == ()
    assert [alert.session for alert in alerts(life.home) if alert.rule == "champion_demoted"] == [day(20)]


def test_a_fall_of_the_phase_without_a_champion_is_told_too(life):
    finish(life, 28, fell=True)
    [lost] = facts(life).demotions
    assert (lost.version, lost.reason) == ("the life", "phase 2 → 1: too deep")


def test_a_real_life_has_facts_for_every_rule_of_its_own():
    life, _ = climbed()
    found = life_facts(life)
    assert found.session == life.head
    assert found.sessions_since_retrain is not None
    assert found.drawdown is not None
    assert found.drawdown >= 0
    assert {finding.rule for finding in judge(found)} >= {"drawdown", "retrain_overdue"}
    assert life_facts(life, life.commits()[2]).session == life.commits()[2]
