"""Run files: a TOML text becomes a checked `RunFile`, or one sentence with the line and the key."""

from __future__ import annotations

import hashlib
import itertools
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from pydln._base import archives, validate
from pydln.sweep.schema import GRIDS, OUTPUT, RUN, STARTS, STOP, TABLES, TASKS
from pydln.sweep.source import Source
from pydln.task.task import Task

__all__ = ["Grid", "RunFile", "read_run_file"]

_LARGEST = 2**24  # bytes of a run file
_MOST_PARTS = 100_000


@dataclass(frozen=True)
class Grid:
    """The axes of a sweep; its parts are depth x width, the members of each part lr x size x seed."""

    depth: tuple[int, ...]
    width: tuple[int | None, ...]
    lr: tuple[float, ...]
    size: tuple[float, ...]
    size_name: str
    seeds: tuple[int, ...]

    @property
    def members(self) -> dict[str, tuple[Any, ...]]:
        """The axes that run over the members of a part, the last one fastest."""
        return {"lr": self.lr, self.size_name: self.size, "seed": self.seeds}

    def each_member(self) -> Iterator[dict[str, Any]]:
        """Where each member of a part stands on these axes."""
        for values in itertools.product(*self.members.values()):
            yield dict(zip(self.members, values, strict=True))


@dataclass(frozen=True)
class RunFile:
    """A run file that passed every check.

    Attributes
    ----------
    path : Path
        The file as it was named.
    text : str
        Its text.
    name : str
        Stem of the files written.
    out : Path
        Folder for the results.
    task : Task
        The task of all runs.
    start : dict
        ``kind`` and the arguments of the start that are not on the grid.
    grid : Grid
        The axes of the sweep.
    run : dict
        Arguments of `pydln.gradient_descent` that are not on the grid.
    stop : dict
        Arguments of `pydln.Stop`.
    theory : bool
        Evaluate the exact solution beside each run.
    inputs : str
        SHA-256 of everything that fixes the numbers apart from the grid: settings and data files.
    """

    path: Path
    text: str
    name: str
    out: Path
    task: Task
    start: dict[str, Any]
    grid: Grid
    run: dict[str, Any]
    stop: dict[str, Any]
    theory: bool
    inputs: str
    source: Source = field(repr=False)


