"""What a champion was trained on, kept small, and how far the newest sessions lie from it: the drift tripwire.

What comes in: values (n, k) of *subjects* (features, predictions, labels, categories) with each row's session. A
`Reference` is made when a model is trained and stored with it; `drift_of` holds later sessions against it. The
statistics themselves are in `drift`, pages for people in `drift_page`. That an alarm halts entries only when it comes
twice in a row is the rule of those who call."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.errors import OdinError, nearest
from odin_core.monitoring import drift, tripwire

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
FORMAT: Final = 1
KINDS: Final = ("feature", "prediction", "label", "categorical")
TRIPWIRE: Final = ("feature", "categorical")  # kinds whose largest score trips; the others are told, each by itself
CATEGORIES: Final = 32
SKETCH: Final = 100  # quantiles that stand for the reference's sample
BROKEN: Final = 0.1  # share of rows beyond which missing ones are a fault
FAR: Final = 0.8  # share of rows beyond which those far outside the range are a fault
FAR_SESSIONS: Final = 60  # far: by this over the reference's sessions times the range's width, at least by half of it
RESAMPLES: Final = 1_000

DRIFT = pl.Schema(
    {
        "subject": pl.String(),
        "kind": pl.String(),
        "rows": pl.Int64(),  # known ones, on the last `window_sessions` sessions
        "psi": pl.Float64(),  # population stability index, NaN counted as a bin of its own
        "floor": pl.Float64(),  # psi_threshold of independent rows
        "limit": pl.Float64(),  # from where on the index is an alarm; null: chance alone could do as much, faults count
        "score": pl.Float64(),  # psi / limit
        "fault": pl.String(),  # what is broken: missing, far outside or stuck values
        "alarm": pl.Boolean(),  # a score of 1 or more, or a fault
        "ks": pl.Float64(),
        "ks_p": pl.Float64(),  # of independent rows; for categories, of the chi-square test
        "wasserstein": pl.Float64(),  # in the reference's standard deviations
        "kl": pl.Float64(),  # nats
        "z": pl.Float64(),  # of the window's mean, by the error that the reference's own sessions show
        "missing": pl.Float64(),
        "missing_reference": pl.Float64(),
        "out_of_range": pl.Float64(),
    }
)


class NotAReference(OdinError):
    def __init__(self, what: str) -> None:
        super().__init__(f"this is no drift reference: {what}. Train the model again; its reference is made with it")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One column of the reference. Bins are as `drift.bin_counts` has them, the last count is of missing values."""

    name: str
    kind: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    minimum: float | None  # null: no value known
    maximum: float | None
    missing: float  # share of rows
    mean: float | None  # of the known rows
    deviation: float | None  # of the known rows, ddof 0
    error: float | None  # standard deviation of (mean of a window − mean of the reference) over resamples
    limit: float | None  # from here on the index of a window is beyond chance; null: nothing can be judged
    sketch: tuple[float, ...]  # SKETCH quantiles, ascending


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What `fit_reference` saw. A value; `to_json` gives the same bytes for the same input."""

    subjects: tuple[Subject, ...]
    rows: int
    sessions: int
    window_sessions: int
    level: float
    resamples: int
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.subjects)

    @property
    def can_judge(self) -> bool:
        return self.sessions >= self.window_sessions

    @property
    def edges(self) -> FloatArray:
        """(k, most edges), shorter lists filled with +inf."""
        return _filled([s.edges for s in self.subjects])


@dataclass(frozen=True, kw_only=True)
class DriftScores:
    """Scores of one window of sessions against a reference."""

    table: pl.DataFrame  # DRIFT, one row per subject in the reference's order
    alarm: bool  # a feature's index is beyond its limit
    statistic: float | None  # the largest score over features: 1 is the tripwire; None where none has a limit
    worst: str | None  # the feature that raised the alarm, else the one with the largest score
    judged: bool
    reason: str  # why not, or what the finding is
    sessions: int  # sessions looked at

    @property
    def alarms(self) -> tuple[str, ...]:
        """The subjects beyond their limit, predictions and labels included."""
        return tuple(self.table.filter("alarm")["subject"])


def fit_reference(
    values: npt.NDArray[Any],
    names: Sequence[str],
    kinds: Sequence[str] | None,
    session: npt.ArrayLike,
    *,
    seed: int,
    window_sessions: int = 20,
    bins: int = 10,
    resamples: int = RESAMPLES,
) -> Reference:
    """The reference of training rows `values` (n, k), float32 or float64, NaN for missing, each decided in a `session`
    (n,), any sortable numbers. `kinds` (k,) out of KINDS, None: all are features. Raises ValueError for shapes that do
    not fit, unknown kinds and categories of more than CATEGORIES values.

    Bins are deciles of the training rows with open ends and one for missing values; a category's or a constant's each
    hold one value, and what lies between them. Predictions and labels may be missing without being the worse for it: a
    prediction should come from the walk-forward, for one on rows that were trained on is not like a later one. `seed`
    draws the resamples that the limits follow from (`tripwire`): 0.03 s for 126 sessions × 50 symbols × 28 features."""
    x, order, place = _checked(values, names, kinds, session)
    kinds = tuple(kinds) if kinds is not None else ("feature",) * len(names)
    ranked = np.sort(x.T, axis=1)  # NaN last
    n_known = x.shape[0] - np.isnan(x).sum(axis=0)
    edges = [_edges(ranked[j, : n_known[j]], kinds[j], names[j], bins) for j in range(len(names))]
    counts = drift.bin_counts(x, _filled(edges), place, len(order))
    error, limit = _resampled(x, counts, place, kinds, window_sessions, resamples, seed)
    subjects = tuple(
        Subject(name=names[j], kind=kinds[j], edges=edges[j],
                counts=_trimmed(counts[:, j].sum(axis=0), len(edges[j])), error=error[j], limit=limit[j],
                **_described(ranked[j, : n_known[j]], len(x)))
        for j in range(len(names))
    )  # fmt: skip
    return Reference(subjects=subjects, rows=len(x), sessions=len(order), window_sessions=window_sessions,
                     level=tripwire.LEVEL, resamples=resamples, seed=seed)  # fmt: skip


def drift_of(reference: Reference, values: npt.NDArray[Any], session: npt.ArrayLike) -> DriftScores:
    """Scores of the last `window_sessions` sessions among the rows `values` (n, k), columns as in the reference.

    A feature's alarm is an index at or above both its floor and its limit, or a fault; any of them is the tripwire.
    With fewer sessions than `window_sessions` here or in the reference the numbers are there and nothing is judged.
    False alarms and power: `tripwire`. Raises ValueError for shapes that do not fit."""
    x, order, _ = _checked(values, reference.names, None, session)
    last = order[-reference.window_sessions :]
    x = x[np.isin(np.asarray(session), last)]
    table = _table(reference, x)
    reason = _unjudged(reference, len(last), len(x))
    if reason:
        unknown = [pl.lit(None, DRIFT[c]).alias(c) for c in ("limit", "score")]
        table = table.with_columns(*unknown, fault=pl.lit(None, pl.String), alarm=pl.lit(False))
        return DriftScores(table=table, alarm=False, statistic=None, worst=None, judged=False, reason=reason,
                           sessions=len(last))  # fmt: skip
    watched = table.filter(pl.col("kind").is_in(TRIPWIRE)).sort("alarm", "score", descending=True, nulls_last=True)
    alarm = bool(watched["alarm"].any())
    worst, score = (watched["subject"][0] if watched.height else None), watched.select(pl.col("score").max()).item()
    return DriftScores(table=table, alarm=alarm, statistic=score, worst=worst, judged=True,
                       reason=_finding(watched, alarm), sessions=len(last))  # fmt: skip


def to_json(reference: Reference) -> str:
    """One line of canonical JSON."""
    return json.dumps({"format": FORMAT, **asdict(reference)}, sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(text: str) -> Reference:
    """The reference that `to_json` wrote. Raises NotAReference."""
    try:
        raw = json.loads(text)
        if raw.pop("format") != FORMAT:
            raise NotAReference(f"its format is not {FORMAT}")
        listed = ("edges", "counts", "sketch")
        subjects = tuple(Subject(**(s | {f: tuple(s[f]) for f in listed})) for s in raw.pop("subjects"))
        return Reference(subjects=subjects, **raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotAReference(str(error)) from error


def _checked(
    values: npt.NDArray[Any], names: Sequence[str], kinds: Sequence[str] | None, session: npt.ArrayLike
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], IntArray]:
    """The values as float, the sessions ascending, and each row's place among them."""
    x = np.asarray(values)
    x = x if x.dtype == np.float32 else x.astype(np.float64)
    which = np.asarray(session)
    if x.ndim != 2 or x.shape[1] != len(names) or which.shape != (len(x),):
        raise ValueError(f"values {x.shape} and session {which.shape} do not fit {len(names)} names")
    if kinds is not None and len(kinds) != len(names):
        raise ValueError(f"{len(kinds)} kinds for {len(names)} names")
    for kind in kinds or ():
        if kind not in KINDS:
            raise ValueError(f"there is no kind {kind!r}; {nearest(kind, KINDS)}")
    order, place = np.unique(which, return_inverse=True)
    return x, order, place.astype(np.int64)


