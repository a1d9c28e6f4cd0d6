"""What every law of a spectrum answers: density, distribution function, moments, where it lives."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import _validate

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
        Smallest interval that holds the continuous part.
    atoms : tuple of (float, float)
        Points x of positive probability, and that probability.
    """

    support: tuple[float, float]
    atoms: tuple[tuple[float, float], ...] = ()

    def density(self, x: ArrayLike) -> Floats:
        """Probability density in x, without the atoms: shape of `x`, zero outside the support."""
        given = _validate.array(x, "x")
        low, high = self.support
        with np.errstate(divide="ignore", over="ignore"):
            inside = (given > 0) & (given >= low) & (given <= high)
            u = np.log(np.where(inside, given, 1.0))
            values: Floats = np.where(inside, self._density_log(u) / np.where(inside, given, 1.0), 0.0)
        return values

    def density_log(self, u: ArrayLike) -> Floats:
        """Probability density in u = ln x, without the atoms: shape of `u`."""
        given = _validate.array(u, "u")
        inside = self._inside_log(given)
        values: Floats = np.where(inside, self._density_log(np.where(inside, given, self._middle_log())), 0.0)
        return values

    def cdf(self, x: ArrayLike) -> Floats:
        """Probability of at most x, atoms included: shape of `x`."""
        given = _validate.array(x, "x")
        with np.errstate(divide="ignore"):
            u = np.log(np.maximum(given, 0.0))
        return np.where(given < 0, 0.0, self._cdf_log(u) + self._atoms_up_to(given))

    def cdf_log(self, u: ArrayLike) -> Floats:
        """Probability of ln x being at most u, atoms included: shape of `u`; minus infinity is allowed."""
        given = _validate.array(u, "u", finite=False)
        if np.isnan(given).any() or (given == np.inf).any():
            raise ValueError("u: expected numbers or minus infinity, got NaN or infinity")
        with np.errstate(over="ignore"):
            return self._cdf_log(given) + self._atoms_up_to(np.exp(given))

    def moment(self, k: int) -> float:
        """The mean of x^k, atoms included; infinite where float64 cannot hold it."""
        k = _validate.integer(k, "k", at_least=0)
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

    def _atoms_up_to(self, x: Floats) -> Floats:
        total = np.zeros(np.shape(x))
        for place, mass in self.atoms:
            total += mass * (x >= place)
        return total

    def _inside_log(self, u: Floats) -> NDArray[np.bool_]:
        with np.errstate(divide="ignore"):
            low, high = np.log(self.support)
        inside: NDArray[np.bool_] = (u >= low) & (u <= high)
        return inside

    def _middle_log(self) -> float:
        return float(np.log(np.mean(self.support)))
