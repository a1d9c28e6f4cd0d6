"""PyTorch on the CPU with autograd: what most people would write, on covariances and batches of networks."""

from __future__ import annotations

import torch
from workloads import LR, RECORD_EVERY

from methods.blocks import in_fastest_blocks
from methods.narrow import Narrow

LABEL = "PyTorch autograd"


def prepare(workload):
    torch.set_num_threads(1)
    problem = Narrow.of(workload)
    target = torch.from_numpy(problem.target)

    def loss_of(layers):
        product = layers[0]
        for w in layers[1:]:
            product = w @ product
        return 0.5 * (target - product).square().sum((1, 2))

    def train_block(layers, losses, steps):
        layers = [torch.from_numpy(w).requires_grad_() for w in layers]
        losses = torch.from_numpy(losses)
        for step in range(steps):
            loss = loss_of(layers)
            if step % RECORD_EVERY == 0:
                losses[:, step // RECORD_EVERY] = loss.detach()
            slopes = torch.autograd.grad(loss.sum(), layers)
            with torch.no_grad():
                for w, slope in zip(layers, slopes, strict=True):
                    w.sub_(slope, alpha=LR)
        with torch.no_grad():
            if steps % RECORD_EVERY == 0:
                losses[:, steps // RECORD_EVERY] = loss_of(layers)

    return in_fastest_blocks(workload, problem, train_block)
