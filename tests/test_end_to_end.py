"""The flow of the end-to-end map: against the layers, exact solutions, matrix powers in 40 digits, and its theorems."""

from __future__ import annotations

import os
import signal
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from ensembles import some_task
from scipy.stats import ortho_group

import pydln as dln
from pydln.simulate.balanced import end_to_end
from pydln.simulate.balanced.coordinates import Balanced, Learned, divided
from pydln.simulate.methods import METHODS

T = np.array([0.0, 0.1, 0.4, 1.0, 1.01, 2.5, 6.0])
RECORDS = ("loss", "test_loss", "strengths", "product")
TIGHT = {"method": "dop853", "rtol": 1e-12}


def maps(n_in, n_out, sigmas, seed=0):
    """Maps with given singular values, one for each row of `sigmas`."""
    rng = np.random.default_rng((seed, n_in, n_out))
    found = []
    for sigma in np.atleast_2d(sigmas):
        U, V = (np.linalg.qr(rng.normal(size=(n, len(sigma))))[0] for n in (n_out, n_in))
        found.append((U * sigma) @ V.T)
    return np.array(found)


def velocity(omega, E, depth):
    """Σ_j (ΩΩᵀ)^((D-j)/D) E (ΩᵀΩ)^((j-1)/D) in 60 digits; powers 0 are the identity.

    `omega`: an array, of which singular values below 1e-15 of the largest count as zero, or factors in more digits.
    """
    rounding = mpmath.mpf(10) ** (-30 if isinstance(omega, np.ndarray) else -50)

    def power(gram, p):
        if p == 0:
            return mpmath.eye(gram.rows)
        values, vectors = mpmath.eigsy(gram)
        floor = rounding * max(abs(v) for v in values)
        raised = mpmath.diag([v**p if v > floor else mpmath.mpf(0) for v in values])
        return vectors * raised * vectors.T

    with mpmath.workdps(60):
        X, E = mpmath.matrix(omega.tolist()), mpmath.matrix(E.tolist())
        total = mpmath.zeros(X.rows, X.cols)
        for j in range(1, depth + 1):
            left, right = mpmath.mpf(depth - j) / depth, mpmath.mpf(j - 1) / depth
            total += power(X * X.T, left) * E * power(X.T * X, right)
        return np.array(total.tolist(), dtype=float)


# ---- against the layers ----------------------------------------------------------------------------------------------
CASES = {
    "inputs": (5, 3, [[1.5, 0.7, 0.2], [0.3, 0.2, 0.1]]),
    "outputs": (3, 6, [[1.5, 0.7, 0.2], [2.5, 2.0, 0.01]]),
    "square": (4, 4, [[1.5, 0.7, 0.4, 0.2], [3.0, 1.0, 0.5, 0.02]]),
    "low rank": (5, 4, [[1.5, 0.7], [0.3, 0.02]]),
    "equal": (5, 4, [[1.0, 1.0, 1.0, 0.5], [1.0, 1.0, 1.0, 1.0]]),
    "nearly equal": (4, 5, [[1.0, 1.0 - 1e-6, 0.5, 0.5 - 1e-13], [1.0, 1.0 - 1e-9, 1.0 - 2e-9, 0.1]]),
    "zero": (4, 4, [[1.0, 1.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]]),
    "one": (1, 1, [[0.3], [2.0]]),
    "graded": (4, 5, [[1.0, 1e-2, 1e-4, 1e-6], [1.0, 0.5, 1e-8, 1e-8]]),
}


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("case", CASES)
def test_is_the_flow_of_balanced_layers(case, depth, whiten):
    n_in, n_out, sigmas = CASES[case]
    task, start = some_task(n_in, n_out, whiten=whiten), maps(n_in, n_out, sigmas)
    run = dln.end_to_end_flow(task, start, T, depth=depth, record=RECORDS, **TIGHT)
    balanced = dln.init.balanced(start, depth=depth)
    layers = dln.gradient_flow(task, balanced, T, record=RECORDS, reduce="none", **TIGHT)
    assert run.names == layers.names
    for name in RECORDS:
        np.testing.assert_allclose(getattr(run, name), getattr(layers, name), atol=1e-9, err_msg=name)
    np.testing.assert_allclose(run.product[:, 0], start, atol=1e-14)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_its_tolerance(name):
    task, start = some_task(4, 3, whiten=False), maps(4, 3, [[1.5, 0.7, 0.2], [0.3, 0.2, 0.1]])
    best = dln.end_to_end_flow(task, start, T, depth=3, record="product", **TIGHT).product
    if name == "rk4":
        errors = [
            np.abs(dln.end_to_end_flow(task, start, T, depth=3, record="product", method=name, step=h).product - best)
            for h in (0.01, 0.005)
        ]
        assert 12 < errors[0][:, -1].max() / errors[1][:, -1].max() < 20  # order 4
        return
    errors = []
    for rtol in (1e-6, 1e-8, 1e-10):
        run = dln.end_to_end_flow(task, start, T, depth=3, record="product", method=name, rtol=rtol)
        errors.append(np.abs(run.product - best).max())
    assert (np.array(errors) < 100 * np.array([1e-6, 1e-8, 1e-10])).all(), errors
    assert errors[2] < errors[1] < errors[0]


def test_a_hundred_layers_take_no_more_work():
    task, start = some_task(4, 3, whiten=True), maps(4, 3, [[0.9, 0.8, 0.7]])
    t = np.linspace(0, 0.2, 5)
    run = dln.end_to_end_flow(task, start, t, depth=100, record="product", rtol=1e-11)
    balanced = dln.init.balanced(start, depth=100)
    layers = dln.gradient_flow(task, balanced, t, record="product", rtol=1e-11, reduce="none")
    np.testing.assert_allclose(run.product, layers.product, atol=1e-9)
    assert run.integrator_steps[0] < 2 * layers.integrator_steps[0]


