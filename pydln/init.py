"""Starting weights, for whole ensembles.

Random starts are keyed by (seed, member, layer): member i of an ensemble is the same network, bit for bit, whatever the
batch it is drawn in, and ``first=i, batch=1`` draws it alone. The dtype only rounds: all is computed in float64. The
random numbers are those of NumPy's Philox generator; NumPy may change how it turns them into normal numbers between its
feature releases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pydln import _validate
from pydln.task import Task
from pydln.weights import Weights

__all__ = ["aligned", "balanced", "gaussian", "identity", "orthogonal", "uniform"]

FloatArray = NDArray[np.float64]


def gaussian(
    widths: Sequence[int],
    *,
    batch: int | None = None,
    scale: ArrayLike = 1.0,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """Independent normal entries, W_l ~ N(0, scale² / n_{l-1}).

    Parameters
    ----------
    widths : sequence of int
        n_0 … n_D, input first.
    batch : int, optional
        How many networks; by default as many as `scale` has entries, or one.
    scale : number or (batch,) array
        The gain g, zero or more.
    seed : int
        Of the ensemble, 0 … 2^64 - 1.
    first : int
        Number of the first member: member i of the result is member first + i of the ensemble.
    dtype : dtype
        float32 or float64.

    Raises
    ------
    ValueError, TypeError
        Fewer than two widths, a width below one, text, a negative seed or scale, weights that no memory is free for.
    """
    dims, gain, count, keys, kind = _arguments(widths, batch, scale, seed, first, dtype)
    layers = []
    for layer, n_in, n_out in _shapes(dims):
        numbers = _draws(n_out, n_in, count, keys, layer, "normal")
        numbers *= gain / np.sqrt(n_in)
        layers.append(numbers.astype(kind, copy=False))
    return Weights._adopt(layers)


def uniform(
    widths: Sequence[int],
    *,
    batch: int | None = None,
    scale: ArrayLike = 1.0,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """Independent uniform entries between ±scale √(6 / (n_{l-1} + n_l)) (Glorot & Bengio 2010).

    Parameters and errors as for `gaussian`.
    """
    dims, gain, count, keys, kind = _arguments(widths, batch, scale, seed, first, dtype)
    layers = []
    for layer, n_in, n_out in _shapes(dims):
        numbers = _draws(n_out, n_in, count, keys, layer, "uniform")
        numbers -= 0.5
        numbers *= 2 * gain * np.sqrt(6 / (n_in + n_out))
        layers.append(numbers.astype(kind, copy=False))
    return Weights._adopt(layers)


def orthogonal(
    widths: Sequence[int],
    *,
    batch: int | None = None,
    scale: ArrayLike = 1.0,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """`scale` times a random orthogonal matrix in every layer, uniform (Haar) over all of them.

    Where n_l ≠ n_{l-1} the matrix has orthonormal rows or columns, whichever are fewer (Saxe, McClelland & Ganguli
    2013, section 3). Parameters and errors as for `gaussian`.
    """
    dims, gain, count, keys, kind = _arguments(widths, batch, scale, seed, first, dtype)
    layers = []
    for layer, n_in, n_out in _shapes(dims):
        frames = _frames(max(n_in, n_out), min(n_in, n_out), count, keys, layer)
        rotation = frames if n_out >= n_in else frames.transpose(0, 2, 1)
        layers.append((rotation * gain).astype(kind, order="C", copy=False))
    return Weights._adopt(layers)


def identity(
    widths: Sequence[int], *, batch: int | None = None, scale: ArrayLike = 1.0, dtype: DTypeLike = np.float64
) -> Weights:
    """`scale` times the identity in every layer, cut or padded with zeros where n_l ≠ n_{l-1}.

    Parameters and errors as for `gaussian`.
    """
    dims, gain, count, _, kind = _arguments(widths, batch, scale, 0, 0, dtype)
    return Weights._adopt(
        np.broadcast_to(gain * np.eye(n_out, n_in), (count, n_out, n_in)).astype(kind, order="C")
        for _, n_in, n_out in _shapes(dims)
    )


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
    _validate.instance(task, "task", Task)
    depth = _validate.integer(depth, "depth", at_least=1)
    kind = _validate.dtype(dtype)
    # One memory layout, because BLAS may round differently in another: a member alone must give the bits of the batch.
    U, V = np.ascontiguousarray(task.modes.U), np.ascontiguousarray(task.modes.V)
    modes = U.shape[-1]
    hidden = _hidden(width, depth, modes, "the number of modes")
    a, name, members = _layer_strengths(strength, layer_strengths, depth, modes)
    count = _agree(batch, {"task": task.batch, name: members})
    keys = _keys(seed, first, count)
    _fits(count, [task.n_in, *hidden, task.n_out], kind)
    a = np.broadcast_to(a, (count, depth, modes))
    return _from_frames(
        np.broadcast_to(U, (count, *U.shape[-2:])),
        a,
        np.broadcast_to(V, (count, *V.shape[-2:])),
        hidden,
        keys,
        kind,
    )


def balanced(
    product: ArrayLike,
    *,
    depth: int,
    width: int | Sequence[int] | None = None,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
) -> Weights:
    """Layers with the given product Ω_0 and W_{l+1}ᵀW_{l+1} = W_l W_lᵀ (Arora et al. 2018).

    With Ω_0 = P diag(σ) Qᵀ the layers are W_l = R_{l+1} diag(σ^{1/D}) R_lᵀ, R_1 = Q, R_{D+1} = P, the hidden frames
    random, keyed by (seed, member, layer).

    Parameters
    ----------
    product : (n_D, n_0) or (batch, n_D, n_0) array
        Ω_0.
    depth : int
        D, the number of weight matrices.
    width : int or sequence of D - 1 int, optional
        Hidden widths, none below the rank of Ω_0; min(n_0, n_D) by default.
    seed, first : int
        As for `gaussian`.
    dtype : dtype
        float32 or float64; rounding to float32 costs product and balance all but seven digits.

    Raises
    ------
    ValueError, TypeError
        A product that is not a matrix or a batch of them, a width below its rank.
    """
    depth = _validate.integer(depth, "depth", at_least=1)
    kind = _validate.dtype(dtype)
    target = _validate.array(product, "product")
    if target.ndim not in (2, 3) or target.size == 0:
        raise ValueError(f"product: expected (n_out, n_in) or (batch, n_out, n_in), got {target.shape}")
    target = target.reshape(-1, *target.shape[-2:])
    P, sigma, Qt = np.linalg.svd(target, full_matrices=False)
    rounding = max(target.shape[1:]) * np.finfo(np.float64).eps
    # What rounding alone may have made is no strength: sigma^(1/D) would turn 1e-18 into a layer strength of 3e-5.
    sigma = np.where(sigma > rounding * sigma[:, :1], sigma, 0.0)
    rank = max(1, int(np.count_nonzero(sigma, axis=1).max()))
    hidden = _hidden(width, depth, rank, "the rank of product", default=sigma.shape[1])
    keys = _keys(seed, first, len(target))
    _fits(len(target), [target.shape[2], *hidden, target.shape[1]], kind)
    if depth == 1:
        return Weights._adopt([target.astype(kind)])
    kept = min(sigma.shape[1], *hidden)
    a = np.repeat(sigma[:, None, :kept] ** (1 / depth), depth, axis=1)
    return _from_frames(P[:, :, :kept], a, Qt[:, :kept].transpose(0, 2, 1), hidden, keys, kind)


def _arguments(
    widths: Sequence[int], batch: int | None, scale: ArrayLike, seed: int, first: int, dtype: DTypeLike
) -> tuple[list[int], FloatArray, int, tuple[int, int], np.dtype[Any]]:
    """Widths, gain as (batch or 1, 1, 1), batch, (seed, first), dtype, all checked."""
    if isinstance(widths, str | bytes) or not isinstance(widths, Sequence | np.ndarray):
        raise TypeError(f"widths: expected a sequence of integers, input first, got {widths!r}")
    dims = [_validate.integer(n, f"widths[{place}]", at_least=1) for place, n in enumerate(widths)]
    if len(dims) < 2:
        raise ValueError(f"widths: expected at least two, input and output, got {len(dims)}")
    gain = _validate.per_member(scale, "scale", at_least=0)
    count = _agree(batch, {"scale": len(gain) if gain.ndim else None})
    keys, kind = _keys(seed, first, count), _validate.dtype(dtype)
    _fits(count, dims, kind)
    return dims, gain.reshape(-1, 1, 1), count, keys, kind


def _fits(count: int, dims: list[int], dtype: np.dtype[Any]) -> None:
    entries = count * sum(n_in * n_out for _, n_in, n_out in _shapes(dims))
    _validate.fits_in_memory(
        entries * dtype.itemsize,
        f"widths: an ensemble of {count} with {entries} weights of {dtype}",
        "take smaller widths, or fewer members at a time (`first` numbers them)",
    )


def _keys(seed: int, first: int, count: int) -> tuple[int, int]:
    seed = _validate.integer(seed, "seed", at_least=0, at_most=2**64 - 1)
    return seed, _validate.integer(first, "first", at_least=0, at_most=2**64 - count)


def _agree(batch: int | None, given: dict[str, int | None]) -> int:
    """The batch that all of `given` have; None or 1 goes with every batch."""
    count, because = 1, ""
    if batch is not None:
        count, because = _validate.integer(batch, "batch", at_least=1), "batch"
    for name, members in given.items():
        if members is None or members == 1 or members == count:
            continue
        if because:
            raise ValueError(f"{name}: expected 1 or {count} members to go with {because}, got {members}")
        count, because = members, name
    return count


def _hidden(
    width: int | Sequence[int] | None, depth: int, at_least: int, why: str, default: int | None = None
) -> list[int]:
    """n_1 … n_{D-1}, none below `at_least`."""
    if width is None:
        return [at_least if default is None else default] * (depth - 1)
    if isinstance(width, Sequence | np.ndarray) and not isinstance(width, str | bytes):
        if len(width) != depth - 1:
            raise ValueError(f"width: expected {depth - 1} hidden widths for depth {depth}, got {len(width)}")
        widths = [_validate.integer(n, f"width[{place}]", at_least=1) for place, n in enumerate(width)]
    else:
        widths = [_validate.integer(width, "width", at_least=1)] * (depth - 1)
    for n in widths:
        if n < at_least:
            raise ValueError(f"width: expected at least {at_least}, {why}, got {n}")
    return widths


def _layer_strengths(
    strength: ArrayLike | None, layer_strengths: ArrayLike | None, depth: int, modes: int
) -> tuple[FloatArray, str, int | None]:
    """a as (batch or 1, D, r), the argument it came from, and the batch that argument has."""
    if (strength is None) == (layer_strengths is None):
        got = "neither" if strength is None else "both"
        raise ValueError(f"strength: expected either strength or layer_strengths, got {got}")
    if strength is not None:
        u = _validate.array(strength, "strength")
        if u.ndim > 2 or u.size == 0 or (u.ndim == 2 and u.shape[1] != modes):
            raise ValueError(f"strength: expected a number, (batch,) or (batch, {modes}), got {u.shape}")
        members = len(u) if u.ndim else None
        u = np.broadcast_to(u.reshape(u.shape if u.ndim == 2 else (-1, 1)), (members or 1, modes))
        a = np.repeat(np.abs(u)[:, None, :] ** (1 / depth), depth, axis=1)
        a[:, -1] *= np.where(u < 0, -1.0, 1.0)
        return a, "strength", members
    a = _validate.array(layer_strengths, "layer_strengths")
    given = a.shape
    if a.ndim == 1:
        a = np.repeat(a[:, None], modes, axis=1)
    if a.ndim not in (2, 3) or a.shape[-2:] != (depth, modes) or a.size == 0:
        raise ValueError(
            f"layer_strengths: expected ({depth},), ({depth}, {modes}) or (batch, {depth}, {modes}), got {given}"
        )
    return (a, "layer_strengths", len(a)) if a.ndim == 3 else (a[None], "layer_strengths", None)


def _shapes(dims: list[int]) -> list[tuple[int, int, int]]:
    """(l, n_{l-1}, n_l) for l = 1 … D."""
    return [(place + 1, dims[place], dims[place + 1]) for place in range(len(dims) - 1)]


def _from_frames(
    left: FloatArray,
    a: FloatArray,
    right: FloatArray,
    hidden: list[int],
    keys: tuple[int, int],
    dtype: np.dtype[Any],
) -> Weights:
    """W_l = R_{l+1} diag(a_l) R_lᵀ with R_1 = `right`, R_{D+1} = `left` and random hidden frames."""
    count, depth, modes = a.shape
    layers = []
    before = right
    for layer in range(1, depth + 1):
        after = left if layer == depth else _frames(hidden[layer - 1], modes, count, keys, layer)
        product = np.matmul(after * a[:, layer - 1, None, :], before.transpose(0, 2, 1))
        layers.append(product.astype(dtype, copy=False))
        before = after
    return Weights._adopt(layers)


def _frames(n: int, k: int, count: int, keys: tuple[int, int], layer: int) -> FloatArray:
    """(count, n, k) with orthonormal columns, Haar: QR of a Gaussian with R's diagonal positive (Mezzadri 2007)."""
    q, r = np.linalg.qr(_draws(n, k, count, keys, layer, "normal"))
    signs = np.where(np.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return np.ascontiguousarray(q * signs[:, None, :])


def _draws(
    rows: int, columns: int, count: int, keys: tuple[int, int], layer: int, law: Literal["normal", "uniform"]
) -> FloatArray:
    """(count, rows, columns) standard numbers; member i's depend on seed, first + i, layer and the shape alone."""
    seed, first = keys
    # One generator, moved from member to member by its key (2 µs): a new one for each would cost five times as much.
    bits = np.random.Philox(key=np.array([seed, first], np.uint64), counter=np.array([0, 0, 0, layer], np.uint64))
    generator = np.random.Generator(bits)
    fill = generator.standard_normal if law == "normal" else generator.random
    state: Any = bits.state
    key = state["state"]["key"]
    numbers = np.empty((count, rows, columns))
    for member, out in enumerate(numbers, start=first):
        key[1] = member
        bits.state = state
        fill(out=out)
    return numbers
