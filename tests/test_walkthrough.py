"""The walkthrough says what torch really does, marks what does not hold, and leaves the process as it found it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from analysis.render import WIDTH, markdown, terminal
from benchmarks.modes import DETACH, FROZEN, INFERENCE_MODE, MODES, NO_GRAD, TRACKED, Mode, Run, Step
from benchmarks.walkthrough import contexts
from benchmarks.walkthrough.__main__ import main
from benchmarks.walkthrough.steps import STEPS, Fact
from benchmarks.walkthrough.steps import Step as Code
from benchmarks.walkthrough.table import PROPERTIES, find, modes_table
from benchmarks.walkthrough.walk import Seen, told, walk

ROOT = Path(__file__).parent.parent
PINNED = re.findall(r"^torch==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[0]
INSTALLED = torch.__version__.partition("+")[0]
EIGHT = [MODES[name] for name in (
    "tracked", "no_grad", "inference_mode", "detach", "set_grad_enabled", "frozen", "detached_parameters", "no_grad_decorator",
)]  # fmt: skip


def without_torchs_words(text: str) -> str:
    """Messages, which each torch words in its own way: their key words are part of the facts."""
    return re.sub(r"(?m)^( {8}[a-z0-9].*|- \d+: .*)\n", "", text).replace(PINNED, INSTALLED)


def assert_is(printed: str, golden: str) -> None:
    if INSTALLED == PINNED:
        assert printed == golden
    else:
        found, wanted = without_torchs_words(printed), without_torchs_words(golden)
        assert found == wanted, f"torch {INSTALLED} differs from {PINNED}, which the golden text and the README are from"


@contextmanager
def nothing(*_: object) -> Iterator[None]:
    """A context, and a decorator, that changes nothing."""
    yield


def broken_facts(steps: tuple[Code, ...] = STEPS) -> list[str]:
    return [seen.fact.words for taken in walk(steps) for seen in taken.seen if not seen.holds]


def test_the_walkthrough_prints_each_fact_beside_what_has_just_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert_is(capsys.readouterr().out, WALKTHROUGH)


def test_a_context_that_does_nothing_is_told_by_marks_and_by_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "no_grad", nothing)
    assert main([]) == 1
    printed = capsys.readouterr().out
    assert "  ! z.requires_grad                            -> True            z is not, though x requires grad" in printed
    assert "        expected False, not True\n" in printed
    assert "    y.requires_grad                            -> True            y is tracked, as x is" in printed
    assert "facts, marked ! above, do not hold:" in printed
    assert "\n  step 1: z is not, though x requires grad (z.requires_grad)\n" in printed
    assert max(map(len, printed.splitlines())) <= WIDTH


DETACH_OF_TORCH = torch.Tensor.detach


@pytest.mark.parametrize(
    ("owner", "name", "replacement", "words"),
    [
        (torch.Tensor, "detach", lambda tensor: DETACH_OF_TORCH(tensor.clone()),
         ["the same storage", "the original has changed too", "what backward needs is gone"]),
        (torch.Tensor, "detach", lambda tensor: tensor, ["not tracked", "without history"]),
        (nn.Module, "eval", lambda module: module, ["dropout is off: two passes agree", "batch norm is frozen", "loss: log(e + 3) - 3/4"]),
        (nn.Identity, "forward", lambda module, tensor: tensor.clone(), ["a module that hands y on gives y", "with its whole graph"]),
        (torch, "enable_grad", nothing, ["a block inside has its own state"]),
    ],
    ids=["detach copies", "detach does nothing", "eval does nothing", "identity computes", "enable_grad does nothing"],
)  # fmt: skip
def test_whatever_else_breaks_in_torch_breaks_its_own_facts(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, replacement: Callable[..., Any], words: list[str]
) -> None:
    monkeypatch.setattr(owner, name, replacement)
    assert broken_facts() == words


@pytest.mark.parametrize(
    ("outcome", "message", "holds"),
    [
        ("RuntimeError", "element 0 does not require grad and more", True),
        ("RuntimeError", "something else", False),
        ("ValueError", "does not require grad", False),
        ("None", "", False),
    ],
)
def test_a_fact_that_something_raises_needs_the_error_and_its_key_words(outcome: str, message: str, holds: bool) -> None:
    assert Seen(Fact("words", "z.backward()", raises="does not require grad"), outcome, message).holds == holds


def test_a_fact_about_a_value_does_not_hold_where_something_is_raised() -> None:
    (taken,) = walk([Code("title", "a = 1", (Fact("words", "a / 0", "ZeroDivisionError"), Fact("words", "a", "1")))])
    assert [seen.holds for seen in taken.seen] == [False, True]


def test_code_that_raises_breaks_all_facts_of_its_step_and_says_why() -> None:
    steps = [Code("title", "a = 1\nraise ValueError('why')", (Fact("one", "a", "1"), Fact("two", "a", "1")))]
    text = told(walk(steps))
    assert text.count("expected 1, not ValueError\n        why\n") == 2
    assert text.endswith("2 of 2 facts, marked ! above, do not hold:\n  step 1: one (a)\n  step 1: two (a)")


def test_a_step_that_leaves_gradients_off_spoils_neither_the_next_one_nor_the_process() -> None:
    leaking = Code("leaks", "import torch\ntorch.set_grad_enabled(False)", ())
    looking = Code("looks", "", (Fact("on", "torch.is_grad_enabled()", "True"),))
    assert [seen.holds for seen in walk([leaking, looking])[1].seen] == [True]
    walk([leaking])
    assert torch.is_grad_enabled()


def test_gradient_mode_generators_and_threads_are_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with torch.no_grad():
            assert main([]) == main(["--modes"]) == 0
            assert not torch.is_grad_enabled()
        assert torch.equal(torch.get_rng_state(), generator)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_the_table_of_modes_as_the_readme_shows_it() -> None:
    assert_is(markdown(modes_table(EIGHT)) + "\n", TABLE)


def test_the_terminal_shows_all_eight_modes(capsys: pytest.CaptureFixture[str]) -> None:
    text = terminal(modes_table(EIGHT, words=True))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "left out" not in text
    assert main(["--modes"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == terminal(modes_table(list(MODES.values()), words=True)).splitlines()[:2]


def step_of(
    before: Callable[[], object], after: Callable[[Any], Any] = lambda output: output
) -> Callable[[nn.Module, Run], Step]:
    """A mode that does something before the model runs, and something to the output."""

    def bind(module: nn.Module, run: Run) -> Step:
        def step() -> Any:
            before()
            return after(run(module))

        return step

    return bind


def off() -> None:
    torch.set_grad_enabled(False)


def raising() -> None:
    raise ValueError("no such thing")


def leaving(context: Any) -> Callable[[nn.Module, Run], Step]:
    """A context that is left properly, unless an exception comes."""

    def bind(module: nn.Module, run: Run) -> Step:
        def step() -> Any:
            opened = context()
            opened.__enter__()
            output = run(module)
            opened.__exit__(None, None, None)
            return output

        return step

    return bind


@pytest.mark.parametrize(
    ("mode", "bind", "name", "right", "wrong"),
    [
        (TRACKED, DETACH.bind, "in the graph", "yes", "no"),
        (NO_GRAD, TRACKED.bind, "in the graph", "no", "yes"),
        (NO_GRAD, FROZEN.bind, "in the graph if the input is", "no", "yes"),
        (NO_GRAD, TRACKED.bind, "requires_grad", "no", "yes"),
        (NO_GRAD, DETACH.bind, "requires_grad of a view", "yes", "no"),
        (INFERENCE_MODE, NO_GRAD.bind, "an inference tensor", "yes", "no"),
        (DETACH, TRACKED.bind, "backward works", "no", "yes"),
        (TRACKED, INFERENCE_MODE.bind, "usable in tracked code", "yes", "no"),
        (NO_GRAD, INFERENCE_MODE.bind, "changeable in place", "yes", "no"),
        (NO_GRAD, step_of(off), "gradient mode restored", "yes", "no"),
        (NO_GRAD, leaving(torch.no_grad), "and after an exception", "yes", "no"),
        (FROZEN, NO_GRAD.bind, "holds in a new thread", "yes", "no"),
        (NO_GRAD, step_of(lambda: None, nn.Identity()), "holds in a new thread", "no", "no"),
        (TRACKED, NO_GRAD.bind, "holds in a new thread", "-", "-"),
        (TRACKED, lambda module, run: lambda: run(module.eval()), "BatchNorm statistics move", "yes", "no"),
        (TRACKED, step_of(raising), "BatchNorm statistics move", "yes", "fails"),
    ],
)  # fmt: skip
def test_a_property_is_found_by_running_the_mode(
    mode: Mode, bind: Callable[[nn.Module, Run], Step], name: str, right: str, wrong: str
) -> None:
    look = {**PROPERTIES["the output"], **PROPERTIES["the call"]}[name]
    assert find(look, mode).answer == right
    assert find(look, replace(mode, bind=bind)).answer == wrong
    assert torch.is_grad_enabled()


class Leaking(torch.no_grad):
    """Does not put the mode back."""

    def __exit__(self, *_: object) -> None:
        pass


class Everywhere:
    """Decorates whatever it is given so that gradients are off only while its code runs."""

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def decorated(*args: Any) -> Any:
            return Resumed(function(*args))

        return decorated


class Resumed:
    """A generator or coroutine that runs without gradients each time it is resumed."""

    def __init__(self, paused: Any) -> None:
        self._paused = paused

    def send(self, value: object) -> Any:
        with torch.no_grad():
            return self._paused.send(value)


@pytest.mark.parametrize(
    ("about", "name", "context", "expected"),
    [
        ("as decorator of", "a function", torch.no_grad, ("yes", "")),
        ("as decorator of", "a function", nothing, ("no", "gradients are on inside")),
        ("as decorator of", "a function", Leaking, ("no", "gradients are off for the caller")),
        ("as decorator of", "a generator function", torch.no_grad, ("yes", "")),
        ("as decorator of", "a generator function", nothing, ("no", "gradients are on inside")),
        ("as decorator of", "a generator function", Leaking, ("no", "gradients are off for the caller")),
        ("as decorator of", "an async function", Everywhere, ("yes", "")),
        ("as decorator of", "an async function", nothing, ("no", "gradients are on inside")),
        ("as decorator of", "an async function", Leaking, ("no", "gradients are off for the caller")),
        ("as block inside", "a generator function", torch.no_grad, ("no", "gradients are off for the caller")),
        ("as block inside", "a generator function", nothing, ("no", "gradients are on inside")),
        ("as block inside", "an async function", torch.no_grad, ("no", "gradients are off for the caller")),
        ("as block inside", "an async function", nothing, ("no", "gradients are on inside")),
    ],
)  # fmt: skip
def test_what_a_context_does_to_functions_is_found_by_running_them(
    monkeypatch: pytest.MonkeyPatch, about: str, name: str, context: Any, expected: tuple[str, str]
) -> None:
    monkeypatch.setattr(contexts, "DECORATORS", {NO_GRAD.name: context})
    monkeypatch.setattr(contexts, "BLOCKS", {NO_GRAD.name: context})
    found = find(PROPERTIES[about][name], NO_GRAD)
    assert (found.answer, found.why) == expected
    assert find(PROPERTIES[about][name], DETACH).answer == "-"
    assert torch.is_grad_enabled()


def test_more_reasons_than_letters_and_messages_of_several_lines_have_footnotes() -> None:
    def failing(number: int) -> Mode:
        def bind(module: nn.Module, run: Run) -> Step:
            raise ValueError(f"number {number}\nand more")

        return replace(TRACKED, name=f"mode_{number}", bind=bind)

    notes = modes_table([failing(number) for number in range(30)]).notes
    assert notes[-1] == "30: ValueError: number 29 and more"


def test_a_changed_mode_changes_its_column_and_no_other() -> None:
    changed = [replace(mode, bind=DETACH.bind) if mode is NO_GRAD else mode for mode in EIGHT]
    before, after = modes_table(EIGHT).raw, modes_table(changed).raw
    differing = {(str(one["property"]), str(one["mode"])) for one, other in zip(before, after, strict=True) if one != other}
    assert differing == {("requires_grad of a view", "no_grad"), ("holds in a new thread", "no_grad")}


@pytest.mark.parametrize("options", [["--format", "csv"], ["--modes", "--format", "no such"], ["--no-such"]])
def test_wrong_options_are_refused_in_one_line_without_loading_torch(options: list[str]) -> None:
    code = f"import sys\nfrom benchmarks.walkthrough.__main__ import main\ntry: main({options})\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(re.findall(r"error: .*--", done.stderr)) == 1
    assert "Traceback" not in done.stderr


WALKTHROUGH = """\
1. What is computed from x is recorded; inside no_grad it is not

    import torch
    from torch import nn

    x = torch.tensor([2.0], requires_grad=True)
    y = 2 * x
    with torch.no_grad():
        z = 3 * x

    y.requires_grad                            -> True            y is tracked, as x is
    y.grad_fn.name()                           -> 'MulBackward0'  and knows the operation behind it
    z.requires_grad                            -> False           z is not, though x requires grad
    z.grad_fn                                  -> None            nothing leads back from it
    z.tolist()                                 -> [6.0]           its value is the same as ever

