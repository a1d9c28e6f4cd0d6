"""Full-batch gradient descent of ensembles, loss recorded at every tenth step: pydln and its peers."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from methods.prototype import FOLDER
from protocol import Contender, measure
from replay import measured_time, replay
from workloads import WORKLOADS

HEADING = "Gradient descent, one pinned thread"
COLUMNS = (
    "workload",
    "dtype",
    "method",
    "GFLOP/s",
    "% of probe",
    "% of memory",
    "pydln is faster by",
    "spread",
    "rounds",
)
CONTENDERS = {
    c.key: c
    for c in (
        Contender("pydln", "pydln_descent"),
        *([Contender("prototype", "prototype")] if FOLDER in os.environ else []),
        Contender("numpy-matmul", "numpy_matmul"),
        Contender("numpy-loop", "numpy_loop"),
        Contender("numba-loops", "numba_loops"),
        Contender("numba-dot", "numba_dot"),
        Contender("torch-bmm", "torch_bmm"),
        Contender("torch-autograd", "torch_autograd"),
        Contender("torch-vmap", "torch_vmap"),
        Contender("torch-compile", "torch_compile"),
        Contender("jax-manual", "jax_manual"),
        Contender("jax-grad", "jax_grad"),
    )
}
DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class LeftOut:
    """Contenders that are not run on some workloads, and why."""

    keys: tuple[str, ...]
    why: str
    names: tuple[str, ...] = tuple(WORKLOADS)
    dtypes: tuple[str, ...] = DTYPES
    impossible: bool = False  # otherwise --all-peers runs them

    def holds(self, key: str, name: str, dtype: str) -> bool:
        return key in self.keys and name in self.names and dtype in self.dtypes


LEFT_OUT = (
    LeftOut(
        ("numba-loops",),
        "numba loops: not on G7a and G7b; lengths known to the compiler, one for all layers, are what makes them fast",
        ("G7a", "G7b"),
        impossible=True,
    ),
    LeftOut(("numba-loops",), "numba loops: not on G5 and G6, where loops without blocks are no match", ("G5", "G6")),
    LeftOut(
        ("numba-dot",),
        "numba dot: not on G7a and G7b, nor on G5 and G6 in float32, where it makes the same calls of BLAS as NumPy",
        ("G7a", "G7b"),
    ),
    LeftOut(("numba-dot",), "", ("G5", "G6"), ("float32",)),
    LeftOut(
        ("numpy-loop",),
        "NumPy loop: in float64 on G4 and G6 only; the interpreter takes seconds for ten steps of G1, and one network "
        "(G7) is a loop already",
        ("G1", "G2", "G3", "G5", "G7a", "G7b"),
    ),
    LeftOut(("numpy-loop",), "", dtypes=("float32",)),
    LeftOut(
        ("torch-autograd", "torch-vmap", "torch-compile", "jax-grad"),
        "PyTorch autograd, vmap and compile, JAX grad: in float64 on G3 and G7a only, to save time",
        ("G1", "G2", "G4", "G5", "G6", "G7b"),
    ),
    LeftOut(("torch-autograd", "torch-vmap", "torch-compile", "jax-grad"), "", dtypes=("float32",)),
    LeftOut(
        ("torch-bmm", "jax-manual"),
        "PyTorch bmm and JAX manual: in float32 on G3 to G7b and on G3, G5 and G7a only, to save time",
        ("G1", "G2"),
        ("float32",),
    ),
    LeftOut(("jax-manual",), "", ("G4", "G6", "G7b"), ("float32",)),
)


def _left_out(key, name, dtype, settings):
    """The entry that keeps a contender out of this run, if any. A quick run leaves out only what cannot be done."""
    everything = settings.quick or settings.all_peers
    return next((e for e in LEFT_OUT if e.holds(key, name, dtype) and (e.impossible or not everything)), None)


@pytest.fixture(scope="session")
def measured(settings, report, request):
    """``measured(workload, dtype)``: the contenders that were asked for, and pydln, in one interleaved run."""
    wanted = {item.callspec.params["key"] for item in request.session.items if item.originalname == "bench_descent"}
    done = {}

    def get(name, dtype):
        if (name, dtype) not in done:
            asked = [c for key, c in CONTENDERS.items() if key in wanted | {"pydln"}]
            contenders = [c for c in asked if not _left_out(c.key, name, dtype, settings)]
            workload = WORKLOADS[name].sized(dtype=dtype, small=settings.quick)
            found = done[name, dtype] = measure(contenders, workload, settings)
            report.measured[f"descent {name} {dtype}"] = found.as_json()
            report.versions |= found.versions
            _tabulate(found, workload, report, settings)
        return done[name, dtype]

    return get


@pytest.mark.parametrize("key", CONTENDERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.benchmark(timer=measured_time)
def bench_descent(name, dtype, key, measured, settings, report, benchmark):
    benchmark.group = f"{name} {dtype}, seconds a step of the ensemble"
    if entry := _left_out(key, name, dtype, settings):
        notes = report.table(HEADING, COLUMNS).notes
        if entry.why and f"Not run, {entry.why}." not in notes:
            notes.append(f"Not run, {entry.why}.")
        pytest.skip(entry.why or "left out, as the table says")
    found = measured(name, dtype)
    if problem := found.problem(key):
        (pytest.skip if key in found.missing and key != "pydln" else pytest.fail)(problem)
    benchmark.extra_info |= {"GFLOP/s": found.results[key].gflops, "of probe": found.results[key].of_probe}
    replay(benchmark, found.results[key].step_seconds)


def _tabulate(found, workload, report, settings):
    table = report.table(HEADING, COLUMNS)
    own = found.results.get("pydln")
    for key in [key for key in CONTENDERS if key in found.missing or key in found.labels]:
        place = (workload.name, workload.dtype, found.labels.get(key, key))
        if key in found.missing:
            table.rows.append((*place, f"skipped: no {found.missing[key]}", "", "", "", "", ""))
        elif key in found.wrong:
            table.rows.append((*place, "wrong result", "", "", "", "", ""))
        elif settings.quick or not found.kept:
            table.rows.append((*place, "result right", "", "", "", "", found.kept_of_all))
        else:
            r = found.results[key]
            table.rows.append(
                (
                    *place,
                    f"{r.gflops:.2f}",
                    f"{100 * r.of_probe:.1f}",
                    f"{100 * r.of_memory(workload.step_bytes):.1f}" if workload.streamed else "",
                    "" if own is None or r is own else f"×{own.gflops / r.gflops:.1f}",
                    f"{100 * r.spread:.1f} %",
                    found.kept_of_all,
                )
            )
    if workload.streamed and found.kept and not settings.quick and own is not None:
        gigabytes = workload.step_bytes * own.gflops / workload.step_flops
        table.notes.append(
            f"{workload.name} {workload.dtype}: pydln moves {gigabytes:.1f} GB/s in two reads and one write of the "
            f"weights; the memory probe, which does that and no more, {own.memory_probe:.1f} GB/s."
        )
