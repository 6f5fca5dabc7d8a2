"""Proves that a RUN on the command line is found by number, path, folder or pattern, once, or refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import make_group, saved_run

from analysis.find import RunFileError, find_run, find_runs, stored_numbers


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


def test_a_name_that_cannot_be_asked_for_and_a_link_to_nowhere_are_refused_or_passed_over(tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "0001_gone.json").symlink_to(tmp_path / "nowhere.json")
    with pytest.raises(RunFileError, match="there is no saved run"):
        find_run("latest", tmp_path)
    with pytest.raises(RunFileError, match="File name too long"):
        find_run("x" * 300)
    with pytest.raises(RunFileError, match="this is a folder"):
        find_run(str(tmp_path))


def test_a_folder_or_a_missing_file_is_no_single_run(tmp_path: Path) -> None:
    for unreadable, reason in ((tmp_path, "this is a folder"), (tmp_path / "run.json", "no such file")):
        with pytest.raises(RunFileError, match=f"{unreadable}: {reason}"):
            find_run(str(unreadable))


def test_the_numbers_of_stored_runs_are_told_from_the_newest_on(results: Path) -> None:
    assert stored_numbers(results) == ["0001", "0002", "0003"]


def test_a_folder_is_all_runs_in_it_and_below(results: Path) -> None:
    found = find_runs([str(results)], results)
    assert [str(path.relative_to(results)) for path in found] == [
        "a/0002_x.json",
        "a/0003_x.json",
        "a/notes.json",
        "b/0001_y.json",
        "b/0002_y.json",
    ]


def test_json_in_a_folder_that_pytest_benchmark_did_not_save_is_passed_over_and_told(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run.json", make_group())
    for name, content in (("accuracy.json", '{"repeats": []}'), ("list.json", "[1]")):
        (tmp_path / name).write_text(content)
    (tmp_path / "torn.json").write_text(run.read_text()[:100])
    (tmp_path / "notes.md").write_text("not read")
    warnings: list[str] = []
    assert find_runs([str(tmp_path)], warnings=warnings) == [
        run,
        tmp_path / "torn.json",
    ]  # which may be a run: let it be refused
    assert warnings == [f"passed over, for pytest-benchmark did not save it: {tmp_path / 'accuracy.json'} and 1 more"]
    assert find_runs([str(tmp_path / "list.json")]) == [tmp_path / "list.json"]


def test_a_key_that_stands_far_into_a_long_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "long.json").write_text('{"other": "' + "x" * 2**17 + '", "benchmarks": []}')
    assert find_runs([str(tmp_path)]) == [tmp_path / "long.json"]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"no saved run in this folder$"):
        find_runs([str(tmp_path)])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(RunFileError, match=r"no saved run in this folder \(no runs: .*other.json\)"):
        find_runs([str(tmp_path)])


def test_a_pattern_is_the_files_that_match_unless_a_file_is_called_so(results: Path) -> None:
    found = find_runs([f"{results}/*/000[12]_*.json"], results)
    assert [path.name for path in found] == ["0002_x.json", "0001_y.json", "0002_y.json"]
    assert len(find_runs([f"{results}/**/*.json"], results)) == 5
    with pytest.raises(RunFileError, match="no file matches this pattern"):
        find_runs([f"{results}/*.txt"], results)
    odd = saved_run(results / "[1].json")
    assert find_runs([str(odd)], results) == [odd]


def test_a_file_that_is_named_several_times_counts_once(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results)
    (results / "link.json").symlink_to(results / "a/0003_x.json")
    names = [
        "3",
        "a/0003_x.json",
        "b/../a/0003_x.json",
        str(results / "a/0003_x.json"),
        "link.json",
        "a/*3_x.json",
        "latest",
        "0001",
    ]
    assert find_runs(names, results) == [results / "a/0003_x.json", results / "b/0001_y.json"]


def test_whatever_is_none_of_these_is_refused_as_a_single_run_is(tmp_path: Path) -> None:
    for name in ("latest", "0007", "missing.json", "x" * 300):
        with pytest.raises(RunFileError) as one:
            find_run(name, tmp_path)
        with pytest.raises(RunFileError) as several:
            find_runs([name], tmp_path)
        assert str(several.value) == str(one.value)
