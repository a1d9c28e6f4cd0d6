"""S13 fig. 4: on MNIST, the iterations that decoupled starts need grow with depth towards a finite limit.

The paper gives: 50,000 images, 784 inputs, 10 one-hot targets, hidden width 1000; N_l = 3 ... 100 layers of units (D
= N_l - 1 weight matrices); a decoupled start of strength u_0 = 0.001; 20 learning rates, 10⁻⁴ to 10⁻⁷ in logarithmic
steps, of which the fastest counts; learning time and optimal rate against depth.

The paper leaves unsaid, and here is chosen:

- Inputs: whitened, as its theory assumes (``inputs="raw"`` leaves the pixels as they are: no exact solution applies
  then, and the table says so). Pixels from 0 to 1, not centred.
- Loss: averages over the images, with the factor 1/2.
- Rates: their unit follows from inputs and loss, so the paper's range cannot be converted. One log-spaced grid serves
  all depths, as in the paper, from 0.3 times the smallest to 1.5 times the largest limit of stability among them,
  2/λ_max with λ_max = D s_1^(2-2/D) (for raw inputs D (s_α/d_α)^(2-2/D) d_α at its largest, d = diag(VᵀΣ_xxV)). A
  second grid of as many rates, less one, divides the interval between the neighbours of the fastest, because the
  first alone is too coarse to see how the fastest rate depends on depth.
- Criterion: learned when the loss has made all but 1/1000 of the way from its start to its floor (raw: all but 1/4,
  since directions of little variance take very long). With a tolerance as large as 1/100, rates beyond the limit of
  stability count as fast: the first mode then oscillates for ever, but within the tolerance.
- u_0 is the strength of every mode of the product, all layers balanced, each layer u_0^(1/D).
- Members that diverge or do not reach the criterion in the steps allowed (one and a half times the theory's; raw: 800
  at 2/λ_max, more at smaller rates) do not count.

Width 1000 is not simulated throughout: an aligned start has rank 10, and a network of hidden width 10 then has
exactly the same product at every step (checked in the table with a network of width 1000). The theory is the gradient
flow, iterations = t/η, which is short by one to five iterations; the same modes in discrete steps are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import exact, init, plot
from pydln.errors import NotApplicable
from pydln.plot import style
from pydln.reproduce.checks import Check
from pydln.reproduce.curves import curve
from pydln.reproduce.mode_descent import mode_descent
from pydln.reproduce.recipe import Job, Numbers, Recipe, one_of, rising, whole
from pydln.simulate.descent import gradient_descent
from pydln.simulate.stop import Stop
from pydln.task.task import Task
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["RECIPE"]

START = 1e-3
GRID = (0.3, 1.5)  # where the grid ends, in units of the smallest and largest 2/λ_max
REMAINING = {"whitened": 1e-3, "raw": 0.25}
CURVES = 6  # depths whose loss is drawn over time
# In units of 2/λ_max: slow enough for the flow and its simulation to agree within the line width.
CURVE_RATE = {"whitened": 0.05, "raw": 0.2}
RAW_STEPS = 800  # at 2/λ_max; learning took at most 230 there
WIDTH = 1000
WIDE_DEPTH = 4
WIDE_STEPS = 100
# In units of 2/λ_max. At 0.5 raw inputs oscillate at the edge of stability, which amplifies rounding (1e-17 to 5e-10).
WIDE_RATE = {"whitened": 0.5, "raw": 0.2}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Depth:
    """What was measured at one depth: over the grid of rates, iterations to the criterion, NaN if not reached."""

    depth: int
    rates: Floats
    iterations: Floats
    diverged: int  # rates

    @property
    def best(self) -> int:
        return int(np.nanargmin(self.iterations))

    @property
    def rate(self) -> float:
        return float(self.rates[self.best])

    @property
    def fastest(self) -> float:
        return float(self.iterations[self.best])


def compute(job: Job, *, inputs: str, layers: Sequence[int], rates: int) -> dict[str, ArrayLike]:
    """Iterations to the criterion, (depth, rate), loss and strengths over time of some depths, and their theory."""
    problem = _Problem(inputs, job.seed, job.n_threads)
    theory = problem.theory
    grid = problem.grid(layers, rates)
    wanted = np.geomspace(layers[0], layers[-1], CURVES)
    drawn = sorted({min(layers, key=lambda n: abs(math.log(n / x))) for x in wanted})
    total = len(layers) + len(drawn) + 1
    found = []
    for i, n in enumerate(layers):
        job.tell(i, total, f"rates at {n} layers")
        found.append(problem.search(n - 1, grid))
    curves = []
    for i, n in enumerate(drawn):
        job.tell(len(layers) + i, total, f"curve of {n} layers")
        curves.append(problem.curve(n - 1))
    job.tell(total - 1, total, f"hidden width {WIDTH}")
    apart, ends = problem.wide()

    numbers: dict[str, ArrayLike] = {
        "task": problem.task.name,
        "normalize": problem.task.normalize,
        "inputs": inputs,
        "s": theory.s,
        "input_variance": theory.input_variance,
        "loss_floor": problem.floor,
        "loss_above_floor_when_learned": theory.excess,
        "depth": [one.depth for one in found],
        "rates": [one.rates for one in found],
        "iterations": [one.iterations for one in found],
        "rates_that_diverged": [one.diverged for one in found],
        "fastest_rate": [one.rate for one in found],
        "learning_time": [one.fastest for one in found],
        "stability_limit": [2 / theory.sharpness(one.depth) for one in found],
        "drawn_layers": drawn,
        "drawn_rates": [float(one.settings["lr"]) for one in curves],
        "wide_difference": apart,
        "wide_strength": ends,
        "least_test_loss": problem.task.test.loss(problem.task.optimum) if problem.task.test else math.nan,
    }
    between = np.geomspace(2.0, max(one.depth for one in found), 80)
    stable = np.array([2 / theory.sharpness(d) for d in between])
    numbers |= {"depth_curve": between, "stability_limit_curve": stable}
    if problem.task.whitened:
        part = float(np.median([one.rate * theory.sharpness(one.depth) / 2 for one in found]))
        numbers |= {
            "learning_time_theory": [theory.flow_iterations(one.depth, one.rate) for one in found],
            "rate_curve": part,  # in units of 2/λ_max
            "learning_time_curve": [theory.flow_iterations(d, part * r) for d, r in zip(between, stable, strict=True)],
            "learning_time_infinite_depth": theory.flow_iterations(math.inf, 2 * part / theory.s[0] ** 2),
        }
    else:
        try:
            problem.solution(curves[0])
        except NotApplicable as error:
            numbers["no_exact_solution"] = str(error)
    for n, one in zip(drawn, curves, strict=True):
        numbers |= {f"steps_{n}_layers": np.asarray(one.steps), f"loss_{n}_layers": one.loss[0]}
        numbers |= {f"test_loss_{n}_layers": one.test_loss[0], f"strengths_{n}_layers": one.strengths[0]}
        numbers |= {f"t_{n}_layers": one.t}
        if problem.task.whitened:
            flow = problem.solution(one)
            numbers |= {f"loss_theory_{n}_layers": flow.loss[0], f"strengths_theory_{n}_layers": flow.strengths[0]}
    return numbers


@dataclass(frozen=True)
class _Theory:
    """Stability and the exact solution of the flow: what search and checks share."""

    s: Floats
    input_variance: Floats
    excess: float  # of the loss above its floor, when it is learned

    def sharpness(self, depth: float) -> float:
        """λ_max = D s^(2-2/D) at the solution (S13 appendix B), of the decoupled modes if inputs are not whitened."""
        reached = self.s / self.input_variance
        return float((depth * reached ** (2 - 2 / depth) * self.input_variance).max())

    def flow_iterations(self, depth: float, rate: float) -> float:
        """Iterations to the criterion by the exact solution of the flow, for whitened inputs.

        At infinite depth `rate` is the limit of D times the rate.
        """
        from scipy.optimize import brentq

        def excess(t: float) -> float:
            return 0.5 * float(((self.s - exact.balanced_mode(START, self.s, t, depth=depth)) ** 2).sum())

        # Every mode within `near` of its end is more than the criterion asks.
        near = math.sqrt(2 * self.excess / len(self.s))
        enough = float(np.max(exact.time_to_reach(START, self.s - near, self.s, depth=depth)))
        return float(brentq(lambda t: excess(t) - self.excess, 0.0, enough, xtol=1e-12 * enough)) / rate


class _Problem:
    """MNIST, the start and the criterion: what is simulated."""

    def __init__(self, inputs: str, seed: int, n_threads: int | None) -> None:
        task = self.task = Task.mnist(whiten=inputs == "whitened")
        self.curve_rate = CURVE_RATE[inputs]
        self.wide_rate = WIDE_RATE[inputs]
        self.seed = seed
        self.n_threads = n_threads
        s, V = np.asarray(task.modes.s), np.asarray(task.modes.V)
        self.floor = float(np.asarray(task.floor))
        start = float(task.loss(init.aligned(task, depth=1, strength=START).product()[0]))
        self.theory = _Theory(
            s,
            np.ones_like(s) if task.whitened else ((task.sigma_xx @ V) * V).sum(axis=0),
            REMAINING[inputs] * (start - self.floor),
        )

    def grid(self, layers: Sequence[int], count: int) -> Floats:
        """The rates that all depths try."""
        limits = [2 / self.theory.sharpness(n - 1) for n in layers]
        return np.geomspace(GRID[0] * min(limits), GRID[1] * max(limits), count)

    def search(self, depth: int, grid: Floats) -> _Depth:
        """Iterations to the criterion over the grid of rates, and over a finer one about the fastest."""
        first = self._iterations(depth, grid)
        best = int(np.nanargmin(first[0]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        fine = np.geomspace(low, high, len(grid) + 1)[1:-1]
        second = self._iterations(depth, fine)
        rates = np.concatenate([grid, fine])
        order = np.argsort(rates)
        return _Depth(depth, rates[order], np.concatenate([first[0], second[0]])[order], first[1] + second[1])

    def _iterations(self, depth: int, rates: Floats) -> tuple[Floats, int]:
        """Iterations to the criterion at each rate, NaN if not reached, and how many rates diverged."""
        start = init.aligned(self.task, depth=depth, strength=START, seed=self.seed)
        iterations = np.full(len(rates), np.nan)
        diverged = 0
        # Rates of similar size share an ensemble, and with it the number of steps allowed.
        for group in np.array_split(np.arange(len(rates)), max(1, len(rates) // 5)):
            run = gradient_descent(
                self.task,
                start,
                lr=rates[group],
                steps=self._allowed(depth, float(rates[group[0]])),
                at=[0],
                record="loss",
                stop=Stop(loss=self.floor + self.theory.excess),
                throw=False,
                n_threads=self.n_threads,
            )
            reached = run.status == Status.REACHED_LOSS
            iterations[group[reached]] = np.asarray(run.stopped_step)[reached]
            diverged += int((run.status == Status.DIVERGED).sum())
        return iterations, diverged

    def _allowed(self, depth: int, rate: float) -> int:
        if self.task.whitened:
            return math.ceil(1.5 * self.theory.flow_iterations(depth, rate)) + 20
        return math.ceil(RAW_STEPS * 2 / (self.theory.sharpness(depth) * rate))

    def curve(self, depth: int) -> Trajectory:
        """Loss and strengths over learning, at a rate far below the limit of stability."""
        rate = self.curve_rate * 2 / self.theory.sharpness(depth)
        steps = self._allowed(depth, rate)
        return gradient_descent(
            self.task,
            init.aligned(self.task, depth=depth, strength=START, seed=self.seed),
            lr=rate,
            steps=steps,
            record_every=max(1, steps // 300),
            record=("loss", "test_loss", "strengths"),
            n_threads=self.n_threads,
        )

    def solution(self, curve: Trajectory) -> Trajectory:
        """The exact solution at the times of a curve."""
        start = init.aligned(self.task, depth=int(curve.settings["depth"]), strength=START, seed=self.seed)
        return exact.solve(self.task, start).evaluate(curve.t)

    def wide(self) -> tuple[float, float]:
        """How far learning at the paper's hidden width is from that of the number of modes, and where u_1 ends."""
        rate = self.wide_rate * 2 / self.theory.sharpness(WIDE_DEPTH)
        strengths = [
            gradient_descent(
                self.task,
                init.aligned(self.task, depth=WIDE_DEPTH, width=width, strength=START, seed=self.seed),
                lr=rate,
                steps=WIDE_STEPS,
                record_every=1,
                record="strengths",
                n_threads=self.n_threads,
            ).strengths[0]
            for width in (None, WIDTH)
        ]
        return float(np.abs(strengths[1] - strengths[0]).max() / self.theory.s[0]), float(strengths[1][-1, 0])


