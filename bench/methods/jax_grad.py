"""JAX on the CPU, jit: jax.grad of the batched loss."""

from __future__ import annotations

import jax
from workloads import LR

from methods.jax_steps import losses_of, train_with
from methods.narrow import Narrow

LABEL = "JAX grad"


def prepare(workload):
    def step(target, layers):
        slopes = jax.grad(lambda layers: losses_of(target, layers).sum())(layers)
        return [w - LR * slope for w, slope in zip(layers, slopes, strict=True)]

    return train_with(workload, Narrow.of(workload), step)
