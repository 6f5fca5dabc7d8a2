"""A run as pictures: speedups, the peak memory that is left, and where one model's saved bytes lie. Run in, SVG out.

Text and lines have the colour `currentColor`, so a picture inside a page follows the page's light or dark.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from analysis.cases import JOB, TRACKED, against, each, is_context, is_part, labels, memory
from analysis.figures import bytes_text
from analysis.read import Run
from benchmarks.intervals import MARGIN, verdict
from benchmarks.record import FORWARD, OPERATORS, PAGES_KEPT, Interval, Result

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8F8F00", "#808080")
"""Told apart by the colour-blind, on white and on black: those of Okabe and Ito ("Color Universal Design", 2008), with grey and olive
in the place of black and yellow."""
SHAPES = ("circle", "diamond", "square", "triangle-up", "triangle-down", "triangle-right", "triangle-left", "cross")
MODES = ("no_grad", "inference_mode", "detach")
"""These look the same in every chart; a chart's other modes take what is left in their order."""

MOST_ROWS, MOST_MODULES = 40, 12
"""More could not be read."""
WIDTH = 440
"""Pixels. A phone shows a chart at four fifths of its size, so its text can still be read."""

Plot = alt.LayerChart | alt.FacetChart | alt.HConcatChart

SPEEDUP_AXIS, PEAK_AXIS = "speedup over tracked and its 99 % interval", "peak tensor memory, of tracked's"
LEGEND = f"shaded: within ±{100 * MARGIN:g} %; pale: unclear"

_BACKGROUND = (
    "<style>svg{color:#222;background:#fff}@media(prefers-color-scheme:dark){svg{color:#eee;background:#0d1117}}</style>"
)
_PADDING = {"left": 24, "right": 24, "top": 4, "bottom": 4}
"""Pixels. A browser's sans-serif may be wider than the one that the labels were measured in."""
_LEGEND_LETTERS = 32
"""So many fit into one line in any font."""
_WHITE = '<rect width="100%" height="100%" fill="white"/>'
_QUIET = {"domainColor": "currentColor", "domainOpacity": 0.4, "tickColor": "currentColor", "tickOpacity": 0.4}
_CONFIG: dict[str, Any] = {
    "font": "sans-serif",
    "view": {"stroke": None},
    "mark": {"aria": False},
    "axis": _QUIET
    | {"labelColor": "currentColor", "labelFontSize": 11, "labelLimit": 170, "labelOverlap": "greedy", "labelSeparation": 6}
    | {"titleColor": "currentColor", "titleFontWeight": "normal", "titleFontSize": 11}
    | {"gridColor": "currentColor", "gridOpacity": 0.12},
    "legend": {"orient": "top", "title": None, "symbolSize": 60, "symbolOpacity": 1}
    | {"labelColor": "currentColor", "labelFontSize": 11, "labelLimit": 160},
    "title": {"color": "currentColor", "subtitleColor": "currentColor", "anchor": "start", "frame": "bounds", "fontSize": 13},
}


def charts(run: Run) -> dict[str, str]:
    """Title and SVG of those for which `run` has figures."""
    frame = run.frame[~is_context(run.frame) & ~is_part(run.frame)]
    drawn: dict[str, str] = {}
    for words, panel in _panels(frame, ["allocator", "device"]):
        drawn |= _titled_forest(f"Speedup over tracked: {words}", _speedups(panel.assign(label=labels(panel))), SPEEDUP_AXIS)
    for words, panel in _panels(memory(frame[frame["scenario"].ne(OPERATORS)]), ["device"]):
        drawn |= _titled_forest(f"Peak memory that is left: {words}", _peaks(panel.assign(label=labels(panel, JOB))), PEAK_AXIS)
    return drawn | _saved_by_module(run.results)


def of_means(found: pd.DataFrame, by: Sequence[str], title: str) -> dict[str, str]:
    """Title and SVG of mean speedups of forward passes, which `means` gives: a row for each value of `by`."""
    found = found[found["scenario"].eq(FORWARD) & found["mode"].isin(MODES)].rename(columns={"ratio": "value"})
    if found.empty:
        return {}
    clear = [verdict(Interval(row.value, row.low, row.high)) != "unclear" for row in each(found)]
    points = found.assign(clear=clear, label=found[list(by)].agg(", ".join, axis=1))
    drawn: dict[str, str] = {}
    for words, panel in _panels(points, ["allocator", "device", "dtype", "execution"]):
        drawn |= _titled_forest(f"{title}: {words}", panel, SPEEDUP_AXIS)
    return drawn


def _titled_forest(title: str, points: pd.DataFrame, axis: str) -> dict[str, str]:
    """SVG by its title; empty without points."""
    if points.empty:
        return {}
    rows = list(points["label"].unique())
    cut = f"the first {MOST_ROWS} of {len(rows)} groups" if len(rows) > MOST_ROWS else ""
    subtitle = "; ".join(filter(None, [LEGEND if axis == SPEEDUP_AXIS else "", cut]))
    return {title: _svg(_forest(points, rows[:MOST_ROWS], axis), title, subtitle)}


