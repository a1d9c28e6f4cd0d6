"""PyTorch on the CPU: the gradient written out in batched products, a step compiled by torch.compile."""

from __future__ import annotations

import torch
from workloads import LR, RECORD_EVERY

from methods.blocks import in_fastest_blocks
from methods.narrow import Narrow

LABEL = "PyTorch compile"


def prepare(workload):
    torch.set_num_threads(1)
    problem = Narrow.of(workload)
    target = torch.from_numpy(problem.target)

    @torch.compile(dynamic=False)
    def step_of(layers):
        products = [layers[0]]
        for w in layers[1:]:
            products.append(w @ products[-1])
        error = target - products[-1]
        loss = 0.5 * error.square().sum((1, 2))
        stepped = []
        for w, below in zip(layers[:0:-1], products[-2::-1], strict=True):
            stepped.append(torch.baddbmm(w, error, below.mT, alpha=LR))
            error = w.mT @ error
        stepped.append(layers[0] + LR * error)
        return stepped[::-1], loss

    @torch.inference_mode()
    def train_block(layers, losses, steps):
        kept = [torch.from_numpy(w) for w in layers]
        losses = torch.from_numpy(losses)
        current = kept
        for step in range(steps + 1):
            stepped, loss = step_of(current)
            if step % RECORD_EVERY == 0:
                losses[:, step // RECORD_EVERY] = loss
            if step < steps:
                current = stepped
        for w, trained in zip(kept, current, strict=True):
            w.copy_(trained)

    return in_fastest_blocks(workload, problem, train_block)
