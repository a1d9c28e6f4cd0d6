"""Laws of spectra: normalised, consistent with themselves, and obeyed by random matrices, the better the larger."""

from __future__ import annotations

import functools
import itertools
from math import comb

import mpmath
import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss

import pydln
from pydln.activations import LEAK, activation
from pydln.spectra import (
    Disk,
    FussCatalan,
    JacobianLaw,
    LawComparison,
    MarchenkoPastur,
    Orthogonal,
    compare,
    random_product_spectrum,
    singular_values,
)


def fixed_point(name, sigma_w, sigma_b):
    """q* of q = σ_w² E φ(√q h)² + σ_b²."""
    x, w = np.polynomial.hermite_e.hermegauss(101)
    q = 1.0
    for _ in range(2000):
        q = sigma_w**2 * float(w @ activation(name).value(np.sqrt(q) * x) ** 2) / np.sqrt(2 * np.pi) + sigma_b**2
    return q


@functools.cache
def law(name):
    if name == "tanh orthogonal":
        return JacobianLaw("tanh", depth=4, sigma_w=1.1, weights="orthogonal", q=0.4)
    if name == "tanh deep":
        return JacobianLaw("tanh", depth=30, sigma_w=1.05, weights="orthogonal", q=0.02)
    return {
        "circular": lambda: Disk(1),
        "disk": lambda: Disk(5, scale=1.3),
        "fc 1": lambda: FussCatalan(1),
        "fc 2": lambda: FussCatalan(2, scale=0.7),
        "fc 0.4": lambda: FussCatalan(0.4, scale=1.2),
        "fc 2.7": lambda: FussCatalan(2.7),
        "fc 5": lambda: FussCatalan(5),
        "fc 100": lambda: FussCatalan(100),
        "mp thin": lambda: MarchenkoPastur(0.3, variance=2.0),
        "mp square": lambda: MarchenkoPastur(1.0),
        "mp tall": lambda: MarchenkoPastur(2.5),
        "linear": lambda: JacobianLaw("linear", depth=3, sigma_w=1.2),
        "relu gaussian": lambda: JacobianLaw("relu", depth=3, sigma_w=2**0.5),
        "relu orthogonal": lambda: JacobianLaw("relu", depth=2, sigma_w=2**0.5, weights="orthogonal"),
        "relu deep": lambda: JacobianLaw("relu", depth=10, sigma_w=2**0.5, weights="orthogonal"),
        "leaky": lambda: JacobianLaw("leaky_relu", depth=4, sigma_w=1.4),
        "tanh gaussian": lambda: JacobianLaw("tanh", depth=4, sigma_w=1.1, q=0.4),
        "gelu": lambda: JacobianLaw("gelu", depth=2, sigma_w=1.3, q=0.9),
    }[name]()


NAMES = [
    *("circular", "disk", "fc 1", "fc 2", "fc 0.4", "fc 2.7", "fc 5", "fc 100"),
    *("mp thin", "mp square", "mp tall", "linear"),
    *(
        "relu gaussian",
        "relu orthogonal",
        "relu deep",
        "leaky",
        "tanh gaussian",
        "tanh orthogonal",
        "tanh deep",
        "gelu",
    ),
]


def nodes(one, panels=60):
    """Points u = ln x and weights for integrals over the support: panels in t, u = ln(upper) - t², Gauss' rule in each.

    A lower edge is a root, too: its panel is mapped by a sine.
    """
    low, high = one.support
    top = getattr(one, "_edge", None)
    top = np.log(high) if top is None else (top + getattr(one, "_shift", 0.0))
    last = np.sqrt(top - np.log(low)) if low > 0 else np.sqrt(36 * (getattr(one, "depth", 1) + 1))
    x, w = leggauss(16)
    border = np.linspace(0, np.pi / 2, panels + 1) if low > 0 else last * np.linspace(0, 1, panels + 1) ** 2
    middle, half = 0.5 * (border[1:] + border[:-1]), 0.5 * np.diff(border)
    s, ds = (middle[:, None] + half[:, None] * x).ravel(), (half[:, None] * w).ravel()
    t, dt = (last * np.sin(s), last * np.cos(s)) if low > 0 else (s, np.ones_like(s))
    return top - t**2, 2 * t * dt * ds


