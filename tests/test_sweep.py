"""Run files and sweeps: where a mistake stands, which members a grid has, and what survives an interrupt."""

from __future__ import annotations

import csv
import inspect
import io
import json
import math
import re
import signal
import subprocess
import sys
import time
import tomllib
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pydln
from pydln._base import atomic
from pydln.sweep import RunFile, SweepResult, read_run_file, run_sweep
from pydln.sweep import run as run_module
from pydln.sweep import store as store_module
from pydln.sweep.config import Grid
from pydln.sweep.lines import key_lines
from pydln.sweep.run import SweepPart, expand
from pydln.sweep.schema import TASKS

EXAMPLES = Path(__file__).parents[1] / "examples"

BASE = """\
[task]
kind = "spectrum"
s = [3.0, 1.0]
n_in = 4
n_out = 3

[start]
kind = "gaussian"

[grid]
depth = [1, 2]
width = 5
lr = [0.01, 0.02]
scale = [0.1, 0.5]
seeds = 2

[run]
steps = 20
"""

ALIGNED = BASE.replace('"gaussian"', '"aligned"').replace("scale = [0.1, 0.5]", "strength = [0.1, 0.5]")

Make = Callable[..., RunFile]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(text: str = BASE, name: str = "sweep.toml") -> RunFile:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return read_run_file(path)

    return write


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at no picture: drawing one takes longer than all the rest."""
    monkeypatch.setattr(run_module, "quick_look", lambda *_: False)


@pytest.fixture
def run(make: Make, tmp_path: Path, no_picture: None) -> Callable[..., SweepResult]:
    def call(text: str = BASE, **options: Any) -> SweepResult:
        return run_sweep(make(text), out=tmp_path / "results", **options)

    return call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Depths of the runs that really were made, in order."""
    made: list[int] = []
    real = run_module.gradient_descent

    def spy(task: pydln.Task, weights: pydln.Weights, **options: Any) -> pydln.Trajectory:
        if options["steps"]:
            made.append(weights.depth)
        return real(task, weights, **options)

    monkeypatch.setattr(run_module, "gradient_descent", spy)
    return made


# --- lines -----------------------------------------------------------------------------------------------------------
TRICKY = '''\
title = "x # [no]"
[a]
b = [1,  # one, ]
  2, "]", """
[c]
y = 1 \\""" "" """]
c.d = 1979-05-27 07:32:00  # a date
[a."q.r" . e]
m = { loss = 1, k = { z = [1, { u = 2 }] } }
n = '\\'
'o p' = nan
[[list]]
v = true
[[list]]
w = -1e-3'''


def test_lines_of_keys() -> None:
    tomllib.loads(TRICKY)
    lines = key_lines(TRICKY)
    quoted = ("a", "q.r", "e")
    assert lines == {
        ("title",): 1,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 7,
        ("a", "c", "d"): 7,
        ("a", "q.r"): 8,
        quoted: 8,
        (*quoted, "m"): 9,
        (*quoted, "m", "loss"): 9,
        (*quoted, "m", "k"): 9,
        (*quoted, "m", "k", "z"): 9,
        (*quoted, "m", "k", "z", "u"): 9,
        (*quoted, "n"): 10,
        (*quoted, "o p"): 11,
        ("list",): 12,
        ("list", "v"): 13,
        ("list", "w"): 15,
    }


def test_lines_with_carriage_returns() -> None:
    assert key_lines(TRICKY.replace("\n", "\r\n")) == key_lines(TRICKY)


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="needs the source tree")
@pytest.mark.parametrize("name", ["depth_and_rate", "mnist_scale", "noisy_teacher"])
def test_examples_are_sound(make: Make, name: str) -> None:
    path = EXAMPLES / f"{name}.toml"
    text = path.read_text(encoding="utf-8")

    def keys(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for key, value in table.items():
            yield (*path, key)
            if isinstance(value, dict):
                yield from keys(value, (*path, key))

    lines = key_lines(text)
    assert set(lines) == set(keys(tomllib.loads(text)))
    assert all(path[-1] in text.splitlines()[line - 1] for path, line in lines.items())
    # Whitening MNIST takes seconds; its keys are checked all the same.
    stand_in = 'kind = "teacher"\ns = [1.0]\nn_in = 784\nn_out = 10'
    file = make(text.replace('kind = "mnist"\nwhiten = true', stand_in))
    run_module._check(file, expand(file.grid))


# --- mistakes --------------------------------------------------------------------------------------------------------
def line_of(text: str, start: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), start=1) if line.startswith(start))


