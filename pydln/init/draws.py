"""Random numbers and frames of the starts, keyed by (seed, member, layer)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pydln._base.patience import patiently
from pydln.init.arguments import cast
from pydln.weights import Weights

__all__ = ["draws", "frames", "from_frames"]

FloatArray = NDArray[np.float64]


def draws(
    rows: int, columns: int, count: int, keys: tuple[int, int], layer: int, law: Literal["normal", "uniform"]
) -> FloatArray:
    """(count, rows, columns) standard numbers; member i's depend on seed, first + i, layer and the shape alone."""
    seed, first = keys
    # One generator, moved from member to member by its key (2 µs): a new one for each would cost five times as much.
    bits = np.random.Philox(key=np.array([seed, first], np.uint64), counter=np.array([0, 0, 0, layer], np.uint64))
    generator = np.random.Generator(bits)
    fill = generator.standard_normal if law == "normal" else generator.random
    state: Any = bits.state
    key = state["state"]["key"]
    numbers = np.empty((count, rows, columns))
    for member, out in enumerate(numbers, start=first):
        key[1] = member
        bits.state = state
        fill(out=out)
    return numbers


def frames(n: int, k: int, count: int, keys: tuple[int, int], layer: int) -> FloatArray:
    """(count, n, k) with orthonormal columns, Haar: QR of a Gaussian with R's diagonal positive (Mezzadri 2007)."""
    q, r = patiently(np.linalg.qr, draws(n, k, count, keys, layer, "normal"))
    signs = np.where(np.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return np.ascontiguousarray(q * signs[:, None, :])


def from_frames(
    left: FloatArray,
    a: FloatArray,
    right: FloatArray,
    hidden: list[int],
    keys: tuple[int, int],
    dtype: np.dtype[Any],
    name: str,
) -> Weights:
    """W_l = R_{l+1} diag(a_l) R_lᵀ with R_1 = `right`, R_{D+1} = `left` and random hidden frames; a_l from `name`."""
    count, depth, modes = a.shape
    layers = []
    before = right
    for layer in range(1, depth + 1):
        after = left if layer == depth else frames(hidden[layer - 1], modes, count, keys, layer)
        product = np.matmul(after * a[:, layer - 1, None, :], before.transpose(0, 2, 1))
        layers.append(cast(product, dtype, name))
        before = after
    return Weights._adopt(layers)
