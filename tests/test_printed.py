"""The numbers that the shell and `summary` print are those of the files and arrays; what a run file names is hashed."""

from __future__ import annotations

import csv
import html
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from ensembles import some_task, starts

import pydln as dln
from pydln._base import backend
from pydln.sweep import read_run_file, run_sweep
from pydln.sweep import run as run_module
from pydln.sweep.schema import RUN, STARTS, TASKS

RUN_FILE = """\
[task]
kind = "teacher"
s = [2.0, 1.0]
n_in = 5
n_out = 4
noise = 0.3
samples = 40

[start]
kind = "aligned"

[grid]
depth = [1, 2, 3]
width = 4
strength = [0.01, 0.1, 0.5]
lr = [0.02, 0.05, 1e9]
seeds = 2

[run]
steps = 60
record = ["loss", "test_loss", "strengths"]
theory = true
"""
WHITENED = RUN_FILE.replace('"teacher"', '"spectrum"').replace("noise = 0.3\nsamples = 40\n", "")
WHITENED = WHITENED.replace('["loss", "test_loss", "strengths"]', '["loss", "strengths"]')
STOPPED = WHITENED.replace("theory = true", "stop = { loss = 1.5 }")


def shown(value: float, digits: int = 5) -> str:
    return f"{value:.{digits}g}"


def lines_of(printed: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines() if line.strip()]


# ---- pydln run -----------------------------------------------------------------------------------------------------


def call(*arguments: object) -> str:
    testing = pytest.importorskip("typer.testing")
    from pydln.cli import app

    result = testing.CliRunner().invoke(app, [str(one) for one in arguments], prog_name="pydln")
    assert result.exit_code == 0, result.output
    return str(result.stdout)


