"""Members run in fewer input directions, narrower hidden layers or both; see `inputs` and `width`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from pydln._base.arrays import Floats, Integers, blocks, sizes, take, transposed
from pydln.reduce.decay import Decay
from pydln.reduce.ensemble import NDIM, Ensemble, KernelResult, Problem
from pydln.reduce.inputs import Inputs, reduced_moments, reduced_squares

__all__ = ["Projected", "in_blocks"]

_BLOCK = 2**21  # numbers of float64 (16 MB) that are recovered at once


@dataclass(frozen=True, eq=False)
class Projected:
    """W_l(t) = P_l W'_l(t) P_{l-1}ᵀ + c(t) C_l, P_0 the input directions kept, P_D = I."""

    ensemble: Ensemble
    members: Integers
    names: tuple[str, ...]
    inputs: Inputs | None  # of these members
    hidden: tuple[Floats | None, ...]  # D - 1 of (1 or members, n_l, r_l); None: I
    networks: int = 1

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """n'_0, r_1 … r_{D-1}, n_D."""
        own = self.ensemble.weights.widths
        hidden = [n if P is None else P.shape[-1] for n, P in zip(own[1:-1], self.hidden, strict=True)]
        return (own[0] if self.inputs is None else self.inputs.width, *hidden, own[-1])

    def _bases(self, part: Integers) -> list[Floats | None]:
        """P_0 … P_D."""
        first = None if self.inputs is None else self.inputs.basis
        return [None if P is None else take(P, part) for P in (first, *self.hidden, None)]

    def _start(self, part: Integers) -> list[Floats]:
        """W'_l(0) in working precision."""
        dtype, members = self.ensemble.weights.dtype, self.members[part]
        start = []
        for k, (right, left) in enumerate(pairwise(self._bases(part)), 1):
            W = self.ensemble.layer(k, members)
            W = W if left is None else transposed(left) @ W
            W = W if right is None else W @ right
            start.append(np.ascontiguousarray(W, dtype=dtype))
        return start

    def problem(self, part: Integers, *, test: bool) -> Problem:
        """The smaller networks."""
        members, count, dtype = self.members[part], len(part), self.ensemble.weights.dtype
        own = self.widths
        weights = [np.empty((count, n_out, n_in), dtype=dtype) for n_in, n_out in pairwise(own)]
        for some in blocks(count, self.ensemble.bytes_of_one):
            for W, start in zip(weights, self._start(part[some]), strict=True):
                W[some] = start
        if self.inputs is None:
            task, held_out = self.ensemble.moments(members, test=test)
            return Problem(weights=weights, task=task, test=held_out)
        V = transposed(take(self.inputs.basis, part)) @ self.ensemble.modes(members)[2]
        task = self.ensemble.modes_of(members) | {"mode_v": _one_or_all(np.ascontiguousarray(V, dtype=dtype), 2)}
        task |= _kernel_moments(reduced_moments(self.ensemble, self.inputs, part))
        held_out = _kernel_moments(reduced_squares(self.ensemble, self.inputs, part)) if test else None
        return Problem(weights=weights, task=task, test=held_out)

    def records(self, names: Iterable[str]) -> tuple[str, ...]:
        """The same."""
        return tuple(names)

    def recover(
        self, part: Integers, kernel: KernelResult, out: dict[str, Any], decay: Decay, at: Floats
    ) -> KernelResult:
        """Back to the coordinates and widths of the members."""
        bases, start, names = self._bases(part), self._start(part), tuple(kernel.records)
        count = len(part)
        c = decay.factors(at) if decay.any else None
        c_final = decay.factors(kernel.stopped_at[:, None])[:, 0] if decay.any else None
        rest = self._rest(part, start, bases) if decay.any or "layer_norms" in names else []
        final = []
        with np.errstate(all="ignore"):  # what a diverged member left
            for name in names:
                value = kernel.records[name]
                if name == "weights":
                    continue
                if name == "product" and bases[0] is not None:
                    for some, times in in_blocks(out[name].shape):
                        out[name][some, times] = value[some, times] @ transposed(_some(bases[0], some))[:, None]
                elif name == "layer_norms":
                    outside = _table([sizes(C) for C in rest], count)
                    outside = outside if c is None else outside * c[:, :, None]
                    out[name][...] = np.sqrt(value.astype(np.float64) ** 2 + outside**2)
                elif name == "drift" and c is not None:
                    change = [transposed(b) @ b - a @ transposed(a) for a, b in pairwise(rest)]
                    gone = _table([sizes(K) for K in change], count) * (c[:, :, None] ** 2 - 1)
                    out[name][...] = np.sqrt(value.astype(np.float64) ** 2 + gone**2)
                elif value is not out[name]:
                    out[name][...] = value
            for k, (right, left) in enumerate(pairwise(bases)):
                as_is = right is None and left is None
                whole = self.ensemble.layer(k + 1, self.members[part])
                if "weights" in names:
                    value, target = kernel.records["weights"][k], out["weights"][k]
                    if not as_is:
                        for some, times in in_blocks(target.shape):
                            factor = None if c is None else c[some, times, None, None]
                            target[some, times] = _recovered(
                                value[some, times],
                                _some(start[k], some)[:, None],
                                _some(whole, some)[:, None],
                                None if left is None else _some(left, some)[:, None],
                                None if right is None else _some(right, some)[:, None],
                                factor,
                            )
                    elif value is not target:
                        target[...] = value
                now = kernel.final[k]
                if not as_is:
                    factor = None if c_final is None else c_final[:, None, None]
                    now = _recovered(now, start[k], whole, left, right, factor)
                final.append(np.ascontiguousarray(now, dtype=kernel.final[k].dtype))
        return KernelResult(records={}, final=final, status=kernel.status, stopped_at=kernel.stopped_at)

    def _rest(self, part: Integers, start: list[Floats], bases: list[Floats | None]) -> list[Floats]:
        """C_l."""
        members = self.members[part]
        rest = []
        for k, (right, left) in enumerate(pairwise(bases)):
            W = self.ensemble.layer(k + 1, members)
            rest.append(W - _spread(start[k].astype(np.float64), left, right))
        return rest


