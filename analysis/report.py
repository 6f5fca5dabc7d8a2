"""The report: the whole answer as one page that needs nothing else, or as Markdown to paste. Runs in, text out."""

from __future__ import annotations

import base64
import functools
import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis import advise, claims, compare, machine, render
from analysis import charts as drawing
from analysis.cases import cases
from analysis.footer import footer
from analysis.load import Run, rows_of
from analysis.render import Table
from analysis.summarise import summarise
from analysis.summary import summary_table
from benchmarks.record import Row

TITLE = "What gradient tracking costs"
MARKS = MappingProxyType({".html": '<meta name="generator" content="gradtax">', ".md": "<!-- written by gradtax -->"})
"""What tells a report of each format from other files, which are not overwritten."""

_HERE = Path(__file__).parent
_BUNDLING = "import sys, vl_convert; sys.stdout.write(vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;'))"


@dataclass(frozen=True, slots=True)
class Part:
    """One run in the report: what is told of it."""

    run: Run
    rows: list[Row]
    advice: list[advise.Advice]
    claims: Table
    conditions: Table
    warnings: list[str]
    unmeasured: Table

    @classmethod
    def of(cls, run: Run) -> Part:
        rows = rows_of(summarise(run.frame))
        return cls(
            run=run,
            rows=rows,
            advice=advise.advise(rows, run.unmeasured),
            claims=claims.claims_table(claims.claims(rows, run.unmeasured)),
            conditions=machine.conditions_table(run),
            warnings=machine.warnings(run),
            unmeasured=machine.unmeasured_table(run),
        )

    @property
    def heading(self) -> list[str]:
        """Machine, time, build and commit, in a few words each."""
        return machine.identity(self.run)

    @property
    def notes(self) -> list[str]:
        return footer(self.rows, self.run.unmeasured)


def page(runs: Sequence[Run]) -> str:
    """One self-contained HTML page: no request leaves it, and no script runs in it but its own two."""
    library = javascript()
    environment = Environment(
        autoescape=True, loader=FileSystemLoader(_HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["html"] = lambda table: Markup(render.html(table))  # noqa: S704 - render.html escapes every cell
    parts = [Part.of(run) for run in runs]
    charts = _charts(parts)
    scripts = [*([library.result()] if charts else []), (_HERE / "report.js").read_text(encoding="utf-8")]
    return environment.get_template("report.html.jinja").render(
        title=TITLE,
        mark=Markup(MARKS[".html"]),  # noqa: S704 - a constant
        parts=parts,
        charts=charts,
        comparison=_comparison(runs),
        cases=cases([row for part in parts for row in part.rows]),
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - ours, without any text of a run
        hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )


@functools.cache
def javascript() -> Future[str]:
    """What draws the charts in the browser. Bundling takes two seconds: it is done once, beside the rest, in a process of its own."""
    command = [sys.executable, "-X", "utf8", "-c", _BUNDLING]
    return ThreadPoolExecutor(1).submit(subprocess.check_output, command, encoding="utf-8")


def markdown(runs: Sequence[Run], pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The same as one document to paste. `pictures` are text and link of its charts."""
    parts = [Part.of(run) for run in runs]
    comparison = _comparison(runs)
    sections = {
        "The answer": _each(parts, lambda part: _bullets([*part.heading, *map(_told, part.advice)])),
        "What the guide claims": _each(parts, lambda part: render.markdown(part.claims)),
        "Charts": "\n\n".join(f"![{text}]({link})" for text, link in pictures),
        "Every mode": _each(parts, lambda part: render.markdown(summary_table(part.rows))),
        "Comparison": "" if comparison is None else render.markdown(comparison),
        "Machine and conditions": _each(parts, lambda part: f"{_bullets(part.warnings)}\n\n{render.markdown(part.conditions)}"),
        "Not measured": _each(parts, lambda part: render.markdown(part.unmeasured)),
    }
    return "\n\n".join(
        [MARKS[".md"], f"# {TITLE}", *(f"## {title}\n\n{text.strip()}" for title, text in sections.items() if text.strip())]
    )


def _each(parts: Sequence[Part], text: Callable[[Part], str]) -> str:
    """`text` of every run, under its name where there are several."""
    if len(parts) == 1:
        return text(parts[0])
    return "\n\n".join(f"### {part.run.name}\n\n{told.strip()}" for part in parts if (told := text(part)).strip())


def _told(one: advise.Advice) -> str:
    return f"warning: {one.text}" if one.warning else one.text


def _bullets(texts: Sequence[str]) -> str:
    return render.markdown(Table([], (), [], notes=list(texts)))


def _comparison(runs: Sequence[Run]) -> Table | None:
    """Of the first run with the others, where there are others."""
    return compare.comparison_table(compare.compare(runs[0], runs[1:])) if len(runs) > 1 else None


def _charts(parts: Sequence[Part]) -> dict[str, list[tuple[Part, drawing.Chart]]]:
    """The charts of every run by their name, so that those of one kind stand together."""
    found: dict[str, list[tuple[Part, drawing.Chart]]] = {}
    for part in parts:
        for chart in drawing.charts(part.run):
            found.setdefault(chart.name, []).append((part, chart))
    return found
