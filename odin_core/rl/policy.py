"""A trained policy as a value: networks in plain torch, what they choose, and a file without pickle.

What comes in are observations as `rl.observation` lays them out; what goes out are choices (`rl.choices`), their
probabilities and the critic's value. How a policy is trained is in `rl.ppo`."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from odin_core.errors import OdinError

if TYPE_CHECKING:
    from odin_core.rl.choices import Choices

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

FILE: Final = "policy.safetensors"
FACTS: Final = "policy.json"
ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
BLOCK: Final = 65_536  # observations that pass the networks at once


class PolicyUnreadable(OdinError):
    def __init__(self, where: object, why: str) -> None:
        super().__init__(f"{where} holds no policy that can be trusted ({why}); train it again or restore the file")


class ObservationMismatch(OdinError):
    def __init__(self, found: tuple[int, ...], needed: int) -> None:
        super().__init__(
            f"observations of shape {found} do not fit a policy of {needed} columns; it needs (n, {needed}): use the "
            f"environment settings and the tape layout that it was trained with"
        )


@dataclass(frozen=True)
class Structure:
    """What the networks look like: columns in, units of each hidden layer, one softmax per dimension of the action."""

    observation: int
    actions: tuple[int, ...]
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"

    def told(self) -> dict[str, Any]:
        return {"observation": self.observation, "actions": list(self.actions), "hidden": list(self.hidden),
                "activation": self.activation}  # fmt: skip

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        return cls(int(told["observation"]), tuple(told["actions"]), tuple(told["hidden"]), str(told["activation"]))


class ActorCritic(nn.Module):
    """Two multilayer perceptrons that share nothing: logits of all action dimensions side by side, and a value.

    The same functions as Stable-Baselines3's MlpPolicy with the same weights (`of_sb3` takes them over)."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        self.actor = _perceptron(structure, sum(structure.actions))
        self.critic = _perceptron(structure, 1)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """(n, observation) float32 → logits (n, Σ actions), values (n,)."""
        return self.actor(observations), self.critic(observations).squeeze(-1)

    def log_probabilities(self, observations: Tensor) -> list[Tensor]:
        """(n, observation) → one (n, k) tensor of log probabilities per action dimension; differentiable."""
        split = torch.split(self.actor(observations), list(self.structure.actions), dim=1)
        return [torch.log_softmax(part, dim=1) for part in split]


def _perceptron(structure: Structure, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = structure.observation
    for units in structure.hidden:
        layers += [nn.Linear(width, units), ACTIVATIONS[structure.activation]()]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, out))


SB3_NAMES: Final = {
    "actor": ("mlp_extractor.policy_net", "action_net"),
    "critic": ("mlp_extractor.value_net", "value_net"),
}


def _renamed(name: str, layers: int) -> str:
    """Our name of a weight → Stable-Baselines3's."""
    part, index, what = name.split(".")
    inner, outer = SB3_NAMES[part]
    return f"{outer}.{what}" if int(index) == 2 * layers else f"{inner}.{index}.{what}"


def to_sb3(weights: Mapping[str, Tensor], structure: Structure) -> dict[str, Tensor]:
    """The weights under the names of Stable-Baselines3's ActorCriticPolicy."""
    return {_renamed(name, len(structure.hidden)): tensor for name, tensor in weights.items()}


def of_sb3(state: Mapping[str, Tensor], structure: Structure) -> dict[str, Tensor]:
    """Copies of an ActorCriticPolicy's weights under our names."""
    names = ActorCritic(structure).state_dict()
    return {name: state[_renamed(name, len(structure.hidden))].detach().clone() for name in names}


