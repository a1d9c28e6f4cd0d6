"""One mode of a balanced network of any depth with whitened inputs: du/dt = D |u|^(2-2/D) (s - u), both ways round."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import _validate
from pydln.exact.two_layer_mode import mean_decay

__all__ = ["balanced_mode", "balanced_mode_and_gap", "time_to_reach"]

Floats = NDArray[Any]

# Every integral below is split at z = 1/2, so that its series gains a bit a term.
TERMS = 60
NEWTON_STEPS = 12
# Points at a time, so that the dozen temporary arrays of a Newton step stay in cache.
BLOCK = 4096
LONGEST = 1e4
NEGLIGIBLE = 1e-18
SMALLEST = float(np.finfo(np.float64).tiny)


class _Leg(NamedTuple):
    """theta = ∫ z^(mu-1) (1-z)^(-q) dz over 0 < z <= 1/2, term by term: far from the fixed point at z = 1."""

    mu: float
    q: float
    tail: Floats

    @classmethod
    def of(cls, mu: float, q: float) -> _Leg:
        order = np.arange(2, TERMS + 2)
        return cls(mu, q, _binomial(q)[2:] / (order + mu))

    def time(self, z0: Floats, x: Floats) -> Floats:
        """|theta| from z0 to z0 e^x; the two leading exponents may be zero or negative, and are kept apart for it."""
        z = z0 * np.exp(x)
        rest: Floats = np.power(z, self.mu + 2) * _horner(self.tail, z) - np.power(z0, self.mu + 2) * _horner(
            self.tail, z0
        )
        first: Floats = _power_time(self.mu, z0, x)
        return np.asarray(first + self.q * _power_time(self.mu + 1, z0, x) + np.sign(x) * rest)

    def rise(self, z0: Floats, theta: Floats, limit: Floats) -> Floats:
        """x >= 0, up to `limit`, with `time(z0, x)` = theta."""
        return self._invert(z0, theta, 1.0, limit)

    def fall(self, z0: Floats, theta: Floats, limit: Floats) -> Floats:
        """x <= 0, down to `limit`, with `time(z0, x)` = theta."""
        return self._invert(z0, theta, -1.0, limit)

    def _invert(self, z0: Floats, theta: Floats, sign: float, limit: Floats) -> Floats:
        # Newton's method in z^mu/mu: theta is a function of it with slopes between 1/2 and 2 and no inflection.
        low, high = np.minimum(limit, 0.0), np.maximum(limit, 0.0)

        def newton(x: Floats) -> Floats:
            z = z0 * np.exp(x)
            change = sign * (theta - self.time(z0, x)) * np.power(1 - z, self.q) * np.power(z, -self.mu)
            if self.mu == 0:
                return np.asarray(np.clip(x + change, low, high))
            # No z^mu is negative: a step that asks for one has passed the limit.
            within = self.mu * change > -1
            step = np.log1p(np.where(within, self.mu * change, 0.0)) / self.mu
            return np.where(within, np.clip(x + step, low, high), limit)

        return _settle(newton, np.zeros_like(theta))


class _Approach(NamedTuple):
    """theta = ∫ (1-w)^(-q)/w dw over 0 < w <= 1/2: the last part of the way to the fixed point at w = 0."""

    q: float
    series: Floats

    @classmethod
    def of(cls, q: float) -> _Approach:
        return cls(q, _binomial(q)[1:] / np.arange(1, TERMS + 2))

    def time(self, w0: Floats, x: Floats) -> Floats:
        """theta from w0 to w0 e^(-x)."""
        w = w0 * np.exp(-x)
        return np.asarray(x + w0 * _horner(self.series, w0) - w * _horner(self.series, w))

    def invert(self, w0: Floats, theta: Floats) -> Floats:
        """x >= 0 with `time(w0, x)` = theta, by Newton's method: the slope (1-w)^(-q) stays between 1/2 and 4."""

        def newton(x: Floats) -> Floats:
            excess = self.time(w0, x) - theta
            return np.asarray(np.maximum(x - excess * np.power(1 - w0 * np.exp(-x), self.q), 0.0))

        return _settle(newton, theta * np.power(1 - w0, self.q))


