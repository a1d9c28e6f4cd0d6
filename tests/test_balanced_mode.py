"""The kernel that looks balanced modes up, against high-precision arithmetic; bits; which modes it takes."""

from __future__ import annotations

import functools
import math
import signal

import mpmath as mp
import numpy as np
import pytest

from pydln._base import backend
from pydln.exact import balanced_mode
from pydln.exact.balanced_mode import _block, balanced_mode_and_gap
from pydln.exact.mode_legs import Depth
from pydln.exact.mode_table import SMALLEST, table

DEPTHS = [1.5, 2.0, 2.0001, 2.5, 3.0, 4.0, 5.0, 10.0, 30.0, math.inf]
STARTS = {
    "below": [
        "1e-300",
        "1e-80",
        "1e-20",
        "1e-8",
        "3e-4",
        "0.02",
        "0.3",
        "0.49999",
        "0.5",
        "0.7",
        "0.999",
        "0.999999999999",
    ],
    "above": ["1e6", "300", "3", "2.00001", "2", "1.3", "1.001", "1.000000000001"],
    "across": ["-1e6", "-300", "-3", "-1.00001", "-1", "-0.3", "-1e-4", "-1e-20"],
}
TARGETS = (1.0, 0.37, 4.25)
every_isa = pytest.mark.parametrize("isa", backend.available_isas())


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
    if beta == 0:
        return 1 / (1 - z) + mp.log(1 - z) - 1
    return z**p / p * mp.hyp2f1(p, p, 1 + p, z)


NEAR = ("1e-9", "1e-3", "0.3")
FAR = ("0.999", "0.6", "0.5", "0.3", "0.07", "1e-3", "1e-7", "1e-12", "1e-40", "1e-150")


def passed(course, v0):
    """Values of v that the course from v0 passes: just after the start, through the middle, to the end."""
    near, far = ([mp.mpf(x) for x in texts] for texts in (NEAR, FAR))
    if course == "across":
        return [v0 * (1 - x / 4) for x in near] + [v0 * x for x in far]
    found = [1 - (1 - v0) * x for x in [*(1 - x for x in near), *far]]
    if course == "below" and v0 < 0.01:
        found[:0] = [v0 * x for x in (1 + mp.mpf("1e-6"), mp.mpf("1.5"), 10, mp.mpf("0.3") / v0)]
    return found


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
            for ahead in range(len(passed(course, v0))):
                # Digits of 1 - v next to the target, and of v across zero, where 1 - v is next to one.
                with mp.workdps(220 if ahead > len(NEAR) + len(FAR) - 3 or course == "across" else 80):
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
    with backend.forced(isa=isa):
        u, gap = balanced_mode_and_gap(u0, s, t, depth)
        mirrored = balanced_mode(-u0, -s, t, depth=depth)
        np.testing.assert_array_equal(balanced_mode(u0, s, t, depth=depth), u)
    np.testing.assert_array_equal(mirrored, -u)
    # Conditioning: the relative change of u and of s - u for a relative change of t.
    for got, want, condition in ((u, 3, 5), (gap, 4, 6)):
        error = relative(got, [case[want] for case in cases])
        strength = np.array([float(case[condition]) for case in cases])
        # Below depth two u0 e^x has the rounding of x, up to 690.
        assert (error / (1 + strength)).max() <= (4e-15 if depth >= 2 else 4e-14)
        assert error[strength < 20].max() <= 1e-13


