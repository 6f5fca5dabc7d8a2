"""Proves that a saved run is read back exactly, and that a file which is no run is refused by name, whatever it holds."""

from __future__ import annotations

import copy
import gc
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import make_group, make_result, saved_benchmark, saved_run
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.load import IDENTITY, Run, RunFileError, load, load_all, load_each, rows_of
from analysis.summarise import summarise
from benchmarks.record import Interval, Kernels, Memory, Unmeasured, tidy_rows, to_json

QUICK = settings(deadline=None, derandomize=True, database=None)

SAVED_AT = "2026-11-22T19:08:56+00:00"
GONE = Unmeasured(make_result("frozen").case, "crashed", "exit code -9")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.json"


def test_a_saved_run_comes_back_as_the_rows_that_were_measured(path: Path) -> None:
    missing = make_result("detach", speedup=None, placebo=None, page_faults=None, memory=Memory(), device_seconds=2e-5)
    results = [*make_group(), missing, *make_group(model="lstm")]
    run = load(saved_run(path, results, [GONE]))
    identity = {
        "run": "run",
        "torch": None,
        "commit": "unknown",
        "machine": "Some CPU, 2 cores",
        "threads": None,
        "saved_at": SAVED_AT,
    }
    assert rows_of(run.frame) == [{**row, **identity} for row in tidy_rows(results)]
    assert (run.path, run.unmeasured, run.foreign) == (path, [GONE], 0)


def test_benchmarks_of_other_tests_are_skipped_and_counted(path: Path) -> None:
    saved = json.loads(saved_run(path, make_group(), foreign=3).read_text())
    saved["benchmarks"] += [saved_benchmark("x", info) for info in ({}, {"schema": 1}, {"schema": 3}, {"case": "upper"})]
    path.write_text(json.dumps(saved))
    run = load(path)
    assert (run.foreign, len(run.frame)) == (7, 2)


def test_a_run_of_other_tests_alone_is_an_empty_frame(path: Path) -> None:
    run = load(saved_run(path, foreign=2))
    assert (run.foreign, run.frame.empty, run.unmeasured) == (2, True, [])
    assert rows_of(summarise(run.frame)) == []


def test_a_file_that_pytest_benchmark_saved_without_us_is_read(path: Path) -> None:
    path.write_text(json.dumps({"benchmarks": [saved_benchmark("test_other", {})], "version": "4.0.0"}))
    run = load(path)
    assert (run.foreign, run.unmeasured) == (1, [])


def test_bytes_stay_integers_and_missing_bytes_stay_missing(path: Path) -> None:
    exact = 2**40 + 1
    memory = Memory(exact, None, 0, exact, None, None)
    first, second = rows_of(load(saved_run(path, [make_result("tracked", memory=memory), make_result(memory=Memory())])).frame)
    names = [name for name in first if name.endswith("_bytes")]
    assert [first[name] for name in names] == [exact, None, 0, exact, *[None] * 5, 66560]
    assert [second[name] for name in names] == [None] * 9 + [66560]
    assert {type(first[name]) for name in names} == {int, type(None)}
    assert type(first["parameters"]) is int


def test_truth_values_stay_truth_values(path: Path) -> None:
    results = [make_result(mode, kernels=Kernels(same)) for mode, same in (("a", True), ("b", False), ("c", None))]
    rows = rows_of(load(saved_run(path, results)).frame)
    assert [row["same_kernels"] for row in rows] == [True, False, None]
    assert all(row["trusted"] is True for row in rows)


def test_a_summary_puts_tracked_first_in_groups_that_keep_their_order(path: Path) -> None:
    lstm, mlp = {"model": "lstm"}, {"model": "mlp"}
    shuffled = [("no_grad", mlp), ("detach", lstm), ("tracked", lstm), ("frozen", mlp), ("tracked", mlp), ("no_grad", lstm)]
    frame = summarise(load(saved_run(path, [make_result(mode, case=case) for mode, case in shuffled])).frame)
    assert [(row["model"], row["mode"]) for row in rows_of(frame)] == [
        ("mlp", "tracked"), ("mlp", "no_grad"), ("mlp", "frozen"), ("lstm", "tracked"), ("lstm", "detach"), ("lstm", "no_grad"),
    ]  # fmt: skip
    assert list(frame) == [*tidy_rows(make_group())[0], *IDENTITY]


