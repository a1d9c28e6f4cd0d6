"""Makes a figure: its arguments checked, its recipe followed, its files, its record and the page of all written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pydln._base import atomic, backend, validate
from pydln.reproduce import catalogue
from pydln.reproduce.blas import blas_threads
from pydln.reproduce.page import write_page
from pydln.reproduce.picture import blank
from pydln.reproduce.recipe import Job, Progress, Recipe
from pydln.reproduce.record import Record, Request
from pydln.reproduce.report import Report, write

__all__ = ["reproduce"]


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
        The figure's own, which `pydln.reproduce.options` tells; None stands for what is taken if one is not given.

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
    recipe = catalogue.recipe(name)
    backend.threads(n_threads)
    full, keep = validate.flag(full, "full"), validate.flag(keep, "keep")
    for option in options:
        if option not in recipe.options:
            known = ", ".join(recipe.options) or "none"
            raise TypeError(f"{option}: {name} does not take it; its own options are {known}")
    seed = validate.integer(seed, "seed", at_least=0)
    own = {key: one.value(options.get(key), key, full) for key, one in recipe.options.items()}
    request = Request(name, full, seed, options, backend.version())
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
            told = _Told(progress)
            # Threads of BLAS make small matrices slower: fig7 20 times where another program had one of two processors.
            with blas_threads(n_threads if full else 1):
                report = _make(name, recipe, folder, Job(full, seed, n_threads, told, own), told.end)
            Record(request, report, time.perf_counter() - began, catalogue.about(name)).save(folder)
    write_page(folder)
    return report


def _make(name: str, recipe: Recipe, folder: Path, job: Job, done: Callable[[], None]) -> Report:
    figure = blank(*recipe.inches)
    numbers = {key: np.asarray(value) for key, value in recipe.compute(job, **job.own).items()}
    checks = recipe.check(numbers)
    kept = recipe.kept(numbers)
    recipe.draw(figure, kept)
    common = {"full": job.full, "seed": job.seed} if recipe.random else {"full": job.full}
    settings = {**common, **recipe.settings(job, numbers)}
    done()
    return write(folder, name, recipe.title, figure=figure, numbers=kept, checks=checks, settings=settings)


class _Told:
    """What a figure tells of its progress, and that it is done."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.total: int | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        self.total = total
        if self.progress:
            self.progress(done, total, what)

    def end(self) -> None:
        total = 1 if self.total is None else self.total
        if self.total is None:  # it had no parts to tell of
            self(0, total, "done")
        self(total, total, "done")