@pytest.mark.parametrize("name", NAMES)
def test_density_moments_and_distribution_agree(name):
    one = law(name)
    u, weights = nodes(one)
    density = one.density_log(u)
    assert (density >= 0).all()
    # The spectrum of this one begins above zero, like a root: Gauss' rule meets that inside a panel.
    rough = 1e-3 if name == "tanh deep" else 1.0e-7
    atoms = sum(mass for _, mass in one.atoms)
    assert weights @ density + atoms == pytest.approx(1, abs=max(rough, 1e-6))
    for k in (1, 2, 3):
        from_atoms = sum(mass * x**k for x, mass in one.atoms)
        assert weights @ (density * np.exp(k * u)) + from_atoms == pytest.approx(one.moment(k), rel=rough)
    assert one.moment(0) == 1
    # The distribution function at the borders of every fifth panel.
    order = np.argsort(u)
    below = np.concatenate([[0], np.cumsum((weights * density)[order])])[::80][1:-1] + atoms
    at = u[order][80::80]
    at = 0.5 * (at + u[order][79:-1:80])[: len(below)]
    assert np.abs(one.cdf_log(at[: len(below)]) - below[: len(at)]).max() < 2e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_distribution_is_the_integral_of_the_density(name):
    one = law(name)
    u, _ = nodes(one, panels=7)
    inner = np.sort(u)[4:-4:5]
    inner = inner[one.density_log(inner) > 1e-6]
    h = 1e-4
    slope = (one.cdf_log(inner + h) - one.cdf_log(inner - h)) / (2 * h)
    np.testing.assert_allclose(slope, one.density_log(inner), rtol=2e-4, atol=2e-6)
    x = np.exp(inner[inner > -300])
    np.testing.assert_allclose(one.density(x) * x, one.density_log(np.log(x)), rtol=1e-9)
    np.testing.assert_allclose(one.cdf(x), one.cdf_log(np.log(x)), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_outside_the_support(name):
    one = law(name)
    low, high = one.support
    assert one.cdf(high * 1.001) == pytest.approx(1, abs=1e-8)
    assert one.cdf(-1.0) == 0
    assert (one.density([-1.0, high * 1.001, low * 0.999 - 1e-9]) == 0).all()
    assert one.cdf_log(-np.inf) == pytest.approx(sum(mass for x, mass in one.atoms if x == 0), abs=1e-9)


def test_fuss_catalan_known_values():
    assert FussCatalan(1).moment(4) == pytest.approx(comb(8, 4) // 5, rel=1e-14)
    assert FussCatalan(2).moment(3) == pytest.approx(12, rel=1e-14)
    assert FussCatalan(50).moment(40) == pytest.approx(comb(51 * 40, 40) / 2001, rel=1e-12)
    for depth in (1, 2, 5):
        assert FussCatalan(depth).support[1] == pytest.approx((depth + 1) ** (depth + 1) / depth**depth, rel=1e-14)
    x = np.linspace(0.01, 3.99, 50)
    np.testing.assert_allclose(FussCatalan(1).density(x), np.sqrt(4 / x - 1) / (2 * np.pi), rtol=1e-12)
    np.testing.assert_allclose(FussCatalan(1).density(x), MarchenkoPastur(1.0).density(x), rtol=1e-12)
    np.testing.assert_allclose(FussCatalan(1).cdf(x), MarchenkoPastur(1.0).cdf(x), atol=1e-13)
    # Near zero F ~ x^{1/(M+1)}, to the smallest numbers there are.
    tiny = FussCatalan(3).cdf_log([-400.0, -404.0])
    assert tiny[0] / tiny[1] == pytest.approx(np.e, rel=1e-12)


@pytest.mark.parametrize("depth", [0.25, 1.0, 1.5, 7.3])
def test_fuss_catalan_of_any_real_depth(depth):
    """G(z) = B/z with B = 1 + B^{M+1}/z (Młotkowski 2010), followed from far away to the real axis in 30 digits."""
    one = FussCatalan(depth)
    for x in np.array([1e-3, 0.1, 0.5, 0.95]) * one.support[1]:
        with mpmath.workdps(30):
            B = mpmath.mpc(1)
            for height in [*(2.0**-k for k in range(-5, 60)), 0]:
                z = mpmath.mpc(x, height)
                B = mpmath.findroot(lambda b, z=z: b - 1 - b ** (mpmath.mpf(depth) + 1) / z, B)
            assert one.density(x) == pytest.approx(float(-(B / x).imag / mpmath.pi), rel=1e-11)
    m1, m2 = one.moment(1), one.moment(2)
    assert m1 == pytest.approx(1, rel=1e-14)
    assert m2 - m1**2 == pytest.approx(depth, rel=1e-13)
    mid = FussCatalan(7.0)
    assert isinstance(mid.depth, int)
    assert repr(mid) == "FussCatalan(depth=7, scale=1)"


def test_linear_networks_with_gaussian_weights_are_fuss_catalan():
    one, other = JacobianLaw("linear", depth=4, sigma_w=1.3), FussCatalan(4, scale=1.3)
    u = np.linspace(-20, np.log(other.support[1]) - 1e-3, 40)
    np.testing.assert_allclose(one.density_log(u), other.density_log(u), rtol=1e-9)
    np.testing.assert_allclose(one.cdf_log(u), other.cdf_log(u), atol=1e-8)
    assert one.support[1] == pytest.approx(other.support[1], rel=1e-12)


def test_two_layers_of_relu_and_orthogonal_weights_are_an_arcsine_law():
    """Two free projections of rank 1/2, times σ_w⁴ = 4: density 1/(2 π √(x(4 - x))) beside the atom of 1/2 at zero."""
    one = JacobianLaw("relu", depth=2, sigma_w=2**0.5, weights="orthogonal")
    assert one.atoms == ((0.0, 0.5),)
    assert one.support[1] == pytest.approx(4, rel=1e-14)
    x = np.linspace(0.05, 3.95, 30)
    np.testing.assert_allclose(one.density(x), 1 / (2 * np.pi * np.sqrt(x * (4 - x))), rtol=1e-14)


def jacobian_law(name, depth, weights, q=None):
    return JacobianLaw(name, depth=depth, sigma_w=1.3, weights=weights, q=q)


@pytest.mark.parametrize(
    ("one", "limit"),
    [
        (FussCatalan(1), np.inf),
        (FussCatalan(0.4), np.inf),
        (FussCatalan(6, scale=0.5), np.inf),
        (Disk(1), 0.0),
        (Disk(2, scale=1.3), 1.3**-2),
        (Disk(3), np.inf),
        (MarchenkoPastur(1.0, variance=3.0), np.inf),
        (MarchenkoPastur(0.5), 0.0),
        (MarchenkoPastur(2.0), 0.0),
        (Orthogonal(3), 0.0),
        (jacobian_law("linear", 2, "gaussian"), np.inf),
        (jacobian_law("linear", 2, "orthogonal"), 0.0),
        (jacobian_law("relu", 1, "gaussian"), 0.0),
        (jacobian_law("relu", 1, "orthogonal"), 0.0),
        (jacobian_law("relu", 2, "gaussian"), np.inf),
        (jacobian_law("relu", 2, "orthogonal"), np.inf),
        (jacobian_law("relu", 3, "orthogonal"), np.inf),
        (jacobian_law("leaky_relu", 3, "gaussian"), np.inf),
        (jacobian_law("leaky_relu", 3, "orthogonal"), 0.0),
        (jacobian_law("tanh", 2, "gaussian", 0.5), np.inf),
        (jacobian_law("tanh", 2, "orthogonal", 0.5), 0.0),
        (jacobian_law("softplus", 2, "orthogonal", 0.5), 0.0),
        (jacobian_law("gelu", 2, "orthogonal", 0.5), np.inf),
        (jacobian_law("erf", 2, "orthogonal", 0.1), 0.0),
        (jacobian_law("erf", 2, "orthogonal", 0.5), np.inf),
        (jacobian_law("erf", 2, "gaussian", 0.1), np.inf),
    ],
    ids=repr,
)
def test_density_at_zero_is_the_limit(one, limit):
    assert float(one.density(0.0)) == pytest.approx(limit, rel=1e-15)
    assert one.density([-1.0, 0.0])[0] == 0
    deep = "leaky_relu" in repr(one)  # φ'² down to 1e-4 in every layer
    x = np.array([1e-3, 1e-4, 1e-5]) * (1e-9 if deep else 1.0)
    near = one.density(x)
    if limit == np.inf:
        assert (near[1:] > 1.2 * near[:-1]).all()
    elif limit == 0:
        assert (near[1:] < 0.9 * near[:-1]).all() or x[-1] * near[-1] < 1e-16, "it falls, or is rounding"
    else:
        np.testing.assert_allclose(near, limit, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_density_at_the_upper_edge(name):
    one = law(name)
    edge = one.support[1]
    inside = one.density(edge * (1 - np.array([1e-4, 1e-6, 1e-8])))
    if name == "relu orthogonal":
        assert one.density(edge) == np.inf
        assert one.density_log(one._edge) == np.inf
        np.testing.assert_allclose(inside[1:] / inside[:-1], 10, rtol=1e-2)
    elif name in ("circular", "disk"):
        assert one.density(edge) == pytest.approx(2 / one.depth / edge, rel=1e-12)
    else:
        np.testing.assert_allclose(inside[1:] / inside[:-1], 0.1, rtol=3e-2)
        assert one.density(edge) < inside[-1]


def test_two_layers_of_leaky_relu_and_orthogonal_weights_have_two_poles():
    """Planes in which diag(ε, 1), ε = LEAK², is multiplied by itself turned by an angle that is uniform."""
    one = JacobianLaw("leaky_relu", depth=2, sigma_w=1.0, weights="orthogonal")
    assert one.support == pytest.approx((LEAK**4, 1.0), rel=1e-13)
    assert (one.density(one.support) == np.inf).all()
    angle = (np.arange(20_000) + 0.5) * np.pi / 40_000
    trace = np.cos(angle) ** 2 * (1 + LEAK**4) + 2 * LEAK**2 * np.sin(angle) ** 2
    larger = 0.5 * (trace + np.sqrt(trace**2 - 4 * LEAK**4))
    assert compare(np.concatenate([larger, LEAK**4 / larger]), one).distance < 3e-5


@pytest.mark.parametrize("sigma_w", [1e-3, 1e-2, 1e100])
def test_laws_beyond_float64_are_kept_as_logarithms(sigma_w):
    depth = 200
    place = 2 * depth * np.log(sigma_w)
    for one in (
        Orthogonal(depth, scale=sigma_w),
        JacobianLaw("linear", depth=depth, sigma_w=sigma_w, weights="orthogonal"),
    ):
        ((at, mass),) = one.log_atoms
        assert at == pytest.approx(place, rel=1e-14)
        assert mass == 1
        assert one.atoms[0][0] == (0.0 if place < 0 else np.inf)
        assert one.cdf_log([at - 1e-9, at, at + 1.0]).tolist() == [0, 1, 1]
        assert compare(np.full(4, place), one, log=True).distance == 0
        assert (one.density_log([at, at + 1.0]) == 0).all()
        with pytest.raises(ValueError, match=f"log: expected True for a law with an atom at ln x = {at:g}, beyond"):
            compare([1.0], one)
    for name in ("relu", "linear"):
        here = JacobianLaw(name, depth=depth, sigma_w=sigma_w)
        usual = JacobianLaw(name, depth=depth, sigma_w=1.0)
        u = usual._edge - np.array([0.1, 3.0, 60.0])
        np.testing.assert_allclose(here.density_log(u + place), usual.density_log(u), rtol=1e-6)
        np.testing.assert_allclose(here.cdf_log(u + place), usual.cdf_log(u), rtol=1e-9)
        assert not np.isnan([here.variance, here.moment(2), *here.support]).any()
        assert here.moment(1) == (np.inf if place > 0 else 0.0)


def test_a_nearly_linear_network_has_an_edge_and_a_small_variance():
    for q in (1e-6, 1e-13, 1e-16):
        one = JacobianLaw("tanh", depth=3, sigma_w=1.0, weights="orthogonal", q=q)
        assert one.support[1] == pytest.approx(1, rel=1e-6)
        # φ'² = 1 - 2qh² + …, with the variance 8q²
        assert one.variance == pytest.approx(24 * q**2, rel=1e-3, abs=1e-29)


def test_moments_are_kept_where_their_factors_leave_float64():
    one = JacobianLaw("relu", depth=2000, sigma_w=2**0.5)
    assert one.moment(1) == pytest.approx(1, rel=1e-12)
    assert one.moment(2) == pytest.approx(1 + 2 * 2000, rel=1e-12)
    assert one.variance == pytest.approx(2 * 2000, rel=1e-12)
    assert FussCatalan(1000, scale=0.3).moment(20) == 0
    assert FussCatalan(400, scale=0.5).moment(2) == pytest.approx(401 * 0.5**1600, rel=1e-11)


def test_orthogonal_linear_networks_are_a_point():
    one = JacobianLaw("linear", depth=7, sigma_w=0.9, weights="orthogonal")
    assert one.atoms[0][0] == pytest.approx(0.9**14)
    assert one.moment(3) == pytest.approx(Orthogonal(7, scale=0.9).moment(3))
    assert compare(np.full(5, 0.9**14), one).distance == 0


def test_variance_of_p17():
    """σ²_JJ = L (μ_2/μ_1² - 1 - s_1) for χ = 1: s_1 = -1 Gaussian, 0 orthogonal (P17)."""
    x, w = np.polynomial.hermite_e.hermegauss(151)
    q, depth = 0.3, 6
    slopes = activation("tanh").derivative(np.sqrt(q) * x) ** 2
    mu1, mu2 = (float(w @ slopes**k) / np.sqrt(2 * np.pi) for k in (1, 2))
    for weights, s1 in (("gaussian", -1), ("orthogonal", 0)):
        one = JacobianLaw("tanh", depth=depth, sigma_w=mu1**-0.5, weights=weights, q=q)
        assert one.chi == pytest.approx(1, rel=1e-10)
        assert one.variance == pytest.approx(depth * (mu2 / mu1**2 - 1 - s1), rel=1e-9)


# ---- sampling -----------------------------------------------------------------------------------------------------
def jacobian(name, depth, sigma_w, sigma_b, weights, n, rng):
    """Squared singular values of J = D_L W_L ⋯ D_1 W_1 of one random network at its fixed point q*."""
    one = activation(name)
    h = np.sqrt(fixed_point(name, sigma_w, sigma_b)) * rng.normal(size=n)
    J = np.eye(n)
    for _ in range(depth):
        W = rng.normal(size=(n, n)) / np.sqrt(n)
        if weights == "orthogonal":
            q, r = np.linalg.qr(W)
            W = q * np.sign(np.diag(r))
        h = sigma_w * W @ one.value(h) + sigma_b * rng.normal(size=n)
        J = one.derivative(h)[:, None] * (sigma_w * W @ J)
    return singular_values(J) ** 2


@pytest.mark.parametrize(
    ("name", "depth", "sigma_w", "sigma_b", "weights"),
    [
        ("linear", 3, 1.0, 0.0, "gaussian"),
        ("relu", 2, 2**0.5, 0.0, "orthogonal"),
        ("relu", 4, 2**0.5, 0.0, "gaussian"),
        ("relu", 6, 2**0.5, 0.0, "orthogonal"),
        ("tanh", 4, 1.2, 0.3, "orthogonal"),
        ("tanh", 4, 1.2, 0.3, "gaussian"),
        ("erf", 3, 1.0, 0.2, "orthogonal"),
    ],
)
def test_networks_obey_the_law_of_their_jacobian(name, depth, sigma_w, sigma_b, weights):
    q = fixed_point(name, sigma_w, sigma_b) if name not in ("linear", "relu") else None
    one = JacobianLaw(name, depth=depth, sigma_w=sigma_w, weights=weights, q=q)
    rng = np.random.default_rng(3)
    found = {}
    for n, copies in ((40, 12), (320, 4)):
        values = np.array([jacobian(name, depth, sigma_w, sigma_b, weights, n, rng) for _ in range(copies)])
        found[n] = compare(values, one).distance
    # Of n relu units √n/2 more or fewer than half are open, and the layer with fewest decides the rank: at six layers
    # 1.3 standard deviations below the mean. Where all h count a little, linear statistics of n values fluctuate by
    # about 1/n.
    assert found[320] < found[40]
    assert found[320] < (2.5 * 0.5 / np.sqrt(320) if name == "relu" else 0.025)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_products_of_gaussians_obey_their_laws(depth):
    distances = {}
    for n, batch in ((10, 400), (40, 100), (160, 25)):
        got = random_product_spectrum("gaussian", n, depth, batch=batch, seed=depth, eigenvalues=True)
        distances[n] = (
            compare(2 * got.log_singular_values, FussCatalan(depth), log=True).distance,
            compare(got.log_eigenvalue_moduli, Disk(depth), log=True).distance,
        )
    for before, after in itertools.pairwise(distances.values()):
        assert after[0] < before[0]
        assert after[1] < before[1]
    assert distances[160][0] < 0.01
    assert distances[160][1] < 0.04


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
def test_noise_and_a_teacher(ratio):
    n0 = 400
    rng = np.random.default_rng(int(10 * ratio))
    one = MarchenkoPastur(ratio, variance=0.8)
    n_out = round(ratio * n0)
    noise = rng.normal(size=(n_out, n0)) * np.sqrt(0.8 / n0)
    assert compare(singular_values(noise) ** 2, one).distance < 5 / min(n_out, n0)  # a few spacings
    teacher = np.array([4.0, 2.5, 0.3 * one.threshold])
    U, V = (np.linalg.qr(rng.normal(size=(n, 3)))[0] for n in (n_out, n0))
    u, s, vt = np.linalg.svd(noise + U @ np.diag(teacher) @ V.T)
    np.testing.assert_allclose(s[:2], one.outlier(teacher)[:2], rtol=0.04)
    assert s[2] < np.sqrt(one.support[1]) * 1.05
    overlaps = [abs(u[:, i] @ U[:, i]) * abs(vt[i] @ V[:, i]) for i in range(2)]
    np.testing.assert_allclose(overlaps, one.overlap(teacher)[:2], atol=0.05)
    assert one.overlap(teacher)[2] == 0
    assert one.outlier(teacher)[2] == pytest.approx(np.sqrt(one.support[1]))
    assert one.outlier(one.threshold * (1 + 1e-9)) == pytest.approx(np.sqrt(one.support[1]), rel=1e-6)


def test_theory_of_lampinen_and_ganguli():
    """ŝ = √((1 + s̄²)(A + s̄²))/s̄ and the density of ŝ of theory.md, section 10."""
    A, s = 0.5, np.array([1.0, 2.0, 5.0])
    one = MarchenkoPastur(A)
    np.testing.assert_allclose(one.outlier(s), np.sqrt((1 + s**2) * (A + s**2)) / s)
    hat = np.linspace(0.4, 1.6, 9)
    bulk = np.sqrt(4 * A - (hat**2 - 1 - A) ** 2) / (np.pi * A * hat)
    np.testing.assert_allclose(2 * hat * one.density(hat**2), bulk)


# ---- compare ------------------------------------------------------------------------------------------------------
def test_compare_is_the_largest_difference():
    # F = r² on (0, 1): one value at 0.6 makes steps 0.36 below and 0.64 above.
    assert compare([0.6], Disk(1)) == LawComparison(pytest.approx(0.64), 0.6, 1)
    assert compare([2.0], Disk(1)).distance == 1
    quantiles = np.sqrt((np.arange(1000) + 0.5) / 1000)
    assert compare(quantiles, Disk(1)).distance == pytest.approx(0.0005)
    assert compare(np.log(quantiles), Disk(1), log=True).distance == pytest.approx(0.0005)
    assert compare(quantiles.reshape(10, 100), Disk(1)).count == 1000


def test_compare_takes_values_near_an_atom_as_on_it():
    values = 1 + 1e-14 * np.random.default_rng(0).normal(size=50)
    assert compare(values, Orthogonal()).distance == 0
    assert compare(np.log(values), Orthogonal(), log=True).distance == 0
    assert compare(np.append(values, 2.0), Orthogonal()).distance == pytest.approx(1 / 51)
    assert compare(values, Orthogonal(), rounding=0.0).distance > 0.3
    relu = JacobianLaw("relu", depth=1, sigma_w=2**0.5, weights="orthogonal")
    assert relu.atoms == ((0.0, 0.5), (pytest.approx(2), 0.5))
    assert compare([0.0, 1e-30, 2.0, 2.0], relu).distance == 0
    assert compare([-np.inf, -80.0, np.log(2), np.log(2)], relu, log=True).distance == 0


def test_errors():
    with pytest.raises(ValueError, match="depth: expected a number > 0, got 0"):
        FussCatalan(0)
    with pytest.raises(ValueError, match="ratio"):
        MarchenkoPastur(0.0)
    with pytest.raises(ValueError, match="q: expected the variance"):
        JacobianLaw("tanh", depth=3, sigma_w=1.0)
    with pytest.raises(ValueError, match="depth: expected at least 2"):
        JacobianLaw("tanh", depth=1, sigma_w=1.0, weights="orthogonal", q=1.0)
    with pytest.raises(ValueError, match="weights: expected one of 'gaussian', 'orthogonal'"):
        JacobianLaw("relu", depth=1, sigma_w=1.0, weights="uniform")
    with pytest.raises(ValueError, match="empirical: expected at least one value"):
        compare([], Disk(1))
    with pytest.raises(ValueError, match="empirical: expected numbers, got NaN"):
        compare([np.nan], Disk(1))
    with pytest.raises(TypeError, match="law: expected a"):
        compare([1.0], "disk")
    with pytest.raises(ValueError, match="u: expected numbers or minus infinity"):
        Disk(1).cdf_log(np.nan)


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_chi_of_a_law_at_any_length(name) -> None:
    for q in (0.01, 1.0, 1e4, 5e5):
        law = JacobianLaw(name, depth=3, sigma_w=1.3, q=q)
        assert law.chi == pytest.approx(pydln.propagation.chi(q, name, 1.3), rel=1e-10)


def test_numbers_beyond_float64() -> None:
    teacher = MarchenkoPastur(0.5)
    assert float(teacher.outlier(1e200)) == pytest.approx(1e200)
    assert float(teacher.overlap(1e200)) == pytest.approx(1.0)
    assert FussCatalan(1000).moment(100) == np.inf
    with pytest.raises(ValueError, match=r"variance: expected variance times .* within the range of float64"):
        MarchenkoPastur(1e10, variance=1e300)
    with pytest.raises(ValueError, match=r"sigma_w: expected a number >= 1e-150 and <= 1e\+150, got 1e\+200"):
        JacobianLaw("relu", depth=2, sigma_w=1e200)
