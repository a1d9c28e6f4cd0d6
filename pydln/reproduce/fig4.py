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

import itertools
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import exact, init, plot
from pydln._base import validate
from pydln.errors import NotApplicable
from pydln.plot import style
from pydln.reproduce.checks import Check
from pydln.reproduce.mode_descent import mode_descent
from pydln.reproduce.report import Progress, Report, blank, directory, write
from pydln.simulate.descent import gradient_descent
from pydln.simulate.stop import Stop
from pydln.task.task import Task
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["TITLE", "run"]

TITLE = "Fig. 4 of Saxe, McClelland & Ganguli (2013): learning time and optimal rate against depth on MNIST"

START = 1e-3
LAYERS = {
    False: (3, 5, 8, 14, 20, 36, 64, 100),
    True: (3, 5, 8, 10, 14, 20, 28, 36, 44, 54, 64, 74, 84, 94, 100),
}
RATES = {False: 12, True: 20}
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
    diverged: int

    @property
    def best(self) -> int:
        return int(np.nanargmin(self.iterations))

    @property
    def rate(self) -> float:
        return float(self.rates[self.best])

    @property
    def fastest(self) -> float:
        return float(self.iterations[self.best])


def run(
    out_dir: str | os.PathLike[str],
    *,
    full: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    n_threads: int | None = None,
    inputs: str = "whitened",
    layers: Sequence[int] | None = None,
    rates: int | None = None,
) -> Report:
    """Reproduce the figure; see `pydln.reproduce.reproduce` for the common parameters.

    Parameters
    ----------
    inputs : {"whitened", "raw"}
        What the networks see: whitened images, or pixels from 0 to 1.
    layers : sequence of int, optional
        Layers of units N_l = D + 1, increasing, at least two, each >= 3; the paper's if `full`, else eight of them.
    rates : int, optional
        Number of learning rates on the first grid: 20 if `full`, as in the paper, else 12.
    """
    seed = validate.integer(seed, "seed", at_least=0)
    kind = validate.choice(inputs, "inputs", tuple(REMAINING))
    sizes = _layers(LAYERS[bool(full)] if layers is None else layers)
    count = validate.integer(RATES[bool(full)] if rates is None else rates, "rates", at_least=4)
    folder = directory(out_dir)
    tell = progress or (lambda done, total, what: None)
    figure = blank(10.0, 7.6)
    problem = _Problem(kind, seed, n_threads)

    grid = problem.grid(sizes, count)
    wanted = np.geomspace(sizes[0], sizes[-1], CURVES)
    drawn = sorted({min(sizes, key=lambda n: abs(math.log(n / x))) for x in wanted})
    total = len(sizes) + len(drawn) + 1
    found = []
    for i, n in enumerate(sizes):
        tell(i, total, f"rates at {n} layers")
        found.append(problem.search(n - 1, grid))
    curves = []
    for i, n in enumerate(drawn):
        tell(len(sizes) + i, total, f"curve of {n} layers")
        curves.append(problem.curve(n - 1))
    checks = _checks(problem, found, curves)
    tell(total - 1, total, f"hidden width {WIDTH}")
    checks.append(problem.wide())
    checks.append(_test_loss(problem, curves[1]))
    _draw(figure, problem, found, curves)
    tell(total, total, "done")

    depths = np.array([one.depth for one in found])
    numbers = {
        "s": problem.task.modes.s,
        "depth": depths,
        "rates": np.array([one.rates for one in found]),
        "iterations": np.array([one.iterations for one in found]),
        "fastest_rate": np.array([one.rate for one in found]),
        "learning_time": np.array([one.fastest for one in found]),
        "stability_limit": np.array([2 / problem.sharpness(d) for d in depths]),
    }
    if problem.task.whitened:
        numbers["learning_time_theory"] = np.array([problem.flow_iterations(one.depth, one.rate) for one in found])
    for n, curve in zip(drawn, curves, strict=True):
        numbers |= {f"steps_{n}_layers": np.asarray(curve.steps), f"loss_{n}_layers": curve.loss[0]}
        numbers |= {f"test_loss_{n}_layers": curve.test_loss[0], f"strengths_{n}_layers": curve.strengths[0]}
    return write(
        folder,
        "fig4",
        TITLE,
        figure=figure,
        numbers=numbers,
        checks=checks,
        settings={
            "full": bool(full),
            "seed": seed,
            "task": problem.task.name,
            "inputs": kind,
            "normalize": problem.task.normalize,
            "u_0": START,
            "layers of units": list(sizes),
            "learned when the loss above its floor is this part of the start's": problem.remaining,
            "rates": f"{len(grid)} from {grid[0]:.4g} to {grid[-1]:.4g}, then {len(grid) - 1} around the fastest",
        },
    )


