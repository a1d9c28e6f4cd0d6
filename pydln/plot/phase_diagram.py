"""Order and chaos over the standard deviations of weights and biases (Poole et al. 2016, Schoenholz et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pydln._base import validate
from pydln.plot import style
from pydln.propagation import PhaseDiagram

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["phase_diagram"]

_QUANTITIES = {
    "q": "fixed point $q^*$",
    "chi": r"$\log_2 \chi$ (growth of squared gradients per layer)",
    "c": "fixed point $c^*$",
    "xi_q": r"depth scale $\xi_q$ (layers)",
    "xi_c": r"depth scale $\xi_c$ (layers)",
}
_DEEPEST = 100.0  # layers: longer scales share a colour


def phase_diagram(phases: PhaseDiagram, *, quantity: str = "chi", ax: Axes | None = None) -> Axes:
    """Draw a quantity over the plane of (σ_w, σ_b), with the edge of chaos.

    Parameters
    ----------
    phases : PhaseDiagram
        From `pydln.propagation.phase_diagram`; two or more values along each axis.
    quantity : {"chi", "q", "c", "xi_q", "xi_c"}
        What the colours show. Where it is infinite or not defined there is no colour.
    ax : Axes, optional
        Where to draw; a new figure by default. The colour bar takes room beside it.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        `phases` is no PhaseDiagram, no such quantity, an axis with a single value.
    MissingExtra
        matplotlib is not installed.
    """
    validate.instance(phases, "phases", PhaseDiagram)
    validate.choice(quantity, "quantity", tuple(_QUANTITIES))
    if min(phases.sigma_w.size, phases.sigma_b.size) < 2:
        raise ValueError(f"phases: expected two or more values along each axis, got a grid of {phases.q.shape}")
    ax = style.axes(ax)
    figure = ax.figure
    deeper = False
    if quantity == "chi":
        with np.errstate(divide="ignore"):
            values = np.log2(phases.chi)
        most = float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) or 1.0
        look: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    else:
        values = getattr(phases, quantity)
        look = {"cmap": "viridis"} | ({"vmin": 0.0, "vmax": 1.0} if quantity == "c" else {})
        if quantity.startswith("xi"):
            from matplotlib.colors import LogNorm

            finite = values[np.isfinite(values) & (values > 0)]
            low = float(finite.min(initial=1.0))
            look["norm"] = LogNorm(low, max(min(float(finite.max(initial=0.0)), _DEEPEST), 2 * low))
            deeper = bool((finite > _DEEPEST).any())
    shown = np.ma.masked_invalid(values)
    mesh = ax.pcolormesh(phases.sigma_w, phases.sigma_b, shown, shading="nearest", rasterized=True, **look)
    figure.colorbar(mesh, ax=ax, label=_QUANTITIES[quantity], extend="max" if deeper else "neither")
    from matplotlib.patheffects import withStroke

    (edge,) = ax.plot(phases.edge, phases.sigma_b, color="black", linewidth=1.6, label=r"edge of chaos, $\chi = 1$")
    edge.set_path_effects([withStroke(linewidth=3.4, foreground="white")])
    ax.set_xlim(phases.sigma_w[0], phases.sigma_w[-1])
    ax.set_ylim(phases.sigma_b[0], phases.sigma_b[-1])
    ax.set_xlabel(r"weights $\sigma_w$")
    ax.set_ylabel(r"biases $\sigma_b$")
    ax.set_title(f"{phases.activation}", fontsize="medium")
    ax.legend(fontsize="small", loc="lower right", framealpha=0.85)
    return ax
