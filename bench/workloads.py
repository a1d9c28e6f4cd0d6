"""What is computed: the ensembles G1 to G7b, networks under full-batch gradient descent with whitened inputs."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import sys
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

RECORD_EVERY = 10
LR = 1e-3
CHECK_STEPS = 20
CACHE = Path(__file__).with_name(".cache")

# Rounding in twenty steps stays orders of magnitude below these, and the change of the weights orders above.
ALLOWED = {"float64": 1e-12, "float32": 1e-5}

_SPECIFICATION = Path(__file__).parents[1] / "tests" / "reference.py"


@dataclass(frozen=True)
class Workload:
    """An ensemble of `batch` networks of one shape that learns one task; loss at every tenth step.

    Parameters
    ----------
    widths : n_0 … n_D
    gain : of the Gaussian start: entries of variance gain² / n_{l-1}
    streamed : the weights of one network are larger than the caches, so that memory is the limit
    """

    name: str
    widths: tuple[int, ...]
    batch: int
    dtype: str = "float64"
    gain: float = 0.7
    streamed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # a list, where it came as JSON

    @property
    def depth(self) -> int:
        """Number of weight matrices."""
        return len(self.widths) - 1

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(n_l, n_{l-1}) of W_1 … W_D."""
        return [(n_out, n_in) for n_in, n_out in itertools.pairwise(self.widths)]

    @property
    def step_flops(self) -> float:
        """Least work of one step of the ensemble: 3 (D - 1) products from the narrow side, for every method alike.

        From the side of n = n_D outputs, W_1 … W_{D-1} are met three times each, in a product with n rows: forward,
        backward, update. From the side of the inputs it is W_2 … W_D and n_0.
        """
        sizes = [rows * columns for rows, columns in self.shapes]
        sides = self.widths[-1] * sum(sizes[:-1]), self.widths[0] * sum(sizes[1:])
        return 3.0 * 2 * min(sides) * self.batch

    @property
    def step_bytes(self) -> float:
        """Traffic of one step if weights come from memory: two reads and one write."""
        return 3.0 * np.dtype(self.dtype).itemsize * self.batch * sum(rows * columns for rows, columns in self.shapes)

    def sized(self, *, dtype: str, small: bool = False) -> Workload:
        """The same in another precision, or small: a handful of narrow networks that take no time."""
        if not small:
            return replace(self, dtype=dtype)
        widths = tuple(n if n < 10 else 10 + n // 50 for n in self.widths)
        return replace(self, dtype=dtype, batch=min(self.batch, 19), widths=widths)

    def for_worker(self) -> dict[str, Any]:
        """What worker.py makes it from."""
        return {"workload": asdict(self)}

    @cached_property
    def sigma_yx(self) -> np.ndarray:
        """(n_D, n_0) target, float64: random modes of strengths from 0.5 to 2."""
        rng = np.random.default_rng(1)
        n_in, n_out = self.widths[0], self.widths[-1]
        modes = min(n_in, n_out)
        u, v = (np.linalg.qr(rng.standard_normal((n, modes)))[0] for n in (n_out, n_in))
        return (u * np.linspace(2.0, 0.5, modes)) @ v.T

    @cached_property
    def start(self) -> list[np.ndarray]:
        """W_1 … W_D, each (batch, n_l, n_{l-1}): Gaussian, in `dtype`; the same numbers in both precisions."""
        rng = np.random.default_rng(2)
        return [
            (self.gain / np.sqrt(n_in) * rng.standard_normal((self.batch, n_out, n_in)))
            .astype(np.float32)
            .astype(self.dtype)
            for n_out, n_in in self.shapes
        ]

    def error(self, losses: np.ndarray, layers: list[np.ndarray] | None) -> float:
        """How far a run of CHECK_STEPS steps is from the specification: the largest relative difference.

        Parameters
        ----------
        losses : (batch, time) array, or None if none were recorded: the first so many of 0, RECORD_EVERY, …
        layers : D arrays (batch, n_l, n_{l-1}), the weights at the end, or None
        """
        expected = self._expected()
        worst = 0.0
        for place, member in enumerate(self._looked_at()):
            pairs = []
            if layers is not None:
                pairs += [(w[member], expected[f"layer{i}"][place]) for i, w in enumerate(layers)]
            if losses is not None:
                pairs.append((losses[member], expected["loss"][place, : losses.shape[1]]))
            for got, right in pairs:
                worst = max(worst, float(np.abs(got - right).max() / np.abs(right).max()))
        return worst

    def _looked_at(self) -> list[int]:
        return sorted({0, 1 % self.batch, self.batch // 2, self.batch - 1})

    def _expected(self) -> dict[str, np.ndarray]:
        """Losses and final layers of the members looked at, by the specification.

        Kept on disk: that of G7b takes minutes, and every method is compared with it.
        """
        about = repr(replace(self, dtype="", streamed=False)).encode()
        key = hashlib.sha256(about + _SPECIFICATION.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:16]
        path = CACHE / f"expected-{self.name}-{key}.npz"
        if not path.exists():
            u, _, vt = np.linalg.svd(self.sigma_yx, full_matrices=False)
            runs = [
                specification().descent(
                    [w[member] for w in self.start],
                    sigma_xx=np.eye(self.widths[0]),
                    sigma_yx=self.sigma_yx,
                    trace_yy=np.sum(self.sigma_yx**2),
                    U=u,
                    V=vt.T,
                    lr=LR,
                    steps=CHECK_STEPS,
                    at=range(0, CHECK_STEPS + 1, RECORD_EVERY),
                )
                for member in self._looked_at()
            ]
            layers = {f"layer{i}": np.stack([run.layers[i] for run in runs]) for i in range(self.depth)}
            CACHE.mkdir(exist_ok=True)
            part = CACHE / f"{os.getpid()}.npz"
            np.savez(part, loss=np.stack([run.records["loss"] for run in runs]), **layers)
            part.replace(path)
        with np.load(path) as kept:
            return dict(kept)


def _square(name: str, width: int, depth: int, batch: int) -> Workload:
    return Workload(name, (width,) * (depth + 1), batch)


WORKLOADS = {
    w.name: w
    for w in (
        _square("G1", width=4, depth=2, batch=65536),
        _square("G2", width=8, depth=3, batch=8192),
        _square("G3", width=16, depth=5, batch=2048),
        _square("G4", width=32, depth=4, batch=512),
        _square("G5", width=64, depth=8, batch=64),
        _square("G6", width=128, depth=8, batch=16),
        # Gain 1: of ten layers at 0.7 next to nothing would come out, and no step could be told from none.
        Workload("G7a", (784, 1000, 1000, 10), batch=1, gain=1.0),
        Workload("G7b", (784, *(1000,) * 9, 10), batch=1, gain=1.0, streamed=True),
    )
}


def specification():
    """tests/reference.py."""
    if "reference" not in sys.modules:
        spec = importlib.util.spec_from_file_location("reference", _SPECIFICATION)
        sys.modules["reference"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["reference"])
    return sys.modules["reference"]
