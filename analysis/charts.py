"""A run as charts, and several runs side by side: speedups, heaps, memory, saved bytes, theory, placebos. Runs in, altair charts out."""

from __future__ import annotations

import itertools
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from xml.sax.saxutils import escape

import vl_convert
from altair.utils.schemapi import debug_mode

from analysis import drawing, palette
from analysis.allocators import TITLES
from analysis.drawing import Chart, Point
from analysis.figures import count_text, ratio_text, speedup_text
from analysis.load import Run, rows_of
from analysis.memory_charts import memory, saved_by_module, theory
from analysis.palette import MODE_COLOURS, colour_of
from analysis.panels import key_of, labels, one_line, panels
from benchmarks.record import CONTEXT, DEFAULT, OPERATORS, RESIDENT, Interval, Result, Row

__all__ = ["MODE_COLOURS", "Chart", "charts", "colour_of", "comparison_charts", "write"]

MOST_GROUPS = 60
"""More than these in one chart could not be read."""

PICTURE_WIDTH = 560
"""Pixels between the axes of a picture in a file; in a page a chart takes the room that there is."""

_SVG_COLOURS = "<style>svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#eee}}</style>"
_WHITE = '<rect width="100%" height="100%" fill="white"/>'
PLACEBO, SPEEDUP = "identical code", "speedup and its 99 % interval"


def charts(run: Run) -> list[Chart]:
    """Those for which `run` has figures. A mode has the same colour and shape in all of them, and in those of other runs."""
    rows, results = rows_of(run.frame), run.results
    rows = [row for row in rows if (row["scenario"], row["model"]) != (OPERATORS, CONTEXT)]
    makers = (speedups(rows), heaps(results), memory(rows), saved_by_module(results), theory(rows), placebos(rows))
    return _finished(itertools.chain.from_iterable(makers))


def comparison_charts(runs: Sequence[Run]) -> list[Chart]:
    """The speedups of the cases that all `runs` measured, a point per run; a case's device may differ where each run has only one."""
    return _finished(comparisons(runs)) if len(runs) > 1 else []


