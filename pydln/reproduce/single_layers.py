"""Square layers one at a time: a hundred of the paper's width would take 800 MB."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pydln import init

__all__ = ["single_layers"]


def single_layers(kind: str, units: int, members: range, seed: int) -> Iterator[NDArray[np.float64]]:
    """Those of `members` in an ensemble of networks of one layer, each (1, units, units), when it is asked for.

    Parameters
    ----------
    kind : str
        The start, by its name in `pydln.init`.
    """
    make = getattr(init, kind)
    for member in members:
        yield make((units, units), seed=seed, first=member).layers[0]
