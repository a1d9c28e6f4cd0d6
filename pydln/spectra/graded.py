"""Matrices whose rows differ in size beyond what floating-point numbers reach: rows of numbers and powers of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydln._base import backend, validate

__all__ = ["Graded"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_LN2 = float(np.log(2.0))
_MOST_SWEEPS = 80
_ABSENT = -(2**60)

# LAPACK's dgejsv works in blocks on one matrix: at 300 rows it takes 49 ms against 39 ms of the kernel with a matrix in
# every lane, and 306 ms with one alone; at 1000 rows 1.6 s against 3.3 s. It needs all on one scale.
_LARGE = 200
_RANGE = 900


@dataclass(frozen=True)
class Graded:
    """A batch of matrices: row i of a member is 2^exponents_i rows_i.

    Attributes
    ----------
    rows : (batch, k, n) array
        Largest entry of each row from 1/2 to 1, or zeros.
    exponents : (batch, k) array
        int64.
    """

    rows: Floats
    exponents: Integers

    @classmethod
    def of(cls, rows: Floats, exponents: Integers) -> Graded:
        """The same matrices with rows of size one."""
        shift = np.frexp(np.abs(rows).max(axis=-1))[1]
        size = np.ldexp(rows, -shift[..., None])
        return cls(size, np.where(size.any(axis=-1), exponents + shift, 0))

    def order(self) -> Integers:
        """Rows from the largest to the smallest, (batch, k)."""
        with np.errstate(divide="ignore"):
            size = np.log2((self.rows**2).sum(axis=-1)) / 2 + self.exponents
        found: Integers = np.argsort(-size, axis=-1, kind="stable")
        return found

    def take(self, order: Integers) -> Graded:
        """Rows in that order."""
        return Graded(
            np.take_along_axis(self.rows, order[..., None], axis=1), np.take_along_axis(self.exponents, order, axis=1)
        )

    def after(self, upper: Floats) -> Graded:
        """upper @ self, upper triangular (batch, m, k), m <= k; each row to rounding relative to its own terms."""
        from scipy.linalg import blas

        live = (self.rows != 0).any(axis=-1)
        taken = np.where((upper != 0) & live[:, None, :], self.exponents[:, None, :], _ABSENT)
        largest = taken.max(axis=-1)
        shifts = np.clip(self.exponents[:, None, :] - largest[:, :, None], -2000, 0).astype(np.int32)
        scaled = np.ldexp(upper, shifts)
        if upper.shape[1] < upper.shape[2]:
            rows = scaled @ self.rows
        else:  # half of the operations: 21 instead of 40 ms at 1000 rows
            rows = np.array(
                [blas.dtrmm(1.0, u.T, r.T, side=1, lower=1).T for u, r in zip(scaled, self.rows, strict=True)]
            )
        return Graded.of(rows, np.where(largest == _ABSENT, 0, largest))

    def log_singular_values(self, threads: int) -> Floats:
        """ln of the k singular values, decreasing, (batch, k): one-sided Jacobi rotations of the rows (Hestenes 1958).

        Each is as exact as the rows' directions are independent, however far apart their sizes (Demmel & Veselić 1992).
        """
        if self.exponents.shape[1] > _LARGE:
            # Member by member: which way one goes may not depend on the others.
            return np.array(
                [
                    _by_lapack(rows, exponents)
                    if np.ptp(exponents) <= _RANGE
                    else Graded(rows[None], exponents[None])._by_kernel(threads)[0]
                    for rows, exponents in zip(self.rows, self.exponents, strict=True)
                ]
            )
        return self._by_kernel(threads)

    def _by_kernel(self, threads: int) -> Floats:
        rows, exponents = np.ascontiguousarray(self.rows), np.ascontiguousarray(self.exponents)
        values, powers = np.empty(exponents.shape), np.empty_like(exponents)
        status = np.zeros(len(rows), np.int64)
        if backend.core.graded_values(
            matrices=rows,
            exponents=exponents,
            most_sweeps=_MOST_SWEEPS,
            values=values,
            exponents_out=powers,
            status=status,
            threads=threads,
            memory=validate.free_memory,
            isa=backend.isa(),
        ):
            raise KeyboardInterrupt
        if status.any():
            raise ArithmeticError(
                f"singular values: {np.count_nonzero(status)} of {len(rows)} matrices did not come to rest "
                f"in {_MOST_SWEEPS} sweeps"
            )
        with np.errstate(divide="ignore"):
            found: Floats = np.log(values) + powers * _LN2
        return -np.sort(-found, axis=-1)


def _by_lapack(rows: Floats, exponents: Integers) -> Floats:
    """The same by dgejsv (Drmač & Veselić 2008), which takes rows and columns the other way round."""
    from scipy.linalg import lapack

    largest = exponents.max()
    columns = np.ldexp(rows, (exponents - largest)[:, None].astype(np.int32)).T
    # joba C: relative accuracy for scaled columns; no vectors; jobr N: none is so small that it may be dropped; jobt N,
    # jobp N.
    values, _, _, scale, _, info = lapack.dgejsv(columns, joba=0, jobu=3, jobv=3, jobr=0, jobt=1, jobp=1)
    if info != 0:
        raise ArithmeticError(f"singular values: dgejsv did not come to rest (info {info})")
    with np.errstate(divide="ignore"):
        found: Floats = np.log(values) + (np.log(scale[0] / scale[1]) + largest * _LN2)
    return found
