"""Who may know whom. The Python layers proper are an import-linter contract (.importlinter); here stand the C++ layers
and what that contract cannot see: compiled modules and imports that must not happen."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
needs_tree = pytest.mark.skipif(not CSRC.is_dir(), reason="needs the source tree")

# folder: what its files may include, beside their own folder and the standard library
MAY_INCLUDE: dict[str, set[str]] = {
    "core": set(),
    "ops": {"core"},
    "math": {"core"},
    "cpu": {"ops", "math", "core"},
    "cuda": {"ops", "math", "core"},
    "bind": {"ops", "cpu", "cuda", "core"},
}
PYTHON = re.compile(r"pybind11/|Python\.h$|numpy/")
THREADS = {"atomic", "barrier", "condition_variable", "future", "latch", "mutex", "semaphore", "shared_mutex", "thread"}
CPU_DETECTION = re.compile(r"__builtin_cpu_|\b__(?:get_)?cpuid(?:ex|_count)?\b|\b_?xgetbv\b|getauxval")
# What is compiled once per instruction set: kernel bodies and all that they include. An inline function of the standard
# library seen there could be emitted with wide instructions and be the copy that the linker keeps for everybody.
PER_ISA = re.compile(r"^(?:cpu/kernels|math|ops|core)/")
PER_ISA_STANDARD = {"cstddef", "cstdint"}
# Other systems have these in 32 bits: Windows, wasm32. What counts bits says how many.
WIDTHS_DIFFER = re.compile(r"(?<!long )\blong\b(?! (?:long|double)\b)|\b\d[\w']*(?<![lL])[lL][uU]?\b")
COMMENT = re.compile(r"//.*")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def cpp_violations(csrc: Path) -> Iterator[str]:
    """One sentence for every include or name under `csrc` that its layer may not have."""
    files = sorted(path for path in csrc.rglob("*") if path.suffix in {".hpp", ".cpp", ".cu", ".cuh", ".h"})
    for path in files:
        name = path.relative_to(csrc).as_posix()
        folder = name.split("/")[0]
        if folder not in MAY_INCLUDE:
            yield f"{name}: the folder is not a layer"
            continue
        text = path.read_text()
        for own, system in INCLUDE.findall(text):
            if own:
                target = own if (csrc / own).is_file() else (path.parent / own).resolve().relative_to(csrc).as_posix()
                other = target.split("/")[0]
                if other != folder and other not in MAY_INCLUDE[folder]:
                    yield f"{name} includes {own}: {folder} may not know {other}"
                elif PER_ISA.match(name) and not PER_ISA.match(target):
                    yield f"{name} includes {own}: it is compiled per instruction set"
            if PYTHON.search(own or system) and folder != "bind":
                yield f"{name} includes {own or system}: only bind knows Python"
            if system in THREADS and name != "cpu/parallel.hpp":
                yield f"{name} includes <{system}>: only cpu/parallel.hpp names threads"
            if system and PER_ISA.match(name) and system not in PER_ISA_STANDARD:
                yield f"{name} includes <{system}>: it is compiled per instruction set"
        if CPU_DETECTION.search(text) and not name.startswith("cpu/processor."):
            yield f"{name} asks what the processor can do: only cpu/processor.* does"
        for found in WIDTHS_DIFFER.findall(COMMENT.sub("", text)):
            yield f"{name} has {found}: of 32 bits on some systems"


@needs_tree
def test_cpp_layers() -> None:
    assert list(CSRC.rglob("*.cpp")), "no C++ found"
    assert list(cpp_violations(CSRC)) == []


@pytest.mark.parametrize(
    ("name", "line", "complaint"),
    [
        ("core/a.hpp", '#include "ops/b.hpp"', "core may not know ops"),
        ("ops/a.hpp", '#include "cpu/b.hpp"', "ops may not know cpu"),
        ("math/a.hpp", '#include "ops/b.hpp"', "math may not know ops"),
        ("cpu/a.hpp", '#  include "bind/b.hpp"', "cpu may not know bind"),
        ("cpu/a.cpp", '#include "../bind/b.hpp"', "cpu may not know bind"),
        ("cpu/a.cpp", "#include <pybind11/pybind11.h>", "only bind knows Python"),
        ("cpu/a.cpp", "#include <atomic>", "only cpu/parallel.hpp names threads"),
        ("cpu/kernels/a.hpp", "#include <cmath>", "compiled per instruction set"),
        ("math/a.hpp", "#include <algorithm>", "compiled per instruction set"),
        ("cpu/kernels/a.hpp", '#include "cpu/b.hpp"', "compiled per instruction set"),
        ("cpu/a.cpp", 'bool x = __builtin_cpu_supports("avx2");', "only cpu/processor.* does"),
        ("core/a.hpp", "constexpr std::uint64_t sign = 1UL << 63U;", "of 32 bits on some systems"),
        ("core/a.hpp", "inline auto mask = ~0x0fL;", "of 32 bits on some systems"),
        ("math/a.hpp", "unsigned long bits = 0;", "of 32 bits on some systems"),
        ("misc/a.hpp", "", "not a layer"),
    ],
)
def test_cpp_layers_are_seen_to_break(tmp_path: Path, name: str, line: str, complaint: str) -> None:
    for other in ("ops/b.hpp", "cpu/b.hpp", "bind/b.hpp", name):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text("#pragma once\n")
    assert list(cpp_violations(tmp_path)) == [] or name.startswith("misc")
    (tmp_path / name).write_text(f"{line}\n")
    assert [complaint in sentence for sentence in cpp_violations(tmp_path)] == [True]


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


@needs_tree
def test_only_the_backend_imports_the_compiled_modules() -> None:
    compiled = re.compile(r"(^|\.)_core(_cuda)?(\.|$)")
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pydln").rglob("*.py")
        if any(compiled.search(name) for name in imported(ast.parse(path.read_text())))
    }
    assert importers == {"pydln/_base/backend.py"}


def test_import_is_light() -> None:
    """`import pydln` brings numpy and the standard library; everything else waits for the call that needs it."""
    code = """
import json, sys, numpy
before = set(sys.modules)
import pydln
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stderr == "", "nothing is printed at import"
    packages = {name.split(".")[0] for name in json.loads(out.stdout)}
    outside = packages - sys.stdlib_module_names - {"pydln", "numpy"}
    assert outside == set()
