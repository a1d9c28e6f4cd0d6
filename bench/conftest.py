from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import machine
import probe
import pytest
from protocol import Settings
from report import Report

REPORT = pytest.StashKey[Report]()
SETTINGS = pytest.StashKey[Settings]()
QUICK = ("G2", "G7a")


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
    group.addoption("--all-peers", action="store_true", help="also the peers that are left out to save time: hours")
    group.addoption("--fraction", type=float, help="of the networks of a published study, for every program")
    group.addoption("--readme", action="store_true", help="put the tables into bench/README.md")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    option = config.option
    allowed = sorted(os.sched_getaffinity(0), reverse=True)
    if option.core is not None:
        if option.core not in allowed:
            raise pytest.UsageError(f"--core: expected one of {sorted(allowed)}, got {option.core}")
        allowed.sort(key=lambda core: core != option.core)
    if option.fraction is not None and not 0 < option.fraction <= 1:
        raise pytest.UsageError(f"--fraction: expected a number above 0, up to 1, got {option.fraction:g}")
    if option.quick:
        option.benchmark_disable = True
        settings = Settings(rounds=1, seconds=0.0, probe_seconds=0.001, cores=tuple(allowed), quick=True)
    else:
        settings = Settings(
            rounds=option.rounds,
            seconds=option.seconds,
            clock=option.clock,
            cores=tuple(allowed),
            all_peers=option.all_peers,
            fraction=option.fraction,
        )
    config.stash[SETTINGS] = settings
    config.stash[REPORT] = Report({k: v for k, v in asdict(settings).items() if k != "cores"})


def pytest_collection_modifyitems(config, items):
    """A quick run takes a square and a thin workload: every method once in each precision, every bench file once."""
    if config.option.quick:
        named = [item for item in items if hasattr(item, "callspec") and "name" in item.callspec.params]
        other = [item for item in named if item.callspec.params["name"] not in QUICK]
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item not in other]


@pytest.fixture(scope="session")
def settings(pytestconfig):
    return pytestconfig.stash[SETTINGS]


@pytest.fixture(scope="session")
def report(pytestconfig):
    found = pytestconfig.stash[REPORT]
    found.memory = max(probe.memory("update").giga for _ in range(3))
    read = max(probe.memory("read").giga for _ in range(3))
    found.machine = machine.describe() | {
        "memory": f"{read:.1f} GB/s read, {found.memory:.1f} GB/s in two reads and one write, one thread"
    }
    return found


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    found = config.stash[REPORT]
    if not found.tables:
        return
    terminalreporter.section("pydln and its peers")
    terminalreporter.write_line(found.text())
    terminalreporter.write_line(f"\nEverything measured: {' '.join(map(os.path.relpath, found.write()))}")
    option = config.option
    if not option.readme:
        return
    files = list(Path(__file__).parent.glob("bench_*.py"))
    partial = option.keyword or option.fraction or len(found.tables) < len(files)
    if not (partial or exitstatus or option.quick or option.clock != "wall"):
        found.put_into_readme()
        terminalreporter.write_line("bench/README.md has the new tables")
    else:
        terminalreporter.write_line(
            "bench/README.md is unchanged: that takes a full run, by the wall clock, no failure"
        )
