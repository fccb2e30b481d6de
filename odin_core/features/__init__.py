"""Features of bars. In a notebook: `from odin_core.features import compute, fractal_pivots`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odin_core.features.engine import compute
    from odin_core.structure.pivots import fractal_pivots

__all__ = ["compute", "fractal_pivots"]


def __getattr__(name: str) -> Any:  # what is asked for is imported, not numba for whoever needs a name of the package
    if name == "compute":
        from odin_core.features.engine import compute

        return compute
    if name == "fractal_pivots":
        from odin_core.structure.pivots import fractal_pivots

        return fractal_pivots
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
