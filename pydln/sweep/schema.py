"""What a run file may hold: for each table its keys, and for each key the check its value must pass."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pydln._base import validate
from pydln.quantities import QUANTITIES

__all__ = ["GRIDS", "OUTPUT", "RUN", "STARTS", "STOP", "TABLES", "TASKS", "Section", "home"]

Check = Callable[[object, str], Any]

MAX_AXIS = 1_000_000


def _no_flag(value: object, name: str, expected: str) -> None:
    # To Python and NumPy `true` is the number 1; in a run file it is a slip.
    if isinstance(value, bool):
        raise TypeError(f"{name}: expected {expected}, got {str(value).lower()}")


def _number(**bounds: float) -> Check:
    def check(value: object, name: str) -> float:
        _no_flag(value, name, "a number")
        return validate.number(value, name, **bounds)

    return check


def _integer(at_least: int, at_most: int | None = None) -> Check:
    def check(value: object, name: str) -> int:
        return validate.integer(value, name, at_least=at_least, at_most=at_most)

    return check


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected true or false, got {validate.short(value)}")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise TypeError(f"{name}: expected a text, got {validate.short(value)}")
    return value


def _file_name(value: object, name: str) -> str:
    text = _text(value, name)
    if not re.fullmatch(r"[\w.+-]+", text) or text.startswith("."):
        raise ValueError(f"{name}: expected letters, digits and - _ + . (it names files), got {text!r}")
    return text


def _choice(*options: str) -> Check:
    def check(value: object, name: str) -> str:
        return validate.choice(value, name, options)

    return check


def _vector(**bounds: Any) -> Check:
    """A number or a list of numbers, as an array."""

    def check(value: object, name: str) -> Any:
        for one in value if isinstance(value, list) else [value]:
            _no_flag(one, name, "numbers")
        result = np.atleast_1d(validate.array(value, name, **bounds))
        if result.ndim != 1 or result.size == 0:
            raise ValueError(f"{name}: expected a list of numbers, got an array of shape {result.shape}")
        return result

    return check


def _matrix(value: object, name: str) -> Any:
    return validate.array(value, name, shape=("n_D", "n_0"))


def _spaced(value: Mapping[str, Any], name: str) -> list[float]:
    """``{ geomspace = [first, last, count] }`` or the same with linspace."""
    shapes: dict[str, Callable[[float, float, int], Any]] = {"geomspace": np.geomspace, "linspace": np.linspace}
    if len(value) != 1 or next(iter(value)) not in shapes:
        raise ValueError(
            f"{name}: expected {{ geomspace = [first, last, count] }} or linspace, got {validate.short(dict(value))}"
        )
    [(shape, ends)] = value.items()
    if not isinstance(ends, list) or len(ends) != 3:
        raise ValueError(f"{name}.{shape}: expected [first, last, count], got {validate.short(ends)}")
    first, last = (_number()(end, f"{name}.{shape}") for end in ends[:2])
    count = validate.integer(ends[2], f"{name}.{shape} (count)", at_least=1, at_most=MAX_AXIS)
    if shape == "geomspace" and first * last <= 0:
        raise ValueError(f"{name}.{shape}: expected ends of one sign, neither 0, got {first:g} and {last:g}")
    return [float(x) for x in shapes[shape](first, last, count)]


def _axis(one: Check, expected: str) -> Check:
    """One value or a list of distinct ones; every one passes `one`."""

    def check(value: object, name: str) -> tuple[Any, ...]:
        if isinstance(value, Mapping):
            value = _spaced(value, name)
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ValueError(f"{name}: expected {expected}, got an empty list")
        checked = []
        for entry in values:
            try:
                checked.append(one(entry, name))
            except (TypeError, ValueError):
                raise ValueError(f"{name}: expected {expected}, got {validate.short(entry)}") from None
        counts = Counter(checked)
        if len(counts) < len(checked):
            twice = next(entry for entry in checked if counts[entry] > 1)
            raise ValueError(f"{name}: expected distinct values, got {validate.short(twice)} twice")
        return tuple(checked)

    return check


def _seeds(value: object, name: str) -> tuple[int, ...]:
    if isinstance(value, list):
        return tuple(
            _axis(_integer(0, 2**64 - 1), "a number of seeds or a list of integers >= 0 and below 2^64")(value, name)
        )
    return tuple(range(validate.integer(value, name, at_least=1, at_most=MAX_AXIS)))


def _names(value: object, name: str) -> tuple[str, ...]:
    return validate.names(value, name, QUANTITIES)


def _steps(value: object, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise TypeError(f"{name}: expected a list of steps, got {validate.short(value)}")
    steps = tuple(validate.integer(one, name, at_least=0) for one in value)
    if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise ValueError(f"{name}: expected increasing steps, got {validate.short(value)}")
    return steps


@dataclass(frozen=True)
class Section:
    """The keys of one table of a run file: what each must be, and which have to be there."""

    checks: Mapping[str, Check]
    required: frozenset[str] = field(default_factory=frozenset)


def _section(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Section:
    return Section({**required, **optional}, frozenset(required))


_RTOL = _number(at_least=0.0, below=1.0)
_NORMALIZE = _choice("mean", "sum")
_SPECTRUM = {"s": _vector(), "n_in": _integer(1), "n_out": _integer(1)}

TASKS: dict[str, Section] = {
    "mnist": _section(
        {}, {"whiten": _flag, "center": _flag, "normalize": _NORMALIZE, "samples": _integer(1), "rtol": _RTOL}
    ),
    "hierarchy": _section(
        {},
        {
            "levels": _integer(1),
            "branching": _integer(2),
            "flip": _number(at_least=0.0, at_most=1.0),
            "features": _integer(1),
            "seed": _integer(0),
            "population": _flag,
            "normalize": _NORMALIZE,
        },
    ),
    "spectrum": _section(_SPECTRUM, {"seed": _integer(0), "trace_yy": _number(at_least=0.0)}),
    "teacher": _section(
        _SPECTRUM,
        {"noise": _number(at_least=0.0), "samples": _integer(1), "seed": _integer(0)},
    ),
    "data": _section({"path": _text}, {"normalize": _NORMALIZE, "whiten": _flag, "rtol": _RTOL}),
    "covariances": _section({"path": _text}, {"normalize": _NORMALIZE, "whitened": _flag}),
}

_DTYPE = {"dtype": _choice("float32", "float64")}
STARTS: dict[str, Section] = {
    "gaussian": _section({}, _DTYPE),
    "uniform": _section({}, _DTYPE),
    "orthogonal": _section({}, _DTYPE),
    "identity": _section({}, _DTYPE),
    "residual": _section({}, _DTYPE),
    "mup": _section({}, _DTYPE),
    "aligned": _section({}, _DTYPE),
    "balanced": _section({}, {**_DTYPE, "product": _matrix, "path": _text}),
}

_POSITIVE = _number(above=0.0)
_SIZES = _axis(_integer(1), "integers >= 1")
_GRID = {"depth": _SIZES, "lr": _axis(_POSITIVE, "numbers > 0")}
_GRID_OPTIONS = {"width": _SIZES, "seeds": _seeds}
GRIDS: dict[str, Section] = {
    "scale": _section(_GRID, {**_GRID_OPTIONS, "scale": _axis(_POSITIVE, "numbers > 0")}),
    "strength": _section({**_GRID, "strength": _axis(_number(), "finite numbers")}, _GRID_OPTIONS),
}

RUN = _section(
    {"steps": _integer(1, 2**40)},
    {
        "record": _names,
        "record_every": _integer(1),
        "at": _steps,
        "momentum": _number(at_least=0.0, below=1.0),
        "nesterov": _flag,
        "weight_decay": _number(at_least=0.0),
        "theory": _flag,
        "stop": lambda value, name: value,
    },
)
STOP = _section(
    {},
    {
        "loss": _number(at_least=0.0),
        "strengths": _vector(finite=False),
        "steady": _POSITIVE,
    },
)
OUTPUT = _section({}, {"dir": _text, "name": _file_name})
TABLES = ("task", "start", "grid", "run", "output")


def home(key: str) -> str | None:
    """The table that knows `key`, for a key put into the wrong one."""
    known = {
        "task": set().union(*(kind.checks for kind in TASKS.values())) - {"seed"},
        "grid": set().union(*(kind.checks for kind in GRIDS.values())),
        "run": set(RUN.checks),
        "run.stop": set(STOP.checks),
        "output": set(OUTPUT.checks),
    }
    return next((table for table, keys in known.items() if key in keys), None)
