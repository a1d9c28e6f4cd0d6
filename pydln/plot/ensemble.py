"""How the curves of many networks are drawn: each as a thin line while they can be told apart, else median and band."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_MOST_LINES = 24
_BAND = (0.05, 0.95)
_GRID = 400


def draw(
    ax: Axes,
    t: NDArray[np.float64],
    values: NDArray[Any],
    *,
    color: str | None,
    label: str | None = None,
    band: bool = True,
    **line_kw: Any,
) -> None:
    """Draw ``values`` (batch, time) against ``t``, (time,) or (batch, time), in one colour.

    One member is a line, up to 24 are thin lines, more become their median with a band from the 5th to the 95th
    percentile. Members that stopped early count only while they ran, and a median ends where fewer than half are left.
    Members with times of their own are interpolated onto a common grid for the median.
    """
    batch = len(values)
    if color is not None:
        line_kw["color"] = color
    if batch <= _MOST_LINES:
        style: dict[str, Any] = {"linewidth": 1.8} if batch == 1 else {"linewidth": 0.9, "alpha": 0.7}
        for i, y in enumerate(values):
            ax.plot(t if t.ndim == 1 else t[i], y, label=label if i == 0 else None, **(style | line_kw))
        return
    if t.ndim == 2:
        grid = np.linspace(np.nanmin(t), np.nanmax(t), _GRID)
        values = np.array([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in zip(t, values, strict=True)])
        t = grid
    enough = 2 * np.isfinite(values).sum(axis=0) >= batch
    t, values = t[enough], values[:, enough]
    low, middle, high = np.nanquantile(values, [_BAND[0], 0.5, _BAND[1]], axis=0)
    (line,) = ax.plot(t, middle, label=label, **({"linewidth": 1.8} | line_kw))
    if band:
        ax.fill_between(t, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
