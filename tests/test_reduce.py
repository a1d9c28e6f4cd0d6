"""Exact reductions: the run of the smaller networks is the run of the whole ones, in everything that is recorded."""

from __future__ import annotations

import itertools
import pickle
import sys

import numpy as np
import pytest
import reference
from ensembles import RECORDS, same_bits, some_task, starts
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pydln as dln
from pydln import reduce as reductions
from pydln._base.patience import patiently
from pydln.simulate import loop

EPS = np.finfo(np.float64).eps
RATES = (
    {},
    {"momentum": 0.7},
    {"weight_decay": 0.05},
    {"momentum": 0.5, "weight_decay": 0.02},
)


def low_rank(widths, rank, batch=1, *, seed=0, dtype=np.float64, ends=False) -> dln.Weights:
    """Hidden layers that move in `rank` directions each: every layer between two random frames."""
    rng = np.random.default_rng((seed, rank, *widths))
    frames = [np.linalg.qr(rng.normal(size=(batch, n, min(n, rank))))[0] for n in widths[1:-1]]
    ranks = [widths[0], *(f.shape[-1] for f in frames), widths[-1]]
    eyes = [np.broadcast_to(np.eye(n), (batch, n, n)) for n in (widths[0], widths[-1])]
    frames = [eyes[0], *frames, eyes[1]]
    layers = []
    for k in range(len(widths) - 1):
        core = rng.normal(size=(batch, ranks[k + 1], ranks[k])) / np.sqrt(ranks[k])
        layers.append((frames[k + 1] @ core @ np.swapaxes(frames[k], 1, 2)).astype(dtype))
    return dln.Weights(layers)


def orthogonal(widths, batch=1, *, seed=0, dtype=np.float64) -> dln.Weights:
    """Scaled orthogonal hidden-to-hidden matrices, any ends."""
    rng = np.random.default_rng((seed, *widths))
    layers = [rng.normal(size=(batch, widths[1], widths[0])) / np.sqrt(widths[1])]
    for _ in widths[2:-1]:
        q = np.linalg.qr(rng.normal(size=(batch, widths[1], widths[1])))[0]
        layers.append(rng.uniform(0.8, 1.2, size=(batch, 1, 1)) * q)
    layers.append(rng.normal(size=(batch, widths[-1], widths[-2])) / np.sqrt(widths[-2]))
    return dln.Weights([w.astype(dtype) for w in layers])


def thin_task(n_in, n_out, rank, *, seed=0, held_out=True) -> dln.Task:
    """Inputs of `rank` < n_in directions, as pictures with dead pixels have, test data that live there or do not."""
    rng = np.random.default_rng((seed, n_in, n_out, rank))
    directions = rng.normal(size=(rank, n_in)) / np.sqrt(n_in)
    teacher = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in)

    def draw(count):
        x = rng.normal(size=(count, rank)) @ directions
        return x, x @ teacher.T + 0.2 * rng.normal(size=(count, n_out))

    x, y = draw(4 * n_in)
    x_test, y_test = draw(2 * n_in)
    if held_out == "elsewhere":
        x_test = x_test + 0.3 * rng.normal(size=x_test.shape)
    return dln.Task.from_data(x, y, **({"X_test": x_test, "Y_test": y_test} if held_out else {}))


def assert_same_run(a, b, *, rtol=1e-12, moved=None) -> None:
    """Every record of every member within `rtol` of its largest entry over the run, the ends alike.

    `moved`: the run `b` from starts that rounding moved. No two ways to compute it agree better than that, so ten times
    the distance to it is allowed as well.
    """
    moved = b if moved is None else moved
    assert a.names == b.names
    np.testing.assert_array_equal(a.status, b.status)
    np.testing.assert_array_equal(a.stopped_step, b.stopped_step)
    np.testing.assert_array_equal(a.t, b.t)
    for name in a.names:
        values = [getattr(run, name) for run in (a, b, moved)]
        for p, q, r in zip(*(values if name == "weights" else ((v,) for v in values)), strict=True):
            close(p, q, r, rtol, name)
    for k, layers in enumerate(zip(a.final.layers, b.final.layers, moved.final.layers, strict=True)):
        close(*layers, rtol, f"final W_{k + 1}")


def close(p, q, r, rtol, name) -> None:
    assert p.shape == q.shape
    assert p.dtype == q.dtype
    np.testing.assert_array_equal(np.isnan(p), np.isnan(q), err_msg=name)
    for i in range(len(p)):
        good = np.isfinite(q[i])
        largest = np.abs(q[i][good]).max(initial=0.0)
        # The drift of conserved quantities is a difference of numbers of order 1.
        largest = max(largest, 1.0) if name == "drift" else largest
        error = np.abs(p[i][good] - q[i][good]).max(initial=0.0)
        allowed = max(rtol * largest, 10 * np.abs(r[i][good] - q[i][good]).max(initial=0.0))
        assert error <= allowed, f"{name} of member {i}: {error:.3g} off, of {largest:.3g}"


