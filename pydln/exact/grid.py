"""Arguments that broadcast, as modes and the times of each: what kernels of modes work on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid"]

Floats = NDArray[Any]


class Grid:
    """Times run along the axes on which no constant of a mode changes, modes along all others.

    Attributes
    ----------
    count, length : int
        Modes, and times of each.
    constants : list of (count,) arrays
        Those given, one entry for every mode.
    times : (length,) or (count, length) array
        The same for all modes, or each its own.
    """

    def __init__(self, constants: tuple[Floats, ...], t: Floats) -> None:
        shape = np.broadcast_shapes(*(a.shape for a in constants), t.shape)
        *given, t = (a.reshape((1,) * (len(shape) - a.ndim) + a.shape) for a in (*constants, t))
        over_time = [k for k, n in enumerate(shape) if n != 1 and all(a.shape[k] == 1 for a in given)]
        over_modes = [k for k in range(len(shape)) if k not in over_time]
        self._order = over_modes + over_time
        self._modes, self._times = tuple(shape[k] for k in over_modes), tuple(shape[k] for k in over_time)
        self.count, self.length = math.prod(self._modes), math.prod(self._times)
        self.constants = [self._rows(a, self._modes + (1,) * len(self._times), self.count) for a in given]
        if all(t.shape[k] == 1 for k in over_modes):
            self.times = self._rows(t, (1,) * len(self._modes) + self._times, self.length)
        else:
            self.times = self._rows(t, self._modes + self._times, self.count, self.length)

    def _rows(self, a: Floats, to: tuple[int, ...], *flat: int) -> Floats:
        return np.ascontiguousarray(np.broadcast_to(a.transpose(self._order), to).reshape(flat))

    def back(self, values: Floats) -> Floats:
        """(count, length) in the shape that the arguments broadcast to."""
        return values.reshape(self._modes + self._times).transpose(np.argsort(self._order))
