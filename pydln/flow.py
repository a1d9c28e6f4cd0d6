"""Learning dynamics of ensembles, integrated: gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import _backend, _validate
from pydln import noise as noises
from pydln import reduce as reductions
from pydln.errors import MissingExtra
from pydln.outcome import judged
from pydln.reduce.decay import Decay
from pydln.reduce.inputs import Needs
from pydln.reduce.problem import Ensemble, Group, Kernel, Whole, blocks, cast, check_fit, input_root
from pydln.task import Task
from pydln.trajectory import QUANTITIES, Status, Trajectory
from pydln.weights import Weights

__all__ = ["Stop", "gradient_descent"]

Progress = bool | Callable[[int, int], object]

_DEFAULT_RECORDS = 200
RUN_WHOLE = -1  # instead of a Status: see Group.recover


@dataclass(frozen=True, kw_only=True, eq=False)
class Stop:
    """When a member may stop before the last step; whichever holds first.

    Parameters
    ----------
    loss : float or (batch,) array, optional
        Stop when the loss is at or below this (in the task's normalisation, its floor included).
    strengths : float, (mode,) or (batch, mode) array, optional
        Stop when |u_alpha| is at or above this for every mode; NaN leaves a mode out.
    steady : float or (batch,) array, optional
        Stop after a step in which no entry of any layer moved faster than this, max |dW/dt| in units of 1/τ
        (|ΔW| / lr), and from which none will: what is left to learn, σ = ‖Σ_yx - ΩΣ_xx‖ (Frobenius), learned from a
        small start da/dt = a^(D-1) (σ - a^D), would not become faster either. The plateau of a small start and the
        saddles between modes are not steady, however slow; a network that stands still, to the last bit, is. Of
        hidden layers narrower than the task σ leaves out what they cannot learn, and weight decay w is allowed a
        residual of w in every mode. A network kept from learning in another way has a residual and runs to its end.
        Nonlinear networks are judged by their speed alone.
    """

    loss: ArrayLike | None = None
    strengths: ArrayLike | None = None
    steady: ArrayLike | None = None


def gradient_descent(
    task: Task,
    weights: Weights,
    *,
    lr: ArrayLike,
    steps: int,
    at: ArrayLike | None = None,
    record_every: int | None = None,
    record: str | Sequence[str] = ("loss", "strengths"),
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
    record : sequence of str
        Out of ``loss``, ``test_loss``, ``strengths`` (diag(UᵀΩV), signed), ``product`` (Ω), ``layer_norms``
        (Frobenius), ``kernel_distance`` (1 - ⟨K, K(0)⟩ / (‖K‖ ‖K(0)‖) of the tangent kernel K on the inputs, 0 in the
        lazy limit; in working precision, so some eps off; 0 where K is zero and stays so), ``drift``
        (‖C_l(t) - C_l(0)‖, C_l = W_{l+1}ᵀW_{l+1} - W_lW_lᵀ, conserved by gradient flow), ``weights``.
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
        Lets members stop early; they cost nothing from then on. `Trajectory.stopped_at` tells at which step.
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
    throw = _validate.flag(throw, "throw")
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
    with _progress(progress) as tick:
        interrupted = run(tick)
    trajectory = Trajectory(
        t=run.times,
        steps=run.record_at,
        records=run.records,
        status=run.status,
        stopped_at=run.stopped_at,
        final=Weights._adopt(run.final),
        settings=prepared.settings,
        source="gradient_descent",
        reduced=run.reduced,
    )
    return judged(trajectory, interrupted=interrupted, throw=throw)


class Prepared(NamedTuple):
    """A run that could begin, and what its trajectory will tell of how it was made."""

    run: _Run
    settings: dict[str, Any]


def prepare(
    task: Task,
    weights: Weights,
    *,
    lr: ArrayLike,
    steps: int,
    at: ArrayLike | None,
    record_every: int | None,
    record: str | Sequence[str],
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
            "lr": _validate.per_member(lr, "lr", dtype=dtype, above=0),
            "momentum": _validate.per_member(momentum, "momentum", dtype=dtype, at_least=0, below=1),
            "weight_decay": _validate.per_member(weight_decay, "weight_decay", dtype=dtype, at_least=0),
        }
        limits = _stop_limits(stop, modes, dtype)
        drawn = noises.check(noise, task, dtype)
    batch = _batch_with_rates(
        {
            "weights": weights.batch,
            "task": task.batch or 1,
            **{name: len(rate) for name, rate in rates.items() if rate.ndim},
            "noise": 1 if drawn is None else drawn.members,
            **_stop_members(limits),
        },
        steps,
    )
    if limits["steady"] is not None:
        limits["least_residual"] = _least_residual(task, weights.widths, dtype)
    steps = _validate.integer(steps, "steps", at_least=0, at_most=2**62 // batch)
    names = _validate.names(record, "record", QUANTITIES)
    if "test_loss" in names and task.test is None:
        raise ValueError("record: expected a task with held-out covariances for test_loss, got one whose test is None")
    threads = _backend.threads(n_threads)
    nesterov = _validate.flag(nesterov, "nesterov")
    wanted, because = _wanted(reduce, names, drawn)
    if drawn is not None and drawn.first + batch > 2**32:
        raise ValueError(f"noise.first: expected at most 2^32 members, got {batch} from {drawn.first} on")
    schedule = _Schedule.of(steps, at, record_every)
    _refuse_too_large(names, weights, batch, schedule.count, modes)
    run = _Run(
        ensemble=Ensemble(task, weights, batch),
        rates=rates,
        nesterov=nesterov,
        noise=drawn,
        limits=limits,
        schedule=schedule,
        names=names,
        wanted=wanted,
        because=because,
        threads=threads,
    )
    settings = (
        _settings(task, weights, rates, steps, stop)
        | {"nesterov": nesterov, "reduce": wanted}
        | ({} if drawn is None else drawn.settings)
    )
    return Prepared(run, settings)


def _wanted(reduce: object, names: tuple[str, ...], drawn: noises.Checked | None) -> tuple[str | tuple[str, ...], str]:
    """The reductions to look for, and why none is where the run rules them out."""
    wanted = reductions.asked(reduce)
    for there, what, because in (
        (drawn is not None, "noise", "not with noise, which is drawn for the whole networks"),
        ("kernel_distance" in names, "kernel_distance", "not with kernel_distance, which sees the whole layers"),
    ):
        if there:
            if isinstance(wanted, tuple):
                raise ValueError(f"reduce: expected auto or none with {what}, got {', '.join(wanted)}")
            return "none", because if wanted == "auto" else "not asked for"
    return wanted, "not asked for"


_TEMPORARY = 2**28  # bytes of records of reduced networks that are held beside those of the members
_AT_ONCE = 2**25  # bytes of full weights that are recovered at once


class _Run:
    """A run group by group: what the kernel calls have in common, and what they leave for the members."""

    final: list[NDArray[Any]]

    def __init__(
        self,
        *,
        ensemble: Ensemble,
        rates: dict[str, NDArray[Any]],
        nesterov: bool,
        noise: noises.Checked | None,
        limits: dict[str, NDArray[Any] | None],
        schedule: _Schedule,
        names: tuple[str, ...],
        wanted: str | tuple[str, ...],
        because: str,
        threads: int,
    ) -> None:
        self.ensemble, self.rates, self.limits, self.steps = ensemble, rates, limits, schedule.last
        self.nesterov, self.noise, self.threads = nesterov, noise, threads
        self.schedule, self.names, self.wanted, self.because = schedule, names, wanted, because
        self.status = np.full(ensemble.batch, Status.INTERRUPTED, dtype=np.int64)
        self.stopped_at = np.zeros(ensemble.batch, dtype=np.int64)
        self.reduced: dict[str, NDArray[np.bool_]] = {}
        self.final = []
        self.done = 0  # member-steps

    @property
    def times(self) -> NDArray[np.float64]:
        """When things are recorded, in τ: (time,), or (batch, time) where members have rates of their own."""
        rate = self.rates["lr"]
        rate = np.broadcast_to(rate, (self.ensemble.batch,)) if rate.ndim else rate
        return np.multiply.outer(rate.astype(np.float64), self.record_at)

    def findings(self) -> reductions.Findings:
        """How the members are to be run."""
        return reductions.find(
            self.ensemble,
            self.wanted,
            steps=self.steps,
            duration=self._duration(),
            needs=self._needs(),
            stops=any(a is not None for a in self.limits.values()),
            steady=self.limits["steady"] is not None,
            because=self.because,
        )

    def __call__(self, tick: Callable[[int, int], object] | None) -> bool:
        """Runs everything; whether Ctrl-C ended it."""
        ensemble, dtype = self.ensemble, self.ensemble.weights.dtype
        self.record_at = self.schedule.steps()
        modes = ensemble.task.modes.s.shape[-1]
        self.records: dict[str, Any] = {
            name: _empty(name, ensemble.weights, ensemble.batch, len(self.record_at), modes) for name in self.names
        }
        root = input_root(ensemble.task) if "kernel_distance" in self.names else None
        root = root if root is None else _validate.one_for_all(root, ensemble.batch, ndim=2)
        self.root = cast(_levelled(root), dtype)
        try:
            interrupted = self._groups(tick)
        except KeyboardInterrupt:  # outside the kernel, which returns what it has
            interrupted = True
        if interrupted:
            self.final = self.final or self._starts()
            begun = (self.status != Status.INTERRUPTED) & (self.status != RUN_WHOLE) | (self.stopped_at > 0)
            self._forget(np.flatnonzero(~begun))
        return interrupted

    def _groups(self, tick: Callable[[int, int], object] | None) -> bool:
        """Finds the groups and runs one after the other; whether Ctrl-C ended a call of the kernel."""
        ensemble = self.ensemble
        groups: list[Group] = self.findings().groups
        if len(groups) > 1 or not isinstance(groups[0], Whole):
            self.final = self._starts()
        while groups:
            group = groups.pop(0)
            for name in group.names:
                self.reduced.setdefault(name, np.zeros(ensemble.batch, dtype=bool))[group.members] = True
            for part in self._parts(group):
                if self._run(group, part, tick):
                    return True
                members = group.members[part]
                lost = members[self.status[members] == RUN_WHOLE]
                if lost.size:
                    groups.append(Whole(ensemble, lost))
                    self._forget(lost)
                    self.done -= self.steps * len(lost)
            self.done += self.steps * len(group.members)
        return False

    def _starts(self) -> list[NDArray[Any]]:
        """The weights that each member starts from."""
        batch = self.ensemble.batch
        return [np.array(np.broadcast_to(w, (batch, *w.shape[1:])), order="C") for w in self.ensemble.weights.layers]

    def _duration(self) -> NDArray[Any]:
        """The length of the run in τ, which momentum stretches."""
        return np.asarray(self.steps * self.rates["lr"] / (1 - self.rates["momentum"]))

    def _needs(self) -> Needs:
        return Needs(
            product="product" in self.names,
            strengths="strengths" in self.names or self.limits["strengths"] is not None,
            test="test_loss" in self.names,
            drift="drift" in self.names and bool(self.rates["weight_decay"].any()),
        )

    def _forget(self, members: NDArray[np.int64]) -> None:
        """Members as if they had not been run."""
        self.status[members], self.stopped_at[members] = Status.INTERRUPTED, 0
        for reduced in self.reduced.values():
            reduced[members] = False
        for value in self.records.values():
            for a in _arrays(value):
                a[members] = np.nan
        for w, start in zip(self.final, self.ensemble.weights.layers, strict=True):
            w[members] = start if len(start) == 1 else start[members]

    def _parts(self, group: Group) -> Iterator[NDArray[np.int64]]:
        """The members of a group, as many at once as fit beside the recording."""
        count = len(group.members)
        if isinstance(group, Whole) and count == self.ensemble.batch:
            return iter((np.arange(count),))
        weights = sum(n * m for n, m in pairwise(group.widths))
        bytes_of_one = 8 * group.networks * weights * (1 + len(self.record_at) * ("weights" in self.records))
        return blocks(count, bytes_of_one, at_once=_TEMPORARY, at_least=16 * self.threads)

    def _run(self, group: Group, part: NDArray[np.int64], tick: Callable[[int, int], object] | None) -> bool:
        """Runs `part` of the members of a group and writes what they leave; whether Ctrl-C ended the kernel's call."""
        members, batch = group.members[part], self.ensemble.batch
        everyone = len(members) == batch
        count, networks = len(members), group.networks
        dtype, times = self.ensemble.weights.dtype, len(self.record_at)
        problem = group.problem(part, test="test_loss" in self.records)
        span: Any = slice(members[0], members[-1] + 1) if members[-1] - members[0] == count - 1 else members
        target = {
            name: [a[span] for a in value] if name == "weights" else value[span] for name, value in self.records.items()
        }
        recorded = _recorded(group, group.records(self.records), target, problem.task["modes"], count, times, dtype)

        def of(values: NDArray[Any], by_mode: bool = False) -> NDArray[Any]:
            values = _validate.one_for_all(values, batch, ndim=by_mode)
            if (everyone and networks == 1) or values.ndim == by_mode:
                return values
            return np.repeat(values[members], networks, axis=0)

        def all_of(done: int, total: int) -> object:
            assert tick is not None
            return tick(self.done + int(part[0]) * self.steps + done // networks, self.steps * batch)

        core = _backend.core
        call = core.descent_f32 if dtype == np.float32 else core.descent_f64
        status = np.full(count * networks, Status.INTERRUPTED, dtype=np.int64)
        stopped_at = np.zeros(count * networks, dtype=np.int64)
        interrupted = call(
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
            stop={n: None if a is None else of(a, n == "strengths") for n, a in self.limits.items()},
            record_at=self.record_at,
            records={name: recorded.get(name) for name in QUANTITIES},
            status=status,
            stopped_at=stopped_at,
            threads=min(self.threads, count * networks),
            memory=_validate.free_memory,
            isa=_backend.isa(),
            layout=_backend.layout(),
            tick=None if tick is None else all_of,
        )
        if isinstance(group, Whole) and everyone:
            self.final, self.status, self.stopped_at = problem.weights, status, stopped_at
            return bool(interrupted)

        lr, momentum, weight_decay = (
            np.broadcast_to(self.rates[name], (batch,))[members] for name in ("lr", "momentum", "weight_decay")
        )
        decay = Decay(lr, momentum, weight_decay, self.nesterov)
        for some in blocks(count, 4 * self.ensemble.bytes_of_one, at_once=_AT_ONCE):
            rows = slice(some[0], some[-1] + 1)
            own = slice(networks * some[0], networks * (some[-1] + 1))
            kernel = Kernel(
                records={n: [a[own] for a in v] if n == "weights" else v[own] for n, v in recorded.items()},
                final=[w[own] for w in problem.weights],
                status=status[own],
                stopped_at=stopped_at[own],
            )
            out = {n: [a[rows] for a in v] if n == "weights" else v[rows] for n, v in target.items()}
            ended = group.recover(part[some], kernel, out, decay[some], self.record_at)
            chosen = members[some]
            if not isinstance(span, slice):
                for name, value in self.records.items():
                    for a, b in zip(_arrays(value), _arrays(out[name]), strict=True):
                        a[chosen] = b
            for w, now in zip(self.final, ended.final, strict=True):
                w[chosen] = now
            # Last: Ctrl-C before this leaves members that are not begun.
            self.status[chosen], self.stopped_at[chosen] = ended.status, ended.stopped_at
        return bool(interrupted)


def _levelled(root: Any) -> Any:
    """√Σ_xx of each member by a power of two, entries near 1: what is left of it in the angle between two kernels."""
    if root is None:
        return None
    e = np.frexp(np.abs(root).max(axis=(-2, -1), keepdims=True))[1]
    return np.ldexp(root, -e)


@dataclass(frozen=True)
class _Schedule:
    """Steps at which things are recorded, held so that a schedule too long to exist can still be counted."""

    last: int
    every: int
    given: NDArray[np.int64] | None

    @classmethod
    def of(cls, steps: int, at: ArrayLike | None, record_every: int | None) -> _Schedule:
        if at is not None:
            if record_every is not None:
                raise ValueError("record_every: expected None when `at` is given, got both")
            if isinstance(at, Sized) and not _validate.is_single(at):
                _validate.fits_in_memory(32 * len(at), f"at: a schedule of {len(at)} times", "record at fewer times")
            if isinstance(at, range):
                at = np.arange(at.start, at.stop, at.step)
            raw = _validate.array(at, "at", shape=("time",), at_least=0, at_most=steps)
            given = raw.astype(np.int64)
            if raw.size == 0 or (given != raw).any() or (np.diff(given) <= 0).any():
                raise ValueError(
                    "at: expected increasing whole steps, at least one, got " + np.array2string(raw, threshold=6)
                )
            return cls(steps, 1, given)
        if record_every is None:
            return cls(steps, max(1, steps // _DEFAULT_RECORDS), None)
        return cls(steps, _validate.integer(record_every, "record_every", at_least=1), None)

    @property
    def count(self) -> int:
        if self.given is not None:
            return len(self.given)
        return self.last // self.every + 1 + (self.last % self.every != 0)

    def steps(self) -> NDArray[np.int64]:
        if self.given is not None:
            return self.given
        regular = np.arange(0, self.last + 1, self.every, dtype=np.int64)
        return regular if regular[-1] == self.last else np.append(regular, np.int64(self.last))


def _stop_limits(stop: Stop | None, modes: int, dtype: np.dtype[Any]) -> dict[str, NDArray[Any] | None]:
    limits: dict[str, NDArray[Any] | None] = dict.fromkeys(("loss", "strengths", "steady"))
    if stop is None:
        return limits
    if not isinstance(stop, Stop):
        raise TypeError(f"stop: expected pydln.Stop(loss=…, strengths=…, steady=…), got {type(stop).__name__}")
    if stop.loss is not None:
        limits["loss"] = _validate.per_member(stop.loss, "stop.loss", dtype=dtype, at_least=0)
    if stop.steady is not None:
        limits["steady"] = _validate.per_member(stop.steady, "stop.steady", dtype=dtype, at_least=0)
    if stop.strengths is not None:
        wanted = _validate.array(stop.strengths, "stop.strengths", dtype=dtype, finite=False)
        if wanted.ndim > 2 or (wanted.ndim and wanted.shape[-1] != modes):
            raise ValueError(f"stop.strengths: expected a number, ({modes},) or (batch, {modes}), got {wanted.shape}")
        wrong = wanted[(wanted <= 0) | np.isinf(wanted)]
        if wrong.size or np.isnan(wanted).all(axis=-1).any():
            got = f"{wrong[0]:g}" if wrong.size else "nothing but NaN"
            raise ValueError(
                f"stop.strengths: expected numbers > 0 (NaN leaves a mode out, but not every mode), got {got}"
            )
        limits["strengths"] = np.array(np.broadcast_to(wanted, (*wanted.shape[:-1], modes)), order="C")
    return limits


def _least_residual(task: Task, widths: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """‖Σ_yx - ΩΣ_xx‖² of the best Ω of the rank that the widths allow, () or (batch,); None where they allow any.

    With P the optimum, PΣ_xx^(1/2) = U s Vᵀ: the best Ω of rank r leaves U s' Vᵀ Σ_xx^(1/2), s' without the r largest.
    """
    rank = min(widths)
    if rank >= min(widths[0], widths[-1]):
        return None
    root = input_root(task)
    if root is None:
        left = (task.modes.s[..., rank:] ** 2).sum(axis=-1)
    else:
        U, s, Vt = np.linalg.svd(task.optimum @ root, full_matrices=False)
        rest = (U[..., rank:] * s[..., None, rank:]) @ Vt[..., rank:, :] @ root
        left = (rest * rest).sum(axis=(-2, -1))
    return np.array(left, dtype=dtype, order="C")


def _stop_members(limits: dict[str, NDArray[Any] | None]) -> dict[str, int]:
    """How many members those limits have that have a batch axis, as `_batch` takes it."""
    return {f"stop.{name}": len(a) for name, a in limits.items() if a is not None and a.ndim > (name == "strengths")}


def _batch(sizes: dict[str, int]) -> int:
    """The one number of members that all arguments agree on, those of size 1 going along."""
    batch, first = 1, ""
    for name, size in sizes.items():
        if size == 1 or size == batch:
            continue
        if batch > 1:
            raise ValueError(f"{name}: expected 1 or {batch} members like {first}, got {size}")
        batch, first = size, name
    return batch


def _batch_with_rates(sizes: dict[str, int], steps: int) -> int:
    """`_batch`, but for rates that could as well be meant one for each step."""
    batch = _batch(sizes)
    if (
        batch > 1
        and isinstance(steps, int | np.integer)
        and batch == steps
        and _batch({name: n for name, n in sizes.items() if name != "lr"}) == 1
    ):
        raise ValueError(
            f"lr: expected a number, or a rate for each member of a batch, got {batch} of them for {steps} steps of "
            f"one start: rates that change from step to step are not known here; for {batch} members repeat the start, "
            f"weights[[0] * {batch}]"
        )
    return batch


def _shapes(name: str, widths: tuple[int, ...], modes: int) -> list[tuple[int, ...]]:
    """Shape of one record of one member; one per layer for ``weights``."""
    depth = len(widths) - 1
    shapes: dict[str, list[tuple[int, ...]]] = {
        "loss": [()],
        "test_loss": [()],
        "strengths": [(modes,)],
        "product": [(widths[-1], widths[0])],
        "layer_norms": [(depth,)],
        "kernel_distance": [()],
        "drift": [(depth - 1,)],
        "weights": [(n, m) for m, n in pairwise(widths)],
    }
    return shapes[name]


def _arrays(record: Any) -> list[NDArray[Any]]:
    """A record as a list: of the layers, or of the one array."""
    return record if isinstance(record, list) else [record]


def _empty(name: str, weights: Weights, batch: int, times: int, modes: int) -> Any:
    shapes = _shapes(name, weights.widths, modes)
    made = [unrecorded((batch, times, *shape), weights.dtype) for shape in shapes]
    return made if name == "weights" else made[0]


def unrecorded(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """NaN everywhere, so that Ctrl-C is seen while gigabytes are touched for the first time."""
    made = np.empty(shape, dtype=dtype)
    flat = made.reshape(-1)
    piece = max(1, _AT_ONCE // 8)
    for first in range(0, flat.size, piece):
        flat[first : first + piece] = np.nan
    return made


def _recorded(
    group: Group,
    names: Sequence[str],
    target: dict[str, Any],
    modes: int,
    members: int,
    times: int,
    dtype: np.dtype[Any],
) -> dict[str, Any]:
    """Arrays that a kernel records the networks of a group into: those of `target`, where they have the right shape."""
    recorded: dict[str, Any] = {}
    for name in names:
        shapes = _shapes(name, group.widths, modes)
        there = target.get(name, [None] * len(shapes))
        made = [
            a
            if a is not None and group.networks == 1 and a.shape[2:] == shape and a.flags.c_contiguous
            else unrecorded((members * group.networks, times, *shape), dtype)
            for a, shape in zip(there if name == "weights" else [there], shapes, strict=True)
        ]
        recorded[name] = made if name == "weights" else made[0]
    return recorded


def _refuse_too_large(
    names: tuple[str, ...],
    weights: Weights,
    batch: int,
    times: int,
    modes: int,
    less: str = "record less often (record_every=, at=)",
) -> None:
    numbers = {name: sum(_product(shape) for shape in _shapes(name, weights.widths, modes)) for name in names}
    size = batch * weights.dtype.itemsize
    recording = sum(numbers.values()) * size * times
    own = sum(_product(w.shape[1:]) for w in weights.layers) * size
    what = ", ".join(names) if names else "nothing"
    _validate.fits_in_memory(
        recording + own + 8 * times,
        f"record: {what} of {batch} members at {times} times",
        f"{less}, fewer names, or fewer members at once",
    )


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for n in shape:
        result *= n
    return result


@contextmanager
def _progress(
    progress: Progress, what: str = "gradient descent", unit: str = "step"
) -> Iterator[Callable[[int, int], object] | None]:
    if progress is False:
        yield None
    elif callable(progress):
        yield progress
    elif progress is True:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise MissingExtra.of("tqdm", "cli", "progress=True") from None
        with tqdm(unit=unit, unit_scale=True, desc=what) as bar:

            def tick(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield tick
            bar.update((bar.total or bar.n) - bar.n)
    else:
        raise TypeError(f"progress: expected True, False or a callable, got {type(progress).__name__}")


def _settings(
    task: Task | None, weights: Weights, rates: dict[str, NDArray[Any]], steps: int, stop: Stop | None
) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        a = np.asarray(value, dtype=np.float64)
        return float(a) if a.ndim == 0 else a.tolist()

    # A per-member rate of one entry stands for the whole batch; arrays follow the members when they are picked.
    return {
        **{name: plain(rate) if rate.size == 1 else rate.astype(np.float64) for name, rate in rates.items()},
        "steps": steps,
        "stop": None
        if stop is None
        else {n: plain(v) for n in ("loss", "strengths", "steady") if (v := getattr(stop, n)) is not None},
        **({} if task is None else {"task": task.name, "normalize": task.normalize, "whitened": task.whitened}),
        "depth": weights.depth,
        "widths": list(weights.widths),
        "dtype": str(weights.dtype),
        "isa": _backend.isa(),
        "version": _backend.version(),
    }
