"""How far the tangent kernel moves, from the weights of an exact solution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln.reduce.problem import transposed

Floats = NDArray[Any]
Grams = list[tuple[Floats, Floats]]


def kernel_distance(layers: Sequence[Floats], start: Sequence[Floats], root: Floats | None = None) -> Floats:
    """1 - <K, K_0> / (|K| |K_0|); layers (batch, time, n_l, n_{l-1}), start (batch, n_l, n_{l-1}).

    K = Σ_l B_l ⊗ A_l, B_l = QQᵀ with Q = W_D ⋯ W_{l+1}, A_l = PᵀP with P = W_{l-1} ⋯ W_1 R, and RR = Σ_xx: `root`,
    (n_0, n_0) or (batch, n_0, n_0), None where inputs are whitened. Returns (batch, time).
    """
    first = _grams(start, root)
    square = _inner(first, first)
    found = []
    for i in range(layers[0].shape[1]):
        now = _grams([w[:, i] for w in layers], root)
        found.append(1 - _inner(now, first) / (square * np.sqrt(_inner(now, now) / square)))
    return np.stack(found, axis=-1) if found else np.zeros((len(layers[0]), 0))


def _grams(layers: Sequence[Floats], root: Floats | None) -> Grams:
    """A_l and B_l of every layer."""
    below = [np.eye(layers[0].shape[-1]) if root is None else root]
    above = [np.eye(layers[-1].shape[-2])]
    for under, over in zip(layers[:-1], layers[:0:-1], strict=True):
        below.append(under @ below[-1])
        above.append(above[-1] @ over)
    pairs = zip(below, reversed(above), strict=True)
    return [(transposed(p) @ p, q @ transposed(q)) for p, q in pairs]


def _inner(x: Grams, y: Grams) -> Floats:
    total = np.zeros(())
    for a, b in x:
        for a2, b2 in y:
            total = total + np.sum(a * a2, axis=(-2, -1)) * np.sum(b * b2, axis=(-2, -1))
    return total
