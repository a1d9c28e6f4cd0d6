"""How a member's run ended."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Status"]


class Status(IntEnum):
    """How a member's run ended; the kernels use the same numbers."""

    COMPLETED = 0
    REACHED_LOSS = 1
    REACHED_STRENGTH = 2
    STEADY = 3
    DIVERGED = 4
    INTERRUPTED = 5
    STEP_LIMIT = 6
    STIFF = 7

    @property
    def meaning(self) -> str:
        """One clause saying what happened."""
        return _MEANINGS[self]


_MEANINGS = {
    Status.COMPLETED: "ran to the end",
    Status.REACHED_LOSS: "stopped at the loss asked for",
    Status.REACHED_STRENGTH: "stopped at the strengths asked for",
    Status.STEADY: "stopped because the weights no longer moved",
    Status.DIVERGED: "grew beyond what its numbers can hold",
    Status.INTERRUPTED: "was interrupted",
    Status.STEP_LIMIT: "took the most steps it was allowed",
    Status.STIFF: "took the most steps it was allowed, held back by stability",
}
