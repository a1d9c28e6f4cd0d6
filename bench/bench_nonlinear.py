"""Nonlinear ensembles on samples: pydln and its peers, as studies/nonlinear.py has them."""

from __future__ import annotations

import pytest
from protocol import Contender, measure
from replay import measured_time, replay
from studies.nonlinear import CASES, PROGRAMS

HEADING = "Nonlinear networks on samples, one pinned thread, float64"
COLUMNS = ("workload", "program", "GFLOP/s", "% of probe", "pydln is faster by", "spread", "rounds")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.benchmark(timer=measured_time)
def bench_nonlinear(case, settings, report, benchmark):
    benchmark.group = "nonlinear, seconds a step of one network"
    found = measure([Contender(key, key, {}) for key in PROGRAMS], CASES[case], settings)
    report.measured[f"nonlinear {case}"] = found.as_json()
    report.versions |= found.versions
    _tabulate(found, case, report.table(HEADING, COLUMNS), settings)
    if problem := found.problem(*(key for key in PROGRAMS if key not in found.missing)):
        pytest.fail(problem)
    if "pydln" in found.missing:
        pytest.skip(found.problem("pydln"))
    replay(benchmark, found.results["pydln"].step_seconds)


def _tabulate(found, case, table, settings):
    own = found.results.get("pydln")
    for key, program in PROGRAMS.items():
        place = (case, program.label)
        if key in found.missing:
            table.rows.append((*place, f"skipped: no {found.missing[key]}", "", "", "", ""))
        elif key in found.wrong:
            table.rows.append((*place, "wrong result", "", "", "", ""))
        elif settings.quick or not found.kept:
            table.rows.append((*place, "result right", "", "", "", found.kept_of_all))
        else:
            r = found.results[key]
            table.rows.append(
                (
                    *place,
                    f"{r.gflops:.2f}",
                    f"{100 * r.of_probe:.1f}",
                    "" if own is None or r is own else f"×{own.gflops / r.gflops:.1f}",
                    f"{100 * r.spread:.1f} %",
                    found.kept_of_all,
                )
            )
