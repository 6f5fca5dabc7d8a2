"""One table, every format: terminal text, Markdown, CSV, LaTeX, JSON and HTML. Texts in, text out; needs no pandas."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from types import MappingProxyType

from benchmarks.record import Row

WIDTH = 100
"""Columns that the terminal text keeps to."""


@dataclass(frozen=True, slots=True)
class Column:
    """`text` is aligned left. The terminal may leave `optional` columns out, the lowest number first; 0 stays."""

    title: str
    text: bool = False
    optional: int = 0


@dataclass(frozen=True, slots=True)
class Section:
    """Rows under one heading. `key` names the section in formats that have no headings, one value per Table.key_titles."""

    heading: str
    key: tuple[str, ...]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Table:
    """Sections of rows of texts, and notes that stand below. `raw` are the same rows as figures, for machines."""

    columns: list[Column]
    key_titles: tuple[str, ...]
    sections: list[Section]
    notes: list[str] = field(default_factory=list)
    raw: list[Row] = field(default_factory=list)


_ALWAYS_SHOWN = ("model", "size")
_SHORT_TITLE = len("per call")
"""Titles up to this long are not broken."""


def terminal(table: Table) -> str:
    """Plain text in at most 100 columns; no colours, no cursor movement. Says which columns it leaves out for that."""
    table = _printable(table)
    kept = _that_fit(table)
    columns, rows = [table.columns[number] for number in kept], [row for section in table.sections for row in section.rows]
    widths = [_width(table, number) for number in kept]
    needed = sum(widths) + len(widths) - 1
    gap = "  " if needed + len(widths) + 1 <= WIDTH else " "
    indent = "  " if needed + 2 <= WIDTH else ""
    lines = [_line(titles, widths, columns, gap, indent) for titles in _wrapped_titles(columns, widths)] if rows else []
    for section in table.sections:
        lines += ["", *(_shortened(line) for line in section.heading.splitlines())]
        lines += [_line([row[number] for number in kept], widths, columns, gap, indent) for row in section.rows]
    notes = list(table.notes)
    if len(kept) < len(table.columns) and rows:
        left_out = ", ".join(column.title for number, column in enumerate(table.columns) if number not in kept)
        notes.append(f"left out to fit {WIDTH} columns: {left_out}; the other formats show everything")
    wrapped = [line for note in notes for line in textwrap.wrap(note, WIDTH, subsequent_indent="  ")]
    return "\n".join([*lines, *([""] if lines and notes else []), *wrapped])


def _width(table: Table, number: int) -> int:
    """As wide as the figures: a title that is longer breaks at its spaces."""
    cells = (row[number] for section in table.sections for row in section.rows)
    return max((len(text) for text in (*cells, *_wrapped(table.columns[number].title, _SHORT_TITLE))), default=0)


def _that_fit(table: Table) -> list[int]:
    """The numbers of the columns that the terminal has room for."""
    kept = list(range(len(table.columns)))
    for number in sorted(kept, key=lambda number: table.columns[number].optional):
        if sum(_width(table, one) + 1 for one in kept) - 1 > WIDTH and table.columns[number].optional:
            kept.remove(number)
    return kept


def _wrapped_titles(columns: Sequence[Column], widths: Sequence[int]) -> list[list[str]]:
    """The lines of the header; a title that needs fewer of them stands at the bottom."""
    wrapped = [_wrapped(column.title, width) for column, width in zip(columns, widths, strict=True)]
    height = max(map(len, wrapped))
    padded = [[""] * (height - len(lines)) + lines for lines in wrapped]
    return [[lines[number] for lines in padded] for number in range(height)]


def _wrapped(title: str, width: int) -> list[str]:
    return textwrap.wrap(title, max(1, width), break_long_words=False, break_on_hyphens=False)


def _line(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column], gap: str, indent: str = "") -> str:
    padded = [
        cell.ljust(width) if column.text else cell.rjust(width)
        for cell, width, column in zip(cells, widths, columns, strict=True)
    ]
    return (indent + gap.join(padded)).rstrip()


def _shortened(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def markdown(table: Table) -> str:
    """A GitHub table with figures aligned right."""
    table = _printable(table)
    columns, flat = _flat(table)
    rows = [[_markdown_escaped(cell) for cell in row] for row in flat]
    titles = [_markdown_escaped(column.title) for column in columns]
    widths = [max(3, *(len(row[number]) for row in [titles, *rows])) for number in range(len(columns))]
    rule = ["-" * width if column.text else "-" * (width - 1) + ":" for width, column in zip(widths, columns, strict=True)]
    body = [_line(row, widths, columns, " | ").strip() for row in [titles, rule, *rows]]
    lines = [f"| {line.ljust(sum(widths) + 3 * (len(widths) - 1))} |" for line in body]
    return "\n".join([*([*lines, ""] if rows else []), *(f"- {_markdown_escaped(note)}" for note in table.notes)])


def latex(table: Table) -> str:
    """A booktabs tabular; needs `\\usepackage{booktabs}`."""
    table = _printable(table)
    columns, flat = _flat(table)
    alignment = "".join("l" if column.text else "r" for column in columns)
    rows = [[column.title for column in columns], *flat]
    joined = (" & ".join(_latex_escaped(cell) for cell in row) for row in rows)
    lines = [
        f"{{}}{line} \\\\" if line.startswith(("[", "*")) else f"{line} \\\\" for line in joined
    ]  # or the \\\\ before would take them
    notes = [f"% {note}" for note in table.notes]
    begin, end = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"], [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*([*begin, lines[0], r"\midrule", *lines[1:], *end] if flat else []), *notes])


def comma_separated(table: Table) -> str:
    """The figures themselves: seconds and bytes, unrounded, a column per field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(table.raw[0]) if table.raw else list(table.key_titles), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.raw)
    return text.getvalue().rstrip("\n")


