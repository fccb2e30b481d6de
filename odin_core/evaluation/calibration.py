"""Calibration: does what was forecast with probability p happen in a share p of cases? Scores, tables, a picture.

What comes in: `probability` (n,), float in [0, 1], and `outcome` (n,), bool or 0/1; a row with a NaN on either side is
dropped before anything else, and without rows an answer is NaN. Outcomes of one session move together, so intervals
take each row's session where they are given it. Probabilities are made from scores in `calibrators`, ranking is judged
in `information`, the decision record lies in `odin_core.replay`."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.evaluation.calibrators import logistic, logistic_line
from odin_core.pictures import png

FloatArray = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Bins = Literal["width", "count"]
NAN = float("nan")
FEWEST_CLUSTERS = 10  # sessions (or rows) below which a line is not tested
DRAWN_AT_ONCE = 4_000_000  # numbers in memory of a resampling
SMALLEST = 1e-15  # probabilities nearer to 0 or 1 count as this near in a logarithm

TABLE = pl.Schema(
    {
        "bin": pl.Int64(),
        "low": pl.Float64(),  # edges; the last bin holds its upper one, every other its lower one
        "high": pl.Float64(),
        "rows": pl.Int64(),
        "probability": pl.Float64(),  # mean forecast
        "happened": pl.Float64(),  # share of the rows
        "lower": pl.Float64(),  # of the share's interval
        "upper": pl.Float64(),
    }
)
GROUPED = pl.Schema(
    {
        "rows": pl.Int64(),
        "sessions": pl.Int64(),
        "probability": pl.Float64(),  # mean forecast
        "happened": pl.Float64(),
        "brier": pl.Float64(),
        "skill": pl.Float64(),  # 1 − brier / uncertainty: 0 is no better than always forecasting the group's share
        "log_loss": pl.Float64(),
        "calibration_error": pl.Float64(),  # expected
        "by_chance": pl.Float64(),  # calibration error that calibrated forecasts exceed in 5 % of cases
        "largest_error": pl.Float64(),
        "intercept": pl.Float64(),  # of `calibration_line`, with the p value of its test
        "slope": pl.Float64(),
        "p_value": pl.Float64(),
    }
)


class BrierParts(NamedTuple):
    """brier = reliability − resolution + uncertainty + within."""

    brier: float
    reliability: float  # mean squared gap between forecast and share, by bin: 0 is calibrated
    resolution: float  # mean squared gap between a bin's share and the whole share: large is telling
    uncertainty: float  # share · (1 − share)
    within: float  # what differs inside bins; 0 where the forecasts of each bin are one number


class CalibrationLine(NamedTuple):
    """Log odds of the outcome over log odds of the forecast: calibrated is intercept 0 and slope 1; a slope below 1 is
    overconfidence, an intercept above 0 with slope 1 is pessimism."""

    intercept: float
    slope: float
    intercept_error: float
    slope_error: float
    p_value: float  # of (0, 1)
    sessions: int


def brier_score(probability: npt.ArrayLike, outcome: npt.ArrayLike) -> float:
    """Mean of (probability − outcome)², 0 to 1, lower is better; always forecasting one half scores 0.25.
    Source: Brier 1950, the half that is usual for two outcomes. Oracle: sklearn.metrics.brier_score_loss."""
    p, y = _pairs(probability, outcome)
    return float(np.mean((p - y) ** 2)) if p.size else NAN


def log_loss(probability: npt.ArrayLike, outcome: npt.ArrayLike) -> float:
    """Mean of −ln(probability given to what happened), in nats; one half scores ln 2. A probability counts as at least
    1e-15 from 0 and 1, so that one certain error costs 34.5 and not infinity. Source: Good 1952. Oracle: sklearn."""
    p, y = _pairs(probability, outcome)
    if not p.size:
        return NAN
    given = np.clip(np.where(y == 1, p, 1 - p), SMALLEST, 1.0)
    return float(-np.log(given).mean())


def expected_calibration_error(
    probability: npt.ArrayLike, outcome: npt.ArrayLike, bins: int = 10, *, by: Bins = "width"
) -> float:
    """Σ over bins of rows/n · |share that happened − mean forecast|, 0 to 1. Bins as in `reliability_table`.
    Of calibrated forecasts it is above 0 as well, about √(2/π · bins · p(1 − p) / n) for full bins near one half
    (0.13 for 100 rows, 0.04 for 1,000), so compare it with `calibration_error_by_chance`.
    Source: Naeini, Cooper & Hauskrecht 2015, equation 3; Guo et al. 2017."""
    rows, gap = _gaps(probability, outcome, bins, by)
    return float(rows @ np.abs(gap) / rows.sum()) if rows.size else NAN


def maximum_calibration_error(
    probability: npt.ArrayLike, outcome: npt.ArrayLike, bins: int = 10, *, by: Bins = "width", fewest: int = 1
) -> float:
    """Largest |share that happened − mean forecast| of a bin with at least `fewest` rows. Source: as above."""
    rows, gap = _gaps(probability, outcome, bins, by)
    full = rows >= fewest
    return float(np.abs(gap[full]).max()) if full.any() else NAN


def calibration_error_by_chance(
    probability: npt.ArrayLike,
    outcome: npt.ArrayLike,
    session: npt.ArrayLike | None = None,
    bins: int = 10,
    *,
    by: Bins = "width",
    quantile: float = 0.95,
    draws: int = 1_000,
    seed: int = 0,
) -> float:
    """The expected calibration error that calibrated forecasts like these exceed with chance 1 − `quantile` only.

    By the wild cluster bootstrap: each session's sums of (outcome − forecast − the bin's mean gap) keep or change their
    sign together, `draws` times. The correlation inside a session is thereby taken as it is; `session` (n,) of any
    sortable type, default each row its own. Measured at 0.95, share of 400 sets of calibrated forecasts that exceed it:
    5 % with 1,000 independent rows; with 60 sessions of 20 rows and a correlation of 0.2 inside a session 6 %, and 21 %
    where the rows are taken for independent. 100,000 rows of 1,000 sessions take 0.1 s.
    Source: Cameron, Gelbach & Miller 2008."""
    p, y, group = _rows(probability, outcome, session)
    if not p.size:
        return NAN
    place = _place(p, _edges(p, bins, by))
    rows = np.maximum(np.bincount(place), 1)
    residual = y - p - (np.bincount(place, weights=y - p) / rows)[place]
    sessions = int(group.max()) + 1
    rng, several = np.random.default_rng(seed), max(DRAWN_AT_ONCE // sessions, 1)
    errors = np.zeros(draws)
    sums = np.bincount(group * len(rows) + place, weights=residual, minlength=sessions * len(rows))
    for first in range(0, draws, several):
        sign = rng.choice((-1.0, 1.0), (min(several, draws - first), sessions))
        errors[first : first + several] = np.abs(sign @ sums.reshape(sessions, len(rows))).sum(axis=1)
    return float(np.quantile(errors / p.size, quantile))


def brier_parts(
    probability: npt.ArrayLike, outcome: npt.ArrayLike, bins: int | None = 10, *, by: Bins = "width"
) -> BrierParts:
    """The Brier score taken apart by bin, or by distinct forecast (`bins` None: `within` is 0 then).
    With bins the parts are of the bins' mean forecasts, and `within` is the variance of the forecasts inside bins less
    twice their covariance with the outcomes. Source: Murphy 1973; Stephenson, Coelho & Jolliffe 2008, equation 5."""
    p, y = _pairs(probability, outcome)
    if not p.size:
        return BrierParts(*(NAN,) * 5)
    place = np.unique(p, return_inverse=True)[1] if bins is None else _place(p, _edges(p, bins, by))
    rows = np.maximum(np.bincount(place), 1)
    forecast, share = (np.bincount(place, weights=v) / rows for v in (p, y))
    whole = float(y.mean())
    brier = float(np.mean((p - y) ** 2))
    reliability = float(np.mean((forecast - share)[place] ** 2))
    resolution = float(np.mean((share[place] - whole) ** 2))
    inside = p - forecast[place]
    within = float(np.mean(inside**2) - 2 * np.mean(inside * (y - share[place])))
    return BrierParts(brier, reliability, resolution, whole * (1 - whole), within)


def calibration_line(
    probability: npt.ArrayLike, outcome: npt.ArrayLike, session: npt.ArrayLike | None = None
) -> CalibrationLine:
    """Cox's line: log odds of the outcome = intercept + slope · log odds of the forecast, and the test of (0, 1).

    Errors are robust to the correlation inside a session (`session` (n,); default each row its own); the p value is
    Wald's of both numbers together, by F with 2 and sessions − 1 degrees. NaN for fewer than 10 sessions (or rows), and
    where the outcomes are all equal or the forecasts are. Measured at 0.05 on 400 sets of 60 sessions of 20 rows,
    correlation 0.2 inside a session: calibrated forecasts are refused in 6 %, log odds twice too large in all.
    Source: Cox 1958; Liang & Zeger 1986 for the errors."""
    p, y, group = _rows(probability, outcome, session)
    sessions = int(group.max(initial=-1)) + 1
    if sessions < FEWEST_CLUSTERS or np.ptp(y) == 0 or np.ptp(p) == 0:
        return CalibrationLine(NAN, NAN, NAN, NAN, NAN, sessions)
    from scipy.special import fdtrc

    clipped = np.clip(p, SMALLEST, 1 - SMALLEST)
    x = np.log(clipped / (1 - clipped))
    intercept, slope = logistic_line(x, y)
    design = np.column_stack([np.ones_like(x), x])
    fitted = logistic(intercept + slope * x)
    bread = np.linalg.pinv((design * (fitted * (1 - fitted))[:, None]).T @ design)
    sums = np.stack([np.bincount(group, weights=v) for v in (design * (y - fitted)[:, None]).T])
    spread = bread @ (sessions / (sessions - 1) * sums @ sums.T) @ bread
    off = np.array([intercept, slope - 1.0])
    wald = float(off @ np.linalg.pinv(spread) @ off) / 2
    errors = np.sqrt(np.diag(spread))
    p_value = float(fdtrc(2, sessions - 1, max(wald, 0.0)))
    return CalibrationLine(intercept, slope, float(errors[0]), float(errors[1]), p_value, sessions)


def reliability_table(
    probability: npt.ArrayLike,
    outcome: npt.ArrayLike,
    bins: int = 10,
    *,
    by: Bins = "width",
    session: npt.ArrayLike | None = None,
    alpha: float = 0.05,
) -> pl.DataFrame:
    """One row (TABLE) per bin that is not empty, ascending: how often what was forecast happened.

    `by` "width": equal steps from 0 to 1; "count": equally many rows, ties kept together. `lower` and `upper`: Wilson's
    two-sided 1 − alpha interval of the share. With `session` (n,) the rows count as the number of independent ones that
    would give the share its variance between sessions (never more than there are), with Student's quantile; a bin of
    one session says nothing, 0 to 1. Measured on the sets of `calibration_line`: 95 % intervals hold the forecast in
    95 % of bins with sessions, in 86 % without. Source: Murphy & Winkler 1977; Wilson 1927; Korn & Graubard 1998."""
    p, y, group = _rows(probability, outcome, session)
    if not p.size:
        return TABLE.to_frame()
    edges = _edges(p, bins, by)
    place = _place(p, edges)
    rows = np.bincount(place, minlength=max(len(edges) - 1, 1)).astype(np.float64)
    full = np.flatnonzero(rows)
    forecast, happened = (np.bincount(place, weights=v, minlength=len(rows))[full] / rows[full] for v in (p, y))
    effective, quantile = _effective(place, y, group, session is not None, alpha)
    lower, upper = wilson_interval(happened, effective[full], quantile[full])
    columns = {
        "bin": full, "low": edges[full], "high": edges[np.minimum(full + 1, len(edges) - 1)],
        "rows": rows[full].astype(np.int64), "probability": forecast, "happened": happened,
        "lower": lower, "upper": upper,
    }  # fmt: skip
    return pl.DataFrame(columns, schema=TABLE)


def calibration_by(
    frame: pl.DataFrame,
    by: Sequence[str],
    *,
    probability: str = "confidence",
    outcome: str = "won",
    session: str = "session",
    bins: int = 10,
) -> pl.DataFrame:
    """One row per value of the columns `by` (model_version, vol_regime, …; no column: one row for all), sorted, with
    the columns GROUPED: every score of this module. Rows with a null probability or outcome are left out."""
    known = frame.drop_nulls([probability, outcome])
    if not by:
        return pl.DataFrame([_scores(known, probability, outcome, session, bins)], schema=GROUPED)
    groups = known.partition_by(list(by), as_dict=True, maintain_order=True)
    rows = [
        dict(zip(by, values, strict=True)) | _scores(part, probability, outcome, session, bins)
        for values, part in groups.items()
    ]
    schema = pl.Schema({name: frame.schema[name] for name in by} | dict(GROUPED))
    return pl.DataFrame(rows, schema=schema).sort(list(by))


def forecasts_of(replay: pl.DataFrame) -> pl.DataFrame:
    """The forecasts inside decision records (REPLAY): session, symbol, model_version, vol_regime, confidence and `won`.

    Confidence is the model's probability that its lean ends above its costs, so skipped and rejected decisions count
    with what would have been, and `won` is net_return > 0. Rows without a model's confidence or a known outcome are
    left out."""
    return replay.filter(pl.col("confidence").is_not_null() & pl.col("complete")).select(
        "session", "symbol", "model_version", "vol_regime", "confidence", won=pl.col("net_return") > 0
    )


def wilson_interval(share: FloatArray, rows: FloatArray, z: FloatArray | float) -> tuple[FloatArray, FloatArray]:
    """Lower and upper end for a share of `rows` (a real number, 0 gives 0 to 1) at normal or Student quantile `z`.
    Source: Wilson 1927."""
    squared = np.square(z)
    n = np.maximum(rows, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = (n * share + squared / 2) / (n + squared)
        half = z * np.sqrt(n * share * (1 - share) + squared / 4) / (n + squared)
        known = np.isfinite(centre) & np.isfinite(half)
        return np.where(known, np.maximum(centre - half, 0), 0.0), np.where(known, np.minimum(centre + half, 1), 1.0)


def reliability_diagram(table: pl.DataFrame, title: str = "") -> bytes:
    """A reliability table as a PNG below 50 kB: share that happened over forecast with its intervals, the diagonal of
    perfect calibration, and how many rows lie in each bin. The same bytes for the same table."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 5.6), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    p, happened = table["probability"].to_numpy(), table["happened"].to_numpy()
    reach = np.stack([happened - table["lower"].to_numpy(), table["upper"].to_numpy() - happened])
    top.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle="--", label="calibrated")
    top.errorbar(p, happened, yerr=np.maximum(reach, 0), fmt="o-", color="#1f5fbf", capsize=2, label="measured")
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that happened", title=title)
    top.legend(loc="upper left", fontsize=8)
    low, high = table["low"].to_numpy(), table["high"].to_numpy()
    bottom.bar(low, table["rows"].to_numpy(), width=np.maximum(high - low, 1e-3), align="edge", color="#9db8dd")
    bottom.set(xlabel="forecast probability", ylabel="rows")
    return png(figure)


