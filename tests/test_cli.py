"""The command line: what it prints, its exit codes, and that a mistake is one sentence."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pydln

typer = pytest.importorskip("typer")
typer_testing = pytest.importorskip("typer.testing")

from pydln import __main__, reproduce  # noqa: E402
from pydln._base import backend  # noqa: E402
from pydln.cli import app  # noqa: E402
from pydln.reproduce import Check, Report  # noqa: E402

RUN_FILE = """\
[task]
kind = "spectrum"
s = [3.0, 1.0]
n_in = 4
n_out = 3

[start]
kind = "aligned"

[grid]
depth = [1, 2]
strength = [0.1, 0.5]
lr = 0.01

[run]
steps = 20
theory = true
"""


class Call:
    """Exit code and the two outputs of one call of the command."""

    def __init__(self, *arguments: object) -> None:
        result = typer_testing.CliRunner().invoke(app, [str(one) for one in arguments], prog_name="pydln")
        self.code: int = result.exit_code
        self.out: str = result.stdout
        self.err: str = result.stderr
        self.error = result.exception


def assert_mistake(call: Call, *parts: str) -> None:
    assert call.code == 2
    assert call.err.count("\n") == 1, f"expected one sentence, got {call.err!r}"
    assert call.err.startswith("pydln: ")
    assert "Traceback" not in call.err + call.out
    for part in parts:
        assert part in call.err


def python(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.toml"
    path.write_text(RUN_FILE)
    return path


# --- pydln, pydln info -----------------------------------------------------------------------------------------------
def test_version() -> None:
    call = Call("--version")
    assert (call.code, call.out) == (0, f"pydln {pydln.__version__}\n")


def test_help_names_the_commands() -> None:
    for call in (Call("--help"), Call()):
        assert all(re.search(rf"\b{name}\b", call.out + call.err) for name in ("reproduce", "redraw", "run", "info"))


def test_module_and_entry_point() -> None:
    done = python("-m", "pydln", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pydln {pydln.__version__}\n", "")
    done = python("-m", "pydln", "no-such-command")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("absent", ["typer", "rich"])
def test_without_the_extra_one_sentence(absent: str) -> None:
    code = f"import sys; sys.modules['{absent}'] = None; from pydln.__main__ import main; main()"
    done = python("-c", code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "the command pydln needs typer and rich: pip install 'pydln[cli]'\n"


def test_info() -> None:
    call = Call("info")
    assert call.code == 0
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in call.out.splitlines())
    assert rows["pydln"] == pydln.__version__
    assert rows["instruction set"] == backend.isa()
    usable, compiled = (rows[f"instruction sets {what}"].split(", ") for what in ("usable", "compiled"))
    assert usable == list(backend.available_isas())
    assert set(usable) <= set(compiled)
    assert rows["threads"] == str(backend.default_threads())
    assert rows["compiler"]
    assert {"numpy", "scipy", "python"} <= rows.keys()


@pytest.mark.parametrize(("best", "told"), [(backend.available_isas()[-1], False), ("elsewhere", True)])
def test_info_tells_what_would_be_faster(best: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build for one computer that runs on another, which has better kernels than those compiled."""
    monkeypatch.setattr(backend.core, "best_isa", lambda: best)
    out = Call("info").out
    assert ("faster here, not compiled" in out) == told
    assert (f"  {best}: install on this computer" in out) == told


def test_info_with_a_wrong_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDLN_NUM_THREADS", "many")
    assert_mistake(Call("info"), "PYDLN_NUM_THREADS: expected an integer >= 1, got 'many'")


