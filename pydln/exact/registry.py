"""Which exact solution applies."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pydln._base import notebook
from pydln._base.patience import interruptible
from pydln.errors import NotApplicable
from pydln.exact.aligned_balanced import AlignedBalanced
from pydln.exact.aligned_two_layers import AlignedTwoLayers
from pydln.exact.balanced_two_layers import BalancedTwoLayers
from pydln.exact.one_layer import OneLayer
from pydln.exact.scaled_inputs import ScaledInputs, common_variance, departure
from pydln.exact.solution import Solution
from pydln.exact.start import Condition, Start
from pydln.task.task import Task
from pydln.weights import Weights

__all__ = ["SOLUTIONS", "Candidate", "Candidates", "candidates", "solve"]

SOLUTIONS: tuple[type[Solution], ...] = (OneLayer, AlignedTwoLayers, BalancedTwoLayers, AlignedBalanced)
"""Every exact solution, in the order in which they are tried."""

_MOST_LEFT_OUT = 0.01  # tolerances up to this are suggested


class Candidate(NamedTuple):
    """A solution and its conditions, in order up to the first that fails.

    Attributes
    ----------
    name : str
    applies : bool
    conditions : tuple of Condition
        Each with ``needs``, ``holds``, ``measured``, ``allowed`` and, in words, ``failure``.
    """

    name: str
    applies: bool
    conditions: tuple[Condition, ...]


class Candidates(tuple[Candidate, ...]):
    """Every solution, in the order in which they are tried; prints itself as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return notebook.as_html(str(self))

    def __str__(self) -> str:
        rows = [("solution", "needs", "holds", "measured", "allowed")]
        for candidate in self:
            name = candidate.name
            for condition in candidate.conditions:
                measured, allowed = (
                    "" if math.isnan(x) else f"{x:.3g}" for x in (condition.measured, condition.allowed)
                )
                rows.append((name, condition.needs, "yes" if condition.holds else "no", measured, allowed))
                name = ""
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _work(task: Task, weights: Weights, **_: Any) -> float:
    """About the work of a look at every layer in the modes of the task, see `pydln._base.patience`."""
    modes = min(task.n_in, task.n_out)
    members = max(weights.batch, task.batch or 1)
    return float(members * (sum(w[0].size for w in weights.layers) * modes + (not task.whitened) * task.n_in**3))


@interruptible(_work)
def candidates(task: Task, weights: Weights, *, tol: float | None = None) -> Candidates:
    """What every exact solution needs of a task and weights, and what was measured.

    Of a task with Sigma_xx = c I this tells what was measured as it stands; `solve` rescales it first.

    Parameters and errors as for `solve`, but for `NotApplicable`.
    """
    return _candidates(Start(task, weights, tol))


def _candidates(start: Start) -> Candidates:
    found = []
    for solution in SOLUTIONS:
        looked_at: list[Condition] = []
        with np.errstate(over="ignore", invalid="ignore"):  # a number that is none holds nothing
            for condition in solution.conditions(start):
                looked_at.append(condition)
                if not condition.holds:
                    break
        found.append(Candidate(solution.name, looked_at[-1].holds, tuple(looked_at)))
    return Candidates(found)


@interruptible(_work)
def solve(task: Task, weights: Weights, *, tol: float | None = None) -> Solution:
    """The exact gradient flow of a task from given weights.

    Parameters
    ----------
    task : Task
        Single or batched.
    weights : Weights
        The start of every member. A batch of one goes with any batch, on either side.
    tol : float, optional
        How far a start may be from what a solution needs, instead of the 1e-12 (float32: 4e-6) of the notes: for starts
        that hold in theory and were made with less precision. What is beyond rounding is then left out, and modes of
        which the weights have nothing but rounding stay unlearned, as in theory.

    Returns
    -------
    Solution
        The first in the order of `SOLUTIONS` whose conditions hold for every member; where several hold they agree, and
        the first keeps the most digits.
        ``solution.evaluate(t)`` is a `Trajectory`, t in units of tau = 1/lr.

    Raises
    ------
    TypeError, ValueError
        Not a task or not weights, or widths or batches that do not fit each other.
    NotApplicable
        No solution covers this start. The message is the condition that the nearest one misses, nearest in units of
        what is allowed, with the number measured and, where one up to 0.01 is enough, the `tol` that would accept it;
        the attribute ``missed`` has what each of them misses, ``table`` all that was measured.

    Notes
    -----
    Covered are one layer (any start and inputs); two layers from a decoupled start, balanced or not; two layers with
    whitened inputs from any start with W_2^T W_2 - W_1 W_1^T = lambda I, to 1e-12 (float32: 4e-6) of |W_1|^2 + |W_2|^2;
    three and more from a decoupled balanced start. Inputs with Sigma_xx = c I are whitened ones in other units
    (`ScaledInputs`). A decoupled start needs inputs that are uncorrelated between the modes of the task, Sigma_xx v =
    d v: whitened ones, and those of an autoencoder, Sigma_yx = Sigma_xx. One counts as decoupled if the weights
    are W_l = R_{l+1} diag(a_l) R_l^T in the modes of the task, up to parts that never move, to 1e-12 (float32: 4e-6) of
    a_l plus 32 rounding errors of the terms that it is the sum of. Whatever a mode has beside it, be it rounding, grows
    as it does: of two layers it must be less than 1e-9 (float32: 1e-3) of each mode that grows. Where a mode is nothing
    but rounding, the exact start would never learn it and the one that was given will: `tol` says that the former is
    meant. So it is with balanced layers whose product has low rank, or a determinant of the other sign than the task:
    without `tol` these are known up to the time when the rounding is seen, and ``evaluate`` refuses later ones.
    """
    start = Start(task, weights, tol)
    c = common_variance(task)
    if c is not None and start.depth > 1 and start.hides(departure(task, c)):
        return ScaledInputs(start, c, partial(solve, tol=tol))
    found = _candidates(start)
    for solution, candidate in zip(SOLUTIONS, found, strict=True):
        if candidate.applies:
            with np.errstate(over="ignore", invalid="ignore"):  # evaluated, it is judged
                return solution(start)
    nearest = _nearest(found)
    enough = _enough(start, nearest)
    accepted = "" if enough is None else f"; tol={enough:.1e} would accept it"
    raise NotApplicable(
        f"{nearest.conditions[-1].failure} (needed by the solution {nearest.name!r}{accepted})",
        {candidate.name: candidate.conditions[-1].failure for candidate in found},
        str(found),
    )


def _excess(candidate: Candidate) -> float:
    """How many times what is allowed was measured; infinite where no tolerance decided."""
    missed = candidate.conditions[-1]
    if not (math.isfinite(missed.measured) and math.isfinite(missed.allowed)):
        return math.inf
    return missed.measured / max(missed.allowed, 1e-300)


def _nearest(found: Candidates) -> Candidate:
    """What misses its condition by the least of what is allowed; of those that miss a yes or no, who got furthest."""
    return min(found, key=lambda candidate: (_excess(candidate), -len(candidate.conditions)))


def _enough(start: Start, nearest: Candidate) -> float | None:
    """A tolerance with which the solution would apply, tried; None where one would leave a percent out."""
    solution = next(s for s in SOLUTIONS if s.name == nearest.name)
    wanted = _excess(nearest) * max(start.tolerance, 1e-16)
    for tol in (1.1 * wanted, 11 * wanted, 110 * wanted):
        rounded = float(f"{tol:.1e}")
        if rounded > _MOST_LEFT_OUT:
            return None
        if all(condition.holds for condition in solution.conditions(Start(start.task, start.weights, rounded))):
            return rounded
    return None
