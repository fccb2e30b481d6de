"""A life on disk: what makes its identity, how it is found again, and what it says when something is wrong with it."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from odin_core.errors import OdinError
from odin_core.home import Home, open_home
from odin_core.lake import write_text
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig, settings, with_settings
from odin_core.lifecycle.life import Commit, Life, LifeUnreadable, SessionDamaged

FIRST = date(2023, 1, 2)
CONFIG = LifeConfig()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def test_identity_is_market_configuration_and_first_session_and_nothing_else(home: Home, tmp_path: Path):
    mine = Life(home, "demo", CONFIG, FIRST)
    same = [
        Life(open_home(tmp_path / "elsewhere"), "demo", LifeConfig(), date(2023, 1, 2)),
        lives.create(home, "demo", CONFIG, FIRST),
        lives.load(home, mine.id),
    ]
    assert {life.id for life in same} == {mine.id}
    others = [
        Life(home, "nse", CONFIG, FIRST),
        Life(home, "demo", CONFIG, date(2023, 1, 3)),
        *(Life(home, "demo", changed, FIRST) for changed in every_change()),
    ]
    ids = {life.id for life in others}
    assert mine.id not in ids
    assert len(ids) == len(others)


def every_change() -> list[LifeConfig]:
    """CONFIG with each of its settings changed, one at a time."""
    changed = []
    for name, value in settings().items():
        if name == "learners":
            continue
        if isinstance(value, bool | str):
            text = {"": "pe < 9", "simulation": "money"}.get(str(value), str(not value).lower())
        else:
            text = str(value + 1 if isinstance(value, int) else value / 2 or 0.5)
        changed.append(with_settings(CONFIG, [f"{name}={text}"]))
    return changed


def test_running_a_life_does_not_change_what_it_is(home: Home):
    life = lives.create(home, "demo", CONFIG, FIRST)
    life.commit(Commit(FIRST, {}, {}, "code"))
    life.note(datetime(2023, 1, 2, tzinfo=UTC), "session")
    assert lives.load(home, life.id).id == life.id


def test_making_a_life_twice_finds_it_and_makes_it_current(home: Home):
    first = lives.create(home, "demo", CONFIG, FIRST)
    first.commit(Commit(FIRST, {}, {}, "code"))
    other = lives.create(home, "demo", replace(CONFIG, seed=8), FIRST)
    assert lives.current(home, "demo") == other
    again = lives.create(home, "demo", CONFIG, FIRST)
    assert (again, again.head) == (first, FIRST)
    assert lives.current(home, "demo") == first
    assert lives.is_current(first)
    assert not lives.is_current(other)
    assert sorted(life.id for life in lives.lives(home)) == sorted([first.id, other.id])


def test_each_market_has_a_current_life_of_its_own(home: Home):
    assert lives.current(home, "demo") is None
    demo, nse = lives.create(home, "demo", CONFIG, FIRST), lives.create(home, "nse", CONFIG, FIRST)
    assert lives.current(home, "demo") == demo
    assert lives.current(home, "nse") == nse
    assert lives.lives(home, "nse") == [nse]
    lives.use(home, demo)
    assert lives.current(home, "nse") == nse


def test_a_life_is_found_by_the_beginning_of_its_id_if_only_one_begins_so(home: Home):
    life = lives.create(home, "demo", CONFIG, FIRST)
    other = lives.create(home, "demo", replace(CONFIG, seed=8), FIRST)
    assert lives.load(home, life.id[:6]) == life
    with pytest.raises(OdinError, match="2 lives"):
        lives.load(home, "")
    assert other.id[:6] != life.id[:6]


@pytest.mark.parametrize("wrong", ["zzz", "*", "[", "../", "/etc", "?" * 12])
def test_an_unknown_id_names_the_lives_that_there_are(home: Home, wrong: str):
    life = lives.create(home, "demo", CONFIG, FIRST)
    with pytest.raises(OdinError, match=f"no life in .*known: {life.id}"):
        lives.load(home, wrong)


def edited(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        data = json.loads(path.read_text())
        edit(data)
        path.write_text(json.dumps(data))

    return apply


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut off": lambda p: p.write_text(p.read_text()[:40]),
    "empty": lambda p: p.write_text(""),
    "bytes": lambda p: p.write_bytes(b"\xff\xfe\x00"),
    "a list": lambda p: p.write_text("[]"),
    "no market": edited(lambda d: d.pop("market")),
    "no date": edited(lambda d: d.update(first_session="soon")),
    "a setting from the future": edited(lambda d: d["config"].update(telepathy=True)),
    "a section that is none": edited(lambda d: d["config"].update(learner=5)),
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_damaged_life_says_which_file_and_what_to_do(home: Home, damage: str):
    life = lives.create(home, "demo", CONFIG, FIRST)
    DAMAGES[damage](life.folder / "life.json")
    for read in (lambda: lives.load(home, life.id), lambda: lives.lives(home), lambda: lives.current(home, "demo")):
        with pytest.raises(LifeUnreadable, match=r"life\.json is damaged .*odin life new"):
            read()


def test_a_life_that_code_with_fewer_settings_made_keeps_its_id_and_its_sessions(home: Home):
    made = lives.create(home, "demo", CONFIG, FIRST)
    old = "0123456789ab"
    (home.lives / made.id).rename(home.lives / old)
    data = json.loads((home.lives / old / "life.json").read_text())
    del data["config"]["learner"]["trees"]
    (home.lives / old / "life.json").write_text(json.dumps(data))
    found = lives.load(home, old)
    assert (found.id, found.config) == (old, CONFIG)
    assert found.folder == home.lives / old
    found.commit(Commit(FIRST, {}, {}, "code"))
    assert lives.load(home, old[:4]).head == FIRST


def test_the_head_is_the_last_commit_and_a_commit_says_what_went_in_and_out(home: Home):
    life = lives.create(home, "demo", CONFIG, FIRST)
    assert (life.head, life.commits(), life.committed(FIRST)) == (None, [], None)
    records = [Commit(date(2023, 1, day), {"price_history": "a"}, {"executions": "b"}, "c") for day in (3, 2, 4)]
    for record in records:
        life.commit(record)
    assert life.commits() == [date(2023, 1, 2), date(2023, 1, 3), date(2023, 1, 4)]
    assert life.head == date(2023, 1, 4)
    assert [life.committed(r.session) for r in records] == records


@pytest.mark.parametrize("text", ["", "{", "[]", '{"session": "2023-01-02"}'])
def test_a_damaged_commit_names_session_file_and_the_way_back(home: Home, text: str):
    life = lives.create(home, "demo", CONFIG, FIRST)
    life.commit(Commit(FIRST, {}, {}, "code"))
    write_text(text, life.lake.root / "commits" / f"{FIRST}.json")
    with pytest.raises(
        SessionDamaged, match=r"session 2023-01-02 .*2023-01-02\.json is damaged.*rewind .*--to 2023-01-01"
    ):
        life.committed(FIRST)


def test_the_ledger_keeps_order_and_passes_over_a_torn_line(home: Home):
    life = lives.create(home, "demo", CONFIG, FIRST)
    assert life.notes("session") == []
    at = datetime(2023, 1, 2, 12, tzinfo=UTC)
    life.note(at, "session", session=FIRST)
    with (life.folder / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"event": "session", "at"\n{"event": "session"}}\n')
    life.note(at, "session", session=date(2023, 1, 3))
    life.note(at, "rewind", to=FIRST)
    assert [note["session"] for note in life.notes("session")] == ["2023-01-02", "2023-01-03"]


def test_a_list_of_lives_shows_what_tells_them_apart(home: Home):
    life = lives.create(home, "demo", CONFIG, FIRST)
    life.commit(Commit(FIRST, {}, {}, "code"))
    assert lives.describe(life, current=True) == {
        "life": life.id, "current": True, "market": "demo", "seed": 7, "edge": 0.5, "live": False,
        "first_session": FIRST, "head": FIRST, "sessions": 1, "generation": 1,
    }  # fmt: skip
