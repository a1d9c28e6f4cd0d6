"""Learning dynamics of ensembles of nonlinear networks, by gradient descent on samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln._base import backend, validate
from pydln.activations import ACTIVATIONS
from pydln.quantities import QUANTITIES, Sizes
from pydln.simulate.clock import Schedule
from pydln.simulate.members import agree_with_rates
from pydln.simulate.noise import Checked
from pydln.simulate.progress import Progress, shown
from pydln.simulate.settings import settings_of
from pydln.simulate.stop import Limits, Stop
from pydln.task.task import Modes, modes_of
from pydln.trajectory.outcome import judged
from pydln.trajectory.recording import Record, Recording
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory
from pydln.weights import Weights

__all__ = ["train_nonlinear"]

_KNOWN = ("loss", "test_loss", "strengths", "layer_norms", "drift", "weights")
_OFFERED = tuple(name for name, one in QUANTITIES.items() if name in _KNOWN or one.any_network)


def train_nonlinear(
    x: ArrayLike,
    y: ArrayLike,
    weights: Weights,
    *,
    activation: str = "tanh",
    lr: ArrayLike,
    steps: int,
    at: ArrayLike | None = None,
    record_every: int | None = None,
    record: Record = ("loss", "strengths"),
    normalize: str = "mean",
    modes: Modes | None = None,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    replace: bool = True,
    first: int = 0,
    stop: Stop | None = None,
    n_threads: int | None = None,
    throw: bool = True,
    progress: Progress = False,
) -> Trajectory:
    """Gradient descent of an ensemble of networks with a nonlinearity in their hidden layers, on samples.

    ŷ = W_D φ(W_{D-1} φ(⋯ W_1 x)), without biases, moves each layer by W_l ← W_l - lr ∂L/∂W_l down the gradient of
    L = 1/2 <|y - ŷ|²>: with z_l = W_l h_{l-1}, h_l = φ(z_l), h_0 = x,

        -∂L/∂W_l = <R_l h_{l-1}ᵀ>, R_D = y - ŷ, R_l = φ′(z_l) ∘ W_{l+1}ᵀ R_{l+1}

    (Saxe, McClelland & Ganguli 2013, section 4: the tanh networks of their figure 3). <> is the average over the
    samples, or their sum.

    Parameters
    ----------
    x : (samples, n_0) or (batch, samples, n_0) array
        Inputs, one sample in a row; with three axes every member has its own.
    y : (samples, n_D) or (batch, samples, n_D) array
        Targets.
    weights : Weights
        The starts. Float32 weights are trained in float32, float64 in float64. A single start is used for every member
        when the samples, `lr` or another argument have several.
    activation : str
        φ of the hidden layers: ``linear``, ``tanh``, ``erf``, ``relu``, ``leaky_relu`` (0.01 x below zero), ``gelu``
        (x Φ(x), exactly) or ``softplus``; see `pydln.activations`.
    lr : float or (batch,) array
        Learning rate η, > 0, as in `gradient_descent`: an array is a rate for each member, not for each step.
    steps : int
        Number of steps, >= 0.
    at : 1-D array of int, optional
        Steps at which to record, increasing, within 0 … `steps`.
    record_every : int, optional
        Record at 0, k, 2k, … and at the last step. Without `at` and `record_every`, about 200 evenly spaced steps.
    record : str, mapping or sequence of these
        Out of ``loss``, ``test_loss``, ``strengths`` (diag(UᵀΣ_net V), Σ_net = <ŷxᵀ>: of a linear network with
        whitened inputs those of its product), ``layer_norms`` (Frobenius), ``drift`` (‖C_l(t) - C_l(0)‖,
        C_l = W_{l+1}ᵀW_{l+1} - W_lW_lᵀ, whose diagonal gradient flow conserves for relu and leaky_relu, and the whole
        of it for linear), ``balance`` (‖C_l‖), ``weights``, and functions of one's own as in `gradient_descent`, whose
        second argument is None here.
    normalize : {"mean", "sum"}
        What <> is, in the loss, its gradient and the strengths, as of a `Task`.
    modes : Modes, optional
        U (n_D, r) and V (n_0, r), or with the batch axis in front, that the strengths are read with: those of a `Task`.
        By default the singular value decomposition of <yxᵀ>.
    x_test, y_test : arrays, optional
        Held-out samples, axes as of `x` and `y`.
    batch_size : int, optional
        Samples of a minibatch: stochastic gradient descent, the gradient an average over the minibatch (of sums, times
        the number of samples). Which they are depends on `seed`, member and step alone, as with `Minibatch`. Loss and
        records are those of all samples. Without it every step takes all samples.
    seed : int
        Of the minibatches, 0 … 2^64 - 1.
    replace : bool
        Draw every sample from all of them. Otherwise they are shuffled, and taken in that order until fewer than
        `batch_size` are left; then shuffled again.
    first : int
        Number of the first member: member i of the run draws the minibatches of member first + i.
    stop : Stop, optional
        Lets members stop early; they cost nothing from then on. `Trajectory.stopped_step` tells at which step.
        ``steady`` looks at the gradient of the step, of minibatches at theirs.
    n_threads : int, optional
        Threads over the batch; the result does not depend on it. Default: PYDLN_NUM_THREADS, or all processors.
    throw : bool
        Raise `IntegrationError` when members diverged; otherwise their `Status` says so.
    progress : bool or callable
        True shows a bar (extra ``cli``); a callable gets (member-steps done, in all) now and then.

    Returns
    -------
    Trajectory
        As of `gradient_descent`. Divergence (a loss that is not finite) is looked for wherever something is recorded,
        at every 32nd step (there in the loss of the last minibatch, if there are any), and at every step if `stop` is
        given.

    Raises
    ------
    TypeError, ValueError
        A wrong argument, before any work is done; also when the recording would not fit in memory.
    IntegrationError
        Members diverged and `throw` is true; ``.trajectory`` holds everything that was computed.
    Interrupted
        Ctrl-C; a KeyboardInterrupt whose ``.trajectory`` holds everything that was computed, weights of whole steps.
    """
    if not isinstance(weights, Weights):
        raise TypeError(
            f"weights: expected pydln.Weights, got {type(weights).__name__}: pydln.Weights(layers) makes one"
        )
    dtype = weights.dtype
    kind = ACTIVATIONS.index(validate.choice(activation, "activation", ACTIVATIONS))  # the kernel's number
    mean = validate.choice(normalize, "normalize", ("mean", "sum")) == "mean"
    inputs, targets = _samples(x, y, "x", "y", weights)
    samples = inputs.shape[-2]
    scale = 1 / samples if mean else 1.0
    held_out = None
    if (x_test is None) != (y_test is None):
        given, absent = ("x_test", "y_test") if y_test is None else ("y_test", "x_test")
        raise ValueError(f"{absent}: expected an array to go with {given}, got None")
    if x_test is not None and y_test is not None:
        held_out = _samples(x_test, y_test, "x_test", "y_test", weights)
    recording = Recording.of(
        record,
        known=_KNOWN,
        offered=_OFFERED,
        because=", which is defined for linear networks",
        task=None,
        weights=weights,
        without="expected x_test and y_test for test_loss, got none" if held_out is None else "",
    )
    u, v = _modes(modes, inputs, targets, scale)
    count = u.shape[-1]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as that
        rates = {"lr": validate.per_member(lr, "lr", dtype=dtype, above=0)}
        limits = Limits.of(stop, count, dtype)
    shared = {"x": inputs, "y": targets, "modes.U": u, "modes.V": v}
    if held_out is not None:
        shared |= {"x_test": held_out[0], "y_test": held_out[1]}
    batch = agree_with_rates(
        {
            "weights": weights.batch,
            **{name: len(a) for name, a in shared.items() if a.ndim == 3},
            **{name: len(rate) for name, rate in rates.items() if rate.ndim},
            **limits.members,
        },
        steps,
    )
    steps = validate.integer(steps, "steps", at_least=0, at_most=2**62 // batch)
    threads, throw = backend.threads(n_threads), validate.flag(throw, "throw")
    schedule = Schedule.of(steps, at, record_every)
    sizes = Sizes(weights.widths, count)
    recording.refuse_too_large(weights, sizes, batch, schedule.count, held=recording.sources)
    drawn = _minibatch(batch_size, seed, replace, first, samples=samples, mean=mean, batch=batch)

    def of(a: NDArray[Any], name: str = "") -> NDArray[Any]:
        """As the kernel takes it: in its precision, without the batch axis where one is for all."""
        with np.errstate(over="ignore"):
            cast = np.ascontiguousarray(a, dtype=dtype)
        if name and not np.isfinite(cast).all():
            raise ValueError(f"{name}: expected numbers within the range of {dtype}, got numbers outside it")
        return validate.one_for_all(cast, batch, ndim=2)

    def sampled(a: NDArray[Any], b: NDArray[Any], *which: str) -> dict[str, Any]:
        rows = a.shape[-2]
        return {"count": rows, "x": of(a, which[0]), "y": of(b, which[1]), "scale": 1 / rows if mean else 1.0}

    train = sampled(inputs, targets, "x", "y")
    record_at = schedule.steps()
    records = recording.empty(recording.names, sizes, batch, len(record_at), dtype)
    held = [name for name in recording.sources if name not in records]
    recorded = records | recording.empty(held, sizes, batch, len(record_at), dtype)
    layers = [np.array(np.broadcast_to(w, (batch, *w.shape[1:])), order="C") for w in weights.layers]
    status = np.full(batch, Status.INTERRUPTED, dtype=np.int64)
    stopped_at = np.zeros(batch, dtype=np.int64)
    core = backend.core
    call = core.nonlinear_f32 if dtype == np.float32 else core.nonlinear_f64
    noise = None
    if drawn is not None:
        numbers = {"x": train["x"], "y": train["y"], "std": np.zeros((), dtype=dtype)}
        noise = drawn.of(np.arange(batch), batch) | numbers
    with shown(progress, "gradient descent", "step") as tick:
        interrupted = call(
            weights=layers,
            activation=kind,
            train=train,
            test=None if held_out is None else sampled(*held_out, "x_test", "y_test"),
            modes={"count": count, "u": of(u, "modes.U"), "x": of(scale * (inputs @ v), "modes.V")},
            lr=validate.one_for_all(rates["lr"], batch),
            noise=noise,
            steps=steps,
            stop=limits.of_networks(np.arange(batch), 1, batch, least_residual=False),
            record_at=record_at,
            records={name: recorded.get(name) for name in QUANTITIES},
            status=status,
            stopped_at=stopped_at,
            threads=min(threads, batch),
            memory=validate.free_memory,
            isa=backend.isa(),
            layout=backend.layout(),
            tick=tick,
        )
    try:
        recording.derive(recorded, records, None, np.arange(batch), list(weights.layers), threads)
    except KeyboardInterrupt:
        interrupted, status[:] = True, Status.INTERRUPTED
    lr64 = rates["lr"].astype(np.float64)
    trajectory = Trajectory(
        t=np.multiply.outer(np.broadcast_to(lr64, (batch,)) if lr64.ndim else lr64, record_at),
        steps=record_at,
        records=records,
        status=status,
        stopped_step=stopped_at,
        stopped_time=lr64 * stopped_at,
        final=Weights._adopt(layers),
        settings=settings_of(None, weights, stop, rates, steps)
        | {"activation": activation, "normalize": normalize, "samples": samples}
        | ({} if drawn is None else drawn.settings),
        source="train_nonlinear",
    )
    return judged(trajectory, interrupted=interrupted, throw=throw)


def _samples(
    x: ArrayLike, y: ArrayLike, x_name: str, y_name: str, weights: Weights
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inputs and targets that fit each other and the weights, in float64."""
    made = []
    for value, name, width, side in (
        (x, x_name, weights.widths[0], "inputs"),
        (y, y_name, weights.widths[-1], "outputs"),
    ):
        a = validate.array(value, name)
        if a.ndim not in (2, 3) or a.shape[-1] != width or a.size == 0:
            raise ValueError(
                f"{name}: expected (samples, {width}) or (batch, samples, {width}) for the {width} {side} of weights, "
                f"got {a.shape}"
            )
        made.append(a)
    if made[0].shape[-2] != made[1].shape[-2]:
        raise ValueError(f"{y_name}: expected {made[0].shape[-2]} samples like {x_name}, got {made[1].shape[-2]}")
    return made[0], made[1]


