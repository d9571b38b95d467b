"""The figures of a report: plain values that are written as JSON and drawn on a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mdlc.api import CompiledModel
from mdlc.checks.benchmark import Benchmark, benchmark, notes
from mdlc.checks.integer_verification import computes_in_bytes, integer_layers
from mdlc.checks.verification import verify
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.host import runs_here
from mdlc.codegen.kernel import Step
from mdlc.codegen.plan.arena import lower_bound
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.row_fusion import window_rows
from mdlc.codegen.target import target_of
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.types import Array, DType
from mdlc.compiler.words import in_words
from mdlc.explanation import explained
from mdlc.precision.int8 import LowPrecision
from mdlc.precision.report import layer_json
from mdlc.reports.form import FORMAT, MEASURED, PREDICTED
from mdlc.version import __version__

_WAYS = 5
Document = dict[str, Any]
Inputs = Sequence[Mapping[str, Array]]


def gather(
    compiled: CompiledModel,
    inputs: Inputs,
    *,
    repeats: int,
    progress: Callable[[str], None],
) -> Document:
    """All that a report says of a class for one target.

    Args:
        inputs: on which errors are measured, where something here runs the class.
        repeats: inferences that are timed.
    """
    plan = compiled.plan
    timed = _benchmark(compiled, repeats, progress)
    files = compiled.files()
    return {
        "format": FORMAT,
        "mdlc": __version__,
        "name": plan.name,
        "target": plan.backend.name,
        "model": compiled.model.file_name,
        "sha256": compiled.model.sha256,
        "command": compiled.info.command,
        "precision": "int8" if compiled.low_precision else plan.precision,
        "macs": plan.macs,
        "time": times(plan, timed),
        "groups": row_groups(plan),
        "weights": weights(compiled, files),
        "code": code(files, timed),
        "arena": arena(plan),
        "errors": errors(compiled, inputs, progress),
        "int8": None if compiled.low_precision is None else int8(compiled.low_precision),
        "passes": passes(compiled),
        "layers": layers(compiled),
    }


# --------------------------------------------------------------------------------------- time


def _benchmark(
    compiled: CompiledModel, repeats: int, progress: Callable[[str], None]
) -> Benchmark | None:
    plan = compiled.plan
    if not (isinstance(plan.backend, Isa) and runs_here(plan.isa) and target_of(plan).timed):
        return None
    progress("building and timing")
    return benchmark(compiled, repeats)


def times(plan: Plan, timed: Benchmark | None) -> Document:
    """Time by layer: microseconds where it was measured, else cycles by the cost model."""
    rows = []
    for index, unit in enumerate(plan.units()):
        steps = [plan.steps[i] for i in unit]
        macs = sum(_macs(step.node) for step in steps)
        row = {
            "name": steps[0].name if len(steps) == 1 else f"{steps[0].name} to {steps[-1].name}",
            "kind": _family(steps),
            "value": (
                sum(step.cycles(plan.backend) for step in steps)
                if timed is None
                else timed.layers[index].microseconds
            ),
            "macs": macs,
            "bytes": _traffic(steps),
        }
        rows.append(row)
    core = getattr(plan.backend, "core", None)
    found: Document = {
        "kind": PREDICTED if timed is None else MEASURED,
        "unit": "cycles" if timed is None else "us",
        "whole": None if timed is None else timed.microseconds,
        "processor": getattr(core, "name", ""),
        "compiler": None if timed is None else timed.compiler,
        "notes": [] if timed is None else notes(timed),
        "rows": rows,
        "roof": _roof(plan, timed),
    }
    return found


def _roof(plan: Plan, timed: Benchmark | None) -> Document | None:
    """The most that a core does: operations (two for a multiply-add), and bytes from memory, in
    the report's unit of time."""
    backend = plan.backend
    if not isinstance(backend, Isa):
        return None
    core, seen = backend.core, backend.seen[DType.F32]
    per_cycle = 2 * seen.fma_per_cycle * seen.lanes
    if timed is None:
        return {"operations": per_cycle, "bytes": core.stream_bytes, "unit": "operations/cycle"}
    cycles = timed.peak_gflops / per_cycle  # in a nanosecond
    return {
        "operations": timed.peak_gflops,
        "bytes": core.stream_bytes * cycles,
        "unit": "GFLOP/s",
    }


