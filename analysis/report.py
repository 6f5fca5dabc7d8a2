"""The report: the whole answer as one page that needs nothing else, or as Markdown to paste. Runs in, text out."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis import advise, claims, compare, javascript, machine, render
from analysis import charts as drawing
from analysis.cases import cases
from analysis.footer import footer
from analysis.load import Run, rows_of
from analysis.render import Table
from analysis.summarise import summarise
from analysis.tables import summary_tables
from benchmarks.record import Row

TITLE = "What gradient tracking costs"
MARKS = MappingProxyType({".html": '<meta name="generator" content="gradtax">', ".md": "<!-- written by gradtax -->"})
"""What tells a report of each format from other files, which are not overwritten."""

CHARTS = MappingProxyType(
    {
        "speedup": "Speedup, with 99 % intervals",
        "heaps": "As shipped, heap by heap",
        "memory": "Peak memory against size",
        "saved": "Saved bytes by module",
        "theory": "Theory against measurement",
        "placebo": "Placebo readings",
    }
)
"""The sections of charts in their order, by the first word of the charts' names."""

_HERE = Path(__file__).parent
_WHERE_MARKS_ARE = 2000
"""Bytes from the beginning of a file."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the report tells of one run."""

    run: Run
    rows: list[Row]
    identity: list[str]
    advice: list[advise.Advice]
    claims: list[claims.Claim]
    warnings: list[str]
    conditions: Table
    unmeasured: Table
    notes: list[str]


def _part(run: Run) -> Part:
    rows = rows_of(summarise(run.frame))
    return Part(
        run=run,
        rows=rows,
        identity=machine.identity(run, rows),
        advice=advise.advise(rows, run.unmeasured, run.conditions),
        claims=claims.claims(rows, run.unmeasured),
        warnings=machine.warnings(run),
        conditions=machine.conditions_table(run),
        unmeasured=machine.unmeasured_table(run),
        notes=footer(rows, ()),
    )


class ReportError(Exception):
    """What is wrong with the place or the runs of a report, and the next step."""


def write(runs: Sequence[Run], path: Path, folder: Path | None = None) -> list[str]:
    """Writes the report to `path`, as its ending says, and the charts as pictures to `folder`. Returns what was written, for people.

    Raises ReportError before anything is written where there is nothing to tell, or `path` cannot or should not be written.
    """
    _check(runs, path)
    pictures: list[Path] = []
    try:
        if folder:
            for run in runs:
                where = folder if len(runs) == 1 else folder / re.sub(r"\W+", "-", run.name)
                pictures += drawing.write(drawing.charts(run), where)
            pictures += drawing.write(drawing.comparison_charts(runs), folder)
        links = [os.path.relpath(one, path.parent) for one in pictures if one.suffix == ".svg"]
        path.write_text(page(runs) if path.suffix == ".html" else markdown(runs, links), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{error.filename}: cannot be written: {error.strerror}; name another place") from error
    charts = [f"charts: {folder} ({len(pictures)} pictures)"] if folder else []
    return [*charts, f"report: {path}"]


def _check(runs: Sequence[Run], path: Path) -> None:
    for run in runs:
        if not run.results and not run.unmeasured:
            raise ReportError(f"{run.path}: holds no results of this suite; `pytest --benchmark` makes a run that does")
    mark = MARKS.get(path.suffix)
    if mark is None:
        raise ReportError(f"-o {path}: its ending says the format, {' or '.join(MARKS)}")
    if not path.parent.is_dir():
        raise ReportError(f"-o {path}: there is no folder {path.parent}; make it first")
    if path.exists() and (not path.is_file() or mark.encode() not in path.read_bytes()[:_WHERE_MARKS_ARE]):
        raise ReportError(f"-o {path}: is there already and is no report of this suite; remove it, or name another")


def page(runs: Sequence[Run]) -> str:
    """One self-contained HTML page: no request leaves it, and no script runs in it but its own two."""
    javascript.begin()
    environment = Environment(
        autoescape=True, loader=FileSystemLoader(_HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["html"] = lambda table: Markup(render.html(table))  # noqa: S704 - render.html escapes every cell
    parts = [_part(run) for run in runs]
    charts = _charts(parts)
    scripts = [*([javascript.bundle()] if charts else []), (_HERE / "report.js").read_text(encoding="utf-8")]
    return environment.get_template("report.html.jinja").render(
        title=TITLE,
        mark=Markup(MARKS[".html"]),  # noqa: S704 - a constant
        parts=parts,
        charts=charts,
        headings=CHARTS,
        comparison=Markup(_comparison(runs, "html")),  # noqa: S704 - escaped by render.html
        compared=drawing.comparison_charts(runs),
        cases=cases([row for part in parts for row in part.rows]),
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - ours, without any text of a run
        hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )


def markdown(runs: Sequence[Run], pictures: Sequence[str] = ()) -> str:
    """The same as one document to paste. `pictures` are links to its charts."""
    parts = [_part(run) for run in runs]
    sections = {
        "The answer": _each(parts, lambda part: f"{_escaped(', '.join(part.identity))}\n\n{advise.as_markdown(part.advice)}"),
        "What the guide claims": _each(parts, lambda part: render.markdown(claims.claims_table(part.claims))),
        "Charts": "\n\n".join(f"![{Path(link).stem}](<{link}>)" for link in pictures),
        "Every mode": _each(parts, lambda part: render.rendered(summary_tables(part.rows), "markdown")),
        "Comparison": _comparison(runs, "markdown"),
        "Machine and conditions": _each(parts, lambda part: f"{_bullets(part.warnings)}\n\n{render.markdown(part.conditions)}"),
        "What could not be measured": _each(parts, lambda part: render.markdown(part.unmeasured)),
    }
    told = (f"## {title}\n\n{text.strip()}" for title, text in sections.items() if text.strip())
    return "\n\n".join([MARKS[".md"], f"# {TITLE}", *told])


def _each(parts: Sequence[Part], text: Callable[[Part], str]) -> str:
    """`text` of every run, under its name where there are several."""
    if len(parts) == 1:
        return text(parts[0])
    return "\n\n".join(f"### {_escaped(part.run.name)}\n\n{told.strip()}" for part in parts if (told := text(part)).strip())


def _escaped(text: str) -> str:
    return _bullets([text]).removeprefix("- ")


def _bullets(texts: Sequence[str]) -> str:
    return render.markdown(Table([], (), [], notes=list(texts)))


def _comparison(runs: Sequence[Run], format_: str) -> str:
    """Of the first run with the others; nothing where there are no others."""
    return compare.shown(compare.compare(runs[0], runs[1:]), format_) if len(runs) > 1 else ""


def _charts(parts: Sequence[Part]) -> dict[str, list[tuple[Part, drawing.Chart]]]:
    """The charts of every run by section; none without charts."""
    found: dict[str, list[tuple[Part, drawing.Chart]]] = {kind: [] for kind in CHARTS}
    for part in parts:
        for chart in drawing.charts(part.run):
            found.setdefault(chart.name.partition("-")[0], []).append((part, chart))
    return {kind: drawn for kind, drawn in found.items() if drawn}
