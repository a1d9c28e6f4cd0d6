"""What the pictures of the benchmarks have in common."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def finish(figure: Any, panels: Iterable[Any], shown: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """One legend beside open panels, `shown` label by label; `name`.png and .svg in `folder`."""
    for panel in panels:
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    figure.legend(shown.values(), shown.keys(), loc="outside right center", frameon=False, fontsize=9)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=160)
    return paths
