"""What is computed: the ensembles G1 to G4, square networks under full-batch gradient descent with whitened inputs."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

RECORD_EVERY = 10
LR = 1e-3
CHECK_STEPS = 20

# Rounding in twenty steps stays orders of magnitude below these, and the change of the weights orders above.
ALLOWED = {"float64": 1e-12, "float32": 1e-5}

_SPECIFICATION = Path(__file__).parents[1] / "tests" / "reference.py"


@dataclass(frozen=True)
class Workload:
    """An ensemble of `batch` networks, all layers `width` × `width`, that learns one task; loss at every tenth step."""

    name: str
    width: int
    depth: int
    batch: int
    dtype: str = "float64"

    @property
    def step_flops(self) -> float:
        """Least work of one step of the ensemble: 3 (D - 1) products per network, counted for every method alike."""
        return 3.0 * (self.depth - 1) * 2 * self.width**3 * self.batch

    def sized(self, *, dtype: str, batch: int | None = None) -> Workload:
        """The same in another precision, or with fewer networks."""
        return replace(self, dtype=dtype, batch=batch or self.batch)

    @cached_property
    def sigma_yx(self) -> np.ndarray:
        """(width, width) target, float64: random modes of strengths from 0.5 to 2."""
        rng = np.random.default_rng(1)
        u, v = (np.linalg.qr(rng.standard_normal((self.width, self.width)))[0] for _ in range(2))
        return (u * np.linspace(2.0, 0.5, self.width)) @ v.T

    @cached_property
    def start(self) -> list[np.ndarray]:
        """W_1 … W_D, each (batch, width, width): small Gaussian weights, in `dtype`."""
        rng = np.random.default_rng(2)
        shape = (self.batch, self.width, self.width)
        return [(0.7 / np.sqrt(self.width) * rng.standard_normal(shape)).astype(self.dtype) for _ in range(self.depth)]

    def error(self, losses: np.ndarray | None, layers: list[np.ndarray]) -> float:
        """How far a run of CHECK_STEPS steps is from the specification: the largest relative difference.

        Parameters
        ----------
        losses : (batch, 1 + CHECK_STEPS / RECORD_EVERY) array, or None if none were recorded
        layers : D arrays (batch, width, width), the weights at the end
        """
        descent = _specification().descent
        u, _, vt = np.linalg.svd(self.sigma_yx)
        worst = 0.0
        for member in sorted({0, 1, self.batch // 2, self.batch - 1}):
            expected = descent(
                [w[member] for w in self.start],
                sigma_xx=np.eye(self.width),
                sigma_yx=self.sigma_yx,
                trace_yy=np.sum(self.sigma_yx**2),
                U=u,
                V=vt.T,
                lr=LR,
                steps=CHECK_STEPS,
                at=range(0, CHECK_STEPS + 1, RECORD_EVERY),
            )
            pairs = [(w[member], right) for w, right in zip(layers, expected.layers, strict=True)]
            if losses is not None:
                pairs.append((losses[member], expected.records["loss"]))
            for got, right in pairs:
                worst = max(worst, float(np.abs(got - right).max() / np.abs(right).max()))
        return worst


WORKLOADS = {
    w.name: w
    for w in (
        Workload("G1", width=4, depth=2, batch=65536),
        Workload("G2", width=8, depth=3, batch=8192),
        Workload("G3", width=16, depth=5, batch=2048),
        Workload("G4", width=32, depth=4, batch=512),
    )
}


def _specification():
    if "reference" not in sys.modules:
        spec = importlib.util.spec_from_file_location("reference", _SPECIFICATION)
        sys.modules["reference"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["reference"])
    return sys.modules["reference"]