def _edges(ranked: FloatArray, kind: str, name: str, bins: int) -> tuple[float, ...]:
    """Inner edges from known values, ascending. Categories and constants get a bin each, the gaps their own."""
    if not ranked.size:
        return ()
    if kind == "categorical" or ranked[0] == ranked[-1]:
        codes = np.unique(ranked)
        if len(codes) > CATEGORIES:
            raise ValueError(f"{name} has {len(codes)} values; a category has at most {CATEGORIES}, or it is a feature")
        below = np.nextafter(codes, codes.dtype.type(-np.inf))
        return tuple(np.unique(np.concatenate([below, codes]).astype(float)).tolist())
    at = np.ceil(np.arange(1, bins) / bins * len(ranked)).astype(int) - 1
    inner = np.unique(ranked[at].astype(float))
    return tuple(inner[inner < ranked[-1]].tolist())


def _described(ranked: FloatArray, rows: int) -> dict[str, Any]:
    n = len(ranked)
    if not n:
        nothing = dict.fromkeys(("minimum", "maximum", "mean", "deviation"))
        return nothing | {"missing": 1.0 if rows else 0.0, "sketch": ()}
    wide = ranked.astype(np.float64)
    at = np.minimum(((np.arange(SKETCH) + 0.5) / SKETCH * n).astype(int), n - 1)
    return {
        "minimum": float(wide[0]),
        "maximum": float(wide[-1]),
        "missing": 1 - n / rows,
        "mean": float(wide.mean()),
        "deviation": float(wide.std()),
        "sketch": tuple(float(f"{v:.7g}") for v in wide[at]),
    }


