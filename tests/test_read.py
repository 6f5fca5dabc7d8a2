"""Proves that a saved run is read to the byte, and that whatever else a file holds is refused in one line with its file and field."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import stand_in_jobs
from builders import changed, group, result, run, saved, saved_json, unmeasured

from analysis.cases import COLUMNS
from analysis.find import find_run
from analysis.notes import notes
from analysis.read import IDENTITY, AnalysisError, Run, RunFile, read, read_all
from benchmarks.record import Contract, Interval, Kernels, Memory, ProcessReading, SavedBy

FIRST, SECOND = "benchmarks[0].extra_info", "benchmarks[1].extra_info"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.json"


def test_what_was_saved_is_what_is_read(path: Path) -> None:
    made = run(
        *group({"no_grad": 1.3, "inference_mode": 1.4}), unmeasured=[unmeasured("frozen")],
        conditions={"warnings": ["busy"], "command": ["pytest"]},
    )  # fmt: skip
    found = read(saved(path, made))
    assert (found.results, found.unmeasured) == (made.results, made.unmeasured)
    assert (found.saved_at, found.commit, found.conditions) == (made.saved_at, made.commit, made.conditions)
    assert (found.name, found.path, found.machine["gradtax"]) == ("run", path, made.machine["gradtax"])
    pd.testing.assert_frame_equal(found.frame, made.frame)
    assert read(saved(path, run(commit="unversioned"))).commit == ""


def test_a_frame_has_a_row_per_case_with_every_figure() -> None:
    readings = [ProcessReading(0, 60, 1e-4, 1.2, 1.0), ProcessReading(1, 60, 1e-4, None, 1.0)]
    measured = result(
        "no_grad", Interval(1.2, 1.1, 1.3), memory=Memory(peak_tensor_bytes=5, unavailable={"peak_rss_bytes": "too small"}),
        kernels=Kernels(same_as_tracked=False, added=["aten::a x1"], removed=["aten::b x1", "aten::c x2"]),
        contract=Contract(holds=True, changed_buffers=["a", "b"]), processes=readings, kept_pages=Interval(1.5, 1.4, 1.6),
    )  # fmt: skip
    (row,) = run(measured).frame.to_dict("records")
    assert list(row) == list(COLUMNS)
    assert (row["speedup"], row["speedup_low"], row["speedup_high"], row["kept_pages_low"]) == (1.2, 1.1, 1.3, 1.4)
    assert (row["kernels_removed"], row["changed_buffers"], row["same_kernels"]) == ("aten::b x1 aten::c x2", "a b", False)
    assert (row["processes"], row["process_speedups"], row["withheld"]) == (2, [1.2], {"peak_rss_bytes": "too small"})
    assert (row["parameters"], row["inputs"], row["seconds_noise"]) == (16640, "float32[8, 64]", 0.0)
    assert math.isnan(row["over_no_grad"])


def test_seconds_are_as_noisy_as_processes_disagree() -> None:
    readings = [ProcessReading(0, 60, seconds, None, None) for seconds in (1e-4, 1.02e-4, 0.98e-4)]
    noise = run(*(result(model=str(number), processes=readings[:number]) for number in (3, 1))).frame["seconds_noise"]
    assert noise[0] == pytest.approx(math.expm1(9.925 * 0.02 / math.sqrt(3)), rel=0.01)  # Student's t of 2 degrees of freedom
    assert math.isnan(noise[1])


def test_bytes_are_exact_at_any_size_beside_missing_ones(path: Path) -> None:
    exact = 2**53 + 1
    memory = Memory(peak_tensor_bytes=exact, heap_bytes_per_step=-exact)
    frame = read(saved(path, run(result("tracked", memory=memory), result(memory=Memory())))).frame
    assert frame[["peak_tensor_bytes", "heap_bytes_per_step"]].to_numpy().tolist() == [[exact, -exact], [pd.NA, pd.NA]]


def test_a_frame_without_rows_has_the_same_columns_and_types(path: Path) -> None:
    empty = read(saved(path, Run([], [unmeasured()]))).frame
    pd.testing.assert_frame_equal(empty, run(*group()).frame.iloc[:0])


@pytest.mark.parametrize(
    "foreign", [{"schema": "public"}, {"schema": 2, "case": "upper"}, {"schema": True, "case": {}}, [1], 5, None]
)
def test_extra_info_of_another_test_is_none_of_ours_whatever_it_holds(path: Path, foreign: Any) -> None:
    path.write_text(json.dumps(changed(saved_json(run()), FIRST, foreign)))
    assert [one.case.mode for one in read(path).results] == ["no_grad"]


@pytest.mark.parametrize("evil", ["a\x1b[2Jb", "a\rb\nc", "a\u202eb", "a\x00b", "a\u2028b", "a\x7fb", "a\x9bb", "größe模型"])
def test_names_cannot_steer_a_terminal_or_break_a_line(path: Path, evil: str) -> None:
    memory = Memory(saved_by_module=[SavedBy(evil, 5)], unavailable={evil: evil})
    made = run(result("tracked", model=evil, memory=memory), unmeasured=[unmeasured(reason=evil, size=evil)],
               conditions={"warnings": [evil], evil: evil})  # fmt: skip
    found = read(saved(path, made))
    clean = found.results[0].case.model
    assert clean.isprintable()
    assert (clean[0], clean[-1]) == (evil[0], evil[-1])
    assert found.results[0].memory == Memory(saved_by_module=[SavedBy(clean, 5)], unavailable={clean: clean})
    assert (found.unmeasured[0].reason, found.unmeasured[0].case.size) == (clean, clean)
    assert found.conditions == {"warnings": [clean], clean: clean}


def with_change(place: str, value: Any) -> str:
    """A good run in which the value at `place` is another."""
    return json.dumps(changed(saved_json(run(unmeasured=[unmeasured("frozen")])), place, value))


def raw(place: str, text: str) -> str:
    """The same with a text that `json` would not write."""
    return with_change(place, "@").replace('"@"', text)


WIDE = {"estimate": 1.0, "low": 5e-324, "high": 1.7e308}
BAD: dict[str, tuple[str | bytes, str]] = {
    "empty": (b"", "not JSON: "),
    "not text": (b"\x80\x81\xff", "not JSON: "),
    "NaN": (with_change(f"{FIRST}.seconds", math.nan), "not JSON: "),
    "a number beyond all": (raw(f"{FIRST}.seconds", "1e999"), f"{FIRST}.seconds: number out of range"),
    "a number of 5,000 digits": (raw(f"{FIRST}.memory.saved_bytes", "9" * 5000), f"{FIRST}.memory.saved_bytes: integer value out"),
    "a list": ("[]", "not a file that pytest-benchmark saved: expected `object`"),
    "a machine that is a number": (with_change("machine_info.gradtax", 5), "machine_info.gradtax: expected `object`"),
    "threads that are a text": (with_change("machine_info.gradtax.threads", "two"), "machine_info.gradtax.threads: expected `int"),
    "threads of a run that are a text": (with_change("gradtax.conditions", {"threads": "2"}), "gradtax.conditions.threads: expected"),
    "warnings that are a text": (with_change("gradtax.conditions", {"warnings": "x"}), "gradtax.conditions.warnings: expected `array`"),
    "a text for seconds": (with_change(f"{SECOND}.seconds", "1e-4"), f"{SECOND}.seconds: expected `float`"),
    "a fraction of a byte": (with_change(f"{SECOND}.memory.saved_bytes", 1.5), f"{SECOND}.memory.saved_bytes: expected `int"),
    "an unknown verdict": (with_change(f"{SECOND}.verdict", "quicker"), f"{SECOND}.verdict: invalid enum value"),
    "an endless verdict": (with_change(f"{SECOND}.verdict", "x" * 10_000), f"{SECOND}.verdict: invalid enum value 'xxx"),
    "an unknown allocator": (with_change(f"{SECOND}.case.allocator", "resident"), f"{SECOND}.case.allocator: expected `str` matching"),
    "schema 1": (with_change(f"{SECOND}.schema", 1), "schema 1 cannot be read by this version, which reads 2; measure again with"),
    "schema 1 with other fields": (with_change(SECOND, {"schema": 1, "case": {}}), "schema 1 cannot be read"),
    "schema 1 of the whole run": (with_change("gradtax", {"schema": 1, "unmeasured": {}}), "schema 1 cannot be read"),
    "the same case again": (with_change(f"{SECOND}.case.mode", "tracked"), f"{SECOND}.case: forward-mlp-tiny-cpu-float32-eager-pages_kept-tracked"),
    "no time at all": (with_change(f"{SECOND}.seconds", 0), f"{SECOND}.seconds: expected `float` > 1e-15"),
    "bytes that no machine has": (with_change(f"{SECOND}.memory.saved_bytes", 2**63), f"{SECOND}.memory.saved_bytes: expected `int"),
    "an interval that is none": (with_change(f"{SECOND}.speedup.low", 2), f"{SECOND}.speedup: 0 < low <= estimate <= high is needed"),
    "an interval of everything": (with_change(f"{SECOND}.speedup", WIDE), f"{SECOND}.speedup.low: expected `float` > 1e-100"),
    "brackets without end": ('{"benchmarks": [], "machine_info": {"other": ' + "[" * 100_000, "maximum recursion depth"),
    "results of other tests": ('{"benchmarks": [{"extra_info": {"note": "not ours"}}]}', "holds no results"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_run_is_refused_by_file_and_field(name: str, path: Path) -> None:
    content, reason = BAD[name]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AnalysisError) as raised:
        read(path)
    message = str(raised.value)
    assert message.removeprefix(f"{path}: ").startswith(reason)
    assert message.isprintable()
    assert len(message) < 1000


def test_a_folder_or_a_missing_file_is_refused_by_name(path: Path) -> None:
    for unreadable in (path.parent, path):
        with pytest.raises(AnalysisError, match=f"{unreadable}: cannot be read: "):
            read(unreadable)


def test_many_runs_become_the_rows_of_each_in_turn_once(tmp_path: Path) -> None:
    devices = {"cpu": {"cores": 8}, "cuda": {"name": "H200"}}
    other = run(result("tracked"), result("tracked", device="cuda"), machine={"cpu": {}, "gradtax": {"torch": "2.12.0", "devices": devices}},
                saved_at="2025-01-02T03:04:05+00:00")  # fmt: skip
    files = [RunFile(saved(tmp_path / "b.json"), "b"), RunFile(saved(tmp_path / "a.json", other), "a")]
    files += [RunFile(saved(tmp_path / "copy.json"), "copy")]
    frame = read_all(files, ["mode", "saved_bytes", "speedup_low"], print)
    assert list(frame) == [*IDENTITY, "mode", "saved_bytes", "speedup_low"]
    assert frame.to_numpy().tolist() == [
        ["b", "Some CPU, 2 cores", "2.13.0", "2026-11-22", "tracked", 8192, 1.0],
        ["b", "Some CPU, 2 cores", "2.13.0", "2026-11-22", "no_grad", 0, 1.25 * 0.99],
        ["a", "8 cores", "2.12.0", "2025-01-02", "tracked", 8192, 1.0],
        ["a", "H200", "2.12.0", "2025-01-02", "tracked", 8192, 1.0],
    ]


def test_an_unfinished_run_is_read_says_so_and_is_latest_only_where_none_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = stand_in_jobs.left_after(Path("results/machine"), stand_in_jobs.jobs(3), 2)
    assert find_run("latest").path == path
    unfinished = read(path)
    tracked = [one.case for one in unfinished.results if one.case.mode == "tracked"]
    assert [(case.model, case.allocator) for case in tracked][1:3] == [("model_0", "as_shipped"), ("model_1", "pages_kept")]
    assert (len(unfinished.unmeasured), unfinished.machine["gradtax"]["torch"]) == (4, "2.13.0")
    assert notes(unfinished)[0] == "unfinished: 2 of 3 jobs are measured; go on with: pytest --resume"
    newest = saved(Path("results/machine/0001_run.json"))
    assert find_run("latest").path == newest


def test_a_journal_with_a_torn_end_is_read_without_it_and_one_that_is_wrong_before_is_refused(tmp_path: Path) -> None:
    path = stand_in_jobs.left_after(tmp_path / "machine", stand_in_jobs.jobs(3), 2)
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    assert {one.case.model for one in read(path).results} == {"model_0"}
    for wrong, line in ((content.replace(b"model_0", b"model_9"), 4), (b"[]\n", 1)):
        path.write_bytes(wrong)
        with pytest.raises(AnalysisError, match=f"line {line} is not what was written"):
            read(path)
        assert path.read_bytes() == wrong
