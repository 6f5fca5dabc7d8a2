"""Rows taken apart by what differs between them, and called by it in few words: for charts, which must not name what all have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

from analysis.allocators import TITLES
from benchmarks.record import Case, Row

FORWARD = "forward"
_CASE = tuple(field.name for field in fields(Case))

Label = Callable[[Row], str]


def key_of(row: Row, *without: str) -> tuple[str, ...]:
    """The case of `row`, but for the fields `without`."""
    return tuple(row[name] for name in _CASE if name not in without)


def panels(rows: Sequence[Row], *by: str) -> list[tuple[str, list[Row]]]:
    """`rows` apart by the fields `by`, each part with words that tell it from the others, to append to a title."""
    values = {name: {row[name] for row in rows} for name in by}
    telling = [name for name in by if len(values[name]) > 1 or (name == "scenario" and values[name] != {FORWARD})]
    parts: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        parts.setdefault(tuple(row[name] for name in telling), []).append(row)
    titles = {key: ", ".join(one_line(TITLES.get(word, word), 40) for word in key) for key in parts}
    return [(f" ({titles[key]})" if key else "", part) for key, part in parts.items()]


def by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Of the forward passes in `rows`, those of each model, device and dtype, by the words that tell these apart."""
    rows = [row for row in rows if row["scenario"] == FORWARD]
    name = labels(rows, "model", varying=("device", "dtype"), width=32)
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(name(row), []).append(row)
    return parts


def labels(rows: Sequence[Row], *always: str, varying: Sequence[str] = (), width: int = 28) -> Label:
    """A text for a row's fields `always` and those of `varying` in which `rows` differ. What differs has another text.

    Of a text longer than `width` the first field is cut, for the others tell more in fewer characters.
    """
    shown = [*always, *(name for name in varying if len({row[name] for row in rows}) > 1)]
    texts: dict[tuple[str, ...], str] = {}
    for row in rows:
        key = tuple(row[name] for name in shown)
        if key not in texts:
            rest = "".join(f" {one_line(value, 30)}" for value in key[1:])
            text = one_line(key[0], max(10, width - len(rest))) + rest
            texts[key] = f"{text} ({len(texts) + 1})" if text in texts.values() else text
    return lambda row: texts[tuple(row[name] for name in shown)]


def one_line(text: str, width: int = 60) -> str:
    """`text` without what breaks lines or cannot stand in SVG, its middle left out where it is longer than `width` characters."""
    plain = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    half = width // 2
    return plain if len(plain) <= width else f"{plain[: width - half - 1]}…{plain[-half:]}"
