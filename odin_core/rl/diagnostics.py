"""What people look at of a policy: what it chose over time, whether its critic's value is what then came, and how each
seed learned. What comes in are choices, values and rewards as arrays and tables; who made them does not matter."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.diagnostic_page import Diagnostic, drawn, page, small_png
from odin_core.features.series import FloatArray
from odin_core.rl.choices import FLAT, SIZES, STOPS, TARGETS, Choices

Sessions: TypeAlias = npt.ArrayLike | Sequence[date]

POSITIONS: Final = ("flat", "long", "short")
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "position": POSITIONS,
    "size": tuple(f"{size:g}" for size in SIZES),
    "stop": tuple(f"{stop:g} ATR" for stop in STOPS),
    "target": tuple(f"{target:g} stops" for target in TARGETS),
}
COLOURS: Final = {
    "position": ("#c8c2a8", "#2f7d5b", "#b3443f"),
    "other": ("#cfe0f1", "#8fb8dd", "#4477aa", "#1d3f66"),
}
ALPHA: Final = 0.05
BINS: Final = 12
MOST_DOTS: Final = 1_500
SHOWN: Final = ("episode_reward", "entropy", "explained_variance", "value_loss")

ACTIONS: Final = pl.Schema(
    {
        "session": pl.Date(),
        "part": pl.String(),  # position, size, stop or target; the last three of choices that are not flat
        "choice": pl.String(),
        "count": pl.Int64(),
        "share": pl.Float64(),  # of the part's choices in the session; null where it has none
    }
)
VALUES: Final = pl.Schema(
    {
        "bin": pl.Int64(),  # of values, as many rows in each
        "rows": pl.Int64(),
        "value": pl.Float64(),  # means
        "realised": pl.Float64(),
        "lower": pl.Float64(),  # 95 % interval of the mean realised, sessions being what varies
        "upper": pl.Float64(),
    }
)


class ValueLine(NamedTuple):
    """realised = intercept + slope · value, by least squares: calibrated is 0 and 1; a slope of 0 is a critic that
    knows nothing. NaN where there is too little to say."""

    intercept: float
    slope: float
    lower: float  # of the slope's 95 % interval, sessions being what varies
    upper: float
    correlation: float  # Pearson's
    rank_correlation: float  # Spearman's
    rows: int
    sessions: int


def action_shares(choices: Choices, session: Sessions) -> pl.DataFrame:
    """ACTIONS of n choices by the session (dates) that each was made in: every choice of every session, also those that
    nobody made. Sessions ascend."""
    days = np.asarray(session, "datetime64[D]")
    if days.shape != choices.position.shape:
        raise ValueError(f"{choices.position.size} choices made in {days.size} sessions: one session for each choice")
    names, place = np.unique(days, return_inverse=True)
    trades = choices.position != FLAT
    parts = []
    for part, made in choices._asdict().items():
        words = CHOICES[part]
        kept = np.ones_like(trades) if part == "position" else trades
        counts = np.zeros((len(names), len(words)), np.int64)
        np.add.at(counts, (place[kept], made[kept]), 1)
        parts.append({
            "session": np.repeat(names, len(words)), "part": [part] * counts.size, "choice": words * len(names),
            "count": counts.ravel(),
        })  # fmt: skip
    whole = pl.concat([pl.DataFrame(rows, schema={n: ACTIONS[n] for n in rows}) for rows in parts])
    of = pl.col("count").sum().over("session", "part")
    share = pl.when(of > 0).then(pl.col("count") / of)
    return whole.with_columns(share=share).sort("session", maintain_order=True).match_to_schema(ACTIONS)


def discounted_returns(
    rewards: npt.ArrayLike, ended: npt.ArrayLike, discount: float, *, scale: float = 1.0
) -> FloatArray:
    """What came after each decision, rₜ + γ·rₜ₊₁ + γ²·rₜ₊₂ + … to the episode's end, times `scale`: (steps,
    environments).

    rewards (steps, environments), in the environment's unit, the first being what the first decision earned; ended:
    whether an episode ended with that reward. NaN for decisions of episodes that had not ended yet. With `scale` the
    policy's `reward_scale` it is what its value forecasts."""
    earned, is_end = np.asarray(rewards, np.float64), np.asarray(ended, np.bool_)
    if earned.ndim != 2 or earned.shape != is_end.shape:
        raise ValueError(f"rewards {earned.shape} and ends {is_end.shape} must be (steps, environments)")
    out = np.empty_like(earned)
    after = np.full(earned.shape[1], np.nan)
    for t in range(len(earned) - 1, -1, -1):
        after = earned[t] * scale + discount * np.where(is_end[t], 0.0, after)
        out[t] = after
    return out


