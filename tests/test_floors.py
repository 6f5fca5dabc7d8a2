"""The rules of the house: what measures knows nothing of analysis, analysis meets no torch, and pytest stays at the edge."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EDGES = {"benchmarks.notebook", "benchmarks.guide", "benchmarks.selfcheck"}
"""They print."""
SHARED = {"benchmarks.record", "benchmarks.intervals", "benchmarks.saving"}
"""What measures and what analyses both use these."""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Names in full, wherever in the file they are imported."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    return imported


def belongs(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


FILES = {
    module_of(path): imports_of(path) for path in sorted([*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("analysis/**/*.py")])
}
MEASURING = [name for name in FILES if belongs(name, {"benchmarks"}) and not belongs(name, EDGES)]
ANALYSING = [name for name in FILES if belongs(name, {"analysis"})]


@pytest.mark.parametrize("module", MEASURING)
def test_what_measures_never_imports_analysis(module: str) -> None:
    assert not {name for name in FILES[module] if belongs(name, {"analysis"})}


@pytest.mark.parametrize("module", [*ANALYSING, *sorted(SHARED)])
def test_what_reads_results_takes_records_and_intervals_alone_from_what_measures_and_no_torch(module: str) -> None:
    ours = {name for name in FILES[module] if belongs(name, {"benchmarks"})}
    assert ours == {name for name in ours if belongs(name, SHARED)}
    assert not {name for name in FILES[module] if belongs(name, {"torch"})}


@pytest.mark.parametrize("module", [name for name in FILES if name != "benchmarks.test_cases"])
def test_pytest_appears_only_at_the_edge(module: str) -> None:
    assert not {name for name in FILES[module] if belongs(name, {"pytest", "_pytest", "pytest_benchmark"})}
