"""Many runs on one page: what each machine reads, and what one machine read day by day. Frame in, file out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis import charts, report
from analysis.find import writing
from analysis.means import means, means_tables
from analysis.read import AnalysisError
from analysis.render import Table
from benchmarks.record import FORWARD
from benchmarks.saving import write_whole


@writing()
def write(frame: pd.DataFrame, path: Path) -> None:
    """Writes the page of a frame of many runs. Raises AnalysisError where there are none."""
    if frame.empty:
        raise AnalysisError(f"{path}: there is nothing to show; name a folder of runs that have results")
    write_whole(path, page(frame).encode())


def page(frame: pd.DataFrame) -> str:
    """All scenarios of all machines, and of a machine with several dates its forward passes, the newest first."""
    torch = ["torch"] if len(frame["torch"].unique()) > 1 else []
    drawn, tables = _part(frame, ["machine", *torch], "all machines")
    newest_first = frame[frame["scenario"].eq(FORWARD)].sort_values("date", ascending=False, kind="stable")
    for machine, rows in newest_first.groupby("machine", sort=False):
        if len(rows["date"].unique()) > 1:
            of_machine = _part(rows, ["date", *torch], f"{machine} by date")
            drawn, tables = drawn | of_machine[0], tables | of_machine[1]
    numbers = [f"{len(frame[name].unique())} {name}s" for name in ("run", "machine")]
    identity = f"{' of '.join(numbers)}, {frame['date'].min()} to {frame['date'].max()}"
    return report.filled(name="many machines", identity=identity, charts=drawn, notes=[], tables=tables)


def _part(frame: pd.DataFrame, by: Sequence[str], title: str) -> tuple[dict[str, str], dict[str, Table]]:
    """Charts and tables, by title, of the means by `by`."""
    speedups, peaks = (means(frame, by, metric) for metric in ("speedup", "peak_tensor_bytes"))
    tables = [*means_tables(speedups, by), *means_tables(peaks, by, "peak_tensor_bytes")]
    return charts.of_means(speedups, by, title), {f"{title}: {table.title}": replace(table, title="") for table in tables}
