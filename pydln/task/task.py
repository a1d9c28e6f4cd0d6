"""What a linear network is asked to learn: input and input-output covariances, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import notebook, validate
from pydln._base.patience import interruptible
from pydln.datasets.moments import Moments, mnist_moments
from pydln.task.squares import CONSISTENT, Squares, of_covariances, of_samples, principal

__all__ = ["Modes", "Samples", "Task"]

FloatArray = NDArray[np.float64]
Normalize = Literal["mean", "sum"]

_NORMALIZE = ("mean", "sum")

# Numbers below this have squares that float64 cannot hold to all digits; squares below `_LEAST` are such numbers' own.
_SMALL = float(np.sqrt(np.finfo(float).tiny / np.finfo(float).eps))
_LEAST = float(np.finfo(float).tiny / np.finfo(float).eps)

# Inputs whose covariance is the identity up to this count as whitened where that is told.
_IDENTITY = 1e-12


class Modes(NamedTuple):
    """The modes of a task: Sigma_yx = U diag(s) Vᵀ. A batched task has the batch axis in front of each.

    Attributes
    ----------
    U : (n_out, r) array
        Output modes in columns.
    s : (r,) array
        Strengths.
    V : (n_in, r) array
        Input modes in columns.
    """

    U: FloatArray
    s: FloatArray
    V: FloatArray


def _work_of_data(_: Any, X: Any, Y: Any, *, X_test: Any = None, **__: Any) -> float:
    """About the work of second moments and of what is decomposed of them, see `pydln._base.patience`."""
    n_in, n_out = X.shape[-1], Y.shape[-1]
    return float((X.size + (0 if X_test is None else X_test.size)) * (n_in + n_out) + n_in**3)


def _work_of_covariances(_: Any, sigma_xx: Any, sigma_yx: Any, *__: Any, **___: Any) -> float:
    *members, n_out, n_in = sigma_yx.shape
    own = float(n_in) * min(n_in, n_out) ** 2 + (0 if sigma_xx is None else float(n_in) ** 3)
    return float(max(members, default=1) * own)


def _work_of_modes(_: Any, s: Any, n_in: int, n_out: int, *__: Any, samples: int | None = None, **___: Any) -> float:
    largest, modes = max(n_in, n_out), max(min(n_in, n_out) if samples else 1, np.size(s))
    return float(largest) * modes * (modes + largest) + float(samples or 0) * largest**2


def _work_of_products(task: Task, product: Any) -> float:
    return float(np.size(product)) * (1 if task.whitened else task.n_in)


class Samples(NamedTuple):
    """The samples of a task, in its own coordinates. A batched task has the batch axis in front of each.

    Attributes
    ----------
    X : (samples, n_in) array
    Y : (samples, n_out) array
    """

    X: FloatArray
    Y: FloatArray


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Task:
    """A learning task, as the second moments through which alone a linear network sees it. Immutable.

    The loss of a network with product Omega is L = 1/2 <|y - Omega x|²>, where <> is the average over samples
    (``normalize="mean"``) or the sum (``"sum"``, as in Saxe, McClelland & Ganguli 2013); one learning rate means
    different speeds in the two. Build a task with `from_data`, `from_covariances`, `from_spectrum`, `hierarchy`,
    `teacher` or `mnist`, and many of one shape into a batch with `stack`. All arrays are float64 and read-only.

    Attributes
    ----------
    sigma_yx : (n_out, n_in) or (batch, n_out, n_in) array
        <y xᵀ>.
    sigma_xx : (n_in, n_in) or (batch, n_in, n_in) array
        <x xᵀ>; the identity when `whitened`. A batch whose members share it has it once.
    trace_yy : float or (batch,) array
        <|y|²>.
    modes : Modes
        ``U, s, V`` with Sigma_yx = U diag(s) Vᵀ: as given to the constructor (then possibly fewer than min(n_in,
        n_out), the others having strength 0), else the singular value decomposition, with the largest entry of each
        column of V positive.
    optimum : (n_out, n_in) or (batch, n_out, n_in) array
        The least-squares map Omega* = Sigma_yx Sigma_xx⁺ of minimum norm; from samples by a decomposition of these.
    floor : float or (batch,) array
        L(Omega*) >= 0, the loss that no linear network goes below; exactly 0 where that is known. From samples it is
        the square of what is left of the targets, right to the rounding of the samples; covariances tell it to theirs
        only, about 1e-16 of <|y|²> times the condition number of Sigma_xx in units of the inputs' own deviations.
    test : Task or None
        Held-out covariances in the same coordinates, for the test loss.
    normalize : {"mean", "sum"}
    name : str
    samples : int or None
        Number of samples behind the covariances.
    data : Samples or None
        ``X, Y``: the samples themselves, whitened if the task is; kept when `from_data` is asked to.
    """

    sigma_yx: FloatArray
    _sigma_xx: FloatArray | None
    trace_yy: float | FloatArray
    modes: Modes
    optimum: FloatArray
    floor: float | FloatArray
    test: Task | None = None
    normalize: Normalize = "mean"
    name: str = "task"
    samples: int | None = None
    data: Samples | None = None
    _squares: Squares | None = None

    def __post_init__(self) -> None:
        assert (self._sigma_xx is None) == (self._squares is None)
        own = (self.sigma_yx, self._sigma_xx, self.trace_yy, *self.modes, self.optimum, self.floor, *(self.data or ()))
        if self._squares is not None:
            own = (*own, self._squares.root, self._squares.target)
        for value in own:
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # unpickled arrays come back writeable

    @property
    def whitened(self) -> bool:
        """Whether Sigma_xx is the identity, exactly, and networks are spared the product with it.

        Samples that are whitened already have a covariance that differs from it by rounding, which is kept: a start may
        let it grow. Then this is False, and the text of the task says how near it is, as it does up to 1e-12.
        """
        return self._sigma_xx is None

    @property
    def squares(self) -> Squares | None:
        """A and B of the loss, floor + 1/2 |B - Omega A|²; None if whitened: A = I, B = Sigma_yx."""
        return self._squares

    @property
    def sigma_xx(self) -> FloatArray:
        """<x xᵀ>, the identity if whitened."""
        if self._sigma_xx is not None:
            return self._sigma_xx
        identity = np.eye(self.n_in)
        identity.setflags(write=False)
        return identity

    @property
    def n_in(self) -> int:
        """Number of inputs, n_0."""
        return int(self.sigma_yx.shape[-1])

    @property
    def n_out(self) -> int:
        """Number of outputs, n_D."""
        return int(self.sigma_yx.shape[-2])

    @property
    def batch(self) -> int | None:
        """Number of members, or None for a single task."""
        return int(self.sigma_yx.shape[0]) if self.sigma_yx.ndim == 3 else None

    @interruptible(_work_of_products)
    def loss(self, product: ArrayLike) -> FloatArray:
        """The loss L = floor + 1/2 |(Omega - Omega*) Sigma_xx^(1/2)|², never below the floor and right to its last
        digits near the minimum.

        Parameters
        ----------
        product : (..., n_out, n_in) array
            End-to-end maps Omega. For a batched task the first axis is the batch; a single map is evaluated for every
            member.

        Returns
        -------
        (...) array
            In the normalisation of the task. For a batched task the first axis is the batch.
        """
        omega = validate.array(product, "product")
        if omega.shape[-2:] != (self.n_out, self.n_in):
            raise ValueError(f"product: expected (..., {self.n_out}, {self.n_in}), got {omega.shape}")
        root, target = (None, self.sigma_yx) if self._squares is None else (self._squares.root, self._squares.target)
        floor = np.asarray(self.floor)
        if self.batch is not None:
            if omega.ndim > 2 and omega.shape[0] not in (1, self.batch):
                raise ValueError(f"product: expected ({self.batch}, ..., {self.n_out}, {self.n_in}), got {omega.shape}")
            between = max(omega.ndim - 3, 0)
            target, floor = _after_batch(target, between), floor.reshape(-1, *(1,) * between)
            if root is not None and root.ndim == 3:
                root = _after_batch(root, between)
        gap = target - (omega if root is None else omega @ root)
        result: FloatArray = floor + 0.5 * np.sum(gap * gap, axis=(-2, -1))
        return result

    def __getitem__(self, member: int) -> Task:
        """Member number `member` of a batched task."""
        if self.batch is None:
            raise TypeError("task: expected a batched task to take a member of, got a single one")
        i = validate.integer(member, "member")
        if not -self.batch <= i < self.batch:
            raise IndexError(f"member: expected an integer from {-self.batch} to {self.batch - 1}, got {i}")
        return self._picked(i)

    def _picked(self, i: int | slice | NDArray[np.int64]) -> Task:
        """A member, or some as a batch."""
        shared = self._sigma_xx is None or self._sigma_xx.ndim == 2

        def numbers(value: float | FloatArray) -> float | FloatArray:
            chosen = np.asarray(value)[i]
            return chosen if np.ndim(chosen) else float(chosen)

        return replace(
            self,
            sigma_yx=self.sigma_yx[i],
            _sigma_xx=self._sigma_xx if shared or self._sigma_xx is None else self._sigma_xx[i],
            trace_yy=numbers(self.trace_yy),
            modes=Modes(*(a[i] for a in self.modes)),
            optimum=self.optimum[i],
            floor=numbers(self.floor),
            test=self.test if self.test is None or self.test.batch is None else self.test._picked(i),
            data=None if self.data is None else Samples(*(a[i] for a in self.data)),
            _squares=None if self._squares is None else self._squares.of(i),
        )

    def _repr_html_(self) -> str:
        return notebook.as_html(repr(self))

    def __repr__(self) -> str:
        of = "averages" if self.normalize == "mean" else "sums"
        counted = f" over {self.samples} samples" if self.samples is not None else ""
        many = self.batch is not None
        strengths = np.atleast_2d(self.modes.s)[0]
        shown = ", ".join(f"{s:.4g}" for s in strengths[:6]) + (", ..." if len(strengths) > 6 else "")
        lines = [
            f"Task {self.name}: {self.n_in} inputs -> {self.n_out} outputs"
            + (f", batch of {self.batch}" if many else ""),
            f"  covariances  {of}{counted}; inputs {self._inputs()}",
            f"  strengths    {shown} ({len(strengths)} modes{' of member 0' if many else ''})",
            f"  loss         {_span(np.asarray(self.trace_yy) / 2)} for a zero map, {_span(self.floor)} at the optimum",
        ]
        if self.test is not None:
            counted = f"{self.test.samples} samples" if self.test.samples is not None else self.test.name
            lines.append(f"  held out     {counted}, loss {_span(self.test.loss(self.optimum))} at the optimum")
        return "\n".join(lines)

    def _inputs(self) -> str:
        if self._sigma_xx is None:
            return "whitened (Sigma_xx = I)"
        off = float(np.abs(self._sigma_xx - np.eye(self.n_in)).max())
        return f"whitened (Sigma_xx = I to {off:.2g})" if off <= _IDENTITY else "not whitened"

    @classmethod
    @interruptible(_work_of_data)
    def from_data(
        cls,
        X: ArrayLike,
        Y: ArrayLike,
        *,
        normalize: str = "mean",
        whiten: bool = False,
        X_test: ArrayLike | None = None,
        Y_test: ArrayLike | None = None,
        rtol: float = 1e-10,
        keep_samples: bool = False,
        name: str = "data",
    ) -> Task:
        """A task from samples.

        Parameters
        ----------
        X : (samples, n_in) array
            Inputs, one sample in a row. Second moments are taken about zero: subtract means first if that is what you
            want.
        Y : (samples, n_out) or (samples,) array
            Targets; one number a sample is one output.
        normalize : {"mean", "sum"}
            Average over samples, or sum.
        whiten : bool
            Map the inputs by Sigma_xx^(-1/2) (ZCA), so that Sigma_xx = I in the chosen normalisation. Directions in
            which the inputs do not vary are treated as inputs of unit variance uncorrelated with the targets.
        X_test, Y_test : arrays, optional
            Held-out samples. Inputs go through the same map; their part in directions without training variance is
            dropped.
        rtol : float
            With `whiten`: eigenvalues of Sigma_xx up to `rtol` times the largest count as no variance.
        keep_samples : bool
            Keep a copy of the samples in `Task.data`: minibatches are drawn from it.

        Raises
        ------
        ValueError, TypeError
            Wrong shapes, no samples, NaN, text, and numbers so large or so small that float64 does not hold their
            squares.

        Notes
        -----
        `optimum` and `floor` come from a QR decomposition of the samples, with each input in units of its own, and not
        from Sigma_xx, in which inputs like a year and its square can no longer be told apart.
        """
        x = _samples(X, "X")
        y = _targets(Y, "Y", rows=(len(x), "X"))
        how = _normalize(normalize)
        if (X_test is None) != (Y_test is None):
            given, absent = ("X_test", "Y_test") if Y_test is None else ("Y_test", "X_test")
            raise ValueError(f"{absent}: expected an array to go with {given}, got None")
        cutoff = validate.number(rtol, "rtol", at_least=0, below=1)
        whiten, keep_samples = validate.flag(whiten, "whiten"), validate.flag(keep_samples, "keep_samples")
        held_out = None
        if X_test is not None and Y_test is not None:
            x_test = _samples(X_test, "X_test", columns=(x.shape[1], "X"))
            y_test = _targets(Y_test, "Y_test", rows=(len(x_test), "X_test"), columns=(y.shape[1], "Y"))
            held_out = x_test, y_test
        count = len(x) if how == "mean" else 1
        for value, what in ((x, "X"), (y, "Y"), *zip(held_out or (), ("X_test", "Y_test"), strict=False)):
            _squares_fit(value, what)

        sigma_xx: FloatArray | None = None
        squares: Squares | None
        squares, optimum, floor = of_samples(x, y, count)
        if whiten:
            zca, sigma_yx, lost = _whitened(squares, cutoff)
            squares, optimum, floor = None, sigma_yx, floor + lost
            x = x @ zca
            if held_out is not None:
                held_out = held_out[0] @ zca, held_out[1]
        else:
            sigma_xx, sigma_yx = x.T @ x / count, y.T @ x / count
        return _build(
            sigma_xx,
            sigma_yx,
            float(np.sum(y * y)) / count,
            squares=squares,
            optimum=optimum,
            floor=floor,
            normalize=how,
            name=name,
            samples=len(x),
            test=None if held_out is None else cls.from_data(*held_out, normalize=how, name=f"{name}, held out"),
            data=Samples(np.array(x), np.array(y)) if keep_samples else None,
        )

    @classmethod
    @interruptible(_work_of_covariances)
    def from_covariances(
        cls,
        sigma_xx: ArrayLike | None,
        sigma_yx: ArrayLike,
        trace_yy: ArrayLike,
        *,
        test: Task | None = None,
        normalize: str = "mean",
        name: str = "covariances",
        samples: int | None = None,
    ) -> Task:
        """A task from its covariances; a batch of tasks if any of them has a batch axis in front.

        Parameters
        ----------
        sigma_xx : (n_in, n_in) or (batch, n_in, n_in) array, or None
            <x xᵀ>; None means whitened inputs, Sigma_xx = I.
        sigma_yx : (n_out, n_in) or (batch, n_out, n_in) array
            <y xᵀ>.
        trace_yy : float or (batch,) array
            <|y|²>.
        test : Task, optional
            Held-out covariances of the same widths: a single task, or one of as many members.
        normalize : {"mean", "sum"}
            Which the covariances are.
        samples : int, optional
            Number of samples behind them, for information.

        Raises
        ------
        ValueError, TypeError
            Wrong shapes, NaN, text, and covariances that no data have: Sigma_xx not symmetric or with negative
            eigenvalues, Sigma_yx outside the range of Sigma_xx, a trace below what Sigma_yx alone explains. Moments
            of data so small that float64 does not hold their squares.
        """
        yx = validate.array(sigma_yx, "sigma_yx")
        if yx.ndim not in (2, 3) or yx.size == 0:
            raise ValueError(f"sigma_yx: expected (n_out, n_in) or (batch, n_out, n_in), got {yx.shape}")
        n_in = yx.shape[-1]
        sizes = {"sigma_yx": yx.shape[0]} if yx.ndim == 3 else {}
        xx = None
        if sigma_xx is not None:
            xx = validate.array(sigma_xx, "sigma_xx")
            if xx.ndim not in (2, 3) or xx.shape[-2:] != (n_in, n_in) or xx.size == 0:
                got = str(xx.shape) if xx.ndim else "a number"
                raise ValueError(
                    f"sigma_xx: expected ({n_in}, {n_in}) or (batch, {n_in}, {n_in}) to match sigma_yx {yx.shape}, "
                    f"got {got}"
                )
            if xx.ndim == 3:
                sizes["sigma_xx"] = xx.shape[0]
            skew = float(np.max(np.abs(xx - np.swapaxes(xx, -2, -1))))
            if skew > CONSISTENT * np.max(np.abs(xx)):
                raise ValueError(f"sigma_xx: expected a symmetric matrix, got entries that differ by {skew:.3g}")
            xx = 0.5 * (xx + np.swapaxes(xx, -2, -1))
        trace = validate.per_member(trace_yy, "trace_yy", at_least=0)
        if trace.ndim:
            sizes["trace_yy"] = trace.shape[0]
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"batch: expected one number of members, got {', '.join(f'{n} in {k}' for k, n in sizes.items())}"
            )
        how = _normalize(normalize)
        if samples is not None:
            samples = validate.integer(samples, "samples", at_least=1)
        if test is not None:
            if not isinstance(test, Task):
                raise TypeError(f"test: expected a Task, got {type(test).__name__}")
            if (test.n_out, test.n_in) != yx.shape[-2:]:
                raise ValueError(
                    f"test: expected a task with {n_in} inputs and {yx.shape[-2]} outputs, "
                    f"got {test.n_in} and {test.n_out}"
                )
            if test.batch is not None and test.batch not in sizes.values():
                raise ValueError(
                    f"test: expected a single task or as many members as the task, got {test.batch} members"
                )
        for value, what in ((xx, "sigma_xx"), (trace, "trace_yy")):
            largest = 0.0 if value is None else float(np.max(np.abs(value)))
            if 0 < largest < _LEAST:
                raise ValueError(
                    f"{what}: expected moments of numbers whose squares float64 holds, {_LEAST:.2g} or more, "
                    f"got at most {largest:.3g}"
                )
        if sizes:
            members = next(iter(sizes.values()))
            yx = np.broadcast_to(yx, (members, *yx.shape[-2:]))
            trace = np.broadcast_to(trace, (members,))
        squares, optimum, floor = _least_squares(xx, yx, trace)
        return _build(
            None if xx is None else np.array(xx),
            np.array(yx),
            np.array(trace),
            squares=squares,
            optimum=optimum,
            floor=floor,
            normalize=how,
            name=name,
            samples=samples,
            test=test,
        )

    @classmethod
    @interruptible(_work_of_modes)
    def from_spectrum(
        cls,
        s: ArrayLike,
        n_in: int,
        n_out: int,
        seed: int = 0,
        *,
        trace_yy: float | None = None,
        name: str = "spectrum",
    ) -> Task:
        """A whitened task with given mode strengths and random (Haar) orthonormal modes.

        Parameters
        ----------
        s : (r,) array
            Strengths >= 0, r <= min(n_in, n_out); `modes` keeps their order and number.
        n_in, n_out : int
            Numbers of inputs and outputs.
        seed : int
            Seed of the modes.
        trace_yy : float, optional
            <|y|²> >= sum of s². Without it the targets have no noise and the loss reaches exactly 0.

        Raises
        ------
        ValueError, TypeError
            Strengths that are negative, too many, or so large that the loss overflows; a task that no memory is free
            for.
        """
        n_in = validate.integer(n_in, "n_in", at_least=1)
        n_out = validate.integer(n_out, "n_out", at_least=1)
        strengths = _strengths(s, n_in, n_out)
        rng = np.random.default_rng(validate.integer(seed, "seed", at_least=0))
        _fits(2 * n_in * n_out + 3 * len(strengths) * (n_in + n_out), n_in, n_out)
        explained = float(np.sum(strengths**2))
        trace = explained
        if trace_yy is not None:
            trace = validate.number(trace_yy, "trace_yy", at_least=0)
            if trace < explained * (1 - 1e-15 * len(strengths)):
                raise ValueError(f"trace_yy: expected a number >= the sum of s**2, {explained:.6g}, got {trace:.6g}")
        modes = Modes(_orthonormal(rng, n_out, len(strengths)), strengths, _orthonormal(rng, n_in, len(strengths)))
        return _of_modes(modes, floor=max(0.5 * (trace - explained), 0.0), name=name)

    @classmethod
    @interruptible(
        lambda _, levels=5, branching=2, *__, features=1000, **___: (
            branching ** (3.0 * levels) + features * branching ** (2.0 * levels)
        )
    )
    def hierarchy(
        cls,
        levels: int = 5,
        branching: int = 2,
        flip: float = 0.1,
        features: int = 1000,
        seed: int = 0,
        *,
        population: bool = False,
        normalize: str = "sum",
    ) -> Task:
        """The items of a tree and their features (Saxe, McClelland & Ganguli 2013, fig. 3; Saxe et al. 2019).

        The branching**levels leaves are the items, given to the network as one-hot inputs. Every feature is +1 or -1 at
        the root with equal probability and flips along each branch with probability `flip`, so related items share
        features.

        Parameters
        ----------
        levels, branching : int
            Branchings between root and leaves, and branches of each.
        flip : float
            Probability from 0 to 0.5 that a feature changes sign along a branch.
        features : int
            Number of outputs.
        seed : int
            Seed of the features (or, with `population`, of the output modes).
        population : bool
            Instead of sampled features, a map with exactly the population's modes: strengths `hierarchy_spectrum`,
            input modes the contrasts between the branches of each node (level by level), output modes random. Needs
            features >= items.
        normalize : {"sum", "mean"}
            Sums over items, as in the papers: the one-hot inputs are then whitened. With averages Sigma_xx = I/items.
        """
        n_levels, n_branch, p, n_out, how = _tree(levels, branching, flip, features, normalize)
        population = validate.flag(population, "population")
        rng = np.random.default_rng(validate.integer(seed, "seed", at_least=0))
        items = n_branch**n_levels
        # Beside maps of outputs by items: their modes and, where they are needed, the items' covariances or contrasts.
        square = 3 * items**2 if population or how == "mean" else items**2
        _fits(5 * items * n_out + square, items, n_out, "features")
        kind = "population" if population else "sampled"
        name = f"hierarchy ({kind}, {n_levels} levels, branching {n_branch}, flip {p:g})"
        if population:
            if n_out < items:
                raise ValueError(f"features: expected at least the {items} items for a population task, got {n_out}")
            s = cls.hierarchy_spectrum(n_levels, n_branch, p, n_out)
            modes = Modes(_orthonormal(rng, n_out, items), s, _tree_contrasts(n_levels, n_branch))
            optimum = (modes.U * s) @ modes.V.T
        else:
            value = rng.choice([-1.0, 1.0], size=(n_out, 1))
            for _ in range(n_levels):
                value = np.repeat(value, n_branch, axis=1)
                value = np.where(rng.random(value.shape) < p, -value, value)
            optimum = value
            modes = modes_of(optimum)
        count = 1 if how == "sum" else items
        root = None if count == 1 else np.eye(items) / np.sqrt(count)
        return _build(
            None if count == 1 else np.eye(items) / count,
            optimum / count,
            n_out * items / count,
            squares=None if root is None else Squares(root, optimum / np.sqrt(count)),
            modes=modes._replace(s=modes.s / count),
            optimum=optimum,
            floor=0.0,
            normalize=how,
            name=name,
            samples=items,
        )

    @staticmethod
    def hierarchy_spectrum(
        levels: int = 5, branching: int = 2, flip: float = 0.1, features: int = 1000, *, normalize: str = "sum"
    ) -> FloatArray:
        """The strengths of the tree task in closed form, for an average over the features.

        With c_k = (1 - 2 flip)^(2 (levels - k)), the covariance of items whose last common ancestor is at level k,
        level l has lambda_l = sum_{k>=l} (c_k - c_{k-1}) branching^(levels - k) and strength sqrt(features lambda_l),
        once for l = 0 and branching^(l-1) (branching - 1) times for l >= 1 (Saxe et al. 2019).

        Returns
        -------
        (branching**levels,) array
            Every strength as often as it occurs, in decreasing order.
        """
        n_levels, n_branch, p, n_out, how = _tree(levels, branching, flip, features, normalize)
        k = np.arange(n_levels + 1)
        c = (1 - 2 * p) ** (2.0 * (n_levels - k))
        increments = np.diff(c, prepend=0.0) * float(n_branch) ** (n_levels - k)
        eigenvalues = np.cumsum(increments[::-1])[::-1]
        times = [1] + [n_branch ** (level - 1) * (n_branch - 1) for level in range(1, n_levels + 1)]
        strengths = np.repeat(np.sqrt(n_out * eigenvalues), times)
        return strengths if how == "sum" else strengths / n_branch**n_levels

    @classmethod
    @interruptible(_work_of_modes)
    def teacher(
        cls,
        s: ArrayLike,
        n_in: int,
        n_out: int,
        *,
        noise: float = 1.0,
        samples: int | None = None,
        seed: int = 0,
    ) -> Task:
        """A noisy linear teacher, y = Omega x + noise z, with the noise-free teacher held out (Lampinen & Ganguli
        2018).

        Parameters
        ----------
        s : (r,) array
            Strengths of the teacher Omega; its modes are random (Haar).
        n_in, n_out : int
            Numbers of inputs and outputs.
        noise : float
            Standard deviation of the noise on every target, for inputs of unit variance. 1 is the paper's.
        samples : int, optional
            Number of training samples with x and z standard normal, in averages. Without it the inputs are whitened: as
            many orthonormal samples as inputs, whose noise adds Gaussian entries of variance noise²/n_in to Sigma_yx
            and is interpolated exactly (floor 0). This is the setting of the paper.
        seed : int
            Seed of teacher and noise.

        Returns
        -------
        Task
            Its `test` is the population of noise-free targets: whitened, ``test.optimum`` the teacher, ``test.modes``
            its modes.
        """
        n_in = validate.integer(n_in, "n_in", at_least=1)
        n_out = validate.integer(n_out, "n_out", at_least=1)
        strengths = _strengths(s, n_in, n_out)
        sigma = validate.number(noise, "noise", at_least=0)
        count = None if samples is None else validate.integer(samples, "samples", at_least=1)
        rng = np.random.default_rng(validate.integer(seed, "seed", at_least=0))
        drawn = 0 if count is None else 3 * count * (n_in + n_out) + 4 * n_in**2
        what = "n_in, n_out" if count is None else "samples"
        _fits(5 * n_in * n_out + 3 * len(strengths) * (n_in + n_out) + drawn, n_in, n_out, what)
        modes = Modes(_orthonormal(rng, n_out, len(strengths)), strengths, _orthonormal(rng, n_in, len(strengths)))
        truth = _of_modes(modes, floor=0.0, name="teacher without noise")
        name = f"teacher (noise {sigma:g})"
        if count is not None:
            x = rng.standard_normal((count, n_in))
            y = x @ truth.optimum.T + sigma * rng.standard_normal((count, n_out))
            return replace(cls.from_data(x, y, name=name), test=truth)
        sigma_yx = truth.sigma_yx + sigma / np.sqrt(n_in) * rng.standard_normal((n_out, n_in))
        return _build(
            None, sigma_yx, float(np.sum(sigma_yx**2)), optimum=sigma_yx, floor=0.0, name=name, samples=n_in, test=truth
        )

    @classmethod
    def mnist(
        cls,
        *,
        whiten: bool = False,
        center: bool = False,
        normalize: str = "mean",
        samples: int = 50000,
        rtol: float = 1e-6,
    ) -> Task:
        """Handwritten digits (LeCun, Cortes & Burges): 784 pixels from 0 to 1, ten one-hot targets, 10,000 images held
        out.

        Made from exact second moments that come with pydln: nothing is downloaded.

        Parameters
        ----------
        whiten : bool
            Map the inputs by Sigma_xx^(-1/2), as in `from_data`. The strengths then lie between 0 and 1 (averages).
        center : bool
            Subtract the training means of pixels and of targets, which is what fitted biases would do.
        normalize : {"mean", "sum"}
            Average over samples, or sum.
        samples : {50000, 60000}
            Training images: the first 50,000, as in Saxe, McClelland & Ganguli 2013, or all.
        rtol : float
            With `whiten`: eigenvalues of Sigma_xx up to `rtol` times the largest count as no variance. 784 pixels span
            711 directions, the last of which are a few pixels at the border inked in a handful of images; 1e-6 keeps
            629 of them (50,000 images, not centred), which costs 3e-4 of training loss, and no direction has more than
            3.3 times the variance in the held-out images (37 times at 1e-8, 346 times at 1e-12).

        Notes
        -----
        Without whitening `optimum` and `floor` are those of all 711 directions. No network comes near them in any
        reasonable time, and should not: held out, that optimum has a loss of 1.43, where a zero map has 0.5.
        """
        how = _normalize(normalize)
        whiten, center = validate.flag(whiten, "whiten"), validate.flag(center, "center")
        cutoff = validate.number(rtol, "rtol", at_least=0, below=1)
        if validate.integer(samples, "samples") not in (50000, 60000):
            raise ValueError(f"samples: expected 50000 or 60000, got {samples}")
        train = mnist_moments("train")
        if samples == 60000:
            train = train + mnist_moments("validation")
        pixel, target = _means(train) if center else (np.zeros(784), np.zeros(10))
        sigma_xx, sigma_yx, trace = _about(train, pixel, target, how)
        test_xx, test_yx, test_trace = _about(mnist_moments("test"), pixel, target, how)
        whitened = None if whiten else sigma_xx
        if whiten:
            zca = _whitening(sigma_xx, cutoff)
            sigma_yx = sigma_yx @ zca
            test_xx, test_yx = zca @ test_xx @ zca, test_yx @ zca
            test_xx = 0.5 * (test_xx + test_xx.T)
        described = [word for word, said in (("centred", center), ("whitened", whiten)) if said]
        return cls.from_covariances(
            whitened,
            sigma_yx,
            trace,
            normalize=how,
            name=" ".join(["MNIST", *described]),
            samples=samples,
            test=cls.from_covariances(
                test_xx, test_yx, test_trace, normalize=how, name="MNIST, held out", samples=10000
            ),
        )

    @classmethod
    @interruptible(lambda _, tasks: float(sum(task.sigma_yx.size + task.sigma_xx.size for task in tasks)))
    def stack(cls, tasks: Sequence[Task]) -> Task:
        """One batched task out of several single ones, member by member.

        All must have the same widths, number of modes and normalisation, and all or none a held-out task. Sigma_xx is
        kept once when it is the same for all; samples are kept if all tasks keep equally many.
        """
        if isinstance(tasks, Task):
            raise TypeError("tasks: expected a sequence of tasks, got Task")
        members = validate.sequence(tasks, "tasks", "tasks")
        if not members:
            raise ValueError("tasks: expected at least one task, got none")
        for i, task in enumerate(members):
            if not isinstance(task, Task):
                raise TypeError(f"tasks[{i}]: expected a Task, got {type(task).__name__}")
            if task.batch is not None:
                raise ValueError(f"tasks[{i}]: expected a single task, got a batch of {task.batch}")
            for what, of in _ALIKE.items():
                if (got := of(task)) != (expected := of(members[0])):
                    raise ValueError(f"tasks[{i}]: expected {what} {expected} as in tasks[0], got {got}")
        first = members[0]
        if all(task.whitened for task in members):
            sigma_xx = None
        elif all(task is first or np.array_equal(task.sigma_xx, first.sigma_xx) for task in members):
            sigma_xx = first.sigma_xx
        else:
            sigma_xx = np.stack([task.sigma_xx for task in members])
        names = {task.name for task in members}
        counts = {task.samples for task in members}
        tests = [task.test for task in members if task.test is not None]
        kept = [task.data for task in members if task.data is not None]
        alike = len(kept) == len(members) and len({data.X.shape for data in kept}) == 1
        return cls(
            _squares=None if sigma_xx is None else _stacked(members),
            sigma_yx=np.stack([task.sigma_yx for task in members]),
            _sigma_xx=sigma_xx,
            trace_yy=np.array([task.trace_yy for task in members]),
            modes=Modes(*(np.stack(arrays) for arrays in zip(*(task.modes for task in members), strict=True))),
            optimum=np.stack([task.optimum for task in members]),
            floor=np.array([task.floor for task in members]),
            test=cls.stack(tests) if tests else None,
            normalize=first.normalize,
            name=first.name if len(names) == 1 else "stack",
            samples=first.samples if len(counts) == 1 else None,
            data=Samples(*(np.stack(arrays) for arrays in zip(*kept, strict=True))) if alike else None,
        )


_ALIKE: dict[str, Callable[[Task], object]] = {
    "inputs": lambda task: task.n_in,
    "outputs": lambda task: task.n_out,
    "modes": lambda task: task.modes.s.shape[-1],
    "normalize": lambda task: task.normalize,
    "held-out task:": lambda task: task.test is not None,
}


def _stacked(tasks: Sequence[Task]) -> Squares:
    """A and B of all, A once where all have the same; columns of zeros make the ranks equal."""
    own = [Squares(np.eye(task.n_in), task.sigma_yx) if task.squares is None else task.squares for task in tasks]
    rank = max(one.root.shape[-1] for one in own)

    def wide(a: FloatArray) -> FloatArray:
        return np.pad(a, ((0, 0), (0, rank - a.shape[1])))

    first = own[0].root
    shared = all(one.root is first or np.array_equal(one.root, first) for one in own)
    root = first if shared else np.stack([wide(one.root) for one in own])
    return Squares(root, np.stack([wide(one.target) for one in own]))


def _least_squares(
    sigma_xx: FloatArray | None, sigma_yx: FloatArray, trace_yy: FloatArray
) -> tuple[Squares | None, FloatArray, FloatArray]:
    """(A and B, optimum, floor) from covariances, refusing those that no data have."""
    squares: Squares | None = None
    if sigma_xx is None:
        optimum = np.array(sigma_yx)
        explained = np.sum(sigma_yx * sigma_yx, axis=(-2, -1))
    else:
        squares, optimum = of_covariances(sigma_xx, sigma_yx, trace_yy)
        explained = squares.explained
    floor = 0.5 * (trace_yy - explained)
    if np.any(floor < -0.5 * CONSISTENT * trace_yy):
        i = np.argmin(floor)
        raise ValueError(
            f"trace_yy: expected at least {np.ravel(explained)[i]:.9g}, which sigma_yx and sigma_xx imply, "
            f"got {np.ravel(trace_yy)[i]:.9g}" + (f" for member {i}" if floor.ndim else "")
        )
    # Below the rounding of the sum above a floor is not known to differ from zero.
    return squares, optimum, np.where(floor <= np.finfo(float).eps * sigma_yx.shape[-1] * trace_yy, 0.0, floor)


def _build(
    sigma_xx: FloatArray | None,
    sigma_yx: FloatArray,
    trace_yy: float | FloatArray,
    *,
    squares: Squares | None = None,
    optimum: FloatArray,
    floor: float | FloatArray,
    modes: Modes | None = None,
    normalize: Normalize = "mean",
    name: str,
    samples: int | None,
    test: Task | None = None,
    data: Samples | None = None,
) -> Task:
    """A task out of arrays that are its own and consistent."""
    single = sigma_yx.ndim == 2
    return Task(
        sigma_yx=sigma_yx,
        _sigma_xx=sigma_xx,
        trace_yy=float(trace_yy) if single else np.asarray(trace_yy),
        modes=modes_of(sigma_yx) if modes is None else modes,
        optimum=optimum,
        floor=float(floor) if single else np.asarray(floor),
        test=test,
        normalize=normalize,
        name=name,
        samples=samples,
        data=data,
        _squares=squares,
    )


def _of_modes(modes: Modes, *, floor: float, name: str) -> Task:
    """A whitened task of given modes."""
    sigma_yx = (modes.U * modes.s) @ modes.V.T
    trace = float(np.sum(modes.s**2)) + 2 * floor
    return _build(None, sigma_yx, trace, optimum=sigma_yx, floor=floor, modes=modes, name=name, samples=None)


def modes_of(sigma_yx: FloatArray) -> Modes:
    """Singular value decomposition; the first of the largest entries of each column of V is positive."""
    u, s, vt = np.linalg.svd(sigma_yx, full_matrices=False)
    size = np.abs(vt)
    # entries of equal size up to rounding count as equal, so that rounding does not choose the sign
    first = np.argmax(size >= (1 - 1e-6) * size.max(axis=-1, keepdims=True), axis=-1)
    sign = np.where(np.take_along_axis(vt, first[..., None], axis=-1)[..., 0] < 0, -1.0, 1.0)
    v = np.ascontiguousarray(np.swapaxes(vt * sign[..., None], -2, -1))
    return Modes(u * sign[..., None, :], s, v)


def _orthonormal(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    """Orthonormal columns, Haar distributed: QR of a Gaussian, the diagonal of R made positive (Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((rows, columns)))
    return q * np.where(np.diagonal(r) < 0, -1.0, 1.0)


