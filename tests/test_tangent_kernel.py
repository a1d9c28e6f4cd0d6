"""The distance of the tangent kernel from its start answers to the Jacobian, written out."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from ensembles import DTYPES, KERNELS, descend, same_bits, some_task, starts

import pydln as dln
from pydln import exact
from pydln._base import backend

# Depth 1 to 4; either side the narrow one, along which products are carried; more units than a vector has lanes.
SHAPES = [(4, 3), (2, 2, 2), (20, 20, 2), (2, 6, 20), (3, 5, 4), (7, 5, 6, 2), (2, 9, 3, 5, 8), (1, 1, 1)]


def distances(run, weights, task):
    """What the reference makes of the recorded weights; the task of each member, or of all."""
    found = np.empty(run.kernel_distance.shape)
    for i, k in np.ndindex(found.shape):
        sigma_xx = task.sigma_xx if task.batch is None else task.sigma_xx[i]
        now = [w[i, k].astype(np.float64) for w in run.weights]
        found[i, k] = reference.kernel_distance(now, [w[i].astype(np.float64) for w in weights.layers], sigma_xx)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
@pytest.mark.parametrize("widths", SHAPES, ids=lambda widths: "-".join(map(str, widths)))
def test_it_is_that_of_the_jacobian(widths, whiten, dtype) -> None:
    task, weights = some_task(widths[0], widths[-1], whiten=whiten), starts(widths, 3, dtype=dtype)
    for isa, layout in KERNELS:
        with backend.forced(isa=isa, layout=layout):
            run = descend(task, weights, lr=0.05, steps=30, record_every=10, record=("kernel_distance", "weights"))
        wanted = distances(run, weights, task)
        assert (run.kernel_distance[:, 0] == 0).all()
        # Sums of squares whose roundings mostly cancel: a few units in the last place of 1 were seen.
        np.testing.assert_allclose(run.kernel_distance, wanted, rtol=0, atol=16 * np.finfo(dtype).eps)
        assert (wanted[:, 1:] > 1e-3).all() or len(widths) == 2 or max(widths) == 1


@pytest.mark.parametrize("layout", ["interleaved", "rows"])
def test_members_of_one_call_do_not_see_each_other(layout) -> None:
    # Members that stop at different steps are succeeded by others in the middle of a group.
    tasks = [some_task(5, 3, whiten=False, seed=k) for k in range(2)]
    sigma_xx, sigma_yx = (np.stack([getattr(tasks[k % 2], n) for k in range(13)]) for n in ("sigma_xx", "sigma_yx"))
    task = dln.Task.from_covariances(sigma_xx, sigma_yx, np.array([tasks[k % 2].trace_yy for k in range(13)]))
    weights = starts((5, 4, 6, 3), 13)
    how = {"lr": np.geomspace(0.004, 0.1, 13), "steps": 200, "at": [5, 20, 100], "momentum": 0.3}
    stop = dln.Stop(loss=0.5 * (task.floor + dln.gradient_descent(task, weights, lr=0.02, steps=0).loss[:, 0]))
    record = ("kernel_distance", "weights")
    with backend.forced(layout=layout):
        run = descend(task, weights, stop=stop, record=record, n_threads=2, **how)
        assert len(set(run.stopped_step.tolist())) > 5
        for i in (0, 4, 12):
            alone = descend(
                task[i],
                weights[i],
                stop=dln.Stop(loss=stop.loss[i]),
                record="kernel_distance",
                **(how | {"lr": how["lr"][i]}),
            )
            np.testing.assert_array_equal(alone.kernel_distance[0], run.kernel_distance[i])
    there = ~np.isnan(run.kernel_distance)
    np.testing.assert_allclose(run.kernel_distance[there], distances(run, weights, task)[there], rtol=0, atol=1e-14)


def test_a_batch_of_one_task_serves_all() -> None:
    samples = some_task(4, 3, whiten=False)
    one = dln.Task.from_covariances(samples.sigma_xx, samples.sigma_yx, samples.trace_yy)
    task = dln.Task.from_covariances(one.sigma_xx[None], one.sigma_yx[None], np.array([one.trace_yy]))
    how = {"lr": 0.05, "steps": 20, "record": "kernel_distance"}
    same_bits(descend(task, starts((4, 5, 3), 3), **how), descend(one, starts((4, 5, 3), 3), **how))


def test_turning_inputs_outputs_and_hidden_layers_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    widths = (5, 4, 6, 3)
    R = [np.linalg.qr(rng.normal(size=(n, n)))[0] for n in widths]
    task, weights = some_task(5, 3, whiten=False), starts(widths, 2)
    turned_task = dln.Task.from_covariances(
        R[0] @ task.sigma_xx @ R[0].T, R[-1] @ task.sigma_yx @ R[0].T, task.trace_yy
    )
    turned = dln.Weights([b @ w @ a.T for w, a, b in zip(weights.layers, R, R[1:], strict=False)])
    how = {"lr": 0.05, "steps": 30, "record": "kernel_distance"}
    np.testing.assert_allclose(
        descend(turned_task, turned, **how).kernel_distance,
        descend(task, weights, **how).kernel_distance,
        rtol=0,
        atol=1e-14,
    )


def test_a_larger_start_is_lazier() -> None:
    # Two halves that cancel, so that Omega starts at 0. At scale a the weights then move by d = O(1/a) to fit the task,
    # those of the halves in opposite directions; the Gram matrices move by d^2, a part O(1/a^4) of what they are, and
    # 1 - cos falls like 1/a^8.
    task = dln.Task.from_spectrum([1.0, 0.5], 4, 3, seed=0)
    first, second = dln.init.gaussian((4, 16, 3), batch=3, seed=2).layers
    ends = []
    for scale in (4.0, 8.0):
        halves = [np.concatenate([first, first], axis=1), np.concatenate([second, -second], axis=2)]
        weights = dln.Weights([scale * w for w in halves])
        run = descend(task, weights, lr=0.1 / scale**2, steps=2000, record=("kernel_distance", "loss"))
        assert (run.loss[:, -1] < 1e-6 + task.floor).all()
        ends.append(run.kernel_distance[:, -1])
    np.testing.assert_allclose(np.log2(ends[0] / ends[1]), 8, atol=0.2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
def test_a_kernel_of_zero_does_not_move(whiten, dtype) -> None:
    task = some_task(3, 2, whiten=whiten)
    weights = dln.Weights([np.zeros((4, 3), dtype), np.zeros((4, 4), dtype), np.zeros((2, 4), dtype)])
    nothing = dln.Task.from_covariances(np.zeros((3, 3)), np.zeros((2, 3)), 1.0)
    for own, start in ((task, weights), (nothing, starts((3, 4, 4, 2), dtype=dtype))):
        for isa, layout in KERNELS:
            with backend.forced(isa=isa, layout=layout):
                run = descend(own, start, lr=0.1, steps=3, record="kernel_distance")
            assert (run.kernel_distance == 0).all()
        assert (dln.gradient_flow(own, start, [0.0, 1.0], record="kernel_distance").kernel_distance == 0).all()


@pytest.mark.parametrize(("dtype", "widths", "power"), [
    (np.float32, (3, 5, 4, 2), 16), (np.float32, (2, 4, 3, 5, 4), 12), (np.float64, (3, 5, 4, 2), 140),
    (np.float64, (2, 4, 3, 3, 5, 4), 80),
])  # fmt: skip
def test_the_size_of_the_layers_does_not_matter(dtype, widths, power) -> None:
    """c W learns c^D Σ_yx at the rate c^(2-2D) lr as W learns Σ_yx at lr, by the same bits where c is a power of two.

    K is c^(2D-2) times what it was, its square beyond the range of the numbers.
    """
    one, weights, D = some_task(widths[0], widths[-1], whiten=True), starts(widths, 9, dtype=dtype), len(widths) - 1
    how = {"steps": 30, "record_every": 10, "record": "kernel_distance"}
    for isa, layout in KERNELS:
        found = []
        for c in (1.0, 2.0**-power, 2.0**power):
            task = dln.Task.from_covariances(None, c**D * one.sigma_yx, c ** (2 * D) * one.trace_yy)
            scaled = dln.Weights([(c * w).astype(dtype) for w in weights.layers])
            with backend.forced(isa=isa, layout=layout):
                found.append(descend(task, scaled, lr=0.05 * c ** (2 - 2 * D), **how).kernel_distance)
            assert np.finfo(dtype).tiny < c ** (2 * D) < np.finfo(dtype).max
        np.testing.assert_array_equal(found[1], found[0])
        np.testing.assert_array_equal(found[2], found[0])
        flows = []
        for c in (1.0, 2.0**-power, 2.0**power):
            task = dln.Task.from_covariances(None, c**D * one.sigma_yx, c ** (2 * D) * one.trace_yy)
            scaled = dln.Weights([(c * w).astype(dtype) for w in weights.layers])
            t = np.array([0.0, 0.5, 1.0]) * c ** (2 - 2 * D)
            flows.append(dln.gradient_flow(task, scaled, t, record="kernel_distance").kernel_distance)
        np.testing.assert_allclose(flows[1:], [flows[0]] * 2, rtol=0, atol=10 * np.finfo(dtype).eps)


def test_reductions_are_not_made_and_refused_by_name() -> None:
    task = dln.Task.from_spectrum([2.0, 1.0], 4, 3, seed=0)
    weights = dln.init.aligned(task, depth=3, width=100, strength=0.1)
    how = {"lr": 0.01, "steps": 1000}
    assert dln.gradient_descent(task, weights, **how).reduced == (("decoupled",),)
    assert dln.gradient_descent(task, weights, record="kernel_distance", **how).reduced == ((),)
    with pytest.raises(ValueError, match="reduce: expected auto or none with kernel_distance, got decoupled"):
        dln.gradient_descent(task, weights, record="kernel_distance", reduce="decoupled", **how)


@pytest.mark.parametrize("depth", [2, 3])
def test_exact_solutions_know_it(depth) -> None:
    task = dln.Task.from_spectrum([2.0, 1.0, 0.5], 5, 4, seed=0)
    weights = dln.init.aligned(task, depth=depth, width=6, strength=0.1, seed=1)
    solution = exact.solve(task, weights).evaluate([0.0, 0.5, 2.0, 9.0], record=("kernel_distance", "weights"))
    assert solution.kernel_distance[0, -1] > 0.05
    np.testing.assert_allclose(solution.kernel_distance, distances(solution, weights, task), rtol=0, atol=1e-14)


def test_the_kernel_of_one_layer_stays() -> None:
    task, weights = some_task(4, 3, whiten=False), starts((4, 3), 2)
    run = descend(task, weights, lr=0.1, steps=20, record="kernel_distance")
    assert (run.kernel_distance == 0).all()
    assert (exact.solve(task, weights).evaluate(run.t, record="kernel_distance").kernel_distance == 0).all()
