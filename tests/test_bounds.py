"""Bounds of arguments from both sides: the last value that is taken, and the first that is refused, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ensembles import some_task, starts

import pydln as dln
from pydln import exact, init, plot, propagation, spectra

TASK = dln.Task.from_spectrum([2.0, 1.0], 3, 2, seed=0)
SAMPLED = dln.Task.from_data(
    np.random.default_rng(0).normal(size=(7, 3)), np.random.default_rng(1).normal(size=(7, 2)), keep_samples=True
)
WEIGHTS = starts((3, 4, 2), 2)
TINY = np.nextafter(0.0, 1.0)
BELOW_0, BELOW_1, ABOVE_1 = -TINY, np.nextafter(1.0, 0.0), np.nextafter(1.0, 2.0)
MAPS = 0.1 * np.ones((2, 3))


def descend(**options: Any) -> Any:
    return dln.gradient_descent(SAMPLED, WEIGHTS, **{"lr": 0.01, "steps": 3, "throw": False, **options})


def flow(**options: Any) -> Any:
    return dln.gradient_flow(TASK, WEIGHTS, [0.0, 1e-3], throw=False, **options)


def modes(**options: Any) -> Any:
    return dln.mode_flow([1.0, 2.0], [[0.3, 0.5], [0.2, 0.1]], [0.0, 0.1], throw=False, **options)


def nonlinear(**options: Any) -> Any:
    given = {"lr": 0.01, "steps": 3, **options}
    return dln.train_nonlinear(SAMPLED.data.X, SAMPLED.data.Y, WEIGHTS, **given)


def pretrain(**options: Any) -> Any:
    return dln.pretrain(TASK, (3, 2, 2), **{"lr": 0.01, "steps": 2, **options})


def noisy(kind: type, *arguments: Any, **options: Any) -> Any:
    return descend(noise=kind(*arguments, **options))


EPS = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)
NEXT32 = float(np.nextafter(np.float32(1), np.float32(0)))

BOUNDS: dict[str, tuple[Callable[[Any], Any], Any, Any, str]] = {
    # what: call, allowed, refused, the argument named
    "lr": (lambda v: descend(lr=v), TINY, 0.0, "lr"),
    "lr of a member": (lambda v: descend(lr=[0.1, v]), TINY, 0.0, "lr"),
    "lr in float32": (
        lambda v: dln.gradient_descent(TASK, WEIGHTS.astype("f4"), lr=v, steps=1),
        1e-45,
        1e-46,
        "lr",
    ),
    "momentum": (lambda v: descend(momentum=v), 0.0, BELOW_0, "momentum"),
    "momentum, above": (lambda v: descend(momentum=v), BELOW_1, 1.0, "momentum"),
    "momentum in float32": (
        lambda v: dln.gradient_descent(TASK, WEIGHTS.astype("f4"), lr=0.1, steps=1, momentum=v),
        NEXT32,
        BELOW_1,
        "momentum",
    ),
    "weight_decay": (lambda v: descend(weight_decay=v), 0.0, BELOW_0, "weight_decay"),
    "steps": (lambda v: descend(steps=v), 0, -1, "steps"),
    "at, below": (lambda v: descend(at=[v]), 0, -1, "at"),
    "at, above": (lambda v: descend(at=[v]), 3, 4, "at"),
    "at, increasing": (lambda v: descend(at=[1, v]), 2, 1, "at"),
    "record_every": (lambda v: descend(record_every=v), 1, 0, "record_every"),
    "n_threads": (lambda v: descend(n_threads=v), 1, 0, "n_threads"),
    "stop.loss": (lambda v: descend(stop=dln.Stop(loss=v)), 0.0, BELOW_0, "stop.loss"),
    "stop.steady": (lambda v: descend(stop=dln.Stop(steady=v)), 0.0, BELOW_0, "stop.steady"),
    "stop.strengths": (lambda v: descend(stop=dln.Stop(strengths=v)), TINY, 0.0, "stop.strengths"),
    "noise.size": (lambda v: noisy(dln.Minibatch, v), 1, 0, "noise.size"),
    "noise.size, without replacement": (lambda v: noisy(dln.Minibatch, v, replace=False), 7, 8, "noise.size"),
    "noise.size, online": (lambda v: noisy(dln.Online, v), 1, 0, "noise.size"),
    "noise.seed": (lambda v: noisy(dln.Minibatch, 2, seed=v), 0, -1, "noise.seed"),
    "noise.seed, above": (lambda v: noisy(dln.Online, 2, seed=v), 2**64 - 1, 2**64, "noise.seed"),
    "noise.first": (lambda v: noisy(dln.Online, 2, first=v), 0, -1, "noise.first"),
    "noise.first, above": (lambda v: noisy(dln.Online, 2, first=v), 2**32 - 2, 2**32 - 1, "noise.first"),
    "noise.label_noise": (lambda v: noisy(dln.Minibatch, 2, label_noise=v), 0.0, BELOW_0, "noise.label_noise"),
    "noise.std": (lambda v: noisy(dln.LabelNoise, v), 0.0, BELOW_0, "noise.std"),
    "noise.samples": (lambda v: noisy(dln.LabelNoise, 0.1, samples=v), 1, 0, "noise.samples"),
    "t": (lambda v: dln.gradient_flow(TASK, WEIGHTS, [v, 1.0]), 0.0, BELOW_0, "t"),
    "t, increasing": (lambda v: dln.gradient_flow(TASK, WEIGHTS, [0.5, v]), np.nextafter(0.5, 1), 0.5, "t"),
    "rtol": (lambda v: flow(rtol=v), 4 * EPS, np.nextafter(4 * EPS, 0), "rtol"),
    "rtol, with atol": (lambda v: flow(rtol=v, atol=1e-6), 0.0, BELOW_0, "rtol"),
    "rtol in float32": (
        lambda v: dln.gradient_flow(TASK, WEIGHTS.astype("f4"), [0.0, 1e-3], rtol=v, throw=False),
        4 * EPS32,
        np.nextafter(4 * EPS32, 0),
        "rtol",
    ),
    "atol": (lambda v: flow(atol=v), 0.0, BELOW_0, "atol"),
    "step": (lambda v: flow(step=v), 1e-9, 0.0, "step"),
    "max_step": (lambda v: flow(max_step=v), 1e-3, 0.0, "max_step"),
    "max_steps": (lambda v: flow(max_steps=v), 1, 0, "max_steps"),
    "variances": (lambda v: modes(variances=[1.0, v]), 0.0, BELOW_0, "variances"),
    "depth of a map": (lambda v: dln.end_to_end_flow(TASK, MAPS, [0.1], depth=v), 2.0, np.nextafter(2, 0), "depth"),
    "depth of a map, one layer": (lambda v: dln.end_to_end_flow(TASK, MAPS, [0.1], depth=v), 1.0, BELOW_1, "depth"),
    "depth of a map, above one layer": (
        lambda v: dln.end_to_end_flow(TASK, MAPS, [0.1], depth=v),
        1.0,
        ABOVE_1,
        "depth",
    ),
    "depth of singular values": (
        lambda v: dln.singular_flow(TASK, MAPS, [0.1], depth=v),
        2.0,
        np.nextafter(2, 0),
        "depth",
    ),
    "depth of rates": (lambda v: dln.singular_rates(TASK, MAPS, depth=v), 1.0, BELOW_1, "depth"),
    "plan: steps": (lambda v: dln.plan(TASK, WEIGHTS, steps=v), 0, -1, "steps"),
    "batch_size": (lambda v: nonlinear(batch_size=v), 1, 0, "batch_size"),
    "batch_size, without replacement": (lambda v: nonlinear(batch_size=v, replace=False), 7, 8, "batch_size"),
    "nonlinear: seed": (lambda v: nonlinear(batch_size=2, seed=v), 2**64 - 1, 2**64, "seed"),
    "nonlinear: first": (lambda v: nonlinear(batch_size=2, first=v), 2**32 - 2, 2**32 - 1, "first"),
    "nonlinear: lr": (lambda v: nonlinear(lr=v), TINY, 0.0, "lr"),
    "nonlinear: steps": (lambda v: nonlinear(steps=v), 0, -1, "steps"),
    "pretrain: tol": (lambda v: pretrain(tol=v), 0.0, BELOW_0, "tol"),
    "pretrain: tol, above": (lambda v: pretrain(tol=v), BELOW_1, 1.0, "tol"),
    "pretrain: lr": (lambda v: pretrain(lr=v), TINY, 0.0, "lr"),
    "pretrain: steps": (lambda v: pretrain(steps=v), 1, 0, "steps"),
    "pretrain: t": (lambda v: pretrain(lr=None, steps=None, t=v), 1e-9, 0.0, "t"),
    "pretrain: scale": (lambda v: pretrain(scale=v), 1e-9, 0.0, "scale"),
    "pretrain: last_scale": (lambda v: pretrain(last_scale=v), 0.0, BELOW_0, "last_scale"),
    "pretrain: batch": (lambda v: pretrain(batch=v), 1, 0, "batch"),
    "init: widths": (lambda v: init.gaussian((3, v, 2)), 1, 0, "widths"),
    "init: batch": (lambda v: init.gaussian((3, 2), batch=v), 1, 0, "batch"),
    "init: seed": (lambda v: init.gaussian((3, 2), seed=v), 2**64 - 1, 2**64, "seed"),
    "init: first": (lambda v: init.gaussian((3, 2), batch=3, first=v), 2**64 - 3, 2**64 - 2, "first"),
    "init: scale": (lambda v: init.gaussian((3, 2), scale=v), 0.0, BELOW_0, "scale"),
    "init: depth": (lambda v: init.aligned(TASK, depth=v, strength=0.1), 1, 0, "depth"),
    "init: width": (lambda v: init.aligned(TASK, depth=2, width=v, strength=0.1), 2, 1, "width"),
    "init: balanced depth": (lambda v: init.balanced(MAPS, depth=v), 1, 0, "depth"),
    "init: norm": (lambda v: init.product_scaled(WEIGHTS, norm=v), 1e-9, 0.0, "norm"),
    "init: strength": (lambda v: init.product_scaled(WEIGHTS, strength=v, task=TASK), 1e-9, 0.0, "strength"),
    "exact: t": (lambda v: exact.solve(TASK, aligned()).evaluate([v]), 0.0, BELOW_0, "t"),
    "exact: tol": (lambda v: exact.solve(TASK, aligned(), tol=v), 0.0, BELOW_0, "tol"),
    "exact: depth": (lambda v: exact.balanced_mode(0.1, 1.0, 1.0, depth=v), 1.0, BELOW_1, "depth"),
    "exact: scalar t": (lambda v: exact.scalar_mode(0.1, 0.1, 1.0, v), 0.0, BELOW_0, "t"),
    "exact: fraction": (lambda v: exact.escape_time(0.1, 1.0, depth=2, fraction=v), 1e-9, 0.0, "fraction"),
    "exact: fraction, above": (lambda v: exact.escape_time(0.1, 1.0, depth=2, fraction=v), BELOW_1, 1.0, "fraction"),
    "exact: v0": (lambda v: exact.iterations_to_learn(v, 0.5, depth=2), 1e-9, 0.0, "v0"),
    "exact: v": (lambda v: exact.iterations_to_learn(0.1, v, depth=2), BELOW_1, 1.0, "v"),
    "exact: rate": (lambda v: exact.iterations_to_learn(0.1, 0.5, depth=2, rate=v), 1e-9, 0.0, "rate"),
    "exact: sharpness": (lambda v: exact.sharpness(1.0, depth=v), 1.0, BELOW_1, "depth"),
    "exact: floor": (lambda v: exact.saddle_to_saddle(s=[1.0], u0=0.1, depth=2, floor=v), 0.0, BELOW_0, "floor"),
    "task: s": (lambda v: dln.Task.from_spectrum([1.0, v], 3, 2), 0.0, BELOW_0, "s"),
    "task: n_in": (lambda v: dln.Task.from_spectrum([1.0], v, 2), 1, 0, "n_in"),
    "task: n_out": (lambda v: dln.Task.from_spectrum([1.0], 2, v), 1, 0, "n_out"),
    "task: seed": (lambda v: dln.Task.from_spectrum([1.0], 2, 2, seed=v), 0, -1, "seed"),
    "task: trace_yy": (lambda v: dln.Task.from_spectrum([1.0, 2.0], 2, 2, trace_yy=v), 5.0, 4.99, "trace_yy"),
    "task: noise": (lambda v: dln.Task.teacher([1.0], 2, 2, noise=v), 0.0, BELOW_0, "noise"),
    "task: samples": (lambda v: dln.Task.teacher([1.0], 2, 2, samples=v), 1, 0, "samples"),
    "task: levels": (lambda v: dln.Task.hierarchy(levels=v, features=8), 1, 0, "levels"),
    "task: branching": (lambda v: dln.Task.hierarchy(levels=2, branching=v, features=9), 2, 1, "branching"),
    "task: flip": (lambda v: dln.Task.hierarchy(levels=2, flip=v, features=9), 0.0, BELOW_0, "flip"),
    "task: flip, above": (
        lambda v: dln.Task.hierarchy(levels=2, flip=v, features=9),
        0.5,
        np.nextafter(0.5, 1),
        "flip",
    ),
    "task: features": (lambda v: dln.Task.hierarchy(levels=2, features=v), 1, 0, "features"),
    "task: rtol": (lambda v: whitened_data(v), 0.0, BELOW_0, "rtol"),
    "task: rtol, above": (lambda v: whitened_data(v), BELOW_1, 1.0, "rtol"),
    "spectra: n": (lambda v: spectra.random_product_spectrum("gaussian", v, 2), 1, 0, "n"),
    "spectra: depth": (lambda v: spectra.random_product_spectrum("gaussian", 2, v), 1, 0, "depth"),
    "spectra: batch": (lambda v: spectra.random_product_spectrum("gaussian", 2, 2, batch=v), 1, 0, "batch"),
    "spectra: scale": (lambda v: spectra.random_product_spectrum("gaussian", 2, 2, scale=v), 1e-9, 0.0, "scale"),
    "spectra: first": (lambda v: spectra.random_product_spectrum("gaussian", 2, 2, first=v), 0, -1, "first"),
    "spectra: rounding": (lambda v: spectra.compare([1.0], spectra.Disk(1), rounding=v), 0.0, BELOW_0, "rounding"),
    "law: moment": (lambda v: spectra.Disk(1).moment(v), 0, -1, "k"),
    "law: disk depth": (lambda v: spectra.Disk(v), 1, 0, "depth"),
    "law: disk scale": (lambda v: spectra.Disk(1, scale=v), 1e-9, 0.0, "scale"),
    "law: Fuss-Catalan depth": (lambda v: spectra.FussCatalan(v), 1e-3, 0.0, "depth"),
    "law: Fuss-Catalan scale": (lambda v: spectra.FussCatalan(1, scale=v), 1e-9, 0.0, "scale"),
    "law: orthogonal depth": (lambda v: spectra.Orthogonal(v), 1, 0, "depth"),
    "law: Marchenko-Pastur ratio": (lambda v: spectra.MarchenkoPastur(v), 1e-9, 0.0, "ratio"),
    "law: Marchenko-Pastur variance": (lambda v: spectra.MarchenkoPastur(1.0, variance=v), 1e-9, 0.0, "variance"),
    "law: teacher": (lambda v: spectra.MarchenkoPastur(1.0).outlier(v), 0.0, BELOW_0, "teacher"),
    "law: Jacobian depth": (lambda v: spectra.JacobianLaw("relu", depth=v, sigma_w=1.0), 1, 0, "depth"),
    "propagation: c": (lambda v: propagation.correlation_map(v, 1.0, "tanh", 1.0, 0.0), 1.0, ABOVE_1, "c"),
    "propagation: c, below": (lambda v: propagation.correlation_map(v, 1.0, "tanh", 1.0, 0.0), -1.0, -ABOVE_1, "c"),
    "propagation: q": (lambda v: propagation.length_map(v, "tanh", 1.0, 0.0), 0.0, BELOW_0, "q"),
    "propagation: sigma_w": (lambda v: propagation.length_map(1.0, "tanh", v, 0.0), 0.0, BELOW_0, "sigma_w"),
    "propagation: sigma_b": (lambda v: propagation.length_map(1.0, "tanh", 1.0, v), 0.0, BELOW_0, "sigma_b"),
    "propagation: start": (lambda v: propagation.fixed_point("tanh", 1.5, 0.1, start=v), 1e-150, 1e-151, "start"),
    "propagation: gain": (lambda v: propagation.propagate(WEIGHTS, np.ones(3), "tanh", gain=v), 0.0, BELOW_0, "gain"),
    "propagation: variance": (lambda v: propagation.gaussian_mean(np.tanh, v), 0.0, BELOW_0, "variance"),
}


def aligned() -> dln.Weights:
    return init.aligned(TASK, depth=2, strength=0.1)


def whitened_data(rtol: float) -> dln.Task:
    return dln.Task.from_data(SAMPLED.data.X, SAMPLED.data.Y, whiten=True, rtol=rtol)


DRAWN_BOUNDS: dict[str, tuple[Callable[[Any], Any], Any, Any, str]] = {
    "plot: most": (lambda v: plot.consistency(some_task(3, 2, whiten=False), most=v), 1, 0, "most"),
    "plot: depth": (lambda v: plot.learning_time([v], [3.0]), TINY, 0.0, "depth"),
    "plot: s": (lambda v: plot.phase_portrait(s=v), 1e-3, 0.0, "s"),
    "plot: reach": (lambda v: plot.phase_portrait(reach=v), 1e-3, 0.0, "reach"),
    "plot: bins": (lambda v: plot.spectrum([0.0, 1.0], bins=v), 1, 0, "bins"),
    "plot: bins, above": (lambda v: plot.spectrum([0.0, 1.0], bins=v), 100_000, 100_001, "bins"),
    "plot: radius": (lambda v: plot.eigenvalues([1.0 + 1j], radius=v), 1e-9, 0.0, "radius"),
    "plot: modes": (lambda v: plot.strengths(flow(), modes=v), 1, 2, "modes"),
    "plot: modes, from the end": (lambda v: plot.strengths(flow(), modes=v), -2, -3, "modes"),
    "plot: gains": (lambda v: plot.length_map("tanh", v), 0.0, BELOW_0, "sigma_w"),
    "plot: largest": (lambda v: plot.length_map("tanh", 1.0, largest=v), 1e-3, 0.0, "largest"),
    "plot: steps": (lambda v: plot.length_map("tanh", 1.0, start=0.5, steps=v), 1, 0, "steps"),
    "plot: start": (lambda v: plot.length_map("tanh", 1.0, start=v), 0.0, BELOW_0, "start"),
    "plot: values": (lambda v: plot.jacobian_grid({"a": [[[v]]]}, [1.0], [1.0]), 0.0, BELOW_0, "singular_values"),
}


def check(call: Callable[[Any], Any], allowed: Any, refused: Any, name: str) -> None:
    call(allowed)
    with pytest.raises(ValueError, match=rf"^{re.escape(name)}\b"):
        call(refused)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("what", BOUNDS)
def test_bounds(what: str) -> None:
    check(*BOUNDS[what])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("what", DRAWN_BOUNDS)
def test_bounds_of_plots(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    if "bins" in what:  # a hundred thousand of them take seconds to draw
        monkeypatch.setattr("matplotlib.axes.Axes.stairs", lambda *_, **__: None)
    try:
        check(*DRAWN_BOUNDS[what])
    finally:
        plt.close("all")
