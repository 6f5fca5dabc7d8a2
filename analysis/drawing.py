"""How charts look: a mode's colour and shape, light and dark, the marks of each kind of chart. Points in, altair charts out."""

from __future__ import annotations

import itertools
import math
import textwrap
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import altair as alt

from analysis.panels import one_line

Point = dict[str, Any]
"""One row of a chart's data; its keys are ours, so that no name of a run is ever read as a path into it."""

GREY = "#808080"
COLOURS = BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
"""Told apart by the colour-blind and on white and black: Okabe and Ito, "Color Universal Design" (2008), without black and yellow."""

_LOOKS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "tracked": (GREY, "cross"),
    "no_grad": (BLUE, "circle"),
    "inference_mode": (VERMILION, "diamond"),
    "detach": (GREEN, "square"),
    "set_grad_enabled": (PURPLE, "triangle-up"),
    "frozen": (ORANGE, "triangle-down"),
    "detached_parameters": (SKY, "triangle-right"),
    "no_grad_decorator": (BLUE, "triangle-left"),
})  # fmt: skip
SHAPES = tuple(shape for _, shape in _LOOKS.values())
_SPARE = [look for look in itertools.product(COLOURS, SHAPES) if look not in _LOOKS.values()]
MODE_COLOURS: Mapping[str, str] = MappingProxyType({mode: colour for mode, (colour, _) in _LOOKS.items()})

_BYTES_LABEL = (
    "datum.value < 1024 ? datum.value + ' B' : datum.value < 1048576 ? datum.value / 1024 + ' KiB' : "
    "datum.value < 1073741824 ? datum.value / 1048576 + ' MiB' : datum.value / 1073741824 + ' GiB'"
)
_ZONE = "shaded: within ±1 %"
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
    """`name` is the stem of its files; `text` says what it shows, with the figures that matter, to who cannot see it."""

    name: str
    title: str
    text: str
    spec: alt.LayerChart


@dataclass(frozen=True, slots=True)
class Series:
    """What a legend tells apart: names, each with a colour and a shape."""

    names: Sequence[str]
    colours: Sequence[str]
    shapes: Sequence[str]

    def encoded(self, *channels: str) -> dict[str, Any]:
        """The encoding of `channels` (`color`, `fill`, `shape`) by the points' `series`."""
        shown = alt.Legend() if len(set(zip(self.colours, self.shapes, strict=True))) > 1 else None
        ranges = {"color": self.colours, "fill": self.colours, "shape": self.shapes}
        kinds = {"color": alt.Color, "fill": alt.Fill, "shape": alt.Shape}
        return {
            channel: kinds[channel]("series:N", scale=alt.Scale(domain=self.names, range=ranges[channel]), legend=shown)
            for channel in channels
        }


def look_of(mode: str) -> tuple[str, str]:
    """A mode's colour and shape, a pair that no built-in mode shares; those of other modes follow from their names alone."""
    return _LOOKS.get(mode) or _SPARE[zlib.crc32(mode.encode(errors="replace")) % len(_SPARE)]


def colour_of(mode: str) -> str:
    return look_of(mode)[0]


def modes(names: Iterable[str], first: str = "tracked") -> Series:
    """The built-in modes in their order, then the others in that of `names`. What is called `first` comes first and looks like tracked."""
    found = dict.fromkeys(names)
    ordered = [*(mode for mode in _LOOKS if mode in found), *(mode for mode in found if mode not in _LOOKS)]
    looks = {one_line(mode): look_of(mode) for mode in ordered}
    if first != "tracked":
        looks = {first: _LOOKS["tracked"], **looks}
    return Series(list(looks), [colour for colour, _ in looks.values()], [shape for _, shape in looks.values()])


def same_colour(names: Iterable[str]) -> Series:
    """Names told apart by their shapes only, and not at all where there are more of them than shapes; the colour is tracked's."""
    found = list(dict.fromkeys(names))
    shapes = SHAPES[1:] + SHAPES[:1]
    return Series(found, [GREY] * len(found), shapes[: len(found)] if len(found) <= len(shapes) else ["circle"] * len(found))


def runs(names: Sequence[str]) -> Series:
    """Runs by their colours and shapes in turn, numbered where two have the same name."""
    looks = itertools.islice(
        itertools.cycle(zip((ORANGE, BLUE, PURPLE, GREEN, SKY, VERMILION), SHAPES[1:], strict=False)), len(names)
    )
    shown = [one_line(name, 40) for name in names]
    different = [f"{name} ({number})" if shown.count(name) > 1 else name for number, name in enumerate(shown, 1)]
    colours, shapes = zip(*looks, strict=True)
    return Series(different, colours, shapes)


