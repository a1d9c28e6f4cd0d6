"""One method in a process of its own, pinned before NumPy or anything else can start a thread.

protocol.py starts it with its settings as JSON in the first argument, writes one JSON request a line to its standard
input, and reads one JSON reply a line. Whatever a library prints goes to standard error.
"""

from __future__ import annotations

import json
import math
import os
import sys


class Session:
    """Requests are calls of the methods without an underscore."""

    def __init__(self, cores, method, options, workload, dtype, batch):
        from workloads import WORKLOADS

        self._threads = len(cores)
        self._method = method
        self._options = options
        self._workload = WORKLOADS[workload].sized(dtype=dtype, batch=batch)

    def load(self):
        """Import and compile everything; say what is used, or which package is missing."""
        import importlib

        try:
            module = importlib.import_module(f"methods.{self._method}")
        except ModuleNotFoundError as error:
            return {"missing": error.name}
        self._train = module.prepare(self._workload, **self._options)
        return {"label": module.LABEL, "versions": _versions()}

    def check(self):
        """Distance from the specification after a few steps, and what rounding explains."""
        from workloads import ALLOWED, CHECK_STEPS

        losses, layers = self._train(CHECK_STEPS)
        return {"error": self._workload.error(losses, layers), "allowed": ALLOWED[self._workload.dtype]}

    def calibrate(self, seconds, probe_seconds):
        """Choose how many steps take `seconds`, by processor time: that does not grow when others want the core."""
        import probe
        from clock import timed
        from workloads import RECORD_EVERY

        self._probe_rounds = probe.rounds_for(probe_seconds)
        self._short = RECORD_EVERY
        self._more = RECORD_EVERY
        start = timed(self._train, self._short).cpu_seconds
        while seconds:
            run = timed(self._train, self._short + self._more)
            measured = (run.cpu_seconds - start) / self._threads
            if measured > 0.2 * seconds:
                self._more = RECORD_EVERY * math.ceil(1.2 * self._more * seconds / measured / RECORD_EVERY)
                break
            self._more *= 4
        return {"steps": [self._short, self._short + self._more]}

    def turn(self):
        """Probe, a short run, a long run, probe; what one step costs is what the long run takes longer."""
        from clock import timed

        before = self._probe()
        short = timed(self._train, self._short)
        long = timed(self._train, self._short + self._more)
        after = self._probe()
        return {
            "probes": [before, after],
            "wall": (long.seconds - short.seconds) / self._more,
            "cpu": (long.cpu_seconds - short.cpu_seconds) / self._more,
            "long_seconds": long.seconds,
            "share": long.share,
        }

    def _probe(self):
        import probe

        rate = probe.probe(self._workload.dtype, self._threads, self._probe_rounds)
        return {"wall": rate.gflops, "cpu": rate.gflops / rate.span.share}


def _versions():
    from importlib import metadata

    used = {name: metadata.version(name) for name in ("numpy", "torch", "numba", "scipy") if name in sys.modules}
    if "pydln" in sys.modules:
        from pydln import _backend

        used |= {"pydln": _backend.version(), "pydln's instruction set": _backend.isa()}
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return used
    # NumPy, SciPy and PyTorch may each bring one.
    blas = (p for p in threadpool_info() if p["user_api"] == "blas")
    return used | {f"BLAS {p['prefix']} {p['version']}": f"for {p['architecture']}" for p in blas}


def main():
    settings = json.loads(sys.argv[1])
    os.sched_setaffinity(0, settings["cores"])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = Session(**settings)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(session, request.pop("do"))(**request)), file=replies, flush=True)


if __name__ == "__main__":
    main()
