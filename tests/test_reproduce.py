from __future__ import annotations

import dataclasses
import html
import json
import math
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import pydln
from pydln import Status, Task, exact, gradient_descent, init
from pydln.analysis import half_times
from pydln.reproduce import FIGURES, Check, Report, catalogue, options, redraw, reproduce, table, takes, title
from pydln.reproduce.mode_descent import mode_descent
from pydln.reproduce.page import write_page
from pydln.reproduce.recipe import Job, Recipe, flag, one_of, rising, whole
from pydln.reproduce.record import Record, Request

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"

SMALL: dict[str, dict[str, Any]] = {
    "fig2": {},
    "fig3": {"starts": 2},
    "fig4": {"layers": (3, 5, 20), "rates": 6},
    "fig5": {"depths": (3, 8), "hidden": 40},
    "fig6a": {"layers": (5, 12, 30), "rates": 6, "hidden": 40},
    "fig6b": {"size": 40, "realisations": 40},
    "fig6c": {"size": 40, "realisations": 40},
    "fig7": {"width": 100},
    "fig8": {"width": 100},
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Report, list[tuple[int, int, str]]]]:
    made = {}
    for name in FIGURES:
        calls: list[tuple[int, int, str]] = []
        out = tmp_path_factory.mktemp("figures") / "new" / name
        made[name] = (reproduce(name, out, progress=lambda *a, c=calls: c.append(a), **SMALL.get(name, {})), calls)
    return made


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_writes_its_files_and_passes_its_own_checks(name: str, reports: Any) -> None:
    report, calls = reports[name]
    assert report.passed, report.table()
    assert [file.name for file in report.files] == [f"{name}.{kind}" for kind in ("png", "svg", "npz", "md")]
    assert report.files[0].read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in report.files[1].read_text()[:600]
    with np.load(report.files[2], allow_pickle=False) as numbers:
        assert all(numbers[key].size for key in numbers.files)
    assert title(name) in report.files[3].read_text()
    record = json.loads(report.files[0].with_suffix(".json").read_text())
    assert record["passed"] is True
    assert [check["name"] for check in record["checks"]] == [check.name for check in report.checks]
    assert sum(check.passed is not None for check in report.checks) > len(report.checks) / 2
    done, total = [c[0] for c in calls], calls[-1][1]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_what_the_paper_leaves_unsaid(name: str) -> None:
    about = catalogue.about(name)
    assert "The paper gives" in about
    assert "leaves unsaid" in about


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_again_from_its_numbers_alone(
    name: str, reports: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes, and nothing is computed for them."""
    files = reports[name][0].files
    (tmp_path / "in").mkdir()
    shutil.copy(files[2], tmp_path / "in")
    recipe = catalogue.recipe(name)
    monkeypatch.setattr(catalogue, "recipe", lambda _: dataclasses.replace(recipe, compute=refuse, check=refuse))
    made = redraw(tmp_path / "in", format=("png", "svg"), out=tmp_path / "new" / "out")
    assert [path.relative_to(tmp_path).as_posix() for path in made] == [f"new/out/{name}.{k}" for k in ("png", "svg")]
    for path, former in zip(made, files[:2], strict=True):
        assert path.read_bytes() == former.read_bytes(), path.name
    assert [path.name for path in (tmp_path / "in").iterdir()] == [f"{name}.npz"]


def refuse(*_: object, **__: object) -> Any:
    raise AssertionError("nothing is to be computed")


STYLE = """
figure.figsize: 8, 4   # inches
savefig.dpi: 50
font.family: serif
interactive: True
backend: tkagg
"""


def test_redraw_follows_a_style(reports: Any, tmp_path: Path) -> None:
    import matplotlib
    from matplotlib.image import imread

    for name in ("fig2", "fig8"):
        shutil.copy(reports[name][0].files[2], tmp_path)
    (tmp_path / "paper.mplstyle").write_text(STYLE)
    before = dict(matplotlib.rcParams)
    made = redraw(tmp_path, style=tmp_path / "paper.mplstyle", format=["png", "pdf", "png"])
    assert dict(matplotlib.rcParams) == before
    assert [path.name for path in made] == ["fig2.png", "fig2.pdf", "fig8.png", "fig8.pdf"]
    assert imread(made[0]).shape[:2] == (200, 400)
    assert made[1].read_bytes()[:5] == b"%PDF-"
    assert [path.name for path in redraw(tmp_path, figures="fig8", format="svg")] == ["fig8.svg"]
    plain = [path.read_bytes() for path in redraw(tmp_path)]
    assert plain == [path.read_bytes() for path in redraw(tmp_path)], "the same numbers make the same file"
    assert plain != [path.read_bytes() for path in redraw(tmp_path, style="ggplot")]


def test_redraw_shows_nothing(reports: Any, tmp_path: Path) -> None:
    shutil.copy(reports["fig2"][0].files[2], tmp_path)
    code = f"import sys, pydln; pydln.reproduce.redraw({str(tmp_path)!r}); sys.exit('matplotlib.pyplot' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", f"import pydln.reproduce; {code}"], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert (tmp_path / "fig2.pdf").is_file()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"format": "gif"},
            "format: expected one of 'png', 'pdf', 'svg', 'eps', 'ps', 'jpg', 'tiff', 'webp', got 'gif'",
        ),
        ({"format": ()}, "format: expected at least one kind of file, got none"),
        ({"style": "absent.mplstyle"}, "style: expected a matplotlib style sheet, there is no file absent.mplstyle"),
        ({"style": "no colon"}, "Missing colon in file"),
        ({"style": "font.siez: 8"}, "Bad key font.siez in file"),
        ({"style": "font.size: large one"}, "Could not convert 'large one' to float"),
        ({"style": "\x80"}, "is no matplotlib style sheet: 'utf-8' codec can't decode"),
        ({"out": "fig2.npz"}, "out: expected a directory, got the file fig2.npz"),
        ({"figures": "fig0"}, "figures: expected one of 'fig2', 'fig3'"),
        ({"figures": ["fig2", "fig7"]}, "holds no numbers of fig7"),
        ({"dir": "absent"}, "dir: expected a folder that pydln reproduce wrote, there is no folder absent"),
        ({"dir": "empty"}, "dir: expected a folder that pydln reproduce wrote, empty holds no numbers of a figure"),
    ],
)
def test_redraw_refuses(
    given: dict[str, Any], message: str, reports: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(reports["fig2"][0].files[2], tmp_path)
    (tmp_path / "empty").mkdir()
    if "style" in given and not given["style"].endswith("mplstyle"):
        (tmp_path / "given.mplstyle").write_bytes(given["style"].encode("latin-1"))
        given = {"style": "given.mplstyle"}
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        redraw(**{"dir": tmp_path, **given})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.pdf"))


def test_redraw_needs_all_the_numbers_of_this_version(reports: Any, tmp_path: Path) -> None:
    file = tmp_path / "fig2.npz"
    with np.load(reports["fig2"][0].files[2]) as kept:
        numbers = dict(kept)
    shutil.copy(reports["fig7"][0].files[2], tmp_path)

    def refused(message: str) -> None:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            redraw(tmp_path)
        assert str(caught.value) == f"{file}: {message}: make the figure again"
        assert not list(tmp_path.glob("*.pdf")), "all or nothing"

    np.savez(file, **{key: value for key, value in numbers.items() if key != "exact"})
    refused("the array exact is missing")
    np.savez(file, **numbers | {"pydln": np.asarray("0.0.1")})
    refused(f"expected numbers of pydln {pydln.__version__}, got those of 0.0.1")
    np.savez(file, **{key: value for key, value in numbers.items() if key != "pydln"})
    refused("does not say which version of pydln wrote it")
    np.savez(file, **numbers | {"exact": np.array([None])})
    refused("cannot be read as the numbers of a figure")
    whole = reports["fig2"][0].files[2].read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:500] + bytes(40) + whole[540:]):
        file.write_bytes(content)
        refused("cannot be read as the numbers of a figure")


def test_what_matplotlib_cannot_draw_is_a_sentence(
    reports: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(figure: object, numbers: object) -> None:
        raise RuntimeError("no latex\n  here")

    shutil.copy(reports["fig2"][0].files[2], tmp_path)
    recipe = catalogue.recipe("fig2")
    monkeypatch.setattr(catalogue, "recipe", lambda _: dataclasses.replace(recipe, draw=fail))
    with pytest.raises(ValueError, match=r"^fig2 cannot be drawn: no latex here$"):
        redraw(tmp_path)
    monkeypatch.undo()
    (tmp_path / "small.mplstyle").write_text("figure.figsize: 1, 0.5")
    with pytest.raises(ValueError, match=r"^fig2 cannot be drawn: constrained_layout not applied"):
        redraw(tmp_path, style=tmp_path / "small.mplstyle")
    assert not list(tmp_path.glob("*.pdf"))


def test_a_recipe_needs_no_more_than_three_functions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []

    def compute(job: Job, *, count: int) -> dict[str, Any]:
        seen.append(job)
        return {"x": np.full(count, 1 / 3), "y": [1 / 3]}

    recipe = Recipe(
        title="A title",
        inches=(1.0, 1.0),
        options={"count": whole("How many", 2, 5, at_least=1)},
        single=["x"],
        compute=compute,
        check=lambda numbers: [Check.compare("x", theory=1 / 3, measured=numbers["x"][0], tolerance=0.0)],
        draw=lambda figure, numbers: seen.append(numbers),
    )
    monkeypatch.setattr(catalogue, "recipe", lambda name: recipe)
    calls: list[Any] = []
    report = reproduce("fig2", tmp_path, full=True, seed=3, progress=lambda *call: calls.append(call), count=None)
    job, drawn = seen
    assert (job.full, job.seed, dict(job.own)) == (True, 3, {"count": 5})
    assert report.passed, "the checks see what was computed"
    assert report.settings == {"full": True, "seed": 3, "count": 5}
    assert calls == [(0, 1, "done"), (1, 1, "done")]
    with np.load(report.files[2]) as kept:
        assert kept["x"].dtype == drawn["x"].dtype == np.float32
        assert kept["y"].dtype == np.float64
        assert set(kept) == {"x", "y", "pydln"}


@pytest.mark.skipif(not CONTRIBUTING.is_file(), reason="needs the source tree")
def test_the_figure_of_the_instructions_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", CONTRIBUTING.read_text(), re.MULTILINE | re.DOTALL)
    module: dict[str, Any] = {}
    exec(code, module)
    monkeypatch.setattr(catalogue, "recipe", lambda name: module["RECIPE"])
    report = reproduce("fig2", tmp_path)
    assert report.passed, report.table()
    assert redraw(tmp_path, format="png", out=tmp_path / "again")[0].read_bytes() == report.files[0].read_bytes()


def test_options_say_what_they_mean_and_check_what_they_get() -> None:
    assert takes("fig4") == tuple(options("fig4")) == ("inputs", "layers", "rates")
    assert options("fig7") == {"width": "Units per layer, in the paper 1000; 200, with full 1000"}
    assert options("fig2") == {}
    assert whole("w", 3, at_least=1).value(None, "n", True) == 3
    assert one_of("o", "a", "b").value(None, "n", False) == "a"
    assert rising("r", (1, 2), (1, 2, 3), at_least=1).value(np.array([4, 7]), "n", False) == (4, 7)
    assert flag("f", True).value(np.False_, "n", False) is False
    with pytest.raises(TypeError, match="n: expected a sequence of integers, got 3"):
        rising("r", (1, 2), (1, 2, 3), at_least=1).value(3, "n", False)


def test_figures_are_found_in_the_order_of_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those of another paper after them, by its name."""
    for file in ("zeno1/fig10.py", "zeno1/fig9b.py", "zeno1/_shared.py", "zeno1/fig9.py", "zeno1/__init__.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    monkeypatch.setattr(pydln.reproduce, "__path__", [*pydln.reproduce.__path__, str(tmp_path)])
    assert tuple(catalogue._modules()) == (*FIGURES, "zeno1-fig9", "zeno1-fig9b", "zeno1-fig10")
    sys.modules.pop("pydln.reproduce.zeno1")


def test_a_finished_figure_is_kept_while_the_request_is_the_same(tmp_path: Path) -> None:
    first = reproduce("fig2", tmp_path, keep=True)
    calls: list[Any] = []

    def seen(*call: Any) -> None:
        calls.append(call)

    (tmp_path / "index.html").unlink()
    assert reproduce("fig2", tmp_path, keep=True, progress=seen) == first
    assert not calls
    assert (tmp_path / "index.html").is_file()
    reproduce("fig2", tmp_path, keep=True, seed=1, progress=seen)
    assert calls
    for file in ("fig2.svg", "fig2.json"):
        calls.clear()
        (tmp_path / file).unlink()
        reproduce("fig2", tmp_path, keep=True, seed=1, progress=seen)
        assert calls, file


def test_the_page_shows_what_is_finished(reports: Any, tmp_path: Path) -> None:
    for name in ("fig3", "fig4"):
        for file in reports[name][0].files[0].parent.iterdir():
            shutil.copy(file, tmp_path)
    (tmp_path / "fig3.npz").unlink()
    page = write_page(tmp_path, FIGURES).read_text()
    for link in re.findall(r'(?:href|src)="([^#:"]+)"', page):
        assert (tmp_path / link).is_file()
    assert all(html.escape(check.name) in page for check in reports["fig4"][0].checks)
    assert "pydln.reproduce.reproduce(&#x27;fig4&#x27;" in page
    assert pydln.__version__ in page
    assert 'id="fig3"' not in page, "a figure without its numbers is not finished"


@pytest.mark.parametrize(
    ("request_", "command"),
    [
        (Request("fig4", False, 0, {}, "1"), "pydln reproduce fig4"),
        (Request("fig4", True, 3, {"inputs": "raw"}, "1"), "pydln reproduce fig4 --full --seed 3 --inputs raw"),
        (Request("fig3", False, 0, {"starts": 4}, "1"), "pydln.reproduce.reproduce('fig3', 'out', starts=4)"),
    ],
)
def test_the_command_of_a_request(request_: Request, command: str) -> None:
    assert request_.command() == command


def test_a_record_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert Record.load(tmp_path, "fig3") is None
    (tmp_path / "fig3.json").write_text("{")
    assert Record.load(tmp_path, "fig3") is None


def test_fig3_half_times_from_aligned_starts_lie_within_one_percent_of_theory(reports: Any) -> None:
    with np.load(reports["fig3"][0].files[2]) as numbers:
        modes = np.array([1, 2, 3, 5, 12, 18, 31]) - 1
        theory = np.log(numbers["s"] / 1e-6 - 1) / (2 * numbers["s"])
        np.testing.assert_allclose(numbers["half_time_theory"], theory, rtol=1e-9)
        np.testing.assert_allclose(numbers["half_time_aligned"][modes], theory[modes], rtol=0.01)
        # The paper's own step size would miss this bar for its first modes, by eta s/2 and a little less.
        late = numbers["half_time_aligned_paper_lr"] / theory - 1
        assert 0.8 < late[0] / (0.5e-3 * numbers["s"][0] / 2) < 1
        assert late[0] > 0.01


def test_fig4_learning_time_and_rate_against_depth(reports: Any) -> None:
    with np.load(reports["fig4"][0].files[2]) as numbers:
        depth, time, rate = numbers["depth"], numbers["learning_time"], numbers["fastest_rate"]
        np.testing.assert_array_equal(depth, [2, 4, 19])
        assert (np.diff(time) > 0).all()
        np.testing.assert_allclose(time, numbers["learning_time_theory"], rtol=0.05, atol=3)
        np.testing.assert_allclose(rate, numbers["stability_limit"], rtol=0.3)
        assert numbers["loss_5_layers"][0] > numbers["loss_5_layers"][-1]
        assert np.isnan(numbers["iterations"]).any(), "no rate of the grid was too large: the fastest may lie outside"


def test_fig2_trajectories_end_on_the_hyperbola_they_start_on(reports: Any) -> None:
    with np.load(reports["fig2"][0].files[2]) as numbers:
        for key in ("exact", "gradient_flow"):
            a, b = numbers[key][..., 0], numbers[key][..., 1]
            np.testing.assert_allclose(a**2 - b**2, (a**2 - b**2)[:, :1] * np.ones(a.shape[1]), atol=1e-9)
            np.testing.assert_allclose((a * b)[:2, -1], 1.0, atol=1e-7)
            assert abs(a[2, -1]) < 1e-6, "the stable manifold ends at the saddle"


def test_fig7_only_orthogonal_weights_near_the_critical_gain_keep_singular_values_near_one(reports: Any) -> None:
    with np.load(reports["fig7"][0].files[2]) as numbers:
        logs = {kind: np.log10(numbers[kind]) for kind in ("orthogonal", "gaussian")}
        spread = {kind: np.subtract(*np.quantile(one, [0.9, 0.1], axis=2)) for kind, one in logs.items()}
        assert (spread["gaussian"] > 3 * spread["orthogonal"]).all()
        middle = np.median(logs["orthogonal"][:, 0], axis=1)
        np.testing.assert_array_equal(np.abs(middle) < 1, np.abs(numbers["g"] - 1.05) < 0.06)
        rising = np.diff(numbers["mean_square_theory"], axis=0)
        assert (rising > 0).all()


def test_fig8_networks_lie_on_the_map(reports: Any) -> None:
    with np.load(reports["fig8"][0].files[2]) as numbers:
        g, ends = numbers["g"], numbers["q_network"][..., -1].mean(axis=1)
        assert ends.shape == (2, len(g))
        np.testing.assert_allclose(ends[1], numbers["q_map"][:, -1], rtol=0.12)
        assert (numbers["q_fixed_point"] == 0).tolist() == (g <= 1).tolist()
        settled = np.abs(g - 1) > 0.25
        np.testing.assert_allclose(numbers["q_map"][settled, -1], numbers["q_fixed_point"][settled], atol=1e-5)


def test_fig5_pretraining_is_counted_and_the_modes_are_those_of_the_inputs(reports: Any) -> None:
    with np.load(reports["fig5"][0].files[2]) as numbers:
        assert numbers["score"] > numbers["scores_of_random_bases"].max()
        spent = numbers["steps_of_each_layer"].sum()
        assert numbers["steps_pretrained"][0] == spent > 0
        np.testing.assert_array_less(numbers["autoencoder_floors"], numbers["autoencoder_losses"])
        late = np.interp(2 * spent, numbers["steps_random"], numbers["loss_random"])
        assert np.interp(2 * spent, numbers["steps_pretrained"], numbers["loss_pretrained"]) < 0.75 * late
        long = numbers["iterations_after_pretraining_to_the_end"]
        assert np.ptp(long) < 0.15 * long.mean()


def test_fig6a_only_glorot_takes_longer_with_depth(reports: Any) -> None:
    with np.load(reports["fig6a"][0].files[2]) as numbers:
        np.testing.assert_array_equal(numbers["depth"], [4, 11, 29])
        time = {name: numbers[f"learning_time_{name}"] for name in ("glorot", "pretraining", "orthogonal")}
        assert time["glorot"][-1] > 5 * time["glorot"][0]
        for name in ("pretraining", "orthogonal"):
            assert time[name][-1] < 3 * time[name][0]
            assert time[name][-1] < 0.5 * time["glorot"][-1]
        np.testing.assert_allclose(np.abs(numbers["eigenvalues"]), 1.0, atol=1e-12)
        assert np.nanmin(numbers["iterations_glorot_12_layers"]) == time["glorot"][1]


def test_fig6a_how_many_networks_run_at_a_time_is_of_no_account(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pydln.reproduce.saxe2013 import fig6a

    found = []
    for at_once in (1, 4):
        monkeypatch.setattr(fig6a, "AT_ONCE", 1.0 if at_once == 1 else 1e9)
        report = reproduce("fig6a", tmp_path / str(at_once), layers=(5, 12), rates=12, hidden=40)
        with np.load(report.files[2]) as numbers:
            found.append(dict(numbers))
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)


def test_fig6a_a_rate_that_learns_by_chance_ends_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen at 100 layers of width 1000: the only rate far beyond stability that learned was taken for the fastest."""
    from types import SimpleNamespace

    from pydln.reproduce.saxe2013 import fig6a

    problem = object.__new__(fig6a._Problem)
    problem.task, problem.level, problem.largest, problem.n_threads = None, 0.25, 1.0, 1  # type: ignore[assignment]
    monkeypatch.setattr(problem, "start", lambda name, depth: SimpleNamespace(layers=[np.zeros((1, 1, 1))] * depth))

    def descend(task: object, weights: object, *, lr: Any, steps: int, **_: object) -> Any:
        """exp(-lr t) below lr = 3, noise above but for one rate, which has learned at step 26."""
        loss = np.exp(-np.outer(lr, np.arange(steps + 1)) / 3)
        for i, rate in enumerate(lr):
            if rate > 3:
                loss[i] = 1 + np.arange(steps + 1) % 2
                if 15 < rate < 25:
                    loss[i, 26:] = 0.2
        reached = (loss < 0.25).any(axis=1)
        stopped = np.where(reached, (loss < 0.25).argmax(axis=1), steps)
        status = [Status.REACHED_LOSS if yes else Status.COMPLETED for yes in reached]
        return SimpleNamespace(loss=loss, stopped_step=stopped, status=np.array(status))

    monkeypatch.setattr(fig6a, "AT_ONCE", 1.0)
    monkeypatch.setattr(fig6a, "gradient_descent", descend)
    found = problem.search("orthogonal", 1, 12)
    assert found.fastest == 2
    assert 2 < found.rate <= 3


def test_fig6a_says_so_when_no_rate_learns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pydln.reproduce.saxe2013 import fig6a

    monkeypatch.setattr(fig6a, "MOST", 3)
    report = reproduce("fig6a", tmp_path, layers=(4, 5), rates=4, hidden=20)
    rows = {check.name: check for check in report.checks}
    assert rows["learning time, Glorot, of the deepest (iterations)"].measured is None
    assert "at no rate within 3" in rows["learning time, Glorot, of the deepest (iterations)"].note
    assert rows["learning time against depth, Glorot"].note == "learned at fewer than two depths"


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_mode_descent_is_gradient_descent_of_an_aligned_network(depth: int) -> None:
    task = Task.from_spectrum([2.0, 1.0, 0.5], n_in=6, n_out=5, seed=1)
    run = gradient_descent(task, init.aligned(task, depth=depth, strength=0.01), lr=0.1, steps=300, record_every=1)
    modes = mode_descent(0.01, task.modes.s, depth=depth, lr=0.1, steps=300)
    np.testing.assert_allclose(modes.strengths, run.strengths, atol=1e-10)
    np.testing.assert_allclose(modes.loss, run.loss, atol=1e-10)
    np.testing.assert_allclose(modes.t, run.t)


def test_mode_descent_becomes_the_exact_solution_at_first_order() -> None:
    s = np.array([2.0, 1.0])
    theory = exact.time_to_reach(0.01, s / 2, s, depth=3)
    errors = []
    for lr in (0.02, 0.01):
        run = mode_descent(0.01, s, depth=3, lr=lr, steps=math.ceil(1.5 * theory.max() / lr))
        errors.append(float(np.abs(half_times(run, s) - theory).max()))
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.15)


def test_checks_pass_within_the_tolerance_only() -> None:
    assert Check.compare("a", theory=2.0, measured=2.02, tolerance=0.0101).passed
    assert not Check.compare("a", theory=2.0, measured=2.03, tolerance=0.01).passed
    assert Check.compare("a", theory=0.0, measured=1e-12, tolerance=1e-9, relative=False).passed
    assert Check.compare("a", theory=2.0, measured=1.0, tolerance=1.0, relative=False).difference == -1.0
    assert not Check.compare("a", theory=1.0, measured=float("nan"), tolerance=1e9).passed
    assert Check.show("a", measured=3.0, theory=2.0).passed is None


def test_a_figure_with_a_failed_check_does_not_pass() -> None:
    good = Check.compare("a", theory=1.0, measured=1.0, tolerance=0.1)
    bad = Check.compare("b", theory=1.0, measured=2.0, tolerance=0.1)
    assert Report("x", "X", (good, Check.show("c")), (), {}).passed
    failed = Report("x", "X", (good, bad), (), {})
    assert not failed.passed
    assert "FAIL" in failed.table()


def test_the_table_stays_a_table_whatever_the_text() -> None:
    text = table(
        [Check.show("a|b", note="two\n  lines"), Check.compare("c", theory=1.0, measured=math.nan, tolerance=0)]
    )
    lines = text.splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert "two lines" in lines[2]
    assert r"a\|b" in lines[2]


def test_json_has_no_nan() -> None:
    row = Check.compare("a", theory=1.0, measured=math.nan, tolerance=0.1).as_json()
    assert row["measured"] is None
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        ("fig0", {}, ValueError, f"name: expected one of {', '.join(map(repr, FIGURES))}, got 'fig0'"),
        ("fig3", {"starts": 1}, ValueError, "starts: expected an integer >= 2, got 1"),
        ("fig3", {"seed": -1}, ValueError, "seed: expected an integer >= 0, got -1"),
        ("fig4", {"inputs": "white"}, ValueError, "inputs: expected one of 'whitened', 'raw', got 'white'"),
        ("fig4", {"layers": [5]}, ValueError, "layers: expected two or more increasing numbers, got [5]"),
        ("fig4", {"layers": [5, 3]}, ValueError, "layers: expected two or more increasing numbers, got [5, 3]"),
        ("fig4", {"layers": [3, 2]}, ValueError, "layers[1]: expected an integer >= 3, got 2"),
        ("fig7", {"width": 19}, ValueError, "width: expected an integer >= 20, got 19"),
        ("fig8", {"width": 2.5}, TypeError, "width: expected an integer, got 2.5"),
        ("fig4", {"rates": 3}, ValueError, "rates: expected an integer >= 4, got 3"),
        ("fig5", {"center": 1}, TypeError, "center: expected True or False, got 1"),
        ("fig5", {"depths": [3]}, ValueError, "depths: expected two or more increasing numbers, got [3]"),
        ("fig5", {"depths": [1, 3]}, ValueError, "depths[0]: expected an integer >= 2, got 1"),
        ("fig5", {"hidden": 9}, ValueError, "hidden: expected an integer >= 10, got 9"),
        ("fig6a", {"layers": [5, 5]}, ValueError, "layers: expected two or more increasing numbers, got [5, 5]"),
        ("fig6a", {"layers": [2, 5]}, ValueError, "layers[0]: expected an integer >= 3, got 2"),
        ("fig6a", {"rates": 3}, ValueError, "rates: expected an integer >= 4, got 3"),
        ("fig6a", {"hidden": 9}, ValueError, "hidden: expected an integer >= 10, got 9"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    tmp_path: Path, name: str, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        reproduce(name, tmp_path / "out", **options)
    assert str(caught.value) == message
    assert not (tmp_path / "out").exists()


def test_out_dir_must_not_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="out_dir: expected a directory, got the file"):
        reproduce("fig3", file)


AT_ONCE = """
import os, signal, sys, time
from pydln.reproduce import catalogue, runner
from pydln.reproduce.checks import Check
from pydln.reproduce.recipe import Recipe

def compute(job):
    time.sleep(0.2)
    return {"seed": job.seed}

recipe = Recipe(
    title="A title",
    inches=(1, 1),
    compute=compute,
    check=lambda numbers: [Check.show("seed", measured=float(numbers["seed"]))],
    draw=lambda figure, numbers: None,
)
catalogue.recipe = lambda name: recipe
catalogue.about = lambda name: "About."
real, written = os.replace, 0
def replace(*paths):
    global written
    written += 1
    if written == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(*paths)
os.replace = replace
runner.reproduce(sys.argv[1], sys.argv[2], seed=int(sys.argv[3]))
"""


def started(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", AT_ONCE, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> int:
    _, err = process.communicate(timeout=240)
    assert not err, err
    return process.returncode


def test_several_runs_into_one_directory_at_once(tmp_path: Path) -> None:
    """Different figures and the same one: every file is of the run that its record names, and the page has all."""
    runs = [("fig2", 1), ("fig3", 2), ("fig2", 3), ("fig3", 4), ("fig4", 5)]
    processes = [started(name, tmp_path / "out", seed, 0) for name, seed in runs]
    assert [ended(process) for process in processes] == [0] * len(runs)
    page = (tmp_path / "out" / "index.html").read_text()
    for name in ("fig2", "fig3", "fig4"):
        record = Record.load(tmp_path / "out", name)
        assert record is not None
        with np.load(tmp_path / "out" / f"{name}.npz") as numbers:
            assert numbers["seed"] == record.request.seed
        assert f"- seed: {record.request.seed}" in (tmp_path / "out" / f"{name}.md").read_text()
        assert f"--seed {record.request.seed}" in page
    kinds = {path.name.partition(".")[2] for path in (tmp_path / "out").iterdir()}
    assert kinds == {"png", "svg", "npz", "md", "json", "html"}


@pytest.mark.parametrize("writes", [2, 5, 6])
def test_a_killed_run_leaves_no_record_of_files_that_are_not_its_own(tmp_path: Path, writes: int) -> None:
    assert ended(started("fig2", tmp_path, 1, 0)) == 0
    assert ended(started("fig2", tmp_path, 2, writes)) == -signal.SIGKILL
    record = Record.load(tmp_path, "fig2")
    if record is not None:  # killed while the page was written
        with np.load(tmp_path / "fig2.npz") as numbers:
            assert numbers["seed"] == record.request.seed == 2
    assert (record is None) == (writes < 6)
    assert any(path.suffix == ".tmp" for path in tmp_path.iterdir())
    assert ended(started("fig2", tmp_path, 2, 0)) == 0
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".tmp", ".lock")]
