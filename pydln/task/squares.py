"""The loss of a linear network above its floor as what it is, a sum of squares: L = floor + 1/2 |B - Omega A|².

A is a root of Sigma_xx (A Aᵀ = Sigma_xx) and B Aᵀ = Sigma_yx. |B|² is what the best map explains of <|y|²>, so B is
moderate however near Sigma_xx is to a singular matrix, where Omega* = B A⁺ is not. Inputs are measured in units of
their own: which directions exist is decided by the rounding of each input, not by that of the largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONSISTENT", "Squares", "of_covariances", "of_samples", "principal"]

Floats = NDArray[np.float64]

# Covariances computed in float32 are consistent to about 1e-7: anything worse is a mistake, anything better is
# rounding.
CONSISTENT = 1e-6

_EPS = float(np.finfo(np.float64).eps)

# Little above the rounding of eigenvalues themselves (a few eps of the largest, also for 1000 inputs), because leaving
# out a direction that does vary costs more than keeping one that does not. In its own units the least of MNIST's 711
# directions has 1e-8 of the largest eigenvalue, the largest of the others 4e-16.
_ROUNDING = 32 * _EPS

_ROWS = 1024  # of samples decomposed at once, at least


@dataclass(frozen=True, eq=False)
class Squares:
    """A and B of a task, or of several: one entry for all or one per member in front of either.

    Attributes
    ----------
    root : (..., n_in, rank) array
        A; columns of zeros complete what members of lower rank have.
    target : (..., n_out, rank) array
        B.
    """

    root: Floats
    target: Floats

    def of(self, member: int | slice | NDArray[np.int64]) -> Squares:
        """Those of one member, or of some."""
        return Squares(*(a[member] if a.ndim == 3 else a for a in (self.root, self.target)))

    @property
    def explained(self) -> Floats:
        """|B|², what the best map explains of <|y|²>."""
        return np.asarray(np.sum(self.target**2, axis=(-2, -1)))


def of_covariances(sigma_xx: Floats, sigma_yx: Floats, trace_yy: Floats) -> tuple[Squares, Floats]:
    """A and B from covariances, and the optimum; ValueError for those that no data have.

    Given Sigma_xx >= 0, a Sigma_yy of this trace that makes all of them jointly a covariance exists if and only if
    Sigma_yx lies in the range of Sigma_xx and tr Sigma_yy >= |B|².
    """
    variances = np.diagonal(sigma_xx, axis1=-2, axis2=-1)
    most = variances.max(axis=-1, keepdims=True)
    unit = np.sqrt(np.where(variances > 0, variances, np.where(most > 0, most, 1.0)))
    values, vectors = _spectrum(sigma_xx, unit)
    coarse = values[..., :1] < -CONSISTENT * values[..., -1:]
    if coarse.any():  # float32 moments of inputs that hardly vary: consistent only in units that all share
        unit = np.where(coarse, np.sqrt(np.where(most > 0, most, 1.0)), unit)
        values, vectors = _spectrum(sigma_xx, unit)
    if np.any(values[..., 0] < -CONSISTENT * np.maximum(values[..., -1], 0)):
        lowest = np.linalg.eigvalsh(sigma_xx).min()
        raise ValueError(
            f"sigma_xx: expected a covariance matrix, without negative eigenvalues, got one of {lowest:.3g}"
        )
    # Negative eigenvalues are rounding, which is as large on the other side of zero.
    kept = values > np.maximum(_ROUNDING * values[..., -1:], -2 * values[..., :1])
    deviations = np.sqrt(np.where(kept, values, 0.0))
    turned = (sigma_yx / unit[..., None, :]) @ vectors
    # Cauchy-Schwarz: |Sigma_yx v|² <= (vᵀ Sigma_xx v) tr Sigma_yy, so what is outside the range must be this small.
    outside = np.linalg.norm(np.where(kept[..., None, :], 0.0, turned), axis=(-2, -1))
    if np.any(outside > CONSISTENT * np.sqrt(np.maximum(values[..., -1], 0)) * np.sqrt(trace_yy)):
        raise ValueError(
            "sigma_yx: expected a matrix in the range of sigma_xx (inputs that never vary cannot covary with targets), "
            f"got a part of norm {np.max(outside):.3g} outside it"
        )
    target = np.where(kept[..., None, :], turned / np.where(kept, deviations, 1.0)[..., None, :], 0.0)
    return _made(unit, vectors, deviations, target)


def of_samples(x: Floats, y: Floats, count: int) -> tuple[Squares, Floats, float]:
    """A, B, the optimum and the floor from samples in rows, by a QR of these: no covariance is formed on the way."""
    n_in = x.shape[1]
    lengths = np.sqrt(np.einsum("ij,ij->j", x, x))
    unit = np.where(lengths > 0, lengths, 1.0)
    upper, targets, rest = _triangle(x, y, unit)
    # R = P S Qᵀ for inputs in units of their own; P turns the targets.
    P, S, rows = np.linalg.svd(upper, full_matrices=True)
    values = np.zeros(n_in)
    values[: len(S)] = S
    kept = values > max(_ROUNDING, _EPS * n_in) * values[0]
    rank = int(kept.sum())
    turned = (P.T @ targets).T / np.sqrt(count)
    target = np.zeros((y.shape[1], n_in))
    target[:, :rank] = turned[:, :rank]
    # As many directions as samples leave nothing: the floor is 0, not its rounding.
    floor = 0.5 * (rest / count + float(np.sum(turned[:, rank:] ** 2)))
    squares, optimum = _made(unit / np.sqrt(count), rows.T[:, ::-1], np.where(kept, values, 0.0)[::-1], target[:, ::-1])
    return squares, optimum, floor


def principal(squares: Squares) -> tuple[Floats, Floats, Floats]:
    """Q, sigma and B' with A = Q diag(sigma) Oᵀ and B' = B O: |B - Omega A|² = |B' - (Omega Q) diag(sigma)|².

    Returns
    -------
    Q : (..., n_in, n_in) array
        Eigenvectors of Sigma_xx.
    sigma : (..., n_in) array
        Roots of its eigenvalues, decreasing; exactly 0 for directions that do not exist.
    target : (..., n_out, n_in) array
        B', 0 there.
    """
    rank = np.any(squares.root != 0, axis=-2).sum(axis=-1)
    Q, values, turns = np.linalg.svd(squares.root, full_matrices=True)
    n_in, columns = squares.root.shape[-2:]
    sigma = np.zeros((*values.shape[:-1], n_in))
    sigma[..., :columns] = np.where(np.arange(columns) < rank[..., None], values, 0.0)
    turned = squares.target @ np.swapaxes(turns, -2, -1)
    target = np.zeros((*turned.shape[:-1], n_in))
    target[..., :columns] = np.where(sigma[..., None, :columns] > 0, turned, 0.0)
    return Q, sigma, target


def _spectrum(sigma_xx: Floats, unit: Floats) -> tuple[Floats, Floats]:
    return np.linalg.eigh(sigma_xx / unit[..., :, None] / unit[..., None, :])


def _triangle(x: Floats, y: Floats, unit: Floats) -> tuple[Floats, Floats, float]:
    """x / unit = Q R: R, Qᵀ y and the square of what is left of y, some rows after the others and without Q itself."""
    from scipy.linalg import qr  # half the import of the package, for those who have samples

    upper, targets, rest = np.zeros((0, x.shape[1])), np.zeros((0, y.shape[1])), 0.0
    size = max(_ROWS, 4 * x.shape[1])
    for first in range(0, len(x), size):
        some = slice(first, first + size)
        rows = np.concatenate([upper, x[some] / unit])
        (packed, tau), upper = qr(rows, mode="raw", overwrite_a=True, check_finite=False)
        turned = _turned(packed[:, : len(tau)], tau, np.concatenate([targets, y[some]]))
        targets, rest = turned[: len(tau)], rest + float(np.sum(turned[len(tau) :] ** 2))
    return upper, targets, rest


def _turned(packed: Floats, tau: Floats, a: Floats) -> Floats:
    """Qᵀ a, Q as LAPACK keeps it."""
    from scipy.linalg.lapack import dormqr as turn

    space = int(turn("L", "T", packed, tau, a, -1)[1][0])
    return np.asarray(turn("L", "T", packed, tau, a, space)[0])


def _made(unit: Floats, vectors: Floats, deviations: Floats, target: Floats) -> tuple[Squares, Floats]:
    """A = unit V diag(deviations) and B, directions that exist in front, and the optimum; all in increasing order."""
    exists = deviations > 0
    inverse = np.swapaxes(vectors / np.where(exists, deviations, np.inf)[..., None, :], -2, -1) / unit[..., None, :]
    root = unit[..., :, None] * vectors * deviations[..., None, :]
    optimum = _shortest(target @ inverse, vectors / unit[..., :, None], exists)
    # What rounding left over of the equation B = Omega A.
    optimum = optimum + (target - optimum @ root) @ inverse
    columns = max(1, int(exists.sum(axis=-1).max()))
    front = np.s_[..., : -columns - 1 : -1]
    return Squares(np.ascontiguousarray(root[front]), np.ascontiguousarray(target[front])), optimum


def _shortest(omega: Floats, vectors: Floats, exists: NDArray[np.bool_]) -> Floats:
    """Omega without its part along inputs that never vary, spanned by the columns of `vectors` that do not exist."""
    if exists.all():
        return omega
    omega = np.array(
        np.broadcast_to(omega, (*np.broadcast_shapes(omega.shape[:-2], exists.shape[:-1]), *omega.shape[-2:]))
    )
    shape = omega.shape
    omega, vectors = omega.reshape(-1, *shape[-2:]), vectors.reshape(-1, *vectors.shape[-2:])
    missing = np.broadcast_to((~exists).sum(axis=-1), shape[:-2]).reshape(-1)
    for count in np.unique(missing[missing > 0]):
        own = np.flatnonzero(missing == count)
        null = np.linalg.qr(vectors[own if len(vectors) > 1 else slice(None), :, :count])[0]
        omega[own] = omega[own] - (omega[own] @ null) @ np.swapaxes(null, -2, -1)
    return omega.reshape(shape)
