"""The plane of the two layers' strengths of one mode, and how gradient flow moves in it (S13 fig. 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pydln._base import validate
from pydln.plot import style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

__all__ = ["phase_portrait"]

_ARROWS = 19  # along each axis
_LEVELS = (0.25, 1.0, 2.25)  # of |a² - b²|, in units of s


def phase_portrait(
    paths: Sequence[tuple[ArrayLike, ArrayLike]] = (),
    *,
    s: float = 1.0,
    reach: float = 2.0,
    ax: Axes | None = None,
    **line_kw: Any,
) -> Axes:
    """Draw the flow of one mode of a two-layer network, da/dt = b(s - ab), db/dt = a(s - ab), in units of 1/τ.

    Arrows give its direction, their shade its speed. Thin lines are hyperbolas a² - b² = c, on which it stays; the
    solid black ones are its fixed points ab = s; the dashed line is the stable manifold of the saddle at the origin.

    Parameters
    ----------
    paths : sequence of (a, b)
        Trajectories to draw, each a pair of (times,) arrays; a dot marks the start.
    s : float
        Strength of the task's mode, above zero.
    reach : float
        The axes go from -reach √s to reach √s.
    ax : Axes, optional
        Where to draw; a new figure by default.
    **line_kw
        Passed to the line of every path.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        s or reach not above zero, paths that are no pairs of equally long arrays.
    MissingExtra
        matplotlib is not installed.
    """
    s = validate.number(s, "s", above=0)
    end = validate.number(reach, "reach", above=0) * np.sqrt(s)
    courses = [
        _course(path, f"paths[{i}]") for i, path in enumerate(validate.sequence(paths, "paths", "pairs of arrays"))
    ]
    line_kw = style.line_options(line_kw)
    ax = style.axes(ax)
    grey: dict[str, Any] = {"color": "0.72", "linewidth": 0.8, "zorder": 1}

    grid = np.linspace(-end, end, _ARROWS)
    a, b = np.meshgrid(grid, grid)
    da, db = b * (s - a * b), a * (s - a * b)
    speed = np.hypot(da, db)
    moving = speed > 1e-12 * s * end
    ax.quiver(
        a[moving], b[moving], da[moving] / speed[moving], db[moving] / speed[moving], np.log10(speed[moving]),
        cmap="Blues", clim=(-1.5, 1.5), pivot="mid", scale=26, width=0.0035, zorder=1.5,
    )  # fmt: skip

    along = np.linspace(-end, end, 401)
    for level in _LEVELS:
        c = np.sqrt(along**2 + level * s)
        for sign in (-1, 1):
            ax.plot(sign * c, along, **grey)
            ax.plot(along, sign * c, **grey)
    ax.plot(along, along, **grey)
    ax.plot([], [], label=r"conserved: $a^2 - b^2 = c$", **grey)
    right = np.geomspace(s / end, end, 200)
    for sign in (-1, 1):
        ax.plot(sign * right, sign * s / right, color="black", linewidth=1.6, zorder=2.5)
    ax.plot([], [], color="black", linewidth=1.6, label=f"fixed points: $ab = s$ ($s$ = {s:g})")
    ax.plot(along, -along, label="stable manifold: $a = -b$", **style.THEORY)
    ax.plot(0, 0, "o", markersize=6, markerfacecolor="white", markeredgecolor="black", zorder=4)

    for color, (a_t, b_t) in zip(style.mode_colors(max(len(courses), 1) + 1)[1:], courses, strict=False):
        options: dict[str, Any] = {"color": color, "linewidth": 2.2, "zorder": 3.5} | line_kw
        (line,) = ax.plot(a_t, b_t, **options)
        ax.plot(a_t[0], b_t[0], "o", markersize=6, color=line.get_color(), zorder=4)
    ax.set_xlim(-end, end)
    ax.set_ylim(-end, end)
    ax.set_aspect("equal")
    ax.set_xlabel("strength $a$ of the first layer")
    ax.set_ylabel("strength $b$ of the second layer")
    return ax


def _course(path: tuple[ArrayLike, ArrayLike], name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        first, second = path
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a pair of arrays, a and b") from None
    a = validate.array(first, f"{name}[0]", shape=("times",))
    b = validate.array(second, f"{name}[1]", shape=("times",))
    if a.size != b.size or not a.size:
        raise ValueError(f"{name}: expected two arrays of one length, got {a.size} and {b.size}")
    return a, b
