"""What people look at of an encoder: whether regimes lie apart in its embeddings, what it makes of hidden candles,
whether its quantiles hold what they say, and how it learned.

`looked_at` runs an encoder over rows once; tables follow from what it saw, `diagnostics` draws them
(`diagnostics_drawing`) and `page` puts all on one page. Rows that it was trained on flatter it: give later ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.diagnostic_page import Diagnostic, page
from odin_core.encoder.config import REGIMES
from odin_core.evaluation.sequential import cluster_mean_interval
from odin_core.features.series import IntArray
from odin_core.features.windows import BoolArray, Float32Array

if TYPE_CHECKING:
    from odin_core.encoder.model import TrainedEncoder
    from odin_core.encoder.samples import Samples

Method = Literal["pca", "tsne"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
MOST_WINDOWS: Final = 48
MOST_POINTS: Final = 800  # on a map; t-SNE takes some seconds for them
STEPS: Final = 500  # of t-SNE
NEIGHBOURS: Final = 15
ALPHA: Final = 0.05

MAP: Final = pl.Schema(
    {"method": pl.String(), "x": pl.Float64(), "y": pl.Float64(), "regime": pl.String(), "session": pl.Date()}
)
RECONSTRUCTION: Final = pl.Schema(
    {
        "feature": pl.String(),
        "rows": pl.Int64(),  # hidden ones
        "skill": pl.Float64(),  # 1 − Σ(true − said)² / Σ(true − mean in training)²: 0 says the average, 1 knows it
        "last_seen": pl.Float64(),  # skill of saying that nothing has changed since the last row that was seen
    }
)
COVERAGE: Final = pl.Schema(
    {
        "horizon": pl.Int64(),  # bars ahead
        "level": pl.Float64(),
        "rows": pl.Int64(),
        "sessions": pl.Int64(),
        "observed": pl.Float64(),  # share of outcomes at or below the quantile; calibrated is `level`
        "lower": pl.Float64(),  # 95 % interval, sessions being what varies
        "upper": pl.Float64(),
        "binomial_lower": pl.Float64(),  # as if every row were independent, which they are not: too narrow
        "binomial_upper": pl.Float64(),
        "holds": pl.Boolean(),  # the level lies between lower and upper
    }
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Looked:
    """What an encoder saw and said over windows, (windows, rows, …), rows being bars of one symbol.

    `counted` (w, t): rows to judge it by: usable ones with half a window of rows before them, each in one window."""

    features: tuple[str, ...]
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    session: IntArray  # (w, t) ordinal day
    counted: BoolArray
    embedding: Float32Array
    regime: IntArray  # −1 unknown
    quantiles: Float32Array  # (w, t, horizons, levels)
    returns: Float32Array  # (w, t, horizons), NaN unknown
    true: Float32Array  # (w, t, features), in the features' own units
    said: Float32Array  # likewise, with some rows hidden
    seen: BoolArray  # (w, t) rows that were shown when `said` was said
    hidden: BoolArray  # (w, t) usable rows that were not
    mean: Float32Array  # (features,) over the training rows


def looked_at(
    model: "TrainedEncoder", samples: "Samples", *, seed: int = 0, most_windows: int = MOST_WINDOWS
) -> Looked:
    """The encoder over at most `most_windows` windows of `samples`, evenly spaced in rows, once as they are and once
    with rows hidden (drawn by `seed`). Runs as the encoder's configuration says, so it is repeatable."""
    import torch

    from odin_core.encoder.samples import masked_spans, window_rows
    from odin_core.encoder.training import repeatable

    ends = _ends(samples, most_windows)
    at, exists = window_rows(samples, ends)
    usable = samples.valid[at] & exists
    config, scaling = model.config, model.scaling
    spans = masked_spans(np.random.default_rng(seed), len(ends), samples.length, config.mask_share, config.mask_span)
    hidden = spans & usable
    values = torch.from_numpy(scaling.of(samples.values[at], usable))
    with torch.inference_mode(), repeatable(config.threads, "cpu"):
        embedding = model.encoder(values, torch.from_numpy(usable))
        quantiles = model.heads(embedding).quantiles
        said = model.heads(model.encoder(values, torch.from_numpy(usable & ~hidden))).candles
    behind = np.arange(samples.length) - (~exists).sum(axis=1, keepdims=True)  # rows before each
    return Looked(
        features=model.features,
        horizons=samples.horizons,
        levels=config.quantiles,
        session=samples.session[at],
        counted=usable & (behind >= samples.length - samples.length // 2),
        embedding=embedding.numpy(),
        regime=np.where(exists, samples.targets.regime[at], -1),
        quantiles=quantiles.numpy(),
        returns=np.where(exists[..., None], samples.targets.returns[at], np.float32(np.nan)),
        true=np.where(usable[..., None], samples.values[at], np.float32(np.nan)),
        said=said.numpy() * scaling.deviation + scaling.mean,
        seen=usable & ~hidden,
        hidden=hidden,
        mean=scaling.mean,
    )


def diagnostics(model: "TrainedEncoder", samples: "Samples", *, seed: int = 0) -> list[Diagnostic]:
    """All there are: "embedding_map", "reconstruction", "quantile_coverage", "loss_curves". samples: rows of sessions
    that the encoder was not trained on, if they shall tell anything; `told` says whether they are."""
    from odin_core.encoder import diagnostics_drawing as drawing

    looked = looked_at(model, samples, seed=seed)
    maps = pl.concat([embedding_map(looked, method=method, seed=seed) for method in METHODS])
    alike, chance = neighbours_alike(looked)
    rebuilt, coverage, curves = reconstruction(looked), coverage_of(looked), model.curves
    of = _of_which_sessions(model, samples)
    held, judged = int(coverage["holds"].sum()), coverage["holds"].count()
    better = rebuilt.filter(pl.col("skill") > pl.max_horizontal(pl.col("last_seen"), 0.0)).height
    return [
        Diagnostic(
            name="embedding_map",
            title="Embeddings by regime",
            told=f"Each point is a bar{of}. {_neighbours(alike, chance)} PCA keeps distances as far as two dimensions "
            f"can, t-SNE neighbourhoods alone.",
            table=maps,
            picture=drawing.map_picture(maps),
        ),
        Diagnostic(
            name="reconstruction",
            title="Hidden candles, reconstructed",
            told=f"What was said of hidden bars{of}: skill 1 is knowing, 0 is saying the training's average. {better} "
            f"of {rebuilt.height} features are said better than by that average and by the last row seen. Each candle "
            f"is drawn from the true close before it.",
            table=rebuilt,
            picture=drawing.reconstruction_picture(looked, rebuilt, model.config.interval),
        ),
        Diagnostic(
            name="quantile_coverage",
            title="Quantiles of returns: what they say and what they hold",
            told=f"Share of returns that came at or below each quantile{of}; on the diagonal it is the share that was "
            f"said. {held} of {judged} lie within what sessions leave open at 95 %, each looked at by itself.",
            table=coverage,
            picture=drawing.coverage_picture(coverage),
        ),
        Diagnostic(
            name="loss_curves",
            title="How it learned",
            told=f"Losses by head and step; the weights are those of step {model.facts.get('best_step', '–')}, where "
            f"the validation's total was least.",
            table=curves,
            picture=drawing.curves_picture(curves),
        ),
    ]  # fmt: skip


def diagnostics_page(model: "TrainedEncoder", samples: "Samples", *, seed: int = 0) -> str:
    """`diagnostics` on one HTML page."""
    config = model.config
    told = (
        f"A {config.architecture} on bars of {config.interval}, {config.embedding} numbers a bar, trained on sessions "
        f"through {model.trained_through}."
    )
    return page(f"Diagnostics of {model.version}", told, diagnostics(model, samples, seed=seed))


def embedding_map(looked: Looked, *, method: Method = "pca", seed: int = 0, most: int = MOST_POINTS) -> pl.DataFrame:
    """MAP: embeddings of at most `most` counted rows in two dimensions, with the regime of their session (null where
    unknown). pca: the directions of most variance, which keep distances as far as two can. tsne: neighbours stay
    neighbours, nothing else is kept; perplexity 30 or a third of the rows. The same rows and seed, the same numbers.
    Source: van der Maaten & Hinton 2008; scikit-learn."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    embedding, regime, session = _points(looked, most)
    if len(embedding) < 4:
        return MAP.to_frame()
    with threadpool_limits(1):
        if method == "pca":
            found = PCA(2, svd_solver="full").fit_transform(embedding)
        else:
            perplexity = min(30.0, (len(embedding) - 1) / 3)
            found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, max_iter=STEPS).fit_transform(
                embedding
            )
    names = [None if place < 0 else REGIMES[place] for place in regime]
    days = [date.fromordinal(day) for day in session]
    return pl.DataFrame(
        {"method": [method] * len(found), "x": found[:, 0], "y": found[:, 1], "regime": names, "session": days},
        schema=MAP,
    )


def neighbours_alike(looked: Looked, *, most: int = MOST_POINTS) -> tuple[float, float]:
    """Share of a row's 15 nearest embeddings, of other sessions than its own, that are of its session's regime, and
    that share were neighbours dealt out at random. NaN where no regime is known."""
    embedding, regime, session = _points(looked, most)
    known = regime >= 0
    x, regime, session = embedding[known].astype(np.float64), regime[known], session[known]
    alike, by_chance = [], []
    for n in range(len(x)):
        others = np.flatnonzero(session != session[n])
        if len(others) < NEIGHBOURS:
            continue
        same = regime[others] == regime[n]
        near = np.argsort(((x[others] - x[n]) ** 2).sum(axis=1), kind="stable")[:NEIGHBOURS]
        alike.append(same[near].mean())
        by_chance.append(same.mean())
    if not alike:
        return float("nan"), float("nan")
    return float(np.mean(alike)), float(np.mean(by_chance))


def reconstruction(looked: Looked) -> pl.DataFrame:
    """RECONSTRUCTION, a row a feature, over hidden rows with half a window before them; null where nothing varies."""
    judged = looked.hidden & looked.counted
    before = _last_seen(looked)
    rows = []
    for place, name in enumerate(looked.features):
        true, said, last = (
            array[..., place][judged].astype(np.float64) for array in (looked.true, looked.said, before)
        )
        whole = float(((true - looked.mean[place]) ** 2).sum())
        skills = [1 - float(((true - guess) ** 2).sum()) / whole if whole > 0 else None for guess in (said, last)]
        rows.append([name, int(judged.sum()), *skills])
    return pl.DataFrame(rows, schema=RECONSTRUCTION, orient="row")


def quantile_coverage(
    quantiles: NDArray[np.floating],
    returns: NDArray[np.floating],
    session: IntArray,
    horizons: Sequence[int],
    levels: Sequence[float],
) -> pl.DataFrame:
    """COVERAGE: how often the outcome came at or below each quantile. quantiles (n, horizons, levels); returns (n,
    horizons), NaN unknown; session (n,), any label: outcomes of one session move together, so intervals are those of
    a mean over sessions (`cluster_mean_interval`); the exact binomial one (Clopper, Pearson 1934) stands beside it."""
    from scipy.stats import beta

    rows = []
    for h, horizon in enumerate(horizons):
        known = ~np.isnan(returns[:, h])
        for q, level in enumerate(levels):
            below = (returns[known, h] <= quantiles[known, h, q]).astype(np.float64)
            n, k = len(below), int(below.sum())
            mean = cluster_mean_interval(below, session[known], ALPHA)
            low = float(beta.ppf(ALPHA / 2, k, n - k + 1)) if k else 0.0
            high = float(beta.ppf(1 - ALPHA / 2, k + 1, n - k)) if k < n else 1.0
            lower, upper = max(mean.lower, 0.0), min(mean.upper, 1.0)
            holds = lower <= level <= upper if n else None
            rows.append([horizon, level, n, len(np.unique(session[known])), mean.mean if n else None, lower, upper,
                         low, high, holds])  # fmt: skip
    return pl.DataFrame(rows, schema=COVERAGE, orient="row")


def coverage_of(looked: Looked) -> pl.DataFrame:
    """`quantile_coverage` of the counted rows."""
    kept = looked.counted
    return quantile_coverage(
        looked.quantiles[kept], looked.returns[kept], looked.session[kept], looked.horizons, looked.levels
    )


def _of_which_sessions(model: "TrainedEncoder", samples: "Samples") -> str:
    days = samples.sessions
    if not days:
        return ", of no session"
    known = days[0] <= model.trained_through
    told = ", some of which it was trained on" if known else ", all after its training"
    return f" of {len(days)} sessions from {days[0]} to {days[-1]}{told}"


def _neighbours(alike: float, chance: float) -> str:
    if np.isnan(alike):
        return "Too few bars of known regime (it takes ten sessions) to say whether neighbours share one."
    return (
        f"Of the {NEIGHBOURS} embeddings nearest to one, from other sessions, {alike:.0%} are of the same regime; "
        f"dealt out at random {chance:.0%} would be."
    )


def _ends(samples: "Samples", most: int) -> IntArray:
    """Rows that windows end with: every half window from each symbol's newest row back, then as many as asked for."""
    half = max(samples.length // 2, 1)
    ends = [np.arange(stop - 1, start - 1, -half) for start, stop in pairwise(samples.starts.tolist())]
    every = np.sort(np.concatenate(ends)).astype(np.int64)
    return every[np.unique(np.linspace(0, len(every) - 1, min(len(every), most)).astype(np.int64))]


def _points(looked: Looked, most: int) -> tuple[Float32Array, IntArray, IntArray]:
    """Embedding, regime and session of counted rows, evenly spaced."""
    rows = np.flatnonzero(looked.counted)
    chosen = (
        rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64))] if len(rows) else rows
    )
    flat = looked.embedding.reshape(-1, looked.embedding.shape[-1])
    return flat[chosen], looked.regime.ravel()[chosen], looked.session.ravel()[chosen]


def _last_seen(looked: Looked) -> Float32Array:
    """(w, t, features): the features of the last row up to each that was shown; the training's mean before one was."""
    place = np.where(looked.seen, np.arange(looked.seen.shape[1]), -1)
    place = np.maximum.accumulate(place, axis=1)
    last = np.take_along_axis(looked.true, np.maximum(place, 0)[..., None], axis=1)
    return np.where((place >= 0)[..., None], last, looked.mean)
