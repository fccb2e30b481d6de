"""What a policy must be to run in the shadow of the champion, and what it answers.

A policy is asked about the contexts of one close and answers with one choice each, on the action grid of
`policies.actions` or off it. Light on purpose: learners implement this without importing the fold."""

from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from odin_core.policies.actions import FLAT, FloatArray, Proposals, decode

if TYPE_CHECKING:
    import polars as pl


class ShadowChoices(NamedTuple):
    """What a policy chooses for n contexts, arrays of shape (n,), in the contexts' order. Make them with `of`.

    `side`, `size`, `stop` and `target` of a context that it would leave alone say what it leans to, which gets an
    outcome too; a policy that leans to nothing there has the side 0, and no outcome."""

    takes: npt.NDArray[np.bool_]  # whether it would trade
    side: FloatArray  # +1 long, −1 short, 0 neither
    size: FloatArray  # fraction of the life's capital
    stop: FloatArray  # multiples of the 60-minute ATR
    target: FloatArray  # multiples of the stop
    propensity: FloatArray  # probability of this choice; of a deterministic policy 1
    confidence: FloatArray  # probability that the choice ends above its costs; NaN where there is none
    score: FloatArray  # expected reward after costs, units of risk; NaN where there is none

    @classmethod
    def of(
        cls,
        *,
        side: npt.ArrayLike,
        size: npt.ArrayLike,
        stop: npt.ArrayLike,
        target: npt.ArrayLike,
        takes: npt.ArrayLike | None = None,
        propensity: npt.ArrayLike = 1.0,
        confidence: npt.ArrayLike = float("nan"),
        score: npt.ArrayLike = float("nan"),
    ) -> Self:
        """Columns or scalars, broadcast against `side` (n,); `takes` None is wherever there is a side. Raises
        ValueError where shapes do not fit."""
        sides = np.array(side, np.float64, ndmin=1)
        if sides.ndim != 1:
            raise ValueError(f"side has shape {sides.shape}; one choice per context is one-dimensional")
        wide = lambda value: np.array(np.broadcast_to(np.asarray(value, np.float64), sides.shape))  # noqa: E731
        trades = sides != 0 if takes is None else np.array(np.broadcast_to(np.asarray(takes, np.bool_), sides.shape))
        return cls(trades, sides, *(wide(v) for v in (size, stop, target, propensity, confidence, score)))

    @classmethod
    def of_proposals(
        cls,
        proposals: Proposals,
        *,
        propensity: npt.ArrayLike = 1.0,
        confidence: npt.ArrayLike | None = None,
        score: npt.ArrayLike = float("nan"),
    ) -> Self:
        """Proposals on the action grid; `confidence` None means that the policy has none."""
        meaning = decode(proposals.lean)
        return cls.of(
            side=meaning.side, size=meaning.size, stop=meaning.stop, target=meaning.target,
            takes=proposals.action != FLAT, propensity=propensity,
            confidence=float("nan") if confidence is None else confidence, score=score,
        )  # fmt: skip

    def require_fit(self, who: str, n: int) -> None:
        """Raise ValueError, naming field, row and value, unless these are n choices that can be carried out."""
        sided, nan = self.side != 0, np.isnan
        rules: dict[str, tuple[npt.NDArray[np.bool_], str]] = {
            "takes": (~self.takes | sided, "a trade has a side"),
            "side": (np.isin(self.side, (-1, 0, 1)), "it must be 1, −1 or 0"),
            "size": (~sided | ((self.size > 0) & (self.size <= 1)), "it must be a fraction of capital, above 0"),
            "stop": (~sided | ((self.stop > 0) & np.isfinite(self.stop)), "it must be finite, above 0"),
            "target": (~sided | ((self.target > 0) & np.isfinite(self.target)), "it must be finite, above 0"),
            "propensity": ((self.propensity > 0) & (self.propensity <= 1 + 1e-12), "it must be above 0, at most 1"),
            "confidence": (nan(self.confidence) | ((self.confidence >= 0) & (self.confidence <= 1)), "0 to 1, or NaN"),
            "score": (nan(self.score) | np.isfinite(self.score), "it must be finite, or NaN"),
        }
        if len(self.side) != n:
            raise ValueError(f"{who} made {len(self.side)} choices for {n} contexts")
        for field, (holds, rule) in rules.items():
            if not holds.all():
                row = int(np.argmin(holds))
                raise ValueError(f"{who}, context {row}: {field}={getattr(self, field)[row]}; {rule}")


class ShadowPolicy(Protocol):
    """A trained policy that may be asked beside the champion."""

    @property
    def name(self) -> str:
        """Of the learner, in one word: ppo, reinforce, distilled. Not random, rule or joint."""
        ...

    @property
    def version(self) -> str:
        """Of this one, by its content; no two policies share one."""
        ...

    @property
    def trained_through(self) -> date:
        """The last session that it has learned anything from; it is asked from that session's close on."""
        ...

    def choose(self, contexts: "pl.DataFrame", as_of: datetime) -> ShadowChoices:
        """A choice for each of `contexts`, rows of the decision features of one close (symbols ascending, with
        `symbol`, `session` and `decided_at`), to be carried out from the next session's open. It may read market data
        known at `as_of` (UTC, the session's close) and nothing later; the same question has the same answer."""
        ...
