"""Explicit Runge–Kutta methods as numbers: what `pydln.gradient_flow` and the other flows integrate with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln._base import validate

__all__ = ["METHODS", "Method", "method"]

Floats = NDArray[Any]

_CONSISTENT = 1e-10  # published tables have 15 digits and more


@dataclass(frozen=True, eq=False)
class Method:
    """A Butcher tableau whose last stage of a step lies at the new point, with an interpolant.

    Attributes
    ----------
    name : str
    order : int
        The error of the solution at a fixed time is of order h^order.
    exponent : int
        The estimated error of one step is of order h^exponent.
    stages : int
        Stages of a step; the last one is the first of the next step.
    a : (stages + extra, stages + extra) array
        Stage i is the slope at y + h Σ_j a_ij k_j; row `stages` - 1 holds the weights b of the step. Rows beyond are
        stages that only the interpolant needs.
    error : (estimates, stages) array
        The error of a step is estimated by h Σ_j e_j k_j; no rows: steps of fixed length. Of two estimates e, f the
        size is |e|² / √(|e|² + |f|² / 100).
    dense : (stages + extra, powers) array
        y(t + θh) = y + h Σ_i b_i(θ) k_i with b_i(θ) = Σ_p dense_ip θ^(p + 1).
    """

    name: str
    order: int
    exponent: int
    stages: int
    a: Floats
    error: Floats
    dense: Floats

    def __post_init__(self) -> None:
        size = len(np.atleast_1d(self.a))
        for name, wanted in (("a", (size, size)), ("error", (None, self.stages)), ("dense", (size, None))):
            value = np.array(validate.array(getattr(self, name), name), dtype=np.float64, order="C")
            fits = value.ndim == 2 and all(n in (None, m) for n, m in zip(wanted, value.shape, strict=True))
            if not fits or (name == "dense" and not value.shape[1]):
                raise ValueError(f"{name}: expected {_shape_text(wanted)} for {self.stages} stages, got {value.shape}")
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        if not 2 <= self.stages <= size or self.order < 1 or self.exponent < 1:
            raise ValueError(
                f"stages: expected 2 to {size} of them and an order and exponent of at least 1, "
                f"got {self.stages}, {self.order}, {self.exponent}"
            )
        for what, off in (
            ("a: expected zeros on and above the diagonal, for explicit stages", np.triu(self.a)),
            ("a: expected weights of the step that add up to 1", self.b.sum() - 1),
            ("error: expected estimates that vanish for equal slopes", self.error.sum(axis=1)),
            ("dense: expected an interpolant that ends with the weights of the step", self.dense.sum(axis=1) - self.b),
        ):
            if (worst := float(np.abs(off).max(initial=0.0))) > _CONSISTENT:
                raise ValueError(f"{what}, got {worst:.3g} beside it")

    @property
    def c(self) -> Floats:
        """Times of the stages within a step."""
        return np.asarray(self.a.sum(axis=1))

    @property
    def b(self) -> Floats:
        """Weights of the step."""
        return np.asarray(self.a[self.stages - 1])

    @cache  # noqa: B019 - methods live as long as the module; it takes a millisecond
    def growth(self, rtol: float) -> float:
        """The largest z = hρ at which what grows as e^{ρt} is followed to 0.03 rtol per factor e.

        A step multiplies it by R(z) = 1 + Σ_k z^(k+1) b·A^k·1. From 1e-150 on it grows by e^345, and is off by 10 rtol.
        The error of a step, measured against the largest entry of a layer, does not show it.
        """
        size = self.stages - 1
        powers, v = [1.0], np.ones(size)
        for _ in range(size):
            powers.append(float(self.b[:size] @ v))
            v = self.a[:size, :size] @ v
        z = np.geomspace(1e-4, 4, 2000)
        term, off = np.ones_like(z), np.zeros_like(z)  # z^k / k!, R - e^z; what orders below agree in is left out
        for k in range(1, 60):
            term = term * z / k
            if k > self.order:
                off += (powers[k] * z**k if k < len(powers) else 0.0) - term
        beyond = np.abs(off) * np.exp(-z) > 0.03 * rtol * z
        return float(z[max(int(beyond.argmax()) - 1, 0)] if beyond.any() else z[-1])

    def kernel(self, rtol: float = 1e-8) -> dict[str, Any]:
        """The method as the kernel takes it, for steps of relative tolerance `rtol`."""
        return {
            "stages": self.stages,
            "extra": len(self.a) - self.stages,
            "a": self.a,
            "errors": len(self.error),
            "error": self.error,
            "powers": self.dense.shape[1],
            "dense": self.dense,
            "exponent": float(self.exponent),
            "growth": self.growth(rtol),
        }


METHODS = ("tsit5", "dopri5", "dop853", "rk4")
"""Names that `method` knows."""


def method(of: str | Method) -> Method:
    """The method of a name: ``tsit5``, ``dopri5`` (order 5), ``dop853`` (order 8), ``rk4`` (order 4, fixed steps).

    A `Method` of the user's own is taken as it is.
    """
    return of if isinstance(of, Method) else _named(validate.choice(of, "method", METHODS))


@cache
def _named(name: str) -> Method:
    made: Method = {"tsit5": _tsit5, "dopri5": _dopri5, "dop853": _dop853, "rk4": _rk4}[name]()
    return made


def _shape_text(wanted: tuple[int | None, int | None]) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in wanted) + ")"


def _rows(*rows: tuple[float, ...]) -> Floats:
    """Rows below the diagonal as a square matrix, the first one empty."""
    a = np.zeros((len(rows) + 1, len(rows) + 1))
    for i, row in enumerate(rows):
        a[i + 1, : len(row)] = row
    return a


def _through(b: Floats, last: int, bend: Floats, powers: int) -> Floats:
    """The interpolant through both ends with their slopes, bent by θ²(1-θ)² Σ_i bend_i k_i.

    With Δ = hΣ b_i k_i the cubic of Hermite is (3θ² - 2θ³) Δ + θ(1-θ)² h k_first + (θ³ - θ²) h k_last.
    """
    dense = np.zeros((len(b), powers))
    dense[:, 1] = 3 * b + bend
    dense[:, 2] = -2 * b - 2 * bend
    if powers > 3:
        dense[:, 3] = bend
    dense[0, :3] += (1, -2, 1)
    dense[last, 1:3] += (-1, 1)
    return dense


def _rk4() -> Method:
    """Kutta's method, its cubic through the slopes at both ends."""
    a = _rows((1 / 2,), (0, 1 / 2), (0, 0, 1), (1 / 6, 1 / 3, 1 / 3, 1 / 6))
    return Method("rk4", 4, 5, 5, a, np.zeros((0, 5)), _through(a[4], 4, np.zeros(5), 3))


