"""Checks that ask a learner: does it find something in labels that mean nothing, is it too good on those that do, and
does it find what is certainly there? Over all features together, so that a leak that no single feature shows counts.

A learner is a `Fit`: from a `Sample` to predictions out of sample. `joint_learner` is the life's own, as lives train
it. Labels are made elsewhere; here they are one number a row that is to be ranked."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.evaluation.metrics import FloatArray, information_coefficient
from odin_core.features.catalogue import UnknownFeature, all_features, named
from odin_core.leaks.ranking import ALARM, Z, next_returns
from odin_core.leaks.verdict import Verdict
from odin_core.lifecycle.config import LearnerConfig
from odin_core.policies.actions import ACTIONS, FLAT, SHAPE, known_mean
from odin_core.training.window import SessionContexts, TrainingWindow

IntArray: TypeAlias = NDArray[np.int64]
CHEAT: Final = "cheat"
STRENGTH: Final = 0.5  # correlation of the cheat with the outcomes' ranks
FOUND: Final = 0.25  # coefficient that a learner without other knowledge has to make of it
FEWEST_ROWS: Final = 3  # of a time that is ranked by itself


@dataclass(frozen=True)
class Sample:
    """Decisions with their outcomes, one decision time after the other. The outcomes of a time are known by the next
    one but one. ValueError for arrays that do not fit together."""

    names: tuple[str, ...]
    features: NDArray[np.float32]  # (n, features), NaN where unknown
    outcomes: FloatArray  # (n,), finite: what the learner is to rank, of any scale
    times: IntArray  # (n,), ascending: rows of one number are decided, ranked and purged together

    def __post_init__(self) -> None:
        n = len(self.outcomes)
        if self.features.shape != (n, len(self.names)) or self.times.shape != (n,):
            raise ValueError(
                f"features {self.features.shape}, times {self.times.shape}: {n} outcomes and {len(self.names)} "
                f"names need ({n}, {len(self.names)}) and ({n},)"
            )
        if not np.isfinite(self.outcomes).all() or (np.diff(self.times) < 0).any():
            raise ValueError("outcomes must be finite and times ascending: drop and sort rows first")


Fit: TypeAlias = Callable[[Sample], FloatArray]
"""Predictions (n,) of a sample's outcomes, each made without the rows it is made for; NaN for rows not predicted."""


def sample_of(rows: pl.DataFrame, bars: pl.DataFrame, horizon: int) -> Sample:
    """Rows of features (symbol, known_at and numeric columns) with the `next_returns` over `horizon` rows: those of
    every `horizon`-th time, so that outcomes do not overlap, and without those that have no outcome."""
    named = [name for name, dtype in rows.schema.items() if dtype.is_numeric()]
    labelled = rows.with_columns(next_returns(rows, bars, horizon).alias(CHEAT), time=pl.col("known_at").rank("dense"))
    kept = labelled.filter(pl.col(CHEAT).is_finite(), pl.col("time") % horizon == 0).sort("known_at", "symbol")
    features = kept.select(pl.col(named).cast(pl.Float32)).to_numpy().reshape(kept.height, len(named))
    return Sample(tuple(named), features, kept[CHEAT].to_numpy(), kept["time"].cast(pl.Int64).to_numpy())


def sample_of_window(window: TrainingWindow) -> Sample:
    """A life's contexts; the outcome is half of what long earned more than short, averaged over sizes and exits."""
    sides = known_mean(window.rewards.reshape(-1, *SHAPE), (2, 3, 4))
    return Sample(window.names, window.features, (sides[:, 0] - sides[:, 1]) / 2, window.session_index)


