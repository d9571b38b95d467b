"""Plan -> the files of a C++ class."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mdlc.codegen.answer.code import AnswerCode, Network
from mdlc.codegen.code import C_TYPES, Function
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
    string_literal,
)
from mdlc.codegen.cpp.embedded_weights import embedded_weights
from mdlc.codegen.cpp.format import format_cpp
from mdlc.codegen.cpp.functions import Functions, layer_function
from mdlc.codegen.cpp.kernels_file import kernels_files, source_files, using
from mdlc.codegen.cpp.layer_text import describe
from mdlc.codegen.cpp.row_fusion import chain_code
from mdlc.codegen.cpp.weights_decoder import weights_decoder
from mdlc.codegen.frame.spec import LONGEST_SIDE
from mdlc.codegen.frame.text import declarations, summary
from mdlc.codegen.isa.cpu_features import features_of
from mdlc.codegen.kernel import SCRATCH, View
from mdlc.codegen.plan import weights_file
from mdlc.codegen.plan.arena import lower_bound
from mdlc.codegen.plan.plan import ALIGNMENT, CLASS_MEMBERS, SOURCE_NAMES, Plan, Port
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
    fields: tuple[str, ...]
    public: bool


@dataclass(frozen=True)
class Contents:
    """What `infer` does in one variant of the class.

    Attributes:
        plan: the variant. name: of the member function.
        arena: where its tensors lie, by the constants of `offsets`.
        calls: the layers and groups of them, in order. keep: lines that make the next states.
        groups: the member functions among those called, as (name, comment).
    """

    plan: Plan
    name: str
    arena: _Arena
    offsets: list[dict[str, object]]
    calls: list[dict[str, object]]
    keep: list[str]
    groups: list[dict[str, str]]
    codes: list[Function]


@dataclass(frozen=True)
class Struct:
    """A type of layers: its pointers, as (C++ type, name)."""

    name: str
    fields: tuple[tuple[str, str], ...]


def emit(
    plan: Plan, info: Info, *, embed_weights: bool = False, instrument: bool = False
) -> dict[str, bytes]:
    """File names and contents: header, sources, weights, manifest, example and build file.

    Args:
        embed_weights: put the weights into the source instead of a file; Init takes nullptr.
        instrument: call `trace` when the inputs are there and after every layer (for verify and
            bench; never shipped).
    """
    structs, members = _members(plan)
    types = {member.name: f"{plan.name}::{member.struct}" for member in members}
    # A member of the class hides a function of the same name, so none gets the name of one.
    opening = using(plan.name, plan.isa)
    functions = Functions(CLASS_MEMBERS | SOURCE_NAMES | types.keys(), opening)
    contents = [_contents(variant, types, functions) for variant in plan.variants]
    weights = weights_file.weights_file(plan)
    answer = answer_code(plan)
    context = {
        "plan": plan,
        "info": info,
        "name": plan.name,
        "structs": structs,
        "members": members,
        "contents": contents,
        "mat_types": MAT_TYPES,
        "every_mat_type": mat_types_of(plan),
        "embed": embed_weights,
        "instrument": instrument,
        "weights": weights,
        "features": features_of(plan.isa.toolchain.cpu_flags),
        "answer": answer,
        "labels": [string_literal(label) for label in plan.answer.labels] if plan.answer else [],
        "frame": _frame_text(plan, contents[0].arena),
        "longest_side": LONGEST_SIDE,
    }
    header = format_cpp(
        render(
            "cpp/header.h.j2",
            **context,
            manual=_manual(plan, info, embed_weights),
            example=example(plan, "nullptr" if embed_weights else f'"{plan.name}.weights"', answer),
            comment=comment,
        ),
        reflow=False,
    )
    source = render(
        "cpp/source.cpp.j2",
        **context,
        member_functions=functions.members,
        picture=[str(length) for length in reversed(picture_size(plan))],
        includes=sorted({"cstring", "new"} | (answer.includes if answer else set())),
        opening=opening,
        threads=plan.threads,
        pointers=_pointers(plan),
        header_bytes=weights_file.HEADER_BYTES,
        format_version=weights_file.version(plan),
        decoder=weights_decoder(plan) if plan.encoded else "",
        payload_bytes="kPayloadBytes" if plan.encoded else f"{plan.name}::kWeightBytes",
        payload_bytes_number=len(weights) - weights_file.HEADER_BYTES,
        digest=bytes_literal(plan.digest()[:16]),
        target=plan.isa.name,
        alignment=ALIGNMENT,
        stacked=stacked,
        c_types=C_TYPES,
    )
    codes = [code for each in contents for code in each.codes]
    embedded = (f"{plan.name}_weights.cpp",) if embed_weights else ()
    context["sources"] = (*source_files(plan), *embedded)
    files = {
        f"{plan.name}.h": header.encode(),
        f"{plan.name}.cpp": format_cpp(source).encode(),
        **kernels_files(plan, info.version, codes, functions),
        "main.cpp": format_cpp(render("cpp/main.cpp.j2", **context, c_types=C_TYPES)).encode(),
        "CMakeLists.txt": render("cpp/CMakeLists.txt.j2", **context).encode(),
    }
    if embed_weights:
        files[f"{plan.name}_weights.cpp"] = embedded_weights(plan.name, weights)
    else:
        files[f"{plan.name}.weights"] = weights
    files[f"{plan.name}.json"] = manifest(plan, info, files)
    return files


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


def _contents(plan: Plan, types: Mapping[str, str], functions: Functions) -> Contents:
    """A variant's part of the class, its functions being added to those of the file."""
    units, arena = plan.units(), _Arena(plan)
    codes = [_code(plan, arena, unit, types) for unit in units]
    shared = [_threads(plan, unit) > 1 for unit in units]
    names = [functions.add(code, shared=each) for code, each in zip(codes, shared, strict=True)]
    calls: list[dict[str, object]] = [
        {
            "layers": unit,
            "text": _call(plan, arena, unit, name, code, shared=each and code.parallel),
        }
        for unit, name, code, each in zip(units, names, codes, shared, strict=True)
    ]
    groups = [
        {"name": name, "comment": " ".join(code.comment)}
        for name, code in zip(names, codes, strict=True)
        if code.owner
    ]
    name = f"infer_{plan.variant}" if plan.variant else "infer"
    return Contents(
        plan, name, arena, _offsets(plan, arena), calls, _keep_states(plan, arena), groups, codes
    )