# ---- against exact solutions -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_agrees_with_decoupled_modes(depth):
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], n_in=5, n_out=4, seed=3)
    U, _, V = task.modes
    u0 = np.array([[0.1, 0.1, 0.1], [0.01, 0.3, 1.7], [4.0, 1e-4, 1e-6]])
    t = np.linspace(0, 8, 17)
    run = dln.end_to_end_flow(task, (U * u0[:, None]) @ V.T, t, depth=depth, method="tsit5", rtol=1e-13)
    start = dln.init.aligned(task, depth=depth, width=4, strength=u0)
    exact = dln.exact.solve(task, start).evaluate(t)
    np.testing.assert_allclose(run.strengths, exact.strengths, atol=1e-10)
    np.testing.assert_allclose(run.loss, exact.loss, atol=1e-10)


@pytest.mark.parametrize("widths", [(4, 4), (5, 3), (3, 6)])
def test_agrees_with_balanced_matrices(widths):
    n_in, n_out = widths
    task = some_task(n_in, n_out, whiten=True)
    start = maps(n_in, n_out, [[1.5, 0.7, 0.2], [1.0, 1.0, 1e-3]])
    exact = dln.exact.solve(task, dln.init.balanced(start, depth=2)).evaluate(T, record=("loss", "product"))
    run = dln.end_to_end_flow(task, start, T, depth=2, record=("loss", "product"), method="tsit5", rtol=1e-13)
    np.testing.assert_allclose(run.product, exact.product, atol=1e-10)
    np.testing.assert_allclose(run.loss, exact.loss, atol=1e-10)


@pytest.mark.parametrize("whiten", [True, False])
def test_one_layer_is_a_linear_equation(whiten):
    task, start = some_task(4, 3, whiten=whiten), maps(4, 3, [[1.5, 0.7, 0.2], [0.0, 0.0, 0.0]])
    run = dln.end_to_end_flow(task, start, T, depth=1, record="product", **TIGHT)
    exact = dln.exact.solve(task, dln.Weights([start])).evaluate(T, record="product")
    np.testing.assert_allclose(run.product, exact.product, atol=1e-10)


@pytest.mark.parametrize("depth", [2, 2.5, 3.7, 20])
def test_any_real_depth(depth):
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], n_in=4, n_out=4, seed=3)
    U, s, V = task.modes
    u0, t = np.array([0.5, 0.9, 0.2]), np.linspace(0, 1, 6)
    run = dln.end_to_end_flow(task, U * u0 @ V.T, t, depth=depth, rtol=1e-12)
    np.testing.assert_allclose(run.strengths[0], dln.exact.balanced_mode(u0, s, t[:, None], depth=depth), atol=1e-9)
    assert run.settings["depth"] == depth


# ---- the velocity ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("depth", [2, 3, 5, 8])
def test_the_slope_is_that_of_the_matrix_powers(depth):
    """At states that are not diagonal, with equal, nearly equal and very different singular values."""
    rng = np.random.default_rng(depth)
    for n_in, n_out, a in (
        (4, 3, [1.1, 0.8, 0.3]),
        (3, 5, [1.0, 1.0, 0.5]),
        (6, 4, [1.2, 1e-3]),
        (3, 3, [1.0, 1 - 1e-9, 0.2]),
    ):
        r = len(a)
        R = ortho_group.rvs(r, random_state=rng)
        P, Q = (np.linalg.qr(rng.normal(size=(n, r)))[0] for n in (n_out, n_in))
        M = (R * a) @ R.T
        yx, d = rng.normal(size=(n_out, n_in)), rng.uniform(0.5, 2, n_in)
        path = Balanced(Learned(yx[None], d[None]), (n_out, n_in), r, float(depth))
        dP, dM, dQ = (x[0] for x in path.parts(path.slope(path.joined(P[None], M[None], Q[None]))))
        power = np.linalg.matrix_power
        S = power(M, depth)
        dS = sum(power(M, j) @ dM @ power(M, depth - 1 - j) for j in range(depth))
        found = dP @ S @ Q.T + P @ dS @ Q.T + P @ S @ dQ.T
        with mpmath.workdps(60):  # Ω itself would round the smallest singular value away
            omega = mpmath.matrix(P.tolist()) * mpmath.matrix(M.tolist()) ** depth * mpmath.matrix(Q.T.tolist())
        wanted = velocity(omega, yx - P @ S @ Q.T * d, depth)
        np.testing.assert_allclose(found, wanted, atol=1e-13 * np.abs(wanted).max() + 1e-14)
        for X, dX in ((P, dP), (Q, dQ)):
            np.testing.assert_allclose(X.T @ dX, -(dX.T @ X), atol=1e-13)


@pytest.mark.parametrize("depth", [0, 1, 2, 2.5, 7, 100])
def test_divided_differences_of_powers(depth):
    pairs = [(1.0, 1.0), (1.0, 1 - 2e-16), (1.3, 1.3 - 1e-9), (0.9, 0.5), (2.0, 1e-20), (1e-3, 0.0), (1e-8, 1e-9)]
    x, y = np.array(pairs).T
    with mpmath.workdps(60):
        X, Y = [mpmath.mpf(a) for a in x], [mpmath.mpf(a) for a in y]
        wanted = [
            depth * a ** (depth - 1) if a == b else (a**depth - b**depth) / (a - b) for a, b in zip(X, Y, strict=True)
        ]
    np.testing.assert_allclose(divided(x, y, depth), np.array(wanted, dtype=float), rtol=1e-14 * max(depth, 1))


