"""A live life's retrain outside its week: the fold's own trial, the same gate, and a promotion after the head."""

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from smalllives import begin, clock, quick, run_to

from odin_core.lifecycle import learning, phases
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.digest import life_digest
from odin_core.lifecycle.life import Life, plan_rewind
from odin_core.lifecycle.live import NothingToLearnFrom, NotLive, retrain_live
from odin_core.market.data import MarketData
from odin_core.registry.entries import Deployment
from odin_core.registry.history import Champion, champion_as_of, history

FRIDAY, HEAD = date(2023, 1, 13), date(2023, 1, 17)  # Tuesday, so that 18 is planned and 19 is not
PLANNED, EFFECTIVE = date(2023, 1, 18), date(2023, 1, 19)


class Small(NamedTuple):
    life: Life
    data: MarketData

    def again(self) -> "Small":
        """As another process would find it."""
        return Small(lives.load(self.life.home, self.life.id), MarketData(self.data.lake, self.data.profile))

    def promotions(self) -> list[Deployment]:
        return self.life.registry.log(source="outside")


@pytest.fixture(scope="module")
def grown_live(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Has finished Friday; its bars go on for ten sessions."""
    small = Small(*begin(tmp_path_factory.mktemp("live") / "home", quick("live=true")))
    run_to(*small, FRIDAY)
    for session in small.data.calendar.sessions(FRIDAY, date(2023, 1, 27)):
        small.data.bars(session)
    return small


@pytest.fixture
def live(grown_live: Small, tmp_path: Path) -> Small:
    shutil.copytree(grown_live.life.home.root, tmp_path / "home")
    home = lives.Home(tmp_path / "home")
    life = lives.load(home, grown_live.life.id)
    return Small(life, MarketData(home.lake(grown_live.data.lake.root.name), grown_live.data.profile))


@pytest.fixture
def passes_all(monkeypatch: pytest.MonkeyPatch):
    """A gate that lets everything pass, and a phase 1 that ends as soon as it begins."""

    def judge(evidence, config):
        return replace(original(evidence, config), criteria=())

    original = learning.judge
    monkeypatch.setattr(learning, "judge", judge)
    monkeypatch.setattr(phases, "_leaves_1", lambda state, config: ())


def test_a_simulated_life_is_refused_because_it_retrains_inside_its_fold(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    with pytest.raises(NotLive, match=r"simulated.*odin life new --market demo --start 2023-01-02 --set live=true"):
        retrain_live(life, data, why="a test", clock=clock)


def test_a_life_without_a_session_has_nothing_to_learn_from(tmp_path: Path):
    life, data = begin(tmp_path / "home", quick("live=true"))
    with pytest.raises(NothingToLearnFrom, match="odin bootstrap --market demo"):
        retrain_live(life, data, why="a test", clock=clock)


def test_at_a_weeks_end_it_comes_to_the_folds_own_candidate_and_verdict(live: Small):
    week = live.life.lake.read("evaluation_report", FRIDAY).row(0, named=True)
    outcome = retrain_live(*live, why="a test", clock=clock)
    assert outcome == f"{week['version']} {week['outcome']}: {week['reason']}"


def test_a_candidate_that_fails_the_gate_is_kept_and_noted_but_changes_nothing(live: Small):
    run_to(*live, HEAD)
    before = life_digest(live.life)
    outcome = retrain_live(*live, why="phase 0 → 1", clock=clock)
    (note,) = live.life.notes("retrain")
    assert (note["head"], note["why"], note["outcome"]) == (str(HEAD), "phase 0 → 1", outcome)
    assert "insufficient: enough_sessions" in outcome
    assert note["version"] in live.life.registry.versions()
    for kind in ("html", "json"):
        assert (live.life.reports / f"retrain-{HEAD}-{note['version']}.{kind}").is_file()
    assert live.promotions() == []
    assert life_digest(live.life) == before


def test_too_little_to_train_on_is_an_outcome_too(tmp_path: Path):
    life, data = begin(tmp_path / "home", quick("live=true"))
    run_to(life, data, date(2023, 1, 3))
    assert retrain_live(life, data, why="a test", clock=clock).startswith("not trained: ")
    assert life.notes("retrain")[0]["version"] is None


def test_what_passes_the_gate_decides_from_the_first_session_that_is_not_planned_yet(live: Small, passes_all: None):
    run_to(*live, HEAD)
    outcome = retrain_live(*live, why="phase 1 → 2", clock=clock)
    version = outcome.split()[0]
    assert f"promoted from session {EFFECTIVE} on" in outcome
    run_to(*live.again(), EFFECTIVE)
    events = history(live.life).filter(pl.col("session") == PLANNED)
    assert events.select("event", "version", "champion_after", "effective").row(0) == (
        "promoted", version, version, EFFECTIVE,
    )  # fmt: skip
    assert "retrain outside its week, because of phase 1 → 2" in events["reason"][0]
    assert champion_as_of(live.life, PLANNED) == Champion(version, EFFECTIVE)
    planned = live.life.lake.read("recommendations", PLANNED)  # at its close, for EFFECTIVE
    assert set(planned["model_version"].drop_nulls()) == {version}
    assert set(live.life.lake.read("recommendations", HEAD)["model_version"].drop_nulls()).isdisjoint({version})


def test_the_promotion_is_replayed_when_the_sessions_are_computed_again(live: Small, passes_all: None):
    run_to(*live, HEAD)
    retrain_live(*live, why="a test", clock=clock)
    run_to(*live, EFFECTIVE)
    before = life_digest(live.life)
    plan_rewind(live.life, HEAD).apply()
    again = live.again()
    run_to(*again, EFFECTIVE)
    assert life_digest(again.life) == before


def test_asked_again_at_the_same_head_for_whatever_reason_it_does_nothing(live: Small, passes_all: None):
    """Drift, a phase and a person may call on one evening; all of them would learn from the same sessions."""
    first = retrain_live(*live, why="a test", clock=clock)
    for why in ("a test", "another"):
        assert (
            retrain_live(*live.again(), why=why, clock=clock) == f"done before at {FRIDAY}, because of a test: {first}"
        )
    assert len(live.life.notes("retrain")) == len(live.promotions()) == 1


@pytest.mark.parametrize("why", ["a test", "another"])
def test_a_retrain_that_was_killed_before_its_note_is_promoted_once(live: Small, passes_all: None, why: str):
    retrain_live(*live, why="a test", clock=clock)
    ledger = live.life.folder / "ledger.jsonl"
    ledger.write_text("".join(line for line in ledger.open() if '"event": "retrain"' not in line))
    retrain_live(*live.again(), why=why, clock=clock)
    assert len(live.promotions()) == len(live.life.notes("retrain")) == 1


def test_the_next_head_is_another_occasion(live: Small):
    retrain_live(*live, why="a test", clock=clock)
    run_to(*live, HEAD)
    retrain_live(*live, why="a test", clock=clock)
    assert [note["head"] for note in live.life.notes("retrain")] == [str(FRIDAY), str(HEAD)]


def test_every_candidate_of_such_a_retrain_is_a_trial_and_the_same_model_again_is_none(live: Small):
    def told(head: date) -> int:
        (page,) = live.life.reports.glob(f"retrain-{head}-*.json")
        return json.loads(page.read_text())["facts"]["trials"]

    counted = []
    for head in (FRIDAY, date(2023, 1, 16), HEAD):
        run_to(*live, head)
        retrain_live(*live, why="a test", clock=clock)
        counted.append(told(head))
    known = live.life.read("phase_state", FRIDAY)["trials"][0]
    assert counted == [known, known + 1, known + 2]
