"""Over how many layers a network forgets: lengths ξ_q and correlations ξ_c (Schoenholz et al. 2017, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln.activations import Activation
from pydln.propagation.correlations import correlation_slope, resting_correlation
from pydln.propagation.fixed_points import fixed_point
from pydln.propagation.lengths import broadcast, chi, length_slope
from pydln.propagation.nonlinearity import nonlinearity

__all__ = ["DepthScales", "depth_scales", "scales_at"]

Floats = NDArray[np.float64]


class DepthScales(NamedTuple):
    """Depth scales in layers, of one shape.

    Attributes
    ----------
    xi_q : ndarray
        |q - q*| falls as e^{-l/ξ_q}: ξ_q = -1/ln V'(q*). Infinite where V' = 1, NaN where q* is infinite.
    xi_c : ndarray
        |c - c*| falls as e^{-l/ξ_c}: ξ_c = -1/ln χ_{c*}. Infinite at the edge of chaos, NaN where q* is infinite. Where
        q* = 0, where c* is not defined, it is -1/ln χ, the scale on which two activities approach each other.
    """

    xi_q: NDArray[np.float64]
    xi_c: NDArray[np.float64]


def depth_scales(
    activation: str | Activation, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0, *, start: ArrayLike = 1.0
) -> DepthScales:
    """ξ_q and ξ_c, the depths over which lengths and correlations reach their fixed points.

    Parameters and errors as for `fixed_point`, which gives q*.

    Examples
    --------
    >>> [float(xi.round(6)) for xi in depth_scales("relu", 1.0)]
    [1.442695, 1.442695]
    """
    phi = nonlinearity(activation)
    w, b = broadcast(sigma_w=sigma_w, sigma_b=sigma_b)
    q = fixed_point(phi, w, b, start=start)
    w, b = np.broadcast_to(w, q.shape), np.broadcast_to(b, q.shape)
    growth = chi(q, phi, w)
    return scales_at(phi, q, growth, resting_correlation(phi, q, growth, w, b), w)


def scales_at(phi: Activation, q: Floats, growth: Floats, c: Floats, w: Floats) -> DepthScales:
    """The scales from q*, χ and c*, arrays of one shape."""
    at_c = np.array(growth)
    chaotic = c < 1  # False where c* is NaN
    at_c[chaotic] = correlation_slope(c[chaotic], q[chaotic], phi, w[chaotic])
    explodes = np.isinf(q)
    return DepthScales(*(np.where(explodes, np.nan, _scale(slope)) for slope in (length_slope(q, phi, w), at_c)))


def _scale(slope: Floats) -> Floats:
    """-1/ln slope; 0 for a slope of 0, infinite from 1 on."""
    with np.errstate(divide="ignore"):
        return np.where(slope < 1, -1 / np.log(np.minimum(slope, 1.0)), np.inf)
