"""Published studies as whole programs: pydln, what a researcher would write, and the best that peers can do."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from protocol import Contender, measure
from replay import measured_time, replay

HEADING = "Published studies, one pinned thread, float64"
COLUMNS = (
    "study",
    "program",
    "timed: networks × steps",
    "thousand network-steps/s",
    "whole study",
    "pydln is faster by",
    "spread",
    "rounds",
)
FOLDER = Path(__file__).with_name("studies")
STUDIES = {
    path.stem: importlib.import_module(f"studies.{path.stem}")
    for path in sorted(FOLDER.glob("*.py"))
    if path.stem not in ("__init__", "study", "peers", "balanced_modes", "nonlinear", "singular_values")
}
CASES = {case.name: case for module in STUDIES.values() for case in module.CASES.values()}


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.benchmark(timer=measured_time)
def bench_studies(case, settings, report, benchmark):
    benchmark.group = "studies, seconds a step of one network"
    whole = CASES[case]
    programs = STUDIES[whole.study].PROGRAMS
    options = {} if settings.fraction is None else {"fraction": settings.fraction}
    found = measure([Contender(key, key, options) for key in programs], whole, settings)
    report.measured[f"study {case}"] = found.as_json()
    report.versions |= found.versions

    def figures(key, result):
        members, steps = found.steps[key]
        rate = result.gflops * 1e9 / whole.step_flops
        return f"{members} × {steps}", f"{rate / 1e3:.4g}", _duration(whole.all_members * whole.all_steps / rate)

    table = report.table(HEADING, COLUMNS)
    table.programs(found, programs, whole.name, settings, figures)
    table.note(
        "The whole study is what the timed part says, scaled by networks and steps: every program is timed on a part "
        "that takes it a second or a few, from its inputs to its numbers."
    )
    if problem := found.problem(*(key for key in programs if key not in found.missing)):
        pytest.fail(problem)
    if "pydln" in found.missing:
        pytest.skip(found.problem("pydln"))
    replay(benchmark, found.results["pydln"].step_seconds)


def _duration(seconds):
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
