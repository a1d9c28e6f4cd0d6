"""Balanced layers of a given product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pydln._base import validate
from pydln._base.patience import interruptible
from pydln.init.arguments import cast, fits, hidden_widths, member_keys
from pydln.init.draws import from_frames
from pydln.weights import Weights

__all__ = ["balanced", "product_work", "svd_of"]

FloatArray = NDArray[np.float64]


def product_work(
    product: Any, *, width: int | Sequence[int] | None = None, depth: int = 2, batch: int | None = None, **_: Any
) -> float:
    """About the work of decomposing a product and making layers of it, see `pydln._base.patience`."""
    *members, n_out, n_in = np.shape(product)
    widest = max((n_out, n_in, *(np.atleast_1d(width) if width is not None else ())))
    return float(max(batch or 1, *members, 1) * depth * widest * min(n_out, n_in) ** 2)


@interruptible(product_work)
def balanced(
    product: ArrayLike,
    *,
    depth: int,
    width: int | Sequence[int] | None = None,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """Layers with the given product Ω_0 and W_{l+1}ᵀW_{l+1} = W_l W_lᵀ (Arora et al. 2018).

    With Ω_0 = P diag(σ) Qᵀ the layers are W_l = R_{l+1} diag(σ^{1/D}) R_lᵀ, R_1 = Q, R_{D+1} = P, the hidden frames
    random, keyed by (seed, member, layer).

    Conserved are W_{l+1}ᵀW_{l+1} - W_l W_lᵀ = 0. Two layers with whitened inputs admit "balanced, two layers" for any
    product; one layer "one layer"; more layers "aligned and balanced" if the product lies in the modes of the task,
    Ω_0 = U diag(u) Vᵀ. `pydln.end_to_end_flow` and `pydln.singular_flow` follow any other product.

    Parameters
    ----------
    product : (n_D, n_0) or (batch, n_D, n_0) array
        Ω_0.
    depth : int
        D, the number of weight matrices.
    width : int or sequence of D - 1 int, optional
        Hidden widths, none below the rank of Ω_0; min(n_0, n_D) by default.
    seed, first : int
        As for `gaussian`.
    dtype : dtype
        float32 or float64; rounding to float32 costs product and balance all but seven digits.

    Raises
    ------
    ValueError, TypeError
        A product that is not a matrix or a batch of them, a width below its rank.
    """
    depth = validate.integer(depth, "depth", at_least=1)
    kind = validate.dtype(dtype)
    target, P, sigma, Qt, rank = svd_of(product)
    hidden = hidden_widths(width, depth, rank, "the rank of product", default=sigma.shape[1])
    keys = member_keys(seed, first, len(target))
    fits(len(target), [target.shape[2], *hidden, target.shape[1]], kind)
    if depth == 1:
        return Weights._adopt([cast(target.copy(), kind, "product")])
    kept = min(sigma.shape[1], *hidden)
    a = np.repeat(sigma[:, None, :kept] ** (1 / depth), depth, axis=1)
    return from_frames(P[:, :, :kept], a, Qt[:, :kept].transpose(0, 2, 1), hidden, keys, kind, "product")


def svd_of(product: ArrayLike, *, full: bool = False) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, int]:
    """Ω_0 with its batch axis, P, σ, Qᵀ, and the largest rank among the members; `full`: P and Qᵀ are square.

    Raises
    ------
    ValueError, TypeError
        A product that is not a matrix or a batch of them.
    """
    target = validate.array(product, "product")
    if target.ndim not in (2, 3) or target.size == 0:
        raise ValueError(f"product: expected (n_out, n_in) or (batch, n_out, n_in), got {target.shape}")
    target = target.reshape(-1, *target.shape[-2:])
    P, sigma, Qt = np.linalg.svd(target, full_matrices=full)
    # What rounding alone may have made is no strength: sigma^(1/D) would turn 1e-18 into a layer strength of 3e-5. The
    # rounding is that of the terms of pᵀ Ω q: a product along the axes has small strengths without any.
    k = sigma.shape[1]
    terms = np.sum(np.abs(P[:, :, :k]) * (np.abs(target) @ np.abs(Qt[:, :k]).transpose(0, 2, 1)), axis=1)
    sigma = np.where(sigma > max(target.shape[1:]) * np.finfo(np.float64).eps * terms, sigma, 0.0)
    return target, P, sigma, Qt, max(1, int(np.count_nonzero(sigma, axis=1).max()))
