"""Other harnesses as a user would run them: one arm after the other, each for the same seconds, with one thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

from benchmarks.machines import ROOT
from benchmarks.plan import Job

_TEST_FILE = """
import pytest, torch
from benchmarks.selfcheck.planted import planted_job

torch.set_num_threads(1)
JOB = planted_job({arms!r})
WORKLOAD = JOB.build()

@pytest.mark.parametrize("arm", JOB.modes)
def test_arm(benchmark, arm):
    benchmark(JOB.step(WORKLOAD, arm))
"""


def pytest_benchmark(arms: Sequence[str], seconds: float) -> dict[str, dict[str, float]]:
    """Seconds of each arm by `median` and by `min`, measured in an empty folder, without our options and our conftest. Raises CalledProcessError."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")} | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory(prefix="gradtax-") as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_arms.py").write_text(_TEST_FILE.format(arms=list(arms)))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_arms.py",
                   f"--benchmark-max-time={seconds}", "--benchmark-json=run.json"]  # fmt: skip
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)  # noqa: S603 - our own
        benchmarks = json.loads((folder / "run.json").read_text())["benchmarks"]
    return {statistic: {one["params"]["arm"]: one["stats"][statistic] for one in benchmarks} for statistic in ("median", "min")}


def torch_timer(job: Job, seconds: float) -> dict[str, float]:
    """Median seconds of each arm by `blocked_autorange`. To be run in a worker."""
    torch.set_num_threads(1)
    workload = job.build()
    timers = {arm: Timer("step()", globals={"step": job.step(workload, arm)}) for arm in job.modes}
    return {arm: timer.blocked_autorange(min_run_time=seconds).median for arm, timer in timers.items()}
