"""The largest eigenvalue of the Hessian of the loss, without the Hessian: Lanczos, many networks at a time."""

from __future__ import annotations

import math

import numpy as np

from pydln._base.arrays import Floats, dots, transposed

__all__ = ["largest_curvature"]

_STEPS = 300  # of Lanczos, all directions kept orthogonal
_ENOUGH = 1e-10  # of the eigenvalue: the residual of its vector, whose square is the error


def largest_curvature(layers: list[Floats], sigma_yx: Floats, sigma_xx: Floats | None) -> Floats:
    """λ_max of ∂²L/∂W², (rows,), for layers (rows, n_l, n_{l-1}).

    The Hessian takes directions V_l to -∂/∂ε of the pull (W_D ⋯ W_{l+1})ᵀ E (W_{l-1} ⋯ W_1)ᵀ, E = Σ_yx - ΩΣ_xx, at
    W + εV.
    """
    rows, shapes = len(layers[0]), [W.shape[1:] for W in layers]
    count = sum(math.prod(shape) for shape in shapes)
    generator = np.random.Generator(np.random.Philox(0))  # the same for every network, whatever the company
    q = np.broadcast_to(generator.standard_normal(count), (rows, count))
    q = q / np.linalg.norm(q[0])
    basis = [q]
    diagonal, beside = np.zeros((rows, 0)), np.zeros((rows, 0))
    found, done = np.zeros(rows), np.zeros(rows, dtype=bool)
    for _ in range(min(count, _STEPS)):
        image = _times(layers, sigma_yx, sigma_xx, basis[-1], shapes)
        diagonal = np.append(diagonal, _inner(basis[-1], image)[:, None], axis=1)
        for _ in range(2):  # once more for what rounding left
            for b in basis:
                image = image - _inner(b, image)[:, None] * b
        length = np.sqrt(_inner(image, image))
        T = _tridiagonal(diagonal, beside)
        lost = ~np.isfinite(T).all(axis=(1, 2))  # squares beyond the range of float64
        T[lost] = 0.0
        values, vectors = np.linalg.eigh(T)
        found = np.where(done, found, np.where(lost, np.nan, values[:, -1]))
        done |= lost | (length * np.abs(vectors[:, -1, -1]) <= _ENOUGH * np.abs(values).max(axis=1))
        if done.all():
            break
        beside = np.append(beside, length[:, None], axis=1)
        basis.append(image / np.where(length > 0, length, 1.0)[:, None])
    return found


def _times(
    layers: list[Floats], sigma_yx: Floats, sigma_xx: Floats | None, q: Floats, shapes: list[tuple[int, ...]]
) -> Floats:
    """The Hessian times q, (rows, numbers)."""
    depth, first, moves = len(layers), 0, []
    for shape in shapes:
        size = math.prod(shape)
        moves.append(q[:, first : first + size].reshape(len(q), *shape))
        first += size
    below = _chains(layers, moves)  # W_{l-1} ⋯ W_1 and how it moves
    above = [
        (transposed(a), transposed(b))
        for a, b in _chains([transposed(W) for W in layers[::-1]], [transposed(V) for V in moves[::-1]])[::-1]
    ]
    omega, turn = layers[-1] @ below[-1][0], moves[-1] @ below[-1][0] + layers[-1] @ below[-1][1]
    E = sigma_yx - (omega if sigma_xx is None else omega @ sigma_xx)
    change = -(turn if sigma_xx is None else turn @ sigma_xx)
    pulls = []
    for k in range(depth):
        (low, low_moves), (high, high_moves) = below[k], above[k]
        pull = (
            transposed(high_moves) @ (E @ transposed(low))
            + transposed(high) @ (change @ transposed(low))
            + transposed(high) @ (E @ transposed(low_moves))
        )
        pulls.append(-pull.reshape(len(q), -1))
    return np.concatenate(pulls, axis=1)


def _chains(layers: list[Floats], moves: list[Floats]) -> list[tuple[Floats, Floats]]:
    """W_{l-1} ⋯ W_1 and its derivative along the moves, l = 1 … D."""
    eye = np.broadcast_to(np.eye(layers[0].shape[-1]), (len(layers[0]), *(layers[0].shape[-1],) * 2))
    found = [(eye, np.zeros(eye.shape))]
    for W, V in zip(layers[:-1], moves[:-1], strict=True):
        P, moved = found[-1]
        found.append((W @ P, V @ P + W @ moved))
    return found


def _inner(a: Floats, b: Floats) -> Floats:
    return dots(a[:, :, None], b[:, :, None])[:, 0]


def _tridiagonal(diagonal: Floats, beside: Floats) -> Floats:
    T = np.zeros((*diagonal.shape, diagonal.shape[1]))
    k = np.arange(diagonal.shape[1])
    T[:, k, k] = diagonal
    T[:, k[:-1], k[1:]] = T[:, k[1:], k[:-1]] = beside
    return T
