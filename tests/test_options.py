"""Where options meet: every record alone, reduced, whole and in the reference, whatever rates, layouts and stops."""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import reference
from ensembles import STATUS

import pydln as dln
from pydln._base import backend
from pydln.simulate import methods

LAYOUTS = ("interleaved", "rows")
STEPS, EVERY = 45, 7  # the last record is not a multiple of the others
BATCH = 3
TIMES = np.array([0.0, 0.3, 1.1, 2.5])


class Case(NamedTuple):
    """A kind of start, and the reductions that hold for it by name."""

    task: dln.Task
    weights: dln.Weights
    reduce: tuple[str | tuple[str, ...], ...]


def turned(rng, n, k) -> np.ndarray:
    """Orthonormal columns."""
    return np.linalg.qr(rng.normal(size=(n, k)))[0]


def gaussian(rng, widths, rank=None) -> list[np.ndarray]:
    """Layers of random entries, the hidden units within `rank` directions."""
    frames = [np.eye(n) if rank is None or k in (0, len(widths) - 1) else None for k, n in enumerate(widths)]
    frames = [turned(rng, n, rank) if f is None else f for f, n in zip(frames, widths, strict=True)]
    return [
        0.7 * after @ rng.normal(size=(after.shape[1], before.shape[1])) @ before.T / np.sqrt(before.shape[1])
        for before, after in itertools.pairwise(frames)
    ]


def sampled(rng, n_in, n_out, *, directions, targets, noise) -> dln.Task:
    """Inputs of so many directions, a teacher of rank `targets`; held-out inputs have all directions and more."""
    span = turned(rng, n_in, directions) * np.linspace(1.3, 0.6, directions)
    teacher = turned(rng, n_out, targets) @ turned(rng, n_in, targets).T * 1.4

    def draw(count, beside):
        x = rng.normal(size=(count, directions)) @ span.T + beside * rng.normal(size=(count, n_in))
        return x, x @ teacher.T + noise * rng.normal(size=(count, n_out))

    x, y = draw(40, 0.0)
    x_test, y_test = draw(25, 0.3)
    return dln.Task.from_data(x, y, X_test=x_test, Y_test=y_test)


def in_modes(rng, n_in, n_out, s, d, beside) -> dln.Task:
    """Σ_xx diagonal in V, of variance `beside` where Σ_yx is zero; held-out data with modes of their own."""
    U, V = turned(rng, n_out, n_out), turned(rng, n_in, n_in)
    xx = (V * np.append(d, np.full(n_in - len(d), beside))) @ V.T
    yx = (U[:, : len(s)] * s) @ V[:, : len(s)].T
    more = 0.2 * rng.normal(size=(n_in, n_in))
    xx_test = xx + more @ more.T
    test = dln.Task.from_covariances(xx_test, 0.8 * yx + 0.05 * rng.normal(size=yx.shape) @ xx_test, 12.0)
    return dln.Task.from_covariances(xx, yx, 9.0, test=test)


def aligned(rng, task, hidden, balanced=False) -> list[np.ndarray]:
    """Every mode and layer a strength of its own; beside the modes something that leads from no input to an output."""
    U, s, V = task.modes
    strengths = [rng.uniform(0.3, 0.9, len(s)) for _ in range(len(hidden) + 1)]
    r = len(s)
    turns = [turned(rng, n, n) for n in hidden]
    frames = [V, *(Q[:, :r] for Q in turns), U]
    layers = [
        after @ np.diag(strengths[0] if balanced else a) @ before.T
        for a, (before, after) in zip(strengths, itertools.pairwise(frames), strict=True)
    ]
    outside = [np.linalg.svd(V.T)[2][r:].T, *(Q[:, r:] for Q in turns)]
    for layer, before, after in zip(layers, outside[:-1], outside[1:], strict=False):
        layer += 0.4 * after @ rng.normal(size=(after.shape[1], before.shape[1])) @ before.T
    return layers


