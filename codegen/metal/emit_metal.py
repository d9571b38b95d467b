"""Plan -> the files of a Metal class: kernels, host class, weights, packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mdlc.codegen.code import C_TYPES
from mdlc.codegen.cpp import emit as emit_cpp
from mdlc.codegen.cpp.class_text import (
    MAT_TYPES,
    bytes_literal,
    comment,
    example,
    manual,
    stacked,
)
from mdlc.codegen.cpp.emit import Info, dims
from mdlc.codegen.cpp.format import format_cpp
from mdlc.codegen.cpp.layer_text import describe
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import Step, View
from mdlc.codegen.metal.backend import PROCESSOR
from mdlc.codegen.metal.cost import matrix_pays
from mdlc.codegen.metal.image import Image
from mdlc.codegen.metal.kernel import ComputeCode
from mdlc.codegen.metal.manifest import manifest
from mdlc.codegen.metal.ports import camera, reader, takes_camera, writer
from mdlc.codegen.metal.split import NOWHERE, MetalPlan, Transfer
from mdlc.codegen.plan import lowering, weights_file
from mdlc.codegen.plan.plan import Plan, Port
from mdlc.codegen.templates import render
from mdlc.compiler.types import DType
from mdlc.compiler.words import counted, work


@dataclass(frozen=True)
class Texture:
    """A texture array of the class.

    Attributes:
        constant: its name in the enumeration.
        first, last: as in Buffer.
    """

    constant: str
    name: str
    width: int
    height: int
    layers: int
    format: str
    first: int
    last: int
    live: str


@dataclass(frozen=True)
class Dispatch:
    """A line of infer: a kernel with what it is bound to.

    Attributes:
        matrix: the kernel instead on GPUs that have simdgroup_matrix.
    """

    member: str
    kernel: int
    textures: tuple[str, ...]
    fields: tuple[str, ...]
    groups: tuple[int, int, int]
    group: tuple[int, int, int]
    shared: int
    buffer: int = 0
    matrix: Dispatch | None = None


@dataclass(frozen=True)
class Pass:
    """What is encoded into one command buffer, and what the processor computes behind it.

    Attributes:
        operations: copies (kind "read" or "write") and layers (kind "layer") in order.
        first: whether nothing was encoded before.
        part: calls of the processor's class: name, and for each Mat its buffer, size and type.
    """

    operations: tuple[tuple[str, int, Dispatch], ...]
    first: bool
    part: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Member:
    """A layer as a member of the class."""

    name: str
    struct: str
    initializer: str
    comment: str
    public: bool


def codes_of(plan: Plan) -> list[ComputeCode]:
    """The kernel of every step, in order."""
    found = []
    for step in plan.steps:
        code = step.kernel.emit(step, plan.backend)
        assert isinstance(code, ComputeCode)
        found.append(code if matrix_pays(step, code) else replace(code, matrix=None))
    return found


class Functions:
    """Kernels of a file, those of equal text once, with names that do not collide."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.names: list[str] = []
        self.helpers: dict[str, None] = {}
        self._number: dict[str, int] = {}

    def add(self, code: ComputeCode) -> int:
        """The kernel's number in the file."""
        for helper in code.helpers:
            self.helpers.setdefault(helper)
        text = code.definition(code.name)
        if text not in self._number:
            name, number = code.name, 1
            while name in self.names:
                number += 1
                name = f"{code.name}_v{number}"
            self._number[text] = len(self.names)
            self.names.append(name)
            self.texts.append(code.definition(name))
        return self._number[text]


def emit(
    plan: MetalPlan,
    info: Info,
    *,
    embed_weights: bool = False,
    instrument: bool = False,
    processor: Isa = PROCESSOR,
) -> dict[str, bytes]:
    """File names and contents: kernels, host class, Swift wrapper, weights, manifest, packages.

    Args:
        embed_weights: not for this target; weights are a file.
        instrument: call `trace` after every layer (for verify; never shipped).
        processor: what computes the layers that Metal lacks, where there are any.
    """
    functions = Functions()
    codes = codes_of(plan)
    textures = textures_of(plan)
    readers = [reader(each.port) for each in plan.reads]
    writers = [writer(each.port) for each in plan.writes]

    def copy(transfer: Transfer, code: ComputeCode) -> Dispatch:
        constant = textures[transfer.port.view.buffer].constant
        number = functions.add(code)
        return Dispatch("", number, (constant,), (), code.groups, code.group, 0, transfer.buffer)

    copies_in = list(map(copy, plan.reads, readers))
    picture = None
    if pictured(plan):
        code = camera(plan.inputs[0], scale=_scale(plan.inputs[0], info), bgr=_is_bgr(info))
        picture = copy(plan.reads[0], code)
    numbers = [functions.add(code) for code in codes]
    copies_out = list(map(copy, plan.writes, writers))
    layers = _dispatches(plan, codes, numbers, textures, functions)
    matrices = {layer.matrix.kernel for layer in layers if layer.matrix}
    structs, members = _members(plan, numbers)
    weights = weights_file.weights_file([plan])
    parts = part_files(plan, info, processor)
    context: dict[str, Any] = {
        "plan": plan,
        "info": info,
        "name": plan.name,
        "mat_types": MAT_TYPES,
        "instrument": instrument,
        "structs": structs,
        "members": members,
        "textures": textures,
        "kernels": functions.names,
        "picture": picture,
        "passes": _passes(plan, copies_in, layers, copies_out),
        "matrices": sorted(matrices),
        "header_bytes": weights_file.HEADER_BYTES,
        "format_version": weights_file.VERSION,
        "digest": bytes_literal(plan.digest()[:16]),
        "target": plan.backend.name,
        "stacked": stacked,
        "manual": _manual(plan, info),
        "example": example(plan, f'"{plan.name}.weights"'),
        "comment": comment,
        "part_sources": [name for name in parts if name.endswith(".cpp")],
    }
    metal = render(
        "metal/kernels.metal.j2",
        **context,
        functions=functions.texts,
        helpers=list(functions.helpers),
    )
    files = {
        f"{plan.name}.metal": format_cpp(metal).encode(),
        f"{plan.name}.h": format_cpp(render("metal/header.h.j2", **context), reflow=False).encode(),
        f"{plan.name}.cpp": format_cpp(render("metal/source.cpp.j2", **context)).encode(),
        f"{plan.name}.weights": weights,
    }
    files |= parts
    files |= _packages(plan, context)
    files[f"{plan.name}.json"] = manifest(
        plan, info, codes, [*readers, *writers], files, processor.name
    )
    return files


