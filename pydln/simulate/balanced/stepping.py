"""Runge–Kutta steps of many members at once in NumPy, every member with steps of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pydln._base.arrays import blocks
from pydln.simulate.methods import Method
from pydln.trajectory.status import Status

__all__ = ["Coordinates", "Reached", "Recorder", "follow"]

Floats = NDArray[Any]
Integers = NDArray[np.int64]

_SMALL_ERROR = 1e-4
_BISECTIONS = 48  # of a step, as in the kernel of `gradient_flow`
_LOOKS = 8  # kept steps from one look at whether a member rests to the next
_SMOOTH = 1.5  # of h times the fastest decay, as in the kernel of `gradient_flow`: steps that leave nothing to ring
_LITTLE = 1e-3  # of its weight that a number may move by in a step of a member that comes to rest
_ROUNDING = 1e-14
_AT_ONCE = 2**24  # bytes of interpolated points that are made at once


class Coordinates(Protocol):
    """What is followed: the state of a member is a row of numbers."""

    def of(self, members: Integers) -> Self:
        """The same for some of the members, places among these."""

    def slope(self, y: Floats) -> Floats:
        """dy/dt, (members, numbers); not finite where y is no state that the flow can be in."""

    def weight(self, y: Floats) -> Floats:
        """What errors of a number are relative to, (members, numbers) or (members, 1)."""

    def renewed(self, y: Floats, slope: Floats) -> tuple[Floats, Floats]:
        """Another state that stands for the same, and its slope: called after every step that is kept."""

    def rests(self, y: Floats, slope: Floats, left: Floats, rtol: float) -> NDArray[np.bool_]:
        """Whether in the time that is `left` nothing moves that an error of `rtol` would show, (members,)."""


Recorder = Callable[[Any, Integers, Integers, Floats], object]
"""Gets the coordinates, members and indices of times, (points,) each, and (points, numbers) states at these times."""

Reached = Callable[[Any, Integers, Floats], Integers]
"""Gets coordinates, members and their states; the `Status` to stop with of each, below 0 where it goes on."""


def follow(
    path: Coordinates,
    y: Floats,
    times: NDArray[np.float64],
    method: Method,
    *,
    rtol: float,
    atol: float,
    step: float | None,
    max_step: float | None,
    max_steps: int,
    ended: dict[str, NDArray[Any]],
    record: Recorder,
    reached: Reached | None = None,
) -> None:
    """Follows dy/dt = slope(y) from t = 0 to the last of `times`, with the step control of `gradient_flow`.

    A member that has come to rest, `Coordinates.rests`, makes no more steps: bound to about 3 over the fastest
    decay for ever. Where it hardly moves steps are held back to half of that, at which errors do not ring.
    Nothing that is computed for a member depends on another one: sums run over stages, one after the other, largest
    entries take the place of root mean squares.

    Parameters
    ----------
    path : Coordinates
    y : (members, numbers) array
        The starts; replaced by the states where members end.
    times : (time,) array
        Increasing, >= 0.
    method : Method
    rtol, atol, step, max_step, max_steps
        As in `gradient_flow`; the scale of an error is atol + rtol `Coordinates.weight`.
    ended : dict of arrays, (members,) each
        ``status``, ``stopped_at`` (time), ``accepted`` and ``rejected``: written when a member ends.
    record : Recorder
    reached : Reached, optional
        Asked of the starts and at the end of every step; the moment within the step is found by bisection.
    """
    end, final = float(times[-1]), y
    who = np.arange(len(y))
    count = np.zeros(len(y), dtype=np.int64)  # records made
    now, previous, grows = np.zeros(len(y)), np.full(len(y), _SMALL_ERROR), np.ones(len(y), dtype=bool)
    accepted, rejected = np.zeros(len(y), dtype=np.int64), np.zeros(len(y), dtype=np.int64)
    first = path.slope(y)
    speed = np.abs(first / path.weight(y)).max(axis=1)
    following = np.full(len(y), step) if step else 0.01 / speed
    following = np.where(np.isfinite(following) & (following > 0), following, 1e-6 * end)
    limit = np.inf if max_step is None else max_step
    following = np.minimum(following, limit)
    if times[0] == 0:
        record(path, who, np.zeros(len(y), dtype=np.int64), y)
        count += 1
    status = np.full(len(y), Status.COMPLETED if len(times) == count[:1].sum() else -1)
    status[~np.isfinite(first).all(axis=1)] = Status.DIVERGED
    if reached is not None:
        at_once = reached(path, who, y)
        status = np.where(at_once >= 0, at_once, status)
    p = 1 / method.exponent
    while True:
        over = status >= 0
        if over.any():
            gone = who[over]
            final[gone] = y[over]
            ended["status"][gone], ended["stopped_at"][gone] = status[over], now[over]
            ended["accepted"][gone], ended["rejected"][gone] = accepted[over], rejected[over]
            left = np.flatnonzero(~over)
            path, y, first = path.of(left), y[left], first[left]
            who, count, now, previous, grows = who[left], count[left], now[left], previous[left], grows[left]
            accepted, rejected, following = accepted[left], rejected[left], following[left]
        if not who.size:
            return
        ends = now + following * (1 + 1e-8) >= end
        h = np.where(ends, end - now, following)
        slopes = [first]
        point = before = y
        for row in method.a[1 : method.stages]:
            before, point = point, _moved(y, h[:, None], row, slopes)
            slopes.append(path.slope(point))
        error = _error(path, y, point, h, slopes, method, rtol, atol)
        error = np.where(np.isfinite(slopes[-1]).all(axis=1), error, np.nan)
        finite = np.isfinite(error)
        kept = finite & (error <= 1)
        accepted, rejected = accepted + kept, rejected + ~kept
        status = np.full(len(who), -1)
        if len(method.error):
            e = np.maximum(error, _SMALL_ERROR)
            ratio = e ** (0.85 * p) / previous ** (0.2 * p) / 0.9
            longer = np.minimum(h / np.clip(ratio, np.where(grows, 0.1, 1.0), 5), limit)
            shorter = h / np.where(finite, np.clip(error**p / 0.9, 1, 5), 10)
            following, previous = np.where(kept, longer, shorter), np.where(kept, e, previous)
            grows = kept
            stuck = ~kept & ~(now + following > now)
            status[stuck] = np.where(finite, Status.STIFF, Status.DIVERGED)[stuck]
        else:
            status[~kept] = Status.DIVERGED
        spent = (status < 0) & ~(kept & ends) & (accepted + rejected >= max_steps)
        # At the edge of the region of stability h times the largest eigenvalue that the last two stages see is ~3.
        change, way = np.abs(slopes[-1] - slopes[-2]).max(axis=1), np.abs(point - before).max(axis=1)
        held = h * change > 2.5 * way
        if len(method.error):
            # Also of steps that are short of it: the next one would not be.
            near = np.flatnonzero(kept & (h * change > 0.1 * way) & (way > _ROUNDING * np.abs(point).max(axis=1)))
            if near.size:
                moves = np.abs(first[near] / path.of(near).weight(y[near])).max(axis=1)
                near = near[h[near] * moves <= min(100 * rtol, _LITTLE)]
                following[near] = np.minimum(following[near], _SMOOTH * way[near] / change[near])
                held[near] |= h[near] * change[near] > 0.9 * _SMOOTH * way[near]  # held back so
        status[spent] = np.where(held, Status.STIFF, Status.STEP_LIMIT)[spent]
        status[kept & ends] = Status.COMPLETED

        theta, stops, where = np.ones(len(who)), np.zeros(0, dtype=np.int64), y[:0]
        good = np.flatnonzero(kept)
        if reached is not None and good.size:
            asked = reached(path.of(good), who[good], point[good])
            stops = good[asked >= 0]
            if stops.size:
                status[stops] = asked[asked >= 0]
                own = _Between(path.of(stops), y[stops], h[stops], [k[stops] for k in slopes], method)
                theta[stops] = own.first(reached, who[stops])
                where = own.at(theta[stops])
        last = np.where(ends & (theta == 1), end, now + theta * h)
        due = np.where(kept, np.searchsorted(times, last, side="right"), count)
        some = np.flatnonzero(due > count)
        if some.size:
            _record_between(path.of(some), some, who, (count, due), (now, h), times, method, (y, slopes), record)
        count = due
        now = np.where(kept, now + theta * h, now)
        if kept.all():
            y, first = path.renewed(point, slopes[-1])
        elif good.size:
            y, first = y.copy(), first.copy()
            y[good], first[good] = path.of(good).renewed(point[good], slopes[-1][good])
        if stops.size:
            y = y.copy()
            y[stops] = where
        looked = np.flatnonzero(kept & (status < 0) & (accepted % _LOOKS == 0))
        if looked.size and len(method.error):
            resting = looked[path.of(looked).rests(y[looked], first[looked], end - now[looked], rtol)]
            _record_resting(path, resting, who, count, len(times), y, record)
            status[resting], now[resting] = Status.COMPLETED, end


def _record_resting(
    path: Coordinates, resting: Integers, who: Integers, count: Integers, times: int, y: Floats, record: Recorder
) -> None:
    """Shows the state of members that rest to `record`, for all the times that they still lack."""
    place = np.repeat(resting, times - count[resting])
    first = np.cumsum(times - count[resting]) - (times - count[resting])
    which = np.arange(len(place)) - np.repeat(first - count[resting], times - count[resting])
    for part in blocks(len(place), 8 * y.shape[1], at_once=_AT_ONCE):
        own = place[part]
        record(path.of(own), who[own], which[part], y[own])


def _moved(y: Floats, h: Floats, row: Floats, slopes: list[Floats]) -> Floats:
    """y + h Σ_j row_j k_j."""
    total = 0.0
    for c, k in zip(row, slopes, strict=False):
        if c != 0:
            total = total + c * k
    return np.asarray(y + h * total)


def _error(
    path: Coordinates,
    y: Floats,
    new: Floats,
    h: Floats,
    slopes: list[Floats],
    method: Method,
    rtol: float,
    atol: float,
) -> Floats:
    """The error of a step in units of what is tolerated; see `Method.error`."""
    if not len(method.error):
        return np.zeros(len(y))
    scale = atol + rtol * np.maximum(path.weight(y), path.weight(new))
    sizes = []
    for row in method.error:
        e = np.abs(_moved(np.zeros(()), h[:, None], row, slopes))
        sizes.append(np.where(e > 0, e / scale, 0.0).max(axis=1))
    if len(sizes) == 1:
        return np.asarray(sizes[0])
    e, f = sizes
    return np.asarray(np.where(e > 0, e * e / np.sqrt(e * e + 0.01 * f * f), e))


class _Between:
    """What lies within a step of each of some members, from the interpolant of the method."""

    def __init__(self, path: Coordinates, y: Floats, h: Floats, slopes: list[Floats], method: Method) -> None:
        self.path, self.y, self.h, self.method = path, y, h, method
        self.slopes = slopes
        for row in method.a[method.stages :]:
            self.slopes.append(path.slope(_moved(y, h[:, None], row, self.slopes)))

    def at(self, theta: Floats, which: Integers | slice = slice(None)) -> Floats:
        """States at these parts of the step, of all members or of `which`."""
        theta = theta[:, None]
        y, h = self.y[which], self.h[which, None]
        total = np.zeros_like(y)
        for k, powers in zip(self.slopes, self.method.dense, strict=True):
            b = np.zeros_like(theta)
            for coefficient in powers[::-1]:
                b = (b + coefficient) * theta
            total += b * k[which]
        return np.asarray(y + h * total)

    def first(self, reached: Reached, who: Integers) -> Floats:
        """The part of the step at which `who`, who are where they wanted to be at its end, get there."""
        low, high = np.zeros(len(self.y)), np.ones(len(self.y))
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            there = reached(self.path, who, self.at(middle)) >= 0
            low, high = np.where(there, low, middle), np.where(there, middle, high)
        return high


def _record_between(
    path: Coordinates,
    some: Integers,
    who: Integers,
    records: tuple[Integers, Integers],
    steps: tuple[Floats, Floats],
    times: NDArray[np.float64],
    method: Method,
    kept: tuple[Floats, list[Floats]],
    record: Recorder,
) -> None:
    """Shows what lies within a step to `record`."""
    first, due = (a[some] for a in records)
    now, h = (a[some] for a in steps)
    between = _Between(path, kept[0][some], h, [k[some] for k in kept[1]], method)
    many = due - first
    place = np.repeat(np.arange(len(some)), many)
    which = np.arange(len(place)) - np.repeat(np.cumsum(many) - many, many) + first[place]
    theta = np.clip((times[which] - now[place]) / h[place], 0, 1)
    for part in blocks(len(place), 8 * between.y.shape[1], at_once=_AT_ONCE):
        own = place[part]
        record(path, who[some][own], which[part], between.at(theta[part], own))
