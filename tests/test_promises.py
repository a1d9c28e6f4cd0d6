"""Digits that docstrings promise: each is looked at closely enough that a tenfold worse result fails."""

from __future__ import annotations

import itertools

import mpmath as mp
import numpy as np
import pytest
from ensembles import some_task, starts

import pydln as dln
from pydln import exact, init, spectra
from pydln.exact.balanced_two_layers import BalancedTwoLayers
from pydln.exact.start import Start
from pydln.exact.two_layer_mode import two_layer_mode

EPS = float(np.finfo(np.float64).eps)
DIGITS = 400  # gaps of 1e-300 are differences


# ---- closed forms of one mode ------------------------------------------------------------------------------------


def mode(a0: float, b0: float, s: float, t: float) -> tuple[mp.mpf, mp.mpf, mp.mpf]:
    """Layers and s - ab: (a, b) = V (e^{wt} z) / √(1 + Σ z² (e^{2wt} - 1) / 2w), w = ±√(s² + λ²/4)."""
    a, b, s, t = (mp.mpf(x) for x in (a0, b0, s, t))
    half = (b * b - a * a) / 2
    w = mp.sqrt(s * s + half * half)
    if w == 0:
        return a, b, s - a * b
    # F = [[-λ/2, s], [s, λ/2]]
    angle = mp.atan2(s, -half) / 2
    upper, lower = mp.cos(angle), mp.sin(angle)
    along, across = a * upper + b * lower, -a * lower + b * upper
    root = mp.sqrt(1 + along**2 * mp.expm1(2 * w * t) / (2 * w) - across**2 * mp.expm1(-2 * w * t) / (2 * w))
    plus, minus = along * mp.exp(w * t) / root, across * mp.exp(-w * t) / root
    now = plus * upper - minus * lower, plus * lower + minus * upper
    return (*now, s - now[0] * now[1])


STARTS = {
    "small": [(1e-9, 2e-9), (1e-150, 3e-12), (0.0, 1e-5)],
    "opposed": [(0.7, -0.7 * (1 + d)) for d in (1e-1, 1e-4, 1e-9, 1e-14)] + [(-1e-6, 1.5e-6), (2.0, -0.1)],
    "from far": [(1e12, 1e-3), (3e12, -2e12), (-2.5, 1e12), (1e12, 1e12)],
    "learned": [(1.0, 1.5 * (1 + 1e-9)), (0.3, 5.0)],
}


@pytest.mark.parametrize("kind", STARTS)
def test_layers_and_what_is_left_to_learn_of_a_two_layer_mode(kind) -> None:
    """Every number to its own last digits, but for what the rounding of the exponent w t makes of it."""
    with mp.workdps(DIGITS):
        instants = (0.0, 1e-13, 1e-3, 0.3, 2.0, 9.0, 30.0)
        for (a0, b0), s, times in itertools.product(STARTS[kind], (1.5, -0.4), instants):
            wanted = mode(a0, b0, s, times)
            found = two_layer_mode(*(np.array([x]) for x in (a0, b0, s, times)))
            w = float(mp.sqrt(mp.mpf(s) ** 2 + (mp.mpf(a0) ** 2 - mp.mpf(b0) ** 2) ** 2 / 4))
            # Of a start opposed to itself a0 + b0 is what is left, exactly: nothing else may be lost.
            allowed = 20 * EPS * (1 + min(w * times, 700.0))
            size = abs(float(wanted[0])) + abs(float(wanted[1]))
            for name, got, want in zip(("a", "b"), (found.a, found.b), wanted[:2], strict=True):
                assert abs(mp.mpf(float(got[0])) - want) <= allowed * (abs(want) + 1e-3 * size * EPS), (
                    f"{name} of {a0, b0, s, times}: {got[0]!r}, {mp.nstr(want, 18)}"
                )
            off = abs(mp.mpf(float(found.gap[0])) - wanted[2])
            # The product of the start is rounded, once: that part of s - a0 b0 falls as the rest of it does.
            first = mp.mpf(s) - mp.mpf(a0) * mp.mpf(b0)
            rounded = EPS * abs(mp.mpf(a0) * b0 * wanted[2] / first) if first else 0
            assert off <= 10 * allowed * abs(wanted[2]) + rounded + mp.mpf("1e-300"), (
                f"s - ab of {a0, b0, s, times}: {found.gap[0]!r}, {mp.nstr(wanted[2], 18)}"
            )