def _packages(plan: Plan, context: Mapping[str, Any]) -> dict[str, bytes]:
    """What Swift, Xcode and CMake read, and the C functions between Swift and the class."""
    more = {
        "c_type": lambda port: _C[port.type.dtype],
        "swift_type": lambda p: _SWIFT[p.type.dtype],
    }
    name = plan.name

    def text(template: str) -> str:
        return render(f"metal/{template}.j2", **context, **more)

    return {
        f"{name}_c.h": format_cpp(text("c_header.h")).encode(),
        f"{name}_c.cpp": format_cpp(text("c_source.cpp")).encode(),
        f"{name}.swift": text("wrapper.swift").encode(),
        "Package.swift": text("Package.swift").encode(),
        "module.modulemap": text("module.modulemap").encode(),
        "CMakeLists.txt": text("CMakeLists.txt").encode(),
    }


_C = {dtype: name.removeprefix("std::") for dtype, name in C_TYPES.items()}
# Half-precision values are passed as their bits.
_SWIFT = {
    DType.F16: "UInt16",
    DType.F32: "Float",
    DType.F64: "Double",
    DType.U8: "UInt8",
    DType.I8: "Int8",
    DType.BOOL: "UInt8",
    DType.I16: "Int16",
    DType.U16: "UInt16",
    DType.I32: "Int32",
    DType.I64: "Int64",
    DType.U32: "UInt32",
    DType.U64: "UInt64",
}


_FORMATS = {"half": "RGBA16Float", "float": "RGBA32Float", "int": "RGBA32Sint"}


def textures_of(plan: MetalPlan) -> list[Texture]:
    """The texture of every buffer of the plan."""
    views = {each.port.view.buffer: each.port.view for each in (*plan.reads, *plan.writes)}
    for step in plan.steps:
        for view in (*step.inputs, step.output):
            views.setdefault(view.buffer, view)
    found: list[Texture] = []
    names: list[str] = []
    for number, buffer in enumerate(plan.buffers):
        view = views[number]
        image = Image.of(view.type, wide=view.wide)
        constant = "kTexture" + "".join(p[0].upper() + p[1:] for p in buffer.name.split("_") if p)
        while constant in names:
            constant += "V2"
        names.append(constant)
        live = (
            "input" if buffer.first < 0 else _at(plan, buffer.first),
            _at(plan, buffer.last),
        )
        found.append(
            Texture(
                constant,
                buffer.name,
                image.width,
                image.height,
                image.images * view.pitch,
                _FORMATS[image.element],
                buffer.first,
                buffer.last,
                " .. ".join(live),
            )
        )
    return found


def _at(plan: Plan, step: int) -> str:
    return plan.steps[step].name if step < len(plan.steps) else "output"


def pictured(plan: MetalPlan) -> bool:
    """Whether a camera's texture can be the network's one input."""
    inside = any(0 in part.inputs for part in plan.parts)
    ours = len(plan.inputs) == 1 and plan.inputs[0].view.buffer != NOWHERE
    return ours and not inside and takes_camera(plan.inputs[0])


