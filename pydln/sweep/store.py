"""What a sweep leaves on disk: one npz per part, an index that says which parts are done, and a table of members."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydln._base import atomic
from pydln.errors import FileDamaged
from pydln.trajectory.trajectory import Trajectory

__all__ = ["Store", "opened"]

_FORMAT = "pydln sweep 2"  # a line for the run file, then one for each part when it is finished
_FIRST = "pydln sweep 1"  # all in one object, written anew after every part


def _write(path: Path, text: str) -> None:
    with atomic.replacing(path) as file:
        file.write(text.encode())


def _line(value: Any) -> str:
    return json.dumps(value) + "\n"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _append(path: Path, text: str) -> None:
    """`text` at the end of a file, in one go and to the disk: lines, so that one cut off half-way is known by that."""
    with path.open("ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _is_part(part: Any) -> bool:
    return (
        isinstance(part["fingerprint"], str)
        and isinstance(part["files"], dict)
        and all(isinstance(row, dict) for row in part["rows"])
    )


def _parts_of(index: Path) -> dict[str, Any]:
    """What an index says of each part; a last line without its end is of a run that was killed, and says nothing."""
    try:
        header, *lines = index.read_text(encoding="utf-8").split("\n")
        found = json.loads(header)
        if found["format"] == _FIRST:
            parts = found["parts"]
            if not isinstance(parts, dict):
                raise KeyError
        elif found["format"] == _FORMAT:
            parts = {}
            for line in lines[:-1]:
                part = json.loads(line)
                parts[str(part.pop("part"))] = part
        else:
            raise KeyError
        if not all(_is_part(part) for part in parts.values()):
            raise KeyError
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FileDamaged(f"{index} is not the index of a pydln sweep: remove it, or write elsewhere") from None
    return dict(parts)


@contextmanager
def opened(folder: Path, name: str, waiting: Callable[[], object]) -> Iterator[Store]:
    """The folder of a sweep for one run at a time; `waiting` is called before waiting for another one to end.

    What runs that were killed left half-written is removed.
    """
    if not atomic.may_be_folder(folder):
        raise ValueError(f"out: expected a folder, got {folder}, where a file stands")
    with atomic.locked(folder / ".pydln.lock", waiting):
        atomic.remove_orphans(folder)
        yield Store(folder, name)


class Store:
    """The folder of one sweep, which no other run writes to meanwhile: see `opened`.

    Parameters
    ----------
    folder : Path
    name : str
        Stem of the index and of the table.

    Raises
    ------
    FileDamaged
        A file stands where the index belongs and is none.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.index = folder / f"{name}.json"
        self.table = folder / f"{name}.csv"
        self._begun = False  # whether what is at `index` is of this run
        self._parts: dict[str, Any] = _parts_of(self.index) if self.index.exists() else {}

    def file(self, stem: str, suffix: str = "") -> Path:
        """Where the trajectory `stem` belongs."""
        return self.folder / f"{stem}{suffix}.npz"

    def rows(self, stem: str, fingerprint: str) -> list[dict[str, Any]] | None:
        """The members of a finished part, or None if it has to be run."""
        part = self._parts.get(stem)
        if part is None or part["fingerprint"] != fingerprint:
            return None
        # By what is in them: another sweep in the same folder has files of the same names, and maybe the same sizes.
        whole = all(
            (self.folder / name).is_file() and _digest(self.folder / name) == digest
            for name, digest in part["files"].items()
        )
        return list(part["rows"]) if whole else None

    def keep(
        self, stem: str, fingerprint: str, rows: list[dict[str, Any]], files: Mapping[Path, Trajectory], text: str
    ) -> None:
        """Write a finished part, then what vouches for it at the end of the index.

        The first part of a run writes the index anew: without what a killed run left half-written or is out of date.
        """
        for path, trajectory in files.items():
            trajectory.save(path)
        self.file(stem, ".partial").unlink(missing_ok=True)
        self._parts[stem] = {
            "fingerprint": fingerprint,
            "files": {path.name: _digest(path) for path in files},
            "rows": rows,
        }
        if self._begun:
            _append(self.index, _line({"part": stem, **self._parts[stem]}))
            return
        header = _line({"format": _FORMAT, "run_file": text})
        _write(self.index, header + "".join(_line({"part": name, **part}) for name, part in self._parts.items()))
        self._begun = True

    def keep_partial(self, stem: str, trajectory: Trajectory) -> Path:
        """Write what an interrupted part got to; the next run starts the part again."""
        return trajectory.save(self.file(stem, ".partial"))

    def write_table(self, rows: Iterable[Mapping[str, Any]], columns: Iterable[str], *, more: bool = False) -> None:
        """Write one line per member, or add `more`; a value that does not exist is left empty."""
        text = io.StringIO()
        table = csv.DictWriter(text, list(columns), lineterminator="\n")
        if not more:
            table.writeheader()
        table.writerows(rows)
        (_append if more else _write)(self.table, text.getvalue())
