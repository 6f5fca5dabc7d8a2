"""Charts hold the run's figures and nothing else, say them in words too, and stay whole whatever a run calls its models and modes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import vl_convert
from builders import make_group, make_result, make_timings, saved_run

from analysis import palette
from analysis.charts import MODE_COLOURS, Chart, charts, colour_of, comparison_charts, write
from analysis.load import Run, load
from benchmarks.record import Interval, Memory, ProcessReading, Result, SavedBy

REFERENCE = Path(__file__).parent.parent / "results" / "reference" / "cpu.json"
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = ["<script>alert(1)</script>", "a.b[0]", 'it\'s "q" \\ | &amp;', "two\nlines\x00", "", "datum['x']", "日本"]


@pytest.fixture(scope="module")
def reference() -> Run:
    """Its forward passes."""
    run = load(REFERENCE)
    return replace(run, results=[one for one in run.results if one.case.scenario == "forward"])


@pytest.fixture(scope="module")
def drawn(reference: Run) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts(reference)}


def run_of(folder: Path, results: list[Result], name: str = "run") -> Run:
    return load(saved_run(folder / f"{name}.json", results))


def drawn_of(folder: Path, results: list[Result]) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts(run_of(folder, results))}


def data_of(chart: Chart) -> list[dict[str, Any]]:
    """The rows of the chart's points, which have more columns than those of its rules and lines."""
    data: list[list[dict[str, Any]]] = list(chart.spec.to_dict(validate=False)["datasets"].values())
    return max(data, key=lambda rows: len(rows[0]))


def texts_of(chart: Chart) -> str:
    """All that the chart shows as text."""
    svg = ET.fromstring(vl_convert.vegalite_to_svg(chart.spec.to_dict(validate=False)))
    return "\n".join("".join(text.itertext()) for text in svg.iter(f"{SVG}text"))


def sized(mode: str, size: str, peak: int, saved: int = 0, **memory: Any) -> Result:
    return make_result(mode, case={"size": size}, memory=Memory(peak, peak, saved, 0, None, "kernel", **memory))


def test_the_reference_run_has_every_chart_and_each_is_valid_and_compiles(drawn: dict[str, Chart]) -> None:
    models = ("mlp", "convnet", "transformer", "lstm")
    assert list(drawn) == [
        "speedup-tracking-alone", "speedup-as-shipped", "heaps", *(f"memory-{model}" for model in models),
        *(f"saved-{model}" for model in models), "theory", "placebo-tracking-alone", "placebo-as-shipped",
    ]  # fmt: skip
    for chart in drawn.values():
        spec = chart.spec.to_dict(validate=True)
        assert vl_convert.vegalite_to_vega(spec)["description"] == chart.text
        assert spec["width"] == "container"


def test_entering_and_leaving_a_context_is_no_operator_with_a_speedup(tmp_path: Path) -> None:
    results = [*make_group(scenario="operators", model="view"), *make_group(scenario="operators", model="context")]
    assert [point["group"] for point in data_of(drawn_of(tmp_path, results)["speedup-operators"])] == ["view tiny"]


def test_the_forest_shows_the_frames_speedups_and_intervals(reference: Run, drawn: dict[str, Chart]) -> None:
    for name, allocator in (("speedup-tracking-alone", "resident"), ("speedup-as-shipped", "default")):
        frame = reference.frame
        rows = frame[(frame["allocator"] == allocator) & (frame["mode"] != "tracked")]
        expected = [
            (f"{row.model} {row.size}", row.mode, row.speedup, row.speedup_low, row.speedup_high) for row in rows.itertuples()
        ]
        points = data_of(drawn[name])
        assert [tuple(point[key] for key in ("group", "series", "value", "low", "high")) for point in points] == expected


def test_the_forests_of_both_allocators_have_the_same_axis(drawn: dict[str, Chart]) -> None:
    ends = [
        str(vl_convert.vegalite_to_vega(drawn[name].spec.to_dict(validate=False))["scales"][0]["domain"])
        for name in ("speedup-tracking-alone", "speedup-as-shipped", "placebo-as-shipped")
    ]
    assert ends[0] == ends[1] != ends[2]


