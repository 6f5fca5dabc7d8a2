"""Each scenario answers its question with known numbers, and says which models it cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import scenarios
from benchmarks.failure import Failure
from benchmarks.measure.contract import Observation, check_contract, equal_bits, observe
from benchmarks.measure.profile import allocations, operators
from benchmarks.measure.saved import graph_nodes, saved_for_backward
from benchmarks.models import MODELS, Source, Workload
from benchmarks.models.mlp import MLP
from benchmarks.modes import Step
from benchmarks.record import CONTEXT
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.evaluation import BATCHES, evaluation
from benchmarks.scenarios.generation import TOKENS, Writer
from benchmarks.scenarios.loss_logging import STEPS
from benchmarks.scenarios.training_step import training_step

FLOAT = 4
HIDDEN = MLP.sizes["tiny"]["batch"] * MLP.sizes["tiny"]["width"] * FLOAT
"""Bytes of one activation of the tiny MLP."""

OWN_MODES = [(name, mode) for name, scenario in SCENARIOS.items() if scenario.modes for mode in scenario.mode_names()]
REFUSED = ("frozen_backbone", "inference_mode")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Bound:
    """A scenario's step in one mode, on its first model unless `model` says another."""

    def __init__(self, name: str, mode: str, model: str | None = None) -> None:
        self.scenario, self.mode = SCENARIOS[name], SCENARIOS[name].mode(mode)
        families = [family for family in self.scenario.families if model in (None, family.name)]
        family = families[0] if families else MODELS[model or next(iter(self.scenario.models))]
        size = next(iter(family.sizes if families else self.scenario.models.get(family.name, ("tiny",))))
        self.workload = Source(family.name, size, family=family).workload()

    def step(self, **steps: int) -> Step:
        return self.scenario.bind(self.workload, self.mode, **steps)

    def observed(self) -> Observation:
        changing = [*self.workload.input_tensors(), *(self.workload.module.parameters() if self.scenario.updates else ())]
        return observe(self.step(), self.workload.module, changing)

    def saved_bytes(self) -> int:
        return saved_for_backward(self.step(), self.workload.constants()).total_bytes

    def peak_bytes(self) -> int:
        self.step()()
        return allocations(self.step()).peak_bytes

    def held_bytes(self, steps: int | None = None) -> int:
        step = self.step() if steps is None else self.step(steps=steps)
        step()
        return allocations(step).held_bytes

    def held_bytes_per_step(self) -> int:
        return self.held_bytes(4) - self.held_bytes(3)


def test_a_file_is_a_scenario_by_its_own_name_and_asks_a_question() -> None:
    files = {path.stem for path in Path(next(iter(scenarios.__path__))).glob("*.py")} - {"__init__", "scenario"}
    assert set(SCENARIOS) == files
    assert next(iter(SCENARIOS)) == "forward"
    for name, scenario in SCENARIOS.items():
        assert (getattr(scenarios, name).__doc__ or "").strip().endswith("?")
        assert scenario.mode_names()[0] == "tracked"
        assert all(size in MODELS[model].sizes for model, sizes in scenario.models.items() for size in sizes)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize(("name", "mode"), [pair for pair in OWN_MODES if pair != REFUSED])
def test_every_mode_of_a_scenarios_own_keeps_its_promises(name: str, mode: str) -> None:
    bound = Bound(name, mode)
    contract = check_contract(bound.mode, bound.observed(), Bound(name, "tracked").observed())
    assert contract.holds, contract.broken


def test_eval_alone_tracks_and_a_batch_keeps_what_no_grad_lets_go() -> None:
    """Both hold samples, logits and their log-softmax at the peak; tracked holds the other three activations of the MLP too."""
    tracked, no_grad = (Bound("evaluation", mode, "mlp") for mode in ("tracked", "no_grad"))
    activations, samples, log_softmax, labels, weight = 4 * HIDDEN, HIDDEN, HIDDEN, 8 * 8, FLOAT
    assert tracked.saved_bytes() // BATCHES == activations + samples + log_softmax + labels + weight
    assert no_grad.saved_bytes() == 0
    assert 3 * HIDDEN <= tracked.peak_bytes() - no_grad.peak_bytes() < 3 * HIDDEN + 100


@pytest.mark.parametrize("mode", SCENARIOS["evaluation"].mode_names())
def test_an_evaluation_holds_nothing_from_batch_to_batch(mode: str) -> None:
    bound = Bound("evaluation", mode)
    assert (bound.held_bytes(), bound.held_bytes_per_step()) == (2 * FLOAT, 0)


def test_forgetting_eval_changes_the_statistics_of_every_batch_norm_and_nothing_else_does() -> None:
    changed = {mode: Bound("evaluation", mode).observed().changed_buffers for mode in SCENARIOS["evaluation"].mode_names()}
    forgot = changed.pop("forgot_eval")
    assert forgot == [name for name, _ in Bound("evaluation", "tracked").workload.module.named_buffers()] != []
    assert not any(changed.values())