def check(numbers: Numbers) -> list[Check]:
    """Learning times and fastest rates against the flow and discrete steps, strengths over time, the paper's width."""
    theory = _Theory(numbers["s"], numbers["input_variance"], float(numbers["loss_above_floor_when_learned"]))
    columns = (numbers[name] for name in ("depth", "rates", "iterations", "rates_that_diverged"))
    found = [
        _Depth(int(depth), rates, iterations, int(diverged))
        for depth, rates, iterations, diverged in zip(*columns, strict=True)
    ]
    shown = _drawn(numbers)[1]
    wide = f"hidden width {WIDTH}, {WIDE_DEPTH + 1} layers"
    return [
        *(_whitened_checks if _whitened(numbers) else _raw_checks)(numbers, theory, found),
        Check.compare(
            f"{wide}: largest difference from width {len(theory.s)}, part of s_1",
            theory=0.0,
            measured=float(numbers["wide_difference"]),
            tolerance=1e-10,
            relative=False,
            note=f"over {WIDE_STEPS} iterations; u_1 ends at {float(numbers['wide_strength']):.4g}",
        ),
        Check.show(
            f"held-out loss when the curve of {shown} layers ends",
            theory=float(numbers["least_test_loss"]),
            measured=float(numbers[f"test_loss_{shown}_layers"][-1]),
            note="theory: least squares",
        ),
    ]


