"""Independent uniform entries, scaled as Glorot & Bengio (2010)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from pydln._base.patience import interruptible
from pydln.init.arguments import arguments, cast, shapes, work
from pydln.init.draws import draws
from pydln.weights import Weights

__all__ = ["uniform"]


@interruptible(work)
def uniform(
    widths: Sequence[int],
    *,
    batch: int | None = None,
    scale: ArrayLike = 1.0,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """Independent uniform entries between ±g_l √(6 / (n_{l-1} + n_l)) (Glorot & Bengio 2010).

    Conserved are W_{l+1}ᵀW_{l+1} - W_l W_lᵀ, random here, of mean 2 (g_{l+1}² n_{l+1}/(n_l + n_{l+1}) - g_l²
    n_{l-1}/(n_{l-1} + n_l)) I. Closed forms as for `gaussian`: one layer, or two about a single hidden unit.

    Parameters and errors as for `gaussian`.
    """
    dims, gains, count, keys, kind = arguments(widths, batch, scale, seed, first, dtype)
    layers = []
    for (layer, n_in, n_out), gain in zip(shapes(dims), gains, strict=True):
        numbers = draws(n_out, n_in, count, keys, layer, "uniform")
        numbers -= 0.5
        numbers *= 2 * gain * np.sqrt(6 / (n_in + n_out))
        layers.append(cast(numbers, kind))
    return Weights._adopt(layers)