def test_the_text_of_a_forest_counts_verdicts_and_names_the_extremes(tmp_path: Path) -> None:
    found = make_timings("resident", 1e-4, {"no_grad": Interval(1.25, 1.24, 1.26), "detach": Interval(0.95, 0.94, 0.96)}, {})
    text = drawn_of(tmp_path, found)["speedup"].text
    assert text == (
        "Speedup over tracked: 1 faster, 1 slower. Highest 1.25 ±0.01 faster (no_grad, mlp tiny), "
        "lowest 0.95 ±0.01 slower (detach, mlp tiny)."
    )


def test_an_untrusted_group_is_hollow_widens_no_axis_and_is_no_extreme(tmp_path: Path) -> None:
    wild = [replace(one, trusted=False, speedup=Interval(1.3, 0.1, 9.0)) for one in make_group(model="lstm")]
    chart = drawn_of(tmp_path, [*make_group(), *wild])["speedup"]
    assert [(point["group"], point["trusted"]) for point in data_of(chart)] == [("mlp tiny", 1), ("lstm tiny", 0)]
    assert "untrusted" in texts_of(chart)
    assert "9" not in texts_of(chart).split()
    assert "lstm" not in chart.text
    assert "1 untrusted" in chart.text


def test_what_a_run_has_no_figures_for_is_left_out(tmp_path: Path) -> None:
    assert drawn_of(tmp_path, []) == {}
    assert list(drawn_of(tmp_path, make_group(model="mine", size="own"))) == ["speedup", "placebo"]
    step = replace(make_result("tracked", case={"scenario": "training_step"}), speedup=None, placebo=None)
    assert drawn_of(tmp_path, [step]) == {}


def test_scenarios_and_devices_have_forests_of_their_own(tmp_path: Path) -> None:
    results = [*make_group(), *make_group(scenario="evaluation"), *make_group(device="cuda")]
    names = [name for name in drawn_of(tmp_path, results) if name.startswith("speedup")]
    assert names == ["speedup-forward-cpu", "speedup-evaluation-cpu", "speedup-forward-cuda"]


def test_memory_is_drawn_over_what_tracked_saves_and_zeros_are_told_in_words(tmp_path: Path) -> None:
    results = [
        sized("tracked", "tiny", 100, 64),
        sized("no_grad", "tiny", 0),
        sized("tracked", "small", 900, 512),
        sized("no_grad", "small", 90),
    ]
    chart = drawn_of(tmp_path, results)["memory-mlp"]
    points = [(one["label"], one["series"], one["x"], one["y"]) for one in data_of(chart)]
    assert points == [("tiny", "tracked", 64, 100), ("small", "tracked", 512, 900), ("small", "no_grad", 512, 90)]
    assert chart.text == (
        "Peak tensor memory of mlp over what tracked saves for backward, in small, where that is 512 B: "
        "tracked 900 B (1.00 of tracked), no_grad 90 B (0.10 of tracked). Peaks of 0 B, of which there are 1, have no place on a log axis."
    )


def test_saved_bytes_are_those_of_the_largest_size_and_their_small_parts_are_added_up(tmp_path: Path) -> None:
    parts = [SavedBy(f"layer.{number}", number) for number in range(1, 13)]
    results = [
        sized("tracked", "tiny", 9, 5, saved_by_module=parts[:1]),
        sized("tracked", "small", 99, 78, saved_by_module=parts),
    ]
    chart = drawn_of(tmp_path, results)["saved-mlp"]
    assert [(one["group"], one["bytes"]) for one in data_of(chart)] == [
        *((f"layer.{number}", number) for number in range(12, 2, -1)), ("all others", 3),
    ]  # fmt: skip
    assert chart.title == "Saved for backward, by module: mlp small"
    assert "layer.12 12 B, 15.4 %" in chart.text


