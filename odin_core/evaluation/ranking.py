"""How well forecasts put outcomes in order or in classes: rank correlation, precision at the top, F1.

What comes in: forecasts and outcomes of one shape; a pair with a NaN on either side is dropped. Correlation by session
and horizon lives in `information`, probabilities in `calibration`."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from odin_core.evaluation.return_series import NAN, FloatArray, ratio


def information_coefficient(scores: npt.ArrayLike, outcomes: npt.ArrayLike) -> float:
    """Spearman's rank correlation of forecasts with outcomes, −1 to 1; both shape (n,), ties get their average rank.
    NaN for fewer than two pairs or where a side is constant. Oracle: scipy.stats.spearmanr."""
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"scores {x.shape} and outcomes {y.shape} must be of one length and one dimension")
    both = ~(np.isnan(x) | np.isnan(y))
    if np.count_nonzero(both) < 2:
        return NAN
    a, b = _centred_ranks(x[both]), _centred_ranks(y[both])
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(np.clip(a @ b / scale, -1.0, 1.0)) if scale > 0 else NAN


def precision_at_k(scores: npt.ArrayLike, outcomes: npt.ArrayLike, k: int) -> Any:
    """Share of the k highest-scored whose outcome is above 0, 0 to 1; shapes (n,) → float or (…, n) → (…).
    Where scores tie across the k-th place the tied share the places left, which is the mean over all orders of them.
    NaN for fewer than k pairs. Source: Manning, Raghavan & Schütze 2008, chapter 8.4; ties: McSherry & Najork 2008."""
    if k < 1:
        raise ValueError(f"k={k}: at least the highest-scored is looked at")
    x, y = _pairs(scores, outcomes)
    if x.shape[-1] < k:
        return _answer(np.full(x.shape[:-1], NAN))
    known = np.where(np.isnan(y), -np.inf, x)
    threshold = -np.partition(-np.where(np.isnan(known), -np.inf, known), k - 1, axis=-1)[..., k - 1 : k]
    above, tied = known > threshold, (known == threshold) & ~np.isnan(y)
    places = k - above.sum(axis=-1)
    hits = (above & (y > 0)).sum(axis=-1) + places * ratio((tied & (y > 0)).sum(axis=-1), tied.sum(axis=-1))
    enough = (~(np.isnan(x) | np.isnan(y))).sum(axis=-1) >= k
    return _answer(np.where(enough, hits / k, NAN))


def f1_score(predicted: npt.ArrayLike, realised: npt.ArrayLike) -> Any:
    """Harmonic mean of precision and recall, 2·TP / (2·TP + FP + FN), 0 to 1; shapes (n,) → float or (…, n) → (…).
    A value above 0 (or true) is of the class, so signed scores and returns may be given as they are. NaN where nothing
    was predicted and nothing happened. Source: van Rijsbergen 1979. Oracle: scikit-learn."""
    x, y = _pairs(predicted, realised)
    known = ~(np.isnan(x) | np.isnan(y))
    both = ((x > 0) & (y > 0) & known).sum(axis=-1)
    either = ((x > 0) & known).sum(axis=-1) + ((y > 0) & known).sum(axis=-1)
    return _answer(ratio(2 * both, either))


def _pairs(forecasts: npt.ArrayLike, outcomes: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = np.asarray(forecasts, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if x.shape != y.shape or x.ndim == 0:
        raise ValueError(f"forecasts {x.shape} and outcomes {y.shape} must be arrays of one shape")
    return x, y


def _answer(values: FloatArray) -> Any:
    return values if values.ndim else float(values)


def _centred_ranks(values: FloatArray) -> FloatArray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    average = np.cumsum(counts) - (counts - 1) / 2
    return average[place] - (values.size + 1) / 2
