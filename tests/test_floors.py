"""The rules of the house: who may import what."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EDGES = {"benchmarks.notebook", "benchmarks.guide", "benchmarks.selfcheck"}
"""They print."""
SHARED = {"benchmarks.record", "benchmarks.intervals", "benchmarks.saving"}
"""What measures and what analyses both use these."""
EXTRAS = {
    "dask",
    "distributed",
    "transformers",
    "timm",
    "torchvision",
    "pynvml",
    "typer",
    "rich",
    "jinja2",
    "altair",
    "vl_convert",
}
"""A machine without them measures."""


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Names in full."""
    imported = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    return imported


def among(names: Iterable[str], modules: set[str]) -> set[str]:
    return {name for name in names if any(name == module or name.startswith(f"{module}.") for module in modules)}


TREES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
    for folder in ("benchmarks", "analysis")
    for path in ROOT.glob(f"{folder}/**/*.py")
}
ANYWHERE = {module: imports(ast.walk(tree)) for module, tree in TREES.items()}
AT_ONCE = {module: imports(tree.body) for module, tree in TREES.items()}
"""When the module is imported."""
MEASURING = among(TREES, {"benchmarks"}) - among(TREES, EDGES)
READING = among(TREES, {"analysis"}) | SHARED
RULES = {
    "what measures knows nothing of analysis": (MEASURING, ANYWHERE, {"analysis"}),
    "what measures needs no library that is not always there": (MEASURING, AT_ONCE, EXTRAS),
    "what reads results knows records and intervals of what measures": (READING, ANYWHERE, among(TREES, {"benchmarks"}) - {"benchmarks"} - SHARED),
    "what reads results meets no torch": (READING, ANYWHERE, {"torch"}),
    "pytest stays at the edge": (set(TREES) - {"benchmarks.test_cases"}, ANYWHERE, {"pytest", "_pytest", "pytest_benchmark"}),
}  # fmt: skip


@pytest.mark.parametrize(("modules", "imported", "kept_out"), RULES.values(), ids=RULES)
def test_a_rule_of_the_house(modules: set[str], imported: dict[str, set[str]], kept_out: set[str]) -> None:
    assert {module: found for module in modules if (found := among(imported[module], kept_out))} == {}


def test_no_module_imports_what_leads_back_to_it_not_for_a_type_either() -> None:
    def module_of(name: str) -> str:
        return max((module for module in TREES if f"{name}.".startswith(f"{module}.")), key=len, default="")

    graph = {module: {module_of(name) for name in imported} - {module, ""} for module, imported in ANYWHERE.items()}
    TopologicalSorter(graph).prepare()
