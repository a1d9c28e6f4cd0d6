"""Input covariances along the modes of a task, and along the inputs themselves (S13 fig. 5 left and centre)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pydln._base import validate
from pydln.analysis.consistency import consistency as measured
from pydln.plot import style
from pydln.task.task import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["consistency"]

_COORDINATES = ("modes", "inputs")


def consistency(task: Task, *, ax: Axes | None = None, along: str = "modes", most: int = 60) -> Axes:
    """Draw VᵀΣ_xxV, which greedy pretraining wants diagonal, or Σ_xx itself.

    Parameters
    ----------
    task : Task
        A single task.
    ax : Axes, optional
        Where to draw; a new figure by default.
    along : {"modes", "inputs"}
        VᵀΣ_xxV in the order of the modes, or Σ_xx.
    most : int
        The largest part of the matrix to draw; of more rows than this the middle ones.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        `task` is no Task or a batched one, `ax` no Axes, `along` neither of the two.
    MissingExtra
        matplotlib is not installed.
    """
    validate.instance(task, "task", Task)
    if task.batch is not None:
        raise ValueError(f"task: expected a single task, got a batch of {task.batch}")
    validate.choice(along, "along", _COORDINATES)
    most = validate.integer(most, "most", at_least=1)
    matrix = measured(task).matrix if along == "modes" else task.sigma_xx
    begin = max((len(matrix) - most) // 2, 0)
    shown = matrix[begin : begin + most, begin : begin + most]
    ax = style.axes(ax)
    from matplotlib.ticker import MaxNLocator

    limit = float(np.abs(shown).max()) or 1.0
    # Entries are centred on the number of their mode or input.
    edges = (begin + 0.5, begin + len(shown) + 0.5)
    image = ax.imshow(
        shown, cmap="PuOr_r", vmin=-limit, vmax=limit, extent=(*edges, *edges[::-1]), interpolation="nearest"
    )
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.85)
    if along == "modes":
        ax.set_xlabel(r"mode $\beta$")
        ax.set_ylabel(r"mode $\alpha$")
        bar.set_label(r"$(V^T \Sigma_{xx} V)_{\alpha\beta}$")
    else:
        ax.set_xlabel("input $j$")
        ax.set_ylabel("input $i$")
        bar.set_label(r"$(\Sigma_{xx})_{ij}$")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.spines[["top", "right"]].set_visible(True)
    return ax
