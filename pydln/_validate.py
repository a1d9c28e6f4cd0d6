"""Every check of a user's argument. A mistake becomes one sentence: ``name: expected …, got …``."""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["array", "choice", "dtype", "fits_in_memory", "free_memory", "integer", "names", "number", "per_member"]

FloatArray = NDArray[Any]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def integer(value: object, name: str, *, at_least: int | None = None, at_most: int | None = None) -> int:
    """`value` as an int within the bounds; TypeError or ValueError naming `name` otherwise."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        result = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {_short(value)}") from None
    if at_least is not None and result < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {result}")
    if at_most is not None and result > at_most:
        raise ValueError(f"{name}: expected an integer <= {at_most}, got {result}")
    return result


def _bounds_text(above: float | None, at_least: float | None, below: float | None, at_most: float | None) -> str:
    parts = [
        f"{sign} {bound:g}"
        for sign, bound in ((">", above), (">=", at_least), ("<", below), ("<=", at_most))
        if bound is not None
    ]
    return " and ".join(parts)


def number(
    value: object,
    name: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """`value` as a finite float within the bounds."""
    result = array(value, name, shape=(), above=above, at_least=at_least, below=below, at_most=at_most)
    return float(result)


def _shape_text(shape: Sequence[int | str | None]) -> str:
    if len(shape) == 0:
        return "a number"
    inner = ", ".join("any" if n is None else str(n) for n in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def array(
    value: object,
    name: str,
    *,
    shape: Sequence[int | str | None] | None = None,
    dtype: DTypeLike | None = np.float64,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    finite: bool = True,
    why: str = "",
) -> FloatArray:
    """`value` as a C-contiguous real array.

    Parameters
    ----------
    shape : sequence, optional
        Expected shape; None or a name (``"batch"``) in a place allows any size there.
    dtype : dtype, optional
        Result type; None keeps float32 and float64 and turns everything else into float64.
    above, at_least, below, at_most : float, optional
        Bounds that every entry must keep.
    finite : bool
        Refuse NaN and infinities.
    why : str
        A clause put after the expected shape, such as ``" to follow weights[0]"``.

    Raises
    ------
    TypeError
        Text, objects, complex numbers.
    ValueError
        Ragged, wrong shape, out of bounds, not finite.
    """
    try:
        raw = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected an array of numbers, got a ragged sequence") from None
    if raw.dtype.kind not in "fiub":
        kind = {"c": "complex numbers", "U": "text", "S": "text", "O": "objects"}.get(raw.dtype.kind, str(raw.dtype))
        expected = "a number" if shape is not None and len(shape) == 0 else "real numbers"
        got = _short(value) if raw.ndim == 0 else f"an array of {kind}"
        raise TypeError(f"{name}: expected {expected}, got {got}")
    if shape is not None:
        fits = raw.ndim == len(shape) and all(
            not isinstance(n, int) or n == m for n, m in zip(shape, raw.shape, strict=True)
        )
        if not fits:
            got = f"{_shape_text(raw.shape)}" if raw.ndim else f"the number {_short(value)}"
            if len(shape) == 0:
                got = f"an array of shape {got}"
            raise ValueError(f"{name}: expected {_shape_text(shape)}{why}, got {got}")
    if dtype is None:
        dtype = raw.dtype if raw.dtype in (np.float32, np.float64) else np.float64
    result = np.ascontiguousarray(raw, dtype=dtype).reshape(raw.shape)
    if finite and not np.isfinite(result).all():
        if result.ndim == 0:
            raise ValueError(f"{name}: expected a finite number, got {_short(value)}")
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(result))[0])
        count = int(np.count_nonzero(~np.isfinite(result)))
        raise ValueError(
            f"{name}: expected finite numbers, got {count} that are not (the first, {result[bad]}, at {list(bad)})"
        )
    for ok, bound in (
        (operator.gt, above),
        (operator.ge, at_least),
        (operator.lt, below),
        (operator.le, at_most),
    ):
        if bound is None or bool(ok(result, bound).all()):
            continue
        text = _bounds_text(above, at_least, below, at_most)
        if result.ndim == 0:
            raise ValueError(f"{name}: expected a number {text}, got {_short(value)}")
        where = np.argwhere(~ok(result, bound))[0]
        raise ValueError(f"{name}: expected numbers {text}, got {result[tuple(where)]} at {where.tolist()}")
    return result


def per_member(value: object, name: str, *, dtype: DTypeLike = np.float64, **bounds: Any) -> FloatArray:
    """A number, or one number per member: shape () or (batch,)."""
    raw = array(value, name, dtype=dtype, **bounds).copy()  # the caller may change his array while a run reads it
    if raw.ndim > 1 or raw.size == 0:
        raise ValueError(f"{name}: expected a number or one number per member, got an array of shape {raw.shape}")
    return raw


def choice(value: object, name: str, options: Collection[str]) -> str:
    """`value` if it is one of `options`."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(o) for o in options)
        raise ValueError(f"{name}: expected one of {listed}, got {_short(value)}")
    return value


def names(value: object, name: str, options: Collection[str]) -> tuple[str, ...]:
    """A name or a sequence of names out of `options`, each once, in the order given."""
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, Sequence):
        raise TypeError(f"{name}: expected names out of {', '.join(options)}, got {_short(value)}")
    chosen = tuple(dict.fromkeys(value))
    for one in chosen:
        choice(one, name, options)
    return chosen


def dtype(value: object, name: str = "dtype") -> np.dtype[Any]:
    """float32 or float64."""
    try:
        result: np.dtype[Any] = np.dtype(value)  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(f"{name}: expected float32 or float64, got {_short(value)}") from None
    if result not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected float32 or float64, got {result}")
    return result


def free_memory() -> int | None:
    """Bytes that can still be allocated: what the system has available, within the limit of the control group."""
    bounds: list[int] = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                bounds.append(int(line.split()[1]) * 1024)
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            bounds.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # not Linux, or not readable there: the size of the memory is the best that is known
    if not bounds and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(min(bounds), 0) if bounds else None


def _size_text(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} EB"


def fits_in_memory(wanted: int, what: str, advice: str) -> None:
    """Refuse `wanted` bytes for `what` when the memory at hand does not hold them."""
    free = free_memory()
    if free is not None and wanted > free:
        raise ValueError(f"{what} needs {_size_text(wanted)} and {_size_text(free)} of memory are free: {advice}")
