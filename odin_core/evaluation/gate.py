"""The gate: evidence in, verdict out. Only a candidate that meets every criterion is promoted; a refusal has numbers.

All bounds of a verdict share one error, alpha_total·2⁻ʲ for the life's j-th hypothesis (each new incumbent starts one).
As all must hold, promoting where one should not has at most that chance, over all weekly looks together. Bounds are
made in `sequential`, rewards in the replay buffer; who is trained and what a promotion does is decided elsewhere.
Reports are text made from a verdict, the same bytes for the same verdict."""

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from odin_core.evaluation.metrics import FloatArray, max_drawdown
from odin_core.evaluation.sequential import lower_confidence_sequence, sessions_to_detection, spend, tightest_rho

Outcome = Literal["promoted", "refused", "insufficient"]
Relation = Literal[">", ">=", "<="]
SESSION_COLUMNS = ("session", "decisions", "candidate", "random", "rules", "incumbent", "ic")
FOLD_COLUMNS = ("fold", "decisions", "candidate", "random")
REWARD = "reward per decision"
SIGNS: dict[Relation, str] = {">": ">", ">=": "≥", "<=": "≤"}


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    alpha_total: float = 0.05  # error of a whole life
    min_sessions: int = 15  # out of sample, in which the candidate decided
    min_decisions: int = 100
    walk_forward_min_excess: float = 0.0  # over random, mean reward per decision of a fold
    walk_forward_min_share: float = 0.6  # of the folds: two of three
    ic_floor: float = 0.0
    ic_ceiling: float = 0.1  # mean daily IC above which a leak is suspected; a market's profile may raise it
    tightest_at: int = 60  # sessions at which the bounds are tightest
    burn_in: int = 10  # sessions before the first bound

    def __post_init__(self) -> None:
        if not 0 < self.alpha_total < 1:
            raise ValueError(f"alpha_total={self.alpha_total}: an error rate lies between 0 and 1")
        if self.min_sessions < self.burn_in:
            raise ValueError(f"min_sessions={self.min_sessions}: no bound exists before burn_in={self.burn_in}")
        if self.ic_ceiling <= self.ic_floor:
            raise ValueError(f"ic_ceiling={self.ic_ceiling} leaves nothing above ic_floor={self.ic_floor}")


