"""A trained encoder as one file that runs without this project: torch's exported program, and how it is read back.

In go features as they lie in the lake, not scaled, and which rows are usable; out come embeddings. Beside `name.pt2`
lies `name.json`, which says of which encoder, of what shapes, and the file's SHA-256. A model to learn on with goes
into `model.TrainedEncoder.save` instead."""

import hashlib
import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from odin_core.encoder.model import CLIP
from odin_core.errors import OdinError

if TYPE_CHECKING:
    from odin_core.encoder.model import TrainedEncoder

SUFFIX: Final = ".pt2"
FORMAT: Final = 1
EXAMPLES: Final = "data/sample_inputs/model.pt"
PLAIN: Final = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|models/model\.json|archive_(format|version)|byteorder|\.data/(version|serialization_id)|" + re.escape(EXAMPLES)
)
"""Parts of the archive: the graph as JSON, numbers as bytes, and the place of example inputs, which stays empty."""


class ExportUnreadable(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is no exported encoder that can be trusted ({why}); export the encoder again, which gives the "
            f"same bytes"
        )


class ExportOfAnotherVersion(OdinError):
    def __init__(self, path: Path, found: str, asked: str) -> None:
        super().__init__(f"{path} holds {found}, not {asked}; ask for {found}, or export {asked} to this place")


class WindowMismatch(OdinError):
    def __init__(self, found: tuple[int, ...], needed: tuple[int, int], version: str) -> None:
        super().__init__(
            f"windows of shape {found} do not fit {version}: it takes (windows, {needed[0]} bars, {needed[1]} "
            f"features), a shorter history padded on its left with rows that are not valid"
        )


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """What the file beside an exported encoder says."""

    version: str
    architecture: str
    features: tuple[str, ...]
    length: int
    embedding: int
    torch: str
    sha256: str
    format: int = FORMAT


@dataclass(frozen=True, eq=False)
class ExportedEncoder:
    """An encoder read back from its export, on the CPU."""

    facts: ExportFacts
    module: nn.Module

    def __call__(self, values: Tensor, valid: Tensor) -> Tensor:
        """Embeddings of each bar, (b, length, embedding) float32, of `values` (b, length, features) float32, not
        scaled, any number where not `valid` (b, length) bool; b of at least 1. Raises WindowMismatch."""
        needed = (self.facts.length, len(self.facts.features))
        if values.ndim != 3 or tuple(values.shape[1:]) != needed or not len(values) or valid.shape != values.shape[:2]:
            raise WindowMismatch(tuple(values.shape), needed, self.facts.version)
        with torch.no_grad():
            return self.module(values, valid)


class FromFeatures(nn.Module):
    """The encoder on features as they are: scaled as `Scaling.of` does, then encoded."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: "TrainedEncoder") -> None:
        super().__init__()
        self.encoder = model.encoder
        self.register_buffer("mean", torch.from_numpy(model.scaling.mean.copy()))
        self.register_buffer("deviation", torch.from_numpy(model.scaling.deviation.copy()))

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        scaled = ((values - self.mean) / self.deviation).clamp(-CLIP, CLIP)
        return self.encoder(torch.where(valid[..., None], scaled, 0.0), valid)


def export_encoder(model: "TrainedEncoder", path: Path) -> ExportFacts:
    """Write the encoder to `path`, which ends in .pt2, and its facts beside it; the facts come last, so an export is
    whole or refused. Any number of windows at once, each of exactly `config.length` bars. The same encoder gives the
    same bytes; no path or line of source is kept in them, and nothing that is read by pickle."""
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: an exported encoder's file ends in {SUFFIX}")
    content = _program(model)
    _require_plain(content, path)
    facts = ExportFacts(
        version=model.version,
        architecture=model.config.architecture,
        features=model.features,
        length=model.config.length,
        embedding=model.config.embedding,
        torch=torch.__version__,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    told = json.dumps(asdict(facts), indent=1, sort_keys=True) + "\n"
    for target, written in ((path, content), (path.with_suffix(".json"), told.encode())):
        unfinished = target.with_name(f".{target.name}.{os.getpid()}")
        unfinished.write_bytes(written)
        unfinished.replace(target)
    return facts


def load_exported(path: Path, *, version: str | None = None) -> ExportedEncoder:
    """The encoder of an export, of `version` where it is given.

    `torch.export.load` would unpickle what an archive declares as pickled, and evaluates expressions of its graph. So
    before it sees the bytes, their SHA-256 must be the one written beside them, and no part of the archive may be
    pickled. That finds damage and mistakes; who can write both files can still choose the graph that runs.
    Raises ExportUnreadable for a file that is missing, changed, pickled, or of a form this torch does not know, and
    ExportOfAnotherVersion."""
    try:
        facts = _facts(json.loads(path.with_suffix(".json").read_text("utf-8")))
        content = path.read_bytes()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExportUnreadable(path, f"{type(error).__name__}: {error}") from error
    if facts.format != FORMAT:
        raise ExportUnreadable(path, f"its format is {facts.format}, and this code reads {FORMAT}")
    if version is not None and facts.version != version:
        raise ExportOfAnotherVersion(path, facts.version, version)
    if hashlib.sha256(content).hexdigest() != facts.sha256:
        raise ExportUnreadable(path, "its bytes are not those that were written")
    _require_plain(content, path)
    try:
        module = torch.export.load(io.BytesIO(content)).module()
    except Exception as error:  # whatever torch makes of the form of another torch
        raise ExportUnreadable(path, f"written by torch {facts.torch}, read by {torch.__version__}: {error}") from error
    return ExportedEncoder(facts, module)


def _program(model: "TrainedEncoder") -> bytes:
    windows = torch.zeros(2, model.config.length, len(model.features))
    batch = {0: torch.export.Dim("windows", min=1)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The tensor attributes .* were assigned during export")  # of an LSTM
        program = torch.export.export(
            FromFeatures(model).eval(),
            (windows, torch.ones(windows.shape[:2], dtype=torch.bool)),
            dynamic_shapes={"values": batch, "valid": batch},
        )
    program.example_inputs = None  # they would be pickled
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _facts(told: Mapping[str, Any]) -> ExportFacts:
    return ExportFacts(**{**told, "features": tuple(told["features"])})


def _require_plain(content: bytes, path: Path) -> None:
    """Raise ExportUnreadable for an archive with another part than graph and plain numbers: torch would unpickle it, or
    run it as compiled code."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = [(info.filename.partition("/")[2], archive.read(info)) for info in archive.infolist()]
        declared = [json.loads(held)["config"] for name, held in parts if name.endswith("_config.json")]
        pickled = [name for entries in declared for name, entry in entries.items() if entry["use_pickle"]]
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportUnreadable(path, f"{type(error).__name__}: {error}") from error
    pickled += [name for name, held in parts if PLAIN.fullmatch(name) is None or (name == EXAMPLES and held)]
    if pickled or len(dict(parts)) < len(parts):
        raise ExportUnreadable(path, f"it holds more than a graph and numbers: {', '.join(pickled) or 'parts twice'}")
