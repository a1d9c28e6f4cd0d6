"""The maximal-update scaling, in the form that one learning rate for all layers can train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pydln._base.patience import interruptible
from pydln.init.arguments import arguments, cast, shapes, whole_widths, work
from pydln.init.draws import draws
from pydln.weights import Weights

__all__ = ["MupScaling", "mup", "mup_scaling"]


class MupScaling(NamedTuple):
    """How the layers that `mup` makes are related to those of the maximal-update parametrisation.

    Attributes
    ----------
    multipliers : (D,) array
        m_l with W_l = m_l w_l, w_l the layers that are trained; their product is 1.
    rate : float
        The one rate of the w_l is η times this; 1 if n_1 = n_{D-1}.
    """

    multipliers: NDArray[np.float64]
    rate: float


def mup_scaling(widths: Sequence[int]) -> MupScaling:
    """Multipliers and rate with which the layers that `mup` makes train as in the maximal-update parametrisation.

    Parameters
    ----------
    widths : sequence of int
        n_0 … n_D, input first.

    Raises
    ------
    ValueError, TypeError
        Fewer than three widths, a width below one, text.
    """
    return _scaling(whole_widths(widths))


@interruptible(work)
def mup(
    widths: Sequence[int],
    *,
    batch: int | None = None,
    scale: ArrayLike = 1.0,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """A start of the maximal-update parametrisation: features learn at a pace that does not depend on hidden widths.

    The convention is that of gradient descent in Yang et al. 2022 (Tensor Programs V, table 3), for D >= 2 layers and
    growing hidden widths, n_0 and n_D fixed:

    ==========  ===================  =====================
    layer       variance of entries  learning rate
    ==========  ===================  =====================
    W_1         g_1² / n_0           η r_1,  r_1 = n_1
    between     g_l² / n_{l-1}       η
    W_D         g_D² / n_{D-1}²      η r_D,  r_D = 1 / n_{D-1}
    ==========  ===================  =====================

    `pydln.gradient_descent` has one rate for all layers, and needs no more: W_l = m_l w_l with m_l² proportional to
    r_l and Π m_l = 1 has the same product, and the steps of W_l at rates η r_l are exactly those of w_l at the one rate
    η (n_1/n_{D-1})^{1/D}, which is η between equal hidden widths. What is returned are these w_l. For equal hidden
    widths n they are w_1 ~ N(0, g_1²/(n_0 n)) and w_D ~ N(0, g_D²/n), the others as in `gaussian`; the responses of the
    hidden layers are √n times those of the w_l. `mup_scaling` gives multipliers and rate for any widths. This holds
    for gradient descent with or without momentum, not with weight decay, which counts W_l m_l^-2 times as much.

    Conserved by the flow of the w_l are w_{l+1}ᵀw_{l+1} - w_l w_lᵀ, random here; of a network of two layers the
    mean is (g_2² n_2 - g_1²)/n I, which vanishes with 1/n. Closed forms as for `gaussian`.

    Parameters and errors as for `gaussian`; a single layer is refused.
    """
    dims, gains, count, keys, kind = arguments(widths, batch, scale, seed, first, dtype)
    scaling = _scaling(dims)
    layers = []
    for (layer, n_in, n_out), gain, m in zip(shapes(dims), gains, scaling.multipliers, strict=True):
        numbers = draws(n_out, n_in, count, keys, layer, "normal")
        numbers *= gain / (m * (n_in if layer == len(gains) else np.sqrt(n_in)))
        layers.append(cast(numbers, kind))
    return Weights._adopt(layers)


def _scaling(dims: list[int]) -> MupScaling:
    depth = len(dims) - 1
    if depth < 2:
        raise ValueError("widths: expected a hidden layer, at least three widths, got two")
    rates = np.ones(depth)
    try:
        rates[0], rates[-1] = dims[1], 1 / dims[-2]
        common = float(dims[1] / dims[-2]) ** (1 / depth)
    except OverflowError:
        raise ValueError("widths: expected hidden widths within the range of float64, got one beyond") from None
    return MupScaling(np.sqrt(rates / common), common)
