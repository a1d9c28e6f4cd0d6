"""How the mean square q of a layer's activity maps to that of the next, and how fast small differences grow.

In the mean field of wide layers (Poole et al. 2016) with weights N(0, σ_w²/n) and biases N(0, σ_b²), or σ_w times
orthogonal weights, the pre-activations x of a layer are Gaussian with variance q, and

    q' = V(q) = σ_w² E[φ(√q z)²] + σ_b²,    V'(q) = σ_w² E[√q z φ φ'(√q z)]/q,    χ(q) = σ_w² E[φ'(√q z)²].

Saxe, McClelland & Ganguli (2013), section 4, write x^{l+1} = g W_l φ(x^l) with the gain apart: g is σ_w, σ_b = 0, and
their activity x is the pre-activation here, so both have the same map. V' holds for any φ by Stein's lemma, kinks
included, and needs no second derivative.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln.activations import Activation
from pydln.propagation.gaussian import gaussian_mean
from pydln.propagation.nonlinearity import nonlinearity

__all__ = ["LONGEST", "broadcast", "chi", "length_map", "length_slope", "mean_of"]

Floats = NDArray[np.float64]

# χ and V' at q = 0 and q = ∞ are limits: there a kink at 0 shares the line between its two sides.
_SMALL, _LARGE = 1e-20, 1e40
# Where φ(0) ≠ 0, E[x φ φ'] is the small rest of terms that cancel, of √q against q: 4e-12 of it are lost here.
_SHIFTED_SMALL = 1e-8
_NOTHING = 1e-300  # subnormal numbers have no relative precision
_WORST = 1e-9  # a quadrature this far off, relative to the mean of the absolute value, is refused
# So that σ_w² q and σ_b² are within the range of float64: of the σ, and of the q, which is at most σ² / 4e-15 at rest.
_STEEPEST = 1e50
LONGEST = 1e150
"""The largest q."""


def length_map(
    q: ArrayLike, activation: str | Activation, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """One layer of the length map, q' = σ_w² E[φ(√q z)²] + σ_b² (Poole et al. 2016).

    Parameters
    ----------
    q : array_like
        Mean square of the pre-activations, from 0 to 1e150. `q`, `sigma_w` and `sigma_b` broadcast.
    activation : str or Activation
        φ: one of `pydln.activations.ACTIVATIONS` or an `Activation`.
    sigma_w : array_like
        Standard deviation of the weights times √n, or the gain of orthogonal weights; S13's g. At most 1e50.
    sigma_b : array_like
        Standard deviation of the biases, at most 1e50.

    Returns
    -------
    ndarray
        q', with a relative error of about 1e-15 for the package's own nonlinearities.

    Raises
    ------
    ValueError, TypeError
        Negative numbers or larger ones, no such nonlinearity, one that the quadrature cannot resolve (wrong `kinks`).

    Examples
    --------
    >>> float(length_map(1.0, "relu", np.sqrt(2)).round(12))
    1.0
    """
    phi = nonlinearity(activation)
    lengths, w, b = broadcast(q=q, sigma_w=sigma_w, sigma_b=sigma_b)
    return w**2 * mean_of(lambda x: phi.value(x) ** 2, lengths, phi) + b**2


def length_slope(q: ArrayLike, activation: str | Activation, sigma_w: ArrayLike) -> NDArray[np.float64]:
    """Slope of the length map, dq'/dq; it does not depend on σ_b. At q = 0 the limit from above.

    Parameters and errors as for `length_map`; `q` may be infinite, for the limit.
    """
    phi = nonlinearity(activation)
    lengths, w = broadcast(finite=False, q=q, sigma_w=sigma_w)
    inside = np.clip(lengths, _SMALL if phi.value(np.zeros(1))[0] == 0 else _SHIFTED_SMALL, _LARGE)
    return w**2 * mean_of(lambda x: x * phi.value(x) * phi.derivative(x), inside, phi, floor=inside) / inside


def chi(q: ArrayLike, activation: str | Activation, sigma_w: ArrayLike) -> NDArray[np.float64]:
    """χ = σ_w² E[φ'(√q z)²]: the growth per layer of a small perturbation's square, and of a gradient's.

    It is the slope at c = 1 of the correlation map where q is a fixed point of the length map, and the mean squared
    singular value of one layer's Jacobian (Schoenholz et al. 2017; Pennington et al. 2017).

    Parameters and errors as for `length_map`; q = 0 and an infinite q give the limits.
    """
    phi = nonlinearity(activation)
    lengths, w = broadcast(finite=False, q=q, sigma_w=sigma_w)
    return w**2 * mean_of(lambda x: phi.derivative(x) ** 2, np.clip(lengths, _SMALL, _LARGE), phi)


def broadcast(*, finite: bool = True, **given: ArrayLike) -> tuple[Floats, ...]:
    """The arguments as float64 arrays in their common shape, from 0 to what squares allow; not `finite`: any q."""
    arrays = []
    for name, value in given.items():
        most = (LONGEST if finite else None) if name in ("q", "start") else _STEEPEST
        arrays.append(validate.array(value, name, at_least=0, at_most=most, finite=most is not None))
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ValueError(f"{', '.join(given)}: expected shapes that broadcast, got {shapes}") from None
    return tuple(np.broadcast_to(a, shape) for a in arrays)


def mean_of(f: Callable[[Floats], Floats], q: Floats, phi: Activation, *, floor: Floats | float = 0.0) -> Floats:
    """E[f(√q z)] for an f made of φ and φ'; ValueError where its error is no small part of the value or of `floor`."""
    different, back = np.unique(q, return_inverse=True)
    found = gaussian_mean(f, different, kinks=phi.kinks)
    value, error = found.value[back].reshape(q.shape), found.error[back].reshape(q.shape)
    lost = ~(error <= _WORST * (np.abs(value) + floor) + _NOTHING)
    if lost.any():
        at = np.unravel_index(int(np.argmax(lost)), q.shape)
        raise ValueError(
            f"activation: expected {phi.name!r} to be smooth between its kinks, got a mean of {value[at]:.6g} "
            f"± {error[at]:.2g} at q = {q[at]:.6g}"
        )
    return value
