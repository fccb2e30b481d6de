"""N environments driven together: the arrays that the compiled step works on, seeds, starts, threads, the journal.

The environments that people use, `rl.environment` and `rl.vector`, are thin forms of this one."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from odin_core.errors import OdinError
from odin_core.execution.costs import CostSchedule
from odin_core.execution.orders import ExecutionRules, Orders
from odin_core.rl.choices import DIMENSIONS
from odin_core.rl.config import COSTS, EnvironmentConfig
from odin_core.rl.kernel import DOORS
from odin_core.rl.kernel_values import (
    ACCOUNT,
    ORDER,
    SUMMARY,
    TERMS,
    Bools,
    Float32s,
    Floats,
    Ints,
    Journal,
    Output,
    Starts,
    task_of,
    world_of,
)
from odin_core.rl.observation import width
from odin_core.rl.tape import Tape
from odin_core.rl.workers import Worker

LEAST_PER_THREAD = 64  # environments; below, a second thread costs more than it brings
ANYWHERE = np.iinfo(np.int64).min  # in place of a row: where an episode begins is drawn, as without it


class ActionsInvalid(OdinError):
    def __init__(self, found: tuple[int, ...], needed: tuple[int, int]) -> None:
        super().__init__(
            f"actions of shape {found} cannot be taken; it must be {needed}: position, size, stop and target of each "
            f"environment"
        )


class NotBegun(OdinError):
    def __init__(self, index: int) -> None:
        super().__init__(
            f"environment {index} has no episode to go on with: none has begun, or it is over; call reset()"
        )


class SeedsInvalid(OdinError):
    def __init__(self, found: int, needed: int) -> None:
        super().__init__(f"{found} seeds were given for {needed} environments; give one for each, or one for all")


class StartsInvalid(OdinError):
    def __init__(self, what: str, value: object, rule: str) -> None:
        super().__init__(f"starts: {what}={value} cannot be used: {rule}")


@dataclass(frozen=True, eq=False)
class Episode:
    """What one episode did, and under which conditions: enough to run it again by `execution.backtest`."""

    symbol: str
    start: int  # row at whose end the first decision was
    orders: Orders
    equity: Floats  # (bars + 1,) at the ends of rows start, start + 1, …
    rules: ExecutionRules  # with the episode's spread, slippage and latency
    costs: CostSchedule
    cost_factor: float  # on charges


class Sheets:
    """Arrays of one shape to write observations on. One is written on again only when nobody holds it or a view of it
    any more, since fresh memory for each step would cost more than the step (the system clears its pages)."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._sheets: list[Float32s] = []

    def free(self) -> Float32s:
        """An array of the shape, with any content."""
        for place in range(len(self._sheets)):
            if sys.getrefcount(self._sheets[place]) == 2:  # the list and the call
                return self._sheets[place]
        self._sheets = [*self._sheets[-8:], np.empty(self._shape, np.float32)]
        return self._sheets[-1]


def default_starts(tape: Tape, config: EnvironmentConfig) -> tuple[Ints, Floats]:
    """(rows, weights): every decidable row that a whole episode follows, each symbol equally likely. A symbol with no
    such row starts at its first decidable one. `random_start=False` leaves each symbol's first row,
    `random_symbol=False` the first symbol. Raises StartsInvalid where nothing is left."""
    rows, weights = [], []
    for i in range(len(tape.symbols) if config.random_symbol else 1):
        first, end = int(tape.starts[i]), int(tape.starts[i + 1])
        possible = first + np.flatnonzero(tape.decidable[first : end - 1])
        whole = possible[possible + config.episode_bars < end]
        chosen = whole if whole.size and config.random_start else (whole if whole.size else possible)[:1]
        rows.append(chosen)
        weights.append(np.full(chosen.size, 1.0 / max(1, chosen.size)))
    if not sum(r.size for r in rows):
        raise StartsInvalid("rows", "none", "no row of the tape is decidable and followed by another")
    return np.concatenate(rows), np.concatenate(weights)


def _key(seed: int, index: int) -> np.uint64:
    """Of all randomness of an environment. Numpy takes numbers as words of 32 bits, one after the other: of (seed,
    index) as it stands 2³² would be the same as (0, 1), so what a seed has beyond its first word comes last."""
    return np.random.SeedSequence((seed & 0xFFFFFFFF, index, seed >> 32)).generate_state(1, np.uint64)[0]


