"""diffrax: diffeqsolve under vmap and jit, in blocks of the size that is fastest."""

from __future__ import annotations

import numpy as np
from clock import timed

from flows.cases import Modes

LABEL = "diffrax"
BLOCKS = (64, 512, 4096)


def prepare(case, method, rtol):
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    times = jnp.asarray(case.times)
    controller = diffrax.PIDController(rtol=rtol, atol=rtol)
    solver = {"tsit5": diffrax.Tsit5, "dopri8": diffrax.Dopri8}[method]()

    def solve(slope, product, start, argument):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            solver,
            t0=times[0],
            t1=times[-1],
            dt0=None,
            y0=start,
            args=argument,
            saveat=diffrax.SaveAt(ts=times, fn=lambda t, y, _: product(y)),
            stepsize_controller=controller,
            adjoint=diffrax.ForwardMode(),
            max_steps=None,
        ).ys

    def products(layers):
        made = [layers[0]]
        for w in layers[1:]:
            made.append(w @ made[-1])
        return made

    def mode_slope(t, a, s):
        below = [jnp.ones(())]
        for layer in range(case.depth):
            below.append(below[-1] * a[layer])
        rest, slopes = s - below[-1], []
        for layer in reversed(range(case.depth)):
            slopes.append(below[layer] * rest)
            rest = rest * a[layer]
        return tuple(slopes[::-1])

    def network_slope(t, layers, target):
        below = products(layers)
        error, slopes = target - below[-1], []
        for layer in range(case.depth - 1, 0, -1):
            slopes.append(error @ below[layer - 1].T)
            error = layers[layer].T @ error
        return error, *slopes[::-1]

    if isinstance(case, Modes):
        one = lambda a, s: solve(mode_slope, lambda y: jnp.prod(jnp.stack(y)), a, s)  # noqa: E731
        given = tuple(case.start[:, layer] for layer in range(case.depth)), case.s
        axes = (0, 0)
    else:
        one = lambda w, target: solve(network_slope, lambda y: products(y)[-1], w, target)  # noqa: E731
        given = tuple(case.start), case.target
        axes = (0, None)
    many = jax.jit(jax.vmap(one, in_axes=axes))

    def part(first):
        members = np.arange(first, first + size).clip(max=case.batch - 1)  # the last block is filled up
        layers = tuple(x[members] for x in given[0])
        return np.asarray(many(layers, given[1] if axes[1] is None else given[1][members]))

    def run(count):
        return np.concatenate([part(first) for first in range(0, count, size)])[:count]

    speeds = {}
    for size in [b for b in BLOCKS if b <= case.batch] or [case.batch]:
        run(size)  # compiled
        speeds[size] = timed(run, size).seconds / size
    run.block = size = min(speeds, key=speeds.get)
    return run
