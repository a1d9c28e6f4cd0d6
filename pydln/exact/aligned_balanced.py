"""Any depth above two, inputs uncorrelated between modes, a decoupled balanced start: du/dt = D u^(2-2/D) (s - d u)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln.exact.balanced_mode import balanced_mode_and_gap
from pydln.exact.solution import ModeSolution
from pydln.exact.start import Condition, Start

__all__ = ["AlignedBalanced"]

Floats = NDArray[Any]


class AlignedBalanced(ModeSolution):
    """Depth >= 3 from W_l = R_{l+1} diag(a_l) R_l^T with |a_l| the same in all layers (S13 eq. 15)."""

    name = "aligned and balanced"

    @classmethod
    def conditions(cls, start: Start) -> Iterator[Condition]:
        """Depth, inputs uncorrelated between modes, a decoupled start, balance."""
        yield start.depth_is(start.depth > 2, "3 or more")
        yield from start.decoupled()
        yield start.balanced
        yield start.alignment.known

    def modes(self, t: Floats) -> tuple[Floats, Floats, Floats]:
        """u, s - u, and u again for the layers."""
        u0 = np.prod(self.layer_strengths, axis=1)[:, None]
        u, gap = balanced_mode_and_gap(u0, self.s[:, None], t, self.start.depth)
        return u, gap, u

    def layer(self, state: Floats, k: int) -> Floats:
        """The D-th root of |u|, with the sign that the layer started with."""
        return np.sign(self.layer_strengths[:, None, k - 1]) * np.abs(state) ** (1 / self.start.depth)
