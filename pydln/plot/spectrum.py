"""A measured spectrum beside its law: histogram and density, and eigenvalues in the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pydln._base import validate
from pydln.plot import style
from pydln.spectra import Disk, FussCatalan, JacobianLaw, Law, MarchenkoPastur, Orthogonal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["eigenvalues", "spectrum"]

_LN10 = float(np.log(10.0))
_CURVE = 600
_MOST_POINTS = 20_000


def spectrum(
    log_values: ArrayLike,
    law: Law | None = None,
    *,
    ax: Axes | None = None,
    squared: bool = True,
    bins: int = 80,
    span: tuple[float, float] | None = None,
    color: str | None = None,
    label: str | None = "measured",
) -> Axes:
    """Histogram of logarithms of a spectrum, with the law's density over it.

    The axis is logarithmic: the density is that of log10, so that areas are probabilities.

    Parameters
    ----------
    log_values : array
        ln σ or ln|λ|, of any shape. Minus infinity counts for the normalisation and is not drawn.
    law : Law, optional
        From `pydln.spectra`. Drawn dashed; atoms as arrows of that probability.
    ax : Axes, optional
    squared : bool
        Whether the law is one of squares, as those of singular values are; False for `Disk`.
    bins : int
        Bins over `span`.
    span : (float, float), optional
        In log10 of the value; by default all of the values.
    color, label : str, optional
        Of the histogram.

    Returns
    -------
    Axes
    """
    values = validate.array(log_values, "log_values", finite=False).ravel() / _LN10
    if np.isnan(values).any():
        raise ValueError("log_values: expected numbers or infinities, got NaN")
    shown = values[np.isfinite(values)]
    if shown.size == 0:
        raise ValueError("log_values: expected at least one finite value, got none")
    squared = validate.flag(squared, "squared")
    bins = validate.integer(bins, "bins", at_least=1, at_most=100_000)
    ends = np.array([shown.min(), shown.max()]) if span is None else validate.array(span, "span", shape=("ends",))
    if ends.size != 2 or ends[1] < ends[0]:
        raise ValueError(f"span: expected two numbers that ascend, got {span}")
    if law is not None:
        validate.instance(law, "law", Law)
    axis = style.axes(ax)
    low, high = (float(end) for end in ends)
    if high - low < 1e-6:  # a single point: a bar of finite width
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(shown, bins=bins, range=(low, high))
    heights = counts / (values.size * np.diff(edges))
    paint = color or style.OKABE_ITO[0]
    axis.stairs(heights, edges, fill=True, color=paint, alpha=0.45, label=label)
    axis.stairs(heights, edges, color=paint, linewidth=0.8)
    if law is not None:
        power = 2 if squared else 1
        at = np.linspace(low, high, _CURVE)
        density = law.density_log(power * at * _LN10) * power * _LN10
        if density.any():
            axis.plot(at, density, label=_name(law), **style.THEORY)
        for place, mass in law.log_atoms:
            if np.isfinite(place):
                x = place / _LN10 / power
                axis.plot([x, x], [0, mass / np.diff(edges)[0]], label=_name(law), **style.THEORY)
    axis.set_xlim(low, high)
    axis.set_ylim(bottom=0)
    axis.set_xlabel(r"$\log_{10}\sigma$" if squared else r"$\log_{10}|\lambda|$")
    axis.set_ylabel(r"density (per unit of $\log_{10}$)")
    return axis


def eigenvalues(
    values: ArrayLike,
    *,
    ax: Axes | None = None,
    radius: float | None = None,
    color: str | None = None,
    **marker_kw: Any,
) -> Axes:
    """Eigenvalues as points of the complex plane, with the circle around the law's disk.

    Parameters
    ----------
    values : complex array
        Of any shape. Of more than 20,000 a random choice is drawn, the same every time.
    ax : Axes, optional
    radius : float, optional
        Of the circle that is drawn dashed.
    color : str, optional
    **marker_kw
        For the points, as in `matplotlib.axes.Axes.plot`.

    Returns
    -------
    Axes
    """
    validate.unmasked(values, "values")
    try:
        points = np.asarray(values, dtype=complex).ravel()
    except (TypeError, ValueError, RecursionError):
        raise TypeError(f"values: expected an array of complex numbers, got {type(values).__name__}") from None
    if points.size == 0 or not np.isfinite(points).all():
        raise ValueError("values: expected finite complex numbers, at least one")
    if radius is not None:
        radius = validate.number(radius, "radius", above=0)
    axis = style.axes(ax)
    if points.size > _MOST_POINTS:  # a stride would choose among sorted spectra, and show rings and halves
        points = np.random.default_rng(0).choice(points, _MOST_POINTS, replace=False)
    look: dict[str, Any] = {"linestyle": "none", "marker": ".", "markersize": 2.0, "markeredgewidth": 0.0, "alpha": 0.6}
    look |= {"color": color or style.OKABE_ITO[0], "rasterized": True} | style.line_options(marker_kw)
    axis.plot(points.real, points.imag, **look)
    if radius is not None:
        turn = np.linspace(0, 2 * np.pi, 400)
        axis.plot(radius * np.cos(turn), radius * np.sin(turn), **style.THEORY)
    axis.set_aspect("equal")
    axis.set_xlabel(r"$\mathrm{Re}\,\lambda$")
    axis.set_ylabel(r"$\mathrm{Im}\,\lambda$")
    return axis


def _name(law: Law) -> str:
    if isinstance(law, FussCatalan):
        return "Marchenko–Pastur law" if law.depth == 1 else f"Fuss–Catalan law, M = {law.depth:g}"
    if isinstance(law, Disk):
        return "circular law" if law.depth == 1 else f"disk law, M = {law.depth}"
    named = {MarchenkoPastur: "Marchenko–Pastur law", Orthogonal: "orthogonal", JacobianLaw: "free probability"}
    return named.get(type(law), "law")
