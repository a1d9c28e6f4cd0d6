"""The matrix Riccati equation P' = FP + PF - P², F symmetric, from P(0) = Q_0 Q_0ᵀ: any time in one step.

With F = O diag(w) Oᵀ and X = OᵀQ_0 the solution is P = O e^{wt} X [I + Xᵀ g X]⁻¹ Xᵀ e^{wt} Oᵀ, g = (e^{2wt} - 1)/2w
(Fukumizu 1998; Braun et al. 2022; Dominé et al. 2025). Evaluated as it stands it loses all digits once wt > 18 and
overflows soon after. Written with Y = √g X,

    P = O e Y (I + YᵀY)⁻¹ Yᵀ e Oᵀ,   e = e^{wt}/√g bounded,

it asks for no more than the subspace that the columns of [Y; I] span, which does not change when columns are combined:
elimination in the rows X, whose scales √g only say where to pivot, leads to a basis with entries near 1 or below,
whatever t is. Every row keeps its own digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln.exact.two_layer_mode import mean_decay
from pydln.reduce.problem import transposed

__all__ = ["factor", "limit"]

Floats = NDArray[Any]


def factor(w: Floats, X: Floats, floor: Floats, t: Floats) -> Floats:
    """L with P = O L Lᵀ Oᵀ at times t: the state Q in the eigenvectors of F, up to a rotation from the right.

    Parameters
    ----------
    w : (batch, N) array
        Eigenvalues of F.
    X : (batch, N, n) array
        OᵀQ_0.
    floor : (batch, N) array
        What rounding may have left in each row of X: where columns cancel to this, nothing is there to grow.
    t : (batch or 1, time) array
        Times >= 0, finite.

    Returns
    -------
    (batch, time, N, n) array
    """
    rates, times = w[:, None, :], t[:, :, None]
    # √g = e^{growth} root, e = fade / root
    growth = np.maximum(rates, 0.0) * times
    root = np.sqrt(times * mean_decay(2 * np.abs(rates) * times))
    fade = np.exp(-np.maximum(-rates, 0.0) * times)
    still = times == 0
    found = _rows(np.maximum(w, 0.0), X, floor, t, growth, root) * (fade / np.where(still, 1.0, root))[..., None]
    return np.where(still[..., None], X[:, None], found)


def limit(w: Floats, X: Floats, floor: Floats) -> Floats:
    """The same for t → ∞, (batch, N, n). Eigenvalues within 1e-12 of the largest count as equal."""
    w = _snapped(w)
    distinct = np.sort(np.maximum(np.concatenate([w, np.zeros_like(w[:, :1])], axis=1), 0.0), axis=1)
    gaps = np.diff(distinct, axis=1)
    smallest = np.min(np.where(gaps > 0, gaps, np.inf), axis=1)
    t = np.where(np.isfinite(smallest), 2000.0 / smallest, 1.0)[:, None]
    growing = w > 0
    root = np.where(w == 0, np.sqrt(t), np.sqrt(0.5 / np.where(w == 0, 1.0, np.abs(w))))[:, None]
    grown = np.where(growing, w * t, 0.0)[:, None]
    # What stands still is overtaken by whatever is not, and decays where it is alone: like 1/√t.
    rows = _rows(np.maximum(w, 0.0), X, floor, t, grown, root)[:, 0]
    return rows * np.where(growing, np.sqrt(2 * np.maximum(w, 0.0)), 0.0)[..., None]


def _snapped(w: Floats) -> Floats:
    order = np.argsort(w, axis=1)
    ordered = np.take_along_axis(w, order, axis=1)
    apart = np.diff(ordered, axis=1) > 1e-12 * np.abs(w).max(axis=1, keepdims=True)
    first = np.concatenate([np.zeros_like(order[:, :1]), np.cumsum(apart, axis=1)], axis=1)
    leaders = np.stack([row[np.searchsorted(places, places)] for row, places in zip(ordered, first, strict=True)])
    leaders[np.abs(leaders) <= 1e-12 * np.abs(w).max(axis=1, keepdims=True)] = 0.0
    snapped = np.empty_like(w)
    np.put_along_axis(snapped, order, leaders, axis=1)
    return snapped


def _rows(rates: Floats, X: Floats, floor: Floats, t: Floats, growth: Floats, root: Floats) -> Floats:
    """Y (I + YᵀY)^(-1/2), up to a rotation from the right, for Y = e^{growth} root X; growth = rates · t."""
    basis = _basis(rates, X, floor, t, growth, root)
    triangle = np.linalg.cholesky(transposed(basis) @ basis)  # of numbers near 1
    Y = basis[..., : X.shape[1], :]
    return transposed(np.linalg.solve(triangle, transposed(Y)))


def _basis(rates: Floats, X: Floats, floor: Floats, t: Floats, growth: Floats, root: Floats) -> Floats:
    """A basis of the columns of [Y; I] that is the identity in n of the rows."""
    batch, times, rows = growth.shape
    n = X.shape[-1]
    X = np.where(np.abs(X).max(axis=-1, keepdims=True, initial=0.0) > floor[..., None], X, 0.0)
    identity = np.broadcast_to(np.eye(n), (batch, times, n, n))
    m = np.concatenate([np.broadcast_to(X[:, None], (batch, times, rows, n)), identity], axis=2)
    zeros = np.zeros((batch, times, n))
    with np.errstate(divide="ignore"):
        logarithm = np.concatenate([growth + np.log(root), zeros], axis=2)
    pivots = _eliminate(m, logarithm, np.concatenate([np.broadcast_to(floor, (batch, rows)), zeros[:, 0]], axis=1))
    # Scales of rows over those of the pivots' rows, from differences of rates: those of equal modes cancel exactly.
    rate = np.concatenate([np.broadcast_to(rates[:, None], growth.shape), zeros], axis=2)
    size = np.concatenate([np.broadcast_to(root, growth.shape), zeros + 1.0], axis=2)
    pivot = np.diagonal(np.take_along_axis(m, pivots[..., None], axis=2), axis1=2, axis2=3)
    exponent = (rate[..., None] - np.take_along_axis(rate, pivots, axis=2)[..., None, :]) * t[:, :, None, None]
    entries = m / pivot[..., None, :] * (size[..., None] / np.take_along_axis(size, pivots, axis=2)[..., None, :])
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        near = entries * np.exp(exponent)
        far = np.sign(entries) * np.exp(exponent + np.log(np.abs(entries)))
    return np.asarray(np.where(np.abs(exponent) < 600, near, far))


def _eliminate(m: Floats, logarithm: Floats, floor: Floats) -> NDArray[np.intp]:
    """Gauss-Jordan by columns with complete pivoting, in place; the row of each column's pivot, (batch, time, n).

    Combining columns, rows keep their scales e^logarithm, and these stay out of the arithmetic: they choose the pivots.
    """
    batch, times, rows, n = m.shape
    member, time = np.indices((batch, times))
    pivots = np.zeros((batch, times, n), dtype=np.intp)
    left = np.broadcast_to(floor[:, None, :, None], m.shape).copy()
    closed = np.zeros(m.shape, dtype=bool)  # rows and columns that had their pivot
    for _ in range(n):
        with np.errstate(divide="ignore"):
            weight = np.where(closed, -np.inf, np.log(np.abs(m)) + logarithm[..., None])
        row, column = np.divmod(weight.reshape(batch, times, rows * n).argmax(axis=-1), n)
        pivots[member, time, column] = row
        closed[member, time, row] = True
        closed[member, time, :, column] = True
        ratio = m[member, time, row] / m[member, time, row, column][..., None]
        ratio[member, time, column] = 0.0
        taken = m[member, time, :, column][..., None]
        # What rounding has left of an entry grows with the entries it is combined with: a remainder below it is none.
        of_ratio = (left[member, time, row] + np.abs(ratio) * left[member, time, row, column][..., None]) / np.abs(
            m[member, time, row, column][..., None]
        )
        of_taken = left[member, time, :, column][..., None]
        change = taken * ratio[..., None, :]
        left += of_taken * np.abs(ratio)[..., None, :] + np.abs(taken) * of_ratio[..., None, :]
        m -= change
        m[(change != 0) & (np.abs(m) <= left)] = 0.0
        m[member, time, row] = np.where(np.arange(n) == column[..., None], m[member, time, row], 0.0)
    return pivots
