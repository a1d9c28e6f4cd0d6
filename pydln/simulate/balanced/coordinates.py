"""The end-to-end map of a balanced network in coordinates in which its flow is smooth at any depth.

A balanced network, W_{l+1}ᵀW_{l+1} = W_lW_lᵀ, moves its product Ω = U diag(σ) Vᵀ by

    dΩ/dt = Σ_{j=1}^{D} (ΩΩᵀ)^{(D-j)/D} E (ΩᵀΩ)^{(j-1)/D},   E = Σ_yx - ΩΣ_xx

(Arora, Cohen & Hazan 2018, theorem 1). Powers between 0 and 1 are not smooth at σ = 0, and an integrator that leaves
the maps of rank r by a rounding error may see a singular value grow that is none. Here Ω = P M^D Qᵀ with orthonormal P,
Q of r = rank Ω columns and M symmetric and positive: what rank and sign are cannot change, M has the size of a layer,
and with M = R diag(a) Rᵀ the singular values a^D and vectors PR, QR of Ω are those of a matrix of r rows. With
e = (PR)ᵀ E (QR), s and k its symmetric and antisymmetric parts,

    α_ij = (a_i^D + a_j^D) / (a_i + a_j),   β_ij = (a_i^D - a_j^D) / (a_i - a_j),
    RᵀM'R = 4a_ia_j / (a_i + a_j)² α s,     X, Y = -(a_i - a_j) / (a_i + a_j)² α s ± β k / (a_i + a_j),
    P' = P R X Rᵀ + (I - PPᵀ) E Q R diag(a^{D-2}) Rᵀ,   Q' = Q R Y Rᵀ + (I - QQᵀ) Eᵀ P R diag(a^{D-2}) Rᵀ.

Nothing is divided by a difference of singular values, so that equal ones are like any others: P and Q could turn with
the singular vectors, at rates ∝ 1/(a_i - a_j), or not at all. Turning (a_i - a_j)²/(a_i + a_j)² of that, the entries
of M between a large and a small a stay as small as the small one, which is then known to its own last digits.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pydln._base.arrays import dots, transposed
from pydln.task.inputs import principal_moments
from pydln.task.task import Task

__all__ = [
    "CONFLUENT",
    "Balanced",
    "Learned",
    "OneLayerMap",
    "confluent",
    "divided",
    "learned_by",
    "orthonormal",
    "ranks",
]

Floats = NDArray[Any]
Integers = NDArray[np.int64]

_UNSEEN = 0.1  # of an error that is tolerated

CONFLUENT = 1e-8
"""Singular values a^D count as one where their a differ by less than this, relative to the larger."""


class Learned(NamedTuple):
    """What a map learns, with one entry for all members or one each, in coordinates in which Σ_xx is diagonal."""

    sigma_yx: Floats  # (1 or members, n_D, n_0)
    variances: Floats | None  # (1 or members, n_0); None: 1

    def of(self, members: Integers) -> Learned:
        """Of some members."""
        return Learned(
            _picked(self.sigma_yx, members), None if self.variances is None else _picked(self.variances, members)
        )

    def spread(self, Q: Floats) -> Floats:
        """Σ_xx Q."""
        return Q if self.variances is None else self.variances[:, :, None] * Q


class Turning(NamedTuple):
    """Within a slope: a and R of M, the symmetric and antisymmetric part of e, the turn that P and Q have in common."""

    a: Floats
    R: Floats
    s: Floats
    k: Floats
    common: Floats


def _picked(a: Floats, members: Integers) -> Floats:
    # Not `take`, which wants members in order: points on a path repeat theirs.
    return a if len(a) == 1 else a[members]


def learned_by(task: Task) -> tuple[Learned, Floats | None]:
    """What a task teaches where Σ_xx is diagonal, and these coordinates: columns, None if they are the task's own."""
    yx = task.sigma_yx if task.batch is not None else task.sigma_yx[None]
    if task.whitened:
        return Learned(yx, None), None
    basis, deviations, target = (
        a if a.ndim > n else a[None] for a, n in zip(principal_moments(task), (2, 1, 2), strict=True)
    )
    varies = deviations[:, None, :] > 0
    # Σ_yxq of inputs that vary from their own root; the rest has what the task says of it.
    return Learned(np.where(varies, target * deviations[:, None, :], yx @ basis), deviations**2), basis