def value_table(
    value: npt.ArrayLike, realised: npt.ArrayLike, session: Sessions, bins: int = BINS
) -> tuple[pl.DataFrame, ValueLine]:
    """VALUES and the line through all rows. value, realised (n,) in one unit, NaN rows are dropped; session (n,), any
    sortable label: rows of one move together, so the slope's error is clustered by it (Liang & Zeger 1986, Student's t
    of sessions − 1 degrees), and so are the bins' intervals."""
    from odin_core.evaluation.sequential import cluster_mean_interval

    x, y, label = _known(value, realised, session)
    order = np.argsort(x, kind="stable")
    rows = []
    for n, part in enumerate(np.array_split(order, min(bins, max(len(order), 1)))):
        if len(part):
            found = cluster_mean_interval(y[part], label[part], ALPHA)
            rows.append([n, len(part), x[part].mean(), y[part].mean(), found.lower, found.upper])
    return pl.DataFrame(rows, schema=VALUES, orient="row"), _line(x, y, label)


def diagnostics(
    *,
    choices: Choices,
    session: Sessions,
    value: npt.ArrayLike,
    realised: npt.ArrayLike,
    curves: pl.DataFrame,
) -> list[Diagnostic]:
    """All there are: "actions", "value" and "learning_curves". choices (n,), session (n,) dates, value and realised
    (n,): of decisions in time, as the functions above take them; realised NaN where unknown. curves: `callbacks.CURVE`
    of every seed, with a column `seed`; null where a learner notes nothing."""
    days = np.asarray(session, "datetime64[D]")
    actions = action_shares(choices, days)
    table, line = value_table(value, realised, days)
    seeds = curves["seed"].n_unique()
    shares = dict(actions.filter(part="position").group_by("choice").agg(pl.col("count").sum()).iter_rows())
    whole = max(sum(shares.values()), 1)
    return [
        Diagnostic(
            name="actions",
            title="What it chose, by session",
            told=f"{len(days):,} decisions in {len(np.unique(days))} sessions: "
            + ", ".join(f"{shares.get(name, 0) / whole:.0%} {name}" for name in POSITIONS)
            + ". Sizes, stops and targets are of those that are not flat.",
            table=actions,
            picture=actions_picture(actions),
        ),
        Diagnostic(
            name="value",
            title="What the critic expected and what came",
            told=f"{line.rows:,} decisions in {line.sessions} sessions whose return is known. {_said(line)}",
            table=table,
            picture=value_picture(value, realised, days),
        ),
        Diagnostic(
            name="learning_curves",
            title="How each seed learned",
            told=f"{seeds} {'seed' if seeds == 1 else 'seeds'}, thin, and their median where all have got to, thick.",
            table=curves,
            picture=curves_picture(curves),
        ),
    ]  # fmt: skip


def diagnostics_page(title: str, told: str, found: Sequence[Diagnostic]) -> str:
    """`diagnostics` on one HTML page, as text."""
    return page(title, told, found)


def actions_picture(actions: pl.DataFrame) -> bytes:
    """Shares by session, stacked, a panel a part. `actions`: ACTIONS."""
    figure = drawn(10, 6.5)
    panels = figure.subplots(len(CHOICES), 1, sharex=True, height_ratios=(2, 1, 1, 1))
    days = actions["session"].unique(maintain_order=True).to_numpy()
    x = np.arange(len(days))
    for axes, (part, words) in zip(panels, CHOICES.items(), strict=True):
        rows = actions.filter(part=part)
        share = rows["share"].fill_null(0.0).to_numpy().reshape(len(days), len(words))
        colours = COLOURS.get(part, COLOURS["other"])
        bottom = np.zeros(len(days))
        for n, word in enumerate(words):
            axes.fill_between(
                _steps(x), _twice(bottom), _twice(bottom + share[:, n]), color=colours[n], linewidth=0, label=word
            )
            bottom = bottom + share[:, n]
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 1])
        axes.set_ylabel(part)
        if len(days):
            axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    chosen = np.unique(np.linspace(0, len(days) - 1, min(len(days), 8)).astype(int)) if len(days) else x
    panels[-1].set_xticks(x[chosen], [str(day) for day in days[chosen]])
    return small_png(figure)


