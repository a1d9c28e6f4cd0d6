"""What every law of a spectrum answers: density, distribution function, moments, where it lives."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate

__all__ = ["Law"]

Floats = NDArray[np.float64]


class Law(ABC):
    """The limiting law of a spectrum.

    Laws are of one variable x >= 0, which each class names: squared singular values, or moduli of eigenvalues. Deep
    products spread over hundreds of orders of magnitude, so every law also answers in u = ln x, and there it neither
    over- nor underflows.

    Attributes
    ----------
    support : (float, float)
        Smallest interval that holds the continuous part; an end beyond the range of float64 is 0 or infinite.
    log_atoms : tuple of (float, float)
        Points ln x of positive probability, and that probability.
    """

    support: tuple[float, float]
    log_atoms: tuple[tuple[float, float], ...] = ()
    _at_zero = 0.0
    """The limit of the density in x as x falls to 0, where the support begins there."""
    _edge_poles: tuple[float, ...] = ()
    """Ends ln x of the support, other than x = 0, at which the density is infinite."""

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Points x of positive probability, and that probability; 0 or infinite where float64 cannot hold x."""
        with np.errstate(over="ignore", under="ignore"):
            return tuple((float(np.exp(place)), mass) for place, mass in self.log_atoms)

    def density(self, x: ArrayLike) -> Floats:
        """Probability density in x, without the atoms: shape of `x`, zero outside the support.

        At the ends of the support it is the limit from inside: infinite at a pole (x = 0 for most laws of products).
        """
        given = validate.array(x, "x")
        low, high = self.support
        with np.errstate(divide="ignore", over="ignore"):
            inside = (given > 0) & (given >= low) & (given <= high)
            u = np.log(np.where(inside, given, 1.0))
            values: Floats = np.where(inside, self._density_log(u) / np.where(inside, given, 1.0), 0.0)
            values = np.where(np.isin(given, np.exp(self._edge_poles)), np.inf, values)
        return np.where((given == 0) & (low == 0), self._at_zero, values)

    def density_log(self, u: ArrayLike) -> Floats:
        """Probability density in u = ln x, without the atoms: shape of `u`; infinite at poles like that in x."""
        given = validate.array(u, "u")
        inside = self._inside_log(given)
        values: Floats = np.where(inside, self._density_log(np.where(inside, given, self._middle_log())), 0.0)
        return np.where(np.isin(given, self._edge_poles), np.inf, values)

    def cdf(self, x: ArrayLike) -> Floats:
        """Probability of at most x, atoms included: shape of `x`."""
        given = validate.array(x, "x")
        with np.errstate(divide="ignore"):
            u = np.log(np.maximum(given, 0.0))
        return np.where(given < 0, 0.0, self._cdf_log(u) + _up_to(given, self.atoms))

    def cdf_log(self, u: ArrayLike) -> Floats:
        """Probability of ln x being at most u, atoms included: shape of `u`; minus infinity is allowed."""
        given = validate.array(u, "u", finite=False)
        if np.isnan(given).any() or (given == np.inf).any():
            raise ValueError("u: expected numbers or minus infinity, got NaN or infinity")
        return self._cdf_log(given) + _up_to(given, self.log_atoms)

    def moment(self, k: int) -> float:
        """The mean of x^k, atoms included; infinite where float64 cannot hold it."""
        k = validate.integer(k, "k", at_least=0, at_most=1_000_000)  # some laws add as many terms
        try:
            with np.errstate(over="ignore"):
                return self._moment(k)
        except OverflowError:
            return float("inf")

    @abstractmethod
    def _density_log(self, u: Floats) -> Floats:
        """Density in u = ln x of the continuous part, for u inside the support."""

    @abstractmethod
    def _cdf_log(self, u: Floats) -> Floats:
        """Probability of the continuous part up to u = ln x, anywhere from minus infinity on."""

    @abstractmethod
    def _moment(self, k: int) -> float: ...

    def _inside_log(self, u: Floats) -> NDArray[np.bool_]:
        with np.errstate(divide="ignore"):
            low, high = np.log(self.support)
        inside: NDArray[np.bool_] = (u >= low) & (u <= high)
        return inside

    def _middle_log(self) -> float:
        return float(np.log(np.mean(self.support)))


def _up_to(x: Floats, atoms: tuple[tuple[float, float], ...]) -> Floats:
    total = np.zeros(np.shape(x))
    for place, mass in atoms:
        total += mass * (x >= place)
    return total
