"""The command ``pydln``: ``reproduce``, ``redraw``, ``run``, ``info``. A mistake is one sentence and exit code 2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import rich.box
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import pydln
from pydln.errors import Interrupted, PydlnError
from pydln.reproduce import FIGURES

__all__ = ["app"]

FAILED_CHECK = 1
MISTAKE = 2
INTERRUPTED = 130

# Without a terminal there is no width to fit: tables go to files and logs in full.
_WIDE = 200

app = typer.Typer(
    help="Learning dynamics of deep linear networks: simulated in ensembles, with the exact theory beside them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help as it is written: markup would take "[output]" for a style and drop it
)

Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, max=2**31 - 1, help="Threads; all processors by default.")
]


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDE)


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        number = column.endswith(">")
        name = column.rstrip(">")
        table.add_column(name, justify="right" if number else "left", no_wrap=number or i == 0, overflow="fold")
    return table


@contextmanager
def _sentences(context: typer.Context, kept: Callable[[], str] = lambda: "nothing was written") -> Iterator[None]:
    """Errors that the user can act on become one sentence and an exit code; others stay what they are."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if context.obj["traceback"]:
            raise
        typer.echo(f"pydln: {stop if isinstance(stop, Interrupted) else f'interrupted: {kept()}'}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except (PydlnError, ValueError, TypeError, OSError) as error:
        if context.obj["traceback"]:
            raise
        typer.echo(f"pydln: {error}", err=True)
        raise typer.Exit(MISTAKE) from None
    except MemoryError as error:
        if context.obj["traceback"]:
            raise
        typer.echo(f"pydln: not enough memory{f' ({error})' if str(error) else ''}", err=True)
        raise typer.Exit(MISTAKE) from None


@contextmanager
def _bar() -> Iterator[Callable[[float, int, str], None]]:
    """A progress bar on the terminal, as a callable (done, total, what)."""
    console = _console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("", total=None)

        def show(done: float, total: int, what: str) -> None:
            bar.update(line, completed=done, total=total, description=what)

        yield show


def _number(value: float | None, spec: str = ".5g") -> str:
    return "" if value is None else f"{value:{spec}}"


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pydln {pydln.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code an error arose, for reporting it.")
    ] = False,
) -> None:
    context.obj = {"traceback": traceback}


