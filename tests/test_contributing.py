"""CONTRIBUTING.md tells the truth: each of its diffs applies to a copy of the tree, and the command under it works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import environment

ROOT = Path(__file__).parent.parent
SECTION = re.compile(r"^## (Add a \w+)\n.*?```diff\n(.*?)```.*?```console\n\$ (.*?)\n```", re.MULTILINE | re.DOTALL)
RECIPES = {title: (diff, command) for title, diff, command in SECTION.findall((ROOT / "CONTRIBUTING.md").read_text())}
SHOWN = {
    "Add a mode": "enable_grad",
    "Add a model": "autoencoder tiny",
    "Add a scenario": "mlp tiny   ensemble",
    "Add a metric": "output_bytes",
    "Add a table": "inference_mode",
}


def test_there_is_a_recipe_for_everything_that_can_be_added() -> None:
    assert list(RECIPES) == list(SHOWN)


def test_every_file_of_analysis_has_its_place() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert [path.name for path in (ROOT / "analysis").glob("[!_]*.py") if f"`{path.name}`" not in text] == []


@pytest.mark.parametrize("title", SHOWN)
def test_a_recipe_works_as_it_stands(title: str, tmp_path: Path) -> None:
    for name in ("benchmarks", "analysis", "results/reference", "conftest.py", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    diff, command = RECIPES[title]
    subprocess.run(["git", "apply", "-"], input=diff, cwd=tmp_path, text=True, check=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment(PATH=path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert SHOWN[title] in done.stdout
