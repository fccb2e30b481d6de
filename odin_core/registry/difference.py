"""What a promotion changes, for people: side by side before it happens, as a patch afterwards, with the state before it
as a file that `odin registry restore` takes.

    <home>/registry/<life>-<horizon>-revision-0007.json     all of revision 7: pointer, facts, the parts themselves
    <home>/registry/<life>-<horizon>-revision-0008.patch    how revision 8 differs: a unified diff of both as JSON"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from odin_core.errors import OdinError
from odin_core.lake import write_text
from odin_core.registry.bundle import KINDS, Bundle, bundle_id, content_hash, model_of
from odin_core.registry.entries import Deployment, ModelCorrupt, NoSuchModel, Pointer
from odin_core.registry.following import follow
from odin_core.text import table, table_of_values

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life
    from odin_core.registry.history import Promotion
    from odin_core.registry.store import Registry

FORMAT: Final = "odin registry state 1"
TOLD_IN_FULL: Final = ("calibrator", "filter", "regime", "thresholds")  # the other parts are too long to read


class NoBackup(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is no backup of the registry that can be used: {why}. Backups lie in the home's folder registry"
        )


@dataclass(frozen=True)
class Difference:
    """`parts`: kind → unchanged, changed, added or removed. `settings` and `metrics`: name → [before, after].
    Settings and features are compared where there is a champion before and after."""

    promotion: "Promotion"
    operator: str
    parts: dict[str, str]
    settings: dict[str, list[Any]]
    features_added: list[str]
    features_removed: list[str]
    metrics: dict[str, list[Any]]

    def to_dict(self) -> dict[str, Any]:
        p = self.promotion
        return {
            "life": p.life.id, "market": p.life.market, "effective": p.effective,
            "from": p.before.version if p.before else None, "to": p.version, "why": p.why, "event": p.event,
            "operator": self.operator, "parts": self.parts, "settings": self.settings,
            "features_added": self.features_added, "features_removed": self.features_removed, "metrics": self.metrics,
        }  # fmt: skip

    def to_text(self) -> str:
        changes = {
            "decided by": self.operator,
            "parts": self.parts,
            "features added": self.features_added,
            "features removed": self.features_removed,
        }
        lines = [self.promotion.to_text(), table_of_values(changes)]
        for title, values in (("setting", self.settings), ("metric", self.metrics)):
            rows = [{title: name, "before": old, "after": new} for name, (old, new) in values.items()]
            lines.append(table(rows) if rows else f"{title}s: none to compare")
        return "\n".join(lines)


@dataclass(frozen=True)
class Applied:
    """A promotion that was made: its line in the log, the state before it, and the change."""

    deployment: Deployment
    backup: Path
    patch: Path

    def to_text(self) -> str:
        return f"revision {self.deployment.revision}; the state before: {self.backup}; the change: {self.patch}"


def difference_of(promotion: "Promotion", operator: str) -> Difference:
    """Compare the bundle that is in charge with the one that would be."""
    registry, before = promotion.life.registry, promotion.before
    old = _readable(registry, before.version if before else None)
    new = promotion.bundle or (registry.bundle(promotion.version) if promotion.version else None)
    both = [old, new] if old and new else []  # beside nothing, all there is would be a difference
    was, will = [_settings(bundle) for bundle in both] or [{}, {}]
    names = [set(bundle.part("model")["features"]) for bundle in both] or [set(), set()]
    numbers = [bundle.facts.get("metrics", {}) if bundle else {} for bundle in (old, new)]
    return Difference(
        promotion,
        operator,
        _parts(old, new),
        {name: [was.get(name), will.get(name)] for name in _names(was, will) if was.get(name) != will.get(name)},
        sorted(names[1] - names[0]),
        sorted(names[0] - names[1]),
        {name: [numbers[0].get(name), numbers[1].get(name)] for name in _names(*numbers)},
    )


def applied(promotion: "Promotion", at: datetime, operator: str) -> Applied:
    """Keep the state, move the pointer, write the patch. A kill in between leaves a file too many, not one too few."""
    life, registry = promotion.life, promotion.life.registry
    follow(life, at)  # so that the log shows first what the fold decided
    state = _state(registry, registry.pointer())
    backup = write_backup(life, state)
    if promotion.bundle is not None:
        registry.save(promotion.bundle, at)
    done = registry.deploy(promotion.move, at, operator)
    after = _state(registry, registry.pointer())
    patch = life.home.registry_changes / f"{_name(registry, done.revision)}.patch"
    old, new = (json.dumps(s, indent=2, sort_keys=True).splitlines() for s in (state, after))
    was, now = (f"revision {s['revision']}" for s in (state, after))
    write_text("\n".join(difflib.unified_diff(old, new, was, now, lineterm="")) + "\n", patch)
    return Applied(done, backup, patch)


def write_backup(life: "Life", state: dict[str, Any]) -> Path:
    """A state with the parts themselves, as one JSON file; where it lies."""
    bundle = _readable(life.registry, state["pointer"]["version"])
    content = state | {"format": FORMAT, "texts": bundle.parts if bundle else {}}
    path = life.home.registry_changes / f"{_name(life.registry, state['revision'])}.json"
    write_text(json.dumps(content, indent=1, sort_keys=True), path)
    return path


def read_backup(life: "Life", path: Path) -> tuple[str | None, Bundle | None]:
    """The version that was in charge and its bundle, each part verified. Raises NoBackup."""
    try:
        content = json.loads(path.read_text())
        version, bundle = content["pointer"]["version"], content["bundle"]
        if content["format"] != FORMAT:
            raise NoBackup(path, f"its format is {content['format']!r}, not {FORMAT!r}")
        if content["life"] != life.id:
            raise NoBackup(path, f"it is of life {content['life']}, not of {life.id}")
        if bundle is None:
            return version, None
        texts = content["texts"]
        changed = [kind for kind, name in bundle["parts"].items() if content_hash(texts[kind]) != name]
        found = Bundle(content["market"], content["horizon"], version, texts, bundle["facts"])
        if changed or found.id != bundle["id"]:
            raise NoBackup(path, f"its {', '.join(changed) or 'list of parts'} does not fit its hash")
        model_of(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoBackup(path, f"{type(error).__name__}: {error}") from error
    return version, found


def _state(registry: "Registry", pointer: Pointer) -> dict[str, Any]:
    bundle = None
    if pointer.version is not None:
        hashes, facts = registry.parts(pointer.version), registry.facts(pointer.version)
        name = bundle_id(registry.market, registry.horizon, pointer.version, hashes)
        bundle = {"id": name, "parts": hashes, "facts": facts}
    return {
        "life": registry.life, "market": registry.market, "horizon": registry.horizon, "revision": pointer.revision,
        "pointer": {"version": pointer.version, "effective": str(pointer.effective) if pointer.effective else None},
        "bundle": bundle,
    }  # fmt: skip


def _readable(registry: "Registry", version: str | None) -> Bundle | None:
    """The bundle that is to be replaced; None where there is none, or a damaged one: that must not be in the way."""
    try:
        return registry.bundle(version) if version else None
    except (ModelCorrupt, NoSuchModel):
        return None


def _parts(old: Bundle | None, new: Bundle | None) -> dict[str, str]:
    before, after = (bundle.hashes if bundle else {} for bundle in (old, new))
    told = {}
    for kind in KINDS:
        if kind in before and kind in after:
            told[kind] = "unchanged" if before[kind] == after[kind] else "changed"
        elif kind in before or kind in after:
            told[kind] = "added" if kind in after else "removed"
    return told


def _settings(bundle: Bundle | None) -> dict[str, Any]:
    """Numbers of the parts that people can read, by dotted name."""
    return {
        name: value
        for kind in TOLD_IN_FULL
        for name, value in _flat(kind, bundle.part(kind) if bundle else {})
    }  # fmt: skip


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for inner, v in value.items() for pair in _flat(f"{name}.{inner}", v)]
    return [(name, value)]


def _names(*tables: Mapping[str, Any]) -> list[str]:
    return sorted({name for one in tables for name in one})


def _name(registry: "Registry", revision: int) -> str:
    return f"{registry.life}-{registry.horizon}-revision-{revision:04d}"
