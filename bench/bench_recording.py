"""What it costs pydln to record at every tenth step."""

from __future__ import annotations

import pytest
from protocol import Contender, measure
from replay import measured_time, replay
from workloads import WORKLOADS

NAMES = ("G2", "G3", "G4", "G5")
HEADING = "Recording at every tenth step, one pinned thread, float64"
COLUMNS = ("workload", "recorded", "GFLOP/s", "% of probe", "time added", "spread", "rounds")
CONTENDERS = [
    Contender("nothing", "pydln_descent", {"record": []}),
    Contender("loss", "pydln_descent", {"record": ["loss"]}),
    Contender("loss, strengths", "pydln_descent", {"record": ["loss", "strengths"]}),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.benchmark(timer=measured_time)
def bench_recording(name, settings, report, benchmark):
    benchmark.group = "recording loss and strengths, seconds a step of the ensemble"
    workload = WORKLOADS[name].sized(dtype="float64", small=settings.quick)
    found = measure(CONTENDERS, workload, settings)
    report.measured[f"recording {name}"] = found.as_json()
    table = report.table(HEADING, COLUMNS)
    if problem := found.problem(*(c.key for c in CONTENDERS)):
        pytest.fail(problem)
    for c in CONTENDERS:
        if settings.quick:
            table.rows.append((name, c.key, "result right", "", "", "", found.kept_of_all))
            continue
        r, bare = found.results[c.key], found.results["nothing"]
        added = "" if r is bare else f"{100 * (bare.gflops / r.gflops - 1):.1f} %"
        figures = (f"{r.gflops:.2f}", f"{100 * r.of_probe:.1f}", added, f"{100 * r.spread:.1f} %")
        table.rows.append((name, c.key, *figures, found.kept_of_all))
    replay(benchmark, found.results["loss, strengths"].step_seconds)
