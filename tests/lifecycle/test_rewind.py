"""Rewinding: said before it is done, nothing deleted, and running on is as if the life had never gone further."""

from datetime import date
from pathlib import Path

import pytest
from smalllives import FIRST, LAST, begin, run_to

from odin_core.errors import OdinError
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.digest import life_digest
from odin_core.lifecycle.life import plan_rewind

TO = date(2023, 1, 11)  # a Wednesday, after one training


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_rewind_keeps_the_old_generation_and_running_on_is_as_if_it_had_never_gone_further(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    run_to(life, data, TO)
    at_to = life_digest(life)
    run_to(life, data, LAST)
    whole, old = life_digest(life), files(life.folder / "generations" / "1")

    rewind = plan_rewind(life, TO)
    everything = files(life.folder)
    assert rewind.to_text() == (
        f"life {life.id}: generation 1 → 2; keeps 8 sessions up to {TO}; undoes 4 (2023-01-12 to {LAST}), which stay "
        f"on disk in generation 1"
    )
    assert files(life.folder) == everything, "saying it changed something"

    rewind.apply()
    found = lives.load(life.home, life.id)
    for seen in (life, found):  # the object in use and a new one
        assert (seen.generation, seen.head) == (2, TO)
        assert life_digest(seen) == at_to
    assert files(life.folder / "generations" / "1") == old

    assert [r.did for r in run_to(found, data, LAST)] == ["skipped"] * 8 + ["ran"] * 4
    assert life_digest(found) == whole
    assert files(life.folder / "generations" / "1") == old, "running on wrote through to the old generation"
    assert plan_rewind(found, FIRST).generation == 3


def test_a_rewind_that_was_killed_before_its_last_word_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    life, data = begin(tmp_path / "home")
    run_to(life, data, TO)
    before = life_digest(life)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("odin_core.lifecycle.life.write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            plan_rewind(life, FIRST).apply()
    found = lives.load(life.home, life.id)
    assert found.generation == 1
    assert life_digest(found) == before
    plan_rewind(found, FIRST).apply()
    assert (found.generation, found.head) == (3, FIRST)


def test_only_a_finished_session_can_be_rewound_to(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    with pytest.raises(OdinError, match="2023-01-02 is not one of its finished sessions"):
        plan_rewind(life, FIRST)
    run_to(life, data, date(2023, 1, 4))
    for wrong in (date(2023, 1, 5), date(2023, 1, 7)):
        with pytest.raises(OdinError, match=f"{wrong} is not one of its finished sessions .2023-01-02 to 2023-01-04."):
            plan_rewind(life, wrong)
    nothing = plan_rewind(life, date(2023, 1, 4))
    assert nothing.undone == []
    assert "undoes 0 (none)" in nothing.to_text()


def test_a_date_before_the_life_undoes_all_of_it(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    run_to(life, data, date(2023, 1, 4))
    whole = life_digest(life)
    plan_rewind(life, date(2022, 12, 31)).apply()
    assert (life.head, life.lake.tables()) == (None, [])
    run_to(life, data, date(2023, 1, 4))
    assert life_digest(life) == whole
