"""What a kernel is handed for an ensemble or a part of it: weights, second moments, modes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pydln._base.arrays import Floats, Integers, take
from pydln.reduce.decay import Decay
from pydln.task.inputs import principal_moments, principal_of
from pydln.task.squares import Squares
from pydln.task.task import Task
from pydln.weights import Weights

__all__ = [
    "NDIM",
    "RUN_WHOLE",
    "Ensemble",
    "Group",
    "KernelResult",
    "Problem",
    "Whole",
    "cast",
    "check_fit",
    "diagonal_input",
    "moments",
    "principal_inputs",
    "upward",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Networks, one kernel call's worth, and what they learn."""

    weights: list[Floats]
    task: dict[str, Any]
    test: dict[str, Any] | None


def check_fit(task: Task, weights: Weights) -> None:
    """TypeError or ValueError if these are not a task and starts for it."""
    if not isinstance(task, Task):
        raise TypeError(f"task: expected a pydln.Task, got {type(task).__name__}")
    if not isinstance(weights, Weights):
        raise TypeError(
            f"weights: expected pydln.Weights, got {type(weights).__name__}: pydln.Weights(layers) makes one"
        )
    if (weights.widths[0], weights.widths[-1]) != (task.n_in, task.n_out):
        raise ValueError(
            f"weights: expected {task.n_in} inputs and {task.n_out} outputs like the task, "
            f"got {weights.widths[0]} and {weights.widths[-1]}"
        )
    _check_size(task, weights.dtype)


def _check_size(task: Task, dtype: np.dtype[Any]) -> None:
    """ValueError if the moments of a member are so small that working precision loses them."""
    least = float(np.finfo(dtype).tiny / np.finfo(dtype).eps)
    variances = np.ones(1) if task.whitened else np.diagonal(task.sigma_xx, axis1=-2, axis2=-1).max(axis=-1)
    for name, sizes in (("sigma_xx", variances), ("trace_yy", task.trace_yy)):
        lost = (np.asarray(sizes) > 0) & (np.asarray(sizes) < least)
        if lost.any():
            raise ValueError(
                f"task: expected moments that {dtype} holds, {least:.2g} or more, "
                f"got {name} up to {np.asarray(sizes)[lost].max():.3g}"
            )


@dataclass(frozen=True, eq=False)
class Ensemble:
    """A task and starts, with one entry for everybody or one per member in front of every array."""

    task: Task
    weights: Weights
    batch: int

    @classmethod
    def of(cls, task: Task, weights: Weights) -> Ensemble:
        """As many members as the starts or the tasks."""
        return cls(task, weights, max(weights.batch, task.batch or 1))

    @property
    def cases(self) -> int:
        """Number of members that differ in start or task: 1 or `batch`."""
        return self.batch if max(self.weights.batch, self.task.batch or 1) > 1 else 1

    def layer(self, k: int, members: Integers) -> Floats:
        """W_k, k = 1 … D, in float64."""
        return take(self.weights.layers[k - 1], members).astype(np.float64, copy=False)

    def of_task(self, name: str, members: Integers, *, test: bool = False) -> Floats:
        """An array of the task, or of its test: ``sigma_xx``, ``sigma_yx``, ``optimum``, ``floor``, ``trace_yy``."""
        task = self.task.test if test else self.task
        assert task is not None
        return _of(getattr(task, name), 0 if name in ("floor", "trace_yy") else 2, members)

    def squares(self, members: Integers, *, test: bool = False) -> tuple[Floats | None, Floats]:
        """A and B of the task's loss, or of its test's; A is None where it is the identity."""
        task = self.task.test if test else self.task
        assert task is not None
        if task.squares is None:
            return None, self.of_task("sigma_yx", members, test=test)
        return _of(task.squares.root, 2, members), _of(task.squares.target, 2, members)

    def modes(self, members: Integers) -> tuple[Floats, Floats, Floats]:
        """U, s, V."""
        U, s, V = self.task.modes
        return _of(U, 2, members), _of(s, 1, members), _of(V, 2, members)

    def moments(self, members: Integers | None, *, test: bool) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """What the kernel must know of the task, and of its test, for some members or, with None, for all."""
        dtype = self.weights.dtype
        return (
            _picked(moments(self.task, dtype) | _modes(self.task, dtype), members),
            _picked(squares(self.task.test, dtype), members) if test and self.task.test is not None else None,
        )

    def modes_of(self, members: Integers) -> dict[str, Any]:
        """The part of `moments` that does not depend on Σ_xx and Σ_yx."""
        return _picked(_modes(self.task, self.weights.dtype), members)

    def problem(self, members: Integers | None, *, test: bool) -> Problem:
        """Members as they were given; None for all of them."""
        count = self.batch if members is None else len(members)
        chosen = [w if members is None else take(w, members) for w in self.weights.layers]
        task, held_out = self.moments(members, test=test)
        weights = [np.array(np.broadcast_to(w, (count, *w.shape[1:])), order="C") for w in chosen]
        return Problem(weights=weights, task=task, test=held_out)

    @property
    def bytes_of_one(self) -> int:
        """Size of the weights of a member in float64."""
        return 8 * sum(int(w[0].size) for w in self.weights.layers)


