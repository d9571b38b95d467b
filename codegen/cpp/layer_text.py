"""What a layer is, in words: the comments on layers in emitted files."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator
from typing import Any

from mdlc.codegen.cpp.class_text import quoted, shape_text
from mdlc.codegen.kernel import Step
from mdlc.compiler.op import Op
from mdlc.compiler.window import Window

# Attributes that name themselves otherwise, and those that say nothing to a reader of the header.
_WORDS = {
    "pads": "padding",
    "dtype": "to",
    "ceil_mode": "rounded up",
    "x_zero": "input zero point",
    "y_zero": "output zero point",
    "x_scale": "input scale",
    "y_scale": "output scale",
    "a_zero": "zero point of the first input",
    "b_zero": "zero point of the second input",
}
# Longer lists (a value for every channel) are counted.
_LONGEST_LIST = 8


def describe(step: Step) -> str:
    """A layer in a few words: what it computes and fuses, its shapes and work, and its kernel."""
    node = step.node
    parts = [operation(node.op, _filter(step)) + _fused(node.op)]
    first = node.inputs[0].type if node.inputs else node.type
    parts.append(f"{shape_text(first)} -> {shape_text(node.type)}")
    macs = node.op.cost([source.type for source in node.inputs], node.type).macs
    if macs >= 5000:
        parts.append(f"{macs / 1e6:.2f} million multiply-adds")
    schedule = str(step.schedule)
    how = step.kernel.name
    if schedule != how:
        how += f" ({schedule})"
    tensor = f" Tensor {quoted(node.name)}." if node.name else ""
    return f"{'; '.join(parts)}; kernel {how}.{tensor}"


def _filter(step: Step) -> str:
    """Height and width of a convolution's filter."""
    node = step.node
    if len(node.inputs) < 2 or node.type.rank != 4 or node.inputs[1].type.rank != 4:
        return ""
    if node.inputs[1].constant is None or not hasattr(node.op, "groups"):
        return ""
    return "x".join(map(str, node.inputs[1].shape[2:]))


def _fused(op: Op) -> str:
    """What a convolution's epilogue computes."""
    words = []
    if getattr(op, "residual", False):
        words.append("plus a residual")
    activation = getattr(op, "activation", None)
    if activation is not None:
        details = ", ".join(_attributes(activation))
        words.append(f"then {type(activation).__name__}{f' ({details})' if details else ''}")
    return "".join(f", {word}" for word in words)


def operation(op: Op, size: str = "") -> str:
    """An operator with the attributes that are not as usual: MaxPool2D 3x3, stride 2, padding 1.

    Args:
        size: of its filter.
    """
    head = type(op).__name__
    words = list(_attributes(op))
    window = next((f for f in vars(op).values() if isinstance(f, Window)), None)
    size = size or ("x".join(map(str, window.kernel)) if window else "")
    return ", ".join([f"{head} {size}".rstrip(), *words])


def _attributes(what: Any) -> Iterator[str]:
    """The attributes of an operator, or of a part of one, that differ from their defaults."""
    for field in dataclasses.fields(what):
        value = getattr(what, field.name)
        hidden = field.name in ("kernel", "residual", "activation")
        if hidden or value is None or value == field.default:
            continue
        if isinstance(value, Window):
            yield from _attributes(value)
            continue
        label = _WORDS.get(field.name, field.name.replace("_", " "))
        if value is True:
            yield label
        elif value is False:
            yield f"no {label}"
        elif dataclasses.is_dataclass(value):
            inner = list(_attributes(value))
            yield f"{label} {type(value).__name__}{' (' + ', '.join(inner) + ')' if inner else ''}"
        else:
            yield f"{label} {_value(field.name, value)}"


def _value(name: str, value: Any) -> str:
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else ("infinity" if value > 0 else "-infinity")
    if isinstance(value, tuple):
        if len(value) > _LONGEST_LIST:
            return f"of {len(value)} values"
        if len(value) > 1 and len(set(value)) == 1 and name in ("stride", "pads", "dilation"):
            return _value(name, value[0])
        if name in ("stride", "dilation"):
            return "x".join(map(str, value))
        listed = ", ".join(_value("", each) for each in value)
        if name == "pads" and len(value) == 4:
            return f"({listed}) at top, left, bottom, right"
        return f"({listed})"
    return str(value)
