"""The bill of materials of an emitted class, as CycloneDX."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from mdlc.compiler.errors import MdlcError

if TYPE_CHECKING:
    from mdlc.api import CompiledModel

# What decides on the text that is emitted.
TOOLS = ("mdlc", "onnx", "numpy", "jinja2", "clang-format", "networkx")


def sbom(compiled: CompiledModel) -> bytes:
    """A CycloneDX 1.6 document: the class, its files, the model it came from and what made it.

    It has neither a time nor a serial number, so that it is the same bytes each time.

    Raises:
        MdlcError: the library that writes it is not installed.
    """
    try:
        from cyclonedx.model import HashAlgorithm, HashType, Property
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.model.dependency import Dependency
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError:
        raise MdlcError("needs cyclonedx-python-lib", node="--sbom",
                        hint="pip install 'mdlc[sbom]'") from None  # fmt: skip

    def digest(hexadecimal: str) -> HashType:
        return HashType(alg=HashAlgorithm.SHA_256, content=hexadecimal)

    info, plans = compiled.info, compiled.plans or (compiled.plan,)
    files = [
        Component(
            name=name, type=ComponentType.FILE, bom_ref=f"file:{name}",
            hashes=[digest(hashlib.sha256(text).hexdigest())],
        )
        for name, text in sorted(compiled.files().items())
    ]  # fmt: skip
    model = Component(
        name=info.model,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        hashes=[digest(info.sha256)],
    )
    whole = Component(
        name=compiled.name,
        type=ComponentType.LIBRARY,
        bom_ref="class",
        version=info.sha256[:16],
        description="a C++ class compiled from a trained network; it links no library of mdlc's",
        components=files,
        properties=[
            Property(name="mdlc:command", value=info.command),
            *(Property(name="mdlc:target", value=plan.backend.name) for plan in plans),
        ],
    )
    bom = Bom(components=[model])
    bom.metadata.component = whole
    for name in TOOLS:
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        tool = Component(name=name, type=ComponentType.APPLICATION, version=found,
                         bom_ref=f"tool:{name}")  # fmt: skip
        bom.metadata.tools.components.add(tool)
    bom.dependencies.add(
        Dependency(ref=whole.bom_ref, dependencies=[Dependency(ref=model.bom_ref)])
    )
    bom.dependencies.add(Dependency(ref=model.bom_ref))
    text = json.loads(JsonV1Dot6(bom).output_as_string())
    text["metadata"].pop("timestamp", None)
    text.pop("serialNumber", None)
    return (json.dumps(text, indent=1, sort_keys=True) + "\n").encode()
