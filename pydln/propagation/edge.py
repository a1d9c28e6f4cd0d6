"""The edge of chaos: the line in the plane of σ_w and σ_b on which χ = 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln.activations import Activation
from pydln.propagation.fixed_points import fixed_point
from pydln.propagation.lengths import broadcast, chi
from pydln.propagation.nonlinearity import nonlinearity
from pydln.propagation.roots import bracketed_root

__all__ = ["edge_of_chaos"]

Floats = NDArray[np.float64]

_GRID = np.geomspace(1e-3, 1e4, 100)
_JUMP = 1e-3  # a change of sign of χ - 1 with no smaller value beside it is a jump


def edge_of_chaos(
    activation: str | Activation, sigma_b: ArrayLike = 0.0, *, start: ArrayLike = 1.0
) -> NDArray[np.float64]:
    """σ_w at which χ(q*) = 1, the smallest for each σ_b (Schoenholz et al. 2017, fig. 1).

    Below it nearby inputs become one, above it they part. There ξ_c diverges, and gradients neither vanish nor explode.

    Parameters
    ----------
    activation : str or Activation
        φ. The line is looked for between 0.001 and 10000, in steps of a factor 1.18.
    sigma_b : array_like
        Standard deviation of the biases.
    start : array_like
        q of the inputs, as for `fixed_point`.

    Returns
    -------
    ndarray
        σ_w in the shape of `sigma_b`; NaN where χ never is one, or passes it in a jump (gelu at σ_b = 0, where q* jumps
        from 0 to ∞).

    Raises
    ------
    ValueError, TypeError
        As for `fixed_point`.

    Examples
    --------
    >>> edge_of_chaos("relu", [0.0, 0.5]).round(9)
    array([1.41421356, 1.41421356])
    """
    phi = nonlinearity(activation)
    b, first = broadcast(sigma_b=sigma_b, start=start)
    shape = b.shape
    b, first = b.reshape(-1), first.reshape(-1)

    def excess(w: Floats, which: NDArray[np.intp]) -> Floats:
        return chi(fixed_point(phi, w, b[which], start=first[which]), phi, w) - 1

    every = np.arange(b.size)
    on_grid = excess(np.repeat(_GRID, b.size), np.tile(every, _GRID.size)).reshape(_GRID.size, b.size)
    crossed = (on_grid[:-1] < 0) & (on_grid[1:] >= 0)
    found = np.flatnonzero(crossed.any(axis=0))
    place = crossed[:, found].argmax(axis=0)
    result = np.full(b.size, np.nan)
    low, high = _GRID[place], _GRID[place + 1]
    root = bracketed_root(lambda w, part: excess(w, found[part]), low, high)
    # Without biases q* leaves 0 there and χ - 1 may grow as slowly as (σ_w - edge)², half of whose digits are rounding.
    if phi.value(np.zeros(1))[0] == 0:
        leaves_zero = 1 / np.sqrt(chi(0.0, phi, 1.0))
        root = np.where((b[found] == 0) & (low < leaves_zero) & (leaves_zero <= high), leaves_zero, root)
    result[found] = np.where(np.abs(excess(root, found)) < _JUMP, root, np.nan)
    return result.reshape(shape)
