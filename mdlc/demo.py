"""The demo: a page on which a class, compiled to WebAssembly, looks at the camera or a picture."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mdlc.api import CompiledModel
from mdlc.codegen.cpp.emit import answer_code
from mdlc.codegen.cpp.kernels_file import source_files
from mdlc.codegen.run.toolchain import BUILD_FLAGS, find_toolchain
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_import import import_model
from mdlc.inputs.preprocess import INPUT_FORMATS, picture_input
from mdlc.inputs.sources import read_model
from mdlc.options import CompileOptions
from mdlc.recipe import completed
from mdlc.sizes import one_size

TARGET = "wasm-simd128"
HOST = "127.0.0.1"
# Bytes of the struct that C fills for a mask: a pointer, two lengths, a stride, a pointer.
_MASK_BYTES = 20
_OF_FRAMES = frozenset({"frame", "fit", "fill", "resample", "match", "yuv", "recipe"})
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".wasm": "application/wasm",
}


def demo_options(model: Path, options: CompileOptions) -> CompileOptions:
    """The options of a class for the page: 8-bit pixels in, and an answer out.

    What nobody said is taken from the network: colours from its channels, an answer where an
    output looks like scores of classes or a map of labels.

    Raises:
        MdlcError: the network does not look at pictures, or what its outputs mean is not known.
    """
    source = read_model(model)
    asked = completed(options, source.onnx)
    shapes = one_size(asked.shapes, "mdlc demo")
    graph = import_model(
        source.path or source.onnx, shapes=shapes, fixed=asked.fixed, bounds=asked.bounds
    )
    picture = picture_input(graph, "mdlc demo")
    known = asked.input_format if asked.input_format in INPUT_FORMATS else None
    pixels = known or ("gray8" if picture.channels == 1 else "rgba8")
    answer = asked.answer or _guessed(graph)
    # The page gives the network its pixels at its own size: nothing is said of frames.
    plain: dict[str, Any] = {
        field.name: field.default for field in fields(asked) if field.name in _OF_FRAMES
    }
    plain |= {"target": TARGET, "c_api": True, "input_format": pixels, "answer": answer}
    return replace(asked, **plain)


def _guessed(graph: Graph) -> str:
    for node in graph.outputs:
        shape = node.shape
        flat = node.type.size == max(shape, default=1) > 1
        if node.type.dtype.is_float and flat and len(graph.outputs) == 1:
            return "classes"
        if node.type.dtype.numpy.kind in "iu" and len(shape) == 3 and shape[0] == 1:
            return "mask"
    raise MdlcError(
        "what the network's outputs mean is not known",
        node="--answer",
        hint="say it, as in --answer yolov8; see the documentation of answers",
    )


def site(compiled: CompiledModel, picture: bytes | None = None) -> dict[str, bytes]:
    """The files of the page by name.

    Args:
        picture: what it looks at first.

    Raises:
        MdlcError: there is no compiler for WebAssembly, or the answer is none for a page.
    """
    code = answer_code(compiled.plan)
    assert code is not None
    assert compiled.plan.answer is not None
    seen = picture_input(compiled.graph, "mdlc demo")
    kind = compiled.plan.answer.kind
    config = {
        "name": compiled.name,
        "model": compiled.model.file_name,
        "width": seen.width,
        "height": seen.height,
        "channels": seen.channels,
        "format": compiled.how.input_format,
        "labels": list(compiled.plan.answer.labels),
        "picture": picture is not None,
        "answer": {
            "kind": kind,
            "bytes": _MASK_BYTES if kind == "mask" else code.dtype.itemsize,
            "layout": None if kind == "mask" else _layout(code.dtype),
        },
    }
    folder = resources.files("mdlc.runtime_templates").joinpath("demo")
    files = {name: folder.joinpath(name).read_bytes() for name in ("index.html", "page.mjs")}
    files["network.mjs"] = folder.joinpath("network.mjs").read_bytes()
    files["config.json"] = json.dumps(config).encode()
    files["network.wasm"] = _built(compiled)
    files["network.weights"] = compiled.files()[f"{compiled.name}.weights"]
    return files | ({} if picture is None else {"picture": picture})


def _layout(kind: np.dtype[Any]) -> dict[str, Any]:
    """How the page reads a value from memory."""
    if kind.subdtype is not None:
        of, shape = kind.subdtype
        count = int(np.prod(shape))
        return {"count": count, "step": of.itemsize, "of": _layout(of)}
    if kind.fields is not None:
        found = {name: [offset, _layout(of)] for name, (of, offset, *_) in kind.fields.items()}
        return {"fields": found}
    return {"type": kind.str.lstrip("<|")}


def _built(compiled: CompiledModel) -> bytes:
    """The class with its functions for C as a WebAssembly module."""
    files, name = compiled.files(), compiled.name
    wanted = ["malloc", "free"]
    wanted += [f"{name}_{word}" for word in ("create", "init_memory", "answer", "error_text")]
    flags = [*BUILD_FLAGS, "-mexec-model=reactor", *(f"-Wl,--export={each}" for each in wanted)]
    toolchain = find_toolchain(compiled.plan.isa, runner=())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for path, data in files.items():
            (folder / path).write_bytes(data)
        sources = [folder / each for each in (*source_files(compiled.plan), f"{name}_c.cpp")]
        toolchain.compile(sources, folder / "network.wasm", flags)
        return (folder / "network.wasm").read_bytes()


def serve(files: Mapping[str, bytes], port: int) -> ThreadingHTTPServer:
    """A server of these files for this machine alone; the caller runs and closes it.

    Args:
        port: 0 for one that is free.

    Raises:
        MdlcError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.split("?")[0].lstrip("/") or "index.html"
            host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
            # A page elsewhere whose name points here is none of ours.
            if host not in (HOST, "localhost") or name not in files:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            data = files[name]
            self.send_response(HTTPStatus.OK)
            kind = _TYPES.get(Path(name).suffix, "application/octet-stream")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise MdlcError(
            f"cannot be served: {error.strerror}", node=f"--port {port}", hint="name another port"
        ) from error
