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
from pydln.spectra import Disk, compare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["TITLE", "run"]

TITLE = "Fig. 6C of Saxe, McClelland & Ganguli (2013): eigenvalues of products of Gaussian matrices"

SMALL = 0.1  # within this of zero
SHOWN = 1.6  # the axes end here

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

    total = sum(FACTORS) * count
    found = products(n, count, tell, total, seed=seed, n_threads=n_threads)
    moduli, phases = {}, {}
    for depth, spectrum in found.items():
        assert spectrum.log_eigenvalue_moduli is not None
        assert spectrum.eigenvalue_phases is not None
        moduli[depth], phases[depth] = spectrum.log_eigenvalue_moduli, spectrum.eigenvalue_phases
    _draw(figure, moduli, phases, n)
    tell(total, total, "done")
    return write(
        folder,
        "fig6c",
        TITLE,
        figure=figure,
        numbers={f"log_eigenvalue_moduli_{depth}": moduli[depth].astype(np.float32) for depth in FACTORS}
        | {f"eigenvalue_phases_{depth}": phases[depth].astype(np.float32) for depth in FACTORS}
        | {"factors": FACTORS},
        checks=_checks(moduli, phases, n),
        settings={"full": bool(full), "seed": seed, "N": n, "realisations": count, "factors": str(FACTORS)},
    )


def _checks(moduli: dict[int, Floats], phases: dict[int, Floats], n: int) -> list[Check]:
    checks = []
    for depth, values in moduli.items():
        law = Disk(depth)
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
        real = float(np.mean(np.abs(np.sin(phases[depth])) < 1e-12))
        checks.append(
            Check.show(
                f"{factors(depth)}: fraction of real eigenvalues",
                measured=real,
                theory=float(np.sqrt(2 / (np.pi * n))) if depth == 1 else None,
                note="theory for one factor: √(2/πN) (Edelman, Kostlan & Shub 1994)" if depth == 1 else "",
            )
        )
    return checks


def _draw(figure: Figure, moduli: dict[int, Floats], phases: dict[int, Floats], n: int) -> None:
    axes = figure.subplots(2, len(FACTORS), height_ratios=(1.25, 1.0))
    for k, depth in enumerate(FACTORS):
        color = style.OKABE_ITO[0]
        z = np.exp(moduli[depth] + 1j * phases[depth])
        plot.eigenvalues(z, ax=axes[0, k], radius=1.0, color=color)
        axes[0, k].set_xlim(-SHOWN, SHOWN)
        axes[0, k].set_ylim(-SHOWN, SHOWN)
        outside = int(np.count_nonzero(np.abs(z.real) > SHOWN) + np.count_nonzero(np.abs(z.imag) > SHOWN))
        if outside:
            axes[0, k].text(
                0.03, 0.03, f"{outside} of {z.size} farther out", transform=axes[0, k].transAxes, fontsize="small"
            )
        axes[0, k].set_title(factors(depth, "Gaussian "), fontsize="medium")
        _draw_distribution(axes[1, k], moduli[depth], depth, color)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
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
