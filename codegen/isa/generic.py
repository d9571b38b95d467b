"""Portable scalar C++17."""

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.cores import SCALAR as CORE
from mdlc.codegen.isa.scalar import SCALAR
from mdlc.compiler.types import DType

ISA = Isa("generic", "portable scalar C++17, any processor", {DType.F32: SCALAR}, CORE)
