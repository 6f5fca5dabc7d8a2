"""Proves that a run is exported as the list that benchmark-tracking actions read: smaller is better, units that never change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import make_group, make_result, saved_run
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from analysis.__main__ import app
from benchmarks.record import Interval, Memory


def export(*arguments: str) -> Outcome:
    return CliRunner().invoke(app, ["export", *arguments])


def exported(path: Path, *arguments: str) -> list[dict[str, Any]]:
    done = export(str(path), *arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    entries: list[dict[str, Any]] = json.loads(done.stdout)
    return entries


def test_each_case_gives_its_time_its_share_of_tracked_and_its_bytes(tmp_path: Path) -> None:
    mode = make_result(speedup=Interval(1.25, 1.0, 1.6), memory=Memory(4096, 2048, 0, None, None, None))
    (tracked, *found) = exported(saved_run(tmp_path / "run.json", [make_result("tracked", memory=Memory()), mode]))
    name = "forward mlp tiny cpu float32 resident no_grad: "
    assert tracked["name"] == "forward mlp tiny cpu float32 resident tracked: time per call"
    assert [(one["name"].removeprefix(name), one["unit"], one["value"], one.get("range")) for one in found] == [
        ("time per call", "us", pytest.approx(100), None),
        ("time over tracked's", "x", 0.8, "± 0.2"),
        ("peak tensor", "bytes", 4096, None),
        ("held tensor", "bytes", 2048, None),
        ("saved", "bytes", 0, None),
    ]
    assert {one["extra"] for one in found} == {"verdict: faster"}


def test_the_rounds_are_exported_by_case_and_said_to_be_missing_where_they_are(tmp_path: Path) -> None:
    path = saved_run(tmp_path / "run.json", make_group())
    run = json.loads(path.read_text())
    for number, one in enumerate(run["benchmarks"]):
        one["stats"] = {"data": [1e-4, 2e-4 + number], "rounds": 2}
    run["benchmarks"].append({"name": "other", "extra_info": {}, "stats": {"data": [1.0]}})
    path.write_text(json.dumps(run))
    assert [(one["mode"], one["seconds"]) for one in exported(path, "--format", "rounds")] == [
        ("tracked", [1e-4, 2e-4]), ("no_grad", [1e-4, 1.0002]),
    ]  # fmt: skip
    del run["benchmarks"][0]["stats"]["data"]
    path.write_text(json.dumps(run))
    done = export(str(path), "--format", "rounds")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"error: {path}: no rounds are saved: benchmarks[0].stats" in done.stderr


def test_bigger_is_better_for_speedups_alone(tmp_path: Path) -> None:
    (one,) = exported(saved_run(tmp_path / "run.json", make_group()), "--format", "customBiggerIsBetter")
    assert (one["name"], one["unit"], one["value"]) == ("forward mlp tiny cpu float32 resident no_grad: speedup", "x", 1.25)
    assert one["range"] == "± 0.01"


def test_names_are_unique_and_every_entry_has_what_the_actions_require(tmp_path: Path) -> None:
    found = exported(
        saved_run(tmp_path / "run.json", [*make_group(), *make_group(allocator="default"), *make_group(model="lstm")])
    )
    assert len({one["name"] for one in found}) == len(found)
    for one in found:
        assert isinstance(one["value"], int | float)
        assert all(isinstance(one[key], str) for key in ("name", "unit", "extra"))


def test_an_untrusted_figure_says_so(tmp_path: Path) -> None:
    found = exported(saved_run(tmp_path / "run.json", [make_result(trusted=False)]))
    assert {one["extra"] for one in found} == {"verdict: faster\nuntrusted: identical code read differently"}


def test_what_cannot_be_exported_is_refused_in_a_line(tmp_path: Path) -> None:
    run = str(saved_run(tmp_path / "run.json", make_group()))
    for arguments, words in {
        (run, "--format", "csv"): "choose from customSmallerIsBetter, customBiggerIsBetter",
        (str(saved_run(tmp_path / "empty.json")),): "holds no results of this suite",
        ("missing.json",): "no such file",
    }.items():
        done = export(*arguments)
        assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert words in done.stderr
