"""A run as one page that needs nothing else, or as Markdown to paste. Run in, file out."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis import claims, machine, render
from analysis.advise import advise, answer
from analysis.find import writing
from analysis.notes import notes
from analysis.read import Run
from analysis.render import Table
from analysis.summarise import CLOCKS, summary, texts_of
from benchmarks.record import CASE
from benchmarks.saving import write_whole

_HERE = Path(__file__).parent
_FIGURES = {
    "per call": "seconds",
    "speedup": "speedup",
    "verdict": "verdict",
    "first after a switch": "after_switch_seconds",
    "page faults": "page_faults",
    "peak": "peak_tensor_bytes",
    "held": "held_tensor_bytes",
    "saved": "saved_bytes",
    "resident": "peak_rss_bytes",
}
"""Columns of the table of all cases, and the columns of the frame that they show and sort by."""


@writing()
def write(run: Run, path: Path, pictures: Path | None = None) -> list[Path]:
    """Writes the report to `path`, a page or Markdown as its ending says, and the charts to the folder `pictures`. Returns the paths."""
    drawn: dict[Path, bytes] = {}
    if pictures:
        from analysis import charts

        pictures.mkdir(parents=True, exist_ok=True)
        drawn = {pictures / name: content for name, content in charts.files(run).items()}
    links = [os.path.relpath(picture, path.parent) for picture in drawn if picture.suffix == ".svg"]
    text = markdown(run, links) if path.suffix == ".md" else page(run)
    for place, content in (drawn | {path: text.encode()}).items():
        write_whole(place, content)
    return [*drawn, path]


def page(run: Run) -> str:
    """The run as one HTML page."""
    from analysis import charts  # what draws is an extra, which a measuring machine can do without

    sentences, (all_cases, values) = answer(run), cases(run.frame)
    return filled(
        name=run.name,
        identity=machine.identity(run),
        answer=sentences,
        advice=[text for text in advise(run) if text not in sentences],
        charts=charts.charts(run),
        notes=notes(run, most=None),
        tables=_tables(run),
        cases=all_cases,
        values=values,
    )


def filled(**parts: object) -> str:
    """The page's template. Nothing is fetched, and no script runs but the one that sorts the table of all cases."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    template = render.templates().get_template("page.html.jinja")
    return template.render(**parts, digest=digest, html=render.html, style=style, script=script)


def markdown(run: Run, links: Sequence[str] = ()) -> str:
    """The same with the summary instead of all cases. `links` are paths of pictures of its charts."""
    said = render.markdown(Table(notes=[machine.identity(run)])).removeprefix("- ")
    sections = {
        "The answer": render.markdown(Table(notes=advise(run))),
        "Charts": "\n\n".join(f"![{Path(link).stem}](<{link}>)" for link in links),
        "Figures": "\n\n".join(map(render.markdown, summary(run))),
        **{heading: render.markdown(table) for heading, table in _tables(run).items()},
    }
    parts = (f"## {heading}\n\n{text}" for heading, text in sections.items() if text)
    return "\n\n".join(["# What gradient tracking costs", said, *parts]) + "\n"


def _tables(run: Run) -> dict[str, Table]:
    """What stands between the figures' notes and all cases, by heading."""
    missing = [[str(gone.case), gone.status, gone.reason] for gone in run.unmeasured]
    tables = {table.title: replace(table, title="") for table in claims.tables(run)}
    tables["Machine and conditions"] = Table(pd.DataFrame(machine.facts(run).items(), columns=["fact", "value"]))
    if missing:
        tables["What could not be measured"] = Table(pd.DataFrame(missing, columns=["case", "status", "reason"]))
    return tables


def cases(frame: pd.DataFrame) -> tuple[Table, list[list[object]]]:
    """The table of all cases, and what its cells sort by, empty where nothing was measured."""
    telling = [name for name in CASE if name in ("model", "size", "mode") or len(frame[name].unique()) > 1]
    shown = {name: name for name in telling} | _FIGURES
    if frame["host_seconds"].notna().any():
        shown |= CLOCKS | {"reserved": "peak_reserved_bytes"}
    texts = texts_of(frame, shown)
    texts["verdict"] = texts["verdict"].where(frame["trusted"].astype(bool), "untrusted")
    values = frame[list(shown.values())].astype(object)
    return Table(texts), values.where(values.notna(), "").to_numpy().tolist()


def digest(text: str) -> str:
    """What a content security policy calls a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
