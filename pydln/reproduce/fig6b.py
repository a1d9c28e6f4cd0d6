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

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pydln import plot
from pydln._base import validate
from pydln.plot import style
from pydln.reproduce.checks import Check
from pydln.reproduce.gaussian_products import FACTORS, factors, products, sizes, spread
from pydln.reproduce.report import Progress, Report, blank, directory, write
from pydln.spectra import FussCatalan, compare, random_product_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TITLE", "run"]

TITLE = "Fig. 6B of Saxe, McClelland & Ganguli (2013): singular values of products of Gaussian matrices"

ORTHOGONAL = {False: 4, True: 2}  # realisations
VANISHED = 1e-3  # a singular value below this has vanished

Floats = NDArray[np.float64]


def run(
    out_dir: str | os.PathLike[str],
    *,
    full: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    n_threads: int | None = None,
    size: int | None = None,
    realisations: int | None = None,
) -> Report:
    """Reproduce the figure; see `pydln.reproduce.reproduce` for the common parameters.

    Parameters
    ----------
    size : int, optional
        N: 1000 if `full`, as in the paper, else 100.
    realisations : int, optional
        Products of each depth: 500 if `full`, as in the paper, else 60.
    """
    seed = validate.integer(seed, "seed", at_least=0)
    n, count = sizes(bool(full), size, realisations)
    folder = directory(out_dir)
    tell = progress or (lambda done, total, what: None)
    figure = blank(10.0, 6.6)
    few = ORTHOGONAL[bool(full)]

    total = sum(FACTORS) * count + FACTORS[-1] * few
    logs = {
        depth: _asked(found.log_singular_values)
        for depth, found in products(n, count, tell, total, seed=seed, n_threads=n_threads).items()
    }
    tell(sum(FACTORS) * count, total, f"{FACTORS[-1]} orthogonal factors")
    same = random_product_spectrum("orthogonal", n, FACTORS[-1], batch=few, seed=seed, n_threads=n_threads)
    orthogonal = _asked(same.log_singular_values)
    _draw(figure, logs, orthogonal, n)
    tell(total, total, "done")
    return write(
        folder,
        "fig6b",
        TITLE,
        figure=figure,
        numbers={f"log_singular_values_{depth}": logs[depth].astype(np.float32) for depth in FACTORS}
        | {"log_singular_values_orthogonal": orthogonal, "factors": FACTORS},
        checks=_checks(logs, orthogonal, n),
        settings={"full": bool(full), "seed": seed, "N": n, "realisations": count, "factors": str(FACTORS)},
    )


def _asked(values: Floats | None) -> Floats:
    assert values is not None
    return values


def _checks(logs: dict[int, Floats], orthogonal: Floats, n: int) -> list[Check]:
    checks = []
    for depth, values in logs.items():
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


def _draw(figure: Figure, logs: dict[int, Floats], orthogonal: Floats, n: int) -> None:
    axes = figure.subplots(2, 2)
    for (depth, values), ax in zip(logs.items(), axes.flat, strict=False):
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
