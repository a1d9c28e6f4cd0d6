"""Two layers from any lambda-balanced start: the matrix solution against mpmath, integration and theorems."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
import reference
from test_exact import EVERYTHING, assert_follows, flow, whitened

import pydln as dln
from pydln.exact import solve
from pydln.exact.aligned_two_layers import AlignedTwoLayers
from pydln.exact.balanced_two_layers import BalancedTwoLayers
from pydln.exact.start import Start

LAMBDAS = (0.0, 1e-3, -1e-3, 0.5, -0.5, 5.0, -5.0)


def orthonormal(rng, n, k):
    return np.linalg.qr(rng.normal(size=(n, k)))[0]


def root(gram):
    values, vectors = np.linalg.eigh(gram)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def balanced_start(widths, lam, scale, seed):
    """The side that lambda makes heavier is the root of the other's Gram matrix plus |lambda|, turned."""
    rng = np.random.default_rng([seed, *widths])
    n_in, hidden, n_out = widths
    if lam > 0 or (lam == 0 and n_out >= hidden):
        first = scale * rng.normal(size=(hidden, n_in)) / np.sqrt(n_in)
        return first, orthonormal(rng, n_out, hidden) @ root(first @ first.T + lam * np.eye(hidden))
    if lam < 0 or n_in >= hidden:
        second = scale * rng.normal(size=(n_out, hidden)) / np.sqrt(hidden)
        return root(second.T @ second - lam * np.eye(hidden)) @ orthonormal(rng, n_in, hidden).T, second
    # A hidden layer wider than both ends: balanced with a rank that fits.
    r = min(n_in, n_out)
    a = scale * rng.normal(size=r)
    hidden_frame = orthonormal(rng, hidden, r)
    return (hidden_frame * a) @ orthonormal(rng, n_in, r).T, (orthonormal(rng, n_out, r) * a) @ hidden_frame.T


def cases():
    """200, over all orders of the widths."""
    shapes = list(itertools.product((1, 2, 3, 4), repeat=3))
    rng = np.random.default_rng(0)
    found = []
    while len(found) < 200:
        widths = shapes[len(found) % len(shapes)]
        lam = LAMBDAS[int(rng.integers(len(LAMBDAS)))]
        if (lam > 0 and widths[1] > widths[2]) or (lam < 0 and widths[1] > widths[0]):
            lam = 0.0
        found.append((widths, lam, float(10 ** rng.uniform(-4, 0.5)), float(10 ** rng.uniform(-2, 2)), len(found)))
    return found


