"""Element-wise operators with broadcasting: rows on vectors, everything else as scalars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.codegen.code import C_TYPES, Call, Function, Microkernel, Statement, Value
from mdlc.codegen.gemm.strides import Dim, broadcast_strides, joined, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step, View
from mdlc.codegen.tiles.formula import (
    element_function,
    integer_functions,
    integer_literal,
    literal,
    spell_scalar,
    stem,
    vectorisable,
)
from mdlc.codegen.tiles.stored import argument, from_stored, to_stored
from mdlc.compiler.expr import input_
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Elementwise
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.types import Array, DType, Layout, TensorType


def _packed_type(constant: TensorType, node: Node) -> TensorType:
    """A constant operand in the memory order of the result."""
    layout = node.type.layout
    if layout is Layout.PLAIN:
        return constant.with_layout(Layout.PLAIN)
    shape = (1,) * (len(node.shape) - constant.rank) + constant.shape
    return constant.with_shape(shape).with_layout(layout)


class ElementwiseKernel(Kernel):
    """Every operator with a formula."""

    name = "elementwise"
    layer = "Eltwise"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, Elementwise)

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        lanes = isa.half.lanes if isa.half and _converts(node, isa) else isa.lanes
        return (Schedule("rows", (lanes if self._on_vectors(node, isa) else 1,)),)

    @staticmethod
    def _on_vectors(node: Node, isa: KernelIsa) -> bool:
        op = node.op
        assert isinstance(op, Elementwise)
        types = {source.type.dtype for source in node.inputs} | {node.type.dtype}
        expr = op.expr(*(input_(i) for i in range(op.arity)))
        if _converts(node, isa):
            return True
        return types == {isa.dtype} and isa.lanes > 1 and vectorisable(expr, isa)

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size / schedule.tile[0] * (2 + len(node.inputs))

    def in_place(self, node: Node) -> Sequence[int]:
        return [
            i
            for i, source in enumerate(node.inputs)
            if source.type == node.type and source.constant is None
        ]

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        packed = {}
        for i, source in enumerate(node.inputs):
            if source.constant is not None and source.type.size > 1:
                packed[f"operand{i}"] = _packed_type(source.type, node).to_physical(source.constant)
        return packed

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, Elementwise)
        rank = len(node.shape)
        runtime = iter(step.inputs)
        names: list[str] = []
        views: list[View] = []
        inputs: list[str] = []
        single = sum(source.constant is None for source in node.inputs) == 1
        for i, source in enumerate(node.inputs):
            if source.constant is not None and source.type.size == 1:
                names.append("")
                views.append(View.of(source.type.with_shape(()).with_layout(Layout.PLAIN), 0))
            elif source.constant is not None:
                names.append(f"operand{i}")
                views.append(View.of(_packed_type(source.type, node), 0))
            else:
                names.append("x" if single else f"x{i}")
                inputs.append(names[-1])
                views.append(next(runtime))
        strides = [broadcast_strides(view, rank) for view in views]
        own = broadcast_strides(step.output, rank)
        dims = joined(node.shape, [*strides, own], len(strides)) or [
            Dim(1, (0,) * len(strides) + (1,))
        ]
        inner = dims[-1]
        vector = (
            step.schedule.tile[0] > 1
            and inner.strides[-1] == 1
            and all(stride in (0, 1) for stride in inner.strides)
        )
        statement, microkernels, includes = (
            self._vector_row(node, op, isa, dims, names)
            if vector
            else self._scalar_row(node, op, dims, names)
        )
        outer = dims[:-1] if vector else dims
        shape = "x".join(map(str, node.type.physical_shape)) or "scalar"
        name = f"{stem(op)}_{shape}"
        if node.type.dtype is not DType.F32:
            name += f"_{node.type.dtype.value}"
        shapes = ", ".join(str(list(source.shape)) for source in node.inputs)
        joined_ = f"{len(dims)} loop{'s' if len(dims) > 1 else ''} after joining axes."
        return step.function(
            name,
            nest([dim.count for dim in outer], statement, shared=True),
            comment=[f"y = {stem(op)}({shapes}), {joined_}"],
            inputs=inputs,
            needs=microkernels,
            includes=includes,
        )

    @staticmethod
    def _scalar_of(node: Node, index: int) -> str:
        """A single constant as a literal."""
        value = node.inputs[index].constant
        assert value is not None
        item = value.reshape(-1)[0].item()
        dtype = node.inputs[index].type.dtype
        if dtype.is_float:
            return literal(item, dtype)
        if dtype is DType.BOOL:
            return "true" if item else "false"
        return integer_literal(item, dtype)

    def _vector_row(
        self, node: Node, op: Elementwise, isa: KernelIsa, dims: Sequence[Dim], names: Sequence[str]
    ) -> tuple[Statement, tuple[Microkernel, ...], tuple[str, ...]]:
        inner = dims[-1]
        converts = _converts(node, isa)
        kinds = [
            "v" if converts else "s" if not name or not stride else "v"
            for name, stride in zip(names, inner.strides[:-1], strict=True)
        ]
        if converts:
            row = conversion(node.inputs[0].type.dtype, isa, inner.count)
        else:
            row = row_microkernel(op, isa, "".join(kinds), inner.count % isa.lanes != 0)
        operands: list[Value] = []
        for i, (name, kind) in enumerate(zip(names, kinds, strict=True)):
            if not name:
                operands.append(self._scalar_of(node, i))
            else:
                where = pointer(name, dims[:-1], i)
                value = isa.scalar.load(str(where)) if isa.scalar else f"*({where})"
                operands.append(where if kind == "v" else value)
        to = pointer("y", dims[:-1], len(names))
        # Literals of infinities and NaN are numeric_limits.
        literals = [source.constant for source in node.inputs if source.constant is not None]
        includes = () if all(np.all(np.isfinite(v)) for v in literals) else ("limits",)
        return Call(row, (*operands, to), (inner.count,)), (), includes

    def _scalar_row(
        self, node: Node, op: Elementwise, dims: Sequence[Dim], names: Sequence[str]
    ) -> tuple[Statement, tuple[Microkernel, ...], tuple[str, ...]]:
        values, helpers = [], []
        for i, name in enumerate(names):
            dtype = node.inputs[i].type.dtype
            if not name:
                values.append(self._scalar_of(node, i))
                continue
            value = f"*({pointer(name, dims, i)})"
            if dtype is DType.F16 or dtype.is_stored:
                helpers.append(from_stored(dtype))
                value = f"{helpers[-1].name}({value})"
            elif dtype is DType.BOOL:
                value = f"({value} != 0)"
            values.append(value)
        kinds = [source.type.dtype for source in node.inputs]
        integer = not any(kind.is_float for kind in kinds)
        constants = DType.F64 if DType.F64 in kinds else DType.F32
        formula = op.expr(*(input_(i) for i in range(op.arity)))
        result = spell_scalar(formula, values, integer, constants)
        out = node.type.dtype
        if out is DType.BOOL:
            if kinds[0] is DType.BOOL or type(op).__name__ != "Cast":
                result = f"{result} ? 1 : 0"
            else:
                result = f"{result} != 0 ? 1 : 0"
        elif out is DType.F16 or out.is_stored:
            how = (op.saturate, op.round_mode) if isinstance(op, Cast) else ()
            helpers.append(to_stored(out, *how))
            # std::pow of an integer is double.
            if out is not DType.F16 or not all(kind.is_float for kind in kinds):
                result = argument(out, result)
            result = f"{helpers[-1].name}({result})"
        else:
            result = f"static_cast<{C_TYPES[out]}>({result})"
        body = f"*({pointer('y', dims, len(names))}) = {result};"
        includes = {"cstdint"}
        includes |= {"cmath"} if "std::" in result else set()
        includes |= {"limits"} if "numeric_limits" in result else set()
        for called in integer_functions():
            if f"{called.name}(" in result:
                helpers.append(called)
        return body, tuple(dict.fromkeys(helpers)), tuple(sorted(includes))


def _converts(node: Node, isa: KernelIsa) -> bool:
    """Whether vectors convert between half and float."""
    kinds = {node.inputs[0].type.dtype, node.type.dtype} if node.inputs else set()
    return isinstance(node.op, Cast) and isa.half is not None and kinds == {DType.F16, DType.F32}


def conversion(source: DType, isa: KernelIsa, count: int) -> Microkernel:
    """A row of kCount elements converted from half to float or back."""
    half = isa.half
    assert half is not None
    assert half.scalar is not None
    step, tail = half.lanes, count % half.lanes != 0
    wide = half.widened("both")
    floats = [f"y + i + {n * isa.lanes}" if n else "y + i" for n in range(len(wide))]
    if source is DType.F16:
        name, of, to = "widen", half.element, "float"
        value = half.load("x + i")
        body = [
            f"const {half.vector} both = {value};",
            *(f"{isa.store(place, part)};" for place, part in zip(floats, wide, strict=True)),
        ]
        rest = f"y[i] = {half.item('x', 'i')};"
    else:
        name, of, to = "narrow", "float", half.element
        both = half.op("narrow", *(isa.load(place.replace("y", "x")) for place in floats))
        body = [f"{half.store('y + i', both)};"]
        rest = f"{half.set_item('y', 'i', 'x[i]')};"
    name = f"{name}{'_tail' if tail else ''}_row_f16_{isa.suffix}"
    bound = f"kCount - {step - 1}" if tail else "kCount"
    start = "" if tail else "int i = 0"
    lines = ["int i = 0;"] if tail else []
    lines += [f"for ({start}; i < {bound}; i += {step}) {{", *body, "}"]
    lines += ["for (; i < kCount; ++i) {", rest, "}"] if tail else []
    one_by_one = "; the rest one by one"
    text = (
        f"// y[i] = x[i] for kCount elements, {step} at a time{one_by_one if tail else ''}.\n"
        "template <int kCount>\n"
        f"inline void {name}(const {of}* x, {to}* y) {{\n" + "\n".join(lines) + "\n}\n"
    )
    return Microkernel(name, text)


def row_microkernel(op: Elementwise, isa: KernelIsa, kinds: str, tail: bool) -> Microkernel:
    """A row of kCount elements; kinds has "v" for each operand read along, "s" for a scalar."""
    function = element_function(op, isa)
    plain = "v" * len(kinds)
    name = f"{stem(op)}{'_' + kinds if kinds != plain else ''}{'_tail' if tail else ''}_row_"
    name += f"{isa.kind}_{isa.suffix}"
    letters = "abc"[: len(kinds)]
    parameters = [
        f"const {isa.element}* {n}" if kind == "v" else f"float {n}"
        for n, kind in zip(letters, kinds, strict=True)
    ]
    lines = [f"const {isa.vector} {n}_all = {isa.set1(n)};"
             for n, kind in zip(letters, kinds, strict=True) if kind == "s"]  # fmt: skip
    loaded = [
        isa.load(f"{n} + i") if kind == "v" else f"{n}_all"
        for n, kind in zip(letters, kinds, strict=True)
    ]
    called = f"{function.name}({', '.join(loaded)})"
    elements = ", ".join(
        f"{n}[i]" if kind == "v" else n for n, kind in zip(letters, kinds, strict=True)
    )
    items = [isa.item(n, "i") if kind == "v" else n for n, kind in zip(letters, kinds, strict=True)]
    bound = f"kCount - {isa.lanes - 1}" if tail else "kCount"
    lines += [
        "int i = 0;" if tail else "",
        f"for ({'' if tail else 'int i = 0'}; i < {bound}; i += {isa.lanes}) {{",
        f"{isa.store('y + i', called)};",
        "}",
    ]
    includes: tuple[str, ...] = ()
    if tail:
        formula = op.expr(*(input_(i) for i in range(len(kinds))))
        scalar = spell_scalar(formula, items)
        lines += ["for (; i < kCount; ++i) {", f"{isa.set_item('y', 'i', scalar)};", "}"]
        includes = ("cmath",) if "std::" in scalar else ()
        includes += ("limits",) if "numeric_limits" in scalar else ()
    body = "\n".join(f"  {line}" for line in lines if line)
    rest = "; the rest one by one" if tail else ""
    text = (
        f"// y[i] = {stem(op)}({elements}) for kCount elements, {isa.lanes} at a time{rest}.\n"
        f"template <int kCount>\n"
        f"inline void {name}({', '.join([*parameters, f'{isa.element}* y'])}) {{\n{body}\n}}\n"
    )
    return Microkernel(name, text, (function,), includes)


KERNELS = (ElementwiseKernel(),)
