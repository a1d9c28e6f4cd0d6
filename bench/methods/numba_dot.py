"""numba: one network after the other, products by np.dot, which is BLAS."""

from __future__ import annotations

import numpy as np
from numba import njit
from workloads import LR, RECORD_EVERY

from methods.narrow import Narrow

LABEL = "numba dot"


def prepare(workload):
    problem = Narrow.of(workload)
    depth, batch = workload.depth, workload.batch
    columns = problem.target.shape[1]
    target = problem.target
    shapes = tuple(w.shape[1:] for w in problem.layers)
    ends = np.cumsum([0, *(rows * inner for rows, inner in shapes)])
    firsts = tuple(int(end) for end in ends)
    scalar = np.dtype(workload.dtype).type
    lr, half = scalar(LR), scalar(0.5)
    # The layers of a network lie together.
    start = np.concatenate([w.reshape(batch, -1) for w in problem.layers], axis=1)

    @njit(fastmath=True)
    def train_all(weights, losses, steps):
        dtype = weights.dtype
        products = [np.empty((shapes[place][0], columns), dtype) for place in range(depth)]
        errors = [np.empty((shapes[place][0], columns), dtype) for place in range(depth)]
        slopes = [np.empty(shapes[place], dtype) for place in range(depth)]
        for member in range(batch):
            mine = weights[member]
            w = [mine[firsts[place] : firsts[place + 1]].reshape(shapes[place]) for place in range(depth)]
            for step in range(steps + 1):
                products[0][:] = w[0]
                for place in range(1, depth):
                    np.dot(w[place], products[place - 1], products[place])
                error = errors[depth - 1]
                square = half * 0
                for i in range(error.shape[0]):
                    for j in range(columns):
                        error[i, j] = target[i, j] - products[depth - 1][i, j]
                        square += error[i, j] * error[i, j]
                if step % RECORD_EVERY == 0:
                    losses[member, step // RECORD_EVERY] = half * square
                if step == steps:
                    break
                for place in range(depth - 1, 0, -1):
                    layer, slope = w[place], slopes[place]
                    np.dot(errors[place], products[place - 1].T, slope)
                    np.dot(layer.T, errors[place], errors[place - 1])
                    for i in range(layer.shape[0]):
                        for j in range(layer.shape[1]):
                            layer[i, j] += lr * slope[i, j]
                layer, slope = w[0], errors[0]
                for i in range(layer.shape[0]):
                    for j in range(columns):
                        layer[i, j] += lr * slope[i, j]

    def train(steps):
        weights = start.copy()
        losses = np.empty((batch, steps // RECORD_EVERY + 1), workload.dtype)
        train_all(weights, losses, steps)
        layers = [
            weights[:, first:end].reshape(batch, *shape)
            for first, end, shape in zip(firsts[:-1], firsts[1:], shapes, strict=True)
        ]
        return losses, problem.original(layers)

    train(0)
    return train