def _trimmed(counts: IntArray, n_edges: int) -> tuple[int, ...]:
    return (*counts[: n_edges + 1].tolist(), int(counts[-1]))


def _filled(edges: Sequence[Sequence[float]]) -> FloatArray:
    most = max((len(e) for e in edges), default=0)
    return np.array([[*e, *[np.inf] * (most - len(e))] for e in edges], np.float64).reshape(len(edges), most)


def _resampled(
    x: npt.NDArray[Any], counts: IntArray, place: IntArray, kinds: Sequence[str], window: int, resamples: int, seed: int
) -> tuple[list[float | None], list[float | None]]:
    """Each subject's error of a window's mean, and its limit; None where too few sessions have rows."""
    nothing: list[float | None] = [None] * len(kinds)
    if len(counts) < window or not len(kinds):
        return nothing, nothing
    rng = np.random.default_rng([seed, len(counts), len(kinds)])
    sums = np.zeros(counts.shape[:2])
    np.add.at(sums, place, np.nan_to_num(x.astype(np.float64), nan=0.0))
    drawn = tripwire.draw(_seen(counts, kinds), sums, window, resamples, rng)
    limit = tripwire.limits(_seen(counts, kinds), drawn, np.isin(kinds, TRIPWIRE), window, rng)
    error = [_number(v[np.isfinite(v)].std()) if np.isfinite(v).any() else None for v in drawn.shift.T]
    return error, [_number(v) for v in limit]


def _seen(counts: IntArray, kinds: Sequence[str]) -> IntArray:
    """The counts without the missing ones of predictions and labels, which are not made or known for every row."""
    waits = ~np.isin(kinds, TRIPWIRE)
    seen = counts.copy()
    seen[..., waits, -1] = 0
    return seen


def _table(reference: Reference, x: npt.NDArray[Any]) -> pl.DataFrame:
    """DRIFT of the rows `x`, as if everything could be judged."""
    subjects = reference.subjects
    kinds = [s.kind for s in subjects]
    now = _seen(drift.bin_counts(x, reference.edges), kinds)[0]
    then = _seen(np.array([_widened(s.counts, now.shape[1]) for s in subjects], np.int64).reshape(now.shape), kinds)
    bins = np.array([len(s.edges) + 1 + (s.kind in TRIPWIRE) for s in subjects])
    floor = np.asarray(drift.psi_threshold(then.sum(axis=1), now.sum(axis=1), bins))
    with np.errstate(invalid="ignore"):
        psi, kl = drift.population_stability_index(then, now), drift.kullback_leibler(then, now)
    missing = drift.missing_rate(x)
    rows = [
        _row(s, x[:, j], then[j], now[j], reference.sessions)
        | {"psi": _number(psi[j]), "kl": _number(kl[j]), "floor": _number(floor[j]), "missing": _number(missing[j])}
        for j, s in enumerate(subjects)
    ]
    table = pl.DataFrame(rows, schema={c: t for c, t in DRIFT.items() if c not in ("limit", "score", "alarm")})
    limit = [None if s.limit is None else max(s.limit, f) for s, f in zip(subjects, floor, strict=True)]
    return (
        table.with_columns(limit=pl.Series(limit, dtype=pl.Float64))
        .with_columns(score=pl.col("psi") / pl.col("limit"))
        .with_columns(alarm=(pl.col("score") >= 1).fill_null(False) | pl.col("fault").is_not_null())
        .select(*DRIFT)
    )


