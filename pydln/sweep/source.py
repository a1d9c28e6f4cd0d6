"""The text of a run file: reading its tables, and saying on which line a mistake stands."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydln._base import validate
from pydln.errors import PydlnError
from pydln.sweep.lines import KeyPath, key_lines, too_deep
from pydln.sweep.schema import Section, home

__all__ = ["Source"]


_DEEPEST = 20
_BARE = re.compile(r"[\w-]+")


def _dotted(where: KeyPath) -> str:
    """The key as a sentence shows it: what is not bare in quotes, without line breaks or anything else unprintable."""
    return ".".join(key if _BARE.fullmatch(key) and len(key) <= 60 else validate.short(key) for key in where)


class Source:
    """The text of a run file, to say where a mistake stands."""

    def __init__(self, label: str, text: str) -> None:
        self.label = label
        self.lines: dict[KeyPath, int] = {}
        self.last = max(1, len(text.splitlines()))
        # Before it is read: reading takes stack for each level, and time as the square of the dots of a key.
        deep = too_deep(text, _DEEPEST)
        if deep is not None:
            raise ValueError(f"{label}:{deep}: expected at most {_DEEPEST} tables or lists in each other, got more")
        try:
            self.document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error))
            if found:
                message, line, column = found.groups()
                raise ValueError(f"{label}:{line}: not TOML: {message} (column {column})") from None
            message = re.sub(r" \(at end of document\)$", " at the end of the file", str(error))
            raise ValueError(f"{label}:{self.last}: not TOML: {message}") from None
        except ValueError:  # of Python's int()
            raise ValueError(f"{label}: expected numbers, got an integer of more digits than Python reads") from None
        self.lines = key_lines(text)

    def mistake(self, where: KeyPath, sentence: str) -> ValueError:
        """The error that says `sentence` of the line of the key `where`, or of the nearest table that is there."""
        line = next((self.lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in self.lines), self.last)
        return ValueError(f"{self.label}:{line}: {sentence}")

    @contextmanager
    def blame(self, where: KeyPath, fallback: str | None = None) -> Iterator[None]:
        """Errors of the arguments of a call become errors of the keys below `where` that gave them.

        An error that names no key there is put on the key `fallback`, or on the table itself.
        """
        try:
            yield
        except (PydlnError, TypeError, ValueError) as error:
            sentence = str(error)
            found = re.match(r"([A-Za-z_]\w*)", sentence)
            if found and (*where, found.group()) in self.lines:
                raise self.mistake((*where, found.group()), f"{'.'.join(where)}.{sentence}") from None
            path = where if fallback is None else (*where, fallback)
            raise self.mistake(path, f"{'.'.join(path)}: {sentence}") from None

    def table(self, *where: str) -> dict[str, Any]:
        """The table at `where`, empty if it is not in the file."""
        value: Any = self.document
        for key in where:
            value = value.get(key, {}) if isinstance(value, dict) else value
        if not isinstance(value, dict):
            raise self.mistake(where, f"{_dotted(where)}: expected a table, got {validate.short(value)}")
        return value

    def unknown(self, where: KeyPath, known: tuple[str, ...], kind: str = "") -> ValueError:
        """The error for the key `where`, with the name that may have been meant."""
        *tables, key = where
        near = difflib.get_close_matches(key, known, n=1)
        table = home(key) if tables else None
        if table and table != ".".join(tables):
            hint = f"it belongs in [{table}]"
        elif near:
            hint = f"did you mean {near[0]}?"
        else:
            hint = f"expected one of {', '.join(known)}"
        return self.mistake(where, f"{_dotted(where)}: unknown key{kind}; {hint}")

    def kind(self, table: str, kinds: Mapping[str, Section]) -> str:
        """The key `kind` of `table`: one of `kinds`."""
        if table not in self.document:
            raise self.mistake((table,), f"{table}: missing; a run file needs a table [{table}]")
        values = self.table(table)
        if "kind" not in values:
            raise self.mistake((table,), f"{table}.kind: missing; expected one of {', '.join(kinds)}")
        value = values["kind"]
        if not isinstance(value, str) or value not in kinds:
            near = difflib.get_close_matches(value, kinds, n=1) if isinstance(value, str) else []
            hint = f"; did you mean {near[0]}?" if near else ""
            raise self.mistake(
                (table, "kind"), f"{table}.kind: expected one of {', '.join(kinds)}, got {validate.short(value)}{hint}"
            )
        return value

    def read(self, where: KeyPath, section: Section, kind: str | None = None) -> dict[str, Any]:
        """The checked values of the table at `where`."""
        values = self.table(*where)
        known = (*section.checks, "kind") if kind else tuple(section.checks)
        for key in values:
            if key not in known:
                raise self.unknown((*where, key), known, f" for kind {kind!r}" if kind else "")
        path = ".".join(where)
        for key in section.checks:
            if key in section.required and key not in values:
                raise self.mistake(where, f"{path}.{key}: missing; [{path}] needs it")
        result = {}
        for key, value in values.items():
            if key == "kind" and kind:
                continue
            try:
                result[key] = section.checks[key](value, f"{path}.{key}")
            except (TypeError, ValueError) as error:
                raise self.mistake((*where, key), str(error)) from None
        return result
