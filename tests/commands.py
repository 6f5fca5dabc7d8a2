"""`pytest --benchmark` as a user types it: in a process of its own, or in this one, which has torch already."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from builders import environment

from analysis import report
from benchmarks.record import Result, Unmeasured, from_json

ROOT = Path(__file__).parent.parent
TINY = ("--models", "mlp", "--sizes", "tiny")
SHORT = ("--device", "cpu", "--allocator", "pages_kept", "--budget", "0.1")
HERE = (*SHORT, "--processes", "1", "--in-process")
"""Starts no launch, each of which imports torch."""


@dataclass(frozen=True)
class Finished:
    status: int
    output: str
    storage: Path

    @property
    def saved(self) -> list[Path]:
        return sorted(self.storage.glob("*/*.json"))

    def run(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.saved[-1].read_text())
        return loaded

    def results(self) -> list[Result]:
        return [from_json(one["extra_info"], Result) for one in self.run()["benchmarks"]]

    def unmeasured(self) -> list[Unmeasured]:
        return [from_json(one, Unmeasured) for one in self.run()["gradtax"]["unmeasured"]]


def benchmark(storage: Path, *arguments: str) -> list[str]:
    return ["--benchmark", "-p", "no:cacheprovider", f"--benchmark-storage=file://{storage}", *arguments]


def type_in(storage: Path, *arguments: str) -> Finished:
    """In a process of its own, output piped."""
    command = [sys.executable, "-m", "pytest", *benchmark(storage, *arguments)]
    variables = environment(COLUMNS="80")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=variables)
    return Finished(done.returncode, done.stdout + done.stderr, storage)


def type_here(storage: Path, *arguments: str, plugins: tuple[Any, ...] = (), page: bool = False) -> Finished:
    """In this process, where nothing may crash or hang. A page takes longer than a run; without it, it is empty."""
    return run_here(storage, *benchmark(storage, *arguments), plugins=plugins, page=page)


def run_here(storage: Path, *command: str, plugins: tuple[Any, ...] = (), page: bool = False) -> Finished:
    said = StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(said), redirect_stderr(said):
        if not page:
            patched.setattr(report, "page", lambda *_: "")
        patched.chdir(ROOT)
        patched.setattr(sys, "argv", ["pytest", *command])
        patched.setattr(sys, "path", list(sys.path))
        patched.setenv("COLUMNS", "80")
        for name in os.environ.keys() - environment().keys():
            patched.delenv(name)
        gc.freeze()  # a collection of all that the tests have imported takes as long as the run
        status: Any = 0
        try:
            status = pytest.main(list(command), plugins=plugins)
        except SystemExit as ended:
            status = ended.code
        finally:
            gc.unfreeze()
    return Finished(int(status), said.getvalue(), storage)
