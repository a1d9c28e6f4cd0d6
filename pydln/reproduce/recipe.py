"""What a figure says of itself: a title, its own options, what it computes, how that is checked and how it is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate
from pydln.reproduce.checks import Check

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Job", "Numbers", "Option", "Paper", "Progress", "Recipe", "flag", "one_of", "rising", "whole"]

Progress = Callable[[int, int, str], None]
"""Called as ``progress(done, total, what)`` when a part of the work begins, during long ones, and at the end."""

Numbers = Mapping[str, NDArray[Any]]
"""The arrays of a figure by their names: numbers, or text; what its npz file holds."""


@dataclass(frozen=True)
class Paper:
    """Whose figures the modules of a package are: ``PAPER`` of that package.

    Attributes
    ----------
    cited : str
        Authors and year.
    title : str
        Of the paper.
    reference, url : str
        Where it is to be had: what is written, and where that leads.
    """

    cited: str
    title: str
    reference: str
    url: str


@dataclass(frozen=True)
class Option:
    """An argument that is a figure's own.

    Attributes
    ----------
    meaning : str
        What it is.
    checked : callable
        ``checked(value, name)`` is the value as `compute` takes it; a wrong one raises ValueError or TypeError.
    quick, full : object
        What it is if it is not given, in either size.
    """

    meaning: str
    checked: Callable[[Any, str], Any]
    quick: Any
    full: Any

    def value(self, given: object, name: str, full: bool) -> Any:
        """What `compute` takes where the user gave `given`, or None."""
        return self.checked((self.full if full else self.quick) if given is None else given, name)


def whole(meaning: str, quick: int, full: int | None = None, *, at_least: int) -> Option:
    """A whole number; the same in both sizes if `full` is left out."""
    return Option(meaning, partial(validate.integer, at_least=at_least), quick, quick if full is None else full)


def rising(meaning: str, quick: Sequence[int], full: Sequence[int], *, at_least: int) -> Option:
    """Two or more whole numbers, each larger than the one before."""

    def checked(given: object, name: str) -> tuple[int, ...]:
        each = enumerate(validate.sequence(given, name, "integers"))
        sizes = tuple(validate.integer(n, f"{name}[{i}]", at_least=at_least) for i, n in each)
        if len(sizes) < 2 or any(b <= a for a, b in itertools.pairwise(sizes)):
            raise ValueError(f"{name}: expected two or more increasing numbers, got {list(sizes)}")
        return sizes

    return Option(meaning, checked, quick, full)


def one_of(meaning: str, *names: str) -> Option:
    """One of the names; the first if it is not given."""
    return Option(meaning, partial(validate.choice, options=names), names[0], names[0])


def flag(meaning: str, default: bool) -> Option:
    """True or False."""
    return Option(meaning, validate.flag, default, default)


@dataclass(frozen=True)
class Job:
    """What every figure is asked for.

    Attributes
    ----------
    full : bool
        The paper's own sizes instead of quick ones.
    seed : int
        Of everything drawn at random.
    n_threads : int or None
        For the simulations.
    tell : callable
        ``tell(done, total, what)`` when a part of the work begins; that all is done is told by others.
    own : mapping
        The figure's own options, every one of them.
    """

    full: bool
    seed: int
    n_threads: int | None
    tell: Progress
    own: Mapping[str, Any]


def _own_options(job: Job, numbers: Numbers) -> Mapping[str, Any]:
    return job.own


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A figure: ``RECIPE`` of its module, whose docstring says what the paper gives and what was chosen.

    Attributes
    ----------
    title : str
        One line saying what it shows.
    inches : (float, float)
        Width and height.
    compute : callable
        ``compute(job, **own)`` returns the numbers by name, all that `check` and `draw` need.
    check : callable
        ``check(numbers)`` returns the rows of theory against measurement.
    draw : callable
        ``draw(figure, numbers)`` fills an empty matplotlib figure. It works out nothing that takes time, for `redraw`
        calls it with the numbers of a file.
    options : mapping of str to Option
        Keyword arguments of `compute` that a user may give.
    settings : callable
        ``settings(job, numbers)`` returns what is shown of how the figure was made, beside size and seed; the own
        options if it is left out.
    random : bool
        Whether the seed matters.
    single : sequence of str
        Names of the arrays that are kept in single precision. They are drawn so too; the checks see what was computed.
    """

    title: str
    inches: tuple[float, float]
    compute: Callable[..., Mapping[str, ArrayLike]]
    check: Callable[[Numbers], list[Check]]
    draw: Callable[[Figure, Numbers], None]
    options: Mapping[str, Option] = field(default_factory=dict)
    settings: Callable[[Job, Numbers], Mapping[str, Any]] = _own_options
    random: bool = True
    single: Sequence[str] = ()

    def kept(self, numbers: Numbers) -> dict[str, NDArray[Any]]:
        """The numbers as the file has them."""
        return {key: value.astype(np.float32) if key in self.single else value for key, value in numbers.items()}
