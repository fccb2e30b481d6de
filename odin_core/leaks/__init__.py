"""The leak wall: six checks that nothing a decision uses was unknowable then. Bars, rows and learners in, verdicts out;
which features and labels there are, and where verdicts go, is decided by the caller.

- `truncate_and_recompute`, `future_perturbation`, `stamp_shift` (`cutting`): change the future or the stamps, compute
  again, compare. Proofs, within what their cuts separate; for features, labels and anything else made from bars.
- `lag_sensitivity` (`ranking`): a single feature too good to be known.
- `shuffled_labels`, `cheat_feature` (`learning`): the same question to the learner, over all features together."""

from odin_core.leaks.cutting import (
    KEYS,
    Compute,
    CutOutside,
    cuts_of,
    future_perturbation,
    scrambled,
    stamp_shift,
    truncate_and_recompute,
)
from odin_core.leaks.learning import (
    Fit,
    Sample,
    cheat_feature,
    joint_learner,
    sample_of,
    sample_of_window,
    shuffled_labels,
)
from odin_core.leaks.ranking import ALARM, lag_sensitivity, next_returns
from odin_core.leaks.verdict import Verdict, to_frame

__all__ = [
    "ALARM",
    "KEYS",
    "Compute",
    "CutOutside",
    "Fit",
    "Sample",
    "Verdict",
    "cheat_feature",
    "cuts_of",
    "future_perturbation",
    "joint_learner",
    "lag_sensitivity",
    "next_returns",
    "sample_of",
    "sample_of_window",
    "scrambled",
    "shuffled_labels",
    "stamp_shift",
    "to_frame",
    "truncate_and_recompute",
]
