"""Any start with its layers scaled so that the product has a prescribed size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln._base.patience import interruptible
from pydln.init.arguments import agree
from pydln.task.task import Task
from pydln.weights import Weights

__all__ = ["product_scaled"]

FloatArray = NDArray[np.float64]


def _work(weights: Weights, **_: Any) -> float:
    thin = min(weights.widths[0], weights.widths[-1])
    return float(thin * sum(w.size for w in weights.layers))


@interruptible(_work)
def product_scaled(
    weights: Weights, *, norm: ArrayLike | None = None, strength: ArrayLike | None = None, task: Task | None = None
) -> Weights:
    """A start with every layer scaled by one factor, so that its product has the size asked for: a small start.

    All layers of a member are multiplied by c = (wanted/found)^(1/D), which leaves their ratios as they are.

    Conserved are W_{l+1}ᵀW_{l+1} - W_l W_lᵀ, c² times those of `weights`. The exact solutions are those that `weights`
    admits: scaling keeps alignment, and turns λ into c²λ.

    Parameters
    ----------
    weights : Weights
        Any start: `gaussian` makes it a small random one.
    norm : number or (batch,) array, optional
        The Frobenius norm |Ω_0| wanted, > 0.
    strength : number or (batch,) array, optional
        Instead of `norm`: the root mean square that the strengths diag(UᵀΩ_0V) of the modes of `task` shall have, > 0.
    task : Task, optional
        For `strength`: single, or with a member for each start.

    Raises
    ------
    ValueError, TypeError
        Not exactly one of `norm` and `strength`, no task with `strength`, a product without the size that is to be
        scaled, weights beyond the range of their dtype.
    """
    validate.instance(weights, "weights", Weights)
    if (norm is None) == (strength is None):
        raise ValueError(f"norm: expected either norm or strength, got {'neither' if norm is None else 'both'}")
    if (task is None) != (strength is None):
        raise ValueError(f"task: expected a task with strength and only then, got {'none' if task is None else 'one'}")
    direction, size = _product(weights)
    if task is not None:
        validate.instance(task, "task", Task)
        if (task.n_out, task.n_in) != direction.shape[1:]:
            raise ValueError(
                f"task: expected {direction.shape[2]} inputs and {direction.shape[1]} outputs like weights, "
                f"got {task.n_in} and {task.n_out}"
            )
        U, _, V = task.modes
        found = np.sqrt(np.mean(np.sum(U * (direction @ V), axis=-2) ** 2, axis=-1))
        name, wanted = "strength", validate.per_member(strength, "strength", above=0)
    else:
        found = np.sqrt(np.sum(direction**2, axis=(1, 2)))
        name, wanted = "norm", validate.per_member(norm, "norm", above=0)
    count = agree(None, {"weights": weights.batch, "task": len(found), name: len(wanted) if wanted.ndim else None})
    if not (found > 0).all():
        member = int(np.argmin(found))
        raise ValueError(f"weights: expected a product that can be scaled to a {name}, got one of 0 (member {member})")
    logarithm = np.broadcast_to((np.log(wanted) - np.log(found) - size) / weights.depth, (count,))
    # The factor may lie beyond float64 where the scaled layers do not: apply it to layers of size 1.
    layers = []
    for layer in weights.layers:
        w = layer.astype(np.float64)
        largest = np.abs(w).max(axis=(1, 2), keepdims=True)
        with np.errstate(over="ignore", under="ignore"):
            scaled = (w / largest) * np.exp(logarithm[:, None, None] + np.log(largest))
            rounded = scaled.astype(weights.dtype)
        lost = (np.abs(rounded).max(axis=(1, 2)) == 0) & (largest[:, 0, 0] > 0)
        if lost.any() or not np.isfinite(rounded).all():
            extreme = np.min(wanted) if lost.any() else np.max(wanted)
            raise ValueError(f"{name}: expected a size that layers of {weights.dtype} can have, got {extreme:g}")
        layers.append(rounded)
    return Weights._adopt(layers)


def _product(weights: Weights) -> tuple[FloatArray, FloatArray]:
    """Ω = e^size · direction of every member; the direction neither over- nor underflows, however deep the network."""
    # From the thinner end, as Weights.product.
    backwards = weights.widths[-1] < weights.widths[0]
    running, size = np.ones((weights.batch, 1, 1)), np.zeros(weights.batch)
    for place, layer in enumerate(weights.layers[::-1] if backwards else weights.layers):
        w = layer.astype(np.float64)
        running = w if place == 0 else running @ w if backwards else w @ running
        largest = np.abs(running).max(axis=(1, 2))
        running = running / np.where(largest > 0, largest, 1.0)[:, None, None]
        size += np.log(np.where(largest > 0, largest, 1.0))
    return running, size
