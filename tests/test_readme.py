"""The README is kept true by running it: its Python blocks, its commands' names and its links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the source tree")


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def test_python_blocks_run(tmp_path: Path) -> None:
    """All blocks of the page in order, as one script, the way a reader pastes them."""
    script = "\n".join(blocks(README, "python"))
    assert script, "the README shows no Python"
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {name for page in pages() for name in re.findall(r"\bmake ([a-z][a-z-]*)\b", "\n".join(code(page)))}
    assert {"demo", "test"} <= named
    missing = {name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)}
    assert missing == set()


def code(page: Path) -> list[str]:
    """Code spans and blocks of a page."""
    return re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), re.DOTALL)


def test_local_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages()
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)|src=\"([^\"]+)\"", page.read_text())
        for target in target
        if target and not target.startswith(("http://", "https://", "mailto:"))
        if not (page.parent / target).exists()
    ]
    assert broken == []
