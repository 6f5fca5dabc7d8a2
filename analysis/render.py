"""Tables in every format. Views are for people and hold texts; csv and json hold the figures of a frame."""

from __future__ import annotations

import io
import itertools
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from csv import QUOTE_NONNUMERIC
from dataclasses import dataclass, field
from functools import cache, partial

import jinja2
import pandas as pd
import rich.box
import rich.table
from markupsafe import Markup
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

WIDTH = 100
"""Columns that the terminal text keeps to, piped or not."""

WIDEST_TEXT = 40
"""No column of texts is wider on the terminal."""

UNCLEAR = "~"
"""Begins a cell whose interval lies partly inside 1 ±1 %. A terminal dims it."""

_FIGURE = re.compile(r"[~?]?[+-]?\d.*|[-=]|not known|")


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns, a title above and notes below.

    A named index holds labels: the terminal shows them as a heading where they change, other formats as columns. Columns whose cells
    all begin with a figure are aligned right. A title of several lines is one line in formats other than the terminal's.
    """

    cells: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    title: str = ""

    @property
    def labels(self) -> int:
        """How many of the columns are labels, which stand first."""
        return sum(name is not None for name in self.cells.index.names)

    @property
    def flat(self) -> pd.DataFrame:
        """All columns, the labels too."""
        return self.cells.reset_index() if self.labels else self.cells

    @property
    def columns(self) -> list[str]:
        return [" ".join(str(name).split()) for name in self.flat.columns]

    @property
    def rows(self) -> list[list[str]]:
        rows: list[list[str]] = self.flat.to_numpy(dtype=object).tolist()
        return rows

    @property
    def figures(self) -> list[bool]:
        """Which columns hold figures."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns)
        are_figures = [bool(texts) and all(_FIGURE.fullmatch(text) for text in texts) for texts in columns]
        return [number >= self.labels and is_figure for number, is_figure in enumerate(are_figures)]


def rendered(tables: Sequence[Table], frame: pd.DataFrame, format_: str = "terminal", *, colour: bool = False) -> str:
    """The tables, or for csv and json the figures of `frame`, without a line end behind."""
    if format_ in FIGURES:
        return FIGURES[format_](frame)
    view = partial(terminal, colour=colour) if format_ == "terminal" else VIEWS[format_]
    return "\n\n".join(filter(None, map(view, tables)))


def terminal(table: Table, *, colour: bool = False) -> str:
    """Text in at most 100 columns. With `colour`, what is unclear is dimmed."""
    console = Console(file=io.StringIO(), width=WIDTH, force_terminal=colour, color_system="standard" if colour else None,
                      highlight=False, legacy_windows=False, no_color=not colour)  # fmt: skip
    parts = [_printed(console, Text(table.title, style="bold"))] if table.title else []
    parts += ["\n".join(_with_headings(console, table))] if table.rows else []
    parts += [""] if parts and table.notes else []
    parts += ["\n  ".join(textwrap.wrap(note, WIDTH - 2)) for note in table.notes]
    return "\n".join(parts)


def _printed(console: Console, text: RenderableType) -> str:
    with console.capture() as captured:
        console.print(text)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))


def _with_headings(console: Console, table: Table) -> list[str]:
    """The lines of the table, and above each row whose labels differ from those before, the labels as a heading."""
    lines = _printed(console, _grid(table)).split("\n")
    top = len(lines) - len(table.rows)
    shown, above = lines[:top], [""] * table.labels
    for row, line in zip(table.rows, lines[top:], strict=True):
        if row[: table.labels] != above:
            above = row[: table.labels]
            named = zip(above[1:], table.columns[1:], strict=False)
            heading = "   ".join([above[0], *(f"{text} {name}" for text, name in named if text)])
            shown += ["", _printed(console, Text(heading, no_wrap=True, overflow="ellipsis"))]
        shown.append(line)
    return shown


def _grid(table: Table) -> rich.table.Table:
    """A line for each row. Columns stand close together and texts are cut where there is no room; figures never are."""
    titles, rows = list(table.flat.columns)[table.labels :], [row[table.labels :] for row in table.rows]
    are_figures = table.figures[table.labels :]
    widths = [max(cell_len(line) for text in column for line in text.split("\n")) for column in zip(titles, *rows, strict=True)]
    figures = sum(itertools.compress(widths, are_figures))
    texts = [min(width, WIDEST_TEXT) for width, is_figure in zip(widths, are_figures, strict=True) if not is_figure]
    room = WIDTH - figures - sum(texts)
    gap, widest = (2 if room >= 2 * len(widths) else 1), WIDEST_TEXT
    if room < len(widths) and texts:
        widest = max((WIDTH - figures - len(widths)) // len(texts), 5)
    grid = rich.table.Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="", show_edge=False)
    for title, is_figure in zip(titles, are_figures, strict=True):
        grid.add_column(
            Text(title), justify="right" if is_figure else "left", vertical="bottom", no_wrap=True, overflow="ellipsis",
            max_width=None if is_figure else widest,
        )  # fmt: skip
    for row in rows:
        grid.add_row(*(Text(text, style="dim" if text.startswith(UNCLEAR) else "") for text in row))
    return grid


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
    named = table.flat.set_axis(table.columns, axis=1)
    body = named.to_latex(escape=True, index=False, column_format=alignment) if table.rows else ""
    body = re.sub(r"^(?=[\[*])", "{}", body, flags=re.MULTILINE)  # or the \\ of the line before would take them as its argument
    comments = [f"% {text}" for text in (table.title, *table.notes) if text]
    return "\n".join(filter(None, [body.rstrip().replace("±", r"$\pm$"), *comments]))


_HTML = """\
{% if table.title %}<h3>{{ table.title }}</h3>
{% endif %}{% if table.rows %}{% set figures = table.figures %}<table>
<thead><tr>
{%- for name in table.columns %}<th scope="col"{{ figure if figures[loop.index0] }}>{{ name }}</th>{% endfor -%}
</tr></thead>
<tbody>
{% for row in table.rows %}<tr>
{%- for text in row %}<td{{ (unclear if text.startswith("~") else figure) if figures[loop.index0] }}>{{ text }}</td>{% endfor -%}
</tr>
{% endfor %}</tbody>
</table>
{% endif %}{% if table.notes %}<ul>
{% for note in table.notes %}<li>{{ note }}</li>
{% endfor %}</ul>
{% endif %}"""


def html(table: Table) -> str:
    """A fragment without styles: cells with figures have the class `figure`, unclear ones `unclear` too."""
    return _template().render(table=table, figure=Markup(' class="figure"'), unclear=Markup(' class="figure unclear"')).rstrip()


@cache
def _template() -> jinja2.Template:
    return jinja2.Environment(autoescape=True).from_string(_HTML)


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
