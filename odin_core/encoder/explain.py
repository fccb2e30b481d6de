"""Why an encoder says what it says: which bars and features of a window moved one number that follows from it.

`Scalar` is that number as a function of windows: `answer` takes it from a head, `along` from the embedding, and
`rl.explain` a policy's. What is explained is a sum: attributions add up to what the window changes against a baseline.
Attention rollout tells of a transformer alone where it looked; that says less, since looking is not using."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from odin_core.errors import OdinError, nearest
from odin_core.features.series import FloatArray, IntArray
from odin_core.features.windows import BoolArray, Float32Array, SequenceWindows
from odin_core.market.calendar import SessionCalendar
from odin_core.threads import one_thread

if TYPE_CHECKING:
    from odin_core.encoder.model import TrainedEncoder
    from odin_core.market.data import MarketData

Scalar: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Windows (b, t, f) float32, scaled, and which rows are usable (b, t) → one number each, (b,); differentiable."""

FIRST_STEPS, MOST_STEPS = 32, 512
TOLERANCE: Final = 0.01
SMALL: Final = 0.01  # a change that is a smaller part of all attribution counts as this part
AT_ONCE: Final = 32  # points of a path that pass the network at once
CLASSES: Final = ("regime", "turns", "heatmap")  # heads whose answers are log odds over classes


class NoSuchAnswer(OdinError):
    def __init__(self, head: str, place: tuple[int, ...], shape: tuple[int, ...]) -> None:
        super().__init__(
            f"the head {head!r} has no answer at {place}; its answers of a bar have the shape {shape}, counted from 0"
        )


class UnknownHead(OdinError):
    def __init__(self, head: str, known: Sequence[str]) -> None:
        super().__init__(f"the encoder has no head {head!r}; {nearest(head, known)}")


class NoSuchRow(OdinError):
    def __init__(self, symbol: str, known_at: datetime) -> None:
        super().__init__(
            f"there is no row of {symbol} known at {known_at}; a decision is explained from the rows that its "
            f"embedding was made of, its own bar included"
        )


class WithoutAttention(OdinError):
    def __init__(self, version: str, architecture: str) -> None:
        super().__init__(
            f"{version} is a {architecture} and pays no attention; use `window_attributions`, which works for all, or "
            f"train with architecture=transformer"
        )


@dataclass(frozen=True, eq=False)
class WindowAttributions:
    """What each bar and feature of b windows contributed to a scalar, in the scalar's own unit."""

    values: FloatArray
    """(b, t, f) float64; 0 in rows that are not valid"""
    output: FloatArray
    """(b,) the scalar of the windows"""
    baseline: FloatArray
    """(b,) the scalar of the baselines"""
    steps: IntArray
    """(b,) points of the path that were looked at"""

    @property
    def saliency(self) -> FloatArray:
        """(b, t): Σ over features of |attribution|, how much each bar mattered, whichever way."""
        return np.abs(self.values).sum(axis=2)

    @property
    def error(self) -> FloatArray:
        """(b,): Σ attributions − (output − baseline); 0 but for the finite number of steps."""
        return self.values.sum(axis=(1, 2)) - (self.output - self.baseline)


def window_attributions(
    scalar: Scalar,
    values: Float32Array,
    valid: BoolArray,
    *,
    baseline: Float32Array | None = None,
    tolerance: float = TOLERANCE,
    most_steps: int = MOST_STEPS,
) -> WindowAttributions:
    """Integrated gradients of `scalar` of each window: (x − x′) · ∫₀¹ ∂f/∂x at x′ + α(x − x′) dα, by Gauss–Legendre.

    values (b, t, f), scaled as the encoder takes them, anything where not valid (b, t). baseline x′ (t, f) or
    (b, t, f): what "nothing particular" is; None is 0 everywhere, each feature at its mean over the training rows.
    Steps are doubled from 32 until a window's |error| is at most `tolerance` of what it changes (or of a hundredth of
    its Σ|attribution|, where that is more), or `most_steps` are reached; so look at `error`. Runs on one thread: the
    same window gives the same bits. Raises ValueError for shapes that do not fit.
    Source: Sundararajan, Taly, Yan 2017, equation 1; captum."""
    if values.ndim != 3 or valid.shape != values.shape[:2]:
        raise ValueError(f"windows {values.shape} and valid rows {valid.shape} must be (b, t, f) and (b, t)")
    start = np.zeros_like(values) if baseline is None else np.broadcast_to(baseline, values.shape)
    whole, begin = (torch.tensor(np.where(valid[..., None], x, np.float32(0.0))) for x in (values, start))
    seen = torch.tensor(valid)
    found = attributed(scalar, whole, begin, (seen,), tolerance=tolerance, most_steps=most_steps)
    return WindowAttributions(*found)


