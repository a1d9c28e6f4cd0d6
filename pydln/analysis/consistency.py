"""The consistency condition of greedy pretraining: the modes of the task must be those of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydln._base import validate
from pydln.task.task import Task

__all__ = ["Consistency", "consistency"]

FloatArray = NDArray[np.float64]

# Below this part of the terms of uᵀΣ_yx v a mode is rounding: it has strength 0, and its direction is anything.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True, eq=False)
class Consistency:
    """How far VᵀΣ_xxV is diagonal. A batched task has the batch axis in front of each.

    Attributes
    ----------
    matrix : (r, r) array
        VᵀΣ_xxV, in the order of ``task.modes``.
    score : float or (batch,) array
        Σ_α C_αα² / Σ_αβ C_αβ² of the matrix C, modes of strength 0 left out: 1 if it is diagonal.
    null : float or (batch,) array
        The score of as many directions drawn at random (Haar), mean over mean: what says nothing about the task.
    inside : float or (batch,) array
        |VᵀΣ_xxV|² / |Σ_xxV|² over the same modes: 1 if Σ_xx does not lead out of their span. With a score of 1 too,
        every v is an eigenvector, Σ_xx v = d v, and exact solutions for uncorrelated inputs apply.
    """

    matrix: FloatArray
    score: float | FloatArray
    null: float | FloatArray
    inside: float | FloatArray


def consistency(task: Task) -> Consistency:
    """The consistency condition of greedy pretraining, VᵀΣ_xxV diagonal (Saxe, McClelland & Ganguli 2013, eq. 18).

    Pretraining on the inputs turns the network along the eigenvectors Q of Σ_xx, the modes V of the task decide what is
    to be learned: the start is a decoupled one only if these are the same. The score of random directions is

        r A / (r A + r (r - 1) B),   A = ⟨C_αα²⟩ = (2 tr Σ² + (tr Σ)²) / n(n + 2),
        B = ⟨C_αβ²⟩ = (n tr Σ² - (tr Σ)²) / (n - 1)n(n + 2),   Σ = Σ_xx, n = n_0, r modes.

    Parameters
    ----------
    task : Task
        Single or batched. Whitened inputs fulfil the condition whatever the task.

    Returns
    -------
    Consistency

    Raises
    ------
    TypeError
        Not a task.
    """
    validate.instance(task, "task", Task)
    U, s, V = task.modes
    sigma_xx = task.sigma_xx
    image = sigma_xx @ V
    matrix = np.swapaxes(V, -2, -1) @ image
    matrix = 0.5 * (matrix + np.swapaxes(matrix, -2, -1))
    real = (np.abs(s) > _ROUNDING * np.sum(np.abs(U) * (np.abs(task.sigma_yx) @ np.abs(V)), axis=-2)).astype(float)
    squares = matrix**2 * real[..., :, None] * real[..., None, :]
    all_of_it = _or_one(squares.sum(axis=(-2, -1)))
    own = np.trace(squares, axis1=-2, axis2=-1)
    reached = _or_one(np.sum(image**2 * real[..., None, :], axis=(-2, -1)))

    n, r = task.n_in, real.sum(axis=-1)
    trace, square = np.trace(sigma_xx, axis1=-2, axis2=-1), np.sum(sigma_xx**2, axis=(-2, -1))
    diagonal = (2 * square + trace**2) / (n * (n + 2))
    beside = np.maximum(n * square - trace**2, 0.0) / (max(n - 1, 1) * n * (n + 2))
    null = diagonal / _or_one(diagonal + np.maximum(r - 1, 0) * beside)
    return Consistency(
        matrix=matrix,
        score=_plain(np.where(r > 0, own / all_of_it, np.nan)),
        null=_plain(np.where(r > 0, null, np.nan)),
        inside=_plain(np.where(r > 0, squares.sum(axis=(-2, -1)) / reached, np.nan)),
    )


def _or_one(a: FloatArray) -> FloatArray:
    return np.where(a > 0, a, 1.0)


def _plain(value: FloatArray) -> float | FloatArray:
    return float(value) if np.ndim(value) == 0 else value
