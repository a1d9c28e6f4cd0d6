"""S13 fig. 8: the map of activity's mean square from layer to layer, and what is left of it deep in a network.

The paper gives: left, the map q → q' of x^{l+1} = g W φ(x^l), φ = tanh, at g = 1; right, the fixed point q_∞(g) of
theory against a network of N = 1000 units a layer and N_l = 30 layers of units (D = N_l - 1 = 29 weight matrices).

The paper leaves unsaid, and here is chosen: q = 1 for the inputs; g from 0 to 2 in steps of 0.1, the weights the same
for all; both ensembles, Gaussian and orthogonal, which have one mean field; twenty draws of each, five at full width.
Near g = 1 thirty layers are not enough to reach q_∞ (at g = 1 the map's q goes as 1/(2l)), so the table compares the
network with 29 steps of the map and names q_∞ beside it, and the picture shows both.

Tolerances: the q of a wide network scatters about the map, and its mean lies beside it by a term of order 1/N, both
followed through the layers by `_finite_width`. Each layer adds to q' a deviation of variance g⁴ Var φ²(√q z)/N and
passes on V' times what there was. Orthogonal weights turn the length of φ exactly, so that activity lies on a sphere
and φ² scatters about its regression on x² only; Gaussian weights add the 2q²/N of the squares of their entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import plot
from pydln.plot import style
from pydln.propagation import fixed_point, gaussian_mean, length_map, length_slope, propagate
from pydln.reproduce.checks import Check
from pydln.reproduce.recipe import Job, Numbers, Recipe, whole
from pydln.reproduce.single_layers import single_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RECIPE"]

DEPTH = 29  # N_l = 30 layers of units
START = 1.0
GAINS = np.round(np.arange(0.0, 2.05, 0.1), 10)
DRAWS = {False: 20, True: 5}
DRAWN = 5  # networks whose layers are points in the left panel
PRINTED = {1.01: 0.010133, 1.05: 0.053250, 1.1: 0.112750, 1.5: 0.793354, 2.0: 2.121474}  # Simpson's rule, 6 decimals
ENSEMBLES = {"gaussian": "Gaussian", "orthogonal": "orthogonal"}
SIGMAS = 4.5  # fourteen comparisons: one in 10⁴ runs goes beyond by chance

Floats = NDArray[np.float64]


def compute(job: Job, *, width: int) -> dict[str, ArrayLike]:
    """q of every layer of the networks, (ensemble, draw, gain, layer), of the map, and where that comes to rest."""
    draws = DRAWS[job.full]
    measured = np.empty((len(ENSEMBLES), draws, GAINS.size, DEPTH + 1))
    for i, kind in enumerate(ENSEMBLES):
        for draw in range(draws):
            job.tell(i * draws + draw, len(ENSEMBLES) * draws, f"{ENSEMBLES[kind]} weights, draw {draw + 1}")
            x = np.random.default_rng([job.seed, draw]).standard_normal(width)
            x *= np.sqrt(START / np.mean(x**2))
            layers = single_layers(kind, width, range(draw * DEPTH, (draw + 1) * DEPTH), job.seed)
            measured[i, draw] = propagate(layers, x, "tanh", gain=GAINS).q[:, :, 0]
    theory = np.empty((GAINS.size, DEPTH + 1))
    theory[:, 0] = START
    for layer in range(DEPTH):
        theory[:, layer + 1] = length_map(theory[:, layer], "tanh", GAINS)
    fine = np.linspace(0.0, 2.0, 201)
    return {
        "g": GAINS,
        "q_network": measured,
        "q_map": theory,
        "q_fixed_point": fixed_point("tanh", GAINS),
        "g_curve": fine,
        "q_fixed_point_curve": fixed_point("tanh", fine),
        "width": width,
    }


def _finite_width(gain: float, path: Floats, units: int, kind: str) -> tuple[float, float]:
    """Standard deviation of the last q of one network, and how far its mean is from the map's (module docstring)."""
    variance = shift = 0.0
    for layer, q in enumerate(path[:-1]):
        squares = gaussian_mean(lambda x: np.tanh(x) ** 2, q).value
        fourth = gaussian_mean(lambda x: np.tanh(x) ** 4, q).value
        below, slope, above = (float(one) for one in length_slope([0.99 * q, q, 1.01 * q], "tanh", gain))
        bend = (above - below) / (0.02 * q)
        on_sphere = kind == "orthogonal" or layer == 0
        # A Gaussian is a mixture of spheres whose q has variance 2q²/N: on one of them a mean is lower by V'' q²/N.
        shift = slope * shift + bend * (variance / 2 - on_sphere * q**2 / units)
        own = gain**4 * float(fourth - squares**2) - 2 * on_sphere * (q * slope) ** 2
        variance = slope**2 * variance + own / units
    if kind == "gaussian":
        variance += 2 * path[-1] ** 2 / units
    return float(np.sqrt(variance)), shift


