"""Bazel: a rule that runs mdlc as an action, and the network as a library of it.

Unlike the other kinds it holds the model instead of the class: the build makes the class, in an
action whose tool, inputs and outputs are declared, so that caches and remote machines can have it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from mdlc.answers import FILES
from mdlc.api import CompiledModel
from mdlc.codegen.target import SETS, file_endings, find_targets, targets
from mdlc.compiler.errors import MdlcError
from mdlc.package.kind import Kind

# Options whose files the package does not hold.
_OUTSIDE = ("--recipe", "--calibrate", "--tuned")
# What the rule says in attributes of its own.
_OWN = ("--target", "--name")


def _more(compiled: CompiledModel) -> Mapping[str, Any]:
    if len(compiled.model.files) > 1:
        raise MdlcError(
            "a package for Bazel holds the model's one file",
            node=compiled.model.file_name,
            hint="give a model that is one file",
        )
    words = shlex.split(compiled.info.command)[2:]
    options: list[str] = []
    while words:
        word = words.pop(0)
        inside = word.startswith("--answer") and any(f"{key}=" in words[0] for key in FILES)
        if word in _OUTSIDE or inside:
            raise MdlcError(
                "names a file that a package for Bazel does not hold",
                node=word,
                hint="leave it out, and add it to mdlc_library by hand, its files to data",
            )
        if word in _OWN:
            words.pop(0)
        elif word != "--c-api":
            options.append(word)
    names = [name for name in (*targets(), *SETS) if not name.startswith("metal")]
    return {
        "options": options,
        "endings": {name: list(file_endings(find_targets(name))) for name in names},
        "model_file": compiled.model.file_name,
        "targets": [plan.isa.name for plan in compiled.plans or (compiled.plan,)],
    }


def _extra(compiled: CompiledModel) -> Mapping[str, bytes]:
    path = compiled.model.path
    data = compiled.model.onnx.SerializeToString() if path is None else path.read_bytes()
    return {compiled.model.file_name: data}


KIND = Kind(
    summary="a Bazel module whose build runs mdlc",
    steps=(
        "bazel build //:{package}",
        'bazel_dep(name = "{package}", version = "1.0.0")  # in your MODULE.bazel',
        'deps = ["@{package}//:{package}"]  # of your cc_binary',
    ),
    place=lambda name: None,
    more=_more,
    extra=_extra,
)
