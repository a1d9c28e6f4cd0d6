from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.collections import PolyCollection  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402

from pydln import plot, propagation  # noqa: E402
from pydln.errors import NotRecorded  # noqa: E402
from pydln.plot import style  # noqa: E402
from pydln.task.task import Task  # noqa: E402
from pydln.trajectory.status import Status  # noqa: E402
from pydln.trajectory.trajectory import Trajectory  # noqa: E402


@pytest.fixture(autouse=True)
def _close() -> Any:
    yield
    plt.close("all")


def made(
    batch: int = 1, modes: int = 3, times: int = 40, *, spread: float = 0.0, own_times: bool = False, **settings: Any
) -> Trajectory:
    """Sigmoidal curves, as a simulation would give; `spread` shifts members."""
    s = np.linspace(6.0, 2.0, modes)
    t = np.linspace(0.0, 8.0, times)
    u0 = 1e-3 * np.exp(spread * np.linspace(-1, 1, batch))[:, None, None]
    u = s / (1 + (s / u0 - 1) * np.exp(-2 * s * t[:, None]))
    loss = 0.5 * ((s - u) ** 2).sum(axis=-1)
    return Trajectory(
        t=np.outer(np.linspace(1.0, 2.0, batch), t) if own_times else t,
        steps=np.arange(times),
        records={"strengths": u, "loss": loss},
        status=np.full(batch, Status.COMPLETED),
        stopped_step=np.full(batch, times - 1),
        stopped_time=np.full(batch, times - 1),
        settings={"normalize": "sum"} | settings,
        source="gradient_descent",
    )


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_strengths_draws_each_mode_in_its_own_colour_with_its_numbers() -> None:
    run = made(modes=3)
    ax = plot.strengths(run)
    assert len(ax.lines) == 3
    for mode, line in enumerate(ax.lines):
        np.testing.assert_array_equal(line.get_xdata(), run.t)
        np.testing.assert_array_equal(line.get_ydata(), run.strengths[0, :, mode])
    assert len({line.get_color() for line in ax.lines}) == 3
    assert legend(ax) == ["$u_{1}$", "$u_{2}$", "$u_{3}$"]
    assert r"\tau" in ax.get_xlabel()


def test_strengths_uses_the_axes_given_and_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("a plot called show()"))
    _, ax = plt.subplots()
    before = plt.get_fignums()
    assert plot.strengths(made(), ax=ax) is ax
    assert plot.overlay(made(), made(), ax=ax) is ax
    assert plot.loss(made(), ax=ax) is ax
    assert plt.get_fignums() == before


def test_modes_are_chosen_by_index_and_counted_from_one() -> None:
    run = made(modes=5)
    ax = plot.strengths(run, modes=[0, -1])
    assert legend(ax) == ["$u_{1}$", "$u_{5}$"]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), run.strengths[0, :, 4])
    assert len(plot.strengths(run, modes=2).lines) == 1


@pytest.mark.parametrize(("total", "drawn"), [(1, 1), (10, 10), (11, 8), (1000, 8)])
def test_without_a_choice_many_modes_are_thinned_but_keep_the_ends(total: int, drawn: int) -> None:
    chosen = style.pick_modes(None, total)
    assert len(chosen) == len(set(chosen)) == drawn
    assert (chosen[0], chosen[-1]) == (0, total - 1)


