"""Σ_xx of a task: its principal directions and its root."""

from __future__ import annotations

import weakref

import numpy as np

from pydln._base.arrays import Floats, transposed
from pydln._base.patience import patiently
from pydln.task.squares import Squares, principal
from pydln.task.task import Task

__all__ = ["input_root", "principal_moments", "principal_of"]

_PRINCIPAL: weakref.WeakKeyDictionary[Task, tuple[Floats, Floats, Floats]] = weakref.WeakKeyDictionary()
_ROOTS: weakref.WeakKeyDictionary[Task, Floats] = weakref.WeakKeyDictionary()


def principal_moments(task: Task) -> tuple[Floats, Floats, Floats]:
    """Q, σ and B' of `squares.principal`; those of a Σ_xx that all share are kept for the next run."""
    assert task.squares is not None
    if task.squares.root.ndim == 3:
        return principal_of(task.squares)
    if task not in _PRINCIPAL:
        _PRINCIPAL[task] = principal_of(task.squares)
    return _PRINCIPAL[task]


def principal_of(of: Squares) -> tuple[Floats, Floats, Floats]:
    """`squares.principal`, which Ctrl-C need not wait for."""
    found: tuple[Floats, Floats, Floats] = patiently(lambda root: principal(Squares(root, of.target)), of.root)
    return found


def input_root(task: Task) -> Floats | None:
    """Σ_xx^(1/2), or None where that is the identity; kept for the next time it is asked for."""
    if task.whitened:
        return None
    if task not in _ROOTS:
        Q, sigma, _ = principal_moments(task)
        _ROOTS[task] = np.asarray((Q * sigma[..., None, :]) @ transposed(Q))
    return _ROOTS[task]
