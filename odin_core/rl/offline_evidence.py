"""What a learner may count of a decision: a choice, the probability that its outcome was revealed, and that outcome.

Two kinds, both unbiased for right propensities (Horvitz & Thompson 1952):

* `choices`: each decision's choice with its logged propensity, as off-policy values count it.
* `explored`: of the decisions that chance made, the action that was drawn, whether it was then taken, skipped or
  rejected, for what it earned or would have earned. With c the probability that chance decides and 1/128 that it draws
  this action, the outcome was revealed with probability c/128; that FLAT earns 0 with probability c. A skipped decision
  teaches as much as a taken one, so there is about three times as much to learn from; decisions that a policy made
  count nothing. c follows from the logged propensity: see `chance_of_exploring`.

Here too: what is expected before the choice (baseline), and the same decisions upside down."""

from typing import Literal, NamedTuple

import numpy as np

from odin_core.errors import OdinError
from odin_core.policies.actions import ACTIONS, FLAT, PER_SIDE, FloatArray, IntArray
from odin_core.rl.offline_config import ReinforceConfig
from odin_core.rl.offline_data import Matrix, OfflineData
from odin_core.rl.reinforce_policy import Scaling
from odin_core.rl.reward_engine import shaped

Kind = Literal["choices", "explored"]
RIDGE = 200.0


class NothingToLearnFrom(OdinError):
    def __init__(self, part: str, kind: Kind) -> None:
        way = "choices" if kind == "explored" else "explored"
        super().__init__(
            f"the {part} sessions hold no evidence of kind {kind!r}; let the life explore, choose other shares of "
            f"sessions, or try evidence: {way}"
        )


class NothingTurns(OdinError):
    def __init__(self, names: tuple[str, ...]) -> None:
        some = f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
        super().__init__(
            f"of the features {some} none turns with the price, so decisions cannot be seen upside down; set "
            f"mirrored: false"
        )


class Evidence(NamedTuple):
    """m pieces of evidence about n decisions."""

    row: IntArray  # (m,) the decision
    choice: IntArray  # (m,) grid index or FLAT
    propensity: FloatArray  # (m,) probability that this choice's outcome was revealed there
    reward: FloatArray  # (m,) units of risk


def learned_from(found: OfflineData, config: ReinforceConfig) -> Evidence:
    """`evidence` with rewards as the learner counts them: relative where the configuration says so, then shaped by
    `reward_engine`."""
    known = evidence(found, config.evidence)
    reward = relative_reward(found, known) if config.relative else known.reward
    return known._replace(reward=shaped(reward, known.choice, config.risk))


def evidence(found: OfflineData, kind: Kind) -> Evidence:
    """Evidence about the decisions of `found`, in their order; of `explored`, first the actions, then FLAT."""
    if kind == "choices":
        return Evidence(np.arange(len(found)), found.choice, found.propensity, found.reward)
    row = np.flatnonzero(np.isfinite(found.chance))
    chance = found.chance[row]
    return Evidence(
        np.tile(row, 2),
        np.concatenate([found.lean[row], np.full(row.size, FLAT)]),
        np.concatenate([chance / ACTIONS, chance]),
        np.concatenate([np.nan_to_num(found.counterfactual[row]), np.zeros(row.size)]),
    )


def relative_reward(found: OfflineData, known: Evidence) -> FloatArray:
    """(m,) rewards of `known` less what its side earned on average in the session: r − side·M, M being the mean of
    side·reward over the leans of the session's other decisions, 0 where there is none. What moves all symbols of a
    session alike then changes nothing. FLAT and orders that never filled stay at 0."""
    filled = np.isfinite(found.counterfactual)
    moved = np.where(filled, side_of(found.lean) * np.nan_to_num(found.counterfactual), 0.0)
    total, count = np.bincount(found.group, weights=moved), np.bincount(found.group, weights=filled)
    others = (count[found.group] - filled).astype(np.float64)
    market = np.divide(total[found.group] - moved, others, out=np.zeros(len(found)), where=others > 0)
    side = side_of(known.choice) * filled[known.row]
    return known.reward - side * market[known.row]


def side_of(choice: IntArray) -> FloatArray:
    """(n,) 1 for buying, −1 for selling, 0 for FLAT."""
    return np.where(choice == FLAT, 0.0, np.where(choice < PER_SIDE, 1.0, -1.0))


def mirrored_action(choice: IntArray) -> IntArray:
    """The same choices with buying and selling exchanged."""
    return np.where(choice == FLAT, FLAT, (choice + PER_SIDE) % ACTIONS)


def mirrored_features(X: Matrix, names: tuple[str, ...]) -> Matrix:
    """Contexts (n, features) as they would be with prices upside down, by the catalogue's `Feature.mirror`. Raises
    NothingTurns where that leaves every context as it is."""
    from odin_core.policies.joint import mirrored_contexts  # one reading of what upside down means

    turned = mirrored_contexts(X, names)
    if np.array_equal(turned, X, equal_nan=True):
        raise NothingTurns(names)
    return turned


def baseline(found: OfflineData, config: ReinforceConfig) -> FloatArray:
    """(n,) what each decision was expected to earn before the choice, from other sessions than its own: their mean
    reward, or least squares on the standardised features with RIDGE. What does not depend on the row's own choice
    takes variance off the gradient and adds no bias. Source: Greensmith, Bartlett & Baxter 2004."""
    if config.baseline == "none":
        return np.zeros(len(found))
    known = learned_from(found, config)
    reward, group = known.reward, found.group[known.row]
    if config.evidence == "explored":
        reward = reward * np.where(known.choice == FLAT, 0.0, 2 * config.trade_probability)
    if config.baseline == "mean":
        sums, rows = np.bincount(group, weights=reward), np.bincount(group)
        return ((sums.sum() - sums) / np.maximum(rows.sum() - rows, 1))[found.group]
    z = Scaling.of(found.features).apply(found.features)
    inputs = np.column_stack([np.ones(len(z)), z])
    seen = inputs[known.row]
    ridge = np.diag([1e-6, *[RIDGE] * z.shape[1]])
    whole, right = seen.T @ seen + ridge, seen.T @ reward
    expected = np.empty(len(found))
    for session in range(len(found.sessions)):
        own, rows = group == session, found.group == session
        left_out = whole - seen[own].T @ seen[own], right - seen[own].T @ reward[own]
        expected[rows] = inputs[rows] @ np.linalg.solve(*left_out)
    return expected
