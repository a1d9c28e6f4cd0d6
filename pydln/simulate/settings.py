"""What a trajectory tells of how it was made."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln._base import backend
from pydln.simulate.stop import Stop
from pydln.task.task import Task
from pydln.weights import Weights

__all__ = ["settings_of"]


def settings_of(
    task: Task | None,
    weights: Weights,
    stop: Stop | None,
    rates: dict[str, NDArray[Any]] | None = None,
    steps: int | None = None,
) -> dict[str, Any]:
    """Task, sizes and limits, what computed; of descent its rates and steps."""

    def plain(value: Any) -> Any:
        a = np.asarray(value, dtype=np.float64)
        return float(a) if a.ndim == 0 else a.tolist()

    # A per-member rate of one entry stands for the whole batch; arrays follow the members when they are picked.
    return {
        **{name: plain(rate) if rate.size == 1 else rate.astype(np.float64) for name, rate in (rates or {}).items()},
        **({} if steps is None else {"steps": steps}),
        "stop": None
        if stop is None
        else {n: plain(v) for n in ("loss", "strengths", "steady") if (v := getattr(stop, n)) is not None},
        **({} if task is None else {"task": task.name, "normalize": task.normalize, "whitened": task.whitened}),
        "depth": weights.depth,
        "widths": list(weights.widths),
        "dtype": str(weights.dtype),
        "isa": backend.isa(),
        "version": backend.version(),
    }
