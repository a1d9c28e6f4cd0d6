"""Gradient flow of ensembles, integrated: whole networks, and modes one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import _backend, _validate
from pydln.errors import IntegrationError, Interrupted
from pydln.exact.tangent_kernel import kernel_distance
from pydln.flow import Progress, Stop, _batch, _empty, _progress, _refuse_too_large, _settings, _stop_limits
from pydln.methods import METHODS, Method
from pydln.methods import method as method_named
from pydln.reduce.problem import NDIM, Ensemble, Problem, blocks, check_fit, input_root, transposed
from pydln.task import Task
from pydln.trajectory import QUANTITIES, Status, Trajectory
from pydln.weights import Weights

__all__ = ["gradient_flow", "mode_flow"]

_AT_ONCE = 2**27  # bytes of weights over time that are held beside the recording
_IN_CACHE = 2**18
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
        default, so that starts of any scale are followed as faithfully; rtol is 1e-8, in float32 1e-4.
    step : float, optional
        The first step, in τ; the length of all with ``rk4``. By default a hundredth of the time in which the start
        moves by its own size.
    max_step : float, optional
        No step is longer than this, in τ.
    max_steps : int
        Steps, kept and rejected, after which a member is given up.
    stop : Stop, optional
        Lets members stop at the moment when they get there, which is found between steps on the interpolant.
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
        A wrong argument, before any work is done; also when the recording would not fit in memory.
    IntegrationError
        Members were given up and `throw` is true; ``.trajectory`` holds everything that was computed.
    Interrupted
        Ctrl-C; ``.trajectory`` holds everything that was computed.
    """
    check_fit(task, weights)
    dtype, modes = weights.dtype, task.modes.s.shape[-1]
    limits = _stop_limits(stop, modes, dtype)
    per_member = {f"stop.{n}": len(a) for n, a in limits.items() if a is not None and a.ndim > (n == "strengths")}
    batch = _batch({"weights": weights.batch, "task": task.batch or 1, **per_member})
    times = _times(t)
    names = _validate.names(record, "record", QUANTITIES)
    if "test_loss" in names and task.test is None:
        raise ValueError("record: expected a task with held-out covariances for test_loss, got one whose test is None")
    how = _Integrator(method, rtol, atol, step, max_step, max_steps, dtype)
    threads = _threads(n_threads)
    _refuse_too_large(names, weights, batch, len(times), modes)

    ensemble = Ensemble(task, weights, batch)
    records = {name: _empty(name, weights, batch, len(times), modes) for name in names}
    ended = _Ended(batch)
    final = [np.array(np.broadcast_to(w, (batch, *w.shape[1:])), order="C") for w in weights.layers]
    recorder = _Recorder(ensemble, records, threads)
    interrupted = False
    with _progress(progress) as tick:
        for members in blocks(batch, ensemble.bytes_of_one * (len(times) + 1), at_once=_AT_ONCE, at_least=16 * threads):
            problem = ensemble.problem(None if len(members) == batch else members, test="test_loss" in names)
            kept = [np.full((len(members), len(times), *w.shape[1:]), np.nan, dtype=dtype) for w in weights.layers]
            of_these = {
                n: a if a is None or a.ndim == (n == "strengths") or len(a) == 1 else a[members]
                for n, a in limits.items()
            }
            before = int(members[0]) * len(times)
            try:
                interrupted = how(
                    problem,
                    times,
                    kept,
                    ended.of(members),
                    stop={n: _one(a, n) for n, a in of_these.items()},
                    threads=threads,
                    tick=None if tick is None else _shifted(tick, before, batch * len(times)),
                )
                recorder(members, problem, kept)
            except KeyboardInterrupt:  # outside the kernel, which returns what it has
                interrupted = True
            for w, now in zip(final, problem.weights, strict=True):
                w[members] = now
            if interrupted:
                break
    run = Trajectory(
        t=times,
        steps=None,
        records=records,
        status=ended.status,
        stopped_at=ended.accepted,
        final=Weights._adopt(final),
        settings=_settings(task, weights, {}, 0, stop) | how.settings | ended.settings,
        source="gradient_flow",
    )
    return _judged(run, interrupted, throw)


