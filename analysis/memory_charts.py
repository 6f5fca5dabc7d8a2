"""Charts of memory: peaks against size, saved bytes by module, theory against measurement. Rows in, charts out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from analysis import drawing, palette
from analysis.drawing import Chart, Point
from analysis.figures import bytes_text, percent_text, ratio_text
from analysis.panels import by_model, key_of, labels, one_line
from benchmarks.record import Result, Row, SavedBy

MOST_MODELS, MOST_MODULES = 12, 10
"""How many models have charts of their own, and how many modules have bars."""


def memory(rows: Sequence[Row]) -> Iterator[Chart]:
    """A panel per model of several sizes, all on the same axes: each mode's peak over the bytes that tracked saves."""
    cases = {key_of(row, "allocator"): row for row in rows}
    saved = {key[:-1]: row["saved_bytes"] for key, row in cases.items() if key[-1] == "tracked"}
    known = [row | {"x": saved.get(key[:-1]) or 0} for key, row in cases.items() if row["peak_tensor_bytes"] is not None]
    parts = {words: [row for row in part if row["x"] > 0] for words, part in by_model(known).items()}
    parts = {
        words: part for words, part in parts.items() if len({row["size"] for row in part if row["peak_tensor_bytes"] > 0}) > 1
    }
    shown = dict(list(parts.items())[:MOST_MODELS])
    if not shown:
        return
    drawn = [row for part in shown.values() for row in part if row["peak_tensor_bytes"] > 0]
    domains = drawing.byte_domain(row["x"] for row in drawn), drawing.byte_domain(row["peak_tensor_bytes"] for row in drawn)
    for words, part in shown.items():
        points = [_memory_point(row) for row in sorted(part, key=lambda row: row["x"]) if row["peak_tensor_bytes"] > 0]
        largest = points[-1]
        texts = [f"{point['series']} {point['reads']}" for point in points if point["x"] == largest["x"]]
        zeros = len(part) - len(points)
        left_out = f" Peaks of 0 B, of which there are {zeros}, have no place on a log axis." if zeros else ""
        yield Chart(
            f"memory {words}", f"Peak memory against size: {words}{_cut(parts)}",
            f"Peak tensor memory of {words} over what tracked saves for backward, in {largest['label']}, where that is "
            f"{bytes_text(largest['x'])}: {', '.join(texts)}.{left_out}",
            drawing.lines(points, palette.modes(row["mode"] for row in part), domains, ("saved by tracked", "peak tensor memory")),
        )  # fmt: skip


def saved_by_module(results: Sequence[Result]) -> Iterator[Chart]:
    """Bars per model, in the size that saves most: the modules that save most, and the others together."""
    rows = [{**asdict(one.case), "result": one} for one in results if one.case.mode == "tracked" and _saved(one) > 0]
    parts = {words: max((row["result"] for row in part), key=_saved) for words, part in by_model(rows).items()}
    parts = {words: result for words, result in parts.items() if result.memory.saved_by_module}
    for words, result in list(parts.items())[:MOST_MODELS]:
        modules = sorted(result.memory.saved_by_module, key=lambda part: (part.name.startswith("("), -part.bytes))
        rest = modules[MOST_MODULES:]
        others = [SavedBy("all others", sum(part.bytes for part in rest))] if rest else []
        bars = [_bar(part, _saved(result)) for part in [*modules[:MOST_MODULES], *others]]
        label = labels(bars, "group")
        points = [bar | {"group": label(bar)} for bar in bars]
        where = f"{words} {one_line(result.case.size, 40)}"
        most = "; ".join(f"{point['group']} {point['reads']}" for point in points[:3])
        yield Chart(
            f"saved {words}", f"Saved for backward, by module: {where}{_cut(parts)}",
            f"Of the {bytes_text(_saved(result))} that {where} saves for backward, most by: {most}.", drawing.bars(points, "saved"),
        )  # fmt: skip


def theory(rows: Sequence[Row]) -> Iterator[Chart]:
    """What paper expects, and library workspaces keep beside it, against what was measured: a point per model and size."""
    cases = {key_of(row, "allocator"): row for row in rows if row["mode"] == "tracked" and (row["saved_bytes"] or 0) > 0}
    known = [row for row in cases.values() if row["expected_saved_bytes"] is not None]
    label = labels(known, "model", "size", varying=["scenario", "device", "dtype"])
    points = [point for row in known if (point := _theory_point(row, label(row)))["x"] > 0]
    if not points:
        return
    furthest = max(points, key=lambda point: abs(math.log(point["y"] / point["x"])))
    equal = sum(point["x"] == point["y"] for point in points)
    apart = "" if equal == len(points) else f" Furthest apart: {furthest['label']}, {furthest['reads']}."
    yield Chart(
        "theory", "Saved bytes: theory against measurement",
        f"Bytes saved for backward as expected on paper and as measured: the same in {equal} of {len(points)} cases.{apart}",
        drawing.diagonal(points, palette.same_colour([point["series"] for point in points]), ("expected", "measured")),
    )  # fmt: skip


def _saved(result: Result) -> int:
    return result.memory.saved_bytes or 0


def _bar(part: SavedBy, total: int) -> Point:
    share = percent_text(part.bytes / total)
    return {"group": part.name, "bytes": part.bytes, "share": share, "reads": f"{bytes_text(part.bytes)}, {share}"}


def _memory_point(row: Row) -> Point:
    peak, ratio = row["peak_tensor_bytes"], row["peak_tensor_ratio"]
    of_tracked = "" if ratio is None else f" ({ratio_text(ratio)} of tracked)"
    where = {"label": one_line(row["size"], 20), "series": one_line(row["mode"])}
    return {**where, "x": row["x"], "y": peak, "reads": f"{bytes_text(peak)}{of_tracked}"}


def _theory_point(row: Row, label: str) -> Point:
    expected, measured = row["expected_saved_bytes"] + (row["opaque_saved_bytes"] or 0), row["saved_bytes"]
    reads = f"expected {expected:,} B, measured {measured:,} B"
    return {"label": label, "series": one_line(row["model"], 40), "x": expected, "y": measured, "reads": reads}


def _cut(models: Mapping[str, Any]) -> str:
    return f" (of {len(models)} models the first {MOST_MODELS} are shown)" if len(models) > MOST_MODELS else ""