def both(task, weights, *, reduce="auto", record=RECORDS, steps=2000, lr=0.02, rtol=1e-12, moved=None, **arguments):
    arguments = {"lr": lr, "steps": steps, "record": record, "throw": False, **arguments}
    if task.test is None:
        arguments["record"] = tuple(n for n in arguments["record"] if n != "test_loss")
    small = dln.gradient_descent(task, weights, reduce=reduce, **arguments)
    whole = dln.gradient_descent(task, weights, reduce="none", **arguments)
    assert whole.reduced == ((),) * whole.batch
    moved = None if moved is None else dln.gradient_descent(task, moved, reduce="none", **arguments)
    assert_same_run(small, whole, rtol=rtol, moved=moved)
    return small, whole


# ---- the specification ------------------------------------------------------------------------------------------


def test_width_compression_in_plain_numpy() -> None:
    """theory.md section 3, by the reference alone: within span[W_1, W_2ᵀ] the layers take the same steps."""
    task = some_task(3, 2, whiten=False)
    layers = [w[0] for w in starts((3, 11, 2)).layers]
    P = np.linalg.qr(np.concatenate([layers[0], layers[1].T], axis=1))[0]
    arguments = {
        "sigma_xx": task.sigma_xx,
        "sigma_yx": task.sigma_yx,
        "trace_yy": task.trace_yy,
        "U": task.modes.U,
        "V": task.modes.V,
        "lr": 0.05,
        "steps": 100,
        "at": range(101),
        "momentum": 0.5,
        "weight_decay": 0.1,
    }
    whole = reference.descent(layers, **arguments)
    small = reference.descent([P.T @ layers[0], layers[1] @ P], **arguments)
    for name in ("loss", "strengths", "product", "layer_norms", "drift"):
        np.testing.assert_allclose(small.records[name], whole.records[name], atol=1e-13)
    np.testing.assert_allclose(P @ small.layers[0], whole.layers[0], atol=1e-14)
    run = dln.gradient_descent(
        task,
        dln.Weights(layers),
        lr=0.05,
        steps=100,
        momentum=0.5,
        weight_decay=0.1,
        record=RECORDS,
        record_every=1,
        reduce="width",
    )
    assert run.reduced == (("width",),)
    for name in ("loss", "strengths", "product", "layer_norms", "drift"):
        np.testing.assert_allclose(getattr(run, name)[0], whole.records[name], atol=1e-13)


def test_decay_of_what_no_gradient_reaches() -> None:
    lr, mu, w = np.array([0.1, 0.1, 0.05, 0.3]), np.array([0.0, 0.9, 0.5, 0.99]), np.array([0.0, 0.1, 0.3, 0.2])
    steps = np.array([0, 1, 2, 3, 17, 64, 1000])
    for nesterov in (False, True):
        got = reductions.decay.Decay(lr, mu, w, nesterov).factors(steps)
        for i in range(4):
            c, v, expected = 1.0, 0.0, []
            for step in range(1001):
                if step in steps:
                    expected.append(c)
                slope = -w[i] * c
                v = mu[i] * v + slope
                c = c + lr[i] * (mu[i] * v + slope if nesterov else v)
            np.testing.assert_allclose(got[i], expected, rtol=1e-12, atol=1e-14)


# ---- width ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", RATES, ids=str)
@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
@pytest.mark.parametrize("widths", [(3, 11, 2), (1, 40, 1), (5, 9, 3), (2, 64, 7)], ids=str)
def test_two_layers_from_any_start(widths, whiten, rates) -> None:
    task = some_task(widths[0], widths[-1], whiten=whiten)
    run, _ = both(task, starts(widths, 4, scale=0.6), reduce="width", **rates)
    assert run.reduced == (("width",),) * 4


@pytest.mark.parametrize("rates", RATES, ids=str)
@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
@pytest.mark.parametrize(
    ("widths", "rank"),
    [((5, 13, 11, 3), 2), ((4, 9, 9, 9, 9, 6), 3), ((7, 20, 15, 17, 5), 4), ((3, *(8,) * 5, 3), 3)],
    ids=str,
)
def test_low_rank_starts_of_any_depth(widths, rank, whiten, rates) -> None:
    task = some_task(widths[0], widths[-1], whiten=whiten)
    run, _ = both(task, low_rank(widths, rank, 3), reduce="width", lr=0.02 if len(widths) < 6 else 0.002, **rates)
    assert run.reduced == (("width",),) * 3
    finding = reductions.find(reductions.Ensemble.of(task, low_rank(widths, rank, 3)), steps=10**6)[1]
    assert max(finding.widths[1:-1]) <= rank


@pytest.mark.parametrize("rates", RATES, ids=str)
@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
@pytest.mark.parametrize("widths", [(3, 17, 17, 2), (4, 40, 40, 40, 40, 3), (2, 9, 9, 9, 9, 9, 2)], ids=str)
def test_orthogonal_hidden_layers(widths, whiten, rates) -> None:
    task, weights = some_task(widths[0], widths[-1], whiten=whiten), orthogonal(widths, 3)
    run, _ = both(task, weights, reduce="width", lr=0.01, **rates)
    assert run.reduced == (("width",),) * 3
    finding = reductions.find(reductions.Ensemble.of(task, weights), steps=10**6)[0]
    assert set(finding.widths[1:-1]) == {widths[0] + widths[-1]}


