"""The door for notebooks and scripts.

```python
from benchmarks.notebook import measure_model

result = measure_model(module, inputs)
print(result)
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from benchmarks.executors import Here
from benchmarks.local import Local
from benchmarks.models import DTYPES, OWN_SIZE, SIZES, Workload
from benchmarks.models.workload import Inputs
from benchmarks.options import ALL_MODES, CHOSEN_BUDGET, EXECUTIONS, Effort, OptionError, RunOptions, names_of
from benchmarks.plan import Job, modes_of
from benchmarks.record import EAGER, FORWARD, Result, Unmeasured
from benchmarks.run import Run
from benchmarks.scenarios import SCENARIOS
from benchmarks.workers import InProcess


@dataclass(frozen=True, slots=True)
class Measurement:
    """What `measure_model` found. Printing it shows the table; `results` are the records that a saved run holds."""

    results: list[Result]
    unmeasured: list[Unmeasured]

    def __getitem__(self, mode: str) -> Result:
        """The first result of `mode`. Raises KeyError if it was not measured."""
        return {result.case.mode: result for result in reversed(self.results)}[mode]

    def __repr__(self) -> str:
        from analysis import read, render, summarise  # pandas takes a second, which measuring need not wait for

        run = read.Run(read.as_read(self.results), read.as_read(self.unmeasured))
        return render.rendered(summarise.summary(run), run.frame)


@dataclass(frozen=True, slots=True)
class _Live:
    """A module that is there already, as a source of workloads: it is measured as it is, where it is."""

    model: str
    size: str
    loaded: Workload

    def workload(self, device: str, dtype: str) -> Workload:  # noqa: ARG002 - the interface's
        return self.loaded


def measure_model(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    name: str | None = None,
    modes: str | Sequence[str] | None = None,
    sizes: str | Sequence[str] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    execution: str | Sequence[str] = EAGER,
    **effort: Any,
) -> Measurement:
    """What tracking costs `model`, measured as `pytest --benchmark` does; `effort` are fields of options.Effort (budget, processes, ...).

    A module with its `inputs` (a tensor, a tuple of positional arguments or a dict of keyword arguments) is measured as it is, where it is, in
    this process: `peak_rss_bytes` needs a process of its own and is None, the interval is that of one process, which the next may miss, and
    from then on this process keeps freed pages (glibc). A SPEC (`path.py:function` or `package.module:function`) is measured
    in workers, with all figures. `modes`, `sizes` and `execution` (eager, compiled) are names, in a sequence or separated by commas.

    Raises OptionError or argparse.ArgumentTypeError for a value that cannot be had, own.ModelError for a SPEC that does not suit, and
    TypeError for inputs of another kind.
    """
    options = RunOptions(
        own_models=(model,) if isinstance(model, str) else (),
        modes=_names(modes, ALL_MODES),
        sizes=_names(sizes, SIZES),
        device=(device,) if device else None,
        dtype=names_of(DTYPES)(dtype) if dtype else None,
        execution=_names(execution, EXECUTIONS) or (EAGER,),
        processes=effort.get("processes"),
        effort=Effort(**{"budget": CHOSEN_BUDGET, **effort}),
    )
    if isinstance(model, str):
        here = Local(options)
        return _measured(here.jobs, here)
    if inputs is None:
        raise TypeError("measure_model(module, inputs): inputs are missing; a tensor, a tuple or a dict")
    options = replace(options, effort=replace(options.effort, processes=1))
    return _measured(_live_jobs(model, inputs, name, options), Here(InProcess()))


def _names(chosen: str | Sequence[str] | None, choices: Sequence[str]) -> tuple[str, ...] | None:
    if chosen is None:
        return None
    return names_of(choices)(chosen if isinstance(chosen, str) else ",".join(chosen))


def _measured(jobs: Sequence[Job], executor: Here) -> Measurement:
    run = Run(executor.results(jobs))
    run.take()
    return Measurement(run.results, run.unmeasured)


def _live_jobs(module: nn.Module, inputs: Inputs, name: str | None, options: RunOptions) -> list[Job]:
    workload = Workload.of(module, inputs)
    devices = {str(tensor.device) for tensor in (*module.parameters(), *module.buffers(), *workload.input_tensors())}
    if len(devices) > 1:
        raise OptionError(
            f"{type(module).__name__} is spread over {', '.join(sorted(devices))}; move the module and its inputs to one device"
        )
    trackable = [*module.parameters(), *(tensor for tensor in workload.input_tensors() if tensor.requires_grad)]
    if not trackable:
        raise TypeError(f"{type(module).__name__} has no parameters and no input requires grad, so there is nothing to track")
    job = Job(
        scenario=FORWARD,
        source=_Live(name or type(module).__name__, OWN_SIZE, workload),
        device=devices.pop(),
        dtype=workload.dtype,
        modes=modes_of(SCENARIOS[FORWARD], options),
        effort=options.effort,
    )
    return [replace(job, execution=execution) for execution in options.execution]
