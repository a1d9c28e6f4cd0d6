"""The loss above its floor is a sum of squares: never below the floor, right to its last digits, in every kernel, reduction,
precision and solution. The truth is evaluated at the recorded weights with 40 digits.

Samples are small integers times powers of two, in sums, so that the covariances that are made of them are exact and a rank is
what it is.
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
from pydln import _backend

EPS = {np.dtype(t): float(np.finfo(t).eps) for t in DTYPES}
KINDS = ("few", "as many", "many", "rank", "scaled", "exact")
REDUCTIONS = ("none", "auto", "inputs", "width", ("inputs", "width"))


def samples(kind: str, n_in: int, n_out: int, seed: int):
    """X and Y, integers times powers of two: fewer samples than inputs, as many, more, dependent inputs, inputs of scales
    from 2^-4 to 2^4, and targets that a map explains."""
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
def space(key):
    """An orthonormal basis of what maps of the inputs can reach among the samples, with 40 digits."""
    x = np.frombuffer(key[0]).reshape(key[1])
    found = []
    with mpmath.workdps(40):
        for column in x.T:
            v = mpmath.matrix(column.tolist())
            for _ in range(2):
                for q in found:
                    v = v - q * (q.T * v)[0]
            if mpmath.norm(v) > mpmath.mpf(10) ** -25 * max(1, np.linalg.norm(column)):
                found.append(v / mpmath.norm(v))
    return found


def true_squares(x, y, omega):
    """L - L(Omega*) = 1/2 |P (Y - X Omegaᵀ)|² and L(Omega*), P the projection on the space of X."""
    with mpmath.workdps(40):
        rest = exact_matrix(y) - exact_matrix(x) * exact_matrix(omega).T
        basis = space((np.ascontiguousarray(x, dtype=float).tobytes(), x.shape))
        seen = mpmath.mpf(0)
        for q in basis:
            seen += sum((v**2 for v in q.T * rest), mpmath.mpf(0))
        return seen / 2, (sum((v**2 for v in rest), mpmath.mpf(0)) - seen) / 2


def product_of(layers):
    """The end-to-end map of weights as they are, with 40 digits, rounded to float64 only at the end: as an mpmath matrix."""
    omega = exact_matrix(layers[0])
    for w in layers[1:]:
        omega = exact_matrix(w) * omega
    return omega


def check(loss, floor, x, y, layers, dtype, *, factor=64.0, exact_floor=None):
    """`loss` is floor + excess, where sqrt(2 excess) is right to `factor` roundings of what it is the difference of."""
    with mpmath.workdps(40):
        omega = product_of(layers)
        rest = exact_matrix(y) - exact_matrix(x) * omega.T
        basis = space((np.ascontiguousarray(x, dtype=float).tobytes(), x.shape))
        seen = sum((v**2 for q in basis for v in q.T * rest), mpmath.mpf(0))
        size = np.linalg.norm(y)
        sizes = np.eye(x.shape[1])
        for w in layers:
            sizes = np.abs(np.asarray(w, dtype=float)) @ sizes
        size += np.linalg.norm(np.abs(x) @ sizes.T)
        root = float(mpmath.sqrt(seen))
    assert loss >= floor
    eps = EPS[np.dtype(dtype)]
    rounding = factor * eps * size
    high = floor + 0.5 * (root + rounding) ** 2
    low = floor + 0.5 * max(root - rounding, 0.0) ** 2
    slack = 2 * eps * high if floor else 0.0
    assert low * (1 - 2 * eps) - slack <= loss <= high * (1 + 2 * eps) + slack, (loss - floor, 0.5 * root**2, rounding)


def start(widths, batch, seed, dtype):
    rng = np.random.default_rng((seed, *widths))
    return dln.Weights(
        [(rng.standard_normal((batch, o, i)) / np.sqrt(max(i, o))).astype(dtype) for i, o in itertools.pairwise(widths)]
    )


def rate(task, depth):
    top = float(np.max(np.linalg.eigvalsh(task.sigma_xx)))
    s = float(np.max(task.modes.s)) / top if top else 0.0
    return 0.1 / (top * depth * max(1.0, s, 3.0)) if top else 0.1


shapes = st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(KINDS), shapes, st.integers(0, 10**6))
def test_task_loss_is_right_to_its_last_digits(kind, shape, seed):
    """At random maps, near the optimum at every distance, and at the optimum; from samples and from covariances."""
    n_in, n_out, _ = shape
    x, y = samples(kind, n_in, n_out, seed)
    task = dln.Task.from_data(x, y, normalize="sum")
    by_moments = dln.Task.from_covariances(task.sigma_xx, task.sigma_yx, task.trace_yy, normalize="sum")
    rng = np.random.default_rng(seed)
    _, floor = true_squares(x, y, np.zeros((n_out, n_in)))
    assert abs(task.floor - floor) <= 1e-14 * max(floor, 1e-15 * task.trace_yy)
    assert abs(by_moments.floor - floor) <= 1e-12 * task.trace_yy
    for distance in (1.0, 1e-3, 1e-8, 1e-12, 0.0):
        omega = task.optimum + distance * rng.standard_normal((n_out, n_in))
        for one in (task, by_moments):
            check(float(one.loss(omega)), one.floor, x, y, [omega], np.float64)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(KINDS),
    shapes,
    st.integers(1, 4),
    st.sampled_from(REDUCTIONS),
    st.sampled_from(DTYPES),
    st.sampled_from(("interleaved", "rows")),
    st.sampled_from(("data", "covariances", "whiten")),
    st.integers(0, 10**6),
)
def test_descent_records_the_loss_of_its_weights(kind, shape, depth, reduce, dtype, layout, made, seed):
    """Every step of a long run: above the floor, its digits those of the weights recorded beside it, held out too."""
    n_in, n_out, hidden = shape
    x, y = samples(kind, n_in, n_out, seed)
    x_test, y_test = samples("few", n_in, n_out, seed + 1)
    task = dln.Task.from_data(x, y, normalize="sum", X_test=x_test, Y_test=y_test, whiten=made == "whiten")
    test = task.test
    if made == "covariances":
        test = dln.Task.from_covariances(test.sigma_xx, test.sigma_yx, test.trace_yy, normalize="sum")
        task = dln.Task.from_covariances(task.sigma_xx, task.sigma_yx, task.trace_yy, normalize="sum", test=test)
    widths = (n_in, *(hidden + 1,) * (depth - 1), n_out)
    weights, steps = start(widths, 3, seed, dtype), 3000
    if reduce in ("inputs", ("inputs", "width")) and task.whitened:
        reduce = "auto"
    try:
        with _backend.forced(layout=layout):
            run = dln.gradient_descent(
                task, weights, lr=rate(task, depth), steps=steps, record=("loss", "test_loss", "weights"),
                at=[0, 1, 30, 400, steps], reduce=reduce, throw=False,
            )
    except ValueError as error:  # a reduction asked for that does not hold
        assert str(error).startswith("reduce: ")
        return
    assert (run.status == dln.Status.COMPLETED).all()
    assert (run.loss >= np.asarray(task.floor)).all()
    assert (run.test_loss >= np.asarray(test.floor)).all()
    if made == "whiten":
        for i, k in itertools.product(range(3), range(5)):
            omega = run[i].weights
            omega = product_of([w[0, k] for w in omega])
            gap = exact_matrix(task.sigma_yx) - omega
            excess = float(sum((v**2 for v in gap), mpmath.mpf(0)) / 2)
            close(run.loss[i, k], task.floor, excess, np.linalg.norm(task.sigma_yx) + 4.0, dtype)
        return
    for i, k in itertools.product(range(3), range(5)):
        layers = [w[i, k] for w in run.weights]
        check(run.loss[i, k], task.floor, x, y, layers, dtype)
        check(run.test_loss[i, k], test.floor, x_test, y_test, layers, dtype)


def close(loss, floor, excess, size, dtype):
    rounding = 64 * EPS[np.dtype(dtype)] * size
    root = np.sqrt(2 * excess)
    slack = 4 * EPS[np.dtype(dtype)] * (floor + excess)
    assert floor + 0.5 * max(root - rounding, 0) ** 2 - slack <= loss <= floor + 0.5 * (root + rounding) ** 2 + slack
