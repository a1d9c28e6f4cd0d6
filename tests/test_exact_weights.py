"""Layers of lambda-balanced starts against forty digits: any widths, scale, lambda, any order of times."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import reference_taylor
from test_exact import EVERYTHING
from test_exact_matrix import balanced_start

import pydln as dln
from pydln._base.backend import available_isas, forced
from pydln.exact import solve
from pydln.exact.balanced_two_layers import BalancedTwoLayers
from pydln.exact.start import Start


def solution_of(S, layers, tol=None):
    return BalancedTwoLayers(Start(dln.Task.from_covariances(None, S, 1e4), dln.Weights(layers), tol))


def worst(got, want):
    """The largest error of a layer, relative to its own size."""
    return max(
        np.linalg.norm(w[i] - exact[k]) / np.linalg.norm(exact[k])
        for k, w in enumerate(got)
        for i, exact in enumerate(want)
    )


def random_case(seed):
    rng = np.random.default_rng([18, seed])
    widths = tuple(int(n) for n in rng.integers(1, 5, 3))
    lam = float(rng.choice([0.0, 0.0, 1e-3, -1e-3, 0.5, -0.5, 5.0, -5.0, 100.0, -100.0]))
    if (lam > 0 and widths[1] > widths[2]) or (lam < 0 and widths[1] > widths[0]):
        lam = 0.0
    layers = balanced_start(widths, lam, float(10 ** rng.uniform(-14, 0.3)), seed)
    S = rng.normal(size=(widths[2], widths[0]))
    fastest = np.hypot(np.linalg.norm(S, 2), lam / 2)
    t = np.append(10 ** rng.uniform(-2, 1.5, 5), 0.0) / fastest
    return S, layers, rng.permutation(np.append(t, rng.choice(t, 2)))  # in any order, some twice


@pytest.mark.parametrize("seed", range(24))
def test_layers_of_random_starts(seed) -> None:
    S, layers, t = random_case(seed)
    order = np.argsort(t, kind="stable")
    want = reference_taylor.two_layers(S, *layers, t[order])
    solution = solution_of(S, layers)
    run = solution.evaluate(t, record=EVERYTHING)
    # A saddle that the product's sign does not let it leave is one for balanced starts: these are so but for rounding,
    # which grows there.
    bound = 1e-13 if solution.reached.sum() == min(S.shape) else 1e-11
    assert worst([w[0][order] for w in run.weights], want) < bound
    # And what is made of the layers.
    first, second = (np.stack([layer[k] for layer in want]) for k in (0, 1))
    norms = np.stack([np.linalg.norm(w, axis=(1, 2)) for w in (first, second)], axis=-1)
    np.testing.assert_allclose(run.layer_norms[0][order], norms, rtol=100 * bound)
    np.testing.assert_allclose(run.product[0][order], second @ first, atol=1e-11 * (norms[:, 0] * norms[:, 1]).max())
    distance = reference.kernel_distance(want[-1], layers, np.eye(S.shape[1]))
    np.testing.assert_allclose(run.kernel_distance[0][order[-1]], distance, atol=1e-12)


@pytest.mark.parametrize("lam", [1e6, -1e6])
@pytest.mark.parametrize("widths", [(2, 2, 2), (3, 1, 2)])
def test_layers_far_apart_in_size(lam, widths) -> None:
    layers = balanced_start(widths, lam, 1e-2, 1)
    S = np.random.default_rng(3).normal(size=(widths[2], widths[0]))
    t = np.array([0.1, 1.0, 5.0, 30.0]) / abs(lam)
    solution = solution_of(S, layers)
    assert (
        worst(
            [w[0] for w in solution.evaluate(t, record="weights").weights], reference_taylor.two_layers(S, *layers, t)
        )
        < 1e-13
    )
    # From there on nothing is fast any more: half of the way at a time leads to the same place.
    there = solution.evaluate([1e-3, 2e4], record="weights").weights
    onward = solution_of(S, [w[0, 0] for w in there]).evaluate([2e4 - 1e-3], record="weights").weights
    assert worst([w[0] for w in onward], [[w[0, 1] for w in there]]) < 1e-11


@pytest.mark.parametrize("scale", [1e-30, 1e-100])
def test_layers_of_starts_that_few_digits_hold(scale) -> None:
    layers = balanced_start((2, 2, 2), 0.0, scale, 4)
    S = np.diag([1.0, 0.9])
    t = np.array([1.0, 1.02]) * -np.log(scale)
    want = reference_taylor.two_layers(S, *layers, t, bits=180 - int(np.log2(scale)))
    solution = solution_of(S, layers)
    assert worst([w[0] for w in solution.evaluate(t, record="weights").weights], want) < 1e-11


@pytest.mark.parametrize("widths", [(3, 3, 3), (4, 2, 3), (2, 5, 2), (2, 3, 4)])
def test_late_times_rest_where_the_flow_ends(widths) -> None:
    S = np.random.default_rng(2).normal(size=(widths[2], widths[0]))
    first, second = balanced_start(widths, 0.0, 1e-3, 1)
    if widths == (3, 3, 3) and np.linalg.det(second @ first) * np.linalg.det(S) < 0:
        second, first = -second, first
    solution = solution_of(S, [first, second], tol=1e-12)
    late = solution.evaluate([1e300, 1e4, 1e6, 1e4], record=("weights", "product"))
    if solution.reached.sum() == min(widths):
        for w in late.weights:
            np.testing.assert_allclose(w[0, [0, 2, 3]], w[0, [1, 1, 1]], atol=1e-12)
        np.testing.assert_allclose(late.weights[1] @ late.weights[0], late.product, atol=1e-13)
    assert np.isfinite(late.weights[0]).all()


def test_no_times_and_the_start_alone() -> None:
    S, layers, _ = random_case(0)
    solution = solution_of(S, layers)
    none = solution.evaluate([], record=EVERYTHING)
    assert none.weights[0].shape == (1, 0, *layers[0].shape)
    assert none.loss.shape == none.kernel_distance.shape == (1, 0)
    begun = solution.evaluate([0.0, 0.0], record="weights").weights
    for got, want in zip(begun, layers, strict=True):
        np.testing.assert_array_equal(got[0], np.stack([want, want]))


def test_a_time_and_a_member_have_their_bits_whatever_else_is_asked() -> None:
    S = np.random.default_rng(1).normal(size=(5, 3, 4))
    task = dln.Task.from_covariances(None, S, np.full(5, 50.0))
    scales = (1e-8, 1e-1, 1e-3, 1.0, 1e-14)
    starts = [balanced_start((4, 3, 3), 0.0, scale, k) for k, scale in enumerate(scales)]
    weights = dln.Weights([np.stack(layer) for layer in zip(*starts, strict=True)])
    t = np.random.default_rng(2).uniform(0, 20, 37)
    together = solve(task, weights).evaluate(t, record=("loss", "weights")).weights
    for k in range(5):
        alone = solve(task[k], weights[k])
        for part in (slice(3, 4), slice(None, None, -5)):
            for got, want in zip(alone.evaluate(t[part], record="weights").weights, together, strict=True):
                np.testing.assert_array_equal(got[0], want[k, part])


def test_instruction_sets_agree() -> None:
    S, layers, t = random_case(7)
    found = []
    for isa in available_isas():
        with forced(isa=isa):
            found.append(solution_of(S, layers).evaluate(t, record="weights").weights)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert np.linalg.norm(a - b) <= 1e-13 * np.linalg.norm(a)


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("whitened", [True, False])
def test_test_loss_of_modes_is_that_of_the_product(depth, whitened) -> None:
    rng = np.random.default_rng(depth)
    U, V = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (4, 6))
    s, spread = np.array([3.0, 2.0, 1.0, 0.1]), rng.uniform(0.5, 2, 6)
    x = rng.normal(size=(9, 6))
    x[:, 5] = x[:, 4]  # no variance along one direction of the held-out inputs
    y = x @ rng.normal(size=(4, 6)).T + 0.1 * rng.normal(size=(9, 4))
    task = dln.Task.from_covariances(
        None if whitened else (V * spread) @ V.T, (U * s) @ V[:, :4].T, 20.0, test=dln.Task.from_data(x, y)
    )
    solution = solve(task, dln.init.aligned(task, depth=depth, width=4, strength=[0.01, 1e-5, 0.5, 0.2]))
    run = solution.evaluate(np.geomspace(0.01, 300, 25), record=("test_loss", "product"))
    np.testing.assert_allclose(run.test_loss, task.test.loss(run.product), rtol=1e-13)
    assert (run.test_loss >= task.test.floor).all()


def test_test_loss_keeps_its_digits_above_the_floor() -> None:
    # Held-out inputs that teach the same: the loss falls to its floor, and what is left of it keeps its digits.
    S = np.diag([2.0, 1.0])
    task = dln.Task.from_covariances(None, S, 5.0, test=dln.Task.from_covariances(None, S, 5.0))
    run = solve(task, dln.init.aligned(task, depth=2, width=2, strength=0.3)).evaluate(
        [1.0, 5.0, 16.0], record=("loss", "test_loss")
    )
    np.testing.assert_array_less(0, run.test_loss)
    np.testing.assert_allclose(run.test_loss[:, :2], run.loss[:, :2], rtol=1e-10)
