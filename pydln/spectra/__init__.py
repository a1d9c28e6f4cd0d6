"""Singular values and eigenvalues of weights and their products, and the laws that they follow."""

from __future__ import annotations

from pydln.spectra.compare import LawComparison, compare
from pydln.spectra.disk import Disk
from pydln.spectra.fuss_catalan import FussCatalan
from pydln.spectra.jacobian import JacobianLaw
from pydln.spectra.law import Law
from pydln.spectra.marchenko_pastur import MarchenkoPastur
from pydln.spectra.orthogonal import Orthogonal
from pydln.spectra.product_spectrum import ProductSpectrum, product_spectrum, random_product_spectrum
from pydln.spectra.singular_values import singular_values

__all__ = [
    "Disk",
    "FussCatalan",
    "JacobianLaw",
    "Law",
    "LawComparison",
    "MarchenkoPastur",
    "Orthogonal",
    "ProductSpectrum",
    "compare",
    "product_spectrum",
    "random_product_spectrum",
    "singular_values",
]
