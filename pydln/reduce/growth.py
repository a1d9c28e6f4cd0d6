"""Whether what a reduction leaves out can grow into something that the networks it runs do not have.

Take one hidden layer of n units between W_l and W_{l+1}, and Q = [W_lᵀ; W_{l+1}], (n_{l-1} + n_{l+1}, n). With
E' = A E B, the error seen through the layers above and below,

    dQ/dt = M Q,  M = [[0, E'ᵀ], [E', 0]]

(gradient flow; a step of descent, with momentum and decay too, multiplies by such a matrix likewise): whatever the
error does, Q is multiplied from the left. A part Q_out = Q (1 - P Pᵀ) that is left out therefore stays, along every
direction c of inputs and outputs, as small beside Q_in = Q P Pᵀ as it was, if |cᵀ Q_out| <= q |cᵀ Q_in| at the start.
Only directions that M lets grow matter, c = (p; q) with E' p = ς q, ς > 0. Where nothing is kept along such a direction
a rounding error of the start is all there is, and e^{ςt} makes a learned mode of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from pydln._base.arrays import Floats, lengths, sizes, transposed
from pydln._base.patience import patiently

__all__ = ["LEAST", "LONG", "alone", "chained", "left_behind", "overtaken"]

LEAST = 1e-4
"""What is left out may be this part of what is kept, whose square then is the error of a product."""

LONG = 2.0**30
"""In units of time: longer than any run whose length is not told."""

_SLOW = 2.0**-10  # ςt of what does not grow
_SHALLOW = 6  # layers of networks of which every pair is looked at
_UNSEEN = 2.0**12  # roundings that may be added to a layer by what is left out of a run too short for it


def overtaken(kept: Floats, out: Floats, rates: Floats, duration: Floats, eps: float) -> Floats:
    """The largest |out c| beside |kept c| over all c, (members,); infinite where something is out and nothing kept.

    Parameters
    ----------
    kept, out : (members, n, J) arrays
        Q_inᵀ c and Q_outᵀ c of the directions c that grow.
    rates : (members, J) array
        Their ς.
    duration : (members,) array
        Of the run, in the units of time of 1/ς.
    eps : float
        Of the numbers the start is made of.
    """
    size, amount = lengths(kept), lengths(out)
    grows = _grown(rates, duration) > _SLOW
    out = out * _matters(size, amount, rates, duration, eps)[:, None, :]
    worst = np.zeros(len(kept))
    some = np.flatnonzero((out != 0).any(axis=(1, 2)))
    patterns, which = np.unique(grows[some], axis=0, return_inverse=True)
    for k, pattern in enumerate(patterns):
        these = some[which.reshape(-1) == k]
        unit = np.where(size > 0, size, 1.0)[these][:, None, pattern]
        amounts = sizes(out[these][:, :, pattern] / unit)
        count = int(pattern.sum())
        if count > kept.shape[1]:
            worst[these] = np.inf
            continue
        least = patiently(np.linalg.svd, kept[these][:, :, pattern] / unit, compute_uv=False)[:, count - 1]
        worst[these] = np.divide(amounts, least, out=np.full(len(these), np.inf), where=least > 0)
    return worst


def alone(kept: Floats, out: Floats, rates: Floats, duration: Floats, eps: float) -> Floats:
    """The same direction by direction, (members, J), where |kept| and |out| of each are given: kept ones orthogonal."""
    out = out * _matters(kept, out, rates, duration, eps)
    return np.divide(out, kept, out=np.where(out > 0, np.inf, 0.0), where=kept > 0)


def _matters(size: Floats, amount: Floats, rates: Floats, duration: Floats, eps: float) -> Floats:
    """Whether what is left out grows, and by the end of the run to something that is seen beside what is kept."""
    grown = _grown(rates, duration)
    least = _UNSEEN * eps * (size * (grown > _SLOW)).max(axis=1, keepdims=True, initial=0.0)
    with np.errstate(over="ignore"):
        return np.asarray((grown > _SLOW) & (amount * np.exp(np.minimum(grown, 700.0)) > least))


def _grown(rates: Floats, duration: Floats) -> Floats:
    """ςt, (members, J)."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(rates > 0, rates * duration[:, None], 0.0))


