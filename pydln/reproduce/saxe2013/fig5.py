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

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import init, plot
from pydln.analysis.consistency import consistency
from pydln.plot import style
from pydln.reproduce.checks import Check
from pydln.reproduce.curves import curve
from pydln.reproduce.recipe import Job, Numbers, Recipe, flag, rising, whole
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

__all__ = ["RECIPE"]

DEPTH = 5
HIDDEN = 200
SPREAD = 0.01  # standard deviation of the random start
PART = 0.9  # of the largest stable rate of an autoencoder
SCALE, LAST_SCALE, TOLERANCE = 0.2, 0.1, 0.1
REMAINING = 0.3
MOST = 12_000  # steps allowed to the random start
BASES = {False: 200, True: 2000}
LONG = 200.0  # τ of pretraining to the end: variances above 0.03 are then learned to 1e-4
STEPS = 100  # of the autoencoder that is compared with its closed form
SHOWN = 84  # inputs on the left
FINE = 0.1  # rate of the rows about depth and about the exact solution, in units of 1/d: it resolves the iterations

Floats = NDArray[np.float64]


def compute(job: Job, *, center: bool, depths: Sequence[int], hidden: int) -> dict[str, ArrayLike]:
    """Covariances along inputs and modes, learning from both starts, steps against depth, one autoencoder."""
    total = len(depths) + 5
    job.tell(0, total, "consistency of MNIST")
    problem = _Problem(center, hidden, job.seed, job.n_threads)
    found = consistency(problem.task)
    own, all_of_it = _random_bases(problem.task, BASES[job.full], job.seed)
    first = max((problem.task.n_in - SHOWN) // 2, 0)

    job.tell(1, total, "random start")
    random = problem.random(DEPTH)
    random_steps = problem.iterations(random, PART, MOST)
    job.tell(2, total, f"pretraining of {DEPTH - 1} layers")
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
        n_threads=job.n_threads,
    )
    job.tell(3, total, "rates of their own")
    fastest = [problem.fastest(random), problem.fastest(made.weights)]
    by_depth = []
    for i, depth in enumerate(depths):
        job.tell(4 + i, total, f"depth {depth} after pretraining")
        by_depth.append(problem.depth(depth))
    job.tell(total - 1, total, "autoencoder in closed form")
    return {
        "task": problem.task.name,
        "normalize": problem.task.normalize,
        "widths": problem.widths(DEPTH),
        "matrix": found.matrix,
        "score": found.score,
        "score_of_random_directions": found.null,
        "inside": found.inside,
        "scores_of_random_bases": own / all_of_it,
        "random_bases_on_the_diagonal": own,
        "random_bases_in_all": all_of_it,
        "input_covariances_shown": problem.task.sigma_xx[first : first + SHOWN, first : first + SHOWN],
        "first_input_shown": first,
        "rate": problem.rate(PART),
        "loss_when_learned": problem.level,
        "t_random": from_random.t,
        "steps_random": np.asarray(from_random.steps),
        "loss_random": from_random.loss[0],
        "t_pretrained": tuned.t,
        "steps_pretrained": spent + np.asarray(tuned.steps),
        "loss_pretrained": tuned.loss[0],
        "test_loss_random": from_random.test_loss[0],
        "test_loss_pretrained": tuned.test_loss[0],
        "steps_of_each_layer": problem.steps_of(made)[0],
        "steps_to_learn": [random_steps, tuning_steps],  # of a random start, after pretraining
        "steps_at_the_fastest_rate": [steps for steps, _ in fastest],
        "fastest_rate": [part for _, part in fastest],
        "autoencoder_losses": made.losses[0],
        "autoencoder_floors": made.floors[0],
        "depths": np.array(depths),
        "iterations_after_pretraining_to_the_end": np.array([one[0] for one in by_depth]),
        "iterations_after_pretraining": np.array([one[1] for one in by_depth]),
        **problem.autoencoder(made),
    }


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

    def autoencoder(self, made: Pretrained) -> dict[str, ArrayLike]:
        """One autoencoder by descent and in closed form, and what the encoders pass on of the largest variances."""
        options: dict[str, Any] = {"start": "aligned", "scale": SCALE, "seed": self.seed, "n_threads": self.n_threads}
        stepped = pretrain(self.task, self.widths(2), lr=self.rate(FINE), steps=STEPS, **options)
        solved = pretrain(self.task, self.widths(2), t=STEPS * self.rate(FINE), **options)
        encoders = [layer[0].astype(float) for layer in made.weights.layers[:-1]]
        d, Q = np.linalg.eigh(self.task.sigma_xx)
        passed = Q[:, :-11:-1]
        for layer in encoders:
            passed = layer @ passed
        return {
            "autoencoder_solution": solved.runs[0].source,
            "autoencoder_loss_at_the_start": solved.runs[0].loss[0, 0],
            "autoencoder_loss_solved": solved.losses[0, 0],
            "autoencoder_loss_stepped": stepped.losses[0, 0],
            "largest_variances": d[:-11:-1],
            "passed_on": (passed**2).sum(axis=0),
        }


