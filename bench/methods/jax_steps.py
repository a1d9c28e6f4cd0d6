"""What both JAX methods share: RECORD_EVERY steps in one compiled call, the weights given up to it."""

from __future__ import annotations

import jax
import numpy as np
from workloads import RECORD_EVERY

from methods.blocks import in_fastest_blocks


def products_of(layers):
    """W_1, W_2 W_1, … of every member."""
    products = [layers[0]]
    for w in layers[1:]:
        products.append(w @ products[-1])
    return products


def losses_of(target, layers):
    """(members,) losses."""
    return 0.5 * ((target - products_of(layers)[-1]) ** 2).sum((1, 2))


def train_with(workload, problem, step):
    """``train(steps)`` out of ``step(target, layers)``, which returns the next layers."""
    jax.config.update("jax_enable_x64", True)
    target = jax.numpy.asarray(problem.target)

    def record_and_go_on(layers):
        trained = jax.lax.fori_loop(0, RECORD_EVERY, lambda _, layers: step(target, layers), layers)
        return losses_of(target, layers), trained

    record_and_go_on = jax.jit(record_and_go_on, donate_argnums=0)
    record = jax.jit(lambda layers: losses_of(target, layers))

    def train_block(layers, losses, steps):
        current = [jax.numpy.array(w) for w in layers]
        for place in range(steps // RECORD_EVERY):
            loss, current = record_and_go_on(current)
            losses[:, place] = loss
        losses[:, -1] = record(current)
        for w, trained in zip(layers, current, strict=True):
            w[:] = np.asarray(trained)

    return in_fastest_blocks(workload, problem, train_block)
