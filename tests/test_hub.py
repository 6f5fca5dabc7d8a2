"""Models by name are found, built from their configuration alone and called on inputs that suit; what cannot be is one line.

transformers, timm and torchvision are stood in for, since most machines that run these tests lack them. Tests of the real ones are skipped
there.
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import allocator
from benchmarks.failure import Failure
from benchmarks.group import check
from benchmarks.models import REAL, Source, hub, load, probe
from benchmarks.models.hub import name_of, require_forward
from benchmarks.models.own import ModelError
from benchmarks.models.real import BY_DEFAULT
from benchmarks.models.workload import DRAWN, drawn_in_part, map_tensors, tensors
from benchmarks.options import OptionError, RunOptions
from benchmarks.plan import own_sources, plan
from benchmarks.workers import InProcess


class Network(nn.Module):
    """Of a library that is not there; drops half of what it is given."""

    def __init__(self, parts: int = 2) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 8, 8)}
        self.parts = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(parts)], nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 4:
            raise IndexError("too many")
        out: torch.Tensor = self.parts(x)
        return out


def module(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(contents)
    return made


@pytest.fixture
def _libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = module(
        "timm",
        is_model=lambda name: name == "resnet18",
        list_models=lambda: ["resnet18", "vit"],
        create_model=lambda _, pretrained: Network(0 if pretrained else 2),
    )
    crop = SimpleNamespace(transforms=lambda: SimpleNamespace(crop_size=[6]))
    models = module(
        "torchvision.models",
        list_models=lambda: ["resnet18"],
        get_model_builder=lambda _: lambda weights, progress: (weights, progress),
        get_model_weights=lambda _: [crop],
        get_model=lambda _, weights: Network(2 if weights is None else 0),
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "torchvision", module("torchvision", models=models))


def fault(spec: str, batch: int | None = None, length: int | None = None) -> str:
    found = probe(spec, "own", batch, length).fault
    assert found is not None
    told = found.reason
    assert "\n" not in told
    return told


@pytest.mark.usefixtures("_libraries")
@pytest.mark.parametrize(
    ("spec", "inputs"), [("timm:resnet18", "float32[1, 3, 8, 8]"), ("torchvision:resnet18", "float32[1, 3, 6, 6]")]
)
def test_a_model_by_name_has_random_weights_drops_nothing_and_gets_an_image_of_its_size(spec: str, inputs: str) -> None:
    workload = load(spec).workload("own")
    assert workload.facts().inputs == [inputs]
    assert workload.facts().parameters == 2 * 12
    assert not workload.module.training
    assert [part.p for part in workload.module.modules() if isinstance(part, nn.Dropout)] == [0.0]
    again = load(spec).workload("own").module
    assert torch.equal(next(workload.module.parameters()), next(again.parameters()))


def test_weights_are_drawn_in_part_because_a_group_builds_its_model_in_many_processes() -> None:
    with drawn_in_part():
        large, small = (nn.init.trunc_normal_(torch.empty(rows, 1000), std=0.02) for rows in (300, 10))
        nn.init.kaiming_uniform_(transposed := torch.empty(1000, 300).T)
    assert torch.equal(large.view(-1)[DRAWN : 2 * DRAWN], large.view(-1)[:DRAWN])
    assert len(torch.unique(large, dim=0)) == 300, "no row is another's copy"
    assert float(large.std()) == pytest.approx(0.02, rel=0.05)
    assert len(torch.unique(small)) > 9_900
    assert len(torch.unique(transposed)) > 290_000
    assert len(torch.unique(torch.empty(300_000).normal_())) > 290_000, "drawn whole again"


@pytest.mark.usefixtures("_libraries")
def test_a_chosen_batch_is_part_of_the_sizes_name() -> None:
    source = Source("resnet18", "own", "timm:resnet18").shaped(3, None)
    assert source.size == "own_b3"
    assert source.workload().facts().inputs == ["float32[3, 3, 8, 8]"]
    assert Source("m", "small").shaped(2, 16).size == "small_b2_l16"
    assert Source("m", "small").shaped(None, None) == Source("m", "small")


@pytest.mark.usefixtures("_libraries")
@pytest.mark.parametrize(
    ("spec", "batch", "length", "there", "told"),
    [
        ("timm:resnet19", None, None, False, "timm has no resnet19; near it: resnet18"),
        ("torchvision:vit_b", None, None, False, "torchvision has no vit_b; nothing there is like it"),
        ("timm:", None, None, False, "expected a name after the colon"),
        ("timm:resnet18", None, 7, True, "--length 7: the model takes an image"),
        ("timm:resnet18", 5, None, True, "(float32[5, 3, 8, 8]; --batch and --length set them): IndexError: too many"),
    ],
)
def test_a_name_that_is_unknown_or_inputs_that_do_not_fit_are_told_in_a_line_before_anything_is_measured(
    spec: str, batch: int | None, length: int | None, there: bool, told: str
) -> None:
    assert told in fault(spec, batch, length)
    assert probe(spec, "own", batch, length).there == there


@pytest.mark.usefixtures("_libraries")
def test_a_library_that_is_missing_or_broken_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "timm")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert fault("timm:resnet18") == "timm:resnet18: timm is not installed; pip install -e '.[hub]' installs it"
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    importlib.invalidate_caches()
    told = fault("timm:resnet18")
    assert "importing timm raised RuntimeError: operator torchvision::nms does not exist" in told
    assert f"does it fit torch {torch.__version__}?" in told


def test_a_model_that_memory_cannot_hold_is_refused_before_it_is_built() -> None:
    built: list[str] = []

    def make() -> nn.Module:
        layer = nn.Linear(2**20, 2**20)
        built.append(layer.weight.device.type)
        return layer

    model = hub.HubModel("timm:giant", make, lambda *_: torch.ones(1))
    with pytest.raises(
        ModelError, match=r"timm:giant: its 1099.5 billion parameters take 4096.0 GiB, and [\d.]+ GiB are free here"
    ):
        model.fault()
    assert built == ["meta"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("full_attention"), "timm:odd: building the model raised KeyError: 'full_attention'"),
        (NotImplementedError("Cannot copy out of meta tensor; no data!"), "None"),
    ],
)
def test_what_cannot_be_built_is_told_before_memory_is_taken_for_it_but_not_what_torch_only_lacks_without_memory(
    error: Exception, told: str
) -> None:
    def make() -> nn.Module:
        if torch.ones(()).is_meta:
            raise error
        return nn.Linear(1, 1)

    assert str(hub.HubModel("timm:odd", make, lambda *_: torch.ones(1)).fault()).startswith(told)


class Taking(nn.Module):
    """What a model of transformers tells of its inputs."""

    def __init__(self, forward: Callable[..., Any], main: Any, **configuration: Any) -> None:
        super().__init__()
        self.forward, self.main_input_name = forward, main
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=9), image_size=4, **configuration)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (Taking(lambda input_ids=None, mask=None: 0, "input_ids"), {"input_ids": (2, 64)}),
        (Taking(lambda pixel_values: 0, "input_ids"), {"pixel_values": (2, 3, 4, 4)}),
        (Taking(lambda pixel_values, input_ids: 0, ["pixel_values"]), {"pixel_values": (2, 3, 4, 4), "input_ids": (2, 64)}),
        (Taking(lambda pixel_values: 0, "pixel_values", num_frames=5), {"pixel_values": (2, 5, 3, 4, 4)}),
        (Taking(lambda input_values: 0, "input_values"), {"input_values": (2, 16000)}),
        (Taking(lambda input_values: 0, "input_values", upsampling_ratios=[8]), {"input_values": (2, 1, 16000)}),
        (Taking(lambda input_values: 0, "input_values", num_mel_bins=7, max_length=6), {"input_values": (2, 6, 7)}),
    ],
)
def test_inputs_are_made_for_all_that_a_forward_pass_needs(model: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    assert {name: tuple(made.shape) for name, made in hub._transformers_inputs(model, 2, None).items()} == shapes


def test_an_input_of_which_nothing_is_known_is_named() -> None:
    model = Taking(lambda input_ids, inference_session: 0, "input_ids")
    with pytest.raises(
        ModelError, match="Taking takes inference_session, which is not made here; write a function for --model"
    ):
        hub._transformers_inputs(model, 1, None)


class Broken(ModuleType):
    """A transformers whose models cannot be imported, because a library that they need does not fit."""

    def __getattr__(self, name: str) -> Any:
        raise ModuleNotFoundError(f"Could not import module '{name}'.") from RuntimeError("torchvision::nms does not exist")


def test_a_registered_model_of_a_broken_library_is_unsupported_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", Broken("transformers"))
    told = r"transformers cannot import BertModel: RuntimeError: torchvision::nms does not exist.*; does it fit torch"
    with pytest.raises(Failure, match=told) as caught:
        Source("bert", "tiny").workload()
    assert caught.value.status == "unsupported"


def test_eleven_models_are_registered_in_three_sizes() -> None:
    assert [tuple(family.sizes) for family in REAL.values()] == [("tiny", "small", "base")] * 11


def planned(monkeypatch: pytest.MonkeyPatch, *, installed: bool = True, **chosen: Any) -> set[tuple[str, str]]:
    monkeypatch.setattr(hub, "is_installed", lambda _: installed)
    options = RunOptions(device=("cpu",), scenarios=("forward",), **chosen)
    sources, _ = own_sources(options, InProcess())
    return {(job.source.model, job.source.size) for job in plan(options, sources)}


def test_a_run_has_three_real_models_where_transformers_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it, without = planned(monkeypatch), planned(monkeypatch, installed=False)
    assert with_it - without == {(name, "small") for name in BY_DEFAULT}
    assert not {model for model, _ in without} & set(REAL)
    options = RunOptions(device=("cpu",), scenarios=("forward",))
    monkeypatch.setattr(allocator, "unavailable", lambda: None)
    monkeypatch.setattr(hub, "is_installed", lambda _: True)
    assert {job.allocators for job in plan(options) if job.source.model in REAL} == {("pages_kept",)}, "for the time it takes"
    chosen = replace(options, models=("bert",))
    assert {job.allocators for job in plan(chosen)} == {("pages_kept", "as_shipped")}


@pytest.mark.usefixtures("_libraries")
def test_registered_models_are_named_by_either_option_in_sizes_that_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(monkeypatch, models=("mlp", "bert"), sizes=("tiny", "base", "large")) == {
        ("mlp", "tiny"), ("mlp", "large"), ("bert", "tiny"), ("bert", "base"),
    }  # fmt: skip
    assert planned(monkeypatch, own_models=("hf:vit", "timm:resnet18")) == {("vit", "small"), ("resnet18", "own")}
    with pytest.raises(OptionError, match="already names a model vit"):
        planned(monkeypatch, models=("vit",), own_models=("hf:vit",))
    with pytest.raises(OptionError, match=r"--models bert: transformers is not installed; pip install -e '.\[hub\]'"):
        planned(monkeypatch, installed=False, models=("mlp", "bert"))
    with pytest.raises(OptionError, match="--batch and --length are for models by name"):
        planned(monkeypatch, models=("mlp",), batch=3)


def test_modules_of_registered_models_are_imported_by_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_installed", lambda _: True)
    _, preload = own_sources(RunOptions(models=("mlp", "t5")), InProcess())
    assert preload == ["transformers", "transformers.models.t5.modeling_t5"]


def test_one_of_several_models_that_cannot_be_built_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "models.py"
    path.write_text(
        "from torch import nn, ones\ndef good():\n    return nn.Linear(2, 2), ones(1, 2)\ndef bad():\n    raise ValueError('no')\n"
    )
    found = planned(monkeypatch, own_models=(f"{path}:good", f"{path}:bad"))
    assert {model for model, _ in found} == {"good", "bad"}
    with pytest.raises(ModelError, match="ValueError: no"):
        planned(monkeypatch, own_models=(f"{path}:bad",))
    with pytest.raises(ModelError, match="no such function"):
        planned(monkeypatch, own_models=(f"{path}:good", f"{path}:missing"))


@pytest.fixture
def transformers() -> Any:
    return pytest.importorskip("transformers")


@pytest.mark.parametrize("name", REAL)
def test_each_registered_model_runs_and_its_output_can_be_detached_whole(transformers: Any, name: str) -> None:
    """The caches that decoders return included."""
    workload = Source(name, "tiny").workload()
    output = workload.run(workload.module)
    assert any(tensor.grad_fn is not None for tensor in tensors(output))
    assert not any(tensor.grad_fn is not None for tensor in tensors(map_tensors(torch.Tensor.detach, output)))
    cache = getattr(output, "past_key_values", None)
    assert cache is None or len(tensors(cache)) >= 2


def test_configurations_are_found_by_type_class_and_folder(transformers: Any, tmp_path: Path) -> None:
    small = {"model_type": "bert", "hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 50}
    (tmp_path / "config.json").write_text(json.dumps({**small, "attention_probs_dropout_prob": 0.5}))
    workload = hub.load(f"hf:{tmp_path}").workload("own", batch=2, length=5)
    assert workload.facts().inputs == ["int64[2, 5]"]
    module: Any = workload.module
    assert (module.config.attention_probs_dropout_prob, name_of(f"hf:{tmp_path}")) == (0.0, tmp_path.name)
    by_class_and_type = [type(load(spec).workload("own").module).__name__ for spec in ("hf:MobileBertConfig", "hf:mobilebert")]
    assert by_class_and_type == ["MobileBertModel"] * 2


BAD_CONFIGURATIONS = {
    "not JSON": ("{", "not a valid JSON file"),
    "an unknown key": (
        '{"model_type": "bert", "hiden_size": 3, "zzz": 1}',
        "keys that BertConfig does not know: hiden_size (near it: hidden_size), zzz",
    ),
    "another type": ('{"model_type": "bert", "hidden_size": "x"}', "hidden_size"),
    "an unknown type": ('{"model_type": "brt"}', "reading its configuration raised"),
    "70 billion parameters": (
        '{"model_type": "llama", "hidden_size": 81920, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}',
        "billion parameters take",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "told"), BAD_CONFIGURATIONS.values(), ids=BAD_CONFIGURATIONS)
def test_a_folder_that_does_not_suit_is_one_line(transformers: Any, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert told in fault(f"hf:{tmp_path}")
    assert not probe(f"hf:{tmp_path}", "own").there


def test_a_hub_name_without_network_is_told_at_once(transformers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8443")
    told = fault("hf:nobody/no-such-model")
    assert "must be looked up, and mirror.example:8443 cannot be reached (Network is unreachable)" in told


def test_unknown_types_list_near_ones_and_an_input_that_is_too_long_is_told_with_its_shape(transformers: Any) -> None:
    assert "near it: bert" in fault("hf:brt")
    with pytest.raises(ModelError, match=r"bert: the model does not take the inputs made for it \(int64\[1, 600\]; --batch"):
        require_forward("bert", Source("bert", "tiny").shaped(None, 600).workload())


def test_a_decoder_with_its_cache_is_measured_in_every_mode(transformers: Any) -> None:
    """The cache is part of what the output holds."""
    modes = ("tracked", "no_grad", "inference_mode", "detach")
    (job,) = plan(
        RunOptions(models=("gpt2",), sizes=("tiny",), device=("cpu",), scenarios=("forward",), modes=modes, in_process=True)
    )
    (group,) = check(job, InProcess())
    assert not group.unmeasured
