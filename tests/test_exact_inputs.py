"""Exact solutions of decoupled modes where inputs are not whitened but uncorrelated between the modes of the task."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

import pydln as dln
from pydln.exact import compare, solve

EVERYTHING = ("loss", "strengths", "product", "layer_norms", "drift", "kernel_distance", "weights")
D_IN, D_OUT = 5, 3


def task_of(s, variances, seed=0):
    """Sigma_yx = U diag(s) Vᵀ and Sigma_xx = V diag(d) Vᵀ, the last two directions of the inputs beside the modes."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.normal(size=(D_OUT, D_OUT)))[0]
    V = np.linalg.qr(rng.normal(size=(D_IN, D_IN)))[0]
    return dln.Task.from_covariances((V * variances) @ V.T, (U * s) @ V[:, :D_OUT].T, 20.0)


TASK = task_of([2.0, 1.0, 0.5], [3.0, 0.4, 1.5, 0.8, 2.0])
STARTS = {
    "two layers": dln.init.aligned(TASK, depth=2, width=4, layer_strengths=[[0.1, 0.5, 0.2], [0.4, -0.1, 0.2]]),
    "three layers": dln.init.aligned(TASK, depth=3, width=4, strength=[[0.3, 0.2, 0.9]]),
    "five layers": dln.init.aligned(TASK, depth=5, width=4, strength=[[0.3, 0.9, 0.4]]),
}


@pytest.mark.parametrize("name", STARTS)
def test_everything_beside_the_integrated_flow(name) -> None:
    weights = STARTS[name]
    solution = solve(TASK, weights)
    assert solution.name.startswith("aligned")
    t = np.array([0.0, 0.2, 0.7, 2.0, 6.0])
    assert solution.residual(t).max() < 1e-9
    run = solution.evaluate(t, record=EVERYTHING)
    flow = dln.gradient_flow(TASK, weights, t, record=EVERYTHING, method="dop853", rtol=1e-13, reduce="none")
    for name_ in EVERYTHING:
        pairs = [(run.loss, flow.loss)] if name_ == "loss" else [(getattr(run, name_), getattr(flow, name_))]
        if name_ == "weights":
            pairs = list(zip(run.weights, flow.weights, strict=True))
        for exact, integrated in pairs:
            np.testing.assert_allclose(exact, integrated, atol=1e-10, err_msg=name_)
    d = np.array([3.0, 0.4, 1.5])
    last = solution.evaluate([2000.0])
    np.testing.assert_allclose(last.strengths[0, 0], TASK.modes.s / d, rtol=1e-13)
    np.testing.assert_allclose(last.loss[0, 0], TASK.floor, rtol=1e-13)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_one_mode_beside_a_taylor_series(depth) -> None:
    """du/dt = D u^(2-2/D) (s - d u), by mpmath's series of high order."""
    s, d, u0, t = 1.3, 0.35, 0.2, 0.9
    task = dln.Task.from_covariances([[d]], [[s]], 9.0)
    run = solve(task, dln.init.aligned(task, depth=depth, strength=u0)).evaluate([t])
    with mp.workdps(20):
        p = 2 - mp.mpf(2) / depth
        want = mp.odefun(lambda _, u: depth * u**p * (mp.mpf(s) - mp.mpf(d) * u), 0, mp.mpf(u0))(mp.mpf(t))
    assert run.strengths[0, 0, 0] == pytest.approx(float(want), rel=1e-12)


