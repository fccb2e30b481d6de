"""How a policy does on sessions that it was not trained on: deterministic, beside flat, random and buy-and-hold.

Each symbol's session is one episode with fresh capital, without randomisation of costs; a session's return is the mean
over its symbols, so that capital is shared equally and sessions are independent units of evidence. Positions are out at
the session's end, where the episode ends. What the gate makes of the numbers is `evaluation`'s."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.errors import OdinError
from odin_core.evaluation.metrics import max_drawdown, sharpe_ratio, total_return
from odin_core.randomness import stream
from odin_core.rl.batch import Batch
from odin_core.rl.choices import DIMENSIONS, LONG, SHORT, Choices
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.tape import Tape

if TYPE_CHECKING:
    from odin_core.execution.costs import CostSchedule
    from odin_core.execution.orders import ExecutionRules

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]

EPISODES: Final = pl.Schema(
    {
        "session": pl.Date(),
        "symbol": pl.String(),
        "reward": pl.Float64(),  # sum over the session's bars
        "net_return": pl.Float64(),  # equity at the session's end / capital − 1, after all costs
        "trades": pl.Int64(),  # entered
        "wins": pl.Int64(),  # trades that earned more than they cost
        "denied": pl.Int64(),  # actions that limits changed
    }
)
SESSIONS: Final = pl.Schema(
    {
        "session": pl.Date(),
        "reward": pl.Float64(),  # means over symbols, from here on
        "net_return": pl.Float64(),
        "random": pl.Float64(),  # net return of random with the same turnover, mean over draws
        "buy_and_hold": pl.Float64(),  # close to close, overnight included, without costs
        "trades": pl.Float64(),
        "random_trades": pl.Float64(),
    }
)
SUMMARY: Final = pl.Schema(
    {
        "who": pl.String(),  # policy, random, flat, buy_and_hold
        "net_return": pl.Float64(),  # mean of a session
        "sharpe": pl.Float64(),  # annualised; NaN where returns never change
        "total_return": pl.Float64(),  # compounded
        "max_drawdown": pl.Float64(),
        "reward": pl.Float64(),  # mean of an episode, from here on; null where it is not known
        "trades": pl.Float64(),
        "hit_rate": pl.Float64(),  # of trades; null where there is none
    }
)
SEEDS: Final = pl.Schema(
    {
        "seed": pl.Int64(),
        "net_return": pl.Float64(),  # mean of a session
        "excess": pl.Float64(),  # of net_return over random
        "t": pl.Float64(),  # the excess over its standard error over sessions; NaN where it never changes
        "sharpe": pl.Float64(),
        "trades": pl.Float64(),
        "hit_rate": pl.Float64(),
        "p_value": pl.Float64(),
    }
)
LEAST_SEEDS: Final = 5


class NothingToEvaluate(OdinError):
    def __init__(self, first: date | None, last: date | None) -> None:
        super().__init__(
            f"no session of the tape from {first or 'its first'} to {last or 'its last'} has a row in which a position "
            f"may be entered, with a bar after it; choose another range"
        )


class TooFewSeeds(OdinError):
    def __init__(self, found: int) -> None:
        super().__init__(f"{found} seed(s) were given; below {LEAST_SEEDS} luck cannot be told from skill")


class Chooser(Protocol):
    """A policy: what it would do, nothing drawn."""

    def choose(self, observations: Float32s, /) -> Choices: ...


class Played(NamedTuple):
    """n episodes, one per symbol and session: (n,) each, and what was asked for at each bar, int8 (bars, n, 4)."""

    start: IntArray  # row of the first decision
    reward: FloatArray
    net_return: FloatArray
    trades: IntArray
    wins: IntArray
    denied: IntArray
    actions: npt.NDArray[np.int8]


class Evaluation(NamedTuple):
    """`episodes`: EPISODES, one row per symbol and session. `sessions`: SESSIONS, one per session; `net_return` is what
    `evaluation.metrics` takes. `summary`: SUMMARY.
    `p_value`: share of draws of random, the policy's own outcome counted with them, that did at least as well."""

    episodes: pl.DataFrame
    sessions: pl.DataFrame
    summary: pl.DataFrame
    p_value: float


