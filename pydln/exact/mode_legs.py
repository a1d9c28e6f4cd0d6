"""The time that a balanced mode takes, as integrals split at z = 1/2, and their inversion with care."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydln._base import validate

__all__ = ["Approach", "Depth", "Leg", "log_ratio", "only", "power_time"]

Floats = NDArray[Any]

# Every integral below is split at z = 1/2, so that its series gains a bit a term.
TERMS = 60
NEWTON_STEPS = 12


class Leg(NamedTuple):
    """theta = ∫ z^(mu-1) (1-z)^(-q) dz over 0 < z <= 1/2, term by term: far from the fixed point at z = 1."""

    mu: float
    q: float
    tail: Floats

    @classmethod
    def of(cls, mu: float, q: float) -> Leg:
        """With its series."""
        order = np.arange(2, TERMS + 2)
        return cls(mu, q, _binomial(q)[2:] / (order + mu))

    def time(self, z0: Floats, x: Floats) -> Floats:
        """|theta| from z0 to z0 e^x; the two leading exponents may be zero or negative, and are kept apart for it."""
        z = z0 * np.exp(x)
        rest: Floats = np.power(z, self.mu + 2) * _horner(self.tail, z) - np.power(z0, self.mu + 2) * _horner(
            self.tail, z0
        )
        first: Floats = power_time(self.mu, z0, x)
        return np.asarray(first + self.q * power_time(self.mu + 1, z0, x) + np.sign(x) * rest)

    def since_zero(self, z: Floats) -> Floats:
        """theta from 0 to z, mu > 0."""
        first = np.power(z, self.mu) / self.mu + self.q * np.power(z, self.mu + 1) / (self.mu + 1)
        return np.asarray(first + np.power(z, self.mu + 2) * _horner(self.tail, z))

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


class Approach(NamedTuple):
    """theta = ∫ (1-w)^(-q)/w dw over 0 < w <= 1/2: the last part of the way to the fixed point at w = 0."""

    q: float
    series: Floats

    @classmethod
    def of(cls, q: float) -> Approach:
        """With its series."""
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


def only(where: NDArray[np.bool_], function: Callable[..., Floats], *arrays: Floats) -> Floats:
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


def log_ratio(a: Floats, b: Floats, difference: Floats) -> Floats:
    """ln(a/b) for a - b = `difference`, with its digits when a and b are close."""
    return np.where(np.abs(difference) < 0.5 * np.abs(b), np.log1p(difference / b), np.log(a / b))


def power_time(m: float, z0: Floats, x: Floats) -> Floats:
    """|∫ z^(m-1) dz| from z0 to z0 e^x, for every m: the larger power times (1 - e^(-|mx|))/|m|."""
    if m == 0:
        return np.abs(x)
    larger = np.power(z0 * np.exp(np.where(m * x > 0, x, 0.0)), m)
    return np.asarray(larger * -np.expm1(-np.abs(m * x)) / abs(m))


class Depth(NamedTuple):
    """The depth D and what follows from it: mu = 2/D - 1 and the power p = 2 - 2/D = 1 - mu."""

    value: float
    mu: float
    p: float

    @classmethod
    def of(cls, depth: object) -> Depth:
        """Checked: a number of one or more, or infinity."""
        value = float(validate.array(depth, "depth", shape=(), at_least=1, finite=False))
        if math.isnan(value):
            raise ValueError("depth: expected a number >= 1 or infinity, got nan")
        # Near depth two 2/D - 1 would keep few digits.
        mu = -1.0 if math.isinf(value) else (2 - value) / value
        return cls(value, mu, 1 - mu)

    @property
    def rate(self) -> float:
        """D as a rate, 1 if it is infinite."""
        return 1.0 if math.isinf(self.value) else self.value

    # Legs of the three courses, in the variable z that grows towards the fixed point or, last, falls towards zero.
    def below(self) -> tuple[Leg, Approach]:
        """Below the target: z = u/s."""
        return Leg.of(self.mu, 1.0), Approach.of(self.p)

    def above(self) -> tuple[Leg, Approach]:
        """Above the target: z = s/u."""
        return Leg.of(self.p, 1.0), Approach.of(self.mu)

    def across(self) -> tuple[Leg, Leg]:
        """The target across zero: z = |s|/(u + |s|), then z = u/(u + |s|)."""
        return Leg.of(self.p, self.p), Leg.of(self.mu, self.mu)
