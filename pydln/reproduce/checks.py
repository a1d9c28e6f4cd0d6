"""Theory beside measurement: one row of the table that every figure writes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Check", "cells", "table"]


@dataclass(frozen=True)
class Check:
    """One statement of the theory, and what was measured.

    Attributes
    ----------
    name : str
        What is compared, with its units.
    theory, measured : float or None
        The two numbers.
    difference : float or None
        measured − theory, divided by theory if `relative`.
    tolerance : float or None
        The largest difference that passes; None for a number that is only shown.
    passed : bool or None
        Whether it passed; None for a number that is only shown.
    relative : bool
        What `difference` and `tolerance` are parts of.
    note : str
        What the reader must know to judge the row.
    """

    name: str
    theory: float | None
    measured: float | None
    difference: float | None
    tolerance: float | None
    passed: bool | None
    relative: bool = False
    note: str = ""

    @classmethod
    def compare(
        cls, name: str, *, theory: float, measured: float, tolerance: float, relative: bool = True, note: str = ""
    ) -> Check:
        """A row that passes if the difference is within `tolerance`; a number that is not finite fails."""
        theory, measured, tolerance = float(theory), float(measured), float(tolerance)  # of NumPy's, plain ones
        difference = (measured - theory) / theory if relative else measured - theory
        return cls(name, theory, measured, difference, tolerance, abs(difference) <= tolerance, relative, note)

    @classmethod
    def show(cls, name: str, *, measured: float | None = None, theory: float | None = None, note: str = "") -> Check:
        """A row without a verdict."""
        theory, measured = (None if one is None else float(one) for one in (theory, measured))
        difference = None if measured is None or theory is None else measured - theory
        return cls(name, theory, measured, difference, None, None, False, note)

    def as_json(self) -> dict[str, Any]:
        """The row for a JSON file; numbers that are not finite, which JSON lacks, become None."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}


def cells(checks: Iterable[Check]) -> list[tuple[str, ...]]:
    """The header and the rows as text: what every form of the table shows."""
    header = ("check", "theory", "measured", "difference", "tolerance", "", "note")
    rows = [
        (
            " ".join(one.name.split()),
            _number(one.theory),
            _number(one.measured),
            _part(one.difference, one.relative, "+"),
            _part(one.tolerance, one.relative, ""),
            {True: "pass", False: "FAIL", None: "shown"}[one.passed],
            " ".join(one.note.split()),
        )
        for one in checks
    ]
    return [header, *rows]


def table(checks: Iterable[Check]) -> str:
    """The rows as a Markdown table, its columns aligned for reading as plain text."""
    lines = [tuple(text.replace("|", "\\|") for text in row) for row in cells(checks)]
    wide = [max(len(row[i]) for row in lines) for i in range(len(lines[0]))]
    right = (False, True, True, True, True, False, False)

    def line(row: tuple[str, ...]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, wide, right, strict=True))
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 1) + ":" if r else "-" * (w + 2) for w, r in zip(wide, right, strict=True)) + "|"
    return "\n".join([line(lines[0]), rule, *map(line, lines[1:])]) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if value == round(value, 0) and abs(value) < 1e6 else f"{value:.5g}"


def _part(value: float | None, relative: bool, sign: str) -> str:
    if value is None:
        return ""
    return f"{100 * value:{sign}.3g} %" if relative else f"{value:{sign}.3g}"
