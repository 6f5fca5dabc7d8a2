"""Charts hold the run's figures, tell modes apart by colour and shape, and stay whole whatever a run calls its models and modes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import builders
import pytest

from analysis.charts import COLOURS, MOST_ROWS, charts, files, looks_of, picture
from analysis.read import Run, read
from benchmarks.record import Interval, SavedBy

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = ["<script>alert(1)</script>", "a.b[0]", 'it\'s "q" \\ | &amp;', "two\nlines\x00\x1b[31m", "", "datum['x']", "日本"]
UNCLEAR = Interval(1.02, 0.98, 1.06)


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


def chart(run: Run, beginning: str) -> str:
    """The only one whose title begins so."""
    (svg,) = (svg for title, svg in charts(run).items() if title.startswith(beginning))
    return svg


def test_a_forest_has_a_row_per_group_and_a_mark_per_mode_without_tracked() -> None:
    speedups: dict[str, float | Interval] = {"no_grad": 1.1, "inference_mode": 1.5}
    run = builders.run(*builders.group(speedups), *builders.group(speedups, model="lstm", size="small"))
    svg = chart(run, "Speedup")
    assert {"mlp tiny", "lstm small", "no_grad", "inference_mode"} <= set(texts(svg))
    assert "tracked" not in texts(svg)
    first, second, *others = marks(svg)
    assert first.x < second.x
    assert first.colour != second.colour
    assert [mark.colour for mark in others] == [first.colour, second.colour]


@pytest.mark.parametrize(("speedup", "trusted", "is_clear"), [(1.25, True, True), (UNCLEAR, True, False), (1.25, False, False)])
def test_what_is_unclear_or_untrusted_is_pale(speedup: float | Interval, *, trusted: bool, is_clear: bool) -> None:
    (mark,) = marks(chart(builders.run(*builders.group({"no_grad": speedup}, trusted=trusted)), "Speedup"))
    assert mark.is_pale != is_clear


def test_an_unclear_interval_does_not_squeeze_the_others() -> None:
    wide = builders.group({"no_grad": Interval(1.1, 0.01, 100.0)}, model="wide")
    clear = builders.group({"no_grad": 1.05}), builders.group({"no_grad": 1.5}, model="lstm")
    low, high, _ = marks(chart(builders.run(*clear[0], *clear[1], *wide), "Speedup"))
    assert high.x - low.x > 200


def test_each_allocator_operators_and_the_other_scenarios_have_their_own_speedups() -> None:
    parts = [{}, {"allocator": "as_shipped"}, {"scenario": "operators"}, {"scenario": "evaluation"}, {"scenario": "generation"}]
    results = [result for part in parts for result in builders.group(None, **part)]
    context = builders.group(scenario="switches", model="context")
    step = builders.group({"forward_alone": 3.0}, scenario="training_step")
    drawn = charts(builders.run(*results, *context, *step))
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
        result
        for allocator in ("pages_kept", "as_shipped")
        for mode, peak in (("tracked", 1000), ("no_grad", 250), ("detach", 500))
        for result in [builders.result(mode, allocator=allocator, memory={"peak_tensor_bytes": peak})]
    ]
    quarter, half = marks(chart(builders.run(*results), "Peak"))
    assert half.x == pytest.approx(2 * quarter.x, abs=2)


@pytest.mark.parametrize("peak", [None, 0])
def test_no_share_is_drawn_of_a_peak_that_is_unknown_or_zero(peak: int | None) -> None:
    results = builders.result("tracked", memory={"peak_tensor_bytes": peak}), builders.result()
    assert [title.split()[0] for title in charts(builders.run(*results))] == ["Speedup"]


def test_saved_bytes_are_those_of_the_case_that_saves_most_and_small_modules_are_added_up() -> None:
    modules = [SavedBy(f"layers.{number}", 1024) for number in range(20)]
    large = builders.result("tracked", model="large", memory={"saved_bytes": 20 * 1024, "saved_by_module": modules})
    whole = builders.result("tracked", model="lstm", memory={"saved_bytes": 2**30, "saved_by_module": [SavedBy("lstm", 2**30)]})
    svg = chart(builders.run(large, whole), "Saved for backward, by module: large tiny")
    assert {"layers.0", "layers.11", "all others", "1.00 KiB", "8.00 KiB"} <= set(texts(svg))
    assert "layers.12" not in texts(svg)


def test_modes_differ_in_colour_as_long_as_there_are_enough_and_always_in_colour_and_shape() -> None:
    eight = looks_of(["item", "float", "detach", "no_grad", "frozen", "mine", "yours", "inference_mode"])
    assert len({colour for colour, _ in eight.values()}) == len(eight) == len(COLOURS)
    assert eight["no_grad"] == looks_of(["tracked", "no_grad"])["no_grad"]
    assert len(set(looks_of(map(str, range(50))).values())) == 50


def test_a_chart_of_too_many_groups_shows_the_first_and_says_so() -> None:
    run = builders.run(*(result for number in range(MOST_ROWS + 5) for result in builders.group(model=f"model{number}")))
    svg = chart(run, "Speedup")
    assert len(marks(svg)) == MOST_ROWS
    assert any(text.endswith(f"the first {MOST_ROWS} of {MOST_ROWS + 5} groups") for text in texts(svg))


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    results = [
        result for name in HOSTILE for result in builders.group({"no_grad": 1.2, f"{name}m": 1.3}, model=name, size=name)
    ]
    run = read(builders.saved(tmp_path, builders.run(*results)))
    for svg in [picture(run), *charts(run).values()]:
        assert not list(ET.fromstring(svg).iter(f"{SVG}script"))
        assert "<script" not in svg
        assert "日本 日本" in texts(svg)


def test_the_picture_answers_for_two_modes_and_names_machine_build_and_day() -> None:
    run = builders.run(*builders.group({"no_grad": 1.2, "inference_mode": 1.3, "detach": 0.99}))
    shown = texts(picture(run))
    assert {"no_grad", "inference_mode", "mlp tiny"} <= set(shown)
    assert "detach" not in shown
    assert any("Some CPU, 2 cores, torch 2.13.0, 2026-11-22" in text for text in shown)
    assert len(marks(picture(run))) == 4  # a speedup and a peak of each


def test_the_picture_takes_forward_passes_with_pages_kept_where_there_are_such() -> None:
    others = [*builders.group(allocator="as_shipped", model="other"), *builders.group(scenario="evaluation", model="other")]
    assert "other tiny" not in texts(picture(builders.run(*others, *builders.group())))
    assert "evaluation other tiny" in texts(picture(builders.run(*others[2:], *builders.group(scenario="generation"))))


def test_a_picture_without_memory_has_speedups_only_and_without_speedups_there_is_none() -> None:
    no_memory = builders.run(*builders.group(memory={"peak_tensor_bytes": None}))
    assert len(marks(picture(no_memory))) == 1
    assert picture(builders.run(builders.result("tracked"))) == ""


def test_pictures_are_svg_for_light_and_dark_and_png() -> None:
    found = files(builders.run())
    names = ("answer", "speedup-over-tracked-forward", "peak-memory-that-is-left-forward")
    assert list(found) == [f"{name}.{ending}" for name in names for ending in ("svg", "png")]
    for name in names:
        vector = found[f"{name}.svg"].decode()
        assert "prefers-color-scheme:dark" in vector
        assert "mlp tiny" in texts(vector)
        assert found[f"{name}.png"].startswith(b"\x89PNG")
