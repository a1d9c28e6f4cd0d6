"""Exact reductions: smaller networks that take the same steps, or follow the same flow (Saxe et al. 2013).

- ``inputs``: in the eigenbasis of Σ_xx general inputs cost what whitened ones do, and input directions that never move
  are left out.
- ``width``: the hidden layers move within the smallest subspaces that the ends reach; the rest of them only decays.
- ``decoupled``: in an aligned start every mode is a network of its own with one unit a layer.

`find` says for every member which of them hold, measured, and which are worth their work.
"""

from pydln.reduce.ensemble import Ensemble
from pydln.reduce.find import REDUCTIONS, Finding, Findings, ReductionCondition, asked, find

__all__ = ["REDUCTIONS", "Ensemble", "Finding", "Findings", "ReductionCondition", "asked", "find"]
