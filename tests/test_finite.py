"""A value that is not finite is no success: in any verb, whatever is recorded, drawn or waited for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ensembles import DTYPES, some_task, starts
from hypothesis import given, settings
from hypothesis import strategies as st

import pydln as dln
from pydln import exact
from pydln._base import backend

SUCCESS = (dln.Status.COMPLETED, dln.Status.REACHED_LOSS, dln.Status.REACHED_STRENGTH, dln.Status.STEADY)
LAYERED = ("loss", "test_loss", "strengths", "product", "layer_norms", "kernel_distance", "drift", "weights")


def records(run):
    """Name and array of everything recorded."""
    return [(n, a) for n in run.names for a in (getattr(run, n) if n == "weights" else [getattr(run, n)])]


def assert_sound(run) -> None:
    """Nothing that is not finite in what succeeded; before the step that is told, nothing in what diverged."""
    for i, status in enumerate(run.status):
        success = status in SUCCESS
        if not success and status != dln.Status.DIVERGED:
            continue
        if run.steps is not None:
            reached, before = run.steps <= run.stopped_step[i], run.steps < run.stopped_step[i]
        else:
            end = run.stopped_time[i]
            t = run.t if run.t.ndim == 1 else run.t[i]
            reached, before = t <= end, t < end
        for name, a in records(run):
            there = a[i][reached if success else before]
            assert np.isfinite(there).all(), f"member {i}, {status!r}: {name}"
        if success and run.final is not None:
            assert all(np.isfinite(w[i]).all() for w in run.final.layers)


def assert_honest(call):
    """The same with throw=True: an error if, and only if, some member was given up."""
    run = call(throw=False)
    run = getattr(run, "trajectory", run)
    assert_sound(run)
    if np.isin(run.status, (dln.Status.DIVERGED, dln.Status.STEP_LIMIT, dln.Status.STIFF)).any():
        with pytest.raises(dln.IntegrationError, match=r"members (diverged|did not reach the end)") as caught:
            call(throw=True)
        np.testing.assert_array_equal(caught.value.trajectory.status, run.status)
    else:
        call(throw=True)
    return run


def scales(dtype):
    """From what is harmless to what is close to the threshold of overflow, to its powers 1, 1/2, 1/4, 1/8."""
    most = math.log10(float(np.finfo(dtype).max))
    return st.one_of(st.floats(-1, 1), *(st.floats(most / p - 2, most / p) for p in (2, 4, 8, 16)))


CASES = st.tuples(
    st.sampled_from(DTYPES),
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.booleans(),
    st.lists(st.sampled_from(LAYERED), max_size=3, unique=True).map(tuple),
)


def case(dtype, seed, depth, whiten, scale):
    rng = np.random.default_rng(seed)
    widths = (3, *rng.integers(1, 6, size=depth - 1).tolist(), 2)
    task = some_task(3, 2, whiten=whiten, seed=seed % 7)
    sizes = np.array([0.1, 0.3, 1.0])[:, None, None]
    layers = [(scale * sizes * w).astype(dtype) for w in starts(widths, 3, seed=seed % 11).layers]
    return task, dln.Weights(layers)


@given(CASES, st.data())
@settings(max_examples=60, deadline=None)
def test_gradient_descent(given_case, data) -> None:
    dtype, seed, depth, whiten, record = given_case
    scale = 10 ** data.draw(scales(dtype))
    task, weights = case(dtype, seed, depth, whiten, scale)
    lr = 10 ** data.draw(st.one_of(st.floats(-4, 2), scales(dtype), scales(dtype).map(lambda x: -x)))
    steps = data.draw(st.integers(0, 40))
    options = data.draw(
        st.sampled_from(
            [
                {},
                {"momentum": 0.9},
                {"weight_decay": 1.0},
                {"noise": dln.Online(3)},
                {"stop": dln.Stop(loss=1.0)},
                {"reduce": "none"},
            ]
        )
    )
    layout = data.draw(st.sampled_from(["interleaved", "rows"]))
    with backend.forced(layout=layout):
        at = data.draw(st.sampled_from([None, [0], [steps]]))
        assert_honest(
            lambda throw: dln.gradient_descent(
                task, weights, lr=lr, steps=steps, record=record, at=at, throw=throw, **options
            )
        )


@given(CASES, st.data())
@settings(max_examples=60, deadline=None)
def test_gradient_flow(given_case, data) -> None:
    dtype, seed, depth, whiten, record = given_case
    scale = 10 ** data.draw(scales(dtype))
    task, weights = case(dtype, seed, depth, whiten, scale)
    end = 10 ** data.draw(st.floats(-3, 1)) * min(scale, 1 / scale) ** 2
    options = data.draw(
        st.sampled_from(
            [{}, {"method": "dop853"}, {"stop": dln.Stop(loss=1.0)}, {"reduce": "none"}]
            + [{"method": "rk4", "step": end / k} for k in (1, 3, 20)] * 2
        )
    )
    times = [0.0] if data.draw(st.integers(0, 9)) == 0 else [0.0, 0.4 * end, end]
    assert_honest(
        lambda throw: dln.gradient_flow(task, weights, times, record=record, throw=throw, max_steps=300, **options)
    )


@given(st.integers(0, 10**6), st.integers(1, 5), st.data())
@settings(max_examples=40, deadline=None)
def test_mode_flow(seed, depth, data) -> None:
    rng, scale = np.random.default_rng(seed), 10 ** data.draw(scales(np.float64))
    a = scale * rng.standard_normal((4, 2, depth))
    s = 10 ** data.draw(st.floats(-3, 150)) * rng.standard_normal((4, 2))
    end = 10 ** data.draw(st.floats(-3, 3)) * min(scale, 1 / scale) ** data.draw(st.integers(0, 2))
    options = data.draw(st.sampled_from([{}, {"stop": dln.Stop(loss=1.0)}, {"method": "rk4", "step": end}]))
    assert_honest(lambda throw: dln.mode_flow(s, a, [0.0, 0.5 * end, end], throw=throw, max_steps=500, **options))


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 3, 2.5]), st.booleans(), st.data())
@settings(max_examples=20, deadline=None)
def test_end_to_end_and_singular_flow(seed, depth, singular, data) -> None:
    rng, scale = np.random.default_rng(seed), 10 ** data.draw(scales(np.float64))
    task = some_task(3, 2, whiten=bool(seed % 2), seed=seed % 7)
    omega = scale * rng.standard_normal((2, 2, 3))
    end = 10 ** data.draw(st.floats(-3, 1)) * min(scale, 1 / scale) ** data.draw(st.integers(0, 2))
    options = data.draw(st.sampled_from([{}, {"stop": dln.Stop(loss=1.0)}, {"method": "rk4", "step": end}]))
    verb = dln.singular_flow if singular and depth >= 2 else dln.end_to_end_flow
    record = ("loss", "test_loss", "strengths", "product")[: data.draw(st.integers(0, 4))]
    assert_honest(
        lambda throw: verb(task, omega, [0.0, end], depth=depth, record=record, max_steps=200, throw=throw, **options)
    )


@given(CASES, st.sampled_from(["tanh", "relu", "gelu", "softplus", "linear"]), st.data())
@settings(max_examples=40, deadline=None)
def test_train_nonlinear(given_case, activation, data) -> None:
    dtype, seed, depth, _, record = given_case
    scale = 10 ** data.draw(scales(dtype))
    _, weights = case(dtype, seed, depth, True, scale)
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    lr, steps = 10 ** data.draw(st.one_of(st.floats(-4, 2), scales(dtype))), data.draw(st.integers(0, 40))
    names = tuple(name for name in record if name not in ("product", "kernel_distance"))
    options = data.draw(st.sampled_from([{}, {"batch_size": 2}, {"stop": dln.Stop(loss=1e-3)}]))
    held_out = (
        {"x_test": 1e30 * x, "y_test": y} if seed % 3 == 0 and dtype == np.float64 else {"x_test": x, "y_test": y}
    )
    assert_honest(
        lambda throw: dln.train_nonlinear(
            x, y, weights, activation=activation, lr=lr, steps=steps, record=names, throw=throw, **held_out, **options
        )
    )


@given(st.integers(0, 10**6), st.integers(0, 5), st.lists(st.sampled_from(LAYERED), max_size=3, unique=True), st.data())
@settings(max_examples=60, deadline=None)
def test_exact_solutions(seed, kind, record, data) -> None:
    """Any time up to the largest number, starts and targets up to where their powers leave the range of float64."""
    rng, size = np.random.default_rng(seed), 10 ** data.draw(scales(np.float64))
    s = size * rng.uniform(0, 1, size=2)
    base = dln.Task.from_spectrum(np.sort(s)[::-1], 3, 2)
    c = 10 ** data.draw(st.floats(-3, 3)) if seed % 2 else None
    try:
        task = (
            base
            if c is None
            else dln.Task.from_covariances(c * np.eye(3), base.sigma_yx, float(2 * np.sum(s**2)) / float(c))
        )
        strength = 10 ** data.draw(scales(np.float64)) * rng.uniform(-1, 1, size=2)
        weights = [
            lambda: dln.init.aligned(task, depth=2, strength=strength),
            lambda: dln.init.aligned(task, depth=3, strength=strength),
            lambda: dln.init.aligned(task, depth=2, layer_strengths=strength),
            lambda: dln.Weights([strength[:, None] * rng.standard_normal((2, 3))]),
            lambda: dln.init.lambda_balanced(strength[0] * rng.standard_normal((2, 3)), imbalance=0.0),
            lambda: dln.init.lambda_balanced(
                strength[0] * rng.standard_normal((2, 3)), imbalance=abs(strength[1]), width=2
            ),
        ][kind]()
        solution = exact.solve(task, weights)
    except (ValueError, dln.NotApplicable):
        return  # refused: numbers out of range, or a start that rounding unbalanced
    times = np.concatenate([[0.0], 10 ** rng.uniform(-20, 308, size=3), [1e308, np.finfo(np.float64).max]])
    unknown = {"test_loss", "weights"} if solution.name == "balanced, two layers" else {"test_loss"}
    names = tuple(name for name in record if name not in unknown)
    run = assert_honest(lambda throw: solution.evaluate(times, record=names, throw=throw))
    if (
        solution.name != "balanced, two layers"
        and 1e-70 < np.abs(strength).min() < np.abs(strength).max() < 1e70
        and size < 1e70
    ):
        assert (run.status == dln.Status.COMPLETED).all()


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize("c", [None, 0.01, 30.0])
def test_exact_solutions_have_come_to_their_limit_at_the_largest_time(depth, c) -> None:
    rng = np.random.default_rng(depth)
    base = dln.Task.from_spectrum([2.0, 1.0, 0.1], 4, 3)
    task = base if c is None else dln.Task.from_covariances(c * np.eye(4), base.sigma_yx, 10.0 / c)
    weights = (
        dln.init.gaussian((4, 3), seed=1)
        if depth == 1
        else dln.init.aligned(task, depth=depth, strength=rng.uniform(1e-6, 0.3, 3))
    )
    run = exact.solve(task, weights).evaluate([0.0, 1e308], record=LAYERED[:1] + LAYERED[2:])
    assert run.loss[0, 1] == pytest.approx(task.floor, rel=1e-12, abs=1e-25)
    np.testing.assert_allclose(run.product[0, 1], task.optimum, rtol=0, atol=1e-13 * np.abs(task.optimum).max())
    np.testing.assert_allclose(run.strengths[0, 1], task.modes.s / (1 if c is None else c), rtol=1e-13)
    assert run.status[0] == dln.Status.COMPLETED


@pytest.mark.parametrize("depth", [1, 1.5, 2, 2.5, 4, 30, math.inf])
def test_functions_of_modes_are_finite_or_refuse(depth) -> None:
    powers = np.array([-300, -150, -10, 0, 10, 150, 300])
    v = np.concatenate([[0.0], 10.0**powers, -(10.0**powers)])
    t = np.array([0, 1e-300, 1.0, 1e10, 1e155, 1e300, 1.7e308])
    refused = 0
    for u0 in v:
        for s in v:
            if not finite_or_refused(lambda u0=u0, s=s: exact.balanced_mode(u0, s, t, depth=depth), "u0, s, t"):
                assert abs(u0) > 1e150 or abs(u0) > 1e300 * abs(s)
                refused += 1
    assert refused < 0.25 * v.size**2


def finite_or_refused(call, names) -> bool:
    """Whether the call returns finite numbers; the only other thing that it may do is refuse its arguments."""
    try:
        values = call()
    except ValueError as error:
        text = str(error)
    else:
        assert np.isfinite(values).all()
        return True
    assert text.startswith(f"{names}: expected numbers that float64 can follow")
    return False


def test_both_layers_of_a_mode_are_finite_or_refuse() -> None:
    rng = np.random.default_rng(0)
    t = np.array([0, 1e-300, 1.0, 1e10, 1e155, 1e300, 1.7e308])
    for _ in range(2000):
        a, b, s = rng.choice([-1, 1], 3) * 10.0 ** rng.uniform(-320, 308, 3) * (rng.random(3) > 0.1)
        moderate = all(x == 0 or 1e-150 < abs(x) < 1e70 for x in (a, b, s))
        known = finite_or_refused(lambda a=a, b=b, s=s: exact.scalar_mode(a, b, s, t), "a0, b0, s, t")
        assert known or not moderate


def test_the_step_is_told_where_a_record_left_the_range() -> None:
    """Weights that grow for ever: their squares overflow long before they do, at a step that NumPy knows too."""
    task = dln.Task.from_covariances(None, np.zeros((2, 2)), 1.0)
    layers = [np.diag([1e8, 0.0]).astype(np.float32), np.diag([0.0, 1e8]).astype(np.float32)]
    how = {"lr": 1.0, "steps": 30, "record_every": 1}
    for name in ("drift", "kernel_distance", "layer_norms"):
        run = dln.gradient_descent(task, dln.Weights(layers), record=name, throw=False, **how)
        assert_sound(run)
    big = dln.Weights([np.full((1, 2, 2), 1e19, np.float32), np.zeros((1, 2, 2), np.float32)])
    quiet = dln.gradient_descent(task, big, lr=1e-30, steps=10, record="strengths")
    assert quiet.status[0] == dln.Status.COMPLETED
    with pytest.raises(
        dln.IntegrationError, match=r"the first at step 0, where its layer_norms left the range of float32"
    ):
        dln.gradient_descent(task, big, lr=1e-30, steps=10, record=("strengths", "layer_norms"))


def test_advice_is_what_the_verb_can_take() -> None:
    task, weights = some_task(3, 2, whiten=True), starts((3, 4, 2))
    large = dln.Weights([1e200 * w for w in weights.layers])
    opposed = dln.init.aligned(task, depth=2, layer_strengths=[1e200, 1e-200])
    nonlinear = {"activation": "linear", "lr": 1e9, "steps": 50}
    cases = [
        (lambda: dln.gradient_descent(task, weights, lr=1e3, steps=50), "try a smaller lr, below 2/λ_max"),
        (
            lambda: dln.train_nonlinear(np.eye(3), np.ones((3, 2)), weights, **nonlinear),
            "or a smaller start",
        ),
        (lambda: dln.gradient_flow(task, weights, [50.0], method="rk4", step=10.0), "try a shorter step"),
        (lambda: dln.gradient_flow(task, weights, [50.0], max_steps=3), "allow more steps"),
        (lambda: dln.mode_flow([1.0], [1.0, 2.0], [90.0], method="rk4", step=30.0), "try a shorter step"),
        (lambda: dln.gradient_flow(task, large, [1.0]), "try a smaller start"),
        (lambda: exact.solve(task, opposed).evaluate([0.0], record="drift"), "try a smaller start"),
    ]
    for call, advice in cases:
        with pytest.raises(dln.IntegrationError) as caught:
            call()
        assert advice in str(caught.value), str(caught.value)
        assert ("lr" in str(caught.value)) == (
            caught.value.trajectory.source in ("gradient_descent", "train_nonlinear")
        )


def test_pretraining_and_fine_tuning_say_so_too() -> None:
    task = some_task(4, 2, whiten=False)
    with pytest.raises(dln.IntegrationError, match=r"try a smaller lr, below 1/d"):
        dln.pretrain(task, (4, 3, 2), lr=1e6, steps=100)
    made = dln.pretrain(task, (4, 3, 2), t=5.0)
    assert all(np.isfinite(run.loss).all() for run in made.runs)
    with pytest.raises(dln.IntegrationError, match=r"try a smaller lr, below 2/λ_max"):
        dln.fine_tune(task, made, lr=1e6, steps=100)
