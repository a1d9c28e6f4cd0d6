"""Gradient flow of decoupled modes, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import backend, validate
from pydln._base.arrays import blocks
from pydln.simulate import mode_events
from pydln.simulate.clock import times_of
from pydln.simulate.integrator import Integrator
from pydln.simulate.loop import Ends
from pydln.simulate.members import agree
from pydln.simulate.methods import Method
from pydln.simulate.progress import Progress, Tick, shown
from pydln.simulate.stop import Limits, Stop
from pydln.trajectory.outcome import judged
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory

__all__ = ["mode_flow"]

_IN_CACHE = 2**18


def mode_flow(
    s: ArrayLike,
    layer_strengths: ArrayLike,
    t: ArrayLike,
    *,
    variances: ArrayLike = 1.0,
    method: str | Method = "tsit5",
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
    stop : Stop, optional
        Conditions of a member's modes together, ``steady`` on max |da_l/dt| and, as `Stop` says, on how fast what is
        left to learn may still become; modes that end at a saddle by themselves are at their end. They are looked for
        at t = 0 and at the times `t`; the moment between two of them is found by integrations of its own, to a
        hundredth of rtol.
        After Ctrl-C nothing is looked for: members that were complete have run to the end.

    Returns
    -------
    Trajectory
        ``strengths`` u, (batch, time, mode), and ``loss`` Σ_α (s_α - d_α u_α)² / (2 d_α) over the modes with d > 0. Its
        `Status` is the worst of a member's modes. ``integrator_steps`` and ``rejected`` are those of the mode that
        took most, ``stopped_time`` is where a member stopped, in τ. Entries after it stopped are NaN.

    Raises
    ------
    TypeError, ValueError, IntegrationError, Interrupted
        As `gradient_flow`.
    """
    wanted = validate.array(s, "s")
    a = validate.array(layer_strengths, "layer_strengths")
    d = validate.array(variances, "variances", at_least=0)
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
    limits = Limits.of(stop, modes, np.dtype(np.float64))
    batch = agree(
        {
            "layer_strengths": batch,
            **limits.members,
        }
    )
    depth, times, threads = a.shape[-1], times_of(t), backend.threads(n_threads)
    throw = validate.flag(throw, "throw")
    if not batch * modes * depth:
        raise ValueError(f"layer_strengths: expected a mode and a layer at least, got {a.shape}")
    how = Integrator(method, rtol, atol, step, max_step, max_steps, np.dtype(np.float64))
    asked = limits.any
    if asked and not len(how.method.error):
        raise ValueError(f"stop: expected a method that chooses its steps, got {how.method.name}")
    validate.fits_in_memory(
        8 * batch * (modes * (len(times) + depth + 6) + len(times)),
        f"t: {batch * modes} modes of {depth} layers at {len(times)} times",
        "record at fewer times, or fewer modes at once",
    )
    targets, spread = (np.broadcast_to(x, (batch, modes)) for x in (wanted, d))
    modes_of = _ModeRun(how, targets, spread, np.broadcast_to(a, (batch, modes, depth)), threads)
    with shown(progress, "mode flow", "record") as tick:
        strengths, ended, interrupted = modes_of(times, tick=tick)
    status = ended.status.reshape(batch, modes).max(axis=1)
    stopped_time = ended.stopped_at.reshape(batch, modes).min(axis=1)
    loss = _mode_loss(strengths, targets, spread)
    if asked and not interrupted:
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is judged with the rest
                when, why = modes_of.stops(times, strengths, limits)
        except KeyboardInterrupt:
            interrupted, status[:] = True, Status.INTERRUPTED
        else:
            stopped = when <= stopped_time
            status[stopped], stopped_time[stopped] = why[stopped], when[stopped]
            late = stopped[:, None] & (times > when[:, None])
            strengths[late] = loss[late] = np.nan
    run = Trajectory(
        t=times,
        steps=None,
        records={"strengths": strengths, "loss": loss},
        status=status,
        stopped_time=stopped_time,
        integrator_steps=ended.accepted.reshape(batch, modes).max(axis=1),
        rejected=ended.rejected.reshape(batch, modes).max(axis=1),
        settings=how.settings | {"depth": depth, "modes": modes} | {"isa": backend.isa(), "version": backend.version()},
        source="mode_flow",
    )
    return judged(run, interrupted=interrupted, throw=throw)


