"""How a run ended: what counts as success, and the sentence for what does not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydln._base.arrays import blocks
from pydln.errors import IntegrationError, Interrupted
from pydln.quantities import QUANTITIES
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory

__all__ = ["GIVEN_UP", "judged"]

GIVEN_UP = (Status.DIVERGED, Status.STEP_LIMIT, Status.STIFF)

_OTHERS = "throw=False returns the others, as does .trajectory"
_IN_CACHE = 2**15  # numbers that are looked at together
_AT_ONCE = 2**25  # bytes of members that are looked at one by one
_SHARPNESS = "λ_max = D s^(2-2/D) at the solution"


class _Lost(NamedTuple):
    """A number of a member that is not finite: which record it is in, and at which of the times."""

    name: str
    place: int


def judged(
    run: Trajectory, *, interrupted: bool = False, throw: bool = True, advice: str = "", others: str = _OTHERS
) -> Trajectory:
    """The one end of every verb: `run`, or the error that it ends with.

    No member whose records or final weights are not finite up to where it stopped is a success, whatever its kernel
    says: it has diverged, and stopped at the first such record.
    What was computed stays as it is.

    Parameters
    ----------
    run : Trajectory
    interrupted : bool
        Whether Ctrl-C ended it.
    throw : bool
        Whether members that are given up are an error.
    advice : str
        What to try, where the verb knows better than its kind.
    others : str
        Where to find the other members.

    Raises
    ------
    Interrupted, IntegrationError
    """
    lost = _not_finite(run)
    run = _given_up(run, lost)
    if interrupted:
        done = int(np.count_nonzero(run.status != Status.INTERRUPTED))
        raise Interrupted(f"interrupted: {done} of {run.batch} members are complete; see .trajectory", run)
    if throw and np.isin(run.status, GIVEN_UP).any():
        raise IntegrationError(_sentence(run, lost, advice, others), run)
    return run


def _not_finite(run: Trajectory) -> dict[int, _Lost]:
    """Where members that succeeded or diverged, as their kernel says, first have a number that is not finite."""
    succeeded = ~np.isin(run.status, (*GIVEN_UP, Status.INTERRUPTED))
    looked_at = succeeded | (run.status == Status.DIVERGED)
    found: dict[int, _Lost] = {}
    for name in run.names:
        if name not in QUANTITIES:  # what a user's own function gives is for him to judge
            continue
        value = getattr(run, name)
        for a in value if name == "weights" else (value,):
            if not _all_finite(a):
                for member, place in _first_places(run, a, looked_at):
                    if member not in found or place < found[member].place:
                        found[member] = _Lost(name, place)
    for a in () if run.final is None else run.final.layers:
        if not _all_finite(a):
            for which in np.flatnonzero(succeeded & ~np.isfinite(a).all(axis=(1, 2))):
                found.setdefault(int(which), _Lost("final", run.t.shape[-1]))
    return found


def _all_finite(a: NDArray[Any]) -> bool:
    """Block by block, for the truths of all of `a` at once would not stay in the cache."""
    if not a.flags.c_contiguous:
        return bool(np.isfinite(a).all())
    flat = a.reshape(-1)
    return all(np.isfinite(flat[k : k + _IN_CACHE]).all() for k in range(0, flat.size, _IN_CACHE))


def _first_places(run: Trajectory, a: NDArray[Any], among: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Members, and the first of the times up to where each stopped, with an entry of `a` that is not finite."""
    for members in blocks(run.batch, 8 * math.prod(a.shape[1:]), at_once=_AT_ONCE):
        rows = slice(members[0], members[-1] + 1)
        finite = np.isfinite(a[rows].reshape(*a[rows].shape[:2], -1)).all(axis=2)
        bad = ~finite & _reached(run, rows) & among[rows, None]
        for member in np.flatnonzero(bad.any(axis=1)):
            yield int(members[member]), int(bad[member].argmax())


def _reached(run: Trajectory, rows: slice) -> NDArray[np.bool_]:
    """Which of the times come no later than the end of each member, (members, time) or (1, time)."""
    times = run.t if run.t.ndim == 1 else run.t[rows]
    return np.asarray((times <= run.stopped_time[rows, None]) | (run.status[rows, None] == Status.COMPLETED))


def _given_up(run: Trajectory, lost: dict[int, _Lost]) -> Trajectory:
    """`run` with the members that are lost diverged."""
    if not lost:
        return run
    status, stopped_time = run.status.copy(), run.stopped_time.copy()
    stopped_step = None if run.stopped_step is None else run.stopped_step.copy()
    for member, (_, place) in lost.items():
        status[member] = Status.DIVERGED
        if place == run.t.shape[-1]:
            continue
        stopped_time[member] = (run.t if run.t.ndim == 1 else run.t[member])[place]
        if run.steps is not None and stopped_step is not None:
            stopped_step[member] = run.steps[place]
    return run._with(status=status, stopped_time=stopped_time, stopped_step=stopped_step)


def _sentence(run: Trajectory, lost: dict[int, _Lost], advice: str, others: str) -> str:
    """How many members did not get to the end, which, where and why, and what to try: in the words of the verb."""
    members = np.flatnonzero(np.isin(run.status, GIVEN_UP))
    which = ", ".join(str(i) for i in members[:5]) + (", …" if members.size > 5 else "")
    count = f"{members.size} of {run.batch} members"
    if run.stopped_step is not None:
        first = int(members[np.argmin(run.stopped_step[members])])
        why = f", where {_what(run, lost[first])}" if first in lost and lost[first].name != "loss" else ""
        where = f"diverged (member {which}; the first at step {run.stopped_step[first]}{why})"
        return f"{count} {where}: {advice or _to_try(run, Status.DIVERGED)}; {others}"
    member = int(members[0])
    status = Status(int(run.status[member]))
    how = f"has values that are not finite: {_what(run, lost[member])}" if member in lost else status.meaning
    return (
        f"{count} did not reach the end (member {which}): the first {how}; {advice or _to_try(run, status)}; {others}"
    )


def _what(run: Trajectory, lost: _Lost) -> str:
    name = {"final": "final weights"}.get(lost.name, lost.name)
    return f"its {name} left the range of {_range(run)}"


def _range(run: Trajectory) -> str:
    return str(run.settings.get("dtype", "float64"))


def _to_try(run: Trajectory, status: Status) -> str:
    """Advice that the verb can take."""
    if status == Status.STEP_LIMIT:
        return "allow more steps (max_steps) or ask for less accuracy (rtol)"
    if status == Status.STIFF:
        return "allow more steps (max_steps), or end before it converged"
    smaller = "try a smaller start" + ("" if _range(run) == "float64" else ", or float64")
    if run.source == "gradient_descent":
        return f"try a smaller lr, below 2/λ_max with {_SHARPNESS}"
    if run.source == "train_nonlinear":
        return "try a smaller lr, or a smaller start"
    if run.settings.get("method") == "rk4":
        return f"try a shorter step, below 2.8/λ_max with {_SHARPNESS}"
    return smaller
