"""Refuse a wheel or an sdist whose content, size or metadata is not what pydln ships.

python .ci/check_dist.py dist
"""

from __future__ import annotations

import platform
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

MOMENTS_LIMIT = 2_000_000  # bytes, all data files together
ALL_SETS = b"baseline, avx2, avx512"  # as the extension tells what was compiled
WHEEL_LIMIT = 8_000_000  # bytes: three instruction sets, two precisions


def fail(message: str) -> None:
    """End the check with one sentence."""
    sys.exit(f"check_dist: {message}")


def only(folder: Path, pattern: str) -> Path:
    """The one file in `folder` that fits."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        fail(f"{folder}/{pattern}: expected one file, got {len(found)}")
    return found[0]


def check_wheel(path: Path, version: str) -> None:
    """Content, size, version and dependencies."""
    with zipfile.ZipFile(path) as wheel:
        sizes = {item.filename: item.file_size for item in wheel.infolist() if not item.is_dir()}
        info = next(name for name in sizes if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(info).decode())
    for name in sizes:
        top = PurePosixPath(name).parts[0]
        if top != "pydln" and not top.endswith(".dist-info"):
            fail(f"{path.name}: {name} does not belong in a wheel")
        if name.endswith((".c", ".cpp", ".hpp", ".h", ".cu", ".a", ".o", ".cmake", ".pyc")) or "/tests/" in name:
            fail(f"{path.name}: {name} does not belong in a wheel")
    for wanted in ("pydln/__init__.py", "pydln/py.typed", "pydln/_core.pyi"):
        if wanted not in sizes:
            fail(f"{path.name}: {wanted} is missing")
    compiled = [name for name in sizes if name.endswith(".so")]
    if len(compiled) != 1 or not compiled[0].startswith("pydln/_core."):
        fail(f"{path.name}: compiled modules {compiled}: expected pydln/_core and no other")
    with zipfile.ZipFile(path) as wheel:
        if platform.machine() in {"x86_64", "AMD64"} and ALL_SETS not in wheel.read(compiled[0]):
            fail(f"{path.name}: {compiled[0]} is for some processors only, expected {ALL_SETS.decode()}")
    if not any("/licenses/" in name for name in sizes):
        fail(f"{path.name}: the licence is missing")
    data = {name: size for name, size in sizes.items() if name.endswith((".npz", ".npy"))}
    if not data or sum(data.values()) > MOMENTS_LIMIT:
        fail(f"{path.name}: data files {data}: expected some, of at most {MOMENTS_LIMIT} bytes in all")
    if path.stat().st_size > WHEEL_LIMIT:
        fail(f"{path.name}: {path.stat().st_size} bytes, expected at most {WHEEL_LIMIT}")
    if metadata["Version"] != version:
        fail(f"{path.name}: version {metadata['Version']}, pyproject.toml says {version}")
    required = metadata.get_all("Requires-Dist", [])
    runtime = sorted(line.split()[0].split(">")[0].split("[")[0] for line in required if "extra ==" not in line)
    if runtime != ["numpy", "scipy"]:
        fail(f"{path.name}: runtime dependencies {runtime}, expected numpy and scipy")
    for line in required:
        if line.startswith(("torch", "jax", "numba")) and "bench" not in line:
            fail(f"{path.name}: {line}: the peers belong to the extra bench only")
    print(f"{path.name}: {path.stat().st_size:,} bytes, {len(sizes)} files; unpacked:")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:8]:
        print(f"  {size:>10,}  {name}")


def check_sdist(path: Path) -> None:
    """Everything needed to build and test, and nothing that a build leaves behind."""
    with tarfile.open(path) as sdist:
        names = {str(PurePosixPath(*PurePosixPath(item.name).parts[1:])) for item in sdist if item.isfile()}
    for wanted in (
        "pyproject.toml",
        "CMakeLists.txt",
        "README.md",
        "LICENSE",
        "pydln/__init__.py",
        "csrc/bind/module.cpp",
    ):
        if wanted not in names:
            fail(f"{path.name}: {wanted} is missing")
    for name in names:
        if PurePosixPath(name).parts[0] in {".venv", "build", "dist", "out", "shared"} or name.endswith(
            (".so", ".pyc")
        ):
            fail(f"{path.name}: {name} does not belong in an sdist")
    print(f"{path.name}: {path.stat().st_size:,} bytes, {len(names)} files")


def main(folder: Path) -> None:
    """Check the one wheel and the one sdist in `folder`."""
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    check_wheel(only(folder, "*.whl"), version)
    check_sdist(only(folder, "*.tar.gz"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