def some(n, seed=0, *, courses=("below", "above", "across", "tiny", "far", "zero")):
    """n modes of every kind, and times of n modes from before to after they move."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(courses, n)
    v = np.select(
        [kind == k for k in ("below", "above", "across", "tiny", "far")],
        [10 ** rng.uniform(-6, 0, n), 10 ** rng.uniform(0, 4, n), -(10 ** rng.uniform(-6, 4, n)), 1e-306, 1e9],
        np.inf,
    )
    s = np.where(kind == "zero", 0.0, rng.choice([-1, 1], n) * 10 ** rng.uniform(-1, 1, n))
    u0 = np.where(kind == "zero", rng.uniform(-2, 2, n), v * np.where(s == 0, 1.0, s))
    return u0, s, 10 ** rng.uniform(-4, 2.5, n)


def bits(*arrays):
    return [np.ascontiguousarray(a).view(np.int64) for a in arrays]


def same(got, want):
    for a, b in zip(bits(*got), bits(*want), strict=True):
        np.testing.assert_array_equal(a, b)


@every_isa
@pytest.mark.parametrize("depth", [2, 3, 7.5, math.inf])
def test_bits_do_not_depend_on_the_others(depth, isa, monkeypatch):
    """Nor on threads, nor on the shape in which they are asked for."""
    u0, s, t = some(41)
    with backend.forced(isa=isa):
        grid = balanced_mode_and_gap(u0[:, None], s[:, None], t, depth)
        assert np.isfinite(grid).all()
        for i, k in np.random.default_rng(1).integers(0, 41, (60, 2)):
            same((g[i, k] for g in grid), balanced_mode_and_gap(u0[i], s[i], t[k], depth))
        for n in range(1, 18):  # a remainder of every length, of modes and of times
            same((g[:n] for g in grid), balanced_mode_and_gap(u0[:n, None], s[:n, None], t, depth))
            same((g[:, :n] for g in grid), balanced_mode_and_gap(u0[:, None], s[:, None], t[:n], depth))
        same((g.T for g in grid), balanced_mode_and_gap(u0, s, t[:, None], depth))
        same((g[:, ::-1] for g in grid), balanced_mode_and_gap(u0[:, None], s[:, None], t[::-1], depth))
        same((np.diagonal(g) for g in grid), balanced_mode_and_gap(u0, s, t, depth))
        own = np.stack([np.roll(t, k) for k in range(41)])
        at = (np.arange(41)[:, None], np.argsort(t)[np.searchsorted(np.sort(t), own)])
        same((g[at] for g in grid), balanced_mode_and_gap(u0[:, None], s[:, None], own, depth))
        cube = balanced_mode_and_gap(u0[:, None, None], s[:6], t[:, None], depth)
        for i, j, k in np.random.default_rng(2).integers(0, 6, (20, 3)):
            same((c[i, j, k] for c in cube), balanced_mode_and_gap(u0[i], s[k], t[j], depth))
        many = np.geomspace(1e-3, 30, 3000)
        runs = []
        for threads in ("1", "2", "5"):
            monkeypatch.setenv("PYDLN_NUM_THREADS", threads)
            runs.append(balanced_mode_and_gap(u0[:, None], s[:, None], many, depth))
            same(runs[-1], runs[0])
        for i, k in np.random.default_rng(3).integers(0, 41, (40, 2)):
            same((r[i, k] for r in runs[0]), balanced_mode_and_gap(u0[i], s[i], many[k], depth))


def test_sets_with_fused_multiply_adds_agree_in_bits():
    sets = [isa for isa in backend.available_isas() if isa in ("avx2", "avx512")]
    if len(sets) < 2:
        pytest.skip("needs avx2 and avx512")
    u0, s, t = some(300)
    for depth in (2, 3, 10, math.inf):
        runs = []
        for isa in sets:
            with backend.forced(isa=isa):
                runs.append(balanced_mode_and_gap(u0[:, None], s[:, None], t, depth))
        same(*runs)


@every_isa
def test_the_start_is_returned_as_it_is(isa):
    u0, s, _ = some(200)
    with backend.forced(isa=isa):
        for depth in (2, 3, math.inf):
            u, gap = balanced_mode_and_gap(u0[:, None], s[:, None], np.array([0.0, 1.0, 0.0]), depth)
            same((u[:, 0], u[:, 2], gap[:, 0], gap[:, 2]), (u0, u0, s - u0, s - u0))


def careful(u0, s, t, depth):
    """Series and Newton's method, from which the tables are made."""
    return _block(Depth.of(depth), *(np.array(x) for x in np.broadcast_arrays(u0, s, t)))


@pytest.mark.parametrize("depth", [2, 2.3, 3, 5, 40, math.inf])
def test_the_tables_agree_with_what_they_are_made_from(depth):
    u0, s, t = some(4000, 7, courses=("below", "above", "across"))
    for got, want in zip(balanced_mode_and_gap(u0, s, t, depth), careful(u0, s, t, depth), strict=True):
        rate = (1 if math.isinf(depth) else depth) * np.maximum(np.abs(u0), np.abs(s)) ** (2 - 2 / depth) * t
        seen = np.abs(want) > 1e-290
        error = np.abs(got[seen] / want[seen] - 1)
        assert (error / (1 + np.minimum(rate[seen], 800))).max() < 1e-14


