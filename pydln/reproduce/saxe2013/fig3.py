"""S13 fig. 3: a hierarchy is learned mode by mode, each when the exact solution says.

The paper gives: 32 one-hot inputs, 1000 features drawn by diffusion down a binary tree of 5 levels with flip
probability 0.1, 32 hidden units, sums over samples, learning rate 0.5e-3, u_0 = 1e-6, modes 1, 2, 3, 5, 12, 18 and
31, of a linear and of a tanh network; on the right, (t_half simulated - t_half theory)/t_half theory over 100 random
starts.

The paper leaves unsaid, and here is chosen:

- How the simulation on the left starts. The solution it is compared with (eq. 12) assumes an aligned start, so that
  is what the coloured curves and the half-times of the table are from. One random start is drawn beside them.
- How the random starts make u_0 = 1e-6. Both layers are Gaussian. A small start grows along z = (W_1 v + W_2ᵀ u)/2,
  so a mode behaves as if started at |z|², with mean g²/2 for entries N(0, g²/fan-in) of 32 inputs and 32 hidden
  units: g² = 2 u_0.
- The error of the discretisation. One step multiplies a small mode by (1 + ηs)², the flow by e^(2ηs): gradient
  descent is late by ηs/2 of the half-time, 2.0 % for mode 1 at the paper's rate. The comparison with the flow
  therefore runs at a quarter of that rate (0.5 %); the paper's rate has rows of its own, against the same modes in
  discrete steps.
- The tanh network: one hidden layer of tanh units, from the same aligned start at the paper's rate. Its modes are read
  as diag(Uᵀ Σ_net V), Σ_net = Σ ŷ xᵀ. While hidden activities h are small it is a linear network that learns a little
  later, slowed by <tanh'> = 1 - <h²>. When modes 1 … k are at their ends and k + 1 at its half, <h²> has grown to (s_1
  + … + s_k + s_{k+1}/2)/n_0 n_1 (of the linear network), which to first order bounds the part that mode k + 1 is late.

Beside the paper: the delay of random starts is competition for hidden units, and can be predicted. When the k-th mode
is learned, k - 1 directions of the hidden layer are taken, and it grows from what is left of its z: 33 - k Gaussian
components instead of 32. The mean of ln|z|² is then psi((33 - k)/2) - ln 16 from ln u_0, and the half-time,
ln(s/u_0)/2s, is late by that over ln(s/u_0). Modes of nearly equal strength are learned together and compete less.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import exact, init, plot
from pydln.analysis import half_times
from pydln.plot import style
from pydln.reproduce.checks import Check
from pydln.reproduce.curves import curve
from pydln.reproduce.mode_descent import mode_descent
from pydln.reproduce.recipe import Job, Numbers, Progress, Recipe, whole
from pydln.simulate.descent import gradient_descent
from pydln.simulate.nonlinear import train_nonlinear
from pydln.task.task import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["RECIPE"]

START = 1e-6
PAPER_LR = 0.5e-3
FINE_LR = PAPER_LR / 4
HIDDEN = 32
PLOTTED = (1, 2, 3, 5, 12, 18, 31)  # counted from 1, as in the paper
COMPETING = 16  # modes whose mean delay is checked: below, the sixteen of the last level are nearly equal

Floats = NDArray[np.float64]


def compute(job: Job, *, starts: int) -> dict[str, ArrayLike]:
    """Strengths over time of every network drawn, half-times of all modes, and the delays of the random starts."""
    task = Task.hierarchy(levels=5, branching=2, flip=0.1, features=1000, seed=job.seed, normalize="sum")
    s = task.modes.s
    theory_half: Floats = exact.time_to_reach(START, s / 2, s, depth=2)
    until = 1.45 * float(theory_half.max())

    aligned = init.aligned(task, depth=2, width=HIDDEN, strength=START, seed=job.seed)
    random = init.gaussian((task.n_in, HIDDEN, task.n_out), batch=starts, scale=np.sqrt(2 * START), seed=job.seed)
    parts = [
        ("aligned start, fine steps", aligned, FINE_LR, round(until / FINE_LR)),
        ("aligned start, the paper's steps", aligned, PAPER_LR, round(until / PAPER_LR)),
        (f"{starts} random starts", random, PAPER_LR, round(1.3 * until / PAPER_LR)),
    ]
    bent_steps = round(1.3 * until / PAPER_LR)
    total = sum(weights.batch * steps for _, weights, _, steps in parts) + bent_steps
    runs, before = [], 0
    for what, weights, lr, steps in parts:
        job.tell(before, total, what)
        runs.append(
            gradient_descent(
                task,
                weights,
                lr=lr,
                steps=steps,
                record_every=max(1, steps // 1500),
                n_threads=job.n_threads,
                progress=partial(_tell_part, job.tell, before, total, what),
            )
        )
        before += weights.batch * steps
    fine, coarse, noisy = runs
    job.tell(before, total, "tanh network")
    bent = train_nonlinear(
        np.eye(task.n_in),
        np.asarray(task.sigma_yx).T,
        aligned,
        activation="tanh",
        lr=PAPER_LR,
        steps=bent_steps,
        record_every=max(1, bent_steps // 1500),
        normalize="sum",
        modes=task.modes,
        n_threads=job.n_threads,
        progress=partial(_tell_part, job.tell, before, total, "tanh network"),
    )
    theory = exact.solve(task, aligned).evaluate(np.linspace(0.0, until, 600))
    stepped = mode_descent(START, s, depth=2, lr=PAPER_LR, steps=round(until / PAPER_LR))

    half = {"fine": half_times(fine, s)[0], "coarse": half_times(coarse, s)[0], "map": half_times(stepped, s)[0]}
    half["tanh"] = half_times(bent, s)[0]
    delays = half_times(noisy, s) / theory_half - 1
    predicted = half["map"] / theory_half - 1 + _competition(s)
    return {
        "task": task.name,
        "normalize": task.normalize,
        "s": s,
        "t": fine.t,
        "strengths_aligned": fine.strengths[0],
        "strengths_random_start": noisy.strengths[0],
        "t_random_start": noisy.t,
        "t_theory": theory.t,
        "strengths_theory": theory.strengths[0],
        "strengths_tanh": bent.strengths[0],
        "t_tanh": bent.t,
        "half_time_theory": theory_half,
        "half_time_tanh": half["tanh"],
        "half_time_aligned": half["fine"],
        "half_time_aligned_paper_lr": half["coarse"],
        "half_time_discrete_paper_lr": half["map"],
        "delay_random": delays,
        "delay_predicted": predicted,
    }


def _tell_part(tell: Progress, before: int, total: int, what: str, done: int, _: int) -> None:
    tell(before + done, total, what)


def _competition(s: Floats) -> Floats:
    """Mean relative delay of mode k by the k - 1 before it, from small Gaussian starts (module docstring)."""
    from scipy.special import digamma

    left = HIDDEN - np.arange(len(s))
    lost: Floats = np.log(HIDDEN / 2) - digamma(left / 2)
    return lost / np.log(s / START)


def check(numbers: Numbers) -> list[Check]:
    """Half-times of aligned starts against the flow, in discrete steps, of tanh units; delays of random starts."""
    s, theory, delays, predicted = (
        numbers[name] for name in ("s", "half_time_theory", "delay_random", "delay_predicted")
    )
    half = {
        "fine": numbers["half_time_aligned"],
        "coarse": numbers["half_time_aligned_paper_lr"],
        "map": numbers["half_time_discrete_paper_lr"],
        "tanh": numbers["half_time_tanh"],
    }
    checks = [
        Check.compare(
            f"half-time of mode {k}, aligned start (τ)",
            theory=theory[k - 1],
            measured=half["fine"][k - 1],
            tolerance=0.01,
            note=f"s = {s[k - 1]:.4g}; lr {FINE_LR:g}; steps of this size are late by {50 * FINE_LR * s[k - 1]:.2f} %",
        )
        for k in PLOTTED
    ]
    checks += [
        Check.compare(
            f"half-time of mode {k}, aligned start, the paper's lr (τ)",
            theory=half["map"][k - 1],
            measured=half["coarse"][k - 1],
            tolerance=1e-6,
            note="theory: the same mode in discrete steps; "
            f"from the flow {100 * (half['coarse'][k - 1] / theory[k - 1] - 1):+.2f} %",
        )
        for k in PLOTTED
    ]
    slower = (np.cumsum(s) - s / 2) / HIDDEN**2  # <h²>, n_0 = n_1
    checks += [
        Check.compare(
            f"half-time of mode {k}, tanh network (τ)",
            theory=half["map"][k - 1],
            measured=half["tanh"][k - 1],
            tolerance=float(slower[k - 1]),
            note="theory: the linear network; tolerance: <h²>, how much slower tanh units may be by then",
        )
        for k in PLOTTED
    ]
    in_turn = np.array([k - 1 for k in PLOTTED])
    checks.append(
        Check.compare(
            "plotted modes that the tanh network learns in the order of their strengths",
            theory=len(in_turn),
            measured=1 + int((np.diff(half["tanh"][in_turn]) > 0).sum()),
            tolerance=0,
            relative=False,
        )
    )
    first = slice(COMPETING)
    checks.append(
        Check.compare(
            f"delay of random starts, mean over modes 1 to {COMPETING} (part of the half-time)",
            theory=float(predicted[first].mean()),
            measured=float(delays[:, first].mean()),
            tolerance=0.01,
            relative=False,
            note="theory: discretisation and competition for hidden units",
        )
    )
    checks += [
        Check.show(
            f"delay of random starts, mode {k} (part of the half-time)",
            theory=float(predicted[k - 1]),
            measured=float(np.nanmean(delays[:, k - 1])),
            note=f"SD {np.nanstd(delays[:, k - 1], ddof=1):.3f} over {len(delays)} starts",
        )
        for k in PLOTTED
    ]
    return checks


def draw(figure: Figure, numbers: Numbers) -> None:
    """Mode strengths over time, simulation on theory, and the delays of random starts beside them."""
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    modes = [k - 1 for k in PLOTTED]
    for mode, color in zip(modes, style.mode_colors(len(modes)), strict=True):
        start, bent = numbers["strengths_random_start"][:, mode], numbers["strengths_tanh"][:, mode]
        left.plot(numbers["t_random_start"], start, color=color, linewidth=0.8, alpha=0.6)
        left.plot(numbers["t_tanh"], bent, color=color, linewidth=1.6, linestyle=":")
    simulated = curve(numbers["t"], strengths=numbers["strengths_aligned"])
    theory = curve(numbers["t_theory"], strengths=numbers["strengths_theory"])
    plot.overlay(simulated, theory, ax=left, modes=modes)
    left.set_xlim(0.0, float(numbers["t"][-1]))
    left.set_title("mode strengths; dotted: tanh network; thin: one random start", fontsize="medium")
    aligned = numbers["half_time_aligned"] / numbers["half_time_theory"] - 1
    _draw_delays(right, numbers["delay_random"], numbers["delay_predicted"], aligned)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)


def _draw_delays(ax: Axes, delays: Floats, predicted: Floats, aligned: Floats) -> None:
    rank = np.arange(1, delays.shape[1] + 1)
    ax.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    ax.errorbar(
        rank,
        100 * np.nanmean(delays, axis=0),
        100 * np.nanstd(delays, axis=0, ddof=1),
        fmt="o",
        markersize=4,
        linewidth=1.0,
        color=style.OKABE_ITO[0],
        label=f"{len(delays)} random starts, mean ± SD",
    )
    ax.plot(rank, 100 * aligned, "s", markersize=3, color=style.OKABE_ITO[3], label="aligned start")
    ax.plot(rank, 100 * predicted, label="theory: competition for hidden units", **style.THEORY)
    ax.set_xlabel(r"mode $\alpha$, by strength")
    ax.set_ylabel("delay of half-time behind theory (%)")
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    ax.set_title("delay of random starts", fontsize="medium")


RECIPE = Recipe(
    title="Fig. 3 of Saxe, McClelland & Ganguli (2013): a hierarchy is learned mode by mode",
    inches=(10.0, 4.2),
    options={"starts": whole("Random starts on the right, in the paper 100", 8, 100, at_least=2)},
    settings=lambda job, numbers: {
        "task": str(numbers["task"]),
        "normalize": str(numbers["normalize"]),
        "hidden": HIDDEN,
        "u_0": START,
        "lr": FINE_LR,
        "lr of the paper": PAPER_LR,
        "random starts": job.own["starts"],
    },
    compute=compute,
    check=check,
    draw=draw,
)
