"""A record does not depend on what else is recorded, nor on when else: the same bits alone and beside all others."""

from __future__ import annotations

import numpy as np
import pytest
from ensembles import some_task, starts

import pydln as dln
from pydln._base import backend
from pydln.exact.solution import KNOWN
from pydln.quantities import QUANTITIES

BATCH = 3
LAYOUTS = ("interleaved", "rows")


def arrays(run: dln.Trajectory, name: str) -> tuple[np.ndarray, ...]:
    value = getattr(run, name)
    return value if name == "weights" else (value,)


def ran(run: dln.Trajectory) -> np.ndarray:
    """Which records, (batch, time), were made before each member stopped."""
    if run.steps is not None:
        return np.atleast_2d(run.steps) <= run.stopped_step[:, None]
    if run.steps is None:
        return np.atleast_2d(run.t) <= run.stopped_time[:, None]
    return np.ones((run.batch, run.t.shape[-1]), dtype=bool)


def assert_same_record(run: dln.Trajectory, full: dln.Trajectory, who: object) -> None:
    """What `run` has recorded is what `full` has at these times, bit for bit, and they end alike.

    Nothing is left out: what is not a number was to come after the member stopped.
    """
    mark = "t" if run.steps is None else "steps"
    own, all_ = (np.atleast_2d(getattr(one, mark))[0] for one in (run, full))
    at = np.searchsorted(all_, own)
    np.testing.assert_array_equal(all_[at], own)
    for name in run.names:
        for got, wanted in zip(arrays(run, name), arrays(full, name), strict=True):
            np.testing.assert_array_equal(got, wanted[:, at], err_msg=f"{name}, {who}", strict=True)
            here = ~np.isnan(got).any(axis=tuple(range(2, got.ndim)))
            went_well = run.status != dln.Status.DIVERGED
            if got.size:
                np.testing.assert_array_equal(here[went_well], ran(run)[went_well], err_msg=f"{name}, {who}")
    np.testing.assert_array_equal(run.status, full.status, err_msg=str(who))
    np.testing.assert_array_equal(run.stopped_step, full.stopped_step, err_msg=str(who))
    if full.final is not None and run.final is not None:
        for got, wanted in zip(run.final.layers, full.final.layers, strict=True):
            np.testing.assert_array_equal(got, wanted, err_msg=f"final, {who}", strict=True)


def subsets(names):
    """Nothing, each alone, each left out of what kernels record, and all in the opposite order."""
    yield ()
    yield from ((name,) for name in names)
    known = [name for name in names if name in KNOWN]
    yield from (tuple(n for n in known if n != name) for name in known)
    yield tuple(reversed(names))


def noisy_task(n_in: int, n_out: int) -> dln.Task:
    rng = np.random.default_rng((n_in, n_out))
    x, y = rng.normal(size=(3 * n_in, n_in)), rng.normal(size=(3 * n_in, n_out))
    return dln.Task.from_data(x, y, keep_samples=True, X_test=x[:n_in] + 0.1, Y_test=y[:n_in])


