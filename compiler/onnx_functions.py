"""Functions: operators that are given in terms of others.

The specification has a body for many operators, fixed or made for a node and the types of its
inputs; those of ONNX Runtime's own domain are in onnx_microsoft.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import onnx

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_load import ONNX_DOMAINS, opset_of_imports
from mdlc.compiler.onnx_microsoft import DOMAIN, FUNCTIONS, microsoft_function
from mdlc.compiler.onnx_rename import renamed
from mdlc.compiler.types import DType

# Domains of the onnx package, and what its functions call them.
_SPECIFIED = {"": "", "ai.onnx": "", "ai.onnx.preview": "ai.onnx.preview"}


@dataclass(frozen=True)
class Body:
    """What stands for one node: nodes in terms of its inputs and outputs, in operator sets."""

    nodes: Sequence[onnx.NodeProto]
    opsets: Mapping[str, int]


def has_function(proto: onnx.NodeProto, opsets: Mapping[str, int]) -> bool:
    """Whether a node's operator is known as a function of others."""
    if is_microsoft(proto):
        return bool(proto.op_type in FUNCTIONS)
    schema = _schema(proto.op_type, proto.domain, opsets.get(proto.domain, 0))
    return schema is not None and bool(schema.all_function_opset_versions)


def is_microsoft(proto: onnx.NodeProto) -> bool:
    """Whether a node is of ONNX Runtime's own domain."""
    # ONNX Runtime's optimiser puts this one operator of its own into ONNX's domain.
    return bool(proto.domain == DOMAIN or proto.op_type == "SimplifiedLayerNormalization")


@cache
def _schema(op_type: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    if domain not in _SPECIFIED:
        return None
    try:
        return onnx.defs.get_schema(op_type, opset, _SPECIFIED[domain])
    except onnx.defs.SchemaError:
        return None


def function_body(
    proto: onnx.NodeProto, inputs: Sequence[Node | None], opsets: Mapping[str, int]
) -> Body | None:
    """The function that a node stands for; None where there is none for it.

    Args:
        inputs: imported inputs; None where one is absent.
        opsets: versions by domain.

    Raises:
        MdlcError: the node has a form of its operator that has no body.
    """
    given: dict[str, onnx.AttributeProto] = {}
    if is_microsoft(proto):
        found = microsoft_function(proto, inputs) if proto.op_type in FUNCTIONS else None
    else:
        schema = _schema(proto.op_type, proto.domain, opsets.get(proto.domain, 0))
        if schema is None:
            return None
        found = _specified(schema, proto, inputs, opsets)
        for name, attribute in schema.attributes.items():
            if attribute.default_value.name:
                given[name] = attribute.default_value
    if found is None:
        return None
    given.update({attribute.name: attribute for attribute in proto.attribute})
    names = dict.fromkeys(found.input, "")
    names.update(zip(found.input, proto.input, strict=False))
    names.update(zip(found.output, proto.output, strict=False))
    stem = next((output for output in proto.output if output), proto.op_type)
    nodes = renamed(found.node, names, f"{stem}/", given)
    imports = {o.domain: o.version for o in found.opset_import}
    default = opset_of_imports(found.opset_import) or opsets[""]
    return Body(nodes, {**opsets, **imports, **dict.fromkeys(ONNX_DOMAINS, default)})


def _specified(
    schema: onnx.defs.OpSchema,
    proto: onnx.NodeProto,
    inputs: Sequence[Node | None],
    opsets: Mapping[str, int],
) -> onnx.FunctionProto | None:
    """The newest body of the specification that is not newer than the model; else the oldest."""
    made = schema.context_dependent_function_opset_versions
    versions = sorted({*schema.function_opset_versions, *made})
    if not versions:
        return None
    version = max((v for v in versions if v <= opsets[""]), default=versions[0])
    if version in made:
        types = [_type_of(node).SerializeToString() for node in inputs]
        data = schema.get_context_dependent_function_with_opset_version(
            version, proto.SerializeToString(), types
        )
    else:
        data = schema.get_function_with_opset_version(version)
    found = onnx.FunctionProto()
    found.ParseFromString(data)
    return found if found.node else None


def _type_of(node: Node | None) -> onnx.TypeProto:
    if node is None:
        return onnx.TypeProto()
    return onnx.helper.make_tensor_type_proto(_elem_type(node.type.dtype), node.shape)


def _elem_type(dtype: DType) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(dtype.numpy))
