"""P2: from lazy to rich learning (after Dominé et al. 2025).

A 40 × 40 grid of λ-balanced starts, W_2ᵀW_2 - W_1W_1ᵀ = λI, and their scale; networks 2-2-2 and 20-20-2, 4000 steps.
The figure is how far the tangent kernel K = I ⊗ W_1ᵀW_1 + W_2W_2ᵀ ⊗ I (whitened inputs) moves from where it started:
1 - <K, K_0> / (|K| |K_0|), at every tenth step.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from workloads import specification

from studies import peers
from studies.study import EVERY, Case, Program, main

GRID = 40
CHUNK_BYTES = 2**24  # recorded weights held at a time, so that they stay in a cache
LOOK_BYTES = 2**19  # and of those, what is looked at together
BLOCK_BYTES = 2**18  # weights of a batch for the peers: all of 2-2-2, 74 of 20-20-2


@dataclass(frozen=True, kw_only=True)
class Grid(Case):
    """One task, starts over (λ, scale). λ > 0 needs n_D >= n_1; where the output is narrower, λ <= 0."""

    @cached_property
    def sigma_yx(self) -> np.ndarray:
        """(n_D, n_0), strengths 2 and 1."""
        rng = np.random.default_rng(1)
        u, v = (np.linalg.qr(rng.standard_normal((n, 2)))[0] for n in (self.widths[-1], self.widths[0]))
        return (u * [2.0, 1.0]) @ v.T

    @cached_property
    def start(self) -> list[np.ndarray]:
        """The side that λ makes heavier is the root of the other's Gram matrix plus |λ|, rotated."""
        n_in, hidden, n_out = self.widths
        lambdas = np.linspace(-9.0, 9.0 if n_out == hidden else 0.0, GRID)[self.numbers // GRID]
        scales = np.geomspace(0.05, 2.0, GRID)[self.numbers % GRID]
        first, second = [], []
        for number, lam, scale in zip(self.numbers, lambdas, scales, strict=True):
            rng = np.random.default_rng([2, int(number)])
            if lam > 0:
                light = scale / np.sqrt(n_in) * rng.standard_normal((hidden, n_in))
                heavy = _orthogonal(rng, n_out) @ _root(light @ light.T + lam * np.eye(hidden))
                first.append(light)
                second.append(heavy)
            else:
                light = scale / np.sqrt(hidden) * rng.standard_normal((n_out, hidden))
                heavy = _root(light.T @ light - lam * np.eye(hidden)) @ _orthogonal(rng, n_in)
                first.append(heavy)
                second.append(light)
        return [np.stack(first), np.stack(second)]

    def prepare(self) -> None:
        _ = self.sigma_yx, self.start

    def expected(self) -> np.ndarray:
        figures = []
        u, _, vt = np.linalg.svd(self.sigma_yx, full_matrices=False)
        for member in range(self.members):
            run = specification().descent(
                [w[member] for w in self.start],
                sigma_xx=np.eye(self.widths[0]),
                sigma_yx=self.sigma_yx,
                trace_yy=np.sum(self.sigma_yx**2),
                U=u,
                V=vt.T,
                lr=self.lr,
                steps=self.steps,
                at=range(0, self.steps + 1, EVERY),
            )
            kernels = [_by_derivatives(w1, w2) for w1, w2 in zip(*run.records["weights"], strict=True)]
            figures.append([_distance(k, kernels[0]) for k in kernels])
        return np.array(figures)


def _orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def _root(gram):
    values, vectors = np.linalg.eigh(gram)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _by_derivatives(w1, w2):
    """K = J Jᵀ from the derivatives of Ω_ij by every weight."""
    rows, columns = w2.shape[0], w1.shape[1]
    by_first = np.einsum("ia,jb->ijab", w2, np.eye(columns)).reshape(rows * columns, -1)
    by_second = np.einsum("ia,bj->ijab", np.eye(rows), w1).reshape(rows * columns, -1)
    jacobian = np.hstack([by_first, by_second])
    return jacobian @ jacobian.T


def _distance(k, k0):
    return 1 - np.sum(k * k0) / (np.linalg.norm(k) * np.linalg.norm(k0))


def _kernel(w1, w2):
    return np.kron(np.eye(w2.shape[0]), w1.T @ w1) + np.kron(w2 @ w2.T, np.eye(w1.shape[1]))


def _moved(first, second):
    """Kernel distances of (members, time, ...) weights from those at time 0, some members at a time."""
    size = max(1, LOOK_BYTES // first[0].nbytes)
    blocks = [slice(i, i + size) for i in range(0, len(first), size)]
    return np.concatenate([_moved_together(first[block], second[block]) for block in blocks])


def _moved_together(first, second):
    """Kernel distances of (members, time, ...) weights from those at time 0, by the Gram matrices A and B alone.

    <I⊗A + B⊗I, I⊗A' + B'⊗I> = n_D <A, A'> + tr B tr A' + tr B' tr A + n_0 <B, B'>.
    """
    a, b = np.swapaxes(first, -1, -2) @ first, second @ np.swapaxes(second, -1, -2)
    n_in, n_out = a.shape[-1], b.shape[-1]
    flat_a, flat_b = a.reshape(*a.shape[:2], -1), b.reshape(*b.shape[:2], -1)
    trace_a, trace_b = np.einsum("mtii->mt", a), np.einsum("mtii->mt", b)
    squares = (
        n_out * np.einsum("mti,mti->mt", flat_a, flat_a)
        + 2 * trace_a * trace_b
        + n_in * np.einsum("mti,mti->mt", flat_b, flat_b)
    )
    overlaps = (
        n_out * (flat_a @ flat_a[:, 0, :, None])[..., 0]
        + trace_a * trace_b[:, :1]
        + trace_a[:, :1] * trace_b
        + n_in * (flat_b @ flat_b[:, 0, :, None])[..., 0]
    )
    return 1 - overlaps / np.sqrt(squares * squares[:, :1])


def _chunk(case):
    """Members whose records are held at a time, a multiple of sixteen."""
    record_bytes = sum(w[0].nbytes for w in case.start) * case.records
    return max(16, CHUNK_BYTES // record_bytes // 16 * 16)


def with_pydln(case):
    import pydln

    run = pydln.gradient_descent(
        pydln.Task.from_covariances(None, case.sigma_yx, np.sum(case.sigma_yx**2)),
        pydln.Weights(case.start),
        lr=case.lr,
        steps=case.steps,
        record_every=EVERY,
        record="kernel_distance",
        n_threads=1,
    )
    return run.kernel_distance


def as_a_researcher(case):
    """One network after the other, the kernel built at every tenth step."""
    figures = []
    for member in range(case.members):
        w1, w2 = (w[member].copy() for w in case.start)
        kernel0 = _kernel(w1, w2)
        figure = []
        for step in range(case.steps + 1):
            if step % EVERY == 0:
                figure.append(_distance(_kernel(w1, w2), kernel0))
            error = case.sigma_yx - w2 @ w1
            change1, change2 = w2.T @ error, error @ w1.T
            w1 += case.lr * change1
            w2 += case.lr * change2
        figures.append(figure)
    return np.array(figures)


def with_torch(case):
    """One network after the other, autograd, the kernel built at every tenth step."""
    import torch

    torch.set_num_threads(1)
    target = torch.from_numpy(case.sigma_yx)
    figures = []
    for member in range(case.members):
        layers = [torch.from_numpy(w[member].copy()).requires_grad_() for w in case.start]
        optimizer = torch.optim.SGD(layers, lr=case.lr)
        kernel0 = _kernel(*(w[member] for w in case.start))
        figure = []
        for step in range(case.steps + 1):
            if step % EVERY == 0:
                figure.append(_distance(_kernel(*(w.detach().numpy() for w in layers)), kernel0))
            optimizer.zero_grad()
            (0.5 * (target - layers[1] @ layers[0]).square().sum()).backward()
            optimizer.step()
        figures.append(figure)
    return np.array(figures)


def with_numba(case):
    """One network after the other, compiled loops; the kernels from the recorded weights, some networks at a time."""
    descend = _numba_descent()
    figures = []
    size = _chunk(case)
    for first in range(0, case.members, size):
        starts = [w[first : first + size] for w in case.start]
        records = [np.empty((len(w), case.records, *w.shape[1:])) for w in starts]
        descend(*starts, case.sigma_yx, case.lr, case.steps, *records)
        figures.append(_moved(*records))
    return np.concatenate(figures)


@cache  # compiled once
def _numba_descent():
    from numba import njit

    @njit(fastmath=True)
    def descend(first, second, target, lr, steps, recorded1, recorded2):
        members, hidden, n_in = first.shape
        n_out = second.shape[1]
        error, slopes = np.empty((n_out, n_in)), np.empty(n_out)
        for member in range(members):
            w1, w2 = first[member].copy(), second[member].copy()
            for step in range(steps + 1):
                if step % EVERY == 0:
                    recorded1[member, step // EVERY] = w1
                    recorded2[member, step // EVERY] = w2
                error[:] = target
                for i in range(n_out):
                    for k in range(hidden):
                        for j in range(n_in):
                            error[i, j] -= w2[i, k] * w1[k, j]
                # Row k of W_1 and column k of W_2 move by what they were.
                for k in range(hidden):
                    for i in range(n_out):
                        slopes[i] = 0.0
                        for j in range(n_in):
                            slopes[i] += error[i, j] * w1[k, j]
                    for i in range(n_out):
                        for j in range(n_in):
                            w1[k, j] += lr * w2[i, k] * error[i, j]
                    for i in range(n_out):
                        w2[i, k] += lr * slopes[i]

    return descend


def _batched(descend):
    def run(case):
        figures = []
        size = BLOCK_BYTES // sum(w[0].nbytes for w in case.start)
        for first in range(0, case.members, size):
            layers = [w[first : first + size] for w in case.start]
            targets = np.broadcast_to(case.sigma_yx, (len(layers[0]), *case.sigma_yx.shape)).copy()
            seen = descend(layers, targets, case.lr, case.steps, _all_weights)
            numbers = layers[0][0].size
            records = seen[..., :numbers], seen[..., numbers:]
            pairs = zip(records, layers, strict=True)
            figures.append(_moved(*(record.reshape(*record.shape[:2], *w.shape[1:]) for record, w in pairs)))
        return np.concatenate(figures)

    return run


def _all_weights(layers, _):
    return np.concatenate([w.reshape(len(w), -1) for w in layers], axis=1)


def _grid(name, widths):
    return Grid(study="lazy_rich", name=name, widths=widths, all_members=GRID**2, all_steps=4000, lr=0.01)


CASES = {"P2 2-2-2": _grid("P2 2-2-2", (2, 2, 2)), "P2 20-20-2": _grid("P2 20-20-2", (20, 20, 2))}


def _part(small, large):
    return {"P2 2-2-2": small, "P2 20-20-2": large}


PROGRAMS = {
    "pydln": Program("pydln", with_pydln, _part(6.4e6, 3.2e6), needs="pydln"),
    "numpy": Program("NumPy, a loop over networks", as_a_researcher, _part(8e4, 6e4)),
    "torch": Program("PyTorch autograd, a loop over networks", with_torch, _part(1.2e4, 1.2e4), needs="torch"),
    "numba": Program("numba, loops", with_numba, _part(6.4e6, 1.6e6), needs="numba"),
    "numpy-batched": Program("NumPy, batched", _batched(peers.with_numpy), _part(6.4e6, 6e5)),
    "torch-batched": Program(
        "PyTorch, batched, in place", _batched(peers.with_torch), _part(6.4e6, 6e5), needs="torch"
    ),
    "jax-batched": Program("JAX, batched, jit", _batched(peers.with_jax), _part(6.4e6, 6e5), needs="jax"),
}

if __name__ == "__main__":
    main(sys.modules[__name__])
