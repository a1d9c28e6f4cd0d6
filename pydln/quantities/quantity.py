"""What a recorded quantity is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from pydln.quantities.state import State

__all__ = ["Quantity", "Sizes"]


class Sizes(NamedTuple):
    """What the shapes of quantities depend on.

    Attributes
    ----------
    widths : tuple of int
        n_0 … n_D.
    modes : int
        Of the task.
    """

    widths: tuple[int, ...]
    modes: int

    @property
    def depth(self) -> int:
        """D."""
        return len(self.widths) - 1


def _number(_: Sizes) -> tuple[int, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class _Fields:
    of: Literal["map", "layers", "start"]
    define: Callable[[State], Any]
    axes: tuple[str, ...] = ()
    shape: Callable[[Sizes], tuple[int, ...]] = _number
    any_network: bool = False
    unreduced: bool = False


@dataclass(frozen=True)
class Quantity(_Fields):
    """A quantity that can be recorded.

    Attributes
    ----------
    name, meaning : str
    of : {"map", "layers", "start"}
        What it is a function of, with the task: Ω alone, the layers, or the layers now and at the start.
    define : callable
        Its definition: from a `State` of some rows to (rows, …) numbers, float64; of ``weights`` a list of them.
    axes : tuple of str
        Those after (batch, time).
    shape : callable
        Their lengths, from `Sizes`.
    any_network : bool
        Means the same in networks with a nonlinearity.
    unreduced : bool
        Kernels that record it see the whole layers: not of reduced networks.
    """

    name: str
    meaning: str

    def shapes(self, sizes: Sizes) -> list[tuple[int, ...]]:
        """Of one record of one member: of the layers, or of the one array."""
        if self.name == "weights":
            return [(n, m) for m, n in pairwise(sizes.widths)]
        return [self.shape(sizes)]
