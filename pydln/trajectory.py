"""What a simulation and an exact solution both return: recorded quantities over time, for every member."""

from __future__ import annotations

import html
import itertools
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydln import _archives, _files, _validate
from pydln.errors import FileDamaged, MissingExtra, NotRecorded
from pydln.weights import MemberIndex, Weights, member_index

if TYPE_CHECKING:
    import xarray

__all__ = ["QUANTITIES", "Status", "Trajectory"]

FORMAT = "pydln.Trajectory"
FORMAT_VERSION = 1

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


class Status(IntEnum):
    """How a member's run ended; the kernels use the same numbers."""

    COMPLETED = 0
    REACHED_LOSS = 1
    REACHED_STRENGTH = 2
    STEADY = 3
    DIVERGED = 4
    INTERRUPTED = 5
    STEP_LIMIT = 6
    STIFF = 7

    @property
    def meaning(self) -> str:
        """One clause saying what happened."""
        return _MEANINGS[self]


_MEANINGS = {
    Status.COMPLETED: "ran to the end",
    Status.REACHED_LOSS: "stopped at the loss asked for",
    Status.REACHED_STRENGTH: "stopped at the strengths asked for",
    Status.STEADY: "stopped because the weights no longer moved",
    Status.DIVERGED: "grew beyond what its numbers can hold",
    Status.INTERRUPTED: "was interrupted",
    Status.STEP_LIMIT: "took the most steps it was allowed",
    Status.STIFF: "took the most steps it was allowed, held back by stability",
}


class Quantity(NamedTuple):
    """A quantity that can be recorded: its axes after (batch, time), and what it is."""

    axes: tuple[str, ...]
    meaning: str


QUANTITIES: dict[str, Quantity] = {
    "loss": Quantity((), "training loss L = 1/2 <|y - Omega x|^2>"),
    "test_loss": Quantity((), "the same loss on the held-out covariances"),
    "strengths": Quantity(("mode",), "diag(U^T Omega V), signed"),
    "product": Quantity(("out", "in_"), "Omega = W_D ... W_1"),
    "layer_norms": Quantity(("layer",), "Frobenius norm of every layer"),
    "kernel_distance": Quantity((), "1 - <K, K(0)> / (|K| |K(0)|) of the tangent kernel K on the inputs"),
    "drift": Quantity(("interface",), "Frobenius norm of the change of W_{l+1}^T W_{l+1} - W_l W_l^T since the start"),
    "weights": Quantity((), "W_1 ... W_D"),
}
"""Every name that `record=` knows. ``weights`` is a tuple of D arrays, each (batch, time, n_l, n_{l-1})."""

_SUMMARISED = ("loss", "test_loss", "strengths", "kernel_distance", "drift")


