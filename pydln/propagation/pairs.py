"""Averages over two correlated activities u_1, u_2 of variance q and correlation c = 1 - y.

    D = E[(φ(u_1) - φ(u_2))²]/2 = E[φ²] - E[φ(u_1) φ(u_2)],    S = E[φ'(u_1) φ'(u_2)] = -(1/q) dE[φφ]/dy

D, not E[φφ], because it keeps its digits as c → 1. Where φ is smooth on the scale √q both are sums over its Hermite
coefficients a_k = E[φ(√q z) h_k(z)] (Mehler's formula): E[φφ] = Σ a_k² c^k, and what a finite sum leaves out is less
than c^K times what Parseval's identity, Σ a_k² = E[φ²], finds missing. Elsewhere they are double integrals over
m = (u_1 + u_2)/2 and e = (u_1 - u_2)/2, which are independent; panels are cut where either activity meets a kink.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydln.activations import Activation
from pydln.propagation.gaussian import CAUTION, REACH, gaussian_mean, halved, hermite, legendre

__all__ = ["PairMeans", "pair_means"]

Floats = NDArray[np.float64]

_NODES, _TERMS = 1024, 512
_LEFT_OUT = 1e-12  # what may be wrong of D, and of S as a part of E[φ'²], with the sums
_HERMITE_SD = 4.0  # as in `gaussian`: the nodes are then closer than 0.3
_POINTS = (12, 16)
# Length of the finest panels and how often all are halved, tried in turn until both integrals are known to `_RESOLVED`.
_REFINEMENTS = ((1.0, 0), (1 / 64, 0), (1 / 64, 1), (1 / 64, 2))
_RESOLVED = 1e-10
_ROUNDING = 256 * float(np.finfo(np.float64).eps)  # most of it from the weights of 1024 nodes, asymptotic series


class PairMeans(NamedTuple):
    """D and S as above, (n,) each, and estimates of their absolute errors."""

    difference: Floats
    slopes: Floats
    difference_error: Floats
    slopes_error: Floats


def pair_means(phi: Activation, q: Floats, y: Floats) -> PairMeans:
    """D and S for (n,) arrays of variances q > 0 and of y = 1 - c in [0, 2]."""
    out = PairMeans(*(np.full(q.size, np.nan) for _ in range(4)))
    todo = np.ones(q.size, bool)
    if not phi.kinks:
        narrow = np.flatnonzero(np.sqrt(q) <= _HERMITE_SD)
        for part in np.array_split(narrow, max(1, narrow.size // 1024)):
            sums, good = _series(phi, q[part], y[part])
            for whole, values in zip(out, sums, strict=True):
                whole[part[good]] = values[good]
            todo[part[good]] = False
    for one in np.flatnonzero(todo):
        rest = _opposite if y[one] == 2 else _panels
        for whole, value in zip(out, rest(phi, float(q[one]), float(y[one])), strict=True):
            whole[one] = value
    return out


@cache
def _hermite_table() -> tuple[Floats, Floats]:
    """Nodes z_i of Gauss-Hermite quadrature, and √w_i h_k(z_i) for k < `_TERMS`."""
    nodes, weights = hermite(_NODES)
    table = np.zeros((_TERMS, _NODES))
    table[0] = np.sqrt(weights)
    table[1] = nodes * table[0]
    for k in range(1, _TERMS - 1):  # √(k+1) h_{k+1} = z h_k - √k h_{k-1}, stable upwards
        table[k + 1] = (nodes * table[k] - np.sqrt(k) * table[k - 1]) / np.sqrt(k + 1)
    return nodes, table


def _series(phi: Activation, q: Floats, y: Floats) -> tuple[PairMeans, NDArray[np.bool_]]:
    """Both sums, and where they may be trusted."""
    nodes, table = _hermite_table()
    values = phi.value(np.sqrt(q)[:, None] * nodes)
    # One row at a time: a matrix product rounds differently in a batch of another size.
    squares = np.array([table @ (row * table[0]) for row in values]).reshape(q.size, _TERMS) ** 2
    size = gaussian_mean(lambda u: phi.value(u) ** 2, q)
    steepness = gaussian_mean(lambda u: phi.derivative(u) ** 2, q)
    k = np.arange(_TERMS)
    c = 1 - y[:, None]
    rest, rest_slopes = size.value - squares.sum(axis=1), steepness.value - (k * squares).sum(axis=1) / q
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.where(y[:, None] < 0.5, -np.expm1(k * np.log1p(-y[:, None])), 1 - c**k)
    lost[:, 0] = 0.0
    # What lies beyond the last term is lost altogether but for c^k, and nothing is where c = 1.
    last = np.abs(c[:, 0]) ** _TERMS
    difference = (squares * lost).sum(axis=1) + np.maximum(rest, 0) * (1 - last)
    slopes = (k * squares * c ** np.maximum(k - 1, 0)).sum(axis=1) / q
    error = np.minimum(np.abs(rest) * last, y * q * np.abs(rest_slopes)) + _ROUNDING * difference
    error_slopes = np.abs(rest_slopes) * last + _ROUNDING * steepness.value
    # The nodes must resolve φ as well as the terms do: they give E[φ²], which is known.
    seen = np.abs((values**2 * table[0] ** 2).sum(axis=1) - size.value) <= _LEFT_OUT * size.value
    good = seen & (error <= 2 * _LEFT_OUT * difference) & (error_slopes <= 2 * _LEFT_OUT * steepness.value)
    return PairMeans(difference, slopes, error, error_slopes), good


def _opposite(phi: Activation, q: float, y: float) -> tuple[float, float, float, float]:
    """y = 2, u_2 = -u_1: one integral is left."""
    kinks = sorted({*phi.kinks, *(-k for k in phi.kinks)})
    lost = gaussian_mean(lambda u: 0.5 * (phi.value(u) - phi.value(-u)) ** 2, q, kinks=kinks)
    steep = gaussian_mean(lambda u: phi.derivative(u) * phi.derivative(-u), q, kinks=kinks)
    return float(lost.value), float(steep.value), float(lost.error), float(steep.error)


def _panels(phi: Activation, q: float, y: float) -> tuple[float, float, float, float]:
    sd_m, sd_e = float(np.sqrt(q * (1 - y / 2))), float(np.sqrt(q * y / 2))
    if sd_e == 0:
        steep = gaussian_mean(lambda u: phi.derivative(u) ** 2, q, kinks=phi.kinks)
        return 0.0, float(steep.value), 0.0, float(steep.error)
    for finest, halvings in _REFINEMENTS:
        found = _integrals(phi, sd_m, sd_e, finest, halvings)
        difference, slopes, error, error_slopes = found
        if error <= _RESOLVED * abs(difference) and error_slopes <= _RESOLVED * abs(slopes):
            break
    return found


def _integrals(
    phi: Activation, sd_m: float, sd_e: float, finest: float, halvings: int
) -> tuple[float, float, float, float]:
    """D, S and their errors, with panels from `finest` on, halved."""
    places = sorted({0.0, *phi.kinks})
    meeting = sorted({(one + other) / 2 for one in places for other in places})  # where u_1 and u_2 are both at one
    # A kink is smoothed over sd_e in the inner integral, which the outer panels must resolve.
    edges_m = halved(_graded(np.array(meeting), sd_m, min(finest, sd_e) if phi.kinks else finest), halvings)
    steps = _doubling(finest, REACH * (sd_m + sd_e) + max(map(abs, places)))
    marks = np.concatenate([place + steps for place in places])
    sums = []
    for points in _POINTS:
        nodes, weights = legendre(points)
        m, mass_m = _spread(edges_m, sd_m, nodes, weights)
        totals = np.zeros(2)
        for part, mass in zip(_pieces(m.reshape(-1)), _pieces(mass_m.reshape(-1)), strict=True):
            # Both integrands are even in e.
            edges_e = np.concatenate(
                [np.abs(part[:, None] - marks), np.broadcast_to(sd_e * np.arange(0, REACH + 1, 2.0), (part.size, 6))],
                axis=1,
            )
            edges_e = halved(np.sort(np.minimum(edges_e, REACH * sd_e), axis=1), halvings)
            e, mass_e = _spread(edges_e, sd_e, nodes, weights)
            both = 2 * mass[:, None, None] * mass_e
            u_1, u_2 = part[:, None, None] + e, part[:, None, None] - e
            totals[0] += (both * 0.5 * (phi.value(u_1) - phi.value(u_2)) ** 2).sum()
            totals[1] += (both * phi.derivative(u_1) * phi.derivative(u_2)).sum()
        sums.append(totals)
    errors = CAUTION * np.abs(sums[1] - sums[0])
    return float(sums[1][0]), float(sums[1][1]), float(errors[0]), float(errors[1])


def _pieces(row: Floats) -> list[Floats]:
    """`row` in parts for which the inner integrals fit into the cache."""
    return np.array_split(row, max(1, row.size // 256))


def _doubling(finest: float, furthest: float) -> Floats:
    """0 and ±finest·2^j up to `furthest`, ascending."""
    out = finest * 2.0 ** np.arange(max(int(np.ceil(np.log2(furthest / finest))), 0))
    return np.concatenate([-out[::-1], [0.0], out])


def _graded(centres: Floats, sd: float, finest: float) -> Floats:
    """Edges between ±REACH sd: doubling away from the centres, and every two standard deviations."""
    end = REACH * sd
    marks = np.add.outer(centres, _doubling(finest, end + np.abs(centres).max())).reshape(-1)
    return np.unique(np.clip(np.concatenate([marks, sd * np.arange(-REACH, REACH + 1, 2.0)]), -end, end))


def _spread(edges: Floats, sd: float, nodes: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Points in every panel along a new last axis, and their mass under N(0, sd²)."""
    starts, lengths = edges[..., :-1, None], np.diff(edges)[..., None]
    x = starts + lengths * nodes
    return x, lengths / sd * weights * np.exp(-0.5 * (x / sd) ** 2) / np.sqrt(2 * np.pi)