def mode_flow(
    s: ArrayLike,
    layer_strengths: ArrayLike,
    t: ArrayLike,
    *,
    variances: ArrayLike = 1.0,
    method: str = "tsit5",
    rtol: float | None = None,
    atol: float = 0.0,
    step: float | None = None,
    max_step: float | None = None,
    max_steps: int = 100_000,
    n_threads: int | None = None,
    throw: bool = True,
    progress: Progress = False,
) -> Trajectory:
    """Decoupled modes of any depth, balanced or not: every layer moves each mode by itself.

        da_l/dt = (∏_{m≠l} a_m) (s - d u),   u = ∏_m a_m

    (Saxe, McClelland & Ganguli 2013, eqs. 11 and 16 with t in units of τ.) The flow conserves a_l² - a_m², so that the
    layer m with the smallest |a| carries the others along, and one equation is integrated:

        dz/dt = P (s - d z P),   z = a_m,   P = ∏_{l≠m} a_l = ± ∏_{l≠m} √(z² + a_l(0)² - a_m(0)²)

    Its relative error bounds that of every a_l, so that starts of any scale are followed as faithfully as others, and
    what is conserved is so to rounding. Two parts of the way take no steps, for what their closed forms leave out is a
    tenth of the tolerance: plateaus of small starts, d u << s, where two layers alone move (ln |z| or arsinh grows
    linearly; so every one of depth 2) or all are equal (|z|^(2-D) falls linearly); and the way to rest from where
    (s - d u)² is small beside u², z - z* ~ exp(-λt), along which explicit steps would be bound to about 3/λ.

    Parameters
    ----------
    s : (mode,) or (batch, mode) array
        Strengths of the modes of Σ_yx.
    layer_strengths : (D,), (mode, D) or (batch, mode, D) array
        a_l at t = 0, W_1 first.
    t : (time,) array
        Times to record at, in units of τ, >= 0 and increasing.
    variances : float, (mode,) or (batch, mode) array
        d: input variance along each mode, >= 0; 1 where inputs are whitened.
    method, rtol, atol, step, max_step, max_steps, n_threads, throw, progress
        As in `gradient_flow`; the tolerances are those of z.

    Returns
    -------
    Trajectory
        ``strengths`` u, (batch, time, mode), and ``loss`` Σ_α (s_α - d_α u_α)² / (2 d_α) over the modes with d > 0. Its
        `Status` is the worst of a member's modes.

    Raises
    ------
    TypeError, ValueError, IntegrationError, Interrupted
        As `gradient_flow`.
    """
    wanted = _validate.array(s, "s")
    a = _validate.array(layer_strengths, "layer_strengths")
    d = _validate.array(variances, "variances", at_least=0)
    if a.ndim not in (1, 2, 3) or wanted.ndim not in (1, 2) or d.ndim > 2:
        raise ValueError(
            "layer_strengths: expected (D,), (mode, D) or (batch, mode, D) beside s (mode,) or (batch, mode), "
            f"got {a.shape} beside {wanted.shape}"
        )
    try:
        shape = np.broadcast_shapes(wanted.shape, a.shape[:-1], d.shape)
    except ValueError:
        raise ValueError(
            f"layer_strengths: expected modes that fit s {wanted.shape} and variances {d.shape}, got {a.shape}"
        ) from None
    batch, modes = (1, *shape)[-2:]
    depth, times, threads = a.shape[-1], _times(t), _threads(n_threads)
    if not batch * modes * depth:
        raise ValueError(f"layer_strengths: expected a mode and a layer at least, got {a.shape}")
    how = _Integrator(method, rtol, atol, step, max_step, max_steps, np.dtype(np.float64))
    _validate.fits_in_memory(
        8 * batch * (modes * (len(times) + depth + 6) + len(times)),
        f"t: {batch * modes} modes of {depth} layers at {len(times)} times",
        "record at fewer times, or fewer modes at once",
    )
    targets, spread = (np.broadcast_to(x, (batch, modes)) for x in (wanted, d))
    strengths = np.empty((batch, len(times), modes))
    ended = _Ended(batch * modes)
    core = _backend.core
    with _progress(progress) as tick:
        interrupted = core.modes_f64(
            layer_strengths=np.array(np.broadcast_to(a, (batch, modes, depth)), order="C").reshape(-1, depth),
            s=np.array(targets, order="C").reshape(-1),
            variances=np.array(spread, order="C").reshape(-1),
            strengths=strengths,
            **how.kernel(times),
            **ended.of(np.arange(batch * modes)),
            threads=threads,
            memory=_validate.free_memory,
            isa=_backend.isa(),
            tick=tick,
        )
    status = ended.status.reshape(batch, modes)
    run = Trajectory(
        t=times,
        steps=None,
        records={"strengths": strengths, "loss": _mode_loss(strengths, targets, spread)},
        status=status.max(axis=1),
        stopped_at=ended.accepted.reshape(batch, modes).max(axis=1),
        settings=how.settings | {"depth": depth, "modes": modes, "isa": _backend.isa(), "version": _backend.version()},
        source="mode_flow",
    )
    return _judged(run, interrupted, throw)