@pytest.mark.parametrize(
    ("modes", "kind", "message"),
    [
        ([0, 3], ValueError, "modes[1]: expected an integer <= 2, got 3"),
        ([-4], ValueError, "modes[0]: expected an integer >= -3, got -4"),
        ([], ValueError, "modes: expected at least one mode, got none"),
        ([0.5], TypeError, "modes[0]: expected an integer, got 0.5"),
        ("all", TypeError, "modes: expected a sequence of integers, got 'all'"),
    ],
)
def test_wrong_modes_are_refused_before_anything_is_drawn(modes: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        plot.strengths(made(modes=3), modes=modes)
    assert str(caught.value) == message
    assert plt.get_fignums() == []


def test_what_was_not_recorded_cannot_be_drawn() -> None:
    run = made()
    bare = Trajectory(
        t=run.t,
        steps=run.steps,
        records={},
        status=run.status,
        stopped_step=run.stopped_step,
        stopped_time=run.stopped_step,
        source="gradient_descent",
    )
    for draw in (plot.strengths, plot.loss):
        with pytest.raises(NotRecorded, match="record="):
            draw(bare)
    with pytest.raises(NotRecorded, match="test_loss"):
        plot.loss(run, quantity="test_loss")
    assert plt.get_fignums() == []


def test_line_options_override_the_style_and_a_colour_replaces_the_legend() -> None:
    ax = plot.strengths(made(), color="k", linestyle="--")
    assert {line.get_color() for line in ax.lines} == {"k"}
    assert {line.get_linestyle() for line in ax.lines} == {"--"}
    assert ax.get_legend() is None
    assert legend(plot.strengths(made(), color="k", label="theory")) == ["theory"]


def test_few_members_are_lines_many_a_median_with_a_band() -> None:
    assert len(plot.strengths(made(batch=24), modes=0).lines) == 24
    run = made(batch=101, spread=2.0)
    ax = plot.strengths(run, modes=0)
    assert len(ax.lines) == 1
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.median(run.strengths[:, :, 0], axis=0))
    (band,) = [c for c in ax.collections if isinstance(c, PolyCollection)]
    at = 7
    inside = band.get_paths()[0].vertices
    heights = inside[np.isclose(inside[:, 0], run.t[at]), 1]
    np.testing.assert_allclose(
        [heights.min(), heights.max()], np.quantile(run.strengths[:, at, 0], [0.05, 0.95]), rtol=1e-6
    )


def test_a_median_ends_where_fewer_than_half_the_members_are_left() -> None:
    run = made(batch=30)
    loss = np.array(run.loss)
    loss[:16, 20:] = np.nan
    stopped = Trajectory(
        t=run.t,
        steps=run.steps,
        records={"loss": loss},
        status=run.status,
        stopped_step=run.stopped_step,
        stopped_time=run.stopped_step,
        source="gradient_descent",
    )
    (line,) = plot.loss(stopped).lines
    assert np.asarray(line.get_xdata())[-1] == run.t[19]
    assert np.isfinite(line.get_ydata()).all()


def test_members_with_times_of_their_own() -> None:
    few = made(batch=2, own_times=True)
    ax = plot.strengths(few, modes=0)
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), few.t[1])
    many = made(batch=30, own_times=True, times=400)
    (line,) = plot.strengths(many, modes=0).lines
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    expected = np.median([np.interp(x, many.t[i], many.strengths[i, :, 0]) for i in range(30)], axis=0)
    inside = x <= many.t[:, -1].min()
    np.testing.assert_allclose(y[inside], expected[inside], atol=1e-6)


def test_loss_states_its_normalisation() -> None:
    assert "sum over samples" in plot.loss(made()).get_ylabel()
    assert "mean over samples" in plot.loss(made(normalize="mean")).get_ylabel()
    with pytest.raises(ValueError, match="quantity: expected one of 'loss', 'test_loss', got 'strength'"):
        plot.loss(made(), quantity="strength")


@pytest.mark.parametrize("quantity", ["strengths", "loss"])
def test_overlay_puts_black_dashes_on_top(quantity: str) -> None:
    simulation, theory = made(batch=3, modes=2, spread=1.0), made(modes=2, times=15)
    ax = plot.overlay(simulation, theory, quantity=quantity)
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    solid = [line for line in ax.lines if line.get_linestyle() == "-"]
    curves = 2 if quantity == "strengths" else 1
    assert (len(dashed), len(solid)) == (curves, 3 * curves)
    assert {to_rgb(line.get_color()) for line in dashed} == {(0.0, 0.0, 0.0)}
    assert min(line.get_zorder() for line in dashed) > max(line.get_zorder() for line in solid)
    np.testing.assert_array_equal(dashed[0].get_xdata(), theory.t)
    assert legend(ax) == ["simulation", "theory", *(["$u_{1}$", "$u_{2}$"] if quantity == "strengths" else [])]


def test_overlay_of_different_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="theory: expected 2 modes, as in the simulation, got 3"):
        plot.overlay(made(modes=2), made(modes=3))
    assert plt.get_fignums() == []


