"""What a run records: quantities by name, and functions of the user's own."""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln._base import validate
from pydln._base.arrays import Floats, Integers, blocks
from pydln.quantities import QUANTITIES, Quantity, Sizes, State
from pydln.task.task import Task
from pydln.trajectory.trajectory import Trajectory
from pydln.weights import Weights

__all__ = ["FEWER_STEPS", "FEWER_TIMES", "Record", "Recording", "arrays_of", "unrecorded"]

Record = str | Mapping[str, Callable[[Weights, Any], Any]] | Sequence[Any]
"""A name, a mapping of names to functions, or a sequence of either."""

FEWER_STEPS = "record less often (record_every=, at=)"
FEWER_TIMES = "record at fewer times"

_AT_ONCE = 2**25  # bytes of layers that definitions work on at once


@dataclass(frozen=True, eq=False)
class Recording:
    """What is recorded of an ensemble, checked, and how it comes about.

    Attributes
    ----------
    names : tuple of str
        Everything asked for, in that order.
    known : tuple of str
        What the kernel can record by itself.
    functions : dict
        The user's own, and the shape of what one member gives.
    """

    names: tuple[str, ...]
    known: tuple[str, ...]
    functions: dict[str, tuple[Callable[[Weights, Any], Any], tuple[int, ...]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        record: object,
        *,
        known: Collection[str],
        offered: Collection[str] = tuple(QUANTITIES),
        because: str = "",
        task: Task | None,
        weights: Weights | None,
        without: str | None = None,
    ) -> Recording:
        """`record` of a verb that offers some quantities, its kernel `known` ones; functions if there are `weights`.

        Raises
        ------
        TypeError, ValueError
            Names that are unknown, not offered `because`, or taken; functions that do not give numbers; ``test_loss``
        `without` held-out data.
        """
        names: list[str] = []
        functions: dict[str, Any] = {}
        for one in (record,) if isinstance(record, str | Mapping) else _sequence(record):
            if isinstance(one, Mapping):
                for name, function in one.items():
                    _check_function(name, function, weights)
                    functions[name] = function
                    names.append(name)
                continue
            validate.choice(one, "record", tuple(QUANTITIES))
            if one not in offered:
                raise ValueError(f"record: expected names out of {', '.join(offered)}, got {one}{because}")
            names.append(one)
        unique = tuple(dict.fromkeys(names))
        if without is None and task is not None and task.test is None:
            without = "expected a task with held-out covariances for test_loss, got one whose test is None"
        if "test_loss" in unique and without:
            raise ValueError(f"record: {without}")
        probed = {name: (f, _shape(name, f, weights, task)) for name, f in functions.items()}
        return cls(unique, tuple(known), probed)

    @property
    def native(self) -> tuple[str, ...]:
        """What the kernel records."""
        return tuple(name for name in self.names if name in self.known)

    @property
    def derived(self) -> tuple[str, ...]:
        """What is worked out from other records."""
        return tuple(name for name in self.names if name not in self.native)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Those of `QUANTITIES`."""
        return tuple(QUANTITIES[name] for name in self.names if name in QUANTITIES)

    @property
    def sources(self) -> tuple[str, ...]:
        """What the kernel must record so that everything can be had: `native`, Ω and the layers if need be."""
        return tuple(dict.fromkeys((*self.native, *map(self._source, self.derived))))

    def _source(self, name: str) -> str:
        """What a derived record is worked out from, whatever else is recorded: Ω where that is known and enough."""
        by_map = name in QUANTITIES and QUANTITIES[name].of == "map" and "product" in self.known
        return "product" if by_map else "weights"

    @property
    def since_start(self) -> bool:
        """Whether something derived compares with the start."""
        return any(QUANTITIES[name].of == "start" for name in self.derived if name in QUANTITIES)

    def shapes(self, name: str, sizes: Sizes) -> list[tuple[int, ...]]:
        """Of a record of one member."""
        return [self.functions[name][1]] if name in self.functions else QUANTITIES[name].shapes(sizes)

    def empty(self, names: Sequence[str], sizes: Sizes, members: int, times: int, dtype: Any) -> dict[str, Any]:
        """NaN for all of `names`."""
        made: dict[str, Any] = {}
        for name in names:
            kind = np.float64 if name in self.functions else dtype
            arrays = [unrecorded((members, times, *shape), np.dtype(kind)) for shape in self.shapes(name, sizes)]
            made[name] = arrays if name == "weights" else arrays[0]
        return made

    def refuse_too_large(
        self,
        weights: Weights,
        sizes: Sizes,
        batch: int,
        times: int,
        less: str = FEWER_STEPS,
        held: Sequence[str] = (),
    ) -> None:
        """ValueError if memory does not hold what is recorded, and what is `held` for that, beside the weights."""
        beside = [name for name in held if name not in self.names]
        numbers = sum(math.prod(shape) for name in (*self.names, *beside) for shape in self.shapes(name, sizes))
        own = sum(math.prod(w.shape[1:]) for w in weights.layers)
        size = batch * weights.dtype.itemsize
        what = ", ".join(self.names) if self.names else "nothing"
        validate.fits_in_memory(
            (numbers * times + own) * size + 8 * times,
            f"record: {what} of {batch} members at {times} times",
            f"{less}, fewer names, or fewer members at once",
        )

    def derive(
        self,
        found: Mapping[str, Any],
        out: Mapping[str, Any],
        task: Task | None,
        members: Integers,
        start: list[Floats],
        threads: int = 1,
    ) -> None:
        """Writes what is derived of `found`, (members, time, …) by name, into `out`; NaN where that is not finite.

        `members` are their places in the batch; `start` their layers, one entry for all or one each, if
        `since_start`.
        """
        for source in ("product", "weights"):
            names = [name for name in self.derived if self._source(name) == source]
            if not names:
                continue
            whole = arrays_of(found[source])
            count, times = whole[0].shape[:2]
            finite = np.ones((count, times), dtype=bool)
            for a in whole:
                finite &= np.isfinite(a).all(axis=(2, 3))
            defined = [name for name in names if name in QUANTITIES]
            if defined:
                self._define(defined, source, whole, finite, out, task, members, start, threads)
            for name in names:
                if name in self.functions:
                    self._ask(name, whole, finite, out[name], task, members)

    def _define(
        self,
        names: list[str],
        source: str,
        whole: list[Floats],
        finite: NDArray[np.bool_],
        out: Mapping[str, Any],
        task: Task | None,
        members: Integers,
        start: list[Floats],
        threads: int,
    ) -> None:
        rows, columns = np.nonzero(finite)
        bytes_of_row = 16 * sum(math.prod(a.shape[2:]) for a in whole) + (0 if task is None else 8 * task.n_in**2)
        for some in blocks(len(rows), bytes_of_row, at_once=_AT_ONCE):
            i, k = rows[some], columns[some]
            span = slice(some[0], some[-1] + 1)
            chosen = [a.reshape(-1, *a.shape[2:])[span] if finite.all() else a[i, k] for a in whole]
            now = [a.astype(np.float64, copy=False) for a in chosen]
            state = State(
                task,
                members[i],
                omega=now[0] if source == "product" else None,
                layers=None if source == "product" else now,
                start=[(w if len(w) == 1 else w[i]).astype(np.float64, copy=False) for w in start] or None,
                threads=threads,
            )
            with np.errstate(over="ignore", invalid="ignore"):  # of members that diverge: judged with the rest
                for name in names:
                    out[name][i, k] = QUANTITIES[name].define(state)

    def _ask(
        self,
        name: str,
        layers: list[Floats],
        finite: NDArray[np.bool_],
        out: Floats,
        task: Task | None,
        members: Integers,
    ) -> None:
        """What a user's function gives at each of the times, of the members that are numbers then."""
        function, shape = self.functions[name]
        for place in range(finite.shape[1]):
            here = np.flatnonzero(finite[:, place])
            if here.size:
                now = Weights._adopt([np.ascontiguousarray(w[here, place]) for w in layers])
                own = task if task is None or task.batch in (None, 1) else task._picked(members[here])
                with np.errstate(over="ignore", invalid="ignore"):
                    out[here, place] = _numbers(name, function(now, own), (len(here), *shape))


def arrays_of(record: Any) -> list[NDArray[Any]]:
    """A record as a list: of the layers, or of the one array."""
    return list(record) if isinstance(record, list | tuple) else [record]


def unrecorded(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """NaN everywhere, so that Ctrl-C is seen while gigabytes are touched for the first time."""
    made = np.empty(shape, dtype=dtype)
    flat = made.reshape(-1)
    piece = max(1, _AT_ONCE // 8)
    for first in range(0, flat.size, piece):
        flat[first : first + piece] = np.nan
    return made


def _sequence(record: object) -> Sequence[Any]:
    if not isinstance(record, Sequence):
        raise TypeError(f"record: expected names out of {', '.join(QUANTITIES)}, got {validate.short(record)}")
    return record


def _check_function(name: object, function: object, weights: Weights | None) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise ValueError(f"record: expected names that Python could have as keys, got {validate.short(name)}")
    if name in QUANTITIES or hasattr(Trajectory, name) or name in Trajectory.__annotations__:
        raise ValueError(f"record: expected names that nothing else has for functions, got {name!r}")
    if not callable(function):
        raise TypeError(f"record[{name!r}]: expected a function of (weights, task), got {validate.short(function)}")
    if weights is None:
        raise ValueError(
            f"record[{name!r}]: expected names of quantities, for there are no layers here, got a function"
        )


def _shape(name: str, function: Any, weights: Weights | None, task: Task | None) -> tuple[int, ...]:
    """What the function gives for one member, told by its start."""
    assert weights is not None
    own = task if task is None or task.batch is None else task._picked(np.array([0]))
    return _numbers(name, function(weights[:1], own), None).shape[1:]


def _numbers(name: str, value: Any, shape: tuple[int, ...] | None) -> NDArray[np.float64]:
    """What a function gave, as it must be."""
    count = 1 if shape is None else shape[0]
    try:
        made = np.asarray(value)
        sound = made.dtype.kind in "fiub"
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise TypeError(f"record[{name!r}]: expected a function that gives numbers, got {validate.short(value)}")
    if made.ndim < 1 or len(made) != count or (shape is not None and made.shape != shape):
        wanted = f"({count}, ...)" if shape is None else str(shape)
        raise ValueError(
            f"record[{name!r}]: expected a function that gives {wanted} for {count} member{'s' * (count > 1)}, "
            f"got {made.shape}"
        )
    return made.astype(np.float64)
