"""What to do, from one run: the answer first, then what it rests on and what to beware of. Tidy rows in, sentences out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.allocators import Name, group_of
from analysis.caveats import caveats
from analysis.evidence import (
    BASELINE,
    beside_tracked,
    between,
    by_allocator,
    by_size,
    fades,
    few,
    figure,
    namer,
    on_groups,
    readable,
    sizes_text,
    span,
    switch_of,
    tally,
    timed,
    wrapped,
)
from analysis.figures import bytes_text, percent_text, speedup_text
from analysis.render import Table, markdown
from benchmarks.record import DEFAULT, FORWARD, RESIDENT, Interval, Row, Unmeasured
from benchmarks.statistics import verdict

_DEVICES = {"cpu": "the CPU", "cuda": "the GPU"}
_UNDER = {DEFAULT: "with the allocator as shipped, ", RESIDENT: "with the allocator's pages kept (tracking alone), "}


@dataclass(frozen=True, slots=True)
class Advice:
    """A paragraph; `warning` where it limits what the others say."""

    text: str
    warning: bool = False

    def __str__(self) -> str:
        return f"warning: {self.text}" if self.warning else self.text


def advise(rows: Iterable[Row], unmeasured: Sequence[Unmeasured], conditions: Mapping[str, Any] | None = None) -> list[Advice]:
    """From tidy rows with any missing values, what could not be measured, and the run's conditions. Forward passes only."""
    forward = readable(rows)
    gone = [one for one in unmeasured if one.case.scenario == FORWARD]
    devices = list(dict.fromkeys(row["device"] for row in forward))
    found = [text for device in devices for text in _about(device, [row for row in forward if row["device"] == device])]
    if not found:
        found = ["This run tells nothing about forward passes; `pytest --benchmark` measures some."]
    if any(row["mode"] == "inference_mode" for row in forward):
        found.append("Tensors made in inference_mode cannot be used in autograd later, those made in no_grad can.")
    return [Advice(text) for text in found] + [Advice(text, warning=True) for text in caveats(forward, gone, conditions or {})]


def terminal(found: Sequence[Advice]) -> str:
    return "\n\n".join("\n".join(wrapped(str(one))) for one in found)


def as_markdown(found: Sequence[Advice]) -> str:
    return markdown(Table([], (), [], [str(one) for one in found]))


FORMATS = {"terminal": terminal, "markdown": as_markdown}


def _about(device: str, rows: list[Row]) -> list[str]:
    name = namer(rows)
    where = _DEVICES.get(device, device)
    return [
        text for text in (*_answer(where, rows, name), _choice(rows, name), _memory(rows, name), _others(rows, name)) if text
    ]


def _answer(where: str, rows: list[Row], name: Name) -> list[str]:
    """Which mode to use and what it gives; by the other allocator, and whether that fades as kernels grow, in a paragraph below."""
    mode, use = _preferred(rows)
    if all(row["mode"] != mode for row in rows):
        return [f"On {where} no mode that switches tracking off was measured; `pytest --benchmark --modes all` does."]
    found = list(by_allocator(rows, mode).values())
    if not found:
        return [
            f"On {where} no speedup of {mode} can be relied on, so this run cannot tell whether switching tracking off saves time."
        ]
    pays = any(tally(some)["faster"] for some in found)
    answer = (
        f"switch tracking off where no gradients are needed: use {use}"
        if pays
        else "switching tracking off is not shown to save time"
    )
    first, *others = (_sentence(f"{_under(some)}{mode} is {_effect(some, name)}") for some in reversed(found))
    sizes = by_size(found[0], (row for row in rows if row["mode"] == BASELINE))
    fading = [f"The gain fades as kernels grow: {sizes_text(sizes)} (geometric means)."] if fades(sizes) else []
    return [f"On {where}, {answer}. {first}", " ".join([*others, *fading])]


def _preferred(rows: list[Row]) -> tuple[str, str]:
    """The mode whose figures are shown, and what to use in words: inference_mode only where it is shown to be faster than no_grad."""
    there = {row["mode"] for row in rows}
    if not {"no_grad", "inference_mode"} <= there:
        return switch_of(rows), switch_of(rows)
    words = {verdict(ratio) for _, ratio in _compared(rows)}
    if "faster" in words and "slower" not in words:
        return "inference_mode", "inference_mode, or no_grad for what autograd will meet later"
    if "slower" in words and "faster" not in words:
        return "no_grad", "no_grad"
    return "no_grad", "no_grad or inference_mode"


def _under(found: Sequence[Row]) -> str:
    """The allocator in words, where there is a choice."""
    return _UNDER.get(found[0]["allocator"], "") if found[0]["device"] == "cpu" else ""


def _sentence(text: str) -> str:
    """Names of modes stay as they are."""
    return f"{text[0].upper()}{text[1:]}." if text.startswith(("with", "they", "on")) else f"{text}."