def test_gaussian_starts_of_three_layers_are_left_alone() -> None:
    task, weights = some_task(4, 3, whiten=True), dln.init.gaussian((4, 8, 8, 3), batch=3)
    run = dln.gradient_descent(task, weights, lr=0.01, steps=10**5, at=[10**5])
    same_bits(run, dln.gradient_descent(task, weights, lr=0.01, steps=10**5, at=[10**5], reduce="none"))
    assert run.reduced == ((),) * 3
    found = reductions.find(reductions.Ensemble.of(task, weights), steps=10**7)[2].conditions["width"]
    assert (found.holds, found.applied, found.widths) == (False, False, (4, 8, 8, 3))


def test_a_small_strength_that_is_exact_is_no_rounding() -> None:
    """A mode 10^-20 times the others in diagonal layers grows like any other."""
    task = dln.Task.from_covariances(None, np.diag([2.0, 1.5, 0.0]), 10.0)
    layers = [np.zeros((6, 3)), np.zeros((6, 6)), np.zeros((3, 6))]
    for w in layers:
        w[0, 0], w[1, 1] = 0.5, 1e-20
    task = dln.Task.from_covariances(None, np.diag([2.0, 1.5, 0.0]), 10.0)
    run, whole = both(task, dln.Weights(layers), reduce="width", lr=0.05)
    assert run.reduced == (("width",),)
    assert reductions.find(reductions.Ensemble.of(task, dln.Weights(layers)), "width", steps=1)[0].widths == (
        3,
        2,
        2,
        3,
    )
    np.testing.assert_allclose(run.strengths[0, :, 1], whole.strengths[0, :, 1], rtol=1e-12)


@pytest.mark.parametrize("zero", [(0,), (1,), (2,), (0, 2), (0, 1, 2)], ids=str)
def test_layers_of_zeros(zero) -> None:
    task, start = some_task(3, 2, whiten=False), low_rank((3, 6, 7, 2), 2, 2)
    weights = dln.Weights([w * (k not in zero) for k, w in enumerate(start.layers)])
    run, _ = both(task, weights, reduce="width", weight_decay=0.01)
    assert run.reduced == (("width",),) * 2


# ---- inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", RATES, ids=str)
@pytest.mark.parametrize("widths", [(7, 3), (5, 6, 3), (11, 5, 7, 2), (3, 4, 4, 4, 4, 4, 5)], ids=str)
def test_general_inputs_become_diagonal(widths, rates) -> None:
    task = some_task(widths[0], widths[-1], whiten=False)
    run, _ = both(task, starts(widths, 4, scale=0.8), reduce="inputs", **rates)
    assert run.reduced == (("inputs",),) * 4


@pytest.mark.parametrize("rates", RATES, ids=str)
@pytest.mark.parametrize("held_out", [False, True, "elsewhere"])
@pytest.mark.parametrize(
    "record", [RECORDS, ("loss", "strengths"), ("loss", "weights", "drift", "layer_norms")], ids=str
)
@pytest.mark.parametrize("widths", [(19, 4, 3), (19, 6, 5, 3), (12, 3)], ids=str)
def test_directions_that_never_move_are_left_out(widths, record, held_out, rates) -> None:
    task = thin_task(widths[0], widths[-1], 5, held_out=held_out)
    weights = dln.Weights(
        [np.random.default_rng(1).normal(size=(3, b, a)) / np.sqrt(a) for a, b in itertools.pairwise(widths)]
    )
    run, _ = both(task, weights, reduce="inputs", record=record, **rates)
    assert run.reduced == (("inputs",),) * 3
    if record == ("loss", "strengths"):
        ensemble = reductions.Ensemble.of(task, weights)
        needs = reductions.inputs.Needs(strengths=True)
        assert reductions.find(ensemble, "inputs", steps=1, needs=needs)[0].widths[0] == 5


@pytest.mark.parametrize("rates", RATES, ids=str)
def test_inputs_and_width_together(rates) -> None:
    task = thin_task(30, 4, 6)
    weights = low_rank((30, 25, 25, 4), 9, 3)
    for record in (RECORDS, ("loss", "strengths", "weights")):
        run, _ = both(task, weights, reduce=("inputs", "width"), record=record, lr=0.01, **rates)
        assert run.reduced == (("inputs", "width"),) * 3


def test_no_inputs_at_all() -> None:
    task = dln.Task.from_covariances(np.zeros((3, 3)), np.zeros((2, 3)), 1.0)
    both(task, starts((3, 5, 2), 2), reduce="inputs", steps=20, weight_decay=0.1)


# ---- decoupled --------------------------------------------------------------------------------------------------


def aligned(task, depth, hidden, batch=1, *, seed=0, dtype=np.float64, unbalanced=True) -> dln.Weights:
    """Random frames between V and U, strengths of each layer and mode its own."""
    rng = np.random.default_rng((seed, depth, hidden))
    U, s, V = task.modes
    r = s.shape[-1]
    frames = [V, *(np.linalg.qr(rng.normal(size=(batch, hidden, r)))[0] for _ in range(depth - 1)), U]
    layers = []
    for k in range(depth):
        a = (
            rng.uniform(0.2 if depth < 6 else 0.6, 0.9, size=(batch, 1, r))
            if unbalanced
            else np.full((batch, 1, r), 0.5)
        )
        layers.append(((frames[k + 1] * a) @ np.swapaxes(frames[k], -1, -2)).astype(dtype))
    return dln.Weights(layers)


