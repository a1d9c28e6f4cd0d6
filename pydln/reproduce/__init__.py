"""The figures of Saxe, McClelland & Ganguli (2013), one per file, each with a table of theory against measurement."""

from __future__ import annotations

from pydln.reproduce.checks import Check, table
from pydln.reproduce.registry import FIGURES, reproduce, takes, title
from pydln.reproduce.report import Progress, Report

__all__ = ["FIGURES", "Check", "Progress", "Report", "reproduce", "table", "takes", "title"]
