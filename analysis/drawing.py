"""How charts look: a mode's colour and shape, light and dark, the marks of each kind of chart. Points in, altair charts out."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import altair as alt

from analysis.palette import GREY, Series
from benchmarks.statistics import MARGIN

Point = dict[str, Any]
"""One row of a chart's data; its keys are ours, so that no name of a run is ever read as a path into it."""

_BYTES_LABEL = (
    "datum.value < 1024 ? datum.value + ' B' : datum.value < 1048576 ? datum.value / 1024 + ' KiB' : "
    "datum.value < 1073741824 ? datum.value / 1048576 + ' MiB' : datum.value / 1073741824 + ' GiB'"
)
_ZONE = f"shaded: within ±{100 * MARGIN:g} %"
_LINE_WIDTH = 54
"""Characters that a phone has room for."""
_BYTE_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1))

_CONFIG: Mapping[str, Any] = MappingProxyType({
    "font": "sans-serif",
    "view": {"stroke": None},
    "mark": {"aria": False},
    "axis": {
        "labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": "normal", "labelLimit": 160,
        "domainColor": "currentColor", "domainOpacity": 0.4, "tickColor": "currentColor", "tickOpacity": 0.4,
        "gridColor": "currentColor", "gridOpacity": 0.12, "labelOverlap": "greedy", "labelSeparation": 5,
    },
    "legend": {
        "orient": "top", "title": None, "columns": 2, "labelColor": "currentColor", "labelLimit": 140, "symbolSize": 60,
        "symbolStrokeWidth": 2, "offset": 6, "rowPadding": 0,
    },
    "title": {
        "color": "currentColor", "subtitleColor": "currentColor", "anchor": "start", "frame": "bounds",
        "fontSize": 11, "fontWeight": "normal", "subtitleFontSize": 11,
    },
})  # fmt: skip
"""Text and lines take the colour of the page around them, and so suit light and dark. A chart is read out by its text, not dot by dot."""


@dataclass(frozen=True, slots=True)
class Chart:
    """`name` is the stem of its files and begins with the kind of chart; `text` says what it shows, with the figures that matter, to who cannot see it."""

    name: str
    title: str
    text: str
    spec: alt.LayerChart


def forest(points: Sequence[Point], series: Series, axis_title: str, domain: Sequence[float]) -> alt.LayerChart:
    """A row per `group`, in it a row per `series`: `value` with its interval `low` to `high`, hollow unless `trusted`.

    What is not trusted does not widen the `domain`: its interval ends where the axis does.
    """
    x = alt.Scale(type="log", domain=list(domain), nice=False, clamp=True)
    rows, data = _rows(points, series), _data([one | {"faint": 1 if one["trusted"] else 0.4} for one in points])
    bars = alt.Chart(data).mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", scale=x, title=axis_title), x2=alt.X2("high:Q"), **rows, **_by(series, "color"),
        strokeOpacity=alt.StrokeOpacity("faint:Q", scale=None, legend=None),
    )  # fmt: skip
    dots = alt.Chart(data).mark_point(size=30, strokeWidth=1.3, opacity=1).encode(
        x=alt.X("value:Q", scale=x), **rows, **_by(series, "color", "fill", "shape"),
        fillOpacity=alt.FillOpacity("trusted:Q", scale=None, legend=None), tooltip=_tooltip("group", "series", "reads"),
    )  # fmt: skip
    hollow = "" if all(one["trusted"] for one in points) else "; hollow and faint: untrusted"
    return _layered(*_around_one(x), bars, dots, height=_height(points, series), notes=_ZONE + hollow)


