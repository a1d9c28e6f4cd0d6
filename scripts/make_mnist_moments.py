"""Make the second moments of MNIST that pydln ships, from the four IDX files.

Usage: python scripts/make_mnist_moments.py [FOLDER] [--out DIR]

FOLDER holds the IDX files (default: as `pydln.datasets.mnist` finds them). The numbers are exact integers, so the files
are the same wherever they are made (up to the version of zlib).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pydln.datasets import Moments, mnist
from pydln.datasets.moments import PARTS, write


def moments(images: NDArray[np.uint8], labels: NDArray[np.uint8], *, chunk: int = 10_000) -> Moments:
    """The sums over samples, exact in float64: every partial sum is an integer below 60000 * 255**2 < 2**53."""
    xx = np.zeros((images[0].size, images[0].size))
    yx = np.zeros((10, images[0].size))
    for first in range(0, len(images), chunk):
        x = images[first : first + chunk].reshape(-1, images[0].size).astype(np.float64)
        y = np.eye(10)[labels[first : first + chunk]]
        xx += x.T @ x
        yx += y.T @ x
    return Moments(xx.astype(np.int64), yx.astype(np.int64), np.bincount(labels, minlength=10).astype(np.int64))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the second moments of MNIST that pydln ships.")
    parser.add_argument("folder", nargs="?", type=Path, help="folder of the four IDX files")
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--out", type=Path, default=here / "pydln" / "datasets", help="where to write the npz files")
    args = parser.parse_args(argv)
    data = mnist(args.folder)
    parts = {
        "train": (data.train_images[:50000], data.train_labels[:50000]),
        "validation": (data.train_images[50000:], data.train_labels[50000:]),
        "test": (data.test_images, data.test_labels),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in parts.items():
        target = args.out / PARTS[part]
        write(target, moments(images, labels))
        print(f"{target}: {len(images)} images, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