def write(charts: Iterable[Chart], folder: Path) -> list[Path]:
    """Each chart as SVG, whose text follows the reader's colour scheme, and as PNG on white. Returns the paths; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in charts:
        spec = chart.spec.to_dict(validate=False)
        notes = " ".join(spec.get("title", {"text": []})["text"])
        title = {
            "text": textwrap.wrap(chart.title, 80),
            "subtitle": textwrap.wrap(notes, 100),
            "fontSize": 13,
            "fontWeight": "bold",
        }
        spec |= {"width": PICTURE_WIDTH, "title": title, "padding": 10}
        drawn = vl_convert.vegalite_to_svg(spec)
        svg, png = folder / f"{chart.name}.svg", folder / f"{chart.name}.png"
        svg.write_text(drawn.replace(">", f">{_SVG_COLOURS}<desc>{escape(chart.text)}</desc>", 1), encoding="utf-8")
        png.write_bytes(vl_convert.svg_to_png(drawn.replace(">", f">{_WHITE}", 1), scale=2))
        written += [svg, png]
    return written


def speedups(rows: Sequence[Row]) -> Iterator[Chart]:
    """A forest per scenario, allocator and device; those of a scenario have the same axis."""
    known = [row for row in rows if row["mode"] != "tracked" and _drawable(row, "speedup")]
    domains = {part[0]["scenario"]: _domain(part, "speedup") for _, part in panels(known, "scenario")}
    for words, panel in panels(known, "scenario", "allocator", "device"):
        label = labels(panel, "model", "size", varying=["dtype"])
        points = [_point(row, label(row), one_line(row["mode"]), "speedup") for row in panel]
        verdicts = Counter(row["verdict"] if row["trusted"] else "untrusted" for row in panel)
        counts = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common())
        series = palette.modes(row["mode"] for row in panel)
        title = f"Speedup{f' of {series.names[0]}' if len(series.names) == 1 else ''} over tracked{words}"
        shown, cut = _cut(points)
        yield Chart(
            f"speedup {words}", title + cut, f"{title}: {counts}. {_extremes(points)}",
            drawing.forest(shown, series, SPEEDUP, domains[panel[0]["scenario"]]),
        )  # fmt: skip


def placebos(rows: Sequence[Row]) -> Iterator[Chart]:
    """What identical code read in every group, a forest per allocator, the furthest off first."""
    groups = {key_of(row, "mode"): row for row in rows if _drawable(row, "placebo")}
    for words, panel in panels(list(groups.values()), "allocator"):
        panel.sort(key=lambda row: -abs(math.log(row["placebo"])))
        label = labels(panel, "model", "size", varying=["scenario", "device", "dtype"])
        points = [_point(row, label(row), PLACEBO, "placebo") for row in panel]
        holding, untrusted = (
            sum(row["placebo_low"] <= 1 <= row["placebo_high"] for row in panel),
            sum(not row["trusted"] for row in panel),
        )
        shown, cut = _cut(points)
        yield Chart(
            f"placebo {words}", f"What identical code reads{words}{cut}",
            f"Identical code, whose speedup is 1 by construction{words}: the intervals of {holding} of {len(panel)} groups hold 1; "
            f"untrusted: {untrusted or 'none'}. Furthest off: {points[0]['reads']} ({points[0]['group']}).",
            drawing.forest(shown, palette.same_colour([PLACEBO]), "placebo and its 99 % interval", _domain(panel, "placebo")),
        )  # fmt: skip


def heaps(results: Sequence[Result]) -> Iterator[Chart]:
    """As shipped, what every heap read, identical code included, beside the figures of tracking alone."""
    alone = {replace(one.case, allocator=DEFAULT): one for one in results if one.case.allocator == RESIDENT}
    several = [
        {**asdict(one.case), "result": one} for one in results if one.case.allocator == DEFAULT and len(one.processes) > 1
    ]
    for words, panel in panels(several, "scenario", "device"):
        label = labels(panel, "model", "size", varying=["dtype"])
        points, combined = [], []
        for row in panel:
            where = {"group": label(row), "series": PLACEBO if row["mode"] == "tracked" else one_line(row["mode"])}
            points += [where | reading for reading in _readings(row["result"])]
            other = alone.get(row["result"].case)
            interval = _of_lane(other) if other else None
            if interval and _plausible(interval.estimate):
                reads = f"{speedup_text(interval.estimate, interval.low, interval.high)} {TITLES[RESIDENT]}"
                combined.append(where | {"value": interval.estimate, "reads": reads})
        if not points:
            continue
        shown, cut = _cut(points)
        kept = {point["group"] for point in shown}
        yield Chart(
            f"heaps {words}", f"As shipped, heap by heap{words}{cut}", f"Speedups as shipped{words}, one per heap: {_spreads(points)}",
            drawing.strips(
                shown, [point for point in combined if point["group"] in kept],
                palette.modes((row["mode"] for row in panel if row["mode"] != "tracked"), first=PLACEBO), "speedup in one heap",
            ),
        )  # fmt: skip


def comparisons(runs: Sequence[Run]) -> Iterator[Chart]:
    """A row per case, a point per run."""
    tables = [rows_of(run.frame) for run in runs]
    ignored = ["device"] if all(len({row["device"] for row in table}) == 1 for table in tables) else []
    known = [
        {key_of(row, *ignored): row for row in table if row["mode"] != "tracked" and _drawable(row, "speedup")}
        for table in tables
    ]
    common = [
        row | {"each": each} for key, row in known[0].items() if None not in (each := [cases.get(key) for cases in known])
    ]
    series = palette.runs([run.name for run in runs])
    for words, panel in panels(common, "scenario", "allocator", "device"):
        label = labels(panel, "model", "size", "mode", varying=["dtype"])
        points = [
            _point(each, label(row), name, "speedup")
            for row in panel
            for name, each in zip(series.names, row["each"], strict=True)
        ]
        apart = sum(_apart(row["each"]) for row in panel)
        shown, cut = _cut(points)
        yield Chart(
            f"comparison {words}", f"Speedup over tracked in {len(runs)} runs{words}{cut}",
            f"Speedup over tracked in {len(runs)} runs{words}: the intervals of {apart} of {len(panel)} common cases lie apart. "
            f"{_extremes(points)}",
            drawing.forest(shown, series, SPEEDUP, _domain([each for row in panel for each in row["each"]], "speedup")),
        )  # fmt: skip


def _finished(found: Iterable[Chart]) -> list[Chart]:
    """`found` with names that are file names, each once, and with their texts where a screen reader finds them."""
    named: dict[str, Chart] = {}
    with debug_mode(False):  # checking each part takes most of the time; the tests compile the charts instead
        for chart in found:
            stem = re.sub(r"[^a-z0-9]+", "-", chart.name.lower())[:60].strip("-")
            names = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
            name = next(name for name in names if name not in named)
            chart.spec["description"] = chart.text
            named[name] = replace(chart, name=name)
    return list(named.values())


def _drawable(row: Row, figure: str) -> bool:
    """Whether a ratio and both ends of its interval are there and can stand on a log axis."""
    return all(_plausible(row[name]) for name in (figure, f"{figure}_low", f"{figure}_high"))


def _plausible(ratio: float | None) -> bool:
    return ratio is not None and 1e-9 < ratio < 1e9


def _point(row: Row, group: str, series: str, figure: str) -> Point:
    value, low, high = (row[name] for name in (figure, f"{figure}_low", f"{figure}_high"))
    reads = speedup_text(value, low, high) + (f" {row['verdict']}" if figure == "speedup" else "")
    return {
        "group": group,
        "series": series,
        "value": value,
        "low": low,
        "high": high,
        "trusted": int(row["trusted"]),
        "reads": reads,
    }


def _domain(rows: Iterable[Row], figure: str) -> list[float]:
    """Room for every estimate, and for the intervals that can be trusted."""
    ends = ("", "_low", "_high")
    return drawing.ratio_domain(row[figure + end] for row in rows for end in (ends if row["trusted"] else ends[:1]))


def _cut(points: Sequence[Point]) -> tuple[list[Point], str]:
    """Of `points` those of the first MOST_GROUPS groups, and what to say in a title where that leaves some out."""
    groups = list(dict.fromkeys(point["group"] for point in points))
    kept = set(groups[:MOST_GROUPS])
    note = f", the first {MOST_GROUPS} of {len(groups)} rows" if len(groups) > MOST_GROUPS else ""
    return [point for point in points if point["group"] in kept], note


def _extremes(points: Sequence[Point]) -> str:
    known = [point for point in points if point["trusted"]]
    if not known:
        return "All groups are untrusted."
    highest, lowest = (one(known, key=lambda point: point["value"]) for one in (max, min))
    texts = [f"{point['reads']} ({point['series']}, {point['group']})" for point in (highest, lowest)]
    return f"Highest {texts[0]}, lowest {texts[1]}."


def _of_lane(result: Result) -> Interval | None:
    return result.placebo if result.case.mode == "tracked" else result.speedup


def _readings(result: Result) -> Iterator[Point]:
    for heap in result.processes:
        value = heap.placebo if result.case.mode == "tracked" else heap.speedup
        if _plausible(value):
            faults = "" if heap.page_faults is None else f", {count_text(heap.page_faults)} faults a call"
            yield {"value": value, "reads": ratio_text(value) + faults}


def _spreads(points: Sequence[Point]) -> str:
    """How far heaps read apart, in the row of identical code and in that of a mode where they do so most."""
    spans: dict[tuple[str, str], list[float]] = {}
    for point in points:
        spans.setdefault((point["series"], point["group"]), []).append(point["value"])
    widest = sorted(spans.items(), key=lambda span: -max(span[1]) / min(span[1]))
    texts = [
        f"{series} furthest apart: {ratio_text(min(values))} to {ratio_text(max(values))} ({group})"
        for chosen in (True, False)
        for (series, group), values in [span for span in widest if (span[0][0] == PLACEBO) == chosen][:1]
    ]
    return f"{'; '.join(texts)}."


def _apart(rows: Sequence[Row]) -> bool:
    """Whether some two of the intervals have no value in common."""
    return bool(max(row["speedup_low"] for row in rows) > min(row["speedup_high"] for row in rows))
