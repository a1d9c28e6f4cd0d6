"""Noise of stochastic gradients: minibatches, online learning, noisy labels.

Every random number is a function of (seed, member, step, place) alone, by the counter-based generator Philox: a member
meets the same noise whatever its batch, the number of threads, the precision or the device, and ``first=i`` with one
member runs member i of an ensemble alone. Loss and everything recorded stay those of the task, without noise.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln._base.arrays import transposed
from pydln.task.inputs import input_root, principal_moments
from pydln.task.task import Task

__all__ = ["LabelNoise", "Minibatch", "Noise", "Online"]

_KINDS = {"Minibatch": 1, "Online": 2, "LabelNoise": 3}  # the kernel's numbers


@dataclass(frozen=True, eq=False)
class Minibatch:
    """Each step takes the gradient over some of the task's samples: stochastic gradient descent.

    E = 1/B Σ_b (y_b - Ωx_b) x_bᵀ over the samples of the minibatch; for a task of sums, samples/B instead of 1/B.

    Parameters
    ----------
    size : int
        Samples of a minibatch, B.
    seed : int
        0 … 2^64 - 1.
    replace : bool
        Draw every sample from all of them. Otherwise they are shuffled, and taken in that order until fewer than B are
        left; then shuffled again.
    label_noise : float or (batch,) array
        Standard deviation of normal noise added to every label, afresh at every step.
    first : int
        Number of the first member: member i of the run draws the numbers of member first + i.
    """

    size: int
    _: KW_ONLY
    seed: int = 0
    replace: bool = True
    label_noise: ArrayLike = 0.0
    first: int = 0


@dataclass(frozen=True, eq=False)
class Online:
    """Each step takes the gradient over samples that are never seen again.

    x = Σ_xx^(1/2) z, y = Σ_yxΣ_xx⁺ x + σξ with z and ξ standard normal: Gaussian inputs with the second moments of the
    task, and E = 1/B Σ_b (y_b - Ωx_b) x_bᵀ.

    Parameters
    ----------
    size : int
        Samples of a step, B.
    seed : int
        0 … 2^64 - 1.
    label_noise : float or (batch,) array, optional
        σ. By default what no linear map explains, spread evenly over the outputs: σ² = 2 floor / n_out.
    first : int
        Number of the first member: member i of the run draws the numbers of member first + i.
    """

    size: int = 1
    _: KW_ONLY
    seed: int = 0
    label_noise: ArrayLike | None = None
    first: int = 0


@dataclass(frozen=True, eq=False)
class LabelNoise:
    """The gradient over all samples, with fresh normal noise on every label at every step.

    Σ_yx becomes Σ_yx + std Z Σ_xx^(1/2) / √samples with Z standard normal (no √samples for a task of sums): exactly the
    law of 1/P Σ_p (y_p + std ξ_p) x_pᵀ, whatever the inputs.

    Parameters
    ----------
    std : float or (batch,) array
        Standard deviation of the noise on a label.
    seed : int
        0 … 2^64 - 1.
    samples : int, optional
        Number of samples P; by default that of the task. Not used for a task of sums.
    first : int
        Number of the first member: member i of the run draws the numbers of member first + i.
    """

    std: ArrayLike
    _: KW_ONLY
    seed: int = 0
    samples: int | None = None
    first: int = 0


Noise = Minibatch | Online | LabelNoise


@dataclass(frozen=True, kw_only=True, eq=False)
class Checked:
    """A noise that fits a task, in the numbers of the kernel; arrays with a leading axis where members differ."""

    settings: dict[str, Any]
    whole: dict[str, Any]  # one value for all
    arrays: dict[str, NDArray[Any] | None]
    ndim: dict[str, int]  # of what belongs to one member
    first: int

    @property
    def members(self) -> int:
        """How many members the arrays are for: 1, or all."""
        std = self.arrays["std"]
        return len(std) if std is not None and std.ndim else 1

    def of(self, members: NDArray[np.int64], batch: int) -> dict[str, Any]:
        """What a kernel call on some members of a batch is handed."""
        everyone = len(members) == batch
        picked: dict[str, NDArray[Any] | None] = {}
        for name, value in self.arrays.items():
            if value is None:
                picked[name] = None
                continue
            a = validate.one_for_all(value, batch, ndim=self.ndim[name])
            picked[name] = a if a.ndim == self.ndim[name] or (everyone and len(a) == batch) else a[members]
        return self.whole | picked | {"number": np.ascontiguousarray(members, dtype=np.int64) + self.first}


def check(noise: object, task: Task, dtype: np.dtype[Any]) -> Checked | None:
    """`noise` as the kernel wants it for a task; TypeError or ValueError naming what is wrong."""
    if noise is None:
        return None
    if not isinstance(noise, Minibatch | Online | LabelNoise):
        raise TypeError(
            f"noise: expected pydln.Minibatch, pydln.Online, pydln.LabelNoise or None, got {type(noise).__name__}"
        )
    seed = validate.integer(noise.seed, "noise.seed", at_least=0, at_most=2**64 - 1)
    first = validate.integer(noise.first, "noise.first", at_least=0, at_most=2**32 - 1)
    settings: dict[str, Any] = {"noise": type(noise).__name__, "noise.seed": seed, "noise.first": first}
    whole: dict[str, Any] = {"kind": _KINDS[type(noise).__name__], "seed": seed, "size": 0, "samples": 0}
    whole |= {"replace": True, "scale": 1.0}
    arrays: dict[str, Any] = dict.fromkeys(("x", "y", "root", "labels"))
    if isinstance(noise, LabelNoise):
        std = validate.per_member(noise.std, "noise.std", at_least=0)
        settings["noise.std"] = std
        if task.normalize == "mean":
            count = noise.samples if noise.samples is not None else task.samples
            if count is None:
                raise ValueError(
                    "noise.samples: expected the number of samples that have labels, for the task does not know it"
                )
            std = std / np.sqrt(validate.integer(count, "noise.samples", at_least=1, at_most=2**62))
        arrays["root"] = input_root(task)
    else:
        most = 2**31 // (task.n_in + task.n_out)
        whole["size"] = settings["noise.size"] = validate.integer(noise.size, "noise.size", at_least=1, at_most=most)
        whole["scale"] = 1 / noise.size
        given = noise.label_noise
        if given is None:
            std = np.sqrt(2 * np.asarray(task.floor, dtype=np.float64) / task.n_out)
        else:
            std = validate.per_member(given, "noise.label_noise", at_least=0)
        settings["noise.label_noise"] = std
        if isinstance(noise, Minibatch):
            _minibatch(noise, task, whole, arrays)
            settings["noise.replace"] = bool(noise.replace)
        else:
            arrays["root"] = input_root(task)
            arrays["labels"] = task.sigma_yx if task.whitened else _labels(task)
    arrays["std"] = std
    with np.errstate(over="ignore"):
        rounded = {
            n: None if a is None else np.ascontiguousarray(a, dtype=dtype).reshape(np.shape(a))
            for n, a in arrays.items()
        }
    for name, a in rounded.items():
        if a is not None and not np.isfinite(a).all():
            raise ValueError(f"noise: expected numbers within the range of {dtype}, got {name} outside it")
    return Checked(
        settings=settings,
        whole=whole,
        arrays=rounded,
        ndim={"x": 2, "y": 2, "root": 2, "labels": 2, "std": 0},
        first=first,
    )


def _minibatch(noise: Minibatch, task: Task, whole: dict[str, Any], arrays: dict[str, Any]) -> None:
    replace = validate.flag(noise.replace, "noise.replace")
    if task.data is None:
        raise ValueError(
            "noise: expected a task that keeps its samples for Minibatch, as Task.from_data(X, Y, keep_samples=True) "
            f"makes, got {task.name}"
        )
    arrays["x"], arrays["y"] = task.data
    count = task.data.X.shape[-2]
    if count >= 2**31:
        raise ValueError(f"noise: expected fewer than {2**31} samples, got {count}")
    if not replace and noise.size > count:
        raise ValueError(
            f"noise.size: expected at most the task's {count} samples without replacement, got {noise.size}"
        )
    whole["samples"], whole["replace"] = count, replace
    if task.normalize == "sum":
        whole["scale"] = count / noise.size


def _labels(task: Task) -> NDArray[np.float64]:
    """Σ_yxΣ_xx^(-1/2) = B'Qᵀ, the labels of z: moderate, where Σ_yxΣ_xx⁺ may be huge."""
    Q, _, target = principal_moments(task)
    return np.asarray(target @ transposed(Q))
