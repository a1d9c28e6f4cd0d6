"""Two layers, whitened inputs, a lambda-balanced start: all weights by the matrix Riccati equation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln._base.arrays import transposed
from pydln.exact import riccati
from pydln.exact.solution import Solution
from pydln.exact.start import Condition, Start
from pydln.exact.two_layer_mode import eigenvectors
from pydln.quantities.tangent_kernel import kernel_distance

__all__ = ["BalancedTwoLayers"]

Floats = NDArray[Any]


class BalancedTwoLayers(Solution):
    """Depth 2 from any weights with W_2ᵀW_2 - W_1W_1ᵀ = λI (Fukumizu 1998; Braun et al. 2022; Dominé et al. 2025).

    Q = [W_1ᵀ; W_2] obeys Q' = FQ - QQᵀQ/2 with F = [[-λ/2, Σ_yxᵀ], [Σ_yx, λ/2]]. Its eigenvectors are two of each mode,
    with ±√(s² + λ²/4), and what is outside the modes, with -λ/2 on the side of inputs and λ/2 on that of outputs. No
    matrix is inverted: any widths, λ of either sign or 0, singular products and those that end in a saddle.
    """

    name = "balanced, two layers"

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        U, s, V = start.modes
        half = 0.5 * start.imbalance[:, None]
        self.s = s
        kappa, self.upper, self.lower = eigenvectors(half, s)
        first, second = transposed(start.layer(1)), start.layer(2)
        a, b = transposed(V) @ first, transposed(U) @ second
        self.beside_in, rest_in = _beside(V, first)
        self.beside_out, rest_out = _beside(U, second)
        upper, lower = self.upper[..., None], self.lower[..., None]
        self.X = np.concatenate(_alike([upper * a + lower * b, lower * a - upper * b, rest_in, rest_out]), axis=1)
        both = np.maximum(_lengths(a), _lengths(b))
        self.floor = start.rounding * np.concatenate(
            _alike([both, both, _lengths(rest_in), _lengths(rest_out)]), axis=1
        )
        begin = np.concatenate(_alike([a, b, rest_in, rest_out]), axis=1)
        self.X, self.hidden = _narrowed(self.X, self.floor)
        self.begin = begin if self.hidden is None else begin @ self.hidden
        self.w = np.concatenate(
            _alike([kappa, -kappa, _repeated(-half, self.beside_in), _repeated(half, self.beside_out)]), axis=1
        )
        inputs, outputs = self._halves()
        self.flow = riccati.Flow(
            w=self.w,
            rate=self._rates(half, kappa),
            X=self.X,
            floor=self.floor,
            vectors=np.stack(_alike([self.upper, self.lower]), axis=1),
            strengths=s,
            begin=self.begin,
            outer=(half[:, 0] < 0).astype(np.int64),
            outside=rest_in.shape[1],
            inputs=inputs,
            outputs=outputs,
        )

    def _rates(self, half: Floats, kappa: Floats) -> Floats:
        """How fast rows grow, and at the end those of the identity, less |λ|/2: κ - |λ|/2 = s²/(κ + |λ|/2)."""
        size = np.abs(half)
        total = kappa + size
        above = self.s * (self.s / np.where(total > 0, total, 1.0))
        inner, outer = (
            _repeated(np.maximum(side, 0.0) - size, directions)
            for side, directions in ((-half, self.beside_in), (half, self.beside_out))
        )
        return np.concatenate(_alike([above, np.broadcast_to(-size, kappa.shape), inner, outer, -size]), axis=1)

    @property
    def working(self) -> int:
        """The state in eigenvectors of F and in modes, and both layers."""
        n = int(self.X.shape[-1])
        widths = self.start.weights.widths
        return 2 * int(self.X.shape[1]) * n + 2 * n * (widths[0] + widths[2]) + widths[0] * widths[2]

    @property
    def until(self) -> Floats:
        """As of the start."""
        return self.start.until

    @classmethod
    def conditions(cls, start: Start) -> Iterator[Condition]:
        """Depth, whitened inputs, balance up to a multiple of the identity."""
        yield start.depth_is(start.depth == 2, "2")
        yield start.whitened
        yield start.lambda_balanced
        yield start.told

    def records(self, t: Floats, names: Sequence[str]) -> dict[str, Any]:
        """The quantities `names`, from the state."""
        found: dict[str, Any] = {}
        if "weights" in names:
            found["weights"] = self._layers(t)
        if not set(names) - {"weights"}:
            return found
        first, second = self._sides(riccati.states(self.flow, t))
        r = self.s.shape[-1]
        found["strengths"] = np.sum(first[..., :r, :] * second[..., :r, :], axis=-1)
        if {"loss", "product", "test_loss"} & set(names):
            within = second @ transposed(first)
            if {"product", "test_loss"} & set(names):
                found["product"] = self._outputs @ within @ transposed(self._inputs)
            if "test_loss" in names:
                found["test_loss"] = self.test_loss(found["product"])
            if "loss" in names:
                gap, places = within, np.arange(r)
                gap[..., places, places] -= self.s[:, None]
                found["loss"] = np.reshape(self.start.task.floor, (-1, 1)) + 0.5 * np.sum(gap**2, axis=(-2, -1))
        if "layer_norms" in names:
            found["layer_norms"] = np.stack([np.linalg.norm(side, axis=(-2, -1)) for side in (first, second)], axis=-1)
        if "drift" in names:
            found["drift"] = np.zeros((*first.shape[:2], 1))
        if "kernel_distance" in names:
            begun = self._sides(self.begin[:, None])
            found["kernel_distance"] = kernel_distance(
                [transposed(self._inputs @ first), self._outputs @ second],
                [transposed(self._inputs @ begun[0])[:, 0], (self._outputs @ begun[1])[:, 0]],
            )
        return found

    def _layers(self, t: Floats) -> list[Floats]:
        """W_1 and W_2; at time 0 what was given."""
        first, second = riccati.layers(self.flow, t)
        if self.hidden is not None:
            frame = self.hidden[:, None]
            first, second = frame @ first, second @ transposed(frame)
        still = np.broadcast_to(t == 0, first.shape[:2])[..., None, None]
        for k, w in enumerate((first, second), 1):
            np.copyto(w, self.start.layer(k)[:, None], where=still)
        return [first, second]

    def _halves(self) -> tuple[Floats, Floats]:
        """What makes W_1ᵀ and W_2 of their rows."""
        r = self.s.shape[-1]
        V, U = self._inputs[:, 0], self._outputs[:, 0]
        none_in, none_out = (np.zeros((1, a.shape[1], b.shape[2])) for a, b in ((V, U), (U, V)))
        first = [V[..., :r], none_in[..., :r], V[..., r:], none_in[..., r:]]
        second = [none_out[..., :r], U[..., :r], none_out[..., r:], U[..., r:]]
        return np.concatenate(_alike(first), axis=2), np.concatenate(_alike(second), axis=2)

    def representations(self, t: ArrayLike) -> tuple[Floats, Floats]:
        """Similarities of the hidden layer's responses, W_1ᵀW_1 of inputs and W_2W_2ᵀ of outputs.

        Parameters
        ----------
        t : (time,) array
            Times in units of tau, >= 0.

        Returns
        -------
        (batch, time, n_0, n_0) and (batch, time, n_2, n_2) arrays
        """
        times = validate.array(t, "t", shape=("time",), at_least=0)
        first, second = self._sides(riccati.states(self.flow, times[None]))
        first, second = self._inputs @ first, self._outputs @ second
        return first @ transposed(first), second @ transposed(second)

    def tangent_kernel(self, t: ArrayLike) -> Floats:
        """K = I ⊗ W_1ᵀW_1 + W_2W_2ᵀ ⊗ I, the tangent kernel of the outputs i, k for unit inputs along j, l.

        Parameters
        ----------
        t : (time,) array
            Times in units of tau, >= 0.

        Returns
        -------
        (batch, time, n_2, n_0, n_2, n_0) array
            Axes i, j, k, l.

        Raises
        ------
        ValueError
            More than the memory that is free would hold.
        """
        first, second = self.representations(t)
        n_in, n_out = first.shape[-1], second.shape[-1]
        validate.fits_in_memory(
            8 * first.shape[0] * first.shape[1] * (n_in * n_out) ** 2,
            f"t: the tangent kernel at {first.shape[1]} times",
            "ask for fewer times, or for representations(t), of which the kernel is made",
        )
        of_inputs = np.einsum("ik,btjl->btijkl", np.eye(n_out), first)
        return np.asarray(of_inputs + np.einsum("btik,jl->btijkl", second, np.eye(n_in)))

    def escape_times(self, fraction: float = 0.5) -> Floats:
        """When each mode leaves the saddles: the first time at which u passes `fraction` of s.

        Parameters
        ----------
        fraction : float
            Between 0 and 1.

        Returns
        -------
        (batch, mode) array
            In units of tau, to 1e-12 relative; NaN for modes that are not reached, 0 for those that begin above.
        """
        fraction = float(validate.array(fraction, "fraction", above=0, below=1))
        batch = max(len(self.X), len(self.s))
        s = np.broadcast_to(self.s, (batch, self.s.shape[-1]))
        wanted = np.broadcast_to(self.reached, s.shape) & (s > 0)

        def above(t: Floats) -> NDArray[np.bool_]:
            return np.asarray(self.records(t, ("strengths",))["strengths"] >= fraction * s[:, None])

        # Two hundred times, from much less than the fastest mode needs, up to where the slowest is there.
        last = 1.0 / np.where(s > 0, s, np.inf).min(axis=-1, initial=np.inf)
        last = np.where(np.isfinite(last) & (last > 0), last, 1.0)
        for _ in range(60):
            missing = (wanted & ~above(last[:, None])[:, 0]).any(axis=-1)
            if not missing.any():
                break
            last = np.where(missing, 2 * last, last)
        grid = np.concatenate([np.zeros((batch, 1)), np.geomspace(1e-4 * last, last, 200, axis=-1)], axis=1)
        passed = above(grid)
        first = passed.argmax(axis=1)
        low = np.take_along_axis(grid, np.maximum(first - 1, 0), axis=1)
        high = np.take_along_axis(grid, first, axis=1)
        for _ in range(50):
            middle = 0.5 * (low + high)
            beyond = np.diagonal(above(middle), axis1=1, axis2=2)
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        return np.where(wanted & passed.any(axis=1), high, np.nan)

    @cached_property
    def limit(self) -> Floats:
        """The product for t → ∞, (batch, n_2, n_0): the minimum, or the saddle where the flow ends."""
        first, second = self._sides(riccati.limit(self.flow)[:, None])
        return np.asarray((self._outputs @ second @ transposed(self._inputs @ first))[:, 0])

    @cached_property
    def reached(self) -> NDArray[np.bool_]:
        """Which modes are learned in the end, (batch, mode); the others end in a saddle, u = 0 or mixed."""
        U, s, V = self.start.modes
        u = np.sum(U * (self.limit @ V), axis=-2)
        return np.asarray(np.abs(u - s) <= 1e-9 * np.maximum(s.max(axis=-1, keepdims=True), 1e-300))

    @cached_property
    def _inputs(self) -> Floats:
        return np.concatenate(_alike([self.start.modes[2], self.beside_in]), axis=-1)[:, None]

    @cached_property
    def _outputs(self) -> Floats:
        return np.concatenate(_alike([self.start.modes[0], self.beside_out]), axis=-1)[:, None]

    def _sides(self, rows: Floats) -> tuple[Floats, Floats]:
        """W_1ᵀ and W_2 in the coordinates of the modes and what is beside them."""
        r, inner = self.s.shape[-1], 2 * self.s.shape[-1] + self.beside_in.shape[-1]
        first = np.concatenate([rows[..., :r, :], rows[..., 2 * r : inner, :]], axis=-2)
        return first, np.concatenate([rows[..., r : 2 * r, :], rows[..., inner:, :]], axis=-2)


def _lengths(rows: Floats) -> Floats:
    return np.asarray(np.linalg.norm(rows, axis=-1))


def _alike(arrays: list[Floats]) -> list[Floats]:
    batch = max(len(a) for a in arrays)
    return [np.broadcast_to(a, (batch, *a.shape[1:])) for a in arrays]


def _narrowed(X: Floats, floor: Floats) -> tuple[Floats, Floats | None]:
    """The hidden directions in which some row has more than rounding may have left in it: X in them, and these columns.

    A hidden layer wider than both others is balanced only with a rank that fits into these. None: all directions are.
    """
    scaled = np.divide(X, floor[..., None], out=np.zeros_like(X), where=floor[..., None] > 0)
    _, size, frame = np.linalg.svd(scaled, full_matrices=False)
    known = size > 1
    k = max(int(known.sum(axis=1).max(initial=0)), 1)
    if k >= X.shape[-1]:
        return X, None
    hidden = transposed(frame[:, :k]) * known[:, None, :k]
    return X @ hidden, hidden


def _repeated(rate: Floats, directions: Floats) -> Floats:
    """(batch, 1) for every one of the directions, columns."""
    return np.repeat(rate, directions.shape[-1], axis=1)


def _beside(frame: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Orthonormal directions outside the columns of `frame` in which `rows` has a part, and that part."""
    n, r = frame.shape[-2:]
    outside = np.linalg.qr(frame, mode="complete")[0][..., r:]
    part = transposed(outside) @ rows
    if n - r <= rows.shape[-1]:
        return outside, part
    turn, part = np.linalg.qr(part)
    return outside @ turn, part
