"""Exact reductions of gradient flow: the same in everything recorded, to the tolerance of the integration."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from ensembles import RECORDS, same_bits, some_task
from hypothesis import given, settings
from hypothesis import strategies as st
from test_end_to_end import CASES, maps
from test_reduce import aligned, low_rank, orthogonal, thin_task

import pydln as dln
from pydln.simulate import flow as integrate

T = np.array([0.0, 0.1, 0.4, 1.0, 1.01, 2.5])
TIGHT = {"method": "dop853", "rtol": 1e-12}


def both(task, weights, *, reduce="auto", record=RECORDS, t=T, atol=1e-9, **how):
    """A run with and without reductions: the same to `atol`, times included at which members stop."""
    how = TIGHT | how
    run = dln.gradient_flow(task, weights, t, record=record, reduce=reduce, **how)
    whole = dln.gradient_flow(task, weights, t, record=record, reduce="none", **how)
    assert not any(whole.reduced)
    assert run.names == whole.names
    np.testing.assert_array_equal(run.status, whole.status)
    np.testing.assert_allclose(run.stopped_time, whole.stopped_time, atol=1e-6)
    for name in run.names:
        pairs = (
            zip(run.weights, whole.weights, strict=True)
            if name == "weights"
            else [(getattr(run, name), getattr(whole, name))]
        )
        for a, b in pairs:
            np.testing.assert_allclose(a, b, atol=atol, err_msg=name)
    for a, b in zip(run.final.layers, whole.final.layers, strict=True):
        np.testing.assert_allclose(a, b, atol=max(atol, 1e-7 if "stop" in how else 0))
    return run


STARTS = {
    "two layers": lambda whiten: (some_task(3, 2, whiten=whiten), low_rank((3, 11, 2), 11, 2)),
    "low rank": lambda whiten: (some_task(4, 3, whiten=whiten), low_rank((4, 9, 12, 3), 2, 2)),
    "orthogonal": lambda whiten: (some_task(3, 2, whiten=whiten), orthogonal((3, 17, 17, 2), 2)),
}


@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
@pytest.mark.parametrize("kind", STARTS)
def test_hidden_layers_in_the_directions_in_which_they_move(kind, whiten) -> None:
    task, weights = STARTS[kind](whiten)
    assert both(task, weights, reduce="width").reduced == (("width",), ("width",))
    if not whiten:
        assert both(task, weights, reduce=("inputs", "width")).reduced == (("inputs", "width"),) * 2


@pytest.mark.parametrize("widths", [(7, 3), (5, 6, 3), (11, 5, 7, 2)], ids=str)
def test_general_inputs_become_diagonal(widths) -> None:
    weights = low_rank(widths, 99, 2)
    run = both(some_task(widths[0], widths[-1], whiten=False), weights, reduce="inputs")
    assert run.reduced == (("inputs",),) * 2


@pytest.mark.parametrize("record", [RECORDS, ("loss", "strengths"), ("layer_norms", "drift"), ("weights",)], ids=str)
def test_directions_that_never_move_are_left_out(record) -> None:
    run = both(thin_task(19, 3, 6), low_rank((19, 6, 5, 3), 99, 2), reduce="inputs", record=record)
    assert run.reduced == (("inputs",),) * 2
    two = both(thin_task(19, 3, 6), low_rank((19, 30, 3), 30), reduce=("inputs", "width"), record=record)
    assert two.reduced == (("inputs", "width"),)


@pytest.mark.parametrize("unbalanced", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize(("n_in", "n_out", "modes"), [(5, 4, 4), (3, 7, 3), (1, 1, 1), (9, 8, 3)])
def test_aligned_starts_fall_into_modes(n_in, n_out, modes, depth, unbalanced) -> None:
    task = dln.Task.from_spectrum(np.linspace(3, 1, modes), n_in, n_out, seed=2)
    weights = aligned(task, depth, 9, 3, unbalanced=unbalanced)
    record = tuple(name for name in RECORDS if name != "test_loss")
    run = both(task, weights, reduce="decoupled", record=record)
    assert run.reduced == (("decoupled",),) * 3


@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
@pytest.mark.parametrize("depth", [2, 3, 6])
@pytest.mark.parametrize("case", CASES)
def test_balanced_layers(case, depth, whiten) -> None:
    n_in, n_out, sigmas = CASES[case]
    task, start = some_task(n_in, n_out, whiten=whiten), maps(n_in, n_out, sigmas)
    weights = dln.init.balanced(start, depth=depth, width=7 if n_in > 1 else 2)
    run = both(task, weights, reduce="balanced", t=np.append(T, 6.0))
    assert run.reduced == (("balanced",),) * len(start)
    np.testing.assert_allclose(run.drift, 0, atol=1e-10)
    np.testing.assert_allclose(run.weights[0][:, 0], weights.layers[0], atol=1e-15)
    np.testing.assert_allclose(run.loss, dln.end_to_end_flow(task, start, run.t, depth=depth, **TIGHT).loss, atol=1e-9)


def test_balanced_layers_stay_at_the_saddle_where_they_end() -> None:
    """det Ω(0) has the wrong sign: layer by layer rounding grows as exp(2t), and has learned by t = 20."""
    task = dln.Task.from_spectrum([3.0, 2.0], n_in=2, n_out=2, seed=3)
    U, _, V = task.modes
    R = np.array([[0.6, -0.8], [0.8, 0.6]])
    weights = dln.init.balanced(U @ R @ np.diag([1, -0.3]) @ R.T @ V.T, depth=2)
    run = dln.gradient_flow(task, weights, [20.0, 30.0], reduce="balanced", record=("loss", "weights"))
    np.testing.assert_allclose(run.loss, 2, atol=1e-8)
    layers = dln.gradient_flow(task, weights, [20.0, 30.0], reduce="none", rtol=1e-12)
    assert layers.loss[0, -1] < 1e-6


def test_balanced_members_of_any_company(monkeypatch) -> None:
    tasks = dln.Task.stack([some_task(5, 4, whiten=False, seed=seed) for seed in range(6)])
    sigmas = np.array([[1.5, 0.7, 0.2, 0.1], [1.0, 1.0, 0.5, 0.5], [0.9, 0.4, 0, 0]] * 2)
    weights = dln.init.balanced(maps(5, 4, sigmas), depth=3, width=6)
    how = {"record": RECORDS, "reduce": "balanced"}
    run = dln.gradient_flow(tasks, weights, T, **how)
    with monkeypatch.context() as patch:
        patch.setattr(integrate._Flow, "temporary", 1)
        same_bits(dln.gradient_flow(tasks, weights, T, n_threads=1, **how), run)
    for i in range(6):
        same_bits(dln.gradient_flow(tasks[i], weights[i], T, **how), run[i])
    one_start = dln.gradient_flow(tasks, weights[1], T, **how)
    same_bits(dln.gradient_flow(tasks[3], weights[1], T, **how), one_start[3])
    one_task = dln.gradient_flow(tasks[2], weights, T, **how)
    same_bits(one_task[2], run[2])
    both(tasks, weights[0], reduce="balanced")


def test_balanced_members_that_do_not_get_there() -> None:
    task = dln.Task.from_covariances(None, np.diag([100.0, 1.0]), 10001.0)
    weights = dln.init.balanced(np.stack([np.diag([1e-3, 1e-3]), np.diag([99.0, 0.9])]), depth=2)
    how = {"max_steps": 100, "rtol": 1e-4, "throw": False, "record": ("loss", "product")}
    run = dln.gradient_flow(task, weights, [0.0, 0.05, 500.0], reduce="balanced", **how)
    assert set(run.status) == {dln.Status.STIFF}
    assert not np.isnan(run.loss[:, :2]).any()
    assert np.isnan(run.loss[:, 2]).all()
    # The weights are those of the time at which it stopped.
    for i in range(2):
        when = run.stopped_time[i]
        there = dln.gradient_flow(task, weights[i], [when], rtol=1e-8, record="product")
        np.testing.assert_allclose(run.final[i].product()[0], there.product[0, 0], atol=0.1)


def test_ctrl_c_keeps_balanced_members() -> None:
    task = some_task(4, 4, whiten=True)
    weights = dln.init.balanced(maps(4, 4, [[1.0, 0.7, 0.2, 0.1], [1.0, 0.5, 0.0, 0.0]]), depth=3)

    def press(done, total):
        if done > 60:
            os.kill(os.getpid(), signal.SIGINT)

    t = np.linspace(0, 5, 50)
    with pytest.raises(dln.Interrupted, match="1 of 2 members are complete") as caught:
        dln.gradient_flow(task, weights, t, reduce="balanced", record=("loss", "weights"), progress=press)
    run = caught.value.trajectory
    assert run.status.tolist() == [dln.Status.INTERRUPTED, dln.Status.COMPLETED]
    for w, kept, start in zip(run.final.layers, run.weights, weights.layers, strict=True):
        np.testing.assert_allclose(w[1], kept[1, -1], atol=1e-14)
        np.testing.assert_array_equal(w[0], start[0])


def test_what_is_not_balanced_is_refused() -> None:
    task = some_task(4, 3, whiten=True)
    balanced = dln.init.balanced(maps(4, 3, [[1.5, 0.7, 0.2]]), depth=3)
    sound = {"task": task, "weights": balanced, "t": T, "reduce": "balanced"}
    off = [np.array(w) for w in balanced.layers]
    off[1][0, 0, 0] += 1e-10
    for change, message in (
        ({"weights": low_rank((4, 5, 3), 9)}, r"reduce: expected balanced starts, .* got member 0 with \d"),
        ({"weights": dln.Weights(off)}, r"reduce: expected balanced starts, .* got member 0 with .*e-1[01] of it"),
        ({"weights": dln.Weights([0 * w for w in balanced.layers])}, "reduce: expected balanced starts, .* not 0"),
        ({"weights": low_rank((4, 3), 9)}, "reduce: expected two or more layers for 'balanced'"),
        ({"stop": dln.Stop(loss=0.1)}, "reduce: expected a run without a stop for 'balanced'"),
        ({"reduce": ("balanced", "width")}, "reduce: expected 'balanced' alone"),
        ({"record": "kernel_distance"}, "reduce: expected auto or none with kernel_distance, got balanced"),
    ):
        with pytest.raises(ValueError, match=message):
            dln.gradient_flow(**(sound | change))
    with pytest.raises(ValueError, match="reduce: expected one of 'auto', 'none', 'inputs', 'width', 'decoupled', got"):
        dln.gradient_descent(task, balanced, lr=0.1, steps=3, reduce="balanced")


def test_auto_takes_what_is_worth_its_search() -> None:
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], 40, 30, seed=2)
    record = ("loss", "strengths", "weights")
    assert both(task, aligned(task, 4, 60, 2), record=record).reduced == (("decoupled",),) * 2
    thin = thin_task(90, 9, 6)
    assert both(thin, low_rank((90, 200, 9), 200), record=record).reduced == (("inputs", "width"),)
    small = dln.Task.from_spectrum([3.0, 2.0], 3, 2, seed=2)
    assert both(small, aligned(small, 2, 3, 2), record=record).reduced == ((), ())


def test_decided_member_by_member() -> None:
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], 7, 6, seed=2)
    widths, record = (7, 40, 40, 6), ("loss", "strengths", "layer_norms", "weights")

    def mixed(*kinds):
        return dln.Weights([np.concatenate(same) for same in zip(*(kind.layers for kind in kinds), strict=True)])

    weights = mixed(aligned(task, 3, 40, 2), low_rank(widths, 40, 2), aligned(task, 3, 40, 1, seed=3))
    run = both(task, weights, record=record)
    assert run.reduced == (("decoupled",),) * 2 + ((),) * 2 + (("decoupled",),)
    narrow = mixed(low_rank(widths, 2), orthogonal(widths, 2), low_rank(widths, 3), low_rank(widths, 2, seed=1))
    by_name = both(task, narrow, record=record, reduce="width")
    assert by_name.reduced == (("width",),) * 5
    for i in range(5):
        same_bits(run[i], dln.gradient_flow(task, weights[i], T, record=record, **TIGHT))
        same_bits(by_name[i], dln.gradient_flow(task, narrow[i], T, record=record, reduce="width", **TIGHT))


def test_bits_do_not_depend_on_batch_and_blocks(monkeypatch) -> None:
    task, weights = some_task(4, 3, whiten=False), low_rank((4, 9, 12, 3), 2, 20)
    record = RECORDS
    for reduce in ("width", ("inputs", "width")):
        whole = dln.gradient_flow(task, weights, T, record=record, reduce=reduce, n_threads=2)
        with monkeypatch.context() as patch:
            patch.setattr(integrate._Flow, "temporary", 1)
            same_bits(dln.gradient_flow(task, weights, T, record=record, reduce=reduce, n_threads=1), whole)
        same_bits(dln.gradient_flow(task, weights[5:9], T, record=record, reduce=reduce), whole[5:9])


def test_a_task_for_every_member() -> None:
    tasks = dln.Task.stack([some_task(4, 3, whiten=False, seed=seed) for seed in range(5)])
    both(tasks, low_rank((4, 9, 12, 3), 2, 5), reduce="width")
    both(tasks, low_rank((4, 20, 3), 20, 1), reduce=("inputs", "width"))


def test_stops() -> None:
    task, weights = some_task(4, 3, whiten=False), low_rank((4, 15, 3), 15, 4)
    t = np.linspace(0, 30, 50)
    for stop in (dln.Stop(loss=task.floor + np.linspace(0.05, 0.2, 4)), dln.Stop(strengths=0.3 * task.modes.s)):
        run = both(task, weights, reduce=("inputs", "width"), stop=stop, t=t, atol=1e-7)
        assert {*run.status} <= {dln.Status.REACHED_LOSS, dln.Status.REACHED_STRENGTH}
    wide = low_rank((4, 300, 3), 300)
    assert any(dln.gradient_flow(task, wide, T).reduced)
    steady = dln.gradient_flow(task, wide, T, stop=dln.Stop(steady=0.01))
    assert not any(steady.reduced)
    for name, expected in (("width", "no stop in a steady state"), ("inputs", "no stop in a steady state")):
        with pytest.raises(ValueError, match=f"reduce: expected .*{expected}"):
            dln.gradient_flow(task, weights, t, stop=dln.Stop(steady=0.01), reduce=name)
    modes = dln.Task.from_spectrum([3.0, 2.0], 4, 3, seed=1)
    with pytest.raises(ValueError, match="reduce: expected a run whose modes do not look at each other"):
        dln.gradient_flow(modes, aligned(modes, 2, 4), t, stop=dln.Stop(loss=0.1), reduce="decoupled")


def test_members_that_do_not_get_there() -> None:
    """Modes that are given up hand their member over to the whole network, which says where it came to."""
    task = dln.Task.from_spectrum([100.0, 1.0], n_in=4, n_out=4, seed=0)
    weights = dln.init.aligned(task, depth=2, width=4, strength=np.array([1e-3, 1.0]))
    run = dln.gradient_flow(task, weights, [0.0, 0.1, 500.0], max_steps=30, rtol=1e-4, throw=False, reduce="decoupled")
    assert set(run.status) == {dln.Status.STIFF}
    assert run.reduced == ((), ())
    assert not np.isnan(run.loss[:, :2]).any()
    assert np.isnan(run.loss[:, 2]).all()
    how = {"max_steps": 5, "throw": False, "reduce": "width"}
    wide = dln.gradient_flow(some_task(3, 2, whiten=True), low_rank((3, 40, 2), 40, 2), [9.0], **how)
    assert wide.reduced == (("width",),) * 2
    assert set(wide.status) == {dln.Status.STEP_LIMIT}
    assert wide.integrator_steps.max() <= 5
    assert (wide.stopped_time > 0).all()


def test_float32() -> None:
    modes = dln.Task.from_spectrum([3.0, 2.0], 4, 3, seed=1)
    for task, weights, reduce in (
        (some_task(4, 3, whiten=False), low_rank((4, 15, 3), 15, 2, dtype=np.float32), ("inputs", "width")),
        (modes, aligned(modes, 2, 6, 2, dtype=np.float32), "decoupled"),
        (modes, dln.init.balanced(maps(4, 3, [[1.0, 0.5], [0.7, 0.1]]), depth=3, dtype=np.float32), "balanced"),
    ):
        how = {"record": ("loss", "product", "weights"), "rtol": 1e-6}
        run = dln.gradient_flow(task, weights, T, reduce=reduce, **how)
        whole = dln.gradient_flow(task, weights, T, reduce="none", **how)
        assert all(run.reduced)
        for name in ("loss", "product"):
            assert getattr(run, name).dtype == np.float32
            np.testing.assert_allclose(getattr(run, name), getattr(whole, name), atol=5e-5)


def test_kernel_distance_needs_whole_layers() -> None:
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], 40, 30, seed=2)
    weights = aligned(task, 4, 60, 2)
    assert all(dln.gradient_flow(task, weights, T).reduced)
    run = dln.gradient_flow(task, weights, T, record=("kernel_distance", "loss"))
    assert run.reduced == ((), ())
    with pytest.raises(ValueError, match="reduce: expected auto or none with kernel_distance, got width"):
        dln.gradient_flow(task, weights, T, record="kernel_distance", reduce="width")


def test_what_is_refused() -> None:
    task, weights = some_task(4, 3, whiten=True), low_rank((4, 5, 5, 3), 99, 2)
    for reduce, message in (
        ("smaller", "reduce: expected one of 'auto', 'none'"),
        ("inputs", "reduce: expected general input covariances"),
        ("width", "reduce: expected hidden layers that move in fewer directions"),
        ("decoupled", "reduce: expected starts aligned with the modes"),
        (("decoupled", "width"), "reduce: expected 'decoupled' alone"),
    ):
        with pytest.raises(ValueError, match=message):
            dln.gradient_flow(task, weights, T, reduce=reduce)


def test_a_trajectory_says_how_it_was_run(tmp_path) -> None:
    run = dln.gradient_flow(some_task(3, 2, whiten=True), low_rank((3, 40, 2), 40, 2), T, reduce="width")
    assert run.settings["reduce"] == ["width"]
    assert "reduced = width 2 of 2 members" in run.summary()
    run.save(tmp_path / "run.npz")
    assert dln.Trajectory.load(tmp_path / "run.npz").reduced == (("width",),) * 2


def test_ctrl_c_keeps_what_there_is() -> None:
    task, weights = some_task(8, 8, whiten=True), low_rank((8, 24, 8), 24, 400)

    def press(done, total):
        if total // 3 < done < total:
            os.kill(os.getpid(), signal.SIGINT)

    t = np.linspace(0, 50, 20)
    with pytest.raises(dln.Interrupted, match="members are complete") as caught:
        dln.gradient_flow(task, weights, t, rtol=1e-12, record="loss", n_threads=1, progress=press)
    run = caught.value.trajectory
    complete = run.status == dln.Status.COMPLETED
    assert 0 < np.count_nonzero(complete) < 400
    assert not np.isnan(run.loss[complete]).any()
    unbegun = (run.status == dln.Status.INTERRUPTED) & (run.integrator_steps == 0)
    assert unbegun.any()
    assert np.isnan(run.loss[unbegun]).all()
    for w, start in zip(run.final.layers, weights.layers, strict=True):
        np.testing.assert_array_equal(w[unbegun], start[unbegun])
        assert np.isfinite(w).all()


def test_progress_comes_to_its_end() -> None:
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], 7, 6, seed=2)
    parts = zip(aligned(task, 3, 80, 50).layers, orthogonal((7, 80, 80, 6), 50).layers, strict=True)
    weights = dln.Weights([np.concatenate(both) for both in parts])
    seen = []
    dln.gradient_flow(task, weights, T, rtol=1e-12, progress=lambda done, total: seen.append((done, total)))
    assert all(total == 100 * len(T) and done <= total for done, total in seen)
    assert not seen or seen == sorted(seen)


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    whiten=st.booleans(),
    rank=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_any_shape_start_and_task(widths, whiten, rank, seed) -> None:
    task = some_task(widths[0], widths[-1], whiten=whiten, seed=seed)
    weights = low_rank(tuple(widths), rank, 2, seed=seed)
    both(task, weights, atol=1e-8)
    if not whiten:
        both(task, weights, reduce="inputs", atol=1e-8)
    if len(widths) > 2 and any(rank < n for n in widths[1:-1]):
        try:
            both(task, weights, reduce="width", atol=1e-8)
        except ValueError as error:
            assert "rounding errors outside the subspaces" in str(error)  # noqa: PT017
