"""How long learning takes and which rates it stands, for balanced modes of any depth (Saxe et al. 2013, appendix B)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln.exact.balanced_mode import time_to_reach

__all__ = [
    "Saddles",
    "escape_time",
    "half_time",
    "iterations_to_learn",
    "optimal_lr",
    "saddle_to_saddle",
    "sharpness",
    "stable_lr",
]

Floats = NDArray[Any]


def escape_time(u0: ArrayLike, s: ArrayLike, *, depth: float, fraction: float = 0.1) -> Floats:
    """When a mode has left the saddle at zero: the time at which u passes a fraction of s.

    With D >= 3 layers at scale ε = u0^(1/D) it grows like ε^(2-D), with two like ln(1/ε): depth makes plateaus.

    Parameters
    ----------
    u0, s : array_like
        Strength at the start and of the task's mode. They broadcast against each other.
    depth : float
        Number of weight matrices D, real and >= 1, or ``math.inf``.
    fraction : float
        Between 0 and 1.

    Returns
    -------
    ndarray
        Time in units of tau = 1/lr (tau/D for infinite depth); infinity if it is never passed, NaN for a start beyond.
    """
    part = validate.number(fraction, "fraction", above=0, below=1)
    first, target = validate.array(u0, "u0"), validate.array(s, "s")
    time = time_to_reach(first, part * target, target, depth=depth)
    beyond = (target != 0) & (first * np.sign(target) > part * np.abs(target))
    return np.where(beyond, np.nan, time)[()]


def half_time(u0: ArrayLike, s: ArrayLike, *, depth: float) -> Floats:
    """The time at which u passes s/2: `escape_time` with a half. At depth 2 it is ln(s/u0 - 1)/2s."""
    return escape_time(u0, s, depth=depth, fraction=0.5)


def sharpness(s: ArrayLike, *, depth: float) -> Floats:
    """Largest eigenvalue of the loss's Hessian at the aligned, balanced solution, D s_1^(2-2/D), whitened inputs.

    Parameters
    ----------
    s : (..., mode) array
        Strengths of the task's modes; the largest counts.
    depth : float
        Number of weight matrices D >= 1. The sharpness of infinite depth is infinite.

    Returns
    -------
    (...) array
    """
    D = validate.number(depth, "depth", at_least=1)
    strengths = np.abs(validate.array(s, "s"))
    if strengths.ndim == 0:
        strengths = strengths[None]
    with np.errstate(over="ignore"):
        largest = np.asarray(D * strengths.max(axis=-1) ** (2 - 2 / D))
    return validate.known(largest, "s, depth")[()]


def stable_lr(s: ArrayLike, *, depth: float) -> Floats:
    """The rate 2/λ_max above which gradient descent leaves the solution, λ_max the `sharpness`."""
    return np.asarray(2 / sharpness(s, depth=depth))[()]


def optimal_lr(s: ArrayLike, *, depth: float) -> Floats:
    """The rate 1/λ_max at which the steepest direction at the solution is learned in one step.

    It falls with depth like 1/(D s²), which is the scaling of the optimal rate in appendix B of Saxe et al. (2013).
    """
    return np.asarray(1 / sharpness(s, depth=depth))[()]


def iterations_to_learn(v0: ArrayLike, v: ArrayLike, *, depth: ArrayLike, rate: float = 1.0) -> Floats:
    """Steps from u/s = v0 to v at the learning rate `rate` / λ_max: (1/rate) ∫ dv / (v^(2-2/D) (1 - v)).

    The strength of the mode drops out. As D goes to infinity this tends to a finite count: with rates and starts in
    proportion, depth costs a delay and no more (Saxe et al. 2013, appendix B and figure 4).

    Parameters
    ----------
    v0, v : array_like
        Parts of s at the start and at the end, between 0 and 1.
    depth : array_like
        Number of weight matrices D, real and >= 1, infinity included; a sequence adds an axis at the end.
    rate : float
        Learning rate in units of 1/λ_max, the `optimal_lr`.

    Returns
    -------
    ndarray
        Steps of gradient flow, t/lr.
    """
    first = validate.array(v0, "v0", above=0, below=1)
    last = validate.array(v, "v", above=0, below=1)
    speed = validate.number(rate, "rate", above=0)
    depths = validate.array(depth, "depth", at_least=1, finite=False)
    if depths.size == 0:
        raise ValueError(f"depth: expected at least one depth, got an array of shape {depths.shape}")

    def steps(D: float) -> Floats:
        return np.asarray((1.0 if np.isinf(D) else D) * time_to_reach(first, last, 1.0, depth=D) / speed)

    if depths.ndim == 0:
        return steps(float(depths))[()]
    return np.stack([steps(float(D)) for D in depths.ravel()], axis=-1)


class Saddles(NamedTuple):
    """The stairs that learning descends from a small start.

    Attributes
    ----------
    times : (mode,) array
        When each mode is half learned, in units of tau, in the order of the modes given; infinite for those that never
        are.
    order : (mode,) array of int
        Modes in the order in which they are learned; those that never are come last.
    losses : (learned + 1,) array
        The loss on the plateau before the first of them, between them, and after the last.
    """

    times: Floats
    order: NDArray[np.int64]
    losses: Floats


def saddle_to_saddle(u0: ArrayLike, s: ArrayLike, *, depth: float, floor: float = 0.0) -> Saddles:
    """Times and plateaus of stage-like learning from a decoupled balanced start, whitened inputs.

    Each saddle has some modes learned and the others at zero; modes leave in the order of their strengths if they start
    alike. The loss there is the floor plus half the squares of what is not learned.

    Parameters
    ----------
    u0 : float or (mode,) array
        Strengths at the start.
    s : (mode,) array
        Strengths of the task's modes.
    depth : float
        Number of weight matrices.
    floor : float
        The loss that no linear network goes below.

    Returns
    -------
    Saddles

    Raises
    ------
    TypeError, ValueError
        Not finite numbers of these shapes, or a start beyond its target, |u0| > |s|: there is no stair to descend.
    """
    target = validate.array(s, "s", shape=("mode",))
    start = validate.array(u0, "u0")
    if start.ndim and start.shape != target.shape:
        raise ValueError(f"u0: expected a number or {target.shape} like s, got {start.shape}")
    first = np.broadcast_to(start, target.shape)
    beyond = np.flatnonzero((np.abs(first) > np.abs(target)) & (target != 0))
    if beyond.size:
        k = int(beyond[0])
        raise ValueError(f"u0: expected starts no larger than s, got {first[k]:g} beside s = {target[k]:g} (mode {k})")
    reached = np.divide(first, target, out=np.zeros(target.shape), where=target != 0) > 0.5
    times = np.where(reached, 0.0, np.nan_to_num(half_time(first, target, depth=depth), nan=0.0, posinf=np.inf))
    order = np.argsort(times, kind="stable")
    left = 0.5 * target[order] ** 2
    remaining = np.concatenate([np.cumsum(left[::-1])[::-1], [0.0]])
    learned = int(np.isfinite(times).sum())
    return Saddles(times, order, validate.number(floor, "floor", at_least=0) + remaining[: learned + 1])
