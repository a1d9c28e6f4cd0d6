"""Products of orthogonal matrices: every singular value, and the modulus of every eigenvalue, is the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydln._base import validate
from pydln.spectra.law import Floats, Law

__all__ = ["Orthogonal"]


class Orthogonal(Law):
    """The law of squared singular values x of a product of `depth` orthogonal matrices times g: x = g^(2 depth).

    Parameters
    ----------
    depth : int
        Number of factors.
    scale : float
        g.
    """

    def __init__(self, depth: int = 1, *, scale: float = 1.0) -> None:
        self.depth = validate.integer(depth, "depth", at_least=1)
        self.scale = validate.number(scale, "scale", above=0)
        self._place = 2 * self.depth * float(np.log(self.scale))
        self.log_atoms = ((self._place, 1.0),)
        self.support = (self.atoms[0][0],) * 2

    def __repr__(self) -> str:
        return f"Orthogonal(depth={self.depth}, scale={self.scale:g})"

    def _inside_log(self, u: Floats) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = u == self._place
        return inside

    def _middle_log(self) -> float:
        return self._place

    def _density_log(self, u: Floats) -> Floats:
        return np.zeros_like(u)

    def _cdf_log(self, u: Floats) -> Floats:
        return np.zeros_like(u)

    def _moment(self, k: int) -> float:
        return self.scale ** (2 * self.depth * k)
