"""What simulations and exact solutions return."""

from __future__ import annotations

from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory

__all__ = ["Status", "Trajectory"]
