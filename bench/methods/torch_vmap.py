"""PyTorch on the CPU, one network written down: torch.func.grad of its loss, torch.func.vmap over the members."""

from __future__ import annotations

import torch
from workloads import LR, RECORD_EVERY

from methods.blocks import in_fastest_blocks
from methods.narrow import Narrow

LABEL = "PyTorch vmap(grad)"


def prepare(workload):
    torch.set_num_threads(1)
    problem = Narrow.of(workload)
    target = torch.from_numpy(problem.target)

    def loss_of(layers):
        product = layers[0]
        for w in layers[1:]:
            product = w @ product
        return 0.5 * (target - product).square().sum()

    slopes_and_losses = torch.func.vmap(torch.func.grad_and_value(loss_of))

    @torch.no_grad()
    def train_block(layers, losses, steps):
        layers = [torch.from_numpy(w) for w in layers]
        losses = torch.from_numpy(losses)
        for step in range(steps):
            slopes, loss = slopes_and_losses(layers)
            if step % RECORD_EVERY == 0:
                losses[:, step // RECORD_EVERY] = loss
            for w, slope in zip(layers, slopes, strict=True):
                w.sub_(slope, alpha=LR)
        if steps % RECORD_EVERY == 0:
            losses[:, steps // RECORD_EVERY] = torch.func.vmap(loss_of)(layers)

    return in_fastest_blocks(workload, problem, train_block)
