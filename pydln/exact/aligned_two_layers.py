"""Two layers, inputs uncorrelated between modes, a decoupled start: the closed form for any a_0, b_0, s and d."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln.exact.solution import ModeSolution
from pydln.exact.start import Condition, Start
from pydln.exact.two_layer_mode import TwoLayerMode, two_layer_mode

__all__ = ["AlignedTwoLayers"]

Floats = NDArray[Any]


class AlignedTwoLayers(ModeSolution):
    """Depth 2 from W_1 = R diag(a) V^T, W_2 = U diag(b) R^T (Saxe, McClelland & Ganguli 2013, section 1)."""

    name = "aligned, two layers"

    @classmethod
    def conditions(cls, start: Start) -> Iterator[Condition]:
        """Depth, inputs uncorrelated between modes, a decoupled start."""
        yield start.depth_is(start.depth == 2, "2")
        yield from start.decoupled()
        yield start.alignment.known

    def modes(self, t: Floats) -> tuple[Floats, Floats, TwoLayerMode]:
        """u = ab, s - u, and (a, b) for the layers."""
        a0, b0 = self.layer_strengths[:, None, 0], self.layer_strengths[:, None, 1]
        state = two_layer_mode(a0, b0, self.s[:, None], t)
        return state.a * state.b, state.gap, state

    def layer(self, state: TwoLayerMode, k: int) -> Floats:
        """a or b."""
        return np.asarray(state[k - 1])
