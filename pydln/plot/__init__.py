"""Figures, one per file, each ``f(data, *, ax=None) -> Axes``: nothing is shown or saved, matplotlib loads on use."""

from __future__ import annotations

from pydln.plot.against_depth import learning_time, optimal_rate
from pydln.plot.consistency import consistency
from pydln.plot.jacobian_grid import jacobian_grid
from pydln.plot.length_map import length_map
from pydln.plot.loss_curve import loss
from pydln.plot.mode_strengths import strengths
from pydln.plot.phase_diagram import phase_diagram
from pydln.plot.phase_portrait import phase_portrait
from pydln.plot.spectrum import eigenvalues, spectrum
from pydln.plot.theory_overlay import overlay

__all__ = [
    "consistency",
    "eigenvalues",
    "jacobian_grid",
    "learning_time",
    "length_map",
    "loss",
    "optimal_rate",
    "overlay",
    "phase_diagram",
    "phase_portrait",
    "spectrum",
    "strengths",
]
