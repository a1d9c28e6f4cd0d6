"""Every exception that pydln raises on purpose, beyond ValueError and TypeError for wrong arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydln.trajectory.trajectory import Trajectory

__all__ = [
    "BackendUnavailable",
    "DataNotFound",
    "FileDamaged",
    "IntegrationError",
    "Interrupted",
    "MissingExtra",
    "NotApplicable",
    "NotRecorded",
    "PydlnError",
]


class PydlnError(Exception):
    """Base of pydln's own errors."""


class IntegrationError(PydlnError):
    """Some members of an ensemble did not reach the end of the run.

    Attributes
    ----------
    trajectory : Trajectory
        Everything that was computed, the healthy members complete.
    """

    def __init__(self, message: str, trajectory: Trajectory) -> None:
        super().__init__(message)
        self.trajectory = trajectory

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.trajectory)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; the work done so far is kept.

    Attributes
    ----------
    trajectory : Trajectory
        What was computed before the interrupt; `status` says which members are complete.
    """

    def __init__(self, message: str, trajectory: Trajectory) -> None:
        super().__init__(message)
        self.trajectory = trajectory

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.trajectory)


class NotApplicable(PydlnError):
    """No exact solution covers this task and these weights.

    The message is one sentence: what the nearest solution misses, with the number that failed.

    Attributes
    ----------
    missed : dict of str to str
        What every solution misses, by its name.
    table : str
        Every solution with all it needs and what was measured, up to the first condition that fails.
    """

    def __init__(self, message: str, missed: Mapping[str, str] | None = None, table: str = "") -> None:
        super().__init__(message)
        self.missed = dict(missed or {})
        self.table = table


class NotRecorded(PydlnError, AttributeError):
    """A quantity was asked of a trajectory that did not record it."""


class DataNotFound(PydlnError, FileNotFoundError):
    """A data set is not on this computer; the message says how to get it."""


class FileDamaged(PydlnError, ValueError):
    """A file is not what it should be: truncated, of another kind, or written by something else."""


class MissingExtra(PydlnError, ImportError):
    """An optional dependency is needed for this call; the message names the extra to install."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtra:
        """The error for `package`, which `purpose` needs and pydln's `extra` brings."""
        return cls(f"{purpose} needs {package}: pip install 'pydln[{extra}]'")


class BackendUnavailable(PydlnError, RuntimeError):
    """The compiled kernels, or the instruction set asked for, cannot be used on this computer."""
