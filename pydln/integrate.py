"""Gradient flow of ensembles of whole networks, integrated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import _backend, _validate
from pydln import reduce as reductions
from pydln.balanced_layers import BalancedGroup, balanced_groups
from pydln.exact.tangent_kernel import kernel_distance
from pydln.flow import (
    RUN_WHOLE,
    Progress,
    Stop,
    _arrays,
    _batch,
    _empty,
    _least_residual,
    _progress,
    _recorded,
    _refuse_too_large,
    _settings,
    _shapes,
    _stop_limits,
    _stop_members,
)
from pydln.methods import METHODS, Method
from pydln.methods import method as method_named
from pydln.outcome import judged
from pydln.reduce.decay import Decay
from pydln.reduce.inputs import Needs
from pydln.reduce.problem import (
    NDIM,
    Ensemble,
    Group,
    Kernel,
    Problem,
    Whole,
    blocks,
    check_fit,
    input_root,
    transposed,
)
from pydln.stepping import Coordinates, Reached, Recorder, follow
from pydln.task import Task
from pydln.trajectory import QUANTITIES, Status, Trajectory
from pydln.weights import Weights

__all__ = ["gradient_flow"]

_AT_ONCE = 2**27  # bytes of weights over time that are held beside the recording
FEWER_TIMES = "record at fewer times"
_BY_KERNEL = ("loss", "test_loss", "strengths", "product", "layer_norms")


def gradient_flow(
    task: Task,
    weights: Weights,
    t: ArrayLike,
    *,
    record: str | Sequence[str] = ("loss", "strengths"),
    method: str = "tsit5",
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
    record : sequence of str
        As in `gradient_descent`; ``drift`` then tells how well conserved quantities were kept.
    method : {"tsit5", "dopri5", "dop853", "rk4"}
        Runge–Kutta method, see `pydln.methods`: order 5 (Tsitouras; Dormand & Prince), order 8 for small tolerances, or
        Kutta's of order 4 with steps of fixed length. Between the long steps of order 8 the interpolant, of order 7,
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
        starts of two and more layers, see `pydln.balanced_layers`, without `stop`. It keeps rank, balance and the sign
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
        ``t`` as given, ``steps`` None, ``stopped_at`` the number of steps of each member,
        ``settings["stopped_time"]`` the time where it stopped, in τ, and ``settings["rejected"]`` its rejected steps.
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
    dtype, modes = weights.dtype, task.modes.s.shape[-1]
    limits = _stop_limits(stop, modes, dtype)
    batch = _batch({"weights": weights.batch, "task": task.batch or 1, **_stop_members(limits)})
    if limits["steady"] is not None:
        limits["least_residual"] = _least_residual(task, weights.widths, dtype)
    times = _times(t)
    names = _validate.names(record, "record", QUANTITIES)
    if "test_loss" in names and task.test is None:
        raise ValueError("record: expected a task with held-out covariances for test_loss, got one whose test is None")
    how = _Integrator(method, rtol, atol, step, max_step, max_steps, dtype)
    threads, throw = _backend.threads(n_threads), _validate.flag(throw, "throw")
    wanted = reductions.asked(reduce, also=("balanced",))
    if "kernel_distance" in names:
        if isinstance(wanted, tuple):
            raise ValueError(f"reduce: expected auto or none with kernel_distance, got {', '.join(wanted)}")
        wanted = "none"
    _refuse_too_large(names, weights, batch, len(times), modes, FEWER_TIMES)

    records = {name: _empty(name, weights, batch, len(times), modes) for name in names}
    run = _Run(Ensemble(task, weights, batch), how, times, limits, records, threads)
    with _progress(progress, "gradient flow", "record") as tick:
        interrupted = run(wanted, tick)
    made = Trajectory(
        t=times,
        steps=None,
        records=records,
        status=run.ended.status,
        stopped_at=run.ended.accepted,
        final=Weights._adopt(run.final),
        settings=_settings(task, weights, {}, 0, stop) | how.settings | run.ended.settings | {"reduce": wanted},
        source="gradient_flow",
        reduced=run.reduced,
    )
    return judged(made, interrupted=interrupted, throw=throw)


class _Ended:
    """How every member ended."""

    def __init__(self, batch: int) -> None:
        self.status = np.full(batch, Status.INTERRUPTED, dtype=np.int64)
        self.stopped_time = np.zeros(batch)
        self.accepted = np.zeros(batch, dtype=np.int64)
        self.rejected = np.zeros(batch, dtype=np.int64)

    def of(self, members: NDArray[np.int64]) -> dict[str, Any]:
        """Views of consecutive members, for the kernel to write into."""
        span = slice(members[0], members[-1] + 1)
        return {
            "status": self.status[span],
            "stopped_at": self.stopped_time[span],
            "accepted": self.accepted[span],
            "rejected": self.rejected[span],
        }

    def take(self, members: NDArray[np.int64], other: _Ended) -> None:
        """How `members` ended, from those who are all of `other`."""
        self.status[members], self.stopped_time[members] = other.status, other.stopped_time
        self.accepted[members], self.rejected[members] = other.accepted, other.rejected

    def forget(self, members: NDArray[np.int64]) -> None:
        """Members that are not begun."""
        self.status[members], self.stopped_time[members] = Status.INTERRUPTED, 0
        self.accepted[members], self.rejected[members] = 0, 0

    @property
    def settings(self) -> dict[str, Any]:
        return {"stopped_time": self.stopped_time, "rejected": self.rejected}


class _Integrator:
    """A method with its tolerances, checked; called, it runs networks."""

    def __init__(
        self,
        method: str,
        rtol: float | None,
        atol: float,
        step: float | None,
        max_step: float | None,
        max_steps: int,
        dtype: np.dtype[Any],
    ) -> None:
        self.method: Method = method_named(_validate.choice(method, "method", METHODS))
        self.dtype = dtype
        default = 1e-8 if dtype == np.float64 else 1e-4
        eps = float(np.finfo(dtype).eps)
        self.rtol = default if rtol is None else _validate.number(rtol, "rtol", at_least=0)
        self.atol = _validate.number(atol, "atol", at_least=0)
        if self.rtol < 4 * eps and self.atol == 0:
            raise ValueError(f"rtol: expected at least {4 * eps:.2g} in {dtype} where atol is 0, got {self.rtol:g}")
        self.step = None if step is None else _validate.number(step, "step", above=0)
        self.max_step = None if max_step is None else _validate.number(max_step, "max_step", above=0)
        self.max_steps = _validate.integer(max_steps, "max_steps", at_least=1, at_most=2**62)
        if not len(self.method.error) and self.step is None:
            raise ValueError(f"step: expected the length of the steps of {method}, got None")

    @property
    def settings(self) -> dict[str, Any]:
        adaptive = {"rtol": self.rtol, "atol": self.atol} if len(self.method.error) else {}
        limits = {"step": self.step, "max_step": self.max_step, "max_steps": self.max_steps}
        return {"method": self.method.name, **adaptive, **limits}

    def following(
        self,
        times: NDArray[np.float64],
        ended: _Ended,
        tick: Callable[[int, int], object] | None,
        reached: Reached | None = None,
    ) -> Callable[[Coordinates, NDArray[Any], Recorder], None]:
        """`pydln.stepping.follow` with coordinates, starts and a recorder left open; `tick` gets records."""

        def run(path: Coordinates, y: NDArray[Any], record: Recorder) -> None:
            done = 0

            def seen(path: Any, which: NDArray[np.int64], at: NDArray[np.int64], y: NDArray[Any]) -> None:
                nonlocal done
                record(path, which, at, y)
                done += len(at)
                if tick is not None:
                    tick(done, len(times))

            with np.errstate(all="ignore"):  # a step too long may lead anywhere, and is not kept
                follow(
                    path,
                    y,
                    times,
                    self.method,
                    rtol=self.rtol,
                    atol=self.atol,
                    step=self.step,
                    max_step=self.max_step,
                    max_steps=self.max_steps,
                    ended=ended.of(np.arange(len(y))),
                    record=seen,
                    reached=reached,
                )

        return run

    def kernel(self, times: NDArray[np.float64]) -> dict[str, Any]:
        """What the kernels take."""
        return {
            "method": self.method.kernel(max(self.rtol + self.atol, 1e-15)),
            "rtol": self.rtol,
            "atol": self.atol,
            "step": self.step or 0.0,
            "max_step": self.max_step or 0.0,
            "max_steps": self.max_steps,
            "record_at": times,
        }

    def __call__(
        self,
        problem: Problem,
        times: NDArray[np.float64],
        records: dict[str, Any],
        ended: dict[str, Any],
        *,
        stop: dict[str, Any],
        threads: int,
        tick: Callable[[int, int], object] | None,
    ) -> bool:
        core = _backend.core
        call = core.flow_f32 if self.dtype == np.float32 else core.flow_f64
        return bool(
            call(
                weights=problem.weights,
                task=problem.task,
                test=problem.test,
                **self.kernel(times),
                stop=stop,
                records={name: records.get(name) for name in QUANTITIES},
                **ended,
                threads=threads,
                memory=_validate.free_memory,
                isa=_backend.isa(),
                layout=_backend.layout(),
                tick=tick,
            )
        )


class _Run:
    """A run group by group: what is common to the calls of the kernel, and what they leave for the members."""

    def __init__(
        self,
        ensemble: Ensemble,
        how: _Integrator,
        times: NDArray[np.float64],
        limits: dict[str, NDArray[Any] | None],
        records: dict[str, Any],
        threads: int,
    ) -> None:
        self.ensemble, self.how, self.times, self.limits = ensemble, how, times, limits
        self.records, self.threads = records, threads
        self.root = input_root(ensemble.task) if "kernel_distance" in records else None
        self.ended = _Ended(ensemble.batch)
        self.final = [
            np.array(np.broadcast_to(w, (ensemble.batch, *w.shape[1:])), order="C") for w in ensemble.weights.layers
        ]
        self.reduced: dict[str, NDArray[np.bool_]] = {}
        self.done = 0  # records

    def __call__(self, wanted: str | tuple[str, ...], tick: Callable[[int, int], object] | None) -> bool:
        """Runs everything; whether Ctrl-C ended it."""
        try:
            interrupted = self._groups(wanted, tick)
        except KeyboardInterrupt:  # outside the kernel, which returns what it has
            interrupted = True
        if interrupted:
            begun = (self.ended.status != Status.INTERRUPTED) & (self.ended.status != RUN_WHOLE)
            self._forget(np.flatnonzero(~begun & (self.ended.accepted == 0)))
        return interrupted

    def _groups(self, wanted: str | tuple[str, ...], tick: Callable[[int, int], object] | None) -> bool:
        ensemble = self.ensemble
        groups: list[Group] = [Whole(ensemble, np.arange(ensemble.batch))]
        stops = any(a is not None for a in self.limits.values())
        # Never in ``auto``: with 8 to 256 units, 4 to 100 layers, a step takes 3 to 50 times as long as the kernel's.
        if wanted == ("balanced",):
            groups = [*balanced_groups(ensemble, stops=stops)]
        elif wanted != "none":
            groups = reductions.find(
                ensemble,
                wanted,
                # Slopes: some tens of steps, and one for every few records.
                steps=self.how.method.stages * (50 + len(self.times) // 4),
                duration=self.times.max(axis=-1, initial=0.0),
                needs=Needs(
                    product="product" in self.records,
                    strengths="strengths" in self.records or self.limits["strengths"] is not None,
                    test="test_loss" in self.records,
                ),
                stops=stops,
                steady=self.limits["steady"] is not None,
            ).groups
        while groups:
            group = groups.pop(0)
            for name in group.names:
                self.reduced.setdefault(name, np.zeros(ensemble.batch, dtype=bool))[group.members] = True
            bytes_of_one = 8 * group.networks * sum(n * m for n, m in pairwise(group.widths))
            count = len(group.members)
            keeps = isinstance(group, BalancedGroup) or not {"weights", "kernel_distance"}.isdisjoint(self.records)
            size = bytes_of_one * (1 + len(self.times) * keeps)
            for part in blocks(count, size, at_once=_AT_ONCE, at_least=16 * self.threads):
                if self._run(group, part, tick):
                    return True
                members = group.members[part]
                lost = members[self.ended.status[members] == RUN_WHOLE]
                self.done += len(self.times) * (len(members) - len(lost))
                if lost.size:
                    groups.append(Whole(ensemble, lost))
                    self._forget(lost)
        return False

    def _forget(self, members: NDArray[np.int64]) -> None:
        """Members as if they had not been run."""
        self.ended.forget(members)
        for reduced in self.reduced.values():
            reduced[members] = False
        for value in self.records.values():
            for a in _arrays(value):
                a[members] = np.nan
        for w, start in zip(self.final, self.ensemble.weights.layers, strict=True):
            w[members] = start if len(start) == 1 else start[members]

    def _run(self, group: Group, part: NDArray[np.int64], tick: Callable[[int, int], object] | None) -> bool:
        """Runs `part` of the members of a group and writes what they leave; whether Ctrl-C ended the kernel's call."""
        members, networks = group.members[part], group.networks
        batch, count, times = self.ensemble.batch, len(part) * group.networks, self.times
        dtype = self.ensemble.weights.dtype
        problem = group.problem(part, test="test_loss" in self.records)
        consecutive = members[-1] - members[0] == len(members) - 1
        span: Any = slice(members[0], members[-1] + 1) if consecutive else members
        out = {n: [a[span] for a in v] if n == "weights" else v[span] for n, v in self.records.items()}
        names = group.records(self.records)
        distances = "kernel_distance" in names  # which no kernel of flows records: from weights over time
        start = [w.copy() for w in problem.weights] if distances or "drift" in names else []
        ended = _Ended(count)
        before, total = self.done, batch * len(times)

        def limit(values: NDArray[Any] | None, name: str) -> NDArray[Any] | None:
            if values is None:
                return None
            own = _validate.one_for_all(values, 0, ndim=name == "strengths")
            return own if own.ndim == (name == "strengths") else own[members]

        def told(done: int, _: int) -> object:
            assert tick is not None
            return tick(before + done // networks, total)

        seen = None if tick is None else told
        if isinstance(group, BalancedGroup):
            interrupted = False
            kept = [np.full((count, len(times), n, m), np.nan, dtype=dtype) for m, n in pairwise(group.widths)]
            try:
                group.follow(part, kept, problem.weights, self.how.following(times, ended, seen))
            except KeyboardInterrupt:
                interrupted = True
            made = records_of(problem, kept, start, names, self.threads)
        else:
            by_kernel = [n for n in names if n != "kernel_distance"]
            if distances and "weights" not in names:
                by_kernel.append("weights")
            recorded = _recorded(group, by_kernel, out, problem.task["modes"], len(part), len(times), dtype)
            interrupted = self.how(
                problem,
                times,
                recorded,
                ended.of(np.arange(count)),
                stop={n: limit(a, n) for n, a in self.limits.items()},
                threads=self.threads,
                tick=seen,
            )
            made = {n: recorded[n] for n in names if n != "kernel_distance"}
            if distances:
                root = self.root if self.root is None or self.root.ndim == 2 else self.root[members % len(self.root)]
                made["kernel_distance"] = kernel_distance(recorded["weights"], start, root)
        kernel = Kernel(
            records=made,
            final=problem.weights,
            status=ended.status,
            stopped_at=ended.stopped_time,
        )
        own = group.recover(part, kernel, out, _steady(len(part), dtype), times)
        if not consecutive:
            for name, value in self.records.items():
                for a, b in zip(_arrays(value), _arrays(out[name]), strict=True):
                    a[members] = b
        for w, now in zip(self.final, own.final, strict=True):
            w[members] = now
        self.ended.stopped_time[members] = own.stopped_at
        for mine, theirs in ((self.ended.accepted, ended.accepted), (self.ended.rejected, ended.rejected)):
            mine[members] = theirs.reshape(len(part), networks).max(axis=1)
        self.ended.status[members] = own.status  # last: Ctrl-C before this leaves members that are not begun
        return interrupted


def _steady(members: int, dtype: np.dtype[Any]) -> Decay:
    """Without weight decay, what no gradient reaches stays as it is."""
    zero = np.zeros(members, dtype=dtype)
    return Decay(zero, zero, zero)


def records_of(
    problem: Problem,
    kept: list[NDArray[Any]],
    start: list[NDArray[Any]],
    names: Iterable[str],
    threads: int,
) -> dict[str, Any]:
    """Records from weights over time, (networks, time, …): by the kernel of gradient descent, which makes no step.

    `start` is needed for ``drift``.
    """
    networks, times = kept[0].shape[:2]
    count, dtype = networks * times, kept[0].dtype
    widths = (kept[0].shape[-1], *(w.shape[-2] for w in kept))

    def repeated(task: dict[str, Any]) -> dict[str, Any]:
        return {
            n: np.repeat(a, times, axis=0) if n in NDIM and a is not None and a.ndim > NDIM[n] else a
            for n, a in task.items()
        }

    made: dict[str, Any] = {
        name: np.full((count, 1, *_shapes(name, widths, problem.task["modes"])[0]), np.nan, dtype=dtype)
        for name in names
        if name in _BY_KERNEL
    }
    if made:
        core = _backend.core
        call = core.descent_f32 if dtype == np.float32 else core.descent_f64
        interrupted = call(
            weights=[w.reshape(count, *w.shape[2:]) for w in kept],
            task=repeated(problem.task),
            test=None if problem.test is None else repeated(problem.test),
            root=None,
            lr=np.ones((), dtype=dtype),
            momentum=None,
            decay=None,
            nesterov=False,
            noise=None,
            steps=0,
            stop={"loss": None, "strengths": None, "steady": None},
            record_at=np.zeros(1, dtype=np.int64),
            records={name: made.get(name) for name in QUANTITIES},
            status=np.zeros(count, dtype=np.int64),
            stopped_at=np.zeros(count, dtype=np.int64),
            threads=threads,
            memory=_validate.free_memory,
            isa=_backend.isa(),
            layout=_backend.layout(),
            tick=None,
        )
        if interrupted:
            raise KeyboardInterrupt
    made = {name: value.reshape(networks, times, *value.shape[2:]) for name, value in made.items()}
    if "weights" in names:
        made["weights"] = kept
    if "drift" in names:
        made["drift"] = _drift(kept, start)
    return made


def _drift(kept: list[NDArray[Any]], start: list[NDArray[Any]]) -> NDArray[Any]:
    """‖C_l(t) - C_l(0)‖ for every interface, C_l = W_{l+1}ᵀW_{l+1} - W_lW_lᵀ."""

    def conserved(layers: list[NDArray[Any]]) -> list[NDArray[Any]]:
        return [transposed(over) @ over - under @ transposed(under) for under, over in pairwise(layers)]

    changes = [now - first[:, None] for now, first in zip(conserved(kept), conserved(start), strict=True)]
    norms = [np.sqrt((c * c).sum(axis=(-2, -1))) for c in changes]
    return np.stack(norms, axis=-1) if norms else np.zeros((*kept[0].shape[:2], 0), dtype=kept[0].dtype)


def _times(t: ArrayLike) -> NDArray[np.float64]:
    times = np.ascontiguousarray(_validate.array(t, "t", shape=("time",), at_least=0), dtype=np.float64)
    if not times.size or (np.diff(times) <= 0).any():
        raise ValueError("t: expected increasing times >= 0, at least one, got " + np.array2string(times, threshold=6))
    return times
