"""numba: one network after the other, products as plain loops whose lengths the compiler knows."""

from __future__ import annotations

import numpy as np
from numba import njit
from workloads import LR, RECORD_EVERY

LABEL = "numba loops"


def prepare(workload):
    n, depth, batch = workload.widths[0], workload.depth, workload.batch
    if set(workload.widths) != {n}:
        raise ValueError("written for square networks: lengths known to the compiler are what makes plain loops fast")
    scalar = np.dtype(workload.dtype).type
    lr, half = scalar(LR), scalar(0.5)
    target = workload.sigma_yx.astype(workload.dtype)
    # One array (batch, D, n, n): the layers of a network lie together.
    start = np.ascontiguousarray(np.stack(workload.start, axis=1))

    # Sums in a scalar, inlined: the form that LLVM vectorises best, 2 to 6 times as fast as adding into the array.
    @njit(fastmath=True, inline="always")
    def multiply(a, b, out):
        for i in range(n):
            for j in range(n):
                total = half * 0
                for k in range(n):
                    total += a[i, k] * b[k, j]
                out[i, j] = total

    @njit(fastmath=True, inline="always")
    def multiply_left_transposed(a, b, out):
        for i in range(n):
            for j in range(n):
                total = half * 0
                for k in range(n):
                    total += a[k, i] * b[k, j]
                out[i, j] = total

    @njit(fastmath=True, inline="always")
    def add_multiple(a, b, out):
        for i in range(n):
            for j in range(n):
                total = half * 0
                for k in range(n):
                    total += a[i, k] * b[k, j]
                out[i, j] += lr * total

    @njit(fastmath=True)
    def train_all(layers, losses, steps):
        dtype = layers.dtype
        products = np.empty((depth, n, n), dtype)
        error, back, turned = np.empty((n, n), dtype), np.empty((n, n), dtype), np.empty((n, n), dtype)
        for member in range(batch):
            w = layers[member]
            for step in range(steps + 1):
                products[0] = w[0]
                for place in range(1, depth):
                    multiply(w[place], products[place - 1], products[place])
                square = half * 0
                for i in range(n):
                    for j in range(n):
                        error[i, j] = target[i, j] - products[depth - 1, i, j]
                        square += error[i, j] * error[i, j]
                if step % RECORD_EVERY == 0:
                    losses[member, step // RECORD_EVERY] = half * square
                if step == steps:
                    break
                for place in range(depth - 1, 0, -1):
                    multiply_left_transposed(w[place], error, back)
                    for i in range(n):
                        for j in range(n):
                            turned[i, j] = products[place - 1, j, i]
                    add_multiple(error, turned, w[place])
                    error, back = back, error
                for i in range(n):
                    for j in range(n):
                        w[0, i, j] += lr * error[i, j]

    def train(steps):
        layers = start.copy()
        losses = np.empty((batch, steps // RECORD_EVERY + 1), workload.dtype)
        train_all(layers, losses, steps)
        return losses, [layers[:, place] for place in range(depth)]

    train(0)
    return train