def ranks(omega: Floats, U: Floats, sigma: Floats, Vt: Floats, rounding: float | None = None) -> Integers:
    """Up to which of the singular values, (members, k), one is more than rounding of the terms of uᵀ Ω v."""
    terms = np.sum(np.abs(U) * (np.abs(omega) @ transposed(np.abs(Vt))), axis=-2)
    rounding = max(omega.shape[-2:]) * float(np.finfo(np.float64).eps) if rounding is None else rounding
    real = sigma > rounding * terms
    return np.asarray((real * np.arange(1, sigma.shape[1] + 1)).max(axis=1, initial=0))


def divided(large: Floats, small: Floats, depth: float | NDArray[Any]) -> Floats:
    """(x^D - y^D) / (x - y) for x >= y >= 0, x > 0, without cancellation; D x^(D-1) where they are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log1p(-(large - small) / large)
        power = np.where(depth == 0, 0.0, depth * log)  # also at y = 0
        quotient = np.where(log == 0, depth, np.expm1(power) / np.expm1(log))
    return np.asarray(large ** (depth - 1) * quotient)


def _rounding(yx: Floats, E: Floats) -> Floats:
    """What rounding of Σ_yx and ΩΣ_xx may make of E, (members,)."""
    terms = np.linalg.norm(yx, axis=(1, 2)) + np.linalg.norm(yx - E, axis=(1, 2))
    return np.asarray(16 * float(np.finfo(np.float64).eps) * np.sqrt(max(yx.shape[1:])) * terms)


class OneLayerMap:
    """Depth 1, where every map is balanced: Ω itself, dΩ/dt = E."""

    def __init__(self, learned: Learned, shape: tuple[int, int]) -> None:
        self.learned, self.shape = learned, shape

    def of(self, members: Integers) -> Self:
        """Some of the members."""
        return type(self)(self.learned.of(members), self.shape)

    def slope(self, y: Floats) -> Floats:
        """E."""
        omega = self.product(y)
        moved = omega if self.learned.variances is None else omega * self.learned.variances[:, None, :]
        return np.asarray((self.learned.sigma_yx - moved).reshape(len(y), -1))

    def weight(self, y: Floats) -> Floats:
        """The largest entry."""
        return np.asarray(np.abs(y).max(axis=1, keepdims=True))

    def renewed(self, y: Floats, slope: Floats) -> tuple[Floats, Floats]:
        """As they are."""
        return y, slope

    def rests(self, y: Floats, slope: Floats, left: Floats, rtol: float) -> NDArray[np.bool_]:
        """E only decays: Ω rests where E is rounding, or, kept up for the time that is left, would not show."""
        moved = np.abs(slope / self.weight(y)).max(axis=1)
        rounding = _rounding(self.learned.sigma_yx, slope.reshape(len(y), *self.shape))
        return np.asarray((moved * left <= _UNSEEN * rtol) | (np.linalg.norm(slope, axis=1) <= rounding))

    def product(self, y: Floats) -> Floats:
        """Ω, (members, n_D, n_0)."""
        return y.reshape(len(y), *self.shape)


class Balanced:
    """P, M and Q of maps of one rank r >= 1 and depth D >= 2."""

    def __init__(self, learned: Learned, shape: tuple[int, int], rank: int, depth: float) -> None:
        self.learned, self.shape, self.rank, self.depth = learned, shape, rank, depth
        n_out, n_in = shape
        self.cuts = (n_out * rank, (n_out + rank) * rank, (n_out + rank + n_in) * rank)

    def of(self, members: Integers) -> Self:
        """Some of the members."""
        return type(self)(self.learned.of(members), self.shape, self.rank, self.depth)

    def parts(self, y: Floats) -> tuple[Floats, Floats, Floats]:
        """P, M, Q as views of states or slopes."""
        a, b, c = self.cuts
        r = self.rank
        return y[:, :a].reshape(len(y), -1, r), y[:, a:b].reshape(len(y), r, r), y[:, b:c].reshape(len(y), -1, r)

    def joined(self, P: Floats, M: Floats, Q: Floats) -> Floats:
        """The inverse of `parts`."""
        return np.concatenate([a.reshape(len(a), -1) for a in (P, M, Q)], axis=1)

    def start(self, U: Floats, sigma: Floats, V: Floats) -> Floats:
        """The state for Ω = U diag(σ) Vᵀ, turned within equal σ to the vectors along which they part."""
        a = sigma ** (1 / self.depth)
        R = self.parting(U, a, V)
        return self.joined(U @ R, transposed(R * a[:, :, None]) @ R, V @ R)

    def parting(self, U: Floats, a: Floats, V: Floats) -> Floats:
        """Turns within equal `a`, (members, r, r), to where the symmetric part of e is diagonal, the largest first."""
        R = np.broadcast_to(np.eye(self.rank), (len(a), self.rank, self.rank)).copy()
        equal = np.flatnonzero((a[:, :-1] - a[:, 1:] <= CONFLUENT * a[:, :-1]).any(axis=1))
        if equal.size:
            e = self.of(equal)._pull(U[equal], a[equal] ** self.depth, V[equal])[0]
            for member, pull in zip(equal, e, strict=True):
                for block in confluent(a[member]):
                    if block.stop - block.start > 1:
                        inner = pull[block, block]
                        R[member, block, block] = np.linalg.eigh(0.5 * (inner + inner.T))[1][:, ::-1]
        return R

    def _pull(self, U: Floats, sigma: Floats, V: Floats) -> tuple[Floats, Floats, Floats]:
        """e = UᵀEV, EV and EᵀU for Ω = U diag(σ) Vᵀ."""
        yx = self.learned.sigma_yx
        spread = self.learned.spread(V)
        right = yx @ V - (U * sigma[:, None, :]) @ (transposed(V) @ spread)
        left = transposed(yx) @ U - spread * sigma[:, None, :]
        return transposed(U) @ right, right, left

    def slope(self, y: Floats) -> Floats:
        """P', M', Q'; not finite where M is not positive."""
        return self.moving(y)[0]

    def moving(self, y: Floats) -> tuple[Floats, Turning]:
        """The slope, and what it was made from."""
        P, M, Q = self.parts(y)
        a, R = _eigen(M)
        U, V, Rt = P @ R, Q @ R, transposed(R)
        D = self.depth
        sigma = a**D
        e, right, left = self._pull(U, sigma, V)
        et = transposed(e)
        s, k = 0.5 * (e + et), 0.5 * (e - et)
        row, column = a[:, :, None], a[:, None, :]
        total = row + column
        x, z = row / total, column / total  # parts of one: squares of 1e-200 do not exist
        pushed = (x**D + z**D) * total ** (D - 2) * s
        common = (z - x) * pushed
        apart = divided(np.maximum(row, column), np.minimum(row, column), D) / total * k
        beside = (a ** (D - 2))[:, None, :]
        n_out, n_in = self.shape
        dU, dV = U @ (common + apart), V @ (common - apart)
        if self.rank < n_out:
            dU = dU + (right - U @ e) * beside
        if self.rank < n_in:
            dV = dV + (left - V @ et) * beside
        slope = self.joined(dU @ Rt, R @ (4 * x * z * total * pushed) @ Rt, dV @ Rt)
        return slope, Turning(a, R, s, k, common)

    def weight(self, y: Floats) -> Floats:
        """1 for P and Q, whose columns have length 1; √(a_i a_j) for M, which is nearly diagonal."""
        result = np.ones_like(y)
        a = np.sqrt(np.abs(np.diagonal(self.parts(y)[1], axis1=1, axis2=2)))
        result[:, self.cuts[0] : self.cuts[1]] = (a[:, :, None] * a[:, None, :]).reshape(len(y), -1)
        return result

    def renewed(self, y: Floats, slope: Floats) -> tuple[Floats, Floats]:
        """With P and Q made orthonormal again, and turned to where M is diagonal: singular vectors of Ω.

        Columns keep their places: a vector goes on as the one that it overlaps most. Within equal singular values
        nothing turns.
        """
        return self.turned(y, slope, self.turn(y))

    def turn(self, y: Floats) -> Floats:
        """R, in the order of `renewed`."""
        return _followed(*_eigen(self.parts(y)[1]))

    def turned(self, y: Floats, slope: Floats, R: Floats) -> tuple[Floats, Floats]:
        """PR, RᵀMR, QR, and their slope."""
        P, M, Q = self.parts(y)
        Rt = transposed(R)
        M = Rt @ M @ R
        dP, dM, dQ = self.parts(slope)
        return (
            self.joined(orthonormal(P) @ R, 0.5 * (M + transposed(M)), orthonormal(Q) @ R),
            self.joined(dP @ R, Rt @ dM @ R, dQ @ R),
        )

    def residual(self, y: Floats) -> Floats:
        """E, (members, n_D, n_0)."""
        omega = self.product(y)
        moved = omega if self.learned.variances is None else omega * self.learned.variances[:, None, :]
        return np.asarray(self.learned.sigma_yx - moved)

    def rests(self, y: Floats, slope: Floats, left: Floats, rtol: float) -> NDArray[np.bool_]:
        """Numbers, each in its own units, would not move visibly in the time left, or E is rounding; and nothing grows.

        A singular value grows at a rate of its own, which its slope shows however small it is. What slopes do not show
        are turns of P and Q towards what is not learned: they grow no faster than |E| a^(D-2), and with whitened inputs
        as a_i^(D-2) (s' - σ_i) with s' of E beside P and Q: not at all where every σ_i is larger.
        """
        state = self.parts(y)
        a = _eigen(state[1])[0]
        E = self.residual(y)
        sound = np.asarray(np.isfinite(a).all(axis=1) & np.isfinite(E).all(axis=(1, 2)))
        a, E = np.where(sound[:, None], a, 1.0), np.where(sound[:, None, None], E, 0.0)
        moved = np.abs(slope / self.weight(y)).max(axis=1)
        size = np.linalg.norm(E, axis=(1, 2))
        still = (moved * left <= _UNSEEN * rtol) | (size <= _rounding(self.learned.sigma_yx, E))
        calm = size * self.depth * a.max(axis=1) ** (self.depth - 2) * left <= _UNSEEN
        some = np.flatnonzero(sound & still & ~calm)
        if some.size and self.learned.variances is None:
            P, Q = state[0][some], state[2][some]
            beside = E[some] - P @ (transposed(P) @ E[some])
            beside = beside - (beside @ Q) @ transposed(Q)
            strongest = np.linalg.norm(beside, ord=2, axis=(1, 2))
            calm[some] = strongest <= 0.99 * (a[some] ** self.depth).min(axis=1)
        return np.asarray(sound & still & calm)

    def speed(self, y: Floats) -> Floats:
        """The largest singular value of dW_l/dt over the layers, (members,).

        With hidden frames R_l it is that of a^{D-l} UᵀEV a^{l-1} between, which is largest at an end: the logarithm of
        a norm ‖A^{1-θ}XB^θ‖ is convex in θ. At the ends it is that of a^{D-1}UᵀE and of EVa^{D-1}.
        """
        P, M, Q = self.parts(y)
        a, R = _eigen(M)
        good = np.asarray(np.isfinite(a).all(axis=1))
        a = np.where(good[:, None], a, 1.0)
        _, right, left = self._pull(P @ R, a**self.depth, Q @ R)
        ends = (side * (a ** (self.depth - 1))[:, None, :] for side in (right, left))
        largest = np.maximum(*(np.linalg.norm(end, ord=2, axis=(1, 2)) for end in ends))
        return np.where(good, largest, np.nan)

    def product(self, y: Floats) -> Floats:
        """Ω, (members, n_D, n_0)."""
        P, M, Q = self.parts(y)
        a, R = _eigen(M)
        return np.asarray((P @ R * (a**self.depth)[:, None, :]) @ transposed(Q @ R))

    def singular(self, y: Floats) -> tuple[Floats, Floats, Floats]:
        """U, σ and V, columns in the order in which `renewed` keeps them."""
        P, M, Q = self.parts(y)
        R = self.turn(y)
        a = np.diagonal(transposed(R) @ M @ R, axis1=1, axis2=2)
        return orthonormal(P) @ R, a**self.depth, orthonormal(Q) @ R


