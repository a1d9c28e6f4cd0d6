"""JAX on the CPU, jit: the gradient written out in batched products."""

from __future__ import annotations

from workloads import LR

from methods.jax_steps import products_of, train_with
from methods.narrow import Narrow

LABEL = "JAX manual"


def prepare(workload):
    def step(target, layers):
        products = products_of(layers)
        error = target - products[-1]
        stepped = []
        for w, below in zip(layers[:0:-1], products[-2::-1], strict=True):
            stepped.append(w + LR * (error @ below.mT))
            error = w.mT @ error
        return [layers[0] + LR * error, *stepped[::-1]]

    return train_with(workload, Narrow.of(workload), step)
