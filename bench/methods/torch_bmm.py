"""PyTorch on the CPU: the gradient written out in batched products, eager, everything in place."""

from __future__ import annotations

import torch
from workloads import LR, RECORD_EVERY

from methods.blocks import in_fastest_blocks
from methods.narrow import Narrow

LABEL = "PyTorch bmm"


def prepare(workload):
    torch.set_num_threads(1)
    problem = Narrow.of(workload)
    target = torch.from_numpy(problem.target)

    @torch.inference_mode()
    def train_block(layers, losses, steps):
        layers = [torch.from_numpy(w) for w in layers]
        losses = torch.from_numpy(losses)
        members, columns = len(losses), target.shape[1]
        errors = [torch.empty(members, w.shape[1], columns, dtype=w.dtype) for w in layers]
        products = [layers[0], *(torch.empty_like(error) for error in errors[1:])]
        for step in range(steps + 1):
            for place in range(1, len(layers)):
                torch.bmm(layers[place], products[place - 1], out=products[place])
            torch.sub(target, products[-1], out=errors[-1])
            if step % RECORD_EVERY == 0:
                losses[:, step // RECORD_EVERY] = 0.5 * errors[-1].square().sum((1, 2))
            if step == steps:
                return
            for place in range(len(layers) - 1, 0, -1):
                torch.bmm(layers[place].mT, errors[place], out=errors[place - 1])
                layers[place].baddbmm_(errors[place], products[place - 1].mT, alpha=LR)
            layers[0].add_(errors[0], alpha=LR)

    return in_fastest_blocks(workload, problem, train_block)
