"""The weights of an ensemble of deep linear networks: one immutable object, W_1 first."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pydln._base import notebook, validate
from pydln._base.patience import interruptible

__all__ = ["Weights", "member_index"]

MemberIndex = int | slice | Sequence[int] | NDArray[Any]


def member_index(index: MemberIndex, batch: int) -> slice | NDArray[Any]:
    """`index` into `batch` members as something that keeps the batch axis.

    Parameters
    ----------
    index : int, slice, mask of shape (batch,), or 1-D array of integers
    batch : int
        How many members there are.

    Raises
    ------
    IndexError
        An integer outside the batch, a mask of another length.
    TypeError
        Anything else: text, a tuple, numbers that are not integers.
    """
    validate.unmasked(index, "index")
    if isinstance(index, slice):
        return index
    if isinstance(index, Sequence | np.ndarray) and not isinstance(index, str | tuple):
        try:
            chosen = np.asarray(index)
        except ValueError:
            raise TypeError("index: expected a mask or a 1-D array of integers, got a ragged sequence") from None
        if chosen.size == 0 and chosen.dtype.kind != "b":
            chosen = chosen.astype(np.intp)
        if chosen.ndim == 1 and chosen.dtype.kind in "iub":
            if chosen.dtype.kind == "b":
                if len(chosen) != batch:
                    raise IndexError(f"index: expected a mask over {batch} members, got {len(chosen)} entries")
            elif chosen.size and not (-batch <= int(chosen.min()) and int(chosen.max()) < batch):
                raise IndexError(f"index: expected members among {batch}, got {chosen.min()} ... {chosen.max()}")
            return chosen
        if chosen.ndim:
            raise TypeError(
                "index: expected an integer, a slice, a mask or a 1-D array of integers, "
                f"got an array of {chosen.dtype} with shape {chosen.shape}"
            )
    try:
        number = operator.index(index)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"index: expected an integer, a slice, a mask or a 1-D array of integers, got {validate.short(index)}"
        ) from None
    if not -batch <= number < batch:
        raise IndexError(f"index: expected a member among {batch}, got {number}")
    number %= batch
    return slice(number, number + 1)


class Weights:
    """The layers of `batch` networks of one shape, W_1 (the input side) first.

    Parameters
    ----------
    layers : sequence of array_like
        D arrays; the l-th has shape (batch, n_l, n_{l-1}), or (n_l, n_{l-1}) for a single network. All float32 or all
        float64; anything else that is real becomes float64. Copied: later changes to the caller's arrays are not seen.

    Raises
    ------
    TypeError
        Text, objects, complex numbers, or one array where a sequence of layers is meant.
    ValueError
        No layers, shapes that do not follow each other, an empty axis, different dtypes or batches, not finite.

    Notes
    -----
    Indexing picks members and always keeps the batch axis: ``weights[3]`` holds one network. The arrays are read-only
    and C-contiguous.

    Examples
    --------
    >>> Weights([np.ones((3, 2)), np.ones((1, 3))]).product()
    array([[[3., 3.]]])
    """

    __slots__ = ("_layers",)
    _layers: tuple[NDArray[Any], ...]

    def __init__(self, layers: Sequence[Any]) -> None:
        validate.unmasked(layers, "weights")
        if isinstance(layers, np.ndarray):
            raise TypeError(f"weights: expected a sequence of layers, W_1 first, got one array of shape {layers.shape}")
        single = isinstance(layers, Weights | str | bytes) or validate.is_single(layers)
        if single or not isinstance(layers, Iterable):
            raise TypeError(f"weights: expected a sequence of layers, W_1 first, got {type(layers).__name__}")
        given = list(layers)
        if not given:
            raise ValueError("weights: expected at least one layer, got none")
        checked: list[NDArray[Any]] = []
        for place, layer in enumerate(given):
            checked.append(_layer(layer, place, checked[-1] if checked else None))
        self._layers = tuple(_locked(w.copy()) for w in checked)

    @classmethod
    def _adopt(cls, layers: Iterable[NDArray[Any]]) -> Weights:
        """Weights that take over `layers`, three-dimensional arrays known to be sound, without copying them."""
        self = cls.__new__(cls)
        self._layers = tuple(_locked(np.require(w, requirements=("C", "A"))) for w in layers)
        return self

    @classmethod
    def from_torch(cls, module: Any) -> Weights:
        """The weights of a ``torch.nn.Sequential`` of bias-free ``Linear`` layers, as a batch of one.

        Parameters
        ----------
        module : torch.nn.Sequential
            Its parameters are float32 or float64, on any device; they are copied.

        Raises
        ------
        TypeError
            A module that is not a sequence of ``Linear`` layers, or parameters of another dtype.
        ValueError
            A layer with a bias; no layers.
        """
        if isinstance(module, Sequence | str) or not isinstance(module, Iterable) or isinstance(module, Weights):
            raise TypeError(f"module: expected a torch.nn.Sequential, got {type(module).__name__}")
        layers = []
        for place, layer in enumerate(module):
            if not all(hasattr(layer, name) for name in ("in_features", "out_features", "weight", "bias")):
                raise TypeError(f"module[{place}]: expected a Linear layer, got {type(layer).__name__}")
            if layer.bias is not None:
                raise ValueError(f"module[{place}]: expected a Linear layer without bias, got one with bias=True")
            tensor = layer.weight.detach().cpu()
            if str(tensor.dtype).rpartition(".")[2] not in ("float32", "float64"):
                got = f"{tensor.dtype}: pass module.float()"
                raise TypeError(f"module[{place}].weight: expected float32 or float64, got {got}")
            layers.append(tensor.numpy())
        if not layers:
            raise ValueError("module: expected at least one Linear layer, got none")
        return cls(layers)

    @classmethod
    def concatenate(cls, parts: Sequence[Weights]) -> Weights:
        """One ensemble holding the members of `parts` in order; all of the same widths and dtype."""
        parts = validate.sequence(parts, "parts", "Weights")
        if not parts:
            raise ValueError("parts: expected at least one Weights, got none")
        for place, part in enumerate(parts):
            if not isinstance(part, Weights):
                raise TypeError(f"parts[{place}]: expected Weights, got {type(part).__name__}")
            if part.widths != parts[0].widths:
                raise ValueError(f"parts[{place}]: expected widths {parts[0].widths}, got {part.widths}")
            if part.dtype != parts[0].dtype:
                raise ValueError(f"parts[{place}]: expected {parts[0].dtype} like parts[0], got {part.dtype}")
        return cls._adopt(np.concatenate(same) for same in zip(*(part.layers for part in parts), strict=True))

    @property
    def layers(self) -> tuple[NDArray[Any], ...]:
        """W_1 … W_D, each (batch, n_l, n_{l-1}), read-only."""
        return self._layers

    @property
    def widths(self) -> tuple[int, ...]:
        """n_0 … n_D, input first."""
        return (self._layers[0].shape[2], *(w.shape[1] for w in self._layers))

    @property
    def depth(self) -> int:
        """D, the number of weight matrices."""
        return len(self._layers)

    @property
    def batch(self) -> int:
        """The number of networks."""
        return int(self._layers[0].shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, the same for every layer."""
        return self._layers[0].dtype

    @interruptible(lambda self: float(min(self.widths[0], self.widths[-1]) * sum(w.size for w in self.layers)))
    def product(self) -> NDArray[Any]:
        """Ω = W_D ⋯ W_1 of every member, (batch, n_D, n_0), in the dtype of the weights."""
        # From the thinner end, so that the running product never has more than min(n_0, n_D) rows or columns.
        if self.widths[0] <= self.widths[-1]:
            running = self._layers[0].copy()
            for layer in self._layers[1:]:
                running = layer @ running
        else:
            running = self._layers[-1].copy()
            for layer in self._layers[-2::-1]:
                running = running @ layer
        return running

    def astype(self, dtype: DTypeLike) -> Weights:
        """The same weights as float32 or float64; rounding to float32 is the caller's choice."""
        wanted = validate.dtype(dtype)
        if wanted == np.float32:
            largest = max((float(np.abs(w).max()) for w in self._layers if w.size), default=0.0)
            if largest > float(np.finfo(np.float32).max):
                raise ValueError(f"dtype: expected weights within the range of float32, got {largest:g}")
        return Weights._adopt(w.astype(wanted, copy=False) for w in self._layers)

    def __len__(self) -> int:
        return self.batch

    def __iter__(self) -> Iterator[Weights]:
        return (self[member] for member in range(self.batch))

    def __getitem__(self, index: MemberIndex) -> Weights:
        chosen = member_index(index, self.batch)
        return Weights._adopt(w[chosen] for w in self._layers)

    def __reduce__(self) -> tuple[Any, ...]:
        return Weights._adopt, (self._layers,)

    def _repr_html_(self) -> str:
        return notebook.as_html(repr(self))

    def __repr__(self) -> str:
        size = float(sum(w.nbytes for w in self._layers))
        for unit in ("B", "kB", "MB", "GB"):
            if size < 1000 or unit == "GB":
                break
            size /= 1000
        widths = [str(n) for n in self.widths]
        if len(widths) > 12:
            widths = [*widths[:5], "…", *widths[-5:]]
        shape = f"batch={self.batch}, depth={self.depth}, widths={'-'.join(widths)}"
        return f"Weights({shape}, {self.dtype}, {size:.3g} {unit})"


