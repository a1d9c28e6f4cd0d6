"""Stacks of matrices, members first: in pieces, picked, and summed in an order that no batch changes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Integers", "blocks", "dots", "lengths", "sizes", "take", "transposed"]

Floats = NDArray[Any]
Integers = NDArray[np.int64]

_SQUARED = 2.0**-400  # squares of larger numbers keep all their digits, also those of small ones beside them


def take(a: Floats, members: Integers) -> Floats:
    """Entries of `members`, in increasing order, or the one entry that all share; a copy only where it must be."""
    if len(a) == 1:
        return a
    if len(members) and members[-1] - members[0] == len(members) - 1:
        return np.ascontiguousarray(a[members[0] : members[-1] + 1])
    return np.ascontiguousarray(a[members])


def blocks(count: int, bytes_of_one: int, *, at_once: int = 2**25, at_least: int = 1) -> Iterator[Integers]:
    """0 … count - 1 in pieces that are worked on at once: of `at_once` bytes, but not fewer than `at_least`."""
    size = max(1, at_least, at_once // max(1, bytes_of_one))
    return (np.arange(first, min(first + size, count)) for first in range(0, count, size))


def transposed(a: Floats) -> Floats:
    """Every matrix of a stack transposed."""
    return np.swapaxes(a, -1, -2)


def dots(a: Floats, b: Floats) -> Floats:
    """Inner products of the columns of two stacks, summed along memory: in an order that no batch changes."""
    return np.asarray(np.ascontiguousarray(transposed(a * b)).sum(axis=-1))


def lengths(a: Floats) -> Floats:
    """Norms of the columns of every matrix, in an order that no batch changes."""
    unit = _unit(np.abs(a).max(axis=-2, initial=0.0))
    if unit is None:
        return np.asarray(np.sqrt(dots(a, a)))
    scaled = a / unit[..., None, :]
    return np.asarray(unit * np.sqrt(dots(scaled, scaled)))


def sizes(a: Floats) -> Floats:
    """Frobenius norm of every matrix, in an order that no batch changes."""
    flat = np.ascontiguousarray(a).reshape(len(a), math.prod(a.shape[1:]))
    unit = _unit(np.abs(flat).max(axis=-1, initial=0.0))
    if unit is None:
        return np.asarray(np.sqrt((flat * flat).sum(axis=-1)))
    scaled = flat / unit[:, None]
    return np.asarray(unit * np.sqrt((scaled * scaled).sum(axis=-1)))


def _unit(largest: Floats) -> Floats | None:
    """Units in which squares of numbers up to `largest` exist; None if they do as they are."""
    most, least = float(largest.max(initial=0.0)), float(largest.min(initial=1.0))
    if least >= _SQUARED and most <= 1 / _SQUARED:
        return None
    strange = (largest > 1 / _SQUARED) | ((largest < _SQUARED) & (largest > 0))
    return np.where(strange & np.isfinite(largest), largest, 1.0) if strange.any() else None
