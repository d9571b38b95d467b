"""What can be shown of a class: digests, error bounds and errors, memory; and checked again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from mdlc.checks.footprint import footprint
from mdlc.checks.integer_verification import computes_in_bytes, integer_layers
from mdlc.checks.local import BLAS, Local
from mdlc.checks.verification import Judge, Run, runs
from mdlc.codegen.plan.sizes import size_text
from mdlc.codegen.plan.weights_file import stored_bytes
from mdlc.codegen.target import find_target, target_of
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from mdlc.inputs.pictures import random_inputs

if TYPE_CHECKING:
    from mdlc.api import CompiledModel

FORMAT = 1
# Errors of another machine's reference in double precision may differ by so much, relatively.
SAME = 1e-3
Json = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """The inputs that errors are measured on.

    Attributes:
        inputs: by ONNX name.
        told: how the certificate calls them: seeded, or a file with its digest.
    """

    inputs: Sequence[Mapping[str, Array]]
    told: Mapping[str, Any]


def seeded(compiled: CompiledModel, seed: int = 0, count: int = 2) -> Data:
    """Random values, then zeros, then the largest values of the inputs' kind with either sign."""
    graph, how = compiled.graph, compiled.how
    made = [random_inputs(graph, how, seed + i) for i in range(count)]
    zeros = {name: np.zeros_like(value) for name, value in made[0].items()}
    extremes = {}
    for name, value in made[0].items():
        most = np.abs(value).max(initial=1) if value.dtype.kind == "f" else value.max(initial=0)
        checks = np.indices(value.shape).sum(0) % 2 == 0 if value.ndim else np.array(True)
        low = -most if value.dtype.kind == "f" else 0
        extremes[name] = np.where(checks, most, low).astype(value.dtype)
    return Data([*made, zeros, extremes], {"kind": "seeded", "seed": seed, "random": count})


def from_files(inputs: Iterable[Mapping[str, Array]], source: Path, limit: int) -> Data:
    """Inputs of a set, at most `limit` of them, with the digest of their values."""
    found = []
    for number, each in enumerate(inputs):
        if number == limit:
            break
        found.append(each)
    digest = hashlib.sha256()
    for each in found:
        for name in sorted(each):
            digest.update(name.encode() + np.ascontiguousarray(each[name]).tobytes())
    return Data(
        found,
        {"kind": "given", "source": source.name, "count": len(found), "sha256": digest.hexdigest()},
    )