def _whitened(numbers: Numbers) -> bool:
    return str(numbers["inputs"]) == "whitened"


def _drawn(numbers: Numbers) -> list[int]:
    return [int(n) for n in numbers["drawn_layers"]]


def _whitened_checks(numbers: Numbers, theory: _Theory, found: list[_Depth]) -> list[Check]:
    checks = []
    for one in found:
        flow = theory.flow_iterations(one.depth, one.rate)
        checks.append(
            Check.compare(
                f"learning time, {one.depth + 1} layers, fastest rate (iterations)",
                theory=flow,
                measured=one.fastest,
                tolerance=3 + 0.02 * flow,
                relative=False,
                note=f"lr {one.rate:.4g}, {one.rate * theory.sharpness(one.depth) / 2:.2f} of 2/λ_max; "
                f"{np.isfinite(one.iterations).sum()} of {len(one.rates)} rates learned, {one.diverged} diverged",
            )
        )
    for one in found:
        slow = int(np.flatnonzero(np.isfinite(one.iterations))[0])
        checks.append(
            Check.compare(
                f"learning time, {one.depth + 1} layers, slowest rate (iterations)",
                theory=theory.flow_iterations(one.depth, float(one.rates[slow])),
                measured=float(one.iterations[slow]),
                tolerance=0.02,
                note=f"lr {one.rates[slow]:.4g}",
            )
        )
    for one in found:
        modes = mode_descent(START, theory.s, depth=one.depth, lr=one.rate, steps=math.ceil(one.fastest) + 50)
        checks.append(
            Check.compare(
                f"learning time, {one.depth + 1} layers, in discrete steps (iterations)",
                theory=int((modes.loss[0] <= theory.excess).argmax()),
                measured=one.fastest,
                tolerance=0,
                relative=False,
                note="theory: the ten modes by themselves, a number each",
            )
        )
    slope = np.polyfit(
        np.log([one.depth for one in found]),
        np.log([one.rate * theory.s[0] ** (2 - 2 / one.depth) for one in found]),
        1,
    )[0]
    checks.append(
        Check.compare(
            "fastest rate times s_1^(2-2/D) against depth: exponent",
            theory=-1.0,
            measured=float(slope),
            tolerance=0.05,
            relative=False,
            note="theory: the optimal rate scales as 1/(D s^(2-2/D))",
        )
    )
    limit = theory.flow_iterations(math.inf, 2 / theory.s[0] ** 2)
    for one in found[-1:]:
        at_limit = theory.flow_iterations(one.depth, 2 / theory.sharpness(one.depth))
        checks.append(
            Check.compare(
                f"delay of {one.depth + 1} layers, part of that of infinite depth",
                theory=at_limit / limit,
                measured=one.fastest * one.rate * theory.sharpness(one.depth) / 2 / limit,
                tolerance=0.03,
                note=f"at η = 2/λ_max; infinite depth takes {limit:.1f} iterations",
            )
        )
    for n, lr in zip(_drawn(numbers), numbers["drawn_rates"].tolist(), strict=True):
        steps, course = numbers[f"steps_{n}_layers"], numbers[f"strengths_theory_{n}_layers"]
        stepped = mode_descent(START, theory.s, depth=n - 1, lr=lr, steps=int(steps[-1])).strengths[0, steps]
        checks.append(
            Check.compare(
                f"strengths over learning, {n} layers: largest distance from the flow, part of s_1",
                theory=float(np.abs(stepped - course).max() / theory.s[0]),
                measured=float(np.abs(numbers[f"strengths_{n}_layers"] - course).max() / theory.s[0]),
                tolerance=1e-6,
                relative=False,
                note=f"theory: of the modes in discrete steps; lr {lr:.4g}, {CURVE_RATE['whitened']} of 2/λ_max",
            )
        )
    return checks


