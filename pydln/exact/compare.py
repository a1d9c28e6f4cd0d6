"""A simulation beside the exact solution of its task and start."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln._base import notebook, validate
from pydln._base.arrays import transposed
from pydln.exact.solution import Solution
from pydln.quantities import QUANTITIES
from pydln.trajectory.trajectory import Trajectory

__all__ = ["Comparison", "compare"]

Floats = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Comparison:
    """How far a simulation is from an exact solution. Numbers are per member, (batch,).

    Attributes
    ----------
    solution : str
        Name of the exact solution.
    exact : Trajectory
        The solution at the times of the simulation, with what the simulation recorded.
    deviations : dict of str to array
        Largest absolute difference of every recorded quantity over all times; of the weights, of any layer.
    gap : array or None
        What the finite steps cost: the largest difference of any strength over the largest strength of the task. None
        if no strengths were recorded. Of first order in the learning rate.
    drift : array
        Largest change of an entry of W_{l+1}ᵀW_{l+1} - W_lW_lᵀ between start and end of the simulation, which gradient
        flow conserves; of first order in the learning rate too. NaN without final weights.
    """

    solution: str
    exact: Trajectory
    deviations: dict[str, Floats]
    gap: Floats | None
    drift: Floats

    def _repr_html_(self) -> str:
        return notebook.as_html(str(self))

    def __str__(self) -> str:
        lines = [f"against the exact solution {self.solution!r}, worst of {len(self.drift)} members"]
        lines += [f"  {name:<16} off by {np.max(off):.3g}" for name, off in self.deviations.items()]
        if self.gap is not None:
            lines.append(f"  discretisation   {np.max(self.gap):.3g} of the largest strength")
        lines.append(f"  conserved        moved by {np.max(self.drift):.3g}")
        return "\n".join(lines)


def compare(run: Trajectory, solution: Solution) -> Comparison:
    """A simulation beside the exact gradient flow from the same start.

    Parameters
    ----------
    run : Trajectory
        Of `pydln.gradient_descent`.
    solution : Solution
        What ``exact.solve(task, weights)`` returned for the run's task and start.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        Not a trajectory and a solution, or of different numbers of members.
    """
    validate.instance(run, "run", Trajectory)
    validate.instance(solution, "solution", Solution)
    if solution.batch not in (1, run.batch):
        raise ValueError(f"solution: expected 1 or {run.batch} members like the run, got {solution.batch}")
    exact = solution.evaluate(run.t, record=[name for name in run.names if name in QUANTITIES])
    deviations = {}
    for name in run.names:
        pairs = (
            zip(run.weights, exact.weights, strict=True)
            if name == "weights"
            else [(getattr(run, name), getattr(exact, name))]
        )
        deviations[name] = np.max([_farthest(a, b, run.batch) for a, b in pairs], axis=0)
    gap = None
    if "strengths" in run.names:
        s = solution.start.modes[1]
        gap = deviations["strengths"] / np.abs(s).max(axis=-1)
    return Comparison(solution.name, exact, deviations, gap, _drift(run, solution))


def _farthest(a: Floats, b: Floats, batch: int) -> Floats:
    """Largest difference of each member, where it still ran."""
    off = np.abs(a - b).reshape(batch, -1)
    return np.asarray(np.nanmax(np.where(np.isnan(off), -np.inf, off), axis=1, initial=-np.inf))


def _drift(run: Trajectory, solution: Solution) -> Floats:
    if run.final is None:
        return np.full(run.batch, np.nan)
    start = solution.start
    before = _conserved([start.layer(k) for k in range(1, start.depth + 1)])
    after = _conserved([w.astype(np.float64, copy=False) for w in run.final.layers])
    moved = [np.abs(c - c0).reshape(run.batch, -1).max(axis=1) for c, c0 in zip(after, before, strict=True)]
    return np.asarray(np.max(moved, axis=0)) if moved else np.zeros(run.batch)


def _conserved(layers: list[Floats]) -> list[Floats]:
    return [transposed(b) @ b - a @ transposed(a) for a, b in pairwise(layers)]
