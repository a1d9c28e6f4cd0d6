"""Members in blocks, for methods that work on many at once: a block that stays in a cache is trained to the end."""

from __future__ import annotations

import numpy as np
from clock import fastest
from workloads import RECORD_EVERY

BLOCK_BYTES = (2**17, 2**20, 2**23)


def in_fastest_blocks(workload, problem, train_block):
    """``train(steps)`` out of ``train_block(layers, losses, steps)``, which changes both in place.

    The layers are those of `problem`, the workload's Narrow form. The number of members in a block is tried out: as
    many as have weights of BLOCK_BYTES, or all.
    """

    def train(steps, members):
        layers = [w.copy() for w in problem.layers]
        losses = np.empty((workload.batch, steps // RECORD_EVERY + 1), workload.dtype)
        for first in range(0, workload.batch, members):
            block = slice(first, first + members)
            train_block([w[block] for w in layers], losses[block], steps)
        return losses, problem.original(layers)

    member_bytes = sum(w[0].nbytes for w in problem.layers)
    sizes = {min(workload.batch, max(1, size // member_bytes)) for size in BLOCK_BYTES} | {workload.batch}
    chosen = fastest(sizes, lambda members: train(RECORD_EVERY, members))
    return lambda steps: train(steps, chosen)
