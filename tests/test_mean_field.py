"""Lengths and correlations in wide networks: closed forms, mpmath, theorems about the maps, networks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from pydln import init, propagation
from pydln.activations import ACTIVATIONS, LEAK, Activation, activation
from pydln.propagation import (
    chi,
    correlation_fixed_point,
    correlation_map,
    correlation_slope,
    depth_scales,
    edge_of_chaos,
    fixed_point,
    gaussian_mean,
    length_map,
    length_slope,
    phase_diagram,
    propagate,
)
from pydln.propagation.roots import bracketed_root

Q = np.array([1e-8, 0.04, 0.9, 3.0, 30.0, 4e4])

SMOOTH = {
    "tanh": mpmath.tanh,
    "gelu": lambda x: x * mpmath.ncdf(x),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
}


def exact_mean(f: Callable[[Any], Any], q: float) -> float:
    """E[f(√q z)] to 25 digits, by mpmath on intervals that shrink towards x = 0."""
    with mpmath.workdps(25):
        sd = mpmath.sqrt(mpmath.mpf(q))
        cuts = {mpmath.mpf(2) ** j / sd for j in range(-1, 12)} | {mpmath.mpf(k) for k in (1, 2, 4, 6, 8, 11)}
        right = [mpmath.mpf(0), *sorted(cut for cut in cuts if cut <= 11)]
        line = [-cut for cut in reversed(right[1:])] + right
        return float(mpmath.quad(lambda z: f(sd * z) * mpmath.npdf(z), line))


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_means_against_mpmath_within_the_error_they_state(name: str) -> None:
    phi = activation(name)
    mean = gaussian_mean(lambda x: phi.value(x) ** 2, Q)
    exact = np.array([exact_mean(lambda x: SMOOTH[name](x) ** 2, q) for q in Q])
    assert (np.abs(mean.value - exact) <= mean.error + 2e-16 * exact).all()
    assert (mean.error <= 1e-14 * exact).all(), "and the error is small"


def test_means_in_closed_form() -> None:
    for name, expected in {"linear": Q, "relu": Q / 2, "leaky_relu": Q * (1 + LEAK**2) / 2}.items():
        phi = activation(name)
        np.testing.assert_allclose(length_map(Q, phi, 1.0), expected, rtol=1e-14)
    # E erf² = (2/π) arcsin(2q/(1 + 2q)) (Williams 1997)
    np.testing.assert_allclose(length_map(Q, "erf", 1.0), 2 / np.pi * np.arcsin(2 * Q / (1 + 2 * Q)), rtol=1e-13)
    np.testing.assert_allclose(chi(Q, "erf", 1.0), 4 / np.pi / np.sqrt(1 + 4 * Q), rtol=1e-13)
    for power, expected in ((2, 1.0), (4, 3.0), (8, 105.0)):
        mean = gaussian_mean(lambda x, n=power: x**n, 2.0)
        assert mean.value == pytest.approx(expected * 2.0 ** (power / 2), rel=1e-14)


@pytest.mark.parametrize("variance", [0.01, 1.0, 50.0])
def test_kinks_anywhere_are_split_at(variance: float) -> None:
    """E|√q z - k| = 2√q density(k/√q) + k (2Φ(k/√q) - 1)."""
    k, sd = 0.3, np.sqrt(variance)
    exact = float(2 * sd * mpmath.npdf(k / sd) + k * (2 * mpmath.ncdf(k / sd) - 1))
    mean = gaussian_mean(lambda x: np.abs(x - k), variance, kinks=[k])
    assert abs(float(mean.value) - exact) <= float(mean.error) + 1e-16
    assert mean.error < 1e-13
    blind = gaussian_mean(lambda x: np.abs(x - k), variance)
    assert abs(float(blind.value) - exact) <= float(blind.error), "a kink that is not named shows in the error"
    assert blind.error > 1e-9


def test_an_unresolved_function_states_a_large_error() -> None:
    mean = gaussian_mean(lambda x: np.cos(30000 * x), 1.0)
    assert abs(float(mean.value)) <= 2 * float(mean.error)
    assert mean.error > 1e-3
    growing = gaussian_mean(lambda x: np.exp(1.5 * x), 25.0)
    assert abs(float(growing.value) - np.exp(1.5**2 * 25 / 2)) <= float(growing.error)


@pytest.mark.parametrize("steep", [0.01, 3.0, 64.0, 1e3, 1e4])
def test_steep_functions_are_resolved(steep: float) -> None:
    """E tanh(kx)² at q is E tanh(x)² at k²q: no rule may miss what is narrow about 0."""
    q = np.array([1e-3, 0.5, 8.9, 1e3])
    found = gaussian_mean(lambda x: np.tanh(steep * x) ** 2, q)
    exact = gaussian_mean(lambda x: np.tanh(x) ** 2, steep**2 * q)
    assert (np.abs(found.value - exact.value) <= found.error + exact.error).all()
    if steep <= 64:
        assert (found.error <= 1e-14).all()
    oscillating = gaussian_mean(lambda x: np.cos(5 * x), q)
    assert (np.abs(oscillating.value - np.exp(-12.5 * q)) <= oscillating.error).all()
    assert (oscillating.error[:3] < 1e-13).all()


def test_a_mean_does_not_depend_on_its_neighbours() -> None:
    f = activation("tanh").value
    for kinks in ((), (0.5,)):
        together = gaussian_mean(lambda x: f(x) ** 2, Q, kinks=kinks)
        for i, q in enumerate(Q):
            alone = gaussian_mean(lambda x: f(x) ** 2, q, kinks=kinks)
            assert (alone.value, alone.error) == (together.value[i], together.error[i])


@pytest.mark.parametrize(
    ("f", "variance", "kinks", "message"),
    [
        (np.tanh, -1.0, (), "variance: expected a number >= 0, got -1.0"),
        (np.tanh, 1.0, [np.nan], r"kinks\[0\]: expected a finite number"),
        (lambda x: x.ravel()[:3], 1.0, (), r"f: expected an array of shape .* back, got "),
        (lambda x: np.where(x > 1, np.inf, x), 1.0, (), "f: expected finite values, got inf at "),
    ],
)
def test_wrong_means_are_refused(f: Any, variance: Any, kinks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gaussian_mean(f, variance, kinks=kinks)


# --- lengths ---------------------------------------------------------------------------------------------------------


def test_fixed_points_of_the_paper() -> None:
    g = [1.01, 1.05, 1.1, 1.5, 2.0]
    np.testing.assert_allclose(fixed_point("tanh", g), [0.010133, 0.053250, 0.112750, 0.793354, 2.121474], atol=5.1e-7)
    assert (fixed_point("tanh", [0.0, 0.3, 0.999999, 1.0]) == 0).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_fixed_point_is_one_and_is_where_iteration_goes(name: str) -> None:
    w, b = np.meshgrid([0.3, 0.8, 1.2, 1.39, 3.0], [0.0, 0.2, 1.0])
    for start in (0.05, 5.0):
        found = fixed_point(name, w, b, start=start)
        alive = np.isfinite(found) & (found > 0)
        np.testing.assert_allclose(length_map(found[alive], name, w[alive], b[alive]), found[alive], rtol=2e-14)
        q = np.full(w.shape, start)
        for _ in range(400):
            q = np.minimum(length_map(q, name, w, b), 1e12)
        settled = np.abs(length_slope(np.where(np.isfinite(found), found, 1.0), name, w)) < 0.95
        np.testing.assert_allclose(q[alive & settled], found[alive & settled], rtol=1e-7)
        assert (q[np.isinf(found)] > 1e3 * start).all()
        assert (q[found == 0] < start).all()


def test_critical_slowing_costs_no_digits() -> None:
    """Near g = 1 the map of tanh is q - 2q² + …: q* = (g² - 1)/2 + O((g² - 1)²), over twelve decades."""
    excess = np.geomspace(1e-10, 1e-2, 9)
    found = fixed_point("tanh", np.sqrt(1 + excess))
    np.testing.assert_allclose(found, excess / 2, rtol=1.6e-6 + 1.5 * excess.max())
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found[:3], excess[:3] / 2, rtol=1e-4)


@pytest.mark.parametrize("start", [1e-99, 1e-17, 1e-15, 1e-9, 1.0, 1e80])
def test_at_criticality_the_limit_does_not_depend_on_the_start(start: float) -> None:
    """V(q)/q - 1 is -2q for tanh at σ_w = 1 and 6q/π for gelu at σ_w = 2: rounding for a small q, and yet a way."""
    assert fixed_point("tanh", 1.0, start=start) == 0
    assert fixed_point("erf", np.sqrt(np.pi) / 2, start=start) == 0
    assert fixed_point("gelu", 2.0, start=start) == np.inf
    assert fixed_point("softplus", np.sqrt(2), start=start) == np.inf
    assert fixed_point("relu", np.sqrt(2), 0.1, start=start) == np.inf
    assert fixed_point("tanh", 1.1, start=start) == pytest.approx(0.112750, abs=5e-7)
    for name in ("linear", "relu"):
        gain = {"linear": 1.0, "relu": np.sqrt(2)}[name]
        assert fixed_point(name, gain, start=start) == start, "every length is kept"
    resting = fixed_point("tanh", 1.3, 0.2, start=start)
    assert fixed_point("tanh", 1.3, 0.2, start=resting) == pytest.approx(float(resting), rel=1e-14)


def test_lengths_from_the_smallest_biases_to_the_largest_weights() -> None:
    np.testing.assert_allclose(fixed_point("tanh", 0.5, [1e-20, 1e-90]), np.array([1e-40, 1e-180]) / 0.75, rtol=1e-13)
    np.testing.assert_allclose(fixed_point("softplus", 1e-60), np.log(2) ** 2 * 1e-120, rtol=1e-13)
    np.testing.assert_allclose(fixed_point("tanh", 1e50, [0.0, 1e50]), [1e100, 2e100], rtol=1e-13)
    assert fixed_point("relu", 1e50) == np.inf
    assert np.isfinite(depth_scales("tanh", 1e50, 1.0).xi_c)


def test_lengths_that_end_at_zero_at_infinity_or_nowhere() -> None:
    root = np.sqrt(2)
    assert fixed_point("relu", [1.0, 1.4, 1.5]).tolist() == [0.0, 0.0, np.inf]
    np.testing.assert_allclose(fixed_point("relu", 1.0, 0.5), 0.25 / (1 - 0.5), rtol=1e-14)
    assert fixed_point("relu", root, 0.1) == np.inf
    assert fixed_point("relu", root, start=3.7) == 3.7, "at the He scale every length is kept"
    assert fixed_point("linear", 1.0, start=0.2) == 0.2
    # Two basins: at small q gelu is x/2, at large q it is relu.
    assert fixed_point("gelu", 1.6, start=[1e-3, 1e3]).tolist() == [0.0, np.inf]
    assert np.isfinite(fixed_point("tanh", 1e6))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_slope_is_the_derivative_of_the_length_map(name: str) -> None:
    q = np.array([0.02, 0.7, 4.0, 60.0])
    h = 1e-4 * q
    numeric = (length_map(q + h, name, 1.3) - length_map(q - h, name, 1.3)) / (2 * h)
    np.testing.assert_allclose(length_slope(q, name, 1.3), numeric, rtol=1e-7)


def test_slopes_at_zero_and_infinity_are_limits() -> None:
    for name, at_zero, at_infinity in (("relu", 0.5, 0.5), ("gelu", 0.25, 0.5), ("tanh", 1.0, 0.0)):
        assert chi(0.0, name, 1.0) == pytest.approx(at_zero, rel=1e-14)
        assert length_slope(0.0, name, 1.0) == pytest.approx(at_zero, rel=1e-14)
        assert chi(np.inf, name, 1.0) == pytest.approx(at_infinity, abs=1e-15)


# --- correlations ----------------------------------------------------------------------------------------------------

C = np.array([-1.0, -0.999, -0.4, 0.0, 0.3, 0.9, 0.999, 1 - 1e-6, 1.0])


def arc_cosine(c: Any) -> Any:
    """E[relu relu]/(q/2) (Cho & Saul 2009)."""
    angle = np.arccos(c)
    return (np.sin(angle) + (np.pi - angle) * c) / np.pi


def test_correlations_in_closed_form() -> None:
    for q in (1e-3, 1.0, 200.0):
        np.testing.assert_allclose(correlation_map(C, q, "relu", 1.7), arc_cosine(C), atol=2e-15)
        leaky = (arc_cosine(C) * (1 - LEAK) ** 2 / 2 + LEAK * C) * 2 / (1 + LEAK**2)
        np.testing.assert_allclose(correlation_map(C, q, "leaky_relu", 0.6), leaky, atol=2e-15)
        np.testing.assert_allclose(correlation_slope(C, q, "relu", 1.0), (1 - np.arccos(C) / np.pi) / 2, atol=1e-15)
        np.testing.assert_allclose(correlation_map(C, q, "linear", 2.0), C, atol=1e-13)
        kernel = np.arcsin(2 * q * C / (1 + 2 * q)) / np.arcsin(2 * q / (1 + 2 * q))
        np.testing.assert_allclose(correlation_map(C, q, "erf", 1.0), kernel, atol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "gelu", "softplus"])
def test_correlations_against_a_double_integral(name: str) -> None:
    """Gauss-Hermite over both inputs, which converges to 1e-11 at q = 0.5: independent of series and panels."""
    phi = activation(name)
    z, weights = np.polynomial.hermite_e.hermegauss(90)
    weights = weights / weights.sum()
    q, c = 0.5, 0.37
    other = c * z[:, None] + np.sqrt(1 - c * c) * z
    product = weights @ (phi.value(np.sqrt(q) * z)[:, None] * phi.value(np.sqrt(q) * other)) @ weights
    slope = weights @ (phi.derivative(np.sqrt(q) * z)[:, None] * phi.derivative(np.sqrt(q) * other)) @ weights
    expected = (1.3**2 * product + 0.2**2) / length_map(q, name, 1.3, 0.2)
    assert correlation_map(c, q, name, 1.3, 0.2) == pytest.approx(expected, rel=1e-10)
    assert correlation_slope(c, q, name, 1.3) == pytest.approx(1.3**2 * slope, rel=1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_series_and_panels_agree(name: str) -> None:
    """The same φ with a kink that is none goes the other way."""
    phi = activation(name)
    marked = Activation(name, phi.value, phi.derivative, odd=phi.odd, kinks=(*phi.kinks, 0.7))
    for q in (0.3, 5.0):
        args = (C, q), (1.4, 0.3)
        ours, theirs = (correlation_map(*args[0], one, *args[1]) for one in (phi, marked))
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
        np.testing.assert_allclose(
            correlation_slope(C, q, phi, 1.4), correlation_slope(C, q, marked, 1.4), rtol=1e-11, atol=1e-12
        )


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("sigma_b", [0.2, 0.6])
def test_chi_is_the_slope_of_the_correlation_map_at_one(name: str, sigma_b: float) -> None:
    w = 1.2
    q = float(fixed_point(name, w, sigma_b))
    if np.isinf(q):  # linear
        q = 1.0
    rise = chi(q, name, w) * q / length_map(q, name, w, sigma_b)
    y = np.array([1e-4, 1e-6, 1e-8])
    slope = (1 - correlation_map(1 - y, q, name, w, sigma_b)) / (1 - (1 - y))
    # Twice differentiable φ have a parabola there, kinks a term y^{3/2} (Cho & Saul 2009).
    np.testing.assert_allclose(slope, rise, rtol=2e-2)
    assert abs(slope[1] / rise - 1) < 2e-3
    np.testing.assert_allclose(correlation_slope(1.0, q, name, w), chi(q, name, w), rtol=1e-12)


def test_the_correlation_fixed_point_is_one_and_is_where_iteration_goes() -> None:
    w, b = np.meshgrid([0.6, 1.1, 1.5, 2.5, 6.0], [0.05, 0.3, 1.0])
    q, c = fixed_point("tanh", w, b), correlation_fixed_point("tanh", w, b)
    np.testing.assert_allclose(1 - correlation_map(c, q, "tanh", w, b), 1 - c, rtol=1e-9, atol=1e-13)
    assert ((c < 1) == (chi(q, "tanh", w) > 1)).all()
    slope = correlation_slope(c, q, "tanh", w)
    assert (slope <= 1 + 1e-12).all(), "it is stable"
    quick = slope < 0.75
    assert quick.sum() > 5
    far = np.zeros(quick.sum())
    for _ in range(50):
        far = correlation_map(far, q[quick], "tanh", w[quick], b[quick])
    np.testing.assert_allclose(far, c[quick], atol=2e-6)
    assert correlation_fixed_point("tanh", 1.7) == 0, "without biases inputs of a chaotic odd network forget each other"
    assert np.isnan(correlation_fixed_point("relu", 1.5, 0.1))
    assert np.isnan(correlation_fixed_point("tanh", 0.5))


# --- edge of chaos and depth scales ----------------------------------------------------------------------------------


def test_the_edge_of_chaos_is_where_chi_is_one_and_the_depth_scale_diverges() -> None:
    b = np.array([1e-3, 0.05, 0.3, 1.0, 4.0])
    for name in ("tanh", "erf"):
        w = edge_of_chaos(name, b)
        np.testing.assert_allclose(chi(fixed_point(name, w, b), name, w), 1, atol=1e-12)
        assert (np.diff(w) > 0).all()
        near = [depth_scales(name, w * (1 + side * 1e-4), b).xi_c for side in (-1, 1)]
        far = [depth_scales(name, w * (1 + side * 1e-2), b).xi_c for side in (-1, 1)]
        for close, distant in zip(near, far, strict=True):
            assert (close > 25 * distant).all()
            assert np.isfinite(close).all()
        assert (np.array(near) > 500).all()
        assert np.isfinite(depth_scales(name, w, b).xi_q).all(), "lengths settle quickly there"


def test_edges_that_are_known() -> None:
    assert edge_of_chaos("tanh") == 1.0
    assert edge_of_chaos("erf") == pytest.approx(np.sqrt(np.pi) / 2, rel=1e-14)
    np.testing.assert_allclose(edge_of_chaos("relu", [0.0, 0.7]), np.sqrt(2), rtol=1e-14)
    np.testing.assert_allclose(edge_of_chaos("linear", [0.0, 0.7]), 1.0, rtol=1e-14)
    np.testing.assert_allclose(edge_of_chaos("leaky_relu"), np.sqrt(2 / (1 + LEAK**2)), rtol=1e-14)
    assert np.isnan(edge_of_chaos("gelu")), "χ jumps where q* does"
    # Roberts, Yaida & Hanin (2022), section 5.3.4: at its half-stable critical point gelu has both slopes one at
    # q = (3 + √17)/2.
    w, b, q = np.sqrt(1.98305826), np.sqrt(0.17292239), (3 + np.sqrt(17)) / 2
    assert chi(q, "gelu", w) == pytest.approx(1, abs=1e-8)
    assert length_slope(q, "gelu", w) == pytest.approx(1, abs=1e-8)
    assert length_map(q, "gelu", w, b) == pytest.approx(q, rel=1e-8)


def test_depth_scales_are_the_rates_of_the_maps() -> None:
    w, b = 1.8, 0.2
    scales = depth_scales("tanh", w, b)
    q_star, c_star = fixed_point("tanh", w, b), correlation_fixed_point("tanh", w, b)
    q = q_star * (1 + 1e-3)
    c = c_star + 1e-3
    for _ in range(5):
        q, c = length_map(q, "tanh", w, b), correlation_map(c, q_star, "tanh", w, b)
    assert np.log((q - q_star) / (1e-3 * q_star)) == pytest.approx(-5 / scales.xi_q, rel=2e-3)
    assert np.log((c - c_star) / 1e-3) == pytest.approx(-5 / scales.xi_c, rel=2e-3)
    assert depth_scales("tanh", 1.0).xi_q == np.inf
    assert np.isnan(depth_scales("relu", 2.0).xi_c)
    np.testing.assert_allclose(depth_scales("relu", 1.0), 1 / np.log(2), rtol=1e-13)


def test_the_phase_diagram_is_its_parts() -> None:
    w, b = np.linspace(0.4, 3.0, 6), np.array([0.0, 0.3, 1.5])
    phases = phase_diagram("tanh", w, b)
    assert phases.q.shape == phases.chi.shape == phases.c.shape == phases.xi_q.shape == phases.xi_c.shape == (3, 6)
    for j in range(3):
        np.testing.assert_array_equal(phases.q[j], fixed_point("tanh", w, b[j]))
        np.testing.assert_array_equal(phases.c[j], correlation_fixed_point("tanh", w, b[j]))
        np.testing.assert_array_equal(phases.xi_c[j], depth_scales("tanh", w, b[j]).xi_c)
        np.testing.assert_array_equal(phases.chi[j] > 1, w > phases.edge[j])
    assert phases.activation == "tanh"


def test_a_phase_diagram_is_refused_only_where_its_result_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"sigma_w: a phase diagram of 1000000 by 1000000 points needs 40 TB and"):
        phase_diagram("tanh", np.linspace(0, 3, 10**6), np.linspace(0, 3, 10**6))
    w, b = np.linspace(0.4, 3.0, 7), np.array([0.0, 0.3, 1.5])
    whole = phase_diagram("tanh", w, b)
    monkeypatch.setattr("pydln.propagation.phases._AT_ONCE", 5)
    monkeypatch.setattr("pydln.propagation.phases._EDGES_AT_ONCE", 2)
    in_parts = phase_diagram("tanh", w, b)
    for name in ("q", "chi", "c", "xi_q", "xi_c", "edge"):
        np.testing.assert_array_equal(getattr(in_parts, name), getattr(whole, name))


def test_means_take_little_memory_beside_their_result() -> None:
    """A hundred nodes for each of a million variances would be 800 MB."""
    q = np.geomspace(1e-3, 8.0, 100_000)
    tracemalloc.start()
    gaussian_mean(np.tanh, q)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 60 * q.nbytes


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "w", "b"), [("tanh", 1.5, 0.3), ("relu", 1.3, 0.4), ("gelu", 1.3, 0.3)])
def test_wide_networks_follow_both_maps(name: str, w: float, b: float) -> None:
    """Means over ten networks of 400 units: each overlap scatters by about √(2 · layers/N) of itself."""
    units, depth, nets, c0 = 400, 8, 10, 0.5
    rng = np.random.default_rng(3)
    weights = init.gaussian((units,) * (depth + 1), batch=nets, scale=w, seed=4)
    pair = rng.standard_normal((nets, 2, units))
    pair[:, 1] = c0 * pair[:, 0] + np.sqrt(1 - c0**2) * pair[:, 1]
    biases = list(b * rng.standard_normal((depth, nets, units)))
    signal = propagate(weights, pair, name, biases=biases)
    q, c = 1.0, c0
    for layer in range(depth):
        c, q = correlation_map(c, q, name, w, b), length_map(q, name, w, b)
        tolerance = 4 * np.sqrt(2 * (layer + 2) / (units * nets))
        measured = signal.overlap[:, layer + 1].mean(axis=0)
        assert measured[0, 0] == pytest.approx(q, rel=tolerance)
        assert measured[1, 1] == pytest.approx(q, rel=tolerance)
        assert measured[0, 1] == pytest.approx(q * c, abs=tolerance * q)


def test_a_custom_nonlinearity_and_one_that_cannot_be_resolved() -> None:
    end = 0.7
    step = Activation(
        "hard", lambda x: np.clip(x, -end, end), lambda x: (np.abs(x) < end) * 1.0, odd=True, kinks=(-end, end)
    )
    # E[clip²] = q(2Φ(k) - 1 - 2k density(k)) + 2(1 - Φ(k)) end², k = end/√q
    q = np.array([0.2, 2.0])
    k = end / np.sqrt(q)
    inside = np.array([float(2 * mpmath.ncdf(x) - 1) for x in k])
    density = np.exp(-k * k / 2) / np.sqrt(2 * np.pi)
    expected = q * (inside - 2 * k * density) + (1 - inside) * end**2
    np.testing.assert_allclose(length_map(q, step, 1.0), expected, rtol=1e-13)
    np.testing.assert_allclose(chi(q, step, 1.0), inside, rtol=1e-13)
    # dE[φφ]/dc = q E[φ'φ'], across both kinks.
    c, h = 0.6, 1e-4
    rise = (correlation_map(c + h, 2.0, step, 1.0) - correlation_map(c - h, 2.0, step, 1.0)) / (2 * h)
    slope = correlation_slope(c, 2.0, step, 1.0) * 2.0 / length_map(2.0, step, 1.0)
    assert rise == pytest.approx(slope, rel=1e-7)

    steep = Activation(
        "steep", lambda x: np.tanh(20 * x), lambda x: 20 * activation("tanh").derivative(20 * x), odd=True
    )
    np.testing.assert_allclose(
        correlation_map([-0.3, 0.2, 0.99], 1.0, steep, 1.0), correlation_map([-0.3, 0.2, 0.99], 400.0, "tanh", 1.0)
    )
    assert edge_of_chaos(steep) == pytest.approx(0.05, rel=1e-14)

    wavy = Activation("wavy", lambda x: np.sin(3e4 * x), lambda x: 3e4 * np.cos(3e4 * x), odd=True)
    with pytest.raises(ValueError, match="activation: expected 'wavy' to be smooth between its kinks, got a mean of"):
        length_map(1.0, wavy, 1.0)
    unmarked = Activation("unmarked", step.value, step.derivative, odd=True)
    with pytest.raises(ValueError, match="activation: expected 'unmarked' to be smooth"):
        chi(2.0, unmarked, 1.0)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: length_map(-1.0, "tanh", 1.0), ValueError, r"q: expected a number >= 0 and <= 1e\+150, got -1.0"),
        (lambda: length_map(np.inf, "tanh", 1.0), ValueError, "q: expected a finite number, got inf"),
        (lambda: length_map(1.0, "swish", 1.0), ValueError, "activation: expected one of"),
        (lambda: length_map([1.0, 2.0], "tanh", [1.0, 2.0, 3.0]), ValueError, "expected shapes that broadcast"),
        (lambda: chi(1.0, "tanh", "wide"), TypeError, "sigma_w: expected real numbers"),
        (lambda: fixed_point("tanh", 1.0, start=0.0), ValueError, "start: expected a number >= 1e-150, got 0.0"),
        (lambda: correlation_map(1.2, 1.0, "tanh", 1.0), ValueError, "c: expected a number >= -1 and <= 1, got 1.2"),
        (lambda: correlation_map([0.1, 0.2], [1.0, 2, 3], "tanh", 1.0), ValueError, "c: expected a shape"),
        (lambda: correlation_map(0.1, 1.0, "tanh", 0.0), ValueError, "sigma_w: expected some activity"),
        (lambda: length_map(1.0, "tanh", 1e200), ValueError, r"sigma_w: expected .* <= 1e\+50, got 1e\+200"),
        (lambda: fixed_point("tanh", [1.0, 1e200]), ValueError, r"sigma_w: expected .* <= 1e\+50, got 1e\+200 at"),
        (lambda: fixed_point("tanh", 1.0, 1e200), ValueError, r"sigma_b: expected .* <= 1e\+50, got 1e\+200"),
        (lambda: correlation_map(0.5, 1.0, "tanh", 1e200), ValueError, r"sigma_w: expected .* <= 1e\+50"),
        (lambda: depth_scales("relu", 1e200), ValueError, r"sigma_w: expected .* <= 1e\+50"),
        (lambda: edge_of_chaos("tanh", 1e200), ValueError, r"sigma_b: expected .* <= 1e\+50"),
        (lambda: phase_diagram("tanh", [1.0, 1e200], [0.0]), ValueError, r"sigma_w: expected .* <= 1e\+50"),
        (lambda: phase_diagram("tanh", [2.0, 1.0], [0.0]), ValueError, "sigma_w: expected increasing numbers"),
        (lambda: phase_diagram("tanh", 2.0, [0.0]), ValueError, r"sigma_w: expected \(any,\)"),
    ],
)
def test_wrong_arguments_are_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_roots_in_brackets_of_any_kind() -> None:
    targets = np.array([1e-12, 0.3, 7.0, 500.0])
    found = bracketed_root(lambda x, which: x**3 - targets[which] ** 3, np.zeros(4), np.full(4, 1e3))
    np.testing.assert_allclose(found, targets, rtol=1e-14)
    calls = []

    def flat(x: Any, which: Any) -> Any:
        calls.append(len(which))
        return np.sign(x - 0.25) * np.abs(x - 0.25) ** 5

    assert bracketed_root(flat, np.array([0.0]), np.array([2.0]))[0] == pytest.approx(0.25, abs=1e-3)
    assert len(calls) < 150
    assert bracketed_root(lambda x, _: x, np.array([0.0]), np.array([1.0]))[0] == 0


def test_every_public_name_is_there() -> None:
    assert all(hasattr(propagation, name) for name in propagation.__all__)
