"""What a run of the benchmarks found: tables for people, everything for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import precision
import roofline

README = Path(__file__).with_name("README.md")
FOLDER = Path(__file__).parents[1] / "out" / "bench"
BEGIN, END = "<!-- latest: written by `make bench ARGS=--readme` -->", "<!-- end of latest -->"


@dataclass
class Table:
    """One heading, one table, remarks below."""

    heading: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def programs(self, found, programs, name, settings, figures, *, errors=False) -> None:
        """Adds a row a program: `name`, label, error if `errors`, figures(key, result), ratio, spread, rounds."""
        own = found.results.get("pydln")
        empty = [""] * (len(self.columns) - 5 - errors)  # beside the first figure, ratio, spread and rounds
        for key, program in programs.items():
            place = (name, program.label)
            if key in found.missing:
                self.rows.append((*place, *[""] * errors, f"skipped: no {found.missing[key]}", *empty, "", ""))
                continue
            if errors:
                place = (*place, f"{found.errors[key]:.1e}")
            if key in found.wrong:
                self.rows.append((*place, "wrong result", *empty, "", ""))
            elif settings.quick or not found.kept:
                self.rows.append((*place, "result right", *empty, "", found.kept_of_all))
            else:
                r = found.results[key]
                faster = "" if own is None or r is own else f"×{own.gflops / r.gflops:.1f}"
                self.rows.append((*place, *figures(key, r), faster, f"{100 * r.spread:.1f} %", found.kept_of_all))

    def note(self, text: str) -> None:
        """Adds a remark, once."""
        if text not in self.notes:
            self.notes.append(text)

    def __str__(self) -> str:
        lines = [list(self.columns), *(list(row) for row in self.rows)]
        widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(self.columns))]
        text = [[self._aligned(cell, i, widths[i]) for i, cell in enumerate(line)] for line in lines]
        rule = ["-" * w if self._is_text(i) else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in [text[0], rule, *text[1:]])
        return "\n\n".join([f"### {self.heading}", table, *self.notes])

    def _is_text(self, column: int) -> bool:
        return not any(row[column][:1].isdigit() or row[column][:1] == "×" for row in self.rows)

    def _aligned(self, cell: str, column: int, width: int) -> str:
        return cell.ljust(width) if self._is_text(column) else cell.rjust(width)


@dataclass
class Report:
    """Filled by the bench files as they go."""

    settings: dict
    machine: dict[str, str] = field(default_factory=dict)
    memory: float | None = None  # GB/s, two reads and one write
    versions: dict[str, str] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    measured: dict[str, object] = field(default_factory=dict)

    def table(self, heading: str, columns: Sequence[str]) -> Table:
        """The table of this heading, made when it is first asked for."""
        return self.tables.setdefault(heading, Table(heading, columns))

    def text(self) -> str:
        """Markdown."""
        about = "; ".join(f"{name} {value}" for name, value in {**self.machine, **self.versions}.items())
        return "\n\n".join([f"Machine: {about}.", self._how(), *map(str, self.tables.values())])

    def _how(self) -> str:
        if self.settings["quick"]:
            return "Quick run: every result is checked, nothing is timed."
        how = f"{self.settings['rounds']} rounds, runs of {self.settings['seconds']:g} s or more"
        if self.settings["clock"] == "cpu":
            return f"{how}, by processor time: a stopgap for a busy machine, not to be quoted."
        return f"{how}, by the wall clock."

    def write(self) -> list[Path]:
        """The JSON file, the tables and the pictures; their paths."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        everything = {
            "machine": self.machine,
            "versions": self.versions,
            "settings": self.settings,
            "tables": {
                t.heading: {"columns": t.columns, "rows": t.rows, "notes": t.notes} for t in self.tables.values()
            },
            "measured": self.measured,
        }
        results, tables = FOLDER / "results.json", FOLDER / "tables.md"
        results.write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n")
        tables.write_text(self.text() + "\n")
        timed = {} if self.settings["quick"] else self.measured
        return [results, tables, *roofline.draw(timed, self.memory, FOLDER), *precision.draw(timed, FOLDER)]

    def put_into_readme(self) -> None:
        """Replace the latest tables in README.md."""
        before, _, rest = README.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        README.write_text(f"{before}{BEGIN}\n\n{self.text()}\n\n{END}{after}")
