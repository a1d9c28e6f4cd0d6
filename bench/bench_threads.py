"""Two threads on two cores beside one on one, and how the machine's limit grows meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from protocol import Contender, measure
from replay import measured_time, replay
from workloads import WORKLOADS

NAMES = ("G2", "G4", "G6")
HEADING = "Two threads on two cores, float64"
COLUMNS = ("workload", "GFLOP/s, one", "GFLOP/s, two", "pydln grows by", "probe grows by", "spread", "rounds")
ONE = Contender("one", "pydln_descent", {"threads": 1})
TWO = Contender("two", "pydln_descent", {"threads": 2}, threads=2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.benchmark(timer=measured_time)
def bench_threads(name, settings, report, benchmark):
    benchmark.group = "two threads, seconds a step of the ensemble"
    if len(settings.cores) < 2:
        pytest.skip("one core only")
    workload = WORKLOADS[name].sized(dtype="float64", small=settings.quick)
    # Processor time says nothing about threads that run side by side.
    found = measure([ONE, TWO], workload, replace(settings, clock="wall"))
    report.measured[f"threads {name}"] = found.as_json()
    table = report.table(HEADING, COLUMNS)
    if problem := found.problem("one", "two"):
        pytest.fail(problem)
    if settings.quick:
        table.rows.append((name, "result right", "result right", "", "", "", found.kept_of_all))
    else:
        one, two = found.results["one"], found.results["two"]
        ratios = f"×{two.gflops / one.gflops:.2f}", f"×{two.probe / one.probe:.2f}"
        figures = (f"{one.gflops:.2f}", f"{two.gflops:.2f}", *ratios, f"{100 * two.spread:.1f} %")
        table.rows.append((name, *figures, found.kept_of_all))
    replay(benchmark, found.results["two"].step_seconds)
