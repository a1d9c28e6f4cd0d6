"""One mode of a balanced network of any depth with whitened inputs: du/dt = D |u|^(2-2/D) (s - u), both ways round.

From depth two on, infinity included, the kernel looks the course of u/s up (mode_table.py). What there is no table for
is found by series and Newton's method (mode_legs.py), as the tables are: depths between one and two, a target at zero,
starts below 1e-304 of the target or, on its far side or across zero, beyond 1e7 times it. Depth, u0 and s alone
decide which way a mode goes, never the times or other modes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import backend, validate
from pydln._base.patience import broadcast, interruptible
from pydln.exact.grid import Grid
from pydln.exact.mode_legs import Depth, log_ratio, only, power_time
from pydln.exact.mode_table import table

__all__ = ["balanced_mode", "balanced_mode_and_gap", "time_to_reach"]

Floats = NDArray[Any]
Integers = NDArray[np.int64]

# Points at a time, so that the dozen temporary arrays of a Newton step stay in cache.
BLOCK = 4096
LONGEST = 1e4
NEGLIGIBLE = 1e-18
SMALLEST, LARGEST = float(np.finfo(np.float64).tiny), float(np.finfo(np.float64).max)


def _arguments(**given: ArrayLike) -> list[Floats]:
    """The arguments as arrays that broadcast."""
    bounds: dict[str, Any] = {"t": {"at_least": 0}}
    arrays = [validate.array(value, name, **bounds.get(name, {})) for name, value in given.items()]
    try:
        np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ValueError(f"{', '.join(given)}: expected shapes that broadcast, got {shapes}") from None
    return arrays


def balanced_mode(u0: ArrayLike, s: ArrayLike, t: ArrayLike, *, depth: float) -> Floats:
    """Strength of one mode of the product of a balanced deep linear network with whitened inputs.

    Solves du/dt = D |u|^(2-2/D) (s - u), Saxe, McClelland & Ganguli (2013), eq. 15, for every u0 and s: below the
    target (0 < u0 < s), above it (u0 > s > 0), with the target at zero or beyond it (s <= 0 < u0: u decays to zero, for
    1 < depth < 2 in a finite time, and stays there), and the mirror images u -> -u, s -> -s. u0 = 0 stays there unless
    depth = 1.

    Many modes at many times are best asked for at once: ``balanced_mode(u0[:, None], s[:, None], t, depth=D)``. From
    depth two on PYDLN_NUM_THREADS threads, or all processors, share them.

    Parameters
    ----------
    u0 : array_like
        Strength at time 0. The arguments broadcast against each other.
    s : array_like
        Strength of the task's mode.
    t : array_like
        Times in units of tau = 1/lr, >= 0. For infinite depth in units of tau/D, that is du/dt = u^2 (s - u).
    depth : float
        Number of weight matrices D, real and >= 1, or ``math.inf``.

    Returns
    -------
    ndarray
        u(t), float64. The error is a few rounding errors of u and of s - u, times how strongly they depend on t: from a
        start of 1e-300 at depth 3 the moment of escape, near 1e100, is known to 1e-16 of itself and no better.

    Raises
    ------
    TypeError, ValueError
        An argument that is not made of finite numbers, a negative time, depth < 1, shapes that do not broadcast; or
        numbers so far apart that u(t) is none, |u0| > 1e300 |s|.
    """
    start, target, times = _arguments(u0=u0, s=s, t=t)
    u = _solve(Depth.of(depth), start, target, times, with_gap=False)[0]
    # Between moderate numbers there is no other: another look at a million of them takes a tenth of the time they took.
    sizes = np.abs(start), np.abs(target)
    moderate = all(a.max(initial=0.0) < 1e100 and a[a > 0].min(initial=1.0) > 1e-100 for a in sizes)
    return u[()] if moderate else validate.known(u, "u0, s, t")[()]


def balanced_mode_and_gap(u0: Floats, s: Floats, t: Floats, depth: float) -> tuple[Floats, Floats]:
    """`balanced_mode` on float64 arrays that broadcast, with s - u and its own digits as well; nothing is checked."""
    return _solve(Depth.of(depth), u0, s, t, with_gap=True)


def _solve(course: Depth, u0: Floats, s: Floats, t: Floats, *, with_gap: bool) -> tuple[Floats, Floats]:
    """u and s - u in the shape that the arguments broadcast to; not asked for, the second is empty."""
    grid = Grid((u0, s), t)
    (first, target), when, count, length = grid.constants, grid.times, grid.count, grid.length
    shared = when.ndim == 1
    u, gap = np.empty((count, length)), np.empty((count, length) if with_gap else 0)
    left = _look_up(course, first, target, when, u, gap if with_gap else None)
    for k in range(0, len(left) * length, BLOCK):
        point = np.arange(k, min(k + BLOCK, len(left) * length))
        mode, time = left[point // length], point % length
        found, rest = _block(course, first[mode], target[mode], when[time] if shared else when[mode, time])
        u[mode, time] = found
        if with_gap:
            gap[mode, time] = rest
    return grid.back(u), grid.back(gap) if with_gap else gap


def _look_up(course: Depth, u0: Floats, s: Floats, t: Floats, u: Floats, gap: Floats | None) -> Integers:
    """Fill the rows of `u` and `gap` that belong to modes with a table; the numbers of the other modes."""
    left = np.ones(len(u0), bool)
    if course.mu <= 0 and u.size > 0:
        with np.errstate(all="ignore"):
            v, rate = u0 / s, course.rate * np.power(np.abs(s), course.p)
        able = (rate >= SMALLEST) & (rate <= LARGEST)
        for name, low, high in (("below", 0.0, 1.0), ("above", 1.0, math.inf), ("across", -math.inf, 0.0)):
            chosen = able & (v > low) & (v < high)
            if not chosen.any():
                continue
            looked_up = table(name, course)
            chosen &= (v > looked_up.between[0]) & (v < looked_up.between[1])
            if backend.core.balanced_mode(
                table=looked_up.for_kernel(),
                which=None if chosen.all() else np.flatnonzero(chosen),
                u0=u0,
                s=s,
                rate=rate,
                t=t,
                u=u,
                gap=gap,
                threads=backend.default_threads(),
                isa=backend.isa(),
            ):
                raise KeyboardInterrupt
            left &= ~chosen
    return np.flatnonzero(left)


def _block(course: Depth, u0: Floats, s: Floats, t: Floats) -> tuple[Floats, Floats]:
    if course.p == 0:
        fade, gap = np.exp(-t), s - u0
        return np.where(t > 1, s - gap * fade, u0 - gap * np.expm1(-t)), gap * fade
    sign = np.where(u0 < 0, -1.0, 1.0)
    u0, s = u0 * sign, s * sign
    u, gap = u0.copy(), s - u0
    size = np.abs(s)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        theta = course.rate * np.power(size, course.p) * t
        # Without a target u falls as a power; one far below where that ends makes no difference.
        moving = (t > 0) & (u0 > 0)
        free = u0 * np.exp(-np.log1p(course.p * course.rate * t * np.power(u0, course.p)) / course.p)
        drifting = moving & (u0 > s) & (size <= NEGLIGIBLE * free)
        u[drifting], gap[drifting] = free[drifting], (s - free)[drifting]
        moving &= ~drifting
        for where, branch in (
            (moving & (u0 < s), _below),
            (moving & (u0 > s) & (s > 0), _above),
            (moving & (s < 0), _across),
        ):
            if where.any():
                u[where], gap[where] = branch(course, u0[where], size[where], theta[where])
    return u * sign, gap * sign


def _below(course: Depth, u0: Floats, s: Floats, theta: Floats) -> tuple[Floats, Floats]:
    leg, approach = course.below()
    z0 = np.maximum(u0 / s, SMALLEST)
    limit = np.maximum(-np.log(2 * z0), 0.0)
    spent = leg.time(z0, limit)
    late = theta > spent
    x = only(~late, leg.rise, z0, theta, limit)
    u_early = u0 * np.exp(x)
    w0 = np.minimum((s - u0) / s, 0.5)
    w = w0 * np.exp(-only(late, approach.invert, w0, np.minimum(theta - spent, LONGEST)))
    return np.where(late, s * (1 - w), u_early), np.where(late, s * w, s - u_early)


def _above(course: Depth, u0: Floats, s: Floats, theta: Floats) -> tuple[Floats, Floats]:
    leg, approach = course.above()
    z0 = s / u0
    limit = np.maximum(-np.log(2 * z0), 0.0)
    spent = leg.time(z0, limit)
    late = theta > spent
    x = only(~late, leg.rise, z0, theta, limit)
    u_early = u0 * np.exp(-x)
    w0 = np.minimum((u0 - s) / u0, 0.5)
    w = w0 * np.exp(-only(late, approach.invert, w0, np.minimum(theta - spent, LONGEST)))
    return np.where(late, s / (1 - w), u_early), np.where(late, -s * w / (1 - w), s - u_early)


def _across(course: Depth, u0: Floats, size: Floats, theta: Floats) -> tuple[Floats, Floats]:
    falling, fading = course.across()
    z0 = size / (u0 + size)
    limit = np.maximum(-np.log(2 * z0), 0.0)
    spent = falling.time(z0, limit)
    late = theta > spent
    z = z0 * np.exp(only(~late, falling.rise, z0, theta, limit))
    first = np.minimum(u0, size)
    y0 = first / (first + size)
    lowest = np.minimum(np.log(SMALLEST / y0), 0.0)
    x = only(late, fading.fall, y0, theta - spent, lowest)
    y = y0 * np.exp(x)
    u = np.where(late, first * np.exp(x) * ((1 - y0) / (1 - y)), size * (1 - z) / z)
    u = np.where(late & (x <= lowest), 0.0, u)
    return u, -size - u


@interruptible(broadcast)
def time_to_reach(u0: ArrayLike, u: ArrayLike, s: ArrayLike, *, depth: float) -> Floats:
    """The time at which `balanced_mode` started at `u0` passes `u`: the inverse function.

    For depth 2 below the target this is the learning time (tau/2s) ln[u (s - u0)/(u0 (s - u))] of Saxe, McClelland &
    Ganguli (2013); D times the time at depth D for s = 1 is their count of iterations at the optimal rate up
    to a constant (appendix B), and stays finite as D goes to infinity.

    Parameters
    ----------
    u0, u : array_like
        Strengths at the start and at the time asked for. The arguments broadcast against each other.
    s : array_like
        Strength of the task's mode.
    depth : float
        Number of weight matrices D, real and >= 1, or ``math.inf``.

    Returns
    -------
    ndarray
        Time in units of tau = 1/lr (tau/D for infinite depth), float64; infinity if `u` is never reached.

    Raises
    ------
    TypeError, ValueError
        An argument that is not made of finite numbers, depth < 1, shapes that do not broadcast.
    """
    start, end, target = np.broadcast_arrays(*_arguments(u0=u0, u=u, s=s))
    return _time(start, end, target, Depth.of(depth))[()]


def _time(u0: Floats, u: Floats, s: Floats, course: Depth) -> Floats:
    time = np.where(u == u0, 0.0, math.inf)
    if course.p == 0:
        there = (u != u0) & ((u - u0) * (s - u) > 0)
        time[there] = log_ratio((u0 - s)[there], (u - s)[there], (u0 - u)[there])
        return time
    sign = np.where(u0 < 0, -1.0, 1.0)
    u0, u, s = u0 * sign, u * sign, s * sign
    # Below depth 2 the way down to zero takes a finite time; there it stays.
    down = (u < u0) & ((u > 0) | ((u == 0) & (course.p < 1) & (s < 0)))
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        scale = course.rate * np.power(np.abs(s), course.p)
        for where, branch in (
            ((u0 > 0) & (u0 < u) & (u < s), _time_below),
            (down & (s > 0) & (u > s), _time_above),
            (down & (s < 0), _time_across),
        ):
            if where.any():
                time[where] = branch(course, u0[where], u[where], np.abs(s[where])) / scale[where]
        drifting = down & (np.abs(s) <= NEGLIGIBLE * u)
        if drifting.any():
            first, last = u0[drifting], u[drifting]
            time[drifting] = power_time(-course.p, first, log_ratio(last, first, last - first)) / course.rate
    return time


def _time_below(course: Depth, u0: Floats, u: Floats, s: Floats) -> Floats:
    leg, approach = course.below()
    z0 = np.maximum(u0 / s, SMALLEST)
    x = np.minimum(log_ratio(u, u0, u - u0), np.maximum(-np.log(2 * z0), 0.0))
    late = u > 0.5 * s
    w0, w = np.minimum((s - u0) / s, 0.5), (s - u) / s
    # Both ends close to the target: their ratio from the difference, which is exact.
    near = np.where(w0 < 0.5, log_ratio(s - u0, s - u, u - u0), np.log(w0 / w))
    return leg.time(z0, x) + np.where(late, approach.time(w0, np.where(late, near, 0.0)), 0.0)


def _time_above(course: Depth, u0: Floats, u: Floats, s: Floats) -> Floats:
    leg, approach = course.above()
    z0 = s / u0
    x = np.minimum(log_ratio(u0, u, u0 - u), np.maximum(-np.log(2 * z0), 0.0))
    late = u < 2 * s
    w0, w = np.minimum((u0 - s) / u0, 0.5), (u - s) / u
    near = np.where(w0 < 0.5, log_ratio(u0 - s, u - s, u0 - u) - log_ratio(u0, u, u0 - u), np.log(w0 / w))
    return leg.time(z0, x) + np.where(late, approach.time(w0, np.where(late, near, 0.0)), 0.0)


def _time_across(course: Depth, u0: Floats, u: Floats, size: Floats) -> Floats:
    falling, fading = course.across()
    z0 = size / (u0 + size)
    grown = log_ratio(u0 + size, u + size, u0 - u)
    x = np.minimum(grown, np.maximum(-np.log(2 * z0), 0.0))
    late = u < size
    first = np.minimum(u0, size)
    y0 = first / (first + size)
    shrunk = log_ratio(u, first, u - first) - log_ratio(u + size, first + size, u - first)
    return falling.time(z0, x) + np.where(late, fading.time(y0, np.where(late, shrunk, 0.0)), 0.0)
