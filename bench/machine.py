"""The machine, in words that say what it can do and not whose it is."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import probe


def describe() -> dict[str, str]:
    """Processor, cores, clock, instruction set and what runs on it."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "clock": f"{probe.clock_ghz():.2f} GHz, measured",
        "instruction set": probe.isa(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    about = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.+)$", info, re.MULTILINE))
    name = about.get("model name", platform.processor() or "unknown")
    if {"cpu family", "model"} <= about.keys():
        name += f" (family {about['cpu family']}, model {about['model']})"
    return name
