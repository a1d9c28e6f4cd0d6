"""Ensembles for the tests of the kernels, and their comparison with the reference, member by member."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import reference
from rounding import error_bounds

import pydln as dln
from pydln._base import backend

RECORDS = ("loss", "test_loss", "strengths", "product", "layer_norms", "drift", "weights")
DTYPES = (np.float64, np.float32)
KERNELS = tuple((isa, layout) for isa in backend.available_isas() for layout in ("interleaved", "rows"))
descend = partial(dln.gradient_descent, reduce="none")  # the kernels on the whole networks
STATUS = {name.lower(): member for name, member in dln.Status.__members__.items()}


def starts(widths, batch=1, *, seed=0, dtype=np.float64, scale=1.0) -> dln.Weights:
    """Semi-orthogonal layers, each times a number near `scale`: any depth keeps a product of moderate size.

    The numbers are those of float32 for either dtype, so that one reference run serves both.
    """
    rng = np.random.default_rng((seed, *widths))
    layers = []
    for n_in, n_out in itertools.pairwise(widths):
        q, _ = np.linalg.qr(rng.normal(size=(batch, max(n_in, n_out), min(n_in, n_out))))
        q = q if n_out >= n_in else np.swapaxes(q, -1, -2)
        layers.append((scale * rng.uniform(0.9, 1.1, size=(batch, 1, 1)) * q).astype(np.float32).astype(dtype))
    return dln.Weights(layers)


def some_task(n_in, n_out, *, whiten, seed=0, samples=None) -> dln.Task:
    """Noisy linear data with held-out data beside it."""
    rng = np.random.default_rng((seed, n_in, n_out, whiten))
    teacher = rng.normal(size=(n_out, n_in)) / np.sqrt(max(n_in, n_out))

    def draw(count):
        x = rng.normal(size=(count, n_in)) * np.linspace(0.7, 1.3, n_in)
        return x, x @ teacher.T + 0.3 * rng.normal(size=(count, n_out))

    x, y = draw(samples or 3 * n_in + 20)
    x_test, y_test = draw(2 * n_in + 10)
    return dln.Task.from_data(x, y, whiten=whiten, X_test=x_test, Y_test=y_test)


def member_of(value, member, ndim=0):
    """What belongs to `member` of an argument that all share or of which each has its own."""
    a = np.asarray(value)
    return a if a.ndim == ndim else a[member if len(a) > 1 else 0]


def references(task, weights, *, batch, lr, steps, momentum=0.0, weight_decay=0.0, stop=None, free=None):
    """The reference run of every member, recorded at every step, and the bounds on what float arithmetic may add.

    `free` is the same without `stop`: the bounds are taken from there.
    """
    stop = stop or dln.Stop()
    runs = []
    for i in range(batch):
        own = task if task.batch is None else task[i if task.batch > 1 else 0]
        rates = {
            "lr": float(member_of(lr, i)),
            "momentum": float(member_of(momentum, i)),
            "weight_decay": float(member_of(weight_decay, i)),
        }
        run = reference.descent(
            [w[i if weights.batch > 1 else 0] for w in weights.layers],
            sigma_xx=own.sigma_xx,
            sigma_yx=own.sigma_yx,
            trace_yy=own.trace_yy,
            U=own.modes.U,
            V=own.modes.V,
            steps=steps,
            at=range(steps + 1),
            test=None if own.test is None else (own.test.sigma_xx, own.test.sigma_yx, own.test.trace_yy),
            stop_loss=None if stop.loss is None else member_of(stop.loss, i),
            stop_strengths=None if stop.strengths is None else strengths_of(stop.strengths, i),
            stop_steady=None if stop.steady is None else member_of(stop.steady, i),
            **rates,
        )
        if free is not None:
            bounds = free[i][1]
        else:
            bounds = {t: error_bounds(run.records["weights"], task=own, dtype=t, **rates) for t in DTYPES}
        runs.append((run, bounds))
    return runs


def strengths_of(value, member):
    a = np.asarray(value)
    return a[member if len(a) > 1 else 0] if a.ndim == 2 else a


def assert_conforms(run: dln.Trajectory, expected) -> float:
    """Every record of every member within its bound, statuses and steps equal; returns the largest share of a bound."""
    worst = 0.0
    at = run.steps
    for i, (ref, bounds_of) in enumerate(expected):
        bounds = bounds_of[run.final.dtype.type]
        assert run.status[i] == STATUS[ref.status], f"member {i}: {ref.status}"
        assert run.stopped_step[i] == ref.stopped_at, f"member {i}"
        for name in run.names:
            got = [w[i] for w in run.weights] if name == "weights" else [getattr(run, name)[i]]
            wanted = ref.records[name] if name == "weights" else [ref.records[name]]
            for g, w in zip(got, wanted, strict=True):
                share = _share(g, w[at], bounds[name][at], f"member {i}: {name}")
                worst = max(worst, share)
        for g, w in zip(run.final[i].layers, ref.layers, strict=True):
            worst = max(worst, _share(g, w[None], bounds["weights"][[ref.stopped_at]], f"member {i}: final"))
    return worst


def _share(got, wanted, bound, what) -> float:
    """Largest |got - wanted| / bound, the first axis being time; NaN must be where it is expected and nowhere else."""
    assert got.shape == wanted.shape, what
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted), err_msg=what)
    if not got.size:
        return 0.0
    assert np.isfinite(bound[~np.isnan(wanted).reshape(len(wanted), -1).any(axis=1)]).all(), (
        f"{what}: the bound says nothing"
    )
    error = np.abs(np.asarray(got, dtype=np.float64) - wanted).reshape(len(got), -1).max(axis=1)
    late = np.isnan(error)
    # A start is recorded as it was given: an error of 0 within a bound of 0.
    share = np.where(late | (error == 0), 0.0, error / np.where(late | (bound == 0), 1e-300, bound))
    assert share.max() <= 1, f"{what}: {error[share.argmax()]:.3g} off, at most {bound[share.argmax()]:.3g} by rounding"
    return float(share.max())


def same_bits(a: dln.Trajectory, b: dln.Trajectory) -> None:
    """The same numbers in every record, status, step and final weight; NaN equals NaN."""
    assert a.names == b.names
    pairs = [("status", a.status, b.status), ("stopped_time", a.stopped_time, b.stopped_time)]
    for name in a.names:
        x, y = getattr(a, name), getattr(b, name)
        layers = zip(x, y, strict=True) if name == "weights" else [(x, y)]
        pairs += [(name, p, q) for p, q in layers]
    assert a.final is not None
    assert b.final is not None
    pairs += [("final", p, q) for p, q in zip(a.final.layers, b.final.layers, strict=True)]
    for name, p, q in pairs:
        np.testing.assert_array_equal(p, q, err_msg=name, strict=True)
