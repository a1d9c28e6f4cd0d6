from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from pydln import Task, exact, gradient_descent, init
from pydln.analysis import half_times
from pydln.reproduce import FIGURES, Check, Report, reproduce, table, title
from pydln.reproduce.mode_descent import mode_descent

SMALL: dict[str, dict[str, Any]] = {
    "fig3": {"starts": 2},
    "fig4": {"layers": (3, 5, 20), "rates": 6},
    "fig6b": {"size": 40, "realisations": 40},
    "fig6c": {"size": 40, "realisations": 40},
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Report, list[tuple[int, int, str]]]]:
    made = {}
    for name in FIGURES:
        calls: list[tuple[int, int, str]] = []
        out = tmp_path_factory.mktemp("figures") / "new" / name
        made[name] = (reproduce(name, out, progress=lambda *a, c=calls: c.append(a), **SMALL[name]), calls)
    return made


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_writes_its_files_and_passes_its_own_checks(name: str, reports: Any) -> None:
    report, calls = reports[name]
    assert report.passed, report.table()
    assert [file.name for file in report.files] == [f"{name}.{kind}" for kind in ("png", "svg", "npz", "md", "json")]
    assert report.files[0].read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in report.files[1].read_text()[:600]
    with np.load(report.files[2], allow_pickle=False) as numbers:
        assert all(numbers[key].size for key in numbers.files)
    assert title(name) in report.files[3].read_text()
    record = json.loads(report.files[4].read_text())
    assert record["passed"] is True
    assert [check["name"] for check in record["checks"]] == [check.name for check in report.checks]
    assert sum(check.passed is not None for check in report.checks) > len(report.checks) / 2
    done, total = [c[0] for c in calls], calls[-1][1]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)


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


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_mode_descent_is_gradient_descent_of_an_aligned_network(depth: int) -> None:
    task = Task.from_spectrum([2.0, 1.0, 0.5], d_in=6, d_out=5, seed=1)
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
        ("fig9", {}, ValueError, "name: expected one of 'fig3', 'fig4', 'fig6b', 'fig6c', got 'fig9'"),
        ("fig3", {"starts": 1}, ValueError, "starts: expected an integer >= 2, got 1"),
        ("fig3", {"seed": -1}, ValueError, "seed: expected an integer >= 0, got -1"),
        ("fig4", {"inputs": "white"}, ValueError, "inputs: expected one of 'whitened', 'raw', got 'white'"),
        ("fig4", {"layers": [5]}, ValueError, "layers: expected two or more increasing numbers, got [5]"),
        ("fig4", {"layers": [5, 3]}, ValueError, "layers: expected two or more increasing numbers, got [5, 3]"),
        ("fig4", {"layers": [3, 2]}, ValueError, "layers[1]: expected an integer >= 3, got 2"),
        ("fig4", {"rates": 3}, ValueError, "rates: expected an integer >= 4, got 3"),
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