# --- help ------------------------------------------------------------------------------------------------------------
def commands() -> dict[tuple[str, ...], Any]:
    """The command and its subcommands, as click has them."""
    root = typer.main.get_command(app)
    return {(): root, **{(name,): one for name, one in root.commands.items()}}  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_shows_every_word_that_is_written(words: tuple[str, ...]) -> None:
    """Markup takes words in brackets for styles and drops them."""
    command = commands()[words]
    call = Call(*words, "--help")
    assert call.code == 0
    shown = " ".join(call.out.split())
    texts = [command.help, *(one.help for one in command.params if getattr(one, "help", None))]
    if not words:
        texts += [one.short_help for one in command.commands.values()]
    for text in texts:
        for word in (text or "").split():
            assert word in shown, f"{word!r} of {text!r}"
    assert words != ("run",) or "[output] dir by default" in shown


@pytest.mark.parametrize("text", ["[output]", "[/]", "[bold]x[/bold]", "a\\[b]", "[link=x]"])
def test_messages_show_brackets_as_they_are(file: Path, tmp_path: Path, text: str, figures: Any) -> None:
    assert_mistake(Call("run", f"{text}.toml"), f"{text}.toml: there is no such file")
    figures(lambda name: Report(name, text, (Check.show(text, measured=1.0, note=text),), (Path(text),), {}))
    call = Call("reproduce", "fig3")
    assert call.code == 0, call.err
    assert call.out.count(text) == 3
    assert text in Call("run", file, "--out", tmp_path / "results" / text.replace("/", "")).out or "/" in text


@pytest.mark.parametrize("count", [2**31, 2**63, 10**30])
def test_numbers_of_threads_that_no_int_holds(file: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in (Call("run", file, "--threads", count), Call("reproduce", "fig3", "--threads", count)):
        assert call.code == 2
        assert "2147483647" in call.err
    monkeypatch.setenv("PYDLN_NUM_THREADS", str(count))
    assert_mistake(Call("info"), f"PYDLN_NUM_THREADS: expected an integer <= 2147483647, got '{count}'")


def test_too_little_memory_is_a_sentence(figures: Any) -> None:
    figures(raises(MemoryError("Unable to allocate 1 TB")))
    assert_mistake(Call("reproduce", "fig3"), "not enough memory (Unable to allocate 1 TB)")


# --- pydln run -------------------------------------------------------------------------------------------------------
def test_run(file: Path, tmp_path: Path) -> None:
    call = Call("run", file, "--out", tmp_path / "results", "--threads", 1)
    assert (call.code, call.err) == (0, "")
    for part in ("depth-1", "depth-2", "2 completed", "aligned", "sweep.csv"):
        assert part in call.out
    assert (tmp_path / "results" / "depth-2.npz").exists()
    again = Call("run", file, "--out", tmp_path / "results")
    assert again.code == 0
    assert "2 of 2 parts were finished before, and not run again" in again.out


def test_run_writes_into_the_folder_of_the_file_s_output(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Call("run", "sweep.toml").code == 0
    assert (tmp_path / "sweep-results" / "sweep.csv").exists()
    file.write_text(RUN_FILE + '[output]\nname = "other"\ndir = "there"\n')
    assert Call("run", "sweep.toml").code == 0
    assert (tmp_path / "there" / "other.csv").exists()


def test_run_mistakes(file: Path, tmp_path: Path) -> None:
    assert_mistake(Call("run", tmp_path / "absent.toml"), "absent.toml: there is no such file")
    file.write_text(RUN_FILE.replace("lr = 0.01", "lr = -0.1"))
    assert_mistake(Call("run", file), "sweep.toml:13: grid.lr: expected numbers > 0, got -0.1")
    file.write_text(RUN_FILE)
    (tmp_path / "taken").write_text("")
    assert_mistake(Call("run", file, "--out", tmp_path / "taken"), "taken, where a file stands")
    assert Call("run", file, "--threads", 0).code == 2


def test_traceback_on_request(file: Path) -> None:
    file.write_text("")
    call = Call("--traceback", "run", file)
    assert isinstance(call.error, ValueError)
    assert call.code == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_keeps_what_was_done(file: Path, tmp_path: Path) -> None:
    """Depth 1 learns in 200 steps; depth 5 from so small a start would take years, and is interrupted."""
    results = tmp_path / "results"
    text = (
        RUN_FILE.replace("[1, 2]", "[1, 5]").replace("[0.1, 0.5]", "1e-20").replace("theory = true", "stop.loss = 1.0")
    )
    file.write_text(text.replace("steps = 20", "steps = 4_000_000_000\nrecord_every = 1_000_000_000"))
    first = subprocess.Popen(
        [sys.executable, "-m", "pydln", "run", str(file), "--out", str(results)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 30
        while not (results / "depth-1.npz").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(first.pid, signal.SIGINT)
        out, err = first.communicate(timeout=30)
    finally:
        first.kill()
    assert first.returncode == 130, err
    assert (out, err.count("\n")) == ("", 1)
    assert "interrupted at depth 5: 1 of 2 parts are complete" in err
    assert pydln.Trajectory.load(results / "depth-1.npz").status == pydln.Status.REACHED_LOSS
    assert pydln.Trajectory.load(results / "depth-5.partial.npz").status == pydln.Status.INTERRUPTED
    assert (results / "sweep.csv").read_text().count("\n") == 3


# --- pydln reproduce -------------------------------------------------------------------------------------------------
@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], Report]], list[tuple[str, dict[str, Any]]]]:
    """Put something quick in the place of the figures; the list holds the calls made."""

    def install(make: Callable[[str], Report]) -> list[tuple[str, dict[str, Any]]]:
        made: list[tuple[str, dict[str, Any]]] = []

        def stand_in(name: str, out_dir: Path, *, progress: Callable[..., object], **options: Any) -> Report:
            made.append((name, {"out": out_dir, **options}))
            progress(0, 2, "something")
            progress(2, 2, "something")
            return make(name)

        monkeypatch.setattr(reproduce, "reproduce", stand_in)
        return made

    return install


