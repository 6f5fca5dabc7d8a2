"""Proves in a real bash that `python -m analysis` is completed, and that nothing else of python is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import saved_run

from analysis.completion import BASH, of, runs

ROOT = Path(__file__).parent.parent


def completed(*words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"{BASH}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _gradtax_analysis '{sys.executable}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], env=environment, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_values_and_leaves_other_modules_alone() -> None:
    assert completed("python", "-m", "analysis", "su") == ["summarise"]
    assert completed("python", "-m", "analysis", "summarise", "--f") == ["--format"]
    assert completed("python", "-m", "analysis", "summarise", "--by", "model,s") == ["model,size", "model,scenario"]
    assert completed("python", "-m", "pytest", "-") == []


def test_runs_are_completed_from_those_that_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved_run(Path("results/machine/0003_x.json"))
    assert (runs(""), runs("00"), runs("results/")) == (["latest", "0003"], ["0003"], [])


def test_the_last_of_several_names_is_completed() -> None:
    assert of(["model", "mode", "size"])("mo") == ["model", "mode"]
    assert of(["model", "mode", "size"])("model,s") == ["model,size"]
