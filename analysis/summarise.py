"""A run as tables: what fits one screen, and everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.cases import BYTES, JOB, TRACKED, each, ends_of, is_context, is_part, labels, memory, other_kernels, preferred
from analysis.figures import MISSING, bytes_text, count_text, difference_text, seconds_text, share_text, speedup_text
from analysis.gains import evidence_of, pooled, switch_of, switching
from analysis.notes import MOST, notes
from analysis.read import Run
from analysis.render import Table
from benchmarks.intervals import MARGIN
from benchmarks.record import ALONE, AS_SHIPPED, CASE, EAGER, FORWARD, OPERATORS, PAGES_KEPT

CLOCKS = {"host": "host_seconds", "busy": "busy_seconds", "bound by": "bound_by"}
"""Columns of an accelerator's other clocks."""

_MODES_SHOWN = 3
"""Columns of speedups that fit one screen beside the others."""

_STEPS = "scenarios, speedup over tracked; %: share of a step"

_GROWTH = "growth"
"""Bytes that each further step leaves in memory, of tensors and of all else in the heap, whose noise may be below 0."""

_SAME = "="
"""Stands for a figure as shipped of a job whose page faults are too few to tell: that with pages kept serves for both."""
_SAME_LEGEND = (
    f"{_SAME}: page faults, if any, take less than {100 * MARGIN:g} % of a call, so the figure of {PAGES_KEPT} serves for both"
)


def overview(run: Run, most: int = MOST) -> list[Table]:
    """What fits one screen: a row per model and size, a row per scenario, and `most` notes."""
    around_nothing, is_forward = is_context(run.frame), run.frame["scenario"].eq(FORWARD)
    tables = [*_forward_overview(run.frame[is_forward]), *_scenarios_overview(run.frame[~is_forward & ~around_nothing])]
    return _with_notes(tables or list(_operators(run.frame[around_nothing])), notes(run, most))


def summary(run: Run) -> list[Table]:
    """Everything: a row per case, and all notes."""
    frame = run.frame
    is_forward, is_operator = frame["scenario"].eq(FORWARD), frame["scenario"].eq(OPERATORS) | is_context(frame)
    tables = [*_forward(frame[is_forward]), *_steps(frame[~is_forward & ~is_operator]), *_operators(frame[is_operator])]
    return _with_notes(tables, notes(run, most=None))


def figures(run: Run) -> pd.DataFrame:
    """The run's frame with `status` and `reason`, and behind it a row for each case that could not be measured."""
    measured = run.frame.assign(status="measured", reason="")
    lost = run.lost.reindex(columns=measured.columns).astype(measured.dtypes)
    whole = pd.concat([measured, lost], ignore_index=True)
    return whole[[*CASE, "status", "reason", *(name for name in run.frame if name not in CASE)]]


def _with_notes(tables: list[Table], texts: list[str]) -> list[Table]:
    return [*tables[:-1], replace(tables[-1], notes=[*tables[-1].notes, *texts])] if tables else [Table(notes=texts)]