def _whitening(sigma_xx: FloatArray, rtol: float) -> FloatArray:
    """Sigma_xx^(-1/2) on the eigenvectors with eigenvalues above rtol times the largest, 0 on the others."""
    values, vectors = np.linalg.eigh(sigma_xx)
    kept = values > max(rtol, np.finfo(float).eps * len(values)) * values[-1]
    some = vectors[:, kept]
    result: FloatArray = (some / np.sqrt(values[kept])) @ some.T
    return result


def _whitened(squares: Squares, rtol: float) -> tuple[FloatArray, FloatArray, float]:
    """Sigma_xx^(-1/2) as `_whitening` has it, what Sigma_yx becomes, and what is left out of the loss by that."""
    Q, sigma, target = principal(squares)
    kept = sigma > max(np.sqrt(rtol), np.finfo(float).eps * len(sigma)) * sigma[0]
    some = Q[:, kept]
    return (some / sigma[kept]) @ some.T, target[:, kept] @ some.T, 0.5 * float(np.sum(target[:, ~kept] ** 2))


def _means(moments: Moments) -> tuple[FloatArray, FloatArray]:
    """Mean of the pixels (0 to 1) and of the one-hot targets."""
    return moments.yx.sum(0) / (255.0 * moments.samples), moments.counts / moments.samples


