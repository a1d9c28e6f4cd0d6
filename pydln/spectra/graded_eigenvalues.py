"""Eigenvalues of matrices whose rows differ in size beyond what floating-point numbers reach.

A = D C with D diagonal, decreasing, has the eigenvalues of √D C √D, which LAPACK finds to many digits even where they are
small, for its entries decrease along rows and columns. Where D falls by more than 2^60 from one row to the next, the
matrix is cut in two: the upper left block keeps its eigenvalues, those of the rest are those of its Schur complement,
both to rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydln.errors import NotApplicable
from pydln.spectra.graded import Graded

__all__ = ["log_eigenvalues"]

Floats = NDArray[np.float64]

_GAP = 60
_RANGE = 950  # exponents of √D C √D that a double holds


def log_eigenvalues(matrices: Graded) -> NDArray[np.complex128]:
    """ln λ = ln|λ| + i phase, (batch, n), by decreasing modulus.

    Raises
    ------
    NotApplicable
        A member is spread by more than 2^950 without a gap of 2^60.
    """
    found = np.array(
        [_one(rows, exponents) for rows, exponents in zip(matrices.rows, matrices.exponents, strict=True)]
    ).reshape(matrices.exponents.shape)
    order = np.argsort(-found.real, axis=-1, kind="stable")
    return np.take_along_axis(found, order, axis=-1)


def _one(rows: Floats, exponents: NDArray[np.int64]) -> NDArray[np.complex128]:
    parts = []
    while len(exponents):
        order = np.argsort(-exponents, kind="stable")
        rows, exponents = rows[np.ix_(order, order)], exponents[order]
        gaps = np.flatnonzero(exponents[:-1] - exponents[1:] >= _GAP)
        block = int(gaps[0]) + 1 if len(gaps) else len(exponents)
        lead = rows[:block, :block]
        powers = exponents[:block] - exponents[0]
        if powers[-1] < -_RANGE:
            raise NotApplicable(
                f"eigenvalues: the factors spread them over 2^{-powers[-1]} without a gap, and {_RANGE} is the most: "
                "ask for singular values alone, or for fewer factors",
                {"spread": f"2^{-powers[-1]}"},
            )
        right = powers // 2
        scaled = np.ldexp(lead, (powers - right)[:, None] + right[None, :])
        with np.errstate(divide="ignore"):
            parts.append(np.log(np.linalg.eigvals(scaled).astype(complex)) + exponents[0] * np.log(2.0))
        if block == len(exponents):
            break
        rest = rows[block:, block:] - rows[block:, :block] @ np.linalg.solve(lead, rows[:block, block:])
        kept = Graded.of(rest[None], exponents[None, block:])
        rows, exponents = kept.rows[0], kept.exponents[0]
    return np.concatenate(parts) if parts else np.zeros(0, complex)
