"""A run as one page that needs nothing else, or as Markdown to paste. Run in, file out."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis import charts, claims, machine, render
from analysis.advise import advise, answer
from analysis.figures import bytes_text, count_text, seconds_text
from analysis.notes import notes
from analysis.read import AnalysisError, Run
from analysis.render import Table
from analysis.summarise import accelerator, seconds_texts, speedup_texts, summary
from analysis.whole import write_whole
from benchmarks.record import CASE

TITLE = "What gradient tracking costs"
FORMATS = (".html", ".md")

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

_ACCELERATOR = {"host": "host_seconds", "busy": "busy_seconds", "bound by": "bound_by", "reserved": "peak_reserved_bytes"}
"""More of them, where there are such figures."""


def write(run: Run, path: Path, pictures: Path | None = None) -> list[Path]:
    """Writes the report to `path`, as its ending says, and the charts to the folder `pictures`. Returns the paths.

    Raises AnalysisError where a place cannot be written. A report that was there stays whole until the new one is complete.
    """
    if path.suffix not in FORMATS:
        raise AnalysisError(f"{path}: its ending says the format, so {' or '.join(FORMATS)} is expected")
    try:
        written = charts.write(run, pictures) if pictures else []
        links = [os.path.relpath(picture, path.parent) for picture in written if picture.suffix == ".svg"]
        write_whole(path, (page(run) if path.suffix == ".html" else markdown(run, links)).encode())
    except OSError as error:
        raise AnalysisError(f"{error.filename}: cannot be written: {error.strerror}; name another place") from error
    return [*written, path]


def page(run: Run) -> str:
    """One HTML page. Nothing is fetched, and no script runs but the one that sorts the table of all cases."""
    environment = Environment(
        autoescape=True, loader=FileSystemLoader(_HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["digest"] = digest
    environment.filters["html"] = lambda table: Markup(render.html(replace(table, title="")))  # noqa: S704 - it escapes
    sentences = answer(run)
    return environment.get_template("page.html.jinja").render(
        title=TITLE,
        name=run.name,
        identity=machine.identity(run),
        answer=sentences,
        advice=[text for text in advise(run) if text not in sentences],
        charts=charts.charts(run),
        notes=notes(run, most=None),
        tables=_tables(run),
        cases=cases(run.frame),
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - ours, without any text of a run
        script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),  # noqa: S704 - the same
    )


def markdown(run: Run, links: Sequence[str] = ()) -> str:
    """The same as one document, with the summary instead of all cases. `links` are paths of pictures of its charts."""
    sections = {
        "The answer": "\n\n".join(map(_escaped, advise(run))),
        "Charts": "\n\n".join(f"![{Path(link).stem}](<{link}>)" for link in links),
        "Figures": "\n\n".join(map(render.markdown, summary(run))),
        **{table.title: render.markdown(replace(table, title="")) for table in _tables(run)},
    }
    parts = (f"## {heading}\n\n{text}" for heading, text in sections.items() if text)
    return "\n\n".join([f"# {TITLE}", _escaped(machine.identity(run)), *parts]) + "\n"


def _tables(run: Run) -> Iterator[Table]:
    """What stands between the figures' notes and all cases."""
    yield from claims.tables(run)
    yield Table(pd.DataFrame(machine.facts(run).items(), columns=["fact", "value"]), title="Machine and conditions")
    missing = [[str(each.case), each.status, each.reason] for each in run.unmeasured]
    if missing:
        yield Table(pd.DataFrame(missing, columns=["case", "status", "reason"]), title="What could not be measured")


def cases(frame: pd.DataFrame) -> tuple[Table, list[list[object]]]:
    """The table of all cases, and what its cells sort by, empty where nothing was measured."""
    telling = [name for name in CASE if name in ("model", "size", "mode") or len(frame[name].unique()) > 1]
    texts = frame[telling].assign(
        **{
            "per call": seconds_texts(frame),
            "speedup": speedup_texts(frame),
            "verdict": frame["verdict"].where(frame["trusted"].astype(bool), "untrusted"),
            "first after a switch": frame["after_switch_seconds"].map(seconds_text),
            "page faults": frame["page_faults"].map(count_text),
            **{title: frame[_FIGURES[title]].map(bytes_text) for title in ("peak", "held", "saved", "resident")},
        }
    )
    titles = dict(_FIGURES)
    if frame["host_seconds"].notna().any():
        titles |= _ACCELERATOR
        texts = texts.assign(**accelerator(frame), reserved=frame["peak_reserved_bytes"].map(bytes_text))
    values = frame[[*telling, *titles.values()]].astype(object)
    return Table(texts), values.where(values.notna(), "").to_numpy().tolist()


def digest(text: str) -> str:
    """What a content security policy calls a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _escaped(text: str) -> str:
    return render.markdown(Table(pd.DataFrame(), notes=[text])).removeprefix("- ")