def report(name: str, *, measured: float = 1.001) -> Report:
    checks = (
        Check.compare("half-time [a] (τ)", theory=1.0, measured=measured, tolerance=0.01, note="a note [b]"),
        Check.show("members", measured=12.0),
    )
    return Report(name, f"The title of {name}", checks, (Path(f"{name}.png"), Path(f"{name}.svg")), {})


def test_reproduce(figures: Any, tmp_path: Path) -> None:
    calls = figures(report)
    call = Call("reproduce", "fig3", "--full", "--out", tmp_path, "--seed", 7, "--threads", 2)
    assert call.code == 0, call.err
    assert calls == [("fig3", {"out": tmp_path, "full": True, "seed": 7, "keep": False, "n_threads": 2})]
    for part in ("The title of fig3", "half-time [a] (τ)", "+0.1 %", "pass", "fig3.png\n", "fig3.svg\n", "shown"):
        assert part in call.out


def test_reproduce_all_in_order(figures: Any) -> None:
    calls = figures(report)
    assert Call("reproduce", "all").code == 0
    assert [(name, options["keep"]) for name, options in calls] == [(name, True) for name in reproduce.FIGURES]
    calls.clear()
    assert Call("reproduce", "all", "--again").code == 0
    assert not any(options["keep"] for _, options in calls)


def test_a_failed_check_is_exit_1_after_all_figures(figures: Any) -> None:
    calls = figures(lambda name: report(name, measured=1.5 if name == "fig3" else 1.0))
    call = Call("reproduce", "all")
    assert call.code == 1
    assert len(calls) == len(reproduce.FIGURES)
    assert "FAIL half-time [a] (τ): a note [b]" in call.out


def test_reproduce_mistakes(figures: Any) -> None:
    calls = figures(report)
    assert_mistake(
        Call("reproduce", "fig0"), f"figure: expected one of {', '.join(reproduce.FIGURES)}, all, got 'fig0'"
    )
    assert calls == []
    figures(raises(pydln.MissingExtra.of("matplotlib", "plot", "pydln.reproduce")))
    assert_mistake(Call("reproduce", "fig3"), "pydln.reproduce needs matplotlib: pip install 'pydln[plot]'")


