"""exact.solve: the solutions against integration of the full weights, and the sentences said when none applies."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import reference
from scipy.integrate import solve_ivp

import pydln as dln
from pydln._base import validate
from pydln.exact import SOLUTIONS, solve
from pydln.exact.registry import Start

EVERYTHING = ("loss", "strengths", "product", "layer_norms", "kernel_distance", "drift", "weights")


def flow(task, weights, times):
    """Gradient flow of one network's full weights, by DOP853 at 1e-11."""
    shapes = [w.shape[1:] for w in weights.layers]
    ends = np.cumsum([0] + [a * b for a, b in shapes])

    def split(y):
        return [y[ends[k] : ends[k + 1]].reshape(shape) for k, shape in enumerate(shapes)]

    def chain(layers, start):
        for w in layers:
            start = w @ start
        return start

    def slope(_, y):
        W = split(y)
        E = task.sigma_yx - chain(W, np.eye(task.n_in)) @ task.sigma_xx
        out = []
        for k in range(len(W)):
            after = chain(W[k + 1 :], np.eye(W[k].shape[0]))
            out.append(after.T @ E @ chain(W[:k], np.eye(task.n_in)).T)
        return np.concatenate([g.ravel() for g in out])

    y0 = np.concatenate([w[0].astype(float).ravel() for w in weights.layers])
    run = solve_ivp(slope, (0, max(times)), y0, method="DOP853", rtol=1e-11, atol=1e-13, t_eval=times)
    assert run.success
    layers = [np.stack([split(y)[k] for y in run.y.T]) for k in range(len(shapes))]
    product = np.stack([chain(split(y), np.eye(task.n_in)) for y in run.y.T])
    return layers, product


def assert_follows(run, task, weights, *, atol=3e-10, loss=1e-9):
    """Every record but the test loss against the integrated flow of one network; returns its layers."""
    layers, product = flow(task, weights, run.t)
    for got, want in zip(run.weights, layers, strict=True):
        np.testing.assert_allclose(got[0], want, atol=atol)
    np.testing.assert_allclose(run.product[0], product, atol=atol)
    np.testing.assert_allclose(run.loss[0], task.loss(product), atol=loss)
    U, _, V = task.modes
    np.testing.assert_allclose(run.strengths[0], np.einsum("ia,tij,ja->ta", U, product, V), atol=atol)
    norms = [np.linalg.norm(w, axis=(1, 2)) for w in layers]
    np.testing.assert_allclose(run.layer_norms[0], np.stack(norms, axis=-1), atol=atol)
    start = [w[0] for w in layers]
    moved = [reference.kernel_distance([w[k] for w in layers], start, task.sigma_xx) for k in range(len(run.t))]
    np.testing.assert_allclose(run.kernel_distance[0], moved, atol=atol)
    assert run.drift.shape == (1, len(run.t), len(layers) - 1)
    return layers, product


def whitened(n_in, n_out, s, seed=0, trace=None):
    return dln.Task.from_spectrum(s, n_in, n_out, seed=seed, trace_yy=trace)


CASES = {
    "2 layers, balanced": (6, 4, [3.0, 2.0, 1.0, 0.5], {"depth": 2, "width": 5, "strength": 0.05}),
    "2 layers, unbalanced": (3, 5, [2.0, 1.0], {"depth": 2, "width": 4, "layer_strengths": [[0.1, 0.5], [0.4, 0.02]]}),
    "2 layers, one side zero": (
        4,
        3,
        [2.0, 1.0, 0.5],
        {"depth": 2, "width": 6, "layer_strengths": [[0, 0.3, 0], [0.3, 0, 0]]},
    ),
    "2 layers, opposed": (4, 3, [2.0, 1.0, 0.5], {"depth": 2, "layer_strengths": [0.4, -0.1]}),
    "2 layers, over the top": (4, 4, [2.0, 1.0], {"depth": 2, "strength": [[5.0, 0.1]]}),
    "3 layers": (5, 4, [2.0, 1.5, 1.0], {"depth": 3, "width": [6, 3], "strength": 0.05}),
    "3 layers, negative": (5, 4, [2.0, 1.5, 1.0], {"depth": 3, "strength": [[-0.3, 0.2, 3.0]]}),
    "6 layers": (3, 2, [1.2, 1.0], {"depth": 6, "width": 4, "strength": 0.2}),
    "zero modes": (4, 3, [2.0, 1.0, 0.0], {"depth": 3, "strength": [[0.2, 0.0, 0.4]]}),
}


