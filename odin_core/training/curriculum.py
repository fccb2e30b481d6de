"""Where a simulation should begin: sessions drawn so that rare regimes and those that go badly are practised more.

What comes in: the volatility regime of each session that an episode may begin in, and how the learner does in each
regime so far. What comes out are weights to draw start sessions with; nothing is drawn here."""

from collections.abc import Mapping, Sequence

import numpy as np

from odin_core.policies.actions import FloatArray


def start_weights(
    regimes: Sequence[str | None],
    reward: Mapping[str, float],
    progress: float,
    *,
    hardness: float = 1.0,
) -> FloatArray:
    """(n,) probabilities of beginning in each session, summing to 1; those without a regime (None) get 0.

    `progress`, 0 to 1, is how far the training is: at 0 sessions are as frequent as they were, at 1 every regime gets
    its share whatever its frequency, and regimes in which `reward` (mean per decision, units of risk) is low get more
    of it: share ∝ exp(−hardness·progress·(reward − mean reward)). A regime whose reward is not known (absent or NaN)
    counts as the worst known one, so that what was never tried is tried. In between, the two are mixed by `progress`:
    easy to hard by order of frequency first, of difficulty then (Bengio et al. 2009; Jiang et al. 2021 for replay by
    difficulty).

    ValueError for a `progress` outside 0 to 1 or where no session has a regime."""
    if not 0 <= progress <= 1:
        raise ValueError(f"progress={progress}: a share of the training, 0 to 1")
    tagged = np.array([regime or "" for regime in regimes])
    present = [name for name in np.unique(tagged) if name]
    if not present:
        raise ValueError("no session has a regime; weights need at least one")
    count = {name: int(np.count_nonzero(tagged == name)) for name in present}
    seen = {name: reward[name] for name in present if np.isfinite(reward.get(name, np.nan))}
    worst = min(seen.values(), default=0.0)
    known = np.array([seen.get(name, worst) for name in present])
    hard = np.exp(-hardness * progress * (known - known.mean()))
    total = sum(count.values())
    share = {
        name: (1 - progress) * count[name] / total + progress * weight / hard.sum()
        for name, weight in zip(present, hard, strict=True)
    }
    return np.array([share[name] / count[name] if name else 0.0 for name in tagged])
