"""S13 fig. 2: the plane of the two layers' strengths of one mode, with the flow, what it conserves and where it ends.

The paper gives: one mode of a two-layer network, da/dt = b(s - ab), db/dt = a(s - ab) with τ = s = 1; its vector field,
hyperbolas a² - b² = c on which trajectories stay, the fixed points ab = s, the stable manifold a = -b of the saddle at
the origin, and two trajectories.

The paper leaves unsaid, and here is chosen: where the trajectories start, (-1.75, 1.65) beside the stable manifold,
which passes the saddle, and (0.2, -1.4). Each is drawn from the exact solution (lines) and from gradient flow of a
network with one unit per layer (dots); gradient descent at rate 0.001 has rows of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydln import exact, plot
from pydln.plot import style
from pydln.reproduce.checks import Check
from pydln.reproduce.recipe import Job, Numbers, Recipe
from pydln.simulate.descent import gradient_descent
from pydln.simulate.flow import gradient_flow
from pydln.task.task import Task
from pydln.trajectory.trajectory import Trajectory
from pydln.weights import Weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RECIPE"]

S = 1.0
STARTS = np.array([[-1.75, 1.65], [0.2, -1.4], [1.5, -1.5]])  # the last on the stable manifold
UNTIL = {False: 15.0, True: 30.0}
LR = 1e-3
RTOL = 1e-11

Floats = NDArray[np.float64]


def compute(job: Job) -> dict[str, ArrayLike]:
    """The exact solution, gradient flow and gradient descent from each start, (start, time, 2)."""
    until = UNTIL[job.full]
    t = np.linspace(0.0, until, 601)
    task = Task.from_covariances(None, [[S]], S)
    start = Weights([STARTS[:, :1, None], STARTS[:, 1:, None]])
    job.tell(0, 2, "gradient flow")
    flow = gradient_flow(task, start, t, record="weights", rtol=RTOL, reduce="none", n_threads=job.n_threads)
    job.tell(1, 2, "gradient descent")
    steps, every = round(until / LR), round(until / LR) // 600
    descent = gradient_descent(
        task, start, lr=LR, steps=steps, record="weights", record_every=every, reduce="none", n_threads=job.n_threads
    )
    return {
        "t": t,
        "exact": _exact(t),
        "gradient_flow": _strengths(flow),
        "t_descent": descent.t,
        "gradient_descent": _strengths(descent),
    }


def _exact(t: Floats) -> Floats:
    return np.stack(exact.scalar_mode(STARTS[:, :1], STARTS[:, 1:], S, t), axis=-1)


def _strengths(run: Trajectory) -> Floats:
    """(start, time, 2): a and b."""
    first, second = (np.asarray(layer)[..., 0, 0] for layer in run.weights)
    return np.stack([first, second], axis=-1)


def check(numbers: Numbers) -> list[Check]:
    """What is conserved, where trajectories end, and how far the three ways of following them are apart."""
    t, theory, simulated = numbers["t"], numbers["exact"], numbers["gradient_flow"]
    stepped, late = numbers["gradient_descent"], _exact(numbers["t_descent"])
    checks = []
    for i, (a0, b0) in enumerate(STARTS[:2]):
        where = f"from ({a0:g}, {b0:g})"
        c = a0**2 - b0**2
        # On the hyperbola ab = s: a² is the positive root of a⁴ - c a² - s² = 0, on the side of a + b at the start.
        a_end = np.sign(a0 + b0) * np.sqrt((c + np.hypot(c, 2 * S)) / 2)
        for name, course, tolerance in (("exact", theory, 1e-13), ("gradient flow", simulated, 1e3 * RTOL)):
            drift = course[i, :, 0] ** 2 - course[i, :, 1] ** 2 - c
            checks += [
                Check.compare(
                    f"largest drift of a² - b², {name}, {where}",
                    theory=0.0,
                    measured=float(np.abs(drift).max()),
                    tolerance=tolerance,
                    relative=False,
                    note=f"conserved, c = {c:.4g}",
                ),
                Check.compare(
                    f"end of a, {name}, {where}",
                    theory=a_end,
                    measured=float(course[i, -1, 0]),
                    tolerance=tolerance + _left(t[-1], a0, b0),
                    note=f"where a² - b² = {c:.4g} meets ab = s",
                ),
            ]
        checks += [
            Check.compare(
                f"largest distance of gradient flow from the exact solution, {where}",
                theory=0.0,
                measured=float(np.abs(simulated[i] - theory[i]).max()),
                tolerance=1e3 * RTOL,
                relative=False,
                note="rtol 1e-11; passing the saddle multiplies errors",
            ),
            Check.compare(
                f"largest distance of gradient descent from the exact solution, {where}",
                theory=0.0,
                measured=float(np.abs(stepped[i] - late[i]).max()),
                tolerance=_first_order(a0, b0),
                relative=False,
                note=f"lr {LR:g}; bound: half a step of the fastest motion, grown past the saddle",
            ),
        ]
    checks += [
        Check.compare(
            "a + b on the stable manifold, largest over time",
            theory=0.0,
            measured=float(np.abs(theory[2].sum(axis=-1)).max()),
            tolerance=1e-15,
            relative=False,
            note="exact solution; a = -b is an invariant line",
        ),
        Check.compare(
            "ln a on the stable manifold at the end",
            theory=_manifold(STARTS[2, 0], t[-1]),
            measured=float(np.log(theory[2, -1, 0])),
            tolerance=1e-12,
            note="da/dt = -a(s + a²), a Bernoulli equation: decays to the saddle as e^{-st}",
        ),
        Check.compare(
            "ln a on the stable manifold at the end, gradient flow",
            theory=_manifold(STARTS[2, 0], t[-1]),
            measured=float(np.log(simulated[2, -1, 0])),
            tolerance=1e3 * RTOL,
            note="both layers do the same arithmetic, so the symmetry survives rounding",
        ),
    ]
    return checks


def _left(t: float, a0: float, b0: float) -> float:
    """A bound of the rest of the way to ab = s: e^{-2st}, as a² + b² ≥ 2s there, counted from the saddle on.

    a + b grows as e^{st} beside the saddle, and leaves it after ln(1/|a + b|)/s.
    """
    return float(np.exp(-2 * S * t) * (2 * STARTS[0] ** 2).sum() * (10 / abs(a0 + b0)) ** 2)


def _manifold(a0: float, t: float) -> float:
    """ln a(t) for a = -b: a² = s/((1 + s/a0²) e^{2st} - 1)."""
    return float(0.5 * (np.log(S) - 2 * S * t - np.log((1 + S / a0**2) - np.exp(-2 * S * t))))


def _first_order(a0: float, b0: float) -> float:
    """A bound of Euler's error: η/2 times the largest speed and rate, and the growth of a + b past the saddle."""
    rate = a0**2 + b0**2 + S
    return float(0.5 * LR * rate * np.hypot(a0, b0) * max(1.0, 2 * np.sqrt(S) / abs(a0 + b0)))


