"""Members in blocks, for methods that work on many at once: a block that stays in a cache is trained to the end."""

from __future__ import annotations

import numpy as np
from clock import timed
from workloads import RECORD_EVERY

BLOCK_BYTES = (2**17, 2**20, 2**23)


def in_fastest_blocks(workload, train_block):
    """``train(steps)`` out of ``train_block(layers, losses, steps)``, which changes both in place.

    The number of members in a block is tried out: as many as have weights of BLOCK_BYTES, or all.
    """

    def train(steps, members):
        layers = [w.copy() for w in workload.start]
        losses = np.empty((workload.batch, steps // RECORD_EVERY + 1), workload.dtype)
        for first in range(0, workload.batch, members):
            block = slice(first, first + members)
            train_block([w[block] for w in layers], losses[block], steps)
        return losses, layers

    member_bytes = sum(w[0].nbytes for w in workload.start)
    sizes = {min(workload.batch, max(1, size // member_bytes)) for size in BLOCK_BYTES} | {workload.batch}
    train(RECORD_EVERY, workload.batch)
    fastest = min(sizes, key=lambda members: timed(train, RECORD_EVERY, members).cpu_seconds)
    return lambda steps: train(steps, fastest)
