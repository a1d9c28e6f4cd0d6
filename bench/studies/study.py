"""What the studies have in common: cases, programs, and how one is run by hand."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from clock import timed

EVERY = 10  # steps between records
ALLOWED = 1e-10  # of the largest number of the figure


@dataclass(frozen=True, kw_only=True)
class Case:
    """An ensemble of a study, or a part of it: `members` of the `all_members`, evenly spread, for `steps` steps."""

    study: str
    name: str
    widths: tuple[int, ...]
    all_members: int
    all_steps: int
    members: int = 0
    steps: int = 0
    lr: float
    settings: Mapping[str, Any] = field(default_factory=dict)

    dtype = "float64"

    @property
    def numbers(self) -> np.ndarray:
        """(members,) places in the whole ensemble."""
        return np.arange(self.members) * self.all_members // self.members

    @property
    def records(self) -> int:
        """How often something is recorded, the start included."""
        return self.steps // EVERY + 1

    @property
    def step_flops(self) -> float:
        """Least work of one step of one network, as in workloads.py."""
        sizes = [rows * inner for inner, rows in zip(self.widths[:-1], self.widths[1:], strict=True)]
        return 6.0 * min(self.widths[-1] * sum(sizes[:-1]), self.widths[0] * sum(sizes[1:]))

    def for_worker(self) -> dict[str, Any]:
        """What worker.py finds it by."""
        return {"study": self.study, "case": self.name}

    def sized(self, members: int, steps: int) -> Self:
        """The part with so many members and steps."""
        return replace(self, members=members, steps=steps)

    def small(self) -> Self:
        """A part that takes no time, to be checked."""
        return self.sized(3, 4 * EVERY)

    def prepare(self) -> None:
        """Make everything that is given to a program."""
        raise NotImplementedError

    def expected(self) -> np.ndarray:
        """The numbers of the figure by the specification."""
        raise NotImplementedError


@dataclass(frozen=True)
class Program:
    """One way to the figure.

    Parameters
    ----------
    label : name in the table
    run : from a case to the numbers of the figure, (members, records, ...)
    part : case → network-steps that take a second or a few, which is what is timed; the rest is scaled
    needs : package that is used
    argument : argument of pydln.gradient_descent that is used
    """

    label: str
    run: Callable[[Any], np.ndarray]
    part: Mapping[str, float]
    needs: str = "numpy"
    argument: str | None = None

    def missing(self) -> str | None:
        """What is not there, if so; imports what is."""
        if importlib.util.find_spec(self.needs) is None:
            return self.needs
        module = importlib.import_module(self.needs)
        if self.argument and self.argument not in inspect.signature(module.gradient_descent).parameters:
            return f"{self.argument}= in gradient_descent yet"
        return None

    def timed_part(self, case: Case, fraction: float | None = None) -> Case:
        """The part of the case that is timed: members for all steps, or one member for some."""
        if fraction is not None:
            return case.sized(max(1, round(fraction * case.all_members)), case.all_steps)
        members = min(case.all_members, max(1, round(self.part[case.name] / case.all_steps)))
        steps = min(case.all_steps, round(self.part[case.name] / members / EVERY) * EVERY)
        return case.sized(members, max(steps, EVERY))

    def error(self, case: Case) -> float:
        """Largest difference of a small part from the specification, relative to the largest number."""
        small = case.small()
        right = small.expected()
        return float(np.abs(self.run(small) - right).max() / np.abs(right).max())


def main(module: Any) -> None:
    """Run programs of a study by hand: no pinning, no probes, once."""
    parser = argparse.ArgumentParser(description=module.__doc__)
    parser.add_argument("--case", choices=module.CASES, default=next(iter(module.CASES)))
    parser.add_argument("--program", choices=module.PROGRAMS, default="pydln")
    parser.add_argument("--fraction", type=float, help="of the members; default: what takes a second or a few")
    arguments = parser.parse_args()
    program, whole = module.PROGRAMS[arguments.program], module.CASES[arguments.case]
    if missing := program.missing():
        parser.exit(1, f"{program.label}: there is no {missing}\n")
    error = program.error(whole)
    case = program.timed_part(whole, arguments.fraction)
    case.prepare()
    seconds = timed(program.run, case).seconds
    rate = case.members * case.steps / seconds
    print(f"{case.name}, {program.label}: {error:.1e} from the specification")
    print(f"{case.members} of {case.all_members} members, {case.steps} of {case.all_steps} steps: {seconds:.2f} s")
    print(f"{rate:.3g} network-steps/s; the whole study takes {whole.all_members * whole.all_steps / rate:.3g} s")