@pytest.mark.parametrize("rates", RATES, ids=str)
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize(("n_in", "n_out", "modes"), [(5, 4, 4), (3, 7, 3), (1, 1, 1), (9, 8, 3)])
def test_aligned_starts_fall_into_modes(n_in, n_out, modes, depth, rates) -> None:
    task = dln.Task.from_spectrum(np.linspace(2.0, 1.0, modes), n_in, n_out, seed=3)
    run, _ = both(task, aligned(task, depth, 11, 3), reduce="decoupled", lr=0.02 if depth < 6 else 0.01, **rates)
    assert run.reduced == (("decoupled",),) * 3


@pytest.mark.parametrize("rates", RATES, ids=str)
@pytest.mark.parametrize("depth", [2, 4])
def test_aligned_starts_with_inputs_diagonal_in_the_modes(depth, rates) -> None:
    rng = np.random.default_rng(0)
    V, U = np.linalg.qr(rng.normal(size=(6, 6)))[0], np.linalg.qr(rng.normal(size=(4, 4)))[0]
    d = np.array([1.5, 1.2, 1.0, 0.7, 0.4, 0.0])
    s = np.array([1.4, 1.0, 0.6, 0.3])
    xx, yx = (V * d) @ V.T, (U * s) @ V[:, :4].T
    held_out = dln.Task.from_covariances(xx + 0.1 * np.eye(6), 0.9 * yx, 12.0)
    task = dln.Task.from_covariances(xx, yx, 9.0, test=held_out)
    weights = aligned(task, depth, 7, 3)
    run, _ = both(task, weights, reduce="decoupled", **rates)
    assert run.reduced == (("decoupled",),) * 3
    assert reductions.find(reductions.Ensemble.of(task, weights), steps=10**6)[0].networks == 4


def test_a_bottleneck_leaves_modes_out() -> None:
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], 5, 4)
    U, _, V = task.modes
    first = np.zeros((2, 5))
    R = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0]
    first = R @ np.diag([0.3, 0.2]) @ V[:, :2].T
    last = U[:, :2] @ np.diag([0.5, 0.1]) @ R.T
    run, _ = both(task, dln.Weights([first, last]), reduce="decoupled", steps=100)
    assert run.strengths[0, -1, 2] == 0


def test_a_layer_of_zeros_is_aligned() -> None:
    task = dln.Task.from_spectrum([3.0, 2.0], 5, 4)
    start = aligned(task, 3, 6)
    for zero in range(3):
        layers = [w * (k != zero) for k, w in enumerate(start.layers)]
        both(task, dln.Weights(layers), reduce="decoupled", weight_decay=0.01)


def test_modes_do_not_decouple_where_they_look_at_each_other() -> None:
    task = dln.Task.from_spectrum([3.0, 2.0], 5, 4)
    start = aligned(task, 3, 6)
    for stop in (dln.Stop(loss=0.1), dln.Stop(strengths=1.0), dln.Stop(steady=1e-3)):
        run, _ = both(task, start, stop=stop, steps=5000)
        assert "decoupled" not in run.reduced[0]
        with pytest.raises(ValueError, match="a run whose modes do not look at each other for 'decoupled', got a stop"):
            dln.gradient_descent(task, start, lr=0.1, steps=1, stop=stop, reduce="decoupled")
    both(task, start, stop=dln.Stop(), reduce="decoupled")


# ---- everything that a run can do -------------------------------------------------------------------------------


def test_decided_member_by_member() -> None:
    task = dln.Task.from_spectrum([2.0, 1.0], 5, 4)
    kinds = [
        aligned(task, 3, 30),
        dln.init.gaussian((5, 30, 30, 4)),
        low_rank((5, 30, 30, 4), 3),
        orthogonal((5, 30, 30, 4)),
        low_rank((5, 30, 30, 4), 2, seed=1),
        aligned(task, 3, 30, seed=5),
    ]
    weights = dln.Weights.concatenate(kinds)
    run, _ = both(task, weights, steps=60_000, lr=0.005)
    assert run.reduced == (("decoupled",), (), ("width",), ("width",), ("width",), ("decoupled",))
    # Its bits are its own, whatever else is in the batch, in whatever order, on however many threads.
    arguments = {"lr": 0.005, "steps": 60_000, "record": tuple(n for n in RECORDS if n != "test_loss")}
    for i, one in enumerate(kinds):
        same_bits(dln.gradient_descent(task, one, **arguments), run[i])
    order = [3, 5, 1, 0, 2, 4]
    same_bits(dln.gradient_descent(task, weights[order], n_threads=2, **arguments), run[order])
    same_bits(dln.gradient_descent(task, weights[[2, 2, 0]], n_threads=1, **arguments), run[[2, 2, 0]])


