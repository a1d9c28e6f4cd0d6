"""A trajectory as an xarray Dataset."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pydln.errors import MissingExtra
from pydln.quantities import QUANTITIES
from pydln.trajectory.status import Status

if TYPE_CHECKING:
    import xarray

    from pydln.trajectory.trajectory import Trajectory

__all__ = ["to_dataset"]

_COUNTS = {
    "stopped_step": "step at which the member stopped",
    "integrator_steps": "steps of the integrator",
    "rejected": "steps that the integrator rejected",
}


def to_dataset(run: Trajectory) -> xarray.Dataset:
    """`Trajectory.to_xarray`."""
    try:
        import xarray as xr
    except ImportError:
        raise MissingExtra.of("xarray", "data", "Trajectory.to_xarray") from None

    # Members that share their times have these as the coordinate of the dimension itself.
    shared = run.t.ndim == 1
    along = "t" if shared else "time"
    time_axes = ("batch", along)
    variables: dict[str, Any] = {}
    for name in run.names:
        entry = QUANTITIES.get(name)
        meaning = {} if entry is None else {"long_name": entry.meaning}
        if name == "weights":
            depth = len(run.weights)
            units = ["in_", *(f"unit_{k}" for k in range(1, depth)), "out"]
            for k, layer in enumerate(run.weights):
                variables[f"W_{k + 1}"] = ((*time_axes, units[k + 1], units[k]), layer)
        else:
            variables[name] = ((*time_axes, *_axes(name, run._records[name].ndim - 2)), run._records[name], meaning)
    coords: dict[str, Any] = {
        "t": (along if shared else time_axes, run.t, {"units": "tau", "long_name": "time in units of tau = 1/lr"}),
        "batch": np.arange(run.batch),
        "status": (
            "batch",
            run.status,
            {"flag_values": [int(s) for s in Status], "flag_meanings": " ".join(s.name.lower() for s in Status)},
        ),
        "stopped_time": ("batch", run.stopped_time, {"units": "tau", "long_name": "time at which the member stopped"}),
    }
    for name, what in _COUNTS.items():
        if (counts := getattr(run, name)) is not None:
            coords[name] = ("batch", counts, {"long_name": what})
    if run.steps is not None:
        coords["steps"] = (along, run.steps, {"long_name": "steps of gradient descent"})
    if "layer_norms" in run._records:
        coords["layer"] = np.arange(1, run.layer_norms.shape[2] + 1)
    coords |= {f"reduced_{name}": ("batch", members) for name, members in run._reduced.items()}
    attributes: dict[str, Any] = {"source": run.source}
    for name, value in run.settings.items():
        free = f"setting_{name}" if name in coords or name in variables or name == "source" else name
        if isinstance(value, np.ndarray):
            coords[free] = (("batch", *(f"{free}_{k}" for k in range(1, value.ndim))), value)
        else:
            attributes[free] = _attribute(value)
    return xr.Dataset(variables, coords=coords, attrs=attributes)


def _axes(name: str, count: int) -> tuple[str, ...]:
    return QUANTITIES[name].axes if name in QUANTITIES else tuple(f"{name}_{k}" for k in range(1, count + 1))


def _attribute(value: Any) -> Any:
    """`value` as a type that netCDF stores: text, a number, or a list of numbers."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list) and value and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return value
    return json.dumps(value)
