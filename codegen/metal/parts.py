"""What all convolutions do with constants, and what follows their sums."""

from __future__ import annotations

import numpy as np

from mdlc.codegen.kernel import Step
from mdlc.codegen.metal import msl
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import LANES
from mdlc.codegen.metal.kernel import image_of
from mdlc.codegen.tiles.formula import stem
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array

HALF_MAX = 65504.0


def padded(values: Array, axis: int) -> Array:
    """Zeros appended along an axis up to a multiple of four."""
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, -values.shape[axis] % LANES)
    return np.pad(values, widths)


def vectors(values: Array) -> Array:
    """Per-channel constants, in float.

    Their error is that of every pixel, so that nothing averages it out: half biases and half
    depthwise filters moved more of Deeplab's mask than all other half weights and activations
    together, and they are a few bytes.
    """
    return padded(values.reshape(-1), 0).astype(np.float32)


def stored_filters(weights: Array, metal: Metal) -> Array:
    """Weights as they are stored: in half, unless the target computes in float or one overflows."""
    narrow = not metal.in_float and np.abs(weights).max(initial=0.0) < HALF_MAX
    return weights.astype(np.float16 if narrow else np.float32)


def vector_type(array: Array) -> str:
    """The kernel's type of packed per-channel constants."""
    return "half4" if array.dtype == np.float16 else "float4"


def activation_of(node: Node) -> Elementwise | None:
    """The fused activation."""
    return getattr(node.op, "activation", None)


def constant(node: Node, index: int) -> Array:
    """The value of a constant input."""
    value = node.inputs[index].constant
    assert value is not None
    return value


def epilogue(node: Node, step: Step, number: str, at: str, sums: str) -> tuple[list[str], str]:
    """What follows the sums: residual, activation; the result is of the sums' type.

    Args:
        number: ending of the names of this pixel.
        at: how the residual is read.
        sums: half4 or float4.
    """
    lines, value = [], f"sum{number}"
    if getattr(node.op, "residual", False):
        kind = f"{image_of(step.inputs[-1]).element}4"
        lines.append(f"{value} += {as_vector(sums, kind, at)};")
    activation = activation_of(node)
    if activation is not None:
        operands = [value] + (["slope"] if activation.arity == 2 else [])
        spelled = msl.spell(msl.formula(activation), sums, operands)
        # Names of parts belong to one pixel.
        lines.append("{")
        lines += spelled.statements
        lines.append(f"{value} = {spelled.result};")
        lines.append("}")
        if not spelled.statements:
            lines[-3:] = [lines[-2]]
    return lines, value


def as_vector(wanted: str, kind: str, text: str) -> str:
    """An expression of type `kind` as one of type `wanted`."""
    return text if wanted == kind else f"{wanted}({text})"


def suffix(node: Node) -> str:
    """The ending of a kernel's name: what is fused."""
    parts = ["add"] if getattr(node.op, "residual", False) else []
    activation = activation_of(node)
    parts += [stem(activation)] if activation else []
    return "".join(f"_{part}" for part in parts)