def with_change(keys: str, value: Any) -> str:
    """A good run in which the value at `keys` (`benchmarks.0.extra_info`) is another."""
    *outer, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
    facts = {"torch": "2.13.0", "threads": 1, "devices": {"cpu": {"cores": 2}}}
    run: Any = {
        "machine_info": {"cpu": {"brand_raw": "Some CPU", "count": 2}, "gradtax": facts},
        "commit_info": {"id": "0123456789", "dirty": False},
        "datetime": SAVED_AT,
        "benchmarks": [saved_benchmark("a", to_json(one)) for one in make_group()],
        "gradtax": {"schema": 1, "unmeasured": [to_json(GONE)]},
    }
    inner = run
    for key in outer:
        inner = inner[key]
    inner[last] = value
    return json.dumps(run)


FIRST, SECOND = "benchmarks[0].extra_info", "benchmarks[1].extra_info"
BAD: dict[str, tuple[str | bytes, str]] = {
    "empty": (b"", "not JSON (the file is empty)"),
    "truncated": (with_change("benchmarks.0.name", "a")[:-20], "not JSON"),
    "not JSON": ("speedup,1.2\n", "not JSON"),
    "not text": (b"\x80\x81\xff", "not JSON"),
    "NaN": (with_change("benchmarks.0.extra_info.seconds", float("nan")), f"not JSON ({FIRST}.seconds is NaN or infinite)"),
    "infinity": (with_change("benchmarks.0.stats.data.1", float("inf")), "not JSON (benchmarks[0].stats.data[1] is NaN or"),
    "a number beyond all": (with_change("benchmarks.0.extra_info.seconds", "@").replace('"@"', "1e999"), f"{FIRST}.seconds: number out"),
    "a list": ("[]", "not a run of this suite: expected `object`"),
    "a number": ("1", "not a run"),
    "an object of something else": ('{"commits": []}', "not a run of this suite: object missing required field `benchmarks`"),
    "benchmarks of another type": (with_change("benchmarks", {}), "not a run of this suite: benchmarks: expected `array`"),
    "another type of date": (with_change("datetime", 5), "not a run of this suite: datetime: expected `str | null`"),
    "a text for seconds": (with_change("benchmarks.1.extra_info.seconds", "1e-4"), f"{SECOND}.seconds: expected `float`"),
    "a fraction of a byte": (with_change("benchmarks.1.extra_info.memory.saved_bytes", 1.5), f"{SECOND}.memory.saved_bytes: expected `int"),
    "an unknown verdict": (with_change("benchmarks.1.extra_info.verdict", "quicker"), f"{SECOND}.verdict: invalid enum value"),
    "a case without a mode": (with_change("benchmarks.1.extra_info.case", {"scenario": "forward"}), f"{SECOND}.case: object missing"),
    "an unknown status": (with_change("gradtax.unmeasured.0.status", "lost"), "gradtax.unmeasured[0].status: invalid enum value"),
    "schema 7": (with_change("benchmarks.1.extra_info.schema", 7), "schema 7"),
    "schema 0": (with_change("benchmarks.1.extra_info.schema", 0), "schema 0"),
    "schema 7 with other fields": (with_change("benchmarks.1.extra_info", {"schema": 7, "case": {}}), "schema 7"),
    "schema 7 of the whole run": (with_change("gradtax", {"schema": 7, "unmeasured": {}}), "schema 7"),
    "the same case again": (with_change("benchmarks.1.extra_info.case.mode", "tracked"), f"{SECOND}.case: forward-mlp-tiny-cpu-float32-resident-tracked is there twice"),
    "no time at all": (with_change("benchmarks.1.extra_info.seconds", 0), f"{SECOND}.seconds: expected more than 0, got 0"),
    "less than no time": (with_change("benchmarks.1.extra_info.cold_seconds", -1), f"{SECOND}.cold_seconds: expected 0 or more"),
    "less than no bytes": (with_change("benchmarks.1.extra_info.memory.peak_tensor_bytes", -1), f"{SECOND}.memory.peak_tensor_bytes: expected 0"),
    "an interval that is none": (with_change("benchmarks.1.extra_info.speedup.low", 2), f"{SECOND}.speedup: expected 0 < low <= estimate <= high, got 2, 1.25, 1.26"),
    "a ratio below 0": (with_change("benchmarks.1.extra_info.placebo.low", -1), f"{SECOND}.placebo: expected 0 < low"),
    "a number of bytes that no machine has": (with_change("benchmarks.1.extra_info.memory.saved_bytes", 10**30), f"{SECOND}.memory.saved_bytes: expected 0"),
    "a heap that no machine has": (with_change("benchmarks.1.extra_info.memory.graph_heap_bytes", -(10**30)), f"{SECOND}.memory.graph_heap_bytes: "),
    "two wrong fields": (with_change("benchmarks.1.extra_info.seconds", 0).replace('"seconds": 0.000125', '"seconds": []'), f"{FIRST}.seconds: expected `float`, got `array`; and 1 more"),
    "brackets without end": ('{"benchmarks": [], "other": ' + "[" * 100_000, "not a run"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_is_no_run_is_refused_by_name_and_reason(what: str, path: Path) -> None:
    content, reason = BAD[what]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunFileError) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert message.removeprefix(f"{path}: ").startswith(reason)
    assert "\n" not in message


def test_a_folder_or_a_missing_file_is_refused_by_name(path: Path) -> None:
    for unreadable in (path.parent, path):
        with pytest.raises(RunFileError, match=f"{unreadable}: cannot be read: "):
            load(unreadable)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
GOOD = json.loads(with_change("gradtax.schema", 1))


def places(value: Any, *outer: str | int) -> Iterator[tuple[str | int, ...]]:
    """The keys that lead to each value within `value`."""
    if outer:
        yield outer
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, *outer, key)


