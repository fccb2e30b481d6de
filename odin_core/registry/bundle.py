"""A bundle: everything that a champion needs to decide, as parts that are named by their content.

What comes in is a trained policy and the life that it belongs to; what comes out are canonical JSON texts, so that
equal parts have equal hashes and are stored once. Where bundles are kept is `store`; what a decision does with the
numbers is in `lifecycle.planner` and `lifecycle.phases`."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from odin_core.features import regime
from odin_core.policies.joint import JointPolicy, version_of

if TYPE_CHECKING:
    import polars as pl

    from odin_core.lifecycle.life import Life

HORIZON: Final = "session"
"""What the joint policy decides for: the next session, once a day."""
KINDS: Final = ("model", "calibrator", "filter", "regime", "thresholds", "reference")
NEEDED: Final = KINDS[:-1]  # bundles made before drift was watched have no reference


class NotThisVersion(ValueError):
    """The parts make another model than the one that the bundle is named after."""


@dataclass(frozen=True)
class Bundle:
    """`parts`: kind → canonical JSON text. `facts`: where it came from; no part of its identity."""

    market: str
    horizon: str
    version: str
    parts: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def hashes(self) -> dict[str, str]:
        """kind → SHA-256 (hex) of the part's UTF-8 text."""
        return {kind: content_hash(text) for kind, text in sorted(self.parts.items())}

    @property
    def id(self) -> str:
        return bundle_id(self.market, self.horizon, self.version, self.hashes)

    def part(self, kind: str) -> dict[str, Any]:
        """A part as values; empty where the bundle has none of that kind."""
        return json.loads(self.parts[kind]) if kind in self.parts else {}


def bundle_id(market: str, horizon: str, version: str, hashes: Mapping[str, str]) -> str:
    """The name of a bundle by its content: "bundle-" and twelve hex digits."""
    return f"bundle-{content_hash(canonical([market, horizon, version, dict(hashes)]))[:12]}"


def canonical(value: Any) -> str:
    """JSON with sorted names and no blanks. Floats are written so that they read back to the same bits."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain, allow_nan=False)


def content_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def bundle_of(
    life: "Life", version: str, model: JointPolicy, reference: str | None = None, facts: Mapping[str, Any] | None = None
) -> Bundle:
    """The bundle of a model of this life. `reference`: the drift reference as its own JSON text, kept byte by byte."""
    intercept, slope = model.platt
    config = life.config
    parts = {
        "model": {"learner": model.name, "features": model.features, "trained_through": model.trained_through,
                  "heads": model.heads},
        "calibrator": {"kind": "platt", "intercept": intercept, "slope": slope},
        "filter": asdict(config.filter),
        "regime": {"kind": "market_volatility", "sessions": regime.SESSIONS, "low_below": regime.LOW_BELOW,
                   "high_above": regime.HIGH_ABOVE},
        "thresholds": {"guardrails": asdict(config.guardrails), "promotion": asdict(config.promotion),
                       "phases": asdict(config.phases), "exploration": asdict(config.exploration)},
    }  # fmt: skip
    texts = {kind: canonical(content) for kind, content in parts.items()}
    if reference is not None:
        texts["reference"] = reference
    told = {"trained_through": model.trained_through, "seed": config.seed} | dict(facts or {})
    return Bundle(life.market, HORIZON, version, texts, json.loads(canonical(_known(told))))


def model_of(bundle: Bundle) -> JointPolicy:
    """The policy put together again from its parts.
    Raises NotThisVersion, or KeyError, TypeError, ValueError where a part has another form."""
    model, calibrator = bundle.part("model"), bundle.part("calibrator")
    policy = JointPolicy(
        tuple(model["features"]),
        date.fromisoformat(model["trained_through"]),
        dict(model["heads"]),
        (calibrator["intercept"], calibrator["slope"]),
    )
    if version_of(policy) != bundle.version:
        raise NotThisVersion(f"its parts are those of {version_of(policy)}, not of {bundle.version}")
    return policy


def facts_of_report(report: "pl.DataFrame") -> dict[str, Any]:
    """What one session's `evaluation_report` says of its candidate: dataset, outcome, numbers by criterion."""
    if report.is_empty():
        return {}
    head = report.row(0, named=True)
    known = report.filter(report["criterion"].is_not_null()).select("criterion", "value")
    return {
        "dataset": head["dataset"], "contexts": head["contexts"], "outcome": head["outcome"],
        "metrics": finite(known.iter_rows()),
    }  # fmt: skip


def finite(numbers: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """By name, what is known and what JSON can say."""
    return {name: float(value) for name, value in numbers if value is not None and math.isfinite(value)}


def _known(value: Any) -> Any:
    """Facts as JSON can say them: what is not a number is null."""
    if isinstance(value, Mapping):
        return {name: _known(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_known(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    if hasattr(value, "item"):  # a number of numpy
        return value.item()
    raise TypeError(f"{value!r} cannot be part of a bundle")