def _random_bases(task: Task, count: int, seed: int) -> tuple[Floats, Floats]:
    """Σ_α C_αα² and Σ_αβ C_αβ² of `count` random bases C of as many directions as the task has modes."""
    s = np.asarray(task.modes.s)
    modes = int((s > 1e-12 * s.max()).sum())
    frames = init.orthogonal((task.n_in, modes), batch=count, seed=seed).layers[0]
    squares = (frames @ task.sigma_xx @ frames.transpose(0, 2, 1)) ** 2
    return np.trace(squares, axis1=1, axis2=2), squares.sum(axis=(1, 2))


def check(numbers: Numbers) -> list[Check]:
    """Consistency against random directions, learning with pretraining against without, depth, one autoencoder."""
    return [
        *_consistency_checks(numbers),
        *_speed_checks(numbers),
        *_depth_checks(numbers),
        *_autoencoder_checks(numbers),
    ]


def _consistency_checks(numbers: Numbers) -> list[Check]:
    score, null = float(numbers["score"]), float(numbers["score_of_random_directions"])
    own, all_of_it = numbers["random_bases_on_the_diagonal"], numbers["random_bases_in_all"]
    best = float((own / all_of_it).max())
    mean = float(own.mean() / all_of_it.mean())
    error = float((own - mean * all_of_it).std() / all_of_it.mean()) / math.sqrt(len(own))
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
            measured=float(numbers["inside"]),
            note="1 if every mode is an eigenvector of Σ_xx",
        ),
    ]


def _speed_checks(numbers: Numbers) -> list[Check]:
    spent = int(numbers["steps_of_each_layer"].sum())
    random, tuning = numbers["steps_to_learn"].tolist()
    from_random, tuned = numbers["steps_at_the_fastest_rate"].tolist()
    fast, own_rate = numbers["fastest_rate"].tolist()
    slowest = random if math.isfinite(random) else float(MOST)
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


def _depth_checks(numbers: Numbers) -> list[Check]:
    depths = numbers["depths"].tolist()
    names = ("iterations_after_pretraining_to_the_end", "iterations_after_pretraining")
    steps = list(zip(*(numbers[name].tolist() for name in names), strict=True))

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


def _autoencoder_checks(numbers: Numbers) -> list[Check]:
    n, width = (int(one) for one in numbers["widths"][:2])
    begin = float(numbers["autoencoder_loss_at_the_start"])
    passed, d = numbers["passed_on"], numbers["largest_variances"]
    return [
        Check.compare(
            f"autoencoder {n}-{width}-{n}: loss after {STEPS} steps, part of that at the start",
            theory=float(numbers["autoencoder_loss_solved"]) / begin,
            measured=float(numbers["autoencoder_loss_stepped"]) / begin,
            # A step of size η is late by about ηd/2 of the time that a mode takes.
            tolerance=FINE / 2,
            note=f"theory: {numbers['autoencoder_solution']}; from an aligned start at {FINE}/d",
        ),
        Check.show(
            "encoders pass the ten directions of largest variance on with strength M, the mean",
            theory=1.0,
            measured=float(passed.mean()),
            note=f"through {len(numbers['widths']) - 2} layers; the least {passed.min():.3f}; "
            f"variances {d[0]:.3g} to {d[-1]:.3g}",
        ),
    ]