def test_a_heap_may_shrink_and_an_interval_have_no_width(path: Path) -> None:
    memory = Memory(graph_heap_bytes=-48)
    exact = math.exp(math.log(1.1))  # in the last digit another number than 1.1
    run = load(saved_run(path, [make_result(memory=memory, speedup=Interval(1.1, exact, exact))]))
    assert rows_of(run.frame)[0]["graph_heap_bytes"] == -48


def load_or_refusal(path: Path, value: Any) -> Run | RunFileError:
    path.write_text(json.dumps(value))
    try:
        return load(path)
    except RunFileError as error:
        return error


def assert_whole_run_or_named_refusal(path: Path, value: Any) -> None:
    found = load_or_refusal(path, value)
    if isinstance(found, Run):
        assert len(rows_of(summarise(found.frame))) + found.foreign == len(value["benchmarks"])
    else:
        assert str(found).startswith(f"{path}: ")
        assert "\n" not in str(found)
    rest = load_all([path], keep_going=True)
    assert len(rest.frame) >= (len(found.frame) if isinstance(found, Run) else 0)
    assert isinstance(found, Run) or any(f"left out: {path}: " in warning for warning in rest.warnings)


@QUICK
@given(json_values)
def test_any_json_value_gives_a_run_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    assert_whole_run_or_named_refusal(tmp_path_factory.getbasetemp() / "any.json", value)


@QUICK
@given(st.sampled_from(list(places(GOOD))), json_values)
def test_a_run_in_which_any_one_value_is_another_gives_a_run_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str | int, ...], value: Any
) -> None:
    changed = inner = copy.deepcopy(GOOD)
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert_whole_run_or_named_refusal(tmp_path_factory.getbasetemp() / "changed.json", changed)


@pytest.mark.parametrize(
    "foreign", [{"schema": "public"}, {"schema": 2, "case": "upper"}, {"schema": True, "case": {}}, [1], 5, None]
)
def test_extra_info_of_another_test_is_none_of_ours_whatever_it_holds(path: Path, foreign: Any) -> None:
    path.write_text(with_change("benchmarks.0.extra_info", foreign))
    assert load(path).foreign == json.loads(path.read_text())["benchmarks"].__len__() - len(load(path).results) > 0


def test_bytes_beside_missing_ones_are_exact_at_any_size(path: Path) -> None:
    exact = 2**53 + 1
    saved_run(path, [make_result("tracked", memory=Memory(exact)), make_result(memory=Memory())])
    assert [row["peak_tensor_bytes"] for row in rows_of(load(path).frame)] == [exact, None]


@QUICK
@given(st.integers(0, len(json.dumps(GOOD)) - 1))
def test_a_run_that_was_cut_off_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_text(json.dumps(GOOD)[:length])
    with pytest.raises(RunFileError, match=r"cut\.json: not JSON"):
        load(path)


@QUICK
@given(st.binary(max_size=64))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(content)
    with pytest.raises(RunFileError, match=r"bytes\.json: not "):
        load(path)


