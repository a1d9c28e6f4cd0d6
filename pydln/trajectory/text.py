"""A trajectory in words and tables, for the terminal and for notebooks."""

from __future__ import annotations

import html
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pydln.trajectory.status import Status

if TYPE_CHECKING:
    from pydln.trajectory.trajectory import Trajectory

__all__ = ["as_html", "counts", "span", "summary"]

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def summary(run: Trajectory) -> str:
    """A table of what was run, how the members ended and the values they ended with; its length is bounded."""
    lines = [_title(run), *_settings_lines(run)]
    for header, rows in _tables(run):
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        lines.append("")
        for row in (header, tuple("-" * w for w in widths), *rows):
            cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            lines.append("  ".join(cells).rstrip())
    if note := _note(run):
        lines += ["", note]
    return "\n".join(lines)


def as_html(run: Trajectory) -> str:
    """The same for a notebook."""
    parts = [f"<b>{html.escape(_title(run))}</b>"]
    parts += [f"<div>{html.escape(line)}</div>" for line in _settings_lines(run)]
    for header, rows in _tables(run):
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if note := _note(run):
        parts.append(f"<div>{html.escape(note)}</div>")
    return "<div>" + "".join(parts) + "</div>"


def counts(run: Trajectory) -> list[tuple[Status, int]]:
    """How many members ended how."""
    numbers = np.bincount(run.status, minlength=len(Status))
    return [(status, int(numbers[status])) for status in Status if numbers[status]]


def _title(run: Trajectory) -> str:
    parts = [
        f"{run.source}: {_plural(run.batch, 'member')}",
        _plural(run.t.shape[-1], "time"),
        span("t", run.t),
    ]
    if run.steps is not None:
        parts.append(span("steps", run.steps))
    return ", ".join(parts)


def _settings_lines(run: Trajectory) -> list[str]:
    shown = []
    for name, value in run.settings.items():
        if isinstance(value, np.ndarray):
            text = f"{span('', value)} (per member)" if value.size else "(per member)"
        else:
            text = value if isinstance(value, str) else json.dumps(value)
        text = " ".join(text.split())
        shown.append(f"{name} = {text if len(text) <= 60 else text[:57] + '...'}")
    if len(shown) > 16:
        shown = [*shown[:16], f"and {len(shown) - 16} more"]
    if run._reduced:
        counts = (f"{name} {int(members.sum())}" for name, members in run._reduced.items())
        shown.append(f"reduced = {', '.join(counts)} of {_plural(run.batch, 'member')}")
    lines: list[str] = []
    for one in shown:
        if lines and len(lines[-1]) + len(one) < 110:
            lines[-1] += f", {one}"
        else:
            lines.append(one)
    return lines


def _tables(run: Trajectory) -> list[Table]:
    """Two tables, how members ended and their last values, as (header, rows)."""
    ends: list[tuple[str, ...]] = []
    for status, number in counts(run):
        stopped = run.stopped_time if run.stopped_step is None else run.stopped_step
        ends.append((status.name.lower(), str(number), *_three(stopped[run.status == status])))
    least = "min t" if run.stopped_step is None else "min step"
    tables: list[Table] = [(("how members ended", "members", least, "median", "max"), ends)]
    values: list[tuple[str, ...]] = []
    for name in _summarised(run):
        first = run._records[name][:, :1]
        last = _last(run, name)
        if name == "loss" and first.size:
            values.append(("loss at the first time", *_three(first[:, 0])))
        if last.ndim == 1:
            values.append((f"last {name}", *_three(last)))
        elif name == "drift":
            values.append(("last drift, largest", *_three(last.max(axis=1) if last.shape[1] else np.empty(0))))
        else:
            shown = range(last.shape[1]) if last.shape[1] <= 8 else [*range(7), last.shape[1] - 1]
            values += [(f"last strength of mode {k}", *_three(last[:, k])) for k in shown]
    if values:
        tables.append((("over members", "min", "median", "max"), values))
    return tables


def _note(run: Trajectory) -> str:
    """What the tables leave out: members without a value, because they stopped before the first recorded step."""
    name = next(iter(_summarised(run)), None)
    if name is None or run._records[name].size == 0:
        return ""
    last = _last(run, name).reshape(run.batch, -1)
    count = int(np.isnan(last).all(axis=1).sum())
    if not count:
        return ""
    others = "there are none to show" if count == run.batch else "those shown are of the others"
    return (
        f"{_plural(count, 'member')} stopped before the first recorded step and left no last values ({others}): "
        "record at earlier steps to see more"
    )


def _last(run: Trajectory, name: str) -> NDArray[Any]:
    """The last value of `name` that each member recorded; NaN if it recorded none."""
    values = run._records[name]
    if values.shape[1] == 0:
        return np.full((run.batch, *values.shape[2:]), np.nan)
    there = ~np.isnan(values).all(axis=tuple(range(2, values.ndim)))
    place = values.shape[1] - 1 - np.argmax(there[:, ::-1], axis=1)
    result: NDArray[Any] = values[np.arange(run.batch), place]
    return result


def _summarised(run: Trajectory) -> list[str]:
    """What the tables show: single numbers, strengths and drift."""
    return [
        name
        for name in run.names
        if name in ("strengths", "drift") or (name != "weights" and getattr(run, name).ndim == 2)
    ]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _number(value: Any) -> str:
    if math.isnan(value):
        return "-"
    return str(int(value)) if isinstance(value, int | np.integer) else f"{value:.6g}"


def span(name: str, values: NDArray[Any]) -> str:
    """From the least to the largest."""
    if not values.size:
        return f"no {name}"
    return f"{name} {_number(values.min())} ... {_number(values.max())}".strip()


def _three(values: NDArray[Any]) -> tuple[str, str, str]:
    """Minimum, median and maximum as text, over the members that have a value."""
    there = values[~np.isnan(values)]
    if not there.size:
        return ("-", "-", "-")
    with np.errstate(all="ignore"):  # a median between two infinities of a diverged member
        return (_number(there.min()), _number(np.median(there)), _number(there.max()))
