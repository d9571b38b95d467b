"""An npm package: the class as WebAssembly behind an ES module with types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdlc.api import CompiledModel
from mdlc.codegen.cpp.emit import answer_code
from mdlc.compiler.errors import MdlcError
from mdlc.package.kind import Kind, package_name
from mdlc.package.records import Language

_ARRAYS = {
    "float32": "Float32Array",
    "float64": "Float64Array",
    "int8": "Int8Array",
    "int16": "Int16Array",
    "uint16": "Uint16Array",
    "float16": "Uint16Array",
    "int32": "Int32Array",
    "uint32": "Uint32Array",
    "int64": "BigInt64Array",
    "uint64": "BigUint64Array",
}
_TYPESCRIPT = Language(
    numbers={"float": "number", "int": "number", "char": "number"},
    lists="{}[]",
    floats="Float32Array",
)
# Modules of Node's, which go before packages.
_BUILT_IN = frozenset(
    """
    assert buffer cluster console constants crypto dgram dns domain events fs http http2 https
    inspector module net os path perf_hooks process punycode querystring readline repl stream
    string_decoder sys timers tls tty url util v8 vm wasi worker_threads zlib
    """.split()  # noqa: SIM905
)


def _place(name: str) -> str:
    return "" if name.endswith(".weights") else "src"


def _more(compiled: CompiledModel) -> Mapping[str, Any]:
    if compiled.plan.threads > 1:
        raise MdlcError(
            "the WebAssembly of a package has one thread", node="--threads", hint="leave it out"
        )
    if package_name(compiled) in _BUILT_IN:
        raise MdlcError(
            f"{package_name(compiled)!r} names a module of Node's",
            node="--name",
            hint="choose another name",
        )
    return {
        "array": lambda port: _ARRAYS.get(port["dtype"], "Uint8Array"),
        "ts": _TYPESCRIPT.type_of,
        "result": _TYPESCRIPT.result(answer_code(compiled.plan)),
    }


KIND = Kind(
    summary="an npm package, WebAssembly behind an ES module",
    steps=(
        "npm run build   # by zig, emscripten or clang, whichever is there",
        "npm pack",
        "npm install ./{package}-1.0.0.tgz   # in your project",
        "import {{ {name} }} from '{package}'; const network = await {name}.load();",
    ),
    place=_place,
    target="wasm-simd128",
    machines=frozenset({"wasm32"}),
    more=_more,
)
