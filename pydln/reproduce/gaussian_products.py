"""Products of Gaussian matrices, whose spectra figures 6B and 6C show, and how much a sample of them may scatter."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln import _validate
from pydln.reproduce.report import Progress
from pydln.spectra import ProductSpectrum, random_product_spectrum

__all__ = ["FACTORS", "factors", "products", "sizes", "spread"]

FACTORS = (1, 5, 100)
SIZE = {False: 100, True: 1000}
REALISATIONS = {False: 60, True: 500}

Floats = NDArray[np.float64]


def sizes(full: bool, size: int | None, realisations: int | None) -> tuple[int, int]:
    """N and the number of realisations, checked: the paper's if `full`, where they are not given."""
    n = _validate.integer(SIZE[full] if size is None else size, "size", at_least=10)
    count = REALISATIONS[full] if realisations is None else realisations
    return n, _validate.integer(count, "realisations", at_least=10)


def products(n: int, count: int, tell: Progress, total: int, **options: Any) -> dict[int, ProductSpectrum]:
    """Spectra of `count` products of each depth, by number of factors.

    One after the other, told to `tell` as done of `total` factors some fifty times a depth; `options` go to
    `pydln.spectra.random_product_spectrum`.
    """
    done, found = 0, {}
    for depth in FACTORS:
        parts = []
        for member in range(count):
            if member % max(1, count // 50) == 0:
                tell(done, total, factors(depth, "Gaussian "))
            parts.append(random_product_spectrum("gaussian", n, depth, first=member, **options))
            done += depth
        found[depth] = ProductSpectrum(
            *(_joined([getattr(one, field.name) for one in parts]) for field in fields(ProductSpectrum))
        )
    return found


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