@pytest.mark.parametrize("case", CASES)
def test_solutions_against_integration_of_all_weights(case):
    n_in, n_out, s, start = CASES[case]
    task = whitened(n_in, n_out, s, trace=40.0)
    weights = dln.init.aligned(task, seed=3, **start)
    t = np.array([0.0, 0.3, 1.0, 2.5, 6.0])
    # A mode that is zero in theory is rounding here, which two layers would learn in the end.
    leave_out = 1e-12 if case == "2 layers, one side zero" else None
    run = solve(task, weights, tol=leave_out).evaluate(t, record=EVERYTHING)
    assert_follows(run, task, weights)
    assert run.drift.max() < 1e-13
    # The records agree with each other to rounding, not only to the integrator's error.
    chained = run.weights[0]
    for w in run.weights[1:]:
        chained = w @ chained
    np.testing.assert_allclose(chained, run.product, atol=1e-14)
    np.testing.assert_allclose(run.loss[0], task.loss(run.product[0]), rtol=1e-13)


@pytest.mark.parametrize("whiten", [True, False])
def test_one_layer_from_any_start(whiten):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4)) * [3.0, 1.0, 0.5, 0.0]  # a direction without variance: nothing moves along it
    task = dln.Task.from_data(x, x @ rng.normal(size=(4, 3)) + rng.normal(size=(30, 3)), whiten=whiten)
    weights = dln.init.gaussian([4, 3], seed=1)
    t = np.array([0.0, 0.1, 1.0, 7.0])
    run = solve(task, weights).evaluate(t, record=EVERYTHING)
    _, product = flow(task, weights, t)
    np.testing.assert_allclose(run.product[0], product, atol=1e-10)
    np.testing.assert_allclose(run.weights[0][0], product, atol=1e-10)
    np.testing.assert_allclose(run.loss[0], task.loss(product), atol=1e-10)
    assert run.drift.shape == (1, 4, 0)
    assert run.source == "exact:one layer"
    late = solve(task, weights).evaluate([1e6])
    np.testing.assert_allclose(late.loss, task.floor, rtol=1e-14)


def test_long_times_end_at_the_minimum_and_keep_the_digits_of_the_loss():
    task = whitened(5, 4, [2.0, 1.0, 0.5])
    for depth in (1, 2, 3, 5):
        weights = dln.init.aligned(task, depth=depth, strength=1e-3)
        run = solve(task, weights).evaluate([20.0, 30.0, 1e6], record=("loss", "product"))
        np.testing.assert_allclose(run.product[0, -1], task.optimum, atol=1e-15)
        assert run.loss[0, -1] == 0.0
        if depth <= 2:  # s = 0.5 decays as e^(-2t) in the loss, far below the rounding of the product
            decay = math.log(run.loss[0, 0] / run.loss[0, 1]) / 10
            assert decay == pytest.approx(2.0, rel=1e-4)
            assert 0 < run.loss[0, 1] < 1e-20


def test_semigroup():
    task = whitened(5, 4, [2.0, 1.0, 0.5])
    for depth, start in ((2, {"layer_strengths": [0.3, -0.2]}), (3, {"strength": 0.1}), (1, {"strength": 0.1})):
        weights = dln.init.aligned(task, depth=depth, **start)
        record = ("weights", "product")
        first = solve(task, weights).evaluate([0.7], record=record)
        second = solve(task, dln.Weights([w[:, 0] for w in first.weights])).evaluate([1.1], record=record)
        both = solve(task, weights).evaluate([1.8], record=record)
        np.testing.assert_allclose(second.product, both.product, atol=1e-14)
        for a, b in zip(second.weights, both.weights, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-14)


