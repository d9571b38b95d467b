"""An Android module: a Kotlin class on JNI, built by Gradle and the NDK's CMake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdlc.api import CompiledModel
from mdlc.codegen.cpp.emit import answer_code
from mdlc.package.kind import Kind
from mdlc.package.records import Language

# The ABIs of Android by the first word of a toolchain's triple; a class for any machine has all.
_ABIS = {"aarch64": "arm64-v8a", "arm": "armeabi-v7a", "x86_64": "x86_64"}

_KOTLIN = Language(
    numbers={"float": "Float", "int": "Int"},
    lists="List<{}>",
    floats="FloatArray",
    keywords=frozenset(
        """
        as break class continue do else false for fun if in interface is null object package return
        super this throw true try typealias typeof val var when while
        """.split()  # noqa: SIM905
    ),
)


def _place(name: str) -> str:
    if name.endswith(".weights"):
        return "src/main/assets"
    if name.endswith(".h") and not name.endswith("_internal.h"):
        return "src/main/cpp/include"
    return "src/main/cpp"


def _more(compiled: CompiledModel) -> Mapping[str, Any]:
    triples = [plan.isa.toolchain.triple for plan in compiled.plans or (compiled.plan,)]
    named = {_ABIS[triple.split("-")[0]] for triple in triples if triple}
    return {
        "abis": sorted(_ABIS.values()) if "" in triples else sorted(named),
        "kotlin": _KOTLIN.type_of,
        "kt": _KOTLIN.name,
        "result": _KOTLIN.result(answer_code(compiled.plan)),
    }


KIND = Kind(
    summary="an Android module for Gradle, with a Kotlin class",
    steps=(
        'include(":{package}")  # in settings.gradle.kts, with this folder as {package}/',
        'implementation(project(":{package}"))  # in the app\'s build.gradle.kts',
        'androidResources {{ noCompress += "weights" }}  # there, too: weights are mapped',
        "{name}(context).use {{ it.infer(image) }}  // in Kotlin",
    ),
    place=_place,
    target="android",
    machines=frozenset(_ABIS),
    framed="arm-neon",
    more=_more,
)
