"""Gradient descent itself, not its continuous limit, for decoupled balanced modes: one number per mode and step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory

__all__ = ["mode_descent"]


def mode_descent(u0: float, s: NDArray[np.float64], *, depth: int, lr: float, steps: int) -> Trajectory:
    """What gradient descent does from an aligned balanced start on whitened inputs, to rounding.

    All layers of a mode hold the same strength a and stay equal, so a step is a ← a + η a^(D−1) (s − a^D), whatever the
    step size. Against this map a simulation has to agree to rounding; its distance from the exact solution of the flow
    is the error of the discretisation, which the map predicts.

    Parameters
    ----------
    u0 : float
        Strength of every mode at step 0, > 0.
    s : (mode,) array
        Strengths of the task's modes.
    depth, lr, steps
        Number of weight matrices, learning rate, number of steps.

    Returns
    -------
    Trajectory
        Batch 1, every step, ``strengths``, and ``loss`` above the floor.
    """
    a = np.full(len(s), u0 ** (1 / depth))
    strengths = np.empty((steps + 1, len(s)))
    for step in range(steps + 1):
        strengths[step] = a**depth
        a = a + lr * a ** (depth - 1) * (s - a**depth)
    count = np.arange(steps + 1)
    return Trajectory(
        t=lr * count,
        steps=count,
        records={"strengths": strengths[None], "loss": 0.5 * ((s - strengths) ** 2).sum(axis=1)[None]},
        status=[Status.COMPLETED],
        stopped_step=[steps],
        stopped_time=[lr * steps],
        settings={"depth": depth, "lr": lr},
        source="gradient_descent",
    )