def _effect(found: list[Row], name: Name) -> str:
    """What comes after "no_grad is"."""
    if len(found) == 1:
        (row,) = found
        return {
            "faster": f"{figure(row)} times as fast as tracked on {name(row)}",
            "slower": f"slower than tracked on {name(row)}, {figure(row)} times as fast",
            "same": f"as fast as tracked on {name(row)} ({figure(row)})",
            "unclear": f"not told apart from tracked on {name(row)} ({figure(row)})",
        }[row["verdict"]]
    by_verdict = {word: [row for row in found if row["verdict"] == word] for word in tally(found)}
    faster, slower = by_verdict.get("faster", []), by_verdict.get("slower", [])
    parts = [
        f"{span(faster, name)} times as fast as tracked{on_groups(len(faster), len(found))}"
        if faster
        else f"faster than tracked on none of {len(found)} groups"
    ]
    parts += [f"slower on {len(slower)}, {span(slower, name)}"] if slower else []
    parts += [f"{words} on {len(by_verdict[word])}" for word, words in _LEVEL.items() if word in by_verdict]
    return ", ".join(parts)


_LEVEL = {"same": "as fast (within 1 %)", "unclear": "not told apart from it"}


def _compared(rows: list[Row]) -> list[tuple[Row, Interval]]:
    """no_grad's time over inference_mode's in each group, by the allocator that tells more (tracking alone)."""
    for allocator in (RESIDENT, DEFAULT):
        others = {group_of(row): row for row in timed(rows, "no_grad", allocator)}
        mine = [row for row in timed(rows, "inference_mode", allocator) if group_of(row) in others]
        if mine:
            return [(row, between(row, others[group_of(row)])) for row in mine]
    return []


def _choice(rows: list[Row], name: Name) -> str:
    """inference_mode against no_grad: where they are the same, where one is faster, and how close the others are at least."""
    there: dict[str, list[tuple[str, Interval]]] = {}
    compared = _compared(rows)
    for row, ratio in compared:
        there.setdefault(verdict(ratio), []).append((name(row), ratio))
    sentences = []
    if same := len(there.get("same", [])):
        rest = [name(row) for row, ratio in compared if verdict(ratio) != "same"]
        where = f" on every group but {few(rest)}" if 0 < len(rest) < min(same, 3) else on_groups(same, len(compared))
        sentences.append(f"inference_mode and no_grad are the same here (within 1 %){where}")
    for word in ("faster", "slower"):
        if found := there.get(word):
            read = (f"{speedup_text(one.estimate, one.low, one.high)} ({where})" for where, one in found)
            sentences.append(
                f"inference_mode is {word} than no_grad{on_groups(len(found), len(compared))}, by a factor of {few(read)}"
            )
    if found := there.get("unclear"):
        others = "on the other group they" if len(found) == 1 else f"on the other {len(found)} groups they"
        sentences.append(_undecided(found, others if sentences else "inference_mode and no_grad"))
    if not sentences:
        return ""
    sentences[0] = f"{_under([compared[0][0]])}{sentences[0]}"
    return " ".join(map(_sentence, sentences))


def _undecided(found: Sequence[tuple[str, Interval]], they: str) -> str:
    reach = sorted((max(ratio.high - 1, 1 - ratio.low), where) for where, ratio in found)
    ends = " to ".join(dict.fromkeys(f"{percent_text(far)} ({where})" for far, where in (reach[0], reach[-1])))
    return f"{they} cannot be told apart closer than {ends}"


def _memory(rows: list[Row], name: Name) -> str:
    """What is saved at the peak, in bytes, for each model where tracked needs most."""
    mode = switch_of(rows)
    peaks = beside_tracked(rows, mode, "peak_tensor_bytes")
    lower = sorted((one for one in peaks if one[1] < one[2]), key=lambda one: -one[2])
    if not lower:
        return f"{mode} lowers the peak of tensor memory{on_groups(0, len(peaks))}." if peaks else ""
    largest: dict[tuple[str, str], str] = {}
    for row, size, tracked in lower:
        text = f"{bytes_text(tracked)} to {bytes_text(size)} ({100 * size / tracked:.0f} %) on {name(row)}"
        largest.setdefault((row["model"], row["dtype"]), text)
    return f"{mode} lowers the peak of tensor memory{on_groups(len(lower), len(peaks))}, from {few(largest.values())}."


def _others(rows: list[Row], name: Name) -> str:
    """Modes beyond the usual four, tracking alone where it was measured."""
    usual = {BASELINE, "no_grad", "inference_mode", "detach", switch_of(rows)}
    modes = [mode for mode in dict.fromkeys(row["mode"] for row in rows) if mode not in usual]
    read = [(mode, next(iter(found.values()))) for mode in modes if (found := by_allocator(rows, mode))]
    return " ".join(f"{mode} is {_effect(some, name)}." for mode, some in read)
