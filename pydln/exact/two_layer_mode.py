"""One mode of a two-layer network with whitened inputs, from any start: da/dt = b(s - ab), db/dt = a(s - ab)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import _validate
from pydln._patience import broadcast, interruptible

__all__ = ["TwoLayerMode", "eigenvectors", "mean_decay", "scalar_mode", "two_layer_mode"]

Floats = NDArray[Any]


class TwoLayerMode(NamedTuple):
    """The state of a mode: strengths of the two layers, and `gap` = s - ab with its own digits."""

    a: Floats
    b: Floats
    gap: Floats


def two_layer_mode(a0: Floats, b0: Floats, s: Floats, t: Floats) -> TwoLayerMode:
    """`scalar_mode` on float64 arrays that broadcast, with s - ab as well; nothing is checked.

    With lambda = b0^2 - a0^2, kappa = sqrt(s^2 + lambda^2/4) and F = [[-lambda/2, s], [s, lambda/2]] = V diag(kappa,
    -kappa) V^T, z = V^T (a0, b0), the solution is (a, b) = e^{Ft}(a0, b0)/sqrt(N),
    N = 1 + sum_i z_i^2 (e^{2 w_i t} - 1)/(2 w_i). Since N' = N (a^2 + b^2), the gap is (s - a0 b0)/N.
    """
    # (a, b, s) -> (a, -b, -s) is a symmetry, so that s >= 0 from here on.
    flip = np.where(s < 0, -1.0, 1.0)
    s, b0 = np.abs(s), b0 * flip
    half = 0.5 * (b0 - a0) * (b0 + a0)
    kappa, upper, lower = eigenvectors(half, s)
    still = kappa == 0
    safe = np.where(still, 1.0, kappa)
    opposed = np.sign(a0) * np.sign(b0) < 0
    # z+ vanishes on the saddle's stable manifold a0 = -b0; that factor taken out, what is left adds like signs only.
    away = np.where(opposed, a0 + b0, 0.0)
    along = away * lower + a0 * (away / (2 * safe)) * (a0 - b0) / (upper + lower)
    plus = np.where(opposed & ~still, along, a0 * upper + b0 * lower)
    minus = a0 * lower - b0 * upper

    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        k = kappa * t
        decay = np.exp(-k)
        integral = np.where(k < 1, t * mean_decay(np.where(k < 1, 2 * k, 0.0)), -np.expm1(-2 * k) / (2 * safe))
        grown = np.where(plus == 0, 0.0, np.abs(plus) * np.exp(0.5 * k) * np.exp(0.5 * k))
        # Divide through by the growing exponential once it leads: nothing overflows, and plus = 0 stays an exact zero.
        scale = np.where(grown > 1, 1 / grown, 1.0)
        boost = np.where(grown > 1, 1 / np.abs(plus), np.exp(np.minimum(k, 700.0)))
    lead = np.sign(plus) * np.minimum(grown, 1.0)
    fade = minus * decay * scale
    root = np.sqrt(integral)
    norm = np.hypot(np.hypot(scale, lead * root), minus * scale * root)
    # Strengths of one sign: the entries of e^{Ft}, all >= 0, act on them without cancellation, from a0 = 0 too. Opposed
    # ones cancel on the way to the saddle, and there the eigenvectors keep the digits.
    direct = ~opposed | (k < 0.7)
    fast, mixed = decay * decay, s * integral
    a = np.where(direct, (a0 * (upper**2 + fast * lower**2) + b0 * mixed) * boost, upper * lead + lower * fade) / norm
    b = np.where(direct, (b0 * (lower**2 + fast * upper**2) + a0 * mixed) * boost, lower * lead - upper * fade) / norm
    gap = (s - a0 * b0) * (scale / norm) ** 2
    return TwoLayerMode(a, b * flip, gap * flip)


def eigenvectors(half: Floats, s: Floats) -> tuple[Floats, Floats, Floats]:
    """kappa, upper, lower of [[-half, s], [s, half]], s >= 0: kappa has (upper, lower), -kappa has (lower, -upper)."""
    kappa = np.hypot(s, half)
    still = kappa == 0
    safe = np.where(still, 1.0, kappa)
    # The larger component by a sum, the smaller by division, to keep their digits.
    larger = np.where(still, np.sqrt(0.5), np.sqrt(0.5 * (1.0 + np.abs(half) / safe)))
    smaller = np.where(still, np.sqrt(0.5), 0.5 * (s / safe) / larger)
    return kappa, np.where(half < 0, larger, smaller), np.where(half < 0, smaller, larger)


def mean_decay(x: Floats) -> Floats:
    """(1 - e^{-x})/x, 1 at x = 0."""
    return np.where(x == 0, 1.0, -np.expm1(-x) / np.where(x == 0, 1.0, x))


@interruptible(broadcast)
def scalar_mode(a0: ArrayLike, b0: ArrayLike, s: ArrayLike, t: ArrayLike) -> tuple[Floats, Floats]:
    """Layer strengths of one mode of a two-layer linear network with whitened inputs, in closed form.

    Solves da/dt = b(s - ab), db/dt = a(s - ab) for any start and any sign, balanced or not. Special cases are the
    logistic curve of Saxe, McClelland & Ganguli (2013), eq. 12 (a0 = b0), and the lazy limit (a0^2 and b0^2 far apart).
    A start with a0 = -b0, s > 0 lies on the stable manifold of the saddle and decays to zero.

    Parameters
    ----------
    a0, b0 : array_like
        Strengths of the first and second layer at time 0. The arguments broadcast against each other.
    s : array_like
        Strength of the task's mode.
    t : array_like
        Times in units of tau = 1/lr, >= 0.

    Returns
    -------
    a, b : ndarray
        Strengths at time t, float64; the mode's strength in the product is u = ab.

    Raises
    ------
    TypeError, ValueError
        An argument that is not made of finite numbers, a negative time, shapes that do not broadcast; or numbers beyond
        1e150 or below 1e-300, whose squares are none.
    """
    first = _validate.array(a0, "a0")
    second = _validate.array(b0, "b0")
    target = _validate.array(s, "s")
    times = _validate.array(t, "t", at_least=0)
    try:
        np.broadcast_shapes(first.shape, second.shape, target.shape, times.shape)
    except ValueError:
        raise ValueError(
            f"a0, b0, s, t: expected shapes that broadcast, got {first.shape}, {second.shape}, {target.shape}, "
            f"{times.shape}"
        ) from None
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # refused as not known
        mode = two_layer_mode(first, second, target, times)
    a, b = (_validate.known(x, "a0, b0, s, t") for x in (mode.a, mode.b))
    return a[()], b[()]