def test_many_runs_become_the_rows_of_each_in_turn(tmp_path: Path) -> None:
    lost = Unmeasured(make_result("frozen").case, "crashed", "SIGSEGV")
    paths = [
        saved_run(tmp_path / "b.json", make_group(), [GONE], foreign=2, torch="2.13.0", threads=1),
        saved_run(tmp_path / "a.json", foreign=1),
        saved_run(tmp_path / "c.json", [make_result(memory=Memory(), speedup=None)], [lost], torch="2.12.0"),
    ]
    runs = load_all(paths)
    assert rows_of(runs.frame) == [row for path in paths for row in rows_of(load(path).frame)]
    assert (runs.names, runs.unmeasured) == (["b", "a", "c"], [GONE, lost])
    assert runs.warnings == [
        f"{paths[0]}: 2 benchmarks of other tests skipped",
        f"{paths[1]}: 1 benchmark of other tests skipped",
    ]
    assert [(row["run"], row["torch"], row["threads"]) for row in rows_of(runs.frame)] == [
        ("b", "2.13.0", 1), ("b", "2.13.0", 1), ("c", "2.12.0", None),
    ]  # fmt: skip


def test_only_the_columns_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    frame = load_all([saved_run(tmp_path / "a.json", make_group())], columns=["mode", "run", "saved_bytes"]).frame
    assert rows_of(frame) == [
        {"mode": "tracked", "saved_bytes": 8192, "run": "a"}, {"mode": "no_grad", "saved_bytes": 0, "run": "a"},
    ]  # fmt: skip


def test_runs_of_the_same_name_get_their_folders_in_front(tmp_path: Path) -> None:
    names = ["x/0001_a.json", "y/0001_b.json", "y/0002_b.json", "z/x/0001_a.json", "z/run.json"]
    paths = [saved_run(tmp_path / name, make_group()) for name in names]
    assert [run.name for run in load_each(paths)] == [str(paths[0]), "y/0001_b", "0002", str(paths[3]), "run"]
    assert len({*load_all(paths).frame["run"]}) == 5


def test_a_machine_is_its_processor_or_for_cuda_cases_its_gpu(path: Path) -> None:
    results = [make_result(), make_result(case={"device": "cuda"})]
    devices = {"cpu": {"cores": 8}, "cuda": {"name": "H200"}}
    run = load(saved_run(path, results, devices=devices))
    assert [row["machine"] for row in rows_of(run.frame)] == ["Some CPU, 8 cores", "H200"]
    assert load(saved_run(path, results, devices={})).frame["machine"].tolist() == ["Some CPU, 2 cores"] * 2


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"cpu": 5, "gradtax": []},
        {"cpu": {"brand_raw": {}}, "gradtax": {"threads": "two", "torch": {}}},
        {"gradtax": {"threads": 2**64}},
        {"gradtax": {"threads": True}},
    ],
)
def test_a_machine_that_tells_nothing_or_nonsense_is_missing(path: Path, info: dict[str, Any]) -> None:
    saved = json.loads(saved_run(path, make_group()).read_text()) | {"machine_info": info}
    path.write_text(json.dumps(saved))
    (row, _) = rows_of(load(path).frame)
    assert (row["machine"], row["torch"], row["threads"]) == (None, None, None)


def test_going_on_leaves_out_what_cannot_be_read_and_keeps_the_rest_of_the_file(tmp_path: Path) -> None:
    odd, good, torn = tmp_path / "odd.json", saved_run(tmp_path / "good.json", make_group()), tmp_path / "torn.json"
    odd.write_text(with_change("benchmarks.1.extra_info.seconds", "soon"))
    torn.write_text(good.read_text()[:-30])
    runs = load_all([odd, good, torn], keep_going=True)
    assert [(row["run"], row["mode"]) for row in rows_of(runs.frame)] == [
        ("odd", "tracked"),
        ("good", "tracked"),
        ("good", "no_grad"),
    ]
    assert runs.warnings[0] == f"left out: {odd}: benchmarks[1].extra_info.seconds: expected `float`, got `str`"
    assert runs.warnings[1].startswith(f"left out: {torn}: not JSON")
    with pytest.raises(RunFileError, match=r"odd\.json: benchmarks"):
        load_all([good, odd])


def test_the_garbage_collector_is_as_before_even_after_an_error(tmp_path: Path) -> None:
    load_all([saved_run(tmp_path / "a.json", make_group())])
    assert gc.isenabled()
    with pytest.raises(RunFileError):
        load_all([tmp_path / "missing.json"])
    assert gc.isenabled()
