"""How a run ends: its answer on one screen, and the table and the page beside the saved file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap

from analysis.advise import answer
from analysis.read import AnalysisError, Run
from analysis.render import WIDTH, rendered
from analysis.summarise import overview, summary


def lines(run: Run, findings: Sequence[str], saved: Path | None, *, colour: bool = False) -> Iterator[str]:
    """What the terminal shows at the end of `run`, in lines of at most WIDTH columns; `findings` harmed it while it went on.

    Where it was saved, the whole table (.md) and the page (.html) are written beside it.
    """
    if run.results:
        yield from rendered(overview(run), run.frame, colour=colour).splitlines()
        yield ""
    for text in (*(f"warning: {finding}" for finding in findings), *answer(run)):
        yield from wrap(text, WIDTH)
    if saved is None:
        return
    yield ""
    yield f"run    {_short(saved)}"
    yield from _written_beside(run, saved)
    yield f"next   python -m analysis summarise|advise|explain|compare {saved.name[:4]}     pytest --benchmark --model FILE.py:FUNCTION"


def _written_beside(run: Run, saved: Path) -> Iterator[str]:
    table, page = saved.with_suffix(".md"), saved.with_suffix(".html")
    try:
        table.write_text(rendered(summary(run), run.frame, "markdown") + "\n", encoding="utf-8")
        yield f"table  {_short(table)}"
        from analysis import report  # its charts are an extra, which a measuring machine can do without

        report.write(run, page)
        yield f"page   {_short(page)}"
    except (OSError, AnalysisError, ImportError) as error:
        yield f"no page: {error}"


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
