"""Proves that a RUN on the command line is found by number, path, folder or pattern, once, or refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import saved

from analysis.find import find_run, find_runs
from analysis.read import AnalysisError


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs of two machines, whose age is not the order of their numbers; the folder above it is the current one."""
    from_old_to_new = ["a/0002_x.json", "a/0003_x.json", "b/0002_y.json", "b/0001_y.json"]
    for time, name in enumerate(from_old_to_new):
        os.utime(saved(tmp_path / "results" / name), (time, time))
    (tmp_path / "results/a/notes.json").write_text("not a run")
    monkeypatch.chdir(tmp_path)
    return Path("results")


@pytest.mark.parametrize(
    ("run", "found", "name"),
    [
        ("latest", "b/0001_y.json", "0001"),
        ("0003", "a/0003_x.json", "0003"),
        ("1", "b/0001_y.json", "0001"),
        ("2", "b/0002_y.json", "0002"),
        ("results/a/notes.json", "a/notes.json", "notes"),
    ],
)
def test_a_run_is_found_by_number_or_path_or_as_the_latest(results: Path, run: str, found: str, name: str) -> None:
    file = find_run(run)
    assert (file.path, file.name) == (results / found, name)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ("9", r"no run 0009 under results/ \(there: 0002, 0003, 0002, 0001\)"),
        *((run, "a run is a file, a number such as 0007, or latest") for run in ("x" * 300, "a\0b", "missing.json", ".")),
    ],
)
def test_what_is_no_run_is_refused_by_name_or_with_those_that_there_are(results: Path, runs: str, reason: str) -> None:
    with pytest.raises(AnalysisError, match=reason):
        find_run(runs)


def test_where_there_is_no_run_it_is_said_how_to_make_one_and_a_link_to_nowhere_is_none(results: Path) -> None:
    for path in results.rglob("*.json"):
        path.unlink()
    (results / "a" / "0001_gone.json").symlink_to("nowhere.json")
    for run in ("latest", "0007"):
        with pytest.raises(AnalysisError, match=r"no saved run under results/; `pytest --benchmark` makes one"):
            find_run(run)
    with pytest.raises(AnalysisError, match=r"no saved run in this folder"):
        find_runs(["results"])


def test_a_folder_is_all_json_in_it_and_below_of_which_none_was_named(results: Path) -> None:
    files = find_runs(["results"])
    assert [str(file.path.relative_to(results)) for file in files] == [
        "a/0002_x.json", "a/0003_x.json", "a/notes.json", "b/0001_y.json", "b/0002_y.json",
    ]  # fmt: skip
    assert not any(file.named for file in files)


def test_a_file_counts_once_and_as_named_if_anything_names_it(results: Path) -> None:
    Path("link.json").symlink_to("results/a/0003_x.json")
    path = "results/a/0003_x.json"
    names = ["results/b", "3", path, "results/b/../a/0003_x.json", str(Path.cwd() / path), "link.json", "latest", "results/b"]
    files = {file.path.name: file.named for file in find_runs(names)}
    assert files == {"0001_y.json": True, "0002_y.json": False, "0003_x.json": True}


def test_runs_of_the_same_name_get_their_folders_in_front(tmp_path: Path) -> None:
    names = ["x/0001_a.json", "y/0001_b.json", "y/0002_b.json", "z/run.json", "z/x/0001_a.json"]
    paths = [str(saved(tmp_path / name)) for name in names]
    assert [file.name for file in find_runs([str(tmp_path)])] == [paths[0], "y/0001_b", "0002", "run", paths[4]]
