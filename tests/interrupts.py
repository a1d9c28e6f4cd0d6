"""Ctrl-C while a run is on its way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


def press_midway(done: int, total: int) -> None:
    """As `progress`: Ctrl-C once something is done, as long as not everything is."""
    if 0 < done < total:
        os.kill(os.getpid(), signal.SIGINT)


def press_after_members(done: int, total: int) -> None:
    """The same of thousands of members once a hundredth is done: more than vectors hold, so that some are complete."""
    if total / 100 < done < total:
        os.kill(os.getpid(), signal.SIGINT)


def work_after_press(call: Callable[[], object], after: float = 0.2) -> float:
    """Seconds of processor time from Ctrl-C, `after` seconds of processor time into `call`, until it is answered.

    Processor time, of all threads: how busy the machine is does not matter.
    """

    def press(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGPROF, press)
    try:
        began = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, after)
        try:
            call()
        except KeyboardInterrupt:
            return time.process_time() - began - after
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    finally:
        signal.signal(signal.SIGPROF, before)
    raise AssertionError(f"the call came to its end within {after} s of work")


def work_after_tick(call: Callable[[Callable[[int, int], None]], object], after: float = 0.2) -> float:
    """The same of a `call` that gets a function for `progress`: from when the kernel is told to stop."""
    began, told = time.process_time(), 0.0

    def press(done: int, total: int) -> None:
        nonlocal told
        if time.process_time() > began + after and not told:
            told = time.process_time()
            raise KeyboardInterrupt

    try:
        call(press)
    except KeyboardInterrupt:
        return time.process_time() - told
    raise AssertionError(f"the call came to its end within {after} s of work")
