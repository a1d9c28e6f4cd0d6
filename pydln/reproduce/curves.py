"""Kept arrays as the trajectories that `pydln.plot` draws."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory

__all__ = ["curve"]


def curve(t: NDArray[Any], *, normalize: str | None = None, **records: NDArray[Any]) -> Trajectory:
    """The trajectory of one network, each of its records without the axis of the batch.

    Parameters
    ----------
    normalize : str, optional
        Of its loss, for the label of the axis.
    """
    return Trajectory(
        t=t,
        steps=None,
        records={name: values[None] for name, values in records.items()},
        status=[Status.COMPLETED],
        stopped_time=[t.max()],
        settings={} if normalize is None else {"normalize": normalize},
        source="kept",
    )