@pytest.mark.parametrize("name", ["one layer", "aligned, two layers", "aligned and balanced"])
def test_the_loss_has_its_digits_down_to_the_floor(name) -> None:
    """L - floor = 1/2 Σ (s - u)² falls by a hundred decades, and is known to its own digits all the way."""
    s = np.array([2.0, 1.3])
    task = dln.Task.from_spectrum(s, 3, 2, seed=1)
    assert task.floor == 0
    depth = {"one layer": 1, "aligned, two layers": 2, "aligned and balanced": 3}[name]
    u0 = np.array([0.1, 0.4])
    weights = init.aligned(task, depth=depth, strength=u0[None])
    if name == "one layer":
        weights = dln.Weights([np.zeros((1, 2, 3))])
        u0 = np.zeros(2)
    solution = exact.solve(task, weights)
    assert solution.name == name
    t = np.array([0.0, 0.5, 2.0, 10.0, 30.0, 90.0]) / (1 if depth < 3 else 2.5)
    loss = solution.evaluate(t).loss[0]
    with mp.workdps(DIGITS):
        for k, time in enumerate(t):
            gaps = []
            for one, start in zip(s, u0, strict=True):
                if depth == 1:
                    gaps.append((mp.mpf(one) - start) * mp.exp(-mp.mpf(time)))
                elif depth == 2:
                    gaps.append(mode(np.sqrt(start), np.sqrt(start), one, time)[2])
                else:
                    gaps.append(mp.mpf(one) - balanced(mp.mpf(start), mp.mpf(one), mp.mpf(time), depth))
            wanted = sum(g * g for g in gaps) / 2
            assert abs(mp.mpf(float(loss[k])) / wanted - 1) < 2e-12, time
    assert loss[-1] < (1e-70 if depth == 1 else 1e-100)


def test_one_layer_keeps_the_digits_of_its_start_and_of_its_end() -> None:
    """Ω = Ω_0 + (1 - e^{-dt}) (Ω* - Ω_0), where one of the two is a trillion times the other."""
    d, s = np.array([0.5, 2.0]), np.array([1.3, 0.4])
    for small_start in (True, False):
        first, last = (1e-12 * s[::-1], s) if small_start else (s[::-1], 1e-12 * s)
        task = dln.Task.from_covariances(np.diag(d), np.diag(last * d), 9.0)
        solution = exact.solve(task, dln.Weights([np.diag(first)]))
        times = np.array([0.0, 1e-13, 1e-9, 0.3, 3.0, 50.0, 200.0])
        found = np.diagonal(solution.evaluate(times, record="product").product[0], axis1=1, axis2=2)
        with mp.workdps(60):
            for (k, t), i in itertools.product(enumerate(times), range(2)):
                left = mp.exp(-mp.mpf(d[i]) * mp.mpf(t))
                wanted = mp.mpf(last[i] * d[i]) / mp.mpf(d[i]) * (1 - left) + mp.mpf(first[i]) * left
                assert abs(mp.mpf(float(found[k, i])) / wanted - 1) < 1e-14 * (1 + d[i] * t), (small_start, t, i)


def balanced(u0: mp.mpf, s: mp.mpf, t: mp.mpf, depth: int) -> mp.mpf:
    """u(t) of du/dt = D u^(2-2/D) (s - u), D = 3, by its integral: with z = u^{1/3}, dt = dz / (z² (s - z³))."""
    c = mp.cbrt(s)

    def primitive(gap: mp.mpf) -> mp.mpf:  # gap = c - z
        z = c - gap
        logs = mp.log(z * z + c * z + c * c) / 2 - mp.log(gap)
        turn = mp.sqrt(3) * mp.atan((2 * z + c) / (mp.sqrt(3) * c))
        return -1 / (s * z) + (logs - turn) / (3 * c**4)

    assert depth == 3
    first = primitive(c - mp.cbrt(u0))
    low, high = mp.mpf("-1000"), mp.log(c - mp.cbrt(u0))  # ln of the gap
    for _ in range(70):
        middle = (low + high) / 2
        low, high = (middle, high) if primitive(mp.exp(middle)) - first > t else (low, middle)
    z_gap = mp.exp(high)
    # s - z³ with the digits of the gap
    return s - z_gap * (3 * c * c - 3 * c * z_gap + z_gap**2)


