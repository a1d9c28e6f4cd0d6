"""pydln itself."""

from __future__ import annotations

import numpy as np
from workloads import LR, RECORD_EVERY

import pydln

LABEL = "pydln"


def prepare(workload, record=("loss",), threads=1):
    task = pydln.Task.from_covariances(None, workload.sigma_yx, np.sum(workload.sigma_yx**2))
    weights = pydln.Weights(workload.start)

    def train(steps):
        when = {"record_every": RECORD_EVERY} if record else {"at": [steps]}
        run = pydln.gradient_descent(
            task, weights, lr=LR, steps=steps, record=record, n_threads=threads, reduce="none", **when
        )
        return run.loss if record else None, run.final.layers

    return train