@pytest.mark.parametrize("depth", [2, 3])
def test_invariances(depth):
    task = whitened(5, 4, [2.0, 1.0, 0.5])
    weights = dln.init.aligned(task, depth=depth, strength=0.1)
    t = np.linspace(0, 4, 5)
    run = solve(task, weights).evaluate(t)
    rng = np.random.default_rng(1)
    turn = [np.linalg.qr(rng.normal(size=(n, n)))[0] for n in weights.widths]
    # Hidden rotations change nothing; input and output rotations move the task along.
    turned = dln.Weights([turn[k + 1] @ w @ turn[k].T for k, w in enumerate(weights.layers)])
    moved = dln.Task.from_covariances(None, turn[-1] @ task.sigma_yx @ turn[0].T, task.trace_yy)
    np.testing.assert_allclose(solve(moved, turned).evaluate(t).loss, run.loss, rtol=1e-10)
    hidden = [np.eye(5), *turn[1:-1], np.eye(4)]
    turned = dln.Weights([hidden[k + 1] @ w @ hidden[k].T for k, w in enumerate(weights.layers)])
    np.testing.assert_allclose(solve(task, turned).evaluate(t).strengths, run.strengths, rtol=1e-13)
    # Omega -> c Omega speeds time up by c^(2 - 2/D).
    scaled = whitened(5, 4, [6.0, 3.0, 1.5])
    big = dln.Weights([3.0 ** (1 / depth) * w for w in weights.layers])
    faster = solve(scaled, big).evaluate(t / 3.0 ** (2 - 2 / depth))
    np.testing.assert_allclose(faster.strengths, 3 * run.strengths, rtol=1e-12)


def test_batches_go_together_either_way():
    tasks = [whitened(4, 3, [2.0, 1.0, 0.5], seed=k) for k in range(3)]
    batched = dln.Task.stack(tasks)
    weights = dln.init.aligned(batched, depth=2, layer_strengths=[0.3, 0.1], seed=5)
    t = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    run = solve(batched, weights).evaluate(t, record=EVERYTHING)
    assert run.batch == 3
    for k, task in enumerate(tasks):
        one = solve(task, weights[k]).evaluate(t[k], record=EVERYTHING)
        for name in EVERYTHING[:-1]:
            np.testing.assert_array_equal(getattr(run, name)[k], getattr(one, name)[0])
        for a, b in zip(run.weights, one.weights, strict=True):
            np.testing.assert_array_equal(a[k], b[0])
    # One task, many starts; one start, many tasks; one of both at times per member.
    starts = dln.init.aligned(tasks[0], depth=3, strength=[0.1, 0.2, 0.3])
    assert solve(tasks[0], starts).evaluate([1.0, 2.0]).strengths.shape == (3, 2, 3)
    same = dln.Task.stack([tasks[0]] * 3)
    many = solve(same, starts[1]).evaluate([1.0, 2.0], record=EVERYTHING)
    assert many.weights[0].shape == (3, 2, 3, 4)
    np.testing.assert_array_equal(many.loss[2], solve(tasks[0], starts[1]).evaluate([1.0, 2.0]).loss[0])
    spread = solve(tasks[0], starts[0]).evaluate(t, record=EVERYTHING)
    assert spread.loss.shape == (3, 2)
    np.testing.assert_array_equal(spread.loss[:, 0], spread.loss[0, 0])
    with pytest.raises(ValueError, match=r"t: expected \(time,\) or \(3, time\), got \(2, 2\)"):
        solve(batched, weights).evaluate(t[:2])
    with pytest.raises(ValueError, match="weights: expected 1 or 3 members like the task, got 2"):
        solve(batched, starts[:2])