def manifest(plan: Plan, info: Info, files: Mapping[str, bytes]) -> bytes:
    """The manifest: what was made from what, as JSON."""
    content = {
        "format": 1,
        "class": plan.name,
        "mdlc": info.version,
        "target": plan.isa.name,
        "model": {"file": info.model, "sha256": info.sha256},
        "inputs": [port_entry(port) for port in plan.inputs],
        "outputs": [port_entry(port) for port in plan.outputs],
        **({"sizes": [_size_entry(variant) for variant in plan.variants]} if plan.also else {}),
        **({"states": [state_entry(state) for state in plan.states]} if plan.states else {}),
        "threads": plan.threads,
        "layers": len(plan.steps),
        "macs": plan.macs,
        "arena_bytes": plan.working_bytes,
        "arena_lower_bound": lower_bound(plan.buffers),
        "weight_bytes": plan.weight_bytes,
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


def _frame_text(plan: Plan, arena: _Arena) -> dict[str, str] | None:
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


# Below about this many cycles, waking a thread costs more than it saves.
_WORTH_SHARING = 20_000


def _code(plan: Plan, arena: _Arena, unit: Sequence[int], types: Mapping[str, str]) -> Function:
    """The function of a step, or of a chain of them; types: of the layers."""
    chain = plan.chain_of(unit[0])
    if chain is not None:
        code = chain_code(plan, chain, types, arena.at)
        return replace(code, name=f"{code.name}_{plan.variant}") if plan.variant else code
    step = plan.steps[unit[0]]
    return replace(layer_function(step, plan.isa), struct=types[step.name])


def _threads(plan: Plan, unit: Sequence[int]) -> int:
    """Threads that share the loops of a step or a chain."""
    chain = plan.chain_of(unit[0])
    if chain is not None:
        return chain.strips
    return plan.threads if plan.steps[unit[0]].cycles(plan.isa) > _WORTH_SHARING else 1


def dims(view: View) -> tuple[int, int, int]:
    """Height, width and channels of a tensor, the rest stacked on the height."""
    return Port("", "", view).dims


def _members(plan: Plan) -> tuple[list[Struct], list[Member]]:
    structs: dict[tuple[str, tuple[tuple[str, str], ...]], Struct] = {}
    members = []
    last = plan.steps[-1] if plan.steps else None
    numbers = {step.name: number for number, step in enumerate(plan.steps)}
    for step in plan.layers:
        fields = tuple(
            (C_TYPES[DType.from_numpy(array.dtype)], name) for name, array in step.weights.items()
        )
        key = step.kernel.layer, fields
        if key not in structs:
            same = sum(layer == key[0] for layer, _ in structs)
            structs[key] = Struct(key[0] + (str(same + 1) if same else ""), fields)
        first = step.inputs[0] if step.inputs else step.output
        shapes = ", ".join(_braces(dims(view)) for view in (first, step.output))
        number = numbers.get(step.name)
        names = tuple(name for _, name in fields)
        banded = "" if number is None else plan.bands(number)
        comment = describe(step) + (f" {banded[0].upper()}{banded[1:]}." if banded else "")
        members.append(Member(step.name, structs[key].name, shapes, comment, names, step is last))
    return list(structs.values()), members


def _braces(values: Sequence[int]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"


def _manual(plan: Plan, info: Info, embed: bool) -> list[str]:
    """The table at the top of the header."""
    rows = [
        ("model", info.model),
        ("SHA-256", info.sha256),
        ("command", info.command),
        ("target", f"{plan.isa.name} ({plan.isa.description})"),
        ("work", f"{work(plan.macs)}, {counted(len(plan.steps), 'layer')}"),
        *([("precision", _precision_line(plan))] if plan.precision != "fp32" else []),
        *([("threads", f"1 to {plan.threads}")] if plan.threads > 1 else []),
        (
            "memory",
            f"{counted(plan.working_bytes, 'byte')} of working memory, "
            f"{counted(plan.weight_bytes, 'byte')} of weights{' (embedded)' if embed else ''}",
        ),
        *([("stored", _stored(plan))] if plan.encoded else []),
    ]
    return manual(rows, plan, info.notes)


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


def _constant(name: str) -> str:
    """conv2_1_dw gives kConv2_1Dw: numbers stay apart."""
    parts = [part for part in re.split(r"_+", name) if part]
    joined = "".join(f"_{part}" if part[0].isdigit() else part.capitalize() for part in parts)
    return f"k{joined.removeprefix('_')}"


def _offsets(plan: Plan, arena: _Arena) -> list[dict[str, object]]:
    """The arena's buffers as constants."""
    found = []
    last = len(plan.steps)
    for name, buffer in zip(arena.names, plan.buffers, strict=True):
        first_step, last_step = (
            "input" if at < 0 else "output" if at >= last else plan.steps[at].name
            for at in (buffer.first, buffer.last)
        )
        found.append(
            {
                "name": name,
                "offset": buffer.offset,
                "nbytes": buffer.nbytes,
                "live": f"{first_step} .. {last_step}",
            }
        )
    return found


class _Arena:
    """The arena's buffers by the names of their constants, found once for a plan.

    Attributes:
        names: of the constants. space: their namespace, where the class has several variants.
    """

    def __init__(self, plan: Plan) -> None:
        self.space = f"at_{plan.variant}" if plan.variant else ""
        self.names: list[str] = []
        # Inside the class, a member of that name would be meant and not the constant.
        taken = {*CLASS_MEMBERS, *SOURCE_NAMES, *(step.name for step in plan.steps)}
        for buffer in plan.buffers:
            wanted = _constant(buffer.name)
            name, number = wanted, 1
            while name in taken:
                number += 1
                name = f"{wanted}V{number}"
            self.names.append(name)
            taken.add(name)

    def at(self, view: View, kind: str = "") -> str:
        """A pointer to a view, of its element type or another one."""
        name = f"{self.space}::" * bool(self.space) + self.names[view.buffer]
        extra = f" + {view.offset}" if view.offset else ""
        return f"At<{kind or C_TYPES[view.type.dtype]}>({name}{extra})"


def _call(
    plan: Plan, arena: _Arena, unit: Sequence[int], name: str, code: Function, *, shared: bool
) -> str:
    """The line of `infer` that computes a layer or a group of them."""
    if code.owner:
        return f"{name}();"
    step = plan.steps[unit[0]]
    views = [*step.inputs, step.output]
    words = [step.name, *(arena.at(view) for view in views)]
    if SCRATCH in code.parameters:
        assert step.scratch is not None
        words.append(arena.at(step.scratch, "unsigned char"))
    words += ["*workers_"] if shared else []
    return f"{name}({', '.join(words)});"


def _keep_states(plan: Plan, arena: _Arena) -> list[str]:
    """The lines at the end of `infer` that make states of the next inference."""

    def copy(target: View, source: View) -> str:
        to, come = (arena.at(view, "unsigned char") for view in (target, source))
        return f"std::memcpy({to}, {come}, {target.type.nbytes});"

    first = [copy(state.staged, state.made) for state in plan.states if state.staged]
    return first + [
        copy(state.view, state.staged or state.made)
        for state in plan.states
        if state.view != state.made
    ]


def _pointers(plan: Plan) -> list[tuple[str, str, int]]:
    """For every packed array: the member's field, its C++ type and offset in the payload."""
    types = {
        (step.name, name): C_TYPES[DType.from_numpy(array.dtype)]
        for step in plan.layers
        for name, array in step.weights.items()
    }
    return [
        (f"{blob.step}.{blob.field}", types[blob.step, blob.field], blob.offset)
        for blob in plan.blobs()
    ]
