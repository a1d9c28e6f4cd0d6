"""Where the length map comes to rest: q* = V(q*), the mean square of the activity deep inside a network."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import _validate
from pydln.activations import Activation
from pydln.propagation.lengths import broadcast, mean_of
from pydln.propagation.nonlinearity import nonlinearity
from pydln.propagation.roots import bracketed_root

__all__ = ["fixed_point"]

Floats = NDArray[np.float64]

_ROUNDING = 16 * float(np.finfo(np.float64).eps)  # of V(q)/q: what the quadrature may be wrong by
_FACTOR = 4.0  # from one q to the next in the search for a change of sign
_LARGEST = 1e30


def fixed_point(
    activation: str | Activation, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0, *, start: ArrayLike = 1.0
) -> NDArray[np.float64]:
    """q*, the limit of the length map iterated from `start` (Poole et al. 2016; S13 section 4, q_∞(g)).

    Nothing is iterated: near a critical point that would take 1/|1 - V'(q*)| layers. V(q) grows with q for all the
    package's nonlinearities, so the limit is the first fixed point above `start` if V(start) > start, else the first
    below. It is bracketed in steps of a factor 4 and solved for to rounding.

    Parameters
    ----------
    activation : str or Activation
        φ; for a custom one V must grow with q.
    sigma_w, sigma_b : array_like
        Standard deviations of weights (times √n) and biases. They broadcast with `start`.
    start : array_like
        q of the inputs, above zero. It matters only where there are several fixed points: relu at σ_w² = 2, σ_b = 0
        keeps every length; gelu at σ_b = 0 forgets small inputs and lets large ones explode for some σ_w.

    Returns
    -------
    ndarray
        q*: 0 where activity dies, inf where it grows without bound (relu with σ_w² > 2, or σ_w² = 2 and σ_b > 0).

    Raises
    ------
    ValueError, TypeError
        Negative numbers, shapes that do not broadcast, no such nonlinearity.

    Examples
    --------
    >>> fixed_point("tanh", [0.9, 1.1]).round(6)
    array([0.     , 0.11275])
    """
    phi = nonlinearity(activation)
    _validate.array(start, "start", above=0)
    w, b, first = broadcast(sigma_w=sigma_w, sigma_b=sigma_b, start=start)
    shape = w.shape
    w, b, q = w.reshape(-1), b.reshape(-1), first.reshape(-1).copy()

    def growth(q: Floats, which: NDArray[np.intp]) -> Floats:
        """V(q)/q - 1, zero where it is within rounding."""
        gain = w[which] ** 2 * mean_of(lambda x: phi.value(x) ** 2, q, phi) / q
        ratio = gain + b[which] ** 2 / q
        return np.where(np.abs(ratio - 1) <= _ROUNDING * np.maximum(gain, 1.0), 0.0, ratio - 1)

    at_start = growth(q, np.arange(q.size))
    up, far = at_start > 0, q.copy()
    result = np.where(at_start == 0, q, np.nan)
    # No fixed point lies above this: V(q) ≤ σ_w² E[φ²] + σ_b², unless φ has no bound, and then it explodes.
    highest = _LARGEST * (1 + w**2 + b**2) * np.maximum(q, 1.0)
    lowest = np.minimum(q, 1.0) / _LARGEST
    ended = at_start == 0
    while not ended.all():
        going = np.flatnonzero(~ended)
        near = far[going]
        far[going] = np.where(up[going], near * _FACTOR, near / _FACTOR)
        now = growth(far[going], going)
        q[going] = near
        crossed = np.where(up[going], now <= 0, now >= 0)
        out = ~crossed & ((far[going] > highest[going]) | (far[going] < lowest[going]))
        result[going[out]] = np.where(up[going[out]], np.inf, 0.0)
        ended[going] = crossed | out
    inside = np.flatnonzero(np.isnan(result))
    if inside.size:
        logs = bracketed_root(lambda x, part: growth(np.exp(x), inside[part]), np.log(q[inside]), np.log(far[inside]))
        result[inside] = np.exp(logs)
        # At criticality growth falls below rounding on the way to 0 or ∞, and stays there: that is where the way leads.
        beyond = np.where(up[inside], result[inside] * _FACTOR, result[inside] / _FACTOR)
        lost = growth(beyond, inside) == 0
        if phi.value(np.zeros(1))[0] == 0:
            result[inside[lost & ~up[inside] & (b[inside] == 0)]] = 0.0
        result[inside[lost & up[inside]]] = np.inf
    return result.reshape(shape)