def test_against_depth() -> None:
    depth, iterations = [2, 4, 9], np.array([8.0, np.nan, 110.0])
    ax = plot.learning_time(
        depth, iterations, theory={"flow": ([2.0, 9.0], [7.0, 108.0]), "limit": ([2, 9], [150, 150])}
    )
    assert legend(ax) == ["simulation", "flow", "limit"]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), iterations)
    assert ax.lines[1].get_linestyle() != ax.lines[2].get_linestyle()
    ax = plot.optimal_rate(depth, [1.0, 0.5, 0.2])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    with pytest.raises(ValueError, match=r"iterations: expected \(3,\), got \(2,\)"):
        plot.learning_time(depth, [1.0, 2.0])
    with pytest.raises(ValueError, match="depth: expected numbers > 0, got 0"):
        plot.optimal_rate([0, 1], [1.0, 2.0])


@pytest.mark.parametrize("count", [1, 2, 6, 7, 32])
def test_colours_are_distinct_and_leave_black_to_theory(count: int) -> None:
    colors = [to_rgb(c) for c in style.mode_colors(count)]
    assert len(set(colors)) == count
    assert min(max(c) for c in colors) > 0.3


def test_without_matplotlib_the_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np, pydln\n"
        "run = pydln.Trajectory(t=[0.0], steps=None, records={'loss': np.ones((1, 1))}, status=[0], "
        "stopped_time=[0], source='exact:test')\n"
        "try: pydln.plot.loss(run)\n"
        "except ImportError as error: print(type(error).__name__, error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "MissingExtra pydln.plot needs matplotlib: pip install 'pydln[plot]'"


def test_importing_plots_does_not_load_matplotlib() -> None:
    script = "import sys, pydln.plot, pydln.reproduce; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_short_names_of_line_options_replace_the_style() -> None:
    for ax in (plot.strengths(made(), lw=3, c="k"), plot.loss(made(), lw=3, c="k")):
        assert {(line.get_linewidth(), line.get_color()) for line in ax.lines} == {(3, "k")}
    assert plot.learning_time([2, 3], [1.0, 2.0], lw=3).lines[0].get_linewidth() == 3


def test_overlay_wants_batches_that_go_together() -> None:
    for one, other in ((3, 3), (1, 3), (3, 1)):
        plot.overlay(made(batch=one), made(batch=other))
    with pytest.raises(ValueError, match=r"^theory: expected 1 or 3 members, as in the simulation, got 2$"):
        plot.overlay(made(batch=3), made(batch=2))


def test_things_that_are_no_trajectory_or_axes() -> None:
    for call in (plot.strengths, plot.loss):
        with pytest.raises(TypeError, match=r"^run: expected a pydln\.Trajectory, got int$"):
            call(3)
        with pytest.raises(TypeError, match=r"^ax: expected matplotlib Axes, got int$"):
            call(made(), ax=3)
    with pytest.raises(TypeError, match=r"^theory: expected a pydln\.Trajectory, got int$"):
        plot.overlay(made(), 3)
    assert plt.get_fignums() == []


# --- propagation and phase portrait ----------------------------------------------------------------------------------


def test_phase_portrait_draws_paths_fixed_points_and_the_flow_along_its_hyperbolas() -> None:
    t = np.linspace(0, 3, 50)
    path = (np.cosh(t) / 10, np.sinh(t) / 10)
    ax = plot.phase_portrait([path], s=2.0, reach=1.5)
    end = 1.5 * np.sqrt(2.0)
    assert ax.get_xlim() == ax.get_ylim() == (-end, end)
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 50]
    assert len(drawn) == 1
    np.testing.assert_array_equal(drawn[0].get_ydata(), path[1])
    on_target = [
        line for line in ax.lines if len(line.get_xdata()) > 50 and np.allclose(line.get_xdata() * line.get_ydata(), 2)
    ]
    assert len(on_target) == 2
    (arrows,) = [c for c in ax.collections if hasattr(c, "U")]
    a, b = arrows.get_offsets().T
    # d(a² - b²)/dt = 0
    np.testing.assert_allclose(a * arrows.U - b * arrows.V, 0, atol=1e-12)
    np.testing.assert_allclose(arrows.U**2 + arrows.V**2, 1)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([3.0], r"paths\[0\]: expected a pair of arrays, a and b"),
        ([([1.0], [1.0, 2.0])], r"paths\[0\]: expected two arrays of one length, got 1 and 2"),
    ],
)
def test_phase_portrait_refuses_what_is_no_path(paths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot.phase_portrait(paths)
    assert plt.get_fignums() == []


def test_length_map_draws_the_map_its_fixed_points_and_a_staircase() -> None:
    ax = plot.length_map("tanh", [1.0, 1.5, 2.0], largest=3.0, start=2.5, steps=3)
    curves = [line for line in ax.lines if len(line.get_xdata()) == 201]
    assert len(curves) == 3
    np.testing.assert_allclose(
        curves[1].get_ydata(), propagation.length_map(curves[1].get_xdata(), "tanh", 1.5), rtol=1e-12
    )
    dots = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots, propagation.fixed_point("tanh", [1.5, 2.0]))
    assert len(ax.lines[-1].get_xdata()) == 7
    assert legend(ax) == ["$q' = q$", r"$\sigma_w$ = 1", r"$\sigma_w$ = 1.5", r"$\sigma_w$ = 2"]
    with pytest.raises(ValueError, match="sigma_w: expected a number or a row of them"):
        plot.length_map("tanh", [[1.0]])


