"""How far chance alone carries a window of sessions from its reference, and from where on that is an alarm.

Symbols of one session move together and neighbouring sessions resemble each other, so the number of rows says little
about how much a window may differ. What comes in: rows per session, subject and bin (`drift.bin_counts`) of the
reference. What is done with the limits is in `reference`.

Why not one limit for the largest raw index: a volatility that all symbols share moves the index by 8 and more in
any month, so nothing else would ever be seen; and even so such a limit (99.5 %, blocks of 5 or 10) was crossed
twice in a row in 73 % or 37 % of the undisturbed lives below, as slow features have few independent months and
there are a hundred looks. Hence scores in units of each feature's own chance, a model for what blocks of a short
reference cannot show, and a factor chosen so that the table below stays near 2 % at worst.

Measured share of undisturbed lives, one look after each of 120 sessions against a fixed reference, in which two
looks in a row alarm by the index (tests repeat a small version):

    sessions of the reference                                  126     60      40      25
    panels of 25 correlated features × 50 symbols, 300 lives   0.003   0.013   0.013   0.023
    demo exchange, 25 decision features, 20 seeds (40)         0       0       0

On recorded markets, 16 daily features like the decision set's, 126 sessions: in 9 of 40 lives. Not all of that is
error, for two began in March 2020, others in March 2022, February 2018 and December 2018; with 60 sessions in 5 of
41. Faults came in 2 of these 81, and in none of the table's.

Measured power, a shift added to one feature on all of the 20 sessions, 126 sessions of reference (60), 12 lives; no
other feature ever alarmed with it:

    standard deviations                                             0.5           1             2
    rsi_14_5m, of the demo exchange                                 0.42 (0.08)   1.00 (1.00)   1.00 (1.00)
    volume_z_18_75_5m                                               1.00 (0.58)   1.00 (1.00)   1.00 (1.00)
    session_return_day                                              0.00 (0.00)   0.50 (0.00)   1.00 (0.92)
    NSE by day: return                                              0.17 (0.00)   0.92 (0.42)   1.00 (1.00)
    volatilities and the market's own: no limit, only faults        0             0             0

So the tripwire is for what changes from day to day. Slow features, eight of the decision set's 25 and sometimes two
more, have no limit: to wander over months is what they do, and a reference of half a year has seen too little of it."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odin_core.features.series import compiled
from odin_core.monitoring.drift import FLOOR

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BLOCK = 10  # sessions, two weeks
LEVEL = 0.995
MARGIN, MARGIN_SESSIONS = 1, 250  # 3.0 for a reference of 126 sessions, 5.2 for 60
MOST_PERSISTENT = 0.97  # autocorrelation from one session to the next; beyond it a reference cannot tell a level
DECILES = 10


class Chance(NamedTuple):
    psi: FloatArray  # (resamples, k) index of a drawn window against a reference drawn apart
    shift: FloatArray  # (resamples, k) difference of their means; NaN without known rows


class Persistence(NamedTuple):
    """A subject's normal scores as a level common to a session, first-order autoregressive, plus noise; arrays (k,)."""

    level: FloatArray  # variance of the sessions' levels around the reference's mean
    noise: FloatArray  # variance of the rows around their session's level
    autocorrelation: FloatArray  # of the levels, from one session to the next, corrected for its bias
    error: FloatArray  # its standard error
    sessions: IntArray  # with rows


def limits(
    counts: IntArray, chance: Chance, watched: npt.NDArray[np.bool_], window: int, rng: np.random.Generator
) -> FloatArray:
    """(k,) population stability index from which on a window of `window` sessions is beyond chance; NaN where fewer
    sessions have rows, or where chance alone reaches as far as the index can. `watched` (k,): those whose largest score
    is the tripwire; the others have one together. `chance` is `draw`'s, of the same `counts`.

        ownⱼ = greater of the 99.5 % quantiles of `chance` and of `slow_levels`
        trip = 99.5 % quantile, over resamples, of maxⱼ indexⱼ / ownⱼ
        limitⱼ = (1 + 250 / sessions) · max(trip, 1) · ownⱼ"""
    subject = persistence(counts)
    model = slow_levels(subject, window, len(chance.psi), rng)
    own = np.maximum(np.quantile(chance.psi, LEVEL, axis=0), np.quantile(model, LEVEL, axis=0))
    scores = np.where(own > 0, chance.psi / np.where(own > 0, own, 1), 0)
    trip = np.ones(len(own))
    for group in (watched, ~watched):
        if group.any():
            trip[group] = np.quantile(scores[:, group].max(axis=1), LEVEL)
    margin = MARGIN + MARGIN_SESSIONS / np.maximum(subject.sessions, 1)
    limit = margin * np.maximum(trip, 1) * own
    return np.where((subject.sessions >= window) & (limit <= greatest(counts)), limit, np.nan)


