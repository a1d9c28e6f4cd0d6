"""Exact solutions of gradient flow: one a file, and `solve`, which finds the one that applies or says why none."""

from pydln.exact.balanced_mode import balanced_mode, time_to_reach
from pydln.exact.registry import SOLUTIONS, solve
from pydln.exact.solution import Solution
from pydln.exact.two_layer_mode import scalar_mode

__all__ = ["SOLUTIONS", "Solution", "balanced_mode", "scalar_mode", "solve", "time_to_reach"]
