"""What to do, from one run: the answer in at most three sentences, then a sentence for each further question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.cases import JOB, TRACKED, against, labels, memory, timed
from analysis.figures import bytes_text, percent_text, seconds_text, speedup_text
from analysis.read import Run
from benchmarks.intervals import MARGIN, geometric_mean, quotient, resolution, verdict
from benchmarks.record import AS_SHIPPED, FORWARD, PAGES_KEPT, Interval, Verdict

SWITCHES = ("no_grad", "inference_mode", "set_grad_enabled", "no_grad_decorator", "detached_parameters", "frozen")
"""Modes in which nothing is tracked at all, the one to speak of first."""

_HELD_MATTERS = "loss_logging"
"""The scenario whose question is what stays in memory, not the peak."""

_NOT_TOLD = 0.3
"""An interval that reaches farther than this from 1 says nothing about a difference."""

_DEVICES = {"cpu": "CPU", "cuda": "GPU"}


@dataclass(frozen=True, slots=True)
class Gain:
    """A ratio of times pooled over groups (geometric mean), and how far their controls' pooled interval reaches from 1."""

    ratio: Interval
    resolution: float
    groups: int

    @property
    def verdict(self) -> Verdict:
        return verdict(self.ratio, self.resolution)

    @property
    def figure(self) -> str:
        return speedup_text(self.ratio.estimate, self.ratio.low, self.ratio.high)

    @property
    def overlooked(self) -> str:
        """How large a difference can have been overlooked; empty where that is no bound worth the name."""
        reach = max(resolution(self.ratio), self.resolution)
        return f"no difference above {percent_text(reach)}" if reach < _NOT_TOLD else ""

    def told(self, mode: str, other: str = TRACKED) -> str:
        """A clause such as `no_grad is 1.26 ±0.02 times as fast as tracked`."""
        if self.verdict in ("faster", "slower"):
            return f"{mode} is {self.figure} times as fast as {other}"
        if self.overlooked:
            return f"{self.overlooked} was found between the times of {mode} and {other}"
        return f"the times of {mode} and {other} scatter too much to tell them apart"

    @property
    def short(self) -> str:
        return self.figure if self.verdict in ("faster", "slower") else self.overlooked or "not known"


def advise(run: Run) -> list[str]:
    """`answer`, then a sentence per further question that the run answers."""
    opening = answer(run)
    further = []
    forward = run.frame[run.frame["scenario"].eq(FORWARD)]
    for device, rows in forward.groupby("device", sort=False):
        where = _where(str(device), forward)
        further += [*_answer(rows, where), *_inference(rows, where), *_as_shipped(rows, where), *_other_modes(rows, where)]
    further += [*_detach(forward), *_scenarios(run.frame)]
    return [*opening, *(sentence for sentence in further if sentence not in opening)]


def answer(run: Run) -> list[str]:
    """What to use, what it gives in time and what in memory: at most three sentences. Of several devices each has one."""
    forward = run.frame[run.frame["scenario"].eq(FORWARD)]
    answers = [_answer(rows, _where(str(device), forward)) for device, rows in forward.groupby("device", sort=False)]
    if not answers:
        return _scenarios(run.frame)[:3] or ["Nothing was measured here that says what tracking costs; `pytest --benchmark` measures it."]
    return answers[0] if len(answers) == 1 else [sentences[0] for sentences in answers][:3]


def pooled(rows: pd.DataFrame, column: str = "speedup") -> Gain | None:
    """The geometric mean of an interval's column over rows that have it; None where none has, or where they are beyond what floats hold."""
    try:
        known = rows[rows[f"{column}_low"].notna()]
        ratio = geometric_mean(_intervals(known, column))
        return Gain(ratio, resolution(geometric_mean(_intervals(known, "placebo"))), len(known))
    except (ValueError, OverflowError):
        return None


def switch_of(rows: pd.DataFrame) -> str | None:
    """The mode to speak of where tracking is switched off."""
    return next((mode for mode in SWITCHES if rows["mode"].eq(mode).any()), None)


