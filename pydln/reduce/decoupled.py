"""Reduction "decoupled": in an aligned start every mode is a network of one unit a layer.

With Σ_xx V = V diag(d) (whitened inputs: d = 1) and W_l = Σ_k a_lk r_{l+1,k} r_lkᵀ + C_l, orthonormal r, r_1 = V,
r_{D+1} = U, the gradient stays in the modes and mode k descends as D numbers with Σ_xx = d_k, Σ_yx = s_k:
W_l(t) = Σ_k a_lk(t) r_{l+1,k} r_lkᵀ + c(t) C_l, where C_l, what is outside the modes, only decays. A mode that has died
on the way from both sides is zero in two layers, has no gradient, and needs no frame between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from pydln._base.arrays import Floats, Integers, blocks, dots, lengths, sizes, take, transposed
from pydln.reduce.decay import Decay
from pydln.reduce.ensemble import RUN_WHOLE, Ensemble, KernelResult, Problem, cast, diagonal_input, upward
from pydln.reduce.growth import alone
from pydln.reduce.orthogonal import orthonormal
from pydln.reduce.projected import in_blocks
from pydln.reduce.width import tolerance_of
from pydln.trajectory.status import Status

__all__ = ["Decoupled", "Frames", "Growing", "aligned_frames", "carried", "crossed", "growing"]


@dataclass(frozen=True, eq=False)
class Growing:
    """What grows in a hidden layer along each mode, (places, modes) each: see `pydln.reduce.growth`."""

    kept: Floats  # |a_l ± a_{l+1}|
    out: Floats  # |W_l r - a_l r'| + |W_{l+1}ᵀ r'' - a_{l+1} r'|
    rates: Floats

    def share(self, duration: Floats, eps: float) -> Floats:
        """How much of each mode, at the end, what is left out may be: see `alone`."""
        return alone(self.kept, self.out, self.rates, duration, eps)

    def of(self, some: Integers) -> Growing:
        """Some of the places."""
        return Growing(self.kept[some], self.out[some], self.rates[some])


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of some members, one entry for all or one each, and how far the start is from being aligned."""

    places: Integers
    frames: list[Floats]  # D + 1 of (places, n_l, modes): R_1 … R_{D+1}; zero columns where a mode has died
    variances: Floats  # (places, modes): d
    misaligned: Floats  # (places,) largest |W_l r - a r'| and |W_lᵀ r' - a r|, relative as in `tolerance_of`
    holds: Floats  # (places,) bool
    growing: list[Growing] = field(default_factory=list)  # of the hidden layers
    course: list[Floats] = field(
        default_factory=list
    )  # a_1 … a_D, then what is beside them and s, (places, modes) each

    def of(self, some: Integers) -> Frames:
        """Some of the places that hold."""
        return replace(
            self,
            places=self.places[some],
            frames=[R[some] for R in self.frames],
            variances=self.variances[some],
            growing=[one.of(some) for one in self.growing],
            course=[a[some] for a in self.course],
        )

    def ratio(self, duration: Floats, eps: float) -> Floats:
        """`overtaken` of what is beside the modes, the worst of all hidden layers."""
        depth = len(self.frames) - 1
        a, beside, s = self.course[:depth], self.course[depth:-1], self.course[-1]
        shares = [crossed(a, beside, s, duration), *(one.share(duration, eps) for one in self.growing)]
        return np.asarray(np.sqrt(np.sum(np.square(shares), axis=-1)).max(axis=0))