def greatest(counts: IntArray) -> FloatArray:
    """(k,) the index if a whole window lay in the rarest bin that the reference knows: about 12 with ten equal bins."""
    p = counts.sum(axis=0) / np.maximum(counts.sum(axis=(0, 2)), 1)[:, None]
    floored = np.maximum(p, FLOOR)
    elsewhere = (p - FLOOR) * np.log(floored / FLOOR)
    there = (1 - p) * np.log(1 / floored)
    each = np.where(p[:, :-1] > 0, there[:, :-1] + elsewhere.sum(axis=1, keepdims=True) - elsewhere[:, :-1], 0)
    return each.max(axis=1, initial=0)


def draw(counts: IntArray, sums: FloatArray, window: int, resamples: int, rng: np.random.Generator) -> Chance:
    """Windows and references drawn apart from the same sessions: `counts` (sessions, k, bins + 1), `sums` (sessions, k)
    of the known values, sessions ascending."""
    sessions = len(counts)
    reference = blocks(rng, sessions, sessions, BLOCK, resamples)
    current = blocks(rng, sessions, window, BLOCK, resamples)
    flat = np.ascontiguousarray(counts.reshape(sessions, -1))
    return Chance(
        *_drawn(flat, counts.shape[1], counts.shape[2], np.ascontiguousarray(sums), reference, current, FLOOR)
    )