def test_the_moment_of_escape_is_as_promised() -> None:
    """`escape_times` of the balanced two-layer solution, to 1e-12 relative."""
    s = np.array([3.0, 1.1, 0.6])
    task = dln.Task.from_spectrum(s, 4, 3, seed=2)
    u0 = np.array([1e-6, 1e-3, 0.01])
    U, _, V = task.modes
    weights = init.balanced((U * u0) @ V.T, depth=2)
    for fraction in (0.1, 0.5, 0.9):
        found = BalancedTwoLayers(Start(task, weights)).escape_times(fraction)[0]
        wanted = np.log(fraction / (1 - fraction) * (s - u0) / u0) / (2 * s)
        np.testing.assert_allclose(found, wanted, rtol=3e-12)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_exact_solutions_satisfy_their_equation_to_rounding(depth) -> None:
    """`Solution.residual`: rounding leaves some 1e-13."""
    task = dln.Task.from_spectrum([2.0, 1.0], 4, 3, seed=1)
    weights = starts((4, 3), 2) if depth == 1 else init.aligned(task, depth=depth, strength=[0.05, 0.3])
    assert exact.solve(task, weights).residual(np.linspace(0, 4, 9)).max() < 1e-12


# ---- how far a start may be from what a solution needs -----------------------------------------------------------


def test_conditions_hold_up_to_their_tolerance_and_no_further() -> None:
    """Σ_xx = I, λ-balance and alignment to 1e-12, in float32 but for Σ_xx to 4e-6: a third holds, five times not."""
    base = dln.Task.from_spectrum([2.0, 1.0, 0.5], 3, 3, seed=1)
    product = 0.3 * np.random.default_rng(0).normal(size=(3, 3))
    for dtype, tol in (("f8", 1e-12), ("f4", 4e-6)):
        lam = init.lambda_balanced(product, imbalance=0.2, dtype=dtype)
        plain = init.aligned(base, depth=2, strength=0.3, dtype=dtype)
        for part, holds in ((1 / 3, True), (5.0, False)):
            off = np.random.default_rng(1).normal(size=(3, 3))
            off *= part * tol / np.linalg.norm(off)
            last = lam.layers[1] + np.linalg.norm(lam.layers[1]) * off
            moved = dln.Weights([lam.layers[0], last.astype(dtype)])
            names = {c.name: c.applies for c in exact.candidates(base, moved)}
            assert names["balanced, two layers"] == holds, (dtype, part)
            moved = dln.Weights([plain.layers[0], (plain.layers[1] + off).astype(dtype)])
            names = {c.name: c.applies for c in exact.candidates(base, moved)}
            assert names["aligned, two layers"] == holds, (dtype, part)
            if dtype == "f8":
                task = dln.Task.from_covariances(np.eye(3) + 0.5 * (off + off.T), base.sigma_yx, 9.0)
                names = {c.name: c.applies for c in exact.candidates(task, lam)}
                assert names["balanced, two layers"] == holds, part


# ---- gradient flow -------------------------------------------------------------------------------------------------


def test_the_moment_of_a_stop_of_modes_is_found_to_a_hundredth_of_rtol() -> None:
    """Beside the same integrations, bisected to the last digit."""
    rng = np.random.default_rng(0)
    batch, rtol = 400, 1e-3
    a, s = rng.uniform(0.1, 0.6, size=(batch, 1, 4)), rng.uniform(1.0, 3.0, size=(batch, 1))
    limit = 0.5 * (s[:, 0] * rng.uniform(0.1, 0.7, batch)) ** 2
    t = np.linspace(0, 40, 6)
    run = dln.mode_flow(s, a, t, rtol=rtol, stop=dln.Stop(loss=limit))
    assert (run.status == dln.Status.REACHED_LOSS).all()
    when = run.stopped_time

    def above(time: np.ndarray) -> np.ndarray:
        pace = time[:, None]
        # The same flow, so many times as fast: its steps are those of an integration that ends at `time`.
        now = dln.mode_flow(s * pace, a, [1.0], variances=np.broadcast_to(pace, s.shape), rtol=rtol)
        return 0.5 * (s[:, 0] - now.strengths[:, 0, 0]) ** 2 > limit

    low, high = when * (1 - 0.05 * rtol), when * (1 + 0.05 * rtol)
    assert above(low).mean() > 0.95
    assert above(high).mean() < 0.05
    for _ in range(20):
        middle = 0.5 * (low + high)
        up = above(middle)
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    error = np.abs(when / high - 1)
    assert np.median(error) < 0.01 * rtol
    assert np.quantile(error, 0.95) < 0.01 * rtol


def test_defaults_of_the_integrator() -> None:
    """rtol 1e-8, in float32 1e-4; the first step a hundredth of the time in which the start moves by its own size."""
    task, weights = some_task(4, 3, whiten=True), starts((4, 5, 3), 3)
    for dtype, rtol in (("f8", 1e-8), ("f4", 1e-4)):
        run = dln.gradient_flow(task, weights.astype(dtype), [1.0])
        same = dln.gradient_flow(task, weights.astype(dtype), [1.0], rtol=rtol)
        np.testing.assert_array_equal(run.loss, same.loss)
        assert run.settings["rtol"] == rtol