def _about(
    moments: Moments, pixel: FloatArray, target: FloatArray, normalize: Normalize
) -> tuple[FloatArray, FloatArray, float]:
    """(Sigma_xx, Sigma_yx, tr Sigma_yy) of pixels from 0 to 1 and one-hot targets, about `pixel` and `target`."""
    n = moments.samples
    x, y = _means(moments)
    xx = moments.xx / (255.0**2 * n) - np.outer(x, pixel) - np.outer(pixel, x) + np.outer(pixel, pixel)
    yx = moments.yx / (255.0 * n) - np.outer(y, pixel) - np.outer(target, x) + np.outer(target, pixel)
    trace = 1 - 2 * float(y @ target) + float(target @ target)
    scale = 1 if normalize == "mean" else n
    return xx * scale, yx * scale, trace * scale


def _tree_contrasts(levels: int, branching: int) -> FloatArray:
    """Orthonormal input modes of a tree: the mean, then level by level the contrasts of each node's branches."""
    items = branching**levels
    # Helmert contrasts: branch j against the mean of the branches before it
    contrast = np.tril(-np.ones((branching, branching)), -1).T[:, 1:]
    contrast[np.arange(1, branching), np.arange(branching - 1)] = np.arange(1, branching)
    contrast /= np.linalg.norm(contrast, axis=0)
    columns = [np.full((items, 1), items**-0.5)]
    for level in range(levels):
        below = branching ** (levels - level - 1)
        within = np.repeat(contrast, below, axis=0) / np.sqrt(below)
        columns.append(np.kron(np.eye(branching**level), within))
    return np.hstack(columns)


