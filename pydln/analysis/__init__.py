"""What is read off a finished run or a task: pure functions to arrays."""

from __future__ import annotations

from pydln.analysis.consistency import Consistency, consistency
from pydln.analysis.times import half_times, learning_times

__all__ = ["Consistency", "consistency", "half_times", "learning_times"]
