"""The registry of a home's datasets: `<home>/datasets/<version>.json`, a manifest and where its copies lie.

The fold records a training window as it trains on it, an export is recorded when it is made. Windows that lives left
before there was a registry are found in their tables; of those the bytes were not kept."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from odin_core.datasets.manifest import FILE, Manifest, ManifestUnreadable, read_manifest
from odin_core.errors import OdinError, nearest
from odin_core.home import Home
from odin_core.lake import write_text

log = logging.getLogger("odin")


class UnknownDataset(OdinError):
    def __init__(self, home: Home, name: str, matches: list[str], known: list[str]) -> None:
        what = f"{len(matches)} datasets of {home.root} begin" if matches else f"no dataset of {home.root} begins"
        super().__init__(
            f"{what} with {name!r}, and no folder of that name holds a {FILE}; {nearest(name, matches or known)}"
        )


class Registered(NamedTuple):
    """`copies`: the folders that its files' paths are relative to; the home itself for a training window."""

    manifest: Manifest
    copies: tuple[Path, ...]

    def to_row(self) -> dict[str, Any]:
        """What a list shows of it."""
        manifest = self.manifest
        return {
            "version": manifest.version, "kind": manifest.kind, "market": manifest.market, "first": manifest.first,
            "last": manifest.last, "files": len(manifest.files), "rows": manifest.rows,
            "symbols": len(manifest.symbols), "life": manifest.life, "tables": list(manifest.tables),
        }  # fmt: skip


def record(home: Home, manifest: Manifest, root: Path) -> None:
    """Write a manifest into the registry, with `root` as the newest of its copies. Again with the same is no change.

    Lives that learned from the same content share its version: the second's entry is `<version>.<life>.json`."""
    path = _path(home, manifest.version)
    earlier = _earlier(home, path)
    if earlier is not None and earlier.manifest.life != manifest.life:
        path = _path(home, f"{manifest.version}.{manifest.life}")
        earlier = _earlier(home, path)
    copies = [*(copy for copy in (earlier.copies if earlier else ()) if copy != root), root]
    entry = {"copies": [_relative(home, copy) for copy in copies], "manifest": manifest.to_dict()}
    write_text(json.dumps(entry, sort_keys=True) + "\n", path)


def datasets(home: Home) -> list[Registered]:
    """All of a home's datasets, by market, last session and version. A damaged entry is left out with a warning."""
    found = {(entry.manifest.version, entry.manifest.life): entry for entry in _recorded(home)}
    for manifest in _left_by_lives(home, set(found)):
        found[manifest.version, manifest.life] = Registered(manifest, (home.root,))
    return sorted(found.values(), key=lambda r: (r.manifest.market, r.manifest.last, r.manifest.version))


def find(home: Home, name: str) -> Registered:
    """A dataset by its version or an unambiguous beginning of it, or, where lives share a version, by version.life.
    Raises UnknownDataset, ManifestUnreadable."""
    if _path(home, name).is_file():
        return _read(home, _path(home, name))
    entries = list(reversed(datasets(home)))
    known = {entry.manifest.version: entry for entry in entries}
    exact = {f"{entry.manifest.version}.{entry.manifest.life}": entry for entry in entries}
    matches = [version for version in known if version.startswith(name)]
    if name not in exact and (len(matches) != 1 or not name):
        raise UnknownDataset(home, name, matches, list(known))
    return exact[name] if name in exact else known[matches[0]]


def in_folder(folder: Path) -> Registered | None:
    """The dataset that a folder says it is; None where it holds no manifest. Raises ManifestUnreadable."""
    path = folder / FILE
    return Registered(read_manifest(path), (folder.absolute(),)) if path.is_file() else None


def _path(home: Home, version: str) -> Path:
    return home.root / "datasets" / f"{version.replace(os.sep, '_')}.json"


def _read(home: Home, path: Path) -> Registered:
    try:
        entry = json.loads(path.read_text())
        said, copies = entry["manifest"], tuple((home.root / copy).resolve() for copy in entry["copies"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestUnreadable(path, f"{type(error).__name__}: {error}") from error
    return Registered(Manifest.from_dict(said, path), copies)


def _earlier(home: Home, path: Path) -> Registered | None:
    """What an entry said before; a damaged one is written anew."""
    if not path.is_file():
        return None
    try:
        return _read(home, path)
    except ManifestUnreadable as error:
        log.warning("warning: %s", error)
        return None


def _relative(home: Home, root: Path) -> str:
    """A copy's folder as the registry keeps it, so that a home can be moved with what lies in it."""
    return os.path.relpath(root, home.root) if root.is_relative_to(home.root) else str(root)


def _recorded(home: Home) -> Iterator[Registered]:
    for path in sorted((home.root / "datasets").glob("*.json")):
        try:
            yield _read(home, path)
        except ManifestUnreadable as error:
            log.warning("warning: %s", error)


def _left_by_lives(home: Home, recorded: set[tuple[str, str | None]]) -> Iterator[Manifest]:
    from odin_core.datasets.training import TABLE, window_of
    from odin_core.lifecycle import life as lives

    for life in lives.lives(home):
        for session in life.sessions_with(TABLE):
            rows = life.read(TABLE, session)
            if rows.height and (rows["version"][0], life.id) not in recorded:
                yield window_of(life, session, rows)