2. Backward goes through what was recorded, and only there

    y.backward()

    x.grad                                     -> tensor([2.])    through y: the derivative of 2x
    z.backward()                               -> RuntimeError    through z there is no way back
        element 0 of tensors does not require grad and does not have a grad_fn

3. Leaving the block brings the state of before back, whichever way it is left

    before = torch.is_grad_enabled()
    with torch.no_grad():
        inside = torch.is_grad_enabled()
        with torch.enable_grad():
            nested = torch.is_grad_enabled()
        left_nested = torch.is_grad_enabled()
    after = torch.is_grad_enabled()

    try:
        with torch.no_grad():
            raise ValueError
    except ValueError:
        after_exception = torch.is_grad_enabled()

    @torch.no_grad()
    def triple(tensor):
        return 3 * tensor

    before                                     -> True            gradients are on, as torch starts
    inside                                     -> False           inside they are off
    nested                                     -> True            a block inside has its own state
    left_nested                                -> False           and gives back the outer block's
    after                                      -> True            outside they are on again
    after_exception                            -> True            after an exception too
    triple(x).requires_grad                    -> False           as a decorator: off inside
    torch.is_grad_enabled()                    -> True            and on once it has returned

4. no_grad untracks what is computed, not what is handed on: look at grad_fn, not at requires_grad

    with torch.no_grad():
        computed = y + 0
        view = y.view(1)
        same = nn.Identity()(y)

    computed.requires_grad                     -> False           a new tensor is untracked
    view.requires_grad                         -> True            a view says True, as y does
    view.grad_fn                               -> None            but was not recorded
    same is y                                  -> True            a module that hands y on gives y
    same.grad_fn.name()                        -> 'MulBackward0'  with its whole graph

