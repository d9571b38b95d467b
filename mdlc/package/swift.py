"""A Swift package over the class for C, for iOS, macOS and Linux."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdlc.api import CompiledModel
from mdlc.codegen.cpp.emit import answer_code
from mdlc.compiler.errors import MdlcError
from mdlc.package.kind import Kind
from mdlc.package.records import Language

_TYPES = {
    "float32": "Float",
    "float64": "Double",
    "int8": "Int8",
    "int16": "Int16",
    "uint16": "UInt16",
    "float16": "UInt16",
    "int32": "Int32",
    "uint32": "UInt32",
    "int64": "Int64",
    "uint64": "UInt64",
}
_SWIFT = Language(
    numbers={"float": "Float", "int": "Int"},
    lists="[{}]",
    floats="[Float]",
    keywords=frozenset(
        """
        as associatedtype break case catch class continue default defer deinit do else enum
        extension fallthrough false fileprivate for func guard if import in init inout internal
        is let nil operator precedencegroup private protocol public repeat rethrows return self
        static struct subscript super switch throw throws true try typealias var where while
        """.split()  # noqa: SIM905
    ),
)


def _place(name: str) -> str:
    if name.endswith(".weights"):
        return "Sources/{name}/Resources"
    return "Sources/C{name}/include" if name.endswith("_c.h") else "Sources/C{name}"


def _more(compiled: CompiledModel) -> Mapping[str, Any]:
    if compiled.embed_weights:
        raise MdlcError(
            "a Swift package has its weights as a resource",
            node="--embed-weights",
            hint="leave it out",
        )
    return {
        "swift": lambda port: _TYPES.get(port["dtype"], "UInt8"),
        "word": _SWIFT.name,
        "field_type": _SWIFT.type_of,
        "result": _SWIFT.result(answer_code(compiled.plan)),
    }


KIND = Kind(
    summary="a Swift package for iOS, macOS and Linux",
    steps=(
        'dependencies: [.package(path: "FOLDER")],  // in your Package.swift, or in Xcode',
        "import {name}",
        "let network = try {name}()",
    ),
    place=_place,
    target="ios",
    machines=frozenset({"aarch64", "x86_64"}),
    framed="arm-neon",
    more=_more,
)
