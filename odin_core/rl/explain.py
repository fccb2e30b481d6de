"""Why a policy chose what it chose: what each number it saw did to the probability of its choice, and, through the
encoder, each bar and feature of the window that it looked at.

An explanation is stored beside its decision (EXPLANATIONS), read back as it was, and drawn by `trade_picture`. The
method is `encoder.explain`'s: attributions add up, and by how much they do not is part of the explanation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from odin_core.encoder.explain import TOLERANCE, Attributed, attributed
from odin_core.errors import OdinError
from odin_core.features.series import FloatArray
from odin_core.features.windows import BoolArray, Float32Array
from odin_core.market.bars import UTC
from odin_core.rl.choices import FLAT
from odin_core.rl.observation import PORTFOLIO, POSITION

if TYPE_CHECKING:
    from odin_core.encoder.model import TrainedEncoder
    from odin_core.rl.choices import Choices
    from odin_core.rl.policy import ActorCritic, TradingPolicy

METHOD: Final = "integrated_gradients"
TOP: Final = 10
SAME_STATE: Final = 1e-3  # how far an embedding may lie from the state that was decided on
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "volatility": ("volatility", "risk_unit"),
    "clock": ("session_elapsed",),
    "position": POSITION,
    "portfolio": PORTFOLIO,
}
STATE: Final = "state"
DECISIONS: Final = ("decision_id", "symbol", "session", "known_at")

FEATURE = pl.Struct({"feature": pl.String(), "value": pl.Float64(), "attribution": pl.Float64()})
WINDOW_FEATURE = pl.Struct({"feature": pl.String(), "attribution": pl.Float64(), "size": pl.Float64()})
EXPLANATIONS = pl.Schema(
    {
        "decision_id": pl.String(),
        "symbol": pl.String(),
        "session": pl.Date(),
        "known_at": UTC,  # end of the bar that was decided at
        "version": pl.String(),  # of the policy
        "encoder": pl.String(),  # its version; null where no window was looked through
        "method": pl.String(),
        "choice": pl.List(pl.Int64()),  # indices of position, size, stop, target, see `choices`
        "log_probability": pl.Float64(),  # of the choice, nats
        "baseline": pl.Float64(),  # log probability of the same choice given the baseline observation
        "sections": pl.List(FEATURE),  # Σ attributions of each part of the observation; value null
        "features": pl.List(FEATURE),  # the columns that did most, largest first
        "delta": pl.Float64(),  # Σ attributions − (log_probability − baseline), 0 but for finitely many steps
        "saliency": pl.List(pl.Float32()),  # of each bar, oldest first, the decision's last: Σ |attribution|
        "window_features": pl.List(WINDOW_FEATURE),  # over all bars: Σ attribution and Σ |attribution|, largest first
        "window_baseline": pl.Float64(),  # as baseline, of a window of average bars
        "window_delta": pl.Float64(),
    }
)


class WindowsOfAnotherState(OdinError):
    def __init__(self, decision: str, version: str, gap: float) -> None:
        super().__init__(
            f"decision {decision}: {version} makes another state of its window than the one decided on (a number "
            f"differs by {gap:.3g}); give the rows that its embedding was made of, and the encoder that made it"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """What the encoder read before each of n decisions: values (n, t, f) float32 as they lie in the lake, not scaled,
    and which rows were usable, (n, t); the last row is the decision's bar."""

    encoder: "TrainedEncoder"
    values: Float32Array
    valid: BoolArray


class Feature(NamedTuple):
    feature: str
    value: float | None
    attribution: float


