"""Loss against time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydln._base import validate
from pydln.plot import style
from pydln.plot.ensemble import draw
from pydln.trajectory.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["loss"]


def loss(run: Trajectory, *, ax: Axes | None = None, quantity: str = "loss", **line_kw: Any) -> Axes:
    """Draw the loss of every member; the axis states its normalisation.

    Parameters
    ----------
    run : Trajectory
        With `quantity` recorded, (batch, time). Up to 24 members are drawn as thin lines, more as their median with a
        5 % to 95 % band.
    ax : Axes, optional
        Where to draw; a new figure by default.
    quantity : {"loss", "test_loss"}
        Which loss.
    **line_kw
        Passed to every line.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        `run` is no Trajectory, `ax` no Axes.
    NotRecorded
        The trajectory does not hold `quantity`.
    MissingExtra
        matplotlib is not installed.
    """
    validate.instance(run, "run", Trajectory)
    validate.choice(quantity, "quantity", ("loss", "test_loss"))
    values = getattr(run, quantity)
    line_kw = style.line_options(line_kw)
    ax = style.axes(ax)
    label = line_kw.pop("label", None)
    draw(ax, run.t, values, color=line_kw.pop("color", style.OKABE_ITO[0]), label=label, **line_kw)
    ax.set_xlabel(style.TIME_LABEL)
    ax.set_ylabel(style.loss_label(run, quantity))
    if label is not None:
        ax.legend(frameon=False, fontsize="small")
    return ax
