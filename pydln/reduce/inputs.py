"""Reduction "inputs": coordinates in which Σ_xx is diagonal, without the directions that never move.

Σ_xx = QΛQᵀ, W_1 → W_1 Q, Σ_yx → Σ_yx Q: then ΩΣ_xx costs n_0 n_D instead of n_0² n_D. Where λ = 0 and Σ_yx q = 0, the
error E = Σ_yx - ΩΣ_xx has no part along q and neither has any gradient: W_1 q only decays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pydln._base.arrays import Floats, Integers, lengths, sizes, take, transposed
from pydln._base.patience import patiently
from pydln.reduce.ensemble import Ensemble, cast, diagonal_input, principal_inputs, upward

__all__ = ["Inputs", "Needs", "diagonal", "reduced_moments", "reduced_squares"]

_EPS = float(np.finfo(np.float64).eps)  # tasks are float64 whatever the weights


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What of a run is seen besides the training loss, and so which of the unmoved directions must be carried along."""

    product: bool = False
    strengths: bool = False
    test: bool = False
    drift: bool = False  # of a start that decays: W_1 q then enters the change of W_1 W_1ᵀ


@dataclass(frozen=True, eq=False)
class Inputs:
    """New input coordinates of some members: one entry for all, or one each."""

    members: Integers
    basis: Floats  # (1 or members, n_0, r)
    variances: Floats  # (1 or members, r)
    targets: Floats  # (1 or members, n_D, moving): what goes with their roots in the loss, B' of `squares.principal`
    moving: int  # how many of the r, the first ones, have variance or correlation
    largest_dropped: Floats  # (1 or members,) λ of the directions left out over the largest; 0 if none is
    tolerance: float

    @property
    def width(self) -> int:
        """Directions kept."""
        return int(self.basis.shape[-1])


def diagonal(ensemble: Ensemble, members: Integers, needs: Needs) -> list[Inputs]:
    """Members by the number of directions kept: those with variance or correlation, then what `needs` asks for.

    The task itself tells which directions have variance, each input measured by its own rounding. One without counts as
    uncorrelated at |Σ_yx q| <= 16 eps √n_0 √(λ_max tr Σ_yy), the rounding of eigenvectors and of Σ_yx.
    """
    Q, deviations, targets = principal_inputs(ensemble, members)
    n_in = Q.shape[-1]
    tolerance = 4 * _EPS * n_in
    variances = deviations**2
    scale = deviations[:, :1] * np.sqrt(ensemble.of_task("trace_yy", members))[:, None]
    correlation = lengths(ensemble.of_task("sigma_yx", members) @ Q)
    unmoved = (deviations == 0) & (correlation <= 16 * _EPS * np.sqrt(n_in) * scale)
    unmoved[:, 0] = False  # a network has an input
    if not unmoved.any():
        return [Inputs(members, Q, variances, targets, n_in, np.zeros(1), tolerance)]

    # Kept directions first.
    order = np.argsort(unmoved, axis=1, kind="stable")
    Q = np.take_along_axis(Q, order[:, None, :], axis=2)
    variances = np.take_along_axis(variances, order, axis=1)
    targets = np.take_along_axis(targets, order[:, None, :], axis=2)
    unmoved = np.take_along_axis(unmoved, order, axis=1)
    seen = _seen(ensemble, members, needs, Q, unmoved)
    kept_of = n_in - unmoved.sum(axis=1)
    relative = np.zeros(1)
    shape = max(len(kept_of), len(seen), len(members) if seen.any() else 1)
    kept_of, seen, relative = (np.broadcast_to(a, (shape,)) for a in (kept_of, seen, relative))
    found = []
    for kept, carried in sorted(set(zip(kept_of.tolist(), seen.tolist(), strict=True))):
        part = np.flatnonzero((kept_of == kept) & (seen == carried))
        own_Q, own = take(Q, part), take(variances, part)
        own_targets = (targets if shape == 1 else take(targets, part))[:, :, :kept]
        chosen = members if shape == 1 else members[part]
        if not carried:
            found.append(
                Inputs(chosen, own_Q[:, :, :kept], own[:, :kept], own_targets, kept, relative[part], tolerance)
            )
            continue
        W = ensemble.layer(1, chosen)
        tiny = 4 * float(np.finfo(ensemble.weights.dtype).eps) * np.sqrt(max(W.shape[1:])) * sizes(W)
        tiny = tiny * (np.count_nonzero(own_Q, axis=(1, 2)) > n_in)  # inputs that keep their places are not rounded
        _, s, rows = patiently(np.linalg.svd, W @ own_Q[:, :, kept:], full_matrices=False)
        # As many unmoved directions as the rank of W_1 there: in the others the network sees nothing.
        ranks = np.broadcast_to((s > tiny[:, None]).sum(axis=1), (len(chosen),))
        for rank in np.unique(ranks):
            some = np.flatnonzero(ranks == rank)
            some_Q, some_rows, some_own = take(own_Q, some), take(rows, some), take(own, some)
            along = some_Q[:, :, kept:] @ transposed(some_rows[:, :rank])
            basis = np.concatenate([np.broadcast_to(some_Q[:, :, :kept], (len(along), n_in, kept)), along], axis=2)
            padded = np.concatenate([some_own[:, :kept], np.zeros((len(some_own), rank))], axis=1)
            found.append(
                Inputs(
                    chosen[some], basis, padded, take(own_targets, some), kept, take(relative[part], some), tolerance
                )
            )
    return found


