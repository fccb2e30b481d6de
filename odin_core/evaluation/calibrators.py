"""Calibrators: from a score to the probability that it comes true. Platt's line, isotonic steps, fits on purged folds.

What comes in: scores (n,), any unit, higher is likelier, and outcomes (n,), bool or 0/1; rows with a NaN are dropped. A
calibrator remembers the rows that it was fitted on and cannot be judged on one of them. How good probabilities are is
measured in `calibration`; folds come from `splits`. Stored as plain JSON, the same bytes for the same fit."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from odin_core.errors import OdinError, nearest

FloatArray = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Row: TypeAlias = int | str  # what names a row: its position, or the id of a decision


class SeenRows(OdinError):
    def __init__(self, kind: str, seen: Sequence[Row], asked: int) -> None:
        super().__init__(
            f"{len(seen)} of {asked} rows, for example {seen[0]!r}, were used to fit this {kind} calibrator; it looks "
            f"better on them than it is. Judge it on later rows, or on those of another fold (cross_fitted)"
        )


class CalibratorUnreadable(OdinError):
    def __init__(self, why: object) -> None:
        super().__init__(
            f"this is no stored calibrator ({why}); restore the text that `to_json` gave, or fit the calibrator again"
        )


class TooFewRows(OdinError):
    def __init__(self, rows: int, needed: int) -> None:
        super().__init__(
            f"a calibrator cannot be fitted on {rows} row(s) with a known score and outcome; it needs {needed} or more"
        )


@dataclass(frozen=True, kw_only=True)
class Calibrator(ABC):
    """A map from scores to probabilities, with the rows it was fitted on (sorted, none twice; empty: not told)."""

    kind: ClassVar[str]
    seen: tuple[Row, ...] = ()

    @abstractmethod
    def probability(self, scores: npt.ArrayLike) -> FloatArray:
        """Probabilities strictly between 0 and 1, shape and NaN as `scores`."""

    def out_of_sample(self, scores: npt.ArrayLike, rows: Iterable[Row]) -> FloatArray:
        """Probabilities to judge the calibrator by: of `rows` (n,), named as in the fit, with `scores` (n,).
        Raises SeenRows where one of them took part in the fit."""
        x, names = np.asarray(scores, dtype=np.float64), list(rows)
        if x.shape != (len(names),):
            raise ValueError(f"scores of shape {x.shape} for {len(names)} rows: one score per row")
        mine = set(self.seen)
        if both := [name for name in names if name in mine]:
            raise SeenRows(self.kind, both, len(names))
        return self.probability(x)

    def to_json(self) -> str:
        """Plain JSON, the same text for the same calibrator; `from_json` reads it."""
        return json.dumps({"kind": self.kind, **{f.name: getattr(self, f.name) for f in fields(self)}}, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Platt(Calibrator):
    """1 / (1 + exp(−(intercept + slope · score)))."""

    kind: ClassVar[str] = "platt"
    intercept: float
    slope: float

    def probability(self, scores: npt.ArrayLike) -> FloatArray:
        return logistic(self.intercept + self.slope * np.asarray(scores, dtype=np.float64))


@dataclass(frozen=True, kw_only=True)
class Isotonic(Calibrator):
    """Straight lines between the points (at, level), both ascending; level outside them."""

    kind: ClassVar[str] = "isotonic"
    at: tuple[float, ...]
    level: tuple[float, ...]

    def probability(self, scores: npt.ArrayLike) -> FloatArray:
        x = np.asarray(scores, dtype=np.float64)
        return np.where(np.isnan(x), np.nan, np.interp(x, self.at, self.level))


def from_json(text: str) -> Platt | Isotonic:
    """The calibrator that `to_json` wrote. Raises CalibratorUnreadable."""
    try:
        data = json.loads(text)
        kind, seen = data["kind"], tuple(data.get("seen", ()))
        if kind == Platt.kind:
            return Platt(intercept=float(data["intercept"]), slope=float(data["slope"]), seen=seen)
        if kind == Isotonic.kind:
            return Isotonic(at=tuple(map(float, data["at"])), level=tuple(map(float, data["level"])), seen=seen)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibratorUnreadable(f"{type(error).__name__}: {error}") from error
    raise CalibratorUnreadable(f"kind {kind!r}; {nearest(str(kind), (Platt.kind, Isotonic.kind))}")


def fit_platt(scores: npt.ArrayLike, outcome: npt.ArrayLike, rows: Iterable[Row] | None = None) -> Platt:
    """The logistic line of greatest likelihood, with Platt's targets (N₊ + 1)/(N₊ + 2) and 1/(N₋ + 2) in place of 1 and
    0, so that separable or one-sided outcomes give finite numbers. `rows` names the rows (default: positions).
    Raises TooFewRows below 2. Source: Platt 1999; Lin, Lin & Weng 2007, algorithm 1. Oracle: scikit-learn's
    `_SigmoidCalibration`."""
    x, y, seen = _known(scores, outcome, rows, needed=2)
    won = float(y.sum())
    target = np.where(y == 1, (won + 1) / (won + 2), 1 / (y.size - won + 2))
    intercept, slope = logistic_line(x, target)
    return Platt(intercept=intercept, slope=slope, seen=seen)


def fit_isotonic(scores: npt.ArrayLike, outcome: npt.ArrayLike, rows: Iterable[Row] | None = None) -> Isotonic:
    """The ascending map of least squares (pool adjacent violators), kept 1/(n + 2) away from 0 and 1: n rows without an
    error do not make one impossible. It follows any shape and needs many rows; below some 1,000, Platt's line is
    better (Niculescu-Mizil & Caruana 2005). `rows` as for `fit_platt`. Raises TooFewRows below 2.
    Source: Zadrozny & Elkan 2002. Uses sklearn.isotonic.IsotonicRegression."""
    from sklearn.isotonic import IsotonicRegression

    x, y, seen = _known(scores, outcome, rows, needed=2)
    margin = 1 / (y.size + 2)
    fitted = IsotonicRegression(y_min=margin, y_max=1 - margin, out_of_bounds="clip").fit(x, y)
    at, level = (tuple(map(float, points)) for points in (fitted.X_thresholds_, fitted.y_thresholds_))
    return Isotonic(at=at, level=level, seen=seen)


def logistic_line(x: FloatArray, target: FloatArray, steps: int = 100) -> tuple[float, float]:
    """Intercept and slope of the logistic regression of `target` (n,), 0 to 1, on finite `x` (n,): Newton's method on
    standardised `x`, a step halved until the loss falls. Slope 0 where `x` is constant."""
    centre, scale = float(x.mean()), float(x.std())
    z = (x - centre) / scale if scale > 1e-12 * max(abs(centre), 1e-300) else np.zeros_like(x)
    design = np.column_stack([np.ones_like(z), z])
    beta, loss = np.zeros(2), math.inf
    step = np.zeros(2)
    for _ in range(steps):
        trial = beta + step
        value = float(np.logaddexp(0.0, design @ trial).sum() - target @ (design @ trial))
        if not value <= loss:  # too far: go half as far
            step = step / 2
            continue
        improved, beta, loss = loss - value, trial, value
        p = logistic(design @ beta)
        gradient = design.T @ (target - p)
        if improved < 1e-12 * max(abs(value), 1.0) and np.abs(gradient).max() < 1e-9 * len(x):
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-10 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
    if not z.any():
        return float(beta[0]), 0.0
    return float(beta[0] - beta[1] * centre / scale), float(beta[1] / scale)


class Fit(Protocol):
    def __call__(
        self, scores: npt.ArrayLike, outcome: npt.ArrayLike, rows: Iterable[Row] | None = None
    ) -> Platt | Isotonic: ...


class CrossFitted(NamedTuple):
    """One row per tested row, in the order of the folds; every number is of models that did not see that row."""

    rows: Indices  # position in the data
    fold: Indices
    score: FloatArray
    probability: FloatArray
    calibrators: tuple[Platt | Isotonic, ...]  # by fold; what they have seen is the fold's training rows
    calibrator: Platt | Isotonic  # fitted on all `score` of here, for use on other data: it has seen every row


def cross_fitted(
    predict_scores: Callable[[Indices, Indices], FloatArray],
    y: npt.ArrayLike,
    splitter: Any,
    *,
    fit: Fit = fit_platt,
    groups: npt.ArrayLike | None = None,
    label_spans: npt.ArrayLike | None = None,
    inner_splitter: Any = None,
) -> CrossFitted:
    """Out-of-sample scores and probabilities on purged folds, and the calibrator that goes on from there.

    `predict_scores(train, test)` fits on the rows `train` and scores the rows `test`; `y` (n,) is bool or 0/1 (NaN:
    unknown). `splitter` is one of `splits`, with sessions in `groups` and label spans as there. The calibrator of a
    fold is fitted on scores that the *inner* folds of its training rows gave out of sample, so neither the scores nor
    the calibration of a tested row come from anything whose label meets its own; `inner_splitter` defaults to
    `splitter`. Costs as many fits as outer × (inner + 1) folds. Raises what the splitters and `fit` raise."""
    outcome = np.asarray(y, dtype=np.float64)
    inner = splitter if inner_splitter is None else inner_splitter
    everything = np.arange(outcome.size)
    parts, calibrators = [], []
    for fold, (train, test) in enumerate(_folds(splitter, everything, groups, label_spans)):
        pairs = [(a, predict_scores(t, a)) for t, a in _folds(inner, train, groups, label_spans)]
        inside, scores = (np.concatenate(column) for column in zip(*pairs, strict=True))
        calibrators.append(_remembering(fit(scores, outcome[inside]), train))
        score = np.asarray(predict_scores(train, test), dtype=np.float64)
        parts.append((test, np.full(test.size, fold), score, calibrators[-1].probability(score)))
    rows, folds, score, probability = (np.concatenate(column) for column in zip(*parts, strict=True))
    final = _remembering(fit(score, outcome[rows]), everything)
    return CrossFitted(rows, folds, score, probability, tuple(calibrators), final)


def _remembering(calibrator: Platt | Isotonic, rows: Indices) -> Platt | Isotonic:
    """The calibrator with all rows behind it: those it was fitted on, and those that the scores were learned from."""
    return replace(calibrator, seen=tuple(rows.tolist()))


def _folds(
    splitter: Any, rows: Indices, groups: npt.ArrayLike | None, label_spans: npt.ArrayLike | None
) -> list[tuple[Indices, Indices]]:
    """(training, test) positions in the whole data of each fold of `rows`."""
    told: dict[str, Any] = {} if label_spans is None else {"label_spans": np.asarray(label_spans)[rows]}
    label = None if groups is None else np.asarray(groups)[rows]
    return [(rows[a], rows[b]) for a, b in splitter.split(rows[:, None], None, label, **told)]


def _known(
    scores: npt.ArrayLike, outcome: npt.ArrayLike, rows: Iterable[Row] | None, needed: int
) -> tuple[FloatArray, FloatArray, tuple[Row, ...]]:
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    names: list[Row] = list(range(x.size)) if rows is None else list(rows)
    if x.ndim != 1 or x.shape != y.shape or len(names) != x.size:
        raise ValueError(f"scores {x.shape}, outcome {y.shape} and {len(names)} rows must be of one length")
    known = np.isfinite(x) & ~np.isnan(y)
    if np.count_nonzero(known) < needed:
        raise TooFewRows(int(np.count_nonzero(known)), needed)
    if not np.isin(y[known], (0.0, 1.0)).all():
        raise ValueError("an outcome is 0 or 1")
    kept = {name for name, ok in zip(names, known.tolist(), strict=True) if ok}
    return x[known], y[known], tuple(sorted(kept, key=lambda name: (isinstance(name, str), name)))


def logistic(x: FloatArray) -> FloatArray:
    """1 / (1 + e⁻ˣ), kept a hair inside (0, 1)."""
    with np.errstate(over="ignore"):
        return np.clip(1 / (1 + np.exp(-x)), 1e-15, 1 - 1e-15)