def _mode_loss(u: NDArray[Any], s: NDArray[Any], d: NDArray[Any]) -> NDArray[Any]:
    """Σ_α (s_α - d_α u_α)² / (2 d_α) over the modes with d > 0, (batch, time)."""
    loss = np.empty(u.shape[:2])
    weight = np.where(d > 0, 0.5 / np.where(d > 0, d, 1), 0)
    for members in blocks(len(u), 8 * u[0].size, at_once=_IN_CACHE, at_least=1):
        span = slice(members[0], members[-1] + 1)
        gap = u[span] * d[span, None]
        np.subtract(s[span, None], gap, out=gap)
        np.multiply(gap, gap, out=gap)
        np.einsum("btm,bm->bt", gap, weight[span], out=loss[span])
    return loss


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
        self.max_steps = _validate.integer(max_steps, "max_steps", at_least=1)
        if not len(self.method.error) and self.step is None:
            raise ValueError(f"step: expected the length of the steps of {method}, got None")

    @property
    def settings(self) -> dict[str, Any]:
        adaptive = {"rtol": self.rtol, "atol": self.atol} if len(self.method.error) else {}
        limits = {"step": self.step, "max_step": self.max_step, "max_steps": self.max_steps}
        return {"method": self.method.name, **adaptive, **limits}

    def kernel(self, times: NDArray[np.float64]) -> dict[str, Any]:
        """What the kernels take."""
        return {
            "method": self.method.kernel(),
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
        kept: list[NDArray[Any]],
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
                **self.kernel(times),
                stop=stop,
                weight_records=kept,
                **ended,
                threads=threads,
                memory=_validate.free_memory,
                isa=_backend.isa(),
                layout=_backend.layout(),
                tick=tick,
            )
        )


