"""The loss above its floor is a sum of squares: never below the floor, right to its last digits, in every kernel,
reduction, precision and solution. The truth is evaluated at the recorded weights with 40 digits.

Samples are small integers times powers of two, in sums, so that the covariances that are made of them are exact and a
rank is what it is.
"""

from __future__ import annotations

import itertools
from functools import cache

import mpmath
import numpy as np
import pytest
from ensembles import DTYPES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pydln as dln
from pydln._base import backend

EPS = {np.dtype(t): float(np.finfo(t).eps) for t in DTYPES}
KINDS = ("few", "as many", "many", "rank", "scaled", "exact")
REDUCTIONS = ("none", "auto", "inputs", "width", ("inputs", "width"))


def samples(kind: str, n_in: int, n_out: int, seed: int):
    """X and Y, integers times powers of two: fewer samples than inputs, as many, more, dependent inputs, inputs of
    scales from 2^-4 to 2^4, and targets that a map explains."""
    rng = np.random.default_rng((seed, n_in, n_out, KINDS.index(kind)))
    count = {"few": max(1, n_in // 2), "as many": n_in}.get(kind, 2 * n_in + 3)
    x = rng.integers(-3, 4, (count, n_in)).astype(float)
    if kind == "rank" and n_in > 2:
        x[:, n_in // 2 :] = x[:, : n_in - n_in // 2] * rng.choice([-1.0, 1.0], n_in - n_in // 2)
    if kind == "scaled":
        x *= 2.0 ** rng.integers(-4, 5, n_in)
    y = rng.integers(-3, 4, (count, n_out)).astype(float)
    if kind == "exact":
        y = x @ rng.integers(-2, 3, (n_in, n_out)).astype(float)
    return x, y


def exact_matrix(a):
    return mpmath.matrix(np.asarray(a, dtype=float).tolist())


@cache
def space(data, shape):
    """An orthonormal basis of what maps of the inputs can reach among the samples, with 40 digits."""
    found = []
    for column in np.frombuffer(data).reshape(shape).T:
        v = mpmath.matrix(column.tolist())
        for _ in range(2):
            for q in found:
                v = v - q * (q.T * v)[0]
        if mpmath.norm(v) > 1e-25 * max(1.0, float(np.linalg.norm(column))):
            found.append(v / mpmath.norm(v))
    return found


def square(a):
    return sum((v**2 for v in a), mpmath.mpf(0))


def product_of(layers):
    """The end-to-end map of weights as they are, with 40 digits, and what its rounding is measured by."""
    omega, size = exact_matrix(layers[0]), np.abs(np.asarray(layers[0], dtype=float))
    for w in layers[1:]:
        omega, size = exact_matrix(w) * omega, np.abs(np.asarray(w, dtype=float)) @ size
    return omega, size


def truth(x, y, layers):
    """(2 (L - L(Omega*)))^(1/2) = |P (Y - X Omegaᵀ)|, P the projection on the space of X; 2 L(Omega*); and a bound on
    what the first is the difference of."""
    x, y = np.ascontiguousarray(x, dtype=float), np.asarray(y, dtype=float)
    with mpmath.workdps(40):
        omega, size = product_of(layers)
        rest = exact_matrix(y) - exact_matrix(x) * omega.T
        seen = sum((square(q.T * rest) for q in space(x.tobytes(), x.shape)), mpmath.mpf(0))
        root, floor = float(mpmath.sqrt(seen)), float(max(square(rest) - seen, 0))
    return root, floor, float(np.linalg.norm(y) + np.linalg.norm(np.abs(x) @ size.T))


def near(loss, floor, root, size, dtype, *, factor=32.0):
    """`loss` is the floor and half the square of a number that is `root` but for `factor` roundings of `size`."""
    eps = EPS[np.dtype(dtype)]
    rounding = factor * eps * size
    low, high = (floor + 0.5 * max(root + d, 0.0) ** 2 for d in (-rounding, rounding))
    slack = 4 * eps * high if floor else 0.0
    assert loss >= floor
    assert low * (1 - 4 * eps) - slack <= loss <= high * (1 + 4 * eps) + slack, (loss - floor, 0.5 * root**2, rounding)


def check(loss, floor, x, y, layers, dtype, **how):
    root, _, size = truth(x, y, layers)
    near(loss, floor, root, size, dtype, **how)


def start(widths, batch, seed, dtype):
    rng = np.random.default_rng((seed, *widths))
    return dln.Weights(
        [(rng.standard_normal((batch, o, i)) / np.sqrt(max(i, o))).astype(dtype) for i, o in itertools.pairwise(widths)]
    )


def rate(task, depth):
    """A step that is stable from the starts above to the end."""
    top = float(np.max(np.linalg.eigvalsh(task.sigma_xx)))
    return 0.03 / (max(top, 1e-9) * depth * max(1.0, float(np.abs(task.optimum).max())))


shapes = st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 4))
some = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@some
@given(st.sampled_from(KINDS), shapes, st.integers(0, 10**6))
def test_task_loss_is_right_to_its_last_digits(kind, shape, seed):
    """At maps at every distance from the optimum, from samples and from covariances, single and stacked."""
    n_in, n_out, _ = shape
    x, y = samples(kind, n_in, n_out, seed)
    task = dln.Task.from_data(x, y, normalize="sum")
    by_moments = dln.Task.from_covariances(task.sigma_xx, task.sigma_yx, task.trace_yy, normalize="sum")
    data = samples("many", n_in, n_out, seed + 1)
    others = dln.Task.from_data(*data, normalize="sum")
    rng = np.random.default_rng(seed)
    floor = 0.5 * truth(x, y, [np.zeros((n_out, n_in))])[1]
    assert task.floor == pytest.approx(floor, rel=1e-13, abs=1e-28 * task.trace_yy)
    assert by_moments.floor == pytest.approx(floor, rel=1e-12, abs=1e-12 * task.trace_yy)
    for distance in (1.0, 1e-3, 1e-8, 1e-12, 0.0):
        omega = task.optimum + distance * rng.standard_normal((n_out, n_in))
        for one in (task, by_moments, dln.Task.stack([others, task])[1]):
            check(float(one.loss(omega)), one.floor, x, y, [omega], np.float64)
        stacked = dln.Task.stack([others, task, by_moments]).loss(omega)
        for i, one in enumerate((others, task, by_moments)):
            check(float(stacked[i]), one.floor, *((x, y) if i else data), [omega], np.float64)


def tasks_of(kind, n_in, n_out, seed, made):
    """A task and its samples, with fewer held-out ones than inputs: from samples or from their covariances."""
    x, y = samples(kind, n_in, n_out, seed)
    x_test, y_test = samples("few", n_in, n_out, seed + 1)
    task = dln.Task.from_data(x, y, normalize="sum", X_test=x_test, Y_test=y_test, whiten=made == "whiten")
    if made == "covariances":
        test = task.test
        test = dln.Task.from_covariances(test.sigma_xx, test.sigma_yx, test.trace_yy, normalize="sum")
        task = dln.Task.from_covariances(task.sigma_xx, task.sigma_yx, task.trace_yy, normalize="sum", test=test)
    if made == "whiten":  # what it is made of now: orthonormal samples, and held-out ones as they have become
        root, target = task.test.squares.root, task.test.squares.target
        return task, (np.eye(n_in), task.sigma_yx.T), (root.T, target.T)
    return task, (x, y), (x_test, y_test)


def check_run(run, task, data, test_data, dtype, **how):
    assert (run.loss >= np.asarray(task.floor)).all()
    assert (run.test_loss >= np.asarray(task.test.floor)).all()
    for i, k in itertools.product(range(run.batch), range(run.loss.shape[1])):
        layers = [w[i, k] for w in run.weights]
        check(float(run.loss[i, k]), task.floor, *data, layers, dtype, **how)
        check(float(run.test_loss[i, k]), task.test.floor, *test_data, layers, dtype, **how)


def reduced(verb, *given, reduce, **how):
    """A run reduced as asked for by name, or as it likes where that does not hold."""
    try:
        return verb(*given, reduce=reduce, **how)
    except ValueError as error:
        if not str(error).startswith("reduce: "):
            raise
        return verb(*given, reduce="auto", **how)


every_way = given(
    st.sampled_from(KINDS),
    shapes,
    st.integers(1, 4),
    st.sampled_from(REDUCTIONS),
    st.sampled_from(DTYPES),
    st.sampled_from(("interleaved", "rows")),
    st.sampled_from(("data", "covariances", "whiten")),
    st.integers(0, 10**6),
)


@some
@every_way
def test_descent_records_the_loss_of_its_weights(kind, shape, depth, reduce, dtype, layout, made, seed):
    """From the start until nothing moves: above the floor, its digits those of the weights recorded beside it."""
    n_in, n_out, hidden = shape
    task, data, test_data = tasks_of(kind, n_in, n_out, seed, made)
    weights, steps = start((n_in, *(hidden + 1,) * (depth - 1), n_out), 3, seed, dtype), 4000
    momentum = 0.9 * (seed % 2)
    with backend.forced(layout=layout):
        run = reduced(
            dln.gradient_descent,
            task,
            weights,
            lr=rate(task, depth) * (1 - momentum),
            momentum=momentum,
            weight_decay=0.1 * (seed % 3 == 0),
            steps=steps,
            record=("loss", "test_loss", "weights"),
            at=[0, 1, 30, 400, steps],
            reduce=reduce,
        )
    check_run(run, task, data, test_data, dtype)


@some
@every_way
def test_flow_records_the_loss_of_its_weights(kind, shape, depth, reduce, dtype, layout, made, seed):
    """The same in continuous time."""
    n_in, n_out, hidden = shape
    task, data, test_data = tasks_of(kind, n_in, n_out, seed, made)
    weights = start((n_in, *(hidden + 1,) * (depth - 1), n_out), 2, seed, dtype)
    times = np.array([0.0, 0.1, 1.0, 5.0, 60.0]) / max(float(np.max(np.linalg.eigvalsh(task.sigma_xx))), 1e-9)
    with backend.forced(layout=layout):
        how = {"record": ("loss", "test_loss", "weights"), "rtol": 1e-5}
        run = reduced(dln.gradient_flow, task, weights, times, reduce=reduce, **how)
    check_run(run, task, data, test_data, dtype)


@some
@given(st.lists(st.sampled_from(KINDS), min_size=3, max_size=3), shapes, st.sampled_from(DTYPES), st.integers(0, 10**6))
def test_tasks_of_different_ranks_in_one_batch(kinds, shape, dtype, seed):
    """Members alike in nothing, reduced and whole: each with the digits that it has alone."""
    n_in, n_out, hidden = shape
    data = [samples(kind, n_in, n_out, seed + i) for i, kind in enumerate(kinds)]
    held_out = [samples("few", n_in, n_out, seed + i) for i in range(3, 6)]
    own = [
        dln.Task.from_data(*one, normalize="sum", X_test=other[0], Y_test=other[1])
        for one, other in zip(data, held_out, strict=True)
    ]
    task, weights = dln.Task.stack(own), start((n_in, hidden + 1, n_out), 3, seed, dtype)
    lr = min(rate(one, 2) for one in own)
    for reduce in ("none", "inputs"):
        run = dln.gradient_descent(
            task, weights, lr=lr, steps=2000, at=[0, 7, 2000], record=("loss", "test_loss", "weights"), reduce=reduce
        )
        for i, k in itertools.product(range(3), range(3)):
            layers = [w[i, k] for w in run.weights]
            check(float(run.loss[i, k]), own[i].floor, *data[i], layers, dtype)
            check(float(run.test_loss[i, k]), own[i].test.floor, *held_out[i], layers, dtype)


@some
@given(shapes, st.integers(2, 4), st.sampled_from(DTYPES), st.booleans(), st.booleans(), st.integers(0, 10**6))
def test_decoupled_modes_record_the_loss_of_their_weights(shape, depth, dtype, flow, whitened, seed):
    """Aligned starts mode by mode: what the modes do not explain stays, held out too."""
    n_in, n_out, _ = shape
    rng = np.random.default_rng(seed)
    x_test, y_test = samples("few", n_in, n_out, seed)
    Q = np.linalg.qr(rng.standard_normal((n_in, n_in)))[0]
    U = np.linalg.qr(rng.standard_normal((n_out, n_out)))[0]
    r = min(n_in, n_out)
    d = np.ones(n_in) if whitened else 2.0 ** rng.integers(-6, 3, n_in)
    s = np.sort(rng.uniform(0.1, 2.0, r))[::-1] * np.sqrt(d[:r])
    s[rng.random(r) < 0.2] = 0.0
    sigma_yx = (U[:, :r] * s) @ Q[:, :r].T
    test = dln.Task.from_data(x_test, y_test, normalize="sum")
    trace = float(np.sum(s**2 / d[:r])) * (1 + 1e-14) + (seed % 2)
    task = dln.Task.from_covariances(None if whitened else (Q * d) @ Q.T, sigma_yx, trace, test=test, normalize="sum")
    weights = dln.init.aligned(task, depth=depth, width=r, strength=rng.uniform(0.05, 0.5, (2, r)), dtype=dtype)
    how = {"record": ("loss", "test_loss", "weights"), "reduce": "auto"}
    if flow:
        run = dln.gradient_flow(task, weights, [0.0, 1.0, 10.0, 200.0], rtol=1e-5, **how)
    else:
        run = dln.gradient_descent(task, weights, lr=0.02, steps=4000, at=[0, 10, 300, 4000], **how)
    root = (Q * np.sqrt(d)).T
    data = root, (root @ np.linalg.solve((Q * d) @ Q.T, sigma_yx.T))
    check_run(run, task, data, (x_test, y_test), dtype, factor=64.0)


@some
@given(st.sampled_from(KINDS), shapes, st.integers(1, 3), st.booleans(), st.integers(0, 10**6))
def test_a_stop_at_a_loss_is_at_the_first_step_that_has_it(kind, shape, depth, reduced, seed):
    """Thresholds between the true losses of two steps, from the first to the last digits above a floor."""
    n_in, n_out, hidden = shape
    x, y = samples(kind, n_in, n_out, seed)
    task = dln.Task.from_data(x, y, normalize="sum")
    weights = start((n_in, *(hidden + 1,) * (depth - 1), n_out), 1, seed, np.float64)
    how = {"lr": rate(task, depth), "reduce": "auto" if reduced else "none"}
    steps = 3000
    whole = dln.gradient_descent(
        task, weights, steps=steps, record=("loss", "weights"), at=range(0, steps + 1, 50), **how
    )
    for place in (1, 3, 10, 30, 59):
        roots = []
        pair = dln.gradient_descent(
            task, weights, steps=place * 50 + 1, record="weights", at=[place * 50, place * 50 + 1], **how
        )
        for k in range(2):
            root, _, size = truth(x, y, [w[0, k] for w in pair.weights])
            roots.append(root)
        if roots[0] - roots[1] < 1e3 * EPS[np.dtype(float)] * size:
            continue
        threshold = task.floor + 0.5 * ((roots[0] + roots[1]) / 2) ** 2
        if task.floor and roots[0] ** 2 - roots[1] ** 2 < 1e3 * EPS[np.dtype(float)] * task.floor:
            continue
        if (whole.loss[0, : place + 1].min() <= threshold) or not (np.diff(whole.loss[0, : place + 1]) < 0).all():
            continue
        stopped = dln.gradient_descent(task, weights, steps=steps, stop=dln.Stop(loss=threshold), **how)
        assert stopped.status[0] == dln.Status.REACHED_LOSS
        assert stopped.stopped_step[0] == place * 50 + 1


@some
@given(st.sampled_from(KINDS), shapes, st.integers(0, 10**6))
def test_exact_solutions_have_the_loss_of_their_product(kind, shape, seed):
    """One layer for any inputs; two for whitened ones."""
    n_in, n_out, _ = shape
    for depth, made in ((1, "data"), (1, "covariances"), (1, "whiten"), (2, "whiten")):
        task, data, _ = tasks_of(kind, n_in, n_out, seed, made)
        rng = np.random.default_rng(seed)
        if depth == 1:
            weights = dln.Weights([rng.standard_normal((2, n_out, n_in))])
        else:
            weights = dln.init.balanced(rng.standard_normal((2, n_out, n_in)), depth=2)
        times = np.array([0.0, 0.01, 0.3, 2.0, 40.0, 1e6])
        run = dln.exact.solve(task, weights, tol=1e-12).evaluate(times, record=("loss", "product"))
        assert (run.loss >= np.asarray(task.floor)).all()
        for i, k in itertools.product(range(2), range(len(times))):
            if made == "covariances":  # those of other data, once rounded, where the inputs are ill-conditioned
                got, want = (np.sqrt(2 * (a - task.floor)) for a in (run.loss[i, k], task.loss(run.product[i, k])))
                size = np.sqrt(task.trace_yy) + np.linalg.norm(
                    np.abs(run.product[i, k]) @ np.sqrt(np.abs(task.sigma_xx))
                )
                assert got == pytest.approx(want, rel=1e-14, abs=64 * EPS[np.dtype(np.float64)] * size)
            else:
                check(run.loss[i, k], task.floor, *data, [run.product[i, k]], np.float64)


def test_the_script_of_fewer_samples_than_inputs():
    """The loss falls to the square of rounding, and a log axis shows all of it."""
    rng = np.random.default_rng(0)
    task = dln.Task.from_data(rng.standard_normal((10, 20)), rng.standard_normal((10, 2)))
    assert task.floor == 0
    for dtype, least in ((np.float64, 1e-29), (np.float32, 1e-11)):
        weights = dln.Weights([(0.2 * rng.standard_normal(s)).astype(dtype) for s in ((20, 20), (2, 20))])
        for reduce in ("none", "auto"):
            run = dln.gradient_descent(task, weights, lr=0.05, steps=20000, reduce=reduce)
            assert (run.loss >= 0).all()
            assert run.loss[0, -1] < least
