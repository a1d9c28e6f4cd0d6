"""The matrix Riccati equation P' = FP + PF - P², F symmetric, and the state Q of P = QQᵀ, rotation included.

With F = O diag(w) Oᵀ and X = OᵀQ_0 the solution is P = O e^{wt} X [I + Xᵀ g X]⁻¹ Xᵀ e^{wt} Oᵀ, g = (e^{2wt} - 1)/2w
(Fukumizu 1998; Braun et al. 2022; Dominé et al. 2025). Evaluated as it stands it loses all digits once wt > 18 and
overflows soon after. Written with Y = √g X,

    P = O e Y (I + YᵀY)⁻¹ Yᵀ e Oᵀ,   e = e^{wt}/√g bounded,

it asks for no more than the subspace that the columns of [Y; I] span, which does not change when columns are combined:
elimination in the rows X, whose scales √g only say where to pivot, leads to a basis with entries near 1 or below,
whatever t is. Every row keeps its own digits.

This leaves Q = L Z with a known L and a rotation Z from the right, for which Z' = ω(t) Z with a generator that is known
at any t: a quadrature, which the kernel (csrc/cpu/kernels/riccati.cpp) does to rounding, in steps as long as the
generator is smooth.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydln._base import backend, validate
from pydln.trajectory.status import Status

__all__ = ["Flow", "layers", "limit", "states"]

Floats = NDArray[Any]

NODES = 16  # as in csrc/ops/riccati.hpp
# Steps grow fourfold where nothing happens, and some hundred are what everything takes that happens.
MOST_STEPS = 100_000


class Flow(NamedTuple):
    """F and Q_0 in the eigenvectors of F, one entry for every member.

    Attributes
    ----------
    w : (batch, N) array
        Eigenvalues: κ of every mode, -κ, what is outside the modes on the side of inputs and of outputs.
    rate : (batch, N + 1) array
        max(w, 0) and at the end 0, each less |λ|/2, with the digits of small differences.
    X : (batch, N, n) array
        OᵀQ_0.
    floor : (batch, N) array
        What rounding may have left in each row of X: where columns cancel to this, nothing is there to grow.
    vectors : (batch, 2, mode) array
        upper and lower: κ has (upper, lower), -κ has (lower, -upper).
    strengths : (batch, mode) array
        s.
    begin : (batch, N, n) array
        Rows of W_1ᵀ and of W_2 along the modes, and those outside, at t = 0.
    outer : (batch,) array of int
        1 where the second layer is the smaller one.
    outside : int
        Rows outside the modes on the side of inputs.
    inputs, outputs : (batch, n_0, N) and (batch, n_2, N) arrays
        W_1ᵀ and W_2 of their rows.
    """

    w: Floats
    rate: Floats
    X: Floats
    floor: Floats
    vectors: Floats
    strengths: Floats
    begin: Floats
    outer: NDArray[np.int64]
    outside: int
    inputs: Floats
    outputs: Floats


@cache
def _rule() -> dict[str, Floats]:
    """Gauss-Legendre nodes on [0, 1], what belongs to the polynomials through values there."""
    from numpy.polynomial import legendre  # takes milliseconds to import

    x, weights = legendre.leggauss(NODES)
    P = legendre.legvander(x, NODES)
    order = np.arange(NODES)[:, None]
    coefficients = (2 * order + 1) * (weights / 2) * P[:, :NODES].T
    # ∫ P_k over [-1, x] is (P_{k+1} - P_{k-1}) / (2k + 1), x + 1 for k = 0.
    below = np.concatenate([-np.ones((NODES, 1)), P[:, : NODES - 1]], axis=1)
    upto = ((P[:, 1:] - below) / (4 * order.T + 2)).T
    return {
        "nodes": (x + 1) / 2,
        "integrals": np.ascontiguousarray(coefficients.T @ upto),
        "coefficients": np.ascontiguousarray(coefficients),
    }


def states(flow: Flow, t: Floats) -> Floats:
    """W_1ᵀ and W_2 at times t, in rows along the modes and outside of them.

    Parameters
    ----------
    flow : Flow
    t : (batch or 1, time) array
        Times >= 0, finite, in any order.

    Returns
    -------
    (batch, time, N, n) array
    """
    out = np.empty((max(len(flow.X), len(t)), t.shape[1], *flow.X.shape[1:]))
    _run(flow, t, out=out)
    return out


def layers(flow: Flow, t: Floats) -> list[Floats]:
    """W_1 and W_2 at times t, as in `states`: (batch, time, n_1, n_0) and (batch, time, n_2, n_1) arrays."""
    shape, n = (max(len(flow.X), len(t)), t.shape[1]), flow.X.shape[2]
    first, second = np.empty((*shape, n, flow.inputs.shape[1])), np.empty((*shape, flow.outputs.shape[1], n))
    _run(flow, t, first=first, second=second)
    return [first, second]


def _run(
    flow: Flow, t: Floats, *, out: Floats | None = None, first: Floats | None = None, second: Floats | None = None
) -> None:
    batch = max(len(flow.X), len(t))
    place = np.argsort(t, axis=1, kind="stable")

    def own(a: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.broadcast_to(a, (batch, *a.shape[1:])))

    status = np.zeros(batch, dtype=np.int64)
    if batch * t.shape[1] and backend.core.riccati(
        start=own(flow.X),
        floor=own(flow.floor),
        w=own(flow.w),
        rate=own(flow.rate),
        vectors=own(flow.vectors),
        strengths=own(flow.strengths),
        begin=own(flow.begin),
        outer=own(flow.outer),
        outside_in=flow.outside,
        t=own(np.take_along_axis(t, place, axis=1)),
        place=own(place),
        rule=_rule(),
        most_steps=MOST_STEPS,
        inputs=own(flow.inputs),
        outputs=own(flow.outputs),
        out=out,
        first=first,
        second=second,
        status=status,
        threads=backend.default_threads(),
        memory=validate.free_memory,
        isa=backend.isa(),
    ):
        raise KeyboardInterrupt
    # A member that turns more often than MOST_STEPS can follow is not known: no number of it is.
    lost = status == Status.STEP_LIMIT
    for a in (out, first, second):
        if a is not None:
            a[lost] = np.nan


def limit(flow: Flow) -> Floats:
    """The same for t → ∞, (batch, N, n). Eigenvalues within 1e-12 of the largest count as equal."""
    w = _snapped(flow.w)
    distinct = np.sort(np.maximum(np.concatenate([w, np.zeros_like(w[:, :1])], axis=1), 0.0), axis=1)
    gaps = np.diff(distinct, axis=1)
    smallest = np.min(np.where(gaps > 0, gaps, np.inf), axis=1)
    t = np.where(np.isfinite(smallest), 2000.0 / smallest, 1.0)[:, None]
    rate = np.concatenate([np.maximum(w, 0.0), np.zeros_like(w[:, :1])], axis=1)
    rows = states(flow._replace(w=w, rate=rate - rate.max(axis=1, keepdims=True)), t)[:, 0]
    # What stands still is overtaken by whatever is not, and decays where it is alone: like 1/√t.
    modes = flow.strengths.shape[1]
    moving = np.concatenate([w[:, :modes], w[:, :modes], w[:, 2 * modes :]], axis=1) > 0
    return np.where(moving[..., None], rows, 0.0)


def _snapped(w: Floats) -> Floats:
    order = np.argsort(w, axis=1)
    ordered = np.take_along_axis(w, order, axis=1)
    apart = np.diff(ordered, axis=1) > 1e-12 * np.abs(w).max(axis=1, keepdims=True)
    first = np.concatenate([np.zeros_like(order[:, :1]), np.cumsum(apart, axis=1)], axis=1)
    leaders = np.stack([row[np.searchsorted(places, places)] for row, places in zip(ordered, first, strict=True)])
    leaders[np.abs(leaders) <= 1e-12 * np.abs(w).max(axis=1, keepdims=True)] = 0.0
    snapped = np.empty_like(w)
    np.put_along_axis(snapped, order, leaders, axis=1)
    return snapped