def _settle(newton: Callable[[Floats], Floats], x: Floats) -> Floats:
    # Steps shrink quadratically: after one of 1e-9 the next is below rounding. Each point stops by itself, so that its
    # bits do not depend on those beside it.
    moving = np.ones(x.shape, bool)
    for _ in range(NEWTON_STEPS):
        after = np.where(moving, newton(x), x)
        moving &= np.abs(after - x) > 1e-9
        x = after
        if not moving.any():
            break
    return x


def _only(where: NDArray[np.bool_], function: Callable[..., Floats], *arrays: Floats) -> Floats:
    """`function` of the entries in `where`, zero elsewhere."""
    result = np.zeros(where.shape)
    if where.any():
        result[where] = function(*(a[where] for a in arrays))
    return result


def _binomial(q: float) -> Floats:
    """Coefficients of (1-z)^(-q)."""
    order = np.arange(1, TERMS + 2)
    return np.concatenate([[1.0], np.cumprod((q + order - 1) / order)])


def _horner(coefficients: Floats, z: Floats) -> Floats:
    total = np.full_like(z, coefficients[-1])
    for c in coefficients[-2::-1]:
        total *= z
        total += c
    return total


def _log_ratio(a: Floats, b: Floats, difference: Floats) -> Floats:
    """ln(a/b) for a - b = `difference`, with its digits when a and b are close."""
    return np.where(np.abs(difference) < 0.5 * np.abs(b), np.log1p(difference / b), np.log(a / b))


def _power_time(m: float, z0: Floats, x: Floats) -> Floats:
    """|∫ z^(m-1) dz| from z0 to z0 e^x, for every m: the larger power times (1 - e^(-|mx|))/|m|."""
    if m == 0:
        return np.abs(x)
    larger = np.power(z0 * np.exp(np.where(m * x > 0, x, 0.0)), m)
    return np.asarray(larger * -np.expm1(-np.abs(m * x)) / abs(m))


class _Depth(NamedTuple):
    """What follows from the depth D: beta = 2/D, the power p = 2 - beta, and D itself as a rate (1 if infinite)."""

    beta: float
    p: float
    rate: float

    @classmethod
    def of(cls, depth: object) -> _Depth:
        value = float(_validate.array(depth, "depth", shape=(), at_least=1, finite=False))
        if math.isnan(value):
            raise ValueError("depth: expected a number >= 1 or infinity, got nan")
        beta = 2 / value
        return cls(beta, 2 - beta, 1.0 if math.isinf(value) else value)

    # Legs of the three courses, in the variable z that grows towards the fixed point or, last, falls towards zero.
    # below the target: z = u/s;  above: z = s/u;  target across zero: z = |s|/(u + |s|), then z = u/(u + |s|).
    def below(self) -> tuple[_Leg, _Approach]:
        return _Leg.of(self.beta - 1, 1.0), _Approach.of(self.p)

    def above(self) -> tuple[_Leg, _Approach]:
        return _Leg.of(self.p, 1.0), _Approach.of(self.beta - 1)

    def across(self) -> tuple[_Leg, _Leg]:
        return _Leg.of(self.p, self.p), _Leg.of(self.beta - 1, self.beta - 1)


def _arguments(**given: ArrayLike) -> tuple[list[Floats], tuple[int, ...]]:
    """The arguments as flat arrays of one length, and the shape that they broadcast to."""
    bounds: dict[str, Any] = {"t": {"at_least": 0}}
    arrays = [_validate.array(value, name, **bounds.get(name, {})) for name, value in given.items()]
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ValueError(f"{', '.join(given)}: expected shapes that broadcast, got {shapes}") from None
    return [np.broadcast_to(a, shape).ravel() for a in arrays], shape


