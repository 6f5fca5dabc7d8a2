"""`python -m analysis`: turns saved runs into tables. The only file here that prints or writes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.render import FORMATS, rendered
from analysis.tables import summary_tables

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
    tables = summary_tables(load.rows_of(summarise.summarise(found.frame)), found.unmeasured, found.broken_invariants)
    typer.echo(rendered(tables, format_))


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


@app.command(help="What the guide claims about gradient tracking, with a verdict on this machine and the evidence for it.\n\n"
             "Example: python -m analysis claims latest --format markdown")  # fmt: skip
def claims(
    run: Annotated[str, typer.Argument(help="a file, a number such as 0007, or latest")] = "latest",
    format_: Annotated[str, typer.Option("--format", help=f"one of {', '.join(FORMATS)}")] = "terminal",
) -> None:
    if format_ not in FORMATS:
        raise _usage_error(f"--format {format_}: unknown; choose from {', '.join(FORMATS)}")
    from analysis import claims, load

    loaded = _loaded(run)
    found = claims.claims(load.rows_of(loaded.frame), loaded.unmeasured)
    typer.echo(claims.terminal(found) if format_ == "terminal" else FORMATS[format_](claims.claims_table(found)))


@app.command(help="Which mode to use for what, what it gives, and what to beware of: the answer in sentences.\n\n"
             "Example: python -m analysis advise 0007")  # fmt: skip
def advise(
    run: Annotated[str, typer.Argument(help="a file, a number such as 0007, or latest")] = "latest",
    format_: Annotated[str, typer.Option("--format", help="terminal or markdown")] = "terminal",
) -> None:
    from analysis import advise, load

    if format_ not in advise.FORMATS:
        raise _usage_error(f"--format {format_}: unknown; choose from {', '.join(advise.FORMATS)}")
    loaded = _loaded(run)
    typer.echo(advise.FORMATS[format_](advise.advise(load.rows_of(loaded.frame), loaded.unmeasured, loaded.conditions)))


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
