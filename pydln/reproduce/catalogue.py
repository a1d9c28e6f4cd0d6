"""Which figures there are: every module of every package below this one, a package for each paper.

Modules whose names begin with an underscore are what figures share. Those of the first paper go by the names of their
modules, ``fig3``, others by that of the paper too, ``lampinen2019-fig3``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

from pydln._base import validate
from pydln.reproduce.recipe import Paper, Recipe

__all__ = ["FIGURES", "about", "options", "paper", "recipe", "takes", "title"]

_HERE = "pydln.reproduce"
_FIRST = "saxe2013"


def _names(package: str, *, packages: bool) -> list[str]:
    """The modules of a package in the order of their numbers, none of them imported."""
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    names = [one.name for one in found if one.ispkg == packages and not one.name.startswith("_")]
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def _modules() -> dict[str, str]:
    papers = sorted(_names(_HERE, packages=True), key=lambda paper: paper != _FIRST)
    return {
        name if paper == _FIRST else f"{paper}-{name}": f"{_HERE}.{paper}.{name}"
        for paper in papers
        for name in _names(f"{_HERE}.{paper}", packages=False)
    }


_MODULES = _modules()

FIGURES = tuple(_MODULES)
"""Names of the figures, paper by paper, in the order of the paper."""


def recipe(name: str) -> Recipe:
    """What the figure's module says of it."""
    found: Recipe = importlib.import_module(_module(name)).RECIPE
    return found


def paper(name: str) -> Paper:
    """Whose figure it is."""
    found: Paper = importlib.import_module(_module(name).rpartition(".")[0]).PAPER
    return found


def about(name: str) -> str:
    """What the paper gives, what it leaves unsaid, what was chosen."""
    return inspect.getdoc(importlib.import_module(_module(name))) or ""


def title(name: str) -> str:
    """One line saying what the figure shows."""
    return recipe(name).title


def takes(name: str) -> tuple[str, ...]:
    """Names of the options that the figure takes beside those of `reproduce`."""
    return tuple(recipe(name).options)


def options(name: str) -> dict[str, str]:
    """What those options mean, by their names, with what they are if they are not given."""
    return {
        key: f"{one.meaning}; {one.quick!r}" + ("" if one.full == one.quick else f", with full {one.full!r}")
        for key, one in recipe(name).options.items()
    }


def _module(name: str) -> str:
    return _MODULES[validate.choice(name, "name", FIGURES)]
