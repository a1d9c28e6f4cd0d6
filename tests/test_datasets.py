"""The shipped second moments against the images, and the reading of the images."""

from __future__ import annotations

import gzip
import importlib.util
import os
import shutil
import sys
import types
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from pydln.datasets import MNIST, Moments, mnist, mnist_moments
from pydln.datasets import _mnist as raw
from pydln.datasets.moments import PARTS, read, write
from pydln.errors import DataNotFound, FileDamaged

ROOT = Path(__file__).resolve().parent.parent


def folder_of_images() -> Path | None:
    beside = ROOT.parent / "shared" / "data" / "mnist"
    if variable := os.environ.get("PYDLN_MNIST"):
        return Path(variable)
    return beside if beside.is_dir() else None


@pytest.fixture(scope="module")
def images() -> MNIST:
    folder = folder_of_images()
    if folder is None:
        pytest.skip("the MNIST images are not here: set PYDLN_MNIST to the folder of the IDX files")
    return mnist(folder)


def idx(shape: tuple[int, ...], fill: int = 0) -> bytes:
    return (
        bytes((0, 0, 8, len(shape)))
        + b"".join(n.to_bytes(4, "big") for n in shape)
        + bytes([fill]) * int(np.prod(shape))
    )


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four files of the right form; images gzipped, labels not."""
    folder = tmp_path_factory.mktemp("idx")
    for name, shape, _ in raw._FILES:
        data = idx(shape, 3)
        if len(shape) == 3:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data, 1))
        else:
            (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def copy(blank: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(blank, tmp_path / "mnist"))


# --- the shipped moments ----------------------------------------------------------------------------------------------


def test_moments_are_those_of_the_images(images: MNIST) -> None:
    sets = {
        "train": (images.train_images[:50000], images.train_labels[:50000]),
        "validation": (images.train_images[50000:], images.train_labels[50000:]),
        "test": (images.test_images, images.test_labels),
    }
    for part, (pictures, labels) in sets.items():
        shipped = mnist_moments(part)
        x = pictures.reshape(-1, 784).astype(float)  # integers below 2**53 throughout, so the sums are exact
        assert np.array_equal(shipped.xx, x.T @ x)
        assert np.array_equal(shipped.yx, np.stack([x[labels == digit].sum(0) for digit in range(10)]))
        assert np.array_equal(shipped.counts, np.bincount(labels))


def test_script_makes_the_shipped_files(images: MNIST, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = ROOT / "scripts" / "make_mnist_moments.py"
    if not script.is_file():
        pytest.skip("only in the repository")
    spec = importlib.util.spec_from_file_location("make_mnist_moments", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(folder_of_images()), "--out", str(tmp_path)])
    assert "50000 images" in capsys.readouterr().out
    for part, name in PARTS.items():
        made, shipped = read(tmp_path / name), mnist_moments(part)
        assert all(np.array_equal(getattr(made, key), getattr(shipped, key)) for key in ("xx", "yx", "counts"))


def test_moments_are_known_numbers() -> None:
    train, rest, test = (mnist_moments(part) for part in ("train", "validation", "test"))
    assert (train.samples, rest.samples, test.samples) == (50000, 10000, 10000)
    both = train + rest
    assert both.counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.count_nonzero(both.xx.diagonal()) == 717
    mean, square = both.yx.sum() / (784 * 60000), np.trace(both.xx) / (784 * 60000)
    assert mean / 255 == pytest.approx(0.1307, abs=5e-5)  # the two numbers everybody normalises MNIST with
    assert np.sqrt(square - mean**2) / 255 == pytest.approx(0.3081, abs=5e-5)
    assert np.linalg.eigvalsh(both.xx / 1e9).min() > -1e-8


def test_shipped_files_are_small() -> None:
    sizes = [len(resources.files("pydln.datasets").joinpath(name).read_bytes()) for name in PARTS.values()]
    assert max(sizes) < 1.4e6
    assert sum(sizes) < 2e6


def test_moments_survive_writing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (300, 12))
    x[:, [0, 5, 11]] = 0
    labels = rng.integers(0, 4, 300)
    y = np.eye(4, dtype=int)[labels]
    big = Moments(x.T @ x, y.T @ x, y.sum(0))
    big.xx[1, 1] = 2**32 - 1
    write(tmp_path / "m.npz", big)
    again = read(tmp_path / "m.npz")
    assert all(np.array_equal(getattr(big, key), getattr(again, key)) for key in ("xx", "yx", "counts"))
    write(tmp_path / "n.npz", again)
    assert (tmp_path / "m.npz").read_bytes() == (tmp_path / "n.npz").read_bytes()
    big.xx[1, 1] += 1
    with pytest.raises(ValueError, match=r"moments: expected sums from 0 to 2\*\*32 - 1"):
        write(tmp_path / "o.npz", big)


def test_damaged_moments_are_one_sentence(tmp_path: Path) -> None:
    whole = resources.files("pydln.datasets").joinpath(PARTS["test"]).read_bytes()
    flipped = bytearray(whole)
    flipped[200_000] ^= 255
    for kind, data in {"cut": whole[:100_000], "text": b"hello", "empty": b"", "flipped": bytes(flipped)}.items():
        file = tmp_path / f"{kind}.npz"
        file.write_bytes(data)
        with pytest.raises(FileDamaged, match=rf"{kind}\.npz: expected a file of second moments"):
            read(file)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "short.npz", active=[0, 1], planes=np.zeros((4, 2), "u1"), yx=np.zeros((2, 3)), counts=[1, 1])
    for name in ("other.npz", "array.npy", "short.npz"):
        with pytest.raises(FileDamaged, match="expected a file of second moments"):
            read(tmp_path / name)


def test_unknown_part() -> None:
    with pytest.raises(ValueError, match=r"part: expected one of 'train', 'validation', 'test', got 'all'"):
        mnist_moments("all")


# --- the images -------------------------------------------------------------------------------------------------------


def test_images_are_read(images: MNIST) -> None:
    assert images.train_images.shape == (60000, 28, 28)
    assert images.train_images.dtype == np.uint8
    assert images.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert images.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_gzipped_or_not(blank: Path) -> None:
    data = mnist(str(blank))
    assert data.test_images.shape == (10000, 28, 28)
    assert data.train_images.min() == data.train_labels.max() == 3


def test_folder_from_the_environment(blank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDLN_MNIST", str(blank))
    assert mnist().test_labels.shape == (10000,)


def test_folder_from_the_cache(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYDLN_MNIST", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(copy.parent / "cache"))
    (copy.parent / "cache" / "pydln").mkdir(parents=True)
    copy.rename(copy.parent / "cache" / "pydln" / "mnist")
    assert mnist().test_labels.shape == (10000,)


def test_absent_files(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataNotFound, match=r"^path: expected a folder with the MNIST file train-images.*not a folder$"):
        mnist(copy / "nowhere")
    (copy / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataNotFound, match=r"^path: .*t10k-labels-idx1-ubyte \(or .*\.gz\), got no such file in"):
        mnist(copy)
    monkeypatch.setenv("PYDLN_MNIST", str(copy))
    with pytest.raises(DataNotFound, match=r"^PYDLN_MNIST: "):
        mnist()
    with pytest.raises(FileNotFoundError):
        mnist()
    with pytest.raises(TypeError, match=r"path: expected a folder, got 3"):
        mnist(3)  # type: ignore[arg-type]


def test_no_pooch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYDLN_MNIST", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(
        DataNotFound, match=r"pooch, .* is not installed; pip install 'pydln\[data\]', or give .*PYDLN_MNIST"
    ):
        mnist()


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def retrieve(url: str, **_: object) -> str:
        asked.append(url)
        raise ConnectionError("no route")

    monkeypatch.delenv("PYDLN_MNIST", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pooch", types.SimpleNamespace(retrieve=retrieve))
    with pytest.raises(
        DataNotFound, match=r"could not be downloaded \(ConnectionError\); try again with a network, or"
    ):
        mnist()
    assert len(asked) == len(raw._MIRRORS)


def test_download_goes_to_the_cache_with_checksums(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = {}

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        if url.startswith(raw._MIRRORS[0]):
            raise ValueError("wrong checksum")
        sums[fname] = known_hash
        name = fname.removesuffix(".gz")
        source = copy / name if (copy / name).is_file() else copy / fname
        path.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(source, path / fname))

    monkeypatch.delenv("PYDLN_MNIST", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "pooch", types.SimpleNamespace(retrieve=retrieve))
    assert mnist().test_images.shape == (10000, 28, 28)
    assert sums["t10k-images-idx3-ubyte.gz"] == "md5:9fb629c4189551a2d022fa330f9573f3"
    assert len(sums) == 4
    mnist()
    assert (tmp_path / "cache" / "pydln" / "mnist" / "t10k-labels-idx1-ubyte.gz").is_file()


def test_damaged_files(copy: Path) -> None:
    labels, pictures = copy / "t10k-labels-idx1-ubyte", copy / "t10k-images-idx3-ubyte.gz"

    def sentence(file: Path, data: bytes, match: str) -> None:
        before = file.read_bytes()
        file.write_bytes(data)
        with pytest.raises(FileDamaged, match=match):
            mnist(copy)
        file.write_bytes(before)

    whole = labels.read_bytes()
    zipped = pictures.read_bytes()
    sentence(labels, whole[:-1], r"t10k-labels-idx1-ubyte: expected 10000 bytes of data, got 9999$")
    sentence(labels, whole + b"x", r"expected 10000 bytes of data, got 10001")
    sentence(labels, whole[:6], r"expected an IDX file of unsigned bytes in 1 dimensions, got something else")
    sentence(labels, b"", r"expected an IDX file")
    sentence(labels, b"<html>not here</html>", r"expected an IDX file")
    sentence(labels, idx((5000,)), r"expected MNIST's \(10000,\), got a file of \(5000,\)")
    sentence(labels, idx((10000,), 10), r"expected labels from 0 to 9, got 10")
    sentence(
        pictures, zipped[: len(zipped) // 2], r"t10k-images-idx3-ubyte.gz: expected a whole gzip file, got a damaged"
    )
    sentence(pictures, zipped[:20], r"expected a whole gzip file")
    sentence(pictures, zipped[:12] + b"\xff" * 30 + zipped[42:], r"expected a whole gzip file")
    sentence(pictures, whole, r"expected an IDX file of unsigned bytes in 3 dimensions")
