"""Gradient flow of ensembles of whole networks, integrated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import reduce as reductions
from pydln._base import backend, validate
from pydln._base.arrays import Integers
from pydln.quantities import QUANTITIES
from pydln.reduce.decay import Decay
from pydln.reduce.ensemble import Ensemble, Group, Problem, Whole, check_fit
from pydln.reduce.find import ruled_out
from pydln.reduce.inputs import Needs
from pydln.simulate.balanced.layers import BalancedGroup, balanced_groups
from pydln.simulate.clock import times_of
from pydln.simulate.integrator import Integrator
from pydln.simulate.loop import Ends, Loop
from pydln.simulate.members import agree
from pydln.simulate.methods import Method
from pydln.simulate.progress import Progress, Tick, shown
from pydln.simulate.settings import settings_of
from pydln.simulate.stop import Limits, Stop
from pydln.task.task import Task
from pydln.trajectory.outcome import judged
from pydln.trajectory.recording import FEWER_TIMES, Record, Recording, unrecorded
from pydln.trajectory.trajectory import Trajectory
from pydln.weights import Weights

__all__ = ["gradient_flow"]

_KNOWN = ("loss", "test_loss", "strengths", "product", "layer_norms", "drift", "weights")


def gradient_flow(
    task: Task,
    weights: Weights,
    t: ArrayLike,
    *,
    record: Record = ("loss", "strengths"),
    method: str | Method = "tsit5",
    rtol: float | None = None,
    atol: float = 0.0,
    step: float | None = None,
    max_step: float | None = None,
    max_steps: int = 100_000,
    stop: Stop | None = None,
    reduce: str | Sequence[str] = "auto",
    n_threads: int | None = None,
    throw: bool = True,
    progress: Progress = False,
) -> Trajectory:
    """Gradient flow of an ensemble of deep linear networks: gradient descent in the limit of small learning rates.

        dW_l/dt = -∂L/∂W_l = (W_D ⋯ W_{l+1})ᵀ (Σ_yx - ΩΣ_xx) (W_{l-1} ⋯ W_1)ᵀ

    (Saxe, McClelland & Ganguli 2013, eq. 3, with t in units of τ). Every member chooses its own steps: the result does
    not depend on what else is in the batch.

    Parameters
    ----------
    task : Task
        What is learned.
    weights : Weights
        The starts, at t = 0. Float32 weights are integrated in float32, float64 in float64. A single start is used for
        every member of a batched task, and a single task for every start.
    t : (time,) array
        Times to record at, in units of τ = 1/lr, >= 0 and increasing; the run ends at the last.
    record : str, mapping or sequence of these
        As in `gradient_descent`; ``drift`` then tells how well conserved quantities were kept.
    method : {"tsit5", "dopri5", "dop853", "rk4"} or Method
        Runge–Kutta method: order 5 (Tsitouras; Dormand & Prince), order 8 for small tolerances, Kutta's of order 4 with
        steps of fixed length, or a tableau of one's own. Between the long steps of order 8 the interpolant, of order 7,
        can be a hundred times further off than the steps.
    rtol, atol : float
        Error of a step that is tolerated: in every entry of W_l at most atol + rtol max |W_l|. Relative alone by
        default, so that starts of any scale are followed as faithfully; rtol is 1e-8, in float32 1e-4. What grows
        unseen below it, a mode of 1e-100 beside one that is learned, is followed as well: near a saddle steps are no
        longer than its growth allows (`Method.growth`), that of the linearised flow or what ‖Σ_yx - ΩΣ_xx‖₂ allows.
    step : float, optional
        The first step, in τ, if nothing grows unseen that is too fast for it; the length of all with ``rk4``. By
        default a hundredth of the time in which the start moves by its own size.
    max_step : float, optional
        No step is longer than this, in τ.
    max_steps : int
        Steps, kept and rejected, after which a member is given up. None are made any more by one that has come to rest:
        where its slope is what rounding leaves of it and nothing grows in the time left, or where a step as long as
        they get leaves every bit as it is. A saddle rests where what could leave it is exactly zero.
    stop : Stop, optional
        Lets members stop at the moment when they get there, which is found between steps on the interpolant.
    reduce : str or sequence of str
        Smaller networks that follow the same flow, as in `gradient_descent`: ``auto``, ``none``, or out of ``inputs``,
        ``width`` and ``decoupled``. Or, by name alone, ``balanced``: the product and the hidden frames of balanced
        starts of two and more layers, see `balanced.layers`, without `stop`. It keeps rank, balance and the sign
        of the determinant where rounding would end them, and takes longer: `end_to_end_flow` is what saves time.
        Reduced networks make steps of their own, so that results agree to the tolerance of the integration.
    n_threads : int, optional
        Threads over the batch; the result does not depend on it. Default: PYDLN_NUM_THREADS, or all processors.
    throw : bool
        Raise `IntegrationError` for members that did not get to the end; otherwise their `Status` says so.
    progress : bool or callable
        As in `gradient_descent`, in records instead of steps.

    Returns
    -------
    Trajectory
        ``t`` as given, ``steps`` and ``stopped_step`` None, ``stopped_time`` where each member stopped, in τ, and
        ``integrator_steps`` and ``rejected``, the steps that it made and rejected.
        Entries after a member stopped are NaN.

    Raises
    ------
    TypeError, ValueError
        A wrong argument, before any work is done; also when the recording would not fit in memory, or a reduction asked
        for by name does not hold for a member.
    IntegrationError
        Members were given up and `throw` is true; ``.trajectory`` holds everything that was computed.
    Interrupted
        Ctrl-C; ``.trajectory`` holds everything that was computed.
    """
    check_fit(task, weights)
    dtype = weights.dtype
    limits = Limits.of(stop, task.modes.s.shape[-1], dtype)
    batch = agree({"weights": weights.batch, "task": task.batch or 1, **limits.members})
    limits = limits.reached_by(task, weights.widths, dtype)
    times = times_of(t)
    wanted = reductions.asked(reduce, also=("balanced",))
    known = ("weights",) if wanted == ("balanced",) else _KNOWN
    recording = Recording.of(record, known=known, task=task, weights=weights)
    how = Integrator(method, rtol, atol, step, max_step, max_steps, dtype)
    threads, throw = backend.threads(n_threads), validate.flag(throw, "throw")
    wanted, because = ruled_out(wanted, recording.quantities)
    run = _Flow(Ensemble(task, weights, batch), recording, times, threads, how, limits, wanted, because)
    recording.refuse_too_large(weights, run.sizes, batch, len(times), FEWER_TIMES)
    with shown(progress, "gradient flow", "record") as tick:
        interrupted = run(tick)
    made = Trajectory(
        t=times,
        steps=None,
        records=run.records,
        status=run.ends.status,
        stopped_time=run.ends.stopped_at,
        integrator_steps=run.ends.accepted,
        rejected=run.ends.rejected,
        final=Weights._adopt(run.final),
        settings=settings_of(task, weights, stop) | how.settings | {"reduce": wanted},
        source="gradient_flow",
        reduced=run.reduced,
    )
    return judged(made, interrupted=interrupted, throw=throw)


class _Flow(Loop):
    """Gradient flow, group by group."""

    temporary = 2**27

    def __init__(
        self,
        ensemble: Ensemble,
        recording: Recording,
        times: NDArray[np.float64],
        threads: int,
        how: Integrator,
        limits: Limits,
        wanted: str | tuple[str, ...],
        because: str,
    ) -> None:
        super().__init__(ensemble, recording, times, threads, Ends(ensemble.batch))
        self.how, self.limits, self.wanted, self.because = how, limits, wanted, because

    @property
    def work(self) -> int:
        """Records."""
        return len(self.at)

    def groups(self) -> list[Group]:
        """Reduced groups, those that are asked for as ``balanced``, or everybody."""
        # Never in ``auto``: with 8 to 256 units, 4 to 100 layers, a step takes 3 to 50 times as long as the kernel's.
        if self.wanted == ("balanced",):
            return [*balanced_groups(self.ensemble, stops=self.limits.any)]
        if self.wanted == "none":
            return [Whole(self.ensemble, np.arange(self.ensemble.batch))]
        names = self.recording.sources
        return reductions.find(
            self.ensemble,
            self.wanted,
            # Slopes: some tens of steps, and one for every few records.
            steps=self.how.method.stages * (50 + len(self.at) // 4),
            duration=self.at.max(axis=-1, initial=0.0),
            needs=Needs(
                product="product" in names,
                strengths="strengths" in names or self.limits.strengths is not None,
                test="test_loss" in names,
            ),
            stops=self.limits.any,
            steady=self.limits.steady is not None,
            because=self.because,
        ).groups

    def times_held(self, group: Group) -> int:
        """Balanced networks are followed through their layers whatever is recorded."""
        return len(self.at) if isinstance(group, BalancedGroup) else super().times_held(group)

    def decay(self, members: Integers) -> Decay:
        """Without weight decay, what no gradient reaches stays as it is."""
        zero = np.zeros(len(members), dtype=self.ensemble.weights.dtype)
        return Decay(zero, zero, zero)

    def call(
        self, group: Group, part: Integers, problem: Problem, records: dict[str, Any], ends: Ends, tick: Tick | None
    ) -> bool:
        """The kernel; balanced networks are followed in NumPy."""
        if isinstance(group, BalancedGroup):
            return self._follow(group, part, problem, records, ends, tick)
        dtype, members = self.ensemble.weights.dtype, group.members[part]
        core = backend.core
        return bool(
            (core.flow_f32 if dtype == np.float32 else core.flow_f64)(
                weights=problem.weights,
                task=problem.task,
                test=problem.test,
                **self.how.kernel(self.at),
                stop=self.limits.of_networks(members, group.networks, self.ensemble.batch),
                records={name: records.get(name) for name in QUANTITIES},
                **ends.of(np.arange(len(ends.status))),
                threads=self.threads,
                memory=validate.free_memory,
                isa=backend.isa(),
                layout=backend.layout(),
                tick=tick,
            )
        )

    def _follow(
        self,
        group: BalancedGroup,
        part: Integers,
        problem: Problem,
        records: dict[str, Any],
        ends: Ends,
        tick: Tick | None,
    ) -> bool:
        shape, dtype = (len(part), len(self.at)), self.ensemble.weights.dtype
        kept = records.get("weights") or [unrecorded((*shape, n, m), dtype) for m, n in pairwise(group.widths)]
        try:
            group.follow(part, kept, problem.weights, self.how.following(self.at, ends, tick))
        except KeyboardInterrupt:
            return True
        return False