def _raw_checks(numbers: Numbers, theory: _Theory, found: list[_Depth]) -> list[Check]:
    why = numbers.get("no_exact_solution")
    return [
        *([] if why is None else [Check.show("exact solution", note=f"does not apply: {why}")]),
        *(
            Check.show(
                f"learning time, {one.depth + 1} layers, fastest rate (iterations)",
                measured=one.fastest,
                note=f"lr {one.rate:.4g}, {one.rate * theory.sharpness(one.depth) / 2:.2f} of 2/λ_max; "
                f"{np.isfinite(one.iterations).sum()} of {len(one.rates)} rates learned, {one.diverged} diverged",
            )
            for one in found
        ),
    ]


def draw(figure: Figure, numbers: Numbers) -> None:
    """Modes and losses over time, learning time and fastest rate against depth, each with its theory."""
    axes = figure.subplots(2, 2)
    drawn, whitened = _drawn(numbers), _whitened(numbers)
    shown = drawn[1]
    simulated = curve(numbers[f"t_{shown}_layers"], strengths=numbers[f"strengths_{shown}_layers"])
    if whitened:
        flow = curve(numbers[f"t_{shown}_layers"], strengths=numbers[f"strengths_theory_{shown}_layers"])
        plot.overlay(simulated, flow, ax=axes[0, 0])
    else:
        plot.strengths(simulated, ax=axes[0, 0])
    axes[0, 0].set_title(f"modes of MNIST, depth D = {shown - 1}", fontsize="medium")
    _draw_losses(axes[0, 1], numbers, drawn)
    _draw_depths(axes[1, 0], axes[1, 1], numbers)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)


