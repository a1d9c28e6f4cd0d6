"""The courses of a balanced mode as tables of polynomials: what the kernel looks up (csrc/ops/balanced_mode.hpp).

v = u/s follows v' = |v|^p (1 - v), p = 2 - 2/D, in T = D |s|^p t. At depths of two and more, infinity included, there
are three courses: below the target (0 < v < 1), above it (v > 1), with the target across zero (v < 0). At lower ones,
which no network has, some of them end in a finite time.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydln.exact.mode_legs import Approach, Depth, Leg

__all__ = ["Branch", "Table", "table"]

Floats = NDArray[Any]
Integers = NDArray[np.int64]

# As in csrc/ops/balanced_mode.hpp. What a polynomial of this degree leaves of Taylor's series in such a cell: 2e-17.
CELL_BITS = 5
CELLS = 1 << CELL_BITS
DEGREE = 7
ORDER = 15
# From |T| = 2^64 on v is a power of T to the last digit, if it does not go exponentially.
OCTAVES = 64
# The tables begin at |v| = 1e7, and reach down to |v| = 1e-304.
FARTHEST = 1e-7
SMALLEST = 1e-304


class Branch(NamedTuple):
    """One side of T = 0: rows of the table, in the order of y = origin + direction T."""

    begin: int
    cells: int
    first: int
    origin: float
    direction: float
    bounds: Floats


class Table(NamedTuple):
    """One course; `between` are the v from which it may be started."""

    rows: Floats
    early: Branch
    late: Branch
    middle: float
    late_is_gap: bool
    last: float
    between: tuple[float, float]

    def for_kernel(self) -> dict[str, object]:
        """As the kernel takes it."""
        return {
            "rows": self.rows,
            "early": self.early._asdict(),
            "late": self.late._asdict(),
            "middle": self.middle,
            "late_is_gap": self.late_is_gap,
            "last": self.last,
        }


class _Cells(NamedTuple):
    """Cells of y, by number: the upper bits of any double in them."""

    number: Integers

    @classmethod
    def of(cls, low: int, high: int) -> _Cells:
        """Those of y between 2^low and 2^high."""
        return cls(np.arange((1023 + low) << CELL_BITS, (1023 + high) << CELL_BITS))

    @property
    def centre(self) -> Floats:
        shift = 52 - CELL_BITS
        return ((self.number << shift) | (1 << (shift - 1))).view(np.float64)

    @property
    def octave(self) -> Floats:
        return (self.number >> CELL_BITS << 52).view(np.float64)


@cache
def _economised() -> Floats:
    """From Taylor's series of order ORDER to the polynomial of DEGREE nearest to it in a cell, without the constant."""
    from numpy.polynomial import chebyshev  # takes milliseconds to import

    scale = (0.5 / CELLS) ** np.arange(ORDER + 1)
    to = np.zeros((ORDER + 1, ORDER + 1))
    back = np.zeros((DEGREE + 1, DEGREE + 1))
    for k, one in enumerate(np.eye(ORDER + 1)):
        to[k, : k + 1] = chebyshev.poly2cheb(one[: k + 1])
    for k, one in enumerate(np.eye(DEGREE + 1)):
        back[k, : k + 1] = chebyshev.cheb2poly(one[: k + 1])
    return (scale[:, None] * to)[:, : DEGREE + 1] @ (back / scale[: DEGREE + 1])[:, 1:]


def _powers(v: Floats, gap: Floats, step: Floats, mu: float, *, of_gap: bool) -> Floats:
    """c_1 ... c_7 of ln|v|, or of ln|1 - v|, around centres of cells at which they are v and `gap`, by Taylor's series.

    With a = sign(v) |v|^-mu: (ln|v|)' = a (1 - v), (ln|1 - v|)' = -a v, a' = -mu a (ln|v|)', v' = v (ln|v|)'.
    """

    def product(x: list[Floats], y: list[Floats], k: int) -> Floats:
        return np.asarray(sum(x[i] * y[k - i] for i in range(k + 1)))

    a, value, rest = [np.sign(v) * np.abs(v) ** -mu], [v], [gap]
    rate: list[Floats] = []
    series = [np.zeros_like(v)]
    for k in range(ORDER):
        rate.append(step * product(a, rest, k))
        series.append((-step * product(a, value, k) if of_gap else rate[k]) / (k + 1))
        a.append(product(a, rate, k) * (-mu / (k + 1)))
        value.append(product(value, rate, k) / (k + 1))
        rest.append(-value[-1])
    return np.stack(series, axis=-1) @ _economised()


