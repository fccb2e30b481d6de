"""Everything a life may be told, with its default. The configuration is part of a life's identity, so two lives that
differ in one number here never share a table. Numbers of a market (costs, hours, ticks) are in its profile."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from odin_core.errors import OdinError, nearest
from odin_core.market.reference.figures import parse_rules


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which symbols may be decided on, judged at the close before the session. Thresholds halve per widening step."""

    min_bars_share: float = 0.6  # of the session's 5-minute bars
    min_traded_value: float = 5e6  # median daily value of the last days, in the market's currency
    min_volatility: float = 0.004  # realised volatility of the session, fraction
    min_symbols: int = 5  # fewer than this counts as too narrow
    adaptive: bool = True  # widen by itself while too narrow
    max_widening: int = 3
    fundamentals: str = ""  # rules over figures known at the close, e.g. "pe <= 60, roe_pct >= 5"; never widened

    def __post_init__(self) -> None:
        parse_rules(self.fundamentals)


@dataclass(frozen=True, kw_only=True)
class ExplorationConfig:
    take_probability: float = 0.35  # that a random proposal is taken rather than skipped
    epsilon_rules: float = 0.2  # share of random proposals in phase 1
    epsilon_start: float = 0.2  # phase 2, before any evidence
    epsilon_floor: float = 0.05  # phase 3, and the least in phase 2
    epsilon_half_life: int = 1000  # replay rows of phase 2 after which the excess over the floor has halved
    novelty_gain: float = 0.15  # added to ε in phase 2, times how rarely the current regime was seen
    volatility_damping: float = 0.25  # share by which ε falls in the regime of high volatility and rises in the low one
    random_portfolios: int = 20  # random portfolios of the same turnover, drawn each session as the baseline


@dataclass(frozen=True, kw_only=True)
class GuardrailConfig:
    max_trades: int = 20  # entries per session
    max_exposure: float = 0.15  # sum of |notional| of planned entries and open positions over capital
    max_drawdown: float = 0.05  # of capital, from the peak; entries halt
    halt_sessions: int = 5  # length of that halt; afterwards the peak is set anew


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    lookback_sessions: int = 126  # six months, rolling; expanding until then
    min_contexts: int = 500
    min_sessions: int = 20
    trees: int = 60
    leaves: int = 15
    min_leaf: int = 40
    learning_rate: float = 0.05
    threads: int = 1
    walk_forward_folds: int = 3
    purge_sessions: int = 1


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """Every number a phase gate uses; `odin_core.lifecycle.phases` applies them."""

    executed_trades: int = 200  # 0 → 1: executed trades with complete outcomes
    confidence: float = 0.05  # one-sided error of the absolute criteria
    candidates: int = 3  # 1 → 2: the last k candidates …
    rank_agreement: float = 0.5  # … rank the same contexts alike (median Spearman)
    min_sessions: int = 10  # sessions after the champion's training window before its mean is judged
    replay_rows: int = 1000  # 2 → 3
    regime_share: float = 0.10  # every regime of at least this share of sessions must be covered …
    regime_rows: int = 50  # … by this many rows
    deflated_sharpe: float = 0.95  # 2 → 3, portfolio evidence since phase 2 began
    max_drawdown: float = 0.03
    demotion_sessions: int = 20  # a champion surely worse than random over this many sessions is demoted


@dataclass(frozen=True, kw_only=True)
class PromotionConfig:
    """What a candidate must show; `odin_core.evaluation.gate` judges."""

    alpha: float = 0.05  # error of a whole life: all weekly looks, candidates and incumbents
    min_sessions: int = 15
    min_decisions: int = 100
    sharpe_margin: float = 0.0  # Sharpe ratio per session over the incumbent's
    drawdown_tolerance: float = 2.0  # of summed mean rewards, beyond the incumbent's
    hit_rate_margin: float = 0.0  # share of won decisions over random's
    precision_margin: float = 0.0  # share won among the most confident contexts over all
    max_calibration_error: float = 0.15  # expected calibration error of its confidence
    min_deflated_sharpe: float = 0.5  # of rewards by session, every candidate so far a trial
    seeds: int = 5  # of the learner, on the same window
    seeds_min_share: float = 0.8  # of them beat random in the walk-forward
    level: str = "simulation"  # or money: robustness and the leak wall are asked too, and min_deflated_sharpe is 0.95


