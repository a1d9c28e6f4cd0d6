"""Moduli of the eigenvalues of products of independent square Gaussian matrices: the disk law."""

from __future__ import annotations

import numpy as np

from pydln._base import validate
from pydln.spectra.law import Floats, Law

__all__ = ["Disk"]


class Disk(Law):
    """Law of r = |z| of the eigenvalues z of a product of `depth` square Gaussian matrices, N → ∞.

    The density in the plane is |z|^(2/M - 2) / (π M) on the unit disk, whatever the phase (Burda, Janik & Wacław 2010),
    so r has the distribution function r^(2/M) (M = 1: the circular law).

    Parameters
    ----------
    depth : int
        M, the number of factors.
    scale : float
        g; entries of a factor have variance g²/N. The disk has the radius g^M.
    """

    def __init__(self, depth: int, *, scale: float = 1.0) -> None:
        self.depth = validate.integer(depth, "depth", at_least=1)
        self.scale = validate.number(scale, "scale", above=0)
        self._radius = self.depth * float(np.log(self.scale))
        with np.errstate(over="ignore"):
            self.support = (0.0, float(np.exp(self._radius)))
            # The density in r is (2/M) g^-2 r^(2/M - 1).
            self._at_zero = 0.0 if self.depth == 1 else float(np.exp(-self._radius)) if self.depth == 2 else np.inf

    def __repr__(self) -> str:
        return f"Disk(depth={self.depth}, scale={self.scale:g})"

    def _inside_log(self, u: Floats) -> np.typing.NDArray[np.bool_]:
        inside: np.typing.NDArray[np.bool_] = u <= self._radius
        return inside

    def _middle_log(self) -> float:
        return self._radius

    def _density_log(self, u: Floats) -> Floats:
        density: Floats = 2 / self.depth * np.exp(2 / self.depth * (u - self._radius))
        return density

    def _cdf_log(self, u: Floats) -> Floats:
        value: Floats = np.exp(2 / self.depth * np.minimum(u - self._radius, 0.0))
        return value

    def _moment(self, k: int) -> float:
        return 2 / (2 + k * self.depth) * self.scale ** (k * self.depth)