def test_length_map_has_a_dot_at_every_fixed_point() -> None:
    """gelu with small biases: a length near zero that is kept, and one that parts what dies from what explodes."""
    ax = plot.length_map("gelu", [1.5, 1.6], 0.1, largest=6.0)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    where = np.array([line.get_xdata()[0] for line in dots])
    assert len(dots) == 4
    np.testing.assert_allclose(propagation.length_map(where, "gelu", [1.5, 1.5, 1.6, 1.6], 0.1), where, rtol=1e-12)
    np.testing.assert_allclose(where[::2], propagation.fixed_point("gelu", [1.5, 1.6], 0.1, start=1e-6), rtol=1e-9)
    hollow = [line.get_markerfacecolor() == "white" for line in dots]
    assert hollow == [False, True, False, True]
    slopes = propagation.length_slope(where, "gelu", [1.5, 1.5, 1.6, 1.6])
    assert hollow == (slopes > 1).tolist()
    for name, gain in (("linear", 1.0), ("relu", np.sqrt(2))):
        kept = plot.length_map(name, gain)
        assert not [line for line in kept.lines if line.get_marker() == "o"], "every length rests"


def test_jacobian_grid_has_a_panel_for_every_gain_and_length_and_loses_no_value() -> None:
    rng = np.random.default_rng(0)
    values = {"orthogonal": 10.0 ** rng.uniform(-3, 1, (2, 3, 40)), "Gaussian": 10.0 ** rng.uniform(-12, 3, (2, 3, 40))}
    values["Gaussian"][0, 0, :5] = 0.0
    ax = plot.jacobian_grid(values, [0.9, 1.1], [0.1, 1.0, 2.0], decades=(-8, 2))
    assert len(ax.child_axes) == 6
    for panel in ax.child_axes:
        for steps in panel.patches:
            assert steps.get_data().values.sum() == pytest.approx(100)
    first = ax.child_axes[0].patches[1].get_data().values[0]
    assert first == pytest.approx(100 * np.mean(values["Gaussian"][0, 0] < 10.0 ** (-8 + 10 / 56)))
    assert legend(ax) == ["orthogonal", "Gaussian"]


@pytest.mark.parametrize(
    ("values", "decades", "message"),
    [
        ({}, (-8, 2), "singular_values: expected at least one ensemble, got none"),
        ({"a": np.ones((2, 2, 5))}, (-8, 2), r"singular_values\['a'\]: expected \(2, 1, n\), got \(2, 2, 5\)"),
        ({"a": np.ones((2, 1, 5))}, (2, -8), "decades: expected them to ascend"),
    ],
)
def test_jacobian_grid_refuses_what_does_not_fit(values: Any, decades: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot.jacobian_grid(values, [0.9, 1.1], [1.0], decades=decades)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("quantity", ["chi", "q", "c", "xi_q", "xi_c"])
def test_phase_diagram_draws_every_quantity_with_the_edge(quantity: str) -> None:
    phases = propagation.phase_diagram("relu", [0.5, 1.0, 1.4, 1.8], [0.0, 0.5, 1.0])
    ax = plot.phase_diagram(phases, quantity=quantity)
    (mesh,) = [c for c in ax.collections if c.get_array() is not None]
    shown = mesh.get_array()
    expected = np.log2(phases.chi) if quantity == "chi" else getattr(phases, quantity)
    assert shown.shape == (3, 4)
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), ~np.isfinite(expected))
    np.testing.assert_array_equal(shown.compressed(), expected[np.isfinite(expected)])
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), phases.edge)