class Attributed(NamedTuple):
    """Of n inputs: attributions (n, …) float64, the scalar of inputs and baselines (n,), steps taken (n,)."""

    values: FloatArray
    output: FloatArray
    baseline: FloatArray
    steps: IntArray


def attributed(
    scalar: Callable[..., Tensor],
    inputs: Tensor,
    baselines: Tensor,
    others: tuple[Tensor, ...] = (),
    *,
    tolerance: float = TOLERANCE,
    most_steps: int = MOST_STEPS,
) -> Attributed:
    """Integrated gradients of `scalar(inputs, *others)` → (n,) with respect to `inputs` (n, …) float32, steps and
    threads as `window_attributions` says; `others` have n rows each. Inputs are gone through one by one, so that what
    is said of one does not depend, to the last bit, on which others are asked about."""
    if most_steps < FIRST_STEPS:
        raise ValueError(f"most_steps={most_steps}: at least {FIRST_STEPS}")
    values, ends = np.zeros(tuple(inputs.shape)), np.zeros((2, len(inputs)))
    steps = np.zeros(len(inputs), np.int64)
    with one_thread():
        for n in range(len(inputs)):
            row, start, rest = inputs[n : n + 1], baselines[n : n + 1], tuple(other[n : n + 1] for other in others)
            with torch.no_grad():
                ends[:, n] = [float(scalar(x, *rest)[0]) for x in (row, start)]
            change = ends[0, n] - ends[1, n]
            values[n], steps[n] = _until_it_adds_up(scalar, row, start, rest, change, tolerance, most_steps)
    return Attributed(values, ends[0], ends[1], steps)


def _until_it_adds_up(
    scalar: Callable[..., Tensor],
    row: Tensor,
    start: Tensor,
    rest: tuple[Tensor, ...],
    change: float,
    tolerance: float,
    most_steps: int,
) -> tuple[FloatArray, int]:
    from captum.attr import IntegratedGradients

    method, steps = IntegratedGradients(scalar), FIRST_STEPS
    while True:
        found = method.attribute(
            row, start, additional_forward_args=rest or None, n_steps=steps, internal_batch_size=AT_ONCE
        )
        values = found[0].detach().double().numpy()
        counted = max(abs(change), SMALL * float(np.abs(values).sum()))
        if steps >= most_steps or abs(float(values.sum()) - change) <= tolerance * counted:
            return values, steps
        steps = min(2 * steps, most_steps)


def session_windows(
    data: "MarketData", model: "TrainedEncoder", session: date, decisions: pl.DataFrame
) -> tuple[Float32Array, BoolArray]:
    """`windows_before` of decisions (symbol, known_at) in one session of a market, from the rows that
    `embedding.session_embeddings` makes embeddings of. Raises NotASession, NoSuchRow and what `MarketData.features`
    raises."""
    from odin_core.encoder.embedding import session_rows

    close = data.calendar.hours(data.calendar.require(session)).close
    return windows_before(model, session_rows(data, model, session, close), data.calendar, decisions)