@pytest.mark.parametrize("reduce", ["inputs", "width", ("inputs", "width")], ids=str)
def test_bits_do_not_depend_on_the_batch(reduce) -> None:
    batch = 13
    task = dln.Task.stack([thin_task(9, 3, 4 + i % 2, seed=i) for i in range(batch)])
    weights = starts((9, 16, 3), batch)
    rates = {"lr": np.linspace(0.01, 0.03, batch), "momentum": np.linspace(0, 0.5, batch), "weight_decay": 0.01}
    arguments = {"steps": 100, "record": RECORDS, "reduce": reduce}
    run = dln.gradient_descent(task, weights, **rates, **arguments)
    names = (reduce,) if isinstance(reduce, str) else reduce
    assert run.reduced == (names,) * batch
    for i in range(batch):
        own = {k: v[i : i + 1] if np.ndim(v) else v for k, v in rates.items()}
        same_bits(dln.gradient_descent(task[i], weights[i], n_threads=1, **own, **arguments), run[i])


def test_everything_per_member() -> None:
    batch = 5
    task = dln.Task.stack([some_task(4, 3, whiten=False, seed=i) for i in range(batch)])
    weights = starts((4, 12, 3), batch)
    rates = {
        "lr": np.linspace(0.01, 0.03, batch),
        "momentum": np.linspace(0.0, 0.6, batch),
        "weight_decay": np.linspace(0.03, 0.0, batch),
    }
    both(task, weights, reduce=("inputs", "width"), **rates)
    both(task, weights[0], reduce=("inputs", "width"), **rates)
    both(task[0], weights[0], reduce=("inputs", "width"), **rates)
    both(task[0], weights, reduce=("inputs", "width"), lr=0.02)
    task = dln.Task.from_spectrum([2.0, 1.0], 4, 3)
    both(task, aligned(task, 3, 5), reduce="decoupled", **rates)


def test_stops() -> None:
    task, weights = some_task(4, 3, whiten=False), starts((4, 12, 3), 5, scale=0.5)
    for stop in (dln.Stop(loss=np.linspace(0.3, 0.5, 5)), dln.Stop(strengths=[0.3, np.nan, np.nan])):
        run, _ = both(task, weights, stop=stop, reduce=("inputs", "width"), at=range(0, 2001, 7))
        assert (run.status != dln.Status.COMPLETED).any()
    steady = dln.Stop(steady=1e-3)
    run, _ = both(task, weights, stop=steady)
    assert run.reduced == ((),) * 5
    for name in ("inputs", "width"):
        with pytest.raises(
            ValueError, match=rf"^reduce: expected no stop in a steady state.* for '{name}', got stop.steady"
        ):
            dln.gradient_descent(task, weights, lr=0.1, steps=1, stop=steady, reduce=name)


@pytest.mark.parametrize("kind", ["width", "inputs", "decoupled"])
def test_diverging_members(kind) -> None:
    lr = np.array([0.02, 9.0, 0.02, 3.0])
    if kind == "decoupled":
        task = dln.Task.from_spectrum([2.0, 0.001], 4, 3)
        weights = aligned(task, 3, 5, 4)
    else:
        task, weights = some_task(4, 3, whiten=False), starts((4, 12, 3), 4)
    arguments = {"lr": lr, "steps": 300, "record_every": 1, "record": ("loss", "strengths"), "throw": False}
    run = dln.gradient_descent(task, weights, reduce=kind, **arguments)
    whole = dln.gradient_descent(task, weights, reduce="none", **arguments)
    np.testing.assert_array_equal(run.status == dln.Status.DIVERGED, lr > 1)
    np.testing.assert_array_equal(run.status, whole.status)
    assert np.abs(run.stopped_step - whole.stopped_step).max() <= 1
    healthy = lr < 1
    assert_same_run(run[healthy], whole[healthy])
    with pytest.raises(dln.IntegrationError, match="2 of 4 members diverged"):
        dln.gradient_descent(task, weights, reduce=kind, **arguments | {"throw": True})


@pytest.mark.parametrize("kind", ["width", "inputs", "decoupled"])
def test_float32(kind) -> None:
    task = some_task(4, 3, whiten=False) if kind != "decoupled" else dln.Task.from_spectrum([2.0, 1.0], 4, 3)
    weights = (
        starts((4, 12, 3), 3, dtype=np.float32) if kind != "decoupled" else aligned(task, 3, 8, 3, dtype=np.float32)
    )
    run, _ = both(task, weights, reduce=kind, rtol=2e-4, steps=500)
    assert run.loss.dtype == run.weights[0].dtype == run.final.dtype == np.float32
    assert run.reduced == ((kind,),) * 3


@pytest.mark.parametrize("kind", ["width", "inputs", "decoupled"])
def test_a_start_is_recorded_as_it_was_given(kind) -> None:
    for dtype in (np.float64, np.float32):
        task = some_task(4, 3, whiten=False) if kind != "decoupled" else dln.Task.from_spectrum([2.0, 1.0], 4, 3)
        weights = starts((4, 12, 3), 2, dtype=dtype) if kind != "decoupled" else aligned(task, 3, 8, 2, dtype=dtype)
        run = dln.gradient_descent(task, weights, lr=0.1, steps=4, record="weights", weight_decay=0.1, reduce=kind)
        still = dln.gradient_descent(task, weights, lr=0.1, steps=0, reduce=kind)
        for recorded, final, start in zip(run.weights, still.final.layers, weights.layers, strict=True):
            np.testing.assert_array_equal(recorded[:, 0], start)
            np.testing.assert_array_equal(final, start)


