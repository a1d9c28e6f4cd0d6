"""Singular values of many Gaussian matrices at once, without vectors."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from studies.study import Program, main

CHECKED = 6
BLOCK = 2**21  # bytes of matrices that are handed over together: they stay in a cache


@dataclass(frozen=True, kw_only=True)
class Matrices:
    """`members` matrices rows × cols, entries N(0, 1)."""

    rows: int
    cols: int
    study: str = "singular_values"
    all_steps: int = 1
    members: int = 0
    steps: int = 1

    step_flops = 1.0  # a matrix: what is counted are matrices

    @property
    def name(self):
        return f"{self.rows}×{self.cols}"

    @property
    def all_members(self):
        return max(64, 2**26 // (self.rows * self.cols))

    def for_worker(self):
        return {"study": self.study, "case": self.name}

    def sized(self, members, steps):
        return replace(self, members=members, steps=steps)

    def small(self):
        return self.sized(CHECKED, 1)

    def prepare(self):
        assert len(self.matrices) == self.block

    @property
    def block(self):
        return min(self.members, max(64, BLOCK // (8 * self.rows * self.cols)))

    @cached_property
    def matrices(self):
        return np.random.default_rng(4).normal(size=(self.block, self.rows, self.cols))

    def expected(self):
        """At 30 digits."""
        import mpmath as mp

        with mp.workdps(30):
            return np.array(
                [[float(x) for x in mp.svd_r(mp.matrix(a.tolist()), compute_uv=False)] for a in self.matrices]
            )


@dataclass(frozen=True)
class Method(Program):
    """`part` counts matrices."""

    def timed_part(self, case, fraction=None):
        members = self.part[case.name] if fraction is None else max(1, round(fraction * case.all_members))
        return case.sized(members, 1)


def _in_blocks(solve):
    """The same block as often as there are matrices for it."""

    def run(case):
        found = None
        for _ in range(-(-case.members // case.block)):
            found = solve(case.matrices)
        return np.asarray(found)

    return run


def with_pydln(matrices):
    from pydln.spectra import singular_values

    return singular_values(matrices, n_threads=1)


def with_numpy(matrices):
    return np.linalg.svd(matrices, compute_uv=False)


def with_torch(matrices):
    import torch

    return torch.linalg.svdvals(torch.from_numpy(matrices)).numpy()


def with_jax(matrices):
    import jax

    jax.config.update("jax_enable_x64", True)
    global _compiled
    if _compiled is None:
        _compiled = jax.jit(lambda x: jax.numpy.linalg.svd(x, compute_uv=False))
    return _compiled(matrices).block_until_ready()


_compiled = None
CASES = {one.name: one for one in (*(Matrices(rows=n, cols=n) for n in (4, 8, 16, 32, 64)), Matrices(rows=96, cols=24))}
PART = {name: max(64, 2**22 // (one.rows * one.cols)) for name, one in CASES.items()}
PROGRAMS = {
    "pydln": Method("pydln", _in_blocks(with_pydln), PART, needs="pydln"),
    "numpy": Method("NumPy svd", _in_blocks(with_numpy), PART),
    "torch": Method("PyTorch svdvals", _in_blocks(with_torch), PART, needs="torch"),
    "jax": Method("JAX svd", _in_blocks(with_jax), PART, needs="jax"),
}

if __name__ == "__main__":
    main(sys.modules[__name__])
