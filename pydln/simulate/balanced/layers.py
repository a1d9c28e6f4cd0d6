"""Reduction "balanced": the flow of balanced layers, through their product and the turns of their hidden frames.

W_{l+1}ᵀW_{l+1} = W_lW_lᵀ makes W_l = F_{l+1} O_{l+1} diag(a) O_lᵀ F_lᵀ with constant orthonormal F of r columns in the
hidden layers and orthogonal O. In the coordinates of `pydln.simulate.balanced.coordinates`, O_l = S_l R:

    W_1 = F_2 S_2 M Qᵀ,   W_l = F_{l+1} S_{l+1} M S_lᵀ F_lᵀ,   W_D = P M S_Dᵀ F_Dᵀ.

The gradient of S_{l+1} M S_lᵀ has the entries a_i^{D-l} e_ik a_k^{l-1} between O_{l+1} and O_l, which determines how
these turn. With p = D - l + 1, q = l - 1 and what P and Q have in common, S_l' = S_l R Z_l Rᵀ,

    Z_l = common + f s - g k,   f_ik = (a_i^p - a_k^p) (a_i^q - a_k^q) / (a_i² - a_k²),
    g_ik = (a_i^p a_k^q - a_k^p a_i^q) / (a_i² - a_k²),

which are those of Q and P at l = 1 and l = D + 1, and again need no singular values that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pydln._base.arrays import Floats, Integers, blocks, lengths, sizes, take, transposed
from pydln.reduce.decay import Decay
from pydln.reduce.decoupled import carried
from pydln.reduce.ensemble import Ensemble, KernelResult, Problem, Whole
from pydln.reduce.width import tolerance_of
from pydln.simulate.balanced.coordinates import Balanced, Learned, divided, learned_by, orthonormal, ranks

__all__ = ["BalancedGroup", "BalancedLayers", "balanced_groups"]


class BalancedLayers(Balanced):
    """P, M, Q and S_2 … S_D."""

    def __init__(self, learned: Learned, shape: tuple[int, int], rank: int, depth: float) -> None:
        super().__init__(learned, shape, rank, depth)
        layer = np.arange(2, int(depth) + 1)[:, None, None]
        self.p, self.q = int(depth) - layer + 1, layer - 1

    def hidden(self, y: Floats) -> Floats:
        """S_2 … S_D, (members, D - 1, r, r), or their slopes."""
        return y[:, self.cuts[2] :].reshape(len(y), -1, self.rank, self.rank)

    def with_hidden(self, y: Floats, S: Floats) -> Floats:
        """The state of `Balanced` with hidden frames."""
        return np.concatenate([y, S.reshape(len(y), -1)], axis=1)

    def slope(self, y: Floats) -> Floats:
        """P', M', Q', S'."""
        slope, (a, R, s, k, common) = self.moving(y)
        row, column = a[:, None, :, None], a[:, None, None, :]
        x, z = np.maximum(row, column), np.minimum(row, column)
        p, q = self.p, self.q
        f = np.sign(row - column) * divided(x, z, p) * (x**q - z**q) / (x + z)
        least, apart = np.minimum(p, q), np.abs(p - q)
        g = np.sign(p - q) * (x * z) ** least * divided(x, z, apart) / (x + z)
        Z = common[:, None] + f * s[:, None] - g * k[:, None]
        R = R[:, None]
        return self.with_hidden(slope, self.hidden(y) @ (R @ Z @ transposed(R)))

    def renewed(self, y: Floats, slope: Floats) -> tuple[Floats, Floats]:
        """Turned with P and Q."""
        R = self.turn(y)
        state, moving = self.turned(y, slope, R)
        R = R[:, None]
        return (
            self.with_hidden(state, orthonormal(self.hidden(y)) @ R),
            self.with_hidden(moving, self.hidden(slope) @ R),
        )

    def layers(self, y: Floats, frames: list[Floats], basis: Floats | None) -> list[Floats]:
        """W_1 … W_D from F_2 … F_D, one entry for all or one each, and the input coordinates if not their own."""
        P, M, Q = self.parts(y)
        S = self.hidden(y)
        right = transposed(Q) if basis is None else transposed(basis @ Q)
        layers = []
        for k, F in enumerate(frames):
            left = F @ S[:, k]
            layers.append(left @ M @ right)
            right = transposed(left)
        return [*layers, P @ M @ right]


@dataclass(frozen=True, eq=False)
class BalancedGroup:
    """Balanced members of one rank."""

    whole: Whole
    rank: int
    frames: list[Floats]  # F_2 … F_D of these members
    U: Floats
    a: Floats
    V: Floats  # in the coordinates in which Σ_xx is diagonal
    learned: Learned  # of these members
    basis: Floats | None
    names: tuple[str, ...] = ("balanced",)
    networks: int = 1

    @property
    def members(self) -> Integers:
        """Places in the batch."""
        return self.whole.members

    @property
    def widths(self) -> tuple[int, ...]:
        """As given."""
        return self.whole.widths

    def problem(self, part: Integers, *, test: bool) -> Problem:
        """The networks themselves."""
        return self.whole.problem(part, test=test)

    def records(self, names: Iterable[str]) -> tuple[str, ...]:
        """The same."""
        return tuple(names)

    def recover(
        self, part: Integers, kernel: KernelResult, out: dict[str, Any], decay: Decay, at: Floats
    ) -> KernelResult:
        """Nothing to recover."""
        return self.whole.recover(part, kernel, out, decay, at)

    def start(self, part: Integers) -> tuple[BalancedLayers, Floats]:
        """The coordinates of some of the members, and where these start."""
        U, a, V = (np.broadcast_to(take(x, part), (len(part), *x.shape[1:])) for x in (self.U, self.a, self.V))
        depth = self.whole.ensemble.weights.depth
        shape = (self.widths[-1], V.shape[1])
        path = BalancedLayers(self.learned.of(part), shape, self.rank, float(depth))
        R = path.parting(U, a, V)
        y = path.joined(U @ R, transposed(R * a[:, :, None]) @ R, V @ R)
        return path, path.with_hidden(y, np.broadcast_to(R[:, None], (len(y), depth - 1, *R.shape[1:])))

    def follow(
        self,
        part: Integers,
        kept: list[Floats],
        final: list[Floats],
        run: Callable[[BalancedLayers, Floats, Callable[[Any, Integers, Integers, Floats], None]], None],
    ) -> None:
        """Writes the layers over time into `kept`, (part, time, …), and where they end into `final`.

        `run` gets coordinates, starts, which it replaces by where they end, and what to call with states on the way.
        """
        frames = [take(F, part) for F in self.frames]
        basis = None if self.basis is None else take(self.basis, part)
        path, y = self.start(part)
        ensemble = self.whole.ensemble
        members = self.members[part]
        # What rounding left of the start outside of the frames stays as it is.
        rest = [ensemble.layer(k, members) - W for k, W in enumerate(path.layers(y, frames, basis), 1)]

        def own(a: Floats, which: Integers) -> Floats:
            return a if len(a) == 1 else a[which]

        def layers(y: Floats, which: Integers) -> list[Floats]:
            found = path.layers(y, [own(F, which) for F in frames], None if basis is None else own(basis, which))
            return [own(C, which) + W for C, W in zip(rest, found, strict=True)]

        size = 2 * ensemble.bytes_of_one + (0 if basis is None else 8 * basis[0].size)

        def record(_: Any, which: Integers, at: Integers, y: Floats) -> None:
            for some in blocks(len(at), size):
                for target, W in zip(kept, layers(y[some], which[some]), strict=True):
                    target[which[some], at[some]] = W

        try:
            run(path, y, record)
        finally:  # also of those who have ended when Ctrl-C ends the others
            for some in blocks(len(part), size):
                for target, W in zip(final, layers(y[some], some), strict=True):
                    target[some] = W


def balanced_groups(ensemble: Ensemble, *, stops: bool) -> list[BalancedGroup]:
    """All members, those of one rank together.

    Raises
    ------
    ValueError
        One layer, a run that may stop, or a member whose layers are not balanced to rounding: frames carried from W_1
        to W_D with W_l F_l = F_{l+1} diag(a), W_lᵀ F_{l+1} = F_l diag(a) and nothing beside, to 16 eps D √(widest
        layer) of what |W| |F| adds up to.
    """
    if ensemble.weights.depth < 2:
        raise ValueError("reduce: expected two or more layers for 'balanced', got one")
    if stops:
        raise ValueError("reduce: expected a run without a stop for 'balanced', got one with")
    learned, basis = learned_by(ensemble.task)
    tolerance = ensemble.weights.depth * tolerance_of(ensemble)  # frames carry the rounding of the layers before
    found: dict[int, list[tuple[Integers, list[Floats], Floats, Floats]]] = {}
    for cases in blocks(ensemble.cases, 4 * ensemble.bytes_of_one):
        layers = [ensemble.layer(k, cases) for k in range(1, ensemble.weights.depth + 1)]
        if basis is not None:
            layers[0] = layers[0] @ take(basis, cases)
        F, a, Vt = np.linalg.svd(np.broadcast_to(layers[0], (len(cases), *layers[0].shape[1:])), full_matrices=False)
        rank_of = np.maximum(ranks(layers[0], F, a, Vt, 4 * tolerance), 1)
        for rank in np.unique(rank_of).tolist():
            some = np.flatnonzero(rank_of == rank)
            frames, outside = _frames(
                [take(W, some) for W in layers],
                F[some, :, :rank],
                a[some, :rank],
                transposed(Vt[some, :rank]),
                tolerance,
            )
            bad = np.flatnonzero(~(outside <= tolerance))
            if bad.size:
                raise ValueError(
                    "reduce: expected balanced starts, W_(l+1)^T W_(l+1) = W_l W_l^T not 0, for 'balanced', to "
                    f"{tolerance:.3g}, got member {cases[some[bad[0]]]} with {outside[bad[0]]:.3g} of it outside"
                )
            found.setdefault(rank, []).append((cases[some], frames, a[some, :rank], transposed(Vt[some, :rank])))
    groups = []
    for rank, parts in sorted(found.items()):
        cases = np.concatenate([part for part, *_ in parts])
        frames = [np.concatenate(same) for same in zip(*(frames for _, frames, *_ in parts), strict=True)]
        members = cases if ensemble.cases > 1 else np.arange(ensemble.batch)
        groups.append(
            BalancedGroup(
                whole=Whole(ensemble, members),
                rank=rank,
                frames=frames[:-1],
                U=frames[-1],
                a=np.concatenate([a for *_, a, _ in parts]),
                V=np.concatenate([V for *_, V in parts]),
                learned=learned.of(members),
                basis=None if basis is None else take(basis, members),
            )
        )
    return groups


def _frames(layers: list[Floats], F: Floats, a: Floats, V: Floats, tolerance: float) -> tuple[list[Floats], Floats]:
    """F_2 … F_{D+1}, and how far the layers are from being balanced."""
    frames, outside, before = [], np.where(a[:, -1] > 0, 0.0, np.inf), V
    for k, W in enumerate(layers):
        after = carried(W, before, tolerance) if k else F
        for X, x, y in ((W, before, after), (transposed(W), after, before)):
            scale = lengths(np.abs(X) @ np.abs(x))
            outside = np.maximum(
                outside, (lengths(X @ x - y * a[:, None, :]) / np.where(scale > 0, scale, 1)).max(axis=1)
            )
        rest = sizes(W - (after * a[:, None, :]) @ transposed(before)) / np.where(a[:, 0] > 0, a[:, 0], 1)
        outside = np.maximum(outside, rest)
        frames.append(after)
        before = after
    return frames, outside
