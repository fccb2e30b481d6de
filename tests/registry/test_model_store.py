"""Models on disk: written once by content, verified on reading, replaced when damaged."""

from datetime import date
from pathlib import Path

import pytest

from odin_core.policies.joint import JointPolicy, version_of
from odin_core.registry import store
from odin_core.registry.store import ModelCorrupt

MODEL = JointPolicy(
    ("rsi_14_15m", "gap"), date(2023, 1, 6), {"direction": "tree\nleaf_value=0.1", "enter": "tree"}, (0.1, 1 / 3)
)
VERSION = version_of(MODEL)


def test_a_model_comes_back_as_it_was(tmp_path: Path):
    store.save(tmp_path / "models", VERSION, MODEL)
    assert store.load(tmp_path / "models", VERSION) == MODEL
    assert [p.name for p in (tmp_path / "models").iterdir()] == [f"{VERSION}.json"]


def test_the_name_of_a_model_is_its_learner_and_its_content():
    assert VERSION.startswith("joint-")
    others = [
        JointPolicy(MODEL.features[::-1], MODEL.trained_through, MODEL.heads, MODEL.platt),
        JointPolicy(MODEL.features, date(2023, 1, 13), MODEL.heads, MODEL.platt),
        JointPolicy(MODEL.features, MODEL.trained_through, MODEL.heads | {"enter": "trees"}, MODEL.platt),
        JointPolicy(MODEL.features, MODEL.trained_through, MODEL.heads, (0.1, 0.3333)),
    ]
    assert len({VERSION, *map(version_of, others)}) == 5


def test_saving_again_writes_nothing_unless_the_file_is_damaged(tmp_path: Path):
    path = tmp_path / f"{VERSION}.json"
    store.save(tmp_path, VERSION, MODEL)
    before = path.stat()
    store.save(tmp_path, VERSION, MODEL)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    path.write_bytes(b"\xff\xfe")
    store.save(tmp_path, VERSION, MODEL)
    assert store.load(tmp_path, VERSION) == MODEL


DAMAGE = {
    "empty": b"", "cut off": MODEL.to_json().encode()[:50], "no text": b"\xff\xfe\x00", "a list": b"[1, 2]",
    "null": b"null", "a word": b'"model"', "without heads": b'{"features": [], "trained_through": "2023-01-06"}',
    "no date": MODEL.to_json().replace("2023-01-06", "soon").encode(),
    "a number for a date": MODEL.to_json().replace('"2023-01-06"', "5").encode(),
    "one leaf changed": MODEL.to_json().replace("0.1", "0.2").encode(),
    "another model": JointPolicy((), date(2023, 1, 6), {}, (0.0, 1.0)).to_json().encode(),
}  # fmt: skip


@pytest.mark.parametrize("how", sorted(DAMAGE))
def test_a_damaged_model_is_refused_with_its_path_and_the_ways_out(tmp_path: Path, how: str):
    store.save(tmp_path, VERSION, MODEL)
    path = tmp_path / f"{VERSION}.json"
    path.write_bytes(DAMAGE[how])
    with pytest.raises(ModelCorrupt) as refusal:
        store.load(tmp_path, VERSION)
    for part in (str(path), "is damaged", "backup", "odin life rewind --to SESSION"):
        assert part in str(refusal.value)


def test_a_missing_model_is_refused_too(tmp_path: Path):
    with pytest.raises(ModelCorrupt, match="FileNotFoundError"):
        store.load(tmp_path, VERSION)
