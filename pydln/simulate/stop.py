"""When a member may stop before the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln.task.inputs import input_root
from pydln.task.task import Task

__all__ = ["Limits", "Stop", "least_residual"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stop:
    """When a member may stop before the last step; whichever holds first.

    Parameters
    ----------
    loss : float or (batch,) array, optional
        Stop when the loss is at or below this (in the task's normalisation, its floor included).
    strengths : float, (mode,) or (batch, mode) array, optional
        Stop when |u_alpha| is at or above this for every mode; NaN leaves a mode out.
    steady : float or (batch,) array, optional
        Stop after a step in which no entry of any layer moved faster than this, max |dW/dt| in units of 1/τ
        (|ΔW| / lr), and from which none will: what is left to learn, σ = ‖Σ_yx - ΩΣ_xx‖ (Frobenius), learned from a
        small start da/dt = a^(D-1) (σ - a^D), would not become faster either. The plateau of a small start and the
        saddles between modes are not steady, however slow; a network that stands still, to the last bit, is. Of
        hidden layers narrower than the task σ leaves out what they cannot learn, and weight decay w is allowed a
        residual of w in every mode. A network kept from learning in another way has a residual and runs to its end.
        Nonlinear networks are judged by their speed alone.
    """

    loss: ArrayLike | None = None
    strengths: ArrayLike | None = None
    steady: ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class Limits:
    """A `Stop`, checked: arrays in working precision, None for what is not waited for.

    Attributes
    ----------
    loss, steady : () or (batch,) array
    strengths : (mode,) or (batch, mode) array
    least_residual : () or (batch,) array
        ‖Σ_yx - ΩΣ_xx‖² that hidden layers narrower than the task leave.
    """

    loss: NDArray[Any] | None = None
    strengths: NDArray[Any] | None = None
    steady: NDArray[Any] | None = None
    least_residual: NDArray[Any] | None = None

    @classmethod
    def of(cls, stop: Stop | None, modes: int, dtype: np.dtype[Any]) -> Limits:
        """The limits of a run whose task has so many modes."""
        limits: dict[str, NDArray[Any] | None] = {}
        if stop is None:
            return cls()
        if not isinstance(stop, Stop):
            raise TypeError(f"stop: expected pydln.Stop(loss=…, strengths=…, steady=…), got {type(stop).__name__}")
        if stop.loss is not None:
            limits["loss"] = validate.per_member(stop.loss, "stop.loss", dtype=dtype, at_least=0)
        if stop.steady is not None:
            limits["steady"] = validate.per_member(stop.steady, "stop.steady", dtype=dtype, at_least=0)
        if stop.strengths is not None:
            wanted = validate.array(stop.strengths, "stop.strengths", dtype=dtype, finite=False)
            if wanted.ndim > 2 or (wanted.ndim and wanted.shape[-1] != modes):
                raise ValueError(
                    f"stop.strengths: expected a number, ({modes},) or (batch, {modes}), got {wanted.shape}"
                )
            wrong = wanted[(wanted <= 0) | np.isinf(wanted)]
            if wrong.size or np.isnan(wanted).all(axis=-1).any():
                got = f"{wrong[0]:g}" if wrong.size else "nothing but NaN"
                raise ValueError(
                    f"stop.strengths: expected numbers > 0 (NaN leaves a mode out, but not every mode), got {got}"
                )
            limits["strengths"] = np.array(np.broadcast_to(wanted, (*wanted.shape[:-1], modes)), order="C")
        return cls(**limits)

    @property
    def any(self) -> bool:
        """Whether there is something to wait for."""
        return any(a is not None for a in (self.loss, self.strengths, self.steady))

    @property
    def members(self) -> dict[str, int]:
        """How many members those limits have that have a batch axis, as `agree` takes it."""
        limits = {"loss": self.loss, "strengths": self.strengths, "steady": self.steady}
        return {
            f"stop.{name}": len(a) for name, a in limits.items() if a is not None and a.ndim > (name == "strengths")
        }

    def reached_by(self, task: Task, widths: tuple[int, ...], dtype: np.dtype[Any]) -> Limits:
        """With what networks of these widths cannot learn, if ``steady`` asks for it."""
        return self if self.steady is None else replace(self, least_residual=least_residual(task, widths, dtype))

    def of_everybody(self, batch: int, modes: int) -> dict[str, NDArray[Any] | None]:
        """Each limit with an entry for every member."""
        shapes = {"loss": (batch,), "strengths": (batch, modes), "steady": (batch,)}
        return {
            name: None if (limit := getattr(self, name)) is None else np.broadcast_to(limit, shape)
            for name, shape in shapes.items()
        }

    def of_networks(
        self, members: NDArray[np.int64], networks: int, batch: int, least_residual: bool = True
    ) -> dict[str, NDArray[Any] | None]:
        """What a kernel takes for so many networks of each of some members."""
        whole = networks == 1 and len(members) == batch

        def own(values: NDArray[Any] | None, ndim: int) -> NDArray[Any] | None:
            if values is None:
                return None
            values = validate.one_for_all(values, batch, ndim=ndim)
            return values if whole or values.ndim == ndim else np.repeat(values[members], networks, axis=0)

        made = {"loss": own(self.loss, 0), "strengths": own(self.strengths, 1), "steady": own(self.steady, 0)}
        return made | ({"least_residual": own(self.least_residual, 0)} if least_residual else {})


def least_residual(task: Task, widths: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """‖Σ_yx - ΩΣ_xx‖² of the best Ω of the rank that the widths allow, () or (batch,); None where they allow any.

    With P the optimum, PΣ_xx^(1/2) = U s Vᵀ: the best Ω of rank r leaves U s' Vᵀ Σ_xx^(1/2), s' without the r largest.
    """
    rank = min(widths)
    if rank >= min(widths[0], widths[-1]):
        return None
    root = input_root(task)
    if root is None:
        left = (task.modes.s[..., rank:] ** 2).sum(axis=-1)
    else:
        U, s, Vt = np.linalg.svd(task.optimum @ root, full_matrices=False)
        rest = (U[..., rank:] * s[..., None, rank:]) @ Vt[..., rank:, :] @ root
        left = (rest * rest).sum(axis=(-2, -1))
    return np.array(left, dtype=dtype, order="C")
