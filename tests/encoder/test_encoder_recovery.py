"""A training that is killed goes on with the same command, to the same bits."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from plantedsamples import planted_samples
from trainingprocess import CONFIG, SAMPLES

from odin_core.encoder import checkpoint
from odin_core.encoder.checkpoint import FILE, AnotherTraining, CheckpointUnreadable, read_checkpoint
from odin_core.encoder.model import TrainedEncoder
from odin_core.encoder.training import train

SCRIPT = Path(__file__).with_name("trainingprocess.py")


@pytest.fixture(scope="module")
def whole() -> TrainedEncoder:
    """In one go, with nothing kept."""
    return train(SAMPLES, CONFIG)


class Stopped(Exception):
    pass


def stop_after(step: int):
    def progress(done: int, steps: int, what: str) -> None:
        if done >= step:
            raise Stopped

    return progress


def killed_at(folder: Path, beginning: str) -> None:
    """Run the training until it says a line that begins so, and kill it in the midst of what it does then."""
    with subprocess.Popen([sys.executable, SCRIPT, folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(beginning):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL


def step_in(folder: Path) -> int:
    found = read_checkpoint(folder, f"{SAMPLES.fingerprint} {CONFIG.model_dump_json()}")
    return 0 if found is None else found.state["step"]


def test_a_training_that_is_killed_ends_with_the_weights_of_one_that_was_not(whole: TrainedEncoder, tmp_path: Path):
    killed_at(tmp_path, "40/")
    assert 30 <= step_in(tmp_path) < 100
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == whole.version
    assert not done.stdout.startswith("20/")  # it did not begin anew
    again = train(SAMPLES, CONFIG, checkpoints=tmp_path)
    assert again.version == whole.version
    for name, tensor in whole.encoder.state_dict().items():
        assert torch.equal(tensor, again.encoder.state_dict()[name])


@pytest.mark.parametrize("step", [20, 60])
def test_going_on_from_any_checkpoint_gives_the_same_curves_and_weights(
    whole: TrainedEncoder, step: int, tmp_path: Path
):
    """At 20 validation and checkpoint do not coincide: sums of the losses since then have to come back too."""
    with pytest.raises(Stopped):
        train(SAMPLES, CONFIG, checkpoints=tmp_path, progress=stop_after(step))
    assert step_in(tmp_path) == step // 15 * 15 - (15 if step % 15 == 0 else 0)
    resumed = train(SAMPLES, CONFIG, checkpoints=tmp_path)
    assert resumed.version == whole.version
    assert resumed.curves.equals(whole.curves)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    whole: TrainedEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(Stopped):
        train(SAMPLES, CONFIG, checkpoints=tmp_path, progress=stop_after(40))
    kept = (tmp_path / FILE).read_bytes()

    def cut_off(source: Path, target: Path) -> None:
        source.write_bytes(source.read_bytes()[:1000])
        raise Stopped

    monkeypatch.setattr(checkpoint.os, "replace", cut_off)
    with pytest.raises(Stopped):
        train(SAMPLES, CONFIG, checkpoints=tmp_path)
    monkeypatch.undo()
    assert (tmp_path / FILE).read_bytes() == kept
    assert train(SAMPLES, CONFIG, checkpoints=tmp_path).version == whole.version


def test_a_checkpoint_of_other_samples_or_another_configuration_is_refused(tmp_path: Path):
    with pytest.raises(Stopped):
        train(SAMPLES, CONFIG, checkpoints=tmp_path, progress=stop_after(20))
    with pytest.raises(AnotherTraining, match="folder of its own"):
        train(SAMPLES, CONFIG.model_copy(update={"seed": 8}), checkpoints=tmp_path)
    with pytest.raises(AnotherTraining):
        train(planted_samples(6, symbols=3, sessions=20), CONFIG, checkpoints=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "head", "empty", "no state"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str):
    with pytest.raises(Stopped):
        train(SAMPLES, CONFIG, checkpoints=tmp_path, progress=stop_after(20))
    content = (tmp_path / FILE).read_bytes()
    size = int(np.frombuffer(content[:8], np.int64)[0])
    head = json.loads(content[8 : 8 + size])
    head["__metadata__"] = {"odin.training": "{"}
    text = json.dumps(head).encode()
    damaged = {
        "cut": content[:-100],
        "head": b"\xff" * 50 + content[50:],
        "empty": b"",
        "no state": np.int64(len(text)).tobytes() + text + content[8 + size :],
    }
    (tmp_path / FILE).write_bytes(damaged[damage])
    with pytest.raises(CheckpointUnreadable, match="delete it"):
        train(SAMPLES, CONFIG, checkpoints=tmp_path)
