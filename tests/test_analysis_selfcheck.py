"""Proves that the made-up runs are what the goal names, and that a goal which is not reached is called missed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis import selfcheck
from analysis.__main__ import app
from analysis.load import load_all
from analysis.selfcheck import Cost, cost_of, write_runs


def test_made_up_runs_are_read_as_runs_of_60_cases_with_200_rounds_that_differ(tmp_path: Path) -> None:
    write_runs(tmp_path, 2)
    write_runs(tmp_path, 3)
    paths = sorted(tmp_path.glob("*.json"))
    runs = load_all(paths)
    assert (len(paths), len(runs.frame), runs.warnings) == (3, 180, [])
    assert runs.frame.groupby("run")["speedup"].max().tolist() == [1.2, 1.2001, 1.2002]
    assert {len(one["stats"]["data"]) for one in json.loads(paths[0].read_text())["benchmarks"]} == {200}
    assert 250_000 < paths[0].stat().st_size < 600_000


def test_the_cost_is_that_of_a_process_of_its_own() -> None:
    cost = cost_of("--help")
    assert cost.busy_seconds > 0
    assert 0 < cost.seconds < 60
    assert 2**22 < cost.peak_bytes < 2**33
    with pytest.raises(RuntimeError, match=r"summarise missing.json: exit status 2: error: missing.json: no such file"):
        cost_of("summarise", "missing.json")


@pytest.mark.parametrize(
    ("seconds", "mebibytes", "word"), [(3.9, 299, "reached"), (4.1, 100, "MISSED"), (2.0, 301, "MISSED")]
)  # fmt: skip
def test_the_goal_is_reached_only_within_both_limits(
    seconds: float, mebibytes: int, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfcheck, "CHECKS", [selfcheck._reading])
    monkeypatch.setattr(selfcheck, "write_runs", lambda folder, number: None)
    monkeypatch.setattr(selfcheck, "cost_of", lambda *arguments: Cost(seconds, seconds - 0.5, mebibytes * 2**20))
    told = CliRunner().invoke(app, ["selfcheck"])
    assert told.exit_code == 0
    shown = " ".join(told.stdout.split())
    assert (
        f"summarise 1,000 runs {seconds:.1f} s, {mebibytes} MiB at most 4 s, 300 MiB {word} busy {seconds - 0.5:.1f} s; "
        in shown
    )


@pytest.mark.parametrize(("last", "word"), [(Cost(30.0, 30.0, 10_750 * 2**10), "reached"), (Cost(40.0, 40.0, 10_750 * 2**10), "MISSED"), (Cost(30.0, 30.0, 20_000 * 2**10), "MISSED")])  # fmt: skip
def test_what_grows_faster_than_the_number_of_runs_misses_the_goal(
    last: Cost, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = iter([Cost(0.75, 0.7, 1000 * 2**10)] * 3 + [Cost(3.0, 3.0, 1750 * 2**10)] * 3 + [last])
    monkeypatch.setattr(selfcheck, "CHECKS", [selfcheck._reading])
    monkeypatch.setattr(selfcheck, "write_runs", lambda folder, number: None)
    monkeypatch.setattr(selfcheck, "cost_of", lambda *arguments: next(costs))
    assert [section.rows[1][3] for section in selfcheck.selfcheck(full=True).sections] == [word]


@pytest.mark.parametrize(
    ("seconds", "size", "word"), [(3.9, 10**6, "reached"), (4.1, 10**6, "MISSED"), (1.0, 3 * 10**6, "MISSED")]
)
def test_the_report_has_a_goal_for_its_time_and_one_for_its_size(
    seconds: float, size: int, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost_of(*arguments: str) -> Cost:
        Path(arguments[-1]).write_bytes(bytes(size))
        return Cost(seconds, seconds, 2**20)

    monkeypatch.setattr(selfcheck, "CHECKS", [selfcheck._report])
    monkeypatch.setattr(selfcheck, "cost_of", cost_of)
    assert [section.rows[0][1:4] for section in selfcheck.selfcheck().sections] == [
        [f"{seconds:.1f} s, {size / 10**6:.1f} MB", "at most 4 s, 2 MB", word]
    ]