class _ModeRun:
    """Modes of networks, ready to be integrated over any times."""

    def __init__(self, how: Integrator, s: NDArray[Any], d: NDArray[Any], start: NDArray[Any], threads: int) -> None:
        self.how, self.s, self.d, self.start, self.threads = how, s, d, start, threads

    def __call__(
        self,
        times: NDArray[np.float64],
        members: NDArray[np.int64] | slice = slice(None),
        pace: NDArray[np.float64] | None = None,
        tick: Tick | None = None,
    ) -> tuple[NDArray[np.float64], Ends, bool]:
        """u of `members`, how their modes ended, whether Ctrl-C ended it.

        With `pace`, (members,), member i runs so many times as fast: a and u at times pace[i] t follow the same flow
        with pace[i] s and pace[i] d in the place of s and d.
        """
        s, d, start = self.s[members], self.d[members], self.start[members]
        if pace is not None:
            s, d = s * pace[:, None], d * pace[:, None]
        batch, modes, depth = start.shape
        strengths = np.empty((batch, len(times), modes))
        ended = Ends(batch * modes)
        interrupted = backend.core.modes_f64(
            layer_strengths=np.array(start, order="C").reshape(-1, depth),
            s=np.array(s, order="C").reshape(-1),
            variances=np.array(d, order="C").reshape(-1),
            strengths=strengths,
            **self.how.kernel(times),
            **ended.of(np.arange(batch * modes)),
            threads=self.threads,
            memory=validate.free_memory,
            isa=backend.isa(),
            tick=tick,
        )
        return strengths, ended, interrupted

    def stops(
        self, times: NDArray[np.float64], strengths: NDArray[np.float64], limits: Limits
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """When every member meets its first condition, infinite if it does not, and which that is."""
        batch, modes = self.s.shape
        how = self.how  # at a pace of one's own, lengths of steps mean nothing
        free = Integrator(how.method.name, how.rtol, how.atol, None, None, how.max_steps, how.dtype)
        paced = _ModeRun(free, self.s, self.d, self.start, self.threads)
        own = limits.of_everybody(batch, modes)

        def margins(u: NDArray[Any], members: NDArray[np.int64] | slice) -> dict[Status, NDArray[Any]]:
            mine = {name: None if x is None else x[members] for name, x in own.items()}
            return mode_events.margins(u, self.s[members], self.d[members], self.start[members], mine, _mode_loss)

        def at(members: NDArray[np.int64], t: NDArray[np.float64]) -> dict[Status, NDArray[Any]]:
            once = np.ones(1)
            u = np.where(t[:, None, None] == 0, self.start[members].prod(axis=-1)[:, None], np.nan)
            moved = np.flatnonzero(t > 0)
            if moved.size:
                u[moved], _, interrupted = paced(once, members[moved], t[moved])
                if interrupted:
                    raise KeyboardInterrupt
            return {status: margin[:, 0] for status, margin in margins(u, members).items()}

        everyone = np.arange(batch)
        initial = at(everyone, np.zeros(batch))
        return mode_events.first_times(at, times, margins(strengths, slice(None)), initial, self.how.rtol)


def _mode_loss(u: NDArray[Any], s: NDArray[Any], d: NDArray[Any]) -> NDArray[Any]:
    """Σ_α (s_α - d_α u_α)² / (2 d_α) over the modes with d > 0, (batch, time)."""
    loss = np.empty(u.shape[:2])
    weight = np.where(d > 0, 0.5 / np.where(d > 0, d, 1), 0)
    for members in blocks(len(u), 8 * u[0].size, at_once=_IN_CACHE, at_least=1):
        span = slice(members[0], members[-1] + 1)
        with np.errstate(over="ignore", invalid="ignore"):
            gap = u[span] * d[span, None]
            np.subtract(s[span, None], gap, out=gap)
            np.multiply(gap, gap, out=gap)
            np.einsum("btm,bm->bt", gap, weight[span], out=loss[span])
    return loss
