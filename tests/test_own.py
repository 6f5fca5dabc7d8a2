"""A user's function is found, called and checked; whatever is wrong with it is said with its file and what was expected."""

from __future__ import annotations

import importlib
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.models.own import ModelError, check_output, load, name_of
from benchmarks.models.workload import Workload

HEAD = "import torch\nfrom torch import nn\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder the user works in; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    importlib.invalidate_caches()


def write(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + body)
    return path


def build(path: Path, size: str = "tiny") -> Workload:
    return load(f"{path}:build").workload(size)


def refusal(spec: str, size: str = "tiny") -> str:
    """The message with which `spec` is refused."""
    with pytest.raises(ModelError) as caught:
        load(spec).workload(size)
    return str(caught.value)


def test_a_function_in_a_file_is_found_by_its_path(folder: Path) -> None:
    path = write(folder / "deep" / "model.py", "def build():\n    return nn.Linear(3, 2), torch.ones(4, 3)\n")
    model = load(f"{path}:build")
    workload = model.workload("tiny")
    assert not model.sized
    assert workload.run(workload.module).shape == (4, 2)
    relative = load("deep/model.py:build").workload("tiny")
    assert relative.run(relative.module).shape == (4, 2)


def test_a_function_in_a_package_is_found_by_its_import_name(folder: Path) -> None:
    write(folder / "shop" / "__init__.py", "")
    write(folder / "shop" / "width.py", "WIDTH = 5\n")
    write(
        folder / "shop" / "model.py",
        "from shop.width import WIDTH\ndef build(size):\n    return nn.Linear(WIDTH, 2), torch.ones(1, WIDTH)\n",
    )
    model = load("shop.model:build")
    assert model.sized
    assert model.workload("tiny").facts().inputs == ["float32[1, 5]"]


@pytest.mark.parametrize("signature", ["size", "size='medium'", "*, size", "size, width=3"])
def test_size_is_passed_to_a_function_that_takes_it(folder: Path, signature: str) -> None:
    path = write(
        folder / "model.py",
        f"def build({signature}):\n    n = {{'tiny': 1, 'large': 9}}[size]\n    return nn.Linear(n, n), torch.ones(n, n)\n",
    )
    model = load(f"{path}:build")
    assert model.sized
    assert [model.workload(size).facts().parameters for size in ("tiny", "large")] == [2, 90]


@pytest.mark.parametrize("signature", ["", "width=3", "*args, **kwargs", "*, width=3"])
def test_a_function_that_needs_nothing_is_called_with_nothing(folder: Path, signature: str) -> None:
    path = write(folder / "model.py", f"def build({signature}):\n    return nn.Linear(3, 2), torch.ones(4, 3)\n")
    model = load(f"{path}:build")
    assert not model.sized
    assert model.workload("tiny").facts().parameters == 8


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [("x", 1, []), ("(x, x)", 2, []), ("{'input': x}", 0, ["input"])],
    ids=["tensor", "tuple", "dict"],
)
def test_inputs_are_a_tensor_or_positional_or_keyword_arguments(
    folder: Path, inputs: str, args: int, kwargs: list[str]
) -> None:
    path = write(folder / "model.py", f"def build():\n    x = torch.ones(4, 3)\n    return nn.Linear(3, 2), {inputs}\n")
    workload = build(path)
    assert (len(workload.args), list(workload.kwargs)) == (args, kwargs)


def test_a_file_imports_its_neighbours(folder: Path) -> None:
    write(folder / "project" / "neighbour_of_model.py", "WIDTH = 6\n")
    path = write(
        folder / "project" / "model.py",
        "from neighbour_of_model import WIDTH\ndef build():\n    return nn.Linear(WIDTH, 1), torch.ones(1, WIDTH)\n",
    )
    assert build(path).facts().parameters == 7


def test_a_file_may_define_dataclasses_under_postponed_annotations(folder: Path) -> None:
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n" + HEAD + "@dataclass(slots=True)\n"
        "class Out:\n    logits: torch.Tensor\n    count: int = 0\n"
        "class Net(nn.Linear):\n    def forward(self, x):\n        return Out(super().forward(x))\n"
        "def build():\n    return Net(3, 2), torch.ones(1, 3)\n"
    )
    path = folder / "model.py"
    path.write_text(source)
    workload = build(path)
    output = workload.run(workload.module)
    check_output("spec", output)
    assert output.logits.shape == (1, 2)


