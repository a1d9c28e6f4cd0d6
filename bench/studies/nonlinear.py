"""Nonlinear ensembles on samples: depth 3, all samples at every step, loss recorded at every tenth.

The networks of an ensemble share the samples: 1024 networks of width 8 have 32, 256 of width 32 have 48, 16 of width
128 have 256.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from workloads import specification

from studies.study import EVERY, Case, Program, main


@dataclass(frozen=True, kw_only=True)
class Networks(Case):
    """Gaussian starts and samples, targets of a network of the same kind."""

    samples: int
    activation: str

    @property
    def step_flops(self) -> float:
        """Two for every weight and sample forward, four backward, of the first layer two; phi is not counted."""
        weights = [n * m for n, m in zip(self.widths[:-1], self.widths[1:], strict=True)]
        return self.samples * (6.0 * sum(weights) - 2.0 * weights[0])

    @cached_property
    def x(self) -> np.ndarray:
        """(samples, n_0)."""
        return np.random.default_rng(1).standard_normal((self.samples, self.widths[0]))

    @cached_property
    def y(self) -> np.ndarray:
        """(samples, n_D)."""
        return np.tanh(self.x @ np.random.default_rng(2).standard_normal((self.widths[0], self.widths[-1])))

    @cached_property
    def start(self) -> list[np.ndarray]:
        """(members, n_l, n_{l-1}) each."""
        layers = []
        for place, (n_in, n_out) in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True)):
            drawn = [np.random.default_rng([3, place, int(i)]).standard_normal((n_out, n_in)) for i in self.numbers]
            layers.append(np.stack(drawn) / np.sqrt(n_in))
        return layers

    def prepare(self) -> None:
        _ = self.x, self.y, self.start

    def expected(self) -> np.ndarray:
        from pydln.activations import activation

        modes = np.eye(self.widths[-1], 1), np.eye(self.widths[0], 1)  # of which nothing is asked
        return np.stack(
            [
                specification()
                .nonlinear(
                    [w[member] for w in self.start],
                    self.x,
                    self.y,
                    activation(self.activation),
                    scale=1 / self.samples,
                    U=modes[0],
                    V=modes[1],
                    lr=self.lr,
                    steps=self.steps,
                )
                .records["loss"][::EVERY]
                for member in range(self.members)
            ]
        )


def with_pydln(case):
    import pydln

    return pydln.train_nonlinear(
        case.x,
        case.y,
        pydln.Weights(case.start),
        activation=case.activation,
        lr=case.lr,
        steps=case.steps,
        record_every=EVERY,
        record="loss",
        n_threads=1,
    ).loss


def with_numpy(case):
    """All networks at once, in batched products."""
    layers = [w.copy() for w in case.start]
    x, y, rate = case.x, case.y, case.lr / case.samples
    losses = []
    for step in range(case.steps + 1):
        below = [x]
        for w in layers[:-1]:
            z = below[-1] @ w.transpose(0, 2, 1)
            below.append(np.tanh(z, out=z) if case.activation == "tanh" else np.maximum(z, 0, out=z))
        r = y - below[-1] @ layers[-1].transpose(0, 2, 1)
        if step % EVERY == 0:
            losses.append(np.sum(r * r, axis=(1, 2)) / (2 * case.samples))
        if step == case.steps:
            break
        for place in range(len(layers) - 1, -1, -1):
            slope = r.transpose(0, 2, 1) @ below[place]
            if place:
                r = r @ layers[place]
                h = below[place]
                r *= 1 - h * h if case.activation == "tanh" else h > 0
            slope *= rate
            layers[place] += slope
    return np.stack(losses, axis=1)


def with_torch(case):
    """The gradient written out, batched products in place."""
    import torch

    torch.set_num_threads(1)
    with torch.inference_mode():
        layers = [torch.tensor(w) for w in case.start]
        x, y = torch.tensor(case.x), torch.tensor(case.y)
        inputs = x.expand(case.members, *x.shape).contiguous()
        rate, tanh = case.lr / case.samples, case.activation == "tanh"
        hidden = [torch.empty(case.members, case.samples, w.shape[1], dtype=x.dtype) for w in layers]
        carried = [torch.empty_like(h) for h in hidden]
        losses = []
        for step in range(case.steps + 1):
            h = inputs
            for place, w in enumerate(layers):
                torch.bmm(h, w.mT, out=hidden[place])
                h = hidden[place]
                if place < len(layers) - 1:
                    h.tanh_() if tanh else h.relu_()
            torch.sub(y, h, out=carried[-1])
            if step % EVERY == 0:
                losses.append(carried[-1].square().sum(dim=(1, 2)).numpy() / (2 * case.samples))
            if step == case.steps:
                break
            for place in range(len(layers) - 1, -1, -1):
                r, below = carried[place], hidden[place - 1] if place else inputs
                if place:
                    torch.bmm(r, layers[place], out=carried[place - 1])
                    if tanh:
                        torch.ops.aten.tanh_backward.grad_input(
                            carried[place - 1], below, grad_input=carried[place - 1]
                        )
                    else:
                        carried[place - 1].mul_(below > 0)
                layers[place].baddbmm_(r.mT, below, alpha=rate)
        return np.stack(losses, axis=1)


def with_autograd(case):
    """The same by autograd, in PyTorch."""
    import torch

    torch.set_num_threads(1)
    layers = [torch.tensor(w, requires_grad=True) for w in case.start]
    x, y = torch.tensor(case.x), torch.tensor(case.y)
    x = x.expand(case.members, *x.shape)
    phi = torch.tanh if case.activation == "tanh" else torch.relu
    losses = []
    for step in range(case.steps + 1):
        h = x
        for w in layers[:-1]:
            h = phi(torch.bmm(h, w.mT))
        loss = (y - torch.bmm(h, layers[-1].mT)).square().sum(dim=(1, 2)) / (2 * case.samples)
        if step % EVERY == 0:
            losses.append(loss.detach().numpy())
        if step < case.steps:
            for w, slope in zip(layers, torch.autograd.grad(loss.sum(), layers), strict=True):
                w.data.sub_(slope, alpha=case.lr)
    return np.stack(losses, axis=1)


def with_jax(case):
    import jax

    jax.config.update("jax_enable_x64", True)
    current = [jax.numpy.array(w) for w in case.start]
    losses = _jax_steps(case.activation, case.steps // EVERY)(current, case.x, case.y, case.lr)
    return np.asarray(losses).T


@cache  # compiled once for each shape and number of records
def _jax_steps(activation, records):
    import jax

    phi = jax.numpy.tanh if activation == "tanh" else jax.nn.relu

    def loss(layers, x, y):
        h = x
        for w in layers[:-1]:
            h = phi(h @ w.T)
        return jax.numpy.sum((y - h @ layers[-1].T) ** 2) / (2 * x.shape[0])

    slopes = jax.vmap(jax.grad(loss), (0, None, None))
    all_losses = jax.vmap(loss, (0, None, None))

    def run(layers, x, y, lr):
        def step(_, layers):
            return [w - lr * g for w, g in zip(layers, slopes(layers, x, y), strict=True)]

        def record(layers, _):
            now = all_losses(layers, x, y)
            return jax.lax.fori_loop(0, EVERY, step, layers), now

        layers, losses = jax.lax.scan(record, layers, None, length=records)
        return jax.numpy.concatenate([losses, all_losses(layers, x, y)[None]])

    return jax.jit(run)


def _numba(products):
    def run(case):
        weights = np.concatenate([w.reshape(case.members, -1) for w in case.start], axis=1)
        losses = np.empty((case.members, case.records))
        _numba_steps(products, case.widths, case.samples, case.activation == "tanh")(
            weights, case.x, case.y, case.lr, case.steps, losses
        )
        return losses

    return run


@cache
def _numba_steps(products, widths, samples, tanh):
    """One network after the other; `products` by BLAS (``dot``) or as loops whose lengths the compiler knows."""
    from numba import njit

    depth = len(widths) - 1
    shapes = tuple((widths[place + 1], widths[place]) for place in range(depth))
    firsts = tuple(int(n) for n in np.cumsum([0, *(n * m for n, m in shapes)]))

    if products == "dot":

        @njit(fastmath=True)
        def forward(h, w, out):  # h w^T
            np.dot(h, w.T, out)

        @njit(fastmath=True)
        def backward(r, w, out):  # r w
            np.dot(r, w, out)

        @njit(fastmath=True)
        def slope(r, h, out):  # r^T h
            np.dot(r.T, h, out)

    else:

        @njit(fastmath=True)
        def forward(h, w, out):
            wt = w.T.copy()
            out[:] = 0
            for p in range(samples):
                for j in range(w.shape[1]):
                    a = h[p, j]
                    for i in range(w.shape[0]):
                        out[p, i] += a * wt[j, i]

        @njit(fastmath=True)
        def backward(r, w, out):
            out[:] = 0
            for p in range(samples):
                for i in range(w.shape[0]):
                    a = r[p, i]
                    for j in range(w.shape[1]):
                        out[p, j] += a * w[i, j]

        @njit(fastmath=True)
        def slope(r, h, out):
            out[:] = 0
            for p in range(samples):
                for i in range(out.shape[0]):
                    a = r[p, i]
                    for j in range(out.shape[1]):
                        out[i, j] += a * h[p, j]

    @njit(fastmath=True)
    def train(weights, x, y, lr, steps, losses):
        hidden = [np.empty((samples, n)) for n in widths[1:]]
        carried = [np.empty((samples, n)) for n in widths[1:]]
        slopes = [np.empty(shapes[place]) for place in range(depth)]
        for member in range(weights.shape[0]):
            mine = weights[member]
            w = [mine[firsts[place] : firsts[place + 1]].reshape(shapes[place]) for place in range(depth)]
            for step in range(steps + 1):
                for place in range(depth):
                    z = hidden[place]
                    forward(hidden[place - 1] if place else x, w[place], z)
                    if place < depth - 1:
                        for p in range(samples):
                            for i in range(z.shape[1]):
                                z[p, i] = np.tanh(z[p, i]) if tanh else max(z[p, i], 0.0)
                r, square = carried[depth - 1], 0.0
                for p in range(samples):
                    for i in range(r.shape[1]):
                        r[p, i] = y[p, i] - hidden[depth - 1][p, i]
                        square += r[p, i] * r[p, i]
                if step % EVERY == 0:
                    losses[member, step // EVERY] = square / (2 * samples)
                if step == steps:
                    break
                for place in range(depth - 1, -1, -1):
                    below = hidden[place - 1] if place else x
                    slope(carried[place], below, slopes[place])
                    if place:
                        r = carried[place - 1]
                        backward(carried[place], w[place], r)
                        for p in range(samples):
                            for i in range(r.shape[1]):
                                h = below[p, i]
                                r[p, i] *= (1 - h * h) if tanh else (1.0 if h > 0 else 0.0)
                    layer, s = w[place], slopes[place]
                    for i in range(layer.shape[0]):
                        for j in range(layer.shape[1]):
                            layer[i, j] += lr / samples * s[i, j]

    return train


def _case(name, width, members, samples, activation):
    return Networks(
        study="nonlinear",
        name=name,
        widths=(width,) * 4,
        all_members=members,
        all_steps=40,
        lr=0.02,
        samples=samples,
        activation=activation,
    )


CASES = {
    case.name: case
    for case in (
        _case("N0 tanh", 8, 1024, 32, "tanh"),
        _case("N0 relu", 8, 1024, 32, "relu"),
        _case("N1 tanh", 32, 256, 48, "tanh"),
        _case("N1 relu", 32, 256, 48, "relu"),
        _case("N2 tanh", 128, 16, 256, "tanh"),
        _case("N2 relu", 128, 16, 256, "relu"),
    )
}


def _all():
    """Network-steps that are timed: of all networks at once, for all steps."""
    return {name: case.all_members * case.all_steps for name, case in CASES.items()}


PROGRAMS = {
    "pydln": Program("pydln", with_pydln, _all(), needs="pydln"),
    "numpy": Program("NumPy, batched", with_numpy, _all()),
    "torch": Program("PyTorch, batched, in place", with_torch, _all(), needs="torch"),
    "torch-autograd": Program("PyTorch autograd, batched", with_autograd, _all(), needs="torch"),
    "jax": Program("JAX, grad, vmap, jit", with_jax, _all(), needs="jax"),
    "numba-dot": Program("numba, BLAS", _numba("dot"), _all(), needs="numba"),
    "numba-loops": Program("numba, loops", _numba("loops"), _all(), needs="numba"),
}

if __name__ == "__main__":
    main(sys.modules[__name__])
