"""Singular values of batches of small matrices: pydln's kernel beside LAPACK, as three libraries call it."""

from __future__ import annotations

import pytest
from protocol import Contender, measure
from replay import measured_time, replay
from studies.singular_values import CASES, PROGRAMS

HEADING = "Singular values without vectors, one pinned thread, float64"
COLUMNS = ("matrices", "program", "largest error", "µs a matrix", "pydln is faster by", "spread", "rounds")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.benchmark(timer=measured_time)
def bench_spectra(case, settings, report, benchmark):
    benchmark.group = "spectra, seconds a matrix"
    found = measure([Contender(key, key) for key in PROGRAMS], CASES[case], settings)
    report.measured[f"spectra {case}"] = found.as_json()
    report.versions |= found.versions
    table = report.table(HEADING, COLUMNS)
    table.programs(found, PROGRAMS, CASES[case].name, settings, _figures, errors=True)
    table.note("The error is the largest of six matrices, relative to the largest value of all, against 30 digits.")
    if problem := found.problem(*(key for key in PROGRAMS if key not in found.missing)):
        pytest.fail(problem)
    replay(benchmark, found.results["pydln"].step_seconds)


def _figures(key, result):
    return (f"{1e-3 / result.gflops:.3g}",)
