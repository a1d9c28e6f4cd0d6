"""Learning time and optimal learning rate against depth (S13 fig. 4)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydln._base import validate
from pydln.plot import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

__all__ = ["learning_time", "optimal_rate"]


def learning_time(
    depth: ArrayLike,
    iterations: ArrayLike,
    *,
    theory: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    ax: Axes | None = None,
    **line_kw: Any,
) -> Axes:
    """Draw the learning time, in gradient-descent iterations, against depth.

    Parameters
    ----------
    depth : (n,) array
        Number of weight matrices D.
    iterations : (n,) array
        Iterations to the criterion, measured.
    theory : mapping of str to (depth, iterations), optional
        Curves to draw in black over the points; the first is dashed, the second dotted. Depth may be any real number.
    ax : Axes, optional
        Where to draw; a new figure by default.
    **line_kw
        Passed to the line of the measured points.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        Lengths differ.
    MissingExtra
        matplotlib is not installed.
    """
    ax = _against_depth(depth, iterations, "iterations", theory, ax, line_kw)
    ax.set_ylabel("learning time (iterations)")
    ax.set_ylim(bottom=0.0)
    ax.locator_params(axis="x", integer=True)
    return ax


def optimal_rate(
    depth: ArrayLike,
    rate: ArrayLike,
    *,
    theory: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    ax: Axes | None = None,
    **line_kw: Any,
) -> Axes:
    """Draw the learning rate that learns fastest against depth, both axes logarithmic.

    Parameters
    ----------
    depth : (n,) array
        Number of weight matrices D.
    rate : (n,) array
        The fastest learning rate found, per iteration.
    theory, ax, **line_kw
        As for :func:`learning_time`.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        Lengths differ.
    MissingExtra
        matplotlib is not installed.
    """
    ax = _against_depth(depth, rate, "rate", theory, ax, line_kw)
    ax.set_ylabel(r"fastest learning rate $\eta$ (per iteration)")
    _logarithmic(ax)
    return ax


def _logarithmic(ax: Axes) -> None:
    """Both axes logarithmic, with plain numbers at 1, 2, 5, 10, ...: depths and rates span less than two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _against_depth(
    depth: ArrayLike,
    values: ArrayLike,
    name: str,
    theory: Mapping[str, tuple[ArrayLike, ArrayLike]] | None,
    ax: Axes | None,
    line_kw: dict[str, Any],
) -> Axes:
    x = validate.array(depth, "depth", shape=(None,), above=0)
    y = validate.array(values, name, shape=(len(x),), finite=False)
    courses = _courses(theory)
    line_kw = style.line_options(line_kw)
    ax = style.axes(ax)
    measured: dict[str, Any] = {
        "marker": "o",
        "markersize": 5,
        "color": style.OKABE_ITO[0],
        "linewidth": 1.4,
        "label": "simulation",
    }
    ax.plot(x, y, **(measured | line_kw))
    dashes = itertools.cycle(("--", ":", "-."))
    for label, (at, curve) in courses.items():
        ax.plot(at, curve, **(style.THEORY | {"linestyle": next(dashes), "label": label}))
    ax.set_xlabel("depth $D$ (weight matrices)")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _courses(theory: Any) -> dict[str, tuple[Any, Any]]:
    """The curves of a theory by their names, checked."""
    if not isinstance({} if theory is None else theory, Mapping):
        raise TypeError(f"theory: expected a mapping of names to pairs of arrays, got {validate.short(theory)}")
    checked = {}
    for label, pair in ({} if theory is None else theory).items():
        name = f"theory[{label!r}]"
        both = [
            validate.array(a, name, shape=(None,), finite=False)
            for a in validate.sequence(pair, name, "two arrays, depths and values")
        ]
        if len(both) != 2 or both[0].shape != both[1].shape:
            raise ValueError(
                f"{name}: expected two arrays of one length, got {len(both)} of lengths {[*map(len, both)]}"
            )
        checked[label] = (both[0], both[1])
    return checked