@pytest.mark.parametrize("depth", [2, 4])
def test_an_autoencoder(depth) -> None:
    """Sigma_yx = Sigma_xx: every variance is its own strength, and every mode is learned to 1."""
    x = np.random.default_rng(1).normal(size=(50, 6)) * np.linspace(2.0, 0.5, 6)
    task = dln.Task.from_data(x, x)
    weights = dln.init.aligned(task, depth=depth, width=6, strength=[[0.05] * 6, [0.5] * 6])
    solution = solve(task, weights)
    d = np.linalg.eigvalsh(task.sigma_xx)[::-1]
    t = np.linspace(0.0, 3.0, 7)
    run = solution.evaluate(t)
    np.testing.assert_allclose(
        run.strengths[1], dln.exact.balanced_mode(0.5, 1.0, t[:, None] * d, depth=depth), rtol=1e-11
    )
    np.testing.assert_allclose(solution.evaluate([1e5]).strengths, 1.0, rtol=1e-12)
    lost = [
        compare(dln.gradient_descent(task, weights, lr=lr, steps=round(2 / lr)), solution).gap.max()
        for lr in (2e-3, 1e-3)
    ]
    assert lost[0] / lost[1] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("rounding", [0.0, 1e-15, -1e-15])
def test_directions_without_variance_rest(rounding: float) -> None:
    task = task_of([2.0, 1.0, 0.0], [3.0, 0.4, rounding, 0.0, 0.0])
    weights = dln.init.aligned(task, depth=2, width=3, strength=[[0.1, 0.1, 0.3]])
    run = solve(task, weights).evaluate([0.0, 1.0, 50.0])
    flow = dln.gradient_flow(task, weights, [0.0, 1.0, 50.0], rtol=1e-11)
    np.testing.assert_allclose(run.loss, flow.loss, atol=1e-9)
    np.testing.assert_allclose(run.strengths[0, :, 2], 0.3, rtol=1e-13)


def test_variances_that_are_zero_but_for_rounding() -> None:
    """The representation of a bottleneck: Sigma_xx of low rank, whose least eigenvalues come out as -1e-17."""
    x = np.random.default_rng(2).normal(size=(3, 8)) @ np.random.default_rng(3).normal(size=(8, 8))
    task = dln.Task.from_data(x, x)
    weights = dln.init.aligned(task, depth=2, strength=0.1)
    assert min((v @ task.sigma_xx @ v) for v in task.modes.V.T) < 0
    run = solve(task, weights).evaluate([0.0, 1.0, 400.0])
    np.testing.assert_allclose(run.strengths[0, 1:, 3:], 0.1, atol=1e-12)
    np.testing.assert_allclose(run.loss[0, -1], 0.0, atol=1e-10)


def test_a_batch_of_tasks() -> None:
    tasks = [task_of([2.0, 1.0, 0.5], [3.0, 0.4, 1.5, 0.8, k + 1.0], seed=k) for k in range(3)]
    task = dln.Task.stack(tasks)
    weights = dln.init.aligned(task, depth=3, width=3, strength=[0.1, 0.2, 0.3])
    run = solve(task, weights).evaluate([0.5, 1.0], record=("loss", "strengths", "kernel_distance"))
    for k, one in enumerate(tasks):
        alone = solve(one, weights[k]).evaluate([0.5, 1.0], record=("loss", "strengths", "kernel_distance"))
        for name in ("loss", "strengths", "kernel_distance"):
            np.testing.assert_allclose(getattr(run, name)[k], getattr(alone, name)[0], rtol=1e-12, atol=1e-15)


def test_correlated_modes_are_refused_with_the_number() -> None:
    mixed = np.eye(D_IN) + 0.1 * np.ones((D_IN, D_IN))
    task = dln.Task.from_covariances(mixed, TASK.sigma_yx, 20.0)
    weights = dln.init.aligned(task, depth=2, strength=0.1)
    with pytest.raises(dln.NotApplicable) as caught:
        solve(task, weights)
    missed = caught.value.missed["aligned, two layers"]
    V = task.modes.V
    d = np.sum(V * (mixed @ V), axis=0)
    worst = np.linalg.norm(mixed @ V - V * d, axis=0).max() / np.linalg.norm(mixed, 2)
    assert missed.startswith("inputs are correlated between the modes of the task: |Sigma_xx v - d v|/|Sigma_xx| = ")
    assert f"{worst:.3g}" in missed
    assert "whitened" in caught.value.missed["balanced, two layers"]
