"""A mode is examined before it is timed: contract, kernels, memory and page faults; what fails is told for what it is."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from stand_ins import Net, job_of, launches, linear, tracking

from benchmarks.failure import Failure
from benchmarks.measure.examine import Examination, as_shipped, examine
from benchmarks.models import Source
from benchmarks.modes import DEFAULT_MODES
from benchmarks.plan import Job
from benchmarks.record import Kernels, ModelFacts
from benchmarks.scenarios import SCENARIOS


def examined(forward: Callable[[Net, torch.Tensor], Any] = linear, mode: str = "no_grad", **how: Any) -> Examination:
    return examine(job_of(forward), mode, **{"with_tracked": True, "own_process": False, **how})


@pytest.mark.parametrize("mode", DEFAULT_MODES)
def test_a_mode_that_does_what_it_says_is_measured(mode: str) -> None:
    found = examined(lambda net, x: net.linear(x).exp(), mode)
    assert found.contract.holds
    assert found.kernels == Kernels(same_as_tracked=True)
    assert found.model == ModelFacts(72, 288, ["float32[4, 8]"])
    assert found.memory is not None
    assert found.memory.saved_bytes == (128 if mode in ("tracked", "detach") else 0)
    assert (found.memory.peak_rss_bytes, found.as_shipped) == (None, None)


def test_a_broken_contract_is_told_and_nothing_is_measured() -> None:
    found = examined(tracking)
    assert [promise.promise for promise in found.contract.broken] == ["history", "records"]
    assert found.memory is None


def caching(net: Net, x: torch.Tensor) -> Any:
    net.cache = x * 2 if net.cache is None else net.cache
    return linear(net, x) * net.cache


def untracked_for_good(net: Net, x: torch.Tensor) -> Any:
    net.cache = net.cache or not torch.is_grad_enabled()
    return linear(net, x).detach() if net.cache else linear(net, x)


@pytest.mark.parametrize(
    ("forward", "mode", "left"),
    [
        (caching, "no_grad", None),
        (caching, "inference_mode", "inference_mode fails: RuntimeError: Inference tensors cannot be saved for backward"),
        (lambda net, x: linear(net.requires_grad_(torch.is_grad_enabled()), x), "no_grad", None),
        (untracked_for_good, "no_grad", "no_grad is not tracked"),
    ],
)
def test_what_a_mode_leaves_behind_for_a_tracked_call_breaks_its_contract(
    forward: Callable[[Net, torch.Tensor], Any], mode: str, left: str | None
) -> None:
    broken = {promise.promise: promise.reason for promise in examined(forward, mode).contract.broken}
    assert list(broken) == (["tracked_after"] if left else [])
    assert broken.get("tracked_after", "").startswith(f"a tracked call after {left}" if left else "")


def test_running_out_of_memory_in_the_tracked_call_is_not_blamed_on_the_mode() -> None:
    def full(net: Net, x: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            raise MemoryError
        return linear(net, x)

    with pytest.raises(MemoryError):
        examined(full)


def test_what_a_call_changes_for_the_next_one_is_told() -> None:
    def careless(net: Net, x: torch.Tensor) -> Any:
        torch.set_num_threads(2)
        return linear(net, x.mul_(1.5))

    assert examined(careless).contract.changes == ["inputs", "the number of threads"]
    assert examined().contract.changes == []


def test_without_tracked_there_is_nothing_to_compare_with_and_calls_alone_measure_nothing() -> None:
    found = examined(lambda net, x: net.linear(x) + torch.is_grad_enabled(), with_tracked=False)
    assert (found.contract.holds, found.kernels) == (True, Kernels(same_as_tracked=None))
    found = examined(calls_only=True)
    assert (found.contract.holds, found.kernels) == (True, Kernels(same_as_tracked=None))
    assert (found.memory, found.as_shipped) == (None, None)


def more(net: Net, x: torch.Tensor) -> Any:
    for _ in range(3 if torch.is_grad_enabled() else 5):
        x = x.neg()
    return linear(net, x)


def unsteady(net: Net, x: torch.Tensor) -> Any:
    net.calls += 1
    return linear(net, x) + net.calls * 1e-7


@pytest.mark.parametrize(
    ("forward", "kernels"),
    [
        (more, Kernels(same_as_tracked=False, added=["aten::neg x2"])),
        (lambda net, x: linear(net, x) + (1e-7 if torch.is_grad_enabled() else 0.0), Kernels(same_as_tracked=False)),
        (unsteady, Kernels(same_as_tracked=True)),
    ],
)
def test_other_kernels_are_other_operators_by_number_or_other_bits_unless_trackeds_own_differ_from_call_to_call(
    forward: Callable[[Net, torch.Tensor], Any], kernels: Kernels
) -> None:
    assert examined(forward).kernels == kernels


def test_where_modes_do_other_work_by_design_kernels_are_not_compared_and_loops_are_measured_per_step() -> None:
    (losses, _) = SCENARIOS["loss_logging"].families
    source = Source(losses.name, "tiny", family=losses)
    job = Job(scenario="loss_logging", source=source, device="cpu", dtype="float32", modes=("tracked", "item"))
    found = examine(job, "item", True, False)
    assert found.kernels == Kernels(same_as_tracked=None)
    assert found.memory is not None
    assert found.memory.held_bytes_per_step == 0


def refusing(net: Net, x: torch.Tensor) -> Any:
    """In no_grad, what torch says of a backward pass without a graph."""
    loss = linear(net, x).sum()
    loss.backward()
    net.zero_grad()
    return loss


def mistaken(net: Net, x: torch.Tensor) -> Any:
    if torch.is_grad_enabled():
        x.backward()  # type: ignore[no-untyped-call]
    return refusing(net, x)


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


def raising(error: Exception) -> Callable[[Net, torch.Tensor], Any]:
    def forward(net: Net, x: torch.Tensor) -> Any:
        raise error

    return forward


RECOMPILED = type("FailOnRecompileLimitHit", (Exception,), {"__module__": "torch._dynamo.exc"})
"""As torch.compile raises it; its own takes seconds to import."""


@pytest.mark.parametrize(
    ("forward", "mode", "status", "said"),
    [
        (refusing, "no_grad", "unsupported", "does not require grad"),
        (mistaken, "no_grad", "crashed", "does not require grad"),
        (mistaken, "tracked", "crashed", "does not require grad"),
        (raising(NotImplementedError("\"addmm\" not implemented for 'Half'")), "tracked", "unsupported", "addmm"),
        (raising(RuntimeError("could not create a primitive descriptor for the LSTM")), "tracked", "unsupported", "LSTM"),
        (raising(RECOMPILED()), "tracked", "unsupported", "in call after call"),
        (lambda net, x: "text", "no_grad", "unsupported", "holds no tensor"),
        (lambda net, x: ENDLESS, "no_grad", "unsupported", "the output cannot be looked through: list is nested too deep"),
    ],
    ids=[
        "refused in this mode",
        "refused in both",
        "refused in tracked",
        "no kernel",
        "no primitive",
        "compiled anew",
        "no tensor",
        "endless",
    ],
)
def test_what_torch_refuses_in_one_mode_or_lacks_a_kernel_for_is_unsupported_and_the_models_own_error_is_not(
    forward: Callable[[Net, torch.Tensor], Any], mode: str, status: str, said: str
) -> None:
    with pytest.raises(Failure, match=said) as caught:
        examined(forward, mode)
    assert caught.value.status == status


def test_at_most_one_tracked_graph_is_alive_at_a_time() -> None:
    """A model whose graph fills the memory can be examined if it can be run."""

    class Held:
        alive = most = 0

        def __init__(self) -> None:
            Held.alive += 1
            Held.most = max(Held.most, Held.alive)

        def __del__(self) -> None:
            Held.alive -= 1

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.held = Held()
            return x.clone()

    for mode in DEFAULT_MODES:
        examined(lambda net, x: Counted.apply(net.linear(x)).exp(), mode)  # type: ignore[no-untyped-call]
    assert (Held.most, Held.alive) == (1, 0)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc maps blocks of 64 MiB anew, which causes faults")
def test_page_faults_are_those_of_a_warmed_call() -> None:
    """In a process of its own: in this one another test may have had freed pages kept."""
    run = partial(launches().run, as_shipped)
    assert run(int).page_faults < 0.5
    found = run(partial(torch.ones, 16 * 2**20))
    assert found.page_faults > 16
    assert 0 < found.seconds < 1


def test_in_a_worker_of_its_own_page_faults_and_resident_memory_are_measured() -> None:
    job = Job(scenario="forward", source=Source("mlp", "medium"), device="cpu", dtype="float32", modes=DEFAULT_MODES)
    run = partial(launches().run, examine, job, "tracked")
    found = run(True, True)
    assert found.as_shipped is not None
    assert found.as_shipped.page_faults >= 0
    assert found.memory is not None
    assert found.memory.peak_tensor_bytes is not None
    resident = found.memory.peak_rss_bytes
    assert resident is None or resident > 0.7 * found.memory.peak_tensor_bytes, "libraries may take more"
    assert run(True, True, True).as_shipped is None
