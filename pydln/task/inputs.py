"""Σ_xx of a task: its spectrum and its root."""

from __future__ import annotations

import weakref

import numpy as np

from pydln._base.arrays import Floats, transposed
from pydln._base.patience import patiently
from pydln.task.task import Task

__all__ = ["input_root", "input_spectrum"]


def input_spectrum(task: Task) -> tuple[Floats, Floats]:
    """Eigenvalues of Σ_xx, increasing and none below zero, and eigenvectors."""
    values, vectors = patiently(np.linalg.eigh, task.sigma_xx)
    return np.maximum(values, 0), vectors


_ROOTS: weakref.WeakKeyDictionary[Task, Floats] = weakref.WeakKeyDictionary()


def input_root(task: Task) -> Floats | None:
    """Σ_xx^(1/2), or None where that is the identity; kept for the next time it is asked for."""
    if task.whitened:
        return None
    if task not in _ROOTS:
        values, vectors = input_spectrum(task)
        _ROOTS[task] = np.asarray((vectors * np.sqrt(values)[..., None, :]) @ transposed(vectors))
    return _ROOTS[task]
