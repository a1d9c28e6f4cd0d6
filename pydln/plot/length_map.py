"""The map of the mean squared activity from layer to layer, and where it comes to rest (S13 fig. 8 left)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pydln import propagation
from pydln._base import validate
from pydln.plot import style
from pydln.propagation.fixed_points import all_fixed_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from pydln.activations import Activation

__all__ = ["length_map"]

_POINTS = 201


def length_map(
    activation: str | Activation,
    sigma_w: ArrayLike,
    sigma_b: float = 0.0,
    *,
    largest: float = 2.0,
    start: float | None = None,
    steps: int = 12,
    ax: Axes | None = None,
    **line_kw: Any,
) -> Axes:
    """Draw q' = V(q) for each σ_w over the identity, with a dot at each fixed point other than zero.

    Dots are filled where lengths come to rest, and open where they leave: gelu at σ_w = 1.6, σ_b = 0 lets lengths below
    one die and those above explode. A map that keeps all lengths has no dots.

    Parameters
    ----------
    activation : str or Activation
        φ.
    sigma_w : number or (n,) array_like
        Weights' standard deviations (times √n), S13's g; a curve each.
    sigma_b : float
        Standard deviation of the biases.
    largest : float
        Where the axes end.
    start : float, optional
        Draw as a thin staircase how q goes from here through `steps` layers, for the last σ_w.
    ax : Axes, optional
        Where to draw; a new figure by default.
    **line_kw
        Passed to every curve.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        As for `pydln.propagation.length_map`.
    MissingExtra
        matplotlib is not installed.
    """
    gains = np.atleast_1d(validate.array(sigma_w, "sigma_w", at_least=0))
    b = validate.number(sigma_b, "sigma_b", at_least=0)
    end = validate.number(largest, "largest", above=0)
    count = validate.integer(steps, "steps", at_least=1)
    if gains.ndim != 1 or not gains.size:
        raise ValueError(f"sigma_w: expected a number or a row of them, got shape {gains.shape}")
    q = np.linspace(0.0, end, _POINTS)
    mapped = propagation.length_map(q, activation, gains[:, None], b)
    resting = [all_fixed_points(activation, gain, b, end) for gain in gains]
    line_kw = style.line_options(line_kw)
    ax = style.axes(ax)
    ax.plot([0, end], [0, end], color="0.6", linewidth=0.9, zorder=1, label="$q' = q$")
    colors = style.mode_colors(len(gains))
    for gain, curve, (points, stable), color in zip(gains, mapped, resting, colors, strict=True):
        options: dict[str, Any] = {"color": color, "linewidth": 2.0, "label": rf"$\sigma_w$ = {gain:g}"} | line_kw
        (line,) = ax.plot(q, curve, **options)
        for fixed, rests in zip(points, stable, strict=True):
            face = line.get_color() if rests else "white"
            ax.plot(fixed, fixed, "o", color=line.get_color(), markerfacecolor=face, markersize=5, zorder=4)
    if start is not None:
        x = validate.number(start, "start", at_least=0)
        corners = [(x, 0.0)]
        for _ in range(count):
            y = float(propagation.length_map(x, activation, gains[-1], b))
            corners += [(x, y), (y, y)]
            x = y
        ax.plot(*zip(*corners, strict=True), color="black", linewidth=0.8, zorder=2)
    ax.set_xlim(0, end)
    ax.set_ylim(0, max(end, float(mapped.max())) if b == 0 else None)
    ax.set_xlabel("mean squared activity $q$ of a layer")
    ax.set_ylabel("$q'$ of the next layer")
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return ax