class SeedEvaluation(NamedTuple):
    """`seeds`: SEEDS, one row each. `summary`: one row, see `evaluate_seeds`."""

    seeds: pl.DataFrame
    summary: pl.DataFrame


def evaluate(
    policy: Chooser,
    tape: Tape,
    config: EnvironmentConfig,
    *,
    first: date | None = None,
    last: date | None = None,
    rules: "ExecutionRules | None" = None,
    costs: "CostSchedule | None" = None,
    draws: int = 20,
    seed: int = 0,
    periods: float = 252,
) -> Evaluation:
    """The policy on the tape's sessions from `first` to `last` (None: all), at the market's own costs.

    Random is the policy's own decisions dealt anew, `draws` times: each episode's go to another episode and, for half
    of them, long and short are exchanged. So sizes, stops, holding times and turnover are the policy's, but when and
    which way is chance. `seed` is that of the dealing and of the fills' noise. `periods`: sessions a year, for Sharpe.
    Raises NothingToEvaluate, ObservationMismatch."""
    starts = session_starts(tape, first, last)
    arena = _Arena(tape, config, starts, rules, costs, seed)
    mine = arena.play(lambda _, seen: policy.choose(seen).actions())
    dealt = [arena.play(_dealt(mine, seed, draw)) for draw in range(draws)]
    day = tape.session[starts]
    sessions = pl.DataFrame(
        {
            "session": [date.fromordinal(int(d)) for d in np.unique(day)],
            "reward": _by_session(day, mine.reward),
            "net_return": _by_session(day, mine.net_return),
            "random": _mean_of([_by_session(day, one.net_return) for one in dealt], day),
            "buy_and_hold": _by_session(day, buy_and_hold(tape, starts)),
            "trades": _by_session(day, mine.trades),
            "random_trades": _mean_of([_by_session(day, one.trades) for one in dealt], day),
        },
        schema=SESSIONS,
    )
    means = [float(_by_session(day, one.net_return).mean()) for one in dealt]
    as_good = sum(mean >= float(_by_session(day, mine.net_return).mean()) for mean in means)
    summary = pl.DataFrame([
        _summary("policy", sessions["net_return"], periods, mine.trades, mine.wins, mine.reward),
        _summary("random", sessions["random"], periods, *_pooled(dealt)),
        _summary("flat", sessions["net_return"] * 0.0, periods),
        _summary("buy_and_hold", sessions["buy_and_hold"], periods),
    ], schema=SUMMARY)  # fmt: skip
    return Evaluation(_episodes(tape, mine), sessions, summary, (1 + as_good) / (1 + len(means)))


