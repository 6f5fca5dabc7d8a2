"""Proves that a saved run is read back exactly, and that a file which is no run is refused by name, whatever it holds."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import make_group, make_result, saved_benchmark, saved_run
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.load import Run, RunFileError, find_run, load, rows_of
from analysis.summarise import summarise
from benchmarks.record import Kernels, Memory, Unmeasured, tidy_rows, to_json

QUICK = settings(deadline=None, derandomize=True, database=None)

GONE = Unmeasured(make_result("frozen").case, "crashed", "exit code -9")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.json"


def test_a_saved_run_comes_back_as_the_rows_that_were_measured(path: Path) -> None:
    missing = make_result("detach", speedup=None, placebo=None, page_faults=None, memory=Memory(), device_seconds=2e-5)
    results = [*make_group(), missing, *make_group(model="lstm")]
    run = load(saved_run(path, results, [GONE]))
    assert rows_of(run.frame) == tidy_rows(results)
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
    results = [make_result(kernels=Kernels(same)) for same in (True, False, None)]
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
    assert list(frame) == list(tidy_rows(make_group())[0])


def with_change(keys: str, value: Any) -> str:
    """A good run in which the value at `keys` (`benchmarks.0.extra_info`) is another."""
    *outer, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
    run: Any = {
        "benchmarks": [saved_benchmark("a", to_json(one)) for one in make_group()],
        "gradtax": {"schema": 1, "unmeasured": [to_json(GONE)]},
    }
    inner = run
    for key in outer:
        inner = inner[key]
    inner[last] = value
    return json.dumps(run)


BAD: dict[str, tuple[str | bytes, str]] = {
    "empty": (b"", "not JSON"),
    "truncated": (with_change("benchmarks.0.name", "a")[:-20], "not JSON"),
    "not JSON": ("speedup,1.2\n", "not JSON"),
    "not text": (b"\x80\x81\xff", "not JSON"),
    "NaN": (with_change("benchmarks.0.extra_info.seconds", float("nan")), "not JSON"),
    "a list": ("[]", "not a run"),
    "a number": ("1", "not a run"),
    "an object of something else": ('{"commits": []}', "benchmarks"),
    "benchmarks of another type": (with_change("benchmarks", {}), "not a run"),
    "a text for seconds": (with_change("benchmarks.1.extra_info.seconds", "1e-4"), "seconds"),
    "a fraction of a byte": (with_change("benchmarks.1.extra_info.memory.saved_bytes", 1.5), "saved_bytes"),
    "an unknown verdict": (with_change("benchmarks.1.extra_info.verdict", "quicker"), "verdict"),
    "a case without a mode": (with_change("benchmarks.1.extra_info.case", {"scenario": "forward"}), "case"),
    "an unknown status": (with_change("gradtax.unmeasured.0.status", "lost"), "status"),
    "schema 7": (with_change("benchmarks.1.extra_info.schema", 7), "schema 7"),
    "schema 7 with other fields": (with_change("benchmarks.1.extra_info", {"schema": 7, "case": {}}), "schema 7"),
    "schema 7 of the whole run": (with_change("gradtax", {"schema": 7, "unmeasured": {}}), "schema 7"),
    "a number of bytes that no machine has": (with_change("benchmarks.1.extra_info.memory.saved_bytes", 10**30), "not a run"),
    "brackets without end": ('{"benchmarks": [], "other": ' + "[" * 100_000, "not a run"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_is_no_run_is_refused_by_name_and_reason(what: str, path: Path) -> None:
    content, reason = BAD[what]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunFileError) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert reason in message.removeprefix(f"{path}: ")
    assert "\n" not in message


def test_a_folder_or_a_missing_file_is_refused_by_name(path: Path) -> None:
    for unreadable in (path.parent, path):
        with pytest.raises(RunFileError, match=f"{unreadable}: cannot be read: "):
            load(unreadable)
        with pytest.raises(RunFileError, match=f"{unreadable}: "):
            find_run(str(unreadable))


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


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of runs of two machines, whose age is not the order of their numbers."""
    from_old_to_new = ["a/0002_x.json", "a/0003_x.json", "b/0002_y.json", "b/0001_y.json"]
    for time, name in enumerate(from_old_to_new):
        os.utime(saved_run(tmp_path / "results" / name), (time, time))
    (tmp_path / "results/a/notes.json").write_text("not a run")
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("run", "found"), [("latest", "b/0001_y.json"), ("0003", "a/0003_x.json"), ("1", "b/0001_y.json"), ("2", "b/0002_y.json")]
)
def test_a_run_is_found_by_number_or_as_the_latest(results: Path, run: str, found: str) -> None:
    assert find_run(run, results) == results / found


def test_a_run_is_found_by_its_path(results: Path) -> None:
    assert find_run(str(results / "a/notes.json"), results) == results / "a/notes.json"


def test_a_number_that_does_not_exist_is_refused_with_those_that_do(results: Path) -> None:
    with pytest.raises(RunFileError, match=r"no run 0009 under .*results.*0002, 0003, 0002, 0001"):
        find_run("9", results)


def test_latest_of_nothing_says_how_to_make_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"no saved run under .*pytest --benchmark"):
        find_run("latest", tmp_path)


@pytest.mark.parametrize(
    "foreign", [{"schema": "public"}, {"schema": 2, "case": "upper"}, {"schema": True, "case": {}}, [1], 5, None]
)
def test_extra_info_of_another_test_is_none_of_ours_whatever_it_holds(path: Path, foreign: Any) -> None:
    path.write_text(with_change("benchmarks.0.extra_info", foreign))
    assert load(path).foreign == json.loads(path.read_text())["benchmarks"].__len__() - len(load(path).results) > 0


def test_a_name_that_cannot_be_asked_for_and_a_link_to_nowhere_are_refused_or_passed_over(tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "0001_gone.json").symlink_to(tmp_path / "nowhere.json")
    with pytest.raises(RunFileError, match="there is no saved run"):
        find_run("latest", tmp_path)
    with pytest.raises(RunFileError, match="File name too long"):
        find_run("x" * 300)
    with pytest.raises(RunFileError, match="this is a folder"):
        find_run(str(tmp_path))


def test_bytes_beside_missing_ones_are_exact_at_any_size(path: Path) -> None:
    exact = 2**53 + 1
    saved_run(path, [make_result("tracked", memory=Memory(exact)), make_result(memory=Memory())])
    assert [row["peak_tensor_bytes"] for row in rows_of(load(path).frame)] == [exact, None]
