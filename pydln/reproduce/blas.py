"""How many threads NumPy's products take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydln.errors import MissingExtra

__all__ = ["blas_threads"]


@contextmanager
def blas_threads(count: int | None) -> Iterator[None]:
    """Products of NumPy on so many threads; on as many as BLAS likes for None.

    Raises
    ------
    MissingExtra
        threadpoolctl is not installed.
    """
    if count is None:
        yield
        return
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtra.of("threadpoolctl", "plot", "pydln.reproduce") from None
    with threadpool_limits(limits=count, user_api="blas"):
        yield
