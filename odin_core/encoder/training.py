"""Pretraining of the encoder: one loop over random windows, on a CPU or a GPU, that can be killed and goes on.

What it learns from is `samples`, what it is asked `targets`, how answers are scored `heads`. Every step draws windows,
hidden rows and dropout from generators made of the seed and the step's number, so on a CPU with the configuration's
threads the same samples and configuration give the same bits, in one go or in pieces."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import deterministic

from odin_core.encoder import checkpoint as checkpoints_of
from odin_core.encoder.config import EncoderConfig
from odin_core.encoder.heads import Heads, Targets, losses
from odin_core.encoder.model import Scaling, TrainedEncoder
from odin_core.encoder.networks import build, has_begun
from odin_core.encoder.samples import SET, NoUsableRows, Samples, market_samples, masked_spans, split, window_rows
from odin_core.errors import OdinError
from odin_core.features.catalogue import set_version
from odin_core.features.series import IntArray
from odin_core.features.windows import BoolArray
from odin_core.market.derived import mark_of, mark_of_bars, version_of

if TYPE_CHECKING:
    from odin_core.market.data import MarketData

Progress = Callable[[int, int, str], None]
TRAINING, VALIDATION = range(2)
"""Streams of randomness of one seed."""
VALIDATION_WINDOWS: Final = 64
FILLING: Final = "fill_uninitialized_memory"
"""Torch's switch for filling fresh memory in exact runs. Nothing here reads such memory, and filling it takes time."""
CODE: Final = (
    *(f"encoder.{name}" for name in ("config", "heads", "model", "networks", "samples", "targets", "training")),
    *("features.regime", "features.windows", "structure.density", "structure.heatmap", "structure.pivots"),
)
"""Modules of odin_core that a trained encoder follows from, beside those of its features."""


class TrainingDiverged(OdinError):
    def __init__(self, step: int, head: str) -> None:
        super().__init__(
            f"the loss of {head} is no finite number after step {step}; lower learning_rate, or raise warm_up"
        )


class NoGpu(OdinError):
    def __init__(self) -> None:
        super().__init__("the encoder's configuration says device: cuda, and torch sees no GPU here; set device: cpu")


def train_encoder(
    data: "MarketData",
    through: date,
    config: EncoderConfig,
    *,
    first: date | None = None,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
) -> TrainedEncoder:
    """The encoder of a market as of the close of `through`, learned from the newest `config.sessions` sessions that
    there are, none before `first`: `market_samples` and `train`, whose errors it raises. Memory follows from that
    number and not from how long the market's history is."""
    _require_device(config)  # before the rows, which take longer
    learned = learned_sessions(data, through, config, first)
    if not learned:
        raise NoUsableRows(f"of {data.profile.name} up to {through}", ())
    return train(market_samples(data, config, through, learned[0]), config, checkpoints=checkpoints, progress=progress)


def learned_sessions(data: "MarketData", through: date, config: EncoderConfig, first: date | None = None) -> list[date]:
    """The sessions with bars that `train_encoder` learns from, ascending."""
    return data.sessions(first, through)[-config.sessions :]


def made_from(data: "MarketData", through: date, config: EncoderConfig, *, first: date | None = None) -> str:
    """Sixteen hex digits of what `train_encoder` with these arguments follows from: bars, corporate actions, features,
    configuration and the text of what computes it. Bars are those of the sessions learned from and of the ones before
    that their features look back on; those of a synthetic market are generated."""
    learned = learned_sessions(data, through, config, first)
    read = [*data.sessions_before(learned[0], SET, config.interval), *learned] if learned else []
    data.generate(read)
    code = version_of(*(import_module(f"odin_core.{name}") for name in CODE))
    bars, began = mark_of_bars(data, read) if read else "", str(learned[0]) if learned else ""
    return mark_of([bars, began, set_version(SET), config.model_dump_json(), code])


def train(
    samples: Samples,
    config: EncoderConfig,
    *,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
) -> TrainedEncoder:
    """An encoder and its heads, learned from `samples`; of all steps the one whose loss on the purged validation rows
    is least. It stops after `patience` validations without a lower one.

    checkpoints: a folder of this training alone; after a kill the same call goes on there, to the same result. None:
    nothing is kept. progress(steps done, steps, loss in words) after each validation. bf16 and compilation are for a
    GPU; on a CPU they are left out. Torch's threads and seeds are afterwards what they were before.
    Raises TooFewSessions, NoUsableRows, NoGpu, TrainingDiverged, CheckpointUnreadable, AnotherTraining."""
    _require_device(config)
    with repeatable(config.threads, config.device):
        learner = _Learner(samples, config)
        state = learner.resumed(checkpoints) if checkpoints else None
        state = state or _State()
        while not state.is_over(config):
            learner.learn(state.step)
            state.step += 1
            if state.step % config.validate_every == 0 or state.step == config.steps:
                _judge(learner, state)
                if progress:
                    progress(state.step, config.steps, f"validation loss {state.latest:.4f}, least {state.least:.4f}")
            if checkpoints and (state.step % config.checkpoint_every == 0 or state.is_over(config)):
                learner.keep(checkpoints, state)
        return learner.trained(state)


