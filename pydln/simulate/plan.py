"""How a run would be done: reductions, layout, instruction set, counted work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pydln._base import backend, notebook
from pydln.simulate.descent import prepare
from pydln.simulate.noise import Noise
from pydln.simulate.stop import Stop
from pydln.task.task import Task
from pydln.trajectory.recording import Record
from pydln.weights import Weights

__all__ = ["Plan", "PlanPart", "plan"]


@dataclass(frozen=True, kw_only=True)
class PlanPart:
    """Members that are run alike.

    Attributes
    ----------
    members : int
        How many.
    reduced : tuple of str
        The reductions applied, see `pydln.reduce`.
    networks : int
        Networks run for each of them.
    widths : tuple of int
        n_0 … n_D of these.
    layout : str
        ``interleaved``: as many networks at once as a vector has lanes; ``rows``: one network, its rows in vectors, and
        where at most 12 outputs (or inputs) are carried, a backward pass that visits every weight once.
    carried : str
        Side from which products are carried through the layers, the cheaper by counted work: ``inputs`` or ``outputs``.
    flops : float
        Floating-point operations of a step of one member.
    bytes : float
        Memory that a step of one member moves when its weights do not fit in the caches: two reads, one write.
    workspace : int
        Bytes each thread works in.
    expected : dict of str to float
        Share of the processor's multiply-add peak that either layout is expected to reach, unfilled lanes counted.
    why : str
        What decided on layout and reductions.
    """

    members: int
    reduced: tuple[str, ...]
    networks: int
    widths: tuple[int, ...]
    layout: str
    carried: str
    flops: float
    bytes: float
    workspace: int
    expected: dict[str, float]
    why: str

    def __str__(self) -> str:
        many = f" × {self.networks} networks" if self.networks > 1 else ""
        how = ", ".join(self.reduced) or "not reduced"
        return (
            f"{self.members} members{many} {'-'.join(map(str, self.widths))} ({how})\n"
            f"  layout     {self.layout}; products carried from the {self.carried}\n"
            f"  a step     {_si(self.flops)}flop, {_si(self.bytes)}B if weights come from memory; "
            f"workspace {_si(self.workspace)}B a thread\n"
            f"  because    {self.why}"
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `plan` returns; printing it tells everything.

    Attributes
    ----------
    isa : str
        Instruction set.
    given_flops : float
        Counted work of a step of one member, unreduced.
    parts : tuple of PlanPart
    """

    isa: str
    given_flops: float
    parts: tuple[PlanPart, ...]

    def _repr_html_(self) -> str:
        return notebook.as_html(str(self))

    def __str__(self) -> str:
        head = f"instruction set {self.isa}; {_si(self.given_flops)}flop a step of one member as given"
        return "\n".join([head, *map(str, self.parts)])


def plan(
    task: Task,
    weights: Weights,
    *,
    lr: ArrayLike = 1.0,
    steps: int = 10_000,
    at: ArrayLike | None = None,
    record_every: int | None = None,
    record: Record = ("loss", "strengths"),
    momentum: ArrayLike = 0.0,
    nesterov: bool = False,
    weight_decay: ArrayLike = 0.0,
    noise: Noise | None = None,
    stop: Stop | None = None,
    reduce: str | Sequence[str] = "auto",
    n_threads: int | None = None,
) -> Plan:
    """How `gradient_descent` would run an ensemble with the same arguments, and why. Nothing is run.

    The answer is that of the run itself, which asks the same function. One thing only a run can tell: members whose
    reduced networks leave the range of their numbers are run again as they are, see `Trajectory.reduced`.

    Parameters
    ----------
    task : Task
    weights : Weights
    lr, steps, at, record_every, record, momentum, nesterov, weight_decay, noise, stop, reduce, n_threads
        As for `gradient_descent`. What is recorded, drawn and waited for decides with the length of the run, in steps
        and in time, which reductions hold and pay.

    Raises
    ------
    TypeError, ValueError
        As `gradient_descent`.
    """
    run = prepare(
        task,
        weights,
        lr=lr,
        steps=steps,
        at=at,
        record_every=record_every,
        record=record,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        noise=noise,
        stop=stop,
        reduce=reduce,
        n_threads=n_threads,
    ).run
    found = run.findings()
    core = backend.core
    ask = core.plan_f32 if weights.dtype == np.float32 else core.plan_f64
    parts = []
    for group in found.groups:
        one = found[int(group.members[0])]
        count = len(group.members)
        told = ask(list(group.widths), count * group.networks, one.whitened, backend.isa(), backend.layout())
        rates = told["expected"]
        why = f"interleaved {rates['interleaved']:.0%}, rows {rates['rows']:.0%} of peak expected"
        if backend.layout() != "auto":
            why = "layout forced"
        why += "".join(f"\n             {name}: {c.text}" for name, c in one.conditions.items())
        parts.append(
            PlanPart(
                members=count,
                reduced=group.names,
                networks=group.networks,
                widths=group.widths,
                layout=told["layout"],
                carried=told["carried"],
                flops=group.networks * told["flops"],
                bytes=group.networks * told["bytes"],
                workspace=told["workspace"],
                expected=rates,
                why=why,
            )
        )
    return Plan(isa=backend.isa(), given_flops=one.flops, parts=tuple(parts))


def _si(value: float) -> str:
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "
