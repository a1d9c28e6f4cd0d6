"""What is solved: M2, decoupled modes far from balance, and M3, whole networks; and how far a solution is off."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

CHECKED = 200  # trajectories whose errors are looked at
ALLOWED = 1e-2  # of any solver at any tolerance: more is another problem solved


@dataclass(frozen=True, kw_only=True)
class Case:
    """Trajectories of one kind.

    Parameters
    ----------
    batch : how many there are
    levels : errors at which solvers are compared
    times : when the solution is saved
    """

    name: str
    depth: int
    batch: int
    levels: tuple[float, ...]
    times: np.ndarray

    step_flops = 1.0  # what is counted is trajectories

    def for_worker(self) -> dict[str, Any]:
        """What worker.py finds it by."""
        return {"flow": self.name}

    def error(self, solution: np.ndarray) -> float:
        """Largest distance of the first `CHECKED` trajectories from the best solution, relative to its size."""
        best = self.best
        return float(np.abs(solution[: len(best)] - best).max() / np.abs(best).max())

    @property
    def best(self) -> np.ndarray:
        """The first trajectories at a tolerance of 1e-13, in steps no longer than between two times."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Modes(Case):
    """Modes da_l/dt = (∏_{j≠l} a_j) (s - ∏_j a_j); saved are their strengths ∏_j a_j, (batch, time)."""

    @cached_property
    def s(self) -> np.ndarray:
        """(batch,)"""
        return np.random.default_rng(1).uniform(0.5, 3, self.batch)

    @cached_property
    def start(self) -> np.ndarray:
        """(batch, D)"""
        return np.random.default_rng(2).uniform(0.4, 1.2, (self.batch, self.depth))

    @cached_property
    def best(self) -> np.ndarray:
        import pydln

        some = slice(min(CHECKED, self.batch))
        finely = {"method": "dop853", "rtol": 1e-13, "max_step": float(np.diff(self.times).max())}
        run = pydln.mode_flow(self.s[some, None], self.start[some, None], self.times, **finely)
        return run.strengths[..., 0]


@dataclass(frozen=True, kw_only=True)
class Networks(Case):
    """Square networks, whitened inputs; saved are their products, (batch, time, n, n)."""

    width: int

    @cached_property
    def target(self) -> np.ndarray:
        """(n, n), modes of strengths from 0.5 to 2."""
        rng = np.random.default_rng(1)
        u, v = (np.linalg.qr(rng.standard_normal((self.width, self.width)))[0] for _ in range(2))
        return (u * np.linspace(2.0, 0.5, self.width)) @ v.T

    @cached_property
    def start(self) -> list[np.ndarray]:
        """W_1 … W_D, (batch, n, n) each, Gaussian."""
        rng = np.random.default_rng(2)
        shape = (self.batch, self.width, self.width)
        return [0.7 / np.sqrt(self.width) * rng.standard_normal(shape) for _ in range(self.depth)]

    @cached_property
    def best(self) -> np.ndarray:
        import pydln

        count = min(CHECKED // 10, self.batch)
        finely = {"method": "dop853", "rtol": 1e-13, "max_step": float(np.diff(self.times).max())}
        weights = pydln.Weights([w[:count] for w in self.start])
        task = pydln.Task.from_covariances(None, self.target, np.sum(self.target**2))
        return pydln.gradient_flow(task, weights, self.times, record="product", **finely).product


def _cases(batch: int, networks: int) -> dict[str, Case]:
    times = np.linspace(0.0, 10.0, 64)
    few = np.linspace(0.0, 10.0, 11)
    modes = (Modes(name=f"M2 depth {d}", depth=d, batch=batch, levels=(1e-6, 1e-9), times=times) for d in (2, 5, 10))
    whole = (
        Networks(name=f"M3 {n}x{n} depth {d}", width=n, depth=d, batch=networks, levels=(1e-6,), times=few)
        for n, d in ((8, 3), (16, 5))
    )
    return {case.name: case for case in (*modes, *whole)}


CASES = _cases(100_000, 1000)
SMALL = _cases(19, 3)
"""The same with a few trajectories each, that take no time."""
