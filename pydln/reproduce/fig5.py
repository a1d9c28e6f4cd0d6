"""S13 fig. 5: MNIST fulfils the consistency condition, and greedy pretraining spares a deep network the plateau.

The paper gives: submatrices of Σ_xx and of VᵀΣ_xxV of MNIST, the second approximately diagonal; learning curves of a
five-layer linear network from small random weights (all independent, of standard deviation 0.01) and from greedy
pretraining, whose curve starts late by the time that pretraining took. Hidden width 200.

The paper leaves unsaid, and here is chosen:

- Layers: five weight matrices, 784-200-200-200-200-10. (The paper counts layers of units where it writes N_l.)
- Inputs: pixels from 0 to 1 less their means, since it speaks of a correlation matrix (``center=False`` leaves the
  means in: one direction then has ten times the variance of any other).
- Loss: averages over 50,000 images, with the factor 1/2.
- Rate: one for everything, 0.9/d, d the largest variance of the inputs. An autoencoder is unstable beyond 1/d in every
  layer, for the encoders keep that variance. Rates of their own for either start are in the table without a verdict:
  a small random start bears much larger ones until it leaves the plateau.
- Pretraining: autoencoders from Gaussian starts of gain 0.2 (standard deviations 0.007 to 0.014), each until it has
  made all but 1/10 of the way to the floor of its bottleneck. The unit of time is a step of full-batch descent,
  whether of an autoencoder or of the network. The last layer starts as 0.1 times a semi-orthogonal matrix.
- Learned: the loss has made 7/10 of the way from that of a zero map to that of least squares, which raw pixels reach
  only after very long.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pydln import init, plot
from pydln._base import validate
from pydln.analysis.consistency import Consistency, consistency
from pydln.plot import style
from pydln.reproduce.checks import Check
from pydln.reproduce.report import Progress, Report, blank, directory, write
from pydln.simulate.descent import gradient_descent
from pydln.simulate.pretraining import Pretrained, fine_tune, pretrain
from pydln.simulate.stop import Stop
from pydln.task.task import Task
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory
from pydln.weights import Weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["TITLE", "run"]

TITLE = "Fig. 5 of Saxe, McClelland & Ganguli (2013): the consistency condition and greedy pretraining on MNIST"

DEPTH = 5
HIDDEN = 200
SPREAD = 0.01  # standard deviation of the random start
PART = 0.9  # of the largest stable rate of an autoencoder
SCALE, LAST_SCALE, TOLERANCE = 0.2, 0.1, 0.1
REMAINING = 0.3
MOST = 12_000  # steps allowed to the random start
DEPTHS = {False: (3, 5, 9), True: (3, 4, 5, 7, 9, 14)}
BASES = {False: 200, True: 2000}
LONG = 200.0  # τ of pretraining to the end: variances above 0.03 are then learned to 1e-4
FINE = 0.1  # rate of the rows about depth and about the exact solution, in units of 1/d: it resolves the iterations

Floats = NDArray[np.float64]


def run(
    out_dir: str | os.PathLike[str],
    *,
    full: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    n_threads: int | None = None,
    center: bool = True,
    depths: Sequence[int] | None = None,
    hidden: int = HIDDEN,
) -> Report:
    """Reproduce the figure; see `pydln.reproduce.reproduce` for the common parameters.

    Parameters
    ----------
    center : bool
        Take the means off the pixels.
    depths : sequence of int, optional
        Depths D whose learning after pretraining is compared, increasing, at least two, each >= 2; six of them if
        `full`, else three. Everything else has the paper's size in both.
    hidden : int
        Hidden width, at least 10; 200 as in the paper.
    """
    seed = validate.integer(seed, "seed", at_least=0)
    if not isinstance(center, bool):
        raise TypeError(f"center: expected True or False, got {center!r}")
    given = DEPTHS[bool(full)] if depths is None else depths
    sizes = tuple(validate.integer(n, f"depths[{i}]", at_least=2) for i, n in enumerate(given))
    if len(sizes) < 2 or any(b <= a for a, b in itertools.pairwise(sizes)):
        raise ValueError(f"depths: expected two or more increasing numbers, got {list(sizes)}")
    width = validate.integer(hidden, "hidden", at_least=10)
    folder = directory(out_dir)
    tell = progress or (lambda done, total, what: None)
    figure = blank(12.0, 3.9)

    total = len(sizes) + 5
    tell(0, total, "consistency of MNIST")
    problem = _Problem(center, width, seed, n_threads)
    found = consistency(problem.task)
    bases = _random_bases(problem.task, BASES[bool(full)], seed)

    tell(1, total, "random start")
    random = problem.random(DEPTH)
    random_steps = problem.iterations(random, PART, MOST)
    tell(2, total, f"pretraining of {DEPTH - 1} layers")
    made = problem.pretrain(DEPTH)
    spent = int(problem.steps_of(made).sum())
    tuning_steps = problem.iterations(made.weights, PART, MOST)
    last = round(1.25 * (random_steps if math.isfinite(random_steps) else MOST))
    from_random = problem.curve(random, last)
    tuned = fine_tune(
        problem.task,
        made,
        lr=problem.rate(PART),
        steps=max(last - spent, 10),
        at=np.unique(np.round(np.concatenate([np.arange(11), np.geomspace(10, max(last - spent, 10), 200)]))),
        record=("loss", "test_loss"),
        n_threads=n_threads,
    )
    tell(3, total, "rates of their own")
    own = {
        "a random start": problem.fastest(random),
        "pretraining": problem.fastest(made.weights),
    }
    by_depth = []
    for i, depth in enumerate(sizes):
        tell(4 + i, total, f"depth {depth} after pretraining")
        by_depth.append(problem.depth(depth))
    tell(total - 1, total, "autoencoder in closed form")
    checks = [
        *_consistency_checks(found, bases),
        *_speed_checks(spent, tuning_steps, random_steps, own),
        *_depth_checks(sizes, by_depth),
        *_autoencoder_checks(problem, made),
    ]
    _draw(figure, problem, found, from_random, tuned, spent)
    tell(total, total, "done")
    return write(
        folder,
        "fig5",
        TITLE,
        figure=figure,
        numbers={
            "matrix": found.matrix,
            "score": found.score,
            "scores_of_random_bases": bases[0] / bases[1],
            "steps_random": np.asarray(from_random.steps),
            "loss_random": from_random.loss[0],
            "steps_pretrained": spent + np.asarray(tuned.steps),
            "loss_pretrained": tuned.loss[0],
            "test_loss_random": from_random.test_loss[0],
            "test_loss_pretrained": tuned.test_loss[0],
            "steps_of_each_layer": problem.steps_of(made)[0],
            "autoencoder_losses": made.losses[0],
            "autoencoder_floors": made.floors[0],
            "depths": np.array(sizes),
            "iterations_after_pretraining_to_the_end": np.array([one[0] for one in by_depth]),
            "iterations_after_pretraining": np.array([one[1] for one in by_depth]),
        },
        checks=checks,
        settings={
            "full": bool(full),
            "seed": seed,
            "task": problem.task.name,
            "normalize": problem.task.normalize,
            "widths": list(problem.widths(DEPTH)),
            "standard deviation of the random start": SPREAD,
            "lr": problem.rate(PART),
            "an autoencoder ends when its loss above its floor is this part of the start's": TOLERANCE,
            "learned when the loss above its floor is this part of a zero map's": REMAINING,
        },
    )


class _Problem:
    """MNIST, its networks and the criterion: what all parts share."""

    def __init__(self, center: bool, hidden: int, seed: int, n_threads: int | None) -> None:
        task = self.task = Task.mnist(center=center)
        self.hidden, self.seed, self.n_threads = hidden, seed, n_threads
        self.largest = float(np.linalg.eigvalsh(task.sigma_xx)[-1])
        floor = float(np.asarray(task.floor))
        self.level = floor + REMAINING * (float(np.asarray(task.trace_yy)) / 2 - floor)

    def rate(self, part: float) -> float:
        """A learning rate, given in units of 1/d, the largest stable one of an autoencoder."""
        return part / self.largest

    def widths(self, depth: int) -> tuple[int, ...]:
        return (self.task.n_in, *(self.hidden,) * (depth - 1), self.task.n_out)

    def random(self, depth: int) -> Weights:
        widths = self.widths(depth)
        return init.gaussian(widths, scale=[[SPREAD * math.sqrt(n) for n in widths[:-1]]], seed=self.seed)

    def pretrain(self, depth: int) -> Pretrained:
        return pretrain(
            self.task,
            self.widths(depth),
            lr=self.rate(PART),
            steps=MOST,
            tol=TOLERANCE,
            scale=SCALE,
            last_scale=LAST_SCALE,
            seed=self.seed,
            n_threads=self.n_threads,
        )

    def depth(self, depth: int) -> tuple[float, float]:
        """Steps of fine-tuning at the rate FINE/d, after pretraining to the end and after the figure's."""
        to_the_end = pretrain(
            self.task,
            self.widths(depth),
            t=LONG,
            start="aligned",
            scale=SCALE,
            last_scale=LAST_SCALE,
            seed=self.seed,
            n_threads=self.n_threads,
        )
        return (
            self.iterations(to_the_end.weights, FINE, MOST),
            self.iterations(self.pretrain(depth).weights, FINE, MOST),
        )

    def steps_of(self, made: Pretrained) -> NDArray[np.int64]:
        assert made.steps is not None
        return made.steps

    def iterations(self, weights: Weights, part: float, most: int) -> float:
        """Steps to the criterion at a rate in units of 1/d; NaN if it takes more than `most`."""
        return float(self._iterations(weights, np.array([part]), most)[0])

    def _iterations(self, weights: Weights, parts: Floats, most: int) -> Floats:
        run = gradient_descent(
            self.task,
            weights,
            lr=parts / self.largest,
            steps=most,
            at=[0],
            record="loss",
            stop=Stop(loss=self.level),
            throw=False,
            n_threads=self.n_threads,
        )
        return np.where(run.status == Status.REACHED_LOSS, np.asarray(run.stopped_step), np.nan)

    def fastest(self, weights: Weights) -> tuple[float, float]:
        """The least steps to the criterion over rates of 1/d times 0.9 … 60, and that rate, in units of 1/d."""
        parts = np.geomspace(0.9, 60.0, 12)
        steps = self._iterations(weights, parts, MOST // 4)
        if np.isnan(steps).all():
            return math.nan, math.nan
        best = int(np.nanargmin(steps))
        return float(steps[best]), float(parts[best])

    def curve(self, weights: Weights, steps: int) -> Trajectory:
        return gradient_descent(
            self.task,
            weights,
            lr=self.rate(PART),
            steps=steps,
            record_every=max(1, steps // 300),
            record=("loss", "test_loss"),
            n_threads=self.n_threads,
        )


def _random_bases(task: Task, count: int, seed: int) -> tuple[Floats, Floats]:
    """Σ_α C_αα² and Σ_αβ C_αβ² of `count` random bases C of as many directions as the task has modes."""
    s = np.asarray(task.modes.s)
    modes = int((s > 1e-12 * s.max()).sum())
    frames = init.orthogonal((task.n_in, modes), batch=count, seed=seed).layers[0]
    squares = (frames @ task.sigma_xx @ frames.transpose(0, 2, 1)) ** 2
    return np.trace(squares, axis1=1, axis2=2), squares.sum(axis=(1, 2))


def _consistency_checks(found: Consistency, bases: tuple[Floats, Floats]) -> list[Check]:
    score, null = float(found.score), float(found.null)
    own, whole = bases
    best = float((own / whole).max())
    mean = float(own.mean() / whole.mean())
    error = float((own - mean * whole).std() / whole.mean()) / math.sqrt(len(own))
    return [
        Check.compare(
            "share of VᵀΣ_xxV off its diagonal, part of that of the best random directions",
            theory=0.0,
            measured=(1 - score) / (1 - best),
            tolerance=0.5,
            relative=False,
            note=f"off the diagonal: {1 - score:.4f}, of random directions {1 - null:.4f}",
        ),
        Check.compare(
            "score of random directions, mean over mean",
            theory=null,
            measured=mean,
            tolerance=4 * error,
            relative=False,
            note=f"{len(own)} random bases, to four standard errors; the best {best:.4f}; that of MNIST {score:.4f}",
        ),
        Check.show(
            "share of |Σ_xxV|² within the span of the modes",
            theory=1.0,
            measured=float(found.inside),
            note="1 if every mode is an eigenvector of Σ_xx",
        ),
    ]


def _speed_checks(spent: int, tuning: float, random: float, own: dict[str, tuple[float, float]]) -> list[Check]:
    slowest = random if math.isfinite(random) else float(MOST)
    (from_random, fast), (tuned, own_rate) = own["a random start"], own["pretraining"]
    return [
        Check.compare(
            "steps to learn with pretraining, its own counted, part of those from a random start",
            theory=0.0,
            measured=(spent + tuning) / slowest,
            tolerance=1.0,
            relative=False,
            note=f"faster below 1; {spent} steps of pretraining, {tuning:.0f} of fine-tuning, from a random start "
            + _count(random),
        ),
        Check.show(
            "the same, either at the fastest rate of its own",
            measured=(spent + tuned) / from_random,
            note=f"{spent} and {tuned:.0f} steps at {own_rate:.3g}/d, from a random start {from_random:.0f} "
            f"at {fast:.3g}/d",
        ),
    ]


def _count(steps: float) -> str:
    return f"{steps:.0f}" if math.isfinite(steps) else f"more than {MOST}"


def _depth_checks(depths: tuple[int, ...], steps: list[tuple[float, float]]) -> list[Check]:
    def exponent(which: int) -> float:
        taken = np.array([one[which] for one in steps])
        learned = np.isfinite(taken)
        return (
            float(np.polyfit(np.log(depths)[learned], np.log(taken[learned]), 1)[0]) if learned.sum() > 1 else math.nan
        )

    def note(which: int) -> str:
        return "depth " + ", ".join(f"{d}: {_count(one[which])}" for d, one in zip(depths, steps, strict=True))

    return [
        Check.compare(
            "steps of fine-tuning against depth after pretraining to the end: exponent",
            theory=0.0,
            measured=exponent(0),
            # Whole steps, one and a half at either end. Hidden layers add to the speed of the last what W_D passes
            # down, LAST_SCALE² each at the start and some more at the end.
            tolerance=(3 / min(one[0] for one in steps) + 2 * (depths[-1] - depths[0]) * LAST_SCALE**2)
            / math.log(depths[-1] / depths[0]),
            relative=False,
            note=f"{note(0)} steps at {FINE}/d; {LONG:g} τ a layer in closed form; proportional to depth would be 1",
        ),
        Check.show(
            "the same after the pretraining of the figure, whose layers pass on M < 1",
            measured=exponent(1),
            note=f"{note(1)} steps: of D - 1 layers what arrives is M^((D-1)/2)",
        ),
    ]


def _autoencoder_checks(problem: _Problem, made: Pretrained) -> list[Check]:
    widths = problem.widths(2)
    steps = 100
    options: dict[str, Any] = {"start": "aligned", "scale": SCALE, "seed": problem.seed, "n_threads": problem.n_threads}
    stepped = pretrain(problem.task, widths, lr=problem.rate(FINE), steps=steps, **options)
    solved = pretrain(problem.task, widths, t=steps * problem.rate(FINE), **options)
    begin = float(solved.runs[0].loss[0, 0])
    encoders = [layer[0].astype(float) for layer in made.weights.layers[:-1]]
    d, Q = np.linalg.eigh(problem.task.sigma_xx)
    passed = Q[:, :-11:-1]
    for layer in encoders:
        passed = layer @ passed
    return [
        Check.compare(
            f"autoencoder {widths[0]}-{widths[1]}-{widths[0]}: loss after {steps} steps, part of that at the start",
            theory=float(solved.losses[0, 0]) / begin,
            measured=float(stepped.losses[0, 0]) / begin,
            # A step of size η is late by about ηd/2 of the time that a mode takes.
            tolerance=FINE / 2,
            note=f"theory: {solved.runs[0].source}; from an aligned start at {FINE}/d",
        ),
        Check.show(
            "encoders pass the ten directions of largest variance on with strength M, the mean",
            theory=1.0,
            measured=float((passed**2).sum(axis=0).mean()),
            note=f"through {len(encoders)} layers; the least {(passed**2).sum(axis=0).min():.3f}; "
            f"variances {d[-1]:.3g} to {d[-10]:.3g}",
        ),
    ]


def _draw(
    figure: Figure, problem: _Problem, found: Consistency, random: Trajectory, tuned: Trajectory, spent: int
) -> None:
    axes = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 1.25))
    plot.consistency(problem.task, ax=axes[0], along="inputs", most=84)
    axes[0].set_title(r"input covariances $\Sigma_{xx}$ of MNIST, a part", fontsize="medium")
    plot.consistency(problem.task, ax=axes[1])
    axes[1].set_title(f"along the modes: {float(found.score):.1%} on the diagonal", fontsize="medium")
    _draw_curves(axes[2], problem, random, tuned, spent)


def _draw_curves(ax: Axes, problem: _Problem, random: Trajectory, tuned: Trajectory, spent: int) -> None:
    begun = problem.rate(PART) * spent
    ax.axvspan(0.0, begun, color="0.88", linewidth=0, label="time of pretraining")
    ax.axhline(problem.level, color="0.5", linewidth=0.9, linestyle=":", label="counts as learned")
    plot.loss(random, ax=ax, color=style.OKABE_ITO[3], label="random start")
    plot.loss(tuned, ax=ax, color=style.OKABE_ITO[0], label="after pretraining")
    ax.set_xlim(0.0, float(random.t[-1]))
    top = ax.secondary_xaxis("top", functions=(partial(_steps, problem.rate(PART)), partial(_time, problem.rate(PART))))
    top.set_xlabel("epochs (steps over all images)", fontsize="small")
    ax.spines["right"].set_visible(False)


def _steps(rate: float, t: Floats) -> Floats:
    return t / rate


def _time(rate: float, steps: Floats) -> Floats:
    return steps * rate
