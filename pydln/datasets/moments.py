"""Exact second moments of labelled 8-bit images, and the ones of MNIST that are shipped with the package.

Deep linear learning sees images only through sums over samples of x xᵀ, of y xᵀ and of |y|². Pixels are integers from 0
to 255 and targets one-hot, so these sums are integers: they are kept exactly, and every normalisation is left to the
reader.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydln._base import validate
from pydln.errors import FileDamaged

__all__ = ["PARTS", "Moments", "mnist_moments", "read", "write"]

PARTS = {"train": "mnist_first50000.npz", "validation": "mnist_last10000.npz", "test": "mnist_test10000.npz"}
"""The shipped files: the first 50,000 training images, the last 10,000, and the 10,000 test images."""

_KEYS = ("active", "planes", "yx", "counts")


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over samples; x the pixels (0 to 255) of one image in a row, y its one-hot label. All int64.

    Attributes
    ----------
    xx : (pixels, pixels) array
        Sum of x xᵀ.
    yx : (classes, pixels) array
        Sum of y xᵀ: the sum of the images of each class. Its sum over classes is the sum of all images.
    counts : (classes,) array
        Samples of each class; their sum is the number of samples, which is also the sum of |y|².
    """

    xx: NDArray[np.int64]
    yx: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return int(self.counts.sum())

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of samples together."""
        return Moments(self.xx + other.xx, self.yx + other.yx, self.counts + other.counts)


def write(path: str | os.PathLike[str], moments: Moments) -> None:
    """Write `moments` compactly (npz, no pickle; the same bytes for the same numbers and the same zlib).

    Only the upper triangle over the pixels that are ever non-zero is kept, as uint32 split into four planes of bytes:
    the high planes compress well, the low ones are noise. On MNIST this is 0.5 to 0.6 MB for what is 4.9 MB as a matrix
    of float64.
    """
    active = np.flatnonzero(moments.xx.diagonal())
    upper = moments.xx[np.ix_(active, active)][np.triu_indices(len(active))]
    if min(upper.min(initial=0), moments.yx.min()) < 0 or max(upper.max(initial=0), moments.yx.max()) >= 2**32:
        raise ValueError("moments: expected sums from 0 to 2**32 - 1, got some outside")
    planes = np.ascontiguousarray(upper.astype("<u4").view(np.uint8).reshape(-1, 4).T)
    with open(path, "wb") as file:
        np.savez_compressed(
            file,
            active=active.astype("<u2"),
            planes=planes,
            yx=moments.yx.astype("<u4"),
            counts=moments.counts.astype("<u4"),
        )


def read(path: str | os.PathLike[str]) -> Moments:
    """Read what `write` wrote.

    Raises
    ------
    FileDamaged
        The file is truncated or is something else.
    """
    import zipfile
    import zlib

    try:
        # np.load given a path leaves a damaged file open
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            active, planes, yx, counts = (archive[key] for key in _KEYS)
        k = len(active)
        upper = np.ascontiguousarray(planes.T).view("<u4").reshape(k * (k + 1) // 2)
        xx = np.zeros((yx.shape[1], yx.shape[1]), np.int64)
        i, j = np.triu_indices(k)
        xx[active[i], active[j]] = upper
        xx[active[j], active[i]] = upper
    except (
        KeyError,
        ValueError,
        IndexError,
        TypeError,
        EOFError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise FileDamaged(f"{path}: expected a file of second moments, got something else or a part of one") from error
    return Moments(xx, yx.astype(np.int64), counts.astype(np.int64))


def mnist_moments(part: str = "train") -> Moments:
    """The shipped second moments of MNIST; no download.

    Parameters
    ----------
    part : {"train", "validation", "test"}
        The first 50,000 training images, the last 10,000, or the 10,000 test images.

    Returns
    -------
    Moments
        784 pixels (rows of the 28 x 28 image one after another), 10 classes.
    """
    from importlib import resources

    validate.choice(part, "part", PARTS)
    resource = resources.files("pydln.datasets").joinpath(PARTS[part])
    with resources.as_file(resource) as path:
        return read(path)
