"""What npz files claim to hold, looked at before any of it is unpacked or any memory is taken for it."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np

__all__ = ["UnsoundError", "unpacked_size"]

_LONGEST_HEADER = 65_536


class UnsoundError(Exception):
    """An archive whose entries are not what they claim to be; the text is what is wrong with it."""


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, dtype and length of the header of a .npy entry, of which little more is read than that."""
    try:
        with archive.open(entry) as file:
            start = file.read(12)
            version = tuple(start[6:8])
            length = int.from_bytes(start[8 : 10 if version == (1, 0) else 12], "little")
            if len(start) < 12 or version not in ((1, 0), (2, 0)) or length > _LONGEST_HEADER:
                raise UnsoundError(f"{entry.filename} has no header of an array")
            whole = length + (10 if version == (1, 0) else 12)
            text = io.BytesIO(start + file.read(whole - len(start)))
    except zipfile.BadZipFile:
        raise UnsoundError(f"the checksum of {entry.filename} does not match") from None
    try:
        np.lib.format.read_magic(text)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise UnsoundError(f"{entry.filename} has no header of an array") from None
    return tuple(int(n) for n in shape), dtype, whole


def unpacked_size(archive: zipfile.ZipFile, size: int, *, stored: bool = False) -> int:
    """Bytes that the arrays of an npz archive take, every one of them known to be as large as it says.

    Parameters
    ----------
    archive : ZipFile
    size : int
        Bytes of its file.
    stored : bool
        Refuse compressed entries, which let a small file unpack to any size.

    Raises
    ------
    UnsoundError
        Entries that are encrypted, overlap, hold objects, or are of another size than their headers say.
    """
    entries = archive.infolist()
    if len({entry.filename for entry in entries}) < len(entries) or sum(e.compress_size for e in entries) > size:
        raise UnsoundError("its entries overlap")
    for entry in entries:
        if entry.flag_bits & 1:
            raise UnsoundError(f"{entry.filename} is encrypted")
        if stored and (entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size):
            raise UnsoundError(f"{entry.filename} is compressed")
        if not entry.filename.endswith(".npy"):
            continue
        shape, dtype, header = _header(archive, entry)
        if dtype.hasobject:
            raise UnsoundError(f"{entry.filename} holds Python objects")
        if (
            min(shape, default=0) < 0
            or not dtype.itemsize
            or header + math.prod(shape) * dtype.itemsize != entry.file_size
        ):
            raise UnsoundError(f"{entry.filename} is not of the size that its header says")
    return sum(entry.file_size for entry in entries)
