"""Draws finished figures again from their numbers, for the style of a publication. Nothing is computed."""

from __future__ import annotations

import logging
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln._base import atomic, backend, validate
from pydln.errors import FileDamaged, MissingExtra
from pydln.reproduce import catalogue
from pydln.reproduce.picture import FORMATS, blank, encoded
from pydln.reproduce.recipe import Numbers
from pydln.reproduce.report import STAMP

__all__ = ["redraw"]

# Of a style sheet that is a whole matplotlibrc: what concerns windows, which nothing here opens.
_NO_STYLE = (
    "backend",
    "interactive",
    "toolbar",
    "webagg",
    "keymap",
    "savefig.directory",
    "savefig.format",
    "figure.hooks",
)


def redraw(
    dir: str | os.PathLike[str],  # noqa: A002 - what it is
    *,
    figures: str | Sequence[str] | None = None,
    style: str | os.PathLike[str] | None = None,
    format: str | Sequence[str] = "pdf",  # noqa: A002
    out: str | os.PathLike[str] | None = None,
) -> tuple[Path, ...]:
    """Draw every figure of a folder again from its numbers, without computing anything.

    Parameters
    ----------
    dir : path
        A folder that `reproduce` wrote. Of each figure only the npz file is needed.
    figures : str or sequence of str, optional
        Names out of `FIGURES`; by default all whose numbers are there.
    style : path or str, optional
        A matplotlib style sheet, or the name of one of matplotlib's own, over matplotlib's defaults as they are set.
        Its ``figure.figsize`` and ``savefig.dpi`` count; colours and widths of lines that tell theory from simulation
        are the figure's own.
    format : str or sequence of str
        Kinds of picture files: png, pdf, svg, eps, ps, jpg, tiff, webp.
    out : path, optional
        Folder for the pictures, made if it is not there; `dir` by default. Pictures of the same name are replaced.

    Returns
    -------
    tuple of Path
        The pictures, figure by figure.

    Raises
    ------
    ValueError, TypeError
        No folder of figures, numbers of another version of pydln, no such style or format, or one in which matplotlib
        cannot draw a figure: too small, or with TeX where there is none.
    FileDamaged
        A file of numbers cannot be read, or lacks an array.
    MissingExtra
        matplotlib is not installed.
    """
    kinds = validate.names(format, "format", FORMATS)
    if not kinds:
        raise ValueError("format: expected at least one kind of file, got none")
    folder = Path(dir)
    if not folder.is_dir():
        raise ValueError(f"dir: expected a folder that pydln reproduce wrote, there is no folder {folder}")
    target = folder if out is None else Path(out)
    if not atomic.may_be_folder(target):
        raise ValueError(f"out: expected a directory, got the file {target}")
    asked = catalogue.FIGURES if figures is None else validate.names(figures, "figures", catalogue.FIGURES)
    found = {name: path for name in asked if (path := folder / f"{name}.npz").is_file()}
    for name in asked:
        if figures is not None and name not in found:
            raise ValueError(f"figures: {folder} holds no numbers of {name}")
    if not found:
        raise ValueError(f"dir: expected a folder that pydln reproduce wrote, {folder} holds no numbers of a figure")
    numbers = {name: _read(path) for name, path in found.items()}
    with _styled(style) as looks:
        drawn = [_drawn(name, kept, kinds, looks) for name, kept in numbers.items()]
    pictures = {target / file: content for files in drawn for file, content in files.items()}
    target.mkdir(parents=True, exist_ok=True)
    for path, content in pictures.items():
        with atomic.replacing(path) as file:
            file.write(content)
    return tuple(pictures)


def _drawn(name: str, numbers: Numbers, kinds: Sequence[str], looks: Mapping[str, Any]) -> dict[str, bytes]:
    """The pictures of a figure by the names of their files."""
    recipe = catalogue.recipe(name)
    figure = blank(*looks.get("figure.figsize", recipe.inches))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "constrained_layout not applied", UserWarning)  # the size is too small
            recipe.draw(figure, numbers)
            return {f"{name}.{kind}": encoded(figure, kind, looks.get("savefig.dpi")) for kind in kinds}
    except (RuntimeError, UserWarning) as error:  # such as text.usetex where there is no TeX
        raise ValueError(f"{name} cannot be drawn: {_sentence(error)}") from error


class _Kept(dict[str, NDArray[Any]]):
    """The arrays of a file; one that is missing is the file's fault."""

    def __init__(self, path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(arrays)
        self.path = path

    def __missing__(self, name: str) -> NDArray[Any]:
        raise FileDamaged(f"{self.path}: the array {name} is missing: make the figure again")


def _read(path: Path) -> _Kept:
    """The numbers of a figure, of this version."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        raise FileDamaged(f"{path}: cannot be read as the numbers of a figure: make the figure again") from None
    if STAMP not in arrays:
        raise FileDamaged(f"{path}: does not say which version of pydln wrote it: make the figure again")
    written, here = str(arrays[STAMP]), backend.version()
    if written != here:
        raise ValueError(f"{path}: expected numbers of pydln {here}, got those of {written}: make the figure again")
    return _Kept(path, arrays)


@contextmanager
def _styled(style: str | os.PathLike[str] | None) -> Iterator[Mapping[str, Any]]:
    """Matplotlib with a style sheet, and what that sheet sets."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra.of("matplotlib", "plot", "pydln.reproduce") from None
    looks: Any = {} if style is None else _looks(style)
    with matplotlib.rc_context(looks):
        yield looks


def _looks(style: str | os.PathLike[str]) -> dict[str, Any]:
    """What a style sheet sets."""
    import matplotlib
    import matplotlib.style

    if not isinstance(style, str | os.PathLike):
        raise TypeError(f"style: expected the path of a style sheet, got {validate.short(style)}")
    path = Path(style)
    if not path.is_file():
        if str(style) not in matplotlib.style.available:
            raise ValueError(f"style: expected a matplotlib style sheet, there is no file {path}")
        library: Any = matplotlib.style.library
        return _style_only(library[str(style)])
    complaints = _Complaints()
    log = logging.getLogger("matplotlib")
    log.addHandler(complaints)
    heard, log.propagate = log.propagate, False
    try:
        read = matplotlib.rc_params_from_file(path, fail_on_error=True, use_default_template=False)
    except (ValueError, OSError) as error:
        raise ValueError(f"style: {path} is no matplotlib style sheet: {_sentence(error)}") from None
    finally:
        log.removeHandler(complaints)
        log.propagate = heard
    if complaints.said:
        raise ValueError(f"style: {path} is no matplotlib style sheet: {complaints.said[0]}")
    return _style_only(read)


def _style_only(read: Mapping[Any, Any]) -> dict[str, Any]:
    return {key: value for key, value in read.items() if not key.startswith(_NO_STYLE)}


class _Complaints(logging.Handler):
    """What matplotlib says of lines that it does not understand, and passes over."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(_sentence(record.getMessage()))


def _sentence(error: object) -> str:
    """The first lines of a message, as one."""
    return " ".join(str(error).split())[:200]