def _at_borders(rows: Floats) -> tuple[Floats, Floats]:
    """The polynomials where y leaves their cells and where it enters them."""
    order = np.arange(1, DEGREE + 1)
    half = (0.5 / CELLS) ** order
    return rows[:, 1:] @ half, rows[:, 1:] @ (half * (-1.0) ** order)


def _joined(rows: Floats, octave: Floats) -> Floats:
    """The rows with their values such that neighbours agree at the border, counted from the first.

    What is computed far from T = 0 has the rounding of T or of ln|v|, its ratio to the neighbours that of 1. A value
    too large by a part e belongs to a time that is e / slope off, by the slope of the logarithm, and so do all after.
    """
    upper, lower = _at_borders(rows)
    value, slope = rows[:, 0], rows[:, 1] / octave
    ratio = value[1:] / value[:-1] * np.exp(lower[1:] - upper[:-1])
    late = np.where(np.abs(value[1:]) > SMALLEST, (ratio - 1) / slope[1:], 0.0)
    rows[1:, 0] *= np.exp(-slope[1:] * np.cumsum(late))
    return rows


def _continued(cells: _Cells, rows: Floats, depth: Depth) -> tuple[_Cells, Floats]:
    """More octaves, until the values, which go as y^(1/mu) now, are zero in double precision or y is infinite."""
    last = int(cells.number[-1] >> CELL_BITS)
    # 2^(m/mu), 1/mu = D/(2 - D) in two parts: m times the first is exact.
    above, unit = (1, 0) if math.isinf(depth.value) else depth.value.as_integer_ratio()
    below = 2 * unit - above
    upper = (above << 20) // below
    rest = ((above << 20) - upper * below) / (below << 20)
    octaves = np.arange(1, 1 + min(math.ceil(1080 / abs(above / below)), 2046 - last))
    whole = np.floor(octaves * (upper / 2**20))
    power = np.exp2(octaves * (upper / 2**20) - whole + octaves * rest)
    far = np.tile(rows[-CELLS:], (len(octaves), 1))
    far[:, 0] *= np.repeat(np.ldexp(power, np.maximum(whole, -9999).astype(np.int32)), CELLS)
    return _Cells(np.arange(cells.number[0], (last + 1 + len(octaves)) << CELL_BITS)), np.concatenate([rows, far])


def _branch(cells: _Cells, rows: Floats, begin: int, origin: float, direction: float) -> Branch:
    upper, lower = _at_borders(rows)
    value = np.abs(rows[:, 0])
    bounds = np.append(value * np.exp(lower), value[-1] * np.exp(upper[-1]))
    return Branch(begin, len(rows), int(cells.number[0]), origin, direction, bounds)


def _towards_zero(leg: Leg, origin: float, depth: Depth, direction: float, sign: float) -> tuple[_Cells, Floats]:
    """|v| falls to zero with y = origin + |T| from z = 1/2 on, z = v or |v|/(1 + |v|)."""
    tiny = np.array([math.log(2 * SMALLEST)])
    farthest = float(leg.time(np.array([0.5]), tiny)[0])
    exponential = leg.mu == 0
    octaves = 10 if exponential else min(OCTAVES, math.ceil(math.log2(1 + abs(farthest))))
    cells = _Cells.of(round(math.log2(origin)), octaves)
    theta = cells.centre - origin
    z = 0.5 * np.exp(leg.fall(np.full_like(theta, 0.5), theta, np.full_like(theta, -800.0)))
    v, gap = (z, 1 - z) if sign > 0 else (-z / (1 - z), 1 / (1 - z))
    rows = _joined(
        np.column_stack([v, _powers(v, gap, direction * cells.octave, depth.mu, of_gap=False)]), cells.octave
    )
    return (cells, rows) if exponential else _continued(cells, rows, depth)


