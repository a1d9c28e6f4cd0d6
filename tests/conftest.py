"""Tests meet the installed package: a child python (-c, -m) would otherwise put the source tree first on its path."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

os.environ["PYTHONSAFEPATH"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
# Small products in processes side by side: threads of BLAS that wait for each other took ten times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell without job control starts what it puts in the background deaf to Ctrl-C, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A change is judged by the same cases wherever it is tested; --hypothesis-profile=default looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