@pytest.mark.parametrize("name", RECORDS)
def test_each_record_alone(name) -> None:
    task, weights = some_task(4, 3, whiten=False), starts((4, 12, 3), 3)
    run = dln.gradient_descent(task, weights, lr=0.05, steps=40, record=RECORDS, reduce=("inputs", "width"))
    alone = dln.gradient_descent(task, weights, lr=0.05, steps=40, record=name, reduce=("inputs", "width"))
    a, b = getattr(alone, name), getattr(run, name)
    for x, y in zip(*((a, b) if name == "weights" else ((a,), (b,))), strict=True):
        np.testing.assert_array_equal(x, y)
    same_bits(dln.gradient_descent(task, weights, lr=0.05, steps=40, record=(), reduce=("inputs", "width")), strip(run))


def strip(run):
    arguments = {
        n: getattr(run, n) for n in ("t", "steps", "status", "stopped_time", "stopped_step", "final", "source")
    }
    return dln.Trajectory(records={}, **arguments)


@pytest.mark.parametrize("kind", ["width", "inputs", "decoupled", "mixed"])
def test_interrupted(kind) -> None:
    """Records up to the interrupt are those of a run that was not interrupted, and so are the weights."""
    task = some_task(4, 3, whiten=False) if kind in ("inputs", "width") else dln.Task.from_spectrum([2.0, 1.0], 4, 3)
    if kind == "mixed":
        weights = dln.Weights.concatenate([aligned(task, 3, 9), low_rank((4, 9, 9, 3), 2), aligned(task, 3, 9, seed=2)])
    elif kind == "decoupled":
        weights = aligned(task, 3, 8, 3)
    else:
        weights = starts((4, 12, 3), 3)
    seen = []

    def interrupt(done, total):
        seen.append((done, total))
        raise KeyboardInterrupt

    reduce = "auto" if kind == "mixed" else kind
    at = [0, 10, 1000, 10**10]
    arguments = {"lr": 0.01, "record": ("loss", "strengths", "weights"), "reduce": reduce, "weight_decay": 1e-3}
    with pytest.raises(dln.Interrupted) as caught:
        dln.gradient_descent(task, weights, steps=10**10, at=at, progress=interrupt, **arguments)
    run = caught.value.trajectory
    assert 0 <= seen[0][0] <= seen[0][1] == 3 * 10**10
    assert (run.status == dln.Status.INTERRUPTED).all()
    expected = dln.gradient_descent(task, weights, steps=1000, at=at[:3], **arguments | {"reduce": "none"})
    for i in range(3):
        made = np.isfinite(run.loss[i])
        assert not made[3]
        np.testing.assert_allclose(run.loss[i, made], expected.loss[i, made[:3]], rtol=1e-11)
        for w, e in zip(run.weights, expected.weights, strict=True):
            np.testing.assert_allclose(w[i, made], e[i, made[:3]], rtol=1e-11, atol=1e-12)
        stopped = int(run.stopped_step[i])
        if 0 <= stopped <= 1000:
            there = dln.gradient_descent(task, weights[i], steps=stopped, **arguments | {"reduce": "none"})
            for w, e in zip(run.final.layers, there.final.layers, strict=True):
                np.testing.assert_allclose(w[i], e[0], rtol=1e-11, atol=1e-12)


def test_ctrl_c_while_reductions_are_looked_for(monkeypatch) -> None:
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    task, weights = some_task(4, 3, whiten=False), starts((4, 12, 3), 3)
    for reduce in ("inputs", "width", "auto"):
        with monkeypatch.context() as patch:
            for decompose in ("eigh", "svd"):
                patch.setattr(np.linalg, decompose, interrupt)
            with pytest.raises(dln.Interrupted, match=r"^interrupted: 0 of 3 members are complete") as caught:
                dln.gradient_descent(task, weights, lr=0.01, steps=10**6, reduce=reduce)
        run = caught.value.trajectory
        assert run.reduced == ((),) * 3
        assert np.isnan(run.loss).all()
        np.testing.assert_array_equal(run.stopped_step, 0)
        for w, start in zip(run.final.layers, weights.layers, strict=True):
            np.testing.assert_array_equal(w, start)


def test_ctrl_c_while_weights_are_recovered(monkeypatch) -> None:
    """Members that were recovered are whole, the others as if they had not been begun."""
    task, weights = some_task(4, 3, whiten=False), starts((4, 12, 3), 3)
    recover, calls = reductions.projected.Projected.recover, []

    def interrupted(self, part, *arguments):
        calls.append(part)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return recover(self, part, *arguments)

    monkeypatch.setattr(reductions.projected.Projected, "recover", interrupted)
    monkeypatch.setattr(loop, "_AT_ONCE", 1)  # one member at a time
    arguments = {"lr": 0.01, "steps": 50, "record": RECORDS, "reduce": "width"}
    with pytest.raises(dln.Interrupted, match=r"^interrupted: 1 of 3 members are complete") as caught:
        dln.gradient_descent(task, weights, **arguments)
    monkeypatch.undo()
    run = caught.value.trajectory
    same_bits(run[0], dln.gradient_descent(task, weights[0], **arguments))
    assert run.reduced == (("width",), (), ())
    for name in RECORDS:
        for a in getattr(run, name) if name == "weights" else (getattr(run, name),):
            assert np.isnan(a[1:]).all()
    for w, start in zip(run.final.layers, weights.layers, strict=True):
        np.testing.assert_array_equal(w[1:], start[1:])