def windows_before(
    model: "TrainedEncoder", frame: pl.DataFrame, calendar: SessionCalendar, decisions: pl.DataFrame
) -> tuple[Float32Array, BoolArray]:
    """What the embeddings of decisions were made of: values (n, t, f), not scaled, and which rows were usable (n, t).

    frame: as `embedding.embeddings` takes it, the same that the embeddings were made of; decisions: symbol and known_at
    of n of its rows. A window ends with its decision's row and begins `length` − 1 rows before the first row of its
    session, since the embedding does; shorter ones are padded on the left with rows that are not valid. Nothing after a
    decision's row is in its window. Raises NoSuchRow."""
    rows = frame.sort("symbol", "known_at")
    found = SequenceWindows.of(rows, model.features, calendar, model.config.interval, length=model.config.length)
    row = pl.col("row").cast(pl.Int64)
    places = rows.with_row_index("row").select(
        *("symbol", "known_at"), row, first=row.min().over("symbol"), begin=row.min().over("symbol", "session")
    )
    asked = decisions.select("symbol", "known_at").join(
        places, on=["symbol", "known_at"], how="left", maintain_order="left"
    )
    if asked["row"].has_nulls():
        raise NoSuchRow(*asked.filter(pl.col("row").is_null()).row(0)[:2])
    last, first, begin = (asked[name].to_numpy() for name in ("row", "first", "begin"))
    before = model.config.length - 1
    at = last[:, None] + np.arange(-before - int((last - begin).max(initial=0)), 1)
    is_there = at >= np.maximum(first, begin - before)[:, None]
    at = np.where(is_there, at, 0)
    valid = found.rows.valid[at] & is_there
    return np.where(valid[..., None], found.rows.values[at], np.float32(0.0)), valid


def answer(model: "TrainedEncoder", head: str, *place: int) -> Scalar:
    """What a head says at a window's last bar: `candles` (feature), `regime` or `turns` (class), `heatmap` (bin),
    `quantiles` (horizon, level), numbered as in the configuration. Of classes and bins it is the log probability, of
    candles and quantiles the number itself, in standard deviations and units of volatility.
    Raises UnknownHead, NoSuchAnswer."""
    from odin_core.encoder.heads import Predictions

    if head not in Predictions._fields:
        raise UnknownHead(head, Predictions._fields)
    with torch.no_grad():
        shape = tuple(getattr(model.heads(torch.zeros(1, 1, model.config.embedding)), head).shape[2:])
    if len(place) != len(shape) or not all(0 <= at < size for at, size in zip(place, shape, strict=True)):
        raise NoSuchAnswer(head, place, shape)

    def scalar(values: Tensor, valid: Tensor) -> Tensor:
        said = getattr(model.heads(model.encoder(values, valid, last=1)), head)[:, 0]
        said = torch.log_softmax(said, dim=-1) if head in CLASSES else said
        return said[(slice(None), *place)]

    return scalar


def along(model: "TrainedEncoder", direction: ArrayLike) -> Scalar:
    """How far the last bar's embedding lies along a direction (embedding,), whose length does not matter."""
    way = torch.tensor(np.asarray(direction, np.float32))
    if way.shape != (model.config.embedding,) or not float(way.norm()) > 0:
        raise ValueError(f"a direction has {model.config.embedding} numbers, not all 0; this one {tuple(way.shape)}")
    way = way / way.norm()
    return lambda values, valid: model.encoder(values, valid, last=1)[:, 0] @ way


def rollout(model: "TrainedEncoder", values: Float32Array, valid: BoolArray) -> FloatArray:
    """`attention_rollout` of a transformer on windows as `window_attributions` takes them: [:, -1] is where the last
    bar's embedding looked. Raises WithoutAttention."""
    from odin_core.encoder.networks import CausalTransformer

    if not isinstance(model.encoder, CausalTransformer):
        raise WithoutAttention(model.version, model.config.architecture)
    with one_thread(), torch.no_grad():
        layers = model.encoder.attention(torch.tensor(values), torch.tensor(valid))
    return attention_rollout([layer.numpy() for layer in layers])


def attention_rollout(attention: Sequence[NDArray[np.floating]]) -> FloatArray:
    """How much of each row's output comes by attention from each row: (b, t, t) float64, rows sum to 1.

    attention: of each layer, first layer first, (b, heads, t, t), from row (third) to row (fourth dimension), adding up
    to 1 over the fourth, or all 0 where a row attends to nothing. The product of (A + I) / 2 over layers, A the mean
    over heads: I is what passes beside the attention, and all that there is of a row that attends to nothing.
    Source: Abnar & Zuidema 2020, section 3."""
    if not attention:
        raise ValueError("attention rollout needs the attention of at least one layer")
    for layer in attention:
        if layer.ndim != 4 or layer.shape[2] != layer.shape[3]:
            raise ValueError(f"attention of a layer has the shape (b, heads, t, t), not {layer.shape}")
    total = np.eye(attention[0].shape[2])
    for layer in attention:
        mixed = layer.astype(np.float64).mean(axis=1) + np.eye(layer.shape[2])
        total = mixed / mixed.sum(axis=2, keepdims=True) @ total
    return total