def test_theory_says_how_many_are_equal_and_which_is_furthest_off(tmp_path: Path, drawn: dict[str, Chart]) -> None:
    assert "the same in 12 of 12 cases" in drawn["theory"].text
    results = [
        sized("tracked", "tiny", 99, 64, expected_saved_bytes=60, opaque_saved_bytes=4),
        sized("tracked", "small", 999, 512, expected_saved_bytes=500),
    ]
    chart = drawn_of(tmp_path, results)["theory"]
    assert [(one["x"], one["y"]) for one in data_of(chart)] == [(64, 64), (500, 512)]
    assert chart.text.endswith("the same in 1 of 2 cases. Furthest apart: mlp small, expected 500 B, measured 512 B.")


def test_placebos_stand_with_the_furthest_off_first(reference: Run, drawn: dict[str, Chart]) -> None:
    points = data_of(drawn["placebo-as-shipped"])
    assert abs(math.log(points[0]["value"])) == max(abs(math.log(point["value"])) for point in points)
    assert points[0]["reads"] in drawn["placebo-as-shipped"].text
    frame = reference.frame[reference.frame["allocator"] == "default"]
    assert sorted(point["value"] for point in points) == sorted(set(frame["placebo"]))


def test_every_heap_has_a_dot_beside_what_tracking_alone_reads(tmp_path: Path) -> None:
    heaps = [ProcessReading(50, 1e-4, 1.3, 0.8, 12.0), ProcessReading(50, 1e-4, 1.1, 1.2, 700.0)]
    shipped = [replace(one, processes=heaps) for one in make_group(allocator="default")]
    chart = drawn_of(tmp_path, [*make_group(), *shipped])["heaps"]
    points = [(one["series"], one["value"], one["reads"]) for one in data_of(chart)]
    assert points == [
        ("identical code", 0.8, "0.80, 12 faults a call"), ("identical code", 1.2, "1.20, 700 faults a call"),
        ("no_grad", 1.3, "1.30, 12 faults a call"), ("no_grad", 1.1, "1.10, 700 faults a call"),
    ]  # fmt: skip
    assert "1.25 ±0.01 tracking alone" in str(chart.spec.to_dict(validate=False)["datasets"])
    assert chart.text.endswith(
        "identical code furthest apart: 0.80 to 1.20 (mlp tiny); no_grad furthest apart: 1.10 to 1.30 (mlp tiny)."
    )


def test_a_mode_has_one_colour_and_shape_everywhere_and_an_unknown_one_looks_like_no_built_in() -> None:
    known = {mode: palette.look_of(mode) for mode in MODE_COLOURS}
    assert len(set(known.values())) == len(known) == 8
    assert palette.modes(["forgot_eval", "detach", "no_grad"]).names == ["no_grad", "detach", "forgot_eval"]
    for mode in ("forgot_eval", "item", *HOSTILE):
        assert palette.look_of(mode) not in known.values()
        alone, among = palette.modes([mode]), palette.modes(["tracked", "detach", mode])
        assert (alone.colours[-1], alone.shapes[-1]) == (among.colours[-1], among.shapes[-1])
        assert alone.colours[-1] == colour_of(mode)
    assert colour_of("inference_mode_clone") == "#CC79A7"


def test_names_from_a_run_are_shown_as_text_whatever_they_are(tmp_path: Path) -> None:
    case = {"model": "<script>x.y[0]", "size": "m\n<b>"}
    results = [make_result("tracked", case=case), *(make_result(mode, case=case) for mode in HOSTILE)]
    others = [one for model in HOSTILE for one in make_group(model=model, size="own")]
    for chart in drawn_of(tmp_path, [*results, *others]).values():
        chart.spec.to_dict(validate=True)
        shown = texts_of(chart)
        assert "<script>x.y[0] m <b>" in shown
        assert "a.b[0]" in shown
        assert 'it\'s "q" \\ | &amp;' in shown
    for path in write(charts(run_of(tmp_path, results)), tmp_path / "charts"):
        if path.suffix == ".svg":
            assert not list(ET.parse(path).iter(f"{SVG}script"))