def _seen(ensemble: Ensemble, members: Integers, needs: Needs, Q: Floats, unmoved: Floats) -> Any:
    """Whether anything that is asked for sees the unmoved directions."""
    if needs.product or needs.drift:
        return np.array([True])
    tolerance = 16 * _EPS * np.sqrt(Q.shape[1])
    seen = np.zeros((1,), dtype=bool)
    if needs.strengths:
        V = ensemble.modes(members)[2]
        # A singular vector of Σ_yx errs by eps times s_1/s_α there: 4e-13 on MNIST, whose strengths span 17.
        seen = seen | (unmoved & (lengths(transposed(V) @ Q) > 8 * tolerance)).any(axis=1)
    if needs.test:
        xx, yx = (ensemble.of_task(name, members, test=True) for name in ("sigma_xx", "sigma_yx"))
        largest = sizes(xx)[:, None]
        scale = np.sqrt(largest * ensemble.of_task("trace_yy", members, test=True)[:, None])
        varies = lengths(xx @ Q) > tolerance * largest
        seen = seen | (unmoved & (varies | (lengths(yx @ Q) > tolerance * scale))).any(axis=1)
    return seen


def reduced_moments(ensemble: Ensemble, inputs: Inputs, part: Integers) -> dict[str, Any]:
    """What `problem.moments` says, in the new coordinates; `part` are places among the members of `inputs`."""
    dtype = ensemble.weights.dtype
    members = inputs.members[part]
    basis, variances, own = take(inputs.basis, part), take(inputs.variances, part), take(inputs.targets, part)
    deviations = np.sqrt(variances)
    targets = np.zeros((*own.shape[:2], basis.shape[-1]))
    targets[:, :, : inputs.moving] = own
    yx = targets * deviations[:, None, :]
    if (variances[:, : inputs.moving] == 0).any():
        moved = ensemble.of_task("sigma_yx", members) @ basis[:, :, : inputs.moving]
        yx = np.array(np.broadcast_to(yx, (max(len(yx), len(moved)), *yx.shape[1:])))
        yx[:, :, : inputs.moving] = np.where(variances[:, None, : inputs.moving] > 0, yx[:, :, : inputs.moving], moved)
    return {
        **diagonal_input(variances, dtype),
        "sigma_yx": cast(yx, dtype),
        "root": None,
        "deviations": cast(deviations, dtype),
        "target": cast(targets, dtype),
        "floor": upward(ensemble.of_task("floor", members), dtype),
    }


def reduced_squares(ensemble: Ensemble, inputs: Inputs, part: Integers) -> dict[str, Any]:
    """What `problem.squares` says of the test, in the new coordinates, whose directions are all that Ω has part in."""
    dtype = ensemble.weights.dtype
    members = inputs.members[part]
    basis = take(inputs.basis, part)
    root, target = ensemble.squares(members, test=True)
    floor = ensemble.of_task("floor", members, test=True)
    # |B - Ω'A'|² with A'ᵀ = Z R: what no Ω' reaches apart, and no more columns than there are directions.
    turn = basis if root is None else transposed(transposed(basis) @ root)
    upper = None
    if root is not None:
        turn, upper = np.linalg.qr(turn)
    reached = target @ turn
    missed = sizes(target - reached @ transposed(turn))
    return {
        "root": None if upper is None else cast(transposed(upper), dtype),
        "deviations": None,
        "target": cast(reached, dtype),
        "floor": upward(floor + 0.5 * missed**2, dtype),
    }
