"""One layer: a linear equation, solved from any start for any inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln.exact.solution import Solution
from pydln.exact.start import Condition, Start
from pydln.task.squares import principal

__all__ = ["OneLayer"]

Floats = NDArray[Any]


class OneLayer(Solution):
    """Depth 1, dOmega/dt = Sigma_yx - Omega Sigma_xx.

    With Sigma_xx = Q diag(d) Q^T the columns of (Omega - Omega*) Q decay as e^(-dt), and where d = 0 nothing moves.
    """

    name = "one layer"

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        task = start.task
        self.first = start.layer(1)
        self.optimum = task.optimum if task.batch is not None else task.optimum[None]
        self.rates, self.basis = np.ones((1, task.n_in)), None
        # The gap that is left at t = 0 and its part in the loss, (Omega* - Omega) Q and that times the root of d.
        self.gap = self.seen = self.optimum - self.first
        if task.squares is not None:
            Q, sigma, target = principal(task.squares)
            self.rates, self.basis = np.atleast_2d(sigma**2), Q if Q.ndim == 3 else Q[None]
            sigma = np.atleast_2d(sigma)[:, None]
            self.seen = (target if target.ndim == 3 else target[None]) - (self.first @ self.basis) * sigma
            self.gap = np.divide(self.seen, sigma, out=np.zeros(self.seen.shape), where=sigma > 0)

    @property
    def working(self) -> int:
        """The product, made whatever is recorded, from parts of its size."""
        return 8 * self.start.task.n_out * self.start.task.n_in

    @classmethod
    def conditions(cls, start: Start) -> Iterator[Condition]:
        """Depth."""
        yield start.depth_is(start.depth == 1, "1")

    def records(self, t: Floats, names: Sequence[str]) -> dict[str, Any]:
        """The quantities `names`; the loss has its digits down to the floor."""
        U, _, V = self.start.modes
        exponent = self.rates[:, None] * t[:, :, None]
        found: dict[str, Any] = {}
        if "loss" in names:
            weight = 0.5 * np.sum(self.seen**2, axis=1)
            excess = np.sum(weight[:, None] * np.exp(-2 * exponent), axis=-1)
            found["loss"] = np.reshape(self.start.task.floor, (-1, 1)) + excess
        # From the start while little has happened and from the end later, so that both keep the digits of their own.
        early = exponent[..., None, :] < 1
        moved = np.where(early, -np.expm1(-exponent)[..., None, :], 0.0) * self.gap[:, None]
        left = np.where(early, 0.0, np.exp(-exponent)[..., None, :]) * self.gap[:, None]
        first, last = self.first[:, None], self.optimum[:, None]
        if self.basis is None:
            product = np.where(early, first + moved, last - left)
        else:
            Q = self.basis[:, None]
            back = np.swapaxes(Q, -2, -1)
            product = (np.where(early, first @ Q + moved, last @ Q - left)) @ back
        found["product"] = product
        found["weights"] = [product]
        found["strengths"] = np.sum(U[:, None] * (product @ V[:, None]), axis=-2)
        found["layer_norms"] = np.linalg.norm(product, axis=(-2, -1))[..., None]
        found["drift"] = np.zeros((*product.shape[:2], 0))
        found["kernel_distance"] = np.zeros(product.shape[:2])
        if "test_loss" in names:
            found["test_loss"] = self.test_loss(product)
        return found
