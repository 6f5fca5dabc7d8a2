"""Small results and saved runs for tests of the modules that read them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.record import Case, Contract, Interval, Kernels, Memory, ModelFacts, Result, Unmeasured, to_json
from benchmarks.statistics import verdict

_TRACKED = Result(
    case=Case("forward", "mlp", "tiny", "cpu", "float32", "resident", "tracked"),
    seconds=125e-6,
    speedup=Interval(1.0, 1.0, 1.0),
    verdict="baseline",
    placebo=Interval(1.001, 0.996, 1.006),
    trusted=True,
    page_faults=0.0,
    memory=Memory(10240, 8192, 8192, 4096, None, "kernel"),
    contract=Contract(holds=True),
    kernels=Kernels(same_as_tracked=True),
    model=ModelFacts(16640, 66560, ["float32[8, 64]"]),
)
_NO_GRAD = {
    "seconds": 100e-6,
    "speedup": Interval(1.25, 1.24, 1.26),
    "verdict": "faster",
    "memory": Memory(4096, 4096, 0, 0, None, "kernel"),
}


def environment(**changes: str) -> dict[str, str]:
    """This process's, without what says that tests run side by side: pytest-benchmark would measure nothing then."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")} | changes


def make_result(mode: str = "no_grad", *, case: dict[str, str] | None = None, **changes: Any) -> Result:
    """A result of `mode`; `case` changes fields of the case (`{"model": "lstm"}`), `changes` those of the result."""
    figures = changes if mode == "tracked" else _NO_GRAD | changes
    return replace(_TRACKED, case=replace(_TRACKED.case, mode=mode, **(case or {})), **figures)


def make_group(**case: str) -> list[Result]:
    return [make_result("tracked", case=case), make_result(case=case)]


def make_timings(
    allocator: str,
    seconds: float,
    speedups: dict[str, Interval],
    faults: dict[str, float],
    *,
    model: str = "mlp",
    **changes: Any,
) -> list[Result]:
    """tracked, at `seconds` per call, and the modes of `speedups`; `faults` are page faults per call, by mode."""
    case = {"model": model, "allocator": allocator}
    tracked = make_result("tracked", case=case, seconds=seconds, page_faults=faults.get("tracked", 0.0), **changes)
    others = [
        make_result(
            mode, case=case, seconds=seconds / speedup.estimate, speedup=speedup,
            verdict=verdict(speedup), page_faults=faults.get(mode, 0.0), **changes,
        )
        for mode, speedup in speedups.items()
    ]  # fmt: skip
    return [tracked, *others]


def saved_run(
    path: Path, results: Iterable[Result] = (), unmeasured: Iterable[Unmeasured] = (), foreign: int = 0, **facts: Any
) -> Path:
    """Writes a run as pytest-benchmark saves it, after `foreign` benchmarks of other tests, and returns `path`.

    `facts` are what identifies the machine and the build, such as `torch="2.13.0"`.
    """
    benchmarks = [saved_benchmark("test_other", {"note": "not ours"}) for _ in range(foreign)]
    benchmarks += [saved_benchmark(f"test_case[{result.case}]", to_json(result)) for result in results]
    run = {
        "machine_info": {"node": "here", "cpu": {"brand_raw": "Some CPU", "count": 2}, "gradtax": facts},
        "commit_info": {"id": "unknown"},
        "benchmarks": benchmarks,
        "datetime": "2026-11-22T19:08:56+00:00",
        "version": "5.3.1",
        "gradtax": {"schema": 1, "unmeasured": [to_json(one) for one in unmeasured], "conditions": {"command": []}},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run))
    return path


def saved_benchmark(name: str, extra_info: Any) -> dict[str, Any]:
    stats = {"min": 1e-4, "median": 1.2e-4, "rounds": 2, "data": [1e-4, 1.4e-4], "iterations": 3}
    return {"group": None, "name": name, "fullname": f"test_x.py::{name}", "extra_info": extra_info, "stats": stats}
