"""Refuse kernel objects that share functions between instruction sets.

    python .ci/check_symbols.py build/asan

An inline function or a template instance that every instruction set emits under one name is merged by the linker into
one copy, perhaps the one with the widest instructions, and then runs on processors that lack them. So whatever such an
object emits for merging must live in the namespace of its instruction set.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path


def mergeable(path: Path) -> list[str]:
    """Demangled names that `path` offers to the linker as one of several equal copies."""
    lines = subprocess.run(["nm", "-C", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    return [name for kind, name in re.findall(r"^[0-9a-f]+ (\w) (.*)$", lines, re.MULTILINE) if kind in "uvVwW"]


def main(build: Path) -> None:
    """Check every object of `build` that is compiled for one of several instruction sets."""
    sets: set[str] = set()
    shared: list[str] = []
    for unit in json.loads((build / "compile_commands.json").read_text()):
        isa = re.search(r"-DPYDLN_ISA=(\w+)", unit["command"])
        output = re.search(r" -o (\S+)", unit["command"])
        if isa is None or output is None:
            continue
        sets.add(isa[1])
        names = mergeable(Path(unit["directory"]) / output[1])
        shared.extend(f"{isa[1]}: {name}" for name in names if f"pydln::{isa[1]}::" not in name)
    if len(sets) < 2:
        sys.exit(f"check_symbols: {build}: expected objects of two instruction sets or more, got {sorted(sets)}")
    if shared:
        sys.exit("check_symbols: emitted outside the namespace of the instruction set:\n  " + "\n  ".join(shared))
    print(f"instruction sets {', '.join(sorted(sets))}: no function in common")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
