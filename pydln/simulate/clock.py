"""When a run records: at steps of descent, or at times of a flow."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import validate

__all__ = ["Schedule", "times_of"]

_DEFAULT_RECORDS = 200


@dataclass(frozen=True)
class Schedule:
    """Steps at which things are recorded, held so that a schedule too long to exist can still be counted."""

    last: int
    every: int
    given: NDArray[np.int64] | None

    @classmethod
    def of(cls, steps: int, at: ArrayLike | None, record_every: int | None) -> Schedule:
        """Of the arguments of `gradient_descent`, checked."""
        if at is not None:
            if record_every is not None:
                raise ValueError("record_every: expected None when `at` is given, got both")
            if isinstance(at, Sized) and not validate.is_single(at):
                validate.fits_in_memory(32 * len(at), f"at: a schedule of {len(at)} times", "record at fewer times")
            if isinstance(at, range):
                at = np.arange(at.start, at.stop, at.step)
            raw = validate.array(at, "at", shape=("time",), at_least=0, at_most=steps)
            given = raw.astype(np.int64)
            if raw.size == 0 or (given != raw).any() or (np.diff(given) <= 0).any():
                raise ValueError(
                    "at: expected increasing whole steps, at least one, got " + np.array2string(raw, threshold=6)
                )
            return cls(steps, 1, given)
        if record_every is None:
            return cls(steps, max(1, steps // _DEFAULT_RECORDS), None)
        return cls(steps, validate.integer(record_every, "record_every", at_least=1), None)

    @property
    def count(self) -> int:
        """How many there are."""
        if self.given is not None:
            return len(self.given)
        return self.last // self.every + 1 + (self.last % self.every != 0)

    def steps(self) -> NDArray[np.int64]:
        """They themselves."""
        if self.given is not None:
            return self.given
        regular = np.arange(0, self.last + 1, self.every, dtype=np.int64)
        return regular if regular[-1] == self.last else np.append(regular, np.int64(self.last))


def times_of(t: ArrayLike) -> NDArray[np.float64]:
    """Increasing times, in τ."""
    times = np.ascontiguousarray(validate.array(t, "t", shape=("time",), at_least=0), dtype=np.float64)
    if not times.size or (np.diff(times) <= 0).any():
        raise ValueError("t: expected increasing times >= 0, at least one, got " + np.array2string(times, threshold=6))
    return times
