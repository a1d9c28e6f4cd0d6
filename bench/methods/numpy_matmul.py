"""NumPy: matmul over the members, everything in place."""

from __future__ import annotations

import numpy as np
from workloads import LR, RECORD_EVERY

from methods.blocks import in_fastest_blocks

LABEL = "NumPy matmul"


def prepare(workload):
    target = workload.sigma_yx.astype(workload.dtype)

    def train_block(layers, losses, steps):
        products = [layers[0], *(np.empty_like(w) for w in layers[1:])]
        error, back, slope = (np.empty_like(layers[0]) for _ in range(3))
        for step in range(steps + 1):
            for place in range(1, len(layers)):
                np.matmul(layers[place], products[place - 1], out=products[place])
            np.subtract(target, products[-1], out=error)
            if step % RECORD_EVERY == 0:
                losses[:, step // RECORD_EVERY] = 0.5 * np.einsum("bij,bij->b", error, error)
            if step == steps:
                return
            for place in range(len(layers) - 1, 0, -1):
                np.matmul(error, products[place - 1].transpose(0, 2, 1), out=slope)
                np.matmul(layers[place].transpose(0, 2, 1), error, out=back)
                np.multiply(slope, LR, out=slope)
                np.add(layers[place], slope, out=layers[place])
                error, back = back, error
            np.multiply(error, LR, out=error)
            np.add(layers[0], error, out=layers[0])

    return in_fastest_blocks(workload, train_block)
