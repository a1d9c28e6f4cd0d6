"""A task and the weights it starts from, and the decoupled modes that may be found in them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydln import _validate
from pydln.reduce.problem import check_fit
from pydln.task import Task
from pydln.weights import Weights

__all__ = ["Alignment", "Condition", "Start"]

Floats = NDArray[Any]

# What rounding does to W_l = R_{l+1} diag(a_l) R_l^T, relative to |W_l|, with the mode's own strength a added.
_ROUNDING = 32
_INERT = "nothing outside the modes on both sides"
_TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 4e-6}


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
    noise : (batch, D) array
        What rounding of the weights may have done to a_l.
    aligned, inert : Condition
        That the equation above holds; that the rest C_D … C_1 is zero, and with it motionless.
    """

    frames: list[Floats]
    strengths: Floats
    noise: Floats
    aligned: Condition
    inert: Condition


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
        self.rounding = _ROUNDING * float(np.finfo(weights.dtype).eps)
        self.asked = 0.0 if tol is None else float(_validate.array(tol, "tol", shape=(), at_least=0))
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
        """Sigma_xx = I to 1e-12, or to the tolerance asked for."""
        needs, allowed = "whitened inputs, |Sigma_xx - I|", max(1e-12, self.asked)
        if self.task.whitened:
            return Condition(needs, True, 0.0, allowed, "")
        sigma_xx, identity = self.task.sigma_xx, np.eye(self.task.n_in)
        off = float(np.abs(sigma_xx - identity).max())
        failure = f"inputs are not whitened: max|Sigma_xx - I| = {off:.3g}"
        return Condition(needs, off <= allowed, off, allowed, failure)

    @cached_property
    def variances(self) -> Floats:
        """d >= 0 of the inputs along each mode, (batch or 1, r); 0 where it is no more than rounding."""
        V = self.modes[2]
        if self.task.whitened:
            return np.ones((len(V), V.shape[-1]))
        d = np.sum(V * (self._sigma_xx @ V), axis=-2)
        largest = np.linalg.norm(self._sigma_xx, 2, axis=(1, 2))[:, None]
        return np.where(d > self.task.n_in * np.finfo(np.float64).eps * largest, d, 0.0)

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
        _, s, V = self.modes
        size = np.linalg.norm(self._sigma_xx, 2, axis=(1, 2))
        off = _lengths(self._sigma_xx @ V - V * self.variances[:, None, :]) / _or_one(size)[:, None]
        held = (self.alignment.strengths != 0).all(axis=1)
        off = np.where((np.abs(s) > self.rounding * np.abs(s).max(axis=-1, keepdims=True)) | held, off, 0.0)
        member, mode = (int(i) for i in np.unravel_index(np.argmax(off), off.shape))
        failure = (
            f"inputs are correlated between the modes of the task: |Sigma_xx v - d v|/|Sigma_xx| = "
            f"{off[member, mode]:.3g} (mode {mode}{self._of(member)})"
        )
        return Condition(needs, bool((off <= allowed).all()), float(off[member, mode]), allowed, failure)

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
        first, second = self.layer(1), self.layer(2)
        own, identity = self.imbalance, np.eye(first.shape[1])
        difference = _transposed(second) @ second - first @ _transposed(first)
        off = np.abs(difference - own[:, None, None] * identity).max(axis=(1, 2))
        size = np.sum(first**2, axis=(1, 2)) + np.sum(second**2, axis=(1, 2))
        relative = off / _or_one(size)
        member = int(np.argmax(relative))
        return Condition(
            "W_2^T W_2 - W_1 W_1^T = lambda I",
            bool((relative <= self.tolerance).all()),
            float(relative[member]),
            self.tolerance,
            f"not lambda-balanced: max|W_2^T W_2 - W_1 W_1^T - lambda I| = {off[member]:.3g} with lambda = "
            f"{own[member]:.3g}{self._of(member)}",
        )

    @property
    def balanced(self) -> Condition:
        """|a_l| the same in all layers, mode by mode."""
        found = self.alignment
        size = np.abs(found.strengths)
        difference = np.abs(np.diff(size, axis=1))
        noise = (found.noise[:, 1:] + found.noise[:, :-1])[..., None]
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
        strengths, noise, holds, worst = [], [], True, (0.0, 1, 0, 0)
        for k in range(1, self.depth + 1):
            size, W = self._scaled(k)
            before, after = frames[k - 1], frames[k]
            raw = W @ before
            a = np.sum(after * raw, axis=1)
            residual = np.maximum(
                _lengths(raw - after * a[:, None, :]), _lengths(_transposed(W) @ after - before * a[:, None, :])
            )
            norm = np.linalg.norm(W, axis=(1, 2))[:, None]
            holds = holds and bool((residual <= self.tolerance * np.abs(a) + self.rounding * norm).all())
            relative = residual / _or_one(norm)
            member, mode = (int(i) for i in np.unravel_index(np.argmax(relative), relative.shape))
            worst = max(worst, (float(relative[member, mode]), k, member, mode))
            strengths.append(np.broadcast_to(a * size[:, 0], (self.batch, a.shape[-1])))
            noise.append(np.broadcast_to(self.rounding * (norm * size[:, 0])[:, 0], (self.batch,)))
        number, k, member, mode = worst
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
            size, W = self._scaled(k)
            columns, floor = _transposed(W) @ frame, self.rounding * np.linalg.norm(W, axis=(1, 2))[:, None]
            ahead.append((size, columns, floor))
            frame = _frame(columns, floor)
        frames = [V]
        for k in range(1, self.depth):
            size, W = self._scaled(k)
            columns, floor = W @ frames[-1], self.rounding * np.linalg.norm(W, axis=(1, 2))[:, None]
            other_size, other, other_floor = ahead.pop()
            common = np.maximum(size, other_size)
            size, other_size = size / common, other_size / common
            stronger = _lengths(other) * other_size[:, 0] > 2 * _lengths(columns) * size[:, 0]
            frames.append(
                _frame(
                    np.where(stronger[:, None, :], other * other_size, columns * size),
                    np.where(stronger, other_floor * other_size[:, 0], floor * size[:, 0]),
                )
            )
        return [*frames, U]

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


def _lengths(a: Floats) -> Floats:
    """Norms of the columns."""
    return np.asarray(np.sqrt(np.sum(a * a, axis=-2)))


def _frame(columns: Floats, floor: Floats) -> Floats:
    """Orthonormal columns along the given ones, the longest first to lose the least; zero for those below `floor`."""
    n, r = columns.shape[-2:]
    order = np.argsort(-_lengths(columns), axis=-1, kind="stable")
    q, upper = np.linalg.qr(np.take_along_axis(columns, order[:, None, :], axis=-1))
    diagonal = np.diagonal(upper, axis1=-2, axis2=-1)
    frame, length = np.zeros_like(columns), np.zeros((len(columns), r))
    k = min(n, r)
    frame[:, :, :k] = q * np.where(diagonal < 0, -1.0, 1.0)[:, None, :]
    length[:, :k] = np.abs(diagonal)
    back = np.argsort(order, axis=-1)
    alive = np.take_along_axis(length, back, axis=-1) > floor
    return np.asarray(np.take_along_axis(frame, back[:, None, :], axis=-1) * alive[:, None, :])
