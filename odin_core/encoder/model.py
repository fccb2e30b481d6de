"""A trained encoder as a thing to keep: its weights, how its inputs are scaled, and where it came from.

On disk it is a folder of two files, `weights.safetensors` and `encoder.json`, named by what they hold. How it comes to
be is `training`, what it says of a session is `embedding`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor

from odin_core.encoder.checkpoint import part_of
from odin_core.encoder.config import EncoderConfig
from odin_core.encoder.heads import Heads, Predictions
from odin_core.encoder.networks import Encoder, build
from odin_core.errors import OdinError
from odin_core.lake import write_text

WEIGHTS: Final = "weights.safetensors"
FACTS: Final = "encoder.json"
CLIP: Final = 8.0
"""Scaled values are kept within so many standard deviations."""
CURVES: Final = pl.Schema({"step": pl.Int64(), "head": pl.String(), "split": pl.String(), "loss": pl.Float64()})


class EncoderUnreadable(OdinError):
    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            f"{folder} is no whole encoder ({why}); it was damaged or belongs to another version of the code. "
            f"Delete the folder and train again: the same bars and configuration give the same encoder"
        )


@dataclass(frozen=True, eq=False)
class Scaling:
    """Mean and standard deviation of each feature over the rows that were learned from: (features,) float32."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def fitted(cls, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> Self:
        """Of the valid rows of `values` (rows, features), at least one; ddof 0. A feature that never varies is only
        shifted."""
        known = values[valid]
        mean, deviation = known.mean(axis=0, dtype=np.float64), known.std(axis=0, dtype=np.float64)
        deviation = np.where(deviation > 0.0, deviation, 1.0)
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def of(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(value − mean) / deviation within ±CLIP, of rows (…, features); 0 where not `valid` (…)."""
        scaled = np.clip((values - self.mean) / self.deviation, -CLIP, CLIP, dtype=np.float32)
        return np.where(valid[..., None], scaled, np.float32(0.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedEncoder:
    """Modules are in evaluation mode, on the CPU, and ask for no gradients; not to be trained on."""

    config: EncoderConfig
    features: tuple[str, ...]
    """Columns that an input row is made of, in this order."""
    scaling: Scaling
    encoder: Encoder
    heads: Heads
    trained_through: date
    """The last session whose bars had any part in it, validation included."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What JSON can say of its making: steps, best step, losses, rows, sessions, device, torch's version."""

    def __post_init__(self) -> None:
        for module in (self.encoder, self.heads):
            module.eval().requires_grad_(False)

    @cached_property
    def version(self) -> str:
        """ "encoder-" and twelve hex digits of everything that is saved: any other bit gives another version."""
        return _version(self._told, self._tensors)

    @property
    def curves(self) -> pl.DataFrame:
        """CURVES: the loss of each head, and `total`, by step and split ("training", "validation"). A loss of training
        is the mean over the steps since the one before it."""
        return pl.DataFrame(self.facts.get("curves", []), schema=CURVES, orient="row")

    def predictions(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> tuple[Tensor, Predictions]:
        """Embeddings (windows, rows, embedding) and what the heads make of them. values: (windows, rows, features) not
        scaled, in the order of `features`; valid: (windows, rows). Float32, on the CPU, with torch's threads as set."""
        with torch.inference_mode():
            embedding = self.encoder(torch.from_numpy(self.scaling.of(values, valid)), torch.tensor(valid))
            return embedding, self.heads(embedding)

    def save(self, folder: Path) -> None:
        """Write both files; the folder is made where it is not there. The one that says what is whole comes last."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS).write_bytes(bytes_of(self._tensors))
        write_text(_canonical({**self._told, "version": self.version}), folder / FACTS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote. Raises EncoderUnreadable where a file is missing or a bit of it is another one."""
        try:
            told = json.loads((folder / FACTS).read_text("utf-8"))
            tensors = tensors_of((folder / WEIGHTS).read_bytes())
            config = EncoderConfig.of(told["config"], str(folder / FACTS))
            features = tuple(told["features"])
            encoder, heads = build(config, len(features)), Heads(config, len(features))
            encoder.load_state_dict(part_of(tensors, "encoder"))
            heads.load_state_dict(part_of(tensors, "heads"))
            found = cls(
                config=config,
                features=features,
                scaling=Scaling(tensors["scaling.mean"].numpy(), tensors["scaling.deviation"].numpy()),
                encoder=encoder,
                heads=heads,
                trained_through=date.fromisoformat(told["trained_through"]),
                facts=told["facts"],
            )
            version = told["version"]
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
            AttributeError,
            SafetensorError,
            OdinError,
        ) as e:
            raise EncoderUnreadable(folder, f"{type(e).__name__}: {e}".splitlines()[0]) from e
        of_content = _version({name: value for name, value in told.items() if name != "version"}, tensors)
        if of_content != version:
            raise EncoderUnreadable(folder, f"its content is that of {of_content}, not of {version}")
        vars(found)["version"] = version  # a configuration that knows more settings today is still that encoder
        return found

    @property
    def _told(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "features": list(self.features),
            "trained_through": self.trained_through.isoformat(),
            "facts": dict(self.facts),
        }

    @property
    def _tensors(self) -> dict[str, Tensor]:
        scaling = {"mean": self.scaling.mean, "deviation": self.scaling.deviation}
        parts = {"encoder": self.encoder.state_dict(), "heads": self.heads.state_dict()}
        named = {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
        named |= {f"scaling.{name}": torch.from_numpy(array.copy()) for name, array in scaling.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}


def _version(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(_canonical(told).encode())
    for name, tensor in sorted(tensors.items()):
        array = tensor.contiguous().numpy()
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return f"encoder-{digest.hexdigest()[:12]}"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
