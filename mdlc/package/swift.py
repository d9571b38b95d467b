"""A Swift package over the class for C, for iOS, macOS and Linux."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdlc.api import CompiledModel
from mdlc.codegen.answer.code import AnswerCode
from mdlc.codegen.cpp.emit import answer_code
from mdlc.compiler.errors import MdlcError
from mdlc.package.kind import Kind
from mdlc.package.records import Field, records_of

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
_KEYWORDS = frozenset(
    """
    as associatedtype break case catch class continue default defer deinit do else enum extension
    fallthrough false fileprivate for func guard if import in init inout internal is let nil
    operator precedencegroup private protocol public repeat rethrows return self static struct
    subscript super switch throw throws true try typealias var where while
    """.split()  # noqa: SIM905
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
    answer = answer_code(compiled.plan)
    return {
        "swift": lambda port: _TYPES.get(port["dtype"], "UInt8"),
        "word": lambda name: f"`{name}`" if name in _KEYWORDS else name,
        "field_type": _field_type,
        "result": _result(answer),
    }


def _field_type(field: Field) -> str:
    """A field's type in Swift."""
    word = {"float": "Float", "int": "Int"}.get(field.kind, field.kind)
    return word if field.count is None else f"[{word}]"


def _result(answer: AnswerCode | None) -> str:
    """What infer returns in Swift."""
    if answer is None:
        return "Outputs"
    if answer.type in ("Mask", "Text"):
        return answer.type
    if answer.type == "Embedding":
        return "[Float]"
    return f"[{records_of(answer)[-1].fields[-1].kind}]"


KIND = Kind(
    summary="a Swift package for iOS, macOS and Linux",
    steps=(
        'dependencies: [.package(path: "FOLDER")],  // in your Package.swift, or in Xcode',
        "import {name}",
        "let network = try {name}()",
    ),
    place=_place,
    target="ios",
    framed="arm-neon",
    more=_more,
)
