"""Proves that a RUN on the command line is found by number, path, folder or pattern, once, or refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import saved

from analysis.find import find_run, find_runs, unique_names
from analysis.read import RunFileError


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of runs of two machines, whose age is not the order of their numbers."""
    from_old_to_new = ["a/0002_x.json", "a/0003_x.json", "b/0002_y.json", "b/0001_y.json"]
    for time, name in enumerate(from_old_to_new):
        os.utime(saved(tmp_path / "results" / name), (time, time))
    (tmp_path / "results/a/notes.json").write_text("not a run")
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("run", "found"), [("latest", "b/0001_y.json"), ("0003", "a/0003_x.json"), ("1", "b/0001_y.json"), ("2", "b/0002_y.json")]
)
def test_a_run_is_found_by_number_or_as_the_latest(results: Path, run: str, found: str) -> None:
    file = find_run(run, results)
    assert (file.path, file.name) == (results / found, found[2:6])


def test_a_run_is_found_by_its_path(results: Path) -> None:
    file = find_run(str(results / "a/notes.json"), results)
    assert (file.path, file.name) == (results / "a/notes.json", "notes")


def test_a_number_that_does_not_exist_is_refused_with_those_that_do(results: Path) -> None:
    with pytest.raises(RunFileError, match=r"no run 0009 under .*results.*0002, 0003, 0002, 0001"):
        find_run("9", results)


def test_latest_of_nothing_says_how_to_make_a_run(tmp_path: Path) -> None:
    for run in ("latest", "0007"):
        with pytest.raises(RunFileError, match=r"no saved run under .*pytest --benchmark"):
            find_run(run, tmp_path)


@pytest.mark.parametrize("run", ["x" * 300, "a\0b", "missing.json", "."])
def test_what_is_no_file_is_refused_by_name(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFileError, match="a run is a file, a number such as 0007, or latest"):
        find_run(run)


def test_a_link_to_nowhere_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "0001_gone.json").symlink_to(tmp_path / "nowhere.json")
    with pytest.raises(RunFileError, match="there is no saved run"):
        find_run("latest", tmp_path)


def test_a_folder_is_all_json_in_it_and_below_of_which_none_was_named(results: Path) -> None:
    files = find_runs([str(results)], results)
    assert [str(file.path.relative_to(results)) for file in files] == [
        "a/0002_x.json", "a/0003_x.json", "a/notes.json", "b/0001_y.json", "b/0002_y.json",
    ]  # fmt: skip
    assert not any(file.named for file in files)


def test_a_file_counts_once_and_as_named_if_anything_names_it(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results)
    (results / "link.json").symlink_to(results / "a/0003_x.json")
    names = ["b", "3", "a/0003_x.json", "b/../a/0003_x.json", str(results / "a/0003_x.json"), "link.json", "latest"]
    files = {file.path.name: file.named for file in find_runs(names, results)}
    assert files == {"0001_y.json": True, "0002_y.json": False, "0003_x.json": True}


def test_a_folder_without_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"no saved run in this folder"):
        find_runs([str(tmp_path)])


def test_runs_of_the_same_name_get_their_folders_in_front(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("x/0001_a.json", "y/0001_b.json", "y/0002_b.json", "z/x/0001_a.json", "z/run.json")]
    assert unique_names(paths) == [str(paths[0]), "y/0001_b", "0002", str(paths[3]), "run"]