def row_groups(plan: Plan) -> list[Document]:
    """The insides of row-fused groups: layers, what they cost by the model, and their windows."""
    found = []
    for group in plan.row_groups:
        steps = [plan.steps[i] for i in group.indices]
        rows = [*window_rows([step.node for step in steps], group), None]
        found.append(
            {
                "name": f"{steps[0].name} to {steps[-1].name}",
                "rows": group.rows,
                "strips": group.strips,
                "layers": [
                    {
                        "name": step.name,
                        "kind": in_words(step.node.op),
                        "output": str(step.node.type),
                        "cycles": step.cycles(plan.backend),
                        "window_rows": window,
                        "whole_rows": step.node.type.shape[2],
                    }
                    for step, window in zip(steps, rows, strict=True)
                ],
            }
        )
    return found


# ------------------------------------------------------------------------------------- memory


def weights(compiled: CompiledModel, files: Mapping[str, bytes]) -> Document:
    """Bytes of weights by layer: in the model, in memory and in the file, and from one to the
    other."""
    plan = compiled.plan
    rows: list[Document] = []
    for step in plan.layers:
        memory = sum(array.nbytes for array in step.weights.values())
        if not memory:
            continue
        own = sum(n.constant.nbytes for n in step.node.inputs if n.constant is not None)
        coded = plan.encoded.get(step.name)
        packed = step.weights.get("weights")
        stored = memory
        if coded is not None and packed is not None:
            stored = memory - packed.nbytes + len(coded.data)
        elif coded is not None:
            stored = len(coded.data)
        transformed = isinstance(plan.backend, Isa) and (
            step.kernel.transformed(step.node, step.schedule, step.seen(plan.backend)) is not None
        )
        rows.append(
            {
                "name": step.name,
                "model": own,
                "memory": memory,
                "file": stored,
                "encoding": "packed" if coded is None else _encoding(coded.encoding, transformed),
                "transformed": transformed,
            }
        )
    trained = sum(n.constant.nbytes for n in compiled.imported.order() if n.constant is not None)
    folded = sum(row["model"] for row in rows) - trained
    grown = sum(row["memory"] - row["model"] for row in rows if row["transformed"])
    packing = sum(row["memory"] - row["model"] for row in rows if not row["transformed"])
    encoded = sum(row["file"] - row["memory"] for row in rows)
    binary = [data for name, data in files.items() if name.endswith(".weights")]
    total = sum(map(len, binary)) if binary else trained + folded + grown + packing + encoded
    known = trained + folded + grown + packing + encoded
    return {
        "rows": rows,
        "embedded": not binary,
        "file": total,
        "memory": plan.weight_bytes,
        "way": [
            {"what": "weights of the model", "bytes": trained},
            {"what": "folded by passes", "bytes": folded},
            {"what": "Winograd's filters", "bytes": grown},
            {"what": "packing for kernels", "bytes": packing},
            {"what": "encoding", "bytes": encoded},
            {"what": "header, alignment", "bytes": total - known},
            {"what": "weights file", "bytes": total},
        ],
    }


def _encoding(encoding: object, transformed: bool) -> str:
    text = str(encoding)
    return "filters, transformed by Init" if transformed and text == "raw" else text


def code(files: Mapping[str, bytes], timed: Benchmark | None) -> Document:
    """The emitted text, and the machine code where it was built."""
    return {
        "machine": None if timed is None else timed.code_bytes,
        "files": [
            {"name": name, "bytes": len(data), "lines": data.count(b"\n")}
            for name, data in files.items()
            if not name.endswith(".weights")
        ],
    }


def arena(plan: Plan) -> Document:
    """Where every buffer lies, and from which step to which."""
    steps = [step.name for step in plan.steps]
    return {
        "bytes": plan.arena_bytes,
        "bound": lower_bound(plan.buffers),
        "steps": steps,
        "buffers": [
            {
                "name": buffer.name,
                "offset": buffer.offset,
                "bytes": buffer.nbytes,
                "first": buffer.first,
                "last": buffer.last,
            }
            for buffer in plan.buffers
        ],
        "live": [
            sum(b.nbytes for b in plan.buffers if b.first <= index <= b.last)
            for index in range(len(steps))
        ],
    }


# ------------------------------------------------------------------------------------- errors


