"""The end-to-end Jacobian of nonlinear networks, J = ∂x^{D+1}/∂x^1 = Π_l g W_l diag(φ'(x^l)) (S13 section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln._base.patience import product
from pydln.activations import Activation
from pydln.propagation.networks import Layers, advance, inputs, layers
from pydln.propagation.nonlinearity import nonlinearity
from pydln.spectra.singular_values import singular_values
from pydln.weights import Weights

__all__ = ["jacobian", "jacobian_singular_values"]

Floats = NDArray[np.float64]


def jacobian(
    weights: Layers,
    x: ArrayLike,
    activation: str | Activation,
    *,
    gain: ArrayLike = 1.0,
    biases: Sequence[ArrayLike] | None = None,
) -> NDArray[np.float64]:
    """J = ∂x^{D+1}/∂x^1 of every member of an ensemble, at inputs of their own.

    Parameters
    ----------
    weights : Weights or iterable of arrays
        W_1 … W_D, see `propagate`. One network with a batch of inputs or gains gives as many Jacobians. Of an
        iterator one layer is held at a time, beside two matrices (batch, n_l, n_0).
    x : (n_0,) or (batch, n_0) array_like
        x^1, where the Jacobian is taken.
    activation : str or Activation
        φ, applied to x^1 … x^D.
    gain : number or (batch,) array_like
        g, one for all layers.
    biases : sequence of D arrays, optional
        b_l, each (n_l,) or (batch, n_l).

    Returns
    -------
    (batch, n_D, n_0) ndarray
        NaN for a member whose activity or Jacobian overflows; the others are not touched.

    Raises
    ------
    ValueError, TypeError
        Shapes or batches that do not fit, no such nonlinearity, Jacobians that do not fit in memory.

    Examples
    --------
    >>> import pydln
    >>> jacobian(pydln.Weights([[[2.0, 0.0]], [[3.0]]]), [1.0, 1.0], "relu")
    array([[[6., 0.]]])
    """
    phi = nonlinearity(activation)
    start, factor = inputs(_one_sample(x), gain)
    thin_output = isinstance(weights, Weights) and weights.widths[-1] < weights.widths[0]
    slopes, state, result = [], start, np.empty(0)
    for layer, bias in layers(weights, biases, start.shape[2]):
        slope = np.where(np.isnan(state), np.nan, phi.derivative(state))
        state = advance(layer, phi.value(state), factor, bias)
        slope = slope * factor
        if thin_output:
            slopes.append(slope)
        elif result.size:
            with np.errstate(over="ignore", invalid="ignore"):
                result *= slope.transpose(0, 2, 1)
                result = product(layer, result)
        else:
            count = len(state)
            _fits(count, layer.shape[1:])
            # One member per state, so that what follows may be done in place.
            result = np.array(np.broadcast_to(layer * slope, (count, *layer.shape[1:])))
    if isinstance(weights, Weights) and thin_output:
        # From the output, so that the running product has n_D rows.
        _fits(len(state), (weights.widths[-1], max(weights.widths)))
        result = np.array(np.broadcast_to(np.eye(weights.widths[-1]), (len(state), *(weights.widths[-1],) * 2)))
        for layer, slope in zip(reversed(weights.layers), reversed(slopes), strict=True):
            with np.errstate(over="ignore", invalid="ignore"):
                result = product(result, layer.astype(np.float64, copy=False)) * slope
    result[~np.isfinite(result).all(axis=(1, 2)) | np.isnan(state).any(axis=(1, 2))] = np.nan
    return result


def jacobian_singular_values(
    weights: Layers,
    x: ArrayLike,
    activation: str | Activation,
    *,
    gain: ArrayLike = 1.0,
    biases: Sequence[ArrayLike] | None = None,
) -> NDArray[np.float64]:
    """Singular values of `jacobian`, descending, (batch, min(n_0, n_D)).

    Those below about 1e-15 of the largest are rounding. Parameters, errors and NaN as for `jacobian`.
    """
    return singular_values(jacobian(weights, x, activation, gain=gain, biases=biases))


def _one_sample(x: ArrayLike) -> Floats:
    point = validate.array(x, "x")
    if point.ndim not in (1, 2):
        raise ValueError(f"x: expected (n_0,) or (batch, n_0), got {point.shape}")
    return point


def _fits(batch: int, shape: tuple[int, ...]) -> None:
    validate.fits_in_memory(
        2 * 8 * batch * int(np.prod(shape)),
        f"x: {batch} Jacobians of {shape[0]} x {shape[1]}, and as many at work,",
        "take fewer members at a time",
    )
