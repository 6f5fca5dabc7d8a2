"""Each scenario answers its question with known numbers, and says which models it cannot run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import scenarios
from benchmarks.failure import Failure
from benchmarks.measure.alternating import settings
from benchmarks.measure.contract import Observation, check_contract, equal_bits, observe
from benchmarks.measure.profile import allocations, operators
from benchmarks.measure.saved import Saved, graph_nodes, saved_for_backward
from benchmarks.models import MODELS, Source, Workload, families
from benchmarks.models.mlp import MLP
from benchmarks.models.transformer import TRANSFORMER
from benchmarks.modes import Step
from benchmarks.plan import Job
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.checkpointing import SIZE
from benchmarks.scenarios.evaluation import BATCHES
from benchmarks.scenarios.generation import TOKENS, Writer
from benchmarks.scenarios.loss_logging import STEPS
from benchmarks.scenarios.rollout import ACTIONS

FLOAT = 4
HIDDEN = MLP.sizes["tiny"]["batch"] * MLP.sizes["tiny"]["width"] * FLOAT
"""Bytes of one activation of the tiny MLP."""

OWN_MODES = [(name, mode) for name, scenario in SCENARIOS.items() if scenario.modes for mode in scenario.mode_names()]
REFUSED = ("frozen_backbone", "inference_mode")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with settings(threads=1):
        yield


class Bound:
    """A scenario's step in one mode, on its first model and that one's first size unless others are named."""

    def __init__(self, name: str, mode: str, model: str | None = None, size: str | None = None) -> None:
        scenario = SCENARIOS[name]
        own = [family for family in scenario.families if model in (None, family.name)]
        family = own[0] if own else MODELS[model or next(iter(scenario.models))]
        usual = next(iter(family.sizes if own else scenario.models.get(family.name, ("tiny",))))
        source = Source(family.name, size or usual, family=family)
        self.mode, self.job = mode, Job(scenario=name, source=source, device="cpu", dtype="float32", modes=(mode,))
        self.workload = self.job.build()

    def step(self, **steps: int) -> Step:
        return self.job.step(self.workload, self.mode, **steps)

    def observed(self) -> Observation:
        return observe(self.step(), self.workload.module, self.job.changing(self.workload))

    def saved(self) -> Saved:
        return saved_for_backward(self.step(), self.workload)

    def updated(self) -> set[str]:
        """Names of the parameters that a call changes. It leaves them no gradients."""
        parameters = dict(self.workload.module.named_parameters())
        before = {name: parameter._version for name, parameter in parameters.items()}
        self.step()()
        assert all(parameter.grad is None for parameter in parameters.values())
        return {name for name, parameter in parameters.items() if parameter._version > before[name]}

    def peak_bytes(self) -> int:
        self.step()()
        return allocations(self.step()).peak_bytes

    def held_bytes(self, **steps: int) -> int:
        step = self.step(**steps)
        step()
        return allocations(step).held_bytes


def step_of(name: str, module: nn.Module, inputs: Any, mode: str = "tracked", **steps: int) -> Step:
    """The scenario's on a user's model."""
    return SCENARIOS[name].bind(Workload.of(module, inputs), SCENARIOS[name].mode(mode), **steps)


def test_a_file_is_a_scenario_by_its_own_name_and_asks_a_question() -> None:
    files = {path.stem for path in Path(next(iter(scenarios.__path__))).glob("*.py")} - {"__init__", "scenario"}
    assert set(SCENARIOS) == files
    assert next(iter(SCENARIOS)) == "forward"
    for name, scenario in SCENARIOS.items():
        assert (getattr(scenarios, name).__doc__ or "").strip().endswith("?")
        assert scenario.mode_names()[0] == "tracked"
        known = families() | {family.name: family for family in scenario.families}
        for model, sizes in (*scenario.models.items(), *scenario.when_named.items()):
            assert set(sizes) <= set(known[model].sizes)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize(("name", "mode"), [pair for pair in OWN_MODES if pair != REFUSED])
def test_every_mode_of_a_scenarios_own_keeps_its_promises(name: str, mode: str) -> None:
    bound = Bound(name, mode)
    contract = check_contract(bound.job.mode(mode), bound.observed(), Bound(name, "tracked").observed())
    assert contract.holds, contract.broken


def test_eval_alone_tracks_and_a_batch_keeps_what_no_grad_lets_go() -> None:
    """Both hold samples, logits and their log-softmax at the peak; tracked holds the other three activations of the MLP too."""
    tracked, no_grad = (Bound("evaluation", mode, "mlp") for mode in ("tracked", "no_grad"))
    activations, samples, log_softmax, labels, weight = 4 * HIDDEN, HIDDEN, HIDDEN, 8 * 8, FLOAT
    assert tracked.saved().saved_bytes // BATCHES == activations + samples + log_softmax + labels + weight
    assert no_grad.saved().saved_bytes == 0
    assert 3 * HIDDEN <= tracked.peak_bytes() - no_grad.peak_bytes() < 3 * HIDDEN + 100


def test_forgetting_eval_changes_the_statistics_of_every_batch_norm_and_nothing_else_does() -> None:
    changed = {mode: Bound("evaluation", mode).observed().changed_buffers for mode in SCENARIOS["evaluation"].mode_names()}
    forgot = changed.pop("forgot_eval")
    assert forgot == [name for name, _ in Bound("evaluation", "tracked").workload.module.named_buffers()] != []
    assert not any(changed.values())


class AlwaysFirst(nn.Module):
    """Takes token ids with a mask, as classifiers of libraries do; its logits are for the first of 64 classes."""

    def __init__(self, wrap: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.scores, self.wrap = nn.Parameter(torch.eye(64)[0]), wrap

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, scale: float = 1.0) -> Any:
        return self.wrap(self.scores.expand(len(ids), -1) * mask.mean() * scale)


TOKENS_AND_MASK = {"ids": torch.zeros((8, 5), dtype=torch.int64), "mask": torch.ones(8, 5), "scale": 1.0}


@pytest.mark.parametrize("mode", SCENARIOS["evaluation"].mode_names())
@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: SimpleNamespace(hidden=logits.sum(), logits=logits),
        lambda logits: {"hidden": -logits, "logits": logits},
        lambda logits: (logits.sum(), logits, None),
    ],
    ids=["attribute", "key", "tuple"],
)
def test_an_evaluation_counts_what_a_model_of_a_library_gets_right_and_finds_its_logits_among_its_outputs(
    mode: str, wrap: Any
) -> None:
    labels = torch.randint(64, (8 * BATCHES,), generator=torch.Generator().manual_seed(0))
    loss, accuracy = step_of("evaluation", AlwaysFirst(wrap), TOKENS_AND_MASK, mode)()
    assert accuracy == (labels == 0).float().mean()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(torch.eye(64)[0].expand(len(labels), -1), labels))


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize(
    ("name", "model", "mode", "held", "per_step"),
    [
        *(("evaluation", None, mode, 2 * FLOAT, 0) for mode in SCENARIOS["evaluation"].mode_names()),
        ("loss_logging", "mlp", "tracked", STEPS * 4 * HIDDEN + FLOAT, 4 * HIDDEN),
        *(("loss_logging", "mlp", mode, FLOAT, 0) for mode in ("item", "detach", "float")),
        *(("loss_logging", "mlp_backward", mode, FLOAT, 0) for mode in ("tracked", "item")),
        ("generation", None, "no_grad", TOKENS * 64 * FLOAT, 64 * FLOAT),
    ],
)
def test_what_the_output_of_a_loop_holds_and_what_more_with_each_step(
    name: str, model: str | None, mode: str, held: int, per_step: int
) -> None:
    """Losses that are added up keep each step's graph, and that the MLP's four activations unless a backward pass was made."""
    bound = Bound(name, mode, model)
    assert bound.held_bytes() == held
    assert bound.held_bytes(steps=4) - bound.held_bytes(steps=3) == per_step


def test_after_a_backward_pass_the_graphs_of_logged_losses_still_hold_nodes() -> None:
    tracked, item = (Bound("loss_logging", mode, "mlp_backward").step()() for mode in ("tracked", "item"))
    assert graph_nodes(tracked) > STEPS * 8
    assert graph_nodes(item) == 0


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("frozen_backbone", ("frozen", "no_grad", "detach", "inference_mode_clone")),
        ("target_network", ("detach", "no_grad", "inference_mode_clone")),
        ("checkpointing", ("checkpoint",)),
        ("rollout", ("no_grad",)),
    ],
)
def test_the_trained_parts_gradients_are_equal_to_the_last_bit_in_all_modes(name: str, others: tuple[str, ...]) -> None:
    tracked = Bound(name, "tracked").observed().output
    assert tracked
    assert all(gradient.abs().sum() > 0 for gradient in tracked)
    assert all(equal_bits(Bound(name, mode).observed().output, tracked) for mode in others)


def test_inference_mode_alone_cannot_feed_a_head_that_is_trained() -> None:
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward") as raised:
        Bound(*REFUSED).step()()
    assert Failure.of(raised.value).status == "unsupported"


def test_a_backbone_that_is_detached_still_keeps_its_activations_and_one_without_gradients_keeps_none() -> None:
    modes = set(SCENARIOS["frozen_backbone"].mode_names()) - {"inference_mode"}
    saved = {mode: Bound("frozen_backbone", mode).saved().saved_bytes for mode in modes}
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
    place, distance = teacher.data_ptr(), (teacher - student).abs().max()
    assert {name.partition(".")[0] for name in bound.updated()} == {"teacher"}
    assert teacher.data_ptr() == place
    torch.testing.assert_close((teacher - student).abs().max(), 0.99 * distance)


def test_generation_writes_what_the_decoder_finds_without_a_cache() -> None:
    bound = Bound("generation", "no_grad")
    writer = bound.workload.module
    assert isinstance(writer, Writer)
    with torch.no_grad():
        logits = bound.step()()
        written = torch.cat([*bound.workload.args, logits[:, :-1].argmax(-1)], dim=1)
        torch.testing.assert_close(logits, writer.decoder(written))
    assert logits.shape == (1, TOKENS, 64)


class Repeating(nn.Linear):
    """Called as decoders of transformers are; its cache counts the tokens that it was given, and it writes their number."""

    def forward(self, input_ids: torch.Tensor, cache: Any = None, use_cache: bool = False) -> Any:
        seen = (cache or 0) + input_ids.shape[1]
        logits = super().forward(torch.ones(*input_ids.shape, 1)) * 0 + torch.eye(16)[seen]
        return SimpleNamespace(logits=logits, cache=seen if use_cache else None)


class FormerlyRepeating(Repeating):
    """Called as they were called before."""

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, use_cache: bool = False) -> Any:
        output = super().forward(input_ids, past_key_values, use_cache)
        return SimpleNamespace(logits=output.logits, past_key_values=output.cache)


class Cacheless(Repeating):
    def forward(self, input_ids: torch.Tensor, cache: Any = None, use_cache: bool = False) -> Any:
        return super().forward(input_ids, cache, use_cache=False)


PROMPT = torch.zeros((1, 3), dtype=torch.int64)


@pytest.mark.parametrize("mode", SCENARIOS["generation"].mode_names())
@pytest.mark.parametrize("kind", [Repeating, FormerlyRepeating])
@pytest.mark.parametrize("inputs", [PROMPT, {"input_ids": PROMPT}])
def test_a_users_decoder_is_given_its_prompt_and_then_each_token_that_it_wrote_with_its_own_cache(
    mode: str, kind: type[Repeating], inputs: Any
) -> None:
    logits = step_of("generation", kind(1, 16), inputs, mode, steps=4)()
    assert logits.argmax(-1).tolist() == [[3, 4, 5, 6]]


@pytest.mark.parametrize("model", ["gpt2", "qwen3"])
def test_models_of_transformers_write_with_their_own_cache_what_they_find_without_one(model: str) -> None:
    pytest.importorskip("transformers")
    workload = Source(model, "tiny").workload()
    logits = step_of("generation", workload.module, workload.kwargs, "no_grad", steps=4)()
    with torch.no_grad():
        written = torch.cat([workload.kwargs["input_ids"], logits[:, :-1].argmax(-1)], dim=1)
        whole = workload.module(input_ids=written).logits
    torch.testing.assert_close(logits, whole[:, -4:], rtol=1e-3, atol=1e-4)


def test_a_tracked_generation_holds_more_with_every_token() -> None:
    tracked = Bound("generation", "tracked")
    assert tracked.held_bytes(steps=4) - tracked.held_bytes(steps=3) > 10 * 64 * FLOAT


@pytest.mark.parametrize("model", [family.name for family in SCENARIOS["operators"].families])
def test_an_operator_runs_the_same_kernels_in_every_context(model: str) -> None:
    ran = [operators(Bound("operators", mode, model).step()).everywhere for mode in SCENARIOS["operators"].mode_names()]
    assert ran == [ran[0]] * len(ran) != [{}] * len(ran)


@pytest.mark.parametrize("mode", SCENARIOS["switches"].mode_names())
def test_every_spelling_switches_tracking_off_and_on_again_each_time_and_runs_no_operator(mode: str) -> None:
    seen: list[bool] = []
    SCENARIOS["switches"].mode(mode).bind(nn.Identity(), lambda _: seen.append(torch.is_grad_enabled()))()
    assert (seen, torch.is_grad_enabled()) == ([mode == "tracked"], True)
    assert not operators(Bound("switches", mode).step()).everywhere


@pytest.mark.parametrize("rank", [16, 256])
def test_adapters_of_one_layer_keep_its_input_for_their_first_half_and_what_that_makes_of_it_for_the_second(rank: int) -> None:
    """The input is 512 x 4096 in float32, and what is made of it 512 x rank."""
    kept = [Bound("adapters", mode, f"linear_rank{rank}", "large").saved() for mode in SCENARIOS["adapters"].mode_names()]
    given, made = 512 * 4096 * FLOAT, 512 * rank * FLOAT
    assert [(saved.saved_bytes, saved.input_saved_bytes) for saved in kept] == [(0, given), (made, given), (made, 0)]


def test_in_a_decoder_freezing_the_first_half_lets_go_of_the_inputs_of_layers_that_nothing_else_keeps() -> None:
    """Per block 1 width into queries, keys and values, 1 into the multilayer perceptron, and 4 out of its GELU; attention keeps its own output."""
    size = TRANSFORMER.sizes["small"]
    both, second = (Bound("adapters", mode, "decoder", "small").saved() for mode in ("adapters", "adapters_frozen_a"))
    assert both.saved_bytes - second.saved_bytes == size["depth"] * size["batch"] * size["tokens"] * 6 * size["width"] * FLOAT


def test_fine_tuning_updates_what_is_trained_and_nothing_else() -> None:
    updated = {mode: Bound("adapters", mode).updated() for mode in SCENARIOS["adapters"].mode_names()}
    assert updated == {"tracked": {"layer.weight", "layer.bias"}, "adapters": {"a", "b"}, "adapters_frozen_a": {"b"}}


def test_a_checkpointed_decoder_keeps_the_input_of_each_block() -> None:
    """Beside them the last layer norm keeps its input, a mean and a deviation per row, the head its input, and the loss the logits."""
    tracked, checkpoint = (Bound("checkpointing", mode) for mode in ("tracked", "checkpoint"))
    rows, width = SIZE["batch"] * SIZE["tokens"], SIZE["width"]
    kept = SIZE["depth"] * width + 2 * width + 2 + SIZE["vocabulary"]
    assert checkpoint.saved().saved_bytes == rows * kept * FLOAT
    assert checkpoint.peak_bytes() < tracked.peak_bytes() / 2
    assert len(tracked.observed().output) == len(list(tracked.workload.module.parameters()))


def test_without_tracking_a_checkpoint_keeps_a_copy_of_the_random_state_and_changes_nothing() -> None:
    plain, checkpoint = (Bound("checkpointing", mode) for mode in ("forward_alone", "checkpoint_alone"))
    assert (plain.saved().saved_bytes, checkpoint.saved().saved_bytes) == (0, 0)
    assert checkpoint.peak_bytes() - plain.peak_bytes() == torch.get_rng_state().nbytes
    assert equal_bits(checkpoint.observed().output, plain.observed().output)


def test_a_frozen_network_keeps_its_graph_where_its_input_requires_grad_and_drops_only_what_weights_need() -> None:
    """Each ReLU keeps its result; the input itself is for the first layer's weight."""
    found = {}
    for mode in SCENARIOS["frozen_input"].mode_names():
        bound = Bound("frozen_input", mode)
        found[mode] = (bound.saved().saved_bytes, bound.saved().input_saved_bytes, bound.held_bytes())
    every = 4 * HIDDEN
    assert found == {"tracked": (every, HIDDEN, every), "frozen": (every, 0, every), "frozen_plain_input": (0, 0, HIDDEN)}


