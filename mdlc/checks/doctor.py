"""Everything that keeps a model from being compiled, at once, and the smallest model of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

import mdlc
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import candidates
from mdlc.codegen.plan.views import is_alias
from mdlc.codegen.target import Target
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.obstacles import Obstacle, Obstacles
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.onnx_inputs import open_inputs
from mdlc.compiler.onnx_load import describe, load_model, names_read, node_label
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.input import Input, graph_input
from mdlc.compiler.types import DType, TensorType
from mdlc.inputs.preprocess import preprocess
from mdlc.inputs.sources import read_model
from mdlc.options import CompileOptions
from mdlc.pipeline import optimise
from mdlc.recipe import completed

# Nodes of the smallest sub-model that one is looked for among.
MOST_NODES = 32
_DO = "export the model without it, or cut it before it"


@dataclass(frozen=True)
class Finding:
    """An obstacle, told.

    Attributes:
        kind: "operator", "parameter" (computed at run time), "type", "form" (attributes or
            shapes that are not supported), "dimension" (open), "kernel" (of the target) or
            "model".
        where: the node, input or output.
        reason: what is wrong. cause: what in the model makes it so. hint: what to do.
        sample: the smallest model that shows it; None where there is none.
    """

    kind: str
    where: str
    reason: str
    cause: str
    hint: str
    sample: onnx.ModelProto | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What stands in the way.

    Attributes:
        findings: in the order of the model.
        unseen: nodes that could not be looked at, behind obstacles.
        assumed: shapes of open inputs that were gone on with, as for --shape.
    """

    findings: tuple[Finding, ...]
    unseen: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


def diagnose(path: Path, options: CompileOptions, *, samples: bool = False) -> Diagnosis:
    """Looks at every node of a model instead of stopping at the first obstacle.

    The importer, the passes and the kernels' choice say what they say when they compile; there is
    no list of what is supported beside them.

    Args:
        samples: also make the smallest models.

    Raises:
        MdlcError: an option is bad.
    """
    target = options.found_targets()[0]
    try:
        source = read_model(path)
        asked = completed(options, source.onnx)
        model, _ = load_model(source.path or source.onnx)
    except MdlcError as error:
        return Diagnosis((_told("model", error, ""),))
    shapes = asked.sizes[0]  # what stands in the way at one size does at all
    fixed, bounds = asked.fixed, asked.bounds
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    findings: list[Finding] = []
    assumed = []
    for name, told, shape in open_inputs(inputs, shapes):
        dims = ",".join(map(str, shape))
        sample = _identity(model, name) if samples else None
        findings.append(
            replace(_told("dimension", told, "the model leaves it to run time"), sample=sample)
        )
        shapes[name] = shape
        assumed.append(f"{name}={dims}")
    types = _types(model, shapes)
    obstacles = Obstacles(types)
    try:
        graph = import_model(
            source.path or source.onnx,
            shapes=shapes,
            fixed=fixed,
            bounds=bounds,
            obstacles=obstacles,
        )
    except MdlcError as error:
        return Diagnosis((*findings, _told("model", error, "")), (), tuple(assumed))
    for obstacle in obstacles.found:
        sample = _smallest(model, obstacle, types) if samples else None
        findings.append(_obstacle(model, obstacle, sample))
    findings += _behind(model, graph, asked, target, types, samples)
    if not findings:
        try:
            mdlc.compile(path, options)
        except MdlcError as error:
            findings.append(_told("model", error, ""))
    return Diagnosis(tuple(findings), tuple(obstacles.unseen), tuple(assumed))


def _told(kind: str, error: MdlcError, cause: str) -> Finding:
    return Finding(kind, error.node or "", error.reason, cause, error.hint or "")


