"""The one way from an ensemble to its records: groups, parts, kernel, recovery, what is derived, Ctrl-C."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from pydln._base.arrays import Floats, Integers, blocks, take
from pydln.quantities import Sizes
from pydln.reduce.decay import Decay
from pydln.reduce.ensemble import RUN_WHOLE, Ensemble, Group, KernelResult, Problem, Whole
from pydln.simulate.progress import Tick
from pydln.trajectory.recording import Recording, arrays_of
from pydln.trajectory.status import Status

__all__ = ["Ends", "Loop"]

_AT_ONCE = 2**25  # bytes of full weights that are recovered at once


class Ends:
    """How every member, or every network, ended.

    Attributes
    ----------
    status : (batch,) array
    stopped_at : (batch,) array
        A step; of a flow, a time.
    accepted, rejected : (batch,) arrays
        Steps of an integrator.
    """

    def __init__(self, batch: int, dtype: Any = np.float64) -> None:
        self.status = np.full(batch, Status.INTERRUPTED, dtype=np.int64)
        self.stopped_at = np.zeros(batch, dtype=dtype)
        self.accepted = np.zeros(batch, dtype=np.int64)
        self.rejected = np.zeros(batch, dtype=np.int64)

    def of(self, members: Integers) -> dict[str, Any]:
        """Views of consecutive members, for a kernel of flows to write into."""
        span = slice(members[0], members[-1] + 1)
        return {
            "status": self.status[span],
            "stopped_at": self.stopped_at[span],
            "accepted": self.accepted[span],
            "rejected": self.rejected[span],
        }

    def take(self, members: Integers, other: Ends) -> None:
        """How `members` ended, from those who are all of `other`."""
        self.status[members], self.stopped_at[members] = other.status, other.stopped_at
        self.accepted[members], self.rejected[members] = other.accepted, other.rejected

    def forget(self, members: Integers) -> None:
        """Members that are not begun."""
        self.status[members], self.stopped_at[members] = Status.INTERRUPTED, 0
        self.accepted[members], self.rejected[members] = 0, 0

    @property
    def begun(self) -> Any:
        """Who has moved or ended, (batch,): Ctrl-C leaves the others at their starts."""
        ended = (self.status != Status.INTERRUPTED) & (self.status != RUN_WHOLE)
        return ended | (self.stopped_at > 0) | (self.accepted > 0)


class Loop(ABC):
    """A run of linear networks group by group; verbs say which groups there are and call their kernel.

    Attributes
    ----------
    records : dict
        Everything asked for, (batch, time, …).
    final : list of arrays
        W_1 … W_D where the members ended.
    ends : Ends
    reduced : dict
        Name of a reduction to which members were run so.
    """

    temporary = 2**28  # bytes of records of reduced networks that are held beside those of the members

    def __init__(self, ensemble: Ensemble, recording: Recording, at: Floats, threads: int, ends: Ends) -> None:
        self.ensemble, self.recording, self.at, self.threads, self.ends = ensemble, recording, at, threads, ends
        self.sizes = Sizes(ensemble.weights.widths, ensemble.task.modes.s.shape[-1])
        self.records: dict[str, Any] = {}
        self.final: list[Floats] = []
        self.reduced: dict[str, Any] = {}
        self.done = 0

    @abstractmethod
    def groups(self) -> list[Group]:
        """How the members are to be run."""

    @property
    @abstractmethod
    def work(self) -> int:
        """Of one member, in the units of progress."""

    @abstractmethod
    def call(
        self, group: Group, part: Integers, problem: Problem, records: dict[str, Any], ends: Ends, tick: Tick | None
    ) -> bool:
        """Runs the networks of `part` of a group, writing their `records` and `ends`; whether Ctrl-C ended it."""

    @abstractmethod
    def decay(self, members: Integers) -> Decay:
        """How weights shrink that no gradient reaches."""

    def times_held(self, group: Group) -> int:
        """Records of all the layers that a network makes beside those of the members."""
        return len(self.at) * ("weights" in self.recording.sources)

    def __call__(self, tick: Tick | None) -> bool:
        """Runs everything; whether Ctrl-C ended it."""
        batch, dtype = self.ensemble.batch, self.ensemble.weights.dtype
        self.records = self.recording.empty(self.recording.names, self.sizes, batch, len(self.at), dtype)
        try:
            interrupted = self._all(tick)
        except KeyboardInterrupt:  # outside the kernel, which returns what it has
            interrupted = True
        if interrupted:
            self.final = self.final or self._starts()
            self._forget(np.flatnonzero(~self.ends.begun))
        return interrupted

    def _all(self, tick: Tick | None) -> bool:
        groups = self.groups()
        if len(groups) > 1 or not isinstance(groups[0], Whole) or self.recording.derived:
            self.final = self._starts()
        while groups:
            group = groups.pop(0)
            for name in group.names:
                self.reduced.setdefault(name, np.zeros(self.ensemble.batch, dtype=bool))[group.members] = True
            for part in self._parts(group):
                if self._run(group, part, tick):
                    return True
                members = group.members[part]
                lost = members[self.ends.status[members] == RUN_WHOLE]
                self.done += self.work * (len(members) - len(lost))
                if lost.size:
                    groups.append(Whole(self.ensemble, lost))
                    self._forget(lost)
        return False

    def _starts(self) -> list[Floats]:
        """The weights that each member starts from."""
        batch = self.ensemble.batch
        return [np.array(np.broadcast_to(w, (batch, *w.shape[1:])), order="C") for w in self.ensemble.weights.layers]

    def _forget(self, members: Integers) -> None:
        """Members as if they had not been run."""
        self.ends.forget(members)
        for reduced in self.reduced.values():
            reduced[members] = False
        for value in self.records.values():
            for a in arrays_of(value):
                a[members] = np.nan
        for w, start in zip(self.final, self.ensemble.weights.layers, strict=True):
            w[members] = start if len(start) == 1 else start[members]

    def _parts(self, group: Group) -> Iterator[Integers]:
        """The members of a group, as many at once as fit beside the recording."""
        count = len(group.members)
        if isinstance(group, Whole) and count == self.ensemble.batch and not self.recording.derived:
            return iter((np.arange(count),))
        weights = sum(n * m for n, m in pairwise(group.widths))
        bytes_of_one = 8 * group.networks * weights * (1 + self.times_held(group))
        return blocks(count, bytes_of_one, at_once=self.temporary, at_least=16 * self.threads)

    def _run(self, group: Group, part: Integers, tick: Tick | None) -> bool:
        """Runs `part` of the members of a group and writes what they leave; whether Ctrl-C ended the kernel's call."""
        members, networks, batch = group.members[part], group.networks, self.ensemble.batch
        count, everyone = len(members), len(members) == batch
        names = self.recording.sources
        problem = group.problem(part, test="test_loss" in names)
        span: Any = slice(members[0], members[-1] + 1) if members[-1] - members[0] == count - 1 else members
        target = {
            name: [a[span] for a in value] if name == "weights" else value[span] for name, value in self.records.items()
        }
        held = self.recording.empty(
            [name for name in names if name not in target], self.sizes, count, len(self.at), self.ensemble.weights.dtype
        )
        recorded = self._recorded(group, group.records(names), target | held, count)
        ends = Ends(count * networks, self.ends.stopped_at.dtype)
        before, total = self.done, self.work * batch

        def told(done: int, _: int) -> object:
            assert tick is not None
            return tick(before + done // networks, total)

        interrupted = self.call(group, part, problem, recorded, ends, None if tick is None else told)
        if isinstance(group, Whole) and everyone and not self.recording.derived:
            self.final, self.ends = problem.weights, ends
            return interrupted

        decay = self.decay(members)
        for some in blocks(count, 4 * self.ensemble.bytes_of_one, at_once=_AT_ONCE):
            rows = slice(some[0], some[-1] + 1)
            own = slice(networks * some[0], networks * (some[-1] + 1))
            kernel = KernelResult(
                records={n: [a[own] for a in v] if n == "weights" else v[own] for n, v in recorded.items()},
                final=[w[own] for w in problem.weights],
                status=ends.status[own],
                stopped_at=ends.stopped_at[own],
            )
            out = {n: [a[rows] for a in v] if n == "weights" else v[rows] for n, v in (target | held).items()}
            sources = {n: out[n] for n in names}
            ended = group.recover(part[some], kernel, sources, decay[some], self.at)
            chosen = members[some]
            start = [take(w, chosen) for w in self.ensemble.weights.layers] if self.recording.since_start else []
            self.recording.derive(sources, out, self.ensemble.task, chosen, start, self.threads)
            if not isinstance(span, slice):
                for name, value in self.records.items():
                    for a, b in zip(arrays_of(value), arrays_of(out[name]), strict=True):
                        a[chosen] = b
            for w, now in zip(self.final, ended.final, strict=True):
                w[chosen] = now
            for mine, theirs in ((self.ends.accepted, ends.accepted), (self.ends.rejected, ends.rejected)):
                mine[chosen] = theirs[own].reshape(len(some), networks).max(axis=1)
            # Last: Ctrl-C before this leaves members that are not begun.
            self.ends.status[chosen], self.ends.stopped_at[chosen] = ended.status, ended.stopped_at
        return interrupted

    def _recorded(self, group: Group, names: tuple[str, ...], target: dict[str, Any], members: int) -> dict[str, Any]:
        """Arrays that a kernel records the networks of a group into: those of `target`, where these fit."""
        sizes = Sizes(group.widths, 1 if group.networks > 1 else self.sizes.modes)
        made = {}
        for name in names:
            there = arrays_of(target.get(name, []))
            shapes = self.recording.shapes(name, sizes)
            fits = group.networks == 1 and [a.shape[2:] for a in there] == shapes
            if fits and all(a.flags.c_contiguous for a in there):
                made[name] = target[name]
            else:
                networks = members * group.networks
                made |= self.recording.empty([name], sizes, networks, len(self.at), self.ensemble.weights.dtype)
        return made
