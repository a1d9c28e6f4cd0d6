"""Ctrl-C during work that a library does in one piece: the caller waits for a thread, and stops waiting."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import ctypes
import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["abandonable", "broadcast", "interruptible", "patiently", "product"]

P = ParamSpec("P")
R = TypeVar("R")

_LOOK_EVERY, _LONGEST_WAIT = 0.05, 10.0  # seconds
_SHORT = 2**24  # operations of work that takes about a tenth of a second: n³ of a decomposition, numbers that are made


class _AbandonedError(SystemExit):
    """Ends the thread of work that nobody waits for any more, without a word wherever it meets it."""


_abandoned: list[threading.Thread] = []


@atexit.register
def _wait_for_libraries() -> None:
    """Ends of the process come after the ends of calls of BLAS: it frees its memory then, in use or not."""
    for thread in _abandoned:
        thread.join(_LONGEST_WAIT)


def abandonable(work: Callable[[], R], operations: float) -> R:
    """What `work` returns; Ctrl-C is answered at once, even where a library would see it only when it has ended.

    The work must change nothing but what it returns: after Ctrl-C it goes on to the end of the library's call, and
    nobody sees its result.

    Parameters
    ----------
    work : callable
    operations : float
        How much it is, about: a short one is not worth a thread (some 0.1 ms).
    """
    if not operations > _SHORT or threading.current_thread() is not threading.main_thread():
        return work()
    result: list[R] = []
    failure: list[BaseException] = []
    context = contextvars.copy_context()  # np.errstate

    def run() -> None:
        try:
            result.append(context.run(work))
        except BaseException as error:  # raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():  # a signal may have reached the other thread, and is then seen here between two waits
            thread.join(_LOOK_EVERY)
    except BaseException:
        if thread.is_alive():  # between two of its calls of libraries the thread sees this
            _abandoned[:] = [*(other for other in _abandoned if other.is_alive()), thread]
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_AbandonedError)
            )
        raise
    if failure:
        raise failure[0]
    return result[0]


def patiently(decompose: Callable[..., Any], matrices: NDArray[Any], **how: Any) -> Any:
    """What a decomposition of a matrix, or of a stack of them, returns; see `abandonable`."""
    n, m = matrices.shape[-2:]
    operations = float(np.prod(matrices.shape[:-2], dtype=np.float64)) * max(n, m) * min(n, m) ** 2
    return abandonable(functools.partial(decompose, matrices, **how), operations)


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """np.matmul of matrices or stacks of them; see `abandonable`."""
    return abandonable(functools.partial(np.matmul, a, b), float(max(a.size * b.shape[-1], b.size * a.shape[-2])))


def interruptible(operations: Callable[..., float]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for functions that change nothing but what they return; see `abandonable`.

    `operations` gets the arguments and says how much work they make, about. What it cannot make sense of is nothing:
    the function itself says what is wrong with its arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def patient(*args: P.args, **kwargs: P.kwargs) -> R:
            count = 0.0
            with contextlib.suppress(Exception):
                count = float(operations(*args, **kwargs))
            return abandonable(functools.partial(function, *args, **kwargs), count)

        return patient

    return decorate


def broadcast(*arrays: Any, **_: Any) -> float:
    """The numbers that arrays, as they broadcast against each other, make."""
    shape = np.broadcast_shapes(*(np.shape(a) for a in arrays))
    return float(np.prod(shape, dtype=np.float64))