def forest(points: Sequence[Point], series: Series, axis_title: str, domain: Sequence[float]) -> alt.LayerChart:
    """A row per `group`, in it a row per `series`: `value` with its interval `low` to `high`, hollow unless `trusted`.

    What is not trusted does not widen the `domain`: its interval ends where the axis does.
    """
    x = alt.Scale(type="log", domain=list(domain), nice=False, clamp=True)
    rows, data = _rows(points, series), _data([one | {"faint": 1 if one["trusted"] else 0.4} for one in points])
    bars = alt.Chart(data).mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", scale=x, title=axis_title), x2=alt.X2("high:Q"), **rows, **series.encoded("color"),
        strokeOpacity=alt.StrokeOpacity("faint:Q", scale=None, legend=None),
    )  # fmt: skip
    dots = alt.Chart(data).mark_point(size=30, strokeWidth=1.3, opacity=1).encode(
        x=alt.X("value:Q", scale=x), **rows, **series.encoded("color", "fill", "shape"),
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
        x=alt.X("value:Q", scale=x, title=axis_title), **rows, **series.encoded("color", "fill", "shape"),
        fillOpacity=alt.value(0.3), tooltip=_tooltip("group", "series", "reads"),
    )  # fmt: skip
    notes = _ZONE + ("; upright line: tracking alone" if combined else "")
    return _layered(*_around_one(x), dots, ticks, height=_height(points, series), notes=notes)


def lines(
    points: Sequence[Point], series: Series, domains: tuple[list[float], list[float]], titles: tuple[str, str]
) -> alt.LayerChart:
    """A line per `series` through `x` and `y` (bytes, both log), each thinner than the one before, so that equal ones show; `label` above."""
    x, y = (
        axis(f"{axis_title[0]}:Q", scale=alt.Scale(type="log", base=2, domain=domain), title=axis_title[1:], axis=_bytes_axis())
        for axis, domain, axis_title in zip((alt.X, alt.Y), domains, (f"x{titles[0]}", f"y{titles[1]}"), strict=True)
    )
    rank = {name: 1 - number / len(series.names) for number, name in enumerate(series.names)}
    data = _data([one | {"width": 7 * rank[one["series"]], "area": 180 * rank[one["series"]]} for one in points])
    curves = alt.Chart(data).mark_line(opacity=0.8).encode(
        x=x, y=y, strokeWidth=alt.StrokeWidth("width:Q", scale=None, legend=None), **series.encoded("color")
    )  # fmt: skip
    dots = alt.Chart(data).mark_point(filled=True, opacity=1).encode(
        x=x, y=y, size=alt.Size("area:Q", scale=None, legend=None), **series.encoded("color", "shape"),
        tooltip=_tooltip("label", "series", "reads"),
    )  # fmt: skip
    names = alt.Chart(_data([one for one in points if one["series"] == "tracked"])).mark_text(
        dy=-14, color="currentColor", fontSize=10
    ).encode(x=x, y=y, text="label:N")  # fmt: skip
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
    scale = alt.Scale(type="log", base=2, domain=domain)
    x = alt.X("x:Q", scale=scale, title=titles[0], axis=_bytes_axis())
    y = alt.Y("y:Q", scale=scale, title=titles[1], axis=_bytes_axis())
    equal = alt.Chart(_data([{"x": end, "y": end} for end in domain])).mark_line(
        color="currentColor", opacity=0.5, strokeWidth=1
    )
    dots = alt.Chart(_data(points)).mark_point(size=60, strokeWidth=1.5, opacity=1).encode(
        x=x, y=y, **series.encoded("color", "shape"), tooltip=_tooltip("label", "reads")
    )  # fmt: skip
    return _layered(equal.encode(x=x, y=y), dots, height=280, notes="line: expected and measured are equal")


def ratio_domain(values: Iterable[float]) -> list[float]:
    """From the lowest to the highest of `values`, the zone around 1 included, with room for their marks."""
    ends = [0.98, 1.02, *values]
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


def _data(points: Sequence[Point]) -> alt.InlineData:
    return alt.InlineData(values=list(points))


def _tooltip(*fields: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{field}:N") for field in fields]


def _bytes_axis() -> alt.Axis:
    return alt.Axis(labelExpr=_BYTES_LABEL, tickCount=5)


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
        x=alt.XDatum(0.99, type="quantitative", scale=x), x2=alt.X2Datum(1.01)
    )  # fmt: skip
    rule = alt.Chart(nothing).mark_rule(color="currentColor", opacity=0.6).encode(x=alt.XDatum(1, type="quantitative", scale=x))
    return zone, rule
