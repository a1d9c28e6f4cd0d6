"""Full-batch gradient descent of ensembles, loss recorded at every tenth step: pydln and its peers."""

from __future__ import annotations

import pytest
from protocol import Contender, measure
from replay import measured_time, replay
from workloads import WORKLOADS

HEADING = "Gradient descent, one pinned thread"
COLUMNS = ("workload", "dtype", "method", "GFLOP/s", "% of probe", "pydln is faster by", "spread", "rounds")
CONTENDERS = {
    c.key: c
    for c in (
        Contender("pydln", "pydln_descent"),
        Contender("numpy-matmul", "numpy_matmul"),
        Contender("torch-bmm", "torch_bmm"),
        Contender("torch-autograd", "torch_autograd"),
        Contender("numba-loops", "numba_loops"),
        Contender("numba-dot", "numba_dot"),
    )
}
FEW = 19


@pytest.fixture(scope="session")
def measured(settings, report, request):
    """``measured(workload, dtype)``: the contenders that were asked for, and pydln, in one interleaved run."""
    wanted = {item.callspec.params["key"] for item in request.session.items if item.originalname == "bench_descent"}
    contenders = [c for key, c in CONTENDERS.items() if key in wanted | {"pydln"}]
    done = {}

    def get(name, dtype):
        if (name, dtype) not in done:
            workload = WORKLOADS[name].sized(dtype=dtype, batch=FEW if settings.quick else None)
            found = done[name, dtype] = measure(contenders, workload, settings)
            report.measured[f"descent {name} {dtype}"] = found.as_json()
            report.versions |= found.versions
            _tabulate(found, report, settings)
        return done[name, dtype]

    return get


@pytest.mark.parametrize("key", CONTENDERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.benchmark(timer=measured_time)
def bench_descent(name, dtype, key, measured, benchmark):
    benchmark.group = f"{name} {dtype}, seconds a step of the ensemble"
    found = measured(name, dtype)
    if problem := found.problem(key):
        (pytest.skip if key in found.missing and key != "pydln" else pytest.fail)(problem)
    benchmark.extra_info |= {"GFLOP/s": found.results[key].gflops, "of probe": found.results[key].of_probe}
    replay(benchmark, found.results[key].step_seconds)


def _tabulate(found, report, settings):
    table = report.table(HEADING, COLUMNS)
    own = found.results.get("pydln")
    for key in [key for key in CONTENDERS if key in found.missing or key in found.labels]:
        place = (found.workload.name, found.workload.dtype, found.labels.get(key, key))
        if key in found.missing:
            table.rows.append((*place, f"skipped: no {found.missing[key]}", "", "", "", ""))
        elif key in found.wrong:
            table.rows.append((*place, "wrong result", "", "", "", ""))
        elif settings.quick or not found.kept:
            table.rows.append((*place, "result right", "", "", "", found.kept_of_all))
        else:
            r = found.results[key]
            ratio = "" if own is None or r is own else f"×{own.gflops / r.gflops:.1f}"
            table.rows.append(
                (
                    *place,
                    f"{r.gflops:.2f}",
                    f"{100 * r.of_probe:.1f}",
                    ratio,
                    f"{100 * r.spread:.1f} %",
                    found.kept_of_all,
                )
            )