def joint_learner(config: LearnerConfig, seed: int) -> Fit:
    """The joint policy's direction head in its own purged walk-forward, on rewards of ± the outcome for either side.
    A column that the catalogue does not know is taken to change its sign with prices upside down, as outcomes do; one
    that the catalogue knows to have no mirror cannot tell a direction to this learner, so no leak of it is seen here.
    At least as many times as the folds of `config` need, with `purge_sessions` counted in times (1 is enough)."""
    from odin_core.policies.joint import train_joint  # a learner is loaded where it is asked for

    def fit(sample: Sample) -> FloatArray:
        names = tuple(_mirrored_name(name) for name in sample.names)
        unit = sample.outcomes / (sample.outcomes.std() or 1.0)
        rewards = np.repeat(np.column_stack([unit, -unit]), ACTIONS // 2, axis=1).astype(np.float32)
        window = TrainingWindow(
            [
                SessionContexts(
                    date.fromordinal(1 + number),
                    names,
                    sample.features[rows],
                    rewards[rows],
                    np.full(len(rows), FLAT, np.int64),
                    (),
                )
                for number, rows in enumerate(_by_time(sample.times))
            ]
        )
        walk = train_joint(window, config, seed)[1]
        predictions = np.full(len(unit), np.nan)
        predictions[walk.rows] = walk.score
        return predictions

    return fit


def _mirrored_name(name: str) -> str:
    """The name if it is a feature's; else that of a feature whose mirror is zero."""
    try:
        return named(name).name
    except UnknownFeature:
        return next(known for known, feature in all_features().items() if feature.definition.mirror == 0.0)


def shuffled_labels(fit: Fit, sample: Sample, rng: np.random.Generator, *, alarm: float = ALARM) -> Verdict:
    """The learner, once on the outcomes as they are and once on outcomes shuffled among the rows of each time (among
    all rows where times hold fewer than three), out of sample both times.

    On shuffled outcomes it must find nothing: a mean information coefficient by time above Z·σ says that predictions
    have seen the outcomes they are compared with (a split or an encoding leaks). On the true ones it must not be too
    good: a coefficient above max(`alarm`, Z·σ) says that a feature knows what comes; a market whose edge is planted
    raises the alarm. σ is the larger of two standard errors of the mean: between times, and by chance,
    √Σ 1 / (n − 1) / T over T times of n rows, which is exact for shuffled outcomes. Smaller times are left out; with
    none larger all rows are ranked together.
    `numbers`: ic, sigma, shuffled_ic, shuffled_sigma. Fails also where nothing was predicted: nothing was shown.

    Measured on honest features of random walks (8 symbols or fewer, 60 to 1080 times): no alarm in 240 samples, 200
    through least squares and 40 through the joint policy; ic / sigma had standard deviation 1.0 and largest value 2.9.
    Sensitivity: a leak shows once its coefficient exceeds the alarm, given rows enough for Z·σ to lie below it."""
    shuffled = replace(sample, outcomes=_shuffled(sample.outcomes, sample.times, rng))
    true, chance = _ranking(fit(sample), sample), _ranking(fit(shuffled), shuffled)
    numbers = {"ic": true.ic, "sigma": true.sigma, "shuffled_ic": chance.ic, "shuffled_sigma": chance.sigma}
    limit, chance_limit = max(alarm, Z * true.sigma), Z * chance.sigma
    said = (
        f"IC {true.ic:.3f} on true labels, alarm above {limit:.3f}; {chance.ic:.3f} on shuffled ones, chance ends at "
        f"{chance_limit:.3f}"
    )
    passed = true.ic <= limit and chance.ic <= chance_limit
    if np.isnan(true.ic) or np.isnan(chance.ic):
        said = NOTHING_PREDICTED
    elif chance.ic > chance_limit:
        said += ". The predictions have seen the labels that they are compared with"
    elif not passed:
        said += f". The features know what comes, {_most_telling(sample)} most of all"
    return Verdict("shuffled_labels", passed, ", ".join(sample.names), numbers, said)


def cheat_feature(fit: Fit, sample: Sample, rng: np.random.Generator, *, alarm: float = ALARM) -> Verdict:
    """The learner with one more feature that knows part of the outcome (correlation STRENGTH with its ranks). It must
    find it, and it must be worth as much beside the features as it is alone: what a feature knows already, the cheat
    cannot add. Failed is: a coefficient out of sample under FOUND beside features that were shuffled among the rows of
    each time, or a gain beside the true ones that falls short of it by more than max(s, Z·σ): s is what independent
    features of a coefficient `alarm` take of the gain, IC + alarm − √(IC² + alarm²), σ its standard error as in
    `shuffled_labels`.

    `numbers`: ic without the cheat, ic_with_cheat, gain, ic_of_cheat (beside shuffled features), sigma (of gain less
    ic_of_cheat).
    Measured on the samples of `shuffled_labels`: no false leak in 240. With one symbol and some 70 times, 5 of 200 were
    told that the learner does not find what is there: give it 150 rows or more."""
    known = STRENGTH * _rank_scores(sample)
    cheat = known + np.sqrt(1 - STRENGTH**2) * rng.standard_normal(len(known))
    order = _shuffled(np.arange(len(known)), sample.times, rng)
    plain = _ranking(fit(sample), sample)
    beside, alone = (
        _ranking(fit(_with(sample, features, cheat)), sample) for features in (sample.features, sample.features[order])
    )
    missing = alone.each - (beside.each - plain.each)
    shared = alone.ic + alarm - float(np.hypot(alone.ic, alarm))
    gain, limit = beside.ic - plain.ic, max(shared, Z * (sigma := _error(missing, plain.chance)))
    numbers = {
        "ic": plain.ic,
        "ic_with_cheat": beside.ic,
        "gain": gain,
        "ic_of_cheat": alone.ic,
        "sigma": sigma,
    }
    said = f"a cheat of strength {STRENGTH:g} is worth an IC of {alone.ic:.3f} alone and {gain:.3f} beside the features"
    passed = alone.ic >= FOUND and alone.ic - gain <= limit
    if np.isnan(alone.ic):
        said = NOTHING_PREDICTED
    elif alone.ic < FOUND:
        said += (
            f": the learner does not find what is there (at least {FOUND:g}). Give it more rows, or see its settings"
        )
    elif not passed:
        said += f", {limit:.3f} less are allowed. They know what it knows, {_most_telling(sample)} most of all: a leak"
    return Verdict("cheat_feature", passed, ", ".join(sample.names), numbers, said)


NOTHING_PREDICTED: Final = "the learner predicted no row out of sample, so nothing was shown: give it more sessions"


class _Ranking(NamedTuple):
    """Information coefficients out of sample, one for each time that is ranked by itself; empty: nothing predicted."""

    each: FloatArray
    chance: float  # standard error of their mean where predictions know nothing

    @property
    def ic(self) -> float:
        return float(self.each.mean()) if self.each.size else float("nan")

    @property
    def sigma(self) -> float:
        return _error(self.each, self.chance)


def _error(each: FloatArray, chance: float) -> float:
    """Standard error of a mean: between the values, and at least what chance makes."""
    between = float(each.std(ddof=1)) / np.sqrt(each.size) if each.size > 1 else 0.0
    return float(np.maximum(chance, between))


def _ranking(predictions: FloatArray, sample: Sample) -> _Ranking:
    tested = np.flatnonzero(np.isfinite(predictions))
    groups = [tested[rows] for rows in _ranked_together(sample.times[tested])]
    each = [information_coefficient(predictions[g], sample.outcomes[g]) for g in groups]
    chance = np.sqrt(sum(1 / (len(g) - 1) for g in groups)) / len(groups) if groups else float("nan")
    return _Ranking(np.nan_to_num(np.array(each)), float(chance))  # a constant prediction ranks nothing: 0


def _with(sample: Sample, features: NDArray[np.float32], cheat: FloatArray) -> Sample:
    columns = np.column_stack([features, cheat.astype(np.float32)])
    return replace(sample, names=(*sample.names, CHEAT), features=columns)


def _by_time(times: IntArray) -> list[IntArray]:
    return np.split(np.arange(len(times)), np.flatnonzero(np.diff(times)) + 1) if len(times) else []


def _ranked_together(times: IntArray) -> list[IntArray]:
    """Positions of the rows of each time that is large enough; of all rows where none is."""
    large = [rows for rows in _by_time(times) if len(rows) >= FEWEST_ROWS]
    return large or ([np.arange(len(times))] if len(times) >= FEWEST_ROWS else [])


def _shuffled(values: NDArray[Any], times: IntArray, rng: np.random.Generator) -> NDArray[Any]:
    """The values in another order among those that are ranked together."""
    mixed = values.copy()
    for rows in _ranked_together(times):
        mixed[rows] = rng.permutation(values[rows])
    return mixed


def _rank_scores(sample: Sample) -> FloatArray:
    """Ranks of the outcomes among those ranked together, centred, of unit variance; 0 at times too small."""
    scores = np.zeros(len(sample.outcomes))
    for rows in _ranked_together(sample.times):
        ranks = pl.Series(sample.outcomes[rows]).rank().to_numpy()
        scores[rows] = (ranks - ranks.mean()) / (ranks.std() or 1.0)
    return scores


def _most_telling(sample: Sample) -> str:
    alone = [abs(information_coefficient(column, sample.outcomes)) for column in sample.features.T]
    return sample.names[int(np.argmax(np.nan_to_num(alone)))]