class WindowFeature(NamedTuple):
    feature: str
    attribution: float
    size: float  # Σ |attribution|


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One row of EXPLANATIONS; `saliency` and what begins with window are empty and None without a window."""

    decision_id: str
    symbol: str
    session: date
    known_at: datetime
    version: str
    encoder: str | None
    choice: tuple[int, ...]
    log_probability: float
    baseline: float
    sections: tuple[Feature, ...]
    features: tuple[Feature, ...]
    delta: float
    saliency: tuple[float, ...] = ()
    window_features: tuple[WindowFeature, ...] = ()
    window_baseline: float | None = None
    window_delta: float | None = None
    method: str = METHOD


def explain(
    policy: "TradingPolicy",
    observations: Float32Array,
    places: Mapping[str, slice],
    decisions: pl.DataFrame,
    *,
    chosen: "Choices | None" = None,
    baseline: Float32Array | None = None,
    windows: Windows | None = None,
    top: int = TOP,
    tolerance: float = TOLERANCE,
) -> list[Explanation]:
    """An explanation of each of n decisions: integrated gradients of the log probability of what was chosen.

    observations (n, D) as `observation.layout` lays them out, `places` being that layout; decisions: decision_id,
    symbol, session, known_at, n rows in the same order. chosen: None is the policy's own deterministic choice. Of a
    choice FLAT only the position counts, since nothing is done with the rest. baseline (D,): the observation that each
    is compared with; None is 0 in every column, an account that holds nothing and a state that says nothing.
    windows: what the state was made of; its attributions are those of the policy through the encoder, against a window
    of average bars, all else as observed. Raises WindowsOfAnotherState where the encoder does not say the state that
    was decided on, ObservationMismatch, ValueError for shapes that do not fit."""
    _require_one_row_each(observations, places, decisions, windows)
    action = policy.actions(observations) if chosen is None else chosen.actions()
    seen, taken = torch.tensor(observations, dtype=torch.float32), torch.tensor(action)
    begin = torch.zeros_like(seen) if baseline is None else torch.tensor(baseline).to(seen).expand_as(seen)

    def scalar(rows: Tensor, actions: Tensor) -> Tensor:
        return log_probability(policy.network, rows, actions)

    found = attributed(scalar, seen, begin, (taken,), tolerance=tolerance)
    through = None if windows is None else _through(policy.network, seen, taken, places, decisions, windows, tolerance)
    names = columns(places)
    keys: list[dict[str, Any]] = decisions.select(DECISIONS).rows(named=True)
    return [
        Explanation(
            **keys[n],
            version=policy.version,
            encoder=None if windows is None else windows.encoder.version,
            choice=tuple(action[n].tolist()),
            log_probability=float(found.output[n]),
            baseline=float(found.baseline[n]),
            sections=tuple(Feature(name, None, float(found.values[n, at].sum())) for name, at in places.items()),
            features=_largest(names, observations[n], found.values[n], top),
            delta=_delta(found, n),
            **({} if windows is None or through is None else _of_window(through, windows, n, top)),
        )
        for n in range(len(keys))
    ]


def log_probability(network: "ActorCritic", observations: Tensor, actions: Tensor) -> Tensor:
    """(n,) nats: of the whole choice `actions` (n, dimensions), given observations (n, D); differentiable. Of a choice
    FLAT that of the position alone."""
    parts = network.log_probabilities(observations)
    of_each = torch.stack([part.gather(1, actions[:, i : i + 1])[:, 0] for i, part in enumerate(parts)], dim=1)
    trades = (actions[:, 0] != FLAT).to(of_each.dtype)
    return of_each[:, 0] + trades * of_each[:, 1:].sum(dim=1)


def columns(places: Mapping[str, slice]) -> list[str]:
    """A name of each column of an observation: what `observation` calls it, else its section and number."""
    names: list[str] = []
    for section, at in places.items():
        width = at.stop - at.start
        known = NAMES.get(section, ())
        names += known if len(known) == width else [f"{section}_{i}" for i in range(width)]
    return names


def table(explanations: Sequence[Explanation]) -> pl.DataFrame:
    """EXPLANATIONS, a row each, in their order."""
    rows = [{name: _plain(getattr(each, name)) for name in EXPLANATIONS} for each in explanations]
    return pl.DataFrame(rows, schema=EXPLANATIONS)


def explanations(frame: pl.DataFrame) -> list[Explanation]:
    """Back from `table`. Raises ValueError for another frame."""
    if frame.schema != EXPLANATIONS:
        raise ValueError("explanations are read from the columns and types of EXPLANATIONS, in order")
    read: dict[str, Callable[[Any], Any]] = {
        "choice": int,
        "sections": lambda each: Feature(**each),
        "features": lambda each: Feature(**each),
        "saliency": float,
        "window_features": lambda each: WindowFeature(**each),
    }
    rows: list[dict[str, Any]] = [
        {name: tuple(map(read[name], value)) if name in read else value for name, value in row.items()}
        for row in frame.iter_rows(named=True)
    ]
    return [Explanation(**row) for row in rows]


def _through(
    network: "ActorCritic",
    seen: Tensor,
    taken: Tensor,
    places: Mapping[str, slice],
    decisions: pl.DataFrame,
    windows: Windows,
    tolerance: float,
) -> Attributed:
    """Attributions (n, t, f) of the same log probability to the encoder's windows."""
    model, at = windows.encoder, places[STATE]
    values = torch.tensor(model.scaling.of(windows.values, windows.valid))
    valid = torch.tensor(windows.valid)
    for n, decision in enumerate(decisions["decision_id"]):
        with torch.no_grad():
            state = model.encoder(values[n : n + 1], valid[n : n + 1], last=1)[0, 0]
        gap = float((state - seen[n, at]).abs().max()) if state.shape == seen[n, at].shape else float("nan")
        if not gap <= SAME_STATE:
            raise WindowsOfAnotherState(decision, model.version, gap)

    def scalar(rows: Tensor, usable: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        state = model.encoder(rows, usable, last=1)[:, 0]
        observed = torch.cat((observations[:, : at.start], state, observations[:, at.stop :]), dim=1)
        return log_probability(network, observed, actions)

    return attributed(scalar, values, torch.zeros_like(values), (valid, seen, taken), tolerance=tolerance)


def _of_window(through: Attributed, windows: Windows, n: int, top: int) -> dict[str, Any]:
    values = through.values[n]
    total, size = values.sum(axis=0), np.abs(values).sum(axis=0)
    order = _order(size)[:top]
    names = windows.encoder.features
    return {
        "saliency": tuple(np.abs(values).sum(axis=1).astype(np.float32).tolist()),
        "window_features": tuple(WindowFeature(names[i], float(total[i]), float(size[i])) for i in order),
        "window_baseline": float(through.baseline[n]),
        "window_delta": _delta(through, n),
    }


def _largest(names: Sequence[str], values: Float32Array, attributions: FloatArray, top: int) -> tuple[Feature, ...]:
    chosen = _order(np.abs(attributions))[:top]
    return tuple(Feature(names[i], float(values[i]), float(attributions[i])) for i in chosen)


def _order(size: FloatArray) -> list[int]:
    """Places from the largest down; of equals the first one first."""
    return np.argsort(-size, kind="stable").tolist()


def _delta(found: Attributed, n: int) -> float:
    return float(found.values[n].sum() - (found.output[n] - found.baseline[n]))


def _plain(value: Any) -> Any:
    """NamedTuples as what polars takes for structs, tuples as lists."""
    if isinstance(value, tuple):
        return [each._asdict() if hasattr(each, "_asdict") else each for each in value]
    return value


def _require_one_row_each(
    observations: Float32Array, places: Mapping[str, slice], decisions: pl.DataFrame, windows: Windows | None
) -> None:
    wide = max((at.stop for at in places.values()), default=0)
    if observations.ndim != 2 or observations.shape[1] != wide:
        raise ValueError(f"observations {observations.shape} do not have the {wide} columns of their layout")
    if decisions.height != len(observations):
        raise ValueError(f"{len(observations)} observations of {decisions.height} decisions")
    if windows is not None and not len(windows.values) == len(windows.valid) == len(observations):
        raise ValueError(f"{len(windows.values)} windows of {len(observations)} decisions")
