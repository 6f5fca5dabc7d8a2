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

RUN = """
import shlex, sys, pytest
for command in sys.argv[1:]:
    print(f"$ {command}", flush=True)
    print("exit status", int(pytest.main(shlex.split(command)[1:])), flush=True)
"""


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


def said(command: str | list[str], tree: Path) -> str:
    variables = environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    pipe, shell = subprocess.PIPE, isinstance(command, str)
    done = subprocess.run(command, shell=shell, cwd=tree, env=variables, stdout=pipe, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode()


@pytest.fixture(scope="module")
def runs(changed: Path) -> dict[str, str]:
    """What the first command of each recipe says, all in one process because each would import torch."""
    commands = [RECIPES[title][1][0] + more for title, (_, more) in SHOWN.items()]
    told = said([sys.executable, "-c", RUN, *commands], changed).split("$ pytest ")
    return dict(zip(SHOWN, told[1:], strict=True))


@pytest.mark.parametrize("title", SHOWN)
def test_a_recipe_works_as_it_stands(title: str, changed: Path, runs: dict[str, str]) -> None:
    told = [runs[title], *(said(command, changed) for command in RECIPES[title][1][1:])]
    assert "exit status 0" in told[0], told[0]
    assert SHOWN[title][0] in told[-1], told
