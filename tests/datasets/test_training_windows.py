"""Every training window is a dataset: recorded as it is learned from, and found in lives that never recorded one."""

import os
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from odincommand import odin
from smalllives import begin, climbed, clock, quick, run_to

from odin_core.datasets.checking import verify
from odin_core.datasets.manifest import sha256_of
from odin_core.datasets.registry import datasets, find
from odin_core.home import Home, open_home
from odin_core.lake import read_parquet, write_parquet
from odin_core.lifecycle.fold import INPUTS
from odin_core.lifecycle.life import Life, plan_rewind
from odin_core.lifecycle.live import retrain_live

RETRAINED = [  # five weeks' ends, and the sessions after three changes of phase
    date(2023, 1, 6), date(2023, 1, 10), date(2023, 1, 13), date(2023, 1, 20), date(2023, 1, 27), date(2023, 1, 30),
    date(2023, 2, 3), date(2023, 2, 6),
]  # fmt: skip


@pytest.fixture(scope="module")
def life() -> Life:
    return climbed()[0]


@pytest.fixture
def home(life: Life, tmp_path: Path) -> Home:
    """A copy of the home that may be damaged."""
    shutil.copytree(life.home.root, tmp_path / "home")
    return open_home(tmp_path / "home")


def test_each_retrains_window_is_in_the_registry_under_the_version_that_the_report_names(life: Life):
    found = datasets(life.home)
    assert [entry.manifest.last for entry in found] == RETRAINED
    for entry, end in zip(found, RETRAINED, strict=True):
        manifest = entry.manifest
        assert manifest.version == life.read("evaluation_report", end)["dataset"][0]
        assert (manifest.kind, manifest.market, manifest.life) == ("training", "demo", life.id)
        table = life.read("training_dataset", end)
        assert [(f.table, f.session, f.rows, f.hash) for f in manifest.files] == table.select(
            "table", "session", "rows", "hash"
        ).rows()
        assert all(f.sha256 == sha256_of(life.home.root / f.path) for f in manifest.files)
        assert verify(manifest, life.home.root) == []
        commit = life.committed(end)
        assert commit is not None
        assert manifest.code_version == commit.code_version
        assert manifest.sources == ({"origin": "synthetic", "seed": 3, "edge": 0.0},)


def test_completeness_is_the_share_of_decided_rows_with_a_known_value(life: Life):
    """Against the features files, row by row."""
    data = climbed()[1]
    manifest = datasets(life.home)[-1].manifest
    known = dict.fromkeys(INPUTS, 0)
    rows, symbols = 0, set[str]()
    for session in sorted({f.session for f in manifest.files}):
        decided = life.read("action_outcomes", session)["symbol"].to_list()
        features = data.decision_rows(data.calendar.previous(session)).filter(pl.col("symbol").is_in(decided))
        rows, symbols = rows + features.height, symbols | set(decided)
        for row in features.iter_rows(named=True):
            for name in INPUTS:
                known[name] += row[name] is not None and bool(np.isfinite(row[name]))
    assert set(manifest.completeness) == {"features"}
    assert manifest.completeness["features"] == pytest.approx({name: n / rows for name, n in known.items()})
    assert manifest.symbols == tuple(sorted(symbols))


def test_a_life_that_was_run_before_there_was_a_registry_shows_the_same_windows(home: Home, life: Life):
    shutil.rmtree(home.root / "datasets")
    kept, found = datasets(life.home), datasets(home)
    assert [e.manifest.version for e in found] == [e.manifest.version for e in kept]
    for old, new in zip(kept, found, strict=True):
        assert [(f.path, f.hash) for f in old.manifest.files] == [(f.path, f.hash) for f in new.manifest.files]
        assert verify(new.manifest, home.root) == []
    manifest = found[-1].manifest
    outcomes = next(f for f in manifest.files if f.table == "action_outcomes" and f.rows)
    path = home.root / outcomes.path
    rows = read_parquet(path)
    write_parquet(rows, path)  # other bytes may be written, the values are what counts
    assert verify(manifest, home.root) == []
    write_parquet(rows.with_columns(pl.col("net_return").list.eval(pl.element() + 1)), path)
    assert [(d.path, d.what) for d in verify(manifest, home.root)] == [(outcomes.path, "changed")]


def test_features_that_were_written_anew_with_the_same_values_are_told_from_changed_ones(home: Home):
    manifest = datasets(home)[-1].manifest
    features = next(f for f in manifest.files if f.table == "features" and f.rows)
    rows = read_parquet(home.root / features.path)
    write_parquet(rows, home.root / features.path, {"odin.inputs": "copied"})
    assert [d.what for d in verify(manifest, home.root)] == ["rewritten"]
    write_parquet(rows.with_columns(pl.col(INPUTS[0]) + 1), home.root / features.path)
    assert [d.what for d in verify(manifest, home.root)] == ["changed"]


