"""Every check of a user's argument. A mistake becomes one sentence: ``name: expected …, got …``."""

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "array",
    "choice",
    "dtype",
    "fits_in_memory",
    "flag",
    "free_memory",
    "instance",
    "integer",
    "is_single",
    "known",
    "names",
    "number",
    "per_member",
    "sequence",
    "short",
    "unmasked",
]

FloatArray = NDArray[Any]

_LARGEST_INTEGER = 2**256
"""Of numbers without another bound, such as seeds: products of some of them are still floats, and can be written."""

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60  # version 1 writes "no limit" as a number close to 2^63


def short(value: object) -> str:
    """`value` as a sentence shows it: on one line, at most 60 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python does not write integers of thousands of digits, nor endless nesting
        text = f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= 60 else text[:57] + "..."


def instance(value: object, name: str, kind: type) -> None:
    """TypeError unless `value` is a `kind`, one of pydln's own classes."""
    if not isinstance(value, kind):
        package, module = kind.__module__.split(".")[:2]
        place = f"{package}.{module}" if module in ("propagation", "reduce", "spectra") else package
        raise TypeError(f"{name}: expected a {place}.{kind.__name__}, got {type(value).__name__}")


def flag(value: object, name: str) -> bool:
    """`value` as a bool: True or False, Python's or NumPy's."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {short(value)}")
    return bool(value)


def sequence(value: object, name: str, of: str) -> list[Any]:
    """The entries of `value`, a sequence of what `of` says; TypeError for a single thing, 0-d arrays among them."""
    unmasked(value, name)
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable) or is_single(value):
        raise TypeError(f"{name}: expected a sequence of {of}, got {short(value)}")
    return list(value)


def is_single(value: object) -> bool:
    """Whether `value` is an array without axes, of whichever package: those have the looks of a sequence."""
    return getattr(value, "ndim", None) == 0


def integer(value: object, name: str, *, at_least: int | None = None, at_most: int | None = None) -> int:
    """`value` as an int within the bounds; TypeError or ValueError naming `name` otherwise."""
    try:
        if isinstance(value, bool | np.bool_ | np.ma.MaskedArray):  # what is behind a mask has an index as well
            raise TypeError
        result = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {short(value)}") from None
    if at_least is not None and result < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {short(result)}")
    if result > (_LARGEST_INTEGER if at_most is None else at_most):
        bound = "2^256" if at_most is None else at_most
        raise ValueError(f"{name}: expected an integer <= {bound}, got {short(result)}")
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


_PLAIN = {int, float, bool, complex, str, bytes, type(None)}


def _inside(value: object) -> Iterator[Any]:
    """`value` itself, or of nested sequences everything in them that is no plain number."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if not isinstance(one, list | tuple | deque):
            yield one
        elif id(one) not in seen:
            seen.add(id(one))
            kinds = set(map(type, one)) - _PLAIN
            waiting += (part for part in one if type(part) in kinds) if kinds else ()


def _expect_unmasked(value: Any, name: str) -> None:
    masked = isinstance(value, np.ma.MaskedArray) or (
        isinstance(value, np.ndarray) and type(value) is not np.ndarray and hasattr(value, "mask")
    )
    if masked:
        got = "a masked number" if value.ndim == 0 else f"a masked array of shape {value.shape}"
        raise TypeError(f"{name}: expected numbers without a mask, got {got}: leave out or fill what is masked")


def unmasked(value: object, name: str) -> None:
    """Refuse masked arrays, alone and in lists: NumPy would compute with what their masks hide."""
    for one in _inside(value):
        _expect_unmasked(one, name)


def _expect_readable(value: Any, name: str) -> None:
    """Refuse tensors that only become arrays by what their owner has to say, and name it."""
    if isinstance(value, np.ndarray | np.generic) or not (hasattr(value, "detach") and hasattr(value, "dtype")):
        return
    dtype, device = str(value.dtype).rpartition(".")[2], getattr(value, "device", None)
    obstacles = {
        "detach": "that requires grad" if getattr(value, "requires_grad", False) else "",
        "to_dense": "that is sparse" if "strided" not in str(getattr(value, "layout", "strided")) else "",
        "float": f"of {dtype}" if dtype.startswith(("bfloat", "float8", "float4")) else "",
        "cpu": f"on {device}" if getattr(device, "type", "cpu") != "cpu" else "",
    }
    calls = "".join(f".{call}()" for call, what in obstacles.items() if what)
    if calls:
        got = ", ".join(filter(None, obstacles.values()))
        raise TypeError(f"{name}: expected an array of numbers, got a {type(value).__name__} {got}: pass {name}{calls}")


