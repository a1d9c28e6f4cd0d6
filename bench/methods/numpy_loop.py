"""NumPy: one network after the other, np.dot into given arrays: BLAS, and the interpreter between the calls."""

from __future__ import annotations

import numpy as np
from workloads import LR, RECORD_EVERY

from methods.narrow import Narrow

LABEL = "NumPy loop"


def prepare(workload):
    problem = Narrow.of(workload)
    columns = problem.target.shape[1]
    heights = [w.shape[1] for w in problem.layers]
    products, errors = ([np.empty((rows, columns), workload.dtype) for rows in heights] for _ in range(2))
    slopes = [np.empty(w.shape[1:], workload.dtype) for w in problem.layers]
    lr = np.dtype(workload.dtype).type(LR)

    def train(steps):
        layers = [w.copy() for w in problem.layers]
        losses = np.empty((workload.batch, steps // RECORD_EVERY + 1), workload.dtype)
        for member, loss in enumerate(losses):
            w = [layer[member] for layer in layers]
            below = [w[0], *products[1:]]
            for step in range(steps + 1):
                for place in range(1, len(w)):
                    np.dot(w[place], below[place - 1], out=below[place])
                np.subtract(problem.target, below[-1], out=errors[-1])
                if step % RECORD_EVERY == 0:
                    loss[step // RECORD_EVERY] = 0.5 * np.vdot(errors[-1], errors[-1])
                if step == steps:
                    break
                for place in range(len(w) - 1, 0, -1):
                    np.dot(errors[place], below[place - 1].T, out=slopes[place])
                    np.dot(w[place].T, errors[place], out=errors[place - 1])
                    np.multiply(slopes[place], lr, out=slopes[place])
                    np.add(w[place], slopes[place], out=w[place])
                np.multiply(errors[0], lr, out=errors[0])
                np.add(w[0], errors[0], out=w[0])
        return losses, problem.original(layers)

    return train
