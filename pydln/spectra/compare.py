"""How far a measured spectrum is from a law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pydln._base import validate
from pydln.spectra.law import Law

__all__ = ["LawComparison", "compare"]


@dataclass(frozen=True)
class LawComparison:
    """A spectrum beside a law.

    Attributes
    ----------
    distance : float
        Kolmogorov-Smirnov: the largest difference of the two distribution functions.
    at : float
        Where it is, in the variable that was compared.
    count : int
        Number of values.
    """

    distance: float
    at: float
    count: int


def compare(empirical: ArrayLike, law: Law, *, log: bool = False, rounding: float = 1e-9) -> LawComparison:
    """The Kolmogorov-Smirnov distance between values and a law.

    Eigenvalues of random matrices repel each other: their distance is far below 1/√count, and tests that suppose
    independent values do not apply.

    Parameters
    ----------
    empirical : array
        Values of the law's variable x, of any shape, all together.
    law : Law
        From this package.
    log : bool
        The values are ln x; minus infinity is x = 0.
    rounding : float
        Values that lie within this part of an atom of the law, or below this for an atom at zero, count as on it.

    Returns
    -------
    LawComparison

    Raises
    ------
    ValueError, TypeError
        No values, NaN, something that is no law; not `log`, and a law with an atom beyond the range of float64.
    """
    validate.instance(law, "law", Law)
    values = np.sort(validate.array(empirical, "empirical", finite=False), axis=None)
    rounding, log = validate.number(rounding, "rounding", at_least=0), validate.flag(log, "log")
    if values.size == 0:
        raise ValueError("empirical: expected at least one value, got none")
    if np.isnan(values).any() or (values == np.inf).any() or (not log and (values == -np.inf).any()):
        raise ValueError("empirical: expected numbers, got NaN or infinity")
    for (place, _), (at, _) in zip(law.atoms, law.log_atoms, strict=True):
        if not log and np.isfinite(at) and not 0 < place < np.inf:
            raise ValueError(f"log: expected True for a law with an atom at ln x = {at:g}, beyond the range of float64")
    atoms = np.array([place for place, _ in (law.log_atoms if log else law.atoms)])
    masses = np.array([mass for _, mass in law.atoms])
    for place, (x, _) in zip(atoms, law.atoms, strict=True):
        reach = rounding if log or x == 0 else rounding * x
        near = np.abs(values - place) <= reach if np.isfinite(place) else values <= np.log(rounding or 1e-300)
        values = np.sort(np.where(near, place, values))
    places = np.unique(np.concatenate([values, atoms]))
    from_law = law.cdf_log(places) if log else law.cdf(places)
    jump = np.zeros(len(places))
    for place, mass in zip(atoms, masses, strict=True):
        jump[places == place] += mass
    up_to = np.searchsorted(values, places, side="right") / values.size
    before = np.searchsorted(values, places, side="left") / values.size
    apart = np.maximum(np.abs(up_to - from_law), np.abs(before - (from_law - jump)))
    worst = int(np.argmax(apart))
    return LawComparison(float(apart[worst]), float(places[worst]), int(values.size))
