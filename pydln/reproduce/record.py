"""What is kept of a finished figure beside its files: ``<figure>.json``, the last to be written."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pydln._base import atomic
from pydln.reproduce.checks import Check
from pydln.reproduce.report import Report

__all__ = ["Record", "Request"]


@dataclass(frozen=True)
class Request:
    """What was asked for: two equal requests have equal figures.

    Attributes
    ----------
    figure : str
        Name of the figure.
    full : bool
        The paper's own sizes.
    seed : int
        Of everything drawn at random.
    options : dict
        The figure's own options that were given.
    version : str
        Of pydln.
    """

    figure: str
    full: bool
    seed: int
    options: dict[str, Any]
    version: str

    def __post_init__(self) -> None:
        # As they come back from the file: arrays and tuples as lists.
        options = json.loads(json.dumps(self.options, default=lambda value: np.asarray(value).tolist()))
        object.__setattr__(self, "options", options)

    def command(self) -> str:
        """The command that makes the figure; a Python expression if the command line lacks one of the options."""
        if set(self.options) <= {"inputs"}:
            words = ["pydln", "reproduce", self.figure, *(["--full"] if self.full else [])]
            words += ["--seed", str(self.seed)] if self.seed else []
            words += [word for name, value in self.options.items() for word in (f"--{name}", str(value))]
            return shlex.join(words)
        given = {**({"full": True} if self.full else {}), **({"seed": self.seed} if self.seed else {}), **self.options}
        inside = ", ".join([repr(self.figure), "'out'", *(f"{name}={value!r}" for name, value in given.items())])
        return f"pydln.reproduce.reproduce({inside})"


@dataclass(frozen=True)
class Record:
    """A finished figure.

    Attributes
    ----------
    request : Request
        What was asked for.
    report : Report
        Checks, settings, names of the files.
    seconds : float
        How long it took.
    about : str
        What the paper gives, what it leaves unsaid, what was chosen.
    """

    request: Request
    report: Report
    seconds: float
    about: str

    def save(self, out_dir: Path) -> None:
        """Write ``<figure>.json`` into `out_dir`, whole or not at all."""
        report = self.report
        content = {
            "name": report.name,
            "title": report.title,
            "passed": report.passed,
            "request": vars(self.request),
            "command": self.request.command(),
            "seconds": round(self.seconds, 2),
            "settings": report.settings,
            "checks": [check.as_json() for check in report.checks],
            "files": [file.name for file in report.files],
            "about": self.about,
        }
        with atomic.replacing(_path(out_dir, report.name)) as file:
            file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    @classmethod
    def load(cls, out_dir: Path, figure: str) -> Record | None:
        """The finished figure in `out_dir`; None if there is none, one of its files is gone or cannot be read."""
        try:
            content = json.loads(_path(out_dir, figure).read_text(encoding="utf-8"))
            checks = tuple(Check(**check) for check in content["checks"])
            files = tuple(out_dir / name for name in content["files"])
            report = Report(content["name"], content["title"], checks, files, content["settings"])
            record = cls(Request(**content["request"]), report, content["seconds"], content["about"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # absent, or foreign: to be made again
            return None
        return record if all(file.is_file() for file in files) else None


def _path(out_dir: Path, figure: str) -> Path:
    return out_dir / f"{figure}.json"
