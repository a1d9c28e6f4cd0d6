"""Which exact solution applies."""

from __future__ import annotations

from pydln.errors import NotApplicable
from pydln.exact.aligned_balanced import AlignedBalanced
from pydln.exact.aligned_two_layers import AlignedTwoLayers
from pydln.exact.one_layer import OneLayer
from pydln.exact.solution import Solution
from pydln.exact.start import Start
from pydln.task import Task
from pydln.weights import Weights

__all__ = ["SOLUTIONS", "solve"]

SOLUTIONS: tuple[type[Solution], ...] = (OneLayer, AlignedTwoLayers, AlignedBalanced)
"""Every exact solution, in the order in which they are tried."""


def solve(task: Task, weights: Weights) -> Solution:
    """The exact gradient flow of a task from given weights.

    Parameters
    ----------
    task : Task
        Single or batched.
    weights : Weights
        The start of every member. A batch of one goes with any batch, on either side.

    Returns
    -------
    Solution
        ``solution.evaluate(t)`` is a `Trajectory`, t in units of tau = 1/lr.

    Raises
    ------
    TypeError, ValueError
        Not a task or not weights, or widths or batches that do not fit each other.
    NotApplicable
        No solution covers this start. The message is the condition that the nearest one misses, with the number
        measured; the attribute ``missed`` has what each of them misses.

    Notes
    -----
    Covered are one layer (any start and inputs); two layers with whitened inputs from a decoupled start, balanced or
    not; three and more with whitened inputs from a decoupled balanced start. One counts as decoupled if the weights
    are W_l = R_{l+1} diag(a_l) R_l^T in the modes of the task, up to parts that never move, to 1e-12 (float32: 4e-6) of
    a_l plus 32 rounding errors of the Frobenius norm of W_l.
    """
    start = Start(task, weights)
    missed: list[tuple[int, str, str]] = []
    for candidate in SOLUTIONS:
        for held, condition in enumerate(candidate.conditions(start)):
            if not condition.holds:
                missed.append((held, candidate.name, condition.failure))
                break
        else:
            return candidate(start)
    _, nearest, reason = max(missed, key=lambda entry: entry[0])
    raise NotApplicable(
        f"{reason} (needed by the solution {nearest!r})", {name: failure for _, name, failure in missed}
    )
