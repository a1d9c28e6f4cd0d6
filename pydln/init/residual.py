"""The identity plus something small in every layer: a residual network without nonlinearities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from pydln._base.patience import interruptible
from pydln.init.arguments import arguments, cast, shapes, work
from pydln.init.draws import draws
from pydln.weights import Weights

__all__ = ["residual"]


@interruptible(work)
def residual(
    widths: Sequence[int],
    *,
    scale: ArrayLike,
    batch: int | None = None,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """W_l = I + A_l with independent normal A_l ~ N(0, g_l² / n_{l-1}), all trained as one matrix (Hardt & Ma 2017).

    The identity is cut or padded with zeros where n_l ≠ n_{l-1}. With g_l = g/D the product stays near the identity
    at any depth, and learning from it has no plateau: u_0 ≈ 1 in Saxe, McClelland & Ganguli 2013, eq. 15.

    Conserved are W_{l+1}ᵀW_{l+1} - W_l W_lᵀ, in a square network A_{l+1} + A_{l+1}ᵀ - A_l - A_lᵀ +
    A_{l+1}ᵀA_{l+1} - A_l A_lᵀ. Closed forms as for `gaussian`, and for g_l = 0 as for `identity`.

    Parameters
    ----------
    widths, batch, seed, first, dtype
        As for `gaussian`.
    scale : number, (batch,) or (batch, D) array
        The gains g_l of A_l, zero or more.

    Raises
    ------
    ValueError, TypeError
        As for `gaussian`.
    """
    dims, gains, count, keys, kind = arguments(widths, batch, scale, seed, first, dtype)
    layers = []
    for (layer, n_in, n_out), gain in zip(shapes(dims), gains, strict=True):
        numbers = draws(n_out, n_in, count, keys, layer, "normal")
        numbers *= gain / np.sqrt(n_in)
        numbers += np.eye(n_out, n_in)
        layers.append(cast(numbers, kind))
    return Weights._adopt(layers)