def peaks(rows: pd.DataFrame, mode: str, figure: str = "peak_tensor_bytes") -> pd.DataFrame:
    """Columns `name own tracked`: the bytes of `mode` beside tracked's, a row per job where both are known, tracked's largest first."""
    both = against(memory(rows))
    both = both[both["mode"].eq(mode) & both[figure].notna() & both[f"{figure}_base"].notna()]
    found = pd.DataFrame({"name": labels(both, JOB), "own": both[figure], "tracked": both[f"{figure}_base"]})
    return found.sort_values("tracked", ascending=False, kind="stable")


def _where(device: str, forward: pd.DataFrame) -> str:
    return f"On the {_DEVICES.get(device, device)}: " if forward["device"].nunique() > 1 else ""


def _main(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the timed rows those with pages kept, where what is left is tracking itself; as shipped where nothing else was timed."""
    evidence = timed(rows)
    kept = evidence[evidence["allocator"].eq(PAGES_KEPT)]
    return kept if len(kept) else evidence


def _answer(rows: pd.DataFrame, where: str) -> list[str]:
    evidence = _main(rows)
    mode = switch_of(rows)
    if mode is None:
        return [f"{where}No mode that switches tracking off was measured; `pytest --benchmark --modes all` does."]
    over_no_grad = pooled(evidence[evidence["mode"].eq("inference_mode")], "over_no_grad")
    if over_no_grad is not None and over_no_grad.verdict == "faster":
        mode = "inference_mode"
    mine = evidence[evidence["mode"].eq(mode)]
    hidden = mine["bound_by"].eq("device")
    sentences = [
        "" if len(mine) and hidden.all() else _time(rows, mine[~hidden], mode),
        _hidden(rows, mine[hidden], mode) if hidden.any() else "",
        _peak(rows, mode),
    ]
    return [f"{where}{sentence}" for sentence in sentences if sentence]


def _time(rows: pd.DataFrame, mine: pd.DataFrame, mode: str) -> str:
    """What to use, with the gain over all groups, by size, and the groups that are exceptions."""
    gain = pooled(mine)
    if gain is None:
        return _untold(rows)
    bytes_beside = peaks(rows, mode)
    use = f"Use {mode} where no gradients are needed"
    if gain.verdict == "faster":
        opening = f"{use}, or no_grad where autograd meets the results later" if mode == "inference_mode" else use
    elif gain.verdict != "slower" and bytes_beside.eval("own < tracked").any() and not bytes_beside.eval("own > tracked").any():
        opening = f"{use}, for its memory"
    else:
        opening = "Switching tracking off is not shown to save time here"
    if gain.groups == 1:
        return f"{opening}: {gain.told(mode)} on {labels(mine).iloc[0]}."
    details = "".join([_by_size(mine), *_exceptions(mine, gain.verdict)])
    return f"{opening}: {gain.told(mode)} (geometric mean of {gain.groups} forward passes){details}."


def _by_size(mine: pd.DataFrame) -> str:
    """The gain at the first and the last size, over the models that were measured in all sizes."""
    sized = mine[mine.groupby("model")["size"].transform("nunique") > 1]
    sizes = list(dict.fromkeys(sized["size"]))
    sized = sized[sized.groupby("model")["size"].transform("nunique") == len(sizes)]
    ends = [(size, pooled(sized[sized["size"].eq(size)])) for size in (sizes[:1] + sizes[-1:])]
    texts = [f"{gain.figure} for size {size}" for size, gain in ends if gain is not None]
    return f", {' and '.join(texts)}" if len(texts) == 2 else ""


def _exceptions(mine: pd.DataFrame, whole: str) -> list[str]:
    texts = []
    for words, verdicts in (("slower", ("slower",)), ("faster", ("faster",)), ("no difference shown", ("same", "unclear"))):
        rows = mine[mine["verdict"].isin(verdicts)]
        if len(rows) and whole not in verdicts and len(rows) < len(mine):
            texts.append(f"; {words} on {_few(labels(mine)[rows.index])}")
    return texts


def _hidden(rows: pd.DataFrame, mine: pd.DataFrame, mode: str) -> str:
    """Where the device is the bottleneck: what tracking costs there besides time, on the job with most work for the device."""
    gain = pooled(mine)
    device = _DEVICES.get(mine["device"].iloc[0], "device")
    both = against(rows).loc[mine.index]
    row = both.loc[both["busy_seconds_base"].fillna(0).idxmax()]
    costs = ["no time" if gain and gain.verdict == "same" else f"no time that shows ({gain.overlooked} was found)"] if gain else []
    if gain and (gain.verdict in ("faster", "slower") or not gain.overlooked):
        costs = [f"time ({gain.told(mode)})"]
    host = row["host_seconds_base"] - row["host_seconds"]
    if host > 0:
        costs.append(f"{seconds_text(host)} of CPU a call hidden behind {seconds_text(row['busy_seconds_base'])} of the {device}'s work")
    bytes_beside = peaks(rows, mode).reindex([row.name]).dropna()
    if len(bytes_beside) and bytes_beside["own"].iloc[0]:
        costs.append(f"{float((bytes_beside['tracked'] / bytes_beside['own']).iloc[0]):.1f} times the memory")
    decided = _few(labels(rows)[mine.index])
    return f"Where the {device}'s work decides ({decided}), tracking costs {', and '.join(costs)} ({labels(rows)[row.name]})."


def _untold(rows: pd.DataFrame) -> str:
    """Why no speedup can be given."""
    failed = rows[~rows["trusted"].astype(bool) & rows["placebo_low"].notna()]
    if failed.empty:
        return "There is no time to compare with tracked's, so this run cannot tell whether switching tracking off saves any."
    reach = (failed["placebo"] - 1).abs().median()
    return f"No speedup here is evidence: the control, the same code timed twice, differed by {percent_text(reach)}."


def _peak(rows: pd.DataFrame, mode: str) -> str:
    """What the mode does to the peak, where tracked needs most; where it raises it, that, and what to use there instead."""
    both = peaks(rows, mode)
    changed = {"lowers": both[both["own"] < both["tracked"]], "raises": both[both["own"] > both["tracked"]]}
    if both.empty:
        return ""
    parts = []
    for verb, jobs in changed.items():
        if len(jobs):
            share = "" if len(both) == 1 else f" on all {len(both)}" if len(jobs) == len(both) else f" on {len(jobs)} of {len(both)}"
            first = jobs.iloc[0]
            parts.append(f"{verb} the peak of tensor memory{share}, from {bytes_text(first.tracked)} to {bytes_text(first.own)} on {first['name']}")
    if not parts:
        return f"{mode} leaves the peak of tensor memory as it is."
    instead = ""
    if len(raised := changed["raises"]):
        others = [other for other in ("inference_mode", "no_grad") if other != mode and _never_raises(rows, other, raised)]
        instead = f": where memory is short, {f'use {others[0]}' if others else 'leave tracking on'} there"
    return f"{mode} {', but '.join(parts)}{instead}."


def _never_raises(rows: pd.DataFrame, mode: str, raised: pd.DataFrame) -> bool:
    found = peaks(rows, mode)
    found = found[found["name"].isin(raised["name"])]
    return len(found) == len(raised) and not found.eval("own > tracked").any()


def _inference(rows: pd.DataFrame, where: str) -> list[str]:
    mine = _main(rows)
    gain = pooled(mine[mine["mode"].eq("inference_mode")], "over_no_grad")
    if gain is None:
        return []
    over = f" (geometric mean of {gain.groups})" if gain.groups > 1 else ""
    told = gain.told("inference_mode", "no_grad")
    return [f"{where}{told[0].upper() if told.startswith(('no d', 'the')) else told[0]}{told[1:]}{over}; autograd cannot use the tensors of inference_mode later."]


def _as_shipped(rows: pd.DataFrame, where: str) -> list[str]:
    """The gain by the allocator as shipped, where it is another than with pages kept on the same jobs."""
    mode = switch_of(rows)
    evidence = timed(rows)
    evidence = evidence[evidence["mode"].eq(mode)]
    sides = [evidence[evidence["allocator"].eq(name)] for name in (AS_SHIPPED, PAGES_KEPT)]
    jobs = [set(side[list(JOB)].itertuples(index=False, name=None)) for side in sides]
    shipped, kept = (
        pooled(side[[job in (jobs[0] & jobs[1]) for job in side[list(JOB)].itertuples(index=False, name=None)]]) for side in sides
    )
    if shipped is None or kept is None or verdict(quotient(shipped.ratio, kept.ratio)) not in ("faster", "slower"):
        return []
    return [f"{where}With the allocator as shipped, page faults included, {mode} is {shipped.told('as tracked')}, with pages kept {kept.figure}"
            f" ({shipped.groups} groups)."]  # fmt: skip


def _other_modes(rows: pd.DataFrame, where: str) -> list[str]:
    evidence = _main(rows)
    usual = {TRACKED, "no_grad", "inference_mode", "detach", switch_of(rows)}
    gains = {mode: pooled(evidence[evidence["mode"].eq(mode)]) for mode in dict.fromkeys(evidence["mode"]) if mode not in usual}
    return [f"{where}{mode}: {gain.told('as tracked')}." for mode, gain in gains.items() if gain]


def _detach(forward: pd.DataFrame) -> list[str]:
    both = peaks(forward, "detach")
    if both.empty:
        return []
    nothing = int((both["own"] >= both["tracked"]).sum())
    gain = pooled(_main(forward)[lambda rows: rows["mode"].eq("detach")])
    time = f", and in time {gain.told('as tracked')}" if gain else ""
    return [f"detach on the result saves nothing at the peak on {nothing} of {len(both)}{time}: it is for taking one tensor out of a graph."]


def _scenarios(frame: pd.DataFrame) -> list[str]:
    """A sentence for each scenario but forward passes in which modes were compared."""
    others = frame[frame["scenario"].ne(FORWARD)]
    return [text for name, rows in others.groupby("scenario", sort=False) if (text := _scenario(str(name), rows))]


def _scenario(name: str, rows: pd.DataFrame) -> str:
    modes = [mode for mode in dict.fromkeys(rows["mode"]) if mode != TRACKED]
    evidence = _main(rows)
    gains = {mode: gain for mode in modes if (gain := pooled(evidence[evidence["mode"].eq(mode)]))}
    parts = [", ".join(f"{mode} {gain.told('as tracked')}" for mode, gain in gains.items())]
    parts.append(_scenario_bytes(name, rows, modes))
    return f"{name}: {'; '.join(part for part in parts if part)}." if any(parts) else ""


def _scenario_bytes(name: str, rows: pd.DataFrame, modes: Sequence[str]) -> str:
    """What modes need against tracked, of the job in which tracked needs most: `held 64.0 KiB tracked, 4 B item, detach and float`."""
    figure = "held_tensor_bytes" if name == _HELD_MATTERS else "peak_tensor_bytes"
    beside = {mode: found.iloc[0] for mode in modes if len(found := peaks(rows, mode, figure))}
    sizes: dict[int, list[str]] = {}
    for mode, row in beside.items():
        if row.own != row.tracked:
            sizes.setdefault(row.own, []).append(mode)
    if not sizes:
        return ""
    tracked = next(iter(beside.values())).tracked
    texts = [f"{bytes_text(size)} with {_few(names)}" for size, names in sizes.items()]
    return f"{'held' if name == _HELD_MATTERS else 'peak'} {bytes_text(tracked)} tracked, {', '.join(texts)}"


def _few(names: Iterable[str], shown: int = 3) -> str:
    """`a, b and 2 more`."""
    distinct = list(dict.fromkeys(names))
    if len(distinct) > shown:
        distinct = [*distinct[: shown - 1], f"{len(distinct) - shown + 1} more"]
    return " and ".join([", ".join(distinct[:-1]), distinct[-1]]) if len(distinct) > 1 else "".join(distinct)


def _intervals(rows: pd.DataFrame, column: str) -> list[Interval]:
    ends = rows[[column, f"{column}_low", f"{column}_high"]]
    return [Interval(*map(float, row)) for row in ends.itertuples(index=False)]
