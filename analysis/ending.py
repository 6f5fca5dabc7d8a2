"""How a run ends: its answer on one screen, and the table and the page beside the saved file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap

from analysis import report
from analysis.advise import answer
from analysis.read import Run
from analysis.render import WIDTH, rendered
from analysis.summarise import overview, summary


def lines(run: Run, findings: Sequence[str], saved: Sequence[Path]) -> Iterator[str]:
    """What the terminal shows at the end of `run`, in lines of at most WIDTH columns; `findings` harmed it while it went on.

    Where it was saved, in a file for each machine, the whole table (.md) and the page (.html) are written beside the first.
    """
    if run.results:
        yield from rendered(overview(run), run.frame).splitlines()
        yield ""
    for text in (*(f"warning: {finding}" for finding in findings), *answer(run)):
        yield from wrap(text, WIDTH)
    if not saved:
        return
    yield ""
    for path in saved:
        yield f"run    {_short(path)}"
    for name, ending in (("table", ".md"), ("page", ".html")):
        path = saved[0].with_suffix(ending)
        try:
            text = report.page(run) if name == "page" else f"{rendered(summary(run), run.frame, 'markdown')}\n"
            report.write_whole(path, text.encode())
            yield f"{name:<6} {_short(path)}"
        except Exception as error:  # noqa: BLE001 - the run is saved, and a page can be made of it at any time
            yield f"no {name}: {error!r}"
    yield f"next   python -m analysis summarise|advise|claims|explain {saved[0].name[:4]}, or compare with another run"


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