def _of(value: Any, ndim: int, members: Integers) -> Floats:
    a = np.asarray(value, dtype=np.float64)
    return take(a if a.ndim > ndim else a[None], members)


RUN_WHOLE = -1
"""In place of a `Status`: of members that reduced networks cannot speak for, see `Group.recover`."""

NDIM = {
    "sigma_xx": 2,
    "variances": 1,
    "sigma_yx": 2,
    "root": 2,
    "deviations": 1,
    "target": 2,
    "floor": 0,
    "mode_u": 2,
    "mode_v": 2,
}
"""Axes of what belongs to one member."""


def _picked(arrays: dict[str, Any], members: Integers | None) -> dict[str, Any]:
    if members is None:
        return arrays
    return {
        name: take(a, members) if name in NDIM and a is not None and a.ndim > NDIM[name] else a
        for name, a in arrays.items()
    }


def moments(task: Task, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Second moments in working precision, and the loss."""
    return {
        "sigma_xx": None if task.whitened else cast(_first_of_one(task.sigma_xx, task.batch, 2), dtype),
        "variances": None,
        "sigma_yx": cast(_first_of_one(task.sigma_yx, task.batch, 2), dtype),
        **(squares(task, dtype) | ({"target": None} if task.whitened else {})),
    }


def squares(task: Task, dtype: np.dtype[Any]) -> dict[str, Any]:
    """The loss, floor + 1/2 |target - Ω root|², in working precision.

    The target is moderate where Σ_xx is nearly singular, unlike the least-squares map (that of raw MNIST has entries so
    large that in float32 nothing would be left of the loss).
    """
    root, target = (None, task.sigma_yx) if task.squares is None else (task.squares.root, task.squares.target)
    return {
        "root": None if root is None else cast(_first_of_one(root, task.batch, 2), dtype),
        "deviations": None,
        "target": cast(_first_of_one(target, task.batch, 2), dtype),
        "floor": upward(_first_of_one(task.floor, task.batch, 0), dtype),
    }


def principal_inputs(ensemble: Ensemble, members: Integers) -> tuple[Floats, Floats, Floats]:
    """`principal_moments` of some members, one entry for all or one each."""
    task = ensemble.task
    assert task.squares is not None
    if task.squares.root.ndim == 3:
        root, target = ensemble.squares(members)
        assert root is not None
        return principal_of(Squares(root, target))
    Q, sigma, target = principal_moments(task)
    return Q[None], sigma[None], _of(target, 2, members)


def cast(value: Any, dtype: np.dtype[Any]) -> Floats | None:
    """`value` in working precision, which must hold it."""
    if value is None:
        return None
    with np.errstate(over="ignore"):
        a = np.ascontiguousarray(value, dtype=dtype).reshape(np.shape(value))
    if not np.isfinite(a).all():
        raise ValueError(f"task: expected moments within the range of {dtype}, got {np.abs(value).max():g}")
    return a


def upward(value: Any, dtype: np.dtype[Any]) -> Floats:
    """A floor in working precision: not below `value`."""
    a = np.asarray(cast(value, dtype))
    return np.where(a < value, np.nextafter(a, np.asarray(np.inf, dtype=dtype)), a).astype(dtype)


def diagonal_input(variances: Floats, dtype: np.dtype[Any]) -> dict[str, Any]:
    """A diagonal Σ_xx, (members, n_0), as the kernel takes it."""
    return {"sigma_xx": None, "variances": cast(variances, dtype)}


def _first_of_one(value: Any, batch: int | None, ndim: int) -> Floats:
    """An array of a batched task; that of its only member when it has one."""
    a = np.asarray(value)
    return a[0] if batch == 1 and a.ndim > ndim else a


def _modes(task: Task, dtype: np.dtype[Any]) -> dict[str, Any]:
    U, s, V = (_first_of_one(a, task.batch, n) for a, n in zip(task.modes, (2, 1, 2), strict=True))
    return {
        "modes": s.shape[-1],
        "mode_u": np.ascontiguousarray(U, dtype=dtype),
        "mode_v": np.ascontiguousarray(V, dtype=dtype),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelResult:
    """What came back from a kernel call for `Problem`: records, weights where the networks stopped, how they ended."""

    records: dict[str, Any]
    final: list[Floats]
    status: Integers
    stopped_at: Floats  # a step; of a flow, a time


class Group(Protocol):
    """Members that are run in the same way: as they are, or reduced to networks of one shape."""

    @property
    def names(self) -> tuple[str, ...]:
        """The reductions applied."""

    @property
    def members(self) -> Integers:
        """Places in the batch, increasing."""

    @property
    def widths(self) -> tuple[int, ...]:
        """n_0 … n_D of the networks that are run."""

    @property
    def networks(self) -> int:
        """How many of them stand for one member."""

    def problem(self, part: Integers, *, test: bool) -> Problem:
        """The networks of `part`, places among `members`; with what the loss on held-out data needs if `test`."""

    def records(self, names: Iterable[str]) -> tuple[str, ...]:
        """What the kernel must record of them so that `names` can be recovered."""

    def recover(
        self, part: Integers, kernel: KernelResult, out: dict[str, Any], decay: Decay, at: Floats
    ) -> KernelResult:
        """Writes the records of the members, at steps or times, into `out`; how they ended, with their full weights.

        A record of the kernel that has the shape of its entry of `out` may be that array itself. Members that the
        networks cannot speak for come back with the status `RUN_WHOLE`.
        """


@dataclass(frozen=True, eq=False)
class Whole:
    """Members run as they are."""

    ensemble: Ensemble
    members: Integers
    names: tuple[str, ...] = ()
    networks: int = 1

    @property
    def widths(self) -> tuple[int, ...]:
        """As given."""
        return self.ensemble.weights.widths

    def problem(self, part: Integers, *, test: bool) -> Problem:
        """The networks themselves."""
        return self.ensemble.problem(None if len(part) == self.ensemble.batch else self.members[part], test=test)

    def records(self, names: Iterable[str]) -> tuple[str, ...]:
        """The same."""
        return tuple(names)

    def recover(
        self, part: Integers, kernel: KernelResult, out: dict[str, Any], decay: Decay, at: Floats
    ) -> KernelResult:
        """Nothing to recover, the kernel wrote into `out`."""
        for name, value in kernel.records.items():
            for a, b in zip(*((value, out[name]) if name == "weights" else ([value], [out[name]])), strict=True):
                if a is not b:
                    b[...] = a
        return kernel
