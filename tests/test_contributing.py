"""CONTRIBUTING.md tells the truth: each of its diffs applies to a copy of the tree, and the commands under it work."""

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
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^## (Add an? \w+)\n.*?```diff\n(.*?)```.*?```console\n\$ (.*?)\n```", re.MULTILINE | re.DOTALL)
RECIPES = {title: (diff, commands.split("\n$ ")) for title, diff, commands in SECTION.findall(TEXT)}
COLLECT, HERE = " --collect-only", " --in-process"
SHOWN = {
    "Add a mode": ("mlp-tiny-cpu-float32-eager-pages_kept-save_on_cpu", COLLECT),
    "Add a model": ("forward-autoencoder-tiny", COLLECT),
    "Add a scenario": ("ensemble-mlp-tiny", COLLECT),
    "Add a metric": ("output_bytes", HERE),
    "Add an executor": ('"model": "mlp"', HERE),
}
"""What the commands show, and what is added to the first of them so that it takes no longer than it must."""


def test_there_is_a_recipe_for_everything_that_can_be_added() -> None:
    assert list(RECIPES) == list(SHOWN)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with every diff in it, each of which applies to the tree as it is."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("benchmarks", "analysis"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    for options in (["--check"], []):
        for diff, _ in RECIPES.values():
            subprocess.run(["git", "apply", *options, "-"], input=diff, cwd=copy, text=True, check=True)
    return copy


@pytest.mark.parametrize("title", SHOWN)
def test_a_recipe_works_as_it_stands(title: str, changed: Path) -> None:
    shown, more = SHOWN[title]
    first, *others = RECIPES[title][1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        "; ".join(["set -e", first + more, *others]), shell=True, cwd=changed, env=environment(PATH=path, PYTEST_ADDOPTS="-p no:hypothesispytest"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown in done.stdout
