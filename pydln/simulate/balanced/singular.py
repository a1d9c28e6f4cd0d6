"""Singular values and vectors of the end-to-end map of balanced networks: how fast they move, and where they go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln._base.arrays import blocks, transposed
from pydln._base.patience import patiently
from pydln.reduce.ensemble import Ensemble
from pydln.simulate.balanced.coordinates import Balanced, confluent, divided, ranks
from pydln.simulate.balanced.end_to_end import EndToEndRun, depth_of, maps_of
from pydln.simulate.integrator import Integrator
from pydln.simulate.members import agree
from pydln.simulate.methods import Method
from pydln.simulate.progress import Progress
from pydln.simulate.stop import Stop
from pydln.task.task import Task
from pydln.trajectory.recording import Record
from pydln.trajectory.trajectory import Trajectory

__all__ = ["SingularFlow", "SingularRates", "singular_flow", "singular_rates"]

Floats = NDArray[Any]
Integers = NDArray[np.int64]


class SingularRates(NamedTuple):
    """Ω = U diag(σ) Vᵀ with k = min(n_0, n_D) columns, and the derivatives in τ.

    Attributes
    ----------
    U, sigma, V : (batch, n_D, k), (batch, k) and (batch, n_0, k) arrays
        σ decreasing.
    U_dot, sigma_dot, V_dot : arrays of the same shapes
        U', σ' and V'; always dΩ/dt = U' diag(σ) Vᵀ + U diag(σ') Vᵀ + U diag(σ) V'ᵀ.
    """

    U: Floats
    sigma: Floats
    V: Floats
    U_dot: Floats
    sigma_dot: Floats
    V_dot: Floats


def singular_rates(task: Task, product: ArrayLike, *, depth: float) -> SingularRates:
    """How fast the singular values and vectors of the product of a balanced network move.

        σ_r' = D σ_r^{2-2/D} u_rᵀ E v_r,   E = Σ_yx - ΩΣ_xx
        U' = U (F ∘ [UᵀEVS + SVᵀEᵀU]) + (I - UUᵀ) E V S^{1-2/D}
        V' = V (F ∘ [SUᵀEV + VᵀEᵀUS]) + (I - VVᵀ) Eᵀ U S^{1-2/D},   F_ik = 1 / (σ_k^{2/D} - σ_i^{2/D}), F_ii = 0

    (Arora, Cohen, Hu & Luo 2019, theorem 3 and lemma 2, with S = diag(σ) and time in units of τ.)

    Where singular values are equal, σ_i^{1/D} and σ_k^{1/D} to 1e-8 of the larger, F has no meaning and no vector is
    singled out but by what comes next. As in degenerate perturbation theory U and V are turned within such a block to
    where the symmetric part of U_bᵀEV_b is diagonal, the largest first, which is how its values part; F is zero
    within the block, and its antisymmetric part turns U_b and V_b against each other by equal amounts. A common turn
    within the block, of which a derivative of Ω says nothing, is left out. The block of σ = 0 is turned to the singular
    vectors of E between its null spaces. With one layer its values grow by those of E there; with more they stay zero,
    and the vectors follow the null spaces by the shortest way.

    Parameters
    ----------
    task : Task
    product : (n_D, n_0) or (batch, n_D, n_0) array
        Ω. Singular values below max(n_0, n_D) eps of the largest count as zero.
    depth : float
        D: 1 or a number >= 2.

    Raises
    ------
    TypeError, ValueError
        A wrong argument.
    """
    maps, D = maps_of(task, product), depth_of(depth)
    batch = agree({"product": maps.batch, "task": task.batch or 1})
    ensemble = Ensemble(task, maps, batch)
    found = []
    for member in range(batch):
        one = np.array([member])
        omega = ensemble.layer(1, one)[0]
        xx, yx = (ensemble.of_task(name, one)[0] for name in ("sigma_xx", "sigma_yx"))
        found.append(_rates(omega, yx - omega @ xx, D))
    return SingularRates(*(np.stack(same) for same in zip(*found, strict=True)))


def _rates(omega: Floats, E: Floats, D: float) -> SingularRates:
    U, sigma, Vt = patiently(np.linalg.svd, omega, full_matrices=True)
    V, k = Vt.T, len(sigma)
    rank = int(ranks(omega, U[None, :, :k], sigma[None], Vt[None, :k])[0])
    sigma = np.where(np.arange(k) < rank, sigma, 0.0)
    a = sigma ** (1 / D)
    blocks = confluent(a[:rank])
    for block in blocks:
        inner = U[:, block].T @ E @ V[:, block]
        turn = patiently(np.linalg.eigh, 0.5 * (inner + inner.T))[1][:, ::-1]
        U[:, block], V[:, block] = U[:, block] @ turn, V[:, block] @ turn
    left, _, right = patiently(np.linalg.svd, U[:, rank:].T @ E @ V[:, rank:])
    U[:, rank:], V[:, rank:] = U[:, rank:] @ left, V[:, rank:] @ right.T
    U, V = U[:, :k], V[:, :k]

    e = U.T @ E @ V
    row, column = sigma[:, None], sigma[None, :]
    gap = (a[None, :] - a[:, None]) * (a[None, :] + a[:, None])
    together = np.zeros((k, k), dtype=bool)
    against = np.zeros((k, k))
    for block in (*blocks, slice(rank, k)):
        together[block, block] = True
    for block in blocks:
        x, y = np.maximum.outer(a[block], a[block]), np.minimum.outer(a[block], a[block])
        inner = e[block, block]
        against[block, block] = divided(x, y, D) / (x + y) * 0.5 * (inner - inner.T)
    F = np.divide(1.0, gap, out=np.zeros((k, k)), where=~together)
    beside = np.zeros(k)
    beside[:rank] = sigma[:rank] ** (1 - 2 / D)
    return SingularRates(
        U=U,
        sigma=sigma,
        V=V,
        U_dot=U @ (F * (e * column + row * e.T) + against) + (E @ V - U @ e) * beside,
        sigma_dot=D * sigma ** (2 - 2 / D) * np.diag(e),
        V_dot=V @ (F * (row * e + e.T * column) - against) + (E.T @ U - V @ e.T) * beside,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class SingularFlow:
    """Singular values and vectors over time, k = min(n_0, n_D) of them.

    Attributes
    ----------
    trajectory : Trajectory
        The run: `Trajectory.t`, `Trajectory.status` and what was recorded.
    sigma : (batch, time, k) array
        σ, decreasing at t = 0. Every column is one value followed through time. Zero beyond the rank of Ω(0).
    U, V : (batch, time, n_D, k) and (batch, time, n_0, k) arrays
        Singular vectors that move continuously. NaN beyond the rank.
    """

    trajectory: Trajectory
    sigma: Floats
    U: Floats
    V: Floats


def singular_flow(
    task: Task,
    product: ArrayLike,
    t: ArrayLike,
    *,
    depth: float,
    record: Record = ("loss", "strengths"),
    method: str | Method = "tsit5",
    rtol: float | None = None,
    atol: float = 0.0,
    step: float | None = None,
    max_step: float | None = None,
    max_steps: int = 100_000,
    stop: Stop | None = None,
    throw: bool = True,
    progress: Progress = False,
) -> SingularFlow:
    """Singular values and vectors of Ω along `end_to_end_flow`, followed through time: no jumps of sign or order.

    Vectors go on from every step of the integrator as those that they overlap most. Two values that come close are
    seen to repel each other, and their vectors to turn into one another, as far as the steps resolve it; two that meet
    closer than that cross. Values that are equal (σ^{1/D} to 1e-8) are taken as a block: at t = 0 its vectors are
    those along which it parts, see `singular_rates`; while it lasts they move with it and do not turn within it.
    Nothing is divided by a difference of singular values, see `pydln.simulate.balanced.coordinates`.

    Parameters
    ----------
    depth : float
        D >= 2. (One layer lets singular values pass zero and rise from it: decompose its product.)
    task, product, t, record, method, rtol, atol, step, max_step, max_steps, stop, throw, progress
        As in `end_to_end_flow`.

    Raises
    ------
    TypeError, ValueError, IntegrationError, Interrupted
        As `end_to_end_flow`.
    """
    how = Integrator(method, rtol, atol, step, max_step, max_steps, np.dtype(np.float64))
    throw = validate.flag(throw, "throw")
    run = EndToEndRun(task, product, t, validate.number(depth, "depth", at_least=2), record, how, stop)
    k, times = min(task.n_in, task.n_out), len(run.times)
    validate.fits_in_memory(
        8 * run.batch * times * k * (task.n_in + task.n_out + 1),
        f"t: singular vectors of {run.batch} members at {times} times",
        "record at fewer times, or fewer members at once",
    )
    sigma = np.full((run.batch, times, k), np.nan)
    U, V = (np.full((run.batch, times, n, k), np.nan) for n in (task.n_out, task.n_in))

    def write(path: Any, members: Integers, at: Integers, y: Floats) -> None:
        sigma[members, at] = 0.0
        if isinstance(path, Balanced):
            left, values, right = path.singular(y)
            sigma[members, at, : path.rank] = values
            U[members, at, :, : path.rank] = left
            for some in blocks(len(at), 8 * task.n_in * (path.rank + task.n_in)):
                own = run.unturned(transposed(right[some]), members[some])
                V[members[some], at[some], :, : path.rank] = transposed(own)

    trajectory = run.recorded("singular_flow", throw, progress, write)
    return SingularFlow(trajectory=trajectory, sigma=sigma, U=U, V=V)