def _row(subject: Subject, column: npt.NDArray[Any], then: IntArray, now: IntArray, sessions: int) -> dict[str, Any]:
    """Everything of one subject but what is computed for all at once."""
    values = drift.known(column)
    out = drift.out_of_range(values[:, None], _or_nan(subject.minimum), _or_nan(subject.maximum))[0]
    row: dict[str, Any] = {
        "subject": subject.name, "kind": subject.kind, "rows": len(values),
        "missing_reference": subject.missing, "out_of_range": _number(out),
        "fault": _fault(subject, column, values, sessions),
    }  # fmt: skip
    if not values.size or subject.deviation is None:
        return row
    row["z"] = _ratio(values.mean() - subject.mean, subject.error)
    if subject.kind == "categorical":
        row["ks_p"] = _number(drift.chi_square(then[:-1], now[:-1]).p_value)
        return row
    known_then = int(then[:-1].sum())
    test = drift.kolmogorov_smirnov(subject.sketch, values, known_then)
    distance = drift.wasserstein(subject.sketch, values)
    return row | {"ks": test.statistic, "ks_p": test.p_value, "wasserstein": _ratio(distance, subject.deviation)}


def _fault(subject: Subject, column: npt.NDArray[Any], values: FloatArray, sessions: int) -> str | None:
    """What is broken rather than drifted, in words; None where nothing is. `sessions`: of the reference."""
    if subject.kind in TRIPWIRE and len(column) and 1 - len(values) / len(column) > subject.missing + BROKEN:
        return f"{1 - len(values) / len(column):.0%} missing, {subject.missing:.0%} in the reference"
    if not values.size or subject.minimum is None or subject.maximum is None:
        return None
    width = subject.maximum - subject.minimum
    slack = width * max(0.5, FAR_SESSIONS / max(sessions, 1))
    far = ((values < subject.minimum - slack) | (values > subject.maximum + slack)).mean()
    if far > FAR:
        return f"{far:.0%} of the values lie far outside the reference's range"
    if subject.kind != "categorical" and width > 0 and len(values) > 1 and np.ptp(values) == 0:
        return f"all values are {values[0]:g}"
    return None


def _unjudged(reference: Reference, sessions: int, rows: int) -> str:
    """Why nothing can be judged; empty where it can."""
    needed = reference.window_sessions
    if not reference.can_judge:
        return f"the reference has {reference.sessions} sessions; drift can be judged from {needed} on"
    if sessions < needed or not rows:
        return f"{sessions} sessions to look at; drift is judged on {needed}"
    return ""


def _finding(watched: pl.DataFrame, alarm: bool) -> str:
    if watched.is_empty():
        return "the reference has no feature to watch"
    if not alarm:
        row = watched.row(0, named=True)
        if row["score"] is None:
            return "no feature has enough sessions in the reference to be judged"
        return f"no drift; furthest is {row['subject']}, at {row['score']:.0%} of its limit (index {row['psi']:.2f})"
    parts = [
        f"{r['subject']}: {r['fault'] or 'index {psi:.2f} beyond {limit:.2f}'.format(**r)}"
        for r in watched.filter("alarm").iter_rows(named=True)
    ]
    more = f" and {len(parts) - 5} more" if len(parts) > 5 else ""
    return f"drift in {'; '.join(parts[:5])}{more}"


def _widened(counts: Sequence[int], bins: int) -> list[int]:
    return [*counts[:-1], *[0] * (bins - len(counts)), counts[-1]]


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _ratio(value: Any, unit: float | None) -> float | None:
    return _number(value / unit) if unit else None


def _number(value: Any) -> float | None:
    """A float with nine significant digits, so that sums in another order give the same bytes; None for NaN."""
    return float(f"{value:.9g}") if np.isfinite(value) else None
