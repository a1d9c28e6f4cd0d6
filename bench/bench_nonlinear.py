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
    report.table(HEADING, COLUMNS).programs(found, PROGRAMS, case, settings, _figures)
    if problem := found.problem(*(key for key in PROGRAMS if key not in found.missing)):
        pytest.fail(problem)
    if "pydln" in found.missing:
        pytest.skip(found.problem("pydln"))
    replay(benchmark, found.results["pydln"].step_seconds)


def _figures(key, result):
    return f"{result.gflops:.2f}", f"{100 * result.of_probe:.1f}"