5. What is not tracked cannot reach the gradients by accident

    weight = torch.tensor([1.0], requires_grad=True)
    (2 * weight).backward()
    wanted = weight.grad.clone()

    (2 * weight).backward()  # once too often
    doubled = weight.grad.clone()

    with torch.no_grad():
        score = 2 * weight

    wanted                                     -> tensor([2.])    the gradient that was wanted
    doubled                                    -> tensor([4.])    tracked, the mistake adds up
    score.backward()                           -> RuntimeError    untracked, it is an error
        element 0 of tensors does not require grad and does not have a grad_fn
    weight.grad                                -> tensor([4.])    and the gradient stays as it was

6. detach() takes one tensor out of the graph, without a copy

    original = x.exp()  # exp keeps its result for backward
    detached = original.detach()

    detached.data_ptr() == original.data_ptr() -> True            the same storage
    detached.requires_grad                     -> False           not tracked
    detached.grad_fn                           -> None            without history
    original.grad_fn.name()                    -> 'ExpBackward0'  the original stays in the graph

7. Writing to the detached tensor writes to the original, and backward notices

    copy = original.detach().clone()
    detached.zero_()

    original.tolist()                          -> [0.0]           the original has changed too
    original.backward()                        -> RuntimeError    what backward needs is gone
        one of the variables needed for gradient computation has been modified by an inplace
        operation: [torch.FloatTensor [1]], which is output 0 of Exp, is at version 1; expected
        version 0 instead. Hint: enable anomaly detection to find the operation that failed to ...
    copy.data_ptr() == original.data_ptr()     -> False           a clone has storage of its own