def _draw_losses(ax: Axes, numbers: Numbers, drawn: list[int]) -> None:
    whitened = _whitened(numbers)
    for n, color in zip(drawn, style.mode_colors(len(drawn)), strict=True):
        steps, loss = numbers[f"steps_{n}_layers"], numbers[f"loss_{n}_layers"]
        ax.plot(steps, loss, color=color, linewidth=3.0, label=f"D = {n - 1}")
        if whitened:
            ax.plot(steps, numbers[f"loss_theory_{n}_layers"], **style.THEORY)
    ax.axhline(float(numbers["loss_floor"]), color="0.7", linewidth=0.8, zorder=0)
    ax.set_xscale("symlog", linthresh=10)
    ax.set_xlim(left=0)
    rate = CURVE_RATE[str(numbers["inputs"])]
    ax.set_xlabel(rf"iterations, at $\eta = {rate:g} \times 2/\lambda_\mathrm{{max}}$")
    ax.set_ylabel(style.loss_label(curve(steps, normalize=str(numbers["normalize"])), "loss"))
    handles, labels = ax.get_legend_handles_labels()
    if whitened:
        handles.append(style.legend_line(**style.THEORY))
        labels.append("theory")
    style.legend_beside(ax, handles, labels)
    ax.set_title("training loss", fontsize="medium")


