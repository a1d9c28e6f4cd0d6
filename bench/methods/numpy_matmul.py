"""NumPy: matmul over the members, everything in place."""

from __future__ import annotations

import numpy as np
from workloads import LR, RECORD_EVERY

from methods.blocks import in_fastest_blocks
from methods.narrow import Narrow

LABEL = "NumPy matmul"


def prepare(workload):
    problem = Narrow.of(workload)

    def train_block(layers, losses, steps):
        shapes = [(*w.shape[:2], problem.target.shape[1]) for w in layers]
        products = [layers[0], *(np.empty(shape, workload.dtype) for shape in shapes[1:])]
        errors = [np.empty(shape, workload.dtype) for shape in shapes]
        slopes = [np.empty_like(w) for w in layers]
        for step in range(steps + 1):
            for place in range(1, len(layers)):
                np.matmul(layers[place], products[place - 1], out=products[place])
            np.subtract(problem.target, products[-1], out=errors[-1])
            if step % RECORD_EVERY == 0:
                losses[:, step // RECORD_EVERY] = 0.5 * np.einsum("bij,bij->b", errors[-1], errors[-1])
            if step == steps:
                return
            for place in range(len(layers) - 1, 0, -1):
                np.matmul(errors[place], products[place - 1].transpose(0, 2, 1), out=slopes[place])
                np.matmul(layers[place].transpose(0, 2, 1), errors[place], out=errors[place - 1])
                np.multiply(slopes[place], LR, out=slopes[place])
                np.add(layers[place], slopes[place], out=layers[place])
            np.multiply(errors[0], LR, out=errors[0])
            np.add(layers[0], errors[0], out=layers[0])

    return in_fastest_blocks(workload, problem, train_block)
