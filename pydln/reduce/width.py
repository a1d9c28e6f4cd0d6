"""Reduction "width": every hidden layer projected on the smallest subspace in which it moves.

Orthonormal bases P_1 … P_{D-1} with span P_1 ∋ W_1, span P_{D-1} ∋ W_Dᵀ and, between them, W_l P_{l-1} within P_l and
W_lᵀ P_l within P_{l-1}. Then every gradient lies in P_l ⊗ P_{l-1}: W_l(t) = P_l W'_l(t) P_{l-1}ᵀ + c(t) C_l, where the
W'_l start as P_lᵀ W_l P_{l-1} and take the same steps, and C_l, the rest of the start, only decays.

With two layers P_1 is the span of W_1 and W_2ᵀ; orthogonal hidden matrices, low-rank and aligned starts have small P_l
too; Gaussian ones of more layers have none. What is outside of the bases, be it rounding, grows as exp(st) where
nothing else learns a mode: `growth` tells where it may be left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydln._base.arrays import Floats, Integers, lengths, take, transposed
from pydln._base.patience import patiently
from pydln.reduce.ensemble import Ensemble

__all__ = ["Family", "invariant_family", "tolerance_of"]


def tolerance_of(ensemble: Ensemble) -> float:
    """Rounding of a product with a start: 16 eps √(widest layer), relative to what |W| |x| may add up to."""
    return 16 * float(np.finfo(ensemble.weights.dtype).eps) * float(np.sqrt(max(ensemble.weights.widths)))


@dataclass(frozen=True, eq=False)
class Family:
    """Bases of the hidden layers of some members; None for a layer that is needed whole."""

    places: Integers  # among the members asked about
    bases: tuple[Floats | None, ...]  # D - 1 of (places, n_l, r_l)
    widths: tuple[int, ...]  # r_1 … r_{D-1}
    neglected: Floats  # (places,) largest part left outside the bases, relative as in `tolerance_of`
    given_up: bool = False  # before the bases were known, or for what is outside: all layers count as needed whole


@dataclass(eq=False)
class _Growing:
    """Bases as far as they are known, and the directions that were added and not yet followed to a neighbour."""

    places: Integers
    bases: list[Floats]
    pending: list[tuple[int, int, Floats]]  # hidden layer, the neighbour to go to, directions
    neglected: Floats
    work: float = 0.0
    given_up: bool = False

    def part(self, chosen: Integers) -> _Growing:
        """Some of the members."""
        return _Growing(
            self.places[chosen],
            [P[chosen] for P in self.bases],
            [(k, to, N[chosen]) for k, to, N in self.pending],
            self.neglected[chosen],
            self.work,
            self.given_up,
        )

    @property
    def whole(self) -> bool:
        """Every hidden layer is needed in all its directions."""
        return all(P.shape[-1] == P.shape[-2] for P in self.bases)


_CALL = 3e5  # what the call of a matrix routine costs beside its arithmetic, in operations of a kernel (~15 µs)


def invariant_family(
    ensemble: Ensemble, members: Integers, entry: Floats | None, *, budget: float | None = None
) -> list[Family]:
    """The smallest families of bases, members that need as many directions together.

    Parameters
    ----------
    ensemble : Ensemble
    members : (m,) array of int
    entry : (1 or m, n_0, r) array, optional
        The input directions that W_1 sees, if not all.
    budget : float, optional
        Operations per member after which the search gives up: all layers are then needed whole.
    """
    hidden, tolerance = ensemble.weights.widths[1:-1], tolerance_of(ensemble)
    layers = [ensemble.layer(k, members) for k in range(1, ensemble.weights.depth + 1)]
    count = max(len(layers[0]), 1 if entry is None else len(entry))
    if not hidden:
        return [Family(np.arange(count), (), (), np.zeros(count))]
    start = _Growing(np.arange(count), [np.zeros((count, n, 0)) for n in hidden], [], np.zeros(count))
    # A direction that a weak one led to carries that one's rounding. Coarsely first, then, where something was passed
    # over for that, with bases taken from all that leads there together; without, from the exact starts only.
    coarse = min(1e3 * tolerance, tolerance**0.5)
    ended = []
    for one in _grown(start, layers, entry, coarse, budget):
        passed = one.neglected > tolerance
        for some, again in ((np.flatnonzero(~passed), False), (np.flatnonzero(passed), True)):
            if not some.size:
                continue
            part = one.part(some)
            if not again or part.whole or part.given_up:
                ended.append(part)
                continue
            _polish(part, layers, entry)
            bad = np.flatnonzero(part.neglected > tolerance)
            ended.append(part.part(np.flatnonzero(part.neglected <= tolerance)))
            if bad.size:
                fresh = _Growing(
                    part.places[bad], [np.zeros((len(bad), n, 0)) for n in hidden], [], np.zeros(len(bad)), part.work
                )
                ended += _grown(fresh, layers, entry, tolerance, budget)
    found = []
    for one in ended:
        if not one.places.size:
            continue
        if one.whole or one.given_up:
            found.append(Family(one.places, (None,) * len(hidden), hidden, one.neglected, one.given_up))
            continue
        # A layer that nothing reaches keeps one unit, without weights.
        own = [P if P.shape[-1] else np.zeros((*P.shape[:2], 1)) for P in one.bases]
        ranks = tuple(int(P.shape[-1]) for P in own)
        bases = tuple(None if r == n else P for P, r, n in zip(own, ranks, hidden, strict=True))
        found.append(Family(one.places, bases, ranks, one.neglected))
    return found


def _grown(
    start: _Growing, layers: list[Floats], entry: Floats | None, tolerance: float, budget: float | None
) -> list[_Growing]:
    """From W_Dᵀ backwards first, the thinner side of most networks; then W_1; then whatever these add."""
    growing = []
    depth = len(layers)
    columns, scale = _leading(start, depth, depth - 1, layers, entry)
    for one in _extended(start, depth - 1, columns, scale, tolerance, budget):
        growing += _followed(one, layers, tolerance, budget)
    ended = []
    for one in growing:
        if one.whole or one.given_up:
            ended.append(one)
            continue
        columns, scale = _leading(one, 0, 1, layers, entry)
        for grown in _extended(one, 1, columns, scale, tolerance, budget):
            ended += _followed(grown, layers, tolerance, budget)
    return ended


def _leading(one: _Growing, k: int, to: int, layers: list[Floats], entry: Floats | None) -> tuple[Floats, Floats]:
    """Layer `to` as its neighbour k reaches it (0 and D: the ends): columns, and what rounding is relative to."""
    places = one.places
    W = take(layers[max(k, to) - 1], places)
    W = W if to > k else transposed(W)
    own = None
    if 0 < k < len(layers):
        own = one.bases[k - 1]
    elif k == 0 and entry is not None:
        own = take(entry, places)
    columns = W if own is None else W @ own
    scale = lengths(W) if own is None else lengths(np.abs(W) @ np.abs(own))
    shape = (len(places), *columns.shape[1:])
    return np.broadcast_to(columns, shape), np.broadcast_to(scale, (shape[0], shape[2]))


def _polish(one: _Growing, layers: list[Floats], entry: Floats | None) -> None:
    """As many directions as there are, taken from all that leads to each layer; then what is left outside of them."""
    last = len(layers) - 1

    def leading(k: int) -> Floats:
        parts = [_leading(one, j, k, layers, entry) for j in (k - 1, k + 1)]
        return np.concatenate([X / np.where(scale > 0, scale, 1.0)[:, None, :] for X, scale in parts], axis=2)

    for k in (*range(last, 0, -1), *range(2, last + 1)):
        rank = one.bases[k - 1].shape[-1]
        if 0 < rank < one.bases[k - 1].shape[-2]:
            one.bases[k - 1] = patiently(np.linalg.svd, leading(k), full_matrices=False)[0][:, :, :rank]
    one.neglected = np.zeros(len(one.places))
    for k in range(1, last + 1):
        X, P = leading(k), one.bases[k - 1]
        one.neglected = np.maximum(one.neglected, lengths(X - P @ (transposed(P) @ X)).max(axis=1))


def _followed(one: _Growing, layers: list[Floats], tolerance: float, budget: float | None) -> list[_Growing]:
    """What `one` becomes when its pending directions are carried to their neighbours until nothing new comes.

    Given up, with directions still pending, when that would exceed the budget.
    """
    ended, open_ = [], [one]
    while open_:
        now = open_.pop()
        now.given_up |= budget is not None and now.work > budget
        if not now.pending or now.whole or now.given_up:
            ended.append(now)
            continue
        k, to, N = now.pending.pop(0)
        W = take(layers[max(k, to) - 1], now.places)
        W = W if to > k else transposed(W)
        now.work += 4.0 * N[0].size * W.shape[1] + _CALL
        open_ += _extended(now, to, W @ N, lengths(np.abs(W) @ np.abs(N)), tolerance, budget)
    return ended


_PANEL = 64  # columns whose directions are found by one decomposition: longer ones cost more and cannot be broken off


def _extended(
    one: _Growing, k: int, X: Floats, scale: Floats, tolerance: float, budget: float | None
) -> list[_Growing]:
    """`one` with the basis of layer k extended by the columns of X that are not in it, members parted by their number.

    What the rounding of X may be is relative to `scale`, column by column: a small column that is exact is not noise.
    """
    X = X / np.where(scale > 0, scale, 1.0)[:, None, :]
    parts = [one]
    for first in range(0, X.shape[-1], _PANEL):
        now, parts = parts, []
        for part in now:
            n, r = part.bases[k - 1].shape[1:]
            part.given_up = budget is not None and part.work > budget
            if r == n or part.given_up:
                parts.append(part)
                continue
            own = take(X, np.searchsorted(one.places, part.places)) if len(part.places) < len(X) else X
            parts += _extended_by_panel(part, k, own[:, :, first : first + _PANEL], tolerance)
    return parts


def _extended_by_panel(one: _Growing, k: int, X: Floats, tolerance: float) -> list[_Growing]:
    """Strong directions first, those within two decades of the strongest together, the rest cleared of them.

    A Gram matrix is exact enough for that, and needs no decomposition of anything long: LAPACK would start threads.
    """
    P = one.bases[k - 1]
    n, r = P.shape[1:]
    one.work += 4.0 * n * r * X.shape[-1] + _CALL
    for _ in range(2 if r else 0):
        X = X - P @ (transposed(P) @ X)
    parts, open_ = [], [(one, X)]
    while open_:
        now, X = open_.pop()
        P = now.bases[k - 1]
        r = P.shape[-1]
        if r == n:
            parts.append(now)
            continue
        weights, vectors = patiently(np.linalg.eigh, transposed(X) @ X)
        s = np.sqrt(np.maximum(weights, 0.0))
        strong = s > np.maximum(tolerance, 1e-2 * s[:, -1:])
        ranks = np.minimum(strong.sum(axis=1), n - r)
        now.work += 8.0 * X[0].size * X.shape[-1] + 2 * _CALL
        for rank in np.unique(ranks):
            chosen = np.flatnonzero(ranks == rank)
            part = now.part(chosen)
            if not rank:
                part.neglected = np.maximum(part.neglected, s[chosen, -1])
                parts.append(part)
                continue
            own, Y = part.bases[k - 1], X[chosen]
            N = Y @ (vectors[chosen][:, :, -rank:] / s[chosen][:, None, -rank:])
            for _ in range(2):
                N = N - own @ (transposed(own) @ N) if r else N
                squares, turns = patiently(np.linalg.eigh, transposed(N) @ N)
                N = N @ ((turns / np.sqrt(squares)[:, None, :]) @ transposed(turns))
            part.bases[k - 1] = np.concatenate([own, N], axis=2)
            part.pending += [(k, to, N) for to in (k - 1, k + 1) if 1 <= to <= len(one.bases)]
            for _ in range(2):
                Y = Y - N @ (transposed(N) @ Y)
            open_.append((part, Y))
    return parts
