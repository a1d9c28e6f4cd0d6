"""The table of signatures in CONTRIBUTING is that of the code; `python tests/test_signatures.py` prints it."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import pydln as dln

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
ROOMS = ("init", "exact", "analysis", "reduce", "spectra", "propagation", "plot")


def functions() -> Iterator[tuple[str, object]]:
    """Public functions, and what makes a task."""
    for name in dln.__all__:
        if inspect.isfunction(getattr(dln, name)):
            yield name, getattr(dln, name)
    for name, made in vars(dln.Task).items():
        if isinstance(made, classmethod | staticmethod) and not name.startswith("_"):
            yield f"Task.{name}", getattr(dln.Task, name)
    for room in ROOMS:
        for name in getattr(dln, room).__all__:
            thing = getattr(getattr(dln, room), name)
            if inspect.isfunction(thing):
                yield f"{room}.{name}", thing


def row(name: str, function: object) -> str:
    """Name, what goes by position, and after ``*`` the keywords; ``=`` marks what may be left out."""
    arguments, keywords = [], False
    for one in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        if one.kind is inspect.Parameter.KEYWORD_ONLY and not keywords:
            arguments.append("*")
            keywords = True
        star = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(one.kind, "")
        arguments.append(star + one.name + ("=" if one.default is not inspect.Parameter.empty else ""))
    return "\n".join(textwrap.wrap(f"{name}({', '.join(arguments)})", 120, subsequent_indent="    "))


def table() -> str:
    return "\n".join(row(name, function) for name, function in functions())


@pytest.mark.skipif(not PAGE.is_file(), reason="needs the source tree")
def test_the_table_of_signatures_is_that_of_the_code() -> None:
    found = re.search(r"^## Signatures\n.*?^```\n(.*?)\n```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    assert found[1] == table(), "python tests/test_signatures.py prints it anew"


if __name__ == "__main__":
    print(table())