@dataclass(frozen=True, eq=False)
class TradingPolicy:
    """Weights, what they are the weights of, and facts about how they came about (no part of the identity).

    `weights`: float32 tensors by the names of `ActorCritic`; not to be written to. `facts` are JSON."""

    structure: Structure
    weights: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def network(self) -> ActorCritic:
        """In evaluation mode, without gradients."""
        with torch.random.fork_rng(devices=[]):  # building draws weights, which the next line replaces
            network = ActorCritic(self.structure)
        network.load_state_dict(self.weights)
        return network.requires_grad_(False).eval()

    @cached_property
    def version(self) -> str:
        """ "policy-" and ten hex digits over structure and weights: the same content, the same name."""
        return f"policy-{digest(self.structure.told(), self.weights)[:10]}"

    def actions(self, observations: Floats) -> Ints:
        """(n, observation) → (n, dimensions) int64: the likeliest of each dimension, the first of equals.
        Raises ObservationMismatch."""
        logits = [self._split(block) for block in self._blocks(observations)]
        chosen = [np.stack([part.argmax(dim=1).numpy() for part in parts], axis=1) for parts in logits]
        return np.concatenate([np.empty((0, len(self.structure.actions)), np.int64), *chosen])

    def choose(self, observations: Floats) -> "Choices":
        """`actions` as `Choices`: what the policy would do, nothing drawn. Raises ObservationMismatch."""
        from odin_core.rl.choices import Choices

        return Choices.of_actions(self.actions(observations))

    def probabilities(self, observations: Floats) -> tuple[Floats, ...]:
        """(n, observation) → per action dimension (n, k) float32, rows summing to 1. The dimensions are independent
        given the observation, so a whole choice has the product. Raises ObservationMismatch."""
        blocks = [[torch.softmax(part, dim=1).numpy() for part in self._split(b)] for b in self._blocks(observations)]
        empty = [np.empty((0, k), np.float32) for k in self.structure.actions]
        return tuple(np.concatenate([e, *(block[i] for block in blocks)]) for i, e in enumerate(empty))

    def value(self, observations: Floats) -> Floats:
        """(n, observation) → (n,) float32: the critic's expected sum of discounted rewards, in the scale that the
        policy was trained with (`facts["reward_scale"]` times the environment's). Raises ObservationMismatch."""
        with torch.no_grad():
            values = [self.network.critic(block).squeeze(-1).numpy() for block in self._blocks(observations)]
        return np.concatenate([np.empty(0, np.float32), *values])

    def _split(self, observations: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            return torch.split(self.network.actor(observations), list(self.structure.actions), dim=1)

    def _blocks(self, observations: Floats) -> list[Tensor]:
        if observations.ndim != 2 or observations.shape[1] != self.structure.observation:
            raise ObservationMismatch(observations.shape, self.structure.observation)
        whole = torch.tensor(observations, dtype=torch.float32)  # a copy, aligned: the same bits wherever it came from
        return list(torch.split(whole, BLOCK)) if len(whole) else []

    def to_bytes(self) -> bytes:
        """One safetensors file whose header holds structure, facts and checksum as JSON; equal content, equal bytes."""
        return save(self.weights, metadata={"policy": _canonical(self._told())})

    @classmethod
    def from_bytes(cls, data: bytes, where: object = "the bytes") -> Self:
        """Back from `to_bytes`. Raises PolicyUnreadable for anything else, down to one changed bit."""
        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            told = json.loads(header["__metadata__"]["policy"])
            structure, facts, weights = Structure.of(told["structure"]), told["facts"], load(data)
            sound = told["checksum"] == digest(told["structure"] | {"facts": facts}, weights)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PolicyUnreadable(where, f"{type(error).__name__}: {error}") from error
        if not sound:
            raise PolicyUnreadable(where, "its checksum does not match its content")
        return cls(structure, weights, facts)

    def save(self, folder: Path) -> None:
        """`policy.safetensors` (`to_bytes`) and, to read, `policy.json`; each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        told = json.dumps({"version": self.version} | self._told(), indent=1, sort_keys=True, allow_nan=False) + "\n"
        for name, content in ((FILE, self.to_bytes()), (FACTS, told.encode())):
            unfinished = folder / f".{name}.unfinished"
            unfinished.write_bytes(content)
            unfinished.replace(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Back from `save`. Raises PolicyUnreadable."""
        try:
            data = (folder / FILE).read_bytes()
        except OSError as error:
            raise PolicyUnreadable(folder / FILE, str(error)) from error
        return cls.from_bytes(data, folder / FILE)

    def _told(self) -> dict[str, Any]:
        structure = self.structure.told()
        return {"structure": structure, "facts": self.facts,
                "checksum": digest(structure | {"facts": self.facts}, self.weights)}  # fmt: skip


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(told: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(_canonical(dict(told)).encode())
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
