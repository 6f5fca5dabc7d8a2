"""How a run ends: its answer on one screen, and the table and the page beside the saved file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap

from analysis import report
from analysis.advise import answer
from analysis.notes import MOST
from analysis.read import Run, read
from analysis.render import WIDTH, rendered
from analysis.summarise import overview, summary
from benchmarks.saving import write_whole

SCREEN = 50
"""Lines of a terminal, into which a default run's end goes, its heading included."""


def lines(run: Run, findings: Sequence[str], saved: Sequence[Path]) -> Iterator[str]:
    """What the terminal shows at the end of `run`, in lines of at most WIDTH columns; `findings` harmed it while it went on.

    Where it was saved, in a file for each machine, the whole table (.md) and the page (.html) are written beside the first. Of a single file they
    are made from that, which knows the machine and the hour.
    """
    said = (*(f"warning: {finding}" for finding in findings), *answer(run))
    closing = [line for text in said for line in wrap(text, WIDTH)]
    if run.results:
        yield from _overview(run, SCREEN - len(closing) - 7)
        yield ""
    yield from closing
    if not saved:
        return
    yield ""
    for path in saved:
        yield f"run    {_short(path)}"
    for name, ending in (("table", ".md"), ("page", ".html")):
        path = saved[0].with_suffix(ending)
        try:
            whole = read(path.with_suffix(".json")) if len(saved) == 1 else run
            text = report.page(whole) if name == "page" else f"{rendered(summary(whole), whole.frame, 'markdown')}\n"
            write_whole(path, text.encode())
            yield f"{name:<6} {_short(path)}"
        except Exception as error:  # noqa: BLE001 - the run is saved, and a page can be made of it at any time
            yield f"no {name}: {error!r}"
    yield f"next   python -m analysis summarise|advise|claims|explain {saved[0].name[:4]}, or compare with another run"


def _overview(run: Run, room: int) -> list[str]:
    """With so many notes that it fits into `room` lines, at least one."""
    for most in range(MOST, 0, -1):
        shown = rendered(overview(run, most), run.frame).splitlines()
        if len(shown) <= room:
            break
    return shown


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
