"""S13 fig. 6A: orthogonal and pretrained starts learn in a time that does not depend on depth, Glorot's do not.

The paper gives: MNIST, the architecture and parameters of fig. 4 (hidden width 1000, N_l = 3 … 100 layers of units, 20
learning rates of which the fastest counts); starts with independent uniform weights scaled as by Glorot & Bengio, with
greedy unsupervised pretraining, with random orthogonal matrices; learning time and optimal rate against depth, the
curves of pretraining and orthogonal starts on top of each other; the eigenvalues of a 100 × 100 orthogonal matrix.

The paper leaves unsaid, and here is chosen:

- Inputs: pixels from 0 to 1 less their means. Whitened ones, as in fig. 4, would leave pretraining nothing to find.
- Loss: averages over 50,000 images, with the factor 1/2. Learned: all but 1/4 of the way from the loss of a zero map
  to that of least squares is made, as for raw inputs in fig. 4.
- Gains: 1 in every layer. Pretrained networks have the last layer of the orthogonal ones.
- Pretraining: to the end, 200 τ a layer in closed form from aligned starts (`pydln.pretrain`, variances above 0.03 are
  learned to 1e-4). The learning time is that of fine-tuning; what pretraining takes is in the table.
- Rates: one log-spaced grid in units of 1/(D d), d the largest variance of the inputs, from 100 down to the first that
  is stable and slower than one before; then as many again, less one, between the neighbours of the fastest. A rate that
  is slower than another is not run to its end: it would not count. Beyond stability some rates learn by chance, an
  orthogonal start of 100 layers in 26 iterations at 22/(D d), so that a slow rate there ends nothing.
- Networks are drawn once for each depth. The fastest rates lie beyond 2/(D d), the limit of stability at an isometric
  start: what they make oscillate shrinks, and the curvature with it. So near the edge they scatter.

None of the three starts has a low rank that could be reduced, so that the networks are simulated as they are: ``full``
takes 55 minutes of one core (Zen 5) and 7.5 GB. The quick size has hidden width 100, which is harder for independent
uniform weights: what their products lose grows with the ratio of depth to width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import init, plot
from pydln.plot import style
from pydln.reproduce.checks import Check
from pydln.reproduce.recipe import Job, Numbers, Recipe, rising, whole
from pydln.simulate.descent import gradient_descent
from pydln.simulate.pretraining import pretrain
from pydln.simulate.stop import Stop
from pydln.task.task import Task
from pydln.trajectory.status import Status
from pydln.weights import Weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RECIPE"]

STARTS = ("Glorot", "pretraining", "orthogonal")
GRID = (0.3, 100.0)  # of rates, in units of 1/(D d)
REMAINING = 0.25
MOST = 2000  # steps allowed while no rate has learned
LONG = 200.0  # τ of pretraining a layer
SCALE = 0.2
TELLING = 20  # weight matrices that the deepest network must have for a verdict: wide starts differ little before
DEEP = 9  # weight matrices: from here on exponents are measured
PRODUCTS = ("orthogonal", "Glorot")  # of whose hidden layers the singular values are compared
PAPER_MATRIX = 100
AT_ONCE = 1.5e9  # bytes of networks that are run at the same time

Floats = NDArray[np.float64]
Step = Callable[[int, int], object]


@dataclass(frozen=True)
class _Found:
    """One start at one depth: iterations to the criterion at the rates tried, NaN if others are faster."""

    depth: int
    rates: Floats
    iterations: Floats

    @property
    def learned(self) -> bool:
        return bool(np.isfinite(self.iterations).any())

    @property
    def rate(self) -> float:
        return float(self.rates[int(np.nanargmin(self.iterations))]) if self.learned else math.nan

    @property
    def fastest(self) -> float:
        return float(np.nanmin(self.iterations)) if self.learned else math.nan


def compute(job: Job, *, layers: Sequence[int], rates: int, hidden: int) -> dict[str, ArrayLike]:
    """Iterations to the criterion from every start at every depth and rate, and spectra of orthogonal matrices."""
    # Work grows as the square of the depth: a step by the depth, and Glorot's steps too.
    cost = [2 * n for n in layers]
    total = layers[-1] + 3 * sum(cost)
    job.tell(0, total, f"pretraining of {layers[-1] - 2} layers")
    problem = _Problem(
        hidden,
        job.seed,
        job.n_threads,
        layers[-1] - 1,
        lambda k, _: job.tell(k, total, f"pretraining of layer {k + 1}"),
    )
    done = layers[-1]
    found: dict[str, list[_Found]] = {name: [] for name in STARTS}
    for n, work in zip(layers, cost, strict=True):
        for name in STARTS:
            job.tell(done, total, f"{name}, {n} layers")
            found[name].append(problem.search(name, n - 1, rates))
            done += work
    matrix = init.orthogonal((PAPER_MATRIX, PAPER_MATRIX), seed=job.seed).layers[0][0]

    numbers: dict[str, ArrayLike] = {
        "task": problem.task.name,
        "normalize": problem.task.normalize,
        "largest_variance": problem.largest,
        "mean_log_strength": problem.log_strength,
        "layers_pretrained": len(problem.encoders),
        "layers_pretrained_in_closed_form": problem.solved,
        "first_layer_pretrained": problem.learned,
        "depth": np.array([n - 1 for n in layers]),
        "eigenvalues": np.linalg.eigvals(matrix),
    }
    for name in STARTS:
        key = name.lower()
        numbers[f"learning_time_{key}"] = np.array([one.fastest for one in found[name]])
        numbers[f"fastest_rate_{key}"] = np.array([one.rate for one in found[name]])
        for one in found[name]:
            numbers |= {
                f"rates_{key}_{one.depth + 1}_layers": one.rates,
                f"iterations_{key}_{one.depth + 1}_layers": one.iterations,
            }
    for name in PRODUCTS:
        numbers[f"singular_values_{name.lower()}"] = problem.product(name, layers[-1] - 1)
    return numbers


class _Problem:
    """MNIST, the three starts and the criterion."""

    def __init__(self, hidden: int, seed: int, n_threads: int | None, depth: int, progress: Step) -> None:
        task = self.task = Task.mnist(center=True)
        self.hidden, self.seed, self.n_threads = hidden, seed, n_threads
        self.largest = float(np.linalg.eigvalsh(task.sigma_xx)[-1])
        floor = float(np.asarray(task.floor))
        self.level = floor + REMAINING * (float(np.asarray(task.trace_yy)) / 2 - floor)
        strengths, V = np.asarray(task.modes.s), np.asarray(task.modes.V)
        variances = ((task.sigma_xx @ V) * V).sum(axis=0)
        held = strengths > 1e-12 * strengths.max()
        self.log_strength = float(np.log(strengths[held] / variances[held]).mean())
        # Greedy: a network of fewer layers has the first of these.
        made = pretrain(
            task,
            self.widths(depth),
            t=LONG,
            start="aligned",
            scale=SCALE,
            seed=seed,
            n_threads=n_threads,
            progress=progress,
        )
        self.encoders = made.weights.layers[:-1]
        self.learned = float(1 - (made.losses - made.floors)[0, 0] / made.runs[0].loss[0, 0])
        self.solved = sum(made.exact)

    def widths(self, depth: int) -> tuple[int, ...]:
        return (self.task.n_in, *(self.hidden,) * (depth - 1), self.task.n_out)

    def start(self, name: str, depth: int) -> Weights:
        if name == "Glorot":
            return init.uniform(self.widths(depth), seed=self.seed)
        orthogonal = init.orthogonal(self.widths(depth), seed=self.seed)
        if name == "orthogonal":
            return orthogonal
        return Weights([*self.encoders[: depth - 1], orthogonal.layers[-1]])

    def product(self, name: str, depth: int) -> Floats:
        """Singular values of the product of the hidden layers."""
        product = np.eye(self.hidden)
        for layer in self.start(name, depth).layers[1:-1]:
            product = layer[0] @ product
        return np.asarray(np.linalg.svd(product, compute_uv=False), dtype=np.float64)

    def search(self, name: str, depth: int, count: int) -> _Found:
        """Iterations to the criterion, from the largest rate down, and between the neighbours of the fastest."""
        weights = self.start(name, depth)
        grid = np.geomspace(GRID[1], GRID[0], count) / (depth * self.largest)
        coarse = self._descend(weights, grid, math.inf, falling=True)
        tried = np.flatnonzero(np.isfinite(coarse))
        if not tried.size:
            return _Found(depth, grid[::-1], coarse[::-1])
        best = int(tried[np.argmin(coarse[tried])])
        high, low = grid[max(best - 1, 0)], grid[min(best + 1, count - 1)]
        between = np.geomspace(high, low, count + 1)[1:-1]
        fine = self._descend(weights, between, float(coarse[best]), falling=False)
        rates = np.concatenate([grid, between])
        order = np.argsort(rates)
        return _Found(depth, rates[order], np.concatenate([coarse, fine])[order])

    def _descend(self, weights: Weights, rates: Floats, fastest: float, *, falling: bool) -> Floats:
        """Iterations at each rate, NaN where others are faster.

        Rates that are `falling` are left at the first that is stable, its loss smaller at every step, and yet slower
        than one before. Beyond stability a rate says nothing of the next: a few learn by chance.
        """
        iterations = np.full(len(rates), np.nan)
        size = sum(layer.nbytes for layer in weights.layers)
        at_once = int(np.clip(AT_ONCE // size, 1, 4))  # of no account for the result
        for begin in range(0, len(rates), at_once):
            group = slice(begin, begin + at_once)
            run = gradient_descent(
                self.task,
                weights,
                lr=rates[group],
                steps=int(min(fastest, MOST)),
                record_every=1,
                record="loss",
                stop=Stop(loss=self.level),
                throw=False,
                n_threads=self.n_threads,
            )
            for i, (status, last) in enumerate(zip(run.status, np.asarray(run.stopped_step), strict=True)):
                most = int(min(fastest, MOST))
                if status == Status.REACHED_LOSS and last <= most:
                    iterations[begin + i] = fastest = float(last)
                elif status == Status.DIVERGED and last <= most:
                    continue
                elif falling and math.isfinite(fastest) and bool((np.diff(run.loss[i, : most + 1]) < 0).all()):
                    return iterations
        return iterations


def check(numbers: Numbers) -> list[Check]:
    """Exponents of learning time in depth, starts against each other, and the spectra of orthogonal matrices."""
    found = _found(numbers)
    return [
        *_depth_checks(found, float(numbers["mean_log_strength"])),
        *_shown(numbers, found),
        *_product_checks(numbers),
        *_matrix_checks(numbers["eigenvalues"]),
    ]


def _found(numbers: Numbers) -> dict[str, list[_Found]]:
    """What was measured from every start, from the smallest depth to the largest."""
    depths = numbers["depth"].tolist()
    return {
        name: [
            _Found(d, *(numbers[f"{kind}_{name.lower()}_{d + 1}_layers"] for kind in ("rates", "iterations")))
            for d in depths
        ]
        for name in STARTS
    }


def _depth_checks(found: dict[str, list[_Found]], log_strength: float) -> list[Check]:
    rows = []
    for name in STARTS:
        deep = [one for one in found[name] if one.learned and one.depth >= min(DEEP, found[name][-2].depth)]
        if len(deep) < 2 or deep[-1].depth < TELLING:
            why = "learned at fewer than two depths" if len(deep) < 2 else f"no verdict below {TELLING + 1} layers"
            rows.append(Check.show(f"learning time against depth, {name}", note=why))
            continue
        depths = np.log([one.depth for one in deep])
        measured = float(np.polyfit(depths, np.log([one.fastest for one in deep]), 1)[0])
        from_to = f"from {deep[0].depth + 1} to {deep[-1].depth + 1} layers"
        if name == "Glorot":
            rows.append(
                Check.compare(
                    "learning time against depth, Glorot: exponent, short of 1 by",
                    theory=0.0,
                    measured=max(0.0, 1.0 - measured),
                    tolerance=0.5,
                    relative=False,
                    note=f"{measured:.2f} {from_to}; one rate serves squared singular values up to e(D + 1) and "
                    "typical ones far below; more where depth is not small beside width",
                )
            )
            continue
        # At a rate c/D the flow of a mode nears its limit of infinite depth as (s/d)^(2/D), which larger rates at
        # smaller depths make up for at best. Beside it: whole iterations, and rates that are a factor apart.
        delay = float(np.polyfit(depths, [2 / one.depth * log_strength for one in deep], 1)[0])
        least = min(one.fastest for one in deep)
        rows.append(
            Check.compare(
                f"learning time against depth, {name}: exponent",
                theory=0.0,
                measured=measured,
                tolerance=delay + (2 / least + 0.15) / float(depths[-1] - depths[0]),
                relative=False,
                note=f"{from_to}; at one rate c/D for all of them {delay:.2f}",
            )
        )
    deepest = [one.depth for one in found["Glorot"] if one.learned][-1:]
    last = {name: one for name in STARTS for one in found[name] if [one.depth] == deepest}
    rows += [
        Check.compare(
            f"learning time of {last[name].depth + 1} layers, {name}, part of Glorot's",
            theory=0.0,
            measured=last[name].fastest / last["Glorot"].fastest,
            tolerance=0.5,
            relative=False,
            note=f"{last[name].fastest:.0f} and {last['Glorot'].fastest:.0f} iterations",
        )
        for name in STARTS[1:]
        if name in last and last[name].depth >= TELLING
    ]
    return rows


def _shown(numbers: Numbers, found: dict[str, list[_Found]]) -> list[Check]:
    """What is without a verdict."""
    rows = []
    largest, learned = float(numbers["largest_variance"]), float(numbers["first_layer_pretrained"])
    solved, layers = (int(numbers[f"layers_pretrained{which}"]) for which in ("_in_closed_form", ""))
    for name in STARTS:
        each = (
            f"{one.depth + 1}: {one.fastest:.0f} at {one.rate * one.depth * largest:.3g}/(D d)"
            if one.learned
            else f"{one.depth + 1}: at no rate within {MOST}"
            for one in found[name]
        )
        rows.append(
            Check.show(
                f"learning time, {name}, of the deepest (iterations)",
                measured=found[name][-1].fastest if found[name][-1].learned else None,
                note="layers " + ", ".join(each),
            )
        )
    rows.append(
        Check.show(
            "pretraining, a layer (τ)",
            measured=LONG,
            note=f"{solved} of {layers} layers in closed form; the first has made "
            f"{learned:.2%} of its way; as steps at 0.9/d, {LONG * largest / 0.9:.0f} each",
        )
    )
    return rows


def _product_checks(numbers: Numbers) -> list[Check]:
    rows = []
    depth = int(numbers["depth"][-1])
    for name in PRODUCTS:
        values = numbers[f"singular_values_{name.lower()}"]
        what = f"product of {depth - 2} hidden layers, {name}: "
        if name == "orthogonal":
            rows.append(
                Check.compare(
                    what + "largest distance of a singular value from 1",
                    theory=0.0,
                    measured=float(np.abs(values - 1).max()),
                    tolerance=1e-11,
                    relative=False,
                )
            )
        else:
            rows.append(
                Check.show(
                    what + "median of the singular values, part of the largest",
                    measured=float(np.median(values) / values[0]),
                )
            )
    return rows


def _matrix_checks(values: NDArray[Any]) -> list[Check]:
    n = len(values)
    phases = np.sort(np.angle(values) % (2 * np.pi)) / (2 * np.pi)
    expected = (np.arange(n) + 0.5) / n
    return [
        Check.compare(
            f"eigenvalues of a {n} × {n} orthogonal matrix: largest distance from the unit circle",
            theory=0.0,
            measured=float(np.abs(np.abs(values) - 1).max()),
            tolerance=1e-12,
            relative=False,
        ),
        Check.compare(
            "their phases: largest distance from a uniform distribution",
            theory=0.0,
            measured=float(np.abs(phases - expected).max()),
            # Independent phases would stay within this in 19 of 20 cases; eigenvalues repel, and stay far within.
            tolerance=1.36 / math.sqrt(n),
            relative=False,
        ),
    ]


def draw(figure: Figure, numbers: Numbers) -> None:
    """Learning time and fastest rate against depth, and eigenvalues on the unit circle."""
    found, values = _found(numbers), numbers["eigenvalues"]
    axes = figure.subplots(1, 3, width_ratios=(1.1, 1.1, 1.0))
    looks: dict[str, dict[str, Any]] = {
        "Glorot": {"color": style.OKABE_ITO[0], "marker": "o"},
        "pretraining": {"color": style.OKABE_ITO[2], "marker": "s", "markersize": 8, "markerfacecolor": "none"},
        "orthogonal": {"color": style.OKABE_ITO[3], "marker": "^"},
    }
    for name in STARTS:
        shown = [one for one in found[name] if one.learned]
        if not shown:
            continue
        depths = [one.depth for one in shown]
        plot.learning_time(depths, [one.fastest for one in shown], ax=axes[0], label=name, **looks[name])
        plot.optimal_rate(depths, [one.rate for one in shown], ax=axes[1], label=name, **looks[name])
    axes[0].set_title("learning time at the fastest rate", fontsize="medium")
    axes[1].set_title("fastest rate", fontsize="medium")
    plot.eigenvalues(values, ax=axes[2], radius=1.0, markersize=7.0, alpha=1.0)
    axes[2].set_title(rf"eigenvalues, ${len(values)} \times {len(values)}$ orthogonal", fontsize="medium")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)


def settings(job: Job, numbers: Numbers) -> dict[str, object]:
    """The problem, the criterion, and the rates."""
    count = job.own["rates"]
    return {
        "task": str(numbers["task"]),
        "normalize": str(numbers["normalize"]),
        "hidden width": job.own["hidden"],
        "layers of units": list(job.own["layers"]),
        "learned when the loss above its floor is this part of a zero map's": REMAINING,
        "rates": f"{count} from {GRID[1]:g}/(D d) down to {GRID[0]:g}/(D d), then {count - 1} around the fastest",
        "largest variance of the inputs d": float(numbers["largest_variance"]),
    }


RECIPE = Recipe(
    title="Fig. 6A of Saxe, McClelland & Ganguli (2013): learning time against depth from three starts on MNIST",
    inches=(12.0, 3.9),
    options={
        "layers": rising(
            "Layers of units N_l = D + 1",
            (5, 10, 20, 36, 64),
            (3, 5, 8, 10, 14, 20, 28, 36, 44, 54, 64, 74, 84, 94, 100),
            at_least=3,
        ),
        "rates": whole("Learning rates on the grid, in the paper 20", 12, 20, at_least=4),
        "hidden": whole("Hidden width, in the paper 1000", 100, 1000, at_least=10),
    },
    settings=settings,
    compute=compute,
    check=check,
    draw=draw,
)
