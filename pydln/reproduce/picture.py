"""Pictures without a window: an empty figure, and a finished one as the bytes of a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from pydln.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "blank", "encoded"]

FORMATS = ("png", "pdf", "svg", "eps", "ps", "jpg", "tiff", "webp")
"""Of picture files."""

_DPI = 200.0

# The same numbers make the same file, whenever that is.
_UNDATED: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def blank(width: float, height: float) -> Figure:
    """An empty figure that no window system knows of.

    Raises
    ------
    MissingExtra
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra.of("matplotlib", "plot", "pydln.reproduce") from None
    return Figure(figsize=(width, height), layout="constrained")


def encoded(figure: Figure, kind: str, dpi: float | str | None = None) -> bytes:
    """`figure` as a file of `kind`, one of `FORMATS`.

    Without `dpi` images have 200 dots to the inch, those inside an SVG the figure's own 100.
    """
    import matplotlib

    if dpi is None:
        dpi = "figure" if kind == "svg" else _DPI

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "pydln"}):
        figure.savefig(file, format=kind, dpi=dpi, metadata=_UNDATED.get(kind))
    return file.getvalue()
