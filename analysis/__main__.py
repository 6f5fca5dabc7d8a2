"""`python -m analysis`: turns saved runs into tables. The only file here that prints or writes."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.render import FORMATS, summary_table

app = typer.Typer(
    help="Turns saved runs into tables.\n\nExample: python -m analysis summarise latest --format markdown",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


@app.callback()
def commands() -> None:
    """Keeps `summarise` a command of its own while it is the only one."""


@app.command(help="The main table of a run: time, speedup, verdict and memory of every mode.\n\n"
             "Example: python -m analysis summarise 0007 --format latex > table.tex")  # fmt: skip
def summarise(
    run: Annotated[str, typer.Argument(help="a file, a number such as 0007, or latest")] = "latest",
    format_: Annotated[str, typer.Option("--format", help=f"one of {', '.join(FORMATS)}")] = "terminal",
) -> None:
    if format_ not in FORMATS:
        raise _usage_error(f"--format {format_}: unknown; choose from {', '.join(FORMATS)}")
    from analysis import load, summarise  # pandas takes half a second, which --help need not wait for

    try:
        found = load.load(load.find_run(run))
    except load.RunFileError as error:
        raise _usage_error(str(error)) from error
    if found.foreign:
        typer.echo(f"{found.path}: {found.foreign} benchmarks of other tests skipped", err=True)
    if found.frame.empty and not found.unmeasured:
        raise _usage_error(f"{found.path}: holds no results of this suite; `pytest --benchmark` makes a run that does")
    table = summary_table(load.rows_of(summarise.summarise(found.frame)), found.unmeasured)
    typer.echo(FORMATS[format_](table))


def _usage_error(message: str) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(2)


if __name__ == "__main__":
    app(prog_name="python -m analysis")
