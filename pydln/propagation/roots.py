"""Roots of many functions of one variable at a time, each in a bracket of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["bracketed_root"]

Floats = NDArray[np.float64]

_TOLERANCE = 4 * float(np.finfo(np.float64).eps)
_MOST = 200  # bisection alone needs 60 for a bracket of unit length


def bracketed_root(f: Callable[[Floats, NDArray[np.intp]], Floats], low: Floats, high: Floats) -> Floats:
    """x between `low` and `high` with f(x) = 0, where f has different signs, to rounding of x (Chandrupatla 1997).

    Inverse quadratic interpolation where it is safe, bisection elsewhere: the bracket never ceases to be one, so that a
    slope that nearly vanishes at the root, as near a critical point, costs steps and no digits.

    Parameters
    ----------
    f : callable
        ``f(x, which)``: values at x for the entries numbered `which`, both of shape (m,).
    low, high : (n,) array
        The brackets.
    """
    every = np.arange(low.size)
    x1, x2 = low.astype(np.float64), high.astype(np.float64)
    f1, f2 = f(x1, every), f(x2, every)
    x3, f3 = x1.copy(), f1.copy()
    best = np.where(np.abs(f1) < np.abs(f2), x1, x2)
    part = np.full(low.size, 0.5)
    active = every[(f1 != 0) & (f2 != 0)]
    for _ in range(_MOST):
        if not active.size:
            break
        a = active
        x = x1[a] + part[a] * (x2[a] - x1[a])
        y = f(x, a)
        same = np.sign(y) == np.sign(f1[a])
        x3[a], f3[a] = np.where(same, x1[a], x2[a]), np.where(same, f1[a], f2[a])
        x2[a], f2[a] = np.where(same, x2[a], x1[a]), np.where(same, f2[a], f1[a])
        x1[a], f1[a] = x, y
        best[a] = np.where(np.abs(f1[a]) < np.abs(f2[a]), x1[a], x2[a])
        width = np.abs(x2[a] - x1[a])
        room = np.divide(_TOLERANCE * np.abs(best[a]) + 1e-300, width, out=np.ones(a.size), where=width > 0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            xi = (x1[a] - x2[a]) / (x3[a] - x2[a])
            ratio = (f1[a] - f2[a]) / (f3[a] - f2[a])
            smooth = (ratio**2 < xi) & ((1 - ratio) ** 2 < 1 - xi)
            rest = (x3[a] - x1[a]) / (x2[a] - x1[a])
            step = f1[a] / (f2[a] - f1[a]) * f3[a] / (f2[a] - f3[a])
            step += rest * f1[a] / (f3[a] - f1[a]) * f2[a] / (f3[a] - f2[a])
        step = np.where(smooth & np.isfinite(step), step, 0.5)
        part[a] = np.clip(step, np.minimum(room, 0.5), 1 - np.minimum(room, 0.5))
        active = a[(y != 0) & (room < 0.5)]
    return best