DESCENTS = {
    "plain": {},
    "nesterov, decay": {"momentum": np.array([0.0, 0.5, 0.3]), "nesterov": True, "weight_decay": 0.05},
    "stop at a loss": {"stop": dln.Stop(loss=np.array([0.0, 1.2, 0.9]))},
    "stop at rest": {"stop": dln.Stop(steady=np.array([0.05, 0.0, 0.2])), "momentum": 0.3},
    "minibatches": {"noise": dln.Minibatch(3, seed=1), "weight_decay": 0.02},
    "shuffled": {"noise": dln.Minibatch(3, seed=1, replace=False), "momentum": 0.4},
    "online": {"noise": dln.Online(2, seed=2, label_noise=0.1)},
    "noisy labels": {"noise": dln.LabelNoise(np.array([0.0, 0.3, 0.1]), seed=3)},
    "diverging": {"lr": np.array([0.03, 0.9, 3.0])},
}
WIDTHS = ((4, 6, 5, 3), (5, 7, 2), (4, 3), (13, 17, 2))
ALL = tuple(QUANTITIES)
STEPS = 70
SCHEDULES = ({"at": [0]}, {"at": [STEPS]}, {"at": [3, 31, 32, 33, STEPS]}, {"record_every": 9}, {"record_every": 100})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", DESCENTS)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_descent(widths, how, layout) -> None:
    options = {"lr": np.array([0.05, 0.03, 0.02]), "reduce": "none", "throw": False, **DESCENTS[how]}
    task, weights = noisy_task(widths[0], widths[-1]), starts(widths, BATCH, scale=0.8)
    with backend.forced(layout=layout):

        def descend(record, steps=STEPS, **when):
            return dln.gradient_descent(task, weights, steps=steps, record=record, **when, **options)

        full = descend(ALL, record_every=1)
        # A run that diverges is found out where something is recorded, so only where it goes well all end alike.
        ends = {"diverging": {"record_every": 1}}.get(how)
        for names in subsets(ALL):
            assert_same_record(descend(names, **(ends or {"record_every": 3 if names else 1})), full, names)
        if ends is None:
            for when in SCHEDULES:
                assert_same_record(descend(ALL, **when), full, when)
                assert_same_record(descend(("loss", "weights"), **when), full, when)
            short = descend(ALL, steps=41, record_every=1)
            for name in ALL:  # nor on how long it goes on
                for got, wanted in zip(arrays(short, name), arrays(full, name), strict=True):
                    np.testing.assert_array_equal(got, wanted[:, :42], err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_limit_is_met_by_the_very_number_that_was_recorded(layout) -> None:
    """At or below a loss, at or above strengths: the limit itself, and not the next number beyond it."""
    task = dln.Task.from_spectrum([2.0, 1.0, 0.5], 4, 3, seed=0, trace_yy=6.0)
    weights = starts((4, 6, 3), BATCH, scale=0.3)
    x = np.random.default_rng(0).normal(size=(9, 4))
    y = x @ task.sigma_yx.T

    def descend(**stop):
        limits = dln.Stop(**stop) if stop else None
        return dln.gradient_descent(
            task, weights, lr=0.05, steps=50, record_every=1, stop=limits, reduce="none"
        ), dln.train_nonlinear(x, y, weights, activation="linear", lr=0.02, steps=50, record_every=1, stop=limits)

    with backend.forced(layout=layout):
        for verb, free in enumerate(descend()):
            assert (np.diff(free.loss, axis=1) < 0).all()
            for at, beyond in ((20, False), (20, True)):
                loss = np.nextafter(free.loss[:, at], 0) if beyond else free.loss[:, at]
                run = descend(loss=loss)[verb]
                assert (run.stopped_step == at + beyond).all(), (verb, beyond)
                assert (run.status == dln.Status.REACHED_LOSS).all()
            u = np.full((BATCH, free.strengths.shape[2]), np.nan)
            u[:, 0] = np.abs(free.strengths[:, :, 0])[:, :21].max(axis=1)
            first = np.argmax(np.abs(free.strengths[:, :, 0]) >= u[:, :1], axis=1)
            run = descend(strengths=u)[verb]
            np.testing.assert_array_equal(run.stopped_step, first)
            assert (run.status == dln.Status.REACHED_STRENGTH).all()


def aligned_pair() -> tuple[dln.Task, dln.Weights]:
    task = dln.Task.from_spectrum([2.0, 1.0], 5, 4, seed=1)
    test = dln.Task.from_covariances(np.diag(np.linspace(0.5, 1.5, 5)), 0.9 * task.sigma_yx, 8.0)
    task = dln.Task.from_covariances(None, task.sigma_yx, 6.0, test=test)
    return task, dln.init.aligned(task, depth=3, width=7, strength=[0.05, 0.2, 0.6])


REDUCED = {
    "width": lambda: (some_task(3, 2, whiten=False), starts((3, 11, 2), BATCH)),
    "decoupled": aligned_pair,
    "inputs": lambda: (some_task(4, 3, whiten=False), starts((4, 5, 3), BATCH)),
}


@pytest.mark.parametrize("reduce", REDUCED)
def test_reduced_descent(reduce) -> None:
    task, weights = REDUCED[reduce]()
    names = tuple(n for n in ALL if n != "kernel_distance")
    options = {"lr": 0.03, "momentum": 0.4, "weight_decay": 0.05, "reduce": reduce}

    def descend(record, **when):
        return dln.gradient_descent(task, weights, steps=STEPS, record=record, **when, **options)

    full = descend(names, record_every=1)
    assert full.reduced == ((reduce,),) * BATCH
    for some in subsets(names):
        assert_same_record(descend(some, record_every=4), full, some)
    for when in SCHEDULES:
        assert_same_record(descend(names, **when), full, when)


# ---- flows: the last time bounds the last step, so it stays -------------------------------------------------------
T = np.concatenate([[0.0], np.geomspace(0.02, 4.0, 23)])
TIMES = (T[-1:], T[::2] if (len(T) - 1) % 2 == 0 else T[1::2], T[[0, 5, 6, 7, -1]], T[10:])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", ["tsit5", "dop853", "rk4"])
@pytest.mark.parametrize("reduce", ["none", *REDUCED])
def test_flow(reduce, method, layout) -> None:
    task, weights = (noisy_task(4, 3), starts((4, 6, 5, 3), BATCH)) if reduce == "none" else REDUCED[reduce]()
    names = ALL if reduce == "none" else tuple(n for n in ALL if n != "kernel_distance")
    limits = [None] if reduce == "decoupled" else [None, dln.Stop(loss=np.array([0.0, 1.0, 1.5]))]
    with backend.forced(layout=layout):
        for stop in limits:

            def flow(t, record, stop=stop):
                step = 0.04 if method == "rk4" else None
                return dln.gradient_flow(
                    task, weights, t, record=record, reduce=reduce, method=method, step=step, stop=stop
                )

            full = flow(T, names)
            for some in subsets(names):
                assert_same_record(flow(TIMES[1], some), full, some)
            for t in TIMES:
                assert_same_record(flow(t, names), full, t)


@pytest.mark.parametrize(
    ("verb", "depth", "method"),
    [
        ("end_to_end_flow", 1, "tsit5"),
        ("end_to_end_flow", 2, "dop853"),
        ("end_to_end_flow", 3.5, "rk4"),
        ("singular_flow", 3.5, "tsit5"),
    ],
)
def test_flows_of_the_map(verb, depth, method) -> None:
    task = some_task(4, 3, whiten=False)
    maps = 0.3 * np.random.default_rng(1).normal(size=(BATCH, 3, 4))
    names = ("loss", "test_loss", "strengths", "product")

    def flow(t, record):
        step = 0.2 if method == "rk4" else None
        made = getattr(dln, verb)(task, maps, t, depth=depth, record=record, method=method, step=step)
        return made if isinstance(made, dln.Trajectory) else made.trajectory

    full = flow(T, names)
    for some in subsets(names):
        assert_same_record(flow(TIMES[1], some), full, some)
    for t in TIMES:
        assert_same_record(flow(t, names), full, t)


def test_singular_values_and_vectors() -> None:
    task = some_task(4, 3, whiten=False)
    maps = 0.3 * np.random.default_rng(1).normal(size=(BATCH, 3, 4))
    full = dln.singular_flow(task, maps, T, depth=3)
    for record, t in zip(((), ("product",), ("loss", "strengths"), ()), TIMES, strict=True):
        some = dln.singular_flow(task, maps, t, depth=3, record=record)
        at = np.searchsorted(T, t)
        for name in ("sigma", "U", "V"):
            np.testing.assert_array_equal(getattr(some, name), getattr(full, name)[:, at], err_msg=name)


STOPS = (None, dln.Stop(loss=[0.5, 99.0, 1e-9]), dln.Stop(strengths=[[0.9, np.nan]] * 3))


@pytest.mark.parametrize(
    ("stop", "method"), [*((s, m) for s in STOPS for m in ("tsit5", "dop853")), (None, "rk4")], ids=str
)
def test_modes(stop, method) -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(0.05, 0.9, size=(BATCH, 2, 3))
    s, d = rng.uniform(1, 2, size=(BATCH, 2)), np.array([1.0, 0.6])

    def flow(t):
        return dln.mode_flow(s, a, t, variances=d, method=method, step=0.02 if method == "rk4" else None, stop=stop)

    full = flow(T)
    for t in TIMES:
        some = flow(t)
        if stop is None:
            assert_same_record(some, full, t)
            continue
        # The moment of a stop is looked for between the times on both sides of it.
        np.testing.assert_array_equal(some.status, full.status)
        at = np.searchsorted(T, t)
        np.testing.assert_array_equal(np.isnan(some.loss), ~ran(some))
        np.testing.assert_array_equal(np.isnan(full.loss), ~ran(full))
        there = ~np.isnan(some.loss)
        np.testing.assert_array_equal(some.loss[there], full.loss[:, at][there])
        np.testing.assert_array_equal(some.strengths[there], full.strengths[:, at][there])


# ---- nonlinear networks, exact solutions ---------------------------------------------------------------------------
NONLINEAR = ("loss", "test_loss", "strengths", "layer_norms", "drift", "weights")


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("more", [{}, {"batch_size": 4}, {"stop": dln.Stop(loss=np.array([0.0, 1.1, 0.8]))}], ids=str)
def test_nonlinear(activation, more) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)), rng.normal(size=(12, 3))
    weights = starts((4, 6, 5, 3), BATCH)

    def train(record, steps=STEPS, **when):
        return dln.train_nonlinear(
            x,
            y,
            weights,
            activation=activation,
            lr=0.05,
            steps=steps,
            record=record,
            x_test=x + 1,
            y_test=y,
            **when,
            **more,
        )

    full = train(NONLINEAR, record_every=1)
    for some in subsets(NONLINEAR):
        assert_same_record(train(some, record_every=3), full, some)
    for when in SCHEDULES:
        assert_same_record(train(NONLINEAR, **when), full, when)


