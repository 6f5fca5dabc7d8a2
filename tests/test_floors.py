"""The floors of the house: a file imports only from lower floors, pytest stays at the edge, analysis never meets torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "benchmarks.record": 0, "benchmarks.statistics": 0.25, "benchmarks.failure": 0.25,
    "analysis": 0.5,  # the tables; suite and conftest show them
    "benchmarks.control_groups": 0, "benchmarks.sensors": 0.25, "benchmarks.conditions": 0.5,
    "benchmarks.tree": 0.5, "benchmarks.allocator": 0.5,
    "benchmarks.modes": 1, "benchmarks.models": 1, "benchmarks.device": 1,
    "benchmarks.scenarios": 2,
    "benchmarks.measure": 3,
    "benchmarks.tasks": 4, "benchmarks.room": 4, "benchmarks.options": 4,
    "benchmarks.lockstep": 4.5, "benchmarks.results": 4.5, "benchmarks.plan": 4.5,
    "benchmarks.suite": 5,
    "benchmarks.session": 6, "benchmarks.test_cases": 6, "benchmarks.selfcheck": 6, "benchmarks.models.__main__": 6,
    "benchmarks.walkthrough": 6,
    "conftest": 7,
}  # fmt: skip
SOURCES = sorted([*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("analysis/**/*.py"), ROOT / "conftest.py"])


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    """The most precise name on the floors that `module` belongs to."""
    names = [name for name in FLOORS if module == name or module.startswith(f"{name}.")]
    return max(names, key=len, default=None)


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_lower_floors_or_its_own_room(path: Path) -> None:
    module = module_of(path)
    if module == "benchmarks":
        assert path.read_text() == ""
        return
    own = room_of(module)
    assert own is not None, f"{module} has no floor"
    for imported in imports_of(path):
        room = room_of(imported)
        if room is not None and room != own:
            assert FLOORS[room] < FLOORS[own], f"{module} imports {imported}, which is not below it"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pytest_appears_only_at_the_edge(path: Path) -> None:
    if module_of(path) not in {"conftest", "benchmarks.test_cases"}:
        assert not {name for name in imports_of(path) if name.split(".")[0] in {"pytest", "_pytest", "pytest_benchmark"}}


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "analysis")], ids=lambda path: path.name)
def test_analysis_takes_only_records_from_the_benchmarks(path: Path) -> None:
    ours = {name for name in imports_of(path) if name.startswith("benchmarks")}
    assert all(name.startswith(("benchmarks.record", "benchmarks.statistics")) for name in ours)
    assert not {name for name in imports_of(path) if name.split(".")[0] == "torch"}