def files(run: Run) -> dict[str, bytes]:
    """Each chart, and `answer`, by the name of its file: as SVG that suits light and dark, and as PNG on white."""
    drawn: dict[str, bytes] = {}
    for title, svg in ({"answer": picture(run)} | charts(run)).items():
        if svg:
            name = re.sub(r"\W+", "-", title.lower())
            drawn[f"{name}.svg"] = svg.replace(">", f">{_BACKGROUND}", 1).encode()
            drawn[f"{name}.png"] = vl_convert.svg_to_png(svg.replace(">", f">{_WHITE}", 1), scale=2)
    return drawn


def picture(run: Run) -> str:
    """What no_grad and inference_mode give back in time, and what they leave of the peak memory, beside each other.

    Of forward passes with pages kept, where the run has them. Empty without figures.
    """
    frame = run.frame
    for column, preferred in (("scenario", FORWARD), ("allocator", PAGES_KEPT)):
        if frame[column].eq(preferred).any():
            frame = frame[frame[column] == preferred]
    frame = frame[frame["mode"].isin([TRACKED, *MODES[:2]])].assign(label=labels(frame))
    speedups, peaks = _speedups(frame), _peaks(memory(frame))
    if speedups.empty:
        return ""
    rows = list(speedups["label"].unique())[:MOST_ROWS]
    plots = [_forest(speedups, rows, SPEEDUP_AXIS).properties(width=370)]
    if peaks["label"].isin(rows).any():
        plots += [_forest(peaks, rows, PEAK_AXIS, names=False).properties(width=240)]
    _, machine, torch, date = run.identity(frame["device"].iloc[0]).values()
    common = [frame[name].iloc[0] for name in ("scenario", "allocator") if len(frame[name].unique()) == 1]
    where = ", ".join(filter(None, [*common, machine, torch and f"torch {torch}", date]))
    return _svg(alt.hconcat(*plots, spacing=24), "What switching gradient tracking off gives back", f"{where}; {LEGEND}")


