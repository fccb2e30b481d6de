"""A softmax policy over FLAT and the action grid, as it decides and as it is stored. How it learns is in `reinforce`.

Plain numpy, so that a shadow that decides with it needs no torch. The logits of the 129 choices are

    log prior + design · (W₂ tanh(W₁ z + b₁) + b₂),   z the standardised features, cut at ±5, unknown ones 0,

and choices that are not allowed have probability 0."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from odin_core.errors import OdinError
from odin_core.policies.actions import ACTIONS, FLAT, PER_SIDE, SHAPE, SIDES, FloatArray, Proposals
from odin_core.rl.offline_data import Matrix

Heads = Literal["side", "factored", "joint"]
Weights = dict[str, FloatArray]
TIE = 1e-9  # of probabilities, which stays flat
FAR = 5.0  # standard deviations at which a feature is cut


class PolicyUnreadable(OdinError):
    def __init__(self, why: object) -> None:
        super().__init__(
            f"this is no stored REINFORCE policy ({why}); `odin rl offline --policy FILE` writes one, and it must "
            f"be kept whole"
        )


def design(heads: Heads) -> FloatArray:
    """(outputs, ACTIONS + 1): what each output of the network adds to each choice's logit, FLAT last. `joint`: one
    output for every choice; else one for FLAT, then one for each side, size, stop and target."""
    if heads == "joint":
        return np.eye(ACTIONS + 1)
    places = np.unravel_index(np.arange(ACTIONS), SHAPE)
    axes = [np.eye(n)[:, place] for n, place in zip(SHAPE, places, strict=True)]
    actions = np.vstack([np.zeros((1, ACTIONS)), *axes])
    flat = np.eye(len(actions))[:, :1]
    return np.hstack([actions, flat])


def by_context(heads: Heads) -> FloatArray:
    """(outputs,) 1 where an output depends on the context, 0 where it is one number for all of them."""
    count = len(design(heads))
    return np.ones(count) if heads != "side" else (np.arange(count) <= len(SIDES)).astype(np.float64)


def log_prior(trade_probability: float) -> FloatArray:
    """(ACTIONS + 1,) of the policy that trades with this probability and draws the action uniformly."""
    return np.log(np.append(np.full(ACTIONS, trade_probability / ACTIONS), 1 - trade_probability))


@dataclass(frozen=True, eq=False)
class Scaling:
    """How features become inputs of a network; learned from the sessions that it learns from."""

    mean: FloatArray  # (features,)
    deviation: FloatArray  # (features,), 1 where a feature does not move

    @classmethod
    def of(cls, features: Matrix) -> Self:
        """Mean and standard deviation (ddof 0) of what is known of (n, features)."""
        values = features.astype(np.float64)
        known = np.isfinite(values)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, values, 0.0).sum(axis=0) / count
        deviation = np.sqrt(np.where(known, (values - mean) ** 2, 0.0).sum(axis=0) / count)
        return cls(mean, np.where(deviation > 0, deviation, 1.0))

    def apply(self, features: Matrix) -> FloatArray:
        """(n, features) in standard deviations, cut at ±FAR; unknown becomes 0, the mean."""
        return np.nan_to_num(np.clip((features.astype(np.float64) - self.mean) / self.deviation, -FAR, FAR))


@dataclass(frozen=True, eq=False)
class ReinforcePolicy:
    """`weights`: `hidden.weight` (hidden, features), `hidden.bias`, `out.weight` (outputs, hidden), `out.bias`; without
    a hidden layer `out.weight` is (outputs, features)."""

    features: tuple[str, ...]
    trained_through: date  # the last session whose outcomes it was learned or stopped by
    heads: Heads
    trade_probability: float  # of the prior
    scaling: Scaling
    weights: Weights
    platt: tuple[float, float]  # intercept and slope of the confidence in the log odds of trading
    facts: dict[str, Any] = field(default_factory=dict)  # how it was learned, for people

    name = "reinforce"

    def probabilities(self, X: Matrix, allowed: NDArray[np.bool_] | None = None) -> FloatArray:
        """(n, ACTIONS + 1) of every choice, FLAT last, for contexts (n, features) in the order of `self.features`;
        `allowed` (n, ACTIONS) masks actions that cannot be done. NaN features count as their mean."""
        z = self.scaling.apply(X)
        if "hidden.weight" in self.weights:
            z = np.tanh(z @ self.weights["hidden.weight"].T + self.weights["hidden.bias"])
        outputs = z @ self.weights["out.weight"].T * by_context(self.heads) + self.weights["out.bias"]
        logits = outputs @ design(self.heads) + log_prior(self.trade_probability)
        if allowed is not None:
            logits = np.where(with_flat(allowed), logits, -np.inf)
        weight = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weight / weight.sum(axis=1, keepdims=True)

    def propose(self, X: Matrix, allowed: NDArray[np.bool_] | None = None) -> Proposals:
        """What it would do, without chance: the likeliest action where trading is likelier than not, else FLAT.
        `score` is P(long) − P(short), halved; `confidence` Platt's of the lean; where nothing is allowed it is FLAT."""
        chance = self.probabilities(X, allowed)
        trade = chance[:, :ACTIONS].sum(axis=1)
        lean = chance[:, :ACTIONS].argmax(axis=1).astype(np.int64)
        odds = log_odds(trade)
        a, b = self.platt
        score = (chance[:, :PER_SIDE].sum(axis=1) - chance[:, PER_SIDE:ACTIONS].sum(axis=1)) / 2
        return Proposals(np.where(trade > 0.5 + TIE, lean, FLAT), lean, 1 / (1 + np.exp(-(a + b * odds))), score)

    @cached_property
    def version(self) -> str:
        """The learner and the hash of what decides; how it was learned does not count."""
        return f"{self.name}-{hashlib.sha256(self._content(self._head())).hexdigest()[:10]}"

    def _head(self) -> dict[str, Any]:
        return {
            "kind": self.name, "features": self.features, "trained_through": self.trained_through.isoformat(),
            "heads": self.heads, "trade_probability": self.trade_probability, "platt": self.platt,
        }  # fmt: skip

    def _content(self, head: dict[str, Any]) -> bytes:
        from safetensors.numpy import save

        arrays = self.weights | {"scaling.mean": self.scaling.mean, "scaling.deviation": self.scaling.deviation}
        whole = {name: np.ascontiguousarray(value, dtype=np.float64) for name, value in sorted(arrays.items())}
        return save(whole, metadata={"policy": json.dumps(head, sort_keys=True)})

    def to_bytes(self) -> bytes:
        """One safetensors file whose header holds the rest as JSON; equal policies give equal bytes."""
        return self._content(self._head() | {"facts": self.facts})

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Raises PolicyUnreadable."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(content)
            length = int.from_bytes(content[:8], "little")
            head = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["policy"])
            scaling = Scaling(arrays.pop("scaling.mean"), arrays.pop("scaling.deviation"))
            if head["kind"] != cls.name:
                raise PolicyUnreadable(f"it is a policy of {head['kind']}")
            return cls(
                tuple(head["features"]), date.fromisoformat(head["trained_through"]), head["heads"],
                head["trade_probability"], scaling, arrays, tuple(head["platt"]), head["facts"],
            )  # fmt: skip
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise PolicyUnreadable(f"{type(error).__name__}: {error}") from error


def with_flat(allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n, ACTIONS + 1): FLAT, the last choice, is always allowed."""
    return np.hstack([allowed, np.ones((len(allowed), 1), np.bool_)])


def log_odds(probability: FloatArray) -> FloatArray:
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(p) - np.log1p(-p)