@pytest.mark.parametrize(
    ("old", "new", "at", "sentence"),
    [
        ("lr = [0.01, 0.02]", "lr = [0.01, -0.1]", "lr", "grid.lr: expected numbers > 0, got -0.1"),
        ("lr = [0.01, 0.02]", "lr = 'fast'", "lr", "grid.lr: expected numbers > 0, got 'fast'"),
        ("lr = [0.01, 0.02]", "lr = true", "lr", "grid.lr: expected numbers > 0, got True"),
        ("lr = [0.01, 0.02]", "lr = []", "lr", "grid.lr: expected numbers > 0, got an empty list"),
        ("lr = [0.01, 0.02]", "lr = [1, 1.0]", "lr", "grid.lr: expected distinct values, got 1.0 twice"),
        ("lr = [0.01, 0.02]", "lr = nan", "lr", "grid.lr: expected numbers > 0, got nan"),
        ("lr = [0.01, 0.02]", "", "[grid]", "grid.lr: missing; [grid] needs it"),
        (
            "lr = [0.01, 0.02]",
            "lr = { geomspace = [0, 1, 5] }",
            "lr",
            "grid.lr.geomspace: expected ends of one sign, neither 0, got 0 and 1",
        ),
        (
            "lr = [0.01, 0.02]",
            "lr = { logspace = [0.1, 1, 5] }",
            "lr",
            "grid.lr: expected { geomspace = [first, last, count] } or linspace, got {'logspace': [0.1, 1, 5]}",
        ),
        ("depth = [1, 2]", "depth = [1, 2.5]", "depth", "grid.depth: expected integers >= 1, got 2.5"),
        ("depth = [1, 2]", "depth = [true]", "depth", "grid.depth: expected integers >= 1, got True"),
        ("width = 5", "", "[grid]", "grid.width: missing; a start of kind 'gaussian' needs the hidden width"),
        ("width = 5", "wdith = 5", "wdith", "grid.wdith: unknown key; did you mean width?"),
        ("width = 5", "steps = 5", "steps", "grid.steps: unknown key; it belongs in [run]"),
        ("seeds = 2", "seeds = 0", "seeds", "grid.seeds: expected an integer >= 1, got 0"),
        ("seeds = 2", "seeds = [0, -1]", "seeds", "grid.seeds: expected a number of seeds or a list of integers >= 0"),
        ("steps = 20", "steps = '20'", "steps", "run.steps: expected an integer, got '20'"),
        ("steps = 20", "stepz = 20", "stepz", "run.stepz: unknown key; did you mean steps?"),
        ("steps = 20", "steps = 20\nrecord = 'los'", "record", "run.record: expected one of 'loss', 'test_loss', "),
        ("steps = 20", "steps = 20\nrecord = 'test_loss'", "record", "run.record: expected a task with held-out cov"),
        ("steps = 20", "steps = 20\nat = [0, 30]", "at", "run.at: expected steps up to run.steps = 20, got 30"),
        ("steps = 20", "steps = 20\nat = [3, 2]", "at", "run.at: expected increasing steps, got [3, 2]"),
        (
            "steps = 20",
            "steps = 20\nat = [3]\nrecord_every = 1",
            "at",
            "run.at: expected either at or record_every, got both",
        ),
        ("steps = 20", "steps = 20\nmomentum = 1", "momentum", "run.momentum: expected a number >= 0 and < 1, got 1"),
        ("steps = 20", "steps = 20\ntheory = 1", "theory", "run.theory: expected true or false, got 1"),
        (
            "steps = 20",
            "steps = 20\nrecord = 'loss'\ntheory = true",
            "theory",
            "run.theory: expected strengths in run.record to compare with",
        ),
        ("steps = 20", "steps = 20\nstop = 3", "stop", "run.stop: expected a table, got 3"),
        (
            "steps = 20",
            "steps = 20\nstop.los = 3",
            "stop.los",
            "run.stop.los: unknown key; did you mean loss?",
        ),
        (
            "steps = 20",
            "steps = 20\nstop.strengths = [1, 2, 3]",
            "stop.strengths",
            "run.stop.strengths: expected a number, (2,) or (batch, 2), got (3,)",
        ),
        ("s = [3.0, 1.0]", "s = [3.0, 'x']", "s ", "task.s: expected real numbers, got an array of text"),
        (
            "s = [3.0, 1.0]",
            "s = [4, 3, 2, 1]",
            "s ",
            "task.s: expected from 1 to min(n_in, n_out) = 3 strengths, got 4",
        ),
        ("n_in = 4", "n_in = 0", "n_in", "task.n_in: expected an integer >= 1, got 0"),
        ("n_in = 4", "flip = 0.1", "flip", "task.flip: unknown key for kind 'spectrum'; expected one of s, n_in, "),
        (
            'kind = "spectrum"',
            'kind = "spectral"',
            "kind",
            "task.kind: expected one of mnist, hierarchy, spectrum, teacher, data, covariances, got 'spectral'; did",
        ),
        ('kind = "spectrum"', "", "[task]", "task.kind: missing; expected one of mnist, "),
        (
            'kind = "gaussian"',
            'kind = "gaussian"\nscale = 2.0',
            "scale",
            "start.scale: unknown key for kind 'gaussian'; it belongs in [grid]",
        ),
        (
            'kind = "gaussian"',
            'kind = "aligned"',
            "scale",
            "grid.scale: unknown key; expected one of depth, lr, strength, width, seeds",
        ),
        (
            'kind = "gaussian"',
            'kind = "identity"',
            "seeds",
            "grid.seeds: expected one seed, as an identity start draws nothing",
        ),
        ('kind = "gaussian"', 'kind = "balanced"', "[start]", "start: a balanced start needs either product or path"),
        (
            'kind = "gaussian"',
            'kind = "balanced"\npath = "w.npz"',
            "path",
            "start.path: there is no file ",
        ),
        (
            'kind = "gaussian"',
            'kind = "balanced"\nproduct = [[1, 0], [0, 1]]',
            "[run]",
            "run: weights: expected 4 inputs and 3 outputs like the task, got 2 and 2",
        ),
        ("[run]", "[rum]", "[rum]", "rum: unknown key; did you mean run?"),
        ("[run]", "[output]\nname = 'a/b'\n[run]", "name", "output.name: expected letters, digits and - _ + . "),
        ("n_out = 3", "n_out = ", "n_out", "not TOML: Invalid value (column 9)"),
        ("n_out = 3", "n_out = 3\nn_out = 4", "", "not TOML: Cannot overwrite a value"),
    ],
)
def test_mistakes_name_line_and_key(make: Make, tmp_path: Path, old: str, new: str, at: str, sentence: str) -> None:
    assert BASE.count(old) == 1
    text = BASE.replace(old, new)
    with pytest.raises(ValueError, match=r"sweep\.toml:\d+: ") as caught:
        run_sweep(make(text), out=tmp_path / "results")
    label, line, rest = str(caught.value).removeprefix(f"{tmp_path}/").split(":", 2)
    assert label == "sweep.toml"
    assert rest.strip().startswith(sentence)
    assert "\n" not in rest
    if at:
        assert int(line) == line_of(text, at)
    assert not (tmp_path / "results").exists(), "a mistake is found before any work"


def test_width_below_the_modes_is_found_before_any_part_runs(run: Callable[..., SweepResult], calls: list[int]) -> None:
    with pytest.raises(
        ValueError, match=r"sweep\.toml:12: grid\.width: expected at least 2, the number of modes, got 1"
    ):
        run(ALIGNED.replace("width = 5", "width = [5, 1]"))
    assert calls == []


