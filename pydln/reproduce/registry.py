"""Which figures there are. A new one is a module with TITLE and run(), and its name here."""

from __future__ import annotations

import importlib
import inspect
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from pydln._base import atomic, backend, validate
from pydln.reproduce.page import write_page
from pydln.reproduce.record import Record, Request
from pydln.reproduce.report import Progress, Report, blas_threads

__all__ = ["FIGURES", "reproduce", "takes", "title"]

FIGURES = ("fig2", "fig3", "fig4", "fig5", "fig6a", "fig6b", "fig6c", "fig7", "fig8")
"""Names of the figures, in the paper's order; each is a module of this package."""


def title(name: str) -> str:
    """One line saying what the figure shows."""
    text: str = _module(name).TITLE
    return text


def takes(name: str) -> tuple[str, ...]:
    """Names of the options that the figure takes beside those of `reproduce`."""
    common = inspect.signature(reproduce).parameters
    return tuple(option for option in inspect.signature(_module(name).run).parameters if option not in common)


def reproduce(
    name: str,
    out_dir: str | os.PathLike[str],
    *,
    full: bool = False,
    seed: int = 0,
    keep: bool = False,
    progress: Progress | None = None,
    n_threads: int | None = None,
    **options: Any,
) -> Report:
    """Make a figure of the paper, with its numbers and its table of theory against measurement.

    The directory's ``index.html`` then shows all the figures that are there.

    Parameters
    ----------
    name : str
        One of `FIGURES`.
    out_dir : path
        Directory for the files, made if it is not there; files of an earlier run are replaced. Another run that makes
        the same figure there is waited for.
    full : bool
        The paper's own sizes instead of quick ones.
    seed : int
        Of everything drawn at random.
    keep : bool
        Take the figure that an earlier run left in `out_dir`, if it was made by this version with the same `full`,
        `seed` and options.
    progress : callable, optional
        Called as ``progress(done, total, what)``.
    n_threads : int, optional
        Threads for the simulations; the results do not depend on it.
    **options
        What the figure's own ``run`` takes beside these.

    Returns
    -------
    Report

    Raises
    ------
    ValueError, TypeError
        No such figure or option.
    MissingExtra
        matplotlib is not installed.
    """
    run = _module(name).run
    backend.threads(n_threads)
    full, keep = validate.flag(full, "full"), validate.flag(keep, "keep")
    known = takes(name)
    for option in options:
        if option not in known:
            raise TypeError(f"{option}: {name} does not take it; its own options are {', '.join(known) or 'none'}")
    request = Request(name, full, validate.integer(seed, "seed", at_least=0), options, backend.version())
    folder = Path(out_dir)
    if not atomic.may_be_folder(folder):
        raise ValueError(f"out_dir: expected a directory, got the file {folder}")

    def waiting() -> None:
        if progress:
            progress(0, 1, f"waiting for another run that makes {name} in {folder}")

    with atomic.locked(folder / f".{name}.lock", waiting):
        atomic.remove_orphans(folder)
        found = Record.load(folder, name) if keep else None
        if found is not None and found.request == request:
            report = found.report
        else:
            began = time.perf_counter()
            # Threads of BLAS make small matrices slower: fig7 20 times where another program had one of two processors.
            with blas_threads(n_threads if full else 1):
                report = run(folder, full=full, seed=seed, progress=progress, n_threads=n_threads, **options)
            about = inspect.getdoc(_module(name)) or ""
            Record(request, report, time.perf_counter() - began, about).save(folder)
    write_page(folder, FIGURES)
    return report


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"pydln.reproduce.{validate.choice(name, 'name', FIGURES)}")
