"""Which jobs the options ask for: every scenario by default, forward passes alone where models or sizes were chosen."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import allocator
from benchmarks.failure import Failure
from benchmarks.models import OWN_SIZE, Source, hub, own
from benchmarks.options import DEFAULT_SIZES, Effort, OptionError, RunOptions
from benchmarks.plan import Job, own_sources, plan
from benchmarks.record import AS_SHIPPED, PAGES_KEPT
from benchmarks.scenarios import SCENARIOS
from benchmarks.workers import InProcess

BOTH = (PAGES_KEPT, AS_SHIPPED)
NET = Source("net", OWN_SIZE, "a.py:net")


@pytest.fixture(autouse=True)
def pages_can_be_kept_and_no_library_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "unavailable", lambda: None)
    monkeypatch.setattr(hub, "is_installed", lambda _: False)


def planned(sources: tuple[Source, ...] = (), **chosen: Any) -> list[Job]:
    return plan(RunOptions(**{"device": ("cpu",), **chosen}), sources)


def rows(**chosen: Any) -> set[tuple[str, str, str]]:
    return {(job.scenario, job.source.model, job.source.size) for job in planned(**chosen)}


def modes(scenario: str, **chosen: Any) -> tuple[str, ...]:
    return planned(scenarios=(scenario,), **chosen)[0].modes


# Scenarios, models and sizes.


def test_by_default_every_scenario_runs_what_it_brings_and_forward_all_models_in_three_sizes() -> None:
    found = rows()
    assert {scenario for scenario, *_ in found} == set(SCENARIOS) - {"checkpointing"}
    assert {size for scenario, _, size in found if scenario == "forward"} == set(DEFAULT_SIZES)
    assert {row for row in found if row[0] == "evaluation"} == {("evaluation", "convnet", "tiny")}


@pytest.mark.parametrize("chosen", [{"models": ("mlp",)}, {"sizes": ("tiny",)}, {"own_models": ("a.py:net",)}])
def test_a_choice_of_models_or_sizes_is_meant_for_forward_passes(chosen: dict[str, Any]) -> None:
    assert {job.scenario for job in planned((NET,) if "own_models" in chosen else (), **chosen)} == {"forward"}


def test_a_scenario_that_is_named_runs_the_models_and_sizes_that_were_chosen() -> None:
    assert rows(scenarios=("training_step",), models=("mlp",), sizes=("tiny",)) == {("training_step", "mlp", "tiny")}
    sizes = {row[1:] for row in rows(scenarios=("evaluation",), sizes=("small", "medium"))}
    assert sizes == {("convnet", "small"), ("convnet", "medium")}
    assert rows(scenarios=("generation",), models=("gpt2",)) == {("generation", "gpt2", "small")}
    assert [job.source for job in planned((NET,), scenarios=("generation",), own_models=("a.py:net",))] == [NET]


def test_the_users_models_run_beside_the_built_in_ones_only_where_those_are_named() -> None:
    assert [job.source for job in planned((NET,), own_models=("a.py:net",))] == [NET]
    both = planned((NET,), own_models=("a.py:net",), models=("mlp",), sizes=("tiny",))
    assert [job.source.model for job in both] == ["mlp", "net"]


def test_a_scenario_that_is_named_runs_what_would_take_a_default_run_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_installed", lambda _: True)
    beside = {("generation", "gpt2", "small"), ("generation", "qwen3", "small"), ("adapters", "linear_rank256", "large")}
    assert not beside & rows()
    named = rows(scenarios=("generation", "adapters"))
    assert named > beside | {("generation", "decoder", "tiny")}
    assert {row for row in rows(scenarios=("adapters",), sizes=("tiny",)) if row[2] != "tiny"} == set()
    monkeypatch.setattr(hub, "is_installed", lambda _: False)
    assert rows(scenarios=("generation",)) == {("generation", "decoder", "tiny")}


def test_a_scenarios_own_modes_run_all_or_those_that_were_asked_for() -> None:
    assert modes("loss_logging") == ("tracked", "item", "detach", "float")
    assert modes("loss_logging", modes=("item", "no_grad")) == ("item",)
    assert modes("forward") == ("tracked", "no_grad", "inference_mode", "detach")
    assert {scenario for scenario, *_ in rows(modes=("forgot_eval",))} == {"evaluation"}


def test_each_pattern_to_freeze_is_one_more_mode_where_the_registered_modes_run() -> None:
    frozen = modes("forward", modes=("tracked",), freeze=("encoder.*", "head.?", "encoder.*"))
    assert frozen == ("tracked", "frozen:encoder.*", "frozen:head.?")
    assert "frozen:encoder.*" not in modes("evaluation", freeze=("encoder.*",))


# Allocators and devices.


def test_forward_passes_are_measured_as_shipped_too_and_others_where_it_is_asked_for() -> None:
    allocators = {job.scenario: job.allocators for job in planned(scenarios=("forward", "generation"))}
    assert allocators == {"forward": BOTH, "generation": (PAGES_KEPT,)}
    assert planned(scenarios=("generation",), allocator=BOTH)[0].allocators == BOTH
    assert {job.allocators for job in planned(in_process=True)} == {(PAGES_KEPT,)}


def test_where_pages_cannot_be_kept_everything_is_measured_as_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "unavailable", lambda: "no glibc")
    assert {job.allocators for job in planned()} == {(AS_SHIPPED,)}


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.device.Cuda.unavailable", lambda _: None)


@pytest.mark.usefixtures("a_gpu")
def test_accelerators_get_a_size_that_fills_them_beside_the_others_one_allocator_and_fewer_processes() -> None:
    jobs = planned(models=("mlp",), device=("cpu", "cuda:1"), allocator=BOTH)
    assert [(job.device, job.source.size, job.effort.processes) for job in jobs] == [
        ("cpu", "tiny", 8), ("cuda:1", "tiny", 4), ("cpu", "small", 8), ("cuda:1", "small", 4),
        ("cpu", "medium", 8), ("cuda:1", "medium", 4), ("cuda:1", "huge", 4),
    ]  # fmt: skip
    assert {(job.device, job.allocators) for job in jobs} == {("cpu", BOTH), ("cuda:1", (PAGES_KEPT,))}
    chosen = planned(models=("mlp",), sizes=("huge",), device=("cpu", "cuda"), processes=5, effort=Effort(processes=5))
    assert [(job.device, job.effort.processes) for job in chosen] == [("cpu", 5), ("cuda", 5)]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"scenarios": ("generation",), "sizes": ("large",)}, "nothing to measure: --scenarios generation --sizes large have nothing in common"),
    ({"scenarios": ("training_step",), "modes": ("item",)}, "nothing to measure: --scenarios training_step --modes item have"),
    ({"scenarios": ("operators",), "execution": ("compiled",)}, "nothing to measure: --scenarios operators --execution compiled"),
    ({"scenarios": ("forward", "adapters"), "models": ("mlp",)}, "--scenarios adapters: runs models of its own; leave out --models"),
    ({"scenarios": ("adapters",), "own_models": ("a.py:net",)}, "--scenarios adapters: runs models of its own; leave out --models"),
    ({"in_process": True, "allocator": BOTH}, "--allocator as_shipped: needs a process per arm; leave out --in-process"),
    ({"device": ("cuda",), "allocator": (AS_SHIPPED,)}, "--allocator as_shipped: an accelerator's caching allocator is pages_kept"),
    ({"device": ("cpu", "tpu")}, "--device tpu: .*ask for cpu"),
    ({"split": True}, "--split: spreads a plan over the machines of --machines"),
]  # fmt: skip


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(("chosen", "expected"), REFUSED)
def test_what_cannot_be_had_together_is_named_with_the_way_out(chosen: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        planned(**chosen)


def test_a_device_that_is_not_there_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(OptionError, match=r"--device cuda:7: .*--device cpu works everywhere"):
        planned(device=("cuda:7",))


def test_workers_need_a_system_that_can_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(OptionError, match="--in-process measures without them"):
        planned()
    assert planned(in_process=True, effort=Effort(threads=2))[0].effort == Effort(threads=2)


# Jobs.

JOB = Job(
    scenario="forward", source=Source("mlp", "tiny"), device="cpu", dtype="float32", modes=("tracked", "no_grad"), allocators=BOTH
)  # fmt: skip


def test_jobs_and_their_cases_say_what_they_are_and_scenarios_that_go_around_the_model_have_none_compiled() -> None:
    assert [str(case) for case in JOB.cases] == [
        f"forward-mlp-tiny-cpu-float32-eager-{name}-{mode}" for name in BOTH for mode in ("tracked", "no_grad")
    ]
    both = planned(models=("mlp",), sizes=("tiny",), execution=("eager", "compiled"))
    assert [str(job) for job in both] == ["forward mlp tiny cpu float32", "forward mlp tiny cpu float32 compiled"]
    assert {job.execution for job in planned(scenarios=("operators",), execution=("eager", "compiled"))} == {"eager"}


def test_every_job_can_be_sent_to_another_process() -> None:
    jobs = [*planned(), *planned(scenarios=tuple(SCENARIOS), sizes=("tiny", "small", "large"))]
    assert {job.scenario for job in jobs} == set(SCENARIOS)
    assert [str(pickle.loads(pickle.dumps(job))) for job in jobs] == [str(job) for job in jobs]


def test_a_job_can_be_cut_down_to_some_cases() -> None:
    no_grad, as_shipped = JOB.cases[1], JOB.cases[2]
    assert (JOB.only([no_grad]).modes, JOB.only([no_grad]).allocators) == (("no_grad",), (PAGES_KEPT,))
    assert JOB.only([as_shipped]).cases == [as_shipped]
    assert JOB.only(JOB.cases) == JOB
    assert JOB.only([planned(models=("lstm",))[0].cases[0]]).cases == []


# The user's own models.


def specs(*given: str, workers: Any = None, **chosen: Any) -> list[tuple[str, str]]:
    sources, _ = own_sources(RunOptions(own_models=given, **chosen), workers or InProcess())
    return [(source.model, source.size) for source in sources]


@pytest.fixture
def models(tmp_path: Path) -> str:
    path = tmp_path / "models.py"
    path.write_text(
        "import torch\n"
        "def net(): return torch.nn.Linear(2, 2), torch.randn(1, 2)\n"
        "def sized(size): return net()\n"
        "def mlp(): return net()\n"
        "def fails(): raise ValueError('no weights')\n"
    )
    return str(path)


def test_a_function_that_takes_size_comes_in_the_sizes_that_were_chosen(models: str) -> None:
    chosen = specs(f"{models}:net", f"{models}:sized", sizes=("tiny", "large"))
    assert chosen == [("net", OWN_SIZE), ("sized", "tiny"), ("sized", "large")]
    assert specs(f"{models}:sized") == [("sized", size) for size in DEFAULT_SIZES]


MIXED = """
import torch
def net():
    layers = torch.nn.Linear(2, 2).to(torch.bfloat16), torch.nn.Linear(2, 2)
    return torch.nn.Sequential(*layers[:LAYERS]), torch.randn(1, 2, dtype=torch.bfloat16)
