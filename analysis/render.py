"""Tables in every format. Views are for people and hold texts; csv and json hold the figures of a frame."""

from __future__ import annotations

import io
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from csv import QUOTE_NONNUMERIC
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd
import rich.table
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.text import Text

WIDTH = 100
"""Columns that the terminal text keeps to, piped or not."""

WIDEST_TEXT = 40
"""No column of texts is wider on the terminal."""

UNCLEAR = "~"
"""Begins a cell whose interval lies partly inside 1 ±1 %."""

_FIGURE = re.compile(r"[~?]?[+-]?\d.*|[-=]|not known\*?|")


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns, a title above and notes below. Columns whose cells all begin with a figure are aligned right.

    The terminal shows the first `labels` columns as a heading where they change. Only it breaks lines in titles.
    """

    cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: list[str] = field(default_factory=list)
    title: str = ""
    labels: int = 0

    @property
    def columns(self) -> list[str]:
        return [" ".join(str(name).split()) for name in self.cells]

    @property
    def rows(self) -> list[list[str]]:
        rows: list[list[str]] = self.cells.to_numpy(dtype=object).tolist()
        return rows

    @property
    def figures(self) -> list[bool]:
        """Which columns hold figures."""
        are_figures = self.cells.map(_FIGURE.fullmatch).notna().all()
        return [number >= self.labels and bool(is_figure) for number, is_figure in enumerate(are_figures)]


def rendered(tables: Sequence[Table], frame: pd.DataFrame, format_: str = "terminal") -> str:
    """The tables, or for csv and json the figures of `frame`, without a line end behind."""
    return FIGURES[format_](frame) if format_ in FIGURES else "\n\n".join(filter(None, map(VIEWS[format_], tables)))


def terminal(table: Table) -> str:
    """Text in at most 100 columns."""
    parts = textwrap.wrap(table.title, WIDTH)
    parts += _with_headings(table) if table.rows else []
    parts += [""] if parts and table.notes else []
    parts += ["\n  ".join(textwrap.wrap(note, WIDTH - 2)) for note in table.notes]
    return "\n".join(parts)


def _with_headings(table: Table) -> list[str]:
    """The lines of the table, and above each row whose labels differ from those before, the labels as a heading."""
    lines = _grid(table)
    top = len(lines) - len(table.rows)
    shown, above = lines[:top], [""] * table.labels
    for row, line in zip(table.rows, lines[top:], strict=True):
        if row[: table.labels] != above:
            above = row[: table.labels]
            named = zip(above[1:], table.columns[1:], strict=False)
            heading = Text("   ".join([above[0], *(f"{text} {name}" for text, name in named if text)]))
            heading.truncate(WIDTH, overflow="ellipsis")
            shown += ["", heading.plain]
        shown.append(line)
    return shown


def _grid(table: Table) -> list[str]:
    """A line for each row. Columns stand close together; texts and titles are cut where there is no room, figures never."""
    grid = rich.table.Table(box=None, padding=0, pad_edge=False, header_style="", show_edge=False)
    columns = zip(*(row[table.labels :] for row in table.rows), strict=True)
    titles = map(str, table.cells.columns[table.labels :])
    for title, texts, is_figure in zip(titles, columns, table.figures[table.labels :], strict=True):
        longest = max(map(cell_len, [*title.split("\n"), *texts]))
        width = min(longest, WIDEST_TEXT) if is_figure else None
        justify: JustifyMethod = "right" if is_figure else "left"
        heading = Text(title, no_wrap=True, overflow="ellipsis")
        grid.add_column(heading, justify=justify, vertical="bottom", width=width, max_width=WIDEST_TEXT)
    for row in table.rows:
        grid.add_row(*(Text(text, no_wrap=True, overflow="ellipsis") for text in row[table.labels :]))
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, legacy_windows=False)
    grid.padding = (0, 2 if console.measure(grid).maximum + 2 * len(grid.columns) <= WIDTH else 1, 0, 0)
    with console.capture() as captured:
        console.print(grid)
    return [line.rstrip() for line in captured.get().rstrip("\n").split("\n")]


def markdown(table: Table) -> str:
    """A GitHub table with figures aligned right, and the notes as a list."""
    rows = [[_markdown_escaped(text) for text in row] for row in (table.columns, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = [f"{'-' * (width - 1)}{':' if is_figure else '-'}" for width, is_figure in zip(widths, table.figures, strict=True)]
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        cells = zip(row, widths, table.figures, strict=True)
        padded = (text.rjust(width) if is_figure else text.ljust(width) for text, width, is_figure in cells)
        lines.append(f"| {' | '.join(padded)} |")
    title = f"**{_markdown_escaped(table.title)}**" if table.title else ""
    notes = "\n".join(f"- {_markdown_escaped(note)}" for note in table.notes)
    return "\n\n".join(filter(None, (title, "\n".join(lines) if table.rows else "", notes)))


def _markdown_escaped(text: str) -> str:
    """What would be read as markup, as a link or as a mention; underscores inside a word and brackets without a link stay."""
    text = re.sub(r"([\\|*`<~$]|&(?=#?\w+;)|\](?=[(\[:]))", r"\\\1", text)
    text = re.sub(r":(?=//)|(?<=www)\.|@(?=\w)", lambda found: f"&#{ord(found[0])};", text)
    return re.sub(r"(?<![^\W_])_+|_+(?![^\W_])", lambda found: r"\_" * len(found[0]), text)


def latex(table: Table) -> str:
    """A booktabs tabular; needs `\\usepackage{booktabs}`. Title and notes are comments."""
    alignment = "".join("r" if is_figure else "l" for is_figure in table.figures)
    named = table.cells.set_axis(table.columns, axis=1)
    body = named.to_latex(escape=True, index=False, column_format=alignment) if table.rows else ""
    body = re.sub(r"^(?=[\[*])", "{}", body, flags=re.MULTILINE)  # or the \\ of the line before would take them as its argument
    comments = [f"% {text}" for text in (table.title, *table.notes) if text]
    return "\n".join(filter(None, [body.rstrip().replace("±", r"$\pm$"), *comments]))


def html(table: Table, values: Sequence[Sequence[object]] = ()) -> Markup:
    """A fragment without styles: cells with figures have the class `figure`, unclear ones `unclear` too.

    `values` are what the cells sort by, where a script sorts them.
    """
    return Markup(templates().get_template("table.html.jinja").render(table=table, values=values).strip())  # noqa: S704 - escaped


@cache
def templates() -> Environment:
    """Those beside this file; they escape every text."""
    folder = FileSystemLoader(Path(__file__).parent)
    return Environment(autoescape=True, loader=folder, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def comma_separated(frame: pd.DataFrame) -> str:
    """Seconds and bytes, unrounded, a column per field; texts are quoted, and those that a spreadsheet would compute begin with `'`."""
    plain = frame.map(lambda value: _one_text(value) if isinstance(value, list | dict | str) else value, na_action="ignore")
    return plain.to_csv(index=False, quoting=QUOTE_NONNUMERIC, lineterminator="\n").rstrip("\n")


def _one_text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def json_list(frame: pd.DataFrame) -> str:
    """A list of objects: seconds and bytes, unrounded, null for what is missing."""
    plain = frame.astype(object).where(frame.notna(), None)
    return json.dumps(plain.to_dict("records"), indent=2)


VIEWS: Mapping[str, Callable[[Table], str]] = {"terminal": terminal, "markdown": markdown, "latex": latex, "html": html}
FIGURES: Mapping[str, Callable[[pd.DataFrame], str]] = {"csv": comma_separated, "json": json_list}