def test_a_window_stays_what_it_was_when_its_life_goes_back_and_on(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    run_to(life, data, date(2023, 1, 13))
    before = {e.manifest.version for e in datasets(life.home)}
    assert len(before) == 3
    plan_rewind(life, date(2023, 1, 10)).apply()
    run_to(life, data, date(2023, 1, 13))
    after = datasets(life.home)
    assert {e.manifest.version for e in after} == before
    assert all(verify(e.manifest, life.home.root) == [] for e in after)


def test_a_kill_before_the_commit_leaves_the_window_to_be_recorded_again(tmp_path: Path, monkeypatch):
    life, data = begin(tmp_path / "home")
    run_to(life, data, date(2023, 1, 5))
    with monkeypatch.context() as patched:
        patched.setattr(Life, "commit", lambda self, record: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_to(life, data, date(2023, 1, 6))
    assert life.head == date(2023, 1, 5)
    (early,) = datasets(life.home)
    run_to(life, data, date(2023, 1, 6))
    assert [e.manifest for e in datasets(life.home)] == [early.manifest]
    assert verify(early.manifest, life.home.root) == []


def test_two_lives_that_learned_from_the_same_rows_are_both_listed(tmp_path: Path):
    for alpha in (0.05, 0.04):
        run_to(*begin(tmp_path / "home", quick(f"promotion.alpha={alpha}")), date(2023, 1, 6))
    home = open_home(tmp_path / "home")
    first, second = datasets(home)
    assert first.manifest.version == second.manifest.version
    assert first.manifest.life != second.manifest.life
    for entry in (first, second):
        assert all(entry.manifest.life in f.path for f in entry.manifest.files if f.table != "features")
        assert verify(entry.manifest, home.root) == []
        assert find(home, f"{entry.manifest.version}.{entry.manifest.life}") == entry
    assert find(home, first.manifest.version).manifest.version == first.manifest.version


def test_a_retrain_outside_the_weeks_leaves_its_window_too(tmp_path: Path):
    life, data = begin(tmp_path / "home", quick("live=true"))
    run_to(life, data, date(2023, 1, 11))  # a Wednesday
    assert [e.manifest.last for e in datasets(life.home)] == [date(2023, 1, 6)]
    retrain_live(life, data, why="a test", clock=clock)
    (_, retrained) = datasets(life.home)
    assert (retrained.manifest.first, retrained.manifest.last) == (date(2023, 1, 2), date(2023, 1, 11))
    assert verify(retrained.manifest, life.home.root) == []


def test_the_command_lists_shows_and_verifies_windows(home: Home, life: Life):
    listed = odin("dataset", "list", "--json", home=home).json["datasets"]
    assert [row["last"] for row in listed] == [str(end) for end in RETRAINED]
    version = listed[-1]["version"]
    assert version in odin("dataset", "list", home=home).out
    whole = odin("dataset", "show", version, "--json", home=home).json
    assert whole["life"] == life.id
    assert len(whole["files"]) == listed[-1]["files"] == life.read("training_dataset", RETRAINED[-1]).height
    assert odin("dataset", "show", version[:-2], home=home).out.startswith(f"version: {version}")
    assert odin("dataset", "verify", version, "--json", home=home).json["sound"]
    gone = home.root / whole["files"][0]["path"]
    os.remove(gone)
    said = odin("dataset", "verify", version, home=home)
    assert said.status == 1
    assert f"missing   {whole['files'][0]['path']}" in said.out


def test_two_windows_differ_by_the_sessions_between_them(life: Life):
    first, second = (entry.manifest.version for entry in datasets(life.home)[:2])
    told = odin("dataset", "diff", first, second, "--json", home=life.home).json
    assert not told["same"]
    assert told["tables"]["replay_buffer"]["only_second"] == ["2023-01-09", "2023-01-10"]
    assert told["tables"]["replay_buffer"]["only_first"] == told["tables"]["replay_buffer"]["changed"] == []
    assert (
        "2 sessions only in the second: 2023-01-09, 2023-01-10"
        in odin("dataset", "diff", first, second, home=life.home).out
    )
    assert odin("dataset", "diff", first, first, "--json", home=life.home).json["same"]


def test_an_unknown_version_names_the_nearest(life: Life):
    version = datasets(life.home)[0].manifest.version
    assert find(life.home, version).manifest.version == version
    assert version in odin("dataset", "show", version + "0", home=life.home).mistake
    assert f"{len(RETRAINED)} datasets" in odin("dataset", "show", "dataset", home=life.home).mistake