"""


@pytest.mark.parametrize(("layers", "name"), [(1, "bfloat16"), (2, "bfloat16+float32")])
def test_a_users_model_is_measured_in_what_it_is_built_in_unless_a_dtype_is_asked_for_and_ours_in_float32(
    tmp_path: Path, layers: int, name: str
) -> None:
    (tmp_path / "half.py").write_text(MIXED.replace("LAYERS", str(layers)))
    options = RunOptions(own_models=(f"{tmp_path / 'half.py'}:net",), device=("cpu",))
    sources, _ = own_sources(options, InProcess())
    (job,) = planned(tuple(sources), own_models=options.own_models)
    assert (job.dtype, job.build().dtype, str(job.cases[0]).split("-")[4]) == (name, name, name)
    assert job.build().input_tensors()[0].dtype == torch.bfloat16
    (cast,) = planned(tuple(sources), own_models=options.own_models, dtype=("float32",))
    assert (cast.dtype, cast.build().dtype) == ("float32", "float32")
    assert {job.dtype for dtype in (None, ("as_built",)) for job in planned(models=("mlp",), dtype=dtype)} == {"float32"}


def test_models_that_cannot_be_told_apart_or_do_not_suit_are_refused(models: str) -> None:
    with pytest.raises(OptionError, match=r"models\.py:net already names a model net; rename one"):
        specs(f"{models}:net", f"{models}:net")
    with pytest.raises(OptionError, match="--models already names a model mlp"):
        specs(f"{models}:mlp", models=("mlp",))
    assert specs(f"{models}:mlp") == [("mlp", OWN_SIZE)]
    for function in ("", ":absent", ":fails"):
        with pytest.raises(own.ModelError):
            specs(f"{models}{function}")


def test_one_of_several_that_cannot_be_built_is_not_tried_again(models: str) -> None:
    sources, _ = own_sources(RunOptions(own_models=(f"{models}:net", f"{models}:fails")), InProcess())
    Path(models).unlink()
    with pytest.raises(Failure, match=r"models\.py:fails: the function raised ValueError: no weights") as caught:
        sources[1].workload()
    assert caught.value.status == "crashed"


@pytest.mark.parametrize(("status", "size"), [("timed_out", OWN_SIZE), ("out_of_memory", "tiny")])
def test_a_model_whose_probe_is_lost_is_planned_all_the_same_so_that_its_cases_say_why(
    models: str, status: Any, size: str
) -> None:
    class Lost(InProcess):
        def run(self, task: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            raise Failure(status, "lost")

    assert specs(f"{models}:net", workers=Lost())[0] == ("net", size)