def aligned_frames(ensemble: Ensemble, members: Integers) -> Frames:
    """Hidden frames carried from V and from U, mode by mode from whichever side is alive.

    Members that fail early are not followed further; their `misaligned` is what they failed with.
    """
    depth = ensemble.weights.depth
    tolerance = tolerance_of(ensemble)
    U, _, V = ensemble.modes(members)
    layers = [ensemble.layer(k, members) for k in range(1, depth + 1)]
    count = max(len(U), len(layers[0]))
    U, V = (np.broadcast_to(a, (count, *a.shape[1:])) for a in (U, V))
    misaligned = np.zeros(count)
    variances, correlated = np.ones((count, V.shape[-1])), np.zeros((count, V.shape[-1]))
    if not ensemble.task.whitened:
        xx = ensemble.of_task("sigma_xx", members)
        turned = xx @ V
        variances = dots(V, turned)
        rounding = dots(np.abs(V), np.abs(xx) @ np.abs(V))
        variances = np.where(variances > V.shape[1] * np.finfo(np.float64).eps * rounding, variances, 0.0)
        largest = sizes(np.broadcast_to(xx, (count, *xx.shape[1:])))
        correlated = lengths(turned - V * variances[:, None, :]) / np.where(largest > 0, largest, 1.0)[:, None]
        misaligned = correlated.max(axis=1)

    # The first layer already tells almost every start that is not aligned: W_1 V must have orthogonal columns. The
    # product tells those with orthogonal layers: W_D ⋯ W_1 V must have its columns along U.
    alive = np.flatnonzero(misaligned <= tolerance)
    if depth > 1 and alive.size:
        columns = take(layers[0], alive) @ V[alive]
        size = np.broadcast_to(sizes(take(layers[0], alive)), (len(alive),))
        misaligned[alive] = np.maximum(misaligned[alive], _coupled(transposed(columns) @ columns, size**2))
        still = np.flatnonzero(misaligned[alive] <= tolerance)
        alive, columns, size = alive[still], columns[still], size[still]
        for layer in layers[1:]:
            W = take(layer, alive)
            columns, size = W @ columns, size * sizes(W)
        worst = _coupled(transposed(U[alive]) @ columns, size)
        misaligned[alive] = np.where(worst > depth * tolerance, worst, misaligned[alive])
        alive = np.flatnonzero(misaligned <= tolerance)
    holds = np.zeros(count, dtype=bool)
    if not alive.size:
        return Frames(np.arange(count), [], variances, misaligned, holds)

    own = [take(W, alive) for W in layers]
    frames = _frames(own, U[alive], V[alive], tolerance)
    residual, aligned = np.zeros(len(alive)), np.ones(len(alive), dtype=bool)
    for R in frames[1:-1]:  # columns carried from V beside columns carried from U
        residual = np.maximum(residual, _coupled(transposed(R) @ R, np.ones(len(alive))))
    strengths: list[Floats] = []
    rest: list[Floats] = []  # beside the modes, forwards and backwards through every layer
    for W, before, after in zip(own, frames[:-1], frames[1:], strict=True):
        for M, x, y in ((W, before, after), (transposed(W), after, before)):
            a = dots(y, M @ x)
            known = lengths(x) > 0
            # The frames are orthogonal to rounding of their whole columns. Whether so little matters is for `growing`.
            scale = np.maximum(lengths(np.abs(M) @ np.abs(x)), sizes(M)[:, None])
            # A mode whose frame ends here leaves nothing behind but noise.
            beside = lengths(M @ x - y * a[:, None, :])
            off = np.where(known, beside, 0.0) / np.where(scale > 0, scale, 1.0)
            residual = np.maximum(residual, off.max(axis=1))
            rest.append(beside)
        strengths.append(a)
    aligned &= residual <= tolerance
    # Beside the modes the start may have something, but not from an input all the way to an output.
    if V.shape[-1] < min(V.shape[1], U.shape[1]) or depth == 1:
        W_in, W_out = own[0], own[-1]
        beside_in = W_in - W_in @ V[alive] @ transposed(V[alive])
        beside_out = W_out - U[alive] @ (transposed(U[alive]) @ W_out)
        if depth == 1:
            reach = sizes(beside_in) + sizes(beside_out)
        else:
            reach = np.minimum(sizes(beside_in) / _or_one(sizes(W_in)), sizes(beside_out) / _or_one(sizes(W_out)))
        reach = reach / _or_one(sizes(W_in)) if depth == 1 else reach
        residual = np.maximum(residual, reach)
        aligned &= reach <= tolerance
    misaligned[alive] = np.maximum(misaligned[alive], residual)
    holds[alive[aligned]] = True
    good = np.flatnonzero(holds)
    s = np.broadcast_to(ensemble.modes(members)[1], variances.shape)[alive]
    hidden = [R.shape[1] for R in frames[1:-1]]
    grow = growing(strengths, rest, s, variances[alive], correlated[alive], hidden)
    found = Frames(good, [R[aligned] for R in frames], variances[good], misaligned, holds)
    chosen = np.flatnonzero(aligned)
    return replace(found, growing=[one.of(chosen) for one in grow], course=[a[chosen] for a in (*strengths, *rest, s)])


