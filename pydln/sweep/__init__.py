"""Sweeps over depth, width, learning rate, start and seed, described in a TOML file: ``pydln run FILE.toml``."""

from __future__ import annotations

from pydln.sweep.config import RunFile, read_run_file
from pydln.sweep.run import SweepResult, run_sweep

__all__ = ["RunFile", "SweepResult", "read_run_file", "run_sweep"]