def test_an_evaluation_counts_what_the_model_gets_right() -> None:
    class AlwaysFirst(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - nn.Linear's
            return super().forward(input) * 0 + torch.eye(64)[0]

    labels = torch.randint(64, (8 * BATCHES,), generator=torch.Generator().manual_seed(0))
    workload = Workload.of(AlwaysFirst(64, 64), torch.ones(8, 64))
    loss, accuracy = evaluation(workload, SCENARIOS["evaluation"].mode("no_grad"))()
    assert accuracy == (labels == 0).float().mean()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(torch.eye(64)[0].expand(len(labels), -1), labels))


@dataclass
class Scores:
    hidden: torch.Tensor
    logits: torch.Tensor
    cache: Any = None


class Classifier(nn.Module):
    """Takes token ids with a mask and returns its logits in parts, as classifiers of libraries do."""

    def __init__(self, wrap: Any = Scores) -> None:
        super().__init__()
        self.embedding, self.head, self.wrap = nn.Embedding(9, 4), nn.Linear(4, 3), wrap

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, scale: float = 1.0) -> Any:
        hidden = (self.embedding(ids) * mask[..., None]).mean(1) * scale
        return self.wrap(hidden, self.head(hidden))


TOKENS_AND_MASK = {"ids": torch.randint(9, (2, 5)), "mask": torch.ones(2, 5), "scale": 2.0}


@pytest.mark.parametrize("mode", SCENARIOS["evaluation"].mode_names())
@pytest.mark.parametrize(
    "wrap", [Scores, lambda hidden, logits: {"hidden": hidden, "logits": logits}, lambda *parts: (parts[1], None, object())]
)
def test_models_of_libraries_with_inputs_by_name_and_outputs_in_parts_are_evaluated(mode: str, wrap: Any) -> None:
    workload = Workload.of(Classifier(wrap), TOKENS_AND_MASK)
    loss, accuracy = evaluation(workload, SCENARIOS["evaluation"].mode(mode))()
    assert loss > 0
    assert 0 <= accuracy <= 1


@pytest.mark.parametrize(
    ("module", "inputs", "said"),
    [
        (Classifier(lambda *_: "text"), TOKENS_AND_MASK, "str holds none"),
        (nn.Flatten(0), torch.ones(2, 3), "batch first and classes last; Tensor holds none"),
        (nn.Unflatten(0, (2, 2)), torch.ones(4, 3), "first dimension is the batch"),
    ],
)
def test_an_evaluation_says_which_models_it_cannot_run(module: nn.Module, inputs: Any, said: str) -> None:
    with pytest.raises(Failure, match=said) as raised:
        evaluation(Workload.of(module, inputs), SCENARIOS["evaluation"].mode("tracked"))
    assert raised.value.status == "unsupported"


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_adding_losses_up_holds_every_graph_and_item_detach_and_float_hold_none() -> None:
    """Without a backward pass, each step's graph keeps the MLP's four activations."""
    bound = {mode: Bound("loss_logging", mode, "mlp") for mode in ("tracked", "item", "detach", "float")}
    assert {mode: step.held_bytes_per_step() for mode, step in bound.items()} == {
        "tracked": 4 * HIDDEN, "item": 0, "detach": 0, "float": 0,
    }  # fmt: skip
    assert bound["tracked"].held_bytes() == STEPS * 4 * HIDDEN + FLOAT
    assert bound["item"].held_bytes() == FLOAT


def test_after_a_backward_pass_the_graphs_of_logged_losses_hold_nodes_but_no_tensors() -> None:
    tracked, item = (Bound("loss_logging", mode, "mlp_backward") for mode in ("tracked", "item"))
    assert (tracked.held_bytes_per_step(), item.held_bytes_per_step()) == (0, 0)
    assert graph_nodes(tracked.step()()) > STEPS * 8
    assert graph_nodes(item.step()()) == 0


@pytest.mark.parametrize("name", ["frozen_backbone", "target_network"])
def test_the_trained_parts_gradients_are_equal_to_the_last_bit_in_all_modes(name: str) -> None:
    modes = [mode for mode in SCENARIOS[name].mode_names() if (name, mode) != REFUSED]
    tracked, *others = (Bound(name, mode).observed().output for mode in modes)
    assert tracked
    assert all(gradient.abs().sum() > 0 for gradient in tracked)
    assert all(equal_bits(gradients, tracked) for gradients in others)


def test_inference_mode_alone_cannot_feed_a_head_that_is_trained() -> None:
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward") as raised:
        Bound(*REFUSED).step()()
    assert Failure.of(raised.value).status == "unsupported"


