"""What ``import pydln`` costs a program that has imported NumPy."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest
from replay import measured_time, replay

HEADING = "Import"
COLUMNS = ("what", "median", "spread", "processes")
CODE = """
import time
read = time.{clock}
first = read()
import numpy
second = read()
import pydln
print(second - first, read() - second)
"""
CLOCKS = {"wall": "perf_counter", "cpu": "process_time"}


@pytest.mark.benchmark(timer=measured_time)
def bench_import(settings, report, benchmark):
    benchmark.group = "import, seconds"
    count = 1 if settings.quick else 3 * settings.rounds
    command = [sys.executable, "-c", CODE.format(clock=CLOCKS[settings.clock])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # writes the byte code, warms the disk
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(count)]
    numpy, pydln = ([float(run[i]) for run in runs] for i in range(2))
    report.measured["import"] = {"numpy": numpy, "pydln over numpy": pydln}
    table = report.table(HEADING, COLUMNS)
    for what, seconds in report.measured["import"].items():
        if settings.quick:
            table.rows.append((what, "imported", "", str(count)))
            continue
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
        table.rows.append((what, f"{1e3 * middle:.0f} ms", f"{100 * (high - low) / middle:.1f} %", str(count)))
    replay(benchmark, pydln)
