"""S13 fig. 7: singular values of the end-to-end Jacobian of a tanh network with orthogonal weights, near g = 1.

The paper gives: J = ∂x^{D+1}/∂x^1 of x^{l+1} = g W φ(x^l), φ = tanh, orthogonal W, N = 1000 units a layer, N_l = 100
layers of units (D = 99 weight matrices), a grid over g = 0.9, 0.95, 1, 1.05, 1.1 and over the q of the input. It says
that only orthogonal weights near the critical gain keep the singular values of a deep nonlinear network near one.

The paper leaves unsaid, and here is chosen: q = 0.2, 1 and 4; a logarithmic axis; Gaussian weights drawn beside the
orthogonal ones, from which the claim takes its meaning; one draw of the weights, which all panels share. A reduced
network has 200 units and the paper's depth.

What the table compares. In a wide network the layers' Jacobians g W diag(φ') are free of each other, so that along the
length map q^1, q^2, … (Pennington, Schoenholz & Ganguli 2017)

- the mean squared singular value is the product of χ(q^l) = g² E[φ'²],
- the relative variance of squared singular values is the sum of E[φ'⁴]/E[φ'²]² - 1 over the layers, to which each layer
  of Gaussian weights adds 1 and orthogonal ones nothing: that is the whole difference, a hundred against a few.

Gaussian networks have squared singular values over more decades than that variance can be measured on. There the part
of them above a thousandth of the mean is compared with the law of products of D Gaussian matrices (Fuss-Catalan), D
raised, to a number that need not be whole, by what the nonlinearity adds to the variance.

Tolerances are four standard deviations of one network, from the noise of every layer carried through the map
(`_predict`); freeness itself holds up to terms of order K/N relative, for which 4K(1 + K)/N is allowed in the variance
K.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import plot
from pydln.propagation import jacobian_singular_values, length_map
from pydln.propagation.gaussian import hermite
from pydln.reproduce.checks import Check
from pydln.reproduce.recipe import Job, Numbers, Recipe, whole
from pydln.reproduce.single_layers import single_layers
from pydln.spectra import FussCatalan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RECIPE"]

DEPTH = 99  # N_l = 100 layers of units
GAINS = np.array([0.9, 0.95, 1.0, 1.05, 1.1])
LENGTHS = np.array([0.2, 1.0, 4.0])
ENSEMBLES = {"orthogonal": "orthogonal", "gaussian": "Gaussian"}
SIGMAS = 4.0
BELOW_MEAN = 1e-3
NEAR = (0.1, 10.0)
_TOTAL = len(ENSEMBLES) * DEPTH  # layers

Floats = NDArray[np.float64]


def compute(job: Job, *, width: int) -> dict[str, ArrayLike]:
    """Singular values of either ensemble, (gain, length, unit), with what mean field says of the orthogonal ones."""
    direction = np.random.default_rng(job.seed).standard_normal(width)
    direction /= np.sqrt(np.mean(direction**2))
    gain, length = (a.ravel() for a in np.meshgrid(GAINS, LENGTHS, indexing="ij"))
    x = direction * np.sqrt(length)[:, None]
    values: dict[str, ArrayLike] = {}
    for i, kind in enumerate(ENSEMBLES):
        layers = _told(single_layers(kind, width, range(DEPTH), job.seed), job, f"{ENSEMBLES[kind]} weights", i * DEPTH)
        found = jacobian_singular_values(layers, x, "tanh", gain=gain)
        values[kind] = found.reshape(GAINS.size, LENGTHS.size, width)
    predicted = [[_predict(float(g), float(q), width) for q in LENGTHS] for g in GAINS]
    return {
        "g": GAINS,
        "q": LENGTHS,
        "mean_square_theory": [[np.exp(one.log_mean) for one in row] for row in predicted],
        "ln_mean_square_theory": [[one.log_mean for one in row] for row in predicted],
        "ln_mean_square_sd": [[one.log_mean_sd for one in row] for row in predicted],
        "relative_variance_theory": [[one.variance for one in row] for row in predicted],
        "relative_variance_sd": [[one.variance_sd for one in row] for row in predicted],
        **values,
    }


def _told(layers: Iterator[Floats], job: Job, what: str, before: int) -> Iterator[Floats]:
    for layer, w in enumerate(layers):
        job.tell(before + layer, _TOTAL, f"{what}, layer {layer + 1}")
        yield w


@dataclass(frozen=True)
class _Predicted:
    """Mean field of the squared singular values with orthogonal weights, and the scatter of one network about it."""

    log_mean: float
    log_mean_sd: float
    variance: float  # relative to the squared mean
    variance_sd: float


def _predict(gain: float, q: float, units: int) -> _Predicted:
    """Follow q, the log of the mean and the relative variance through the layers, and their joint covariance.

    Orthogonal weights put the activity of each layer on a sphere. Means over units then scatter as the functions
    f = φ², φ'², φ'⁴ do about their regression on z² - 1, with a covariance of order 1/N; a deviation of q moves every
    mean by β/q, β the coefficient of that regression (Stein's lemma). Traces of products of free matrices scatter by
    2K κ/N² relative for each factor of relative variance κ that comes to K.
    """
    z, weights = hermite(96)
    log_mean = variance = traces = 0.0
    covariance = np.zeros((3, 3))  # of q, log mean, relative variance
    for _ in range(DEPTH):
        slope = np.cosh(np.sqrt(q) * z) ** -2.0
        f = np.stack([np.tanh(np.sqrt(q) * z) ** 2, slope**2, slope**4])
        mean = f @ weights
        beta = (f * weights) @ (z**2 - 1) / 2
        rest = f - mean[:, None] - beta[:, None] * (z**2 - 1)
        own = (rest * weights) @ rest.T / units
        enter = np.array([[gain**2, 0, 0], [0, 1 / mean[1], 0], [0, -2 * mean[2] / mean[1] ** 3, 1 / mean[1] ** 2]])
        carry = np.eye(3)
        carry[0, 0] = 0.0
        carry[:, 0] += enter @ (beta / q)
        covariance = carry @ covariance @ carry.T + enter @ own @ enter.T
        kappa = mean[2] / mean[1] ** 2 - 1
        traces += 2 * variance * kappa / units**2
        log_mean += float(np.log(gain**2 * mean[1]))
        variance += float(kappa)
        q = float(length_map(q, "tanh", gain))
    return _Predicted(log_mean, float(np.sqrt(covariance[1, 1] + traces)), variance, float(np.sqrt(covariance[2, 2])))


def check(numbers: Numbers) -> list[Check]:
    """Mean and variance of the squared singular values, and how many are near the mean and near one."""
    values = {kind: numbers[kind] for kind in ENSEMBLES}
    squares = {kind: s**2 for kind, s in values.items()}
    units = values["orthogonal"].shape[-1]
    fields = ("ln_mean_square_theory", "ln_mean_square_sd", "relative_variance_theory", "relative_variance_sd")
    predicted = [
        [_Predicted(*(float(numbers[one][i, j]) for one in fields)) for j in range(LENGTHS.size)]
        for i in range(GAINS.size)
    ]
    checks = []
    for i, j in np.ndindex(GAINS.size, LENGTHS.size):
        where = f"g = {GAINS[i]:g}, q = {LENGTHS[j]:g}"
        theory, found = predicted[i][j], squares["orthogonal"][i, j]
        checks += [
            Check.compare(
                f"ln of the mean squared singular value, orthogonal, {where}",
                theory=theory.log_mean,
                measured=float(np.log(found.mean())),
                tolerance=SIGMAS * theory.log_mean_sd,
                relative=False,
                note="theory: the sum of ln χ along the length map",
            ),
            Check.compare(
                f"relative variance of squared singular values, orthogonal, {where}",
                theory=theory.variance,
                measured=float(found.var() / found.mean() ** 2),
                tolerance=SIGMAS * theory.variance_sd + 4 * theory.variance * (1 + theory.variance) / units,
                relative=False,
                note=f"Gaussian weights: {theory.variance + DEPTH:.1f}",
            ),
        ]
    for i, j in np.ndindex(GAINS.size, LENGTHS.size):
        theory, found = predicted[i][j], squares["gaussian"][i, j]
        checks.append(
            Check.compare(
                f"part of squared singular values above 0.001 of the mean, Gaussian, "
                f"g = {GAINS[i]:g}, q = {LENGTHS[j]:g}",
                theory=1 - float(FussCatalan(DEPTH + theory.variance).cdf(BELOW_MEAN)),
                measured=float(np.mean(found > BELOW_MEAN * np.exp(theory.log_mean))),
                # ln σ of the k-th value scatters as √(D/2(N - k)), and falls by D/2(1 - k/N) from k/N = 0 to 1.
                tolerance=float(SIGMAS * np.sqrt(2 / (units * DEPTH)) + 2 / units),
                relative=False,
                note="theory: Fuss-Catalan; orthogonal: "
                f"{np.mean(squares['orthogonal'][i, j] > BELOW_MEAN * np.exp(theory.log_mean)):.3f}",
            )
        )
    for kind in ENSEMBLES:
        near = np.mean((values[kind] > NEAR[0]) & (values[kind] < NEAR[1]), axis=2)
        for i, gain in enumerate(GAINS):
            checks.append(
                Check.show(
                    f"part of singular values between 0.1 and 10, {ENSEMBLES[kind]}, g = {gain:g}, q = {LENGTHS[0]:g}",
                    measured=float(near[i, 0]),
                    note=", ".join(
                        f"{part:.3f} at q = {q:g}" for part, q in zip(near[i, 1:], LENGTHS[1:], strict=True)
                    ),
                )
            )
    return checks


def draw(figure: Figure, numbers: Numbers) -> None:
    """Histograms of the singular values, gains down, lengths across."""
    ensembles = {f"{name} weights": numbers[kind] for kind, name in ENSEMBLES.items()}
    plot.jacobian_grid(ensembles, numbers["g"], numbers["q"], ax=figure.subplots())


RECIPE = Recipe(
    title="Fig. 7 of Saxe, McClelland & Ganguli (2013): Jacobians of a deep tanh network with orthogonal weights",
    inches=(9.0, 8.4),
    options={"width": whole("Units per layer, in the paper 1000", 200, 1000, at_least=20)},
    settings=lambda job, numbers: {"width": job.own["width"], "weight matrices": DEPTH},
    compute=compute,
    check=check,
    draw=draw,
)
