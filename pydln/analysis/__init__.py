"""What is read off a finished run: pure functions from a Trajectory to arrays."""

from __future__ import annotations

from pydln.analysis.times import half_times, learning_times

__all__ = ["half_times", "learning_times"]
