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
    """One method on one workload. Requests are calls of the methods without an underscore."""

    def __init__(self, threads, method, options, workload):
        from workloads import Workload

        self._threads = threads
        self._method = method
        self._options = options
        self._workload = Workload(**workload)

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
            **_rates(before, after),
            "wall": (long.seconds - short.seconds) / self._more,
            "cpu": (long.cpu_seconds - short.cpu_seconds) / self._more,
            "long_seconds": long.seconds,
            "share": long.share,
        }

    def _probe(self):
        import probe

        limits = {"probes": probe.probe(self._workload.dtype, self._threads, self._probe_rounds)}
        if self._workload.streamed:
            limits["memory"] = probe.memory("update")
        return limits


class Programs:
    """One program of a published study, from its inputs to its result; the same requests as to a Session."""

    def __init__(self, threads, method, options, study, case):
        import importlib

        self._threads = threads
        self._module = importlib.import_module(f"studies.{study}")
        self._program = self._module.PROGRAMS[method]
        self._case = self._module.CASES[case]
        self._options = options

    def load(self):
        if missing := self._program.missing():
            return {"missing": missing}
        return {"label": self._program.label, "versions": _versions()}

    def check(self):
        from studies.study import ALLOWED

        return {"error": self._program.error(self._case), "allowed": ALLOWED}

    def calibrate(self, seconds, probe_seconds):
        """Choose the part that is timed, a small one for no seconds, and make what is given to the program."""
        import probe

        self._probe_rounds = probe.rounds_for(probe_seconds)
        self._sized = self._program.timed_part(self._case, **self._options) if seconds else self._case.small()
        self._sized.prepare()
        return {"steps": [self._sized.members, self._sized.steps]}

    def turn(self):
        """Probe, the whole program, probe; seconds are those of one step of one network."""
        import probe
        from clock import timed

        before = {"probes": probe.probe("float64", self._threads, self._probe_rounds)}
        run = timed(self._program.run, self._sized)
        after = {"probes": probe.probe("float64", self._threads, self._probe_rounds)}
        done = self._sized.members * self._sized.steps
        return {
            **_rates(before, after),
            "wall": run.seconds / done,
            "cpu": run.cpu_seconds / done,
            "long_seconds": run.seconds,
            "share": run.share,
        }


class Solver:
    """One solver at one tolerance on trajectories of one kind; the same requests as to a Session."""

    def __init__(self, threads, method, options, flow):
        from flows.cases import CASES, SMALL

        self._threads = threads
        self._module = method
        self._options = options
        self._case = (SMALL if self._options.pop("small") else CASES)[flow]

    def load(self):
        import importlib

        module = importlib.import_module(f"flows.{self._module}")
        try:
            self._solve = module.prepare(self._case, **self._options)
        except ModuleNotFoundError as error:
            return {"missing": error.name}
        return {"label": f"{module.LABEL} {self._options['method']}", "versions": _versions()}

    def check(self):
        from flows.cases import ALLOWED, CHECKED

        return {"error": self._case.error(self._solve(min(CHECKED, self._case.batch))), "allowed": ALLOWED}

    def calibrate(self, seconds, probe_seconds):
        """Choose how many trajectories take `seconds`: all of them some times, or a part."""
        import probe
        from clock import timed

        self._probe_rounds = probe.rounds_for(probe_seconds)
        self._count, self._times = self._case.batch, 1
        if seconds:
            block = getattr(self._solve, "block", 1)
            some = block * math.ceil(max(1, self._case.batch // 100) / block)
            spent = timed(self._solve, some).cpu_seconds
            wanted = 1.2 * seconds * some / max(spent, 1e-6)
            if wanted > self._case.batch:
                spent = timed(self._solve, self._case.batch).cpu_seconds
                self._times = math.ceil(1.2 * seconds / spent)
            else:
                self._count = max(some, block * round(wanted / block))
        return {"steps": [self._count, self._times]}

    def turn(self):
        """Probe, all runs, probe; seconds are those of one trajectory."""
        import probe
        from clock import timed

        before = {"probes": probe.probe("float64", self._threads, self._probe_rounds)}
        run = timed(lambda: [self._solve(self._count) for _ in range(self._times)])
        after = {"probes": probe.probe("float64", self._threads, self._probe_rounds)}
        done = self._count * self._times
        return {
            **_rates(before, after),
            "wall": run.seconds / done,
            "cpu": run.cpu_seconds / done,
            "long_seconds": run.seconds,
            "share": run.share,
        }


def _rates(before, after):
    """What the probes reached before and after, by both clocks."""
    return {
        name: [
            {"wall": limits[name].giga, "cpu": limits[name].giga / limits[name].span.share}
            for limits in (before, after)
        ]
        for name in before
    }


def _take_memory():
    """Takes 128 MB and gives them back to the system.

    A virtual machine hands memory that nobody uses for some seconds to its host, and waits when it takes it again: 2 ms
    a MB were seen, which the method whose turn it was would have paid for its records.
    """
    import numpy as np

    np.ones(2**24)


def _versions():
    from importlib import metadata

    names = ("numpy", "torch", "numba", "jax", "scipy", "diffrax", "heyoka", "numbalsoda")
    used = {name: metadata.version(name) for name in names if name in sys.modules}
    if "pydln" in sys.modules:
        from pydln._base import backend

        used |= {"pydln": backend.version(), "pydln's instruction set": backend.isa()}
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return used
    # NumPy, SciPy and PyTorch may each bring one.
    blas = (p for p in threadpool_info() if p["user_api"] == "blas")
    return used | {f"BLAS {p['prefix']} {p['version']}": f"for {p['architecture']}" for p in blas}


def main():
    settings = json.loads(sys.argv[1])
    cores = settings.pop("cores")
    os.sched_setaffinity(0, cores)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    kind = Session if "workload" in settings else Solver if "flow" in settings else Programs
    session = kind(threads=len(cores), **settings)
    for line in sys.stdin:
        request = json.loads(line)
        what = request.pop("do")
        if what == "turn":
            _take_memory()
        print(json.dumps(getattr(session, what)(**request)), file=replies, flush=True)


if __name__ == "__main__":
    main()
