"""`python -m analysis`: turns saved runs into tables. The only file here that prints or writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.render import FORMATS
from analysis.summary import summary_table

if TYPE_CHECKING:
    from analysis import load
    from benchmarks.record import Case, Result

app = typer.Typer(
    help="Turns saved runs into tables.\n\nExample: python -m analysis summarise latest --format markdown",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


@app.command(help="The main table of a run: time, speedup, verdict and memory of every mode.\n\n"
             "Example: python -m analysis summarise 0007 --format latex > table.tex")  # fmt: skip
def summarise(
    run: Annotated[str, typer.Argument(help="a file, a number such as 0007, or latest")] = "latest",
    format_: Annotated[str, typer.Option("--format", help=f"one of {', '.join(FORMATS)}")] = "terminal",
) -> None:
    if format_ not in FORMATS:
        raise _usage_error(f"--format {format_}: unknown; choose from {', '.join(FORMATS)}")
    from analysis import load, summarise

    found = _loaded(run)
    if found.frame.empty and not found.unmeasured:
        raise _usage_error(f"{found.path}: holds no results of this suite; `pytest --benchmark` makes a run that does")
    if found.foreign:
        typer.echo(f"{found.path}: {found.foreign} benchmarks of other tests skipped", err=True)
    table = summary_table(load.rows_of(summarise.summarise(found.frame)), found.unmeasured, found.broken_invariants)
    typer.echo(FORMATS[format_](table))


@app.command(help="Where the bytes that a mode saves for backward go: by module, by operator, against theory.\n\n"
             "Example: python -m analysis explain --model transformer --size small")  # fmt: skip
def explain(
    run: Annotated[str, typer.Argument(help="a file, a number such as 0007, or latest")] = "latest",
    model: Annotated[str, typer.Option(help="only this model")] = "",
    size: Annotated[str, typer.Option(help="only this size")] = "",
    mode: Annotated[str, typer.Option(help="only this mode")] = "tracked",
) -> None:
    from analysis import explain as explaining

    found = _loaded(run)
    wanted = {"model": model, "size": size, "mode": mode}
    chosen = [
        result for result in found.results if all(value in ("", getattr(result.case, name)) for name, value in wanted.items())
    ]
    if not chosen:
        asked = " ".join(f"--{name} {value}" for name, value in wanted.items() if value)
        there = ", ".join(sorted({f"{result.case.model} {result.case.size}" for result in found.results})) or "nothing"
        raise _usage_error(f"{found.path}: no case with {asked} (measured there: {there})")
    cases: dict[Case, list[Result]] = {}
    for result in chosen:
        cases.setdefault(replace(result.case, allocator=""), []).append(result)
    typer.echo("\n\n".join(explaining.explain(results) for results in cases.values()))


@app.command(help="The whole answer of one run or several, as a page that needs no network or as Markdown to paste.\n\n"
             "Example: python -m analysis report 0007 -o report.html --charts charts")  # fmt: skip
def report(
    runs: Annotated[list[str] | None, typer.Argument(help="files, folders, globs, numbers such as 0007, or latest")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", help="a .html or .md file; by default beside the last run, .html")
    ] = None,
    charts: Annotated[Path | None, typer.Option(help="a folder for each chart as SVG and PNG")] = None,
) -> None:
    from analysis import javascript

    if output is None or output.suffix == ".html":
        javascript.begin()  # before pandas and altair are imported
    from analysis import load
    from analysis import report as reporting

    warnings: list[str] = []
    try:
        found = list(load.load_each(load.find_runs(runs or [load.LATEST], warnings=warnings), warnings=warnings))
        path = output or found[-1].path.with_suffix(".html")
        written = reporting.write(found, path, charts)
    except (load.RunFileError, reporting.ReportError) as error:
        raise _usage_error(str(error)) from error
    for warning in warnings:
        typer.echo(warning, err=True)
    for one in written:
        typer.echo(one)


def _loaded(run: str) -> load.Run:
    from analysis import load  # pandas takes half a second, which --help need not wait for

    try:
        return load.load(load.find_run(run))
    except load.RunFileError as error:
        raise _usage_error(str(error)) from error


def _usage_error(message: str) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(2)


if __name__ == "__main__":
    app(prog_name="python -m analysis")
