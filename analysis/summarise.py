"""A run as tables: what fits one screen, and everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.cases import JOB, TRACKED, each, interval_of, is_context, labels, memory, other_kernels, timed
from analysis.figures import MISSING, bytes_text, count_text, difference_text, seconds_text, speedup_text
from analysis.notes import notes
from analysis.read import Run
from analysis.render import Table
from benchmarks.intervals import geometric_mean
from benchmarks.record import AS_SHIPPED, CASE, FORWARD, OPERATORS, PAGES_KEPT

_MODES_SHOWN = 3
"""Columns of speedups that fit one screen beside the others."""

_SAME = "="
"""Stands for a figure as shipped of a job that does not fault: that with pages kept serves for both."""


def overview(run: Run) -> list[Table]:
    """What fits one screen: a row per model and size, a row per scenario, and the most important notes."""
    frame = run.frame[~is_context(run.frame)]
    is_forward = frame["scenario"].eq(FORWARD)
    return _with_notes([*_forward_overview(frame[is_forward]), *_scenarios_overview(frame[~is_forward])], notes(run))


def summary(run: Run) -> list[Table]:
    """Everything: a row per case, and all notes."""
    frame = run.frame
    is_forward, is_operator = frame["scenario"].eq(FORWARD), frame["scenario"].eq(OPERATORS)
    tables = [
        *_forward(frame[is_forward]),
        *_steps(frame[~is_forward & ~is_operator]),
        *_operators(frame[is_operator & ~is_context(frame)]),
        *_contexts(frame[is_context(frame)]),
    ]
    return _with_notes(tables, notes(run, most=None))


def figures(run: Run) -> pd.DataFrame:
    """The run's frame with `status` and `reason`, and behind it a row for each case that could not be measured."""
    measured = run.frame.assign(status="measured", reason="")
    lost = run.lost.reindex(columns=measured.columns).astype(measured.dtypes)
    whole = pd.concat([measured, lost], ignore_index=True)
    return whole[[*CASE, "status", "reason", *(name for name in run.frame if name not in CASE)]]


def _with_notes(tables: list[Table], texts: list[str]) -> list[Table]:
    return [*tables[:-1], replace(tables[-1], notes=[*tables[-1].notes, *texts])] if tables else [Table(pd.DataFrame(), texts)]


def speedup_texts(frame: pd.DataFrame) -> pd.Series[str]:
    """Each row's speedup: `~` before what is unclear, `?` where the control failed, `*` behind where other kernels ran."""
    texts = []
    for row in each(frame.assign(others=other_kernels(frame))):
        text = "1" if row.mode == TRACKED else speedup_text(row.speedup, row.speedup_low, row.speedup_high)
        mark = "" if text[0] not in "0123456789" else "?" if not row.trusted else "~" if row.verdict == "unclear" else ""
        texts.append(f"{mark}{text}{'*' if row.others else ''}")
    return pd.Series(texts, index=frame.index, dtype="str")


def seconds_texts(frame: pd.DataFrame) -> pd.Series[str]:
    texts = [seconds_text(*row) for row in zip(frame["seconds"], frame["seconds_noise"], strict=True)]
    return pd.Series(texts, index=frame.index, dtype="str")


