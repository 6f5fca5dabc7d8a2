"""Charts hold the run's figures, tell modes apart by colour and shape, and stay whole whatever a run calls its models and modes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from builders import group, result, run, saved

from analysis.charts import COLOURS, MOST_ROWS, charts, files, looks_of, picture
from analysis.read import read
from benchmarks.record import Interval, Result, SavedBy

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = ["<script>alert(1)</script>", "a.b[0]", 'it\'s "q" \\ | &amp;', "two\nlines\x00\x1b[31m", "", "datum['x']", "日本"]
UNCLEAR = Interval(1.02, 0.98, 1.06)
TWO: dict[str, float | Interval | None] = {"no_grad": 1.1, "inference_mode": 1.5}


@dataclass
class Mark:
    """A symbol inside the axes."""

    x: float
    colour: str
    is_pale: bool


def texts(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in ET.fromstring(svg).iter(f"{SVG}text")]


def marks(svg: str) -> list[Mark]:
    """In the order of the rows that they were drawn from."""
    groups = [group for group in ET.fromstring(svg).iter(f"{SVG}g") if "mark-symbol role-mark" in group.get("class", "")]
    return [
        Mark(
            x=float(path.attrib["transform"].removeprefix("translate(").split(",")[0]),
            colour=path.attrib["stroke"],
            is_pale=float(path.get("opacity", 1)) < 1,
        )
        for group in groups
        for path in group.iter(f"{SVG}path")
    ]


def chart(beginning: str, *results: Result) -> str:
    """The only one of these results whose title begins so."""
    (svg,) = (svg for title, svg in charts(run(*results)).items() if title.startswith(beginning))
    return svg


def test_a_forest_has_a_row_per_group_and_a_mark_per_mode_without_tracked() -> None:
    svg = chart("Speedup", *group(TWO), *group(TWO, model="lstm", size="small"))
    assert {"mlp tiny", "lstm small", "no_grad", "inference_mode"} <= set(texts(svg))
    assert "tracked" not in texts(svg)
    first, second, *others = marks(svg)
    assert first.x < second.x
    assert first.colour != second.colour
    assert [mark.colour for mark in others] == [first.colour, second.colour]


def test_what_is_unclear_or_untrusted_is_pale_and_squeezes_no_other_however_wide() -> None:
    clear = [*group({"no_grad": 1.05}), *group({"no_grad": 1.5}, model="lstm")]
    pale = [
        group({"no_grad": UNCLEAR}, model="a"),
        group({"no_grad": 1.25}, model="b", trusted=False),
        group({"no_grad": Interval(1.1, 0.01, 100.0)}, model="c"),
    ]
    drawn = marks(chart("Speedup", *clear, *(one for results in pale for one in results)))
    assert [mark.is_pale for mark in drawn] == [False, False, True, True, True]
    assert drawn[1].x - drawn[0].x > 200


def test_each_allocator_operators_and_the_other_scenarios_have_their_own_speedups() -> None:
    parts: list[Any] = [
        {},
        {"allocator": "as_shipped"},
        *({"scenario": name} for name in ("operators", "evaluation", "generation")),
    ]
    results = [one for part in parts for one in group(None, **part)]
    context = group(scenario="switches", model="context")
    step = group({"forward_alone": 3.0}, scenario="training_step")
    drawn = charts(run(*results, *context, *step))
    assert list(drawn) == [
        "Speedup over tracked: forward, pages_kept",
        "Speedup over tracked: forward, as_shipped",
        "Speedup over tracked: operators, pages_kept",
        "Speedup over tracked: other scenarios, pages_kept",
        "Peak memory that is left: forward",
        "Peak memory that is left: other scenarios",
    ]
    others = texts(drawn["Speedup over tracked: other scenarios, pages_kept"])
    assert not {"switches context tiny", "training_step mlp tiny"} & set(others)
    assert {"evaluation mlp tiny", "generation mlp tiny"} <= set(texts(drawn["Peak memory that is left: other scenarios"]))


def test_peaks_are_shares_of_that_of_tracked_once_for_both_allocators() -> None:
    results = [
        result(mode, allocator=allocator, memory={"peak_tensor_bytes": peak})
        for allocator in ("pages_kept", "as_shipped")
        for mode, peak in (("tracked", 1000), ("no_grad", 250), ("detach", 500))
    ]
    quarter, half = marks(chart("Peak", *results))
    assert half.x == pytest.approx(2 * quarter.x, abs=2)


@pytest.mark.parametrize("peak", [None, 0])
def test_no_share_is_drawn_of_a_peak_that_is_unknown_or_zero(peak: int | None) -> None:
    drawn = charts(run(result("tracked", memory={"peak_tensor_bytes": peak}), result()))
    assert [title.split()[0] for title in drawn] == ["Speedup"]


def test_saved_bytes_are_those_of_the_case_that_saves_most_and_small_modules_are_added_up() -> None:
    modules = [SavedBy(f"layers.{number}", 1024) for number in range(20)]
    large = result("tracked", model="large", memory={"saved_bytes": 20 * 1024, "saved_by_module": modules})
    whole = result("tracked", model="lstm", memory={"saved_bytes": 2**30, "saved_by_module": [SavedBy("lstm", 2**30)]})
    shown = texts(chart("Saved for backward, by module: large tiny", large, whole))
    assert {"layers.0", "layers.11", "all others", "1.00 KiB", "8.00 KiB"} <= set(shown)
    assert "layers.12" not in shown


def test_modes_differ_in_colour_as_long_as_there_are_enough_and_always_in_colour_and_shape() -> None:
    eight = looks_of(["item", "float", "detach", "no_grad", "frozen", "mine", "yours", "inference_mode"])
    assert len({colour for colour, _ in eight.values()}) == len(eight) == len(COLOURS)
    assert eight["no_grad"] == looks_of(["tracked", "no_grad"])["no_grad"]
    assert len(set(looks_of(map(str, range(50))).values())) == 50


def test_a_chart_of_too_many_groups_shows_the_first_and_says_so() -> None:
    svg = chart("Speedup", *(one for number in range(MOST_ROWS + 5) for one in group(model=f"model{number}")))
    assert len(marks(svg)) == MOST_ROWS
    assert any(text.endswith(f"the first {MOST_ROWS} of {MOST_ROWS + 5} groups") for text in texts(svg))


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    results = [one for name in HOSTILE for one in group({"no_grad": 1.2, f"{name}m": 1.3}, model=name, size=name)]
    named = read(saved(tmp_path, run(*results)))
    for svg in [picture(named), *charts(named).values()]:
        assert "<script" not in svg
        assert "日本 日本" in texts(svg)


def test_the_picture_answers_for_two_modes_and_names_machine_build_and_day() -> None:
    drawn = picture(run(*group({**TWO, "detach": 0.99})))
    shown = texts(drawn)
    assert {"no_grad", "inference_mode", "mlp tiny"} <= set(shown)
    assert "detach" not in shown
    assert any("Some CPU, 2 cores, torch 2.13.0, 2026-11-22" in text for text in shown)
    assert len(marks(drawn)) == 4  # a speedup and a peak of each


def test_the_picture_takes_what_there_is_forward_passes_with_pages_kept_first_and_without_speedups_there_is_none() -> None:
    others = [*group(allocator="as_shipped", model="other"), *group(scenario="evaluation", model="other")]
    assert "other tiny" not in texts(picture(run(*others, *group())))
    assert "evaluation other tiny" in texts(picture(run(*others[2:], *group(scenario="generation"))))
    assert len(marks(picture(run(*group(memory={"peak_tensor_bytes": None}))))) == 1
    assert picture(run(result("tracked"))) == ""


def test_pictures_are_svg_for_light_and_dark_and_png() -> None:
    found = files(run())
    names = ("answer", "speedup-over-tracked-forward", "peak-memory-that-is-left-forward")
    assert list(found) == [f"{name}.{ending}" for name in names for ending in ("svg", "png")]
    for name in names:
        vector = found[f"{name}.svg"].decode()
        assert "prefers-color-scheme:dark" in vector
        assert "mlp tiny" in texts(vector)
        assert found[f"{name}.png"].startswith(b"\x89PNG")
