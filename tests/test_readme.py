"""What the README quotes is what its commands print, and the files that it names are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import scenarios
from benchmarks.modes import MODES
from benchmarks.scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def printed_by(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_table_on_the_first_screen_is_that_of_the_reference_run() -> None:
    table = re.search(r"summarise results/reference/cpu.json`:\n\n```text\n(.*?)```", README, re.DOTALL)
    assert table is not None
    quoted = table[1].splitlines()
    printed = iter(printed_by("analysis", "summarise", "results/reference/cpu.json"))
    assert len(quoted) > 15
    assert all(line in printed for line in quoted), "every line, and in their order"


def test_the_answer_on_the_first_screen_is_that_of_the_reference_run() -> None:
    answer = re.search(r"<!-- advise -->\n\n```text\n(.*?)```", README, re.DOTALL)
    assert answer is not None
    assert "\n".join(printed_by("analysis", "advise", "results/reference/cpu.json")).startswith(answer[1].strip())


def test_the_scenarios_figures_are_those_of_the_reference_run() -> None:
    block = re.search(r"<!-- scenarios -->\n\n```text\n(.*?)```", README, re.DOTALL)
    assert block is not None
    printed = iter(printed_by("analysis", "summarise", "results/reference/cpu.json"))
    assert all(line in printed for line in block[1].splitlines()), "every line, and in their order"


def test_the_table_of_models_is_the_one_that_the_command_prints() -> None:
    table = re.search(r"<!-- models -->\n\n(.*?)\n\n<!-- end -->", README, re.DOTALL)
    assert table is not None
    assert table[1].splitlines() == printed_by("benchmarks.models")


def test_every_mode_is_described_in_the_words_of_its_registry() -> None:
    for mode in MODES.values():
        row = re.search(rf"^\| `{mode.name}` \| (.*) \|$", README, re.MULTILINE)
        assert row is not None
        assert row[1].replace("`", "").startswith(mode.summary.removesuffix(": the baseline"))


def test_what_each_mode_does_is_the_table_that_the_command_finds() -> None:
    table = re.search(r"<!-- contract -->\n\n(.*?)\n\n<!-- end -->", README, re.DOTALL)
    assert table is not None
    if f"found by running torch {torch.__version__.partition('+')[0]};" not in table[1]:
        pytest.skip("the table in the README was found with another torch")
    assert table[1].splitlines() == printed_by("benchmarks.walkthrough", "--modes", "--format", "markdown")


def test_every_scenario_is_listed_with_its_question_and_modes() -> None:
    for name, scenario in SCENARIOS.items():
        modes = ", ".join(f"`{mode.name}`" for mode in scenario.modes) or "`--modes`"
        question = (getattr(scenarios, name).__doc__ or "").strip()
        assert f"| [`{name}`](benchmarks/scenarios/{name}.py) | {question} | {modes} |\n" in README


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links if not link.startswith("http"))