def _locked(layer: NDArray[Any]) -> NDArray[Any]:
    layer.flags.writeable = False
    return layer


def _layer(value: Any, place: int, before: NDArray[Any] | None) -> NDArray[Any]:
    """Layer number `place` as a (batch, n_l, n_{l-1}) array that follows `before`."""
    name = f"weights[{place}]"
    layer = validate.array(value, name, dtype=None, unreadable=": pydln.Weights.from_torch reads a torch module")
    shape = layer.shape
    if layer.ndim == 2:
        layer = layer[None]
    if layer.ndim != 3:
        raise ValueError(f"{name}: expected (batch, n_out, n_in) or (n_out, n_in), got {shape}")
    if layer.size == 0:
        raise ValueError(f"{name}: expected at least one member and one unit on every side, got {shape}")
    if before is None:
        return layer
    batch, n_in = before.shape[0], before.shape[1]
    if layer.shape[2] != n_in:
        # A layer that fits when transposed was most likely written input first: show the shape it should have had.
        n_out = str(layer.shape[2]) if layer.shape[1] == n_in else "any"
        raise ValueError(f"{name}: expected (batch, {n_out}, {n_in}) to follow weights[{place - 1}], got {shape}")
    if layer.shape[0] != batch:
        raise ValueError(f"{name}: expected ({batch}, any, {n_in}) to follow weights[{place - 1}], got {shape}")
    if layer.dtype != before.dtype:
        raise ValueError(f"{name}: expected {before.dtype} like weights[{place - 1}], got {layer.dtype}")
    return layer
