"""The examination of a stored model: is what it earned out of sample robust, or did it hang on luck and circumstances?

Given a life, its data and a version, `examine` makes the model's choices again on the sessions after its training and
fills them again with dearer costs, later entries and shocked bars (`refilling`), looks at what it did in the market's
worst windows (`evaluation.robustness`), and asks its learner the questions of `evaluation.sensitivity` on the window it
was trained on. Candidate and random stand on the same footing everywhere. Each answer is a `Finding` with its number
and threshold; nothing is promoted here. `examination_page` makes it readable."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.evaluation import robustness, sensitivity
from odin_core.evaluation.robustness import Finding, excess_over, findings_table, kept, returns_in
from odin_core.lifecycle import entitlements
from odin_core.lifecycle.examination_findings import DEFAULT, ExaminationConfig, findings
from odin_core.lifecycle.horizons import reach
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.refilling import (
    AS_IT_WAS,
    Choice,
    Footing,
    Refill,
    Refiller,
    choices,
    crashed,
    dark,
    dearer,
    dried_up,
    gapped,
    later,
    learned_from,
)
from odin_core.lifecycle.state import CLOSES
from odin_core.market.data import MarketData
from odin_core.policies.actions import FLAT, SHAPE, FloatArray, IntArray, known_mean
from odin_core.policies.joint import walk_forward

Progress = Callable[[int, int, str], None]

BY_SESSION = pl.Schema(
    {
        "footing": pl.String(),
        "session": pl.Date(),  # of the decision
        "trades": pl.Int64(),  # of the model, with their outcome known
        "reward": pl.Float64(),  # their mean, units of risk (60-minute ATR); null without any
        "random": pl.Float64(),  # mean reward over all contexts and actions on the same bars
        "capital_return": pl.Float64(),  # Σ size · net return, fraction of capital
    }
)


class NothingToExamine(OdinError):
    def __init__(self, life: Life, version: str, through: date, sessions: int, needed: int) -> None:
        super().__init__(
            f"{version} was trained through {through}, and life {life.id} has {sessions} finished sessions with a plan "
            f"after it (head {life.head}); an examination needs {needed}. Run the life on, or examine an older version"
        )


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found. `tables` has by_session (BY_SESSION), footings, costs, stress, horizons, seeds, parameters,
    families and heads; each is described where it is made."""

    life: str
    market: str
    version: str
    trained_through: date
    first: date  # of the sessions examined
    last: date
    config: ExaminationConfig
    findings: tuple[Finding, ...]
    tables: dict[str, pl.DataFrame]
    stuck: int  # trades that never got out, as it was
    break_even: float  # multiple of the costs at which nothing is left

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    @property
    def sessions(self) -> int:
        """Sessions with bars on which the model and random were compared."""
        return self.tables["by_session"].filter(footing=AS_IT_WAS.name)["random"].count()

    def frame(self) -> pl.DataFrame:
        """One row per finding: name, value, needed, passed, explanation."""
        return findings_table(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows by session, for JSON."""
        shown = {name: table.to_dicts() for name, table in self.tables.items() if name != "by_session"}
        return {
            "life": self.life, "market": self.market, "version": self.version, "passed": self.passed,
            "trained_through": self.trained_through, "first_session": self.first, "last_session": self.last,
            "sessions": self.sessions, "stuck": self.stuck, "break_even": self.break_even,
            "findings": self.frame().to_dicts(), **shown,
        }  # fmt: skip


def footings(config: ExaminationConfig, minutes: int) -> tuple[Footing, ...]:
    """Every footing that the configuration asks for; a session has `minutes` of trading."""
    after = config.shock_after
    slide = (after, config.crash_minutes, config.crash_recovery)
    return (
        AS_IT_WAS,
        *(dearer(multiple) for multiple in config.cost_multiples),
        *(later(bars) for bars in config.later_bars),
        gapped("gap_down", -config.gap, after),
        gapped("gap_up", config.gap, after),
        crashed("crash", -config.crash, *slide),
        crashed("squeeze", config.crash, *slide),
        dried_up("drought", config.drought, minutes),
        dark("outage", after, config.outage_minutes),
    )


def examine(
    life: Life,
    data: MarketData,
    version: str,
    *,
    config: ExaminationConfig = DEFAULT,
    seeds: int | None = None,
    progress: Progress | None = None,
) -> Examination:
    """Examine a stored model of a life on all finished sessions after its training. Same life and configuration, same
    answer; nothing is written but labels that the lake lacks. `progress(done, total, at)` is called between steps.
    About 25 ms per session and footing, and 0.3 s per seed, parameter and family of features.

    Raises NothingToExamine with too few sessions after the training, NoSuchModel, ModelCorrupt."""
    config = config if seeds is None else replace(config, seeds=seeds)
    model = life.registry.model(version)
    sessions = [s for s in life.commits() if s > model.trained_through]
    minutes = data.calendar.minutes(sessions[-1]) if sessions else 0
    asked = footings(config, minutes)
    steps = _Steps(progress, len(sessions) + 5)
    made = tuple(choices(life, data, model, sessions))
    filled = _refilled(Refiller(life, data, asked), made, steps)
    if filled.sessions < config.min_sessions:
        raise NothingToExamine(life, version, model.trained_through, filled.sessions, config.min_sessions)
    window, learner, seed = learned_from(life, data, model.trained_through), life.config.learner, life.config.seed
    tables = filled.tables(config)
    said = {"footing": [footing.name for footing in asked], "says": [footing.says for footing in asked]}
    tables["footings"] = tables["footings"].join(pl.DataFrame(said), on="footing", how="left", maintain_order="left")
    tables["stress"] = _stress(life, data, sessions, tables["by_session"], config, steps)
    reached = reach(data, made, sessions, data.profile.ic_alarm)
    tables["horizons"] = reached.table
    steps.done("horizons")
    spread = tuple(range(seed, seed + config.seeds))
    tables["seeds"] = steps.after("seeds", lambda: sensitivity.seed_spread(window, learner, spread))
    tables["parameters"] = steps.after("parameters", lambda: sensitivity.parameter_sensitivity(window, learner, seed))
    tables["families"] = steps.after("families", lambda: sensitivity.feature_ablation(window, learner, seed))
    learned = sensitivity.head_ablation(walk_forward(window, learner, seed)).with_columns(of=pl.lit("walk-forward"))
    tables["heads"] = pl.concat([filled.heads(), learned.select("of", "head", "excess", "lost_excess")])
    return Examination(
        life=life.id, market=life.market, version=version, trained_through=model.trained_through,
        first=sessions[0], last=sessions[-1], config=config, findings=tuple(findings(tables, config, reached.alarm)),
        tables=tables, stuck=filled.stuck, break_even=filled.break_even,
    )  # fmt: skip


class _Steps:
    """Counts steps and tells `progress`."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def done(self, at: str) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total, at)

    def after(self, at: str, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        made = make()
        self.done(at)
        return made


class _Filled(NamedTuple):
    """Everything that the refills gave."""

    trades: pl.DataFrame  # footing, and of the replay rows the columns of _TRADE
    random: pl.DataFrame  # footing, session, random
    without: pl.DataFrame  # head, session, reward without it, reward with it, random: as it was
    stuck: int

    @property
    def sessions(self) -> int:
        """With bars."""
        return self.random.filter(footing=AS_IT_WAS.name)["random"].count()

    @property
    def break_even(self) -> float:
        mine = self.trades.filter(footing=AS_IT_WAS.name)
        return sensitivity.break_even(_floats(mine, "gross_return"), _floats(mine, "cost"))

    def tables(self, config: ExaminationConfig) -> dict[str, pl.DataFrame]:
        by_session = self._by_session()
        mine = self.trades.filter(footing=AS_IT_WAS.name)
        unit = _floats(mine, "risk_unit")
        costs = sensitivity.cost_sensitivity(
            _floats(mine, "gross_return") / unit, _floats(mine, "cost") / unit, mine["session"].to_numpy()
        )
        return {"by_session": by_session, "footings": _footings(by_session, config.alpha), "costs": costs}

    def _by_session(self) -> pl.DataFrame:
        mine = self.trades.filter("complete").group_by("footing", "session").agg(
            trades=pl.len().cast(pl.Int64),
            reward=pl.col("reward").mean(),
            capital_return=(pl.col("size") * pl.col("net_return")).sum(),
        )  # fmt: skip
        joined = self.random.join(mine, on=["footing", "session"], how="left", maintain_order="left")
        full = joined.with_columns(pl.col("trades").fill_null(0), pl.col("capital_return").fill_null(0.0))
        return full.select(BY_SESSION.names()).cast(BY_SESSION)

    def heads(self) -> pl.DataFrame:
        """What the trained policy's heads add to its trades as they were, mean over sessions: of, head, excess over
        random without it, lost_excess."""
        table = self.without.group_by("head", maintain_order=True).agg(
            excess=(pl.col("without") - pl.col("random")).mean(),
            lost_excess=(pl.col("with") - pl.col("without")).mean(),
        )
        return table.select(pl.lit("out of sample").alias("of"), "head", "excess", "lost_excess")


def _refilled(refiller: Refiller, made: Iterable[Choice], steps: _Steps) -> _Filled:
    trades, random, without = [], [], []
    for choice in made:
        for footing, refill in refiller.refill(choice):
            name = pl.lit(footing.name).alias("footing")
            trades.append(refill.trades.select(name, *_TRADE))
            random.append({"footing": footing.name, "session": choice.session, "random": refill.random})
            if footing is AS_IT_WAS:
                without += _without_heads(choice, refill)
        steps.done(str(choice.session))
    empty = pl.DataFrame(schema={"footing": pl.String, **_TRADE})
    numbers = dict.fromkeys(("with", "without", "random"), pl.Float64)
    return _Filled(
        pl.concat([empty, *trades]),
        pl.DataFrame(random, schema={"footing": pl.String, "session": pl.Date, "random": pl.Float64}).fill_nan(None),
        pl.DataFrame(without, schema={"head": pl.String, **numbers}).fill_nan(None),
        refiller.stuck(AS_IT_WAS.name),
    )


_TRADE = {
    "session": pl.Date, "size": pl.Float64, "gross_return": pl.Float64, "cost": pl.Float64, "net_return": pl.Float64,
    "reward": pl.Float64, "risk_unit": pl.Float64, "complete": pl.Boolean,
}  # fmt: skip


def _without_heads(choice: Choice, refill: Refill) -> Iterator[dict[str, Any]]:
    """Mean reward of the session's trades with one head's word replaced by what chance or no choice would say."""
    taken = np.flatnonzero((choice.plan["status"] == "taken").to_numpy())
    action = choice.proposals.lean
    grid = refill.reward.reshape(-1, *SHAPE)
    side, size, stop, target = np.unravel_index(action, SHAPE)
    every, wanted = np.arange(len(action)), np.flatnonzero(choice.proposals.action != FLAT)
    exits = (size, stop, target)
    whole = _mean_at(grid, taken, side, *exits)
    weight, mine = choice.plan["size"].to_numpy()[taken], refill.reward[taken, action[taken]]
    known = np.isfinite(mine)
    weighted = float(np.average(mine[known], weights=weight[known])) if known.any() else whole
    without = {
        "direction": ((whole + _mean_at(grid, taken, 1 - side, *exits)) / 2, whole),
        "enter": (_mean_at(grid, every, side, *exits), whole),
        "exit": (_mean_at(grid, taken, side, size), whole),
        "size": (whole, weighted),
        "confidence": (_mean_at(grid, wanted, side, *exits), whole),
    }
    for head, (left, having) in without.items():
        yield {"head": head, "with": having, "without": left, "random": refill.random}


def _mean_at(grid: FloatArray, rows: IntArray, *axes: IntArray) -> float:
    """Mean reward of `grid` (n, side, size, stop, target) at `rows`, each at its own place on the first `axes` (n,)."""
    found = grid[(rows, *(axis[rows] for axis in axes))]
    return float(known_mean(found, tuple(range(found.ndim))))


def _footings(by_session: pl.DataFrame, alpha: float) -> pl.DataFrame:
    """One row per footing, in the order asked: sessions, trades, reward and random (means over sessions), excess with
    its interval, worst session in fractions of capital, and the share of the first footing's excess that is kept;
    `examine` adds what the footing is, in words."""
    rows: list[dict[str, Any]] = []
    for (name,), of in by_session.group_by("footing", maintain_order=True):
        found = excess_over(_floats(of, "reward"), _floats(of, "random"), alpha)
        base = rows[0]["excess"] if rows else found.mean
        rows.append({
            "footing": name, "sessions": found.sessions, "trades": of["trades"].sum(), "reward": of["reward"].mean(),
            "random": of["random"].mean(), "excess": found.mean, "lower": found.lower, "upper": found.upper,
            "worst_session": of["capital_return"].min(), "kept": kept(found.mean, base),
        })  # fmt: skip
    numbers = ("reward", "random", "excess", "lower", "upper", "worst_session", "kept")
    schema = {"footing": pl.String, "sessions": pl.Int64, "trades": pl.Int64, **dict.fromkeys(numbers, pl.Float64)}
    return pl.DataFrame(rows, schema=schema)


def _stress(
    life: Life, data: MarketData, sessions: list[date], by_session: pl.DataFrame, config: ExaminationConfig,
    steps: _Steps,
) -> pl.DataFrame:  # fmt: skip
    """The market's worst windows among the sessions examined, with what the model and random earned in them."""
    facts = pl.DataFrame([market_facts(life, data, s) for s in sessions], schema=robustness.FACTS)
    windows = robustness.stress_windows(facts, length=config.window_sessions, count=config.windows)
    mine = by_session.filter(footing=AS_IT_WAS.name).select("session", value="reward", baseline="random")
    steps.done("stress windows")
    return returns_in(windows, mine)


def market_facts(life: Life, data: MarketData, session: date) -> dict[str, Any]:
    """`robustness.session_facts` of a session, closes before it on the session's own scale."""
    before = data.decision_rows(data.calendar.previous(session))
    closes = before.select(CLOSES.names()) if before.height else CLOSES.to_frame()
    restated = entitlements.restated(closes, data.actions.taking_effect(session))
    return robustness.session_facts(session, data.bars(session), restated)


def _floats(frame: pl.DataFrame, column: str) -> FloatArray:
    """Null becomes NaN."""
    return frame[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
