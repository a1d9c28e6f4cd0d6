"""The definition of every quantity, from a `State` of some rows to (rows, …) numbers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pydln._base.arrays import Floats, dots, lengths, sizes, transposed
from pydln.quantities import tangent_kernel
from pydln.quantities.sharpness import largest_curvature
from pydln.quantities.state import State
from pydln.spectra.singular_values import singular_values as of_matrices
from pydln.task.inputs import input_root

__all__ = [
    "alignment",
    "balance",
    "drift",
    "effective_rank",
    "kernel_alignment",
    "kernel_distance",
    "layer_norms",
    "loss",
    "product",
    "representations",
    "sharpness",
    "singular_values",
    "strengths",
    "test_loss",
    "weights",
]


def loss(state: State) -> Floats:
    """L = floor + 1/2 |B - ΩA|²."""
    return _loss(state, test=False)


def test_loss(state: State) -> Floats:
    """The same on the held-out covariances."""
    return _loss(state, test=True)


def _loss(state: State, *, test: bool) -> Floats:
    root, target = state.squares(test=test)
    rest = target - (state.product if root is None else state.product @ root)
    return state.of_task("floor", test=test) + 0.5 * sizes(rest) ** 2


def strengths(state: State) -> Floats:
    """diag(UᵀΩV)."""
    U, _, V = state.modes
    return dots(np.broadcast_to(U, (len(state.product), *U.shape[1:])), state.product @ V)


def product(state: State) -> Floats:
    """Ω."""
    return state.product


def layer_norms(state: State) -> Floats:
    """‖W_l‖."""
    return np.stack([sizes(W) for W in _layers(state)], axis=-1)


def weights(state: State) -> list[Floats]:
    """W_1 … W_D."""
    return _layers(state)


def balance(state: State) -> Floats:
    """‖C_l‖, C_l = W_{l+1}ᵀW_{l+1} - W_lW_lᵀ."""
    return _norms(_conserved(_layers(state)), len(state.members))


def drift(state: State) -> Floats:
    """‖C_l - C_l(0)‖."""
    assert state.start is not None
    changes = [now - first for now, first in zip(_conserved(_layers(state)), _conserved(state.start), strict=True)]
    return _norms(changes, len(state.members))


def _conserved(layers: list[Floats]) -> list[Floats]:
    return [transposed(over) @ over - under @ transposed(under) for under, over in pairwise(layers)]


def _norms(matrices: list[Floats], rows: int) -> Floats:
    return np.stack([sizes(C) for C in matrices], axis=-1) if matrices else np.zeros((rows, 0))


def kernel_distance(state: State) -> Floats:
    """1 - ⟨K, K(0)⟩ / (‖K‖ ‖K(0)‖)."""
    assert state.start is not None
    root = _root(state)
    return tangent_kernel.kernel_distance([W[:, None] for W in _layers(state)], state.start, root)[:, 0]


def kernel_alignment(state: State) -> Floats:
    """⟨y, Ky⟩ / (‖K‖ ‖y‖²), y = Ω*Σ_xx^(1/2), K the tangent kernel on the inputs."""
    root = _root(state)
    best = state.of_task("optimum")
    return tangent_kernel.kernel_alignment(_layers(state), best if root is None else best @ root, root)


def representations(state: State) -> Floats:
    """PᵀP with P = W_l ⋯ W_1, l = 1 … D - 1."""
    layers, found = _layers(state), []
    reached = layers[0]
    for W in layers[1:]:
        found.append(transposed(reached) @ reached)
        reached = W @ reached
    n_in = layers[0].shape[-1]
    return np.stack(found, axis=1) if found else np.zeros((len(layers[0]), 0, n_in, n_in))


def singular_values(state: State) -> Floats:
    """σ of Ω, decreasing."""
    return of_matrices(state.product, n_threads=state.threads)


def effective_rank(state: State) -> Floats:
    """exp(-Σ p ln p), p = σ/Σσ (Roy & Vetterli 2007); 0 where Ω is zero."""
    sigma = singular_values(state)
    total = sigma.sum(axis=-1, keepdims=True)
    share = np.divide(sigma, total, out=np.zeros_like(sigma), where=total > 0)
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=-1)
    return np.where(total[:, 0] > 0, np.exp(entropy), 0.0)


def alignment(state: State) -> Floats:
    """uᵀΩv / √(‖Ωv‖ ‖Ωᵀu‖) of every mode of the task; 0 where Ωv or Ωᵀu is zero."""
    U, _, V = state.modes
    right, left = state.product @ V, transposed(state.product) @ U
    size = np.sqrt(lengths(right)) * np.sqrt(lengths(left))
    strength = dots(np.broadcast_to(U, right.shape), right)
    return np.asarray(np.divide(strength, size, out=np.zeros_like(strength), where=size > 0))


def sharpness(state: State) -> Floats:
    """λ_max of ∂²L/∂W²."""
    layers = _layers(state)
    assert state.task is not None
    sigma_xx = None if state.task.whitened else state.of_task("sigma_xx")
    return largest_curvature(layers, state.of_task("sigma_yx"), sigma_xx)


def _layers(state: State) -> list[Floats]:
    assert state.layers is not None
    return state.layers


def _root(state: State) -> Floats | None:
    """Σ_xx^(1/2), None where that is the identity."""
    assert state.task is not None
    root = input_root(state.task)
    return root if root is None or root.ndim == 2 or len(root) == 1 else root[state.members]
