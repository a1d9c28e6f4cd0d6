"""Where each key of a TOML text stands: `tomllib` gives the values but not their lines."""

from __future__ import annotations

import re
import tomllib

__all__ = ["KeyPath", "key_lines", "too_deep"]

KeyPath = tuple[str, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' + r"|'''.*?'{3,5}" + r'|"(?:\\.|[^"\\\n])*"' + r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")


_TOKEN = re.compile(_STRING.pattern + r"|#[^\n]*|[\[{]|[\]}]|\.|[A-Za-z0-9_ \t-]+|.", re.DOTALL)


def too_deep(text: str, deepest: int) -> int | None:
    """The line where brackets, braces or dotted keys of `text`, TOML or not, are first nested deeper than `deepest`."""
    depth = dots = 0
    for found in _TOKEN.finditer(text):
        token = found.group()
        if token in ("[", "{"):
            depth += 1
        elif token in ("]", "}"):
            depth = max(depth - 1, 0)
        if token == ".":
            dots += 1
        elif not (token[0] in "\"'" or token[0].isalnum() or token[0] in "_- \t"):
            dots = 0
        if max(depth, dots) > deepest:
            return text.count("\n", 0, found.start()) + 1
    return None


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.counted, self.line = 0, 1
        self.lines: dict[KeyPath, int] = {}

    def skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise ValueError(f"not TOML at character {self.at}")
        self.at = found.end()
        return found.group()

    def ahead(self, token: str) -> bool:
        return self.text.startswith(token, self.at)

    def key(self, prefix: KeyPath) -> KeyPath:
        """A key, dotted or not, below `prefix`; it and the tables it implies get this line."""
        self.line += self.text.count("\n", self.counted, self.at)
        line, self.counted = self.line, self.at
        path = prefix
        while True:
            self.skip(_BLANK)
            if self.text[self.at] in "\"'":
                path += (str(tomllib.loads(f"key = {self.skip(_STRING)}")["key"]),)
            else:
                path += (self.skip(_BARE_KEY),)
            self.lines.setdefault(path, line)
            self.skip(_BLANK)
            if not self.ahead("."):
                return path
            self.at += 1

    def pair(self, prefix: KeyPath) -> None:
        path = self.key(prefix)
        self.at += len("=")
        self.value(path)

    def value(self, path: KeyPath) -> None:
        self.skip(_BLANK)
        first = self.text[self.at]
        if first in "\"'":
            self.skip(_STRING)
        elif first in "[{":
            self.at += 1
            while True:
                self.skip(_BLANK)
                if self.ahead(","):
                    self.at += 1
                elif self.ahead("]") or self.ahead("}"):
                    self.at += 1
                    return
                elif first == "[":
                    self.value(path)
                else:
                    self.pair(path)
        else:
            self.skip(_SCALAR)

    def document(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while True:
            self.skip(_BLANK)
            if self.at >= len(self.text):
                return self.lines
            if self.ahead("["):
                brackets = 2 if self.ahead("[[") else 1
                self.at += brackets
                table = self.key(())
                self.at += brackets
            else:
                self.pair(table)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, counted from 1, at which each key and table of `text` first stands.

    Parameters
    ----------
    text : str
        A TOML document that `tomllib.loads` accepts.

    Returns
    -------
    dict
        ``("run", "stop", "loss") -> 12``: the line of the key, for an array the line on which it starts.
    """
    return _Scanner(text).document()
