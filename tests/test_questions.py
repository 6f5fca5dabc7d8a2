"""docs/questions.md: each question has its address, one command and a short answer. test_readme.py looks whether the answers are fresh."""

from __future__ import annotations

import re

import pytest

from docs.refresh import ROOT, TRANSCRIPT

INTRODUCTION, *SECTIONS = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8").split("\n## ")
QUESTIONS = dict(section.split("\n\n", maxsplit=1) for section in SECTIONS)
ADDRESS = re.compile(r"<(https://\S+)>")


def test_at_least_twenty_questions_are_answered_each_asked_in_a_place_of_its_own() -> None:
    assert len(QUESTIONS) >= 20
    assert len({address for text in QUESTIONS.values() for address in ADDRESS.findall(text)}) == len(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_has_its_address_one_command_what_that_prints_and_one_paragraph(question: str) -> None:
    asked, transcript, answer = QUESTIONS[question].rstrip("\n").split("\n\n")
    assert len(ADDRESS.findall(asked)) == 1
    answered = TRANSCRIPT.fullmatch(f"{transcript}\n")
    assert answered is not None
    assert len(answered[3].splitlines()) <= 6
    assert "\n" not in answer