RATES = [
    (4, 4, [2.0, 1.0, 0.5, 0.1]),
    (5, 3, [2.0, 1.0, 0.5]),
    (3, 6, [2.0, 2.0, 0.5]),
    (5, 4, [1.0, 1.0, 1.0, 1.0]),
    (5, 4, [1.0, 1.0, 0.0, 0.0]),
    (6, 5, [2.0, 1.0, 1.0, 0.0, 0.0]),
    (4, 3, [0.0, 0.0, 0.0]),
]


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize(("n_in", "n_out", "sigma"), RATES)
def test_the_rates_add_up_to_the_velocity(n_in, n_out, sigma, depth):
    task, omega = some_task(n_in, n_out, whiten=False), maps(n_in, n_out, [sigma])
    rates = dln.singular_rates(task, omega, depth=depth)
    U, s, V, dU, ds, dV = (a[0] for a in rates)
    np.testing.assert_allclose((U * s) @ V.T, omega[0], atol=1e-14)
    wanted = velocity(omega[0], task.sigma_yx - omega[0] @ task.sigma_xx, depth)
    np.testing.assert_allclose((dU * s) @ V.T + (U * ds) @ V.T + (U * s) @ dV.T, wanted, atol=1e-13)
    for X, dX in ((U, dU), (V, dV)):
        np.testing.assert_allclose(X.T @ X, np.eye(len(s)), atol=1e-14)
        np.testing.assert_allclose(X.T @ dX, -(dX.T @ X), atol=1e-13)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize(("n_in", "n_out", "sigma"), RATES)
def test_the_rates_are_those_of_decompositions(n_in, n_out, sigma, depth):
    """Finite differences of the SVD along the line Ω + hΩ', which has the derivatives of the flow."""
    task, omega = some_task(n_in, n_out, whiten=False), maps(n_in, n_out, [sigma])[0]
    U, s, V, dU, ds, dV = (a[0] for a in dln.singular_rates(task, omega, depth=depth))
    moved = velocity(omega, task.sigma_yx - omega @ task.sigma_xx, depth)
    h = 1e-5
    ahead, behind = (np.linalg.svd(omega + x * h * moved, full_matrices=False) for x in (1, -1))
    # One-sided where values are equal: they part in order of their rates.
    np.testing.assert_allclose(np.sort(s + h * ds)[::-1], ahead[1], atol=1e-8)
    for i in range(len(s)):
        if np.count_nonzero(np.abs(s - s[i]) < 1e-3) > 1 or s[i] == 0:
            continue
        assert (ahead[1][i] - behind[1][i]) / (2 * h) == pytest.approx(ds[i], abs=1e-6)
        for x, dx, end in ((U, dU, 0), (V, dV, 2)):
            side = [(d[end] if end == 0 else d[end].T)[:, i] for d in (ahead, behind)]
            side = [v * np.sign(v @ x[:, i]) for v in side]
            np.testing.assert_allclose((side[0] - side[1]) / (2 * h), dx[:, i], atol=1e-5)
    # The vectors of a block, turned as told, are those that are seen a little later.
    if depth > 1:
        for i in np.flatnonzero(s > 0):
            overlap = np.abs(ahead[0].T @ U[:, i])
            assert overlap.max() == pytest.approx(1, abs=1e-7)


def test_rates_of_a_batch_and_of_tasks():
    tasks = dln.Task.stack([some_task(4, 3, whiten=False, seed=seed) for seed in range(3)])
    start = maps(4, 3, [[1.5, 0.7, 0.2]] * 3)
    together = dln.singular_rates(tasks, start, depth=3)
    for i in range(3):
        alone = dln.singular_rates(tasks[i], start[i], depth=3)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_array_equal(a[i], b[0])
    assert dln.singular_rates(tasks, start[0], depth=3).U_dot.shape == (3, 3, 3)


# ---- theorems --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("depth", [2, 3, 6])
def test_the_rank_does_not_grow(depth):
    """Layers in double precision let a singular value of rounding size grow as exp(st) where D = 2."""
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0, 0.5], n_in=6, n_out=4, seed=3)
    start = maps(6, 4, [[0.9, 0.5]])
    run = dln.end_to_end_flow(task, start, [0.0, 1.0, 10.0, 40.0], depth=depth, record=("product", "loss"))
    assert run.settings["rank"] == [2]
    sigma = np.linalg.svd(run.product[0], compute_uv=False)
    assert (sigma[:, 2:] < 1e-15).all()
    # Of rank 2 the best is the best approximation of rank 2.
    np.testing.assert_allclose(sigma[-1, :2], [3, 2], atol=1e-6)
    assert run.loss[0, -1] == pytest.approx(0.5 * (1 + 0.25), abs=1e-9)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_determinant_keeps_its_sign(depth):
    """The start whose determinant has the wrong sign ends in a saddle, however long one waits."""
    task = dln.Task.from_spectrum([3.0, 2.0], n_in=2, n_out=2, seed=3)
    U, _, V = task.modes
    R = np.array([[0.6, -0.8], [0.8, 0.6]])
    t = np.array([0.0, 1.0, 5.0, 20.0, 30.0, 40.0])
    flow = dln.singular_flow(task, U @ R @ np.diag([1, -0.3]) @ R.T @ V.T, t, depth=depth, rtol=1e-10)
    assert (flow.sigma > 0).all()
    assert (np.linalg.det(flow.U[0] @ np.swapaxes(flow.V[0], 1, 2)) * np.linalg.det(U @ V.T) < 0).all()
    assert flow.trajectory.loss[0, -1] == pytest.approx(2.0, abs=1e-5)
    small = flow.sigma[0, :, 1]
    if depth == 2:  # σ' = -2 s σ with s = 2, the mode that is not learned
        assert np.log(small[-2] / small[-1]) / (t[-1] - t[-2]) == pytest.approx(4, rel=1e-8)
    else:  # σ' = -3 s σ^(4/3)
        change = small[-1] ** (-1 / 3) - small[-2] ** (-1 / 3)
        assert change / (t[-1] - t[-2]) == pytest.approx(2, rel=1e-4)


