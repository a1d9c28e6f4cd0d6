"""Singular values of many matrices at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import backend, validate
from pydln._base.patience import patiently

__all__ = ["singular_values"]

Floats = NDArray[np.float64]

# Where the kernel is faster than LAPACK, and its workspace, as many matrices as a vector has lanes, stays in the second
# cache: 50 × 100 took 58 against 208 us.
KERNEL_COLUMNS = 64
KERNEL_ENTRIES = 64 * 128

# dqds takes four to five steps for a value; matrices that need more than so many, which may split into parts of very
# different size, are left to LAPACK.
MOST_STEPS = 30


def singular_values(matrices: ArrayLike, *, n_threads: int | None = None) -> Floats:
    """Singular values of a matrix, or of each of a batch.

    Matrices up to 64 × 128 go through pydln's own kernel, as many side by side as a vector has lanes: Householder's
    bidiagonal form (Golub & Kahan 1965) and dqds (Fernando & Parlett 1994). Larger ones go through LAPACK. Either way
    the error is rounding relative to the *largest* singular value of each matrix, some 1e-15 of it;
    `product_spectrum` is for spectra whose small values matter by themselves.

    Parameters
    ----------
    matrices : (..., n, m) array
        float32 is turned into float64. A matrix that holds NaN or an infinity, as weights do that have diverged, gets
        NaN and leaves the others alone.
    n_threads : int, optional
        The result does not depend on it.

    Returns
    -------
    (..., min(n, m)) array
        float64, decreasing.

    Raises
    ------
    ValueError, TypeError
        Fewer than two dimensions, text, complex numbers.
    KeyboardInterrupt
        Ctrl-C.
    """
    given = validate.array(matrices, "matrices", finite=False)
    if given.ndim < 2:
        raise ValueError(f"matrices: expected (..., n, m), got an array of shape {given.shape}")
    threads = backend.threads(n_threads)
    rows, cols = given.shape[-2:]
    count = min(rows, cols)
    flat = given.reshape(-1, rows, cols) if given.size else np.empty((0, rows, cols))
    values = np.full((len(flat), count), np.nan)
    if flat.size:
        small = count <= KERNEL_COLUMNS and rows * cols <= KERNEL_ENTRIES
        left = _by_kernel(flat, values, threads) if small else np.isfinite(flat).all(axis=(1, 2))
        for some in np.array_split(np.flatnonzero(left), max(1, int(left.sum()) * rows * cols >> 22)):
            values[some] = patiently(np.linalg.svd, flat[some], compute_uv=False)
    return values.reshape(*given.shape[:-2], count)


def _by_kernel(matrices: Floats, values: Floats, threads: int) -> NDArray[np.bool_]:
    """Fills `values`; returns which matrices it left."""
    status = np.zeros(len(matrices), np.int64)
    if backend.core.singular_values(
        matrices=matrices,
        most_steps=MOST_STEPS,
        values=values,
        status=status,
        threads=threads,
        memory=validate.free_memory,
        isa=backend.isa(),
    ):
        raise KeyboardInterrupt
    left: NDArray[np.bool_] = status != 0
    return left
