"""How far the tangent kernel moves, from the weights of an exact solution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydln._base.arrays import transposed

Floats = NDArray[Any]


class _Kernel(NamedTuple):
    """K = 2^(2 p) Σ_l w_l B_l ⊗ A_l, entries and weights near 1 whatever the layers' sizes; w = 0 where K is."""

    grams: list[tuple[Floats, Floats]]
    weights: Floats


def kernel_distance(layers: Sequence[Floats], start: Sequence[Floats], root: Floats | None = None) -> Floats:
    """1 - <K, K_0> / (|K| |K_0|); layers (batch, time, n_l, n_{l-1}), start (batch, n_l, n_{l-1}).

    K = Σ_l B_l ⊗ A_l, B_l = QQᵀ with Q = W_D ⋯ W_{l+1}, A_l = PᵀP with P = W_{l-1} ⋯ W_1 R, and RR = Σ_xx: `root`,
    (n_0, n_0) or (batch, n_0, n_0), None where inputs are whitened. Returns (batch, time): 0 where the kernel is zero
    and stays so, NaN where one that was not has come to zero, its direction lost.
    """
    first = _kernel(start, root)
    square = _inner(first, first)
    found = []
    for i in range(layers[0].shape[1]):
        now = _kernel([w[:, i] for w in layers], root)
        size, overlap = _inner(now, now), _inner(now, first)
        with np.errstate(invalid="ignore", divide="ignore"):
            distance = 1 - overlap / (square * np.sqrt(size / square))
        distance = np.where((size == 0) & (square == 0), 0.0, distance).astype(layers[0].dtype)
        found.append(np.broadcast_to(distance, len(layers[0])))  # one layer has a kernel without weights
    return np.stack(found, axis=-1) if found else np.zeros((len(layers[0]), 0))


def _kernel(layers: Sequence[Floats], root: Floats | None) -> _Kernel:
    """A_l and B_l of every layer."""
    inputs = np.eye(layers[0].shape[-1]) if root is None else root
    below, above = [_level(inputs)], [_level(np.eye(layers[-1].shape[-2]))]
    for under, over in zip(layers[:-1], layers[:0:-1], strict=True):
        below.append(_level(under @ below[-1][0], below[-1][1]))
        above.append(_level(above[-1][0] @ over, above[-1][1]))
    pairs = list(zip(below, reversed(above), strict=True))
    powers = np.stack(np.broadcast_arrays(*(p + q for (_, p), (_, q) in pairs)))
    most = powers.max(axis=0)
    with np.errstate(invalid="ignore"):  # of a kernel of zero: -∞ less -∞
        weights = np.where(most > -np.inf, np.exp2(2 * (powers - most)), 0.0)
    return _Kernel([(transposed(p) @ p, q @ transposed(q)) for (p, _), (q, _) in pairs], weights)


def _level(x: Floats, power: Floats | float = 0.0) -> tuple[Floats, Floats]:
    """x / 2^e, its largest entry near 1, and e + `power`, -∞ where x is 0: fourth powers of x need not be numbers."""
    most = np.abs(x).max(axis=(-2, -1))
    e = np.frexp(np.where(np.isfinite(most), most, 1.0))[1]
    return np.ldexp(x, -e[..., None, None]), np.where(most == 0, -np.inf, e + power)


def _inner(x: _Kernel, y: _Kernel) -> Floats:
    total = np.zeros(())
    for (a, b), v in zip(x.grams, x.weights, strict=True):
        for (a2, b2), w in zip(y.grams, y.weights, strict=True):
            total = total + v * w * np.sum(a * a2, axis=(-2, -1)) * np.sum(b * b2, axis=(-2, -1))
    return np.asarray(total)


def kernel_alignment(layers: Sequence[Floats], target: Floats, root: Floats | None = None) -> Floats:
    """⟨y, Ky⟩ / (|K| |y|²) for layers (rows, n_l, n_{l-1}) and y = target, (rows or 1, n_D, n_0): (rows,).

    From 0 to 1, where K is a multiple of yyᵀ; 0 where K or y is zero.
    """
    kernel = _kernel(layers, root)
    total = np.zeros(len(layers[0]))
    for (A, B), weight in zip(kernel.grams, kernel.weights, strict=True):
        total = total + weight * np.sum(target * (B @ target @ A), axis=(-2, -1))
    size = np.sqrt(_inner(kernel, kernel)) * np.sum(target * target, axis=(-2, -1))
    return np.asarray(np.divide(total, size, out=np.zeros(len(total)), where=size > 0))