def test_the_loss_falls_and_the_map_stays_where_start_and_task_are():
    rng = np.random.default_rng(5)
    task = dln.Task.from_spectrum([3.0, 2.0], n_in=9, n_out=8, seed=3)
    start = maps(9, 8, [[0.9, 0.5]])
    t = np.linspace(0, 5, 60)
    for depth in (1, 2, 4):
        run = dln.end_to_end_flow(task, start, t, depth=depth, record=("product", "loss"), **TIGHT)
        assert (np.diff(run.loss[0]) < 1e-12).all()
        for matrices, side in ((run.product[0], 0), (np.swapaxes(run.product[0], 1, 2), 1)):
            own = [start[0], task.sigma_yx] if side == 0 else [start[0].T, task.sigma_yx.T]
            basis = np.linalg.qr(np.concatenate(own, axis=1) @ rng.normal(size=(2 * start.shape[2 - side], 4)))[0]
            outside = matrices - basis @ (basis.T @ matrices)
            assert np.abs(outside).max() < 1e-13


@pytest.mark.parametrize("depth", [2, 3])
def test_turned_and_transposed(depth):
    rng = np.random.default_rng(1)
    task, start = some_task(4, 3, whiten=False), maps(4, 3, [[1.5, 0.7, 0.2]])[0]
    A, B = ortho_group.rvs(3, random_state=rng), ortho_group.rvs(4, random_state=rng)
    turned = dln.Task.from_covariances(B @ task.sigma_xx @ B.T, A @ task.sigma_yx @ B.T, task.trace_yy)
    how = {"depth": depth, "record": "product", **TIGHT}
    one, other = dln.end_to_end_flow(task, start, T, **how), dln.end_to_end_flow(turned, A @ start @ B.T, T, **how)
    np.testing.assert_allclose(other.product, A @ one.product @ B.T, atol=1e-10)
    white = dln.Task.from_covariances(None, task.sigma_yx, task.trace_yy + 10)
    across = dln.Task.from_covariances(None, task.sigma_yx.T, task.trace_yy + 10)
    one, other = dln.end_to_end_flow(white, start, T, **how), dln.end_to_end_flow(across, start.T, T, **how)
    np.testing.assert_allclose(np.swapaxes(other.product, -1, -2), one.product, atol=1e-10)


def test_small_singular_values_are_followed_to_their_own_last_digits():
    """An aligned start over 15 decades: while one mode is learned, the others keep the time of theirs."""
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], n_in=3, n_out=3, seed=3)
    # Modes along the axes: no decomposition of the start costs digits of its smallest.
    task = dln.Task.from_covariances(None, np.diag(task.modes.s), 14.0)
    u0, t = np.array([1e-3, 1e-9, 1e-15]), np.linspace(0, 40, 41)
    flow = dln.singular_flow(task, np.diag(u0), t, depth=2, rtol=1e-11)
    np.testing.assert_allclose(flow.sigma[0], dln.exact.balanced_mode(u0, task.modes.s, t[:, None], depth=2), rtol=1e-9)


def test_small_singular_values_of_any_task_in_40_digits():
    """Kutta's method on the two layers, extrapolated: in double precision they keep 4 digits of the smallest."""
    task, start = some_task(3, 3, whiten=False), np.diag([1.0, 1e-6, 1e-12])

    def slope(first, second):
        error = yx - second * first * xx
        return second.T * error, error * first.T

    def product(steps):
        y, h = (mpmath.diag([mpmath.sqrt(x) for x in np.diag(start)]),) * 2, mpmath.mpf(1) / steps
        for _ in range(steps):
            k = [slope(*y)]
            for c in (h / 2, h / 2, h):
                k.append(slope(*(w + c * d for w, d in zip(y, k[-1], strict=True))))
            y = tuple(w + h / 6 * (a + 2 * b + 2 * c + d) for w, a, b, c, d in zip(y, *k, strict=True))
        return y[1] * y[0]

    with mpmath.workdps(40):
        xx, yx = mpmath.matrix(task.sigma_xx.tolist()), mpmath.matrix(task.sigma_yx.tolist())
        rough, fine = product(160), product(320)
        wanted = np.array([float(s) for s in mpmath.svd_r(fine + (fine - rough) / 15, compute_uv=False)])
    flow = dln.singular_flow(task, start, [1.0], depth=2, rtol=1e-11)
    np.testing.assert_allclose(flow.sigma[0, 0], wanted, rtol=1e-10)


# ---- singular values and vectors over time ---------------------------------------------------------------------------
@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("case", ["inputs", "outputs", "square", "low rank", "equal", "zero"])
def test_singular_values_and_vectors_make_up_the_map(case, whiten):
    n_in, n_out, sigmas = CASES[case]
    task, start = some_task(n_in, n_out, whiten=whiten), maps(n_in, n_out, sigmas)
    t = np.linspace(0, 3, 301)
    flow = dln.singular_flow(task, start, t, depth=3, record=("product", "loss"), rtol=1e-10)
    run = dln.end_to_end_flow(task, start, t, depth=3, record=("product", "loss"), rtol=1e-10)
    assert flow.trajectory.source == "singular_flow"
    np.testing.assert_array_equal(flow.trajectory.product, run.product)
    U, V = np.nan_to_num(flow.U), np.nan_to_num(flow.V)
    np.testing.assert_allclose((U * flow.sigma[:, :, None]) @ np.swapaxes(V, 2, 3), run.product, atol=1e-9)
    ordered = -np.sort(-flow.sigma, axis=2)
    np.testing.assert_allclose(ordered, np.linalg.svd(run.product, compute_uv=False), atol=1e-9)
    for i, rank in enumerate(run.settings["rank"]):
        assert np.isnan(flow.U[i, :, :, rank:]).all()
        assert (flow.sigma[i, :, rank:] == 0).all()
        for X in (flow.U[i, :, :, :rank], flow.V[i, :, :, :rank]):
            assert not np.isnan(X).any()
            np.testing.assert_allclose(
                np.swapaxes(X, 1, 2) @ X, np.broadcast_to(np.eye(rank), (301, rank, rank)), atol=1e-9
            )


