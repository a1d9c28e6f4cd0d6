"""Gradient flow near saddles and long after: what grows unseen is followed, what ended rests, no plateau is an end."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from ensembles import KERNELS
from hypothesis import given, settings
from hypothesis import strategies as st

import pydln as dln
from pydln._base import backend

ADAPTIVE = ("tsit5", "dopri5", "dop853")
PARTS = tuple(10.0**-k for k in (1, 2, 3, 5, 6, 8, 10, 15, 20, 30, 60, 100, 150))


def rotations(n, count, seed):
    rng = np.random.default_rng(seed)
    return [np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(count)]


def network(layers, s, seed=None, dtype=np.float64):
    """A task of strengths s, a network W_l = R_{l+1} diag(a_l) R_lᵀ, and how to read the strengths off a product."""
    n, depth = len(s), len(layers)
    R = [np.eye(n)] * (depth + 1) if seed is None else rotations(n, depth + 1, seed)
    task = dln.Task.from_covariances(None, R[-1] @ np.diag(s) @ R[0].T, float(np.square(s).sum()))
    weights = dln.Weights(
        [(R[i + 1] @ np.diag(a) @ R[i].T)[None].astype(dtype) for i, a in enumerate(np.asarray(layers, dtype=float))]
    )
    return task, weights, lambda product: np.diagonal(R[-1].T @ product @ R[0], axis1=-2, axis2=-1)


def modes(layers, s, t):
    """Strengths over time of the same modes, each by itself."""
    a = np.asarray(layers, dtype=float).T
    return dln.mode_flow(np.asarray(s, dtype=float), a, t, method="dop853", rtol=1e-13).strengths[0]


def strengths_at(task, weights, of, t, **how):
    """Strengths at times t, in runs that end there: of dop853 the interpolant is further off than the steps."""
    runs = [dln.gradient_flow(task, weights, [end], reduce="none", record="product", **how) for end in t]
    return np.array([of(run.product)[0, 0] for run in runs])


def half_time(part):
    return 0.5 * np.log((1 - part**2) / part**2)


@pytest.mark.parametrize("reduce", ["none", "auto"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_part_of_any_size_is_learned_at_its_time(method, reduce) -> None:
    for part in PARTS:
        for rtol in (1e-5, 1e-8, 1e-11) if part > 1e-60 else (1e-8,):
            task, weights, of = network([[2**0.5, part]] * 2, [2.0, 1.0])
            how = {"method": method, "rtol": rtol, "reduce": reduce, "record": "product"}
            run = dln.gradient_flow(task, weights, [half_time(part)], **how)
            assert of(run.product)[0, 0, 1] == pytest.approx(0.5, abs=10 * rtol), (part, rtol)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_in_float32(method) -> None:
    for part in (1e-1, 1e-3, 1e-6, 1e-10, 1e-20, 1e-30):
        start = np.float32(part).item()
        task, weights, of = network([[2**0.5, part]] * 2, [2.0, 1.0], dtype=np.float32)
        t = half_time(start)
        run = dln.gradient_flow(task, weights, [t], method=method, rtol=1e-4, reduce="none", record="product")
        # Times are those of float64, steps are added in it; a step of float32 multiplies by 1 + rho h to eps.
        steps = int(run.integrator_steps[0])
        assert float(of(run.product)[0, 0, 1]) == pytest.approx(0.5, abs=10 * 1e-4 + steps * float(np.finfo("f4").eps))


CASES = {
    "off its equilibrium": ([[1.5, 1e-8], [1.3, 1e-8]], [2.0, 1.0]),
    "a slow one moves": ([[0.3, 1e-10], [0.3, 1e-10]], [0.1, 1.0]),
    "a slower one moves": ([[0.1, 1e-10], [0.1, 1e-10]], [0.02, 1.0]),
    "a fast one is learned": ([[3.1, 0.2, 1e-12]] * 2, [10.0, 0.1, 1.0]),
    "unlearned and negative": ([[1.2, 1e-8], [-1.2000001, 1e-8]], [2.0, 1.0]),
    "far too large": ([[5.0, 1e-8]] * 2, [2.0, 1.0]),
    "three, the strongest first": ([[1e-3, 1e-9, 1e-20]] * 2, [3.0, 2.0, 1.0]),
    "three, the weakest first": ([[1e-3, 1e-9, 1e-40]] * 2, [1.0, 2.0, 3.0]),
    "four": ([[1e-2, 1e-12, 1e-60, 1e-120]] * 2, [1.0, 1.3, 1.7, 2.0]),
    "layers unlike": ([[1.0, 1e-14], [2.0, 1e-6]], [2.0, 1.0]),
    "three layers, the middle 1": ([[1.26, 1e-8], [1.26, 1.0], [1.26, 1e-8]], [2.0, 1.0]),
    "three layers, the middle 3": ([[1.0, 1e-8], [3.0, 3.0], [1.0, 1e-8]], [2.0, 1.0]),
    "three layers, a slow one leads": ([[1.0, 1e-4, 1e-12], [1.0, 1e-4, 1.0], [1.0, 1e-4, 1e-12]], [3.0, 2.0, 1.0]),
    "three layers, the first large": ([[1.0, 1.0], [1.0, 1e-10], [2.0, 1e-10]], [2.0, 1.0]),
    "four layers": ([[1.2, 1e-8], [1.2, 1.0], [1.2, 1.0], [1.2, 1e-8]], [2.0, 1.0]),
}


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("case", CASES)
def test_what_hides_a_growing_part(case, method) -> None:
    layers, s = CASES[case]
    task, weights, of = network(layers, s)
    least = np.abs(np.asarray(layers)).min(axis=0)
    rate = np.asarray(s) * np.prod(np.sort(np.abs(layers), axis=0)[2:], axis=0)
    t = np.array([0.5, 0.9, 1.0, 1.1]) * (np.log(1 / least) / rate)[-1]
    found = strengths_at(task, weights, of, t, method=method, rtol=1e-8)
    np.testing.assert_allclose(found, modes(layers, s, t), rtol=0, atol=1e-7 * max(s))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_modes_of_any_strengths_and_starts(data) -> None:
    """Dense layers: parts are there down to rounding, which the flow multiplies as it does them."""
    count, depth = data.draw(st.integers(2, 4)), data.draw(st.integers(2, 4))
    seed = data.draw(st.one_of(st.none(), st.integers(0, 10**6)))
    digits = 8 if seed is not None else 100
    s = np.array([data.draw(st.floats(0.4, 3)) for _ in range(count)])
    outer = np.array([10.0 ** -data.draw(st.floats(0.2, digits)) for _ in range(count)])
    # Between dense layers rounding goes the way of the largest inner strength, whichever mode that belongs to.
    between = st.floats(0.7, 1.6)
    inner = np.array([data.draw(between)] * count if seed is not None else [data.draw(between) for _ in range(count)])
    layers = [outer, *[inner] * (depth - 2), outer]
    task, weights, of = network(layers, s, seed)
    rate = s * inner ** (depth - 2)
    t = np.linspace(0.3, 1.05, 4) * (np.log(1 / outer) / rate).max() + 0.1
    found = strengths_at(task, weights, of, t, method=data.draw(st.sampled_from(ADAPTIVE)), rtol=1e-7)
    # Rounding is a part of 1e-16 beside each.
    blurred = 0.0 if seed is None else 30 * np.finfo(float).eps / outer.min()
    np.testing.assert_allclose(found, modes(layers, s, t), rtol=0, atol=10 * 1e-7 * s.max() + blurred)


def test_company_and_layout_change_no_bit() -> None:
    parts = np.array(PARTS)
    layers = np.stack([np.full_like(parts, 2**0.5), parts], axis=-1)
    weights = dln.Weights([layers[..., None] * np.eye(2)] * 2)
    task = dln.Task.from_covariances(None, np.diag([2.0, 1.0]), 5.0)
    t = half_time(1e-6) * np.array([0.9, 1.0])
    whole = dln.gradient_flow(task, weights, t, reduce="none", n_threads=2)
    for i in range(len(parts)):
        alone = dln.gradient_flow(task, weights[i], t, reduce="none", n_threads=1)
        np.testing.assert_array_equal(alone.strengths[0], whole.strengths[i])
        assert alone.integrator_steps[0] == whole.integrator_steps[i]
    # The baseline has no fused multiply-add: its bits are its own, in every layout.
    seen: dict[bool, np.ndarray] = {}
    for isa, layout in KERNELS:
        with backend.forced(isa=isa, layout=layout):
            run = dln.gradient_flow(task, weights, t, reduce="none")
        np.testing.assert_array_equal(run.strengths, seen.setdefault(isa == "baseline", run.strengths))
    assert any(np.array_equal(strengths, whole.strengths) for strengths in seen.values())


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("scale", [1.0, 1e2, 1e3, 1e4, 1e6, 1e30])
def test_a_start_too_large_for_its_numbers_is_not_called_done(scale, depth) -> None:
    """Beside a decay of 1e8 a mode that grows as e^t is not seen, and what rounding leaves is no rest."""
    task = dln.Task.from_spectrum([2.0, 1.5, 1.0], 5, 4, seed=0)
    weights = dln.init.gaussian([5] + [4] * depth, scale=scale, seed=0)
    run = dln.gradient_flow(task, weights, [0.0, 1.0, 50.0], max_steps=3000, throw=False)
    done = run.status[0] == dln.Status.COMPLETED
    assert done == (scale == 1.0)
    assert not done or run.loss[0, -1] < 1e-6


# ---- long after -------------------------------------------------------------------------------------
LATE = np.r_[0, np.geomspace(1, 1e6, 50)]


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("reduce", ["none", "auto"])
@pytest.mark.parametrize(
    ("widths", "scale"),
    [(w, x) for w in ((6, 20, 20, 5), (4, 8, 3), (3, 2)) for x in (1e-4, 1e-2, 0.3)] + [((5, 4, 4, 4, 5), 0.3)],
)
def test_long_after_it_has_converged(widths, scale, reduce, method) -> None:
    rng = np.random.default_rng(1)
    task = dln.Task.from_spectrum(np.linspace(2.0, 1.0, min(widths)), n_in=widths[0], n_out=widths[-1], seed=3)
    pairs = list(pairwise(widths))
    weights = dln.Weights([scale * rng.standard_normal((2, n, m)) for m, n in pairs])
    run = dln.gradient_flow(task, weights, LATE, method=method, reduce=reduce, record=("loss", "product"))
    assert (run.status == dln.Status.COMPLETED).all()
    assert np.isfinite(run.loss).all()
    # Of order 8 the interpolant between steps at the edge of stability is further off than the steps.
    short = "tsit5" if method == "dop853" else method
    first = dln.gradient_flow(task, weights, LATE[LATE < 60], method=short, reduce=reduce, record="product")
    np.testing.assert_allclose(run.product[:, : first.product.shape[1]], first.product, atol=1e-6)
    learned = np.abs(run.product[:, -1] - np.asarray(task.sigma_yx)).max(axis=(1, 2))
    assert learned.max() < 1e-7
    assert run.integrator_steps.max() < 20_000


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("part", [0.0, 1e-100, 1e-6])
def test_a_saddle_rests_only_where_nothing_grows(part, method) -> None:
    task, weights, of = network([[2**0.5, part]] * 2, [2.0, 1.0])
    t = np.r_[0, np.geomspace(1, 1e6, 30)]
    run = dln.gradient_flow(task, weights, t, method=method, reduce="none", record="product")
    assert run.status[0] == dln.Status.COMPLETED
    np.testing.assert_allclose(of(run.product)[0], modes([[2**0.5, part]] * 2, [2.0, 1.0], t), atol=3e-7)


@pytest.mark.parametrize("widths", [(5, 2, 4), (5, 6, 2, 4), (4, 1, 4)])
def test_a_bottleneck_rests(widths) -> None:
    task = dln.Task.from_spectrum([2.0, 1.5, 1.0, 0.5], n_in=widths[0], n_out=widths[-1], seed=3)
    rng = np.random.default_rng(2)
    pairs = list(pairwise(widths))
    weights = dln.Weights([0.1 * rng.standard_normal((3, n, m)) for m, n in pairs])
    run = dln.gradient_flow(task, weights, LATE, reduce="none")
    assert (run.status == dln.Status.COMPLETED).all()
    kept = np.where(np.arange(4) < min(widths), task.modes.s, 0)
    np.testing.assert_allclose(run.strengths[:, -1], np.broadcast_to(kept, (3, 4)), atol=1e-6)


@pytest.mark.parametrize("least", [1e-2, 1e-3])
def test_slow_directions_are_followed(least) -> None:
    """Inputs of variance d learn at rate d: d u, on its own axis, is a mode of strength s."""
    d, s = np.array([1.0, least]), np.array([1.0, least])
    task = dln.Task.from_covariances(np.diag(d), np.diag(s), float((s**2 / d).sum()))
    start = np.array([[0.3, 0.4], [0.3, 0.4]])
    weights = dln.Weights([np.diag(a)[None] for a in start])
    t = np.geomspace(1, 10 / least, 12)
    run = dln.gradient_flow(task, weights, t, reduce="none", record="product")
    exact = dln.mode_flow(s, start.T, t, variances=d, method="dop853", rtol=1e-13).strengths[0]
    np.testing.assert_allclose(np.diagonal(run.product[0], axis1=-2, axis2=-1), exact, atol=1e-6)


# ---- a plateau is not the end -------------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_steady_is_no_plateau(data) -> None:
    """Where a run is steady, everything that the network can learn is learned."""
    depth, count = data.draw(st.integers(2, 3)), data.draw(st.integers(1, 3))
    seed = data.draw(st.one_of(st.none(), st.integers(0, 10**6)))
    s = np.array([data.draw(st.floats(0.7, 3)) for _ in range(count)])
    outer = np.array([10.0 ** -data.draw(st.floats(0.1, 6)) for _ in range(count)])
    layers = [outer, *[np.ones(count)] * (depth - 2), outer]
    limit = 10.0 ** -data.draw(st.floats(1.5, 6))
    task, weights, of = network(layers, s, seed)
    t = [0.0, 60 / s.min() + 30]
    run = dln.gradient_flow(task, weights, t, stop=dln.Stop(steady=limit), reduce="none")
    assert run.status[0] == dln.Status.STEADY
    np.testing.assert_allclose(of(run.final.product())[0], s, atol=10 * limit)
    lr = 0.05
    down = dln.gradient_descent(task, weights, lr=lr, steps=int(t[1] / lr), at=[0], stop=dln.Stop(steady=limit))
    assert down.status[0] == dln.Status.STEADY
    np.testing.assert_allclose(of(down.final.product())[0], s, atol=10 * limit)
    if seed is None:
        alone = dln.mode_flow(s, np.array(layers).T, np.linspace(*t, 300), stop=dln.Stop(steady=limit))
        assert alone.status[0] == dln.Status.STEADY
        left = alone.strengths[0, ~np.isnan(alone.strengths[0, :, 0])][-1]
        later = alone.stopped_time[0]
        now = dln.mode_flow(s, np.array(layers).T, [later]).strengths[0, 0]
        np.testing.assert_allclose(now, s, atol=10 * limit)
        assert left.shape == s.shape


@pytest.mark.parametrize("widths", [(5, 2, 4), (5, 6, 2, 4)])
def test_a_narrow_network_is_steady_at_its_best(widths) -> None:
    task = dln.Task.from_spectrum([2.0, 1.5, 1.0, 0.5], n_in=widths[0], n_out=widths[-1], seed=3)
    rng = np.random.default_rng(2)
    weights = dln.Weights([1e-3 * rng.standard_normal((3, n, m)) for m, n in pairwise(widths)])
    stop = dln.Stop(steady=1e-4)
    for run in (
        dln.gradient_flow(task, weights, [0.0, 2e4], stop=stop),
        dln.gradient_descent(task, weights, lr=0.1, steps=200_000, at=[0], stop=stop),
    ):
        assert (run.status == dln.Status.STEADY).all()
        assert (task.loss(run.final.product()) < 0.5 * (1.0 + 0.25) + 1e-3).all()
