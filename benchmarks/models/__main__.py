"""`python -m benchmarks.models`: what the built-in models are, as a Markdown table."""

from __future__ import annotations

from functools import partial

from analysis.figures import bytes_text
from analysis.render import Column, Section, Table, markdown
from benchmarks.measure.graph import saved_for_backward
from benchmarks.models import MODELS


def table() -> Table:
    """One row per model and size; builds each and runs it forward once, tracked."""
    sections = []
    for family in MODELS.values():
        for size in family.sizes:
            workload = family.workload(size)
            activations = saved_for_backward(partial(workload.run, workload.module), workload.constants()).total_bytes
            facts = workload.facts()
            row = [f"{facts.parameters:,}", " ".join(facts.inputs), bytes_text(activations)]
            sections.append(Section("", (family.name, size), [row]))
    columns = [Column("parameters"), Column("input", text=True), Column("activations")]
    notes = [f"{family.name}: {family.summary}" for family in MODELS.values()]
    notes.append("activations: bytes that one tracked forward pass keeps for backward")
    return Table(columns, ("model", "size"), sections, notes)


if __name__ == "__main__":
    print(markdown(table()))  # noqa: T201 - the table is what this command is for
