"""A task and the weights it starts from, and the decoupled modes that may be found in them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydln._base import validate
from pydln._base.patience import patiently
from pydln.reduce.decoupled import crossed, growing
from pydln.reduce.ensemble import check_fit
from pydln.reduce.growth import LONG
from pydln.reduce.orthogonal import column_lengths, orthonormal
from pydln.task.task import Task
from pydln.weights import Weights

__all__ = ["Alignment", "Condition", "Start"]

Floats = NDArray[Any]

# What rounding does to W_l = R_{l+1} diag(a_l) R_l^T, relative to |W_l|, with the mode's own strength a added.
_ROUNDING = 32
_INERT = "nothing outside the modes on both sides"
_TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 4e-6}
# How much of a mode that grows may be rounding: its course is then off by twice that, in units of 1/s.
_KNOWN = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 2.0**-10}


class Condition(NamedTuple):
    """Something that a solution needs.

    Attributes
    ----------
    needs : str
        What.
    holds : bool
    measured, allowed : float
        The number that decides and the largest that will do; NaN where there is none.
    failure : str
        The sentence with the number measured, for when it does not hold.
    """

    needs: str
    holds: bool
    measured: float
    allowed: float
    failure: str


class Alignment(NamedTuple):
    """W_l = R_{l+1} diag(a_l) R_l^T + C_l with C_l R_l = 0 and R_{l+1}^T C_l = 0, as far as it holds.

    Attributes
    ----------
    frames : list of (batch, n_l, r) arrays
        R_1 = V … R_{D+1} = U. Modes that are zero on both sides of a hidden layer have a zero column there.
    strengths : (batch, D, r) array
        a_l.
    noise : (batch, D, r) array
        What rounding of the weights may have done to a_l.
    aligned, inert, known : Condition
        That the equation above holds; that the rest C_D … C_1 is zero, and with it motionless; that what remains of W_l
        beside the modes, rounding as it may be, is nothing beside each mode that grows.
    """

    frames: list[Floats]
    strengths: Floats
    noise: Floats
    aligned: Condition
    inert: Condition
    known: Condition


class Start:
    """Task and weights of `batch` members, checked to fit.

    Tolerances follow the dtype of the weights: a mode's strength a_l counts as known to 1e-12 of itself (float32: 4e-6)
    plus 32 rounding errors of the Frobenius norm of W_l. `tol` takes the place of these 1e-12 or 4e-6.
    """

    def __init__(self, task: Task, weights: Weights, tol: float | None = None) -> None:
        check_fit(task, weights)
        members = task.batch or 1
        if 1 not in (members, weights.batch) and members != weights.batch:
            raise ValueError(f"weights: expected 1 or {members} members like the task, got {weights.batch}")
        self.task, self.weights, self._tol = task, weights, tol
        self.depth = weights.depth
        self.batch = max(members, weights.batch)
        self._eps = float(np.finfo(weights.dtype).eps)
        self.rounding = _ROUNDING * self._eps
        self.asked = 0.0 if tol is None else float(validate.array(tol, "tol", shape=(), at_least=0))
        self.tolerance = _TOLERANCE[weights.dtype] if tol is None else self.asked

    def _part(self, rows: slice) -> Start:
        """Some of the members."""
        task = self.task._picked(rows) if (self.task.batch or 1) > 1 else self.task
        return Start(task, self.weights[rows] if self.weights.batch > 1 else self.weights, self._tol)

    def layer(self, k: int) -> Floats:
        """W_k in float64, (batch or 1, n_k, n_{k-1}), k = 1 … D."""
        return self.weights.layers[k - 1].astype(np.float64, copy=False)

    @cached_property
    def modes(self) -> tuple[Floats, Floats, Floats]:
        """U, s, V of the task with the batch axis (one member if it is not batched)."""
        U, s, V = self.task.modes
        return (U, s, V) if self.task.batch is not None else (U[None], s[None], V[None])

    def depth_is(self, holds: bool, wanted: str) -> Condition:
        """The depth, as a solution wants it."""
        failure = f"the depth is not {wanted}: D = {self.depth}"
        return Condition(f"depth {wanted}", holds, self.depth, np.nan, failure)

    @property
    def whitened(self) -> Condition:
        """Sigma_xx = I to 1e-12, or to the tolerance asked for, and to less beside a mode that is small."""
        needs, allowed = "whitened inputs, |Sigma_xx - I|", max(1e-12, self.asked)
        if self.task.whitened:
            return Condition(needs, True, 0.0, allowed, "")
        sigma_xx, identity = self.task.sigma_xx, np.eye(self.task.n_in)
        off = float(np.abs(sigma_xx - identity).max())
        failure = f"inputs are not whitened: max|Sigma_xx - I| = {off:.3g}"
        return Condition(needs, off <= allowed and self.hides(off), off, allowed, failure)

    def hides(self, off: float) -> bool:
        """Whether correlations of this size between inputs are nothing to the modes of two layers that grow.

        The strongest hidden direction passes this part of its error on to the others, see `growing`.
        """
        if self.depth != 2 or self.asked or off == 0:
            return True
        length = column_lengths(self._meeting)
        largest = max(float(np.abs(self.layer(k)).max()) for k in (1, 2))
        least = np.where(length > 0, length, np.inf).min(initial=np.inf)
        return off * largest <= _KNOWN[self.weights.dtype] * float(least)

    @cached_property
    def _meeting(self) -> Floats:
        """W_1 v + W_2^T u of two layers, (batch, n_1, r); zero where a mode does not grow."""
        U, s, V = self.modes
        s = np.broadcast_to(s, (self.batch, s.shape[-1]))
        grows = s > self.task.n_in * self._eps * s.max(axis=1, keepdims=True, initial=0.0)
        return np.where(grows[:, None, :], self.layer(1) @ V + _transposed(self.layer(2)) @ U, 0.0)

    @cached_property
    def variances(self) -> Floats:
        """d >= 0 of the inputs along each mode, (batch or 1, r); 0 where it, or the mode, is no more than rounding.

        With A and B of `pydln.task.squares`, s = uᵀBAᵀv <= |Bᵀu| √d: what is twice as strong as that does not exist.
        """
        U, s, V = self.modes
        if self.task.whitened:
            return np.ones((len(V), V.shape[-1]))
        d = np.sum(V * (self._sigma_xx @ V), axis=-2)
        rounding = np.sum(np.abs(V) * (np.abs(self._sigma_xx) @ np.abs(V)), axis=-2)
        assert self.task.squares is not None
        explained = column_lengths(_transposed(self.task.squares.target) @ U)
        exists = (d > self.task.n_in * np.finfo(np.float64).eps * rounding) & (s <= 2 * explained * np.sqrt(np.abs(d)))
        return np.where(exists, d, 0.0)

    @property
    def _sigma_xx(self) -> Floats:
        sigma_xx = self.task.sigma_xx
        return sigma_xx if self.task.batch is not None else sigma_xx[None]

    @property
    def uncorrelated(self) -> Condition:
        """Sigma_xx v = d v for the input modes v of the task, to 1e-12 or to the tolerance asked for.

        A mode with s = 0 that the start does not hold moves nothing and may lie anywhere.
        """
        needs, allowed = "inputs uncorrelated between modes, |Sigma_xx v - d v|/|Sigma_xx|", max(1e-12, self.asked)
        if self.task.whitened:
            return Condition(needs, True, 0.0, allowed, "")
        s = self.modes[1]
        off = self._correlated
        held = (self.alignment.strengths != 0).all(axis=1)
        off = np.where((np.abs(s) > self.rounding * np.abs(s).max(axis=-1, keepdims=True)) | held, off, 0.0)
        member, mode = (int(i) for i in np.unravel_index(np.argmax(off), off.shape))
        failure = (
            f"inputs are correlated between the modes of the task: |Sigma_xx v - d v|/|Sigma_xx| = "
            f"{off[member, mode]:.3g} (mode {mode}{self._of(member)})"
        )
        return Condition(needs, bool((off <= allowed).all()), float(off[member, mode]), allowed, failure)

    @cached_property
    def _correlated(self) -> Floats:
        """|Sigma_xx v - d v|/|Sigma_xx|, (batch or 1, r)."""
        V = self.modes[2]
        if self.task.whitened:
            return np.zeros((len(V), V.shape[-1]))
        size = np.linalg.norm(self._sigma_xx, 2, axis=(1, 2))
        return column_lengths(self._sigma_xx @ V - V * self.variances[:, None, :]) / _or_one(size)[:, None]

    def decoupled(self) -> Iterator[Condition]:
        """What every solution by decoupled modes needs."""
        yield self.uncorrelated
        yield self.alignment.aligned
        yield self.alignment.inert

    @cached_property
    def imbalance(self) -> Floats:
        """lambda of two layers, the mean of the diagonal of W_2^T W_2 - W_1 W_1^T: (batch or 1,)."""
        first, second = self.layer(1), self.layer(2)
        return np.asarray((np.sum(second**2, axis=(1, 2)) - np.sum(first**2, axis=(1, 2))) / first.shape[1])

    @property
    def lambda_balanced(self) -> Condition:
        """W_2^T W_2 - W_1 W_1^T = lambda I of two layers."""
        largest = np.maximum(*(np.abs(self.layer(k)).max(axis=(1, 2)) for k in (1, 2)))
        unit = _or_one(largest)[:, None, None]  # squares of 1e-200 then exist
        first, second = self.layer(1) / unit, self.layer(2) / unit
        squares = np.sum(first**2, axis=(1, 2)), np.sum(second**2, axis=(1, 2))
        own = (squares[1] - squares[0]) / first.shape[1]
        difference = _transposed(second) @ second - first @ _transposed(first)
        off = np.abs(difference - own[:, None, None] * np.eye(first.shape[1])).max(axis=(1, 2))
        relative = off / _or_one(squares[0] + squares[1])
        member = int(np.argmax(relative))
        with np.errstate(over="ignore"):
            square = float(np.square(largest[member % len(largest)]))
        measured = f"max|W_2^T W_2 - W_1 W_1^T - lambda I| = {off[member] * square:.3g} with lambda = "
        if square < np.finfo(np.float64).tiny:
            measured = f"|W_2^T W_2 - W_1 W_1^T - lambda I| = {relative[member]:.3g} (|W_1|^2 + |W_2|^2) with lambda = "
        return Condition(
            "W_2^T W_2 - W_1 W_1^T = lambda I",
            bool((relative <= self.tolerance).all()),
            float(relative[member]),
            self.tolerance,
            f"not lambda-balanced: {measured}{own[member] * square + 0.0:.3g}{self._of(member)}",
        )

    @property
    def told(self) -> Condition:
        """Hidden directions W_1 v + W_2^T u of the modes of two layers that grow are more than rounding, or zero."""
        needs, allowed = "modes that grow known beyond rounding", max(_KNOWN[self.weights.dtype], self.asked)
        U, _, V = self.modes
        first, second = self.layer(1), _transposed(self.layer(2))
        length = column_lengths(self._meeting)
        rounding = 4 * self._eps * column_lengths(np.abs(first) @ np.abs(V) + np.abs(second) @ np.abs(U))
        share = np.where(length > 0, rounding / _or_one(length), 0.0)
        member, mode = (int(i) for i in np.unravel_index(int(np.argmax(share)), share.shape)) if share.size else (0, 0)
        worst = float(share.max(initial=0.0))
        failure = (
            f"mode {mode}{self._of(member)} cannot be told from rounding, which is {worst:.3g} of what the hidden "
            "layer has of it"
        )
        return Condition(needs, bool(self.asked) or worst <= allowed, worst, allowed, failure)

    @cached_property
    def until(self) -> Floats:
        """Up to when rounding of two layers is nothing beside what they have learned, (batch,), in units of tau.

        Where hidden directions of the modes depend on each other up to rounding, the balanced flow never learns the
        weakest of these modes, as a product of low rank keeps its rank, and a square one the sign of its determinant.
        The rounding of the layers grows as e^{st} and learns it.
        """
        forever = np.full(self.batch, np.inf)
        if self.depth != 2 or self.asked:
            return forever
        columns, known = self._meeting, _KNOWN[self.weights.dtype]
        length = column_lengths(columns)
        values = patiently(np.linalg.svd, columns / _or_one(length)[:, None, :], compute_uv=False)
        # As many independent ones as there are, or as there are units that have part in any.
        count = np.minimum((length > 0).sum(axis=1), (columns != 0).any(axis=2).sum(axis=1))
        rank = np.minimum((values * known > 4 * self._eps).sum(axis=1), count)
        s = np.broadcast_to(self.modes[1], length.shape)
        fastest = -np.sort(-np.where(length > 0, s, 0.0), axis=1)
        next_one = np.take_along_axis(fastest, np.minimum(rank, fastest.shape[1] - 1)[:, None], axis=1)[:, 0]
        largest = length.max(axis=1, initial=0.0)
        room = np.log(known / (4 * self._eps)) + np.maximum(
            0.0, 0.5 * np.log(_or_one(fastest[:, 0])) - np.log(_or_one(largest))
        )
        return np.where((rank < count) & (next_one > 0), room / _or_one(next_one), forever)

    @property
    def balanced(self) -> Condition:
        """|a_l| the same in all layers, mode by mode."""
        found = self.alignment
        size = np.abs(found.strengths)
        difference = np.abs(np.diff(size, axis=1))
        noise = found.noise[:, 1:] + found.noise[:, :-1]
        allowed = self.tolerance * size.max(axis=1, keepdims=True) + noise
        excessive = difference > allowed
        gap = np.where(excessive, np.abs(np.diff(size**2, axis=1)), 0.0)
        member, k, mode = (int(i) for i in np.unravel_index(np.argmax(gap), gap.shape))
        low, high = found.strengths[member, k : k + 2, mode]
        return Condition(
            "balanced layers, ||a_(l+1)| - |a_l||",
            not excessive.any(),
            float(difference.max(initial=0.0)),
            float(allowed.max(initial=0.0)),
            f"not balanced: max|W_{k + 2}^T W_{k + 2} - W_{k + 1} W_{k + 1}^T| = {gap[member, k, mode]:.3g} "
            f"(mode {mode} has strengths {low:.3g} and {high:.3g}{self._of(member)})",
        )

    @cached_property
    def alignment(self) -> Alignment:
        """The hidden frames and layer strengths."""
        frames = self._frames()
        strengths, noise, beside, holds, worst = [], [], [], True, (-np.inf, 0.0, 1, 0, 0)
        for k in range(1, self.depth + 1):
            size, W = self._scaled(k)
            before, after = frames[k - 1], frames[k]
            raw, back = W @ before, _transposed(W) @ after
            a = np.sum(after * raw, axis=1)
            off = column_lengths(raw - after * a[:, None, :]), column_lengths(back - before * a[:, None, :])
            own = np.maximum(*self._roundings(W, before, after))
            residual = np.maximum(*off)
            norm = np.linalg.norm(W, axis=(1, 2))[:, None]
            # The frames are orthogonal to rounding of their whole columns. Whether so little matters is for `known`.
            excess = residual - self.tolerance * np.abs(a) - np.maximum(own, self.rounding * norm)
            holds = holds and bool((excess <= 0).all())
            relative, excess = residual / _or_one(norm), excess / _or_one(norm)
            member, mode = (int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
            worst = max(worst, (float(excess[member, mode]), float(relative[member, mode]), k, member, mode))
            shape = (self.batch, a.shape[-1])
            strengths.append(np.broadcast_to(a * size[:, 0], shape))
            noise.append(np.broadcast_to(own * size[:, 0], shape))
            beside += [np.broadcast_to(x * size[:, 0], shape) for x in off]
        _, number, k, member, mode = worst
        aligned = Condition(
            "layers aligned with the modes of the task",
            holds,
            number,
            self.tolerance,
            f"not aligned with the modes of the task: max|W_l r_l - a_l r_(l+1)|/|W_l| = {number:.3g} "
            f"(l = {k}, mode {mode}{self._of(member)})",
        )
        return Alignment(
            [np.broadcast_to(R, (self.batch, *R.shape[1:])) for R in frames],
            np.stack(strengths, axis=1),
            np.stack(noise, axis=1),
            aligned,
            self._inert(),
            self._known(strengths, beside, np.max(noise, axis=0)),
        )

    def _known(self, strengths: list[Floats], beside: list[Floats], noise: Floats) -> Condition:
        """What is beside a mode that grows grows with it, and without it: see `pydln.reduce.growth`.

        In three and more layers a mode of nothing but rounding a has a rate of s a^(D-2), and that of negative
        strength slows down as a falls: for 1/(s a), some 10^8/s, they are as good as at rest.
        """
        shape = strengths[0].shape
        s, d, off = (np.broadcast_to(x, shape) for x in (self.modes[1], self.variances, self._correlated))
        if self.depth == 2:
            duration = LONG / _or_one(s.max(axis=1, initial=0.0))
            hidden = self.weights.widths[1:-1]
            shares = [one.share(duration, self._eps) for one in growing(strengths, beside, s, d, off, hidden)]
        else:
            kept, out = np.abs(strengths).max(axis=0), np.max(beside, axis=0)
            alive = (s > 0) & (kept > noise)
            forever = np.full(len(s), LONG)
            shares = [np.where(alive, np.maximum(out / _or_one(kept), crossed(strengths, beside, s, forever)), 0.0)]
        share = np.max(shares, axis=0, initial=0.0)
        if self.asked:  # a mode that is all rounding is left out
            share = np.where(np.isfinite(share), share, 0.0)
        worst = float(share.max(initial=0.0))
        place = np.unravel_index(int(np.argmax(share)), share.shape) if share.size else (0, 0)
        member, mode = (int(i) for i in place)
        allowed = max(_KNOWN[self.weights.dtype], self.asked)
        failure = (
            f"mode {mode}{self._of(member)} cannot be told from rounding: what the weights have beside it and may grow "
            f"like it is {worst:.3g} of what they have of it"
        )
        return Condition("modes that grow known beyond rounding", worst <= allowed, worst, allowed, failure)

    def _roundings(self, W: Floats, before: Floats, after: Floats) -> tuple[Floats, Floats]:
        """What rounding of their terms may do to W before and Wᵀ after, column by column."""
        size = np.abs(W)
        return (
            self.rounding * column_lengths(size @ np.abs(before)),
            self.rounding * column_lengths(_transposed(size) @ np.abs(after)),
        )

    def _scaled(self, k: int) -> tuple[Floats, Floats]:
        """The largest entry of W_k, and W_k divided by it: squares of strengths of 1e-200 then exist."""
        W = self.layer(k)
        size = _or_one(np.abs(W).max(axis=(1, 2), keepdims=True))
        return size, W / size

    def _frames(self) -> list[Floats]:
        """R_1 … R_{D+1}, each hidden one carried from V or from U, whichever side has its mode the stronger."""
        U, _, V = self.modes
        ahead, frame = [], U
        for k in range(self.depth, 1, -1):
            ahead.append(self._reached(_transposed(self.layer(k)), frame))
            frame = orthonormal(*ahead[-1])
        frames = [V]
        for k in range(1, self.depth):
            columns, least = self._reached(self.layer(k), frames[-1])
            other, other_least = ahead.pop()
            stronger = column_lengths(other) > 2 * column_lengths(columns)
            frames.append(
                orthonormal(np.where(stronger[:, None, :], other, columns), np.where(stronger, other_least, least))
            )
        return [*frames, U]

    def _reached(self, W: Floats, frame: Floats) -> tuple[Floats, Floats]:
        """W frame, and what rounding of its terms may be."""
        columns = W @ frame
        least = self.rounding * column_lengths(np.abs(W) @ np.abs(frame))
        return columns, np.broadcast_to(least, (len(columns), frame.shape[-1]))

    def _inert(self) -> Condition:
        # Beside as many modes as there are inputs, or outputs, no product has room.
        U, s, V = self.modes
        if s.shape[-1] == min(self.task.n_in, self.task.n_out):
            return Condition(_INERT, True, 0.0, self.tolerance, "")
        first, last = self._scaled(1)[1], self._scaled(self.depth)[1]
        rest_in = np.linalg.norm(first - (first @ V) @ _transposed(V), axis=(1, 2))
        rest_out = np.linalg.norm(last - U @ (_transposed(U) @ last), axis=(1, 2))
        rest = np.minimum(
            rest_in / _or_one(np.linalg.norm(first, axis=(1, 2))), rest_out / _or_one(np.linalg.norm(last, axis=(1, 2)))
        )
        return Condition(
            _INERT,
            bool((rest <= self.tolerance).all()),
            float(rest.max()),
            self.tolerance,
            f"the weights reach outside the {s.shape[-1]} modes of the task on both sides: |W_1 - W_1 V V^T|/|W_1| and "
            f"|W_D - U U^T W_D|/|W_D| = {rest.max():.3g} or more{self._of(int(rest.argmax()))}",
        )

    def _of(self, member: int) -> str:
        return f", member {member}" if self.batch > 1 else ""


def _transposed(a: Floats) -> Floats:
    return np.swapaxes(a, -2, -1)


def _or_one(a: Floats) -> Floats:
    return np.where(a == 0, 1.0, a)