def solved():
    """A start for every exact solution."""
    task = dln.Task.from_spectrum([2.0, 1.0], 5, 4, seed=1)
    task = dln.Task.from_covariances(None, task.sigma_yx, 6.0, test=some_task(5, 4, whiten=False))
    rng = np.random.default_rng(0)
    maps = 0.2 * rng.normal(size=(BATCH, 4, 5))
    unequal = dln.init.aligned(task, depth=2, layer_strengths=rng.uniform(0.1, 0.9, (BATCH, 2, 4)))
    return {
        "one layer": (some_task(4, 3, whiten=False), starts((4, 3), BATCH)),
        "aligned, two layers": (task, unequal),
        "balanced, two layers": (task, dln.init.lambda_balanced(maps, imbalance=[0.0, -0.3, 0.2], width=4)),
        "aligned and balanced": (task, dln.init.aligned(task, depth=3, strength=[0.05, 0.2, 0.6])),
    }


@pytest.mark.parametrize("name", solved())
def test_exact_solutions(name) -> None:
    """At any times, in any order, with or without the others."""
    solution = dln.exact.solve(*solved()[name])
    assert solution.name == name
    # The layers of the balanced solution are integrated through the times asked for.
    names = tuple(n for n in ALL if name != "balanced, two layers" or n not in ("weights", "kernel_distance"))
    full = solution.evaluate(T, record=names)
    for some in subsets(names):
        assert_same_record(solution.evaluate(T, record=some), full, some)
    for own in (*TIMES, T[::-1], T[[3]], T[[7, 7, 2]]):
        run = solution.evaluate(own, record=names)
        at = np.searchsorted(T, own)
        for one in names:
            for got, wanted in zip(arrays(run, one), arrays(full, one), strict=True):
                np.testing.assert_array_equal(got, wanted[:, at], err_msg=f"{one} at {own}")


def test_layers_of_the_balanced_solution_at_any_times() -> None:
    """Before: ValueError "Values in `t_eval` are not properly sorted" of a library, at times that fall or repeat."""
    solution = dln.exact.solve(*solved()["balanced, two layers"])
    full = solution.evaluate(T, record=ALL)
    for own in (T[-1:], T[::2], T[::-1], T[[3]], T[[7, 7, 2]], T[:0]):
        run = solution.evaluate(own, record=ALL)
        at = np.searchsorted(T, own)
        for one in ALL:
            for got, wanted in zip(arrays(run, one), arrays(full, one), strict=True):
                np.testing.assert_allclose(got, wanted[:, at], rtol=1e-11, atol=1e-11, err_msg=f"{one} at {own}")