def _scores(part: pl.DataFrame, probability: str, outcome: str, session: str, bins: int) -> dict[str, float | int]:
    p, y, when = (part[name].to_numpy() for name in (probability, outcome, session))
    parts, line = brier_parts(p, y, bins), calibration_line(p, y, when)
    skill = 1 - parts.brier / parts.uncertainty if parts.uncertainty > 0 else NAN
    return {
        "rows": part.height,
        "sessions": line.sessions,
        "probability": float(np.mean(p)) if part.height else NAN,
        "happened": float(np.mean(y)) if part.height else NAN,
        "brier": parts.brier,
        "skill": skill,
        "log_loss": log_loss(p, y),
        "calibration_error": expected_calibration_error(p, y, bins),
        "by_chance": calibration_error_by_chance(p, y, when, bins),
        "largest_error": maximum_calibration_error(p, y, bins),
        "intercept": line.intercept,
        "slope": line.slope,
        "p_value": line.p_value,
    }


def _effective(
    place: Indices, y: FloatArray, group: Indices, clustered: bool, alpha: float
) -> tuple[FloatArray, FloatArray]:
    """By bin: rows that independent outcomes would need for the same variance of the share, and the quantile to use."""
    from scipy.special import ndtri, stdtrit

    rows = np.maximum(np.bincount(place), 1).astype(np.float64)
    if not clustered:
        return rows, np.full(len(rows), float(ndtri(1 - alpha / 2)))
    share = np.bincount(place, weights=y) / rows
    cell, at = np.unique(group * len(rows) + place, return_inverse=True)
    sums = np.bincount(at, weights=y - share[place])
    sessions = np.bincount(cell % len(rows), minlength=len(rows)).astype(np.float64)
    total = np.bincount(cell % len(rows), weights=sums**2, minlength=len(rows))
    with np.errstate(invalid="ignore", divide="ignore"):
        effective = np.where(total > 0, rows**2 * share * (1 - share) * (sessions - 1) / (sessions * total), rows)
        quantile = stdtrit(sessions - 1, 1 - alpha / 2)
    several = sessions > 1
    return np.where(several, np.minimum(effective, rows), 0.0), np.where(several, quantile, np.inf)


