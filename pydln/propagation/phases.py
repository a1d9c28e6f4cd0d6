"""The phase diagram: everything the mean field says, over a grid of σ_w and σ_b."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import _validate
from pydln.activations import Activation
from pydln.propagation.correlations import resting_correlation
from pydln.propagation.depth_scales import scales_at
from pydln.propagation.edge import edge_of_chaos
from pydln.propagation.fixed_points import fixed_point
from pydln.propagation.lengths import chi
from pydln.propagation.nonlinearity import nonlinearity

__all__ = ["PhaseDiagram", "phase_diagram"]


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
        Axes that are not increasing rows of numbers, no such nonlinearity.
    """
    phi = nonlinearity(activation)
    across, up = _axis(sigma_w, "sigma_w"), _axis(sigma_b, "sigma_b")
    w, b = (np.ascontiguousarray(a) for a in np.meshgrid(across, up))
    q = fixed_point(phi, w, b, start=_validate.number(start, "start", above=0))
    growth = chi(q, phi, w)
    c = resting_correlation(phi, q, growth, w, b)
    scales = scales_at(phi, q, growth, c, w)
    edge = edge_of_chaos(phi, up, start=start)
    return PhaseDiagram(phi.name, across, up, q, growth, c, scales.xi_q, scales.xi_c, edge)


def _axis(values: ArrayLike, name: str) -> NDArray[np.float64]:
    axis = _validate.array(values, name, shape=(None,), at_least=0).copy()
    if axis.size == 0 or (np.diff(axis) <= 0).any():
        raise ValueError(f"{name}: expected increasing numbers, got {axis.size} that are not")
    return axis