def _layers(given: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(validate.integer(n, f"layers[{i}]", at_least=3) for i, n in enumerate(given))
    if len(sizes) < 2 or any(b <= a for a, b in itertools.pairwise(sizes)):
        raise ValueError(f"layers: expected two or more increasing numbers, got {list(sizes)}")
    return sizes


class _Problem:
    """MNIST, the start and the criterion: what simulation and theory share."""

    def __init__(self, inputs: str, seed: int, n_threads: int | None) -> None:
        task = self.task = Task.mnist(whiten=inputs == "whitened")
        self.remaining = REMAINING[inputs]
        self.curve_rate = CURVE_RATE[inputs]
        self.wide_rate = WIDE_RATE[inputs]
        self.seed = seed
        self.n_threads = n_threads
        s, V = np.asarray(task.modes.s), np.asarray(task.modes.V)
        self.s: Floats = s
        self.input_variance: Floats = np.ones_like(s) if task.whitened else ((task.sigma_xx @ V) * V).sum(axis=0)
        self.floor = float(np.asarray(task.floor))
        start = float(task.loss(init.aligned(task, depth=1, strength=START).product()[0]))
        self.excess = self.remaining * (start - self.floor)

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

    def grid(self, layers: tuple[int, ...], count: int) -> Floats:
        """The rates that all depths try."""
        limits = [2 / self.sharpness(n - 1) for n in layers]
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
                stop=Stop(loss=self.floor + self.excess),
                throw=False,
                n_threads=self.n_threads,
            )
            reached = run.status == Status.REACHED_LOSS
            iterations[group[reached]] = np.asarray(run.stopped_step)[reached]
            diverged += int((run.status == Status.DIVERGED).sum())
        return iterations, diverged

    def _allowed(self, depth: int, rate: float) -> int:
        if self.task.whitened:
            return math.ceil(1.5 * self.flow_iterations(depth, rate)) + 20
        return math.ceil(RAW_STEPS * 2 / (self.sharpness(depth) * rate))

    def curve(self, depth: int) -> Trajectory:
        """Loss and strengths over learning, at a rate far below the limit of stability."""
        rate = self.curve_rate * 2 / self.sharpness(depth)
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

    def theory(self, curve: Trajectory) -> Trajectory:
        """The exact solution at the times of a curve."""
        start = init.aligned(self.task, depth=int(curve.settings["depth"]), strength=START, seed=self.seed)
        return exact.solve(self.task, start).evaluate(curve.t)

    def wide(self) -> Check:
        """Learning at the paper's hidden width, against the width of the number of modes."""
        rate = self.wide_rate * 2 / self.sharpness(WIDE_DEPTH)
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
        return Check.compare(
            f"hidden width {WIDTH}, {WIDE_DEPTH + 1} layers: largest difference from width {len(self.s)}, part of s_1",
            theory=0.0,
            measured=float(np.abs(strengths[1] - strengths[0]).max() / self.s[0]),
            tolerance=1e-10,
            relative=False,
            note=f"over {WIDE_STEPS} iterations; u_1 ends at {strengths[1][-1, 0]:.4g}",
        )


