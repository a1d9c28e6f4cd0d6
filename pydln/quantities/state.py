"""Networks at moments of their runs, with what they learn: what quantities are defined on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pydln._base.arrays import Floats, Integers
from pydln.task.task import Task

__all__ = ["State"]


@dataclass(frozen=True, eq=False)
class State:
    """Rows of networks, in float64.

    Attributes
    ----------
    task : Task or None
        None for networks with a nonlinearity, whose quantities ask nothing of it.
    members : (rows,) array
        Which member of a batched task each learns.
    omega : (rows, n_D, n_0) array or None
        Ω where there are no layers.
    layers : list of (rows, n_l, n_{l-1}) arrays or None
    start : list of arrays or None
        The layers at the start, for what changes since then.
    threads : int
        For kernels; no result depends on it.
    """

    task: Task | None
    members: Integers
    omega: Floats | None = None
    layers: list[Floats] | None = None
    start: list[Floats] | None = None
    threads: int = 1

    @cached_property
    def product(self) -> Floats:
        """Ω."""
        if self.omega is not None:
            return self.omega
        assert self.layers is not None
        product = self.layers[0]
        for W in self.layers[1:]:
            product = W @ product
        return product

    @cached_property
    def modes(self) -> tuple[Floats, Floats, Floats]:
        """U, s, V, rows or one in front."""
        U, s, V = self._task(False).modes
        return self._own(U, 2), self._own(s, 1), self._own(V, 2)

    def of_task(self, name: str, *, test: bool = False) -> Floats:
        """An array of the task or of its held-out covariances, rows or one in front."""
        task = self._task(test)
        ndim = 0 if name in ("floor", "trace_yy") else 2
        return self._own(np.asarray(getattr(task, name), dtype=np.float64), ndim)

    def squares(self, *, test: bool = False) -> tuple[Floats | None, Floats]:
        """A and B of the loss, see `pydln.task.squares`; None where A is the identity."""
        task = self._task(test)
        if task.squares is None:
            return None, self.of_task("sigma_yx", test=test)
        return self._own(task.squares.root, 2), self._own(task.squares.target, 2)

    def _task(self, test: bool) -> Task:
        assert self.task is not None
        task = self.task.test if test else self.task
        assert task is not None
        return task

    def _own(self, a: Floats, ndim: int) -> Floats:
        if a.ndim == ndim:
            return a[None]
        return a if len(a) == 1 else a[self.members]
