"""The registry: who is champion as of when, promotions and rollbacks by a person, and that they are replayed."""

from datetime import date
from pathlib import Path
from shutil import copytree

import polars as pl
import pytest
from registrydamage import change_a_leaf
from smalllives import CLIMBED, FIRST, NOW, begin, climbed, run_to

from odin_core.errors import OdinError
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.digest import life_digest
from odin_core.lifecycle.life import Life, plan_rewind
from odin_core.market.calendar import NotASession
from odin_core.market.data import MarketData
from odin_core.registry.entries import ModelCorrupt
from odin_core.registry.history import (
    HISTORY,
    Champion,
    champion_as_of,
    describe_version,
    history,
    pending,
    plan_promotion,
    plan_rollback,
    promotions_on,
)

PROMOTED = date(2023, 1, 20)  # by the gate, in the life that climbs


@pytest.fixture(scope="module")
def life() -> Life:
    return climbed()[0]


@pytest.fixture
def copy(tmp_path: Path) -> tuple[Life, MarketData]:
    """A copy of the life that climbed, to be promoted in."""
    source = climbed()[0]
    copytree(source.home.root, tmp_path / "home")
    return begin(tmp_path / "home", source.config)


def run_on(life: Life, data: MarketData, last: date) -> None:
    """From the head on, to `last`."""
    assert life.head is not None
    run_to(life, data, last, first=data.calendar.next(life.head))


def champion_on(life: Life, session: date) -> str | None:
    found = champion_as_of(life, session)
    return found.version if found else None


def test_the_champion_as_of_each_session_is_the_one_of_its_state(life: Life):
    for session in life.commits():
        state = life.read("phase_state", session).row(0, named=True)
        found = champion_as_of(life, session)
        assert (found.version if found else None) == state["champion"]
        assert (found.since if found else None) == state["champion_since"]
    assert champion_on(life, date(2023, 1, 19)) is None
    assert champion_on(life, PROMOTED) is not None
    assert champion_on(life, date(2030, 1, 1)) == champion_on(life, CLIMBED)
    assert champion_on(life, date(2000, 1, 1)) is None


def test_the_history_has_an_event_for_each_candidate_and_can_be_asked_as_of_any_session(life: Life):
    events = history(life)
    assert events.columns == ["session", *HISTORY.names()]
    assert events["session"].to_list() == sorted(events["session"].to_list())
    judged = [s for s in life.sessions_with("evaluation_report") if life.read("evaluation_report", s)["version"][0]]
    assert events["session"].to_list() == judged
    assert events.height >= 5
    assert events["reason"].null_count() == 0
    as_of = history(life, as_of=date(2023, 1, 19))
    assert as_of.equals(events.filter(pl.col("session") <= date(2023, 1, 19)))
    assert history(life, as_of=date(2000, 1, 1)).is_empty()
    (promoted,) = events.filter(pl.col("event") == "promoted").to_dicts()
    assert promoted["session"] == PROMOTED
    assert promoted["champion_before"] is None
    assert promoted["champion_after"] == promoted["version"]


def test_a_life_that_never_ran_has_no_history(tmp_path: Path):
    fresh, _ = begin(tmp_path / "home")
    assert history(fresh).is_empty()
    assert champion_as_of(fresh, FIRST) is None
    assert fresh.registry.versions() == []
    with pytest.raises(OdinError, match="never had a champion"):
        plan_rollback(fresh, None, "why")
    with pytest.raises(OdinError, match="has no model 'joint-1'"):
        plan_promotion(fresh, "joint-1", None, "why")


def test_a_stored_version_tells_its_training_and_its_events(life: Life):
    version = champion_on(life, CLIMBED)
    assert version is not None
    told = describe_version(life, version)
    assert (told["version"], told["learner"], told["trained_through"]) == (version, "joint", PROMOTED)
    (event,) = told["events"]
    assert event.startswith(f"{PROMOTED}: promoted (all ")
    with pytest.raises(OdinError, match=f"has no model 'joint-zzz'; .*known: .*{version}"):
        describe_version(life, "joint-zzz")


def test_planning_a_promotion_changes_nothing_and_says_what_it_would(copy: tuple[Life, MarketData]):
    life, _ = copy
    before = {p: p.stat().st_mtime_ns for p in life.folder.rglob("*") if p.is_file()}
    log = life.registry.log()
    champion, other = champion_on(life, CLIMBED), history(life)["version"][0]
    assert plan_promotion(life, other, None, "I like it").to_text() == (
        f"life {life.id}, from session 2023-02-10: champion {champion} → {other} (I like it)"
    )
    assert plan_rollback(life, date(2023, 2, 13), "odd").to_text() == (
        f"life {life.id}, from session 2023-02-13: champion {champion} → none (rollback: odd)"
    )
    assert {p: p.stat().st_mtime_ns for p in life.folder.rglob("*") if p.is_file()} == before
    assert life.registry.log() == log
    assert not life.home.registry_changes.exists()


def test_a_promotion_takes_effect_on_the_first_session_that_is_not_planned_yet(copy: tuple[Life, MarketData]):
    life, data = copy
    other = history(life)["version"][0]
    before, after = data.calendar.next(CLIMBED), data.calendar.next(CLIMBED, 2)
    promotion = plan_promotion(life, other, None, "I like it")
    assert promotion.effective == after
    promotion.apply(NOW, "a tester")
    run_on(life, data, after)
    made = {s: set(life.read("recommendations", s)["model_version"].drop_nulls()) for s in (CLIMBED, before)}
    assert made[before] == {other}
    assert other not in made[CLIMBED]
    (event,) = life.read("registry_history", before).to_dicts()
    assert (event["event"], event["champion_after"], event["effective"]) == ("by_person", other, after)
    found = champion_as_of(life, before)
    assert found is not None
    assert (found.version, found.since) == (other, after)
    (note,) = life.notes("promotion")
    assert (note["operator"], note["version"]) == ("a tester", other)


