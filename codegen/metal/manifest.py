"""The manifest of a Metal class: what was made from what, and what each kernel costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from mdlc.codegen.cpp.class_text import file_entries, port_entry
from mdlc.codegen.cpp.emit import Info
from mdlc.codegen.metal.cost import network_report
from mdlc.codegen.metal.kernel import ComputeCode
from mdlc.codegen.metal.split import CpuPart, MetalPlan, macs_of


def manifest(
    plan: MetalPlan,
    info: Info,
    codes: Sequence[ComputeCode],
    ends: Sequence[ComputeCode],
    files: Mapping[str, bytes],
    processor: str,
) -> bytes:
    """The manifest as JSON.

    Args:
        codes: kernels of the steps; ends: of what is read from buffers and written to them.
        processor: the instruction set of the layers that Metal lacks.
    """
    content = {
        "format": 1,
        "class": plan.name,
        "mdlc": info.version,
        "target": plan.backend.name,
        "model": {"file": info.model, "sha256": info.sha256},
        "inputs": [port_entry(port) for port in plan.inputs],
        "outputs": [port_entry(port) for port in plan.outputs],
        "layers": len(plan.steps),
        "macs": plan.macs,
        "texture_bytes": plan.arena_bytes,
        "weight_bytes": plan.weight_bytes,
        "cpu": [_part(plan, part, processor) for part in plan.parts],
        "cost": network_report(plan, codes, ends),
        "files": file_entries(files),
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def _part(plan: MetalPlan, part: CpuPart, processor: str) -> dict[str, object]:
    """What the processor computes, and when."""
    steps = plan.steps
    return {
        "class": part.name,
        "target": processor,
        "behind": steps[part.before - 1].name if part.before else "",
        "layers": [
            {"layer": node.name, "operator": type(node.op).__name__} for node in part.layers
        ],
        "macs": sum(map(macs_of, part.layers)),
    }
