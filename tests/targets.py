"""The targets that this machine can build for and run; tests for others skip and say why.

MDLC_TEST_TARGETS, names with commas between, has every test of emitted code run on those targets,
such as `MDLC_TEST_TARGETS=wasm-simd128 pytest tests/test_kernels.py`.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

from mdlc.codegen.isa.registry import find_isa, isas
from mdlc.codegen.run.toolchain import find_toolchain
from mdlc.compiler.errors import MdlcError

# On these, every test of emitted code runs: processors of phones and of this machine.
MACHINES = ("", "x86_64", "aarch64")
_USUAL = [name for name, isa in isas().items() if isa.toolchain.triple.split("-")[0] in MACHINES]
TARGETS = tuple(os.environ.get("MDLC_TEST_TARGETS", ",".join(_USUAL)).split(","))
# On these, tests/test_other_machines.py and what tests emitted text; not those for which systems
# have no compiler yet (there is zig, which takes a minute to build its standard library).
OTHERS = tuple(n for n, isa in isas().items() if n not in _USUAL and not isa.toolchain.declares)
NEWEST = tuple(name for name in isas() if name not in (*_USUAL, *OTHERS))
# Those with float kernels of their own: a target that is tuned as another has the other's.
FLOAT_TARGETS = tuple(name for name in TARGETS if not find_isa(name).tuned_as)

# Those that compute in half precision.
HALF_TARGETS = tuple(name for name in TARGETS if find_isa(name).half)


def require(target: str) -> None:
    """Skips the test where the target cannot be built or run, with the reason."""
    try:
        find_toolchain(find_isa(target))
    except MdlcError as error:
        pytest.skip(f"{target}: {error}")


def zig(target: str) -> list[str]:
    """The compiler of the ziglang wheel for a target; skips the test where that is missing."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("needs the ziglang wheel")
    toolchain = find_isa(target).toolchain
    return [sys.executable, "-m", "ziglang", "c++", "-target", toolchain.triple, *toolchain.flags]