def json_list(table: Table) -> str:
    """A JSON list of the figures themselves: seconds and bytes, unrounded."""
    return json.dumps(table.raw, indent=2)


def html(table: Table) -> str:
    """A `<table>` with a body per section, and the notes as a list. No styles: cells with figures have the class `figure`."""
    table = _printable(table)
    classes = ["" if column.text else ' class="figure"' for column in table.columns]
    titles = (f'<th scope="col"{mark}>{escape(one.title)}</th>' for one, mark in zip(table.columns, classes, strict=True))
    lines = ["<table>", f"<thead><tr>{''.join(titles)}</tr></thead>"] if any(one.rows for one in table.sections) else []
    end = ["</table>"] if lines else []
    for section in table.sections if lines else ():
        heading = "<br>".join(escape(line.strip()) for line in section.heading.splitlines())
        lines += ["<tbody>", *([f'<tr><th colspan="{len(classes)}" scope="rowgroup">{heading}</th></tr>'] if heading else [])]
        for row in section.rows:
            cells = (f"<td{mark}>{escape(cell)}</td>" for cell, mark in zip(row, classes, strict=True))
            lines.append(f"<tr>{''.join(cells)}</tr>")
        lines.append("</tbody>")
    notes = ["<ul>", *(f"<li>{escape(note)}</li>" for note in table.notes), "</ul>"] if table.notes else []
    return "\n".join([*lines, *end, *notes])


FORMATS: Mapping[str, Callable[[Table], str]] = MappingProxyType(
    {"terminal": terminal, "markdown": markdown, "csv": comma_separated, "latex": latex, "json": json_list, "html": html}
)


def rendered(tables: Sequence[Table], format_: str) -> str:
    """Several tables one below the other; the formats for machines hold one list of figures. Raises KeyError for an unknown format."""
    if format_ in ("csv", "json"):
        return FORMATS[format_](replace(tables[0], raw=[row for table in tables for row in table.raw]))
    return "\n\n".join(FORMATS[format_](table) for table in tables)


def _printable(table: Table) -> Table:
    """The table with every text on one line and without characters that would steer a terminal; names come from files."""

    def plain(text: str) -> str:
        return "".join(one if one.isprintable() else " " if one.isspace() else "\ufffd" for one in text)

    return Table(
        [replace(column, title=plain(column.title)) for column in table.columns],
        table.key_titles,
        [
            Section(
                "\n".join(map(plain, section.heading.splitlines())),
                tuple(map(plain, section.key)),
                [[plain(cell) for cell in row] for row in section.rows],
            )
            for section in table.sections
        ],
        [plain(note) for note in table.notes],
        table.raw,
    )


def _flat(table: Table) -> tuple[list[Column], list[list[str]]]:
    """The table without headings: the keys that tell sections apart become columns."""
    differing = [
        number
        for number, title in enumerate(table.key_titles)
        if title in _ALWAYS_SHOWN or len({section.key[number] for section in table.sections}) > 1
    ]
    columns = [*(Column(table.key_titles[number], text=True) for number in differing), *table.columns]
    rows = [[*(section.key[number] for number in differing), *row] for section in table.sections for row in section.rows]
    return columns, rows


def _markdown_escaped(text: str) -> str:
    """Only what would be read as markup: underscores inside a word and brackets without a link are left as they are."""
    text = re.sub(r"([\\|*`<~$]|&(?=#?\w+;)|\](?=\())", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_+|_+(?![^\W_])", lambda found: r"\_" * len(found[0]), text)


def _latex_escaped(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "`": r"\textasciigrave{}",
        "±": r"$\pm$",
    }
    return "".join(special.get(character, f"\\{character}" if character in "&%$#_{}" else character) for character in text)
