"""S13 fig. 6B: singular values of products of Gaussian matrices: a few grow, most vanish.

The paper gives: products of 1, 5 and about 100 independent N × N Gaussian matrices, N = 1000, 500 realisations;
histograms of the singular values. Its message: the deeper the product, the more singular values are next to zero while
a few are large, whereas a product of orthogonal matrices keeps all at one.

The paper leaves unsaid, and here is chosen:

- Entries have variance 1/N: the scale at which ⟨‖Ωx‖²⟩ = ‖x‖².
- "About 100" factors are 100, so that N_l = 101.
- The axis is logarithmic, without which 100 factors would show one bar: their singular values span 190 decades at N =
  1000. A product that is formed keeps the upper sixteen of them; here every value is found by itself.
- An orthogonal product of the same depth stands beside them, from fewer realisations, for nothing in it varies.

The theory is the Fuss-Catalan law of N → ∞. At finite N the k-th moment of the squares is E tr(ΩΩᵀ)^k / N; for k = 1 it
is 1 exactly.

In the paper's size this takes an hour and a half of one core, half of that on two: measured, 10.4 s for a realisation
of the three products with singular values and eigenvalues, so that figure 6C after it in one process has its numbers at
once; and a minute for the orthogonal ones.
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
from pydln.spectra import FussCatalan, compare, random_product_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RECIPE"]

ORTHOGONAL = {False: 4, True: 2}  # realisations
VANISHED = 1e-3  # a singular value below this has vanished

Floats = NDArray[np.float64]


def compute(job: Job, *, size: int, realisations: int) -> dict[str, ArrayLike]:
    """ln σ, (realisation, N), of every number of factors, and of the orthogonal product."""
    few, gaussian = ORTHOGONAL[job.full], sum(FACTORS) * realisations
    total = gaussian + FACTORS[-1] * few
    found = products(size, realisations, job, total)
    job.tell(gaussian, total, f"{FACTORS[-1]} orthogonal factors")
    same = random_product_spectrum("orthogonal", size, FACTORS[-1], batch=few, seed=job.seed, n_threads=job.n_threads)
    return {
        **{_name(depth): _asked(spectrum.log_singular_values) for depth, spectrum in found.items()},
        "log_singular_values_orthogonal": _asked(same.log_singular_values),
        "factors": FACTORS,
    }


def _name(depth: int) -> str:
    return f"log_singular_values_{depth}"


def _asked(values: Floats | None) -> Floats:
    assert values is not None
    return values


def check(numbers: Numbers) -> list[Check]:
    """The Gaussian products against the law of infinite size, the orthogonal ones against one."""
    orthogonal = numbers["log_singular_values_orthogonal"]
    n = orthogonal.shape[1]
    checks = []
    for depth in FACTORS:
        values = numbers[_name(depth)]
        law = FussCatalan(depth)
        squares = np.exp(2 * values)
        traces = squares.mean(axis=1)
        found = compare(2 * values, law, log=True)
        checks.append(
            Check.compare(
                f"{factors(depth)}: distance from the law (Kolmogorov-Smirnov)",
                theory=0.0,
                measured=found.distance,
                tolerance=spread(values, 0.5 * found.at),
                relative=False,
                note=f"{found.count} values; tolerance: one value in N and four standard errors",
            )
        )
        error = float(traces.std(ddof=1) / np.sqrt(len(traces)))
        checks.append(
            Check.compare(
                f"{factors(depth)}: mean square",
                theory=1.0,
                measured=float(traces.mean()),
                tolerance=4 * error,
                relative=False,
                note=f"exact at every N; tolerance: four standard errors of {error:.2g}",
            )
        )
        below = float(np.mean(values < np.log(VANISHED)))
        checks.append(
            Check.compare(
                f"{factors(depth)}: fraction of singular values below {VANISHED:g}",
                theory=float(law.cdf_log(2 * np.log(VANISHED))),
                measured=below,
                tolerance=spread(values, float(np.log(VANISHED))),
                relative=False,
                note="the paper: most vanish" if depth > 5 else "",
            )
        )
        largest = values[:, 0]
        checks.append(
            Check.show(
                f"{factors(depth)}: largest singular value, mean over realisations",
                theory=float(np.sqrt(law.support[1])),
                measured=float(np.exp(largest).mean()),
                note=f"theory: the edge at N → ∞; SD {np.exp(largest).std(ddof=1):.3g}",
            )
        )
    checks.append(
        Check.compare(
            f"{FACTORS[-1]} orthogonal factors: largest |σ - 1|",
            theory=0.0,
            measured=float(np.abs(np.expm1(orthogonal)).max()),
            tolerance=float(FACTORS[-1] * n * np.finfo(float).eps),
            relative=False,
            note="tolerance: rounding of as many products",
        )
    )
    return checks


def draw(figure: Figure, numbers: Numbers) -> None:
    """A histogram for every number of factors with its law, and one of the orthogonal product."""
    axes = figure.subplots(2, 2)
    orthogonal = numbers["log_singular_values_orthogonal"]
    n = orthogonal.shape[1]
    for depth, ax in zip(FACTORS, axes.flat, strict=False):
        values = numbers[_name(depth)].astype(np.float64)
        low = float(np.quantile(values, 0.002 if depth < 50 else 0.0)) / np.log(10)
        high = float(values.max()) / np.log(10)
        plot.spectrum(values, FussCatalan(depth), ax=ax, span=(low, high + 0.03 * (high - low)))
        ax.set_title(factors(depth, "Gaussian "), fontsize="medium")
        below = float(np.mean(values < np.log(VANISHED)))
        ax.text(0.03, 0.7, f"{100 * below:.0f} % below {VANISHED:g}", transform=ax.transAxes, fontsize="small")
    last = axes.flat[-1]
    plot.spectrum(orthogonal, ax=last, span=(-1.0, 1.0), bins=41, color=style.OKABE_ITO[2])
    last.text(0.03, 0.7, "all at 1", transform=last.transAxes, fontsize="small")
    last.set_title(f"{FACTORS[-1]} orthogonal factors", fontsize="medium")
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize="small", loc="upper left")
    figure.suptitle(rf"singular values $\sigma$ of products of {n} × {n} matrices", fontsize="large")


RECIPE = Recipe(
    title="Fig. 6B of Saxe, McClelland & Ganguli (2013): singular values of products of Gaussian matrices",
    inches=(10.0, 6.6),
    options=OPTIONS,
    settings=lambda job, numbers: {
        "N": job.own["size"],
        "realisations": job.own["realisations"],
        "factors": str(FACTORS),
    },
    single=[_name(depth) for depth in FACTORS],
    compute=compute,
    check=check,
    draw=draw,
)