def test_vectors_move_as_fast_as_the_rates_say():
    task, start = some_task(4, 3, whiten=False), maps(4, 3, [[1.5, 0.7, 0.2]])
    h = 1e-4
    t = np.concatenate([x + h * np.arange(-2, 3) for x in (0.5, 1.0, 2.0)])
    flow = dln.singular_flow(task, start, t, depth=3, record="product", rtol=1e-13)
    for k in (2, 7, 12):
        U, s, _, dU, ds, dV = (a[0] for a in dln.singular_rates(task, flow.trajectory.product[0, k], depth=3))
        order = np.argsort(-flow.sigma[0, k])
        signs = np.sign((U * flow.U[0, k][:, order]).sum(axis=0))
        np.testing.assert_allclose(s, flow.sigma[0, k][order], atol=1e-13)
        stencil = np.array([1, -8, 0, 8, -1]) / (12 * h)
        for found, wanted in ((flow.U[0], dU * signs), (flow.V[0], dV * signs), (flow.sigma[0], ds)):
            rate = np.tensordot(stencil, found[k - 2 : k + 3], axes=1)[..., order]
            np.testing.assert_allclose(rate, wanted, atol=1e-7)


def test_equal_singular_values_part_along_the_vectors_of_the_start():
    task, start = some_task(5, 4, whiten=True), maps(5, 4, [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.3, 0.3]])
    t = np.array([0.0, 1e-6, 1e-4, 1e-3])
    flow = dln.singular_flow(task, start, t, depth=2, rtol=1e-12)
    rates = dln.singular_rates(task, start, depth=2)
    np.testing.assert_allclose((flow.sigma[:, 2] - flow.sigma[:, 0]) / t[2], rates.sigma_dot, atol=2e-3)
    for X, first in ((flow.U, rates.U), (flow.V, rates.V)):
        for k in range(4):
            overlap = np.abs((X[:, k] * first).sum(axis=1))
            np.testing.assert_allclose(overlap, 1, atol=1e-14 + 5 * t[k])


def test_modes_that_overtake_each_other_keep_their_columns():
    task = dln.Task.from_spectrum([3.0, 1.0], n_in=3, n_out=3, seed=3)
    U, s, V = task.modes
    u0, t = np.array([0.2, 0.6]), np.linspace(0, 3, 61)
    for depth in (2, 3):
        flow = dln.singular_flow(task, U * u0 @ V.T, t, depth=depth, rtol=1e-12)
        wanted = dln.exact.balanced_mode(u0[::-1], s[::-1], t[:, None], depth=depth)
        assert (wanted[0] > wanted[0, ::-1]).tolist() == [True, False]
        assert wanted[-1, 1] > wanted[-1, 0]
        np.testing.assert_allclose(flow.sigma[0, :, :2], wanted, atol=1e-10)
        np.testing.assert_allclose(np.abs((flow.U[0, :, :, :2] * U[:, ::-1]).sum(axis=1)), 1, atol=1e-10)


def test_values_that_come_close_repel_each_other():
    """The same with a start turned a little: the columns stay in order, and their vectors turn by a quarter."""
    task = dln.Task.from_spectrum([3.0, 1.0], n_in=2, n_out=2, seed=3)
    U, _, V = task.modes
    t = np.linspace(0, 3, 3001)
    c, s = np.cos(0.02), np.sin(0.02)
    R = np.array([[c, -s], [s, c]])
    flow = dln.singular_flow(task, U @ R @ np.diag([0.2, 0.6]) @ R.T @ V.T, t, depth=3, rtol=1e-10)
    gap = flow.sigma[0, :, 0] - flow.sigma[0, :, 1]
    assert 0 < gap.min() < 0.2 * gap[0]
    along = np.abs((flow.U[0] * U[:, ::-1]).sum(axis=1))[:, 0]
    assert along[0] > 0.99
    assert along[-1] < 0.2
    for X in (flow.U[0], flow.V[0]):
        assert np.abs(np.diff(X, axis=0)).max() < 0.1


def test_vectors_of_a_block_that_never_parts_do_not_turn():
    task = dln.Task.from_covariances(None, 2 * np.eye(4), 20.0)
    flow = dln.singular_flow(task, 0.1 * np.eye(4), np.linspace(0, 3, 30), depth=3, rtol=1e-10)
    assert np.ptp(flow.sigma, axis=2).max() < 1e-13
    for X in (flow.U, flow.V):
        np.testing.assert_allclose(X, np.broadcast_to(X[:, :1], X.shape), atol=1e-12)