def evaluate_seeds(
    policies: Mapping[int, Chooser],
    tape: Tape,
    config: EnvironmentConfig,
    *,
    first: date | None = None,
    last: date | None = None,
    rules: "ExecutionRules | None" = None,
    costs: "CostSchedule | None" = None,
    draws: int = 20,
    seed: int = 0,
    periods: float = 252,
) -> SeedEvaluation:
    """`evaluate` of policies that differ in their seed alone, by seed, and whether one lucky seed carries them.

    seeds: SEEDS. summary: seeds, their number; mean, std (ddof 1), worst and best of the excess;
    positive, the share of seeds with an excess above 0; without_best, the mean excess of all seeds but the best; and
    lucky: the mean is above 0, but not without the best. Raises TooFewSeeds below LEAST_SEEDS, NothingToEvaluate."""
    if len(policies) < LEAST_SEEDS:
        raise TooFewSeeds(len(policies))
    rows: list[dict[str, Any]] = []
    for number, policy in sorted(policies.items()):
        found = evaluate(policy, tape, config, first=first, last=last, rules=rules, costs=costs, draws=draws, seed=seed,
                         periods=periods)  # fmt: skip
        excess = (found.sessions["net_return"] - found.sessions["random"]).to_numpy()
        mine = found.summary.row(0, named=True)
        rows.append({
            "seed": number, "net_return": mine["net_return"], "excess": float(excess.mean()), "t": _t(excess),
            "sharpe": mine["sharpe"], "trades": mine["trades"], "hit_rate": mine["hit_rate"], "p_value": found.p_value,
        })  # fmt: skip
    table = pl.DataFrame(rows, schema=SEEDS)
    excess = np.sort(table["excess"].to_numpy())
    without = float(excess[:-1].mean())
    summary = pl.DataFrame({
        "seeds": [len(rows)], "mean": [float(excess.mean())], "std": [float(excess.std(ddof=1))],
        "worst": [float(excess[0])], "best": [float(excess[-1])], "positive": [float((excess > 0).mean())],
        "without_best": [without], "lucky": [bool(excess.mean() > 0 >= without)],
    })  # fmt: skip
    return SeedEvaluation(table, summary)


def session_starts(tape: Tape, first: date | None = None, last: date | None = None) -> IntArray:
    """The first decidable row of each symbol's session in the range, where a bar of the session follows; by session,
    then symbol, so that later sessions never move earlier ones. Raises NothingToEvaluate."""
    rows = np.flatnonzero(tape.decidable & (np.arange(tape.rows) < tape.session_end))
    if first is not None:
        rows = rows[tape.session[rows] >= first.toordinal()]
    if last is not None:
        rows = rows[tape.session[rows] <= last.toordinal()]
    if not rows.size:
        raise NothingToEvaluate(first, last)
    _, place = np.unique(tape.session_start[rows], return_index=True)
    starts = rows[place]
    return starts[np.lexsort((tape.symbol[starts], tape.session[starts]))]


def buy_and_hold(tape: Tape, starts: IntArray) -> FloatArray:
    """(n,) simple return of each session of `starts`, from the close before it (its own open, where there is none on
    the tape) to its close; no costs."""
    opening = tape.session_start[starts]
    first = opening == tape.starts[tape.symbol[starts]]
    before = np.where(first, tape.bars.open[opening], tape.bars.close[np.maximum(opening - 1, 0)])
    return tape.bars.close[tape.session_end[starts]] / before - 1.0


class _Arena:
    """The episodes of one evaluation, to be played by any number of players under the same conditions."""

    def __init__(self, tape: Tape, config: EnvironmentConfig, starts: IntArray, rules: "ExecutionRules | None",
                 costs: "CostSchedule | None", seed: int) -> None:  # fmt: skip
        self.tape, self.starts, self.seed, self.rules, self.costs = tape, starts, seed, rules, costs
        self.length = tape.session_end[starts] - starts
        longest = int(self.length.max()) + 1
        self.config = config.without_randomisation().model_copy(update={"episode_bars": longest})

    def play(self, act: Callable[[int, Float32s], IntArray]) -> Played:
        """All episodes side by side; `act` gets the number of the bar and what all see, and gives actions (n, 4)."""
        n, bars = len(self.starts), int(self.length.max())
        batch = Batch(self.tape, self.config, n, rules=self.rules, costs=self.costs, seed=self.seed)
        trades, wins, denied = np.zeros((3, n), np.int64)
        actions = np.zeros((bars, n, len(DIMENSIONS)), np.int8)
        played = Played(self.starts, np.zeros(n), np.zeros(n), trades, wins, denied, actions)
        seen, running = batch.reset(rows=self.starts), np.ones(n, bool)
        for bar in range(bars):
            taken = act(bar, seen)
            actions[bar] = np.where(running[:, None], taken, 0)
            realised = batch.accounts["realised"].copy()
            seen = batch.step(taken, again=True)
            self._note(played, batch, running, realised, bar)
        batch.close()
        return played

    def _note(
        self, played: Played, batch: Batch, running: npt.NDArray[np.bool_], realised: FloatArray, bar: int
    ) -> None:
        """One bar of the episodes that run; those that are over with it run no more."""
        out, capital = batch.out, self.config.capital
        over = out.terminated | out.truncated  # those have begun anew, and their summary holds what was
        equity = np.where(over, out.summary["equity"], batch.accounts["equity"])
        now = np.where(over | (self.length == bar + 1), equity, batch.accounts["realised"])
        played.reward[running] += out.reward[running]
        played.wins[running] += (now > realised)[running]
        ended = running & (over | (self.length == bar + 1))
        played.net_return[ended] = equity[ended] / capital - 1.0
        played.trades[ended] = np.where(over, out.summary["entered"], batch.accounts["entered"])[ended]
        played.denied[ended] = np.where(over, out.summary["denied"], batch.accounts["denied"])[ended]
        running &= ~ended


