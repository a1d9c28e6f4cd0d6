"""Ctrl-C while a run is on its way."""

from __future__ import annotations

import os
import signal


def press_midway(done: int, total: int) -> None:
    """As `progress`: Ctrl-C once something is done, as long as not everything is."""
    if 0 < done < total:
        os.kill(os.getpid(), signal.SIGINT)


def press_after_members(done: int, total: int) -> None:
    """The same of thousands of members once a hundredth is done: more than vectors hold, so that some are complete."""
    if total / 100 < done < total:
        os.kill(os.getpid(), signal.SIGINT)
