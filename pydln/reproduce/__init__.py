"""Figures of papers, one per file, each with a table of theory against measurement; a package for each paper."""

from __future__ import annotations

from pydln.reproduce.catalogue import FIGURES, options, takes, title
from pydln.reproduce.checks import Check, table
from pydln.reproduce.recipe import Progress
from pydln.reproduce.redrawing import redraw
from pydln.reproduce.report import Report
from pydln.reproduce.runner import reproduce

__all__ = ["FIGURES", "Check", "Progress", "Report", "options", "redraw", "reproduce", "table", "takes", "title"]
