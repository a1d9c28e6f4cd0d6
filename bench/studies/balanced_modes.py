"""M1: a million balanced modes du/dt = D u^(2-2/D) (s - u), each at 64 times: looked up, and integrated."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from studies.study import Program, main

TIMES = 64
CHECKED = 8


@dataclass(frozen=True, kw_only=True)
class Modes:
    """`members` of the million modes; targets from 0.5 to 2, starts from 1e-3 to 0.1 of them.

    The times are evenly spaced and the same for all modes; the last has reached 99 % when they end.
    """

    depth: int
    study: str = "balanced_modes"
    all_members: int = 10**6
    all_steps: int = TIMES
    members: int = 0
    steps: int = TIMES

    step_flops = 1.0  # a point: what is counted are points

    @property
    def name(self):
        return f"M1 D = {self.depth}"

    def for_worker(self):
        return {"study": self.study, "case": self.name}

    def sized(self, members, steps):
        return replace(self, members=members, steps=steps)

    def small(self):
        return self.sized(CHECKED, TIMES)

    def prepare(self):
        assert self.t[-1] > 0
        assert len(self.u0) == self.members

    @cached_property
    def s(self):
        return np.random.default_rng(5).uniform(0.5, 2, self.all_members)[: self.members]

    @cached_property
    def u0(self):
        return self.s * 10 ** np.random.default_rng(6).uniform(-3, -1, self.all_members)[: self.members]

    @cached_property
    def t(self):
        from pydln.exact import time_to_reach

        return np.linspace(0, float(time_to_reach(0.5e-3, 0.495, 0.5, depth=self.depth)), TIMES)

    def expected(self):
        """At 80 digits, by Newton's method in ln(v/(1 - v)), v = u/s.

        With y = v^(1/D) and the roots of unity w of order D, s^(2-2/D) t is the growth of
        ∫ y^(1-D) / (1 - y^D) dy = y^(2-D)/(2-D) - 1/D sum w^2 ln(1 - y/w), the first term ln y for D = 2.
        """
        import mpmath as mp

        D = self.depth
        u = np.empty((self.members, TIMES), object)
        with mp.workdps(80):
            power = 2 - 2 / mp.mpf(D)
            roots = [mp.expjpi(2 * mp.mpf(k) / D) for k in range(D)]

            def primitive(v):
                y = mp.root(v, D)
                first = mp.log(y) if D == 2 else y ** (2 - D) / (2 - D)
                return first - mp.re(mp.fsum(w**2 * mp.log(1 - y / w) for w in roots)) / D

            for i, (first, target) in enumerate(zip(self.u0, self.s, strict=True)):
                first, target = mp.mpf(first), mp.mpf(target)
                v = first / target
                begin, x = primitive(v), mp.log(v / (1 - v))
                for k, t in enumerate(self.t):
                    goal = begin + target**power * mp.mpf(t)
                    for _ in range(200):  # from the time before
                        v = 1 / (1 + mp.exp(-x))
                        step = D * (goal - primitive(v)) * v ** (power - 1)
                        x += max(min(step, 2), -2)
                        if abs(step) < mp.mpf(10) ** -25 or x > 100:  # u = s to 43 digits
                            break
                    else:
                        raise RuntimeError(f"mode {i}, time {k}: no convergence")
                    u[i, k] = target / (1 + mp.exp(-x))
        return u


@dataclass(frozen=True)
class Method(Program):
    """Its error is relative to every number, not to the largest."""

    def error(self, case):
        small = case.small()
        right = small.expected()
        found = self.run(small)
        return max(float(abs(x / y - 1)) for x, y in zip(found.flat, right.flat, strict=True))


def with_pydln(case):
    from pydln.exact import balanced_mode

    return balanced_mode(case.u0[:, None], case.s[:, None], case.t, depth=case.depth)


def with_heyoka(tolerance):
    """Taylor's method on a = u^(1/D), da/dt = a^(D-1) (s - a^D), as many modes at a time as its vectors hold.

    a has no power that is not whole, and is faster and as exact.
    """
    compiled = {}

    def run(case):
        import heyoka

        lanes = heyoka.recommended_simd_size()
        if case.depth not in compiled:
            a, s = heyoka.make_vars("a"), heyoka.par[0]
            most = a ** (case.depth - 1) if case.depth > 2 else a
            compiled[case.depth] = heyoka.taylor_adaptive_batch(
                [(a, most * (s - most * a))], np.ones((1, lanes)), pars=np.ones((1, lanes)), tol=tolerance
            )
        solver = compiled[case.depth]
        grid = np.repeat(case.t[:, None], lanes, axis=1)
        start = case.u0 ** (1 / case.depth)
        found = np.empty((case.members, TIMES))
        for first in range(0, case.members, lanes):
            modes = np.arange(first, first + lanes).clip(max=case.members - 1)  # the last vector is filled up
            solver.set_time(0.0)
            solver.state[0], solver.pars[0] = start[modes], case.s[modes]
            found[modes] = solver.propagate_grid(grid)[1][:, 0].T
        return found**case.depth

    return run


CASES = {case.name: case for case in (Modes(depth=depth) for depth in (2, 3, 5, 10))}


def _part(members):
    return dict.fromkeys(CASES, members * TIMES)


PROGRAMS = {
    "pydln": Method("pydln", with_pydln, _part(10**6), needs="pydln"),
    "heyoka-fine": Method("heyoka, tolerance 1e-16", with_heyoka(1e-16), _part(8e4), needs="heyoka"),
    "heyoka-coarse": Method("heyoka, tolerance 1e-12", with_heyoka(1e-12), _part(8e4), needs="heyoka"),
}

if __name__ == "__main__":
    main(sys.modules[__name__])
