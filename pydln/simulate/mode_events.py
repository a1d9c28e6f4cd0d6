"""When decoupled modes meet a condition: looked for at the times recorded, then placed between two of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln.trajectory.status import Status

__all__ = ["first_times", "margins"]

Floats = NDArray[np.float64]


def margins(
    u: Floats, s: Floats, d: Floats, start: Floats, limits: dict[str, NDArray[Any] | None], loss: Callable[..., Floats]
) -> dict[Status, Floats]:
    """How far networks are above each condition of `pydln.Stop` that was asked for; it holds at zero and below.

    Parameters
    ----------
    u : (batch, time, mode) array
        Strengths.
    s, d : (batch, mode) arrays
        Strengths of Σ_yx and variances of the inputs.
    start : (batch, mode, D) array
        a_l(0).
    limits : dict
        ``loss`` (batch,), ``strengths`` (batch, mode) and ``steady`` (batch,), or None.
    loss : callable
        The loss of (u, s, d), (batch, time).
    """
    found = {}
    if (limit := limits["loss"]) is not None:
        found[Status.REACHED_LOSS] = loss(u, s, d) - limit[:, None]
    if (limit := limits["strengths"]) is not None:
        lacking = limit[:, None] - np.abs(u)
        found[Status.REACHED_STRENGTH] = np.where(np.isnan(limit)[:, None], -np.inf, lacking).max(axis=-1)
    if (limit := limits["steady"]) is not None:
        others = _others(u, start)
        left = np.abs(s[:, None] - d[:, None] * u)
        ended = (others == 0) | _ends_at_zero(s, start)[:, None]
        to_come = np.where(ended, 0.0, _attainable(left, d, start.shape[-1]))
        found[Status.STEADY] = np.maximum(others * left, to_come).max(axis=-1) - limit[:, None]
    return found


def first_times(
    at: Callable[[NDArray[np.int64], Floats], dict[Status, Floats]],
    times: Floats,
    recorded: dict[Status, Floats],
    initial: dict[Status, Floats],
    rtol: float,
) -> tuple[Floats, NDArray[np.int64]]:
    """Time and condition of every network's stop; infinite where no condition held at a time recorded.

    Parameters
    ----------
    at : callable
        Margins, (members,), of given members at a time of each.
    times : (time,) array
        The times recorded.
    recorded : dict
        Margins at `times`, (batch, time); NaN where a network was given up.
    initial : dict
        Margins at t = 0, (batch,).
    rtol : float
        How closely the time is sought.
    """
    batch = len(next(iter(initial.values())))
    when, why = np.full(batch, np.inf), np.full(batch, Status.COMPLETED, dtype=np.int64)
    for status, margin in recorded.items():
        holds = np.concatenate([initial[status][:, None] <= 0, margin <= 0], axis=1)
        first = holds.argmax(axis=1)
        own = np.where(holds.any(axis=1), 0.0, np.inf)
        between = np.flatnonzero(first > 0)
        if between.size:
            edges = np.concatenate([[0.0], times])
            low, high = edges[first[between] - 1], edges[first[between]]

            def above(t: Floats, member: NDArray[np.int64], status: Status = status) -> Floats:
                return at(member, t)[status]

            # NaN where rounding closed the bracket at its edge: the condition holds at `high`.
            root = _root(above, low, high, (between,), xrtol=0.01 * rtol)
            own[between] = np.where(np.isnan(root), high, root)
        sooner = own < when
        when[sooner], why[sooner] = own[sooner], status
    return when, why


def _attainable(left: Floats, d: Floats, depth: int) -> Floats:
    """The largest speed of layers that learn `left` from a small start, da/dt = a^(D-1) (s - d a^D).

    It is reached where d a^D = s (D - 1) / (2D - 1). However slow, modes with this before them are on a plateau.
    """
    if depth == 1:
        return np.zeros_like(left)
    with np.errstate(divide="ignore"):
        size = left * (depth - 1) / ((2 * depth - 1) * d[:, None])
    return np.where(left > 0, left * depth / (2 * depth - 1) * size ** ((depth - 1) / depth), 0.0)


def _ends_at_zero(s: Floats, start: Floats) -> NDArray[np.bool_]:
    """Modes of the wrong sign whose two smallest layers are equal: they end at the saddle, and do not leave it."""
    if start.shape[-1] == 1:
        return np.zeros(s.shape, dtype=bool)
    sizes = np.sort(np.abs(start), axis=-1)
    return np.asarray((sizes[..., 0] == sizes[..., 1]) & (np.sign(start).prod(axis=-1) * np.sign(s) <= 0))


def _others(u: Floats, start: Floats) -> Floats:
    """|∏_{l≠m} a_l| where |a_m| is least, from |u| = z ∏ √(z² + c_l), c_l = a_l(0)² - a_m(0)² conserved, z = |a_m|."""
    batch, _, modes = u.shape
    depth = start.shape[-1]
    square = np.sort(start**2, axis=-1)
    c = (square[..., 1:] - square[..., :1]).reshape(batch * modes, depth - 1)

    def others(z: Floats, mode: NDArray[np.int64]) -> Floats:
        return np.asarray(np.sqrt(z[..., None] ** 2 + c[mode]).prod(axis=-1))

    size = np.abs(u)
    mode = np.broadcast_to(np.arange(batch * modes).reshape(batch, 1, modes), u.shape)
    high = size ** (1 / depth) * (1 + 1e-14 * depth)  # the root itself where all c = 0, but for rounding
    root = _root(lambda z, mode, size: z * others(z, mode) - size, np.zeros_like(size), high, (mode, size))
    return others(np.where(size == 0, 0.0, root), mode)


def _root(
    f: Callable[..., Floats], low: Floats, high: Floats, args: tuple[NDArray[Any], ...], **tolerances: float
) -> Floats:
    """Where f crosses zero between `low` and `high`, elementwise (Chandrupatla 1997); NaN where it does not."""
    from scipy.optimize import elementwise  # slow to import

    found = elementwise.find_root(f, (low, high), args=args, tolerances=tolerances)  # type: ignore[call-overload]
    return np.where(found.success, found.x, np.nan)
