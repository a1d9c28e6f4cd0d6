"""``index.html``: all finished figures of a directory, with their tables, commands and versions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from pydln._base import atomic
from pydln.reproduce import catalogue
from pydln.reproduce.checks import Check, cells
from pydln.reproduce.record import Record

__all__ = ["write_page"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #8a8a8a; --good: #009e73; --bad: #d55e00; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
img { width: 100%; height: auto; background: #fff; border-radius: 6px; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide { overflow-x: auto; }
.pass { color: var(--good); } .FAIL { color: var(--bad); font-weight: bold; } .shown { color: var(--dim); }
code { background: #8882; padding: .1rem .3rem; border-radius: 4px; }
section { margin-top: 3.5rem; } summary { cursor: pointer; }
footer { margin: 3rem 0; color: var(--dim); font-size: .85rem; }
"""


def write_page(out_dir: str | os.PathLike[str], names: Iterable[str] = catalogue.FIGURES) -> Path:
    """Write ``index.html`` into `out_dir`, about those of the figures `names` that are finished there."""
    folder = Path(out_dir)
    with atomic.locked(folder / ".index.lock"):  # of two figures finished at once, the later page has both
        return _write(folder, names)


def _write(folder: Path, names: Iterable[str]) -> Path:
    records = [record for record in (Record.load(folder, name) for name in names) if record is not None]
    papers = list(dict.fromkeys(catalogue.paper(record.report.name) for record in records))
    title = f"{escape('; '.join(paper.cited for paper in papers))}: every figure, theory against measurement"
    sources = "; ".join(
        f'“{escape(paper.title)}”, <a href="{escape(paper.url)}">{escape(paper.reference)}</a>' for paper in papers
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        f"<p>{sources}, by pydln.</p>",
        _summary(records),
        *(_section(record) for record in records),
        "</body></html>",
    ]
    path = folder / "index.html"
    with atomic.replacing(path) as file:
        file.write(("\n".join(parts) + "\n").encode())
    return path


def _summary(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        report = record.report
        judged = [check for check in report.checks if check.passed is not None]
        good = sum(check.passed is True for check in judged)
        rows.append(
            f'<tr><td><a href="#{report.name}">{escape(report.title)}</a></td>'
            f"<td>{_verdict(report.passed)}</td>"
            f'<td class="number">{good} of {len(judged)}</td>'
            f"<td>{'the paper’s' if record.request.full else 'quick'}</td>"
            f'<td class="number">{record.seconds:.1f} s</td></tr>'
        )
    head = "<th>figure</th><th></th><th class=number>checks passed</th><th>sizes</th><th class=number>time</th>"
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _section(record: Record) -> str:
    report, request = record.report, record.request
    made = f"<code>{escape(request.command())}</code> &nbsp; pydln {escape(request.version)}, {record.seconds:.1f} s"
    links = " · ".join(f'<a href="{escape(file.name)}">{escape(file.name)}</a>' for file in report.files)
    settings = "".join(
        f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>" for key, value in report.settings.items()
    )
    return f"""<section id="{report.name}">
<h2>{escape(report.title)}</h2>
<p>{made}</p>
<a href="{report.name}.svg"><img src="{report.name}.png" alt="{escape(report.title)}" loading="lazy"></a>
<p>{links}</p>
{_checks(report.checks)}
<details><summary>What the paper gives, what it leaves unsaid, what was chosen</summary>{_prose(record.about)}</details>
<details><summary>Settings</summary><div class="wide"><table><tbody>{settings}</tbody></table></div></details>
</section>"""


def _checks(checks: Sequence[Check]) -> str:
    header, *rows = cells(checks)
    number = {i for i, name in enumerate(header) if name in {"theory", "measured", "difference", "tolerance"}}

    def line(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' if i in number else ''}>{_verdict_cell(text)}</{tag}>"
            for i, text in enumerate(row)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{line(header, "th")}</tr></thead><tbody>{body}</tbody></table></div>'


def _verdict_cell(text: str) -> str:
    return f'<span class="{text}">{text}</span>' if text in {"pass", "FAIL", "shown"} else escape(text)


def _verdict(passed: bool) -> str:
    return _verdict_cell("pass" if passed else "FAIL")


def _prose(text: str) -> str:
    """Paragraphs and dashed lists of a docstring."""
    out = []
    for block in text.split("\n\n"):
        if block.startswith("- "):
            items = ("\n" + block).split("\n- ")[1:]
            out.append("<ul>" + "".join(f"<li>{escape(' '.join(item.split()))}</li>" for item in items) + "</ul>")
        else:
            out.append(f"<p>{escape(' '.join(block.split()))}</p>")
    return "".join(out)
