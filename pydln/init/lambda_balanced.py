"""Two layers with a given product and W_2ᵀW_2 - W_1W_1ᵀ = λI."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pydln._base import validate
from pydln._base.patience import interruptible
from pydln.init.arguments import agree, cast, fits, hidden_widths, member_keys
from pydln.init.balanced import product_work, svd_of
from pydln.init.draws import frames
from pydln.weights import Weights

__all__ = ["lambda_balanced"]


@interruptible(product_work)
def lambda_balanced(
    product: ArrayLike,
    *,
    imbalance: ArrayLike,
    width: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """Two layers with the given product Ω_0 and W_2ᵀW_2 - W_1W_1ᵀ = λI (Dominé et al. 2025).

    With Ω_0 = P diag(σ) Qᵀ, W_1 = R S_1 Qᵀ and W_2 = P S_2 Rᵀ, where S_1² = (√(λ² + 4σ²) - λ)/2 and S_2² =
    (√(λ² + 4σ²) + λ)/2, the smaller of the two as σ over the larger, which keeps its digits for any λ. R is a random
    rotation of the hidden layer, keyed by (seed, member). Learning is lazy for |λ| ≫ σ and rich for λ near 0.

    Conserved is W_2ᵀW_2 - W_1W_1ᵀ = λI; with whitened inputs "balanced, two layers" applies whatever the product.

    Parameters
    ----------
    product : (n_2, n_0) or (batch, n_2, n_0) array
        Ω_0.
    imbalance : number or (batch,) array
        λ, of either sign.
    width : int, optional
        n_1, not below the rank of Ω_0; min(n_0, n_2) by default. λ > 0 needs n_1 <= n_2, and λ < 0 needs n_1 <= n_0:
        the heavier layer has λI on the whole hidden layer to make.
    batch : int, optional
        How many networks; by default as many as `product` or `imbalance` have, or one.
    seed, first : int
        As for `gaussian`.
    dtype : dtype
        float32 or float64; rounding to float32 costs product and balance all but seven digits.

    Raises
    ------
    ValueError, TypeError
        A product that is not a matrix or a batch of them, a width below its rank or for which no such start exists.
    """
    kind = validate.dtype(dtype)
    target, P, sigma, Qt, rank = svd_of(product, full=True)
    lam = validate.per_member(imbalance, "imbalance")
    members, n_out, n_in = target.shape
    count = agree(batch, {"product": members, "imbalance": len(lam) if lam.ndim else None})
    n = hidden_widths(width, 2, rank, "the rank of product", default=min(n_in, n_out))[0]
    for sign, most, which in ((1, n_out, "n_2"), (-1, n_in, "n_0")):
        wrong = np.ravel(lam)[np.ravel(sign * lam) > 0]
        if wrong.size and n > most:
            raise ValueError(
                f"width: expected at most {which} = {most} where imbalance is {wrong[0]:g}: W_2ᵀW_2 - W_1W_1ᵀ = λI "
                f"needs a layer of rank n_1, got {n}"
            )
    keys = member_keys(seed, first, count)
    fits(count, [n_in, n, n_out], kind)

    lam = np.broadcast_to(lam.reshape(-1, 1), (count, 1))
    sigma = np.broadcast_to(_padded(sigma, n), (count, n))
    heavy = np.sqrt((np.hypot(lam, 2 * sigma) + np.abs(lam)) / 2)
    light = sigma / np.where(heavy > 0, heavy, 1.0)
    one, two = np.where(lam > 0, light, heavy), np.where(lam > 0, heavy, light)
    R = frames(n, n, count, keys, 1)
    # What a side has no room for has strength 0 there.
    k, m = min(n, n_in), min(n, n_out)
    W_1 = np.matmul(R[:, :, :k] * one[:, None, :k], np.broadcast_to(Qt[:, :k], (count, k, n_in)))
    W_2 = np.matmul(np.broadcast_to(P[:, :, :m], (count, n_out, m)) * two[:, None, :m], R[:, :, :m].transpose(0, 2, 1))
    return Weights._adopt([cast(W, kind, "imbalance") for W in (W_1, W_2)])


def _padded(sigma: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """The first n singular values, zeros where there are fewer."""
    kept = sigma[:, :n]
    return np.pad(kept, ((0, 0), (0, n - kept.shape[1])))