def errors(compiled: CompiledModel, inputs: Inputs, progress: Callable[[str], None]) -> Document:
    """How far every layer is from the model, or why that is not known."""
    try:
        progress("building")
        executable = compiled.build()
    except MdlcError as error:
        return {"rows": [], "note": f"not measured: {error}"}
    progress("comparing layers")
    if computes_in_bytes(compiled):
        exact = integer_layers(compiled, inputs, executable)
        rows = [{**asdict(layer), "name": layer.step} for layer in exact.layers]
        return {"kind": "integers", "rows": _finite(rows), "runs": exact.runs, "note": ""}
    found = verify(compiled, inputs, executable)
    rows = []
    for layer in (*found.layers, *found.outputs):
        rows.append(
            {
                "name": layer.step,
                "kind": layer.kind,
                "max_rel": None if layer.errors is None else layer.errors.max_rel,
                "snr_db": None if layer.errors is None else layer.errors.snr_db,
                "runtime": layer.runtime,
                "of_bound": layer.excess,
                "verdict": layer.verdict,
            }
        )
    return {"kind": "floats", "rows": _finite(rows), "runs": found.runs, "note": ""}


def int8(low: LowPrecision) -> Document:
    """What 8 bits cost every layer, the worst first."""
    if low.inputs is None:
        return {"rows": [], "note": "not measured: a calibration table has no inputs"}
    return {"rows": [layer_json(layer) for layer in low.reports()], "note": ""}


# -------------------------------------------------------------------------------------- graph


def passes(compiled: CompiledModel) -> list[Document]:
    """What each pass changed: operators that came and went."""
    found = []
    for before, after in zip(compiled.stages, compiled.stages[1:], strict=False):
        old, new = _operators(before.graph), _operators(after.graph)
        change = {kind: new[kind] - old[kind] for kind in {*old, *new} if new[kind] != old[kind]}
        ops = {n.name: n.op for n in before.graph.order() if n.name and n.constant is None}
        rewritten = sum(
            ops[n.name] != n.op for n in after.graph.order() if n.constant is None and n.name in ops
        )
        found.append(
            {
                "name": after.name,
                "seconds": after.seconds,
                "layers": sum(new.values()),
                "change": dict(sorted(change.items(), key=lambda item: (item[1], item[0]))),
                "rewritten": rewritten,
            }
        )
    return found


def _operators(graph: Graph) -> Counter[str]:
    return Counter(_kind(node) for node in graph.order() if node.constant is None)


def layers(compiled: CompiledModel) -> list[Document]:
    """Every layer: where it comes from, what was fused into it, and why this kernel."""
    fused = fused_into(compiled.imported, compiled.plan)
    by_step = {step.name: step for step in compiled.plan.steps}
    found = []
    for layer in explained(compiled):
        step = by_step[layer.name]
        ways = [way for i, way in enumerate(layer.ways) if i < _WAYS or way.won]
        found.append(
            {
                "name": layer.name,
                "tensor": layer.tensor,
                "origin": step.node.origin,
                "op": in_words(step.node.op),
                "output": layer.output,
                "macs": layer.macs,
                "fused": fused.get(layer.name, []),
                "chosen_by": layer.chosen_by,
                "bands": layer.bands,
                "precision": None if layer.precision is None else asdict(layer.precision),
                "ways": [asdict(way) for way in ways],
                "candidates": len(layer.ways),
            }
        )
    return found


def fused_into(imported: Graph, plan: Plan) -> dict[str, list[str]]:
    """By layer, the model's operators whose tensors are in no layer any more."""
    original = {node.name: node for node in imported.order() if node.constant is None}
    kept = {step.node.name for step in plan.steps} | {node.name for node in plan.graph.inputs}
    found: dict[str, list[str]] = {}
    for step in plan.steps:
        start = original.get(step.node.name)
        if start is None:
            continue
        seen: dict[Node, None] = {}
        waiting = [start]
        while waiting:
            node = waiting.pop()
            for source in node.inputs:
                inside = source.constant is None and source.inputs and source.name not in kept
                if inside and source not in seen:
                    seen[source] = None
                    waiting.append(source)
        found[step.name] = [f"{_kind(n)} {n.name}" for n in (*reversed(list(seen)), start) if seen]
    return found


def _family(steps: Sequence[Step]) -> str:
    """What a layer is to one who asks where the time goes."""
    return steps[0].kernel.name.replace("_", " ") if len(steps) == 1 else "row-fused group"


def _kind(node: Node) -> str:
    return type(node.op).__name__


def _macs(node: Node) -> int:
    return node.op.cost([source.type for source in node.inputs], node.type).macs


def _traffic(steps: Sequence[Step]) -> int:
    """Bytes that a layer or a group reads and writes at least."""
    first, last = steps[0], steps[-1]
    moved = sum(view.type.nbytes for view in first.inputs) + last.output.type.nbytes
    return moved + sum(array.nbytes for step in steps for array in step.weights.values())


def _finite(rows: Iterable[Mapping[str, Any]]) -> list[Document]:
    """JSON has no infinities."""
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
