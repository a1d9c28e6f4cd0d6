"""pydln.plan tells what gradient_descent does."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from ensembles import some_task, starts

import pydln as dln
from pydln._base import backend


def test_layout_follows_the_measured_rates() -> None:
    for widths, batch, layout in (
        ((4, 4, 4), 4096, "interleaved"),
        ((16,) * 6, 512, "interleaved"),
        ((128,) * 4, 64, "rows"),
        ((128,) * 3, 1, "rows"),
        ((16,) * 6, 1, "rows"),  # one network leaves lanes empty
    ):
        told = dln.plan(dln.Task.from_spectrum([2.0], widths[0], widths[-1]), starts(widths, batch), reduce="none")
        (part,) = told.parts
        assert part.layout == layout
        assert (part.layout == "rows") == (part.expected["rows"] > part.expected["interleaved"])
        assert told.isa == backend.isa()
        assert part.members == batch


def test_work_and_side() -> None:
    """MNIST-like: 3 products per layer from the narrow side and the residual (theory: performance of G7a)."""
    widths = (784, 1000, 1000, 10)
    task = dln.Task.from_spectrum([2.0], 784, 10)
    weights = dln.Weights([np.ones((n, m), dtype=np.float32) for m, n in itertools.pairwise(widths)])
    told = dln.plan(task, weights, reduce="none")
    (part,) = told.parts
    assert part.carried == "outputs"
    assert part.flops == told.given_flops == 2 * (3 * 10 * (784 * 1000 + 1000 * 1000) + 784 * 10)
    assert part.bytes == 3 * 4 * (784 * 1000 + 1000 * 1000 + 10 * 1000)
    assert part.workspace > 4 * (784 * 1000 + 1000 * 1000 + 10 * 1000)
    assert "rows" in str(told)
    assert "Mflop" in str(told)


def test_reductions_are_those_of_the_run() -> None:
    task = some_task(6, 4, whiten=True)
    weights = starts((6, 64, 4), 5)
    told = dln.plan(task, weights)
    run = dln.gradient_descent(task, weights, lr=0.01, steps=10_000)
    (part,) = told.parts
    assert part.reduced == ("width",)
    assert run.reduced == (("width",),) * 5
    assert part.widths == (6, 10, 4)
    assert part.flops < told.given_flops
    assert "10 of 64" in str(told)
    aligned = dln.init.aligned(task, depth=3, width=8, strength=0.01)
    (modes,) = dln.plan(task, aligned).parts
    assert (modes.reduced, modes.networks, modes.widths) == (("decoupled",), 4, (1, 1, 1, 1))
    assert dln.plan(task, aligned, stop=dln.Stop(loss=0.1)).parts[0].reduced != ("decoupled",)


def _options(rng):
    """Arguments of `gradient_descent` as they meet: what is recorded, drawn, waited for, how long, reduced how."""
    records = ("loss", "test_loss", "strengths", "product", "layer_norms", "kernel_distance", "drift", "weights")
    some = tuple(np.array(records)[rng.random(len(records)) < (0.2 if rng.random() < 0.7 else 0.6)])
    options = {"record": some, "steps": int(rng.choice([0, 3, 50, 400])), "lr": 1e-3}
    if rng.random() < 0.3:
        options["lr"] = np.full(3, 1e-3)
    if rng.random() < 0.3:
        options |= {"momentum": 0.5, "nesterov": bool(rng.random() < 0.5)}
    if rng.random() < 0.3:
        options["weight_decay"] = 0.1
    if rng.random() < 0.3:
        options["noise"] = dln.Online(4, seed=1)
    if rng.random() < 0.4:
        kind = str(rng.choice(["loss", "strengths", "steady"]))
        options["stop"] = dln.Stop(**{kind: {"loss": 1e-3, "strengths": 50.0, "steady": 1e-12}[kind]})
    options["reduce"] = [*["auto"] * 6, "none", "width", "inputs", "decoupled", ("inputs", "width")][rng.integers(11)]
    return options


@pytest.mark.parametrize("seed", range(60))
def test_what_is_planned_is_what_is_run(seed) -> None:
    """Of every combination of options: the same members reduced in the same ways, or the same refusal."""
    rng = np.random.default_rng(seed)
    n_in, n_out = int(rng.integers(3, 30)), int(rng.integers(2, 6))
    task = some_task(n_in, n_out, whiten=bool(rng.random() < 0.5), seed=seed)
    depth, width = int(rng.integers(1, 5)), int(rng.choice([n_in + 2, 60]))
    widths = (n_in, *[width] * (depth - 1), n_out)
    start = [
        lambda: starts(widths, 3, seed=seed),
        lambda: dln.init.aligned(task, depth=depth, width=width, strength=0.01, batch=3),
        lambda: dln.init.gaussian(widths, batch=3, scale=0.3),
        lambda: dln.init.orthogonal(widths, batch=1),
    ][rng.integers(4)]()
    options = _options(rng)
    try:
        run = dln.gradient_descent(task, start, **options)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            dln.plan(task, start, **options)
        return
    told = dln.plan(task, start, **options)
    assert sum(part.members for part in told.parts) == run.batch
    planned = Counter({})
    for part in told.parts:
        planned[part.reduced] += part.members
    assert planned == Counter(run.reduced)
    for why in ("noise", "kernel_distance"):
        if why in (*options, *options["record"]) and options["reduce"] == "auto":
            assert not any(part.reduced for part in told.parts)
            assert f"not with {why}" in str(told) or "not with noise" in str(told)


def test_mistakes() -> None:
    task, weights = some_task(6, 4, whiten=True), starts((6, 5, 4), 2)
    with pytest.raises(TypeError, match=r"task: expected a pydln.Task, got int"):
        dln.plan(3, weights)
    with pytest.raises(TypeError, match=r"weights: expected pydln.Weights, got list"):
        dln.plan(task, [])
    with pytest.raises(ValueError, match=r"weights: expected 6 inputs and 4 outputs like the task, got 4 and 6"):
        dln.plan(task, starts((4, 5, 6)))
    with pytest.raises(ValueError, match=r"steps: expected"):
        dln.plan(task, weights, steps=-1)