class _Recorder:
    """Records from weights over time: by the kernel of gradient descent, which makes no step."""

    def __init__(self, ensemble: Ensemble, records: dict[str, Any], threads: int) -> None:
        self.ensemble, self.records, self.threads = ensemble, records, threads
        self.root = input_root(ensemble.task) if "kernel_distance" in records else None

    def __call__(self, members: NDArray[np.int64], problem: Problem, kept: list[NDArray[Any]]) -> None:
        times = kept[0].shape[1]
        count = len(members) * times
        span = slice(members[0], members[-1] + 1)
        start = [w if len(w) == 1 else w[members] for w in self.ensemble.weights.layers]

        def repeated(task: dict[str, Any]) -> dict[str, Any]:
            return {
                n: np.repeat(a, times, axis=0) if n in NDIM and a is not None and a.ndim > NDIM[n] else a
                for n, a in task.items()
            }

        wanted = [name for name in self.records if name in _BY_KERNEL]
        made = {name: self.records[name][span].reshape(count, 1, *self.records[name].shape[2:]) for name in wanted}
        if wanted:
            core, dtype = _backend.core, self.ensemble.weights.dtype
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
                threads=self.threads,
                memory=_validate.free_memory,
                isa=_backend.isa(),
                layout=_backend.layout(),
                tick=None,
            )
            if interrupted:
                raise KeyboardInterrupt
        if "weights" in self.records:
            for target, w in zip(self.records["weights"], kept, strict=True):
                target[span] = w
        if "drift" in self.records:
            self.records["drift"][span] = _drift(kept, start)
        if "kernel_distance" in self.records:
            root = self.root if self.root is None or self.root.ndim == 2 else self.root[members % len(self.root)]
            with np.errstate(invalid="ignore", divide="ignore"):  # a kernel of zero has no direction: NaN
                self.records["kernel_distance"][span] = kernel_distance(kept, start, root)


def _drift(kept: list[NDArray[Any]], start: list[NDArray[Any]]) -> NDArray[Any]:
    """‖C_l(t) - C_l(0)‖ for every interface, C_l = W_{l+1}ᵀW_{l+1} - W_lW_lᵀ."""

    def conserved(layers: list[NDArray[Any]]) -> list[NDArray[Any]]:
        return [transposed(over) @ over - under @ transposed(under) for under, over in pairwise(layers)]

    changes = [now - first[:, None] for now, first in zip(conserved(kept), conserved(start), strict=True)]
    norms = [np.sqrt((c * c).sum(axis=(-2, -1))) for c in changes]
    return np.stack(norms, axis=-1) if norms else np.zeros((*kept[0].shape[:2], 0), dtype=kept[0].dtype)


def _one(limit: NDArray[Any] | None, name: str) -> NDArray[Any] | None:
    return None if limit is None else _validate.one_for_all(limit, 0, ndim=name == "strengths")


def _shifted(tick: Callable[[int, int], object], before: int, total: int) -> Callable[[int, int], object]:
    return lambda done, _: tick(before + done, total)


def _threads(n_threads: int | None) -> int:
    return _backend.default_threads() if n_threads is None else _validate.integer(n_threads, "n_threads", at_least=1)


def _times(t: ArrayLike) -> NDArray[np.float64]:
    times = np.ascontiguousarray(_validate.array(t, "t", shape=("time",), at_least=0), dtype=np.float64)
    if not times.size or (np.diff(times) <= 0).any():
        raise ValueError("t: expected increasing times >= 0, at least one, got " + np.array2string(times, threshold=6))
    return times


_GIVEN_UP = (Status.DIVERGED, Status.STEP_LIMIT, Status.STIFF)


def _judged(run: Trajectory, interrupted: bool, throw: bool) -> Trajectory:
    if interrupted:
        done = int(np.count_nonzero(run.status != Status.INTERRUPTED))
        raise Interrupted(f"interrupted: {done} of {run.batch} members are complete; see .trajectory", run)
    lost = np.flatnonzero(np.isin(run.status, _GIVEN_UP))
    if throw and lost.size:
        which = ", ".join(str(i) for i in lost[:5]) + (", …" if lost.size > 5 else "")
        meaning = Status(int(run.status[lost[0]])).meaning
        raise IntegrationError(
            f"{lost.size} of {run.batch} members did not reach the end (member {which}): the first {meaning}; "
            "throw=False returns the others, as does .trajectory",
            run,
        )
    return run