def _arrays(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Named arrays of an npz file; ValueError in one sentence when it is not what is needed."""
    try:
        with path.open("rb") as opened:
            if opened.read(6) == np.lib.format.MAGIC_PREFIX:
                raise ValueError("a single array")
            with zipfile.ZipFile(opened) as archive:
                size = archives.unpacked_size(archive, opened.seek(0, os.SEEK_END))
            validate.fits_in_memory(size, f"{path.name}: unpacking it", "keep the second moments instead")
            opened.seek(0)
            file = np.load(opened, allow_pickle=False)
            arrays = {name: file[name] for name in (*required, *optional) if name in file.files}
            there = ", ".join(file.files)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, archives.UnsoundError) as error:
        raise ValueError(f"expected an .npz file of numbers, got {path.name} ({error})") from None
    if not arrays.keys() >= set(required):
        raise ValueError(f"expected arrays {', '.join(required)} in {path.name}, got {there or 'none'}")
    return arrays


def _task(source: Source, folder: Path) -> tuple[Task, list[Path]]:
    """The task, and the files it was read from."""
    kind = source.kind("task", TASKS)
    given = source.read(("task",), TASKS[kind], kind)
    if kind not in ("data", "covariances"):
        makers: dict[str, Callable[..., Task]] = {
            "mnist": Task.mnist,
            "hierarchy": Task.hierarchy,
            "spectrum": Task.from_spectrum,
            "teacher": Task.teacher,
        }
        with source.blame(("task",)):
            return makers[kind](**given), []
    path = folder / given.pop("path")
    with source.blame(("task",), "path"):
        if kind == "data":
            return Task.from_data(**_arrays(path, ("X", "Y"), ("X_test", "Y_test")), **given), [path]
        whitened = given.pop("whitened", False)
        found = _arrays(path, ("sigma_yx", "trace_yy") if whitened else ("sigma_xx", "sigma_yx", "trace_yy"))
        task = Task.from_covariances(found.get("sigma_xx"), found["sigma_yx"], found["trace_yy"], **given)
        if task.batch is not None:
            raise ValueError(f"expected the covariances of one task, got a batch of {task.batch}")
        return task, [path]


def _start(source: Source, folder: Path) -> tuple[dict[str, Any], list[Path]]:
    kind = source.kind("start", STARTS)
    start = {"kind": kind, **source.read(("start",), STARTS[kind], kind)}
    if kind != "balanced":
        return start, []
    if ("product" in start) == ("path" in start):
        raise source.mistake(("start",), "start: a balanced start needs either product or path")
    if "product" in start:
        return start, []
    path = folder / start.pop("path")
    with source.blame(("start",), "path"):
        start["product"] = validate.array(_arrays(path, ("product",))["product"], "product", shape=("n_D", "n_0"))
    return start, [path]


def _grid(source: Source, start: str) -> Grid:
    size_name = "strength" if start == "aligned" else "scale"
    if "grid" not in source.document:
        raise source.mistake(("grid",), "grid: missing; a run file needs a table [grid]")
    given = source.read(("grid",), GRIDS[size_name])
    if start == "identity" and len(given.get("seeds", (0,))) > 1:
        raise source.mistake(("grid", "seeds"), "grid.seeds: expected one seed, as an identity start draws nothing")
    needs_width = start not in ("aligned", "balanced") and max(given["depth"]) > 1
    if needs_width and "width" not in given:
        raise source.mistake(("grid",), f"grid.width: missing; a start of kind {start!r} needs the hidden width")
    count = len(given["depth"]) * len(given.get("width", (None,)))
    if count > _MOST_PARTS:
        raise source.mistake(("grid",), f"grid: expected at most {_MOST_PARTS} pairs of depth and width, got {count}")
    return Grid(
        depth=given["depth"],
        width=given.get("width", (None,)),
        lr=given["lr"],
        size=given.get(size_name, (1.0,)),
        size_name=size_name,
        seeds=given.get("seeds", (0,)),
    )


def _run(source: Source) -> tuple[dict[str, Any], dict[str, Any], bool]:
    if "run" not in source.document:
        raise source.mistake(("run",), "run: missing; a run file needs a table [run]")
    run = source.read(("run",), RUN)
    if "at" in run and "record_every" in run:
        raise source.mistake(("run", "at"), "run.at: expected either at or record_every, got both")
    if run.get("theory") and "strengths" not in run.get("record", ("strengths",)):
        raise source.mistake(("run", "theory"), "run.theory: expected strengths in run.record to compare with")
    run.pop("stop", None)
    return run, source.read(("run", "stop"), STOP), run.pop("theory", False)


def _text(path: Path) -> str:
    """The text of a file, at most so much of it that a run file can have; Windows' mark of UTF-8 is no part of it."""
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"{path}: expected a run file of at most {_LARGEST >> 20} MB, got a larger file")
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def read_run_file(path: str | PathLike[str]) -> RunFile:
    """Read a run file, check all of it and build its task.

    Parameters
    ----------
    path : path
        A TOML file, see docs/run-file.md.

    Returns
    -------
    RunFile

    Raises
    ------
    ValueError
        Anything wrong with it, as ``sweep.toml:12: grid.lr: expected numbers > 0, got -0.1``.
    """
    path = Path(path)
    try:
        text = _text(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: expected a run file, got a folder") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, got a byte {error.object[error.start]:#04x}") from None
    source = Source(str(path), text)
    for key in source.document:
        if key not in TABLES:
            raise source.unknown((key,), TABLES)
    # The cheap tables first: a slip in [run] is found before a task is built.
    start, start_files = _start(source, path.parent)
    grid = _grid(source, start["kind"])
    run, stop, theory = _run(source)
    output = source.read(("output",), OUTPUT)
    task, task_files = _task(source, path.parent)
    inputs = hashlib.sha256(repr([source.document[table] for table in ("task", "start", "run")]).encode())
    for file in (*task_files, *start_files):
        inputs.update(hashlib.sha256(file.read_bytes()).digest())
    name = output.get("name", path.stem)
    return RunFile(
        path=path,
        text=text,
        name=name,
        out=Path(output.get("dir", f"{name}-results")),
        task=task,
        start=start,
        grid=grid,
        run=run,
        stop=stop,
        theory=theory,
        inputs=inputs.hexdigest(),
        source=source,
    )
