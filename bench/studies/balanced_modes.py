"""M1: a million balanced modes du/dt = D u^(2-2/D) (s - u), each at 64 times: looked up, and integrated."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from studies.study import Program, main

TIMES = 64
BLOCK = 2**14  # modes, of which the results are 8 MB
CHECKED = 8


@dataclass(frozen=True, kw_only=True)
class Modes:
    """`members` of the million modes; targets from 1 to 2, starts from 1e-3 to 0.1 of them.

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
        return np.random.default_rng(5).uniform(1, 2, self.all_members)[: self.members]

    @cached_property
    def u0(self):
        return self.s * 10 ** np.random.default_rng(6).uniform(-3, -1, self.all_members)[: self.members]

    @cached_property
    def t(self):
        from pydln.exact import time_to_reach

        return np.linspace(0, float(time_to_reach(1e-3, 0.99, 1.0, depth=self.depth)), TIMES)

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
    """Its error is relative to every number, not to the largest; `part` counts modes."""

    def timed_part(self, case, fraction=None):
        members = self.part[case.name] if fraction is None else max(1, round(fraction * case.all_members))
        return case.sized(min(members, case.all_members), TIMES)

    def error(self, case):
        small = case.small()
        right = small.expected()
        found = self.run(small)
        return max(float(abs(x / y - 1)) for x, y in zip(found.flat, right.flat, strict=True))


def _in_blocks(solver):
    """Block after block, of which the last is returned: all of them in one array would measure the system's memory."""

    def run(case):
        solve = solver(case)
        found = None
        for first in range(0, case.members, BLOCK):
            found = solve(case.u0[first : first + BLOCK], case.s[first : first + BLOCK])
        return found

    return run


def with_pydln(case):
    from pydln.exact import balanced_mode

    return lambda u0, s: balanced_mode(u0[:, None], s[:, None], case.t, depth=case.depth)


def with_heyoka(tolerance):
    """Taylor's method on a = u^(1/D), da/dt = a^(D-1) (s - a^D), as many modes at a time as its vectors hold.

    a has no power that is not whole, and is faster and as exact.
    """
    compiled = {}

    def solver(case):
        import heyoka

        lanes = heyoka.recommended_simd_size()
        if case.depth not in compiled:
            a, s = heyoka.make_vars("a"), heyoka.par[0]
            most = a ** (case.depth - 1) if case.depth > 2 else a
            compiled[case.depth] = heyoka.taylor_adaptive_batch(
                [(a, most * (s - most * a))], np.ones((1, lanes)), pars=np.ones((1, lanes)), tol=tolerance
            )
        steps = compiled[case.depth]
        grid = np.repeat(case.t[:, None], lanes, axis=1)

        def solve(u0, s):
            start = u0 ** (1 / case.depth)
            found = np.empty((len(u0), TIMES))
            for first in range(0, len(u0), lanes):
                modes = np.arange(first, first + lanes).clip(max=len(u0) - 1)  # the last vector is filled up
                steps.set_time(0.0)
                steps.state[0], steps.pars[0] = start[modes], s[modes]
                found[modes] = steps.propagate_grid(grid)[1][:, 0].T
            return found**case.depth

        return solve

    return solver


CASES = {case.name: case for case in (Modes(depth=depth) for depth in (2, 3, 5, 10))}


def _part(modes):
    return dict.fromkeys(CASES, modes)


PROGRAMS = {
    "pydln": Method("pydln", _in_blocks(with_pydln), _part(10**6), needs="pydln"),
    "heyoka-fine": Method("heyoka, tolerance 1e-16", _in_blocks(with_heyoka(1e-16)), _part(50_000), needs="heyoka"),
    "heyoka-coarse": Method("heyoka, tolerance 1e-12", _in_blocks(with_heyoka(1e-12)), _part(50_000), needs="heyoka"),
}

if __name__ == "__main__":
    main(sys.modules[__name__])
