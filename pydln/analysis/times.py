"""When a run passes a level."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln.trajectory.trajectory import Trajectory

__all__ = ["half_times", "learning_times"]


def half_times(run: Trajectory, target: ArrayLike) -> NDArray[np.float64]:
    """The time at which each mode first reaches half of its final strength.

    Parameters
    ----------
    run : Trajectory
        With ``strengths`` recorded, (batch, time, mode).
    target : (mode,) or (batch, mode) array
        The strength each mode ends at: the ``s`` of the task's modes. Signs count.

    Returns
    -------
    (batch, mode) array
        Times in units of tau, interpolated linearly between recorded times; NaN where the half is never reached.

    Raises
    ------
    ValueError, TypeError
        `run` is no Trajectory; `target` does not fit the recorded modes, or has a zero.
    NotRecorded
        The trajectory holds no strengths.
    """
    validate.instance(run, "run", Trajectory)
    strengths = run.strengths
    goal = validate.array(target, "target")
    if goal.shape not in ((strengths.shape[2],), (len(strengths), strengths.shape[2])):
        expected = f"({strengths.shape[2]},) or {(len(strengths), strengths.shape[2])}"
        raise ValueError(f"target: expected {expected}, one strength for each recorded mode, got {goal.shape}")
    if (goal == 0).any():
        raise ValueError("target: expected strengths other than 0, got 0")
    fraction = strengths / (goal[None, None, :] if goal.ndim == 1 else goal[:, None, :])
    return _first_rise(run.t, fraction, 0.5)


def learning_times(run: Trajectory, loss: ArrayLike) -> NDArray[np.float64]:
    """The time at which each member's loss first falls to a level.

    Parameters
    ----------
    run : Trajectory
        With ``loss`` recorded, (batch, time).
    loss : float or (batch,) array
        The level, in the normalisation of the run.

    Returns
    -------
    (batch,) array
        Times in units of tau, interpolated linearly between recorded times; NaN where the level is never reached.

    Raises
    ------
    ValueError, TypeError
        `run` is no Trajectory; `loss` is neither a number nor one number per member.
    NotRecorded
        The trajectory holds no loss.
    """
    validate.instance(run, "run", Trajectory)
    curve = run.loss
    level = validate.per_member(loss, "loss")
    if level.ndim == 1 and len(level) != len(curve):
        raise ValueError(f"loss: expected a number or one for each of {len(curve)} members, got {len(level)}")
    distance = np.broadcast_to(level, (len(curve),))[:, None] - curve
    return _first_rise(run.t, distance[:, :, None], 0.0)[:, 0]


def _first_rise(t: NDArray[np.float64], values: NDArray[Any], level: float) -> NDArray[np.float64]:
    """First time (batch, series) at which ``values`` (batch, time, series) is at least `level`; NaN if never."""
    times = np.broadcast_to(t, values.shape[:2])[:, :, None]
    above = values >= level
    after = above.argmax(axis=1)[:, None, :]
    before = np.maximum(after - 1, 0)
    t0, t1 = (np.take_along_axis(times, i, axis=1)[:, 0] for i in (before, after))
    v0, v1 = (np.take_along_axis(values, i, axis=1)[:, 0] for i in (before, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(after[:, 0] > 0, (level - v0) / (v1 - v0), 0.0)
    return np.where(above.any(axis=1), t0 + part * (t1 - t0), np.nan)
