"""`python -m analysis`: turns saved runs into tables. The only file here that prints or writes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.render import FORMATS
from analysis.summary import summary_table

if TYPE_CHECKING:
    from analysis import load
    from benchmarks.record import Case, Result

GITHUB = "github"

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


@app.command(help="Two or more runs side by side: what changed, by how much, and whether that is more than chance.\n\n"
             "Example: python -m analysis compare 0007 0008 --gate --allow speedup=2%")  # fmt: skip
def compare(
    base: Annotated[str, typer.Argument(help="a file, a number such as 0007, or latest")],
    heads: Annotated[list[str], typer.Argument(help="one or more to hold against it")],
    format_: Annotated[str, typer.Option("--format", help=f"one of {', '.join(FORMATS)}, {GITHUB}")] = "terminal",
    across: Annotated[str, typer.Option(help="the field in which cases may differ: device, or device=cpu:cuda")] = "",
    gate: Annotated[
        bool, typer.Option("--gate", help="exit with 1 if something regressed, 3 if nothing is comparable")
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option(help="METRIC=AMOUNT, such as speedup=2% or peak_rss_bytes=1MiB; or vanished, unmeasured")
    ] = None,
) -> None:
    if format_ not in (*FORMATS, GITHUB):
        raise _usage_error(f"--format {format_}: unknown; choose from {', '.join(FORMATS)}, {GITHUB}")
    if allow and not (gate or format_ == GITHUB):
        raise _usage_error(f"--allow {allow[0]}: only with --gate or --format {GITHUB}")
    from analysis import compare as comparing
    from analysis import gate as gating
    from analysis import github, load, pairing

    try:
        limits = gating.parse_limits(allow or [])
        first, *others = (load.load(load.find_run(run)) for run in (base, *heads))
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


@app.command(help="A run in the form that benchmark-tracking actions read.\n\n"
             "Example: python -m analysis export latest > figures.json")  # fmt: skip
def export(
    run: Annotated[str, typer.Argument(help="a file, a number such as 0007, or latest")] = "latest",
    format_: Annotated[
        str, typer.Option("--format", help="customSmallerIsBetter or customBiggerIsBetter")
    ] = "customSmallerIsBetter",
) -> None:
    from analysis import export as exporting

    found = _loaded(run)
    if format_ not in exporting.FORMATS:
        raise _usage_error(f"--format {format_}: unknown; choose from {', '.join(exporting.FORMATS)}")
    if not found.results:
        raise _usage_error(f"{found.path}: holds no results of this suite; `pytest --benchmark` makes a run that does")
    typer.echo(json.dumps(exporting.FORMATS[format_](found), indent=2))


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
    app(prog_name="python -m analysis")
