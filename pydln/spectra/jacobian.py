"""Squared singular values of the input-output Jacobian of a deep network at its start, by free probability.

J = D_L W_L ⋯ D_1 W_1 with D_l = diag φ'(h_l), the h of every layer N(0, q), N → ∞. Weights and nonlinearities are free
of each other, so S-transforms multiply (Pennington, Schoenholz & Ganguli 2017, section 2):

    S_JJ = (S_WW S_DD)^L,  S_WW = 1/(σ_w² (1 + m)) for Gaussian and 1/σ_w² for orthogonal weights,
    S = (1 + m) / (m M⁻¹(m)),  M(z) = Σ_k m_k z^-k = z G(z) - 1.

With m = M_DD(ζ) = E[d/(ζ - d)], d = φ'(√q h)², as a function of a complex number ζ this becomes explicit,

    ln z = ln ζ^L σ_w^2L - (L - 1) ln((1 + m)/m)  [+ L ln(1 + m) for Gaussian weights],

and the density of ln x is -Im m / π where z = x + i0. For each x the equation is solved at z = -x, where all is real
and there is one solution, and that one is followed while z turns to +x in the upper half plane. There ζ stays in the
upper half plane and m in the lower one, so every logarithm keeps to its principal branch.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pydln._base import validate
from pydln.spectra.law import Floats, Law

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

__all__ = ["JacobianLaw"]

_NODES = 32  # of each panel
_REACH = 9.0  # standard deviations that it covers
_FAR = 340.0  # |ln ζ| that is looked for: ζ² stays in range
_TURNS = 40  # steps from z = -x to z = +x
_LEAST = 1e-150  # of σ_w: its square is a number of full precision
_LAST = 40  # of Newton's at most at the end, of which each halves the distance where x is next to an edge
_GRID = 1200  # points of the table behind the distribution function
_LEFT_OUT = 30.0  # ln of the part of the continuous mass below that table, about
_PIECEWISE = {"linear": ((1.0, 1.0),), "relu": ((0.0, 0.5), (1.0, 0.5)), "leaky_relu": ((1e-4, 0.5), (1.0, 0.5))}


class JacobianLaw(Law):
    """Law of the squared singular values x of the Jacobian of `depth` layers.

    Parameters
    ----------
    activation : str
        One of `pydln.activations.ACTIVATIONS`. The piecewise linear ones have a density in closed form up to the root
        of a polynomial; the others take a numerical integral over N(0, q).
    depth : int
        L, the number of layers.
    sigma_w : float
        Gaussian weights have variance σ_w²/N, orthogonal ones are σ_w times an orthogonal matrix.
    weights : {"gaussian", "orthogonal"}
    q : float, optional
        Variance of the preactivations, the fixed point q* of their length map. Needed where φ' depends on it, that is
        unless φ is piecewise linear.

    Attributes
    ----------
    support : (float, float)
        From 0 to the upper edge. With orthogonal weights the spectrum may begin above 0; the density is zero up to
        there. Two layers of leaky relu with orthogonal weights begin at the lower edge.
    atoms, log_atoms : tuple
        At zero what the nonlinearity shuts off for good (half of it for relu); linear networks with orthogonal weights
        are one atom, and so are the open units of a single layer of them.
    chi : float
        χ = σ_w² E[φ'(√q h)²]: the mean of x is χ^L.

    Raises
    ------
    ValueError
        No q where one is needed; one layer with orthogonal weights and a smooth φ, whose law is that of σ_w² φ'².
    """

    def __init__(
        self,
        activation: str,
        *,
        depth: int,
        sigma_w: float,
        weights: Literal["gaussian", "orthogonal"] = "gaussian",
        q: float | None = None,
    ) -> None:
        from pydln.activations import ACTIVATIONS

        self.activation = validate.choice(activation, "activation", ACTIVATIONS)
        self.depth = validate.integer(depth, "depth", at_least=1, at_most=2**31 - 1)
        self.sigma_w = validate.number(sigma_w, "sigma_w", at_least=_LEAST, at_most=1 / _LEAST)
        self.weights = validate.choice(weights, "weights", ("gaussian", "orthogonal"))
        self.q = None if q is None else validate.number(q, "q", at_least=0)
        smooth = self.activation not in _PIECEWISE
        if smooth and self.q is None:
            raise ValueError(f"q: expected the variance of the preactivations, which {activation} needs, got None")
        if smooth and self.depth == 1 and self.weights == "orthogonal":
            raise ValueError("depth: expected at least 2 with orthogonal weights and a smooth activation, got 1")
        self._d, self._p = _slopes(self.activation, self.q or 0.0)
        self.chi = self.sigma_w**2 * float(self._p @ self._d)
        self._ln_gain = 2 * self.depth * float(np.log(self.sigma_w))
        orthogonal = self.weights == "orthogonal"
        self._point = orthogonal and (len(set(self._d)) == 1 or self.depth == 1)
        places = np.unique(self._d) if self._point else np.array([0.0])
        with np.errstate(divide="ignore"):
            self.log_atoms = tuple(
                (float(self.depth * np.log(d)) + self._ln_gain, float(self._p[self._d == d].sum()))
                for d in places
                if (self._d == d).any()
            )
        # D_2 O D_1 with two values each, half of both: planes turned by an angle that is uniform.
        self._planes = orthogonal and self.depth == 2 and self.activation in ("relu", "leaky_relu")
        self._edge = self._upper_edge()
        with np.errstate(divide="ignore"):
            lowest = self._edge + 2 * float(np.log(self._d.min())) if self._planes else -np.inf
        self._at_zero = np.inf if self._diverges_at_zero() else 0.0
        self._edge_poles = tuple(end for end in (lowest, self._edge) if self._planes and np.isfinite(end))
        with np.errstate(over="ignore", under="ignore"):
            self.support = (float(np.exp(lowest)), float(np.exp(self._edge)))

    def __repr__(self) -> str:
        q = "" if self.q is None else f", q={self.q:g}"
        start = f"{self.activation!r}, depth={self.depth}, sigma_w={self.sigma_w:g}, weights={self.weights!r}"
        return f"JacobianLaw({start}{q})"

    @property
    def variance(self) -> float:
        """Variance of x, χ^{2L} L (μ_2/μ_1² - 1 - s_1), μ_k = E φ'^{2k}, s_1 = -1 for Gaussian weights or 0 (P17)."""
        mean = float(self._p @ self._d)
        spread = float(self._p @ (self._d / mean - 1) ** 2)  # μ_2/μ_1² - 1
        relative = self.depth * (spread + (self.weights == "gaussian"))
        with np.errstate(over="ignore", under="ignore"):
            return float(np.exp(2 * self.depth * np.log(self.chi))) * relative

    # ---- the equation ------------------------------------------------------------------------------------------------
    def _equation(self, zeta: NDArray[np.complex128]) -> tuple[NDArray[np.complex128], ...]:
        """m, ln z and d ln z / d ln ζ."""
        apart = zeta[..., None] - self._d
        m = (self._p * self._d / apart).sum(axis=-1)
        rest = zeta * (self._p / apart).sum(axis=-1)  # 1 + m without cancellation
        slope = -zeta * (self._p * self._d / apart**2).sum(axis=-1)  # dm / d ln ζ
        L = self.depth
        value = self._ln_gain + L * np.log(zeta) - (L - 1) * np.log(rest / m)
        rate = L + (L - 1) * slope / (m * rest)
        if self.weights == "gaussian":
            value = value + L * np.log(rest)
            rate = rate + L * slope / rest
        return m, value, rate

    def _diverges_at_zero(self) -> bool:
        """Whether the continuous density in x has no limit at 0.

        With an atom, p of the d above zero, 1/S ~ (p + m)^L, so that the density goes as x^(1/L - 1). Without one it
        has none for Gaussian weights, x^(1/(L+1) - 1) or more; for orthogonal weights where E[1/d] is infinite:
        gelu has a point of φ' = 0, and erf has d ~ e^(-2qh²), of index 1/(4q). Tanh and softplus have all E[d^-k].
        """
        if self._point:
            return False
        if (self._d == 0).any():
            return self.depth > 1
        if self.weights == "gaussian":
            return True
        return self.activation == "gelu" or (self.activation == "erf" and 4 * (self.q or 0.0) > 1)

    def _upper_edge(self) -> float:
        """ln z at its smallest for real ζ above all d: there two real solutions meet."""
        from scipy.optimize import brentq

        top = float(self._d.max())
        if self._point or self._planes:
            return float(self.depth * np.log(top) + self._ln_gain)

        def rate(s: float) -> float:
            return float(self._equation(np.array(top + np.exp(s), dtype=complex))[2].real)

        near, far = -25.0, float(np.log(4.0 * self.depth + 10))
        # Where all d are nearly one number (smooth φ at a tiny q, orthogonal) the edge is at the largest.
        at = near if rate(near) >= 0 else float(brentq(rate, near, far, xtol=1e-13))
        return float(self._equation(np.array(top + np.exp(at), dtype=complex))[1].real)

    def _m(self, u: Floats) -> NDArray[np.complex128]:
        """m at z = e^u + i0."""
        flat = u.ravel()
        low, high = np.full(flat.shape, -_FAR), np.full(flat.shape, _FAR)
        for _ in range(64):
            middle = 0.5 * (low + high)
            below = self._equation(-np.exp(middle) + 0j)[1].real < flat
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        s: NDArray[np.complex128] = low + 1j * np.pi  # ln ζ
        angles = np.pi * (1 - np.arange(1, _TURNS + 1) / _TURNS) ** 2
        for angle in angles:
            for _ in range(_LAST if angle == 0 else 3):
                _, value, rate = self._equation(np.exp(s))
                step = (value - (flat + 1j * angle)) / rate
                # Near an edge the rate vanishes: no step is longer than one, or leaves the half plane.
                step = step / np.maximum(np.abs(step), 1.0)
                crosses = step.imag > 0.9 * s.imag
                step *= np.where(crosses, 0.9 * s.imag / np.where(crosses, step.imag, 1.0), 1.0)
                s = s - step
                if np.abs(step).max(initial=0.0) < 1e-14:
                    break
        return self._equation(np.exp(s))[0].reshape(u.shape)

    # ---- what laws answer --------------------------------------------------------------------------------------------
    def _inside_log(self, u: Floats) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = u < self._edge
        return inside

    def _middle_log(self) -> float:
        return self._edge - 1.0

    def _density_log(self, u: Floats) -> Floats:
        if self._point:
            return np.zeros_like(u)
        if self._planes:
            return self._planes_density(u)
        density: Floats = np.maximum(-self._m(u).imag, 0.0) / np.pi
        return density

    @cached_property
    def _above(self) -> tuple[CubicSpline, float]:
        """The continuous mass above u = edge - t², as a function of t, and the largest t. In t the edges are smooth."""
        from scipy.interpolate import CubicSpline

        # Denser where t is small: with orthogonal weights the whole mass may be there.
        t = np.sqrt(_LEFT_OUT * (self.depth + 1)) * np.linspace(0.0, 1.0, _GRID) ** 3
        values = np.zeros_like(t)
        values[1:] = self._density_log(self._edge - t[1:] ** 2) * 2 * t[1:]
        return CubicSpline(t, values).antiderivative(), float(t[-1])

    def _cdf_log(self, u: Floats) -> Floats:
        continuous = 1.0 - sum(mass for _, mass in self.atoms)
        if self._point:
            return np.zeros_like(u)
        if self._planes:
            return self._planes_cdf(u) - (1.0 - continuous)
        above, last = self._above
        t = np.sqrt(np.maximum(self._edge - np.maximum(u, self._edge - last**2), 0.0))
        value: Floats = np.clip(continuous - above(t), 0.0, continuous)
        return np.where(u < self._edge - last**2, 0.0, value)

    # In units of the upper edge, ε = min d: at the angle θ the squared singular values x and ε²/x of a plane have
    # √x - ε/√x = (1 - ε) cos θ, where θ in (π/2, π) stands for the smaller one.
    def _planes_density(self, u: Floats) -> Floats:
        v, least = u - self._edge, self._d.min()
        with np.errstate(divide="ignore", invalid="ignore"):
            below, above = -np.expm1(v), -np.expm1(2 * np.log(least) - v)  # 1 - x and (x - ε²)/x
            density = (1 + least * np.exp(-v)) * np.exp(0.5 * v) / (2 * np.pi * np.sqrt(below * above))
        return np.where(below * above > 0, density, 0.0)

    def _planes_cdf(self, u: Floats) -> Floats:
        v, least = np.minimum(u - self._edge, 0.0), self._d.min()
        with np.errstate(invalid="ignore", over="ignore"):
            cosine = (np.exp(0.5 * v) - (least * np.exp(-0.5 * v) if least else 0.0)) / (1 - least)
        value: Floats = 1 - np.arccos(np.clip(cosine, -1, 1)) / np.pi
        return value

    def _moment(self, k: int) -> float:
        """m_k = [m^{k-1}] ((1 + m)/S_JJ)^k / k: Lagrange's inversion of m S/(1 + m) = 1/z."""
        if k == 0:
            return 1.0
        slopes = np.array([float(self._p @ self._d**j) for j in range(1, k + 1)])  # ψ(y)/y of D²
        inverse = np.array([_power(slopes, -n)[n - 1] / n for n in range(1, k + 1)])  # χ(m)/m
        one = np.zeros(k)
        one[: min(k, 2)] = 1.0
        power = 1 - self.depth + (self.depth if self.weights == "gaussian" else 0)
        # Over the k-th power of the mean χ^L, which may lie anywhere.
        series = np.convolve(_power(one, power), _power(inverse * slopes[0], -self.depth))[:k]
        return float(_power(series, k)[k - 1] / k) * float(np.exp(k * self.depth * np.log(self.chi)))


def _slopes(name: str, q: float) -> tuple[Floats, Floats]:
    """Values d of φ'(√q h)², h ~ N(0, 1), and their probabilities."""
    if name in _PIECEWISE:
        d, p = np.array(_PIECEWISE[name]).T
        return d, p
    from pydln.activations import activation

    one = activation(name)
    if q == 0:
        return one.derivative(np.zeros(1)) ** 2, np.ones(1)
    # φ' varies over 1/√q, the density over 1: panels that double in length from the smaller of the two.
    least = min(1.0, 1 / np.sqrt(q))
    edges = np.concatenate([[0.0], np.geomspace(least, _REACH, 1 + int(np.ceil(np.log2(_REACH / least))))])
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = 0.5 * np.diff(edges)[:, None]
    h = (edges[:-1, None] + half * (nodes + 1)).ravel()
    p = (half * weights).ravel() * np.exp(-0.5 * h * h) / np.sqrt(2 * np.pi)
    if not one.odd:  # φ' of an odd φ is even: one side stands for both
        h, p = np.concatenate([-h[::-1], h]), np.concatenate([p[::-1], p])
    return one.derivative(np.sqrt(q) * h) ** 2, p / p.sum()


def _power(series: Floats, n: int) -> Floats:
    """Coefficients of the n-th power, n of either sign, of a power series whose first one is not zero (Euler)."""
    result = np.zeros_like(series)
    result[0] = series[0] ** float(n)
    for i in range(1, len(series)):
        j = np.arange(1, i + 1)
        result[i] = np.sum((j * (n + 1) - i) * series[j] * result[i - j]) / (i * series[0])
    return result
