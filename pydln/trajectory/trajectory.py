"""What a simulation and an exact solution both return: recorded quantities over time, for every member."""

from __future__ import annotations

import keyword
import os
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pydln._base import validate
from pydln.errors import NotRecorded
from pydln.quantities import QUANTITIES
from pydln.trajectory import dataset, npz, text
from pydln.trajectory.status import Status
from pydln.weights import MemberIndex, Weights, member_index

if TYPE_CHECKING:
    import xarray

__all__ = ["Trajectory"]


class Trajectory:
    """Recorded quantities of `batch` networks over time.

    Simulations and exact solutions return the same object. Recorded quantities are attributes, ``run.loss``; asking for
    one that was not recorded raises `NotRecorded`.

    Parameters
    ----------
    t : array, (time,) or (batch, time)
        Times in units of τ = 1/lr; per member when the learning rate is.
    steps : array of int, (time,), or None
        Steps of gradient descent at which things were recorded; None for an exact solution.
    records : mapping
        Name to array, names and axes as in `QUANTITIES`: ``loss`` and ``test_loss`` (batch, time), ``strengths``
        (batch, time, mode), ``product`` (batch, time, n_D, n_0), ``layer_norms`` (batch, time, D), ``kernel_distance``
        (batch, time), ``drift`` (batch, time, D - 1), ``weights`` a sequence of D arrays (batch, time, n_l, n_{l-1}).
        The loss is normalised as the task's covariances are (averages or sums). Entries after a member stopped are NaN.
    status : array of int, (batch,)
        A `Status` for every member.
    stopped_time : array, (batch,)
        Where each member stopped, in τ, whatever made it; of one that ran to the end, there. Of a member that diverged,
        the first time that was looked at where something is not finite.
    stopped_step : array of int, (batch,), optional
        The same in steps of gradient descent; None where there are none.
    integrator_steps, rejected : arrays of int, (batch,), optional
        Steps that the integrator of a flow kept and rejected; None where there is none.
    final : Weights, optional
        The weights where each member ended.
    settings : mapping, optional
        What the run was made with: text, numbers, booleans, None, and lists and dictionaries of these. A NumPy array
        holds one entry per member along its first axis and follows the members when they are picked.
    source : str
        ``"gradient_descent"``, ``"train_nonlinear"``, ``"gradient_flow"``, ``"mode_flow"``, ``"end_to_end_flow"``,
        ``"singular_flow"``, or ``"exact:"`` and the name of the solution.
    reduced : mapping, optional
        Name of a reduction to a boolean array, (batch,): which members were run so. See `reduced`.

    Raises
    ------
    ValueError, TypeError
        Shapes, names or settings that do not fit together.

    Notes
    -----
    The arrays are taken over, not copied, and are read-only through the trajectory. Indexing picks members and keeps
    the batch axis.
    """

    t: NDArray[np.float64]
    steps: NDArray[np.int64] | None
    status: NDArray[np.int64]
    stopped_time: NDArray[np.float64]
    stopped_step: NDArray[np.int64] | None
    integrator_steps: NDArray[np.int64] | None
    rejected: NDArray[np.int64] | None
    final: Weights | None
    settings: dict[str, Any]
    source: str
    loss: NDArray[Any]
    test_loss: NDArray[Any]
    strengths: NDArray[Any]
    product: NDArray[Any]
    layer_norms: NDArray[Any]
    kernel_distance: NDArray[Any]
    drift: NDArray[Any]
    weights: tuple[NDArray[Any], ...]

    def __init__(
        self,
        *,
        t: Any,
        steps: Any,
        records: Mapping[str, Any],
        status: Any,
        stopped_time: Any,
        stopped_step: Any = None,
        integrator_steps: Any = None,
        rejected: Any = None,
        final: Weights | None = None,
        settings: Mapping[str, Any] | None = None,
        source: str,
        reduced: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = _locked(status, "status", np.int64)
        if self.status.ndim != 1:
            raise ValueError(f"status: expected (batch,), got {self.status.shape}")
        batch = len(self.status)
        unknown = self.status[(self.status < min(Status)) | (self.status > max(Status))]
        if unknown.size:
            raise ValueError(f"status: expected values of Status, {min(Status)} ... {max(Status)}, got {unknown[0]}")
        self.stopped_time = _locked(stopped_time, "stopped_time", np.float64)
        _expect("stopped_time", self.stopped_time, (batch,))
        for name, value in (
            ("stopped_step", stopped_step),
            ("integrator_steps", integrator_steps),
            ("rejected", rejected),
        ):
            counts = None if value is None else _locked(value, name, np.int64)
            if counts is not None:
                _expect(name, counts, (batch,))
            setattr(self, name, counts)
        self.t = _locked(t, "t", np.float64)
        if self.t.ndim not in (1, 2) or (self.t.ndim == 2 and len(self.t) != batch):
            raise ValueError(f"t: expected (time,) or ({batch}, time), got {self.t.shape}")
        times = self.t.shape[-1]
        self.steps = None if steps is None else _locked(steps, "steps", np.int64)
        if self.steps is not None:
            _expect("steps", self.steps, (times,))
        self._records: dict[str, Any] = {}
        for name, value in records.items():
            _check_name(name)
            if name == "weights":
                self._records[name] = tuple(_locked(w, f"records['weights'][{place}]") for place, w in enumerate(value))
                for place, layer in enumerate(self._records[name]):
                    _expect(f"records['weights'][{place}]", layer, (batch, times, "n_out", "n_in"))
            else:
                self._records[name] = _locked(value, f"records[{name!r}]")
                axes = QUANTITIES[name].axes if name in QUANTITIES else self._records[name].shape[2:]
                _expect(f"records[{name!r}]", self._records[name], (batch, times, *axes))
        if final is not None and (not isinstance(final, Weights) or final.batch != batch):
            raise ValueError(f"final: expected Weights of {batch} members, got {validate.short(final)}")
        self.final = final
        self.settings = _settings({} if settings is None else settings, batch)
        if not isinstance(source, str):
            raise TypeError(f"source: expected text, got {validate.short(source)}")
        self.source = source
        self._reduced: dict[str, NDArray[np.bool_]] = {}
        for name, members in (reduced or {}).items():
            self._reduced[str(name)] = _locked(members, f"reduced[{name!r}]", np.bool_)
            _expect(f"reduced[{name!r}]", self._reduced[str(name)], (batch,))

    @property
    def reduced(self) -> tuple[tuple[str, ...], ...]:
        """For every member the names of the exact reductions it was run with; () if it was run as it is."""
        names, masks = tuple(self._reduced), tuple(self._reduced.values())
        if not names:
            return ((),) * self.batch
        rows = zip(*(mask.tolist() for mask in masks), strict=True)
        return tuple(tuple(name for name, on in zip(names, row, strict=True) if on) for row in rows)

    @property
    def batch(self) -> int:
        """The number of members."""
        return len(self.status)

    @property
    def names(self) -> tuple[str, ...]:
        """What was recorded, in the order of `QUANTITIES`, functions of the user's own last."""
        own = (name for name in self._records if name not in QUANTITIES)
        return (*(name for name in QUANTITIES if name in self._records), *own)

    def __getattr__(self, name: str) -> Any:
        records: dict[str, Any] = self.__dict__.get("_records", {})
        if name in records:
            return records[name]
        if name in QUANTITIES:
            have = self.names
            raise NotRecorded(
                f"{name} was not recorded (only {', '.join(have) or 'nothing'}): "
                f"run again with record={(*have, name)!r}"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        # The class annotations promise every quantity to type checkers; completion shows only what is there.
        return sorted({*(n for n in super().__dir__() if n not in QUANTITIES), *self._records})

    def __len__(self) -> int:
        return self.batch

    def __iter__(self) -> Iterator[Trajectory]:
        return (self[member] for member in range(self.batch))

    def __getitem__(self, index: MemberIndex) -> Trajectory:
        chosen = member_index(index, self.batch)
        return Trajectory(
            t=self.t if self.t.ndim == 1 else self.t[chosen],
            steps=self.steps,
            records={
                name: tuple(w[chosen] for w in value) if name == "weights" else value[chosen]
                for name, value in self._records.items()
            },
            status=self.status[chosen],
            stopped_time=self.stopped_time[chosen],
            **{name: None if (a := getattr(self, name)) is None else a[chosen] for name in _COUNTS},
            final=None if self.final is None else self.final[chosen],
            settings={k: v[chosen] if isinstance(v, np.ndarray) else v for k, v in self.settings.items()},
            source=self.source,
            reduced={name: members[chosen] for name, members in self._reduced.items()},
        )

    def _parts(self) -> dict[str, Any]:
        """What the constructor takes."""
        given = ("t", "steps", "status", "stopped_time", *_COUNTS, "final", "settings", "source")
        return {name: getattr(self, name) for name in given} | {"records": self._records, "reduced": self._reduced}

    def _with(self, **changes: Any) -> Trajectory:
        """The same but for some of what it is made of."""
        return Trajectory(**(self._parts() | changes))

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Trajectory, **self._parts()), ()

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} {status.name.lower()}" for status, number in text.counts(self))
        return (
            f"Trajectory({self.source}, batch={self.batch}, times={self.t.shape[-1]}, {text.span('t', self.t)}, "
            f"recorded: {', '.join(self.names) or 'nothing'}; {counts or 'no members'})"
        )

    def summary(self) -> str:
        """A table of what was run, how the members ended and the values they ended with; its length is bounded."""
        return text.summary(self)

    def _repr_html_(self) -> str:
        return text.as_html(self)

    def to_xarray(self) -> xarray.Dataset:
        """The recorded quantities as an xarray Dataset, ready for netCDF or zarr.

        Dimensions are ``batch``, ``t`` where members share their times, so that ``ds.loss.sel(t=1.0,
        method="nearest")`` and ``ds.loss.plot.line(x="t")`` work (else ``time``, with ``t`` over ``batch`` and
        ``time``), and the axes of the quantities: ``mode``, ``out``, ``in_``, ``layer``, ``interface`` …; the weights
        are W_1 … W_D, their hidden dimensions ``unit_1`` …. Coordinates are ``t`` (τ), ``steps``, ``status``, where
        members stopped, and the settings that differ per member; the other settings are attributes (booleans as 0 and
        1, nested ones and None as JSON). The final weights are left out: `final` and `save` hold those.

        Raises
        ------
        MissingExtra
            xarray is not installed.
        """
        return dataset.to_dataset(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one uncompressed npz file without pickles, whole or not at all.

        Parameters
        ----------
        path : path
            ``.npz`` is appended if it is not there. An existing file is replaced.

        Returns
        -------
        Path
            The file that was written.

        Raises
        ------
        FileNotFoundError
            The directory does not exist.
        ValueError
            `path` names a directory.
        """
        return npz.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trajectory:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path
            With or without ``.npz``, as it was given to `save`.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        FileDamaged
            The file is truncated, corrupted, of another kind, or written in another format version. Found before
            anything is unpacked: entries of another size than they say, compressed ones, Python objects.
        """
        return npz.load(path)


_COUNTS = ("stopped_step", "integrator_steps", "rejected")


def _check_name(name: object) -> None:
    """Names of records are those of `QUANTITIES`, or of a user's own functions."""
    if name in QUANTITIES:
        return
    taken = isinstance(name, str) and (hasattr(Trajectory, name) or name in Trajectory.__annotations__)
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name[0] == "_" or taken:
        raise ValueError(f"records: expected names of quantities, or others that can be attributes, got {_short(name)}")


def _locked(value: Any, name: str, dtype: Any = None) -> NDArray[Any]:
    validate.unmasked(value, name)
    try:
        given = np.asarray(value)
        sound = given.dtype.kind in "fiub"
        with np.errstate(invalid="ignore"):  # what no integer holds differs from it afterwards
            view = given.astype(dtype if sound and dtype else given.dtype, copy=False).view()
    except (TypeError, ValueError, RecursionError):
        sound = False
    if not sound:
        got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else _short(value)
        raise TypeError(f"{name}: expected an array of numbers, got {got}")
    if dtype is np.int64 and (view != given).any():
        raise ValueError(f"{name}: expected whole numbers within 64 bits, got others")
    view.flags.writeable = False
    return view


def _expect(name: str, array: NDArray[Any], shape: Sequence[int | str]) -> None:
    fits = array.ndim == len(shape) and all(
        isinstance(n, str) or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits:
        text = ", ".join(str(n) for n in shape)
        raise ValueError(f"{name}: expected ({text}{',' if len(shape) == 1 else ''}), got {array.shape}")


def _settings(given: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """`given` with tuples as lists and NumPy numbers as Python's, so that saving and loading change nothing."""
    settings: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(key, str):
            raise TypeError(f"settings: expected names as keys, got {key!r}")
        validate.unmasked(value, f"settings[{key!r}]")
        if isinstance(value, np.ndarray) and value.ndim:
            if len(value) != batch or value.dtype.kind not in "fiub":
                raise ValueError(
                    f"settings[{key!r}]: expected an array of numbers, one per member, ({batch}, ...), "
                    f"got {value.dtype} of shape {value.shape}"
                )
            settings[key] = _locked(value, f"settings[{key!r}]")
        else:
            try:
                settings[key] = _plain(value, f"settings[{key!r}]")
            except RecursionError:
                raise TypeError(f"settings[{key!r}]: expected lists that end, got one nested without end") from None
    return settings


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if isinstance(value, IntEnum | bool):
        return bool(value) if isinstance(value, bool) else int(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{name}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{name}[{k}]") for k, v in enumerate(value)]
    raise TypeError(f"{name}: expected text, numbers, None, lists or dictionaries of these, got {type(value).__name__}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