def certificate(compiled: CompiledModel, data: Data) -> Json:
    """The certificate of a class, which is built and run for each of its targets.

    Raises:
        MdlcError: a target cannot be built or run here.
    """
    files = compiled.files()
    return {
        "format": FORMAT,
        "class": compiled.name,
        "mdlc": compiled.info.version,
        "command": compiled.info.command,
        "model": {"file": compiled.info.model, "sha256": compiled.info.sha256},
        "files": {
            name: {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
            for name, text in sorted(files.items())
        },
        "passes_left_out": sorted(compiled.without),
        "inputs": dict(data.told),
        "targets": [_target(each, data) for each in compiled.by_target()],
    }


def as_bytes(found: Json) -> bytes:
    """A certificate as it stands in its file."""
    return (json.dumps(found, indent=1, allow_nan=False) + "\n").encode()


def _target(compiled: CompiledModel, data: Data) -> Json:
    plan = compiled.plan
    return {
        "name": plan.backend.name,
        "flags": list(plan.isa.toolchain.flags) if target_of(plan).sized else [],
        "memory": _memory(compiled),
        "sizes": [
            _size(each, seeded(each) if number else data)
            for number, each in enumerate(compiled.sizes)
        ],
        **({"int8": _equality(compiled, data)} if computes_in_bytes(compiled) else {}),
    }


def _memory(compiled: CompiledModel) -> Json:
    """The memory contract; code and stack where gcc is here."""
    plan = compiled.plan
    found: Json = {
        "arena_bytes": plan.working_bytes,
        "weight_bytes": plan.weight_bytes,
        "stored_weight_bytes": stored_bytes(compiled.plans or (plan,), compiled.placed),
        "macs": plan.macs,
    }
    if not target_of(plan).sized:
        return found
    try:
        built = footprint(compiled)
    except MdlcError as error:
        return {**found, "not_measured": error.reason}
    return {
        **found,
        "compiler": built.compiler,
        "code_bytes": built.code_bytes,
        "infer_stack_bytes": built.infer_stack,
        "init_stack_bytes": built.init_stack,
        "infer_calls_outside": list(built.outside),
        "infer_allocates_by": list(built.heap),
    }


def _size(compiled: CompiledModel, data: Data) -> Json:
    """One size of the class on one target: every layer and output."""
    executable = compiled.build()
    found: Json = {"size": size_text(compiled.plan)}
    if computes_in_bytes(compiled):
        return {**found, **_integers(compiled, data, executable)}
    ran = list(runs(compiled, data.inputs, executable))
    judge = Judge(compiled)
    verdict = judge(ran)
    figures = _Figures(compiled, judge)
    for number, each in enumerate(ran):
        with threadpool_limits(1, BLAS):
            figures.add(number, each)
    faults = {layer.step: layer.fault for layer in verdict.layers if layer.fault}
    layers = [
        {"layer": step.name, "tensor": step.node.name, "operator": type(step.node.op).__name__,
         **figures.layers[step.name], **_fault(faults.get(step.name))}
        for step in compiled.plan.steps if step.name in figures.layers
    ]  # fmt: skip
    outputs = [
        {
            "output": each.step,
            "error": _number(each.errors.max_abs if each.errors else math.nan),
            "relative_error": _number(each.errors.max_rel if each.errors else math.nan),
            "onnxruntime_relative_error": _number(
                math.nan if each.runtime is None else each.runtime
            ),
            "bound": _number(figures.outputs.get(each.step, math.nan)),
            **_fault(each.fault),
        }
        for each in verdict.outputs
    ]
    return {**found, "layers": layers, "outputs": outputs, "within_bounds": verdict.ok}


def _integers(compiled: CompiledModel, data: Data, executable: Any) -> Json:
    verdict = integer_layers(compiled, data.inputs, executable)
    layers = [
        {"layer": each.step, "tensor": each.tensor, "operator": each.kind, "type": each.dtype,
         "elements": each.elements, "differ_from_reference": each.differing,
         "steps_off_the_model": each.steps_off,
         "snr_db": None if each.snr_db is None else _number(each.snr_db)}
        for each in verdict.layers
    ]  # fmt: skip
    return {"layers": layers, "within_bounds": verdict.first_off is None}


def _equality(compiled: CompiledModel, data: Data) -> Json:
    """Whether the portable class gives the same bits; those of the target are its digest."""
    name = compiled.plan.backend.name
    found = {name: _digest(compiled, data)}
    other = find_target("generic")
    if name != other.name:
        plan = other.lower(compiled.graph, other.backend, compiled.name)
        found[other.name] = _digest(replace(compiled, plan=plan, plans=(), others=()), data)
    return {"outputs_sha256": found, "equal": len(set(found.values())) == 1}


def _digest(compiled: CompiledModel, data: Data) -> str:
    digest = hashlib.sha256()
    for outputs in compiled.build().run_many(data.inputs):
        for name in sorted(outputs):
            digest.update(name.encode() + np.ascontiguousarray(outputs[name]).tobytes())
    return digest.hexdigest()


class _Figures:
    """Errors and bounds of every layer, the worst over all runs.

    Attributes:
        layers: by step; outputs: bounds of what has accumulated on the way to each.
    """

    def __init__(self, compiled: CompiledModel, judge: Judge) -> None:
        self._graph, self._judge = compiled.graph, judge
        self.layers: dict[str, Json] = {}
        self.outputs: dict[str, float] = {}

    def add(self, number: int, run: Run) -> None:
        """Takes run `number` into account."""
        steps = self._judge.steps
        given = {n: run.traced[s.name] for n, s in steps.items() if s.name in run.traced}
        local = Local(self._graph, run.inputs, given, self._judge.unit, self._judge.loss)
        for node, found in given.items():
            error, bound, share = local.figures(node, found)
            before = self.layers.get(steps[node].name)
            if before is None or share > before["of_bound"]:
                self.layers[steps[node].name] = {
                    "error": _number(error), "bound": _number(bound),
                    "of_bound": _number(share), "worst_input": number,
                }  # fmt: skip
        whole = Local(self._graph, run.inputs, {}, self._judge.unit, self._judge.loss)
        for name, node in zip(self._graph.output_names, self._graph.outputs, strict=True):
            slack = whole.slack(node)
            bound = 0.0 if slack is None else float(np.max(slack, initial=0.0))
            self.outputs[name] = max(self.outputs.get(name, 0.0), bound)


def _number(value: float) -> float | None:
    """Six digits; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _fault(text: str | None) -> Json:
    return {"fault": text} if text else {}


def read_certificate(path: Path) -> Json:
    """A certificate from its file.

    Raises:
        MdlcError: it cannot be read, or is none of this version.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise MdlcError(f"cannot be read: {error.strerror}", node=str(path)) from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or "targets" not in found or "files" not in found:
        raise MdlcError("is not a certificate of mdlc", node=str(path),
                        hint="give the NAME.certificate.json beside the class")  # fmt: skip
    if found.get("format") != FORMAT:
        raise MdlcError(f"has format {found.get('format')}, not {FORMAT}", node=str(path),
                        hint="check it with the mdlc that made it")  # fmt: skip
    return found


def changed_files(found: Mapping[str, Any], folder: Path) -> list[str]:
    """What is wrong with the files that lie beside a certificate."""
    told = []
    for name, entry in found["files"].items():
        path = folder / name
        if not path.is_file():
            told.append(f"{name} is missing beside the certificate")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            told.append(f"{name} beside the certificate is another")
    return told


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What a certificate made here says otherwise, in lines.

    What depends on the compiler (code, stack) is compared where it is the same.
    """
    told: list[str] = []
    for key in ("class", "mdlc", "command", "passes_left_out"):
        if old.get(key) != new[key]:
            told.append(f"{key}: {old.get(key)}, here {new[key]}")
    for key in ("model", "inputs"):
        if {**old[key], "source": "", "file": ""} != {**new[key], "source": "", "file": ""}:
            told.append(f"{key}: another digest or number of inputs")
    for name in sorted({*old["files"], *new["files"]}):
        if old["files"].get(name) != new["files"].get(name):
            told.append(f"{name}: compiling again makes another file")
    targets = {each["name"]: each for each in old["targets"]}
    for each in new["targets"]:
        before = targets.pop(each["name"], None)
        if before is None:
            told.append(f"target {each['name']} is not in the certificate")
            continue
        told += [f"target {each['name']}: {line}" for line in _of_target(before, each)]
    return told + [f"target {name} was not checked here" for name in targets]


def _of_target(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    told = []
    memory = old["memory"]
    same = memory.get("compiler") == new["memory"].get("compiler")
    by_compiler = ("compiler", "code_bytes", "infer_stack_bytes", "init_stack_bytes",
                   "infer_calls_outside", "not_measured")  # fmt: skip
    for key in sorted({*memory, *new["memory"]}):
        if (same or key not in by_compiler) and memory.get(key) != new["memory"].get(key):
            told.append(f"{key}: {memory.get(key)}, here {new['memory'].get(key)}")
    if "int8" in new:
        if not new["int8"]["equal"]:
            told.append("outputs differ from those of the portable class")
        if old.get("int8", {}).get("outputs_sha256") != new["int8"]["outputs_sha256"]:
            told.append("outputs in 8 bits are other ones")
    for before, size in zip(old["sizes"], new["sizes"], strict=False):
        told += _of_size(before, size)
    if len(old["sizes"]) != len(new["sizes"]):
        told.append(f"{len(old['sizes'])} sizes, here {len(new['sizes'])}")
    return told


def _of_size(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    told = []
    layers = {each["layer"]: each for each in old["layers"]}
    for each in new["layers"]:
        name, before = each["layer"], layers.pop(each["layer"], None)
        if each.get("fault"):
            told.append(f"layer {name!r}: {each['fault']}")
        if before is None:
            told.append(f"layer {name!r} is not in the certificate")
            continue
        for key in ("error", "bound", "differ_from_reference"):
            a, b = before.get(key), each.get(key)
            if a != b and (a is None or b is None or abs(a - b) > SAME * max(abs(a), abs(b))):
                told.append(f"layer {name!r}: {key} {a}, here {b}")
    return told + [f"layer {name!r} is not here" for name in layers]