class Batch:
    """`count` environments; environment i of a batch equals, bit for bit, one alone with `first_index` i.

    `record` keeps the orders and the equity of each environment's current and last episode. Observations
    that `reset` and `step` give stay as they are; arrays in `out` and `final` are written over by the next step."""

    def __init__(
        self,
        tape: Tape,
        config: EnvironmentConfig,
        count: int,
        *,
        rules: ExecutionRules | None = None,
        costs: CostSchedule | None = None,
        seed: int = 0,
        first_index: int = 0,
        record: bool = False,
        threads: int | None = None,
    ) -> None:
        self.tape, self.config, self.count = tape, config, count
        self.rules, self.costs = rules or ExecutionRules(), costs or COSTS
        self._world, self._task = world_of(tape), task_of(config, self.rules, self.costs)
        self.accounts = np.zeros(count, ACCOUNT)
        self.accounts["index"] = first_index + np.arange(count)
        self.accounts["wanted_start"] = -1
        kept = config.episode_bars if record else 0
        self.journal = Journal(np.zeros((count, 2, kept), ORDER), np.full((count, 2, kept + bool(kept)), np.nan))
        self.out = Output(
            reward=np.zeros(count, np.float32),
            terms=np.zeros((count, len(TERMS))),
            terminated=np.zeros(count, np.bool_),
            truncated=np.zeros(count, np.bool_),
            denied=np.zeros(count, np.bool_),
            summary=np.zeros(count, SUMMARY),
        )
        self.seed(seed)
        self.width = width(tape)
        self._sheets = Sheets((count, self.width))
        self.final = np.zeros((count, self.width), np.float32)
        self.set_starts(*default_starts(tape, config))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = max(1, min(threads or cores, count // LEAST_PER_THREAD))
        self._spans = list(pairwise(np.linspace(0, count, self.threads + 1).astype(int).tolist()))
        self._workers: list[Worker] = []

    # --- what is drawn ------------------------------------------------------------------------------------------------

    def seed(self, seed: int | Sequence[int | None]) -> None:
        """Begin randomness anew: environment i by (seed, i), or by (seed[i], 0) where each has its own; those of None
        go on as they are. Raises SeedsInvalid unless there is one for each."""
        if isinstance(seed, int | np.integer):
            pairs = [(int(seed), int(i)) for i in self.accounts["index"]]
        elif len(seed) == self.count:
            pairs = [None if own is None else (int(own), 0) for own in seed]
        else:
            raise SeedsInvalid(len(seed), self.count)
        for place, pair in enumerate(pairs):
            if pair is not None:
                self.accounts["key"][place] = _key(*pair)
                self.accounts["episode"][place] = self.out.summary["episode"][place] = -1

    def set_starts(
        self, rows: ArrayLike, weights: ArrayLike | None = None, *, in_order: bool = False, stride: int | None = None
    ) -> None:
        """Where episodes begin from now on: rows at whose end the first decision is, with weights of any scale (None:
        equal). `in_order`: instead of being drawn they are taken in turn, environment i's episode e the row number
        i + e · stride (None: count). Raises StartsInvalid."""
        chosen = np.ascontiguousarray(rows, np.int64).ravel()
        share = np.ones(chosen.size) if weights is None else np.ascontiguousarray(weights, np.float64).ravel()
        last = self.tape.starts[1:] - 1
        if chosen.size == 0 or share.size != chosen.size:
            raise StartsInvalid("rows", chosen.size, f"there must be at least one, and {share.size} as of weights")
        bad = (chosen < 0) | (chosen >= self.tape.rows) | np.isin(chosen, last)
        if bad.any():
            rule = f"it must be one of the {self.tape.rows} rows of the tape, and not the last of a symbol"
            raise StartsInvalid(f"rows[{int(np.argmax(bad))}]", chosen[bad][0], rule)
        if not (np.isfinite(share) & (share >= 0)).all() or share.sum() <= 0:
            raise StartsInvalid("weights", share.min(), "they must be finite, 0 or more, and not all 0")
        cumulative = np.cumsum(share / share.sum())
        cumulative[cumulative >= cumulative[-1]] = 1.0
        self._starts = Starts(chosen, cumulative, in_order, stride or self.count)

    # --- episodes and steps -------------------------------------------------------------------------------------------

    def reset(self, chosen: Bools | None = None, rows: ArrayLike | None = None) -> Float32s:
        """Begin an episode in the chosen environments (None: all), at `rows` (count,) where they are given and not
        ANYWHERE; what all of them see, float32 (count, width). Raises StartsInvalid."""
        chosen = np.ones(self.count, np.bool_) if chosen is None else chosen
        if rows is not None:
            wanted = np.broadcast_to(np.asarray(rows, np.int64), self.count)
            if not (self._can_start(wanted) | (wanted == ANYWHERE)).all():
                raise StartsInvalid("row", wanted.tolist(), "it must be a row of the tape, not the last of a symbol")
            self.accounts["wanted_start"] = np.where(chosen & (wanted != ANYWHERE), wanted, -1)
        self.accounts["episode"] += chosen
        seen = self._sheets.free()
        DOORS.reset(chosen, self.accounts, self._world, self._task, self._starts, self.journal, seen)
        return seen

    def step(self, actions: Ints, *, again: bool) -> Float32s:
        """One bar on for all; `again` begins a new episode at once where one ends, what was seen at the end being in
        `final`. Rewards, terms, flags and summaries are in `out`. Raises ActionsInvalid, NotBegun;
        IndexError for an action outside of the action space."""
        if actions.shape != (self.count, len(DIMENSIONS)):
            raise ActionsInvalid(actions.shape, (self.count, len(DIMENSIONS)))
        runs = self.accounts["row"] < self.accounts["end"]
        if not runs.all():
            raise NotBegun(int(np.argmin(runs)))
        seen = self._sheets.free()
        rest = (
            self.accounts, self._world, self._task, self._starts, self.journal, actions, again, self.out, seen,
            self.final,
        )  # fmt: skip
        if self.threads == 1:
            DOORS.advance(*self._spans[0], *rest)
            return seen
        workers = self._awake()
        try:
            for worker, (first, end) in zip(workers, self._spans[1:], strict=True):
                worker.give(DOORS.advance, first, end, *rest)
            DOORS.advance(*self._spans[0], *rest)
            for worker in workers:
                worker.wait()
        except BaseException:
            self.close()  # an end that nobody waited for would be taken for that of the next step
            raise
        return seen

    def masks(self) -> Bools:
        """Which actions are allowed now: (count, 15), the dimensions of the action side by side."""
        allowed = np.empty((self.count, sum(DIMENSIONS)), np.bool_)
        DOORS.mask(self.accounts, self._world, self._task, allowed)
        return allowed

    def episode(self, index: int, *, finished: bool) -> Episode:
        """The current episode of an environment, or the last that ended and was followed by another. Needs `record`."""
        if not self.journal.orders.shape[2]:
            raise ValueError("nothing is kept of episodes: make the environment with record=True")
        account: Any = self.out.summary[index] if finished else self.accounts[index]
        number, start = int(account["episode"]), int(account["start"])
        if number < 0:
            raise ValueError(
                f"environment {index} has not {'ended' if finished else 'begun'} an episode since its seeding"
            )
        if int(self.accounts["episode"][index]) - number > 1:
            raise ValueError(
                f"what environment {index} did in episode {number} has been written over: it was reset since"
            )
        slot = number & 1
        kept = self.journal.orders[index, slot, : int(account["ordered"])]
        bars = int(account["end"] if finished else account["row"]) - start
        rules = replace(
            self.rules,
            half_spread_bps=float(self.rules.half_spread_bps * account["cost_factor"]),
            slippage_volatility=float(self.rules.slippage_volatility * account["slippage_factor"]),
            impact=float(self.rules.impact * account["slippage_factor"]),
            latency_bars=int(account["latency"]),
        )
        return Episode(
            symbol=self.tape.symbols[self.tape.symbol[start]],
            start=start,
            orders=Orders._make(np.ascontiguousarray(kept[name]) for name in Orders._fields),
            equity=self.journal.equity[index, slot, : bars + 1].copy(),
            rules=rules,
            costs=self.costs,
            cost_factor=float(account["cost_factor"]),
        )

    def close(self) -> None:
        """Let the threads go; a step calls them back."""
        for worker in self._workers:
            worker.close()
        self._workers = []

    def __getstate__(self) -> dict[str, Any]:
        """Threads stay behind; a copy has its own."""
        return self.__dict__ | {"_workers": []}

    def _can_start(self, rows: Ints) -> Bools:
        inside = (rows >= 0) & (rows < self.tape.rows)
        return inside & ~np.isin(rows, self.tape.starts[1:] - 1)

    def _awake(self) -> list[Worker]:
        """The threads beside this one, made when first needed, and anew in a fork."""
        if not self._workers or self._workers[0].process != os.getpid():
            self._workers = [Worker() for _ in range(self.threads - 1)]
        return self._workers
