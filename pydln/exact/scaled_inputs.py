"""Uncorrelated inputs of one variance, Σ_xx = cI: the whitened problem in other units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln.exact.solution import Solution
from pydln.exact.start import Condition, Start
from pydln.task.task import Task
from pydln.weights import Weights

__all__ = ["ScaledInputs", "common_variance"]

Floats = NDArray[Any]


def common_variance(task: Task) -> Floats | None:
    """c of every member, (members,), if Σ_xx = cI to 1e-12 of c > 0; None otherwise, and for whitened inputs."""
    if task.whitened:
        return None
    c = np.atleast_1d(task.sigma_xx[..., 0, 0])
    return c if (c > 0).all() and departure(task, c) <= 1e-12 else None


def departure(task: Task, c: Floats) -> float:
    """The largest |Σ_xx/c - I| of any member."""
    return float(np.abs(task.sigma_xx / c[:, None, None] - np.eye(task.n_in)).max())


class ScaledInputs(Solution):
    """Gradient flow for Σ_xx = cI: c^(1/D) W_l moves as for whitened inputs, c^((2-D)/D) times as fast, the same Σ_yx.

    Attributes
    ----------
    whitened : Solution
        That of c^(1/D) W_l for whitened inputs, with whatever it knows beside what is recorded, in its own units.
    """

    def __init__(self, start: Start, c: Floats, solve: Callable[[Task, Weights], Solution]) -> None:
        super().__init__(start)
        task, D = start.task, start.depth
        self.variance, self.unit = c, c ** (1 / D)
        trace = np.sum(np.asarray(task.sigma_yx) ** 2, axis=(-2, -1))  # a floor of zero
        white = Task.from_covariances(None, task.sigma_yx, trace)
        layers = [self.unit[:, None, None] * start.layer(k) for k in range(1, D + 1)]
        dtype = start.weights.dtype
        self.whitened = solve(white, Weights([w.astype(dtype) for w in layers]))
        self.name = self.whitened.name  # type: ignore[misc]

    @property
    def working(self) -> int:
        """As for whitened inputs."""
        return self.whitened.working

    @property
    def until(self) -> Floats:
        """That of whitened inputs; D = 2 keeps the time."""
        return self.whitened.until

    @classmethod
    def conditions(cls, start: Start) -> Iterator[Condition]:
        """Those of the whitened problem; that there is one is seen beforehand."""
        raise NotImplementedError

    def records(self, t: Floats, names: Sequence[str]) -> dict[str, Any]:
        """The quantities `names` in the units of the task."""
        D, c = self.start.depth, self.variance[:, None]
        asked = {"product" if name == "test_loss" else name for name in names}
        found = self.whitened.records(np.minimum(t * c ** ((2 - D) / D), np.finfo(np.float64).max), tuple(asked))
        unit = self.unit[:, None]
        out: dict[str, Any] = {}
        if "loss" in names:
            out["loss"] = np.reshape(self.start.task.floor, (-1, 1)) + found["loss"] / c
        if {"product", "test_loss"} & set(names):
            out["product"] = found["product"] / c[..., None, None]
        if "test_loss" in names:
            out["test_loss"] = self.test_loss(out["product"])
        for name, factor in (("strengths", 1 / c), ("layer_norms", 1 / unit), ("drift", 1 / unit**2)):
            if name in names:
                out[name] = found[name] * factor[..., None]
        if "kernel_distance" in names:
            out["kernel_distance"] = found["kernel_distance"]
        if "weights" in names:
            out["weights"] = [w / unit[..., None, None] for w in found["weights"]]
        return out
