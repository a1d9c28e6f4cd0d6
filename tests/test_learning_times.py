"""Learning times, rates and saddles against integration, the Hessian and limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
from scipy.integrate import quad, solve_ivp

import pydln as dln
from pydln import exact


@pytest.mark.parametrize("depth", [1, 2, 3, 5.5])
def test_escape_and_half_times_against_integration(depth) -> None:
    s, u0 = 1.7, 0.02
    run = solve_ivp(
        lambda _, u: depth * np.abs(u) ** (2 - 2 / depth) * (s - u),
        (0, 200),
        [u0],
        rtol=1e-11,
        atol=1e-13,
        dense_output=True,
    )
    for fraction in (0.1, 0.5, 0.9):
        t = exact.escape_time(u0, s, depth=depth, fraction=fraction)
        assert run.sol(t)[0] == pytest.approx(fraction * s, rel=1e-8)
    assert exact.half_time(u0, s, depth=depth) == exact.escape_time(u0, s, depth=depth, fraction=0.5)


def test_escape_times_grow_with_depth_as_they_should() -> None:
    # Layers at scale e = u0^(1/D): ln(1/e)/s for two, e^(2-D)/(D-2) for D of them.
    for depth in (3, 4, 6):
        scale = np.array([1e-3, 1e-4])
        t = exact.half_time(scale**depth, 1.0, depth=depth)
        np.testing.assert_allclose(t * scale ** (depth - 2) * (depth - 2), 1, rtol=0.01)
    np.testing.assert_allclose(exact.half_time(1e-40, 2.0, depth=2), np.log(2e40 - 1) / 4, rtol=1e-14)
    assert exact.half_time(-0.1, 1.0, depth=3) == math.inf
    assert math.isnan(exact.half_time(0.9, 1.0, depth=3))
    with pytest.raises(ValueError, match="fraction: expected a number > 0 and < 1"):
        exact.escape_time(0.1, 1.0, depth=2, fraction=1.0)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_sharpness_is_that_of_the_hessian_and_bounds_the_rate(depth) -> None:
    task = dln.Task.from_spectrum([1.5, 1.0, 0.4], 4, 3, seed=0)
    s = task.modes.s
    weights = dln.init.aligned(task, depth=depth, width=3, strength=s)
    layers = [w[0] for w in weights.layers]
    # At the solution the Hessian is the Gram matrix of the output's derivatives: the tangent kernel's eigenvalues.
    largest = np.linalg.eigvalsh(reference.tangent_kernel(layers, np.eye(4))).max()
    assert exact.sharpness(s, depth=depth) == pytest.approx(largest, rel=1e-12)
    near = dln.init.aligned(task, depth=depth, width=3, strength=s * 1.001)
    for factor, stays in ((0.97, True), (1.03, False)):
        lr = factor * exact.stable_lr(s, depth=depth)
        run = dln.gradient_descent(task, near, lr=lr, steps=400, throw=False)
        end = run.loss[0, -1] - task.floor
        assert (end < 1e-9) == stays
    assert exact.optimal_lr(s, depth=depth) == pytest.approx(0.5 * exact.stable_lr(s, depth=depth))
    np.testing.assert_allclose(exact.sharpness([s, 2 * s], depth=depth), [largest, 2 ** (2 - 2 / depth) * largest])


def test_depth_costs_a_finite_delay() -> None:
    depths = [2, 3, 10, 100, 1e4, math.inf]
    steps = exact.iterations_to_learn(0.01, 0.9, depth=depths)
    wanted = [quad(lambda v, D=D: v ** (2 / D - 2) / (1 - v), 0.01, 0.9, epsrel=1e-12)[0] for D in depths]
    np.testing.assert_allclose(steps, wanted, rtol=1e-9)
    assert (np.diff(steps) > 0).all()
    np.testing.assert_allclose(steps[-2], steps[-1], rtol=1e-2)
    np.testing.assert_allclose(exact.iterations_to_learn(0.01, 0.9, depth=3, rate=0.1), 10 * steps[1])
    # The count of steps that descent at that rate takes, but for its steps being finite.
    task = dln.Task.from_spectrum([2.0], 2, 2, seed=0)
    lr = 0.01 * exact.optimal_lr([2.0], depth=3)
    weights = dln.init.aligned(task, depth=3, width=2, strength=0.02)
    run = dln.gradient_descent(task, weights, lr=lr, steps=20_000, stop=dln.Stop(strengths=1.8))
    assert run.stopped_step[0] == pytest.approx(exact.iterations_to_learn(0.01, 0.9, depth=3, rate=0.01), rel=5e-3)


def test_saddles_are_passed_in_the_order_of_the_strengths() -> None:
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], 4, 3, seed=0, trace_yy=20.0)
    stairs = exact.saddle_to_saddle(1e-20, task.modes.s, depth=2, floor=task.floor)
    assert stairs.order.tolist() == [0, 1, 2]
    weights = dln.init.aligned(task, depth=2, width=3, strength=1e-20)
    middle = [0.0, *(0.5 * (stairs.times[1:] + stairs.times[:-1])), 60.0]
    plateaus = exact.solve(task, weights).evaluate(middle).loss[0]
    np.testing.assert_allclose(plateaus, stairs.losses, atol=0.05)
    u = exact.solve(task, weights).evaluate(stairs.times).strengths[0].diagonal()
    np.testing.assert_allclose(u, task.modes.s / 2, rtol=1e-12)
    held = exact.saddle_to_saddle([0.1, 0.0, 0.1], [1.0, 2.0, 3.0], depth=2)
    assert held.order.tolist() == [2, 0, 1]
    np.testing.assert_allclose(held.losses, [7.0, 2.5, 2.0])
    assert held.times[1] == math.inf