def _gaps(probability: npt.ArrayLike, outcome: npt.ArrayLike, bins: int, by: Bins) -> tuple[FloatArray, FloatArray]:
    """Rows and share − mean forecast of each bin that is not empty."""
    p, y = _pairs(probability, outcome)
    if not p.size:
        return p, p
    place = _place(p, _edges(p, bins, by))
    rows = np.bincount(place).astype(np.float64)
    total = np.bincount(place, weights=y - p)
    return rows[rows > 0], total[rows > 0] / rows[rows > 0]


def _pairs(probability: npt.ArrayLike, outcome: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    p, y, _ = _rows(probability, outcome, None)
    return p, y


def _rows(
    probability: npt.ArrayLike, outcome: npt.ArrayLike, session: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, Indices]:
    """Known rows: forecasts, outcomes and the number of the session, each row its own without sessions."""
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape:
        raise ValueError(f"probability {p.shape} and outcome {y.shape} must be of one length and one dimension")
    known = ~(np.isnan(p) | np.isnan(y))
    label = np.arange(p.size) if session is None else np.asarray(session)
    if label.shape != p.shape:
        raise ValueError(f"session of shape {label.shape} for {p.size} rows: one session per row")
    p, y, label = p[known], y[known], label[known]
    if p.size and not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"a probability lies between 0 and 1; these reach from {p.min():.4g} to {p.max():.4g}")
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError(f"an outcome is 0 or 1, not {y[~np.isin(y, (0.0, 1.0))][0]:.4g}")
    return p, y, np.unique(label, return_inverse=True)[1].astype(np.int64)


def _edges(p: FloatArray, bins: int, by: Bins) -> FloatArray:
    """Edges of the bins, ascending: 0 to 1 in equal steps, or quantiles of the forecasts, doubles dropped."""
    if bins < 1:
        raise ValueError(f"bins={bins}: at least one bin")
    if by == "width":
        return np.linspace(0.0, 1.0, bins + 1)
    if by == "count":
        return np.unique(np.quantile(p, np.linspace(0.0, 1.0, bins + 1), method="inverted_cdf"))
    raise ValueError(f"by={by!r}: 'width' for equal steps, 'count' for equally many rows")


def _place(p: FloatArray, edges: FloatArray) -> Indices:
    """Bin of each forecast: [edge, next edge), the last one closed."""
    return np.clip(np.searchsorted(edges, p, side="right") - 1, 0, max(len(edges) - 2, 0)).astype(np.int64)
