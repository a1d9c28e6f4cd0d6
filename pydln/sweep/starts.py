"""The starting weights that a run file asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from pydln import init
from pydln.sweep.config import RunFile
from pydln.weights import Weights

__all__ = ["start_weights"]


def start_weights(file: RunFile, depth: int, width: int | None, pairs: Iterable[tuple[float, int]]) -> Weights:
    """One network for each pair of a size (scale or strength) and a seed, in the order given.

    The network of seed k is the first one that `pydln.init` draws for ``seed=k``, whatever the rest of the grid.
    """
    options = dict(file.start)
    kind = options.pop("kind")
    task = file.task
    if kind in ("aligned", "balanced"):
        product = options.pop("product", None)

        def one(size: float, seed: int) -> Weights:
            if kind == "aligned":
                return init.aligned(task, depth=depth, width=width, strength=size, seed=seed, **options)
            return init.balanced(size * np.asarray(product), depth=depth, width=width, seed=seed, **options)

    else:
        hidden = [] if width is None else [width] * (depth - 1)
        widths = (task.n_in, *hidden, task.n_out)
        draws: dict[str, Callable[..., Weights]] = {
            "gaussian": init.gaussian,
            "uniform": init.uniform,
            "orthogonal": init.orthogonal,
            "residual": init.residual,
            "mup": init.mup,
        }

        def one(size: float, seed: int) -> Weights:
            if kind == "identity":
                return init.identity(widths, scale=size, **options)
            return draws[kind](widths, scale=size, seed=seed, **options)

    return Weights.concatenate([one(size, seed) for size, seed in pairs])
