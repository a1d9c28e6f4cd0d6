"""What every exact solution can do: be evaluated at any times, into a `Trajectory`."""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import notebook, validate
from pydln._base.arrays import blocks, transposed
from pydln.errors import NotApplicable
from pydln.exact.start import Condition, Start
from pydln.quantities import QUANTITIES, Sizes
from pydln.quantities.tangent_kernel import kernel_distance
from pydln.task.inputs import input_root
from pydln.trajectory.outcome import judged
from pydln.trajectory.recording import Record, Recording, arrays_of
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory

__all__ = ["ModeSolution", "Solution"]

Floats = NDArray[Any]

KNOWN = ("loss", "test_loss", "strengths", "product", "layer_norms", "kernel_distance", "drift", "weights")
"""What `Solution.records` gives; everything else follows from these."""

_AT_ONCE = 2**25  # bytes that are worked on at once

# Eighth-order central difference: places in steps to weights.
_DIFFERENCE = {
    k * side: side * c for k, c in ((1, 4 / 5), (2, -1 / 5), (3, 4 / 105), (4, -1 / 280)) for side in (1, -1)
}


class Solution(ABC):
    """Gradient flow of an ensemble in closed form.

    A new solution is one file: a subclass with a `name`, `conditions` and `records`, entered in the registry.

    Attributes
    ----------
    name : str
    batch : int
        Number of members.
    """

    name: ClassVar[str]

    def __init__(self, start: Start) -> None:
        self.start = start
        self.batch = start.batch

    @property
    @abstractmethod
    def working(self) -> int:
        """Numbers held per member and time while `records` works, beside its results."""

    @classmethod
    @abstractmethod
    def conditions(cls, start: Start) -> Iterator[Condition]:
        """What the solution needs of a start, in an order such that each makes sense if those before it hold."""

    @abstractmethod
    def records(self, t: Floats, names: Sequence[str]) -> dict[str, Any]:
        """The quantities `names` at times `t`, (batch or 1, time), with axes as in `Trajectory`."""

    def evaluate(self, t: ArrayLike, *, record: Record = ("loss", "strengths"), throw: bool = True) -> Trajectory:
        """The solution at given times.

        Parameters
        ----------
        t : (time,) or (batch, time) array
            Times in units of tau = 1/lr, >= 0, in any order: a simulation's ``run.t`` as it is.
        record : str, mapping or sequence of these
            As in `pydln.gradient_descent`: ``loss``, ``test_loss``, ``strengths``, ``product``, ``layer_norms``,
            ``kernel_distance``, ``drift``, ``weights`` in closed form, all else worked out from these. The loss is in
            the normalisation of the task.
        throw : bool
            Raise `IntegrationError` if a number of a member is beyond the range of float64; otherwise its `Status` is
            ``DIVERGED``.

        Returns
        -------
        Trajectory
            Float64, with ``source`` ``"exact:"`` and the name of the solution, ``steps`` None, ``stopped_time`` the
            last of the times.

        Raises
        ------
        TypeError, ValueError
            Times that are not finite numbers >= 0 or fit no batch; unknown names; ``test_loss`` without held-out
            covariances; more than the memory that is free would hold.
        NotApplicable
            Times at which the rounding of the start would have grown beside what is learned, see `exact.solve`.
        IntegrationError
            Numbers beyond the range of float64, and `throw` is true; ``.trajectory`` holds the rest.
        """
        throw = validate.flag(throw, "throw")
        times = validate.array(t, "t", at_least=0)
        if times.ndim not in (1, 2) or (
            times.ndim == 2 and 1 not in (len(times), self.batch) and len(times) != self.batch
        ):
            raise ValueError(f"t: expected (time,) or ({self.batch}, time), got {times.shape}")
        task, weights = self.start.task, self.start.weights
        recording = Recording.of(record, known=KNOWN, task=task, weights=weights)
        if times.ndim == 2 and len(times) == 1:
            times = times[0]
        batch = max(self.batch, len(times) if times.ndim == 2 else 1)
        sizes = Sizes(weights.widths, task.modes.s.shape[-1])
        recorded, held = (
            sum(math.prod(shape) for name in names for shape in recording.shapes(name, sizes))
            for names in (recording.names, recording.sources)
        )
        at_once = 8 * (recorded + held + self.working)
        validate.fits_in_memory(
            8 * batch * times.shape[-1] * recorded + min(_AT_ONCE + at_once, at_once * batch * times.shape[-1]),
            f"record: {', '.join(recording.names) or 'nothing'} of {batch} member{'s' * (batch > 1)} at "
            f"{times.shape[-1]} times",
            "evaluate at fewer times, record fewer names, or pick members of task and weights",
        )
        self._refuse_late(np.atleast_2d(times))
        found = self._in_pieces(np.atleast_2d(times), recording, sizes, batch, at_once)
        run = Trajectory(
            t=times,
            steps=None,
            records=found,
            status=np.full(batch, Status.COMPLETED),
            stopped_time=np.broadcast_to(times.max(axis=-1, initial=0.0), (batch,)),
            settings={
                "task": task.name,
                "normalize": task.normalize,
                "whitened": task.whitened,
                "depth": weights.depth,
                "widths": list(weights.widths),
            },
            source=f"exact:{self.name}",
        )
        return judged(run, throw=throw)

    @property
    def until(self) -> Floats:
        """Up to when the solution holds for the start as it was rounded, (batch,), in units of tau."""
        return np.full(self.batch, np.inf)

    def _refuse_late(self, t: Floats) -> None:
        until = self.until
        late = t.max(axis=1, initial=0.0) > until
        if late.any():
            member = int(np.argmax(late))
            of = f" (member {member})" if self.batch > 1 else ""
            raise NotApplicable(
                f"not known beyond t = {until[member]:.4g}{of}: modes that depend on others up to rounding stay "
                "unlearned in theory, and are learned from the rounding by the start that was given; solve(..., "
                "tol=1e-12) stays with theory"
            )

    def _in_pieces(
        self, t: Floats, recording: Recording, sizes: Sizes, batch: int, bytes_of_one: int
    ) -> dict[str, Any]:
        """`records` of all members and times, worked out so few at once that Ctrl-C never waits long.

        Members first, for some solutions follow a member from the start to its last time.
        """
        times, names = t.shape[-1], recording.sources
        found = recording.empty(recording.names, sizes, batch, times, np.float64)
        own_start = list(self.start.weights.layers)
        for members in blocks(batch, bytes_of_one * max(1, times), at_once=_AT_ONCE):
            rows = slice(members[0], members[-1] + 1)
            part, own = self._part(rows), t[rows] if len(t) > 1 else t
            for columns in [*blocks(times, bytes_of_one * len(members), at_once=_AT_ONCE)] or [np.arange(0)]:
                some = slice(columns[0], columns[-1] + 1) if columns.size else slice(0, 0)
                # What is not finite is judged with the rest.
                with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                    made = part.records(own[:, some], names)
                for name in recording.native:
                    for whole, a in zip(arrays_of(found[name]), arrays_of(made[name]), strict=True):
                        whole[rows, some] = a
                if recording.derived:
                    shape = (len(members), len(columns))
                    sources = {name: self._whole(made[name], name, shape, sizes) for name in names}
                    out = {name: found[name][rows, some] for name in recording.derived}
                    start = [w if len(w) == 1 else w[rows] for w in own_start] if recording.since_start else []
                    recording.derive(sources, out, self.start.task, members, start)
        return found

    @staticmethod
    def _whole(made: Any, name: str, shape: tuple[int, int], sizes: Sizes) -> Any:
        """What `records` gave for members or times that are alike, for each of them."""
        shapes = QUANTITIES[name].shapes(sizes)
        whole = [np.broadcast_to(a, (*shape, *own)) for a, own in zip(arrays_of(made), shapes, strict=True)]
        return whole if name == "weights" else whole[0]

    def _part(self, rows: slice) -> Solution:
        """The solution of some of the members: what is kept of each has one entry for everybody or one per member."""
        if self.batch == 1 or rows == slice(0, self.batch):
            return self

        def own(value: Any) -> Any:
            if isinstance(value, np.ndarray) and len(value) == self.batch:
                return value[rows]
            if isinstance(value, Solution | Start):
                return value._part(rows)
            if isinstance(value, tuple) and hasattr(value, "_fields"):
                return type(value)(*(own(one) for one in value))
            return [own(one) for one in value] if isinstance(value, list) else value

        part = copy.copy(self)
        part.__dict__.update({name: own(value) for name, value in vars(self).items()})
        part.batch = part.start.batch
        return part

    def residual(self, t: ArrayLike) -> Floats:
        """How well the solution satisfies the equation of gradient flow: |dW/dt + ∂L/∂W| of the weights it gives.

        Parameters
        ----------
        t : (time,) array
            Times in units of tau, >= 0.

        Returns
        -------
        (batch, time) array
            Largest over the layers, relative to |W_l| times the fastest rate that weights of these sizes allow. The
            derivative is a difference of eight weights, so rounding leaves some 1e-13. Times close to 0 are moved to
            the first with room for it.
        """
        times = np.atleast_1d(validate.array(t, "t", at_least=0)).astype(np.float64)
        depth, n_in = self.start.depth, self.start.task.n_in
        task = self.start.task
        # Times stand between the members and the axes of a matrix; an Σ_xx that all share has no members.
        sigma_xx, sigma_yx = (a if a.ndim == 2 else a[:, None] for a in (task.sigma_xx, task.sigma_yx))
        spread = np.reshape(np.linalg.norm(sigma_xx, 2, axis=(-2, -1)), (-1, 1))
        s = np.abs(self.start.modes[1]).max(axis=-1, initial=0.0)[:, None] / spread
        norms = [np.linalg.norm(w, 2, axis=(-2, -1)) for w in self.evaluate(times, record="weights").weights]
        others = sum(np.prod([n**2 for j, n in enumerate(norms) if j != k], axis=0) for k in range(depth))
        rate = spread * (others + depth * s ** (2 - 2 / depth))
        step = 0.02 / rate
        middle = np.maximum(times, 4 * step)
        layers = self.evaluate(middle, record="weights").weights
        product: Floats = np.eye(n_in)
        for w in layers:
            product = w @ product
        error = sigma_yx - product @ sigma_xx
        slopes = [np.zeros(w.shape) for w in layers]
        for place, weight in _DIFFERENCE.items():
            for slope, w in zip(slopes, self.evaluate(middle + place * step, record="weights").weights, strict=True):
                slope += weight * w / step[..., None, None]
        worst = np.zeros(middle.shape)
        for k, (w, slope) in enumerate(zip(layers, slopes, strict=True)):
            pull = error
            for above in layers[:k:-1]:
                pull = transposed(above) @ pull
            for below in layers[:k]:
                pull = pull @ transposed(below)
            off = np.linalg.norm(slope - pull, axis=(-2, -1))
            worst = np.maximum(worst, off / (rate * np.maximum(np.linalg.norm(w, axis=(-2, -1)), 1e-300)))
        return worst

    def test_loss(self, product: Floats) -> Floats:
        """The loss of the held-out covariances for products (batch, time, n_D, n_0)."""
        test = self.start.task.test
        assert test is not None
        return np.asarray(test.loss(product))

    def _repr_html_(self) -> str:
        return notebook.as_html(repr(self))

    def __repr__(self) -> str:
        widths = "-".join(str(n) for n in self.start.weights.widths)
        return f"<exact solution {self.name!r}: batch={self.batch}, widths={widths}>"


