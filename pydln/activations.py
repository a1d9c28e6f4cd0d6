"""Hidden-layer nonlinearities φ and their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln._base import validate

__all__ = ["ACTIVATIONS", "Activation", "activation"]

Floats = NDArray[np.float64]

LEAK = 0.01


@dataclass(frozen=True)
class Activation:
    """A hidden nonlinearity.

    Attributes
    ----------
    name : str
        One of `ACTIVATIONS`.
    value, derivative : callable
        φ(x) and φ′(x), elementwise on float64 arrays. A kink takes the derivative of its left side: φ′(0) = 0 for
        relu, 0.01 for leaky_relu.
    odd : bool
        Whether φ(-x) = -φ(x).
    kinks : tuple of float
        Where φ′ jumps: quadrature must split there.
    """

    name: str
    value: Callable[[Floats], Floats]
    derivative: Callable[[Floats], Floats]
    odd: bool
    kinks: tuple[float, ...] = ()

    def __reduce__(self) -> Any:
        # Functions without a name cannot be pickled; those of this module are found again by the activation's.
        return (activation, (self.name,)) if _BY_NAME.get(self.name) is self else super().__reduce__()


def _normal_density(x: Floats) -> Floats:
    density: Floats = np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    return density


# scipy.special takes half a second to import: it waits until one of these is called.
def _erf(x: Floats) -> Floats:
    from scipy.special import erf

    value: Floats = erf(x)
    return value


def _normal_mass(x: Floats) -> Floats:
    from scipy.special import ndtr

    mass: Floats = ndtr(x)
    return mass


def _logistic(x: Floats) -> Floats:
    from scipy.special import expit

    value: Floats = expit(x)
    return value


_ALL = (
    Activation("linear", lambda x: x.copy(), np.ones_like, odd=True),
    # 1/cosh² keeps the digits that 1 - tanh² loses where tanh is near 1.
    Activation("tanh", np.tanh, lambda x: np.cosh(np.minimum(np.abs(x), 350.0)) ** -2.0, odd=True),
    Activation("erf", _erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x), odd=True),
    Activation("relu", lambda x: np.maximum(x, 0.0), lambda x: np.where(x > 0, 1.0, 0.0), odd=False, kinks=(0.0,)),
    Activation(
        "leaky_relu",
        lambda x: np.where(x > 0, x, LEAK * x),
        lambda x: np.where(x > 0, 1.0, LEAK),
        odd=False,
        kinks=(0.0,),
    ),
    Activation(
        "gelu", lambda x: x * _normal_mass(x), lambda x: _normal_mass(x) + x * _normal_density(x), odd=False
    ),  # x Φ(x), the exact form (Hendrycks & Gimpel 2016)
    Activation("softplus", lambda x: np.logaddexp(0.0, x), _logistic, odd=False),
)

_BY_NAME = {one.name: one for one in _ALL}

ACTIVATIONS = tuple(_BY_NAME)
"""Names of the nonlinearities, in the order of the numbers that the kernels know them by (ops/nonlinear.hpp)."""


def activation(name: str) -> Activation:
    """The nonlinearity of that name.

    Raises
    ------
    ValueError, TypeError
        There is none.
    """
    return _BY_NAME[validate.choice(name, "activation", ACTIVATIONS)]
