"""Exact solutions of gradient flow: one a file, and `solve`, which finds the one that applies or says why none."""

from pydln.exact.balanced_mode import balanced_mode, time_to_reach
from pydln.exact.compare import Comparison, compare
from pydln.exact.learning_times import (
    Saddles,
    escape_time,
    half_time,
    iterations_to_learn,
    optimal_lr,
    saddle_to_saddle,
    sharpness,
    stable_lr,
)
from pydln.exact.registry import SOLUTIONS, Candidate, Candidates, candidates, solve
from pydln.exact.solution import Solution
from pydln.exact.two_layer_mode import scalar_mode

__all__ = [
    "SOLUTIONS",
    "Candidate",
    "Candidates",
    "Comparison",
    "Saddles",
    "Solution",
    "balanced_mode",
    "candidates",
    "compare",
    "escape_time",
    "half_time",
    "iterations_to_learn",
    "optimal_lr",
    "saddle_to_saddle",
    "scalar_mode",
    "sharpness",
    "solve",
    "stable_lr",
    "time_to_reach",
]
