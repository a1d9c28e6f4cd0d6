from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import machine
import pytest
from protocol import Settings
from report import Report

REPORT = pytest.StashKey[Report]()
SETTINGS = pytest.StashKey[Settings]()


def pytest_addoption(parser):
    group = parser.getgroup("pydln")
    quick = os.environ.get("PYDLN_BENCH_QUICK", "") not in ("", "0")
    group.addoption("--quick", action="store_true", default=quick, help="run everything once, tiny: times nothing")
    group.addoption("--rounds", type=int, default=7, help="rounds to keep")
    group.addoption("--seconds", type=float, default=1.0, help="length of one timed run")
    group.addoption("--core", type=int, default=None, help="the core to pin to; default: the last of those allowed")
    group.addoption(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: processor time, a stopgap for a machine that is shared; says so in the table",
    )
    group.addoption("--readme", action="store_true", help="put the tables into bench/README.md")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    option = config.option
    allowed = sorted(os.sched_getaffinity(0), reverse=True)
    if option.core is not None:
        if option.core not in allowed:
            raise pytest.UsageError(f"--core: expected one of {sorted(allowed)}, got {option.core}")
        allowed.sort(key=lambda core: core != option.core)
    if option.quick:
        option.benchmark_disable = True
        settings = Settings(rounds=1, seconds=0.0, probe_seconds=0.001, cores=tuple(allowed), quick=True)
    else:
        settings = Settings(rounds=option.rounds, seconds=option.seconds, clock=option.clock, cores=tuple(allowed))
    config.stash[SETTINGS] = settings
    config.stash[REPORT] = Report({k: v for k, v in asdict(settings).items() if k != "cores"})


def pytest_collection_modifyitems(config, items):
    """A quick run takes one workload: every method once in each precision, every bench file once."""
    if config.option.quick:
        other = [item for item in items if hasattr(item, "callspec") and item.callspec.params.get("name") != "G2"]
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item not in other]


@pytest.fixture(scope="session")
def settings(pytestconfig):
    return pytestconfig.stash[SETTINGS]


@pytest.fixture(scope="session")
def report(pytestconfig):
    found = pytestconfig.stash[REPORT]
    found.machine = machine.describe()
    return found


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    found = config.stash[REPORT]
    if not found.tables:
        return
    terminalreporter.section("pydln and its peers")
    terminalreporter.write_line(found.text())
    terminalreporter.write_line(f"\nEverything measured: {os.path.relpath(found.write())}")
    option = config.option
    if not option.readme:
        return
    full = not option.keyword and len(found.tables) == len(list(Path(__file__).parent.glob("bench_*.py")))
    if full and not (exitstatus or option.quick or option.clock != "wall"):
        found.put_into_readme()
        terminalreporter.write_line("bench/README.md has the new tables")
    else:
        terminalreporter.write_line(
            "bench/README.md is unchanged: that takes a full run, by the wall clock, no failure"
        )
