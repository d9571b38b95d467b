"""What a layer is, in words: the comments on layers in emitted files."""

from __future__ import annotations

from mdlc.codegen.cpp.class_text import quoted, shape_text
from mdlc.codegen.kernel import Step
from mdlc.compiler.op import Op
from mdlc.compiler.words import attributes, in_words, work


def describe(step: Step, *, with_kernel: bool = True) -> str:
    """A layer in a few words: what it computes and fuses, its shapes and work, and its kernel."""
    node = step.node
    parts = [operation(step)]
    first = node.inputs[0].type if node.inputs else node.type
    parts.append(f"{shape_text(first)} -> {shape_text(node.type)}")
    macs = node.op.cost([source.type for source in node.inputs], node.type).macs
    if macs >= 5000:
        parts.append(work(macs))
    schedule = str(step.schedule)
    how = step.kernel.name
    if schedule != how:
        how += f" ({schedule})"
    tensor = f" Tensor {quoted(node.name)}." if node.name else ""
    parts += [f"kernel {how}"] if with_kernel else []
    return f"{'; '.join(parts)}.{tensor}"


def operation(step: Step) -> str:
    """What a layer computes and fuses: Conv2D 3x3, padding 1, then Relu."""
    size = _filter(step)
    return (in_words(step.node.op, size) if size else step.node.op.words) + _fused(step.node.op)


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
        details = ", ".join(attributes(activation))
        words.append(f"then {type(activation).__name__}{f' ({details})' if details else ''}")
    return "".join(f", {word}" for word in words)
