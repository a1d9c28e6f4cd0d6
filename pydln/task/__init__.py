"""What a network learns: the second moments of a task."""

from __future__ import annotations

from pydln.task.task import Modes, Samples, Task

__all__ = ["Modes", "Samples", "Task"]
