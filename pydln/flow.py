"""Learning dynamics of ensembles, integrated: gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import _backend, _validate
from pydln.errors import IntegrationError, Interrupted, MissingExtra
from pydln.task import Task
from pydln.trajectory import QUANTITIES, Status, Trajectory
from pydln.weights import Weights

__all__ = ["Stop", "gradient_descent"]

Progress = bool | Callable[[int, int], object]

_DEFAULT_RECORDS = 200


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
        (|ΔW| / lr). A start at a saddle is steady too.
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
    weight_decay: ArrayLike = 0.0,
    stop: Stop | None = None,
    n_threads: int | None = None,
    throw: bool = True,
    progress: Progress = False,
) -> Trajectory:
    """Full-batch gradient descent of an ensemble of deep linear networks.

    Every step moves each layer down the gradient of L = 1/2 <|y - Ωx|²>, Ω = W_D ⋯ W_1,

        -∂L/∂W_l = (W_D ⋯ W_{l+1})ᵀ (Σ_yx - ΩΣ_xx) (W_{l-1} ⋯ W_1)ᵀ

    (Saxe, McClelland & Ganguli 2013, eq. 3), by W_l ← W_l - lr ∂L/∂W_l, or with momentum μ and weight decay w by
    v ← μv - (∂L/∂W + wW), W ← W + lr v, v = 0 at first.

    Parameters
    ----------
    task : Task
        What is learned; its normalisation (averages or sums over samples) scales the loss, and so the meaning of `lr`.
    weights : Weights
        The starts. Float32 weights are trained in float32, float64 in float64. A single start is used for every member
        when `task`, `lr` or another argument has several; so is a single task.
    lr : float or (batch,) array
        Learning rate η, > 0.
    steps : int
        Number of steps, >= 0.
    at : 1-D array of int, optional
        Steps at which to record, increasing, within 0 … `steps`.
    record_every : int, optional
        Record at 0, k, 2k, … and at the last step. Without `at` and `record_every`, about 200 evenly spaced steps.
    record : sequence of str
        Out of ``loss``, ``test_loss``, ``strengths`` (diag(UᵀΩV), signed), ``product`` (Ω), ``layer_norms``
        (Frobenius), ``drift`` (‖C_l(t) - C_l(0)‖, C_l = W_{l+1}ᵀW_{l+1} - W_lW_lᵀ, conserved by gradient flow),
        ``weights``.
    momentum : float or (batch,) array
        Heavy-ball μ, 0 <= μ < 1.
    weight_decay : float or (batch,) array
        w >= 0.
    stop : Stop, optional
        Lets members stop early; they cost nothing from then on. `Trajectory.stopped_at` tells at which step.
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
        A wrong argument, before any work is done; also when the recording would not fit in memory.
    IntegrationError
        Members diverged and `throw` is true; ``.trajectory`` holds everything that was computed.
    Interrupted
        Ctrl-C; a KeyboardInterrupt whose ``.trajectory`` holds everything that was computed: weights of whole steps,
        and at a step that was broken off the records made until then. It is answered within a tenth of a second of
        work, however long a step takes.
    """
    if not isinstance(task, Task):
        raise TypeError(f"task: expected a pydln.Task, got {type(task).__name__}")
    if not isinstance(weights, Weights):
        raise TypeError(
            f"weights: expected pydln.Weights, got {type(weights).__name__}: pydln.Weights(layers) makes one"
        )
    if (weights.widths[0], weights.widths[-1]) != (task.n_in, task.n_out):
        raise ValueError(
            f"weights: expected {task.n_in} inputs and {task.n_out} outputs like the task, "
            f"got {weights.widths[0]} and {weights.widths[-1]}"
        )
    dtype = weights.dtype
    modes = task.modes.s.shape[-1]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as that
        rates = {
            "lr": _validate.per_member(lr, "lr", dtype=dtype, above=0),
            "momentum": _validate.per_member(momentum, "momentum", dtype=dtype, at_least=0, below=1),
            "weight_decay": _validate.per_member(weight_decay, "weight_decay", dtype=dtype, at_least=0),
        }
        limits = _stop_limits(stop, modes, dtype)
    batch = _batch(
        {
            "weights": weights.batch,
            "task": task.batch or 1,
            **{name: len(rate) for name, rate in rates.items() if rate.ndim},
            **{
                f"stop.{name}": len(a) for name, a in limits.items() if a is not None and a.ndim > (name == "strengths")
            },
        }
    )
    steps = _validate.integer(steps, "steps", at_least=0, at_most=2**62 // batch)
    names = _validate.names(record, "record", QUANTITIES)
    if "test_loss" in names and task.test is None:
        raise ValueError("record: expected a task with held-out covariances for test_loss, got one whose test is None")
    threads = _backend.default_threads() if n_threads is None else _validate.integer(n_threads, "n_threads", at_least=1)
    schedule = _Schedule.of(steps, at, record_every)
    _refuse_too_large(names, weights, batch, schedule.count, modes)

    record_at = schedule.steps()
    records = {name: _empty(name, weights, batch, len(record_at), modes) for name in names}
    final = [np.array(np.broadcast_to(w, (batch, *w.shape[1:])), order="C") for w in weights.layers]
    status = np.full(batch, Status.INTERRUPTED, dtype=np.int64)
    stopped_at = np.zeros(batch, dtype=np.int64)
    rate = np.broadcast_to(rates["lr"], (batch,)) if rates["lr"].ndim else rates["lr"]
    core = _backend.core
    run = core.descent_f32 if dtype == np.float32 else core.descent_f64
    with _progress(progress) as tick:
        interrupted = run(
            weights=final,
            task=_moments(task, dtype) | _modes(task, dtype),
            test=None if task.test is None else _moments(task.test, dtype),
            lr=_full(rates["lr"], batch),
            momentum=_full(rates["momentum"], batch) if rates["momentum"].any() else None,
            decay=_full(rates["weight_decay"], batch) if rates["weight_decay"].any() else None,
            steps=steps,
            stop={name: None if a is None else _full(a, batch, name == "strengths") for name, a in limits.items()},
            record_at=record_at,
            records={name: records.get(name) for name in QUANTITIES},
            status=status,
            stopped_at=stopped_at,
            threads=min(threads, batch),
            memory=_validate.free_memory,
            isa=_backend.isa(),
            layout=_backend.layout(),
            tick=tick,
        )
    trajectory = Trajectory(
        t=np.multiply.outer(rate.astype(np.float64), record_at),
        steps=record_at,
        records=records,
        status=status,
        stopped_at=stopped_at,
        final=Weights._adopt(final),
        settings=_settings(task, weights, rates, steps, stop),
        source="gradient_descent",
    )
    if interrupted:
        done = int(np.count_nonzero(status != Status.INTERRUPTED))
        raise Interrupted(f"interrupted: {done} of {batch} members are complete; see .trajectory", trajectory)
    if throw:
        _raise_if_diverged(trajectory)
    return trajectory


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
            if isinstance(at, Sized):
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


def _shapes(name: str, weights: Weights, modes: int) -> list[tuple[int, ...]]:
    """Shape of one record of one member; one per layer for ``weights``."""
    widths, depth = weights.widths, weights.depth
    shapes: dict[str, list[tuple[int, ...]]] = {
        "loss": [()],
        "test_loss": [()],
        "strengths": [(modes,)],
        "product": [(widths[-1], widths[0])],
        "layer_norms": [(depth,)],
        "drift": [(depth - 1,)],
        "weights": [w.shape[1:] for w in weights.layers],
    }
    return shapes[name]


def _empty(name: str, weights: Weights, batch: int, times: int, modes: int) -> Any:
    made = [np.full((batch, times, *shape), np.nan, dtype=weights.dtype) for shape in _shapes(name, weights, modes)]
    return made if name == "weights" else made[0]


def _refuse_too_large(names: tuple[str, ...], weights: Weights, batch: int, times: int, modes: int) -> None:
    numbers = {name: sum(_product(shape) for shape in _shapes(name, weights, modes)) for name in names}
    size = batch * weights.dtype.itemsize
    recording = sum(numbers.values()) * size * times
    own = sum(_product(w.shape[1:]) for w in weights.layers) * size
    what = ", ".join(names) if names else "nothing"
    _validate.fits_in_memory(
        recording + own + 8 * times,
        f"record: {what} of {batch} members at {times} times",
        "record less often (record_every=, at=), fewer names, or fewer members at once",
    )


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for n in shape:
        result *= n
    return result


def _full(values: NDArray[Any], batch: int, by_mode: bool = False) -> NDArray[Any]:
    """Values of one member, or of each; a batch of one counts as one."""
    if values.ndim > by_mode and len(values) == 1 and batch != 1:
        return values.reshape(values.shape[1:])
    return values


def _moments(task: Task, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Second moments in working precision, and the point P from which the kernel measures the loss.

    P (Σ_xx + δI) = Σ_yx with δ = √eps of the largest input variance: P stays moderate where Σ_xx is nearly singular
    (the least-squares map of raw MNIST has entries so large that in float32 nothing would be left of the loss), and the
    error of the loss near the minimum is of order eps δ |P|², far below what a direct evaluation keeps.
    """
    sigma_yx = _first_of_one(task.sigma_yx, task.batch, 2)
    if task.whitened:
        anchor, ridge, anchor_loss = None, None, task.floor
        sigma_xx = None
    else:
        sigma_xx = _first_of_one(task.sigma_xx, task.batch, 2)
        largest = np.diagonal(sigma_xx, axis1=-2, axis2=-1).max(axis=-1)
        delta = np.sqrt(np.finfo(dtype).eps) * np.where(largest > 0, largest, 1.0)
        ridged = sigma_xx + delta[..., None, None] * np.eye(task.n_in)
        anchor = np.swapaxes(np.linalg.solve(ridged, np.swapaxes(sigma_yx, -1, -2)), -1, -2)
        # E at P is δP, so L(P) = floor + 1/2 <δP, Ω* - P>: no difference of large numbers.
        optimum = _first_of_one(task.optimum, task.batch, 2)
        anchor_loss = _first_of_one(task.floor, task.batch, 0) + 0.5 * delta * np.sum(
            anchor * (optimum - anchor), axis=(-2, -1)
        )
        ridge = delta

    def cast(value: Any) -> NDArray[Any] | None:
        if value is None:
            return None
        with np.errstate(over="ignore"):
            a = np.ascontiguousarray(value, dtype=dtype).reshape(np.shape(value))
        if not np.isfinite(a).all():
            raise ValueError(f"task: expected moments within the range of {dtype}, got {np.abs(value).max():g}")
        return a

    return {
        "sigma_xx": cast(sigma_xx),
        "sigma_yx": cast(sigma_yx),
        "anchor": cast(anchor),
        "ridge": cast(ridge),
        "anchor_loss": cast(_first_of_one(anchor_loss, task.batch, 0)),
    }


