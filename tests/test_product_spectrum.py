"""Spectra of deep products against high precision, where every value must come out by itself; laws of the ensembles."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

import pydln as dln
from pydln._base import backend
from pydln.errors import NotApplicable
from pydln.spectra import ProductSpectrum, product_spectrum, random_product_spectrum, singular_values
from pydln.spectra.graded import Graded

every_isa = pytest.mark.parametrize("isa", backend.available_isas())


def factors(n, depth, batch=1, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, n, n)) / np.sqrt(n) for _ in range(depth)]


def exact(layers, member=0, eigenvalues=False):
    """ln of the singular values, and of the eigenvalues by decreasing modulus, with more digits than it spans."""
    n, digits = len(layers[0][0]), 60 + 3 * len(layers)
    with mp.workdps(digits):
        product = mp.eye(n)
        for w in layers:
            product = mp.matrix(w[member].tolist()) * product
        sigma = mp.svd_r(product, compute_uv=False)
        logs = np.array([float(mp.log(x)) for x in sigma])
        if not eigenvalues:
            return logs
        found = sorted(mp.eig(product, left=False, right=False), key=lambda z: -abs(z))
        return logs, np.array([complex(float(mp.log(abs(z))), float(mp.arg(z))) for z in found])


@every_isa
@pytest.mark.parametrize(("n", "depth"), [(4, 50), (5, 120), (6, 200)])
def test_every_singular_value_by_itself(n, depth, isa):
    layers = factors(n, depth, batch=3, seed=n)
    with backend.forced(isa=isa):
        got = product_spectrum(layers).log_singular_values
    want = np.array([exact(layers, member) for member in range(3)])
    assert (want[:, 0] - want[:, -1]).min() > 36.7  # a product that is formed loses the last ones altogether
    condition = sum(np.linalg.cond(w).max() for w in layers)
    assert np.abs(got - want).max() < 1e-16 * n * condition
    assert np.abs(got - want).max() < 1e-11


@pytest.mark.parametrize(("n", "depth"), [(4, 50), (5, 120), (6, 200)])
def test_eigenvalues_against_high_precision(n, depth):
    layers = factors(n, depth, seed=n)
    got = product_spectrum(layers, eigenvalues=True)
    _, want = exact(layers, eigenvalues=True)
    np.testing.assert_allclose(got.log_eigenvalue_moduli[0], want.real, rtol=0, atol=1e-9)
    turned = np.angle(np.exp(1j * (np.abs(got.eigenvalue_phases[0]) - np.abs(want.imag))))
    assert np.abs(turned).max() < 1e-9


def test_depth_1000_neither_over_nor_underflows():
    n, depth = 4, 1000
    for scale in (0.1, 1.0, 10.0):
        layers = [scale * w for w in factors(n, depth, seed=3)]
        got = product_spectrum(layers, eigenvalues=True)
        logs = got.log_singular_values[0]
        assert np.isfinite(logs).all()
        assert (np.diff(logs) < 0).all()
        determinant = sum(np.linalg.slogdet(w[0])[1] for w in layers)
        assert logs.sum() == pytest.approx(determinant, rel=1e-11)
        assert got.log_eigenvalue_moduli.sum() == pytest.approx(determinant, rel=1e-11)
    want = exact(layers)
    np.testing.assert_allclose(logs, want, rtol=0, atol=1e-10)


def test_lyapunov_exponents():
    """(1/D) ln σ_i → ½ [ln(2/n) + ψ((n - i + 1)/2)] (Newman 1986)."""
    from scipy.special import digamma

    n, depth = 5, 4000
    got = random_product_spectrum("gaussian", n, depth, batch=4).log_singular_values / depth
    want = 0.5 * (np.log(2 / n) + digamma(np.arange(n, 0, -1) / 2))
    assert np.abs(got.mean(axis=0) - want).max() < 4 * np.sqrt(1.3 / (4 * depth)) + 2 / depth


def test_weights_and_shapes():
    weights = dln.init.gaussian((5, 7, 3, 6), batch=4, seed=1)
    got = product_spectrum(weights)
    want = singular_values(weights.product())
    assert got.log_singular_values.shape == (4, 5)
    np.testing.assert_allclose(got.singular_values[:, :3], want[:, :3], rtol=1e-12)
    assert (got.log_singular_values[:, 3:] == -np.inf).all()
    single = product_spectrum([w[2] for w in weights.layers])
    assert (single.log_singular_values[0] == got.log_singular_values[2]).all()
    shared = product_spectrum([weights.layers[0][0], *weights.layers[1:]])
    assert shared.log_singular_values.shape == (4, 5)


def test_rank_deficient_and_zero_products():
    zero = product_spectrum([np.eye(3), np.zeros((3, 3))], eigenvalues=True)
    assert (zero.log_singular_values == -np.inf).all()
    assert (zero.log_eigenvalue_moduli == -np.inf).all()
    narrow = [np.ones((1, 4)), np.ones((4, 1))]
    got = product_spectrum(narrow, eigenvalues=True)
    np.testing.assert_allclose(got.singular_values, [[4, 0, 0, 0]], atol=1e-14)
    np.testing.assert_allclose(got.eigenvalues, [[4, 0, 0, 0]], atol=1e-14)


def test_what_is_zero_does_not_hide_what_is_small():
    """An input that nothing reads, and values far below the least float."""
    n, depth = 5, 2500
    turns = dln.init.orthogonal((n,) * (depth + 1), seed=3).layers
    layers = [0.3 * w[0] for w in turns]
    layers[0][:, -1] = 0
    got = product_spectrum(layers).log_singular_values[0]
    np.testing.assert_allclose(got[:4], depth * np.log(0.3), rtol=1e-13)
    assert got[4] == -np.inf


def test_eigenvalues_of_an_ordinary_product():
    layers = factors(12, 3, batch=5, seed=8)
    got = product_spectrum(layers, eigenvalues=True)
    for member in range(5):
        want = np.linalg.eigvals(layers[2][member] @ layers[1][member] @ layers[0][member])
        apart = np.abs(got.eigenvalues[member][:, None] - want[None, :])
        assert apart.min(axis=0).max() < 1e-12
        assert apart.min(axis=1).max() < 1e-12


def test_orthogonal_products_keep_every_singular_value():
    got = random_product_spectrum("orthogonal", 20, 300, scale=0.9, batch=2, eigenvalues=True)
    np.testing.assert_allclose(got.log_singular_values, 300 * np.log(0.9), rtol=1e-12)
    np.testing.assert_allclose(got.log_eigenvalue_moduli, 300 * np.log(0.9), rtol=1e-12)


def test_members_are_their_own():
    whole = random_product_spectrum("gaussian", 6, 7, batch=12, seed=5, eigenvalues=True)
    alone = random_product_spectrum("gaussian", 6, 7, batch=1, first=9, seed=5, eigenvalues=True)
    assert (whole.log_singular_values[9] == alone.log_singular_values[0]).all()
    assert (whole.log_eigenvalue_moduli[9] == alone.log_eigenvalue_moduli[0]).all()
    assert (whole.log_singular_values[8] != alone.log_singular_values[0]).all()


def test_triangular_factors_have_the_law_of_gaussian_ones():
    """Moments of tr(Ω Ωᵀ)/n over many products, drawn either way; E = 1 exactly."""
    n, depth, batch = 4, 3, 4000
    drawn = random_product_spectrum("gaussian", n, depth, batch=batch, seed=2)
    means = []
    for logs in (drawn.log_singular_values, product_spectrum(factors(n, depth, batch, seed=9)).log_singular_values):
        trace = np.exp(2 * logs).mean(axis=1)
        means.append((trace.mean(), trace.std() / np.sqrt(batch)))
        assert abs(trace.mean() - 1) < 4 * trace.std() / np.sqrt(batch)
    smallest = [x[:, -1].mean() for x in (logs, drawn.log_singular_values)]
    assert abs(smallest[0] - smallest[1]) < 4 * np.sqrt(2) * logs[:, -1].std() / np.sqrt(batch)


@every_isa
def test_bits_of_graded_matrices_depend_on_the_matrix_alone(isa):
    rng = np.random.default_rng(12)
    rows, exponents = rng.normal(size=(21, 6, 7)), -rng.integers(0, 3000, size=(21, 6))
    rows[4] = 0
    with backend.forced(isa=isa):
        whole = Graded.of(rows, exponents).log_singular_values(1)
        for member in range(21):
            alone = Graded.of(rows[member : member + 1], exponents[member : member + 1]).log_singular_values(2)
            assert (alone[0] == whole[member]).all()


@every_isa
@pytest.mark.parametrize("spread", [0, 3, 40, 300, 2500])
def test_graded_matrices_against_high_precision(spread, isa):
    rng = np.random.default_rng(spread)
    rows, exponents = rng.normal(size=(3, 5, 5)), -rng.integers(0, spread + 1, size=(3, 5))
    with backend.forced(isa=isa):
        got = Graded.of(rows, exponents).log_singular_values(1)
    for member in range(3):
        with mp.workdps(60 + 2 * spread):
            matrix = mp.matrix(rows[member].tolist())
            for i in range(5):
                matrix[i, :] *= mp.mpf(2) ** int(exponents[member, i])
            want = [float(mp.log(x)) for x in mp.svd_r(matrix, compute_uv=False)]
        normed = rows[member] / np.linalg.norm(rows[member], axis=1, keepdims=True)
        allowed = 1e-15 * np.linalg.cond(normed) + 4e-16 * np.abs(want).max()
        assert np.abs(got[member] - want).max() < allowed


def test_errors():
    with pytest.raises(ValueError, match="factors: expected at least one matrix"):
        product_spectrum([])
    with pytest.raises(TypeError, match="factors: expected a sequence of matrices"):
        product_spectrum(np.eye(3))
    with pytest.raises(ValueError, match=r"factors\[1\]: expected 3 columns to follow factors\[0\], got 2"):
        product_spectrum([np.eye(3), np.eye(2)])
    with pytest.raises(ValueError, match=r"factors\[1\]: expected 1 or 2 members, got 3"):
        product_spectrum([np.ones((2, 3, 3)), np.ones((3, 3, 3))])
    with pytest.raises(ValueError, match=r"factors\[0\]: expected finite numbers"):
        product_spectrum([np.full((2, 2), np.nan)])
    with pytest.raises(ValueError, match="eigenvalues: expected a square product, got 2 × 3"):
        product_spectrum([np.ones((2, 3))], eigenvalues=True)
    with pytest.raises(ValueError, match="kind: expected one of 'gaussian', 'orthogonal'"):
        random_product_spectrum("uniform", 3, 2)
    with pytest.raises(ValueError, match="eigenvalues=True"):
        _ = ProductSpectrum(np.zeros((1, 2))).eigenvalues
    steep = [np.diag(2.0 ** -np.arange(0.0, 41 * 30, 41))] * 1
    with pytest.raises(NotApplicable, match="without a gap"):
        product_spectrum(steep, eigenvalues=True)


def test_large_matrices_go_through_lapack_with_the_same_result(monkeypatch):
    from pydln.spectra import graded

    rng = np.random.default_rng(15)
    rows, exponents = rng.normal(size=(1, 60, 60)) + 8 * np.eye(60), -rng.integers(0, 800, size=(1, 60))
    want = Graded.of(rows, exponents).log_singular_values(1)
    monkeypatch.setattr(graded, "_LARGE", 10)
    got = Graded.of(rows, exponents).log_singular_values(1)
    assert (got != want).any()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_only_what_is_asked_for():
    got = product_spectrum([np.eye(3)], singular_values=False, eigenvalues=True)
    assert got.log_singular_values is None
    np.testing.assert_allclose(got.eigenvalues, np.ones((1, 3)))
    with pytest.raises(ValueError, match="singular_values=True"):
        _ = got.singular_values
