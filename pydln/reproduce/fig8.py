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

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pydln import plot
from pydln._base import validate
from pydln.plot import style
from pydln.propagation import fixed_point, gaussian_mean, length_map, length_slope, propagate
from pydln.reproduce.checks import Check
from pydln.reproduce.report import Progress, Report, blank, directory, write
from pydln.reproduce.single_layers import single_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TITLE", "run"]

TITLE = "Fig. 8 of Saxe, McClelland & Ganguli (2013): the length map of a tanh network and its fixed point"

WIDTH = {False: 200, True: 1000}
DEPTH = 29  # N_l = 30 layers of units
START = 1.0
GAINS = np.round(np.arange(0.0, 2.05, 0.1), 10)
DRAWS = {False: 20, True: 5}
DRAWN = 5  # networks whose layers are points in the left panel
PRINTED = {1.01: 0.010133, 1.05: 0.053250, 1.1: 0.112750, 1.5: 0.793354, 2.0: 2.121474}  # Simpson's rule, 6 decimals
ENSEMBLES = {"gaussian": "Gaussian", "orthogonal": "orthogonal"}
SIGMAS = 4.5  # fourteen comparisons: one in 10⁴ runs goes beyond by chance

Floats = NDArray[np.float64]


def run(
    out_dir: str | os.PathLike[str],
    *,
    full: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    n_threads: int | None = None,
    width: int | None = None,
) -> Report:
    """Reproduce the figure; see `pydln.reproduce.reproduce` for the common parameters.

    Parameters
    ----------
    n_threads : int, optional
        Not used: the matrix products are NumPy's, whose BLAS has its own threads.
    width : int, optional
        Units per layer: 1000 if `full`, as in the paper, else 200.
    """
    seed = validate.integer(seed, "seed", at_least=0)
    units = validate.integer(WIDTH[bool(full)] if width is None else width, "width", at_least=20)
    folder = directory(out_dir)
    tell = progress or (lambda done, total, what: None)
    figure = blank(10.0, 4.2)

    draws = DRAWS[bool(full)]
    total = len(ENSEMBLES) * draws
    measured = np.empty((len(ENSEMBLES), draws, GAINS.size, DEPTH + 1))
    for i, kind in enumerate(ENSEMBLES):
        for draw in range(draws):
            tell(i * draws + draw, total, f"{ENSEMBLES[kind]} weights, draw {draw + 1}")
            x = np.random.default_rng([seed, draw]).standard_normal(units)
            x *= np.sqrt(START / np.mean(x**2))
            layers = single_layers(kind, units, range(draw * DEPTH, (draw + 1) * DEPTH), seed)
            measured[i, draw] = propagate(layers, x, "tanh", gain=GAINS).q[:, :, 0]
    theory = np.empty((GAINS.size, DEPTH + 1))
    theory[:, 0] = START
    for layer in range(DEPTH):
        theory[:, layer + 1] = length_map(theory[:, layer], "tanh", GAINS)
    resting = fixed_point("tanh", GAINS)
    _draw(figure, measured, theory)
    tell(total, total, "done")
    return write(
        folder,
        "fig8",
        TITLE,
        figure=figure,
        numbers={"g": GAINS, "q_network": measured, "q_map": theory, "q_fixed_point": resting},
        checks=_checks(measured, theory, resting, units),
        settings={
            "full": bool(full),
            "seed": seed,
            "width": units,
            "weight matrices": DEPTH,
            "q of the inputs": START,
            "draws": draws,
        },
    )


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


def _checks(measured: Floats, theory: Floats, resting: Floats, units: int) -> list[Check]:
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


def _draw(figure: Figure, measured: Floats, theory: Floats) -> None:
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
    fine = np.linspace(0.0, 2.0, 201)
    right.plot(fine, fixed_point("tanh", fine), label=r"theory, $q_\infty(g)$", **style.THEORY)
    right.plot(GAINS, theory[:, -1], color="0.55", linewidth=1.0, label=f"theory, {DEPTH} steps of the map")
    right.set_xlabel("gain $g$")
    right.set_ylabel(f"mean squared activity $q$ in layer {DEPTH + 1}")
    right.legend(frameon=False, fontsize="small", loc="upper left")
    right.set_title(f"after {DEPTH} layers, from $q$ = {START:g}", fontsize="medium")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
