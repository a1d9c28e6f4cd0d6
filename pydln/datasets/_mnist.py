"""The MNIST images themselves, from the four IDX files of LeCun, Cortes and Burges."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydln.errors import DataNotFound, FileDamaged

__all__ = ["MNIST", "mnist"]

_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")

# name of the file without .gz, shape of its contents, MD5 of the .gz file as first published
_FILES: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("train-images-idx3-ubyte", (60000, 28, 28), "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    ("train-labels-idx1-ubyte", (60000,), "d53e105ee54ea40749a09fcbcd1e9432"),
    ("t10k-images-idx3-ubyte", (10000, 28, 28), "9fb629c4189551a2d022fa330f9573f3"),
    ("t10k-labels-idx1-ubyte", (10000,), "ec29112dd5afa0611ce80d1b7f02629c"),
)


class MNIST(NamedTuple):
    """The images and their labels, uint8.

    Attributes
    ----------
    train_images : (60000, 28, 28) array
        Pixels from 0 (paper) to 255 (ink).
    train_labels : (60000,) array
        Digits 0 to 9.
    test_images : (10000, 28, 28) array
    test_labels : (10000,) array
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


def mnist(path: str | os.PathLike[str] | None = None) -> MNIST:
    """Load the MNIST images.

    Only needed for the images themselves: `Task.mnist` uses second moments that come with the package.

    Parameters
    ----------
    path : path, optional
        Folder with the four IDX files (``train-images-idx3-ubyte`` and so on, gzipped or not). Without it: the folder
        named by the environment variable ``PYDLN_MNIST``, else ``pydln/mnist`` in the user's cache (``XDG_CACHE_HOME``
        or ``~/.cache``), where missing files are downloaded to with pooch and checked against their MD5.

    Raises
    ------
    DataNotFound
        The files are not there, and cannot be downloaded (no pooch, no network); the message says what to do.
    FileDamaged
        A file is truncated, or is not the MNIST file its name says.
    """
    if path is not None:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"path: expected a folder, got {path!r}")
        found = [_in_folder(Path(path), name, "path") for name, _, _ in _FILES]
    elif variable := os.environ.get("PYDLN_MNIST"):
        found = [_in_folder(Path(variable), name, "PYDLN_MNIST") for name, _, _ in _FILES]
    else:
        found = [_cached(name, md5) for name, _, md5 in _FILES]
    return MNIST(*(_read_idx(file, shape) for file, (_, shape, _) in zip(found, _FILES, strict=True)))


def _existing(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _in_folder(folder: Path, name: str, source: str) -> Path:
    file = _existing(folder, name)
    if file is None:
        what = f"no such file in {folder}" if folder.is_dir() else f"{folder}, which is not a folder"
        raise DataNotFound(f"{source}: expected a folder with the MNIST file {name} (or {name}.gz), got {what}")
    return file


def _cached(name: str, md5: str) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pydln" / "mnist"
    file = _existing(folder, name)
    return file if file is not None else _download(folder, name, md5)


def _download(folder: Path, name: str, md5: str) -> Path:
    advice = "give the folder of the IDX files as path= or in the environment variable PYDLN_MNIST"
    try:
        import pooch
    except ImportError:
        raise DataNotFound(
            f"MNIST: {name} is not in {folder} and pooch, which would download it, is not installed; "
            f"pip install 'pydln[data]', or {advice}"
        ) from None
    failures = []
    for mirror in _MIRRORS:
        try:
            file = pooch.retrieve(f"{mirror}{name}.gz", known_hash=f"md5:{md5}", fname=f"{name}.gz", path=folder)
            return Path(file)
        except (OSError, ValueError) as error:  # no network or no such page; a wrong checksum
            failures.append(error)
    raise DataNotFound(
        f"MNIST: {name} is not in {folder} and could not be downloaded ({type(failures[-1]).__name__}); "
        f"try again with a network, or {advice}"
    ) from failures[-1]


def _read_idx(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """IDX of unsigned bytes: 0, 0, 8, the number of dimensions, each size in four bytes (big-endian), the data."""
    import gzip
    import zlib

    data = file.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise FileDamaged(f"{file}: expected a whole gzip file, got a damaged or truncated one") from error
    start = 4 + 4 * len(shape)
    if data[:4] != bytes((0, 0, 8, len(shape))) or len(data) < start:
        raise FileDamaged(
            f"{file}: expected an IDX file of unsigned bytes in {len(shape)} dimensions, got something else"
        )
    sizes = tuple(int(n) for n in np.frombuffer(data, ">u4", len(shape), 4))
    if sizes != shape:
        raise FileDamaged(f"{file}: expected MNIST's {shape}, got a file of {sizes}")
    if len(data) - start != math.prod(shape):
        raise FileDamaged(f"{file}: expected {math.prod(shape)} bytes of data, got {len(data) - start}")
    result: NDArray[Any] = np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()
    if len(shape) == 1 and result.max() > 9:
        raise FileDamaged(f"{file}: expected labels from 0 to 9, got {result.max()}")
    return result
