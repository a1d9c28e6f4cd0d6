"""Gaussian averages E[f(√q z)], z ~ N(0, 1), each with the error of its quadrature.

Two rules share the work. Gauss-Hermite on the whole line is fast, and exact to rounding where f is smooth on the scale
√q: for tanh its error falls as exp(-π√(n/q)), by the distance of the poles ±iπ/2 from the real axis. Where that is not
enough (q above 9, kinks), composite Gauss-Legendre: the line is cut at the kinks and at x = 0, in panels that double in
length away from these, from 1/64 on, and in panels of two standard deviations; all are halved where that is still not
enough. Their number grows as log q, so that a nonlinearity is resolved whatever q.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate

__all__ = ["CAUTION", "REACH", "Mean", "gaussian_mean", "halved", "hermite", "legendre"]

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]

REACH = 10.0
"""Where panels end, in standard deviations: 1.5e-23 of the mass lies beyond."""

# Gauss-Hermite: the error of the second order is at most that of the first, which is their difference. An odd order has
# a node at 0 and an even one has not: what is narrow there cannot escape both.
_ORDERS = (65, 96)
_POINTS = (12, 16)  # Gauss-Legendre per panel
# Where f has a kink that was not named both orders are wrong, and differ by less than that.
CAUTION = 8.0
_EPS = float(np.finfo(np.float64).eps)
_AGREED = 64 * _EPS  # of E|f|: that will do
_FINEST = 1 / 64
_HALVINGS = 6
# The largest √q: the nodes of both orders are then closer than 0.9 about the centre. Far apart, all of them miss what
# happens near x = 0, and two wrong values agree (E tanh² = 1 at q = 1e6).
_HERMITE_SD = 3.0
_NODES_AT_ONCE = 2**20


class Mean(NamedTuple):
    """An average and what it may be wrong by.

    Attributes
    ----------
    value : ndarray
        E[f(√q z)], in the shape of the variances.
    error : ndarray
        Estimate of its absolute error, no bound: from the difference of two orders of the rule, the tails left out, and
        rounding.
    """

    value: Floats
    error: Floats


@cache
def hermite(order: int) -> tuple[Floats, Floats]:
    """Nodes z and weights of Gauss-Hermite quadrature for N(0, 1)."""
    from scipy.special import roots_hermitenorm

    nodes, weights = roots_hermitenorm(order)
    return nodes, weights / weights.sum()


@cache
def legendre(order: int) -> tuple[Floats, Floats]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return 0.5 * (nodes + 1), 0.5 * weights


def halved(edges: Floats, times: int) -> Floats:
    """`edges` with every panel along the last axis cut into 2^times."""
    for _ in range(times):
        middles = 0.5 * (edges[..., 1:] + edges[..., :-1])
        finer = np.empty((*edges.shape[:-1], edges.shape[-1] + middles.shape[-1]))
        finer[..., ::2], finer[..., 1::2] = edges, middles
        edges = finer
    return edges


def gaussian_mean(f: Function, variance: ArrayLike, *, kinks: Sequence[float] = ()) -> Mean:
    """E[f(√q z)] over z ~ N(0, 1), with an estimate of its error.

    Parameters
    ----------
    f : callable
        Elementwise on float64 arrays of any shape. Around its kinks and around 0 it may vary on the scale of 1/64, and
        elsewhere on that of the distance from there; where it varies faster, the error is large.
    variance : array_like
        q, zero or more, of any shape.
    kinks : sequence of float
        Where f or a derivative of it jumps.

    Returns
    -------
    Mean
        ``value`` and ``error``, both in the shape of `variance`. At q = 0 the value is f(0).

    Raises
    ------
    ValueError, TypeError
        A negative variance, an f that returns another shape or numbers that are not finite.

    Examples
    --------
    >>> value, error = gaussian_mean(np.tanh, [0.0, 1.0])
    >>> float(value[0]), bool(abs(value[1]) < 1e-15)
    (0.0, True)
    """
    q = validate.array(variance, "variance", at_least=0)
    if not callable(f):
        raise TypeError(f"f: expected a function of an array, got {validate.short(f)}")
    where = [
        validate.number(kink, f"kinks[{i}]") for i, kink in enumerate(validate.sequence(kinks, "kinks", "numbers"))
    ]
    sd = np.sqrt(q.reshape(-1))
    value, error = np.empty_like(sd), np.full_like(sd, np.inf)
    narrow = np.flatnonzero(sd <= _HERMITE_SD)
    if not where and narrow.size:
        value[narrow], found, size = _hermite_mean(f, sd[narrow])
        error[narrow] = np.where(found <= _AGREED * size, found, np.inf)
    todo = np.flatnonzero(np.isinf(error))
    centres = sorted({0.0, *where})
    # Entries with equally many panels go together: the bits of one do not depend on which others there are.
    counts = _doublings(sd, centres)
    for halvings in range(_HALVINGS + 1):
        going = np.zeros(sd.size, bool)
        for count in np.unique(counts[todo]):
            group = todo[counts[todo] == count]
            nodes = sum(_POINTS) * (len(centres) * (2 * count + 1) + REACH) * 2**halvings
            for part in np.array_split(group, int(np.ceil(len(group) * nodes / _NODES_AT_ONCE))):
                now, found, size = _panel_mean(f, sd[part], centres, int(count), halvings)
                if halvings:  # two orders may agree by chance, but not so with what the panels before said
                    found = np.maximum(found, np.abs(now - value[part]))
                going[part] = (found > _AGREED * size) & (found < error[part])
                value[part], error[part] = now, found
        todo = np.flatnonzero(going)
    return Mean(value.reshape(q.shape), error.reshape(q.shape))


def evaluated(f: Function, x: Floats) -> Floats:
    """f(x), which must have the shape of x and be finite."""
    values = f(x)
    validate.unmasked(values, "f")
    values = np.asarray(values, dtype=np.float64)
    if values.shape != x.shape:
        raise ValueError(f"f: expected an array of shape {x.shape} back, got {values.shape}")
    if not np.isfinite(values).all():
        bad = x[~np.isfinite(values)].flat[0]
        raise ValueError(f"f: expected finite values, got {f(np.array([bad]))[0]} at {bad:g}")
    return values


def _hermite_mean(f: Function, sd: Floats) -> tuple[Floats, Floats, Floats]:
    """Value, error and E|f|."""
    means, sizes = np.empty((len(_ORDERS), sd.size)), np.empty(sd.size)
    for i, order in enumerate(_ORDERS):
        nodes, weights = hermite(order)
        at_once = max(1, _NODES_AT_ONCE // order)
        for first in range(0, sd.size, at_once):
            part = slice(first, first + at_once)
            values = evaluated(f, sd[part, None] * nodes)
            means[i, part] = (values * weights).sum(axis=1)
            sizes[part] = (np.abs(values) * weights).sum(axis=1)
    return means[1], np.abs(means[1] - means[0]) + 4 * _EPS * sizes, sizes


def _doublings(sd: Floats, centres: Sequence[float]) -> NDArray[np.int64]:
    """How many doublings lead from the finest panel beside the centres to the ends of the line."""
    ends = REACH * sd + max(map(abs, centres))
    return np.ceil(np.log2(np.maximum(ends / _FINEST, 1.0))).astype(np.int64)


def _panel_edges(sd: Floats, centres: Sequence[float], count: int) -> Floats:
    """Edges in x, ascending along a new last axis, between ±REACH sd; some panels are empty."""
    doubling = _FINEST * 2.0 ** np.arange(count)
    steps = np.concatenate([-doubling, [0.0], doubling])
    graded = np.concatenate([centre + steps for centre in centres])
    spread = sd[:, None] * np.arange(-REACH, REACH + 1, 2.0)
    edges = np.concatenate([np.broadcast_to(graded, (sd.size, graded.size)), spread], axis=1)
    return np.sort(np.clip(edges, spread[:, :1], spread[:, -1:]), axis=1)


def _panel_mean(
    f: Function, sd: Floats, centres: Sequence[float], count: int, halvings: int
) -> tuple[Floats, Floats, Floats]:
    """Value, error and E|f|."""
    edges = halved(_panel_edges(sd, centres, count), halvings)
    starts, lengths = edges[:, :-1, None], np.diff(edges, axis=1)[:, :, None]
    scale = np.where(sd > 0, sd, 1.0)[:, None, None]
    means = []
    for order in _POINTS:
        nodes, weights = legendre(order)
        x = starts + lengths * nodes
        mass = lengths / scale * weights * np.exp(-0.5 * (x / scale) ** 2) / np.sqrt(2 * np.pi)
        values = evaluated(f, x)
        means.append((values * mass).sum(axis=(1, 2)))
    size = (np.abs(values) * mass).sum(axis=(1, 2))
    # Beyond Z the density falls at least as fast as e^{-Zz}: the tail of an f that varies slowly is f(Z) density(Z)/Z.
    ends = np.abs(evaluated(f, edges[:, [0, -1]])).sum(axis=1)
    tail = ends * np.exp(-0.5 * REACH**2) / (np.sqrt(2 * np.pi) * REACH)
    still = sd == 0
    value = np.where(still, evaluated(f, np.zeros(1))[0], means[1])
    error = np.where(still, 0.0, CAUTION * (np.abs(means[1] - means[0]) + tail) + 4 * _EPS * size)
    return value, error, size
