"""Figures, one per file, each ``f(data, *, ax=None) -> Axes``: nothing is shown or saved, matplotlib loads on use."""

from __future__ import annotations

from pydln.plot.against_depth import learning_time, optimal_rate
from pydln.plot.loss_curve import loss
from pydln.plot.mode_strengths import strengths
from pydln.plot.spectrum import eigenvalues, spectrum
from pydln.plot.theory_overlay import overlay

__all__ = ["eigenvalues", "learning_time", "loss", "optimal_rate", "overlay", "spectrum", "strengths"]
