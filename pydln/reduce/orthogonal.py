"""Orthonormal columns along given ones that are nearly orthogonal, each to its own rounding."""

from __future__ import annotations

import numpy as np

from pydln._base.arrays import Floats, transposed

__all__ = ["column_lengths", "orthonormal"]


def column_lengths(columns: Floats) -> Floats:
    """Norms of the columns of every matrix, (members, r), of numbers of any size: squares of 1e-200 would be zero."""
    largest = np.abs(columns).max(axis=-2, initial=0.0)
    scaled = np.ascontiguousarray(transposed(columns / np.where(largest > 0, largest, 1.0)[..., None, :]))
    return np.asarray(largest * np.sqrt((scaled * scaled).sum(axis=-1)))


def orthonormal(columns: Floats, least: Floats) -> Floats:
    """Columns of unit length along those of `columns`, (members, n, r), the longest first to lose the least.

    Zero for those that are not longer than `least`, (members, r), before or without their parts along longer ones. Gram
    and Schmidt's way, twice: unlike Householder's it leaves zeros of a weak column zero, which are all its digits.
    """
    length = column_lengths(columns)
    order = np.argsort(-length, axis=1, kind="stable")
    unit = columns / np.where(length > 0, length, 1.0)[:, None, :]
    sorted_units = np.ascontiguousarray(np.take_along_axis(unit, order[:, None, :], axis=2))
    bound = np.take_along_axis(np.divide(least, length, out=np.ones_like(length), where=length > 0), order, axis=1)
    found = np.zeros_like(sorted_units)
    for k in range(columns.shape[2]):
        own, before = sorted_units[:, :, k], found[:, :, :k]
        alive = np.ones(len(own), dtype=bool)
        for _ in range(2):
            if k:
                own = own - (before @ (transposed(before) @ own[:, :, None]))[:, :, 0]
            left = column_lengths(own[:, :, None])
            alive &= left[:, 0] > bound[:, k]
            bound[:, k] = 0.0
            own = own / np.where(left > 0, left, 1.0)
        found[:, :, k] = np.where(alive[:, None], own, 0.0)
    back = np.argsort(order, axis=1)
    return np.asarray(np.take_along_axis(found, back[:, None, :], axis=2))
