"""Tensors and attributes of an ONNX file as numpy arrays and Python values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array, DType

# Larger tensors are no network's; what asks for them is a damaged file.
MAX_ELEMENTS = 2**31 - 1


def initializers(
    graph: onnx.GraphProto, folder: Path | None, used: Collection[str]
) -> Iterator[tuple[str, Array]]:
    """Names and values of the weights that are used; external data is read from `folder`.

    Raises:
        MdlcError: a weight is defined twice, sparse, too short, or its data is missing.
    """
    twice = [name for name, n in Counter(i.name for i in graph.initializer).items() if n > 1]
    if twice:
        raise MdlcError("is defined twice", node=f"weight {twice[0]!r}",
                        hint="export the model again")  # fmt: skip
    if graph.sparse_initializer:
        raise MdlcError(
            "sparse weights are not supported",
            node=f"weight {graph.sparse_initializer[0].values.name!r}",
            hint="export the weights dense",
        )
    for tensor in graph.initializer:
        if tensor.name in used:
            yield tensor.name, tensor_value(tensor, folder)


def element_type(elem_type: int, where: str) -> DType:
    """The DType of an ONNX element type; MdlcError where mdlc has none (strings, bfloat16, ...)."""
    try:
        return DType.from_numpy(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except (KeyError, TypeError, ValueError):
        names = {number: name for name, number in onnx.TensorProto.DataType.items()}
        raise MdlcError(f"element type {names.get(elem_type, elem_type)} is not supported",
                        node=where, hint="export the model in float32") from None  # fmt: skip


def tensor_value(tensor: onnx.TensorProto, folder: Path | None) -> Array:
    """The numpy array of an ONNX tensor."""
    where = f"weight {tensor.name!r}" if tensor.name else "a weight"
    check_shape(tensor.dims, where, allow_empty=True)
    dtype = element_type(tensor.data_type, where)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _external(tensor, dtype, folder, where)
    try:
        value: Array = onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # whatever numpy makes of damaged data
        name = onnx.TensorProto.DataType.Name(tensor.data_type)
        raise MdlcError(
            f"its data does not fit element type {name} and shape {list(tensor.dims)}",
            node=where,
            hint="export the model again",
        ) from error
    return value


def _external(tensor: onnx.TensorProto, dtype: DType, folder: Path | None, where: str) -> Array:
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise MdlcError(f"its data is in a file {location!r} beside the model", node=where,
                        hint="give mdlc the path of the model")  # fmt: skip
    wanted = math.prod(tensor.dims) * dtype.size
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", wanted))
        path = (folder / location).resolve()
        inside = path.is_relative_to(folder.resolve())
    except (ValueError, OSError, RuntimeError):
        offset, length, inside = -1, 0, True
    if not location or not inside:
        raise MdlcError(f"external data {location!r} lies outside the model's folder", node=where,
                        hint="keep it beside the model")  # fmt: skip
    if offset < 0 or length < 0:
        raise MdlcError(f"external data {location!r} has a malformed location", node=where,
                        hint="export the model again")  # fmt: skip
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(wanted)
    except (OSError, OverflowError, ValueError):
        raise MdlcError(f"external data {location!r} is missing", node=where,
                        hint="keep it beside the model") from None  # fmt: skip
    if len(data) < wanted or length < wanted:
        raise MdlcError(f"external data {location!r} is too short", node=where,
                        hint="export the model again")  # fmt: skip
    stored = np.frombuffer(data, dtype.numpy.newbyteorder("<"))
    return stored.astype(dtype.numpy).reshape(tensor.dims)


def check_shape(dims: Sequence[int], where: str, *, allow_empty: bool = False) -> None:
    """Raises MdlcError for dimensions that no network has."""
    if any(d < 0 or (d == 0 and not allow_empty) for d in dims):
        raise MdlcError(f"shape {list(dims)} has a dimension below 1", node=where,
                        hint="export the model again")  # fmt: skip
    if math.prod(d for d in dims if d) > MAX_ELEMENTS:
        raise MdlcError(f"shape {list(dims)} is far too large", node=where,
                        hint=f"a tensor has at most {MAX_ELEMENTS} elements")  # fmt: skip


def attributes_of(node: onnx.NodeProto, folder: Path | None, where: str) -> dict[str, Any]:
    """Attributes as Python values: bytes decoded, tensors as arrays; subgraphs stay protos."""
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        try:
            value = onnx.helper.get_attribute_value(attribute)
        except ValueError:
            raise MdlcError(f"attribute {attribute.name!r} is malformed", node=where,
                            hint="export the model again") from None  # fmt: skip
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, onnx.TensorProto):
            value = tensor_value(value, folder)
        elif attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
            value = list(value)
        elif attribute.type == onnx.AttributeProto.STRINGS:
            value = [each.decode("utf-8", "replace") for each in value]
        found[attribute.name] = value
    return found