def test_about_two_hundred_records_by_default() -> None:
    task, weights = some_task(3, 2, whiten=True), starts((3, 2), 1)
    for steps in (1, 7, 199, 200, 201, 399, 400, 1000, 12345):
        run = dln.gradient_descent(task, weights, lr=1e-3, steps=steps)
        assert min(steps, 199) <= len(run.steps) <= 401
        assert (run.steps[0], run.steps[-1]) == (0, steps)
        gaps = np.diff(run.steps)
        assert (gaps[:-1] == gaps[0]).all()
        assert gaps[-1] <= gaps[0]


# ---- tasks and starts ------------------------------------------------------------------------------------------------


def test_noise_free_targets_leave_a_floor_of_rounding() -> None:
    rng = np.random.default_rng(0)
    for scale in (1.0, 1e-3):
        x = rng.normal(size=(30, 5)) * [1, 1, 1, scale, scale]
        task = dln.Task.from_data(x, x @ rng.normal(size=(5, 3)))
        assert task.floor <= 1e-30 * task.trace_yy


def test_the_loss_of_a_task_keeps_its_digits_near_the_minimum() -> None:
    """1/2 tr(Δ Σ_xx Δᵀ) at Ω* + Δ, down to where Ω* + Δ has no digits of Δ."""
    rng = np.random.default_rng(0)
    omega, off = np.round(rng.normal(size=(3, 5)), 3), np.sign(rng.normal(size=(3, 5)))
    omega = np.round(omega * 2**10) / 2**10
    task = dln.Task.from_covariances(None, omega, float(np.sum(omega**2)))
    for k in range(4, 40):
        size = 2.0**-k
        assert task.loss(omega + size * off) == pytest.approx(0.5 * 15 * size**2, rel=1e-13)


def test_float32_costs_a_start_all_but_seven_digits() -> None:
    """Balanced starts: product and balance; aligned ones: modes coupled by about 1e-8 of the largest strength."""
    product = np.random.default_rng(0).normal(size=(4, 6))
    task = dln.Task.from_spectrum([3.0, 2.0, 1.0], 6, 4, seed=0)
    for make in (
        lambda: init.balanced(product, depth=3, width=20, dtype="f4"),
        lambda: init.lambda_balanced(product, imbalance=0.0, width=20, dtype="f4"),
    ):
        weights = make()
        layers = [w[0].astype(np.float64) for w in weights.layers]
        omega = layers[0]
        for w in layers[1:]:
            omega = w @ omega
        assert 1e-9 < np.linalg.norm(omega - product) / np.linalg.norm(product) < 1e-6
        for below, above in itertools.pairwise(layers):
            off = np.linalg.norm(above.T @ above - below @ below.T) / np.linalg.norm(below) ** 2
            assert 1e-9 < off < 1e-6
    layers = [w[0].astype(np.float64) for w in init.aligned(task, depth=3, width=200, strength=1.0, dtype="f4").layers]
    coupled = task.modes.U.T @ layers[2] @ layers[1] @ layers[0] @ task.modes.V
    assert np.abs(coupled - np.diag(np.diag(coupled))).max() < 1e-7


# ---- spectra --------------------------------------------------------------------------------------------------------


def test_singular_values_to_rounding_of_the_largest() -> None:
    rng = np.random.default_rng(0)
    worst = 0.0
    with mp.workdps(40):
        for n, m in ((2, 2), (3, 5), (6, 4), (7, 7)):
            matrix = rng.normal(size=(n, m)) * 10.0 ** rng.uniform(-6, 0, size=m)
            wanted = mp.svd_r(mp.matrix(matrix.tolist()), compute_uv=False)
            found = spectra.singular_values(matrix[None])[0]
            largest = max(wanted)
            worst = max(
                worst, *(float(abs(mp.mpf(float(f)) - w) / largest) for f, w in zip(found, wanted, strict=True))
            )
    assert worst < 3e-15


def test_kernel_distance_is_some_eps_off() -> None:
    task, weights = some_task(5, 3, whiten=False), starts((5, 6, 3), 20)
    for dtype, eps in (("f8", EPS), ("f4", float(np.finfo(np.float32).eps))):
        run = dln.gradient_descent(task, weights.astype(dtype), lr=1e-2, steps=1, at=[0], record="kernel_distance")
        assert np.abs(run.kernel_distance).max() <= 20 * eps
