"""A first picture of a sweep: the loss of every member, one panel per part, one colour per value of an axis."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from pydln import plot
from pydln._base import atomic
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory

__all__ = ["quick_look"]

_MOST_PANELS = 12
_MOST_NAMED = 6
_MOST_VALUES = 60  # lines of each panel that can be told apart, and are drawn in no time


def quick_look(parts: list[tuple[str, Path, list[dict[str, Any]]]], axis: str, path: Path) -> bool:
    """Draw the loss of every member that did not diverge, and dashed the test loss if there is one, to `path`.

    Of an axis with more than sixty values, sixty spread over it are drawn.

    Parameters
    ----------
    parts : list
        For each panel its title, its npz file and the rows of its members; the first twelve are drawn.
    axis : str
        The key of the rows that chooses the colour.
    path : Path
        The picture.

    Returns
    -------
    bool
        False, and nothing is written, if matplotlib is not installed or no loss was recorded.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return False
    runs = [(title, Trajectory.load(file), rows) for title, file, rows in parts[:_MOST_PANELS]]
    quantities = [name for name in ("loss", "test_loss") if name in runs[0][1].names]
    if not quantities:
        return False
    across = min(4, len(runs))
    down = math.ceil(len(runs) / across)
    figure = Figure(figsize=(3.6 * across + 0.6, 2.9 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    viridis = matplotlib.colormaps["viridis"]
    for ax, (title, run, rows) in zip(panels.flat, runs, strict=False):
        healthy = run.status != Status.DIVERGED
        values = np.where(healthy, [row[axis] for row in rows], np.nan)
        distinct = np.unique(values[healthy])
        named = distinct if len(distinct) <= _MOST_NAMED else distinct[[0, -1]]
        lost = np.count_nonzero(~healthy)
        for i in (
            np.unique(np.linspace(0, len(distinct) - 1, _MOST_VALUES).round().astype(int)) if len(distinct) else ()
        ):
            value = distinct[i]
            color = matplotlib.colors.to_hex(viridis(0.92 * i / max(1, len(distinct) - 1)))
            label = f"{axis} {value:g}" if value in named else None
            for quantity, style in zip(quantities, ("-", "--"), strict=False):
                plot.loss(run[values == value], ax=ax, quantity=quantity, color=color, linestyle=style, label=label)
                label = None
        ax.set_title(title + (f" ({lost} diverged)" if lost else ""), fontsize="medium")
        if len(quantities) > 1:
            ax.set_ylabel("loss, and dashed test loss")
    for ax in panels.flat[len(runs) :]:
        ax.remove()
    with atomic.replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)
    return True