def member(kind: str, seed: int) -> tuple[dln.Task, list[np.ndarray]]:
    rng = np.random.default_rng((seed, len(kind)))
    if kind == "few directions":
        task = sampled(rng, 7, 3, directions=4, targets=1, noise=0.0)
        U, s, V = task.modes
        V = np.linalg.qr(np.concatenate([V[:, :1], rng.normal(size=(7, 2))], axis=1))[0]
        V *= [np.sign(V[0, 0] * task.modes.V[0, 0]), 1, 1]  # where s is 0 any directions do, such as unseen ones
        return dataclasses.replace(task, modes=dln.Modes(U, s, V)), gaussian(rng, (7, 5, 4, 3))
    if kind == "more outputs":  # a chain that the kernels turn round
        return sampled(rng, 3, 5, directions=2, targets=1, noise=0.1), gaussian(rng, (3, 6, 4, 5))
    if kind == "low rank":
        return sampled(rng, 4, 3, directions=4, targets=2, noise=0.0), gaussian(rng, (4, 9, 8, 3), rank=2)
    if kind == "low rank, few directions":
        return sampled(rng, 8, 2, directions=3, targets=2, noise=0.3), gaussian(rng, (8, 6, 7, 2), rank=3)
    if kind == "orthogonal":  # outside of the subspaces the hidden matrices are turns, which only decay
        first, _, last = gaussian(rng, (3, 9, 9, 2))
        hidden = rng.uniform(0.7, 1.1) * turned(rng, 9, 9)
        return sampled(rng, 3, 2, directions=3, targets=1, noise=0.2), [first, hidden, last]
    if kind == "two layers":
        task = dln.Task.from_spectrum([1.5, 0.0], 3, 2, seed=seed, trace_yy=4.0)
        test = dln.Task.from_covariances(np.diag(rng.uniform(0.5, 1.5, 3)), 0.4 * rng.normal(size=(2, 3)), 7.0)
        whitened = dln.Task.from_covariances(None, task.sigma_yx, 4.0, test=test)
        return whitened, gaussian(rng, (3, 12, 2))
    # The last mode is none: of the directions without correlation any will do, and they may have no variance.
    task = in_modes(rng, 6, 3, np.array([1.6, 0.9]), rng.uniform(0.5, 1.3, 2), 0.0 if seed == 1 else 0.7)
    return task, aligned(rng, task, (7, 6))