def test_acting_with_tracking_on_keeps_the_graph_of_every_action() -> None:
    """Per action the four activations of the MLP, what was seen, the log-softmax, and the actions, whose index the choice keeps."""
    tracked, no_grad = (Bound("rollout", mode) for mode in ("tracked", "no_grad"))
    seen, logarithms, actions = HIDDEN, HIDDEN, 8 * MLP.sizes["tiny"]["batch"]
    assert tracked.saved().saved_bytes - no_grad.saved().saved_bytes == ACTIONS * (4 * HIDDEN + seen + logarithms + actions)


def test_acting_alone_is_what_a_step_under_no_grad_does_before_its_update() -> None:
    alone, no_grad = (Bound("rollout", mode) for mode in ("acting_alone", "no_grad"))
    ran, whole = (operators(bound.step()).everywhere for bound in (alone, no_grad))
    assert ran["aten::addmm"] == ACTIONS * MLP.sizes["tiny"]["depth"]
    assert whole["aten::addmm"] - ran["aten::addmm"] == MLP.sizes["tiny"]["depth"]
    assert all(whole[name] >= number for name, number in ran.items())


def test_a_forward_pass_alone_is_that_of_a_training_step() -> None:
    alone, whole = (Bound("training_step", mode) for mode in ("forward_alone", "tracked"))
    assert equal_bits(alone.observed().output, whole.observed().output)
    assert alone.updated() == set()


