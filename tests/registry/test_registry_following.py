"""The log of deployments follows a life's own history; homes of earlier versions go on."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from shutil import copytree

import marketdatabases
import pytest
from odincommand import odin
from registrydamage import change_row
from smalllives import CLIMBED, NOW, begin, climbed, run_to

from odin_core.lifecycle import life as lives
from odin_core.lifecycle import run
from odin_core.lifecycle.digest import life_digest
from odin_core.lifecycle.life import Life, plan_rewind
from odin_core.market.data import MarketData
from odin_core.registry.entries import Deployment, ModelCorrupt
from odin_core.registry.following import PromotionsDamaged, follow
from odin_core.registry.history import champion_as_of, history, plan_promotion, plan_rollback

NEXT = date(2023, 2, 9)
PROMOTED = date(2023, 1, 20)  # by the gate, in the life that climbs


@pytest.fixture
def copy(tmp_path: Path) -> tuple[Life, MarketData]:
    source = climbed()[0]
    copytree(source.home.root, tmp_path / "home")
    return begin(tmp_path / "home", source.config)


@pytest.fixture
def old(copy: tuple[Life, MarketData]) -> tuple[Life, MarketData]:
    """The same home as an earlier ODIN left it: models as files, no database."""
    life, data = copy
    (life.folder / "models").mkdir()
    for version in life.registry.versions():
        (life.folder / "models" / f"{version}.json").write_text(life.registry.model(version).to_json())
    for path in life.home.root.glob("registry.db*"):
        path.unlink()
    return lives.load(life.home, life.id), data


def brief(log: list[Deployment]) -> list[tuple[str, str | None, str | None, str]]:
    return [(e.event, e.from_version, e.to_version, str(e.effective)) for e in log]


def run_on(life: Life, data: MarketData, last: date) -> None:
    assert life.head is not None
    run_to(life, data, last, first=data.calendar.next(life.head))


def test_a_promotion_by_the_gate_is_in_the_log_with_its_numbers(copy: tuple[Life, MarketData]):
    life, _ = copy
    (event,) = history(life).filter(history(life)["event"] == "promoted").to_dicts()
    (line,) = life.registry.log()
    assert (line.event, line.source, line.operator, line.at) == ("promoted", "fold", "the fold", NOW)
    assert (line.to_version, line.effective, line.why) == (event["version"], event["effective"], event["reason"])
    report = life.read("evaluation_report", PROMOTED)
    judged = dict(report.drop_nulls("value").select("criterion", "value").iter_rows())
    assert judged.items() <= line.metrics.items()
    assert len(judged) > 3
    facts = life.registry.facts(event["version"])
    assert facts["dataset"] == report["dataset"][0]
    assert {"seed", "code_version", "features_version", "trained_through"} <= facts.keys()
    pointer, champion = life.registry.pointer(), champion_as_of(life, CLIMBED)
    assert champion is not None
    assert (pointer.version, pointer.effective) == (champion.version, champion.since)


def test_following_again_adds_nothing(copy: tuple[Life, MarketData]):
    life, _ = copy
    before = life.registry.log()
    assert follow(life, NOW) == []
    assert life.registry.log() == before


def test_a_kill_between_the_commit_and_the_log_loses_nothing(copy: tuple[Life, MarketData], monkeypatch):
    life, data = copy
    plan_rewind(life, date(2023, 1, 19)).apply()

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    follow(life, NOW)
    with monkeypatch.context() as patched:
        patched.setattr(run, "follow", lambda life, at: dies() if life.head == PROMOTED else [])
        with pytest.raises(KeyboardInterrupt):
            run_on(life, data, PROMOTED)
    assert life.head == PROMOTED
    assert life.registry.pointer().version is None
    again = lives.load(life.home, life.id)
    run_on(again, data, data.calendar.next(PROMOTED))
    champion = champion_as_of(again, PROMOTED)
    assert champion is not None
    assert again.registry.pointer().version == champion.version
    assert [e.event for e in again.registry.log()] == ["promoted", "rewound", "promoted"]
    assert again.registry.verify() == []


def test_what_a_person_decided_is_logged_once_and_the_fold_takes_it_up(copy: tuple[Life, MarketData]):
    life, data = copy
    champion, other = life.registry.pointer().version, history(life)["version"][0]
    plan_promotion(life, other, None, "I like it").apply(NOW, "me")
    run_on(life, data, NEXT)
    assert brief(life.registry.log())[1:] == [("by_person", champion, other, "2023-02-10")]
    plan_rollback(life, None, "not any more").apply(NOW, "me")
    run_on(life, data, data.calendar.next(NEXT))
    assert brief(life.registry.log())[2:] == [("rollback", other, champion, "2023-02-13")]
    assert life.registry.log()[-1].why == "rollback: not any more"
    assert life.registry.verify() == []


def test_a_decision_far_ahead_is_overtaken_by_the_fold_and_comes_back_when_its_day_comes(
    copy: tuple[Life, MarketData],
):
    life, data = copy
    champion, other = life.registry.pointer().version, history(life)["version"][0]
    later = data.calendar.next(CLIMBED, 4)
    plan_promotion(life, other, later, "in a while").apply(NOW, "me")
    plan_rollback(life, None, "now").apply(NOW, "me")
    assert brief(life.registry.log())[1:] == [
        ("by_person", champion, other, str(later)), ("rollback", other, champion, "2023-02-10"),
    ]  # fmt: skip
    run_on(life, data, data.calendar.previous(later))
    log = life.registry.log()
    assert (log[-1].to_version, log[-1].effective) == (other, later)
    found = champion_as_of(life, data.calendar.previous(later))
    assert found is not None
    assert (found.version, life.registry.pointer().version) == (other, other)
    assert life.registry.verify() == []


@pytest.mark.parametrize("first_seen_by", ["a run", "follow"])
def test_a_rewind_is_an_event_and_the_pointer_goes_back(copy: tuple[Life, MarketData], first_seen_by: str):
    life, data = copy
    champion, whole = life.registry.pointer().version, life_digest(life)
    plan_rewind(life, date(2023, 1, 19)).apply()
    if first_seen_by == "follow":
        (line,) = follow(life, NOW)
        assert (line.event, line.to_version, str(line.effective)) == ("rewound", None, "2023-01-20")
        assert line.why == "rewound to 2023-01-19: generation 1 → 2"
        assert life.registry.pointer().version is None
    again = lives.load(life.home, life.id)
    run_on(again, data, CLIMBED)
    assert life_digest(again) == whole
    assert brief(again.registry.log())[1:] == [
        ("rewound", champion, None, "2023-01-20"), ("promoted", None, champion, "2023-01-23"),
    ]  # fmt: skip
    assert again.registry.verify() == []


def test_a_home_of_an_earlier_version_goes_on_with_its_models_and_its_history(
    old: tuple[Life, MarketData], copy: tuple[Life, MarketData]
):
    life, data = old
    reference = climbed()[0]
    assert life.registry.versions() == reference.registry.versions()
    version = history(life)["version"][0]
    assert life.registry.model(version) == reference.registry.model(version)
    assert life.registry.facts(version)["dataset"] == reference.registry.facts(version)["dataset"]
    run_on(life, data, NEXT)
    assert brief(life.registry.log()) == brief(reference.registry.log())
    assert life.registry.verify() == []


def test_in_a_home_of_an_earlier_version_a_rollback_comes_back_to_its_champion(old: tuple[Life, MarketData]):
    life, _ = old
    champion = champion_as_of(life, CLIMBED)
    assert champion is not None
    plan_promotion(life, history(life)["version"][0], None, "I like it").apply(NOW, "me")
    assert [e.event for e in life.registry.log()] == ["promoted", "by_person"]
    assert plan_rollback(life, None, "no").version == champion.version


def test_a_home_of_an_earlier_version_that_was_rewound_there_keeps_its_champion(old: tuple[Life, MarketData]):
    life, _ = old
    plan_rewind(life, date(2023, 2, 1)).apply()
    again = lives.load(life.home, life.id)
    assert again.generation == 2
    champion = champion_as_of(again, date(2023, 2, 1))
    assert champion is not None
    follow(again, NOW)
    assert brief(again.registry.log()) == brief(climbed()[0].registry.log())
    assert again.registry.pointer().version == champion.version
    assert follow(again, NOW) == []


def test_the_log_of_an_earlier_versions_home_is_shown_before_it_runs_on(old: tuple[Life, MarketData]):
    life, _ = old
    lives.use(life.home, life)
    shown = odin("registry", "log", "--json", home=life.home).json["deployments"]
    assert [(e["event"], e["to_version"]) for e in shown] == [
        (e.event, e.to_version) for e in climbed()[0].registry.log()
    ] != []  # fmt: skip


def test_promotions_of_an_earlier_version_are_taken_over_once_and_replayed(old: tuple[Life, MarketData]):
    life, data = old
    other = history(life)["version"][0]
    entries = [{"effective": "2023-02-10", "version": other, "why": "I like it"}]
    entries += [{"effective": "2023-02-13", "version": None, "why": "rollback: no", "event": "by_person"}]
    (life.folder / "promotions.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    life.note(NOW, "promotion", operator="somebody", effective="2023-02-10", version=other, why="I like it")
    log = life.registry.log()
    assert [(e.operator, e.to_version, e.source) for e in log] == [
        ("somebody", other, "outside"), ("unknown", None, "outside"),
    ]  # fmt: skip
    assert log[0].at == NOW
    assert lives.load(life.home, life.id).registry.log() == log
    run_on(life, data, data.calendar.next(NEXT))
    assert champion_as_of(life, date(2023, 2, 10)) is None
    found = champion_as_of(life, NEXT)
    assert found is not None
    assert found.version == other
    assert life.registry.pointer().version is None
    assert life.registry.verify() == []


def test_a_home_that_moves_its_registry_to_a_server_takes_everything_along(copy: tuple[Life, MarketData]):
    life, data = copy
    other = history(life)["version"][0]
    plan_promotion(life, other, None, "I like it").apply(NOW, "me")
    there = replace(life, home=replace(life.home, registry_url=marketdatabases.new_server_database()))
    assert there.registry.log() == life.registry.log()
    assert there.registry.pointer() == life.registry.pointer()
    assert [b for b, _ in there.registry.saved()] == [b for b, _ in life.registry.saved()]
    assert there.registry.facts(other) == life.registry.facts(other)
    run_on(there, data, NEXT)
    found = champion_as_of(there, NEXT)
    assert found is not None
    assert found.version == there.registry.pointer().version == other
    assert there.registry.verify() == []
    assert life.registry.pointer().followed != there.registry.pointer().followed


@pytest.mark.parametrize("line", ["{", "[]", '{"version": "joint-1"}', "5"])
def test_a_damaged_file_of_promotions_is_named_and_nothing_runs_on_without_it(old: tuple[Life, MarketData], line: str):
    life, data = old
    path = life.folder / "promotions.jsonl"
    path.write_text(json.dumps({"effective": "2023-03-01", "version": None, "why": "x"}) + f"\n{line}\n")
    for _ in range(2):
        with pytest.raises(PromotionsDamaged, match=r"promotions\.jsonl is damaged"):
            run_on(life, data, NEXT)
    assert life.head == CLIMBED


def test_a_damaged_model_of_an_earlier_version_is_refused_when_it_is_needed(old: tuple[Life, MarketData]):
    life, data = old
    champion = champion_as_of(life, CLIMBED)
    assert champion is not None
    path = life.folder / "models" / f"{champion.version}.json"
    path.write_text(path.read_text().replace("leaf_value=", "leaf_value=1", 1))
    with pytest.raises(ModelCorrupt, match=rf"{path}.*is damaged \(it was not taken over"):
        run_on(life, data, NEXT)
    assert champion.version not in life.registry.versions()


def test_verify_finds_what_does_not_fit(copy: tuple[Life, MarketData]):
    life, _ = copy
    change_row(life, "deployments", "from_version = 'joint-x'")
    (finding,) = life.registry.verify()
    assert "revision 1 begins at joint-x" in finding
    change_row(life, "pointers", "version = 'joint-y'")
    assert "the pointer says joint-y" in life.registry.verify()[-1]
