"""Shapes that no register block fits, beside the round size next to them: odd and unequal widths, odd batches."""

from __future__ import annotations

import pytest
from protocol import Contender, measure
from replay import measured_time, replay
from workloads import Workload

HEADING = "Shapes that no register block fits, one pinned thread, float64"
COLUMNS = ("group", "widths", "networks", "GFLOP/s", "% of probe", "of the round size", "spread", "rounds")
# The first of each group is round.
GROUPS = {
    "about 4": [((4,) * 4, 16384), ((5,) * 4, 16384), ((3, 5, 4, 2), 16384), ((5,) * 4, 16387)],
    "about 8": [((8,) * 4, 8192), ((7,) * 4, 8192), ((9, 7, 8, 6), 8192), ((8,) * 4, 8195)],
    "about 12": [((12,) * 4, 4096), ((11,) * 4, 4096), ((13,) * 4, 4096), ((13, 12, 11, 10), 4096)],
    "about 24": [((24,) * 4, 1024), ((23,) * 4, 1024), ((25, 21, 27, 23), 1024), ((23,) * 4, 1027)],
    "about 40": [((40,) * 4, 256), ((37,) * 4, 256), ((37, 41, 45, 35), 256), ((37,) * 4, 1)],
    "about 96": [((96,) * 4, 32), ((100,) * 4, 32), ((100, 91, 103, 97), 32), ((100,) * 4, 1)],
}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.benchmark(timer=measured_time)
def bench_shapes(group, settings, report, benchmark):
    benchmark.group = "shapes, seconds a step of the ensemble"
    contenders = []
    for widths, batch in GROUPS[group]:
        shape = "-".join(map(str, widths))
        workload = Workload(f"shape {shape}", widths, batch).sized(dtype="float64", small=settings.quick)
        contenders.append(Contender(f"{shape} × {batch}", "pydln_descent", subject=workload))
    found = measure(contenders, contenders[0].subject, settings)
    report.measured[f"shapes {group}"] = found.as_json()
    table = report.table(HEADING, COLUMNS)
    if problem := found.problem(*(c.key for c in contenders)):
        pytest.fail(problem)
    round_size = found.results[contenders[0].key]
    for contender, (widths, batch) in zip(contenders, GROUPS[group], strict=True):
        place = (group, "-".join(map(str, widths)), str(batch))
        if settings.quick:
            table.rows.append((*place, "result right", "", "", "", found.kept_of_all))
            continue
        r = found.results[contender.key]
        relative = "" if r is round_size else f"{100 * r.of_probe / round_size.of_probe:.0f} %"
        figures = (f"{r.gflops:.2f}", f"{100 * r.of_probe:.1f}", relative, f"{100 * r.spread:.1f} %")
        table.rows.append((*place, *figures, found.kept_of_all))
    replay(benchmark, round_size.step_seconds)
