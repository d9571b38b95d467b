"""The class for C: NAME_c.h and NAME_c.cpp, on which packages for other languages are built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.answer.code import AnswerCode
from mdlc.codegen.code import string_literal
from mdlc.codegen.cpp.class_text import MAT_TYPES
from mdlc.codegen.cpp.errors import Error
from mdlc.codegen.cpp.format import format_cpp
from mdlc.codegen.frame.frame import FORMATS
from mdlc.codegen.plan.plan import Plan, Port
from mdlc.codegen.templates import render
from mdlc.compiler.types import Layout

_C = {"i4": "int32_t", "f4": "float"}


@dataclass(frozen=True)
class CStruct:
    """A struct of an answer.

    Attributes:
        name: without the class in front.
        fields: as (type, name, "" or the length of an array); a type that begins in upper case is
            another struct.
    """

    name: str
    fields: tuple[tuple[str, str, str], ...]


def structs_of(answer: AnswerCode) -> list[CStruct]:
    """The structs of an answer that is not a mask, each behind those that it has in it."""
    found: list[CStruct] = []

    def add(name: str, dtype: np.dtype[np.void]) -> None:
        fields = []
        for field in dtype.names or ():
            kind = dtype[field]
            length = str(kind.shape[0]) if kind.shape else ""
            if kind.base.names:
                element = answer.elements[field]
                add(element, kind.base)
                fields.append((element, field, length))
            elif kind.kind == "S":
                fields.append(("char", field, str(kind.itemsize)))
            else:
                fields.append((_C[kind.base.str[1:]], field, length))
        found.append(CStruct(name, tuple(fields)))

    if answer.dtype.names:
        add(answer.type, answer.dtype)
    return found


def tensor_entry(port: Port, types: list[str]) -> dict[str, object]:
    """An input or output as the emitted text describes it."""
    axes = port.type.layout.axes(port.type.rank) if port.type.layout is Layout.NHWC else ()
    return {
        "name": port.name,
        "identifier": port.identifier,
        "type": types.index(MAT_TYPES[port.type.dtype]),
        "shape": port.type.shape,
        "axes": tuple(axes) or tuple(range(port.type.rank)),
        "dims": port.dims,
        "bytes": port.type.nbytes,
    }


def c_interface(
    plan: Plan, context: Mapping[str, object], errors: list[Error], types: list[str]
) -> dict[str, bytes]:
    """The two files.

    Args:
        context: of the class's own templates; types: of a Mat's elements, in order.
    """
    answer = context["answer"]
    given = {
        **context,
        "errors": errors,
        "literal": string_literal,
        "types": types,
        "formats": list(FORMATS),
        "structs": structs_of(answer) if isinstance(answer, AnswerCode) else [],
        "tensors": {
            side: [tensor_entry(port, types) for port in ports]
            for side, ports in (("input", plan.inputs), ("output", plan.outputs))
        },
    }
    name = plan.name
    return {
        f"{name}_c.h": format_cpp(render("cpp/c_header.h.j2", **given), reflow=False).encode(),
        f"{name}_c.cpp": format_cpp(render("cpp/c_source.cpp.j2", **given)).encode(),
    }