def test_missing_table(make: Make) -> None:
    with pytest.raises(ValueError, match=r"sweep\.toml:15: run: missing; a run file needs a table \[run\]"):
        make(BASE[: BASE.index("\n[run]")])


def test_recording_beyond_memory_is_refused_before_any_part_runs(
    run: Callable[..., SweepResult], calls: list[int]
) -> None:
    text = BASE.replace("steps = 20", "steps = 1_000_000_000_000\nrecord_every = 1\nrecord = 'weights'")
    with pytest.raises(
        ValueError, match=r"sweep\.toml:\d+: run\.record: weights of the 8 members of depth 1 at .* needs"
    ):
        run(text)
    assert calls == []


def test_networks_beyond_memory_are_refused_before_any_part_runs(
    run: Callable[..., SweepResult], calls: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"sweep\.toml:12: grid\.width: training 8 members of depth 3, .* needs"):
        run(BASE.replace("width = 5", "width = 1_000_000_000").replace("[1, 2]", "[1, 3]"))
    assert calls == []


def test_threads_are_checked_first(run: Callable[..., SweepResult], calls: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^n_threads: expected an integer >= 1, got 0$"):
        run(n_threads=0)
    assert calls == []


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "expected a run file, got a folder"),
        (lambda path: path.write_bytes(b"a = '\xff'"), "expected UTF-8 text, got a byte 0xff"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, write: Callable[[Path], object], sentence: str) -> None:
    path = tmp_path / "sweep.toml"
    write(path)
    with pytest.raises(ValueError, match=f"sweep.toml: {sentence}"):
        read_run_file(path)


