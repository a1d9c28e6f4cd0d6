"""What the starts check of their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pydln._base import validate

__all__ = ["Arguments", "agree", "arguments", "fits", "hidden_widths", "member_keys", "shapes", "whole_widths", "work"]

FloatArray = NDArray[np.float64]

_BYTES_OF_LAYER = 500  # of Python's own, beside its entries


class Arguments(NamedTuple):
    """What every start of given widths takes, checked.

    Attributes
    ----------
    widths : list of int
    gains : list of D (batch or 1, 1, 1) arrays
    members : int
    keys : (seed, first)
    dtype : dtype
    """

    widths: list[int]
    gains: list[FloatArray]
    members: int
    keys: tuple[int, int]
    dtype: np.dtype[Any]


def arguments(
    widths: Sequence[int], batch: int | None, scale: ArrayLike, seed: int, first: int, dtype: DTypeLike
) -> Arguments:
    """All checked."""
    dims = whole_widths(widths)
    depth = len(dims) - 1
    gain = validate.array(scale, "scale", at_least=0)
    if gain.ndim > 2 or gain.size == 0 or (gain.ndim == 2 and gain.shape[1] != depth):
        raise ValueError(f"scale: expected a number, (batch,) or (batch, {depth}), got an array of shape {gain.shape}")
    count = agree(batch, {"scale": len(gain) if gain.ndim else None})
    keys, kind = member_keys(seed, first, count), validate.dtype(dtype)
    fits(count, dims, kind)
    each = np.repeat(gain.reshape(-1, 1), depth, axis=1) if gain.ndim < 2 else gain
    return Arguments(dims, [each[:, place].reshape(-1, 1, 1) for place in range(depth)], count, keys, kind)


def work(widths: Sequence[int], *, batch: int | None = None, **_: Any) -> float:
    """About the work of making layers of these widths, see `pydln._base.patience`: that of a decomposition of each."""
    return float(batch or 1) * sum(max(n, m) * min(n, m) ** 2 for n, m in pairwise([int(n) for n in widths]))


def whole_widths(widths: Sequence[int]) -> list[int]:
    """n_0 … n_D, checked, however large."""
    if isinstance(widths, str | bytes) or not isinstance(widths, Sequence | np.ndarray) or validate.is_single(widths):
        raise TypeError(f"widths: expected a sequence of integers, input first, got {validate.short(widths)}")
    dims = [validate.integer(n, f"widths[{place}]", at_least=1) for place, n in enumerate(widths)]
    if len(dims) < 2:
        raise ValueError(f"widths: expected at least two, input and output, got {len(dims)}")
    return dims


def cast(layer: FloatArray, dtype: np.dtype[Any], name: str = "scale") -> NDArray[Any]:
    """`layer` in `dtype`; ValueError naming the argument `name` where it cannot hold the numbers."""
    with np.errstate(over="ignore"):
        held = layer.astype(dtype, order="C", copy=False)
    if not np.isfinite(held).all():
        raise ValueError(f"{name}: expected a size that weights of {dtype} can have, got one beyond its range")
    return held


def fits(count: int, dims: list[int], dtype: np.dtype[Any]) -> None:
    """Refuse an ensemble that no memory is free for."""
    entries = count * sum(n_in * n_out for _, n_in, n_out in shapes(dims))
    validate.fits_in_memory(
        entries * dtype.itemsize,
        f"widths: an ensemble of {count} with {entries} weights of {dtype}",
        "take smaller widths, or fewer members at a time (`first` numbers them)",
    )


def member_keys(seed: int, first: int, count: int) -> tuple[int, int]:
    """(seed, first), within 64 bits for every member."""
    seed = validate.integer(seed, "seed", at_least=0, at_most=2**64 - 1)
    return seed, validate.integer(first, "first", at_least=0, at_most=2**64 - count)


def agree(batch: int | None, given: dict[str, int | None]) -> int:
    """The batch that all of `given` have; None or 1 goes with every batch."""
    count, because = 1, ""
    if batch is not None:
        count, because = validate.integer(batch, "batch", at_least=1), "batch"
    for name, members in given.items():
        if members is None or members == 1 or members == count:
            continue
        if because:
            raise ValueError(f"{name}: expected 1 or {count} members to go with {because}, got {members}")
        count, because = members, name
    return count


def hidden_widths(
    width: int | Sequence[int] | None, depth: int, at_least: int, why: str, default: int | None = None
) -> list[int]:
    """n_1 … n_{D-1}, none below `at_least`."""
    validate.fits_in_memory(_BYTES_OF_LAYER * depth, f"depth: a list of {depth} layers", "take fewer")
    if width is None:
        return [at_least if default is None else default] * (depth - 1)
    if (
        isinstance(width, Sequence | np.ndarray)
        and not isinstance(width, str | bytes)
        and not validate.is_single(width)
    ):
        if len(width) != depth - 1:
            raise ValueError(f"width: expected {depth - 1} hidden widths for depth {depth}, got {len(width)}")
        widths = [validate.integer(n, f"width[{place}]", at_least=1) for place, n in enumerate(width)]
    else:
        widths = [validate.integer(width, "width", at_least=1)] * (depth - 1)
    for n in widths:
        if n < at_least:
            raise ValueError(f"width: expected at least {at_least}, {why}, got {n}")
    return widths


def shapes(dims: list[int]) -> list[tuple[int, int, int]]:
    """(l, n_{l-1}, n_l) for l = 1 … D."""
    return [(place + 1, dims[place], dims[place + 1]) for place in range(len(dims) - 1)]
