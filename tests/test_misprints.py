"""Slips in print: what was printed fails against integration or algebra, what pydln uses holds.

S13 is Saxe, McClelland & Ganguli (2013), arXiv 1312.6120.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

import pydln as dln
from pydln.exact import balanced_mode, scalar_mode, solve, time_to_reach
from pydln.exact.balanced_mode import balanced_mode_and_gap

# An unbalanced mode, a > b, and its hyperbolic angle: a = sqrt(c0) cosh(theta/2), b = sqrt(c0) sinh(theta/2).
A0, B0, S = 0.5, 0.1, 1.3
C0 = A0**2 - B0**2
TIMES = np.array([0.5, 1.0, 2.0, 4.0])


def angle(t):
    a, b = scalar_mode(A0, B0, S, t)
    return 2 * np.arctanh(b / a)


def test_scalar_mode_is_right_where_the_print_is_doubted():
    run = solve_ivp(
        lambda _, y: (y[1] * (S - y[0] * y[1]), y[0] * (S - y[0] * y[1])),
        (0, 4),
        (A0, B0),
        method="DOP853",
        rtol=1e-12,
        atol=1e-14,
        t_eval=TIMES,
    )
    np.testing.assert_allclose(scalar_mode(A0, B0, S, TIMES), run.y, rtol=1e-10)


@pytest.mark.parametrize(("factor", "right"), [(2.0, True), (1.0, False)])
def test_s13_equation_25_needs_2s(factor, right):
    """Tau theta' = 2s - c0 sinh(theta); printed with s."""
    run = solve_ivp(
        lambda _, theta: factor * S - C0 * np.sinh(theta),
        (0, 4),
        [float(angle(0.0))],
        method="DOP853",
        rtol=1e-12,
        atol=1e-14,
        t_eval=TIMES,
    )
    error = np.abs(run.y[0] - angle(TIMES)).max()
    assert error < 1e-10 if right else error > 0.1


@pytest.mark.parametrize(("factor", "right"), [(2.0, True), (1.0, False)])
def test_s13_equation_26_needs_2s(factor, right):
    """t = tau ∫ dtheta/(2s - c0 sinh(theta)), in closed form with x = tanh(theta/2) and K = sqrt(c0^2 + (2s)^2)."""
    start, end, elapsed = float(angle(0.0)), float(angle(0.6)), 0.6
    drive = factor * S
    time, _ = quad(lambda theta: 1 / (drive - C0 * math.sinh(theta)), start, end, epsabs=1e-13)
    K = math.hypot(C0, drive)

    def primitive(theta):
        x = C0 + drive * math.tanh(theta / 2)
        return math.log((K + x) / (K - x)) / K

    assert primitive(end) - primitive(start) == pytest.approx(time, rel=1e-10)
    error = abs(time - elapsed)
    assert error < 1e-10 if right else error > 0.1


def test_s13_appendix_a_product_is_half_of_c0_sinh():
    """Where the missing factor comes from: ab = (c0/2) sinh(theta), so that the fixed point is sinh(theta) = 2s/c0."""
    a, b = scalar_mode(A0, B0, S, TIMES)
    np.testing.assert_allclose(a * b, 0.5 * C0 * np.sinh(angle(TIMES)), rtol=1e-12)
    assert angle(30.0) == pytest.approx(math.asinh(2 * S / C0), rel=1e-12)


def hessian(function, point, h=1e-3):
    """Second derivatives by central differences."""
    n = len(point)
    steps = h * np.eye(n)
    out = np.empty((n, n))
    for i, j in itertools.product(range(n), range(n)):
        corners = [
            sign * function(point + p * steps[i] + q * steps[j])
            for p, q, sign in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
        ]
        out[i, j] = sum(corners) / (4 * h * h)
    return out


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_s13_equations_27_and_32_need_a_square(depth):
    """The energy is (s - prod a)^2/(2 tau); without the square its slope and its curvature are not the flow's."""
    s = 1.7
    a = np.random.default_rng(depth).uniform(0.5, 1.5, depth)

    def energy(x):
        return 0.5 * (s - np.prod(x)) ** 2

    def printed(x):
        return 0.5 * (s - np.prod(x))

    def slope(function):
        return np.array([(function(a + d) - function(a - d)) / 2e-5 for d in 1e-5 * np.eye(depth)])

    others = np.array([np.prod(np.delete(a, i)) for i in range(depth)])
    flow = others * (s - np.prod(a))
    np.testing.assert_allclose(-slope(energy), flow, atol=1e-8)
    assert np.abs(-slope(printed) - flow).max() > 0.01
    np.testing.assert_allclose(np.diag(hessian(energy, a)), others**2, rtol=1e-4)  # eq. 31
    # Eq. 32 is the same on the symmetric manifold; eq. 41: the largest curvature on the way is at its end.
    end = np.full(depth, s ** (1 / depth))
    sharpness = depth * s ** (2 - 2 / depth)
    assert np.linalg.eigvalsh(hessian(energy, end))[-1] == pytest.approx(sharpness, rel=1e-4)
    assert abs(np.linalg.eigvalsh(hessian(printed, end))[-1] - sharpness) > 0.5


