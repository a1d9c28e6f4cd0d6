"""S13 fig. 6C: eigenvalues of products of Gaussian matrices gather at zero.

The paper gives: eigenvalues in the complex plane of products of 1, 5 and about 100 independent N × N Gaussian matrices,
N = 1000, 500 realisations. One matrix fills the unit disk evenly (the circular law); the more factors, the more
eigenvalues lie at zero, though some stay next to the unit circle.

The paper leaves unsaid, and here is chosen:

- Entries have variance 1/N; "about 100" factors are 100.
- A random choice of 20,000 points is drawn, for half a million would be a blot; below them is the distribution of |λ|
  of all, where the eye can see how many are at zero.

The theory is the disk law of N → ∞, P(|λ| <= r) = r^{2/M} for M factors. At finite N eigenvalues reach beyond the
circle: for complex factors, |λ|² are products of M independent Gamma(j, 1/N) numbers, j = 1 ... N, in no order (Akemann
& Burda 2012). ln|λ| of the largest thus spreads by ½√(M/N), where the distribution rises by 2/M: a fraction 1/√(2πMN)
lies beyond the circle, and that is the largest distance from the law.

The products are those of figure 6B, and made once if both are asked for; in the paper's size that takes an hour and a
half of one core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import plot
from pydln.plot import style
from pydln.reproduce.checks import Check
from pydln.reproduce.recipe import Job, Numbers, Recipe
from pydln.reproduce.saxe2013._gaussian_products import FACTORS, OPTIONS, factors, products, spread
from pydln.spectra import Disk, compare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["RECIPE"]

SMALL = 0.1  # within this of zero
SHOWN = 1.6  # the axes end here
MODULI, PHASES = "log_eigenvalue_moduli_{}", "eigenvalue_phases_{}"

Floats = NDArray[np.float64]


def compute(job: Job, *, size: int, realisations: int) -> dict[str, ArrayLike]:
    """ln|λ| and arg λ, (realisation, N), of every number of factors."""
    moduli: dict[str, ArrayLike] = {}
    phases: dict[str, ArrayLike] = {}
    for depth, spectrum in products(size, realisations, job, sum(FACTORS) * realisations).items():
        assert spectrum.log_eigenvalue_moduli is not None
        assert spectrum.eigenvalue_phases is not None
        moduli[MODULI.format(depth)], phases[PHASES.format(depth)] = (
            spectrum.log_eigenvalue_moduli,
            spectrum.eigenvalue_phases,
        )
    return {**moduli, **phases, "factors": FACTORS}


def check(numbers: Numbers) -> list[Check]:
    """The moduli against the law of infinite size, with what finite size takes beyond the circle."""
    checks = []
    for depth in FACTORS:
        values, phases = numbers[MODULI.format(depth)], numbers[PHASES.format(depth)]
        law, n = Disk(depth), values.shape[1]
        beyond = float(1 / np.sqrt(2 * np.pi * depth * n))
        found = compare(values, law, log=True)
        checks.append(
            Check.compare(
                f"{factors(depth)}: distance of |λ| from the disk law (Kolmogorov-Smirnov)",
                theory=beyond,
                measured=found.distance,
                tolerance=spread(values, found.at),
                relative=False,
                note=f"{found.count} eigenvalues; largest at |λ| = {np.exp(found.at):.3g}; theory 1/√(2πMN)",
            )
        )
        checks.append(
            Check.compare(
                f"{factors(depth)}: fraction with |λ| < {SMALL:g}",
                theory=float(law.cdf(SMALL)),
                measured=float(np.mean(values < np.log(SMALL))),
                tolerance=spread(values, float(np.log(SMALL))),
                relative=False,
            )
        )
        real = float(np.mean(np.abs(np.sin(phases)) < 1e-12))
        checks.append(
            Check.show(
                f"{factors(depth)}: fraction of real eigenvalues",
                measured=real,
                theory=float(np.sqrt(2 / (np.pi * n))) if depth == 1 else None,
                note="theory for one factor: √(2/πN) (Edelman, Kostlan & Shub 1994)" if depth == 1 else "",
            )
        )
    return checks


def draw(figure: Figure, numbers: Numbers) -> None:
    """Eigenvalues in the plane, and below them how many lie within a radius."""
    axes = figure.subplots(2, len(FACTORS), height_ratios=(1.25, 1.0))
    for k, depth in enumerate(FACTORS):
        color = style.OKABE_ITO[0]
        moduli, phases = (numbers[name.format(depth)].astype(np.float64) for name in (MODULI, PHASES))
        z = np.exp(moduli + 1j * phases)
        plot.eigenvalues(z, ax=axes[0, k], radius=1.0, color=color)
        axes[0, k].set_xlim(-SHOWN, SHOWN)
        axes[0, k].set_ylim(-SHOWN, SHOWN)
        outside = int(np.count_nonzero(np.abs(z.real) > SHOWN) + np.count_nonzero(np.abs(z.imag) > SHOWN))
        if outside:
            axes[0, k].text(
                0.03, 0.03, f"{outside} of {z.size} farther out", transform=axes[0, k].transAxes, fontsize="small"
            )
        axes[0, k].set_title(factors(depth, "Gaussian "), fontsize="medium")
        _draw_distribution(axes[1, k], moduli, depth, color)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    n = moduli.shape[1]
    figure.suptitle(
        rf"eigenvalues $\lambda$ of products of {n} × {n} matrices; dashed: $N \to \infty$", fontsize="large"
    )


def _draw_distribution(ax: Axes, values: Floats, depth: int, color: str) -> None:
    r = np.linspace(0.0, SHOWN, 400)
    ordered = np.sort(values, axis=None)
    with np.errstate(divide="ignore"):
        share = np.searchsorted(ordered, np.log(r), side="right") / ordered.size
    ax.plot(r, share, color=color, linewidth=2.0, label="measured")
    ax.plot(r, np.minimum(r, 1.0) ** (2 / depth), label=f"$r^{{2/{depth}}}$" if depth > 1 else "$r^2$", **style.THEORY)
    ax.set_xlim(0.0, SHOWN)
    ax.set_ylim(0.0, 1.05)
    ax.set_xlabel("$r$")
    ax.set_ylabel(r"fraction with $|\lambda| \leq r$")
    ax.legend(frameon=False, fontsize="small", loc="lower right")


RECIPE = Recipe(
    title="Fig. 6C of Saxe, McClelland & Ganguli (2013): eigenvalues of products of Gaussian matrices",
    inches=(10.0, 6.6),
    options=OPTIONS,
    settings=lambda job, numbers: {
        "N": job.own["size"],
        "realisations": job.own["realisations"],
        "factors": str(FACTORS),
    },
    single=[name.format(depth) for name in (MODULI, PHASES) for depth in FACTORS],
    compute=compute,
    check=check,
    draw=draw,
)
