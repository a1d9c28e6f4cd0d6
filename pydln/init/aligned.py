"""Decoupled starts: every mode of the task learns by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pydln._base import validate
from pydln._base.patience import interruptible
from pydln.init.arguments import agree, fits, hidden_widths, member_keys
from pydln.init.draws import from_frames
from pydln.task.task import Task
from pydln.weights import Weights

__all__ = ["aligned"]

FloatArray = NDArray[np.float64]


def _work(
    task: Task, *, depth: int, width: Any = None, strength: Any = None, batch: int | None = None, **_: Any
) -> float:
    modes = task.modes.s.shape[-1]
    widest = max((task.n_in, task.n_out, *(np.atleast_1d(width) if width is not None else ())))
    return float(max(batch or 1, task.batch or 1, len(np.atleast_1d(strength))) * depth * widest**2 * modes)


@interruptible(_work)
def aligned(
    task: Task,
    *,
    depth: int,
    width: int | Sequence[int] | None = None,
    strength: ArrayLike | None = None,
    layer_strengths: ArrayLike | None = None,
    batch: int | None = None,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """A decoupled start: W_l = R_{l+1} diag(a_l) R_lᵀ, so that every mode of the task learns by itself.

    R_1 = V and R_{D+1} = U are the modes of the task, the hidden R_l random orthonormal frames keyed by (seed, member,
    layer). The product starts as U diag(u) Vᵀ with u_α = Π_l a_{l,α} (Saxe, McClelland & Ganguli 2013, section 1).

    Conserved are W_{l+1}ᵀW_{l+1} - W_l W_lᵀ = R_{l+1} diag(a_{l+1}² - a_l²) R_{l+1}ᵀ, zero when given by `strength`.
    Where inputs are uncorrelated between the modes, whitened ones above all, solutions are "aligned, two layers" for
    any a_l, and "aligned and balanced" for three and more layers with equal |a_l|; `pydln.mode_flow` integrates deep
    ones with different |a_l|, a number for each mode.

    Parameters
    ----------
    task : Task
        Member i of a batched task makes member i.
    depth : int
        D, the number of weight matrices.
    width : int or sequence of D - 1 int, optional
        Hidden widths n_1 … n_{D-1}, none below the number of modes r, which is the default.
    strength : number, (batch,) or (batch, r) array
        u_α; a first axis of length one serves every member. The layers are balanced: |a_{l,α}| = |u_α|^{1/D}, and a
        negative u_α, at any depth, gives the last layer the sign. Zero is the saddle, which gradient flow never leaves.
    layer_strengths : (D,), (D, r) or (batch, D, r) array
        a_{l,α} themselves, of any signs, instead of `strength`: in general not balanced.
    batch : int, optional
        How many networks; by default as many as `task`, `strength` or `layer_strengths` have, or one.
    seed, first : int
        As for `gaussian`.
    dtype : dtype
        float32 or float64. Rounding to float32 couples the modes again, by about 1e-8 of the largest strength: start
        in float64 where some strengths are smaller than that, or where they are tiny and must grow undisturbed.

    Raises
    ------
    ValueError, TypeError
        Neither or both of `strength` and `layer_strengths`, shapes that do not fit, a width below r.
    """
    validate.instance(task, "task", Task)
    depth = validate.integer(depth, "depth", at_least=1)
    kind = validate.dtype(dtype)
    # One memory layout, because BLAS may round differently in another: a member alone must give the bits of the batch.
    U, V = np.ascontiguousarray(task.modes.U), np.ascontiguousarray(task.modes.V)
    modes = U.shape[-1]
    hidden = hidden_widths(width, depth, modes, "the number of modes")
    a, name, members = _layer_strengths(strength, layer_strengths, depth, modes)
    count = agree(batch, {"task": task.batch, name: members})
    keys = member_keys(seed, first, count)
    fits(count, [task.n_in, *hidden, task.n_out], kind)
    a = np.broadcast_to(a, (count, depth, modes))
    return from_frames(
        np.broadcast_to(U, (count, *U.shape[-2:])),
        a,
        np.broadcast_to(V, (count, *V.shape[-2:])),
        hidden,
        keys,
        kind,
        name,
    )


def _layer_strengths(
    strength: ArrayLike | None, layer_strengths: ArrayLike | None, depth: int, modes: int
) -> tuple[FloatArray, str, int | None]:
    """a as (batch or 1, D, r), the argument it came from, and the batch that argument has."""
    if (strength is None) == (layer_strengths is None):
        got = "neither" if strength is None else "both"
        raise ValueError(f"strength: expected either strength or layer_strengths, got {got}")
    if strength is not None:
        u = validate.array(strength, "strength")
        if u.ndim > 2 or u.size == 0 or (u.ndim == 2 and u.shape[1] != modes):
            raise ValueError(f"strength: expected a number, (batch,) or (batch, {modes}), got {u.shape}")
        members = len(u) if u.ndim else None
        u = np.broadcast_to(u.reshape(u.shape if u.ndim == 2 else (-1, 1)), (members or 1, modes))
        a = np.repeat(np.abs(u)[:, None, :] ** (1 / depth), depth, axis=1)
        a[:, -1] *= np.where(u < 0, -1.0, 1.0)
        return a, "strength", members
    a = validate.array(layer_strengths, "layer_strengths")
    given = a.shape
    if a.ndim == 1:
        a = np.repeat(a[:, None], modes, axis=1)
    if a.ndim not in (2, 3) or a.shape[-2:] != (depth, modes) or a.size == 0:
        raise ValueError(
            f"layer_strengths: expected ({depth},), ({depth}, {modes}) or (batch, {depth}, {modes}), got {given}"
        )
    return (a, "layer_strengths", len(a)) if a.ndim == 3 else (a[None], "layer_strengths", None)
