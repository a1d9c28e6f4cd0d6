"""What a sweep leaves on disk: one npz per part, an index that says which parts are done, and a table of members."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydln.errors import FileDamaged
from pydln.trajectory import Trajectory

__all__ = ["Store"]

_FORMAT = "pydln sweep 1"


def _write(path: Path, text: str) -> None:
    """Write `path` so that readers see the old text or the new one, whatever stops the program."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


class Store:
    """The folder of one sweep.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    name : str
        Stem of the index and of the table.

    Raises
    ------
    ValueError
        A file stands where the folder belongs.
    FileDamaged
        A file stands where the index belongs and is none.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.index = folder / f"{name}.json"
        self.table = folder / f"{name}.csv"
        self._parts: dict[str, Any] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"out: expected a folder, got {folder}, where a file stands") from None
        if self.index.exists():
            try:
                found = json.loads(self.index.read_text(encoding="utf-8"))
                if found["format"] != _FORMAT:
                    raise KeyError
                self._parts = found["parts"]
            except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
                raise FileDamaged(
                    f"{self.index} is not the index of a pydln sweep: remove it, or write elsewhere"
                ) from None

    def file(self, stem: str, suffix: str = "") -> Path:
        """Where the trajectory `stem` belongs."""
        return self.folder / f"{stem}{suffix}.npz"

    def rows(self, stem: str, fingerprint: str) -> list[dict[str, Any]] | None:
        """The members of a finished part, or None if it has to be run."""
        part = self._parts.get(stem)
        if part is None or part["fingerprint"] != fingerprint:
            return None
        whole = all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size == size
            for name, size in part["files"].items()
        )
        return list(part["rows"]) if whole else None

    def keep(
        self, stem: str, fingerprint: str, rows: list[dict[str, Any]], files: Mapping[Path, Trajectory], text: str
    ) -> None:
        """Write a finished part, then the index that vouches for it."""
        for path, trajectory in files.items():
            trajectory.save(path)
        self.file(stem, ".partial").unlink(missing_ok=True)
        self._parts[stem] = {
            "fingerprint": fingerprint,
            "files": {path.name: path.stat().st_size for path in files},
            "rows": rows,
        }
        index = {"format": _FORMAT, "run_file": text, "parts": self._parts}
        _write(self.index, json.dumps(index, indent=1) + "\n")

    def keep_partial(self, stem: str, trajectory: Trajectory) -> Path:
        """Write what an interrupted part got to; the next run starts the part again."""
        return trajectory.save(self.file(stem, ".partial"))

    def write_table(self, rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> None:
        """Write one line per member; a value that does not exist is left empty."""

        text = io.StringIO()
        table = csv.DictWriter(text, list(columns), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        _write(self.table, text.getvalue())