@contextmanager
def repeatable(threads: int, device: str) -> Iterator[None]:
    """So many threads, and on the CPU only algorithms that give the same bits each time; afterwards torch's threads,
    generators and algorithms are those from before."""
    before, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filled = getattr(deterministic, FILLING)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device == "cuda" else []):
        try:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(device == "cpu")
            setattr(deterministic, FILLING, False)
            yield
        finally:
            torch.set_num_threads(before)
            torch.use_deterministic_algorithms(exact)
            setattr(deterministic, FILLING, filled)


def _require_device(config: EncoderConfig) -> None:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise NoGpu


def learning_rate(config: EncoderConfig, step: int) -> float:
    """Linear from 0 over the first `warm_up` steps, then half a cosine from its full value down to 0 at `steps`.
    Source: Loshchilov & Hutter 2017, without restarts."""
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    done = (step - config.warm_up) / max(config.steps - config.warm_up, 1)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


class _State:
    """Where a training is: plain numbers, for JSON."""

    def __init__(self, told: dict[str, Any] | None = None) -> None:
        told = told or {}
        self.step: int = told.get("step", 0)
        self.least: float = told.get("least", math.inf)
        self.best_step: int = told.get("best_step", 0)
        self.latest: float = told.get("latest", math.inf)
        self.without_gain: int = told.get("without_gain", 0)
        self.curves: list[list[Any]] = told.get("curves", [])

    def is_over(self, config: EncoderConfig) -> bool:
        return self.step >= config.steps or self.without_gain >= config.patience


class _Rows(NamedTuple):
    """Rows on the device: `values` scaled (rows, features), `valid` (rows,), then labels as in `RowTargets`."""

    values: Tensor
    valid: Tensor
    regime: Tensor
    heatmap: Tensor
    returns: Tensor
    turns: Tensor


class _Side:
    """The training or the validation rows: gives windows of them."""

    def __init__(self, samples: Samples, scaling: Scaling, device: torch.device) -> None:
        labels = samples.targets
        arrays = (scaling.of(samples.values, samples.valid), samples.valid, labels.regime, labels.heatmap)
        self.samples, self.device = samples, device
        self.rows = _Rows(*(torch.from_numpy(a).to(device) for a in (*arrays, labels.returns, labels.turns)))

    def windows(self, ends: IntArray, hidden: BoolArray) -> tuple[Tensor, Tensor, Targets]:
        """Values (b, t, features), which rows the network may see (b, t), and what it is asked."""
        at, exists = (torch.from_numpy(a).to(self.device) for a in window_rows(self.samples, ends))
        masked = torch.from_numpy(hidden).to(self.device)
        rows = _Rows(*(column[at] for column in self.rows))
        valid = rows.valid & exists
        seen = valid & ~masked
        padding = ~has_begun(seen)  # to the network, which says nothing there
        nothing = padding[..., None]
        targets = Targets(
            candles=rows.values,
            masked=masked & valid & ~padding,
            regime=rows.regime.masked_fill(padding, -1),
            heatmap=rows.heatmap.masked_fill(nothing, math.nan),
            returns=rows.returns.masked_fill(nothing, math.nan),
            turns=rows.turns.masked_fill(padding, -1),
        )
        return rows.values, seen, targets


