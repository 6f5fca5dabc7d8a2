"""`pytest --benchmark`, ended: by Ctrl-C twice, and gone on with; by a disk that takes no more."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from builders import environment

from analysis.read import read

ROOT = Path(__file__).parent.parent
OPTIONS = (
    "--models", "mlp", "--sizes", "tiny,small", "--modes", "tracked,no_grad", "--device", "cpu", "--allocator", "pages_kept",
    "--budget", "0.1", "--processes", "1", "-p", "no:cacheprovider",
)  # fmt: skip


def command(storage: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "--benchmark", *OPTIONS, f"--benchmark-storage=file://{storage}", *more]


def run(storage: Path, *more: str, **settings: Any) -> tuple[int, str]:
    ended = subprocess.run(
        command(storage, *more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment(),
        **settings,
    )
    return ended.returncode, ended.stdout + ended.stderr


def journals(storage: Path) -> list[Path]:
    return list(storage.glob("*/.unfinished_*.jsonl"))


def test_ctrl_c_twice_saves_what_is_there_leaves_no_process_and_can_be_gone_on_with(tmp_path: Path) -> None:
    started = subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment())
    assert started.stdout is not None
    shown = ""
    while "[2/2]" not in shown:
        shown += started.stdout.readline()
    family = psutil.Process(started.pid).children(recursive=True)
    started.send_signal(signal.SIGINT)
    started.send_signal(signal.SIGINT)
    shown += started.stdout.read()
    assert started.wait(60) == 2
    assert psutil.wait_procs(family, timeout=30)[1] == []
    assert "1 of 2 jobs are kept" in shown
    assert "--resume" in shown
    (partial,) = tmp_path.glob("*/*.json")
    (journal,) = journals(tmp_path)
    assert read(partial).conditions["unfinished"].startswith("1 of 2 jobs are measured")

    status, shown = run(tmp_path, "--retries", "0", "--resume")
    assert status == 2
    assert "jobs and options: " in shown
    assert journals(tmp_path) == [journal]

    status, shown = run(tmp_path, "--resume")
    assert status == 0, shown
    assert "1 of 2 jobs are there" in shown
    assert "[1/1] forward mlp small" in shown
    whole = read(max(tmp_path.glob("*/*.json")))
    assert [result.case.size for result in whole.results] == ["tiny", "tiny", "small", "small"]
    assert [segment["jobs"] for segment in whole.conditions["segments"]] == [1, 1]
    assert "unfinished" not in whole.conditions
    kept = json.loads(partial.read_text())["benchmarks"][0]["stats"]["data"]
    assert json.loads(whole.path.read_text())["benchmarks"][0]["stats"]["data"] == kept if whole.path else False
    assert journals(tmp_path) == []

    status, shown = run(tmp_path, "--resume")
    assert (status, "there is no unfinished run" in shown) == (2, True)


@pytest.mark.parametrize("limit", [12 * 1024])
def test_a_disk_that_takes_no_more_is_told_and_what_was_measured_is_shown(tmp_path: Path, limit: int) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    status, shown = run(tmp_path / "store", f"--benchmark-json={tmp_path / 'too.json'}", preexec_fn=limited)
    assert "what gradient tracking costs" in shown
    assert "File too large" in shown
    assert "Traceback" not in shown
    assert status in (0, 2)
    assert [path.name for path in tmp_path.rglob("*.json")] == []
    (journal,) = journals(tmp_path / "store")
    assert journal.stat().st_size <= limit


def test_a_dump_that_cannot_be_written_does_not_cost_the_run(tmp_path: Path) -> None:
    (tmp_path / "dump.json").mkdir()
    status, shown = run(tmp_path / "store", f"--benchmark-json={tmp_path / 'dump.json'}", "-k", "tiny")
    assert status == 0
    assert "dump.json could not be written" in shown
    assert len(list((tmp_path / "store").glob("*/*.json"))) == 1
