"""A model's training beside the sessions that its life met since, for those who want to see what moved."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.lifecycle.drifting import measured
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.refilling import learned_from
from odin_core.lifecycle.run import contexts_with_outcomes
from odin_core.market.data import MarketData
from odin_core.monitoring.reference import DRIFT, DriftScores, from_json
from odin_core.training.window import SessionContexts


class NothingToCompare(OdinError):
    def __init__(self, life: Life, why: str) -> None:
        super().__init__(f"life {life.id} of {life.market}: {why}; run it on, or name a version (`odin registry list`)")


@dataclass(frozen=True, kw_only=True)
class DriftReview:
    """`trained` and `met`: rows of contexts with the model's features, what it learned from and the last sessions.
    `by_session`: the life's table `drift_report` of every finished session that has one, with `session`."""

    version: str
    trained: pl.DataFrame
    met: pl.DataFrame
    scores: DriftScores
    by_session: pl.DataFrame


def review(life: Life, data: MarketData, version: str | None = None) -> DriftReview:
    """What `version` (default: the champion, or else the newest candidate) learned from, and the life's last sessions,
    as many as its reference's window has. Only reads. Raises NothingToCompare, NoSuchModel, ModelCorrupt."""
    head = life.head
    if head is None:
        raise NothingToCompare(life, "no session is finished yet")
    state = life.read("phase_state", head).row(0, named=True)
    name = version or state["champion"] or next(reversed(state["candidates"] or []), None)
    if name is None:
        raise NothingToCompare(life, "no model was trained yet")
    model, text = life.registry.model(name), life.registry.bundle(name).parts.get("reference")
    if text is None:
        raise NothingToCompare(life, f"{name} was made before drift was watched, so it has no reference")
    reference = from_json(text)
    trained = learned_from(life, data, model.trained_through)
    met = list(islice(_with_contexts(life, data), reference.window_sessions))[::-1]
    if not met:
        raise NothingToCompare(life, "no session has contexts yet")
    return DriftReview(
        version=name,
        trained=pl.DataFrame(trained.features, schema=list(trained.names)),
        met=pl.DataFrame(np.concatenate([s.features for s in met]), schema=list(met[-1].names)),
        scores=measured(reference, model, met),
        by_session=_by_session(life),
    )


def _with_contexts(life: Life, data: MarketData) -> Iterator[SessionContexts]:
    """Finished sessions in which something was decided on, within the learner's look-back, the newest first."""
    for session in reversed(life.commits()[-life.config.learner.lookback_sessions :]):
        contexts = contexts_with_outcomes(life, data, session)
        if len(contexts.features):
            yield contexts


def _by_session(life: Life) -> pl.DataFrame:
    sessions = life.sessions_with("drift_report")
    tables = [life.read("drift_report", s).select(pl.lit(s).alias("session"), pl.all()) for s in sessions]
    return pl.concat(tables) if tables else pl.DataFrame(schema={"session": pl.Date(), **DRIFT})
