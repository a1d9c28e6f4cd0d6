"""Noise, and a teacher of low rank in it: the Marchenko-Pastur law and its outliers.

For an n_D × n_0 matrix of independent entries of variance v/n_0, A = n_D/n_0, sizes → ∞, the squares x of its
min(n_D, n_0) singular values have (Marchenko & Pastur 1967)

    density √((x₊ - x)(x - x₋)) / (2π v min(A, 1) x),  x± = v (1 ± √A)².

A teacher of finite rank added to the noise (Benaych-Georges & Nadakuditi 2012; Lampinen & Ganguli 2018, with
v = 1) puts one singular value ŝ outside the bulk for every s̄ > v^(1/2) A^(1/4) of its own, and leaves the others in
it.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import ArrayLike

from pydln._base import validate
from pydln.spectra.law import Floats, Law

__all__ = ["MarchenkoPastur"]


class MarchenkoPastur(Law):
    """Law of the squared singular values x of a matrix of noise.

    Only the min(n_D, n_0) singular values count; the zeros that the square of a thin matrix has beside are no part of
    it.

    Parameters
    ----------
    ratio : float
        A = n_D / n_0, rows over columns.
    variance : float
        v; entries have variance v / n_0.
    """

    def __init__(self, ratio: float, *, variance: float = 1.0) -> None:
        self.ratio = validate.number(ratio, "ratio", above=0)
        self.variance = validate.number(variance, "variance", above=0)
        root = float(np.sqrt(self.ratio))
        self.support = (self.variance * (1 - root) ** 2, self.variance * (1 + root) ** 2)
        if not 0 < self.support[1] < np.inf:
            raise ValueError(
                f"variance: expected variance times (1 + √ratio)² within the range of float64, got {self.variance:g}"
            )
        self._at_zero = np.inf  # x^(-1/2), for a square matrix

    def __repr__(self) -> str:
        return f"MarchenkoPastur(ratio={self.ratio:g}, variance={self.variance:g})"

    @property
    def threshold(self) -> float:
        """The teacher's singular value that noise just hides: √v A^(1/4)."""
        return float(np.sqrt(self.variance) * self.ratio**0.25)

    def outlier(self, teacher: ArrayLike) -> Floats:
        """Singular value ŝ that teacher and noise together have for one of the teacher, s̄ >= 0.

        ŝ = √((v + s̄²)(v A + s̄²)) / s̄ above the threshold, the edge of the bulk √v (1 + √A) below.
        """
        s = validate.array(teacher, "teacher", at_least=0)
        v, A = self.variance, self.ratio
        above = s > self.threshold
        safe = np.where(above, s, 1.0)
        beyond = np.hypot(np.sqrt(v), safe) / safe * np.hypot(np.sqrt(v * A), safe)
        return np.where(above, beyond, np.sqrt(self.support[1]))

    def overlap(self, teacher: ArrayLike) -> Floats:
        """Overlap O = |û·ū| |v̂·v̄| of the outlier's singular vectors with the teacher's, zero below the threshold.

        O = √(1 - A(1 + s²)/(s²(A + s²))) √(1 - (A + s²)/(s²(1 + s²))) with s = s̄/√v.
        """
        s = validate.array(teacher, "teacher", at_least=0)
        A = self.ratio
        above = s > self.threshold
        t = (np.sqrt(self.variance) / np.where(above, s, np.sqrt(self.variance * (1 + A)))) ** 2  # 1/s²
        left, right = 1 - A * t * (1 + t) / (1 + A * t), 1 - t * (1 + A * t) / (1 + t)
        return np.where(above, np.sqrt(np.maximum(left, 0) * np.maximum(right, 0)), 0.0)

    def _density_log(self, u: Floats) -> Floats:
        low, high = self.support
        x = np.exp(u)
        under = np.maximum((high - x) * (x - low), 0.0)
        density: Floats = np.sqrt(under) / (2 * np.pi * self.variance * min(self.ratio, 1.0))
        return density

    def _cdf_log(self, u: Floats) -> Floats:
        # For A > 1 the transpose: its entries have variance v A / n_D.
        A = min(self.ratio, 1 / self.ratio)
        unit = self.variance * max(self.ratio, 1.0)
        low, high = (1 - np.sqrt(A)) ** 2, (1 + np.sqrt(A)) ** 2
        with np.errstate(over="ignore"):
            x = np.clip(np.exp(u) / unit, low, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            r = np.sqrt((high - x) / (x - low))
            first = np.sqrt((high - x) * (x - low)) - (1 + A) * np.arctan((r - 1 / r) / 2)
            last = (1 - A) * np.arctan((low * r - high / r) / (2 * (1 - A))) if A < 1 else 0.0
            value = (np.pi * A + first + last) / (2 * np.pi * A)
        value = np.where(x <= low, 0.0, np.where(x >= high, 1.0, value))
        clipped: Floats = np.clip(value, 0.0, 1.0)
        return clipped

    def _moment(self, k: int) -> float:
        # Narayana polynomials, over all n_D eigenvalues of the square; those beyond n_0 are zeros.
        if k == 0:
            return 1.0
        total = sum(self.ratio**j / (j + 1) * comb(k, j) * comb(k - 1, j) for j in range(k))
        return total * self.variance**k * max(self.ratio, 1.0)
