"""A run's end is shown, and what cannot be written beside it is a line of it."""

from __future__ import annotations

import os
from pathlib import Path

import builders
import pytest

from analysis import ending, report
from analysis.read import Run, read
from benchmarks.models.real import BY_DEFAULT
from benchmarks.scenarios import SCENARIOS


def test_table_and_page_lie_beside_the_run_whole(tmp_path: Path) -> None:
    saved = builders.saved(tmp_path)
    shown = list(ending.lines(builders.run(), ["it was hot"], [saved]))
    assert "warning: it was hot" in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001_run.html", "0001_run.json", "0001_run.md"]
    assert [line.split()[0] for line in shown[-4:]] == ["run", "table", "page", "next"]
    assert "Some CPU" in saved.with_suffix(".html").read_text().partition("The answer")[0], "whose answer it is stands above it"


def test_a_default_run_ends_on_one_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "page", lambda *_: "")  # takes seconds, and is not what is looked at
    saved = tmp_path / "results" / "Linux-CPython-3.11-64bit" / "0001_00000000_20261124_000000.json"
    measured = read(builders.REFERENCE)
    there = {result.case.scenario for result in measured.results}
    new = [("forward", model) for model in BY_DEFAULT] + [(name, "decoder") for name in SCENARIOS if name not in there]
    more = [result for scenario, model in new for result in builders.group(scenario=scenario, model=model)]
    run = Run([*measured.results, *more], machine=measured.machine)
    shown = list(ending.lines(run, [], [builders.saved(saved, run)]))
    assert len(shown) <= 50
    assert max(len(line) for line in shown if not line.startswith(("run ", "table ", "page "))) <= 100


def test_what_cannot_be_written_or_made_is_a_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    def broken(*_: object) -> None:
        raise KeyError("a mistake of ours")

    saved = builders.saved(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(report, "page", broken)
    shown = list(ending.lines(builders.run(), [], [saved]))
    assert any(line.startswith("no table: ") and "No space left" in line for line in shown)
    assert "no page: KeyError('a mistake of ours')" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["0001_run.json"]
