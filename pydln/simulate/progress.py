"""How a run says how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydln.errors import MissingExtra

__all__ = ["Progress", "Tick", "shown"]

Progress = bool | Callable[[int, int], object]
Tick = Callable[[int, int], object]


@contextmanager
def shown(progress: Progress, what: str, unit: str) -> Iterator[Tick | None]:
    """What a run calls with the work done and the work in all; None where nobody wants to know."""
    if progress is False:
        yield None
    elif callable(progress):
        yield progress
    elif progress is True:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise MissingExtra.of("tqdm", "cli", "progress=True") from None
        with tqdm(unit=unit, unit_scale=True, desc=what) as bar:

            def tick(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield tick
            bar.update((bar.total or bar.n) - bar.n)
    else:
        raise TypeError(f"progress: expected True, False or a callable, got {type(progress).__name__}")
