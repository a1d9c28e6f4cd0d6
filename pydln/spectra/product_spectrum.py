"""Spectra of products of any depth, each value to its own last digits.

The product is never formed. From W_1 on, W_l Q_{l-1} = Q_l T_l is factored with Q_l orthonormal and T_l upper
triangular, so that Ω = Q_D R, R = T_D ⋯ T_1, and R is carried as rows with powers of two of their own: the factors
shrink each row at its own rate (the Lyapunov exponents), and nothing over- or underflows. Rows are put in decreasing
order before each factorisation, so that a row only takes up smaller ones. An error of rounding in a factor W_l changes
every singular value by at most its condition number κ(W_l) times rounding; the sum over the factors is the error of ln
σ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import backend, validate
from pydln._base.patience import patiently
from pydln.spectra.graded import Graded
from pydln.spectra.graded_eigenvalues import log_eigenvalues
from pydln.weights import Weights

__all__ = ["ProductSpectrum", "product_spectrum", "random_product_spectrum"]

Floats = NDArray[np.float64]

_CHUNK = 2**25  # bytes of one array of matrices that are worked on together


@dataclass(frozen=True)
class ProductSpectrum:
    """Spectra of a batch of products.

    Attributes
    ----------
    log_singular_values : (batch, min(n_0, n_D)) array or None
        ln σ, decreasing; minus infinity for σ = 0. None if they were not asked for.
    log_eigenvalue_moduli, eigenvalue_phases : (batch, n) array or None
        ln|λ|, decreasing, and arg λ in radians; None unless they were asked for.
    """

    log_singular_values: Floats | None = None
    log_eigenvalue_moduli: Floats | None = None
    eigenvalue_phases: Floats | None = None

    @property
    def singular_values(self) -> Floats:
        """σ itself, where its size is one that float64 has.

        Raises
        ------
        ValueError
            Singular values were not asked for.
        """
        if self.log_singular_values is None:
            raise ValueError("singular_values: expected a spectrum made with singular_values=True")
        values: Floats = np.exp(self.log_singular_values)
        return values

    @property
    def eigenvalues(self) -> NDArray[np.complex128]:
        """λ itself, where its size is one that float64 has.

        Raises
        ------
        ValueError
            Eigenvalues were not asked for.
        """
        if self.log_eigenvalue_moduli is None or self.eigenvalue_phases is None:
            raise ValueError("eigenvalues: expected a spectrum made with eigenvalues=True")
        values: NDArray[np.complex128] = np.exp(self.log_eigenvalue_moduli + 1j * self.eigenvalue_phases)
        return values


def product_spectrum(
    factors: Weights | Sequence[ArrayLike],
    *,
    singular_values: bool = True,
    eigenvalues: bool = False,
    n_threads: int | None = None,
) -> ProductSpectrum:
    """Singular values, and eigenvalues, of Ω = W_D ⋯ W_1.

    Parameters
    ----------
    factors : Weights, or sequence of D (n_l, n_{l-1}) or (batch, n_l, n_{l-1}) arrays
        W_1 first.
    singular_values, eigenvalues : bool
        Which to find; eigenvalues need n_D = n_0. Their error is not bounded as that of the singular values is: an
        eigenvalue of a matrix that is far from normal may depend on it much more strongly. Against arithmetic of many
        digits, on 50 to 200 Gaussian factors, ln λ was right to 1e-9 (tests/test_product_spectrum.py).
    n_threads : int, optional
        The result does not depend on it.

    Raises
    ------
    ValueError, TypeError
        No factors, shapes that do not follow each other, numbers that are not finite, eigenvalues of a product that is
        not square.
    NotApplicable
        Eigenvalues spread over more than 2^950 without a gap.
    """
    threads = backend.threads(n_threads)
    singular_values, eigenvalues = _asked(singular_values, eigenvalues)
    layers = _factors(factors)
    n_in, n_out = layers[0].shape[2], layers[-1].shape[1]
    if eigenvalues and n_in != n_out:
        raise ValueError(f"eigenvalues: expected a square product, got {n_out} × {n_in}")
    batch = max(len(w) for w in layers)
    parts = []
    for chunk in _chunks(batch, max(n_in, *(w.shape[1] for w in layers))):
        carried, basis = _factored((w if len(w) == 1 else w[chunk] for w in layers), chunk.stop - chunk.start, n_in)
        parts.append(
            _spectrum(carried, basis if eigenvalues else None, min(n_in, n_out), threads if singular_values else None)
        )
    return _joined(parts)


def random_product_spectrum(
    kind: Literal["gaussian", "orthogonal"],
    n: int,
    depth: int,
    *,
    scale: float = 1.0,
    batch: int = 1,
    first: int = 0,
    seed: int = 0,
    singular_values: bool = True,
    eigenvalues: bool = False,
    n_threads: int | None = None,
) -> ProductSpectrum:
    """Spectra of products of `depth` independent random n × n matrices.

    Parameters
    ----------
    kind : {"gaussian", "orthogonal"}
        Entries N(0, scale²/n), or scale times a uniformly (Haar) distributed orthogonal matrix.
    n, depth : int
        Size and number of the factors.
    scale : float
        g.
    batch : int
        Number of products.
    first : int
        Number of the first: product i is first + i of the ensemble, keyed by (seed, first + i), whatever the batch.
    seed : int
        Of the ensemble.
    singular_values, eigenvalues, n_threads
        As for `product_spectrum`.

    Notes
    -----
    A Gaussian matrix times an orthogonal one is Gaussian again, so the triangular T_l of Gaussian factors are drawn
    from their own law, independently (Bartlett 1933): T_ii² chi-squared of n - i + 1 degrees of freedom, N(0, 1) above
    the diagonal, all over n. The product Q_D T_D ⋯ T_1 with Q_D uniform has the law of the product of the Gaussian
    matrices themselves, and no factor has to be factorised.
    """
    kind = validate.choice(kind, "kind", ("gaussian", "orthogonal"))  # type: ignore[assignment]
    n = validate.integer(n, "n", at_least=1)
    depth = validate.integer(depth, "depth", at_least=1, at_most=2**31 - 1)
    gain = validate.number(scale, "scale", above=0)
    batch = validate.integer(batch, "batch", at_least=1)
    validate.fits_in_memory(
        8 * n * (4 * batch + 8 * n), f"batch: {batch} products of {n} x {n} matrices", "take fewer, numbered by `first`"
    )
    singular_values, eigenvalues = _asked(singular_values, eigenvalues)
    first = validate.integer(first, "first", at_least=0)
    seed = validate.integer(seed, "seed", at_least=0)
    threads = backend.threads(n_threads)
    parts = []
    basis: Floats | None
    for chunk in _chunks(batch, n):
        draws = [
            np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(first + member,))))
            for member in range(chunk.start, chunk.stop)
        ]
        if kind == "orthogonal":
            turns = (np.array([gain * _haar(n, draw) for draw in draws]) for _ in range(depth))
            carried, basis = _factored(turns, len(draws), n)
        else:
            carried = _identity(len(draws), n)
            for _ in range(depth):
                upper = np.array([_bartlett(n, draw) for draw in draws])
                carried = carried.take(carried.order()).after(gain / np.sqrt(n) * upper)
            basis = np.array([_haar(n, draw) for draw in draws]) if eigenvalues else None
        parts.append(_spectrum(carried, basis if eigenvalues else None, n, threads if singular_values else None))
    return _joined(parts)


def _asked(singular_values: bool, eigenvalues: bool) -> tuple[bool, bool]:
    return validate.flag(singular_values, "singular_values"), validate.flag(eigenvalues, "eigenvalues")


def _identity(count: int, n: int) -> Graded:
    return Graded(np.broadcast_to(np.eye(n), (count, n, n)), np.zeros((count, n), np.int64))


def _factored(layers: Iterable[Floats], count: int, n_in: int) -> tuple[Graded, Floats]:
    """R and Q_D of the product of `layers`, W_1 first."""
    carried = _identity(count, n_in)
    basis = carried.rows
    for w in layers:
        order = carried.order()
        basis, upper = patiently(np.linalg.qr, w @ np.take_along_axis(basis, order[:, None, :], axis=2))
        carried = carried.take(order).after(upper)
    return carried, basis


def _spectrum(carried: Graded, basis: Floats | None, count: int, threads: int | None) -> ProductSpectrum:
    """Of Q R, Q in `basis` if eigenvalues are wanted; singular values if there are threads for them."""
    missing = count - carried.exponents.shape[1]  # of a product through a narrow layer

    def filled(logs: NDArray[Any]) -> NDArray[Any]:
        return np.pad(logs, ((0, 0), (0, missing)), constant_values=-np.inf)

    values = None if threads is None else filled(carried.log_singular_values(threads))
    if basis is None:
        return ProductSpectrum(values)
    logs = log_eigenvalues(Graded.of(carried.rows @ basis, carried.exponents))  # of R Q
    return ProductSpectrum(values, filled(logs.real), np.pad(logs.imag, ((0, 0), (0, missing))))


def _joined(parts: list[ProductSpectrum]) -> ProductSpectrum:
    def joined(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    return ProductSpectrum(*(joined(n) for n in ("log_singular_values", "log_eigenvalue_moduli", "eigenvalue_phases")))


def _haar(n: int, draw: np.random.Generator) -> Floats:
    q, r = patiently(np.linalg.qr, draw.standard_normal((n, n)))
    signed: Floats = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return signed


def _bartlett(n: int, draw: np.random.Generator) -> Floats:
    upper = np.zeros((n, n))
    upper[~np.tri(n, dtype=bool)] = draw.standard_normal(n * (n - 1) // 2)
    np.fill_diagonal(upper, np.sqrt(draw.chisquare(np.arange(n, 0, -1))))
    return upper


def _chunks(batch: int, n: int) -> list[slice]:
    size = max(1, _CHUNK // (8 * n * n))
    return [slice(start, min(start + size, batch)) for start in range(0, batch, size)]


def _factors(factors: Weights | Sequence[ArrayLike]) -> list[Floats]:
    """(batch or 1, n_l, n_{l-1}) arrays, checked."""
    if isinstance(factors, np.ndarray) and factors.ndim < 3:
        raise TypeError("factors: expected a sequence of matrices, W_1 first, got one array")
    if not isinstance(factors, Weights | Sequence | np.ndarray) or isinstance(factors, str | bytes):
        raise TypeError(f"factors: expected Weights or a sequence of matrices, W_1 first, got {type(factors).__name__}")
    layers: list[Floats] = []
    batch = 1
    for place, w in enumerate(factors.layers if isinstance(factors, Weights) else factors):
        name = f"factors[{place}]"
        given = validate.array(w, name)
        if given.ndim not in (2, 3) or given.size == 0:
            raise ValueError(f"{name}: expected (n_l, n_{{l-1}}) or (batch, n_l, n_{{l-1}}), got {given.shape}")
        given = given.reshape(-1, *given.shape[-2:])
        if layers and given.shape[2] != layers[-1].shape[1]:
            raise ValueError(
                f"{name}: expected {layers[-1].shape[1]} columns to follow factors[{place - 1}], got {given.shape[2]}"
            )
        if len(given) != 1:
            if batch not in (1, len(given)):
                raise ValueError(f"{name}: expected 1 or {batch} members, got {len(given)}")
            batch = len(given)
        layers.append(given)
    if not layers:
        raise ValueError("factors: expected at least one matrix, got none")
    return layers
