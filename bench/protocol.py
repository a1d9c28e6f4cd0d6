"""How methods are compared: in rounds, each in its own pinned process, the machine's limit beside every turn."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

PROBES_DIFFER = 0.10  # a round whose probes differ by more is discarded
STARVED = 0.97  # and so is one in which a single thread had less of its core than this
ATTEMPTS = 3  # times the wanted number of rounds
BLAS_CHOICES = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}  # not for the methods: a BLAS chooses by the processor itself
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "BLIS", "VECLIB")} | {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long, how often, and of what.

    `quick` runs everything once, tiny, and keeps it whatever it is: nothing is measured. `all_peers` runs what is left
    out to save time, `fraction` sets how much of a published study each program does.
    """

    rounds: int = 7
    seconds: float = 1.0
    probe_seconds: float = 0.1
    clock: str = "wall"
    cores: tuple[int, ...]
    quick: bool = False
    all_peers: bool = False
    fraction: float | None = None


@dataclass(frozen=True, eq=False)
class Contender:
    """One method, or one way to call it; on a subject of its own if it has one."""

    key: str
    method: str
    options: dict = field(default_factory=dict)
    threads: int = 1
    subject: Subject | None = None


class Subject(Protocol):
    """What is measured: a Workload of workloads.py, or a case of a study."""

    @property
    def name(self) -> str: ...

    @property
    def step_flops(self) -> float:
        """Counted work of what a turn gives the seconds of."""

    def for_worker(self) -> dict[str, Any]:
        """What worker.py needs to know, beside the method."""


@dataclass(frozen=True)
class Result:
    """The kept turns of one contender."""

    flops: float
    step_seconds: list[float]
    probes: list[float]  # GFLOP/s, the mean of before and after each turn
    memory: list[float]  # GB/s, likewise; empty where it was not probed

    @property
    def gflops(self) -> float:
        return statistics.median(self._rates)

    @property
    def of_probe(self) -> float:
        return statistics.median(rate / probe for rate, probe in zip(self._rates, self.probes, strict=True))

    @property
    def probe(self) -> float:
        return statistics.median(self.probes)

    @property
    def memory_probe(self) -> float:
        return statistics.median(self.memory)

    def of_memory(self, step_bytes: float) -> float:
        """Share of the memory probe, for so many bytes a step."""
        rates = [step_bytes / seconds * 1e-9 for seconds in self.step_seconds]
        return statistics.median(rate / probe for rate, probe in zip(rates, self.memory, strict=True))

    @property
    def spread(self) -> float:
        """Interquartile range over median."""
        if len(self._rates) < 2:
            return 0.0
        low, middle, high = statistics.quantiles(self._rates, n=4, method="inclusive")
        return (high - low) / middle

    @property
    def _rates(self) -> list[float]:
        return [self.flops / seconds * 1e-9 for seconds in self.step_seconds]