def test_a_training_step_updates_every_parameter_and_leaves_nothing_behind() -> None:
    bound = Bound("training_step", "tracked", "convnet")
    assert bound.updated() == {name for name, _ in bound.workload.module.named_parameters()}
    assert not any(part.training for part in bound.workload.module.modules())
    assert not bound.step()().requires_grad


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
    module[2].register_forward_hook(lambda *_: torch.ones(2, 4))  # which has no graph for the backward pass
    with pytest.raises(Failure, match="nothing to train"):
        step_of("training_step", module, torch.ones(2, 3))()
    assert seen == [True, False, True]
    assert [part.training for part in module.modules()] == [training, training, False, training]


def test_a_part_that_is_in_another_mode_than_the_whole_stays_in_it() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).eval())
    step_of("evaluation", module, torch.ones(2, 3))()
    assert [part.training for part in module.modules()] == [True, True, False]


def test_an_input_that_requires_grad_gathers_none_from_step_to_step() -> None:
    image = torch.ones(2, 3, requires_grad=True)
    step_of("training_step", nn.ReLU(), image)()
    assert image.grad is None


class Scripted(nn.Module):
    """As TorchScript makes them: a forward pass that has no signature, or tells wrong arguments by a RuntimeError."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = forward


NEEDS_A_CACHE = "needs a model that takes input_ids and cache"


@pytest.mark.parametrize(
    ("name", "module", "inputs", "said"),
    [
        ("evaluation", AlwaysFirst(lambda _: "text"), TOKENS_AND_MASK, "str holds none"),
        ("evaluation", nn.Flatten(0), torch.ones(2, 3), "batch first and classes last; Tensor holds none"),
        ("evaluation", nn.Unflatten(0, (2, 2)), torch.ones(4, 3), "first dimension is the batch"),
        ("evaluation", nn.Linear(3, 2), torch.ones(0, 3), "first dimension is the batch"),
        ("evaluation", nn.Linear(3, 2), torch.nested.nested_tensor([torch.ones(1, 3)]), "classes last; Tensor holds none"),
        ("generation", nn.Embedding(9, 4), PROMPT, f"{NEEDS_A_CACHE}.*unexpected keyword"),
        ("generation", Scripted(dict), PROMPT, f"{NEEDS_A_CACHE}.*no signature"),
        ("generation", Scripted(lambda **_: torch.ones(()).expand(-2)), PROMPT, f"{NEEDS_A_CACHE}.*RuntimeError"),
        ("generation", Cacheless(1, 16), PROMPT, f"{NEEDS_A_CACHE}.*SimpleNamespace holds no cache"),
        ("frozen_input", nn.Embedding(3, 2), PROMPT, "token ids cannot"),
        ("training_step", nn.Threshold(0, 0), PROMPT, "no floating point tensor to make a loss of"),
        ("training_step", nn.Linear(3, 2).requires_grad_(requires_grad=False), torch.ones(1, 3), "nothing to train"),
    ],
)
def test_a_scenario_says_which_models_it_cannot_run(name: str, module: nn.Module, inputs: Any, said: str) -> None:
    with pytest.raises(Failure, match=said) as raised:
        step_of(name, module, inputs)()
    assert raised.value.status == "unsupported"
