"""ONNX nodes against the ONNX specification: inputs, attributes and element types.

The schemas of the onnx package are asked, node by node, with the types that the importer found:
its own checker and shape inference work on whole models, and are not made for hostile ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import onnx

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.types import DType

_ONNX_TYPES = {
    DType.F16: "tensor(float16)",
    DType.F32: "tensor(float)",
    DType.F64: "tensor(double)",
    DType.I8: "tensor(int8)",
    DType.U8: "tensor(uint8)",
    DType.I16: "tensor(int16)",
    DType.U16: "tensor(uint16)",
    DType.I32: "tensor(int32)",
    DType.U32: "tensor(uint32)",
    DType.I64: "tensor(int64)",
    DType.U64: "tensor(uint64)",
    DType.BOOL: "tensor(bool)",
    DType.BF16: "tensor(bfloat16)",
    DType.F8E4M3FN: "tensor(float8e4m3fn)",
    DType.F8E4M3FNUZ: "tensor(float8e4m3fnuz)",
    DType.F8E5M2: "tensor(float8e5m2)",
    DType.F8E5M2FNUZ: "tensor(float8e5m2fnuz)",
    DType.F8E8M0: "tensor(float8e8m0)",
    DType.F6E2M3: "tensor(float6e2m3)",
    DType.F6E3M2: "tensor(float6e3m2)",
    DType.F4E2M1: "tensor(float4e2m1)",
    DType.I4: "tensor(int4)",
    DType.U4: "tensor(uint4)",
    DType.I2: "tensor(int2)",
    DType.U2: "tensor(uint2)",
}

# The schemas say of operators that take any number of inputs that they take 2^31 - 1.
MANY = 1000


@cache
def _schema(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


@cache
def _allowed(op_type: str, opset: int) -> dict[str, frozenset[str]]:
    """Types that each type variable of an operator may be."""
    schema = _schema(op_type, opset)
    assert schema is not None
    return {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}


def check_node(n: OnnxNode, proto: onnx.NodeProto) -> None:
    """Raises MdlcError where a node is not what its operator's specification says."""
    schema = _schema(n.op_type, n.opset)
    if schema is None:
        raise n.error(f"there is no such operator in operator set {n.opset}",
                      hint="export the model with a newer operator set")  # fmt: skip
    if schema.deprecated:
        return
    given = len(n.inputs)
    if not schema.min_input <= given <= schema.max_input:
        takes = _range(schema.min_input, schema.max_input)
        raise n.error(f"has {given} input{'s' * (given != 1)}, where the operator takes {takes}")
    if len(n.outputs) > schema.max_output:
        raise n.error(f"has {len(n.outputs)} outputs, where the operator has {schema.max_output}")
    _check_attributes(n, proto, schema)
    _check_types(n, schema, n.inputs)


def _range(least: int, most: int) -> str:
    if most > MANY:
        return f"{least} or more"
    return str(most) if least == most else f"{least} to {most}"


def _check_attributes(n: OnnxNode, proto: onnx.NodeProto, schema: onnx.defs.OpSchema) -> None:
    for attribute in proto.attribute:
        formal = schema.attributes.get(attribute.name)
        if formal is None:
            raise n.error(f"attribute {attribute.name!r} is unknown to operator set {n.opset}",
                          hint="export the model again")  # fmt: skip
        if int(attribute.type) != int(formal.type.value):
            raise n.error(f"attribute {attribute.name!r} has the wrong type",
                          hint=f"it must be {formal.type.name.lower()}")  # fmt: skip
    for name, formal in schema.attributes.items():
        if formal.required and name not in n.attributes:
            raise n.error(f"attribute {name!r} is missing", hint="export the model again")


def _check_types(n: OnnxNode, schema: onnx.defs.OpSchema, inputs: Sequence[Node | None]) -> None:
    variables = _allowed(n.op_type, n.opset)
    bound: dict[str, tuple[DType, int]] = {}
    formals = schema.inputs
    options = onnx.defs.OpSchema.FormalParameterOption
    for index, node in enumerate(inputs):
        formal = formals[min(index, len(formals) - 1)]
        if node is None:
            if formal.option != options.Optional:
                raise n.error(f"input {index} ({formal.name}) is missing")
            continue
        dtype = node.type.dtype
        variable = formal.type_str
        if _ONNX_TYPES[dtype] not in variables.get(variable, {variable}):
            raise n.error(f"input {index} ({formal.name}) must not be {dtype.value}",
                          hint=f"operator set {n.opset} does not allow it")  # fmt: skip
        if variable not in variables or (
            formal.option == options.Variadic and not formal.is_homogeneous
        ):
            continue
        first, position = bound.setdefault(variable, (dtype, index))
        if first != dtype:
            raise n.error(
                f"input {position} is {first.value} and input {index} is {dtype.value}",
                hint="the two must have one element type",
            )
