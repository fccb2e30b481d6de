"""Figures as PNG bytes: few colours, because Dagster keeps what a run shows in its event log; the same figure, the same
bytes."""

import io
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: Final = 96
FINENESS: Final = (80, 65, 50, 35)  # dots an inch, tried in turn


def png(figure: "Figure", most: int | None = None) -> bytes:
    """The figure in COLOURS colours, which is a third of the bytes. With `most`: as fine as fits into so many bytes, or
    as coarse as FINENESS goes; without: at the figure's own resolution."""
    from PIL import Image

    small = io.BytesIO()
    for dpi in (figure.dpi,) if most is None else FINENESS:
        drawn, small = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi, metadata={"Software": None})
        Image.open(drawn).convert("RGB").quantize(COLOURS).save(small, format="png", optimize=True)
        if most is None or small.tell() <= most:
            break
    return small.getvalue()
