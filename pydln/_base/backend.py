"""The only importer of the compiled extension: which instruction set runs, on how many threads."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import NamedTuple

from pydln._base import validate
from pydln.errors import BackendUnavailable

__all__ = ["available_isas", "build_info", "core", "default_threads", "forced", "isa", "layout", "threads", "version"]

HOW_TO_COMPILE_IT = "install on this computer, or with pip install -C cmake.define.PYDLN_KERNELS=all"

try:
    import pydln._core as core
except ImportError as error:
    raise BackendUnavailable(
        f"pydln's compiled extension cannot be loaded ({error}): "
        "install pydln with pip, or run from outside its source tree"
    ) from error


def available_isas() -> tuple[str, ...]:
    """Instruction sets compiled in that this computer can run, the fastest last."""
    try:
        return tuple(core.usable_isas())
    except RuntimeError as error:
        raise BackendUnavailable(f"pydln cannot run here: {error}") from None


@cache
def _choose_isa() -> str:
    usable = available_isas()
    asked = os.environ.get("PYDLN_ISA", "")
    if not asked:
        return usable[-1]
    if asked not in usable:
        raise BackendUnavailable(f"PYDLN_ISA: expected one of {', '.join(usable)} on this computer, got {asked!r}")
    return asked


_MOST_THREADS = 2**31 - 1  # an int of the kernels; how many there are is for the work and the system to say


class _Choice(NamedTuple):
    isa: str
    layout: str


_AUTO = _Choice("", "auto")
_choice: ContextVar[_Choice] = ContextVar("pydln_backend", default=_AUTO)


def isa() -> str:
    """The instruction set in use: the fastest, or what the environment variable PYDLN_ISA says when first asked."""
    return _choice.get().isa or _choose_isa()


def layout() -> str:
    """The memory layout in use: ``auto`` unless forced."""
    return _choice.get().layout


@contextmanager
def forced(*, isa: str | None = None, layout: str | None = None) -> Iterator[None]:
    """Run the calls inside on one instruction set and in one layout; for tests and measurements."""
    now = _choice.get()
    if isa is not None:
        validate.choice(isa, "isa", available_isas())
    if layout is not None:
        validate.choice(layout, "layout", ("auto", "interleaved", "rows"))
    token = _choice.set(_Choice(isa or now.isa, layout or now.layout))
    try:
        yield
    finally:
        _choice.reset(token)


def default_threads() -> int:
    """Threads a call uses unless told: PYDLN_NUM_THREADS, or the processors this process may run on."""
    asked = os.environ.get("PYDLN_NUM_THREADS", "")
    if asked:
        try:
            count = int(asked)
        except ValueError:
            count = 0
        if not 1 <= count <= _MOST_THREADS:
            bound = f"<= {_MOST_THREADS}" if count > 1 else ">= 1"
            raise ValueError(f"PYDLN_NUM_THREADS: expected an integer {bound}, got {asked!r}")
        return count
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads(n_threads: int | None) -> int:
    """The argument `n_threads` of a public function: `default_threads` for None."""
    if n_threads is None:
        return default_threads()
    return validate.integer(n_threads, "n_threads", at_least=1, at_most=_MOST_THREADS)


def version() -> str:
    """Version of pydln, as the extension was built."""
    return str(core.build["version"])


def build_info() -> dict[str, str]:
    """How the extension was made and what it runs on."""
    built = {str(key): str(value) for key, value in core.build.items()}
    compiled, best = built.pop("instruction_sets"), core.best_isa()
    left_out = {} if best in compiled.split(", ") else {"faster here, not compiled": f"{best}: {HOW_TO_COMPILE_IT}"}
    return {
        **built,
        "instruction sets compiled": compiled,
        "instruction set": isa(),
        "instruction sets usable": ", ".join(available_isas()),
        **left_out,
        "threads": str(default_threads()),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
