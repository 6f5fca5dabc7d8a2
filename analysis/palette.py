"""What colours and shapes mean in every chart: a mode has its own, in all runs. Imports no altair."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from analysis.panels import one_line

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


@dataclass(frozen=True, slots=True)
class Series:
    """What a legend tells apart: names, each with a colour and a shape."""

    names: Sequence[str]
    colours: Sequence[str]
    shapes: Sequence[str]


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