@dataclass(frozen=True, kw_only=True)
class DriftConfig:
    """When the champion's market is not the one that it learned from; `odin_core.monitoring.reference` measures."""

    window_sessions: int = 20  # that are compared with the champion's training
    alarms: int = 2  # in a row: new entries halt, a retrain is called for
    cooldown_sessions: int = 10  # between two retrains for drift
    demote_after: int = 20  # alarms in a row


@dataclass(frozen=True, kw_only=True)
class LifeConfig:
    """A life's configuration. `edge` concerns synthetic markets only; `live` marks the life of the daily schedule."""

    seed: int = 7
    edge: float = 0.5
    live: bool = False
    learners: tuple[str, ...] = ("joint",)  # trained inside the fold
    filter: FilterConfig = field(default_factory=FilterConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    guardrails: GuardrailConfig = field(default_factory=GuardrailConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    phases: PhaseConfig = field(default_factory=PhaseConfig)
    promotion: PromotionConfig = field(default_factory=PromotionConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)

    def __post_init__(self) -> None:
        for name, value in settings(self).items():
            if name in BOUNDS and not BOUNDS[name][0] <= value <= BOUNDS[name][1]:
                raise OutOfBounds(name, value, *BOUNDS[name])
        unknown = set(self.learners) - set(LEARNERS)
        if unknown or not self.learners:
            raise OdinError(f"learners={list(self.learners)}: name at least one of {', '.join(LEARNERS)}, and no other")
        if self.promotion.level not in LEVELS:
            raise OdinError(f"promotion.level={self.promotion.level}: it is {' or '.join(LEVELS)}")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


LEARNERS: Final = ("joint",)
LEVELS: Final = ("simulation", "money")
MANY, TINY = 1_000_000, 1e-6
BOUNDS: Final[dict[str, tuple[float, float]]] = {  # both ends allowed; outside, a formula or a learner has no meaning
    "seed": (0, 2**63 - 1), "edge": (0, 1),
    "filter.min_bars_share": (0, 1), "filter.min_traded_value": (0, 1e18), "filter.min_volatility": (0, 10),
    "filter.min_symbols": (0, MANY), "filter.max_widening": (0, 50),
    "exploration.take_probability": (0, 1), "exploration.epsilon_rules": (0, 1), "exploration.epsilon_start": (0, 1),
    "exploration.epsilon_floor": (0, 1), "exploration.epsilon_half_life": (1, 1e12), "exploration.novelty_gain": (0, 1),
    "exploration.volatility_damping": (0, 1),
    "exploration.random_portfolios": (1, 10_000),
    "guardrails.max_trades": (0, MANY), "guardrails.max_exposure": (0, 100), "guardrails.max_drawdown": (TINY, 100),
    "guardrails.halt_sessions": (1, MANY),
    "learner.lookback_sessions": (1, MANY), "learner.min_contexts": (2, 1e12), "learner.min_sessions": (2, MANY),
    "learner.trees": (1, 100_000), "learner.leaves": (2, 131_072), "learner.min_leaf": (1, 1e9),
    "learner.learning_rate": (TINY, 1), "learner.threads": (1, 1024), "learner.walk_forward_folds": (1, 100),
    "learner.purge_sessions": (0, MANY),
    "phases.executed_trades": (0, 1e12), "phases.confidence": (TINY, 1 - TINY), "phases.candidates": (2, 100),
    "phases.rank_agreement": (-1, 1), "phases.min_sessions": (3, MANY), "phases.replay_rows": (0, 1e12),
    "phases.regime_share": (0, 1), "phases.regime_rows": (0, 1e12), "phases.deflated_sharpe": (0, 1),
    "phases.max_drawdown": (0, 100), "phases.demotion_sessions": (10, MANY),
    "promotion.alpha": (TINY, 1 - TINY), "promotion.min_sessions": (10, MANY), "promotion.min_decisions": (0, 1e12),
    "promotion.sharpe_margin": (-100, 100), "promotion.drawdown_tolerance": (0, 1e9),
    "promotion.hit_rate_margin": (-1, 1), "promotion.precision_margin": (-1, 1),
    "promotion.max_calibration_error": (0, 1), "promotion.min_deflated_sharpe": (0, 1),
    "promotion.seeds": (0, 1000), "promotion.seeds_min_share": (0, 1),
    "drift.window_sessions": (2, MANY), "drift.alarms": (1, MANY), "drift.cooldown_sessions": (0, MANY),
    "drift.demote_after": (1, MANY),
}  # fmt: skip


class UnknownSetting(OdinError):
    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"there is no setting {name!r}, see `odin life settings`; {nearest(name, known)}")


class OutOfBounds(OdinError):
    def __init__(self, name: str, value: object, low: float, high: float) -> None:
        super().__init__(f"{name}={value} is out of bounds; it may be {low:g} to {high:g}")


class NotASetting(OdinError):
    def __init__(self, name: str, text: str, kind: type, default: object) -> None:
        super().__init__(f"{name}={text}: expected {KINDS.get(kind, kind.__name__)}, like the default {default!r}")


KINDS = {
    int: "a whole number", float: "a number", bool: "true or false", tuple: "a list such as [joint]", str: "text",
}  # fmt: skip


def settings(config: LifeConfig | None = None) -> dict[str, Any]:
    """All settings by dotted name, e.g. `filter.adaptive`."""
    flat: dict[str, Any] = {}
    for name, value in (config or LifeConfig()).to_dict().items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            flat[name] = value
    return flat


def with_settings(config: LifeConfig, assignments: Iterable[str]) -> LifeConfig:
    """The configuration with `name=value` applied, value written as YAML.
    Raises UnknownSetting, NotASetting, OutOfBounds."""
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        known = settings(config)
        if not equals or name not in known:
            raise UnknownSetting(name, known)
        kind = type(known[name])
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise NotASetting(name, text, kind, known[name]) from error
        if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
            value = _number(value)
        if kind is tuple and isinstance(value, list):
            value = tuple(value)
        if kind is str and value is None:
            value = ""
        if type(value) is not kind:
            raise NotASetting(name, text, kind, known[name])
        section, _, inner = name.rpartition(".")
        if section:
            config = dataclasses.replace(
                config, **{section: dataclasses.replace(getattr(config, section), **{inner: value})}
            )
        else:
            config = dataclasses.replace(config, **{inner: value})
    return config


def _number(value: int | str) -> float | int | str:
    """A float where the value is a number; YAML 1.1 takes 5e-2, which has no point, for a word."""
    try:
        return float(value)
    except ValueError:
        return value


def configured(*, seed: int | None, edge: float | None, assignments: Iterable[str] = ()) -> LifeConfig:
    """The default configuration with what a command was told; None keeps the default."""
    told = {name: value for name, value in (("seed", seed), ("edge", edge)) if value is not None}
    return with_settings(dataclasses.replace(LifeConfig(), **told), assignments)


def from_dict(data: dict[str, Any]) -> LifeConfig:
    """The inverse of `LifeConfig.to_dict` after a trip through JSON."""
    sections = {
        f.name: f.default_factory
        for f in dataclasses.fields(LifeConfig)
        if f.default_factory is not dataclasses.MISSING
    }
    known = {k: v for k, v in data.items() if k not in sections} | {
        name: type(make())(**data[name]) for name, make in sections.items() if name in data
    }
    known["learners"] = tuple(known["learners"])
    return LifeConfig(**known)


def identity(*parts: object) -> str:
    """Twelve hex digits that name a content."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]
