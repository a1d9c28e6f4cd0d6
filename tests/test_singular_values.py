"""Batched singular values against high precision, LAPACK and the reference; bits; awkward matrices."""

from __future__ import annotations

import sys

import mpmath as mp
import numpy as np
import pytest
import reference

from pydln._base import backend
from pydln.spectra import singular_values
from pydln.spectra.singular_values import KERNEL_COLUMNS

every_isa = pytest.mark.parametrize("isa", backend.available_isas())
SHAPES = [
    (1, 1),
    (1, 7),
    (7, 1),
    (2, 2),
    (3, 3),
    (4, 4),
    (5, 3),
    (3, 5),
    (8, 8),
    (9, 8),
    (16, 16),
    (17, 33),
    (32, 32),
    (64, 64),
]
LARGEST = 1e-14  # of the largest singular value


def exact(matrix):
    with mp.workdps(60):
        return np.array([float(x) for x in mp.svd_r(mp.matrix(matrix.tolist()), compute_uv=False)])


def error(got, want):
    return float(np.max(np.abs(got - want) / np.max(want, axis=-1, keepdims=True)))


@every_isa
@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_reference(shape, isa):
    A = np.random.default_rng(1).normal(size=(13, *shape))
    with backend.forced(isa=isa):
        got = singular_values(A)
    want = np.array([reference.singular_values(a) for a in A[:3]])
    assert got.shape == (13, min(shape))
    assert got.dtype == np.float64
    assert (np.diff(got, axis=1) <= 0).all()
    assert error(got[:3], want) < LARGEST
    assert error(got, np.linalg.svd(A, compute_uv=False)) < LARGEST


@every_isa
def test_against_high_precision(isa):
    A = np.random.default_rng(2).normal(size=(6, 7, 6))
    with backend.forced(isa=isa):
        got = singular_values(A)
    want = np.array([exact(a) for a in A])
    assert error(got, want) < 2e-15
    assert np.abs(got / want - 1).max() < LARGEST  # well-conditioned: the small ones too


