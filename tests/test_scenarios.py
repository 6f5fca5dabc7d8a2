"""Each scenario answers its question with known numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pytest
import torch

from benchmarks import scenarios
from benchmarks.failure import Failure
from benchmarks.measure.contract import equal_bits, observe
from benchmarks.models import MODELS, Source, Workload
from benchmarks.models.mlp import MLP
from benchmarks.record import Group, Memory
from benchmarks.room import Aloud, nobody
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.evaluation import BATCHES, evaluation
from benchmarks.scenarios.generation import TOKENS, Writer
from benchmarks.scenarios.loss_logging import STEPS
from benchmarks.tasks import Examination, Job, examine
from benchmarks.tree import tensors

FLOAT = 4
HIDDEN = MLP.sizes["tiny"]["batch"] * MLP.sizes["tiny"]["width"] * FLOAT
"""Bytes of one activation of the tiny MLP."""

EVERY = [(name, mode) for name, scenario in SCENARIOS.items() if scenario.modes for mode in scenario.mode_names()]
REFUSED = ("frozen_backbone", "inference_mode")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def job_of(name: str, model: str | None = None, size: str | None = None) -> Job:
    """Of what the scenario brings, its first model unless `model` says another."""
    scenario = SCENARIOS[name]
    if scenario.families:
        family = next(family for family in scenario.families if model in (None, family.name))
        source = Source(family.name, next(iter(family.sizes)), family=family)
    else:
        model = model or next(iter(scenario.models))
        source = Source(model, size or scenario.models[model][0])
    group = Group(name, source.model, source.size, "cpu", "float32", "resident")
    return Job(group, partial(source.workload, "cpu", "float32"), threads=1)


@cache
def examined(name: str, mode: str, model: str | None = None, size: str | None = None) -> Examination:
    return examine(job_of(name, model, size), mode, with_tracked=True, own_process=False, announce=Aloud(nobody))


def memory_of(name: str, mode: str, model: str | None = None, size: str | None = None) -> Memory:
    memory = examined(name, mode, model, size).memory
    assert memory is not None
    return memory


def gradients_of(name: str, mode: str) -> list[torch.Tensor]:
    job = job_of(name)
    workload = job.build()
    return list(tensors(observe(job.step(workload, mode), workload.module, job.changing(workload)).output))


def test_a_file_is_a_scenario_by_its_own_name_and_asks_a_question() -> None:
    files = {path.stem for path in Path(next(iter(scenarios.__path__))).glob("*.py")} - {"__init__", "scenario"}
    assert set(SCENARIOS) == files
    assert next(iter(SCENARIOS)) == "forward"
    for name in files:
        assert (getattr(scenarios, name).__doc__ or "").strip().endswith("?")


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize(("name", "mode"), [one for one in EVERY if one != REFUSED])
def test_every_lane_keeps_its_promises(name: str, mode: str) -> None:
    found = examined(name, mode)
    assert found.contract.holds, found.contract.broken


@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.modes])
def test_tracked_comes_first(name: str) -> None:
    assert SCENARIOS[name].mode_names()[0] == "tracked"


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_scenario_runs_of_the_built_in_models_exists(name: str) -> None:
    assert all(size in MODELS[model].sizes for model, sizes in SCENARIOS[name].models.items() for size in sizes)


def test_eval_alone_tracks_and_a_batch_keeps_what_no_grad_lets_go() -> None:
    """Both hold samples, logits and their log-softmax at the peak; tracked holds the other three activations of the MLP too."""
    tracked, no_grad = (memory_of("evaluation", mode, "mlp", "tiny") for mode in ("tracked", "no_grad"))
    assert (tracked.saved_bytes or 0) // BATCHES == (
        4 + 1 + 1
    ) * HIDDEN + 8 * 8 + FLOAT  # activations, samples, log-softmax, labels, weight
    assert no_grad.saved_bytes == 0
    assert 3 * HIDDEN <= (tracked.peak_tensor_bytes or 0) - (no_grad.peak_tensor_bytes or 0) < 3 * HIDDEN + 100


@pytest.mark.parametrize("mode", SCENARIOS["evaluation"].mode_names())
def test_an_evaluation_holds_nothing_from_batch_to_batch(mode: str) -> None:
    memory = memory_of("evaluation", mode)
    assert (memory.held_tensor_bytes, memory.held_bytes_per_step) == (2 * FLOAT, 0)


def test_forgetting_eval_changes_the_statistics_of_every_batch_norm_and_nothing_else_does() -> None:
    changed = {mode: examined("evaluation", mode).contract.changed_buffers for mode in SCENARIOS["evaluation"].mode_names()}
    forgot = changed.pop("forgot_eval")
    norms = [name for name, _ in job_of("evaluation").build().module.named_buffers()]
    assert forgot == norms != []
    assert set(map(tuple, changed.values())) == {()}


@pytest.mark.parametrize("training", [True, False])
def test_an_evaluation_leaves_the_model_in_the_mode_that_it_was_in(training: bool) -> None:
    job = job_of("evaluation")
    workload = job.build()
    workload.module.train(training)
    job.step(workload, "forgot_eval")()
    assert workload.module.training == training


def test_an_evaluation_counts_what_the_model_gets_right() -> None:
    workload = Source("mlp", "tiny").workload()

    def always_first(batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = workload.module(batch) * 0 + torch.eye(64)[0]
        return logits

    wrapped = Workload.of(torch.nn.Module(), workload.args[0])
    wrapped.module.forward = always_first
    labels = torch.randint(64, (8 * BATCHES,), generator=_after_samples())
    loss, accuracy = evaluation(wrapped, SCENARIOS["evaluation"].mode("no_grad"))()
    assert accuracy == (labels == 0).float().mean()
    expected = torch.nn.functional.cross_entropy(torch.eye(64)[0].expand(len(labels), -1), labels)
    torch.testing.assert_close(loss, expected)


def _after_samples() -> torch.Generator:
    generator = torch.Generator().manual_seed(0)
    torch.randn(8 * BATCHES, 64, generator=generator)
    return generator


@pytest.mark.parametrize(("model", "said"), [("transformer", "not as torch.int64"), ("two", "must be one tensor")])
def test_an_evaluation_says_which_models_it_cannot_draw_samples_for(model: str, said: str) -> None:
    two = Workload.of(torch.nn.Bilinear(2, 2, 2), (torch.ones(1, 2), torch.ones(1, 2)))
    workload = two if model == "two" else Source(model, "tiny").workload()
    with pytest.raises(NotImplementedError, match=said):
        evaluation(workload, SCENARIOS["evaluation"].mode("tracked"))


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_adding_losses_up_holds_every_graph_and_item_detach_and_float_hold_none() -> None:
    """Without a backward pass, each step's graph keeps the MLP's four activations."""
    per_step = {
        mode: memory_of("loss_logging", mode, "mlp").held_bytes_per_step for mode in ("tracked", "item", "detach", "float")
    }
    assert per_step == {"tracked": 4 * HIDDEN, "item": 0, "detach": 0, "float": 0}
    assert memory_of("loss_logging", "tracked", "mlp").held_tensor_bytes == STEPS * 4 * HIDDEN + FLOAT
    assert memory_of("loss_logging", "item", "mlp").held_tensor_bytes == FLOAT


@pytest.mark.parametrize("mode", ["tracked", "item", "detach"])
def test_the_sum_of_losses_has_their_dtype(mode: str) -> None:
    job = job_of("loss_logging", "mlp")
    assert job.step(job.build().to("cpu", torch.bfloat16), mode)().dtype is torch.bfloat16


def test_after_a_backward_pass_the_graphs_of_logged_losses_hold_nodes_but_no_tensors() -> None:
    tracked, item = (memory_of("loss_logging", mode, "mlp_backward") for mode in ("tracked", "item"))
    assert (tracked.held_bytes_per_step, item.held_bytes_per_step) == (0, 0)
    assert (tracked.graph_nodes or 0) > STEPS * 8
    assert item.graph_nodes == 0


@pytest.mark.parametrize("name", ["frozen_backbone", "target_network"])
def test_the_trained_parts_gradients_are_equal_to_the_last_bit_in_all_modes(name: str) -> None:
    modes = [mode for mode in SCENARIOS[name].mode_names() if (name, mode) != REFUSED]
    tracked, *others = (gradients_of(name, mode) for mode in modes)
    assert tracked
    assert all(gradient.abs().sum() > 0 for gradient in tracked)
    assert all(equal_bits(gradients, tracked) for gradients in others)


def test_inference_mode_alone_cannot_feed_a_head_that_is_trained() -> None:
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward") as raised:
        examined(*REFUSED)
    assert Failure.of(raised.value).status == "unsupported"


def test_a_backbone_that_is_detached_still_keeps_its_activations_and_one_without_gradients_keeps_none() -> None:
    saved = {
        mode: memory_of("frozen_backbone", mode).saved_bytes
        for mode in ("tracked", "detach", "frozen", "no_grad", "inference_mode_clone")
    }
    assert saved["tracked"] == saved["detach"]
    assert saved["frozen"] == saved["no_grad"] == saved["inference_mode_clone"]
    head, width, images = 2, 16, 2
    assert saved["no_grad"] == head * width * images * FLOAT + images * 10 * FLOAT  # what the two layers and the loss keep


def test_gradients_that_flow_into_the_teacher_take_as_many_bytes_as_its_parameters() -> None:
    tracked, detach = (memory_of("target_network", mode).peak_tensor_bytes or 0 for mode in ("tracked", "detach"))
    teacher = job_of("target_network").build().module.get_submodule("teacher")
    assert tracked - detach == sum(parameter.numel() * FLOAT for parameter in teacher.parameters())


def test_the_teacher_follows_the_student_in_place_and_only_the_student_gets_gradients() -> None:
    job = job_of("target_network")
    workload = job.build()
    teacher, student = (next(workload.module.get_submodule(name).parameters()) for name in ("teacher", "student"))
    before, place, distance = teacher.detach().clone(), teacher.data_ptr(), (teacher - student).abs().max()
    job.step(workload, "no_grad")()
    assert teacher.data_ptr() == place
    assert not torch.equal(teacher, before)
    torch.testing.assert_close((teacher - student).abs().max(), 0.99 * distance)
    assert all(parameter.grad is None for parameter in workload.module.parameters())


def test_generation_writes_what_the_decoder_finds_without_a_cache() -> None:
    workload = job_of("generation").build()
    writer = workload.module
    assert isinstance(writer, Writer)
    with torch.no_grad():
        logits = writer(*workload.args)
        written = torch.cat([*workload.args, logits[:, :-1].argmax(-1)], dim=1)
        torch.testing.assert_close(logits, writer.decoder(written))
    assert logits.shape == (1, TOKENS, 64)


def test_a_tracked_generation_holds_more_with_every_token_and_no_grad_only_its_logits() -> None:
    tracked, no_grad = (memory_of("generation", mode) for mode in ("tracked", "no_grad"))
    assert no_grad.held_bytes_per_step == 64 * FLOAT
    assert (tracked.held_bytes_per_step or 0) > 10 * (no_grad.held_bytes_per_step or 0)


@pytest.mark.parametrize("model", [family.name for family in SCENARIOS["operators"].families])
def test_an_operator_runs_the_same_kernels_in_every_context(model: str) -> None:
    for mode in SCENARIOS["operators"].mode_names():
        assert examined("operators", mode, model).kernels.same_as_tracked


def test_a_training_step_changes_every_parameter_and_leaves_nothing_behind() -> None:
    job = job_of("training_step")
    workload = job.build()
    before = [parameter.detach().clone() for parameter in workload.module.parameters()]
    loss = job.step(workload, "tracked")()
    assert all(not torch.equal(*pair) for pair in zip(before, workload.module.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in workload.module.parameters())
    assert not loss.requires_grad


def test_what_a_scenario_updates_is_put_back_after_it_was_examined() -> None:
    job = job_of("training_step")
    workload = job.build()
    before = [parameter.detach().clone() for parameter in workload.module.parameters()]
    observe(job.step(workload, "tracked"), workload.module, job.changing(workload))
    assert all(torch.equal(*pair) for pair in zip(before, workload.module.parameters(), strict=True))
