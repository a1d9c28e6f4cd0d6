"""Products of Gaussian matrices, whose spectra figures 6B and 6C show, and how much a sample of them may scatter."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pydln._base import backend
from pydln.reproduce.blas import blas_threads
from pydln.reproduce.recipe import Job, whole
from pydln.spectra import ProductSpectrum, random_product_spectrum

__all__ = ["FACTORS", "OPTIONS", "factors", "products", "spread"]

FACTORS = (1, 5, 100)
OPTIONS = {
    "size": whole("N, in the paper 1000", 100, 1000, at_least=10),
    "realisations": whole("Products of each depth, in the paper 500", 60, 500, at_least=10),
}

Floats = NDArray[np.float64]
Products = dict[int, ProductSpectrum]

_last: dict[tuple[int, int, int], Products] = {}


def products(n: int, count: int, job: Job, total: int) -> Products:
    """Spectra of `count` products of each depth, by number of factors.

    Told as done of `total` factors some fifty times a depth. Threads take one product after the other, each
    with a BLAS of one thread. The last result is kept: figures 6B and 6C show the same matrices.
    """
    key = (n, count, job.seed)
    job.tell(0, total, "Gaussian products")
    if key in _last:
        return _last[key]
    done, found = 0, {}
    with blas_threads(1), _workers(backend.threads(job.n_threads)) as pool:
        for depth in FACTORS:
            draw = partial(random_product_spectrum, "gaussian", n, depth, seed=job.seed, eigenvalues=True, n_threads=1)
            parts = []
            for member, part in enumerate(pool.map(lambda first, draw=draw: draw(first=first), range(count))):
                if member % max(1, count // 50) == 0:
                    job.tell(done, total, factors(depth, "Gaussian "))
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
