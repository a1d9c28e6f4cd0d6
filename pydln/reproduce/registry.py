"""Which figures there are. A new one is a module with TITLE and run(), and its name here."""

from __future__ import annotations

import importlib
import inspect
import os
from types import ModuleType
from typing import Any

from pydln import _validate
from pydln.reproduce.report import Progress, Report

__all__ = ["FIGURES", "reproduce", "takes", "title"]

FIGURES = ("fig3", "fig4", "fig6b", "fig6c")
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
    progress: Progress | None = None,
    n_threads: int | None = None,
    **options: Any,
) -> Report:
    """Make a figure of the paper, with its numbers and its table of theory against measurement.

    Parameters
    ----------
    name : str
        One of `FIGURES`.
    out_dir : path
        Directory for the files, made if it is not there; files of an earlier run are replaced.
    full : bool
        The paper's own sizes instead of quick ones.
    seed : int
        Of everything drawn at random.
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
    known = takes(name)
    for option in options:
        if option not in known:
            raise TypeError(f"{option}: {name} does not take it; its own options are {', '.join(known)}")
    report: Report = run(out_dir, full=full, seed=seed, progress=progress, n_threads=n_threads, **options)
    return report


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"pydln.reproduce.{_validate.choice(name, 'name', FIGURES)}")
