"""Eigenvalues of a matrix in the complex plane, beside the unit circle (S13 fig. 6 A)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pydln import _validate
from pydln.plot import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["eigenvalues"]


def eigenvalues(matrix: ArrayLike, *, ax: Axes | None = None, **line_kw: Any) -> Axes:
    """Draw the eigenvalues of a square matrix, and the unit circle for comparison.

    Parameters
    ----------
    matrix : (n, n) array
    ax : Axes, optional
        Where to draw; a new figure by default.
    **line_kw
        Passed to the points.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        Not a square matrix of finite numbers; `ax` no Axes.
    MissingExtra
        matplotlib is not installed.
    """
    a = _validate.array(matrix, "matrix")
    if a.ndim != 2 or a.shape[0] != a.shape[1] or a.size == 0:
        raise ValueError(f"matrix: expected a square matrix, got {a.shape}")
    line_kw = style.line_options(line_kw)
    ax = style.axes(ax)
    angle = np.linspace(0.0, 2 * np.pi, 400)
    ax.plot(np.cos(angle), np.sin(angle), color="0.75", linewidth=1.0, zorder=0)
    values = np.linalg.eigvals(a)
    points: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linestyle": "none", "color": style.OKABE_ITO[0]}
    ax.plot(values.real, values.imag, **(points | line_kw))
    ax.set_aspect("equal")
    ax.set_xlabel(r"Re $\lambda$")
    ax.set_ylabel(r"Im $\lambda$")
    return ax