class Trajectory:
    """Recorded quantities of `batch` networks over time.

    Simulations and exact solutions return the same object. Recorded quantities are attributes, ``run.loss``; asking for
    one that was not recorded raises `NotRecorded`.

    Parameters
    ----------
    t : array, (time,) or (batch, time)
        Times in units of τ = 1/lr; per member when the learning rate is.
    steps : array of int, (time,), or None
        Steps of gradient descent at which things were recorded; None for an exact solution.
    records : mapping
        Name to array, names and axes as in `QUANTITIES`: ``loss`` and ``test_loss`` (batch, time), ``strengths``
        (batch, time, mode), ``product`` (batch, time, n_D, n_0), ``layer_norms`` (batch, time, D), ``kernel_distance``
        (batch, time), ``drift`` (batch, time, D - 1), ``weights`` a sequence of D arrays (batch, time, n_l, n_{l-1}).
        The loss is normalised as the task's covariances are (averages or sums). Entries after a member stopped are NaN.
    status : array of int, (batch,)
        A `Status` for every member.
    stopped_at : array of int, (batch,)
        The step at which each member stopped, of gradient flow the number of steps of the integrator; -1 for exact
        solutions. Of a member that diverged, the first step that was looked at where something is not finite.
    final : Weights, optional
        The weights where each member ended.
    settings : mapping, optional
        What the run was made with: text, numbers, booleans, None, and lists and dictionaries of these. A NumPy array
        holds one entry per member along its first axis and follows the members when they are picked.
    source : str
        ``"gradient_descent"``, ``"train_nonlinear"``, ``"gradient_flow"``, ``"mode_flow"``, ``"end_to_end_flow"``,
        ``"singular_flow"``, or ``"exact:"`` and the name of the solution.
    reduced : mapping, optional
        Name of a reduction to a boolean array, (batch,): which members were run so. See `reduced`.

    Raises
    ------
    ValueError, TypeError
        Shapes, names or settings that do not fit together.

    Notes
    -----
    The arrays are taken over, not copied, and are read-only through the trajectory. Indexing picks members and keeps
    the batch axis.
    """

    t: NDArray[np.float64]
    steps: NDArray[np.int64] | None
    status: NDArray[np.int64]
    stopped_at: NDArray[np.int64]
    final: Weights | None
    settings: dict[str, Any]
    source: str
    loss: NDArray[Any]
    test_loss: NDArray[Any]
    strengths: NDArray[Any]
    product: NDArray[Any]
    layer_norms: NDArray[Any]
    kernel_distance: NDArray[Any]
    drift: NDArray[Any]
    weights: tuple[NDArray[Any], ...]

    def __init__(
        self,
        *,
        t: Any,
        steps: Any,
        records: Mapping[str, Any],
        status: Any,
        stopped_at: Any,
        final: Weights | None = None,
        settings: Mapping[str, Any] | None = None,
        source: str,
        reduced: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = _locked(status, "status", np.int64)
        if self.status.ndim != 1:
            raise ValueError(f"status: expected (batch,), got {self.status.shape}")
        batch = len(self.status)
        unknown = self.status[(self.status < min(Status)) | (self.status > max(Status))]
        if unknown.size:
            raise ValueError(f"status: expected values of Status, {min(Status)} ... {max(Status)}, got {unknown[0]}")
        self.stopped_at = _locked(stopped_at, "stopped_at", np.int64)
        _expect("stopped_at", self.stopped_at, (batch,))
        self.t = _locked(t, "t", np.float64)
        if self.t.ndim not in (1, 2) or (self.t.ndim == 2 and len(self.t) != batch):
            raise ValueError(f"t: expected (time,) or ({batch}, time), got {self.t.shape}")
        times = self.t.shape[-1]
        self.steps = None if steps is None else _locked(steps, "steps", np.int64)
        if self.steps is not None:
            _expect("steps", self.steps, (times,))
        self._records: dict[str, Any] = {}
        for name in _validate.names(tuple(records), "records", QUANTITIES):
            value = records[name]
            if name == "weights":
                self._records[name] = tuple(_locked(w, f"records['weights'][{place}]") for place, w in enumerate(value))
                for place, layer in enumerate(self._records[name]):
                    _expect(f"records['weights'][{place}]", layer, (batch, times, "n_out", "n_in"))
            else:
                self._records[name] = _locked(value, f"records[{name!r}]")
                _expect(f"records[{name!r}]", self._records[name], (batch, times, *QUANTITIES[name].axes))
        if final is not None and (not isinstance(final, Weights) or final.batch != batch):
            raise ValueError(f"final: expected Weights of {batch} members, got {_validate.short(final)}")
        self.final = final
        self.settings = _settings({} if settings is None else settings, batch)
        if not isinstance(source, str):
            raise TypeError(f"source: expected text, got {_validate.short(source)}")
        self.source = source
        self._reduced: dict[str, NDArray[np.bool_]] = {}
        for name, members in (reduced or {}).items():
            self._reduced[str(name)] = _locked(members, f"reduced[{name!r}]", np.bool_)
            _expect(f"reduced[{name!r}]", self._reduced[str(name)], (batch,))

    @property
    def reduced(self) -> tuple[tuple[str, ...], ...]:
        """For every member the names of the exact reductions it was run with; () if it was run as it is."""
        names, masks = tuple(self._reduced), tuple(self._reduced.values())
        if not names:
            return ((),) * self.batch
        rows = zip(*(mask.tolist() for mask in masks), strict=True)
        return tuple(tuple(name for name, on in zip(names, row, strict=True) if on) for row in rows)

    @property
    def batch(self) -> int:
        """The number of members."""
        return len(self.status)

    @property
    def names(self) -> tuple[str, ...]:
        """What was recorded, in the order of `QUANTITIES`."""
        return tuple(name for name in QUANTITIES if name in self._records)

    def __getattr__(self, name: str) -> Any:
        records: dict[str, Any] = self.__dict__.get("_records", {})
        if name in records:
            return records[name]
        if name in QUANTITIES:
            have = tuple(n for n in QUANTITIES if n in records)
            raise NotRecorded(
                f"{name} was not recorded (only {', '.join(have) or 'nothing'}): "
                f"run again with record={(*have, name)!r}"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        # The class annotations promise every quantity to type checkers; completion shows only what is there.
        return sorted({*(n for n in super().__dir__() if n not in QUANTITIES), *self._records})

    def __len__(self) -> int:
        return self.batch

    def __iter__(self) -> Iterator[Trajectory]:
        return (self[member] for member in range(self.batch))

    def __getitem__(self, index: MemberIndex) -> Trajectory:
        chosen = member_index(index, self.batch)
        return Trajectory(
            t=self.t if self.t.ndim == 1 else self.t[chosen],
            steps=self.steps,
            records={
                name: tuple(w[chosen] for w in value) if name == "weights" else value[chosen]
                for name, value in self._records.items()
            },
            status=self.status[chosen],
            stopped_at=self.stopped_at[chosen],
            final=None if self.final is None else self.final[chosen],
            settings={k: v[chosen] if isinstance(v, np.ndarray) else v for k, v in self.settings.items()},
            source=self.source,
            reduced={name: members[chosen] for name, members in self._reduced.items()},
        )

    def _parts(self) -> dict[str, Any]:
        """What the constructor takes."""
        given = ("t", "steps", "status", "stopped_at", "final", "settings", "source")
        return {name: getattr(self, name) for name in given} | {"records": self._records, "reduced": self._reduced}

    def _with(self, **changes: Any) -> Trajectory:
        """The same but for some of what it is made of."""
        return Trajectory(**(self._parts() | changes))

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Trajectory, **self._parts()), ()

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} {status.name.lower()}" for status, number in self._counts())
        return (
            f"Trajectory({self.source}, batch={self.batch}, times={self.t.shape[-1]}, {_span('t', self.t)}, "
            f"recorded: {', '.join(self.names) or 'nothing'}; {counts or 'no members'})"
        )

    def summary(self) -> str:
        """A table of what was run, how the members ended and the values they ended with; its length is bounded."""
        lines = [self._title(), *self._settings_lines()]
        for header, rows in self._tables():
            widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
            lines.append("")
            for row in (header, tuple("-" * w for w in widths), *rows):
                cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
                lines.append("  ".join(cells).rstrip())
        if note := self._note():
            lines += ["", note]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [f"<b>{html.escape(self._title())}</b>"]
        parts += [f"<div>{html.escape(line)}</div>" for line in self._settings_lines()]
        for header, rows in self._tables():
            body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
            parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        if note := self._note():
            parts.append(f"<div>{html.escape(note)}</div>")
        return "<div>" + "".join(parts) + "</div>"

    def _counts(self) -> list[tuple[Status, int]]:
        numbers = np.bincount(self.status, minlength=len(Status))
        return [(status, int(numbers[status])) for status in Status if numbers[status]]

    def _title(self) -> str:
        parts = [
            f"{self.source}: {_plural(self.batch, 'member')}",
            _plural(self.t.shape[-1], "time"),
            _span("t", self.t),
        ]
        if self.steps is not None:
            parts.append(_span("steps", self.steps))
        return ", ".join(parts)

    def _settings_lines(self) -> list[str]:
        shown = []
        for name, value in self.settings.items():
            if isinstance(value, np.ndarray):
                text = f"{_span('', value)} (per member)" if value.size else "(per member)"
            else:
                text = value if isinstance(value, str) else json.dumps(value)
            text = " ".join(text.split())
            shown.append(f"{name} = {text if len(text) <= 60 else text[:57] + '...'}")
        if len(shown) > 16:
            shown = [*shown[:16], f"and {len(shown) - 16} more"]
        if self._reduced:
            counts = (f"{name} {int(members.sum())}" for name, members in self._reduced.items())
            shown.append(f"reduced = {', '.join(counts)} of {_plural(self.batch, 'member')}")
        lines: list[str] = []
        for one in shown:
            if lines and len(lines[-1]) + len(one) < 110:
                lines[-1] += f", {one}"
            else:
                lines.append(one)
        return lines

    def _tables(self) -> list[Table]:
        """Two tables, how members ended and their last values, as (header, rows)."""
        ends: list[tuple[str, ...]] = []
        for status, number in self._counts():
            stopped = self.stopped_at[self.status == status]
            ends.append((status.name.lower(), str(number), *_three(stopped if self.steps is not None else np.empty(0))))
        tables: list[Table] = [(("how members ended", "members", "min step", "median", "max"), ends)]
        values: list[tuple[str, ...]] = []
        for name in _SUMMARISED:
            if name not in self._records:
                continue
            first = self._records[name][:, :1]
            last = self._last(name)
            if name == "loss" and first.size:
                values.append(("loss at the first time", *_three(first[:, 0])))
            if last.ndim == 1:
                values.append((f"last {name}", *_three(last)))
            elif name == "drift":
                values.append(("last drift, largest", *_three(last.max(axis=1) if last.shape[1] else np.empty(0))))
            else:
                shown = range(last.shape[1]) if last.shape[1] <= 8 else [*range(7), last.shape[1] - 1]
                values += [(f"last strength of mode {k}", *_three(last[:, k])) for k in shown]
        if values:
            tables.append((("over members", "min", "median", "max"), values))
        return tables

    def _note(self) -> str:
        """What the tables leave out: members without a value, because they stopped before the first recorded step."""
        name = next((n for n in _SUMMARISED if n in self._records), None)
        if name is None or self._records[name].size == 0:
            return ""
        last = self._last(name).reshape(self.batch, -1)
        count = int(np.isnan(last).all(axis=1).sum())
        if not count:
            return ""
        others = "there are none to show" if count == self.batch else "those shown are of the others"
        return (
            f"{_plural(count, 'member')} stopped before the first recorded step and left no last values ({others}): "
            "record at earlier steps to see more"
        )

    def _last(self, name: str) -> NDArray[Any]:
        """The last value of `name` that each member recorded; NaN if it recorded none."""
        values = self._records[name]
        if values.shape[1] == 0:
            return np.full((self.batch, *values.shape[2:]), np.nan)
        there = ~np.isnan(values).all(axis=tuple(range(2, values.ndim)))
        place = values.shape[1] - 1 - np.argmax(there[:, ::-1], axis=1)
        result: NDArray[Any] = values[np.arange(self.batch), place]
        return result

    def to_xarray(self) -> xarray.Dataset:
        """The recorded quantities as an xarray Dataset, ready for netCDF or zarr.

        Dimensions are ``batch``, ``time``, ``mode``, ``out``, ``in_``, ``layer``, ``interface``; the weights are W_1 …
        W_D, their hidden dimensions ``unit_1`` …. Coordinates are ``t`` (τ), ``steps``, ``status``, ``stopped_at``, and
        the settings that differ per member; the other settings are attributes (booleans as 0 and 1, nested ones and
        None as JSON). The final weights are left out: `final` and `save` hold those.

        Raises
        ------
        MissingExtra
            xarray is not installed.
        """
        try:
            import xarray as xr
        except ImportError:
            raise MissingExtra.of("xarray", "data", "Trajectory.to_xarray") from None

        time_axes = ("batch", "time")
        variables: dict[str, Any] = {}
        for name in self.names:
            meaning = {"long_name": QUANTITIES[name].meaning}
            if name == "weights":
                depth = len(self.weights)
                units = ["in_", *(f"unit_{k}" for k in range(1, depth)), "out"]
                for k, layer in enumerate(self.weights):
                    variables[f"W_{k + 1}"] = ((*time_axes, units[k + 1], units[k]), layer)
            else:
                variables[name] = ((*time_axes, *QUANTITIES[name].axes), self._records[name], meaning)
        coords: dict[str, Any] = {
            "t": (time_axes[-self.t.ndim :], self.t, {"units": "tau", "long_name": "time in units of tau = 1/lr"}),
            "batch": np.arange(self.batch),
            "status": (
                "batch",
                self.status,
                {"flag_values": [int(s) for s in Status], "flag_meanings": " ".join(s.name.lower() for s in Status)},
            ),
            "stopped_at": ("batch", self.stopped_at, {"long_name": "step at which the member stopped"}),
        }
        if self.steps is not None:
            coords["steps"] = ("time", self.steps, {"long_name": "steps of gradient descent"})
        if "layer_norms" in self._records:
            coords["layer"] = np.arange(1, self.layer_norms.shape[2] + 1)
        coords |= {f"reduced_{name}": ("batch", members) for name, members in self._reduced.items()}
        attributes: dict[str, Any] = {"source": self.source}
        for name, value in self.settings.items():
            free = f"setting_{name}" if name in coords or name in variables or name == "source" else name
            if isinstance(value, np.ndarray):
                coords[free] = (("batch", *(f"{free}_{k}" for k in range(1, value.ndim))), value)
            else:
                attributes[free] = _attribute(value)
        return xr.Dataset(variables, coords=coords, attrs=attributes)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one uncompressed npz file without pickles, whole or not at all.

        Parameters
        ----------
        path : path
            ``.npz`` is appended if it is not there. An existing file is replaced.

        Returns
        -------
        Path
            The file that was written.

        Raises
        ------
        FileNotFoundError
            The directory does not exist.
        ValueError
            `path` names a directory.
        """
        target = _npz(path)
        if os.fspath(path).endswith(("/", os.sep)) or Path(path).is_dir():
            raise ValueError(f"path: expected a file name, got the directory {path}")
        if not target.parent.is_dir():
            raise FileNotFoundError(f"path: expected an existing directory to write into, got {target.parent}")
        arrays: dict[str, NDArray[Any]] = {"t": self.t, "status": self.status, "stopped_at": self.stopped_at}
        if self.steps is not None:
            arrays["steps"] = self.steps
        for name, value in self._records.items():
            if name == "weights":
                arrays |= {f"record/weights/{k}": w for k, w in enumerate(value)}
            else:
                arrays[f"record/{name}"] = value
        if self.final is not None:
            arrays |= {f"final/{k}": w for k, w in enumerate(self.final.layers)}
        arrays |= {f"setting/{k}": v for k, v in self.settings.items() if isinstance(v, np.ndarray)}
        arrays |= {f"reduced/{k}": v for k, v in self._reduced.items()}
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "source": self.source,
            "records": list(self._records),
            "settings": [[k, None if isinstance(v, np.ndarray) else v] for k, v in self.settings.items()],
            "reduced": list(self._reduced),
            "entries": list(arrays),
        }
        _files.remove_orphans(target.parent)
        with _files.replacing(target) as file:
            np.savez(file, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trajectory:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path
            With or without ``.npz``, as it was given to `save`.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        FileDamaged
            The file is truncated, corrupted, of another kind, or written in another format version. Found before
            anything is unpacked: entries of another size than they say, compressed ones, Python objects.
        """
        source = _npz(path)
        if not source.exists():
            source = Path(path)
        with open(source, "rb") as file:
            try:
                return _read(file)
            except _UnreadableError as error:
                raise FileDamaged(f"{source}: expected a trajectory saved by pydln, got {error}") from None
            except MemoryError:
                raise
            except Exception as error:  # a damaged zip or npy makes NumPy and zipfile raise nearly anything
                reason = " ".join(str(error).split()) or type(error).__name__
                raise FileDamaged(
                    f"{source}: expected a trajectory saved by pydln, got a damaged file ({reason[:120]})"
                ) from error