# ---- a batch, and how it ends ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_same_bits_whatever_the_company(depth, whiten, monkeypatch):
    from pydln.simulate.balanced import end_to_end

    tasks = dln.Task.stack([some_task(5, 4, whiten=whiten, seed=seed) for seed in range(23)])
    rng = np.random.default_rng(2)
    sigmas = -np.sort(-rng.uniform(0.1, 2, (23, 4)), axis=1)
    sigmas[::3, 1], sigmas[1::4, 2:] = sigmas[::3, 0], 0.0
    start = maps(5, 4, sigmas)
    how = {"depth": depth, "record": RECORDS, "rtol": 1e-7}
    together = dln.end_to_end_flow(tasks, start, T, **how)
    back = dln.end_to_end_flow(dln.Task.stack([tasks[i] for i in range(22, -1, -1)]), start[::-1], T, **how)
    monkeypatch.setattr(end_to_end, "_AT_ONCE", 1)
    pieces = dln.end_to_end_flow(tasks, start, T, **how)
    for name in RECORDS:
        whole = getattr(together, name)
        np.testing.assert_array_equal(whole, getattr(pieces, name))
        np.testing.assert_array_equal(whole, getattr(back, name)[::-1])
        for i in (0, 1, 7, 22):
            alone = dln.end_to_end_flow(tasks[i], start[i], T, **how)
            np.testing.assert_array_equal(getattr(alone, name)[0], whole[i])
    np.testing.assert_array_equal(together.integrator_steps, back.integrator_steps[::-1])
    one_task = dln.end_to_end_flow(tasks[3], start, T, **how)
    np.testing.assert_array_equal(one_task.product[3], together.product[3])
    one_map = dln.end_to_end_flow(tasks, start[3], T, **how)
    np.testing.assert_array_equal(one_map.product[3], together.product[3])


def test_members_that_do_not_get_there_do_not_spoil_the_others():
    task = dln.Task.from_covariances(None, np.diag([100.0, 1.0]), 10001.0)
    start = np.stack([np.diag([1e-3, 1e-3]), np.diag([99.0, 0.9]), np.zeros((2, 2)), np.full((2, 2), 1e300)])
    with pytest.raises(dln.IntegrationError, match="3 of 4 members did not reach the end") as caught:
        dln.end_to_end_flow(task, start, [0.0, 0.1, 500.0], depth=2, max_steps=300, rtol=1e-4)
    run = caught.value.trajectory
    assert run.status.tolist() == [dln.Status.STIFF, dln.Status.STIFF, dln.Status.COMPLETED, dln.Status.DIVERGED]
    assert not np.isnan(run.loss[:3, :2]).any()
    assert np.isnan(run.loss[:2, 2]).all()
    assert run.loss[2].tolist() == [5000.5] * 3
    assert (run.stopped_time[:2] > 0.1).all()
    short = dln.end_to_end_flow(task, start[:2], [0.1], depth=2, max_steps=3, throw=False, rtol=1e-12)
    assert set(short.status) == {dln.Status.STEP_LIMIT}
    with pytest.raises(dln.IntegrationError):
        dln.singular_flow(task, start[:1], [0.1], depth=2, max_steps=3, rtol=1e-12)


def test_times_and_steps():
    task, start = some_task(4, 3, whiten=True), maps(4, 3, [[1.5, 0.7, 0.2]])
    only = dln.end_to_end_flow(task, start, [0.0], depth=3)
    assert only.integrator_steps.tolist() == [0]
    assert only.loss[0, 0] == pytest.approx(float(task.loss(start)[0]), abs=1e-12)
    late = dln.end_to_end_flow(task, start, [2.5], depth=3, rtol=1e-10)
    dense = dln.end_to_end_flow(task, start, np.linspace(0, 2.5, 2001), depth=3, rtol=1e-10)
    assert late.loss[0, 0] == dense.loss[0, -1]
    short = dln.end_to_end_flow(task, start, [2.5], depth=3, max_step=0.01)
    assert short.integrator_steps[0] >= 250


def test_is_saved_and_picked_like_any_trajectory(tmp_path):
    task, start = some_task(4, 3, whiten=True), maps(4, 3, [[1.5, 0.7, 0.2], [1.0, 0.0, 0.0]])
    run = dln.end_to_end_flow(task, start, T, depth=3)
    run.save(tmp_path / "run.npz")
    again = dln.Trajectory.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(again.loss, run.loss)
    assert again[1].settings["rank"] == [1]
    assert run.settings["depth"] == 3
    assert "end_to_end_flow: 2 members" in run.summary()
    assert run.final is None


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("depth", [1, 3])
def test_stops_where_the_layers_do(depth, whiten):
    """The same moments as those of `gradient_flow` with layers that have this product."""
    sigmas = [[1.5, 0.7, 0.2], [0.3, 0.2, 0.1], [0.9, 0.8, 0.05]]
    task, start = some_task(4, 3, whiten=whiten), maps(4, 3, sigmas)
    layers = dln.init.balanced(start, depth=depth)
    t = np.linspace(0, 6, 61)
    limits = {
        "loss": dln.Stop(loss=task.floor + np.array([0.05, 0.2, 100.0])),
        "strengths": dln.Stop(strengths=[0.8 * task.modes.s[0] if whiten else 0.3, np.nan, np.nan]),
        "both": dln.Stop(
            loss=task.floor + 0.3, strengths=0.9 * np.abs(np.diag(task.modes.U.T @ start[0] @ task.modes.V))
        ),
    }
    for name, stop in limits.items():
        run = dln.end_to_end_flow(task, start, t, depth=depth, stop=stop, record=RECORDS, **TIGHT)
        free = dln.gradient_flow(task, layers, t, stop=stop, record=RECORDS, reduce="none", **TIGHT)
        np.testing.assert_array_equal(run.status, free.status, err_msg=name)
        assert (run.status != dln.Status.COMPLETED).any()
        when = run.stopped_time
        np.testing.assert_allclose(when, free.stopped_time, atol=1e-8, err_msg=name)
        np.testing.assert_array_equal(np.isnan(run.loss), t > when[:, None])
        np.testing.assert_array_equal(np.isnan(run.product).all(axis=(2, 3)), t > when[:, None])
        for record in RECORDS:
            np.testing.assert_allclose(getattr(run, record), getattr(free, record), atol=1e-8, err_msg=record)
        assert repr(run.settings["stop"]) == repr(free.settings["stop"])
    at_once = dln.end_to_end_flow(task, start, t, depth=depth, stop=limits["loss"])
    assert at_once.stopped_time[2] == 0
    assert at_once.status[2] == dln.Status.REACHED_LOSS
    alone = dln.end_to_end_flow(task, start[1], t, depth=depth, stop=dln.Stop(loss=task.floor + 0.2))
    assert alone.stopped_time[0] == at_once.stopped_time[1], "company changes no bit"
    np.testing.assert_array_equal(alone.loss[0], at_once.loss[1])


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("whiten", [True, False])
def test_steady_bounds_the_speed_of_every_layer(depth, whiten):
    task, start = some_task(4, 3, whiten=whiten), maps(4, 3, [[1.5, 0.7, 0.2], [0.3, 0.2, 0.1]])
    run = dln.end_to_end_flow(task, start, [0.0, 60.0], depth=depth, stop=dln.Stop(steady=0.05), **TIGHT)
    assert (run.status == dln.Status.STEADY).all()
    for i, when in enumerate(run.stopped_time):
        layers = dln.gradient_flow(task, dln.init.balanced(start[i], depth=depth), [when], record="weights", **TIGHT)
        W = [w[0, 0] for w in layers.weights]
        E = task.sigma_yx - chained(W, 4) @ task.sigma_xx
        speeds = [chained(W[k + 1 :], 3).T @ E @ chained(W[:k], 4).T for k in range(depth)]
        size = np.abs(speeds[0]).max() if depth == 1 else max(np.linalg.norm(k, 2) for k in speeds)
        # Steady is the moment when neither the speed nor the one that is left to be attained is above the limit.
        attainable = end_to_end.attainable_speed(np.sum(E**2), 0.0, depth) if depth > 1 else 0.0
        assert max(size, attainable) == pytest.approx(0.05, rel=1e-6)
    nothing = dln.end_to_end_flow(task, np.zeros((3, 4)), [0.0, 1.0], depth=3, stop=dln.Stop(steady=1e-300))
    assert nothing.status[0] == dln.Status.STEADY


