"""A first picture of a sweep: the loss of every member, one panel per part, one colour per learning rate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from pydln import plot
from pydln.trajectory import Trajectory

__all__ = ["quick_look"]

_MOST_PANELS = 12
_MOST_NAMED = 6


def quick_look(parts: list[tuple[str, Path, list[dict[str, Any]]]], path: Path) -> bool:
    """Draw the parts, each a title, its npz file and the rows of its members, to `path`.

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
    if not all("loss" in run.names for _, run, _ in runs):
        return False
    across = min(4, len(runs))
    down = math.ceil(len(runs) / across)
    figure = Figure(figsize=(3.6 * across + 0.6, 2.9 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    viridis = matplotlib.colormaps["viridis"]
    for ax, (title, run, rows) in zip(panels.flat, runs, strict=False):
        lr = np.array([row["lr"] for row in rows])
        rates = np.unique(lr)
        for i, rate in enumerate(rates):
            shade = 0.0 if len(rates) == 1 else 0.92 * i / (len(rates) - 1)
            label = f"lr {rate:g}" if len(rates) <= _MOST_NAMED or i in (0, len(rates) - 1) else None
            plot.loss(run[lr == rate], ax=ax, color=matplotlib.colors.to_hex(viridis(shade)), label=label)
        ax.set_title(title, fontsize="medium")
    for ax in panels.flat[len(runs) :]:
        ax.remove()
    figure.savefig(path, dpi=150)
    return True
