"""The targets that this machine can build for and run; tests for others skip and say why."""

from __future__ import annotations

import pytest

from mdlc.codegen.isa.registry import find_isa, isas
from mdlc.codegen.run.toolchain import find_toolchain
from mdlc.compiler.errors import MdlcError

TARGETS = tuple(isas())
# Those with float kernels of their own: a target that is tuned as another has the other's.
FLOAT_TARGETS = tuple(name for name, isa in isas().items() if not isa.tuned_as)

# Those that compute in half precision.
HALF_TARGETS = tuple(name for name, isa in isas().items() if isa.half)


def require(target: str) -> None:
    """Skips the test where the target cannot be built or run, with the reason."""
    try:
        find_toolchain(find_isa(target))
    except MdlcError as error:
        pytest.skip(f"{target}: {error}")