DEFAULT = GateConfig()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a candidate out of sample. Rewards are net of costs, fractions; NaN is read as null.

    `sessions`, one row per session, any order: `session` (date), `decisions` (chosen by the candidate), mean rewards of
    the decisions chosen that session, each by the version in force *before* it, and `ic`, the session's rank
    correlation of forecast and outcome (null when undefined). A null reward means: `candidate` chose nothing, which is
    no evidence, the row is left out; `random`, the row is left out of that comparison; `rules` chose nothing, which
    earns 0; `incumbent`, there was none, left out of that comparison (one that chose nothing earned 0.0, not null).
    `walk_forward`, one row per purged fold: `fold`, `decisions`, and mean rewards `candidate`, `random`."""

    candidate: str
    hypothesis: int  # j = 1, 2, …: the incumbents this life has had, plus one
    sessions: pl.DataFrame
    walk_forward: pl.DataFrame
    incumbent: str | None = None
    mean_cost: float | None = None  # per decision, already inside the rewards

    def __post_init__(self) -> None:
        for name, columns in (("sessions", SESSION_COLUMNS), ("walk_forward", FOLD_COLUMNS)):
            frame: pl.DataFrame = getattr(self, name)
            missing = [c for c in columns if c not in frame.columns]
            if missing:
                raise ValueError(f"{name} lacks {', '.join(missing)}; it needs {', '.join(columns)}")
            if frame[columns[0]].is_duplicated().any():
                raise ValueError(f"{name} has one {columns[0]} twice; one row per {columns[0]}")


@dataclass(frozen=True, kw_only=True)
class Criterion:
    name: str
    value: float | None  # None: cannot be computed yet
    relation: Relation = ">"
    threshold: float = 0.0
    unit: str = REWARD
    explanation: str
    amount: bool = False  # asks how much evidence there is, not what it says

    @property
    def passed(self) -> bool:
        if self.value is None:
            return False
        if self.relation == ">":
            return self.value > self.threshold
        return self.value >= self.threshold if self.relation == ">=" else self.value <= self.threshold

    @property
    def distance(self) -> float | None:
        """How far the value lies beyond the threshold's wrong side, in its unit; 0 if passed, None without a value."""
        if self.value is None:
            return None
        return 0.0 if self.passed else abs(self.value - self.threshold)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed, "distance": self.distance}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    candidate: str
    incumbent: str | None
    hypothesis: int
    alpha: float  # spent on this hypothesis
    criteria: tuple[Criterion, ...]
    facts: Mapping[str, float | str | None]

    @property
    def failed(self) -> tuple[Criterion, ...]:
        return tuple(c for c in self.criteria if not c.passed)

    @property
    def outcome(self) -> Outcome:
        """`insufficient`: an amount is too small or a number cannot be computed yet. `refused`: the numbers say no."""
        if not self.failed:
            return "promoted"
        return "insufficient" if any(c.amount or c.value is None for c in self.failed) else "refused"

    @property
    def reason(self) -> str:
        """One line for a ledger: the unmet criteria with value and threshold."""
        if not self.failed:
            return f"all {len(self.criteria)} criteria met at error {_number(self.alpha)}"
        return "; ".join(f"{c.name} {_number(c.value)}, needs {_needs(c)}" for c in self.failed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; no NaN, no infinity."""
        return {
            "candidate": self.candidate,
            "incumbent": self.incumbent,
            "hypothesis": self.hypothesis,
            "alpha": self.alpha,
            "outcome": self.outcome,
            "reason": self.reason,
            "criteria": [c.to_dict() for c in self.criteria],
            "facts": dict(self.facts),
        }


def judge(evidence: Evidence, config: GateConfig = DEFAULT) -> Verdict:
    """The verdict on one candidate at one look. Pure, and looking again costs nothing.

    Above 0 must be: the lower confidence bounds of candidate − random, of candidate − rules and, where there is an
    incumbent, of candidate − incumbent, so that a tie keeps it; and the candidate's own mean, costs included. Profit is
    asked of the mean only: a champion in simulation has to be better than random and rules; money asks for more.

    Measured at hypothesis 1 (error 0.025), looks every fifth session from 15 to 120, Student t noise of 4 degrees. Of
    2,000 lives as good as random in a market where everything earns, and far better than the rules, 1.3 % were
    promoted; as good as both, 0.7 % of 600. With a true effect of d standard deviations a session over each,
    independently: promoted by session 120 (median session) 45 % at d = 0.3, 93 % (65) at 0.45, 99.5 % (35) at 0.6,
    200 lives each.
    A part is repeated in tests/evaluation/test_gate.py."""
    alpha = spend(config.alpha_total, evidence.hypothesis)
    frame = evidence.sessions.sort("session")
    reward = {name: _floats(frame, name) for name in ("candidate", "random", "rules", "incumbent")}
    candidate, rules, ic = reward["candidate"], np.nan_to_num(reward["rules"]), _floats(frame, "ic")
    criteria = [
        *_amounts(frame, candidate, config),
        _bound("beats_random", candidate - reward["random"], alpha, config, "candidate − random"),
        _bound("beats_rules", candidate - rules, alpha, config, "candidate − rules"),
        _mean("profitable", candidate, "candidate after costs"),
    ]
    if evidence.incumbent is not None:
        difference = candidate - reward["incumbent"]
        criteria.append(_bound("beats_incumbent", difference, alpha, config, "candidate − incumbent"))
    criteria += [_walk_forward(evidence.walk_forward, config), *_ranking(ic, config)]
    return Verdict(
        candidate=evidence.candidate,
        incumbent=evidence.incumbent,
        hypothesis=evidence.hypothesis,
        alpha=alpha,
        criteria=tuple(criteria),
        facts=_facts(frame, reward, evidence.mean_cost),
    )


def meets_absolute(sessions: pl.DataFrame, alpha: float, config: GateConfig = DEFAULT) -> Criterion:
    """A phase's absolute criterion: the lower confidence bound of candidate − random above 0 at error `alpha`.
    `sessions` as in `Evidence` (`session`, `candidate`, `random` are read), those after the champion's training window.
    """
    frame = sessions.sort("session")
    difference = _floats(frame, "candidate") - _floats(frame, "random")
    return _bound("absolute", difference, alpha, config, "champion − random since its training window")


def _amounts(frame: pl.DataFrame, candidate: FloatArray, config: GateConfig) -> list[Criterion]:
    decided = ~np.isnan(candidate)
    return [
        Criterion(
            name="enough_sessions",
            value=float(np.count_nonzero(decided)),
            relation=">=",
            threshold=float(config.min_sessions),
            unit="sessions",
            explanation="out-of-sample sessions in which the candidate decided",
            amount=True,
        ),
        Criterion(
            name="enough_decisions",
            value=float(np.nansum(_floats(frame, "decisions")[decided])),
            relation=">=",
            threshold=float(config.min_decisions),
            unit="decisions",
            explanation="out-of-sample decisions chosen by the candidate, with their outcomes",
            amount=True,
        ),
    ]


def _bound(name: str, difference: FloatArray, alpha: float, config: GateConfig, what: str) -> Criterion:
    seen = difference[~np.isnan(difference)]
    rho = tightest_rho(alpha, config.tightest_at)
    bounds = lower_confidence_sequence(seen, alpha, rho, burn_in=config.burn_in)
    said = f"lower bound of {what}, valid at every look at error {_number(alpha)}; {seen.size} sessions"
    mean, bound = _average(difference), float(bounds[-1]) if seen.size else -math.inf
    if mean is None or math.isinf(bound):
        tie = mean if mean is not None and mean <= 0 and seen.size >= config.burn_in else None
        return Criterion(name=name, value=tie, explanation=f"{said}, at least {config.burn_in} that differ are needed")
    effect = mean / float(seen.std(ddof=1))
    said += f", mean {_number(mean)}, {_number(effect)} standard deviations"
    if bound <= 0 < mean and (needed := sessions_to_detection(effect, alpha, rho, burn_in=config.burn_in)):
        said += f", which takes about {needed} sessions to show"
    return Criterion(name=name, value=bound, explanation=said)


def _mean(name: str, values: FloatArray, what: str) -> Criterion:
    seen = values[~np.isnan(values)]
    return Criterion(name=name, value=_average(values), explanation=f"mean of {what}, {seen.size} sessions")


def _walk_forward(folds: pl.DataFrame, config: GateConfig) -> Criterion:
    frame = folds.sort("fold")
    excess = _floats(frame, "candidate") - _floats(frame, "random")
    pairs = zip(excess.tolist(), _floats(frame, "decisions").tolist(), strict=True)
    each = "; ".join(f"{_number(e)} of {_number(n)} decisions" for e, n in pairs) or "no fold"
    return Criterion(
        name="walk_forward",
        value=float(np.mean(excess > config.walk_forward_min_excess)) if excess.size else None,
        relation=">=",
        threshold=config.walk_forward_min_share,
        unit="share of folds",
        explanation=f"purged folds whose excess over random is above {_number(config.walk_forward_min_excess)}: {each}",
    )


def _ranking(ic: FloatArray, config: GateConfig) -> list[Criterion]:
    seen = ic[~np.isnan(ic)]
    error = f", standard error {_number(float(seen.std(ddof=1)) / math.sqrt(seen.size))}" if seen.size > 1 else ""
    return [
        Criterion(
            name="information_coefficient",
            value=_average(ic),
            threshold=config.ic_floor,
            unit="rank correlation",
            explanation=f"mean daily information coefficient, {seen.size} sessions{error}",
        ),
        Criterion(
            name="no_leak",
            value=_average(ic),
            relation="<=",
            threshold=config.ic_ceiling,
            unit="rank correlation",
            explanation="a mean daily information coefficient above the market's ceiling is taken for a leak",
        ),
    ]


def _facts(
    frame: pl.DataFrame, reward: Mapping[str, FloatArray], mean_cost: float | None
) -> dict[str, float | str | None]:
    deepest = max_drawdown(reward["candidate"], compounded=False)
    return {
        "first_session": str(frame["session"][0]) if frame.height else None,
        "last_session": str(frame["session"][-1]) if frame.height else None,
        **{f"mean_{name}": _average(values) for name, values in reward.items()},
        "mean_cost": mean_cost,
        "max_drawdown_of_summed_rewards": None if math.isnan(deepest) else deepest,
    }


def _floats(frame: pl.DataFrame, column: str) -> FloatArray:
    return frame[column].cast(pl.Float64).to_numpy()


def _average(values: FloatArray) -> float | None:
    seen = values[~np.isnan(values)]
    return float(seen.mean()) if seen.size else None


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.4g}"


def _needs(c: Criterion) -> str:
    return f"{SIGNS[c.relation]} {_number(c.threshold)}"


HEADINGS = ("criterion", "result", "value", "needs", "distance", "unit", "explanation")
COLOURS = {"candidate": "#1f5fbf", "incumbent": "#7a3fa0", "rules": "#b36b00", "random": "#777777"}
STYLE = """body{font:14px/1.5 sans-serif;max-width:960px;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}
.PASS td:nth-child(2){color:#07702f}.FAIL td:nth-child(2){color:#b00020;font-weight:bold}
dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1em}dd{margin:0}"""


def report_markdown(verdict: Verdict, context: Mapping[str, object]) -> str:
    """The verdict as Markdown: outcome, `context` as lines "name: value", one table row per criterion, the facts."""
    table = [HEADINGS, ("---",) * len(HEADINGS), *map(_cells, verdict.criteria)]
    lines = [
        f"# {_markdown(verdict.candidate)}: {verdict.outcome}\n",
        f"{_markdown(verdict.reason)}\n",
        *(f"- {_markdown(name)}: {_markdown(value)}" for name, value in _heading(verdict, context)),
        "",
        *("| " + " | ".join(map(_markdown, row)) + " |" for row in table),
        "",
        *(f"- {name}: {value}" for name, value in _fact_lines(verdict)),
    ]
    return "\n".join(lines) + "\n"


def report_html(verdict: Verdict, evidence: Evidence, context: Mapping[str, object]) -> str:
    """The same as one self-contained page, with the summed rewards of candidate and baselines as inline SVG."""
    rows = (f'<tr class="{c[1]}">' + _tags("td", c) + "</tr>\n" for c in map(_cells, verdict.criteria))
    title = html.escape(f"{verdict.candidate}: {verdict.outcome}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1><p>{html.escape(verdict.reason)}</p>\n"
        f"{_terms(_heading(verdict, context))}\n"
        f"<table><tr>{_tags('th', HEADINGS)}</tr>\n{''.join(rows)}</table>\n"
        f"{_plot(evidence)}\n{_terms(_fact_lines(verdict))}</body></html>\n"
    )


def _cells(c: Criterion) -> tuple[str, ...]:
    result = "PASS" if c.passed else "FAIL"
    return (c.name, result, _number(c.value), _needs(c), _number(c.distance), c.unit, c.explanation)


def _heading(verdict: Verdict, context: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    yield from context.items()
    yield "incumbent", verdict.incumbent or "none"
    yield "error spent", f"{_number(verdict.alpha)} (hypothesis {verdict.hypothesis} of this life)"


def _fact_lines(verdict: Verdict) -> Iterable[tuple[str, object]]:
    for name, value in verdict.facts.items():
        yield name.replace("_", " "), value if isinstance(value, str) else _number(value)


def _terms(pairs: Iterable[tuple[str, object]]) -> str:
    return f"<dl>{''.join(_tags('dt', [name]) + _tags('dd', [value]) for name, value in pairs)}</dl>"


def _tags(tag: str, values: Iterable[object]) -> str:
    return "".join(f"<{tag}>{html.escape(str(v))}</{tag}>" for v in values)


def _markdown(value: object) -> str:
    return " ".join(html.escape(str(value), quote=False).split()).replace("|", "\\|").replace("&gt;", ">")


def _plot(evidence: Evidence, width: int = 720, height: int = 240, margin: int = 50) -> str:
    frame = evidence.sessions.sort("session")
    shown = [name for name in COLOURS if name != "incumbent" or evidence.incumbent is not None]
    sums = {name: np.append(0.0, np.cumsum(np.nan_to_num(_floats(frame, name)))) for name in shown}
    low, high = min(float(s.min()) for s in sums.values()), max(float(s.max()) for s in sums.values())
    x = np.linspace(margin, width - margin, frame.height + 1)

    def y(value: FloatArray | float) -> FloatArray:
        share = (np.asarray(value) - low) / ((high - low) or 1.0)
        return height - margin - share * (height - 2 * margin)

    lines = "".join(
        f'<text x="{margin + 100 * i}" y="20" fill="{COLOURS[name]}">{name}</text>'
        f'<polyline fill="none" stroke="{COLOURS[name]}" stroke-width="2" points="'
        + " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y(line), strict=True))
        + '"/>'
        for i, (name, line) in enumerate(sums.items())
    )
    marks = "".join(
        f'<line x1="{margin}" x2="{width - margin}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#ddd"/>'
        f'<text x="2" y="{y(v):.1f}">{_number(v)}</text>'
        for v in sorted({low, 0.0, high})
    )
    days = (str(frame["session"][0]), str(frame["session"][-1])) if frame.height else ("", "")
    return (
        f'<h2>Summed mean rewards by session</h2><svg viewBox="0 0 {width} {height}" width="{width}" font-size="12" '
        f'role="img" aria-label="summed rewards">{marks}{lines}<text x="{margin}" y="{height - 8}">{days[0]}</text>'
        f'<text x="{width - margin}" y="{height - 8}" text-anchor="end">{days[1]}</text></svg>'
    )