def orthonormal(P: Floats) -> Floats:
    """The nearest matrix with orthonormal columns, to second order: one step of Newton's iteration for it."""
    return np.asarray(1.5 * P - 0.5 * (P @ (transposed(P) @ P)))


def _eigen(M: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues, decreasing, and vectors of nearly diagonal matrices, small ones to their own last digits.

    NaN where a matrix is not positive. LAPACK's tridiagonal form keeps the small entries of a matrix whose large ones
    come first, and is given that; a Rayleigh quotient is exact to the square of the error of its vector.
    """
    good = np.asarray(np.isfinite(M).all(axis=(1, 2)))
    if not good.all():
        M = np.where(good[:, None, None], M, np.eye(M.shape[-1]))
    diagonal = np.diagonal(M, axis1=1, axis2=2)
    sorted_already = bool((diagonal[:, :-1] >= diagonal[:, 1:]).all())  # the bits are the same either way
    if not sorted_already:
        order = np.argsort(-diagonal, axis=1, kind="stable")
        M = np.take_along_axis(np.take_along_axis(M, order[:, :, None], axis=1), order[:, None, :], axis=2)
    R = np.ascontiguousarray(np.linalg.eigh(M)[1][:, :, ::-1])
    a = dots(R, M @ R)
    if not sorted_already:
        vectors, R = R, np.empty_like(R)
        np.put_along_axis(R, order[:, :, None], vectors, axis=1)
    positive = np.asarray((a > 0).all(axis=1))
    return np.where((good & positive)[:, None], a, np.nan), R


def confluent(a: Floats) -> list[slice]:
    """Runs of decreasing numbers, one after the other no further than `CONFLUENT` below the last."""
    ends = np.flatnonzero(a[:-1] - a[1:] > CONFLUENT * a[:-1]) + 1
    cuts = [0, *ends.tolist(), len(a)]
    return [slice(first, last) for first, last in pairwise(cuts)]


def _followed(a: Floats, R: Floats) -> Floats:
    """Columns of R put where they have their largest entries, and with these positive: as near to I as they can be.

    Vectors of equal eigenvalues are turned among themselves to be nearest to I.
    """
    R = R.copy()
    several = (a[:, :-1] - a[:, 1:] <= CONFLUENT * a[:, :-1]).any(axis=1)
    places = np.argmax(np.abs(R), axis=1)
    clear = (np.sort(places, axis=1) == np.arange(R.shape[-1])).all(axis=1)
    for member in np.flatnonzero(several | ~clear):
        from scipy.optimize import linear_sum_assignment

        own = R[member]
        places[member] = linear_sum_assignment(-(own * own).T)[1]
        for block in confluent(a[member]):
            if block.stop - block.start > 1:
                x, _, y = np.linalg.svd(own[places[member, block], block].T)
                own[:, block] = own[:, block] @ (x @ y)
    result = np.empty_like(R)
    np.put_along_axis(result, places[:, None, :], R, axis=2)
    diagonal = np.diagonal(result, axis1=1, axis2=2)
    return np.asarray(result * np.where(diagonal < 0, -1.0, 1.0)[:, None, :])
