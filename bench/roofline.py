"""The picture of a run: GFLOP/s of every method on every workload, below what multiply-adds and memory allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from picture import finish
from workloads import Workload

# One colour and marker per method, the same in every picture; pairs of one library share a colour.
STYLES = {
    "pydln": ("#c1272d", "o"),
    "prototype": ("#000000", "x"),
    "numpy-matmul": ("#1f77b4", "s"),
    "numpy-loop": ("#1f77b4", "D"),
    "numba-loops": ("#2ca02c", "^"),
    "numba-dot": ("#2ca02c", "v"),
    "torch-bmm": ("#e08214", "s"),
    "torch-autograd": ("#e08214", "*"),
    "torch-vmap": ("#e08214", "^"),
    "torch-compile": ("#e08214", "P"),
    "jax-manual": ("#8c6bb1", "s"),
    "jax-grad": ("#8c6bb1", "*"),
}


def draw(measured: dict[str, Any], memory: float | None, folder: Path) -> list[Path]:
    """PNG and SVG of the descent workloads in `measured` (results.json); none where there is nothing to draw.

    Parameters
    ----------
    measured : of a Report
    memory : GB/s of two reads and one write, from memory; None if unknown
    """
    found = {}
    for entry in measured.values():
        if "workload" in entry and entry.get("kept") and "pydln" in entry["results"] and entry["step_flops"]:
            workload = Workload(**entry["workload"])
            found.setdefault(workload.dtype, {}).setdefault(workload.name, (workload, entry))
    if not found:
        return []
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter
    except ModuleNotFoundError:
        return []
    figure = Figure(figsize=(5.2 * len(found) + 2.4, 4.6), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    shown = {}
    for panel, (dtype, workloads) in zip(panels, found.items(), strict=True):
        for place, (workload, entry) in enumerate(workloads.values()):
            _limits(panel, place, workload, entry, memory, shown)
            for key, result in entry["results"].items():
                color, marker = STYLES[key]
                own = key == "pydln"
                shown[entry["labels"][key]] = panel.plot(
                    place,
                    result["gflops"],
                    marker=marker,
                    color=color,
                    markerfacecolor=color if own or marker in "xP*" else "none",
                    markersize=9 if own else 6,
                    linestyle="none",
                    zorder=3 if own else 2,
                )[0]
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500]))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.set_xlim(-0.6, len(workloads) - 0.4)
        panel.set_xticks(range(len(workloads)), [_name(workload) for workload, _ in workloads.values()], fontsize=8)
        panel.set_title(dtype)
        panel.grid(axis="y", color="0.9", linewidth=0.6)
        panel.set_axisbelow(True)
    panels[0].set_ylabel("GFLOP/s of counted work, one thread")
    return finish(figure, panels, shown, folder, "roofline")


def _limits(panel, place, workload, entry, memory, shown):
    """The probe around the turns of this workload, and what memory would allow if all weights came from there."""
    ends = place - 0.4, place + 0.4
    probe = entry["results"]["pydln"]["probe"]
    shown["multiply-add probe"] = panel.plot(ends, (probe, probe), color="0.25", linewidth=1.6)[0]
    memory = entry["results"]["pydln"].get("memory", memory)
    if memory is not None:
        reach = memory * workload.step_flops / workload.step_bytes
        if reach < probe or workload.streamed:
            line = panel.plot(ends, (reach, reach), color="0.25", linewidth=1.2, linestyle=(0, (3, 2)))[0]
            shown["memory probe, weights not in caches"] = line


def _name(workload):
    widths = sorted(set(workload.widths[1:-1]))
    return f"{workload.name}\n{'-'.join(map(str, widths))}\ndepth {workload.depth}"