def test_a_backbone_that_is_detached_still_keeps_its_activations_and_one_without_gradients_keeps_none() -> None:
    modes = set(SCENARIOS["frozen_backbone"].mode_names()) - {"inference_mode"}
    saved = {mode: Bound("frozen_backbone", mode).saved_bytes() for mode in modes}
    head, width, images = 2, 16, 2
    assert saved["no_grad"] == head * width * images * FLOAT + images * 10 * FLOAT  # what the two layers and the loss keep
    assert saved["frozen"] == saved["no_grad"] == saved["inference_mode_clone"]
    assert saved["tracked"] == saved["detach"] > saved["no_grad"]


def test_gradients_that_flow_into_the_teacher_take_as_many_bytes_as_its_parameters() -> None:
    tracked, detach = (Bound("target_network", mode) for mode in ("tracked", "detach"))
    teacher = tracked.workload.module.get_submodule("teacher")
    assert tracked.peak_bytes() - detach.peak_bytes() == sum(parameter.numel() * FLOAT for parameter in teacher.parameters())


def test_the_teacher_follows_the_student_in_place_and_only_the_student_gets_gradients() -> None:
    bound = Bound("target_network", "no_grad")
    module = bound.workload.module
    teacher, student = (next(module.get_submodule(name).parameters()) for name in ("teacher", "student"))
    before, place, distance = teacher.detach().clone(), teacher.data_ptr(), (teacher - student).abs().max()
    bound.step()()
    assert teacher.data_ptr() == place
    assert not torch.equal(teacher, before)
    torch.testing.assert_close((teacher - student).abs().max(), 0.99 * distance)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_generation_writes_what_the_decoder_finds_without_a_cache() -> None:
    workload = Bound("generation", "no_grad").workload
    writer = workload.module
    assert isinstance(writer, Writer)
    with torch.no_grad():
        logits = writer(*workload.args)
        written = torch.cat([*workload.args, logits[:, :-1].argmax(-1)], dim=1)
        torch.testing.assert_close(logits, writer.decoder(written))
    assert logits.shape == (1, TOKENS, 64)


def test_a_tracked_generation_holds_more_with_every_token_and_no_grad_only_its_logits() -> None:
    tracked, no_grad = (Bound("generation", mode).held_bytes_per_step() for mode in ("tracked", "no_grad"))
    assert no_grad == 64 * FLOAT
    assert tracked > 10 * no_grad


@pytest.mark.parametrize("model", [family.name for family in SCENARIOS["operators"].families])
def test_an_operator_runs_the_same_kernels_in_every_context_and_entering_one_runs_none(model: str) -> None:
    ran = [operators(Bound("operators", mode, model).step()).everywhere for mode in SCENARIOS["operators"].mode_names()]
    assert ran == [ran[0]] * len(ran)
    assert bool(ran[0]) == (model != CONTEXT)


def test_a_training_step_updates_every_parameter_in_train_mode_and_leaves_nothing_behind() -> None:
    bound = Bound("training_step", "tracked", "convnet")
    module = bound.workload.module
    before = [parameter._version for parameter in module.parameters()]
    modes: set[bool] = set()
    for part in module.modules():
        part.register_forward_pre_hook(lambda part, _: modes.add(part.training))
    loss = bound.step()()
    assert modes == {True}
    assert not any(part.training for part in module.modules())
    assert all(parameter._version > version for parameter, version in zip(module.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not loss.requires_grad


class PartlyFrozen(nn.Sequential):
    """Keeps its batch norm in eval mode whatever is asked, as detectors do."""

    def train(self, mode: bool = True) -> PartlyFrozen:
        super().train(mode)
        self[1].eval()
        return self


@pytest.mark.parametrize("training", [True, False])
def test_train_mode_is_what_the_model_makes_of_it_and_is_put_back_also_after_an_exception(training: bool) -> None:
    seen: list[bool] = []
    module = PartlyFrozen(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train(training)
    for part in module:
        part.register_forward_pre_hook(lambda part, _: seen.append(part.training))
    before = [part.training for part in module.modules()]
    module[2].register_forward_hook(lambda *_: torch.ones(2, 4))  # which has no graph for the backward pass
    with pytest.raises(RuntimeError):
        training_step(Workload.of(module, torch.ones(2, 3)), SCENARIOS["training_step"].mode("tracked"))()
    assert seen == [True, False, True]
    assert [part.training for part in module.modules()] == before


def test_an_input_that_requires_grad_gathers_none_from_step_to_step() -> None:
    image = torch.ones(2, 3, requires_grad=True)
    training_step(Workload.of(nn.ReLU(), image), SCENARIOS["training_step"].mode("tracked"))()
    assert image.grad is None


def test_an_output_without_numbers_has_no_loss() -> None:
    class Chosen(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - nn.Linear's
            return super().forward(input).argmax()

    with pytest.raises(Failure, match="no floating point tensor to make a loss of"):
        training_step(Workload.of(Chosen(3, 2), torch.ones(1, 3)), SCENARIOS["training_step"].mode("tracked"))()
