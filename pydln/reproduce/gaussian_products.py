"""Products of Gaussian matrices, whose spectra figures 6B and 6C show, and how much a sample of them may scatter."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pydln._base import backend, validate
from pydln.reproduce.report import Progress, blas_threads
from pydln.spectra import ProductSpectrum, random_product_spectrum

__all__ = ["FACTORS", "factors", "products", "sizes", "spread"]

FACTORS = (1, 5, 100)
SIZE = {False: 100, True: 1000}
REALISATIONS = {False: 60, True: 500}

Floats = NDArray[np.float64]
Products = dict[int, ProductSpectrum]

_last: dict[tuple[int, int, int], Products] = {}


def sizes(full: bool, size: int | None, realisations: int | None) -> tuple[int, int]:
    """N and the number of realisations, checked: the paper's if `full`, where they are not given."""
    n = validate.integer(SIZE[full] if size is None else size, "size", at_least=10)
    count = REALISATIONS[full] if realisations is None else realisations
    return n, validate.integer(count, "realisations", at_least=10)


def products(n: int, count: int, tell: Progress, total: int, *, seed: int, n_threads: int | None) -> Products:
    """Spectra of `count` products of each depth, by number of factors.

    Told to `tell` as done of `total` factors some fifty times a depth. Threads take one product after the other, each
    with a BLAS of one thread. The last result is kept: figures 6B and 6C show the same matrices.
    """
    key = (n, count, seed)
    tell(0, total, "Gaussian products")
    if key in _last:
        return _last[key]
    done, found = 0, {}
    with blas_threads(1), _workers(backend.threads(n_threads)) as pool:
        for depth in FACTORS:
            draw = partial(random_product_spectrum, "gaussian", n, depth, seed=seed, eigenvalues=True, n_threads=1)
            parts = []
            for member, part in enumerate(pool.map(lambda first, draw=draw: draw(first=first), range(count))):
                if member % max(1, count // 50) == 0:
                    tell(done, total, factors(depth, "Gaussian "))
                parts.append(part)
                done += depth
            found[depth] = ProductSpectrum(
                *(_joined([getattr(one, field.name) for one in parts]) for field in fields(ProductSpectrum))
            )
    _last.clear()
    _last[key] = found
    return found


@contextmanager
def _workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that forgets what it has not begun when it is left."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _joined(parts: list[Floats | None]) -> Floats | None:
    asked = [part for part in parts if part is not None]
    return np.concatenate(asked) if asked else None


def factors(depth: int, kind: str = "") -> str:
    """“5 Gaussian factors”."""
    return f"{depth} {kind}factor{'s' if depth > 1 else ''}"


def spread(values: Floats, at: float) -> float:
    """What may separate a fraction of values below `at` from its limit: one value in N, and four standard errors."""
    fractions = np.mean(values < at, axis=1)
    return float(1 / values.shape[1] + 4 * fractions.std(ddof=1) / np.sqrt(len(fractions)))