def awkward():
    rng = np.random.default_rng(3)
    n = 24
    q1, q2 = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    yield "zeros", np.zeros((n, n))
    yield "identity", np.eye(n)
    yield "reversed identity", np.eye(n)[::-1]
    yield "orthogonal", q1
    yield "rank one", np.outer(rng.normal(size=n), rng.normal(size=n))
    yield "rank three", rng.normal(size=(n, 3)) @ rng.normal(size=(3, n))
    yield "ones", np.ones((n, n))
    yield "one column", np.eye(n) * (np.arange(n) == 5)
    yield "pairs", q1 @ np.diag(np.repeat(np.arange(1.0, n / 2 + 1), 2)) @ q2
    yield "cluster", q1 @ np.diag(1 + 1e-9 * rng.normal(size=n)) @ q2
    yield "small cluster", q1 @ np.diag([1.0] * (n - 4) + [1e-7] * 4) @ q2
    yield "falls", q1 @ np.diag(2.0 ** -np.arange(n)) @ q2
    yield "falls steeply", np.diag(10.0 ** -np.arange(0, 12 * n, 12)) @ q1
    yield "diagonal, rising", np.diag(10.0 ** np.arange(-n + 1, 1))
    yield (
        "bidiagonal in parts",
        np.diag(np.tile([1.0, 1e-8, 3.0], n // 3)) + np.diag(np.tile([1.0, 0.0], n)[: n - 1], 1),
    )
    yield "Kahan", np.triu(-0.9 * np.ones((n, n)), 1) + np.eye(n)
    yield "Hilbert", 1 / (np.arange(n)[:, None] + np.arange(n) + 1.0)
    yield "tiny", 1e-300 * q1
    yield "subnormal", 1e-310 * rng.normal(size=(n, n))
    yield "huge", 1e307 * q1
    yield "wide range", rng.normal(size=(n, n)) * 10.0 ** rng.uniform(-200, 100, size=(n, n))
    yield "signs", np.sign(rng.normal(size=(n, n)))


AWKWARD = dict(awkward())


@every_isa
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_matrices(name, isa):
    A = AWKWARD[name]
    with backend.forced(isa=isa):
        got = singular_values(A)
    want = np.linalg.svd(A, compute_uv=False)
    assert np.abs(got - want).max() <= 1e-14 * max(want[0], 1e-308)


def test_the_kernel_does_the_awkward_ones_itself():
    """LAPACK takes over where dqds comes to no end; that has not been seen."""
    A = np.array(list(AWKWARD.values()))
    status, values = np.full(len(A), -1), np.empty((len(A), A.shape[-1]))
    backend.core.singular_values(
        matrices=A, most_steps=30, values=values, status=status, threads=1, memory=lambda: None, isa=backend.isa()
    )
    assert (status == 0).all()


def test_lapack_takes_over_where_the_kernel_gives_up(monkeypatch):
    A = np.random.default_rng(4).normal(size=(20, 9, 9))
    monkeypatch.setattr(sys.modules["pydln.spectra.singular_values"], "MOST_STEPS", 3)
    status, values = np.full(20, -1), np.full((20, 9), np.nan)
    backend.core.singular_values(
        matrices=A, most_steps=3, values=values, status=status, threads=1, memory=lambda: None, isa=backend.isa()
    )
    assert (status != 0).any()
    assert error(singular_values(A), np.linalg.svd(A, compute_uv=False)) < LARGEST


@every_isa
@pytest.mark.parametrize("shape", [(4, 4), (11, 6), (32, 32)])
def test_bits_depend_on_the_matrix_alone(shape, isa):
    A = np.random.default_rng(5).normal(size=(43, *shape))
    A[7] = 0
    A[11] = np.diag(10.0 ** -np.arange(max(shape)))[: shape[0], : shape[1]]
    A[12] *= 1e250
    with backend.forced(isa=isa):
        whole = singular_values(A, n_threads=1)
        assert (singular_values(A, n_threads=3) == whole).all()
        assert (singular_values(A[::-1])[::-1] == whole).all()
        assert (np.array([singular_values(a) for a in A]) == whole).all()
        assert (np.concatenate([singular_values(A[:5]), singular_values(A[5:])]) == whole).all()


def test_threads_give_the_same_bits_where_there_is_work_for_several():
    A = np.random.default_rng(6).normal(size=(3000, 16, 16))
    assert (singular_values(A, n_threads=1) == singular_values(A, n_threads=4)).all()


@every_isa
def test_what_is_not_finite_spoils_nothing_else(isa):
    A = np.random.default_rng(7).normal(size=(20, 5, 6))
    with backend.forced(isa=isa):
        want = singular_values(A)
        A[3, 2, 1], A[4, 0, 0], A[19, 4, 5] = np.nan, np.inf, -np.inf
        got = singular_values(A)
    bad = np.isin(np.arange(20), [3, 4, 19])
    assert np.isnan(got[bad]).all()
    assert (got[~bad] == want[~bad]).all()


def test_what_is_not_finite_above_the_kernels_sizes():
    A = np.random.default_rng(8).normal(size=(3, 70, 70))
    A[1, 5, 5] = np.nan
    got = singular_values(A)
    assert np.isnan(got[1]).all()
    assert (got[[0, 2]] == np.linalg.svd(A[[0, 2]], compute_uv=False)).all()


@pytest.mark.parametrize("n", [KERNEL_COLUMNS, KERNEL_COLUMNS + 1])
def test_both_sides_of_where_lapack_begins(n):
    A = np.random.default_rng(9).normal(size=(2, n, n))
    assert error(singular_values(A), np.linalg.svd(A, compute_uv=False)) < LARGEST


def test_shapes():
    rng = np.random.default_rng(10)
    assert singular_values(rng.normal(size=(3, 5))).shape == (3,)
    assert singular_values(rng.normal(size=(2, 4, 3, 5))).shape == (2, 4, 3)
    for empty in ((0, 3, 3), (2, 0, 3), (2, 3, 0), (0, 0)):
        assert singular_values(np.empty(empty)).shape == (*empty[:-2], min(empty[-2:]))
    A = rng.normal(size=(4, 6, 5))
    assert (singular_values(A.astype(np.float32)) == singular_values(A.astype(np.float32).astype(float))).all()
    assert (singular_values(A[::2, :, ::-1]) == singular_values(A[::2, :, ::-1].copy())).all()
    assert (singular_values(np.array([[3, 0], [0, -4]])) == [4, 3]).all()


def test_theorems():
    """Invariances, and what the values must sum and multiply to."""
    rng = np.random.default_rng(11)
    A = rng.normal(size=(50, 12, 9))
    s = singular_values(A)
    np.testing.assert_allclose((s**2).sum(axis=1), (A**2).sum(axis=(1, 2)), rtol=1e-13)
    assert error(singular_values(A.transpose(0, 2, 1)), s) < LARGEST
    q = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    assert error(singular_values(q @ A), s) < LARGEST
    assert (singular_values(A * 2.0**-700) == s * 2.0**-700).all()
    square = singular_values(A[:, :9])
    np.testing.assert_allclose(square.prod(axis=1), np.abs(np.linalg.det(A[:, :9])), rtol=1e-11)
    assert (square <= s * (1 + 1e-14)).all()  # rows taken away (Cauchy)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros(3), r"matrices: expected \(..., n, m\), got an array of shape \(3,\)"),
        ([["a"]], "matrices: expected real numbers"),
        ([[1j]], "matrices: expected .*complex"),
    ],
)
def test_errors(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        singular_values(given)
    with pytest.raises(ValueError, match="n_threads: expected an integer >= 1, got 0"):
        singular_values(np.eye(2), n_threads=0)
