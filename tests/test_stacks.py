"""A stack equals its members one by one, for every public function that takes a batch, members alike in nothing."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import pydln as dln
from pydln import analysis, exact, init, plot, propagation, reduce, spectra
from pydln._base import backend
from pydln.quantities import QUANTITIES

BATCH = 6
N_IN, N_HIDDEN, N_OUT, MODES = 5, 6, 3, 3
ALL = tuple(name for name in QUANTITIES if name != "sharpness")

STACKS: dict[str, Callable[[], object]] = {}
"""How the rule is looked at, by the name of the function."""

ALONE = {
    "activations.activation": "a name",
    "datasets.mnist": "one data set",
    "datasets.mnist_moments": "one data set",
    "init.mup_scaling": "one list of widths",
    "plot.consistency": "single tasks",
    "plot.eigenvalues": "one spectrum, values together",
    "plot.learning_time": "one curve",
    "plot.optimal_rate": "one curve",
    "plot.phase_diagram": "one diagram",
    "plot.spectrum": "one spectrum, values together",
    "propagation.gaussian_mean": "one number for each variance; f is free to mix them",
    "reduce.asked": "names",
    "spectra.compare": "one spectrum, values together",
}
"""Functions that take no batch, and what they take."""


def rule(name: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    def enter(test: Callable[[], object]) -> Callable[[], object]:
        STACKS[name] = test
        return test

    return enter


def surface() -> set[str]:
    """Every public function, and the methods of what public functions return that take members."""
    modules = {"": dln} | {name: module for name in dln.__all__ if inspect.ismodule(module := getattr(dln, name))}
    found = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in modules.items()
        for name in getattr(module, "__all__", ())
        if inspect.isfunction(getattr(module, name))
    }
    for owner in (dln.Task, dln.Weights, dln.Trajectory, exact.Solution, *exact.SOLUTIONS):
        for name, thing in vars(owner).items():
            if not name.startswith("_") and (
                inspect.isfunction(thing) or isinstance(thing, classmethod | staticmethod)
            ):
                base = owner if owner in (dln.Task, dln.Weights, dln.Trajectory) else exact.Solution
                if name not in (
                    "conditions",
                    "records",
                    "modes",
                    "layer",
                ):  # what a new solution brings, for `Solution` alone
                    found.add(f"{base.__name__}.{name}")
    return found


METHODS_ALONE = {
    "Solution.test_loss": "the loss of the held-out task: Task.loss",
    "Task.from_data": "one data set",
    "Task.from_spectrum": "one spectrum",
    "Task.hierarchy": "one tree",
    "Task.hierarchy_spectrum": "one tree",
    "Task.mnist": "one data set",
    "Task.teacher": "one teacher",
    "Trajectory.load": "test_trajectory.py: what `save` wrote",
    "Trajectory.save": "test_trajectory.py: comes back as it was",
    "Trajectory.summary": "test_printed.py: a table over members",
    "Weights.from_torch": "one module",
}


def test_every_public_function_is_here() -> None:
    """A new one must say how its stack compares with its members, or why it has none."""
    known = [STACKS.keys(), ALONE.keys(), METHODS_ALONE.keys()]
    assert not (known[0] & known[1]) | (known[0] & known[2])
    assert set().union(*known) == surface()


# ---- what is stacked ----------------------------------------------------------------------------------------------


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def turned(n: int, k: int, *key: int) -> np.ndarray:
    return np.linalg.qr(rng(n, *key).normal(size=(n, k)))[0]


@cache
def tasks() -> dln.Task:
    """Σ_xx of full rank, of rank three, diagonal, a multiple of I, and I; Σ_yx of ranks 3, 1, 2, 3, 0, 2."""
    made = []
    for i, (variances, rank) in enumerate(
        [
            (np.linspace(0.5, 1.5, N_IN), 3),
            (np.array([1.2, 0.9, 0.5, 0.0, 0.0]), 1),
            (np.array([1.0, 2.0, 0.7, 0.6, 0.2]), 2),
            (np.full(N_IN, 0.8), 3),
            (np.ones(N_IN), 0),
            (np.array([1.7, 0.4, 0.0, 0.0, 0.0]), 2),
        ]
    ):
        Q = np.eye(N_IN) if i in (2, 3, 4) else turned(N_IN, N_IN, i)
        xx = (Q * variances) @ Q.T
        teacher = turned(N_OUT, rank, 7, i) * np.linspace(1.5, 0.6, rank) @ turned(N_IN, rank, 8, i).T
        yx = teacher @ xx
        test = dln.Task.from_covariances(
            xx + 0.1 * i * np.eye(N_IN), yx + 0.01 * i * turned(N_IN, N_OUT, 9, i).T, 9.0 + i
        )
        made.append(dln.Task.from_covariances(xx, yx, np.trace(teacher @ yx.T) + 0.1 * i, test=test))
    return dln.Task.stack(made)


@cache
def sampled_tasks() -> dln.Task:
    """Tasks that keep their samples."""
    made = []
    for i in range(BATCH):
        x = rng(1, i).normal(size=(9, N_IN)) * (1 + 0.2 * i)
        made.append(dln.Task.from_data(x, rng(2, i).normal(size=(9, N_OUT)), keep_samples=True))
    return dln.Task.stack(made)


@cache
def whitened() -> dln.Task:
    """Whitened tasks with modes, strengths, ranks and floors of their own."""
    s = [[2.0, 1.0, 0.5], [1.0, 0.0, 0.0], [0.7, 0.7, 0.7], [3.0, 2.9, 0.0], [0.5, 0.4, 0.3], [1.5, 1.4, 0.1]]
    return dln.Task.stack(
        [dln.Task.from_spectrum(one, N_IN, N_OUT, seed=i, trace_yy=20.0 + i) for i, one in enumerate(s)]
    )


@cache
def starts(dtype: str = "f8") -> dln.Weights:
    """Gaussian, of low rank, with a layer of zeros, tiny, orthogonal, unbalanced."""
    widths = (N_IN, N_HIDDEN, N_HIDDEN, N_OUT)
    layers = [
        np.stack([rng(k, i).normal(size=(b, a)) / np.sqrt(a) for i in range(BATCH)])
        for k, (a, b) in enumerate(itertools.pairwise(widths))
    ]
    R, S = turned(N_HIDDEN, 2, 1), turned(N_HIDDEN, 2, 2)
    layers[0][1], layers[2][1] = R @ R.T @ layers[0][1], layers[2][1] @ S @ S.T
    layers[1][1] = S @ np.diag([0.8, 0.5]) @ R.T
    layers[1][2] = 0.0
    for w in layers:
        w[3] *= 1e-3
    for w, one in zip(layers, init.orthogonal(widths, seed=3).layers, strict=True):
        w[4] = one[0]
    layers[0][5] *= 2.0
    return dln.Weights([w.astype(dtype) for w in layers])


LR = np.array([0.05, 0.03, 0.02, 0.1, 0.9, 0.04])  # the fifth diverges
RATES = {
    "lr": LR,
    "momentum": np.array([0.0, 0.5, 0.3, 0.0, 0.9, 0.2]),
    "weight_decay": np.array([0.0, 0.1, 0.0, 0.3, 0.0, 0.02]),
}


def one(value: Any, i: int) -> Any:
    """What belongs to member i: of an array its entry, with the batch axis where it is asked for as a batch."""
    return value[i : i + 1] if isinstance(value, np.ndarray) and value.ndim else value


def same(got: Any, wanted: Any, what: str, rtol: float = 0.0) -> None:
    """The same numbers, to the bit or to `rtol`; NaN equals NaN. Tuples, dictionaries, dataclasses by their parts."""
    if isinstance(got, dln.Trajectory):
        same_run(got, wanted, what, rtol)
    elif isinstance(got, dln.Weights):
        same(got.layers, wanted.layers, what, rtol)
    elif dataclasses.is_dataclass(got) and not isinstance(got, type):
        for field in dataclasses.fields(got):
            same(getattr(got, field.name), getattr(wanted, field.name), f"{what}.{field.name}", rtol)
    elif isinstance(got, dict):
        assert got.keys() == wanted.keys(), what
        for name in got:
            same(got[name], wanted[name], f"{what}[{name}]", rtol)
    elif isinstance(got, tuple | list):
        assert len(got) == len(wanted), what
        for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
            same(a, b, f"{what}[{k}]", rtol)
    elif isinstance(got, np.ndarray | float):
        a, b = np.asarray(got), np.asarray(wanted)
        assert a.dtype == b.dtype, what
        assert a.shape == b.shape, f"{what}: {a.shape} {b.shape}"
        if rtol:
            size = np.abs(b[np.isfinite(b)]).max(initial=0.0)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * size, err_msg=what)
        else:
            np.testing.assert_array_equal(a, b, err_msg=what)
    else:
        assert got == wanted, what


def same_run(got: dln.Trajectory, wanted: dln.Trajectory, what: str, rtol: float = 0.0) -> None:
    """One member of a stack, ``stack[i]``, and the member alone: records, ends, settings."""
    assert got.names == wanted.names, what
    for name in got.names:
        same(getattr(got, name), getattr(wanted, name), f"{what}.{name}", rtol)
    for name in ("status", "stopped_time", "reduced", "source", "steps"):
        same(getattr(got, name), getattr(wanted, name), f"{what}.{name}")
    same(np.atleast_2d(got.t), np.atleast_2d(wanted.t), f"{what}.t", rtol)
    assert (got.final is None) == (wanted.final is None), what
    if got.final is not None:
        same(got.final, wanted.final, f"{what}.final", rtol)
    assert got.settings.keys() == wanted.settings.keys(), what
    for name in got.settings.keys() - {"stop", "task"}:
        a, b = got.settings[name], wanted.settings[name]
        if isinstance(a, np.ndarray):
            same(np.ravel(a), np.ravel(b), f"{what}.settings[{name}]", rtol)
        else:
            assert a == b, f"{what}.settings[{name}]"


def by_member(
    stack: Any, call: Callable[[int], Any], what: str, *, rtol: float = 0.0, batch: int = BATCH, pick: Any = None
) -> None:
    pick = pick or (lambda result, i: result[i : i + 1] if isinstance(result, np.ndarray) else result[i])
    for i in range(batch):
        same(pick(stack, i), call(i), f"{what}, member {i}", rtol)


# ---- verbs --------------------------------------------------------------------------------------------------------


def stop_of(limits: dict[str, np.ndarray], i: int | None = None) -> dln.Stop | None:
    if not limits:
        return None
    return dln.Stop(**{name: value if i is None else value[i : i + 1] for name, value in limits.items()})


LIMITS: tuple[dict[str, np.ndarray], ...] = (
    {},
    {"loss": np.array([1.2, 0.0, 0.8, 1.5, 0.3, 2.0])},
    {"strengths": np.array([[0.3, np.nan, np.nan], [0.4, np.nan, np.nan], [9, 9, 9], [1e-6, 1e-6, np.nan]] * 2)[:6]},
    {"steady": np.array([0.5, 0.0, 1e-3, 1e-9, 0.0, 0.2]), "loss": np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])},
)


@rule("gradient_descent")
def descent() -> None:
    descent_of(tasks(), starts("f8"), {}, record_every=60, record="sharpness", reduce="none")
    kinds = itertools.product(("f8", "f4"), LIMITS, ("interleaved", "rows"), ("none", "auto"), (False, True))
    for dtype, limits, layout, way, nesterov in kinds:
        options = {"record": ALL[:6] if way == "auto" else ALL, "nesterov": nesterov, "reduce": way}
        with backend.forced(layout=layout):
            descent_of(tasks(), starts(dtype), limits, record_every=7, **options)
    reduced_descent()
    noisy_descent()
    more_than_lanes()


def more_than_lanes() -> None:
    """Members that stop leave their lane of a vector to others, which start while the rest goes on."""
    many = np.random.default_rng(0).integers(BATCH, size=40)
    limit = np.random.default_rng(1).uniform(0.3, 1.5, size=40)
    task, weights = dln.Task.stack([tasks()[int(i)] for i in many]), starts()[many]
    options = {"lr": 0.04, "steps": 60, "record": ALL, "record_every": 6, "throw": False, "reduce": "none"}
    with backend.forced(layout="interleaved"):
        run = dln.gradient_descent(task, weights, stop=dln.Stop(loss=limit), **options)
        assert len(set(run.stopped_step.tolist())) > 5
        by_member(
            run,
            lambda i: dln.gradient_descent(task[i], weights[i], stop=dln.Stop(loss=limit[i]), **options),
            "many",
            batch=40,
        )


def descent_of(task: dln.Task, weights: dln.Weights, limits: dict[str, np.ndarray], **options: Any) -> None:
    how = {"steps": 60, "throw": False, **options}
    run = dln.gradient_descent(task, weights, stop=stop_of(limits), **RATES, **how)

    def alone(i: int) -> dln.Trajectory:
        rates = {name: one(value, i) for name, value in RATES.items()}
        return dln.gradient_descent(task[i], weights[i], stop=stop_of(limits, i), **rates, **how)

    by_member(run, alone, f"{limits}, {options}")


def reduced_descent() -> None:
    for way, weights, task in (
        ("inputs", starts(), tasks()),
        ("width", two_layers(), tasks()),
        (("inputs", "width"), two_layers(), tasks()),
        ("decoupled", aligned(), whitened()),
    ):
        names = tuple(n for n in ALL if n != "kernel_distance" and (n != "test_loss" or task.test))
        descent_of(task, weights, {}, reduce=way, record=names)


@cache
def two_layers() -> dln.Weights:
    """A wide hidden layer."""
    return dln.Weights(
        [
            np.stack([(0.3 + 0.1 * i) * rng(3, i).normal(size=(12, N_IN)) for i in range(BATCH)]),
            np.stack([(0.5 - 0.1 * i) * rng(4, i).normal(size=(N_OUT, 12)) for i in range(BATCH)]),
        ]
    )


@cache
def aligned(depth: int = 3, width: int = MODES) -> dln.Weights:
    """Layers of strengths of their own in the modes of `whitened`."""
    strengths = rng(5).uniform(0.1, 0.9, size=(BATCH, depth, MODES))
    return init.aligned(whitened(), depth=depth, width=width, layer_strengths=strengths, seed=1)


def noisy_descent() -> None:
    task, weights = sampled_tasks(), starts()
    std = np.array([0.0, 0.1, 0.5, 0.2, 0.3, 0.05])
    kinds = (
        lambda **k: dln.Minibatch(3, seed=4, label_noise=one(std, k["i"]) if "i" in k else std, first=k.get("i", 0)),
        lambda **k: dln.Minibatch(4, seed=4, replace=False, first=k.get("i", 0)),
        lambda **k: dln.Online(2, seed=5, first=k.get("i", 0)),
        lambda **k: dln.Online(2, seed=5, label_noise=one(std, k["i"]) if "i" in k else std, first=k.get("i", 0)),
        lambda **k: dln.LabelNoise(one(std, k["i"]) if "i" in k else std, seed=6, first=k.get("i", 0)),
    )
    options = {"steps": 40, "record": tuple(n for n in ALL if n != "test_loss"), "throw": False}
    for kind in kinds:
        run = dln.gradient_descent(task, weights, noise=kind(), **RATES, **options)
        for i in range(BATCH):
            alone = dln.gradient_descent(
                task[i], weights[i], noise=kind(i=i), **{n: one(v, i) for n, v in RATES.items()}, **options
            )
            for name in alone.names:
                same(getattr(run[i], name), getattr(alone, name), f"{kind()}, {name}")
            same(run[i].final, alone.final, f"{kind()}, final")
            same(run[i].status, alone.status, f"{kind()}, status")


T = np.concatenate([[0.0], np.geomspace(0.05, 3.0, 9)])


@rule("gradient_flow")
def flow() -> None:
    ways = (("none", starts()), ("auto", starts()), ("inputs", starts()), ("width", two_layers()))
    for limits, layout, (way, weights) in itertools.product(LIMITS, ("interleaved", "rows"), ways):
        if "steady" in limits and way in ("inputs", "width"):
            continue  # refused
        with backend.forced(layout=layout):
            flow_of(tasks(), weights, limits, record=ALL if way in ("none", "auto") else ALL[:5], reduce=way)
    flow_of(whitened(), aligned(), {}, reduce="decoupled", record=("loss", "weights", "drift"))
    balanced = init.balanced(starts().product() + 0.01 * maps()[0], depth=3, width=4)
    flow_of(tasks(), balanced, {}, reduce="balanced", record=tuple(n for n in ALL if n != "kernel_distance"))


def flow_of(task: dln.Task, weights: dln.Weights, limits: dict[str, np.ndarray], **options: Any) -> None:
    run = dln.gradient_flow(task, weights, T, stop=stop_of(limits), throw=False, **options)
    by_member(
        run,
        lambda i: dln.gradient_flow(task[i], weights[i], T, stop=stop_of(limits, i), throw=False, **options),
        f"{limits}, {options}",
    )


def maps() -> np.ndarray:
    """Ω of full rank, of rank two, zero, tiny, of equal singular values, large."""
    made = np.stack([0.4 * rng(6, i).normal(size=(N_OUT, N_IN)) for i in range(BATCH)])
    made[1] = made[1] @ turned(N_IN, 2, 4) @ turned(N_IN, 2, 4).T
    made[2] = 0.0
    made[3] *= 1e-6
    made[4] = 0.3 * turned(N_IN, N_OUT, 5).T
    made[5] *= 3
    return made


@rule("end_to_end_flow")
def end_to_end() -> None:
    for depth, limits in ((1, LIMITS[0]), (3.7, LIMITS[0]), *((2, limits) for limits in LIMITS)):
        end_to_end_of(depth, limits)


def end_to_end_of(depth: float, limits: dict[str, np.ndarray]) -> None:
    options = {"depth": depth, "record": ("loss", "test_loss", "strengths", "product"), "throw": False}
    run = dln.end_to_end_flow(tasks(), maps(), T, stop=stop_of(limits), **options)
    by_member(
        run,
        lambda i: dln.end_to_end_flow(tasks()[i], maps()[i], T, stop=stop_of(limits, i), **options),
        f"depth {depth}, {limits}",
    )


@rule("singular_flow")
def singular_flow() -> None:
    run = dln.singular_flow(tasks(), maps(), T, depth=3)
    for i in range(BATCH):
        alone = dln.singular_flow(tasks()[i], maps()[i], T, depth=3)
        same_run(run.trajectory[i], alone.trajectory, f"member {i}")
        for name in ("sigma", "U", "V"):
            same(getattr(run, name)[i : i + 1], getattr(alone, name), f"{name}, member {i}")


@rule("singular_rates")
def singular_rates() -> None:
    for depth in (1, 3):
        found = dln.singular_rates(tasks(), maps(), depth=depth)
        for i in range(BATCH):
            alone = dln.singular_rates(tasks()[i], maps()[i], depth=depth)
            for name, a, b in zip(found._fields, found, alone, strict=True):
                same(a[i : i + 1], b, f"{name}, member {i}")


@rule("mode_flow")
def modes() -> None:
    a = rng(7).uniform(0.05, 0.9, size=(BATCH, MODES, 4))
    a[0], a[1, 0], a[2] = 0.3, 0.0, -a[2]
    a[3] *= 1e-3
    s, d = rng(8).uniform(0.3, 2.0, size=(BATCH, MODES)), rng(9).uniform(0.2, 1.5, size=(BATCH, MODES))
    s[4, 1], d[4, 1], s[5] = 0.0, 0.0, -s[5]
    t = np.geomspace(0.05, 30.0, 25)

    def look(limits: dict[str, np.ndarray]) -> None:
        by_member(
            dln.mode_flow(s, a, t, variances=d, stop=stop_of(limits)),
            lambda i: dln.mode_flow(s[i : i + 1], a[i : i + 1], t, variances=d[i : i + 1], stop=stop_of(limits, i)),
            str(limits),
        )

    for limits in LIMITS:
        look(limits)
    # A member is its modes: the worst of their ends, the most of their steps, the first time at which one stopped.
    for most in (3, 20, 10**5):
        whole = dln.mode_flow(s, a, t, variances=d, max_steps=most, throw=False)
        alone = [
            dln.mode_flow(s[:, [k]], a[:, [k]], t, variances=d[:, [k]], max_steps=most, throw=False)
            for k in range(MODES)
        ]
        for name, of in (("status", np.max), ("integrator_steps", np.max)):
            np.testing.assert_array_equal(getattr(whole, name), of([getattr(one, name) for one in alone], axis=0))
        times = [one.stopped_time for one in alone]
        np.testing.assert_array_equal(whole.stopped_time, np.min(times, axis=0))
        np.testing.assert_array_equal(whole.strengths, np.concatenate([one.strengths for one in alone], axis=2))


@rule("train_nonlinear")
def nonlinear() -> None:
    x = np.stack([(0.5 + 0.3 * i) * rng(10, i).normal(size=(8, N_IN)) for i in range(BATCH)])
    y = np.stack([rng(11, i).normal(size=(8, N_OUT)) * (i != 2) for i in range(BATCH)])
    modes = dln.Modes(*(np.stack(same) for same in zip(*(whitened()[i].modes for i in range(BATCH)), strict=True)))
    for activation in ("tanh", "relu"):
        for limits in LIMITS:
            for size in (None, 3):
                for own_modes in (False, True):
                    options = {"activation": activation, "steps": 30, "batch_size": size, "seed": 2, "throw": False}
                    options |= {"record": ("loss", "test_loss", "strengths", "layer_norms", "drift", "weights")}
                    run = dln.train_nonlinear(
                        x, y, starts(), lr=LR, x_test=x + 1, y_test=y - 1, stop=stop_of(limits),
                        modes=modes if own_modes else None, **options,
                    )  # fmt: skip
                    for i in range(BATCH):
                        alone = dln.train_nonlinear(
                            x[i], y[i], starts()[i], lr=LR[i : i + 1], x_test=x[i] + 1, y_test=y[i] - 1, first=i,
                            stop=stop_of(limits, i), modes=dln.Modes(*(m[i] for m in modes)) if own_modes else None,
                            **options,
                        )  # fmt: skip
                        for name in (*alone.names, "status", "stopped_time", "final"):
                            same(getattr(run[i], name), getattr(alone, name), f"{activation}, {limits}, {name}, {i}")


@rule("pretrain")
def pretrain() -> None:
    task = tasks()
    widths = (N_IN, 4, 4, N_OUT)
    for how in ({"lr": 0.05, "steps": 40}, {"lr": [0.05, 0.03], "steps": 60, "tol": 0.3}, {"t": 3.0}):
        for start in ("gaussian", "aligned"):
            found = dln.pretrain(task, widths, start=start, seed=3, last_scale=0.7, **how)
            for i in range(BATCH):
                alone = dln.pretrain(task[i], widths, start=start, seed=3, last_scale=0.7, first=i, **how)
                # Which closed form applies is decided for all members together; where variances are equal, rounding
                # then decides which eigenvectors the next layer starts from.
                if "t" not in how or start == "gaussian":
                    rtol = 0.0 if "t" not in how else 1e-7
                    same(found.weights[i], alone.weights, f"{start}, {how}, weights, {i}", rtol)
                for name in ("losses", "floors", "time"):
                    a, b = getattr(found, name)[i : i + 1], getattr(alone, name)
                    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=f"{start}, {how}, {name}, {i}")
                if found.steps is not None:
                    same(found.steps[i : i + 1], alone.steps, f"{start}, {how}, steps, {i}")


@rule("fine_tune")
def fine_tune() -> None:
    task = tasks()
    found = dln.pretrain(task, (N_IN, 4, N_OUT), lr=0.05, steps=80, tol=0.5, seed=3)
    assert len(set(found.time[:, 0])) > 2
    options = {"steps": 30, "record": ALL}
    run = dln.fine_tune(task, found, lr=LR / 5, **options)
    for i in range(BATCH):
        own = dln.pretrain(task[i], (N_IN, 4, N_OUT), lr=0.05, steps=80, tol=0.5, seed=3, first=i)
        same_run(run[i], dln.fine_tune(task[i], own, lr=LR[i : i + 1] / 5, **options), f"member {i}")


@rule("plan")
def plan() -> None:
    """Members that are run alike stand together: as many as have the part alone."""
    for way, task, weights in (
        ("none", tasks(), starts()),
        ("auto", tasks(), starts()),
        ("auto", whitened(), dln.Weights.concatenate([aligned(3, N_HIDDEN)[:3], starts()[3:]])),
    ):
        whole = dln.plan(task, weights, reduce=way, steps=10**6)
        alone = [dln.plan(task[i], weights[i], reduce=way, steps=10**6).parts for i in range(BATCH)]
        assert sum(part.members for part in whole.parts) == BATCH

        def kind(part: Any) -> tuple[Any, ...]:
            return part.reduced, part.networks, part.widths, part.flops

        counted: Counter[Any] = Counter()
        for part in whole.parts:
            counted[kind(part)] += part.members
        assert counted == Counter(kind(parts[0]) for parts in alone)


@rule("consistency")
def consistency() -> None:
    weak = dln.Task.from_covariances(tasks()[0].sigma_xx, 1e-14 * tasks()[0].sigma_yx, 1.0)  # beside the others
    stacked = dln.Task.stack([*(dataclasses.replace(tasks()[i], test=None) for i in range(BATCH)), weak])
    found = dln.consistency(stacked)
    for i in range(BATCH + 1):
        alone = dln.consistency(stacked[i])
        for name in ("matrix", "score", "null", "inside"):
            np.testing.assert_array_equal(getattr(found, name)[i], getattr(alone, name), err_msg=f"{name}, {i}")


@rule("reduce.find")
def find() -> None:
    for steps, (task, weights) in itertools.product(
        (1, 30, 1000, 30_000, 10**6), ((tasks(), starts()), (tasks(), two_layers()), (whitened(), aligned()))
    ):
        found = reduce.find(reduce.Ensemble.of(task, weights), steps=steps)
        for i in range(BATCH):
            alone = reduce.find(reduce.Ensemble.of(task[i], weights[i]), steps=steps)
            for name in ("names", "widths", "networks", "whitened", "flops", "reduced_flops"):
                assert getattr(found[i], name) == getattr(alone[0], name), (name, i)
            for name, condition in found[i].conditions.items():
                same(condition, alone[0].conditions[name], f"{name}, {i}")


# ---- exact solutions ----------------------------------------------------------------------------------------------


@cache
def solvable() -> list[tuple[str, dln.Task, dln.Weights]]:
    """Members for every exact solution; the imbalance of each its own."""
    one_layer = dln.Weights([0.3 * rng(12).normal(size=(BATCH, N_OUT, N_IN))])
    lam = init.lambda_balanced(maps(), imbalance=np.array([0.0, -0.2, -0.5, -1e-3, -2.0, 0.0]), width=4)
    equal = init.aligned(whitened(), depth=4, strength=rng(13).uniform(0.01, 0.5, size=(BATCH, MODES)))
    scaled = dln.Task.stack(
        [dln.Task.from_covariances((0.5 + 0.3 * i) * np.eye(N_IN), whitened()[i].sigma_yx, 30.0) for i in range(BATCH)]
    )
    of_scaled = init.aligned(scaled, depth=4, strength=rng(13).uniform(0.01, 0.5, size=(BATCH, MODES)))
    correlated = []
    for i in (0, 4, 5):  # of modes that are all there, and of different strengths
        Q = np.linalg.qr(np.concatenate([whitened()[i].modes.V, rng(15, i).normal(size=(N_IN, 2))], axis=1))[0]
        xx = Q * rng(14, i).uniform(0.4, 1.6, N_IN) @ Q.T
        correlated.append(dln.Task.from_covariances(xx, whitened()[i].sigma_yx, 30.0))
    along = dln.Task.stack(correlated)
    strengths = rng(5).uniform(0.1, 0.9, size=(3, 2, MODES))
    general = init.aligned(along, depth=2, layer_strengths=strengths, seed=1)
    return [
        ("one layer", tasks(), one_layer),
        ("aligned, two layers", whitened(), aligned(2)),
        ("aligned, two layers, inputs along the modes", along, general),
        ("balanced, two layers", whitened(), lam),
        ("balanced, two layers, scaled inputs", scaled, lam),
        ("aligned and balanced", whitened(), equal),
        ("aligned and balanced, scaled inputs", scaled, of_scaled),
    ]


# Sums over modes and members may be laid out differently for a single member.
EXACT = 1e-12


def times(batch: int) -> tuple[np.ndarray, ...]:
    return T, np.linspace(0.5, 1.5, batch)[:, None] * T


@rule("exact.solve")
def solve() -> None:
    for name, task, weights in solvable():
        solution = exact.solve(task, weights)
        assert name.startswith(solution.name.split(" of")[0].split(", scaled")[0])
        for i in range(weights.batch):
            assert exact.solve(task[i], weights[i]).name == solution.name, (name, i)


@rule("Solution.evaluate")
def evaluate() -> None:
    for name, task, weights in solvable():
        solution = exact.solve(task, weights)
        names = tuple(n for n in ALL if n != "test_loss" or task.test is not None)
        if "balanced, two layers, scaled" in name:
            names = tuple(n for n in names if n not in ("weights", "kernel_distance", "layer_norms", "drift"))
        singles = [exact.solve(task[i], weights[i]) for i in range(weights.batch)]
        # The layers of the balanced solution are integrated, member by member.
        for t in times(weights.batch)[1 if "balanced, two" in name else 0 :]:
            run = solution.evaluate(t, record=names)
            for i in range(weights.batch):
                alone = singles[i].evaluate(t if t.ndim == 1 else t[i : i + 1], record=names)
                for one_name in names:
                    if one_name == "balance":  # of balanced layers it is rounding
                        np.testing.assert_allclose(run[i].balance, alone.balance, rtol=EXACT, atol=1e-12)
                        continue
                    same(
                        getattr(run[i], one_name),
                        getattr(alone, one_name),
                        f"{name}, {one_name}, {i}",
                        1e-8 if one_name == "kernel_distance" else EXACT,
                    )


@rule("Solution.residual")
def residual() -> None:
    """Rounding of differences: nothing to compare but its size."""
    for name, task, weights in solvable():
        t = np.array([0.3, 2.0])
        if "balanced, two layers" in name:  # integrated for each of eight differences
            task, weights, t = dln.Task.stack([task[4]]), weights[4], t[:1]
        whole = exact.solve(task, weights).residual(t)
        assert whole.shape == (weights.batch, len(t))
        assert (whole < 1e-9).all(), name
        for i in range(0, weights.batch, 2):
            assert (exact.solve(task[i], weights[i]).residual(t) < 1e-9).all(), (name, i)


@rule("Solution.escape_times")
def escape_times() -> None:
    _, task, weights = solvable()[3]

    def look(fraction: float) -> None:
        whole = exact.solve(task, weights).escape_times(fraction)
        by_member(whole, lambda i: exact.solve(task[i], weights[i]).escape_times(fraction), "", rtol=1e-11)

    for fraction in (0.1, 0.5):
        look(fraction)


@rule("Solution.representations")
def representations() -> None:
    _, task, weights = solvable()[3]
    whole = exact.solve(task, weights).representations(T)
    for i in range(BATCH):
        alone = exact.solve(task[i], weights[i]).representations(T)
        same([a[i : i + 1] for a in whole], list(alone), f"{i}", EXACT)


@rule("Solution.tangent_kernel")
def tangent_kernel() -> None:
    _, task, weights = solvable()[3]
    whole = exact.solve(task, weights).tangent_kernel(T)
    by_member(whole, lambda i: exact.solve(task[i], weights[i]).tangent_kernel(T), "", rtol=EXACT)


@rule("exact.candidates")
def candidates() -> None:
    """A solution applies to a stack where it applies to all; what was measured is the worst of the members."""
    for task, weights in ((tasks(), starts()), *((task, weights) for _, task, weights in solvable())):
        whole = exact.candidates(task, weights)
        alone = [exact.candidates(task[i], weights[i]) for i in range(weights.batch)]
        for place, candidate in enumerate(whole):
            own = [one[place] for one in alone]
            assert candidate.applies == all(one.applies for one in own), candidate.name
            for k, condition in enumerate(candidate.conditions):
                mine = [one.conditions[k] for one in own if k < len(one.conditions)]
                assert condition.holds == all(c.holds for c in mine), (candidate.name, condition.needs)


@rule("exact.compare")
def compare() -> None:
    task, weights = whitened(), aligned(2)
    run = dln.gradient_descent(task, weights, lr=np.linspace(1e-3, 1e-2, BATCH), steps=200, record=ALL[:1] + ALL[2:])
    whole = exact.compare(run, exact.solve(task, weights))
    for i in range(BATCH):
        alone = exact.compare(run[i], exact.solve(task[i], weights[i]))
        for name, off in whole.deviations.items():
            np.testing.assert_allclose(off[i], alone.deviations[name][0], rtol=1e-6, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(whole.gap[i], alone.gap[0], rtol=1e-9)
        np.testing.assert_allclose(whole.drift[i], alone.drift[0], rtol=1e-9, atol=1e-15)


def elementwise(function: Callable[..., Any], *arrays: np.ndarray, **options: Any) -> None:
    """Of arrays of one shape: every entry as if it were alone."""
    whole = function(*arrays, **options)
    parts = whole if isinstance(whole, tuple) else (whole,)
    for place in np.ndindex(arrays[0].shape):
        alone = function(*(a[place] for a in arrays), **options)
        alone = alone if isinstance(alone, tuple) else (alone,)
        for a, b in zip(parts, alone, strict=True):
            np.testing.assert_array_equal(a[place], b, err_msg=f"{function.__name__} at {place}")


U0 = np.array([1e-9, 1e-3, 0.5, 3.0, -0.2, 0.0, 1e-30, 2.0])
S = np.array([2.0, 1.0, 0.7, 1.0, 1.5, 1.0, 3.0, -1.0])
AT = np.array([3.0, 0.1, 0.0, 7.0, 1.0, 2.0, 11.0, 0.3])


@rule("exact.balanced_mode")
def balanced_mode() -> None:
    for depth in (1, 2, 2.5, 3, 10, np.inf):
        elementwise(exact.balanced_mode, U0, S, AT, depth=depth)


@rule("exact.time_to_reach")
def time_to_reach() -> None:
    for depth in (1, 2, 2.5, 3, 10, np.inf):
        elementwise(exact.time_to_reach, U0, 0.5 * S, S, depth=depth)


@rule("exact.escape_time")
def escape_time() -> None:
    for depth in (1, 2, 3):
        elementwise(exact.escape_time, U0, S, depth=depth, fraction=0.3)


@rule("exact.half_time")
def half_time() -> None:
    elementwise(exact.half_time, U0, S, depth=3)


@rule("exact.iterations_to_learn")
def iterations_to_learn() -> None:
    v0, v = np.array([1e-6, 0.1, 0.3]), np.array([0.9, 0.5, 0.31])
    elementwise(exact.iterations_to_learn, v0, v, depth=4, rate=0.5)
    depths = [1, 2, 7.5, np.inf]
    whole = exact.iterations_to_learn(v0, v, depth=depths)
    for k, depth in enumerate(depths):
        np.testing.assert_array_equal(whole[..., k], exact.iterations_to_learn(v0, v, depth=depth))


@rule("exact.scalar_mode")
def scalar_mode() -> None:
    b = np.array([1e-9, -1e-3, 0.7, 0.0, 0.2, 1.0, 1e-20, 5.0])
    elementwise(exact.scalar_mode, U0, b, S, AT)


@rule("exact.sharpness")
def sharpness() -> None:
    for function in (exact.sharpness, exact.stable_lr, exact.optimal_lr):
        s = whitened().modes.s
        whole = function(s, depth=3)
        assert whole.shape == (BATCH,)
        for i in range(BATCH):  # a power of one number is not rounded as one of several is
            np.testing.assert_allclose(whole[i], function(s[i], depth=3), rtol=1e-15)


STACKS["exact.stable_lr"] = STACKS["exact.optimal_lr"] = sharpness


@rule("exact.saddle_to_saddle")
def saddle_to_saddle() -> None:
    """Modes do not look at each other: their times are those of each alone."""
    s, u0 = np.array([1.0, 3.0, 2.0, 0.0]), np.array([1e-4, 1e-5, 1e-3, 1e-3])
    whole = exact.saddle_to_saddle(s=s, u0=u0, depth=3, floor=0.2)
    for k in range(len(s)):
        alone = exact.saddle_to_saddle(s=s[k : k + 1], u0=u0[k : k + 1], depth=3)
        np.testing.assert_array_equal(whole.times[k], alone.times[0])
    half = 0.5 * s[whole.order] ** 2
    np.testing.assert_allclose(whole.losses, 0.2 + np.append(np.cumsum(half[::-1])[::-1], 0.0)[: len(whole.losses)])


# ---- starts -------------------------------------------------------------------------------------------------------


def drawn(make: Callable[..., dln.Weights], *arguments: Any, **options: Any) -> None:
    """Members are numbered: `first` asks for one of them alone. Scales of members and layers as arrays."""
    for dtype in ("f4", "f8"):
        scales = [1.0, np.linspace(0.5, 2.0, BATCH)]
        for scale in scales:
            whole = make(*arguments, batch=BATCH, seed=9, scale=scale, dtype=dtype, **options)
            assert whole.batch == BATCH
            for i in range(BATCH):
                own = scale if np.ndim(scale) == 0 else scale[i]
                same(whole[i], make(*arguments, batch=1, seed=9, first=i, scale=own, dtype=dtype, **options), f"{i}")
            assert not np.array_equal(whole.layers[0][0], whole.layers[0][1])


for _kind in ("gaussian", "uniform", "orthogonal", "residual", "mup"):
    _widths = (N_IN,) * 4 if _kind == "residual" else (N_IN, 7, 4, N_OUT)
    STACKS[f"init.{_kind}"] = lambda kind=_kind, widths=_widths: drawn(getattr(init, kind), widths)


@rule("init.identity")
def identity() -> None:
    whole = init.identity((4, 4, 4), batch=3, scale=[0.5, 1.0, 2.0])
    for i, scale in enumerate((0.5, 1.0, 2.0)):
        same(whole[i], init.identity((4, 4, 4), scale=scale), f"{i}")


@rule("init.aligned")
def aligned_starts() -> None:
    strength = rng(20).uniform(0.01, 0.5, size=(BATCH, MODES))
    of_layers = rng(21).uniform(0.1, 0.9, size=(BATCH, 3, MODES))
    for options in ({"strength": strength}, {"layer_strengths": of_layers}, {"strength": strength, "width": [6, 8]}):
        whole = init.aligned(whitened(), depth=3, seed=4, **options)
        for i in range(BATCH):
            own = {n: v[i : i + 1] if isinstance(v, np.ndarray) else v for n, v in options.items()}
            same(whole[i], init.aligned(whitened()[i], depth=3, seed=4, first=i, **own), f"{i}")


@rule("init.balanced")
def balanced_starts() -> None:
    whole = init.balanced(maps(), depth=3, width=5, seed=4)
    by_member(whole, lambda i: init.balanced(maps()[i], depth=3, width=5, seed=4, first=i), "")


@rule("init.lambda_balanced")
def lambda_balanced_starts() -> None:
    lam = np.array([0.0, -0.2, -0.5, -1e-3, -2.0, 0.0])
    whole = init.lambda_balanced(maps(), imbalance=lam, width=4, seed=4)
    by_member(whole, lambda i: init.lambda_balanced(maps()[i], imbalance=lam[i], width=4, seed=4, first=i), "")


@rule("init.product_scaled")
def product_scaled() -> None:
    weights = starts()[[0, 1, 3, 4, 5]]
    sizes = np.array([1e-3, 2.0, 0.5, 1e-8, 1.0])
    task = dln.Task.stack([whitened()[i] for i in range(5)])
    whole = init.product_scaled(weights, norm=sizes)
    by_member(whole, lambda i: init.product_scaled(weights[i], norm=sizes[i]), "norm", batch=5)
    whole = init.product_scaled(weights, strength=sizes, task=task)
    by_member(whole, lambda i: init.product_scaled(weights[i], strength=sizes[i], task=task[i]), "strength", batch=5)


# ---- tasks, weights, trajectories -----------------------------------------------------------------------------------


@rule("Task.stack")
def stack() -> None:
    again = dln.Task.stack([tasks()[i] for i in range(BATCH)])
    for name in ("sigma_xx", "sigma_yx", "trace_yy", "optimum", "floor"):
        same(getattr(again, name), getattr(tasks(), name), name)
    same(tuple(again.modes), tuple(tasks().modes), "modes")


@rule("Task.from_covariances")
def from_covariances() -> None:
    xx, yx, trace = (getattr(tasks(), name) for name in ("sigma_xx", "sigma_yx", "trace_yy"))
    whole = dln.Task.from_covariances(xx, yx, trace)
    for i in range(BATCH):
        alone = dln.Task.from_covariances(xx[i], yx[i], trace[i])
        for name in ("sigma_xx", "sigma_yx", "optimum", "floor", "trace_yy"):
            same(np.asarray(getattr(whole[i], name)), np.asarray(getattr(alone, name)), f"{name}, {i}", 1e-14)
        same(tuple(whole[i].modes), tuple(alone.modes), f"modes, {i}", 1e-14)


@rule("Task.loss")
def task_loss() -> None:
    omega = np.stack([maps(), 2 * maps()], axis=1)
    for task in (tasks(), whitened(), tasks().test):
        whole = task.loss(omega)
        for i in range(BATCH):
            same(whole[i], task[i].loss(omega[i]), f"{i}")
        same(task.loss(maps()[0]), np.array([float(task[i].loss(maps()[0])) for i in range(BATCH)]), "one map")


@rule("Weights.product")
def product() -> None:
    for weights in (starts(), dln.Weights([np.swapaxes(w, 1, 2) for w in starts().layers[::-1]])):
        by_member(weights.product(), lambda i, w=weights: w[i].product(), "")


@rule("Weights.astype")
def astype() -> None:
    by_member(starts().astype("f4"), lambda i: starts()[i].astype("f4"), "")


@rule("Weights.concatenate")
def concatenate() -> None:
    same(dln.Weights.concatenate([starts()[i] for i in range(BATCH)]), starts(), "")


@rule("Trajectory.to_xarray")
def to_xarray() -> None:
    pytest.importorskip("xarray")
    run = dln.gradient_descent(tasks(), starts(), steps=20, record=ALL, throw=False, **RATES)
    whole = run.to_xarray()
    for i in range(BATCH):
        alone = run[i].to_xarray()
        for name in (*alone.data_vars, "t", "status", "stopped_time", "lr"):
            np.testing.assert_array_equal(whole[name].isel(batch=[i]), alone[name], err_msg=name)


# ---- analysis and plots ---------------------------------------------------------------------------------------------


@cache
def uneven() -> dln.Trajectory:
    """A run whose members have times of their own, and stop where they like."""
    return dln.gradient_descent(
        tasks(), starts(), steps=200, record=("loss", "test_loss", "strengths"), throw=False,
        stop=stop_of({"loss": np.array([0.9, 0.0, 0.8, 1.0, 0.3, 0.0])}), **RATES,
    )  # fmt: skip


@rule("analysis.half_times")
def half_times() -> None:
    target = np.where(tasks().modes.s == 0, 0.1, 0.3 * tasks().modes.s)
    whole = analysis.half_times(uneven(), target)
    assert np.isfinite(whole).any()
    assert np.isnan(whole).any()
    by_member(whole, lambda i: analysis.half_times(uneven()[i], target[i]), "")


@rule("analysis.learning_times")
def learning_times() -> None:
    level = np.array([1.0, 0.5, 0.9, 1.2, 0.5, 0.7])
    whole = analysis.learning_times(uneven(), level)
    assert np.isfinite(whole).any()
    by_member(whole, lambda i: analysis.learning_times(uneven()[i], level[i]), "")


def lines(ax: Any) -> list[np.ndarray]:
    """The data of every line, as drawn."""
    return [np.asarray(line.get_xydata(), dtype=float) for line in ax.lines]


def drawn_by_member(draw: Callable[[dln.Trajectory], Any], values: np.ndarray) -> None:
    """Each line of a small stack is the line of the member alone, and made of its `values`, (batch, time, series)."""
    plt = pytest.importorskip("matplotlib.pyplot")
    run, series = uneven(), values.shape[2]
    whole = lines(draw(run))
    assert len(whole) == series * BATCH
    for i in range(BATCH):
        alone = lines(draw(run[i]))
        for k in range(series):
            np.testing.assert_array_equal(whole[k * BATCH + i], alone[k], err_msg=f"member {i}, series {k}")
            np.testing.assert_array_equal(alone[k], np.column_stack([run.t[i], values[i, :, k]]))
    plt.close("all")


@rule("plot.loss")
def plot_loss() -> None:
    drawn_by_member(plot.loss, uneven().loss[:, :, None])
    drawn_by_member(lambda run: plot.loss(run, quantity="test_loss"), uneven().test_loss[:, :, None])


@rule("plot.strengths")
def plot_strengths() -> None:
    drawn_by_member(plot.strengths, uneven().strengths)
    drawn_by_member(lambda run: plot.strengths(run, modes=[2]), uneven().strengths[:, :, 2:])


@rule("plot.overlay")
def overlay() -> None:
    """A theory beside every member: its own, at times of its own."""
    plt = pytest.importorskip("matplotlib.pyplot")
    run = dln.gradient_descent(whitened(), aligned(2), lr=np.linspace(1e-3, 2e-3, BATCH), steps=500)
    theory = exact.solve(whitened(), aligned(2)).evaluate(run.t[:, ::7])
    for quantity, series in (("strengths", MODES), ("loss", 1)):
        whole = lines(plot.overlay(run, theory, quantity=quantity))
        values = [getattr(one, quantity).reshape(BATCH, -1, series) for one in (run, theory)]
        for i in range(BATCH):
            for k in range(2 * series):
                of, drawn = (run, theory)[k // series], values[k // series][i, :, k % series]
                np.testing.assert_array_equal(whole[k * BATCH + i], np.column_stack([of.t[i], drawn]))
            alone = lines(plot.overlay(run[i], theory[i], quantity=quantity))
            for k in range(2 * series):
                np.testing.assert_array_equal(whole[k * BATCH + i], alone[k], err_msg=f"{quantity}, {i}, {k}")
    plt.close("all")


@rule("plot.jacobian_grid")
def jacobian_grid() -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    values = {"a": 10 ** rng(30).uniform(-6, 1, size=(2, 2, 40)), "b": 10 ** rng(31).uniform(-3, 2, size=(2, 2, 40))}
    whole = plot.jacobian_grid(values, [0.9, 1.1], [0.1, 4.0]).child_axes
    for row, column in np.ndindex(2, 2):
        own = {name: a[row : row + 1, column : column + 1] for name, a in values.items()}
        (alone,) = plot.jacobian_grid(own, [[0.9, 1.1][row]], [[0.1, 4.0][column]]).child_axes
        for a, b in zip(whole[2 * row + column].patches, alone.patches, strict=True):
            np.testing.assert_array_equal(a.get_data().values, b.get_data().values)
    plt.close("all")


@rule("plot.phase_portrait")
def phase_portrait() -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    paths = [(rng(32, i).normal(size=9), rng(33, i).normal(size=9)) for i in range(3)]
    drawn = [line.tobytes() for line in lines(plot.phase_portrait(paths))]
    for a, b in paths:
        assert np.column_stack([a, b]).tobytes() in drawn
        assert all(line.tobytes() in drawn for line in lines(plot.phase_portrait([(a, b)])))
    plt.close("all")


@rule("plot.length_map")
def plot_length_map() -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    gains = [0.8, 1.3, 2.0]
    whole = [line.tobytes() for line in lines(plot.length_map("tanh", gains, 0.1))]
    for gain in gains:
        assert all(line.tobytes() in whole for line in lines(plot.length_map("tanh", gain, 0.1)))
    plt.close("all")


# ---- signals and spectra ---------------------------------------------------------------------------------------------

W, B, Q = np.array([0.3, 1.0, 1.5, 2.5]), np.array([0.0, 0.1, 0.5, 0.0]), np.array([0.1, 2.0, 1.0, 30.0])
C = np.array([0.0, 0.5, 0.999, -0.3])
PHI = ("tanh", "relu", "gelu")


@rule("propagation.length_map")
def length_map() -> None:
    for phi in PHI:
        elementwise(lambda q, w, b, phi=phi: propagation.length_map(q, phi, w, b), Q, W, B)


@rule("propagation.length_slope")
def length_slope() -> None:
    for phi in PHI:
        elementwise(lambda q, w, phi=phi: propagation.length_slope(q, phi, w), Q, W)


@rule("propagation.chi")
def chi() -> None:
    for phi in PHI:
        elementwise(lambda q, w, phi=phi: propagation.chi(q, phi, w), Q, W)


@rule("propagation.fixed_point")
def fixed_point() -> None:
    for phi in PHI:
        elementwise(lambda w, b, phi=phi: propagation.fixed_point(phi, w, b), W, B)


@rule("propagation.correlation_map")
def correlation_map() -> None:
    for phi in PHI:
        elementwise(lambda c, q, w, b, phi=phi: propagation.correlation_map(c, q, phi, w, b), C, Q, W, B)


@rule("propagation.correlation_slope")
def correlation_slope() -> None:
    for phi in PHI:
        elementwise(lambda c, q, w, phi=phi: propagation.correlation_slope(c, q, phi, w), C, Q, W)


@rule("propagation.correlation_fixed_point")
def correlation_fixed_point() -> None:
    elementwise(lambda w, b: propagation.correlation_fixed_point("tanh", w, b), W, B)


@rule("propagation.depth_scales")
def depth_scales() -> None:
    elementwise(lambda w, b: tuple(propagation.depth_scales("tanh", w, b)), W, B)


@rule("propagation.edge_of_chaos")
def edge_of_chaos() -> None:
    elementwise(lambda b: propagation.edge_of_chaos("relu", b), B[1:3])


@rule("propagation.phase_diagram")
def phase_diagram() -> None:
    w, b = np.array([0.5, 2.0]), np.array([0.1, 0.5])
    whole = propagation.phase_diagram("relu", w, b)
    for row, column in np.ndindex(2, 2):
        alone = propagation.phase_diagram("relu", w[column : column + 1], b[row : row + 1])
        for name in ("q", "chi", "c", "xi_q", "xi_c"):
            np.testing.assert_array_equal(getattr(whole, name)[row, column], getattr(alone, name)[0, 0], err_msg=name)


def signals() -> tuple[dln.Weights, np.ndarray, np.ndarray, list[np.ndarray]]:
    x = np.stack([(0.3 + i) * rng(40, i).normal(size=N_IN) for i in range(BATCH)])
    biases = [rng(41, k).normal(size=(BATCH, w.shape[1])) for k, w in enumerate(starts().layers)]
    return starts(), x, np.linspace(0.5, 2.0, BATCH), biases


@rule("propagation.propagate")
def propagate() -> None:
    weights, x, gain, biases = signals()
    samples = np.stack([x, -0.5 * x[::-1]], axis=1)
    for given in (x, samples):
        whole = propagation.propagate(weights, given, "tanh", gain=gain, biases=biases)
        for i in range(BATCH):
            alone = propagation.propagate(
                weights[i], given[i : i + 1], "tanh", gain=gain[i], biases=[b[i] for b in biases]
            )
            for name in ("x", "overlap", "q", "correlation"):
                same(getattr(whole, name)[i : i + 1], getattr(alone, name), f"{name}, {i}", 1e-14)


@rule("propagation.jacobian")
def jacobian() -> None:
    weights, x, gain, biases = signals()
    for function in (propagation.jacobian, propagation.jacobian_singular_values):
        whole = function(weights, x, "tanh", gain=gain, biases=biases)
        by_member(
            whole,
            lambda i, f=function: f(weights[i], x[i : i + 1], "tanh", gain=gain[i], biases=[b[i] for b in biases]),
            "",
            rtol=1e-13,
        )


STACKS["propagation.jacobian_singular_values"] = jacobian


@rule("spectra.singular_values")
def singular_values() -> None:
    matrices = np.stack([10.0 ** (-40 * i) * rng(50, i).normal(size=(4, 7)) for i in range(BATCH)])
    matrices[2] = 0.0
    matrices[4, :, 1:] = 0.0
    by_member(spectra.singular_values(matrices), lambda i: spectra.singular_values(matrices[i : i + 1]), "")


def same_spectrum(whole: Any, alone: Any, i: int) -> None:
    for field in dataclasses.fields(whole):
        a, b = getattr(whole, field.name), getattr(alone, field.name)
        assert (a is None) == (b is None)
        if a is not None:
            same(a[i : i + 1], b, f"{field.name}, {i}")


@rule("spectra.product_spectrum")
def product_spectrum() -> None:
    layers = [np.stack([(0.2 + i) * rng(51, k, i).normal(size=(4, 4)) for i in range(BATCH)]) for k in range(30)]
    layers[3][2] = 0.0
    whole = spectra.product_spectrum(layers, eigenvalues=True)
    for i in range(BATCH):
        same_spectrum(whole, spectra.product_spectrum([w[i] for w in layers], eigenvalues=True), i)


@rule("spectra.random_product_spectrum")
def random_product_spectrum() -> None:
    for kind in ("gaussian", "orthogonal"):
        whole = spectra.random_product_spectrum(kind, 4, 20, batch=BATCH, seed=3, eigenvalues=True)
        for i in range(BATCH):
            same_spectrum(whole, spectra.random_product_spectrum(kind, 4, 20, first=i, seed=3, eigenvalues=True), i)


@pytest.mark.parametrize("name", sorted(STACKS))
def test_a_stack_is_its_members(name: str) -> None:
    STACKS[name]()
