"""What to do, from one run: the answer in at most three sentences, then a sentence for each further question."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.cases import against, each, is_part, labels
from analysis.figures import bytes_text, percent_text, seconds_text
from analysis.gains import HELD, PEAK, beside_tracked, by_mode, evidence_of, higher, lower, pooled, shares, switch_of, switching
from analysis.notes import few
from analysis.read import Run
from benchmarks.record import EAGER, FORWARD

_DEVICES = {"cpu": "CPU", "cuda": "GPU"}


def advise(run: Run) -> list[str]:
    """`answer`, then a sentence per further question that the run answers."""
    further = [f"{place}{sentence}" for place, rows in _by_place(run) for sentence in (*_answer(rows), *_further(rows))]
    return list(dict.fromkeys([*answer(run), *further, *_scenarios(run)]))


def answer(run: Run) -> list[str]:
    """What to use, what it gives in time and what in memory, in at most three sentences; of several devices or executions each has one."""
    places = _by_place(run)
    each_one = 3 if len(places) == 1 else 1
    found = [f"{place}{sentence}" for place, rows in places for sentence in _answer(rows)[:each_one]] or _scenarios(run)
    return found[:3] or ["Nothing was measured here that tells what tracking costs; `pytest --benchmark` measures it."]


def _by_place(run: Run) -> list[tuple[str, pd.DataFrame]]:
    """Forward passes on each device and in each execution, and what opens a sentence on them, such as `On the CPU, compiled: `.

    A single device and eager execution alone go without saying.
    """
    forward = run.frame[run.frame["scenario"].eq(FORWARD)]
    parts = []
    for (device, execution), rows in forward.groupby(["device", "execution"], sort=False):
        words = [f"on the {_DEVICES.get(str(device), device)}"] if len(set(forward["device"])) > 1 else []
        words += [str(execution)] if set(forward["execution"]) != {EAGER} else []
        place = ", ".join(words)
        parts.append((f"{place[0].upper()}{place[1:]}: " if place else "", rows))
    return parts


def _answer(rows: pd.DataFrame) -> list[str]:
    """Up to three sentences on the forward passes of one device: time, time where the device decides, memory."""
    mode = switch_of(rows)
    if not mode:
        return ["No mode that switches tracking off was measured; `pytest --benchmark --modes tracked,no_grad` does."]
    evidence = evidence_of(rows)
    over_no_grad = pooled(evidence[evidence["mode"].eq("inference_mode")], "over_no_grad")
    if over_no_grad is not None and over_no_grad.verdict == "faster":
        mode = "inference_mode"
    mine = evidence[evidence["mode"].eq(mode)]
    hidden = mine["bound_by"].eq("device")
    sentences = [] if len(mine) and hidden.all() else [_time(rows, mine[~hidden], mode)]
    sentences += [_hidden(rows, mine[hidden], mode)] if hidden.any() else []
    return sentences + _peak(rows, mode)


def _time(rows: pd.DataFrame, mine: pd.DataFrame, mode: str) -> str:
    """What to use, with the gain over all groups, by size, and the groups that are exceptions."""
    gain = pooled(mine)
    if gain is None:
        return _untold(rows)
    peaks = beside_tracked(rows, mode)
    use = f"Use {mode} where no gradients are needed"
    if gain.verdict == "faster":
        opening = f"{use}, or no_grad where autograd meets the results later" if mode == "inference_mode" else use
    elif gain.verdict != "slower" and len(lower(peaks)) and higher(peaks).empty:
        opening = f"{use}, for its memory"
    else:
        opening = "Switching tracking off is not shown to save time here"
    if gain.groups == 1:
        return f"{opening}: {gain.told(mode)} on {labels(mine).iloc[0]}."
    details = "".join([_by_size(mine), *_exceptions(mine, gain.verdict)])
    return f"{opening}: {gain.told(mode)} (geometric mean of {gain.groups} forward passes){details}."


def _untold(rows: pd.DataFrame) -> str:
    """Why no speedup can be given."""
    failed = rows[~rows["trusted"].astype(bool) & rows["placebo_low"].notna()]
    if failed.empty:
        return "There is no time to hold against tracked's, so this run cannot tell whether switching tracking off saves any."
    apart = percent_text(float((failed["placebo"] - 1).abs().median()))
    return f"No speedup here is evidence: the control, the same code timed twice, differed by {apart}; measure again on an idle machine."


def _by_size(mine: pd.DataFrame) -> str:
    """`, 1.2 for tiny models and 1.1 for medium models`, over the models that were measured in all sizes; empty where there are none."""
    sized = mine[mine.groupby("model")["size"].transform("nunique") > 1]
    sizes = list(dict.fromkeys(sized["size"]))
    sized = sized[sized.groupby("model")["size"].transform("nunique") == len(sizes)]
    ends = {size: gain for size in sizes[:1] + sizes[-1:] if (gain := pooled(sized[sized["size"].eq(size)]))}
    return f", {' and '.join(f'{gain.figure} for {size} models' for size, gain in ends.items())}" if len(ends) == 2 else ""


def _exceptions(mine: pd.DataFrame, whole: str) -> list[str]:
    """The groups whose own verdict is another than that of the whole."""
    words = mine["verdict"].where(mine["verdict"].isin(["faster", "slower"]), "no difference shown")
    other = words.ne(whole if whole in ("faster", "slower") else "no difference shown")
    return [f"; {word} on {few(found, joint=', ')}" for word, found in labels(mine)[other].groupby(words[other])]


def _hidden(rows: pd.DataFrame, mine: pd.DataFrame, mode: str) -> str:
    """Where the device is the bottleneck: what tracking costs beside time, on the job with most work for the device."""
    device = _DEVICES.get(mine["device"].iloc[0], "device")
    names = labels(rows)[mine.index]
    both = against(rows).loc[mine.index].assign(name=names)
    row = next(each(both.sort_values("busy_seconds_base", ascending=False)))
    costs = []
    if gain := pooled(mine):
        time = "no time" if gain.verdict == "same" else f"no time that shows ({gain.bound})"
        costs.append(f"time ({gain.told(mode)})" if gain.differs else time)
    if (host := row.host_seconds_base - row.host_seconds) > 0:
        work = f"{seconds_text(row.busy_seconds_base)} of the {device}'s work"
        costs.append(f"{seconds_text(host)} of CPU a call hidden behind {work}")
    if pd.notna(row.peak_tensor_bytes) and pd.notna(row.peak_tensor_bytes_base) and row.peak_tensor_bytes:
        costs.append(f"{row.peak_tensor_bytes_base / row.peak_tensor_bytes:.1f} times the memory")
    return f"Where the {device}'s work decides ({few(names, joint=', ')}), tracking costs {', '.join(costs)} ({row.name})."


def _peak(rows: pd.DataFrame, mode: str) -> list[str]:
    """What the mode does to the peak, where tracked needs most; where it raises it, what to use there instead."""
    peaks = beside_tracked(rows, mode)
    parts = []
    for verb, jobs in (("lowers", lower(peaks)), ("raises", higher(peaks))):
        if len(jobs):
            share = f" on {len(jobs)} of {len(peaks)}" if len(peaks) > 1 else ""
            first = next(each(jobs))
            change = f"from {bytes_text(first.tracked)} to {bytes_text(first.own)} on {first.name}"
            parts.append(f"{verb} the peak of tensor memory{share}, {change}")
    if raised := set(higher(peaks)["name"]):
        others = [other for other in ("no_grad", "inference_mode") if other != mode]
        fits = [other for other in others if raised <= set(lower(beside_tracked(rows, other))["name"])]
        parts[-1] += f": where memory is short, {f'use {fits[0]}' if fits else 'leave tracking on'} there"
    if len(peaks) and not parts:
        parts = ["leaves the peak of tensor memory as it is"]
    return [f"{mode} {', but '.join(parts)}."] if parts else []


def _further(rows: pd.DataFrame) -> Iterator[str]:
    """On the modes that the answer does not name."""
    gains, mine = by_mode(rows), evidence_of(rows)
    if gain := pooled(mine[mine["mode"].eq("inference_mode")], "over_no_grad"):
        over = f" (geometric mean of {gain.groups})" if gain.groups > 1 else ""
        yield f"{gain.told('inference_mode', 'no_grad')}{over}; what it makes can take no part in autograd later."
    for mode, gain in gains.items():
        if mode not in ("no_grad", "inference_mode", "detach", switch_of(rows)):
            yield f"{gain.told(mode)}."
    peaks = beside_tracked(rows, "detach")
    if len(peaks):
        time = f" and {gains['detach'].told('it')}" if "detach" in gains else ""
        share = f"{len(lower(peaks))} of {len(peaks)}"
        yield f"detach on the result lowers the peak on {share}{time}: it is for taking one tensor out of a graph."


def _scenarios(run: Run) -> list[str]:
    """A sentence for each scenario other than forward passes in which modes were compared."""
    others = run.frame[run.frame["scenario"].ne(FORWARD)]
    sentences = []
    for name, rows in others.groupby("scenario", sort=False):
        times = [f"{mode} {gain.figure if gain.differs else gain.bound}" for mode, gain in by_mode(rows).items()]
        parts = [f"times as fast as tracked: {', '.join(times)}"] if times else []
        parts += [f"{mode} takes {share} of a step" for mode, share in shares(rows).items()]
        if taken := switching(rows):
            parts.append(f"entering and leaving takes {', '.join(f'{time} with {mode}' for mode, time in taken.items())}")
        word, figure = ("held", HELD) if name == "loss_logging" else ("peak", PEAK)  # its question is what stays in memory
        sizes: dict[int, list[str]] = {}
        for mode in rows["mode"][~is_part(rows)].unique():
            for job in each(beside_tracked(rows, mode, figure).head(1)):
                sizes.setdefault(job.own, []).append(mode)
        if len(sizes) > 1:
            texts = [f"{bytes_text(size)} with {', '.join(modes)}" for size, modes in sizes.items()]
            parts.append(f"{word} {'; '.join(texts)}")
        sentences += [f"{name}, {'; '.join(parts)}."] if parts else []
    return sentences