def test_long_names_are_cut_in_the_middle_and_stay_apart(tmp_path: Path) -> None:
    names = [f"{'long' * 30}{middle}{'name' * 30}" for middle in "ab"]
    chart = drawn_of(tmp_path, [one for name in names for one in make_group(model=name, size="own")])["speedup"]
    groups = [point["group"] for point in data_of(chart)]
    assert len(set(groups)) == 2
    assert max(map(len, groups)) < 35


def test_many_groups_are_cut_and_the_title_says_so(tmp_path: Path) -> None:
    results = [one for number in range(70) for one in make_group(model=f"op_{number}", scenario="operators")]
    chart = drawn_of(tmp_path, results)["speedup-operators"]
    assert len({point["group"] for point in data_of(chart)}) == 60
    assert chart.title == "Speedup of no_grad over tracked (operators), the first 60 of 70 rows"
    assert "70 faster" in chart.text


def test_names_of_files_are_safe_and_each_is_there_once(tmp_path: Path) -> None:
    sizes = [("tiny", 64), ("small", 512)]
    results = [
        replace(one, case=replace(one.case, model=model))
        for model, (size, saved) in itertools.product(["../etc", "日本", "日"], sizes)
        for one in (sized("tracked", size, 2 * saved, saved), sized("no_grad", size, saved))
    ]
    names = [name for name in drawn_of(tmp_path, results) if name.startswith("memory")]
    assert names == ["memory-etc", "memory", "memory-2"]


def test_runs_are_compared_where_all_have_the_case(tmp_path: Path) -> None:
    faster = [replace(one, speedup=Interval(1.5, 1.4, 1.6)) for one in make_group()]
    runs = [run_of(tmp_path / "a", [*make_group(), *make_group(model="lstm")]), run_of(tmp_path / "b", faster)]
    (chart,) = comparison_charts(runs)
    assert [(one["group"], one["series"], one["value"]) for one in data_of(chart)] == [
        ("mlp tiny no_grad", "run (1)", 1.25), ("mlp tiny no_grad", "run (2)", 1.5),
    ]  # fmt: skip
    assert "the intervals of 1 of 1 common cases lie apart" in chart.text
    assert comparison_charts(runs[:1]) == []
    assert comparison_charts([runs[0], run_of(tmp_path, make_group(model="other"))]) == []


def test_a_run_on_cpu_is_compared_with_one_on_cuda(tmp_path: Path) -> None:
    here, there, both = make_group(), make_group(device="cuda"), [*make_group(), *make_group(device="cuda", size="small")]
    runs = [run_of(tmp_path, results, name) for name, results in (("cpu", here), ("cuda", there), ("both", both))]
    (chart,) = comparison_charts(runs[:2])
    assert [one["series"] for one in data_of(chart)] == ["cpu", "cuda"]
    assert comparison_charts(runs[1:]) == []


def test_files_are_svg_that_follow_the_readers_scheme_and_png_on_white(tmp_path: Path) -> None:
    made = charts(run_of(tmp_path, make_group()))[:1]
    svg, png = write(made, tmp_path / "new" / "charts")
    assert (svg.name, png.name) == ("speedup.svg", "speedup.png")
    text = svg.read_text(encoding="utf-8")
    assert "prefers-color-scheme:dark" in text
    root = ET.fromstring(text)
    assert root.findtext(f"{SVG}desc") == made[0].text
    assert "Speedup of no_grad over tracked" in {"".join(one.itertext()) for one in root.iter(f"{SVG}text")}
    assert png.read_bytes().startswith(b"\x89PNG")
    assert 'fill="white"' not in text


def test_a_figure_that_no_axis_holds_is_left_out(tmp_path: Path) -> None:
    results = [make_result("tracked"), make_result("no_grad", speedup=Interval(1e300, 1e-300, 1e308)), make_result("detach")]
    assert [one["series"] for one in data_of(drawn_of(tmp_path, results)["speedup"])] == ["detach"]