def _checks(problem: _Problem, found: list[_Depth], curves: list[Trajectory]) -> list[Check]:
    if not problem.task.whitened:
        return _raw_checks(problem, found, curves)
    checks = []
    for one in found:
        flow = problem.flow_iterations(one.depth, one.rate)
        checks.append(
            Check.compare(
                f"learning time, {one.depth + 1} layers, fastest rate (iterations)",
                theory=flow,
                measured=one.fastest,
                tolerance=3 + 0.02 * flow,
                relative=False,
                note=f"lr {one.rate:.4g}, {one.rate * problem.sharpness(one.depth) / 2:.2f} of 2/λ_max; "
                f"{np.isfinite(one.iterations).sum()} of {len(one.rates)} rates learned, {one.diverged} diverged",
            )
        )
    for one in found:
        slow = int(np.flatnonzero(np.isfinite(one.iterations))[0])
        checks.append(
            Check.compare(
                f"learning time, {one.depth + 1} layers, slowest rate (iterations)",
                theory=problem.flow_iterations(one.depth, float(one.rates[slow])),
                measured=float(one.iterations[slow]),
                tolerance=0.02,
                note=f"lr {one.rates[slow]:.4g}",
            )
        )
    for one in found:
        steps = mode_descent(START, problem.s, depth=one.depth, lr=one.rate, steps=math.ceil(one.fastest) + 50)
        checks.append(
            Check.compare(
                f"learning time, {one.depth + 1} layers, in discrete steps (iterations)",
                theory=int((steps.loss[0] <= problem.excess).argmax()),
                measured=one.fastest,
                tolerance=0,
                relative=False,
                note="theory: the ten modes by themselves, a number each",
            )
        )
    slope = np.polyfit(
        np.log([one.depth for one in found]),
        np.log([one.rate * problem.s[0] ** (2 - 2 / one.depth) for one in found]),
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
    limit = problem.flow_iterations(math.inf, 2 / problem.s[0] ** 2)
    for one in found[-1:]:
        at_limit = problem.flow_iterations(one.depth, 2 / problem.sharpness(one.depth))
        checks.append(
            Check.compare(
                f"delay of {one.depth + 1} layers, part of that of infinite depth",
                theory=at_limit / limit,
                measured=one.fastest * one.rate * problem.sharpness(one.depth) / 2 / limit,
                tolerance=0.03,
                note=f"at η = 2/λ_max; infinite depth takes {limit:.1f} iterations",
            )
        )
    for curve in curves:
        depth = curve.settings["depth"]
        flow = problem.theory(curve).strengths[0]
        lr, last = curve.settings["lr"], int(np.asarray(curve.steps)[-1])
        stepped = mode_descent(START, problem.s, depth=depth, lr=lr, steps=last).strengths[0, curve.steps]
        checks.append(
            Check.compare(
                f"strengths over learning, {depth + 1} layers: largest distance from the flow, part of s_1",
                theory=float(np.abs(stepped - flow).max() / problem.s[0]),
                measured=float(np.abs(curve.strengths[0] - flow).max() / problem.s[0]),
                tolerance=1e-6,
                relative=False,
                note=f"theory: of the modes in discrete steps; lr {lr:.4g}, {problem.curve_rate} of 2/λ_max",
            )
        )
    return checks


def _raw_checks(problem: _Problem, found: list[_Depth], curves: list[Trajectory]) -> list[Check]:
    checks = []
    try:
        problem.theory(curves[0])
    except NotApplicable as error:
        checks.append(Check.show("exact solution", note=f"does not apply: {error}"))
    checks += [
        Check.show(
            f"learning time, {one.depth + 1} layers, fastest rate (iterations)",
            measured=one.fastest,
            note=f"lr {one.rate:.4g}, {one.rate * problem.sharpness(one.depth) / 2:.2f} of 2/λ_max; "
            f"{np.isfinite(one.iterations).sum()} of {len(one.rates)} rates learned, {one.diverged} diverged",
        )
        for one in found
    ]
    return checks


def _test_loss(problem: _Problem, curve: Trajectory) -> Check:
    best = None if problem.task.test is None else float(problem.task.test.loss(problem.task.optimum))
    return Check.show(
        f"held-out loss when the curve of {curve.settings['depth'] + 1} layers ends",
        theory=best,
        measured=float(curve.test_loss[0, -1]),
        note="theory: least squares",
    )


def _draw(figure: Figure, problem: _Problem, found: list[_Depth], curves: list[Trajectory]) -> None:
    axes = figure.subplots(2, 2)
    shown = curves[1]
    if problem.task.whitened:
        plot.overlay(shown, problem.theory(shown), ax=axes[0, 0])
    else:
        plot.strengths(shown, ax=axes[0, 0])
    axes[0, 0].set_title(f"modes of MNIST, depth D = {shown.settings['depth']}", fontsize="medium")
    _draw_losses(axes[0, 1], problem, curves)
    _draw_depths(axes[1, 0], axes[1, 1], problem, found)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)


def _draw_losses(ax: Axes, problem: _Problem, curves: list[Trajectory]) -> None:
    for curve, color in zip(curves, style.mode_colors(len(curves)), strict=True):
        steps = np.asarray(curve.steps)
        ax.plot(steps, curve.loss[0], color=color, linewidth=3.0, label=f"D = {curve.settings['depth']}")
        if problem.task.whitened:
            ax.plot(steps, problem.theory(curve).loss[0], **style.THEORY)
    ax.axhline(problem.floor, color="0.7", linewidth=0.8, zorder=0)
    ax.set_xscale("symlog", linthresh=10)
    ax.set_xlim(left=0)
    ax.set_xlabel(rf"iterations, at $\eta = {problem.curve_rate:g} \times 2/\lambda_\mathrm{{max}}$")
    ax.set_ylabel(style.loss_label(curves[0], "loss"))
    handles, labels = ax.get_legend_handles_labels()
    if problem.task.whitened:
        handles.append(style.legend_line(**style.THEORY))
        labels.append("theory")
    style.legend_beside(ax, handles, labels)
    ax.set_title("training loss", fontsize="medium")


def _draw_depths(left: Axes, right: Axes, problem: _Problem, found: list[_Depth]) -> None:
    depths = [one.depth for one in found]
    times, rates = [one.fastest for one in found], [one.rate for one in found]
    between = np.geomspace(2.0, max(depths), 80)
    stable = np.array([2 / problem.sharpness(d) for d in between])
    theory: dict[str, tuple[ArrayLike, ArrayLike]] | None = None
    if problem.task.whitened:
        part = float(np.median([rate * problem.sharpness(d) / 2 for d, rate in zip(depths, rates, strict=True)]))
        flow = [problem.flow_iterations(d, part * rate) for d, rate in zip(between, stable, strict=True)]
        deep = problem.flow_iterations(math.inf, 2 * part / problem.s[0] ** 2)
        at = rf"theory, $\eta = {part:.2f} \times 2/\lambda_\mathrm{{max}}$"
        theory = {at: (between, flow), "theory, infinite depth": ((2, max(depths)), (deep, deep))}
    plot.learning_time(depths, times, theory=theory, ax=left, linestyle="none")
    left.set_title("learning time at the fastest rate", fontsize="medium")
    label = r"limit of stability, $2/\lambda_\mathrm{max}$"
    plot.optimal_rate(depths, rates, theory={label: (between, stable)}, ax=right, linestyle="none")
    right.set_title("fastest rate", fontsize="medium")