def test_sharpness_sets_the_stable_learning_rate():
    """The square in the curvature as gradient descent meets it: stable below 2/(D s^(2 - 2/D)), not above."""
    s, depth = 2.0, 3
    task = dln.Task.from_spectrum([s], 1, 1)
    weights = dln.init.aligned(task, depth=depth, strength=s * 1.001)
    limit = 2 / (depth * s ** (2 - 2 / depth))
    run = dln.gradient_descent(task, weights, lr=[0.98 * limit, 1.02 * limit], steps=400, throw=False)
    assert run.loss[0, -1] < 1e-12
    assert not run.loss[1, -1] < 1e-6


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
def test_below_s13_equation_16_depth_is_meant_not_layers_of_units(depth):
    """tau du/dt = D u^(2 - 2/D)(s - u), D weight matrices; N_l = D + 1 layers of units do not give the flow."""
    s, u0 = 1.4, 0.2
    a0 = np.full(depth, u0 ** (1 / depth))

    def slope(_, a):
        return np.array([np.prod(np.delete(a, k)) for k in range(depth)]) * (s - np.prod(a))

    run = solve_ivp(slope, (0, 0.4), a0, method="DOP853", rtol=1e-12, atol=1e-14)
    u = float(np.prod(run.y[:, -1]))
    assert balanced_mode(u0, s, 0.4, depth=depth) == pytest.approx(u, rel=1e-10)
    assert abs(balanced_mode(u0, s, 0.4, depth=depth + 1) - u) > 1e-3
    layers_of_units = solve_ivp(lambda _, y: (depth + 1) * y ** (2 - 2 / depth) * (s - y), (0, 0.4), [u0], rtol=1e-10)
    assert abs(layers_of_units.y[0, -1] - u) > 0.02


def test_infinite_depth_time_is_in_units_of_tau_over_depth():
    big = 1e7
    t = np.array([1.0, 5.0, 8.0])
    np.testing.assert_allclose(
        balanced_mode(0.1, 1.0, t / big, depth=big), balanced_mode(0.1, 1.0, t, depth=math.inf), rtol=1e-5
    )
    assert time_to_reach(0.1, 0.9, 1.0, depth=big) * big == pytest.approx(
        time_to_reach(0.1, 0.9, 1.0, depth=math.inf), rel=1e-5
    )


def divided_by_lambda(a0, b0, s, t):
    """u(t) by the hyperbolic angle of S13's appendix A, 2s for s: zero over zero at balance, and rounding near it."""
    c0 = a0**2 - b0**2
    K = math.sqrt(c0**2 + 4 * s**2)
    x = b0 / a0
    ratio = (K + c0 + 2 * s * x) / (K - c0 - 2 * s * x) * math.exp(K * t)
    x = ((ratio - 1) * K - (ratio + 1) * c0) / ((ratio + 1) * 2 * s)
    return c0 * x / (1 - x**2)


def test_balanced_starts_are_not_divided_by_lambda():
    t = 1.1
    assert divided_by_lambda(0.5, 0.3, 1.0, t) == pytest.approx(np.prod(scalar_mode(0.5, 0.3, 1.0, t)), rel=1e-13)
    with pytest.raises(ZeroDivisionError):
        divided_by_lambda(0.3, 0.3, 1.0, t)
    exact = np.prod(scalar_mode(0.3, 0.3, 1.0, t))
    assert exact == pytest.approx(1 / (1 + (1 / 0.09 - 1) * math.exp(-2 * t)), rel=1e-15)
    assert abs(divided_by_lambda(0.3 + 1e-12, 0.3, 1.0, t) / exact - 1) > 1e-6
    # Continuous through lambda = 0, to rounding.
    for epsilon in (1e-8, 1e-12, 1e-16, 0.0, -1e-16, -1e-8):
        near = np.prod(scalar_mode(0.3, 0.3 + epsilon, 1.0, t))
        assert abs(near - exact) <= 4 * abs(epsilon) + 1e-15
    # And lambda = 0 with s = 0, where kappa vanishes as well.
    assert np.prod(scalar_mode(0.3, 0.3, 0.0, t)) == pytest.approx(0.09 / (1 + 2 * 0.09 * t), rel=1e-15)