def _obstacle(
    model: onnx.ModelProto, obstacle: Obstacle, sample: onnx.ModelProto | None
) -> Finding:
    error = obstacle.error
    found = _told(_kind(model, obstacle), error, _reads(obstacle))
    if obstacle.proto is None:
        return found
    if not obstacle.known:
        domain = f" of {obstacle.proto.domain}" if obstacle.proto.domain else ""
        reason = f"operator {obstacle.proto.op_type}{domain} is not supported"
        return replace(found, where=describe(obstacle.proto), reason=reason, sample=sample)
    where = found.where if found.where.startswith("node ") else describe(obstacle.proto)
    return replace(found, where=where, hint=found.hint or _DO, sample=sample)


def _kind(model: onnx.ModelProto, obstacle: Obstacle) -> str:
    if obstacle.proto is None:
        return "model"
    if not obstacle.known:
        return "operator"
    if obstacle.error.inputs:
        return "parameter"
    # Whether it is the elements' type: would it do in float32?
    proto, read = obstacle.proto, obstacle.read
    floats = {n: v for n, v in read.items() if v.type.dtype.is_float and v.type.dtype != DType.F32}
    if floats and _imports(_model_of([proto], read, {}, model, frozenset(floats))):
        return "type"
    return "form"


def _imports(model: onnx.ModelProto) -> bool:
    try:
        import_model(model)
    except MdlcError:
        return False
    return True


def _reads(obstacle: Obstacle) -> str:
    """What the node reads, of which types, and what that comes from."""
    inputs = obstacle.error.inputs
    shown = []
    for name, value in obstacle.read.items():
        if value.constant is not None:
            origin = "a constant"
        elif isinstance(value.op, Input):
            origin = "an input" if value.name == name else "not imported"
        else:
            origin = f"computed by {value.origin!r}" if value.origin else "computed"
        shown.append(f"{name!r} {value.type} ({origin})")
    text = f"it reads {', '.join(shown)}" if shown else "it reads nothing"
    if inputs:
        text += f"; that follows from {', '.join(repr(name) for name in inputs)}"
    return text


def _behind(
    model: onnx.ModelProto,
    graph: Graph,
    asked: CompileOptions,
    target: Target,
    types: Mapping[str, TensorType],
    samples: bool,
) -> list[Finding]:
    """What passes and kernels of the target find in what was imported."""
    if not graph.outputs:
        return []
    try:
        lowered = optimise(preprocess(graph, asked.preprocess))
    except MdlcError as error:
        return [_told("form", error, "")]
    if not isinstance(target.backend, Isa):
        try:
            target.lower(lowered, target.backend, "Model")
        except MdlcError as error:  # it names all layers that it lacks
            return [_told("kernel", error, "")]
        return []
    labels = {node_label(proto): proto for proto in model.graph.node}
    found = []
    for node in lowered.order():
        if isinstance(node.op, Input) or node.constant is not None or is_alias(node):
            continue
        try:
            candidates(node, target.backend)
        except MdlcError as error:
            proto = labels.get(node.origin)
            where = describe(proto) if proto is not None else f"node {node.name!r}"
            operands = ", ".join(str(source.type) for source in node.inputs)
            cause = f"it became {type(node.op).__name__} of {operands}"
            hint = error.hint or f"choose another target, or {_DO}"
            sample = None
            if samples and proto is not None:
                values = {name: _input(name, kind) for name, kind in types.items()}
                sample = _model_of([proto], values | _constants(model), types, model)
            told = Finding("kernel", where, error.reason, cause, hint, sample)
            if told not in found:
                found.append(told)
    return found


def _input(name: str, kind: TensorType) -> Node:
    return graph_input(name, kind.shape, kind.dtype)


def _constants(model: onnx.ModelProto) -> dict[str, Node]:
    return {
        tensor.name: constant(onnx.numpy_helper.to_array(tensor), tensor.name)
        for tensor in model.graph.initializer
    }


