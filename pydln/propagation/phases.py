"""The phase diagram: everything the mean field says, over a grid of σ_w and σ_b."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln.activations import Activation
from pydln.propagation.correlations import resting_correlation
from pydln.propagation.depth_scales import scales_at
from pydln.propagation.edge import edge_of_chaos
from pydln.propagation.fixed_points import fixed_point
from pydln.propagation.lengths import chi
from pydln.propagation.nonlinearity import nonlinearity

__all__ = ["PhaseDiagram", "phase_diagram"]

_AT_ONCE = 2**15  # points of the grid: a few MB of work beside the result
_EDGES_AT_ONCE = 2**10  # each is looked for on a hundred σ_w


@dataclass(frozen=True)
class PhaseDiagram:
    """Fixed points, slopes and depth scales over a grid.

    Attributes
    ----------
    activation : str
        Name of φ.
    sigma_w, sigma_b : (m,), (n,) array
        The axes.
    q : (n, m) array
        q*, see `fixed_point`.
    chi : (n, m) array
        χ at q*: ordered below 1, chaotic above.
    c : (n, m) array
        c*, see `correlation_fixed_point`.
    xi_q, xi_c : (n, m) array
        Depth scales in layers, see `depth_scales`.
    edge : (n,) array
        σ_w at the edge of chaos for each σ_b, see `edge_of_chaos`.
    """

    activation: str
    sigma_w: NDArray[np.float64]
    sigma_b: NDArray[np.float64]
    q: NDArray[np.float64]
    chi: NDArray[np.float64]
    c: NDArray[np.float64]
    xi_q: NDArray[np.float64]
    xi_c: NDArray[np.float64]
    edge: NDArray[np.float64]


def phase_diagram(
    activation: str | Activation, sigma_w: ArrayLike, sigma_b: ArrayLike, *, start: float = 1.0
) -> PhaseDiagram:
    """The phases of wide random networks over a grid (Poole et al. 2016, fig. 1; Schoenholz et al. 2017, fig. 1).

    Parameters
    ----------
    activation : str or Activation
        φ.
    sigma_w, sigma_b : (m,), (n,) array_like
        The axes of the grid, increasing, zero or more.
    start : float
        q of the inputs, as for `fixed_point`.

    Raises
    ------
    ValueError, TypeError
        Axes that are not increasing rows of numbers, no such nonlinearity, a grid that does not fit in memory.
    """
    phi = nonlinearity(activation)
    first = validate.number(start, "start", above=0)
    across, up = _axis(sigma_w, "sigma_w"), _axis(sigma_b, "sigma_b")
    shape, size = (up.size, across.size), up.size * across.size
    validate.fits_in_memory(
        5 * 8 * size,
        f"sigma_w: a phase diagram of {across.size} by {up.size} points",
        "take fewer values along an axis",
    )
    q, growth, c, xi_q, xi_c = (np.empty(size) for _ in range(5))
    for begin in range(0, size, _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        row, column = np.divmod(np.arange(begin, min(begin + _AT_ONCE, size)), across.size)
        w, b = across[column], up[row]
        q[part] = fixed_point(phi, w, b, start=first)
        growth[part] = chi(q[part], phi, w)
        c[part] = resting_correlation(phi, q[part], growth[part], w, b)
        xi_q[part], xi_c[part] = scales_at(phi, q[part], growth[part], c[part], w)
    edge = np.concatenate(
        [edge_of_chaos(phi, up[i : i + _EDGES_AT_ONCE], start=first) for i in range(0, up.size, _EDGES_AT_ONCE)]
    )
    grids = {"q": q, "chi": growth, "c": c, "xi_q": xi_q, "xi_c": xi_c}
    return PhaseDiagram(phi.name, across, up, edge=edge, **{name: a.reshape(shape) for name, a in grids.items()})


def _axis(values: ArrayLike, name: str) -> NDArray[np.float64]:
    axis = validate.array(values, name, shape=(None,), at_least=0).copy()
    if axis.size == 0 or (np.diff(axis) <= 0).any():
        raise ValueError(f"{name}: expected increasing numbers, got {axis.size} that are not")
    return axis