def draw(figure: Figure, numbers: Numbers) -> None:
    """Covariances of the inputs, along the inputs and along the modes, and loss over time from both starts."""
    axes = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 1.25))
    inputs, matrix = numbers["input_covariances_shown"], numbers["matrix"]
    _draw_matrix(axes[0], inputs, int(numbers["first_input_shown"]), "input $i$", "input $j$", r"$(\Sigma_{xx})_{ij}$")
    axes[0].set_title(r"input covariances $\Sigma_{xx}$ of MNIST, a part", fontsize="medium")
    entry = r"$(V^T \Sigma_{xx} V)_{\alpha\beta}$"
    _draw_matrix(axes[1], matrix, 0, r"mode $\alpha$", r"mode $\beta$", entry)
    axes[1].set_title(f"along the modes: {float(numbers['score']):.1%} on the diagonal", fontsize="medium")
    _draw_curves(axes[2], numbers)


def _draw_matrix(ax: Axes, shown: Floats, before: int, row: str, column: str, entry: str) -> None:
    """As `pydln.plot.consistency`, of a matrix instead of a task."""
    from matplotlib.ticker import MaxNLocator

    limit = float(np.abs(shown).max()) or 1.0
    edges = (before + 0.5, before + len(shown) + 0.5)
    image = ax.imshow(
        shown, cmap="PuOr_r", vmin=-limit, vmax=limit, extent=(*edges, *edges[::-1]), interpolation="nearest"
    )
    ax.figure.colorbar(image, ax=ax, shrink=0.85).set_label(entry)
    ax.grid(False)  # whatever the style: it would cut the entries
    ax.set_xlabel(column)
    ax.set_ylabel(row)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _draw_curves(ax: Axes, numbers: Numbers) -> None:
    rate, normalize = float(numbers["rate"]), str(numbers["normalize"])
    begun = rate * int(numbers["steps_of_each_layer"].sum())
    ax.axvspan(0.0, begun, color="0.88", linewidth=0, label="time of pretraining")
    level = float(numbers["loss_when_learned"])
    ax.axhline(level, color="0.5", linewidth=0.9, linestyle=":", label="counts as learned")
    for start, color, label in (("random", 3, "random start"), ("pretrained", 0, "after pretraining")):
        run = curve(numbers[f"t_{start}"], normalize=normalize, loss=numbers[f"loss_{start}"])
        plot.loss(run, ax=ax, color=style.OKABE_ITO[color], label=label)
    ax.set_xlim(0.0, float(numbers["t_random"][-1]))
    top = ax.secondary_xaxis("top", functions=(partial(_steps, rate), partial(_time, rate)))
    top.set_xlabel("epochs (steps over all images)", fontsize="small")
    ax.spines["right"].set_visible(False)


def _steps(rate: float, t: Floats) -> Floats:
    return t / rate


def _time(rate: float, steps: Floats) -> Floats:
    return steps * rate


RECIPE = Recipe(
    title="Fig. 5 of Saxe, McClelland & Ganguli (2013): the consistency condition and greedy pretraining on MNIST",
    inches=(12.0, 3.9),
    options={
        "center": flag("Whether the means are taken off the pixels", True),
        "depths": rising(
            "Depths D whose learning after pretraining is compared", (3, 5, 9), (3, 4, 5, 7, 9, 14), at_least=2
        ),
        "hidden": whole("Hidden width, in the paper 200", 200, at_least=10),
    },
    settings=lambda job, numbers: {
        "task": str(numbers["task"]),
        "normalize": str(numbers["normalize"]),
        "widths": numbers["widths"].tolist(),
        "standard deviation of the random start": SPREAD,
        "lr": float(numbers["rate"]),
        "an autoencoder ends when its loss above its floor is this part of the start's": TOLERANCE,
        "learned when the loss above its floor is this part of a zero map's": REMAINING,
    },
    compute=compute,
    check=check,
    draw=draw,
)
