"""How the correlation c of two inputs maps from layer to layer, and where it comes to rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln.activations import Activation
from pydln.propagation.fixed_points import fixed_point
from pydln.propagation.lengths import broadcast, chi, length_map
from pydln.propagation.nonlinearity import nonlinearity
from pydln.propagation.pairs import pair_means

__all__ = ["correlation_fixed_point", "correlation_map", "correlation_slope", "resting_correlation"]

Floats = NDArray[np.float64]

_SMALL = 1e-20  # q = 0 is a limit
_WORST = 1e-9
_SETTLED = 4 * float(np.finfo(np.float64).eps)
_MOST = 400
_NEUTRAL = 1e-14  # χ - 1 below which it is rounding


def correlation_map(
    c: ArrayLike, q: ArrayLike, activation: str | Activation, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """One layer of the correlation map, c' = (σ_w² E[φ(u_1)φ(u_2)] + σ_b²)/q' (Poole et al. 2016).

    u_1 and u_2 are Gaussian, both of variance q, with correlation c; q' is `length_map` at q.

    Parameters
    ----------
    c : array_like
        Correlations, -1 to 1. All arguments broadcast.
    q : array_like
        Mean square of both activities; 0 is the limit from above.
    activation, sigma_w, sigma_b
        As for `length_map`.

    Returns
    -------
    ndarray
        c'; beside the rounding of c, 1 - c' has a relative error of about 1e-12, with kinks or large q 1e-10 as c → 1.

    Raises
    ------
    ValueError, TypeError
        A correlation beyond ±1, negative numbers, no such nonlinearity, one that the quadrature cannot resolve;
        σ_w = σ_b = 0, where no activity is left to be correlated.
    """
    phi, (correlation, lengths, w, b) = _arguments(c, q, activation, sigma_w, sigma_b)
    after = length_map(lengths, phi, w, b)
    if (after == 0).any():
        raise ValueError("sigma_w: expected some activity after the layer, got none: sigma_w = sigma_b = 0")
    difference, _ = _pairs(phi, lengths, 1 - correlation)
    return 1 - w**2 * difference / after


def correlation_slope(
    c: ArrayLike, q: ArrayLike, activation: str | Activation, sigma_w: ArrayLike
) -> NDArray[np.float64]:
    """χ_c = σ_w² E[φ'(u_1)φ'(u_2)], where q is at rest the slope dc'/dc (Schoenholz et al. 2017).

    At c = 1 it is χ. Away from fixed points of the length map, dc'/dc = χ_c q/q'. Parameters and errors as for
    `correlation_map`.
    """
    phi, (correlation, lengths, w, _) = _arguments(c, q, activation, sigma_w, 0.0)
    return w**2 * _pairs(phi, lengths, 1 - correlation)[1]


def correlation_fixed_point(
    activation: str | Activation, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0, *, start: ArrayLike = 1.0
) -> NDArray[np.float64]:
    """c*, to which the correlation of any two inputs with 0 ≤ c < 1 tends.

    It is 1 where χ ≤ 1 (ordered), below 1 where χ > 1 (chaotic). No coefficient of the map's power series is negative,
    so it is convex on [0, 1] and Newton's iteration from c = 0 cannot miss the fixed point.

    Parameters
    ----------
    activation, sigma_w, sigma_b, start
        As for `fixed_point`, which gives q*.

    Returns
    -------
    ndarray
        c*; NaN where q* is 0 or infinite: relative to it the map is then defined only as a limit.

    Raises
    ------
    ValueError, TypeError
        As for `fixed_point`.
    """
    phi = nonlinearity(activation)
    w, b = broadcast(sigma_w=sigma_w, sigma_b=sigma_b)
    resting = fixed_point(phi, w, b, start=start)
    w, b = np.broadcast_to(w, resting.shape), np.broadcast_to(b, resting.shape)
    return resting_correlation(phi, resting, chi(resting, phi, w), w, b)


def resting_correlation(phi: Activation, q: Floats, growth: Floats, w: Floats, b: Floats) -> Floats:
    """c* from q* and χ, arrays of one shape."""
    alive = (q > 0) & np.isfinite(q)
    chaos = alive & (growth > 1 + _NEUTRAL)
    unrelated = chaos & (b == 0) & phi.odd  # c = 0 is a fixed point by symmetry
    result = np.where(alive, np.where(unrelated, 0.0, 1.0), np.nan)
    chaotic = np.flatnonzero((chaos & ~unrelated).reshape(-1))
    lengths, gain = q.reshape(-1)[chaotic], w.reshape(-1)[chaotic] ** 2
    y = np.ones(chaotic.size)
    active = np.arange(chaotic.size)
    for _ in range(_MOST):
        if not active.size:
            break
        difference, slopes = _pairs(phi, lengths[active], y[active])
        now = gain[active] * difference / lengths[active]
        # y' is concave in y = 1 - c: from the right of the fixed point the steps lead down to it and never past it.
        step = (now - y[active]) / (gain[active] * slopes - 1)
        following = np.where(now < y[active], y[active] - step, y[active])
        settled = y[active] - following <= _SETTLED * y[active]
        y[active] = following
        active = active[~settled]
    result.reshape(-1)[chaotic] = 1 - y
    return result


def _arguments(
    c: ArrayLike, q: ArrayLike, activation: str | Activation, sigma_w: ArrayLike, sigma_b: ArrayLike
) -> tuple[Activation, tuple[Floats, Floats, Floats, Floats]]:
    phi = nonlinearity(activation)
    correlation = validate.array(c, "c", at_least=-1, at_most=1)
    lengths, w, b = broadcast(q=q, sigma_w=sigma_w, sigma_b=sigma_b)
    try:
        shape = np.broadcast_shapes(correlation.shape, lengths.shape)
    except ValueError:
        raise ValueError(f"c: expected a shape that broadcasts with {lengths.shape}, got {correlation.shape}") from None
    lengths, w, b = (np.broadcast_to(a, shape) for a in (lengths, w, b))
    return phi, (np.broadcast_to(correlation, shape), np.maximum(lengths, _SMALL), w, b)


def _pairs(phi: Activation, q: Floats, y: Floats) -> tuple[Floats, Floats]:
    """D and S in the shape of q, or ValueError where the quadrature does not resolve φ."""
    means = pair_means(phi, q.reshape(-1), y.reshape(-1))
    lost = ~(means.difference_error <= _WORST * np.maximum(means.difference, np.finfo(np.float64).tiny))
    if lost.any():
        at = int(np.argmax(lost))
        raise ValueError(
            f"activation: expected {phi.name!r} to be smooth between its kinks, got a mean over pairs of "
            f"{means.difference[at]:.6g} ± {means.difference_error[at]:.2g} at q = {q.reshape(-1)[at]:.6g}"
        )
    return means.difference.reshape(q.shape), means.slopes.reshape(q.shape)
