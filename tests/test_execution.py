"""Compiled steps and steps under autocast: the mode is around them, each mode is compiled once, and what cannot be compiled is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from stand_ins import Net, job_of
from torch._inductor.exc import InvalidCxxCompiler

from benchmarks.execution import NO_COMPILER, compiling
from benchmarks.failure import Failure
from benchmarks.measure.alternating import PLACEBO, time_together
from benchmarks.measure.examine import Examination, examine
from benchmarks.measure.timing import Limits, Timings
from benchmarks.modes import MODES
from benchmarks.plan import Job
from benchmarks.record import COMPILED, EAGER, Kernels, Memory

LIMITS = Limits(rounds=4, seconds=0.0, warm_seconds=0.0, longest_warm_seconds=0.0, washout=2, calls=3)


def linear(net: Net, x: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = net.linear(x)
    return output.exp()


def examined(job: Job, mode: str = "no_grad") -> Examination:
    return examine(job, mode, with_tracked=True, own_process=False)


def memory_of(job: Job, mode: str) -> Memory:
    memory = examined(job, mode).memory
    assert memory is not None
    return memory


def together(job: Job, *modes: str) -> Timings:
    return time_together(job, modes, LIMITS, 0, own_process=False)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether gradients were on as each graph was compiled, by a stand-in for inductor that leaves them as they are."""
    found: list[bool] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> Callable[..., Any]:
        found.append(torch.is_grad_enabled())
        return graph.forward

    monkeypatch.setattr("benchmarks.execution.BACKEND", backend)
    yield found
    torch.compiler.reset()


# Compiled.


def test_each_mode_is_around_a_model_that_was_compiled_for_it_once(graphs: list[bool]) -> None:
    job = job_of(linear, COMPILED)
    workload = job.build()
    with compiling(COMPILED, arms=2):
        steps = [job.step(workload, mode) for mode in ("tracked", "no_grad")]
        outputs = [step() for step in steps * 3]
    assert graphs == [True, False]
    assert [output.requires_grad for output in outputs] == [True, False] * 3


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("mode", MODES)
def test_a_compiled_mode_keeps_its_promises_and_what_only_eager_steps_tell_is_withheld(mode: str) -> None:
    found = examined(job_of(linear, COMPILED), mode)
    assert found.contract.holds
    assert found.kernels == Kernels(same_as_tracked=None)
    assert found.compile_seconds
    assert found.memory is not None
    assert found.memory.peak_tensor_bytes == 256, "the linear layer's output and its exponential"
    assert found.memory.saved_bytes is None
    assert "torch.compile chooses" in found.memory.unavailable["saved_bytes"]


def test_arms_are_compiled_before_they_are_timed_and_what_is_compiled_later_is_counted(graphs: list[bool]) -> None:
    timings = together(job_of(linear, COMPILED), "tracked", "no_grad")
    assert (timings.recompilations, graphs) == (0, [True, False]), "the placebo is tracked's code"
    assert set(timings.seconds) == {"tracked", "no_grad", PLACEBO}
    assert together(job_of(linear), "tracked").recompilations is None

    def changing(net: Net, x: torch.Tensor) -> torch.Tensor:
        net.calls = min(net.calls + 1, 3)
        return linear(net, x)

    assert together(job_of(changing, COMPILED), "no_grad").recompilations == 3


@pytest.mark.usefixtures("graphs")
def test_a_model_that_is_compiled_anew_in_every_call_is_not_run_eagerly_in_the_end() -> None:
    def counting(net: Net, x: torch.Tensor) -> torch.Tensor:
        net.calls += 1
        return linear(net, x)

    with pytest.raises(Failure, match=r"torch\.compile compiles it anew in call after call") as caught:
        together(job_of(counting, COMPILED), "no_grad")
    assert (caught.value.arm, caught.value.status) == ("no_grad", "unsupported")


@pytest.mark.usefixtures("graphs")
def test_arms_that_share_a_models_code_do_not_use_up_each_others_compilations() -> None:
    modes = ("tracked", "no_grad", "inference_mode")
    job = job_of(lambda net, x: linear(net, x) * net.calls, COMPILED)
    workload = job.build()
    with compiling(COMPILED, len(modes)):
        for calls in range(4):
            workload.module.calls = calls  # type: ignore[assignment]
            for mode in modes:
                job.step(workload, mode)()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("no such operator"), "torch.compile: BackendCompilerFailed: "), (InvalidCxxCompiler(), NO_COMPILER)],
)
def test_what_cannot_be_compiled_here_is_unsupported_in_words_and_names_its_arm(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def backend(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> Any:
        if torch.is_grad_enabled():
            return graph.forward
        raise error

    monkeypatch.setattr("benchmarks.execution.BACKEND", backend)
    for run, arm in ((examined, None), (together, "no_grad")):
        with pytest.raises(Failure) as caught:
            run(job_of(linear, COMPILED), "no_grad")
        assert (caught.value.status, caught.value.arm) == ("unsupported", arm)
        assert caught.value.reason.startswith(reason)


@pytest.mark.usefixtures("graphs")
def test_a_model_of_which_nothing_is_compiled_is_not_passed_off_as_compiled() -> None:
    disabled = torch.compiler.disable(linear)  # type: ignore[no-untyped-call]
    with pytest.raises(Failure, match=r"torch\.compile finds nothing in it to compile") as caught:
        examined(job_of(disabled, COMPILED), "tracked")
    assert caught.value.status == "unsupported"


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles with g++")
def test_torchs_own_compiler_compiles_a_mode_that_is_then_examined() -> None:
    """With inductor, and without what it prepares for larger models: threads, headers, vector instructions."""
    from torch._inductor import config

    with config.patch({"compile_threads": 1, "cpp_cache_precompile_headers": False, "cpp.vec_isa_ok": False}):
        found = examine(job_of(linear, COMPILED), "no_grad", with_tracked=False, own_process=False)
    assert found.contract.holds
    assert found.compile_seconds
    assert found.memory is not None
    assert found.memory.peak_tensor_bytes


# Autocast.


@pytest.mark.parametrize(("dtype", "cast"), [("amp_bfloat16", torch.bfloat16), ("amp_float16", torch.float16)])
@pytest.mark.parametrize("execution", [EAGER, COMPILED])
@pytest.mark.usefixtures("graphs")
def test_a_step_runs_under_autocast_of_its_own_and_the_model_stays_float32(
    dtype: str, cast: torch.dtype, execution: str
) -> None:
    seen = []

    def forward(net: Net, x: torch.Tensor) -> Any:
        seen.append(torch.is_autocast_enabled("cpu"))
        return net.linear(x)

    job = job_of(forward, execution, dtype)
    workload = job.build()
    step = job.step(workload, "no_grad")
    assert [step().dtype, step().dtype] == [cast, cast]
    assert set(seen) == {True}
    assert not torch.is_autocast_enabled("cpu")
    assert (workload.dtype, workload.input_tensors()[0].dtype) == ("float32", torch.float32)


def test_copies_of_weights_that_autocast_made_are_told_apart_and_kept_only_where_they_are_needed() -> None:
    once = job_of(linear, dtype="amp_bfloat16")
    assert [memory_of(once, mode).cast_saved_bytes for mode in ("tracked", "no_grad")] == [0, 0], "the input needs no gradient"
    twice = job_of(lambda net, x: net.linear(net.linear(x)), dtype="amp_bfloat16")
    assert memory_of(twice, "tracked").cast_saved_bytes == 8 * 8 * 2
