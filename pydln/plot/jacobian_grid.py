"""Singular values of end-to-end Jacobians, a panel for every gain and every input length (S13 fig. 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pydln._base import validate
from pydln.plot import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

__all__ = ["jacobian_grid"]

_BINS = 56
_LEFT, _BOTTOM, _TOP = 0.11, 0.085, 0.925  # where the panels lie in the axes


def jacobian_grid(
    singular_values: Mapping[str, ArrayLike],
    gains: ArrayLike,
    lengths: ArrayLike,
    *,
    decades: tuple[float, float] = (-8.0, 2.0),
    ax: Axes | None = None,
) -> Axes:
    """Draw a grid of histograms over log₁₀ of the singular values, gains down, input lengths across.

    Parameters
    ----------
    singular_values : mapping of str to (n_gains, n_lengths, n) array
        By the name of the ensemble. The first is filled, the others are outlines.
    gains, lengths : (n_gains,), (n_lengths,) array_like
        g, and q of the inputs.
    decades : (float, float)
        Where the axis of log₁₀ begins and ends; smaller values are gathered in the first bin, as the label there says.
    ax : Axes, optional
        Which to fill with panels (`Axes.child_axes`, row by row); a new figure by default.

    Returns
    -------
    Axes
        The frame, itself invisible.

    Raises
    ------
    ValueError, TypeError
        No ensembles, shapes that do not fit, decades that do not ascend.
    MissingExtra
        matplotlib is not installed.
    """
    g = validate.array(gains, "gains", shape=("gains",))
    q = validate.array(lengths, "lengths", shape=("lengths",))
    if not isinstance(singular_values, Mapping):
        raise TypeError(f"singular_values: expected a mapping of names to arrays, got {type(singular_values).__name__}")
    if not singular_values:
        raise ValueError("singular_values: expected at least one ensemble, got none")
    ensembles = {
        name: validate.array(values, f"singular_values[{name!r}]", shape=(g.size, q.size, "n"), at_least=0)
        for name, values in singular_values.items()
    }
    if not g.size or not q.size or any(values.shape[2] == 0 for values in ensembles.values()):
        raise ValueError("singular_values: expected a value for every gain and length, got none")
    ends = validate.array(decades, "decades", shape=("ends",))
    if ends.size != 2:
        raise ValueError(f"decades: expected two numbers, got {ends.size}")
    low, high = (float(end) for end in ends)
    if not low < high:
        raise ValueError(f"decades: expected them to ascend, got {decades}")
    ax = style.axes(ax)
    from matplotlib.ticker import MaxNLocator

    ax.set_axis_off()
    colors = style.mode_colors(len(ensembles))
    edges = np.linspace(low, high, _BINS + 1)
    counted = {name: _shares(values, edges) for name, values in ensembles.items()}
    # Histograms differ by factors of a hundred in height: the axis is logarithmic, from half a value on.
    least = 50.0 / max(values.shape[2] for values in ensembles.values())
    width, height = (1 - _LEFT) / q.size, (_TOP - _BOTTOM) / g.size
    for row, column in np.ndindex(g.size, q.size):
        place = (_LEFT + column * width, _TOP - (row + 1) * height, 0.94 * width, 0.88 * height)
        panel = ax.inset_axes(place)
        for i, (name, color) in enumerate(zip(counted, colors, strict=True)):
            look: dict[str, Any] = {"fill": True, "alpha": 0.75} if i == 0 else {"linewidth": 1.1}
            panel.stairs(100 * counted[name][row, column], edges, baseline=least / 2, color=color, label=name, **look)
        panel.axvline(0.0, color="black", linewidth=0.8, linestyle=":", zorder=0)
        panel.set_xlim(low, high)
        panel.set_yscale("log")
        panel.set_ylim(least, 130.0)
        panel.xaxis.set_major_locator(MaxNLocator(5, prune="both"))
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize="small", labelbottom=row == g.size - 1, labelleft=column == 0)
        if column == 0:
            panel.set_ylabel(f"$g$ = {g[row]:g}", fontsize="medium")
        if row == 0:
            panel.set_title(f"$q^1$ = {q[column]:g}", fontsize="medium")
    handles, labels = panel.get_legend_handles_labels()
    ax.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5 + _LEFT / 2, 1.0), ncols=len(labels), frameon=False
    )
    below = f", those below $10^{{{low:g}}}$ in the first bin"
    ax.text(0.5 + _LEFT / 2, 0.0, rf"$\log_{{10}}$ singular value of the Jacobian{below}", ha="center", va="bottom")
    ax.text(0.0, (_TOP + _BOTTOM) / 2, "% of the singular values per bin", rotation=90, ha="left", va="center")
    return ax


def _shares(values: NDArray[Any], edges: NDArray[Any]) -> NDArray[Any]:
    """The part of the values in every bin along the last axis, all below in the first and above in the last."""
    with np.errstate(divide="ignore"):
        logs = np.clip(np.log10(values), edges[0], np.nextafter(edges[-1], edges[0]))
    place = np.clip(np.searchsorted(edges, logs, side="right") - 1, 0, edges.size - 2)
    shares = np.zeros((*values.shape[:2], edges.size - 1))
    for row, column in np.ndindex(*values.shape[:2]):
        shares[row, column] = np.bincount(place[row, column], minlength=edges.size - 1) / values.shape[2]
    return shares