def chained(layers, n):
    """W_k ⋯ W_1, the identity of n where there are none."""
    product = np.eye(n)
    for W in layers:
        product = W @ product if W.shape[1] == product.shape[0] else W
    return product


@pytest.mark.parametrize("method", ["dopri5", "dop853", "rk4"])
def test_every_method_stops(method):
    task, start = some_task(4, 3, whiten=True), maps(4, 3, [[0.3, 0.2, 0.1]])
    how = {"step": 0.01} if method == "rk4" else {"rtol": 1e-11}
    stop = dln.Stop(loss=task.floor + 0.2)
    run = dln.end_to_end_flow(task, start, [5.0], depth=3, stop=stop, method=method, **how)
    best = dln.end_to_end_flow(task, start, [5.0], depth=3, stop=stop, **TIGHT)
    assert run.stopped_time == pytest.approx(best.stopped_time, abs=1e-7)


def test_a_stop_is_checked_before_work():
    task, start = some_task(4, 3, whiten=True), maps(4, 3, [[0.3, 0.2, 0.1], [0.4, 0.2, 0.1]])
    with pytest.raises(ValueError, match=r"stop\.loss: expected 1 or 2 members like product, got 3"):
        dln.end_to_end_flow(task, start, [1.0], depth=3, stop=dln.Stop(loss=np.ones(3)))
    with pytest.raises(TypeError, match=r"stop: expected pydln\.Stop"):
        dln.singular_flow(task, start, [1.0], depth=3, stop=0.1)
    flow = dln.singular_flow(task, start, [0.0, 5.0], depth=3, stop=dln.Stop(loss=task.floor + 0.2))
    assert (flow.trajectory.status == dln.Status.REACHED_LOSS).all()
    assert np.isnan(flow.sigma[:, 1]).all()


def test_ctrl_c_keeps_what_there_is():
    task, start = some_task(4, 4, whiten=True), maps(4, 4, [[1.0, 0.7, 0.2, 0.1], [1.0, 0.5, 0.0, 0.0]])

    def press(done, total):
        if done > 30:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(dln.Interrupted, match="members are complete") as caught:
        dln.end_to_end_flow(task, start, np.linspace(0, 5, 40), depth=3, progress=press)
    run = caught.value.trajectory
    # Those of rank 2 come first, and are interrupted or complete; then nothing is begun.
    assert run.status[0] == dln.Status.INTERRUPTED
    assert not np.isnan(run.loss[1, :20]).any()


def test_progress_comes_to_its_end():
    seen = []
    task, start = some_task(4, 3, whiten=True), maps(4, 3, [[1.5, 0.7, 0.2], [1.0, 0.0, 0.0]])
    dln.end_to_end_flow(task, start, T, depth=3, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2 * len(T), 2 * len(T))
    assert all(a[0] <= b[0] for a, b in pairwise(seen))


