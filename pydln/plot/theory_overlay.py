"""Theory, dashed and black, on top of a simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydln._base import validate
from pydln.plot import style
from pydln.plot.ensemble import draw
from pydln.plot.loss_curve import loss
from pydln.plot.mode_strengths import strengths
from pydln.trajectory.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

__all__ = ["overlay"]


def overlay(
    simulation: Trajectory,
    theory: Trajectory,
    *,
    ax: Axes | None = None,
    modes: int | Sequence[int] | None = None,
    quantity: str = "strengths",
) -> Axes:
    """Draw a simulation in colour and the theory over it in dashed black.

    Parameters
    ----------
    simulation, theory : Trajectory
        Both with `quantity` recorded, times in units of tau in both. The two need not share their times. A batch of one
        goes with any, on either side.
    ax : Axes, optional
        Where to draw; a new figure by default.
    modes : int or sequence of int, optional
        As for :func:`pydln.plot.strengths`.
    quantity : {"strengths", "loss", "test_loss"}
        What to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        The two have different numbers of modes, or of members with neither of them one; no trajectories.
    NotRecorded
        One of them does not hold `quantity`.
    MissingExtra
        matplotlib is not installed.
    """
    validate.choice(quantity, "quantity", ("strengths", "loss", "test_loss"))
    validate.instance(simulation, "simulation", Trajectory)
    validate.instance(theory, "theory", Trajectory)
    if theory.batch != simulation.batch and 1 not in (theory.batch, simulation.batch):
        raise ValueError(f"theory: expected 1 or {simulation.batch} members, as in the simulation, got {theory.batch}")
    expected = getattr(theory, quantity)
    wide = {"linewidth": 3.0} if simulation.batch == 1 else {}
    if quantity == "strengths":
        total = simulation.strengths.shape[2]
        if expected.shape[2] != total:
            raise ValueError(f"theory: expected {total} modes, as in the simulation, got {expected.shape[2]}")
        ax = strengths(simulation, ax=ax, modes=modes, **wide)
        for mode in style.pick_modes(modes, total):
            draw(ax, theory.t, expected[:, :, mode], band=False, **style.THEORY)
    else:
        ax = loss(simulation, ax=ax, quantity=quantity, **wide)
        draw(ax, theory.t, expected, band=False, **style.THEORY)
    _legend(ax, "0.45" if quantity == "strengths" else style.OKABE_ITO[0])
    return ax


def _legend(ax: Axes, simulated: str) -> None:
    drawn, labels = ax.get_legend_handles_labels()
    handles = [
        style.legend_line(color=simulated, linewidth=2.4),
        style.legend_line(**style.THEORY),
        *drawn,
    ]
    style.legend_beside(ax, handles, ["simulation", "theory", *labels])
