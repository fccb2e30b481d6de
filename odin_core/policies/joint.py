"""The joint policy: LightGBM heads that decide enter, direction, size, exit and confidence of one trade together.

It learns from full-information outcomes: for every context the reward of every action of the grid is known. With
R(side, exit) the reward averaged over sizes, the *direction* head learns s = (mean R(long) − mean R(short)) / 2 and the
*enter* head e = (mean R(long) + mean R(short)) / 2, so that the expected reward of a side is e ± s and a trade is worth
entering where e + |s| > 0: costs are inside R. Both are learned relative to their session's mean, because a few months
hold too few sessions to learn where the whole market goes, and a tree that tries learns noise. What holds for a price
path holds for the same path upside down with the sides exchanged: the direction head sees every context twice, once
mirrored, and answers with the antisymmetric half, and the exit head sees the side that is taken as long. The *size*
head learns the scale of what is left, the *exit* head which stop and target do better than the average exit.
*Confidence* is Platt's scaling (Platt 1999) of (e + |s|) / scale, fitted on rows that the walk-forward folds had not
seen."""

import functools
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odin_core.lifecycle.config import LearnerConfig
from odin_core.policies.actions import FLAT, SHAPE, SIZES, STOPS, TARGETS, FloatArray, Proposals, encode, known_mean

if TYPE_CHECKING:
    from lightgbm import Booster

    from odin_core.training.window import TrainingWindow

Matrix = NDArray[np.float32]
HEADS = ("direction", "enter", "size", "exit")
CLIP = 6.0  # rewards beyond this many units of risk are cut for learning, so that single gaps do not rule a tree
EXITS = np.array([(stop, target) for stop in STOPS for target in TARGETS])  # (16, 2)
EXITS_PER_SIDE = 3  # exits sampled per context and side for the exit head
FULL_SIZE_UTILITY = 0.4  # expected reward over its scale at which the largest size is used