def draw(figure: Figure, numbers: Numbers) -> None:
    """The two trajectories in the vector field."""
    ax = figure.subplots()
    plot.phase_portrait([(one[:, 0], one[:, 1]) for one in numbers["exact"][:2]], s=S, ax=ax)
    for one in numbers["gradient_flow"][:2]:
        ax.plot(one[::12, 0], one[::12, 1], "o", color="black", markersize=2.2, zorder=4.5)
    handles, labels = ax.get_legend_handles_labels()
    handles += [
        style.legend_line(color=style.OKABE_ITO[1], linewidth=2.4),
        style.legend_line(color=style.OKABE_ITO[2], linewidth=2.4),
        style.legend_line(color="black", marker="o", linestyle="none", markersize=3),
        style.legend_line(color="black", marker="o", linestyle="none", markersize=6, markerfacecolor="white"),
    ]
    labels += [*(f"from ({a:g}, {b:g}), exact" for a, b in STARTS[:2]), "gradient flow of a network", "saddle"]
    style.legend_beside(ax, handles, labels)
    ax.set_title(r"one mode of a two-layer network, $\tau = s = 1$", fontsize="medium")


RECIPE = Recipe(
    title="Fig. 2 of Saxe, McClelland & Ganguli (2013): phase portrait of one mode",
    inches=(8.2, 5.0),
    settings=lambda job, numbers: {
        "s": S,
        "until": UNTIL[job.full],
        "rtol": RTOL,
        "lr": LR,
        "starts": STARTS.tolist(),
    },
    random=False,
    compute=compute,
    check=check,
    draw=draw,
)
