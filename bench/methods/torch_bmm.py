"""PyTorch on the CPU: the gradient written out in batched products, eager, everything in place."""

from __future__ import annotations

import torch
from workloads import LR, RECORD_EVERY

from methods.blocks import in_fastest_blocks

LABEL = "PyTorch bmm"


def prepare(workload):
    torch.set_num_threads(1)
    target = torch.from_numpy(workload.sigma_yx.astype(workload.dtype))

    @torch.inference_mode()
    def train_block(layers, losses, steps):
        layers = [torch.from_numpy(w) for w in layers]
        losses = torch.from_numpy(losses)
        products = [layers[0], *(torch.empty_like(w) for w in layers[1:])]
        error, back = torch.empty_like(layers[0]), torch.empty_like(layers[0])
        for step in range(steps + 1):
            for place in range(1, len(layers)):
                torch.bmm(layers[place], products[place - 1], out=products[place])
            torch.sub(target, products[-1], out=error)
            if step % RECORD_EVERY == 0:
                losses[:, step // RECORD_EVERY] = 0.5 * error.square().sum((1, 2))
            if step == steps:
                return
            for place in range(len(layers) - 1, 0, -1):
                torch.bmm(layers[place].mT, error, out=back)
                layers[place].baddbmm_(error, products[place - 1].mT, alpha=LR)
                error, back = back, error
            layers[0].add_(error, alpha=LR)

    return in_fastest_blocks(workload, train_block)
