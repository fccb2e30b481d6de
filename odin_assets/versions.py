"""Code versions of assets: the text of the packages that they follow from, read and not imported, for time."""

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path


@lru_cache(maxsize=16)
def code_version(package: str) -> str:
    """Twelve hex digits that change with the text of any module of a package, subpackages included."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{package} is no package of this installation")
    folder = Path(spec.submodule_search_locations[0])
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]