def _tree(
    levels: object, branching: object, flip: object, features: object, normalize: object
) -> tuple[int, int, float, int, Normalize]:
    n_levels = validate.integer(levels, "levels", at_least=1, at_most=62)
    n_branch = validate.integer(branching, "branching", at_least=2, at_most=2**62)
    if n_levels > 16 or n_branch**n_levels > 2**16:
        raise ValueError(f"levels: expected at most 65536 items, got {n_branch}**{n_levels}")
    p = validate.number(flip, "flip", at_least=0, at_most=0.5)
    return n_levels, n_branch, p, validate.integer(features, "features", at_least=1), _normalize(normalize)


def _strengths(s: ArrayLike, n_in: int, n_out: int) -> FloatArray:
    strengths: FloatArray = np.array(validate.array(s, "s", shape=("modes",), at_least=0))
    if not 1 <= len(strengths) <= min(n_in, n_out):
        raise ValueError(f"s: expected from 1 to min(n_in, n_out) = {min(n_in, n_out)} strengths, got {len(strengths)}")
    with np.errstate(over="ignore"):
        explained = np.sum(strengths**2)
    if not np.isfinite(explained) or 0 < np.max(strengths) < _SMALL:
        raise ValueError(f"s: expected numbers whose squares fit in float64, got up to {np.max(strengths):.3g}")
    return strengths


