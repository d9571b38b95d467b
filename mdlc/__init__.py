"""mdlc: compiles a trained network to a self-contained C++ class and one weights file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdlc.api import CompiledModel, compile
    from mdlc.chain import CompiledChain, compile_chain
    from mdlc.compiler.errors import MdlcError
    from mdlc.options import CompileOptions
    from mdlc.precision.quantize import Quantize
    from mdlc.version import __version__

__all__ = [
    "CompileOptions",
    "CompiledChain",
    "CompiledModel",
    "MdlcError",
    "Quantize",
    "__version__",
    "compile",
    "compile_chain",
]

# In a checkout the other folders of the package lie beside this one; without this line,
# `python -m mdlc` there would need an editable install.
if not (Path(__file__).parent / "codegen").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

_HOMES = {
    "CompileOptions": "mdlc.options",
    "CompiledChain": "mdlc.chain",
    "CompiledModel": "mdlc.api",
    "MdlcError": "mdlc.compiler.errors",
    "Quantize": "mdlc.precision.quantize",
    "__version__": "mdlc.version",
    "compile": "mdlc.api",
    "compile_chain": "mdlc.chain",
}


def __getattr__(name: str) -> Any:
    """Loads a name when it is first used, so that a part such as mdlc.compiler stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mdlc' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