def growing(
    strengths: list[Floats],
    rest: list[Floats],
    s: Floats,
    variances: Floats,
    correlated: Floats,
    hidden: Sequence[int],
) -> list[Growing]:
    """Layer by layer and, as the error changes, at the start and with nothing learned; all arrays (places, modes).

    A mode beyond its target comes back to it before anything has grown by more than it shrinks: no error then. A mode
    that finds every unit of a layer taken by stronger ones has no direction of its own to grow in: what is beside it
    shrinks once these are learned, and until then it grows less than they do.
    """
    found = []
    largest = np.max([np.abs(a).max(axis=1) for a in strengths], axis=0)[:, None]
    for error in (np.maximum(s - variances * np.prod(strengths, axis=0), 0.0), s):
        for k in range(len(strengths) - 1):
            a, b = strengths[k], strengths[k + 1]
            seen = error * np.prod([*strengths[:k], *strengths[k + 2 :], np.ones_like(a)], axis=0)
            kept = np.where(seen < 0, a - b, a + b)
            # A mode whose inputs correlate with those of another has that one's error in its own.
            out = rest[2 * k] + rest[2 * k + 3] + correlated * largest
            found.append(Growing(_with_the_taken(np.abs(kept), s, hidden[k]), out, np.abs(seen)))
    return found


