"""Running a life: ranges, pieces, repetition, kills, changed inputs and damage, all on files."""

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from registrydamage import change_a_leaf
from smalllives import CLIMBED, FIRST, LAST, begin, climbed, clock, quick, run_to, tables

from odin_core.lake import Lake
from odin_core.lifecycle.digest import KEYS, life_digest
from odin_core.lifecycle.life import BeforeTheLife, Life, SessionDamaged, StartsTooLate, plan_rewind
from odin_core.lifecycle.run import BarsVanished, NotClosedYet, RangeWithHoles, run_sessions
from odin_core.market.data import MarketData
from odin_core.registry.entries import ModelCorrupt
from odin_core.replay.record import REPLAY, validate

MID = date(2023, 1, 11)  # a Wednesday


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the quick life up to LAST, run at once."""
    life, data = begin(tmp_path_factory.mktemp("whole") / "home")
    run_to(life, data)
    return life_digest(life).digest


def anew(life: Life) -> tuple[Life, MarketData]:
    """The same life as another process would see it."""
    return begin(life.home.root, life.config)


def test_one_session_at_a_time_by_new_processes_gives_the_same_digest(tmp_path: Path, whole: str):
    life, data = begin(tmp_path / "home")
    for session in data.calendar.sessions(FIRST, LAST):
        mine, fresh = anew(life)
        (result,) = run_sessions(mine, fresh, [session], clock=clock)
        assert (result.session, result.did) == (session, "ran")
    assert life_digest(life).digest == whole


def test_pieces_cut_in_the_middle_of_weeks_give_the_same_digest(tmp_path: Path, whole: str):
    life, _ = begin(tmp_path / "home")
    for last in (date(2023, 1, 4), MID, date(2023, 1, 12), LAST):
        run_to(*anew(life), last)
    assert life_digest(life).digest == whole


@pytest.mark.parametrize("table", ["phase_state", "executions"])
def test_a_kill_while_a_session_is_written_leaves_it_to_be_run_again(
    tmp_path: Path, whole: str, monkeypatch: pytest.MonkeyPatch, table: str
):
    life, data = begin(tmp_path / "home")
    write = Lake.write

    def killed(self: Lake, name: str, session: date, frame: pl.DataFrame) -> Path:
        if (name, session) == (table, MID):
            raise KeyboardInterrupt
        return write(self, name, session, frame)

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            run_to(life, data)
    assert life.head == data.calendar.previous(MID)
    stale = life.lake.path("registry_history", MID)
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"left by code that has since changed")
    results = run_to(*anew(life))
    assert [r.did for r in results] == ["skipped"] * 7 + ["ran"] * 5
    assert not stale.exists()
    assert life_digest(life).digest == whole


def test_a_finished_range_is_verified_and_nothing_is_written(tmp_path: Path, whole: str):
    life, data = begin(tmp_path / "home")
    run_to(life, data)
    before = {p: p.stat().st_mtime_ns for p in life.folder.rglob("*") if p.is_file()}
    results = run_to(*anew(life))
    assert {r.did for r in results} == {"skipped"}
    assert {r.summary["phase"] for r in results} == {0, 1}
    assert [r.did for r in run_sessions(life, data, [MID], clock=clock)] == ["skipped"]
    assert {p: p.stat().st_mtime_ns for p in life.folder.rglob("*") if p.is_file()} == before
    assert life_digest(life).digest == whole


def test_ranges_that_the_life_cannot_run_are_refused_with_the_one_that_it_can(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    run_to(life, data, date(2023, 1, 4))
    with pytest.raises(StartsTooLate, match="Ask for a range that starts at 2023-01-05"):
        run_to(life, data, first=date(2023, 1, 6))
    with pytest.raises(BeforeTheLife, match="odin life new --market demo --start 2022-12-30"):
        run_to(life, data, first=date(2022, 12, 30))
    assert life.head == date(2023, 1, 4)


def test_a_session_is_not_run_before_it_has_closed(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    closes = data.calendar.hours(FIRST).close
    early = run_sessions(life, data, [FIRST], clock=lambda: closes - timedelta(microseconds=1))
    with pytest.raises(NotClosedYet, match="closes at 2023-01-02 10:00 UTC and it is 2023-01-02 09:59"):
        list(early)
    assert life.head is None
    assert [r.did for r in run_sessions(life, data, [FIRST], clock=lambda: closes)] == ["ran"]


def test_bars_that_changed_below_the_head_outdate_their_session_and_all_after_it_and_recompute_nothing(
    tmp_path: Path, whole: str
):
    life, data = begin(tmp_path / "home")
    run_to(life, data)
    bars = data.lake.read("price_history", MID)
    data.lake.write("price_history", MID, bars.with_columns(pl.col("close") * 1.0001))
    results = run_to(*anew(life))
    assert [r.session for r in results if r.did == "outdated"] == [r.session for r in results if r.session >= MID]
    assert life_digest(life).digest == whole
    data.lake.write("price_history", MID, bars)
    assert {r.did for r in run_to(*anew(life))} == {"skipped"}


def test_bars_that_vanished_under_a_finished_plan_are_named(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    run_to(life, data, MID)
    gone, bars = "SYN003", data.lake.read("price_history", MID)
    data.lake.write("price_history", MID, bars.filter(pl.col("symbol") != gone))
    with pytest.raises(BarsVanished, match=f"at the close of {MID} on {gone}, .*odin life rewind"):
        run_to(*anew(life), date(2023, 1, 12))
    assert life.head == MID


@pytest.fixture
def copy(tmp_path: Path) -> tuple[Life, MarketData]:
    """A copy of the life that climbed, to be damaged."""
    life, _ = climbed()
    shutil.copytree(life.home.root, tmp_path / "home")
    return begin(tmp_path / "home", life.config)


@pytest.mark.parametrize("how", ["cut off", "missing"])
@pytest.mark.parametrize("table", ["phase_state", "recommendations", "open_decisions", "action_outcomes",
                                   "replay_buffer", "candidate_scores"])  # fmt: skip
def test_a_damaged_file_of_a_finished_session_names_session_file_and_the_way_back(
    copy: tuple[Life, MarketData], table: str, how: str
):
    life, data = copy
    session = {"candidate_scores": date(2023, 2, 3)}.get(table, CLIMBED)
    path = life.lake.path(table, session)
    path.unlink() if how == "missing" else path.write_bytes(path.read_bytes()[:100])
    back = data.calendar.previous(session)
    with pytest.raises(SessionDamaged) as refusal:
        run_to(life, data, data.calendar.next(CLIMBED), first=data.calendar.next(CLIMBED))
    text = str(refusal.value)
    for part in (str(session), str(path), f"odin life rewind --market demo --life {life.id} --to {back}"):
        assert part in text
    with pytest.raises(SessionDamaged):
        life_digest(life)


def test_the_way_back_that_damage_names_gives_the_same_life_again(tmp_path: Path, whole: str):
    life, data = begin(tmp_path / "home")
    run_to(life, data)
    life.lake.path("phase_state", MID).write_bytes(b"PAR1")
    plan_rewind(life, data.calendar.previous(MID)).apply()
    assert [r.did for r in run_to(*anew(life))] == ["skipped"] * 7 + ["ran"] * 5
    assert life_digest(anew(life)[0]).digest == whole


def test_a_life_whose_first_session_is_damaged_can_begin_again(tmp_path: Path, whole: str):
    life, data = begin(tmp_path / "home")
    run_to(life, data)
    life.lake.path("phase_state", FIRST).write_bytes(b"")
    with pytest.raises(SessionDamaged, match="--to 2023-01-01, then run on"):
        run_to(life, data)
    plan_rewind(life, date(2023, 1, 1)).apply()
    assert {r.did for r in run_to(life, data)} == {"ran"}
    assert life_digest(life).digest == whole


def test_a_damaged_model_is_refused_and_trained_again_by_the_way_back_that_it_names(tmp_path: Path, whole: str):
    life, data = begin(tmp_path / "home")
    run_to(life, data)
    version = life.lake.read("phase_state", LAST)["candidates"][0][-1]
    good = life.registry.model(version)
    change_a_leaf(life, version)
    tomorrow = data.calendar.next(LAST)
    with pytest.raises(ModelCorrupt, match=r"part model does not have the hash in its name.*odin life rewind"):
        run_to(*anew(life), tomorrow)
    trained = max(s for s in life.lake.sessions("registry_history") if s <= LAST)
    plan_rewind(life, data.calendar.previous(trained)).apply()
    run_to(*anew(life))
    assert anew(life)[0].registry.model(version) == good
    assert life_digest(anew(life)[0]).digest == whole


def test_every_table_that_a_session_leaves_has_a_key_that_is_one(tmp_path: Path):
    life, _ = climbed()
    for (table, session), frame in tables(life, life.commits()).items():
        key = list(KEYS[table])
        if key:
            assert not frame.select(key).is_duplicated().any(), (table, session)
    commit = life.committed(CLIMBED)
    assert commit is not None
    assert set(commit.tables) == {t for t, s in tables(life, [CLIMBED])}


def test_each_decision_comes_to_the_replay_buffer_once_and_in_the_session_it_became_known():
    life, _ = climbed()
    sessions = life.commits()
    replay = life.read_many("replay_buffer", sessions)
    planned = pl.concat([life.read("recommendations", s) for s in sessions])
    before = pl.concat([replay, life.read("open_decisions", CLIMBED).select(replay.columns[:1])], how="diagonal")
    meant = planned.filter(pl.col("session") <= CLIMBED)["decision_id"].to_list()
    first_day = replay.filter(pl.col("session") == FIRST)["decision_id"].to_list()
    assert sorted(before["decision_id"].to_list()) == sorted([*meant, *first_day])
    for session in sessions:
        frame = life.read("replay_buffer", session)
        assert frame.schema == REPLAY
        validate(frame)
        known = frame.filter(pl.col("exit_ts").is_not_null())
        assert (known["exit_ts"].dt.date() == session).all()
        assert (frame["session"] <= session).all()
    carried = replay.filter(pl.col("exit_reason") == "carried")
    assert carried.height > 0
    assert (carried["exit_ts"].dt.date() > carried["session"]).all()


def test_sums_over_the_tables_agree_with_the_state():
    life, _ = climbed()
    states = life.read_many("phase_state", life.commits())
    replay = life.read_many("replay_buffer", life.commits())
    done = replay.filter((pl.col("status") == "taken") & pl.col("complete"))
    last = states.row(-1, named=True)
    assert last["executed"] == done.height
    assert last["replay_rows"] == replay.height
    assert sum(last["regime_rows"]) == replay["vol_regime"].is_not_null().sum()
    assert sum(last["regime_sessions"]) == states["vol_regime"].is_not_null().sum()
    assert last["sessions"] == states.height
    assert last["equity"] == pytest.approx(1 + states["session_return"].sum())
    assert (states["drawdown"] <= 0).all()
    assert (states["peak"].to_numpy() >= states["equity"].to_numpy() - 1e-12).all()
    for row in states.filter(pl.col("phase") < 3).iter_rows(named=True):
        assert row["reason"]
        assert row["suggestions"] or row["phase"] != row["phase_before"]
        assert "Infinity" not in row["distance"]
        assert json.loads(row["distance"])


def test_with_an_edge_that_nobody_can_miss_a_life_climbs_to_the_last_phase_and_the_champion_decides():
    life, _ = climbed()
    states = life.read_many("phase_state", life.commits())
    moves = states.filter(pl.col("phase") != pl.col("phase_before")).select("phase_before", "phase").rows()
    assert moves == [(0, 1), (1, 2), (2, 3)]
    replay = life.read_many("replay_buffer", life.commits())
    joint = replay.filter((pl.col("source") == "joint") & (pl.col("status") == "taken") & pl.col("complete"))
    chance = replay.filter((pl.col("source") == "random") & pl.col("complete"))
    assert joint.height > 10
    assert joint["model_version"].is_not_null().all()
    assert float(joint["reward"].mean()) > float(chance["reward"].mean())  # pyright: ignore[reportArgumentType]


def test_an_empty_life_has_an_empty_digest_and_another_seed_another_one(tmp_path: Path, whole: str):
    life, data = begin(tmp_path / "home", quick(seed=8))
    assert (life_digest(life).sessions, life_digest(life).tables) == (0, {})
    run_to(life, data, MID)
    assert life_digest(life).digest != whole
    early = life_digest(life, MID - timedelta(days=1))
    assert early.sessions == 7
    assert early.digest != life_digest(life).digest
    assert datetime(2030, 1, 1, tzinfo=UTC) == clock()


def test_a_gap_in_the_range_is_refused(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    for asked in ([FIRST, date(2023, 1, 4)], [date(2023, 1, 4), date(2023, 1, 3)]):
        with pytest.raises(RangeWithHoles, match="leaves out session 2023-01-0"):
            list(run_sessions(life, data, asked, clock=clock))
    assert life.head is None
