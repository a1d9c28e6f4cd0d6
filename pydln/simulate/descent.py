"""Gradient descent of ensembles of whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import reduce as reductions
from pydln._base import backend, validate
from pydln._base.arrays import Integers
from pydln.quantities import QUANTITIES
from pydln.reduce.decay import Decay
from pydln.reduce.ensemble import Ensemble, Group, Problem, cast, check_fit
from pydln.reduce.find import ruled_out
from pydln.reduce.inputs import Needs
from pydln.simulate import noise as noises
from pydln.simulate.clock import Schedule
from pydln.simulate.loop import Ends, Loop
from pydln.simulate.members import agree_with_rates
from pydln.simulate.progress import Progress, Tick, shown
from pydln.simulate.settings import settings_of
from pydln.simulate.stop import Limits, Stop
from pydln.task.inputs import input_root
from pydln.task.task import Task
from pydln.trajectory.outcome import judged
from pydln.trajectory.recording import Record, Recording
from pydln.trajectory.trajectory import Trajectory
from pydln.weights import Weights

__all__ = ["Descent", "Prepared", "gradient_descent", "prepare"]

_KNOWN = ("loss", "test_loss", "strengths", "product", "layer_norms", "kernel_distance", "drift", "weights")


def gradient_descent(
    task: Task,
    weights: Weights,
    *,
    lr: ArrayLike,
    steps: int,
    at: ArrayLike | None = None,
    record_every: int | None = None,
    record: Record = ("loss", "strengths"),
    momentum: ArrayLike = 0.0,
    nesterov: bool = False,
    weight_decay: ArrayLike = 0.0,
    noise: noises.Noise | None = None,
    stop: Stop | None = None,
    reduce: str | Sequence[str] = "auto",
    n_threads: int | None = None,
    throw: bool = True,
    progress: Progress = False,
) -> Trajectory:
    """Gradient descent of an ensemble of deep linear networks: full-batch, or stochastic with `noise`.

    Every step moves each layer down the gradient of L = 1/2 <|y - Ωx|²>, Ω = W_D ⋯ W_1,

        -∂L/∂W_l = (W_D ⋯ W_{l+1})ᵀ (Σ_yx - ΩΣ_xx) (W_{l-1} ⋯ W_1)ᵀ

    (Saxe, McClelland & Ganguli 2013, eq. 3), by W_l ← W_l - lr ∂L/∂W_l, or with momentum μ and weight decay w by
    v ← μv - (∂L/∂W + wW), W ← W + lr v, v = 0 at first; with Nesterov's momentum W ← W + lr (μv - (∂L/∂W + wW)).

    Parameters
    ----------
    task : Task
        What is learned; its normalisation (averages or sums over samples) scales the loss, and so the meaning of `lr`.
    weights : Weights
        The starts. Float32 weights are trained in float32, float64 in float64. A single start is used for every member
        when `task`, `lr` or another argument has several; so is a single task.
    lr : float or (batch,) array
        Learning rate η, > 0; an array is a rate for each member, not for each step. Where nothing but the rates says
        how many members there are, as many rates as steps are refused.
    steps : int
        Number of steps, >= 0.
    at : 1-D array of int, optional
        Steps at which to record, increasing, within 0 … `steps`.
    record_every : int, optional
        Record at 0, k, 2k, … and at the last step. Without `at` and `record_every`, about 200 evenly spaced steps.
    record : str, mapping or sequence of these
        Out of ``loss``, ``test_loss``, ``strengths`` (diag(UᵀΩV), signed), ``product`` (Ω), ``layer_norms``
        (Frobenius), ``kernel_distance`` (1 - ⟨K, K(0)⟩ / (‖K‖ ‖K(0)‖) of the tangent kernel K on the inputs, 0 in the
        lazy limit; in working precision, so some eps off; 0 where K is zero and stays so), ``drift``
        (‖C_l(t) - C_l(0)‖, C_l = W_{l+1}ᵀW_{l+1} - W_lW_lᵀ, conserved by gradient flow), ``weights``;
        and, worked out from Ω or the layers, ``singular_values`` (σ of Ω), ``effective_rank`` (exp of the entropy of
        σ/Σσ), ``alignment`` (uᵀΩv / √(‖Ωv‖ ‖Ωᵀu‖): ±1 where a mode is a pair of singular vectors of Ω), ``balance``
        (‖C_l‖), ``representations`` ((W_l ⋯ W_1)ᵀ W_l ⋯ W_1 of every hidden layer), ``kernel_alignment``
        (⟨y, Ky⟩ / (‖K‖ ‖y‖²), y the least-squares map on the inputs), ``sharpness`` (λ_max of the loss's Hessian, by
        Lanczos: costs more than many steps). See `pydln.quantities`. Or functions of one's own, ``{"name": f}``:
        ``f(weights, task)`` gets the members that are numbers at that time as a batch and gives (members, …) numbers,
        of which ``run.name`` is (batch, time, …). It is called for the first member beforehand.
    momentum : float or (batch,) array
        μ, 0 <= μ < 1: heavy-ball unless `nesterov`.
    nesterov : bool
        Nesterov's momentum, in the form that deep-learning libraries use (Sutskever et al. 2013).
    weight_decay : float or (batch,) array
        w >= 0.
    noise : Minibatch, Online or LabelNoise, optional
        Stochastic gradients: samples drawn at every step in place of the task's covariances, or noise on its labels.
        Not with reductions by name; ``auto`` makes none.
    stop : Stop, optional
        Lets members stop early; they cost nothing from then on. `Trajectory.stopped_step` tells at which step.
    reduce : str or sequence of str
        Smaller networks that take the same steps, chosen for every member by itself: ``auto`` takes those that hold to
        rounding and spare more work than finding them costs, ``none`` none; names are applied or refused.
        ``inputs``: coordinates in which Σ_xx is diagonal, without input directions that never move. ``width``: hidden
        layers in the subspaces in which they move. ``decoupled``: aligned starts mode by mode (not with `stop`). No
        ``inputs`` and ``width`` with `Stop.steady`, which looks at single entries of the layers, and none at all with
        ``kernel_distance``, which sees the whole layers. Results agree to
        rounding, everything recorded and `Trajectory.final` are those of the whole networks, and
        `Trajectory.reduced` says what was done. See `pydln.reduce`.
    n_threads : int, optional
        Threads over the batch; the result does not depend on it. Default: PYDLN_NUM_THREADS, or all processors.
    throw : bool
        Raise `IntegrationError` when members diverged; otherwise their `Status` says so.
    progress : bool or callable
        True shows a bar (extra ``cli``); a callable gets (member-steps done, in all) now and then.

    Returns
    -------
    Trajectory
        ``t`` = steps × lr, in units of τ = 1/lr: (time,), or (batch, time) when `lr` is an array. Entries after a
        member stopped are NaN. Divergence (a loss that is not finite) is looked for wherever something is recorded, at
        every 32nd step, and at every step if `stop` is given.

    Raises
    ------
    TypeError, ValueError
        A wrong argument, before any work is done; also when the recording would not fit in memory, or a reduction asked
        for by name does not hold for a member.
    IntegrationError
        Members diverged and `throw` is true; ``.trajectory`` holds everything that was computed.
    Interrupted
        Ctrl-C; a KeyboardInterrupt whose ``.trajectory`` holds everything that was computed: weights of whole steps,
        and at a step that was broken off the records made until then. It is answered within a tenth of a second of
        work, however long a step takes, and what it takes to recover the weights of members that were reduced.
    """
    throw = validate.flag(throw, "throw")
    prepared = prepare(
        task,
        weights,
        lr=lr,
        steps=steps,
        at=at,
        record_every=record_every,
        record=record,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        noise=noise,
        stop=stop,
        reduce=reduce,
        n_threads=n_threads,
    )
    run = prepared.run
    with shown(progress, "gradient descent", "step") as tick:
        interrupted = run(tick)
    trajectory = Trajectory(
        t=run.times,
        steps=run.at,
        records=run.records,
        status=run.ends.status,
        stopped_step=run.ends.stopped_at,
        stopped_time=run.stopped_time,
        final=Weights._adopt(run.final),
        settings=prepared.settings,
        source="gradient_descent",
        reduced=run.reduced,
    )
    return judged(trajectory, interrupted=interrupted, throw=throw)


class Prepared(NamedTuple):
    """A run that could begin, and what its trajectory will tell of how it was made."""

    run: Descent
    settings: dict[str, Any]


def prepare(
    task: Task,
    weights: Weights,
    *,
    lr: ArrayLike,
    steps: int,
    at: ArrayLike | None,
    record_every: int | None,
    record: Record,
    momentum: ArrayLike,
    nesterov: bool,
    weight_decay: ArrayLike,
    noise: noises.Noise | None,
    stop: Stop | None,
    reduce: str | Sequence[str],
    n_threads: int | None,
) -> Prepared:
    """Arguments of `gradient_descent`, checked; nothing is run."""
    check_fit(task, weights)
    dtype = weights.dtype
    modes = task.modes.s.shape[-1]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as that
        rates = {
            "lr": validate.per_member(lr, "lr", dtype=dtype, above=0),
            "momentum": validate.per_member(momentum, "momentum", dtype=dtype, at_least=0, below=1),
            "weight_decay": validate.per_member(weight_decay, "weight_decay", dtype=dtype, at_least=0),
        }
        limits = Limits.of(stop, modes, dtype)
        drawn = noises.check(noise, task, dtype)
    batch = agree_with_rates(
        {
            "weights": weights.batch,
            "task": task.batch or 1,
            **{name: len(rate) for name, rate in rates.items() if rate.ndim},
            "noise": 1 if drawn is None else drawn.members,
            **limits.members,
        },
        steps,
    )
    limits = limits.reached_by(task, weights.widths, dtype)
    steps = validate.integer(steps, "steps", at_least=0, at_most=2**62 // batch)
    recording = Recording.of(record, known=_KNOWN, task=task, weights=weights)
    threads = backend.threads(n_threads)
    nesterov = validate.flag(nesterov, "nesterov")
    wanted, because = ruled_out(reductions.asked(reduce), recording.quantities, noise=drawn is not None)
    if drawn is not None and drawn.first + batch > 2**32:
        raise ValueError(f"noise.first: expected at most 2^32 members, got {batch} from {drawn.first} on")
    schedule = Schedule.of(steps, at, record_every)
    run = Descent(
        Ensemble(task, weights, batch),
        recording,
        schedule,
        threads,
        rates=rates,
        nesterov=nesterov,
        noise=drawn,
        limits=limits,
        wanted=wanted,
        because=because,
    )
    recording.refuse_too_large(weights, run.sizes, batch, schedule.count)
    settings = (
        settings_of(task, weights, stop, rates, steps)
        | {"nesterov": nesterov, "reduce": wanted}
        | ({} if drawn is None else drawn.settings)
    )
    return Prepared(run, settings)


class Descent(Loop):
    """Gradient descent, group by group."""

    def __init__(
        self,
        ensemble: Ensemble,
        recording: Recording,
        schedule: Schedule,
        threads: int,
        *,
        rates: dict[str, NDArray[Any]],
        nesterov: bool,
        noise: noises.Checked | None,
        limits: Limits,
        wanted: str | tuple[str, ...],
        because: str,
    ) -> None:
        super().__init__(ensemble, recording, np.zeros(0), threads, Ends(ensemble.batch, np.int64))
        self.schedule, self.steps, self.rates = schedule, schedule.last, rates
        self.nesterov, self.noise, self.limits = nesterov, noise, limits
        self.wanted, self.because = wanted, because
        self.root: NDArray[Any] | None = None

    @property
    def work(self) -> int:
        """Steps."""
        return self.steps

    @property
    def times(self) -> NDArray[np.float64]:
        """When things are recorded, in τ: (time,), or (batch, time) where members have rates of their own."""
        rate = self.rates["lr"]
        rate = np.broadcast_to(rate, (self.ensemble.batch,)) if rate.ndim else rate
        return np.multiply.outer(rate.astype(np.float64), self.at)

    @property
    def stopped_time(self) -> NDArray[np.float64]:
        """Where members stopped, in τ."""
        return self.rates["lr"].astype(np.float64) * self.ends.stopped_at

    def __call__(self, tick: Tick | None) -> bool:
        """Runs everything; whether Ctrl-C ended it."""
        self.at = self.schedule.steps()
        task = self.ensemble.task
        if "kernel_distance" in self.recording.native and not task.whitened:
            root = validate.one_for_all(np.asarray(input_root(task)), self.ensemble.batch, ndim=2)
            self.root = cast(_levelled(root), self.ensemble.weights.dtype)
        return super().__call__(tick)

    def findings(self) -> reductions.Findings:
        """How the members are to be run."""
        names = self.recording.sources
        return reductions.find(
            self.ensemble,
            self.wanted,
            steps=self.steps,
            # Momentum stretches the run.
            duration=np.asarray(self.steps * self.rates["lr"] / (1 - self.rates["momentum"])),
            needs=Needs(
                product="product" in names,
                strengths="strengths" in names or self.limits.strengths is not None,
                test="test_loss" in names,
                drift="drift" in names and bool(self.rates["weight_decay"].any()),
            ),
            stops=self.limits.any,
            steady=self.limits.steady is not None,
            because=self.because,
        )

    def groups(self) -> list[Group]:
        """What was found."""
        return self.findings().groups

    def decay(self, members: Integers) -> Decay:
        """By the rates of members."""
        lr, momentum, weight_decay = (
            np.broadcast_to(self.rates[name], (self.ensemble.batch,))[members]
            for name in ("lr", "momentum", "weight_decay")
        )
        return Decay(lr, momentum, weight_decay, self.nesterov)

    def call(
        self, group: Group, part: Integers, problem: Problem, records: dict[str, Any], ends: Ends, tick: Tick | None
    ) -> bool:
        """The kernel."""
        members, networks, batch = group.members[part], group.networks, self.ensemble.batch

        def of(values: NDArray[Any]) -> NDArray[Any]:
            values = validate.one_for_all(values, batch)
            if (len(members) == batch and networks == 1) or not values.ndim:
                return values
            return np.repeat(values[members], networks, axis=0)

        core = backend.core
        return bool(
            (core.descent_f32 if self.ensemble.weights.dtype == np.float32 else core.descent_f64)(
                weights=problem.weights,
                task=problem.task,
                test=problem.test,
                root=self.root,
                lr=of(self.rates["lr"]),
                momentum=of(self.rates["momentum"]) if self.rates["momentum"].any() else None,
                decay=of(self.rates["weight_decay"]) if self.rates["weight_decay"].any() else None,
                nesterov=self.nesterov,
                noise=None if self.noise is None else self.noise.of(members, batch),
                steps=self.steps,
                stop=self.limits.of_networks(members, networks, batch),
                record_at=self.at,
                records={name: records.get(name) for name in QUANTITIES},
                status=ends.status,
                stopped_at=ends.stopped_at,
                threads=min(self.threads, len(ends.status)),
                memory=validate.free_memory,
                isa=backend.isa(),
                layout=backend.layout(),
                tick=tick,
            )
        )


def _levelled(root: NDArray[Any]) -> NDArray[Any]:
    """√Σ_xx of each member by a power of two, entries near 1: what is left of it in the angle between two kernels."""
    e = np.frexp(np.abs(root).max(axis=(-2, -1), keepdims=True))[1]
    return np.asarray(np.ldexp(root, -e))
