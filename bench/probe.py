"""The limits of the machine: loops in C++ (probe.cpp) of multiply-adds and over memory, compiled when first needed."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clock import Span, timed

SOURCE = Path(__file__).with_name("probe.cpp")
CACHE = Path(__file__).with_name(".cache")
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread")


@dataclass(frozen=True)
class Rate:
    """What a probe reached on some threads, all of them together."""

    giga: float  # GFLOP/s, or GB/s
    span: Span


def probe(dtype: str, threads: int, rounds: int) -> Rate:
    """Multiply-adds of `dtype` for `rounds` turns of the loop, on threads that share the cores of this process."""
    done = 0.0

    def work() -> None:
        nonlocal done
        done = _library().probe_multiply_adds(rounds, dtype == "float32", threads)

    span = timed(work)
    return Rate(done / span.seconds * 1e-9, span)


def memory(kind: str) -> Rate:
    """GB/s of one thread with an array that no cache holds.

    Parameters
    ----------
    kind : "read", or "update": the traffic of a step of training, two reads and one write of the weights
    """
    passes = {"read": _library().probe_read, "update": _library().probe_update}[kind]
    _library().probe_allocate()
    done = 0.0

    def work() -> None:
        nonlocal done
        done = passes(1)

    span = timed(work)
    return Rate(done / span.seconds * 1e-9, span)


def rounds_for(seconds: float) -> int:
    """Turns of the loop that take about this long on one thread."""
    few = 200_000
    return max(
        1, round(few * seconds / min(timed(_library().probe_multiply_adds, few, 0, 1).cpu_seconds for _ in range(5)))
    )


def isa() -> str:
    """The instruction set whose multiply-adds are counted."""
    return str(_library().probe_isa().decode())


def clock_ghz() -> float:
    """The clock at which the core runs now, by additions that depend on each other; the best of a few tries."""
    count = 100_000_000
    return count / min(timed(_library().probe_cycles, count).cpu_seconds for _ in range(5)) * 1e-9


@cache
def _library() -> ctypes.CDLL:
    source = SOURCE.read_bytes()
    name = f"probe-{hashlib.sha256(source + ' '.join(FLAGS).encode()).hexdigest()[:16]}.so"
    built = CACHE / name
    if not built.exists():
        CACHE.mkdir(exist_ok=True)
        part = CACHE / f"{name}.{os.getpid()}"
        compiler = os.environ.get("CXX", "g++")
        subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", str(part)], check=True)
        part.replace(built)
    library = ctypes.CDLL(str(built))
    library.probe_isa.restype = ctypes.c_char_p
    library.probe_multiply_adds.argtypes = (ctypes.c_int64, ctypes.c_int, ctypes.c_int)
    library.probe_multiply_adds.restype = ctypes.c_double
    library.probe_allocate.argtypes = ()
    library.probe_allocate.restype = None
    for passes in (library.probe_read, library.probe_update):
        passes.argtypes = (ctypes.c_int64,)
        passes.restype = ctypes.c_double
    library.probe_cycles.argtypes = (ctypes.c_int64,)
    library.probe_cycles.restype = None
    return library