def balanced_mode(u0: ArrayLike, s: ArrayLike, t: ArrayLike, *, depth: float) -> Floats:
    """Strength of one mode of the product of a balanced deep linear network with whitened inputs.

    Solves du/dt = D |u|^(2-2/D) (s - u), Saxe, McClelland & Ganguli (2013), eq. 15, for every u0 and s: below the
    target (0 < u0 < s), above it (u0 > s > 0), with the target at zero or beyond it (s <= 0 < u0: u decays to zero, for
    1 < depth < 2 in a finite time, and stays there), and the mirror images u -> -u, s -> -s. u0 = 0 stays there unless
    depth = 1.

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
        An argument that is not made of finite numbers, a negative time, depth < 1, shapes that do not broadcast.
    """
    (start, target, times), shape = _arguments(u0=u0, s=s, t=t)
    return balanced_mode_and_gap(start, target, times, depth)[0].reshape(shape)[()]


def balanced_mode_and_gap(u0: Floats, s: Floats, t: Floats, depth: float) -> tuple[Floats, Floats]:
    """`balanced_mode` on flat arrays of one length; s - u too, with its own digits."""
    course = _Depth.of(depth)
    if len(u0) <= BLOCK:
        return _block(course, u0, s, t)
    u, gap = np.empty_like(u0), np.empty_like(u0)
    for k in range(0, len(u0), BLOCK):
        part = slice(k, k + BLOCK)
        u[part], gap[part] = _block(course, u0[part], s[part], t[part])
    return u, gap


def _block(course: _Depth, u0: Floats, s: Floats, t: Floats) -> tuple[Floats, Floats]:
    if course.p == 0:
        fade, gap = np.exp(-t), s - u0
        return np.where(t > 1, s - gap * fade, u0 - gap * np.expm1(-t)), gap * fade
    sign = np.where(u0 < 0, -1.0, 1.0)
    u0, s = u0 * sign, s * sign
    if course.p == 1:
        u, gap = _logistic(u0, s, t)
        return u * sign, gap * sign
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
            (moving & (u0 < s), _below if course.beta > 0 else _below_infinite),
            (moving & (u0 > s) & (s > 0), _above),
            (moving & (s < 0), _across),
        ):
            if where.any():
                u[where], gap[where] = branch(course, u0[where], size[where], theta[where])
    return u * sign, gap * sign


def _logistic(u0: Floats, s: Floats, t: Floats) -> tuple[Floats, Floats]:
    # u = s/(1 + (s/u0 - 1) e^(-2st)), Saxe, McClelland & Ganguli (2013), eq. 12, freed of s = 0 and of overflow.
    size = np.abs(s)
    fade = np.exp(-2 * size * t)
    grown = 2 * u0 * t * mean_decay(2 * size * t)
    u = np.where(s > 0, u0 / np.where(s > 0, fade + grown, 1.0), u0 * fade / (1 + grown))
    u = np.where(u0 == 0, 0.0, u)
    return u, np.where((s > 0) & (u0 > 0), (s - u0) * fade / np.where(u0 > 0, fade + grown, 1.0), s - u)


def _below(course: _Depth, u0: Floats, s: Floats, theta: Floats) -> tuple[Floats, Floats]:
    leg, approach = course.below()
    z0 = np.maximum(u0 / s, SMALLEST)
    limit = np.maximum(-np.log(2 * z0), 0.0)
    spent = leg.time(z0, limit)
    late = theta > spent
    x = _only(~late, leg.rise, z0, theta, limit)
    u_early = u0 * np.exp(x)
    w0 = np.minimum((s - u0) / s, 0.5)
    w = w0 * np.exp(-_only(late, approach.invert, w0, np.minimum(theta - spent, LONGEST)))
    return np.where(late, s * (1 - w), u_early), np.where(late, s * w, s - u_early)


def _below_infinite(course: _Depth, u0: Floats, s: Floats, theta: Floats) -> tuple[Floats, Floats]:
    # u = s/(1 + omega(ln x0 + x0 - s^2 t)), x0 = s/u0 - 1: Saxe, McClelland & Ganguli (2013), eq. 17, solved for u.
    import scipy.special

    x0 = (s - u0) / u0
    x = np.asarray(scipy.special.wrightomega(np.log(x0) + x0 - theta))
    return s / (1 + x), s * (x / (1 + x))


