"""Exports: what is in one, that it is whole or not there, and that every changed byte of it is found."""

import json
import os
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import nsefiles
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marketdatabases import bars_of
from odincommand import odin
from polars.testing import assert_frame_equal
from smalllives import begin, climbed, run_to

from odin_core.datasets import exporting
from odin_core.datasets.checking import verify
from odin_core.datasets.exporting import FolderTaken, NothingToExport, Selection, export
from odin_core.datasets.manifest import FILE, Manifest, ManifestUnreadable, read_manifest
from odin_core.datasets.registry import datasets, find
from odin_core.home import Home, open_home
from odin_core.lake import Lake, TableMissing
from odin_core.lifecycle.config import LifeConfig
from odin_core.market.calendar import session_calendar
from odin_core.market.data import MarketData
from odin_core.market.intake.importing import import_files
from odin_core.market.intake.pages import NO_SESSION
from odin_core.market.profile import load_profile

SESSIONS = [date(2021, 4, 1), date(2021, 4, 5), date(2021, 4, 6)]
SMALL_SESSIONS = [date(2023, 1, 2), date(2023, 1, 3), date(2023, 1, 4)]
SYMBOLS = ("INFY", "SBIN", "TCS")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Three sessions of three symbols of nse."""
    home = open_home(tmp_path / "home")
    for session in SESSIONS:
        home.lake("nse").write("price_history", session, bars_of(session, *SYMBOLS))
    return home


def exported(home: Home, folder: Path, **chosen: Any) -> Manifest:
    data = MarketData.of(home, "nse", LifeConfig())
    return export(home, data, None, Selection(**chosen), folder, "code")


def test_an_export_reads_back_as_the_lakes_rows_and_says_what_they_are(home: Home, tmp_path: Path):
    manifest = exported(home, tmp_path / "out")
    whole = Lake(tmp_path / "out").scan("price_history").drop("session").collect()
    assert_frame_equal(whole, home.lake("nse").read_many("price_history", SESSIONS), check_exact=True)
    assert (manifest.first, manifest.last, manifest.symbols) == (SESSIONS[0], SESSIONS[-1], SYMBOLS)
    assert manifest.tables == {"price_history": {"sessions": 3, "rows": whole.height}}
    shares = manifest.completeness["price_history"]
    assert shares["close"] == 1.0
    assert shares["volume"] == pytest.approx(1 - whole["volume"].null_count() / whole.height)
    assert read_manifest(tmp_path / "out" / FILE) == manifest
    assert verify(manifest, tmp_path / "out") == []


def test_the_same_content_has_the_same_version_and_any_other_has_another(home: Home, tmp_path: Path):
    whole = exported(home, tmp_path / "a")
    assert exported(home, tmp_path / "b") == whole
    others = [
        exported(home, tmp_path / "c", first=SESSIONS[1]),
        exported(home, tmp_path / "d", symbols=("INFY",)),
        exported(home, tmp_path / "e", form="csv"),
    ]
    last = home.lake("nse").read("price_history", SESSIONS[-1])
    home.lake("nse").write(
        "price_history", SESSIONS[-1], last.with_columns(pl.col("close").replace(last["close"][7], 1))
    )
    others.append(exported(home, tmp_path / "f"))
    assert len({manifest.version for manifest in (whole, *others)}) == 5
    assert find(home, whole.version).copies == (tmp_path / "a", tmp_path / "b")


def test_symbols_tables_and_sessions_can_be_chosen(home: Home, tmp_path: Path):
    home.lake("nse").write("bars_5m", SESSIONS[0], bars_of(SESSIONS[0], *SYMBOLS, interval=5))
    manifest = exported(
        home, tmp_path / "out", tables=("price_history",), first=SESSIONS[1], last=SESSIONS[1], symbols=("SBIN", "INFY")
    )
    assert manifest.symbols == ("INFY", "SBIN")
    (file,) = manifest.files
    rows = pl.read_parquet(tmp_path / "out" / file.path, hive_partitioning=False)
    expected = home.lake("nse").read("price_history", SESSIONS[1]).filter(pl.col("symbol").is_in(["INFY", "SBIN"]))
    assert_frame_equal(rows, expected)


def test_what_holds_since_it_was_known_is_exported_from_its_beginning(home: Home, tmp_path: Path):
    known = datetime(2020, 1, 1, tzinfo=UTC)
    fact = pl.DataFrame({"symbol": ["INFY"], "known_at": [known], "figure": ["pe"], "value": [20.0],
                         "origin": ["pe.csv"], "origin_id": ["00ff"]})  # fmt: skip
    home.lake("nse").write("fundamentals", date(2020, 1, 1), fact)
    home.lake("nse").write("fundamentals", SESSIONS[2], fact)
    manifest = exported(home, tmp_path / "out", first=SESSIONS[1], last=SESSIONS[1])
    assert [(f.table, f.session) for f in manifest.files] == [
        ("fundamentals", date(2020, 1, 1)), ("price_history", SESSIONS[1]),
    ]  # fmt: skip
    assert (manifest.first, manifest.last) == (SESSIONS[1], SESSIONS[1])
    assert manifest.sources == ({"origin": "pe.csv", "origin_id": "00ff", "table": "fundamentals"},)


def test_csv_holds_the_same_values(home: Home, tmp_path: Path):
    manifest = exported(home, tmp_path / "out", form="csv")
    rows = pl.concat([pl.read_csv(tmp_path / "out" / f.path, try_parse_dates=True) for f in manifest.files])
    whole = home.lake("nse").read_many("price_history", SESSIONS)
    assert_frame_equal(rows.select("symbol", "open", "close"), whole.select("symbol", "open", "close"))
    assert (
        rows["ts"].dt.replace_time_zone("UTC").dt.timestamp("us").to_list() == whole["ts"].dt.timestamp("us").to_list()
    )
    changed = tmp_path / "out" / manifest.files[1].path
    changed.write_text(changed.read_text().replace("10:02", "10:03", 1))
    assert [(d.path, d.what) for d in verify(manifest, tmp_path / "out")] == [(manifest.files[1].path, "changed")]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_of_any_file_is_found(home: Home, tmp_path: Path, data: st.DataObject):
    out = tmp_path / "out"
    manifest = read_manifest(out / FILE) if out.exists() else exported(home, out)
    name = data.draw(st.sampled_from([FILE, *(file.path for file in manifest.files)]))
    path, whole = out / name, (out / name).read_bytes()
    at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
    try:
        if name == FILE:
            with pytest.raises(ManifestUnreadable):
                read_manifest(path)
        else:
            (found,) = verify(manifest, out)
            assert found.path == name
            assert found.what in ("changed", "damaged", "rewritten")
    finally:
        path.write_bytes(whole)


def test_a_file_that_is_gone_and_one_that_came_are_named(home: Home, tmp_path: Path):
    manifest = exported(home, tmp_path / "out")
    os.rename(tmp_path / "out" / manifest.files[0].path, tmp_path / "out" / "notes.txt")
    assert [(d.path, d.what) for d in verify(manifest, tmp_path / "out")] == [
        (manifest.files[0].path, "missing"), ("notes.txt", "new"),
    ]  # fmt: skip


def test_an_export_is_verified_where_no_home_is(home: Home, tmp_path: Path):
    exported(home, tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "sent")
    shutil.rmtree(home.root)
    assert odin("dataset", "verify", tmp_path / "sent", "--json", home=home).json["sound"]
    path = next((tmp_path / "sent").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    said = odin("dataset", "verify", tmp_path / "sent", home=home)
    assert said.status == 1
    assert "damaged" in said.out
    assert path.relative_to(tmp_path / "sent").as_posix() in said.out


def test_a_copy_that_was_moved_away_is_missing_in_the_registry(home: Home, tmp_path: Path):
    version = exported(home, home.root / "exports" / "one").version
    assert json.loads((home.root / "datasets" / f"{version}.json").read_text())["copies"] == ["exports/one"]
    moved = shutil.move(home.root, tmp_path / "moved")
    assert odin("dataset", "verify", version, "--json", home=Path(moved)).json["sound"]
    shutil.rmtree(Path(moved) / "exports")
    said = odin("dataset", "verify", version, "--json", home=Path(moved))
    assert said.status == 1
    (differences,) = json.loads(said.out)["copies"].values()
    assert {d["what"] for d in differences} == {"missing"}


def test_sources_are_what_the_imports_left(tmp_path: Path):
    home = open_home(tmp_path / "home")
    calendar = session_calendar(load_profile("nse"))
    for symbol in ("INFY", "TCS"):
        path = nsefiles.written(nsefiles.of(SESSIONS[:2], symbol), tmp_path / f"{symbol}.parquet")
        import_files([path], lake=home.lake("nse"), calendar=calendar)
    manifest = exported(home, tmp_path / "out", first=SESSIONS[0], last=SESSIONS[0])
    assert [(s["origin"], s["interval"], s["kept"]) for s in manifest.sources] == [
        ("INFY.parquet", "1m", 375), ("TCS.parquet", "1m", 375),
    ]  # fmt: skip
    both = exported(home, tmp_path / "both", tables=("price_history",))
    assert [s["kept"] for s in both.sources] == [750, 750]


def test_rows_that_belong_to_no_session_are_no_part_of_an_export(home: Home, tmp_path: Path):
    home.lake("nse").write("quarantine", NO_SESSION, pl.DataFrame({"rule": ["no_session"]}))
    assert exported(home, tmp_path / "out").tables.keys() == {"price_history"}


def test_a_kill_leaves_no_export_and_the_next_one_is_whole(home: Home, tmp_path: Path, monkeypatch):
    class Killed(BaseException):
        pass

    write, calls = exporting._write, []

    def dies(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        return write(*args)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(exporting, "_write", dies)
        patched.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # a killed process tidies nothing up
        with pytest.raises(Killed):
            exported(home, out)
    assert not out.exists()
    assert datasets(home) == []
    assert (tmp_path / ".out.unfinished").is_dir()
    assert verify(exported(home, out), out) == []
    assert not (tmp_path / ".out.unfinished").exists()


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(home: Home, tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(TableMissing, match=r"price_histroy.*did you mean price_history"):
        exported(home, out, tables=("price_histroy",))
    with pytest.raises(exporting.UnknownSymbol, match=r"INFI.*did you mean INFY"):
        exported(home, out, symbols=("INFI", "TCS"))
    with pytest.raises(NothingToExport, match="odin data show"):
        exported(home, out, first=date(2022, 1, 1))
    home.lake("nse").write("lists", SESSIONS[0], pl.DataFrame({"values": [[1, 2]]}))
    with pytest.raises(exporting.NotForCsv, match="lists has lists in values"):
        exported(home, out, form="csv")
    assert not out.exists()
    assert os.listdir(tmp_path) == ["home"]
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(FolderTaken, match="give --to a new folder"):
        exported(home, out)
    assert os.listdir(out) == ["mine"]


def test_two_exports_are_compared_in_words(home: Home, tmp_path: Path):
    exported(home, tmp_path / "a", first=SESSIONS[1])
    extra = SESSIONS[-1] + timedelta(days=1)
    home.lake("nse").write("price_history", extra, bars_of(extra, "WIPRO"))
    home.lake("nse").write("price_history", SESSIONS[1], bars_of(SESSIONS[1], *SYMBOLS, seed=9))
    exported(home, tmp_path / "b", first=SESSIONS[1])
    told = odin("dataset", "diff", tmp_path / "a", tmp_path / "b", home=home).out
    assert "last: 2021-04-06 → 2021-04-07" in told
    assert "symbols only in the second: WIPRO" in told
    assert "price_history: 30 → 35 rows" in told
    assert "1 sessions only in the second: 2021-04-07" in told
    assert "1 sessions with other values: 2021-04-05" in told


def test_the_command_exports_features_and_a_lifes_tables(tmp_path: Path):
    life, data = climbed()
    shutil.copytree(life.home.root, tmp_path / "home")
    words = ("--tables", "features,replay_buffer,price_history", "--start", "2023-01-09", "--end", "2023-01-13")
    made = odin("dataset", "export", *words, "--to", tmp_path / "out", "--json", home=tmp_path / "home").json
    manifest = read_manifest(tmp_path / "out" / FILE)
    assert made["version"] == manifest.version
    assert {table: counts["sessions"] for table, counts in made["tables"].items()} == {
        "features": 5, "price_history": 5, "replay_buffer": 5,
    }  # fmt: skip
    assert (manifest.life, manifest.features_version) == (life.id, data.features_table.removeprefix("features_"))
    day = date(2023, 1, 11)
    assert_frame_equal(Lake(tmp_path / "out").read("replay_buffer", day), life.read("replay_buffer", day))
    assert_frame_equal(Lake(tmp_path / "out").read("features", day), data.decision_rows(day))
    listed = odin("dataset", "list", "--json", home=tmp_path / "home").json["datasets"]
    assert [row["version"] for row in listed if row["kind"] == "export"] == [manifest.version]
    assert manifest.completeness["features"]["close"] == 1.0


def test_what_a_life_has_not_finished_is_no_part_of_an_export(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    run_to(life, data, date(2023, 1, 4))
    life.lake.write("phase_state", date(2023, 1, 5), life.read("phase_state", date(2023, 1, 4)))  # killed before commit
    manifest = export(life.home, data, life, Selection(tables=("phase_state",)), tmp_path / "out", "code")
    assert [file.session for file in manifest.files] == life.commits() == SMALL_SESSIONS


def test_a_manifest_of_another_format_and_a_damaged_registry_entry_are_named(home: Home, tmp_path: Path, caplog):
    version = exported(home, tmp_path / "out").version
    path = tmp_path / "out" / FILE
    path.write_text(path.read_text().replace('"format": 1', '"format": 9'))
    assert "format 9" in odin("dataset", "verify", tmp_path / "out", home=home).mistake
    entry = home.root / "datasets" / f"{version}.json"
    entry.write_text(entry.read_text()[:100])
    assert str(entry) in odin("dataset", "show", version, home=home).mistake
    assert datasets(home) == []
    assert str(entry) in caplog.text
    exported(home, tmp_path / "again")
    assert [e.manifest.version for e in datasets(home)] == [version]