def test_the_earliest_and_wrong_days_of_a_promotion(copy: tuple[Life, MarketData]):
    life, data = copy
    other = history(life)["version"][0]
    for late in (CLIMBED, data.calendar.next(CLIMBED), FIRST):
        with pytest.raises(OdinError, match=f"on {late} comes too late.*the earliest is 2023-02-10"):
            plan_promotion(life, other, late, "why")
    with pytest.raises(NotASession):
        plan_promotion(life, other, date(2023, 2, 12), "why")
    assert plan_promotion(life, other, date(2023, 2, 14), "why").effective == date(2023, 2, 14)


def test_a_rollback_goes_back_to_the_champion_before_and_twice_forward_again(copy: tuple[Life, MarketData]):
    life, data = copy
    champion, other = champion_on(life, CLIMBED), history(life)["version"][0]
    plan_promotion(life, other, None, "I like it").apply(NOW, "me")
    run_on(life, data, data.calendar.next(CLIMBED))
    assert plan_rollback(life, None, "I do not").event == "rollback"
    back = plan_rollback(life, None, "I do not")
    assert (back.version, back.before.version if back.before else None) == (champion, other)
    back.apply(NOW, "me")
    run_on(life, data, data.calendar.next(CLIMBED, 2))
    assert champion_on(life, data.calendar.next(CLIMBED, 2)) == champion
    assert plan_rollback(life, None, "again").version == other


def test_taking_the_only_champion_away_leaves_none(copy: tuple[Life, MarketData]):
    life, data = copy
    plan_rollback(life, None, "odd").apply(NOW, "me")
    run_on(life, data, data.calendar.next(CLIMBED))
    assert champion_on(life, data.calendar.next(CLIMBED)) is None


def test_promotions_are_an_input_of_the_life_and_are_replayed(copy: tuple[Life, MarketData], tmp_path: Path):
    life, data = copy
    other = history(life)["version"][0]
    plan_promotion(life, other, None, "I like it").apply(NOW, "me")
    end = data.calendar.next(CLIMBED, 4)
    run_on(life, data, end)
    whole = life_digest(life)
    plan_rewind(life, CLIMBED).apply()
    found = lives.load(life.home, life.id)
    run_on(found, data, end)
    assert life_digest(found) == whole
    assert promotions_on(found, date(2023, 2, 10))[0]["why"] == "I like it"
    assert promotions_on(found, date(2023, 2, 9)) == ()

    without = tmp_path / "without"
    copytree(climbed()[0].home.root, without)
    plain, market = begin(without, life.config)
    run_on(plain, market, end)
    assert life_digest(plain).digest != whole.digest


def test_a_model_from_an_undone_future_cannot_decide_on_what_it_has_learned(copy: tuple[Life, MarketData]):
    life, data = copy
    late = life.read("evaluation_report", date(2023, 2, 3))["version"][0]
    plan_rewind(life, date(2023, 1, 11)).apply()
    assert late in life.registry.versions()
    with pytest.raises(OdinError, match=r"was trained on sessions up to 2023-02-03, .* cannot decide on 2023-01-13"):
        plan_promotion(life, late, None, "tempting")
    with pytest.raises(OdinError, match="cannot decide on 2023-02-03"):
        plan_promotion(life, late, date(2023, 2, 3), "tempting")
    assert plan_promotion(life, late, date(2023, 2, 6), "honest").effective == data.calendar.next(date(2023, 2, 3))


@pytest.mark.parametrize("way", ["promotion", "rollback"])
def test_a_damaged_model_is_refused_before_it_becomes_an_input(copy: tuple[Life, MarketData], way: str):
    life, data = copy
    champion, other = champion_on(life, CLIMBED), history(life)["version"][0]
    plan_promotion(life, other, None, "I like it").apply(NOW, "me")
    run_on(life, data, data.calendar.next(CLIMBED))
    assert champion is not None
    change_a_leaf(life, champion)
    with pytest.raises(ModelCorrupt, match=champion):
        plan_promotion(life, champion, None, "why") if way == "promotion" else plan_rollback(life, None, "why")


def test_a_rollback_takes_a_promotion_back_that_has_not_taken_effect_yet(copy: tuple[Life, MarketData]):
    life, data = copy
    champion, (other, another) = champion_on(life, CLIMBED), history(life)["version"][:2]
    plan_promotion(life, other, None, "I like it").apply(NOW, "me")
    to_come = pending(life)
    assert to_come is not None
    assert (to_come.to_version, to_come.effective) == (other, date(2023, 2, 10))
    plan_promotion(life, another, None, "or this").apply(NOW, "me")
    assert plan_rollback(life, None, "no").version == other
    plan_rollback(life, None, "no").apply(NOW, "me")
    assert plan_rollback(life, None, "yes").version == another
    plan_rollback(life, None, "yes").apply(NOW, "me")
    plan_promotion(life, other, None, "at last").apply(NOW, "me")
    back = plan_rollback(life, None, "as it was")
    assert (back.before, back.version) == (Champion(other, date(2023, 2, 10)), another)
    run_on(life, data, data.calendar.next(CLIMBED))
    assert pending(life) is None
    assert champion_on(life, data.calendar.next(CLIMBED)) == other
    assert champion != other
