"""Where the length map comes to rest: q* = V(q*), the mean square of the activity deep inside a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln.activations import Activation
from pydln.propagation.lengths import LONGEST, broadcast, mean_of
from pydln.propagation.nonlinearity import nonlinearity
from pydln.propagation.roots import bracketed_root

__all__ = ["all_fixed_points", "fixed_point"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Places = NDArray[np.intp]

_ROUNDING = 16 * float(np.finfo(np.float64).eps)  # of V(q)/q: what the quadrature may be wrong by
_FACTOR = 4.0  # from one q to the next in the search for a change of sign
_LARGEST = 1e30
# Where the search ends at the latest. A fixed point is at most (σ_w² E[φ²] + σ_b²)/_ROUNDING, 1e116 at the largest.
_ENDS = (1e-290, 1e290)
_SCANNED, _SCAN = 1e-12, 401


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
        q of the inputs, 1e-150 to 1e150. It matters only where there are several fixed points: relu at σ_w² = 2,
        σ_b = 0 keeps every length; gelu at σ_b = 0 forgets small inputs and lets large ones explode for some σ_w.

    Returns
    -------
    ndarray
        q*: 0 where activity dies, inf where it grows without bound (relu with σ_w² > 2, or σ_w² = 2 and σ_b > 0). At
        criticality the limit is approached as a power of the depth, for tanh at σ_w = 1, σ_b = 0 as q ~ 1/(2l), and is
        0 from any `start`. A change of q by less than 4e-15 of itself in a layer is rounding: where that holds over a
        range of q, the limit is the one to which the lengths around it lead, so that a q* that leaves 0 by less than
        about 1e-14 is 0; where they lead into the range (tanh at σ_w = 1, σ_b < 1e-15), it is a q of that range.

    Raises
    ------
    ValueError, TypeError
        Negative numbers or ones too large for float64's squares, shapes that do not broadcast, no such nonlinearity.

    Examples
    --------
    >>> fixed_point("tanh", [0.9, 1.1]).round(6)
    array([0.     , 0.11275])
    """
    phi = nonlinearity(activation)
    validate.array(start, "start", at_least=1 / LONGEST)
    w, b, first = broadcast(sigma_w=sigma_w, sigma_b=sigma_b, start=start)
    shape = w.shape
    w, b, q = w.reshape(-1), b.reshape(-1), first.reshape(-1)
    least = (w * phi.value(np.zeros(1))[0]) ** 2 + b**2  # V(0), below which no fixed point lies

    def growth(q: Floats, which: Places) -> Floats:
        return _growth(phi, q, w[which], b[which])

    lowest = np.maximum(np.minimum(np.minimum(q, 1.0) / _LARGEST, np.where(least > 0, least, np.inf)), _ENDS[0])
    # No fixed point lies above this: V(q) ≤ σ_w² E[φ²] + σ_b², unless φ has no bound, and then it explodes.
    highest = np.minimum(_LARGEST * (1 + w**2 + b**2) * np.maximum(q, 1.0), _ENDS[1])

    def walked(
        which: Places, begin: Floats, up: Bools, stays: Callable[[Floats, Bools], Bools]
    ) -> tuple[Floats, Floats, Bools]:
        """In steps of a factor while `stays` holds of the growth: the last q where it did, the next, ends reached."""
        near, far, out = begin.copy(), begin.copy(), np.zeros(which.size, bool)
        going = np.arange(which.size)
        while going.size:
            near[going] = far[going]
            far[going] *= np.where(up[going], _FACTOR, 1 / _FACTOR)
            on = stays(growth(far[going], which[going]), up[going])
            out[going] = on & ((far[going] > highest[which[going]]) | (far[going] < lowest[which[going]]))
            going = going[on & ~out[going]]
        return near, far, out

    at_start = growth(q, np.arange(q.size))
    result, begin, way = np.where(at_start == 0, q, np.nan), q.copy(), np.sign(at_start)
    # Where lengths rest not at a point but over a range, those at its ends say where the range leads: tanh at σ_w = 1
    # has V(q)/q - 1 = -2q, which is rounding below 1e-15; relu at σ_w² = 2 keeps every length.
    still = np.flatnonzero(at_start == 0)
    ends = [walked(still, q[still], np.full(still.size, up), lambda gap, _: gap == 0) for up in (False, True)]
    (low, under, dies), (high, over, explodes) = ends
    wide = (low < q[still]) | (high > q[still])
    for there, never, otherwise in ((over, explodes, dies), (under, dies, explodes)):
        leads = wide & otherwise & ~never
        begin[still[leads]] = there[leads]
        way[still[leads]] = np.sign(growth(there[leads], still[leads]))
    result[way != 0] = np.nan
    down, up_there = wide & dies & (way[still] < 0), wide & explodes & (way[still] > 0)
    result[still[down]], result[still[up_there]] = 0.0, np.inf

    moving = np.flatnonzero(np.isnan(result))
    up = way[moving] > 0
    near, far, out = walked(moving, begin[moving], up, lambda gap, up: np.where(up, gap > 0, gap < 0))
    result[moving[out]] = np.where(up[out], np.inf, 0.0)
    inside, up, near, far = moving[~out], up[~out], near[~out], far[~out]
    if inside.size:
        logs = bracketed_root(lambda x, part: growth(np.exp(x), inside[part]), np.log(near), np.log(far))
        result[inside] = np.exp(logs)
        # At criticality growth falls below rounding on the way to 0 or ∞, and stays there: that is where the way leads.
        beyond = np.where(up, result[inside] * _FACTOR, result[inside] / _FACTOR)
        lost = growth(beyond, inside) == 0
        if phi.value(np.zeros(1))[0] == 0:
            result[inside[lost & ~up & (b[inside] == 0)]] = 0.0
        result[inside[lost & up]] = np.inf
    return result.reshape(shape)


def all_fixed_points(
    activation: str | Activation, sigma_w: float, sigma_b: float, largest: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Every q* in (0, largest], ascending, and whether lengths around it come to it: then `fixed_point` can be there.

    They are looked for from `largest` down to 1e-12 of it in steps of a factor 1.07: two closer ones are missed, as is
    one where the map touches q' = q. Where all lengths of a range rest there are none.
    """
    phi = nonlinearity(activation)
    q = np.geomspace(largest * _SCANNED, largest * 1.01, _SCAN)
    w, b = np.full(_SCAN, float(sigma_w)), np.full(_SCAN, float(sigma_b))
    found = _growth(phi, q, w, b)
    moves = np.flatnonzero(found)
    turns = np.flatnonzero(np.diff(np.sign(found[moves])))
    low, high = moves[turns], moves[turns + 1]
    logs = bracketed_root(lambda x, part: _growth(phi, np.exp(x), w[part], b[part]), np.log(q[low]), np.log(q[high]))
    inside = np.exp(logs)
    return inside[inside <= largest], (found[low] > 0)[inside <= largest]


def _growth(phi: Activation, q: Floats, w: Floats, b: Floats) -> Floats:
    """V(q)/q - 1, zero where it is within rounding."""
    gain = w**2 * (mean_of(lambda x: phi.value(x) ** 2, q, phi) / q)
    ratio = gain + b**2 / q
    return np.where(np.abs(ratio - 1) <= _ROUNDING * np.maximum(gain, 1.0), 0.0, ratio - 1)