8. eval() changes layers, and does not stop tracking

    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Linear(4, 4, bias=False), norm, nn.Dropout())
    nn.init.eye_(model[0].weight)  # hands its input on
    inputs = torch.eye(4).repeat(3, 1)
    statistics = norm.running_mean.clone()

    model.eval()
    first, second = model(inputs), model(inputs)

    torch.equal(first, second)                 -> True            dropout is off: two passes agree
    torch.equal(norm.running_mean, statistics) -> True            batch norm is frozen
    first.requires_grad                        -> True            but every pass is tracked

9. Evaluation wants both: eval() and no_grad around the loop

    from torch.utils.data import DataLoader, TensorDataset

    labels = torch.tensor([0, 1, 2, 0]).repeat(3)  # one in four is wrong
    correct, loss = 0, 0.0
    model.eval()
    with torch.no_grad():
        for batch, truth in DataLoader(TensorDataset(inputs, labels), batch_size=5):
            outputs = model(batch)
            correct += (outputs.argmax(dim=1) == truth).sum().item()
            loss += nn.functional.cross_entropy(outputs, truth, reduction="sum").item()

    correct / len(labels)                      -> 0.75            accuracy: three in four, as made
    round(loss / len(labels), 3)               -> 0.994           loss: log(e + 3) - 3/4
    outputs.requires_grad                      -> False           nothing was tracked

