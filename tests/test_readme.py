"""README.md and docs/ tell the truth: what they quote is what their commands print, and what they name is there."""

from __future__ import annotations

import re
import shlex
from html import escape
from subprocess import CalledProcessError
from typing import Any

import pytest
import typer.main

from analysis.__main__ import app
from analysis.read import read
from benchmarks.guide.__main__ import main as guide
from benchmarks.machines import main as machines
from benchmarks.selfcheck.__main__ import main as selfcheck
from docs.refresh import COMMANDS, PAGES, PICTURE, REAL, REFERENCE, ROOT, TRANSCRIPT, refreshed

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
GUIDES = TEXTS | {"CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")}
ALL = GUIDES | {"CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")}
ANALYSIS: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
NOT_OURS = re.compile(r"my_|groups\.jsonl|NNNN|\.\.\.")
"""Files of the reader's own."""


def test_what_a_page_quotes_is_what_its_commands_print() -> None:
    """Of all pages in one test, because most commands are quoted by several."""
    for text in TEXTS.values():
        assert text == refreshed(text), "`make readme` writes it anew"


def test_a_transcript_is_filled_in_with_what_its_command_prints_and_a_command_alone_is_not_run() -> None:
    stale = "```console\n$ echo 1 2 | sed 's/1/one/' | tr ' ' '\\n'\nnone\n\n2\n```\n"
    assert refreshed(stale) == stale.replace("none\n\n", "one\n")
    alone = "```console\n$ false\n$ false\n```\n\nWords.\n\n```console\n$ false\n```\n"
    assert refreshed(alone) == alone
    with pytest.raises(CalledProcessError):
        refreshed(stale.replace("echo 1 2", "python -m analysis advise no_such_run.json"))


def test_every_command_that_is_quoted_is_named_beside_the_quotation() -> None:
    text = " ".join(TEXTS.values())
    blocks = [name for name in re.findall(r"<!-- (\w+) -->\n", text) if name != "end"]
    assert sorted(blocks) == sorted(COMMANDS)
    for command in (PICTURE, *COMMANDS.values()):
        assert f"`{command.partition(' | ')[0]}`" in text


def test_at_least_twenty_questions_are_answered_each_with_its_address_one_command_what_that_prints_and_one_paragraph() -> None:
    _, *questions = TEXTS["docs/questions.md"].split("\n## ")
    assert len(questions) >= 20
    addresses: set[str] = set()
    for question in questions:
        _, asked, transcript, answer = question.rstrip("\n").split("\n\n")
        addresses.add(*re.findall(r"<(https://\S+)>", asked))
        answered = TRANSCRIPT.fullmatch(f"{transcript}\n")
        assert answered is not None, question
        assert len(answered[3].splitlines()) <= 6, question
        assert "\n" not in answer, question
    assert len(addresses) == len(questions), "each is asked in a place of its own"


def test_the_picture_is_of_the_reference_run() -> None:
    run = read(ROOT / REFERENCE)
    _, machine, torch, date = run.identity(run.results[0].case.device).values()
    picture = (ROOT / "docs" / "pictures" / "answer.svg").read_text(encoding="utf-8")
    assert escape(f"{machine}, torch {torch}, {date}", quote=False) in picture
    for result in run.results:
        if result.case.scenario == "forward":
            assert f">{result.case.model} {result.case.size}<" in picture


@pytest.mark.parametrize("path", REAL.split())
def test_the_table_of_real_models_names_machine_and_date_of_its_runs(path: str) -> None:
    _, machine, _, date = read(ROOT / path).identity("cpu").values()
    assert f"from {date} on two cores of an {machine.partition(',')[0]}" in README


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 180
    assert len(README.split()) <= 1200


@pytest.mark.parametrize("page", ALL)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", ALL[page]):
        path, _, anchor = link.partition("#")
        if link.startswith("http"):
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], link


@pytest.mark.parametrize("page", GUIDES)
def test_files_that_are_named_are_there(page: str) -> None:
    named = re.findall(r"`((?:[\w*]+/)*[\w*]+\.(?:py|json|md|toml))`", GUIDES[page])
    assert [name for name in named if not NOT_OURS.search(name) and not list(ROOT.glob(name))] == []


def test_the_tree_is_the_tree() -> None:
    tree = re.search(r"## The tree\n\n```text\n(.*?)```", README, re.DOTALL)
    assert tree is not None
    folder = ""
    for line in tree[1].splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else name
        assert (ROOT / (folder if folder == name else folder + name)).exists(), line


def test_options_that_are_named_exist(pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]) -> None:
    for main, arguments in ((guide, []), (selfcheck, ["trueness"]), (machines, ["worker"])):
        with pytest.raises(SystemExit):
            main([*arguments, "--help"])
    helps = [pytestconfig._parser.optparser.format_help(), capsys.readouterr().out]
    others = {"--storage", "--array", "--exclusive", "--time", "--wrap"}  # of the programs pytest-benchmark and sbatch
    options = set(re.findall(r"--[a-z][\w-]*", " ".join(helps))) | others
    options |= {name for command in ANALYSIS.values() for parameter in command.params for name in parameter.opts}
    for page, text in GUIDES.items():
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", re.sub(r"<!--.*?-->", "", text)))
        assert named <= options, page


@pytest.mark.parametrize("page", GUIDES)
def test_commands_of_the_analysis_take_their_arguments(page: str) -> None:
    for line in re.findall(r"python -m analysis ([^`\n|>]*)", GUIDES[page]):
        name, *arguments = shlex.split(line, comments=True)
        ANALYSIS[name].make_context(name, arguments)
