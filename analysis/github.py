"""A comparison as a comment on a pull request: a headline, the worst regressions, the rest folded. Values in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from analysis.compare import Comparison, comparison_table, lead_table
from analysis.gate import Regression, result
from analysis.render import Column, Section, Table, markdown

LIMIT = 65_536
"""What GitHub takes in one comment. Bytes are counted here, of which there are never fewer than characters."""

WORST = 20
"""Rows above the fold."""


def comment(comparison: Comparison, found: Sequence[Regression]) -> str:
    """GitHub's Markdown, below LIMIT. Names of users and issues inside names of cases do not become mentions."""
    columns = [Column("case", text=True), Column("figure", text=True), *map(Column, ("base", "head", "change", "allowed"))]
    worst = [[one.case, one.metric, one.base, one.head, one.change, one.allowed] for one in found[:WORST]]
    left_out = [f"and {len(found) - WORST} more"] if len(found) > WORST else []
    top = [
        f"### gradtax: {result(found, comparison)}",
        *([markdown(Table(columns, (), [Section("", (), worst)], left_out))] if found else []),
        *(markdown(lead_table(part)) for part in comparison.parts),
        "<details><summary>All cases</summary>",
    ]
    head = _unmentioned("\n\n".join(top))
    rest = _unmentioned(markdown(comparison_table(comparison)))
    return _cut(head, rest.splitlines())


def _unmentioned(text: str) -> str:
    """With a character of no width after @ and #, so that nobody is notified and no issue is linked."""
    return re.sub(r"([@#])(?=\w)", "\\1\u200b", text)


def _cut(head: str, lines: Iterable[str]) -> str:
    """As many of `lines` folded below `head` as there is room for, and a word about the others."""
    lines, end = list(lines), "\n\n</details>"
    note = "\n\ncut here, {} lines are left out: a comment on GitHub has no room for more; `--format markdown` shows all"
    room = LIMIT - len(f"{end}{note}{len(lines)}".encode())
    text = head.encode()[: room - 1].decode(errors="ignore") + "\n"
    size = len(text.encode())
    for number, line in enumerate(lines):
        size += len(f"\n{line}".encode())
        if size > room:
            return "\n".join([text, *lines[:number]]) + note.format(len(lines) - number) + end
    return "\n".join([text, *lines]) + end
