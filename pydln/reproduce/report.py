"""What a figure leaves behind: the picture as PNG and SVG, its numbers, its table of checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pydln._base import atomic
from pydln.errors import MissingExtra
from pydln.reproduce.checks import Check, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Progress", "Report", "blank", "blas_threads", "directory", "write"]

Progress = Callable[[int, int, str], None]
"""Called as ``progress(done, total, what)`` when a part of the work begins, during long ones, and at the end."""


@dataclass(frozen=True)
class Report:
    """The outcome of one figure.

    Attributes
    ----------
    name, title : str
        Short name, which the files carry, and one line of text.
    checks : tuple of Check
        Theory against measurement.
    files : tuple of Path
        Picture (PNG, SVG), numbers (npz), checks (Markdown), in this order.
    settings : dict
        What the figure was made with.
    """

    name: str
    title: str
    checks: tuple[Check, ...]
    files: tuple[Path, ...]
    settings: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)

    def table(self) -> str:
        """The checks as a Markdown table."""
        return table(self.checks)


def directory(out_dir: str | os.PathLike[str]) -> Path:
    """`out_dir`, made if it is not there.

    Raises
    ------
    ValueError
        There is a file of that name.
    """
    path = Path(out_dir)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"out_dir: expected a directory, got the file {path}") from None
    return path


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


@contextmanager
def blas_threads(count: int | None) -> Iterator[None]:
    """Products of NumPy on so many threads; on as many as BLAS likes for None.

    Raises
    ------
    MissingExtra
        threadpoolctl is not installed.
    """
    if count is None:
        yield
        return
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtra.of("threadpoolctl", "plot", "pydln.reproduce") from None
    with threadpool_limits(limits=count, user_api="blas"):
        yield


def write(
    out_dir: Path,
    name: str,
    title: str,
    *,
    figure: Figure,
    numbers: Mapping[str, ArrayLike],
    checks: Sequence[Check],
    settings: Mapping[str, Any],
) -> Report:
    """Write ``name.png``, ``.svg``, ``.npz`` and ``.md`` into `out_dir`."""
    import matplotlib

    files = tuple(out_dir / f"{name}.{kind}" for kind in ("png", "svg", "npz", "md"))
    png, svg, npz, markdown = files
    report = Report(name, title, tuple(checks), files, dict(settings))
    made = "\n".join(f"- {key}: {value}" for key, value in settings.items())
    (out_dir / f"{name}.json").unlink(missing_ok=True)  # the record of an earlier figure, which vouches for its files
    with matplotlib.rc_context({"svg.hashsalt": "pydln"}):
        with atomic.replacing(png) as file:
            figure.savefig(file, format="png", dpi=200)
        with atomic.replacing(svg) as file:
            figure.savefig(file, format="svg", metadata={"Date": None})
    with atomic.replacing(npz) as file:
        np.savez_compressed(file, **{key: np.asarray(value) for key, value in numbers.items()})  # type: ignore[arg-type]
    with atomic.replacing(markdown) as file:
        file.write(f"# {title}\n\n{made}\n\n{report.table()}".encode())
    return report
