"""P1: how noise is learned beside the signal (after Lampinen & Ganguli 2018).

2750 students 100-50-50, 5000 steps each: 55 strengths of a noisy teacher, 50 draws of teacher, noise and start. The
figure is the error on noise-free targets against time, with the strengths of the modes of the training data.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from workloads import specification

from studies import peers
from studies.study import EVERY, Case, Program, main

SEEDS = 50
RANK = 3
BLOCK = 16  # 16 students have 960 kB of weights


@dataclass(frozen=True, kw_only=True)
class Students(Case):
    """Whitened inputs; sums over as many orthonormal samples as inputs, as in the paper."""

    @cached_property
    def teachers(self) -> np.ndarray:
        """(members, n_D, n_0)."""
        strengths = np.linspace(0.2, 4.0, self.all_members // SEEDS)[self.numbers // SEEDS]
        n_in, n_out = self.widths[0], self.widths[-1]
        made = []
        for number, s in zip(self.numbers, strengths, strict=True):
            rng = np.random.default_rng([1, int(number)])
            u, v = (np.linalg.qr(rng.standard_normal((n, RANK)))[0] for n in (n_out, n_in))
            made.append((u * s * np.linspace(1.0, 0.5, RANK)) @ v.T)
        return np.stack(made)

    @cached_property
    def sigma_yx(self) -> np.ndarray:
        """(members, n_D, n_0): the teachers and the noise that they are seen with."""
        shape = self.teachers.shape[1:]
        noise = [np.random.default_rng([2, int(number)]).standard_normal(shape) for number in self.numbers]
        return self.teachers + np.stack(noise) / np.sqrt(self.widths[0])

    @cached_property
    def samples(self) -> tuple[np.ndarray, np.ndarray]:
        """X (n_0, samples) and Y (members, n_D, samples)."""
        n_in = self.widths[0]
        x = np.linalg.qr(np.random.default_rng(3).standard_normal((n_in, n_in)))[0]
        return x, self.sigma_yx @ x

    @cached_property
    def start(self) -> list[np.ndarray]:
        """Small Gaussian layers."""
        layers = []
        for place, (n_in, n_out) in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True)):
            drawn = [np.random.default_rng([4, place, int(i)]).standard_normal((n_out, n_in)) for i in self.numbers]
            layers.append(0.1 / np.sqrt(n_in) * np.stack(drawn))
        return layers

    def prepare(self) -> None:
        _ = self.samples, self.start

    def expected(self) -> np.ndarray:
        figures = []
        for member, (sigma_yx, teacher) in enumerate(zip(self.sigma_yx, self.teachers, strict=True)):
            u, _, vt = np.linalg.svd(sigma_yx, full_matrices=False)
            identity = np.eye(self.widths[0])
            run = specification().descent(
                [w[member] for w in self.start],
                sigma_xx=identity,
                sigma_yx=sigma_yx,
                trace_yy=np.sum(sigma_yx**2),
                U=u,
                V=vt.T,
                lr=self.lr,
                steps=self.steps,
                at=range(0, self.steps + 1, EVERY),
                test=(identity, teacher, np.sum(teacher**2)),
            )
            figures.append(np.column_stack([run.records["test_loss"], run.records["strengths"]]))
        return np.stack(figures)


def with_pydln(case):
    import pydln

    truth = pydln.Task.from_covariances(None, case.teachers, np.sum(case.teachers**2, axis=(1, 2)))
    task = pydln.Task.from_covariances(None, case.sigma_yx, np.sum(case.sigma_yx**2, axis=(1, 2)), test=truth)
    run = pydln.gradient_descent(
        task,
        pydln.Weights(case.start),
        lr=case.lr,
        steps=case.steps,
        record_every=EVERY,
        record=("test_loss", "strengths"),
        n_threads=1,
    )
    return np.concatenate([run.test_loss[..., None], run.strengths], axis=2)


def _recorded(omega, teacher, u, vt):
    """Test error, and strengths of the modes of what was seen."""
    error = 0.5 * np.sum((teacher - omega) ** 2)
    return np.append(error, np.diag(u.T @ omega @ vt.T))


def as_a_researcher(case):
    """One student after the other, over the samples."""
    x, y = case.samples
    figures = []
    for member in range(case.members):
        w1, w2 = (w[member].copy() for w in case.start)
        u, _, vt = np.linalg.svd(y[member] @ x.T, full_matrices=False)
        figure = []
        for step in range(case.steps + 1):
            if step % EVERY == 0:
                figure.append(_recorded(w2 @ w1, case.teachers[member], u, vt))
            hidden = w1 @ x
            error = y[member] - w2 @ hidden
            change1, change2 = w2.T @ error @ x.T, error @ hidden.T
            w1 += case.lr * change1
            w2 += case.lr * change2
        figures.append(figure)
    return np.array(figures)


def on_covariances(case):
    """One student after the other, over the covariance."""
    figures = []
    for member in range(case.members):
        w1, w2 = (w[member].copy() for w in case.start)
        sigma_yx = case.sigma_yx[member]
        u, _, vt = np.linalg.svd(sigma_yx, full_matrices=False)
        figure = []
        for step in range(case.steps + 1):
            omega = w2 @ w1
            if step % EVERY == 0:
                figure.append(_recorded(omega, case.teachers[member], u, vt))
            error = sigma_yx - omega
            change1, change2 = w2.T @ error, error @ w1.T
            w1 += case.lr * change1
            w2 += case.lr * change2
        figures.append(figure)
    return np.array(figures)


def with_torch(case):
    """One student after the other, over the samples, torch.nn and torch.optim."""
    import torch

    torch.set_num_threads(1)
    x = torch.from_numpy(case.samples[0].T.copy())
    figures = []
    for member in range(case.members):
        layers = [torch.nn.Linear(w.shape[2], w.shape[1], bias=False, dtype=x.dtype) for w in case.start]
        with torch.no_grad():
            for layer, w in zip(layers, case.start, strict=True):
                layer.weight.copy_(torch.from_numpy(w[member]))
        network = torch.nn.Sequential(*layers)
        optimizer = torch.optim.SGD(network.parameters(), lr=case.lr)
        y = torch.from_numpy(case.samples[1][member].T.copy())
        u, _, vt = np.linalg.svd(case.sigma_yx[member], full_matrices=False)
        figure = []
        for step in range(case.steps + 1):
            if step % EVERY == 0:
                with torch.no_grad():
                    omega = (layers[1].weight @ layers[0].weight).numpy()
                figure.append(_recorded(omega, case.teachers[member], u, vt))
            optimizer.zero_grad()
            (0.5 * (y - network(x)).square().sum()).backward()
            optimizer.step()
        figures.append(figure)
    return np.array(figures)


def _batched(descend):
    def run(case):
        u, _, vt = np.linalg.svd(case.sigma_yx, full_matrices=False)

        def look_at(block):
            teachers, ut, modes = case.teachers[block], u[block].transpose(0, 2, 1), vt[block]

            def look(_, omega):
                errors = 0.5 * np.sum((teachers - omega) ** 2, axis=(1, 2))
                return np.column_stack([errors, np.einsum("bmi,bmi->bm", ut @ omega, modes)])

            return look

        return peers.in_blocks(descend, BLOCK, case.start, case.sigma_yx, case.lr, case.steps, look_at)

    return run


CASES = {
    "P1": Students(study="generalisation", name="P1", widths=(100, 50, 50), all_members=2750, all_steps=5000, lr=5e-3),
}
PROGRAMS = {
    "pydln": Program("pydln", with_pydln, {"P1": 8e4}, needs="pydln"),
    "numpy-samples": Program("NumPy, a loop over networks, samples", as_a_researcher, {"P1": 1e4}),
    "numpy-covariances": Program("NumPy, a loop over networks, covariances", on_covariances, {"P1": 2e4}),
    "torch-samples": Program("PyTorch autograd, a loop over networks, samples", with_torch, {"P1": 5e3}, needs="torch"),
    "numpy-batched": Program("NumPy, batched", _batched(peers.with_numpy), {"P1": 8e4}),
    "torch-batched": Program("PyTorch, batched, in place", _batched(peers.with_torch), {"P1": 8e4}, needs="torch"),
    "jax-batched": Program("JAX, batched, jit", _batched(peers.with_jax), {"P1": 8e4}, needs="jax"),
}

if __name__ == "__main__":
    main(sys.modules[__name__])
