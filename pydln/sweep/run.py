"""Running a run file: the grid becomes parts, a part is one call of `pydln.gradient_descent`, its batch the rest."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln import exact
from pydln._base import backend, validate
from pydln.errors import Interrupted, NotApplicable
from pydln.simulate.descent import gradient_descent
from pydln.simulate.stop import Stop
from pydln.sweep.config import Grid, RunFile
from pydln.sweep.quick_look import quick_look
from pydln.sweep.starts import start_weights
from pydln.sweep.store import Store, opened
from pydln.task.task import Task
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory
from pydln.weights import Weights

__all__ = ["SweepPart", "SweepResult", "expand", "run_sweep"]

Progress = Callable[[float, int, str], object]

# `gradient_descent` records at about 200 steps unless told, at most this many.
_MOST_DEFAULT_TIMES = 400

_BYTES_OF_LAYER = 500  # of a start's list of arrays
_BYTES_OF_ROW = 2000  # of a dictionary of sixteen entries


@dataclass(frozen=True)
class SweepPart:
    """One depth and width of a grid; width is None where the start chooses it or there is no hidden layer."""

    depth: int
    width: int | None

    @property
    def stem(self) -> str:
        """Stem of its files."""
        return f"depth-{self.depth}" + ("" if self.width is None else f"_width-{self.width}")

    def __str__(self) -> str:
        return f"depth {self.depth}" + ("" if self.width is None else f", width {self.width}")


@dataclass(frozen=True)
class SweepResult:
    """What `run_sweep` did.

    Attributes
    ----------
    rows : list of dict
        One per member, in the order of the grid: the columns of the table.
    table : Path
        The same as CSV.
    picture : Path or None
        The quick look, if matplotlib is installed and the loss was recorded.
    skipped : int
        How many parts an earlier run had finished.
    """

    rows: list[dict[str, Any]]
    table: Path
    picture: Path | None
    skipped: int


def expand(grid: Grid) -> tuple[SweepPart, ...]:
    """The parts of a grid, depth first. A network of depth 1 has no hidden width, so it is one part."""
    parts = (SweepPart(depth, None if depth == 1 else width) for depth in grid.depth for width in grid.width)
    return tuple(dict.fromkeys(parts))


def _columns(grid: Grid) -> list[str]:
    outcome = ["status", "stopped_step", "loss", "test_loss", "theory", "theory_gap", "file"]
    return ["part", "member", "depth", "width", *grid.members, *outcome]


def _fingerprint(file: RunFile, part: SweepPart) -> str:
    grid = file.grid
    everything = (backend.version(), file.inputs, part, grid.members)
    return hashlib.sha256(repr(everything).encode()).hexdigest()


def _settings(file: RunFile) -> dict[str, Any]:
    """The arguments of `gradient_descent` that all parts share."""
    grid = file.grid
    members = len(grid.size) * len(grid.seeds)
    lr: Any = grid.lr[0] if len(grid.lr) == 1 else np.repeat(grid.lr, members)
    return {**file.run, "lr": lr, "stop": Stop(**file.stop) if file.stop else None}


def _weights(file: RunFile, part: SweepPart) -> Weights:
    """The members of a part: the starts of size x seed, once for every learning rate."""
    grid = file.grid
    starts = start_weights(file, part.depth, part.width, itertools.product(grid.size, grid.seeds))
    return starts if len(grid.lr) == 1 else starts[np.tile(np.arange(starts.batch), len(grid.lr))]


def _times(run: Mapping[str, Any]) -> int:
    if "at" in run:
        return len(run["at"])
    if "record_every" in run:
        return int(run["steps"] // run["record_every"] + 2)
    return int(min(run["steps"] + 1, _MOST_DEFAULT_TIMES))


def _bytes_of_member(task: Task, part: SweepPart) -> int:
    """What a member of a part takes, apart from its records; without a list of its layers, which may be too many."""
    hidden = part.width or min(task.n_in, task.n_out)
    inner = hidden * (task.n_in + task.n_out) + (part.depth - 2) * hidden**2
    weights = task.n_in * task.n_out if part.depth == 1 else inner
    # The starts, their copies for every lr, and the weights that move; Python's own of each layer; a line of the table.
    return 3 * 8 * weights + _BYTES_OF_LAYER * part.depth + _BYTES_OF_ROW


def _check(file: RunFile, parts: Iterable[SweepPart]) -> None:
    """Refuse what cannot run, by running every part of it with its first start for no step."""
    grid = file.grid
    steps = file.run["steps"]
    if max(file.run.get("at", [0])) > steps:
        raise file.source.mistake(
            ("run", "at"), f"run.at: expected steps up to run.steps = {steps}, got {max(file.run['at'])}"
        )
    members = math.prod(map(len, grid.members.values()))
    extremes = sorted({grid.size[0], min(grid.size), max(grid.size)})
    rates = np.unique([min(grid.lr), max(grid.lr)])
    for part in parts:
        own = members * _bytes_of_member(file.task, part)
        with file.source.blame(("grid",)):
            key = "depth" if part.width is None or part.depth > part.width else "width"
            validate.fits_in_memory(own, f"{key}: training {members} members of {part}", "split the grid")
            weights = start_weights(file, part.depth, part.width, [(size, grid.seeds[0]) for size in extremes])[:1]
        with file.source.blame(("run",)):
            small = {**file.run, "stop": Stop(**file.stop) if file.stop else None, "steps": 0}
            for key in ("at", "record_every"):
                small.pop(key, None)
            run = gradient_descent(file.task, weights, **small, lr=rates, throw=False)
            records = [run.weights if name == "weights" else (getattr(run, name),) for name in run.names]
            recorded = sum(a.nbytes for arrays in records for a in arrays) // run.batch
            validate.fits_in_memory(
                own + members * recorded * _times(file.run),
                f"record: {', '.join(run.names)} of the {members} members of {part} at {_times(file.run)} times",
                "record less often or fewer names, or split the grid",
            )


def _rows(file: RunFile, part: SweepPart, run: Trajectory, saved: Path) -> list[dict[str, Any]]:
    def losses(task: Task | None) -> list[float | None]:
        found: list[float | None] = [None] * run.batch
        if task is not None and run.final is not None:
            with np.errstate(all="ignore"):  # members that diverged
                product = run.final.product()
                for i in np.flatnonzero(np.isfinite(product).all(axis=(1, 2))):
                    loss = float(task.loss(product[i]))
                    found[i] = loss if math.isfinite(loss) else None
        return found

    loss, test_loss = losses(file.task), losses(file.task.test)
    return [
        {
            "part": part.stem,
            "member": i,
            "depth": part.depth,
            "width": run.settings["widths"][1] if part.depth > 1 else None,
            **axes,
            "status": Status(int(run.status[i])).name.lower(),
            "stopped_step": int(np.asarray(run.stopped_step)[i]),
            "loss": loss[i],
            "test_loss": test_loss[i],
            "theory": None,
            "theory_gap": None,
            "file": saved.name,
        }
        for i, axes in enumerate(file.grid.each_member())
    ]


def _compare(
    file: RunFile, weights: Weights, run: Trajectory, rows: list[dict[str, Any]], saved: Path
) -> dict[Path, Trajectory]:
    """The exact solution at the times of `run`, where there is one; each row says how far away it is, or why not."""
    reason = next((f"{name} = {file.run[name]:g}" for name in ("momentum", "weight_decay") if file.run.get(name)), None)
    theory = None
    if reason is None:
        try:
            theory = exact.solve(file.task, weights).evaluate(run.t, throw=False)
        except NotApplicable as why:
            reason = str(why)
    if theory is None:
        for row in rows:
            row["theory"] = f"none: {reason}"
        return {}
    for row, gap in zip(rows, _gaps(run, theory, float(np.abs(file.task.modes.s).max()) or 1.0), strict=True):
        row["theory"], row["theory_gap"] = theory.source, float(gap)
    return {saved: theory}


def _gaps(run: Trajectory, theory: Trajectory, size: float) -> NDArray[np.float64]:
    """The largest distance of each member from theory up to where it stopped, in units of `size`.

    Infinite for a member that diverged, wherever its records end, and where either has no number to compare.
    """

    with np.errstate(all="ignore"):
        distance = np.abs(run.strengths - theory.strengths).max(axis=2) / size
    reached = run.t <= run.stopped_time[:, None]
    distance = np.where(reached, np.where(np.isfinite(distance), distance, np.inf), 0.0)
    return np.where(run.status == Status.DIVERGED, np.inf, distance.max(axis=1))


def run_sweep(
    file: RunFile,
    *,
    out: str | PathLike[str] | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """Run every member of a run file and save each part as soon as it is finished.

    A part is one depth and width; its members, lr x scale (or strength) x seed with the seed fastest, are one batch.
    Parts that an earlier call finished in the same folder are not run again, provided the settings, the data files and
    the version of pydln are the same. Members that diverge are in the table with that status. A run waits while another
    one writes into the same folder.

    Parameters
    ----------
    file : RunFile
        From `read_run_file`.
    out : path, optional
        Folder for the results; that of the run file by default.
    n_threads : int, optional
        Threads for each part; all cores by default. The numbers do not depend on it.
    progress : callable, optional
        Called as ``progress(done, total, part)`` now and then, in parts; the one that is running counts by its steps.

    Returns
    -------
    SweepResult

    Raises
    ------
    ValueError
        A start or a setting that does not fit one of the parts, with its line; before any part is run.
    FileDamaged
        The folder holds something else under the name of the index.
    Interrupted
        Ctrl-C. Finished parts are on disk, and what the running one got to is beside them as ``.partial.npz``.
    """
    n_threads = backend.threads(n_threads)
    parts = expand(file.grid)
    _check(file, parts)
    folder = Path(file.out if out is None else out)

    def waiting() -> None:
        if progress:
            progress(0, len(parts), f"waiting for another run in {folder}")

    with opened(folder, file.name, waiting) as store:
        return _run(file, parts, store, n_threads, progress)


def _run(
    file: RunFile, parts: tuple[SweepPart, ...], store: Store, n_threads: int, progress: Progress | None
) -> SweepResult:
    """Runs what the store does not have."""
    grid = file.grid
    rows: list[dict[str, Any]] = []
    skipped = tabled = 0  # parts; rows that are in the table
    for done, part in enumerate(parts):
        fingerprint = _fingerprint(file, part)
        found = store.rows(part.stem, fingerprint)
        if found is not None:
            skipped += 1
            rows += found
            continue

        def tick(steps: int, of: int, done: int = done, part: SweepPart = part) -> None:
            if progress:
                progress(done + steps / of, len(parts), str(part))

        tick(0, 1)
        weights = _weights(file, part)
        try:
            run = gradient_descent(
                file.task, weights, **_settings(file), n_threads=n_threads, throw=False, progress=tick
            )
        except Interrupted as stop:
            saved = store.keep_partial(part.stem, stop.trajectory)
            rows += _rows(file, part, stop.trajectory, saved)
            store.write_table(rows, _columns(grid))
            raise Interrupted(
                f"interrupted at {part}: {done} of {len(parts)} parts are complete in {store.folder}, "
                f"and {saved.name} holds what this one got to; the same command goes on from there",
                stop.trajectory,
            ) from None
        files = {store.file(part.stem): run}
        mine = _rows(file, part, run, store.file(part.stem))
        if file.theory:
            files |= _compare(file, weights, run, mine, store.file(part.stem, ".theory"))
        store.keep(part.stem, fingerprint, mine, files, file.text)
        rows += mine
        store.write_table(rows[tabled:], _columns(grid), more=tabled > 0)
        tabled = len(rows)
    store.write_table(rows, _columns(grid))
    picture = store.folder / f"{file.name}.png"
    axis = next((name for name, values in grid.members.items() if len(values) > 1), "lr")
    by_part = {stem: list(members) for stem, members in itertools.groupby(rows, key=lambda row: row["part"])}
    panels = [(str(part), store.file(part.stem), by_part[part.stem]) for part in parts]
    drawn = quick_look(panels, axis, picture)
    return SweepResult(rows, store.table, picture if drawn else None, skipped)