def _types(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, TensorType]:
    """Types of tensors by ONNX's own shape inference, with the inputs' shapes fixed."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        kind = value.type.tensor_type
        given = shapes.get(value.name)
        if given is None and kind.HasField("shape"):
            given = [d.dim_value or 1 for d in kind.shape.dim]
        if given is not None:
            kind.shape.Clear()
            for size in given:
                kind.shape.dim.add(dim_value=size)
    try:
        fixed = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    except Exception:  # whatever it makes of damaged models: the shapes that are given remain
        fixed = model
    found = {}
    for value in (*fixed.graph.input, *fixed.graph.value_info, *fixed.graph.output):
        kind = value.type.tensor_type
        sizes = [d.dim_value for d in kind.shape.dim]
        if kind.elem_type and kind.HasField("shape") and all(size > 0 for size in sizes):
            try:
                dtype = DType.from_numpy(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
            except (KeyError, TypeError, ValueError):
                continue
            found[value.name] = TensorType(tuple(sizes), dtype)
    return found


def _smallest(
    model: onnx.ModelProto, obstacle: Obstacle, types: Mapping[str, TensorType]
) -> onnx.ModelProto | None:
    """The smallest model that has the same obstacle: the node, or with what it is computed from."""
    if obstacle.proto is None:
        return None
    nodes = [obstacle.proto]
    made = {name: proto for proto in model.graph.node for name in proto.output if name}
    while len(nodes) <= MOST_NODES:
        sample = _model_of(nodes, dict(obstacle.values), types, model)
        if _shows(sample, obstacle):
            return sample
        own = {name for proto in nodes for name in proto.output}
        before = [
            made[name] for proto in nodes for name in proto.input
            if name in made and name not in own
        ]  # fmt: skip
        if not before:
            return None
        nodes = [before[0], *nodes]
    return None


def _shows(sample: onnx.ModelProto, obstacle: Obstacle) -> bool:
    """Whether a model has the obstacle of a node."""
    found = Obstacles()
    try:
        import_model(sample, obstacles=found)
    except MdlcError:
        return False
    assert obstacle.proto is not None
    same = [o for o in found.found if o.proto is not None]
    return any(o.proto.op_type == obstacle.proto.op_type for o in same if o.proto is not None)


def _model_of(
    nodes: Sequence[onnx.NodeProto],
    values: Mapping[str, object],
    types: Mapping[str, TensorType],
    model: onnx.ModelProto | None = None,
    as_float: frozenset[str] = frozenset(),
) -> onnx.ModelProto:
    """A model of some nodes, what they read being constants or inputs.

    Args:
        values: tensors as imported, by name. model: where the operator sets come from.
        as_float: names of tensors that are given as float32.
    """
    graph = onnx.GraphProto(name="sample")
    own = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in _read(node) if name not in own)
    for name in read:
        value = values.get(name)
        if not isinstance(value, Node):
            continue
        if value.constant is not None:
            array = value.constant.astype(np.float32) if name in as_float else value.constant
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        else:
            dtype = DType.F32 if name in as_float else value.type.dtype
            graph.input.append(_declared(name, value.type.with_dtype(dtype)))
    used = {name for node in nodes for name in _read(node)}
    for node in nodes:
        graph.node.append(node)
        for name in node.output:
            if name and name not in used:
                graph.output.append(_declared(name, types.get(name)))
    opsets = list(model.opset_import) if model else [onnx.helper.make_opsetid("", 20)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _read(node: onnx.NodeProto) -> list[str]:
    return [*dict.fromkeys(filter(None, node.input)), *sorted(names_read(node) - set(node.input))]


def _declared(name: str, kind: TensorType | None) -> onnx.ValueInfoProto:
    if kind is None:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    elements = onnx.helper.np_dtype_to_tensor_dtype(kind.dtype.numpy)
    return onnx.helper.make_tensor_value_info(name, elements, kind.shape)


def _identity(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A model of an input alone."""
    value = next(each for each in model.graph.input if each.name == name)
    output = onnx.ValueInfoProto()
    output.CopyFrom(value)
    output.name = "output"
    node = onnx.helper.make_node("Identity", [name], ["output"])
    graph = onnx.helper.make_graph([node], "sample", [value], [output])
    return onnx.helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=10)
