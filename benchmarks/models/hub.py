"""Models by name from a library: `hf:NAME`, `timm:NAME`, `torchvision:NAME`.

They are built from their configuration alone, with random weights, in eval mode and without dropout. Nothing is downloaded but the
configuration of a name such as `google/gemma-3-270m`, which the library looks up.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import psutil
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from benchmarks.failure import Failure, describe, is_out_of_memory
from benchmarks.models.own import ModelError, blamed
from benchmarks.models.workload import Workload, drawn_in_part, seeded

LIBRARIES = {"hf": "transformers", "timm": "timm", "torchvision": "torchvision"}
INSTALL = "pip install -e '.[hub]'"

_TOKENS, _SAMPLES, _FRAMES = 64, 16_000, 16
_NETWORK_SECONDS = 3.0
_LEGACY_KEYS = {"auto_map", "gradient_checkpointing", "n_ctx", "task_specific_params", "torch_dtype"}
"""What files of earlier versions of transformers hold, beside what they hold of generating."""


def is_hub(spec: str) -> bool:
    return spec.partition(":")[0] in LIBRARIES


def name_of(spec: str) -> str:
    """The model's name in results: the last part of a path. Raises ModelError where there is none."""
    name = Path(spec.partition(":")[2]).name
    if not name:
        examples = "hf:bert, timm:resnet18 or torchvision:resnet18"
        raise ModelError(f"--model {spec}: expected a name after the colon, such as {examples}")
    return name


def is_installed(library: str) -> bool:
    return find_spec(LIBRARIES[library]) is not None


