"""What is small at the start and grows as e^{st} is all that there is at the end: no reduction, no solution drops it.

Every start is something learned and, beside it, something at a scale from a tenth down to the last bit of the format,
or far below it where zeros leave room. Runs are long enough for all of it to be learned.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import reference

import pydln as dln
from pydln.exact import solve

S = np.array([2.0, 1.5, 1.0])
TIME = 60.0  # e^{60} is 1e26
LR = 0.02
EPS = {"f4": 2.0**-23, "f8": 2.0**-52}
SCALES = [(dtype, scale) for dtype in EPS for scale in (1e-1, 1e-3, 1e-5, *(8.0**k * EPS[dtype] for k in range(-1, 6)))]
BELOW = [("f4", 1e-10), ("f4", 1e-30), ("f8", 1e-20), ("f8", 1e-30), ("f8", 1e-100)]
WIDTHS = [(3, 3, 3), (8, 64, 8), (8, 5, 4), (4, 40, 3), (3, 1, 3), (12, 12, 12)]


def task_of(n_in: int, n_out: int, *, turned: bool, white: bool = True) -> dln.Task:
    """Modes of strengths S, along the axes unless turned; each has inputs of its own variance unless they are white."""
    s = S[: min(n_in, n_out)]
    if turned and white:
        return dln.Task.from_spectrum(s, n_in, n_out, seed=n_in)
    rng = np.random.default_rng(n_in)
    U, V = (np.linalg.qr(rng.normal(size=(n, n)))[0] if turned else np.eye(n) for n in (n_out, n_in))
    d = np.ones(n_in) if white else np.linspace(0.5, 1.5, n_in)
    yx = (U[:, : len(s)] * s) @ V[:, : len(s)].T
    return dln.Task.from_covariances(None if white else (V * d) @ V.T, yx, 4 * np.sum(s**2))


def aligned(task: dln.Task, hidden: tuple[int, ...], strengths: np.ndarray, *, turned: bool) -> list[np.ndarray]:
    """Layers R_{l+1} diag(a) R_lᵀ with as many of the strengths as the hidden layers have room for."""
    rng = np.random.default_rng(hidden)
    U, s, V = task.modes
    r = min(len(strengths), len(s), *hidden)
    own = [np.linalg.qr(rng.normal(size=(n, n)))[0] if turned else np.eye(n) for n in hidden]
    R = [V[:, :r], *(Q[:, :r] for Q in own), U[:, :r]]
    return [(after * strengths[:r]) @ before.T for before, after in pairwise(R)]


def starts(task: dln.Task, widths: tuple[int, ...], scale: float, *, turned: bool) -> dict[str, list[np.ndarray]]:
    """Something learned and something small: the other modes, all of the layers, or a part beside all modes."""
    rng = np.random.default_rng(widths)
    first, last = (np.sqrt(s) for s in S[[0, 2]])
    one = aligned(task, widths[1:-1], np.array([first, 0, 0]), turned=turned)
    crossed = rng.normal(size=(widths[1], 1)) @ rng.normal(size=(1, widths[0])) / np.sqrt(widths[0] * widths[1])
    back = rng.normal(size=(widths[2], 1)) @ rng.normal(size=(1, widths[1])) / np.sqrt(widths[1] * widths[2])
    noise = [scale * rng.normal(size=w.shape) for w in one]
    return {
        "aligned": aligned(task, widths[1:-1], np.array([first, scale, scale]), turned=turned),
        "the weakest learned": aligned(task, widths[1:-1], np.array([scale, scale, last]), turned=turned),
        "dense": [w + n for w, n in zip(one, noise, strict=True)],
        "dense beside what is not aligned": [w + n for w, n in zip((crossed, back), noise, strict=True)],
    }


def cast(layers: list[np.ndarray], dtype: str) -> dln.Weights:
    return dln.Weights([w.astype(dtype) for w in layers])


def learned_in_the_end(task: dln.Task, layers: list[np.ndarray], *, momentum: float = 0.0) -> np.ndarray:
    """Ω after descent by the definition, in float64."""
    layers = [w[0].astype(float) for w in layers]
    velocity = [np.zeros_like(w) for w in layers]
    for _ in range(round(TIME / LR)):
        for v, g in zip(velocity, reference.gradient(layers, task.sigma_xx, task.sigma_yx), strict=True):
            v *= momentum
            v -= LR * g
        for w, v in zip(layers, velocity, strict=True):
            w += v
    return reference.product(layers)


def assert_same_end(task: dln.Task, weights: dln.Weights, **how: float) -> np.ndarray:
    """Default and whole, of descent and of flow; returns the strengths at the end."""
    steps, atol = round(TIME / LR), 1e-3 if weights.dtype == np.float32 else 1e-8
    run, whole = (
        dln.gradient_descent(task, weights, lr=LR, steps=steps, at=[steps], reduce=reduce, **how)
        for reduce in ("auto", "none")
    )
    np.testing.assert_allclose(run.strengths, whole.strengths, atol=atol)
    np.testing.assert_allclose(run.loss, whole.loss, atol=atol)
    if not how:
        flow, whole_flow = (dln.gradient_flow(task, weights, [TIME], reduce=reduce) for reduce in ("auto", "none"))
        np.testing.assert_allclose(flow.strengths, whole_flow.strengths, atol=atol)
    return run.strengths[0, -1]


@pytest.mark.parametrize("turned", [False, True], ids=["along the axes", "turned"])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_reduced_and_whole_learn_the_same(dtype, scale, widths, turned) -> None:
    task = task_of(widths[0], widths[-1], turned=turned)
    for layers in starts(task, widths, scale, turned=turned).values():
        assert_same_end(task, cast(layers, dtype))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("white", [True, False], ids=["whitened", "general"])
@pytest.mark.parametrize(("dtype", "scale"), [("f4", 1e-5), ("f8", 1e-13), ("f8", 3e-15)])
def test_as_by_the_definition(dtype, scale, white, momentum) -> None:
    task = task_of(5, 4, turned=True, white=white)
    for layers in starts(task, (5, 30, 4), scale, turned=True).values():
        weights = cast(layers, dtype)
        run = dln.gradient_descent(task, weights, lr=LR, steps=round(TIME / LR), momentum=momentum, record="product")
        omega = learned_in_the_end(task, list(weights.layers), momentum=momentum)
        np.testing.assert_allclose(omega @ task.sigma_xx, task.sigma_yx, atol=1e-6)
        np.testing.assert_allclose(run.product[0, -1], omega, atol=1e-3 if dtype == "f4" else 1e-8)


@pytest.mark.parametrize("turned", [False, True], ids=["along the axes", "turned"])
@pytest.mark.parametrize(("dtype", "scale"), [*SCALES[::3], ("f8", 1e-30), ("f8", 1e-100), ("f4", 1e-30)])
def test_hidden_layers_that_let_everything_through(dtype, scale, turned) -> None:
    """Three and four layers of which two are small: exponential growth at any depth."""
    task = task_of(5, 4, turned=turned)
    for hidden in ((6, 6), (20, 20), (20, 20, 20)):
        rng = np.random.default_rng(hidden)
        first, *_, last = aligned(task, hidden, np.array([1.2, scale, scale]), turned=turned)
        inner = [np.linalg.qr(rng.normal(size=(m, n)))[0] if turned else np.eye(n) for n, m in pairwise(hidden)]
        noise = [scale * rng.normal(size=w.shape) for w in (first, last)]
        assert_same_end(task, cast([first, *inner, last], dtype))
        if scale > 1e-20:
            assert_same_end(task, cast([first + noise[0], *inner, last + noise[1]], dtype))


@pytest.mark.parametrize(("dtype", "scale"), [*SCALES, *BELOW])
@pytest.mark.parametrize("widths", [(3, 3, 3), (8, 64, 8), (4, 40, 3)], ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["along the axes", "turned"])
def test_exact_solutions_know_it_or_say_so(dtype, scale, widths, turned) -> None:
    """u = s/(1 + (s/u_0 - 1) e^{-2st}) of the small modes, and what gradient flow learns in the end of any start."""
    task = task_of(widths[0], widths[-1], turned=turned)
    found = starts(task, widths, scale, turned=turned)
    times = np.array([0.0, 1.0, 10.0, 30.0, 400.0])
    for name, layers in found.items():
        weights = cast(layers, dtype)
        try:
            solution = solve(task, weights)
        except dln.NotApplicable:
            assert turned or name.startswith("dense")
            continue
        run = solution.evaluate(times)
        np.testing.assert_allclose(run.strengths[0, -1, : len(S)], S, rtol=1e-6)
        if name.startswith("dense"):
            continue
        for k in range(3):
            u0 = run.strengths[0, 0, k]
            with np.errstate(over="ignore", divide="ignore"):
                u = S[k] / (1 + (S[k] / u0 - 1) * np.exp(-2 * S[k] * times))
            np.testing.assert_allclose(run.strengths[0, :, k], u, rtol=1e-5 if dtype == "f4" else 1e-9)


def test_members_decide_by_the_length_of_their_own_run() -> None:
    """What has no time to grow is left out, in the runs that are short enough; each has the bits it has alone."""
    task = task_of(8, 8, turned=True)
    layers = [w.copy() for w in aligned(task, (64,), np.array([1.4, 0, 0]), turned=True)]
    rates = np.array([1e-5, 3e-4, 1e-2, 2e-2])
    run = dln.gradient_descent(task, dln.Weights(layers), lr=rates, steps=3000, at=[3000])
    assert [bool(names) for names in run.reduced] == [True, True, False, False]
    for i, lr in enumerate(rates):
        alone = dln.gradient_descent(task, dln.Weights(layers), lr=lr, steps=3000, at=[3000])
        assert alone.reduced[0] == run.reduced[i]
        np.testing.assert_array_equal(alone.strengths[0], run.strengths[i])


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_eigenvectors_that_lie_on_few_inputs_are_no_obstacle(seed, depth) -> None:
    """Layers are orthogonal to modes they do not hold to rounding of whole columns, not of the few entries there."""
    rng = np.random.default_rng(seed)
    n = 24
    deviations = 10.0 ** -rng.uniform(0, 5, n)
    deviations[rng.choice(n, 5, replace=False)] = 0.0  # inputs that are always the same
    sigma = np.cov(rng.standard_normal((n, 200)) * deviations[:, None])
    task = dln.Task.from_covariances(sigma, sigma, np.trace(sigma))
    hidden, a = 8, 0.3
    U, _, V = (x[..., :8] for x in task.modes)
    R = np.linalg.qr(rng.standard_normal((hidden, hidden)))[0]
    weights = dln.Weights([R @ (a * V.T), *[R @ (a * R.T)] * (depth - 2), a * U @ R.T])
    t = np.array([0.5, 2.0, 6.0]) / task.modes.s[0]
    whole = dln.gradient_flow(task, weights, t, reduce="none", rtol=1e-11)
    alone = dln.gradient_flow(task, weights, t, reduce="decoupled", rtol=1e-11)
    np.testing.assert_allclose(alone.loss, whole.loss, rtol=1e-8)
    if depth == 2:
        np.testing.assert_allclose(dln.exact.solve(task, weights).evaluate(t).loss, whole.loss, rtol=1e-8)


TINY = [("f8", 1e-150), ("f8", 1e-160), ("f8", 1e-200), ("f8", 1e-300), ("f4", 1e-20), ("f4", 1e-30), ("f4", 1e-37)]


def half_times(scale: float) -> np.ndarray:
    """When u = ε² e^{2st}/(1 + ε² (e^{2st} - 1)/s) of each mode is s/2, in the order of the modes."""
    return np.asarray((np.log(S) - 2 * np.log(scale)) / (2 * S))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("dtype", "scale"), TINY)
def test_starts_whose_squares_do_not_exist_are_followed(dtype: str, scale: float, turned: bool) -> None:
    """A solution that applies is right however small the start: every mode half learned when it should be."""
    task = task_of(8, 7, turned=turned)
    w = cast(aligned(task, (20,), np.full(3, scale), turned=turned), dtype)
    half = half_times(scale)
    ways = {
        "exact": lambda t: solve(task, w).evaluate(t),
        "balanced": lambda t: dln.gradient_flow(task, w, t, reduce="balanced"),
    }
    if not turned:  # entries that are not zero carry a rounding error of what has been learned, and learn from it
        ways |= {
            reduce: lambda t, reduce=reduce: dln.gradient_flow(task, w, t, reduce=reduce)
            for reduce in ("none", "auto", "width")
        }
    bound = {"f8": 3e-7, "f4": 3e-3}[dtype]
    for name, way in ways.items():
        run = way(half[:3])
        assert run.status.tolist() == [dln.Status.COMPLETED], name
        u = np.diagonal(run.strengths[0])
        assert np.abs(u / S - 0.5).max() < bound, (name, u)


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize(("dtype", "scale"), [*TINY, ("f8", 1e-320), ("f4", 1e-44)])
def test_starts_whose_squares_do_not_exist_are_judged_by_their_entries(dtype: str, scale: float, depth: int) -> None:
    """Layers that are not balanced are not called so because the squares of their entries are zero."""
    task = task_of(5, 4, turned=True)
    rng = np.random.default_rng(0)
    widths = (5, *(4,) * depth)
    w = cast([scale * rng.normal(size=(n, m)) for m, n in pairwise(widths)], dtype)
    with pytest.raises(dln.NotApplicable):
        solve(task, w)
    with pytest.raises(ValueError, match=r"^reduce: expected balanced starts"):
        dln.gradient_flow(task, w, [0, 1], reduce="balanced")


@pytest.mark.parametrize("reduce", ["auto", "none"])
@pytest.mark.parametrize("widths", [(3, 3, 3), (8, 64, 8), (8, 5, 4)])
@pytest.mark.parametrize(("dtype", "scale"), [TINY[2], TINY[3], TINY[6]])
def test_dense_starts_whose_squares_do_not_exist_learn_everything(
    dtype: str, scale: float, widths: tuple[int, ...], reduce: str
) -> None:
    task = task_of(widths[0], widths[-1], turned=True)
    rng = np.random.default_rng(widths)
    w = cast([scale * rng.normal(size=(n, m)) for m, n in pairwise(widths)], dtype)
    end = float(half_times(scale).max()) + 40
    for run in (
        dln.gradient_flow(task, w, [0, end], reduce=reduce),
        dln.gradient_descent(task, w, lr=0.1, steps=round(end / 0.1), reduce=reduce, record="strengths"),
    ):
        assert run.status.tolist() == [dln.Status.COMPLETED]
        np.testing.assert_allclose(run.strengths[0, -1], S, rtol=0, atol={"f8": 1e-7, "f4": 1e-4}[dtype])
