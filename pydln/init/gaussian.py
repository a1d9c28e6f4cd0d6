"""Independent normal entries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from pydln._base.patience import interruptible
from pydln.init.arguments import arguments, cast, shapes, work
from pydln.init.draws import draws
from pydln.weights import Weights

__all__ = ["gaussian"]


@interruptible(work)
def gaussian(
    widths: Sequence[int],
    *,
    batch: int | None = None,
    scale: ArrayLike = 1.0,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """Independent normal entries, W_l ~ N(0, g_l² / n_{l-1}).

    Conserved are W_{l+1}ᵀW_{l+1} - W_l W_lᵀ, random here, of mean (g_{l+1}² n_{l+1}/n_l - g_l²) I. No closed form is
    known but for one layer, and for two about a single hidden unit, where every start is lambda-balanced.

    Parameters
    ----------
    widths : sequence of int
        n_0 … n_D, input first.
    batch : int, optional
        How many networks; by default as many as `scale` has entries, or one.
    scale : number, (batch,) or (batch, D) array
        The gains g_l, zero or more: of all layers of a member, or layer by layer. A first axis of length one serves
        every member.
    seed : int
        Of the ensemble, 0 … 2^64 - 1.
    first : int
        Number of the first member: member i of the result is member first + i of the ensemble.
    dtype : dtype
        float32 or float64.

    Raises
    ------
    ValueError, TypeError
        Fewer than two widths, a width below one, text, a negative seed or scale, weights that no memory is free for.
    """
    dims, gains, count, keys, kind = arguments(widths, batch, scale, seed, first, dtype)
    layers = []
    for (layer, n_in, n_out), gain in zip(shapes(dims), gains, strict=True):
        numbers = draws(n_out, n_in, count, keys, layer, "normal")
        numbers *= gain / np.sqrt(n_in)
        layers.append(cast(numbers, kind))
    return Weights._adopt(layers)
