"""Inputs of an ONNX model with static shapes, and declared shapes against those inferred."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_load import EXPORT_AGAIN, printable
from mdlc.compiler.onnx_tensors import check_shape, element_type
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.types import Array, DType

OPEN_SIZE = 224  # what hints propose for an open dimension


def import_inputs(
    protos: Sequence[onnx.ValueInfoProto],
    shapes: Mapping[str, Sequence[int]],
    fixed: Mapping[str, float | Sequence[float]] | None = None,
) -> list[Node]:
    """Input nodes; open dimensions come from `shapes`, through a dimension's name also from
    another input's, and an open first dimension is 1. An input without elements is a constant, and
    so is one of `fixed`.

    Raises:
        MdlcError: an input is no tensor, stays open, or `shapes` do not fit.
    """
    fixed = fixed or {}
    for option, names in (("--shape", shapes), ("--fix", fixed)):
        unknown = [name for name in names if name not in {p.name for p in protos}]
        if unknown:
            known = ", ".join(repr(p.name) for p in protos) or "none"
            raise MdlcError(f"the model has no input {unknown[0]!r}", node=option,
                            hint=f"its inputs are {known}")  # fmt: skip
    named: dict[str, int] = {}
    given = {p.name: _given(p, shapes[p.name], named) for p in protos if p.name in shapes}
    inputs = []
    for proto in protos:
        where = f"input {proto.name!r}"
        dtype = element_type(_tensor(proto, where).elem_type, where)
        shape = given[proto.name] if proto.name in given else _static(proto, named)
        check_shape(shape, where, allow_empty=True)
        if proto.name in fixed:
            inputs.append(constant(_fixed(proto.name, fixed[proto.name], shape, dtype), proto.name))
            continue
        inputs.append(
            graph_input(proto.name, shape, dtype)
            if 0 not in shape
            else constant(np.empty(shape, dtype.numpy), proto.name)
        )
    return inputs


def open_inputs(
    protos: Sequence[onnx.ValueInfoProto], shapes: Mapping[str, Sequence[int]]
) -> list[tuple[str, MdlcError, tuple[int, ...]]]:
    """Inputs with open dimensions: the name, what is said of it, and a shape to go on with."""
    named: dict[str, int] = {}
    for proto in protos:
        if proto.name in shapes:
            _given(proto, shapes[proto.name], named)
    found = []
    for proto in protos:
        kind = proto.type.tensor_type
        if proto.name in shapes or not kind.HasField("shape"):
            continue
        try:
            _static(proto, named)
        except MdlcError as error:
            dims = zip(_dims(kind, proto.name), kind.shape.dim, strict=True)
            shape = tuple(
                fixed or named.setdefault(dim.dim_param or f"{proto.name} {i}", OPEN_SIZE)
                for i, (fixed, dim) in enumerate(dims)
            )
            found.append((proto.name, error, shape))
    return found


def _fixed(
    name: str, given: float | Sequence[float], shape: tuple[int, ...], dtype: DType
) -> Array:
    """The value of an input that is fixed."""
    value = np.asarray(given)
    size = int(np.prod(shape))
    if value.size not in (1, size):
        raise MdlcError(f"--fix gives {value.size} values for {size} elements",
                        node=f"input {name!r}", hint="give one value, or one for each")  # fmt: skip
    with np.errstate(all="ignore"):
        made = value.astype(dtype.numpy)
    same = np.array_equal(made.astype(np.float64), value.astype(np.float64), equal_nan=True)
    if not same and not dtype.is_float:
        raise MdlcError(f"--fix gives what {dtype.value} does not hold",
                        node=f"input {name!r}", hint="give whole numbers in range")  # fmt: skip
    return np.broadcast_to(made.reshape(-1), (size,)).reshape(shape)


def _tensor(proto: onnx.ValueInfoProto, where: str) -> onnx.TypeProto.Tensor:
    if not proto.type.HasField("tensor_type"):
        kind = str(proto.type.WhichOneof("value") or "value of no type").removesuffix("_type")
        raise MdlcError(f"is a {kind}, not a tensor", node=where,
                        hint="export the model with tensors only")  # fmt: skip
    return proto.type.tensor_type


def _dims(kind: onnx.TypeProto.Tensor, where: str) -> list[int | None]:
    """Dimensions; None where one is open."""
    dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    # Exporters write 0 and -1 for open dimensions.
    if any(d is not None and d < -1 for d in dims):
        raise MdlcError(f"shape {dims} has a dimension below 1", node=where, hint=EXPORT_AGAIN)
    return [d if d is not None and d > 0 else None for d in dims]


def _given(
    proto: onnx.ValueInfoProto, given: Sequence[int], named: dict[str, int]
) -> tuple[int, ...]:
    where = f"input {proto.name!r}"
    shape = tuple(int(d) for d in given)
    kind = _tensor(proto, where)
    if min(shape, default=0) < 0:
        raise MdlcError(f"--shape gives {min(shape)}, a negative dimension", node=where,
                        hint="write every dimension as a whole number")  # fmt: skip
    if not kind.HasField("shape"):
        return shape
    dims = _dims(kind, where)
    if len(shape) != len(dims):
        raise MdlcError(f"--shape gives {len(shape)} dimensions, the model has {len(dims)}",
                        node=where, hint=f"as in --shape {_example(proto.name, dims)}")  # fmt: skip
    for size, dim in zip(shape, kind.shape.dim, strict=True):
        called = _name(dim)
        if called and named.setdefault(called, size) != size:
            raise MdlcError(
                f"--shape gives {size} for {called!r}, which is {named[called]} elsewhere",
                node=where,
                hint="give dimensions of one name one size",
            )
    return shape


def _name(dim: onnx.TensorShapeProto.Dimension) -> str:
    """What a dimension is called, or "": exporters write ? and None for one of no name."""
    name = str(dim.dim_param)
    return name if name != "None" and any(map(str.isalpha, name)) else ""


def reopened(
    model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]
) -> tuple[onnx.ModelProto, str]:
    """The model with open dimensions where it fixes others than `shapes` give, and which, in words.

    What it declares of other tensors then no longer holds, and goes.
    """
    changed: list[str] = []
    found = model
    for index, proto in enumerate(model.graph.input):
        kind = proto.type.tensor_type
        given = shapes.get(proto.name)
        if given is None or not kind.HasField("shape") or len(kind.shape.dim) != len(given):
            continue
        dims = _dims(kind, f"input {proto.name!r}")
        for position, (fixed, size) in enumerate(zip(dims, given, strict=True)):
            if fixed is None or fixed == size or size < 0:
                continue
            if found is model:
                found = onnx.ModelProto()
                found.CopyFrom(model)
            found.graph.input[index].type.tensor_type.shape.dim[position].Clear()
            changed.append(f"{size} for dimension {position} of input {proto.name!r}, which the "
                           f"model fixes at {fixed}")  # fmt: skip
    if changed:
        del found.graph.value_info[:]
        for output in found.graph.output:
            for dim in output.type.tensor_type.shape.dim:
                dim.Clear()
    return found, " and ".join(changed)


def _static(proto: onnx.ValueInfoProto, named: dict[str, int]) -> tuple[int, ...]:
    where = f"input {proto.name!r}"
    kind = _tensor(proto, where)
    if not kind.HasField("shape"):
        example = _example(proto.name, (1, 3, None, None))
        raise MdlcError("has no shape", node=where, hint=f"give it with --shape {example}")
    dims = _dims(kind, where)
    shape = []
    for position, (fixed, dim) in enumerate(zip(dims, kind.shape.dim, strict=True)):
        size = fixed or named.get(_name(dim))
        if size is None and position == 0:
            size = 1  # the batch
            if _name(dim):
                named[_name(dim)] = size
        if size is None:
            called = f" ({printable(dim.dim_param)})" if dim.dim_param else ""
            raise MdlcError(f"dimension {position}{called} is open", node=where,
                            hint=f"fix it, as in --shape {_example(proto.name, dims)}")  # fmt: skip
        shape.append(int(size))
    return tuple(shape)


def _example(name: str, dims: Sequence[int | None]) -> str:
    sizes = (d or (1 if i == 0 else OPEN_SIZE) for i, d in enumerate(dims))
    return f"{printable(name)}={','.join(map(str, sizes))}"


def check_declared(
    graph: onnx.GraphProto,
    weights: Collection[str],
    values: Mapping[str, Node],
    open_axes: Mapping[str, Collection[int]],
) -> None:
    """The shapes and types that a model declares against those that follow from its operators.

    Where an input has open dimensions, what exporters traced for inner tensors no longer holds,
    nor does a rank where sizes of 1 are squeezed: then only outputs are looked at, and not their
    batch.

    Args:
        open_axes: axes whose length depends on data: the declared one is of some run.

    Raises:
        MdlcError: they disagree.
    """
    inputs = [i for i in graph.input if i.name not in weights]
    is_open = any(None in _dims(i.type.tensor_type, i.name) for i in inputs)
    for proto in graph.output:
        _tensor(proto, f"output {proto.name!r}")
        axes = open_axes.get(proto.name, ())
        _check_value(f"output {proto.name!r}", proto, values[proto.name], axes, is_open)
    if not is_open:
        for proto in graph.value_info:
            if proto.name in values and proto.type.HasField("tensor_type"):
                axes = open_axes.get(proto.name, ())
                _check_value(f"tensor {proto.name!r}", proto, values[proto.name], axes, False)


def _check_value(
    where: str, proto: onnx.ValueInfoProto, node: Node, axes: Collection[int], is_open: bool
) -> None:
    kind = proto.type.tensor_type
    if kind.elem_type and element_type(kind.elem_type, where) != node.type.dtype:
        raise MdlcError(
            f"the model declares {element_type(kind.elem_type, where).value} elements, but its "
            f"operators give {node.type.dtype.value}",
            node=where,
            hint=EXPORT_AGAIN,
        )
    if not kind.HasField("shape"):
        return
    declared = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    if is_open and len(declared) != len(node.shape):
        return
    agrees = len(declared) == len(node.shape) and all(
        d is None or d <= 0 or (is_open and i == 0) or i in axes or d == s
        for i, (d, s) in enumerate(zip(declared, node.shape, strict=False))
    )
    if not agrees:
        shown = f"[{', '.join(str(d) if d else '?' for d in declared)}]"
        raise MdlcError(
            f"the model declares shape {shown}, but its operators give {list(node.shape)}",
            node=where,
            hint=EXPORT_AGAIN,
        )
