"""mdlc: compiles a trained network to a self-contained C++ class and one weights file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdlc.api import CompiledModel, compile
    from mdlc.compiler.errors import MdlcError
    from mdlc.quantization_options import Quantize
    from mdlc.version import __version__

__all__ = ["CompiledModel", "MdlcError", "Quantize", "__version__", "compile"]

_HOMES = {
    "CompiledModel": "mdlc.api",
    "MdlcError": "mdlc.compiler.errors",
    "Quantize": "mdlc.quantization_options",
    "__version__": "mdlc.version",
    "compile": "mdlc.api",
}


def __getattr__(name: str) -> Any:
    """Loads a name when it is first used, so that a part such as mdlc.compiler stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mdlc' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
