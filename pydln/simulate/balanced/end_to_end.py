"""Gradient flow of balanced networks of any depth, through the end-to-end map alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln._base.arrays import blocks, take, transposed
from pydln._base.patience import patiently
from pydln.quantities import QUANTITIES, Sizes, State
from pydln.reduce.ensemble import Ensemble
from pydln.simulate.balanced.coordinates import Balanced, Learned, OneLayerMap, learned_by, ranks
from pydln.simulate.balanced.stepping import Reached, Recorder
from pydln.simulate.clock import times_of
from pydln.simulate.integrator import Integrator
from pydln.simulate.loop import Ends
from pydln.simulate.members import agree
from pydln.simulate.methods import Method
from pydln.simulate.progress import Progress, Tick, shown
from pydln.simulate.settings import settings_of
from pydln.simulate.stop import Limits, Stop, least_residual
from pydln.task.task import Task
from pydln.trajectory.outcome import judged
from pydln.trajectory.recording import FEWER_TIMES, Record, Recording
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory
from pydln.weights import Weights

__all__ = ["end_to_end_flow"]

Floats = NDArray[Any]
Integers = NDArray[np.int64]

RECORDS = tuple(name for name, one in QUANTITIES.items() if one.of == "map")
"""What the map tells; the rest of `QUANTITIES` belongs to layers."""

_AT_ONCE = 2**27  # bytes of maps over time that are held beside the recording


def end_to_end_flow(
    task: Task,
    product: ArrayLike,
    t: ArrayLike,
    *,
    depth: float,
    record: Record = ("loss", "strengths"),
    method: str | Method = "tsit5",
    rtol: float | None = None,
    atol: float = 0.0,
    step: float | None = None,
    max_step: float | None = None,
    max_steps: int = 100_000,
    stop: Stop | None = None,
    throw: bool = True,
    progress: Progress = False,
) -> Trajectory:
    """Gradient flow of balanced deep linear networks, W_{l+1}ᵀW_{l+1} = W_lW_lᵀ, without their layers.

        dΩ/dt = Σ_{j=1}^{D} (ΩΩᵀ)^{(D-j)/D} E (ΩᵀΩ)^{(j-1)/D},   E = Σ_yx - ΩΣ_xx

    (Arora, Cohen & Hazan 2018, theorem 1; t in units of τ.) The number of operations depends neither on the depth nor
    on hidden widths, which must only reach the rank of Ω(0). This is for real depths, for ranks and determinants that
    must be kept and for singular values far apart, not for speed: every stage takes eigenvectors, in NumPy, where
    `gradient_flow` multiplies layers in a compiled kernel. From orthogonal starts of width 20 it took 29 times as long
    as that at depth 4, 18 times at 10, 5 times at 30 and 1.6 times at 100; of width 50, 35 times at depth 10; in
    batches of eight of width 20, 25, 9 and 2 times at depths 4, 10 and 30.

    In the singular basis of Ω = U diag(σ) Vᵀ entry (i, k) of UᵀEV is multiplied by (σ_i² - σ_k²) / (σ_i^{2/D} -
    σ_k^{2/D}), by D σ_i^{2-2/D} where these are equal: a form in which any real D >= 2 has a meaning. What is
    integrated is smooth where singular values meet, and keeps the rank of Ω and the sign of its determinant, which a
    balanced flow of two and more layers cannot change: singular values reach zero only in
    infinite time, and those that are zero stay. Singular values of any size are followed to `rtol` of themselves.

    Parameters
    ----------
    task : Task
        What is learned.
    product : (n_D, n_0) or (batch, n_D, n_0) array
        Ω at t = 0. A single one is used for every member of a batched task, and a single task for every one. Singular
        values count as zero where D >= 2 if they are rounding: below max(n_0, n_D) eps of the terms of uᵀΩv. One along
        the axes exists however small it is; what is rounding stays zero here, while layers would learn from it.
    t : (time,) array
        Times to record at, in units of τ = 1/lr, >= 0 and increasing; the run ends at the last.
    depth : float
        D, the number of weight matrices: 1 or a number >= 2. (Between 1 and 2 the equation has more than one solution
        from a singular start.)
    record : sequence of str
        Out of ``loss``, ``test_loss``, ``strengths`` (diag(UᵀΩV) with U, V of the task, signed), ``product``,
        ``singular_values``, ``effective_rank``, ``alignment``, as in `gradient_descent`.
    method : {"tsit5", "dopri5", "dop853", "rk4"} or Method
        Runge–Kutta method, as in `gradient_flow`.
    rtol, atol : float
        Error of a step that is tolerated. With two and more layers, a_i = σ_i^{1/D}: atol + rtol √(a_i a_k) in entry
        (i, k) of M = diag(a), which has the size of a layer, and atol + rtol in the entries of singular vectors. With
        one layer: atol + rtol max |Ω|. rtol is 1e-8 by default.
    step, max_step, max_steps, throw
        As in `gradient_flow`. No steps are made any more by a member that rests: nothing in it moves visibly in the
        time left, or Σ_yx - ΩΣ_xx is rounding, and nothing grows. One that keeps moving, as a mode of strength 0 that
        decays as a power of t, takes steps for ever and is given up as stiff.
    stop : Stop, optional
        As in `gradient_flow`. What ``steady`` bounds with two and more layers is the largest singular value of dW_l/dt
        in any layer, which the map tells; entries, which depend on hidden bases, are at most that. Left to learn is
        what the rank of Ω, which it keeps, allows: plateaus and saddles on the way are not steady.
    progress : bool or callable
        As in `gradient_flow`.

    Returns
    -------
    Trajectory
        As that of `gradient_flow`, in float64. `Trajectory.final` is None: there are no layers.
        ``settings["rank"]`` is the rank of Ω(0), (batch,), which Ω keeps where D >= 2.

    Raises
    ------
    TypeError, ValueError
        A wrong argument, before any work is done; also when the recording would not fit in memory.
    IntegrationError
        Members were given up and `throw` is true; ``.trajectory`` holds everything that was computed.
    Interrupted
        Ctrl-C; ``.trajectory`` holds everything that was computed.

    See Also
    --------
    pydln.singular_flow : the singular values and vectors along the same flow.
    pydln.init.balanced : the layers of a network that moves so.
    """
    how = Integrator(method, rtol, atol, step, max_step, max_steps, np.dtype(np.float64))
    throw = validate.flag(throw, "throw")
    return EndToEndRun(task, product, t, depth, record, how, stop).recorded("end_to_end_flow", throw, progress)


class EndToEndRun:
    """Maps and what they learn, checked, and what became of them."""

    def __init__(
        self,
        task: Task,
        product: ArrayLike,
        t: ArrayLike,
        depth: float,
        record: object,
        how: Integrator,
        stop: Stop | None,
    ) -> None:
        self.maps, self.depth = maps_of(task, product), depth_of(depth)
        self.task, self.how, self.times = task, how, times_of(t)
        self.stop, self.limits = stop, Limits.of(stop, task.modes.s.shape[-1], how.dtype)
        self.batch = agree({"product": self.maps.batch, "task": task.batch or 1, **self.limits.members})
        self.recording = Recording.of(
            record, known=("product",), offered=RECORDS, because=", which belongs to layers", task=task, weights=None
        )
        self.ended = Ends(self.batch)
        self.learned, self.basis = learned_by(task)
        omega = self.maps.layers[0]
        self.turned = omega if self.basis is None else omega @ self.basis
        self.U, self.sigma, Vt = patiently(np.linalg.svd, self.turned, full_matrices=False)
        self.V = transposed(Vt)
        self.rank = np.broadcast_to(ranks(self.turned, self.U, self.sigma, Vt), (self.batch,))
        self.done = 0

    @property
    def settings(self) -> dict[str, Any]:
        """What the trajectory tells."""
        depth = int(self.depth) if self.depth == int(self.depth) else self.depth
        own = {"depth": depth, "rank": np.array(self.rank)}
        return settings_of(self.task, self.maps, self.stop) | self.how.settings | own

    def unturned(self, columns: Floats, members: Integers) -> Floats:
        """Maps, or rows, in the input coordinates of the task."""
        if self.basis is None:
            return columns
        basis = self.basis if len(self.basis) == 1 else self.basis[members]
        return np.asarray(columns @ transposed(basis))

    def recorded(self, source: str, throw: bool, progress: Progress, also: Recorder | None = None) -> Trajectory:
        """Follows everybody; `also` is shown what is recorded: coordinates, members, indices of times, states."""
        recording, task, batch, times = self.recording, self.task, self.batch, self.times
        shape = self.maps.layers[0].shape[1:]
        sizes = Sizes(self.maps.widths, task.modes.s.shape[-1])
        recording.refuse_too_large(self.maps, sizes, batch, len(times), FEWER_TIMES)
        ensemble = Ensemble(task, self.maps, batch)
        records = recording.empty(recording.names, sizes, batch, len(times), np.float64)
        size = 8 * shape[1] * (shape[0] + shape[1] * (self.basis is not None and len(self.basis) > 1))
        interrupted = False
        with shown(progress, "end-to-end flow", "record") as tick:
            for members in blocks(batch, ensemble.bytes_of_one * (len(times) + 1), at_once=_AT_ONCE, at_least=16):
                kept = np.full((len(members), len(times), *shape), np.nan)

                def write(
                    path: Balanced | OneLayerMap,
                    which: Integers,
                    at: Integers,
                    y: Floats,
                    kept: Floats = kept,
                    first: int = int(members[0]),
                ) -> None:
                    for some in blocks(len(at), size):
                        kept[which[some] - first, at[some]] = self.unturned(path.product(y[some]), which[some])
                    if also is not None:
                        also(path, which, at, y)

                try:
                    self._follow(members, write, tick)
                except KeyboardInterrupt:
                    interrupted = True
                span = slice(members[0], members[-1] + 1)
                if "product" in records:
                    records["product"][span] = kept
                recording.derive({"product": kept}, {name: a[span] for name, a in records.items()}, task, members, [])
                if interrupted:
                    break
        made = Trajectory(
            t=times,
            steps=None,
            records=records,
            status=self.ended.status,
            stopped_time=self.ended.stopped_at,
            integrator_steps=self.ended.accepted,
            rejected=self.ended.rejected,
            settings=self.settings,
            source=source,
        )
        return judged(made, interrupted=interrupted, throw=throw)

    def _follow(self, members: Integers, record: Recorder, tick: Tick | None) -> None:
        """Consecutive members, those of one rank together."""
        for rank in np.unique(self.rank[members]):
            own = members[self.rank[members] == rank]

            def seen(path: Any, which: Integers, at: Integers, y: Floats, own: Integers = own) -> None:
                record(path, own[which], at, y)

            def told(done: int, _: int, before: int = self.done) -> object:
                assert tick is not None
                return tick(before + done, self.batch * len(self.times))

            ended = Ends(len(own))
            reached = self._reached(own) if self.limits.any else None
            try:
                self.how.following(self.times, ended, None if tick is None else told, reached)(
                    *self._start(own, int(rank)), seen
                )
            finally:
                self.ended.take(own, ended)
            self.done += len(own) * len(self.times)

    def _reached(self, own: Integers) -> Reached:
        """Which condition members, places in `own`, meet; the first of those that several do."""
        everybody = self.limits.of_everybody(self.batch, self.task.modes.s.shape[-1])
        limits = {name: limit for name, limit in everybody.items() if limit is not None}
        rank = int(self.rank[own[0]])
        least = least_residual(self.task, (self.task.n_in, rank, self.task.n_out), np.dtype(np.float64))
        least = np.broadcast_to(0.0 if least is None else least, (self.batch,))

        def reached(path: Balanced | OneLayerMap, which: Integers, y: Floats) -> Integers:
            members = own[which]
            met = np.full(len(members), -1)
            if "steady" in limits:
                speed = (
                    path.speed(y)
                    if isinstance(path, Balanced)
                    else np.abs(self.unturned(path.product(path.slope(y)), members)).max(axis=(1, 2))
                )
                limit = limits["steady"][members]
                slow = speed <= limit
                if isinstance(path, Balanced) and slow.any():
                    left = np.sum(path.residual(y) ** 2, axis=(1, 2))
                    # Nothing becomes faster any more that stands still or has learned all that its rank allows.
                    slow &= (speed == 0) | (attainable_speed(left, least[members], self.depth) <= limit)
                met[slow] = Status.STEADY
            if "loss" in limits or "strengths" in limits:
                now = State(self.task, members, omega=self.unturned(path.product(y), members))
                if "strengths" in limits:
                    wanted = limits["strengths"][members]
                    there = np.isnan(wanted) | (np.abs(QUANTITIES["strengths"].define(now)) >= wanted)
                    met[there.all(axis=1)] = Status.REACHED_STRENGTH
                if "loss" in limits:
                    met[QUANTITIES["loss"].define(now) <= limits["loss"][members]] = Status.REACHED_LOSS
            return met

        return reached

    def _start(self, members: Integers, rank: int) -> tuple[OneLayerMap | Balanced, Floats]:
        shape, count = self.maps.layers[0].shape[1:], len(members)
        learned = self.learned.of(members)
        if self.depth == 1 or not rank:
            omega = np.broadcast_to(take(self.turned, members), (count, *shape))
            # Without singular values nothing moves: as if nothing was learned.
            path = OneLayerMap(learned if self.depth == 1 else Learned(np.zeros((1, *shape)), None), shape)
            return path, np.array(omega.reshape(count, -1))
        U, sigma, V = (
            np.broadcast_to(a, (count, *a.shape[1:]))
            for a in (take(a[..., :rank], members) for a in (self.U, self.sigma, self.V))
        )
        balanced = Balanced(learned, shape, rank, self.depth)
        return balanced, balanced.start(U, sigma, V)


def attainable_speed(square: Floats, least: Floats, depth: float) -> Floats:
    """The largest speed of layers that learn what is left from a small balanced start, da/dt = a^(D-1) (σ - a^D).

    It is where a^D = σ (D-1)/(2D-1). σ² is ‖E‖² less what cannot be learned of it, `least`, which blurs the difference.
    """
    left = square - least
    sigma = np.sqrt(np.where(left > 2.0**-46 * least, left, 0.0))
    at = sigma * (depth - 1) / (2 * depth - 1)
    return np.asarray(sigma * depth / (2 * depth - 1) * at ** ((depth - 1) / depth))


def depth_of(depth: float) -> float:
    """D, checked."""
    result = validate.number(depth, "depth", at_least=1)
    if 1 < result < 2:
        raise ValueError(f"depth: expected 1 or a number >= 2, got {result:g}")
    return result


def maps_of(task: Task, product: ArrayLike) -> Weights:
    """Ω(0), checked against the task: networks of one layer."""
    validate.instance(task, "task", Task)
    if isinstance(product, Weights):
        raise TypeError("product: expected an array, got Weights: weights.product() is theirs, if they are balanced")
    omega = validate.array(product, "product")
    shape = (task.n_out, task.n_in)
    if omega.ndim not in (2, 3) or omega.shape[-2:] != shape or not omega.size:
        raise ValueError(
            f"product: expected {shape} or (batch, {shape[0]}, {shape[1]}) like the task, got {omega.shape}"
        )
    return Weights._adopt([np.array(omega.reshape(-1, *shape))])