class ModeSolution(Solution):
    """Decoupled modes, W_l = R_{l+1} diag(a_l(t)) R_l^T + C_l with C_l at rest: subclasses say how a mode moves.

    Where inputs have variance d along a mode,

        da_l/dt = ∏_{m≠l} a_m (s - d u) = d ∏_{m≠l} a_m (s/d - u),

    it moves as with whitened inputs and the strength s/d, d times as fast. A mode without variance has s = 0 and rests.

    Attributes
    ----------
    s : (batch or 1, r) array
        s/d, where u ends.
    """

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self.frames = start.alignment.frames
        self.layer_strengths = start.alignment.strengths
        self.variances = start.variances
        self.s = start.modes[1] / np.where(self.variances > 0, self.variances, 1.0)

    @property
    def working(self) -> int:
        """The closed forms hold up to about 24 arrays of one number per mode at a time."""
        return 24 * int(self.s.shape[-1])

    @abstractmethod
    def modes(self, t: Floats) -> tuple[Floats, Floats, Any]:
        """u and s/d - u, (batch, time, r), at times d t, (batch or 1, time, 1 or r), and what `layer` needs."""

    @abstractmethod
    def layer(self, state: Any, k: int) -> Floats:
        """a_k, (batch, time, r), k = 1 … D."""

    def records(self, t: Floats, names: Sequence[str]) -> dict[str, Any]:
        """The quantities `names`, from the modes alone; the loss has its digits down to the floor."""
        times = t[:, :, None]
        if not self.start.task.whitened:
            times = np.minimum(times * self.variances[:, None], np.finfo(np.float64).max)
        u, gap, state = self.modes(times)
        start, depth = self.start, self.start.depth
        found: dict[str, Any] = {"strengths": u}
        if "loss" in names:
            found["loss"] = np.reshape(start.task.floor, (-1, 1)) + 0.5 * np.sum(
                self.variances[:, None] * gap**2, axis=-1
            )
        if "product" in names:
            found["product"] = self._product(u)
        if "test_loss" in names:
            found["test_loss"] = self._test_loss(u)
        if not {"layer_norms", "kernel_distance", "drift", "weights"} & set(names):
            return found
        squares, layers, norms = [], [], []
        for k in range(1, depth + 1):
            a = self.layer(state, k)
            left, right = self.frames[k], np.swapaxes(self.frames[k - 1], -2, -1)
            a0 = self.layer_strengths[:, k - 1]
            squares.append(a**2 - a0[:, None] ** 2)
            rest = start.layer(k) - (left * a0[:, None, :]) @ right
            if "layer_norms" in names:
                norms.append(np.sqrt(np.sum(a**2, axis=-1) + np.sum(rest**2, axis=(1, 2))[:, None]))
            if {"weights", "kernel_distance"} & set(names):
                layers.append(rest[:, None] + (left[:, None] * a[:, :, None, :]) @ right[:, None])
        if norms:
            found["layer_norms"] = np.stack(norms, axis=-1)
        if layers:
            found["weights"] = layers
        if "kernel_distance" in names:
            first = [start.layer(k) for k in range(1, depth + 1)]
            found["kernel_distance"] = kernel_distance(layers, first, input_root(start.task))
        if "drift" in names:
            drift = [np.linalg.norm(after - before, axis=-1) for before, after in itertools.pairwise(squares)]
            found["drift"] = np.stack(drift, axis=-1) if drift else np.zeros((*u.shape[:2], 0))
        return found

    def _test_loss(self, u: Floats) -> Floats:
        """L(u*) + 1/2 Σ q (u - u*)², q = diag(VᵀΣ_xxV), q u* = diag(UᵀΣ_yxV): modes do not mix as U is orthonormal.

        Where the held-out inputs have no variance, q = 0, they are not taught anything either, Σ_yx v = 0.
        """
        test = self.start.task.test
        assert test is not None
        U, V = self.frames[-1], self.frames[0]
        q, p = np.sum(V * (test.sigma_xx @ V), axis=-2), np.sum(U * (test.sigma_yx @ V), axis=-2)
        best = np.divide(p, q, out=np.zeros_like(p), where=q > 0)
        least = self.test_loss(self._product(best[:, None]))
        return np.asarray(least + 0.5 * np.sum(q[:, None] * (u - best[:, None]) ** 2, axis=-1))

    def _product(self, u: Floats) -> Floats:
        left, right = self.frames[-1], np.swapaxes(self.frames[0], -2, -1)
        return np.asarray((left[:, None] * u[:, :, None, :]) @ right[:, None])
