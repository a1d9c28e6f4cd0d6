"""Tests meet the installed package: a child python (-c, -m) would otherwise put the source tree first on its path."""

from __future__ import annotations

import os

os.environ["PYTHONSAFEPATH"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
