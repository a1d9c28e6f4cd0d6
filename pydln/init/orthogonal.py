"""Random orthogonal and semi-orthogonal layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from pydln._base.patience import interruptible
from pydln.init.arguments import arguments, cast, shapes, work
from pydln.init.draws import frames
from pydln.weights import Weights

__all__ = ["orthogonal"]


@interruptible(work)
def orthogonal(
    widths: Sequence[int],
    *,
    batch: int | None = None,
    scale: ArrayLike = 1.0,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """g_l times a random orthogonal matrix in every layer, uniform (Haar) over all of them.

    Where n_l ≠ n_{l-1} the matrix is semi-orthogonal, with orthonormal rows or columns, whichever are fewer (Saxe,
    McClelland & Ganguli 2013, section 3).

    Conserved are W_{l+1}ᵀW_{l+1} - W_l W_lᵀ = g_{l+1}² P - g_l² P', where P projects on the rows of W_{l+1} and P' on
    the columns of W_l: (g_{l+1}² - g_l²) I at hidden layers that are no wider than their neighbours. Two layers about
    such a one are lambda-balanced, and with whitened inputs admit the solution "balanced, two layers". Of more layers
    no closed form is known, for the product would have to lie in the modes of the task; with equal gains and no
    hidden layer wider than its neighbours they are balanced, and `pydln.end_to_end_flow` follows the product.

    Parameters and errors as for `gaussian`.
    """
    dims, gains, count, keys, kind = arguments(widths, batch, scale, seed, first, dtype)
    layers = []
    for (layer, n_in, n_out), gain in zip(shapes(dims), gains, strict=True):
        columns = frames(max(n_in, n_out), min(n_in, n_out), count, keys, layer)
        rotation = columns if n_out >= n_in else columns.transpose(0, 2, 1)
        layers.append(cast(rotation * gain, kind))
    return Weights._adopt(layers)
