"""The identity in every layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from pydln._base.patience import interruptible
from pydln.init.arguments import arguments, cast, shapes, work
from pydln.weights import Weights

__all__ = ["identity"]


@interruptible(work)
def identity(
    widths: Sequence[int], *, batch: int | None = None, scale: ArrayLike = 1.0, dtype: DTypeLike = np.float64
) -> Weights:
    """g_l times the identity in every layer, cut or padded with zeros where n_l ≠ n_{l-1}: the delta start.

    Conserved are W_{l+1}ᵀW_{l+1} - W_l W_lᵀ = g_{l+1}² I - g_l² I, of each I only the first min(n_l, n_{l+1}) and
    min(n_{l-1}, n_l) ones. Two layers whose hidden one is no wider than its neighbours are lambda-balanced: with
    whitened inputs "balanced, two layers" applies. A start with equal gains whose task has coordinate axes for modes is
    decoupled at any depth ("aligned and balanced", with u_0 = g^D: without a plateau for g = 1).

    Parameters and errors as for `gaussian`.
    """
    dims, gains, count, _, kind = arguments(widths, batch, scale, 0, 0, dtype)
    return Weights._adopt(
        cast(np.broadcast_to(gain * np.eye(n_out, n_in), (count, n_out, n_in)), kind)
        for (_, n_in, n_out), gain in zip(shapes(dims), gains, strict=True)
    )