def with_many_digits(S, first, second, lam, t):
    """P(t) = e^{Ft} Q_0 (I + Q_0ᵀ ∫ e^{2Fs} ds Q_0)⁻¹ Q_0ᵀ e^{Ft}, digits to spare for what e^{2Ft} cancels."""
    n_out, n_in = S.shape
    mpmath.mp.dps = 60 + int(2 * t * (np.linalg.norm(S, 2) + abs(lam)))
    F = mpmath.zeros(n_in + n_out)
    for i in range(n_in + n_out):
        F[i, i] = mpmath.mpf(lam) / 2 * (-1 if i < n_in else 1)
    for i, j in np.ndindex(S.shape):
        F[n_in + i, j] = F[j, n_in + i] = mpmath.mpf(S[i, j])
    Q = mpmath.matrix(np.vstack([first.T, second]).tolist())
    w, turn = mpmath.eigsy(F)
    small = mpmath.mpf(10) ** (-mpmath.mp.dps // 2)
    X = turn.T * Q
    g = mpmath.diag([mpmath.expm1(2 * x * t) / (2 * x) if abs(x) > small else mpmath.mpf(t) for x in w])
    grown = turn * mpmath.diag([mpmath.exp(x * t) for x in w]) * X
    P = grown * (mpmath.eye(Q.cols) + X.T * g * X) ** -1 * grown.T
    return np.array(P.tolist(), dtype=float)


def test_200_cases_against_many_digits() -> None:
    worst = 0.0
    for widths, lam, scale, t, seed in cases():
        first, second = balanced_start(widths, lam, scale, seed)
        S = np.random.default_rng([9, seed]).normal(size=(widths[2], widths[0]))
        solution = BalancedTwoLayers(Start(dln.Task.from_covariances(None, S, 99.0), dln.Weights([first, second])))
        product = solution.evaluate([t], record="product").product[0, 0]
        inputs, outputs = (a[0, 0] for a in solution.representations([t]))
        P = with_many_digits(S, first, second, float(solution.start.imbalance[0]), t)
        got = np.block([[inputs, product.T], [product, outputs]])
        worst = max(worst, np.abs(got - P).max() / np.abs(P).max())
    assert worst < 1e-12


@pytest.mark.parametrize("lam", LAMBDAS)
def test_every_record_against_integration(lam) -> None:
    widths = (4, 2, 3)
    task = dln.Task.from_covariances(None, np.random.default_rng(1).normal(size=(3, 4)), 20.0)
    weights = dln.Weights(balanced_start(widths, lam, 0.4, 3))
    t = np.array([0.0, 0.2, 0.7, 2.0, 6.0])
    solution = solve(task, weights)
    assert solution.name == "balanced, two layers"
    run = solution.evaluate(t, record=EVERYTHING)
    layers, _ = assert_follows(run, task, weights)
    assert (run.drift == 0).all()
    # The records agree with each other to rounding.
    np.testing.assert_allclose(run.weights[1] @ run.weights[0], run.product, atol=1e-14)
    np.testing.assert_allclose(run.loss[0], task.loss(run.product[0]), rtol=1e-12)
    kernel = solution.tangent_kernel([0.7])[0, 0].reshape(12, 12)
    np.testing.assert_allclose(kernel, reference.tangent_kernel([w[2] for w in layers], np.eye(4)), atol=3e-10)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_the_flow_goes_on_from_where_it_is(lam) -> None:
    widths = (4, 3, 5)
    lam = -lam if lam < 0 else lam
    task = dln.Task.from_covariances(None, np.random.default_rng(1).normal(size=(5, 4)), 30.0)
    begun = solve(task, dln.Weights(balanced_start(widths, lam, 0.1, 5)))
    there = begun.evaluate([1.5, 4.0], record=("weights", "product"))
    onward = solve(task, dln.Weights([w[0, 0] for w in there.weights]))
    np.testing.assert_allclose(
        onward.evaluate([2.5], record="product").product[0, 0], there.product[0, 1], rtol=0, atol=2e-12
    )


def test_very_long_times_end_in_the_limit() -> None:
    for widths, lam in (((3, 3, 3), 0.0), ((4, 2, 3), 0.5), ((3, 2, 4), -0.5), ((2, 5, 2), 0.0), ((4, 3, 5), 5.0)):
        S = np.random.default_rng(2).normal(size=(widths[2], widths[0]))
        task = dln.Task.from_covariances(None, S, 50.0)
        solution = BalancedTwoLayers(Start(task, dln.Weights(balanced_start(widths, lam, 1e-6, 1)), 1e-12))
        late = solution.evaluate([1e5, 1e6], record="product").product[0]
        np.testing.assert_allclose(
            late, np.broadcast_to(solution.limit[0], late.shape), atol=1e-5 if lam == 0 else 1e-14
        )
        # Where all modes can be learned, the best map of that rank.
        U, s, V = task.modes
        rank = min(widths)
        best = (U[:, :rank] * s[:rank]) @ V[:, :rank].T
        if solution.reached[0, :rank].all():
            np.testing.assert_allclose(solution.limit[0], best, atol=1e-13)


@pytest.mark.parametrize("seed", range(30))
def test_determinants_of_opposite_sign_end_in_a_saddle(seed) -> None:
    # det W_2 W_1 keeps its sign as long as it is balanced and square: the weakest mode is out of reach.
    S = np.diag([3.0, 2.0, 1.0])
    task = dln.Task.from_covariances(None, S, 20.0)
    first, second = balanced_start((3, 3, 3), 0.0, 0.5, seed)
    if np.linalg.det(second @ first) > 0:
        U = np.linalg.svd(second)[0]
        second = (np.eye(3) - 2 * np.outer(U[:, 0], U[:, 0])) @ second
    solution = solve(task, dln.Weights([first, second]))
    assert solution.reached.tolist() == [[True, True, False]]
    np.testing.assert_allclose(solution.limit[0], np.diag([3.0, 2.0, 0.0]), atol=1e-12)
    times = solution.escape_times()
    assert np.isnan(times[0, 2])
    u = solution.evaluate(times[0, :2]).strengths[0]
    np.testing.assert_allclose(u.diagonal(), [1.5, 1.0], rtol=1e-10)
    # Balanced to rounding: from there a network finds the third mode in the end, which the exact start does not have.
    with pytest.raises(dln.NotApplicable, match=r"not known beyond t = 1\d\.\d+: modes that depend on others"):
        solution.evaluate([0.0, 30.0])
    held = solve(task, dln.Weights([first, second]), tol=1e-12).evaluate([100.0])
    np.testing.assert_allclose(held.strengths[0, 0], [3.0, 2.0, 0.0], atol=1e-12)


def test_small_starts_take_the_times_of_the_scalar_modes() -> None:
    task = whitened(4, 3, [3.0, 2.0, 1.0])
    for u0 in (1e-3, 1e-30, 1e-150):
        weights = dln.init.aligned(task, depth=2, width=3, strength=u0)
        solution = BalancedTwoLayers(Start(task, weights))
        s = task.modes.s
        np.testing.assert_allclose(solution.escape_times()[0], np.log((s - u0) / u0) / (2 * s), rtol=1e-9)
        t = np.geomspace(0.1, 300, 9)
        aligned = AlignedTwoLayers(Start(task, weights)).evaluate(t)
        np.testing.assert_allclose(solution.evaluate(t).strengths, aligned.strengths, rtol=1e-11)


def test_unbalanced_modes_of_one_difference_are_those_of_the_scalar_solution() -> None:
    task = whitened(3, 3, [2.0, 1.0, 0.3])
    a = np.array([0.3, -0.01, 0.2])
    weights = dln.init.aligned(task, depth=2, width=3, layer_strengths=[a, np.sqrt(a**2 + 0.7)])
    t = np.array([0.0, 0.1, 1.0, 5.0, 50.0])
    run = BalancedTwoLayers(Start(task, weights)).evaluate(t, record=("strengths", "loss", "weights"))
    scalar = AlignedTwoLayers(Start(task, weights)).evaluate(t, record=("strengths", "loss", "weights"))
    np.testing.assert_allclose(run.strengths, scalar.strengths, atol=1e-14)
    np.testing.assert_allclose(run.loss, scalar.loss, atol=1e-14)
    for got, want in zip(run.weights, scalar.weights, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-10)


def test_members_with_tasks_and_starts_of_their_own() -> None:
    lambdas, t = (0.5, 0.0, 2.0), [0.0, 1.0, 3.0]
    S = np.random.default_rng(3).normal(size=(3, 4, 3))
    task = dln.Task.from_covariances(None, S, np.full(3, 50.0))
    starts = [balanced_start((3, 2, 4), lam, 0.3, 1) for lam in lambdas]
    weights = dln.Weights([np.stack(layer) for layer in zip(*starts, strict=True)])
    together = solve(task, weights)
    run = together.evaluate(t, record=EVERYTHING)
    for k in range(3):
        alone = solve(task[k], weights[k]).evaluate(t, record=EVERYTHING)
        for name in EVERYTHING[:-1]:
            np.testing.assert_allclose(getattr(run, name)[k], getattr(alone, name)[0], atol=1e-14)
        for got, want in zip(run.weights, alone.weights, strict=True):
            np.testing.assert_allclose(got[k], want[0], atol=1e-10)
    one = solve(task[0], weights).evaluate(t, record=EVERYTHING)
    np.testing.assert_allclose(one.product[0], run.product[0], atol=1e-14)
    spread = solve(task, weights[0]).evaluate(t, record=("product", "strengths"))
    np.testing.assert_allclose(spread.product[0], run.product[0], atol=1e-14)


def test_simulation_follows_the_theory() -> None:
    task = dln.Task.from_covariances(None, np.random.default_rng(1).normal(size=(3, 4)), 20.0)
    weights = dln.Weights(balanced_start((4, 2, 3), -1.0, 0.3, 2))
    gaps = []
    for lr in (2e-3, 1e-3):
        run = dln.gradient_descent(task, weights, lr=lr, steps=round(3 / lr), record=("product", "kernel_distance"))
        exact = solve(task, weights).evaluate(run.t, record=("product", "kernel_distance"))
        gaps.append([np.abs(getattr(run, n) - getattr(exact, n)).max() for n in ("product", "kernel_distance")])
    np.testing.assert_allclose(np.divide(*gaps), 2, rtol=0.05)  # descent is first order in the learning rate


def test_inputs_outside_the_modes_and_many_of_them() -> None:
    # Twenty inputs, three modes, a hidden layer of two: what lies outside the modes is carried in two directions.
    task = whitened(20, 15, [3.0, 2.0, 1.0])
    weights = dln.Weights(balanced_start((20, 2, 15), 0.3, 0.5, 1))
    t = np.array([0.0, 0.5, 3.0])
    solution = solve(task, weights)
    assert solution.w.shape == (1, 2 * 3 + 2 + 2)
    _, product = flow(task, weights, t)
    np.testing.assert_allclose(solution.evaluate(t, record="product").product[0], product, atol=3e-10)


def test_what_is_not_balanced_is_refused_with_the_number() -> None:
    task = whitened(4, 3, [2.0, 1.0, 0.5])
    first, second = balanced_start((4, 2, 3), 0.5, 0.3, 1)
    first = first.copy()
    first[0, 0] += 1e-6
    with pytest.raises(dln.NotApplicable) as caught:
        solve(task, dln.Weights([first, second]))
    message = caught.value.missed["balanced, two layers"]
    assert message.startswith("not lambda-balanced: max|W_2^T W_2 - W_1 W_1^T - lambda I| = ")
    assert message.endswith("with lambda = 0.5")


def test_float32_starts() -> None:
    task = whitened(4, 3, [2.0, 1.0, 0.5])
    exact = balanced_start((4, 2, 3), 0.5, 0.3, 1)
    rounded = dln.Weights([w.astype(np.float32) for w in exact])
    t = [0.0, 1.0, 10.0]
    np.testing.assert_allclose(
        solve(task, rounded).evaluate(t, record="product").product,
        solve(task, dln.Weights(exact)).evaluate(t, record="product").product,
        atol=1e-5,
    )