def left_behind(
    layers: list[Floats], bases: Sequence[Floats | None], errors: list[Floats], duration: Floats, eps: float
) -> Floats:
    """`overtaken` of the hidden layers' parts outside of `bases`, the worst of all hidden layers: (members,).

    Parameters
    ----------
    layers : list of (members or 1, n_l, n_{l-1}) arrays
    bases : sequence of (members, n_l, r_l) arrays or None
        Orthonormal columns, one entry per hidden layer; None for a layer that is kept whole.
    errors : list of (members or 1, n_D, n_0) arrays
        E at moments of the run: at its start, and with nothing learned.
    duration, eps
        As in `overtaken`.
    """
    worst = np.zeros(len(duration))
    if all(P is None for P in bases):
        return worst
    frames = [None, *bases, None]
    inner = [_within(W, *ends) for W, ends in zip(layers, pairwise(frames), strict=True)]
    for first, last in _pairs(layers, frames):
        below, above = inner[: first - 1], inner[last:]
        for E in errors:
            seen = E @ transposed(chained(below)) if below else E
            seen = transposed(chained(above)) @ seen if above else seen
            q, rates, pt = patiently(np.linalg.svd, seen, full_matrices=False)
            p, q = (v if P is None else P @ v for P, v in ((frames[first - 1], transposed(pt)), (frames[last], q)))
            kept, out, gain = _carried(layers[first - 1] @ p, layers[first : last - 1], frames[first:last])
            other, other_out = _parted(transposed(layers[last - 1]) @ q, frames[last - 1])
            worst = np.maximum(worst, overtaken(kept + other, out + other_out, rates * gain[:, None], duration, eps))
    return worst


def _pairs(layers: list[Floats], frames: list[Floats | None]) -> Iterator[tuple[int, int]]:
    """W_first and W_last on both sides of what is left out: neighbours, and those with live layers in between.

    Beside orthogonal hidden layers all of the complement is alive, and what leaves W_1 for it may come back in W_D.
    """
    depth = len(layers)
    for first in range(1, depth):
        for last in range(first + 1, depth + 1):
            if not all(P is not None for P in frames[first:last]):
                break
            if last == first + 1 or (first, last) == (1, depth) or depth <= _SHALLOW:
                yield first, last


def _carried(x: Floats, between: list[Floats], frames: Sequence[Floats | None]) -> tuple[Floats, Floats, Floats]:
    """The parts of `x` within and beside the frames after all layers `between`; what these multiply the latter by.

    Both in units of how much the layers multiply them. What is multiplied by less than what is beside it is overtaken
    by that, however large it is, and counts as nothing.
    """
    kept, out = _parted(x, frames[0])
    gain = np.ones(len(x))
    for W, ends in zip(between, pairwise(frames), strict=True):
        before, after = ends
        assert before is not None
        assert after is not None
        inside, beside = _within(W, before, after), _beside(W, before, after)
        values = patiently(np.linalg.svd, inside, compute_uv=False)
        outer = patiently(np.linalg.svd, beside, compute_uv=False)[:, 0]
        units = np.where(outer > (1 + 1e-9) * values[:, -1], np.inf, _or_one(values[:, 0])), _or_one(outer)
        kept = after @ (inside @ (transposed(before) @ kept)) / units[0][:, None, None]
        out = beside @ out / units[1][:, None, None]
        gain = gain * outer
    return kept, out, gain


def _parted(x: Floats, P: Floats | None) -> tuple[Floats, Floats]:
    """Within the columns of P, and beside them."""
    if P is None:
        return x, np.zeros_like(x)
    kept = P @ (transposed(P) @ x)
    return kept, x - kept


def _or_one(a: Floats) -> Floats:
    return np.where(a > 0, a, 1.0)


def _within(W: Floats, right: Floats | None, left: Floats | None) -> Floats:
    """Leftᵀ W right."""
    W = W if left is None else transposed(left) @ W
    return W if right is None else W @ right


def _beside(W: Floats, right: Floats, left: Floats) -> Floats:
    """(1 - left leftᵀ) W (1 - right rightᵀ)."""
    W = W - left @ (transposed(left) @ W)
    return np.asarray(W - (W @ right) @ transposed(right))


def chained(layers: list[Floats]) -> Floats:
    """W_D ⋯ W_1 of one layer or more."""
    result = layers[0]
    for W in layers[1:]:
        result = W @ result
    return result
