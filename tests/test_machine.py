"""Proves that a run says which machine made it, and two runs in what they differ."""

from __future__ import annotations

from builders import result, run

from analysis.machine import differs, facts, identity

MACHINE = {
    "cpu": {"brand_raw": "Some CPU", "count": 2}, "system": "Linux", "release": "6.1", "python_version": "3.11.7",
    "gradtax": {"torch": "2.13.0", "threads": 2, "devices": {"cpu": {"cores": 8}, "cuda": {"name": "H200", "total_bytes": 2**37}}},
}  # fmt: skip


def test_a_line_names_devices_build_time_run_and_commit() -> None:
    both = run(result("tracked"), result("tracked", device="cuda"), machine=MACHINE)
    assert identity(both) == "Some CPU, 8 cores and H200, torch 2.13.0, 2 threads, 2026-11-22 19:08, run 0001, commit abcdef12"
    assert ", 1 thread, " in identity(run(result("tracked"), machine=MACHINE, conditions={"threads": 1})), (
        "those that were used"
    )
    assert identity(run(machine={}, name="", saved_at="", commit="")) == ""


def test_facts_carry_their_units_and_leave_out_what_is_not_known() -> None:
    conditions = {
        "budget_seconds": 12.0, "memory_pressure_percent": 0.5, "in_process": False, "cpu_limit_cores": None, "warnings": ["loud"],
        "command": ["pytest", "--benchmark"], "meters": [{"within_tolerance": True}, {"within_tolerance": False}],
    }  # fmt: skip
    assert facts(run(machine=MACHINE, conditions=conditions)) == {
        "processor": "Some CPU", "system": "Linux 6.1", "python": "3.11.7", "torch": "2.13.0", "threads": "2", "cpu cores": "8",
        "cuda name": "H200", "cuda total": "128 GiB", "budget": "12 s", "memory pressure": "0.5 %", "in process": "no",
        "command": "pytest --benchmark",
        "memory meters": "1 of 2 blocks of known size read right; a meter that is off gives no figure",
    }  # fmt: skip
    assert facts(run(machine={})) == {}


def test_two_runs_differ_in_a_line_per_fact() -> None:
    other = MACHINE | {"python_version": "3.12.1", "gradtax": {"torch": "2.14.0", "parallel": "x" * 100}}
    assert differs(run(machine=MACHINE), run(machine=MACHINE)) == []
    found = differs(run(machine=MACHINE), run(machine=other, commit="fedcba98"))
    assert found[:3] == ["commit: abcdef12 -> fedcba98", "python: 3.11.7 -> 3.12.1", "torch: 2.13.0 -> 2.14.0"]
    assert "threads: 2 -> -" in found
    assert found[-1] == f"parallel: - -> {'x' * 57}..."