class _Learner:
    """The networks, their optimiser, and the rows."""

    def __init__(self, samples: Samples, config: EncoderConfig) -> None:
        self.config, self.device, self.samples = config, torch.device(config.device), samples
        device, is_fast = self.device, config.device == "cuda"
        training, validation = split(samples, config.validation_share, config.embargo)
        for what, part in (("to train on", training), ("to validate on", validation)):
            if not part.valid.any():
                raise NoUsableRows(what, ())
        self.training_ends = training.window_ends(config.window_step)
        if not len(self.training_ends):
            raise NoUsableRows("ends a window to train on, of which at least half", ())
        self.scaling = Scaling.fitted(training.values, training.valid)
        self.training = _Side(training, self.scaling, device)
        self.validation = _Side(validation, self.scaling, device)
        tiles = validation.tiles
        chosen = np.linspace(0, len(tiles) - 1, min(len(tiles), VALIDATION_WINDOWS)).astype(np.int64)
        self.validation_ends = tiles[chosen]
        features = len(samples.features)
        self.encoder, self.heads = build(config, features).to(device), Heads(config, features).to(device)
        self.parts: dict[str, nn.Module] = {"encoder": self.encoder, "heads": self.heads}
        self.forward = torch.compile(self.encoder) if config.compile and is_fast else self.encoder
        self.half = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16" and is_fast)
        self.parameters = [p for part in self.parts.values() for p in part.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=is_fast
        )
        self.sums: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}

    def _draws(self, step: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, step, stream])

    def learn(self, step: int) -> None:
        config, draws = self.config, self._draws(step, TRAINING)
        ends = draws.choice(self.training_ends, config.batch)
        torch.manual_seed(int(draws.integers(2**62)))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        for part in self.parts.values():
            part.train()
        found = self._losses(self.training, ends, draws)
        self.optimizer.zero_grad(set_to_none=True)
        found["total"].backward()
        nn.utils.clip_grad_norm_(self.parameters, config.max_gradient)
        self.optimizer.step()
        for head, loss in found.items():
            self.sums[head] = self.sums.get(head, torch.zeros_like(loss, dtype=torch.float64)) + loss.detach()

    def _losses(self, side: _Side, ends: IntArray, draws: np.random.Generator) -> dict[str, Tensor]:
        config = self.config
        hidden = masked_spans(draws, len(ends), config.length, config.mask_share, config.mask_span)
        values, seen, targets = side.windows(ends, hidden)
        with self.half:
            predictions = self.heads(self.forward(values, seen))
        return losses(predictions, targets, config)

    @torch.no_grad()
    def validated(self) -> dict[str, float]:
        """Losses by head over the validation windows, always with the same rows hidden."""
        for part in self.parts.values():
            part.eval()
        draws, ends, batch = self._draws(0, VALIDATION), self.validation_ends, self.config.batch
        sums: dict[str, float] = {}
        for begin in range(0, len(ends), batch):
            chosen = ends[begin : begin + batch]
            for head, loss in self._losses(self.validation, chosen, draws).items():
                sums[head] = sums.get(head, 0.0) + float(loss) * len(chosen) / len(ends)
        return sums

    def remember(self) -> None:
        """Take the weights of now for the best."""
        self.best = {name: tensor.detach().clone() for name, tensor in self._weights().items()}

    def _weights(self) -> dict[str, Tensor]:
        return {f"{p}.{n}": t for p, module in self.parts.items() for n, t in module.state_dict().items()}

    def keep(self, folder: Path, state: _State) -> None:
        tensors = self._weights() | checkpoints_of.under("best", self.best)
        tensors |= checkpoints_of.under("sums", self.sums)
        tensors |= checkpoints_of.under("optimizer", checkpoints_of.optimizer_tensors(self.optimizer))
        checkpoints_of.write_checkpoint(folder, tensors, {"mark": self._mark, **vars(state)})

    def resumed(self, folder: Path) -> _State | None:
        found = checkpoints_of.read_checkpoint(folder, self._mark)
        if found is None:
            return None
        for name, module in self.parts.items():
            module.load_state_dict(checkpoints_of.part_of(found.tensors, name))
        self.best = {n: t.to(self.device) for n, t in checkpoints_of.part_of(found.tensors, "best").items()}
        self.sums = {n: t.to(self.device) for n, t in checkpoints_of.part_of(found.tensors, "sums").items()}
        checkpoints_of.restore_optimizer(self.optimizer, checkpoints_of.part_of(found.tensors, "optimizer"))
        return _State(found.state)

    @property
    def _mark(self) -> str:
        return f"{self.samples.fingerprint} {self.config.model_dump_json()}"

    def trained(self, state: _State) -> TrainedEncoder:
        for name, module in self.parts.items():
            module.load_state_dict(checkpoints_of.part_of(self.best, name))
        training, validation = self.training.samples, self.validation.samples
        facts = {
            "steps": state.step,
            "best_step": state.best_step,
            "validation_loss": state.least,
            "stopped_early": state.step < self.config.steps,
            "rows": {"training": len(training), "validation": len(validation)},
            "sessions": {
                "training": [training.sessions[0].isoformat(), training.sessions[-1].isoformat()],
                "validation": [validation.sessions[0].isoformat(), validation.sessions[-1].isoformat()],
            },
            "samples": self.samples.fingerprint,
            "device": self.device.type,
            "torch": torch.__version__,
            "curves": state.curves,
        }
        return TrainedEncoder(
            config=self.config,
            features=self.samples.features,
            scaling=self.scaling,
            encoder=self.encoder.cpu(),
            heads=self.heads.cpu(),
            trained_through=self.samples.sessions[-1],
            facts=facts,
        )


def _judge(learner: _Learner, state: _State) -> None:
    """Enter the losses into the curves, and keep the weights where the validation's is the least so far.
    Raises TrainingDiverged."""
    since = state.step - max((row[0] for row in state.curves), default=0)
    validation = learner.validated()
    training = {head: float(learner.sums[head]) / since for head in validation}
    learner.sums = {}
    for side, by_head in (("training", training), ("validation", validation)):
        for head, loss in by_head.items():
            if not math.isfinite(loss):
                raise TrainingDiverged(state.step, head)
            state.curves.append([state.step, head, side, loss])
    state.latest = validation["total"]
    state.without_gain += 1
    if state.latest < state.least:
        state.least, state.best_step, state.without_gain = state.latest, state.step, 0
        learner.remember()
