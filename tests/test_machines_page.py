"""Runs of many machines are one page: a row per machine, and for a machine with a history a row per day."""

from __future__ import annotations

import re
from pathlib import Path

import builders
import pytest
from builders import Page
from test_charts import marks, texts
from test_report import HOSTILE

from analysis.__main__ import main

Shown = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(machine: str, date: str, speedup: float = 1.25, torch: str = "2.13.0", **fields: str) -> None:
    facts = {"cpu": {"brand_raw": machine, "count": 8}, "gradtax": {"torch": torch}}
    made = builders.run(*builders.group({"no_grad": speedup}, **fields), machine=facts, saved_at=f"{date}T10:00:00")
    builders.saved(Path(f"results/{date}/{len(list(Path().rglob('*.json')))}.json"), made)


def svgs(text: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", text, re.DOTALL)


def test_each_machine_is_a_row_and_each_of_its_days() -> None:
    save("Fast CPU", "2026-11-20", 1.1)
    save("Fast CPU", "2026-11-22", 1.3)
    save("Slow CPU", "2026-11-21", 1.5)
    assert main(["report", "results"]) == 0
    text = Path("results/machines.html").read_text(encoding="utf-8")
    found = Page(text)
    assert "3 runs of 2 machines, 2026-11-20 to 2026-11-22" in found.texts["p"]
    charts = svgs(text)
    assert len(charts) == 2
    assert {"Fast CPU, 8 cores", "Slow CPU, 8 cores", "no_grad"} <= set(texts(charts[0]))
    days = [label for label in texts(charts[1]) if label.startswith("2026")]
    assert days == ["2026-11-22", "2026-11-20"]
    newest, oldest = (mark.x for mark in marks(charts[1]))
    assert newest > oldest
    assert "Fast CPU, 8 cores by date: speedup, forward, cpu, float32, eager, pages_kept" in found.texts["h2"]


def test_builds_of_torch_are_rows_of_their_own() -> None:
    save("Some CPU", "2026-11-20", 1.1, torch="2.12.0")
    save("Some CPU", "2026-11-20", 1.3, torch="2.13.0")
    assert main(["report", "results", "-o", "page.html"]) == 0
    (chart,) = svgs(Path("page.html").read_text(encoding="utf-8"))
    assert {"Some CPU, 8 cores, 2.12.0", "Some CPU, 8 cores, 2.13.0"} <= set(texts(chart))


def test_means_of_other_cases_are_not_drawn_together() -> None:
    save("Some CPU", "2026-11-20", 1.1)
    save("Some CPU", "2026-11-20", 1.3, allocator="as_shipped")
    save("Some CPU", "2026-11-20", 1.5, scenario="evaluation")
    assert main(["report", "results"]) == 0
    found = Page(Path("results/machines.html").read_text(encoding="utf-8"))
    assert [label for label in found.attributes["aria-label"] if "figures are in a table" in label] == [
        "all machines: forward, pages_kept; its figures are in a table below",
        "all machines: forward, as_shipped; its figures are in a table below",
    ]


def test_names_of_machines_are_text_and_nothing_else() -> None:
    save(HOSTILE, "2026-11-20")
    save(HOSTILE, "2026-11-21", torch=HOSTILE)
    assert main(["report", "results"]) == 0
    found = Page(Path("results/machines.html").read_text(encoding="utf-8"))
    assert f"{HOSTILE}, 8 cores" in found.texts["td"]
    assert ("img" in found.texts, len(found.texts["script"])) == (False, 1)


def test_runs_without_a_speedup_have_no_chart_and_without_results_no_page(capsys: Shown) -> None:
    builders.saved(Path("results/a.json"), builders.run(*builders.group({})))
    assert main(["report", "results"]) == 0
    assert svgs(Path("results/machines.html").read_text(encoding="utf-8")) == []
    Path("torn").mkdir()
    Path("torn/a.json").write_text("{")
    capsys.readouterr()
    assert main(["report", "torn"]) == 2
    out, err = capsys.readouterr()
    assert (out, [line.split(":")[0] for line in err.splitlines()]) == ("", ["left out", "error"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "page.md"], "many runs make a .html page"),
        (["-o", "nowhere/page.html"], "nowhere/page.html: cannot be written"),
        (["--charts", "pictures"], "only of one run"),
    ],
)
def test_what_the_page_cannot_be_is_refused(arguments: list[str], words: str, capsys: Shown) -> None:
    save("Some CPU", "2026-11-20")
    assert main(["report", "results", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, words in err) == ("", True)
    assert main(["report", str(Path.cwd() / "empty")]) == 2