def test_wrong_arguments():
    task, start = some_task(4, 3, whiten=True), maps(4, 3, [[1.5, 0.7, 0.2]])
    wrong = [
        ({"t": [1.0, 1.0]}, "t: expected increasing"),
        ({"t": [-1.0]}, "t: expected"),
        ({"depth": 0}, "depth: expected a number >= 1"),
        ({"depth": 1.5}, "depth: expected 1 or a number >= 2, got 1.5"),
        ({"depth": np.inf}, "depth: expected a finite number"),
        ({"depth": [2, 3]}, "depth: expected a number"),
        ({"product": np.ones((4, 3))}, r"product: expected \(3, 4\) or \(batch, 3, 4\) like the task, got \(4, 3\)"),
        ({"product": np.ones(4)}, "product: expected"),
        ({"product": np.full((3, 4), np.nan)}, "product: expected finite numbers"),
        ({"product": np.ones((0, 3, 4))}, "product: expected"),
        ({"record": "energy"}, "record: expected one of"),
        ({"record": "weights"}, "record: expected names out of loss, .* got weights, which belongs to layers"),
        ({"method": "euler"}, "method: expected one of"),
        ({"method": "rk4"}, "step: expected the length"),
        ({"rtol": 0}, "rtol: expected at least"),
        ({"max_steps": 0}, "max_steps: expected"),
        ({"task": dln.Task.stack([task] * 3), "product": np.ones((2, 3, 4))}, "task: expected 1 or 2 members"),
    ]
    sound = {"task": task, "product": start, "t": T, "depth": 3}
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            dln.end_to_end_flow(**(sound | change))
    with pytest.raises(TypeError, match=r"task: expected a pydln\.Task"):
        dln.end_to_end_flow(None, start, T, depth=3)
    with pytest.raises(TypeError, match="product: expected an array, got Weights"):
        dln.end_to_end_flow(task, dln.init.balanced(start, depth=2), T, depth=2)
    white = dln.Task.from_covariances(None, task.sigma_yx, task.trace_yy)
    with pytest.raises(ValueError, match="record: expected a task with held-out covariances"):
        dln.end_to_end_flow(white, start, T, depth=3, record="test_loss")
    with pytest.raises(ValueError, match="depth: expected a number >= 2"):
        dln.singular_flow(task, start, T, depth=1)
    with pytest.raises(ValueError, match="depth: expected 1 or a number >= 2"):
        dln.singular_rates(task, start, depth=1.5)
    with pytest.raises(ValueError, match="product: expected"):
        dln.singular_rates(task, start[0].T, depth=2)


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize(("depth", "layers"), [(1, False), (2, False), (2, True), (3, False)])
def test_times_long_after_convergence(depth, layers, whiten):
    """What has converged stays where it is, and takes no steps that grow with the time left."""
    task, start = some_task(4, 3, whiten=whiten), maps(4, 3, [[0.5, 0.2, 0.1], [0.3, 0.2, 0.1]])
    t = np.r_[0, np.geomspace(1, 1e6, 50)]
    if layers:
        run = dln.gradient_flow(task, dln.init.balanced(start, depth=depth), t, reduce="balanced", max_steps=6000)
    else:
        run = dln.end_to_end_flow(task, start, t, depth=depth, max_steps=6000)
    assert (run.status == dln.Status.COMPLETED).all()
    assert np.isfinite(run.loss).all()
    np.testing.assert_allclose(run.loss[:, -1], task.floor, rtol=0, atol=1e-24)
    assert (np.diff(run.loss, axis=1) <= 1e-15).all()


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ([[0, 0], [0, 1e-3]], [0, 1]),  # beside the stronger mode by nothing: it stays so
        ([[0, 1e-17], [0, 1e-3]], [2, 0]),  # by a bit: it turns to it in the end
        ([[1e-3, 0], [0, 0]], [2, 0]),  # rank one at its optimum: nothing turns it away
        ([[1e-3, 0], [0, 1e-200]], [2, 1]),  # a singular value of any size is learned
    ],
)
def test_rests_at_a_saddle_only_where_nothing_grows(start, end):
    task = dln.Task.from_covariances(None, np.diag([2.0, 1.0]), 5.0)
    run = dln.end_to_end_flow(task, np.array(start, dtype=float), [0, 30, 1000], depth=2, max_steps=4000, throw=False)
    if run.status[0] == dln.Status.COMPLETED:
        np.testing.assert_allclose(run.strengths[0, -1], end, rtol=0, atol=1e-7)
    else:
        assert end == [0, 1], "given up where rounding decides, and nowhere else"


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-8])
def test_a_plateau_is_not_steady(depth, scale):
    """However slow a small start is: steady is what has learned all that its rank allows."""
    task = dln.Task.from_covariances(None, np.diag([2.0, 1.5, 1.0]), 10.0)
    for start, floor in (
        (np.diag([1.0, 0.5, 0.2]), 0.0),
        (np.diag([1.0, 0.5, 0.0]), 0.5),
        (np.diag([1.0, 0, 0]), 1.625),
    ):
        end = 40 / scale if depth == 3 else 60.0
        run = dln.end_to_end_flow(task, start * scale, [0.0, end], depth=depth, stop=dln.Stop(steady=1e-3))
        if depth == 3 and scale < 1e-3:
            continue  # a plateau of hundreds: not over, or it is as below
        assert run.status[0] == dln.Status.STEADY
        last = dln.end_to_end_flow(task, start * scale, [float(run.stopped_time[0])], depth=depth, record="loss")
        assert task.floor + floor <= last.loss[0, -1] + 1e-12 <= task.floor + floor + 1e-4


@pytest.mark.parametrize("method", ["tsit5", "dopri5", "dop853"])
@pytest.mark.parametrize("eps", [1e-6, 1e-8, 1e-10])
def test_a_mode_beside_a_learned_one_is_followed_to_ten_times_the_tolerance(method, eps):
    """Layers diag(√2, ε): u_2 is half of s_2 = 1 at ½ ln((1 - ε²)/ε²)."""
    task = dln.Task.from_covariances(None, np.diag([2.0, 1.0]), 5.0)
    half = [0.5 * np.log1p(-(eps**2)) - np.log(eps)]
    run = dln.end_to_end_flow(task, np.diag([2.0, eps**2]), half, depth=2, method=method)
    layers = dln.Weights([np.diag([2**0.5, eps])] * 2)
    other = dln.gradient_flow(task, layers, half, reduce="balanced", method=method)
    for found in (run, other):
        np.testing.assert_allclose(found.strengths[0, 0], [2.0, 0.5], rtol=0, atol=1e-7)
