"""Runge–Kutta methods as numbers: orders of step, interpolant and estimate by regression; classical problems."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from scipy.integrate import solve_ivp

import pydln as dln
from pydln.simulate.methods import METHODS, Method, method

INTERPOLANT = {"tsit5": 4, "dopri5": 4, "dop853": 7, "rk4": 3}


def pendulum(y):
    return [np.array([y[0][1], -np.sin(y[0][0])])]


START = [np.array([1.2, 0.3])]


def exact(t):
    f = lambda _, y: pendulum([y])[0]  # noqa: E731
    return solve_ivp(f, (0, t), START[0], method="DOP853", rtol=3e-14, atol=1e-16).y[:, -1]


def one_step(m, h):
    """The stages of one step of length h from START."""
    ks = [pendulum(START)[0]]
    for row in m.a[1:]:
        ks.append(pendulum([START[0] + h * sum(c * k for c, k in zip(row[: len(ks)], ks, strict=True))])[0])
    return ks


def order(steps, errors):
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


def lengths(m):
    """Steps short enough for the leading term, long enough to stand above rounding."""
    return 2.0 ** -np.arange(0, 4) * (0.8 if m.order == 8 else 0.25)


@pytest.mark.parametrize("name", METHODS)
def test_tables_are_consistent(name):
    m = method(name)
    assert not np.triu(m.a).any(), "explicit"
    np.testing.assert_allclose(m.b.sum(), 1, atol=2e-15)
    assert m.c[m.stages - 1] == pytest.approx(1, abs=1e-14), "the last stage lies at the new point"
    np.testing.assert_allclose(m.dense.sum(axis=1), m.b, atol=1e-13), "the interpolant ends at the step"
    np.testing.assert_allclose(m.error.sum(axis=1), 0, atol=1e-15)
    slopes = m.dense * np.arange(1, m.dense.shape[1] + 1)
    np.testing.assert_allclose(m.dense[:, 0], np.eye(len(m.a))[0], atol=1e-13), "slope at the start"
    np.testing.assert_allclose(slopes.sum(axis=1), np.eye(len(m.a))[m.stages - 1], atol=2e-12), "slope at the end"
    with pytest.raises(ValueError, match="read-only"):
        m.a[0, 0] = 1


@pytest.mark.parametrize("name", METHODS)
def test_order_of_the_solution_by_regression(name):
    m = method(name)
    end = 4.0
    steps = end / np.array([12, 16, 24, 32] if m.order == 8 else [32, 64, 128, 256])
    fixed = type(m)(m.name, m.order, m.exponent, m.stages, m.a, np.zeros((0, m.stages)), m.dense)
    runs = [reference.runge_kutta(pendulum, START, fixed, [end], step=h) for h in steps]
    errors = [np.abs(run.at[-1][0] - exact(end)).max() for run in runs]
    assert order(steps, errors) == pytest.approx(m.order, abs=0.5)


@pytest.mark.parametrize("name", METHODS)
def test_order_within_a_step_and_of_the_estimate_by_regression(name):
    m = method(name)
    steps = lengths(m)
    theta = 0.4
    inside, estimated = [], []
    for h in steps:
        ks = np.array(one_step(m, h))
        weights = m.dense @ theta ** np.arange(1, m.dense.shape[1] + 1)
        inside.append(np.abs(START[0] + h * weights @ ks - exact(theta * h)).max())
        size = [np.abs(h * e @ ks[: m.stages]).max() for e in m.error]
        estimated.append(size[0] ** 2 / np.hypot(size[0], size[1] / 10) if len(size) == 2 else sum(size))
    assert order(steps, inside) > INTERPOLANT[name] + 1 - 0.4
    if len(m.error):
        assert order(steps, estimated) == pytest.approx(m.exponent, abs=0.9)


# Hull, Enright, Fellen & Sedgwick (1972), problems A1, A4, B1, B2, D1 and E2; Lorenz, before errors have grown.
CLASSICAL = {
    "A1": (lambda y: -y, [1.0], 20.0),
    "A4": (lambda y: y / 4 * (1 - y / 20), [1.0], 20.0),
    "B1": (lambda y: np.array([2 * (y[0] - y[0] * y[1]), -(y[1] - y[0] * y[1])]), [1.0, 3.0], 20.0),
    "B2": (lambda y: np.array([-y[0] + y[1], y[0] - 2 * y[1] + y[2], y[1] - y[2]]), [2.0, 0.0, 1.0], 20.0),
    "D1": (
        lambda y: np.array([y[2], y[3], *(-y[:2] / np.hypot(*y[:2]) ** 3)]),
        [0.9, 0.0, 0.0, np.sqrt(1.1 / 0.9)],
        20.0,
    ),
    "E2": (lambda y: np.array([y[1], (1 - y[0] ** 2) * y[1] - y[0]]), [2.0, 0.0], 20.0),
    "Lorenz": (
        lambda y: np.array([10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]]),
        [1.0, 1.0, 1.0],
        5.0,
    ),
}


@pytest.mark.parametrize("name", [n for n in METHODS if len(method(n).error)])
@pytest.mark.parametrize("problem", CLASSICAL)
def test_classical_problems_against_scipy(problem, name):
    f, start, end = CLASSICAL[problem]
    t = np.linspace(0, end, 31)
    best = solve_ivp(lambda _, y: f(y), (0, end), start, method="DOP853", t_eval=t, rtol=1e-13, atol=1e-15).y.T
    errors = []
    for rtol in (1e-6, 1e-9):
        run = reference.runge_kutta(lambda y: [f(y[0])], [np.array(start)], method(name), t, rtol=rtol)
        errors.append(np.abs(np.array([y[0] for y in run.at]) - best).max() / np.abs(best).max())
    assert errors[0] < (1e-2 if problem == "Lorenz" else 5e-4)
    assert errors[1] < errors[0] / 50, "a tolerance a thousand times smaller is felt"


def test_a_method_is_asked_for_by_name():
    with pytest.raises(ValueError, match=r"method: expected one of 'tsit5'.*got 'euler'"):
        method("euler")


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("name", METHODS)
def test_growth_is_what_a_step_follows(name, rtol) -> None:
    """y' = y in steps of length `growth`: 0.03 rtol lost for every factor e, and no more in any shorter step."""
    from mpmath import mp, mpf

    with mp.workdps(30):
        own = method(name)
        longest = own.growth(rtol)
        for part in (1, 0.7, 0.3):
            h, ks = mpf(longest) * mpf(part), [mpf(1)]
            for row in own.a[1 : own.stages]:
                ks.append(1 + h * sum(mpf(float(c)) * k for c, k in zip(row, ks, strict=False)))
            lost = abs(ks[-1] / mp.exp(h) - 1) / h  # the last stage is the slope at the new point, which is that point
            assert lost <= 0.03 * rtol * 1.01 + 1e-16
            if part == 1 and longest < 3:
                assert lost > 0.01 * rtol