def test_a_users_model_is_built_with_the_same_values_every_time_and_other_generators_are_left_alone(folder: Path) -> None:
    path = write(folder / "model.py", "def build():\n    return nn.Linear(3, 2), torch.randn(4, 3)\n")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second = build(path), build(path)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.module.weight, second.module.weight)  # type: ignore[arg-type]
    assert torch.equal(first.args[0], second.args[0])


def test_a_users_model_stays_in_the_mode_that_it_was_built_in(folder: Path) -> None:
    path = write(folder / "model.py", "def build():\n    return nn.Sequential(nn.Linear(3, 2)).train(), torch.ones(1, 3)\n")
    assert build(path).module.training


def test_running_out_of_memory_while_building_is_not_blamed_on_the_function(folder: Path) -> None:
    path = write(folder / "model.py", "def build():\n    raise MemoryError\n")
    with pytest.raises(MemoryError):
        build(path)


SHAPE = "expected a function of no arguments, or of `size`, that returns (module, inputs)"
WRONG_FUNCTIONS = {
    "raises": ("def build():\n    raise ValueError('no weights here')\n", ["ValueError: no weights here", "model.py:4", SHAPE]),
    "needs another argument": ("def build(width):\n    pass\n", ["(width)", SHAPE]),
    "needs another argument beside size": ("def build(size, *, width):\n    pass\n", ["size, width", SHAPE]),
    "cannot take size by name": ("def build(size, /):\n    pass\n", ["takes (size)", SHAPE]),
    "is no function": ("build = nn.Sequential\nbuild = 3\n", ["not a function", SHAPE]),
    "is not there": ("def make():\n    pass\ndef other():\n    pass\n", ["no such function", "make, other", SHAPE]),
    "returns None": ("def build():\n    pass\n", ["NoneType", SHAPE]),
    "returns the module alone": ("def build():\n    return nn.Linear(1, 1)\n", ["Linear", SHAPE]),
    "returns three things": ("def build():\n    return nn.Linear(1, 1), torch.ones(1), 3\n", ["tuple of 3", SHAPE]),
    "returns a list": ("def build():\n    return [nn.Linear(1, 1), torch.ones(1)]\n", ["list", SHAPE]),
    "swaps module and inputs": ("def build():\n    return torch.ones(1), nn.Linear(1, 1)\n", ["Tensor as the module", SHAPE]),
    "returns the class": ("def build():\n    return nn.ReLU, torch.ones(1)\n", ["type as the module", SHAPE]),
    "has no parameters": ("def build():\n    return nn.ReLU(), torch.ones(1)\n", ["no parameters", "at least one"]),
    "has a list as inputs": (
        "def build():\n    return nn.Linear(1, 1), [torch.ones(1)]\n",
        ["list", "tensor", "tuple", "dict"],
    ),
    "has an array as inputs": (
        "import numpy\ndef build():\n    return nn.Linear(1, 1), numpy.ones(1)\n",
        ["ndarray", "tensor", "tuple", "dict"],
    ),
    "has an array among the inputs": (
        "import numpy\ndef build():\n    return nn.Linear(1, 1), (numpy.ones(1),)\n",
        ["ndarray", "expected tensors"],
    ),
    "has inputs with keys that are no names": (
        "def build():\n    return nn.Linear(1, 1), {1: torch.ones(1)}\n",
        ["dict", "tensor"],
    ),
}


@pytest.mark.parametrize(("body", "parts"), WRONG_FUNCTIONS.values(), ids=WRONG_FUNCTIONS)
def test_a_function_that_does_not_suit_is_refused_with_its_file_and_what_was_expected(
    folder: Path, body: str, parts: list[str]
) -> None:
    path = write(folder / "model.py", body)
    message = refusal(f"{path}:build")
    assert [part for part in (f"{path}:build", *parts) if part not in message] == []