def test_times_in_any_order_and_record():
    task = whitened(4, 3, [2.0, 1.0])
    solution = solve(task, dln.init.aligned(task, depth=3, strength=0.1))
    run = solution.evaluate([3.0, 0.0, 1.0])
    assert run.names == ("loss", "strengths")
    assert run.steps is None
    assert (run.stopped_step, run.integrator_steps, run.rejected) == (None, None, None)
    assert run.stopped_time.tolist() == [run.t.max()]
    np.testing.assert_array_equal(run.loss[0, 0], solution.evaluate([3.0]).loss[0, 0])
    assert solution.evaluate([1.0], record="product").names == ("product",)
    assert solution.evaluate(np.zeros(0)).loss.shape == (1, 0)
    with pytest.raises(dln.NotRecorded):
        _ = run.product
    for t, message in (
        ([-1.0], "t: expected numbers >= 0"),
        ([math.nan], "t: expected finite numbers"),
        (1.0, r"t: expected \(time,\) or \(1, time\), got \(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            solution.evaluate(t)
    with pytest.raises(ValueError, match="record: expected one of 'loss'"):
        solution.evaluate([1.0], record="lost")
    with pytest.raises(ValueError, match="record: expected a task with held-out covariances for test_loss"):
        solution.evaluate([1.0], record="test_loss")


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_test_loss(depth):
    task = whitened(4, 3, [2.0, 1.0], trace=9.0)
    held_out = dln.Task.from_covariances(np.diag([2.0, 1, 1, 1]), task.sigma_yx * 0.9, 10.0)
    task = dln.Task.from_covariances(None, task.sigma_yx, 9.0, test=held_out)
    weights = dln.init.aligned(task, depth=depth, strength=[0.1, 0.2])
    run = solve(task, weights).evaluate([0.0, 1.0, 2.0], record=("test_loss", "product"))
    np.testing.assert_allclose(run.test_loss, held_out.loss(run.product), rtol=1e-14)


def test_simulation_follows_the_theory():
    task = whitened(6, 5, [2.0, 1.0, 0.5])
    for depth in (1, 2, 4):
        weights = dln.init.aligned(task, depth=depth, width=8, strength=0.1) if depth > 1 else dln.init.gaussian([6, 5])
        gaps = []
        for lr in (1e-3, 5e-4):
            run = dln.gradient_descent(task, weights, lr=lr, steps=round(8 / lr))
            exact = solve(task, weights).evaluate(run.t)
            gaps.append(np.abs(run.strengths - exact.strengths).max())
        assert gaps[0] < 5e-3
        assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)  # descent is first order in the learning rate


def test_starts_in_float32_and_of_many_sizes_are_recognised():
    task = whitened(40, 30, [3.0, 2.0, 1.0])
    for depth in (2, 3, 7):
        w = dln.init.aligned(task, depth=depth, width=50, strength=1e-3, batch=4, dtype=np.float32)
        run = solve(task, w).evaluate([0.0])
        np.testing.assert_allclose(run.strengths, 1e-3, rtol=1e-4)
    # Strengths from 1e-300 to 1: equal in one network, and side by side as far as rounding of the weights leaves them.
    for u in (1e-300, 1e-30, 1e-6, 1.0):
        for depth in (2, 3, 10):
            run = solve(task, dln.init.aligned(task, depth=depth, strength=u)).evaluate([0.0])
            np.testing.assert_allclose(run.strengths, u, rtol=1e-12)
    for depth, tol in ((2, 1e-12), (3, None)):
        weights = dln.init.aligned(task, depth=depth, strength=[[1.0, 1e-10, 0.0]])
        run = solve(task, weights, tol=tol).evaluate([0.0, 3.0])
        np.testing.assert_allclose(run.strengths[0, 0], [1.0, 1e-10, 0.0], rtol=1e-9)
        assert run.strengths[0, 1, 2] == 0.0


def test_parts_that_never_move_are_allowed():
    # Modes of the identity: inputs 3 and 4 reach the hidden layers and go no further.
    task = dln.Task.from_covariances(None, np.diag([2.0, 1.0]) @ np.eye(2, 4), 5.0)
    weights = dln.init.identity([4, 4, 4, 2], scale=0.5)
    t = np.array([0.0, 1.0, 3.0])
    run = solve(task, weights).evaluate(t, record=("weights", "layer_norms"))
    layers, _ = flow(task, weights, t)
    for got, want in zip(run.weights, layers, strict=True):
        np.testing.assert_allclose(got[0], want, atol=3e-10)
    np.testing.assert_allclose(run.layer_norms[0, :, 0], np.linalg.norm(layers[0], axis=(1, 2)), atol=3e-10)


def reason(task, weights):
    with pytest.raises(dln.NotApplicable) as caught:
        solve(task, weights)
    return str(caught.value)


def test_not_applicable_names_the_condition_and_the_number():
    task = whitened(4, 3, [2.0, 1.0, 0.5])
    text = reason(task, dln.init.aligned(task, depth=3, layer_strengths=[0.1, 0.2, 0.6]))
    assert text.startswith("not balanced: max|W_3^T W_3 - W_2 W_2^T| = 0.32 ")
    assert len(text.splitlines()) == 1
    start = dln.init.aligned(task, depth=2, strength=0.1)
    other = dln.Task.from_covariances(np.diag([1.0, 1.8, 1.0, 1.0]), task.sigma_yx, 50.0)
    assert reason(other, start).startswith("inputs are correlated between the modes of the task: |Sigma_xx v - d v|")
    with pytest.raises(dln.NotApplicable) as caught:
        solve(other, start)
    assert caught.value.missed["balanced, two layers"].startswith("inputs are not whitened: max|Sigma_xx - I| = 0.8")
    nearly = dln.Task.from_covariances(np.eye(4) * (1 + 1e-14), task.sigma_yx, 50.0)
    assert solve(nearly, start).name == "aligned, two layers"
    text = reason(task, dln.init.gaussian([4, 6, 5, 3], batch=2))
    assert text.startswith("not aligned with the modes of the task: max|W_l r_l - a_l r_(l+1)|/|W_l| = 0.")
    assert "member" in text
    # A small misalignment is measured, not forgiven; rounding is.
    for size, fails in ((1e-9, True), (1e-16, False)):
        bent = [w.copy() for w in start.layers]
        bent[0][0, 0, 0] += size
        if fails:
            with pytest.raises(dln.NotApplicable) as caught:
                solve(task, dln.Weights(bent))
            assert caught.value.missed["aligned, two layers"].startswith("not aligned")
        else:
            solve(task, dln.Weights(bent))
    # A mode much weaker than the others must itself be balanced.
    a = np.array([[1.0, 1e-6, 0.5]] * 3)
    a[2, 1] = 2e-6
    assert reason(task, dln.init.aligned(task, depth=3, layer_strengths=a)).startswith("not balanced")
    # Dead on the input side, alive behind it.
    assert reason(task, dln.init.aligned(task, depth=3, layer_strengths=[0.0, 0.1, 0.1])).startswith("not balanced")


def test_products_outside_the_given_modes_are_refused():
    task = whitened(4, 4, [2.0, 1.0])
    inside = dln.init.aligned(task, depth=2, width=4, strength=0.1)
    solve(task, inside)
    U, _, V = task.modes
    out, _ = np.linalg.qr(np.concatenate([U, np.eye(4)], axis=1))
    into, _ = np.linalg.qr(np.concatenate([V, np.eye(4)], axis=1))
    hidden = np.linalg.svd(inside.layers[0][0])[0][:, 3]
    beside = dln.Weights(
        [
            inside.layers[0][0] + 0.3 * np.outer(hidden, into[:, 3]),
            inside.layers[1][0] + 0.4 * np.outer(out[:, 3], hidden),
        ]
    )
    with pytest.raises(dln.NotApplicable) as caught:
        solve(task, beside)
    missed = caught.value.missed["aligned, two layers"]
    assert missed.startswith("the weights reach outside the 2 modes of the task on both sides")


def test_wrong_arguments():
    task = whitened(4, 3, [2.0, 1.0])
    with pytest.raises(ValueError, match="weights: expected 4 inputs and 3 outputs like the task, got 3 and 4"):
        solve(task, dln.init.gaussian([3, 5, 4]))
    with pytest.raises(TypeError, match=r"task: expected a pydln\.Task, got str"):
        solve("task", dln.init.gaussian([4, 3]))
    with pytest.raises(TypeError, match=r"weights: expected pydln\.Weights, got list"):
        solve(task, [np.ones((3, 4))])


def test_every_registered_solution():
    """Whatever is registered starts at the weights it was given and has a name of its own."""
    task = whitened(5, 4, [2.0, 1.0, 0.5])
    assert len({solution.name for solution in SOLUTIONS}) == len(SOLUTIONS)
    found = set()
    for depth in (1, 2, 3):
        weights = dln.init.aligned(task, depth=depth, strength=0.2)
        for candidate in SOLUTIONS:
            start = Start(task, weights)
            if not all(condition.holds for condition in candidate.conditions(start)):
                continue
            found.add(candidate)
            solution = candidate(start)
            assert candidate.name in repr(solution)
            run = solution.evaluate([0.0], record=EVERYTHING)
            for got, want in zip(run.weights, weights.layers, strict=True):
                np.testing.assert_allclose(got[:, 0], want, atol=1e-15)
            np.testing.assert_allclose(run.loss[0, 0], task.loss(weights.product()[0]), rtol=1e-14)
            assert run.drift.size == 0 or run.drift.max() < 1e-15
    assert found == set(SOLUTIONS)


def test_what_every_solution_misses():
    task = whitened(4, 3, [2.0, 1.0, 0.5])
    with pytest.raises(dln.NotApplicable) as caught:
        solve(task, dln.init.aligned(task, depth=3, layer_strengths=[0.1, 0.2, 0.6]))
    assert set(caught.value.missed) == {solution.name for solution in SOLUTIONS}
    assert caught.value.missed["one layer"] == "the depth is not 1: D = 3"
    assert str(caught.value).startswith(caught.value.missed["aligned and balanced"])


def test_inputs_that_only_want_scaling():
    task = dln.Task.hierarchy(3, features=20, normalize="mean")
    assert solve(task, dln.init.aligned(task, depth=2, strength=0.1)).name == "aligned, two layers"
    assert solve(task, dln.init.aligned(task, depth=3, strength=0.1)).name == "aligned and balanced"
    other = dln.Task.from_covariances(np.diag([2.0, 1.0]), np.eye(2), 9.0)
    assert solve(other, dln.init.aligned(other, depth=2, strength=0.1)).name == "aligned, two layers"
    same = dln.Task.from_covariances(2 * np.eye(2), np.eye(2), 9.0)
    assert "not aligned" in reason(same, dln.init.gaussian([2, 3, 3, 2], seed=1))


@pytest.mark.parametrize("size", [1e-11, 8.6e-6, 1e-3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_nearest_condition_is_that_nearest_in_units_of_its_tolerance(size, dtype):
    """lambda-balanced but for `size`, far from aligned: balance is named, and the tolerance that accepts it."""
    if dtype == np.float32 and size < 1e-5:
        return
    task = whitened(4, 3, [2.0, 1.0, 0.5])
    for seed in range(10):
        rng = np.random.default_rng(seed)
        start = dln.init.lambda_balanced(rng.standard_normal((3, 4)), imbalance=0.0, width=3, seed=seed)
        off = dln.Weights([(w + size * rng.standard_normal(w.shape)).astype(dtype) for w in start.layers])
        with pytest.raises(dln.NotApplicable, match=r"^not lambda-balanced: .* \(needed by the solution") as caught:
            solve(task, off)
        tol = float(re.search(r"; tol=(\S+) would accept it\)$", str(caught.value)).group(1))
        assert solve(task, off, tol=tol).name == "balanced, two layers"
        with pytest.raises(dln.NotApplicable):
            solve(task, off, tol=0.8 * tol)
        assert caught.value.missed["aligned, two layers"].startswith("not aligned")


def test_a_tolerance_is_offered_only_where_one_would_do():
    """Whatever is missed: the sentence names a tolerance up to a percent that is enough, or none."""
    rng, offered = np.random.default_rng(0), 0
    for _ in range(60):
        depth, size = int(rng.integers(2, 5)), 10.0 ** rng.uniform(-11, 0)
        task = whitened(4, 3, np.sort(rng.uniform(0.5, 2, 3))[::-1])
        start = dln.init.aligned(task, depth=depth, strength=0.3, width=4, seed=int(rng.integers(99)))
        off = dln.Weights([w + size * rng.standard_normal(w.shape) for w in start.layers])
        with pytest.raises(dln.NotApplicable) as caught:
            solve(task, off)
        found = re.search(r"; tol=(\S+) would accept it\)$", str(caught.value))
        if found:
            offered += 1
            solve(task, off, tol=float(found.group(1)))
        else:
            with pytest.raises(dln.NotApplicable):
                solve(task, off, tol=1e-3 if size > 1e-3 else 1e-13)
    assert offered > 20


@pytest.mark.parametrize("c", [0.125, 3.0])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_inputs_of_one_variance(depth, c):
    S = whitened(4, 3, [2.0, 1.0, 0.5]).sigma_yx
    held_out = dln.Task.from_covariances(np.diag([2.0, 1, 1, 1]), 0.9 * S, 10.0)
    task = dln.Task.from_covariances(c * np.eye(4), S, 60.0, test=held_out)
    weights = dln.init.aligned(task, depth=depth, width=3, strength=[[0.1, 0.2, 0.05]])
    t = np.array([0.0, 0.3, 1.0, 4.0])
    solution = solve(task, weights)
    run = solution.evaluate(t, record=(*EVERYTHING, "test_loss"))
    _, product = assert_follows(run, task, weights, atol=3e-9, loss=1e-8)
    np.testing.assert_allclose(run.test_loss[0], held_out.loss(product), atol=1e-8)
    assert solution.residual(t).max() < 1e-9


def test_more_than_fits_in_memory(monkeypatch):
    monkeypatch.setattr(validate, "ALWAYS_FITS", 0)
    monkeypatch.setattr(validate, "free_memory", lambda: 10_000_000)
    task = whitened(4, 3, [2.0, 1.0, 0.5])
    for depth in (1, 2, 3):
        solution = solve(task, dln.init.aligned(task, depth=depth, strength=0.1))
        solution.evaluate(np.zeros(1000), record=EVERYTHING)
        with pytest.raises(ValueError, match=r"^record: weights of 1 member at 100000 times needs .* MB and 10 MB"):
            solution.evaluate(np.zeros(100_000), record="weights")