def test_ctrl_c_during_a_figure_says_what_is_there(figures: Any, tmp_path: Path) -> None:
    first = reproduce.FIGURES[0]
    figures(lambda name: report(name) if name == first else raises(KeyboardInterrupt())(name))
    call = Call("reproduce", "all", "--out", tmp_path)
    assert call.code == 130
    assert call.err == f"pydln: interrupted: {first} finished, in {tmp_path}\n"


def test_mistakes_of_ours_keep_their_traceback(figures: Any) -> None:
    figures(raises(ZeroDivisionError("a bug")))
    assert isinstance(Call("reproduce", "fig3").error, ZeroDivisionError)


def test_redraw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def stand_in(folder: Path, **given: Any) -> tuple[Path, ...]:
        calls.append((folder, given))
        return (folder / "fig2.pdf", folder / "fig3.pdf")

    monkeypatch.setattr(reproduce, "redraw", stand_in)
    call = Call("redraw", tmp_path)
    assert (call.code, call.out, call.err) == (0, f"{tmp_path / 'fig2.pdf'}\n{tmp_path / 'fig3.pdf'}\n", "")
    options = ["--figure", "fig2", "--style", "a.mplstyle", "--format", "svg", "--format", "png", "--out", "b"]
    assert Call("redraw", tmp_path, *options).code == 0
    assert calls == [
        (tmp_path, {"figures": None, "style": None, "format": "pdf", "out": None}),
        (tmp_path, {"figures": ["fig2"], "style": "a.mplstyle", "format": ["svg", "png"], "out": Path("b")}),
    ]


def test_redraw_mistakes(tmp_path: Path) -> None:
    assert_mistake(Call("redraw", tmp_path), "dir: expected a folder that pydln reproduce wrote", "holds no numbers")
    assert_mistake(Call("redraw", tmp_path / "absent"), "there is no folder")
    assert_mistake(Call("redraw", tmp_path, "--format", "gif"), "format: expected one of 'png', 'pdf'", "got 'gif'")


def raises(error: BaseException) -> Callable[[str], Report]:
    def make(name: str) -> Report:
        raise error

    return make


def test_main_is_the_entry_point(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pydln", "--version"])
    with pytest.raises(SystemExit) as left:
        __main__.main()
    assert left.value.code == 0
    assert capsys.readouterr().out == f"pydln {pydln.__version__}\n"


def test_inputs_go_to_the_figures_that_know_them(figures: Any, tmp_path: Path) -> None:
    calls = figures(report)
    assert Call("reproduce", "fig4", "--inputs", "raw").code == 0
    assert Call("reproduce", "all", "--inputs", "raw").code == 0
    assert [(name, options.get("inputs")) for name, options in calls] == [
        ("fig4", "raw"),
        *((name, "raw" if name == "fig4" else None) for name in reproduce.FIGURES),
    ]


def test_inputs_that_no_figure_knows(tmp_path: Path) -> None:
    call = Call("reproduce", "fig3", "--inputs", "raw", "--out", tmp_path / "out")
    assert_mistake(call, "inputs: fig3 does not take it; its own options are starts")
    call = Call("reproduce", "fig4", "--inputs", "white", "--out", tmp_path / "out")
    assert_mistake(call, "inputs: expected one of 'whitened', 'raw', got 'white'")
    assert not (tmp_path / "out").exists()


def test_ctrl_c_inside_a_simulation_says_what_was_kept(figures: Any) -> None:
    run = pydln.Trajectory(
        t=[0.0], steps=[0], records={}, status=[5], stopped_step=[0], stopped_time=[0], source="gradient_descent"
    )
    figures(raises(pydln.Interrupted("interrupted: 0 of 1 members are complete; see .trajectory", run)))
    call = Call("reproduce", "fig3")
    assert (call.code, call.err) == (130, "pydln: interrupted: no figure was finished\n")


def test_an_instruction_set_that_is_not_there() -> None:
    done = python("-m", "pydln", "info", env=os.environ | {"PYDLN_ISA": "foo"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("pydln: PYDLN_ISA: expected one of ")