# ---- a tableau of one's own --------------------------------------------------------------------------------------
def heun(**changes):
    """Heun's method of order 2 with Euler's error, through the slopes at both ends."""
    a = np.array([[0, 0, 0], [1, 0, 0], [1 / 2, 1 / 2, 0]])
    dense = np.array([[1, -3 / 2 + 1, 0.0], [0, 1 / 2, 0.0], [0, 0, 0.0]])
    table = {"name": "heun", "order": 2, "exponent": 2, "stages": 3, "a": a, "dense": dense}
    return Method(**(table | {"error": np.array([[-1 / 2, 1 / 2, 0]])} | changes))


def test_a_tableau_of_ones_own_in_every_flow():
    task = dln.Task.from_spectrum([2.0, 1.0], 4, 3, seed=0)
    weights = dln.init.aligned(task, depth=2, width=4, strength=0.1)
    t = np.array([0.3, 1.0, 2.0])
    wanted = dln.exact.solve(task, weights).evaluate(t).strengths
    errors = []
    for rtol in (1e-4, 1e-6):
        run = dln.gradient_flow(task, weights, t, method=heun(), rtol=rtol, reduce="none")
        assert run.settings["method"] == "heun"
        errors.append(np.abs(run.strengths - wanted).max())
    assert errors[1] < 1e-4
    assert errors[1] < errors[0] / 30
    product = weights.product()[0]
    modes = dln.mode_flow(task.modes.s, [0.1**0.5] * 2, t, method=heun(), rtol=1e-6)
    ends = dln.end_to_end_flow(task, product, t, depth=2, method=heun(), rtol=1e-6)
    for run in (modes, ends):
        np.testing.assert_allclose(run.strengths, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": np.eye(3)}, "a: expected zeros on and above the diagonal"),
        (
            {"a": np.array([[0, 0, 0], [1, 0, 0], [1 / 2, 1 / 3, 0]])},
            "a: expected weights of the step that add up to",
        ),
        ({"a": np.zeros((3, 2))}, r"a: expected \(3, 3\) for 3 stages, got \(3, 2\)"),
        ({"error": np.array([[1.0, 0, 0]])}, "error: expected estimates that vanish for equal slopes"),
        ({"error": np.zeros((1, 2))}, r"error: expected \(any, 3\) for 3 stages, got \(1, 2\)"),
        ({"dense": np.zeros((3, 2))}, "dense: expected an interpolant that ends with the weights"),
        ({"stages": 1, "error": np.zeros((1, 1))}, "stages: expected 2 to 3"),
        ({"a": np.full((3, 3), np.nan)}, "a: expected"),
    ],
)
def test_wrong_tableaux_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        heun(**changes)
