"""Colours, labels and axes that every figure shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydln._base import validate
from pydln.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from pydln.trajectory.trajectory import Trajectory

__all__ = [
    "OKABE_ITO",
    "THEORY",
    "TIME_LABEL",
    "axes",
    "legend_beside",
    "legend_line",
    "line_options",
    "loss_label",
    "mode_colors",
    "pick_modes",
]

# Okabe & Ito (2008), told apart with any colour vision. Black is kept for theory; yellow is too faint on white.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")

THEORY: dict[str, Any] = {"color": "black", "linestyle": (0, (4, 2)), "linewidth": 1.1, "zorder": 3.0}
TIME_LABEL = r"time $t$ (units of $\tau = 1/\eta$)"

_MOST_MODES = 10


def axes(ax: Axes | None) -> Axes:
    """`ax`, or the axes of a new figure.

    Raises
    ------
    TypeError
        Something that is no Axes.
    MissingExtra
        matplotlib is not installed.
    """
    try:
        from matplotlib.axes import Axes
    except ImportError:
        raise MissingExtra.of("matplotlib", "plot", "pydln.plot") from None
    if ax is not None:
        if not isinstance(ax, Axes):
            raise TypeError(f"ax: expected matplotlib Axes, got {type(ax).__name__}")
        return ax
    import matplotlib.pyplot as plt

    fresh: Axes = plt.subplots(figsize=(5.4, 3.6), layout="constrained")[1]
    fresh.spines[["top", "right"]].set_visible(False)
    return fresh


def line_options(line_kw: dict[str, Any]) -> dict[str, Any]:
    """`line_kw` by the long names, ``linewidth`` for ``lw``, so that they replace our own.

    Raises
    ------
    TypeError
        Both names of one option.
    MissingExtra
        matplotlib is not installed.
    """
    try:
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.lines import Line2D
    except ImportError:
        raise MissingExtra.of("matplotlib", "plot", "pydln.plot") from None
    return dict(normalize_kwargs(line_kw, Line2D))


def legend_line(**line_kw: Any) -> Line2D:
    """A line for a legend that stands for no curve in particular."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **line_kw)


def legend_beside(ax: Axes, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """A legend right of `ax`, where it can cover no curve, its lines thick enough to tell the colours apart."""
    place = {"bbox_to_anchor": (1.0, 0.5), "frameon": False, "fontsize": "small"}
    legend = ax.legend(handles, labels, loc="center left", **place)
    for line in legend.get_lines():
        line.set_linewidth(max(line.get_linewidth(), 1.6))
        line.set_alpha(1.0)


def mode_colors(count: int) -> list[str]:
    """`count` colours: Okabe-Ito up to six, then viridis without its ends, black and palest."""
    if count <= len(OKABE_ITO):
        return list(OKABE_ITO[:count])
    import matplotlib
    from matplotlib.colors import to_hex

    viridis = matplotlib.colormaps["viridis"]
    return [to_hex(viridis(0.12 + 0.8 * i / (count - 1))) for i in range(count)]


def pick_modes(modes: int | Sequence[int] | None, total: int) -> list[int]:
    """The modes to draw, as indices from 0: those asked for, or all of them up to ten, or eight spread evenly."""
    if modes is None:
        if total <= _MOST_MODES:
            return list(range(total))
        return [round(i * (total - 1) / 7) for i in range(8)]
    validate.unmasked(modes, "modes")
    single = not hasattr(modes, "__iter__") or validate.is_single(modes)
    asked = [modes] if single else validate.sequence(modes, "modes", "integers")
    chosen = [validate.integer(m, f"modes[{i}]", at_least=-total, at_most=total - 1) for i, m in enumerate(asked)]
    if not chosen:
        raise ValueError("modes: expected at least one mode, got none")
    return [m % total for m in chosen]


def loss_label(run: Trajectory, quantity: str) -> str:
    """The axis label of a loss, with its normalisation where the trajectory knows it."""
    over = {"mean": "mean over samples", "sum": "sum over samples"}.get(str(run.settings.get("normalize")))
    name = {"loss": "loss", "test_loss": "test loss"}[quantity]
    detail = r"$\frac{1}{2}\|y - \Omega x\|^2$" + (f", {over}" if over else "")
    return f"{name} ({detail})"
