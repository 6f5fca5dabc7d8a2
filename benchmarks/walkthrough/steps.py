"""The steps of the walkthrough: code, and what is true once it has run. The names of one step are known in the next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """A statement about what `expression` gives: the repr `expected` or, where `raises` is set, a RuntimeError with those words in it."""

    words: str
    expression: str
    expected: str = ""
    raises: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """Code to be run as it stands, and the facts to be looked at in turn afterwards."""

    title: str
    code: str
    facts: tuple[Fact, ...]


RECORDED = Step(
    "What is computed from x is recorded; inside no_grad it is not",
    """\
import torch
from torch import nn

x = torch.tensor([2.0], requires_grad=True)
y = 2 * x
with torch.no_grad():
    z = 3 * x""",
    (
        Fact("y is tracked, as x is", "y.requires_grad", "True"),
        Fact("and knows the operation behind it", "y.grad_fn.name()", "'MulBackward0'"),
        Fact("z is not, though x requires grad", "z.requires_grad", "False"),
        Fact("nothing leads back from it", "z.grad_fn", "None"),
        Fact("its value is the same as ever", "z.tolist()", "[6.0]"),
    ),
)

BACKWARD = Step(
    "Backward goes through what was recorded, and only there",
    "y.backward()",
    (
        Fact("through y: the derivative of 2x", "x.grad", "tensor([2.])"),
        Fact("through z there is no way back", "z.backward()", raises="does not require grad"),
    ),
)

RESTORED = Step(
    "Leaving the block brings the state of before back, whichever way it is left",
    """\
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
    return 3 * tensor""",
    (
        Fact("gradients are on, as torch starts", "before", "True"),
        Fact("inside they are off", "inside", "False"),
        Fact("a block inside has its own state", "nested", "True"),
        Fact("and gives back the outer block's", "left_nested", "False"),
        Fact("outside they are on again", "after", "True"),
        Fact("after an exception too", "after_exception", "True"),
        Fact("as a decorator: off inside", "triple(x).requires_grad", "False"),
        Fact("and on once it has returned", "torch.is_grad_enabled()", "True"),
    ),
)

VIEWS = Step(
    "no_grad untracks what is computed, not what is handed on: look at grad_fn, not at requires_grad",
    """\
with torch.no_grad():
    computed = y + 0
    view = y.view(1)
    same = nn.Identity()(y)""",
    (
        Fact("a new tensor is untracked", "computed.requires_grad", "False"),
        Fact("a view says True, as y does", "view.requires_grad", "True"),
        Fact("but was not recorded", "view.grad_fn", "None"),
        Fact("a module that hands y on gives y", "same is y", "True"),
        Fact("with its whole graph", "same.grad_fn.name()", "'MulBackward0'"),
    ),
)

PROTECTED = Step(
    "What is not tracked cannot reach the gradients by accident",
    """\
weight = torch.tensor([1.0], requires_grad=True)
(2 * weight).backward()
wanted = weight.grad.clone()

(2 * weight).backward()  # once too often
doubled = weight.grad.clone()

with torch.no_grad():
    score = 2 * weight""",
    (
        Fact("the gradient that was wanted", "wanted", "tensor([2.])"),
        Fact("tracked, the mistake adds up", "doubled", "tensor([4.])"),
        Fact("untracked, it is an error", "score.backward()", raises="does not require grad"),
        Fact("and the gradient stays as it was", "weight.grad", "tensor([4.])"),
    ),
)

DETACHED = Step(
    "detach() takes one tensor out of the graph, without a copy",
    """\
original = x.exp()  # exp keeps its result for backward
detached = original.detach()""",
    (
        Fact("the same storage", "detached.data_ptr() == original.data_ptr()", "True"),
        Fact("not tracked", "detached.requires_grad", "False"),
        Fact("without history", "detached.grad_fn", "None"),
        Fact("the original stays in the graph", "original.grad_fn.name()", "'ExpBackward0'"),
    ),
)

IN_PLACE = Step(
    "Writing to the detached tensor writes to the original, and backward notices",
    """\
copy = original.detach().clone()
detached.zero_()""",
    (
        Fact("the original has changed too", "original.tolist()", "[0.0]"),
        Fact("what backward needs is gone", "original.backward()", raises="modified by an inplace operation"),
        Fact("a clone has storage of its own", "copy.data_ptr() == original.data_ptr()", "False"),
    ),
)

EVAL_ALONE = Step(
    "eval() changes layers, and does not stop tracking",
    """\
norm = nn.BatchNorm1d(4)
model = nn.Sequential(nn.Linear(4, 4, bias=False), norm, nn.Dropout())
nn.init.eye_(model[0].weight)  # hands its input on
inputs = torch.eye(4).repeat(3, 1)
statistics = norm.running_mean.clone()

model.eval()
first, second = model(inputs), model(inputs)""",
    (
        Fact("dropout is off: two passes agree", "torch.equal(first, second)", "True"),
        Fact("batch norm is frozen", "torch.equal(norm.running_mean, statistics)", "True"),
        Fact("but every pass is tracked", "first.requires_grad", "True"),
    ),
)

EVALUATION = Step(
    "Evaluation wants both: eval() and no_grad around the loop",
    """\
from torch.utils.data import DataLoader, TensorDataset

labels = torch.tensor([0, 1, 2, 0]).repeat(3)  # one in four is wrong
correct, loss = 0, 0.0
model.eval()
with torch.no_grad():
    for batch, truth in DataLoader(TensorDataset(inputs, labels), batch_size=5):
        outputs = model(batch)
        correct += (outputs.argmax(dim=1) == truth).sum().item()
        loss += nn.functional.cross_entropy(outputs, truth, reduction="sum").item()""",
    (
        Fact("accuracy: three in four, as made", "correct / len(labels)", "0.75"),
        Fact("loss: log(e + 3) - 3/4", "round(loss / len(labels), 3)", "0.994"),
        Fact("nothing was tracked", "outputs.requires_grad", "False"),
    ),
)

NO_GRAD_ALONE = Step(
    "no_grad alone stops tracking, and changes no layer",
    """\
model.train()
with torch.no_grad():
    first, second = model(inputs), model(inputs)""",
    (
        Fact("dropout is on: two passes differ", "torch.equal(first, second)", "False"),
        Fact("batch norm's statistics move", "torch.equal(norm.running_mean, statistics)", "False"),
        Fact("though nothing is tracked", "first.requires_grad", "False"),
    ),
)

STEPS = (RECORDED, BACKWARD, RESTORED, VIEWS, PROTECTED, DETACHED, IN_PLACE, EVAL_ALONE, EVALUATION, NO_GRAD_ALONE)
