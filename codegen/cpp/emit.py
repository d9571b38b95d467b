"""Plan -> the files of a C++ class."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mdlc.codegen.answer.code import AnswerCode, Network
from mdlc.codegen.code import C_TYPES, string_literal
from mdlc.codegen.cpp.arena_text import Arena
from mdlc.codegen.cpp.c_interface import c_interface
from mdlc.codegen.cpp.class_text import (
    MAT_TYPES,
    bytes_literal,
    comment,
    example,
    file_entries,
    manual,
    mat_types_of,
    port_entry,
    stacked,
    state_entry,
)
from mdlc.codegen.cpp.embedded_weights import embedded_weights
from mdlc.codegen.cpp.errors import errors_of
from mdlc.codegen.cpp.format import format_cpp
from mdlc.codegen.cpp.kernels_file import kernels_file, source_files
from mdlc.codegen.cpp.layer_text import describe
from mdlc.codegen.cpp.repack_text import repack_text
from mdlc.codegen.cpp.variant import variants_of
from mdlc.codegen.cpp.weights_decoder import weights_decoder
from mdlc.codegen.frame.text import declarations, summary
from mdlc.codegen.isa.cpu_features import features_of
from mdlc.codegen.kernel import Step, View
from mdlc.codegen.plan import weights_file
from mdlc.codegen.plan.arena import lower_bound
from mdlc.codegen.plan.plan import ALIGNMENT, Plan, Port
from mdlc.codegen.templates import render
from mdlc.compiler.types import DType
from mdlc.compiler.words import counted, work


@dataclass(frozen=True)
class Info:
    """What the emitted files say of where they come from.

    Attributes:
        model: file name of the model; sha256: digest of its bytes, hexadecimal.
        command: the command line that made it; version: of mdlc.
        notes: lines on the expected input and on outputs, by name.
    """

    model: str
    sha256: str
    command: str
    version: str
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Member:
    """A layer as a member of the class."""

    name: str
    struct: str
    shapes: str
    comment: str
    public: bool


@dataclass(frozen=True)
class Struct:
    """A type of layers; arrays: the packed arrays that it points to, as (C++ type, name)."""

    name: str
    arrays: tuple[tuple[str, str], ...]

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """The pointers; where variants have an array in several types, each has its own."""
        found: list[tuple[str, str]] = []
        for kind, name in self.arrays:
            taken = any(name == other for _, other in found)
            short = kind.removeprefix("std::").removesuffix("_t")
            found.append((kind, f"{name}_{short}" if taken else name))
        return tuple(found)


def emit(
    plan: Plan,
    info: Info,
    *,
    embed_weights: bool = False,
    c_api: bool = False,
    profile: bool = False,
    instrument: bool = False,
    others: Sequence[Plan] = (),
    placed: weights_file.Placed | None = None,
) -> dict[str, bytes]:
    """File names and contents: header, sources, weights, manifest, example and build file.

    Args:
        embed_weights: put the weights into the source instead of a file; Init takes nullptr.
        c_api: add the class for C.
        profile: call `trace` as `instrument` does, and name the layers.
        instrument: call `trace` when the inputs are there and after every layer (for verify and
            bench; never shipped).
        others: plans of the same network for other instruction sets, among which Init chooses.
        placed: where their packed arrays lie, if that is known.
    """
    plans = (plan, *others)
    structs, members = _members(plans)
    types = {member.name: f"{plan.name}::{member.struct}" for member in members}
    variants = variants_of(plans, types, _renamed(plan.name, structs))
    placed = placed or weights_file.placed(plans)
    weights = weights_file.weights_file(plans, placed)
    repack = repack_text(variants, placed)
    several = len(plans) > 1
    features = {name for each in plans for name in each.isa.toolchain.cpu_flags}
    answer = answer_code(plan)
    element = _largest_element(plans)
    errors = errors_of(plan, several)
    copies = placed.nbytes and not embed_weights and element > 1
    context = {
        "plan": plan,
        "info": info,
        "name": plan.name,
        "several": several,
        "variants": [variant for variant in variants if variant.runs == variant.number],
        "structs": structs,
        "members": members,
        "mat_types": MAT_TYPES,
        "every_mat_type": mat_types_of(plan),
        "embed": embed_weights,
        "instrument": instrument or profile,
        "traced": [string_literal(step.name.encode()) for step in plan.steps] if profile else [],
        "weights": weights,
        "features": features_of(features),
        "anywhere": placed.nbytes and any(not each.isa.toolchain.guard for each in plans),
        "arena_bytes": max(each.working_bytes for each in plans),
        "weight_bytes": placed.nbytes,
        "weights_alignment": element,
        "held": "decoded_" if plan.encoded else "copied_" if copies else "",
        "init_options": not embed_weights or plan.threads > 1 or several,
        "repack": repack,
        "answer": answer,
        "labels": [string_literal(label.encode()) for label in plan.answer.labels]
        if plan.answer
        else [],
        "frame": _frame_text(plan, variants[0].sizes[0].arena),
        "errors": errors,
    }
    header = format_cpp(
        render(
            "cpp/header.h.j2",
            **context,
            manual=_manual(plans, info, placed, embed_weights),
            example=example(plan, "nullptr" if embed_weights else f'"{plan.name}.weights"', answer),
            comment=comment,
        ),
        reflow=False,
    )
    source = render(
        "cpp/source.cpp.j2",
        **context,
        picture=[str(length) for length in reversed(picture_size(plan))],
        includes=sorted(
            {"cstring", "new"}
            | (set() if embed_weights else {"cstdio"})
            | (answer.includes if answer else set())
        ),
        ranked=sorted(variants, key=lambda variant: (variant.cycles, variant.number)),
        needs=lambda variant: features_of(variant.isa.toolchain.cpu_flags),
        threads=plan.threads,
        pointers=[
            _pointers(each, number, placed, structs, members) for number, each in enumerate(plans)
        ],
        header_bytes=weights_file.HEADER_BYTES,
        format_version=weights_file.version(plan),
        decoder=weights_decoder(plan) if plan.encoded else "",
        payload_bytes="kPayloadBytes" if plan.encoded else f"{plan.name}::kWeightBytes",
        payload_bytes_number=len(weights) - weights_file.HEADER_BYTES,
        digest=bytes_literal(weights_file.digest(plans, placed)),
        target=plan.isa.name,
        alignment=ALIGNMENT,
        stacked=stacked,
        c_types=C_TYPES,
    )
    embedded = (f"{plan.name}_weights.cpp",) if embed_weights else ()
    interface = (f"{plan.name}_c.cpp",) if c_api else ()
    context["sources"] = (*source_files(*plans), *embedded, *interface)
    internal = render(
        "cpp/internal.h.j2", **context, threads=plan.threads, frames=plan.frame_port is not None
    )
    files = {
        f"{plan.name}.h": header.encode(),
        f"{plan.name}.cpp": format_cpp(source).encode(),
        f"{plan.name}_internal.h": format_cpp(internal).encode(),
        **{
            name: kernels_file(each.plan, info.version, each.functions, each.condition)
            for name, each in zip(source_files(*plans)[1:], variants, strict=True)
        },
        "main.cpp": format_cpp(render("cpp/main.cpp.j2", **context, c_types=C_TYPES)).encode(),
        "CMakeLists.txt": render("cpp/CMakeLists.txt.j2", **context).encode(),
    }
    if c_api:
        files |= c_interface(plan, context, errors, mat_types_of(plan))
    if embed_weights:
        files[f"{plan.name}_weights.cpp"] = embedded_weights(plan.name, weights)
    else:
        files[f"{plan.name}.weights"] = weights
    files[f"{plan.name}.json"] = manifest(plans, info, files, placed)
    return files


def functions_of_layers(plans: Sequence[Plan]) -> dict[str, tuple[str, ...]]:
    """The functions that `infer` calls, by their names in the text, and the layers of each.

    Args:
        plans: of a class, one for each instruction set.
    """
    structs, members = _members(plans)
    types = {member.name: f"{plans[0].name}::{member.struct}" for member in members}
    found: dict[str, dict[str, None]] = {}
    for variant in variants_of(plans, types, _renamed(plans[0].name, structs)):
        for contents in variant.sizes:
            for line in contents.lines:
                name = line.function.rpartition("::")[2]
                layers = found.setdefault(name, {})
                layers |= dict.fromkeys(contents.plan.steps[i].name for i in line.layers)
    return {name: tuple(layers) for name, layers in found.items()}


def answer_code(plan: Plan) -> AnswerCode | None:
    """What the class answers with; None where it gives tensors alone.

    Raises:
        MdlcError: the description does not fit the network.
    """
    if plan.answer is None:
        return None
    height, width = picture_size(plan)
    outputs = {port.name: port for port in plan.outputs}
    return plan.answer.code(Network(plan.name, outputs, height, width))


def picture_size(plan: Plan) -> tuple[int, int]:
    """Height and width of the picture that the network sees; 1 and 1 where it sees none."""
    for port in plan.inputs:
        shape = port.type.shape
        if len(shape) == 4:
            channels_last = shape[3] <= 4 and shape[1] > 4
            return (shape[1], shape[2]) if channels_last else (shape[2], shape[3])
    return 1, 1


def manifest(
    plans: Sequence[Plan],
    info: Info,
    files: Mapping[str, bytes],
    placed: weights_file.Placed,
) -> bytes:
    """The manifest: what was made from what, as JSON."""
    plan, *others = plans
    content = {
        "format": 1,
        "class": plan.name,
        "mdlc": info.version,
        "target": plan.isa.name,
        **({"sizes": [_size_entry(variant) for variant in plan.sizes]} if plan.also else {}),
        **({"targets": [_target_entry(each) for each in (plan, *others)]} if others else {}),
        "model": {"file": info.model, "sha256": info.sha256},
        "inputs": [port_entry(port) for port in plan.inputs],
        "outputs": [port_entry(port) for port in plan.outputs],
        **({"states": [state_entry(state) for state in plan.states]} if plan.states else {}),
        "threads": plan.threads,
        "layers": len(plan.steps),
        "macs": plan.macs,
        "arena_bytes": max(each.working_bytes for each in (plan, *others)),
        "arena_lower_bound": max(lower_bound(each.buffers) for each in (plan, *others)),
        "weight_bytes": placed.nbytes,
        **({"precision": _precision(plan)} if plan.precision != "fp32" else {}),
        **({"weights": _encodings(plan)} if plan.encoded else {}),
        "files": file_entries(files),
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def _size_entry(plan: Plan) -> dict[str, object]:
    """A variant in the manifest: the shapes of what it takes and gives."""
    return {
        "inputs": {port.name: list(port.type.shape) for port in plan.inputs},
        "outputs": {port.name: list(port.type.shape) for port in plan.outputs},
        "macs": plan.macs,
        "arena_bytes": plan.arena_bytes,
    }


def _target_entry(plan: Plan) -> dict[str, object]:
    """A variant in the manifest."""
    return {
        "name": plan.isa.name,
        "layers": len(plan.steps),
        "arena_bytes": plan.arena_bytes,
        "weight_bytes": plan.weight_bytes,
    }


def _precision(plan: Plan) -> dict[str, object]:
    """What was asked for, the layers that compute in it, and those that could but do not."""
    return {
        "asked": plan.precision,
        "half_layers": [step.name for step in plan.half_steps],
        "kept_float": dict(plan.kept_float),
    }


def _encodings(plan: Plan) -> dict[str, object]:
    """Bytes of the weights file, and for each encoded layer its encoding, bytes and error."""
    return {
        "file_bytes": weights_file.HEADER_BYTES + weights_file.payload_of(plan).nbytes,
        "layers": {
            name: {
                "encoding": str(weights.encoding),
                "bytes": len(weights.data),
                "relative_error": float(f"{weights.error:.4g}"),
            }
            for name, weights in plan.encoded.items()
        },
    }


def _frame_text(plan: Plan, arena: Arena) -> dict[str, str] | None:
    """What the class declares and does for camera frames, and where it does it."""
    port, frame = plan.frame_port, plan.frame
    if port is None or frame is None or frame.scratch is None:
        return None
    height, width, _ = port.dims
    return {
        "port": port.identifier,
        "summary": summary(frame.spec),
        "declarations": declarations(height, width),
        "memory": arena.at(frame.scratch, "unsigned char"),
        "input": arena.at(port.view),
    }


def dims(view: View) -> tuple[int, int, int]:
    """Height, width and channels of a tensor, the rest stacked on the height."""
    return Port("", "", view).dims


def _members(plans: Sequence[Plan]) -> tuple[list[Struct], list[Member]]:
    """The types of layers, and the layers of all plans by name, in order."""
    steps: dict[str, tuple[int | None, Step]] = {}
    arrays: dict[str, dict[tuple[str, str], None]] = {}
    for plan in plans:
        numbers = {step.name: number for number, step in enumerate(plan.steps)}
        for step in plan.layers:
            steps.setdefault(step.name, (numbers.get(step.name), step))
            own = arrays.setdefault(step.name, {})
            for name, array in step.weights.items():
                own[C_TYPES[DType.from_numpy(array.dtype)], name] = None
    structs: dict[tuple[str, tuple[tuple[str, str], ...]], Struct] = {}
    members = []
    last = plans[0].steps[-1] if plans[0].steps else None
    for number, step in steps.values():
        fields = tuple(arrays[step.name])
        key = step.kernel.layer, fields
        if key not in structs:
            same = sum(layer == key[0] for layer, _ in structs)
            structs[key] = Struct(key[0] + (str(same + 1) if same else ""), fields)
        first = step.inputs[0] if step.inputs else step.output
        shapes = ", ".join(_braces(dims(view)) for view in (first, step.output))
        banded = "" if number is None or len(plans) > 1 else plans[0].bands(number)
        comment = describe(step, with_kernel=len(plans) == 1)
        comment += f" {banded[0].upper()}{banded[1:]}." if banded else ""
        members.append(Member(step.name, structs[key].name, shapes, comment, step is last))
    return list(structs.values()), members


def _renamed(name: str, structs: Sequence[Struct]) -> dict[tuple[str, str, str], str]:
    """Members of layers that do not have the name of the packed array: see variants_of."""
    return {
        (f"{name}::{struct.name}", f"const {kind}*", array): member
        for struct in structs
        for (kind, member), (_, array) in zip(struct.fields, struct.arrays, strict=True)
        if member != array
    }


def _largest_element(plans: Sequence[Plan]) -> int:
    """Bytes of the largest element of packed arrays, at multiples of which they may lie."""
    layers = (step for plan in plans for step in plan.layers)
    return max((a.dtype.itemsize for step in layers for a in step.weights.values()), default=1)


def _braces(values: Sequence[int]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"


def _manual(
    plans: Sequence[Plan], info: Info, placed: weights_file.Placed, embed: bool
) -> list[str]:
    """The table at the top of the header."""
    plan = plans[0]
    rows = [
        ("model", info.model),
        ("SHA-256", info.sha256),
        ("command", info.command),
        *(
            ("" if number else "target", f"{each.isa.name} ({each.isa.description})")
            for number, each in enumerate(plans)
        ),
        ("work", f"{work(plan.macs)}, {counted(len(plan.steps), 'layer')}"),
        *([("precision", _precision_line(plan))] if plan.precision != "fp32" else []),
        *([("threads", f"1 to {plan.threads}")] if plan.threads > 1 else []),
        (
            "memory",
            f"{counted(max(each.working_bytes for each in plans), 'byte')} of working memory, "
            f"{counted(placed.nbytes, 'byte')} of weights"
            f"{' (embedded)' if embed else ''}{_copied(placed)}",
        ),
        *([("stored", _stored(plan))] if plan.encoded else []),
    ]
    return manual(rows, plan, info.notes)


def _copied(placed: weights_file.Placed) -> str:
    """What Init copies of the weights, in a few words."""
    most = max(map(placed.copied_bytes, range(len(placed.copied))))
    return (
        f", of which Init copies up to {counted(most, 'byte')} into another order" if most else ""
    )


def _precision_line(plan: Plan) -> str:
    """The precision in a few words."""
    half = len(plan.half_steps)
    if not half:
        return f"weights {plan.precision}, arithmetic fp32"
    kept = f", {len(plan.kept_float)} kept in float" if plan.kept_float else ""
    return f"{half} of {len(plan.steps)} layers in half{kept}"


def _stored(plan: Plan) -> str:
    """How the weights are stored, in a few words."""
    counts = Counter(str(weights.encoding) for weights in plan.encoded.values())
    listed = ", ".join(f"{name} ({count})" for name, count in counts.most_common())
    nbytes = weights_file.HEADER_BYTES + weights_file.payload_of(plan).nbytes
    return f"{nbytes} bytes; layers by encoding: {listed}"


def _pointers(
    plan: Plan,
    number: int,
    placed: weights_file.Placed,
    structs: Sequence[Struct],
    members: Sequence[Member],
) -> list[tuple[str, str, str, int]]:
    """For every packed array: the member's field, its C++ type, and where it lies: in the weights
    of the file, or in those that are copied, by its offset."""
    found, copied = placed.offsets[number], placed.copied[number]
    by_name = {struct.name: struct for struct in structs}
    fields = {
        (member.name, *array): field
        for member in members
        for array, field in zip(
            by_name[member.struct].arrays, by_name[member.struct].fields, strict=True
        )
    }
    pointers = []
    for step in plan.layers:
        for name, array in step.weights.items():
            kind = C_TYPES[DType.from_numpy(array.dtype)]
            _, field = fields[step.name, kind, name]
            at = step.name, name
            place = ("repacked_", copied[at].target) if at in copied else ("weights", found[at])
            pointers.append((f"{step.name}.{field}", kind, *place))
    return pointers
