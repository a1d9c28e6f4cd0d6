"""Squared singular values of products of independent square Gaussian matrices: the Fuss-Catalan law.

With M factors N × N, entries of variance g²/N, N → ∞, and for g = 1 (Penson & Życzkowski 2011; Haagerup & Möller 2013):

    x = sin^{M+1}((M+1)φ) / (sin φ sin^M(Mφ)),  density sin²φ sin^{M-1}(Mφ) / (π sin^M((M+1)φ)),  0 < φ < π/(M+1).

Here ε = π - (M+1)φ is the parameter, for it keeps its digits where x is tiny; then Mφ = π - φ - ε, and the distribution
function, the integral of the above, is elementary:

    F = [ε + M sin φ sin ε / sin(φ + ε)] / π.

M = 1 is the Marchenko-Pastur law of a square matrix. M need not be whole: for every real M > 0 this is a probability
law, the free multiplicative power M of that one, with the moments Γ((M+1)k + 1)/(Γ(k+1) Γ(Mk + 2)) (Młotkowski 2010).
"""

from __future__ import annotations

from math import fsum

import numpy as np

from pydln._base import validate
from pydln.spectra.law import Floats, Law

__all__ = ["FussCatalan"]

_HALVINGS = 64
_SMALLEST = -745.0  # ln of the smallest ε that is looked for: F is below 1e-300 there


class FussCatalan(Law):
    """Law of the squared singular values x of a product of `depth` square Gaussian matrices.

    Parameters
    ----------
    depth : float
        M > 0, the number of factors. A number that is not whole belongs to no product of equal factors; it is the law
        with the relative variance M.
    scale : float
        g; entries of a factor have variance g²/N. It multiplies x by g^(2M).

    Attributes
    ----------
    support : (float, float)
        From 0 to g^(2M) (M+1)^(M+1) / M^M.
    """

    def __init__(self, depth: float, *, scale: float = 1.0) -> None:
        number = validate.number(depth, "depth", above=0)
        self.depth = int(number) if number.is_integer() else number
        self.scale = validate.number(scale, "scale", above=0)
        self._shift = 2 * self.depth * float(np.log(self.scale))
        self._edge = (self.depth + 1) * float(np.log(self.depth + 1)) - self.depth * float(np.log(self.depth))
        self._at_zero = np.inf  # x^(-M/(M+1))
        with np.errstate(over="ignore"):
            self.support = (0.0, float(np.exp(self._edge + self._shift)))

    def __repr__(self) -> str:
        return f"FussCatalan(depth={self.depth:g}, scale={self.scale:g})"

    def _inside_log(self, u: Floats) -> np.typing.NDArray[np.bool_]:
        inside: np.typing.NDArray[np.bool_] = u <= self._edge + self._shift
        return inside

    def _middle_log(self) -> float:
        return self._shift

    def _angles(self, v: Floats) -> tuple[Floats, Floats, Floats]:
        """φ, ε and φ + ε where ln x = v for g = 1."""
        low, high = np.full(v.shape, _SMALLEST), np.full(v.shape, np.log(np.pi))
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            below = self._log_x(np.exp(middle)) < v
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        epsilon = np.exp(low)
        phi = (np.pi - epsilon) / (self.depth + 1)
        return phi, epsilon, phi + epsilon

    def _log_x(self, epsilon: Floats) -> Floats:
        M = self.depth
        phi = np.maximum(np.pi - epsilon, 0.0) / (M + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (M + 1) * np.log(np.sin(epsilon)) - np.log(np.sin(phi)) - M * np.log(np.sin(phi + epsilon))
        # At φ = 0 the quotients of sines are those of the angles.
        return np.where(phi > 1e-9, found, self._edge)

    def _density_log(self, u: Floats) -> Floats:
        M = self.depth
        phi, epsilon, both = self._angles(u - self._shift)
        with np.errstate(divide="ignore"):
            value = 2 * np.log(np.sin(phi)) + (M - 1) * np.log(np.sin(both)) - M * np.log(np.sin(epsilon))
        density: Floats = np.exp(value + u - self._shift) / np.pi
        return density

    def _cdf_log(self, u: Floats) -> Floats:
        phi, epsilon, both = self._angles(np.minimum(u - self._shift, self._edge))
        with np.errstate(invalid="ignore"):
            value = (epsilon + self.depth * np.sin(phi) * np.sin(epsilon) / np.sin(both)) / np.pi
        return np.where(u - self._shift >= self._edge, 1.0, np.minimum(value, 1.0)) * (u > -np.inf)

    def _moment(self, k: int) -> float:
        # Fuss-Catalan numbers, as logarithms: the powers of g may go the other way.
        M = self.depth
        log = fsum(np.log1p(M * k / i) for i in range(1, k + 1)) - np.log1p(M * k) + k * self._shift
        return float(np.exp(log))