def strips(points: Sequence[Point], combined: Sequence[Point], series: Series, axis_title: str) -> alt.LayerChart:
    """As `forest`, but a dot per point without interval, several in a row, and a thin line at each of `combined`."""
    x = alt.Scale(type="log", domain=ratio_domain([one["value"] for one in [*points, *combined]]), nice=False)
    rows = _rows(points, series)
    ticks = alt.Chart(_data(combined)).mark_tick(thickness=2, color="currentColor", opacity=0.8).encode(
        x=alt.X("value:Q", scale=x), **rows, tooltip=_tooltip("group", "series", "reads")
    )  # fmt: skip
    dots = alt.Chart(_data(points)).mark_point(size=26, opacity=1, strokeWidth=1.2).encode(
        x=alt.X("value:Q", scale=x, title=axis_title), **rows, **_by(series, "color", "fill", "shape"),
        fillOpacity=alt.value(0.3), tooltip=_tooltip("group", "series", "reads"),
    )  # fmt: skip
    notes = _ZONE + ("; upright line: tracking alone" if combined else "")
    return _layered(*_around_one(x), dots, ticks, height=_height(points, series), notes=notes)


def lines(
    points: Sequence[Point], series: Series, domains: tuple[list[float], list[float]], titles: tuple[str, str]
) -> alt.LayerChart:
    """A line per `series` through `x` and `y` (bytes, both log), each thinner than the one before, so that equal ones show; `label` above."""
    axes = _byte_axes(domains, titles)
    rank = {name: 1 - number / len(series.names) for number, name in enumerate(series.names)}
    data = _data([one | {"width": 7 * rank[one["series"]], "area": 180 * rank[one["series"]]} for one in points])
    curves = alt.Chart(data).mark_line(opacity=1).encode(
        **axes, strokeWidth=alt.StrokeWidth("width:Q", scale=None, legend=None), **_by(series, "color")
    )  # fmt: skip
    dots = alt.Chart(data).mark_point(filled=True, opacity=1).encode(
        **axes, size=alt.Size("area:Q", scale=None, legend=None), **_by(series, "color", "shape"),
        tooltip=_tooltip("label", "series", "reads"),
    )  # fmt: skip
    names = alt.Chart(_data([one for one in points if one["series"] == "tracked"])).mark_text(
        dy=-14, color="currentColor", fontSize=10
    ).encode(**axes, text="label:N")  # fmt: skip
    return _layered(curves, dots, names, height=200, notes="equal lines lie on each other, the thinner on top")


def bars(points: Sequence[Point], axis_title: str) -> alt.LayerChart:
    """A bar of `bytes` per `group`, with its `share` beside it."""
    unit, factor = next((name, size) for name, size in _BYTE_UNITS if size == 1 or max(one["bytes"] for one in points) >= size)
    data = _data([one | {"value": one["bytes"] / factor} for one in points])
    end = max(one["bytes"] for one in points) / factor * 1.3
    x = alt.X(
        "value:Q", title=f"{axis_title}, {unit}", scale=alt.Scale(domain=[0, end], nice=False), axis=alt.Axis(tickCount=4)
    )
    y = alt.Y("group:N", sort=None, title=None, scale=alt.Scale(domain=_groups(points)))
    base = alt.Chart(data).encode(x=x, y=y, tooltip=_tooltip("group", "reads"))
    texts = base.mark_text(align="left", dx=4, color="currentColor", fontSize=10).encode(text="share:N")
    return _layered(base.mark_bar(color=GREY), texts, height=18 * len(points))


def diagonal(points: Sequence[Point], series: Series, titles: tuple[str, str]) -> alt.LayerChart:
    """`y` over `x` (bytes, both log) with the line where they are equal."""
    domain = byte_domain([one[axis] for one in points for axis in "xy"])
    axes = _byte_axes((domain, domain), titles)
    ends = _data([{"x": end, "y": end} for end in domain])
    equal = alt.Chart(ends).mark_line(color="currentColor", opacity=0.5, strokeWidth=1).encode(**axes)
    dots = alt.Chart(_data(points)).mark_point(size=60, strokeWidth=1.5, opacity=1).encode(
        **axes, **_by(series, "color", "shape"), tooltip=_tooltip("label", "reads")
    )  # fmt: skip
    return _layered(equal, dots, height=280, notes="line: expected and measured are equal")