10. no_grad alone stops tracking, and changes no layer

    model.train()
    with torch.no_grad():
        first, second = model(inputs), model(inputs)

    torch.equal(first, second)                 -> False           dropout is on: two passes differ
    torch.equal(norm.running_mean, statistics) -> False           batch norm's statistics move
    first.requires_grad                        -> False           though nothing is tracked

40 facts, and every one of them holds.
"""

TABLE = """\
| about           | property                     | tracked | no_grad | inference_mode | detach | set_grad_enabled | frozen | detached_parameters | no_grad_decorator |
| --------------- | ---------------------------- | ------- | ------- | -------------- | ------ | ---------------- | ------ | ------------------- | ----------------- |
| the output      | in the graph                 | yes     | no      | no             | no     | no               | no     | no                  | no                |
| the output      | in the graph if the input is | yes     | no      | no             | no     | no               | yes    | yes                 | no                |
| the output      | requires_grad                | yes     | no      | no             | no     | no               | no     | no                  | no                |
| the output      | requires_grad of a view      | yes     | yes     | yes            | no     | yes              | yes    | yes                 | yes               |
| the output      | an inference tensor          | no      | no      | yes            | no     | no               | no     | no                  | no                |
| the output      | backward works               | yes     | no (1)  | no (1)         | no (1) | no (1)           | no (1) | no (1)              | no (1)            |
| the output      | usable in tracked code       | yes     | yes     | no (2)         | yes    | yes              | yes    | yes                 | yes               |
| the output      | changeable in place          | yes     | yes     | no (3)         | yes    | yes              | yes    | yes                 | yes               |
| the call        | gradient mode restored       | yes     | yes     | yes            | yes    | yes              | yes    | yes                 | yes               |
| the call        | and after an exception       | yes     | yes     | yes            | yes    | yes              | yes    | yes                 | yes               |
| the call        | holds in a new thread        | -       | no (4)  | no (4)         | yes    | no (4)           | yes    | yes                 | no (4)            |
| the call        | BatchNorm statistics move    | yes     | yes     | yes            | yes    | yes              | yes    | yes                 | yes               |
| as decorator of | a function                   | -       | yes     | yes            | -      | yes              | -      | -                   | yes               |
| as decorator of | a generator function         | -       | yes     | yes            | -      | yes              | -      | -                   | yes               |
| as decorator of | an async function            | -       | no (5)  | no (5)         | -      | no (5)           | -      | -                   | no (5)            |
| as block inside | a generator function         | -       | no (6)  | no (6)         | -      | no (6)           | -      | -                   | -                 |
| as block inside | an async function            | -       | no (6)  | no (6)         | -      | no (6)           | -      | -                   | -                 |

- found by running torch 2.13.0; -: makes no sense for the mode
- a view: of an input that requires grad; usable: times a weight, then backward; a new thread: started in the call
- 1: element 0 of tensors does not require grad and does not have a grad_fn
- 2: Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode in computation tracked by autograd. To work around this, you can make a clone to get a normal tensor and use it in autograd, or use \\`torch.no_grad()\\` instead of \\`torch.inference_mode()\\`.
- 3: Inplace update to inference tensor outside InferenceMode is not allowed.You can make a clone to get a normal tensor before doing inplace update.See https://github.com/pytorch/rfcs/pull/17 for more details.
- 4: gradients are on in the thread
- 5: gradients are on inside
- 6: gradients are off for the caller
"""
