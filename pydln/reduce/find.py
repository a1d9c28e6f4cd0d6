"""Which reductions hold for which members, measured, and which of them are worth their work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from pydln._base import validate
from pydln._base.arrays import Floats, Integers, blocks, take
from pydln._base.backend import core
from pydln.quantities import Quantity
from pydln.reduce.decoupled import Decoupled, aligned_frames
from pydln.reduce.ensemble import Ensemble, Group, Whole
from pydln.reduce.growth import LEAST, LONG, chained, left_behind
from pydln.reduce.inputs import Inputs, Needs, diagonal
from pydln.reduce.projected import Projected
from pydln.reduce.width import Family, invariant_family, tolerance_of

__all__ = ["REDUCTIONS", "Finding", "Findings", "ReductionCondition", "asked", "find", "ruled_out"]

REDUCTIONS = ("inputs", "width", "decoupled")
"""Every name that ``reduce=`` knows besides ``auto`` and ``none``."""

# What a search may cost, of the work of the whole run, when nothing says beforehand that it will find something.
_SEARCH = 0.01
_CALL = 3e4  # a call of matmul on a stack costs about 1 µs a matrix beside its arithmetic, in operations of a kernel


@dataclass(frozen=True, kw_only=True)
class ReductionCondition:
    """One reduction and one member.

    Attributes
    ----------
    applied : bool
        Whether the member is run so.
    holds : bool or None
        Whether it could be; None if that was not looked for because the run is too short to pay for it.
    measured, tolerance : float
        ``inputs``: 0, for only directions without variance are left out; ``width``: the largest part of the start
        outside the subspaces; ``decoupled``: the largest part of the start outside the modes. NaN if nothing was
        measured.
    widths : tuple of int
        n_0 … n_D of the networks that this reduction alone, or with those before it, leads to.
    text : str
        The same in words.
    """

    applied: bool
    holds: bool | None
    measured: float
    tolerance: float
    widths: tuple[int, ...]
    text: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is done with one member.

    Attributes
    ----------
    names : tuple of str
        The reductions applied, out of `REDUCTIONS`.
    widths : tuple of int
        n_0 … n_D of the networks that are run for it.
    networks : int
        How many of these there are: the number of modes if ``decoupled``, else 1.
    whitened : bool
        Whether these networks are spared the product ΩΣ_xx: Σ_xx is the identity, or diagonal.
    flops, reduced_flops : float
        Counted operations of a step, as given and as run.
    conditions : dict of str to ReductionCondition
        Every reduction.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    networks: int
    whitened: bool
    flops: float
    reduced_flops: float
    conditions: dict[str, ReductionCondition]


@dataclass(eq=False)
class _Column:
    """What is known of one reduction, case by case."""

    holds: Floats  # NaN: not looked for
    measured: Floats
    tolerance: float
    why_not: str
    widths: dict[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(eq=False)
class Findings:
    """The groups of an ensemble, and what was found about every member: ``findings[member]`` is a `Finding`."""

    ensemble: Ensemble
    groups: list[Group]
    columns: dict[str, _Column]

    def __len__(self) -> int:
        return self.ensemble.batch

    def __getitem__(self, member: int) -> Finding:
        group = next(g for g in self.groups if member in g.members)
        case = member if self.ensemble.cases > 1 else 0
        given = self.ensemble.weights.widths
        whitened = self.ensemble.task.whitened
        as_run = whitened or bool({*group.names} - {"width"})
        return Finding(
            names=group.names,
            widths=group.widths,
            networks=group.networks,
            flops=_flops(given, whitened),
            whitened=as_run,
            reduced_flops=group.networks * _flops(group.widths, as_run),
            conditions={name: self._condition(name, case, group, given) for name in REDUCTIONS},
        )

    def _condition(self, name: str, case: int, group: Group, given: tuple[int, ...]) -> ReductionCondition:
        column = self.columns[name]
        known, measured = column.holds[case], float(column.measured[case])
        widths = column.widths.get(case, given)
        if np.isnan(known):
            text = column.why_not or "not looked for: more work than it could save"
        elif name == "inputs":
            text = f"{widths[0]} of {given[0]} input directions, the others without variance"
        elif name == "width":
            shown = "-".join(map(str, widths[1:-1])) or "none"
            text = f"hidden layers move in {shown} of {'-'.join(map(str, given[1:-1])) or 'none'} directions"
            text += f", {measured:.2g} of the start outside" if known else ""
        else:
            text = f"{measured:.2g} of the start outside the modes, <= {column.tolerance:.2g} expected"
        return ReductionCondition(
            applied=name in group.names,
            holds=None if np.isnan(known) else bool(known),
            measured=measured,
            tolerance=column.tolerance,
            widths=widths,
            text=text,
        )


def asked(reduce: object, *, also: tuple[str, ...] = ()) -> str | tuple[str, ...]:
    """``auto``, ``none`` or the names asked for, out of `REDUCTIONS` and `also`."""
    if isinstance(reduce, str) and reduce in ("auto", "none"):
        return reduce
    if isinstance(reduce, str):
        validate.choice(reduce, "reduce", ("auto", "none", *REDUCTIONS, *also))
    names = validate.names(reduce, "reduce", (*REDUCTIONS, *also))
    if "decoupled" in names and len(names) > 1:
        raise ValueError(
            "reduce: expected 'decoupled' alone, its networks have one unit everywhere, got others with it"
        )
    for name in also:
        if name in names and len(names) > 1:
            raise ValueError(f"reduce: expected {name!r} alone, it leaves no layers to reduce, got others with it")
    return names or "none"


def ruled_out(
    wanted: str | tuple[str, ...], quantities: Iterable[Quantity], *, noise: bool = False
) -> tuple[str | tuple[str, ...], str]:
    """The reductions to look for, and why none is where the run rules them out.

    Raises
    ------
    ValueError
        Reductions asked for by name in a run that rules them out.
    """
    reasons = [("noise", "not with noise, which is drawn for the whole networks")] * noise
    reasons += [(q.name, f"not with {q.name}, which sees the whole layers") for q in quantities if q.unreduced]
    for what, because in reasons:
        if isinstance(wanted, tuple):
            raise ValueError(f"reduce: expected auto or none with {what}, got {', '.join(wanted)}")
        return "none", because if wanted == "auto" else "not asked for"
    return wanted, "not asked for"


def find(
    ensemble: Ensemble,
    reduce: str | Sequence[str] = "auto",
    *,
    steps: int,
    duration: ArrayLike = LONG,
    needs: Needs | None = None,
    stops: bool = False,
    steady: bool = False,
    because: str = "not asked for",
) -> Findings:
    """What can be reduced, and how the members are to be run.

    Decisions are made for every member by itself: from its task, its start, the number of steps and what is recorded.

    Parameters
    ----------
    ensemble : Ensemble
    reduce : str or sequence of str
        ``auto`` applies what holds and lowers the counted work by more than finding it costs, ``none`` nothing; names
        are applied or refused.
    steps : int
        The length of the run.
    duration : float or (batch,) array
        The same in units of time, for which rounding errors of a start may grow.
    needs : Needs, optional
        What is seen of the run; everything when not given.
    stops, steady : bool
        Whether the run may stop at a loss, at strengths or in a steady state; whether in a steady state, which looks
        at single entries of the layers.
    because : str
        Why reductions that are not asked for are not.

    Raises
    ------
    ValueError
        A reduction that was asked for by name does not hold for a member.
    """
    validate.instance(ensemble, "ensemble", Ensemble)
    if needs is not None:
        validate.instance(needs, "needs", Needs)
    steps = validate.integer(steps, "steps", at_least=0, at_most=2**62)
    stops, steady = validate.flag(stops, "stops"), validate.flag(steady, "steady")
    needs = (
        Needs(product=True, strengths=True, test=ensemble.task.test is not None, drift=True) if needs is None else needs
    )
    if not isinstance(because, str):
        raise TypeError(f"because: expected text, got {validate.short(because)}")
    lasting = np.broadcast_to(validate.per_member(duration, "duration", at_least=0), (ensemble.batch,))
    return _Search(ensemble, asked(reduce), steps, lasting, needs, stops, steady, because).run()


class _Search:
    def __init__(
        self,
        ensemble: Ensemble,
        reduce: str | tuple[str, ...],
        steps: int,
        duration: Floats,
        needs: Needs,
        stops: bool,
        steady: bool,
        because: str,
    ) -> None:
        self.ensemble, self.steps, self.duration, self.needs = ensemble, float(steps), duration, needs
        self.eps = float(np.finfo(ensemble.weights.dtype).eps)
        self.short = np.ones(ensemble.batch, dtype=bool)  # members whose run is short enough for what is left out of it
        self.stops, self.steady = stops, steady
        self.auto = reduce == "auto"
        self.names: tuple[str, ...] = REDUCTIONS if reduce == "auto" else () if reduce == "none" else tuple(reduce)
        self.widths, self.whitened = ensemble.weights.widths, ensemble.task.whitened
        self.flops = _flops(self.widths, self.whitened)
        cases = ensemble.cases
        nothing = np.full(cases, np.nan)
        why_not = "" if self.auto else because
        self.columns = {
            name: _Column(nothing.copy(), nothing.copy(), tolerance, why_not)
            for name, tolerance in zip(
                REDUCTIONS,
                (4 * np.finfo(np.float64).eps * self.widths[0], tolerance_of(ensemble), tolerance_of(ensemble)),
                strict=True,
            )
        }
        self.groups: list[Group] = []

    def run(self) -> Findings:
        left = np.arange(self.ensemble.cases)
        if "decoupled" in self.names:
            left = self.decoupled(left)
        parts: list[tuple[Integers, Inputs | None]] = [(left, None)]
        if left.size and "inputs" in self.names:
            parts = self.inputs(left)
        whole = []
        for members, inputs in parts:
            if members.size:
                whole.append(self.width(members, inputs))
        rest = np.concatenate([self.members(part) for part in whole] + [np.flatnonzero(~self.short)])
        if rest.size:
            self.groups.append(Whole(self.ensemble, np.sort(rest)))
        return Findings(self.ensemble, self.groups, self.columns)

    def members(self, cases: Integers) -> Integers:
        """Places in the batch."""
        return cases if self.ensemble.cases > 1 or not cases.size else np.flatnonzero(self.short)

    def stays_small(self, cases: Integers, ratio: Callable[[Floats], Floats]) -> Floats:
        """Cases in which what is left out stays small, told from `ratio` of their durations, see `overtaken`.

        Members of one case that are run for different times need not agree: those that may not are set aside.
        """
        if self.ensemble.cases > 1:
            return np.asarray(ratio(self.duration[cases]) <= LEAST)
        times, which = np.unique(self.duration[self.short], return_inverse=True)
        stays = np.array([bool(ratio(np.array([t]))[0] <= LEAST) for t in times])
        if not self.auto:
            return np.array([stays.all()])
        if stays.any():
            self.short[self.short] = stays[which.reshape(-1)]
        return np.array([stays.any()])

    def refuse(self, name: str, expected: str, got: str) -> None:
        """Names are asked for and refused; in ``auto`` what does not hold is left."""
        if self.auto:
            self.columns[name].why_not = f"needs {expected}, got {got}"
            return
        raise ValueError(f"reduce: expected {expected} for {name!r}, got {got}")

    def decoupled(self, cases: Integers) -> Integers:
        column = self.columns["decoupled"]
        if self.stops:
            self.refuse("decoupled", "a run whose modes do not look at each other", "a stop")
            return cases
        modes = self.ensemble.task.modes.s.shape[-1]
        ones = (1,) * len(self.widths)
        lower = modes * _flops(ones, True) < self.flops
        first = 2.0 * modes * self.widths[0] * self.widths[min(1, len(self.widths) - 1)] + 2 * _CALL
        if self.auto and not (lower and first < _SEARCH * self.flops * self.steps):
            return cases
        left, found = [], []
        for some in blocks(len(cases), 3 * self.ensemble.bytes_of_one):
            part = cases[some]
            frames = aligned_frames(self.ensemble, part)
            if frames.holds.any():
                stays = self.stays_small(part[frames.places], partial(frames.ratio, eps=self.eps))
                frames.holds[frames.places[~stays]] = False
                frames = frames.of(np.flatnonzero(stays))
            column.measured[part], column.holds[part] = frames.misaligned, frames.holds
            left.append(part[~frames.holds])
            if frames.holds.any():
                found.append((part[frames.places], frames))
        bad = np.flatnonzero(column.holds == 0)
        if bad.size and not self.auto:
            self.refuse(
                "decoupled",
                f"starts aligned with the modes to {column.tolerance:.3g}",
                f"member {bad[0]} with {column.measured[bad[0]]:.3g} of it outside",
            )
        if found:
            chosen = np.concatenate([part for part, _ in found])
            column.widths |= dict.fromkeys(chosen.tolist(), ones)
            stacked = [np.concatenate(same) for same in zip(*(f.frames for _, f in found), strict=True)]
            variances = np.concatenate([f.variances for _, f in found])
            self.groups.append(Decoupled(self.ensemble, self.members(chosen), stacked, variances))
        return np.concatenate(left) if left else cases[:0]

    def inputs(self, cases: Integers) -> list[tuple[Integers, Inputs | None]]:
        n = self.widths[0]
        if self.whitened:
            self.refuse("inputs", "general input covariances", "whitened inputs, Σ_xx = I")
            return [(cases, None)]
        if self.steady:
            self.refuse("inputs", "no stop in a steady state, which looks at entries of W_1,", "stop.steady")
            return [(cases, None)]
        # The decomposition takes twice an eigh of about 4 n³ + 1500 n² (8 ... 1500 inputs, one core), the turns of W_1
        # and Σ_yx the rest.
        cost = 8.0 * n**3 + 3000.0 * n * n + 4.0 * n * n * (self.widths[1] + self.widths[-1]) + 4 * _CALL
        if self.auto and cost > (self.flops - _flops(self.widths, True)) * self.steps:
            return [(cases, None)]
        column = self.columns["inputs"]
        column.holds[cases] = 1.0
        found: list[tuple[Integers, Inputs | None]] = []
        for one in diagonal(self.ensemble, cases, self.needs):
            column.measured[one.members] = one.largest_dropped
            column.widths |= dict.fromkeys(one.members.tolist(), (one.width, *self.widths[1:]))
            found.append((one.members, one))
        return found

    def width(self, cases: Integers, inputs: Inputs | None) -> Integers:
        """Makes the groups of `cases`; returns those that are left whole."""
        entry = None if inputs is None or inputs.width == self.widths[0] else inputs.basis
        start = self.widths if inputs is None else (inputs.width, *self.widths[1:])
        whitened = self.whitened or inputs is not None
        column = self.columns["width"]
        budget: float | None = None
        wanted = "width" in self.names
        if wanted and self.steady:
            self.refuse("width", "no stop in a steady state, which looks at entries of the layers,", "stop.steady")
            wanted = False
        if wanted and self.auto:
            flops = _flops(start, whitened)
            saved = flops - _flops(_bounded(start), whitened)
            budget = max(_SEARCH * flops * self.steps, 0.5 * saved * self.steps)
            # The least that a search does is to look at the last layer and at the first.
            wanted = len(start) > 2 and max(start[1:-1]) > 1 and budget > 8 * _CALL * 2
        if not wanted:
            families = [Family(np.arange(len(cases)), (None,) * (len(start) - 2), start[1:-1], np.zeros(len(cases)))]
        else:
            found = self.families(cases, entry, budget)
            families = [part for family in found for part in self.lasting(family, cases, entry)]
            for family in families:
                part = cases[family.places]
                full = family.widths == self.widths[1:-1]
                if family.given_up:
                    continue
                column.measured[part], column.holds[part] = family.neglected, not full
                column.widths |= dict.fromkeys(part.tolist(), (start[0], *family.widths, start[-1]))
                if full and not self.auto:
                    shown = "-".join(map(str, family.widths)) or "no hidden layer"
                    self.refuse(
                        "width",
                        "hidden layers that move in fewer directions than they have units",
                        f"member {part[0]} with {shown} of {'-'.join(map(str, self.widths[1:-1])) or 'none'}",
                    )
        whole = []
        for family in families:
            part = cases[family.places]
            narrower = family.widths != self.widths[1:-1]
            names = tuple(n for n, on in (("inputs", inputs is not None), ("width", narrower)) if on)
            widths = (start[0], *family.widths, start[-1])
            if not names or (self.auto and _flops(widths, whitened) >= self.flops):
                whole.append(part)
                continue
            own = None if inputs is None else _some(inputs, family.places, self.members(part))
            self.groups.append(Projected(self.ensemble, self.members(part), names, own, family.bases))
        return np.concatenate(whole) if whole else cases[:0]

    def lasting(self, family: Family, cases: Integers, entry: Floats | None) -> list[Family]:
        """`family` where what is outside its bases stays small; the others need all layers whole."""
        hidden = self.widths[1:-1]
        if family.widths == hidden:
            return [family]
        part = cases[family.places]
        layers = [self.ensemble.layer(k, part) for k in range(1, len(self.widths))]
        yx, omega = self.ensemble.of_task("sigma_yx", part), chained(layers)
        errors = [yx - (omega if self.whitened else omega @ self.ensemble.of_task("sigma_xx", part)), yx]
        if entry is not None:
            own = take(entry, family.places)
            layers[0], errors = layers[0] @ own, [E @ own for E in errors]
        stays = self.stays_small(part, lambda times: left_behind(layers, family.bases, errors, times, self.eps))
        grows = family.places[~stays]
        if not grows.size:
            return [family]
        if not self.auto:
            self.refuse(
                "width",
                "starts whose rounding errors outside the subspaces cannot grow into modes",
                f"member {cases[grows[0]]}, which has nothing else to learn a mode from",
            )
        self.columns["width"].why_not = "what is outside the subspaces is rounding or a small part that grows"
        some = np.flatnonzero(stays)
        kept = Family(
            family.places[some],
            tuple(None if P is None else take(P, some) for P in family.bases),
            family.widths,
            take(family.neglected, some),
        )
        whole = Family(grows, (None,) * len(hidden), hidden, family.neglected[~stays], True)
        return [one for one in (kept, whole) if one.places.size]

    def families(self, cases: Integers, entry: Floats | None, budget: float | None) -> list[Family]:
        """Found block by block, those of the same widths put together."""
        if self.ensemble.weights.batch == 1 and (entry is None or len(entry) == 1):
            (one,) = invariant_family(self.ensemble, cases[:1], entry, budget=budget)
            neglected = np.repeat(one.neglected, len(cases))
            return [Family(np.arange(len(cases)), one.bases, one.widths, neglected, one.given_up)]
        same: dict[tuple[int, ...], list[Family]] = {}
        for some in blocks(len(cases), 3 * self.ensemble.bytes_of_one):
            own = None if entry is None else take(entry, some)
            for family in invariant_family(self.ensemble, cases[some], own, budget=budget):
                one = Family(some[family.places], family.bases, family.widths, family.neglected, family.given_up)
                same.setdefault((family.given_up, *family.widths), []).append(one)
        merged = []
        for (given_up, *widths), parts in same.items():
            places = np.concatenate([one.places for one in parts])
            order = np.argsort(places, kind="stable")
            bases = tuple(
                None if P[0] is None else np.concatenate(P)[order]
                for P in zip(*(one.bases for one in parts), strict=True)
            )
            neglected = np.concatenate([one.neglected for one in parts])[order]
            merged.append(Family(places[order], bases, tuple(widths), neglected, bool(given_up)))
        return merged


def _some(inputs: Inputs, places: Integers, members: Integers) -> Inputs:
    return Inputs(
        members,
        take(inputs.basis, places),
        take(inputs.variances, places),
        take(inputs.targets, places),
        inputs.moving,
        take(inputs.largest_dropped, places),
        inputs.tolerance,
    )


def _bounded(widths: tuple[int, ...]) -> tuple[int, ...]:
    """Widths that no hidden layer exceeds whatever the start: it moves within the span of its two neighbours."""
    bounded = list(widths)
    for _ in pairwise(widths):
        for k in range(1, len(widths) - 1):
            bounded[k] = min(bounded[k], bounded[k - 1] + bounded[k + 1])
    return tuple(bounded)


def _flops(widths: tuple[int, ...], whitened: bool) -> float:
    return float(core.step_flops(list(widths), whitened))