def _of_one_allocator(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with pages kept where a job has them, else those as shipped."""
    is_kept = frame["allocator"].eq(PAGES_KEPT)
    return frame[is_kept | ~is_kept.groupby([frame[name] for name in JOB]).transform("any")]


def _titled(text: str, frame: pd.DataFrame) -> str:
    """`text` with what all rows have in common, such as `(cpu, float32, pages_kept)`."""
    common = [str(frame[name].iloc[0]) for name in ("device", "dtype", "allocator") if len(frame[name].unique()) == 1]
    return f"{text} ({', '.join(common)})" if common else text


def _by_mode(frame: pd.DataFrame, texts: pd.Series[str], index: Sequence[str] = JOB) -> pd.DataFrame:
    """A row per job, a column per mode, both in the order of the frame."""
    cells = frame.assign(text=texts).set_index([*index, "mode"])["text"]
    return cells.unstack("mode", fill_value=MISSING, sort=False)  # noqa: PD010 - pivot_table would sort


def _forward_overview(frame: pd.DataFrame) -> Iterator[Table]:
    if frame.empty:
        return
    rows = _of_one_allocator(frame)
    speedups, seconds = _by_mode(rows, speedup_texts(rows)), _by_mode(rows, seconds_texts(rows))
    known = memory(frame)
    peaks = _by_mode(known, known["peak_tensor_bytes"].map(bytes_text)).reindex(speedups.index)
    names = labels(rows, JOB).groupby([rows[name] for name in JOB], sort=False).first()
    others = [str(mode) for mode in speedups.columns if mode != TRACKED]
    shown = [mode for mode in (TRACKED, _switch(others)) if mode in peaks]
    cells = {
        "model": names,
        "tracked": seconds.get(TRACKED, pd.Series(MISSING, seconds.index)),
        **{mode: speedups[mode] for mode in others[:_MODES_SHOWN]},
        **{f"peak\n{mode}": peaks[mode].fillna(MISSING) for mode in shown},
    }
    decides = rows["bound_by"].where(rows["mode"].eq(TRACKED))
    if decides.notna().any():
        cells["bound by"] = _by_mode(rows, decides.fillna(MISSING)).get(TRACKED, pd.Series(MISSING, seconds.index))
    more = [f"more modes, which `summarise` shows: {', '.join(others[_MODES_SHOWN:])}"] if others[_MODES_SHOWN:] else []
    yield Table(pd.DataFrame(cells).reset_index(drop=True), more, _titled("forward passes, speedup over tracked", rows))


def _switch(modes: Sequence[str]) -> str:
    """The mode that stands for switching tracking off; chosen by name, because the fastest of noisy figures is too fast."""
    return "no_grad" if "no_grad" in modes else next(iter(modes), "")


def _scenarios_overview(frame: pd.DataFrame) -> Iterator[Table]:
    if frame.empty:
        return
    rows = _of_one_allocator(frame)
    is_operator = rows["scenario"].eq(OPERATORS)
    texts = rows.assign(
        name=labels(rows, JOB), per_call=seconds_texts(rows), text=speedup_texts(rows), growth=_growth(rows).map(bytes_text),
        peak=rows["peak_tensor_bytes"].map(bytes_text),
    )  # fmt: skip
    lines = []
    for _, scenario in texts[~is_operator].groupby("scenario", sort=False):
        jobs = [job for _, job in scenario.groupby(list(JOB), sort=False)]
        if scenario["mode"].eq(TRACKED).all():  # nothing is switched off, as in a training step: one stands for all
            lines.append(_scenario_line(jobs[0], f" (+ {len(jobs) - 1} more)" if len(jobs) > 1 else ""))
        else:
            lines += [_scenario_line(job) for job in jobs]
    lines += _mean_operator(rows[is_operator])
    if not lines:  # only an operator, with nothing beside it
        return
    sides = ("peak\ntracked", "peak\nof mode", "per step\ntracked", "per step\nof mode")
    cells = pd.DataFrame(lines, columns=["scenario", "tracked", "mode", "speedup", *sides])
    yield Table(cells, [], "scenarios, speedup over tracked; per step: what stays in memory of each step")


def _scenario_line(job: pd.DataFrame, beside: str = "") -> list[str]:
    by_mode = {row.mode: row for row in each(job)}
    mode = _switch([name for name in by_mode if name != TRACKED])
    pair = by_mode.get(TRACKED), by_mode.get(mode)
    return [
        f"{job['name'].iloc[0]}{beside}", _cell(pair[0], "per_call"), mode or MISSING, _cell(pair[1], "text"),
        *(_cell(row, column) for column in ("peak", "growth") for row in pair),
    ]  # fmt: skip


def _cell(row: Any, column: str) -> str:
    return MISSING if row is None else str(getattr(row, column))


def _growth(frame: pd.DataFrame) -> pd.Series[int]:
    """Bytes that each further step leaves in memory, of tensors and of all else in the heap, whose noise may be below 0."""
    tensors, others = frame["held_bytes_per_step"], frame["heap_bytes_per_step"]
    return tensors.fillna(others * 0).add(others.fillna(0)).clip(lower=0)


def _mean_operator(rows: pd.DataFrame) -> list[list[str]]:
    evidence = timed(rows)
    evidence = evidence[evidence["mode"].eq(_switch(list(evidence["mode"])))]
    if evidence.empty:
        return []
    mean = geometric_mean([interval_of(row) for row in each(evidence)])
    text = speedup_text(mean.estimate, mean.low, mean.high)
    return [[f"operators (mean of {len(evidence)})", MISSING, str(evidence["mode"].iloc[0]), text, *[MISSING] * 4]]


def _forward(frame: pd.DataFrame) -> Iterator[Table]:
    """A row per job and mode, the two allocators side by side."""
    if frame.empty:
        return
    keys = [*JOB, "mode"]
    allocators = [name for name in (PAGES_KEPT, AS_SHIPPED) if name in set(frame["allocator"])]
    lines = memory(frame).reset_index(drop=True)
    cells = pd.DataFrame({"mode": lines["mode"]})
    for allocator in allocators:
        rows = frame[frame["allocator"].eq(allocator)]
        timing = rows[keys].assign(
            seconds=seconds_texts(rows), speedup=speedup_texts(rows), faults=rows["page_faults"].map(count_text)
        )
        beside = lines[keys].merge(timing, on=keys, how="left", validate="one_to_one")
        missing = lines["also_as_shipped"].map({True: _SAME, False: MISSING}) if allocator == AS_SHIPPED else MISSING
        titles = (f"{allocator}\nper call", f"{allocator}\nspeedup") if len(allocators) > 1 else ("per call", "speedup")
        cells[titles[0]], cells[titles[1]] = (beside[name].fillna(missing) for name in ("seconds", "speedup"))
        if allocator == AS_SHIPPED:
            cells["faults"] = beside["faults"].fillna(missing)
    cells = cells.assign(**accelerator(lines), **_memory(lines))
    parameters = lines["parameters"].map("{:,}".format)
    labelled = pd.MultiIndex.from_arrays([labels(lines, JOB), parameters], names=["model", "parameters"])
    same = (cells == _SAME).any(axis=None)
    legend = [f"{_SAME}: no page faults, so the figure of {PAGES_KEPT} serves for both"] if same else []
    yield Table(cells.set_axis(labelled), legend, _titled("forward passes, speedup over tracked", frame))


def accelerator(lines: pd.DataFrame) -> dict[str, pd.Series[str]]:
    """The other two clocks, where there are such."""
    if lines["host_seconds"].isna().all():
        return {}
    clocks = {name: lines[f"{name}_seconds"].map(lambda seconds: seconds_text(seconds, 0.01)) for name in ("host", "busy")}
    return clocks | {"bound by": lines["bound_by"].fillna(MISSING)}


def _memory(lines: pd.DataFrame) -> dict[str, pd.Series[str]]:
    resident = lines["peak_rss_bytes"].fillna(lines["peak_reserved_bytes"])
    on_device, on_cpu = (lines[f"peak_{meter}_bytes"].notna().any() for meter in ("reserved", "rss"))
    title = "RSS,\nreserved" if on_device and on_cpu else "reserved" if on_device else "RSS"
    columns = {"peak": lines["peak_tensor_bytes"], "saved": lines["saved_bytes"], title: resident}
    texts = {name: sizes.map(bytes_text) for name, sizes in columns.items()}
    hidden = lines["input_saved_bytes"].gt(lines["saved_bytes"]).fillna(value=False)  # such as all that a frozen layer keeps
    inputs = " (+ input " + lines["input_saved_bytes"].map(bytes_text) + ")"
    return texts | {"saved": texts["saved"].where(~hidden, texts["saved"] + inputs)}


def _steps(frame: pd.DataFrame) -> Iterator[Table]:
    """A row per case of what takes steps: loops and training."""
    if frame.empty:
        return
    sizes = {
        "peak": frame["peak_tensor_bytes"], "saved,\nall steps": frame["saved_bytes"], "held": frame["held_tensor_bytes"],
        "left by\neach step": _growth(frame),
    }  # fmt: skip
    cells = pd.DataFrame({"mode": frame["mode"], "per call": seconds_texts(frame), "speedup": speedup_texts(frame)})
    cells = cells.assign(**accelerator(frame), **{title: column.map(bytes_text) for title, column in sizes.items()})
    steps = frame["steps"].map(lambda number: str(number) if number > 1 else "")
    labelled = pd.MultiIndex.from_arrays([labels(frame), steps], names=["scenario", "steps a call"])
    yield Table(cells.set_axis(labelled), [], _titled("scenarios, speedup over tracked", frame))


def _operators(frame: pd.DataFrame) -> Iterator[Table]:
    """A row per operator, a column per mode with the time of one call; what tracked takes longer than no_grad stands behind."""
    for key, rows in frame.groupby(["device", "dtype", "execution", "allocator"], sort=False):
        calls = rows.assign(seconds=rows["seconds"] / rows["steps"], others=other_kernels(rows))
        cells = _by_mode(calls, seconds_texts(calls), ["model", "size"])
        costs = {row.model: _cost(row) for row in each(calls[calls["mode"].eq("no_grad")])}
        cells["tracking costs"] = [costs.get(model, MISSING) for model, _ in cells.index]
        shown = cells.droplevel("size").rename_axis(index=None, columns=None).reset_index(names="operator")
        yield Table(shown, [], f"operators, time of one call ({', '.join(map(str, key))})")


def _cost(row: Any) -> str:
    """tracked - mode = mode * (speedup - 1), at the ends of the speedup's interval too."""
    ends = (getattr(row, f"speedup{end}") for end in ("", "_low", "_high"))
    cost = difference_text(*(row.seconds * (ratio - 1) for ratio in ends))
    return f"{'' if row.trusted else '?'}{cost}{'*' if row.others else ''}"


def _contexts(frame: pd.DataFrame) -> Iterator[Table]:
    for key, rows in frame[frame["speedup_low"].notna()].groupby(["device", "dtype", "execution", "allocator"], sort=False):
        calls = rows[rows["mode"].ne(TRACKED)]
        texts = {}
        for row in each(calls):
            ends = (row.seconds * (1 - ratio) / row.steps for ratio in (row.speedup, row.speedup_high, row.speedup_low))
            texts[row.mode] = difference_text(*ends)
        if texts:
            yield Table(pd.DataFrame([texts]), [], f"entering and leaving, bare loop taken off ({', '.join(map(str, key))})")
