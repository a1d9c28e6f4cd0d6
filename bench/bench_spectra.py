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
    _tabulate(found, CASES[case], report.table(HEADING, COLUMNS), settings)
    if problem := found.problem(*(key for key in PROGRAMS if key not in found.missing)):
        pytest.fail(problem)
    replay(benchmark, found.results["pydln"].step_seconds)


def _tabulate(found, case, table, settings):
    own = found.results.get("pydln")
    for key, program in PROGRAMS.items():
        place = (case.name, program.label)
        if key in found.missing:
            table.rows.append((*place, "", f"skipped: no {found.missing[key]}", "", "", ""))
            continue
        place = (*place, f"{found.errors[key]:.1e}")
        if key in found.wrong:
            table.rows.append((*place, "wrong result", "", "", ""))
        elif settings.quick or not found.kept:
            table.rows.append((*place, "result right", "", "", found.kept_of_all))
        else:
            r = found.results[key]
            faster = "" if own is None or r is own else f"×{own.gflops / r.gflops:.1f}"
            row = (f"{1e-3 / r.gflops:.3g}", faster, f"{100 * r.spread:.1f} %", found.kept_of_all)
            table.rows.append((*place, *row))
    note = "The error is the largest of six matrices, relative to the largest value of all, against 30 digits."
    if note not in table.notes:
        table.notes.append(note)