@app.command(short_help="Make figures of Saxe et al. (2013), and check them.")
def reproduce(
    context: typer.Context,
    figure: Annotated[str, typer.Argument(help=f"{', '.join(FIGURES)} or all.", metavar="FIGURE")],
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="The paper's own sizes instead of quick ones; the hidden width 1000 of fig4 is run through its exact "
            "equivalent of width 10.",
        ),
    ] = False,
    inputs: Annotated[
        str | None,
        typer.Option("--inputs", metavar="KIND", help="Of fig4: whitened images (the default), or raw pixels."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")] = Path("out"),
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of everything drawn at random.")] = 0,
    again: Annotated[
        bool, typer.Option("--again", help="With all: make the figures again that an earlier run finished.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Make figures of Saxe, McClelland & Ganguli (2013), and check them against the theory.

    Each figure becomes a PNG and an SVG, its numbers (npz) and a table of what the theory says, what was measured and
    the difference; index.html shows them all. With all, figures that an earlier run finished in the same directory,
    with the same version and options, are kept. Exit code 1 if a check fails.
    """
    from pydln import reproduce as figures

    names = FIGURES if figure == "all" else (figure,)
    finished: list[str] = []

    def kept() -> str:
        return f"{' and '.join(finished)} finished, in {out}" if finished else "no figure was finished"

    passed = True
    for name in names:
        with _sentences(context, kept), _bar() as show:
            if name not in FIGURES:
                raise ValueError(f"figure: expected one of {', '.join(FIGURES)}, all, got {name!r}")
            # With `all` an option goes to the figures that know it.
            own = (
                {}
                if inputs is None or (figure == "all" and "inputs" not in figures.takes(name))
                else {"inputs": inputs}
            )
            try:
                report = figures.reproduce(
                    name,
                    out,
                    full=full,
                    seed=seed,
                    keep=figure == "all" and not again,
                    progress=show,
                    n_threads=threads,
                    **own,
                )
            except Interrupted as stop:  # whose sentence is for those who hold the exception
                raise KeyboardInterrupt from stop
        finished.append(name)
        _show_report(report)
        passed = passed and report.passed
    typer.echo(str(out / "index.html"))
    if not passed:
        raise typer.Exit(FAILED_CHECK)


def _show_report(report: Any) -> None:
    table = _table("", "check", "theory>", "measured>", "difference>", "allowed>", title=escape(report.title))
    verdicts = {True: "[green]pass[/]", False: "[bold red]FAIL[/]", None: "[dim]shown[/]"}
    for check in report.checks:
        scale, unit = (100.0, " %") if check.relative else (1.0, "")
        difference = "" if check.difference is None else f"{scale * check.difference:+.3g}{unit}"
        allowed = "" if check.tolerance is None else f"{scale * check.tolerance:.3g}{unit}"
        table.add_row(
            verdicts[check.passed],
            escape(check.name),
            _number(check.theory),
            _number(check.measured),
            difference,
            allowed,
        )
    console = _console()
    console.print(table)
    for check in report.checks:
        if check.passed is False:
            console.print(f"FAIL {check.name}: {check.note or 'no note'}", markup=False, soft_wrap=True)
    for file in report.files:
        typer.echo(str(file))


@app.command(short_help="Draw finished figures again, in another style or format.")
def redraw(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="What pydln reproduce wrote.", metavar="DIR")],
    only: Annotated[
        list[str] | None,
        typer.Option("--figure", metavar="FIGURE", help="One of those there, as fig3; several times for more."),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option("--style", metavar="FILE", help="A matplotlib style sheet, or the name of one of matplotlib's."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="KIND", help="pdf (the default), png, svg, eps, ...; several times for more."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="OUT", help="Where the pictures go; into DIR by default.")
    ] = None,
) -> None:
    """Draw the figures of a folder again from their numbers, in another style or format. Nothing is computed."""
    from pydln import reproduce as figures

    with _sentences(context):
        for path in figures.redraw(folder, figures=only, style=style, format=formats or "pdf", out=out):
            typer.echo(str(path))


@app.command(short_help="Run the sweep that a TOML file describes.")
def run(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A run file, see docs/run-file.md.", metavar="FILE.toml")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the results go; [output] dir by default.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Run the sweep that a TOML file describes: task, start, grid of depth, width, lr, scale or strength, and seeds.

    Each depth and width is saved as soon as it is finished, and is not run again while the file says the same.
    """
    from pydln import sweep

    with _sentences(context, lambda: "the parts that were finished are kept"):
        description = sweep.read_run_file(file)
        with _bar() as show:
            result = sweep.run_sweep(description, out=out, n_threads=threads, progress=show)
    _show_sweep(result)


def _show_sweep(result: Any) -> None:
    compared = any(row["theory"] for row in result.rows)
    theory = ("theory", "largest gap>") if compared else ()
    table = _table("part", "members>", "how they ended", "lowest loss>", "at lr>", *theory)
    parts = {part: list(rows) for part, rows in groupby(result.rows, key=lambda row: row["part"])}
    for part, rows in parts.items():
        ends = ", ".join(
            f"{n} {status.replace('_', ' ')}" for status, n in Counter(row["status"] for row in rows).items()
        )
        best = min((row for row in rows if row["loss"] is not None), key=lambda row: row["loss"], default=None)
        gaps = [row["theory_gap"] for row in rows if row["theory_gap"] is not None]
        table.add_row(
            escape(part),
            str(len(rows)),
            ends,
            _number(best and best["loss"]),
            _number(best and best["lr"]),
            *(
                (escape(rows[0]["theory"].removeprefix("exact:")), _number(max(gaps, default=None), ".2g"))
                if compared
                else ()
            ),
        )
    _console().print(table)
    if result.skipped:
        typer.echo(f"{result.skipped} of {len(parts)} parts were finished before, and not run again")
    for path in (result.table, result.picture):
        if path:
            typer.echo(str(path))


@app.command(short_help="Say how this copy was built and what it runs on.")
def info(context: typer.Context) -> None:
    """Say how this copy of pydln was built and what it runs on."""
    import numpy as np
    import scipy

    from pydln._base import backend

    with _sentences(context):
        rows = {
            "pydln": backend.version(),
            **backend.build_info(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        }
    del rows["version"]
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:{width}}  {value}")
