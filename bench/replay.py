"""pytest-benchmark beside the protocol: it is shown every kept turn on a clock that stands still in between."""

from __future__ import annotations

from collections.abc import Sequence

_now = 0.0


def measured_time() -> float:
    """For ``pytest.mark.benchmark(timer=...)``: the measured time shown so far, in seconds."""
    return _now


def replay(benchmark, seconds: Sequence[float]) -> None:
    """One round of the fixture per measured time."""
    ahead = iter(seconds)

    def advance() -> None:
        global _now
        _now += next(ahead)

    benchmark.pedantic(advance, rounds=len(seconds))