def test_phase_diagram_needs_a_grid() -> None:
    with pytest.raises(ValueError, match="phases: expected two or more values along each axis"):
        plot.phase_diagram(propagation.phase_diagram("tanh", [1.0], [0.0, 1.0]))
    with pytest.raises(TypeError, match=r"phases: expected a pydln\.propagation\.PhaseDiagram, got int"):
        plot.phase_diagram(3)
    with pytest.raises(ValueError, match="quantity: expected one of"):
        plot.phase_diagram(propagation.phase_diagram("tanh", [1.0, 2.0], [0.0, 1.0]), quantity="xi")


def test_consistency_draws_the_matrix_of_the_condition() -> None:
    sigma_xx = np.diag([3.0, 2.0, 1.0, 0.5])
    task = Task.from_covariances(sigma_xx, np.eye(3, 4) * [[2.0], [1.0], [0.5]], 40.0)
    ax = plot.consistency(task)
    np.testing.assert_allclose(ax.images[0].get_array(), np.diag([3.0, 2.0, 1.0]), atol=1e-14)
    assert ax.images[0].get_extent() == [0.5, 3.5, 3.5, 0.5]
    assert ax.images[0].get_clim() == (-3.0, 3.0)
    assert "mode" in ax.get_xlabel()
    _, mine = plt.subplots()
    assert plot.consistency(task, ax=mine, along="inputs", most=2) is mine
    np.testing.assert_array_equal(mine.images[0].get_array(), np.diag([2.0, 1.0]))
    assert mine.images[0].get_extent() == [1.5, 3.5, 3.5, 1.5]
    assert "input" in mine.get_xlabel()
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"task": 3}, TypeError, r"task: expected a pydln\.Task, got int"),
        ({"task": Task.stack([task, task])}, ValueError, "task: expected a single task, got a batch of 2"),
        ({"along": "x"}, ValueError, "along: expected one of 'modes', 'inputs', got 'x'"),
        ({"most": 0}, ValueError, "most: expected an integer >= 1, got 0"),
    ]
    for changes, error, message in wrong:
        with pytest.raises(error, match=message):
            plot.consistency(**({"task": task} | changes))


def test_spectrum_is_a_density_with_its_law_over_it() -> None:
    from pydln.spectra import FussCatalan, Orthogonal, random_product_spectrum

    logs = random_product_spectrum("gaussian", 30, 2, batch=20).log_singular_values
    ax = plot.spectrum(logs, FussCatalan(2), bins=40)
    heights, edges, _ = ax.patches[0].get_data()
    assert np.sum(heights * np.diff(edges)) == pytest.approx(1)
    (line,) = ax.lines
    x, y = line.get_data()
    assert np.sum(0.5 * (y[1:] + y[:-1]) * np.diff(x)) == pytest.approx(1, abs=0.05)
    assert line.get_label() == "Fuss–Catalan law, M = 2"
    assert "sigma" in ax.get_xlabel()
    ax = plot.spectrum(np.zeros(10), Orthogonal(3))
    assert len(ax.lines) == 1
    with pytest.raises(ValueError, match="log_values: expected at least one finite value"):
        plot.spectrum([-np.inf])


def test_eigenvalues_are_points_in_an_undistorted_plane() -> None:
    z = np.exp(2j * np.pi * np.arange(7) / 7)
    ax = plot.eigenvalues(z, radius=1.0)
    points, circle = ax.lines
    assert np.allclose(points.get_xdata() + 1j * points.get_ydata(), z)
    assert np.allclose(np.hypot(*circle.get_data()), 1)
    assert ax.get_aspect() == 1.0
    ranks = np.tile(np.arange(100.0), 2500)  # sorted spectra, one after the other
    shown = plot.eigenvalues(ranks).lines[0].get_xdata()
    assert len(shown) == 20_000
    assert np.unique(shown).size == 100
    with pytest.raises(ValueError, match="values: expected finite complex numbers"):
        plot.eigenvalues([np.nan])