def crossed(strengths: list[Floats], rest: list[Floats], s: Floats, duration: Floats) -> Floats:
    """How far a mode of three and more layers is learned by the way of another, beside s^(1/D): (places, modes).

    Its inputs and outputs may meet in the hidden layers of a weaker mode that is ahead: W_1 v along r_1 of that mode
    and W_Dᵀ u along its last r grow from rounding at the rate (s - u') ∏ a', while the mode itself takes
    ln(b/a)/(s ∏ b) until its outer layers a are as large as the inner ones b, and 1/(D-2) of 1/(s ∏ b) from there.
    """
    depth = len(strengths)
    if depth < 3:
        return np.zeros(s.shape)
    size = np.abs(strengths)
    hidden, u = np.prod(size[1:-1], axis=0), np.prod(size, axis=0)
    kept, out = np.maximum(size[0], size[-1]), np.max(rest, axis=0)
    own = s * hidden
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # of modes without strengths
        alone_takes = (np.log(np.maximum(1.0, hidden ** (1 / (depth - 2)) / kept)) + 1 / (depth - 2)) / own
    takes = np.minimum(np.where(own > 0, alone_takes, np.inf), duration[:, None])
    by_s, of_s = s[:, :, None], s[:, None, :]
    weaker, ahead = (by_s > 0) & (by_s < of_s), takes[:, :, None] < takes[:, None, :]
    now = (of_s - np.minimum(u[:, :, None], by_s)) * hidden[:, :, None]
    later = np.where(ahead, (of_s - by_s) * by_s ** (1 - 2 / depth), 0.0)
    rate = np.where(weaker, np.maximum(now, later), 0.0).max(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        grown = np.exp(np.minimum(np.where(rate > 0, rate * takes, 0.0), 700.0))
    return np.where(rate > 0, out * grown / np.where(s > 0, s, 1.0) ** (1 / depth), 0.0)


def _with_the_taken(kept: Floats, s: Floats, units: int) -> Floats:
    """`kept`; of a mode that has nothing, what the least has of as many stronger modes as there are units."""
    if units >= kept.shape[1]:
        return kept
    order = np.argsort(-np.where(kept > 0, s, -np.inf), axis=1, kind="stable")[:, :units]
    taken, strength = (np.take_along_axis(a, order, axis=1) for a in (kept, s))
    full = (taken > 0).all(axis=1, keepdims=True) & (s <= strength.min(axis=1, keepdims=True))
    return np.where((kept == 0) & full, taken.min(axis=1, keepdims=True), kept)


def _coupled(matrices: Floats, size: Floats) -> Floats:
    """The largest entry off the diagonal of every matrix, relative to `size`."""
    off = matrices - np.eye(matrices.shape[-1]) * np.diagonal(matrices, axis1=1, axis2=2)[:, None, :]
    return np.asarray(np.abs(off).max(axis=(1, 2)) / np.where(size > 0, size, 1.0))


def _frames(layers: list[Floats], U: Floats, V: Floats, tolerance: float) -> list[Floats]:
    ahead, frame = [], U
    for W in layers[:0:-1]:
        frame = carried(transposed(W), frame, tolerance)
        ahead.append(frame)
    frames = [V]
    for W in layers[:-1]:
        frame = carried(W, frames[-1], tolerance)
        other = ahead.pop()
        frames.append(np.where(lengths(frame)[:, None, :] > 0, frame, other))
    return [*frames, U]


def carried(W: Floats, frame: Floats, tolerance: float) -> Floats:
    """Orthonormal columns along W @ frame, the longest first to lose the least; zero for those that are rounding."""
    return orthonormal(W @ frame, 4 * tolerance * lengths(np.abs(W) @ np.abs(frame)))


def _or_one(a: Floats) -> Floats:
    return np.where(a == 0, 1.0, a)


@dataclass(frozen=True, eq=False)
class Decoupled:
    """Modes as networks of their own, those of a member one after the other."""

    ensemble: Ensemble
    members: Integers
    frames: list[Floats]  # of these members
    variances: Floats
    names: tuple[str, ...] = ("decoupled",)

    @property
    def networks(self) -> int:
        """Modes of the task."""
        return int(self.frames[0].shape[-1])

    @property
    def widths(self) -> tuple[int, ...]:
        """One everywhere."""
        return (1,) * len(self.frames)

    def _start(self, part: Integers) -> list[Floats]:
        """a_l, (members, modes) each, in working precision."""
        members, dtype = self.members[part], self.ensemble.weights.dtype
        frames = [take(R, part) for R in self.frames]
        return [
            dots(after, self.ensemble.layer(k, members) @ before).astype(dtype)
            for k, (before, after) in enumerate(pairwise(frames), 1)
        ]

    def problem(self, part: Integers, *, test: bool) -> Problem:
        """Networks 1-1-…-1 with Σ_xx = d, Σ_yx = s; their loss is measured from the vertex of each parabola."""
        members, dtype = self.members[part], self.ensemble.weights.dtype
        count, r = len(part), self.networks
        s = np.broadcast_to(self.ensemble.modes(members)[1], (count, r)).reshape(-1, 1, 1)
        weights = [np.empty((count, r), dtype=dtype) for _ in pairwise(self.frames)]
        for some in blocks(count, self.ensemble.bytes_of_one):
            for a, start in zip(weights, self._start(part[some]), strict=True):
                a[some] = start
        d = np.broadcast_to(take(self.variances, part), (count, r)).reshape(-1, 1, 1)
        whitened = self.ensemble.task.whitened
        deviation, target = (
            np.broadcast_to(x, (count, r)).reshape(-1, 1, 1)
            for x in self._parabolas(members, take(self.frames[-1], part), take(self.frames[0], part))
        )
        one = np.ones((1, 1), dtype=dtype)
        task = {
            **({"sigma_xx": None, "variances": None} if whitened else diagonal_input(d[:, 0], dtype)),
            "sigma_yx": cast(s, dtype),
            "root": None,
            "deviations": None if whitened else cast(deviation[:, 0], dtype),
            "target": None if whitened else cast(target, dtype),
            "floor": np.zeros((), dtype=dtype),
        }
        return Problem(
            weights=[a.reshape(-1, 1, 1) for a in weights],
            task=task | {"modes": 1, "mode_u": one, "mode_v": one},
            test=None,
        )

    def records(self, names: Iterable[str]) -> tuple[str, ...]:
        """Strengths tell everything about Ω; the layers are kept for whatever else is asked, and for an interrupt."""
        return ("loss", "strengths", "weights")

    def recover(
        self, part: Integers, kernel: KernelResult, out: dict[str, Any], decay: Decay, at: Floats
    ) -> KernelResult:
        """The sum of the modes; members of which a mode diverged or was given up are left to be run whole."""
        members, count, r = self.members[part], len(part), self.networks
        status, stopped_at = kernel.status.reshape(count, r), kernel.stopped_at.reshape(count, r)
        a = [w.reshape(count, r, len(at)).swapaxes(1, 2) for w in kernel.records["weights"]]
        a_final = [w.reshape(count, r).copy() for w in kernel.final]
        u = kernel.records["strengths"].reshape(count, r, len(at)).swapaxes(1, 2)
        loss = kernel.records["loss"].reshape(count, r, len(at)).swapaxes(1, 2)
        own_status, own_stop = status[:, 0].copy(), stopped_at.min(axis=1)
        diverged = np.isin(status, (Status.DIVERGED, Status.STEP_LIMIT, Status.STIFF)).any(axis=1)
        broken = (status == Status.INTERRUPTED).any(axis=1)
        own_status[broken] = Status.INTERRUPTED
        own_status[diverged] = RUN_WHOLE
        start = self._start(part)
        if broken.any():
            # The modes of a member were broken off at different steps: all have made the records up to the first of
            # these, and the last such record is where the member counts as stopped.
            u, a = u.copy(), [x.copy() for x in a]
            loss = loss.copy()
            for i in np.flatnonzero(broken):
                made = np.isfinite(a[0][i]).all(axis=1)
                last = int(np.flatnonzero(made)[-1]) if made.any() else None
                for x in (u, loss, *a):
                    x[i, ~made] = np.nan
                own_stop[i] = 0 if last is None else at[last]
                for x_final, x, x_start in zip(a_final, a, start, strict=True):
                    x_final[i] = np.broadcast_to(x_start, (count, r))[i] if last is None else x[i, last]
        frames = [take(R, part) for R in self.frames]
        c = decay.factors(at) if decay.any else None
        c_final = decay.factors(own_stop[:, None])[:, 0] if decay.any else None
        layers = [self.ensemble.layer(k, members) for k in range(1, len(self.frames))]
        with np.errstate(all="ignore"):
            self._write(part, out, u.astype(np.float64), loss, a, start, frames, layers, c)
            final = []
            for W, x, x_start, before, after in zip(layers, a_final, start, frames[:-1], frames[1:], strict=True):
                factor = np.ones(count) if c_final is None else c_final
                moved = x.astype(np.float64) - factor[:, None] * x_start
                whole = factor[:, None, None] * W + (after * moved[:, None, :]) @ transposed(before)
                final.append(np.ascontiguousarray(whole, dtype=x.dtype))
        return KernelResult(records={}, final=final, status=own_status, stopped_at=own_stop)

    def _write(
        self,
        part: Integers,
        out: dict[str, Any],
        u: Floats,
        loss: Floats,
        a: list[Floats],
        start: list[Floats],
        frames: list[Floats],
        layers: list[Floats],
        c: Floats | None,
    ) -> None:
        U, V = frames[-1], frames[0]
        if "loss" in out:
            excess = np.ascontiguousarray(loss, dtype=np.float64).sum(axis=-1)
            self._write_loss(out["loss"], excess, self._floor(part, U, V))
        if "test_loss" in out:
            self._write_loss(out["test_loss"], *self._test_loss(self.members[part], u, U, V))
        if "strengths" in out:
            out["strengths"][...] = u
        if "product" in out:
            for some, times in in_blocks(out["product"].shape):
                scaled = _own(U, some)[:, None] * u[some, times, None, :]
                out["product"][some, times] = scaled @ transposed(_own(V, some))[:, None]
        factor = np.ones((1, 1)) if c is None else c
        rest = [
            W - (after * x.astype(np.float64)[:, None, :]) @ transposed(before)
            for W, x, before, after in zip(layers, start, frames[:-1], frames[1:], strict=True)
        ]
        squares = [x.astype(np.float64) ** 2 for x in a]
        if "layer_norms" in out:
            for k, (square, C) in enumerate(zip(squares, rest, strict=True)):
                outside = sizes(C)[:, None] * factor
                out["layer_norms"][:, :, k] = np.sqrt(np.ascontiguousarray(square).sum(axis=-1) + outside**2)
        if "drift" in out:
            first = [x.astype(np.float64) ** 2 for x in start]
            for k in range(len(layers) - 1):
                change = (squares[k + 1] - squares[k]) - (first[k + 1] - first[k])[:, None, :]
                below, above = rest[k], rest[k + 1]
                gone = sizes(transposed(above) @ above - below @ transposed(below))[:, None] * (factor**2 - 1)
                out["drift"][:, :, k] = np.sqrt(np.ascontiguousarray(change**2).sum(axis=-1) + gone**2)
        if "weights" in out:
            for k, (before, after) in enumerate(pairwise(frames)):
                target = out["weights"][k]
                for some, times in in_blocks(target.shape):
                    own = np.broadcast_to(factor, a[k].shape[:2])[some, times, None]
                    moved = a[k][some, times].astype(np.float64) - own * _own(start[k], some)[:, None]
                    target[some, times] = (
                        own[..., None] * _own(layers[k], some)[:, None]
                        + (_own(after, some)[:, None] * moved[:, :, None, :]) @ transposed(_own(before, some))[:, None]
                    )

    def _parabolas(self, members: Integers, U: Floats, V: Floats, *, test: bool = False) -> tuple[Floats, Floats]:
        """√q = |Aᵀv| and b = uᵀBAᵀv/√q, (1 or members, modes): L = floor + 1/2 |B - ΩA|² = L(b/√q) + 1/2 Σ (b - √q u)².

        Modes do not mix as U is orthonormal. b is no more than |Bᵀu| where q is rounding, which s/√d need not be.
        """
        root, target = self.ensemble.squares(members, test=test)
        right = V if root is None else transposed(root) @ V
        size, meets = np.broadcast_arrays(lengths(right), dots(U, target @ right))
        return size, np.divide(meets, size, out=np.zeros_like(meets), where=size > 0)

    def _floor(self, part: Integers, U: Floats, V: Floats) -> Floats:
        """The loss at the vertices of all parabolas, (1 or members, 1)."""
        members = self.members[part]
        size, b = self._parabolas(members, U, V)
        return self._loss_at(members, np.divide(b, size, out=np.zeros_like(b), where=size > 0), U, V)

    def _loss_at(self, members: Integers, u: Floats, U: Floats, V: Floats, *, test: bool = False) -> Floats:
        """L = floor + 1/2 |B - ΩA|² at Ω = U diag(u) Vᵀ."""
        root, target = self.ensemble.squares(members, test=test)
        floor = self.ensemble.of_task("floor", members, test=test)
        right = transposed(V) if root is None else transposed(V) @ root
        return np.asarray(floor + 0.5 * sizes(target - (U * u[:, None, :]) @ right) ** 2)[:, None]

    def _test_loss(self, members: Integers, u: Floats, U: Floats, V: Floats) -> tuple[Floats, Floats]:
        """What lies above the vertices of the held-out parabolas, and the loss there."""
        size, b = self._parabolas(members, U, V, test=True)
        square = np.ascontiguousarray((b[:, None, :] - size[:, None, :] * u) ** 2)
        best = np.divide(b, size, out=np.zeros_like(b), where=size > 0)
        return 0.5 * square.sum(axis=-1), self._loss_at(members, best, U, V, test=True)

    @staticmethod
    def _write_loss(out: Floats, excess: Floats, floor: Floats) -> None:
        out[...] = excess + floor
        np.maximum(out, upward(floor, out.dtype), out=out)  # NaN stays


def _own(a: Floats, members: slice) -> Floats:
    return a if len(a) == 1 else a[members]
