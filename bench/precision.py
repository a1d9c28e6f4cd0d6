"""Work against precision: what a trajectory costs a solver at each error, in numbers and as a picture."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from picture import finish

# One colour per solver, one marker per method.
COLORS = {"pydln": "#c1272d", "heyoka": "#1f77b4", "numbalsoda": "#e69f00", "diffrax": "#8c6bb1"}
MARKERS = {"tsit5": "o", "dop853": "s", "taylor": "o", "lsoda": "^", "dopri8": "s"}


def reached(found: Any, label: str, level: float) -> tuple[float | None, float]:
    """Seconds a trajectory takes one method of a solver to an error, and the spread of what is nearest.

    Between two tolerances log seconds are linear in log error; beyond the coarsest tolerance tried its seconds count,
    for coarser ones save next to nothing; beyond the finest the error is not reached.
    """
    keys = [key for key, its in found.labels.items() if its == label and key in found.results]
    points = sorted((found.errors[key], statistics.median(found.results[key].step_seconds), key) for key in keys)
    if not points or points[0][0] > level:
        return None, 0.0
    errors, seconds = np.log([p[0] for p in points]), np.log([p[1] for p in points])
    nearest = points[int(np.abs(errors - np.log(level)).argmin())][2]
    return float(np.exp(np.interp(np.log(level), errors, seconds))), found.results[nearest].spread


def draw(measured: dict[str, Any], folder: Path) -> list[Path]:
    """PNG and SVG of the flows in `measured` (results.json); none where there is nothing to draw."""
    flows = {entry["flow"]: entry for entry in measured.values() if "flow" in entry and entry.get("kept")}
    if not flows:
        return []
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return []
    figure = Figure(figsize=(3.2 * len(flows) + 1.6, 3.8), layout="constrained")
    panels = figure.subplots(1, len(flows), squeeze=False)[0]
    shown = {}
    for panel, (name, entry) in zip(panels, flows.items(), strict=True):
        curves: dict[str, list[tuple[float, float]]] = {}
        for key, result in entry["results"].items():
            curves.setdefault(entry["labels"][key], []).append((entry["errors"][key], 1e-9 / result["gflops"]))
        for label, points in curves.items():
            solver, method = label.split()
            errors, seconds = zip(*sorted(points), strict=True)
            shown[label] = panel.loglog(
                errors,
                seconds,
                color=COLORS[solver],
                marker=MARKERS[method],
                markersize=5,
                linestyle="-" if MARKERS[method] == "o" else "--",
                zorder=3 if solver == "pydln" else 2,
            )[0]
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("largest error")
        panel.grid(color="0.9", linewidth=0.6)
    panels[0].set_ylabel("seconds a trajectory, one thread")
    return finish(figure, panels, shown, folder, "precision")
