"""How a weight shrinks that no gradient reaches: c(t) with c(0) = 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Decay"]


@dataclass(frozen=True, eq=False)
class Decay:
    """v ← μv - wc, c ← c + lr v (Nesterov: c + lr (μv - wc)), v = 0 at first: powers of a 2 × 2 matrix.

    Parameters
    ----------
    lr, momentum, weight_decay : (members,) arrays
        Rates as the kernel has them.
    nesterov : bool
    """

    lr: NDArray[Any]
    momentum: NDArray[Any]
    weight_decay: NDArray[Any]
    nesterov: bool = False

    @property
    def any(self) -> bool:
        """Whether anything shrinks."""
        return bool(self.weight_decay.any())

    def __getitem__(self, members: NDArray[np.int64]) -> Decay:
        return Decay(self.lr[members], self.momentum[members], self.weight_decay[members], self.nesterov)

    def factors(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """c after `steps`, (times,) for all or (members, times), by repeated squaring: (members, times)."""
        lr, mu, w = (a.astype(np.float64)[:, None] for a in (self.lr, self.momentum, self.weight_decay))
        wanted = np.broadcast_to(steps, (len(lr), steps.shape[-1]))
        c, v = np.ones(wanted.shape), np.zeros(wanted.shape)
        # (c, v) → (pc + qv, rc + sv); a rate at which this grows without bound has an infinite answer.
        p, q, r, s = (1 - lr * w * (1 + mu), lr * mu * mu, -w, mu) if self.nesterov else (1 - lr * w, lr * mu, -w, mu)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for bit in range(int(wanted.max(initial=0)).bit_length()):
                now = (wanted >> bit & 1).astype(bool)
                c, v = np.where(now, p * c + q * v, c), np.where(now, r * c + s * v, v)
                p, q, r, s = p * p + q * r, q * (p + s), r * (p + s), q * r + s * s
        return c
