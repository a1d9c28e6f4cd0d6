"""A run that diverged is never called completed, whatever is drawn or recorded, wherever the last step falls."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ensembles import some_task, starts

import pydln as dln
from pydln._base import backend
from pydln.quantities import QUANTITIES

LAYOUTS = ("interleaved", "rows")
ALL = tuple(QUANTITIES)
FINE = (dln.Status.COMPLETED, dln.Status.REACHED_LOSS, dln.Status.REACHED_STRENGTH, dln.Status.STEADY)


def numbers(run: dln.Trajectory, i: int) -> Iterator[np.ndarray]:
    """Everything that member i recorded or ended with."""
    for name in run.names:
        yield from (w[i] for w in run.weights) if name == "weights" else [getattr(run, name)[i]]
    if run.final is not None:
        yield from (w[i] for w in run.final.layers)


def assert_honest(run: dln.Trajectory, loss_of: Any, who: object) -> int:
    """Success means finite: what was recorded, the weights, and their loss in the precision of the run."""
    lost = 0
    for i in range(run.batch):
        if run.status[i] not in FINE:
            lost += 1
            continue
        early = run.status[i] != dln.Status.COMPLETED
        for a in numbers(run, i):
            assert not np.isinf(a).any(), (who, i)
            assert early or not np.isnan(a).any(), (who, i)
        assert loss_of is None or np.isfinite(loss_of(run, i)), (who, i)
    return lost


def final_loss(task: dln.Task) -> Any:
    """The loss that is left, as the run would have recorded it."""

    def of(run: dln.Trajectory, i: int) -> float:
        own = task if task.batch is None else task[i]
        return float(dln.gradient_descent(own, run.final[i], lr=1.0, steps=0, throw=False, reduce="none").loss[0, 0])

    return of


WIDTHS = ((4, 6, 3), (3, 3), (4, 5, 5, 2), (11, 14, 3))
RATES = np.array([0.3, 0.8, 2.0, 20.0, 1e4])  # from slow to at once


def exploding(widths: tuple[int, ...], dtype: str) -> tuple[dln.Task, dln.Weights]:
    rng = np.random.default_rng(widths)
    x, y = 3 * rng.normal(size=(12, widths[0])), rng.normal(size=(12, widths[-1]))
    task = dln.Task.from_data(x, y, keep_samples=True, X_test=x + 1, Y_test=y)
    return task, starts(widths, len(RATES)).astype(dtype)


DRAWN = {
    "nothing": {},
    "minibatches": {"noise": dln.Minibatch(2, seed=1)},
    "shuffled": {"noise": dln.Minibatch(5, seed=1, replace=False, label_noise=0.1)},
    "online": {"noise": dln.Online(1, seed=1)},
    "labels": {"noise": dln.LabelNoise(0.5, seed=1)},
    "momentum": {"momentum": 0.9, "nesterov": True},
    "decay": {"weight_decay": 0.5},
}
STEPS = (1, 2, 3, 4, 5, 6, 7, 9, 12, 17, 31, 32, 33, 40)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_descent(widths, drawn, dtype, layout) -> None:
    """Every number of steps up to where all have gone: the last one may be the one that overflows."""
    task, weights = exploding(widths, dtype)
    lost = []
    with backend.forced(layout=layout):
        for steps in STEPS:
            for record, at in (((), [0]), (("strengths",), [0]), (("weights",), [steps]), (ALL, [0, steps])):
                run = dln.gradient_descent(
                    task,
                    weights,
                    lr=RATES,
                    steps=steps,
                    record=record,
                    at=at,
                    throw=False,
                    reduce="none",
                    **DRAWN[drawn],
                )
                lost.append(assert_honest(run, final_loss(task), (steps, record)))
    assert min(lost) < max(lost)


@pytest.mark.parametrize("reduce", ["auto", "inputs", "width", ("inputs", "width"), "decoupled"], ids=str)
def test_reduced_descent(reduce) -> None:
    if reduce == "decoupled":
        task = dln.Task.from_spectrum([3.0, 1.0], 4, 3, seed=0)
        weights = dln.init.aligned(task, depth=3, strength=np.linspace(0.1, 4.0, len(RATES)))
    else:
        task, weights = some_task(4, 3, whiten=False), starts((4, 12, 3), len(RATES))
    lost = []
    for steps, rates in itertools.product(STEPS, ({}, {"momentum": 0.5, "weight_decay": 0.1})):
        for record, at in (((), [0]), (("strengths",), [0, steps]), (("loss", "product"), [steps])):
            run = dln.gradient_descent(
                task, weights, lr=RATES, steps=steps, record=record, at=at, throw=False, reduce=reduce, **rates
            )
            lost.append(assert_honest(run, final_loss(task), (steps, record)))
    assert max(lost) >= 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_members_diverge_whatever_is_recorded(layout) -> None:
    task, weights = exploding((4, 6, 3), "f8")
    with backend.forced(layout=layout):
        wanted = dln.gradient_descent(task, weights, lr=RATES, steps=40, record_every=1, throw=False).status
        assert (wanted == dln.Status.DIVERGED).any()
        for record in ((), *((name,) for name in ALL), ALL):
            for when in ({"at": [0]}, {"at": [40]}, {"record_every": 3}):
                run = dln.gradient_descent(task, weights, lr=RATES, steps=40, record=record, throw=False, **when)
                np.testing.assert_array_equal(run.status, wanted, err_msg=f"{record}, {when}")


@pytest.mark.parametrize("activation", ["linear", "relu", "softplus"])
@pytest.mark.parametrize("size", [None, 3])
def test_nonlinear(activation, size) -> None:
    rng = np.random.default_rng(0)
    x, y = 5 * rng.normal(size=(8, 4)), rng.normal(size=(8, 3))
    weights = starts((4, 6, 3), len(RATES))

    def loss(run: dln.Trajectory, i: int) -> float:
        again = dln.train_nonlinear(x, y, run.final[i], activation=activation, lr=1.0, steps=0, throw=False)
        return float(again.loss[0, 0])

    lost = []
    names = ("loss", "test_loss", "strengths", "layer_norms", "drift", "weights")
    for steps in STEPS:
        for record, at in (((), [0]), (("strengths",), [0]), (names, [0, steps])):
            run = dln.train_nonlinear(
                x, y, weights, activation=activation, lr=RATES, steps=steps, record=record, at=at, batch_size=size,
                x_test=x, y_test=y, throw=False,
            )  # fmt: skip
            lost.append(assert_honest(run, loss, (steps, record)))
    assert max(lost) >= 2


def flows() -> dict[str, Any]:
    task, weights = some_task(4, 3, whiten=False), starts((4, 6, 5, 3), 3, scale=1.5)
    maps = 1.5 * np.random.default_rng(0).normal(size=(3, 3, 4))
    a = np.random.default_rng(1).uniform(1.0, 3.0, size=(3, 2, 4))

    def whole(t, record, **how):
        return dln.gradient_flow(task, weights, t, record=record, reduce="none", **how)

    def width(t, record, **how):
        names = tuple(n for n in record if n != "kernel_distance")
        return dln.gradient_flow(task, starts((4, 12, 3), 3, scale=1.5), t, record=names, reduce="width", **how)

    def of_maps(verb, depth):
        def run(t, record, **how):
            names = tuple(n for n in record if n in ("loss", "test_loss", "strengths", "product"))
            made = verb(task, maps, t, depth=depth, record=names, **how)
            return made if isinstance(made, dln.Trajectory) else made.trajectory

        return run

    def modes(t, record, **how):
        return dln.mode_flow([2.0, 1.0], a, t, **how)

    return {
        "gradient_flow": whole,
        "gradient_flow, width": width,
        "end_to_end_flow, one layer": of_maps(dln.end_to_end_flow, 1),
        "end_to_end_flow": of_maps(dln.end_to_end_flow, 3),
        "singular_flow": of_maps(dln.singular_flow, 3),
        "mode_flow": modes,
    }


@pytest.mark.parametrize("verb", flows())
def test_flows_that_may_not_take_the_steps_they_need(verb) -> None:
    """A member that was given up is an error, unless the caller wants the others."""
    ended = set()
    for end, most in ((5.0, 1), (5.0, 2), (5.0, 5), (1e4, 100)):
        t = [0.0, 1e-3, end]
        run = flows()[verb](t, ("loss",), max_steps=most, throw=False)
        ended |= set(run.status.tolist())
        if assert_honest(run, None, most):
            with pytest.raises(dln.IntegrationError) as error:
                flows()[verb](t, ("loss",), max_steps=most)
            np.testing.assert_array_equal(error.value.trajectory.status, run.status)
        else:
            flows()[verb](t, ("loss",), max_steps=most)
    assert dln.Status.STEP_LIMIT in ended


STRIDES = (0.05, 0.4, 1.0, 3.0, 1e80)  # of a method with steps of fixed length: too long from the third on


@pytest.mark.parametrize("verb", flows())
def test_flows_whose_last_step_is_too_long(verb) -> None:
    run_of = flows()[verb]
    lost = []
    with np.errstate(all="ignore"):
        for stride, steps in itertools.product(STRIDES, range(1, 7)):
            for record in ((), ("strengths",), ALL):
                t = [steps * stride]
                run = run_of(t, record, method="rk4", step=stride, throw=False)
                lost.append(assert_honest(run, None, (stride, steps, record)))
    assert max(lost) >= 1


def test_exact_solutions_at_any_time() -> None:
    """The largest times that there are: the end of the flow, or a refusal."""
    task = dln.Task.from_spectrum([2.0, 1.0], 4, 3, seed=1)
    maps = 0.2 * np.random.default_rng(0).normal(size=(2, 3, 4))
    cases = {
        "one layer": (some_task(4, 3, whiten=False), starts((4, 3), 2)),
        "aligned, two layers": (
            task,
            dln.init.aligned(task, depth=2, layer_strengths=[[0.2, 0.5], [0.7, 0.1]]),
        ),
        "balanced, two layers": (task, dln.init.lambda_balanced(maps, imbalance=0.3, width=3)),
        "aligned and balanced": (task, dln.init.aligned(task, depth=3, strength=0.1)),
    }
    for name, (of, weights) in cases.items():
        solution = dln.exact.solve(of, weights)
        assert solution.name == name
        record = tuple(n for n in ALL if n != "test_loss" or of.test is not None)
        for t in (1e3, 1e10, 1e100, 1e300, 1e308):
            run = solution.evaluate([0.0, t], record=record)
            assert_honest(run, None, (name, t))
