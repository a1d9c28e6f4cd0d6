"""What a figure leaves behind: the picture as PNG and SVG, its numbers, its table of checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pydln._base import atomic, backend
from pydln.reproduce.checks import Check, table
from pydln.reproduce.picture import encoded
from pydln.reproduce.recipe import Numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STAMP", "Report", "write"]

STAMP = "pydln"
"""Name of the array of an npz file that is no number: the version of pydln that wrote it."""


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


def write(
    out_dir: Path,
    name: str,
    title: str,
    *,
    figure: Figure,
    numbers: Numbers,
    checks: Sequence[Check],
    settings: Mapping[str, Any],
) -> Report:
    """Write ``name.png``, ``.svg``, ``.npz`` and ``.md`` into `out_dir`."""
    files = tuple(out_dir / f"{name}.{kind}" for kind in ("png", "svg", "npz", "md"))
    *pictures, npz, markdown = files
    report = Report(name, title, tuple(checks), files, dict(settings))
    made = "\n".join(f"- {key}: {value}" for key, value in settings.items())
    (out_dir / f"{name}.json").unlink(missing_ok=True)  # the record of an earlier figure, which vouches for its files
    for picture in pictures:
        content = encoded(figure, picture.suffix[1:])
        with atomic.replacing(picture) as file:
            file.write(content)
    with atomic.replacing(npz) as file:
        np.savez_compressed(file, **numbers, **{STAMP: np.asarray(backend.version())})  # type: ignore[arg-type]
    with atomic.replacing(markdown) as file:
        file.write(f"# {title}\n\n{made}\n\n{report.table()}".encode())
    return report
