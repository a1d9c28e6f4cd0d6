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
    _tabulate(found, CASES[case], report.table(HEADING, COLUMNS), settings)
    if problem := found.problem(*(key for key in PROGRAMS if key not in found.missing)):
        pytest.fail(problem)
    replay(benchmark, found.results["pydln"].step_seconds)


def _tabulate(found, case, table, settings):
    own = found.results.get("pydln")
    for key, program in PROGRAMS.items():
        place = (case.name, program.label)
        if key in found.missing:
            table.rows.append((*place, "", f"skipped: no {found.missing[key]}", "", "", "", ""))
            continue
        place = (*place, f"{found.errors[key]:.1e}")
        if key in found.wrong:
            table.rows.append((*place, "wrong result", "", "", "", ""))
        elif settings.quick or not found.kept:
            table.rows.append((*place, "result right", "", "", "", found.kept_of_all))
        else:
            r = found.results[key]
            table.rows.append(
                (
                    *place,
                    f"{found.steps[key][0]}",
                    f"{r.gflops * 1e3 / case.step_flops:.1f}",
                    "" if own is None or r is own else f"×{own.gflops / r.gflops:.1f}",
                    f"{100 * r.spread:.1f} %",
                    found.kept_of_all,
                )
            )
    note = (
        "The error is the largest of 8 modes at 64 times against arithmetic of 80 digits; the modes are worked on in "
        "blocks of 16384. An array for all, 512 MB, takes as much longer as the system takes to provide it."
    )
    if note not in table.notes:
        table.notes.append(note)
