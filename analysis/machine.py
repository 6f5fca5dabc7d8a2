"""What a run says of its machine: its name, its facts as pairs, and in what two runs differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def device_name(machine: Mapping[str, Any], device: str) -> str:
    """The accelerator's name for its cases, else the processor's and how many cores it has. `machine` is a file's machine_info."""
    facts = machine.get("gradtax", {}).get("devices", {}).get(device, {})
    if device != "cpu" and facts.get("name"):
        return str(facts["name"])
    processor = machine.get("cpu", {})
    name = processor.get("brand_raw") or machine.get("processor") or machine.get("machine")
    cores = facts.get("cores") or processor.get("count")
    return ", ".join([*([str(name)] if name else []), *([f"{cores} cores"] if cores else [])])