@pytest.mark.parametrize("depth", [2, 3, math.inf])
@pytest.mark.parametrize("course", STARTS)
def test_no_jump_where_the_tables_end(course, depth):
    """Starts just inside and just outside of what is tabulated."""
    for edge in table(course, Depth.of(depth)).between:
        if abs(edge) == 1 or edge == 0:
            continue
        inside = edge + (1e-9 if course == "below" else (-1e-9 if abs(edge) > 1 and edge > 0 else 1e-9)) * abs(edge)
        outside = 2 * edge - inside
        s = -1.0 if course == "across" else 1.0
        assert (balanced_mode(inside * s, s, 0.0, depth=depth), abs(edge) >= SMALLEST) == (inside * s, True)
        t = 10.0 ** np.arange(-8, 3)
        near, far = (balanced_mode(v * s, s, t, depth=depth) for v in (inside, outside))
        normal = far > 1e-307
        np.testing.assert_allclose(near[normal], far[normal], rtol=1e-8)


@every_isa
def test_it_never_turns_back(isa):
    """u and s - u are monotone in time to the last digit, across all cells."""
    t = np.concatenate([[0.0], np.geomspace(1e-9, 400, 200_000)])
    with backend.forced(isa=isa):
        for depth in (2, 3, 10):
            for u0, s in ((1e-3, 1.0), (30.0, 1.0), (5.0, -1.0), (-0.2, -2.0)):
                u, gap = balanced_mode_and_gap(np.float64(u0), np.float64(s), t, depth)
                for values in (np.abs(u), np.abs(gap)):
                    values = values[values > 1e-290]
                    moved = np.diff(values) * np.sign(values[-1] - values[0])
                    assert (moved >= -3e-16 * values[1:]).all()


def test_small_and_large_targets_and_late_times():
    for depth in (2, 3, 10, math.inf):
        power = 2 - 2 / depth
        for scale in (1e-60, 1e-5, 1e40):
            want = balanced_mode(0.01, 1.0, 3.0, depth=depth)
            got = balanced_mode(0.01 * scale, scale, 3.0 / scale**power, depth=depth)
            assert got / scale == pytest.approx(want, rel=1e-12)
        u, gap = balanced_mode_and_gap(*np.array([[0.01, 7.0], [1.0, 1.0], [1e308, 1e308]]), depth)
        assert u.tolist() == [1.0, 1.0]
        assert np.abs(gap).tolist() == [0.0, 0.0]
        assert balanced_mode(0.5, -1.0, 1e308, depth=depth) <= 1e-100
    # A power law to the end of the range: du/dt = -u^2 once u is small against s = -1.
    assert balanced_mode(0.5, -1.0, 1e290, depth=math.inf) == pytest.approx(1e-290, rel=1e-12)


def test_empty_and_scalar_shapes():
    assert balanced_mode(np.empty((0, 1)), 1.0, np.zeros(4), depth=3).shape == (0, 4)
    assert balanced_mode(np.full((3, 1), 0.1), 1.0, np.empty(0), depth=3).shape == (3, 0)
    assert balanced_mode(np.full((2, 1, 3), 0.1), np.ones((4, 1)), np.zeros((1, 1, 1)), depth=3).shape == (2, 4, 3)
    assert np.ndim(balanced_mode(0.1, 1.0, 1.0, depth=3)) == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this system")
def test_ctrl_c_ends_a_long_run():
    course = table("below", Depth.of(3)).for_kernel()
    modes, times = 20_000, 2_000
    u0, s, t = np.full(modes, 0.01), np.ones(modes), np.linspace(0, 5, times)
    u = np.full((modes, times), np.nan)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        ended = backend.core.balanced_mode(
            table=course, which=None, u0=u0, s=s, rate=3 * s, t=t, u=u, gap=None, threads=1, isa=backend.isa()
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ended
    assert np.isnan(u[-1, -1])
