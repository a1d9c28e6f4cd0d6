"""What an object prints, for a notebook."""

from __future__ import annotations

import html
import re
from itertools import groupby

__all__ = ["as_html"]

_COLUMNS = re.compile(r" {2,}|\n")


def as_html(text: str) -> str:
    """`text` with lines whose parts stand two spaces or more apart as rows of tables, the others as they are."""
    lines = [[cell for cell in _COLUMNS.split(line.strip()) if cell] for line in text.split("\n") if line.strip()]
    parts = []
    for many, some in groupby(lines, key=lambda cells: len(cells) > 1):
        if many:
            rows = "".join(
                "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
                for cells in some
            )
            parts.append(f"<table>{rows}</table>")
        else:
            parts += [f"<div><b>{html.escape(cells[0])}</b></div>" for cells in some]
    return "<div>" + "".join(parts) + "</div>"
