"""heyoka: Taylor's method, as many trajectories at a time as its vectors hold, each in its own steps."""

from __future__ import annotations

from itertools import accumulate
from operator import mul

import numpy as np

LABEL = "heyoka"


def prepare(case, method, rtol):
    import heyoka

    a = heyoka.make_vars(*(f"a{layer}" for layer in range(case.depth)))
    below = list(accumulate(a[:-1], mul))
    above = list(accumulate(a[:0:-1], mul))[::-1]
    error = heyoka.par[0] - below[-1] * a[-1]
    others = [above[0], *(p * q for p, q in zip(below, above[1:], strict=False)), below[-1]]
    lanes = heyoka.recommended_simd_size()
    solver = heyoka.taylor_adaptive_batch(
        [(x, rest * error) for x, rest in zip(a, others, strict=True)],
        np.ones((case.depth, lanes)),
        pars=np.ones((1, lanes)),
        tol=rtol,
    )
    grid = np.repeat(case.times[:, None], lanes, axis=1)

    def run(count):
        u = np.empty((count, len(case.times)))
        for first in range(0, count, lanes):
            members = np.arange(first, first + lanes).clip(max=count - 1)  # the last vector is filled up
            solver.set_time(0.0)
            solver.state[:] = case.start[members].T
            solver.pars[:] = case.s[members]
            found = solver.propagate_grid(grid)[1]
            u[members] = found.prod(axis=1).T
        return u

    return run