def texts_of(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Columns of the frame as texts in their units; `columns` says the title of each and its name in the frame."""
    return pd.DataFrame({title: _texts(frame, name) for title, name in columns.items()}, index=frame.index)


def _texts(frame: pd.DataFrame, name: str) -> pd.Series[str]:
    if name == "seconds":
        return pd.Series(list(map(seconds_text, frame[name], frame["seconds_noise"])), index=frame.index, dtype="str")
    if name == "speedup":
        return _speedup_texts(frame)
    if name == "saved_bytes":
        return _saved_texts(frame)
    if name.endswith("_seconds"):
        noise = None if name == "after_switch_seconds" else 0.01
        return frame[name].map(lambda seconds: seconds_text(seconds, noise))
    if name == _GROWTH:
        tensors, others = frame["held_bytes_per_step"], frame["heap_bytes_per_step"]
        return tensors.fillna(others * 0).add(others.fillna(0)).clip(lower=0).map(bytes_text)
    texts = dict.fromkeys(BYTES, bytes_text) | {"page_faults": count_text}
    return frame[name].map(texts[name]) if name in texts else frame[name].fillna(MISSING)


def _saved_texts(frame: pd.DataFrame) -> pd.Series[str]:
    """With the inputs that are kept beside, where they are more, as where a frozen layer keeps nothing else."""
    hidden = frame["input_saved_bytes"].gt(frame["saved_bytes"]).fillna(value=False)
    texts = [
        f"{bytes_text(saved)} (+ input {bytes_text(inputs)})" if more else bytes_text(saved)
        for saved, inputs, more in zip(frame["saved_bytes"], frame["input_saved_bytes"], hidden, strict=True)
    ]
    return pd.Series(texts, index=frame.index, dtype="str")


def _speedup_texts(frame: pd.DataFrame) -> pd.Series[str]:
    """Each row's speedup, or its share of a step: `~` before what is unclear, `?` where the control failed, `*` behind where other kernels ran."""
    texts = []
    for row in each(frame.assign(others=other_kernels(frame), part=is_part(frame))):
        text = "1" if row.mode == TRACKED else _share(row) if row.part else speedup_text(*ends_of(row))
        mark = "" if text[0] not in "0123456789" else "?" if not row.trusted else "~" if row.verdict == "unclear" else ""
        texts.append(f"{mark}{text}{'*' if row.others else ''}")
    return pd.Series(texts, index=frame.index, dtype="str")


def _share(row: Any) -> str:
    """Of the step under no_grad where there is one."""
    return share_text(*ends_of(row, "speedup" if pd.isna(row.over_no_grad) else "over_no_grad"))


def _titled(text: str, frame: pd.DataFrame) -> str:
    """`text` with what all rows have in common, such as `(cpu, float32, pages_kept)`; eager execution goes without saying."""
    names = ("device", "dtype", "execution", "allocator")
    values = [str(frame[name].iloc[0]) for name in names if len(frame[name].unique()) == 1]
    common = [value for value in values if value != EAGER]
    return f"{text} ({', '.join(common)})" if common else text


def _forward_overview(frame: pd.DataFrame) -> Iterator[Table]:
    """A row per job, and columns per mode, in the order of the frame."""
    if frame.empty:
        return
    rows = preferred(frame)
    columns = ["seconds", "speedup", "peak_tensor_bytes", "bound_by"]
    texts = rows[[*JOB, "mode"]].join(texts_of(rows, dict(zip(columns, columns, strict=True))))
    by_mode = texts.set_index([*JOB, "mode"])[columns].unstack("mode", fill_value=MISSING, sort=False)  # noqa: PD010 - pivot would sort
    modes = [mode for mode in rows["mode"].unique() if mode != TRACKED]
    every = pd.MultiIndex.from_product([columns, [TRACKED, *modes]])
    wide = pd.DataFrame(by_mode).reindex(columns=every, fill_value=MISSING)
    cells = {
        "model": labels(rows, JOB).groupby([rows[name] for name in JOB], sort=False).first(),
        "tracked": wide["seconds"][TRACKED],
        **{mode: wide["speedup"][mode] for mode in modes[:_MODES_SHOWN]},
        **{f"peak\n{mode}": wide["peak_tensor_bytes"][mode] for mode in [TRACKED, *_switch(rows)]},
    }
    if rows["bound_by"].notna().any():
        cells["bound by"] = wide["bound_by"][TRACKED]
    more = [f"more modes, which `summarise` shows: {', '.join(modes[_MODES_SHOWN:])}"] if modes[_MODES_SHOWN:] else []
    yield Table(pd.DataFrame(cells).reset_index(drop=True), more, _titled("forward passes, speedup over tracked", rows))


def _switch(rows: pd.DataFrame) -> list[str]:
    """The mode that stands for switching tracking off, if any; chosen by name, because the fastest of noisy figures is too fast."""
    others = [mode for mode in rows["mode"] if mode != TRACKED]
    return [switch_of(rows) or others[0]] if others else []


def _scenarios_overview(frame: pd.DataFrame) -> Iterator[Table]:
    rows = preferred(frame)
    columns = {"time": "seconds", "speedup": "speedup", "peak": "peak_tensor_bytes", "left": _GROWTH}
    texts = rows[list(CASE)].assign(name=labels(rows, JOB)).join(texts_of(rows, columns))
    is_operator = rows["scenario"].eq(OPERATORS)
    lines = []
    for _, scenario in texts[~is_operator].groupby("scenario", sort=False):
        jobs = [job for _, job in scenario.groupby(list(JOB), sort=False)]
        all_tracked = (scenario["mode"].eq(TRACKED) | is_part(scenario)).all()
        if all_tracked:  # as in a training step: one stands for all
            lines.append(_scenario_line(jobs[0], f" (1 of {len(jobs)})" if len(jobs) > 1 else ""))
        else:
            lines += [_scenario_line(job) for job in jobs]
    operators = evidence_of(rows[is_operator])
    for mode in _switch(operators):
        if mean := pooled(operators[operators["mode"].eq(mode)]):
            lines.append([f"operators (mean of {mean.groups})", MISSING, mode, mean.figure, *[MISSING] * 4])
    sides = ("peak\ntracked", "peak\nof mode", "per step\ntracked", "per step\nof mode")
    if lines:
        cells = pd.DataFrame(lines, columns=["scenario", "tracked", "mode", "speedup", *sides])
        yield Table(cells, [], f"{_STEPS}; per step: what stays in memory of each step")


def _scenario_line(job: pd.DataFrame, beside: str = "") -> list[str]:
    mode = next(iter(_switch(job)), MISSING)
    tracked, other = job.set_index("mode").reindex([TRACKED, mode]).fillna(MISSING).to_dict("records")
    figures = [row[column] for column in ("peak", "left") for row in (tracked, other)]
    return [f"{job['name'].iloc[0]}{beside}", tracked["time"], mode.removesuffix(ALONE), other["speedup"], *figures]


def _forward(frame: pd.DataFrame) -> Iterator[Table]:
    """A row per job and mode, the two allocators side by side."""
    if frame.empty:
        return
    keys = [*JOB, "mode"]
    allocators = [name for name in (PAGES_KEPT, AS_SHIPPED) if name in set(frame["allocator"])]
    lines = memory(frame).reset_index(drop=True)
    parameters = lines["parameters"].map("{:,}".format)
    cells = pd.DataFrame({"model": labels(lines, JOB), "parameters": parameters, "mode": lines["mode"]})
    for allocator in allocators:
        rows = frame[frame["allocator"].eq(allocator)]
        titles = (f"{allocator}\nper call", f"{allocator}\nspeedup") if len(allocators) > 1 else ("per call", "speedup")
        columns = dict(zip(titles, ("seconds", "speedup"), strict=True))
        columns |= {"faults": "page_faults"} if allocator == AS_SHIPPED else {}
        beside = lines[keys].merge(rows[keys].join(texts_of(rows, columns)), on=keys, how="left", validate="one_to_one")
        missing = lines["also_as_shipped"].map({True: _SAME, False: MISSING}) if allocator == AS_SHIPPED else MISSING
        cells = cells.assign(**{title: beside[title].fillna(missing) for title in columns})
    meters = {"RSS": "peak_rss_bytes", "reserved": "peak_reserved_bytes"}
    known = {title: name for title, name in meters.items() if lines[name].notna().any()} or {"RSS": "peak_rss_bytes"}
    bytes_columns = {"peak": "peak_tensor_bytes", "saved": "saved_bytes"} | known
    cells = cells.join(texts_of(lines, _clocks(lines) | bytes_columns))
    legend = [_SAME_LEGEND] if (cells == _SAME).any(axis=None) else []
    yield Table(cells, legend, _titled("forward passes, speedup over tracked", frame), labels=2)


def _clocks(frame: pd.DataFrame) -> dict[str, str]:
    return CLOCKS if frame["host_seconds"].notna().any() else {}


def _steps(frame: pd.DataFrame) -> Iterator[Table]:
    """A row per case of what takes steps: loops and training."""
    if frame.empty:
        return
    columns = {"mode": "mode", "per call": "seconds", "speedup": "speedup", **_clocks(frame), "peak": "peak_tensor_bytes"}
    columns |= {"saved,\nall steps": "saved_bytes", "held": "held_tensor_bytes", "left by\neach step": _GROWTH}
    steps = frame["steps"].map(lambda number: str(number) if number > 1 else "")
    labelled = pd.DataFrame({"scenario": labels(frame), "steps a call": steps})
    yield Table(labelled.join(texts_of(frame, columns)), [], _titled(_STEPS, frame), labels=2)


def _operators(frame: pd.DataFrame) -> Iterator[Table]:
    """A row per operator, a column per mode; what tracked takes longer than no_grad, its time * (speedup - 1), stands behind.

    Entering and leaving a context is a table of its own.
    """
    for key, rows in frame.groupby(["device", "dtype", "execution", "allocator"], sort=False):
        where = ", ".join(map(str, key))
        calls = rows.assign(seconds=rows["seconds"] / rows["steps"], others=other_kernels(rows))
        calls = calls.assign(text=_texts(calls, "seconds"))
        calls = calls[~is_context(rows)]
        if len(calls):
            times = calls.set_index(["model", "size", "mode"])["text"]
            cells = times.unstack("mode", fill_value=MISSING, sort=False)  # noqa: PD010 - pivot would sort
            costs = {}
            for row in each(calls[calls["mode"].eq("no_grad")]):
                cost, low, high = (row.seconds * (ratio - 1) for ratio in ends_of(row))
                text = difference_text(cost, low, high, row.seconds_noise)
                costs[row.model] = f"{'' if row.trusted else '?'}{text}{'*' if row.others else ''}"
            cells["tracking costs"] = [costs.get(model, MISSING) for model, _ in cells.index]
            shown = cells.droplevel("size").rename_axis(index=None, columns=None).reset_index(names="operator")
            yield Table(shown, [], f"operators, time of one call ({where})")
        if around := switching(rows):
            entering = pd.DataFrame(list(around.items()), columns=["mode", "time"])
            yield Table(entering, [], f"entering and leaving, bare loop taken off ({where})")