def blocks(rng: np.random.Generator, sessions: int, wanted: int, block: int, resamples: int) -> IntArray:
    """(resamples, wanted) session numbers: runs of `block` neighbours, each from a random one on, the last before the
    first. Source: Politis & Romano 1992, the circular block bootstrap."""
    starts = rng.integers(0, sessions, (resamples, -(-wanted // block)))
    drawn = (starts[:, :, None] + np.arange(block)) % sessions
    return drawn.reshape(resamples, -1)[:, :wanted].astype(np.int64)


def persistence(counts: IntArray) -> Persistence:
    """How a subject's level wanders from session to session, from `counts` (sessions, k, bins + 1)."""
    from scipy.special import ndtri

    rows = counts[:, :, :-1].sum(axis=2)
    present = rows > 0
    sessions = present.sum(axis=0)
    pooled = counts[:, :, :-1].sum(axis=0)
    p = pooled / np.maximum(pooled.sum(axis=1, keepdims=True), 1)
    upper = np.cumsum(p, axis=1)
    density = [np.exp(-(ndtri(np.clip(c, 0, 1)) ** 2) / 2) / np.sqrt(2 * np.pi) for c in (upper - p, upper)]
    score = np.where(p > 0, (density[0] - density[1]) / np.where(p > 0, p, 1), 0)  # mean normal score of a bin
    share = counts[:, :, :-1] / np.maximum(rows, 1)[:, :, None]
    level, square = (share * score).sum(axis=2), (share * score**2).sum(axis=2)
    n, total = np.maximum(sessions, 1), np.maximum((p * score**2).sum(axis=1), FLOOR)
    each = np.maximum(np.where(present, rows, 0).sum(axis=0) / n, 1)  # rows a session
    centred = np.where(present, level - (level * present).sum(axis=0) / n, 0)
    noise = (np.where(present, square - level**2, 0).sum(axis=0) / n) * each / np.maximum(each - 1, 1)
    variance = np.maximum((centred**2).sum(axis=0) / n - noise / each, FLOOR)
    raw = np.clip((centred[1:] * centred[:-1]).sum(axis=0) / n / variance, 0, MOST_PERSISTENT)
    corrected = np.minimum(raw + (1 + 4 * raw) / n, MOST_PERSISTENT)
    return Persistence(variance / total, noise / total, corrected, np.sqrt((1 - corrected**2) / n), sessions)


def slow_levels(subject: Persistence, window: int, resamples: int, rng: np.random.Generator) -> FloatArray:
    """(resamples, k) index of a window against a reference of `subject.sessions`, if levels are first-order
    autoregressive and everything is normal, deciles of the reference as bins.

    What blocks of a short reference cannot show: a level that stays for weeks was in few places while the reference was
    made. Its autocorrelation and its variance are uncertain and drawn anew in every resample; the variance is that
    around the reference's own mean, made larger by what the mean took away. Bias of the autocorrelation: Kendall 1954.
    """
    from scipy.special import ndtri

    longest = int(subject.sessions.max(initial=0))
    steps = rng.standard_normal((resamples, longest + window + 2))
    phi = np.clip(subject.autocorrelation + subject.error * rng.standard_normal((resamples, 1)), 0, MOST_PERSISTENT)
    taken = np.minimum((1 + phi) / (1 - phi) / np.maximum(subject.sessions, 1), 0.8)
    free = np.maximum(subject.sessions * (1 - phi) / (1 + phi) - 1, 1.0)  # degrees of freedom of the variance
    drawn = free / np.maximum(rng.chisquare(free), free / 20)
    size = np.sqrt(subject.level / (1 - taken) * drawn)
    inner = ndtri(np.arange(1, DECILES) / DECILES)
    return _slow(steps, phi, size, subject.noise, subject.sessions, window, inner, FLOOR)


@compiled
def _slow(
    steps: FloatArray, phi: FloatArray, size: FloatArray, noise: FloatArray, sessions: IntArray, window: int,
    inner: FloatArray, floor: float,
) -> FloatArray:  # fmt: skip
    resamples, k = phi.shape
    psi = np.zeros((resamples, k))
    for r in range(resamples):
        for j in range(k):
            n = sessions[j]
            if n == 0:
                continue
            mean, variance = _path(steps[r, : n + 1], phi[r, j], size[r, j])
            now, spread = _path(steps[r, n + 1 : n + window + 2], phi[r, j], size[r, j])
            wide, narrow = math.sqrt(variance + noise[j] + floor), math.sqrt(spread + noise[j] + floor)
            below = 0.0
            for b in range(len(inner) + 1):
                upto = 1.0
                if b < len(inner):
                    upto = 0.5 * math.erfc(-(mean + wide * inner[b] - now) / narrow / math.sqrt(2.0))
                q = max(upto - below, floor)
                p = 1.0 / (len(inner) + 1)
                psi[r, j] += (q - p) * math.log(q / p)
                below = upto
    return psi


@compiled
def _path(steps: FloatArray, phi: float, size: float) -> tuple[float, float]:
    """Mean and variance of a stationary path of len(steps) - 1 levels."""
    level, total, square = steps[0], 0.0, 0.0
    fresh = math.sqrt(1 - phi * phi)
    n = len(steps) - 1
    for t in range(n):
        level = phi * level + fresh * steps[t + 1]
        total += level
        square += level * level
    return size * total / n, size * size * max(square / n - (total / n) ** 2, 0.0)


@compiled
def _drawn(
    counts: IntArray, k: int, bins: int, sums: FloatArray, reference: IntArray, current: IntArray, floor: float
) -> tuple[FloatArray, FloatArray]:
    resamples = len(reference)
    psi = np.zeros((resamples, k))
    shift = np.zeros((resamples, k))
    width = k * bins
    p = np.zeros(width, np.int64)
    q = np.zeros(width, np.int64)
    ps = np.zeros(k)
    qs = np.zeros(k)
    for r in range(resamples):
        p[:] = 0
        q[:] = 0
        ps[:] = 0
        qs[:] = 0
        for s in reference[r]:
            for c in range(width):
                p[c] += counts[s, c]
            for j in range(k):
                ps[j] += sums[s, j]
        for s in current[r]:
            for c in range(width):
                q[c] += counts[s, c]
            for j in range(k):
                qs[j] += sums[s, j]
        for j in range(k):
            part = slice(j * bins, (j + 1) * bins)
            psi[r, j], shift[r, j] = _index(p[part], q[part], ps[j], qs[j], floor)
    return psi, shift


@compiled
def _index(p: IntArray, q: IntArray, p_sum: float, q_sum: float, floor: float) -> tuple[float, float]:
    n, m = p.sum(), q.sum()
    known_n, known_m = n - p[-1], m - q[-1]
    shift = q_sum / known_m - p_sum / known_n if known_n and known_m else np.nan
    psi = 0.0
    if n and m:
        for b in range(len(p)):
            if p[b] or q[b]:
                share_p = max(p[b] / n, floor)
                share_q = max(q[b] / m, floor)
                psi += (share_q - share_p) * math.log(share_q / share_p)
    return psi, shift
