"""The kernel that looks balanced modes up, against high-precision arithmetic; bits; which modes it takes."""

from __future__ import annotations

import functools
import math
import os
import signal
import threading

import mpmath as mp
import numpy as np
import pytest

from pydln import _backend
from pydln.exact import balanced_mode
from pydln.exact.balanced_mode import balanced_mode_and_gap
from pydln.exact.mode_legs import Depth
from pydln.exact.mode_table import DEGREE, table

DEPTHS = [1.5, 2.0, 2.0001, 2.5, 3.0, 4.0, 5.0, 10.0, 30.0, math.inf]
STARTS = {
    "below": ["1e-300", "1e-80", "1e-20", "1e-8", "3e-4", "0.02", "0.3", "0.49999", "0.5", "0.7", "0.999"],
    "above": ["1e6", "300", "3", "2.00001", "2", "1.3", "1.001"],
    "across": ["-1e6", "-300", "-3", "-1.00001", "-1", "-0.3", "-1e-4", "-1e-20"],
}
TARGETS = (1.0, 0.37, 4.25)
every_isa = pytest.mark.parametrize("isa", _backend.available_isas())


def primitive(v, depth):
    """∫ dv / (|v|^p (1 - v)), from the fixed point that a course starts at or comes from."""
    beta = mp.mpf(0) if math.isinf(depth) else 2 / mp.mpf(depth)
    p = 2 - beta
    if 0 < v < 1:
        if beta == 1:
            return mp.log(v / (1 - v))
        if beta == 0:
            return mp.log(v / (1 - v)) - 1 / v
        return v ** (beta - 1) / (beta - 1) * mp.hyp2f1(1, beta - 1, beta, v)
    if v > 1:
        return v**-p / p * mp.hyp2f1(1, p, 1 + p, 1 / v)
    z = 1 / (1 - v)
    return z**p / p * mp.hyp2f1(p, p, 1 + p, z)


def passed(course, v0):
    """Values of v that the course from v0 passes: just after the start, through the middle, to the end."""
    yield v0
    gap = 1 - v0
    near = [mp.mpf(x) for x in ("1e-9", "1e-3", "0.3")]
    if course == "below":
        yield from (v0 + (mp.mpf("0.5") - v0) * x for x in near if v0 < 0.5)
        yield from (v0 * x for x in (1 + mp.mpf("1e-6"), mp.mpf("1.5"), 10, 1e6) if v0 * x < 0.9)
    else:
        yield from (v0 - v0 * x / 4 if course == "across" else 1 - gap * (1 - x) for x in near)
    ends = [mp.mpf(x) for x in ("0.999", "0.6", "0.5", "0.3", "0.07", "1e-3", "1e-7", "1e-12", "1e-40", "1e-150")]
    if course == "across":
        yield from (v0 * x for x in ends)
    else:
        yield from (1 - gap * x for x in ends)


@functools.cache
def expected(course, depth):
    """u0, s, t, u, s - u, and how strongly both depend on t, in floats and in high precision."""
    found = []
    rate, power = (1.0, 2.0) if math.isinf(depth) else (depth, 2 - 2 / mp.mpf(depth))
    with mp.workdps(60):
        for number, text in enumerate(STARTS[course]):
            s = TARGETS[number % len(TARGETS)] * (-1 if course == "across" else 1)
            u0 = float(mp.mpf(text) * s)
            v0 = mp.mpf(u0) / mp.mpf(s)
            scale = rate * abs(mp.mpf(s)) ** power
            for ahead in range(PASSED):
                # Digits of 1 - v next to the target, and across zero, where it is next to one.
                with mp.workdps(220 if ahead > PASSED - 3 or course == "across" else 80):
                    v = passed(course, v0)[ahead]
                    exact = (primitive(v, depth) - primitive(v0, depth)) / scale
                    if exact > 1e300:
                        continue
                    t = float(exact)
                    slope = rate * abs(mp.mpf(s) * v) ** power * (mp.mpf(s) * (1 - v))
                    move = slope * (t - exact)
                    # Next to a fixed point of the power, time moves v by more than a line says: leave those out.
                    if abs(move) > 1e-7 * min(abs(v), abs(1 - v)) * abs(s):
                        continue
                    u, gap = mp.mpf(s) * v + move, mp.mpf(s) * (1 - v) - move
                    found.append((u0, s, t, u, gap, abs(slope * t / u), abs(slope * t / gap)))
    return found


def relative(got, want):
    return np.array([float(abs((mp.mpf(float(g)) - w) / w)) for g, w in zip(got, want, strict=True)])


@every_isa
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("course", STARTS)
def test_against_high_precision(course, depth, isa):
    if depth < 2 and course == "across":
        pytest.skip("zero is reached in a finite time: test_exact_modes.py")
    cases = expected(course, depth)
    assert len(cases) > 40
    u0, s, t = (np.array([case[k] for case in cases]) for k in range(3))
    with _backend.forced(isa=isa):
        u, gap = balanced_mode_and_gap(u0, s, t, depth)
        mirrored = balanced_mode(-u0, -s, t, depth=depth)
        np.testing.assert_array_equal(balanced_mode(u0, s, t, depth=depth), u)
    np.testing.assert_array_equal(mirrored, -u)
    # Conditioning: the relative change of u and of s - u for a relative change of t.
    for got, want, condition in ((u, 3, 5), (gap, 4, 6)):
        error = relative(got, [case[want] for case in cases])
        strength = np.array([float(case[condition]) for case in cases])
        worst = (error / (1 + strength)).max()
        assert worst <= 4e-15
        assert error[strength < 20].max() <= 1e-13