def looks_of(modes: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Each mode's colour and shape, a pair that no other has; no two share a colour as long as there are enough."""
    present, number = dict.fromkeys(modes), len(COLOURS)
    order = enumerate(dict.fromkeys([*MODES, *present]))
    return {mode: (COLOURS[n % number], SHAPES[(n + n // number) % number]) for n, mode in order if mode in present}


def _panels(frame: pd.DataFrame, fields: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """`frame` by kind of scenario (forward, operators, the others together) and `fields`, each part with words that tell it from others."""
    others = frame.loc[~frame["scenario"].isin([FORWARD, OPERATORS]), "scenario"].unique()
    together = others[0] if len(others) == 1 else "other scenarios"
    kinds = frame.assign(kind=frame["scenario"].where(frame["scenario"].isin([FORWARD, OPERATORS]), together))
    telling = ["kind", *(name for name in fields if len(frame[name].unique()) > 1)]
    for values, panel in kinds.groupby(telling, sort=False):
        yield ", ".join(map(str, values)), panel


def _speedups(panel: pd.DataFrame) -> pd.DataFrame:
    """A mark per speedup; not `clear` where it is unclear or its group is untrusted."""
    known = panel[panel["speedup"].notna() & panel["mode"].ne(TRACKED)]
    figures = {"value": known["speedup"], "low": known["speedup_low"], "high": known["speedup_high"]}
    return known[["label", "mode"]].assign(**figures, clear=known["verdict"].ne("unclear") & known["trusted"].astype(bool))


def _peaks(panel: pd.DataFrame) -> pd.DataFrame:
    """A mark per peak, as a share of tracked's; none where tracked's is unknown or 0."""
    both = against(panel, on=JOB)
    peak, base = (both[name].to_numpy(dtype=float, na_value=np.nan) for name in ("peak_tensor_bytes", "peak_tensor_bytes_base"))
    share = peak / np.where(base > 0, base, np.nan)
    points = both[["label", "mode"]].assign(value=share, low=share, high=share, clear=True)
    return points[points["mode"].ne(TRACKED) & points["value"].notna()]


def _saved_by_module(results: Sequence[Result]) -> dict[str, str]:
    """Of the tracked case that saves most for backward, among those of several modules where there are such."""
    tracked = [one for one in results if one.case.mode == TRACKED and one.memory.saved_by_module and one.memory.saved_bytes]
    if not tracked:
        return {}
    chosen = max(tracked, key=lambda one: (len(one.memory.saved_by_module) > 1, one.memory.saved_bytes or 0))
    total, modules = chosen.memory.saved_bytes or 0, chosen.memory.saved_by_module
    rest = sum(module.bytes for module in modules[MOST_MODULES:])
    sizes = [(module.name, module.bytes) for module in modules[:MOST_MODULES]] + [("all others", rest)] * (rest > 0)
    bars = pd.DataFrame(sizes, columns=["label", "bytes"])
    bars = bars.assign(text=bars["bytes"].map(bytes_text), value=bars["bytes"] / total)
    scale = alt.Scale(domain=[0, float(bars["value"].max()) * 1.25], nice=False)
    base = alt.Chart(bars).encode(
        x=alt.X("value:Q", title=f"share of {bytes_text(total)}", scale=scale, axis=alt.Axis(format="%", tickCount=4)),
        y=_rows(list(bars["label"])),
    )
    texts = base.mark_text(align="left", dx=4, color="currentColor").encode(text="text:N")
    title = f"Saved for backward, by module: {chosen.case.model} {chosen.case.size}"
    plot = alt.layer(base.mark_bar(color=COLOURS[-1], height=10), texts).properties(height=18 * len(bars))
    return {title: _svg(plot, title)}


def _forest(points: pd.DataFrame, rows: Sequence[str], title: str, *, names: bool = True) -> Plot:
    """Of the `rows` a mark per mode: `value` with `low` to `high`, pale unless `clear`.

    Speedups have a log axis with the zone around 1, others begin at 0 %. An interval that is not clear may end where the axis does.
    """
    points = points[points["label"].isin(rows)]
    points = points.assign(rank=points.groupby("label", sort=False).cumcount(), opacity=0.4 + 0.6 * points["clear"])
    most = int(points["rank"].max()) + 1
    if title == SPEEDUP_AXIS:
        scale = alt.Scale(type="log", domain=_ratio_domain(points), nice=False, clamp=True)
        axis = alt.Axis(format=".4~g", tickCount=6)
    else:
        scale = alt.Scale(domain=[0, max(1.05, points["value"].max() * 1.05)], nice=False)
        axis = alt.Axis(format="%", tickCount=5)
    looks = looks_of(points["mode"])
    modes, (colours, shapes) = list(looks), zip(*looks.values(), strict=True)
    colour, shape = alt.Scale(domain=modes, range=list(colours)), alt.Scale(domain=modes, range=list(shapes))
    is_line = len(modes) <= 3 and sum(map(len, modes)) <= _LEGEND_LETTERS
    legend = alt.Legend(columns=3 if is_line else 1, columnPadding=24)
    base = alt.Chart(points).encode(
        y=_rows(rows, names=names),
        yOffset=alt.YOffset("rank:Q", scale=alt.Scale(domain=[-0.8, most - 0.2])),
        color=alt.Color("mode:N", scale=colour, legend=legend),
        opacity=alt.Opacity("opacity:Q", scale=None, legend=None),
    )
    bars = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", scale=scale, title=title, axis=axis), x2="high:Q")
    dots = base.mark_point(size=34, strokeWidth=1.4).encode(
        x=alt.X("value:Q", scale=scale),
        fill=alt.Fill("mode:N", scale=colour, legend=legend),
        shape=alt.Shape("mode:N", scale=shape, legend=legend),
    )
    one = alt.Chart(pd.DataFrame([{}])).encode(x=alt.XDatum(1, type="quantitative", scale=scale))
    zone = one.mark_rect(color="currentColor", opacity=0.12).encode(x=alt.XDatum(1 - MARGIN), x2=alt.X2Datum(1 + MARGIN))
    around = [zone] if title == SPEEDUP_AXIS else []
    height = len(rows) * max(18, 9 * most + 4)
    return alt.layer(*around, one.mark_rule(color="currentColor", opacity=0.5), bars, dots).properties(height=height)


def _rows(rows: Sequence[str], *, names: bool = True) -> alt.Y:
    axis = alt.Axis(grid=True, tickBand="extent", ticks=False, labels=names, domain=names)
    return alt.Y("label:N", title=None, sort=None, scale=alt.Scale(domain=list(rows)), axis=axis)


def _ratio_domain(points: pd.DataFrame) -> list[float]:
    """From the lowest to the highest end of a clear interval, or estimate, with the zone around 1 and room for their marks."""
    clear = points[points["clear"]]
    ends = [1 - 2 * MARGIN, 1 + 2 * MARGIN, *points["value"], *clear["low"], *clear["high"]]
    room = (max(ends) / min(ends)) ** 0.03
    return [min(ends) / room, max(ends) * room]


def _svg(plot: Plot, title: str, subtitle: str = "") -> str:
    spec = plot.to_dict(validate=False) | {"config": _CONFIG, "background": "transparent", "padding": _PADDING}
    if "hconcat" not in spec:
        spec |= {"width": WIDTH, "autosize": {"type": "fit-x", "contains": "padding"}}
    spec["title"] = {"text": textwrap.wrap(title, 60), "subtitle": textwrap.wrap(subtitle, 110)}
    return vl_convert.vegalite_to_svg(spec)
