"""Gradient flow, integrated: pydln and the ODE solvers of others, the time they take to equal errors."""

from __future__ import annotations

import pytest
from flows.cases import CASES
from precision import reached
from protocol import Contender, measure
from replay import measured_time, replay

HEADING = "Gradient flow, time to equal errors, one pinned thread, float64"
COLUMNS = (
    "case",
    "error",
    "solver",
    "method",
    "thousand trajectories/s",
    "pydln is faster by",
    "spread",
    "rounds",
)
# Tolerances whose errors lie on both sides of those that are compared, as far as a solver gets there.
MODES = {
    ("pydln_flow", "tsit5"): (1e-6, 1e-7, 1e-8),
    ("pydln_flow", "dop853"): (1e-7, 1e-9, 1e-11),
    ("heyoka_taylor", "taylor"): (1e-5, 1e-7, 1e-10),
    ("numbalsoda_ode", "lsoda"): (1e-8, 1e-10, 1e-12),
    ("numbalsoda_ode", "dop853"): (1e-8, 1e-10, 1e-12),
    ("diffrax_vmap", "tsit5"): (1e-6, 1e-8, 1e-10),
    ("diffrax_vmap", "dopri8"): (1e-6, 1e-9, 1e-12),
}
NETWORKS = {
    ("pydln_flow", "tsit5"): (1e-6, 1e-7, 1e-8),
    ("pydln_flow", "dop853"): (1e-7, 1e-8, 1e-9),
    ("diffrax_vmap", "tsit5"): (1e-6, 1e-7, 1e-8),
    ("diffrax_vmap", "dopri8"): (1e-6, 1e-7, 1e-8),
}


def contenders(case, small):
    """Every solver at every tolerance; the first of each method if all are small."""
    tolerances = MODES if case.name.startswith("M2") else NETWORKS
    return [
        Contender(f"{module} {method} {rtol:.0e}", module, {"method": method, "rtol": rtol, "small": small})
        for (module, method), rtols in tolerances.items()
        for rtol in (rtols[:1] if small else rtols)
    ]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.benchmark(timer=measured_time)
def bench_flow(case, settings, report, benchmark):
    benchmark.group = "flow, seconds a trajectory"
    found = measure(contenders(CASES[case], settings.quick), CASES[case], settings)
    report.measured[f"flow {case}"] = found.as_json()
    report.versions |= found.versions
    _tabulate(found, CASES[case], report.table(HEADING, COLUMNS), settings)
    if problem := found.problem(*(key for key in found.labels if key not in found.missing)):
        pytest.fail(problem)
    replay(benchmark, next(r for key, r in found.results.items() if key.startswith("pydln")).step_seconds)


def _tabulate(found, case, table, settings):
    for key, package in found.missing.items():
        row = (case.name, "", *key.split()[:2], f"skipped: no {package}", "", "", "")
        if row not in table.rows:
            table.rows.append(row)
    if settings.quick or not found.kept:
        for key, label in found.labels.items():
            verdict = "wrong result" if key in found.wrong else "result right"
            table.rows.append((case.name, "", *label.split(), verdict, "", "", found.kept_of_all))
        return
    for level in case.levels:
        best = {}
        for label in dict.fromkeys(found.labels.values()):
            solver, method = label.split()
            seconds, spread = reached(found, label, level)
            if seconds is not None and (solver not in best or seconds < best[solver][0]):
                best[solver] = seconds, spread, method
        for solver in dict.fromkeys(label.split()[0] for label in found.labels.values()):
            if solver not in best:
                table.rows.append((case.name, f"{level:.0e}", solver, "", "not reached", "", "", found.kept_of_all))
                continue
            seconds, spread, method = best[solver]
            own = best.get("pydln")
            faster = "" if own is None or solver == "pydln" else f"×{seconds / own[0]:.1f}"
            rate = f"{1e-3 / seconds:.4g}"
            row = (case.name, f"{level:.0e}", solver, method, rate, faster, f"{100 * spread:.1f} %", found.kept_of_all)
            table.rows.append(row)
    table.note(
        "The error is the largest at any of the times saved and any of the first trajectories, relative to the largest "
        "number; the time to an error is interpolated between tolerances, log against log, and of the methods of a "
        "solver the fastest counts."
    )