def check(numbers: Numbers) -> list[Check]:
    """Fixed points against another integration, networks against the map."""
    measured, theory, resting = numbers["q_network"], numbers["q_map"], numbers["q_fixed_point"]
    units = int(numbers["width"])
    checks = [
        Check.compare(
            f"q_∞ at g = {gain:g}",
            theory=expected,
            measured=float(fixed_point("tanh", gain)),
            tolerance=5.1e-7,
            relative=False,
            note="theory: an independent integration, six decimals",
        )
        for gain, expected in PRINTED.items()
    ]
    checks.append(
        Check.compare(
            "q_∞ at g = 1",
            theory=0.0,
            measured=float(fixed_point("tanh", 1.0)),
            tolerance=0.0,
            relative=False,
            note="the critical gain",
        )
    )
    draws = measured.shape[1]
    for i, kind in enumerate(ENSEMBLES):
        for j, gain in enumerate(GAINS):
            if gain in (0.5, 0.9, 1.0, 1.1, 1.3, 1.5, 2.0):
                mean = float(measured[i, :, j, -1].mean())
                sd, shift = _finite_width(gain, theory[j], units, kind)
                checks.append(
                    Check.compare(
                        f"q of layer {DEPTH + 1} at g = {gain:g}, {ENSEMBLES[kind]} weights",
                        theory=theory[j, -1],
                        measured=mean,
                        tolerance=float((SIGMAS * sd / np.sqrt(draws) + abs(shift)) / theory[j, -1]),
                        note=f"theory: {DEPTH} steps of the map; q_∞ = {resting[j]:.5g}; mean of {draws} networks",
                    )
                )
    return checks


def draw(figure: Figure, numbers: Numbers) -> None:
    """The map at the critical gain with the networks' layers on it, and their last layers against the gain."""
    measured, theory = numbers["q_network"], numbers["q_map"]
    left, right = figure.subplots(1, 2)
    plot.length_map("tanh", [1.0], largest=2.0, start=1.8, ax=left, label="theory, $g$ = 1")
    at_one = int(np.argmin(np.abs(GAINS - 1)))
    for i, name in enumerate(ENSEMBLES.values()):
        look = {"color": style.OKABE_ITO[1 + i], "marker": "os"[i], "markersize": (5, 3.5)[i], "linestyle": "none"}
        steps = measured[i, :DRAWN, at_one]
        left.plot(steps[:, :-1].ravel(), steps[:, 1:].ravel(), label=f"layers of {name} networks", **look)
        ends = measured[i, :, :, -1]
        spread = ends.std(axis=0, ddof=1)
        right.errorbar(GAINS, ends.mean(axis=0), spread, label=f"{name} networks, mean ± SD", elinewidth=1.0, **look)
    left.legend(frameon=False, fontsize="small", loc="upper left")
    left.set_title("length map of tanh at $g$ = 1", fontsize="medium")
    right.plot(numbers["g_curve"], numbers["q_fixed_point_curve"], label=r"theory, $q_\infty(g)$", **style.THEORY)
    right.plot(GAINS, theory[:, -1], color="0.55", linewidth=1.0, label=f"theory, {DEPTH} steps of the map")
    right.set_xlabel("gain $g$")
    right.set_ylabel(f"mean squared activity $q$ in layer {DEPTH + 1}")
    right.legend(frameon=False, fontsize="small", loc="upper left")
    right.set_title(f"after {DEPTH} layers, from $q$ = {START:g}", fontsize="medium")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)


RECIPE = Recipe(
    title="Fig. 8 of Saxe, McClelland & Ganguli (2013): the length map of a tanh network and its fixed point",
    inches=(10.0, 4.2),
    options={"width": whole("Units per layer, in the paper 1000", 200, 1000, at_least=20)},
    settings=lambda job, numbers: {
        "width": job.own["width"],
        "weight matrices": DEPTH,
        "q of the inputs": START,
        "draws": DRAWS[job.full],
    },
    compute=compute,
    check=check,
    draw=draw,
)
