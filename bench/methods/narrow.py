"""The problem seen from its narrow side, so that every peer does the least work with products of one order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Narrow:
    """A workload with n_0 <= n_D. Where it had more inputs than outputs it is transposed: W_l is then W_{D+1-l}ᵀ.

    The loss is the same, ½‖Σᵀ - Ωᵀ‖², and so are the steps.
    """

    layers: list[np.ndarray]
    target: np.ndarray
    turned: bool

    @classmethod
    def of(cls, workload) -> Narrow:
        """Contiguous arrays in the dtype of the workload; not to be changed."""
        turned = workload.widths[-1] < workload.widths[0]
        target = workload.sigma_yx.astype(workload.dtype)
        layers = _turned(workload.start) if turned else workload.start
        return cls(
            [np.ascontiguousarray(w) for w in layers], np.ascontiguousarray(target.T if turned else target), turned
        )

    def original(self, layers: list[np.ndarray]) -> list[np.ndarray]:
        """Layers of this problem as those of the workload."""
        return _turned(layers) if self.turned else layers


def _turned(layers):
    return [w.transpose(0, 2, 1) for w in layers[::-1]]