WRONG_FILES = {
    "raises": ("1 / 0\n", ["ZeroDivisionError", "model.py:3"]),
    "has a syntax error": ("def build(:\n", ["SyntaxError", "line 3"]),
    "imports what is not installed": ("import no_such_module_anywhere\n", ["no_such_module_anywhere", "model.py:3"]),
    "ends the program": ("raise SystemExit(2)\n", ["SystemExit: 2"]),
}


@pytest.mark.parametrize(("body", "parts"), WRONG_FILES.values(), ids=WRONG_FILES)
@pytest.mark.parametrize("by_path", [True, False], ids=["file", "module"])
def test_a_file_that_cannot_be_imported_is_refused_with_its_error(
    folder: Path, body: str, parts: list[str], by_path: bool
) -> None:
    path = write(folder / "package" / "model.py", body)
    spec = f"{path}:build" if by_path else "package.model:build"
    message = refusal(spec)
    assert [part for part in (spec, *parts) if part not in message] == []


def test_a_file_that_is_not_there_is_named_with_where_it_was_looked_for(folder: Path) -> None:
    message = refusal("missing/model.py:build")
    assert [part for part in ("missing/model.py:build", "no file", str(folder)) if part not in message] == []


def test_a_module_that_is_not_there_is_named() -> None:
    message = refusal("no_such_package.model:build")
    assert "no_such_package.model:build" in message
    assert "no module no_such_package " in message


def test_a_file_named_without_its_ending_is_refused_with_a_hint(folder: Path) -> None:
    write(folder / "project" / "model.py", "def build():\n    pass\n")
    assert "a file is named with its .py" in refusal("project/model:build")
    assert ".py" not in refusal("no_such_module_either:build")


@pytest.mark.parametrize("spec", ["", "model.py", ":build", "model.py:", "model.py:1st", "model.py:a.b", "model.py:build()"])
def test_a_malformed_spec_is_refused_with_the_two_forms(spec: str) -> None:
    with pytest.raises(ModelError) as caught:
        name_of(spec)
    assert str(caught.value).startswith(f"--model {spec}: expected path/to/file.py:function or package.module:function")
    assert refusal(spec) == str(caught.value)


def test_a_specs_function_gives_the_model_its_name() -> None:
    assert name_of("C:/models/file.py:build") == "build"
    assert name_of("package.module:tiny_net") == "tiny_net"


@dataclass
class Out:
    logits: Any
    loss: Any = None


X = torch.ones(2)


@pytest.mark.parametrize(
    "output",
    [X, (X, None), [X, 3], {"a": X}, OrderedDict(a=(X, [X])), Out(X), (Out({"deep": [X]}), 1.5, "text"), torch.max(X, dim=0)],
    ids=["tensor", "tuple", "list", "dict", "nested", "dataclass", "mixed", "named tuple"],
)
def test_outputs_that_hold_tensors_are_accepted(output: Any) -> None:
    check_output("model.py:build", output)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (1.5, "float"),
        (None, "NoneType"),
        ("text", "str"),
        ((), "tuple"),
        ({"a": None}, "dict"),
        (Out(None), "Out"),
        (np.ones(2), "ndarray"),
        (object(), "object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_outputs_without_tensors_are_refused_by_their_type(output: Any, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_output("model.py:build", output)
    message = str(caught.value)
    assert message.startswith("model.py:build: the model's output")
    assert said in message
    assert "expected tensors, or tuples, lists, dicts or dataclasses of" in message


def test_a_value_that_does_not_suit_beside_a_tensor_is_refused() -> None:
    with pytest.raises(ModelError, match="got ndarray"):
        check_output("net.py:net", (torch.ones(1), np.ones(2)))


def test_a_function_that_leaves_the_program_or_has_no_signature_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "leaves.py"
    path.write_text("import sys\ndef net():\n    sys.exit(3)\n")
    with pytest.raises(ModelError, match=r"leaves.py:net: the function raised SystemExit: 3"):
        load(f"{path}:net").workload("own")
    with pytest.raises(ModelError, match=r"builtins:dict: .*expected a function of no arguments"):
        load("builtins:dict")
