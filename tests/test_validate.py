"""Sentences about arguments, and how much memory there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydln import Weights
from pydln._base import validate


class Unreadable:
    def __array__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("requires grad")


@pytest.mark.parametrize(
    ("value", "dtype", "bounds", "message"),
    [
        (1e-46, np.float32, {"above": 0}, "lr: expected a number > 0 (in float32), got 1e-46"),
        (-1.0, np.float32, {"above": 0}, "lr: expected a number > 0, got -1.0"),
        (1e39, np.float32, {}, "lr: expected a finite number (in float32), got 1e+39"),
        ([1.0, 1e39], np.float32, {}, "lr: expected finite numbers (in float32), got 1 that are not"),
        ([1.0, 1e-46], np.float32, {"above": 0}, "lr: expected numbers > 0 (in float32), got 1e-46 at [1]"),
        (float("inf"), np.float32, {}, "lr: expected a finite number, got inf"),
    ],
)
def test_numbers_that_only_float32_cannot_hold(value: Any, dtype: Any, bounds: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        validate.array(value, "lr", dtype=dtype, **bounds)
    assert str(caught.value).startswith(message)


def test_objects_that_numpy_cannot_read() -> None:
    with pytest.raises(TypeError, match=r"^x: expected real numbers, got integers too large for 64 bits$"):
        validate.array([10**30], "x")
    with pytest.raises(TypeError, match=r"^x: expected a number, got an integer too large for 64 bits$"):
        validate.number(10**30, "x")
    with pytest.raises(TypeError, match=r"^x: expected an array of numbers, got Unreadable that NumPy cannot read$"):
        validate.array(Unreadable(), "x")
    with pytest.raises(TypeError, match=r"^weights\[0\]: .* cannot read: pydln\.Weights\.from_torch reads"):
        Weights([Unreadable()])


def test_names_that_are_no_names() -> None:
    with pytest.raises(ValueError, match=r"^record: expected one of 'loss', got \['loss'\]$"):
        validate.names([["loss"]], "record", ["loss"])


def group(root: Path, names: tuple[str, str, str], limit: str, used: int, cache: int = 0) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / names[0]).write_text(limit + "\n")
    (root / names[1]).write_text(f"{used}\n")
    (root / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 9000 kB\n")
    monkeypatch.setattr(validate, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(validate, "_GROUPS", tmp_path / "groups")
    return tmp_path


def test_free_memory_is_the_least_that_any_control_group_leaves(system: Path) -> None:
    assert validate.free_memory() == 9000 * 1024
    (system / "proc/self/cgroup").write_text("0::/outer/inner\n")
    group(system / "groups/outer/inner", V2, "max", 10)
    assert validate.free_memory() == 9000 * 1024
    group(system / "groups/outer", V2, "5000", 3000, cache=500)
    assert validate.free_memory() == 2500
    group(system / "groups/outer/inner", V2, "1000", 400)
    assert validate.free_memory() == 600
    group(system / "groups/outer/inner", V2, "1000", 1400)
    assert validate.free_memory() == 0


def test_free_memory_in_control_groups_of_version_1(system: Path) -> None:
    (system / "proc/self/cgroup").write_text("5:cpu,cpuacct:/job\n4:memory:/docker/job\nnonsense\n")
    group(system / "groups/memory", V1, "9223372036854771712", 10)
    assert validate.free_memory() == 9000 * 1024
    # In a container the path is the one outside: only the root is there.
    group(system / "groups/memory", V1, "7000", 3000, cache=1)
    assert validate.free_memory() == 4001
    group(system / "groups/memory/docker/job", V1, "2000", 500)
    assert validate.free_memory() == 1500
