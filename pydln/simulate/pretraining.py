"""Greedy unsupervised pretraining: every hidden layer is first trained to encode what the layer below gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pydln import exact
from pydln._base import validate
from pydln._base.patience import patiently
from pydln.errors import IntegrationError, Interrupted, NotApplicable
from pydln.init.arguments import arguments
from pydln.init.draws import draws, frames
from pydln.simulate.descent import gradient_descent
from pydln.simulate.flow import gradient_flow
from pydln.simulate.progress import Progress, shown
from pydln.simulate.stop import Stop
from pydln.task.squares import Squares
from pydln.task.task import Modes, Task
from pydln.trajectory.outcome import judged
from pydln.trajectory.trajectory import Trajectory
from pydln.weights import Weights

__all__ = ["Pretrained", "fine_tune", "pretrain"]

FloatArray = NDArray[np.float64]

STARTS = ("gaussian", "aligned")
_TIMES = 101  # records of a layer's flow
_OTHERS = ".trajectory holds this layer of all members"
_ROUNDING = 32 * float(np.finfo(np.float64).eps)  # of the largest variance: what counts as none, as in Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Pretrained:
    """Networks whose hidden layers were pretrained, and what that took.

    Attributes
    ----------
    weights : Weights
        W_1 … W_{D-1} the encoders, W_D the last layer that fine-tuning starts from.
    runs : tuple of D - 1 Trajectory
        Training of each autoencoder, with ``loss``; its ``final`` weights are encoder and decoder.
    losses : (batch, D - 1) array
        The loss that each autoencoder ended with, in the normalisation of the task.
    floors : (batch, D - 1) array
        The least loss that the bottleneck of each autoencoder admits, half the variances beyond its n_l largest.
    time : (batch, D - 1) array
        Time spent on each layer, in units of τ = 1/lr.
    steps : (batch, D - 1) array of int, or None
        Steps of gradient descent spent on each layer; None for gradient flow.
    exact : tuple of D - 1 bool
        Whether the layer was solved in closed form (`pydln.exact`) instead of integrated.
    """

    weights: Weights
    runs: tuple[Trajectory, ...]
    losses: FloatArray
    floors: FloatArray
    time: FloatArray
    steps: NDArray[np.int64] | None
    exact: tuple[bool, ...]


def pretrain(
    task: Task,
    widths: Sequence[int],
    *,
    lr: ArrayLike | None = None,
    steps: int | None = None,
    tol: float = 0.0,
    t: float | None = None,
    start: str = "gaussian",
    scale: float = 0.1,
    last_scale: float = 1.0,
    batch: int | None = None,
    seed: int = 0,
    first: int = 0,
    dtype: DTypeLike = np.float64,
    n_threads: int | None = None,
    progress: Progress = False,
) -> Pretrained:
    """Layer by layer, train linear autoencoders on the inputs and keep their encoders.

    Layer l is trained as the first of two, n_{l-1} → n_l → n_{l-1}, to give back what comes in: a task with Σ_yx = Σ_xx
    = Σ_l, where Σ_1 is that of the inputs and Σ_{l+1} = W_l Σ_l W_lᵀ. No targets are seen. From a start that is small,
    or aligned with the eigenvectors Q of Σ_xx, the encoders end as W_1 = R_2 M^{1/2} Qᵀ, W_2 = R_3 M^{1/2} R_2ᵀ, … with
    orthonormal R, where the diagonal M goes to 1 along the directions that are learned, first those of large
    variance: the hidden layers come near orthogonal ones (Saxe, McClelland & Ganguli 2013, section 3). Whether that is
    a good start for a task is what `pydln.consistency` measures. A deep network needs M close to 1, for what its last
    layer sees of a direction is M^{(D-1)/2}.

    Fine-tuning then conserves W_{l+1}ᵀW_{l+1} - W_l W_lᵀ as pretraining left it, near zero between layers that both
    pass a direction on with strength 1. The autoencoders with an aligned start admit "aligned, two layers", those of
    whitened inputs from it "balanced, two layers" too; the network that is fine-tuned admits no closed form, for its
    last layer is random.

    Parameters
    ----------
    task : Task
        Single, or with a member for each network.
    widths : sequence of int
        n_0 … n_D, input first, n_0 and n_D those of the task.
    lr : number or (D - 1,) array, optional
        Learning rate of the autoencoders, one or layer by layer: gradient descent. An autoencoder is stable below 1/d
        of the largest variance d of its inputs, whatever the layer.
    steps : int, optional
        With `lr`: the most steps for each layer.
    tol : float
        With `lr`: a layer has learned, and its training ends, when its loss has made all but this part of the way from
        its start to the floor of its bottleneck. 0: all `steps` are taken.
    t : number, optional
        Instead of `lr` and `steps`: the time of gradient flow for each layer, in units of τ. By the exact solution
        where one applies, integrated otherwise.
    start : {"gaussian", "aligned"}
        Of the autoencoders. ``gaussian``: both layers independent N(0, scale² / fan-in). ``aligned``: W = scale R Q_kᵀ
        and its transpose, with a random frame R, in the min(n_l, n_{l-1}) strongest eigenvectors Q_k of Σ_l.
    scale : number
        Of that start, > 0.
    last_scale : number
        W_D is this, zero or more, times a random semi-orthogonal matrix.
    batch, seed, first, dtype
        As for `pydln.init.gaussian`, for every layer.
    n_threads : int, optional
        Threads over the batch; the result does not depend on it.
    progress : bool or callable
        True for a bar, which needs tqdm, or a function that gets (layers trained, D - 1) before each and at the end.

    Returns
    -------
    Pretrained

    Raises
    ------
    ValueError, TypeError
        Widths that are not those of the task, no hidden layer, both or neither of `lr` with `steps` and `t`.
    IntegrationError
        Members of an autoencoder diverged: a smaller `lr` helps, or a shorter `t`. A note names its layer, and
        ``.trajectory`` holds what became of all members in it; layers above it would have nothing to learn from.
    Interrupted
        Ctrl-C; ``.trajectory`` is that of the autoencoder in training, whose layer a note names.
    """
    validate.instance(task, "task", Task)
    last_gain = validate.number(last_scale, "last_scale", at_least=0)
    given = arguments(widths, _members(task, batch), last_gain, seed, first, dtype)
    dims, count, keys, kind = given.widths, given.members, given.keys, given.dtype
    depth = len(dims) - 1
    if (dims[0], dims[-1]) != (task.n_in, task.n_out):
        raise ValueError(
            f"widths: expected {task.n_in} inputs and {task.n_out} outputs like the task, got {dims[0]} and {dims[-1]}"
        )
    if depth < 2:
        raise ValueError("widths: expected a hidden layer to pretrain, at least three widths, got two")
    train = _training(depth, lr, steps, tol, t, n_threads)
    validate.choice(start, "start", STARTS)
    size = validate.number(scale, "scale", above=0)

    representation = None if task.whitened else task.sigma_xx
    layers, runs, losses, floors, solved = [], [], [], [], []
    with shown(progress, "pretraining", "layer") as tick:
        for k in range(1, depth):
            if tick is not None:
                tick(k - 1, depth - 1)
            n_in, n = dims[k - 1], dims[k]
            own = _autoencoder(representation, n_in, task.normalize)
            variances = own.modes.s
            floor = 0.5 * np.broadcast_to(np.sum(variances[..., n:], axis=-1), (count,))
            begin = _start(start, own, n, size, k, count, keys).astype(kind)
            try:
                run, closed = train(k, own, begin, floor)
            except (IntegrationError, Interrupted) as error:
                error.add_note(f"while the autoencoder of layer {k} was trained")
                raise
            assert run.final is not None
            layers.append(run.final.layers[0].astype(kind, copy=False))
            losses.append(own.loss(run.final.product()))
            runs.append(run)
            floors.append(floor)
            solved.append(closed)
            encoder = layers[-1].astype(np.float64, copy=False)
            turned = np.swapaxes(encoder, -2, -1)
            representation = encoder @ turned if representation is None else encoder @ representation @ turned
        if tick is not None:
            tick(depth - 1, depth - 1)
    n_in, n_out = dims[-2:]
    columns = frames(max(n_in, n_out), min(n_in, n_out), count, keys, 2 * depth - 1)
    last = columns if n_out >= n_in else columns.transpose(0, 2, 1)
    layers.append((last * given.gains[-1]).astype(kind))
    by_steps = t is None
    return Pretrained(
        weights=Weights._adopt(layers),
        runs=tuple(runs),
        losses=np.stack(losses, axis=1),
        floors=np.stack(floors, axis=1),
        time=np.stack([run.stopped_time for run in runs], axis=1),
        steps=np.stack([np.asarray(run.stopped_step) for run in runs], axis=1) if by_steps else None,
        exact=tuple(solved),
    )


def fine_tune(task: Task, pretrained: Pretrained, *, lr: ArrayLike, steps: int, **options: Any) -> Trajectory:
    """`pydln.gradient_descent` from pretrained weights, with the time of pretraining counted.

    Parameters
    ----------
    task : Task
        What is learned: the one of the pretraining, or another on the same inputs.
    pretrained : Pretrained
    lr, steps, **options
        As for `pydln.gradient_descent`.

    Returns
    -------
    Trajectory
        ``t`` is (batch, time) and begins for each member with the time its pretraining took; ``steps`` are those of
        the fine-tuning alone.

    Raises
    ------
    TypeError, ValueError, IntegrationError, Interrupted
        As for `pydln.gradient_descent`; the time of pretraining is counted in ``.trajectory`` too.
    """
    validate.instance(pretrained, "pretrained", Pretrained)
    try:
        run = gradient_descent(task, pretrained.weights, lr=lr, steps=steps, **options)
    except (IntegrationError, Interrupted) as error:
        error.trajectory = _later(error.trajectory, pretrained.time.sum(axis=1))
        raise
    return _later(run, pretrained.time.sum(axis=1))


def _later(run: Trajectory, before: FloatArray) -> Trajectory:
    """`run` with its time counted from `before`, (batch,) or (1,), on."""
    return run._with(
        t=np.broadcast_to(before, (run.batch,))[:, None] + np.broadcast_to(run.t, (run.batch, run.t.shape[-1])),
        stopped_time=run.stopped_time + before,
        settings=run.settings | {"pretraining_time": np.broadcast_to(before, (run.batch,)).copy()},
    )


Train = Callable[[int, Task, Weights, FloatArray], tuple[Trajectory, bool]]


def _members(task: Task, batch: int | None) -> int | None:
    """The batch asked for, or that of the task."""
    if task.batch is None or batch is None:
        return task.batch if batch is None else batch
    if task.batch not in (1, batch):
        raise ValueError(f"task: expected 1 or {batch} members to go with batch, got {task.batch}")
    return batch


def _start(start: str, own: Task, n: int, size: float, k: int, count: int, keys: tuple[int, int]) -> Weights:
    """Encoder and decoder of layer k, n_{k-1} → n → n_{k-1}."""
    n_in = own.n_in
    if start == "gaussian":
        one = draws(n, n_in, count, keys, 2 * k - 1, "normal") * (size / np.sqrt(n_in))
        two = draws(n_in, n, count, keys, 2 * k, "normal") * (size / np.sqrt(n))
        return Weights._adopt([one, two])
    modes = min(n, n_in)
    R = frames(n, modes, count, keys, 2 * k - 1)
    one = size * (R @ np.swapaxes(own.modes.V[..., :modes], -2, -1))
    return Weights._adopt([one, np.swapaxes(one, -2, -1)])


def _training(
    depth: int, lr: ArrayLike | None, steps: int | None, tol: float, t: float | None, n_threads: int | None
) -> Train:
    """How a layer is trained: its number, autoencoder, start and floor to its run, and whether it was solved."""
    if (t is None) == (lr is None and steps is None):
        raise ValueError(f"t: expected either t, or lr and steps, got {'neither' if t is None else 'both'}")
    part = validate.number(tol, "tol", at_least=0, below=1)
    if t is not None:
        if part > 0:
            raise ValueError("tol: expected 0 with t, which says how long a layer is trained, got a tolerance")
        return _by_flow(np.linspace(0.0, validate.number(t, "t", above=0), _TIMES), n_threads)
    if lr is None or steps is None:
        raise ValueError(f"steps: expected lr and steps together, got no {'lr' if lr is None else 'steps'}")
    rates = validate.array(lr, "lr", above=0)
    if rates.ndim > 1 or (rates.ndim == 1 and len(rates) != depth - 1):
        raise ValueError(f"lr: expected a number or ({depth - 1},), one for each pretrained layer, got {rates.shape}")
    most = validate.integer(steps, "steps", at_least=1)
    return _by_descent(np.broadcast_to(rates, (depth - 1,)), most, part, n_threads)


def _by_flow(times: FloatArray, n_threads: int | None) -> Train:
    def train(_: int, own: Task, weights: Weights, floor: FloatArray) -> tuple[Trajectory, bool]:
        try:
            solution = exact.solve(own, weights)
        except NotApplicable:
            run = gradient_flow(own, weights, times, record="loss", n_threads=n_threads, throw=False)
            return judged(run, advice="try a shorter t or a smaller scale", others=_OTHERS), False
        run = solution.evaluate(times)
        # The layers at the end alone: a hundred times over they would be the largest thing here.
        end = solution.evaluate(times[-1:], record="weights")
        final = Weights._adopt([w[:, -1] for w in end.weights])
        return judged(run._with(records={"loss": run.loss}, final=final), others=_OTHERS), True

    return train


def _by_descent(rates: FloatArray, steps: int, tol: float, n_threads: int | None) -> Train:
    def train(k: int, own: Task, weights: Weights, floor: FloatArray) -> tuple[Trajectory, bool]:
        stop = None
        if tol > 0:
            begin = own.loss(np.asarray(weights.product(), dtype=np.float64))
            stop = Stop(loss=floor + tol * (np.broadcast_to(begin, floor.shape) - floor))
        rate = float(rates[k - 1])
        run = gradient_descent(
            own, weights, lr=rate, steps=steps, record="loss", stop=stop, n_threads=n_threads, throw=False
        )
        below = "try a smaller lr, below 1/d of the largest variance d of the inputs"
        return judged(run, advice=below, others=_OTHERS), False

    return train


def _autoencoder(sigma: FloatArray | None, n: int, normalize: Any) -> Task:
    """The task of giving back inputs of covariance `sigma`, None if whitened: its modes are the eigenvectors."""
    if sigma is None:
        own = np.eye(n)
        return Task.from_covariances(None, own, float(n), normalize=normalize, name="autoencoder")
    sigma = 0.5 * (sigma + np.swapaxes(sigma, -2, -1))
    d, Q = patiently(np.linalg.eigh, sigma)
    d, Q = np.ascontiguousarray(d[..., ::-1]), np.ascontiguousarray(Q[..., ::-1])
    kept = d > _ROUNDING * np.maximum(d[..., :1], 0.0)
    batched = sigma.ndim == 3
    trace = np.trace(sigma, axis1=-2, axis2=-1)
    root = Q * np.sqrt(np.where(kept, d, 0.0))[..., None, :]
    # One decomposition in place of the three that Task.from_covariances would make, and U = V also where d is rounding.
    return Task(
        sigma_yx=sigma,
        _sigma_xx=sigma,
        trace_yy=np.asarray(trace) if batched else float(trace),
        modes=Modes(Q, np.where(kept, d, 0.0), Q),
        optimum=(Q * kept[..., None, :]) @ np.swapaxes(Q, -2, -1),
        floor=np.zeros(len(sigma)) if batched else 0.0,
        normalize=normalize,
        name="autoencoder",
        _squares=Squares(root, root),
    )