@pytest.mark.parametrize("kind", ["whole", "width", "mixed"])
def test_ctrl_c_between_calls_of_the_kernel(kind, monkeypatch) -> None:
    """Whatever line of Python it meets, members are complete or as if they had not been begun."""
    task = dln.Task.from_spectrum([2.0, 1.0], 4, 3)
    weights = dln.Weights.concatenate([aligned(task, 3, 9), low_rank((4, 9, 9, 3), 2), aligned(task, 3, 9, seed=2)])
    arguments = {"lr": 0.01, "steps": 20_000, "record_every": 1000, "record": ("loss", "weights"), "n_threads": 1}
    arguments["reduce"] = {"whole": "none", "width": "width", "mixed": "auto"}[kind]
    monkeypatch.setattr(loop, "_AT_ONCE", 1)  # recovers one member at a time
    complete = dln.gradient_descent(task, weights, **arguments)
    codes = {getattr(loop.Loop, name).__code__ for name in ("_all", "_run", "_parts", "_starts", "_recorded")}

    def interrupted_at(line):
        """The run that is interrupted at that line; None where there are not so many."""
        count = 0

        def trace(frame, event, _):
            nonlocal count
            if frame.f_code not in codes:
                return None
            if event == "line":
                count += 1
                if count == line:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        traced = sys.gettrace()
        sys.settrace(trace)
        try:
            dln.gradient_descent(task, weights, **arguments)
        except dln.Interrupted as error:
            return error.trajectory
        finally:
            sys.settrace(traced)
        return None

    lines, seen = 0, set()
    while run := interrupted_at(lines + 1):
        lines += 1
        done = run.status == dln.Status.COMPLETED
        seen.add(int(done.sum()))
        for i in range(3):
            if done[i]:
                same_bits(run[i], complete[i])
                continue
            assert run.status[i] == dln.Status.INTERRUPTED
            assert run.stopped_step[i] == 0
            assert np.isnan(run.loss[i]).all()
            assert run.reduced[i] == ()
            for w, start in zip(run.final.layers, weights.layers, strict=True):
                np.testing.assert_array_equal(w[i], start[i])
    assert lines > 40
    assert len(seen) > 1 + (kind != "whole"), seen


def test_large_decompositions_run_beside() -> None:
    """In a thread, so that Ctrl-C is seen: the same result, and the same failure."""
    a = np.random.default_rng(0).normal(size=(1, 300, 300))
    np.testing.assert_array_equal(patiently(np.linalg.eigh, a)[0], np.linalg.eigh(a)[0])
    with pytest.raises(np.linalg.LinAlgError):
        patiently(np.linalg.svd, a * np.nan, full_matrices=False)


def test_in_whatever_pieces_the_work_is_done(monkeypatch) -> None:
    task, weights = thin_task(9, 3, 5), starts((9, 16, 3), 7)
    arguments = {"lr": 0.01, "steps": 100, "record": RECORDS, "reduce": ("inputs", "width"), "weight_decay": 0.1}
    expected = dln.gradient_descent(task, weights, **arguments)
    monkeypatch.setattr(loop, "_AT_ONCE", 1)
    monkeypatch.setattr(loop.Loop, "temporary", 1)
    monkeypatch.setattr(reductions.projected, "_BLOCK", 300)
    same_bits(dln.gradient_descent(task, weights, n_threads=1, **arguments), expected)


def test_progress_counts_member_steps() -> None:
    task = dln.Task.from_spectrum([2.0, 1.0], 5, 4)
    weights = dln.Weights.concatenate([aligned(task, 3, 9, 40), low_rank((5, 9, 9, 4), 3, 40)])
    seen = []
    dln.gradient_descent(task, weights, lr=0.01, steps=60_000, progress=lambda *both: seen.append(both), n_threads=1)
    assert {total for _, total in seen} == {80 * 60_000}
    assert all(0 <= done <= total for done, total in seen)
    assert sorted(seen) == seen


@example(widths=(3, 8, 1, 12, 3, 1, 1), whiten=False, thin=0, rank=1, batch=2, rates={"momentum": 0.7}, seed=1)
@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 12), min_size=2, max_size=7).map(tuple),
    whiten=st.booleans(),
    thin=st.integers(0, 4),
    rank=st.integers(1, 4),
    batch=st.integers(1, 4),
    rates=st.sampled_from(RATES),
    seed=st.integers(0, 2**32),
)
def test_any_shape_start_and_task(widths, whiten, thin, rank, batch, rates, seed) -> None:
    """Whatever holds is applied, whatever is applied changes nothing."""
    n_in, n_out = widths[0], widths[-1]
    rng = np.random.default_rng(seed)
    tasks = [
        thin_task(n_in, n_out, min(thin, n_in), seed=seed + i)
        if thin and not whiten
        else some_task(n_in, n_out, whiten=whiten, seed=seed + i)
        for i in range(batch)
    ]
    kinds = [low_rank(widths, rank, batch, seed=seed), starts(widths, batch, seed=seed)]
    if len(widths) > 2:
        kinds.append(orthogonal((n_in, *(widths[1],) * (len(widths) - 2), n_out), batch, seed=seed))
    for weights in kinds:
        # Of moderate size, and runs that end before the rounding of a start of low rank, which two whole layers let
        # grow as exp(st), is seen.
        weights = dln.Weights([w / max(1.0, np.linalg.norm(w, 2, axis=(1, 2)).max()) for w in weights.layers])
        moved = dln.Weights([w * (1 + EPS * rng.choice([-1.0, 1.0], w.shape)) for w in weights.layers])
        for task in (tasks[0], dln.Task.stack(tasks)):
            for reduce in ("inputs", "width", ("inputs", "width"), "decoupled", "auto"):
                try:
                    both(task, weights, reduce=reduce, steps=150, lr=0.005, at=range(0, 151, 5), moved=moved, **rates)
                except ValueError as error:
                    assert str(error).startswith("reduce: expected")  # noqa: PT017
                    assert reduce != "auto"