@dataclass(frozen=True)
class JointPolicy:
    """A trained policy. `heads` are LightGBM's own model texts, so that a model file says the same everywhere."""

    features: tuple[str, ...]
    trained_through: date
    heads: dict[str, str]
    platt: tuple[float, float]

    name = "joint"

    def to_json(self) -> str:
        return json.dumps(
            {
                "features": self.features,
                "trained_through": self.trained_through.isoformat(),
                "heads": self.heads,
                "platt": self.platt,
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> "JointPolicy":
        data = json.loads(text)
        return cls(
            tuple(data["features"]), date.fromisoformat(data["trained_through"]), data["heads"], tuple(data["platt"])
        )

    def propose(self, X: Matrix) -> Proposals:
        """Proposals for contexts `X` (n, features), in the order of `self.features`; NaN is LightGBM's missing."""
        mirrored = mirrored_contexts(X, self.features)
        direction = self.score(X)
        enter = self._predict("enter", X)
        scale = np.exp(self._predict("size", X))
        expected = enter + np.abs(direction)
        side = (direction < 0).astype(np.int64)
        stop, target = self._best_exit(np.where(side[:, None] == 0, X, mirrored))
        utility = expected / scale
        steps = np.searchsorted(np.array(SIZES[:-1]) / SIZES[-1], utility / FULL_SIZE_UTILITY)
        lean = encode(side, np.clip(steps, 0, len(SIZES) - 1), stop, target)
        a, b = self.platt
        confidence = 1 / (1 + np.exp(-(a + b * utility)))
        return Proposals(np.where(expected > 0, lean, FLAT), lean, confidence, direction)

    def score(self, X: Matrix) -> FloatArray:
        """(n,) the `score` of `propose`, without the rest: expected reward of long minus short, halved."""
        return (self._predict("direction", X) - self._predict("direction", mirrored_contexts(X, self.features))) / 2

    def _predict(self, head: str, X: Matrix) -> FloatArray:
        return predict(booster_of(self.heads[head]), X)

    def _best_exit(self, taken_as_long: Matrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        n = len(taken_as_long)
        rows = np.column_stack([np.repeat(taken_as_long, len(EXITS), axis=0), np.tile(EXITS, (n, 1))])
        best = self._predict("exit", rows.astype(np.float32)).reshape(n, len(EXITS)).argmax(axis=1)
        return best // len(TARGETS), best % len(TARGETS)


def mirrored_contexts(X: Matrix, names: tuple[str, ...]) -> Matrix:
    """Contexts (n, features) as they would be with prices upside down; `Feature.mirror` says about which value."""
    turned = X.copy()
    for column, name in enumerate(names):
        centre = _mirror_of(name)
        if centre is not None:
            turned[:, column] = 2 * centre - X[:, column]
    return turned


@functools.lru_cache(maxsize=1024)
def _mirror_of(name: str) -> float | None:
    """Of a feature of the catalogue; None for a column that is none, as the market's volatility."""
    from odin_core.features.catalogue import UnknownFeature, named  # brings numba

    try:
        return named(name).definition.mirror
    except UnknownFeature:
        return None


@functools.lru_cache(maxsize=64)
def booster_of(text: str) -> "Booster":
    """A head from its model text; kept in memory."""
    import lightgbm

    return lightgbm.Booster(model_str=text)


def train_joint(window: "TrainingWindow", config: LearnerConfig, seed: int) -> tuple[JointPolicy, "WalkForward"]:
    """Train on every context of the window. Returns the policy and the walk-forward it was calibrated on.

    Same window, configuration and seed give the same model text: deterministic, row-wise, threads as configured."""
    X, (long_short, mean, outcome, relative) = window.features, targets_of(window)
    fit = functools.partial(fit_head, config=config, seed=seed)
    walk = walk_forward(window, config, seed)
    residual = np.abs(mean - mean.mean(axis=0)).max(axis=1)
    heads = {
        "direction": fit_direction(X, relative.direction, window.names, fit),
        "enter": fit(X, relative.enter + outcome.enter.mean()),
        "size": fit(X, np.log(np.maximum(residual, 0.05))),
        "exit": fit(*_exit_rows(X, long_short, mean, window.names, seed)),
    }
    utility = walk.expected / np.exp(predict(booster_of(heads["size"]), X[walk.rows]))
    return JointPolicy(window.names, window.last_session, heads, platt_scaling(utility, walk.reward > 0)), walk


@dataclass(frozen=True)
class WalkForward:
    """Out-of-sample predictions of an expanding, purged walk-forward: one row per tested context."""

    rows: NDArray[np.int64]  # row of the window
    fold: NDArray[np.int64]
    expected: FloatArray  # e + |s| as predicted
    reward: FloatArray  # of the side that was predicted, mean over sizes and exits
    random: FloatArray  # mean reward over the whole grid
    score: FloatArray  # predicted s
    outcome: FloatArray  # realised s


class Outcome(NamedTuple):
    """The two halves of what a context's sides earned: long is enter + direction, short is enter − direction."""

    direction: FloatArray
    enter: FloatArray


def _within(values: FloatArray, session: NDArray[np.int64]) -> FloatArray:
    """Values less the mean of their session."""
    count = np.maximum(np.bincount(session), 1)
    return values - (np.bincount(session, weights=values) / count)[session]


class Targets(NamedTuple):
    """What the heads learn of the n contexts of a window."""

    long_short: FloatArray  # (n, side, stop, target) reward, mean over sizes, cut at CLIP
    mean: FloatArray  # (n, side) over the exits
    outcome: Outcome
    relative: Outcome  # to its session's mean


def targets_of(window: "TrainingWindow") -> Targets:
    """What the heads learn of a window: rewards cut at CLIP, by side, and relative to their session's mean."""
    long_short = np.clip(known_mean(window.rewards.reshape(-1, *SHAPE), 2), -CLIP, CLIP)
    mean = known_mean(long_short, (2, 3))
    session = window.session_index
    outcome = Outcome((mean[:, 0] - mean[:, 1]) / 2, (mean[:, 0] + mean[:, 1]) / 2)
    relative = Outcome(_within(outcome.direction, session), _within(outcome.enter, session))
    return Targets(long_short, mean, outcome, relative)


def walk_forward(
    window: "TrainingWindow",
    config: LearnerConfig,
    seed: int,
    *,
    without: Collection[str] = (),
    lookback: int | None = None,
) -> WalkForward:
    """Fit each fold as `train_joint` fits the policy, relative to the session, and predict the sessions after it; only
    the fold's own past gives the level. Of the final policy nothing is fitted.

    `without` names features of the window that the learner does not see; with `lookback` each fold learns from no more
    than so many sessions before the ones it predicts, which stay the same. Raises TooFewSessions (evaluation.splits);
    ValueError for a feature that the window does not have, or where none is left."""
    from odin_core.evaluation.splits import PurgedWalkForward

    X, names = _seen(window, without)
    _, _, outcome, relative = targets_of(window)
    fit = functools.partial(fit_head, config=config, seed=seed)
    session = window.session_index
    folds, embargo = config.walk_forward_folds, config.purge_sessions
    splitter = PurgedWalkForward(n_splits=folds, embargo=embargo, window=lookback)
    spans = np.stack([session, session], axis=1)  # an outcome spans the one session it is decided for
    parts = []
    for fold, (train, test) in enumerate(splitter.split(X, groups=session, label_spans=spans)):
        seen, unseen = X[train], X[test]
        direction = booster_of(fit_direction(seen, relative.direction[train], names, fit))
        s = (predict(direction, unseen) - predict(direction, mirrored_contexts(unseen, names))) / 2
        e = predict(booster_of(fit(seen, relative.enter[train] + outcome.enter[train].mean())), unseen)
        reward = outcome.enter[test] + np.where(s >= 0, 1, -1) * outcome.direction[test]
        columns = (
            test,
            np.full(len(test), fold),
            e + np.abs(s),
            reward,
            outcome.enter[test],
            s,
            outcome.direction[test],
        )
        parts.append(columns)
    return WalkForward(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _seen(window: "TrainingWindow", without: Collection[str]) -> tuple[Matrix, tuple[str, ...]]:
    """The window's matrix and names less the features that are left out."""
    if unknown := set(without) - set(window.names):
        raise ValueError(f"the window has no feature {', '.join(sorted(unknown))}; it has {', '.join(window.names)}")
    keep = [i for i, name in enumerate(window.names) if name not in without]
    if not keep:
        raise ValueError(f"no feature is left of {', '.join(window.names)}")
    return (window.features[:, keep] if without else window.features), tuple(window.names[i] for i in keep)


def fit_direction(X: Matrix, y: FloatArray, names: tuple[str, ...], fit: Any) -> str:
    """A direction head's model text: each context twice, once upside down. `fit`: `fit_head` but for X and y."""
    return fit(np.concatenate([X, mirrored_contexts(X, names)]), np.concatenate([y, -y]))


def predict(booster: "Booster", X: Matrix) -> FloatArray:
    """(n,) what a head says of contexts; on one thread, so that it says the same everywhere."""
    return np.asarray(booster.predict(X, num_threads=1), float)


def fit_head(X: Matrix, y: FloatArray, *, config: LearnerConfig, seed: int) -> str:
    """A head's model text, by least squares; same arguments, same text."""
    import lightgbm

    parameters = {
        "objective": "regression",
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": min(config.min_leaf, max(len(y) // 20, 5)),
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "max_bin": 63,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": config.threads,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(X, y, params=parameters)
    return lightgbm.train(parameters, data, num_boost_round=config.trees).model_to_string()


def _exit_rows(
    X: Matrix, long_short: FloatArray, mean: FloatArray, names: tuple[str, ...], seed: int
) -> tuple[Matrix, FloatArray]:
    """Rows (context seen from its side, exit) with the exit's advantage over the mean exit there, sampled."""
    n = len(X)
    rng = np.random.default_rng([seed, n])
    pick = rng.integers(0, len(EXITS), size=(n, 2, EXITS_PER_SIDE))
    context, side = np.repeat(np.arange(n), 2 * EXITS_PER_SIDE), np.tile(np.repeat([0, 1], EXITS_PER_SIDE), n)
    chosen = pick.ravel()
    reward = long_short.reshape(n, 2, len(EXITS))[context, side, chosen]
    seen = np.where(side[:, None] == 0, X[context], mirrored_contexts(X, names)[context])
    rows = np.column_stack([seen, EXITS[chosen]])
    known = np.isfinite(reward)
    return rows[known].astype(np.float32), (reward - mean[context, side])[known]


def platt_scaling(utility: FloatArray, won: NDArray[np.bool_], steps: int = 25) -> tuple[float, float]:
    """Intercept and slope of a logistic regression of `won` on `utility` (n,), by Newton's method with a weak ridge."""
    design = np.column_stack([np.ones_like(utility), utility])
    beta = np.zeros(2)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-design @ beta))
        gradient = design.T @ (won - p) - 1e-3 * beta
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-3 * np.eye(2)
        beta = beta + np.linalg.solve(hessian, gradient)
    return float(beta[0]), float(beta[1])


def version_of(model: JointPolicy) -> str:
    """The name of a model: its learner and the hash of its content."""
    return f"joint-{hashlib.sha256(model.to_json().encode()).hexdigest()[:10]}"
