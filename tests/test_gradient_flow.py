"""Gradient flow and mode flow: against the reference step by step, exact solutions, theorems, wrong arguments."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import reference
from ensembles import KERNELS, some_task, starts
from interrupts import press_after_members, press_midway
from scipy.integrate import solve_ivp

import pydln as dln
from pydln._base import backend
from pydln.quantities import QUANTITIES
from pydln.simulate.methods import METHODS, method

T = np.array([0.0, 0.1, 0.4, 1.0, 1.01, 2.5])
SHAPES = [(3, 2), (4, 4, 4), (3, 5, 2), (2, 6, 5, 3), (9, 3, 3, 12), (8, 8, 8, 8), (1, 9, 1)]
RECORDS = ("loss", "test_loss", "strengths", "product", "layer_norms", "drift", "weights")
flow = partial(dln.gradient_flow, reduce="none")  # the kernels on the whole networks


def slope_of(task, member=None):
    xx, yx = (a if a.ndim == 2 else a[member] for a in (np.asarray(task.sigma_xx), np.asarray(task.sigma_yx)))
    return lambda layers: [-g for g in reference.gradient(layers, xx, yx)]


def residual_of(task):
    return lambda layers: np.asarray(task.sigma_yx) - reference.product(layers) @ np.asarray(task.sigma_xx)


def accurate(task, weights, member, t):
    """The layers at times t, by SciPy at a tolerance far below those tested."""
    shapes = [w.shape[1:] for w in weights.layers]
    cuts = np.cumsum([0, *(n * m for n, m in shapes)])
    slope = slope_of(task)

    def unpack(y):
        return [y[a:b].reshape(s) for a, b, s in zip(cuts, cuts[1:], shapes, strict=False)]

    y = np.concatenate([w[member].ravel() for w in weights.layers])
    f = lambda _, y: np.concatenate([k.ravel() for k in slope(unpack(y))])  # noqa: E731
    found = solve_ivp(f, (0, t[-1]), y, method="DOP853", t_eval=t, rtol=1e-12, atol=1e-14).y.T
    return [unpack(row) for row in found]


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("widths", SHAPES)
@pytest.mark.parametrize("name", METHODS)
def test_takes_the_steps_of_the_reference(name, widths, whiten):
    task, weights = some_task(widths[0], widths[-1], whiten=whiten), starts(widths, 3)
    step = 0.02 if name == "rk4" else None
    run = flow(task, weights, T, method=name, rtol=1e-7, step=step, record=RECORDS)
    for i in range(3):
        layers = [w[i] for w in weights.layers]
        how = {"rtol": 1e-7, "step": step, "residual": residual_of(task)}
        slow = reference.runge_kutta(slope_of(task), layers, method(name), T, **how)
        if slow.bounded:  # by a rate that the kernel estimates: other steps to the same tolerance
            assert run.integrator_steps[i] == pytest.approx(slow.accepted, rel=0.3)
            wanted = [reference.product(at) for at in slow.at]
            np.testing.assert_allclose(run.product[i], wanted, atol=1e-5)
            continue
        assert (run.integrator_steps[i], run.rejected[i]) == (slow.accepted, slow.rejected)
        for k, at in enumerate(slow.at):
            for got, wanted in zip(run.weights, at, strict=True):
                np.testing.assert_allclose(got[i, k], wanted, atol=1e-11)
            np.testing.assert_allclose(run.product[i, k], reference.product(at), atol=1e-10)
            np.testing.assert_allclose(
                run.loss[i, k], reference.loss(at, task.sigma_xx, task.sigma_yx, task.trace_yy), atol=1e-10
            )
        drift = [
            [np.linalg.norm(c - c0) for c, c0 in zip(reference.conserved(at), reference.conserved(layers), strict=True)]
            for at in slow.at
        ]
        np.testing.assert_allclose(run.drift[i], drift, atol=1e-9)


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("name", ["tsit5", "dopri5", "dop853"])
def test_tolerance_bounds_the_error(name, whiten):
    task, weights = some_task(4, 3, whiten=whiten), starts((4, 5, 5, 3), 4)
    best = [accurate(task, weights, i, T) for i in range(4)]
    errors = []
    for rtol in (1e-6, 1e-8, 1e-10):
        run = dln.gradient_flow(task, weights, T, method=name, rtol=rtol, record="weights")
        errors.append(
            max(
                np.abs(w[i, k] - best[i][k][layer]).max()
                for layer, w in enumerate(run.weights)
                for i in range(4)
                for k in range(len(T))
            )
        )
    assert (np.array(errors) < 100 * np.array([1e-6, 1e-8, 1e-10])).all(), errors
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_agrees_with_the_exact_solution(depth):
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], n_in=5, n_out=4, seed=3)
    weights = dln.init.aligned(task, depth=depth, width=4, strength=np.array([0.01, 0.1, 1.5]))
    t = np.linspace(0, 12, 25)
    run = dln.gradient_flow(task, weights, t, method="dop853", rtol=1e-13)
    exact = dln.exact.solve(task, weights).evaluate(t)
    np.testing.assert_allclose(run.strengths, exact.strengths, atol=3e-10)
    np.testing.assert_allclose(run.loss, exact.loss, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("widths", "whiten"),
    [((4, 4, 4), False), ((3, 7, 5, 2), False), ((17, 9, 18), False), ((8, 8, 8, 8), True), ((16, 16, 16), True)],
)
def test_same_bits_whatever_the_kernel_and_the_company(widths, whiten, dtype):
    task, weights = some_task(widths[0], widths[-1], whiten=whiten), starts(widths, 21, dtype=dtype)
    stop = dln.Stop(loss=1.02 * task.floor + 0.1)
    how = {"record": ("loss", "weights"), "stop": stop, "rtol": 1e-5}
    firsts = {}
    for isa, layout in KERNELS:
        with backend.forced(isa=isa, layout=layout):
            fused = isa != "baseline"  # x86's has no fused multiply-adds: bits of its own
            if fused not in firsts:
                firsts[fused] = flow(task, weights, T, n_threads=1, **how)
            run = flow(task, weights[3:20], T, n_threads=2, **how)
        first = firsts[fused]
        np.testing.assert_array_equal(run.integrator_steps, first.integrator_steps[3:20])
        np.testing.assert_array_equal(run.stopped_time, first.stopped_time[3:20])
        for a, b in zip(run.weights, first.weights, strict=True):
            np.testing.assert_array_equal(a, b[3:20])
        for a, b in zip(run.final.layers, first.final.layers, strict=True):
            np.testing.assert_array_equal(a, b[3:20])


def test_a_task_for_every_member_and_blocks(monkeypatch):
    from pydln.simulate import flow as integrate

    task = dln.Task.stack([some_task(4, 3, whiten=False, seed=seed) for seed in range(40)])
    weights = starts((4, 4, 3), 1)
    whole = dln.gradient_flow(task, weights, T, record=("loss", "product", "kernel_distance"), n_threads=1)
    monkeypatch.setattr(integrate._Flow, "temporary", 1)
    pieces = dln.gradient_flow(task, weights, T, record=("loss", "product", "kernel_distance"), n_threads=1)
    for name in whole.names:
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))
    alone = dln.gradient_flow(task[7], weights, T, record=("loss", "product"))
    np.testing.assert_array_equal(alone.loss[0], whole.loss[7])


@pytest.mark.parametrize("whiten", [True, False])
def test_kernel_distance_is_that_of_the_reference(whiten):
    task, weights = some_task(3, 2, whiten=whiten), starts((3, 4, 2), 2)
    run = dln.gradient_flow(task, weights, T, record=("kernel_distance", "weights"))
    for i in range(2):
        start = [w[i] for w in weights.layers]
        for k in range(1, len(T)):
            now = [w[i, k] for w in run.weights]
            wanted = reference.kernel_distance(now, start, np.asarray(task.sigma_xx))
            assert run.kernel_distance[i, k] == pytest.approx(wanted, abs=1e-13)


def test_stops_at_the_moment_asked_for():
    task, weights = some_task(4, 3, whiten=True), starts((4, 5, 3), 12, scale=0.3)
    t = np.linspace(0, 30, 400)
    free = dln.gradient_flow(task, weights, t, rtol=1e-10)
    limit = task.floor + np.linspace(0.02, 0.5, 12)
    run = dln.gradient_flow(task, weights, t, stop=dln.Stop(loss=limit), rtol=1e-10)
    assert (run.status == dln.Status.REACHED_LOSS).all()
    when = run.stopped_time
    for i in range(12):
        inside = t <= when[i]
        np.testing.assert_allclose(run.loss[i, inside], free.loss[i, inside], atol=1e-9)
        assert np.isnan(run.loss[i, ~inside]).all()
        at = dln.gradient_flow(task, weights[i], [when[i]], rtol=1e-10)
        assert at.loss[0, 0] == pytest.approx(limit[i], abs=1e-8)
    final = dln.gradient_flow(task, run.final, [0.0])
    np.testing.assert_allclose(final.loss[:, 0], limit, atol=1e-8)

    u = dln.gradient_flow(task, weights, t, stop=dln.Stop(strengths=0.5 * task.modes.s), rtol=1e-10)
    end = dln.gradient_flow(task, u.final, [0.0]).strengths[:, 0]
    there = u.status == dln.Status.REACHED_STRENGTH
    assert there.any()
    np.testing.assert_allclose((np.abs(end[there]) / (0.5 * task.modes.s)).min(axis=1), 1, atol=1e-7)

    calm = dln.gradient_flow(task, weights, t, stop=dln.Stop(steady=0.05), rtol=1e-10)
    assert (calm.status == dln.Status.STEADY).all()
    for i in range(12):
        k = slope_of(task)([w[i] for w in calm.final.layers])
        assert max(np.abs(x).max() for x in k) == pytest.approx(0.05, rel=1e-5)
    at_once = dln.gradient_flow(task, weights, t, stop=dln.Stop(loss=100.0))
    assert (at_once.stopped_time == 0).all()
    assert not np.isnan(at_once.loss[:, 0]).any()


def test_conserved_quantities_and_invariance():
    task, weights = some_task(4, 3, whiten=False), starts((4, 6, 6, 3), 5)
    run = dln.gradient_flow(task, weights, T, rtol=1e-11, record=("drift", "product", "loss"))
    assert run.drift.max() < 1e-9
    assert (np.diff(run.loss, axis=1) <= 1e-12).all()
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    turned = dln.Weights([q @ weights.layers[0], weights.layers[1] @ q.T, weights.layers[2]])
    np.testing.assert_allclose(
        dln.gradient_flow(task, turned, T, rtol=1e-11, record="product").product, run.product, atol=1e-9
    )


def test_gradient_descent_tends_to_it():
    task, weights = some_task(4, 3, whiten=True), starts((4, 5, 3), 3)
    flow = dln.gradient_flow(task, weights, [1.0], rtol=1e-11, record="product").product[:, 0]
    gaps = []
    for steps in (100, 200, 400):
        run = dln.gradient_descent(task, weights, lr=1 / steps, steps=steps, at=[steps], record="product")
        gaps.append(np.abs(run.product[:, 0] - flow).max())
    np.testing.assert_allclose(gaps[0] / gaps[1], 2, rtol=0.05)
    np.testing.assert_allclose(gaps[1] / gaps[2], 2, rtol=0.05)


def test_float32():
    task, weights = some_task(4, 3, whiten=True), starts((4, 5, 3), 3, dtype=np.float32)
    run = dln.gradient_flow(task, weights, T, rtol=1e-6)
    assert run.loss.dtype == np.float32
    double = dln.gradient_flow(task, dln.Weights([w.astype(float) for w in weights.layers]), T, rtol=1e-10)
    np.testing.assert_allclose(run.loss, double.loss, rtol=3e-5, atol=3e-5)


def test_starts_at_rest_and_at_a_saddle():
    task = some_task(4, 3, whiten=True)
    zero = dln.Weights([np.zeros((1, 5, 4)), np.zeros((1, 3, 5))])
    run = dln.gradient_flow(task, zero, T)
    np.testing.assert_array_equal(run.loss[0], run.loss[0, 0])
    one_layer = dln.gradient_flow(task, dln.Weights([np.zeros((1, 3, 4))]), [3.0], rtol=1e-10, record="product")
    np.testing.assert_allclose(one_layer.product[0, 0], (1 - np.exp(-3)) * task.sigma_yx, atol=1e-9)


def test_members_that_do_not_get_there_do_not_spoil_the_others():
    task = dln.Task.from_spectrum([100.0, 1.0], n_in=2, n_out=2, seed=0)
    weights = dln.init.aligned(task, depth=2, width=2, strength=np.array([1e-3, 1.0]))
    with pytest.raises(dln.IntegrationError, match="2 of 2 members did not reach the end") as caught:
        dln.gradient_flow(task, weights, [0.0, 0.1, 500.0], max_steps=30, rtol=1e-4)
    run = caught.value.trajectory
    assert set(run.status) == {dln.Status.STIFF}
    assert not np.isnan(run.loss[:, :2]).any()
    assert np.isnan(run.loss[:, 2]).all()
    short = dln.gradient_flow(task, weights, [0.1], max_steps=3, throw=False, rtol=1e-12)
    assert set(short.status) == {dln.Status.STEP_LIMIT}
    mixed = dln.gradient_flow(task, weights, [0.1, 1.0], max_steps=3, throw=False, step=0.01, method="rk4")
    assert set(mixed.status) == {dln.Status.STEP_LIMIT}
    lost = dln.gradient_flow(task, weights, [5.0], step=1.0, method="rk4", throw=False)
    assert set(lost.status) <= {dln.Status.DIVERGED, dln.Status.COMPLETED}


def test_is_saved_and_picked_like_any_trajectory(tmp_path):
    task, weights = some_task(4, 3, whiten=True), starts((4, 5, 3), 3)
    run = dln.gradient_flow(task, weights, T)
    run.save(tmp_path / "flow.npz")
    again = dln.Trajectory.load(tmp_path / "flow.npz")
    np.testing.assert_array_equal(again.loss, run.loss)
    np.testing.assert_array_equal(again[1].stopped_time, run.stopped_time[[1]])
    assert "gradient_flow: 3 members" in run.summary()


def test_wrong_arguments():
    task, weights = some_task(4, 3, whiten=True), starts((4, 5, 3), 3)
    wrong = [
        ({"t": [1.0, 1.0]}, "t: expected increasing"),
        ({"t": []}, "t: expected"),
        ({"t": [-1.0, 1.0]}, "t: expected"),
        ({"t": [0.0, np.inf]}, "t: expected"),
        ({"method": "euler"}, "method: expected one of"),
        ({"method": "rk4"}, "step: expected the length"),
        ({"rtol": 0}, "rtol: expected at least"),
        ({"rtol": -1.0}, "rtol: expected"),
        ({"atol": -1.0}, "atol: expected"),
        ({"step": 0.0}, "step: expected"),
        ({"max_steps": 0}, "max_steps: expected"),
        ({"record": "energy"}, "record: expected"),
        ({"stop": dln.Stop(loss=np.ones(5))}, "stop.loss: expected"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            dln.gradient_flow(task, weights, **({"t": T} | change))
    with pytest.raises(TypeError, match="task: expected"):
        dln.gradient_flow(None, weights, T)
    wide = starts((400, 400, 400), 1)
    with pytest.raises(ValueError, match="record: weights of 100000 members at 6 times"):
        dln.gradient_flow(
            some_task(400, 400, whiten=True), wide, T, record="weights", stop=dln.Stop(loss=np.ones(100000))
        )


def test_the_border_of_the_extension_checks_what_it_is_given():
    """Its checks guard the package against itself: no wrong shape may become a wild pointer."""
    table = method("tsit5").kernel()
    sound = {
        "weights": [np.ones((2, 3, 4)), np.ones((2, 1, 3))],
        "task": {
            **dict.fromkeys(("sigma_xx", "variances", "root", "deviations", "target")),
            "sigma_yx": np.ones((1, 4)),
            "floor": np.array(0.0),
            "modes": 1,
            "mode_u": np.ones((1, 1)),
            "mode_v": np.ones((4, 1)),
        },
        "method": table,
        "rtol": 1e-6,
        "atol": 0.0,
        "step": 0.0,
        "max_step": 0.0,
        "max_steps": 100,
        "record_at": np.array([0.0, 1.0]),
        "stop": dict.fromkeys(("loss", "strengths", "steady")),
        "test": None,
        "records": dict.fromkeys(QUANTITIES) | {"weights": [np.ones((2, 2, 3, 4)), np.ones((2, 2, 1, 3))]},
        **{name: np.zeros(2, dtype=np.int64) for name in ("status", "accepted", "rejected")},
        "stopped_at": np.zeros(2),
        "threads": 1,
        "memory": lambda: None,
        "isa": backend.isa(),
        "layout": "auto",
        "tick": None,
    }
    assert not backend.core.flow_f64(**sound)
    wrong = [
        (ValueError, "method: incomplete", {"method": table | {"stages": 17}}),
        (ValueError, "method.a: expected shape", {"method": table | {"a": np.zeros((6, 6))}}),
        (ValueError, "method.error: expected shape", {"method": table | {"error": np.zeros((1, 6))}}),
        (ValueError, "method.dense: expected shape", {"method": table | {"dense": np.zeros((7, 3))}}),
        (ValueError, "record_at: expected increasing", {"record_at": np.array([1.0, 1.0])}),
        (ValueError, "record_at: expected increasing", {"record_at": np.array([0.0, np.inf])}),
        (ValueError, "record_at: expected at least one", {"record_at": np.array([])}),
        (ValueError, "weights: expected shape", {"records": sound["records"] | {"weights": sound["weights"]}}),
        (ValueError, "product: expected shape", {"records": sound["records"] | {"product": np.ones((2, 2, 4, 1))}}),
        (ValueError, "test_loss: the task has no test", {"records": sound["records"] | {"test_loss": np.ones((2, 2))}}),
        (ValueError, "stopped_at: expected an array, got None", {"stopped_at": None}),
        (ValueError, "step: expected a number > 0 of fixed steps", {"method": method("rk4").kernel()}),
        (ValueError, "status: expected an array, got None", {"status": None}),
        (TypeError, "accepted: expected", {"accepted": np.zeros(2)}),
    ]
    for error, message, change in wrong:
        with pytest.raises(error, match=message):
            backend.core.flow_f64(**sound | change)


def test_ctrl_c_keeps_what_there_is():
    task, weights = some_task(8, 8, whiten=True), starts((8, 8, 8), 4000)
    t = np.linspace(0, 50, 20)
    with pytest.raises(dln.Interrupted, match="members are complete") as caught:
        dln.gradient_flow(task, weights, t, rtol=1e-12, record="loss", n_threads=1, progress=press_after_members)
    run = caught.value.trajectory
    complete = run.status == dln.Status.COMPLETED
    assert 0 < np.count_nonzero(complete) < 4000
    assert not np.isnan(run.loss[complete]).any()
    assert all(np.isfinite(w).all() for w in run.final.layers)


def test_ctrl_c_between_the_records_of_a_step_leaves_the_member_incomplete():
    task, weights = some_task(24, 24, whiten=True), starts((24, 24, 24), 1)
    with pytest.raises(dln.Interrupted) as caught:
        flow(task, weights, np.linspace(0, 1e-3, 10**6), method="rk4", step=1.0, record="loss", progress=press_midway)
    run = caught.value.trajectory
    assert run.rejected[0] == 0
    assert np.isfinite(run.loss[0, 0])
    assert np.isnan(run.loss[0, -1])
    assert run.status[0] == dln.Status.INTERRUPTED


def test_ctrl_c_at_the_start_leaves_no_member_complete_without_its_record():
    task, weights = some_task(24, 24, whiten=True), starts((24,) * 5, 4000)
    stop = dln.Stop(loss=1e30)  # reached by all at once
    complete = 0
    for _ in range(10):
        with pytest.raises(dln.Interrupted) as caught:
            flow(task, weights, [0, 1], record=("product", "drift"), stop=stop, n_threads=1, progress=press_midway)
        run = caught.value.trajectory
        ended = run.status == dln.Status.REACHED_LOSS
        complete += np.count_nonzero(ended)
        assert not np.isnan(run.product[ended, 0]).any()
        assert not np.isnan(run.drift[ended, 0]).any()
    assert complete > 0


def test_progress_comes_to_its_end():
    seen = []
    task, weights = some_task(4, 3, whiten=True), starts((4, 5, 3), 400)
    dln.gradient_flow(task, weights, T, rtol=1e-12, progress=lambda done, total: seen.append((done, total)))
    assert all(total == 400 * len(T) for _, total in seen)
    assert not seen or seen[-1][0] == 400 * len(T)


# ---- modes -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_balanced_modes_follow_the_exact_solution(depth):
    s = np.array([3.0, 1.0, 0.4])
    u0 = np.array([1e-30, 1e-6, 0.9])
    a = np.repeat(u0[:, None] ** (1 / depth), depth, axis=1)
    t = np.geomspace(0.1, 60, 40)
    run = dln.mode_flow(s, a, t, rtol=1e-11, method="dop853")
    wanted = dln.exact.balanced_mode(u0, s, t[:, None], depth=depth)
    np.testing.assert_allclose(run.strengths[0], wanted, rtol=1e-7)


def mode_slope(s, d):
    return lambda _, a: np.array([np.prod(np.delete(a, j)) for j in range(len(a))]) * (s - d * np.prod(a))


def test_unbalanced_modes_follow_their_equations():
    rng = np.random.default_rng(4)
    s, d = rng.uniform(0.5, 3, (6, 2)), rng.uniform(0.2, 2, (6, 2))
    a = rng.uniform(-1, 1, (6, 2, 3))
    t = np.linspace(0.5, 4, 5)
    run = dln.mode_flow(s, a, t, variances=d, rtol=1e-11)
    assert run.strengths.shape == (6, 5, 2)
    for i in range(6):
        for k in range(2):
            found = solve_ivp(
                mode_slope(s[i, k], d[i, k]), (0, 4), a[i, k], method="DOP853", t_eval=t, rtol=1e-12, atol=1e-14
            ).y
            np.testing.assert_allclose(run.strengths[i, :, k], found.prod(axis=0), atol=1e-9)
    gap = s[:, None] - d[:, None] * run.strengths
    np.testing.assert_allclose(run.loss, (gap**2 / (2 * d[:, None])).sum(axis=-1))


def test_modes_are_those_of_the_whole_network():
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], n_in=5, n_out=4, seed=3)
    weights = dln.init.aligned(task, depth=3, width=4, strength=0.2)
    t = np.linspace(0, 4, 9)
    whole = dln.gradient_flow(task, weights, t, rtol=1e-11)
    layers = np.full((3, 3), 0.2 ** (1 / 3))
    modes = dln.mode_flow(task.modes.s[:3], layers, t, rtol=1e-11)
    np.testing.assert_allclose(whole.strengths[0, :, :3], modes.strengths[0], atol=1e-9)


def test_wrong_modes():
    with pytest.raises(ValueError, match="layer_strengths: expected modes that fit s"):
        dln.mode_flow([1.0, 2.0], np.ones((3, 2)), [1.0])
    with pytest.raises(ValueError, match="layer_strengths: expected"):
        dln.mode_flow(1.0, np.ones((3, 2)), [1.0])
    with pytest.raises(ValueError, match="variances: expected"):
        dln.mode_flow([1.0], np.ones(2), [1.0], variances=-1.0)
