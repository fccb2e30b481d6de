"""An exported encoder says what the encoder says, and a file that is not what was written is refused."""

import hashlib
import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from untrainedencoders import FEATURES, untrained, windows

from odin_core.encoder import export
from odin_core.encoder.export import (
    ExportOfAnotherVersion,
    ExportUnreadable,
    WindowMismatch,
    export_encoder,
    load_exported,
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A TCN and its export."""
    model, path = untrained(), tmp_path_factory.mktemp("exported") / "encoder.pt2"
    export_encoder(model, path)
    return model, path


def copied(path: Path, folder: Path) -> Path:
    for name in (path.name, path.with_suffix(".json").name):
        (folder / name).write_bytes((path.parent / name).read_bytes())
    return folder / path.name


@pytest.mark.parametrize("architecture", ["tcn", "transformer", "lstm"])
def test_the_export_gives_the_same_embeddings_bit_for_bit(architecture, tmp_path):
    model = untrained(architecture)
    export_encoder(model, tmp_path / "encoder.pt2")
    read = load_exported(tmp_path / "encoder.pt2", version=model.version)
    for count in (1, 2, 5):
        values, valid = windows(count, seed=count)
        values[~valid] = np.nan  # nobody looks there
        scaled = model.scaling.of(values, valid)
        with torch.no_grad():
            expected = model.encoder(torch.from_numpy(scaled), torch.from_numpy(valid))
        assert torch.equal(read(torch.from_numpy(values), torch.from_numpy(valid)), expected)
        assert (np.abs(scaled) == 8.0).any() or count == 1  # clipping was part of it


def test_the_facts_say_what_the_file_holds(exported):
    model, path = exported
    facts = load_exported(path).facts
    assert (facts.version, facts.length, facts.embedding, facts.features) == (model.version, 24, 12, FEATURES)
    assert facts.torch == torch.__version__
    assert json.loads(path.with_suffix(".json").read_text())["architecture"] == "tcn"


def test_the_same_encoder_gives_the_same_bytes_wherever_it_is_written(exported, tmp_path):
    model, path = exported
    export_encoder(model, tmp_path / "elsewhere" / "other.pt2")
    assert (tmp_path / "elsewhere" / "other.pt2").read_bytes() == path.read_bytes()


def test_neither_pickle_nor_paths_of_this_machine_are_in_the_file(exported):
    _, path = exported
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    assert not [name for name, held in parts.items() if name.endswith((".pt", ".pkl")) and held]
    assert b'"use_pickle": true' not in b"".join(parts.values())
    assert str(Path(export.__file__).parent).encode() not in b"".join(parts.values())


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_changed_byte_is_found_before_torch_sees_the_file(exported, tmp_path, monkeypatch, place):
    path = copied(exported[1], tmp_path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("torch was given a file that is not trusted"))
    with pytest.raises(ExportUnreadable, match="not those that were written"):
        load_exported(path)


def test_another_version_is_refused(exported):
    with pytest.raises(ExportOfAnotherVersion, match="encoder-000000000000"):
        load_exported(exported[1], version="encoder-000000000000")


@pytest.mark.parametrize("damage", ["no facts", "no file", "facts cut", "another format", "a fact more"])
def test_an_export_that_is_not_whole_is_refused(exported, tmp_path, damage):
    path = copied(exported[1], tmp_path)
    facts = path.with_suffix(".json")
    told = json.loads(facts.read_text())
    match damage:
        case "no facts":
            facts.unlink()
        case "no file":
            path.unlink()
        case "facts cut":
            facts.write_text(facts.read_text()[:40])
        case "another format":
            facts.write_text(json.dumps(told | {"format": 99}))
        case _:
            facts.write_text(json.dumps(told | {"colour": "blue"}))
    with pytest.raises(ExportUnreadable):
        load_exported(path)


@pytest.mark.parametrize(
    "part", ["data/constants/opaque_obj_0", "data/sample_inputs/model.pt", "data/weights/weight_0"]
)
def test_what_torch_would_unpickle_is_refused_even_with_a_matching_hash(exported, tmp_path, monkeypatch, part):
    """Parts of an archive that torch reads by pickle, and a part that is there twice."""
    path = copied(exported[1], tmp_path)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"archive/{part}", b"\x80\x04cos\nsystem\n")
    facts = path.with_suffix(".json")
    told = json.loads(facts.read_text())
    facts.write_text(json.dumps(told | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("torch was given a pickle"))
    with pytest.raises(ExportUnreadable, match="more than a graph and numbers"):
        load_exported(path)


@pytest.mark.parametrize("shape", [(2, 23, 7), (2, 24, 6), (0, 24, 7), (24, 7)])
def test_windows_of_another_shape_are_refused(exported, shape):
    with pytest.raises(WindowMismatch, match="24 bars, 7"):
        load_exported(exported[1])(torch.zeros(shape), torch.ones(shape[:-1], dtype=torch.bool))


def test_the_file_is_called_pt2(exported, tmp_path):
    with pytest.raises(ValueError, match="pt2"):
        export_encoder(exported[0], tmp_path / "encoder.onnx")
