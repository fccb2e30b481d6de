"""A training that stopped half-way: everything that it goes on from, in one file that is whole or not there.

Randomness is not in it: each step draws from a generator of its own, made from the seed and the step's number."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from odin_core.errors import OdinError

FILE: Final = "training.safetensors"
STATE: Final = "odin.training"  # key of the JSON text in the file's head


class CheckpointUnreadable(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is no whole checkpoint ({why}); delete it, and training begins at its first step")


class AnotherTraining(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is the checkpoint of a training on other samples or with another configuration; "
            f"give this one a folder of its own, or delete that file"
        )


class Checkpoint(NamedTuple):
    """`tensors` by part and name ("encoder.…", "best.…", "optimizer.…"); `state` is what JSON can say."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def write_checkpoint(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Replace the folder's checkpoint. A kill at any moment leaves the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    path, half = folder / FILE, folder / f".{FILE}.tmp"
    held = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    save_file(held, half, {STATE: json.dumps(state, sort_keys=True)})
    os.replace(half, path)


def read_checkpoint(folder: Path, mark: str) -> Checkpoint | None:
    """The folder's checkpoint of the training that `mark` names; None where there is none yet.
    Raises CheckpointUnreadable, AnotherTraining."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})[STATE])
            found = Checkpoint({name: file.get_tensor(name) for name in file.keys()}, state)  # noqa: SIM118
        written = found.state["mark"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointUnreadable(path, f"{type(error).__name__}: {error}".splitlines()[0]) from error
    if written != mark:
        raise AnotherTraining(path)
    return found


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors below `part`, by their names there."""
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def under(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, as "<number>.<what>"."""
    held = optimizer.state_dict()["state"]
    return {f"{number}.{what}": value for number, state in held.items() for what, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo `optimizer_tensors` on an optimiser of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, what = name.split(".")
        state.setdefault(int(number), {})[what] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