def _draw_depths(left: Axes, right: Axes, numbers: Numbers) -> None:
    depths, between = numbers["depth"], numbers["depth_curve"]
    theory: dict[str, tuple[ArrayLike, ArrayLike]] | None = None
    if _whitened(numbers):
        part, deep = float(numbers["rate_curve"]), float(numbers["learning_time_infinite_depth"])
        at = rf"theory, $\eta = {part:.2f} \times 2/\lambda_\mathrm{{max}}$"
        ends = (2, int(max(depths)))
        theory = {at: (between, numbers["learning_time_curve"]), "theory, infinite depth": (ends, (deep, deep))}
    plot.learning_time(depths, numbers["learning_time"], theory=theory, ax=left, linestyle="none")
    left.set_title("learning time at the fastest rate", fontsize="medium")
    label = r"limit of stability, $2/\lambda_\mathrm{max}$"
    limit = {label: (between, numbers["stability_limit_curve"])}
    plot.optimal_rate(depths, numbers["fastest_rate"], theory=limit, ax=right, linestyle="none")
    right.set_title("fastest rate", fontsize="medium")


def settings(job: Job, numbers: Numbers) -> dict[str, object]:
    """The problem, the criterion, and the rates."""
    count, rates = job.own["rates"], numbers["rates"]
    return {
        "task": str(numbers["task"]),
        "inputs": str(numbers["inputs"]),
        "normalize": str(numbers["normalize"]),
        "u_0": START,
        "layers of units": list(job.own["layers"]),
        "learned when the loss above its floor is this part of the start's": REMAINING[str(numbers["inputs"])],
        "rates": f"{count} from {rates.min():.4g} to {rates.max():.4g}, then {count - 1} around the fastest",
    }


RECIPE = Recipe(
    title="Fig. 4 of Saxe, McClelland & Ganguli (2013): learning time and optimal rate against depth on MNIST",
    inches=(10.0, 7.6),
    options={
        "inputs": one_of("What the networks see, whitened images or raw ones, pixels from 0 to 1", *REMAINING),
        "layers": rising(
            "Layers of units N_l = D + 1",
            (3, 5, 8, 14, 20, 36, 64, 100),
            (3, 5, 8, 10, 14, 20, 28, 36, 44, 54, 64, 74, 84, 94, 100),
            at_least=3,
        ),
        "rates": whole("Learning rates on the first grid, in the paper 20", 12, 20, at_least=4),
    },
    settings=settings,
    compute=compute,
    check=check,
    draw=draw,
)
