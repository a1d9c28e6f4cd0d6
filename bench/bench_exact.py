"""Exact solutions of a million balanced modes: pydln looks them up, heyoka integrates them to the same error."""

from __future__ import annotations

import pytest
from protocol import Contender, measure
from replay import measured_time, replay
from studies.balanced_modes import CASES, PROGRAMS

HEADING = "Balanced modes (M1), one pinned thread, float64"
COLUMNS = (
    "case",
    "program",
    "largest relative error",
    "timed modes",
    "million points/s",
    "pydln is faster by",
    "spread",
    "rounds",
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.benchmark(timer=measured_time)
def bench_exact(case, settings, report, benchmark):
    benchmark.group = "exact, seconds a point"
    found = measure([Contender(key, key) for key in PROGRAMS], CASES[case], settings)
    report.measured[f"exact {case}"] = found.as_json()
    report.versions |= found.versions
    flops = CASES[case].step_flops

    def figures(key, result):
        return f"{found.steps[key][0]}", f"{result.gflops * 1e3 / flops:.1f}"

    table = report.table(HEADING, COLUMNS)
    table.programs(found, PROGRAMS, CASES[case].name, settings, figures, errors=True)
    table.note(
        "The error is the largest of 8 modes at 64 times against arithmetic of 80 digits; the modes are worked on in "
        "blocks of 16384. An array for all, 512 MB, takes as much longer as the system takes to provide it."
    )
    if problem := found.problem(*(key for key in PROGRAMS if key not in found.missing)):
        pytest.fail(problem)
    replay(benchmark, found.results["pydln"].step_seconds)
