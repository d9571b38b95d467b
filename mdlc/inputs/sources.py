"""What may be given as a model, brought to ONNX."""

from __future__ import annotations

import difflib
import hashlib
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import load_external_data_for_model

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.onnx_load import load_model

# The exporter of torch changes global state.
_EXPORTING = threading.Lock()


@dataclass(frozen=True)
class Model:
    """A model as given.

    Attributes:
        onnx: the ONNX model; the values of external data are not in it.
        path: its file, where it has one: external data lies beside it.
        stem: what to call it where the caller gives no name.
        file_name: how the emitted header calls it, without folders.
        sha256: of the file, or of the serialised model.
        files: all files that were read, for a depfile.
    """

    onnx: onnx.ModelProto
    path: Path | None
    stem: str
    file_name: str
    sha256: str
    files: tuple[Path, ...]


def read_model(source: Any, example_inputs: Sequence[Any] | None = None) -> Model:
    """Reads a path (.onnx, or .pt2 where torch is installed), bytes, an onnx.ModelProto, or
    exports a torch.nn.Module.

    Args:
        example_inputs: tensors for a torch.nn.Module's forward.

    Raises:
        MdlcError: it cannot be read or exported.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _from_pt2(path) if path.suffix == ".pt2" else _from_file(path)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        model, _ = load_model(data)
        return _in_memory(model, data, model.graph.name)
    if isinstance(source, onnx.ModelProto):
        return _in_memory(source, _serialised(source), source.graph.name)
    if hasattr(source, "forward") and hasattr(source, "state_dict"):
        return _from_module(source, example_inputs)
    raise MdlcError(
        f"a {type(source).__name__} is no model",
        hint="give a path, bytes, an onnx.ModelProto or a torch.nn.Module",
    )


def with_outputs(model: Model, names: Sequence[str]) -> Model:
    """The model with tensors inside it as further outputs, after its own.

    Args:
        names: of tensors, or of nodes, whose first output is meant.

    Raises:
        MdlcError: there is no such tensor.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.onnx)
    if model.path is not None:  # the file lacks the outputs, so it is not read again
        load_external_data_for_model(proto, str(model.path.parent))
    graph = proto.graph
    made = [output for node in graph.node for output in node.output if output]
    first = {node.name: node.output[0] for node in graph.node if node.name and node.output}
    had = {output.name for output in graph.output}
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    declared = {value.name: value for value in inferred.value_info}
    for name in names:
        tensor = name if name in made else first.get(name)
        if tensor is None:
            near = difflib.get_close_matches(name, [*made, *first], 1)
            raise MdlcError(
                f"the model has no tensor or node {name!r}",
                node="--also",
                hint=f"did you mean {near[0]}?" if near else "mdlc inspect lists the layers",
            )
        if tensor not in had:
            had.add(tensor)
            unknown = onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None)
            graph.output.append(declared.get(tensor, unknown))
    return replace(model, onnx=proto, path=None)


def _in_memory(model: onnx.ModelProto, data: bytes, name: str) -> Model:
    stem = name or "model"
    return Model(model, None, stem, f"{stem}.onnx", hashlib.sha256(data).hexdigest(), ())


def _serialised(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def _from_file(path: Path) -> Model:
    model, folder = load_model(path)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise MdlcError(f"cannot be read: {error.strerror}", node=str(path)) from None
    beside = sorted(
        {
            entry.value
            for tensor in model.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
    )
    files = (path, *((folder or path.parent) / name for name in beside))
    return Model(model, path, path.stem, path.name, digest, files)


def _from_pt2(path: Path) -> Model:
    torch = _torch(f"reading {path.name}")
    if not path.exists():
        raise MdlcError("there is no such file", node=str(path), hint="check the path")
    try:
        with _EXPORTING, _quiet():
            program = torch.export.load(str(path))
    except Exception as error:
        raise MdlcError(
            "is no program that torch.export.load reads",
            node=str(path),
            hint="save it with torch.export.save, by the same torch version",
        ) from error
    model = _exported(torch, program, (), str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model(model, None, path.stem, path.name, digest, (path,))


def _from_module(module: Any, example_inputs: Sequence[Any] | None) -> Model:
    torch = _torch("compiling a torch.nn.Module")
    if example_inputs is None:
        raise MdlcError(
            "a torch.nn.Module needs example inputs",
            node=type(module).__name__,
            hint="give compile(..., example_inputs=(tensor, ...))",
        )
    if isinstance(example_inputs, torch.Tensor):
        example_inputs = (example_inputs,)
    with _EXPORTING, _quiet():
        was_training = module.training
        module.eval()
        try:
            program = torch.export.export(module, tuple(example_inputs))
        except Exception as error:
            raise MdlcError(
                f"torch.export fails: {_first_line(error)}", node=type(module).__name__
            ) from error
        finally:
            module.train(was_training)
    model = _exported(torch, program, (), type(module).__name__)
    return _in_memory(model, _serialised(model), type(module).__name__)


def _exported(torch: Any, program: Any, args: tuple[Any, ...], where: str) -> onnx.ModelProto:
    """The ONNX model of an exported program; its text names no file of this machine."""
    with _EXPORTING, _quiet():
        try:
            result = torch.onnx.export(program, args, dynamo=True, verbose=False)
        except ImportError as error:
            raise MdlcError(
                f"torch's ONNX exporter needs {error.name or 'a package'}",
                node=where,
                hint="pip install 'mdlc[torch]'",
            ) from error
        except Exception as error:
            raise MdlcError(f"the ONNX export fails: {_first_line(error)}", node=where) from error
    data = io.BytesIO()
    result.save(data)
    model = onnx.load_from_string(data.getvalue())
    for node in model.graph.node:  # stack traces with paths
        del node.metadata_props[:]
    for info in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del info.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _torch(purpose: str) -> Any:
    try:
        import torch
        import torch.export
    except ImportError:
        raise MdlcError(f"{purpose} needs torch", hint="pip install 'mdlc[torch]'") from None
    return torch


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