KINDS = {
    "few directions": ("inputs",),
    "more outputs": ("inputs",),
    "low rank": ("width",),
    "low rank, few directions": ("inputs", ("inputs", "width")),
    "orthogonal": ("width",),
    "two layers": ("width",),
    "aligned": ("decoupled", "inputs"),
}


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` decides as for a long run, where every reduction that holds pays."""
    find = dln.reduce.find
    monkeypatch.setattr(dln.reduce, "find", lambda *given, **how: find(*given, **{**how, "steps": 10**8}))


@cache
def case(kind: str, own_tasks: bool) -> Case:
    """Three members alike in nothing, or alike in their task alone."""
    tasks, layers = zip(*(member(kind, seed) for seed in range(BATCH)), strict=True)
    if own_tasks:
        return Case(dln.Task.stack(tasks), dln.Weights([np.stack(w) for w in zip(*layers, strict=True)]), KINDS[kind])
    if kind == "aligned":
        layers = [aligned(np.random.default_rng(seed), tasks[0], (7, 6)) for seed in range(BATCH)]
    return Case(tasks[0], dln.Weights([np.stack(w) for w in zip(*layers, strict=True)]), KINDS[kind])


def own(task: dln.Task, i: int) -> dln.Task:
    return task if task.batch is None else task[i]


def arrays_of(run: dln.Trajectory, name: str) -> tuple[np.ndarray, ...]:
    return run.weights if name == "weights" else (getattr(run, name),)


def names_of(reduce) -> tuple[str, ...]:
    return (reduce,) if isinstance(reduce, str) else reduce


RATES = {
    "plain": {},
    "momentum": {"momentum": np.array([0.3, 0.6, 0.0])},
    "nesterov": {"momentum": np.array([0.6, 0.0, 0.4]), "nesterov": True},
    "decay": {"weight_decay": np.array([0.3, 0.0, 0.1])},
    "momentum, decay": {"momentum": 0.5, "weight_decay": np.array([0.1, 0.4, 0.0])},
    "nesterov, decay": {"momentum": np.array([0.0, 0.6, 0.3]), "weight_decay": 0.2, "nesterov": True},
}
LR = np.array([0.05, 0.03, 0.04])
RECORDS = ("loss", "test_loss", "strengths", "product", "layer_norms", "drift", "weights", "kernel_distance")


def of_member(rates: dict, i: int) -> dict:
    return {name: value if np.ndim(value) == 0 else value[i] for name, value in rates.items()}


@cache
def truth(kind: str, own_tasks: bool, rates: str, stop: str):
    """The reference of every member, recorded at every step."""
    task, weights, _ = case(kind, own_tasks)
    runs = []
    for i in range(BATCH):
        mine, layers = own(task, i), [w[i] for w in weights.layers]
        run = reference.descent(
            layers,
            sigma_xx=mine.sigma_xx,
            sigma_yx=mine.sigma_yx,
            trace_yy=mine.trace_yy,
            U=mine.modes.U,
            V=mine.modes.V,
            lr=LR[i],
            steps=STEPS,
            at=range(STEPS + 1),
            test=(mine.test.sigma_xx, mine.test.sigma_yx, mine.test.trace_yy),
            **of_member(RATES[rates], i),
            **({} if stop == "none" else {f"stop_{stop}": limits(kind, own_tasks, rates, stop)[i]}),
        )
        distance = np.full(STEPS + 1, np.nan)
        for step in (*range(0, STEPS, EVERY), STEPS):
            now = [w[step] for w in run.records["weights"]]
            distance[step] = reference.kernel_distance(now, layers, mine.sigma_xx)
        run.records["kernel_distance"] = distance
        runs.append(run)
    return runs


@cache
def limits(kind: str, own_tasks: bool, rates: str, stop: str) -> np.ndarray:
    """What the second half of the undisturbed runs of the first two members gets to, the third never or at once."""
    runs = truth(kind, own_tasks, rates, "none")
    if stop == "loss":
        losses = [run.records["loss"] for run in runs]
        return np.array([0.5 * (a[20 + 9 * i] + a[21 + 9 * i]) for i, a in enumerate(losses[:2])] + [0.0])
    u = np.abs([run.records["strengths"] for run in runs])
    passed = [0.5 * (a[20 + 9 * i] + a[21 + 9 * i]) for i, a in enumerate(u[:2])]
    # The last mode is one without a target: it may see inputs that never move.
    at_once = [*np.full(u.shape[2] - 1, np.nan), 0.9 * u[2, 0, -1]]
    return np.array([[p[0], *np.full(u.shape[2] - 1, np.nan)] for p in passed] + [at_once])


def assert_close(got, wanted, name: str, tol: float, who: object) -> None:
    """Each record of a member within `tol` of its largest entry over the run; NaN where it is expected alone."""
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted), err_msg=f"{name}, {who}")
    size = np.abs(wanted[~np.isnan(wanted)]).max(initial=0.0)
    # Differences of numbers of order 1: of squares of layers, and from 1.
    size = max(size, 1.0) if name in ("drift", "kernel_distance") else size
    error = np.abs(got - wanted)[~np.isnan(wanted)].max(initial=0.0)
    assert error <= tol * size, f"{name}, {who}: {error:.3g} off, of {size:.3g}"


def assert_is_truth(run: dln.Trajectory, runs, tol: float, who: object) -> None:
    for i, one in enumerate(runs):
        assert run.status[i] == STATUS[one.status], (who, i)
        assert run.stopped_step[i] == one.stopped_at, (who, i)
        for name in run.names:
            pairs = (
                zip([w[i] for w in run.weights], one.records["weights"], strict=True)
                if name == "weights"
                else [(getattr(run, name)[i], one.records[name])]
            )
            for got, wanted in pairs:
                assert_close(got, wanted[run.steps], name, tol, (who, i))
        for k, (got, wanted) in enumerate(zip(run.final.layers, one.layers, strict=True)):
            assert_close(got[i], wanted, f"final W_{k + 1}", tol, (who, i))


SETTINGS = [(own_tasks, rates, "none") for own_tasks in (True, False) for rates in RATES]
SETTINGS += [(False, rates, stop) for rates in ("momentum", "nesterov, decay") for stop in ("loss", "strengths")]


@pytest.mark.parametrize(("own_tasks", "rates", "stop"), SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_record_alone_in_descent(kind, own_tasks, rates, stop, long) -> None:
    """Reduced by each name, by auto, and whole: the reference; recorded alone or beside the others: the same bits."""
    task, weights, ways = case(kind, own_tasks)
    runs = truth(kind, own_tasks, rates, stop)
    limit = None if stop == "none" else dln.Stop(**{stop: limits(kind, own_tasks, rates, stop)})
    options = {"lr": LR, "steps": STEPS, "record_every": EVERY, "stop": limit, **RATES[rates]}
    ended = {
        "none": ["completed"] * 3,
        "loss": ["reached_loss", "reached_loss", "completed"],
        "strengths": ["reached_strength"] * 3,
    }
    assert [one.status for one in runs] == ended[stop]
    for layout in LAYOUTS:
        with backend.forced(layout=layout):
            whole = dln.gradient_descent(task, weights, record=RECORDS, reduce="none", **options)
            assert_is_truth(whole, runs, 1e-12, (layout, "whole"))
            for name in RECORDS:
                run = dln.gradient_descent(task, weights, record=name, reduce="none", **options)
                for got, wanted in zip(arrays_of(run, name), arrays_of(whole, name), strict=True):
                    np.testing.assert_array_equal(got, wanted, err_msg=name)
    for turn, reduce in enumerate(("auto", *ways)):
        for place, name in enumerate(RECORDS):
            if name == "kernel_distance" and reduce != "auto":
                continue  # refused
            if stop != "none" and reduce == "decoupled":
                with pytest.raises(ValueError, match="a run whose modes do not look at each other for 'decoupled'"):
                    dln.gradient_descent(task, weights, record=name, reduce=reduce, **options)
                continue
            layout = LAYOUTS[(turn + place + own_tasks + list(RATES).index(rates)) % 2]
            with backend.forced(layout=layout):
                run = dln.gradient_descent(task, weights, record=name, reduce=reduce, **options)
            assert_is_truth(run, runs, 2e-12, (layout, reduce))
            if reduce == "auto":
                assert all(run.reduced) == (name != "kernel_distance")
            else:
                assert run.reduced == (names_of(reduce),) * BATCH


@pytest.mark.parametrize("rates", ["nesterov, decay", "momentum, decay"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_record_alone_in_float32(kind, rates) -> None:
    task, weights, ways = case(kind, True)
    runs = truth(kind, True, rates, "none")
    options = {"lr": LR, "steps": STEPS, "record_every": EVERY, **RATES[rates]}
    for place, (reduce, name) in enumerate(itertools.product(("none", *ways), RECORDS[:-1])):
        layout = LAYOUTS[(place + (rates == "momentum, decay")) % 2]
        with backend.forced(layout=layout):
            run = dln.gradient_descent(task, weights.astype("f4"), record=name, reduce=reduce, **options)
        assert run.final.dtype == np.float32
        assert_is_truth(run, runs, 4e-6, (layout, reduce))


# ---- gradient flow ----------------------------------------------------------------------------------------------


def flowed(task: dln.Task, weights: dln.Weights) -> list:
    """The layers of every member at `TIMES`, by the reference's integrator at a tolerance far below the one tested."""
    found = []
    for i in range(weights.batch):
        mine, layers = own(task, i), [w[i] for w in weights.layers]

        def slope(now, mine=mine):
            return [-g for g in reference.gradient(now, mine.sigma_xx, mine.sigma_yx)]

        method = methods.method("dop853")
        fine = np.sort(np.unique(np.concatenate([TIMES, np.linspace(0, TIMES[-1], 6)])))
        run = reference.runge_kutta(slope, layers, method, fine, rtol=1e-12, max_step=0.25)
        found.append([run.at[k] for k in np.searchsorted(fine, TIMES)])
    return found


def records_of(name: str, mine: dln.Task, layers: list) -> np.ndarray:
    """What the reference makes of the layers of one member over time, which begin at its start."""
    start = layers[0]
    first = reference.conserved(start)

    def drift(now):
        return [np.linalg.norm(c - c0) for c, c0 in zip(reference.conserved(now), first, strict=True)]

    made = {
        "loss": lambda w: reference.loss(w, mine.sigma_xx, mine.sigma_yx, mine.trace_yy),
        "test_loss": lambda w: reference.loss(w, mine.test.sigma_xx, mine.test.sigma_yx, mine.test.trace_yy),
        "strengths": lambda w: np.diag(mine.modes.U.T @ reference.product(w) @ mine.modes.V),
        "product": reference.product,
        "layer_norms": lambda w: [np.linalg.norm(x) for x in w],
        "drift": drift,
        "kernel_distance": lambda w: reference.kernel_distance(w, start, mine.sigma_xx),
    }
    return np.array([made[name](w) for w in layers])


def assert_follows(run: dln.Trajectory, task: dln.Task, layers: list, tol: float, who: object) -> None:
    for i, name in itertools.product(range(run.batch), run.names):
        if name != "weights":
            assert_close(getattr(run, name)[i], records_of(name, own(task, i), layers[i]), name, tol, (who, i))
            continue
        for k, layer in enumerate(run.weights):
            assert_close(layer[i], np.array([w[k] for w in layers[i]]), name, tol, (who, i))


@pytest.mark.parametrize("own_tasks", [True, False], ids=["own tasks", "one task"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_record_alone_in_flow(kind, own_tasks, long) -> None:
    task, weights, ways = case(kind, own_tasks)
    layers = flowed(task, weights)
    for place, (reduce, name) in enumerate(itertools.product(("auto", "none", *ways), RECORDS)):
        layout = LAYOUTS[(place + place // len(RECORDS) + own_tasks) % 2]
        if name == "kernel_distance" and reduce not in ("auto", "none"):
            continue
        with backend.forced(layout=layout):
            run = dln.gradient_flow(task, weights, TIMES, record=name, reduce=reduce, rtol=1e-11, method="dop853")
        assert (run.status == dln.Status.COMPLETED).all()
        if reduce not in ("auto", "none"):
            assert run.reduced == (names_of(reduce),) * BATCH
        assert_follows(run, task, layers, 1e-8, (layout, reduce))
        for i, (k, layer) in itertools.product(range(BATCH), enumerate(run.final.layers)):
            assert_close(layer[i], layers[i][-1][k], f"final W_{k + 1}", 1e-8, (layout, reduce, i))


def solvable(name: str) -> tuple[dln.Task, dln.Weights]:
    """Members of an exact solution: inputs that vary along the modes as they like, and something beside the modes."""
    if name == "one layer":
        made = [sampled(np.random.default_rng(i), 5, 3, directions=3, targets=1, noise=0.4) for i in range(BATCH)]
        return dln.Task.stack(made), dln.Weights([0.5 * np.random.default_rng(9).normal(size=(BATCH, 3, 5))])
    tasks, layers = [], []
    for i in range(BATCH):
        rng = np.random.default_rng((i, len(name)))
        balanced = name == "aligned and balanced"
        tasks.append(in_modes(rng, 5, 3, np.array([1.6, 0.9]), rng.uniform(0.5, 1.3, 2), 0.0 if i == 1 else 0.7))
        layers.append(aligned(rng, tasks[-1], (6, 5) if balanced else (6,), balanced))
    return dln.Task.stack(tasks), dln.Weights([np.stack(w) for w in zip(*layers, strict=True)])


@pytest.mark.parametrize("name", ["one layer", "aligned, two layers", "aligned and balanced"])
def test_every_record_alone_of_exact_solutions(name) -> None:
    task, weights = solvable(name)
    solution = dln.exact.solve(task, weights)
    assert solution.name == name
    layers = flowed(task, weights)
    for record in RECORDS:
        assert_follows(solution.evaluate(TIMES, record=record), task, layers, 1e-10, name)


@pytest.mark.parametrize("kind", KINDS)
def test_steady_is_where_no_entry_of_any_layer_moves_faster(kind) -> None:
    """Nor could: the stillest step of the undisturbed run, to a part in a million; the third member never is."""
    task, weights, _ = case(kind, True)
    free = truth(kind, True, "plain", "none")
    speeds = []
    for i, (run, lr) in enumerate(zip(free, LR, strict=True)):
        layers, mine = run.records["weights"], task[i]
        moved = np.max([np.abs(np.diff(w, axis=0)).max(axis=(1, 2)) for w in layers], axis=0) / lr
        could = [
            reference.attainable_speed([w[k] for w in layers], mine.sigma_xx, mine.sigma_yx, 0.0)
            for k in range(1, STEPS + 1)
        ]
        speeds.append(np.maximum(moved, could))
    limit = np.array([speeds[0].min() * (1 + 1e-6), speeds[1][:25].min() * (1 + 1e-6), speeds[2].min() * (1 - 1e-6)])
    for layout in LAYOUTS:
        with backend.forced(layout=layout):
            run = dln.gradient_descent(task, weights, lr=LR, steps=STEPS, stop=dln.Stop(steady=limit))
        assert run.status.tolist() == [dln.Status.STEADY, dln.Status.STEADY, dln.Status.COMPLETED]
        wanted = [int(np.argmax(v <= x)) + 1 for v, x in zip(speeds[:2], limit[:2], strict=True)]
        assert run.stopped_step.tolist() == [*wanted, STEPS]