Make = Callable[[], nn.Module]
MakeInputs = Callable[[Any, int, int | None], Any]
"""From the module, the batch, and the length, None where nobody chose it."""


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model that its library knows."""

    spec: str
    make: Make
    inputs: MakeInputs

    sized = False

    def workload(self, _: str, device: str = "cpu", batch: int | None = None, length: int | None = None) -> Workload:
        """Raises ModelError where the library cannot build it."""
        with seeded(0, device):
            with blamed(self.spec, "building the model"):
                module = _built(self.make)
            with blamed(self.spec, "making inputs for it"):
                return Workload.of(module, self.inputs(module, batch or 1, length))

    def fault(self) -> str | None:
        """Why it cannot be built, found without memory for it, on torch's meta device; None where it can, or where that cannot be told.

        Raises ModelError where the machine's memory cannot hold the parameters.
        """
        try:
            with blamed(self.spec, "building the model"), torch.device("meta"):
                parameters = list(self.make().parameters())
        except ModelError as error:
            on_meta = isinstance(error.__cause__, RuntimeError)  # not every model can be built there, and torch says so
            return None if on_meta else str(error)
        needed = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
        available = psutil.virtual_memory().available
        if needed > available:
            count = sum(parameter.numel() for parameter in parameters)
            taken = f"its {count / 1e9:.1f} billion parameters take {needed / 2**30:.1f} GiB"
            raise ModelError(f"{self.spec}: {taken}, and {available / 2**30:.1f} GiB are free here; choose a smaller model")
        return None


def require_forward(name: str, workload: Workload) -> None:
    """Raises ModelError where the model does not take the inputs that were made for it."""
    try:
        with torch.no_grad():
            workload.run(workload.module)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        made = ", ".join(workload.facts().inputs)
        reason = f"the model does not take the inputs made for it ({made}; --batch and --length set them): {describe(error)}"
        raise ModelError(f"{name}: {reason}") from error


def load(spec: str) -> HubModel:
    """Finds what `spec` names. Raises ModelError where the library or the name is not there, the name with those that are near."""
    prefix, _, name = spec.partition(":")
    name_of(spec)
    found = {"hf": _of_transformers, "timm": _of_timm, "torchvision": _of_torchvision}[prefix]
    with blamed(spec, "reading its configuration"):
        return HubModel(spec, *found(name, _library(LIBRARIES[prefix])))


def _library(library: str) -> ModuleType:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", f"{_NETWORK_SECONDS:g}")  # read when it is imported
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        return importlib.import_module(library)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == library:
            raise ModelError(f"{library} is not installed; {INSTALL} installs it") from error
        fault = f"importing {library} raised {describe(error)}"
        raise ModelError(f"{fault}; does it fit torch {torch.__version__}?") from error


def _unknown(library: str, name: str, known: Iterable[str]) -> ModelError:
    near = difflib.get_close_matches(name, list(known), n=5, cutoff=0.5)
    told = f"near it: {', '.join(near)}" if near else "nothing there is like it"
    return ModelError(f"{library} has no {name}; {told}")


def _built(make: Callable[[], nn.Module]) -> nn.Module:
    """In eval mode, and with nothing to drop where a scenario trains it."""
    with drawn_in_part():
        module = make()
    for part in module.modules():
        if isinstance(part, _DropoutNd):
            part.p = 0.0
    return module.eval()


def _of_timm(name: str, timm: Any) -> tuple[Make, MakeInputs]:
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())

    def inputs(module: Any, batch: int, length: int | None) -> torch.Tensor:
        _no_length(length, "an image")
        return torch.randn(batch, *module.pretrained_cfg["input_size"])

    return lambda: timm.create_model(name, pretrained=False), inputs


def _of_torchvision(name: str, torchvision: Any) -> tuple[Make, MakeInputs]:
    models = torchvision.models
    if name not in models.list_models():
        raise _unknown("torchvision", name, models.list_models())
    parameters = signature(models.get_model_builder(name)).parameters
    without_weights = {key: None for key in ("weights", "weights_backbone") if key in parameters}
    weights = list(models.get_model_weights(name))
    image = getattr(weights[0].transforms(), "crop_size", None) if weights else None
    side = max(image) if isinstance(image, list | tuple) else image or 224

    def inputs(module: Any, batch: int, length: int | None) -> Any:
        _no_length(length, "images")
        kind = type(module).__module__.removeprefix(f"{models.__name__}.").partition(".")[0]
        if kind == "detection":
            return ([torch.rand(3, side, side) for _ in range(batch)],)
        if kind == "optical_flow":
            return torch.rand(batch, 3, 128, 128), torch.rand(batch, 3, 128, 128)
        return torch.randn(batch, 3, *((_FRAMES,) if kind == "video" else ()), side, side)

    return lambda: models.get_model(name, **without_weights), inputs


def _no_length(length: int | None, taken: str) -> None:
    if length is not None:
        raise ModelError(f"--length {length}: the model takes {taken}, which has no length; leave it out")


def _of_transformers(name: str, transformers: Any) -> tuple[Make, MakeInputs]:
    configuration = _configuration(name, transformers)
    _drop_nothing(configuration)
    return partial(_maker(configuration, transformers), configuration), _transformers_inputs


def _configuration(name: str, transformers: Any) -> Any:
    types = list(transformers.CONFIG_MAPPING)
    if Path(name).is_dir():
        found = transformers.AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        _require_known_keys(json.loads((Path(name) / "config.json").read_text()), found, transformers)
        return found
    if name in types:
        return transformers.AutoConfig.for_model(name)
    named = getattr(transformers, name, None) if name.isidentifier() else None
    if isinstance(named, type) and issubclass(named, transformers.PreTrainedConfig):
        return named()
    if "/" not in name:
        raise _unknown("transformers", name, [*types, *(key for key in dir(transformers) if key.endswith("Config"))])
    try:  # what was looked up before lies in the library's cache
        return transformers.AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except OSError:
        _require_network(name)
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)


def _require_known_keys(given: dict[str, Any], configuration: Any, transformers: Any) -> None:
    """transformers keeps what it does not know without a word, and a model is then not what its file says."""
    kind = type(configuration)
    known = {*kind().to_dict(), *kind.attribute_map, *transformers.GenerationConfig().to_dict(), *_LEGACY_KEYS}
    unknown = sorted(set(given) - known)
    if unknown:
        near = {key: difflib.get_close_matches(key, known, n=1) for key in unknown}
        told = ", ".join(f"{key} (near it: {names[0]})" if names else key for key, names in near.items())
        raise ModelError(f"config.json has keys that {kind.__name__} does not know: {told}")


def _require_network(name: str) -> None:
    """The library tries for a minute and more to reach a server that is not there."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") or os.environ.get("HTTPS_PROXY"):
        return
    server = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((server.hostname, server.port or 443), timeout=_NETWORK_SECONDS).close()
    except OSError as error:
        reason = f"{name} must be looked up, and {server.netloc} cannot be reached ({error.strerror or error})"
        instead = "a model type such as hf:bert or a folder with config.json needs no network"
        raise ModelError(f"{reason}; {instead}") from error