def _first_of_one(value: Any, batch: int | None, ndim: int) -> NDArray[Any]:
    """An array of a batched task; that of its only member when it has one."""
    a = np.asarray(value)
    return a[0] if batch == 1 and a.ndim > ndim else a


def _modes(task: Task, dtype: np.dtype[Any]) -> dict[str, Any]:
    U, s, V = (_first_of_one(a, task.batch, n) for a, n in zip(task.modes, (2, 1, 2), strict=True))
    return {
        "modes": s.shape[-1],
        "mode_u": np.ascontiguousarray(U, dtype=dtype),
        "mode_v": np.ascontiguousarray(V, dtype=dtype),
    }


@contextmanager
def _progress(progress: Progress) -> Iterator[Callable[[int, int], object] | None]:
    if progress is False:
        yield None
    elif callable(progress):
        yield progress
    elif progress is True:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise MissingExtra.of("tqdm", "cli", "progress=True") from None
        with tqdm(unit="step", unit_scale=True, desc="gradient descent") as bar:

            def tick(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield tick
            bar.update((bar.total or bar.n) - bar.n)
    else:
        raise TypeError(f"progress: expected True, False or a callable, got {type(progress).__name__}")


def _settings(
    task: Task, weights: Weights, rates: dict[str, NDArray[Any]], steps: int, stop: Stop | None
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
        "task": task.name,
        "normalize": task.normalize,
        "whitened": task.whitened,
        "depth": weights.depth,
        "widths": list(weights.widths),
        "dtype": str(weights.dtype),
        "isa": _backend.isa(),
        "version": _backend.version(),
    }


def _raise_if_diverged(run: Trajectory) -> None:
    lost = np.flatnonzero(run.status == Status.DIVERGED)
    if not lost.size:
        return
    which = ", ".join(str(i) for i in lost[:5]) + (", …" if lost.size > 5 else "")
    first = int(run.stopped_at[lost].min())
    raise IntegrationError(
        f"{lost.size} of {run.batch} members diverged (member {which}; the first at step {first}): try a smaller lr, "
        "below 2/λ_max with λ_max = D s^(2-2/D) at the solution; throw=False returns the others, as does .trajectory",
        run,
    )