def _table(columns: list[Floats], count: int) -> Floats:
    """(members, 1, len(columns))"""
    table = np.zeros((count, 1, len(columns)))
    for k, column in enumerate(columns):
        table[:, 0, k] = column
    return table


def _spread(W: Floats, left: Floats | None, right: Floats | None) -> Floats:
    W = W if left is None else left @ W
    return W if right is None else W @ transposed(right)


def _recovered(
    now: Floats, start: Floats, whole: Floats, left: Floats | None, right: Floats | None, factor: Floats | None
) -> Floats:
    """c W(0) + P_l (W' - c W'(0)) P_{l-1}ᵀ: W(0) itself, to the bit, where nothing has moved."""
    start = start.astype(np.float64)
    moved = now - (start if factor is None else factor * start)
    return (whole if factor is None else factor * whole) + _spread(moved, left, right)


def _some(a: Floats, members: slice) -> Floats:
    return a if len(a) == 1 else a[members]


def in_blocks(shape: tuple[int, ...]) -> Iterable[tuple[slice, slice]]:
    """Members and times of a record, (members, times, …), in pieces of bounded size."""
    count, times = shape[:2]
    entry = max(1, int(np.prod(shape[2:], dtype=np.int64)))
    steps = max(1, min(times, _BLOCK // entry))
    some = max(1, _BLOCK // (entry * steps))
    for first in range(0, count, some):
        for begin in range(0, times, steps):
            yield slice(first, first + some), slice(begin, begin + steps)


def _kernel_moments(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: None if a is None else _one_or_all(a, NDIM[name]) for name, a in arrays.items()}


def _one_or_all(a: Floats, ndim: int) -> Floats:
    """What all members share without the batch axis, as the kernel takes it."""
    return a.reshape(a.shape[1:]) if a.ndim > ndim and len(a) == 1 else a
