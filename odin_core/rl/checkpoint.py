"""The state of a training in one file: arrays and JSON in safetensors, a checksum, no pickle.

Whose state that is, and what a resumed run must have in common with the one that was killed, is said by the caller
(`identity`); here it is only written whole or not at all, read back, and compared."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from odin_core.errors import OdinError

KEPT: Final = 2
"""Checkpoints that stay: the newest, and the one before it should the newest be damaged."""

Arrays = dict[str, npt.NDArray[Any]]


class CheckpointUnreadable(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is no sound checkpoint ({why}); delete it, and the run goes on from the one before it"
        )


class CheckpointOfAnother(OdinError):
    def __init__(self, path: Path, differs: list[str]) -> None:
        super().__init__(
            f"{path} belongs to another training: {'; '.join(differs)}; resume with its settings or use another folder"
        )


class NoEnvironmentState(OdinError):
    def __init__(self, environment: object) -> None:
        super().__init__(
            f"{type(environment).__name__} has no state() and set_state(), so a checkpoint could not bring it back; "
            f"train it without a folder"
        )


@dataclass(frozen=True)
class Checkpoint:
    """`arrays`: by name, any plain dtype. `told`: JSON. `updates`: how many the training had made."""

    updates: int
    arrays: Arrays
    told: dict[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint, identity: Mapping[str, Any]) -> Path:
    """Write it beside the others, by temporary name and rename, and delete all but the KEPT newest."""
    folder.mkdir(parents=True, exist_ok=True)
    told = json.dumps(
        {"updates": checkpoint.updates, "told": checkpoint.told, "identity": dict(identity),
         "arrays": _digest(checkpoint.arrays)}, sort_keys=True, allow_nan=False)  # fmt: skip
    arrays = {name: np.asarray(array, order="C") for name, array in checkpoint.arrays.items()}
    path = folder / f"checkpoint-{checkpoint.updates:08d}.safetensors"
    unfinished = folder / f".{path.name}.unfinished"
    unfinished.write_bytes(save(arrays, metadata={"state": told, "checksum": _sha(told)}))
    unfinished.replace(path)
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Files of the folder's checkpoints, oldest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"))


def newest_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """The state to go on from; None where there is none yet. `identity` is what this training is: JSON values.
    Raises CheckpointUnreadable, CheckpointOfAnother."""
    found = checkpoints(folder)
    return read_checkpoint(found[-1], identity) if found else None


def read_checkpoint(path: Path, identity: Mapping[str, Any]) -> Checkpoint:
    """Raises CheckpointUnreadable, CheckpointOfAnother."""
    try:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        state, arrays = json.loads(header["state"]), load(data)
        sound = header["checksum"] == _sha(header["state"]) and state["arrays"] == _digest(arrays)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointUnreadable(path, f"{type(error).__name__}: {error}") from error
    if not sound:
        raise CheckpointUnreadable(path, "its checksum does not match its content")
    wanted = json.loads(json.dumps(dict(identity)))
    differs = [
        f"{name} is {state['identity'].get(name)!r} there and {wanted.get(name)!r} here"
        for name in sorted(wanted.keys() | state["identity"].keys())
        if wanted.get(name) != state["identity"].get(name)
    ]
    if differs:
        raise CheckpointOfAnother(path, differs)
    return Checkpoint(state["updates"], arrays, state["told"])


def prefixed(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def under(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """What `prefixed` put there, by its own names."""
    return {name.removeprefix(f"{prefix}/"): a for name, a in arrays.items() if name.startswith(f"{prefix}/")}


def optimizer_arrays(optimizer: torch.optim.Optimizer) -> Arrays:
    """Moments and step counts of an optimizer, by parameter and name; its options come from the settings."""
    state = optimizer.state_dict()["state"]
    return {f"{i}/{name}": tensor.numpy() for i, values in state.items() for name, tensor in values.items()}


def set_optimizer(optimizer: torch.optim.Optimizer, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Back from `optimizer_arrays`, on an optimizer of the same parameters."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, array in arrays.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = torch.tensor(array)
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def generator_state() -> tuple[Arrays, dict[str, Any]]:
    """Torch's and numpy's process-wide generators, which Stable-Baselines3 draws from, as arrays and JSON."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    told = {"kind": str(kind), "position": int(position), "has_gauss": int(has_gauss), "gauss": float(gauss)}
    return {"torch": torch.get_rng_state().numpy(), "numpy": np.asarray(keys)}, told


def set_generators(arrays: Mapping[str, npt.NDArray[Any]], told: Mapping[str, Any]) -> None:
    torch.set_rng_state(torch.tensor(arrays["torch"]))
    np.random.set_state((told["kind"], arrays["numpy"], told["position"], told["has_gauss"], told["gauss"]))


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