def _real_objects(raw: NDArray[Any]) -> NDArray[Any] | str:
    """Python's and NumPy's real numbers in an array of objects as an array of numbers; or what is there instead."""
    for place in np.ndindex(raw.shape):
        one = raw[place]
        if not isinstance(one, int | float | np.integer | np.floating | np.bool_):
            missing = one is None or type(one).__name__ in ("NAType", "NaTType")
            where = f" at {list(place)}" if place else ""
            return f"a missing value{where}" if missing else f"an array of objects, {short(one)}{where}"
    numbers = np.array(raw.tolist()).reshape(raw.shape)
    if numbers.dtype.kind != "O":
        return numbers
    return "integers too large for 64 bits" if raw.ndim else "an integer too large for 64 bits"


def _read(value: object, name: str, expected: str, unreadable: str) -> NDArray[Any]:
    """`value` as an array of real numbers, of the dtype that it has."""
    for one in _inside(value):
        _expect_unmasked(one, name)
        _expect_readable(one, name)
    try:
        raw = np.asanyarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected an array of numbers, got a ragged sequence") from None
    except MemoryError:
        raise
    except Exception:  # whatever the object's own conversion raises
        raise TypeError(
            f"{name}: expected an array of numbers, got {type(value).__name__} that NumPy cannot read{unreadable}"
        ) from None
    _expect_unmasked(raw, name)  # such as what a variable of a netCDF file becomes
    raw = np.asarray(raw)
    if raw.dtype.kind in "fiub":
        return raw
    got = short(value)
    if raw.dtype.kind == "O" and raw.size and (raw.ndim or isinstance(value, int | np.ndarray)):
        numbers = _real_objects(raw)
        if not isinstance(numbers, str):
            return numbers
        got = numbers
    elif raw.ndim:
        got = "an array of " + {"c": "complex numbers", "U": "text", "S": "text", "O": "objects"}.get(
            raw.dtype.kind, str(raw.dtype)
        )
        if "float" in raw.dtype.name:  # bfloat16 and others that NumPy holds for another package
            got += f": pass {name}.astype('float32')"
    raise TypeError(f"{name}: expected {expected}, got {got}")


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
    unreadable: str = "",
) -> FloatArray:
    """`value` as a C-contiguous, aligned real array.

    Integers beyond 2⁵³ are rounded as NumPy rounds them.

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
    unreadable : str
        A clause of advice for objects that NumPy cannot read.

    Raises
    ------
    TypeError
        Text, complex numbers, masked arrays, tensors that NumPy cannot read, objects other than real numbers.
    ValueError
        Ragged, wrong shape, out of bounds, not finite.
    """
    raw = _read(value, name, "a number" if shape is not None and len(shape) == 0 else "real numbers", unreadable)
    if shape is not None:
        fits = raw.ndim == len(shape) and all(
            not isinstance(n, int) or n == m for n, m in zip(shape, raw.shape, strict=True)
        )
        if not fits:
            got = f"{_shape_text(raw.shape)}" if raw.ndim else f"the number {short(value)}"
            if len(shape) == 0:
                got = f"an array of shape {got}"
            raise ValueError(f"{name}: expected {_shape_text(shape)}{why}, got {got}")
    if dtype is None:
        dtype = raw.dtype if raw.dtype in (np.float32, np.float64) else np.float64
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(raw, dtype=dtype).reshape(raw.shape)
    if not result.flags.aligned:
        result = result.copy()

    def rounded(is_good: Any) -> str:
        # A number that is refused only as what it becomes in float32.
        return f" (in {result.dtype})" if bool(is_good) else ""

    if finite and not np.isfinite(result).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(result))[0])
        only = rounded(np.isfinite(raw[bad]))
        if result.ndim == 0:
            raise ValueError(f"{name}: expected a finite number{only}, got {short(value)}")
        count = int(np.count_nonzero(~np.isfinite(result)))
        raise ValueError(
            f"{name}: expected finite numbers{only}, got {count} that are not (the first, {raw[bad]}, at {list(bad)})"
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
        where = tuple(int(i) for i in np.argwhere(~ok(result, bound))[0])
        only = rounded(ok(raw[where], bound))
        if result.ndim == 0:
            raise ValueError(f"{name}: expected a number {text}{only}, got {short(value)}")
        shown = raw[where] if only else result[where]
        raise ValueError(f"{name}: expected numbers {text}{only}, got {shown} at {list(where)}")
    return result


def per_member(value: object, name: str, *, dtype: DTypeLike = np.float64, **bounds: Any) -> FloatArray:
    """A number, or one number per member: shape () or (batch,)."""
    raw = array(value, name, dtype=dtype, **bounds).copy()  # the caller may change his array while a run reads it
    if raw.ndim > 1 or raw.size == 0:
        raise ValueError(f"{name}: expected a number or one number per member, got an array of shape {raw.shape}")
    return raw


def one_for_all(values: NDArray[Any], batch: int, *, ndim: int = 0) -> NDArray[Any]:
    """Values of `ndim` dimensions each: of every member, or of one that counts for all when there are more."""
    return values.reshape(values.shape[1:]) if values.ndim > ndim and len(values) == 1 and batch != 1 else values


def choice(value: object, name: str, options: Collection[str]) -> str:
    """`value` if it is one of `options`."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(o) for o in options)
        raise ValueError(f"{name}: expected one of {listed}, got {short(value)}")
    return value


def known(values: FloatArray, names: str) -> FloatArray:
    """`values`, worked out from the arguments `names`; ValueError if they cannot be told in float64."""
    for first in range(0, values.size, 2**22):  # few at once: Ctrl-C is seen between them
        if not np.isfinite(values.reshape(-1)[first : first + 2**22]).all():
            raise ValueError(
                f"{names}: expected numbers that float64 can follow to the end, got some so far apart that it cannot"
            )
    return values


def names(value: object, name: str, options: Collection[str]) -> tuple[str, ...]:
    """A name or a sequence of names out of `options`, each once, in the order given."""
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, Sequence):
        raise TypeError(f"{name}: expected names out of {', '.join(options)}, got {short(value)}")
    for one in value:
        choice(one, name, options)
    return tuple(dict.fromkeys(value))


def dtype(value: object, name: str = "dtype") -> np.dtype[Any]:
    """float32 or float64."""
    try:
        result: np.dtype[Any] = np.dtype(value)  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(f"{name}: expected float32 or float64, got {short(value)}") from None
    if result not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected float32 or float64, got {result}")
    return result


def free_memory() -> int | None:
    """Bytes that can still be allocated: what the system has available, within the limits of the control groups."""
    bounds = list(_group_bounds())
    try:
        lines = (_PROC / "meminfo").read_text().splitlines()
        bounds += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        pass  # not Linux, or not readable there: the size of the memory is the best that is known
    if not bounds and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(min(bounds), 0) if bounds else None


def _group_bounds() -> Iterator[int]:
    """What the limit of each control group (v1 or v2) around this process leaves, from its own to the outermost."""
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        controllers, path = line.split(":", 2)[1:] if line.count(":") >= 2 else ("?", "")
        if controllers == "":
            root, limited, used, cache = _GROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, cache = _GROUPS / "memory", "total_inactive_file"
            limited, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # Inside a container the path may be the one outside: levels that are not there are passed over.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for level in range(len(parts), -1, -1):
            group = root.joinpath(*parts[:level])
            try:
                limit = int((group / limited).read_text())
                left = limit - int((group / used).read_text())
            except (OSError, ValueError):  # no such level, or the limit is "max"
                continue
            try:  # pages of files that the kernel drops when memory gets short count as used
                stat = dict(entry.split() for entry in (group / "memory.stat").read_text().splitlines())
                left += int(stat.get(cache, 0))
            except (OSError, ValueError):
                pass
            if limit < _UNLIMITED:
                yield left


def _size_text(count: int) -> str:
    size = float(min(count, 10**300))
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} EB"


ALWAYS_FITS = 2**24
"""Bytes that are taken without asking how much memory is free, which costs about a millisecond."""


def fits_in_memory(wanted: int, what: str, advice: str) -> None:
    """Refuse `wanted` bytes for `what` when the memory at hand does not hold them."""
    if wanted <= ALWAYS_FITS:
        return
    free = free_memory()
    if free is not None and wanted > free:
        raise ValueError(f"{what} needs {_size_text(wanted)} and {_size_text(free)} of memory are free: {advice}")
