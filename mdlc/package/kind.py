"""What a kind of package is, and its text from templates.

The folder runtime_templates/package/KIND is the package: each template becomes the file of its
path, in which NAME stands for the class and PACKAGE for its name in lower case.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np

import mdlc.package
from mdlc.api import CompiledModel
from mdlc.codegen.answer.code import AnswerCode
from mdlc.codegen.code import C_TYPES
from mdlc.codegen.cpp.c_interface import structs_of, tensor_entry
from mdlc.codegen.cpp.class_text import mat_types_of
from mdlc.codegen.cpp.emit import answer_code, picture_size
from mdlc.codegen.frame.frame import FORMATS
from mdlc.codegen.plan.plan import Port
from mdlc.codegen.templates import render
from mdlc.compiler.errors import MdlcError, choose
from mdlc.package.records import records_of

# Emitted files that a package has of its own.
_NOT_OURS = ("CMakeLists.txt", "main.cpp")


@dataclass(frozen=True)
class Kind:
    """A kind of package.

    Attributes:
        summary: what it is, in a line; steps: what to do with it in its folder, a command a line,
            in which {name} and {package} stand for the class.
        place: the folder for each emitted file, by its name; "" for the package's own, None for
            files that the package has not.
        target: what is compiled for unless told; framed: where the class takes camera frames, which
            one for several targets does not.
        machines: those that it is built for, as triples begin; of any besides: None.
        fixed: options of `compile` that the package is built on.
        more: what templates see besides; extra: files besides, by path.
    """

    summary: str
    steps: tuple[str, ...]
    place: Callable[[str], str | None]
    target: str = "host"
    framed: str | None = None
    machines: frozenset[str] | None = None
    fixed: Mapping[str, Any] = field(default_factory=lambda: {"c_api": True})
    more: Callable[[CompiledModel], Mapping[str, Any]] = lambda compiled: {}
    extra: Callable[[CompiledModel], Mapping[str, bytes]] = lambda compiled: {}

    def files(self, kind: str, compiled: CompiledModel) -> dict[str, bytes]:
        """The package's files by path, without the manifest.

        Args:
            kind: its name.

        Raises:
            MdlcError: the class is for a machine that such packages are not built for.
        """
        self._check(kind, compiled)
        found: dict[str, bytes] = {}
        for name, data in compiled.files().items():
            folder = None if name in _NOT_OURS else self.place(name)
            if folder is not None:
                folder = folder.format(name=compiled.name, package=package_name(compiled))
                found[f"{folder}/{name}".removeprefix("/")] = data
        seen = {**_context(compiled), **self.more(compiled)}
        found |= self.extra(compiled)
        seen["steps"] = self.lines(compiled)
        for template in sorted(_templates(files("mdlc.runtime_templates") / "package" / kind)):
            text = render(f"package/{kind}/{template}", **seen, emitted=sorted(found))
            path = template.removesuffix(".j2")
            path = path.replace("PACKAGE", seen["package"]).replace("NAME", compiled.name)
            found[path] = text.encode()
        return found

    def _check(self, kind: str, compiled: CompiledModel) -> None:
        for plan in compiled.plans or (compiled.plan,):
            machine = plan.isa.toolchain.triple.split("-")[0]
            if machine and self.machines is not None and machine not in self.machines:
                raise MdlcError(
                    f"a package of kind {kind} is not built for {plan.isa.name}",
                    node="--target",
                    hint=f"leave it out ({self.target} is what it is for)",
                )

    def lines(self, compiled: CompiledModel) -> list[str]:
        """What to do with the package."""
        named = {"name": compiled.name, "package": package_name(compiled)}
        return [line.format(**named) for line in self.steps]


@cache
def kinds() -> dict[str, Kind]:
    """All kinds by name: the files of this folder that have a KIND."""
    found = {}
    for module in pkgutil.iter_modules(mdlc.package.__path__):
        loaded = importlib.import_module(f"mdlc.package.{module.name}")
        if hasattr(loaded, "KIND"):
            found[module.name] = loaded.KIND
    return found


def find_kind(name: str) -> Kind:
    """A kind by name.

    Raises:
        MdlcError: there is none of the name.
    """
    if name not in kinds():
        raise MdlcError(
            f"there is no kind of package {name!r}", node="KIND", hint=choose(name, list(kinds()))
        )
    return kinds()[name]


def package_name(compiled: CompiledModel) -> str:
    """The class's name as packages are called: MobileNetV2 becomes mobile_net_v2."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", compiled.name).lower()


def _templates(folder: Traversable, before: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, f"{before}{entry.name}/")
        elif entry.name.endswith(".j2"):
            yield before + entry.name


def _context(compiled: CompiledModel) -> dict[str, Any]:
    """What every template sees."""
    plan = compiled.plan
    answer = answer_code(plan)
    types = mat_types_of(plan)
    return {
        "name": compiled.name,
        "package": package_name(compiled),
        "info": compiled.info,
        "plan": plan,
        "threads": plan.threads,
        "embedded": compiled.embed_weights,
        "answer": answer,
        "structs": structs_of(answer) if isinstance(answer, AnswerCode) else [],
        "records": records_of(answer) if isinstance(answer, AnswerCode) else [],
        "labels": bool(plan.answer and plan.answer.labels),
        "frame": plan.frame_port.identifier if plan.frame_port else "",
        "frame_name": plan.frame_port.name if plan.frame_port else "",
        "formats": list(FORMATS),
        "picture": picture_size(plan),
        "dtype": _fields(answer.dtype) if answer else None,
        "repr": repr,
        "literal": json.dumps,
        "json": json.dumps,
        "inputs": [_port(port, types) for port in plan.inputs],
        "outputs": [_port(port, types) for port in plan.outputs],
    }


def _fields(dtype: np.dtype[Any]) -> Any:
    """What numpy.dtype(..., align=True) makes a dtype of again."""
    if dtype.subdtype is not None:
        return (_fields(dtype.base), dtype.shape)
    if dtype.names is None:
        return dtype.str
    found = []
    for name in dtype.names:
        inner = _fields(dtype[name])
        found.append((name, *inner) if isinstance(inner, tuple) else (name, inner))
    return found


def _port(port: Port, types: list[str]) -> dict[str, Any]:
    """An input or output as templates see it."""
    return tensor_entry(port, types) | {
        "c_type": C_TYPES[port.type.dtype],
        "dtype": port.type.dtype.numpy.name,
        "size": port.type.size,
        "physical_shape": port.type.physical_shape,
    }