@pytest.mark.parametrize("text", [RUN_FILE, WHITENED, STOPPED], ids=["general", "whitened", "stopped"])
def test_the_table_of_a_sweep_is_that_of_its_files(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell, the CSV and the index against what is recomputed from the trajectories, by the reference."""
    monkeypatch.setattr(run_module, "quick_look", lambda *_: False)
    (tmp_path / "sweep.toml").write_text(text)
    printed = lines_of(call("run", tmp_path / "sweep.toml", "--out", tmp_path / "results"))
    file = read_run_file(tmp_path / "sweep.toml")
    task = file.task
    with (tmp_path / "results" / "sweep.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    _, *lines = (tmp_path / "results" / "sweep.json").read_text().splitlines()
    index = {(part := json.loads(line))["part"]: part for line in lines}
    parts = {stem: [row for row in rows if row["part"] == stem] for stem in dict.fromkeys(row["part"] for row in rows)}
    assert len(parts) == 3
    grid = [{"lr": lr, "strength": u, "seed": k} for lr in file.grid.lr for u in file.grid.size for k in (0, 1)]
    for stem, mine in parts.items():
        run = dln.Trajectory.load(tmp_path / "results" / f"{stem}.npz")
        assert run.batch == len(mine) == len(grid)
        theory = tmp_path / "results" / f"{stem}.theory.npz"
        exact = dln.Trajectory.load(theory) if theory.exists() else None
        losses, gaps = [], []
        for i, (row, place, kept) in enumerate(zip(mine, grid, index[stem]["rows"], strict=True)):
            assert (row["member"], row["file"]) == (str(i), f"{stem}.npz")
            assert row["depth"] == str(run.settings["depth"])
            assert row["width"] == (str(run.settings["widths"][1]) if run.settings["depth"] > 1 else "")
            assert {name: float(row[name]) for name in place} == place
            assert run.settings["lr"][i] == place["lr"]
            assert row["status"] == dln.Status(int(run.status[i])).name.lower()
            assert row["stopped_step"] == str(run.stopped_step[i])
            layers = [w[i] for w in run.final.layers]
            for name, one in (("loss", task), ("test_loss", task.test)):
                with np.errstate(all="ignore"):
                    known = one is not None and np.isfinite(reference.product(layers)).all()
                    wanted = reference.loss(layers, one.sigma_xx, one.sigma_yx, one.trace_yy) if known else math.inf
                if not math.isfinite(wanted):
                    assert row[name] == "", (stem, i)
                    continue
                assert float(row[name]) == pytest.approx(wanted, rel=1e-9), (stem, i)
                if name == "loss":
                    losses.append((float(row[name]), place["lr"]))
            if exact is not None:
                off = np.abs(run.strengths[i] - exact.strengths[i]) / task.modes.s.max()
                gap = off[run.t[i] <= run.stopped_time[i] if run.t.ndim == 2 else run.t <= run.stopped_time[i]].max()
                gap = math.inf if run.status[i] == dln.Status.DIVERGED else gap
                assert float(row["theory_gap"]) == pytest.approx(gap, rel=1e-12)
                assert row["theory"] == exact.source
                gaps.append(gap)
            for name, value in kept.items():
                assert row[name] == ("" if value is None else str(value))
        (line,) = [one for one in printed if one[0] == stem]
        counts = Counter(row["status"].replace("_", " ") for row in mine)
        ends = ", ".join(f"{n} {status}" for status, n in counts.items())
        best = min(losses)
        assert line[1:5] == [str(len(mine)), ends, shown(best[0]), shown(best[1])]
        if exact is not None:
            assert line[5:] == [exact.source.removeprefix("exact:"), shown(max(gaps), 2)]
    assert any("diverged" in row["status"] for row in rows)


# ---- what makes a part run again -------------------------------------------------------------------------------------

BASE = """\
[task]
{task}

[start]
{start}

[grid]
depth = 2
width = 3
lr = [0.01, 0.02]
scale = [0.1, 0.5]
seeds = 2

[run]
steps = 5
"""


def arrays_of(kind: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    if kind == "data":
        return {"X": x, "Y": y, "X_test": x + 0.1, "Y_test": y}
    if kind == "covariances":
        return {"sigma_xx": x.T @ x / 9, "sigma_yx": y.T @ x / 9, "trace_yy": np.array(9.0)}
    return {"product": 0.1 * y.T @ x}


FILES = [*(("task", kind) for kind, s in TASKS.items() if "path" in s.checks)]
FILES += [("start", kind) for kind, s in STARTS.items() if "path" in s.checks]


def test_every_table_that_names_a_file_is_looked_at() -> None:
    assert FILES == [("task", "data"), ("task", "covariances"), ("start", "balanced")]
    assert "path" not in RUN.checks


@pytest.mark.parametrize(("table", "kind"), FILES)
def test_a_changed_file_runs_its_parts_again(table, kind, tmp_path, monkeypatch) -> None:
    """Any array of any file that a run file names; the same numbers written again, or other times, change nothing."""
    monkeypatch.setattr(run_module, "quick_look", lambda *_: False)
    task = (
        f'kind = "{kind}"\npath = "given.npz"'
        if table == "task"
        else ('kind = "spectrum"\ns = [1.0]\nn_in = 3\nn_out = 2')
    )
    start = f'kind = "{kind}"\npath = "given.npz"' if table == "start" else 'kind = "gaussian"'
    (tmp_path / "sweep.toml").write_text(BASE.format(task=task, start=start))

    def run(arrays: dict[str, np.ndarray]) -> int:
        np.savez(tmp_path / "given.npz", **arrays)
        return run_sweep(read_run_file(tmp_path / "sweep.toml"), out=tmp_path / "results").skipped

    given = arrays_of(kind)
    assert run(given) == 0
    assert run(given) == 1
    for name in given:
        changed = dict(given)
        changed[name] = given[name] + np.where(np.arange(given[name].size) == 0, 1e-9, 0.0).reshape(given[name].shape)
        assert run(changed) == 0, name
        assert run(changed) == 1, name
        assert run(given) == 0, name


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("steps = 5", "steps = 6"),
        ("steps = 5", "steps = 5\nmomentum = 0.1"),
        ("steps = 5", "steps = 5\nmomentum = 0.1\nnesterov = true"),
        ("steps = 5", "steps = 5\nweight_decay = 0.1"),
        ("steps = 5", "steps = 5\nrecord = 'loss'"),
        ("steps = 5", "steps = 5\nrecord_every = 2"),
        ("steps = 5", "steps = 5\nat = [1, 5]"),
        ("steps = 5", "steps = 5\ntheory = true"),
        ("steps = 5", "steps = 5\nstop = { loss = 0.1 }"),
        ("lr = [0.01, 0.02]", "lr = [0.01, 0.03]"),
        ("lr = [0.01, 0.02]", "lr = [0.02, 0.01]"),
        ("scale = [0.1, 0.5]", "scale = [0.1, 0.6]"),
        ("seeds = 2", "seeds = 3"),
        ("seeds = 2", "seeds = [1, 0]"),
        ("width = 3", "width = 4"),
        ('kind = "gaussian"', 'kind = "uniform"'),
        ('kind = "gaussian"', 'kind = "gaussian"\ndtype = "float32"'),
        ("s = [1.0]", "s = [1.5]"),
        ("n_out = 2", "n_out = 2\nseed = 1"),
        ("n_out = 2", "n_out = 2\ntrace_yy = 3.0"),
    ],
    ids=str,
)
def test_a_changed_setting_runs_its_parts_again(old, new, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(run_module, "quick_look", lambda *_: False)
    text = BASE.format(task='kind = "spectrum"\ns = [1.0]\nn_in = 3\nn_out = 2', start='kind = "gaussian"')
    path = tmp_path / "sweep.toml"
    skipped = []
    for one in (text, text.replace(old, new), text.replace(old, new) + "\n[output]\nname = 'sweep'\n"):
        path.write_text(one)
        skipped.append(run_sweep(read_run_file(path), out=tmp_path / "results").skipped)
    assert text.replace(old, new) != text
    assert skipped == [0, 0, 1]


# ---- pydln reproduce, pydln info -----------------------------------------------------------------------------------


def checks() -> list[Any]:
    from pydln.reproduce import Check

    return [
        Check.compare("a time (τ)", theory=2.0, measured=2.0123456, tolerance=0.01, note="a note"),
        Check.compare("a rate", theory=3e-7, measured=2.9999e-7, tolerance=1e-3),
        Check.compare("a distance", theory=0.0, measured=-1.23456789e-5, tolerance=1e-4, relative=False),
        Check.compare("one that fails", theory=-1.5, measured=-1.0, tolerance=0.1),
        Check.show("a count", measured=1234567.0),
        Check.show("both", measured=0.25, theory=0.125),
    ]


def test_the_checks_that_reproduce_prints_are_those_of_its_files(tmp_path: Path, monkeypatch) -> None:
    """The shell, the JSON, the Markdown and the page, number by number."""
    pytest.importorskip("matplotlib")
    testing = pytest.importorskip("typer.testing")
    from pydln.cli import app
    from pydln.reproduce.recipe import Recipe
    from pydln.reproduce.saxe2013 import fig2

    stand_in = Recipe(
        title="A title",
        inches=(1, 1),
        compute=lambda job: {"a": [1.0]},
        check=lambda numbers: checks(),
        draw=lambda figure, numbers: None,
    )
    monkeypatch.setattr(fig2, "RECIPE", stand_in)
    result = testing.CliRunner().invoke(app, ["reproduce", "fig2", "--out", str(tmp_path)], prog_name="pydln")
    assert result.exit_code == 1  # one fails
    printed = {one[1]: one for one in lines_of(result.stdout) if one[0] in ("pass", "FAIL", "shown")}
    kept = json.loads((tmp_path / "fig2.json").read_text())["checks"]
    markdown = {
        cells[0]: cells
        for line in (tmp_path / "fig2.md").read_text().splitlines()
        if line.startswith("|")
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    page = re.sub(r"<[^>]+>", " ", html.unescape((tmp_path / "index.html").read_text()))
    assert [one["name"] for one in kept] == [one.name for one in checks()] == list(printed)
    for one, saved in zip(checks(), kept, strict=True):
        assert saved == one.as_json()
        verdict = {True: "pass", False: "FAIL", None: "shown"}[one.passed]
        scale, unit = (100.0, " %") if one.relative else (1.0, "")
        row = [verdict, one.name, *(shown(x) for x in (one.theory, one.measured) if x is not None)]
        row += [f"{scale * one.difference:+.3g}{unit}"] if one.difference is not None else []
        row += [f"{scale * one.tolerance:.3g}{unit}"] if one.tolerance is not None else []
        assert printed[one.name] == row
        for place, value in ((1, one.theory), (2, one.measured)):
            text = markdown[one.name][place]
            assert (text == "") == (value is None)
            assert value is None or float(text) == pytest.approx(value, rel=6e-5)  # five digits
            assert text in page
        for place, value in ((3, one.difference), (4, one.tolerance)):
            text = markdown[one.name][place]
            assert (text == "") == (value is None)
            assert value is None or float(text.removesuffix(" %")) == pytest.approx(scale * value, rel=6e-3)  # three
        assert markdown[one.name][5] == verdict
    for name in ("png", "svg", "npz", "md"):
        assert str(tmp_path / f"fig2.{name}") in result.stdout
        assert (tmp_path / f"fig2.{name}").stat().st_size


def test_a_check_passes_up_to_its_tolerance() -> None:
    from pydln.reproduce import Check

    for relative, theory in ((True, 4.0), (False, 4.0), (True, -4.0)):
        step = 0.5 * abs(theory) if relative else 0.5
        for sign in (1, -1):
            for measured, passes in ((theory + sign * step, True), (theory + sign * step * (1 + 1e-12), False)):
                one = Check.compare("x", theory=theory, measured=measured, tolerance=0.5, relative=relative)
                assert one.passed is passes
                assert one.difference == pytest.approx((measured - theory) / (theory if relative else 1.0))
    for bad in (math.nan, math.inf, -math.inf):
        assert Check.compare("x", theory=1.0, measured=bad, tolerance=1e9).passed is False


def test_info_says_what_the_build_says() -> None:
    import scipy

    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in call("info").splitlines())
    build = backend.build_info()
    assert rows.pop("pydln") == build.pop("version") == dln.__version__
    assert (rows.pop("numpy"), rows.pop("scipy")) == (np.__version__, scipy.__version__)
    assert {name: text.strip() for name, text in rows.items()} == {n: v.strip() for n, v in build.items()}


# ---- summary ---------------------------------------------------------------------------------------------------------


def runs() -> dict[str, dln.Trajectory]:
    task, weights = some_task(4, 3, whiten=False), starts((4, 5, 5, 3), 7)
    lr = np.array([0.01, 0.02, 0.05, 0.9, 0.03, 0.04, 0.06])
    record = ("loss", "test_loss", "strengths", "kernel_distance", "drift")
    stop = dln.Stop(loss=np.array([0.0, 1.0, 0.8, 0.0, 1.4, 0.7, 5.0]))
    descent = dln.gradient_descent(
        task, weights, lr=lr, steps=90, record=record, stop=stop, throw=False, record_every=4, weight_decay=0.01
    )
    many = dln.Task.from_spectrum(np.linspace(2, 1, 10), 12, 10, seed=0)
    return {
        "descent": descent,
        "one member": descent[2],
        "those that stopped": descent[[1, 2, 4]],
        "many modes": dln.gradient_descent(many, starts((12, 10), 3), lr=0.1, steps=20),
        "flow": dln.gradient_flow(task, weights, np.linspace(0, 2, 9), record=record[:3]),
        "exact": dln.exact.solve(many, starts((12, 10), 3)).evaluate([0.0, 1.0]),
        "one layer": dln.gradient_descent(task, starts((4, 3), 2), lr=0.1, steps=9, record=("loss", "drift")),
        "reduced": dln.gradient_descent(task, starts((4, 20, 3), 3), lr=0.01, steps=9, reduce="width"),
    }


def text(value: float) -> str:
    if math.isnan(value):
        return "-"
    return str(int(value)) if isinstance(value, int | np.integer) else f"{value:.6g}"


def three(values: np.ndarray) -> list[str]:
    there = values[~np.isnan(values)]
    return [text(x) for x in (there.min(), np.median(there), there.max())] if there.size else ["-"] * 3


@pytest.mark.parametrize("name", runs())
def test_summary_is_made_of_the_arrays(name: str) -> None:
    run = runs()[name]
    summary = lines_of(run.summary())
    rows = {one[0]: one[1:] for one in summary}
    for status in {int(s) for s in run.status}:
        ended = (run.stopped_time if run.stopped_step is None else run.stopped_step)[run.status == status]
        want = three(ended)
        assert rows[dln.Status(status).name.lower()] == [str(len(ended)), *want]
    seen = set()

    def last(values: np.ndarray) -> np.ndarray:
        out = np.full((run.batch, *values.shape[2:]), np.nan)
        for i in range(run.batch):
            there = [k for k in range(values.shape[1]) if not np.isnan(values[i, k]).all()]
            if there:
                out[i] = values[i, there[-1]]
        return out

    if "loss" in run.names:
        assert rows["loss at the first time"] == three(run.loss[:, 0])
        seen.add("loss at the first time")
    for one in ("loss", "test_loss", "kernel_distance"):
        if one in run.names:
            assert rows[f"last {one}"] == three(last(getattr(run, one)))
            seen.add(f"last {one}")
    if "strengths" in run.names:
        u = last(run.strengths)
        shown_modes = range(u.shape[1]) if u.shape[1] <= 8 else [*range(7), u.shape[1] - 1]
        for k in shown_modes:
            assert rows[f"last strength of mode {k}"] == three(u[:, k])
            seen.add(f"last strength of mode {k}")
    if "drift" in run.names:
        d = last(run.drift)
        assert rows["last drift, largest"] == three(d.max(axis=1) if d.shape[1] else np.empty(0))
        seen.add("last drift, largest")
    assert {one for one in rows if one.startswith(("last ", "loss at"))} == seen
    title = run.summary().splitlines()[0]
    assert title.startswith(f"{run.source}: {run.batch} member")
    assert f"{run.t.shape[-1]} times, t {text(run.t.min())} ... {text(run.t.max())}" in title
    assert run.steps is None or f"steps {run.steps.min()} ... {run.steps.max()}" in title
    if name == "reduced":
        assert "reduced = width 3 of 3 members" in run.summary()
    plain = html.unescape(re.sub(r"<[^>]+>", "\n", run._repr_html_()))
    for one in summary:
        for cell in one:
            assert cell.strip("-") in plain or ("=" in cell and cell.split(",")[0] in plain)
    if name in ("descent", "one member"):
        assert f"{int((run.status == dln.Status.COMPLETED).sum())} completed" in repr(run) or name == "one member"


# ---- notebooks -------------------------------------------------------------------------------------------------------
def shown_in_notebooks() -> list:
    task = dln.Task.from_spectrum([3.0, 1.0], 5, 4, seed=0, name="a <b> & c")
    weights = dln.init.aligned(task, depth=2, width=6, strength=0.1)
    run = dln.gradient_descent(task, weights, lr=0.01, steps=50)
    solution = dln.exact.solve(task, weights)
    return [
        task,
        weights,
        solution,
        dln.plan(task, weights),
        dln.exact.candidates(task, weights),
        dln.exact.compare(run, solution),
    ]


@pytest.mark.parametrize("thing", shown_in_notebooks(), ids=lambda thing: type(thing).__name__)
def test_a_notebook_shows_what_print_shows(thing) -> None:
    """The same words in the same order, and nothing that a browser takes for its own."""
    made = thing._repr_html_()
    text = html.unescape(re.sub(r"<[^<>]*>", " ", made))
    assert text.split() == str(thing).split()
    assert made.count("<table>") == made.count("</table>")
    if isinstance(thing, dln.Task):
        assert "a &lt;b&gt; &amp; c" in made
