"""`python -m analysis`: saved runs as tables, answers and pages. The only file here that prints.

Exit status: 0 it worked, 1 the gate found a regression or a run is not fit to be shared, 2 wrong input, 3 a crash of this program, which
no gate must take for a regression.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from analysis.read import Run
    from analysis.render import Table

FEW_RUNS = 5
"""Up to so many runs stand side by side, more are averaged, unless `--by` says otherwise."""

REGRESSED, WRONG_INPUT, CRASHED, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    help="Saved runs as tables, answers and pages. A RUN is a file, a number such as 0007, or latest.",
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
)  # fmt: skip


Format = StrEnum("Format", ["terminal", "markdown", "csv", "json", "latex", "html"])
By = StrEnum("By", ["model", "size", "run", "mode", "device", "torch", "machine", "date"])
Metric = StrEnum("Metric", ["speedup", "peak_tensor_bytes", "held_tensor_bytes", "saved_bytes"])

ONE_RUN = "a file, a number such as 0007, or latest"
RunName = Annotated[str, typer.Argument(metavar="RUN", help=ONE_RUN)]
RunNames = Annotated[
    list[str] | None, typer.Argument(metavar="RUN...", help="files, folders, numbers, or latest", show_default="latest")
]
FormatName = Annotated[Format, typer.Option("--format", help="csv and json hold the figures, the others texts")]


@app.command()
def summarise(
    runs: RunNames = None,
    by: Annotated[str, typer.Option(help=f"one or more of {','.join(By)}, separated by commas")] = "",
    metric: Annotated[Metric | None, typer.Option(help="what to average", show_default="speedup")] = None,
    format_: FormatName = Format.terminal,
) -> None:
    """All tables of a run, or the means of several.

    With --by, --metric or several runs: means over cases and runs, as ratios to tracked.

    Example: python -m analysis summarise results/ --by model,torch --metric peak_tensor_bytes
    """
    from analysis.find import LATEST, find_runs

    names = list(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    for name in names:
        if name not in set(By):
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(By)}", param_hint="--by")
    files = find_runs(runs or [LATEST])
    if len(files) == 1 and not names and not metric:
        from analysis.read import read
        from analysis.summarise import figures, summary

        run = read(files[0].path, files[0].name)
        _print(summary(run), figures(run), format_)
        return
    from analysis.means import COLUMNS, means, means_tables
    from analysis.read import AnalysisError, read_all

    names = names or [By.model, By.size, *([By.run] if 1 < len(files) <= FEW_RUNS else [])]
    metric = metric or Metric.speedup
    found = means(read_all(files, COLUMNS, _say), names, metric)
    if found.empty:
        raise AnalysisError(f"nothing in {len(files)} file{'s' * (len(files) > 1)} has a {metric} beside tracked's")
    _print(means_tables(found, names, metric), found, format_)


@app.command()
def compare(
    base: Annotated[str, typer.Argument(metavar="BASE", help=ONE_RUN)],
    head: Annotated[str, typer.Argument(metavar="HEAD", help=f"the run to hold against it: {ONE_RUN}")],
    gate: Annotated[bool, typer.Option("--gate", help=f"exit with {REGRESSED} if something got worse")] = False,
    allow: Annotated[list[str] | None, typer.Option(help="METRIC=AMOUNT, such as speedup=2% or peak_tensor_bytes=1MiB")] = None,
    format_: FormatName = Format.terminal,
) -> None:
    """Two runs side by side: what changed, by how much, and whether that is more than chance.

    Example: python -m analysis compare 0007 0008 --gate --allow speedup=2%
    """
    if allow and not gate:
        raise typer.BadParameter("only with --gate", param_hint="--allow")
    from analysis import compare as comparing

    runs = _read(base), _read(head)
    limits = comparing.limits_of(allow or [])
    changes = comparing.compare(*runs)
    regressions = comparing.regressions(changes, limits)
    _print(comparing.tables(*runs, changes), changes, format_)
    if gate:
        _say(*comparing.gate_lines(changes, regressions))
        raise typer.Exit(REGRESSED if len(regressions) else 0)


@app.command()
def advise(run: RunName = "latest") -> None:
    """Which mode to use for what, what it gives, and what to beware of.

    Example: python -m analysis advise 0007
    """
    from analysis.advise import advise
    from analysis.notes import notes
    from analysis.render import Table

    found = _read(run)
    _print([Table(notes=advise(found)), Table(notes=notes(found))], found.frame, Format.terminal)


@app.command()
def claims(run: RunName = "latest", format_: FormatName = Format.terminal) -> None:
    """Common statements on gradient tracking, each tested on this run.

    Example: python -m analysis claims latest
    """
    from analysis.claims import claims, tables

    found = _read(run)
    _print(tables(found), claims(found), format_)


@app.command()
def explain(
    run: RunName = "latest",
    model: Annotated[str, typer.Option(help="only this model")] = "",
    size: Annotated[str, typer.Option(help="only this size")] = "",
    mode: Annotated[str, typer.Option(help="only this mode")] = "tracked",
) -> None:
    """Where the bytes go that a mode saves for backward: by module, by operator.

    Example: python -m analysis explain --model transformer --size small
    """
    from analysis.explain import explain

    wanted = {name: value for name, value in (("model", model), ("size", size), ("mode", mode)) if value}
    typer.echo("\n\n".join(explain(_read(run), wanted)))


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help=f"{ONE_RUN}, or a folder of runs")] = "latest",
    output: Annotated[Path | None, typer.Option("-o", help="a .html or .md file; by default beside the run, .html")] = None,
    charts: Annotated[Path | None, typer.Option(help="a folder for each chart as SVG and PNG")] = None,
) -> None:
    """The whole answer as a page that needs no network, or as Markdown. Of a folder, all machines on one page.

    Example: python -m analysis report 0007 -o report.html --charts charts
    """
    from analysis.find import find_runs, is_folder

    formats = [".html"] if is_folder(run) else [".html", ".md"]
    if output and output.suffix not in formats:
        raise typer.BadParameter(f"its ending says the format, so {' or '.join(formats)} is expected", param_hint="-o")
    if is_folder(run):
        if charts:
            raise typer.BadParameter("only of one run", param_hint="--charts")
        from analysis import machines
        from analysis.means import COLUMNS
        from analysis.read import read_all

        path = output or Path(run) / "machines.html"
        machines.write(read_all(find_runs([run]), COLUMNS, _say), path)
        typer.echo(path)
        return
    from analysis.report import write

    found = _read(run)
    for path in write(found, output or (found.path or Path("report")).with_suffix(".html"), charts):
        typer.echo(path)


@app.command()
def share(
    run: RunName = "latest",
    output: Annotated[Path | None, typer.Option("-o", help="a file; by default results/DATE/MACHINE.json")] = None,
) -> None:
    """A small file of a run for others: no rounds, nothing personal. A run that is too noisy is refused.

    Example: python -m analysis share 0007
    """
    from analysis import share as sharing

    found = _read(run)
    _require_fit(f"{found.path}: {reason}" for reason in sharing.unfit(found))
    typer.echo(sharing.write(found, output))
    _say("read it, commit it, and open a pull request")


@app.command()
def validate(paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="files or folders")]) -> None:
    """Whether files are fit to be shared: readable, not too noisy, and nothing personal in them.

    Example: python -m analysis validate results/2026-11-24
    """
    from analysis.find import find_runs
    from analysis.share import refusals

    files = find_runs(paths)
    _require_fit(f"{file.path}: {reason}" for file in files for reason in refusals(file.path))
    typer.echo(f"fit to be shared: {len(files)} file{'s' * (len(files) > 1)}")


def _require_fit(faults: Iterable[str]) -> None:
    if lines := list(faults):
        _say(*lines)
        raise typer.Exit(REGRESSED)


def _read(run: str) -> Run:
    from analysis.find import find_run
    from analysis.read import read

    file = find_run(run)
    return read(file.path, file.name)


def _print(tables: Sequence[Table], frame: pd.DataFrame, format_: Format) -> None:
    from analysis.render import rendered

    typer.echo(rendered(tables, frame, format_))


def _say(*lines: str) -> None:
    """To stderr. File names may hold what would steer a terminal."""
    from benchmarks.record import clean

    for line in lines:
        typer.echo(clean(line), err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status."""
    try:
        return int(app(arguments, prog_name="python -m analysis", standalone_mode=False) or 0)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough; the interpreter would complain again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not end as a regression does
        from analysis.read import AnalysisError  # which imports pandas; --help does without

        if hasattr(error, "show"):  # a usage error of click, which typer brings along or imports, depending on its version
            error.show()
            return WRONG_INPUT
        if isinstance(error, AnalysisError):
            _say(f"error: {error}")
            return WRONG_INPUT
        traceback.print_exc()
        return CRASHED


if __name__ == "__main__":
    gc.disable()  # a short life in which nothing refers back to itself: a third of the time of reading many runs
    sys.exit(main())
