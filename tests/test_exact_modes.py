"""The scalar closed forms against high-precision arithmetic, numerical integration and their own theorems."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import wrightomega

from pydln.exact import balanced_mode, scalar_mode, time_to_reach
from pydln.exact.balanced_mode import balanced_mode_and_gap
from pydln.exact.two_layer_mode import two_layer_mode

DEPTHS = [1.0, 1.3, 2.0, 2.0001, 2.5, 3.0, 4.0, 10.0, 100.0, math.inf]


def relative(got, want):
    return float(abs((mp.mpf(float(got)) - want) / want))


def precise_mode(a0, b0, s, t):
    """(a, b, s - ab) from the linear flow e^{Ft}(a0, b0) and its integral, at 60 digits more than e^{kappa t} takes."""
    a0, b0, s, t = (mp.mpf(float(x)) for x in (a0, b0, s, t))
    half = (b0**2 - a0**2) / 2
    kappa = mp.sqrt(s**2 + half**2)
    mp.mp.dps = 80 + int(2 * kappa * t) // 2 + int(-2 * mp.log10(min(abs(x) for x in (a0, b0, mp.mpf(1)) if x)))
    half = (b0**2 - a0**2) / 2
    kappa = mp.sqrt(s**2 + half**2)
    ch, sh = mp.cosh(kappa * t), mp.sinh(kappa * t) / kappa
    x, y = a0 * ch + sh * (-half * a0 + s * b0), b0 * ch + sh * (half * b0 + s * a0)
    # Integral of x^2 + y^2 by expanding the squares: cosh^2, cosh sinh and sinh^2 integrate in closed form.
    c2 = t / 2 + mp.sinh(2 * kappa * t) / (4 * kappa)
    s2 = (mp.sinh(2 * kappa * t) / (4 * kappa) - t / 2) / kappa**2
    cs = mp.sinh(kappa * t) ** 2 / (2 * kappa**2)
    p, q = -half * a0 + s * b0, half * b0 + s * a0
    norm = 1 + (a0**2 + b0**2) * c2 + 2 * (a0 * p + b0 * q) * cs + (p**2 + q**2) * s2
    a, b = x / mp.sqrt(norm), y / mp.sqrt(norm)
    return a, b, s - a * b


SCALAR_CASES = [
    (0.1, 0.1, 1.0),
    (0.3, -0.2, 1.0),
    (0.0, 0.4, 1.5),
    (0.4, 0.0, 1.5),
    (1e-3, 2.0, 0.7),
    (3.0, 1e-6, 0.7),
    (2.0, 3.0, 1.0),
    (0.5, 0.5, -1.0),
    (0.5, 0.2, 0.0),
    (1e-20, 2e-20, 1.0),
    (1e-8, 1.0, 1e-3),
    (0.7, -0.7 + 1e-9, 1.0),
    (-0.7, -0.1, 2.0),
    (30.0, 0.1, 1.0),
]


@pytest.mark.parametrize(("a0", "b0", "s"), SCALAR_CASES)
def test_scalar_mode_against_high_precision(a0, b0, s):
    for t in (0.0, 1e-12, 1e-3, 0.1, 0.77, 3.0, 12.0, 40.0, 100.0):
        if math.hypot(s, (b0**2 - a0**2) / 2) * t > 2000:  # more digits than is worth waiting for
            continue
        with mp.workdps(80):
            want = precise_mode(a0, b0, s, t)
            got = two_layer_mode(*(np.float64(x) for x in (a0, b0, s, t)))
            # e^{kappa t} turns a rounding of its exponent into kappa t roundings, until the mode settles.
            bound = 2e-15 * (2 + min(math.hypot(s, (b0**2 - a0**2) / 2) * t, 60))
            size = max(abs(want[0]), abs(want[1]))
            for x, y in zip(got[:2], want[:2], strict=True):
                if y == 0:
                    assert x == 0
                elif a0 * b0 * s < 0:  # a strength may pass zero: measured by the other one
                    assert abs(float(x) - y) <= bound * size
                else:
                    assert relative(x, y) <= bound
            if want[2] != 0 and abs(want[2]) > mp.mpf(10) ** -300:
                assert relative(got.gap, want[2]) <= 20 * bound


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.floats(-3, 3).filter(lambda x: abs(x) > 1e-6)] * 2),
    st.floats(-4, 4),
    st.floats(0, 4),
    st.floats(0, 4),
)
def test_scalar_mode_composes_and_conserves(start, s, t1, t2):
    a, b = scalar_mode(*start, s, t1 + t2)
    again = scalar_mode(*scalar_mode(*start, s, t1), s, t2)
    # Two trajectories part like e^{kappa t} near the saddle.
    rate = math.hypot(s, start[0] ** 2 - start[1] ** 2)
    np.testing.assert_allclose((a, b), again, rtol=0, atol=1e-13 * math.exp(min(rate * (t1 + t2), 30)))
    invariant = start[0] ** 2 - start[1] ** 2
    assert abs(a**2 - b**2 - invariant) <= 1e-13 * (1 + start[0] ** 2 + start[1] ** 2 + a**2 + b**2)


@pytest.mark.parametrize(("a0", "b0", "s"), SCALAR_CASES)
def test_scalar_mode_against_an_integrator(a0, b0, s):
    t = np.linspace(0, 8, 9)
    run = solve_ivp(
        lambda _, y: (y[1] * (s - y[0] * y[1]), y[0] * (s - y[0] * y[1])),
        (0, 8),
        (a0, b0),
        method="DOP853",
        rtol=1e-12,
        atol=1e-15 * max(a0**2 + b0**2, 1e-20),
        t_eval=t,
    )
    scale = np.abs(run.y).max(axis=0)
    # The start 1e-9 off the stable manifold leaves it as fast as the integrator's own errors do.
    rtol = 1e-3 if abs(a0 + b0) < 1e-6 < abs(a0) else 1e-9
    assert (np.abs(np.stack(scalar_mode(a0, b0, s, t)) - run.y) <= rtol * scale).all()


def test_scalar_mode_limits():
    a, b = scalar_mode(0.8, -0.8, 2.0, [0.0, 1.0, 50.0, 300.0, 1e6])
    np.testing.assert_allclose(a, -b, rtol=3e-16)
    # On the stable manifold a' = -a(s + a^2).
    want = [0.8 * math.exp(-2 * t) / math.sqrt(1 + 0.32 * -math.expm1(-4 * t)) for t in (0.0, 1.0, 50.0, 300.0)]
    np.testing.assert_allclose(a[:4], want, rtol=1e-13)
    assert a[4] == 0
    a, b = scalar_mode([1e-300, 1e-150, 0.0, 3.0, 0.0], [1e-300, 0.0, 0.0, 2.0, 5.0], [1.0, 1.0, 1.0, 0.0, -1.0], 1e6)
    np.testing.assert_allclose(a * b, [1.0, 1.0, 0.0, 0.0, -1.0], atol=1e-15)
    np.testing.assert_allclose(a[3], math.sqrt(5), rtol=1e-15)  # a^2 - b^2 is kept
    np.testing.assert_array_max_ulp(
        np.array(scalar_mode(0.3, 0.3, 0.0, 2.0)), np.full(2, 0.3 / np.sqrt(1 + 2 * 0.09 * 2.0)), 1
    )
    lazy_a, lazy_b = scalar_mode(0.0, 1e4, 1.0, 3e-8)
    np.testing.assert_allclose(lazy_a * lazy_b, -math.expm1(-1e8 * 3e-8), rtol=1e-7)


def test_scalar_mode_escape_from_tiny_starts():
    # Until it saturates an unbalanced start grows as (a + b)/2 e^{st}.
    a, b = scalar_mode(3e-300, 1e-300, 1.0, 650.0)
    assert relative(a, 2 * mp.e ** mp.mpf(650) * mp.mpf("1e-300")) < 1e-12
    assert b == pytest.approx(a, rel=1e-15)


@pytest.mark.parametrize("sign", [1, -1])
def test_scalar_mode_symmetries(sign):
    a, b = scalar_mode(0.3, sign * 0.5, 1.2, 1.7)
    np.testing.assert_array_equal(scalar_mode(-0.3, -sign * 0.5, 1.2, 1.7), (-a, -b))
    np.testing.assert_array_equal(scalar_mode(0.3, -sign * 0.5, -1.2, 1.7), (a, -b))
    np.testing.assert_allclose(scalar_mode(sign * 0.5, 0.3, 1.2, 1.7), (b, a), rtol=1e-15)
    np.testing.assert_allclose(
        scalar_mode(0.3 * 3, sign * 0.5 * 3, 1.2 * 9, 1.7 / 9), (3 * a, 3 * b), rtol=1e-14
    )  # time scales as 1/s


def precise_time(u0, u, s, depth):
    """∫ du/(D u^p (s - u)) at 40 digits, in ln u away from the target and ln|s - u| near it."""
    u0, u, s = mp.mpf(u0), mp.mpf(u), mp.mpf(s)
    beta = mp.mpf(0) if math.isinf(depth) else 2 / mp.mpf(depth)
    rate = mp.mpf(1) if math.isinf(depth) else mp.mpf(depth)

    def integral(f, low, high):
        return mp.quad(f, mp.linspace(low, high, 2 + int(high - low)))

    def slow(x):
        return 1 / (rate * mp.e ** ((1 - beta) * x) * abs(s - mp.e**x))

    if not 0 < u0 < s:
        if s <= 0:
            return integral(slow, mp.log(u), mp.log(u0))
        return integral(lambda y: 1 / (rate * (s + mp.e**y) ** (2 - beta)), mp.log(u - s), mp.log(u0 - s))
    middle = max(u0, min(u, s / 2))
    total = integral(slow, mp.log(u0), mp.log(middle)) if middle > u0 else mp.mpf(0)
    if u > middle:
        total += integral(lambda y: 1 / (rate * (s - mp.e**y) ** (2 - beta)), mp.log(s - u), mp.log(s - middle))
    return total


BRANCHES = {
    "below": [(1e-4, 0.1, 1.0), (0.02, 2.1, 2.3), (0.3, 0.699999, 0.7), (0.6, 0.65, 1.0), (1.9999, 1.99999, 2.0)],
    "above": [(1.3, 1.2, 1.0), (40.0, 1.001, 1.0), (1e6, 5.0, 0.3), (1.0001, 1.00001, 1.0)],
    "target beyond zero": [(2.0, 0.3, -1.0), (0.4, 0.39, -1.0), (0.2, 1e-4, -3.0), (1e5, 10.0, -0.5)],
    "target zero": [(2.0, 0.3, 0.0), (0.1, 0.01, 0.0)],
}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("branch", BRANCHES)
def test_balanced_mode_against_high_precision(branch, depth):
    power, rate = (2.0, 1.0) if math.isinf(depth) else (2 - 2 / depth, depth)
    for u0, u, s in BRANCHES[branch]:
        with mp.workdps(40):
            exact_time = precise_time(u0, u, s, depth)
            assert relative(time_to_reach(u0, u, s, depth=depth), exact_time) <= 1e-14
            # The float nearest to that time is a little off; u there follows from the slope.
            t = float(exact_time)
            there = mp.mpf(u) + rate * mp.mpf(u) ** mp.mpf(power) * (mp.mpf(s) - u) * (t - exact_time)
            got, gap = (x[0] for x in balanced_mode_and_gap(*np.array([[u0], [s], [t]]), depth))
            # Conditioning: the relative change of u and of s - u for a relative change of t.
            assert relative(got, there) <= 3e-15 * (1 + abs(rate * u ** (power - 1) * (s - u)) * t)
            assert relative(gap, mp.mpf(s) - there) <= 3e-15 * (1 + rate * u**power * t + abs(u / (s - u)) * (s <= 0))
            assert balanced_mode(u0, s, t, depth=depth) == got
            assert balanced_mode(-u0, -s, t, depth=depth) == -got


@pytest.mark.parametrize("depth", [2.5, 3, 4, 5, 10])
def test_time_agrees_with_the_hypergeometric_formula(depth):
    def primitive(u, s):
        first = mp.hyp2f1(1, 2 / mp.mpf(depth), 1 + 2 / mp.mpf(depth), u / s) * u ** (2 / mp.mpf(depth)) / (2 * s)
        return (first - u ** (-(depth - 2) / mp.mpf(depth)) / (depth - 2)) / s

    with mp.workdps(40):
        for u0, u, s in BRANCHES["below"]:
            want = primitive(mp.mpf(u), mp.mpf(s)) - primitive(mp.mpf(u0), mp.mpf(s))
            assert relative(time_to_reach(u0, u, s, depth=depth), want) < 1e-14


def test_depth_four_in_elementary_functions():
    def primitive(u, s):
        return np.arctanh(np.sqrt(u / s)) / (2 * s**1.5) - 1 / (2 * s * np.sqrt(u))

    assert time_to_reach(0.01, 1.7, 2.0, depth=4) == pytest.approx(
        primitive(1.7, 2.0) - primitive(0.01, 2.0), rel=1e-13
    )


def test_infinite_depth_is_the_limit_and_the_wright_function():
    t = np.linspace(0, 60, 7)
    x0 = 1.5 / 0.05 - 1
    want = 1.5 / (1 + wrightomega(np.log(x0) + x0 - 1.5**2 * t))
    np.testing.assert_allclose(balanced_mode(0.05, 1.5, t, depth=math.inf), want, rtol=1e-13)
    np.testing.assert_allclose(balanced_mode(0.05, 1.5, t / 1e9, depth=1e9), want, rtol=1e-5)
    # Long before and long after: no overflow.
    np.testing.assert_array_equal(balanced_mode([1e-300, 0.5], 1.0, [1e10, 1e10], depth=math.inf), [1e-300, 1.0])
    # The delay in units of the optimal rate, D t, tends to a finite one.
    delays = [depth * time_to_reach(1e-3, 0.9, 1.0, depth=depth) for depth in (10, 100, 1000)]
    limit = time_to_reach(1e-3, 0.9, 1.0, depth=math.inf)
    assert np.all(np.diff(np.abs(np.array(delays) / limit - 1)) < 0)
    assert delays[-1] == pytest.approx(limit, rel=0.02)
    # S13 eqs. 43-45: against two layers, each at its optimal rate, infinite depth costs c s (1/u0 - 1/uf) and no more.
    s = 1.5
    shallow, deep = (time_to_reach(0.01, 1.4, s, depth=depth) for depth in (2, math.inf))
    assert s**2 * deep - 2 * s * shallow == pytest.approx(s / 0.01 - s / 1.4, rel=1e-12)


@settings(max_examples=80, deadline=None)
@given(
    st.floats(-300, 3),
    st.sampled_from([2.0, 1.0, 0.3, 0.0, -1.0]),
    st.floats(0, 1),
    st.sampled_from(DEPTHS[1:]),
)
def test_balanced_mode_inverts_time(log_start, s, fraction, depth):
    u0 = 10.0**log_start
    goal = s if s > 0 else 0.1 * u0
    u = float(np.exp(np.log(u0) + fraction * (np.log(goal) - np.log(u0))))
    t = float(time_to_reach(u0, u, s, depth=depth))
    if not math.isfinite(t):  # the target itself, or a time beyond the range of floats
        return
    back = float(time_to_reach(u0, balanced_mode(u0, s, t, depth=depth), s, depth=depth))
    if math.isfinite(back):  # not rounded into the target
        power, rate = (2.0, 1.0) if math.isinf(depth) else (2 - 2 / depth, depth)
        settled = abs(rate * (u if u > 0 else 1.0) ** (power - 1) * (s - u))  # d ln u / dt
        assert abs(back - t) <= 1e-13 * t + (1e-14 / settled if settled > 0 else math.inf)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-6, 2),
    st.sampled_from([1, -1]),
    st.floats(-3, 3),
    st.floats(0, 3),
    st.floats(0, 3),
    st.sampled_from(DEPTHS),
)
def test_balanced_mode_composes(log_start, sign, s, t1, t2, depth):
    u0 = sign * 10.0**log_start
    once = balanced_mode(u0, s, t1 + t2, depth=depth)
    twice = balanced_mode(balanced_mode(u0, s, t1, depth=depth), s, t2, depth=depth)
    rate = 1.0 if math.isinf(depth) else depth
    fastest = rate * max(abs(u0), abs(s)) ** (2 if math.isinf(depth) else 2 - 2 / depth) * (t1 + t2)
    least = abs(s) * (1 if depth < 2 else 1e-3)  # below depth two modes come to zero, where terms as large as s cancel
    assert abs(once - twice) <= 1e-14 * (1 + fastest) * max(abs(once), least, 1e-9)


def test_balanced_mode_fixed_points_and_limits():
    for depth in DEPTHS:
        assert balanced_mode(0.7, 0.7, 123.0, depth=depth) == pytest.approx(0.7, rel=2e-16)
        assert balanced_mode(5.0, 0.7, 1e9, depth=depth) == pytest.approx(0.7, rel=1e-15)
        assert balanced_mode(0.123, 0.7, 0.0, depth=depth) == 0.123
        assert balanced_mode(0.0, 0.7, 10.0, depth=depth) == (0 if depth > 1 else pytest.approx(-0.7 * math.expm1(-10)))
        assert time_to_reach(0.3, 0.3, 0.7, depth=depth) == 0
        for u0, u, s in ((0.1, 0.7, 0.7), (0.1, 0.05, 0.7), (0.1, 0.8, 0.7), (0.1, 0.2, -0.7), (2.0, 0.5, 0.7)):
            assert time_to_reach(u0, u, s, depth=depth) == math.inf
        # A target too small to matter, down to subnormal ones, is no target.
        for s in (5e-324, -1e-200, 1e-30):
            want = balanced_mode(0.5, 0.0, 3.0, depth=depth)
            assert balanced_mode(0.5, s, 3.0, depth=depth) == pytest.approx(want, rel=1e-15)
            assert time_to_reach(0.5, 0.1, s, depth=depth) == pytest.approx(
                float(time_to_reach(0.5, 0.1, 0.0, depth=depth)), rel=1e-14
            )
    assert balanced_mode(0.5, -1.0, 1e6, depth=2) == 0.0
    assert balanced_mode(0.5, -1.0, 1e6, depth=3) > 0.0  # a power law
    assert balanced_mode(1e-300, 1.0, 1e99, depth=3) == pytest.approx(1e-300, rel=1)
    assert balanced_mode(1e-300, 1.0, 1e101, depth=3) == 1.0
    # Below depth two zero is reached, and kept.
    end = float(time_to_reach(0.5, 0.0, -1.0, depth=1.5))
    assert balanced_mode(0.5, -1.0, 0.999 * end, depth=1.5) > 0
    assert balanced_mode(0.5, -1.0, [1.001 * end, 99.0], depth=1.5).tolist() == [0, 0]
    assert time_to_reach(0.5, -0.2, -1.0, depth=1) == pytest.approx(math.log(1.5 / 0.8), rel=1e-15)


def test_tiny_starts_keep_the_gap():
    # Depth 2: s - u = s (s - u0) e^{-2st}/(...) at the time when 1e-300 has become 1 - 1e-5.
    t = float(time_to_reach(1e-300, 1 - 1e-5, 1.0, depth=2))
    _, gap = balanced_mode_and_gap(*np.array([[1e-300], [1.0], [t]]), 2)
    assert gap[0] == pytest.approx(1e-5, rel=1e-12)
    mode = two_layer_mode(*np.array([1e-150, 1e-150, 1.0, t]))
    assert mode.gap == pytest.approx(1e-5, rel=1e-12)


def test_depth_two_agrees_with_the_scalar_mode():
    t = np.linspace(0, 20, 11)
    for u0, s in ((1e-3, 1.0), (3.0, 1.0), (0.5, -1.0), (0.5, 0.0)):
        a, b = scalar_mode(math.sqrt(u0), math.sqrt(u0), s, t)
        np.testing.assert_allclose(balanced_mode(u0, s, t, depth=2), a * b, rtol=3e-14)


@pytest.mark.parametrize("depth", [2, 3, 2.5, math.inf])
def test_every_point_has_the_same_bits_alone(depth):
    rng = np.random.default_rng(4)
    u0, s, t = 10 ** rng.uniform(-9, 1, 9000), rng.choice([2.0, 1.0, -1.0, 0.0], 9000), 10 ** rng.uniform(-3, 4, 9000)
    together = balanced_mode(u0, s, t, depth=depth)
    chosen = rng.integers(0, 9000, 40)
    np.testing.assert_array_equal(together[chosen], [balanced_mode(u0[k], s[k], t[k], depth=depth) for k in chosen])


def test_shapes_and_errors():
    assert balanced_mode(np.full((3, 1), 0.1), 1.0, np.zeros(4), depth=3).shape == (3, 4)
    assert [x.shape for x in scalar_mode(np.full((3, 1), 0.1), 0.2, 1.0, np.zeros(4))] == [(3, 4)] * 2
    assert time_to_reach(0.1, [0.2, 0.3], 1.0, depth=3).shape == (2,)
    assert np.ndim(balanced_mode(0.1, 1.0, 1.0, depth=3)) == 0
    for call, error, message in (
        (lambda: balanced_mode(0.1, 1.0, 1.0, depth=0.5), ValueError, "depth: expected a number >= 1, got 0.5"),
        (lambda: balanced_mode(0.1, 1.0, 1.0, depth=math.nan), ValueError, "depth: expected"),
        (lambda: balanced_mode(0.1, 1.0, -1.0, depth=2), ValueError, "t: expected a number >= 0, got -1.0"),
        (lambda: balanced_mode("a", 1.0, 1.0, depth=2), TypeError, "u0: expected real numbers"),
        (
            lambda: balanced_mode([1, 2], 1.0, [1, 2, 3], depth=2),
            ValueError,
            "u0, s, t: expected shapes that broadcast",
        ),
        (lambda: scalar_mode(1, math.nan, 1, 1), ValueError, "b0: expected a finite number"),
        (lambda: scalar_mode(1, 1, 1, [-1]), ValueError, "t: expected numbers >= 0"),
        (lambda: scalar_mode([1, 1], [1, 1, 1], 1, 1), ValueError, "a0, b0, s, t: expected shapes that broadcast"),
        (lambda: time_to_reach(1, math.inf, 1, depth=2), ValueError, "u: expected a finite number"),
    ):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value).startswith(message)
