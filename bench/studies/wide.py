"""P3: wide hidden layers between thin ends: 64 networks 16-1024-…-16, orthogonal starts, 2000 steps, depth 2 and 5.

What is measured is what exact algebra saves: the same call with ``reduce="none"`` and with ``reduce="auto"``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from workloads import specification

import pydln
from studies import peers
from studies.study import EVERY, Case, Program, main


@dataclass(frozen=True, kw_only=True)
class Wide(Case):
    """One whitened task, orthogonal layers of gain one half."""

    @cached_property
    def sigma_yx(self) -> np.ndarray:
        """(n_D, n_0), strengths from 2 to 0.5."""
        rng = np.random.default_rng(1)
        n = self.widths[0]
        u, v = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
        return (u * np.linspace(2.0, 0.5, n)) @ v.T

    @cached_property
    def start(self) -> pydln.Weights:
        """Members 0, 1, … of one ensemble: all are alike here, and these have the same bits in every part."""
        return pydln.init.orthogonal(self.widths, batch=self.members, scale=0.5, seed=2)

    def small(self) -> Self:
        hidden = (40,) * (len(self.widths) - 2)
        return replace(super().small(), widths=(self.widths[0], *hidden, self.widths[-1]))

    def prepare(self) -> None:
        _ = self.sigma_yx, self.start

    def expected(self) -> np.ndarray:
        u, _, vt = np.linalg.svd(self.sigma_yx)
        figures = []
        for member in range(self.members):
            run = specification().descent(
                [w[member] for w in self.start.layers],
                sigma_xx=np.eye(self.widths[0]),
                sigma_yx=self.sigma_yx,
                trace_yy=np.sum(self.sigma_yx**2),
                U=u,
                V=vt.T,
                lr=self.lr,
                steps=self.steps,
                at=range(0, self.steps + 1, EVERY),
            )
            figures.append(np.column_stack([run.records["loss"], run.records["strengths"]]))
        return np.stack(figures)


def _with_pydln(reduce):
    def run(case):
        task = pydln.Task.from_covariances(None, case.sigma_yx, np.sum(case.sigma_yx**2))
        # The full weights at the end count too.
        found = pydln.gradient_descent(
            task,
            case.start,
            lr=case.lr,
            steps=case.steps,
            record_every=EVERY,
            record=("loss", "product"),
            n_threads=1,
            reduce=reduce,
        )
        return _figure(case, found.loss, found.product)

    return run


def _figure(case, losses, products):
    """Losses, and strengths of the modes."""
    u, _, vt = np.linalg.svd(case.sigma_yx)
    return np.concatenate([losses[..., None], np.einsum("ji,...jk,ik->...i", u, products, vt)], axis=-1)


def _batched(descend):
    def run(case):
        targets = np.broadcast_to(case.sigma_yx, (case.members, *case.sigma_yx.shape)).copy()

        def look_at(_):
            return lambda layers, omega: _figure(case, 0.5 * np.sum((case.sigma_yx - omega) ** 2, axis=(1, 2)), omega)

        return peers.in_blocks(descend, 1, list(case.start.layers), targets, case.lr, case.steps, look_at)

    return run


def _wide(name, depth):
    widths = (16, *(1024,) * (depth - 1), 16)
    return Wide(study="wide", name=name, widths=widths, all_members=64, all_steps=2000, lr=0.02)


CASES = {"P3 depth 2": _wide("P3 depth 2", 2), "P3 depth 5": _wide("P3 depth 5", 5)}


def _part(shallow, deep):
    return {"P3 depth 2": shallow, "P3 depth 5": deep}


PROGRAMS = {
    "pydln": Program('pydln, reduce="auto"', _with_pydln("auto"), _part(6.4e4, 8e3), "pydln", "reduce"),
    "pydln-none": Program('pydln, reduce="none"', _with_pydln("none"), _part(1e4, 60), "pydln", "reduce"),
    "numpy": Program("NumPy, a loop over networks", _batched(peers.with_numpy), _part(1e4, 60)),
    "torch": Program("PyTorch, in place, a loop over networks", _batched(peers.with_torch), _part(1e4, 60), "torch"),
}

if __name__ == "__main__":
    main(sys.modules[__name__])
