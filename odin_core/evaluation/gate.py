"""The gate: evidence in, verdict out. Only a candidate that meets every criterion is promoted; a refusal has numbers.

All bounds of a verdict share one error, alpha_total·2⁻ʲ for the life's j-th hypothesis (each new incumbent starts one),
divided by how many alternatives were compared on the same sessions. As all must hold, promoting where one should not
has at most that chance, over all weekly looks together. Bounds are made in `sequential`, rewards in the replay buffer;
who is trained and what a promotion does is decided elsewhere; `gate_report` makes a verdict readable."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.evaluation.evidence import Criterion, Evidence, GateConfig, Ranking, Relation, Verdict, number
from odin_core.evaluation.metrics import FloatArray, deflated_sharpe_ratio, max_drawdown, sharpe_ratio
from odin_core.evaluation.sequential import lower_confidence_sequence, sessions_to_detection, spend, tightest_rho

DEFAULT = GateConfig()


def judge(evidence: Evidence, config: GateConfig = DEFAULT) -> Verdict:
    """The verdict on one candidate at one look. Pure, and looking again costs nothing.

    Above 0 must be: the lower confidence bounds of candidate − random, of candidate − rules and, where there is an
    incumbent, of candidate − incumbent, so that a tie keeps it; and the candidate's own mean, costs included. Profit is
    asked of the mean only: a champion in simulation has to be better than random and rules; money asks for more.

    Measured at hypothesis 1 (error 0.025), looks every fifth session from 15 to 120, Student t noise of 4 degrees. Of
    2,000 lives as good as random in a market where everything earns, and far better than the rules, 1.3 % were
    promoted; as good as both, 0.7 % of 600. With a true effect of d standard deviations a session over each,
    independently: promoted by session 120 (median session) 45 % at d = 0.3, 93 % (65) at 0.45, 99.5 % (35) at 0.6,
    200 lives each. That is the bounds alone (`GateConfig()`).

    With all that a life asks (`learning.gate_config`): 0.95 % of 2,000 such lives without an effect were promoted. With
    one, and rewards by decision (50 contexts, the 20 most confident are traded, confidence as it truly is, one trial a
    week, seeds as they should be), 400 lives each:

        d       bounds alone    all criteria    deflated Sharpe 0.95    all criteria, over an incumbent d worse
        0.30    40 %            37 %            14 %                    14 %
        0.45    91 % (60)       90 % (65)       81 % (85)               77 % (90)
        0.60    98.5 % (35)     98.5 % (40)     97.5 % (45)             97 % (50)

    The last column is hypothesis 2. Parts are repeated in tests/evaluation/test_gate.py and test_gate_levels.py."""
    alpha = spend(config.alpha_total, evidence.hypothesis) / evidence.selected_from
    frame = evidence.sessions.sort("session")
    reward = {name: floats(frame, name) for name in ("candidate", "random", "rules", "incumbent")}
    candidate, rules, ic = reward["candidate"], np.nan_to_num(reward["rules"]), floats(frame, "ic")
    criteria = [
        *_amounts(frame, candidate, config),
        _bound("beats_random", candidate - reward["random"], alpha, config, "candidate − random"),
        _bound("beats_rules", candidate - rules, alpha, config, "candidate − rules"),
        _mean("profitable", candidate, "candidate after costs"),
    ]
    if evidence.incumbent is not None:
        difference = candidate - reward["incumbent"]
        criteria.append(_bound("beats_incumbent", difference, alpha, config, "candidate − incumbent"))
        criteria += _no_worse(candidate, reward["incumbent"], config)
    criteria += [_walk_forward(evidence.walk_forward, config), *_information(ic, config)]
    criteria += [*_decisions(evidence.ranking, config), *_deflated(candidate, evidence.trials, config)]
    criteria += [c for measured in evidence.findings.values() for c in measured]
    criteria += _asked_last(evidence, config, all(c.passed for c in criteria))
    return Verdict(
        candidate=evidence.candidate,
        incumbent=evidence.incumbent,
        hypothesis=evidence.hypothesis,
        alpha=alpha,
        criteria=tuple(criteria),
        facts=_facts(frame, reward, evidence),
    )


def meets_absolute(sessions: pl.DataFrame, alpha: float, config: GateConfig = DEFAULT) -> Criterion:
    """A phase's absolute criterion: the lower confidence bound of candidate − random above 0 at error `alpha`.
    `sessions` as in `Evidence` (`session`, `candidate`, `random` are read), those after the champion's training window.
    """
    frame = sessions.sort("session")
    difference = floats(frame, "candidate") - floats(frame, "random")
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
            value=float(np.nansum(floats(frame, "decisions")[decided])),
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
    said = f"lower bound of {what}, valid at every look at error {number(alpha)}; {seen.size} sessions"
    mean, bound = _average(difference), float(bounds[-1]) if seen.size else -math.inf
    if mean is None or math.isinf(bound):
        tie = mean if mean is not None and mean <= 0 and seen.size >= config.burn_in else None
        return Criterion(name=name, value=tie, explanation=f"{said}, at least {config.burn_in} that differ are needed")
    effect = mean / float(seen.std(ddof=1))
    said += f", mean {number(mean)}, {number(effect)} standard deviations"
    if bound <= 0 < mean and (needed := sessions_to_detection(effect, alpha, rho, burn_in=config.burn_in)):
        said += f", which takes about {needed} sessions to show"
    return Criterion(name=name, value=bound, explanation=said)


def _mean(name: str, values: FloatArray, what: str) -> Criterion:
    seen = values[~np.isnan(values)]
    return Criterion(name=name, value=_average(values), explanation=f"mean of {what}, {seen.size} sessions")


def _walk_forward(folds: pl.DataFrame, config: GateConfig) -> Criterion:
    frame = folds.sort("fold")
    excess = floats(frame, "candidate") - floats(frame, "random")
    pairs = zip(excess.tolist(), floats(frame, "decisions").tolist(), strict=True)
    each = "; ".join(f"{number(e)} of {number(n)} decisions" for e, n in pairs) or "no fold"
    return Criterion(
        name="walk_forward",
        value=float(np.mean(excess > config.walk_forward_min_excess)) if excess.size else None,
        relation=">=",
        threshold=config.walk_forward_min_share,
        unit="share of folds",
        explanation=f"purged folds whose excess over random is above {number(config.walk_forward_min_excess)}: {each}",
    )


def _information(ic: FloatArray, config: GateConfig) -> list[Criterion]:
    seen = ic[~np.isnan(ic)]
    error = f", standard error {number(float(seen.std(ddof=1)) / math.sqrt(seen.size))}" if seen.size > 1 else ""
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


def _no_worse(candidate: FloatArray, incumbent: FloatArray, config: GateConfig) -> list[Criterion]:
    """Sharpe ratio and drawdown beside the incumbent's, on the sessions in which both are known. The Sharpe ratio of an
    incumbent that never traded counts as 0, so that it can be replaced."""
    both = ~(np.isnan(candidate) | np.isnan(incumbent))
    mine, other = candidate[both], incumbent[both]
    criteria = []
    if config.sharpe_margin is not None:
        ours, theirs = sharpe_ratio(mine, 1), 0.0 if other.size and not other.any() else sharpe_ratio(other, 1)
        known = not (math.isnan(ours) or math.isnan(theirs))
        criteria.append(
            Criterion(
                name="sharpe_over_incumbent",
                value=ours - theirs if known else None,
                relation=">=",
                threshold=config.sharpe_margin,
                unit="Sharpe ratio per session",
                explanation=f"candidate {number(ours)}, incumbent {number(theirs)}, {mine.size} sessions",
            )
        )
    if config.drawdown_tolerance is not None:
        ours, theirs = (-max_drawdown(r, compounded=False) for r in (mine, other))
        criteria.append(
            Criterion(
                name="drawdown_over_incumbent",
                value=ours - theirs if mine.size else None,
                relation="<=",
                threshold=config.drawdown_tolerance,
                unit="summed mean rewards",
                explanation=f"deepest fall of summed rewards: candidate {number(ours)}, incumbent {number(theirs)}",
            )
        )
    return criteria


def _decisions(ranking: Ranking | None, config: GateConfig) -> list[Criterion]:
    """Hit rate, precision at the top and calibration, each where it is asked."""
    r = ranking or Ranking(**dict.fromkeys(Ranking.__dataclass_fields__, math.nan))
    said = f"{number(r.hit_rate)} of its decisions won, {number(r.random_hit_rate)} of random ones, F1 {number(r.f1)}"
    top = f"{number(r.precision)} of its most confident contexts won, {number(r.base_rate)} of all"
    asked: list[tuple[str, float, Relation, float | None, str, str]] = [
        ("hit_rate", r.hit_rate - r.random_hit_rate, ">=", config.hit_rate_margin, "share over random", said),
        ("precision_at_top", r.precision - r.base_rate, ">=", config.precision_margin, "share over all", top),
        ("calibration", r.calibration_error, "<=", config.max_calibration_error, "expected calibration error",
         f"distance of confidence from what became of it; Brier score {number(r.brier)}"),
    ]  # fmt: skip
    return [
        Criterion(
            name=name,
            value=None if math.isnan(value) else value,
            relation=relation,
            threshold=threshold,
            unit=unit,
            explanation=explanation,
        )
        for name, value, relation, threshold, unit, explanation in asked
        if threshold is not None
    ]


def _deflated(candidate: FloatArray, trials: int, config: GateConfig) -> list[Criterion]:
    if config.min_deflated_sharpe is None:
        return []
    value = deflated(candidate, trials)
    return [
        Criterion(
            name="deflated_sharpe",
            value=None if math.isnan(value) else value,
            relation=">=",
            threshold=config.min_deflated_sharpe,
            unit="probability",
            explanation=f"that the Sharpe ratio of rewards by session beats the best of {trials} trials without skill",
        )
    ]


def deflated(values: npt.ArrayLike, trials: int) -> float:
    """Deflated Sharpe ratio of one series, NaN left out, whose `trials` (with it) vary by chance alone, variance
    1 / n. NaN for fewer than five values or a constant. Source: as `metrics.deflated_sharpe_ratio`."""
    r = np.asarray(values, dtype=np.float64)
    r = r[~np.isnan(r)]
    if r.size < 5 or np.ptp(r) == 0:
        return math.nan
    z = (r - r.mean()) / r.std()
    return deflated_sharpe_ratio(
        sharpe=float(r.mean() / r.std(ddof=1)),
        n_obs=r.size,
        n_trials=trials,
        var_sharpe=1 / r.size,
        skew=float((z**3).mean()),
        kurtosis=float((z**4).mean()),
    )


def _asked_last(evidence: Evidence, config: GateConfig, rest_is_met: bool) -> list[Criterion]:
    """What takes long to measure, so that it is measured of a candidate that meets the rest: `open_questions`."""
    criteria = []
    if config.min_seeds and (evidence.seeds is not None or rest_is_met):
        criteria.append(_seeds(evidence.seeds, config))
    if rest_is_met:
        criteria += [
            Criterion(
                name=kind,
                value=None,
                relation="<=",
                unit="findings",
                explanation="asked of a candidate that meets the rest, and not measured yet",
                amount=True,
            )
            for kind in config.needs_findings
            if not evidence.findings.get(kind)
        ]
    return criteria


def _seeds(seeds: pl.DataFrame | None, config: GateConfig) -> Criterion:
    excess = floats(seeds, "excess") if seeds is not None else np.empty(0)
    enough = np.count_nonzero(~np.isnan(excess)) >= config.min_seeds
    each = ", ".join(number(e) for e in excess.tolist()) or "not measured yet"
    return Criterion(
        name="seeds",
        value=float(np.mean(excess > 0)) if enough else None,
        relation=">=",
        threshold=config.seeds_min_share,
        unit="share of seeds",
        explanation=f"at least {config.min_seeds} seeds of the learner; walk-forward excess over random: {each}",
        amount=not enough,
    )


def open_questions(verdict: Verdict) -> bool:
    """Whether a candidate meets all that was measured and only what is asked last is missing."""
    return bool(verdict.failed) and all(c.amount and c.value is None for c in verdict.failed)


def _facts(frame: pl.DataFrame, reward: Mapping[str, FloatArray], evidence: Evidence) -> dict[str, float | str | None]:
    deepest = max_drawdown(reward["candidate"], compounded=False)
    dsr = deflated(reward["candidate"], evidence.trials)
    return {
        "first_session": str(frame["session"][0]) if frame.height else None,
        "last_session": str(frame["session"][-1]) if frame.height else None,
        **{f"mean_{name}": _average(values) for name, values in reward.items()},
        "mean_cost": evidence.mean_cost,
        "max_drawdown_of_summed_rewards": None if math.isnan(deepest) else deepest,
        "trials": evidence.trials,
        "selected_from": evidence.selected_from,
        "deflated_sharpe_ratio": None if math.isnan(dsr) else dsr,
    }


def floats(frame: pl.DataFrame, column: str) -> FloatArray:
    return frame[column].cast(pl.Float64).to_numpy()


def _average(values: FloatArray) -> float | None:
    seen = values[~np.isnan(values)]
    return float(seen.mean()) if seen.size else None