# ---- names, reports ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message", "reduce"),
    [
        (ValueError, "reduce: expected one of 'auto', 'none', 'inputs', 'width', 'decoupled', got 'all'", "all"),
        (ValueError, "reduce: expected one of 'inputs', 'width', 'decoupled', got 'auto'", ("auto",)),
        (TypeError, "reduce: expected names out of inputs, width, decoupled, got None", None),
        (TypeError, "reduce: expected names out of inputs, width, decoupled, got True", True),
        (
            ValueError,
            "reduce: expected 'decoupled' alone, its networks have one unit everywhere, got others with it",
            ("width", "decoupled"),
        ),
        (
            ValueError,
            "reduce: expected general input covariances for 'inputs', got whitened inputs, Σ_xx = I",
            "inputs",
        ),
        (
            ValueError,
            (
                "reduce: expected hidden layers that move in fewer directions than they have units for 'width', "
                "got member 1 with 4-4 of 4-4"
            ),
            "width",
        ),
    ],
)
def test_what_is_refused(kind, message, reduce) -> None:
    task = dln.Task.from_spectrum([2.0, 1.0], 3, 3)
    weights = dln.Weights.concatenate([low_rank((3, 4, 4, 3), 2), dln.init.gaussian((3, 4, 4, 3))])
    with pytest.raises(kind) as caught:
        dln.gradient_descent(task, weights, lr=0.1, steps=1, reduce=reduce)
    assert str(caught.value) == message


def test_a_start_that_is_not_aligned_is_refused_with_its_number() -> None:
    task = dln.Task.from_spectrum([2.0, 1.0], 3, 3)
    weights = dln.Weights.concatenate([aligned(task, 3, 4), dln.init.gaussian((3, 4, 4, 3))])
    message = r"^reduce: expected starts aligned .* for 'decoupled', got member 1 with 0\.\d+ of it outside$"
    with pytest.raises(ValueError, match=message):
        dln.gradient_descent(task, weights, lr=0.1, steps=1, reduce="decoupled")


def test_a_trajectory_says_how_it_was_run(tmp_path) -> None:
    task = dln.Task.from_spectrum([2.0, 1.0], 5, 4)
    weights = dln.Weights.concatenate([aligned(task, 3, 30), low_rank((5, 30, 30, 4), 3), aligned(task, 3, 30, seed=5)])
    run = dln.gradient_descent(task, weights, lr=0.005, steps=30_000)
    assert run.reduced == (("decoupled",), ("width",), ("decoupled",))
    assert run.settings["reduce"] == "auto"
    assert run[1:].reduced == (("width",), ("decoupled",))
    assert "reduced = decoupled 2, width 1 of 3 members" in run.summary()
    again = dln.Trajectory.load(run.save(tmp_path / "run"))
    assert again.reduced == run.reduced
    assert pickle.loads(pickle.dumps(run)).reduced == run.reduced
    plain = dln.gradient_descent(task, weights, lr=0.005, steps=10, reduce="none")
    assert plain.reduced == ((), (), ())
    assert plain.settings["reduce"] == "none"
    assert "reduced" not in plain.summary()


def test_findings_are_measured() -> None:
    task, weights = some_task(6, 3, whiten=False), starts((6, 20, 3), 2)
    found = reductions.find(reductions.Ensemble.of(task, weights), steps=10**6)
    one = found[1]
    assert one.names == ("inputs", "width")
    assert one.widths == (6, 9, 3)
    assert one.networks == 1
    assert one.reduced_flops < one.flops / 2
    assert set(one.conditions) == set(reductions.REDUCTIONS)
    width = one.conditions["width"]
    assert (width.applied, width.holds, width.widths) == (True, True, (6, 9, 3))
    assert 0 <= width.measured <= width.tolerance < 1e-13
    decoupled = one.conditions["decoupled"]
    assert (decoupled.applied, decoupled.holds) == (False, False)
    assert decoupled.measured > 1e-3
    short = reductions.find(reductions.Ensemble.of(task, weights), steps=1)[0]
    assert short.names == ()
    assert short.conditions["width"].holds is None


def test_short_runs_are_left_as_they_are() -> None:
    task, weights = some_task(8, 8, whiten=False), starts((8, 8, 8, 8), 5)
    same_bits(
        dln.gradient_descent(task, weights, lr=0.01, steps=20),
        dln.gradient_descent(task, weights, lr=0.01, steps=20, reduce="none"),
    )