def ratio_domain(values: Iterable[float]) -> list[float]:
    """From the lowest to the highest of `values`, the zone around 1 included, with room for their marks."""
    ends = [1 - 2 * MARGIN, 1 + 2 * MARGIN, *values]
    margin = (max(ends) / min(ends)) ** 0.03
    return [min(ends) / margin, max(ends) * margin]


def byte_domain(values: Iterable[float]) -> list[float]:
    """The powers of two around `values`, with room for their marks."""
    found = list(values)
    return [2.0 ** math.floor(math.log2(min(found)) - 0.5), 2.0 ** math.ceil(math.log2(max(found)) + 0.5)]


def _layered(*layers: alt.Chart, height: int, notes: str = "") -> alt.LayerChart:
    """As wide as the page lets it be, on the page's background, with `notes` above."""
    return alt.LayerChart(
        layer=layers, width="container", height=height, background="transparent", config=dict(_CONFIG),
        title=alt.TitleParams(textwrap.wrap(notes, _LINE_WIDTH)) if notes else alt.Undefined,
        usermeta={"embedOptions": {"renderer": "svg", "actions": False}},
    )  # fmt: skip


def _by(series: Series, *channels: str) -> dict[str, Any]:
    """The encoding of `channels` (`color`, `fill`, `shape`) by the points' `series`; a legend where they tell any apart."""
    shown = alt.Legend() if len(set(zip(series.colours, series.shapes, strict=True))) > 1 else None
    kinds = {"color": (alt.Color, series.colours), "fill": (alt.Fill, series.colours), "shape": (alt.Shape, series.shapes)}
    return {
        channel: kind("series:N", scale=alt.Scale(domain=series.names, range=values), legend=shown)
        for channel, (kind, values) in kinds.items() if channel in channels
    }  # fmt: skip


def _data(points: Sequence[Point]) -> alt.InlineData:
    return alt.InlineData(values=list(points))


def _tooltip(*fields: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{field}:N") for field in fields]


def _byte_axes(domains: tuple[list[float], list[float]], titles: tuple[str, str]) -> dict[str, Any]:
    """The encoding of `x` and `y` in bytes, both log, with a power of two at each tick."""
    axis = alt.Axis(labelExpr=_BYTES_LABEL, tickCount=5)
    scales = [alt.Scale(type="log", base=2, domain=domain) for domain in domains]
    return {
        "x": alt.X("x:Q", scale=scales[0], title=titles[0], axis=axis),
        "y": alt.Y("y:Q", scale=scales[1], title=titles[1], axis=axis),
    }


def _groups(points: Iterable[Point]) -> list[str]:
    return list(dict.fromkeys(one["group"] for one in points))


def _rows(points: Sequence[Point], series: Series) -> dict[str, Any]:
    y = alt.Y(
        "group:N",
        title=None,
        scale=alt.Scale(domain=_groups(points), paddingInner=0.25),
        axis=alt.Axis(grid=True, tickBand="extent", ticks=False),
    )
    return {"y": y, "yOffset": alt.YOffset("series:N", scale=alt.Scale(domain=series.names))}


def _height(points: Sequence[Point], series: Series) -> int:
    """Pixels, with room for a line of text per group. A number, for Vega-Lite warns of steps where the width is the container's."""
    return len(_groups(points)) * max(18, 11 * len(series.names)) + 12


def _around_one(x: alt.Scale) -> tuple[alt.Chart, alt.Chart]:
    """The zone of the verdict `same`, and 1."""
    nothing = _data([{}])
    zone = alt.Chart(nothing).mark_rect(color="currentColor", opacity=0.1).encode(
        x=alt.XDatum(1 - MARGIN, type="quantitative", scale=x), x2=alt.X2Datum(1 + MARGIN)
    )  # fmt: skip
    rule = alt.Chart(nothing).mark_rule(color="currentColor", opacity=0.6).encode(x=alt.XDatum(1, type="quantitative", scale=x))
    return zone, rule