# --- what else a run file can hold -----------------------------------------------------------------------------------
def refused(make: Make, text: str) -> str:
    """The one sentence of a run file that is refused in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            run_sweep(make(text), out="never-written")
        assert tracemalloc.get_traced_memory()[1] < 200_000_000
    finally:
        tracemalloc.stop()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "\x1b" not in sentence
    assert len(sentence) < 700
    assert re.search(r"sweep\.toml(:\d+)?: ", sentence), sentence
    assert not Path("never-written").exists()
    return sentence


def test_the_mark_and_the_line_ends_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
    assert read_run_file(path).grid == read_run_file_of(tmp_path, BASE).grid
    path.write_bytes(b"\xef\xbb\xbf" + BASE.replace("seeds = 2", "seeds = -2").replace("\n", "\r\n").encode())
    with pytest.raises(ValueError, match=r"sweep\.toml:15: grid.seeds: expected an integer >= 1, got -2"):
        read_run_file(path)


def read_run_file_of(folder: Path, text: str) -> RunFile:
    (folder / "plain.toml").write_text(text)
    return read_run_file(folder / "plain.toml")


@pytest.mark.parametrize("count", [30, 3_000, 100_000])
@pytest.mark.parametrize(
    "nested",
    [
        lambda n: "a = " + "[" * n + "]" * n,
        lambda n: "a = " + "{a = " * n + "1" + "}" * n,
        lambda n: "a = " + "[{a = " * n + "1" + "}]" * n,
        lambda n: "[" + ".".join("a" * n) + "]",
        lambda n: "[[" + " . ".join("a" * n) + "]]",
        lambda n: ".".join("a" * n) + " = 1",
        lambda n: '"b"' + '."a"' * n + " = 1",
        lambda n: "'b'" + ".'a'" * n + " = 1",
        lambda n: "a = " + "[" * n,
        lambda n: "a = " + "\n[" * n,
    ],
)
def test_nesting_of_thousands(make: Make, nested: Callable[[int], str], count: int) -> None:
    sentence = refused(make, BASE + nested(count))
    assert "expected at most 20 tables or lists in each other, got more" in sentence


def test_brackets_in_texts_and_comments_are_no_nesting(make: Make) -> None:
    deep = "[" * 100 + "." * 100
    made = make(BASE + f'[output]\nname = "x"\n# {deep}\n').name
    assert made == "x"
    assert "unknown key" in refused(make, BASE + f'"{deep}" = 1\n')
    for text in (f'"""{deep}\n{deep}"""', f"'''{deep}'''", f"'{deep}'", f'"{deep}"'):
        assert "output.dir" not in str(make(BASE + f"[output]\ndir = {text}\n").out)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("depth = [1, 2]", "depth = 1_000_000_000", ":11: grid.depth: training 8 members of depth 1000000000"),
        ("depth = [1, 2]", "depth = [1, 1_000_000_000_000_000]", "memory are free"),
        ("width = 5", "width = 1_000_000_000", "memory are free"),
        ("depth = [1, 2]\nwidth = 5", "depth = 1_000_000_000\nwidth = 1", "memory are free"),
        ("seeds = 2", "seeds = 1_000_000\n", ""),
        ("seeds = 2", "seeds = [1, 18446744073709551616]", ":15: grid.seeds: expected a number of seeds or a list"),
        ("seeds = 2", f"seeds = {'9' * 5000}", "an integer of more digits than Python reads"),
        ("seeds = 2", f"seeds = 0x{'f' * 5000}", ":15: grid.seeds: expected an integer <= 1000000, got an integer of"),
        ("steps = 20", f"steps = 0x{'f' * 5000}", ":18: run.steps: expected an integer <= "),
        ("lr = [0.01, 0.02]", f"lr = 0x{'f' * 5000}", ":13: grid.lr: expected numbers > 0, got an integer of"),
        ("lr = [0.01, 0.02]", "lr = 1e400", ":13: grid.lr: expected numbers > 0, got inf"),
        ("lr = [0.01, 0.02]", f"lr = {['x'] * 30000}", ":13: grid.lr: expected numbers > 0, got 'x'"),
        ("lr = [0.01, 0.02]", "lr = 1979-05-27", ":13: grid.lr: expected numbers > 0, got datetime.date(1979, 5, 27)"),
        ("lr = [0.01, 0.02]", "lr = { geomspace = [1, 2, 1_000_000_000] }", "(count): expected an integer <= 1000000"),
        ("n_in = 4", "n_in = 1_000_000_000_000", "sweep.toml:4"),
        ('kind = "gaussian"', f'kind = "{"x" * 10000}"', ":8: start.kind: expected one of"),
        ('kind = "gaussian"', 'kind = "\\u001b[2J"', ":8: start.kind: expected one of"),
        ("[run]", f'"\\u001b[2J{"y" * 1000}" = 1\n[run]', "unknown key"),
        ("[run]", '[task.kind.x]\n[run]', "sweep.toml"),
        ("[grid]", "[[grid]]", "grid: expected a table, got"),
        ("steps = 20", "steps = 20\nat = [5, 5]", "run.at: expected increasing steps"),
        ("steps = 20", "steps = 20\nrecord = [[['loss']]]", "run.record"),
        ("steps = 20", "steps = 20\nstop = 3", "run.stop: expected a table, got 3"),
        ("steps = 20", "steps = 1_000_000_000\nrecord_every = 1\nrecord = 'weights'", "memory are free"),
        ("steps = 20", 'steps = 20\n[output]\ndir = "\\u0000"', "output.dir: expected a text"),
    ],
)  # fmt: skip
def test_numbers_and_texts_of_any_size(make: Make, old: str, new: str, sentence: str) -> None:
    if sentence:
        assert sentence in refused(make, BASE.replace(old, new))
    else:
        make(BASE.replace(old, new))


def test_more_parts_than_can_be_run(make: Make) -> None:
    text = BASE.replace("[1, 2]", str(list(range(1, 1001)))).replace("width = 5", f"width = {list(range(1, 1001))}")
    assert "grid: expected at most 100000 pairs of depth and width, got 1000000" in refused(make, text)


def test_files_that_are_too_large_to_be_run_files(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    with path.open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(ValueError, match=r"sweep\.toml: expected a run file of at most 16 MB, got a larger file"):
        read_run_file(path)


def test_time_to_read_grows_as_the_file(make: Make) -> None:
    """Of rates, seeds, tables or keys: four times as many take about four times as long, not sixteen times."""

    def seconds(text: str) -> float:
        best = math.inf
        for _ in range(2):
            begun = time.process_time()
            with suppress(ValueError):
                make(text)
            best = min(best, time.process_time() - begun)
        return best

    for many in (
        lambda n: BASE.replace("[0.01, 0.02]", str([0.01 + 1e-6 * k for k in range(n)])),
        lambda n: BASE.replace("seeds = 2", f"seeds = {list(range(n))}"),
        lambda n: BASE + "".join(f"key{k} = {k}\n" for k in range(n)),
        lambda n: BASE + "".join(f"[table{k}]\n" for k in range(n)),
    ):
        assert seconds(many(12_000)) < 9 * seconds(many(3_000))


def bomb(path: Path, shape: tuple[int, ...]) -> None:
    """An archive of some kilobytes whose arrays claim to be large; 16 MB of each are there when it is unpacked."""
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(written, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("X", "Y"):
            archive.writestr(f"{name}.npy", written.getvalue() + bytes(min(8 * math.prod(shape), 2**24)))


def test_archives_that_claim_more_than_they_hold(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ((2**47,), (2**20, 2**40)):
        bomb(tmp_path / "task.npz", shape)
        assert "is not of the size that its header says" in refused(make, from_file("data"))
    monkeypatch.setattr(pydln._base.validate, "free_memory", lambda: 2**20)
    bomb(tmp_path / "task.npz", (2**20, 2))
    assert "unpacking it needs 33.6 MB and 1.05 MB of memory are free" in refused(make, from_file("data"))


# --- several runs in one folder --------------------------------------------------------------------------------------
def command(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_two_runs_into_one_folder_at_once(tmp_path: Path) -> None:
    """Of the same file and of another one, whose parts have the same names: each ends as it does alone."""
    pytest.importorskip("typer")
    files = {"one": BASE, "other": BASE.replace("[0.01, 0.02]", "[0.03, 0.04]")}
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text)
        run_sweep(read_run_file(tmp_path / f"{name}.toml"), out=tmp_path / name)
    names = ("one", "other", "one")
    together = [command("-m", "pydln", "run", tmp_path / f"{name}.toml", "--out", tmp_path / "both") for name in names]
    for process in together:
        out, err = process.communicate(timeout=240)
        assert (process.returncode, err) == (0, ""), (out, err)
    for name in files:
        assert (tmp_path / "both" / f"{name}.csv").read_text() == (tmp_path / name / f"{name}.csv").read_text()
    assert listing(tmp_path / "both") == listing(tmp_path / "one") | listing(tmp_path / "other")


def test_another_sweep_s_files_of_the_same_names_are_not_taken_for_one_s_own(
    make: Make, tmp_path: Path, no_picture: None, calls: list[int]
) -> None:
    one, other = make(name="one.toml"), make(BASE.replace("[0.01, 0.02]", "[0.03, 0.04]"), name="other.toml")
    for file, made in ((one, 2), (other, 2), (one, 2), (one, 0)):
        calls.clear()
        result = run_sweep(file, out=tmp_path / "both")
        assert len(calls) == made
        for row in result.rows:
            run = pydln.Trajectory.load(tmp_path / "both" / row["file"])
            assert run.settings["lr"][row["member"]] == row["lr"]


KILLED = """
import os, signal, sys
from pathlib import Path
from pydln import sweep
written = 0
real = os.replace
def killed(*paths):
    global written
    written += 1
    if written == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(*paths)
os.replace = killed
sweep.run_sweep(sweep.read_run_file(sys.argv[1]), out=sys.argv[2])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("writes", [1, 2, 3, 4, 5])
def test_a_killed_run_leaves_nothing_to_the_next(tmp_path: Path, writes: int, no_picture: None) -> None:
    """Killed at each of its writes: what was half-written is removed, and what was finished is kept."""
    (tmp_path / "sweep.toml").write_text(BASE)
    file = read_run_file(tmp_path / "sweep.toml")
    alone = run_sweep(file, out=tmp_path / "alone")
    process = command("-c", KILLED, tmp_path / "sweep.toml", tmp_path / "killed", writes)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    assert any(name.endswith(".tmp") for name in listing(tmp_path / "killed"))
    again = run_sweep(file, out=tmp_path / "killed")
    assert again.rows == alone.rows
    # Replaced are: part 1, the index, the table, part 2, the table; the second part is added to the index.
    assert again.skipped == (writes > 2) + (writes > 4)
    assert listing(tmp_path / "killed") == listing(tmp_path / "alone")
    assert (tmp_path / "killed" / "sweep.csv").read_text() == (tmp_path / "alone" / "sweep.csv").read_text()