def value_picture(value: npt.ArrayLike, realised: npt.ArrayLike, session: Sessions) -> bytes:
    """Realised return over value: at most MOST_DOTS decisions, means of bins with their intervals, the line through all
    and the diagonal. Axes show the middle 98 % of decisions."""
    x, y, label = _known(value, realised, session)
    table, line = value_table(x, y, label)
    figure = drawn(7, 5.5)
    axes = figure.subplots()
    axes.set_xlabel("value, as the critic expected")
    axes.set_ylabel("discounted rewards that came")
    if not len(x):
        axes.text(0.5, 0.5, "no return is known", ha="center", transform=axes.transAxes)
        return small_png(figure)
    dots = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_DOTS)).astype(int))
    axes.scatter(x[dots], y[dots], s=5, color="#8fb8dd", alpha=0.6, linewidth=0)
    (left, right), (low, high) = (_middle(side) for side in (x, y))
    ends = np.array([left, right])
    axes.plot(ends, ends, color="#999999", linewidth=0.9, linestyle=":", label="calibrated")
    if np.isfinite(line.slope):
        axes.plot(ends, line.intercept + line.slope * ends, color="#b3443f", label=f"slope {line.slope:.2f}")
    mean = table["realised"].to_numpy()
    error = np.stack([mean - table["lower"].to_numpy(), table["upper"].to_numpy() - mean])
    error = np.where(np.isfinite(error), error, 0.0)  # of one session, whose interval is everything
    axes.errorbar(table["value"], mean, error, fmt="o", markersize=4, capsize=2, color="#1d3f66", label="means of bins")
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    axes.legend(fontsize=8)
    return small_png(figure)


def curves_picture(curves: pl.DataFrame) -> bytes:
    """A panel for each of SHOWN, over bars trained on: every seed, and the median of those that reached a point."""
    figure = drawn(10, 5.5)
    panels = figure.subplots(2, 2, sharex=True).ravel()
    for axes, name in zip(panels, SHOWN, strict=True):
        axes.set_title(name.replace("_", " "))
        known = curves.filter(pl.col(name).is_not_null()) if name in curves.columns else curves.clear()
        for seed in known["seed"].unique().sort():
            part = known.filter(seed=seed).sort("steps")
            axes.plot(part["steps"], part[name], color="#8fb8dd", linewidth=0.8)
        if known.is_empty():
            axes.text(0.5, 0.5, "not noted", ha="center", transform=axes.transAxes, fontsize=9)
            continue
        together = known.group_by("steps").agg(pl.col(name).median(), seeds=pl.len()).sort("steps")
        together = together.filter(pl.col("seeds") == known["seed"].n_unique())
        axes.plot(together["steps"], together[name], color="#1d3f66", linewidth=2)
    for axes in panels[2:]:
        axes.set_xlabel("bars, all environments together")
    return small_png(figure)


def _known(value: npt.ArrayLike, realised: npt.ArrayLike, session: Sessions) -> tuple[FloatArray, FloatArray, Any]:
    x, y, label = np.asarray(value, np.float64), np.asarray(realised, np.float64), np.asarray(session)
    if x.ndim != 1 or not x.shape == y.shape == label.shape:
        raise ValueError(f"value {x.shape}, realised {y.shape} and session {label.shape} must be (n,), of one length")
    known = ~(np.isnan(x) | np.isnan(y))
    return x[known], y[known], label[known]


def _line(x: FloatArray, y: FloatArray, label: npt.NDArray[Any]) -> ValueLine:
    from scipy.special import stdtrit
    from scipy.stats import rankdata

    names, place = np.unique(label, return_inverse=True)
    g, nan = len(names), float("nan")
    if len(x) < 3 or np.ptp(x) == 0:
        return ValueLine(nan, nan, nan, nan, nan, nan, len(x), g)
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    intercept = float(y.mean() - slope * x.mean())
    varies = np.ptp(y) > 0
    pearson = float(np.corrcoef(x, y)[0, 1]) if varies else nan
    ranks = float(np.corrcoef(rankdata(x), rankdata(y))[0, 1]) if varies else nan
    half = nan
    if g > 1:
        sums = np.bincount(place, weights=centred * (y - intercept - slope * x), minlength=g)
        half = float(stdtrit(g - 1, 1 - ALPHA / 2)) * np.sqrt(g / (g - 1) * float(sums @ sums)) / spread
    return ValueLine(intercept, slope, slope - half, slope + half, pearson, ranks, len(x), g)


def _said(line: ValueLine) -> str:
    """The line in words; of what is not known, nothing."""
    if not np.isfinite(line.slope):
        return "Too few, or too alike, to say what the values tell."
    correlation = f"Correlation {line.correlation:.2f} (ranks {line.rank_correlation:.2f}); "
    interval = f", 95 % from {line.lower:.2f} to {line.upper:.2f} over sessions"
    return (
        f"{correlation if np.isfinite(line.correlation) else 'What came never varied; '}slope {line.slope:.2f}"
        f"{interval if np.isfinite(line.lower) else ', of one session, so without an interval'}: 1 is calibrated, "
        f"0 knows nothing."
    )


def _middle(values: FloatArray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.01, 0.99])
    margin = 0.1 * (high - low) or 1e-6
    return float(low - margin), float(high + margin)


def _steps(x: npt.NDArray[Any]) -> FloatArray:
    """Both ends of each session's step."""
    return np.stack([x - 0.5, x + 0.5], axis=1).ravel()


def _twice(values: FloatArray) -> FloatArray:
    return np.repeat(values, 2)