def _above(course: _Depth, u0: Floats, s: Floats, theta: Floats) -> tuple[Floats, Floats]:
    leg, approach = course.above()
    z0 = s / u0
    limit = np.maximum(-np.log(2 * z0), 0.0)
    spent = leg.time(z0, limit)
    late = theta > spent
    x = _only(~late, leg.rise, z0, theta, limit)
    u_early = u0 * np.exp(-x)
    w0 = np.minimum((u0 - s) / u0, 0.5)
    w = w0 * np.exp(-_only(late, approach.invert, w0, np.minimum(theta - spent, LONGEST)))
    return np.where(late, s / (1 - w), u_early), np.where(late, -s * w / (1 - w), s - u_early)


def _across(course: _Depth, u0: Floats, size: Floats, theta: Floats) -> tuple[Floats, Floats]:
    falling, fading = course.across()
    z0 = size / (u0 + size)
    limit = np.maximum(-np.log(2 * z0), 0.0)
    spent = falling.time(z0, limit)
    late = theta > spent
    z = z0 * np.exp(_only(~late, falling.rise, z0, theta, limit))
    first = np.minimum(u0, size)
    y0 = first / (first + size)
    lowest = np.minimum(np.log(SMALLEST / y0), 0.0)
    x = _only(late, fading.fall, y0, theta - spent, lowest)
    y = y0 * np.exp(x)
    u = np.where(late, first * np.exp(x) * ((1 - y0) / (1 - y)), size * (1 - z) / z)
    u = np.where(late & (x <= lowest), 0.0, u)
    return u, -size - u


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
    (start, end, target), shape = _arguments(u0=u0, u=u, s=s)
    return _time(start, end, target, _Depth.of(depth)).reshape(shape)[()]


def _time(u0: Floats, u: Floats, s: Floats, course: _Depth) -> Floats:
    time = np.where(u == u0, 0.0, math.inf)
    if course.p == 0:
        there = (u != u0) & ((u - u0) * (s - u) > 0)
        time[there] = _log_ratio((u0 - s)[there], (u - s)[there], (u0 - u)[there])
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
            time[drifting] = _power_time(-course.p, first, _log_ratio(last, first, last - first)) / course.rate
    return time


def _time_below(course: _Depth, u0: Floats, u: Floats, s: Floats) -> Floats:
    leg, approach = course.below()
    z0 = np.maximum(u0 / s, SMALLEST)
    x = np.minimum(_log_ratio(u, u0, u - u0), np.maximum(-np.log(2 * z0), 0.0))
    late = u > 0.5 * s
    w0, w = np.minimum((s - u0) / s, 0.5), (s - u) / s
    # Both ends close to the target: their ratio from the difference, which is exact.
    near = np.where(w0 < 0.5, _log_ratio(s - u0, s - u, u - u0), np.log(w0 / w))
    return leg.time(z0, x) + np.where(late, approach.time(w0, np.where(late, near, 0.0)), 0.0)


def _time_above(course: _Depth, u0: Floats, u: Floats, s: Floats) -> Floats:
    leg, approach = course.above()
    z0 = s / u0
    x = np.minimum(_log_ratio(u0, u, u0 - u), np.maximum(-np.log(2 * z0), 0.0))
    late = u < 2 * s
    w0, w = np.minimum((u0 - s) / u0, 0.5), (u - s) / u
    near = np.where(w0 < 0.5, _log_ratio(u0 - s, u - s, u0 - u) - _log_ratio(u0, u, u0 - u), np.log(w0 / w))
    return leg.time(z0, x) + np.where(late, approach.time(w0, np.where(late, near, 0.0)), 0.0)


def _time_across(course: _Depth, u0: Floats, u: Floats, size: Floats) -> Floats:
    falling, fading = course.across()
    z0 = size / (u0 + size)
    grown = _log_ratio(u0 + size, u + size, u0 - u)
    x = np.minimum(grown, np.maximum(-np.log(2 * z0), 0.0))
    late = u < size
    first = np.minimum(u0, size)
    y0 = first / (first + size)
    shrunk = _log_ratio(u, first, u - first) - _log_ratio(u + size, first + size, u - first)
    return falling.time(z0, x) + np.where(late, fading.time(y0, np.where(late, shrunk, 0.0)), 0.0)