def _from_far(leg: Leg, depth: Depth, sign: float) -> tuple[_Cells, Floats, float]:
    """|v| comes from infinity: y is the time since then, z = 1/v or 1/(1 + |v|). And y where z is a half."""
    half, low = np.array([0.5]), 0.1 * FARTHEST
    origin = float(leg.since_zero(half)[0])
    since = float(leg.since_zero(np.array([FARTHEST]))[0])
    cells = _Cells.of(math.floor(math.log2(since)), math.floor(math.log2(origin)) + 1)
    cells = _Cells(cells.number[cells.centre - cells.octave / CELLS <= origin])
    y = cells.centre
    begin = np.full_like(y, low)
    z = low * np.exp(leg.rise(begin, y - leg.since_zero(begin), np.log(0.6 / begin)))
    z += (y - leg.since_zero(z)) * z ** (1 - leg.mu) * (1 - z) ** leg.q  # what the exponential has rounded
    v, gap = (1 / z, (z - 1) / z) if sign > 0 else ((z - 1) / z, 1 / z)
    return cells, np.column_stack([v, _powers(v, gap, cells.octave, depth.mu, of_gap=False)]), origin


def _towards_target(approach: Approach, origin: float, depth: Depth, sign: float) -> tuple[_Cells, Floats]:
    """1 - v falls to zero exponentially with y = origin + T, from w = 1/2 on, w = 1 - v or (v - 1)/v."""
    cells = _Cells.of(round(math.log2(origin)), 10)  # e^-1000 is zero
    theta = cells.centre - origin
    w = 0.5 * np.exp(-approach.invert(np.full_like(theta, 0.5), theta))
    v, gap = (1 - w, w) if sign > 0 else (1 / (1 - w), -w / (1 - w))
    powers = _powers(v, gap, cells.octave, depth.mu, of_gap=True)
    return cells, _joined(np.column_stack([gap, powers]), cells.octave)


@lru_cache(maxsize=16)
def table(course: str, depth: Depth) -> Table:
    """The course `below`, `above` or `across` at a depth of two or more: a few milliseconds, and up to 2 MB."""
    with np.errstate(all="ignore"):
        return _table(course, depth)


def _table(course: str, depth: Depth) -> Table:
    if course == "below":
        leg, approach = depth.below()
        origin = late_origin = 1.0
        early, rows = _towards_zero(leg, origin, depth, -1.0, 1.0)
        # Only starts are looked for here.
        kept = int((rows[:, 0] >= SMALLEST).sum())
        early, rows = _Cells(early.number[:kept]), rows[:kept]
        late, late_rows = _towards_target(approach, late_origin, depth, 1.0)
    else:
        first = depth.above()[0] if course == "above" else depth.across()[0]
        early, rows, origin = _from_far(first, depth, 1.0 if course == "above" else -1.0)
        # No cell may be wide against the distance from the time at which v was infinite.
        late_origin = 2.0 ** math.floor(math.log2(origin))
        if course == "above":
            late, late_rows = _towards_target(depth.above()[1], late_origin, depth, -1.0)
        else:
            late, late_rows = _towards_zero(depth.across()[1], late_origin, depth, 1.0, -1.0)
    beginning, ending = np.abs(rows[:, 0]), np.abs(late_rows[:, 0])
    between = {
        "below": (beginning[-1], 1.0),
        "above": (1.0, beginning[0]),
        "across": (-beginning[0], -ending[ending >= SMALLEST][-1]),
    }[course]
    both = _aligned(len(rows) + len(late_rows))
    np.concatenate([rows, late_rows], out=both)
    return Table(
        both,
        _branch(early, rows, 0, origin, -1.0 if course == "below" else 1.0),
        _branch(late, late_rows, len(rows), late_origin, 1.0),
        {"below": 0.5, "above": 2.0, "across": -1.0}[course],
        course != "across",
        float(late.centre[-1]) - late_origin,
        (float(between[0]), float(between[1])),
    )


def _aligned(rows: int) -> Floats:
    """Rows of a cache line each."""
    size = rows * (DEGREE + 1)
    buffer = np.empty(size + 8)
    offset = -buffer.__array_interface__["data"][0] // 8 % 8
    return buffer[offset : offset + size].reshape(rows, DEGREE + 1)