@dataclass
class Measurement:
    """One workload, all contenders: what was kept, and why the others have no result."""

    subject: Subject
    wanted: int
    kept: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # contender: package
    wrong: dict[str, str] = field(default_factory=dict)  # contender: what was found
    errors: dict[str, float] = field(default_factory=dict)
    steps: dict[str, list[int]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    rounds: list[dict] = field(default_factory=list)  # every turn, of discarded rounds too

    @property
    def enough(self) -> bool:
        return self.kept >= self.wanted

    @property
    def kept_of_all(self) -> str:
        return f"{self.kept} of {len(self.rounds)}"

    def problem(self, *keys: str) -> str | None:
        """Why these contenders have no result that may be shown, if so."""
        for key in keys:
            if key in self.missing:
                return f"there is no {self.missing[key]}"
            if key in self.wrong:
                return f"{key}: {self.wrong[key]}"
        return None if self.enough else f"busy machine: only {self.kept_of_all} rounds could be kept, not {self.wanted}"

    def as_json(self) -> dict:
        summary = {
            key: {"gflops": r.gflops, "of_probe": r.of_probe, "probe": r.probe, "spread": r.spread}
            for key, r in self.results.items()
        }
        for key, r in self.results.items():
            if r.memory:
                summary[key]["memory"] = r.memory_probe
        about = self.subject.for_worker() | {"step_flops": self.subject.step_flops}
        return {name: value for name, value in vars(self).items() if name != "subject"} | about | {"results": summary}


def measure(contenders: Sequence[Contender], subject: Subject, settings: Settings) -> Measurement:
    """Check every contender against the specification, then time those that agree, round-robin.

    The order changes from round to round. A round is kept or discarded as a whole, so that all contenders are judged by
    the same stretches of time.
    """
    found = Measurement(subject, settings.rounds)
    with ExitStack() as stack:
        ready: dict[Contender, Worker] = {}
        for contender in contenders:
            worker = stack.enter_context(_started(contender, contender.subject or subject, settings))
            loaded = worker.ask("load")
            if "missing" in loaded:
                found.missing[contender.key] = loaded["missing"]
                continue
            found.labels[contender.key] = loaded["label"]
            checked = worker.ask("check")
            found.errors[contender.key] = checked["error"]
            if not checked["error"] <= checked["allowed"]:
                found.wrong[contender.key] = "{error:.1e} from what is right, expected up to {allowed:.0e}".format(
                    **checked
                )
                continue
            calibrated = worker.ask("calibrate", seconds=settings.seconds, probe_seconds=settings.probe_seconds)
            found.steps[contender.key] = calibrated["steps"]
            found.versions |= loaded["versions"]
            ready[contender] = worker
        order = list(ready)
        turns: dict[str, list[dict]] = {c.key: [] for c in order}
        attempts = settings.rounds * (1 if settings.quick else ATTEMPTS)
        for number in range(attempts):
            shift = number % max(1, len(order))
            round_ = {c.key: ready[c].ask("turn") for c in order[shift:] + order[:shift]}
            why = None if settings.quick else _objection(round_, order, settings.clock)
            found.rounds.append({"discarded": why, "turns": round_})
            if why is None:
                found.kept += 1
                for key, turn in round_.items():
                    turns[key].append(turn)
            if found.enough or found.kept + attempts - len(found.rounds) < settings.rounds:
                break
    if found.kept:
        for contender in order:
            key, mine = contender.key, turns[contender.key]
            found.results[key] = Result(
                (contender.subject or subject).step_flops,
                [turn[settings.clock] for turn in mine],
                *(
                    [statistics.fmean(p[settings.clock] for p in turn[name]) for turn in mine if name in turn]
                    for name in ("probes", "memory")
                ),
            )
    return found


def _objection(round_: dict[str, dict], contenders: Sequence[Contender], clock: str) -> str | None:
    """Why a round says nothing about the methods, if so."""
    for threads in sorted({c.threads for c in contenders}):
        same = [c.key for c in contenders if c.threads == threads]
        probes = [p[clock] for key in same for p in round_[key]["probes"]]
        if max(probes) > (1 + PROBES_DIFFER) * min(probes):
            return f"probes from {min(probes):.1f} to {max(probes):.1f} GFLOP/s"
        starved = [key for key in same if round_[key]["share"] < STARVED]
        if threads == 1 and clock == "wall" and starved:
            return f"{starved[0]} had {round_[starved[0]]['share']:.0%} of its core"
    return None


class Worker:
    """The near end of a worker.py."""

    def __init__(self, process: subprocess.Popen[str], errors: Path, what: str) -> None:
        self._process = process
        self._errors = errors
        self._what = what

    def ask(self, what: str, **arguments: object) -> dict:
        try:
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            raise RuntimeError(f"{self._what} failed:\n{self._errors.read_text()[-4000:]}")
        return json.loads(reply)


@contextmanager
def _started(contender: Contender, subject: Subject, settings: Settings) -> Iterator[Worker]:
    arguments = {
        "cores": settings.cores[: contender.threads],
        "method": contender.method,
        "options": contender.options,
        **subject.for_worker(),
    }
    with tempfile.NamedTemporaryFile("w+", suffix=".txt") as errors:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={name: value for name, value in os.environ.items() if name not in BLAS_CHOICES} | ONE_THREAD,
        )
        try:
            yield Worker(process, Path(errors.name), f"{contender.key} on {subject.name}")
        finally:
            process.stdin.close()
            process.stdout.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
