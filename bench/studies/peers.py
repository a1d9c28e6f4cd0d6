"""Batched gradient descent by the peers, whitened inputs, with something recorded at every tenth step.

Each takes layers, (members, n_l, n_{l-1}), which it leaves alone, targets (members, n_D, n_0), and
``look(layers, product)``, which gets NumPy arrays and returns what is recorded, (members, ...).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from studies.study import EVERY


def in_blocks(descend, size, layers, targets, lr, steps, look_at):
    """`descend` for `size` members at a time, which stay in a cache; ``look_at(block)`` is their look."""
    found = []
    for first in range(0, len(targets), size):
        block = slice(first, first + size)
        found.append(descend([w[block] for w in layers], targets[block], lr, steps, look_at(block)))
    return np.concatenate(found)


def with_numpy(layers, targets, lr, steps, look):
    layers = [w.copy() for w in layers]
    columns = targets.shape[2]
    shapes = [(*w.shape[:2], columns) for w in layers]
    products = [layers[0], *(np.empty(shape) for shape in shapes[1:])]
    errors = [np.empty(shape) for shape in shapes]
    slopes = [np.empty_like(w) for w in layers]
    found = []
    for step in range(steps + 1):
        for place in range(1, len(layers)):
            np.matmul(layers[place], products[place - 1], out=products[place])
        if step % EVERY == 0:
            found.append(look(layers, products[-1]))
        if step == steps:
            break
        np.subtract(targets, products[-1], out=errors[-1])
        for place in range(len(layers) - 1, 0, -1):
            np.matmul(errors[place], products[place - 1].transpose(0, 2, 1), out=slopes[place])
            np.matmul(layers[place].transpose(0, 2, 1), errors[place], out=errors[place - 1])
            slopes[place] *= lr
            layers[place] += slopes[place]
        errors[0] *= lr
        layers[0] += errors[0]
    return np.stack(found, axis=1)


def with_torch(layers, targets, lr, steps, look):
    import torch

    torch.set_num_threads(1)
    with torch.inference_mode():
        layers = [torch.tensor(w) for w in layers]
        targets = torch.from_numpy(targets)
        shapes = [(*w.shape[:2], targets.shape[2]) for w in layers]
        products = [layers[0], *(torch.empty(shape, dtype=targets.dtype) for shape in shapes[1:])]
        errors = [torch.empty(shape, dtype=targets.dtype) for shape in shapes]
        seen = [w.numpy() for w in layers]
        found = []
        for step in range(steps + 1):
            for place in range(1, len(layers)):
                torch.bmm(layers[place], products[place - 1], out=products[place])
            if step % EVERY == 0:
                found.append(look(seen, products[-1].numpy()))
            if step == steps:
                break
            torch.sub(targets, products[-1], out=errors[-1])
            for place in range(len(layers) - 1, 0, -1):
                torch.bmm(layers[place].mT, errors[place], out=errors[place - 1])
                layers[place].baddbmm_(errors[place], products[place - 1].mT, alpha=lr)
            layers[0].add_(errors[0], alpha=lr)
    return np.stack(found, axis=1)


def with_jax(layers, targets, lr, steps, look):
    import jax

    jax.config.update("jax_enable_x64", True)
    current = [jax.numpy.array(w) for w in layers]
    goal = jax.numpy.asarray(targets)
    found = []
    for record in range(steps // EVERY + 1):
        seen = [np.asarray(w) for w in current]
        product = seen[0]
        for w in seen[1:]:
            product = w @ product
        found.append(look(seen, product))
        if record < steps // EVERY:
            current = _jax_steps()(current, goal, lr)
    return np.stack(found, axis=1)


@cache  # compiled once for each shape, whatever the number of calls
def _jax_steps():
    import jax

    def step(layers, targets, lr):
        products = [layers[0]]
        for w in layers[1:]:
            products.append(w @ products[-1])
        error = targets - products[-1]
        stepped = []
        for w, below in zip(layers[:0:-1], products[-2::-1], strict=True):
            stepped.append(w + lr * (error @ below.mT))
            error = w.mT @ error
        return [layers[0] + lr * error, *stepped[::-1]]

    def steps(layers, targets, lr):
        return jax.lax.fori_loop(0, EVERY, lambda _, layers: step(layers, targets, lr), layers)

    return jax.jit(steps)