def test_an_index_cut_anywhere_tells_of_the_parts_before(
    make: Make, tmp_path: Path, no_picture: None, calls: list[int]
) -> None:
    """However far the last line got to the disk: it counts when it is whole, and the others always do."""
    file = make(BASE.replace("depth = [1, 2]", "depth = [1, 2, 3]"))
    whole = run_sweep(file, out=tmp_path)
    index = tmp_path / "sweep.json"
    text = index.read_bytes()
    ends = [k + 1 for k, byte in enumerate(text) if byte == ord("\n")]
    assert len(ends) == 4
    for cut in range(ends[0], len(text) + 1):
        index.write_bytes(text[:cut])
        assert len(store_module.Store(tmp_path, "sweep")._parts) == sum(end <= cut for end in ends[1:])
    calls.clear()
    index.write_bytes(text[: ends[2] + 100])
    assert run_sweep(file, out=tmp_path).rows == whole.rows
    assert calls == [3]
    assert index.read_bytes() == text
    index.write_bytes(text[: ends[1]] + b"{" + text[ends[1] :])
    with pytest.raises(pydln.FileDamaged, match=r"sweep\.json is not the index of a pydln sweep"):
        run_sweep(file, out=tmp_path)


def test_the_index_of_an_earlier_version_is_read(
    make: Make, tmp_path: Path, no_picture: None, calls: list[int]
) -> None:
    run_sweep(make(), out=tmp_path)
    index = tmp_path / "sweep.json"
    header, *lines = index.read_text().splitlines()
    parts = {part.pop("part"): part for part in map(json.loads, lines)}
    old = {"format": "pydln sweep 1", "run_file": json.loads(header)["run_file"], "parts": parts}
    index.write_text(json.dumps(old) + "\n")
    calls.clear()
    assert run_sweep(make(), out=tmp_path).skipped == 2
    run_sweep(make(BASE.replace("depth = [1, 2]", "depth = [1, 2, 3]")), out=tmp_path)
    assert calls == [3]
    assert json.loads(index.read_text().splitlines()[0])["format"] == "pydln sweep 2"


