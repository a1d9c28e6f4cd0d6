"""Gradient descent answers to the reference, in every shape, dtype, layout and instruction set, record and stop."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
import reference
from ensembles import DTYPES, KERNELS, RECORDS, assert_conforms, descend, references, same_bits, some_task, starts
from hypothesis import given, settings
from hypothesis import strategies as st

import pydln as dln
from pydln._base import backend

# Depth 1 and 30, widths 1 ... 40 each beside the next, thin, wide, square, more inputs than outputs and fewer.
SHAPES = [
    (1, 1),
    (1, 1, 1),
    (3, 4),
    (40, 1),
    (1, 40, 1),
    (2, 30, 3),
    (5, 9, 2),
    (3, 2, 5),
    (17, 9, 33, 6),
    (33, 5, 17),
    (40, 7, 40),
    (4, 11, 6, 9),
    (5, 33, 9, 17),
    (3, *(4,) * 15, *(3,) * 14, 2),
    tuple(range(1, 41)),
    tuple(range(40, 0, -1)),
]


def rate_and_steps(widths):
    """Deep chains amplify rounding: fewer, smaller steps keep the bound far below what a step changes."""
    return (0.1 / len(widths), 12) if len(widths) < 20 else (0.0005, 5)


def each_kernel():
    for isa, layout in KERNELS:
        with backend.forced(isa=isa, layout=layout):
            yield isa, layout


@cache
def case(widths, whiten, batch=3):
    lr, steps = rate_and_steps(widths)
    task, weights = some_task(widths[0], widths[-1], whiten=whiten), starts(widths, batch)
    return task, weights, references(task, weights, batch=batch, lr=lr, steps=steps)


def shape_id(widths):
    return (
        "-".join(map(str, widths))
        if len(widths) < 6
        else f"{widths[0]}-{widths[1]}-...-{widths[-1]}, {len(widths) - 1} layers"
    )


def test_the_shapes_exercise_both_orders_of_propagation() -> None:
    works = [reference.inner_work(widths) for widths in SHAPES]
    assert sum(output < input_ for output, input_ in works) >= 3
    assert sum(input_ < output for output, input_ in works) >= 3
    assert {n for widths in SHAPES for n in widths} == set(range(1, 41))
    assert {1, 30} <= {len(widths) - 1 for widths in SHAPES}


@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
@pytest.mark.parametrize("widths", SHAPES, ids=shape_id)
def test_every_record_of_every_shape(widths, whiten) -> None:
    task, weights, expected = case(widths, whiten)
    lr, steps = rate_and_steps(widths)
    for dtype in DTYPES:
        first = {}
        for isa, layout in each_kernel():
            run = descend(task, weights.astype(dtype), lr=lr, steps=steps, record=RECORDS, record_every=1)
            assert {run.loss.dtype, run.weights[0].dtype, run.final.dtype} == {np.dtype(dtype)}
            assert_conforms(run, expected)
            same_bits(first.setdefault(isa, run), run)  # layouts agree to the bit
            assert layout in ("interleaved", "rows")
    # The bound says something: what descent changed is far larger.
    ref, bounds = expected[0]
    moved = np.linalg.norm(ref.layers[0] - weights.layers[0][0])
    assert bounds[np.float64]["weights"][-1] < 1e-8 * moved
    assert bounds[np.float32]["weights"][-1] < 0.5 * moved


# Wider than the tiles of the inner dimension, the groups of rows and the strips of the row layout, thin and square.
# Rows of 32, 64 and 96 elements are padded in the interleaved layout.
WIDE = [(530, 20, 3), (3, 40, 530, 4), (95, 70, 50, 11), (140, 40, 270, 150), (64, 96, 32, 48)]


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("widths", WIDE, ids=shape_id)
def test_wide_layers(widths, momentum) -> None:
    task, weights = some_task(widths[0], widths[-1], whiten=True), starts(widths, 2)
    rates = {"lr": 0.1, "steps": 2, "momentum": momentum}
    expected = references(task, weights, batch=2, **rates)
    for dtype in DTYPES:
        first = {}
        for isa, _ in each_kernel():
            run = descend(task, weights.astype(dtype), record=RECORDS, record_every=1, **rates)
            assert_conforms(run, expected)
            same_bits(first.setdefault(isa, run), run)


@pytest.mark.parametrize("n", [*range(1, 10), 12, 16, 24, 32])
def test_square_networks_of_few_units(n) -> None:
    """All these widths but 9 have products of their own in the interleaved layout."""
    for depth, batch in ((1, 3), (2, 17), (4, 9)):
        widths = (n,) * (depth + 1)
        task, weights = some_task(n, n, whiten=True), starts(widths, batch)
        expected = references(task, weights, batch=batch, lr=0.05, steps=8)
        for dtype in DTYPES:
            first = {}
            for isa, _ in each_kernel():
                run = descend(task, weights.astype(dtype), lr=0.05, steps=8, record=RECORDS, record_every=1)
                assert_conforms(run, expected)
                same_bits(first.setdefault(isa, run), run)


@settings(max_examples=20, deadline=None)
@given(
    widths=st.lists(st.integers(1, 11), min_size=2, max_size=6).map(tuple),
    whiten=st.booleans(),
    batch=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32),
)
def test_any_shape_and_batch(widths, whiten, batch, dtype, seed) -> None:
    task, weights = some_task(widths[0], widths[-1], whiten=whiten, seed=seed), starts(widths, batch, seed=seed)
    expected = references(task, weights, batch=batch, lr=0.02, steps=5)
    for _ in each_kernel():
        run = descend(task, weights.astype(dtype), lr=0.02, steps=5, record=RECORDS, record_every=1)
        assert_conforms(run, expected)


@pytest.mark.parametrize("widths", [(3, 5, 4), (9, 4, 7, 2), (1, 1), (6, 6, 6, 6)], ids=shape_id)
@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
def test_everything_per_member(widths, whiten) -> None:
    batch, steps = 7, 12  # 7 fills no vector
    task = dln.Task.stack([some_task(widths[0], widths[-1], whiten=whiten, seed=i) for i in range(batch)])
    weights = starts(widths, batch)
    rates = {
        "lr": np.linspace(0.01, 0.03, batch),
        "momentum": np.linspace(0.0, 0.6, batch),
        "weight_decay": np.linspace(0.3, 0.0, batch),
    }
    expected = references(task, weights, batch=batch, steps=steps, **rates)
    for dtype in DTYPES:
        first = {}
        for isa, _ in each_kernel():
            run = descend(task, weights.astype(dtype), steps=steps, record=RECORDS, record_every=1, **rates)
            assert_conforms(run, expected)
            same_bits(first.setdefault(isa, run), run)
            np.testing.assert_array_equal(run.t, np.multiply.outer(rates["lr"].astype(dtype).astype(float), run.steps))


@pytest.mark.parametrize(
    "rates", [{"momentum": 0.9}, {"weight_decay": 0.2}, {"momentum": 0.5, "weight_decay": 0.1}], ids=str
)
def test_momentum_and_decay_shared_by_all(rates) -> None:
    task, weights = some_task(7, 3, whiten=False), starts((7, 5, 5, 3), 5)
    expected = references(task, weights, batch=5, lr=0.03, steps=15, **rates)
    plain = descend(task, weights, lr=0.03, steps=15, record=RECORDS, record_every=1)
    for dtype in DTYPES:
        for _ in each_kernel():
            run = descend(task, weights.astype(dtype), lr=0.03, steps=15, record=RECORDS, record_every=1, **rates)
            assert_conforms(run, expected)
            assert np.abs(run.loss - plain.loss).max() > 1e-3


@pytest.mark.parametrize("widths", [(3, 5, 4), (4, 4, 4), (9, 4, 7, 2)], ids=shape_id)
def test_nesterov(widths) -> None:
    """As the reference in 60 steps, in every kernel to the bit; without momentum it changes nothing."""
    batch = 5
    task, weights = some_task(widths[0], widths[-1], whiten=False), starts(widths, batch)
    rates = {"lr": 0.02, "steps": 60, "momentum": np.array([0.9, 0.0, 0.5, 0.7, 0.3]), "weight_decay": 0.05}
    runs = [
        [descend(task, weights, nesterov=nesterov, record=("loss", "weights"), **rates) for nesterov in (True, False)]
        for _ in each_kernel()
    ]
    for run, heavy_ball in runs:
        for i in range(batch):
            expected = reference.descent(
                [w[i] for w in weights.layers],
                sigma_xx=task.sigma_xx,
                sigma_yx=task.sigma_yx,
                trace_yy=task.trace_yy,
                U=task.modes.U,
                V=task.modes.V,
                at=run.steps,
                nesterov=True,
                **rates | {"momentum": rates["momentum"][i]},
            )
            np.testing.assert_allclose(run.loss[i], expected.records["loss"], rtol=1e-11)
            for got, right in zip(run.final.layers, expected.layers, strict=True):
                np.testing.assert_allclose(got[i], right, rtol=0, atol=1e-12)
        assert np.abs(run.loss[0, -1] - heavy_ball.loss[0, -1]) > 1e-6
        same_bits(run[1], heavy_ball[1])
    with pytest.raises(TypeError, match="nesterov: expected True or False, got 1"):
        descend(task, weights, nesterov=1, **rates)


def test_without_momentum_and_decay_the_general_path_takes_the_same_steps() -> None:
    """Rates of 0 for some members, not for others, run through the general update; 0 v + g = g has no rounding."""
    task, weights = some_task(5, 4, whiten=True), starts((5, 6, 4), 6)
    momentum = np.array([0, 0.5, 0, 0.9, 0, 0])
    for _ in each_kernel():
        mixed = descend(task, weights, lr=0.05, steps=50, record=RECORDS, momentum=momentum)
        plain = descend(task, weights, lr=0.05, steps=50, record=RECORDS)
        same_bits(mixed[momentum == 0], plain[momentum == 0])
        assert not np.array_equal(mixed.loss[1], plain.loss[1])


# ---- broadcasting -----------------------------------------------------------------------------------------------


def test_one_start_one_task_or_one_rate_serves_all_members() -> None:
    tasks = [some_task(4, 3, whiten=False, seed=i) for i in range(5)]
    weights, settings_ = starts((4, 6, 3), 5), {"steps": 10, "record": RECORDS}
    lr = np.linspace(0.01, 0.05, 5)
    many = dln.Task.stack(tasks)
    for _ in each_kernel():
        for run, task, start, rate in (
            (descend(tasks[0], weights[0], lr=lr, **settings_), [tasks[0]] * 5, [weights[0]] * 5, lr),
            (descend(many, weights[0], lr=0.02, **settings_), tasks, [weights[0]] * 5, [0.02] * 5),
            (descend(many, weights, lr=np.array([0.02]), **settings_), tasks, list(weights), [0.02] * 5),
            (
                descend(dln.Task.stack(tasks[:1]), weights, lr=lr, **settings_),
                [tasks[0]] * 5,
                list(weights),
                lr,
            ),
            (
                descend(tasks[0], weights[0], lr=0.02, stop=dln.Stop(strengths=np.full((5, 3), 9.0)), **settings_),
                [tasks[0]] * 5,
                [weights[0]] * 5,
                [0.02] * 5,
            ),
        ):
            assert run.batch == 5
            for i in range(5):
                same_bits(run[i], descend(task[i], start[i], lr=rate[i], **settings_))


def test_a_rate_given_as_an_array_makes_time_per_member() -> None:
    task, weights = some_task(2, 2, whiten=True), starts((2, 2, 2), 3)
    assert descend(task, weights, lr=0.1, steps=4).t.shape == (5,)
    for lr in (np.array([0.1]), np.full(3, 0.1)):
        run = descend(task, weights, lr=lr, steps=4)
        np.testing.assert_array_equal(run.t, np.tile(0.1 * np.arange(5), (3, 1)))
    assert descend(task, weights[0], lr=np.array([0.1]), steps=4).t.shape == (1, 5)


def test_a_batch_of_one_task_and_one_member() -> None:
    task, weights = some_task(3, 2, whiten=False), starts((3, 4, 2))
    run = descend(dln.Task.stack([task]), weights, lr=0.1, steps=9, record=RECORDS)
    same_bits(run, descend(task, weights, lr=0.1, steps=9, record=RECORDS))


# ---- records and schedules --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDS)
def test_each_record_alone_is_what_it_is_among_all(name) -> None:
    task, weights = some_task(5, 3, whiten=False), starts((5, 4, 6, 3), 6)
    for _ in each_kernel():
        every = descend(task, weights, lr=0.05, steps=40, record=RECORDS)
        for asked in (name, (name,), [name, name]):
            alone = descend(task, weights, lr=0.05, steps=40, record=asked)
            assert alone.names == (name,)
            for a, b in zip(_arrays(alone, name), _arrays(every, name), strict=True):
                np.testing.assert_array_equal(a, b)
            with pytest.raises(dln.NotRecorded, match="record="):
                _ = alone.loss if name != "loss" else alone.drift
            np.testing.assert_array_equal(alone.final.layers[0], every.final.layers[0])


def _arrays(run, name):
    value = getattr(run, name)
    return value if isinstance(value, tuple) else (value,)


def test_nothing_recorded_still_runs_to_the_end() -> None:
    task, weights = some_task(5, 3, whiten=True), starts((5, 4, 3), 2)
    run = descend(task, weights, lr=0.05, steps=100, record=())
    full = descend(task, weights, lr=0.05, steps=100)
    assert run.names == ()
    for a, b in zip(run.final.layers, full.final.layers, strict=True):
        np.testing.assert_array_equal(a, b)


def test_depth_one_has_an_empty_drift() -> None:
    run = descend(some_task(3, 2, whiten=True), starts((3, 2), 4), lr=0.1, steps=3, record="drift")
    assert run.drift.shape == (4, 4, 0)


def test_recording_does_not_change_the_run() -> None:
    """Steps on which something is recorded take another path; they may not take another step."""
    for whiten in (True, False):
        task, weights = some_task(6, 4, whiten=whiten), starts((6, 5, 5, 4), 5)
        for _ in each_kernel():
            dense = descend(task, weights, lr=0.02, steps=131, record=RECORDS, record_every=1)
            for at in ([131], [0, 131], [31, 32, 33, 63, 64, 65], [7]):
                sparse = descend(task, weights, lr=0.02, steps=131, record=RECORDS, at=at)
                np.testing.assert_array_equal(sparse.steps, at)
                for name in RECORDS:
                    for a, b in zip(_arrays(sparse, name), _arrays(dense, name), strict=True):
                        np.testing.assert_array_equal(a, b[:, at])
                for a, b in zip(sparse.final.layers, dense.final.layers, strict=True):
                    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({"steps": 10, "record_every": 4}, [0, 4, 8, 10]),
        ({"steps": 8, "record_every": 4}, [0, 4, 8]),
        ({"steps": 3, "record_every": 10**12}, [0, 3]),
        ({"steps": 9, "at": [2, 3, 9]}, [2, 3, 9]),
        ({"steps": 9, "at": np.array([4.0])}, [4]),
        ({"steps": 0}, [0]),
        ({"steps": 0, "at": [0]}, [0]),
        ({"steps": 0, "record_every": 5}, [0]),
        ({"steps": 7}, list(range(8))),
        ({"steps": 399}, list(range(400))),
        ({"steps": 1001}, [*range(0, 1001, 5), 1001]),
    ],
)
def test_schedules(arguments, steps) -> None:
    run = descend(some_task(2, 2, whiten=True), starts((2, 2, 2), 2), lr=0.25, **arguments)
    np.testing.assert_array_equal(run.steps, steps)
    np.testing.assert_array_equal(run.t, 0.25 * np.array(steps))
    assert run.loss.shape == (2, len(steps))
    assert np.isfinite(run.loss).all()
    np.testing.assert_array_equal(run.stopped_step, arguments["steps"])


def test_no_steps_leave_the_start_as_it_is() -> None:
    task, weights = some_task(4, 3, whiten=False), starts((4, 5, 3), 6)
    expected = references(task, weights, batch=6, lr=0.1, steps=0)
    for _ in each_kernel():
        run = descend(task, weights, lr=0.1, steps=0, record=RECORDS)
        assert_conforms(run, expected)
        assert (run.status == dln.Status.COMPLETED).all()
        for a, b in zip(run.final.layers, weights.layers, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_default_schedule_has_about_200_times() -> None:
    for steps in (200, 201, 399, 400, 5000, 12345):
        run = descend(some_task(1, 1, whiten=True), starts((1, 1)), lr=0.001, steps=steps)
        assert 200 <= len(run.steps) <= 402
        assert (run.steps[0], run.steps[-1]) == (0, steps)
        assert len(set(np.diff(run.steps)[:-1])) == 1


def test_the_weights_handed_in_are_not_touched() -> None:
    task, weights = some_task(3, 3, whiten=True), starts((3, 3, 3), 2)
    before = [w.copy() for w in weights.layers]
    run = descend(task, weights, lr=0.1, steps=10, record="weights")
    for now, then, recorded in zip(weights.layers, before, run.weights, strict=True):
        np.testing.assert_array_equal(now, then)
        assert not np.shares_memory(now, recorded)
        # A recorded trajectory is not ten views of one buffer (theory.md section 9).
        assert not np.array_equal(recorded[:, 0], recorded[:, -1])


def test_settings_say_what_was_run() -> None:
    task, weights = some_task(3, 2, whiten=True), starts((3, 4, 2), 2, dtype=np.float32)
    run = descend(task, weights, lr=0.5, steps=6, momentum=0.25, stop=dln.Stop(loss=0.125))
    wanted = {
        "lr": 0.5,
        "momentum": 0.25,
        "weight_decay": 0.0,
        "steps": 6,
        "stop": {"loss": 0.125},
        "normalize": "mean",
        "whitened": True,
        "depth": 2,
        "widths": [3, 4, 2],
        "dtype": "float32",
        "isa": backend.isa(),
        "version": dln.__version__,
    }
    assert {key: run.settings[key] for key in wanted} == wanted
    general = descend(some_task(3, 2, whiten=False), weights, lr=0.5, steps=0)
    assert (general.settings["whitened"], general.settings["stop"]) == (False, None)
    assert run.source == "gradient_descent"


# ---- stopping ---------------------------------------------------------------------------------------------------


@cache
def _stopping_case(whiten=True, momentum=0.0, steps=60):
    """Members whose loss falls and whose first strength grows from the first step on."""
    task, weights = some_task(5, 3, whiten=whiten, seed=3), starts((5, 6, 3), 11, seed=5, scale=0.4)
    first, last = weights.layers
    signs = np.sign(np.einsum("o,boi,i->b", task.modes.U[:, 0], last @ first, task.modes.V[:, 0]))
    weights = dln.Weights([first, last * signs[:, None, None]])
    free = references(task, weights, batch=11, lr=0.1, steps=steps, momentum=momentum)
    return task, weights, free


def _between(values, at):
    """A threshold that a monotone curve crosses exactly in step `at`, as far from both neighbours as can be."""
    return 0.5 * (values[at - 1] + values[at])


def _assert_stops(case, stop, wanted_status, wanted_steps, steps=60, **rates) -> None:
    task, weights, free = case
    expected = references(task, weights, batch=11, lr=0.1, steps=steps, stop=stop, free=free, **rates)
    if wanted_steps is not None:
        assert [ref.stopped_at for ref, _ in expected] == wanted_steps
    for dtype in DTYPES:
        first = {}
        for isa, _ in each_kernel():
            run = descend(
                task,
                weights.astype(dtype),
                lr=0.1,
                steps=steps,
                stop=stop,
                record=RECORDS,
                at=range(1, steps + 1, 3),
                **rates,
            )
            assert_conforms(run, expected)
            same_bits(first.setdefault(isa, run), run)
        assert wanted_status in run.status
        late = run.steps > run.stopped_step[:, None]
        np.testing.assert_array_equal(np.isnan(run.loss), late)
        np.testing.assert_array_equal(np.isnan(run.weights[0]).all(axis=(2, 3)), late)
        assert late.any()


@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
def test_stop_at_a_loss_of_each_members_own(whiten) -> None:
    case = _stopping_case(whiten)
    steps = [3 + 5 * i for i in range(11)]
    loss = np.array([_between(ref.records["loss"], k) for (ref, _), k in zip(case[2], steps, strict=True)])
    _assert_stops(case, dln.Stop(loss=loss), dln.Status.REACHED_LOSS, steps)


def test_a_start_already_below_the_loss_stops_at_step_0() -> None:
    task, weights, _ = _stopping_case()
    for _ in each_kernel():
        run = descend(task, weights, lr=0.1, steps=10, stop=dln.Stop(loss=1e9), record=RECORDS)
        np.testing.assert_array_equal(run.stopped_step, 0)
        np.testing.assert_array_equal(run.status, dln.Status.REACHED_LOSS)
        np.testing.assert_array_equal(run.final.layers[0], weights.layers[0])
        assert np.isfinite(run.loss[:, 0]).all()
        assert np.isnan(run.loss[:, 1:]).all()


def test_a_loss_equal_to_the_threshold_is_reached() -> None:
    """<=, not <: with W_1 = 1/2, Omega* = 1 the loss is exactly 1/8."""
    task = dln.Task.from_covariances(None, [[1.0]], 1.0)
    for _ in each_kernel():
        run = descend(task, dln.Weights([[[0.5]]]), lr=0.1, steps=5, stop=dln.Stop(loss=0.125))
        assert run.stopped_step[0] == 0
        run = descend(task, dln.Weights([[[0.5]]]), lr=0.1, steps=5, stop=dln.Stop(strengths=0.5))
        assert (run.stopped_step[0], run.status[0]) == (0, dln.Status.REACHED_STRENGTH)


@pytest.mark.parametrize("form", ["number", "by mode", "by member"])
def test_stop_at_strengths(form) -> None:
    case = _stopping_case()
    strengths = [np.abs(ref.records["strengths"]) for ref, _ in case[2]]
    # Of mode 0 alone, the others left out by NaN; or of all.
    if form == "number":
        threshold = _between(strengths[0].min(axis=1), 40)
    elif form == "by mode":
        threshold = np.array([_between(strengths[0][:, 0], 25), np.nan, np.nan])
    else:
        threshold = np.full((11, 3), np.nan)
        threshold[:, 0] = [_between(u[:, 0], 9 + 4 * i) for i, u in enumerate(strengths)]
    wanted = np.where(np.isnan(threshold), 0, threshold) * np.ones((11, 1))
    first = [np.flatnonzero((u >= w).all(axis=1)) for u, w in zip(strengths, wanted, strict=True)]
    assert len({tuple(k[:1]) for k in first}) >= 4
    _assert_stops(
        case, dln.Stop(strengths=threshold), dln.Status.REACHED_STRENGTH, [int(k[0]) if k.size else 60 for k in first]
    )


def test_strengths_count_by_size_not_sign() -> None:
    task = dln.Task.from_covariances(None, [[1.0]], 1.0)
    run = descend(task, dln.Weights([[[-0.75]]]), lr=0.1, steps=5, stop=dln.Stop(strengths=0.7))
    assert (run.status[0], run.stopped_step[0], run.strengths[0, 0, 0]) == (dln.Status.REACHED_STRENGTH, 0, -0.75)


@pytest.mark.parametrize(("momentum", "steps"), [(0.0, 60), (0.3, 18)])
def test_stop_in_a_steady_state(momentum, steps) -> None:
    case = _stopping_case(momentum=momentum, steps=steps)
    ref = case[2][4][0]
    # Velocity: what a step moved, over lr.
    speeds = np.max([np.abs(np.diff(w, axis=0)).max(axis=(1, 2)) / 0.1 for w in ref.records["weights"]], axis=0)
    stop = dln.Stop(steady=_between(speeds, 2 * steps // 3))
    _assert_stops(case, stop, dln.Status.STEADY, None, steps, momentum=momentum)


def test_a_start_is_not_steady_before_the_first_step() -> None:
    """At a saddle nothing moves: steady, but only once a step has been taken."""
    task, saddle = some_task(2, 2, whiten=True), dln.Weights([np.zeros((3, 2, 2)), np.zeros((3, 2, 2))])
    for _ in each_kernel():
        run = descend(task, saddle, lr=0.1, steps=5, stop=dln.Stop(steady=0.0))
        np.testing.assert_array_equal(run.status, dln.Status.STEADY)
        np.testing.assert_array_equal(run.stopped_step, 1)


def test_whichever_criterion_holds_first() -> None:
    task, weights, free = _stopping_case()
    ref = free[0][0]
    loss = _between(ref.records["loss"], 30)
    slow = {"steady": 1e-12}
    for other, status, step in (
        ({"strengths": [_between(np.abs(ref.records["strengths"][:, 0]), 20), np.nan, np.nan]}, "REACHED_STRENGTH", 20),
        ({"strengths": [_between(np.abs(ref.records["strengths"][:, 0]), 40), np.nan, np.nan]}, "REACHED_LOSS", 30),
    ):
        run = descend(task, weights[0], lr=0.1, steps=60, stop=dln.Stop(loss=loss, **other, **slow))
        assert (run.status[0].item(), run.stopped_step[0]) == (dln.Status[status], step)


def test_an_empty_stop_stops_nothing() -> None:
    task, weights, _ = _stopping_case()
    same_bits(
        descend(task, weights, lr=0.1, steps=60, stop=dln.Stop()),
        descend(task, weights, lr=0.1, steps=60),
    )


def test_a_run_longer_than_the_age_of_the_universe_ends_where_it_stops() -> None:
    task, weights, _ = _stopping_case()
    stop = dln.Stop(loss=1.0001 * task.floor)
    for _ in each_kernel():
        run = descend(task, weights, lr=0.1, steps=2**62 // 11, stop=stop, at=[0])
        assert (run.status == dln.Status.REACHED_LOSS).all()
        assert (run.stopped_step < 10**4).all()


# ---- divergence -------------------------------------------------------------------------------------------------


def _diverging():
    task, weights = some_task(4, 3, whiten=True), starts((4, 5, 3), 6)
    return task, weights, np.array([0.05, 40.0, 0.05, 5.0, 0.05, 1e6])


def test_divergence_is_found_at_the_step_it_happens_when_every_step_is_recorded() -> None:
    task, weights, lr = _diverging()
    with np.errstate(all="ignore"):
        expected = references(task, weights, batch=6, lr=lr, steps=64)
    for i, (ref, _) in enumerate(expected):
        assert (ref.status == "diverged") == (lr[i] > 1)
    for isa, layout in each_kernel():
        run = descend(task, weights, lr=lr, steps=64, record="loss", record_every=1, throw=False)
        np.testing.assert_array_equal(
            run.stopped_step, [ref.stopped_at for ref, _ in expected], err_msg=f"{isa} {layout}"
        )
        np.testing.assert_array_equal(run.status == dln.Status.DIVERGED, lr > 1)
        assert all(not np.isfinite(run.loss[i, run.stopped_step[i]]) for i in (1, 3, 5))
        assert np.isfinite(run.loss[lr < 1]).all()
        assert np.isnan(run.loss[1, run.stopped_step[1] + 1 :]).all()


def test_divergence_is_found_within_32_steps_when_little_is_recorded() -> None:
    task, weights, lr = _diverging()
    for _ in each_kernel():
        dense = descend(task, weights, lr=lr, steps=1000, record="loss", record_every=1, throw=False)
        sparse = descend(task, weights, lr=lr, steps=1000, record="loss", at=[1000], throw=False)
        strict = descend(
            task, weights, lr=lr, steps=1000, record="loss", at=[1000], throw=False, stop=dln.Stop(steady=0.0)
        )
        np.testing.assert_array_equal(sparse.status, dense.status)
        lost = lr > 1
        np.testing.assert_array_equal(sparse.stopped_step[lost], -(-dense.stopped_step[lost] // 32) * 32)
        np.testing.assert_array_equal(strict.stopped_step[lost], dense.stopped_step[lost])
        np.testing.assert_array_equal(sparse.final.layers[0][~lost], dense.final.layers[0][~lost])


def test_a_start_whose_loss_overflows_has_diverged_at_step_0() -> None:
    task, huge = some_task(2, 2, whiten=True), dln.Weights([np.full((2, 2), 1e200)])
    for _ in each_kernel():
        run = descend(task, huge, lr=0.1, steps=5, throw=False)
        assert (run.status[0], run.stopped_step[0]) == (dln.Status.DIVERGED, 0)


@pytest.mark.parametrize("widths", [(3, 3, 3), (2, 3, 5, 3), (5, 3, 2), (3, 3)], ids=shape_id)
def test_layouts_agree_on_what_is_left_of_a_diverging_member(widths) -> None:
    """Infinity in one place, NaN in another, depends on nothing but the member, padding included."""
    task = dln.Task.from_spectrum([2.0, 1.0], widths[0], widths[-1])
    rng = np.random.default_rng(1)
    for scale in (1e60, 1e100, 1e140, 1e154, 1e155):
        weights = dln.Weights([rng.normal(size=(6, b, a)) * scale for a, b in itertools.pairwise(widths)])
        for isa in backend.available_isas():
            runs = []
            for layout in ("interleaved", "rows"):
                with backend.forced(isa=isa, layout=layout):
                    arguments = {"record": RECORDS[:1] + RECORDS[2:], "record_every": 1, "throw": False}
                    runs.append(descend(task, weights, lr=0.1, steps=40, **arguments))
            same_bits(*runs)


# ---- what the loss keeps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
def test_the_loss_keeps_its_digits_near_a_minimum_of_zero(whiten) -> None:
    """Noise-free targets, learned to the end: 1/2 tr Sigma_yy - ... would stall at 1e-16 of its terms."""
    rng = np.random.default_rng(0)
    x, teacher = rng.normal(size=(60, 3)), rng.normal(size=(2, 3))
    task = dln.Task.from_data(x, x @ teacher.T) if not whiten else dln.Task.from_spectrum([2.0, 1.0], 3, 2)
    for _ in each_kernel():
        run = descend(task, starts((3, 4, 2)), lr=0.1, steps=20_000, record="loss")
        assert abs(run.loss[0, -1]) < 1e-20


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("normalize", ["mean", "sum"])
def test_sgd_on_the_mean_squared_error_of_deep_learning_libraries(depth, normalize) -> None:
    """What the README says of torch.nn.functional.mse_loss with SGD: mean over samples and outputs, no half."""
    rng = np.random.default_rng(depth)
    samples, widths = 11, (*(5, 6, 7)[:depth], 3)
    x, y = rng.normal(size=(samples, 5)), rng.normal(size=(samples, 3))
    layers = [0.5 * rng.normal(size=(n, m)) for m, n in itertools.pairwise(widths)]
    start, rate, decay, momentum, n_out = dln.Weights(layers), 0.07, 0.02, 0.6, 3
    velocity, losses = [np.zeros_like(w) for w in layers], []
    for _ in range(20):
        hidden = [x]
        for w in layers:
            hidden.append(hidden[-1] @ w.T)
        losses.append(np.mean((hidden[-1] - y) ** 2))
        back, gradients = 2 * (hidden[-1] - y) / y.size, []
        for w, h in zip(layers[::-1], hidden[-2::-1], strict=True):
            gradients.insert(0, back.T @ h)
            back = back @ w
        velocity = [momentum * v + g + decay * w for v, g, w in zip(velocity, gradients, layers, strict=True)]
        layers = [w - rate * v for w, v in zip(layers, velocity, strict=True)]
    scale = samples if normalize == "sum" else 1
    run = dln.gradient_descent(
        dln.Task.from_data(x, y, normalize=normalize),
        start,
        lr=2 * rate / n_out / scale,
        weight_decay=decay * n_out / 2 * scale,
        momentum=momentum,
        steps=20,
        record_every=1,
    )
    for w, wanted in zip(run.final.layers, layers, strict=True):
        np.testing.assert_allclose(w[0], wanted, rtol=0, atol=1e-13)
    np.testing.assert_allclose(2 * run.loss[0, :-1] / n_out / scale, losses, rtol=1e-12)


def test_as_many_rates_as_steps_are_refused_where_they_may_be_meant_as_a_schedule() -> None:
    task, one, rates = some_task(3, 2, whiten=True), starts((3, 4, 2)), np.linspace(0.01, 0.02, 7)
    with pytest.raises(
        ValueError, match=r"^lr: expected .* got 7 of them for 7 steps of one start: .*weights\[\[0\] \* 7\]"
    ):
        dln.gradient_descent(task, one, lr=rates, steps=7)
    with pytest.raises(ValueError, match=r"^lr: expected"):
        dln.train_nonlinear(np.eye(3), np.ones((3, 2)), one, lr=rates, steps=7)
    run = dln.gradient_descent(task, one[[0] * 7], lr=rates, steps=7)
    assert run.batch == 7
    assert "lr = 0.01 ... 0.02 (per member)" in run.summary()
    for same in (
        dln.gradient_descent(task, one, lr=rates, steps=8),
        dln.gradient_descent(task, one, lr=rates, steps=7, momentum=np.zeros(7)),
        dln.gradient_descent(task, one, lr=rates[:1], steps=1),
    ):
        assert same.batch == len(same.status)