def _dopri5() -> Method:
    """Dormand & Prince (1980); interpolant of order 4 by Hairer, Nørsett & Wanner, section II.6."""
    a = _rows(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    )
    error = np.array([[71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]])
    bend = np.array(
        [
            -12715105075 / 11282082432,
            0,
            87487479700 / 32700410799,
            -10690763975 / 1880347072,
            701980252875 / 199316789632,
            -1453857185 / 822651844,
            69997945 / 29380423,
        ]
    )
    return Method("dopri5", 5, 5, 7, a, error, _through(a[6], 6, bend, 4))


def _tsit5() -> Method:
    """Tsitouras (2011), with his interpolant of order 4."""
    a = _rows(
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    )
    error = np.array(
        [
            [
                -0.00178001105222577714,
                -0.0008164344596567469,
                0.007880878010261995,
                -0.1447110071732629,
                0.5823571654525552,
                -0.45808210592918697,
                1 / 66,
            ]
        ]
    )
    # b_i(θ) = lead θ^k (θ² + p θ + q), as published: powers θ … θ⁴
    dense = np.zeros((7, 4))
    dense[0] = 1.0530884977290216 * np.convolve([1.3299890189751412, -1], [0.7139816917074209, -1.4364028541716351, 1])
    roots = ((1.21712927295533244, 0.61620406037800089), (1.203071208372362603, 0.658047292653547382))
    quadratics = (
        (0.1017, 1.2949852507374631, -2.1966568338249754),
        (2.490627285651252793, 1.57803468208092486, -2.38535645472061657),
        (-16.54810288924490272, roots[0][0] * roots[0][1], -sum(roots[0])),
        (47.37952196281928122, roots[1][0] * roots[1][1], -sum(roots[1])),
        (-34.87065786149660974, 1.2 * 2 / 3, -1.2 - 2 / 3),
        (2.5, 0.6, -1.6),
    )
    for i, (lead, q, p) in enumerate(quadratics, start=1):
        dense[i, 1:] = lead * q, lead * p, lead
    return Method("tsit5", 5, 5, 7, a, error, dense)


def _dop853() -> Method:
    """Dormand & Prince's method of order 8 with estimates of order 5 and 3 and an interpolant of order 7.

    Hairer, Nørsett & Wanner, sections II.5 and II.10; the numbers are those of `scipy.integrate.DOP853`.
    """
    from scipy.integrate import DOP853

    a = np.zeros((16, 16))
    a[:12, :12] = DOP853.A[:12, :12]
    a[12, :12] = DOP853.B
    a[13:] = DOP853.A_EXTRA
    error = np.array([DOP853.E5, DOP853.E3])
    # y + x (F0 + (1-x) (F1 + x (F2 + (1-x) (F3 + …)))) with F0 = Δ, F1 = h k_first - Δ, F2 = 2Δ - h (k_first + k_last)
    # and then the rows of h D K
    delta = a[12]
    first, last = np.eye(16)[0], np.eye(16)[12]
    x, y = np.polynomial.Polynomial([0, 1]), np.polynomial.Polynomial([1, -1])
    dense, shape = np.zeros((16, 7)), np.polynomial.Polynomial([1])
    for i, weights in enumerate((delta, first - delta, 2 * delta - first - last, *DOP853.D)):
        shape = shape * (y if i % 2 else x)
        dense[:, : len(shape.coef) - 1] += np.outer(weights, shape.coef[1:])
    return Method("dop853", 8, 8, 13, a, error, dense)