def test_what_is_written_for_a_part_does_not_grow(
    make: Make, tmp_path: Path, no_picture: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Index and table get what a part adds to them: as much for the last as for the second."""
    written: list[int] = []
    real = store_module._write, store_module._append

    def noted(write: Callable[[Path, str], None]) -> Callable[[Path, str], None]:
        def writing(path: Path, text: str) -> None:
            written.append(len(text))
            write(path, text)

        return writing

    monkeypatch.setattr(store_module, "_write", noted(real[0]))
    monkeypatch.setattr(store_module, "_append", noted(real[1]))
    run_sweep(make(BASE.replace("depth = [1, 2]", "depth = [2, 3, 4, 5, 6, 7, 8, 9]")), out=tmp_path)
    of_parts = [sum(written[k : k + 2]) for k in range(0, 16, 2)]
    assert max(of_parts[1:]) < 1.1 * min(of_parts[1:]), of_parts


def test_files_that_are_being_written_are_no_orphans(tmp_path: Path) -> None:
    foreign = [tmp_path / ".pydln-of-mine.tmp", tmp_path / "pydln-0123456789abcdef.tmp", tmp_path / ".a.tmp"]
    for path in foreign:
        path.write_text("")
    (tmp_path / ".pydln-0123456789abcdef.tmp").mkdir()
    orphan = tmp_path / ".pydln-00112233445566aa.tmp"
    orphan.write_text("half")
    with atomic.replacing(tmp_path / "whole") as file:
        file.write(b"wh")
        atomic.remove_orphans(tmp_path)
        assert len(listing(tmp_path)) == len(foreign) + 2
        file.write(b"ole")
    assert (tmp_path / "whole").read_bytes() == b"whole"
    assert not orphan.exists()
    with pytest.raises(ZeroDivisionError), atomic.replacing(tmp_path / "whole"):
        _ = 1 / 0
    assert (tmp_path / "whole").read_bytes() == b"whole"
    assert len(listing(tmp_path)) == len(foreign) + 2


def test_one_at_a_time(tmp_path: Path) -> None:
    """Forty threads on a counter in a file, each waiting for its turn; no lock file stays."""
    counter, waited = tmp_path / "folder" / "counter", []

    def add() -> None:
        with atomic.locked(tmp_path / "folder" / ".lock", lambda: waited.append(1)):
            count = int(counter.read_text()) if counter.exists() else 0
            time.sleep(0.002)
            counter.write_text(str(count + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: add(), range(40)))
    assert counter.read_text() == "40"
    assert waited
    assert listing(tmp_path / "folder") == {"counter"}
    with pytest.raises(ZeroDivisionError), atomic.locked(tmp_path / "new" / ".lock"):
        _ = 1 / 0
    assert not (tmp_path / "new").exists()


# --- tasks and starts from files -------------------------------------------------------------------------------------
def from_file(kind: str, extra: str = "") -> str:
    return BASE.replace(
        'kind = "spectrum"\ns = [3.0, 1.0]\nn_in = 4\nn_out = 3', f'kind = "{kind}"\npath = "task.npz"\n{extra}'
    )


def test_task_from_data(make: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"X": rng.normal(size=(9, 4)), "Y": rng.normal(size=(9, 3))}
    np.savez(tmp_path / "task.npz", **arrays)
    file = make(from_file("data", 'normalize = "sum"'))
    expected = pydln.Task.from_data(arrays["X"], arrays["Y"], normalize="sum")
    np.testing.assert_array_equal(file.task.sigma_yx, expected.sigma_yx)
    assert file.task.normalize == "sum"

    before = file.inputs
    np.savez(tmp_path / "task.npz", X=arrays["X"], Y=2 * arrays["Y"])
    assert make(from_file("data", 'normalize = "sum"')).inputs != before, "the data belong to the fingerprint"


def test_task_from_covariances(make: Make, tmp_path: Path) -> None:
    arrays = {"sigma_xx": np.diag([1.0, 2.0, 3.0, 4.0]), "sigma_yx": np.eye(3, 4), "trace_yy": 10.0}
    np.savez(tmp_path / "task.npz", **arrays)
    np.testing.assert_array_equal(make(from_file("covariances")).task.sigma_xx, arrays["sigma_xx"])
    assert make(from_file("covariances", "whitened = true")).task.whitened
    np.savez(tmp_path / "task.npz", **{**arrays, "trace_yy": [10.0, 11.0]})
    with pytest.raises(
        ValueError, match=r"sweep\.toml:3: task\.path: expected the covariances of one task, got a batch"
    ):
        make(from_file("covariances"))


def save_one(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.eye(2))


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: None, "task.path: there is no file"),
        (lambda path: path.write_bytes(b""), "task.path: expected an .npz file of numbers, got task.npz"),
        (
            lambda path: path.write_bytes(b"PK\x03\x04 no zip"),
            "task.path: expected an .npz file of numbers, got task.npz",
        ),
        (lambda path: save_one(path), "task.path: expected an .npz file of numbers, got task.npz (a single array)"),
        (lambda path: np.savez(path, X=np.eye(2)), "task.path: expected arrays X, Y in task.npz, got X"),
        (lambda path: np.savez(path, X=np.eye(2), Y=np.eye(3)), "task.path: Y: expected"),
        (
            lambda path: np.savez(path, X=np.array([None]), Y=np.eye(3)),
            "task.path: expected an .npz file of numbers, got task.npz (X.npy holds Python objects",
        ),
    ],
)
def test_files_of_arrays_that_do_not_serve(
    make: Make, tmp_path: Path, write: Callable[[Path], object], sentence: str
) -> None:
    write(tmp_path / "task.npz")
    with pytest.raises(ValueError, match=r"sweep\.toml:3: ") as caught:
        make(from_file("data"))
    assert sentence in str(caught.value)


def test_balanced_start_from_a_file(run: Callable[..., SweepResult], tmp_path: Path) -> None:
    product = np.arange(12.0).reshape(3, 4)
    np.savez(tmp_path / "start.npz", product=product)
    text = BASE.replace('"gaussian"', '"balanced"\npath = "start.npz"').replace(
        "steps = 20", "steps = 20\nrecord = 'product'"
    )
    result = run(text)
    found = pydln.Trajectory.load(result.table.parent / "depth-2_width-5.npz").product[:, 0]
    for omega, row in zip(found, result.rows[8:], strict=True):
        np.testing.assert_allclose(omega, row["scale"] * product, atol=1e-12)


# --- the grid --------------------------------------------------------------------------------------------------------
def test_parts_of_a_grid() -> None:
    grid = Grid((3, 1, 2), (8, 16), (0.1,), (1.0,), "scale", (0,))
    assert expand(grid) == (SweepPart(3, 8), SweepPart(3, 16), SweepPart(1, None), SweepPart(2, 8), SweepPart(2, 16))
    assert [part.stem for part in expand(grid)][1:3] == ["depth-3_width-16", "depth-1"]


def test_axes_given_by_their_ends(make: Make) -> None:
    text = BASE.replace("[0.01, 0.02]", "{ geomspace = [1e-3, 1e-1, 3] }").replace(
        "[0.1, 0.5]", "{ linspace = [1, 2, 5] }"
    )
    grid = make(text).grid
    np.testing.assert_allclose(grid.lr, [1e-3, 1e-2, 1e-1], rtol=1e-14)
    assert grid.size == (1.0, 1.25, 1.5, 1.75, 2.0)
    assert make(BASE.replace("seeds = 2", "seeds = [7, 3]")).grid.seeds == (7, 3)


def test_members_are_the_product_of_the_axes(run: Callable[..., SweepResult]) -> None:
    """Every row is the run that a reader of the row would make alone, bit for bit."""
    result = run(BASE.replace("seeds = 2", "seeds = [7, 3]"))
    assert len(result.rows) == 2 * 2 * 2 * 2
    assert len({(r["depth"], r["lr"], r["scale"], r["seed"]) for r in result.rows}) == 16
    task = pydln.Task.from_spectrum([3.0, 1.0], n_in=4, n_out=3)
    for row in result.rows:
        widths = [4, *[5] * (row["depth"] - 1), 3]
        assert row["width"] == (5 if row["depth"] > 1 else None)
        start = pydln.init.gaussian(widths, scale=row["scale"], seed=row["seed"])
        alone = pydln.gradient_descent(task, start, lr=row["lr"], steps=20)
        saved = pydln.Trajectory.load(result.table.parent / row["file"])[row["member"]]
        np.testing.assert_array_equal(saved.loss, alone.loss)
        np.testing.assert_array_equal(np.ravel(saved.t), alone.t)
        assert row["loss"] == pytest.approx(alone.loss[0, -1], rel=1e-13)
        assert (row["status"], row["stopped_step"]) == ("completed", 20)


@pytest.mark.parametrize("kind", TASKS)
def test_keys_of_a_task_are_arguments_of_its_constructor(kind: str) -> None:
    maker = {"spectrum": "from_spectrum", "data": "from_data", "covariances": "from_covariances"}.get(kind, kind)
    arguments = inspect.signature(getattr(pydln.Task, maker)).parameters
    assert set(TASKS[kind].checks) - {"path", "whitened"} <= set(arguments)
    needed = {name for name, one in arguments.items() if one.default is one.empty}
    assert needed <= TASKS[kind].required or "path" in TASKS[kind].required


@pytest.mark.parametrize(
    ("kind", "make_start"),
    [
        ("uniform", lambda scale, seed: pydln.init.uniform([4, 5, 3], scale=scale, seed=seed)),
        ("orthogonal", lambda scale, seed: pydln.init.orthogonal([4, 5, 3], scale=scale, seed=seed)),
        ("identity", lambda scale, seed: pydln.init.identity([4, 5, 3], scale=scale)),
        ("residual", lambda scale, seed: pydln.init.residual([4, 5, 3], scale=scale, seed=seed)),
        ("mup", lambda scale, seed: pydln.init.mup([4, 5, 3], scale=scale, seed=seed)),
    ],
)
def test_starts(run: Callable[..., SweepResult], kind: str, make_start: Callable[..., pydln.Weights]) -> None:
    text = BASE.replace('"gaussian"', f'"{kind}"\ndtype = "float32"').replace("depth = [1, 2]", "depth = 2")
    text = text.replace("seeds = 2", "seeds = [4]").replace("steps = 20", "steps = 1\nrecord = 'weights'")
    result = run(text)
    saved = pydln.Trajectory.load(result.table.parent / "depth-2_width-5.npz")
    for row in result.rows:
        for found, expected in zip(saved.weights, make_start(row["scale"], 4).layers, strict=True):
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found[row["member"], 0], expected[0].astype(np.float32))


def test_settings_reach_the_run(run: Callable[..., SweepResult]) -> None:
    text = BASE.replace(
        "steps = 20",
        "steps = 400\nrecord = ['loss', 'drift']\nat = [0, 7, 400]\nmomentum = 0.5\nweight_decay = 0.1\n"
        "stop = { loss = 4.0, strengths = [2.0, nan], steady = 1e-9 }",
    )
    result = run(text.replace("depth = [1, 2]", "depth = 2"))
    saved = pydln.Trajectory.load(result.table.parent / "depth-2_width-5.npz")
    assert saved.names == ("loss", "drift")
    np.testing.assert_array_equal(saved.steps, [0, 7, 400])
    assert saved.settings["momentum"] == 0.5
    assert saved.settings["weight_decay"] == 0.1
    assert saved.settings["stop"]["loss"] == 4.0
    assert {row["status"] for row in result.rows} <= {"reached_loss", "reached_strength"}
    assert all(row["stopped_step"] < 400 for row in result.rows)


def test_members_that_diverge_spoil_nothing(run: Callable[..., SweepResult]) -> None:
    result = run(BASE.replace("[0.01, 0.02]", "[0.01, 1e9]").replace("steps = 20", "steps = 200\ntheory = true"))
    assert {row["depth"] for row in result.rows} == {1, 2}
    for row in result.rows:
        assert row["status"] == ("diverged" if row["lr"] > 1 else "completed")
        assert row["loss"] is None or np.isfinite(row["loss"])
        if row["theory"].startswith("exact"):
            assert (row["theory_gap"] == math.inf) == (row["status"] == "diverged")
    assert any(row["theory_gap"] == math.inf for row in result.rows)
    with result.table.open(newline="") as file:
        gaps = [row["theory_gap"] for row in csv.DictReader(file)]
    assert gaps == ["" if row["theory_gap"] is None else str(row["theory_gap"]) for row in result.rows]


@pytest.mark.parametrize("status", [pydln.Status.COMPLETED, pydln.Status.REACHED_LOSS, pydln.Status.DIVERGED])
@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf])
@pytest.mark.parametrize("whose", ["run", "theory"])
def test_a_distance_that_is_no_number_is_no_small_one(status: pydln.Status, bad: float, whose: str) -> None:
    """A gap is finite only if a member did not diverge and every distance up to where it stopped is."""
    end = 2 if status == pydln.Status.COMPLETED else 1

    def recorded(value: float, until: int, source: str) -> pydln.Trajectory:
        strengths = np.zeros((1, 3, 2))
        strengths[0, 1, 1] = value
        strengths[0, until + 1 :] = np.nan
        return pydln.Trajectory(
            t=np.arange(3.0),
            steps=np.arange(3),
            records={"strengths": strengths},
            status=np.array([status]),
            stopped_time=np.array([float(end)]),
            settings={},
            source=source,
        )

    runs = {
        name: recorded(bad if name == whose else 0.0, end if name == "run" else 2, name) for name in ("run", "theory")
    }
    (gap,) = run_module._gaps(runs["run"], runs["theory"], 2.0)
    assert gap == (0.25 if np.isfinite(bad) and status != pydln.Status.DIVERGED else np.inf)


def test_table_is_tidy(run: Callable[..., SweepResult]) -> None:
    result = run(ALIGNED)
    with result.table.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 16
    assert list(found[0])[:7] == ["part", "member", "depth", "width", "lr", "strength", "seed"]
    assert [float(row["loss"]) for row in found] == [row["loss"] for row in result.rows]


def test_test_loss_in_the_table(run: Callable[..., SweepResult]) -> None:
    result = run(BASE.replace('"spectrum"', '"teacher"').replace("steps = 20", "steps = 20\nrecord = 'test_loss'"))
    for row in result.rows:
        saved = pydln.Trajectory.load(result.table.parent / row["file"])
        assert row["test_loss"] == pytest.approx(saved.test_loss[row["member"], -1], rel=1e-12)


def test_threads_change_nothing(make: Make, tmp_path: Path, no_picture: None) -> None:
    one = run_sweep(make(), out=tmp_path / "one", n_threads=1)
    two = run_sweep(make(), out=tmp_path / "two", n_threads=2)
    assert one.rows == two.rows


def test_progress_counts_parts(run: Callable[..., SweepResult]) -> None:
    seen: list[tuple[float, int, str]] = []
    run(progress=lambda *what: seen.append(what))
    assert {total for _, total, _ in seen} == {2}
    done = [one for one, _, _ in seen]
    assert done == sorted(done)
    assert 0.0 in done
    assert 1.0 in done
    assert max(done) <= 2.0
    assert {what for _, _, what in seen} == {"depth 1", "depth 2, width 5"}


# --- theory ----------------------------------------------------------------------------------------------------------
def test_theory_beside_aligned_starts(run: Callable[..., SweepResult]) -> None:
    """Gradient descent is within O(lr) of gradient flow: the gap is small, and shrinks with lr."""
    result = run(ALIGNED.replace("[0.01, 0.02]", "[0.001, 0.002]").replace("steps = 20", "steps = 2000\ntheory = true"))
    gaps = {(r["depth"], r["strength"], r["seed"], r["lr"]): r["theory_gap"] for r in result.rows}
    for (depth, strength, seed, lr), gap in gaps.items():
        assert 0 < gap < 0.01
        if lr == 0.002:
            assert gap / gaps[depth, strength, seed, 0.001] == pytest.approx(2.0, rel=0.1)
    assert {row["theory"].split(":")[0] for row in result.rows} == {"exact"}
    theory = pydln.Trajectory.load(result.table.parent / "depth-2_width-5.theory.npz")
    simulated = pydln.Trajectory.load(result.table.parent / "depth-2_width-5.npz")
    np.testing.assert_array_equal(theory.t, simulated.t)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BASE.replace("depth = [1, 2]", "depth = 2"), "none: "),
        (ALIGNED.replace("steps = 20", "steps = 20\nmomentum = 0.5"), "none: momentum = 0.5"),
        (ALIGNED.replace("steps = 20", "steps = 20\nweight_decay = 0.1"), "none: weight_decay = 0.1"),
    ],
)
def test_no_theory_with_the_reason(run: Callable[..., SweepResult], text: str, reason: str) -> None:
    result = run(text.replace("steps = 20", "steps = 20\ntheory = true"))
    for row in result.rows:
        assert row["theory"].startswith(reason)
        assert len(row["theory"]) > len("none: ")
        assert row["theory_gap"] is None
    assert list(result.table.parent.glob("*.theory.npz")) == []


# --- running again, interrupts ---------------------------------------------------------------------------------------
def test_finished_parts_are_not_run_again(run: Callable[..., SweepResult], calls: list[int]) -> None:
    first = run()
    assert calls == [1, 2]
    again = run("# only a comment more\n" + BASE)
    assert calls == [1, 2]
    assert (again.skipped, again.rows) == (2, first.rows)
    run(BASE.replace("depth = [1, 2]", "depth = [1, 2, 3]"))
    assert calls == [1, 2, 3], "a new depth leaves the others as they are"
    run(BASE.replace("seeds = 2", "seeds = 3"))
    assert calls == [1, 2, 3, 1, 2]
    run(BASE.replace("seeds = 2", "seeds = 3").replace("steps = 20", "steps = 21"))
    assert calls == [1, 2, 3, 1, 2, 1, 2]


def test_another_version_runs_again(
    run: Callable[..., SweepResult], calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    monkeypatch.setattr(run_module.backend, "version", lambda: "another")
    run()
    assert calls == [1, 2, 1, 2]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_part_whose_file_is_gone_or_cut_is_run_again(
    run: Callable[..., SweepResult], calls: list[int], harm: Callable[[Path], object]
) -> None:
    first = run()
    harm(first.table.parent / "depth-1.npz")
    assert run().rows == first.rows
    assert calls == [1, 2, 1]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[1]", "[" * 100_000, '{"format": "of something else", "parts": {}}', "\xff", "null", "1" * 5000),
        *(f'{{"format": "pydln sweep 1", "parts": {parts}}}' for parts in ("[]", "3", '{"a": 3}', '{"a": {}}')),
        '{"format": "pydln sweep 1", "parts": {"a": {"fingerprint": "x", "files": [], "rows": []}}}',
        '{"format": "pydln sweep 1", "parts": {"a": {"fingerprint": "x", "files": {}, "rows": [1]}}}',
    ],
    ids=lambda text: text[:70],
)
def test_a_foreign_index_is_not_overwritten(run: Callable[..., SweepResult], tmp_path: Path, text: str) -> None:
    (tmp_path / "results").mkdir()
    index = tmp_path / "results" / "sweep.json"
    index.write_text(text, encoding="latin-1")
    with pytest.raises(pydln.FileDamaged, match=r"sweep\.json is not the index of a pydln sweep"):
        run()
    assert index.read_text(encoding="latin-1") == text


def test_a_file_where_the_folder_belongs(run: Callable[..., SweepResult], tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(ValueError, match=r"out: expected a folder, got .*results, where a file stands"):
        run()


def test_interrupt_keeps_everything(
    run: Callable[..., SweepResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run_module.gradient_descent

    def stopping(task: pydln.Task, weights: pydln.Weights, **options: Any) -> pydln.Trajectory:
        trajectory = real(task, weights, **options)
        if options["steps"] and weights.depth == 2:
            raise pydln.Interrupted("interrupted", trajectory)
        return trajectory

    results = tmp_path / "results"
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "gradient_descent", stopping)
        with pytest.raises(
            pydln.Interrupted, match=r"interrupted at depth 2, width 5: 1 of 2 parts are complete"
        ) as stop:
            run()
    partial = results / "depth-2_width-5.partial.npz"
    np.testing.assert_array_equal(pydln.Trajectory.load(partial).loss, stop.value.trajectory.loss)
    with (results / "sweep.csv").open(newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["depth-1.npz"] * 8 + [partial.name] * 8

    result = run()
    assert result.skipped == 1
    assert not partial.exists()
    assert {row["file"] for row in result.rows} == {"depth-1.npz", "depth-2_width-5.npz"}


# --- the picture -----------------------------------------------------------------------------------------------------
WITH_TEST = BASE.replace('"spectrum"', '"teacher"').replace("steps = 20", "steps = 90\nrecord = ['loss', 'test_loss']")


@pytest.mark.parametrize("text", [WITH_TEST, BASE.replace("[0.01, 0.02]", "[0.01, 1e9]")])
def test_quick_look(make: Make, tmp_path: Path, text: str) -> None:
    pytest.importorskip("matplotlib")
    result = run_sweep(make(text), out=tmp_path)
    assert result.picture is not None
    assert result.picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("why", ["no matplotlib", "no loss"])
def test_no_quick_look(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    text = BASE
    if why == "no matplotlib":
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    else:
        text = BASE.replace("steps = 20", "steps = 20\nrecord = 'strengths'")
    result = run_sweep(make(text), out=tmp_path)
    assert result.picture is None
    assert result.table.exists()
