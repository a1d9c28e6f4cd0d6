"""One mode of a two-layer network with whitened inputs, from any start: da/dt = b(s - ab), db/dt = a(s - ab)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import backend, validate
from pydln._base.patience import broadcast, interruptible
from pydln.exact.grid import Grid

__all__ = ["TwoLayerMode", "eigenvectors", "scalar_mode", "two_layer_mode"]

Floats = NDArray[Any]


class TwoLayerMode(NamedTuple):
    """The state of a mode: strengths of the two layers, and `gap` = s - ab with its own digits."""

    a: Floats
    b: Floats
    gap: Floats


def two_layer_mode(a0: Floats, b0: Floats, s: Floats, t: Floats, *, with_gap: bool = True) -> TwoLayerMode:
    """`scalar_mode` on float64 arrays that broadcast, with s - ab as well, empty if not asked for; nothing is checked.

    With lambda = b0^2 - a0^2, kappa = sqrt(s^2 + lambda^2/4) and F = [[-lambda/2, s], [s, lambda/2]] = V diag(kappa,
    -kappa) V^T, z = V^T (a0, b0), the solution is (a, b) = e^{Ft}(a0, b0)/sqrt(N),
    N = 1 + sum_i z_i^2 (e^{2 w_i t} - 1)/(2 w_i). Since N' = N (a^2 + b^2), the gap is (s - a0 b0)/N.
    """
    grid = Grid((a0, b0, s), t)
    shape = (grid.count, grid.length)
    a, b, gap = np.empty(shape), np.empty(shape), np.empty(shape if with_gap else 0)
    first, second, target = grid.constants
    if backend.core.two_layer_mode(
        a0=first,
        b0=second,
        s=target,
        t=grid.times,
        a=a,
        b=b,
        gap=gap if with_gap else None,
        threads=backend.default_threads(),
        isa=backend.isa(),
    ):
        raise KeyboardInterrupt
    return TwoLayerMode(grid.back(a), grid.back(b), grid.back(gap) if with_gap else gap)


def eigenvectors(half: Floats, s: Floats) -> tuple[Floats, Floats, Floats]:
    """kappa, upper, lower of [[-half, s], [s, half]], s >= 0: kappa has (upper, lower), -kappa has (lower, -upper)."""
    kappa = np.hypot(s, half)
    still = kappa == 0
    safe = np.where(still, 1.0, kappa)
    # The larger component by a sum, the smaller by division, to keep their digits.
    larger = np.where(still, np.sqrt(0.5), np.sqrt(0.5 * (1.0 + np.abs(half) / safe)))
    smaller = np.where(still, np.sqrt(0.5), 0.5 * (s / safe) / larger)
    return kappa, np.where(half < 0, larger, smaller), np.where(half < 0, smaller, larger)


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
    first = validate.array(a0, "a0")
    second = validate.array(b0, "b0")
    target = validate.array(s, "s")
    times = validate.array(t, "t", at_least=0)
    try:
        np.broadcast_shapes(first.shape, second.shape, target.shape, times.shape)
    except ValueError:
        raise ValueError(
            f"a0, b0, s, t: expected shapes that broadcast, got {first.shape}, {second.shape}, {target.shape}, "
            f"{times.shape}"
        ) from None
    mode = two_layer_mode(first, second, target, times, with_gap=False)
    a, b = (validate.known(x, "a0, b0, s, t") for x in (mode.a, mode.b))
    return a[()], b[()]