@pytest.mark.parametrize(("four_s", "right"), [(lambda s0: 4 * s0**2, True), (lambda s0: 4 * s0, False)])
def test_lambda_balanced_starts_need_4s_squared(four_s, right):
    """S_1^2 = (sqrt(lambda^2 + 4 s0^2) - lambda)/2, S_2^2 = (… + lambda)/2: their product must be s0."""
    lam, s0 = 0.7, np.array([2.0, 0.3])
    root = np.sqrt(lam**2 + four_s(s0))
    first, second = np.sqrt((root - lam) / 2), np.sqrt((root + lam) / 2)
    np.testing.assert_allclose(second**2 - first**2, lam, rtol=1e-14)
    assert np.allclose(first * second, s0, rtol=1e-14) is right
    if right:
        task = dln.Task.from_spectrum([3.0, 1.0], 4, 3)
        start = dln.init.aligned(task, depth=2, layer_strengths=[first, second])
        run = solve(task, start).evaluate([0.0, 1.0], record=("strengths", "drift", "weights"))
        np.testing.assert_allclose(run.strengths[0, 0], s0, rtol=1e-14)
        assert run.drift.max() < 1e-14
        hidden = run.weights[1][0, 1].T @ run.weights[1][0, 1] - run.weights[0][0, 1] @ run.weights[0][0, 1].T
        np.testing.assert_allclose(hidden, lam * np.eye(2), atol=1e-14)


def test_recorded_weights_are_copies():
    """A list of references to one array shows its last value at every time; neither weights nor trajectories alias."""
    mine = [np.full((2, 2), 0.5), np.full((2, 2), 0.5)]
    history = []
    for _ in range(3):
        history.append(mine[0])
        mine[0] *= 0.5
    assert (history[0] == history[-1]).all()  # what goes wrong
    weights = dln.Weights(mine)
    before = weights.layers[0].copy()
    mine[0] += 1.0
    np.testing.assert_array_equal(weights.layers[0], before)
    task = dln.Task.from_spectrum([2.0, 1.0], 3, 2)
    start = dln.init.aligned(task, depth=2, strength=0.1)
    given = [w.copy() for w in start.layers]
    runs = [
        solve(task, start).evaluate([0.0, 1.0, 2.0], record="weights"),
        dln.gradient_descent(task, start, lr=0.01, steps=200, record_every=100, record="weights"),
    ]
    for run in runs:
        for k in range(2):
            np.testing.assert_allclose(run.weights[k][:, 0], given[k], atol=1e-15)
            for i, j in itertools.combinations(range(3), 2):
                assert np.abs(run.weights[k][:, i] - run.weights[k][:, j]).max() > 1e-3
            np.testing.assert_array_equal(start.layers[k], given[k])


def test_starts_of_1e_9_need_float64():
    """In float32 a product of 1e-9 beside one of order one is lost in rounding; in float64 it is there."""
    task = dln.Task.from_spectrum([3.0, 2.0], 30, 20, seed=1)
    U, _, V = task.modes
    lost, kept = (
        dln.init.aligned(task, depth=2, strength=[[1.0, 1e-9]], width=25, dtype=dtype)
        for dtype in (np.float32, np.float64)
    )

    def weak(weights):
        return float(U[:, 1] @ weights.product()[0] @ V[:, 1])

    assert abs(weak(lost) / 1e-9 - 1) > 0.05
    assert weak(kept) == pytest.approx(1e-9, rel=1e-6)
    # The same start in float32 delays or hastens the weak mode; the exact solution from float64 has its time.
    half = time_to_reach(1e-9, 1.0, 2.0, depth=2)
    run = solve(task, kept).evaluate([float(half)])
    assert run.strengths[0, 0, 1] == pytest.approx(1.0, rel=1e-6)
    _, gap = balanced_mode_and_gap(*np.array([[1e-9], [2.0], [float(half)]]), 2)
    assert gap[0] == pytest.approx(1.0, rel=1e-13)
    # Far smaller starts are exact too, as long as they are not mixed with large ones.
    assert balanced_mode(1e-300, 2.0, time_to_reach(1e-300, 1.0, 2.0, depth=2), depth=2) == pytest.approx(
        1.0, rel=1e-12
    )
