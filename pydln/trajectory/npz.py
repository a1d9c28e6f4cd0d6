"""The file of a trajectory: an uncompressed npz without pickles."""

from __future__ import annotations

import itertools
import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pydln._base import archives, atomic
from pydln.errors import FileDamaged
from pydln.weights import Weights

if TYPE_CHECKING:
    from pydln.trajectory.trajectory import Trajectory

__all__ = ["load", "save"]

FORMAT = "pydln.Trajectory"
FORMAT_VERSION = 2

_OPTIONAL = ("steps", "stopped_step", "integrator_steps", "rejected")


def save(run: Trajectory, path: str | os.PathLike[str]) -> Path:
    """`Trajectory.save`."""
    target = _npz(path)
    if os.fspath(path).endswith(("/", os.sep)) or Path(path).is_dir():
        raise ValueError(f"path: expected a file name, got the directory {path}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path: expected an existing directory to write into, got {target.parent}")
    arrays: dict[str, NDArray[Any]] = {"t": run.t, "status": run.status, "stopped_time": run.stopped_time}
    arrays |= {name: a for name in _OPTIONAL if (a := getattr(run, name)) is not None}
    for name, value in run._records.items():
        if name == "weights":
            arrays |= {f"record/weights/{k}": w for k, w in enumerate(value)}
        else:
            arrays[f"record/{name}"] = value
    if run.final is not None:
        arrays |= {f"final/{k}": w for k, w in enumerate(run.final.layers)}
    arrays |= {f"setting/{k}": v for k, v in run.settings.items() if isinstance(v, np.ndarray)}
    arrays |= {f"reduced/{k}": v for k, v in run._reduced.items()}
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "source": run.source,
        "records": list(run._records),
        "settings": [[k, None if isinstance(v, np.ndarray) else v] for k, v in run.settings.items()],
        "reduced": list(run._reduced),
        "entries": list(arrays),
    }
    atomic.remove_orphans(target.parent)
    with atomic.replacing(target) as file:
        np.savez(file, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
    return target


def load(path: str | os.PathLike[str]) -> Trajectory:
    """`Trajectory.load`."""
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
            archives.unpacked_size(archive, file.seek(0, os.SEEK_END), stored=True)
        except archives.UnsoundError as error:
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
    from pydln.trajectory.trajectory import Trajectory

    return Trajectory(
        t=arrays["t"],
        **{name: arrays.get(name) for name in _OPTIONAL},
        records={n: layers("record/weights/") if n == "weights" else arrays[f"record/{n}"] for n in header["records"]},
        status=arrays["status"],
        stopped_time=arrays["stopped_time"],
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
