"""Strengths of the modes against time (S13 fig. 3 left)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydln._base import validate
from pydln.plot import style
from pydln.plot.ensemble import draw
from pydln.trajectory.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

__all__ = ["strengths"]


def strengths(
    run: Trajectory, *, ax: Axes | None = None, modes: int | Sequence[int] | None = None, **line_kw: Any
) -> Axes:
    """Draw the strengths u_alpha(t) of a trajectory, one colour per mode.

    Parameters
    ----------
    run : Trajectory
        With ``strengths`` recorded, (batch, time, mode). Up to 24 members are drawn as thin lines, more as their
        median with a 5 % to 95 % band.
    ax : Axes, optional
        Where to draw; a new figure by default.
    modes : int or sequence of int, optional
        Modes to draw, as indices from 0; the legend counts from 1, as the papers do. By default all modes, or eight
        spread over the spectrum if there are more than ten.
    **line_kw
        Passed to every line. With ``color`` the modes share it and the legend leaves them out.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        `run` is no Trajectory, `ax` no Axes.
    NotRecorded
        The trajectory holds no strengths.
    MissingExtra
        matplotlib is not installed.
    """
    validate.instance(run, "run", Trajectory)
    values = run.strengths
    chosen = style.pick_modes(modes, values.shape[2])
    line_kw = style.line_options(line_kw)
    ax = style.axes(ax)
    color, label = line_kw.pop("color", None), line_kw.pop("label", None)
    named = color is None and label is None
    colors = style.mode_colors(len(chosen)) if color is None else [color] * len(chosen)
    for i, (mode, one) in enumerate(zip(chosen, colors, strict=True)):
        text = f"$u_{{{mode + 1}}}$" if named else label if i == 0 else None
        draw(ax, run.t, values[:, :, mode], color=one, label=text, **line_kw)
    ax.set_xlabel(style.TIME_LABEL)
    ax.set_ylabel(r"mode strength $u_\alpha$")
    if named or label is not None:
        style.legend_beside(ax, *ax.get_legend_handles_labels())
    return ax