def _fits(entries: int, n_in: int, n_out: int, what: str = "n_in, n_out") -> None:
    """Refuse `entries` float64 numbers that no memory is free for."""
    validate.fits_in_memory(8 * entries, f"{what}: a task of {n_in} inputs and {n_out} outputs", "make it smaller")


def _samples(
    value: ArrayLike, name: str, *, rows: tuple[int, str] | None = None, columns: tuple[int, str] | None = None
) -> FloatArray:
    shape = (rows[0] if rows else "samples", columns[0] if columns else "features")
    why = " to match " + " and ".join(other for _, other in (rows or (0, ""), columns or (0, "")) if other)
    result: FloatArray = validate.array(value, name, shape=shape, why=why if rows or columns else "")
    if result.size == 0:
        raise ValueError(f"{name}: expected at least one sample and one feature, got {result.shape}")
    return result


def _targets(
    value: ArrayLike, name: str, *, rows: tuple[int, str], columns: tuple[int, str] | None = None
) -> FloatArray:
    """Targets; one number a sample is one output."""
    own = validate.array(value, name)
    if own.ndim == 1 and len(own) == rows[0] and (columns is None or columns[0] == 1):
        own = own[:, None]
    return _samples(own, name, rows=rows, columns=columns)


def _squares_fit(a: FloatArray, name: str) -> None:
    """Refuse samples whose second moments float64 does not hold: too large, or all too small."""
    with np.errstate(over="ignore"):
        whole = np.einsum("ij,ij->", a, a)
    largest = max(float(a.max()), -float(a.min()))
    if not np.isfinite(whole):
        raise ValueError(f"{name}: expected numbers whose products fit in float64, got up to {largest:.3g}")
    if 0 < largest < _SMALL:
        raise ValueError(f"{name}: expected numbers whose squares fit in float64, got at most {largest:.3g}")


def _normalize(value: object) -> Normalize:
    return "mean" if validate.choice(value, "normalize", _NORMALIZE) == "mean" else "sum"


def _after_batch(a: FloatArray, axes: int) -> FloatArray:
    return a.reshape(a.shape[0], *(1,) * axes, *a.shape[1:])


def _span(value: float | FloatArray) -> str:
    low, high = float(np.min(value)), float(np.max(value))
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
