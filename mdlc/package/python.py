"""A Python wheel: the class as an extension through the interface for C, with NumPy in and out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mdlc.api import CompiledModel
from mdlc.compiler.errors import MdlcError
from mdlc.package.kind import Kind, package_name


def _place(name: str) -> str:
    return "{package}" if name.endswith(".weights") else "src"


def _more(compiled: CompiledModel) -> Mapping[str, Any]:
    name = package_name(compiled)
    if name in sys.stdlib_module_names or name == "numpy":
        raise MdlcError(
            f"{name!r} names a module of Python's", node="--name", hint="choose another name"
        )
    return {}


KIND = Kind(
    summary="a Python package that pip builds, NumPy in and out",
    steps=(
        "pip wheel . --no-deps",
        "pip install {package}-1.0.0-*.whl",
        "python -c 'import {package}; print({package}.{name}.INPUTS)'",
    ),
    place=_place,
    more=_more,
)
