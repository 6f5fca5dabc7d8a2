"""`python -m analysis`: turns saved runs into tables. The only file here that prints or writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]  # typer calls it only with the options that `add_completion` adds

from analysis import completion
from analysis.means import BY, METRICS, means_table
from analysis.render import FORMATS, rendered, terminal
from analysis.tables import summary_tables

if TYPE_CHECKING:
    from analysis import load
    from benchmarks.record import Case, Result

FEW_RUNS = 5
"""Up to so many runs stand side by side, more are averaged, unless `--by` says otherwise."""
GITHUB = "github"

app = typer.Typer(
    help="Turns saved runs into tables.\n\nExample: python -m analysis summarise latest --format markdown",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,  # typer's own would bind to `python` and cannot read `-m analysis`; see `completion`
)


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from analysis import load

    typer.echo("Turns saved runs into tables. What there is, each with an example in its --help:\n")
    commands = getattr(context.command, "commands", {})
    for name, command in commands.items():
        typer.echo(f"  python -m analysis {name:<10}  {command.help.partition(chr(10))[0].partition(':')[0].rstrip('.')}")
    try:
        typer.echo(f"\nUnless another run is named they look at {load.find_run(load.LATEST)}")
    except load.RunFileError as error:
        typer.echo(f"\n{error}")


RUN = "a file, a number such as 0007, or latest"
RUNS = "files, folders, globs, numbers such as 0007, or latest"


@app.command(help="The main table of a run, or the geometric means of several.\n\n"
             "With --by the rows are its values, the columns modes, and the cells geometric means of --metric as a ratio to tracked: of a "
             "case first over runs, then over cases. --by defaults to model,size if there are several runs or --metric is given, and up to "
             f"{FEW_RUNS} runs then stand side by side. What should not be averaged (scenarios, devices, dtypes, allocators) stays apart.\n\n"
             "Example: python -m analysis summarise 0007 --format latex > table.tex\n\n"
             "Example: python -m analysis summarise results/ --by model,run --metric peak_tensor_bytes")  # fmt: skip
def summarise(
    runs: Annotated[list[str] | None, typer.Argument(help=RUNS, autocompletion=completion.runs, show_default="latest")] = None,
    by: Annotated[
        str, typer.Option(help=f"one or more, separated by commas, of {', '.join(BY)}", autocompletion=completion.of(BY))
    ] = "",
    metric: Annotated[
        str, typer.Option(help=f"one of {', '.join(METRICS)}", autocompletion=completion.of(METRICS), show_default="speedup")
    ] = "",
    format_: Annotated[
        str, typer.Option("--format", help=f"one of {', '.join(FORMATS)}", autocompletion=completion.of(tuple(FORMATS)))
    ] = "terminal",
    keep_going: Annotated[bool, typer.Option("--keep-going", help="leave out what cannot be read, and say so")] = False,
) -> None:
    names = [name.strip() for name in by.split(",") if name.strip()]
    _check_names("--format", [format_], tuple(FORMATS))
    _check_names("--by", names, BY)
    _check_names("--metric", [metric] if metric else [], METRICS)
    from analysis import load, summarise

    warnings: list[str] = []
    try:
        paths = load.find_runs(runs or [load.LATEST], warnings=warnings)
        alone = len(paths) == 1 and not names and not metric
        names = names or ["model", "size", *(["run"] if 1 < len(paths) <= FEW_RUNS else [])]
        wanted = [] if alone else summarise.needed_columns(names, metric or "speedup")
    except load.RunFileError as error:
        raise _usage_error(str(error)) from error
    try:
        found = load.load_all(paths, keep_going=keep_going, columns=wanted)
    except load.RunFileError as error:
        raise _usage_error(f"{error}; --keep-going leaves it out") from error
    for warning in [*warnings, *found.warnings]:
        typer.echo(warning, err=True)
    if found.frame.empty and not found.unmeasured:
        what = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
        raise _usage_error(f"{what}: no results of this suite; `pytest --benchmark` makes a run that holds some")
    if alone:
        tables = summary_tables(load.rows_of(summarise.summarise(found.frame)), found.unmeasured, found.broken_invariants)
    else:
        tables = [means_table(found.frame, list(dict.fromkeys(names)), metric or "speedup", found.unmeasured)]
    typer.echo(rendered(tables, format_))


@app.command(help="Where the bytes that a mode saves for backward go: by module, by operator, against theory.\n\n"
             "Example: python -m analysis explain --model transformer --size small")  # fmt: skip
def explain(
    run: Annotated[str, typer.Argument(help=RUN, autocompletion=completion.runs)] = "latest",
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


@app.command(help="What is said about gradient tracking: each claim with its verdict on this machine and the evidence.\n\n"
             "Example: python -m analysis claims latest --format markdown")  # fmt: skip
def claims(
    run: Annotated[str, typer.Argument(help=RUN, autocompletion=completion.runs)] = "latest",
    format_: Annotated[str, typer.Option("--format", help=f"one of {', '.join(FORMATS)}")] = "terminal",
) -> None:
    _check_names("--format", [format_], tuple(FORMATS))
    from analysis import claims, load

    loaded = _loaded(run)
    found = claims.claims(load.rows_of(loaded.frame), loaded.unmeasured)
    typer.echo(claims.terminal(found) if format_ == "terminal" else FORMATS[format_](claims.claims_table(found)))


@app.command(help="Which mode to use for what, what it gives, and what to beware of: the answer in sentences.\n\n"
             "Example: python -m analysis advise 0007")  # fmt: skip
def advise(
    run: Annotated[str, typer.Argument(help=RUN, autocompletion=completion.runs)] = "latest",
    format_: Annotated[str, typer.Option("--format", help="terminal or markdown")] = "terminal",
) -> None:
    from analysis import advise, load

    _check_names("--format", [format_], tuple(advise.FORMATS))
    loaded = _loaded(run)
    typer.echo(advise.FORMATS[format_](advise.advise(load.rows_of(loaded.frame), loaded.unmeasured, loaded.conditions)))


@app.command(help="Two or more runs side by side: what changed, by how much, and whether that is more than chance.\n\n"
             "Example: python -m analysis compare 0007 0008 --gate --allow speedup=2%")  # fmt: skip
def compare(
    base: Annotated[str, typer.Argument(help=RUN, autocompletion=completion.runs)],
    heads: Annotated[list[str], typer.Argument(help="one or more to hold against it", autocompletion=completion.runs)],
    format_: Annotated[str, typer.Option("--format", help=f"one of {', '.join(FORMATS)}, {GITHUB}")] = "terminal",
    across: Annotated[str, typer.Option(help="the field in which cases may differ: device, or device=cpu:cuda")] = "",
    gate: Annotated[
        bool, typer.Option("--gate", help="exit with 1 if something regressed, 3 if nothing is comparable")
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option(help="METRIC=AMOUNT, such as speedup=2% or peak_rss_bytes=1MiB; or vanished, unmeasured")
    ] = None,
) -> None:
    _check_names("--format", [format_], (*FORMATS, GITHUB))
    if allow and not (gate or format_ == GITHUB):
        raise _usage_error(f"--allow {allow[0]}: only with --gate or --format {GITHUB}")
    from analysis import compare as comparing
    from analysis import gate as gating
    from analysis import github, load, pairing

    try:
        limits = gating.parse_limits(allow or [])
        first, *others = load.load_each([path for run in (base, *heads) for path in load.find_runs([run])])
        compared = comparing.compare(first, others, across)
        found = gating.regressions(compared, limits)
    except (load.SchemaError, pairing.NotComparableError) as error:
        raise _usage_error(str(error), status=3) from error
    except (load.RunFileError, pairing.CompareError) as error:
        raise _usage_error(str(error)) from error
    typer.echo(github.comment(compared, found) if format_ == GITHUB else comparing.shown(compared, format_))
    if gate:
        typer.echo("\n".join(gating.lines(found, compared)), err=True)
        raise typer.Exit(int(bool(found)))


@app.command(help="A run for other programs: what benchmark-tracking actions read, or all its rounds.\n\n"
             "Example: python -m analysis export latest > figures.json")  # fmt: skip
def export(
    run: Annotated[str, typer.Argument(help=RUN, autocompletion=completion.runs)] = "latest",
    format_: Annotated[
        str, typer.Option("--format", help="customSmallerIsBetter, customBiggerIsBetter or rounds")
    ] = "customSmallerIsBetter",
) -> None:
    from analysis import export as exporting
    from analysis import load

    found = _loaded(run)
    _check_names("--format", [format_], tuple(exporting.FORMATS))
    if not found.results:
        raise _usage_error(f"{found.path}: holds no results of this suite; `pytest --benchmark` makes a run that does")
    try:
        entries = exporting.FORMATS[format_](found)
    except load.RunFileError as error:
        raise _usage_error(str(error)) from error
    typer.echo(json.dumps(entries, indent=2))


@app.command(help="The whole answer as a page that needs no network, or as Markdown.\n\n"
             "Example: python -m analysis report 0007 -o report.html --charts charts")  # fmt: skip
def report(
    runs: Annotated[list[str] | None, typer.Argument(help=RUNS, autocompletion=completion.runs, show_default="latest")] = None,
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


@app.command(help="How fast runs are read and reported, beside the goals.\n\nExample: python -m analysis selfcheck --full")
def selfcheck(full: Annotated[bool, typer.Option("--full", help="10,000 runs as well: half a minute more")] = False) -> None:
    from analysis import selfcheck

    typer.echo(terminal(selfcheck.selfcheck(full=full)))


@app.command(
    "completion",
    help='Prints what makes bash complete these commands, for ~/.bashrc.\n\nExample: eval "$(python -m analysis completion)"',
)
def print_completion() -> None:
    typer.echo(completion.BASH)


def _check_names(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise _usage_error(f"{option} {name}: unknown; choose from {', '.join(known)}")


def _loaded(run: str) -> load.Run:
    from analysis import load  # pandas takes half a second, which --help need not wait for

    try:
        return load.load(load.find_run(run))
    except load.RunFileError as error:
        raise _usage_error(str(error)) from error


def _usage_error(message: str, status: int = 2) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(status)


if __name__ == "__main__":
    completion_init()
    app(prog_name="python -m analysis", complete_var="_ANALYSIS_COMPLETE")
