"""How long something takes, by the clock on the wall and by the processor time of all threads of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """A stretch of time: what passed, and what the processors gave to this process meanwhile."""

    seconds: float
    cpu_seconds: float

    @property
    def share(self) -> float:
        """Cores that this process had; below 1 it waited for one."""
        return self.cpu_seconds / self.seconds


def timed(work: Callable[..., object], *args: object) -> Span:
    """The time that one call takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    work(*args)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Span(wall, cpu)


def fastest(choices: Collection[T], run: Callable[[T], object]) -> T:
    """The choice whose second run takes the least processor time: the first compiles, and pays for memory."""
    for choice in choices:
        run(choice)
    return min(choices, key=lambda choice: timed(run, choice).cpu_seconds)
