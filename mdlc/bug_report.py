"""A bug report: what there is to know of a model that goes wrong, without its weights."""

from __future__ import annotations

import io
import traceback
import zipfile
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from mdlc.api import CompiledModel
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import Array
from mdlc.environment import environment

# Constants of so many elements are taken for weights; smaller ones are shapes, axes, scales.
FEW = 64
# Values in their place, over and over: not all alike, and short in an archive.
_PATTERN = 251
# Of every entry of the archive, so that the same report is the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same operators, shapes, types and small constants; other values in place of weights.

    Texts that describe the model, and its metadata, are left out.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.doc_string = ""
    del made.metadata_props[:]
    _strip(made.graph)
    for function in made.functions:
        for node in function.node:
            _strip_node(node)
    return made


def _strip(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for tensor in graph.initializer:
        _replace(tensor)
    for sparse in graph.sparse_initializer:
        _replace(sparse.values)
    for node in graph.node:
        _strip_node(node)


def _strip_node(node: onnx.NodeProto) -> None:
    node.doc_string = ""
    del node.metadata_props[:]
    for attribute in node.attribute:
        for tensor in (attribute.t, *attribute.tensors):
            if tensor.dims:
                _replace(tensor)
        if len(attribute.floats) > FEW:
            values = np.resize(_values(np.float32), len(attribute.floats))
            del attribute.floats[:]
            attribute.floats.extend(values.tolist())
        for graph in (attribute.g, *attribute.graphs):
            _strip(graph)


def _values(dtype: npt.DTypeLike) -> Array:
    return (np.arange(_PATTERN) * 7 % _PATTERN / _PATTERN - 0.5).astype(dtype)


def _replace(tensor: onnx.TensorProto) -> None:
    """Puts other values into a constant of many elements; integers stay between 0 and the largest,
    as they may be indices."""
    size = int(np.prod(tensor.dims, dtype=np.int64))
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    if size <= FEW or kind.kind == "O":
        return
    values = _values(kind)
    if kind.kind in "iub":
        most = 1
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            most = max(int(numpy_helper.to_array(tensor).max(initial=0)), 0)
        values = (np.arange(_PATTERN) * 7 % _PATTERN % (most + 1)).astype(kind)
    tensor.CopyFrom(numpy_helper.from_array(np.resize(values, tuple(tensor.dims)), tensor.name))


def bug_report(
    model: onnx.ModelProto,
    command: str,
    compile_it: Callable[[], CompiledModel],
    judge: Callable[[CompiledModel], str] | None = None,
) -> bytes:
    """An archive: environment.txt, command.txt, outcome.txt and model.onnx without its weights.

    Args:
        command: how the model is compiled.
        compile_it: compiles it, as it is.
        judge: says what is wrong with the class, where it compiles.
    """
    stripped = without_weights(model)
    outcome = _outcome(compile_it, judge)
    again = f"the model without its weights {_imported(stripped)}"
    entries = {
        "environment.txt": environment(),
        "command.txt": command,
        "outcome.txt": f"{outcome}\n\n{again}",
        "model.onnx": stripped.SerializeToString(deterministic=True),
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            text = content + "\n" if isinstance(content, str) else content
            archive.writestr(zipfile.ZipInfo(name, _TIME), text, zipfile.ZIP_DEFLATED)
    return data.getvalue()


def _imported(model: onnx.ModelProto) -> str:
    try:
        import_model(model)
    except MdlcError as error:
        return f"is refused: {error}"
    except Exception as error:
        return f"stops the importer: {type(error).__name__}"
    return "is imported"


def _outcome(
    compile_it: Callable[[], CompiledModel], judge: Callable[[CompiledModel], str] | None
) -> str:
    """What happens with the model as it is; of mdlc's own errors the traceback, without paths."""
    try:
        compiled = compile_it()
    except MdlcError as error:
        return f"refused: {error}"
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)
        frames = [f"  {each.filename.rpartition('/')[2]}:{each.lineno} {each.name}" for each in at]
        return "\n".join([f"internal error: {type(error).__name__}: {error}", *frames])
    lines = [str(compiled.report())]
    if judge is not None:
        try:
            lines.insert(0, judge(compiled) or "every layer is within its bound")
        except MdlcError as error:
            lines.insert(0, f"not judged: {error}")
    else:
        lines.insert(0, "compiles; whether it is right was not asked (--verify)")
    return "\n\n".join(lines)