def _passes(
    plan: MetalPlan,
    copies_in: Sequence[Dispatch],
    layers: Sequence[Dispatch],
    copies_out: Sequence[Dispatch],
) -> list[Pass]:
    """Everything that infer does, in order; a part of the processor's ends a command buffer."""
    # Before a step, stage by stage: what the stage computes, then what it hands on.
    events: list[tuple[int, int, int, str, int, Any]] = []
    for kind, transfers, copies in (
        ("read", plan.reads, copies_in),
        ("write", plan.writes, copies_out),
    ):
        events += [
            (each.before, each.stage, 1, kind, number, copy)
            for number, (each, copy) in enumerate(zip(transfers, copies, strict=True))
        ]
    events += [
        (part.before, part.stage, 0, "part", number, _part_call(plan, number))
        for number, part in enumerate(plan.parts)
    ]
    last = max((event[1] for event in events), default=0) + 1
    events += [(at, last, 2, "layer", at, layer) for at, layer in enumerate(layers)]
    passes: list[Pass] = []
    operations: list[tuple[str, int, Dispatch]] = []
    for _, _, _, kind, number, what in sorted(events, key=lambda event: event[:5]):
        if kind == "part":
            passes.append(Pass(tuple(operations), not any(p.operations for p in passes), what))
            operations = []
        else:
            operations.append((kind, number, what))
    if operations:
        passes.append(Pass(tuple(operations), not any(p.operations for p in passes)))
    return passes


def _part_call(plan: MetalPlan, number: int) -> dict[str, Any]:
    """How a class of the processor's is called: its Mats are the buffers."""
    part = plan.parts[number]
    nodes = (*part.graph.inputs, *part.graph.outputs)
    mats = []
    for buffer, node in zip((*part.inputs, *part.outputs), nodes, strict=True):
        dims = Port("", "", View(0, 0, node.type, 0)).dims
        mats.append((buffer, ", ".join(map(str, dims)), MAT_TYPES[node.type.dtype]))
    words = [type(node.op).__name__ for node in part.layers]
    return {"name": part.name, "member": f"cpu{number + 1}_", "mats": mats, "layers": words}


def part_files(plan: MetalPlan, info: Info, processor: Isa) -> dict[str, bytes]:
    """Headers and sources of each class of the processor's; its weights stand in the source."""
    files: dict[str, bytes] = {}
    for part in plan.parts:
        own = emit_cpp.emit(lowering.lower(part.graph, processor, part.name), info,
                            embed_weights=True)  # fmt: skip
        code = (f"{part.name}.", f"{part.name}_")
        files |= {
            name: text
            for name, text in own.items()
            if name.startswith(code) and name.endswith((".h", ".cpp"))
        }
    return files


def _dispatches(
    plan: Plan,
    codes: Sequence[ComputeCode],
    numbers: Sequence[int],
    textures: Sequence[Texture],
    functions: Functions,
) -> list[Dispatch]:
    def dispatch(step: Step, code: ComputeCode, number: int) -> Dispatch:
        form = code.matrix
        return Dispatch(
            step.name,
            number,
            tuple(textures[view.buffer].constant for view in (*step.inputs, step.output)),
            tuple(step.weights),
            code.groups,
            code.group,
            code.shared_bytes,
            matrix=dispatch(step, form, functions.add(form)) if form else None,
        )

    return list(map(dispatch, plan.steps, codes, numbers))


def _members(
    plan: Plan, numbers: Sequence[int]
) -> tuple[list[tuple[str, tuple[str, ...]]], list[Member]]:
    """Layer types (name and fields) and layers; fields are offsets in the weights file."""
    offsets = {
        (blob.step, blob.field): blob.offset + weights_file.HEADER_BYTES for blob in plan.blobs()
    }
    structs: dict[tuple[str, tuple[str, ...]], str] = {}
    members = []
    for index, (step, number) in enumerate(zip(plan.steps, numbers, strict=True)):
        key = step.kernel.layer, tuple(step.weights)
        if key not in structs:
            same = sum(layer == key[0] for layer, _ in structs)
            structs[key] = key[0] + (str(same + 1) if same else "")
        values = [_shapes(step) + f", {number}"]
        values += [str(offsets[step.name, name]) for name in step.weights]
        initializer = "{{" + values[0] + "}" + "".join(f", {v}" for v in values[1:]) + "}"
        last = index == len(plan.steps) - 1
        members.append(Member(step.name, structs[key], initializer, describe(step), last))
    return [(name, key[1]) for key, name in structs.items()], members


def _shapes(step: Step) -> str:
    first = step.inputs[0] if step.inputs else step.output
    return ", ".join("{" + ", ".join(map(str, dims(view))) + "}" for view in (first, step.output))


def _scale(port: Port, info: Info) -> float:
    """Full intensity in the input's units: 8-bit values unless the network's own are expected."""
    note = info.notes.get(port.name, "")
    return 255.0 if port.type.dtype.value == "u8" or note else 1.0


def _is_bgr(info: Info) -> bool:
    return any("BGR" in note for note in info.notes.values())


def _manual(plan: Plan, info: Info) -> list[str]:
    rows = [
        ("model", info.model),
        ("SHA-256", info.sha256),
        ("command", info.command),
        ("target", f"{plan.backend.name} ({plan.backend.description})"),
        ("work", f"{work(plan.macs)}, {counted(len(plan.steps), 'layer')}"),
        (
            "memory",
            f"about {plan.arena_bytes} bytes of textures, {plan.weight_bytes} bytes of weights",
        ),
    ]
    return manual(rows, plan, info.notes)
