"""How shadows compare: numbers worked by hand, loops beside frames, and what people are shown."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from shadows import grown
from smalllives import begin

from odin_core.evaluation.sequential import cluster_mean_interval
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.shadow import SHADOW_REPLAY
from odin_core.lifecycle.shadow_report import (
    BY_SESSION,
    PICTURE_BYTES,
    SERIES,
    VERSIONS,
    NothingShadowed,
    compare,
    compared,
    shadow_markdown,
    shadow_picture,
)

MONDAY, TUESDAY, WEDNESDAY = date(2023, 1, 2), date(2023, 1, 3), date(2023, 1, 4)


def row(
    session: date, symbol: str, version: str, reward: float | None, *, role: str = "candidate", status: str = "taken",
    through: date | None = date(2022, 12, 30), policy: str = "joint", size: float = 0.01,
) -> dict[str, Any]:  # fmt: skip
    return {
        "decision_id": f"{session}/{symbol}", "session": session, "symbol": symbol, "version": version, "role": role,
        "trained_through": through, "policy": policy, "status": status, "size": size, "complete": reward is not None,
        "reward": reward, "net_return": None if reward is None else reward / 100,
    }  # fmt: skip


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={name: SHADOW_REPLAY[name] for name in rows[0]})


BY_HAND = frame(
    row(MONDAY, "A", "old", 1.0, role="champion"),
    row(MONDAY, "B", "old", 5.0, role="champion", status="skipped"),  # what it leaned to would have earned 5
    row(TUESDAY, "A", "old", -1.0, role="champion"),
    row(TUESDAY, "B", "old", None, role="champion"),  # never filled
    row(MONDAY, "A", "new", 2.0, through=MONDAY),
    row(MONDAY, "B", "new", 0.5, status="rejected", through=MONDAY),
    row(TUESDAY, "A", "new", 3.0, status="skipped", through=MONDAY),
    row(TUESDAY, "B", "new", 4.0, through=MONDAY),
)


def test_each_number_as_worked_by_hand():
    found = compared(BY_HAND).versions
    champion, new = found.rows(named=True)
    assert (champion["version"], champion["role"], new["version"]) == ("old", "champion", "new")
    assert (champion["sessions"], champion["choices"], champion["trades"], champion["known"]) == (2, 4, 3, 2)
    assert (champion["reward"], champion["hit_rate"]) == (0.0, 0.5)
    assert champion["difference"] is None
    assert champion["paired"] == 0
    assert (new["choices"], new["trades"], new["known"]) == (4, 3, 3)
    assert new["reward"] == pytest.approx((2.0 + 0.5 + 4.0) / 3)
    assert new["hit_rate"] == 1.0
    assert new["capital_return"] == pytest.approx(0.01 * (0.02 + 0.04)), "what limits refused earns no capital"
    assert new["paired"] == 3, "of Tuesday's B the champion's outcome is not known"
    assert new["difference"] == pytest.approx(((2 - 1) + (0.5 - 0) + (0 - -1)) / 3)
    assert (new["first"], new["last"]) == (MONDAY, TUESDAY)


def test_the_interval_is_clustered_by_session_and_wider_than_that_of_independent_rows():
    rng = np.random.default_rng(3)
    sessions = [date(2023, 1, d) for d in range(2, 22)]
    shift = dict(zip(sessions, rng.normal(0.3, 1.0, len(sessions)), strict=True))
    rows, differences, of = [], [], []
    for session in sessions:
        for i in range(int(rng.integers(3, 12))):
            mine, theirs = float(shift[session] + 0.1 * rng.normal()), float(rng.normal())
            rows += [row(session, f"S{i}", "old", theirs, role="champion"), row(session, f"S{i}", "new", theirs + mine)]
            differences.append(mine)
            of.append(session.toordinal())
    found = compared(frame(*rows), alpha=0.1).versions.row(1, named=True)
    expected = cluster_mean_interval(differences, of, 0.1)
    assert (found["difference"], found["lower"], found["upper"]) == pytest.approx(expected[:3])
    alone = cluster_mean_interval(differences, np.arange(len(differences)), 0.1)
    assert found["upper"] - found["lower"] > 1.5 * (alone.upper - alone.lower)


def test_a_series_follows_the_newest_version_and_a_version_has_a_row_for_each_role():
    rows = frame(
        row(MONDAY, "A", "v1", 1.0, role="champion", through=date(2022, 12, 23)),
        row(MONDAY, "A", "v2", 2.0, through=date(2022, 12, 30)),
        row(TUESDAY, "A", "v1", 4.0, through=date(2022, 12, 23)),
        row(TUESDAY, "A", "v2", 8.0, role="champion", through=date(2022, 12, 30)),
        row(WEDNESDAY, "A", "v2", 16.0, role="champion", through=date(2022, 12, 30)),
        row(WEDNESDAY, "A", "v3", 32.0, through=TUESDAY),
        row(WEDNESDAY, "A", "rules", -1.0, role="rules", through=None, policy="rules"),
        row(WEDNESDAY, "A", "ppo-1", 64.0, role="learner", through=MONDAY, policy="ppo"),
        row(WEDNESDAY, "A", "ppo-2", 128.0, role="learner", through=TUESDAY, policy="ppo"),
    )
    found = compared(rows)
    known = {r["series"]: (r["sessions"], r["reward"]) for r in found.series.iter_rows(named=True)}
    assert known == {
        "champion": (3, (1.0 + 8.0 + 16.0) / 3), "newest joint": (3, (2.0 + 8.0 + 32.0) / 3), "rules": (1, -1.0),
        "newest ppo": (1, 128.0),
    }  # fmt: skip
    assert list(known)[:1] == ["champion"]
    roles = found.versions.filter(version="v1").select("role", "reward").rows()
    assert sorted(roles) == [("candidate", 4.0), ("champion", 1.0)]
    run = found.by_session.filter(series="newest joint")
    assert run["cumulative"].to_list() == [2.0, 10.0, 42.0]
    assert run["session"].is_sorted()
    assert (found.versions.schema, found.series.schema, found.by_session.schema) == (VERSIONS, SERIES, BY_SESSION)


def test_without_a_champion_and_with_one_session_nothing_is_made_up():
    found = compared(frame(row(MONDAY, "A", "rules", None, role="rules", through=None, policy="rules")))
    told = found.versions.row(0, named=True)
    nothing = ("reward", "reward_lower", "hit_rate", "difference", "lower", "upper")
    assert [told[name] for name in nothing] == [None] * len(nothing)
    assert told["paired"] == 0
    assert found.by_session["cumulative"].to_list() == [0.0]
    assert found.by_session["reward"].to_list() == [None]
    assert "| rules | rules | 1 | 0 | – | – | – | – | – |" in shadow_markdown(found.versions)
    assert shadow_picture(found.by_session).startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def shadowed() -> Life:
    return grown()[0]


def test_a_lifes_versions_as_loops_over_its_rows_count_them(shadowed):
    rows = [r for s in shadowed.commits() for r in shadowed.lake.read("shadow_replay", s).iter_rows(named=True)]
    champion = {r["decision_id"]: r for r in rows if r["role"] == "champion"}
    found = compare(shadowed).versions
    assert found.height > 5
    for told in found.iter_rows(named=True):
        mine = [r for r in rows if (r["version"], r["role"]) == (told["version"], told["role"])]
        rewards = [r["reward"] for r in mine if r["status"] != "skipped" and r["complete"]]
        assert told["choices"] == len(mine)
        assert told["known"] == len(rewards)
        assert told["reward"] == pytest.approx(np.mean(rewards)) if rewards else told["reward"] is None
        pairs = [(worth(r), worth(champion[r["decision_id"]])) for r in mine if r["decision_id"] in champion]
        known = [a - b for a, b in pairs if a is not None and b is not None]
        if told["role"] != "champion" and known:
            assert told["difference"] == pytest.approx(np.mean(known), abs=1e-12)
            assert told["paired"] == len(known)


def worth(choice: dict[str, Any]) -> float | None:
    return 0.0 if choice["status"] == "skipped" else choice["reward"] if choice["complete"] else None


def test_a_range_knows_nothing_of_what_came_after_it(shadowed):
    sessions = shadowed.commits()
    first, last = sessions[5], sessions[15]
    part = compare(shadowed, first, last)
    assert part.versions["first"].min() >= first
    assert part.versions["last"].max() <= last
    told = [shadowed.lake.read("shadow_replay", s) for s in sessions if first <= s <= last]
    same = compared(pl.concat(told).filter(pl.col("session") >= first).sort("reward", "version"))
    assert same.versions.equals(part.versions)
    assert same.by_session.equals(part.by_session)


def test_the_picture_is_small_and_the_same_for_the_same_rows(shadowed):
    found = compare(shadowed)
    drawn = shadow_picture(found.by_session)
    assert drawn.startswith(b"\x89PNG")
    assert 3_000 < len(drawn) <= PICTURE_BYTES
    assert drawn == shadow_picture(found.by_session)
    other = found.by_session.with_columns(pl.col("cumulative") * 2)
    assert drawn != shadow_picture(other)
    table = shadow_markdown(found.series)
    assert table.count("\n") == found.series.height + 2
    assert "newest joint" in table
    assert "uniform" in table


def test_a_life_without_shadows_says_where_they_come_from(tmp_path: Path, shadowed: Life):
    life, _ = begin(tmp_path / "home")
    with pytest.raises(NothingShadowed, match=r"it has none yet. Materialise the asset shadow_decisions"):
        compare(life)
    with pytest.raises(NothingShadowed, match=f"in 2031-01-01 to its head: they cover {shadowed.commits()[0]}"):
        compare(shadowed, date(2031, 1, 1))