def _maker(configuration: Any, transformers: Any) -> Any:
    """What makes the architecture that the configuration names, else the bare model of its type."""
    for name in configuration.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)._from_config
    for auto in (transformers.AutoModel, transformers.AutoModelForCausalLM):
        if type(configuration) in auto._model_mapping:
            return auto.from_config
    raise ModelError(f"transformers has no model for {type(configuration).__name__}")


def _drop_nothing(configuration: Any) -> None:
    for key, value in list(vars(configuration).items()):
        if hasattr(value, "to_dict"):
            _drop_nothing(value)
        elif "drop" in key and isinstance(value, float):
            setattr(configuration, key, 0.0)


def _transformers_inputs(model: Any, batch: int, length: int | None) -> dict[str, torch.Tensor]:
    """What its forward pass needs, by name, from its configuration. Raises ModelError for an input that nothing is known of."""
    configuration, taken = model.config, signature(model.forward).parameters
    main, kinds = model.main_input_name, (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    required = [name for name, one in taken.items() if one.default is one.empty and one.kind in kinds]
    usual = [name for name in ([main] if isinstance(main, str) else main) if name in taken or not required]
    needed = list(dict.fromkeys([*usual, *required]))
    if "decoder_input_ids" in taken and getattr(configuration, "is_encoder_decoder", False):
        needed.append("decoder_input_ids")
    if hasattr(model, "get_text_features") and {"input_ids", "pixel_values"} <= set(taken):
        needed = ["input_ids", "pixel_values"]
    if unknown := ", ".join(name for name in needed if name not in _INPUTS):
        raise ModelError(f"{type(model).__name__} takes {unknown}, which is not made here; write a function for --model")
    if length is not None and not {"input_ids", "decoder_input_ids", "input_values"} & set(needed):
        _no_length(length, needed[0])
    return {name: _INPUTS[name](configuration, batch, length) for name in needed}


def _token_ids(configuration: Any, batch: int, length: int | None) -> torch.Tensor:
    text = configuration.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or -1  # XLNet has no limit
    usual = min(_TOKENS, longest) if longest > 0 else _TOKENS
    vocabulary = getattr(text, "vocab_size", 2)  # CANINE takes any character
    return torch.randint(vocabulary, (batch, length or usual))


def _pixel_values(configuration: Any, batch: int, _: int | None) -> torch.Tensor:
    vision = getattr(configuration, "vision_config", configuration)
    image = getattr(vision, "image_size", None) or 224
    height, width = image if isinstance(image, list | tuple) else (image, image)
    frames = [vision.num_frames] if hasattr(vision, "num_frames") else []
    return torch.randn(batch, *frames, getattr(vision, "num_channels", 3), height, width)


def _input_features(configuration: Any, batch: int, _: int | None) -> torch.Tensor:
    return torch.randn(batch, configuration.num_mel_bins, 2 * configuration.max_source_positions)


def _input_values(configuration: Any, batch: int, length: int | None) -> torch.Tensor:
    if hasattr(configuration, "num_mel_bins") and hasattr(configuration, "max_length"):  # a spectrogram
        return torch.randn(batch, configuration.max_length, configuration.num_mel_bins)
    channels = [getattr(configuration, "audio_channels", 1)] if hasattr(configuration, "upsampling_ratios") else []  # a codec
    return torch.randn(batch, *channels, length or _SAMPLES)


_INPUTS: dict[str, Callable[[Any, int, int | None], torch.Tensor]] = {
    "input_ids": _token_ids, "decoder_input_ids": _token_ids, "pixel_values": _pixel_values,
    "input_features": _input_features, "input_values": _input_values,
}  # fmt: skip


def build(model: str, batch: int, length: int | None = None, **numbers: Any) -> tuple[nn.Module, Any]:
    """A registered model, by the name of its class. Raises ModelError where transformers is not installed, and Failure where it is broken."""
    library = _library("transformers")
    try:
        model_class = getattr(library, model)  # which imports it
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        broken = f"transformers cannot import {model}: {describe(cause)}"
        raise Failure("unsupported", f"{broken}; does it fit torch {torch.__version__}?") from error
    configuration = model_class.config_class(**numbers)
    _drop_nothing(configuration)
    module = _built(partial(model_class._from_config, configuration))
    return module, _transformers_inputs(module, batch, length)
