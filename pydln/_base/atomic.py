"""Files that several runs use at once: written whole or not at all, by one at a time, nothing left by the killed."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not a POSIX system: names of their own must do
    fcntl = None  # type: ignore[assignment]

__all__ = ["locked", "may_be_folder", "remove_orphans", "replacing"]

_UNFINISHED = re.compile(r"\.pydln-[0-9a-f]{16}\.tmp")


def _lock(file: IO[bytes], *, wait: bool) -> bool:
    """Whether this process now has the lock of `file`; the system takes it back however the process ends."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def may_be_folder(path: Path) -> bool:
    """Whether `path` is a folder or can become one: no file stands there, nor where a parent belongs."""
    return all(part.is_dir() or not part.exists() for part in (path, *path.parents))


def _is_at(path: Path, file: IO[bytes]) -> bool:
    """Whether `file` is still the one that `path` names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _held(path: Path, waiting: Callable[[], object]) -> IO[bytes]:
    """`path` with its lock."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        try:
            if not _lock(file, wait=False):
                waiting()
                _lock(file, wait=True)
            if _is_at(path, file):  # and not removed by the one that was waited for
                return file
        except BaseException:
            file.close()
            raise
        file.close()


@contextmanager
def locked(path: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """One at a time, among all processes and threads: the block runs when no other that names `path` does.

    `path` is an empty file that is there meanwhile. Its folder is made if it is not there, and goes with it if the
    block fails and has left nothing in it. `waiting` is called before a wait.
    """
    made = not path.parent.exists()
    with _held(path, waiting):
        try:
            yield
        except BaseException:
            path.unlink(missing_ok=True)
            if made:
                with suppress(OSError):  # something is in it
                    path.parent.rmdir()
            raise
        path.unlink(missing_ok=True)


def _unfinished(folder: Path) -> tuple[Path, IO[bytes]]:
    """A new file in `folder`, locked for as long as it is open: that tells it from one whose writer was killed."""
    while True:
        path = folder / f".pydln-{secrets.token_hex(8)}.tmp"
        file = path.open("x+b")
        if _lock(file, wait=False) and _is_at(path, file):  # not taken for an orphan before it was locked
            return path, file
        file.close()


@contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """A file to write to that becomes `target` at the end; if the block fails, `target` stays what it is.

    Readers see the old file or the new one, also when the disk fills up or the process is killed half-way.
    """
    path, file = _unfinished(target.parent)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(path, target)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def remove_orphans(folder: Path) -> None:
    """Remove what `replacing` left in `folder` when its process was killed; what is being written stays."""
    if fcntl is None:
        return
    for path in folder.iterdir():
        if not _UNFINISHED.fullmatch(path.name) or path.is_symlink() or not path.is_file():
            continue
        try:
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except OSError:  # being written, finished meanwhile, somebody else's, or without locks nobody knows
            continue