def _modes(
    modes: Modes | None, x: NDArray[np.float64], y: NDArray[np.float64], scale: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """U and V that strengths are read with."""
    if modes is None:
        with np.errstate(over="ignore", invalid="ignore"):
            sigma_yx = scale * (np.swapaxes(y, -2, -1) @ x)
        if not np.isfinite(sigma_yx).all():
            raise ValueError("x, y: expected numbers whose products fit in float64, got larger ones")
        made = modes_of(sigma_yx)
        return made.U, made.V
    if not isinstance(modes, Modes):
        raise TypeError(f"modes: expected pydln.Modes, such as those of a task, got {type(modes).__name__}")
    u, v = validate.array(modes.U, "modes.U"), validate.array(modes.V, "modes.V")
    for name, a, width in (("modes.U", u, y.shape[-1]), ("modes.V", v, x.shape[-1])):
        if a.ndim not in (2, 3) or a.shape[-2] != width or a.size == 0:
            raise ValueError(f"{name}: expected ({width}, modes) or (batch, {width}, modes), got {a.shape}")
    if u.shape[-1] != v.shape[-1]:
        raise ValueError(f"modes.V: expected {u.shape[-1]} modes like modes.U, got {v.shape[-1]}")
    return u, v


def _minibatch(
    size: int | None, seed: int, replace: bool, first: int, *, samples: int, mean: bool, batch: int
) -> Checked | None:
    """Minibatches as the kernel takes them, but for the samples."""
    seed = validate.integer(seed, "seed", at_least=0, at_most=2**64 - 1)
    first = validate.integer(first, "first", at_least=0, at_most=2**32 - batch)
    replace = validate.flag(replace, "replace")
    if size is None:
        return None
    size = validate.integer(size, "batch_size", at_least=1, at_most=2**31 - 1)
    if not replace and size > samples:
        raise ValueError(f"batch_size: expected at most the {samples} samples without replacement, got {size}")
    if samples >= 2**31:
        raise ValueError(f"x: expected fewer than {2**31} samples for minibatches, got {samples}")
    return Checked(
        settings={"batch_size": size, "seed": seed, "replace": replace, "first": first},
        whole={
            "kind": 1,
            "seed": seed,
            "size": size,
            "samples": samples,
            "replace": replace,
            "scale": (1 if mean else samples) / size,
        },
        arrays={"root": None, "labels": None},
        ndim={},
        first=first,
    )