def _dealt(mine: Played, seed: int, draw: int) -> Callable[[int, Float32s], IntArray]:
    """The decisions of `mine`, each episode's by another, sides exchanged by a coin per episode."""
    rng = stream(seed, date(1970, 1, 1), f"random of the same turnover, draw {draw}")
    actions = mine.actions[:, rng.permutation(len(mine.start))].astype(np.int64)
    exchanged = np.array([0, SHORT, LONG])[actions[:, :, 0]]
    actions[:, :, 0] = np.where(rng.random(len(mine.start)) < 0.5, exchanged, actions[:, :, 0])
    return lambda bar, _: actions[bar]


def _by_session(day: IntArray, values: npt.NDArray[Any]) -> FloatArray:
    """Mean over each session's symbols, sessions ascending."""
    _, place, count = np.unique(day, return_inverse=True, return_counts=True)
    return np.bincount(place, weights=values) / count


def _mean_of(tables: Sequence[FloatArray], day: IntArray) -> FloatArray:
    return np.mean(tables, axis=0) if tables else np.full(len(np.unique(day)), np.nan)


def _pooled(dealt: Sequence[Played]) -> tuple[IntArray | None, IntArray | None, FloatArray | None]:
    """(trades, wins, reward) of all draws, one after the other; None for no draws."""
    if not dealt:
        return None, None, None
    join = np.concatenate
    return join([one.trades for one in dealt]), join([one.wins for one in dealt]), join([one.reward for one in dealt])


def _episodes(tape: Tape, played: Played) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "session": [date.fromordinal(int(d)) for d in tape.session[played.start]],
            "symbol": [tape.symbols[i] for i in tape.symbol[played.start]],
            "reward": played.reward,
            "net_return": played.net_return,
            "trades": played.trades,
            "wins": played.wins,
            "denied": played.denied,
        },
        schema=EPISODES,
    )


def _summary(
    name: str,
    returns: pl.Series,
    periods: float,
    trades: IntArray | None = None,
    wins: IntArray | None = None,
    reward: FloatArray | None = None,
) -> dict[str, Any]:
    """A row of SUMMARY."""
    values = returns.to_numpy().astype(np.float64)
    entered = 0 if trades is None else int(trades.sum())
    return {
        "who": name,
        "net_return": float(values.mean()),
        "sharpe": float(sharpe_ratio(values, periods)),
        "total_return": float(total_return(values)),
        "max_drawdown": float(max_drawdown(values)),
        "reward": None if reward is None else float(reward.mean()),
        "trades": None if trades is None else float(trades.mean()),
        "hit_rate": None if wins is None or not entered else float(wins.sum()) / entered,
    }


def _t(values: FloatArray) -> float:
    """Mean over its standard error (ddof 1); NaN for fewer than two values or no spread."""
    if values.size < 2 or np.ptp(values) == 0:
        return float("nan")
    return float(values.mean() / (values.std(ddof=1) / np.sqrt(values.size)))