class _UnreadableError(Exception):
    """A file that is sound but not a trajectory this version reads; the text completes "got …"."""


def _read(file: Any) -> Trajectory:
    start = file.read(4)
    file.seek(0)
    if not start:
        raise _UnreadableError("an empty file")
    if start[:2] != b"PK":
        raise _UnreadableError("a file of another kind (no npz)")
    with zipfile.ZipFile(file) as archive:
        try:
            _archives.unpacked_size(archive, file.seek(0, os.SEEK_END), stored=True)
        except _archives.UnsoundError as error:
            raise _UnreadableError(f"a damaged file ({error})") from None
        bad = archive.testzip()  # every checksum; NumPy alone would miss damage in an npy header
        if bad is not None:
            raise _UnreadableError(f"a damaged file (the checksum of {bad} does not match)")
    file.seek(0)
    with np.load(file, allow_pickle=False) as entries:
        try:
            header = json.loads(str(entries["header"][()]))
            if header["format"] != FORMAT:
                raise KeyError
        except (KeyError, ValueError, TypeError):
            raise _UnreadableError("an npz file of another kind") from None
        if header["version"] != FORMAT_VERSION:
            raise _UnreadableError(
                f"format version {header['version']}, and this version of pydln reads {FORMAT_VERSION}"
            )
        missing = [name for name in header["entries"] if name not in entries.files]
        if missing:
            raise _UnreadableError(f"a damaged file (without {', '.join(missing[:5])})")
        arrays = {name: _native(entries[name]) for name in header["entries"]}
    text = [name for name, a in arrays.items() if a.dtype.kind not in "fiub"]
    if text:
        raise _UnreadableError(f"a damaged file ({text[0]} is {arrays[text[0]].dtype})")

    def layers(prefix: str) -> list[NDArray[Any]]:
        count = sum(name.startswith(prefix) for name in arrays)
        return [arrays[f"{prefix}{k}"] for k in range(count)]

    final = layers("final/")
    if final and not _fit_together(final):
        raise _UnreadableError("a damaged file (its final weights are no layers)")
    return Trajectory(
        t=arrays["t"],
        steps=arrays.get("steps"),
        records={n: layers("record/weights/") if n == "weights" else arrays[f"record/{n}"] for n in header["records"]},
        status=arrays["status"],
        stopped_at=arrays["stopped_at"],
        final=Weights._adopt(final) if final else None,
        settings={name: arrays.get(f"setting/{name}", value) for name, value in header["settings"]},
        source=header["source"],
        reduced={name: arrays[f"reduced/{name}"] for name in header.get("reduced", [])},
    )


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """`array` in this machine's byte order."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _fit_together(layers: list[NDArray[Any]]) -> bool:
    """Whether arrays are layers that follow each other, whatever numbers a run that diverged left in them."""
    return (
        all(w.ndim == 3 and w.dtype == layers[0].dtype and len(w) == len(layers[0]) for w in layers)
        and layers[0].dtype in (np.float32, np.float64)
        and all(after.shape[2] == before.shape[1] for before, after in itertools.pairwise(layers))
    )


def _npz(path: str | os.PathLike[str]) -> Path:
    given = Path(path)
    if not given.name:
        raise ValueError(f"path: expected a file name, got {str(path)!r}")
    return given if given.suffix == ".npz" else given.with_name(given.name + ".npz")


def _locked(value: Any, name: str, dtype: Any = None) -> NDArray[Any]:
    _validate.unmasked(value, name)
    try:
        given = np.asarray(value)
        sound = given.dtype.kind in "fiub"
        with np.errstate(invalid="ignore"):  # what no integer holds differs from it afterwards
            view = given.astype(dtype if sound and dtype else given.dtype, copy=False).view()
    except (TypeError, ValueError, RecursionError):
        sound = False
    if not sound:
        got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else _short(value)
        raise TypeError(f"{name}: expected an array of numbers, got {got}")
    if dtype is np.int64 and (view != given).any():
        raise ValueError(f"{name}: expected whole numbers within 64 bits, got others")
    view.flags.writeable = False
    return view


def _expect(name: str, array: NDArray[Any], shape: Sequence[int | str]) -> None:
    fits = array.ndim == len(shape) and all(
        isinstance(n, str) or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits:
        text = ", ".join(str(n) for n in shape)
        raise ValueError(f"{name}: expected ({text}{',' if len(shape) == 1 else ''}), got {array.shape}")


def _settings(given: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """`given` with tuples as lists and NumPy numbers as Python's, so that saving and loading change nothing."""
    settings: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(key, str):
            raise TypeError(f"settings: expected names as keys, got {key!r}")
        _validate.unmasked(value, f"settings[{key!r}]")
        if isinstance(value, np.ndarray) and value.ndim:
            if len(value) != batch or value.dtype.kind not in "fiub":
                raise ValueError(
                    f"settings[{key!r}]: expected an array of numbers, one per member, ({batch}, ...), "
                    f"got {value.dtype} of shape {value.shape}"
                )
            settings[key] = _locked(value, f"settings[{key!r}]")
        else:
            try:
                settings[key] = _plain(value, f"settings[{key!r}]")
            except RecursionError:
                raise TypeError(f"settings[{key!r}]: expected lists that end, got one nested without end") from None
    return settings


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if isinstance(value, IntEnum | bool):
        return bool(value) if isinstance(value, bool) else int(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{name}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{name}[{k}]") for k, v in enumerate(value)]
    raise TypeError(f"{name}: expected text, numbers, None, lists or dictionaries of these, got {type(value).__name__}")


def _attribute(value: Any) -> Any:
    """`value` as a type that netCDF stores: text, a number, or a list of numbers."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list) and value and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return value
    return json.dumps(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _number(value: Any) -> str:
    if math.isnan(value):
        return "-"
    return str(int(value)) if isinstance(value, int | np.integer) else f"{value:.6g}"


def _span(name: str, values: NDArray[Any]) -> str:
    if not values.size:
        return f"no {name}"
    return f"{name} {_number(values.min())} ... {_number(values.max())}".strip()


def _three(values: NDArray[Any]) -> tuple[str, str, str]:
    """Minimum, median and maximum as text, over the members that have a value."""
    there = values[~np.isnan(values)]
    if not there.size:
        return ("-", "-", "-")
    with np.errstate(all="ignore"):  # a median between two infinities of a diverged member
        return (_number(there.min()), _number(np.median(there)), _number(there.max()))
