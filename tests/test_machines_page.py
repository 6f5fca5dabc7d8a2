"""Runs of many machines are one page: a row per machine, and for a machine with a history a row per day."""

from __future__ import annotations

import re
from pathlib import Path

import builders
import pytest
from builders import Page
from test_charts import marks, texts

from analysis.__main__ import main

Shown = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(machine: str, date: str, speedup: float = 1.25, torch: str = "2.13.0", **fields: str) -> None:
    facts = {"cpu": {"brand_raw": machine, "count": 8}, "gradtax": {"torch": torch}}
    made = builders.run(*builders.group({"no_grad": speedup}, **fields), machine=facts, saved_at=f"{date}T10:00:00")
    builders.saved(Path(f"results/{date}/{len(list(Path().rglob('*.json')))}.json"), made)


def reported() -> tuple[Page, list[list[str]], list[str]]:
    """The page of all that was saved, the texts of each of its charts, and these charts."""
    assert main(["report", "results"]) == 0
    text = Path("results/machines.html").read_text(encoding="utf-8")
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    return Page(text), list(map(texts, charts)), charts


def test_each_machine_is_a_row_and_each_of_its_days() -> None:
    save("Fast CPU", "2026-11-20", 1.1)
    save("Fast CPU", "2026-11-22", 1.3)
    save("<Slow> CPU", "2026-11-21", 1.5)
    page, (machines, days), charts = reported()
    assert "3 runs of 2 machines, 2026-11-20 to 2026-11-22" in page.texts["p"]
    assert {"Fast CPU, 8 cores", "<Slow> CPU, 8 cores", "no_grad"} <= set(machines)
    assert [label for label in days if label.startswith("2026")] == ["2026-11-22", "2026-11-20"]
    newest, oldest = (mark.x for mark in marks(charts[1]))
    assert newest > oldest
    assert "Fast CPU, 8 cores by date: speedup, forward, cpu, float32, eager, pages_kept" in page.texts["h2"]


def test_builds_of_torch_are_rows_of_their_own_and_other_cases_are_charts_of_their_own() -> None:
    save("Some CPU", "2026-11-20", 1.1, torch="2.12.0")
    save("Some CPU", "2026-11-20", 1.3, allocator="as_shipped")
    save("Some CPU", "2026-11-20", 1.5, scenario="evaluation")
    page, (kept, shipped), _ = reported()
    assert "Some CPU, 8 cores, 2.12.0" in kept
    assert "Some CPU, 8 cores, 2.13.0" in shipped
    assert [label for label in page.attributes["aria-label"] if "figures are in a table" in label] == [
        "all machines: forward, pages_kept; its figures are in a table below",
        "all machines: forward, as_shipped; its figures are in a table below",
    ]


def test_runs_without_a_speedup_have_no_chart_and_without_results_no_page(capsys: Shown) -> None:
    builders.saved(Path("results/a.json"), builders.run(*builders.group({})))
    assert reported()[2] == []
    Path("results/a.json").write_text("{")
    capsys.readouterr()
    assert main(["report", "results"]) == 2
    out, err = capsys.readouterr()
    assert (out, [line.split(":")[0] for line in err.splitlines()]) == ("", ["left out", "error"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("results -o page.md", "so .html is expected"),
        ("results -o nowhere/page.html", "nowhere/page.html: cannot be written"),
        ("results --charts pictures", "only of one run"),
        (".", "there is no saved run in this folder"),
    ],
)
def test_what_the_page_cannot_be_is_refused(arguments: str, words: str, capsys: Shown) -> None:
    if arguments != ".":
        save("Some CPU", "2026-11-20")
    assert main(["report", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, words in err) == ("", True)
