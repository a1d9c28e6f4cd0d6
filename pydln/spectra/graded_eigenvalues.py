"""Eigenvalues of matrices whose rows differ in size beyond what floating-point numbers reach.

A = D C, D diagonal and decreasing, has the eigenvalues of √D C √D, whose entries decrease along rows and columns:
LAPACK finds them to many digits even where they are small. Where D falls by 2^12 or more from one row to the next, the
matrix is cut in two instead. With blocks 1 and 2 before and after the gap, the similarity [1 0; -X 1], X = D_2 Y / D_1,
makes A block triangular where

    Y C_11 = C_21 + (C_22 - Y C_12) D_2 Y / D_1,

a fixed point that contracts by about the gap in every iteration; the blocks on the diagonal are then
D_1 (C_11 + C_12 D_2 Y / D_1) and D_2 (C_22 - Y C_12), in which nothing small is added to anything large.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydln._base.patience import patiently
from pydln.errors import NotApplicable
from pydln.spectra.graded import Graded

__all__ = ["log_eigenvalues"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_GAP = 12
_ITERATIONS = 40
_RANGE = 950  # exponents of √D C √D that a double holds


def log_eigenvalues(matrices: Graded) -> NDArray[np.complex128]:
    """ln λ = ln|λ| + i phase, (batch, n), by decreasing modulus.

    Raises
    ------
    NotApplicable
        A member is spread by more than 2^950 without a gap.
    """
    found = np.array(
        [_one(rows, exponents) for rows, exponents in zip(matrices.rows, matrices.exponents, strict=True)]
    ).reshape(matrices.exponents.shape)
    order = np.argsort(-found.real, axis=-1, kind="stable")
    return np.take_along_axis(found, order, axis=-1)


def _one(rows: Floats, exponents: Integers) -> NDArray[np.complex128]:
    order = np.argsort(-exponents, kind="stable")
    rows, exponents = rows[np.ix_(order, order)], exponents[order]
    gaps = np.flatnonzero(exponents[:-1] - exponents[1:] >= _GAP) + 1
    # The widest first: it contracts fastest.
    for cut in gaps[np.argsort(exponents[gaps] - exponents[gaps - 1], kind="stable")]:
        blocks = _cut(rows, exponents, int(cut))
        if blocks is not None:
            return np.concatenate([_one(block.rows[0], block.exponents[0]) for block in blocks])
    powers = exponents - exponents[0]
    if powers[-1] < -_RANGE:
        raise NotApplicable(
            f"eigenvalues: the factors spread them over 2^{-powers[-1]} without a gap, and 2^{_RANGE} is the most: "
            "ask for singular values alone, or for fewer factors",
            {"spread": f"2^{-powers[-1]}"},
        )
    right = powers // 2
    scaled = np.ldexp(rows, (powers - right)[:, None] + right[None, :])
    with np.errstate(divide="ignore"):
        logs: NDArray[np.complex128] = np.log(patiently(np.linalg.eigvals, scaled).astype(complex)) + exponents[
            0
        ] * np.log(2.0)
    return logs


def _cut(rows: Floats, exponents: Integers, cut: int) -> tuple[Graded, Graded] | None:
    """The two blocks on the diagonal; None where the iteration does not come to rest."""
    c11, c12, c21, c22 = rows[:cut, :cut], rows[:cut, cut:], rows[cut:, :cut], rows[cut:, cut:]
    shift = np.maximum(exponents[cut:, None] - exponents[None, :cut], -2000).astype(np.int32)
    y, moved = np.zeros_like(c21), np.inf
    for _ in range(_ITERATIONS):
        x = np.ldexp(y, shift)
        try:
            new = patiently(np.linalg.solve, c11.T, b=(c21 + (c22 - y @ c12) @ x).T).T
        except np.linalg.LinAlgError:
            return None
        before, moved = moved, float(np.abs(new - y).max())
        y = new
        if moved <= 1e-15 * np.abs(y).max() or (moved >= before and moved <= 1e-13 * np.abs(y).max()):
            upper = Graded.of((c11 + c12 @ np.ldexp(y, shift))[None], exponents[None, :cut])
            return upper, Graded.of((c22 - y @ c12)[None], exponents[None, cut:])
        if not moved < before:
            return None
    return None
