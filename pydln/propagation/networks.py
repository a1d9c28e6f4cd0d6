"""Signals through networks as they are: x^{l+1} = g W_l φ(x^l) + b_l, l = 1 … D, from the input x^1 (S13 section 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln._base.patience import product
from pydln.activations import Activation
from pydln.propagation.nonlinearity import nonlinearity
from pydln.weights import Weights

__all__ = ["Layers", "Signal", "advance", "inputs", "layers", "propagate"]

Floats = NDArray[np.float64]

Layers = Weights | Iterable[Any]
"""`Weights`, or their layers one at a time, W_1 first, each (batch, n_l, n_{l-1}): what is drawn needs not be kept."""


@dataclass(frozen=True)
class Signal:
    """Activity in every layer.

    Attributes
    ----------
    x : (batch, samples, n_D) array
        x^{D+1}, the output.
    overlap : (batch, D + 1, samples, samples) array
        x_a · x_b / n in the layers x^1 … x^{D+1}.
    """

    x: NDArray[np.float64]
    overlap: NDArray[np.float64]

    @property
    def q(self) -> NDArray[np.float64]:
        """Mean squared activity of each sample, (batch, D + 1, samples)."""
        return np.ascontiguousarray(np.diagonal(self.overlap, axis1=2, axis2=3))

    @property
    def correlation(self) -> NDArray[np.float64]:
        """Overlaps over the geometric mean of the lengths, (batch, D + 1, samples, samples); NaN without activity."""
        size = np.sqrt(self.q)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Floats = self.overlap / (size[..., :, None] * size[..., None, :])
        return ratio


def propagate(
    weights: Layers,
    x: ArrayLike,
    activation: str | Activation,
    *,
    gain: ArrayLike = 1.0,
    biases: Sequence[ArrayLike] | None = None,
) -> Signal:
    """Mean squared activity and overlaps of inputs, layer by layer, in every member of an ensemble.

    Parameters
    ----------
    weights : Weights or iterable of arrays
        W_1 … W_D; from an iterator they are drawn one by one and none is kept.
    x : (n_0,), (batch, n_0) or (batch, samples, n_0) array_like
        x^1. A batch of one, here or in the weights, goes with any.
    activation : str or Activation
        φ, applied to x^1 … x^D: the output x^{D+1} is linear in the last layer's weights.
    gain : number or (batch,) array_like
        g, one for all layers.
    biases : sequence of D arrays, optional
        b_l, each (n_l,) or (batch, n_l); zero by default.

    Returns
    -------
    Signal
        A sample whose activity overflows is NaN from that layer on; the others are not touched.

    Raises
    ------
    ValueError, TypeError
        Shapes or batches that do not fit, no such nonlinearity.

    Examples
    --------
    >>> import pydln
    >>> signal = propagate(pydln.init.orthogonal((50, 50, 50), scale=1.5), np.ones(50), "linear")
    >>> signal.q[0, :, 0].round(12)
    array([1.    , 2.25  , 5.0625])
    """
    phi = nonlinearity(activation)
    state, factor = inputs(x, gain)
    members, samples = (max(len(state), factor.size), state.shape[1])
    depth = len(weights.layers) if isinstance(weights, Weights) else 1
    validate.fits_in_memory(
        16 * members * (depth + 1) * samples**2,
        f"x: overlaps of {samples} samples in {depth + 1} layers of {members} networks",
        "take fewer samples",
    )
    overlaps = [_overlap(state)]
    for layer, bias in layers(weights, biases, state.shape[2]):
        state = advance(layer, phi.value(state), factor, bias)
        overlaps.append(_overlap(state))
    batch = state.shape[0]
    overlap = np.stack([np.broadcast_to(one, (batch, *one.shape[1:])) for one in overlaps], axis=1)
    return Signal(state, overlap)


def inputs(x: ArrayLike, gain: ArrayLike) -> tuple[Floats, Floats]:
    """x^1 as (batch or 1, samples, n_0), and the gain as (batch or 1, 1, 1)."""
    state = validate.array(x, "x")
    if state.ndim not in (1, 2, 3) or state.size == 0:
        raise ValueError(f"x: expected (n_0,), (batch, n_0) or (batch, samples, n_0), got {state.shape}")
    state = state.reshape(-1, 1, state.shape[-1]) if state.ndim < 3 else state
    return state, validate.per_member(gain, "gain", at_least=0).reshape(-1, 1, 1)


def layers(weights: Layers, biases: Sequence[ArrayLike] | None, width: int) -> Iterator[tuple[Floats, Floats | None]]:
    """Each layer as float64 (batch or 1, n_l, n_{l-1}) with its bias as (batch or 1, 1, n_l); `width` is n_0."""
    given = weights.layers if isinstance(weights, Weights) else weights
    if isinstance(given, str | bytes | np.ndarray) or not isinstance(given, Iterable):
        raise TypeError(f"weights: expected Weights or their layers one at a time, got {type(given).__name__}")
    shifts = None if biases is None else _biases(biases)
    if shifts is not None and isinstance(weights, Weights) and len(shifts) != weights.depth:
        raise ValueError(f"biases: expected {weights.depth}, one per layer, got {len(shifts)}")
    count = 0
    for place, raw in enumerate(given):
        layer = validate.array(
            raw, f"weights[{place}]", shape=("batch", "n_out", width), why=f" to follow {width} units"
        )
        bias = None
        if shifts is not None:
            if place >= len(shifts):
                raise ValueError(f"biases: expected one per layer, got {len(shifts)} for more layers")
            bias = shifts[place]
            if bias.shape[-1] != layer.shape[1]:
                n = layer.shape[1]
                raise ValueError(f"biases[{place}]: expected ({n},) or (batch, {n}), got {bias.shape}")
            bias = bias.reshape(-1, 1, layer.shape[1])
        yield layer, bias
        width = layer.shape[1]
        count += 1
    if not count:
        raise ValueError("weights: expected at least one layer, got none")
    if shifts is not None and len(shifts) != count:
        raise ValueError(f"biases: expected {count}, one per layer, got {len(shifts)}")


def advance(layer: Floats, activity: Floats, gain: Floats, bias: Floats | None) -> Floats:
    """g W φ + b from `activity` φ(x), (batch or 1, samples, n); NaN for a sample that overflows."""
    _agree(weights=len(layer), x=len(activity), gain=len(gain), biases=1 if bias is None else len(bias))
    with np.errstate(over="ignore", invalid="ignore"):
        after: Floats = gain * product(activity, layer.transpose(0, 2, 1))
        if bias is not None:
            after = after + bias
    after[~np.isfinite(after).all(axis=2)] = np.nan
    return after


def _biases(biases: Sequence[ArrayLike]) -> list[Floats]:
    if not isinstance(biases, Sequence) or isinstance(biases, str):
        raise TypeError(f"biases: expected a sequence with one array per layer, got {type(biases).__name__}")
    shifts = [validate.array(one, f"biases[{place}]") for place, one in enumerate(biases)]
    for place, one in enumerate(shifts):
        if one.ndim not in (1, 2) or one.size == 0:
            raise ValueError(f"biases[{place}]: expected (n,) or (batch, n), got {one.shape}")
    return shifts


def _agree(**sizes: int) -> None:
    """ValueError unless the batches of all arguments are one or the same."""
    counts = {name: size for name, size in sizes.items() if size != 1}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"{', '.join(counts)}: expected batches that agree, got {', '.join(map(str, counts.values()))}"
        )


def _overlap(state: Floats) -> Floats:
    with np.errstate(over="ignore"):
        overlap: Floats = np.matmul(state, state.transpose(0, 2, 1)) / state.shape[2]
    return overlap
